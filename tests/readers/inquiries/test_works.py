"""What became of a run's tasks, folded from entries that the test writes."""

from __future__ import annotations

import pytest

from phase21.domain import events as ev
from phase21.domain.tasks import Dependency, Task, TaskStatus, When
from phase21.domain.workflows import JOIN, Judged, OnFailure, Workflow, WorkflowState
from phase21.evaluation.judges import Marks
from phase21.readers.inquiries.works import worked_in


class Story:
    """Entries of one run, a second apart."""

    def __init__(self, *tasks, **workflow):
        self.entries = []
        flow = Workflow(name="w", **workflow) if workflow else None
        self.add(ev.SubmissionAccepted(submission_id="s", run_id="r", waves={1: tasks}, workflow=flow))

    def add(self, event):
        self.entries.append(ev.Entry(len(self.entries) + 1, len(self.entries) * 1_000_000, event))
        return self

    def say(self, kind, task_id, **fields):
        return self.add(kind(run_id="r", wave=1, task_id=task_id, **fields))

    def start(self, task_id, attempt=1):
        return self.say(ev.AttemptStarted, task_id, agent_id="x", attempt=attempt, confidence=0.9)

    def complete(self, task_id, result=None):
        return self.start(task_id).say(ev.TaskCompleted, task_id, agent_id="x", attempt=1, duration_s=2.0, result=result)

    def fail(self, task_id, result=None):
        return self.start(task_id).say(
            ev.TaskFailed, task_id, agent_id="x", attempt=1, duration_s=1.0, error_msg="no", result=result
        )

    def extend(self, why, *tasks):
        return self.add(ev.WorkflowExtended(run_id="r", wave=2, tasks=tasks, why=why))

    def end(self, state):
        return self.add(ev.WorkflowChanged(run_id="r", state=state, previous="running"))

    @property
    def worked(self):
        return worked_in(self.entries, "r")

    def __getitem__(self, task_id):
        return next(work for work in self.worked.works if work.task_id == task_id)


def task(task_id, *needs, **fields):
    return Task(task_id=task_id, depends_on=needs, **fields)


def test_attempts_count_but_for_those_that_were_interrupted():
    """Seconds of failed attempts are kept apart; an interruption is nobody's attempt."""
    story = Story(task("a", step="build", estimated_duration_s=3.0))
    story.start("a").say(ev.TaskInterrupted, "a", agent_id="x", attempt=1)
    story.start("a", 2).say(ev.AttemptFailed, "a", agent_id="x", attempt=2, error_msg="no", delay_s=0.0, duration_s=4.0)
    assert (story["a"].status, story["a"].error) == (TaskStatus.RETRYING, "no")
    found = story.complete("a")["a"]
    assert (found.step, found.agent_id, found.attempts, found.lost_s, found.actual_s) == ("build", "x", 2, 4.0, 2.0)
    assert (found.estimated_s, found.error) == (3.0, None)


def test_an_estimate_that_nobody_gave_is_none():
    """The default says nothing of the task."""
    assert Story(task("a"))["a"].estimated_s is None


def test_what_a_person_decided_is_kept():
    """Deferred and cancelled tasks stand as that, with the reason."""
    story = Story(task("a"), task("b"))
    story.say(ev.TaskDeferred, "a", reason="risk").say(ev.TaskCancelled, "b")
    assert [(work.status, work.error) for work in story.worked.works] == [
        (TaskStatus.DEFERRED, "risk"),
        (TaskStatus.CANCELLED, "cancelled"),
    ]


def test_other_runs_and_agents_are_passed_over():
    """Entries of the service and of other runs change nothing."""
    story = Story(task("a")).add(ev.AgentJoined(agent_id="x"))
    story.add(ev.TaskCompleted(run_id="other", wave=1, task_id="a", agent_id="x", attempt=1, duration_s=1.0))
    assert story["a"].status is TaskStatus.PENDING
    assert (story.worked.started_us, story.worked.ended_us) == (0, 0)


def test_joins_undoings_and_the_judge_are_no_work_of_the_run():
    """They are not counted; an undoing that FAILED is named."""
    story = Story(task("a"), task("all", "a", kind=JOIN), evaluate=Judged(judge={"kind": "x"}))
    story.complete("a").complete("all").extend("spawn", task("more")).extend("compensation", task("a.undo"), task("b.undo"))
    story.fail("a.undo").complete("b.undo").extend("judge", task("judge"))
    assert [work.task_id for work in story.worked.works] == ["a", "more"]
    assert story.worked.stranded == ("a.undo",)


def test_the_judge_gives_scores_to_tasks():
    """And the run its own."""
    story = Story(task("a"), task("b"), evaluate=Judged(judge={"kind": "x"})).complete("a").complete("b").extend("judge", task("j"))
    assert story.worked.problem == "the judge has not spoken"
    story.complete("j", {"score": 50, "tasks": {"a": 40}})
    assert story.worked.marks == Marks(score=50.0, tasks={"a": 40.0})
    assert (story["a"].score, story["b"].score) == (40.0, None)


@pytest.mark.parametrize(
    ("result", "problem"), [(None, "the judge FAILED: no"), ("good", "the judge gave neither a number nor an object, but 'good'")]
)
def test_a_judge_that_gave_nothing_is_said(result, problem):
    """In words."""
    story = Story(task("a"), evaluate=Judged(judge={"kind": "x"})).extend("judge", task("j")).fail("j", result)
    assert (story.worked.marks, story.worked.problem) == (None, problem)


def test_a_command_that_says_no_has_judged():
    """A judge that FAILED with an exit status gave 0."""
    story = Story(task("a"), evaluate=Judged(judge={"kind": "x"})).extend("judge", task("j")).fail("j", {"exit_status": 1})
    assert story.worked.marks == Marks(score=0.0)


def test_without_a_judge_nothing_is_missing():
    """No judge was asked, so none is silent."""
    assert Story(task("a"), on_failure=OnFailure.STOP).worked.problem is None
    assert Story(task("a")).worked.problem is None


def skipped(story, *task_ids):
    for task_id in task_ids:
        story.say(ev.TaskSkipped, task_id, reason="why")
    return {work.task_id: work.reached for work in story.worked.works if work.status is TaskStatus.SKIPPED}


def test_what_waits_for_a_failure_never_had_a_turn():
    """Nor had what waits for that; a branch that was not taken is no loss, and no more is what follows it."""
    rescue = task("rescue", Dependency(task="ok", when=When.FAILED))
    tasks = (task("bad"), task("ok"), task("next", "bad"), task("last", "next"), rescue, task("after", "rescue"))
    story = Story(*tasks, on_failure=OnFailure.CONTINUE).fail("bad").complete("ok")
    assert skipped(story.end("failed"), "next", "last", "rescue", "after") == {
        "next": False,
        "last": False,
        "rescue": True,
        "after": True,
    }


def test_a_workflow_that_stopped_left_the_rest_undone():
    """Whatever it waited for, unless it was on a branch."""
    tasks = (task("bad"), task("free"), task("maybe", condition="true"))
    story = Story(*tasks, on_failure=OnFailure.STOP).fail("bad")
    assert skipped(story, "free", "maybe") == {"free": True, "maybe": True}
    story.end("failed")
    assert story.worked.state is WorkflowState.FAILED
    assert (story["free"].reached, story["maybe"].reached) == (False, True)
