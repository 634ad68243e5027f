"""A wave's health: one score and a word for it.

Called by the monitor with the figures of `metrics`; it looks at nothing else.
"""

from __future__ import annotations

from phase21.domain.judgements import TOLERANCE, AgentMetrics, Grade, Health, Metrics
from phase21.domain.settings import HealthSettings, HealthThresholds, HealthWeights


def score(metrics: Metrics, agents_metrics: tuple[AgentMetrics, ...], settings: HealthSettings) -> Health:
    """The health of a wave; no score, and UNKNOWN, where nothing ended or nothing was started."""
    points = _points(metrics, settings.weights)
    grade = Grade.UNKNOWN if points is None else _grade(points, settings.thresholds)
    return Health(score=points, status=grade, metrics=metrics, agents=agents_metrics)


def _points(metrics: Metrics, weights: HealthWeights) -> float | None:
    """100 x the weighted sum of success rate, availability, accuracy and load balance, 0 to 100."""
    success_rate, accuracy, load_balance = metrics.success_rate, metrics.accuracy, metrics.load_balance
    if success_rate is None or accuracy is None or load_balance is None:
        return None
    share = (
        weights.success_rate * success_rate
        + weights.availability * metrics.availability
        + weights.accuracy * accuracy
        + weights.load_balance * load_balance
    )
    return min(100.0, 100.0 * share)


def _grade(points: float, thresholds: HealthThresholds) -> Grade:
    if points >= thresholds.excellent - TOLERANCE:
        return Grade.EXCELLENT
    if points >= thresholds.good - TOLERANCE:
        return Grade.GOOD
    if points >= thresholds.fair - TOLERANCE:
        return Grade.FAIR
    return Grade.POOR
