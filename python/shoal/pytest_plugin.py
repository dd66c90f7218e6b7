"""Pytest fixtures: a whole cluster for tests that use Redis.

    def test_it(shoal_cluster):
        client = redis.Redis(*shoal_cluster.address)

Rule: one cluster for the whole run, started when a test first asks for it and gone when the run ends; before each test
it is healed (what the last test killed is back) and empty. For another shape, override `shoal_cluster_options`:

    @pytest.fixture(scope="session")
    def shoal_cluster_options():
        return {"shards": 3, "replicas": 0, "redis": {"maxmemory": "100mb"}}

A test that wants a cluster of its own says `with shoal.Cluster(...) as cluster`. Found by pytest through the package's
entry point.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shoal.cluster import Cluster

HEAL_PATIENCE = 60.0


@pytest.fixture(scope="session")
def shoal_cluster_options() -> dict[str, Any]:
    """What `shoal_cluster` is made with: keyword arguments of `shoal.Cluster`."""
    return {"shards": 2, "replicas": 1}


@pytest.fixture(scope="session")
def shoal_session_cluster(shoal_cluster_options: dict[str, Any]) -> Iterator[Cluster]:
    """The cluster of the run, as the last test left it."""
    from shoal.cluster import Cluster

    with Cluster(**shoal_cluster_options) as cluster:
        yield cluster


@pytest.fixture
def shoal_cluster(shoal_session_cluster: Cluster) -> Cluster:
    """A running cluster, whole and empty: `redis.Redis(*shoal_cluster.address)`."""
    cluster = shoal_session_cluster.start()
    cluster.wait_until_well(HEAL_PATIENCE)
    cluster.flush()
    return cluster
