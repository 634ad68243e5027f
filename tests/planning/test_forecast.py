"""How what an agent has shown corrects what came in."""

from math import exp, log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phase21.domain.judgements import Calibration
from phase21.domain.records import AgentRecord
from phase21.domain.tasks import Task
from phase21.planning.forecast import Forecast


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
    """What the planner predicts for the agent itself is what is corrected; another agent keeps the task's own rate."""
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
