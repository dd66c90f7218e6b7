"""The ring of a pool, as its proxies build it; for the commands that explain where keys are."""

from shoal.plane import Ring
from shoal.pools import ring_spec
from shoal.topology import Topology


def ring_of(topology: Topology, pool: str) -> Ring:
    """The ring of a pool."""
    return ring_spec(topology, pool).ring()
