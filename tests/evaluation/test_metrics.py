"""A wave's figures, by hand."""

import pytest

from phase21.domain.plans import Assignment
from phase21.domain.records import AgentRecord, AssignedBatch, TaskRecord, WaveRecord
from phase21.domain.tasks import Task, TaskStatus
from phase21.evaluation.metrics import assigned_tasks, measure


def record(task_id, status, agent_id=None, **fields):
    return TaskRecord(task=Task(task_id=task_id), status=TaskStatus(status), agent_id=agent_id, **fields)


def wave(*records, batches=()):
    return WaveRecord(
        run_id="r",
        number=1,
        tasks={made.task.task_id: made for made in records},
        batches=[AssignedBatch(0, "load_balanced", tuple(Assignment(t, a, 0.5, 0.5) for t, a in pairs)) for pairs in batches],
    )


def agents(*names, offline=()):
    return [AgentRecord(agent_id=name, offline=name in offline) for name in names]


def mixed():
    return wave(
        record("t1", "COMPLETED", "a", predicted=0.9, attempts=1, duration_s=1.0),
        record("t2", "COMPLETED", "a", predicted=0.8, attempts=3, duration_s=2.0),
        record("t3", "FAILED", "b", predicted=0.6, attempts=2),
        record("t4", "FAILED", "b", predicted=0.7),
        record("t5", "FAILED"),
        record("t6", "CANCELLED", "c", predicted=0.1, attempts=1, duration_s=9.0),
        record("t7", "DEFERRED", "c", predicted=0.1),
        record("t8", "FAILED", attempts=1, predicted=0.4),
        batches=[[("t1", "a"), ("t2", "b"), ("t3", "b"), ("t4", "b"), ("t6", "c"), ("t7", "c")], [("t2", "a"), ("t1", "a")]],
    )


def test_wave():
    """Success is over all that ended, all else over what was started; loads count agents that are available."""
    figures, _ = measure(mixed(), agents("a", "b", "c", "d", offline=["d"]))
    assert figures.success_rate == 2 / 6
    assert figures.availability == 0.75
    assert figures.confidence == pytest.approx((0.9 + 0.8 + 0.6) / 3)
    assert figures.prediction_error == pytest.approx(2.3 / 3 - 2 / 3)
    assert figures.accuracy == pytest.approx(0.9)
    assert figures.brier_score == pytest.approx((0.01 + 0.04 + 0.36) / 3)
    assert figures.load_balance == 0.0
    assert (figures.completed_tasks, figures.failed_tasks, figures.started_tasks) == (2, 4, 3)
    assert (figures.deferred_tasks, figures.cancelled_tasks, figures.retries) == (1, 1, 3)


def test_agents():
    """Each agent that was assigned something has its part, in order of the fleet; a task counts once however often assigned."""
    _, (a, b, c) = measure(mixed(), agents("a", "b", "c", "d"))
    assert (a.agent_id, a.assigned_tasks, a.completed_tasks, a.failed_tasks, a.load) == ("a", 2, 2, 0, 2)
    assert (a.success_rate, a.mean_latency_s, a.retries) == (1.0, 1.5, 2)
    assert (b.agent_id, b.assigned_tasks, b.completed_tasks, b.failed_tasks, b.load) == ("b", 3, 0, 1, 1)
    assert (b.success_rate, b.mean_latency_s, b.retries) == (0.0, None, 1)
    assert (c.agent_id, c.assigned_tasks, c.load, c.success_rate, c.mean_latency_s) == ("c", 2, 0, None, None)


def test_load_balance():
    """The balance is fewest over most among the agents that are available, one without tasks included."""
    busy = wave(*(record(f"t{n}", "COMPLETED", "a" if n < 4 else "b", attempts=1) for n in range(6)))
    assert measure(busy, agents("a", "b"))[0].load_balance == 0.5
    assert measure(busy, agents("a", "b", "c"))[0].load_balance == 0.0
    assert measure(busy, agents("a", "b", "c", offline=["b", "c"]))[0].load_balance == 1.0


def test_nothing_started():
    """Where nothing was started only the success rate of what ended has something to stand on."""
    figures, parts = measure(wave(record("t1", "FAILED", "a"), batches=[[("t1", "a")]]), agents("a"))
    assert figures.success_rate == 0.0
    assert figures.confidence is figures.prediction_error is figures.accuracy is figures.brier_score is figures.load_balance is None
    assert parts[0].success_rate is None


def test_nothing_ended():
    """Where nothing ended there is no success rate, and without agents nobody is available."""
    figures, parts = measure(wave(record("t1", "DEFERRED")), [])
    assert (figures.success_rate, figures.availability, parts) == (None, 0.0, ())


def test_agent_that_left():
    """An agent that is not in the fleet any more keeps its part, after those that are."""
    done = wave(record("t1", "COMPLETED", "gone", attempts=1), batches=[[("t1", "gone"), ("t2", "a")]])
    assert [part.agent_id for part in measure(done, agents("a"))[1]] == ["a", "gone"]


def test_assigned_tasks():
    """A task that moved is counted for both agents, one that came back is counted once."""
    moved = wave(batches=[[("t1", "a"), ("t2", "a")], [("t1", "b")], [("t1", "a")]])
    assert assigned_tasks(moved) == {"a": 2, "b": 1}


def test_a_task_counts_for_the_agent_that_ran_it():
    """What was moved and then refused counts for the agent of its last attempt, not for the one that never began it."""
    moved = wave(record("t1", "FAILED", "b", ran_by="a", attempts=1, predicted=0.5), batches=[[("t1", "a")], [("t1", "b")]])
    _, (a, b) = measure(moved, agents("a", "b"))
    assert (a.failed_tasks, a.load, b.failed_tasks, b.load) == (1, 1, 0, 0)
