"""What another policy would have reached, judged by decisions that were made under this one.

Pure estimates over logged decisions and their propensities; `simulate` and the evaluation call this. It says so where the log cannot
tell: without exploration nothing can be learned of what was never tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, sqrt
from statistics import NormalDist

import msgspec

from phase21.evaluation.bootstrap import Estimate, estimate, resampled

SURE = 1.0 - 1e-9
"""From this probability on a choice was no choice."""

EFFECTIVE_LEAST = 20.0
"""With fewer effective decisions an interval cannot be believed, whatever it says."""

INCONCLUSIVE, BETTER, WORSE, NOT_ESTIMABLE = "inconclusive", "better", "worse", "not estimable"


class Logged(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A decision that was made: which agent got a task, and what came of it.

    `propensity` is the probability with which the logging policy chose that agent, above 0; `target` the one with which the other
    policy chooses the same. `model_chosen` is the model's success rate of the chosen agent, `model_target` its mean over the other
    policy's choice. All are 0 to 1.
    """

    propensity: float
    success: bool
    target: float
    model_chosen: float = 0.5
    model_target: float = 0.5


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """The other policy's mean success, and how far it lies from the logged one's, by two estimators.

    `snips` is self-normalised inverse propensity, `doubly_robust` leans on the model as well; both, and what `logged` reached, are
    over the `supported` of the `decisions`. `effective_decisions` is how many of one's own they are worth. `mean_weight` is near 1
    where the log supports the other policy. `verdict` is a word, `said` a sentence.
    """

    decisions: int
    supported: int
    effective_decisions: float
    mean_weight: float | None
    logged: Estimate | None
    snips: Estimate | None
    snips_difference: Estimate | None
    doubly_robust: Estimate | None
    doubly_robust_difference: Estimate | None
    verdict: str
    said: str
    resamples: int


def compare(decisions: Sequence[Logged], *, resamples: int | None = None, seed: int = 0) -> Comparison:
    """Judge the other policy. Raises ValueError for a propensity that is not above 0 and at most 1.

    With weight w = target / propensity, outcome r and model q: SNIPS is sum(w r) / sum(w) (Swaminathan and Joachims 2015), doubly
    robust the mean of q_target + w (r - q_chosen) (Dudik, Langford and Li 2011), effective decisions sum(w)^2 / sum(w^2) (Kish
    1965). Where the logging policy had no choice and the other one would have chosen differently, a decision says nothing: it is
    left out, which is fair because whether there was a choice does not depend on what was chosen.
    """
    if any(not 0.0 < made.propensity <= 1.0 for made in decisions):
        raise ValueError("a propensity lies above 0 and is 1 at most")
    held = [made for made in decisions if made.propensity < SURE or made.target >= SURE]
    blind = len(decisions) - len(held)
    weights = [made.target / made.propensity for made in held]
    without_choice = all(made.propensity >= SURE for made in held)
    if not any(weights) or (blind and without_choice):
        return _unknown(len(decisions), weights, without_choice=without_choice)
    return _estimated(held, weights, blind, resampled(_columns(held, weights), resamples=resamples, seed=seed))


def _columns(held: Sequence[Logged], weights: Sequence[float]) -> list[list[float]]:
    """What the estimates are made of: weight, weighted outcome, doubly robust term, outcome."""
    weighed = list(zip(held, weights, strict=True))
    return [
        list(weights),
        [weight * made.success for made, weight in weighed],
        [made.model_target + weight * (made.success - made.model_chosen) for made, weight in weighed],
        [float(made.success) for made in held],
    ]


def _estimated(held: Sequence[Logged], weights: Sequence[float], blind: int, draws: Sequence[Sequence[float]]) -> Comparison:
    n = len(held)
    means = [sum(column) / n for column in _columns(held, weights)]
    drawn = [row for row in draws if row[0] > 0.0]  # without any weight there is no SNIPS
    snips, robust = means[1] / means[0], means[2]
    differences = (
        estimate(snips - means[3], [row[1] / row[0] - row[3] for row in drawn]),
        estimate(robust - means[3], [row[2] - row[3] for row in drawn]),
    )
    effective = _effective(weights)
    verdict = _verdict(differences, effective)
    return Comparison(
        decisions=n + blind,
        supported=n,
        effective_decisions=effective,
        mean_weight=means[0],
        logged=estimate(means[3], [row[3] for row in drawn]),
        snips=estimate(snips, [row[1] / row[0] for row in drawn]),
        snips_difference=differences[0],
        doubly_robust=estimate(robust, [row[2] for row in drawn]),
        doubly_robust_difference=differences[1],
        verdict=verdict,
        said=_sentence(verdict, differences[1], n, blind, effective),
        resamples=len(drawn),
    )


def _unknown(decisions: int, weights: Sequence[float], *, without_choice: bool) -> Comparison:
    said = "the other policy would never have made a choice that was tried"
    if not decisions:
        said = "no decision was logged"
    elif without_choice:
        said = "nothing was left to chance (every propensity is 1), and the other policy would have chosen differently"
    return Comparison(
        decisions=decisions,
        supported=len(weights),
        effective_decisions=_effective(weights),
        mean_weight=None,
        logged=None,
        snips=None,
        snips_difference=None,
        doubly_robust=None,
        doubly_robust_difference=None,
        verdict=NOT_ESTIMABLE,
        said=f"{NOT_ESTIMABLE}: {said}",
        resamples=0,
    )


def _effective(weights: Sequence[float]) -> float:
    squares = sum(weight * weight for weight in weights)
    return sum(weights) ** 2 / squares if squares else 0.0


def _verdict(differences: Sequence[Estimate], effective: float) -> str:
    """A sign that both estimators agree on, with enough behind it."""
    if effective < EFFECTIVE_LEAST or any(difference.spans_zero for difference in differences):
        return INCONCLUSIVE
    signs = {difference.value > 0.0 for difference in differences}
    if len(signs) > 1:
        return INCONCLUSIVE
    return BETTER if signs.pop() else WORSE


def _sentence(verdict: str, difference: Estimate, supported: int, blind: int, effective: float) -> str:
    points = [100.0 * part for part in (difference.value, difference.low, difference.high)]
    said = f"{verdict}: {points[0]:+.1f} points of success (95 %: {points[1]:+.1f} to {points[2]:+.1f}) over {supported} decisions"
    said += f", worth {effective:.0f} of its own"
    if effective < EFFECTIVE_LEAST:
        said += f", fewer than the {EFFECTIVE_LEAST:.0f} that an interval needs"
    if blind:
        said += f"; nothing is known of {blind} more that were not left to chance"
    return said


def tasks_needed(p0: float, p1: float, *, alpha: float = 0.05, power: float = 0.8) -> int:
    """How many tasks each of two arms needs to tell success rates p0 and p1 apart, two-sided.

    Normal approximation of two proportions (Fleiss 1981), without continuity correction: 80 % and 85 % take 906. Raises ValueError
    for equal rates and for what lies outside 0 to 1.
    """
    if p0 == p1 or min(p0, p1) < 0.0 or max(p0, p1) > 1.0 or not (0.0 < alpha < 1.0 and 0.0 < power < 1.0):
        raise ValueError("two different rates from 0 to 1, and alpha and power between 0 and 1, are needed")
    normal, mean = NormalDist(), (p0 + p1) / 2.0
    missed = normal.inv_cdf(1.0 - alpha / 2.0) * sqrt(2.0 * mean * (1.0 - mean))
    found = normal.inv_cdf(power) * sqrt(p0 * (1.0 - p0) + p1 * (1.0 - p1))
    return ceil(((missed + found) / (p1 - p0)) ** 2)
