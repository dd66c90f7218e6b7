"""The pools of a configuration file and their rings, be it a shoal.yaml or a nutcracker.yml.

Owns the decision which of the two a file is. Rule: what it holds decides, never its name; a file that has what only
one of them can have is read as that one, whose parser then says what is wrong with it. Called by `shoal diff`; the
rings of a file that is loaded already, by every command that says where keys are, and by `shoal import`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from shoal import config, document, nutcracker
from shoal.errors import ConfigError
from shoal.moves import RingSpec
from shoal.plane import ShardSpec
from shoal.topology import Topology

if TYPE_CHECKING:
    from pathlib import Path

Kind = Literal["shoal.yaml", "nutcracker.yml"]

_NOUN = "configuration"


@dataclass(frozen=True)
class PoolRing:
    """A pool as far as it decides where keys are; `database` is the one its clients get."""

    name: str
    spec: RingSpec
    database: int = 0


def load(path: Path) -> dict[str, PoolRing]:
    """The pools of a file by name, in its order."""
    text = document.text_of(path, "give the path of a shoal.yaml or a nutcracker.yml", _NOUN)
    kind = kind_of(document.read(text, str(path), _NOUN, raw=True).data)
    if kind is None:
        hint = "a shoal.yaml has `shards:`, a nutcracker.yml has pools, each with `listen:` and `servers:`"
        raise ConfigError("neither a shoal.yaml nor a nutcracker.yml", where=str(path), hint=hint)
    pools = _of_topology(config.load(path)) if kind == "shoal.yaml" else _of_nutcracker(nutcracker.load(path))
    return {pool.name: pool for pool in pools}


def kind_of(data: Any) -> Kind | None:
    """What a file is that holds this; a pool of nutcracker may be named as a section of Shoal's is."""
    if not isinstance(data, dict):
        return None
    if any(_is_pool(name, value) for name, value in data.items()):
        return "nutcracker.yml"
    return "shoal.yaml" if data.keys() & Topology.model_fields.keys() else None


def _is_pool(name: str, value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    return isinstance(value.get("servers"), list) or (
        name not in Topology.model_fields and bool({"listen", "servers"} & value.keys())
    )


def ring_spec(topology: Topology, pool: str) -> RingSpec:
    """What decides where a pool's keys are: its shards in the one order all processes use, with their weights."""
    spec = topology.pools[pool]
    shards = tuple(ShardSpec(label, topology.shards[name].weight) for label, name in topology.labels(pool).items())
    return RingSpec(spec.hash, spec.distribution, spec.hash_tag, shards)


def _of_topology(topology: Topology) -> list[PoolRing]:
    return [PoolRing(name, ring_spec(topology, name)) for name in topology.pools]


def _of_nutcracker(file: nutcracker.NutcrackerFile) -> list[PoolRing]:
    return [PoolRing(pool.name, ring_spec_of(pool), pool.redis_db) for pool in file.pools]


def ring_spec_of(pool: nutcracker.Pool) -> RingSpec:
    """The same of a pool of a nutcracker.yml."""
    shards = tuple(ShardSpec(server.label, server.weight) for server in pool.servers)
    return RingSpec(pool.hash, pool.distribution, pool.hash_tag, shards)
