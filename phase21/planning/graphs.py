"""Tasks that wait for each other: which is the most critical, and in which order they would all be done soonest.

Called by the manager for a workflow's wave. Tasks are numbers, seconds come in, orders go out: it knows neither agents nor
records, reads no clock, and rolls no dice but its own.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from heapq import heapify, heappop, heappush, heappushpop
from typing import NamedTuple

VISITS_MOST = 16_000
"""How many tasks may be looked at, all schedules together, in search of a better order."""

PASSES = 2
SHAKEN = 0.2
"""Forward and backward passes from each start, and by which share ranks are changed at random for a further one."""

PATIENCE = 12
"""Starts without a gain after which no more are tried."""

NEAR = 1e-4
"""An order this near to the bound is good enough."""

LOOKED_AT = 64
"""So many tasks at most are kept waiting for a faster agent before nothing more is begun for now."""

LOOKS_MOST = 200_000
"""How many tasks may be looked at, all thresholds of what lies behind them together, for a better bound."""

Lists = Sequence[Sequence[int]]


class Graph:
    """What waits for what; `children` are made of `parents` where they are not given. ValueError for a cycle."""

    __slots__ = ("children", "order", "parents")

    def __init__(self, parents: Lists, children: Lists | None = None) -> None:
        self.parents = parents
        self.children = _children(parents) if children is None else children
        in_order = all(not needed or max(needed) < task for task, needed in enumerate(parents))
        self.order: Sequence[int] = range(len(parents)) if in_order else _topological(parents, self.children)
        if len(self.order) < len(parents):
            raise ValueError("tasks wait for each other in a circle")

    def reversed(self) -> Graph:
        """The same, seen from the end."""
        other = Graph.__new__(Graph)
        other.parents, other.children, other.order = self.children, self.parents, self.order[::-1]
        return other


def _children(parents: Lists) -> Lists:
    children: list[list[int]] = [[] for _ in parents]
    for task, needed in enumerate(parents):
        for other in needed:
            children[other].append(task)
    return children


def _topological(parents: Lists, children: Lists) -> list[int]:
    left = [len(needed) for needed in parents]
    order = [task for task, count in enumerate(left) if not count]
    for task in _released(children, left, order):
        order.append(task)  # noqa: PERF402 - what is added here is read on the way
    return order


def _released(children: Lists, left: list[int], ended: Iterable[int]) -> Iterator[int]:
    """Tasks that wait for nothing more once others have ended; `left` counts what each still waits for."""
    for task in ended:
        for child in children[task]:
            left[child] -= 1
            if not left[child]:
                yield child


def ranks(graph: Graph, seconds: Sequence[float]) -> list[float]:
    """Upward ranks: the seconds of the longest path from each task's begin to the end (Topcuoglu, Hariri, Wu, 2002). O(V + E)."""
    found = [0.0] * len(seconds)
    children = graph.children
    for task in reversed(graph.order):
        longest = 0.0
        for child in children[task]:
            if found[child] > longest:  # noqa: PLR1730 - `max` takes three times as long, on the path of every dependency
                longest = found[child]
        found[task] = seconds[task] + longest
    return found


def bound_s(graph: Graph, seconds: Sequence[float], paces: Sequence[float], looks: int = LOOKS_MOST) -> float:
    """Seconds before which no schedule ends; `paces` are what each lane multiplies seconds by, `looks` bounds what this costs.

    The longest path on the fastest lane, all work shared out, and, for tasks with so much before and so much behind them, that
    and their own work shared out (the bound of Carlier and Pinson for parallel machines, with heads and tails), or that and the
    two shortest of the longest lanes + 1 of them, since two must share a lane.
    """
    fastest, speed = min(paces), sum(1.0 / pace for pace in paces)
    behind = [rank - own for rank, own in zip(ranks(graph, seconds), seconds, strict=True)]
    before = [rank - own for rank, own in zip(ranks(graph.reversed(), seconds), seconds, strict=True)]
    longest = max((head + own + tail for head, own, tail in zip(before, seconds, behind, strict=True)), default=0.0)
    best = max(longest * fastest, sum(seconds) / speed)
    late_first = sorted(range(len(seconds)), key=before.__getitem__, reverse=True)
    tails = sorted(set(behind))
    for tail in tails[:: 1 + len(tails) * len(seconds) // looks]:
        work, longest_own = 0.0, [0.0] * (len(paces) + 1)
        for task in late_first:
            if behind[task] >= tail:
                work += seconds[task]
                heappushpop(longest_own, seconds[task])
                shared = longest_own[0] + min(longest_own[1:3])
                best = max(best, (before[task] + tail) * fastest + max(work / speed, shared * fastest))
    return best


class Listed(NamedTuple):
    """A schedule: when all is done, and when each task is."""

    makespan_s: float
    ends: list[float]


def listed(graph: Graph, seconds: Sequence[float], paces: Sequence[float], keys: Sequence[float]) -> Listed:
    """The schedule in which the ready task of the lowest key goes to the lane where it ends soonest, waiting for that if it is busy.

    On lanes that are alike this is list scheduling (Graham, 1969): at most 2 - 1/P times the optimum, whatever the keys.
    """
    left = [len(needed) for needed in graph.parents]
    ready = [(keys[task], task) for task, count in enumerate(left) if not count]
    heapify(ready)
    floor = _Floor(paces)
    ends = [0.0] * len(seconds)
    while ready or floor.busy:
        floor.begin(ready, seconds, ends)
        for task in _released(graph.children, left, floor.end()):
            heappush(ready, (keys[task], task))
    return Listed(floor.now_s, ends)


class _Floor:
    """Lanes, the fastest first, and what runs on them."""

    def __init__(self, paces: Sequence[float]) -> None:
        self.now_s = 0.0
        self.busy: list[tuple[float, int, int]] = []
        self._paces = sorted(paces)
        self._even = self._paces[0] == self._paces[-1]
        self._idle = list(range(len(paces)))
        self._free_s = [0.0] * len(paces)

    def begin(self, ready: list[tuple[float, int]], seconds: Sequence[float], ends: list[float]) -> None:
        """Begin all that is to begin now."""
        waits: list[tuple[float, int]] = []
        expected = [max(free_s, self.now_s) for free_s in self._free_s] if not self._even else self._free_s
        while ready and self._idle and len(waits) < LOOKED_AT:
            key, task = heappop(ready)
            lane = self._idle[-1] if self._even else soonest(expected, [pace * seconds[task] for pace in self._paces])
            needed = seconds[task] * self._paces[lane]
            if lane not in self._idle:
                expected[lane] += needed
                waits.append((key, task))
                continue
            self._idle.remove(lane)
            ends[task] = self._free_s[lane] = expected[lane] = self.now_s + needed
            heappush(self.busy, (ends[task], task, lane))
        for entry in waits:
            heappush(ready, entry)

    def end(self) -> list[int]:
        """Go on to the next end; the tasks that end then."""
        ended: list[int] = []
        self.now_s = self.busy[0][0]
        while self.busy and self.busy[0][0] <= self.now_s:
            _, task, lane = heappop(self.busy)
            self._idle.append(lane)
            ended.append(task)
        return ended


def soonest(free_s: Sequence[float], needed_s: Sequence[float]) -> int:
    """Where what needs so long on each lane ends soonest; the first of those that are alike."""
    best, best_s = 0, free_s[0] + needed_s[0]
    for lane in range(1, len(free_s)):
        end_s = free_s[lane] + needed_s[lane]
        if end_s < best_s:
            best, best_s = lane, end_s
    return best


def seated_s(graph: Graph, seconds: Sequence[float], seats: Sequence[int], lanes: Sequence[int], keys: Sequence[float]) -> float:
    """Seconds until all is done where each task has its agent, which begins the ready one of the lowest key as a lane is free.

    `seats` are the tasks' agents by number, `lanes` how many tasks each agent does at a time, at least one.
    """
    left = [len(needed) for needed in graph.parents]
    lines: list[list[tuple[float, int]]] = [[] for _ in lanes]
    free, busy, now_s = list(lanes), list[tuple[float, int]](), 0.0
    ready = [task for task, count in enumerate(left) if not count]
    ended: list[int] = []
    while True:
        for task in ready:
            heappush(lines[seats[task]], (keys[task], task))
        for seat in {seats[task] for task in (*ready, *ended)}:
            while free[seat] and lines[seat]:
                free[seat] -= 1
                task = heappop(lines[seat])[1]
                heappush(busy, (now_s + seconds[task], task))
        if not busy:
            return now_s
        now_s, ended = busy[0][0], []
        while busy and busy[0][0] <= now_s:
            ended.append(heappop(busy)[1])
            free[seats[ended[-1]]] += 1
        ready = list(_released(graph.children, left, ended))


class Ordered(NamedTuple):
    """An order of tasks, the lowest key first, and when all is expected to be done in it."""

    keys: list[float]
    makespan_s: float


def order(graph: Graph, seconds: Sequence[float], paces: Sequence[float], visits: int = VISITS_MOST) -> Ordered:
    """The best order found: by upward rank, then made better by schedules from the end and from the beginning in turns.

    Forward-backward improvement (Li and Willis, 1992; Valls, Ballestin, Quintanilla, 2005), from the ranks and from ranks
    changed at random, until `visits` are used up, the bound is reached, or nothing has been gained for long. Where the graph is
    too large for that, the ranks are the order and the bound stands for the makespan.
    """
    keys = [-rank for rank in ranks(graph, seconds)]
    least_s = bound_s(graph, seconds, paces) if seconds else 0.0
    if len(seconds) * (1 + 2 * PASSES) > visits:
        return Ordered(keys, least_s)
    search = _Search(graph, seconds, paces, least_s, visits)
    search.improve(keys)
    dice = random.Random(len(seconds))  # noqa: S311 - the same order each time
    while search.goes_on():
        search.improve([key * dice.uniform(1.0 - SHAKEN, 1.0 + SHAKEN) for key in keys])
    return search.best


class _Search:
    """The best order so far, and what may still be spent on a better one."""

    def __init__(self, graph: Graph, seconds: Sequence[float], paces: Sequence[float], least_s: float, visits: int) -> None:
        self.best = Ordered([], float("inf"))
        self._graph, self._back = graph, graph.reversed()
        self._seconds, self._paces = seconds, paces
        self._enough_s = least_s * (1.0 + NEAR)
        self._visits = visits
        self._idle_starts = 0

    def goes_on(self) -> bool:
        """Whether another start may be worth it."""
        affordable = self._visits >= len(self._seconds) * (1 + 2 * PASSES)
        return affordable and self._idle_starts < PATIENCE and self.best.makespan_s > self._enough_s

    def improve(self, keys: list[float]) -> None:
        """Make an order better by passes from the end and from the beginning."""
        before_s = self.best.makespan_s
        ends = self._try(keys)
        for _ in range(PASSES):
            if self.best.makespan_s <= self._enough_s:
                break
            from_end = listed(self._back, self._seconds, self._paces, [-end for end in ends])
            self._visits -= len(ends)
            ends = self._try([-end for end in from_end.ends])
        self._idle_starts = 0 if self.best.makespan_s < before_s else self._idle_starts + 1

    def _try(self, keys: list[float]) -> list[float]:
        made = listed(self._graph, self._seconds, self._paces, keys)
        self._visits -= len(keys)
        if made.makespan_s < self.best.makespan_s:
            self.best = Ordered(keys, made.makespan_s)
        return made.ends
