"""What ends of tasks mean for their workflow, folded from entries made by hand."""

from __future__ import annotations

from phase21.domain import events as ev
from phase21.domain.ledger import Ledger, Snapshot
from phase21.domain.tasks import Dependency, Task, When
from phase21.domain.workflows import JOIN, Workflow
from phase21.store import codec

PLACE = {"run_id": "r", "wave": 1}


def folded(*events, tasks=(), **fields):
    """The ledger of a run whose workflow has these tasks, after the events."""
    ledger = Ledger()
    begin = (
        ev.AgentJoined(agent_id="agent_0"),
        ev.SubmissionAccepted(
            submission_id="s", run_id="r", waves={1: tuple(tasks)}, workflow=Workflow(name="flow", **fields), source="workflow"
        ),
        ev.WaveOpened(**PLACE),
    )
    for position, event in enumerate((*begin, *events), 1):
        ledger.fold(ev.Entry(position, position * 1000, event))
    return ledger


def failed(task_id):
    """A task failed for good."""
    return ev.TaskFailed(task_id=task_id, agent_id="agent_0", attempt=1, error_msg="no", **PLACE)


def test_a_failure_is_answered_where_what_gathers_it_is():
    """A part of a fan-out may fail where a task is there for the case that its join does."""
    parts = [Task(task_id=f"each.{n}") for n in range(2)]
    gathers = Task(task_id="each", kind=JOIN, depends_on=tuple(Dependency(task=part.task_id, when=When.SETTLED) for part in parts))
    mend = Task(task_id="mend", depends_on=(Dependency(task="each", when=When.FAILED),))
    after = Task(task_id="after", depends_on=("each",))
    answered = folded(failed("each.0"), tasks=(*parts, gathers, mend))
    assert answered.runs["r"].record.workflow.failed == []
    assert folded(failed("each.0"), tasks=(*parts, gathers, after)).runs["r"].record.workflow.failed == ["each.0"]


def test_a_task_is_skipped_once_and_ends_as_it_ended_first():
    """What is final stays so, whatever is said of it later."""
    skipped = ev.TaskSkipped(task_id="a", reason="not wanted", **PLACE)
    ledger = folded(failed("a"), skipped, tasks=(Task(task_id="a"), Task(task_id="b")))
    assert ledger.runs["r"].waves[1].tasks["a"].status == "FAILED"
    assert ledger.runs["r"].waves[1].pending == 1


def test_progress_counts_only_for_the_attempt_that_is_under_way():
    """What an attempt says that is not the one under way is passed over."""
    started = ev.AttemptStarted(task_id="a", agent_id="agent_0", attempt=2, confidence=0.5, **PLACE)
    said = [ev.TaskProgressed(task_id="a", agent_id="agent_0", attempt=n, percent=10.0 * n, **PLACE) for n in (2, 1, 3)]
    ledger = folded(started, *said, tasks=(Task(task_id="a"),))
    assert ledger.runs["r"].waves[1].tasks["a"].percent == 20.0


def test_what_is_put_off_twice_is_put_off_once():
    """A task whose end is recorded is not deferred any more."""
    deferred = ev.TaskDeferred(task_id="a", reason="HIGH", **PLACE)
    ledger = folded(failed("a"), deferred, tasks=(Task(task_id="a"),))
    assert not ledger.runs["r"].record.deferred


def test_what_is_undecided_is_so_after_a_restart_from_a_snapshot():
    """A workflow all of whose tasks have ended, and that has not said what follows, is found again."""
    calibrated = ev.PredictionsCalibrated(agents={}, **PLACE)
    done = ev.TaskCompleted(task_id="a", agent_id="agent_0", attempt=1, duration_s=1.0, **PLACE)
    ledger = folded(done, ev.WaveSettled(**PLACE), calibrated, tasks=(Task(task_id="a"),))
    assert list(ledger.undecided) == ["r"]
    again = Ledger.restored(codec.decode(codec.encode(ledger.snapshot()), Snapshot))
    assert list(again.undecided) == ["r"]


def test_what_a_gate_holds_is_called_again():
    """Whoever gives out a workflow's tasks learns that a gate holds one: its agent may be free for another."""
    held = ev.TaskHeld(task_id="a", agent_id="agent_0", attempt=1, gate="constraints", reason="rate", confidence=0.5, **PLACE)
    wave = folded(held, tasks=(Task(task_id="a"),)).runs["r"].waves[1]
    assert (wave.tasks["a"].held_by, wave.calls) == ("constraints", ["a"])


def test_who_waits_is_known_after_a_restart_from_a_snapshot_that_does_not_say():
    """Snapshots do not hold who waits for whom, and older ones not whether anybody does: the tasks say it."""
    done = ev.TaskCompleted(task_id="a", agent_id="agent_0", attempt=1, duration_s=1.0, **PLACE)
    before = folded(tasks=(Task(task_id="a"), Task(task_id="b", depends_on=("a",))))
    stored = codec.decode(codec.encode(before.snapshot()))
    older = codec.encode(_without(stored, "tied", "plain", "astray"))
    assert b"depends_on" in older
    for snapshot in (codec.encode(stored), older):
        again = Ledger.restored(codec.decode(snapshot, Snapshot))
        again.fold(ev.Entry(again.position + 1, 1000, done))
        wave = again.runs["r"].waves[1]
        assert (wave.tasks["b"].blockers, wave.blocked, wave.calls) == (0, 0, ["b"])


def _without(value, *names):
    if isinstance(value, dict):
        return {name: _without(inner, *names) for name, inner in value.items() if name not in names}
    return [_without(inner, *names) for inner in value] if isinstance(value, list) else value
