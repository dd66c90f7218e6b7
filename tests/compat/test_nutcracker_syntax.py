"""`nutcracker -t` and our parser take the same files and refuse the same, but for the differences named here."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from shoal import nutcracker
from shoal.errors import ConfigError
from tests.harness import have

if TYPE_CHECKING:
    from pathlib import Path

BEGINNING = "p:\n  listen: 127.0.0.1:1\n  redis: true\n"
SERVERS = "  servers:\n   - 127.0.0.1:2:1\n"


def with_line(line: str) -> str:
    return f"{BEGINNING}  {line}\n{SERVERS}"


def with_servers(*servers: str) -> str:
    return f"{BEGINNING}  servers:\n" + "".join(f"   - {server}\n" for server in servers)


def with_listen(listen: str) -> str:
    return f"p:\n  listen: {listen}\n  redis: true\n{SERVERS}"


def two_pools(one: str = "a", other: str = "b", listen: str = "127.0.0.1:1", second: str = "127.0.0.1:3") -> str:
    return "".join(
        f"{name}:\n  listen: {place}\n  redis: true\n{SERVERS}" for name, place in ((one, listen), (other, second))
    )


LINES = [
    *("timeout: 0", "timeout: 007", "timeout: '5'", "timeout: 2147483647", "timeout: >-\n    5", "? timeout\n  : 1"),
    *("timeout: -1", "timeout: +1", "timeout: 1.5", "timeout: 0x10", "timeout: 1_000", "timeout: 2147483648"),
    *("timeout:", "timeout: ~", "timeout: 1 2", "timeout: 5s", "timeout:\n    a: 1", "timeout:\n   - 1"),
    *("timeout: 1\n  timeout: 2", "Timeout: 1", "timeouts: 1", '"timeout": 1', ": 1"),
    *("client_connections: 5", "backlog: 0", "redis_db: 3", "server_retry_timeout: 0", "server_failure_limit: 0"),
    *("server_connections: 1", "server_connections: 0"),
    *("preconnect: true", "preconnect: 'false'", "preconnect: True", "preconnect: yes", "preconnect: 1"),
    *("tcpkeepalive: on", "auto_eject_hosts: TRUE", "auto_eject_hosts: true\n  auto_eject_hosts: true"),
    *("hash: md5", "hash: MD5", "hash: sha1", "hash: ''", "hash: md5\n  hash: md5"),
    *("distribution: random", "distribution: Ketama"),
    *('hash_tag: "{}"', "hash_tag: $$", "hash_tag: {}", "hash_tag: a", "hash_tag: abc", "hash_tag: é", "hash_tag: éé"),
    *("redis_auth: a b", "redis_auth: ''", "redis_auth: ~", "redis_auth: |\n    abc", "redis_auth: a\n    b"),
    *(
        "listen: 127.0.0.1:2",
        "servers: 127.0.0.1:2:1",
        "redis_auth: p #w",
        "hash_tag: #x",
        "timeout:\t5",
        "nonsense: x",
    ),
]
LISTENS = [
    *("127.0.0.1:65535", "127.0.0.1:01", "localhost:1", "::1:1", "/tmp/x", "/tmp/x 0777", "/tmp/x 777", "/tmp/x  0600"),
    *("127.0.0.1:0", "127.0.0.1:65536", "22121", ":22121", "127.0.0.1:", "127.0.0.1:-1", "'127.0.0.1:1 '", "''", "*:1"),
    *(
        "'127.0.0.1 :1'",
        "unix:/tmp/x",
        "/tmp/x y 0600",
        "/tmp/x 1777",
        "127.0.0.1:1 0777",
        f"/{'x' * 106}",
        f"/{'x' * 107}",
        "/tmp/x:1",
        "/tmp/x 06 00",
    ),
]
SERVER_LISTS = [
    *(("127.0.0.1:2:1 a",), ("127.0.0.1:2:01",), ("::1:2:1",), ("'[::1]:2:1'",), ("host:2:1",), ("/tmp/s:1",)),
    *(("/tmp/s:1 a",), ("/tmp/s y:1 a",), ("127.0.0.1:2:1 a:b",), ("127.0.0.1:2:1 é",), ("127.0.0.1:2:2147483647",)),
    *(("127.0.0.1:2:0",), ("127.0.0.1:2:-1",), ("127.0.0.1:2:",), ("127.0.0.1:2",), ("127.0.0.1:2:x",)),
    *(("127.0.0.1:2:1  a",), ("127.0.0.1:2:1 a b",), ("127.0.0.1:0:1",), ("127.0.0.1:65536:1",), ("127.0.0.1::1",)),
    *(("tmp/x.sock:1",), ("unix:/tmp/x.sock:1",), ("/tmp/x y.sock:1",), ("6399:1",), ("host: h",), ("[::1]:2:1",)),
    *(
        ("h:2:1\ta",),
        ("h:2:1 al#ias",),
        ("h:2:1 #alias",),
        ('h:2:1 a"b',),
        ("h:2:1", "h:2:1 a"),
        ("localhost:2:1", "127.0.0.1:2:1"),
    ),
    *(("a b:2:1",), ("/tmp/s:0",), ("/tmp/s",), ("/tmp/s:x:1",), ("''",), ("- 127.0.0.1:2:1",), ("a: 1",)),
    *(("127.0.0.1:2:1", "127.0.0.1:2:2"), ("127.0.0.1:2:1 a", "127.0.0.1:2:1 b"), ("127.0.0.1:2:1", "127.0.0.1:02:1")),
    *(("127.0.0.1:2:1 a", "127.0.0.1:3:1 a"), ("127.0.0.1:2:1", "127.0.0.1:3:1 127.0.0.1:2")),
    *(("127.0.0.1:11211:1", "h:3:1 127.0.0.1"), ("127.0.0.1:11211:1", "h:3:1 127.0.0.1:11211")),
    *(("127.0.0.1:011211:1", "h:3:1 127.0.0.1"), ("/tmp/a:1", "h:3:1 /tmp/a"), ("/tmp/a:1", "'h:3:1 /tmp/a:'")),
]
WHOLE = {
    "two pools": two_pools(),
    "two pools of one name": two_pools("a", "a"),
    "two pools of one name, one in quotes": two_pools("a", "'a'"),
    "two pools that listen alike": two_pools(second="127.0.0.1:1"),
    "two pools on one socket": two_pools(listen="/tmp/a", second="/tmp/a"),
    "two pools on two sockets": two_pools(listen="/tmp/a", second="/tmp/b"),
    "a pool without a name": two_pools("''"),
    "a pool with a name of many signs": two_pools("a b.c/d:e"),
    "a pool that is a number": two_pools("1"),
    "no listen": f"p:\n  redis: true\n{SERVERS}",
    "no servers": BEGINNING,
    "empty servers": f"{BEGINNING}  servers:\n",
    "servers that are a map": f"{BEGINNING}  servers:\n    a: b\n",
    "servers twice": BEGINNING + SERVERS + SERVERS,
    "a list that is not indented": f"{BEGINNING}  servers:\n  - 127.0.0.1:2:1\n",
    "nothing": "",
    "only a comment": "# p\n",
    "a word": "p\n",
    "a list": "- p\n",
    "a pool that is a word": "p: q\n",
    "an empty pool": "p:\n",
    "a pool that is a list": "p:\n  - a\n",
    "settings that are not indented": "p:\nlisten: 127.0.0.1:1\n",
    "a tab": "p:\n\tlisten: 127.0.0.1:1\n",
    "lines that end as on Windows": with_line("timeout: 1").replace("\n", "\r\n"),
    "lines that end as on old Macs": with_line("timeout: 1").replace("\n", "\r"),
    "trailing spaces": with_line("timeout: 1").replace("\n", "  \n"),
    "a list before other keys": f"{BEGINNING}{SERVERS}  timeout: 1\n",
    "tabs between things": with_line("timeout:\t5 \t# c\t").replace("true", "true\t").replace("p:", "p:\t"),
    "tabs in a list": with_servers("127.0.0.1:2:1\t", "127.0.0.1:2:1 a\t# c", "'127.0.0.1:3:1'\t# c"),
    "a tab before an item": with_servers("\t127.0.0.1:2:1"),
    "a merge key": with_line("<<: x"),
    "a byte order mark": "\ufeff" + with_line("timeout: 1"),
    "no last line end": with_line("timeout: 1").rstrip(),
    "two documents": f"{with_line('timeout: 1')}---\n{with_line('timeout: 1')}",
    "a password and no redis": f"p:\n  listen: 127.0.0.1:1\n  redis_auth: x\n{SERVERS}",
    "maps in maps": "a: " * 30,
}
AGREED = {
    **{f"line {line}": with_line(line) for line in LINES},
    **{f"listen {listen}": with_listen(listen) for listen in LISTENS},
    **{f"servers {' | '.join(servers)}": with_servers(*servers) for servers in SERVER_LISTS},
    **WHOLE,
}

LOOKS = "refused by nutcracker for its looks; it can mean only one thing"
OVERFLOW = "nutcracker counts it in 32 bits and goes on with another number"
WE_TAKE = {
    "a list in brackets": (f"{BEGINNING}  servers: ['127.0.0.1:2:1']\n", LOOKS),
    "a map in braces": ("p: {listen: '127.0.0.1:1', redis: true, servers: ['127.0.0.1:2:1']}\n", LOOKS),
    "an anchor": (with_line("timeout: &a 1"), LOOKS),
    "a tag of YAML's own": (with_line("timeout: !!int 1"), LOOKS),
    "---": (f"---\n{with_line('timeout: 1')}", LOOKS),
    "...": (f"{with_line('timeout: 1')}...\n", LOOKS),
    "%YAML": (f"%YAML 1.1\n---\n{with_line('timeout: 1')}", LOOKS),
    "brackets around an IPv6 address": (with_listen("'[::1]:1'"), "how Shoal writes an IPv6 endpoint everywhere"),
    "reuseport": (with_line("reuseport: true"), "a key of later nutcrackers"),
    "sentinels": (with_line("sentinels:\n   - 127.0.0.1:26379:1"), "what nutcracker lacks"),
}
WE_REFUSE = {
    "no redis": (f"p:\n  listen: 127.0.0.1:1\n{SERVERS}", "we serve Redis pools only"),
    "redis: false": (f"p:\n  listen: 127.0.0.1:1\n  redis: false\n{SERVERS}", "we serve Redis pools only"),
    "a number over 32 bits": (with_line("timeout: 4294967296"), OVERFLOW),
    "a weight over 32 bits": (with_servers("127.0.0.1:2:4294967297"), OVERFLOW),
    "a mode that is none": (with_listen("/tmp/x 8"), "nutcracker reads 0 and sets no mode"),
    "a path with a space": (with_listen("/tmp/a b"), "nutcracker listens on /tmp/a"),
    "any address, as a star": (with_listen("'*:1'"), "nutcracker asks the resolver, which may say ::1 only"),
    "a listen within another": (two_pools(listen="0.0.0.0:1", second="127.0.0.1:1"), "the second cannot be bound"),
    "a listen in other words": (two_pools(second="127.0.0.1:01"), "the second cannot be bound"),
    "a socket with two modes": (two_pools(listen="/tmp/a", second="/tmp/a 0777"), "the second cannot be bound"),
    "an empty name": (with_servers("'127.0.0.1:2:1 '"), "a server whose place on the ring is no text"),
    "no host": (with_servers(":2:1"), "such a server can never be reached"),
    "two ports": (with_servers("127.0.0.1:2:3:1"), "such a server can never be reached"),
    "a host that is a path": (with_servers("x/y:2:1"), "such a server can never be reached"),
    "a path too long for a socket": (with_servers(f"/{'x' * 107}:1"), "such a server can never be reached"),
    "a tab within a value": (with_line("redis_auth: a\tb"), "ruamel.yaml wants it in quotes"),
    "UTF-16": (with_line("timeout: 1"), "a configuration is UTF-8"),
    "a name with a tab": (with_servers('"127.0.0.1:2:1 a\\tb"'), "logs and stats could not print it"),
}


@pytest.fixture(scope="module")
def program() -> Path:
    return have("nutcracker") or pytest.skip("no nutcracker: `make test` installs it as root on Debian")


def theirs(program: Path, file: Path) -> bool:
    done = subprocess.run([program, "-t", "-c", file], capture_output=True, timeout=30, check=False)
    verdict = f"configuration file '{file}' syntax is {'ok' if done.returncode == 0 else 'invalid'}"
    assert verdict in done.stderr.decode(errors="replace")
    return done.returncode == 0


def ours(file: Path) -> bool:
    try:
        nutcracker.load(file)
    except ConfigError:
        return False
    return True


@pytest.mark.parametrize("name", AGREED)
def test_a_file_is_taken_or_refused_as_nutcracker_does(program: Path, tmp_path: Path, name: str) -> None:
    file = tmp_path / "nutcracker.yml"
    file.write_bytes(AGREED[name].encode())
    assert ours(file) == theirs(program, file)


@pytest.mark.parametrize("name", WE_TAKE)
def test_what_nutcracker_refuses_and_we_take(program: Path, tmp_path: Path, name: str) -> None:
    file = tmp_path / "nutcracker.yml"
    file.write_text(WE_TAKE[name][0])
    assert (ours(file), theirs(program, file)) == (True, False), WE_TAKE[name][1]


@pytest.mark.parametrize("name", WE_REFUSE)
def test_what_nutcracker_takes_and_we_refuse(program: Path, tmp_path: Path, name: str) -> None:
    file = tmp_path / "nutcracker.yml"
    file.write_text(WE_REFUSE[name][0], "UTF-16" if name == "UTF-16" else "UTF-8")
    assert (ours(file), theirs(program, file)) == (False, True), WE_REFUSE[name][1]
