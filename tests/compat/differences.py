"""Where Shoal differs from the real nutcracker for its clients and its figures, and why: the one table of it.

Each scene of the tests named test_*_like_nutcracker observes things by name; here stands, for those that differ, what
nutcracker shows, what Shoal shows, and the reason. The tests hold both sides to it: a difference that is not here is a
bug, and so is one that is here and is gone. Figures of the statistics follow from what is said beside them.

Differences of other kinds have tables of their own: of files in test_nutcracker_syntax, of flags in
test_nutcracker_flags.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

CLOSED: Final = "(closed)"
"""An observation: the end of the connection."""
DOUBT: Final = 'INDOUBT write to shard "s0" was sent but not confirmed before its master was lost'
UNKNOWN: Final = "ERR unknown"
RESET: Final = "ERR Connection reset by peer"
INVALID: Final = "ERR Invalid argument"

RESENT: Final = (
    "a read that was sent and not answered is sent once more, which harms nothing; so its connections and requests are"
    " more, and what remains is told in words where nutcracker has an errno of 0 (`unknown`)"
)
IN_DOUBT: Final = "a write that was sent and not answered may have been done: its client is told so"
STAYS_OPEN: Final = "an error is answered, and the connection stays: a client takes an end for a failure of the proxy"
PASSED_ON: Final = (
    "the server's own words are passed on and its connection is kept: it is there, and says what is wrong"
)
TIMED_ALONE: Final = "each request is timed by itself and its server's connection is kept; a late reply goes to nobody"
WHOLE_OR_NOT: Final = "a command over several servers is sent when all of them can take their part, or not at all"
SAID_BY_A_SHARD: Final = "a shard's error is passed on with the shard's name and with what was done on the others"
FRAGMENTS: Final = "nutcracker has the figure and never counts it"
MSET_TWICE: Final = "nutcracker counts the values in the parts of an MSET twice"
AS_REDIS: Final = "answered as Redis answers it"
ACROSS: Final = "keys of several servers: split where the replies can be merged, refused where they cannot"
LONG_KEYS: Final = "a key may be as long as a value; nutcracker's must fit its buffer"
LEAVES: Final = "a client has left when it says so, not when the last server has answered it"
LIMIT: Final = "`client_connections` is enforced; nutcracker reads it and does nothing with it"
UNIX: Final = "nutcracker counts a connection to a unix socket down when it closes, and never up"
ORDER: Final = "a client keeps its connection to a server, and so the order of its requests there"
ONE_INCIDENT: Final = "connections that end together are one failure, for the workers have more than one in any case"
UNGREETED: Final = "a server that refuses the password or the database gets no request, and its own words say why"
AUTH_FIRST: Final = "AUTH goes ahead of SELECT, which a server with a password refuses otherwise"


class Difference(NamedTuple):
    """One reason, and what differs for it: by the name of the observation what nutcracker and what Shoal shows."""

    why: str
    seen: dict[str, tuple[Any, Any]]


def known_of(scene: str) -> dict[str, tuple[Any, Any]]:
    """What differs in a scene."""
    return {what: pair for difference in DIFFERENCES.get(scene, ()) for what, pair in difference.seen.items()}


def answers(theirs: list[Any], ours: list[Any], *names: str) -> dict[str, tuple[Any, Any]]:
    """The same pair under each of these names."""
    return dict.fromkeys(names or ("answers",), (theirs, ours))


def instead_of_closing(heard: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What Shoal answers where nutcracker closes the connection: a list of answers, or the only one."""
    return {said: ([CLOSED], answer if isinstance(answer, list) else [answer]) for said, answer in heard.items()}


def figures(text: str) -> dict[str, tuple[Any, Any]]:
    """Statistics: `name theirs ours, name theirs ours`."""
    rows = (row.split() for row in text.split(", "))
    return {f"stats {name}": (int(theirs), int(ours)) for name, theirs, ours in rows}


def _arity(name: str) -> str:
    return f"ERR wrong number of arguments for '{name}' command"


_WRONG_PASSWORD = "ERR greeting refused: -WRONGPASS invalid username-password pair or user is disabled."
_HELLO_FIRST = (
    "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> "
    "option can be used to authenticate the client and select the RESP protocol version at the same time"
)
_READ_TWICE = figures("forward_error 3 0, s0.server_connections 0 1, s0.requests 5 8, s0.responses 2 5")
_SENT_TWICE = {"sent": ([b"GET a", b"GET b", b"GET c"], [b"GET a", b"GET b", b"GET c", b"GET c", b"GET d", b"GET e"])}
_KEPT = "forward_error 2 0, s0.server_err 1 0, s0.server_connections 0 1, s0.responses 1 3"
_MSET_BYTES = Difference(
    MSET_TWICE, figures("s0.request_bytes 345 331, s1.request_bytes 200 186, s2.request_bytes 213 206")
)
_OPEN = Difference(STAYS_OPEN, figures("client_eof 5 6, client_err 1 0"))


def _doubt(*fates: str) -> list[Any]:
    """What is said of a split write whose parts have these fates."""
    return ["INDOUBT write to shards " + ", ".join(f'"s{number}" ({fate})' for number, fate in enumerate(fates))]


def _said_by_a_shard(error: str) -> tuple[Difference, ...]:
    """The last of three servers answers each part with this error."""
    plain, write = [f'{error} (shard "s2")', b"key100"], [f'{error} (shard "s2"; done on "s0", "s1")', b"key100"]
    return (
        Difference(SAID_BY_A_SHARD, answers([INVALID, b"key100"], write, "DEL", "UNLINK", "MSET")),
        Difference(
            SAID_BY_A_SHARD, answers([INVALID, b"key100"], plain, "TOUCH", "MGET") | figures("forward_error 5 0")
        ),
        Difference(FRAGMENTS, figures("fragments 0 15")),
        _MSET_BYTES,
    )


def _forgiven(reply: str) -> tuple[Difference, ...]:
    theirs, ours = ([[lost], [reply], [lost], [reply], [lost], [lost], ["OK"]] for lost in (UNKNOWN, DOUBT))
    return (Difference(IN_DOUBT, answers(theirs, ours)),)


DIFFERENCES: Final[dict[str, tuple[Difference, ...]]] = {
    # ------------------------------------------------------------------------------------- a server that goes away
    "closes_among_reads": (Difference(RESENT, answers([UNKNOWN] * 3, [b"c", b"d", b"e"]) | _SENT_TWICE | _READ_TWICE),),
    "resets_among_reads": (Difference(RESENT, answers([RESET] * 3, [b"c", b"d", b"e"]) | _SENT_TWICE | _READ_TWICE),),
    "closes_among_writes": (Difference(IN_DOUBT, answers([UNKNOWN] * 3, [DOUBT] * 3)),),
    "resets_among_writes": (Difference(IN_DOUBT, answers([RESET] * 3, [DOUBT] * 3)),),
    "closes_always": (
        Difference(RESENT, answers([UNKNOWN] * 2, [RESET] * 2) | figures("s0.server_eof 1 2, s0.requests 2 4")),
    ),
    "resets_always": (Difference(RESENT, figures("s0.server_err 1 2, s0.requests 2 4")),),
    "two_clients_lose_one_connection": (
        Difference(RESENT, answers([UNKNOWN], [b"a"], "one") | answers([UNKNOWN], [b"b"], "other")),
        Difference(RESENT, figures("forward_error 2 0, s0.server_connections 0 1, s0.requests 2 4, s0.responses 0 2")),
    ),
    "closes_within_a_reply": (
        Difference(RESENT, answers([UNKNOWN] * 2, [b"b", b"c"])),
        Difference(RESENT, figures("forward_error 2 0, s0.server_connections 0 1, s0.requests 3 5, s0.responses 1 3")),
    ),
    # ------------------------------------------------------------------------------------- a server that is silent
    "silent": (Difference(TIMED_ALONE, figures("s0.server_connections 0 1, s0.out_queue 0 3")),),
    "each_request_has_its_own_time": (
        Difference(TIMED_ALONE, {"the other had its time": (False, True)}),
        Difference(TIMED_ALONE, figures("s0.server_connections 0 1, s0.out_queue 0 2")),
    ),
    # ----------------------------------------------------------------------------- a server that answers strangely
    "no_resp": (
        Difference(RESENT, answers([INVALID], [b"a"], "read")),
        Difference(RESENT, figures("forward_error 1 0, s0.requests 2 3, s0.responses 1 2")),
    ),
    "no_resp_to_a_write": (Difference(IN_DOUBT, answers([INVALID], [DOUBT], "write")),),
    "loading": (
        Difference(
            PASSED_ON, answers([b"a", INVALID, INVALID], [b"a", "LOADING Redis is loading the dataset in memory", b"c"])
        ),
        Difference(PASSED_ON, figures(_KEPT)),
    ),
    "out_of_memory": (
        Difference(PASSED_ON, answers(["OK", INVALID, INVALID], ["OK", "OOM command not allowed", "OK"])),
        Difference(PASSED_ON, figures(_KEPT)),
    ),
    "busy": (
        Difference(PASSED_ON, answers([b"a", INVALID, INVALID], [b"a", "BUSY Redis is busy running a script", b"c"])),
        Difference(PASSED_ON, figures(_KEPT)),
    ),
    # ---------------------------------------------------------------------------------------------- split commands
    "split_and_well": (Difference(FRAGMENTS, figures("fragments 0 15")), _MSET_BYTES),
    "split_and_refused": (
        *(
            Difference(WHOLE_OR_NOT, {f"{name} at the others": (seen, [[], []])})
            for name, seen in {
                "DEL": [[b"del key100 key101"], [b"del key0 key1"]],
                "UNLINK": [[b"unlink key100 key101"], [b"unlink key0 key1"]],
                "TOUCH": [[b"touch key100 key101"], [b"touch key0 key1"]],
                "MSET": [[b"mset key100 1 key101 1"], [b"mset key0 1 key1 1"]],
                "MGET": [[b"mget key100 key101"], [b"mget key0 key1"]],
            }.items()
        ),
        Difference(WHOLE_OR_NOT, figures("s0.requests 10 5, s0.responses 9 5, s1.requests 5 0, s1.responses 5 0")),
        Difference(WHOLE_OR_NOT, figures("s2.requests 5 0")),
        Difference(
            STAYS_OPEN, answers(["ERR Connection refused", CLOSED], ["ERR Connection refused", b"key100"], "MGET")
        ),
        _OPEN,
    ),
    "split_and_closed": (
        Difference(
            IN_DOUBT,
            answers([UNKNOWN, b"key100"], [*_doubt("done", "done", "unknown"), b"key100"], "DEL", "UNLINK", "MSET"),
        ),
        Difference(RESENT, answers([UNKNOWN, b"key100"], [RESET, b"key100"], "TOUCH")),
        Difference(RESENT, figures("s2.server_eof 5 7, s2.requests 5 7")),
        Difference(STAYS_OPEN, answers([UNKNOWN, CLOSED], [RESET, b"key100"], "MGET")),
        Difference(STAYS_OPEN, figures("client_eof 5 6, client_err 1 0, s0.responses 9 10")),
        Difference(FRAGMENTS, figures("fragments 0 15")),
        Difference(MSET_TWICE, figures("s0.request_bytes 345 331, s1.request_bytes 200 186")),
    ),
    "split_and_silent": (
        Difference(
            IN_DOUBT,
            answers(
                ["ERR Connection timed out", b"key100"], [*_doubt("done", "done", "unknown"), b"key100"], "DEL", "MSET"
            ),
        ),
        Difference(
            STAYS_OPEN,
            answers(["ERR Connection timed out", b"key100", CLOSED], ["ERR Connection timed out", b"key100"], "MGET"),
        ),
        Difference(STAYS_OPEN, figures("client_eof 3 4, client_err 1 0")),
        Difference(TIMED_ALONE, figures("s2.server_connections 0 1, s2.out_queue 0 3")),
        Difference(FRAGMENTS, figures("fragments 0 9")),
        Difference(MSET_TWICE, figures("s0.request_bytes 216 202, s1.request_bytes 129 115, s2.request_bytes 134 127")),
    ),
    "split_and_readonly": _said_by_a_shard("READONLY You can't write"),
    "split_and_error": _said_by_a_shard("ERR x"),
    "split_and_no_number": (
        Difference(
            SAID_BY_A_SHARD,
            answers([INVALID, b"key100"], ["ERR a shard answered in a form that cannot be merged", b"key100"], "DEL"),
        ),
        Difference(FRAGMENTS, figures("fragments 0 3")),
    ),
    # ---------------------------------------------------------------------------------------------------- ejection
    "closes_eject": (Difference(IN_DOUBT, answers([[UNKNOWN], [UNKNOWN], ["OK"]], [[DOUBT], [DOUBT], ["OK"]])),),
    "closes_of_reads_eject": (
        Difference(RESENT, answers([[UNKNOWN], [UNKNOWN], [b"key100"]], [[RESET], [RESET], [b"key100"]])),
        Difference(RESENT, figures("s0.server_eof 2 4, s0.requests 2 4")),
    ),
    "silence_ejects": (Difference(TIMED_ALONE, figures("s0.server_connections 0 1, s0.out_queue 0 2")),),
    "requests_that_expire_together_are_one_failure": (
        Difference(TIMED_ALONE, figures("s0.server_connections 0 1, s0.out_queue 0 4")),
    ),
    "a_server_that_is_always_late_is_ejected": (Difference(TIMED_ALONE, figures("s0.server_connections 0 1")),),
    "no_resp_ejects": (Difference(IN_DOUBT, answers([[INVALID], [INVALID], ["OK"]], [[DOUBT], [DOUBT], ["OK"]])),),
    "a_server_that_loads": (
        Difference(PASSED_ON, answers([[INVALID], [INVALID], [b"key100"]], [["LOADING x"]] * 3)),
        Difference(
            PASSED_ON, figures("server_ejects 1 0, forward_error 2 0, s0.server_err 2 0, s0.server_ejected_at 1 0")
        ),
        Difference(PASSED_ON, figures("s0.server_connections 0 1, s0.requests 2 3, s0.responses 0 3")),
        Difference(PASSED_ON, figures("s1.server_connections 1 0, s1.requests 1 0, s1.responses 1 0")),
    ),
    "each_connection_that_closes_is_a_failure": (
        Difference(ONE_INCIDENT, answers([["ERR Connection refused"], [b"key100"]], [["ERR Connection refused"]] * 2)),
        Difference(ONE_INCIDENT, figures("server_ejects 1 0, forward_error 1 2, s0.server_err 1 2, s0.requests 4 5")),
        Difference(ONE_INCIDENT, figures("s0.server_ejected_at 1 0, s1.server_connections 1 0, s1.requests 1 0")),
        Difference(ONE_INCIDENT, figures("s1.responses 1 0")),
    ),
    "a_reply_forgives": _forgiven("OK"),
    "an_error_of_the_server_forgives": _forgiven("ERR x"),
    "when_all_are_ejected": (
        Difference(STAYS_OPEN, answers([CLOSED], ["ERR Connection refused"], "MGET")),
        Difference(STAYS_OPEN, figures("client_eof 1 2, client_err 1 0, forward_error 7 8")),
    ),
    "what_is_in_flight_elsewhere_goes_on": (
        Difference(IN_DOUBT, answers([UNKNOWN], _doubt("unknown", "done"), "MSET")),
        Difference(FRAGMENTS, figures("fragments 0 2")),
        Difference(MSET_TWICE, figures("s0.request_bytes 66 52, s1.request_bytes 80 73")),
    ),
    # ----------------------------------------------------------------------------------------------------- clients
    "requests_for_the_proxy": (
        Difference(
            AS_REDIS,
            instead_of_closing(
                {
                    "PING x": b"x",
                    "ECHO x": b"x",
                    "SELECT 0": "OK",
                    "CLIENT SETINFO LIB-VER 1": "OK",
                    "HELLO 2": [[b"server", b"redis", b"version", b"7.0.0", b"proto", 2]],
                    "QUIT": ["OK", CLOSED],
                }
            ),
        ),
        Difference(
            STAYS_OPEN,
            instead_of_closing(
                {
                    "AUTH u x": "ERR invalid password",
                    "FOOBAR x": "ERR unknown command 'FOOBAR', with args beginning with: 'x' ",
                    "AUTH": _arity("auth"),
                    "PING x y": _arity("ping"),
                    "GET": _arity("get"),
                    "GET a b": _arity("get"),
                    "MGET": _arity("mget"),
                    "DEL": _arity("del"),
                    "MSET a": _arity("mset"),
                    "INCR a b": _arity("incr"),
                    "FOO": "ERR unknown command 'FOO', with args beginning with: ",
                    "EVAL x 0": "OK",
                }
            ),
        ),
        Difference(STAYS_OPEN, figures("client_eof 7 24, client_err 17 0")),
        Difference(STAYS_OPEN, figures("s0.requests 2 3, s0.request_bytes 40 68")),
        Difference(STAYS_OPEN, figures("s0.responses 2 3, s0.response_bytes 14 19")),
    ),
    "requests_in_other_forms": (
        Difference(
            AS_REDIS,
            instead_of_closing(
                {
                    "inline": "PONG",
                    "inline QUIT": ["OK", CLOSED],
                    "an empty line": [],
                    "no arguments": [],
                    "a negative count": [],
                    "no name": "ERR unknown command '', with args beginning with: ",
                    "a missing argument": ["ERR Protocol error: invalid bulk length", CLOSED],
                    "no CR": ["ERR Protocol error: invalid multibulk length"],
                    "garbage": ["ERR Protocol error: invalid multibulk length", CLOSED],
                }
            ),
        ),
        Difference(
            AS_REDIS, answers([b"a"], ["ERR Protocol error: invalid multibulk length", CLOSED], "leading zeros")
        ),
        Difference(AS_REDIS, figures("client_eof 2 7, client_err 9 4")),
        Difference(AS_REDIS, figures("s0.server_connections 1 0, s0.requests 1 0, s0.responses 1 0")),
    ),
    "requests_that_go_on": (Difference(MSET_TWICE, figures("s0.request_bytes 410 403")),),
    "requests_with_too_few_arguments": (
        Difference(AS_REDIS, answers(["OK", "OK", "OK"], [_arity("set"), _arity("hset"), _arity("hmget")])),
        Difference(AS_REDIS, figures("s0.server_connections 1 0, s0.requests 3 0, s0.responses 3 0")),
    ),
    "keys_of_several_servers": (
        Difference(ACROSS, {"EXISTS": ([[6], [6, 5, 5]], [[6], [6, 6, 6]])}),
        Difference(
            ACROSS,
            answers(
                ["OK"],
                ["CROSSSLOT keys of 'sinter' are on different shards: 'key100' on \"s0\", 'key0' on \"s1\""],
                "SINTER",
            ),
        ),
        Difference(ACROSS, figures("s0.requests 8 7, s0.responses 8 7, s1.requests 6 7, s1.responses 6 7")),
        Difference(ACROSS, figures("s2.requests 6 7, s2.responses 6 7")),
        Difference(FRAGMENTS, figures("fragments 0 21")),
    ),
    "what_is_large": (
        Difference(LONG_KEYS, {"a key of 20000 bytes": (False, True)}),
        Difference(LONG_KEYS, figures("client_eof 1 2, client_err 1 0, s0.requests 2 3, s0.responses 2 3")),
    ),
    "an_unknown_command_behind_a_request": (
        Difference(
            STAYS_OPEN,
            answers([CLOSED], [b"a", "ERR unknown command 'FOOBAR', with args beginning with: 'x' ", b"b"]),
        ),
        Difference(STAYS_OPEN, figures("client_eof 1 2, client_err 1 0, s0.requests 1 2, s0.responses 0 2")),
    ),
    "quit_behind_a_request": (Difference(AS_REDIS, answers([b"a", CLOSED], [b"a", "OK", CLOSED])),),
    "what_waits_for_a_reply_is_in_the_queues": (Difference(LEAVES, figures("client_eof 1 2")),),
    "replies_keep_their_order": (Difference(FRAGMENTS, figures("fragments 0 2")),),
    "a_password": (
        Difference(
            AS_REDIS,
            instead_of_closing(
                {
                    "first QUIT": ["OK", CLOSED],
                    "first AUTH default secret": "OK",
                    "first HELLO 2 AUTH default secret": [[b"server", b"redis", b"version", b"7.0.0", b"proto", 2]],
                }
            ),
        ),
        Difference(
            STAYS_OPEN,
            instead_of_closing(
                {
                    "first FOOBAR": "NOAUTH Authentication required",
                    "first ECHO x": "NOAUTH Authentication required",
                    "first AUTH": _arity("auth"),
                    "first AUTH secret x": "ERR invalid password",
                    "first HELLO 2": _HELLO_FIRST,
                }
            ),
        ),
        Difference(STAYS_OPEN, figures("client_eof 3 10, client_err 7 0")),
    ),
    "more_clients_than_allowed": (
        Difference(
            LIMIT, answers([[b"a"]] * 4, [[b"a"], [b"a"], *[["ERR max number of clients reached", CLOSED]] * 2])
        ),
        Difference(LIMIT, figures("client_eof 6 4, s0.requests 5 3, s0.responses 5 3")),
    ),
    # ---------------------------------------------------------------------------------------------------- settings
    "unix_sockets_on_both_sides": (Difference(UNIX, figures("s0.server_connections 0 1")),),
    "a_unix_socket_without_a_mode": (Difference(UNIX, figures("s0.server_connections 0 1")),),
    "several_connections": (Difference(ORDER, {"of one client": ([0, 1, 2, 0, 1, 2], [0] * 6)}),),
    "a_server_with_another_password": (
        Difference(UNGREETED, answers(["OK", "NOAUTH Authentication required."], ["OK", _WRONG_PASSWORD])),
        Difference(UNGREETED, answers(["NOAUTH Authentication required."], [_WRONG_PASSWORD], "and again")),
        Difference(
            UNGREETED, figures("forward_error 0 2, s0.server_err 0 2, s0.server_connections 1 0, s0.responses 2 0")
        ),
    ),
    "a_database_that_is_not_there": (
        Difference(UNGREETED, answers(["OK"], ["ERR greeting refused: -ERR DB index is out of range"])),
        Difference(UNGREETED, answers([b"SET a 1"], [], "sent")),
        Difference(
            UNGREETED, figures("forward_error 0 1, s0.server_err 0 1, s0.server_connections 1 0, s0.responses 1 0")
        ),
    ),
    "a_database_and_a_password": (
        Difference(
            AUTH_FIRST,
            answers([b"SELECT 3", b"AUTH secret"], [b"AUTH secret", b"SELECT 3"], "said to the server"),
        ),
    ),
}
