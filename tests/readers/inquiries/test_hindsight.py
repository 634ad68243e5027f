"""Predictions that met their outcome, read off the journal."""

from __future__ import annotations

from phase21.domain import events as ev
from phase21.domain.ledger import Ledger
from phase21.domain.plans import Assignment
from phase21.domain.tasks import Task
from phase21.domain.workflows import JOIN
from phase21.readers.bin_sums import BinSums, wave_sums
from phase21.readers.inquiries.hindsight import met_in


def accepted(*task_ids, run_id="r", wave=1, **fields):
    tasks = tuple(Task(task_id=task_id, **fields) for task_id in task_ids)
    return ev.SubmissionAccepted(submission_id="s", run_id=run_id, waves={wave: tasks})


def assigned(agent_id, predicted, *task_ids, run_id="r", wave=1, raw=0.5):
    given = tuple(Assignment(task_id, agent_id, predicted, raw) for task_id in task_ids)
    return ev.TasksAssigned(run_id=run_id, wave=wave, strategy="s", assignments=given)


def started(task_id, agent_id="a", attempt=1):
    return ev.AttemptStarted(run_id="r", wave=1, task_id=task_id, agent_id=agent_id, attempt=attempt, confidence=1.0)


def completed(task_id, agent_id="a", **fields):
    return ev.TaskCompleted(**({"run_id": "r", "wave": 1} | fields), task_id=task_id, agent_id=agent_id, attempt=1, duration_s=1.0)


def failed(task_id, **fields):
    return ev.TaskFailed(**({"run_id": "r", "wave": 1, "agent_id": "a"} | fields), task_id=task_id, error_msg="no")


def found(*events, run_id=None):
    return list(met_in((ev.Entry(n, n, event) for n, event in enumerate(events, 1)), run_id))


def test_a_task_that_was_started_and_ended():
    """Its prediction, what came in, its agent, kind and wave stand beside its outcome."""
    (one,) = found(accepted("t", kind="command"), assigned("a", 0.8, "t", raw=0.7), started("t"), completed("t"))
    assert (one.run_id, one.wave, one.task_id, one.agent_id, one.kind) == ("r", 1, "t", "a", "command")
    assert (one.predicted, one.incoming, one.base_rate, one.agent_rate, one.success) == (0.8, 0.7, 0.5, 0.5, True)


def test_a_task_that_was_made_on_the_way_counts():
    """What a workflow asked for later is judged as what it began with; a join, which only repeats what its parts did, is not."""
    later = tuple(Task(task_id=task_id, kind=kind) for task_id, kind in (("t", "command"), ("j", JOIN)))
    extended = ev.WorkflowExtended(run_id="r", wave=1, tasks=later, why="spawn")
    (one,) = found(
        accepted("s"), extended, assigned("a", 0.8, "t", "j"), started("t"), completed("t"), started("j"), completed("j")
    )
    assert (one.task_id, one.kind) == ("t", "command")


def test_what_was_never_started_does_not_count():
    """A task that failed, or was cancelled, without a start does not count, and neither is one that is under way."""
    begun = (accepted("f", "c", "u", "s"), assigned("a", 0.8, "f", "c", "u", "s"))
    cancelled = [ev.TaskCancelled(run_id="r", wave=1, task_id=task_id) for task_id in ("c", "s")]
    assert found(*begun, started("u"), started("s"), failed("f"), *cancelled) == []


def test_the_prediction_is_that_of_the_last_start():
    """A task that was moved before its last attempt is held against the assignment that stood then."""
    (one,) = found(
        accepted("t"),
        assigned("a", 0.9, "t"),
        started("t"),
        assigned("b", 0.4, "t"),
        started("t", "b", 2),
        failed("t", agent_id="b"),
    )
    assert (one.predicted, one.agent_id, one.success) == (0.4, "b", False)


def test_a_prediction_that_was_never_tried_does_not_count():
    """Where a task was moved after its last attempt and then rejected, the prediction of that attempt is held against it."""
    moved = assigned("b", 0.1, "t")
    (one,) = found(accepted("t"), assigned("a", 0.9, "t"), started("t"), moved, failed("t", agent_id="b", gate="risk"))
    assert (one.predicted, one.agent_id) == (0.9, "a")


def test_what_a_later_wave_rejects_before_it_has_an_agent_does_not_count():
    """A carried task counts only once it has an agent again, with the prediction of its last start."""
    before = (accepted("t"), assigned("a", 0.9, "t"), started("t"), ev.WaveOpened(run_id="r", wave=2, carried=("t", "unknown")))
    assert found(*before, failed("t", wave=2, agent_id=None, gate="risk")) == []
    (one,) = found(*before, assigned("b", 0.3, "t", wave=2), failed("t", wave=2, agent_id="b", gate="risk"))
    assert (one.wave, one.predicted) == (2, 0.9)


def test_rates_are_over_what_was_known_when_it_was_assigned():
    """Base rate and agent's rate take in every run's outcomes up to the assignment, and none after it."""
    other = {"run_id": "o"}
    events = [accepted("x", "y", **other), assigned("a", 0.5, "x", **other), assigned("b", 0.5, "y", **other)]
    events += [ev.AttemptStarted(**other, wave=1, task_id=name, agent_id="a", attempt=1, confidence=1.0) for name in "xy"]
    events += [completed("x", **other), accepted("t", "late"), assigned("a", 0.5, "t"), failed("y", agent_id="b", **other)]
    events += [assigned("b", 0.5, "late"), started("t"), started("late", "b"), completed("t"), completed("late", "b")]
    first, late = found(*events, run_id="r")
    assert (first.base_rate, first.agent_rate) == (2 / 3, 2 / 3)
    assert (late.base_rate, late.agent_rate) == (2 / 4, 1 / 3)
    assert [one.task_id for one in found(*events)] == ["x", "y", "t", "late"]


def test_an_outcome_counts_once():
    """An outcome that is recorded again, or of a task that was never accepted here, changes nothing."""
    events = (accepted("t"), assigned("a", 0.8, "t"), started("t"), completed("t"))
    assert len(found(*events, failed("t"), completed("t"))) == 1
    assert found(assigned("a", 0.8, "t"), started("t"), completed("t")) == []


def wave_after(*events, number=1):
    ledger = Ledger()
    for n, event in enumerate(events, 1):
        ledger.fold(ev.Entry(n, n, event))
    return ledger.wave("r", number)


def test_a_waves_sums_by_bin():
    """Predictions of a bin add up with their squared misses and successes, ours and the incoming ones."""
    given = (assigned("a", 0.75, "t", "u", raw=0.5), started("t"), started("u"), completed("t"), failed("u"))
    ours, incoming = wave_sums(wave_after(accepted("t", "u", "x"), ev.WaveOpened(run_id="r", wave=1), *given))
    assert ours == (BinSums(7, 2, 1.5, 0.625, 1),)
    assert incoming == (BinSums(5, 2, 1.0, 0.5, 1),)


def test_a_waves_sums_hold_what_stood_at_the_last_start():
    """Of a task that was moved after its last start, or started in this wave never, the later prediction does not count."""
    opened = ev.WaveOpened(run_id="r", wave=1)
    begun = (accepted("t", "u"), opened, assigned("a", 0.9, "t"), started("t"), assigned("b", 0.1, "t", "u"))
    (held,), _ = wave_sums(wave_after(*begun, failed("t", agent_id="b", gate="risk")))
    assert (held.place, held.samples, held.successes) == (9, 1, 0)
    moved = (started("t", "b", 2), completed("t", "b"))
    (held,), _ = wave_sums(wave_after(*begun, *moved))
    assert (held.place, held.successes) == (1, 1)


def test_a_waves_sums_pass_over_what_started_in_an_earlier_one():
    """A carried task that is rejected before it started again has no prediction of this wave to be held against."""
    deferred = ev.TaskDeferred(run_id="r", wave=1, task_id="t")
    ends = (ev.WaveSettled(run_id="r", wave=1), ev.PredictionsCalibrated(run_id="r", wave=1, agents={}))
    approved = ev.ControlReceived(submission_id="c", run_id="r", control="approve", task_ids=("t",))
    opened = [ev.WaveOpened(run_id="r", wave=1), ev.WaveOpened(run_id="r", wave=2, carried=("t",))]
    begun = (accepted("t"), opened[0], assigned("a", 0.9, "t"), started("t"), deferred, *ends, approved, opened[1])
    given = (assigned("a", 0.9, "t", wave=2), assigned("b", 0.3, "t", wave=2))
    assert wave_sums(wave_after(*begun, *given, failed("t", wave=2, agent_id="b", gate="risk"), number=2)) == ((), ())
