"""`shoal init`: writes a commented shoal.yaml for this machine and says what to do next."""

import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

from shoal.cli.options import DEFAULT_FILE
from shoal.cli.printer import Printer
from shoal.errors import ConfigError

TEMPLATE = """\
# The topology of one Shoal: every part of the stack, and where it runs.
# Look at what it means with `shoal check`, start it with `shoal up`.
# Everything but `shards` may be left out: what is written here are the defaults, unless it says otherwise.

cluster: shoal

# A shard is a place on the ring: one master and its replicas. Its NAME is what decides which keys it holds, so keep
# it for ever. This short form puts all of a shard on this machine, on ports that `shoal up` chooses; on machines of
# its own (see `hosts`) a shard is written   a: {master: "node1:6379", replicas: ["node2:6379"]}
shards:
  a: {replicas: 1}
  b: {replicas: 1}

# hosts:
#   node1: 10.0.0.1
#   node2: 10.0.0.2

# Any directive of redis.conf, for every data server.
redis:
  appendonly: "yes"
  # maxmemory: 1gb

# The sentinels decide that a master is dead and which replica takes over. More than half of them must be alive.
sentinel:
  nodes: 3                 # or a list of places: ["node1:26379", ...]
  down_after: 1500ms       # silence after which a master is taken to be dead
  failover_timeout: 10s

# Clients connect to any of the proxies.
proxy:
  nodes: 2                 # or by name: {proxy1: {host: node1, port: 22121}, ...}
  hash: fnv1a_64
  distribution: ketama
  hash_tag: "{}"           # not a default: of the key user:{42}:name only 42 is hashed, so user:{42}:* stay together
  hold:
    timeout: 4s            # how long requests wait for a new master; below your clients' own timeout
    bytes: 64mb

# A password for servers, sentinels and clients; needed as soon as something listens outside this machine.
#   (umask 077; head -c 24 /dev/urandom | base64 > secret)
# auth:
#   password_file: ./secret
"""


def command(
    path: Annotated[Path, typer.Argument(help="The file to write.", show_default=True)] = DEFAULT_FILE,
    force: Annotated[bool, typer.Option("--force", help="Overwrite it if it is there.")] = False,
) -> int:
    """Write a commented shoal.yaml for this machine."""
    _write(path, force=force)
    option = "" if path == DEFAULT_FILE else f" -f {shlex.quote(str(path))}"
    printer = Printer()
    printer.talk(f"Wrote {path}: 2 shards with a replica each, 3 sentinels and 2 proxies, all on this machine.")
    printer.talk("Next:")
    printer.talk(f"  shoal check{option}    what it means")
    printer.talk(f"  shoal up{option}       start it")
    return 0


def _write(path: Path, *, force: bool) -> None:
    flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if force else os.O_EXCL)
    try:
        with os.fdopen(os.open(path, flags, 0o644), "w", encoding="utf-8") as file:
            file.write(TEMPLATE)
    except FileExistsError:
        hint = "shoal init --force overwrites it; shoal init OTHER.yaml writes another"
        raise ConfigError(f"{path} is there already", hint=hint) from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None
