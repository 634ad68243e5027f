"""Markets in which lanes of agents take prices until every task stands where it is worth most and no lane is too full.

Called by `assignment` with rows of values and the room of each lane. Two of them, with the same steps: one over lists, which
needs nothing, and one over numpy's arrays, which pays for itself from some thousand pairs. Neither rolls dice nor reads a clock.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from itertools import pairwise, repeat
from math import fsum, inf
from operator import sub
from typing import Any

FORBIDDEN = -inf
"""The value of a pair that may not be."""

IDLE = -1
"""Stands for an unused seat where a task's index is asked: worth nothing at any agent, and in every way a task otherwise."""


EFFORT = 200_000_000
"""Pairs of lanes looked at, before a market of very many lanes is content with rough moves: some seconds over lists."""

LIGHTER = 8
"""Tasks that weigh as much as a pair of lanes, in the effort of one step."""


class Market(ABC):
    """Lanes with rooms and prices; every task stands in a lane where its value less the price is highest.

    Seats that nobody needs are dealt like tasks of value 0 (`idle`, in the first `agents` lanes only), so that at the end every
    lane is exactly full and prices need no sign. `over[a]` is how many stand in lane a above its room; `gain[a][b]` is the most
    that one of lane a adds to the sum by going to b. Throughout gain[a][b] <= prices[b] - prices[a].
    """

    gain: Any
    prices: Any

    def __init__(self, rows: Any, rooms: Sequence[int], agents: int) -> None:
        self.rows = rows
        self.rooms = rooms
        self.agents = agents
        self.spare = max(0, sum(rooms) - len(rows))
        self.idle = [0] * len(rooms)
        self.over = [0] * len(rooms)

    @property
    def crowd(self) -> int:
        """How many stand where there is no room."""
        return sum(max(0, surplus) for surplus in self.over)

    def clear(self) -> None:
        """Move one after another from crowded lanes to lanes with room, each time by the cheapest way, while there is one.

        Once the effort is spent the best direct move will do instead, where there is one: rough, and the dual says how rough.
        """
        steps = EFFORT // (len(self.rooms) ** 2 + len(self.rows) // LIGHTER)
        while (path := (self._direct() if steps < 0 else None) or self._cheapest()) is not None:
            self._push(path)
            steps -= len(path)

    def _direct(self) -> list[int] | None:
        free = [lane for lane, surplus in enumerate(self.over) if surplus < 0]
        for lane, surplus in enumerate(self.over):
            if free and surplus > 0:
                to = max(free, key=self.gain[lane].__getitem__)
                if self.gain[lane][to] > FORBIDDEN:
                    return [lane, to]
        return None

    def _fill(self, counts: Iterable[int], prices: Sequence[float]) -> None:
        """Count who stands where; seats that nobody needs begin in the cheapest lanes, what has no room there in the first."""
        self.over = [count - room for count, room in zip(counts, self.rooms, strict=True)]
        low, left = min(prices[: self.agents]), self.spare
        cheapest = [lane for lane in range(self.agents) if prices[lane] == low]
        for lane in cheapest:
            self.idle[lane] = min(left, max(0, -self.over[lane]))
            left -= self.idle[lane]
        self.idle[cheapest[0]] += left
        self.over = [surplus + idle for surplus, idle in zip(self.over, self.idle, strict=True)]

    def _push(self, path: Sequence[int]) -> None:
        """Along the path, from each lane to the next, as many as are equally glad to go."""
        going = [(lane, to, self._willing(lane, to)) for lane, to in pairwise(path)]
        count = min(self.over[path[0]], -self.over[path[-1]])
        count = min(count, *(self.idle[lane] if tasks is None else len(tasks) for lane, _, tasks in going))
        for lane, to, tasks in going:
            if tasks is None:
                self._move_idle(lane, to, count)
            else:
                self._move(lane, to, tasks[len(tasks) - count :])
        self.over[path[0]] -= count
        self.over[path[-1]] += count

    def _willing(self, lane: int, to: int) -> list[int] | None:
        """The tasks of the lane that add the most by going, in order; None where unused seats add as much."""
        if self.idle[lane] and to < self.agents and self.gain[lane][to] == 0.0:
            return None
        return self._eager(lane, to)

    def _move_idle(self, lane: int, to: int, count: int) -> None:
        self.idle[lane] -= count
        self.idle[to] += count
        self._recount(lane, {IDLE})
        self._welcome(to, [IDLE])

    def _nothing(self, lane: int) -> list[float]:
        """What an unused seat of the lane adds elsewhere."""
        common = [0.0 if self.idle[lane] else FORBIDDEN] * self.agents
        return common + [FORBIDDEN] * (len(self.rooms) - self.agents)

    @abstractmethod
    def seats(self) -> list[int]:
        """The lane of each task."""

    @abstractmethod
    def dual(self) -> float:
        """A sum that no dealing exceeds, by weak duality: true for any prices, and tight at the right ones."""

    @abstractmethod
    def _cheapest(self) -> list[int] | None:
        """The shortest way from a crowded lane to one with room; prices follow, so that the way costs nothing more."""

    @abstractmethod
    def _eager(self, lane: int, to: int) -> list[int]:
        """The tasks of the lane that add exactly gain[lane][to]."""

    @abstractmethod
    def _move(self, lane: int, to: int, tasks: list[int]) -> None: ...

    @abstractmethod
    def _welcome(self, lane: int, items: list[int]) -> None:
        """Let those who have come to the lane say what they add elsewhere."""

    @abstractmethod
    def _recount(self, lane: int, gone: set[int]) -> None:
        """What the lane's members add elsewhere, now that some have gone."""


class ListMarket(Market):
    """Over lists of floats. `who[a][b]` is one who adds gain[a][b], so that few moves make a lane count anew."""

    def __init__(self, rows: Sequence[Sequence[float]], rooms: Sequence[int], prices: Sequence[float], agents: int) -> None:
        super().__init__(rows, rooms, agents)
        self.prices: list[float] = list(prices)
        self.members: list[dict[int, None]] = [{} for _ in rooms]
        for task, row in enumerate(rows):
            nets = list(map(sub, row, self.prices))
            self.members[nets.index(max(nets))][task] = None
        self._fill(map(len, self.members), self.prices)
        self.gain: list[list[float]] = [self._nothing(lane) for lane in range(len(rooms))]
        self.who = [[IDLE] * len(rooms) for _ in rooms]
        for lane in range(len(rooms)):
            self._survey(lane)

    def _survey(self, lane: int) -> None:
        tasks, rows, gain = list(self.members[lane]), self.rows, self.gain[lane]
        columns = zip(*[map(sub, rows[task], repeat(rows[task][lane])) for task in tasks], strict=True)
        for other, column in enumerate(columns):
            best = max(column)
            if best > gain[other]:
                gain[other], self.who[lane][other] = best, tasks[column.index(best)]

    def seats(self) -> list[int]:
        """The lane of each task."""
        lanes = [0] * len(self.rows)
        for lane, tasks in enumerate(self.members):
            for task in tasks:
                lanes[task] = lane
        return lanes

    def dual(self) -> float:
        """Each task's best net value, the rent of all rooms, and the least rent back for each seat that nobody needs."""
        best = [max(map(sub, row, self.prices)) for row in self.rows]
        rent = [room * price for room, price in zip(self.rooms, self.prices, strict=True)]
        return fsum([*best, *rent, -self.spare * min(self.prices[: self.agents])])

    def _cheapest(self) -> list[int] | None:
        """Dijkstra's method over the lanes, from all crowded ones at once."""
        over, prices = self.over, self.prices
        far = [0.0 if surplus > 0 else inf for surplus in over]
        before = [-1] * len(far)
        todo = list(range(len(far)))
        while True:
            near = min(todo, key=far.__getitem__)
            reach = far[near]
            if reach == inf:
                return None
            if over[near] < 0:
                self.prices = [price - min(way, reach) for price, way in zip(prices, far, strict=True)]
                return _way(before, near)
            todo.remove(near)
            gain, floor = self.gain[near], prices[near]
            for lane in todo:
                step = prices[lane] - floor - gain[lane]
                way = reach + step if step > 0.0 else reach
                if way < far[lane]:
                    far[lane] = way
                    before[lane] = near
                    if way == reach and over[lane] < 0:
                        todo = [lane]
                        break

    def _eager(self, lane: int, to: int) -> list[int]:
        top, rows = self.gain[lane][to], self.rows
        return sorted(task for task in self.members[lane] if rows[task][to] - rows[task][lane] == top)

    def _move(self, lane: int, to: int, tasks: list[int]) -> None:
        for task in tasks:
            del self.members[lane][task]
            self.members[to][task] = None
        self._recount(lane, set(tasks))
        self._welcome(to, tasks)

    def _welcome(self, lane: int, items: list[int]) -> None:
        gain, who = self.gain[lane], self.who[lane]
        for item in items:
            row = self._nothing(lane) if item == IDLE else self.rows[item]
            here = row[lane]
            for other, value in enumerate(row):
                if value - here > gain[other]:
                    gain[other] = value - here
                    who[other] = item

    def _recount(self, lane: int, gone: set[int]) -> None:
        rows, gain, who = self.rows, self.gain[lane], self.who[lane]
        members = list(self.members[lane])
        nothing = self._nothing(lane)
        for other in [other for other, item in enumerate(who) if item in gone]:
            gains = [rows[task][other] - rows[task][lane] for task in members]
            best = max(gains, default=FORBIDDEN)
            if nothing[other] >= best:
                gain[other], who[other] = nothing[other], IDLE
            else:
                gain[other], who[other] = best, members[gains.index(best)]


class ArrayMarket(Market):
    """Over an array of shape (tasks, lanes), with numpy handed in as `np`."""

    def __init__(self, np: Any, rows: Any, rooms: Sequence[int], prices: Any, agents: int) -> None:
        super().__init__(rows, rooms, agents)
        self.np = np
        self.prices = np.array(prices, dtype=float)
        self.lane = np.argmax(rows - self.prices, axis=1)
        self._fill(np.bincount(self.lane, minlength=len(rooms)).tolist(), self.prices.tolist())
        self.gain = np.full((len(rooms), len(rooms)), FORBIDDEN)
        for lane in range(len(rooms)):
            self._recount(lane, set())

    def seats(self) -> list[int]:
        """The lane of each task."""
        lanes: list[int] = self.lane.tolist()
        return lanes

    def dual(self) -> float:
        """The same sum as over lists."""
        best = fsum((self.rows - self.prices).max(axis=1).tolist())
        rent = [room * price for room, price in zip(self.rooms, self.prices.tolist(), strict=True)]
        return fsum([best, *rent, -self.spare * float(self.prices[: self.agents].min())])

    def _cheapest(self) -> list[int] | None:
        """Bellman and Ford's method in rounds over the lanes that came nearer, while they are nearer than the nearest room."""
        np, over = self.np, self.np.array(self.over)
        far = np.where(over > 0, 0.0, inf)
        before = np.full(len(far), -1)
        free = np.flatnonzero(over < 0)
        nearer = np.flatnonzero(over > 0)
        while len(nearer):
            step = np.maximum(self.prices - self.prices[nearer, None] - self.gain[nearer], 0.0)
            ways = far[nearer, None] + step
            first = np.argmin(ways, axis=0)
            best = ways[first, np.arange(len(far))]
            better = np.flatnonzero(best < far)
            far[better] = best[better]
            before[better] = nearer[first[better]]
            nearer = better[far[better] < far[free].min()]
        if far[free].min(initial=inf) == inf:
            return None
        last = int(free[np.argmin(far[free])])
        self.prices = self.prices - np.minimum(far, far[last])
        return _way(before.tolist(), last)

    def _members(self, lane: int) -> Any:
        return self.np.flatnonzero(self.lane == lane)

    def _eager(self, lane: int, to: int) -> list[int]:
        members = self._members(lane)
        tasks: list[int] = members[self.rows[members, to] - self.rows[members, lane] == self.gain[lane, to]].tolist()
        return tasks

    def _move(self, lane: int, to: int, tasks: list[int]) -> None:
        self.lane[tasks] = to
        self._recount(lane, set())
        self._welcome(to, tasks)

    def _welcome(self, lane: int, items: list[int]) -> None:
        gains = [self._nothing(lane)] if items == [IDLE] else self.rows[items] - self.rows[items, lane][:, None]
        self.gain[lane] = self.np.maximum(self.gain[lane], self.np.max(gains, axis=0))

    def _recount(self, lane: int, gone: set[int]) -> None:  # noqa: ARG002 - a row of the array is counted whole
        members = self._members(lane)
        gains = self.rows[members]
        gains -= gains[:, lane].copy()[:, None]
        self.gain[lane] = gains.max(axis=0, initial=FORBIDDEN)
        self.gain[lane] = self.np.maximum(self.gain[lane], self._nothing(lane))


def _way(before: Sequence[int], last: int) -> list[int]:
    path = [last]
    while before[path[-1]] >= 0:
        path.append(before[path[-1]])
    return path[::-1]
