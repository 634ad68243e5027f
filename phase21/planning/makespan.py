"""Tasks to agents so that the last of them is expected to end soonest, and what an idle agent should take over.

Called by the strategy `maximize_throughput`, and by the manager each time that a task ends. Seconds in, seats out: it knows
neither tasks nor agents, rolls no dice and reads no clock. What it says of a wave comes with a bound that no dealing beats.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import erfc, exp, fsum, inf, log, sqrt
from operator import mul

import msgspec

SEARCHED = 48
"""Up to so many tasks every move and every swap is weighed; beyond, those off the agent that ends last."""

PRICED_TASKS = 1000
"""Prices are sought on a sample of at most so many tasks."""

ROUNDS = 40
ROUNDS_ON_ALL = 8
STEP, STEP_FADES = 0.5, 0.1
"""How far prices follow loads in the first round, and how fast that fades."""

EXCHANGED = 256
"""Up to so many tasks swaps are sought as well as moves."""

PRICE_LEAST = 1e-12
MOVES_MOST = 400
ALIVE_LEAST = 1e-12
GAIN_LEAST = 1e-9
"""Changes that gain less than this share are the noise of sums."""


class Scheduled(msgspec.Struct, frozen=True, kw_only=True):
    """The agent's index for each task, None where nobody may or has room; when the last is expected to end; the bound.

    No dealing of the tasks that have a seat ends before `bound_s`. Seconds from now.
    """

    seats: list[int | None]
    makespan_s: float
    bound_s: float


class Outlook(msgspec.Struct, frozen=True, kw_only=True):
    """How long one attempt may take: with probability `rate` it succeeds, after `seconds` in the middle; else it takes `failing_s`.

    ln of a success's seconds is normal around ln `seconds` with standard deviation `spread`, and none lasts longer than
    `failing_s`, or than `seconds` where that is more.
    """

    rate: float
    seconds: float
    failing_s: float
    spread: float = 0.0

    @property
    def expected_s(self) -> float:
        """The mean of a whole attempt, in seconds."""
        return self.remaining_s(0.0)

    def remaining_s(self, elapsed_s: float) -> float:
        """The mean of what is left after `elapsed_s`: E[T - e | T > e].

        What has not ended yet is the likelier to be failing, and of a long tail of successes the longer part is left. Past
        all that was expected, as much is left as has passed (the mean residual life of a heavy tail grows like that).
        """
        most = max(self.failing_s, self.seconds)
        if elapsed_s >= most:
            return elapsed_s
        alive, area = _tail(self.seconds, self.spread, elapsed_s, most)
        succeeding, failing = self.rate * alive, (1.0 - self.rate) * (elapsed_s < self.failing_s)
        if succeeding + failing < ALIVE_LEAST:
            return most - elapsed_s
        return (self.rate * area + failing * (self.failing_s - elapsed_s)) / (succeeding + failing)


def _tail(middle: float, spread: float, begin: float, end: float) -> tuple[float, float]:
    """P(T > begin), and E[min(T, end) - begin; T > begin], for a lognormal T (Johnson, Kotz, Balakrishnan, 1994, chapter 14)."""
    if spread <= 0.0 or middle <= 0.0:
        return float(middle > begin), max(min(middle, end) - begin, 0.0)
    low = (log(begin) - log(middle)) / spread if begin > 0.0 else -inf  # a quotient may be too small to have a logarithm
    high = log(end / middle) / spread
    alive, beyond = _above(low), _above(high)
    mean = middle * exp(spread * spread / 2.0) * (_above(low - spread) - _above(high - spread))
    return alive, max(mean + end * beyond - begin * alive, 0.0)


def _above(z: float) -> float:
    return 0.5 * erfc(z / sqrt(2.0))


def schedule(
    seconds: Sequence[Sequence[float | None]],
    ready_s: Sequence[float],
    lanes: Sequence[int],
    rooms: Sequence[int] | None = None,
    *,
    guessed: bool = False,
) -> Scheduled:
    """Deal n tasks to m unrelated agents for the least makespan; deterministic.

    `seconds` is n rows of m expected durations, None where the agent may not have the task; `ready_s` are seconds of work
    that each agent already holds, `lanes` how many tasks each works at side by side (0: none), `rooms` how many more each
    may be given. An agent is taken to end after (what it holds) / lanes, and not sooner than its longest task lasts.

    Few tasks are listed by length, moved and swapped; with many, prices of agents' time are sought that make the bound of the
    linear relaxation (Lenstra, Shmoys, Tardos, 1990) high, and tasks go where they are cheapest until that agent has its share.
    The bound is the dual's value, or what one task needs. `guessed` says that durations are no more than guesses: few tasks
    are then left evenly spread, where sure durations would be packed for the sake of the agent that ends last alone.
    ValueError for seconds that are negative or not a number, or rows of other lengths.
    """
    floor = _Floor(seconds, ready_s, lanes, rooms)
    if not lanes:
        return Scheduled(seats=floor.seats, makespan_s=0.0, bound_s=0.0)
    weights = floor.prices()
    if len(floor.tasks) <= SEARCHED:
        floor.list_by_length()
        floor.even_out()
    else:
        floor.fill(weights)
    if not guessed or len(floor.tasks) > SEARCHED:
        floor.relieve()
    makespan_s = floor.makespan_s()
    return Scheduled(seats=floor.seats, makespan_s=makespan_s, bound_s=min(floor.bound_s(weights), makespan_s))


class _Floor:
    """Where the dealing is done: rows of seconds with inf for what may not be, loads, and seats."""

    def __init__(
        self,
        seconds: Sequence[Sequence[float | None]],
        ready_s: Sequence[float],
        lanes: Sequence[int],
        rooms: Sequence[int] | None,
    ) -> None:
        self.lanes = [max(lane, 1) for lane in lanes]
        self.rooms = [len(seconds) if lane else 0 for lane in lanes]
        if rooms is not None:
            self.rooms = [min(room, open_) for room, open_ in zip(rooms, self.rooms, strict=True)]
        closed = [index for index, room in enumerate(self.rooms) if room <= 0]
        self.rows = [_row(row, closed, len(lanes)) for row in seconds]
        self.ready = [max(ready, 0.0) for ready in ready_s]
        self.loads = list(self.ready)
        self.seats: list[int | None] = [None] * len(self.rows)
        self.tasks = [task for task, row in enumerate(self.rows) if min(row, default=inf) < inf]
        self.agents = range(len(self.lanes))

    # -- prices ------------------------------------------------------------------------------------------------------

    def prices(self) -> list[float]:
        """Prices of a second at each agent that make the dual's value high: all lanes together cost 1.

        They are sought on one in so many of the tasks, held against as much of what agents hold, then put right on all.
        """
        weights = self._whole([1.0] * len(self.lanes))
        stride = -(-len(self.tasks) // PRICED_TASKS) or 1
        if stride > 1:
            sampled = self._raised(weights, self.tasks[::stride], [held / stride for held in self.ready], range(ROUNDS))
            return self._raised(sampled, self.tasks, self.ready, range(ROUNDS, ROUNDS + ROUNDS_ON_ALL))
        return self._raised(weights, self.tasks, self.ready, range(ROUNDS))

    def _raised(self, weights: list[float], tasks: Sequence[int], ready: list[float], rounds: range) -> list[float]:
        """The best of the prices that are met when those of agents with too much rise, and the others fall."""
        highest, best = -inf, weights
        for round_ in rounds:
            value, loads = self._answered(weights, tasks, ready)
            if value > highest:
                highest, best = value, weights
            ends = [load / lane for load, lane in zip(loads, self.lanes, strict=True)]
            middle = fsum(ends) / len(ends)
            if middle <= 0.0:
                break
            step = STEP / (1.0 + STEP_FADES * round_)
            weights = self._whole([weight * exp(step * (end / middle - 1.0)) for weight, end in zip(weights, ends, strict=True)])
        return best

    def _whole(self, weights: list[float]) -> list[float]:
        total = sum(weight * lane for weight, lane in zip(weights, self.lanes, strict=True))
        return [weight / total + PRICE_LEAST for weight in weights]

    def _answered(self, weights: list[float], tasks: Sequence[int], ready: list[float]) -> tuple[float, list[float]]:
        """The dual's value at these prices, and what agents would hold if each task went where it is cheapest."""
        loads, rows, value = list(ready), self.rows, sum(map(mul, ready, weights))
        for task in tasks:
            row = rows[task]
            costs = list(map(mul, row, weights))
            cheapest = min(costs)
            agent = costs.index(cheapest)
            value += cheapest
            loads[agent] += row[agent]
        return value / sum(map(mul, weights, self.lanes)), loads

    def bound_s(self, weights: list[float]) -> float:
        """What no dealing of the seated tasks beats: the dual, what is held already, and what the hardest task needs."""
        seated = [task for task in self.tasks if self.seats[task] is not None]
        dual = self._answered(weights, seated, self.ready)[0]
        held = [ready / lane for ready, lane in zip(self.ready, self.lanes, strict=True)]
        alone = [min(map(self._end_with, self.agents, self.ready, self.rows[task])) for task in seated]
        return max([dual, *held, *alone])

    # -- dealing -----------------------------------------------------------------------------------------------------

    def fill(self, weights: list[float]) -> None:
        """Those that lose most elsewhere first, each to the cheapest agent that ends within its share; else where it ends first."""
        share_s, choices = self._answered(weights, self.tasks, self.ready)[0], []
        for task in self.tasks:
            costs = sorted(zip(map(mul, self.rows[task], weights), self.agents, strict=True))
            lost = costs[1][0] - costs[0][0] if len(costs) > 1 else 0.0
            choices.append((-lost, task, costs))
        choices.sort()
        for _, task, costs in choices:
            row = self.rows[task]
            within = (
                agent
                for cost, agent in costs
                if cost < inf and self.rooms[agent] > 0 and self._end_with(agent, self.loads[agent], row[agent]) <= share_s
            )
            self._seat(task, next(within, None))

    def list_by_length(self) -> None:
        """The longest first, each where it ends first (Graham, 1969)."""
        for task in sorted(self.tasks, key=lambda task: -min(self.rows[task])):
            self._seat(task, None)

    def _seat(self, task: int, agent: int | None) -> None:
        row = self.rows[task]
        if agent is None:
            ends = [
                self._end_with(other, load, needed) if self.rooms[other] > 0 else inf
                for other, load, needed in zip(self.agents, self.loads, row, strict=True)
            ]
            agent = ends.index(min(ends))
            if ends[agent] == inf:
                return
        self.seats[task] = agent
        self.loads[agent] += row[agent]
        self.rooms[agent] -= 1

    def _end_with(self, agent: int, load: float, needed: float) -> float:
        return max((load + needed) / self.lanes[agent], needed)

    # -- searching ---------------------------------------------------------------------------------------------------

    def even_out(self) -> None:
        """Move and swap tasks while that lessens the sum of squares of loads over lanes.

        Where durations are guesses it pays to lighten every agent, not the one alone that is thought to end last: squares
        of loads stand for that, and make what a change is worth a matter of two agents.
        """
        for _ in range(MOVES_MOST):
            change = self._best_move() or self._best_swap()
            if change is None:
                return
            self._carry_out(*change)

    def _least(self) -> float:
        return -GAIN_LEAST * sum(load * load / lane for load, lane in zip(self.loads, self.lanes, strict=True))

    def _best_move(self) -> tuple[int, int, int | None] | None:
        best, found = self._least(), None
        loads, lanes, rooms = self.loads, self.lanes, self.rooms
        for task in self.tasks:
            home = self.seats[task]
            if home is None:
                continue
            row = self.rows[task]
            freed = row[home] * (row[home] - 2.0 * loads[home]) / lanes[home]
            if freed >= best:
                continue
            for agent in self.agents:
                if agent != home and rooms[agent] > 0:
                    needed = row[agent]
                    worth = freed + needed * (needed + 2.0 * loads[agent]) / lanes[agent]
                    if worth < best:
                        best, found = worth, (task, agent, None)
        return found

    def _best_swap(self) -> tuple[int, int, int | None] | None:
        best, found = self._least(), None
        loads, lanes = self.loads, self.lanes
        seated = [(task, seat, self.rows[task]) for task, seat in enumerate(self.seats) if seat is not None]
        for place, (task, home, row) in enumerate(seated):
            held, lane, own = 2.0 * loads[home], lanes[home], row[home]
            for other, away, theirs in seated[:place]:
                if away != home:
                    here, there = theirs[home] - own, row[away] - theirs[away]
                    worth = here * (held + here) / lane + there * (2.0 * loads[away] + there) / lanes[away]
                    if worth < best:
                        best, found = worth, (task, away, other)
        return found

    def _carry_out(self, task: int, agent: int, other: int | None) -> None:
        """Move `task` to `agent`, and `other`, where there is one, to where it was."""
        home = self.seats[task]
        assert home is not None  # noqa: S101 - only seated tasks are moved
        for moved, from_, to in ((task, home, agent), (other, agent, home)):
            if moved is not None:
                self.loads[from_] = max(self.loads[from_] - self.rows[moved][from_], self.ready[from_])
                self.loads[to] += self.rows[moved][to]
                self.rooms[from_] += 1
                self.rooms[to] -= 1
                self.seats[moved] = to

    def relieve(self) -> None:
        """Move or swap a task off the agent that ends last, while the makespan falls."""
        for _ in range(MOVES_MOST):
            ends = [self._end(agent) for agent in self.agents]
            last = ends.index(max(ends))
            own = [task for task in self.tasks if self.seats[task] == last]
            change = self._best_relief(last, own, ends) or (
                self._best_exchange(last, own, ends) if len(self.tasks) <= EXCHANGED else None
            )
            if change is None:
                return
            self._carry_out(*change)

    def _best_relief(self, last: int, own: list[int], ends: list[float]) -> tuple[int, int, int | None] | None:
        best, found = ends[last] * (1.0 - GAIN_LEAST), None
        loads, lanes, rooms = self.loads, self.lanes, self.rooms
        open_ = [agent for agent in self.agents if agent != last and rooms[agent] > 0]
        for task in own:
            row = self.rows[task]
            left = self._end_without(last, task)
            for agent in open_:
                needed = row[agent]
                end = max(left, (loads[agent] + needed) / lanes[agent], needed)
                if end < best:
                    best, found = end, (task, agent, None)
        return found

    def _best_exchange(self, last: int, own: list[int], ends: list[float]) -> tuple[int, int, int | None] | None:
        best, found = ends[last] * (1.0 - GAIN_LEAST), None
        for task in own:
            row, left = self.rows[task], self.loads[last] - self.rows[task][last]
            for other in self.tasks:
                away = self.seats[other]
                if away is None or away == last:
                    continue
                theirs = self.rows[other]
                end = max(
                    self._end_with(last, left, theirs[last]),
                    self._end_with(away, self.loads[away] - theirs[away], row[away]),
                )
                if end < best:
                    best, found = end, (task, away, other)
        return found

    def _end(self, agent: int) -> float:
        end = self.loads[agent] / self.lanes[agent]
        if self.lanes[agent] == 1:
            return end
        return max(end, *(self.rows[task][agent] for task in self.tasks if self.seats[task] == agent), 0.0)

    def _end_without(self, agent: int, task: int) -> float:
        end = (self.loads[agent] - self.rows[task][agent]) / self.lanes[agent]
        if self.lanes[agent] == 1:
            return end
        return max(end, *(self.rows[other][agent] for other in self.tasks if other != task and self.seats[other] == agent), 0.0)

    def makespan_s(self) -> float:
        """When the last agent is expected to end."""
        return max(self._end(agent) for agent in self.agents)


def _row(row: Sequence[float | None], closed: Sequence[int], width: int) -> list[float]:
    told = [inf if needed is None else float(needed) for needed in row]
    if len(told) != width:
        raise ValueError("a task needs as many durations as there are agents")
    if not all(needed >= 0.0 for needed in told):
        raise ValueError("a duration is not a number of at least 0 seconds")
    for agent in closed:
        told[agent] = inf
    return told


def takeover(
    idle: int, seconds: Sequence[Sequence[float | None]], seats: Sequence[int], ready_s: Sequence[float], lanes: Sequence[int]
) -> int | None:
    """The waiting task, by its place, that the agent `idle` should take from another, or None: O(waiting + agents).

    `seconds` is a row for each waiting task, `seats` the agent it waits for, `ready_s` what is left of the work that is under
    way at each agent (`Outlook.remaining_s`), `lanes` how many tasks each works at side by side. A task is taken only where
    it would end before all that waits with it there does; of those the one that most lessens the sum of squares of
    loads over lanes (as in `schedule`); ties by place.
    """
    loads = list(ready_s)
    for row, seat in zip(seconds, seats, strict=True):
        loads[seat] += row[seat] or 0.0
    best, found = 0.0, None
    for place, (row, seat) in enumerate(zip(seconds, seats, strict=True)):
        needed = row[idle]
        if seat == idle or needed is None:
            continue
        own = row[seat] or 0.0
        if max((loads[idle] + needed) / lanes[idle], needed) < loads[seat] / lanes[seat]:
            gain = own * (2.0 * loads[seat] - own) / lanes[seat] - needed * (2.0 * loads[idle] + needed) / lanes[idle]
            if gain > best:
                best, found = gain, place
    return found
