"""What sentinels say is read right, and who is master follows from it in whatever order it comes."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.errors import SentinelError
from shoal.sentinel import Kind, Linked, Master, MastersReply, Polled, Reducer, read_event, read_tilt
from shoal.topology import Endpoint
from tests.unit.sentinels import (
    NEW,
    OLD,
    S1,
    S2,
    S3,
    SENTINELS,
    SHARD,
    event,
    look,
    poll,
    reducer,
    reply,
    report,
    settled,
    view_of,
)

if TYPE_CHECKING:
    import random

# ------------------------------------------------------------------------------------------------------------ replies


def test_a_master_is_read_from_its_flat_list() -> None:
    said = MastersReply().read([reply()])[SHARD]
    assert said.ok_ping_age_ms == 828
    assert said.report == report(config_epoch=7)


def test_the_failover_state_is_read_where_there_is_one() -> None:
    flags = "s_down,o_down,master,disconnected,failover_in_progress"
    said = MastersReply().read([reply(flags=flags, failover_state="reconf_slaves")])[SHARD]
    assert said.report.failing_over
    assert said.report.promoted
    assert "disconnected" in said.report.flags


def test_an_unchanged_report_is_the_same_object_whatever_the_ages() -> None:
    masters = MastersReply()
    one = masters.read([reply()])[SHARD]
    other = masters.read([reply(last_ok_ping_reply="13", info_refresh="12")])[SHARD]
    assert other.report is one.report
    assert other.ok_ping_age_ms == 13
    assert masters.read([reply(config_epoch="8")])[SHARD].report is not one.report


@pytest.mark.parametrize(
    "broken",
    [b"+OK", None, [b"name"], [[b"name", b"a"]], [reply(port="x")], [reply(last_ok_ping_reply="")], [[1, 2]], [None]],
)
def test_anything_else_is_a_sentinel_error(broken: Any) -> None:
    with pytest.raises(SentinelError):
        MastersReply().read(broken)


ANSWERS = st.recursive(st.none() | st.integers() | st.binary(max_size=8), lambda one: st.lists(one, max_size=5))


@given(ANSWERS)
def test_whatever_a_liar_answers_is_read_or_refused(answer: Any) -> None:
    with contextlib.suppress(SentinelError):
        MastersReply().read(answer)


def test_memory_for_replies_is_bounded() -> None:
    masters = MastersReply()
    for number in range(3000):
        masters.read([reply(config_epoch=str(number))])
    assert len(masters._reports) <= 1024


def test_tilt_is_read_from_info() -> None:
    assert read_tilt(b"# Sentinel\r\nsentinel_masters:1\r\nsentinel_tilt:1\r\n")
    assert not read_tilt(b"# Sentinel\r\nsentinel_tilt:0\r\n")
    with pytest.raises(SentinelError):
        read_tilt(b"# Server\r\n")


# ------------------------------------------------------------------------------------------------------------ events


@pytest.mark.parametrize(
    ("channel", "payload", "kind", "master"),
    [
        ("+try-failover", "master a 10.0.0.1 6379", Kind.FAILOVER, "a"),
        ("+failover-state-wait-promotion", "slave x:1 x 1 @ a 10.0.0.1 6379", Kind.FAILOVER, "a"),
        ("+odown", "master a 10.0.0.1 6379 #quorum 3/2", Kind.ODOWN, "a"),
        ("+switch-master", "a 10.0.0.1 6379 10.0.0.2 6379", Kind.LOOK, "a"),
        ("+config-update-from", "sentinel abc 10.0.1.1 26379 @ a 10.0.0.1 6379", Kind.LOOK, "a"),
        ("-failover-abort-not-elected", "master a 10.0.0.1 6379", Kind.LOOK, "a"),
        ("+new-epoch", "5", Kind.EPOCH, None),
        ("+vote-for-leader", "abc 5", Kind.VOTE, None),
        ("+tilt", "#tilt mode entered", Kind.TILT, None),
        ("+sdown", "master a 10.0.0.1 6379", Kind.SDOWN, "a"),
    ],
)
def test_an_event_is_read(channel: str, payload: str, kind: Kind, master: str | None) -> None:
    read = read_event(channel.encode(), payload.encode())
    assert read is not None
    assert (read.kind, read.master) == (kind, master)


@pytest.mark.parametrize(
    ("channel", "payload"),
    [
        ("+sdown", "slave 10.0.0.2:6379 10.0.0.2 6379 @ a 10.0.0.1 6379"),
        ("+sdown", "sentinel abc 10.0.1.1 26379 @ a 10.0.0.1 6379"),
        ("+slave", "slave 10.0.0.2:6379 10.0.0.2 6379 @ a 10.0.0.1 6379"),
        ("+odown", ""),
        ("+odown", "master"),
        ("anything", "else"),
    ],
)
def test_an_event_about_something_else_is_none_of_ours(channel: str, payload: str) -> None:
    assert read_event(channel.encode(), payload.encode()) is None


@given(st.sampled_from(["+odown", "+sdown", "+try-failover", "+switch-master", "+new-epoch"]), st.binary(max_size=40))
def test_any_payload_is_read_or_ignored(channel: str, payload: bytes) -> None:
    read_event(channel.encode(), payload)


# ------------------------------------------------------------------------------------------------------------ masters


def name_new(one: Reducer, at_ms: float, *sentinels: Endpoint, epoch: int = 1) -> None:
    for sentinel in sentinels:
        one.observe(poll(sentinel, at_ms, report(endpoint=NEW, config_epoch=epoch)))


def test_nothing_is_known_at_first() -> None:
    view = look(reducer(), 0)
    assert view.endpoint is None
    assert view.hold_reason == "no majority of the sentinels names its master"


def test_a_majority_names_a_candidate_which_waits_to_be_confirmed() -> None:
    one = reducer()
    one.observe(poll(S1, 0))
    assert look(one, 1).candidate is None
    one.observe(poll(S2, 0))
    assert look(one, 1).candidate == Master(OLD, 0)
    assert look(one, 1).hold_reason == f"{OLD} has not confirmed yet that it is the master"
    assert one.confirm(SHARD, Master(OLD, 0))
    assert look(one, 2).endpoint == OLD
    assert look(one, 2).candidate is None


def test_who_only_looks_takes_a_majoritys_word() -> None:
    one = reducer(confirm=False)
    one.observe(poll(S1, 0))
    one.observe(poll(S2, 0))
    assert look(one, 1).endpoint == OLD


def test_one_sentinel_alone_moves_nothing() -> None:
    one = settled()
    name_new(one, 100, S1)
    assert look(one, 101).candidate is None


def test_the_old_master_has_no_lease_while_the_new_one_is_not_confirmed() -> None:
    one = settled()
    name_new(one, 100, S1, S2)
    view = look(one, 101)
    assert (view.endpoint, view.candidate, view.lease_until_ns) == (OLD, Master(NEW, 1), 0)
    assert view.hold_reason == "a majority names 10.0.0.2:6379 (config epoch 1), not confirmed yet"


def test_a_lower_config_epoch_is_never_followed() -> None:
    one = settled()
    name_new(one, 100, *SENTINELS, epoch=5)
    assert one.confirm(SHARD, Master(NEW, 5))
    for sentinel in SENTINELS:
        one.observe(poll(sentinel, 200, report(config_epoch=4)))
    assert look(one, 201).candidate is None
    assert look(one, 201).lease_until_ns == 0
    assert not one.confirm(SHARD, Master(OLD, 4))
    assert look(one, 202).endpoint == NEW


def test_the_leaders_address_does_not_count_while_it_fails_over() -> None:
    one = settled()
    leading = report("failover_in_progress", failover_state="reconf_slaves", config_epoch=1)
    one.observe(poll(S1, 100, leading))
    one.observe(poll(S2, 100))
    one.observe(poll(S3, 100))
    assert look(one, 101).candidate is None, "OLD at the new config epoch is not a master that anyone promoted"


def test_old_words_name_no_master() -> None:
    one = reducer()
    one.observe(poll(S1, 0))
    one.observe(poll(S2, 500))
    assert look(one, 999).candidate == Master(OLD, 0)
    assert look(one, 1001).candidate is None


def test_an_answer_that_overtook_another_is_not_undone_by_it() -> None:
    one = settled()
    name_new(one, 300, *SENTINELS)
    for sentinel in SENTINELS:
        one.observe(poll(sentinel, 200))
    assert look(one, 301).candidate == Master(NEW, 1)


def test_a_master_that_came_back_at_a_higher_epoch_is_confirmed_anew() -> None:
    one = settled()
    for sentinel in SENTINELS:
        one.observe(poll(sentinel, 100, report(config_epoch=2)))
    assert look(one, 101).candidate == Master(OLD, 2)
    assert look(one, 101).lease_until_ns == 0


def test_strangers_are_not_listened_to() -> None:
    one = settled()
    stranger = Endpoint("10.9.9.9", 26379)
    one.observe(poll(stranger, 100, report(endpoint=NEW, config_epoch=99)))
    one.observe(event(stranger, 100, "+try-failover"))
    assert look(one, 101).lease_until_ns > 0


def test_what_makes_the_lease_weak_is_reported() -> None:
    one = settled()
    assert view_of(one, 1).problems == ()
    one.observe(poll(S1, 100, report(other_sentinels=4)))
    one.observe(poll(S2, 100, report(quorum=1)))
    assert view_of(one, 101).problems == (
        '5 sentinels watch "a", and 3 of them are configured',
        'sentinel 10.0.1.1:26379 has a quorum of 2 for "a", which is no majority: 3 would be',
        'sentinel 10.0.1.1:26380 has a quorum of 1 for "a", which is no majority: 3 would be',
        'sentinel 10.0.1.1:26381 has a quorum of 2 for "a", which is no majority: 3 would be',
    )


def test_sentinels_are_shown_as_they_are_reached() -> None:
    one = settled()
    one.observe(Linked(S1, up=True))
    one.observe(Linked(S1, up=True, subscription=True))
    one.observe(Linked(S2, up=False, why_not="connection refused"))
    views = view_of(one, 5).sentinels
    assert views[S1].reachable
    assert views[S1].subscribed
    assert views[S1].last_seen_ns == 0
    assert views[S2].why_not == "connection refused"


# ------------------------------------------------------------------------------------------------------- in any order


@st.composite
def histories(draw: st.DrawFn) -> list[Any]:
    """Some failovers, each learnt by each sentinel at its own time; all of them end at the last one."""
    last = draw(st.integers(1, 4))
    words: list[Any] = []
    for sentinel in SENTINELS:
        at, epoch = 0, 0
        while epoch <= last:
            at += draw(st.integers(1, 400))
            endpoint = OLD if epoch % 2 == 0 else NEW
            words.append(poll(sentinel, at, report(endpoint=endpoint, config_epoch=epoch)))
            if draw(st.booleans()):
                words.append(event(sentinel, at, "+switch-master", "a x 1 y 2"))
            if draw(st.booleans()):
                words.append(event(sentinel, at, "+new-epoch", str(epoch)))
            epoch += draw(st.integers(1, 2)) if epoch < last - 1 else 1
        words.append(poll(sentinel, 2000, report(endpoint=OLD if last % 2 == 0 else NEW, config_epoch=last)))
    return words


@given(histories(), st.randoms(use_true_random=False))
def test_any_order_and_repetition_ends_at_the_highest_config_epoch(words: list[Any], order: random.Random) -> None:
    shuffled = words + order.choices(words, k=len(words))
    order.shuffle(shuffled)
    one = reducer()
    epochs = [-1]
    for word in shuffled:
        one.observe(word)
        candidate = look(one, 2001).candidate
        if candidate is not None and order.random() < 0.7:
            assert one.confirm(SHARD, candidate)
            epochs.append(candidate.config_epoch)
    last = look(one, 2001)
    reached = last.candidate or Master(last.endpoint, last.config_epoch)
    assert epochs == sorted(epochs)
    assert reached == max((master_in(word) for word in words if isinstance(word, Polled)), key=lambda one: one[1])


def master_in(word: Polled) -> Master:
    said = word.said[SHARD].report
    return Master(said.endpoint, said.config_epoch)
