"""How what an agent has shown corrects what came in."""

import subprocess
import sys
from math import exp, log, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phase21.domain.evidence import SCORE_LEAST, SCORE_MOST, Evidence, Observation
from phase21.domain.judgements import Calibration
from phase21.domain.records import AgentRecord
from phase21.domain.tasks import Task
from phase21.planning import forecast as forecast_module
from phase21.planning.forecast import Forecast
from phase21.planning.variances import NOISE, OWN, SHARED


def forecast(evidence: Calibration, *, enabled: bool = True) -> Forecast:
    return Forecast([AgentRecord(agent_id="a", calibration=evidence)], enabled=enabled)


def logit(rate: float) -> float:
    return log(rate / (1 - rate))


@pytest.mark.parametrize("rate", [0.0, 0.1, 1 / 3, 0.85, 1.0])
def test_no_evidence(rate):
    """Without evidence what came in stays as it is, bit for bit."""
    assert forecast(Calibration()).predicted(Task(task_id="t", predicted_success_rate=rate), "a") == rate


def test_switched_off():
    """Learning that is switched off corrects nothing."""
    assert forecast(Calibration(100, 10, 90.0), enabled=False).predicted(Task(task_id="t"), "a") == 0.85


def test_evidence_that_agrees():
    """Evidence that agrees with what came in moves nothing, not even 0 and 1."""
    agreeing = forecast(Calibration(20, 17, 20 * 0.85))
    for rate in (0.0, 0.3, 1.0):
        assert agreeing.predicted(Task(task_id="t", predicted_success_rate=rate), "a") == rate


def test_by_hand():
    """Twenty tasks predicted at 0.8 of which eight succeed weigh as much as the prior: 0.8 becomes 0.6."""
    corrected = forecast(Calibration(20, 8, 16.0))
    assert corrected.predicted(Task(task_id="t", predicted_success_rate=0.8), "a") == pytest.approx(0.6)
    moved = logit(0.5) + logit(0.6) - logit(0.8)
    assert corrected.predicted(Task(task_id="t", predicted_success_rate=0.5), "a") == pytest.approx(1 / (1 + exp(-moved)))
    assert corrected.factor("a") == pytest.approx(exp(logit(0.6) - logit(0.8)))


def test_prediction_per_agent():
    """What the planner predicts for the agent itself is what is corrected; one that is not configured keeps the task's own rate."""
    task = Task(task_id="t", predicted_success_rate=0.3, predictions={"a": 0.8})
    corrected = forecast(Calibration(20, 8, 16.0))
    assert corrected.predicted(task, "a") == pytest.approx(0.6)
    assert corrected.predicted(task, "b") == 0.3
    assert corrected.factor("b") == 1.0


def test_certainty_is_brought_in():
    """Where there is something to correct, 0 and 1 are taken as 0.001 and 0.999, and so are rates of evidence."""
    corrected = forecast(Calibration(20, 0, 20.0))
    assert corrected.factor("a") == pytest.approx(exp(logit(0.5) - logit(0.999)))
    assert corrected.predicted(Task(task_id="t", predicted_success_rate=1.0), "a") == pytest.approx(0.5)
    assert 0.0 < corrected.predicted(Task(task_id="t", predicted_success_rate=0.0), "a") < 0.001


@given(
    st.integers(1, 500).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.floats(0, 1))),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_order_is_kept(evidence, one, other):
    """Correction keeps rates within 0 and 1 and never turns the order of two tasks round."""
    samples, successes, mean = evidence
    corrected = forecast(Calibration(samples, successes, mean * samples))
    low, high = sorted((one, other))
    rates = [corrected.predicted(Task(task_id="t", predicted_success_rate=rate), "a") for rate in (low, high)]
    assert 0.0 <= rates[0] <= rates[1] <= 1.0


# -- tasks with features -----------------------------------------------------------------------------------------------


def attempts(agent_id, outcomes, size, stretch=None):
    return [Observation(agent_id, "simulate", 0.8, (), {"size": size}, success, stretch) for success in outcomes]


def two() -> list[AgentRecord]:
    return [AgentRecord(agent_id=name, kinds={"simulate": Calibration(20, 12, 16.0)}) for name in "ab"]


def both() -> Evidence:
    seen = attempts("a", [True] * 10, 1.0) + attempts("a", [False] * 10, 2.0)
    return Evidence(observations=seen + attempts("b", [False] * 10, 1.0) + attempts("b", [True] * 10, 2.0))


SMALL = Task(task_id="small", features={"size": 1.0}, predicted_success_rate=0.8)
LARGE = Task(task_id="large", features={"size": 2.0}, predicted_success_rate=0.8)
PLAIN = Task(task_id="plain", predicted_success_rate=0.8)


def test_features_are_looked_at():
    """What a task says of itself decides between agents of the same record; a task that says nothing is predicted by records."""
    made = Forecast(two(), enabled=True, evidence=both())
    assert made.predicted(SMALL, "a") > made.predicted(SMALL, "b") + 0.2
    assert made.predicted(LARGE, "a") < made.predicted(LARGE, "b") - 0.2
    assert made.predicted(PLAIN, "a") == made.predicted(PLAIN, "b") == Forecast(two(), enabled=True).predicted(PLAIN, "a")
    assert [made.modelled(one) for one in (SMALL, PLAIN)] == [True, False]
    assert made.score(SMALL, "a") is not None
    assert made.score(PLAIN, "a") is None


def test_an_agent_that_is_not_configured_is_not_modelled():
    """Of an agent that is not there what came in is all that is known; what it has shown is not looked at."""
    made = Forecast(two(), enabled=True, evidence=both())
    assert made.predicted(SMALL, "gone") == 0.8
    assert made.expected_s(SMALL, "gone") == 1.0
    assert made.score(SMALL, "gone") is None
    gone = Evidence(observations=attempts("gone", [False] * 20, 1.0))
    without = Forecast(two(), enabled=True, evidence=gone)
    assert not without.modelled(SMALL)
    assert without.predicted(SMALL, "a") == Forecast(two(), enabled=True).predicted(SMALL, "a")


@pytest.mark.parametrize("one", [SMALL, PLAIN])
def test_learning_that_is_switched_off_uses_nothing(one):
    """Neither records nor evidence are used, and what came in stays, bit for bit."""
    made = Forecast(two(), enabled=False, evidence=both())
    assert [made.predicted(one, name) for name in "ab"] == [0.8, 0.8]
    assert made.expected_s(one, "a") == one.estimated_duration_s
    assert not made.modelled(one)
    assert made.score(one, "a") is None


def test_evidence_without_an_attempt_is_none():
    """Where nothing was observed features are not looked at, whatever was learned before."""
    made = Forecast(two(), enabled=True, evidence=Evidence(learned=7))
    made.prepare([SMALL])
    assert not made.modelled(SMALL)
    assert made.predicted(SMALL, "a") == made.predicted(PLAIN, "a")


def test_without_numpy_features_are_not_used(monkeypatch):
    """Without the extra a task with features is predicted as one without."""
    monkeypatch.setattr(forecast_module, "LEARNS_FEATURES", False)
    monkeypatch.setitem(sys.modules, "numpy", None)
    monkeypatch.delitem(sys.modules, "phase21.planning.outlook", raising=False)
    monkeypatch.delitem(sys.modules, "phase21.planning.encoding", raising=False)
    made, bare = Forecast(two(), enabled=True, evidence=both()), Forecast(two(), enabled=True)
    made.prepare([SMALL, LARGE])
    for one in (SMALL, LARGE, PLAIN):
        for name in "ab":
            assert made.predicted(one, name) == bare.predicted(one, name) == bare.predicted(PLAIN, name)
            assert made.expected_s(one, name) == bare.expected_s(one, name)
            assert made.doubt(one, name) == bare.doubt(one, name)
        assert made.score(one, "a") is None
        assert made.after_failures(one, ["a"]) == bare.after_failures(one, ["a"])


OTHER_PROCESS = """
import sys
{before}
from phase21.domain.evidence import Evidence, Observation
from phase21.domain.records import AgentRecord
from phase21.domain.tasks import Task
from phase21.planning import forecast
from phase21.planning.planner import plan
from phase21.planning.registry import STRATEGIES

agents = [AgentRecord(agent_id=name) for name in "ab"]
seen = Evidence(observations=[Observation("a", "simulate", 0.8, (), {{"size": 1.0}}, True)] * 9)
tasks = [Task(task_id=f"t{{n}}", features={features}) for n in range(4)]
for name in STRATEGIES:
    made = plan(tasks, agents, forecast=forecast.Forecast(agents, enabled=True, evidence=seen), strategy=name)
    assert len(made.assignments) == 4
print(forecast.LEARNS_FEATURES, bool(sys.modules.get("numpy")), made.assignments[0].predicted == 0.85)
"""


@pytest.mark.parametrize(
    ("before", "features", "said"),
    [
        ('sys.modules["numpy"] = None', "{'size': 1.0}", "False False True"),
        ("", "{}", "True False True"),
        ("", "{'size': 1.0}", "True True False"),
    ],
    ids=["not installed", "not needed", "needed"],
)
def test_numpy_is_loaded_where_it_is_installed_and_features_are_met(before, features, said):
    """Every strategy plans without the extra; with it, it is loaded for tasks with features alone."""
    pytest.importorskip("numpy")
    program = OTHER_PROCESS.format(before=before, features=features)
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert shown.stdout.strip() == said, shown.stderr


def test_prepared_or_not():
    """What is asked about one after the other is remembered; preparing asks about what is new alone."""
    made = Forecast(two(), enabled=True, evidence=both())
    first = made.predicted(SMALL, "a")
    made.prepare([SMALL, LARGE])
    made.prepare([SMALL, LARGE])
    assert made.predicted(SMALL, "a") == first
    assert made.predicted(LARGE, "a") < first


def test_durations():
    """Without features an estimate is stretched as the agent's durations were; without any it stays, bit for bit."""
    slow = Calibration(20, 16, 16.0, 20, 20 * log(2.0))
    made = Forecast([AgentRecord(agent_id="a", kinds={"simulate": slow}), AgentRecord(agent_id="b")], enabled=True)
    assert made.expected_s(Task(task_id="t", estimated_duration_s=3.0), "a") == pytest.approx(
        3.0 * exp(log(2.0) * (20 + 5 * 0.8) / 25)
    )
    assert 3.0 < made.expected_s(Task(task_id="t", estimated_duration_s=3.0), "b") < 6.0
    assert forecast(Calibration()).expected_s(Task(task_id="t", estimated_duration_s=0.3), "a") == 0.3


def test_doubt():
    """Doubt is the standard deviation of a Beta distribution: most at even odds, and less the more an agent has shown."""
    fresh, known = forecast(Calibration()), forecast(Calibration(100, 85, 85.0))
    even, high = (Task(task_id="t", predicted_success_rate=rate, kind="") for rate in (0.5, 0.85))
    assert fresh.doubt(even, "a") == pytest.approx(sqrt(0.25 / 21))
    assert fresh.doubt(even, "a") > fresh.doubt(high, "a") > known.doubt(high, "a") > 0.0
    assert known.doubt(high, "a") == pytest.approx(sqrt(0.85 * 0.15 / 121))
    certain = Task(task_id="t", predicted_success_rate=1.0)
    assert fresh.doubt(certain, "a") == pytest.approx(sqrt(SCORE_LEAST * SCORE_MOST / 21))


# -- after failures ----------------------------------------------------------------------------------------------------

NAMES = ("a", "b", "c")
RATES = st.tuples(*[st.floats(0.25, 0.95) for _ in NAMES])


def after(rates, failed):
    task = Task(task_id="t", predictions=dict(zip(NAMES, rates, strict=True)))
    return Forecast([AgentRecord(agent_id=name) for name in NAMES], enabled=True).after_failures(task, failed)


@given(RATES)
def test_without_a_failure_nothing_moves(rates):
    """Where nobody failed that is configured, the rates are those predicted, bit for bit."""
    assert after(rates, []) == after(rates, ["gone"]) == list(rates)


@given(RATES, st.sampled_from(NAMES), st.integers(1, 5))
def test_a_failure_lowers_the_agent_that_failed_the_most(rates, failed, times):
    """All are lowered, the others equally, and the one that failed the more."""
    made = after(rates, [failed] * times)
    drops = {name: had - has for name, had, has in zip(NAMES, rates, made, strict=True)}
    own = drops.pop(failed)
    assert own > max(drops.values()) > 0.0
    for name, drop in drops.items():
        assert drop == pytest.approx(max(drops.values())) or made[NAMES.index(name)] == SCORE_LEAST


@given(RATES, st.sampled_from(NAMES))
def test_every_further_failure_lowers_more(rates, failed):
    """An agent that fails again is thought worse again, and so are the others."""
    once, twice = after(rates, [failed]), after(rates, [failed] * 2)
    assert all(more <= less for more, less in zip(twice, once, strict=True))
    assert twice[NAMES.index(failed)] < once[NAMES.index(failed)] or twice[NAMES.index(failed)] == SCORE_LEAST


@given(RATES, st.lists(st.sampled_from(NAMES), max_size=8))
def test_the_order_of_failures_does_not_matter(rates, failed):
    """The same failures in another order lower the same."""
    assert after(rates, failed) == pytest.approx(after(rates, failed[::-1]))


@given(RATES, st.lists(st.sampled_from(NAMES), min_size=1, max_size=8))
def test_after_failures_is_the_conditional_mean(rates, failed):
    """It is the mean of a normal distribution with the variances of the regression, given that each that failed missed its rate."""
    np = pytest.importorskip("numpy")
    hit = [NAMES.index(name) for name in dict.fromkeys(failed)]
    noise = [NOISE / failed.count(NAMES[place]) for place in hit]
    prior = SHARED * np.ones((3, 3)) + OWN * np.eye(3)
    between = prior[np.ix_(hit, hit)] + np.diag(noise)
    expected = np.array(rates) + prior[:, hit] @ np.linalg.solve(between, -np.array(rates)[hit])
    assert after(rates, failed) == pytest.approx(np.clip(expected, SCORE_LEAST, SCORE_MOST), abs=1e-9)


# -- how an attempt may last -------------------------------------------------------------------------------------------


def test_outlook_without_failures_is_what_is_expected():
    """Where no failure was measured, an attempt lasts as expected, surely."""
    made = forecast(Calibration()).outlook(Task(task_id="t", estimated_duration_s=3.0), "a")
    assert (made.rate, made.seconds, made.failing_s, made.spread) == (1.0, 3.0, 3.0, 0.0)


def test_outlook_after_failures():
    """A failure is expected to last as failures did, no longer than the task's timeout, and a success no longer than that."""
    seen = Evidence(observations=attempts("a", [False] * 4, 1.0, stretch=log(4.0)) + attempts("a", [True] * 4, 1.0, stretch=0.0))
    made = Forecast(two(), enabled=True, evidence=seen)
    plain = Task(task_id="p", estimated_duration_s=2.0)
    told = made.outlook(plain, "a")
    assert (told.rate, told.seconds) == (made.predicted(plain, "a"), made.expected_s(plain, "a"))
    assert told.failing_s == pytest.approx(8.0)
    assert told.spread > 0.0
    hasty = made.outlook(Task(task_id="h", estimated_duration_s=2.0, timeout_s=1.0), "a")
    assert (hasty.seconds, hasty.failing_s) == (1.0, 1.0)
    patient = made.outlook(Task(task_id="i", estimated_duration_s=2.0, timeout_s=99.0), "a")
    assert patient.failing_s == pytest.approx(8.0)
    assert made.outlook(Task(task_id="z", estimated_duration_s=0.0), "a").failing_s > 0.0
