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


class Candidate(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a choice knew of one agent: success rate as it came in and calibrated, seconds expected, tasks already held."""

    agent_id: str
    raw: float
    predicted: float
    expected_s: float
    load: int = 0


CANDIDATES_MOST = 8
"""How many candidates a choice names: those predicted best."""


class Choice(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Why tasks went where they went.

    `tasks` are ids; empty it means every assignment of the same batch that no other choice names. `propensity` is the
    probability with which the chosen agent was chosen; `score` what the model said before
    calibration (None where no model spoke); `reason` a word of `REASONS`.
    """

    tasks: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    reason: str
    propensity: float = 1.0
    score: float | None = None


CRITICAL_PATH = "critical_path"
"""The strategy by which a workflow's tasks are given out as they become ready."""

REASONS = {
    "turn": "it was this agent's turn",
    "load": "it had the least to do",
    "record": "it has the best record among those with the fewest tasks",
    "worth": "it had the highest predicted success less what it already held",
    "best": "it is predicted to do it best",
    "capacity": "it is the best for the wave as a whole: those predicted better were needed elsewhere or had no room",
    "explored": "it may well be the best, and is tried to learn more of it",
    "soonest": "the wave is expected to end soonest so",
    "pinned": "the task is pinned to it",
    "retry": "it is predicted to do it best, given the failures so far",
    "moved": "the agent before it is not at work",
    "takeover": "it was idle, and is expected to end the task sooner",
    "only": "no other agent can do it now",
}
"""What each reason means, in words that follow "because"."""


class Unplaced(msgspec.Struct, frozen=True, array_like=True):
    """A task that no configured agent can do, and why."""

    task_id: str
    reason: str


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A wave's assignments in task order. Durations in seconds; `load_balance` is of task counts, 0 to 1."""

    assignments: tuple[Assignment, ...]
    choices: tuple[Choice, ...] = ()
    unplaced: tuple[Unplaced, ...] = ()
    waiting: tuple[str, ...] = ()
    expected_duration_s: float = 0.0
    sequential_duration_s: float = 0.0
    load_balance: float = 1.0


def balance(loads: Collection[int]) -> float:
    """How evenly tasks are spread: fewest / most, 1.0 while they differ by one at most (tasks are indivisible)."""
    fewest, most = min(loads, default=0), max(loads, default=0)
    return 1.0 if most - fewest <= 1 else fewest / most
