"""The files that the servers read, as text; tests/integration/test_render.py starts real servers with them."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st
from inline_snapshot import snapshot

from shoal import config
from shoal.render import quoted, redis_conf, sentinel_conf, shoal_conf, with_password
from shoal.topology import Endpoint, lay_out, ports_to_choose

if TYPE_CHECKING:
    from shoal.topology import Layout

HOME = PurePosixPath("/var/lib/my shoal/nodes/a-2")


def laid_out(**changes: Any) -> Layout:
    topology = config.parse(
        {"shards": {"a": {"replicas": 1}, "b": {"replicas": 0}}, "sentinel": {"nodes": 1}, **changes}
    )
    return lay_out(topology, {key: 7001 + number for number, key in enumerate(ports_to_choose(topology))})


def test_redis_conf_of_a_first_master() -> None:
    layout = laid_out()
    assert redis_conf(layout.redis[0], layout, PurePosixPath("/s/nodes/a-1")) == snapshot("""\
# Written by Shoal at the first start; the server's own since then (CONFIG REWRITE).
# What the topology file says is in shoal.conf, which is rendered at each start and read last.
include "/s/nodes/a-1/shoal.conf"
dir "/s/nodes/a-1"
""")


def test_redis_conf_of_a_first_replica() -> None:
    layout = laid_out()
    assert redis_conf(layout.redis[1], layout, HOME) == snapshot("""\
# Written by Shoal at the first start; the server's own since then (CONFIG REWRITE).
# What the topology file says is in shoal.conf, which is rendered at each start and read last.
include "/var/lib/my shoal/nodes/a-2/shoal.conf"
dir "/var/lib/my shoal/nodes/a-2"
replicaof 127.0.0.1 7001
""")


def test_shoal_conf() -> None:
    layout = laid_out()
    assert shoal_conf(layout.redis[0], layout) == snapshot("""\
# Rendered by Shoal from the topology file at each start: changes made here are lost.
bind 127.0.0.1
port 7001
protected-mode no
daemonize no
replica-announce-ip 127.0.0.1
replica-announce-port 7001
replica-priority 100
min-replicas-to-write 0
min-replicas-max-lag 3

appendonly yes
repl-diskless-sync yes
repl-diskless-sync-delay 0
repl-backlog-size 64mb
repl-timeout 10
""")


def test_shoal_conf_with_a_password_directives_and_a_fence() -> None:
    layout = laid_out(
        auth={"password": "#h\\unter2é"},
        redis={
            "maxmemory": "1gb",
            "Save": ["900 1", "60 10000"],
            "appendonly": False,
            "notify-keyspace-events": "",
            "client-output-buffer-limit": ["normal 0 0 0", "replica 1gb 256mb 60"],
        },
        fence_direct_clients=True,
    )
    assert shoal_conf(layout.redis[0], layout) == snapshot("""\
# Rendered by Shoal from the topology file at each start: changes made here are lost.
bind 127.0.0.1
port 7001
protected-mode no
daemonize no
replica-announce-ip 127.0.0.1
replica-announce-port 7001
replica-priority 100
requirepass "#h\\\\unter2\\xc3\\xa9"
masterauth "#h\\\\unter2\\xc3\\xa9"
min-replicas-to-write 1
min-replicas-max-lag 3

appendonly no
repl-diskless-sync yes
repl-diskless-sync-delay 0
repl-backlog-size 64mb
repl-timeout 10
maxmemory 1gb
save ""
save 900 1
save 60 10000
notify-keyspace-events ""
client-output-buffer-limit normal 0 0 0
client-output-buffer-limit replica 1gb 256mb 60
""")


def test_a_fence_is_only_for_shards_with_replicas() -> None:
    layout = laid_out(fence_direct_clients=True)
    alone = layout.shard_nodes("b")[0]
    assert "min-replicas-to-write 0\n" in shoal_conf(alone, layout)


def test_sentinel_conf_monitors_where_the_masters_are_now() -> None:
    layout = laid_out(sentinel={"nodes": 3, "down_after": "1s", "failover_timeout": "6s"}, auth={"password": "hunter2"})
    masters = {"a": Endpoint("127.0.0.1", 7002), "b": Endpoint("127.0.0.1", 7003)}
    assert sentinel_conf(layout.sentinels[0], layout, masters) == snapshot("""\
# Written by Shoal at the first start; Sentinel's own since then.
bind 127.0.0.1
port 7004
protected-mode no
daemonize no
sentinel announce-ip 127.0.0.1
sentinel announce-port 7004

sentinel monitor a 127.0.0.1 7002 2
sentinel down-after-milliseconds a 1000
sentinel failover-timeout a 6000
sentinel parallel-syncs a 1

sentinel monitor b 127.0.0.1 7003 2
sentinel down-after-milliseconds b 1000
sentinel failover-timeout b 6000
sentinel parallel-syncs b 1
requirepass "hunter2"
sentinel sentinel-pass "hunter2"
sentinel auth-pass a "hunter2"
sentinel auth-pass b "hunter2"
""")


def test_without_a_password_none_is_asked_for() -> None:
    layout = laid_out()
    files = [shoal_conf(layout.redis[0], layout), sentinel_conf(layout.sentinels[0], layout, {})]
    assert not re.search(r"requirepass|masterauth|auth-pass|sentinel-pass", "".join(files))


def test_redis_conf_holds_no_password_until_the_server_copies_it() -> None:
    layout = laid_out(auth={"password": "hunter2"})
    assert "hunter2" not in redis_conf(layout.redis[1], layout, HOME)


REWRITTEN = """\
port 7004
requirepass "old"
user default on #2c9e ~* &* +@all
user app on #aaaa ~app:* +@read
sentinel monitor a 127.0.0.1 7002 2
sentinel auth-pass a old
sentinel known-replica a 127.0.0.1 7001
sentinel sentinel-pass old
"""


def test_a_file_of_the_server_s_own_gets_the_password_of_today() -> None:
    topology = laid_out(auth={"password": "new"}).topology
    renewed = with_password(REWRITTEN, topology)
    assert renewed == snapshot("""\
port 7004
user app on #aaaa ~app:* +@read
sentinel monitor a 127.0.0.1 7002 2
sentinel known-replica a 127.0.0.1 7001
requirepass "new"
sentinel sentinel-pass "new"
sentinel auth-pass a "new"
""")
    assert with_password(renewed, topology) == renewed


def test_a_password_that_is_no_more_leaves_the_server_s_own_files() -> None:
    assert with_password(REWRITTEN, laid_out().topology) == snapshot("""\
port 7004
user app on #aaaa ~app:* +@read
sentinel monitor a 127.0.0.1 7002 2
sentinel known-replica a 127.0.0.1 7001
""")
    assert with_password("dir /x\nmasterauth old\nprimaryauth old\n", laid_out().topology) == "dir /x\n"


@given(text=st.text())
def test_what_is_quoted_is_printable_and_means_the_same(text: str) -> None:
    encoded = quoted(text)
    assert re.fullmatch(r'"(?:[^"\\]|\\["\\]|\\x[0-9a-f]{2})*"', encoded)
    assert encoded.isascii()
    assert encoded.isprintable()
    plain = re.sub(
        rb"\\(?:x([0-9a-f]{2})|(.))", lambda m: bytes.fromhex(m[1].decode()) if m[1] else m[2], encoded[1:-1].encode()
    )
    assert plain == text.encode("utf-8", "surrogateescape")
