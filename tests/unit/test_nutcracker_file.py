"""A nutcracker.yml becomes pools in nutcracker's order, or one error with all that is wrong with it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from inline_snapshot import snapshot

from shoal.errors import ConfigError
from shoal.nutcracker import NutcrackerFile, Pool, Server, load, parse
from shoal.nutcracker.keys import KEYS
from shoal.nutcracker.reference import flag_rows, key_rows, page
from shoal.topology.values import Endpoint, UnixSocket

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "from-twemproxy"

SHORTEST = """\
main:
  listen: 127.0.0.1:22121
  redis: true
  servers:
   - 10.0.0.5:6379:1
"""
ALL = """\
main:
  listen: /run/main.sock 0660
  client_connections: 100
  hash: murmur
  hash_tag: "{}"
  distribution: modula
  timeout: 400
  backlog: 1024
  tcpkeepalive: true
  reuseport: true
  preconnect: true
  redis: true
  redis_auth: hunter2
  redis_db: 3
  server_connections: 2
  auto_eject_hosts: true
  server_retry_timeout: 2000
  server_failure_limit: 1
  servers:
   - 10.0.0.5:6379:2 shard1
   - /run/redis.sock:1
  sentinels:
   - 10.0.0.5:26379
   - 10.0.0.6:26379:1
   - "[::1]:26379"
"""


def pool_of(text: str) -> Pool:
    (pool,) = parse(text).pools
    return pool


def with_servers(*servers: str) -> str:
    return SHORTEST.partition("   -")[0] + "".join(f"   - {server}\n" for server in servers)


def refused(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    return str(caught.value)


# ------------------------------------------------------------------------------------------------------- what is read


def test_a_key_that_is_left_out_has_nutcracker_s_default() -> None:
    assert pool_of(SHORTEST) == Pool(
        name="main",
        listen=Endpoint("127.0.0.1", 22121),
        client_connections=0,
        hash="fnv1a_64",
        hash_tag=None,
        distribution="ketama",
        timeout_ms=0,
        backlog=512,
        tcpkeepalive=False,
        reuseport=False,
        preconnect=False,
        redis_auth=None,
        redis_db=0,
        server_connections=1,
        auto_eject_hosts=False,
        server_retry_timeout_ms=30000,
        server_failure_limit=2,
        servers=(Server(Endpoint("10.0.0.5", 6379), 1, None, "10.0.0.5:6379", 5),),
        sentinels=(),
        line=1,
    )


def test_every_key_can_be_given() -> None:
    assert all(f"  {key}:" in ALL for key in KEYS)
    assert pool_of(ALL) == Pool(
        name="main",
        listen=UnixSocket("/run/main.sock", 0o660),
        client_connections=100,
        hash="murmur",
        hash_tag="{}",
        distribution="modula",
        timeout_ms=400,
        backlog=1024,
        tcpkeepalive=True,
        reuseport=True,
        preconnect=True,
        redis_auth="hunter2",
        redis_db=3,
        server_connections=2,
        auto_eject_hosts=True,
        server_retry_timeout_ms=2000,
        server_failure_limit=1,
        servers=(
            Server(Endpoint("10.0.0.5", 6379), 2, "shard1", "shard1", 20),
            Server(UnixSocket("/run/redis.sock"), 1, None, "/run/redis.sock:", 21),
        ),
        sentinels=(Endpoint("10.0.0.5", 26379), Endpoint("10.0.0.6", 26379), Endpoint("::1", 26379)),
        line=1,
    )


@pytest.mark.parametrize(
    ("server", "address", "label"),
    [
        ("10.0.0.5:6379:1", Endpoint("10.0.0.5", 6379), "10.0.0.5:6379"),
        ("10.0.0.5:06379:1", Endpoint("10.0.0.5", 6379), "10.0.0.5:06379"),
        ("10.0.0.5:11211:1", Endpoint("10.0.0.5", 11211), "10.0.0.5"),
        ("10.0.0.5:11211:1 a", Endpoint("10.0.0.5", 11211), "a"),
        ("redis.example:6379:1", Endpoint("redis.example", 6379), "redis.example:6379"),
        ("::1:6379:1", Endpoint("::1", 6379), "::1:6379"),
        ("'[::1]:6379:1'", Endpoint("::1", 6379), "[::1]:6379"),
        ("10.0.0.5:6379:1 a:b", Endpoint("10.0.0.5", 6379), "a:b"),
        ("/run/a.sock:1", UnixSocket("/run/a.sock"), "/run/a.sock:"),
        ("/run/a b.sock:1 c", UnixSocket("/run/a b.sock"), "c"),
    ],
)
def test_a_server_s_place_on_the_ring(server: str, address: Endpoint | UnixSocket, label: str) -> None:
    (read,) = pool_of(with_servers(server)).servers
    assert (read.address, read.label, read.weight) == (address, label, 1)


@pytest.mark.parametrize(
    ("listen", "expected"),
    [
        ("0.0.0.0:22121", Endpoint("0.0.0.0", 22121)),
        ("localhost:022121", Endpoint("localhost", 22121)),
        ("::1:22121", Endpoint("::1", 22121)),
        ("/run/a.sock", UnixSocket("/run/a.sock")),
        ("/run/a.sock 777", UnixSocket("/run/a.sock", 0o777)),
        ("/run/a.sock 0", UnixSocket("/run/a.sock")),
        ("'/run/a.sock '", UnixSocket("/run/a.sock")),
    ],
)
def test_where_a_pool_listens(listen: str, expected: Endpoint | UnixSocket) -> None:
    assert pool_of(SHORTEST.replace("127.0.0.1:22121", listen)).listen == expected


def test_servers_and_pools_are_sorted_by_length_and_then_by_bytes() -> None:
    servers = with_servers("h:1:1 bbb", "h:2:1 é", "h:3:1 zz", "h:4:1 ab", "h:5:1 c", "h:6:1 aaa", "h:7:1 Z")
    assert [server.label for server in pool_of(servers).servers] == ["Z", "c", "ab", "zz", "é", "aaa", "bbb"]
    names = ["longest", "b", "aa", "a"]
    text = "".join(
        SHORTEST.replace("main", name).replace("22121", str(port)) for port, name in enumerate(names, start=1)
    )
    assert [pool.name for pool in parse(text).pools] == ["a", "b", "aa", "longest"]


@pytest.mark.parametrize("style", ["flow", "anchor", "quotes", "document"])
def test_what_nutcracker_refuses_for_style_is_read(style: str) -> None:
    text = {
        "flow": "main: {listen: '127.0.0.1:22121', redis: true, servers: ['10.0.0.5:6379:1']}\n",
        "anchor": SHORTEST.replace("true", "&yes true"),
        "quotes": SHORTEST.replace("listen", '"listen"').replace("true", "'true'"),
        "document": f"%YAML 1.1\n---\n{SHORTEST}...\n",
    }[style]
    assert [server.label for server in pool_of(text).servers] == ["10.0.0.5:6379"]


def test_tabs_may_stand_between_things_and_before_a_comment() -> None:
    text = SHORTEST.replace("redis: true", "redis:\ttrue\t# yes").replace(":1\n", ":1 a \t\n\t \n")
    assert [server.label for server in pool_of(text).servers] == ["a"]
    assert "indent with spaces" in refused(SHORTEST.replace("  redis", "\tredis"))


def test_the_four_hosts_file_works_as_it_is_and_with_sentinels() -> None:
    plain = load(EXAMPLES / "nutcracker.yml")
    (pool,) = plain.pools
    assert [(server.label, server.weight) for server in pool.servers] == [
        ("10.211.55.6:6379", 1),
        ("10.211.55.7:6379", 1),
    ]
    assert (pool.server_retry_timeout_ms, pool.server_failure_limit, pool.auto_eject_hosts) == (2000, 1, True)
    (followed,) = load(EXAMPLES / "nutcracker-with-sentinels.yml").pools
    assert followed.servers == pool.servers
    assert [str(sentinel) for sentinel in followed.sentinels] == [f"10.211.55.{host}:26379" for host in (5, 6, 7)]


# ---------------------------------------------------------------------------------------------------- what is refused


def test_all_problems_of_a_file_come_at_once_in_its_order() -> None:
    text = """\
main:
  listen: 127.0.0.1:0
  redis: true
  timeout: 400ms
  timeout: 5
  preconnect: Yes
  hash: fnv1_a64
  server_conections: 3
  hash_tag: {}
  servers:
   - 10.0.0.5:6379:1 a
   - 10.0.0.6:6379:0 b
   - 10.0.0.7:6379:1 a
   - 10.0.0.8:6379
memcached:
  listen: 127.0.0.1:22122
  server_connections: 0
  servers:
   - 10.0.0.5:11211:1
other:
  listen: 127.0.0.1:22122
"""
    assert refused(text) == snapshot("""\
15 problems in the configuration
directive "listen" has an invalid port in "hostname:port" format string
  at: nutcracker.yml:2:3 main.listen
  hint: a number from 1 to 65535
directive "timeout" is not a number
  at: nutcracker.yml:4:3 main.timeout
  hint: decimal digits and nothing else: no sign, no unit
directive "timeout" is a duplicate (first in line 4)
  at: nutcracker.yml:5:3 main.timeout
  hint: keep one of them
directive "preconnect" is not "true" or "false"
  at: nutcracker.yml:6:3 main.preconnect
  hint: write true, in small letters
directive "hash" is not a valid hash
  at: nutcracker.yml:7:3 main.hash
  hint: one of one_at_a_time, md5, crc16, crc32, crc32a, fnv1_64, fnv1a_64, fnv1_32, fnv1a_32, hsieh, murmur, jenkins
directive "server_conections" is unknown
  at: nutcracker.yml:8:3 main.server_conections
  hint: did you mean "server_connections"?
directive "hash_tag" has an invalid value: a map
  at: nutcracker.yml:9:3 main.hash_tag
  hint: put it in quotes
directive "servers" has a zero weight in "hostname:port:weight [name]" format string
  at: nutcracker.yml:12:6 main.servers[1]
  hint: at least 1; leave the server out if it has no keys
pool 'main' has servers with same name 'a' (first in line 11)
  at: nutcracker.yml:13:6 main.servers[2]
  hint: a name after the weight tells two apart
directive "servers" has an invalid "hostname:port:weight [name]" or "/path/unix_socket:weight [name]" format string
  at: nutcracker.yml:14:6 main.servers[3]
  hint: for example "10.0.0.5:6379:1 shard1"
pool 'memcached' is not for Redis: it has no `redis: true`
  at: nutcracker.yml:15:1 memcached.redis
  hint: Shoal serves Redis pools only; a pool of memcached stays with nutcracker
directive "server_connections" cannot be 0
  at: nutcracker.yml:17:3 memcached.server_connections
pool 'other' has no servers
  at: nutcracker.yml:20:1 other.servers
  hint: a list of "host:port:weight [name]" or "/path:weight [name]"
pool 'other' is not for Redis: it has no `redis: true`
  at: nutcracker.yml:20:1 other.redis
  hint: Shoal serves Redis pools only; a pool of memcached stays with nutcracker
pools 'memcached' and 'other' have the same listen address '127.0.0.1:22122' (see line 16)
  at: nutcracker.yml:21:3 other.listen
  hint: each pool needs its own\
""")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "",
            snapshot("""\
there are no pools
  at: nutcracker.yml:1:1
  hint: a pool's name and a colon, and below it `listen`, `redis`, `servers`, each indented\
"""),
        ),
        (
            "main\n",
            snapshot("""\
expected pools, got text
  at: nutcracker.yml:1:1
  hint: a pool's name and a colon, and below it `listen`, `redis`, `servers`, each indented\
"""),
        ),
        (
            "- main\n",
            snapshot("""\
expected pools, got a list
  at: nutcracker.yml:1:1
  hint: a pool's name and a colon, and below it `listen`, `redis`, `servers`, each indented\
"""),
        ),
        (
            "main:\n",
            snapshot("""\
pool 'main' has no settings
  at: nutcracker.yml:1:1 main
  hint: a pool's name and a colon, and below it `listen`, `redis`, `servers`, each indented\
"""),
        ),
        (
            "main:\nlisten: 127.0.0.1:1\n",
            snapshot("""\
2 problems in the configuration
pool 'main' has no settings
  at: nutcracker.yml:1:1 main
  hint: a pool's name and a colon, and below it `listen`, `redis`, `servers`, each indented
pool 'listen' has no settings, but text
  at: nutcracker.yml:2:1 listen
  hint: indent it, below its pool's name\
"""),
        ),
        (
            "main:\n\tlisten: 127.0.0.1:1\n",
            snapshot("""\
not YAML: found character '\\t' that cannot start any token
  at: nutcracker.yml:2:1
  hint: indent with spaces: YAML allows no tabs there\
"""),
        ),
        (
            "'': {}\n",
            snapshot("""\
"" cannot be a pool's name
  at: nutcracker.yml:1:1
  hint: text that can be printed\
"""),
        ),
        (
            SHORTEST + SHORTEST,
            snapshot("""\
there are pools with same name 'main' (first in line 1)
  at: nutcracker.yml:6:1 main
  hint: keep one of them\
"""),
        ),
        (
            SHORTEST + "  timeout:\n",
            snapshot("""\
directive "timeout" is empty
  at: nutcracker.yml:6:3 main.timeout
  hint: milliseconds\
"""),
        ),
        (
            SHORTEST + "  timeout: 2147483648\n",
            snapshot("""\
directive "timeout" is too large a number
  at: nutcracker.yml:6:3 main.timeout
  hint: at most 2147483647; beyond it nutcracker's own count overflows\
"""),
        ),
        (
            SHORTEST + "  timeout: !ms 5\n",
            snapshot("""\
a YAML tag, which means nothing here
  at: nutcracker.yml:6:12 main.timeout
  hint: write the value without it\
"""),
        ),
        (
            SHORTEST + "  sentinels: []\n",
            snapshot("""\
directive "sentinels" is not a list, but an empty list
  at: nutcracker.yml:6:3 main.sentinels
  hint: a list of "host:port"\
"""),
        ),
        (
            SHORTEST + "  sentinels: 10.0.0.5:26379\n",
            snapshot("""\
directive "sentinels" is not a list, but text
  at: nutcracker.yml:6:3 main.sentinels
  hint: a list of "host:port"\
"""),
        ),
        (
            SHORTEST + "  sentinels:\n   - ::1:26379\n   - 10.0.0.5\n   - h:1\n   - h:1\n",
            snapshot("""\
3 problems in the configuration
directive "sentinels" has an invalid "hostname:port" format string
  at: nutcracker.yml:7:6 main.sentinels[0]
  hint: for example "10.0.0.5:26379"; an IPv6 address stands in brackets: "[::1]:26379"
directive "sentinels" has an invalid "hostname:port" format string
  at: nutcracker.yml:8:6 main.sentinels[1]
  hint: for example "10.0.0.5:26379"; an IPv6 address stands in brackets: "[::1]:26379"
pool 'main' has sentinels with same name 'h:1' (first in line 9)
  at: nutcracker.yml:10:6 main.sentinels[3]\
"""),
        ),
        (
            SHORTEST + "  redis_auth:hunter2\n",
            snapshot("""\
not YAML: could not find expected ':'
  at: nutcracker.yml:7:1\
"""),
        ),
        (
            with_servers("10.0.0.5:6379:1 a", "10.0.0.6:6379:1 a"),
            snapshot("""\
pool 'main' has servers with same name 'a' (first in line 5)
  at: nutcracker.yml:6:6 main.servers[1]
  hint: a name after the weight tells two apart\
"""),
        ),
        (
            SHORTEST.replace("127.0.0.1:22121", "/run/a.sock 888"),
            snapshot("""\
directive "listen" has an invalid file permission in "socket_path permission" format string
  at: nutcracker.yml:2:3 main.listen
  hint: an octal number of at most 0777\
"""),
        ),
        (
            SHORTEST.replace("10.0.0.5:6379:1", ""),
            snapshot("""\
directive "servers" has an empty item
  at: nutcracker.yml:5:5 main.servers[0]
  hint: a list of "host:port:weight [name]" or "/path:weight [name]"\
"""),
        ),
    ],
)
def test_what_is_wrong_and_where(text: str, message: str) -> None:
    assert refused(text) == message


@pytest.mark.parametrize(
    ("one", "other", "clash"),
    [
        ("127.0.0.1:1", "127.0.0.1:2", False),
        ("127.0.0.1:1", "127.0.0.2:1", False),
        ("127.0.0.1:1", "127.0.0.1:01", True),
        ("127.0.0.1:1", "0.0.0.0:1", True),
        ("::1:1", "0.0.0.0:1", False),
        ("127.0.0.1:1", "'[::]:1'", True),
        ("localhost:1", "localhost:1", True),
        ("/run/a", "/run/b", False),
        ("/run/a", "/run/a 0777", True),
        ("/run/a", "127.0.0.1:1", False),
    ],
)
def test_two_pools_never_listen_on_one_socket(one: str, other: str, clash: bool) -> None:
    texts = [SHORTEST.replace("127.0.0.1:22121", listen) for listen in (one, other)]
    text = texts[0] + texts[1].replace("main", "other")
    if clash:
        assert "pools 'main' and 'other' " in refused(text)
    else:
        assert len(parse(text).pools) == 2


@pytest.mark.parametrize(
    "line",
    [
        "redis_auth: *hunter2",
        "redis_auth: !hunter2",
        "redis_auth: !h!unter2",
        "redis_auth: @hunter2",
        "redis_auth:hunter2",
        "redis_auth:hunter2:",
        "redis_auth: hunter2: x",
        "redis_auth: [hunter2]",
        "redis_auth: {hunter2: hunter2}",
        "redis_auth: {hunter2: hunter2, hunter2: a}",
        "redis_auth: hunter2\n  redis_auth: hunter2",
        "redis_auth: 'hunter2",
        '"redis_auth:hunter2": x',
    ],
)
def test_no_error_shows_a_password(line: str) -> None:
    for text in (f"main:\n  {line}\n", SHORTEST + f"  {line}\n"):
        assert "hunter" not in refused(text)


def test_a_pool_s_text_does_not_show_its_password() -> None:
    pool = pool_of(ALL)
    assert pool.redis_auth == "hunter2"
    assert "hunter2" not in f"{pool!r}{pool}{NutcrackerFile((pool,))!r}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no configuration file"),
        (b"a: \xff\n", "not UTF-8 text"),
        (b"#" * (5 << 20), "larger than 4 MB"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "nutcracker.yml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        load(file)
    assert str(file) in str(caught.value)


def test_anchors_that_multiply_are_no_configuration() -> None:
    bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
    names = "abcdefgh"
    bomb += "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in itertools.pairwise(names))
    assert "not a configuration: too many values" in refused(bomb)


# ------------------------------------------------------------------------------------------------------ the reference


def test_the_reference_page_is_what_the_tables_say() -> None:
    written = (ROOT / "docs" / "reference" / "nutcracker-yml.md").read_text()
    assert written == page(), "run scripts/reference.py"


def test_the_help_names_every_key_and_flag() -> None:
    assert [name for name, _ in key_rows()] == list(KEYS)
    rows: dict[str, Any] = dict(flag_rows())
    assert rows["-v, --verbose=N"] == snapshot("how much to log, from 0 to 11 (default: 5)")
    assert rows["-h, --help"] == snapshot("print this and exit")
    assert dict(key_rows())["listen"] == snapshot(
        "Where clients connect: an address and port, or a unix socket and its mode. (required)"
    )
    assert dict(key_rows())["tcpkeepalive"] == snapshot(
        "Ask the kernel to probe idle client connections. (default: false)"
    )
