"""What a vote is worth, what takes it away, and what takes a lease away."""

from __future__ import annotations

import pytest

from shoal.sentinel import Identified, LeaseRule, Linked, Master, Said, Tilted
from shoal.sentinel.lease import Timing, objection, vote_until, votes_needed
from tests.unit.sentinels import MS, NEW, OLD, S1, S2, S3, SENTINELS, SHARD, event, look, poll, report, settled


@pytest.mark.parametrize(("age_ms", "lasts_ms"), [(0, 1150), (828, 322), (1000, 150), (1099, 150)])
def test_a_vote_lasts_until_s_down_is_possible_and_150_ms(age_ms: int, lasts_ms: int) -> None:
    assert vote_until(5 * MS, Said(report(), age_ms), Timing()) == (5 + lasts_ms) * MS


def test_the_sentinels_own_down_after_counts() -> None:
    assert vote_until(0, Said(report(down_after_ms=4000), 500), Timing()) == 3650 * MS


@pytest.mark.parametrize(
    ("said", "why_not"),
    [
        (report("s_down"), "holds the master to be down"),
        (report(endpoint=NEW), f"names {NEW}"),
        (report(role_reported="slave"), "was told by the server that it is a slave"),
        (report("master_reboot"), "waits for the restarted master"),
    ],
)
def test_what_is_no_vote_says_why(said: object, why_not: str) -> None:
    assert objection(Said(said, 0), OLD) == why_not  # type: ignore[arg-type] # parametrised


def test_a_clock_that_was_set_back_is_no_vote() -> None:
    assert objection(Said(report(), -200), OLD) == "had its clock set back"


def test_a_disconnected_sentinel_still_votes_for_as_long_as_it_cannot_be_s_down() -> None:
    assert objection(Said(report("disconnected"), 300), OLD) is None


@pytest.mark.parametrize(
    ("sentinels", "quorum", "needed"), [(3, 2, 2), (5, 3, 3), (5, 4, 3), (5, 2, 4), (3, 1, 3), (4, 2, 3), (1, 1, 1)]
)
def test_votes_meet_every_majority_and_every_quorum(sentinels: int, quorum: int, needed: int) -> None:
    assert votes_needed(sentinels, quorum) == needed


class TestLease:
    """Three sentinels vouched for OLD at 0 ms."""

    def test_the_second_of_three_votes_ends_it(self) -> None:
        one = settled()
        one.observe(poll(S1, 100, age_ms=900))  # until 350
        one.observe(poll(S2, 100, age_ms=500))  # until 750
        one.observe(poll(S3, 100, age_ms=200))  # until 1050
        assert look(one, 110).lease_until_ns == 750 * MS

    def test_silence_lets_it_run_out_and_says_so(self) -> None:
        one = settled()
        assert look(one, 1149).lease_until_ns == 1150 * MS
        late = look(one, 1150)
        assert late.lease_until_ns == 0
        assert late.hold_reason.startswith("0 of 2 sentinels needed vouch for it: ")
        assert "10.0.1.1:26379 last spoke 1150 ms ago, 0 ms after a good ping" in late.hold_reason

    @pytest.mark.parametrize("flag", ["failover_in_progress", "o_down"])
    def test_a_flag_at_any_one_sentinel_breaks_it(self, flag: str) -> None:
        one = settled()
        one.observe(poll(S3, 50, report(flag, failover_state="wait_start" if "failover" in flag else "")))
        assert look(one, 51).lease_until_ns == 0
        one.observe(poll(S3, 90))
        assert look(one, 91).lease_until_ns > 0

    def test_a_sentinel_that_went_silent_in_a_failover_holds_for_2_s(self) -> None:
        one = settled()
        one.observe(poll(S3, 50, report("failover_in_progress", failover_state="wait_promotion")))
        for at in range(100, 2200, 100):
            one.observe(poll(S1, at))
            one.observe(poll(S2, at))
        assert look(one, 2040).lease_until_ns == 0
        assert look(one, 2060).lease_until_ns > 0

    def test_s_down_takes_one_vote_only(self) -> None:
        one = settled()
        one.observe(poll(S3, 50, report("s_down")))
        assert look(one, 51).lease_until_ns > 0
        one.observe(event(S2, 60, "+sdown"))
        broken = look(one, 61)
        assert broken.lease_until_ns == 0
        assert "10.0.1.1:26380 published that the master is down" in broken.hold_reason
        one.observe(poll(S2, 55))  # asked before the event: it does not count
        assert look(one, 62).lease_until_ns == 0
        one.observe(poll(S2, 70))
        assert look(one, 71).lease_until_ns > 0

    def test_tilt_takes_one_vote_only(self) -> None:
        one = settled()
        one.observe(Tilted(S1, 10 * MS, tilt=True))
        assert look(one, 11).lease_until_ns > 0
        one.observe(event(S2, 20, "+tilt", "#tilt mode entered"))
        assert look(one, 21).lease_until_ns == 0
        one.observe(Tilted(S2, 15 * MS, tilt=False))  # from before the event
        assert look(one, 22).lease_until_ns == 0
        one.observe(event(S2, 30, "-tilt", "#tilt mode exited"))
        assert look(one, 31).lease_until_ns > 0

    def test_a_lost_connection_takes_nothing_away_by_itself(self) -> None:
        one = settled()
        for sentinel in SENTINELS:
            one.observe(Linked(sentinel, up=False, why_not="connection refused"))
        assert look(one, 100).lease_until_ns == 1150 * MS

    def test_more_sentinels_than_configured_need_more_votes(self) -> None:
        one = settled()
        for sentinel in SENTINELS:
            one.observe(poll(sentinel, 10, report(other_sentinels=4, quorum=3)))  # 5 in all: 3 votes
        assert look(one, 11).lease_until_ns > 0
        one.observe(poll(S2, 11, report("s_down", other_sentinels=4, quorum=3)))
        assert look(one, 12).lease_until_ns == 0
        assert "2 of 3 sentinels needed" in look(one, 12).hold_reason

    def test_unsafe_counts_only_the_configured(self) -> None:
        one = settled(rule=LeaseRule.UNSAFE)
        one.observe(poll(S1, 10, report(other_sentinels=4)))
        one.observe(poll(S2, 10, report("s_down")))
        assert look(one, 12).lease_until_ns > 0

    def test_a_small_quorum_needs_every_vote(self) -> None:
        one = settled()
        one.observe(poll(S1, 10, report(quorum=1)))
        one.observe(poll(S2, 10, report("s_down")))
        assert look(one, 12).lease_until_ns == 0

    def test_none_needs_no_sentinel_once_there_is_an_endpoint(self) -> None:
        one = settled(rule=LeaseRule.NONE)
        assert look(one, 99_999).lease(LeaseRule.NONE) == 2**63 - 1


class TestEvents:
    """OLD is committed, all sentinels are polled every 100 ms but where a test says otherwise."""

    @pytest.mark.parametrize("channel", ["+try-failover", "+failover-state-select-slave", "+elected-leader", "+odown"])
    def test_an_event_holds_until_its_sentinel_and_a_majority_are_heard_again(self, channel: str) -> None:
        one = settled()
        one.observe(event(S1, 50, channel))
        assert look(one, 51).lease_until_ns == 0
        assert look(one, 51).hold_reason == f"sentinel {S1} published {channel}"
        one.observe(poll(S2, 60))
        one.observe(poll(S3, 60))
        assert look(one, 61).lease_until_ns == 0, "a majority, but not the sentinel itself"
        one.observe(poll(S1, 49))
        assert look(one, 62).lease_until_ns == 0, "asked before the event"
        one.observe(poll(S1, 63))
        assert look(one, 64).lease_until_ns > 0

    @pytest.mark.parametrize(("channel", "longest_ms"), [("+odown", 1000), ("+try-failover", 2000)])
    def test_an_event_alone_holds_for_a_bounded_time(self, channel: str, longest_ms: int) -> None:
        one = settled()
        one.observe(event(S1, 1, channel))
        for at in range(100, longest_ms + 100, 100):
            one.observe(poll(S2, at))
            one.observe(poll(S3, at))
        assert look(one, longest_ms).lease_until_ns == 0
        assert look(one, longest_ms + 1).lease_until_ns > 0

    def test_a_repeated_event_is_one_event(self) -> None:
        one = settled()
        for _ in range(3):
            one.observe(event(S1, 50, "+odown"))
        for sentinel in SENTINELS:
            one.observe(poll(sentinel, 60))
        assert look(one, 61).lease_until_ns > 0
        one.observe(event(S1, 50, "+odown"))  # late, from before the poll
        assert look(one, 62).lease_until_ns > 0

    def test_a_new_epoch_without_history_holds_until_a_majority_is_heard(self) -> None:
        one = settled()
        one.observe(event(S1, 50, "+new-epoch", "5"))
        assert look(one, 51).lease_until_ns == 0
        one.observe(poll(S2, 60))
        one.observe(poll(S3, 60))
        assert look(one, 61).lease_until_ns > 0

    @pytest.mark.parametrize(("channel", "payload"), [("+new-epoch", "5"), ("+vote-for-leader", "abc 5")])
    def test_another_shards_election_is_not_felt_after_6_quiet_seconds(self, channel: str, payload: str) -> None:
        one = settled()
        for at in range(100, 6200, 100):
            for sentinel in SENTINELS:
                one.observe(poll(sentinel, at))
        one.observe(event(S1, 6150, channel, payload))
        assert look(one, 6151).lease_until_ns > 0

    def test_a_vote_holds_until_the_leader_itself_is_heard(self) -> None:
        one = settled()
        one.observe(Identified(S3, "third"))
        one.observe(event(S1, 50, "+vote-for-leader", "third 5"))
        one.observe(poll(S1, 60))
        one.observe(poll(S2, 60))
        assert look(one, 61).lease_until_ns == 0
        one.observe(poll(S3, 62))
        assert look(one, 63).lease_until_ns > 0

    def test_a_vote_for_an_unknown_leader_holds_for_2_s(self) -> None:
        one = settled()
        one.observe(event(S1, 0, "+vote-for-leader", "stranger 5"))
        for at in range(100, 2100, 100):
            for sentinel in SENTINELS:
                one.observe(poll(sentinel, at))
        assert look(one, 1999).lease_until_ns == 0
        assert look(one, 2000).lease_until_ns > 0


class TestAfterAPromotion:
    """The leader shows its old address until other replicas have followed: that must not hold the new master."""

    LEADING = report("failover_in_progress", "s_down", "o_down", failover_state="reconf_slaves", config_epoch=1)

    def test_the_leaders_own_state_does_not_hold_the_master_it_promoted(self) -> None:
        one = settled()
        one.observe(poll(S1, 2000, self.LEADING))
        for sentinel in (S2, S3):
            one.observe(poll(sentinel, 2000, report(endpoint=NEW, config_epoch=1)))
        assert look(one, 2001).candidate == Master(NEW, 1)
        one.confirm(SHARD, Master(NEW, 1))
        assert look(one, 2002).lease_until_ns > 0

    def test_but_it_holds_the_one_it_replaced(self) -> None:
        one = settled()
        for sentinel in (S2, S3):
            one.observe(poll(sentinel, 2000))
        one.observe(poll(S1, 2000, self.LEADING))
        assert look(one, 2001).lease_until_ns == 0

    def test_a_minority_that_knows_a_later_master_holds_for_3_s(self) -> None:
        one = settled()
        for at in range(100, 3300, 100):
            one.observe(poll(S1, at, report(endpoint=NEW, config_epoch=9)))
            for sentinel in (S2, S3):
                one.observe(poll(sentinel, at))
            leased = look(one, at + 1).lease_until_ns > 0
            assert leased == (at >= 3100), f"at {at} ms"

    def test_a_competing_failover_holds_the_new_master_too(self) -> None:
        one = settled()
        for sentinel in (S2, S3):
            one.observe(poll(sentinel, 2000, report(endpoint=NEW, config_epoch=1)))
        one.confirm(SHARD, Master(NEW, 1))
        one.observe(poll(S1, 2000, report("failover_in_progress", failover_state="wait_start")))
        assert look(one, 2002).lease_until_ns == 0
