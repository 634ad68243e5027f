"""How far tasks and workflows are."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phase21.domain import events as ev
from phase21.domain.ledger import Ledger
from phase21.domain.progress import NEARLY, flow_percent, task_percent, weight_s
from phase21.domain.records import TaskRecord
from phase21.domain.runs import ended_failed
from phase21.domain.tasks import Task, TaskStatus
from phase21.domain.workflows import Workflow, WorkflowRecord

SECOND_US = 1_000_000


class Told:
    """A ledger that is told events, a second apart."""

    def __init__(self, *tasks: Task, later: tuple[dict, ...] = (), workflow: bool = True) -> None:
        self.ledger = Ledger()
        flow = Workflow(name="w", later=later) if workflow else None
        self(ev.AgentJoined(agent_id="agent_0"))
        self(ev.SubmissionAccepted(submission_id="s", run_id="r", waves={1: tasks}, workflow=flow))
        self(ev.WaveOpened(run_id="r", wave=1))

    def __call__(self, event: ev.AnyEvent) -> None:
        position = self.ledger.position + 1
        self.ledger.fold(ev.Entry(position, position * SECOND_US, event))

    def of(self, kind: type, task_id: str, **fields: object) -> None:
        place = {"run_id": "r", "wave": 1, "task_id": task_id}
        self(msgspec.convert({**place, **fields}, kind))

    def started(self, task_id: str) -> None:
        self.of(ev.AttemptStarted, task_id, agent_id="agent_0", attempt=1, confidence=1.0)

    def progressed(self, task_id: str, percent: float) -> None:
        self.of(ev.TaskProgressed, task_id, agent_id="agent_0", attempt=1, percent=percent)

    @property
    def run(self):
        return self.ledger.runs["r"]

    @property
    def percent(self) -> float:
        return flow_percent(self.run.record.workflow, self.run.open_tasks())


def task(task_id: str, estimated_s: float = 1.0) -> Task:
    return Task(task_id=task_id, estimated_duration_s=estimated_s)


@pytest.mark.parametrize(
    ("status", "percent"),
    [
        (TaskStatus.PENDING, 0.0),
        (TaskStatus.RETRYING, 0.0),
        (TaskStatus.DEFERRED, 0.0),
        (TaskStatus.IN_PROGRESS, 40.0),
        (TaskStatus.COMPLETED, 100.0),
        (TaskStatus.FAILED, 100.0),
        (TaskStatus.CANCELLED, 100.0),
        (TaskStatus.SKIPPED, 100.0),
    ],
)
def test_a_task_is_as_far_as_its_attempt_says(status, percent):
    """An attempt under way counts what it says; what has ended is done, however it ended; all else is not begun."""
    assert task_percent(TaskRecord(task=task("a"), status=status, percent=40.0)) == percent


def test_tasks_weigh_what_they_are_estimated_to_take():
    """A workflow is as far as the estimated seconds of what has ended, and of attempts as far as they are."""
    told = Told(task("long", 6.0), task("short", 2.0), task("gone", 2.0))
    assert told.percent == 0.0
    told.started("long")
    told.progressed("long", 50.0)
    assert told.percent == pytest.approx(30.0)
    told.of(ev.TaskSkipped, "gone", reason="not wanted")
    assert told.percent == pytest.approx(50.0)
    told.of(ev.TaskCompleted, "long", agent_id="agent_0", attempt=1, duration_s=1.0)
    assert told.percent == pytest.approx(80.0)


def test_a_failed_attempt_begins_anew():
    """What an attempt had said of its progress is gone with it."""
    told = Told(task("a"))
    told.started("a")
    told.progressed("a", 80.0)
    told.of(ev.AttemptFailed, "a", agent_id="agent_0", attempt=1, error_msg="no", delay_s=1.0, duration_s=1.0)
    assert told.percent == 0.0


def test_only_the_end_is_the_whole():
    """While a workflow is open it is not at 100, even where all its tasks have ended; once it has ended it is, however."""
    told = Told(task("a"))
    told.of(ev.TaskFailed, "a", error_msg="no")
    assert told.percent == NEARLY
    told(ev.WorkflowChanged(run_id="r", state="failed", previous="running", reason="a did not succeed"))
    assert told.percent == 100.0


def test_what_is_made_on_the_way_counts_from_then_on():
    """A step that is no task yet counts as one task; tasks made of it count in its place, so that progress may fall."""
    told = Told(task("a"), later=({"task_id": "b", "estimated_duration_s": 3.0}, {"task_id": "c"}))
    told.of(ev.TaskCompleted, "a", agent_id="agent_0", attempt=1, duration_s=1.0)
    assert told.percent == pytest.approx(100 / 5)
    tasks = tuple(task(f"b.{n}", 3.0) for n in range(3))
    told(ev.WorkflowExtended(run_id="r", wave=2, tasks=tasks, why="for_each"))
    assert told.percent == pytest.approx(100 / 10)


def test_tasks_without_an_estimate_weigh_the_same():
    """Where no task is estimated to take any time, progress is the share of tasks that have ended."""
    told = Told(*(task(name, 0.0) for name in "abcd"))
    told.of(ev.TaskSkipped, "a", reason="no")
    assert told.percent == pytest.approx(25.0)


def test_a_workflow_without_tasks_has_not_begun():
    """A record of which no task was ever accepted is at 0."""
    assert flow_percent(WorkflowRecord(workflow=Workflow(name="w")), ()) == 0.0


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 100), st.booleans()), min_size=1, max_size=20))
def test_progress_is_between_nothing_and_all(parts):
    """Whatever tasks weigh and say, an open workflow is at 0 or more, and below 100."""
    told = Told(*(task(f"t{n}", estimate) for n, (estimate, _, _) in enumerate(parts)))
    for n, (_, percent, ended) in enumerate(parts):
        told.started(f"t{n}")
        told.progressed(f"t{n}", percent)
        if ended:
            told.of(ev.TaskCompleted, f"t{n}", agent_id="agent_0", attempt=1, duration_s=1.0)
    assert 0.0 <= told.percent <= NEARLY


def test_a_task_weighs_something():
    """No task weighs nothing, or a workflow of such tasks could not be measured."""
    assert weight_s(task("a", 0.0)) > 0.0
    assert weight_s(task("a", 7.0)) == 7.0


@pytest.mark.parametrize(("state", "failed"), [("completed", False), ("failed", True), ("cancelled", True)])
def test_of_a_workflow_its_end_is_the_verdict(state, failed):
    """A failure that the workflow got over is none; a workflow that ended without being completed is one, whatever its tasks did."""
    told = Told(task("a"), task("b"))
    told.of(ev.TaskFailed, "a", error_msg="no")
    assert told.ledger.failed_tasks == 0
    told(ev.WorkflowChanged(run_id="r", state=state, previous="running"))
    assert (told.ledger.failed_tasks, ended_failed(told.run.record)) == (int(failed), failed)


def test_without_a_workflow_tasks_are_the_verdict():
    """A run without a workflow has failed where tasks of it FAILED."""
    told = Told(task("a"), workflow=False)
    assert not ended_failed(told.run.record)
    told.of(ev.TaskFailed, "a", error_msg="no")
    assert told.ledger.failed_tasks == 1
    told.run.record.counts[TaskStatus.FAILED] = 1
    assert ended_failed(told.run.record)


def test_an_open_workflow_has_not_failed():
    """As long as it may still turn out well, a workflow is not called failed."""
    told = Told(task("a"), task("b"))
    told.of(ev.TaskFailed, "a", error_msg="no")
    assert not ended_failed(told.run.record)
