"""A master is killed or frozen under subscribers: they keep their connections and hear what is published afterwards."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import redis

from tests.harness import wait_until
from tests.proxies import start_proxy
from tests.trials import shard_of

if TYPE_CHECKING:
    from tests.harness import Servers
    from tests.proxies import ProxyServer

SHARDS = ("a", "b")
EVENTS = "__keyevent@0__:set"


@dataclass
class Ears:
    """What one subscriber has heard: of each channel, the texts and when."""

    heard: dict[str, list[tuple[str, float]]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    ready: threading.Event = field(default_factory=threading.Event)

    def texts(self, channel: str) -> set[str]:
        return {text for text, _ in list(self.heard.get(channel, []))}


def listen(proxy: ProxyServer, ears: Ears, over: threading.Event, protocol: int, channels: list[str]) -> None:
    """Hears, on one connection from beginning to end."""
    with proxy.client(protocol=protocol, socket_timeout=30) as client, client.pubsub() as subscriber:
        subscriber.subscribe(*channels, EVENTS)
        subscriber.psubscribe("*:pattern")
        first: Any = subscriber.connection
        try:
            while not over.is_set():
                message: Any = subscriber.get_message(timeout=0.1)
                if message and message["type"] == "psubscribe":
                    ears.ready.set()
                if message and message["type"] in {"message", "pmessage"}:
                    entry = (message["data"].decode(), time.monotonic())
                    ears.heard.setdefault(message["channel"].decode(), []).append(entry)
                assert subscriber.connection is first
        except Exception as error:  # noqa: BLE001 - whatever it is, the test shows it
            ears.errors.append(repr(error))


def named(suffix: str) -> dict[str, str]:
    """A channel on each shard."""
    home = shard_of(SHARDS)
    found = {home(name.encode()): name for name in (f"{number}:{suffix}" for number in range(50))}
    assert found.keys() == set(SHARDS)
    return found


@pytest.mark.timeout(90)
@pytest.mark.parametrize("how", ["kill", "pause"])
def test_subscribers_hear_the_new_master(servers: Servers, how: str) -> None:
    stack = servers.stack(SHARDS, down_after_ms=1000)
    everyone = [*stack.masters.values(), *(one for some in stack.replicas.values() for one in some)]
    for server in everyone:
        with server.client() as direct:
            direct.config_set("notify-keyspace-events", "E$")
    proxy = start_proxy(servers, stack)
    names, patterned = named("channel"), named("pattern")
    over, both = threading.Event(), {2: Ears(), 3: Ears()}
    with ThreadPoolExecutor(2) as threads, proxy.client() as publisher:
        running = [
            threads.submit(listen, proxy, ears, over, protocol, list(names.values())) for protocol, ears in both.items()
        ]

        def everything_is_heard(when: str) -> None:
            """What is published and written now reaches both subscribers, from both shards."""
            for shard in SHARDS:
                publisher.publish(names[shard], when)
                publisher.publish(patterned[shard], when)
                publisher.set(names[shard], when)

            def heard() -> bool:
                return all(
                    when in ears.texts(names[shard])
                    and when in ears.texts(patterned[shard])
                    and names[shard] in ears.texts(EVENTS)
                    for ears in both.values()
                    for shard in SHARDS
                )

            wait_until(heard, 5, f"{when}: {both}")

        try:
            wait_until(lambda: all(ears.ready.is_set() for ears in both.values()), 10, "the subscriptions")
            everything_is_heard("before")
            getattr(stack.masters["a"], how)()
            publisher.publish(names["b"], "meanwhile")  # the other shard feels nothing
            wait_until(lambda: all("meanwhile" in it.texts(names["b"]) for it in both.values()), 1, "the other shard")
            held, doubt = time.monotonic(), "none"
            try:
                publisher.publish(names["a"], "held")
            except redis.ResponseError as error:
                doubt = str(error)
            assert time.monotonic() - held < 4
            assert doubt.startswith("INDOUBT" if how == "pause" else "none"), "the frozen one has got it"
            wait_until(lambda: publisher.publish(names["a"], "probe") == len(both), 5, "the subscribers to be back")
            for ears in both.values():
                ears.heard.pop(EVENTS)
            everything_is_heard("after")
        finally:
            over.set()
        for one in running:
            one.result()
    assert [ears.errors for ears in both.values()] == [[], []]
    counted = [[text for text, _ in ears.heard[names["b"]]].count("meanwhile") for ears in both.values()]
    assert counted == [1, 1], "each message once"
