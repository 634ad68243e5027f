"""How bad a worsening must be to be found: the power of the tests in `regressions`, so that silence is not taken for health.

Approximate (normal laws with moments as they would be after the worsening); `bench/trials/regressions.py` holds it against simulation.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum, sqrt

from phase21.evaluation.chance import Stratum, above, beyond, t_beyond

POWER = 0.8
STEP, MOST = 0.01, 2.0
"""Worsenings that are tried: each hundredth, up to three times as bad where a figure can rise, to nothing where it falls."""


def detectable(strata: Sequence[Stratum], unit: str, sign: float, share: float, deviation: float, degrees: int) -> float | None:
    """The smallest relative worsening that both tests find in four cases of five at a p-value of `share`; None where none is.

    `strata` are the values for the permutation test, none where only whole runs are compared; `sign` is -1 where a fall is
    worse; `deviation` is of one run against the earlier ones, relative, with so many degrees of freedom.
    """
    most = 1.0 if sign < 0.0 else MOST
    worst, least = round(most / STEP), 1
    if _power(strata, unit, sign, share, deviation, degrees, most) < POWER:
        return None
    while least < worst:
        middle = (least + worst) // 2
        found = _power(strata, unit, sign, share, deviation, degrees, middle * STEP) >= POWER
        least, worst = (least, middle) if found else (middle + 1, worst)
    return least * STEP


def _power(strata: Sequence[Stratum], unit: str, sign: float, share: float, deviation: float, degrees: int, worse: float) -> float:
    """How often a worsening of this share would be found."""
    among_runs = above(t_beyond(share, degrees) - worse / deviation)
    return min(among_runs, _among_tasks(strata, unit, sign, share, worse)) if strata else among_runs


def _among_tasks(strata: Sequence[Stratum], unit: str, sign: float, share: float, worse: float) -> float:
    shift, dealt, real = 0.0, 0.0, 0.0
    rate = (fsum(fsum(one.together) for one in strata) + 1.0) / (sum(len(one.together) for one in strata) + 2.0)
    for one in strata:
        now, before = len(one.now), len(one.before)
        size = now + before
        mean = rate if unit == "share" else fsum(one.before) / before
        by = worse * mean
        spread_before, spread_now = _spreads(one, unit, mean, mean + sign * by, by)
        pooled = (before * spread_before + now * spread_now) / size + by * by * now * before / size**2
        shift += by * now * before / size
        dealt += now * before / max(1, size - 1) * pooled
        real += now * spread_now * (before / size) ** 2 + before * spread_before * (now / size) ** 2
    critical = shift - beyond(share) * sqrt(dealt)
    return above(-critical / sqrt(real)) if real else float(critical > 0.0)


def _spreads(stratum: Stratum, unit: str, mean: float, after: float, by: float) -> tuple[float, float]:
    """The variance of one value before and after: of a share it follows from the rate, attempts gain what is added (as Poisson's)."""
    if unit == "share":
        return mean * (1.0 - mean), max(0.0, after * (1.0 - after))
    values = stratum.together
    middle = fsum(values) / len(values)
    spread = fsum((value - middle) ** 2 for value in values) / max(1, len(values) - 1)
    return spread, spread + by if unit == "attempts" else spread
