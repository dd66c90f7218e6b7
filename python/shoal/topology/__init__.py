"""The topology: what shoal.yaml says (models), what it comes to (layout), and what is wrong with it (rules).

Pure: no clock, socket, file or process. `config` reads files into it; everything above reads it.
"""

from shoal.topology.advice import warnings
from shoal.topology.layout import (
    Layout,
    Node,
    ProxyNode,
    RedisNode,
    SentinelNode,
    lay_out,
    ports_to_choose,
)
from shoal.topology.model import (
    LOCAL,
    Auth,
    Hold,
    Host,
    Pool,
    Proxies,
    ProxyPlace,
    Sentinels,
    Shard,
    Ssh,
    Topology,
    Vip,
    majority,
)
from shoal.topology.rules import Problem, problems
from shoal.topology.values import Duration, Endpoint, Place, Size, UnixSocket

__all__ = [
    "LOCAL",
    "Auth",
    "Duration",
    "Endpoint",
    "Hold",
    "Host",
    "Layout",
    "Node",
    "Place",
    "Pool",
    "Problem",
    "Proxies",
    "ProxyNode",
    "ProxyPlace",
    "RedisNode",
    "SentinelNode",
    "Sentinels",
    "Shard",
    "Size",
    "Ssh",
    "Topology",
    "UnixSocket",
    "Vip",
    "lay_out",
    "majority",
    "ports_to_choose",
    "problems",
    "warnings",
]
