"""What a comparison would have shown, before anything is called fine."""

from __future__ import annotations

import pytest

from phase21.evaluation.chance import Stratum
from phase21.evaluation.power import detectable

SHARE, DEVIATION, DEGREES = 0.01, 0.04, 7


def strata(steps, runs, value=1.0, spread=0.0):
    return [Stratum((value + spread * (n % 2),), (value - spread * (n % 2),) * runs) for n in range(steps)]


def test_more_steps_and_more_runs_show_smaller_worsenings():
    """What can be found gets smaller with either."""
    few, more = (detectable(strata(n, 5), "share", -1.0, SHARE, DEVIATION, DEGREES) for n in (20, 200))
    assert few is not None
    assert more is not None
    assert more < few
    one, five = (detectable(strata(100, n, spread=0.3), "s", 1.0, SHARE, DEVIATION, DEGREES) for n in (1, 5))
    assert one is not None
    assert five is not None
    assert five < one


@pytest.mark.parametrize(("unit", "sign"), [("share", -1.0), ("s", 1.0), ("attempts", 1.0), ("points", -1.0)])
def test_one_pair_of_values_shows_nothing(unit, sign):
    """No worsening of a single value is beyond chance."""
    assert detectable(strata(1, 1), unit, sign, SHARE, DEVIATION, DEGREES) is None


def test_whole_runs_alone_show_what_their_spread_lets_them():
    """Without single values the deviation of runs decides: t(0.01, 7) + z(0.2) of them."""
    found = detectable([], "points", -1.0, SHARE, DEVIATION, DEGREES)
    assert found == pytest.approx((2.998 + 0.842) * DEVIATION, abs=0.01)
    assert detectable([], "points", -1.0, SHARE, 1.0, DEGREES) is None


def test_values_that_never_vary_show_any_shift():
    """Enough equal values and no spread between runs to speak of: almost everything would be seen."""
    found = detectable(strata(50, 5), "s", 1.0, SHARE, 0.001, DEGREES)
    assert found == pytest.approx(0.01)
