"""What is measured, each in a process of its own: `python -m phase21.bench.workloads NAME` prints one JSON object."""

from __future__ import annotations

import asyncio
import gc
import resource
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from phase21.bench import reference
from phase21.domain import events as ev
from phase21.domain.settings import AgentSettings, CurrentSettings, Settings
from phase21.domain.tasks import Task
from phase21.service import House, Place, tuned
from phase21.store import codec
from phase21.store.journal import Journal

SURE = {"success_rate": 1.0}


def place_in(folder: Path) -> Place:
    """State, queue and outputs under one folder."""
    state = folder / "state"
    state.mkdir(mode=0o700, exist_ok=True)
    return Place(state=state, outputs=folder / "outputs", queue=state / "queue.jsonl")


def wave_of(number: int, size: int) -> tuple[Task, ...]:
    """Tasks that do nothing and succeed."""
    return tuple(Task(task_id=f"w{number}-{n}", payload=SURE) for n in range(size))


def accepted(number: int, size: int) -> ev.SubmissionAccepted:
    """A wave of them, accepted."""
    return ev.SubmissionAccepted(submission_id=f"s{number}", run_id="bench", waves={number: wave_of(number, size)})


async def settled(house: House, number: int, size: int) -> float:
    """Seconds from submitting one wave to its judgement, durable; its files may still be being written."""
    journal = house.journal
    event = accepted(number, size)
    started = time.perf_counter()
    journal.append(event)
    wave = journal.ledger.wave("bench", number)
    await journal.durable()
    await journal.until(lambda: wave.calibrated)
    await journal.durable()
    return time.perf_counter() - started


async def waves(sizes: list[int], agents: int = 4) -> list[float]:
    """Seconds of each wave of these sizes, one after the other, through a whole house; the last one's include the files."""
    settings = Settings(agents=AgentSettings(count=agents))
    with tempfile.TemporaryDirectory() as folder:
        async with House.opened(place_in(Path(folder)), CurrentSettings(settings)) as house:
            await settled(house, 1, 10)
            await house.journal.caught_up()
            started = time.perf_counter()
            spent = [await settled(house, number + 2, size) for number, size in enumerate(sizes)]
            await house.journal.caught_up()
            await house.journal.durable()
            spent[-1] += time.perf_counter() - started - sum(spent)
            await house.stop("done", 1.0)
    return spent


async def reference_waves(sizes: list[int], agents: int = 4, *, durable: bool = True) -> list[float]:
    """The same through the reference loop."""
    with tempfile.TemporaryDirectory() as folder:
        store = reference.LeastStore(Path(folder) / "least.db") if durable else None
        await reference.waves([10], agents, store)
        return await reference.waves(sizes, agents, store)


async def throughput() -> dict[str, Any]:
    """Ten waves of 1,000, in turns with the reference loops, so that a change of the machine's speed meets all."""
    size, count = 1000, 10
    ours = sum(await waves([size] * count))
    bare = sum(await reference_waves([size] * count, durable=False))
    least = sum(await reference_waves([size] * count))
    tasks = size * count
    return {
        "tasks_per_s": tasks / ours,
        "us_per_task": ours / tasks * 1e6,
        "reference_tasks_per_s": tasks / least,
        "bare_tasks_per_s": tasks / bare,
        "ratio": least / ours,
    }


async def growth() -> dict[str, Any]:
    """100,000 tasks in a wave against 10,000; 1,000 agents against 4; wave 200 against wave 2."""
    ten, hundred = await waves([10_000]), await waves([100_000])
    few, many = sum(await waves([10_000] * 3)), sum(await waves([10_000] * 3, agents=1000))
    long = await waves([500] * 200)
    early, late = sorted(long[1:21])[10], sorted(long[-20:])[10]
    return {
        "tasks_100000_over_10000": hundred[0] / ten[0],
        "agents_1000_over_4_per_task": many / few,
        "wave_200_over_wave_2": late / early,
    }


async def latency() -> dict[str, Any]:
    """Waves of one task, submit to settled."""
    count = 300
    ours = sorted(await waves([1] * count))
    least = sorted(await reference_waves([1] * count))
    return {
        "p50_ms": ours[count // 2] * 1e3,
        "p99_ms": ours[int(count * 0.99)] * 1e3,
        "reference_p50_ms": least[count // 2] * 1e3,
        "ratio_p50": ours[count // 2] / least[count // 2],
    }


async def agents_memory() -> dict[str, Any]:
    """Bytes for each of 10,000 agents."""
    tuned()
    settings = [Settings(agents=AgentSettings(count=count)) for count in (4, 10_004)]
    held: list[int] = []
    for chosen in settings:
        with tempfile.TemporaryDirectory() as folder:
            async with House.opened(place_in(Path(folder)), CurrentSettings(chosen)) as house:
                await house.journal.durable()
                await asyncio.sleep(0.2)
                gc.collect()
                held.append(_resident_bytes())
    return {"bytes_per_agent": (held[1] - held[0]) / 10_000}


async def waves_memory() -> dict[str, Any]:
    """Resident memory with 1,000 waves behind against 100."""
    held: dict[int, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        async with House.opened(place_in(Path(folder)), CurrentSettings(Settings())) as house:
            for number in range(1, 1001):
                await settled(house, number, 100)
                if number in {100, 1000}:
                    gc.collect()
                    held[number] = _resident_bytes()
            await house.stop("done", 1.0)
    return {"waves_1000_over_100": held[1000] / held[100]}


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


async def recovery() -> dict[str, Any]:
    """Seconds to open a journal: 1,000,000 entries of closed waves behind, and an open wave of 100,000 tasks half done."""
    with tempfile.TemporaryDirectory() as folder:
        behind = Path(folder) / "behind.db"
        entries = await _closed_waves(behind)
        half_done = Path(folder) / "open.db"
        await _open_wave(half_done)
        return {"entries_behind": entries, "behind_s": await _opening_s(behind), "open_wave_s": await _opening_s(half_done)}


async def _opening_s(path: Path) -> float:
    started = time.perf_counter()
    async with Journal.opened(path) as journal:
        spent = time.perf_counter() - started
        journal.snapshot_position = journal.ledger.position
    return spent


def _outcomes(number: int, size: int) -> list[ev.AnyEvent]:
    found: list[ev.AnyEvent] = []
    for n in range(size):
        place = {"run_id": "bench", "wave": number, "task_id": f"w{number}-{n}", "agent_id": "agent_0", "attempt": 1}
        found.append(ev.AttemptStarted(confidence=0.85, **place))  # type: ignore[arg-type]
        found.append(ev.TaskCompleted(duration_s=0.0, **place))  # type: ignore[arg-type]
    return found


async def _closed_waves(path: Path, count: int = 100, size: int = 5000) -> int:
    async with Journal.opened(path, inline=True) as journal:
        journal.append(ev.ServiceStarted(pid=1, version="bench"))
        journal.append(ev.AgentJoined(agent_id="agent_0"))
        for number in range(1, count + 1):
            journal.append(accepted(number, size))
            journal.append(ev.WaveOpened(run_id="bench", wave=number))
            for event in _outcomes(number, size):
                journal.append(event)
            journal.append(ev.WaveSettled(run_id="bench", wave=number))
            journal.append(ev.OutputsWritten(run_id="bench", wave=number))
            await journal.durable()
        return _left_as_after_a_kill(journal)


async def _open_wave(path: Path, size: int = 100_000) -> None:
    async with Journal.opened(path, inline=True) as journal:
        journal.append(ev.ServiceStarted(pid=1, version="bench"))
        journal.append(ev.AgentJoined(agent_id="agent_0"))
        journal.append(accepted(1, size))
        journal.append(ev.WaveOpened(run_id="bench", wave=1))
        for event in _outcomes(1, size // 2):
            journal.append(event)
        await journal.durable()
        _left_as_after_a_kill(journal)


def _left_as_after_a_kill(journal: Journal) -> int:
    """No snapshot at the close: what a killed service leaves."""
    journal.snapshot_position = journal.ledger.position
    return journal.ledger.position


WORKLOADS: dict[str, Callable[[], Awaitable[dict[str, Any]]]] = {
    "throughput": throughput,
    "growth": growth,
    "latency": latency,
    "agents_memory": agents_memory,
    "waves_memory": waves_memory,
    "recovery": recovery,
}


def main(name: str) -> None:
    """Measure one and print it."""
    tuned()
    sys.stdout.write(codec.encode(asyncio.run(_measured(name))).decode() + "\n")


async def _measured(name: str) -> dict[str, Any]:
    return await WORKLOADS[name]()


if __name__ == "__main__":
    main(sys.argv[1])
