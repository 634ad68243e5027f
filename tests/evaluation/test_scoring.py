"""A wave's health, by hand."""

import msgspec
import pytest

from phase21.domain.judgements import AgentMetrics, Grade, Metrics
from phase21.domain.records import AgentRecord, TaskRecord, WaveRecord
from phase21.domain.settings import HealthSettings, HealthThresholds, HealthWeights
from phase21.domain.tasks import Task, TaskStatus
from phase21.evaluation.scoring import score


def figures(success_rate=1.0, availability=1.0, accuracy=1.0, load_balance=1.0):
    return Metrics(
        success_rate=success_rate,
        availability=availability,
        confidence=None,
        prediction_error=None,
        accuracy=accuracy,
        brier_score=None,
        load_balance=load_balance,
        completed_tasks=0,
        failed_tasks=0,
        started_tasks=0,
    )


def test_by_hand():
    """The score is 100 x (0.40 success + 0.20 availability + 0.20 accuracy + 0.20 balance), and never over 100."""
    health = score(figures(0.9, 0.75, 0.8, 0.5), (), HealthSettings())
    assert health.score == pytest.approx(36 + 15 + 16 + 10)
    assert health.status is Grade.GOOD
    assert score(figures(), (), HealthSettings()).score == 100.0


def test_weights():
    """The weights are those of the configuration."""
    weights = HealthWeights(success_rate=0.0, availability=1.0, accuracy=0.0, load_balance=0.0)
    assert score(figures(0.0, 0.3, 0.0, 0.0), (), HealthSettings(weights=weights)).score == pytest.approx(30.0)


@pytest.mark.parametrize(
    ("points", "grade"),
    [
        (100, Grade.EXCELLENT),
        (90, Grade.EXCELLENT),
        (90 - 1e-10, Grade.EXCELLENT),
        (89.99, Grade.GOOD),
        (70, Grade.GOOD),
        (69.99, Grade.FAIR),
        (50, Grade.FAIR),
        (49.99, Grade.POOR),
        (0, Grade.POOR),
    ],
)
def test_grades(points, grade):
    """A grade begins at its threshold."""
    weights = HealthWeights(success_rate=1.0, availability=0.0, accuracy=0.0, load_balance=0.0)
    assert score(figures(points / 100), (), HealthSettings(weights=weights)).status is grade


def test_thresholds():
    """The thresholds are those of the configuration."""
    lenient = HealthSettings(thresholds=HealthThresholds(excellent=40, good=30, fair=20))
    assert score(figures(0.0, 1.0, 1.0, 0.0), (), lenient).status is Grade.EXCELLENT


@pytest.mark.parametrize("missing", ["success_rate", "accuracy", "load_balance"])
def test_unknown(missing):
    """Where a figure has nothing to stand on there is no score, and the status is UNKNOWN."""
    health = score(figures(**{missing: None}), (), HealthSettings())
    assert (health.score, health.status) == (None, Grade.UNKNOWN)


# -- causes --------------------------------------------------------------------------------------------------------------


def part(agent_id, load, completed, confidence=0.9):
    return AgentMetrics(
        agent_id=agent_id,
        assigned_tasks=load,
        completed_tasks=completed,
        failed_tasks=load - completed,
        success_rate=completed / load if load else None,
        mean_latency_s=None,
        retries=0,
        load=load,
        confidence=confidence if load else None,
    )


def done(task_id, agent_id, *, won=True, attempts=1, ran_by=None):
    status = TaskStatus.COMPLETED if won else TaskStatus.FAILED
    return TaskRecord(task=Task(task_id=task_id), status=status, agent_id=agent_id, ran_by=ran_by, attempts=attempts)


def causes(metrics, parts=(), records=(), agents=(), settings=None):
    wave = WaveRecord(run_id="r", number=1, tasks={one.task.task_id: one for one in records})
    health = score(metrics, tuple(parts), settings or HealthSettings(), wave, list(agents))
    return {cause.term: cause for cause in health.causes}, health


def counted(metrics, *, completed, failed, started, confidence=None):
    fields = {"completed_tasks": completed, "failed_tasks": failed, "started_tasks": started, "confidence": confidence}
    return msgspec.structs.replace(metrics, **fields)


def test_what_each_term_lost():
    """Each term has its value, weight and lost points, which with the score make 100; a term that lost nothing names nobody."""
    found, health = causes(figures(0.9, 1.0, 0.8, 0.5), [part("a", 4, 4)])
    assert [(cause.term, cause.value, cause.weight) for cause in found.values()] == [
        ("success_rate", 0.9, 0.4),
        ("availability", 1.0, 0.2),
        ("accuracy", 0.8, 0.2),
        ("load_balance", 0.5, 0.2),
    ]
    assert [cause.points_lost for cause in found.values()] == pytest.approx([4.0, 0.0, 4.0, 10.0])
    assert health.score + sum(cause.points_lost for cause in found.values()) == pytest.approx(100.0)
    assert (found["availability"].agent_id, found["availability"].description) == (None, "nothing lost")
    weights = HealthWeights(success_rate=1.0, availability=0.0, accuracy=0.0, load_balance=0.0)
    assert causes(figures(0.9), settings=HealthSettings(weights=weights))[0]["success_rate"].points_lost == pytest.approx(10.0)


def test_what_has_nothing_to_stand_on():
    """A term without a value has lost nobody knows what, and the health is UNKNOWN, with its causes all the same."""
    found, health = causes(figures(None, 1.0, None, None))
    assert (health.score, len(found)) == (None, 4)
    assert (found["accuracy"].value, found["accuracy"].points_lost) == (None, None)


def test_who_failed_most():
    """Success is lost most by the agent with most failed tasks; the first of them is named."""
    records = [
        done("1", "a", won=False),
        done("2", "b", won=False, attempts=0),
        done("3", "c", won=False, ran_by="b"),
        done("4", "b", won=False),
    ]
    metrics = counted(figures(0.4), completed=1, failed=4, started=4)
    found, _ = causes(metrics, [part("a", 2, 1), part("b", 2, 0)], records)
    cause = found["success_rate"]
    assert (cause.agent_id, cause.task_id) == ("b", "3")
    assert cause.description == "2 of the 4 failed tasks are b's, 3 first"


def test_what_was_refused():
    """Where nobody failed and gates refused, the first task that they did is named; without any task only their number."""
    metrics = counted(figures(0.5), completed=1, failed=1, started=1)
    refused = [done("1", "a"), done("2", None, won=False, attempts=0)]
    for parts in ([part("a", 1, 1)], []):
        cause = causes(metrics, parts, refused)[0]["success_rate"]
        assert (cause.agent_id, cause.task_id) == (None, "2")
        assert "before they were started" in cause.description
    assert causes(metrics)[0]["success_rate"].description == "1 tasks FAILED"


def test_who_is_offline():
    """Availability is lost by who is OFFLINE, longest first; of many five are named."""
    away = [AgentRecord(agent_id=f"a{n}", offline=True, offline_us=100 - n) for n in range(7)]
    found, _ = causes(figures(availability=0.1), agents=[AgentRecord(agent_id="b"), *away])
    assert found["availability"].agent_id == "a6"
    assert found["availability"].description == "OFFLINE: a6, a5, a4, a3, a2 and 2 more"
    assert causes(figures(availability=0.1), agents=away[:2])[0]["availability"].description == "OFFLINE: a1, a0"
    assert causes(figures(availability=0.0))[0]["availability"].description == "there is no agent"


@pytest.mark.parametrize(("confidence", "worst"), [(0.9, "a"), (0.1, "b")])
def test_whose_predictions_were_off(confidence, worst):
    """Accuracy is lost by the agent that pulled furthest to the side on which predictions were wrong, counted in tasks."""
    metrics = counted(figures(accuracy=0.6), completed=10, failed=10, started=20, confidence=confidence)
    found, _ = causes(metrics, [part("a", 10, 2, confidence), part("b", 10, 8, confidence), part("idle", 0, 0)])
    assert found["accuracy"].agent_id == worst
    assert f"{worst} was predicted {confidence:.1%}" in found["accuracy"].description


def test_predictions_of_nobody():
    """Where no agent is known to have ended anything, only that predictions were off is said."""
    assert causes(figures(accuracy=0.6))[0]["accuracy"].description == "predictions were off"
    assert causes(figures(accuracy=0.6), [part("idle", 0, 0)])[0]["accuracy"].agent_id is None


def test_how_loads_are_spread():
    """Balance is lost between the fullest and the emptiest agent that is available."""
    agents = [AgentRecord(agent_id="a"), AgentRecord(agent_id="b"), AgentRecord(agent_id="c", offline=True)]
    found, _ = causes(figures(load_balance=0.2), [part("a", 5, 5)], agents=agents)
    assert (found["load_balance"].agent_id, found["load_balance"].description) == ("a", "a had 5 tasks, b had 0")
    assert causes(figures(load_balance=0.2))[0]["load_balance"].description == "no agent is available"
