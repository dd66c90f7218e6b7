"""Publish and subscribe over three real shards: whole, counted once, in order, and nothing left behind."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.harness import wait_until
from tests.integration.wire import Wire, WireError, command, connected

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis

    from tests.plane_host import PlaneHost

CHANNELS = [f"{number}:channel" for number in range(60)]
MIB = 1024 * 1024


def connections(proxy: PlaneHost) -> int:
    return sum(proxy.shard_stats(shard)["connections"] for shard in proxy.servers)


def heard(subscriber: Any, count: int) -> list[dict[str, Any]]:
    """The next messages, confirmations left out."""
    found: list[dict[str, Any]] = []

    def enough() -> bool:
        message = subscriber.get_message(ignore_subscribe_messages=True, timeout=0.05)
        if message:
            found.append(message)
        return len(found) >= count

    wait_until(enough, 10, f"{count} messages")
    return found


@pytest.mark.parametrize("protocol", [2, 3])
def test_channels_of_all_shards_and_a_pattern_over_them(make_client: Callable[..., redis.Redis], protocol: int) -> None:
    publisher = make_client()
    with make_client(protocol=protocol).pubsub() as named, make_client(protocol=protocol).pubsub() as all_of_them:
        named.subscribe(*CHANNELS)
        all_of_them.psubscribe("*:channel")
        for subscriber, count in ((named, len(CHANNELS)), (all_of_them, 1)):
            for place in range(1, count + 1):
                confirmation: Any = subscriber.get_message(timeout=5)
                assert confirmation["data"] == place
        for number, channel in enumerate(CHANNELS):
            assert publisher.publish(channel, str(number)) == 2
        expected = {(channel.encode(), str(number).encode()) for number, channel in enumerate(CHANNELS)}
        for subscriber in (named, all_of_them):
            told = heard(subscriber, len(CHANNELS))
            assert {(message["channel"], message["data"]) for message in told} == expected
            assert subscriber.get_message(timeout=0.1) is None, "each once"
        listed: Any = publisher.pubsub_channels("*:channel")
        assert {name.decode() for name in listed} == set(CHANNELS)
        counts: Any = publisher.pubsub_numsub(*CHANNELS, "none")
        assert [count for _, count in counts] == [1] * len(CHANNELS) + [0]
        assert publisher.pubsub_numpat() == 1


def test_keyspace_notifications_come_from_every_shard(
    proxy: PlaneHost, make_client: Callable[..., redis.Redis]
) -> None:
    with contextlib.ExitStack() as stack:
        for server in proxy.servers.values():
            direct = stack.enter_context(server.client())
            direct.config_set("notify-keyspace-events", "K$")
            stack.callback(direct.config_set, "notify-keyspace-events", "")
        events = stack.enter_context(make_client().pubsub())
        exact = stack.enter_context(make_client(protocol=3).pubsub())
        events.psubscribe("__keyspace@0__:*")
        exact.subscribe("__keyspace@0__:7:key", "__keyspace@0__:8:key")
        for subscriber, count in ((events, 1), (exact, 2)):
            for _ in range(count):
                assert subscriber.get_message(timeout=5)
        client = make_client()
        for number in range(50):
            client.set(f"{number}:key", "v")
        assert {message["channel"].decode() for message in heard(events, 50)} == {
            f"__keyspace@0__:{number}:key" for number in range(50)
        }
        assert {message["channel"].decode() for message in heard(exact, 2)} == {
            "__keyspace@0__:7:key",
            "__keyspace@0__:8:key",
        }
        assert exact.get_message(timeout=0.1) is None
        assert [count for _, count in client.pubsub_numsub("__keyspace@0__:7:key")] == [1]


def test_the_order_of_a_channel_holds_and_pushes_cut_no_reply(
    proxy: PlaneHost, make_client: Callable[..., redis.Redis]
) -> None:
    """One RESP3 connection reads long values while thousands of messages come to it."""
    publisher = make_client()
    values = {f"{number}:long": bytes([97 + number]) * MIB for number in range(5)}
    publisher.mset(values)
    over = threading.Event()

    def flood() -> None:
        number = 0
        while not over.is_set():
            with publisher.pipeline(transaction=False) as pipeline:
                for _ in range(50):
                    pipeline.publish("0:channel", str(number))
                    number += 1
                pipeline.execute()

    with Wire(proxy.address) as wire:
        wire.send(command("HELLO", "3"))
        while b"modules" not in wire.stream.readline():
            pass
        assert wire.stream.readline() == b"*0\r\n"
        wire.send(command("SUBSCRIBE", "0:channel"))
        for expected in (b">3", b"$9", b"subscribe", b"$9", b"0:channel", b":1"):
            assert wire.stream.readline() == expected + b"\r\n"
        flooding = threading.Thread(target=flood)
        flooding.start()
        next_number, replies = 0, 0
        try:
            for key in [*values] * 4:
                wire.send(command("GET", key))
                while True:
                    head = wire.stream.readline()
                    if head == b">3\r\n":
                        for expected in (b"$7", b"message", b"$9", b"0:channel"):
                            assert wire.stream.readline() == expected + b"\r\n"
                        wire.stream.readline()
                        assert int(wire.stream.readline()) == next_number
                        next_number += 1
                    else:
                        assert head == b"$%d\r\n" % MIB
                        assert wire.stream.read(MIB + 2) == values[key] + b"\r\n"
                        replies += 1
                        break
        finally:
            over.set()
            flooding.join()
    assert replies == 20
    assert next_number > 100


def test_a_thousand_subscribers_are_counted_and_leave_nothing_behind(
    proxy: PlaneHost, make_client: Callable[..., redis.Redis]
) -> None:
    publisher = make_client()
    assert publisher.publish("0:channel", "nobody") == 0
    publisher.dbsize()
    before = 2 * len(proxy.servers)  # in each protocol
    wait_until(lambda: connections(proxy) == before, 5, "the shared connections alone")
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire(proxy.address)) for _ in range(1000)]
        for wire in wires:
            wire.send(command("SUBSCRIBE", "0:channel"))
        assert all(wire.reply() == [b"subscribe", b"0:channel", 1] for wire in wires)
        assert publisher.publish("0:channel", "all") == 1000
        assert all(wire.reply() == [b"message", b"0:channel", b"all"] for wire in wires)
        wait_until(lambda: connections(proxy) == before + 1000, 5, "a connection of each one's own")
        for wire in wires[:500]:
            assert wire.call("UNSUBSCRIBE") == [b"unsubscribe", b"0:channel", 0]
            assert wire.call("PING") == "PONG"
        wait_until(lambda: connections(proxy) == before + 500, 5, "half of them to be closed")
        wait_until(lambda: publisher.publish("0:channel", "half") == 500, 5, "the server to see it")
    wait_until(lambda: connections(proxy) == before, 5, "the rest to be closed")
    wait_until(lambda: publisher.publish("0:channel", "nobody") == 0, 5, "the server to see it")


def test_a_server_that_cuts_subscribers_off_has_them_back(
    proxy: PlaneHost, make_client: Callable[..., redis.Redis]
) -> None:
    publisher = make_client()
    with contextlib.ExitStack() as stack:
        directs = [stack.enter_context(server.client()) for server in proxy.servers.values()]
        listeners = [stack.enter_context(make_client(protocol=protocol).pubsub()) for protocol in (2, 3)]
        for listener in listeners:
            listener.subscribe(*CHANNELS)
            listener.psubscribe("*:channel")
            for _ in range(len(CHANNELS) + 1):
                assert listener.get_message(timeout=5)
        for number in range(3):
            for direct in directs:
                assert direct.client_kill_filter(_type="pubsub", skipme=True) >= len(listeners)
            wait_until(lambda: all(publisher.publish(name, "probe") == 4 for name in CHANNELS), 5, "all to be back")
            for channel in CHANNELS:
                assert publisher.publish(channel, f"{number}") == 4
            for listener in listeners:
                told: list[bytes] = []
                while len(told) < 2 * len(CHANNELS):
                    told += [message["data"] for message in heard(listener, 1) if message["data"] != b"probe"]
                assert told == [b"%d" % number] * len(told)
                assert listener.get_message(timeout=0.05) is None


def test_a_subscriber_that_does_not_read_is_closed_at_the_limit(proxy: PlaneHost, client: redis.Redis) -> None:
    with Wire(proxy.address) as slow, Wire(proxy.address) as quick:
        for wire in (slow, quick):
            assert wire.call("SUBSCRIBE", "0:channel")[2] == 1
        text = b"x" * MIB
        for number in range(60):
            client.publish("0:channel", text)
            assert quick.reply() == [b"message", b"0:channel", text], number
        wait_until(lambda: client.publish("0:channel", "now") == 1, 10, "the slow one to be closed")
        assert quick.reply() == [b"message", b"0:channel", b"now"]


def test_names_are_bounded(proxy: PlaneHost) -> None:
    with Wire(proxy.address, timeout=50) as wire:
        names = [f"{number}:c" for number in range(131072)]
        wire.send(command("SUBSCRIBE", *names))
        for expected in range(1, len(names) + 1):
            assert wire.reply()[2] == expected
        answer = wire.call("SUBSCRIBE", "one more")
        assert isinstance(answer, WireError)
        assert "too many subscriptions" in answer
        assert wire.call("SUBSCRIBE", names[7]) == [b"subscribe", names[7].encode(), len(names)]
        wire.send(command("UNSUBSCRIBE"))
        assert [wire.reply()[2] for _ in names] == list(range(len(names) - 1, -1, -1))
        assert wire.call("PING") == "PONG"


def test_who_wants_no_reply_gets_messages_all_the_same(proxy: PlaneHost) -> None:
    with connected(proxy.address) as peer, proxy.client() as other:
        stream = peer.makefile("rb")
        for request in (("HELLO", "3"), ("SUBSCRIBE", "news"), ("ECHO", "end")):
            peer.sendall(command(*request))
        while stream.readline() != b"end\r\n":
            pass
        message = b">3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$1\r\nx\r\n"
        peer.sendall(command("CLIENT", "REPLY", "SKIP"))
        assert other.publish("news", "x") == 1
        assert stream.read(len(message)) == message
        peer.sendall(command("ECHO", "skipped") + command("ECHO", "told"))
        assert stream.read(10) == b"$4\r\ntold\r\n"
        peer.sendall(command("CLIENT", "REPLY", "OFF") + command("ECHO", "unwanted"))
        assert other.publish("news", "x") == 1
        assert stream.read(len(message)) == message
        peer.sendall(command("CLIENT", "REPLY", "ON"))
        assert stream.readline() == b"+OK\r\n"
