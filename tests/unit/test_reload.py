"""What a reload says of the difference between two services, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import pytest
from inline_snapshot import snapshot

from shoal.errors import ConfigError
from shoal.nutcracker import parse
from shoal.reload import changes
from shoal.sentinel import LeaseRule
from shoal.serving import Followed, Ports, Service, of_nutcracker
from shoal.staleness import ReadRule
from shoal.topology import Endpoint

PORTS = Ports(admin=Endpoint("127.0.0.1", 22180), stats=Endpoint("127.0.0.1", 22222), workers=2)


def service(*servers: str, settings: tuple[str, ...] = (), name: str = "p", listen: int = 1) -> Service:
    lines = [f"{name}:", f"  listen: 127.0.0.1:{listen}", "  redis: true", *(f"  {line}" for line in settings)]
    lines += ["  servers:", *(f"   - {server}" for server in servers or ("10.0.0.1:1:1 a", "10.0.0.2:1:1 b"))]
    return of_nutcracker(parse("\n".join(lines)), "node", PORTS)


def followed(**masters: str) -> Service:
    one = service(*(f"10.0.0.1:{port}:1 {label}" for port, label in enumerate(masters, 1)))
    source = Followed((Endpoint("10.0.0.9", 26379),), LeaseRule.UNSAFE, masters)
    return replace(one, pools=(replace(one.pools[0], source=source),))


def refusals(old: Service, new: Service, *, allow_remap: bool = False) -> list[str]:
    try:
        changes(old, new).refuse_what_cannot_be(allow_remap=allow_remap)
    except ConfigError as error:
        return [one.what for one in error.each()]
    return []


def test_the_same_file_changes_nothing() -> None:
    found = changes(service(), service())
    assert (found.sentences, found.restart, found.remap) == ((), (), ())


def test_every_setting_that_changes_is_said_and_a_password_is_not() -> None:
    new = service(
        settings=(
            "timeout: 400",
            "backlog: 9",
            "client_connections: 7",
            "server_connections: 2",
            "tcpkeepalive: true",
            "auto_eject_hosts: true",
            "redis_auth: secret",
        ),
    )
    assert changes(service(), new).sentences == snapshot(
        (
            'pool "p": ejection or preconnect changes',
            'pool "p": the clients\' password is another one',
            'pool "p": the servers\' password is another one',
            'pool "p": connections to a server 1 is now 2',
            'pool "p": longest hold, ms 5000 is now 400',
            'pool "p": timeout, ms 0 is now 400',
            'pool "p": clients at most 0 is now 7',
            'pool "p": backlog 512 is now 9',
            'pool "p": keepalive of clients False is now True',
        )
    )
    assert "secret" not in repr(changes(service(), new))


def test_what_moves_keys_is_refused_unless_it_is_allowed() -> None:
    new = service("10.0.0.1:1:1 a", "10.0.0.2:1:1 b", "10.0.0.3:1:1 c")
    (refused,) = refusals(service(), new)
    assert refused == snapshot('pool "p": 32.1 % of the keys would be looked for on another shard')
    assert refusals(service(), new, allow_remap=True) == []
    assert 'pool "p": shard "c" is new, at 10.0.0.3:1' in changes(service(), new).sentences


def test_weights_that_move_no_key_are_said() -> None:
    new = service("10.0.0.1:1:2 a", "10.0.0.2:1:2 b")
    found = changes(service(), new)
    assert (found.sentences, found.remap) == snapshot(
        (('pool "p": shard "a" has weight 2 instead of 1', 'pool "p": shard "b" has weight 2 instead of 1'), ())
    )


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        pytest.param(
            service(),
            service("10.0.0.2:1:1 a", "10.0.0.1:1:1 b"),
            [
                'shard "a" would be at 10.0.0.2:1, which was shard "b"',
                'shard "b" would be at 10.0.0.1:1, which was shard "a"',
            ],
            id="servers that change places",
        ),
        pytest.param(
            followed(a="one", b="two"),
            followed(a="one", b="three"),
            ['shard "b" would be the master "three" instead of the master "two"'],
            id="another master",
        ),
    ],
)
def test_another_shard_s_data_under_a_name_is_a_move_of_keys(old: Service, new: Service, said: list[str]) -> None:
    assert [line.removeprefix('pool "p": ') for line in refusals(old, new)] == said
    assert refusals(old, new, allow_remap=True) == []


def test_a_server_that_moves_to_a_new_address_moves_no_key() -> None:
    new = service("10.0.0.9:1:1 a", "10.0.0.2:1:1 b")
    assert refusals(service(), new) == []
    assert changes(service(), new).sentences == ('pool "p": shard "a" was at 10.0.0.1:1 and is at 10.0.0.9:1 now',)


def test_what_needs_a_restart_is_named_even_if_keys_may_move() -> None:
    old, new = service(), replace(service(settings=("redis_db: 3",)), workers=4, admin=None)
    assert refusals(old, new, allow_remap=True) == snapshot(
        [
            "the number of workers (2 to 4) cannot change while the proxy runs",
            "the admin port (127.0.0.1:22180 to none) cannot change while the proxy runs",
            'the database of pool "p" (0 to 3) cannot change while the proxy runs',
        ]
    )


def test_a_pool_that_goes_is_refused_and_one_that_is_renamed_needs_a_restart() -> None:
    assert refusals(service(), service(name="q", listen=2)) == snapshot(
        ['pool "p" is gone: its clients are closed, and its keys are out of reach']
    )
    assert refusals(service(), service(name="q"), allow_remap=True) == snapshot(
        ['the pool on 127.0.0.1:1, which was "p" and is "q", cannot change while the proxy runs']
    )


def test_a_plan_says_all_of_it() -> None:
    new = replace(service("10.0.0.1:1:1 a", settings=("timeout: 400",)), workers=4)
    planned = changes(service(), new).planned(allow_remap=False)
    assert planned == snapshot(
        [
            'pool "p": longest hold, ms 5000 is now 400',
            'pool "p": timeout, ms 0 is now 400',
            'pool "p": shard "b" is gone',
            "refused: the number of workers (2 to 4) cannot change while the proxy runs",
            'refused without --allow-remap: pool "p": 47.0 % of the keys would be looked for on another shard',
        ]
    )


def test_other_reads_are_said() -> None:
    def reading(rule: ReadRule | None) -> Service:
        one = followed(a="m1")
        source = replace(cast("Followed", one.pools[0].source), reads=rule)
        return replace(one, pools=(replace(one.pools[0], source=source),))

    old, new = reading(None), reading(ReadRule(500, nearest=True))
    assert changes(old, new).sentences == snapshot(('pool "p": reads master is now nearest (max_lag 500 ms)',))
    assert changes(new, reading(ReadRule(500))).sentences == snapshot(
        ('pool "p": reads nearest (max_lag 500 ms) is now replica (max_lag 500 ms)',)
    )
