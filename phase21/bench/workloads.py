"""What is measured, each in a process of its own: `python -m phase21.bench.workloads NAME [--quick]` prints one JSON object.

Here stand the workloads that run a house within the process, beside the reference loop on the same event loop; those that need
real processes are in `daemon`. Times are from perf_counter.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from phase21.bench import daemon, folders, reference, stages, talk
from phase21.domain import events as ev
from phase21.domain.settings import AgentSettings, CurrentSettings, HandlerSettings, Settings
from phase21.domain.tasks import Task
from phase21.domain.workflows import Workflow
from phase21.readers.contents import AGENT_FILES
from phase21.service.house import House, Place
from phase21.service.process import tuned
from phase21.store import codec
from phase21.store.files import PRIVATE_FILE

T = TypeVar("T")
SURE = {"success_rate": 1.0}
WAVE_TASKS = 500
AGENTS_WAVE_TASKS = 10_000
SMALL_WAVES = 6
"""How many waves are held against one of ten times the size, half of them before it and half after it."""

LAYER_TASKS, LAYER_STEP = 1000, 7919
"""Tasks of a layer, and the stride by which each is tied to one more of the layer before."""


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
    """Seconds of each wave of these sizes, one after the other, through a whole house.

    The last one's include all that is left to do: building the submissions, and every wave's files. So the sum is the whole cost.
    """
    settings = Settings(agents=AgentSettings(count=agents))
    async with House.opened(place_in(folders.fresh()), CurrentSettings(settings)) as house:
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
    store = reference.LeastStore(folders.fresh() / "least.db") if durable else None
    await reference.waves([10], agents, store)
    return await reference.waves(sizes, agents, store)


def driven(work: Coroutine[Any, Any, T]) -> T:
    """The result of work on the event loop that the command line would use: uvloop's where it is installed."""
    try:
        import uvloop  # noqa: PLC0415 - may be missing
    except ImportError:
        return asyncio.run(work)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def throughput(*, quick: bool) -> dict[str, Any]:
    """Waves of 1,000 tasks that do nothing, in turns with the reference loops, so that a change of the machine's speed meets all."""
    return driven(_throughput(1000, 3 if quick else 10))


async def _throughput(size: int, count: int) -> dict[str, Any]:
    ours = sum(await waves([size] * count))
    bare = sum(await reference_waves([size] * count, durable=False))
    least = sum(await reference_waves([size] * count))
    tasks = size * count
    return {
        "tasks_per_s": tasks / ours,
        "us_per_task": ours / tasks * 1e6,
        "reference_tasks_per_s": tasks / least,
        "reference_us_per_task": least / tasks * 1e6,
        "bare_tasks_per_s": tasks / bare,
        "ratio": least / ours,
    }


def growth(*, quick: bool) -> dict[str, Any]:
    """A wave ten times as large, a fleet of 1,000 agents against 4, and wave 200 against wave 2.

    What is compared is taken in turns, since a machine may change its speed in between.
    """
    return driven(_growth(1_000, 1, 40) if quick else _growth(10_000, 3, 200))


async def _growth(size: int, repeated: int, count: int) -> dict[str, Any]:
    small = [sum(await waves([size])) for _ in range(SMALL_WAVES // 2)]
    large = sum(await waves([size * 10]))
    small += [sum(await waves([size])) for _ in range(SMALL_WAVES // 2)]
    few = many = 0.0
    for _ in range(repeated):
        few += sum(await waves([AGENTS_WAVE_TASKS]))
        many += sum(await waves([AGENTS_WAVE_TASKS], agents=1000))
    early, late = await _early_and_late(count)
    tasks = AGENTS_WAVE_TASKS * repeated
    return {
        "tasks": size,
        "wave_s": statistics.fmean(small),
        "wave_of_ten_times_s": large,
        "wave_ratio": large / statistics.fmean(small),
        "agents_4_us_per_task": few / tasks * 1e6,
        "agents_1000_us_per_task": many / tasks * 1e6,
        "agents_ratio": many / few,
        "files_us_per_task": _files_s(1000) / AGENTS_WAVE_TASKS * 1e6,
        "wave_2_ms": early * 1e3,
        "wave_last_ms": late * 1e3,
        "late_ratio": late / early,
    }


def _files_s(agents: int) -> float:
    """Seconds to make a wave's four files for each of so many agents, with next to nothing in them."""
    folder = str(folders.fresh())
    started = time.perf_counter()
    for agent in range(agents):
        os.mkdir(f"{folder}/{agent}")  # noqa: PTH102 - as the house does it
        for name in AGENT_FILES:
            descriptor = os.open(f"{folder}/{agent}/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE)
            os.write(descriptor, b"{}\n")
            os.close(descriptor)
    return time.perf_counter() - started


async def _early_and_late(count: int) -> tuple[float, float]:
    """Median seconds, files included, of a new house's waves from the second on, and of those that end a run of `count`."""
    pairs = min(20, count // 3)
    early: list[float] = []
    late: list[float] = []
    async with _house() as new, _house() as old:
        await _whole(new, 1)
        for number in range(1, count - pairs + 1):
            await _whole(old, number)
        for pair in range(pairs):
            early.append(await _whole(new, 2 + pair))
            late.append(await _whole(old, count - pairs + 1 + pair))
        for house in (new, old):
            await house.stop("done", 1.0)
    return statistics.median(early), statistics.median(late)


def _house() -> contextlib.AbstractAsyncContextManager[House]:
    return House.opened(place_in(folders.fresh()), CurrentSettings(Settings()))


async def _whole(house: House, number: int) -> float:
    """Seconds from submitting a wave until its files stand."""
    started = time.perf_counter()
    await settled(house, number, WAVE_TASKS)
    await house.journal.caught_up()
    return time.perf_counter() - started


def graphs(*, quick: bool) -> dict[str, Any]:
    """A workflow whose tasks wait for each other, layer by layer, against a plain wave of as many tasks."""
    return driven(_graphs(10_000, 1) if quick else _graphs(100_000, 3))


async def _graphs(size: int, turns: int) -> dict[str, Any]:
    """The quickest of some turns each, taken alternately: what else the machine does only adds."""
    wave = ev.SubmissionAccepted(submission_id="s", run_id="bench", waves={1: wave_of(1, size)})
    graph = ev.SubmissionAccepted(
        submission_id="s",
        run_id="bench",
        waves={1: layered(size)},
        workflow=Workflow(name="layers", max_tasks=size),
    )
    spent_s = [(await _whole_s(wave), await _whole_s(graph)) for _ in range(turns)]
    wave_s, graph_s = map(min, zip(*spent_s, strict=True))
    return {"tasks": size, "wave_s": wave_s, "graph_s": graph_s, "graph_ratio": graph_s / wave_s}


def layered(size: int) -> tuple[Task, ...]:
    """Tasks in layers, each waiting for two of the layer before."""
    needs = [
        () if n < LAYER_TASKS else (f"g{n - LAYER_TASKS}", f"g{n - n % LAYER_TASKS - 1 - (n * LAYER_STEP) % (LAYER_TASKS - 1)}")
        for n in range(size)
    ]
    return tuple(Task(task_id=f"g{n}", payload=SURE, depends_on=tuple(dict.fromkeys(need))) for n, need in enumerate(needs))


async def _whole_s(submission: ev.SubmissionAccepted) -> float:
    """Seconds from submitting a wave until its files stand, in a house of its own."""
    async with _house() as house:
        journal = house.journal
        started = time.perf_counter()
        journal.append(submission)
        wave = journal.ledger.wave(submission.run_id, 1)
        await journal.until(lambda: wave.calibrated)
        await journal.caught_up()
        spent_s = time.perf_counter() - started
        await house.stop("done", 1.0)
    return spent_s


def latency(*, quick: bool) -> dict[str, Any]:
    """Waves of one task, submit to settled, durable: one right after the other, and each alone once the last one's files stand."""
    return driven(_latency(30 if quick else 300))


async def _latency(count: int) -> dict[str, Any]:
    ours = sorted((await waves([1] * (count + 1)))[:-1])
    alone = sorted(await _alone(count))
    least = sorted(await reference_waves([1] * count))
    return {
        "p50_ms": ours[count // 2] * 1e3,
        "p99_ms": ours[int(count * 0.99)] * 1e3,
        "alone_p50_ms": alone[count // 2] * 1e3,
        "alone_p99_ms": alone[int(count * 0.99)] * 1e3,
        "reference_p50_ms": least[count // 2] * 1e3,
        "reference_p99_ms": least[int(count * 0.99)] * 1e3,
        "ratio_p50": ours[count // 2] / least[count // 2],
        "alone_ratio_p50": alone[count // 2] / least[count // 2],
        "ratio_p99": ours[int(count * 0.99)] / least[int(count * 0.99)],
    }


async def _alone(count: int) -> list[float]:
    spent: list[float] = []
    async with House.opened(place_in(folders.fresh()), CurrentSettings(Settings())) as house:
        for number in range(1, count + 1):
            spent.append(await settled(house, number, 1))
            await house.journal.caught_up()
        await house.stop("done", 1.0)
    return spent


def waves_memory(*, quick: bool) -> dict[str, Any]:
    """Resident memory with 1,000 waves behind against 100, each time with all files written."""
    return driven(_waves_memory(20 if quick else 100))


async def _waves_memory(few: int) -> dict[str, Any]:
    held: dict[int, int] = {}
    async with House.opened(place_in(folders.fresh()), CurrentSettings(Settings())) as house:
        for number in range(1, few * 10 + 1):
            await settled(house, number, 100)
            if number in {few, few * 10}:
                await house.journal.caught_up()
                gc.collect()
                held[number] = _resident_bytes()
        await house.stop("done", 1.0)
    return {
        "few_mib": held[few] / 2**20,
        "many_mib": held[few * 10] / 2**20,
        "waves_ratio": held[few * 10] / held[few],
    }


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


def cost(*, quick: bool) -> dict[str, Any]:
    """Microseconds of a core for each task by the stage that uses them, sampled; commits are made on the loop's thread."""
    return driven(_cost(1000, 5 if quick else 60))


async def _cost(size: int, count: int) -> dict[str, Any]:
    async with House.opened(place_in(folders.fresh()), CurrentSettings(Settings()), inline=True) as house:
        await settled(house, 1, size)
        await house.journal.caught_up()
        with stages.sampled() as samples:
            for number in range(2, count + 2):
                await settled(house, number, size)
            await house.journal.caught_up()
        await house.stop("done", 1.0)
    return samples.us_each(size * count)


def messages(*, quick: bool) -> dict[str, Any]:
    """Messages from one task to another of the same wave: without durability asked, and durable, 256 on their way at a time."""
    return driven(_messages(20_000, 5_000, 1) if quick else _messages(200_000, 40_000, 3))


async def _messages(count: int, durable_count: int, turns: int) -> dict[str, Any]:
    """The quickest of some turns each, taken alternately: what else the machine does only adds."""
    spent_s = [
        (
            await talk.reference(count, None),
            await _talk(count, durable=False),
            await talk.reference(durable_count, folders.fresh() / "least.db"),
            await _talk(durable_count, durable=True),
        )
        for _ in range(turns)
    ]
    bare, plain, least, durable = map(min, zip(*spent_s, strict=True))
    return {
        "plain_per_s": count / plain,
        "bare_per_s": count / bare,
        "plain_ratio": bare / plain,
        "durable_per_s": durable_count / durable,
        "least_per_s": durable_count / least,
        "durable_ratio": least / durable,
    }


async def _talk(count: int, *, durable: bool) -> float:
    """Seconds from the first message's taking to the last one's."""
    settings = Settings(handlers=HandlerSettings(python_modules=(talk.__name__,), default_timeout=600.0))
    said = {"callable": f"{talk.__name__}:sender", "kwargs": {"to": "receiver", "count": count, "durable": durable}}
    heard = {"callable": f"{talk.__name__}:receiver", "kwargs": {"count": count}}
    tasks = (
        Task(task_id="receiver", kind="python", payload=heard),
        Task(task_id="sender", kind="python", payload=said),
    )
    async with House.opened(place_in(folders.fresh()), CurrentSettings(settings)) as house:
        journal = house.journal
        journal.append(ev.SubmissionAccepted(submission_id="s1", run_id="bench", waves={1: tasks}))
        wave = journal.ledger.wave("bench", 1)
        await journal.until(lambda: wave.settled_us is not None)
        seconds = wave.tasks["receiver"].result["seconds"]
        await journal.caught_up()
        await house.stop("done", 1.0)
    return float(seconds)


WORKLOADS: dict[str, Callable[..., dict[str, Any]]] = {
    "throughput": throughput,
    "growth": growth,
    "latency": latency,
    "graphs": graphs,
    "daemon": daemon.daemon,
    "cold_start": daemon.cold_start,
    "agents_memory": daemon.agents_memory,
    "waves_memory": waves_memory,
    "recovery": daemon.recovery,
    "cost": cost,
    "messages": messages,
}


def main(name: str, *options: str) -> None:
    """Measure one and print it."""
    tuned()
    sys.stdout.write(codec.encode(WORKLOADS[name](quick="--quick" in options)).decode() + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
