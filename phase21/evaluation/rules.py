"""One row of a table of anomalies: what it is called, how bad it is, how to find it, what to do about it.

`anomalies` has a table for the monitor, `optimization` one for schedules; what a row looks at and what it finds is theirs to say.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec

from phase21.domain.judgements import Severity

ENOUGH_TASKS = 3
"""Fewer tasks than this say nothing about a rate."""

OF_TIME = frozenset({"round_robin", "load_balanced", "balance_load", "maximize_throughput"})
"""Strategies that aim at throughput; all others aim at success."""

Shown = TypeVar("Shown")
Found = TypeVar("Found")
Limit = TypeVar("Limit", float, float | None)


class Rule(msgspec.Struct, Generic[Shown, Found, Limit], frozen=True, kw_only=True):
    """A row. `find` takes what is looked at and the threshold; `action` is what the house does about it by itself."""

    anomaly_type: str
    severity: Severity
    threshold: Limit
    find: Callable[[Shown, float], Found]
    recommendation: str
    action: str = "none"
