"""Every row of the table of anomalies, at its threshold, just under and just over."""

import pytest

from phase21.domain.judgements import AgentMetrics, Metrics, Severity
from phase21.domain.records import AgentRecord, Course, WaveRecord
from phase21.evaluation.anomalies import NO_PAST, RULES, Past, agent_offline, agent_stuck, detect, safety_violation


def part(agent_id, load, completed=None):
    completed = load if completed is None else completed
    return AgentMetrics(
        agent_id=agent_id,
        assigned_tasks=load,
        completed_tasks=completed,
        failed_tasks=load - completed,
        success_rate=completed / load if load else None,
        mean_latency_s=None,
        retries=0,
        load=load,
    )


def figures(*, success_rate=1.0, prediction_error=0.0, started=10, completed=0, confidence=None):
    return Metrics(
        success_rate=success_rate,
        availability=1.0,
        confidence=confidence,
        prediction_error=prediction_error,
        accuracy=None,
        brier_score=None,
        load_balance=None,
        completed_tasks=completed,
        failed_tasks=0,
        started_tasks=started,
    )


def found(kind, *, metrics=None, parts=(), previous=None, offline=(), sensitivity=0.25, idle=(), past=NO_PAST):
    agents = [AgentRecord(agent_id=one.agent_id, offline=one.agent_id in offline) for one in parts]
    agents += [AgentRecord(agent_id=name) for name in idle]
    wave = WaveRecord(run_id="r", number=7, tasks={})
    seen = detect(wave, metrics or figures(), parts, previous, agents, sensitivity, past)
    assert all(anomaly.wave == 7 and anomaly.description and anomaly.recommendation and anomaly.action for anomaly in seen)
    assert all((anomaly.since_wave or 0) <= 7 for anomaly in seen)
    return [anomaly for anomaly in seen if anomaly.anomaly_type == kind]


def test_table():
    """The rules, their severities and thresholds are those of the contract."""
    assert [(rule.anomaly_type, rule.severity, rule.threshold) for rule in RULES] == [
        ("agent_failure", Severity.HIGH, 0.50),
        ("coordination_issue", Severity.MEDIUM, 0.40),
        ("prediction_drift", Severity.MEDIUM, None),
        ("load_imbalance", Severity.LOW, 1.5),
        ("success_drop", Severity.MEDIUM, 0.10),
        ("prediction_error", Severity.MEDIUM, 0.20),
        ("schedule_drift", Severity.LOW, 0.85),
        ("performance_degradation", Severity.MEDIUM, 0.10),
        ("optimization_failure", Severity.MEDIUM, 0.85),
    ]


def test_nothing_out_of_the_ordinary():
    """A wave in order, and one of which nothing was started, show nothing."""
    parts = [part("a", 5), part("b", 5)]
    wave = WaveRecord(run_id="r", number=1, tasks={})
    fleet = [AgentRecord(agent_id="a"), AgentRecord(agent_id="b")]
    assert detect(wave, figures(), parts, 1.0, fleet, 0.25) == ()
    assert detect(wave, figures(success_rate=None, prediction_error=None, started=0), [part("a", 0)], 1.0, [], 0.25) == ()


@pytest.mark.parametrize(
    ("load", "completed", "seen"), [(4, 2, False), (100, 49, True), (3, 1, True), (2, 0, False), (3, 2, False)]
)
def test_agent_failure(load, completed, seen):
    """An agent fails below one half, from three tasks on."""
    anomalies = found("agent_failure", parts=[part("a", load, completed)])
    assert bool(anomalies) is seen
    for anomaly in anomalies:
        assert (anomaly.agent_id, anomaly.value, anomaly.threshold, anomaly.severity) == ("a", completed / load, 0.5, "HIGH")


@pytest.mark.parametrize(
    ("loads", "seen"), [((10, 6), False), ((100, 59), True), ((100, 61), False), ((1, 0), False), ((2, 0), True), ((3, 1), True)]
)
def test_coordination_issue(loads, seen):
    """Loads are apart when (max - min) / max is over 0.40 and they differ by more than one task."""
    anomalies = found("coordination_issue", parts=[part("a", loads[0]), part("b", loads[1])])
    assert bool(anomalies) is seen
    for anomaly in anomalies:
        assert (anomaly.agent_id, anomaly.value) == (None, (loads[0] - loads[1]) / loads[0])
        assert (anomaly.threshold, anomaly.severity) == (0.40, "MEDIUM")


@pytest.mark.parametrize(
    ("loads", "value"),
    [((3, 2), None), ((6, 4), None), ((151, 100), 1.51), ((149, 100), None), ((5, 3), 5 / 3), ((1, 0), None)],
)
def test_load_imbalance(loads, value):
    """Loads are uneven when max / min is over 1.5 and they differ by more than one task."""
    anomalies = found("load_imbalance", parts=[part("a", loads[0]), part("b", loads[1])])
    assert [anomaly.value for anomaly in anomalies] == ([] if value is None else [value])
    assert all((anomaly.threshold, anomaly.severity) == (1.5, "LOW") for anomaly in anomalies)


def test_load_imbalance_with_idle_agent():
    """An agent without tasks counts, and the ratio has no value then."""
    (anomaly,) = found("load_imbalance", parts=[part("a", 2)], idle=["b"])
    assert anomaly.value is None


def test_loads_of_available_agents():
    """An agent that is OFFLINE does not count for how loads are spread."""
    parts = [part("a", 5), part("b", 5), part("c", 1)]
    assert not found("coordination_issue", parts=parts, offline=["c"])
    assert found("coordination_issue", parts=parts)


@pytest.mark.parametrize(
    ("error", "started", "seen"), [(0.25, 3, False), (0.25 + 1e-10, 3, False), (0.26, 3, True), (0.24, 3, False), (0.9, 2, False)]
)
def test_prediction_drift(error, started, seen):
    """Predictions drift over the sensitivity, from three tasks on."""
    anomalies = found("prediction_drift", metrics=figures(prediction_error=error, started=started))
    assert bool(anomalies) is seen
    assert all((anomaly.value, anomaly.threshold, anomaly.severity) == (error, 0.25, "MEDIUM") for anomaly in anomalies)


def test_sensitivity():
    """The threshold of drift is the configuration's."""
    assert found("prediction_drift", metrics=figures(prediction_error=0.2), sensitivity=0.1)[0].threshold == 0.1


@pytest.mark.parametrize(
    ("before", "now", "seen"), [(0.9, 0.8, False), (0.9, 0.79, True), (0.9, 0.81, False), (0.5, 0.9, False), (None, 0.1, False)]
)
def test_success_drop(before, now, seen):
    """Success drops when it falls by more than 0.10; without a wave before there is no fall."""
    anomalies = found("success_drop", metrics=figures(success_rate=now), previous=before)
    assert bool(anomalies) is seen
    for anomaly in anomalies:
        assert anomaly.value == pytest.approx(before - now)
        assert (anomaly.threshold, anomaly.severity) == (0.10, "MEDIUM")


def test_builders():
    """What parts of the house report themselves is of the highest severity and says whom it concerns."""
    offline, stuck = agent_offline("a", 2, 3), agent_stuck("a", 2, 31.5)
    assert (offline.anomaly_type, offline.severity, offline.wave, offline.agent_id, offline.value) == (
        "agent_offline",
        "HIGH",
        2,
        "a",
        3.0,
    )
    assert (stuck.anomaly_type, stuck.severity, stuck.wave, stuck.agent_id, stuck.value) == ("agent_stuck", "HIGH", 2, "a", 31.5)
    refused = safety_violation(None, 2, "t1", "risk", "no")
    assert (refused.anomaly_type, refused.severity, refused.wave, refused.agent_id) == ("safety_violation", "HIGH", 2, None)
    assert refused.description == "the risk gate rejected t1: no"


def test_a_fall_of_exactly_the_threshold_is_none():
    """A fall from 0.8 to 0.7, which is a hair over 0.10 in binary, counts as at the threshold."""
    assert 0.8 - 0.7 > 0.10
    assert not found("success_drop", metrics=figures(success_rate=0.7), previous=0.8)


# -- what is left to tests, and what a course shows ----------------------------------------------------------------------


def test_who_is_tested_is_left_to_the_tests():
    """The fixed rules about an agent and about a fall are silent for whom a sequential test knows."""
    parts = [part("a", 10, 1), part("b", 10, 1)]
    assert [one.agent_id for one in found("agent_failure", parts=parts, past=Past(tested=frozenset("a")))] == ["b"]
    assert not found("success_drop", metrics=figures(success_rate=0.1), previous=0.9, past=Past(tested=frozenset({""})))
    assert found("success_drop", metrics=figures(success_rate=0.1), previous=0.9, past=Past(tested=frozenset("a")))


@pytest.mark.parametrize(("tasks", "seen"), [(3, False), (6, False), (15, True), (30, True)])
def test_a_gap_must_be_borne_out_once_there_is_a_past(tasks, seen):
    """Predictions of a run that is tested have drifted only where chance would not bring such a gap; its evidence is told."""
    metrics = figures(prediction_error=0.5, started=tasks, completed=tasks // 3, confidence=1 / 3 + 0.5)
    assert found("prediction_drift", metrics=metrics)
    anomalies = found("prediction_drift", metrics=metrics, past=Past(tested=frozenset({""})))
    assert bool(anomalies) is seen
    assert all(anomaly.evidence > 7 for anomaly in anomalies)


def wave_at(number, *, tasks=10, won=9, predicted=0.9, expected_s=10.0, actual_s=10.0, strategy="maximize_success"):
    return Course(number, strategy, tasks, won, predicted * tasks, expected_s, actual_s)


def course(*waves):
    return Past(course=[wave_at(number, **fields) for number, fields in enumerate(waves, 8 - len(waves))])


SIGNS = {
    "prediction_error": {"won": 6},
    "schedule_drift": {"actual_s": 12.0},
    "performance_degradation": {"won": 3, "predicted": 0.3},
    "optimization_failure": {"won": 7},
}


@pytest.mark.parametrize("kind", SIGNS)
def test_a_course_shows_a_sign_once(kind):
    """Each sign of a course is told when three waves show it, since the first of them, and not again while they are remembered."""
    fields = SIGNS[kind] | {"tasks": 40, "won": 4 * SIGNS[kind].get("won", 9)}
    steady = {"tasks": 40, "won": 36}
    waves = [*[steady] * 4, *[fields] * 5, steady]
    told = [(end, anomaly) for end in range(1, len(waves) + 1) for anomaly in found(kind, past=course(*waves[:end]))]
    ((end, anomaly),) = told
    assert 5 <= end <= 7
    assert anomaly.since_wave == 7 - 2
    assert not found(kind, past=course(*[steady] * 7))
    assert not found(kind, past=course(*[fields] * 2))


@pytest.mark.parametrize("kind", sorted(set(SIGNS) - {"schedule_drift"}))
def test_few_tasks_are_no_sign(kind):
    """What chance may bring to a few tasks is no sign."""
    fields = {name: value for name, value in SIGNS[kind].items() if name != "won"} | {"tasks": 2, "won": 1}
    assert not found(kind, past=course(*[{"tasks": 2, "won": 2}] * 4, *[fields] * 3))


def test_a_moment_late_is_not_late():
    """Waves that were estimated at nothing and took a moment are on time; one wave on time ends a row."""
    assert not found("schedule_drift", past=course(*[{"expected_s": 0.0, "actual_s": 0.3}] * 3))
    late = {"expected_s": 1.0, "actual_s": 2.0}
    assert found("schedule_drift", past=course(late, late, late))
    assert not found("schedule_drift", past=course(late, {}, late))


def test_only_a_strategy_that_aims_at_success_can_fail_at_it():
    """Strategies that aim at time, and waves of more than one strategy, show no such failure."""
    bad = {"tasks": 40, "won": 20}
    assert found("optimization_failure", past=course(bad, bad, bad))
    assert not found("optimization_failure", past=course(*[bad | {"strategy": "load_balanced"}] * 3))
    assert not found("optimization_failure", past=course(bad | {"strategy": "thompson"}, bad, bad))


def test_a_decline_needs_something_before_it():
    """Success declines only against at least three waves before."""
    bad, good = {"tasks": 40, "won": 12}, {"tasks": 40, "won": 36}
    assert found("performance_degradation", past=course(good, good, good, bad, bad, bad))
    assert not found("performance_degradation", past=course(good, good, bad, bad, bad))
