"""Which agent does what, and what that is expected to take."""

from __future__ import annotations

from collections.abc import Collection

import msgspec


class Assignment(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One task given to one agent, with its success rate calibrated (`predicted`) and as it came in (`raw`)."""

    task_id: str
    agent_id: str
    predicted: float
    raw: float


class Unplaced(msgspec.Struct, frozen=True, array_like=True):
    """A task that no configured agent can do, and why."""

    task_id: str
    reason: str


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A wave's assignments in task order. Durations in seconds; `load_balance` is of task counts, 0 to 1."""

    assignments: tuple[Assignment, ...]
    unplaced: tuple[Unplaced, ...] = ()
    waiting: tuple[str, ...] = ()
    expected_duration_s: float = 0.0
    sequential_duration_s: float = 0.0
    load_balance: float = 1.0


def balance(loads: Collection[int]) -> float:
    """How evenly tasks are spread: fewest / most, 1.0 while they differ by one at most (tasks are indivisible)."""
    fewest, most = min(loads, default=0), max(loads, default=0)
    return 1.0 if most - fewest <= 1 else fewest / most
