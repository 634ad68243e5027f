"""Tasks to agents with the highest sum of values that the agents' capacities allow: as many seats as possible, then the best.

Called by the strategies that weigh a whole wave at once. Values in, seats out: it knows neither tasks nor agents, and
every answer carries a bound that holds by duality, whatever happened on the way. It never rolls dice and reads no clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from math import fsum, isfinite
from operator import sub
from typing import Any

import msgspec

from phase21.planning.pricing import FORBIDDEN, ArrayMarket, ListMarket, Market

ARRAYS_PAY = 50_000
"""Pairs from which numpy is asked for, where it is installed; below, lists are quicker."""

SAMPLED = 4
"""A set of tasks takes its first prices from one in so many of them."""

MIN_SAMPLED = 2
"""Tasks per agent up to which prices start at nothing: a sample of fewer says too little."""


class Assigned(msgspec.Struct, frozen=True, kw_only=True):
    """The agent's index for each task or None, the sum of their values, and a sum that no dealing with as many seats exceeds."""

    seats: list[int | None]
    value: float
    bound: float


def assign(values: Any, capacities: Sequence[int]) -> Assigned:
    """The best dealing of the most tasks that can be seated; ties by agent order, then task order.

    `values` is n rows of m numbers (lists, or an array of shape (n, m)), None or -inf where the agent may not have the task;
    `capacities` are m whole numbers. Exact up to rounding: a transportation problem solved by successive shortest paths over
    the graph of agents (Ahuja, Magnanti, Orlin, *Network Flows*, 1993, chapter 9) from prices found on samples of the tasks.
    The bound is the dual's value at the final prices. ValueError for NaN, +inf, a negative capacity, or rows of other lengths.
    """
    if any(capacity < 0 for capacity in capacities):
        raise ValueError("a capacity is below 0")
    np = _numpy() if len(values) * len(capacities) >= ARRAYS_PAY else None
    hall = _Lists(values, len(capacities)) if np is None else _Arrays(np, values, len(capacities))
    agents = [agent for agent, capacity in enumerate(capacities) if capacity]
    seats: list[int | None] = [None] * len(values)
    tasks = hall.narrow(agents)
    if not tasks:
        return Assigned(seats=seats, value=0.0, bound=0.0)
    market = _cleared(hall, [min(capacities[agent], len(tasks)) for agent in agents])
    taken = market.seats()
    for task, lane in zip(tasks, taken, strict=True):
        seats[task] = agents[lane] if lane < len(agents) else None
    value = fsum(float(row[lane]) for row, lane in zip(market.rows, taken, strict=True))
    return Assigned(seats=seats, value=value, bound=max(value, market.dual()))


def _numpy() -> Any:
    """The module, or None where the extra `optimize` is not installed."""
    try:
        return import_module("numpy")
    except ImportError:
        return None


class _Lists:
    """Rows as lists of floats."""

    def __init__(self, values: Any, width: int) -> None:
        self.rows = [_row(row, width) for row in (values.tolist() if hasattr(values, "tolist") else values)]

    def narrow(self, agents: list[int]) -> list[int]:
        """Keep these agents only, and the tasks that one of them may have: their indices."""
        able = [[row[agent] for agent in agents] for row in self.rows]
        tasks = [task for task, row in enumerate(able) if max(row, default=FORBIDDEN) > FORBIDDEN]
        self.rows = [able[task] for task in tasks]
        return tasks

    def benched(self) -> Any:
        """The rows with a lane at the end where every task may stand for nothing."""
        return [[*row, 0.0] for row in self.rows]

    def alike(self, rows: Any, prices: Sequence[float]) -> Any:
        """The rows in an order that has like ones side by side, so that each so-manieth speaks for its neighbours."""
        return sorted(rows, key=lambda row: _likeness(row, prices))

    def market(self, rows: Any, rooms: Sequence[int], prices: Any, agents: int) -> Market:
        """A market over such rows."""
        return ListMarket(rows, rooms, prices, agents)


def _row(values: Sequence[float | None], width: int) -> list[float]:
    if len(values) != width:
        raise ValueError(f"a row of {len(values)} values for {width} agents")
    row = [FORBIDDEN if value is None else value for value in values]
    if not isfinite(sum(row)) and any(value != FORBIDDEN and not isfinite(value) for value in row):
        raise ValueError("a value is neither a number nor -inf")
    return row


def _likeness(row: Sequence[float], prices: Sequence[float]) -> tuple[int, float]:
    """Where the row would stand at these prices, and how easy it is for all together."""
    whole, nets = sum(row), list(map(sub, row, prices))
    return nets.index(max(nets)), whole if whole > FORBIDDEN else sum(value for value in row if value > FORBIDDEN)


class _Arrays:
    """Rows as one array of floats."""

    def __init__(self, np: Any, values: Any, width: int) -> None:
        self.np = np
        even = all(len(row) == width for row in values)
        self.rows: Any = np.array(values, dtype=float).reshape(len(values), width) if even else None
        if not even or not (self.rows < np.inf).all():
            self.rows = np.array(_Lists(values, width).rows, dtype=float)

    def narrow(self, agents: list[int]) -> list[int]:
        """The same as for lists."""
        able = self.rows[:, agents]
        tasks: list[int] = self.np.flatnonzero((able > FORBIDDEN).any(axis=1)).tolist()
        self.rows = able[tasks]
        return tasks

    def benched(self) -> Any:
        """The same as for lists."""
        return self.np.hstack([self.rows, self.np.zeros((len(self.rows), 1))])

    def alike(self, rows: Any, prices: Any) -> Any:
        """The same as for lists."""
        whole = self.np.where(rows > FORBIDDEN, rows, 0.0).sum(axis=1)
        return rows[self.np.lexsort((whole, self.np.argmax(rows - self.np.array(prices), axis=1)))]

    def market(self, rows: Any, rooms: Sequence[int], prices: Any, agents: int) -> Market:
        """A market over such rows."""
        return ArrayMarket(self.np, rows, rooms, prices, agents)


def _cleared(hall: _Lists | _Arrays, rooms: list[int]) -> Market:
    """The market after the last move, with a lane beyond the agents for the tasks that cannot be seated, if any.

    Whom a first try leaves over is too many for all the agents whom they, and those who would have to make way for them, may
    have: nobody could seat more. The extra lane then has room for exactly so many, and the whole is dealt anew.
    """
    short = max(0, len(hall.rows) - sum(rooms))
    market = _solved(hall, rooms, short)
    return _solved(hall, rooms, short + market.crowd) if market.crowd else market


def _solved(hall: _Lists | _Arrays, rooms: list[int], short: int) -> Market:
    """All tasks dealt, `short` of them to the extra lane, from prices that were learned on ever larger samples."""
    rows, lanes = (hall.benched(), [*rooms, short]) if short else (hall.rows, rooms)
    steps = [1]
    while len(rows) > MIN_SAMPLED * len(lanes) * steps[-1]:
        steps.append(steps[-1] * SAMPLED)
    prices: Any = [0.0] * len(lanes)
    for step in reversed(steps[1:]):
        chosen = hall.alike(rows, prices)[step // 2 :: step]
        sample = hall.market(chosen, _share(lanes, len(chosen), len(rows)), prices, len(rooms))
        sample.clear()
        prices = sample.prices
    market = hall.market(rows, lanes, prices, len(rooms))
    market.clear()
    return market


def _share(rooms: Sequence[int], size: int, whole: int) -> list[int]:
    """The rooms of a sample: in proportion, and never less in all than `size` where there was room for the whole."""
    shares: list[int] = []
    total = 0
    for room in rooms:
        shares.append((total + room) * size // whole - total * size // whole)
        total += room
    return shares
