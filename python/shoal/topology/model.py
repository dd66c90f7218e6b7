"""The models of shoal.yaml: every setting once, with its default and the description that the reference is made of.

Rule: one file always has one meaning. Short forms (a number of replicas, of sentinels, of proxies; the pool settings
under `proxy`) are written out here, before validation, so that nobody downstream meets two forms. What a setting can
know about itself is checked here, what takes two of them is in `rules`: build topologies with `config.load` or
`config.parse`, which do both.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from shoal.topology.values import (
    NAME_PATTERN,
    Address,
    CommandName,
    Directive,
    Duration,
    HashTag,
    Label,
    Listen,
    Name,
    Password,
    Place,
    Port,
    Size,
    complaint,
    is_integer,
)

LOCAL = "local"
"""The host that is always there: this machine's loopback, with ports chosen at `shoal up`."""

LOOPBACK = "127.0.0.1"
DEFAULT_CLUSTER = "shoal"
DEFAULT_REPLICAS = 1
DEFAULT_SENTINELS = 3
DEFAULT_PROXIES = 2
MOST_NODES = 1000
MOST_DATABASES = 65535

Hash = Literal[
    "one_at_a_time",
    "md5",
    "crc16",
    "crc32",
    "crc32a",
    "fnv1_64",
    "fnv1a_64",
    "fnv1_32",
    "fnv1a_32",
    "hsieh",
    "murmur",
    "jenkins",
]
Places = Annotated[tuple[Place, ...], Field(strict=False)]
CommandNames = Annotated[tuple[CommandName, ...], Field(strict=False)]
Names = Annotated[tuple[str, ...], Field(strict=False)]


def majority(count: int) -> int:
    """The fewest of `count` voters of which any two groups have one in common."""
    return count // 2 + 1


class Section(BaseModel):
    """A part of the file: immutable, every key in it known, an empty value the same as none."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _without_empty_keys(cls, value: Any) -> Any:
        return cls._given(value)

    @classmethod
    def _given(cls, value: Any) -> Any:
        """What the file gives: a map without the known keys that have no value; anything else as it is."""
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            return value
        return {key: item for key, item in value.items() if item is not None or key not in cls.model_fields}


class Ssh(Section):
    """How to log in on a host."""

    user: str | None = Field(None, description="User to log in as; by default what your ssh configuration says.")
    port: Port | None = Field(None, description="Port of sshd; by default what your ssh configuration says.")
    jump: str | None = Field(None, description="Host to go through, as `ssh -J` does.")
    sudo: bool = Field(False, description="Whether to become root with sudo after logging in.")


class Host(Section):
    """A machine. Its short form is the address alone."""

    address: Address = Field(description="IP address at which all other hosts reach it.")
    ssh: Ssh = Field(Ssh(), description="How to log in on it.")

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"address": value} if isinstance(value, str) else value


class Shard(Section):
    """A named place on the ring: one master and its replicas. The name, or the label if there is one, is what is
    hashed: changing it moves keys."""

    master: Place = Field(description="Where the master is at the very first start; afterwards Sentinel decides.")
    replicas: Places = Field((), description="Where its replicas are; or only how many, to have all of it here.")
    weight: int = Field(1, ge=1, le=1000, description="Its part of the ring, relative to the other shards.")
    label: Label | None = Field(
        None, description="What the ring hashes; by default the name, which is also Sentinel's for the master."
    )

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        value = cls._given(value)
        if not isinstance(value, Mapping):
            return value
        replicas = value.get("replicas", DEFAULT_REPLICAS)
        if is_integer(replicas):
            if "master" in value and "replicas" in value:
                raise complaint(
                    "a number of replicas beside a master that has its place",
                    'list where the replicas are ("host:port"), or leave out the master to have all of it here',
                )
            if "master" not in value and 0 <= replicas <= MOST_NODES:
                return {**value, "master": LOCAL, "replicas": [LOCAL] * replicas}
        if "master" not in value and isinstance(replicas, list | tuple):
            raise complaint(
                "a shard without a master",
                'add master: "host:port", or give only the number of replicas to have all of it here',
            )
        return value if "master" in value else {**value, "master": LOCAL}


class Sentinels(Section):
    """The sentinels, and when and how they fail over."""

    nodes: Places = Field(min_length=1, description="Where the sentinels are; or how many, to have all of them here.")
    quorum: int = Field(description="Sentinels that must agree that a master is down: a majority, by default just one.")
    down_after: Duration = Field(1500, ge=100, description="Silence after which a sentinel takes a master to be down.")
    failover_timeout: Duration = Field(
        10_000, ge=1000, description="Time for a failover; the next try is after twice it."
    )
    parallel_syncs: int = Field(1, ge=1, description="Replicas that may resynchronise at once after a failover.")

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        value = cls._given(value)
        if not isinstance(value, Mapping):
            return value
        nodes = value.get("nodes", DEFAULT_SENTINELS)
        if is_integer(nodes) and 1 <= nodes <= MOST_NODES:
            nodes = [LOCAL] * nodes
        count = len(nodes) if isinstance(nodes, list | tuple) else 0
        return {"quorum": majority(count), **value, "nodes": nodes}


class Auth(Section):
    """One password for servers, sentinels and clients."""

    password_file: str | None = Field(None, description="File that holds the password, relative to this one.")
    password: Password | None = Field(None, exclude=True, repr=False, description="What `password_file` holds.")

    @property
    def enabled(self) -> bool:
        return self.password is not None or self.password_file is not None


class Hold(Section):
    """How long and how much is held for shards that have no master."""

    timeout: Duration = Field(4000, description="Longest time for a request; keep it below your clients' own timeout.")
    bytes: Size = Field(64 << 20, description="Most bytes of requests that one proxy process holds.")


class ModuleCommand(Section):
    """Where the keys of a command stand that only a module of the servers knows; what COMMAND INFO says of it."""

    first_key: int = Field(1, ge=0, le=1000, description="Place of the first key, the name being 0; 0 is no key.")
    last_key: int | None = Field(None, ge=-1000, le=1000, description="Place of the last; below 0 from the end.")
    key_step: int = Field(1, ge=1, le=1000, description="How far from one key to the next.")
    write: bool = Field(True, description="Whether it may change data: such a request is never sent twice.")

    @property
    def last(self) -> int:
        """The place of the last key, which by default is the first."""
        return self.first_key if self.last_key is None else self.last_key

    @model_validator(mode="after")
    def _possible(self) -> "ModuleCommand":
        if (self.first_key == 0 and self.last != 0) or 0 <= self.last < self.first_key:
            raise complaint("last_key stands before first_key")
        return self


class CommandRules(Section):
    """What clients of a pool may ask for, beyond what is right and safe over its shards."""

    allow: CommandNames = Field((), description="Commands that are refused otherwise, as DEBUG and CONFIG SET.")
    deny: CommandNames = Field((), description="Commands that are refused, as FLUSHALL and KEYS.")
    modules: dict[CommandName, ModuleCommand] = Field(
        {}, description="Commands of the servers' modules, which Shoal does not know."
    )


class Pool(Section):
    """An address for clients, and one ring over shards."""

    listen: Listen | None = Field(None, description="Where every proxy listens for this pool: address and port.")
    shards: Names | None = Field(None, min_length=1, description="Its shards by name; by default all.")
    hash: Hash = Field("fnv1a_64", description="Which hash of the key.")
    distribution: Literal["ketama", "modula", "random"] = Field("ketama", description="How a hash finds its shard.")
    hash_tag: HashTag | None = Field(None, description="Two characters: only what stands between them is hashed.")
    database: int = Field(0, ge=0, le=MOST_DATABASES, description="The database of a client that selects none.")
    timeout: Duration = Field(0, description="Longest wait for a shard's reply; 0 is no limit.")
    hold: Hold = Field(Hold(), description="What becomes of requests while their shard has no master.")
    lease: Literal["require", "unsafe", "none"] = Field(
        "require", description="Whether writes need a majority of sentinels that vouch for the master."
    )
    reads: Literal["master", "replica", "nearest"] = Field(
        "master",
        description="Who answers commands that only read: the master, a replica, or whoever is nearest of all.",
    )
    max_lag: Duration = Field(
        1000, ge=100, le=3_600_000, description="What a read on a replica may miss at most: writes that are newer."
    )
    failover: Literal["strict"] = Field("strict", description="When a new master is believed in.")
    durability: Literal["async"] = Field("async", description="When a write is acknowledged.")
    client_connections: int = Field(0, ge=0, description="Most clients at a time; 0 is no limit.")
    commands: CommandRules = Field(CommandRules(), description="Which commands are refused.")


class ProxyPlace(Section):
    """One proxy."""

    host: str = Field(LOCAL, description="Host that it runs on.")
    port: Port | None = Field(None, description="Port for clients, where there is one pool.")
    admin: Port | None = Field(None, description="Port of the admin HTTP on loopback; by default 22180.")
    stats: Port | None = Field(None, description="Port of the statistics on loopback; by default 22222.")


class Proxies(Section):
    """The proxies. The settings of a pool may stand here too, if there is one: it is named after the cluster."""

    nodes: dict[Name, ProxyPlace] = Field(
        min_length=1, description="The proxies by name; or how many, to have all of them here."
    )
    workers: int | None = Field(None, ge=1, le=256, description="Threads that serve requests; by default one per core.")
    max_inflight: int = Field(
        256, ge=1, le=1 << 20, description="Unanswered requests of a client before no more are read from it."
    )

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        value = cls._given(value)
        if not isinstance(value, Mapping):
            return value
        nodes = value.get("nodes", DEFAULT_PROXIES)
        if is_integer(nodes) and 1 <= nodes <= MOST_NODES:
            nodes = {f"proxy{number}": {} for number in range(1, nodes + 1)}
        return {**value, "nodes": nodes}


class Vip(Section):
    """The virtual address in front of the proxies."""

    address: Address = Field(description="The address itself.")
    interface: str = Field(description="Network interface that carries it.")
    router_id: int = Field(51, ge=1, le=255, description="VRRP's virtual router id; unique in the network.")
    owner: str | None = Field(None, description="Host that has it at first; by default the first proxy's.")


class Topology(Section):
    """The whole file. Everything but `shards` has a default."""

    cluster: Name = Field(DEFAULT_CLUSTER, description="Name of the whole.")
    hosts: dict[Name, Host] = Field({}, description='The machines by name; "local" is always this one.')
    shards: dict[Name, Shard] = Field(min_length=1, description="The shards by name; their order does not matter.")
    redis: dict[str, Directive] = Field({}, description="Directives of redis.conf, for every data server.")
    sentinel: Sentinels = Field(description="The sentinels.")
    auth: Auth = Field(Auth(), description="The password.")
    pools: dict[Name, Pool] = Field(min_length=1, description="The pools by name.")
    proxy: Proxies = Field(description="The proxies.")
    vip: Vip | None = Field(None, description="A virtual address in front of the proxies.")
    engine: str | None = Field(None, description="Path of redis-server or valkey-server; by default it is looked for.")
    insecure: bool = Field(False, description="Whether to listen outside loopback without a password.")
    fence_direct_clients: bool = Field(
        False, description="Whether a master refuses writes while it has no replica (min-replicas-to-write)."
    )

    @model_validator(mode="before")
    @classmethod
    def _written_out(cls, value: Any) -> Any:
        value = cls._given(value)
        if not isinstance(value, Mapping):
            return value
        proxy = value.get("proxy", {})
        pools = value.get("pools")
        if pools is None:
            settings: dict[str, Any] = {}
            if isinstance(proxy, Mapping):
                settings = {key: item for key, item in proxy.items() if key in Pool.model_fields}
                proxy = {key: item for key, item in proxy.items() if key not in settings}
            pools = {_pool_name(value.get("cluster")): settings}
        return {"sentinel": {}, **value, "proxy": proxy, "pools": pools}

    def address(self, host: str) -> str:
        """The address of a host, by its name; a literal address is its own."""
        if host == LOCAL:
            return LOOPBACK
        return self.hosts[host].address if host in self.hosts else host

    def label(self, shard: str) -> str:
        """What the ring hashes for a shard."""
        return self.shards[shard].label or shard

    def ring_order(self, pool: str) -> tuple[str, ...]:
        """The shards of a pool in the one order that every ring is built in, whatever the file's: by their labels, by
        length in bytes and then by the bytes, as nutcracker does."""
        return tuple(sorted(self.pools[pool].shards or self.shards, key=lambda shard: _rank(self.label(shard))))

    def labels(self, pool: str) -> dict[str, str]:
        """The name of each shard of a pool by its label, in the order of the ring."""
        return {self.label(shard): shard for shard in self.ring_order(pool)}


LATER: Mapping[type[BaseModel], frozenset[str]] = {
    Pool: frozenset({"replay", "on_replica_loss", "stale_reads"}),
    Proxies: frozenset({"busy_poll", "coalesce", "client_buffer", "memory"}),
}
"""Settings of the design that this release does not have yet: refused by name, never taken for a typing error."""

LATER_VALUES = frozenset({("failover", "fast"), ("durability", "replicated")})
"""The same for values."""


def _rank(label: str) -> tuple[int, bytes]:
    text = label.encode()
    return len(text), text


def _pool_name(cluster: Any) -> str:
    """The name of the one pool: the cluster's, or a stand-in while that is itself in error."""
    return cluster if isinstance(cluster, str) and re.fullmatch(NAME_PATTERN, cluster) else DEFAULT_CLUSTER
