"""The bootstrap, with numpy and without."""

from __future__ import annotations

import random
import sys
from math import sqrt
from statistics import fmean

import pytest

from phase21.evaluation import bootstrap
from phase21.evaluation.bootstrap import Estimate, estimate, resampled


@pytest.fixture(params=["numpy", "plain"])
def way(request, monkeypatch):
    """Both ways of drawing; without numpy it cannot be imported."""
    if request.param == "numpy":
        pytest.importorskip("numpy", reason="the extra `optimize` is not installed")
    else:
        monkeypatch.setitem(sys.modules, "numpy", None)
    return request.param


def test_the_spread_of_a_mean_is_what_theory_says(way):
    """Resampled means lie around the mean with a standard deviation of sd / sqrt(n)."""
    dice = random.Random(4)
    column = [dice.gauss(1.0, 2.0) for _ in range(400)]
    means = [drawn[0] for drawn in resampled([column], resamples=600, seed=1)]
    mean = fmean(column)
    spread = sqrt(fmean((value - mean) ** 2 for value in column) / len(column))
    assert fmean(means) == pytest.approx(mean, abs=0.2 * spread)
    assert sqrt(fmean((value - mean) ** 2 for value in means)) == pytest.approx(spread, rel=0.15)


def test_columns_stay_together(way):
    """A resample takes whole rows: a column that is another doubled stays so."""
    column = [float(n) for n in range(50)]
    for one, other in resampled([column, [2.0 * value for value in column]], resamples=20):
        assert other == pytest.approx(2.0 * one)


def test_the_seed_decides(way):
    """The same rows and seed give the same draws, another seed others."""
    column = [float(n) for n in range(30)]
    assert resampled([column], resamples=5, seed=3) == resampled([column], resamples=5, seed=3)
    assert resampled([column], resamples=5, seed=3) != resampled([column], resamples=5, seed=4)


def test_many_rows_are_drawn_in_pieces(monkeypatch):
    """A large sample is drawn a few resamples at a time, and all come back."""
    pytest.importorskip("numpy", reason="the extra `optimize` is not installed")
    monkeypatch.setattr(bootstrap, "PIECE_ROWS", 100)
    assert len(resampled([[1.0] * 40], resamples=7)) == 7
    assert len(resampled([[1.0] * 400], resamples=3)) == 3


def test_how_many_resamples(way, monkeypatch):
    """There are 1000 with numpy; without it 200, and fewer where rows are many."""
    assert len(resampled([[0.0, 1.0]])) == (1000 if way == "numpy" else 200)
    monkeypatch.setattr(bootstrap, "ROWS" if way == "numpy" else "PLAIN_ROWS", 1000)
    assert len(resampled([[0.0] * 4])) == (250 if way == "numpy" else 200)
    assert len(resampled([[0.0] * 10])) == (200 if way == "numpy" else 100)
    assert len(resampled([[0.0] * 500])) == (200 if way == "numpy" else 40)


@pytest.mark.parametrize("columns", [[], [[]]])
def test_nothing_to_resample(columns):
    """Without a row there is nothing to draw from, and that is said."""
    with pytest.raises(ValueError, match="no row"):
        resampled(columns)


def test_the_interval_holds_95_percent_and_the_value():
    """The ends are the 2.5 % and 97.5 % quantiles of the draws, moved only to hold the value."""
    draws = [float(n) for n in range(101)]
    for value, low, high in ((50.0, 2.5, 97.5), (99.0, 2.5, 99.0), (0.0, 0.0, 97.5)):
        made = estimate(value, draws)
        assert (made.value, made.low, made.high) == (value, pytest.approx(low), pytest.approx(high))
    assert estimate(3.0, [3.0]) == Estimate(3.0, 3.0, 3.0)


def test_the_sign_is_known_only_away_from_zero():
    """An interval that touches zero says nothing of the sign."""
    assert Estimate(1.0, 0.0, 2.0).spans_zero
    assert not Estimate(1.0, 0.5, 2.0).spans_zero
    assert not Estimate(-1.0, -2.0, -0.5).spans_zero
