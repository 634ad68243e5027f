"""A wave's health, by hand."""

import pytest

from phase21.domain.judgements import Grade, Metrics
from phase21.domain.settings import HealthSettings, HealthThresholds, HealthWeights
from phase21.evaluation.scoring import score


def figures(success_rate=1.0, availability=1.0, accuracy=1.0, load_balance=1.0):
    return Metrics(
        success_rate=success_rate,
        availability=availability,
        confidence=None,
        prediction_error=None,
        accuracy=accuracy,
        brier_score=None,
        load_balance=load_balance,
        completed_tasks=0,
        failed_tasks=0,
        started_tasks=0,
    )


def test_by_hand():
    """The score is 100 x (0.40 success + 0.20 availability + 0.20 accuracy + 0.20 balance), and never over 100."""
    health = score(figures(0.9, 0.75, 0.8, 0.5), (), HealthSettings())
    assert health.score == pytest.approx(36 + 15 + 16 + 10)
    assert health.status is Grade.GOOD
    assert score(figures(), (), HealthSettings()).score == 100.0


def test_weights():
    """The weights are those of the configuration."""
    weights = HealthWeights(success_rate=0.0, availability=1.0, accuracy=0.0, load_balance=0.0)
    assert score(figures(0.0, 0.3, 0.0, 0.0), (), HealthSettings(weights=weights)).score == pytest.approx(30.0)


@pytest.mark.parametrize(
    ("points", "grade"),
    [
        (100, Grade.EXCELLENT),
        (90, Grade.EXCELLENT),
        (90 - 1e-10, Grade.EXCELLENT),
        (89.99, Grade.GOOD),
        (70, Grade.GOOD),
        (69.99, Grade.FAIR),
        (50, Grade.FAIR),
        (49.99, Grade.POOR),
        (0, Grade.POOR),
    ],
)
def test_grades(points, grade):
    """A grade begins at its threshold."""
    weights = HealthWeights(success_rate=1.0, availability=0.0, accuracy=0.0, load_balance=0.0)
    assert score(figures(points / 100), (), HealthSettings(weights=weights)).status is grade


def test_thresholds():
    """The thresholds are those of the configuration."""
    lenient = HealthSettings(thresholds=HealthThresholds(excellent=40, good=30, fair=20))
    assert score(figures(0.0, 1.0, 1.0, 0.0), (), lenient).status is Grade.EXCELLENT


@pytest.mark.parametrize("missing", ["success_rate", "accuracy", "load_balance"])
def test_unknown(missing):
    """Where a figure has nothing to stand on there is no score, and the status is UNKNOWN."""
    health = score(figures(**{missing: None}), (), HealthSettings())
    assert (health.score, health.status) == (None, Grade.UNKNOWN)
