"""A value far from what a series usually does scores high, once; what it usually does scores low."""

import math
import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phase21.evaluation.outliers import ENOUGH_VALUES, MOST, QUIET_VALUES, THRESHOLD, Gauge, step


def folded(values, gauge=None):
    gauge, scores = gauge or Gauge(), []
    for value in values:
        gauge, score = step(gauge, value)
        scores.append(score)
    return gauge, scores


def noise(seed, count):
    dice = random.Random(seed)
    return [dice.gauss(50.0, 2.0) for _ in range(count)]


def test_a_spike_stands_out():
    """A value ten deviations off is over the threshold, whatever the scale; the noise around it is not."""
    for scale in (1.0, 1e-6, 1e6):
        _, scores = folded([scale * value for value in [*noise(1, 300), 80.0, *noise(2, 300)]])
        assert scores[300] > 2 * THRESHOLD
        assert max(scores[:300] + scores[302:]) < THRESHOLD


def test_noise_raises_little():
    """Of 20,000 values of plain noise at most four are over the threshold."""
    _, scores = folded(noise(3, 20_000))
    assert sum(score >= THRESHOLD for score in scores) <= 4


def test_too_little_says_nothing():
    """Before enough values were seen no score is told, and a series that never moves scores 0."""
    _, scores = folded([1.0] * (ENOUGH_VALUES - 1) + [1000.0])
    assert scores == [0.0] * ENOUGH_VALUES
    _, scores = folded([5.0] * 200)
    assert set(scores) == {0.0}


def test_one_cause_is_told_once():
    """After a score only a greater one is told, until the quiet time is over."""
    values = [float(place % 2) for place in range(200)]
    _, scores = folded([*values, 40.0, 20.0, 90.0, *values[: QUIET_VALUES - 2], 30.0])
    assert scores[200] > THRESHOLD
    assert scores[201] == 0.0
    assert scores[202] > scores[200]
    assert set(scores[203:-2]) == {0.0}
    _, later = folded([*values, 40.0, *values[:QUIET_VALUES], 12.0])
    assert later[-1] > THRESHOLD


def test_an_outage_does_not_become_usual():
    """A wild value moves what is usual no further than one of `MOST` deviations would."""
    gauge, _ = folded(noise(4, 300))
    wild, _ = step(gauge, 1e12)
    bound = gauge.level + MOST * math.sqrt(gauge.spread) / wild.weight
    assert gauge.level < wild.level <= bound * (1 + 1e-12)
    assert wild.spread < 1.2 * gauge.spread
    assert wild.steps < 1.2 * gauge.steps


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_not_a_number(value):
    """What is not a finite number is refused."""
    with pytest.raises(ValueError, match="finite"):
        step(Gauge(), value)


@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.floats(-1e100, 1e100), max_size=120), cut=st.integers(0, 120))
def test_goes_on_from_disk_as_if_nothing_had_been(values, cut):
    """A gauge that was written and read takes every further step bit for bit the same, and every score is a number."""
    gauge, _ = folded(values[:cut])
    read = msgspec.json.decode(msgspec.json.encode(gauge), type=Gauge)
    assert read == gauge
    there, here = folded(values[cut:], gauge), folded(values[cut:], read)
    assert there == here
    assert all(math.isfinite(score) and score >= 0.0 for score in here[1])
