"""Leaves a state as kill -9 does: `python -m phase21.bench.killed behind|amid DIR SIZE`, called by the workload `recovery`.

`behind`: closed waves of 5,000 tasks until the journal holds SIZE entries. `amid`: one wave of SIZE tasks, about half of them done.
Prints how many entries the journal holds, durable, and kills itself.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from phase21.bench.workloads import accepted, place_in, settled
from phase21.domain.settings import CurrentSettings, Settings
from phase21.service.house import House
from phase21.service.process import tuned

WAVE_TASKS = 5_000


async def behind(house: House, size: int) -> None:
    """Waves, one after the other, all closed."""
    number = 1
    while house.journal.ledger.position < size:
        await settled(house, number, WAVE_TASKS)
        number += 1
    await house.journal.caught_up()


async def amid(house: House, size: int) -> None:
    """A wave of which half is done."""
    journal = house.journal
    journal.append(accepted(1, size))
    wave = journal.ledger.wave("bench", 1)
    await journal.until(lambda: wave.pending <= size // 2)


async def _left(how: str, folder: Path, size: int) -> None:
    async with House.opened(place_in(folder), CurrentSettings(Settings())) as house:
        await {"behind": behind, "amid": amid}[how](house, size)
        house.executor.stopping = True
        await house.journal.durable()
        sys.stdout.write(f"{house.journal.ledger.position}\n")
        sys.stdout.flush()
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    tuned()
    asyncio.run(_left(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))
