"""The programs that are clients: what they promise, which there are, and how one is run.

A program is started as `PROGRAM CLIENT HOST PORT [STEP...]`, with the password in REDIS_PASSWORD if there is one. It
makes a client of that library with the library's default options, carries out all steps (or those named) in the order
of `STEPS`, and prints one JSON object a line:

    {"client": "jedis", "version": "8.0.2"}                    first
    {"step": "connect", "ok": true, "detail": ""}              for each step; the detail of a failure is the error
    {"ask": "restart"}         or "hold"; then it waits for a line: do that to the server, and send one

Other lines are what the library has to say. It ends with status 0 also when steps failed. Keys begin with the step's
name; `{tag}` is the hash tag.

Owns: the list of clients and steps, and the process of a program: it ends in time or is killed by its pid.
Used by: test_clients.py. What a program needs is brought by builds.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.clients import builds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

LONGEST_RUN = 90.0

STEPS = {
    "connect": "whatever the library sends when it connects, then PING",
    "strings": "SET, GET, INCR, INCRBY, EXPIRE, TTL, APPEND",
    "pipeline": "100 times SET, INCR, GET on keys of both shards, in one pipeline",
    "many keys": "MSET, MGET, EXISTS, DEL of 20 keys of both shards",
    "collections": "a hash, a list, two sets, a sorted set and a stream on a hash tag",
    "script": "the library's own script helper: EVALSHA of an unknown script, then of a known one",
    "transaction": "the library's own MULTI/EXEC on a hash tag",
    "watch": "WATCH, a write by another connection, EXEC refused",
    "scan": "the library's own iterator over SCAN sees each of 200 keys",
    "wrong type": "WRONGTYPE comes as the library's exception for a server's error",
    "cross slot": "CROSSSLOT comes as the library's exception for a server's error",
    "blocking pop": "BLPOP woken by another connection, and one that times out after 1 s",
    "pub/sub": "SUBSCRIBE and PSUBSCRIBE, a message from another connection for each, none after leaving",
    "reconnect": "the same client object reads again after a restart",
    "held write": "a SET that is answered late, because no write may go out just now",
}


@dataclass(frozen=True)
class Client:
    """A library of some language at some version. `soak`: it is run by `make soak`, and not by `make test`."""

    name: str
    build: builds.Build
    file: str
    soak: bool = False


CLIENTS = (
    Client("redis-py", builds.PYTHON, "redis_py"),
    Client("redis-py-without-hiredis", builds.PYTHON, "redis_py", soak=True),
    Client("valkey-py", builds.PYTHON, "redis_py", soak=True),
    Client("coredis", builds.PYTHON_MORE, "coredis_py", soak=True),
    Client("valkey-glide", builds.PYTHON_MORE, "glide_py", soak=True),
    Client("node-redis-5", builds.NODE, "node_redis.js"),
    Client("node-redis-6", builds.NODE_20, "node_redis.js", soak=True),
    Client("ioredis-5", builds.NODE, "ioredis.js", soak=True),
    Client("ioredis", builds.NODE_20, "ioredis.js", soak=True),
    Client("go-redis", builds.GO, "clients"),
    Client("go-redis-older", builds.GO_OLDER, "clients", soak=True),
    Client("jedis", builds.JAVA, "JedisProgram"),
    Client("lettuce", builds.JAVA, "LettuceProgram", soak=True),
)


@dataclass
class Report:
    """What a program printed."""

    client: str
    version: str = ""
    failures: dict[str, str | None] = field(default_factory=dict)  # step -> None if it went well, else the error
    details: dict[str, str] = field(default_factory=dict)
    talk: str = ""  # lines of the library
    ended: str = ""

    def wrong(self, steps: Sequence[str]) -> list[str]:
        """A line for each of these steps that failed or was not carried out, empty if there is none."""
        found = ((step, self.failures.get(step, f"not carried out; {self.ended}")) for step in steps)
        return [f"{self.client} {self.version}, {step}: {error}" for step, error in found if error is not None]

    def take(self, text: str) -> str | None:
        """Note one line; returns what it asks for."""
        if not text.startswith("{"):
            self.talk += text
            return None
        line = json.loads(text)
        if "step" in line:
            self.details[line["step"]] = line["detail"]
            self.failures[line["step"]] = None if line["ok"] else line["detail"] or "failed"
        elif "client" in line:
            self.version = line["version"]
        asked_for: str | None = line.get("ask")
        return asked_for


@dataclass(frozen=True)
class Server:
    """What a program connects to."""

    address: tuple[str, int]
    what_it_does: Mapping[str, Callable[[], None]] = field(default_factory=dict)  # when it is asked to
    password: str | None = None


def run(client: Client, server: Server, steps: Sequence[str]) -> Report:
    """Start the program of `client`, do to the server what it asks for, and return what it found out."""
    ready = builds.ready(client.build)
    host, port = server.address
    argv = [*ready.command(client.file), client.name, host, str(port), *steps]
    environment = {**os.environ, **ready.environment}
    if server.password is not None:
        environment["REDIS_PASSWORD"] = server.password
    report = Report(client.name)
    with tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=environment, text=True
        )
        deadline = threading.Timer(LONGEST_RUN, child.kill)
        deadline.start()
        try:
            _listen(child, server, report)
            status = child.wait()
        finally:
            deadline.cancel()
            child.kill()
            child.communicate()
        errors.seek(0)
        report.ended = f"the program ended with status {status}:\n{errors.read()[-3000:]}"
    return report


def _listen(child: subprocess.Popen[str], server: Server, report: Report) -> None:
    assert child.stdin is not None
    assert child.stdout is not None
    for text in child.stdout:
        if asked_for := report.take(text):
            server.what_it_does[asked_for]()
            child.stdin.write("done\n")
            child.stdin.flush()
