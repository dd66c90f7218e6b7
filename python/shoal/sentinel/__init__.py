"""Following Redis Sentinel, the pure part: what sentinels say (wire), its worth (lease), who is master (reducer).

No asyncio, socket, clock or environment: `watch` has those. Whoever follows a master reads a `View`.
"""

from shoal.sentinel.lease import NS_PER_MS, Timing
from shoal.sentinel.reducer import Identified, Linked, Observation, Polled, Published, Reducer, Tilted
from shoal.sentinel.view import FOREVER_NS, NO_LEASE, LeaseRule, Master, MasterView, SentinelView, View, Vote
from shoal.sentinel.wire import Event, Kind, MastersReply, Report, Said, read_event, read_tilt

__all__ = [
    "FOREVER_NS",
    "NO_LEASE",
    "NS_PER_MS",
    "Event",
    "Identified",
    "Kind",
    "LeaseRule",
    "Linked",
    "Master",
    "MasterView",
    "MastersReply",
    "Observation",
    "Polled",
    "Published",
    "Reducer",
    "Report",
    "Said",
    "SentinelView",
    "Tilted",
    "Timing",
    "View",
    "Vote",
    "read_event",
    "read_tilt",
]
