"""What several sentinels say becomes one group for each master, whoever of them answers and however they differ."""

from __future__ import annotations

from dataclasses import replace

import pytest
from inline_snapshot import snapshot

from shoal.census import Heard, Known, Said, Settings, groups, merge
from shoal.topology import Endpoint

S1, S2, S3 = (Endpoint(f"10.0.1.{n}", 26379) for n in (1, 2, 3))
OLD, NEW, THIRD = (Endpoint(f"10.0.0.{n}", 6379) for n in (1, 2, 3))
SETTINGS = Settings(quorum=2, down_after=5000, failover_timeout=60000, parallel_syncs=1)
WELL = Said(OLD, 1, SETTINGS, replicas=(NEW,))


def heard(**said: Said) -> dict[Endpoint, Heard]:
    """One master "a" as s1, s2, s3 see it; each knows the two others."""
    ids = {"s1": S1, "s2": S2, "s3": S3}
    return {
        ids[name]: Heard(name, {"a": replace(one, others={id_: at for id_, at in ids.items() if id_ != name})})
        for name, one in said.items()
    }


def test_what_all_say_alike() -> None:
    group = merge(heard(s1=WELL, s2=WELL, s3=WELL))["a"]
    assert (group.master, group.replicas, group.settings) == (OLD, (NEW,), SETTINGS)
    assert group.sentinels == group.said_by == (S1, S2, S3)
    assert group.disagreements == ()


def test_a_sentinel_that_was_not_heard_is_known_from_the_others() -> None:
    group = merge(heard(s1=WELL, s3=WELL))["a"]
    assert group.sentinels == (S1, S3, S2)
    assert group.said_by == (S1, S3)


def test_a_sentinel_stands_under_the_address_that_the_others_have_for_it() -> None:
    said = heard(s1=WELL, s2=WELL, s3=WELL)
    named = {Endpoint("sentinel-one", 26379) if at == S1 else at: one for at, one in said.items()}
    assert merge(named)["a"].sentinels == (S1, S2, S3)
    assert merge(dict(list(named.items())[:1]))["a"].sentinels == (Endpoint("sentinel-one", 26379), S2, S3)


def test_the_highest_config_epoch_names_the_master_not_the_most_voices() -> None:
    after = replace(WELL, master=NEW, config_epoch=2, replicas=(OLD,))
    group = merge(heard(s1=WELL, s2=WELL, s3=after))["a"]
    assert (group.master, group.replicas) == (NEW, (OLD,))


def test_a_replica_that_any_sentinel_knows_is_in_the_group() -> None:
    group = merge(heard(s1=WELL, s2=replace(WELL, replicas=(NEW, THIRD))))["a"]
    assert group.replicas == (NEW, THIRD)


def test_a_replica_is_down_when_nobody_reaches_it() -> None:
    down = replace(WELL, down=frozenset({NEW}))
    assert merge(heard(s1=down, s2=WELL))["a"].down == frozenset()
    assert merge(heard(s1=down, s2=down))["a"].down == {NEW}


def test_settings_are_as_most_sentinels_have_them_and_a_difference_is_told() -> None:
    other = replace(WELL, settings=SETTINGS._replace(quorum=3))
    group = merge(heard(s1=other, s2=WELL, s3=WELL))["a"]
    assert group.settings == SETTINGS
    assert group.disagreements == snapshot(("quorum is 3 at 10.0.1.1:26379, 2 at 10.0.1.2:26379 and 10.0.1.3:26379",))


def test_a_master_that_one_sentinel_watches_alone_is_known_too() -> None:
    said = heard(s1=WELL, s2=WELL)
    said[S2] = Heard("s2", {"b": replace(WELL, master=THIRD)})
    assert {name: group.said_by for name, group in merge(said).items()} == {"a": (S1,), "b": (S2,)}


@pytest.mark.parametrize(
    ("silent", "why_not"),
    [
        ({}, None),
        ({S1: "no answer in time"}, None),
        (
            {S1: "no answer in time", S2: "Connection refused"},
            snapshot(
                "1 of 3 sentinels answered, a majority is 2: "
                "10.0.1.1:26379 (no answer in time), 10.0.1.2:26379 (Connection refused)"
            ),
        ),
    ],
)
def test_less_than_a_majority_must_not_be_relied_on(silent: dict[Endpoint, str], why_not: str | None) -> None:
    assert Known((S1, S2, S3), {}, silent).why_not_enough() == why_not


async def test_a_host_that_no_name_server_can_be_asked_for_is_no_traceback() -> None:
    known = await groups([Endpoint("a..b", 26379)], None)
    assert list(known.silent.values()) == ["its host is not a name"]
