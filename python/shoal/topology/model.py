"""The models of shoal.yaml: every setting once, with its default and the description that the reference is made of.

Rule: one file always gives one meaning. Short forms (a number of replicas, of sentinels, of proxies, the pool settings
under `proxy`) are written out here, before validation, so that nobody downstream meets two forms. What one section
can know about itself is checked here; what takes two sections is in `rules`. Build topologies with `config.load` or
`config.parse`, which check both.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from shoal.topology.values import (
    NAME_PATTERN,
    Duration,
    Name,
    Place,
    Port,
    Size,
    complaint,
    is_address,
)
import re

LOCAL = "local"
"""The host that is always there: this machine, on loopback, with ports chosen at `shoal up`."""

LOOPBACK = "127.0.0.1"
DEFAULT_CLUSTER = "shoal"

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
Directive = bool | int | float | str
Places = Annotated[tuple[Place, ...], Field(strict=False)]


def majority(count: int) -> int:
    """The smallest number of `count` voters of which any two groups share a member."""
    return count // 2 + 1


class Section(BaseModel):
    """A part of the file: immutable, and every key in it known."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Ssh(Section):
    """How to reach a host."""

    user: str | None = Field(None, description="User to log in as; by default the one of your ssh configuration.")
    port: Port | None = Field(None, description="Port of sshd; by default the one of your ssh configuration.")
    jump: str | None = Field(None, description="Host to go through, as in ssh -J.")
    sudo: bool = Field(False, description="Become root with sudo after logging in.")


class Host(Section):
    """A machine. The short form is its address alone."""

    address: str = Field(description="IP address that all other hosts reach it at.")
    ssh: Ssh = Field(Ssh(), description="How `shoal deploy` reaches it.")

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"address": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _literal_address(self) -> Self:
        if not is_address(self.address):
            raise complaint(
                f'"{self.address}" is not an IP address',
                "Sentinel stops failing over while a name is slow to resolve, so hosts are given by address",
            )
        return self


class Shard(Section):
    """A named place on the ring: one master and its replicas. The name is what is hashed, so it must never change."""

    master: Place = Field(description="Where the master is at the first start; afterwards Sentinel decides.")
    replicas: Places = Field((), description="Where its replicas are, or on one machine just how many.")
    weight: int = Field(1, ge=1, description="Its part of the ring relative to the other shards.")

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        value = {} if value is None else value
        if not isinstance(value, Mapping):
            return value
        replicas = value.get("replicas")
        if "master" in value:
            if isinstance(replicas, int):
                raise complaint(
                    "a number of replicas beside a master that is placed by hand",
                    'list where the replicas are ("host:port"), or leave the master out to have both placed here',
                )
            return value
        if isinstance(replicas, list | tuple):
            raise complaint(
                "a shard without a master",
                'add master: "host:port", or give only the number of replicas to have all of it placed here',
            )
        if replicas is not None and (not isinstance(replicas, int) or isinstance(replicas, bool) or replicas < 0):
            raise complaint(f"{replicas!r} is not a number of replicas", "write 0 or more, or a list of places")
        count = 1 if replicas is None else replicas
        return {**value, "master": LOCAL, "replicas": [LOCAL] * count}


class Sentinels(Section):
    """The sentinels, and when and how they fail over."""

    nodes: Places = Field(description="Where the sentinels are, or on one machine just how many.", min_length=1)
    quorum: int = Field(description="Sentinels that must agree that a master is down; a majority, which is the default.")
    down_after: Duration = Field(1500, ge=100, description="Silence after which a sentinel holds a master to be down.")
    failover_timeout: Duration = Field(10_000, ge=1000, description="Time a failover may take; twice that until a retry.")
    parallel_syncs: int = Field(1, ge=1, description="Replicas that may resynchronise at once after a failover.")

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        value = {} if value is None else value
        if not isinstance(value, Mapping):
            return value
        nodes = value.get("nodes", 3)
        if isinstance(nodes, int) and not isinstance(nodes, bool):
            if nodes < 1:
                raise complaint(f"{nodes} sentinels can agree on nothing", "three is the usual number")
            nodes = [LOCAL] * nodes
        count = len(nodes) if isinstance(nodes, list | tuple) else 0
        return {"quorum": majority(count), **value, "nodes": nodes}

    @model_validator(mode="after")
    def _quorum_is_a_majority(self) -> Self:
        count, least = len(self.nodes), majority(len(self.nodes))
        if least <= self.quorum <= count:
            return self
        if self.quorum > count:
            why = f"there are only {count} sentinels, so they could never agree"
        else:
            why = f"{count - self.quorum} others could agree on the opposite, and two masters would take writes"
        raise complaint(
            f"quorum {self.quorum} is not a majority of {count} sentinels: {why}",
            f"write quorum: {least}, or leave it out",
        )


class Auth(Section):
    """One password for servers, sentinels and clients."""

    password_file: str | None = Field(None, description="File with the password, relative to the topology file.")
    password: SecretStr | None = Field(None, exclude=True, repr=False, description="Read from password_file.")

    @property
    def enabled(self) -> bool:
        return self.password is not None or self.password_file is not None


class Hold(Section):
    """How long and how much is held for a shard that has no master."""

    timeout: Duration = Field(4000, description="Longest time a request is held; keep it under your clients' timeout.")
    bytes: Size = Field(64 << 20, description="Most bytes of requests one proxy process holds.")


class Pool(Section):
    """A listen address and one ring over shards."""

    listen: str | None = Field(None, description='Address and port of every proxy for this pool: "0.0.0.0:22121".')
    shards: Annotated[tuple[Name, ...], Field(strict=False)] | None = Field(
        None, description="Names of its shards; by default all."
    )
    hash: Hash = Field("fnv1a_64", description="Hash of the key.")
    distribution: Literal["ketama", "modula", "random"] = Field("ketama", description="How a hash finds its shard.")
    hash_tag: str | None = Field(None, description='Two characters; only the part of a key between them is hashed ("{}").')
    timeout: Duration = Field(0, description="Longest wait for a shard's reply; 0 waits for as long as it takes.")
    hold: Hold = Field(Hold(), description="What happens to requests while their shard has no master.")
    lease: Literal["require", "unsafe", "none"] = Field(
        "require", description="Write only while a majority of sentinels vouches for the master."
    )
    failover: Literal["strict"] = Field("strict", description="When a new master is believed.")
    durability: Literal["async"] = Field("async", description="When a write is acknowledged.")
    client_connections: int = Field(0, ge=0, description="Most clients at once; 0 is no limit.")

    @model_validator(mode="after")
    def _tag_is_two_characters(self) -> Self:
        tag = self.hash_tag
        if tag is not None and not (len(tag) == 2 and tag.isascii()):
            raise complaint(f'hash_tag "{tag}" is not two characters', 'write the opening and the closing one: "{}"')
        return self


class ProxyPlace(Section):
    """One proxy."""

    host: str = Field(LOCAL, description="Host it runs on.")
    port: Port | None = Field(None, description="Port for clients, when there is one pool.")
    admin: Port | None = Field(None, description="Port of the admin HTTP, on loopback; 22180 by default.")
    stats: Port | None = Field(None, description="Port of the statistics, on loopback; 22222 by default.")


class Proxies(Section):
    """The proxies. All pool settings may stand here too: they are those of one pool named after the cluster."""

    nodes: dict[Name, ProxyPlace] = Field(description="The proxies by name, or on one machine just how many.", min_length=1)
    workers: int | None = Field(None, ge=1, le=256, description="Threads that serve requests; by default one for each core.")
    max_inflight: int = Field(256, ge=1, description="Unanswered requests of one client before it is not read further.")

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        value = {} if value is None else value
        if not isinstance(value, Mapping):
            return value
        nodes = value.get("nodes", 2)
        if isinstance(nodes, int) and not isinstance(nodes, bool):
            nodes = {f"proxy{number}": {} for number in range(1, nodes + 1)}
        elif isinstance(nodes, Mapping):
            nodes = {name: {} if node is None else node for name, node in nodes.items()}
        return {**value, "nodes": nodes}


class Vip(Section):
    """The virtual address in front of the proxies."""

    address: str = Field(description="The address itself.")
    interface: str = Field(description="Network interface that carries it.")
    router_id: int = Field(51, ge=1, le=255, description="VRRP router id; unique in the network.")
    owner: str | None = Field(None, description="Host that has it at first.")


class Topology(Section):
    """The whole file. Everything but `shards` has a default."""

    cluster: Name = Field(DEFAULT_CLUSTER, description="Name of the whole.")
    hosts: dict[Name, Host] = Field({}, description='Machines by name; "local" is always this one.')
    shards: dict[Name, Shard] = Field(description="Shards by name; their order does not matter.", min_length=1)
    redis: dict[str, Directive | list[Directive]] = Field({}, description="Directives of redis.conf for every node.")
    sentinel: Sentinels = Field(description="The sentinels.")
    auth: Auth = Field(Auth(), description="Passwords.")
    pools: dict[Name, Pool] = Field(description="Pools by name.", min_length=1)
    proxy: Proxies = Field(description="The proxies.")
    vip: Vip | None = Field(None, description="A virtual address in front of the proxies.")
    engine: str | None = Field(None, description="Path of redis-server or valkey-server; by default it is looked for.")
    insecure: bool = Field(False, description="Allow endpoints outside loopback without a password.")
    fence_direct_clients: bool = Field(False, description="A master that has lost its replicas refuses writes.")

    @model_validator(mode="before")
    @classmethod
    def _written_out(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        proxy = {} if value.get("proxy") is None else value["proxy"]
        sugar: dict[str, Any] = {}
        if isinstance(proxy, Mapping):
            sugar = {key: proxy[key] for key in proxy if key in Pool.model_fields}
            proxy = {key: proxy[key] for key in proxy if key not in sugar}
        pools = value.get("pools")
        if pools is None:
            pools = {_pool_name(value.get("cluster")): sugar}
        return {"sentinel": {}, **value, "proxy": proxy, "pools": pools}

    def address(self, host: str) -> str:
        """The address of a host by name; a literal address is its own."""
        if host == LOCAL:
            return LOOPBACK
        return self.hosts[host].address if host in self.hosts else host


def _pool_name(cluster: Any) -> str:
    """The name of the one pool: the cluster's, or a stand-in while that is itself in error."""
    return cluster if isinstance(cluster, str) and re.match(NAME_PATTERN, cluster) else DEFAULT_CLUSTER
