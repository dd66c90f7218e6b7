"""`shoal bench` for real: the smallest run, and one that is interrupted."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from shoal.bench import answers
from shoal.errors import ProcessError
from tests.harness import Servers, have, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

SHOAL = Path(sys.executable).with_name("shoal")

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(have("redis-benchmark") is None, reason="no redis-benchmark: apt-get install redis-tools"),
    pytest.mark.skipif(have("nutcracker") is None, reason="no nutcracker: apt-get install nutcracker"),
]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """The smallest run of a load and a scenario; whatever is left of it is killed by pid."""
    argv = [str(SHOAL), "bench", "--quick", "--rounds", "2", "--only", "get", "--only", "idle-1000", "--json"]
    with subprocess.Popen(
        [*argv, "--peer", "nutcracker", "--mode", "unpinned", "-o", str(tmp_path / "out")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    ) as running:  # fmt: skip
        yield running
        if running.poll() is None:
            running.kill()


def started_by(bench: subprocess.Popen[str]) -> set[psutil.Process]:
    """All that runs below it, and by now may have another parent."""
    return set(psutil.Process(bench.pid).children(recursive=True))


def names(processes: set[psutil.Process]) -> set[str]:
    found = set()
    for process in processes:
        try:
            found.add(process.name())
        except psutil.NoSuchProcess:
            continue
    return found


def runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_small_run_measures_what_its_document_says(bench: subprocess.Popen[str], tmp_path: Path) -> None:
    out, err = bench.communicate(timeout=150)
    assert bench.returncode == 0, err
    document: Any = json.loads(out)
    assert document == json.loads((tmp_path / "out" / "results.json").read_text())
    load, idle = document["rows"]
    assert (load["row"], load["mode"], idle["row"]) == ("get", "unpinned", "idle-1000")
    assert {name: len(samples) for name, samples in load["samples"].items()} == {
        "shoal": 2,
        "nutcracker": 2,
        "direct": 2,
    }
    for sample in load["samples"]["shoal"] + load["samples"]["nutcracker"]:
        assert sample["requests_per_second"] > 1000
        assert 0.05 < sample["proxy_us"] < 200
        assert sample["p50_ms"] <= sample["p99_ms"] <= sample["p999_ms"]
        assert 1 < sample["rss_mb"] <= sample["high_water_mb"]
    assert all(0 < sample["workers_us"] < sample["proxy_us"] for sample in load["samples"]["shoal"])
    assert "proxy_us" not in load["samples"]["direct"][0]
    assert set(idle["samples"]) == {"shoal", "nutcracker"}
    assert all(sample["asked_kib"] > 0 for sample in idle["samples"]["shoal"])
    cpu, goal = document["goals"]
    assert (cpu["figure"], goal["figure"]) == ("proxy_us", "requests_per_second")
    ratios = [
        ours["requests_per_second"] / theirs["requests_per_second"]
        for ours, theirs in zip(load["samples"]["shoal"], load["samples"]["nutcracker"], strict=True)
    ]
    assert min(ratios) <= goal["measured"]["low"] <= goal["measured"]["high"] <= max(ratios)
    page = (tmp_path / "out" / "index.html").read_text()
    assert "GET, 50 clients, unpinned" in page


def test_an_interrupt_in_the_middle_leaves_nothing_running(bench: subprocess.Popen[str]) -> None:
    ours = started_by(bench)

    def loaded() -> bool:
        ours.update(started_by(bench))
        return "redis-benchmark" in names(ours)

    wait_until(loaded, 60, "the first load", interval=0.05)
    assert {"redis-server", "nutcracker"} <= names(ours)
    bench.send_signal(signal.SIGINT)
    bench.communicate(timeout=60)
    assert bench.returncode == 130
    wait_until(lambda: not [one for one in ours if runs(one)], 10, "everything to be gone")


def test_a_subject_that_answers_wrong_is_not_measured(servers: Servers) -> None:
    answers.check("right", servers.redis("right").port)
    wrong = servers.redis("wrong", rename_command="MGET HIDDEN")
    with pytest.raises(ProcessError, match=r"wrong answers \('MGET', .*unknown command"):
        answers.check("wrong", wrong.port)
