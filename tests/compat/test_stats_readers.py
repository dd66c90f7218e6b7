"""Programs that were written for nutcracker's statistics read ours: each way that they are read in, on both lines.

The ways are those of the collectors and exporters that are in use (Telegraf, Datadog, Diamond, Sensu, collectd and the
exporters for Prometheus): some take what is a map, some all that they have no other name for, some every number.
"""

from __future__ import annotations

import json
import re
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from tests.compat.numbered import NumberedServers, pool_text, server_line
from tests.compat.rivals import NUTCRACKER, SHOAL, started
from tests.compat.stage import POOL_FIGURES, SERVER_FIGURES, settled
from tests.harness import LOOPBACK, free_ports
from tests.integration.wire import Wire, command

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.compat.rivals import Rival

HEAD = ("service", "source", "version", "uptime", "timestamp", "total_connections", "curr_connections")
PASSED_OVER = ("service", "source", "version", "timestamp")
OF_THE_MOMENT = ("uptime", "timestamp", "total_connections", "curr_connections", "server_ejected_at", "fragments")
KEYS = [f"key{number}" for number in range(60)]
Metrics = dict[tuple[str, ...], Any]
Lines = dict[str, bytes]


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Lines:
    """What both say after the same traffic: two pools, aliases, commands that are split, a server that is dead."""
    live, dead, *listens = free_ports(4)
    servers = {number: (f"127.0.72.{number + 1}", live) for number in range(3)}
    first = [server_line(servers[number], alias=alias) for number, alias in enumerate(("requests", None, "c-é"))]
    config = pool_text("main", f"{LOOPBACK}:{listens[0]}", first)
    settings = {"auto_eject_hosts": "true", "server_failure_limit": 1, "server_retry_timeout": 60_000}
    second = [server_line(servers[0]), server_line((LOOPBACK, dead), alias="dead")]
    config += pool_text("other", f"{LOOPBACK}:{listens[1]}", second, settings)
    said = {}
    with NumberedServers(servers):
        for name in (NUTCRACKER, SHOAL):
            everywhere = tuple((LOOPBACK, port) for port in listens)
            with started(name, config, everywhere, tmp_path_factory.mktemp(name), workers=1) as rival:
                use(everywhere[0], ("MGET", *KEYS[:20]), ("DEL", *KEYS[:2]))
                use(everywhere[1])
                with Wire(everywhere[0]) as stays:
                    assert stays.call("PING") == "PONG"
                    settled(partial(without_the_moment, rival))
                    said[name] = rival.stats_line()
    return said


def use(place: tuple[str, int], *more: tuple[str, ...]) -> None:
    with Wire(place) as client:
        requests = [*(("GET", key) for key in KEYS), *more]
        client.send(b"".join(command(*words) for words in requests))
        for _ in requests:
            client.reply()


def without_the_moment(rival: Rival) -> Any:
    return {name: value for name, value in rival.stats().items() if name not in HEAD}


# --------------------------------------------------------------------------------------------------- ways of reading


def what_is_a_map(told: Any) -> Metrics:
    """A map at the top is a pool, a map in it is a server, and every number is a metric of where it stands."""
    metrics: Metrics = {}
    for name, value in told.items():
        if isinstance(value, dict):
            metrics |= {(name, *path): number for path, number in what_is_a_map(value).items()}
        elif isinstance(value, int):
            metrics[name,] = value
    return metrics


def what_has_no_other_name(told: Any) -> Metrics:
    """Whatever is not of the head is a pool, and whatever in it is no figure of a pool is a server."""
    metrics: Metrics = {}
    for pool in told.keys() - set(HEAD):
        metrics |= {(pool, figure): told[pool][figure] for figure in POOL_FIGURES}
        for server in told[pool].keys() - set(POOL_FIGURES):
            metrics |= {(pool, server, figure): float(told[pool][server][figure]) for figure in SERVER_FIGURES}
    return metrics


def what_is_known_by_name(told: Any) -> Metrics:
    """Pools and servers are in the reader's own file; it asks for what it knows."""
    pools = {"main": ("requests", "c-é"), "other": ("dead",)}
    metrics: Metrics = {(name,): told[name] for name in HEAD[3:]}
    for pool, servers in pools.items():
        metrics |= {(pool, figure): told[pool][figure] for figure in POOL_FIGURES}
        metrics |= {(pool, one, figure): told[pool][one][figure] for one in servers for figure in SERVER_FIGURES}
    return metrics


def all_but_four_are_numbers(told: Any) -> Metrics:
    """Four names of the head are passed over; all else at the top that is no map must be a number, in pools as well."""
    flat = {name: value for name, value in told.items() if not isinstance(value, dict) and name not in PASSED_OVER}
    metrics: Metrics = {(name,): int(value) for name, value in flat.items()}
    for pool, figures in told.items():
        if isinstance(figures, dict):
            for name, value in figures.items():
                inside = value.items() if isinstance(value, dict) else ((None, value),)
                metrics |= {(pool, name, *([key] if key else [])): int(number) for key, number in inside}
    return metrics


def names_in_the_text(line: bytes) -> Metrics:
    """No JSON at all: a name in quotes, a colon and digits."""
    found: Metrics = {}
    for name, digits in re.findall(rb'"([a-z_]+)":(\d+)', line):
        key = (name.decode(),)
        found[key] = found.get(key, 0) + int(digits)
    return {key: found[key] for key in found if key[0] in (*POOL_FIGURES, *SERVER_FIGURES)}


OF_JSON = (what_is_a_map, what_has_no_other_name, what_is_known_by_name, all_but_four_are_numbers)


@pytest.mark.parametrize("way", [*OF_JSON, names_in_the_text], ids=lambda way: way.__name__)
def test_a_reader_finds_the_same_in_both(lines: Lines, way: Callable[[Any], Metrics]) -> None:
    theirs, ours = (way(json.loads(lines[name]) if way in OF_JSON else lines[name]) for name in (NUTCRACKER, SHOAL))
    wrong = {
        key: (value, ours.get(key))
        for key, value in theirs.items()
        if key[-1] not in OF_THE_MOMENT and value != ours.get(key)
    }
    assert wrong == {}
    assert theirs.keys() <= ours.keys()
    assert len(theirs) > 10


# ------------------------------------------------------------------------------------------------------ the line itself


def shape(line: bytes) -> str:
    """The line without its numbers, and without what only Shoal counts."""
    text = re.sub(r":\d+", ":N", line.decode())
    names = [name for name in json.loads(line)["main"]["requests"] if name not in SERVER_FIGURES]
    return re.sub(rf', "({"|".join(names)})":N', "", text) if names else text


def test_the_line_is_the_same_but_for_its_numbers(lines: Lines) -> None:
    assert shape(lines[SHOAL]) == shape(lines[NUTCRACKER])


def test_what_only_shoal_counts_stands_in_servers_behind_the_rest(lines: Lines) -> None:
    theirs, ours = (json.loads(lines[name]) for name in (NUTCRACKER, SHOAL))
    assert list(ours) == list(theirs)
    for pool in ("main", "other"):
        assert list(ours[pool]) == list(theirs[pool])
        for server, figures in ours[pool].items():
            if isinstance(figures, dict):
                assert tuple(figures)[: len(SERVER_FIGURES)] == SERVER_FIGURES == tuple(theirs[pool][server])
                assert all(isinstance(value, int) for value in figures.values())


def test_a_line_of_many_servers_is_not_much_longer(lines: Lines) -> None:
    """Readers have buffers, most of 8 KiB and more."""
    assert len(lines[SHOAL]) < 1.7 * len(lines[NUTCRACKER])


def test_connections_are_counted_alike(tmp_path: Path) -> None:
    """The head's two figures: what one client with requests for two servers, of which one is dead, adds to them."""
    added = {}
    live, dead, port = free_ports(3)
    config = pool_text("p", f"{LOOPBACK}:{port}", [server_line((LOOPBACK, live)), server_line((LOOPBACK, dead))])
    with NumberedServers({0: (LOOPBACK, live)}):
        for name in (NUTCRACKER, SHOAL):
            with started(name, config, ((LOOPBACK, port),), tmp_path, workers=1) as rival:

                def counts(it: Rival = rival) -> tuple[int, int]:
                    told = it.stats()
                    return told["total_connections"], told["curr_connections"]

                before = settled(counts)
                with Wire((LOOPBACK, port)) as client:
                    client.send(b"".join(command("GET", f"key{number}") for number in range(40)))
                    for _ in range(40):
                        client.reply()
                    during = settled(counts)
                after = settled(counts)
                added[name] = before[1], during[0] - before[0], during[1] - before[1], after[1] - before[1]
    assert added[SHOAL] == added[NUTCRACKER]
