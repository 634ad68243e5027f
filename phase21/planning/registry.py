"""The one registry of strategies: by name, what deals, why a task then goes where it goes, and whether it weighs predictions.

Called by the planner; the names are those of `manager.strategy`.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt

import msgspec

from phase21.planning import strategies, wholes
from phase21.planning.strategies import Strategy


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A strategy.

    `reason` is a word of `plans.REASONS`; `explores` says that a share of its choices may be spent on learning.
    """

    deal: Strategy
    reason: str
    explores: bool = False


STRATEGIES: Mapping[str, Entry] = {
    "round_robin": Entry(deal=strategies.round_robin, reason="turn"),
    "load_balanced": Entry(deal=strategies.load_balanced, reason="load"),
    "priority_based": Entry(deal=strategies.priority_based, reason="record"),
    "confidence_based": Entry(deal=strategies.confidence_based, reason="worth"),
    "maximize_success": Entry(deal=wholes.maximize_success, reason="best", explores=True),
    "maximize_throughput": Entry(deal=wholes.maximize_throughput, reason="soonest"),
    "balance_load": Entry(deal=wholes.balance_load, reason="best"),
    "minimize_retries": Entry(deal=wholes.minimize_retries, reason="best", explores=True),
    "confidence_optimization": Entry(deal=wholes.confidence_optimization, reason="explored"),
    "thompson": Entry(deal=wholes.thompson, reason="explored"),
}

ADAPTIVE = "adaptive"
"""The name under which a run chooses among `CHOSEN_FROM` by their record."""

CHOSEN_FROM = ("maximize_success", "minimize_retries", "balance_load", "thompson")

NAMES = (*STRATEGIES, ADAPTIVE)

VERSION = 1
"""Of all strategies together: it goes up when the same tasks on the same board may be dealt otherwise."""

SURE = 1.0
"""How many standard errors above its record a strategy is given credit for."""


def chosen(record: Mapping[str, tuple[int, int]]) -> str:
    """The strategy that `adaptive` takes for a run's next wave, given (attempts, successes) of each in the run so far.

    The one whose successes per attempt may be highest: one that has no record first, then by an upper confidence bound
    (Auer, Cesa-Bianchi and Fischer, 2002); ties by order.
    """

    def may_reach(name: str) -> float:
        attempts, successes = record.get(name, (0, 0))
        if not attempts:
            return 2.0
        rate = (successes + 1.0) / (attempts + 2.0)
        return rate + SURE * sqrt(rate * (1.0 - rate) / attempts)

    return max(CHOSEN_FROM, key=may_reach)
