"""The bootstrap: how far a figure would move if the same world were looked at again.

`calibration` and `offpolicy` put their figures as functions of column means, so that a resample is one sum per column. With numpy
all resamples are a matrix product; without it there are fewer of them, which the caller is told. Seeded: the same rows, the same
interval.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from operator import mul

import msgspec

RESAMPLES, LEAST, ROWS = 1_000, 200, 20_000_000
PLAIN_RESAMPLES, PLAIN_LEAST, PLAIN_ROWS = 200, 40, 2_000_000
"""How many resamples there are with numpy, and without it: as many as draw so many rows, within these bounds."""

PIECE_ROWS = 2_000_000
"""How many rows are drawn at a time with numpy."""

LEVEL = 0.95

Columns = Sequence[Sequence[float]]


class Estimate(msgspec.Struct, frozen=True):
    """A figure and the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def spans_zero(self) -> bool:
        """Whether nothing can be said of the sign."""
        return self.low <= 0.0 <= self.high


def resampled(columns: Columns, *, resamples: int | None = None, seed: int = 0) -> list[list[float]]:
    """The means of each column in resamples of the rows: a list of them for each resample.

    `columns` are of one length, n >= 1. Rows are drawn with replacement, n at a time (Efron 1979). Without `resamples` there are
    1000, and without numpy 200; where rows are many there are fewer. Raises ValueError where there is no row.
    """
    if not columns or not columns[0]:
        raise ValueError("nothing to resample: no row")
    try:
        import numpy as np  # noqa: PLC0415, F401 - an optional dependency
    except ImportError:
        return _drawn_plainly(columns, resamples, seed)
    return _drawn_at_once(columns, resamples, seed)


def _drawn_at_once(columns: Columns, resamples: int | None, seed: int) -> list[list[float]]:
    import numpy as np  # noqa: PLC0415 - an optional dependency

    table = np.asarray(columns, dtype=np.float64).T
    n, generator = len(table), np.random.default_rng(seed)
    if resamples is None:
        resamples = max(LEAST, min(RESAMPLES, ROWS // n))
    piece = max(1, PIECE_ROWS // n)
    found: list[list[float]] = []
    while len(found) < resamples:
        here = min(piece, resamples - len(found))
        drawn = generator.integers(n, size=(here, n)) + np.arange(here)[:, None] * n
        counts = np.bincount(drawn.ravel(), minlength=here * n).reshape(here, n)
        found.extend((counts @ table / n).tolist())
    return found


def _drawn_plainly(columns: Columns, resamples: int | None, seed: int) -> list[list[float]]:
    n, dice = len(columns[0]), random.Random(seed)  # noqa: S311 - statistics, not secrets
    if resamples is None:
        resamples = max(PLAIN_LEAST, min(PLAIN_RESAMPLES, PLAIN_ROWS // n))
    found = []
    for _ in range(resamples):
        drawn = Counter(dice.choices(range(n), k=n))
        counts = [drawn[row] for row in range(n)]
        found.append([sum(map(mul, counts, column)) / n for column in columns])
    return found


def estimate(value: float, draws: Sequence[float]) -> Estimate:
    """The percentile interval around a figure, widened to hold the figure itself where the draws do not."""
    ordered = sorted(draws)
    low, high = _quantile(ordered, (1.0 - LEVEL) / 2.0), _quantile(ordered, (1.0 + LEVEL) / 2.0)
    return Estimate(value, min(low, value), max(high, value))


def _quantile(ordered: Sequence[float], share: float) -> float:
    """The quantile between the two nearest draws, in proportion (type 7 of Hyndman and Fan 1996)."""
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])
