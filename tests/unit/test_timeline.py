"""What sentinels and proxies say about a failover, as moments."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from shoal.timeline import proxy_moments, subject

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("event", "data", "shard"),
    [
        ("+sdown", "master a 127.0.0.1 7001", "a"),
        ("+odown", "master a 127.0.0.1 7001 #quorum 2/2", "a"),
        ("+sdown", "slave 127.0.0.1:7002 127.0.0.1 7002 @ a 127.0.0.1 7001", None),
        ("+sdown", "sentinel 0123 127.0.0.1 7005 @ a 127.0.0.1 7001", None),
        ("+promoted-slave", "slave 127.0.0.1:7002 127.0.0.1 7002 @ a 127.0.0.1 7001", "a"),
        ("+switch-master", "a 127.0.0.1 7001 127.0.0.1 7002", "a"),
        ("+new-epoch", "1", None),
    ],
)
def test_the_shard_that_an_event_is_about(event: str, data: str, shard: str | None) -> None:
    assert subject(event, data) == shard


def test_a_proxys_log_gives_moments_in_our_time_and_other_lines_nothing(tmp_path: Path) -> None:
    stamp = datetime.now(UTC).isoformat()
    log = tmp_path / "log"
    log.write_text(
        json.dumps({"timestamp": stamp, "level": "warning", "event": "lease_broken", "shard": "a", "why": "o_down"})
        + "\n"
        + json.dumps({"timestamp": stamp, "event": "proxy_started"})
        + "\nTraceback (most recent call last):\n"
    )
    (moment,) = proxy_moments({"proxy1": log, "proxy2": tmp_path / "absent"})
    assert (moment.who, moment.shard) == ("proxy1", "a")
    assert "lease broken" in moment.what
    assert abs(moment.at - time.monotonic()) < 1
