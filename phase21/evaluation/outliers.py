"""Is a value out of the ordinary? One series of numbers, such as durations or metrics, judged as it comes.

`step` is called once per value; `Gauge` is all that is kept between two of them, and never grows. Values in, scores
out: no clock, no chance. A value is compared with the level of the series and with its usual step from one value to the
next; what is extreme counts as `MOST` deviations at most, so that an outage does not become what is usual.
"""

from __future__ import annotations

from math import copysign, isfinite, sqrt

import msgspec

MEMORY_VALUES = 500.0
"""A value weighs 1/e in what is usual after this many others."""

MOST = 6.0
"""Further away than this many standard deviations a value says no more about what is usual."""

ENOUGH_VALUES = 30
"""Fewer values than this say nothing about what is usual: their score is 0."""

QUIET_VALUES = 100
"""After a score only a higher one is told, until so many values have come: one cause, one finding."""

THRESHOLD = 4.5
"""From this score on a value is worth a look: measured over many series, see `phase21/bench/trials/drift.py`."""


class Gauge(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What is usual in a series. `weight` is the values seen, faded; `steps` the mean square of the differences."""

    count: int = 0
    weight: float = 0.0
    level: float = 0.0
    spread: float = 0.0
    steps: float = 0.0
    last: float = 0.0
    peak: float = 0.0
    quiet_until: int = 0


def step(gauge: Gauge, value: float) -> tuple[Gauge, float]:
    """The gauge after a value, and the value's score: how many standard deviations it is off, mean of level and step.

    The score is 0 while too little was seen, and where a greater one was told less than `QUIET_VALUES` values ago.
    Raises ValueError where the value is not a finite number.
    """
    if not isfinite(value):
        raise ValueError(f"{value} is not a finite number")
    if not gauge.count:
        return Gauge(count=1, weight=1.0, level=value, last=value), 0.0
    off, jump = _deviations(gauge, value)
    score = (abs(off) + abs(jump)) / 2.0 if gauge.count >= ENOUGH_VALUES else 0.0
    told = score > gauge.peak or gauge.count >= gauge.quiet_until
    return _learned(gauge, value, off, jump, score if told else None), score if told else 0.0


def _deviations(gauge: Gauge, value: float) -> tuple[float, float]:
    """How far a value is from the level, and from the value before it, in standard deviations; 0 where none is known."""
    spread, steps = sqrt(gauge.spread), sqrt(gauge.steps)
    return (value - gauge.level) / spread if spread else 0.0, (value - gauge.last) / steps if steps else 0.0


def _learned(gauge: Gauge, value: float, off: float, jump: float, told: float | None) -> Gauge:
    settled = gauge.count >= ENOUGH_VALUES
    near = gauge.level + copysign(MOST, off) * sqrt(gauge.spread) if settled and abs(off) > MOST else value
    moved = (value - gauge.last) ** 2
    if settled and abs(jump) > MOST:
        moved = MOST * MOST * gauge.steps
    weight = gauge.weight * (1.0 - 1.0 / MEMORY_VALUES) + 1.0
    apart = near - gauge.level
    level = gauge.level + apart / weight
    return Gauge(
        count=gauge.count + 1,
        weight=weight,
        level=level,
        spread=gauge.spread + (apart * (near - level) - gauge.spread) / weight,
        steps=gauge.steps + (moved - gauge.steps) / (weight - 1.0),
        last=value,
        peak=gauge.peak if told is None else told,
        quiet_until=gauge.quiet_until if told is None else gauge.count + QUIET_VALUES,
    )
