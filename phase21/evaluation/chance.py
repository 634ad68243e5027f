"""What chance explains: exact tests and intervals for few figures, without any library.

`regressions` and `recommendations` ask. Everything is one-sided, seeded, and a function of its arguments alone.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from math import atan, cos, erfc, exp, fsum, inf, lgamma, pi, sin, sqrt
from statistics import NormalDist

import msgspec

RESAMPLES = 2_000
VALUES_DRAWN = 2_000_000
"""How many permutations there are, and after how many values drawn no further ones are made."""

ENOUGH = 100
"""After so many permutations as high as what was met no more are dealt: it is no news (Besag and Clifford 1991)."""

LEAST_RESAMPLES = 400
"""With fewer than these the normal approximation is better than counting."""


class Stratum(msgspec.Struct, frozen=True, array_like=True):
    """Values that can be exchanged for each other where nothing has changed: those of now, and those of before."""

    now: tuple[float, ...]
    before: tuple[float, ...]

    @property
    def together(self) -> tuple[float, ...]:
        """All of them."""
        return self.now + self.before


def permuted(strata: Sequence[Stratum], *, seed: int = 0) -> float:
    """How often chance would give the values of now a sum as high as theirs or higher, 0 to 1: a stratified permutation test.

    Within each stratum the labels "now" and "before" are dealt anew (Fisher 1935; the p-value counts the order that was met as one of
    them, Phipson and Smyth 2010). Where there are too many values to deal often enough, the sum's exact moments and the normal law.
    """
    met = fsum(fsum(stratum.now) for stratum in strata)
    mean, sd = moments(strata)
    if not sd:
        return 1.0
    resamples = min(RESAMPLES, VALUES_DRAWN // sum(len(stratum.now) for stratum in strata))
    if resamples < LEAST_RESAMPLES:
        return above((met - mean) / sd)
    dice, edge = random.Random(seed), met - 1e-9 * max(1.0, abs(met))  # noqa: S311 - statistics, not secrets
    pools = [(stratum.together, len(stratum.now)) for stratum in strata if len(set(stratum.together)) > 1]
    fixed = fsum(fsum(stratum.now) for stratum in strata if len(set(stratum.together)) == 1)
    as_high = 0
    for dealt in range(1, resamples + 1):
        as_high += fixed + fsum(_dealt(dice, pools)) >= edge
        if as_high == ENOUGH:
            return as_high / dealt
    return (1 + as_high) / (1 + resamples)


def _dealt(dice: random.Random, pools: Sequence[tuple[tuple[float, ...], int]]) -> list[float]:
    drawn: list[float] = []
    for pool, count in pools:
        if count == 1:
            drawn.append(pool[int(dice.random() * len(pool))])
        else:
            drawn.extend(dice.sample(pool, count))
    return drawn


def moments(strata: Sequence[Stratum]) -> tuple[float, float]:
    """Mean and standard deviation of the sum of the values of now, were the labels dealt anew: drawing without replacement."""
    mean, variance = 0.0, 0.0
    for stratum in strata:
        together = stratum.together
        size, drawn = len(together), len(stratum.now)
        middle = fsum(together) / size
        mean += drawn * middle
        spread = fsum((value - middle) ** 2 for value in together) / size
        variance += drawn * (size - drawn) / max(1, size - 1) * spread
    return mean, sqrt(variance)


# -- laws ----------------------------------------------------------------------------------------------------------------


def above(z: float) -> float:
    """How often a standard normal value lies above z."""
    return 0.5 * erfc(z / sqrt(2.0))


def above_t(t: float, degrees: int) -> float:
    """How often Student's t of so many degrees of freedom (1 or more) lies above t (Abramowitz and Stegun 26.7.3 and 26.7.4)."""
    angle = atan(t / sqrt(degrees))
    c, s = cos(angle), sin(angle)
    term = c if degrees % 2 else 1.0
    total = term if degrees > 1 else 0.0
    for k in range(3 if degrees % 2 else 2, degrees - 1, 2):
        term *= c * c * (k - 1) / k
        total += term
    within = 2.0 / pi * (angle + s * total) if degrees % 2 else s * total
    return 0.5 * (1.0 - within)


def beyond(share: float) -> float:
    """The z above which lies so small a share of the normal law."""
    return -NormalDist().inv_cdf(share)


def t_beyond(share: float, degrees: int) -> float:
    """The t above which lies so small a share (above 0, below 0.5) of Student's law, by halving."""
    low, high = 0.0, 1.0
    while above_t(high, degrees) > share:
        low, high = high, 2.0 * high
    for _ in range(60):
        middle = (low + high) / 2.0
        low, high = (middle, high) if above_t(middle, degrees) > share else (low, middle)
    return high


def by_luck(failed: int, tasks: int, failed_of_others: int, others: int) -> float:
    """How often one of two would have so many of all failures, or more, by chance alone (Fisher's exact test, one-sided)."""
    failures, everyone = failed + failed_of_others, tasks + others
    most = min(tasks, failures)
    return min(
        1.0, fsum(exp(_ways(tasks, k) + _ways(others, failures - k) - _ways(everyone, failures)) for k in range(failed, most + 1))
    )


def _ways(size: int, drawn: int) -> float:
    """The logarithm of how many ways there are to draw so many; there are none where more are drawn than there are."""
    return lgamma(size + 1) - lgamma(drawn + 1) - lgamma(size - drawn + 1) if drawn <= size else -inf


def holm(chances: Sequence[float | None]) -> list[float | None]:
    """The p-values, corrected for having looked at all of them (Holm 1979); None stays None, and does not count."""
    order = sorted((chance, place) for place, chance in enumerate(chances) if chance is not None)
    corrected: list[float | None] = [None] * len(chances)
    highest = 0.0
    for rank, (chance, place) in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * chance))
        corrected[place] = highest
    return corrected
