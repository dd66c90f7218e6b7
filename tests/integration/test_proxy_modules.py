"""Commands that only the servers know: a renamed one is as unknown to the proxy as a module's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.wire import Wire, WireError
from tests.plane_host import PlaneHost

if TYPE_CHECKING:
    from tests.harness import Servers

READS = {"name": "my.mget", "first_key": 1, "last_key": -1, "key_step": 1, "writes": False}


@pytest.fixture
def proxy(servers: Servers) -> PlaneHost:
    shards = {name: servers.redis(name, rename_command="MGET my.mget") for name in ("a", "b")}
    host = PlaneHost("proxy", [], servers.directory / "proxy", servers=shards, settings={"modules": [READS]})
    return servers.adopt(host).start()


def test_it_goes_where_its_keys_are(proxy: PlaneHost) -> None:
    with Wire(proxy.address) as wire:
        for number in range(20):
            key = f"{number}:key"
            assert wire.call("SET", key, str(number)) == "OK"
            assert wire.call("My.MGet", key) == [str(number).encode()]
        assert wire.call("SET", "{t}a", "1") == "OK"
        assert wire.call("my.mget", "{t}a", "{t}b") == [b"1", None]
        assert wire.call("my.mget", *(f"{number}:key" for number in range(20))).code == "CROSSSLOT"
        assert wire.call("my.mget") == "ERR wrong number of arguments for 'my.mget' command"
        assert wire.call("my.other", "{t}a").startswith("ERR unknown command")


def test_it_can_stand_in_a_transaction(proxy: PlaneHost) -> None:
    with Wire(proxy.address) as wire:
        answers = [
            wire.call(*request.split())
            for request in (
                "MULTI",
                "SET {t}a 1",
                "MY.MGET {t}a {t}b",
                "EXEC",
                "MULTI",
                "SET {t}a 1",
                "MY.MGET 1:a 2:b 3:c 4:d 5:e",
            )
        ]
        assert answers[:4] == ["OK", "QUEUED", "QUEUED", ["OK", [b"1", None]]]
        refused = answers[-1]
        assert isinstance(refused, WireError)
        assert refused.code == "CROSSSLOT"
        assert wire.call("EXEC").code == "EXECABORT"
