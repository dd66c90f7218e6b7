"""Channels: messages to a channel and to a group, over lists and over publish and subscribe. Arguments: PORT [PREFIX].

Prints "done", or how a server refused.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import redis
import redis.asyncio
from channels_redis.core import RedisChannelLayer
from channels_redis.pubsub import RedisPubSubChannelLayer

TIMEOUT = 10
PROCESSES = 6


async def subscribed(client: Any, count: int) -> None:
    """Wait until so many subscriptions are in force: the layer does not wait for their confirmation."""
    while sum(number for _, number in await client.pubsub_numsub(*await client.pubsub_channels())) < count:  # noqa: ASYNC110 - it is in a server
        await asyncio.sleep(0.01)


async def talk(sender: Any, receivers: list[Any], client: Any | None = None) -> None:
    """Each layer is a process: one that sends, and some with the web sockets. `client` if they subscribe."""
    channels = [await receiver.new_channel() for receiver in receivers]

    def hear() -> list[asyncio.Future[Any]]:
        return [asyncio.ensure_future(layer.receive(name)) for layer, name in zip(receivers, channels, strict=True)]

    hearing = hear()
    if client is not None:
        await asyncio.wait_for(subscribed(client, PROCESSES), TIMEOUT)
    for number, channel in enumerate(channels):
        await sender.send(channel, {"type": "message", "number": number})
    heard = await asyncio.wait_for(asyncio.gather(*hearing), TIMEOUT)
    assert [message["number"] for message in heard] == list(range(PROCESSES))
    for receiver, channel in zip(receivers, channels, strict=True):
        await receiver.group_add("everyone", channel)
    await receivers[0].group_discard("everyone", channels[0])
    hearing = hear()
    if client is not None:
        await asyncio.wait_for(subscribed(client, 2 * PROCESSES - 1), TIMEOUT)
    await sender.group_send("everyone", {"type": "news"})
    assert await asyncio.wait_for(asyncio.gather(*hearing[1:]), TIMEOUT) == [{"type": "news"}] * (PROCESSES - 1)
    assert not hearing[0].done()
    hearing[0].cancel()
    await asyncio.wait(hearing[:1])


async def main(url: str, prefix: str) -> None:
    sender, *receivers = (RedisChannelLayer(hosts=[url], prefix=prefix) for _ in range(1 + PROCESSES))
    await talk(sender, receivers)
    sender, *receivers = (RedisPubSubChannelLayer(hosts=[url], prefix=prefix) for _ in range(1 + PROCESSES))
    async with redis.asyncio.Redis.from_url(url) as client:
        await talk(sender, receivers, client)
    sys.stdout.write("done\n")


if __name__ == "__main__":
    try:
        asyncio.run(main(f"redis://127.0.0.1:{sys.argv[1]}", sys.argv[2] if len(sys.argv) > 2 else "asgi"))
    except redis.ResponseError as error:
        sys.stdout.write(f"{error}\n")
