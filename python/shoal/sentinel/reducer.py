"""Who is master, and may it be written to: observations of all sentinels in, a decision out.

Rule: a pure reducer. It never asks for the time, opens nothing and trusts no single sentinel; what it is told in any
order and any number of times ends in the same decision, and a committed master is never followed by one of a lower
config epoch.

    Polled, Tilted, Published, Linked, Identified ──► observe ──► (memory per sentinel and master)
                                              now ──► decide  ──► View: endpoint, lease, or why not
                       a candidate's ROLE is master ──► confirm ──► it is committed

Called by `watch`, which feeds it from sockets, and by the model check, which feeds it from a simulation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from shoal.sentinel.lease import NS_PER_MS, Timing, is_newer, objection, unrest, vote_until, votes_needed
from shoal.sentinel.memory import Disturbance, MasterMemory
from shoal.sentinel.view import NO_LEASE, LeaseRule, Master, MasterView, SentinelView, View, Vote
from shoal.sentinel.wire import Event, Kind, Said

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from shoal.topology import Endpoint


@dataclass(frozen=True, slots=True)
class Polled:
    """A sentinel answered SENTINEL MASTERS; `sent_ns` is from before the request was written."""

    sentinel: Endpoint
    sent_ns: int
    said: Mapping[str, Said]


@dataclass(frozen=True, slots=True)
class Tilted:
    """A sentinel said whether it is in tilt."""

    sentinel: Endpoint
    sent_ns: int
    tilt: bool


@dataclass(frozen=True, slots=True)
class Published:
    """A sentinel published an event, which was read at `at_ns`."""

    sentinel: Endpoint
    at_ns: int
    event: Event


@dataclass(frozen=True, slots=True)
class Linked:
    """A connection to a sentinel came up or was lost."""

    sentinel: Endpoint
    up: bool
    subscription: bool = False
    why_not: str | None = None


@dataclass(frozen=True, slots=True)
class Identified:
    """A sentinel told its id, which votes name it by."""

    sentinel: Endpoint
    id: str


Observation = Polled | Tilted | Published | Linked | Identified


@dataclass(slots=True)
class _Sentinel:
    view: SentinelView
    poll: Polled | None = None
    tilt_ns: int = 0
    id: str | None = None


class Reducer:
    """All that is known of some masters from some sentinels, and what follows from it."""

    def __init__(
        self,
        sentinels: Sequence[Endpoint],
        masters: Sequence[str],
        *,
        rule: LeaseRule = LeaseRule.REQUIRE,
        confirm: bool = True,
        timing: Timing | None = None,
    ) -> None:
        """With `confirm` a new master waits for `confirm()`; without, a majority's word commits it at once."""
        self.timing = timing or Timing()
        self._rule = rule
        self._confirm = confirm
        self._sentinels = {endpoint: _Sentinel(SentinelView(endpoint)) for endpoint in sentinels}
        self._masters = {name: MasterMemory(self.timing) for name in masters}
        # what follows from the reports alone is kept until one changes
        self._electorates: dict[str, tuple[int, int]] = {}
        self._problems: tuple[str, ...] | None = None

    # ------------------------------------------------------------------------------------------------ observations

    def observe(self, observation: Observation) -> None:
        """Take in one observation. Of a sentinel that is not configured, nothing is taken in."""
        sentinel = self._sentinels.get(observation.sentinel)
        if sentinel is None:
            return
        match observation:
            case Polled():
                self._polled(sentinel, observation)
            case Tilted(sent_ns=at_ns, tilt=tilt):
                self._tilted(sentinel, at_ns, tilt=tilt)
            case Published():
                self._published(sentinel, observation)
            case Linked(up=up, subscription=True):
                sentinel.view = replace(sentinel.view, subscribed=up)
            case Linked(up=up, why_not=why_not):
                sentinel.view = replace(sentinel.view, reachable=up, why_not=None if up else why_not)
            case Identified(id=known_as):
                sentinel.id = known_as

    def _polled(self, sentinel: _Sentinel, poll: Polled) -> None:
        last = sentinel.poll
        if last is not None and poll.sent_ns <= last.sent_ns:
            return  # an old answer, or the same again
        for name, memory in self._masters.items():
            before = None if last is None else (last.said.get(name), last.sent_ns)
            said = poll.said.get(name)
            memory.polled(poll.sentinel, said, poll.sent_ns, before)
            if said is None or before is None or before[0] is None or said.report is not before[0].report:
                self._electorates.pop(name, None)
                self._problems = None
        sentinel.poll = poll
        sentinel.view = replace(sentinel.view, last_seen_ns=poll.sent_ns)

    def _tilted(self, sentinel: _Sentinel, at_ns: int, *, tilt: bool) -> None:
        if at_ns > sentinel.tilt_ns:
            sentinel.tilt_ns = at_ns
            if tilt != sentinel.view.tilt:
                sentinel.view = replace(sentinel.view, tilt=tilt)

    def _published(self, sentinel: _Sentinel, published: Published) -> None:
        event, at_ns = published.event, published.at_ns
        if event.kind in (Kind.TILT, Kind.CALM):
            self._tilted(sentinel, at_ns, tilt=event.kind is Kind.TILT)
            return
        leader = next((at for at, one in self._sentinels.items() if event.leader and one.id == event.leader), None)
        for name, memory in self._masters.items():
            if event.master == name or (event.master is None and not self._immune(name, memory, at_ns)):
                memory.published(published.sentinel, event, at_ns, leader)

    def _immune(self, name: str, memory: MasterMemory, now_ns: int) -> bool:
        """No sentinel can be elected for this master now: too many have held it to be up, for too long."""
        return memory.steady(now_ns) >= self._electorate(name)[1]

    def confirm(self, name: str, master: Master) -> bool:
        """Commit a candidate whose ROLE says master; False if a later one is committed already."""
        memory = self._masters[name]
        if memory.committed is not None and master.config_epoch < memory.committed.config_epoch:
            return False
        memory.committed = master
        memory.newer_ns.clear()
        return True

    # ------------------------------------------------------------------------------------------------ decision

    def decide(self, now_ns: int) -> View:
        """The view at this moment."""
        if self._problems is None:
            self._problems = tuple(self._find_problems())
        return View(
            at_ns=now_ns,
            masters={name: self._decide(name, memory, now_ns) for name, memory in self._masters.items()},
            sentinels={endpoint: sentinel.view for endpoint, sentinel in self._sentinels.items()},
            problems=self._problems,
            heard=sum(sentinel.poll is not None for sentinel in self._sentinels.values()),
        )

    def _decide(self, name: str, memory: MasterMemory, now_ns: int) -> MasterView:
        named = self._named(name, memory, now_ns)
        if named is not None and not self._confirm:
            self.confirm(name, named)
            named = None
        if memory.committed is None:
            waits = "no majority of the sentinels names its master"
            if named is not None:
                waits = f"{named.endpoint} has not confirmed yet that it is the master"
            return MasterView(name, candidate=named, hold_reason=waits)
        endpoint, config_epoch = memory.committed
        votes = {at: self._vote(sentinel, name, memory, now_ns) for at, sentinel in self._sentinels.items()}
        until_ns, why_not = self._lease(name, votes, now_ns)
        if named is not None:
            why_not = f"a majority names {named.endpoint} (config epoch {named.config_epoch}), not confirmed yet"
        else:
            why_not = self._unsettled(name, memory, now_ns) or why_not
        return MasterView(name, endpoint, config_epoch, named, NO_LEASE if why_not else until_ns, why_not, votes)

    def _named(self, name: str, memory: MasterMemory, now_ns: int) -> Master | None:
        """The master that a majority names, if that is news and no step back."""
        named: dict[Endpoint, list[int]] = {}
        for sentinel, said in self._words(name):
            fresh = now_ns - sentinel.sent_ns <= self.timing.gap * NS_PER_MS
            if fresh and not said.report.failing_over:  # its address is the old master's until the very end
                named.setdefault(said.report.endpoint, []).append(said.report.config_epoch)
        for endpoint, epochs in named.items():
            if len(epochs) > self._electorate(name)[0] // 2:
                master = Master(endpoint, max(epochs))
                known = memory.committed
                if known is None or (master != known and master.config_epoch >= known.config_epoch):
                    return master
        return None

    def _vote(self, sentinel: _Sentinel, name: str, memory: MasterMemory, now_ns: int) -> Vote:
        poll = sentinel.poll
        if poll is None or memory.committed is None:
            return Vote(NO_LEASE, "has not answered yet")
        said = poll.said.get(name)
        if said is None:
            return Vote(NO_LEASE, "does not know this master")
        why_not = objection(said, memory.committed.endpoint)
        if why_not is None and poll.sent_ns <= memory.down_ns.get(poll.sentinel, -1):
            why_not = "published that the master is down"
        if why_not is None and sentinel.view.tilt:
            why_not = "is in tilt"
        if why_not is not None:
            return Vote(NO_LEASE, why_not)
        until_ns = vote_until(poll.sent_ns, said, self.timing)
        if until_ns > now_ns:
            return Vote(until_ns)
        silent_ms = (now_ns - poll.sent_ns) // NS_PER_MS
        return Vote(until_ns, f"last spoke {silent_ms} ms ago, {said.ok_ping_age_ms} ms after a good ping")

    def _lease(self, name: str, votes: Mapping[Endpoint, Vote], now_ns: int) -> tuple[int, str | None]:
        """Until when enough votes last together, and why not if they do not."""
        needed = self._electorate(name)[1]
        lasting = sorted((vote.until_ns for vote in votes.values() if vote.until_ns > now_ns), reverse=True)
        if len(lasting) >= needed:
            return lasting[needed - 1], None
        missing = "; ".join(f"{at} {vote.why_not}" for at, vote in votes.items() if vote.why_not)
        return NO_LEASE, f"{len(lasting)} of {needed} sentinels needed vouch for it: {missing}"

    def _unsettled(self, name: str, memory: MasterMemory, now_ns: int) -> str | None:
        """What forbids writing however many sentinels vouch for the master."""
        committed = memory.committed
        if committed is None:
            return None
        calm: dict[Endpoint, int] = {}
        for poll, said in self._words(name):
            age_ns = now_ns - poll.sent_ns
            why = unrest(said.report, committed)
            if why is None:
                calm[poll.sentinel] = poll.sent_ns
            elif age_ns <= self.timing.leader_hold * NS_PER_MS:
                return f"sentinel {poll.sentinel}: {why}"
            newer_ns = now_ns - memory.newer_ns.get(poll.sentinel, now_ns)
            if is_newer(said.report, committed) and newer_ns <= self.timing.newer_hold * NS_PER_MS:
                return f"sentinel {poll.sentinel} knows a later master, {said.report.endpoint}"
        for key, disturbance in list(memory.disturbances.items()):
            if not self._over(disturbance, calm, self._electorate(name)[0] // 2 + 1, now_ns):
                return disturbance.text
            del memory.disturbances[key]
        return None

    @staticmethod
    def _over(disturbance: Disturbance, calm: Mapping[Endpoint, int], majority: int, now_ns: int) -> bool:
        """Whether polls sent since show that the disturbance has passed."""
        if now_ns >= disturbance.until_ns:
            return True
        since = {at for at, sent_ns in calm.items() if sent_ns > disturbance.at_ns}
        asked = disturbance.asks is None or disturbance.asks in since
        return disturbance.heard_by_majority and asked and len(since) >= majority

    # ------------------------------------------------------------------------------------------------ counting

    def _words(self, name: str) -> Iterator[tuple[Polled, Said]]:
        """The last word of every sentinel that knows this master."""
        for sentinel in self._sentinels.values():
            if sentinel.poll is not None and (said := sentinel.poll.said.get(name)) is not None:
                yield sentinel.poll, said

    def _electorate(self, name: str) -> tuple[int, int]:
        """How many sentinels there are for this master, and how many must vouch for it.

        They are all that any of them knows; with a weaker rule than `require` only those configured.
        """
        known = self._electorates.get(name)
        if known is None:
            configured = len(self._sentinels)
            reports = [said.report for _, said in self._words(name)]
            count = max([configured, *(report.other_sentinels + 1 for report in reports)])
            known = count, votes_needed(count, min((report.quorum for report in reports), default=count))
            if self._rule is not LeaseRule.REQUIRE:
                known = configured, configured // 2 + 1
            self._electorates[name] = known
        return known

    def _find_problems(self) -> Iterator[str]:
        configured = len(self._sentinels)
        for name in self._masters:
            known = max((said.report.other_sentinels + 1 for _, said in self._words(name)), default=0)
            if known > configured:
                yield f'{known} sentinels watch "{name}", and {configured} of them are configured'
            least = max(known, configured) // 2 + 1
            for poll, said in self._words(name):
                if said.report.quorum < least:
                    quorum = f"a quorum of {said.report.quorum}"
                    yield f'sentinel {poll.sentinel} has {quorum} for "{name}", which is no majority: {least} would be'
