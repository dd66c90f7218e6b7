"""The admin HTTP: what it answers, and to whom."""

from __future__ import annotations

import json
import socket
from dataclasses import replace
from typing import Any

import pytest

from shoal import admin
from shoal.admin import AdminServer, PoolFace, Subject, admin_token, application, unready
from shoal.errors import ConfigError, PortInUseError, ShoalError
from shoal.sentinel import LeaseRule, Master
from shoal.staleness import Reading, ReplicaView
from shoal.topology import Endpoint
from tests.unit.sentinels import MS, NEW, OLD, S1, SENTINELS, SHARD, event, poll, reducer, report, settled, view_of

LOOPBACK = Endpoint("127.0.0.1", 22180)
OUTSIDE = Endpoint("10.0.0.9", 22180)
PASSWORD = "p-4711"


class FakePlane:
    """A plane whose workers are as old as a test says."""

    def __init__(self, ages_ms: tuple[float, ...] = (3.0, 250.0)) -> None:
        self.ages_ms = list(ages_ms)

    def acked_epoch(self) -> int:
        return 7

    def worker_ages_ms(self) -> list[float]:
        return self.ages_ms

    def stats(self) -> dict[str, Any]:
        shard = {"state": "serving", "connected": True, "held_requests": 0}
        return {"workers": 2, "pools": {"main": {"clients": 3, "shards": {SHARD: shard}}}}


def subject(one: Any = None, at_ms: float = 1.0, **changes: Any) -> Subject:
    """A proxy with one pool over one shard, as the reducer sees it at `at_ms`."""
    one = one or settled()
    pool = PoolFace(
        "main",
        Endpoint("127.0.0.1", 1),
        {SHARD: SHARD},
        "fnv1a_64",
        "ketama",
        LeaseRule.REQUIRE,
        lambda: view_of(one, at_ms),
    )
    return replace(Subject("proxy1", [pool], FakePlane(), lambda: int(at_ms * MS)), **changes)


@pytest.fixture
def pinged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """PING through the client port succeeds, unless a test puts a reason here."""
    reasons: list[str] = []

    async def ping(_pool: PoolFace) -> str | None:
        return reasons[0] if reasons else None

    monkeypatch.setattr(admin, "_ping", ping)
    return reasons


async def get(of: Subject, path: str, *, bind: Endpoint = LOOPBACK, token: str | None = None) -> tuple[int, Any]:
    """One GET, without a socket."""
    return await ask(of, "GET", path, bind, {} if token is None else {"authorization": f"Bearer {token}"})


async def ask(of: Subject, method: str, path: str, bind: Endpoint, given: dict[str, str]) -> tuple[int, Any]:
    sent: list[Any] = []
    path, _, query = path.partition("?")
    headers = [(name.encode(), value.encode()) for name, value in given.items()]
    asked = {"type": "http", "method": method, "path": path, "query_string": query.encode(), "root_path": ""}
    scope = {**asked, "headers": headers}

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    await application(of, bind)(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent)
    try:
        return sent[0]["status"], json.loads(body)
    except ValueError:
        return sent[0]["status"], body


async def test_healthy_is_about_this_proxy_never_about_a_shard(pinged: list[str]) -> None:
    assert await get(subject(reducer()), "/healthz") == (200, {"healthy": True, "reasons": []})


async def test_a_stuck_worker_or_a_silent_port_is_unhealthy(pinged: list[str]) -> None:
    pinged.append('pool "main" at 127.0.0.1:1: no answer in time')
    status, body = await get(subject(plane=FakePlane((1.0, 1500.0))), "/healthz")
    assert status == 503
    assert body["reasons"] == [
        "worker 1 has not finished a round for 1500 ms",
        'pool "main" at 127.0.0.1:1: no answer in time',
    ]


async def test_a_port_that_nobody_listens_on_is_unhealthy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    one = subject()
    pool = replace(one.pools[0], listen=Endpoint("0.0.0.0", port))
    status, body = await get(replace(one, pools=[pool]), "/healthz")
    assert status == 503
    assert body["reasons"] == [f'pool "main" at 127.0.0.1:{port}: Connection refused']


async def test_draining_is_neither_healthy_nor_ready(pinged: list[str]) -> None:
    one = subject(draining=True)
    assert (await get(one, "/healthz"))[0] == 503
    assert (await get(one, "/readyz"))[0] == 503


async def test_ready_while_every_shard_has_a_lease() -> None:
    assert await get(subject(), "/readyz") == (200, {"ready": True, "reasons": []})


async def test_a_shard_without_a_lease_is_named_with_the_reason() -> None:
    one = settled()
    one.observe(event(S1, 1, "+try-failover"))
    status, body = await get(subject(one, 2.0), "/readyz")
    assert status == 503
    assert body["reasons"] == [f'pool "main" shard "{SHARD}": sentinel {S1} published +try-failover']


def test_a_lease_that_ran_out_since_the_last_view_is_none() -> None:
    one = settled()
    late = replace(subject(one), now_ns=lambda: 2000 * MS)
    assert unready(late) == [f'pool "main" shard "{SHARD}": its lease has run out']


async def test_without_any_sentinel_nothing_is_ready() -> None:
    _, body = await get(subject(reducer()), "/readyz")
    assert body["reasons"] == [f'pool "main" shard "{SHARD}": no majority of the sentinels names its master']


async def test_topology_says_what_is_served() -> None:
    one = settled()
    one.observe(poll(S1, 5, report("s_down")))
    status, body = await get(subject(one, 10.0), "/api/v1/topology")
    assert status == 200
    assert (body["node"], body["epoch"], body["draining"], body["problems"]) == ("proxy1", 7, False, [])
    pool = body["pools"]["main"]
    assert (pool["listen"], pool["clients"], pool["lease"]) == ("127.0.0.1:1", 3, "require")
    shard = pool["shards"][SHARD]
    assert shard["endpoint"] == str(OLD)
    assert shard["config_epoch"] == 0
    assert shard["writable"]
    assert shard["lease_ms"] == 1140
    assert shard["state"] == "serving"
    assert shard["hold_reason"] is None
    assert shard["votes"][str(S1)] == "holds the master to be down"
    assert [sentinel["last_seen_ms"] for sentinel in body["sentinels"]] == [5, 10, 10]


async def test_topology_shows_a_candidate_and_why_writes_are_held() -> None:
    one = settled()
    for sentinel in SENTINELS:
        one.observe(poll(sentinel, 5, report(endpoint=NEW, config_epoch=1)))
    _, body = await get(subject(one, 10.0), "/api/v1/topology")
    shard = body["pools"]["main"]["shards"][SHARD]
    assert (shard["candidate"], shard["writable"], shard["lease_ms"]) == (str(NEW), False, 0)
    assert "not confirmed yet" in shard["hold_reason"]
    one.confirm(SHARD, Master(NEW, 1))


async def test_replicas_that_reads_go_to_are_shown_with_what_they_may_miss() -> None:
    one, other = Endpoint("10.0.0.1", 1), Endpoint("10.0.0.1", 2)
    at_ns = 5000 * MS
    views = {
        one: ReplicaView(at_ns - 3 * MS, at_ns + 990 * MS, at_ns - 10 * MS),
        other: ReplicaView(why_not="has lost its master"),
    }
    asked = subject(at_ms=5000)
    (pool,) = asked.pools
    asked = replace(asked, pools=[replace(pool, reading=lambda _shard: Reading(views))])
    _, body = await get(asked, "/api/v1/topology")
    shard = body["pools"]["main"]["shards"][SHARD]
    assert shard["replicas"] == {
        str(one): {"reads": True, "lag_ms": 10, "lease_ms": 990, "why_not": None},
        str(other): {"reads": False, "lag_ms": None, "lease_ms": 0, "why_not": "has lost its master"},
    }
    assert (shard["replica_reads"], shard["replica_losses"]) == (0, 0)


async def test_a_pool_without_leases_has_no_deadline() -> None:
    one = subject()
    pool = replace(one.pools[0], lease=LeaseRule.NONE)
    _, body = await get(replace(one, pools=[pool]), "/api/v1/topology")
    assert body["pools"]["main"]["shards"][SHARD]["lease_ms"] is None


@pytest.mark.parametrize("token", [None, "", "wrong", PASSWORD, admin_token("other")])
async def test_outside_loopback_the_api_wants_the_token(token: str | None) -> None:
    of = subject(password=PASSWORD)
    assert (await get(of, "/api/v1/topology", bind=OUTSIDE, token=token))[0] == 401
    assert (await get(of, "/api/v1/topology", bind=OUTSIDE, token=admin_token(PASSWORD)))[0] == 200
    assert (await get(of, "/api/v1/topology", bind=LOOPBACK, token=token))[0] == 200


async def test_outside_loopback_without_a_password_the_api_is_closed() -> None:
    assert (await get(subject(), "/api/v1/topology", bind=OUTSIDE, token=admin_token("")))[0] == 401


async def test_health_and_readiness_are_open_everywhere(pinged: list[str]) -> None:
    assert (await get(subject(password=PASSWORD), "/healthz", bind=OUTSIDE))[0] == 200
    assert (await get(subject(password=PASSWORD), "/readyz", bind=OUTSIDE))[0] == 200


RELOAD = "/api/v1/reload"


class Reloads:
    """Stands for the daemon's reload: remembers what it was asked for."""

    def __init__(self, error: ShoalError | None = None) -> None:
        self.asked: list[tuple[bool, bool]] = []
        self.error = error

    async def __call__(self, *, plan: bool, allow_remap: bool) -> list[str]:
        self.asked.append((plan, allow_remap))
        if self.error is not None:
            raise self.error
        return ["it changes"]


@pytest.mark.parametrize(
    ("query", "asked"), [("", (False, False)), ("?plan=1", (True, False)), ("?plan=0&allow_remap=1", (False, True))]
)
async def test_a_reload_is_asked_for_as_the_query_says(query: str, asked: tuple[bool, bool]) -> None:
    reloads = Reloads()
    status, body = await ask(subject(reload=reloads), "POST", RELOAD + query, LOOPBACK, {"shoal-request": "1"})
    assert (status, body["changes"], body["applied"]) == (200, ["it changes"], not asked[0])
    assert reloads.asked == [asked]


@pytest.mark.parametrize("query", ["?plan=true", "?plan=", "?dry_run=1"])
async def test_a_query_that_is_not_understood_reloads_nothing(query: str) -> None:
    reloads = Reloads()
    status, _ = await ask(subject(reload=reloads), "POST", RELOAD + query, LOOPBACK, {"shoal-request": "1"})
    assert (status, reloads.asked) == (400, [])


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403),
        ({"shoal-request": "1", "host": "evil.example:22180"}, 403),
        ({"shoal-request": "1", "host": "localhost:22180"}, 200),
        ({"shoal-request": "1", "host": "[::1]:22180"}, 200),
    ],
)
async def test_no_web_page_can_reload(headers: dict[str, str], status: int) -> None:
    assert (await ask(subject(reload=Reloads()), "POST", RELOAD, LOOPBACK, headers))[0] == status


async def test_outside_loopback_a_reload_wants_the_token() -> None:
    of, headers = subject(reload=Reloads(), password=PASSWORD), {"shoal-request": "1", "host": "proxy1"}
    assert (await ask(of, "POST", RELOAD, OUTSIDE, headers))[0] == 401
    headers["authorization"] = f"Bearer {admin_token(PASSWORD)}"
    assert (await ask(of, "POST", RELOAD, OUTSIDE, headers))[0] == 200


async def test_a_reload_that_is_refused_says_why_where_and_what_to_do() -> None:
    reloads = Reloads(ConfigError("it cannot be", where="n.yml:3:1", hint="mend it"))
    status, body = await ask(subject(reload=reloads), "POST", RELOAD, LOOPBACK, {"shoal-request": "1"})
    assert status == 409
    assert body["errors"] == [{"error": "it cannot be", "where": "n.yml:3:1", "hint": "mend it"}]


def test_the_password_is_not_in_the_token() -> None:
    assert PASSWORD not in admin_token(PASSWORD)
    assert admin_token(PASSWORD) == admin_token(PASSWORD)


def test_a_port_in_use_is_an_error_that_names_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = Endpoint("127.0.0.1", taken.getsockname()[1])
        with pytest.raises(PortInUseError) as caught:
            AdminServer(subject(), bind)
    assert caught.value.where == str(bind)
