"""`shoal up`, `down` and `status` as commands: ready in time, stopped in time, refused whole, nothing left running."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from shoal import state
from shoal.cluster import Cluster
from shoal.process import is_running
from tests.harness import free_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.harness import EngineProgram

pytestmark = pytest.mark.timeout(120)


class Place:
    """A directory with a topology file, and the commands in it."""

    def __init__(self, directory: Path, engine: Path, **sections: Any) -> None:
        self.directory = directory
        directory.mkdir(exist_ok=True)
        self.write(engine=str(engine), **{"shards": {"a": {"replicas": 1}}, **sections})

    def write(self, **topology: Any) -> None:
        (self.directory / "shoal.yaml").write_text(json.dumps(topology))

    def shoal(self, *words: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "shoal", *words],
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    @property
    def state(self) -> Path:
        return self.directory / ".shoal"

    def address(self, proxy: int = 1) -> tuple[str, int]:
        return "127.0.0.1", state.load_ports(self.state)[f"proxy{proxy}.shoal"]

    def running(self) -> dict[str, int]:
        """The parts that run, by what the state directory remembers."""
        units = state.load_units(self.state)
        return {name: unit.pid for name, unit in units.items() if unit.pid and is_running(unit.pid, unit.started)}


@pytest.fixture
def place(valkey: EngineProgram, tmp_path: Path) -> Iterator[Place]:
    here = Place(tmp_path / "here", valkey.server)
    before = children()
    yield here
    here.shoal("down")
    assert not here.running()
    wait_until(lambda: children() <= before, 5, "every process of the test to be gone")


def children() -> set[int]:
    """Server processes of any directory below a test's: found by what they were started with."""
    found = set()
    for process in psutil.process_iter(["cmdline", "status", "pid"]):
        words = process.info["cmdline"] or []
        if process.info["status"] != psutil.STATUS_ZOMBIE and any(".shoal/" in word for word in words):
            found.add(process.info["pid"])
    return found


def test_up_serves_status_is_well_and_down_leaves_nothing(engine: EngineProgram, tmp_path: Path) -> None:
    here = Place(tmp_path / "here", engine.server, shards={"a": {"replicas": 1}, "b": {"replicas": 1}})
    began = time.monotonic()
    up = here.shoal("up", "--detach")
    took = time.monotonic() - began
    try:
        assert up.returncode == 0, up.stderr
        with redis.Redis(*here.address()) as client:
            assert client.set("key", "value")
        assert time.monotonic() - began < allowed(5), f"{took:.1f} s until ready"
        status = here.shoal("status")
        assert (status.returncode, "all is well" in status.stdout) == (0, True), status.stdout
        pids = here.running()
        assert len(pids) == 9
    finally:
        began = time.monotonic()
        down = here.shoal("down")
    assert down.returncode == 0, down.stderr
    assert time.monotonic() - began < allowed(5)
    assert not here.running()
    assert not [pid for pid in pids.values() if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"]
    again = here.shoal("status")
    assert again.returncode == 1
    assert "the cluster is not up" in again.stdout


def allowed(seconds: float) -> float:
    """A bound on an idle machine of two cores, and more where others work beside us."""
    return seconds * max(1.0, os.getloadavg()[0] / 2)


def test_a_second_up_says_so_and_disturbs_nothing(place: Place) -> None:
    assert place.shoal("up", "-d").returncode == 0
    pids = place.running()
    for words in (("up",), ("up", "--detach")):
        second = place.shoal(*words)
        assert second.returncode == 1
        holder = state.lock_holder(place.state)
        assert f"is already up (pid {holder})" in second.stderr
        assert "shoal down" in second.stderr
    assert place.running() == pids


def test_a_port_in_use_is_one_error_and_nothing_is_started(place: Place, valkey: EngineProgram) -> None:
    port = free_port()
    nodes = {"proxy1": {"port": port}}
    place.write(engine=str(valkey.server), shards={"a": {"replicas": 1}}, proxy={"nodes": nodes})
    with socket.socket() as other:
        # as another proxy listens: SO_REUSEPORT would let a second one join it
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        for words in (("up",), ("up", "--detach")):
            refused = place.shoal(*words)
            assert refused.returncode == 2
            assert refused.stderr.count("error:") == 1, refused.stderr
            assert f"port {port} for proxy1 (pool shoal) is in use" in refused.stderr
            assert f"(pid {os.getpid()})" in refused.stderr
            assert "hint:" in refused.stderr
            assert not place.running()
            assert not (place.state / "nodes").exists()
    assert place.shoal("up", "-d").returncode == 0  # and the refusal left nothing that stands in the way


def test_a_start_that_fails_half_way_stops_what_it_started(place: Place, valkey: EngineProgram) -> None:
    place.write(
        engine=str(valkey.server),
        shards={"a": {"replicas": 1}},
        proxy={"nodes": 1},
        redis={"maxmemory": "a lot"},
    )
    refused = place.shoal("up")
    assert refused.returncode in (1, 2)
    assert "maxmemory" in refused.stderr
    assert not place.running()


def test_another_clusters_state_directory_is_refused(place: Place, valkey: EngineProgram) -> None:
    assert place.shoal("up", "-d").returncode == 0
    place.shoal("down")
    place.write(engine=str(valkey.server), cluster="other", shards={"a": {"replicas": 1}})
    refused = place.shoal("up")
    assert refused.returncode == 2
    assert 'belongs to cluster "shoal", not "other"' in refused.stderr
    assert not place.running()


def test_a_state_directory_that_cannot_be_written_is_refused(place: Place) -> None:
    place.state.write_text("a file in its place")
    refused = place.shoal("up")
    assert refused.returncode == 2
    assert "is a file" in refused.stderr
    elsewhere = place.shoal("up", "--state", "/proc/nowhere")
    assert elsewhere.returncode == 2
    assert "cannot be written" in elsewhere.stderr
    place.state.unlink()


def test_a_ring_that_would_move_keys_is_refused(place: Place, valkey: EngineProgram) -> None:
    assert place.shoal("up", "-d").returncode == 0
    place.shoal("down")
    place.write(engine=str(valkey.server), shards={"a": {"replicas": 1}, "b": {"replicas": 1}})
    refused = place.shoal("up")
    assert refused.returncode == 2
    assert "another ring" in refused.stderr
    assert not place.running()


def test_a_node_that_sentinels_know_elsewhere_is_refused(place: Place, valkey: EngineProgram) -> None:
    assert place.shoal("up", "-d").returncode == 0
    place.shoal("down")
    shard = {"master": f"127.0.0.1:{free_port()}", "replicas": [f"127.0.0.1:{free_port()}"]}
    place.write(engine=str(valkey.server), shards={"a": shard})
    refused = place.shoal("up")
    assert refused.returncode == 2
    assert "sentinels know it by its address" in refused.stderr
    assert not place.running()


def test_changed_settings_arrive_at_the_next_start(place: Place, valkey: EngineProgram) -> None:
    assert place.shoal("up", "-d").returncode == 0
    place.shoal("down")
    place.write(
        engine=str(valkey.server),
        shards={"a": {"replicas": 1}},
        redis={"maxmemory": "77mb"},
        sentinel={"down_after": "2500ms"},
    )
    assert place.shoal("up", "-d").returncode == 0
    ports = state.load_ports(place.state)
    with redis.Redis(port=ports["a-1"]) as client:
        assert client.config_get("maxmemory") == {"maxmemory": str(77 << 20)}
    with redis.Redis(port=ports["sentinel1"]) as client:
        assert client.sentinel_master("a")["down-after-milliseconds"] == 2500


def test_a_password_is_asked_by_every_server_and_is_in_no_argument(place: Place, valkey: EngineProgram) -> None:
    secret = "open:sesame#1"
    (place.directory / "secret").write_text(secret + "\n")
    (place.directory / "secret").chmod(0o600)
    place.write(engine=str(valkey.server), shards={"a": {"replicas": 1}}, auth={"password_file": "secret"})
    up = place.shoal("up", "-d")
    assert up.returncode == 0, up.stderr
    ports = state.load_ports(place.state)
    for key in ("a-1", "a-2", "sentinel1", "proxy1.shoal"):
        once = Retry(NoBackoff(), 0)
        with redis.Redis(port=ports[key], retry=once) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
    with redis.Redis(*place.address(), password=secret) as client:
        assert client.set("key", "value")
    assert place.shoal("status").returncode == 0
    arguments = [word for pid in place.running().values() for word in psutil.Process(pid).cmdline()]
    assert not [word for word in arguments if "sesame" in word]
    assert not [
        path for path in place.state.rglob("*") if path.is_file() and "sesame" in text(path) and open_to_all(path)
    ]


def text(path: Path) -> str:
    return path.read_text(errors="replace")


def open_to_all(path: Path) -> bool:
    return bool(path.stat().st_mode & 0o077)


def test_ctrl_c_while_starting_leaves_nothing(place: Place) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "shoal", "up"], cwd=place.directory, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stderr is not None
        line = child.stderr.readline()
        assert "started" in line
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=20)
    assert child.returncode == 0
    assert not place.running()


def test_a_cluster_in_a_program_ends_with_it(tmp_path: Path, valkey: EngineProgram) -> None:
    program = f"""
import sys, time, redis, shoal
c = shoal.Cluster(["a"], 0, proxies=1, directory={str(tmp_path / "c")!r}, engine={str(valkey.server)!r}).start()
redis.Redis(*c.address).set("key", "value")
print(*c.pids(), flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        pids = [int(word) for word in child.stdout.readline().split()]
        assert len(pids) == 6
        child.kill()
    wait_until(lambda: not any(psutil.pid_exists(pid) and alive(pid) for pid in pids), 15, "everything to have ended")


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_cluster_cleans_up_after_an_exception(valkey: EngineProgram) -> None:
    seen: list[Cluster] = []
    pids: set[int] = set()

    def fail() -> None:
        with Cluster(["a"], 0, proxies=1, sentinels=1, engine=str(valkey.server)) as cluster:
            seen.append(cluster)
            pids.update(cluster.pids())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not seen[0].directory.exists()
    assert len(pids) == 4
    assert not any(alive(pid) for pid in pids)
