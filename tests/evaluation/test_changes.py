"""What a wave shows the sequential tests, and what their alarms say."""

import pytest

from phase21.domain.judgements import Severity
from phase21.domain.records import AgentRecord, TaskRecord, WaveRecord
from phase21.domain.sequential import Alarm, Mark, Seen, Standing, Watch
from phase21.domain.tasks import Task, TaskStatus
from phase21.domain.watching import Change
from phase21.evaluation.changes import changed, followed, seen_in


def record(task_id, agent_id, *, kind="k", won=True, failures=(), raw=0.9, attempts=1, predictions=None):
    return TaskRecord(
        task=Task(task_id=task_id, kind=kind, predicted_success_rate=raw, predictions=predictions or {}),
        status=TaskStatus.COMPLETED if won else TaskStatus.FAILED,
        agent_id=agent_id,
        ran_by=agent_id,
        raw=raw,
        attempts=attempts,
        failures=[(name, 1.0) for name in failures],
    )


def wave_of(*records):
    return WaveRecord(run_id="r", number=3, tasks={one.task.task_id: one for one in records})


def test_what_a_wave_shows():
    """The run by kind, then agents by kind; a failure that was made good elsewhere counts against whom it happened to, once."""
    wave = wave_of(
        record("1", "a"),
        record("2", "b", failures=("a", "a", "b"), raw=0.5, attempts=4, predictions={"a": 0.9}),
        record("3", "a", won=False, kind="other"),
        record("4", "a", attempts=0),
        record("5", "a", won=False),
    )
    assert seen_in(wave) == (
        Seen("", "k", 3, 2, 2.3),
        Seen("", "other", 1, 0, 0.9),
        Seen("a", "k", 3, 1, 2.7),
        Seen("b", "k", 1, 1, 0.5),
        Seen("a", "other", 1, 0, 0.9),
    )


def test_who_is_tested():
    """Whoever has a past at every kind that the wave shows of it; what waits to be looked at counts."""
    long, short = Watch(seen=Mark(1, 10, 9, 9.0), pending=Mark(2, 2, 2, 1.8)), Watch(seen=Mark(1, 11, 9, 9.0))
    agents = {
        "a": AgentRecord(agent_id="a", watches={"k": long, "other": short}),
        "b": AgentRecord(agent_id="b", watches={"k": long, "other": short}),
    }
    seen = [Seen("", "k", 1, 1, 0.5), Seen("a", "k", 1, 1, 0.5), Seen("b", "k", 1, 1, 0.5), Seen("b", "other", 1, 1, 0.5)]
    assert followed([*seen, Seen("gone", "k", 1, 1, 0.5)], {"k": long}, agents) == {"", "a"}
    assert followed(seen, {}, agents) == {"a"}


def alarm(standing=Standing.DEGRADED, **fields):
    told = {
        "standing": standing, "rises": standing is not Standing.DEGRADED, "recovered": standing is Standing.STEADY, "wave": 9,
        "since_wave": 7, "since_run": "r", "rate_before": 0.9, "rate_after": 0.2, "tasks_before": 60, "tasks_after": 10,
        "expected_before": 0.8, "expected_after": 0.8, "evidence": 8.5, "confidence": 0.98,
    }  # fmt: skip
    return Alarm(**told | fields)


def one(agent_id, made):
    (anomaly,) = changed(
        [Change(Seen(agent_id, "k", 2, 0, 1.0), Watch(), made), Change(Seen("x", "k", 2, 2, 1.0), Watch(), None)], "r", 9
    )
    return anomaly


@pytest.mark.parametrize(
    ("agent_id", "made", "kind", "severity", "says"),
    [
        ("a", alarm(), "agent_failure", Severity.HIGH, "a does worse than it did at k tasks since wave 7: 20.0% of 10 tasks"),
        ("a", alarm(rises=True), "prediction_drift", Severity.MEDIUM, "a does better than it did"),
        ("a", alarm(Standing.IMPROVED), "prediction_drift", Severity.MEDIUM, "a does better than it did"),
        ("a", alarm(Standing.IMPROVED, rises=False), "prediction_drift", Severity.MEDIUM, "a does worse than it did"),
        ("a", alarm(Standing.STEADY), "prediction_drift", Severity.MEDIUM, "a is back at what was normal"),
        ("", alarm(), "success_drop", Severity.MEDIUM, "k tasks of this run succeed less often than they did since wave 7"),
        ("", alarm(Standing.IMPROVED), "prediction_drift", Severity.MEDIUM, "succeed more often than they did"),
        ("", alarm(Standing.STEADY), "prediction_drift", Severity.MEDIUM, "are back at what was normal"),
    ],
)
def test_what_an_alarm_says(agent_id, made, kind, severity, says):
    """To fall against its own past is a failure or a drop; to rise, or to come back, is that predictions no longer hold."""
    told = one(agent_id, made)
    assert (told.anomaly_type, told.severity, told.agent_id or "") == (kind, severity, agent_id)
    assert (told.wave, told.since_wave, told.evidence) == (9, 7, 8.5)
    assert says in told.description
    assert "evidence 8.5 nats, 98.0% sure" in told.description
    assert told.action
    assert told.recommendation


def test_values():
    """An agent's value is its rate since, held against that before; a drop's is the fall."""
    assert (one("a", alarm()).value, one("a", alarm()).threshold) == (0.2, 0.9)
    assert (one("", alarm()).value, one("", alarm()).threshold) == (pytest.approx(0.7), None)


def test_a_change_that_began_in_another_run():
    """Since when is said with the run where that is another, and is no number of a wave of this one."""
    told = one("a", alarm(since_run="nightly"))
    assert told.since_wave is None
    assert "since wave 7 of run nightly" in told.description
    assert "before wave 7 of run nightly" in told.action


def test_the_strongest_comes_first():
    """Of several alarms the one with the most evidence is told first: an agent is named once a wave."""
    made = [Change(Seen("a", kind, 2, 0, 1.0), Watch(), alarm(evidence=nats)) for kind, nats in (("x", 7.0), ("y", 9.0))]
    assert [anomaly.evidence for anomaly in changed(made, "r", 9)] == [9.0, 7.0]
