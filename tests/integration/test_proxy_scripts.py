"""Scripts through the proxy: called by SHA-1 whatever their servers have forgotten, and without keys."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest
import redis as redis_py

from tests.integration.wire import Wire, WireError, command
from tests.plane_host import PlaneHost

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis

    from tests.harness import Servers

COUNT_UP = "return redis.call('INCRBY', KEYS[1], ARGV[1] or 1)"
LIBRARY = "#!lua name=mylib\nredis.register_function('f', function(keys, args) return args[1] end)"
KEYS = [f"{number}:key" for number in range(20)]


@pytest.fixture(autouse=True)
def no_scripts(client: redis.Redis) -> None:
    client.script_flush()


def forget(proxy: PlaneHost) -> None:
    """Behind the proxy's back."""
    for server in proxy.servers.values():
        with contextlib.closing(server.client()) as direct:
            direct.script_flush()


def test_a_script_runs_on_every_shard_that_it_never_was_sent_to(client: redis.Redis) -> None:
    assert client.eval(COUNT_UP, 1, KEYS[0]) == 1
    sha = client.register_script(COUNT_UP).sha
    assert [client.evalsha(sha, 1, key) for key in KEYS] == [2] + [1] * (len(KEYS) - 1)


def test_scripts_that_servers_have_dropped_are_run_all_the_same(client: redis.Redis, proxy: PlaneHost) -> None:
    sha = client.script_load(COUNT_UP)
    for round_ in range(1, 4):
        assert [client.evalsha(sha, 1, key) for key in KEYS] == [round_] * len(KEYS)
        forget(proxy)


def test_scripts_outlive_their_servers(servers: Servers, proxy: PlaneHost, client: redis.Redis) -> None:
    sha = client.script_load(COUNT_UP)
    pipeline = client.pipeline(transaction=False)
    for server in proxy.servers.values():
        server.stop()
        server.start()
    for key in KEYS:
        pipeline.evalsha(sha, 1, key, 1).evalsha(sha, 1, key, 2).get(key)
    assert pipeline.execute() == [1, 3, b"3"] * len(KEYS)


def test_a_flush_through_the_proxy_is_kept_to(client: redis.Redis) -> None:
    sha = client.script_load(COUNT_UP)
    assert client.evalsha(sha, 1, "k") == 1
    client.script_flush()
    with pytest.raises(redis_py.exceptions.NoScriptError):
        client.evalsha(sha, 1, "k")


def test_what_is_pipelined_behind_a_dropped_script_is_not_overtaken(client: redis.Redis, proxy: PlaneHost) -> None:
    sha = client.script_load(COUNT_UP)
    with Wire(proxy.address) as wire:
        assert wire.call("EVALSHA", sha, "1", "k") == 1
        forget(proxy)
        wire.send(command("EVALSHA", sha, "1", "k") + command("GET", "k"))
        refusal = wire.reply()
        assert isinstance(refusal, WireError)
        assert "NOSCRIPT" in str(refusal)
        assert wire.reply() == b"1"
        assert wire.call("EVALSHA", sha, "1", "k") == 2


def test_transactions_bring_their_scripts_along(client: redis.Redis, proxy: PlaneHost) -> None:
    sha = client.script_load(COUNT_UP)
    with client.pipeline() as pipeline:
        assert pipeline.evalsha(sha, 1, "k").evalsha(sha, 1, "k").execute() == [1, 2]
        pipeline.watch("k")
        pipeline.multi()
        forget(proxy)
        assert pipeline.evalsha(sha, 1, "k").evalsha(sha, 1, "k").execute() == [3, 4]


def test_what_has_no_key_runs_on_one_shard_for_good(make_client: Callable[..., redis.Redis], proxy: PlaneHost) -> None:
    clients = [make_client() for _ in range(3)]
    clients[0].function_load(LIBRARY, replace=True)
    text = "return redis.call('DBSIZE') + ARGV[1]"
    sha = clients[0].script_load(text)
    with contextlib.closing(next(iter(proxy.servers.values())).client()) as direct:
        direct.set("only here", "1")
    for client in clients:
        assert client.eval(text, 0, 10) == 11
        assert client.evalsha(sha, 0, 10) == 11
        assert client.execute_command("EVAL_RO", "return ARGV[1]", 0, "a") == b"a"
        assert client.execute_command("EVALSHA_RO", sha, 0, 10) == 11
        assert client.fcall("f", 0, "a") == b"a"
        queued: Any = client.pipeline().eval(text, 0, 10).evalsha(sha, 0, 10)
        assert queued.execute() == [11, 11]


def test_workers_know_the_same_scripts(servers: Servers) -> None:
    shards = {"a": servers.redis("a")}
    host = servers.adopt(PlaneHost("proxy", [], servers.directory / "proxy", servers=shards, workers=3)).start()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(host.client()) for _ in range(12)]
        sha = clients[0].script_load(COUNT_UP)
        forget(host)
        assert [client.evalsha(sha, 1, "k") for client in clients] == list(range(1, 13))
        clients[0].script_flush()
        for client in clients:
            with pytest.raises(redis_py.exceptions.NoScriptError):
                client.evalsha(sha, 1, "k")


def test_what_is_no_script_gets_the_servers_words(client: redis.Redis, proxy: PlaneHost) -> None:
    with contextlib.closing(next(iter(proxy.servers.values())).client()) as direct:
        for request in ("EVAL x 0", "EVALSHA x 0", f"EVALSHA {'0' * 40} 0", "EVAL x -1", "EVAL x a", "EVAL x 2 k"):
            said = []
            for asked in (client, direct):
                with pytest.raises(redis_py.ResponseError) as refusal:
                    asked.execute_command(*request.split())
                said.append(str(refusal.value))
            assert said[0] == said[1], request
