"""`shoal diff --sample`: real keys of real servers, and whether what it says of them comes true."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest

from shoal import samples
from shoal.cli.app import run
from shoal.errors import SampleError
from shoal.samples import Source
from shoal.topology import Endpoint
from tests.harness import LOOPBACK

if TYPE_CHECKING:
    from pathlib import Path

    from tests.harness import RedisServer, Servers
    from tests.plane_host import PlaneHost

KEYS = 3000


def endpoint(server: RedisServer | PlaneHost) -> Endpoint:
    return Endpoint(*server.address)


def fill(server: RedisServer, count: int, database: int = 0) -> None:
    with contextlib.closing(server.client(db=database)) as client:
        client.mset({f"{server.name}:{number}": "x" for number in range(count)})
        client.set(b"\xff{tag}", "x")


def test_the_real_keys_that_move_are_counted_and_shown(
    servers: Servers, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOAL_SAMPLE_PASSWORD", "sesame")
    masters = [servers.redis(name, requirepass="sesame") for name in ("a", "b")]
    for master in masters:
        fill(master, KEYS, database=2)
    head = f"main:\n  listen: {LOOPBACK}:1\n  redis: true\n  redis_db: 2\n  hash: md5\n  servers:\n"
    old, new = tmp_path / "old.yml", tmp_path / "new.yml"
    old.write_text(head + "".join(f"   - {LOOPBACK}:{one.port}:1 {one.name}\n" for one in masters))
    new.write_text(old.read_text() + f"   - {LOOPBACK}:9:1 c\n")
    asked = [word for one in masters for word in ("--sample", str(endpoint(one)))]
    assert run(["diff", str(old), str(new), *asked, "--json", "--exit-code"]) == 1
    (pool,) = json.loads(capfd.readouterr().out)["pools"]
    real: dict[str, Any] = pool["real_keys"]
    assert (real["read"], real["held"]) == (2 * KEYS + 1, 2 * KEYS + 2), "a key of both counts once"
    assert {flow["to"] for flow in real["flows"]} == {"c"}
    assert sum(flow["keys"] for flow in real["flows"]) == real["moved"]
    assert real["moved"] / real["read"] == pytest.approx(pool["keys"]["moved"], abs=0.05), "md5 spreads any keys"
    assert all(1 <= len(flow["examples"]) <= 3 for flow in real["flows"])


def test_a_sample_takes_of_each_server_what_is_due(servers: Servers) -> None:
    small, large = servers.redis("small"), servers.redis("large")
    fill(small, 1000)
    fill(large, KEYS)
    told: list[int] = []
    sample = samples.read(Source([endpoint(small), endpoint(large)]), 400, lambda _, count: told.append(count))
    assert sample.held == KEYS + 1000 + 2
    assert sum(key.startswith(b"small") for key in sample.keys) in (99, 100)
    assert len(set(sample.keys)) == len(sample.keys) in (399, 400), "one key is in both"
    assert told[-1] == 400


def test_a_replica_beside_its_master_adds_nothing(servers: Servers) -> None:
    stack = servers.stack(("a",), replicas=1, sentinels=1)
    fill(stack.masters["a"], 100)
    with contextlib.closing(stack.masters["a"].client()) as client:
        client.wait(1, 5000)
    both = Source([endpoint(stack.masters["a"]), endpoint(stack.replicas["a"][0])])
    assert len(samples.read(both, 1000, lambda *_: None).keys) == 101


def test_a_proxy_gives_the_keys_of_all_its_shards(proxy: PlaneHost) -> None:
    for server in proxy.servers.values():
        fill(server, 50)
    sample = samples.read(Source([endpoint(proxy)]), 1000, lambda *_: None)
    assert len(sample.keys) == 50 * len(proxy.servers) + 1, "one key is in all of them"


def test_who_cannot_give_keys_is_told_with_what_to_do(servers: Servers) -> None:
    closed = servers.redis("closed", requirepass="sesame")
    with pytest.raises(SampleError, match="SHOAL_SAMPLE_PASSWORD"):
        samples.read(Source([endpoint(closed)]), 10, lambda *_: None)
    closed.kill()
    with pytest.raises(SampleError, match="the server did not list its keys"):
        samples.read(Source([endpoint(closed)], password="sesame"), 10, lambda *_: None)
