"""Keys lie where Twemproxy put them: what its users wrote, they read through Shoal."""

from __future__ import annotations

import contextlib
import random
from typing import TYPE_CHECKING

import pytest

from tests.harness import LOOPBACK, Process, Servers, free_port, have, wait_until
from tests.integration.wire import Wire, command
from tests.plane_host import PlaneHost

if TYPE_CHECKING:
    from pathlib import Path

    from tests.harness import EngineProgram

KEYS = 600


@pytest.fixture
def nutcracker() -> Path:
    return have("nutcracker") or pytest.skip("no nutcracker: `make test` installs it as root on Debian")


def start_nutcracker(servers: Servers, program: Path, shards: dict[str, int], settings: dict[str, str]) -> int:
    port, stats, directory = free_port(), free_port(), servers.directory / "nutcracker"
    directory.mkdir()
    lines = ["main:", f"  listen: {LOOPBACK}:{port}", "  redis: true"]
    lines += [f"  {key}: {value}" for key, value in settings.items()]
    lines += ["  servers:", *(f"   - {LOOPBACK}:{shards[name]}:1 {name}" for name in shards)]
    (directory / "conf").write_text("\n".join(lines) + "\n")
    process = Process("nutcracker", [str(program), "-c", "conf", "-a", LOOPBACK, "-s", str(stats)], directory)
    servers.adopt(process).launch()

    def answers() -> bool:
        with Wire((LOOPBACK, port)) as wire:
            return bool(wire.call("PING") == "PONG")

    wait_until(answers, 5, "nutcracker to answer")
    return port


def write_all(port: int, keys: list[bytes]) -> None:
    with Wire((LOOPBACK, port)) as wire:
        wire.send(b"".join(command("SET", key, key) for key in keys))
        assert [wire.reply() for _ in keys] == ["OK"] * len(keys)


@pytest.mark.parametrize(
    ("hash_name", "distribution", "tag"),
    [
        ("fnv1a_64", "ketama", "{}"),
        ("murmur", "ketama", ""),
        ("md5", "modula", ""),
        ("crc16", "ketama", "<>"),
        ("hsieh", "ketama", ""),
        ("jenkins", "modula", ""),
        ("one_at_a_time", "ketama", ""),
    ],
)
def test_what_nutcracker_wrote_is_read_through_shoal(
    valkey: EngineProgram, tmp_path: Path, nutcracker: Path, hash_name: str, distribution: str, tag: str
) -> None:
    # Three and more shards, names of one length: with modula Twemproxy sorts servers by the length of their names.
    shards = ["s1", "s2", "s3"]
    chooser = random.Random(hash_name)
    keys = list({chooser.randbytes(chooser.randint(1, 20)).replace(b"\r", b"") or b"x" for _ in range(KEYS)})
    keys += [f"user:{{{number}}}:name".encode() for number in range(50)]
    with Servers(valkey, tmp_path) as servers:
        masters = {name: servers.redis(name) for name in shards}
        settings = {"hash": hash_name, "distribution": distribution, **({"hash_tag": f'"{tag}"'} if tag else {})}
        write_all(
            start_nutcracker(servers, nutcracker, {name: one.port for name, one in masters.items()}, settings), keys
        )
        pool = {"hash": hash_name, "distribution": distribution, "hash_tag": tag or None}
        host = servers.adopt(PlaneHost("shoal", [], tmp_path / "shoal", servers=masters, settings=pool)).start()
        with contextlib.closing(Wire(host.address)) as wire:
            wire.send(b"".join(command("GET", key) for key in keys))
            missing = [key for key in keys if wire.reply() != key]
        assert missing == []
