"""What idle agents take over while a wave is under way."""

import pytest

from phase21.domain.judgements import Calibration
from phase21.domain.records import AgentRecord, TaskRecord, WaveRecord
from phase21.domain.tasks import Task, TaskStatus
from phase21.planning import takeovers as takeovers_module
from phase21.planning.forecast import Forecast
from phase21.planning.takeovers import takeovers

NOW_US = 10_000_000


def waiting(task_id, agent_id="a", *, seconds=4.0, status=TaskStatus.PENDING, pin=None, capabilities=(), **fields):
    task = Task(task_id=task_id, estimated_duration_s=seconds, agent_id=pin, capabilities=capabilities)
    return TaskRecord(task=task, agent_id=agent_id, status=status, **fields)


def at_work(task_id, agent_id="a", *, seconds=4.0, since_s=0.0, attempts=1):
    task = Task(task_id=task_id, estimated_duration_s=seconds)
    start_us = NOW_US - round(since_s * 1e6)
    return TaskRecord(task=task, agent_id=agent_id, ran_by=agent_id, status=TaskStatus.IN_PROGRESS, attempts=attempts, first_start_us=start_us)  # fmt: skip


def fleet(*names, **fields):
    return [AgentRecord(agent_id=name, **fields) for name in names or ("a", "b")]


def moves(records, agents=None, forecast=None):
    wave = WaveRecord(run_id="r", number=1, tasks={record.task.task_id: record for record in records})
    agents = agents or fleet()
    made = takeovers(wave, agents, forecast or Forecast(agents, enabled=True), NOW_US)
    return [(record.task.task_id, agent.agent_id) for record, agent in made]


def test_an_idle_agent_takes_what_would_end_sooner():
    """What waits behind an attempt that is under way goes to an agent that has nothing to do, one task for each."""
    busy = at_work("now")
    assert moves([busy, waiting("t"), waiting("u")]) == [("t", "b")]
    assert moves([busy, waiting("t"), waiting("u"), waiting("v")], fleet("a", "b", "c")) == [("t", "b"), ("u", "c")]
    assert moves([busy]) == []


def test_what_would_not_end_sooner_stays():
    """A task stays where it ends before the idle agent would have done it."""
    slow = Calibration(100, 85, 85.0, 100, 230.0)
    agents = [AgentRecord(agent_id="a"), AgentRecord(agent_id="b", kinds={"simulate": slow})]
    quick = Calibration(100, 85, 85.0, 100, 0.0)
    agents[0].kinds["simulate"] = quick
    assert moves([at_work("now", since_s=3.9), waiting("t")], agents) == []
    assert moves([waiting("t")]) == []


@pytest.mark.parametrize(
    "record",
    [
        waiting("t", pin="a"),
        waiting("t", due_us=NOW_US + 1),
        waiting("t", blockers=1),
        waiting("t", cancelling=True),
        waiting("t", status=TaskStatus.COMPLETED),
        waiting("t", agent_id=None),
        waiting("t", agent_id="gone"),
        waiting("t", capabilities=("gpu",)),
    ],
    ids=["pinned", "not due", "blocked", "cancelled", "ended", "nobody's", "gone", "unable"],
)
def test_what_may_not_be_taken(record):
    """What is pinned, not due, blocked, being cancelled, ended, with no agent that is there, or beyond the idle one, stays."""
    agents = [AgentRecord(agent_id="a", capabilities=("gpu",)), AgentRecord(agent_id="b")]
    assert moves([at_work("now"), record], agents) == []


def test_a_retry_that_is_due_may_be_taken():
    """What waits for its next attempt is taken like what waits for its first, once it is due."""
    assert moves([at_work("now"), waiting("t", status=TaskStatus.RETRYING, due_us=NOW_US)]) == [("t", "b")]


@pytest.mark.parametrize("fields", [{"offline": True}, {"probation": True}, {"busy": 1}])
def test_who_takes_nothing(fields):
    """An agent that is OFFLINE, on probation or has its hands full takes nothing."""
    agents = [AgentRecord(agent_id="a"), AgentRecord(agent_id="b", **fields)]
    assert moves([at_work("now"), waiting("t")], agents) == []


def test_an_agent_with_something_to_do_takes_nothing():
    """An agent for which a task waits is not idle."""
    assert moves([at_work("now"), waiting("t"), waiting("u"), waiting("own", "b", seconds=0.1)]) == []


def test_what_is_left_counts():
    """An attempt that has nearly ended keeps nobody waiting; one that began anew is taken as just begun."""
    agents = fleet("a", "b")
    b_busy = [AgentRecord(agent_id="a"), AgentRecord(agent_id="b", concurrency=2, busy=1)]
    long = at_work("long", "b", seconds=30.0)
    assert moves([at_work("now"), waiting("t")], agents) == [("t", "b")]
    assert moves([at_work("now"), waiting("t"), long], b_busy) == []
    nearly = at_work("long", "b", seconds=30.0, since_s=29.9)
    assert moves([at_work("now"), waiting("t"), nearly], b_busy) == [("t", "b")]
    anew = at_work("long", "b", seconds=30.0, since_s=29.9, attempts=2)
    assert moves([at_work("now"), waiting("t"), anew], b_busy) == []


def test_only_so_many_are_looked_at(monkeypatch):
    """Of more waiting tasks than are weighed the first are."""
    records = [at_work("now"), waiting("short", seconds=1.0), *[waiting(f"t{n}", seconds=2.0) for n in range(4)]]
    assert moves(records) != [("short", "b")]
    monkeypatch.setattr(takeovers_module, "LOOKED_AT", 1)
    assert moves(records) == [("short", "b")]
