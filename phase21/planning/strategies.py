"""How a wave's tasks are dealt out one after the other, and the board that every strategy deals on.

Called by the planner with tasks that are not pinned. A strategy is a deterministic function: the same tasks on the same
board give the same seats. None of them scans the fleet for a task that has no predictions per agent.
"""

from __future__ import annotations

import heapq
import random
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from math import ceil
from operator import attrgetter
from statistics import fmean
from typing import TypeVar

import msgspec

from phase21.domain.judgements import TOLERANCE
from phase21.domain.records import AgentRecord
from phase21.domain.tasks import Task
from phase21.planning.forecast import Forecast

Lane = TypeVar("Lane")

KIND_MARK = "kind "
"""Before a kind among the things that a task asks of its agent; no capability holds a space."""

CROWDING = 0.1
"""What each task that an agent already has takes off its predicted success."""

SHARE_TOLERANCE = 1e-9
"""An even share this close above a whole number is that number."""

INSTANT_S = 1e-9
"""What a task estimated at no time at all counts for, so that a wave of such tasks does not pile up on one agent."""


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of a plan beside its strategy.

    `slack` is how many times an even share of the wave an agent may hold, `max_attempts` how often a task is tried that does
    not say so itself, `exploration` the share of choices that may be spent on learning, `seed` what chance is drawn from.
    """

    slack: float = 2.0
    max_attempts: int = 1
    exploration: float = 0.0
    seed: str = ""


class Board:
    """The agents of a wave by index, in their order: what each holds, and who may be given what.

    An agent on probation has room for one task, a task that it already holds included; OFFLINE agents are in no pool.
    """

    def __init__(
        self,
        agents: Sequence[AgentRecord],
        forecast: Forecast,
        loads: Mapping[str, tuple[int, float]],
        terms: Terms | None = None,
    ) -> None:
        self.agents = agents
        self.forecast = forecast
        self.terms = terms or Terms()
        self.dice = random.Random(self.terms.seed)  # noqa: S311 - chance that can be told again, not a secret
        self.index = {agent.agent_id: index for index, agent in enumerate(agents)}
        held = [loads.get(agent.agent_id, (0, 0.0)) for agent in agents]
        self.before = [count for count, _ in held]
        self.counts = list(self.before)
        self.seconds = [seconds for _, seconds in held]
        self.room = [
            int(not (count or agent.busy)) if agent.probation else sys.maxsize
            for agent, count in zip(agents, self.counts, strict=True)
        ]
        self._pools: dict[frozenset[str], tuple[int, ...]] = {}
        self._offering: dict[str, list[int]] = {}
        for index, agent in enumerate(agents):
            for capability in dict.fromkeys(agent.capabilities):
                self._offering.setdefault(capability, []).append(index)
        self._asked_kinds = frozenset(kind for agent in agents for kind in agent.only_kinds)
        for kind in (*self._asked_kinds, "") if self._asked_kinds else ():
            takers = [index for index, agent in enumerate(agents) if not agent.only_kinds or kind in agent.only_kinds]
            self._offering[KIND_MARK + kind] = takers
        self.wants: Callable[[Task], tuple[str, ...]] = self._wants if self._asked_kinds else attrgetter("capabilities")

    def _wants(self, task: Task) -> tuple[str, ...]:
        """What a task asks of its agent: its capabilities, and that it takes tasks of this kind."""
        return (*task.capabilities, KIND_MARK + (task.kind if task.kind in self._asked_kinds else ""))

    def able(self, capabilities: Sequence[str]) -> tuple[int, ...]:
        """Everyone who offers these capabilities, OFFLINE or not."""
        wanted = frozenset(capabilities)
        pool = self._pools.get(wanted)
        if pool is None:
            pool = self._pools[wanted] = self._search(wanted)
        return pool

    def _search(self, wanted: frozenset[str]) -> tuple[int, ...]:
        if not wanted:
            return tuple(range(len(self.agents)))
        rarest, *others = sorted((self._offering.get(capability, []) for capability in wanted), key=len)
        return tuple(sorted(set(rarest).intersection(*others)))

    def pool(self, capabilities: Sequence[str]) -> tuple[int, ...]:
        """Those of them who are not OFFLINE."""
        return tuple(index for index in self.able(capabilities) if not self.agents[index].offline)

    def give(self, index: int, task: Task) -> int:
        """Seat the task; the agent's index again."""
        self.counts[index] += 1
        self.seconds[index] += task.estimated_duration_s or INSTANT_S
        self.room[index] -= 1
        return index

    def take_back(self, index: int, task: Task) -> None:
        """Unseat a task that this agent was given."""
        self.counts[index] -= 1
        self.seconds[index] -= task.estimated_duration_s or INSTANT_S
        self.room[index] += 1

    def attempts_allowed(self, task: Task) -> int:
        """How often the task is tried in all."""
        return task.max_attempts or self.terms.max_attempts

    def limits(self, tasks: int) -> list[int]:
        """How many of so many tasks each agent may hold: its own limit, else `slack` times an even share."""
        available = sum(not agent.offline for agent in self.agents)
        share = ceil(self.terms.slack * tasks / available - SHARE_TOLERANCE) if available else 0
        return [share if agent.max_tasks is None else agent.max_tasks for agent in self.agents]

    def capacities(self, tasks: int) -> list[int]:
        """How many of so many tasks each agent may be given: its limit, less what it holds."""
        return [max(0, limit - count) for limit, count in zip(self.limits(tasks), self.counts, strict=True)]

    def even(self, tasks: int) -> list[int]:
        """How many of so many tasks each agent is given where loads are to be as even as they can be."""
        open_to = [index for index, agent in enumerate(self.agents) if not agent.offline and self.room[index]]
        total = tasks + sum(self.counts[index] for index in open_to)
        level = -(-total // len(open_to)) if open_to else 0
        return [max(0, level - count) for count in self.counts]

    def worth(self, task: Task, index: int) -> tuple[float, int]:
        """What `confidence_based` compares: predicted success less `CROWDING` per task held; ties by agent order."""
        predicted = self.forecast.predicted(task, self.agents[index].agent_id)
        return round(predicted - CROWDING * self.counts[index], 9), -index


class PerPool(dict[tuple[str, ...], Lane]):
    """What a strategy keeps for each pool, by the capabilities that tasks ask for; equal pools share it."""

    def __init__(self, board: Board, make: Callable[[tuple[int, ...]], Lane]) -> None:
        super().__init__()
        self._board = board
        self._make = make
        self._by_members: dict[tuple[int, ...], Lane] = {}

    def __missing__(self, capabilities: tuple[str, ...]) -> Lane:
        members = self._board.pool(capabilities)
        if members not in self._by_members:
            self._by_members[members] = self._make(members)
        lane = self[capabilities] = self._by_members[members]
        return lane


Seats = list[int | None]
Strategy = Callable[[Sequence[Task], Board], Seats]
"""Deals tasks out on a board: the agent's index for each task, in the order given; None where nobody has room now."""


def round_robin(tasks: Sequence[Task], board: Board) -> Seats:
    """In turn, from the first agent; each pool takes its own turns."""
    turns: PerPool[deque[int]] = PerPool(board, deque)
    room = board.room
    seats: Seats = []
    for task in tasks:
        turn = turns[board.wants(task)]
        while turn and not room[turn[0]]:
            turn.popleft()
        seats.append(board.give(turn[0], task) if turn else None)
        turn.rotate(-1)
    return seats


def load_balanced(tasks: Sequence[Task], board: Board) -> Seats:
    """Each to the agent with the least estimated work in the wave."""
    return _to_the_lightest(tasks, board, board.seconds, range(len(board.agents)))


def priority_based(tasks: Sequence[Task], board: Board) -> Seats:
    """The most urgent first, each to the agent with the best record among those with the fewest tasks."""
    by_record = sorted(range(len(board.agents)), key=lambda index: -board.agents[index].record)
    ranks = [0] * len(by_record)
    for rank, index in enumerate(by_record):
        ranks[index] = rank
    return _in_order(tasks, [task.priority for task in tasks], lambda dealt: _to_the_lightest(dealt, board, board.counts, ranks))


def confidence_based(tasks: Sequence[Task], board: Board) -> Seats:
    """The hardest first, each to the agent with the highest predicted success less `CROWDING` per task that it has.

    The hardest is the task with the lowest mean, over those who could do it, of what came in.
    """
    ladders: PerPool[_Ladders] = PerPool(board, lambda members: _Ladders(board, members))
    return _in_order(
        tasks,
        [ladders[board.wants(task)].mean(task) if task.predictions else task.predicted_success_rate for task in tasks],
        lambda dealt: [ladders[board.wants(task)].seat(task) for task in dealt],
    )


def _in_order(tasks: Sequence[Task], keys: Sequence[float], deal: Callable[[Sequence[Task]], Seats]) -> Seats:
    """Deal the tasks out by ascending key (ties as they came), and answer in the order in which they came."""
    order = sorted(range(len(tasks)), key=keys.__getitem__)
    seats: Seats = [None] * len(tasks)
    for position, seat in zip(order, deal([tasks[position] for position in order]), strict=True):
        seats[position] = seat
    return seats


def _to_the_lightest(tasks: Sequence[Task], board: Board, held: Sequence[float], ranks: Sequence[int]) -> Seats:
    """Each to the member of its pool that holds the least; ties by rank.

    Heaps are lazy: what an agent holds only grows, so an entry that is out of date is too low, and is put right when it
    comes up.
    """

    def heap_of(members: tuple[int, ...]) -> list[tuple[float, int, int]]:
        return sorted((held[index], ranks[index], index) for index in members)

    heaps: PerPool[list[tuple[float, int, int]]] = PerPool(board, heap_of)
    seats: Seats = []
    for task in tasks:
        index = _lightest(heaps[board.wants(task)], held, board.room)
        seats.append(None if index is None else board.give(index, task))
    return seats


def _lightest(heap: list[tuple[float, int, int]], held: Sequence[float], room: Sequence[int]) -> int | None:
    while heap:
        amount, rank, index = heap[0]
        if not room[index]:
            heapq.heappop(heap)
        elif amount != held[index]:
            heapq.heapreplace(heap, (held[index], rank, index))
        else:
            return index
    return None


class _Ladder:
    """Agents by the number of tasks that they hold; on each step the one with the highest factor stands first.

    What comes in is corrected by one factor an agent, and a higher factor gives a higher prediction whatever comes in.
    So the best agent for a task without predictions of its own is the first of one of the lowest steps: the likeliest of all
    would be worth less on a higher one.
    """

    def __init__(self, board: Board, members: Sequence[int], kind: str) -> None:
        self._board = board
        self._steps: dict[int, list[tuple[float, int]]] = {}
        entries = [(-board.forecast.factor(board.agents[index].agent_id, kind), index) for index in members]
        for entry in entries:
            self._stand(entry)
        self._lowest = 0
        self._uniform = len({factor for factor, _ in entries}) == 1
        self._likeliest = min(entries)[1]

    def best(self, task: Task) -> tuple[float, int] | None:
        """The worth of the best agent for a task without predictions of its own; None where nobody has room."""
        board = self._board
        first = self._first()
        if first is None:
            return None
        best = board.worth(task, first)
        if self._uniform:
            return best
        ceiling = board.forecast.predicted(task, board.agents[self._likeliest].agent_id)
        held = self._lowest + 1
        while ceiling - CROWDING * held >= best[0] - TOLERANCE:
            top = self._top(held)
            if top is not None:
                best = max(best, board.worth(task, top))
            held += 1
        return best

    def _stand(self, entry: tuple[float, int]) -> None:
        heapq.heappush(self._steps.setdefault(self._board.counts[entry[1]], []), entry)

    def _first(self) -> int | None:
        """The first of the lowest step on which anybody stands."""
        while self._steps:
            if self._lowest not in self._steps:
                self._lowest = min(self._steps)
            top = self._top(self._lowest)
            if top is not None:
                return top
        return None

    def _top(self, held: int) -> int | None:
        """The first of one step, once those who have climbed since stand where they belong."""
        step = self._steps.get(held)
        if step is None:
            return None
        counts, room = self._board.counts, self._board.room
        while step:
            index = step[0][1]
            if room[index] and counts[index] == held:
                return index
            entry = heapq.heappop(step)
            if room[index]:
                self._stand(entry)
        del self._steps[held]
        return None


class _Ladders:
    """A pool's agents for `confidence_based`: those whose predictions are corrected, and those taken at their word.

    They are kept apart because a prediction of 0 or 1 stays what it is for the second and is brought in for the first.
    """

    def __init__(self, board: Board, members: tuple[int, ...]) -> None:
        self._board = board
        self._members = members
        self._by_kind: dict[str, list[_Ladder]] = {}

    def mean(self, task: Task) -> float:
        """The mean over the pool of what came in for a task."""
        agents = self._board.agents
        rates = [task.raw_prediction(agents[index].agent_id) for index in self._members]
        return fmean(rates) if rates else task.predicted_success_rate

    def seat(self, task: Task) -> int | None:
        """Give the task to the best agent with room."""
        board = self._board
        worths: list[tuple[float, int] | None]
        if task.predictions or board.forecast.modelled(task):
            worths = [board.worth(task, index) for index in self._members if board.room[index]]
        else:
            worths = [ladder.best(task) for ladder in self._of_kind(task.kind)]
        best = max(filter(None, worths), default=None)
        return None if best is None else board.give(-best[1], task)

    def _of_kind(self, kind: str) -> list[_Ladder]:
        ladders = self._by_kind.get(kind)
        if ladders is None:
            factor, agents = self._board.forecast.factor, self._board.agents
            plain = [index for index in self._members if factor(agents[index].agent_id, kind) == 1.0]
            corrected = sorted(set(self._members).difference(plain))
            ladders = self._by_kind[kind] = [_Ladder(self._board, part, kind) for part in (plain, corrected) if part]
        return ladders
