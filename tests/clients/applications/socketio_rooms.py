"""python-socketio: two servers and a process that only emits, joined by publish and subscribe. Arguments: PORT.

Each server is a process: this program, started with `serve`. Prints "done", and does it again for each line that it
reads, with the same servers.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import socketio
from aiohttp import web

TIMEOUT = 10


def serve(url: str) -> None:
    """A server whose clients enter rooms and speak in them; prints its port once it listens."""
    server: Any = socketio.AsyncServer(client_manager=socketio.AsyncRedisManager(url), async_mode="aiohttp")

    @server.event
    async def join(client: str, room: str) -> str:
        await server.enter_room(client, room)
        return room

    @server.event
    async def speak(client: str, room: str) -> None:
        await server.emit("spoken", f"in {room}", room=room)

    async def start() -> None:
        app = web.Application()
        server.attach(app)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        sys.stdout.write(f"{runner.addresses[0][1]}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()

    asyncio.run(start())


async def visitor(port: str, room: str, heard: asyncio.Queue[Any]) -> Any:
    client = socketio.AsyncClient()
    client.on("spoken", lambda said: heard.put_nowait((room, said)))
    await client.connect(f"http://127.0.0.1:{port}", transports=["websocket"])
    assert await client.call("join", room, timeout=TIMEOUT) == room
    return client


async def talk(url: str, ports: list[str]) -> None:
    heard: asyncio.Queue[Any] = asyncio.Queue()
    here = await visitor(ports[0], "one", heard)
    there, elsewhere = [await visitor(ports[1], room, heard) for room in ("one", "two")]
    await here.emit("speak", "one")
    assert [await asyncio.wait_for(heard.get(), TIMEOUT) for _ in range(2)] == [("one", "in one")] * 2
    await here.emit("speak", "two")
    assert await asyncio.wait_for(heard.get(), TIMEOUT) == ("two", "in two")
    await asyncio.to_thread(socketio.RedisManager(url, write_only=True).emit, "spoken", "to all")
    assert {await asyncio.wait_for(heard.get(), TIMEOUT) for _ in range(3)} == {("one", "to all"), ("two", "to all")}
    assert heard.empty()
    for client in (here, there, elsewhere):
        await client.disconnect()
    sys.stdout.write("done\n")
    sys.stdout.flush()


def main(url: str) -> None:
    argv = [sys.executable, "-m", "tests.clients.applications.socketio_rooms", sys.argv[1], "serve"]
    servers = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        ports = [server.stdout.readline().strip() for server in servers if server.stdout is not None]
        asyncio.run(talk(url, ports))
        for _again in sys.stdin:
            asyncio.run(talk(url, ports))
    finally:
        for server in servers:
            server.kill()


if __name__ == "__main__":
    url = f"redis://127.0.0.1:{sys.argv[1]}"
    serve(url) if sys.argv[2:] else main(url)
