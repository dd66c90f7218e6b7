"""Who may start a redis, and as what: every row of the rule, and the safety sentence over random histories."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.rules import Decision, Hold, Member, ShardFacts, Start, Word, agreed, highest, may_start, saved_words
from shoal.topology import Endpoint

A1, A2, A3 = (Endpoint("127.0.0.1", port) for port in (7001, 7002, 7003))
ONE = Member("a-1", A1, first_master=True, has_data=True, epoch=0, was_master=True)
TWO = Member("a-2", A2, first_master=False, has_data=True, epoch=0)


PROMOTABLE = replace(TWO, running=True, promotable=True)


def shard(*members: Member, word: Word | None = None, **facts: bool) -> ShardFacts:
    return ShardFacts(members or (ONE, TWO), word, **facts)


def empty(member: Member) -> Member:
    return replace(member, has_data=False, epoch=None, was_master=False)


def at_cold_start(node: Member, facts: ShardFacts) -> Decision:
    return may_start(node, facts, 0.1, cold=True)


def under_watch(node: Member, facts: ShardFacts, down_for: float) -> Decision:
    return may_start(node, facts, down_for, cold=False)


class TestFirstStart:
    def test_the_files_master_is_master(self) -> None:
        facts = shard(empty(ONE), empty(TWO))
        assert at_cold_start(facts.members[0], facts) == Start(None)
        assert at_cold_start(facts.members[1], facts) == Start(A1)

    def test_fresh_sentinels_that_repeat_the_file_change_nothing(self) -> None:
        facts = shard(empty(ONE), empty(TWO), word=Word(A1, 0), live=True)
        assert at_cold_start(facts.members[0], facts) == Start(None)

    def test_a_shard_without_persistence_that_has_failed_over_follows_the_sentinels(self) -> None:
        facts = shard(empty(ONE), empty(TWO), word=Word(A2, 4))
        assert at_cold_start(facts.members[1], facts) == Start(None)
        assert at_cold_start(facts.members[0], facts) == Start(A2)


class TestColdStart:
    def test_the_master_is_the_saved_one_never_the_files(self) -> None:
        facts = shard(replace(ONE, epoch=3, was_master=False), replace(TWO, epoch=3), word=Word(A2, 3))
        assert at_cold_start(facts.members[1], facts) == Start(None)
        assert at_cold_start(facts.members[0], facts) == Start(A2)

    def test_a_node_that_missed_the_last_failover_starts_guarded(self) -> None:
        facts = shard(replace(ONE, epoch=2), replace(TWO, epoch=3), word=Word(A2, 3))
        assert at_cold_start(facts.members[0], facts) == Start(A2, guarded=True)

    def test_a_new_replica_of_a_shard_with_data_starts_guarded(self) -> None:
        new = Member("a-3", A3, first_master=False, has_data=False)
        facts = shard(ONE, TWO, new, word=Word(A1, 0))
        assert at_cold_start(new, facts) == Start(A1, guarded=True)

    def test_a_master_that_lost_its_data_waits_while_a_replica_has_some(self) -> None:
        facts = shard(empty(ONE), TWO, word=Word(A1, 0))
        decision = at_cold_start(facts.members[0], facts)
        assert isinstance(decision, Hold)
        assert "its data is gone while a-2 has some" in decision.why

    def test_then_the_best_replica_left_is_promotable_even_if_it_was_behind(self) -> None:
        behind = replace(TWO, epoch=2)
        facts = shard(empty(ONE), behind, word=Word(A1, 5))
        assert at_cold_start(behind, facts) == Start(A1, guarded=False)

    def test_of_two_replicas_only_the_current_one_is_promotable(self) -> None:
        three = Member("a-3", A3, first_master=False, has_data=True, epoch=1)
        facts = shard(empty(ONE), replace(TWO, epoch=2), three, word=Word(A1, 2))
        assert at_cold_start(facts.members[1], facts) == Start(A1)
        assert at_cold_start(three, facts) == Start(A1, guarded=True)

    def test_without_enough_saved_words_nobody_is_master(self) -> None:
        facts = shard(word=Word(A1, 0), certain=False)
        assert isinstance(at_cold_start(ONE, facts), Hold)
        assert isinstance(at_cold_start(TWO, facts), Hold)

    def test_a_whole_shard_that_is_down_while_its_sentinels_run_starts_as_they_say(self) -> None:
        facts = shard(replace(ONE, epoch=3), replace(TWO, epoch=3), word=Word(A2, 3), live=True)
        assert at_cold_start(facts.members[1], facts) == Start(None)
        assert at_cold_start(facts.members[0], facts) == Start(A2)

    @pytest.mark.parametrize("failing_over", [False, True])
    def test_but_a_master_that_died_while_nobody_looked_waits_if_another_server_runs(self, failing_over: bool) -> None:
        other = TWO if failing_over else PROMOTABLE
        facts = shard(ONE, other, word=Word(A1, 0), live=True, failing_over=failing_over)
        assert isinstance(at_cold_start(ONE, facts), Hold)


class TestSentinelsStateLost:
    def test_the_last_known_master_is_master(self) -> None:
        facts = shard(replace(ONE, epoch=2, was_master=False), replace(TWO, epoch=2, was_master=True))
        assert at_cold_start(facts.members[1], facts) == Start(None)
        assert at_cold_start(facts.members[0], facts) == Start(A2)

    def test_the_only_one_with_data_is_master(self) -> None:
        facts = shard(empty(ONE), replace(TWO, epoch=None))
        assert at_cold_start(facts.members[1], facts) == Start(None)

    def test_nobody_is_when_it_cannot_be_told(self) -> None:
        facts = shard(replace(ONE, epoch=None, was_master=False), replace(TWO, epoch=None))
        assert isinstance(at_cold_start(ONE, facts), Hold)


class TestUnderWatch:
    def test_a_fallen_master_waits_for_sentinel(self) -> None:
        decision = under_watch(ONE, shard(ONE, PROMOTABLE, word=Word(A1, 0), live=True), 0.3)
        assert decision == Hold("Sentinel is to promote a-2")

    def test_it_waits_for_ever_while_a_replica_could_be_promoted(self) -> None:
        assert isinstance(under_watch(ONE, shard(ONE, PROMOTABLE, word=Word(A1, 0), live=False), 3600.0), Hold)

    def test_it_comes_back_as_a_guarded_replica_of_the_new_master(self) -> None:
        facts = shard(ONE, replace(TWO, epoch=1, promotable=False), word=Word(A2, 1), live=True)
        assert under_watch(ONE, facts, 2.5) == Start(A2, guarded=True)

    def test_it_is_guarded_even_before_the_new_masters_epoch_is_recorded(self) -> None:
        facts = shard(word=Word(A2, 1), live=True)
        assert under_watch(ONE, facts, 2.5) == Start(A2, guarded=True)

    @pytest.mark.parametrize(("seconds", "starts"), [(0.0, False), (19.9, False), (20.1, True)])
    def test_without_a_promotable_replica_it_is_master_again_after_twice_the_timeout(
        self, seconds: float, starts: bool
    ) -> None:
        facts = shard(ONE, replace(TWO, promotable=False), word=Word(A1, 0), live=True)
        assert (under_watch(ONE, facts, seconds) == Start(None)) is starts

    def test_but_never_with_its_data_gone(self) -> None:
        facts = shard(empty(ONE), replace(TWO, promotable=False), word=Word(A1, 0), live=True)
        assert isinstance(under_watch(facts.members[0], facts, 3600.0), Hold)

    def test_a_shard_of_one_starts_again_at_once(self) -> None:
        assert under_watch(ONE, shard(ONE, word=Word(A1, 0), live=True), 0.0) == Start(None)

    def test_a_replica_starts_again_at_once_and_promotable(self) -> None:
        assert under_watch(TWO, shard(word=Word(A1, 0), live=True), 0.0) == Start(A1)

    def test_one_that_died_in_a_failover_waits_for_its_end(self) -> None:
        facts = shard(word=Word(A1, 0), live=True, failing_over=True)
        assert isinstance(under_watch(TWO, facts, 0.1), Hold)

    def test_the_old_master_need_not_wait_for_the_end_once_another_is_named(self) -> None:
        facts = shard(word=Word(A2, 1), live=True, failing_over=True)
        assert under_watch(ONE, facts, 2.5) == Start(A2, guarded=True)


members = st.builds(
    Member,
    name=st.just("?"),
    endpoint=st.just(A1),
    first_master=st.just(False),
    has_data=st.booleans(),
    epoch=st.none() | st.integers(0, 3),
    was_master=st.booleans(),
    promotable=st.booleans(),
    running=st.booleans(),
)


@given(
    found=st.tuples(members, members, members),
    word=st.none() | st.builds(Word, st.sampled_from([A1, A2, A3]), st.integers(0, 3)),
    live=st.booleans(),
    failing_over=st.booleans(),
    down_for=st.floats(0, 60),
    cold=st.booleans(),
)
def test_an_empty_node_never_becomes_master_of_one_with_data(
    found: tuple[Member, Member, Member], word: Word | None, live: bool, failing_over: bool, down_for: float, cold: bool
) -> None:
    nodes = tuple(
        replace(member, name=f"a-{number}", endpoint=endpoint, first_master=number == 1)
        for number, (member, endpoint) in enumerate(zip(found, (A1, A2, A3), strict=True), 1)
    )
    facts = ShardFacts(nodes, word, live=live, failing_over=failing_over)
    decisions = {node.name: may_start(node, facts, down_for, cold=cold) for node in nodes}
    started_as_master = [node for node in nodes if decisions[node.name] == Start(None)]
    assert len(started_as_master) <= 1
    for master in started_as_master:
        assert master.has_data or not any(node.has_data for node in nodes)
    unguarded = [node for node in nodes if isinstance(d := decisions[node.name], Start) and not d.guarded]
    assert all(node.has_data or not any(other.has_data for other in nodes) for node in unguarded)


class TestWords:
    def test_saved_words_are_read_as_sentinel_writes_them(self) -> None:
        text = """
        sentinel myid 2d6c8a6d5e3ae20b7052d2b615b35f520c50f090
        sentinel monitor a 127.0.0.1 7002 2
        sentinel config-epoch a 7
        sentinel leader-epoch a 7
        sentinel known-replica a 127.0.0.1 7001
        sentinel monitor "b" ::1 7003 2
        sentinel current-epoch 7
        """
        assert saved_words(text) == {"a": Word(A2, 7), "b": Word(Endpoint("::1", 7003), 0)}

    def test_a_broken_line_is_passed_over(self) -> None:
        assert saved_words("sentinel monitor a 127.0.0.1 x 2\nsentinel monitor b") == {}

    def test_the_highest_epoch_wins_and_a_tie_is_outvoted(self) -> None:
        assert highest([Word(A1, 1), Word(A1, 1), Word(A2, 2)]) == Word(A2, 2)
        assert highest([Word(A1, 2), Word(A2, 2), Word(A2, 2)]) == Word(A2, 2)
        assert highest([]) is None

    def test_a_majority_must_name_the_same_endpoint(self) -> None:
        assert agreed([Word(A1, 0), Word(A2, 1), Word(A2, 1)], 2) == Word(A2, 1)
        assert agreed([Word(A1, 0), Word(A2, 1)], 2) is None
        assert agreed([], 2) is None
