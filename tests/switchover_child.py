"""A switchover that is killed with -9 after a step: `switchover_child.py FILE SHARD STEP`, some of its words."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from shoal import config
from shoal.standing import limitations, plan
from shoal.survey import look
from shoal.switchover import Done, Switchover
from shoal.topology import lay_out


def main(file: str, shard: str, step: str) -> None:
    layout = lay_out(config.load(Path(file)), {})
    standing = asyncio.run(look(layout, shard))
    assert limitations(standing, None) == []

    def tell(done: Done) -> None:
        if step in done.what:
            os.kill(os.getpid(), signal.SIGKILL)

    asyncio.run(Switchover(plan(standing, None), None, tell).run())


if __name__ == "__main__":
    main(*sys.argv[1:])
