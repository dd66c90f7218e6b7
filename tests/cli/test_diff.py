"""`shoal diff`: what it prints of two files, where, and what it exits with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from inline_snapshot import snapshot

from shoal.cli import diff

if TYPE_CHECKING:
    from collections.abc import Callable

    Shoal = Callable[..., str]

ROOT = Path(__file__).parents[2]
TWO = "shards: {a: {}, b: {}}\n"
THREE = "shards: {a: {}, b: {}, c: {}}\n"
ALPHA = """\
alpha:
  listen: 127.0.0.1:1
  redis: true
  servers:
   - 10.0.0.1:6379:1 a
   - 10.0.0.2:6379:1 b
"""


def write(old: str, new: str) -> None:
    Path("old").write_text(old)
    Path("new").write_text(new)


def test_what_does_not_touch_the_ring_moves_nothing(shoal: Shoal) -> None:
    write(TWO, "cluster: shoal\nshards: {b: {master: 'local:1', replicas: ['local:2']}, a: {}}\nredis: {save: ''}\n")
    assert shoal("diff", "old", "new", "--exit-code") == snapshot("""\
exit 0
--- stdout
pool shoal: 0 keys move
""")


def test_one_more_shard(shoal: Shoal) -> None:
    write(TWO, THREE)
    assert shoal("diff", "old", "new") == snapshot("""\
exit 0
--- stdout
pool shoal: 32.1 % of all keys move

shard  before  stay    go           after
a      53.0 %  35.9 %  17.2 % to c  35.9 %
b      47.0 %  32.0 %  15.0 % to c  32.0 %
c      -       -       -            32.1 %
--- stderr
shares are of all hashes; numbered keys can hash unevenly: --sample HOST:PORT tries real ones
""")
    assert shoal("diff", "old", "new", "--exit-code").startswith("exit 1\n")


def test_the_keys_of_a_shard_that_goes_have_somewhere_to_go(shoal: Shoal) -> None:
    write(
        "shards: {a: {weight: 3}, b: {}, gone: {}}\nproxy: {distribution: modula}\n",
        "shards: {a: {}, b: {weight: 4}}\nproxy: {distribution: modula}\n",
    )
    assert shoal("diff", "old", "new") == snapshot("""\
exit 0
--- stdout
pool shoal: 60.0 % of all keys move

shard  before  stay    go           after
a      60.0 %  20.0 %  40.0 % to b  20.0 %
b      20.0 %  20.0 %  0            80.0 %
gone   20.0 %  0       20.0 % to b  -
--- stderr
shares are of all hashes; numbered keys can hash unevenly: --sample HOST:PORT tries real ones
""")


def test_of_many_shards_that_keys_go_to_the_least_are_one_line(shoal: Shoal) -> None:
    shards = [f"s{number:02}" for number in range(12)]
    old, new = (
        f"shards: {{{': {}, '.join(names)}: {{}}}}\nproxy: {{distribution: modula}}\n"
        for names in (shards, shards[:-1])
    )
    write(old, new)
    assert shoal("diff", "old", "new").splitlines()[4:14] == snapshot(
        [
            "shard  before  stay    go                 after",
            "s00    8.3 %   0.76 %  0.76 % to s01      9.1 %",
            "                       0.76 % to s02",
            "                       0.76 % to s03",
            "                       0.76 % to s04",
            "                       0.76 % to s05",
            "                       0.76 % to s06",
            "                       0.76 % to s07",
            "                       0.76 % to s08",
            "                       1.5 % to 2 others",
        ]
    )


def test_another_hash_is_estimated(shoal: Shoal) -> None:
    write(TWO, TWO + "proxy: {hash: md5}\n")
    assert shoal("diff", "old", "new", "--exit-code") == snapshot("""\
exit 1
--- stdout
pool shoal: about 49.7 % of all keys move
estimated with 200,000 random keys: the hash changes from fnv1a_64 to md5

shard  before  stay    go           after
a      53.0 %  28.2 %  24.7 % to b  53.2 %
b      47.0 %  22.1 %  25.0 % to a  46.8 %
--- stderr
shares are of all hashes; numbered keys can hash unevenly: --sample HOST:PORT tries real ones
""")


def test_another_hash_tag_moves_keys_that_have_one(shoal: Shoal) -> None:
    write(TWO, TWO + "proxy: {hash_tag: '{}'}\n")
    assert shoal("diff", "old", "new", "--exit-code") == snapshot("""\
exit 1
--- stdout
pool shoal: 0 keys without a hash tag move
and about 50.1 % of the keys with a hash tag move
estimated with 200,000 random keys: the hash tag changes from none to {}

keys with a hash tag
shard  before  stay    go           after
a      53.0 %  27.9 %  25.1 % to b  52.9 %
b      47.0 %  22.0 %  25.0 % to a  47.1 %
--- stderr
shares are of all hashes; numbered keys can hash unevenly: --sample HOST:PORT tries real ones
""")


def test_of_random_nobody_can_say(shoal: Shoal) -> None:
    write(TWO, TWO + "proxy: {distribution: random}\n")
    assert shoal("diff", "old", "new", "--exit-code") == snapshot("""\
exit 1
--- stdout
pool shoal: nobody can say which keys move: the distribution is random, so any shard may have any key
""")
    assert shoal("diff", "new", "new", "--exit-code").startswith("exit 0\n"), "it is as before"
    assert "no key has a shard of its own" in shoal("diff", "old", "new", "--sample", "localhost:1")


def test_from_nutcracker_to_shoal_with_the_names_kept_nothing_moves(shoal: Shoal) -> None:
    write(ALPHA, TWO)
    assert shoal("diff", "old", "new", "--exit-code") == snapshot("""\
exit 0
--- stdout
pool alpha (shoal in new): 0 keys move
""")


def test_addresses_are_names_too_where_nutcracker_has_no_other(shoal: Shoal) -> None:
    given = ROOT / "examples" / "from-twemproxy" / "nutcracker.yml"
    four_hosts = ROOT / "examples" / "four-hosts" / "shoal.yaml"
    write(given.read_text(), four_hosts.read_text())
    assert shoal("diff", "old", "new") == snapshot("""\
exit 0
--- stdout
pool redis-cluster: all keys move

shard             before  stay  go                         after
10.211.55.6:6379  52.2 %  0     27.7 % to redis-sharding2  -
                                24.5 % to redis-sharding1
10.211.55.7:6379  47.8 %  0     24.9 % to redis-sharding2  -
                                22.9 % to redis-sharding1
redis-sharding1   -       -     -                          47.4 %
redis-sharding2   -       -     -                          52.6 %
""")


def test_pools_are_the_same_by_name(shoal: Shoal) -> None:
    write(
        TWO + "pools: {one: {}, two: {shards: [a]}, old: {}}\n",
        "two:\n  listen: 127.0.0.1:1\n  redis: true\n  servers: ['10.0.0.1:1:1 a']\n"
        "one:\n  listen: 127.0.0.1:2\n  redis: true\n  hash: md5\n  servers: ['10.0.0.1:1:1 b']\n"
        "new:\n  listen: 127.0.0.1:3\n  redis: true\n  servers: ['10.0.0.1:1:1 b']\n",
    )
    assert shoal("diff", "old", "new", "--exit-code") == snapshot("""\
exit 1
--- stdout
pool one: 53.0 % of all keys move

shard  before  stay    go           after
a      53.0 %  0       53.0 % to b  -
b      47.0 %  47.0 %  0            100 %

pool two: 0 keys move

pool old: only in old
pool new: only in new
--- stderr
shares are of all hashes; numbered keys can hash unevenly: --sample HOST:PORT tries real ones
""")
    assert shoal("diff", "old", "new", "--pool", "two", "--exit-code") == snapshot("""\
exit 0
--- stdout
pool two: 0 keys move
""")
    assert shoal("diff", "old", "new", "--pool", "new", "--exit-code") == snapshot("""\
exit 1
--- stdout
pool new: only in new
""")


def test_json_has_the_same_and_nothing_else_is_printed(shoal: Shoal) -> None:
    modula = "shards: {a: {}, b: {}}\nproxy: {distribution: modula}\n"
    write(modula, modula.replace("b:", "c:"))
    status, out = shoal("diff", "old", "new", "--json").split("--- stdout\n")
    assert status == "exit 0\n"
    assert json.loads(out) == snapshot(
        {
            "old": "old",
            "new": "new",
            "nothing_moves": False,
            "pools": [
                {
                    "old": "shoal",
                    "new": "shoal",
                    "nothing_moves": False,
                    "why_not_exact": None,
                    "keys": {
                        "exact": True,
                        "sample": None,
                        "moved": 0.5,
                        "shards": [
                            {"shard": "a", "before": 0.5, "after": 0.5, "stays": 0.5, "lost": 0.0, "gained": 0.0},
                            {"shard": "b", "before": 0.5, "after": None, "stays": 0.0, "lost": 0.5, "gained": 0.0},
                            {"shard": "c", "before": None, "after": 0.5, "stays": 0.0, "lost": 0.0, "gained": 0.5},
                        ],
                        "flows": [{"from": "b", "to": "c", "share": 0.5}],
                    },
                    "keys_with_a_tag": None,
                    "real_keys": None,
                }
            ],
            "only_in_old": [],
            "only_in_new": [],
        }
    )


@pytest.mark.parametrize(
    ("arguments", "transcript"),
    [
        (
            ["old", "nothing"],
            snapshot("""\
exit 2
--- stderr
error: there is no configuration file
  at: nothing
  hint: give the path of a shoal.yaml or a nutcracker.yml
"""),
        ),
        (
            ["old", "list"],
            snapshot("""\
exit 2
--- stderr
error: neither a shoal.yaml nor a nutcracker.yml
  at: list
  hint: a shoal.yaml has `shards:`, a nutcracker.yml has pools, each with `listen:` and `servers:`
"""),
        ),
        (
            ["old", "broken"],
            snapshot("""\
exit 2
--- stderr
error: pool 'alpha' has no servers
  at: broken:1:1 alpha.servers
  hint: a list of "host:port:weight [name]" or "/path:weight [name]"
error: directive "servrs" is unknown
  at: broken:4:3 alpha.servrs
  hint: did you mean "servers"?
"""),
        ),
        (
            ["old", "new", "--pool", "nobody"],
            snapshot("""\
exit 2
--- stderr
error: Invalid value for --pool: there is no pool 'nobody', only shoal
  hint: see `shoal diff --help`
"""),
        ),
        (
            ["old", "new", "--sample", "here"],
            snapshot("""\
exit 2
--- stderr
error: Invalid value for --sample: "here" has no port
  hint: see `shoal diff --help`
"""),
        ),
        (
            ["old", "new", "--sample", "127.0.0.1:1", "--password-file", "nothing"],
            snapshot("""\
exit 2
--- stderr
error: the password cannot be read: No such file or directory
  at: nothing
"""),
        ),
        (
            ["old", "new", "--sample", "127.0.0.1:1", "--password-file", "open"],
            snapshot("""\
exit 2
--- stderr
error: everybody on this machine can read the password
  at: open
  hint: chmod 600 open
"""),
        ),
        (
            ["pools", "pools", "--sample", "127.0.0.1:1"],
            snapshot("""\
exit 2
--- stderr
error: Invalid value for --sample: 2 pools are compared: name the one that has these keys with --pool
  hint: see `shoal diff --help`
"""),
        ),
    ],
)
def test_what_cannot_be_compared(arguments: list[str], transcript: str, shoal: Shoal) -> None:
    write(TWO, THREE)
    Path("list").write_text("- a\n- b\n")
    Path("broken").write_text("alpha:\n  listen: 127.0.0.1:1\n  redis: true\n  servrs: ['10.0.0.1:1:1']\n")
    Path("pools").write_text(TWO + "pools: {one: {}, two: {shards: [a]}}\n")
    Path("open").write_text("sesame\n")
    Path("open").chmod(0o644)
    assert shoal("diff", *arguments) == transcript


def test_a_password_is_read_from_a_file_or_else_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "secret"
    file.write_text("sesame\n")
    file.chmod(0o600)
    monkeypatch.setenv(diff.PASSWORD_VARIABLE, "other")
    assert diff._password(file) == "sesame"
    assert diff._password(None) == "other"
    monkeypatch.delenv(diff.PASSWORD_VARIABLE)
    assert diff._password(None) is None
