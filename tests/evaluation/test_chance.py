"""The tests and laws, against figures from tables and against counting."""

from __future__ import annotations

from itertools import combinations
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phase21.evaluation import chance
from phase21.evaluation.chance import Stratum, above, above_t, beyond, by_luck, holm, moments, permuted, t_beyond

values = st.lists(st.integers(0, 5).map(float), min_size=1, max_size=4)


@pytest.mark.parametrize(
    ("degrees", "share", "t"),
    [(1, 0.05, 6.314), (2, 0.05, 2.920), (3, 0.05, 2.353), (4, 0.025, 2.776), (7, 0.01, 2.998), (30, 0.05, 1.697)],
)
def test_students_law_is_that_of_the_tables(degrees, share, t):
    """Both ways, for odd and even degrees of freedom."""
    assert t_beyond(share, degrees) == pytest.approx(t, abs=5e-4)
    assert above_t(t, degrees) == pytest.approx(share, rel=2e-3)
    assert above_t(-t, degrees) == pytest.approx(1.0 - share, rel=2e-3)


def test_the_normal_law_is_that_of_the_tables():
    """1.645 has a twentieth above it."""
    assert above(1.6449) == pytest.approx(0.05, abs=1e-5)
    assert beyond(0.05) == pytest.approx(1.6449, abs=1e-4)


@given(values, values)
def test_moments_are_those_of_all_ways_to_deal(now, before):
    """Mean and deviation of the sum of the values of now equal those over every deal."""
    together = now + before
    sums = [sum(together[i] for i in chosen) for chosen in combinations(range(len(together)), len(now))]
    mean = sum(sums) / len(sums)
    found = moments([Stratum(tuple(now), tuple(before))])
    assert found[0] == pytest.approx(mean)
    assert found[1] == pytest.approx((sum((one - mean) ** 2 for one in sums) / len(sums)) ** 0.5, abs=1e-9)


def test_a_permutation_test_counts_the_deals_that_are_as_high():
    """Two of now above three of before: one deal of ten is as high."""
    assert permuted([Stratum((8.0, 9.0), (1.0, 2.0, 3.0))]) == pytest.approx(0.1, abs=0.025)


def test_strata_are_dealt_apart():
    """Five pairs, each higher now: one deal of 32; the difference between strata says nothing."""
    strata = [Stratum((100.0 * n + 1.0,), (100.0 * n,)) for n in range(5)]
    assert permuted(strata) == pytest.approx(1 / 32, abs=0.012)


def test_what_never_varies_is_chance():
    """No deal is different from another: 1."""
    assert permuted([Stratum((1.0,), (1.0, 1.0))]) == 1.0


def test_a_stratum_that_never_varies_changes_nothing():
    """Its values are the same in every deal."""
    varies = Stratum((8.0, 9.0), (1.0, 2.0, 3.0))
    assert permuted([varies, Stratum((5.0,), (5.0,))], seed=3) == permuted([varies], seed=3)


def test_no_more_is_dealt_than_is_needed(monkeypatch):
    """Once a hundred deals were as high it is no news, and the share so far is the answer."""
    monkeypatch.setattr(chance, "RESAMPLES", 10**9)
    assert permuted([Stratum((1.0,), (1.0, 2.0, 3.0))]) == 1.0
    assert permuted([Stratum((2.0,), (1.0, 2.0, 3.0))]) == pytest.approx(0.75, abs=0.12)


def test_many_values_are_not_dealt(monkeypatch):
    """Where dealing would cost too much the exact moments and the normal law answer nearly the same."""
    strata = [Stratum((float(n % 7),), (float(n % 5), float(n % 3))) for n in range(60)]
    dealt = permuted(strata)
    monkeypatch.setattr(chance, "VALUES_DRAWN", 0)
    assert permuted(strata) == pytest.approx(dealt, abs=0.02)


@given(st.integers(0, 8), st.integers(0, 8), st.integers(0, 8), st.integers(0, 8))
def test_luck_is_fishers(failed, fine, failed_of_others, fine_of_others):
    """The share of all ways to deal the failures that give as many or more."""
    tasks, others = failed + fine, failed_of_others + fine_of_others
    failures = failed + failed_of_others
    ways = sum(comb(tasks, k) * comb(others, failures - k) for k in range(failed, min(tasks, failures) + 1))
    assert by_luck(failed, tasks, failed_of_others, others) == pytest.approx(ways / comb(tasks + others, failures))


def test_holm_corrects_for_looking_often():
    """The smallest by their number, the next by one less, never falling, never above 1; None does not count."""
    assert holm([0.01, None, 0.04, 0.03]) == pytest.approx([0.03, None, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
