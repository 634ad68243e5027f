"""What another policy would have reached: in worlds whose truth is known."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phase21.evaluation.offpolicy import BETTER, INCONCLUSIVE, NOT_ESTIMABLE, WORSE, Logged, compare, tasks_needed


def logged(n, seed, rates, logging, target, model=None):
    """Decisions over agents of these true success rates: two kinds of task, of which the second is harder by 0.2."""
    dice = random.Random(seed)
    agents = range(len(rates))
    made = []
    for _ in range(n):
        harder = 0.2 * (dice.random() < 0.5)
        chosen = dice.choices(agents, weights=logging)[0]
        guess = [(model or rates)[agent] - (harder if model is None else 0.0) for agent in agents]
        made.append(
            Logged(
                propensity=logging[chosen],
                success=dice.random() < rates[chosen] - harder,
                target=target[chosen],
                model_chosen=guess[chosen],
                model_target=sum(share * rate for share, rate in zip(target, guess, strict=True)),
            )
        )
    return made


RATES = (0.9, 0.6, 0.5)
LOGGING = (0.2, 0.3, 0.5)
TARGET = (0.8, 0.1, 0.1)


def mean(shares):
    return sum(share * (rate - 0.1) for share, rate in zip(shares, RATES, strict=True))


@pytest.mark.parametrize("model", [None, (0.5, 0.5, 0.5), (0.2, 0.9, 0.9)], ids=["true", "constant", "wrong"])
def test_the_estimates_cover_the_truth(model):
    """In most of 40 worlds both intervals hold the true mean and difference, however wrong the model is."""
    found = [compare(logged(500, seed, RATES, LOGGING, TARGET, model), resamples=200, seed=seed) for seed in range(40)]
    truth, difference = mean(TARGET), mean(TARGET) - mean(LOGGING)
    for name, value in (
        ("snips", truth),
        ("doubly_robust", truth),
        ("snips_difference", difference),
        ("doubly_robust_difference", difference),
        ("logged", mean(LOGGING)),
    ):
        intervals = [getattr(one, name) for one in found]
        assert sum(one.low <= value <= one.high for one in intervals) >= 33, name
        assert sum(one.value for one in intervals) / 40 == pytest.approx(value, abs=0.02), name
    assert {one.verdict for one in found} == {BETTER}


def test_a_good_model_makes_it_surer():
    """The doubly robust interval is narrower than that of inverse propensity alone where the model is true."""
    rates, target = (0.95, 0.3, 0.2), (0.1, 0.1, 0.8)
    found = compare(logged(2000, 1, rates, (0.6, 0.3, 0.1), target))
    assert found.doubly_robust.high - found.doubly_robust.low < found.snips.high - found.snips.low
    assert found.verdict == WORSE
    assert found.said.startswith("worse: -")


def test_what_cannot_be_told_apart_is_inconclusive():
    """An interval of the difference that spans zero is called inconclusive, with how much it is worth."""
    found = compare(logged(300, 2, (0.6, 0.6, 0.6), LOGGING, TARGET))
    assert found.verdict == INCONCLUSIVE
    assert found.said.startswith("inconclusive: ")
    assert "300 decisions" in found.said
    assert found.supported == found.decisions == 300
    assert 20 < found.effective_decisions < 300
    assert found.mean_weight == pytest.approx(1.0, abs=0.2)


def test_the_same_policy_is_no_different():
    """Judged by itself a policy reaches what it reached, each decision worth one."""
    found = compare(logged(200, 3, RATES, LOGGING, LOGGING))
    assert found.snips == found.logged
    assert (found.snips_difference.value, found.effective_decisions) == (0.0, pytest.approx(200.0))
    assert found.verdict == INCONCLUSIVE


def test_a_handful_of_matches_is_inconclusive_whatever_the_interval():
    """Where a few rare choices carry all the weight nothing is concluded, and it is said why."""
    missed = Logged(propensity=0.99, success=False, target=0.0, model_chosen=0.1, model_target=0.9)
    matched = Logged(propensity=0.01, success=True, target=1.0, model_chosen=0.9, model_target=0.9)
    found = compare([missed] * 600 + [matched] * 6)
    assert found.effective_decisions == pytest.approx(6.0)
    assert min(found.snips_difference.low, found.doubly_robust_difference.low) > 0.5
    assert found.verdict == INCONCLUSIVE
    assert "fewer than the 20" in found.said


def test_estimators_that_contradict_each_other_conclude_nothing():
    """Where the two estimates lie on different sides of zero the word is inconclusive."""
    made = [Logged(propensity=0.5, success=True, target=0.9, model_chosen=0.0, model_target=0.0)] * 30
    made += [Logged(propensity=0.5, success=False, target=0.1, model_chosen=1.0, model_target=0.0)] * 30
    found = compare([*made, *[Logged(propensity=0.5, success=True, target=0.1, model_chosen=1.0, model_target=0.0)] * 90])
    assert found.verdict == INCONCLUSIVE
    assert found.snips_difference.low > 0.0
    assert found.doubly_robust_difference.high < 0.0


def test_without_exploration_nothing_is_estimated():
    """Propensities of 1 everywhere say nothing of a policy that differs, and that is said."""
    made = [Logged(propensity=1.0, success=True, target=target, model_target=0.9) for target in (1.0, 0.0, 0.0)] * 20
    found = compare(made)
    assert (found.verdict, found.snips, found.doubly_robust_difference) == (NOT_ESTIMABLE, None, None)
    assert "every propensity is 1" in found.said
    assert (found.decisions, found.supported) == (60, 20)


def test_without_exploration_a_policy_that_agrees_is_known():
    """Where the other policy would have done the same, what was reached is what it reaches."""
    found = compare([Logged(propensity=1.0, success=n % 4 > 0, target=1.0) for n in range(40)])
    assert (found.snips.value, found.logged.value) == (0.75, 0.75)
    assert found.verdict == INCONCLUSIVE


def test_what_was_not_left_to_chance_is_left_out():
    """Decisions without a choice do not count where the policies differ, and are counted for the reader."""
    made = logged(500, 5, RATES, LOGGING, TARGET)
    pinned = [Logged(propensity=1.0, success=False, target=0.0)] * 100
    found, without = compare(made + pinned), compare(made)
    assert (found.snips, found.doubly_robust) == (without.snips, without.doubly_robust)
    assert (found.decisions, found.supported) == (600, 500)
    assert "100 more" in found.said


def test_a_log_that_holds_nothing_of_it():
    """No decision at all, or none that the other policy would ever have made, is told apart."""
    assert "no decision" in compare([]).said
    never = compare([Logged(propensity=0.5, success=True, target=0.0)] * 10)
    assert (never.verdict, never.effective_decisions) == (NOT_ESTIMABLE, 0.0)
    assert "never" in never.said
    only_sure = compare([Logged(propensity=1.0, success=True, target=0.0)] * 10)
    assert (only_sure.verdict, only_sure.supported) == (NOT_ESTIMABLE, 0)


@pytest.mark.parametrize("propensity", [0.0, -0.1, 1.1])
def test_a_propensity_that_cannot_be(propensity):
    """A choice that could not have been made was not made."""
    with pytest.raises(ValueError, match="propensity"):
        compare([Logged(propensity=propensity, success=True, target=0.5)])


rates_of_any_kind = st.floats(0.01, 1.0)


@given(st.lists(st.builds(Logged, propensity=rates_of_any_kind, success=st.booleans(), target=st.floats(0.0, 1.0)), max_size=30))
def test_any_log_is_judged(made):
    """Whatever was logged there is a verdict, a sentence that begins with it, and an estimate of at most every decision's worth."""
    found = compare(made, resamples=10)
    assert found.said.startswith(found.verdict)
    assert 0.0 <= found.effective_decisions <= found.supported + 1e-6
    assert found.snips is None or -1e-9 <= found.snips.low <= found.snips.value <= found.snips.high <= 1.0 + 1e-9


def test_tasks_needed():
    """80 % against 85 % takes 906 tasks an arm, whichever comes first; more power or a smaller difference takes more."""
    assert tasks_needed(0.8, 0.85) == tasks_needed(0.85, 0.8) == 906
    assert tasks_needed(0.5, 0.6) == 388
    assert tasks_needed(0.8, 0.85, power=0.9) > 906
    assert tasks_needed(0.8, 0.85, alpha=0.01) > 906
    assert tasks_needed(0.8, 0.81) > 20_000


@pytest.mark.parametrize("wrong", [(0.8, 0.8), (-0.1, 0.5), (0.5, 1.1)])
def test_tasks_needed_for_nothing(wrong):
    """No number of tasks tells equal rates apart, or rates that cannot be."""
    with pytest.raises(ValueError, match="different rates"):
        tasks_needed(*wrong)
    with pytest.raises(ValueError, match="different rates"):
        tasks_needed(0.5, 0.6, alpha=0.0)
