"""What rates by agent and kind say against what came in."""

from math import exp, log

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phase21.domain.evidence import log_odds, rate_of
from phase21.domain.judgements import Calibration
from phase21.domain.records import AgentRecord
from phase21.domain.tasks import Task
from phase21.planning.forecast import Forecast
from phase21.planning.rates import KAPPA, KAPPA_STRETCH, Rates

NAMES = ("a", "b", "c", "d")
KINDS = ("x", "y", "z")


def shown(samples, successes, mean=0.8):
    return Calibration(samples, successes, samples * mean)


def agent(name, **kinds):
    return AgentRecord(agent_id=name, kinds=kinds, calibration=sum(kinds.values(), Calibration()))


def shift_of(evidence, expected):
    """A Beta posterior's log-odds against those expected."""
    return log_odds((KAPPA * expected + evidence.successes) / (KAPPA + evidence.samples)) - log_odds(expected)


@st.composite
def calibrations(draw):
    samples = draw(st.sampled_from([1, 2, 10, 60, 500]))
    return Calibration(samples, draw(st.integers(0, samples)), samples * draw(st.sampled_from([0.0, 0.3, 0.8, 1.0])))


@st.composite
def fleets(draw):
    return [agent(name, **draw(st.dictionaries(st.sampled_from(KINDS), calibrations()))) for name in NAMES]


@given(st.sampled_from(KINDS), st.floats(0, 1))
def test_no_evidence_no_correction(kind, rate):
    """Without evidence every factor is 1 and every rate stays as it came in, bit for bit."""
    rates = Rates([AgentRecord(agent_id=name) for name in NAMES])
    assert rates.factor("a", kind) == 1.0
    assert rates.level(rate, kind) == rate
    assert rates.stretch("a") == 1.0
    assert rates.samples("a", kind) == 0


@given(fleets(), st.sampled_from(KINDS))
def test_an_agent_that_is_not_configured_is_not_corrected(fleet, kind):
    """Nothing is said of an agent that is not there."""
    assert Rates(fleet).factor("nobody", kind) == 1.0
    assert Rates(fleet).samples("nobody", kind) == 0


def test_an_agent_without_a_record_starts_from_the_others():
    """What the others have shown together corrects one that has shown nothing."""
    rates = Rates([agent("a", x=shown(20, 8)), agent("b", x=shown(20, 4)), agent("c")])
    together = shown(40, 12)
    assert rates.factor("c", "x") == pytest.approx(exp(shift_of(together, 0.8)))


def test_an_agent_s_own_record_is_no_part_of_what_it_starts_from():
    """An agent is held against the others alone, and then against what that expects of it."""
    rates = Rates([agent("a", x=shown(20, 8)), agent("b", x=shown(40, 10))])
    start = shift_of(shown(40, 10), 0.8)
    expected = rate_of(log_odds(0.8) + start)
    assert rates.factor("a", "x") == pytest.approx(exp(start + shift_of(shown(20, 8), expected)))
    alone = Rates([agent("a", x=shown(20, 8)), agent("b")])
    assert alone.factor("a", "x") == pytest.approx(exp(shift_of(shown(20, 8), 0.8)))


def test_kinds_by_hand():
    """At a kind an agent starts from what the others have shown at that kind, shifted by what it has shown over all."""
    fleet = [agent("a", x=shown(30, 24)), agent("b", x=shown(20, 18), y=shown(20, 2)), agent("c")]
    rates = Rates(fleet)
    everyone, of_y = shown(70, 44), shown(20, 2)
    level = shift_of(everyone, 0.8)
    at_y = level + shift_of(of_y, rate_of(log_odds(0.8) + level))
    assert rates.factor("c", "y") == pytest.approx(exp(at_y))
    assert rates.factor("c", "new") == pytest.approx(exp(level))
    assert rates.level(0.6, "y") == pytest.approx(rate_of(log_odds(0.6) + at_y))
    others = shift_of(shown(30, 24), 0.8)  # what a has shown is all that b is held against
    at_x = others + shift_of(shown(30, 24), rate_of(log_odds(0.8) + others))
    mean = (20 * rate_of(log_odds(0.8) + at_x) + 20 * rate_of(log_odds(0.8) + others)) / 40
    personal = shift_of(shown(40, 20), mean)
    own_at_y = shift_of(of_y, rate_of(log_odds(0.8) + others + personal))
    assert rates.factor("b", "y") == pytest.approx(exp(others + personal + own_at_y))


def test_kinds_tell_agents_apart():
    """Of two agents each is thought better at the kind that it has shown itself good at, and both as good at a new one."""
    rates = Rates([agent("a", x=shown(40, 38), y=shown(40, 10)), agent("b", x=shown(40, 10), y=shown(40, 38))])
    assert rates.factor("a", "x") > rates.factor("b", "x")
    assert rates.factor("a", "y") < rates.factor("b", "y")
    assert rates.factor("a", "z") == rates.factor("b", "z")


def test_a_journal_from_before_kinds():
    """An agent of which only the sum is known is corrected by it, whatever the kind, as if all had been of one."""
    old = Rates([AgentRecord(agent_id="a", calibration=shown(20, 8))])
    new = Rates([agent("a", x=shown(20, 8))])
    assert old.factor("a", "x") == old.factor("a", "y") == new.factor("a", "x")


@given(fleets(), st.sampled_from((*KINDS, "new")), st.floats(0, 1), st.floats(0, 1))
@settings(deadline=None)
def test_order_is_kept(fleet, kind, one, other):
    """At one agent correction never turns the order of two tasks of a kind round, and keeps rates within 0 and 1."""
    forecast, rates = Forecast(fleet, enabled=True), Rates(fleet)
    low, high = sorted((one, other))
    for name in NAMES:
        easy, hard = (forecast.predicted(Task(task_id="t", kind=kind, predicted_success_rate=rate), name) for rate in (high, low))
        assert 0.0 <= hard <= easy <= 1.0
    assert 0.0 <= rates.level(low, kind) <= rates.level(high, kind) <= 1.0


@given(fleets(), st.permutations(NAMES), st.sampled_from(KINDS))
@settings(deadline=None)
def test_the_order_of_agents_does_not_matter(fleet, order, kind):
    """What is thought of an agent does not depend on where it stands in the fleet."""
    by_name = {one.agent_id: one for one in fleet}
    turned = Rates([by_name[name] for name in order])
    for name in NAMES:
        assert turned.factor(name, kind) == pytest.approx(Rates(fleet).factor(name, kind), rel=1e-9)


@given(calibrations(), st.lists(calibrations(), max_size=3), st.sampled_from(KINDS))
def test_the_same_record_is_the_same_factor(own, others, kind):
    """Two agents that have shown the same are thought the same of, to the last bit."""
    rest = [agent(f"o{n}", x=other) for n, other in enumerate(others)]
    rates = Rates([agent("a", x=own), *rest, agent("b", x=own)])
    assert rates.factor("a", kind) == rates.factor("b", kind)


@given(fleets(), st.sampled_from(NAMES), st.sampled_from(KINDS), st.integers(1, 50))
@settings(deadline=None)
def test_more_successes_never_lower_a_rate(fleet, name, kind, more):
    """An agent with more successes among as many tasks of a kind is not thought worse at that kind."""
    (old,) = [one for one in fleet if one.agent_id == name]
    had = old.kinds.get(kind)
    if had is None:
        return
    better = Calibration(had.samples, min(had.samples, had.successes + more), had.predicted_sum)
    turned = [agent(one.agent_id, **(one.kinds | ({kind: better} if one is old else {}))) for one in fleet]
    assert Rates(turned).factor(name, kind) >= Rates(fleet).factor(name, kind) - 1e-9


@pytest.mark.parametrize("successes", [0.2, 0.6, 1.0])
def test_the_more_it_has_shown_the_more_it_counts(successes):
    """With ever more evidence the prediction goes to what the agent does, from what the others do."""
    task, apart = Task(task_id="t", kind="x", predicted_success_rate=0.8), []
    for samples in (5, 50, 500, 5000):
        fleet = [agent("a", x=shown(samples, round(successes * samples))), agent("b", x=shown(100, 40))]
        apart.append(abs(Forecast(fleet, enabled=True).predicted(task, "a") - successes))
    assert apart == sorted(apart, reverse=True)
    assert apart[-1] < 0.01


def test_samples():
    """How much is known of an agent at a kind is how many tasks of it it has ended."""
    rates = Rates([agent("a", x=shown(7, 3), y=shown(2, 2)), agent("b")])
    assert [rates.samples("a", "x"), rates.samples("a", "z"), rates.samples("b", "x")] == [7, 0, 0]


def test_stretch():
    """Durations are a geometric mean, shrunk to that of the fleet, which is shrunk to what was estimated."""
    slow = Calibration(4, 4, 3.2, 4, 4 * log(3.0))
    rates = Rates([AgentRecord(agent_id="a", kinds={"x": slow}), AgentRecord(agent_id="b")])
    everyone = 4 * log(3.0) / (4 + KAPPA_STRETCH)
    assert rates.stretch("b") == pytest.approx(exp(everyone))
    assert rates.stretch("a") == pytest.approx(exp((4 * log(3.0) + KAPPA_STRETCH * everyone) / (4 + KAPPA_STRETCH)))
    assert 1.0 < rates.stretch("b") < rates.stretch("a") < 3.0


def test_the_noise_of_sums_sets_nobody_apart():
    """Two agents whose predictions came in another order, and so add up to another last bit, are thought the same of."""
    one, other = Calibration(3, 1, 0.1 + 0.2 + 0.3), Calibration(3, 1, 0.3 + 0.2 + 0.1)
    assert one != other
    for rest in ({}, {"y": shown(7, 3)}):
        rates = Rates([agent("a", x=one), agent("b", x=other), agent("c", **rest)])
        assert rates.factor("a", "x") == rates.factor("b", "x")
