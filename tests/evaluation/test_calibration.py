"""How honest predictions are: by hand, and in worlds whose truth is known."""

from __future__ import annotations

import random
from math import log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phase21.evaluation.calibration import (
    FLOOR,
    bin_of,
    brier_difference,
    brier_score,
    expected_calibration_error,
    log_loss,
    reliability,
    scores,
)

PAIRS = [(0.9, True), (0.9, True), (0.9, False), (0.2, False), (0.2, True)]
pairs_of_any_kind = st.lists(st.tuples(st.floats(0.0, 1.0), st.booleans()), min_size=1, max_size=60)


def world(n: int, seed: int, too_high: float = 0.0) -> list[tuple[float, bool]]:
    """Pairs whose predictions promise so much too much."""
    dice = random.Random(seed)
    rates = [dice.random() * (1.0 - too_high) for _ in range(n)]
    return [(rate + too_high, dice.random() < rate) for rate in rates]


def test_scores_by_hand():
    """Brier score, log loss and calibration error are those of their formulas."""
    assert brier_score(PAIRS) == pytest.approx((0.01 + 0.01 + 0.81 + 0.04 + 0.64) / 5)
    assert log_loss(PAIRS) == pytest.approx(-(2 * log(0.9) + log(0.1) + log(0.8) + log(0.2)) / 5)
    assert expected_calibration_error(PAIRS) == pytest.approx(3 / 5 * (0.9 - 2 / 3) + 2 / 5 * (0.5 - 0.2))


def test_no_pairs_no_figures():
    """Of nothing nothing is said."""
    assert (brier_score([]), log_loss([]), expected_calibration_error([]), scores([]), brier_difference([], [])) == (None,) * 5
    assert reliability([]) == ()


def test_a_constant_too_high_misses_by_its_distance():
    """Predicting 0.85 where 0.54 succeed has a calibration error of 0.31, however it is binned."""
    pairs = [(0.85, n < 54) for n in range(100)]
    assert expected_calibration_error(pairs) == pytest.approx(0.31)
    assert expected_calibration_error(pairs, bins=3) == pytest.approx(0.31)


def test_certainty_that_fails_costs_much_and_not_infinity():
    """A prediction of 1 that fails costs -log of the floor."""
    assert log_loss([(1.0, False)]) == pytest.approx(-log(FLOOR))
    assert log_loss([(0.0, True)]) == pytest.approx(-log(FLOOR))
    assert log_loss([(1.0, True)]) == pytest.approx(0.0, abs=2 * FLOOR)


@pytest.mark.parametrize(("predicted", "place"), [(0.0, 0), (0.0999, 0), (0.1, 1), (0.85, 8), (0.9, 9), (1.0, 9)])
def test_bins_are_of_equal_width(predicted, place):
    """A value on an edge lies in the upper bin, and 1 in the last."""
    assert bin_of(predicted) == place


def test_the_reliability_table_by_hand():
    """Each bin that holds anything has its count, mean, rate and Wilson interval."""
    low, high = reliability(PAIRS)
    assert (low.low, low.high, low.samples, low.predicted, low.observed) == (0.2, 0.3, 2, 0.2, 0.5)
    assert (high.low, high.high, high.samples) == (0.9, 1.0, 3)
    assert high.predicted == pytest.approx(0.9)
    assert high.observed == pytest.approx(2 / 3)
    assert (high.observed_low, high.observed_high) == (pytest.approx(0.2077, abs=1e-4), pytest.approx(0.9385, abs=1e-4))


@given(pairs_of_any_kind)
def test_any_pairs_have_sound_figures(pairs):
    """Figures lie within their bounds, the table holds every pair once, and the error is what the table says."""
    table = reliability(pairs)
    assert sum(one.samples for one in table) == len(pairs)
    assert all(0.0 <= one.observed_low <= one.observed <= one.observed_high <= 1.0 for one in table)
    assert all(one.low - 1e-9 <= one.predicted <= one.high + 1e-9 for one in table)
    error = sum(one.samples * abs(one.predicted - one.observed) for one in table) / len(pairs)
    assert expected_calibration_error(pairs) == pytest.approx(error, abs=1e-9)
    made = scores(pairs, resamples=20)
    assert made is not None
    for figure, value in ((made.brier, brier_score(pairs)), (made.log_loss, log_loss(pairs)), (made.ece, error)):
        assert figure.value == pytest.approx(value, abs=1e-9)
        assert 0.0 <= figure.low <= figure.value <= figure.high


@pytest.mark.parametrize("too_high", [0.0, 0.05, 0.15])
@pytest.mark.parametrize(("n", "least"), [(300, 33), (2000, 35)])
def test_the_intervals_cover_the_truth(too_high, n, least):
    """Of 40 worlds most have the true calibration error and the expected Brier score in their interval, perfect ones too."""
    found = [scores(world(n, seed, too_high), resamples=200, seed=seed) for seed in range(40)]
    brier = sum(
        one.brier.low <= (1.0 - too_high) / 2 - (1.0 - too_high) ** 2 / 3 + too_high**2 <= one.brier.high for one in found if one
    )
    assert sum(one.ece.low <= too_high <= one.ece.high for one in found if one) >= least
    assert brier >= least


def test_what_is_wrong_is_seen_to_be_wrong():
    """Predictions that promise too much have a calibration error whose interval leaves zero out."""
    made = scores(world(500, 1, 0.2))
    assert made is not None
    assert made.ece.low > 0.05
    assert made.predicted - made.observed == pytest.approx(0.2, abs=0.06)


def test_a_difference_is_paired():
    """What moves both predictions alike is no difference; the better one has the lower score."""
    honest = world(800, 3)
    shifted = [(min(1.0, p + 0.2), came) for p, came in honest]
    difference = brier_difference(honest, shifted)
    assert difference is not None
    assert difference.high < 0.0
    assert brier_difference(honest, honest) == brier_difference(shifted, shifted)
    with pytest.raises(ValueError, match="same outcomes"):
        brier_difference([(0.5, True)], [(0.5, False)])


def test_the_same_pairs_have_the_same_intervals():
    """The seed decides the resamples, and is said with their number."""
    pairs = world(100, 1)
    assert scores(pairs, resamples=50, seed=1) == scores(pairs, resamples=50, seed=1)
    assert scores(pairs, resamples=50, seed=1) != scores(pairs, resamples=50, seed=2)
    assert getattr(scores(pairs, resamples=50), "resamples", None) == 50
