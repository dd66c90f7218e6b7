"""Gives back to the system what the data plane has freed.

glibc keeps freed memory for whoever asks next: after a crowd of clients that sent much and left, hundreds of megabytes
for as long as the process lives. (It could map each large block apart and so give it back at once; that halves the
throughput of values of 400 kB and more, because each is paged in anew.) So the process looks now and then how large it
is, and if it has grown asks glibc to return what is unused. A process that grows again each time needs that memory: it
looks less often. Called by `daemon`.
"""

from __future__ import annotations

import asyncio
import ctypes
import resource
from pathlib import Path

GROWTH = 32 * 1024 * 1024
"""Bytes that are worth a pause of a worker that wants memory meanwhile: 17 ms where 100 MB go."""
PERIOD, LONGEST_PERIOD = 10.0, 160.0


async def give_back() -> None:
    """Look after the size of this process, for ever."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        return  # another C library, with other habits
    least, period = resident(), PERIOD
    while True:
        await asyncio.sleep(period)
        if resident() < least + GROWTH:
            period = PERIOD
            continue
        await asyncio.to_thread(trim, 0)
        least = resident()
        period = min(2 * period, LONGEST_PERIOD)


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
