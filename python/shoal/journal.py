"""What changed from one view to the next, as log events: who became master, which lease broke and why, for how long.

Rule: one event for one change, with its duration; what merely goes on is not repeated. Looks at views only. Called by
`follow` with every view.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.sentinel import NS_PER_MS

if TYPE_CHECKING:
    from shoal.log import Log
    from shoal.sentinel import MasterView, SentinelView, View


class Journal:
    """Remembers the last view and when things went wrong."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._last: View | None = None
        self._started_ns = 0
        self._broken_ns: dict[str, int] = {}
        self._lost_ns: dict[str, int] = {}

    def take(self, view: View) -> None:
        """Log what is new in this view."""
        last, self._last = self._last, view
        if last is None:
            self._started_ns = view.at_ns
        for name, master in view.masters.items():
            self._lease(master, None if last is None else last.masters[name], view.at_ns)
        for endpoint, sentinel in view.sentinels.items():
            before = None if last is None else last.sentinels[endpoint]
            if sentinel is not before:
                self._sentinel(sentinel, before, view.at_ns)
        for problem in view.problems:
            if last is None or problem not in last.problems:
                self._log.event("sentinels_unsound", problem=problem)

    def _lease(self, master: MasterView, before: MasterView | None, now_ns: int) -> None:
        had_until_ns = 0 if before is None else before.lease_until_ns
        has = master.lease_until_ns > 0
        if before is not None and master.candidate is not None and master.candidate != before.candidate:
            named = master.candidate
            self._log.event("master_named", shard=master.name, endpoint=str(named.endpoint), epoch=named.config_epoch)
        if has and not had_until_ns:
            since_ns = self._broken_ns.pop(master.name, self._started_ns)
            self._log.event("lease_regained", shard=master.name, after_ms=_ms(now_ns - since_ns))
        elif has and had_until_ns < now_ns:
            self._log.event("lease_lapsed", shard=master.name, for_ms=_ms(now_ns - had_until_ns))
        elif had_until_ns and not has:
            self._broken_ns[master.name] = min(now_ns, had_until_ns)
            self._log.event("lease_broken", shard=master.name, why=master.hold_reason)

    def _sentinel(self, now: SentinelView, before: SentinelView | None, now_ns: int) -> None:
        where = str(now.endpoint)
        if now.reachable and not (before and before.reachable):
            since_ns = self._lost_ns.pop(where, None)
            lost = {} if since_ns is None else {"after_ms": _ms(now_ns - since_ns)}
            self._log.event("sentinel_connected", sentinel=where, **lost)
        elif not now.reachable and now.why_not and where not in self._lost_ns:
            self._lost_ns[where] = now_ns
            self._log.event("sentinel_lost", sentinel=where, why=now.why_not)
        if now.subscribed and not (before and before.subscribed):
            self._log.event("sentinel_subscribed", sentinel=where)
        elif before and before.subscribed and not now.subscribed:
            self._log.event("sentinel_unsubscribed", sentinel=where)
        if now.tilt != (before is not None and before.tilt):
            self._log.event("sentinel_tilt" if now.tilt else "sentinel_calm", sentinel=where)


def _ms(span_ns: int) -> int:
    return round(span_ns / NS_PER_MS)
