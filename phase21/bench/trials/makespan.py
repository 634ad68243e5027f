"""How long waves take on real durations, dealt and re-planned by the product's own forecast and schedule, beside other ways.

Called by the evaluation of a folder of data through `measure`; expects `data/aslib/<scenario>` (see its README). A wave is
20 tasks in a random order; an agent works at one task at a time, an attempt lasts its runtime, or the cutoff where unsolved, and
ends its task. The learner sees what ran, after each wave. A figure is the sum of makespans over the second half of the waves,
divided by the sum of optima; `by_wave` is the mean of the waves' own ratios.

Optimum: the best makespan found with true seconds, by list scheduling, local search, and cases as far as `CASES_MOST`; `bound`
tells how far below it a proof goes.
Beside: `round robin` deals in turn, whatever a task lasts, and stays so; `stealing` lets an agent that is idle take the
next task; `true seconds` is the way of `ours` with durations known; `as served` is what the daemon does: dealt once, taken over, and an
agent begins what was submitted first.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from phase21.bench.trials import sets
from phase21.domain.evidence import OBSERVATIONS_KEPT, Evidence, observation
from phase21.domain.judgements import Calibration
from phase21.domain.records import AgentRecord
from phase21.domain.tasks import Task
from phase21.planning.forecast import Forecast
from phase21.planning.makespan import Outlook, schedule, takeover

WAVE = 20

Outlooks = list[list[Outlook]]
First = Callable[[Sequence[int], Sequence[Sequence[float]], int], int]
"""Which of its waiting tasks an agent begins with."""

Chooser = Callable[[list[int], dict[int, tuple[int, float]], float], dict[int, int]]
"""From waiting tasks, what is under way as {agent: (task, since)}, and now: which agent begins which task."""


class Scenario(msgspec.Struct, frozen=True):
    """Tasks with features, and for each the true seconds and success at each agent."""

    agents: list[str]
    tasks: list[Task]
    seconds: list[list[float]]
    solved: list[list[bool]]


class Sums(msgspec.Struct):
    """Makespans of one way, while they are being summed."""

    total_s: float = 0.0
    ratios: list[float] = []

    def add(self, makespan_s: float, optimum_s: float) -> None:
        """Take in one wave."""
        self.total_s += makespan_s
        self.ratios.append(makespan_s / max(optimum_s, SHORTEST_S))


SHORTEST_S = 1e-6
PROVEN = 1e-6
CASES_MOST = 4000
"""Cases looked at for one optimum; a wave that needs more keeps the best found, and its bound."""


def measure(data: Path, seeds: int) -> dict[str, Any]:
    """Figures by scenario, and their means under `mean`; empty where `data` has no scenario."""
    folders = sorted(file.parent for file in (data / "aslib").glob("*/runtimes.csv"))
    rows = {folder.name: scenario_row(read(folder), seeds) for folder in folders}
    if rows:
        names = next(iter(rows.values()))
        rows["mean"] = {name: sum(row[name] for row in list(rows.values())) / len(folders) for name in names}
    return rows


def read(folder: Path) -> Scenario:
    """A scenario of the folder's fixed fleet."""
    found = sets.scenario(folder)
    return Scenario(
        list(found.agents),
        [Task(task_id=task_id, features=features) for task_id, features in zip(found.tasks, found.features, strict=True)],
        [list(row) for row in found.seconds],
        [[pair[0] for pair in row] for row in found.success],
    )


def scenario_row(scenario: Scenario, seeds: int) -> dict[str, float]:
    """The figures of one scenario over some random orders."""
    sums = {
        name: Sums() for name in ("optimum", "bound", "round robin", "stealing", "true seconds", "ours", "taken over", "as served")
    }
    for seed in range(seeds):
        order = list(range(len(scenario.tasks)))
        random.Random(seed).shuffle(order)  # noqa: S311 - an order, the same each time
        _one_order(scenario, [order[start : start + WAVE] for start in range(0, len(order), WAVE)], sums)
    optimum_s = max(sums["optimum"].total_s, SHORTEST_S)
    row = {name: one.total_s / optimum_s for name, one in sums.items() if name != "optimum"}
    return {**row, "by_wave": sum(sums["ours"].ratios) / max(len(sums["ours"].ratios), 1)}


def _one_order(scenario: Scenario, waves: Sequence[Sequence[int]], sums: dict[str, Sums]) -> None:
    learner = Learner(scenario.agents)
    for number, wave in enumerate(waves):
        seconds = [scenario.seconds[task] for task in wave]
        tasks = [scenario.tasks[task] for task in wave]
        outlooks = learner.outlooks(tasks)
        makespan_s, seats = carried_out(seconds, replanned(outlooks))
        learner.learn(tasks, seats, [(scenario.solved[task], scenario.seconds[task]) for task in wave])
        if number >= len(waves) // 2:
            optimum_s, bound_s = optimum(seconds)
            sums["optimum"].add(optimum_s, optimum_s)
            sums["bound"].add(bound_s, optimum_s)
            sums["ours"].add(makespan_s, optimum_s)
            sums["round robin"].add(_in_turn(seconds), optimum_s)
            sums["stealing"].add(carried_out(seconds, _stealing(len(seconds[0])))[0], optimum_s)
            sums["taken over"].add(carried_out(seconds, taken_over(outlooks))[0], optimum_s)
            sums["as served"].add(carried_out(seconds, taken_over(outlooks, choose_first=_submitted))[0], optimum_s)
            known = [[Outlook(rate=1.0, seconds=needed, failing_s=needed) for needed in row] for row in seconds]
            sums["true seconds"].add(carried_out(seconds, replanned(known))[0], optimum_s)


def optimum(seconds: Sequence[Sequence[float]]) -> tuple[float, float]:
    """The best makespan found and the best bound; the same where a search by cases came to its end."""
    idle = [0.0] * len(seconds[0])
    found = schedule(seconds, idle, [1] * len(idle))
    if found.makespan_s <= found.bound_s * (1.0 + PROVEN):
        return found.makespan_s, found.makespan_s
    cases = Cases(seconds, found.makespan_s)
    return cases.best_s, cases.best_s if cases.left else found.bound_s


class Cases:
    """Branch and bound over who does which task, the longest first; what could not end sooner than the best known is left out."""

    def __init__(self, seconds: Sequence[Sequence[float]], best_s: float) -> None:
        self.best_s = best_s
        self.left = CASES_MOST
        self._rows = sorted(seconds, key=lambda row: -min(row))
        self._rest = [0.0]
        for row in reversed(self._rows):
            self._rest.append(self._rest[-1] + min(row))
        self._rest.reverse()
        self._go_on(0, [0.0] * len(seconds[0]))

    def _go_on(self, place: int, ends: list[float]) -> None:
        if place == len(self._rows):
            self.best_s = max(ends)
            return
        row = self._rows[place]
        for end, agent in sorted((end + needed, agent) for agent, (end, needed) in enumerate(zip(ends, row, strict=True))):
            hopeless = sum(ends) + row[agent] + self._rest[place + 1] >= self.best_s * len(ends)
            if not self.left or end >= self.best_s * (1.0 - PROVEN):
                return
            if not hopeless:
                self.left -= 1
                self._go_on(place + 1, [*ends[:agent], end, *ends[agent + 1 :]])


def carried_out(seconds: Sequence[Sequence[float]], choose: Chooser) -> tuple[float, list[int]]:
    """The makespan of a wave, and who did each task; asked again each time that an agent has become idle."""
    waiting, now_s = list(range(len(seconds))), 0.0
    working: dict[int, tuple[int, float]] = {}
    ends: list[tuple[float, int]] = []
    seats = [-1] * len(seconds)
    while True:
        if waiting:
            for agent, task in choose(waiting, working, now_s).items():
                waiting.remove(task)
                seats[task] = agent
                working[agent] = (task, now_s)
                heapq.heappush(ends, (now_s + seconds[task][agent], agent))
        if not ends:
            return now_s, seats
        now_s, agent = heapq.heappop(ends)
        del working[agent]


def replanned(outlooks: Outlooks) -> Chooser:
    """All that waits is dealt anew; an idle agent begins what it has that others would be slowest at."""
    expected = [[outlook.expected_s for outlook in row] for row in outlooks]
    agents = range(len(expected[0]))

    def choose(waiting: list[int], working: dict[int, tuple[int, float]], now_s: float) -> dict[int, int]:
        ready = _ready(outlooks, working, now_s)
        seats = schedule([expected[task] for task in waiting], ready, [1 for _ in agents], guessed=True).seats
        begun: dict[int, int] = {}
        for agent in agents:
            own = [task for task, seat in zip(waiting, seats, strict=True) if seat == agent]
            if own and agent not in working:
                begun[agent] = first(own, expected, agent)
        return begun

    return choose


def taken_over(outlooks: Outlooks, choose_first: First | None = None) -> Chooser:
    """Dealt once; an agent with nothing left takes what `takeover` says. Of what it has it begins what `choose_first` says."""
    begin_with = choose_first or first
    expected = [[outlook.expected_s for outlook in row] for row in outlooks]
    agents = range(len(expected[0]))
    lanes = [1 for _ in agents]
    seats = schedule(expected, [0.0 for _ in agents], lanes, guessed=True).seats

    def choose(waiting: list[int], working: dict[int, tuple[int, float]], now_s: float) -> dict[int, int]:
        begun: dict[int, int] = {}
        for agent in agents:
            left = [task for task in waiting if task not in begun.values()]
            own = [task for task in left if seats[task] == agent]
            if agent not in working and not own and left:
                ready = _ready(outlooks, working, now_s)
                place = takeover(agent, [expected[task] for task in left], [seats[task] or 0 for task in left], ready, lanes)
                own = [] if place is None else [left[place]]
            if agent not in working and own:
                begun[agent] = begin_with(own, expected, agent)
        return begun

    return choose


def first(own: Sequence[int], expected: Sequence[Sequence[float]], agent: int) -> int:
    """Of what an agent has, the task that it does in the smallest part of what all agents together would need."""
    return min(own, key=lambda task: expected[task][agent] / (sum(expected[task]) or 1.0))


def _submitted(own: Sequence[int], expected: Sequence[Sequence[float]], agent: int) -> int:
    """What was submitted first, as the daemon has it where priorities are equal."""
    del expected, agent
    return own[0]


def _ready(outlooks: Outlooks, working: dict[int, tuple[int, float]], now_s: float) -> list[float]:
    ready = [0.0 for _ in outlooks[0]]
    for agent, (task, since_s) in working.items():
        ready[agent] = outlooks[task][agent].remaining_s(now_s - since_s)
    return ready


def _stealing(agents: int) -> Chooser:
    def choose(waiting: list[int], working: dict[int, tuple[int, float]], _: float) -> dict[int, int]:
        idle = [agent for agent in range(agents) if agent not in working]
        return dict(zip(idle, waiting, strict=False))

    return choose


def _in_turn(seconds: Sequence[Sequence[float]]) -> float:
    ends = [0.0] * len(seconds[0])
    for place, row in enumerate(seconds):
        ends[place % len(ends)] += row[place % len(ends)]
    return max(ends)


class Learner:
    """What is known after some waves, as the ledger has it, and what is expected of a wave by it."""

    def __init__(self, agents: Sequence[str]) -> None:
        self._agents = [AgentRecord(agent_id=agent_id, order=place) for place, agent_id in enumerate(agents)]
        self._evidence = Evidence()
        self._forecast = Forecast(self._agents, enabled=True)

    def outlooks(self, tasks: Sequence[Task]) -> Outlooks:
        """What is expected of each task at each agent."""
        self._forecast = Forecast(self._agents, enabled=True, evidence=self._evidence)
        self._forecast.prepare(tasks)
        return [[self._forecast.outlook(task, agent.agent_id) for agent in self._agents] for task in tasks]

    def learn(self, tasks: Sequence[Task], seats: Sequence[int], rows: Sequence[tuple[Sequence[bool], Sequence[float]]]) -> None:
        """Take in what a wave showed of those who ran; `rows` are success and seconds at each agent."""
        for task, seat, (solved, seconds) in zip(tasks, seats, rows, strict=True):
            agent, success = self._agents[seat], solved[seat]
            score = self._forecast.score(task, agent.agent_id)
            if score is not None:
                self._evidence.calibrator.learn(score, success=success)
            seen = observation(task, agent.agent_id, success=success, duration_s=seconds[seat])
            self._evidence.observations.append(seen)
            agent.calibration += Calibration(1, int(success), seen.raw, 1, seen.stretch or 0.0)
            agent.kinds = {"": agent.calibration}
        del self._evidence.observations[:-OBSERVATIONS_KEPT]
