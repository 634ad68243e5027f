"""What a wave teaches, by hand."""

from math import log, sqrt

import pytest

from phase21.domain.judgements import Anomaly, Calibration, Severity, Validation
from phase21.domain.plans import Assignment
from phase21.domain.records import AgentRecord, AssignedBatch, RunRecord, TaskRecord, WaveRecord
from phase21.domain.settings import HealthSettings
from phase21.domain.tasks import Task, TaskStatus
from phase21.evaluation.lessons import (
    coordination_rows,
    error_analysis,
    evidence,
    heuristic_rows,
    signals,
    validations,
    wilson_half_width,
)
from phase21.evaluation.metrics import measure
from phase21.evaluation.scoring import score

RUN = RunRecord(run_id="r")


def record(task_id, status, agent_id=None, *, heuristics=(), **fields):
    task = Task(task_id=task_id, heuristics=heuristics)
    return TaskRecord(task=task, status=TaskStatus(status), agent_id=agent_id, **fields)


def anomaly(kind, agent_id=None):
    return (0, Anomaly(anomaly_type=kind, severity=Severity.LOW, wave=3, agent_id=agent_id, description="d", recommendation="r"))


def wave(*records, **fields):
    given = tuple(Assignment(made.task.task_id, made.agent_id, 0.5, 0.5) for made in records if made.agent_id)
    return WaveRecord(
        run_id="r",
        number=3,
        tasks={made.task.task_id: made for made in records},
        batches=[AssignedBatch(0, "load_balanced", given)],
        **fields,
    )


def health_of(judged, *names):
    return score(*measure(judged, [AgentRecord(agent_id=name) for name in names]), HealthSettings())


def usual():
    return wave(
        record(
            "t1",
            "COMPLETED",
            "a",
            heuristics=("h1", "h2", "h1"),
            predicted=0.9,
            raw=0.8,
            attempts=1,
            end_us=2_000_000,
            duration_s=0.5,
        ),
        record("t2", "FAILED", "a", heuristics=("h1",), predicted=0.6, raw=0.7, attempts=2, end_us=3_000_000, duration_s=1.5),
        record("t3", "COMPLETED", "b", predicted=0.25, raw=0.5, attempts=1, end_us=6_000_000),
        record("t4", "FAILED", "b", heuristics=("h3",), predicted=0.9, raw=0.9),
        record("t5", "CANCELLED", "b", heuristics=("h3",), predicted=0.9, raw=0.9, attempts=1, end_us=7_000_000),
        record("t6", "DEFERRED", "c"),
        settled_us=9_500_000,
        moved=2,
        fleet=["a", "b", "c", "d"],
    )


def sent(kind, judged=None, run=RUN):
    judged = judged or usual()
    told = signals(judged, health_of(judged, "a", "b", "c", "d"), run, 4)
    return [signal for signal in told if signal.signal_type == kind]


def test_wilson():
    """The half-width is that of Wilson's interval: 8 of 10 lie within 0.4902 and 0.9433."""
    assert wilson_half_width(8, 10) == pytest.approx((0.943318 - 0.490162) / 2, abs=1e-5)
    z = 1.959963984540054
    assert wilson_half_width(3, 4) == pytest.approx(z / (1 + z * z / 4) * sqrt(0.75 * 0.25 / 4 + z * z / 64))
    assert wilson_half_width(0, 0) == pytest.approx(0.5)


def test_order_of_signals():
    """Signals come by agent, then for the wave, then by heuristic; those about tasks are kept apart."""
    told = signals(usual(), health_of(usual(), "a", "b", "c", "d"), RUN, 4)
    assert [(signal.signal_type, signal.target_phase) for signal in told] == [
        *[("agent_performance", 18)] * 3,
        ("multi_agent_coordination", 18),
        *[("heuristic_feedback", 16)] * 2,
    ]


def test_agent_performance():
    """An agent's signal tells its part; an agent of which nothing was started has no rate, and no more than even confidence."""
    first, _, last = sent("agent_performance")
    assert first.content == {
        "agent_id": "a",
        "assigned_tasks": 2,
        "completed_tasks": 1,
        "success_rate": 0.5,
        "mean_latency_s": 1.0,
        "retries": 1,
    }
    assert first.confidence == 1 - wilson_half_width(1, 2)
    assert (last.content["agent_id"], last.content["success_rate"], last.confidence) == ("c", None, pytest.approx(0.5))


def test_coordination():
    """The wave's signal tells who did how much, how even it was, how long the first waited, and what was moved."""
    (signal,) = sent("multi_agent_coordination")
    assert signal.content == {
        "total_agents": 4,
        "load_distribution": {"a": 2, "b": 1, "c": 0, "d": 0},
        "load_balance": 0.0,
        "synchronization_time_s": 6.5,
        "interference_count": 2,
    }
    assert signal.confidence == 1 - wilson_half_width(2, 3)


@pytest.mark.parametrize(
    "judged", [wave(record("t1", "DEFERRED", "a")), wave(record("t1", "COMPLETED", "a", attempts=1, end_us=5, predicted=0.5))]
)
def test_no_synchronization(judged):
    """Where nothing ran, or the barrier has not been reached, nobody waited for it."""
    assert sent("multi_agent_coordination", judged)[0].content["synchronization_time_s"] is None


def test_prediction_validation():
    """Every task that was started and ended tells prediction, outcome and the distance between them, in task order."""
    first, second, third = validations(usual())
    assert first == Validation("t1", "a", 0.9, True)
    assert first.delta == pytest.approx(0.1)
    assert (second.success, second.delta) == (False, 0.6)
    assert (third.task_id, third.delta) == ("t3", 0.75)


@pytest.mark.parametrize(
    ("predicted", "success", "said"),
    [
        (0.5, True, "as predicted"),
        (0.5 - 1e-10, True, "as predicted"),
        (0.49, True, "underestimated"),
        (0.1, True, "underestimated: failure was nearly certain"),
        (0.49, False, "as predicted"),
        (0.5, False, "overestimated"),
        (0.89, False, "overestimated"),
        (0.9, False, "overestimated: success was nearly certain"),
    ],
)
def test_error_analysis(predicted, success, said):
    """A prediction held or did not, and how far off it was is said in a phrase."""
    assert error_analysis(predicted, success) == said


def test_heuristic_feedback():
    """A heuristic's signal is about its tasks alone; a task counts once, and one that was never started not at all."""
    judged = usual()
    judged.anomalies = [
        anomaly("prediction_drift"),
        anomaly("agent_failure", "b"),
        anomaly("agent_stuck", "a"),
        anomaly("prediction_drift"),
    ]
    first, second = sent("heuristic_feedback", judged, RunRecord(run_id="r", heuristics={"h1": (3, 4)}))
    assert first.content == {
        "heuristic_id": "h1",
        "pattern_observations": [
            "1 of 2 tasks succeeded; 75.0% were predicted to",
            "1 of 2 predictions held",
            "accuracy moved by -25.0 points against the waves before",
        ],
        "anomalies_detected": ["prediction_drift", "agent_stuck"],
        "recommendations": [],
        "accuracy": 0.5,
    }
    assert first.confidence == 1 - wilson_half_width(1, 2)
    assert (second.content["heuristic_id"], second.content["accuracy"]) == ("h2", 1.0)
    assert len(second.content["pattern_observations"]) == 2


@pytest.mark.parametrize(
    ("status", "predicted", "said"),
    [
        (
            "FAILED",
            0.9,
            ["lower the predictions that this heuristic shapes", "do not rely on this heuristic until its predictions hold"],
        ),
        ("COMPLETED", 0.55, ["raise the predictions that this heuristic shapes"]),
        ("COMPLETED", 0.95, []),
    ],
)
def test_recommendations(status, predicted, said):
    """What is recommended follows from where the predictions lie against the interval of what happened, and how many held."""
    records = [record(f"t{n}", status, "a", heuristics=("h",), predicted=predicted, attempts=1) for n in range(10)]
    (signal,) = sent("heuristic_feedback", wave(*records))
    assert signal.content["recommendations"] == said


def test_evidence():
    """Evidence counts what was started and ended, against what came in, and hits of heuristics against what was calibrated."""
    learned = evidence(usual())
    shown = {agent_id: (of.samples, of.successes, of.predicted_sum) for agent_id, of in learned.agents.items()}
    assert shown == {"a": (2, 1, 1.5), "b": (1, 1, 0.5)}
    assert learned.heuristics == {"h1": (1, 2), "h2": (1, 1)}


def of_kind(task_id, kind, status="COMPLETED", agent_id="a", **fields):
    task = Task(
        task_id=task_id, kind=kind, predictions=fields.pop("predictions", {}), estimated_duration_s=fields.pop("estimate", 1.0)
    )
    return TaskRecord(task=task, status=TaskStatus(status), agent_id=agent_id, attempts=1, raw=0.5, **fields)


def test_evidence_of_one_kind():
    """Where all that ended was of one kind, and nothing failed elsewhere first, the kind is said once."""
    learned = evidence(wave(of_kind("t", "k"), of_kind("u", "k", "FAILED", "b")))
    assert (learned.kind, learned.kinds) == ("k", {})
    assert {agent_id: (of.samples, of.successes) for agent_id, of in learned.agents.items()} == {"a": (1, 1), "b": (1, 0)}
    assert evidence(wave()).kind == ""


def test_evidence_by_kind():
    """Where there are several kinds evidence is told by agent and kind, and adds up to that by agent."""
    records = [of_kind("t", "k"), of_kind("u", "l", "FAILED"), of_kind("v", "l"), of_kind("w", "k", agent_id="b")]
    learned = evidence(wave(*records))
    told = {(agent_id, kind): (of.samples, of.successes) for agent_id, kinds in learned.kinds.items() for kind, of in kinds.items()}
    assert told == {("a", "k"): (1, 1), ("a", "l"): (2, 1), ("b", "k"): (1, 1)}
    assert {agent_id: sum(kinds.values(), Calibration()) for agent_id, kinds in learned.kinds.items()} == learned.agents


def test_evidence_of_what_failed_elsewhere_first():
    """An agent that failed at a task before it ended with another has one failure at its kind, whatever it was tried there."""
    made = of_kind("t", "k", agent_id="c", ran_by="c", predictions={"a": 0.9, "b": 0.7},
                   failures=[("a", 1.0), ("b", 1.0), ("a", 1.0), ("c", 1.0)])  # fmt: skip
    learned = evidence(wave(made))
    assert set(learned.agents) == {"c"}
    told = {agent_id: kinds["k"] for agent_id, kinds in learned.kinds.items()}
    assert told == {"c": Calibration(1, 1, 0.5), "a": Calibration(1, 0, 0.9), "b": Calibration(1, 0, 0.7)}
    stayed = of_kind("t", "k", failures=[("a", 1.0)])
    assert evidence(wave(stayed)).kinds == {}


def test_evidence_of_durations():
    """A duration is held against its estimate as the log of its multiple, where both are more than nothing."""
    records = [of_kind("t", "k", duration_s=3.0, estimate=1.5), of_kind("u", "k", duration_s=1.0), of_kind("v", "k")]
    records += [of_kind("w", "k", duration_s=0.0), of_kind("x", "k", duration_s=1.0, estimate=0.0)]
    shown = evidence(wave(*records)).agents["a"]
    assert (shown.samples, shown.measured, shown.stretch_sum) == (5, 2, pytest.approx(log(2.0)))


def test_heuristic_rows():
    """Improvement is against the waves before, and null for a heuristic that had none."""
    rows = heuristic_rows(usual(), RunRecord(run_id="r", heuristics={"h1": (1, 4)}))
    assert rows == [
        {"heuristic_id": "h1", "accuracy": 0.5, "error_rate": 0.5, "improvement": 0.25, "samples": 2, "wave": 3},
        {"heuristic_id": "h2", "accuracy": 1.0, "error_rate": 0.0, "improvement": None, "samples": 1, "wave": 3},
    ]


def test_coordination_rows():
    """An agent's score is 100 x its success rate; its issues are the wave's and its own, as far as they are about coordination."""
    judged = usual()
    judged.anomalies = [
        anomaly("load_imbalance"),
        anomaly("agent_failure", "a"),
        anomaly("success_drop"),
        anomaly("agent_stuck", "b"),
        anomaly("safety_violation", "a"),
    ]
    rows = coordination_rows(judged, health_of(judged, "a", "b", "c", "d"))
    assert rows == [
        {"agent_id": "a", "wave": 3, "performance_score": 50.0, "coordination_issues": ["load_imbalance", "agent_failure"]},
        {"agent_id": "b", "wave": 3, "performance_score": 100.0, "coordination_issues": ["load_imbalance", "agent_stuck"]},
        {"agent_id": "c", "wave": 3, "performance_score": None, "coordination_issues": ["load_imbalance"]},
    ]


def test_synchronization_leaves_out_what_ended_in_an_earlier_wave():
    """An attempt that ended before the wave was opened is no agent's end of this wave."""
    judged = wave(
        record("t1", "CANCELLED", "a", attempts=1, end_us=1_000_000),
        record("t2", "COMPLETED", "b", predicted=0.5, attempts=1, end_us=6_000_000),
        opened_us=5_000_000,
        settled_us=7_000_000,
    )
    assert sent("multi_agent_coordination", judged)[0].content["synchronization_time_s"] == 1.0
