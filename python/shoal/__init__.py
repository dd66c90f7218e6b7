"""Shoal: one address for a sharded, self-healing Redis."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shoal.cluster import Cluster

__all__ = ["Cluster"]


def __getattr__(name: str) -> object:
    """Import what a program uses when it uses it: `shoal --help` and the proxies have no use for it."""
    if name == "Cluster":
        from shoal.cluster import Cluster

        return Cluster
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
