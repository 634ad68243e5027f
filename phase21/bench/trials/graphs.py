"""How long workflows of real science take in the product, in virtual time, against what no schedule can beat.

Called by the evaluation of a folder of data; expects `data/dag/*.json` (see its README), of which `_portfolio` is all the others at
once. Each graph is accepted as one workflow and carried out by the whole service: journal, gates, dispatch, agents, files. An agent
works at one task at a time, and a task lasts its recorded runtime, divided by its agent's speed.

`known` says runtimes as estimates; that agents are of unequal speed, tasks of an earlier workflow have shown. `learned`
gives no estimate at all, once with nothing known before (`cold`) and once after the same graphs have been carried out (`warm`).
Beside: `FIFO` is list scheduling in order of submission, `HEFT` (Topcuoglu, Hariri, Wu, 2002) a plan made ahead with insertion. Lower
bounds: `plain` is max(critical path, work / lanes), `bound` what `planning.graphs.bound_s` says.
"""

from __future__ import annotations

import tempfile
from bisect import insort
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import msgspec

from phase21.bench.trials.virtual import carried_out
from phase21.domain import events as ev
from phase21.domain.settings import AgentSettings, CurrentSettings, Settings
from phase21.domain.tasks import Task
from phase21.domain.workflows import Workflow
from phase21.planning.graphs import Graph, bound_s, ranks
from phase21.service.house import House, Place
from phase21.store import codec
from phase21.store.clock import LoopClock

PORTFOLIO = "_portfolio"
FLEETS = {"P = 4": [1.0] * 4, "P = 8": [1.0] * 8, "P = 16": [1.0] * 16}
UNEQUAL = {"1 1 2 4": [1.0, 1.0, 2.0, 4.0], "1 1.5 2 2.5, twice": [1.0, 1.5, 2.0, 2.5] * 2, "1 and 2, 4 each": [1.0, 2.0] * 4}
TEACHING_TASKS = 8
"""Tasks for each agent that show its speed."""

UNSAID_S = Task(task_id="any").estimated_duration_s
LONGEST_S = 1e8
LOOKS_MOST = 10**9

Row = dict[str, Any]


class Flow(msgspec.Struct, frozen=True):
    """A graph with recorded runtimes; `parents` by place."""

    name: str
    steps: list[str]
    seconds: list[float]
    parents: list[list[int]]


def read(file: Path) -> Flow:
    """A graph of the data's format."""
    tasks = codec.decode(file.read_bytes(), dict[str, Any])["tasks"]
    place = {task["id"]: index for index, task in enumerate(tasks)}
    return Flow(
        file.stem,
        [task["kind"] for task in tasks],
        [float(task["runtime_s"]) for task in tasks],
        [[place[parent] for parent in task["parents"]] for task in tasks],
    )


class Asked(msgspec.Struct, frozen=True):
    """One row of the table: which graphs, by which fleet, in which way."""

    folder: Path
    fleet: str
    way: str
    portfolio: bool = False

    @property
    def speeds(self) -> list[float]:
        """The fleet's speeds."""
        return {**FLEETS, **UNEQUAL}[self.fleet]


def asked(data: Path) -> list[Asked]:
    """What there is to measure; nothing where there is no data. The longest come first."""
    folder = data / "dag"
    names = {file.stem for file in folder.glob("*.json")}
    rows: list[Asked] = []
    if PORTFOLIO in names:
        rows += [Asked(folder, fleet, "learned", portfolio=True) for fleet in FLEETS]
        rows += [Asked(folder, fleet, "known", portfolio=True) for fleet in (*FLEETS, *UNEQUAL)]
    if names - {PORTFOLIO}:
        rows += [Asked(folder, fleet, "known") for fleet in (*FLEETS, *UNEQUAL)]
    return rows


def row(one: Asked) -> Row:
    """The figures of one row."""
    files = [file for file in sorted(one.folder.glob("*.json")) if (file.stem == PORTFOLIO) is one.portfolio]
    measured = learned if one.way == "learned" else ratios
    found = [measured(read(file), one.speeds) for file in files]
    means = {name: fmean(figures[name] for figures in found) for name in found[0]}
    return {"set": "portfolio" if one.portfolio else "graphs", "fleet": one.fleet, "way": one.way, **means}


def ratios(flow: Flow, speeds: Sequence[float]) -> dict[str, float]:
    """Makespans of the product and of the other ways, divided by the lower bounds."""
    graph, paces = Graph(flow.parents), [1.0 / speed for speed in speeds]
    plain_s = max(max(ranks(graph, flow.seconds)) / max(speeds), sum(flow.seconds) / sum(speeds))
    best_s = bound_s(graph, flow.seconds, paces, LOOKS_MOST)
    made = {"product": product(flow, speeds)[-1], "FIFO": fifo(flow, speeds), "HEFT": heft(flow, speeds)}
    found = {f"{name}/plain": seconds / plain_s for name, seconds in made.items()}
    return found | {f"{name}/bound": seconds / best_s for name, seconds in made.items()}


def learned(flow: Flow, speeds: Sequence[float]) -> dict[str, float]:
    """The same where nobody says how long tasks take: the first time, and the second."""
    best_s = max(max(ranks(Graph(flow.parents), flow.seconds)) / max(speeds), sum(flow.seconds) / sum(speeds))
    cold_s, warm_s = product(flow, speeds, said=False, times=2)
    return {"cold/plain": cold_s / best_s, "warm/plain": warm_s / best_s}


# -- the product -----------------------------------------------------------------------------------------------------


def product(flow: Flow, speeds: Sequence[float], *, said: bool = True, times: int = 1) -> list[float]:
    """Makespans of a graph that is carried out so many times, in a house of its own."""
    with tempfile.TemporaryDirectory(prefix="phase21-graphs-") as folder:
        return carried_out(_product(flow, speeds, Path(folder), said=said, times=times))


async def _product(flow: Flow, speeds: Sequence[float], folder: Path, *, said: bool, times: int) -> list[float]:
    state = folder / "state"
    state.mkdir(mode=0o700)
    place = Place(state=state, outputs=folder / "outputs", queue=state / "queue.jsonl")
    settings = CurrentSettings(Settings(agents=AgentSettings(count=len(speeds))))
    async with House.opened(place, settings, clock=LoopClock(), inline=True) as house:
        if len(set(speeds)) > 1:
            await _settled(house, "teaching", teaching(speeds))
        return [await _settled(house, f"graph-{number}", tasks_of(flow, speeds, said=said)) for number in range(times)]


async def _settled(house: House, run_id: str, tasks: tuple[Task, ...]) -> float:
    """Seconds from a workflow's first start to its last end."""
    journal = house.journal
    workflow = Workflow(name="graph", max_tasks=len(tasks))
    journal.append(ev.SubmissionAccepted(submission_id=run_id, run_id=run_id, waves={1: tasks}, workflow=workflow))
    wave = journal.ledger.wave(run_id, 1)
    await journal.until(lambda: wave.calibrated)
    starts = [record.first_start_us for record in wave.tasks.values() if record.first_start_us is not None]
    ends = [record.end_us for record in wave.tasks.values() if record.end_us is not None]
    assert len(ends) == len(tasks)  # noqa: S101 - every one of them succeeds
    await journal.caught_up()
    return (max(ends) - min(starts)) / 1e6


def tasks_of(flow: Flow, speeds: Sequence[float], *, said: bool) -> tuple[Task, ...]:
    """The graph's tasks."""
    return tuple(
        Task(
            task_id=f"t{number}",
            step=step,
            payload=_payload(seconds, speeds),
            depends_on=tuple(f"t{parent}" for parent in parents),
            timeout_s=LONGEST_S,
            estimated_duration_s=seconds if said else UNSAID_S,
        )
        for number, (step, seconds, parents) in enumerate(zip(flow.steps, flow.seconds, flow.parents, strict=True))
    )


def teaching(speeds: Sequence[float]) -> tuple[Task, ...]:
    """Tasks that show how fast the agents are."""
    return tuple(
        Task(
            task_id=f"a{agent}-{number}",
            step="teaching",
            payload=_payload(1.0, speeds),
            agent_id=f"agent_{agent}",
            timeout_s=LONGEST_S,
        )
        for agent in range(len(speeds))
        for number in range(TEACHING_TASKS)
    )


def _payload(seconds: float, speeds: Sequence[float]) -> dict[str, Any]:
    agents_s = {f"agent_{agent}": seconds / speed for agent, speed in enumerate(speeds)}
    return {"duration_s": seconds, "success_rate": 1.0} | ({"agents_s": agents_s} if set(speeds) != {1.0} else {})


# -- beside ----------------------------------------------------------------------------------------------------------


def fifo(flow: Flow, speeds: Sequence[float]) -> float:
    """The makespan where an idle agent, the fastest first, takes what was submitted first of what is ready."""
    left = [len(parents) for parents in flow.parents]
    children = Graph(flow.parents).children
    ready = [task for task, count in enumerate(left) if not count]
    idle = sorted(range(len(speeds)), key=lambda agent: speeds[agent])
    busy: list[tuple[float, int, int]] = []
    now_s = 0.0
    while ready or busy:
        while ready and idle:
            task, agent = ready.pop(0), idle.pop()
            insort(busy, (now_s + flow.seconds[task] / speeds[agent], task, agent))
        now_s, task, agent = busy.pop(0)
        insort(idle, agent, key=lambda other: speeds[other])
        for child in children[task]:
            left[child] -= 1
            if not left[child]:
                insort(ready, child)
    return now_s


def heft(flow: Flow, speeds: Sequence[float]) -> float:
    """The makespan of heterogeneous earliest finish time, with insertion."""
    graph = Graph(flow.parents)
    found = ranks(graph, flow.seconds)
    first = {task: number for number, task in enumerate(graph.order)}
    slots: list[list[tuple[float, float]]] = [[] for _ in speeds]
    ends = [0.0] * len(found)
    for task in sorted(first, key=lambda one: (-found[one], first[one])):
        ready_s = max((ends[parent] for parent in flow.parents[task]), default=0.0)
        needed = [flow.seconds[task] / speed for speed in speeds]
        begins = [_gap(slots[agent], ready_s, needed[agent]) for agent in range(len(speeds))]
        agent = min(range(len(speeds)), key=lambda one: begins[one] + needed[one])
        ends[task] = begins[agent] + needed[agent]
        insort(slots[agent], (begins[agent], ends[task]))
    return max(ends)


def _gap(slots: Sequence[tuple[float, float]], ready_s: float, needed_s: float) -> float:
    """When an agent can first begin what needs so long."""
    free_s = ready_s
    for begin_s, end_s in slots:
        if free_s + needed_s <= begin_s:
            break
        free_s = max(free_s, end_s)
    return free_s
