"""How honest predictions are: proper scores, calibration error and reliability, each with its interval.

Pure measures over pairs of a predicted probability and what came about. The verb `calibration`, the report and the evaluation call
this. It knows nothing of runs, and never decides which predictions count.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from math import log, sqrt

import msgspec

from phase21.evaluation.bootstrap import LEVEL, Estimate, estimate, resampled

BINS = 10
"""Bins of equal width over 0 to 1, a value on an edge in the upper one: they add up over waves, and ties stay together."""

FLOOR = 1e-6
"""How close to 0 and 1 a prediction is taken for the log loss: certainty that fails costs 13.8, and not infinity."""

FEW = 30
"""With fewer pairs than this an interval is narrower than what is known."""

_Z_95 = 1.959963984540054
_WORLDS = 400

Pair = tuple[float, bool]
"""What was predicted, 0 to 1, and whether it came about."""


class ReliabilityBin(msgspec.Struct, frozen=True, kw_only=True):
    """Pairs whose prediction lies from `low` up to `high`: mean prediction, share that came about, its 95 % Wilson interval."""

    low: float
    high: float
    samples: int
    predicted: float
    observed: float
    observed_low: float
    observed_high: float


class Scores(msgspec.Struct, frozen=True, kw_only=True):
    """How predictions did. Lower is better in all three; `predicted` and `observed` are means; `resamples` made the intervals."""

    samples: int
    predicted: float
    observed: float
    brier: Estimate
    log_loss: Estimate
    ece: Estimate
    resamples: int


# -- one figure ----------------------------------------------------------------------------------------------------------


def brier_score(pairs: Sequence[Pair]) -> float | None:
    """The mean squared difference of prediction and outcome (Brier 1950), 0 to 1; a constant 0.5 has 0.25. None without pairs."""
    return _mean([_squared(pair) for pair in pairs])


def log_loss(pairs: Sequence[Pair]) -> float | None:
    """The mean of -log of what was given to the outcome (Good 1952), in nats, predictions kept `FLOOR` from 0 and 1."""
    return _mean([_surprise(pair) for pair in pairs])


def expected_calibration_error(pairs: Sequence[Pair], bins: int = BINS) -> float | None:
    """The mean distance of mean prediction and rate within bins of equal width, by their pairs (Naeini et al. 2015), 0 to 1.

    It is above zero even for perfect predictions while bins are small: the interval of `scores` takes that into account.
    """
    columns = _gaps(pairs, bins)
    return sum(abs(sum(column)) for column in columns) / len(pairs) if pairs else None


def reliability(pairs: Sequence[Pair], bins: int = BINS) -> tuple[ReliabilityBin, ...]:
    """The reliability table: the bins that hold anything, in order."""
    held: list[list[Pair]] = [[] for _ in range(bins)]
    for pair in pairs:
        held[bin_of(pair[0], bins)].append(pair)
    return tuple(
        reliability_bin(place, len(within), sum(p for p, _ in within), sum(came for _, came in within), bins)
        for place, within in enumerate(held)
        if within
    )


def reliability_bin(place: int, samples: int, predicted_sum: float, successes: int, bins: int = BINS) -> ReliabilityBin:
    """The bin in its place (from 0), from its sums: these add up where pairs are not kept. `samples` is 1 or more."""
    observed = successes / samples
    spread = samples + _Z_95 * _Z_95
    centre = (successes + _Z_95 * _Z_95 / 2.0) / spread
    half = _Z_95 / spread * sqrt(successes * (samples - successes) / samples + _Z_95 * _Z_95 / 4.0)
    return ReliabilityBin(
        low=place / bins,
        high=(place + 1) / bins,
        samples=samples,
        predicted=predicted_sum / samples,
        observed=observed,
        observed_low=min(observed, max(0.0, centre - half)),
        observed_high=max(observed, min(1.0, centre + half)),
    )


def bin_of(predicted: float, bins: int = BINS) -> int:
    """In which bin of equal width a prediction lies, from 0."""
    return min(bins - 1, int(predicted * bins))


# -- figures with intervals ----------------------------------------------------------------------------------------------


def scores(pairs: Sequence[Pair], *, bins: int = BINS, resamples: int | None = None, seed: int = 0) -> Scores | None:
    """Every figure with its 95 % bootstrap interval; None without pairs."""
    if not pairs:
        return None
    n, gaps = len(pairs), _gaps(pairs, bins)
    columns = [[_squared(pair) for pair in pairs], [_surprise(pair) for pair in pairs], *gaps]
    draws = resampled(columns, resamples=resamples, seed=seed)
    means = [sum(column) / n for column in columns]
    return Scores(
        samples=n,
        predicted=sum(p for p, _ in pairs) / n,
        observed=sum(came for _, came in pairs) / n,
        brier=estimate(means[0], [drawn[0] for drawn in draws]),
        log_loss=estimate(means[1], [drawn[1] for drawn in draws]),
        ece=_calibration_estimate(
            sum(map(abs, means[2:])), [sum(map(abs, drawn[2:])) for drawn in draws], _error_by_luck(pairs, bins, seed)
        ),
        resamples=len(draws),
    )


def brier_difference(
    pairs: Sequence[Pair], others: Sequence[Pair], *, resamples: int | None = None, seed: int = 0
) -> Estimate | None:
    """The Brier score of `pairs` less that of `others`, which predict the same outcomes in the same order; None without pairs.

    Below zero `pairs` are the better ones. Both stay together in a resample, so that luck which they share does not count. Raises
    ValueError where the outcomes are not the same.
    """
    if [came for _, came in pairs] != [came for _, came in others]:
        raise ValueError("a difference needs predictions of the same outcomes in the same order")
    if not pairs:
        return None
    column = [_squared(pair) - _squared(other) for pair, other in zip(pairs, others, strict=True)]
    draws = resampled([column], resamples=resamples, seed=seed)
    return estimate(sum(column) / len(column), [drawn[0] for drawn in draws])


def _calibration_estimate(value: float, draws: Sequence[float], by_luck: float) -> Estimate:
    """The percentile interval of a sum of absolute values, which lies too high in two ways.

    The mean of the draws lies above the value by about as much as the value lies above the truth (Efron and Tibshirani 1993,
    chapter 10): the upper end gives up that much, the lower one twice as much. It is 0 where perfect predictions would have shown
    the value too, `by_luck`.
    """
    raw = estimate(value, draws)
    bias = max(0.0, sum(draws) / len(draws) - value)
    low = 0.0 if value <= by_luck else max(0.0, raw.low - 2.0 * bias)
    return Estimate(value, low, max(value, raw.high - bias))


def _error_by_luck(pairs: Sequence[Pair], bins: int, seed: int) -> float:
    """The calibration error that predictions which are all true stay below in 95 of 100 worlds (Broecker and Smith 2007)."""
    variances: dict[int, float] = {}
    for predicted, _ in pairs:
        place = bin_of(predicted, bins)
        variances[place] = variances.get(place, 0.0) + predicted * (1.0 - predicted)
    spreads, dice = [sqrt(variance) for variance in variances.values()], random.Random(seed)  # noqa: S311 - statistics
    worlds = sorted(sum(abs(dice.gauss(0.0, spread)) for spread in spreads) for _ in range(_WORLDS))
    return worlds[int(LEVEL * _WORLDS)] / len(pairs)


# -- one pair ------------------------------------------------------------------------------------------------------------


def _gaps(pairs: Sequence[Pair], bins: int) -> list[list[float]]:
    """Prediction less outcome, in a column for each bin that holds anything: zero in the rows of other bins."""
    columns: dict[int, list[float]] = {}
    for row, (predicted, came) in enumerate(pairs):
        place = bin_of(predicted, bins)
        if place not in columns:
            columns[place] = [0.0] * len(pairs)
        columns[place][row] = predicted - came
    return list(columns.values())


def _squared(pair: Pair) -> float:
    miss = pair[0] - pair[1]
    return miss * miss


def _surprise(pair: Pair) -> float:
    predicted = min(1.0 - FLOOR, max(FLOOR, pair[0]))
    return -log(predicted if pair[1] else 1.0 - predicted)


def _mean(losses: Sequence[float]) -> float | None:
    return sum(losses) / len(losses) if losses else None
