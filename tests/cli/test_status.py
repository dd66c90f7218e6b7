"""`shoal status`: exit 0 only when all is well, and the same picture with and without colour."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from inline_snapshot import snapshot

from shoal.cli.view import status_json, status_text
from shoal.health import PartStatus, ShardStatus, Status
from tests.harness import free_ports

if TYPE_CHECKING:
    from collections.abc import Callable

    Shoal = Callable[..., str]

STATUS = Status(
    cluster="shoal",
    supervisor=10,
    shards=(ShardStatus("a", "a-2", 3), ShardStatus("b", None, None)),
    parts=(
        PartStatus("a-1", "redis", "127.0.0.1:7001", "held", shard="a", problems=("is held back: why",)),
        PartStatus("a-2", "redis", "127.0.0.1:7002", "ok", "master", "a", 12, 3, detail="5 keys"),
        PartStatus("b-1", "redis", "127.0.0.1:7003", "ok", "replica", "b", 13, 0, 2048, 1, "7 keys"),
        PartStatus("sentinel1", "sentinel", "127.0.0.1:7004", "ok", pid=14, config_epoch=3, detail="2 shards"),
        PartStatus("proxy1", "proxy", "127.0.0.1:7005", "ok", pid=15, config_epoch=3, detail="1 client"),
    ),
    problems=('no majority of the sentinels names a master of shard "b"', "a-1 is held back: why"),
)


def test_the_picture() -> None:
    assert status_text(STATUS).plain == snapshot("""\
shoal  supervised by pid 10
shard a  master a-2, config epoch 3
  a-1                 127.0.0.1:7001               held
  a-2        master   127.0.0.1:7002  pid 12       ok        5 keys
shard b  no master
  b-1        replica  127.0.0.1:7003  pid 13       ok        7 keys, lag 2.0 KB, 1 s
sentinels
  sentinel1           127.0.0.1:7004  pid 14       ok        2 shards, epoch 3
proxies
  proxy1              127.0.0.1:7005  pid 15       ok        1 client, epoch 3

no majority of the sentinels names a master of shard "b"
a-1 is held back: why\
""")


def test_the_json() -> None:
    said = json.loads(json.dumps(status_json(STATUS)))
    assert said["ok"] is False
    assert said["problems"] == list(STATUS.problems)
    assert said["shards"][0] == {"name": "a", "master": "a-2", "config_epoch": 3}
    assert said["parts"][2] == snapshot(
        {
            "name": "b-1",
            "kind": "redis",
            "endpoint": "127.0.0.1:7003",
            "health": "ok",
            "role": "replica",
            "shard": "b",
            "pid": 13,
            "config_epoch": 0,
            "lag_bytes": 2048,
            "lag_seconds": 1,
            "detail": "7 keys",
            "problems": [],
        }
    )


def test_before_the_first_up(shoal: Shoal) -> None:
    Path("shoal.yaml").write_text("shards: {a: {}}\n")
    assert shoal("status").replace(str(Path.cwd()), "HERE") == snapshot("""\
exit 1
--- stderr
error: the cluster was never up: HERE/.shoal holds no ports
  hint: start it with `shoal up`
""")


def test_a_cluster_that_is_down_exits_with_one(shoal: Shoal) -> None:
    redis, sentinel, *proxy = free_ports(5)
    nodes = {"proxy1": dict(zip(("port", "admin", "stats"), proxy, strict=True))}
    Path("shoal.yaml").write_text(
        json.dumps(
            {
                "shards": {"a": {"master": f"local:{redis}"}},
                "sentinel": {"nodes": [f"local:{sentinel}"]},
                "proxy": {"nodes": nodes},
            }
        )
    )
    said = shoal("status")
    assert said.startswith("exit 1\n--- stdout\n")
    assert said.endswith("\n\nthe cluster is not up: start it with `shoal up`\n")
    assert json.loads(shoal("status", "--json").partition("--- stdout\n")[2])["ok"] is False
