"""What comes from outside: the service's start and stop, the queue's mark, submissions, and what people decide."""

from __future__ import annotations

from collections.abc import Iterable

from phase21.domain import events as ev
from phase21.domain.folds.known import Folds, Known, recall, sort
from phase21.domain.folds.schedules import control_schedule
from phase21.domain.folds.workflows import add_wave
from phase21.domain.records import WaveRecord
from phase21.domain.runs import Run
from phase21.domain.tasks import WAITING
from phase21.domain.workflows import WorkflowRecord

DEPENDENCIES = "dependencies"
"""The gate that defers a task because one that it depends on is."""


def _service_started(known: Known, event: ev.ServiceStarted) -> None:
    known.service, known.service_us = event, known.at_us
    for agent in known.agents.values():
        agent.present = agent.offline = agent.probation = False
        agent.busy = agent.timeouts_in_a_row = 0
    for run in known.runs.values():
        if run.record.post is not None:
            run.record.post.all_ended()


def _service_stopped(known: Known, event: ev.ServiceStopped) -> None:
    del event
    known.service = None


def _outputs_trusted(known: Known, event: ev.OutputsTrusted) -> None:
    known.trusted_boot_id = event.boot_id


def _queue_advanced(known: Known, event: ev.QueueAdvanced) -> None:
    known.mark = event.mark


def _submission_repeated(known: Known, event: ev.SubmissionRepeated) -> None:
    known.mark = event.mark or known.mark


def _submission_rejected(known: Known, event: ev.SubmissionRejected) -> None:
    known.mark = event.mark or known.mark


def _submission_accepted(known: Known, event: ev.SubmissionAccepted) -> None:
    known.mark = event.mark or known.mark
    run = recall(known, event.run_id, event.run)
    if event.workflow is not None:
        run.record.workflow = WorkflowRecord(workflow=event.workflow, later=list(event.workflow.later))
    run.record.upstream.update(event.upstream)
    for number, tasks in event.waves.items():
        add_wave(known, run, number, tasks, event.settled)
    sort(known, run)


def _control_received(known: Known, event: ev.ControlReceived) -> None:
    known.mark = event.mark or known.mark
    if event.run_id in known.schedules:
        control_schedule(known.schedules[event.run_id], event.control)
        return
    run = recall(known, event.run_id, event.run)
    if event.control in {"pause", "resume"}:
        _pause(run, event.task_ids, paused=event.control == "pause")
    else:
        flow = run.record.workflow
        if flow is not None and event.control == "cancel" and event.whole:
            flow.cancelled = True
        for task_id in event.task_ids:
            _control_task(run, event.control, task_id)
    sort(known, run)


def _control_task(run: Run, control: str, task_id: str) -> None:
    deferred = run.record.deferred.get(task_id)
    if deferred is not None:
        deferred.approved = deferred.approved or control == "approve"
        deferred.cancelling = deferred.cancelling or control == "cancel"
        _carry_on(run, task_id)
        return
    number = run.where.get(task_id)
    record = run.waves[number].tasks.get(task_id) if number in run.waves else None
    if record is None or record.final:
        return
    record.approved = record.approved or control == "approve"
    record.cancelling = record.cancelling or control == "cancel"


def _carry_on(run: Run, task_id: str) -> None:
    """Take a deferred task into the run's next wave, and with it what was deferred only for its sake."""
    if task_id in run.record.carried:
        return
    run.record.carried.append(task_id)
    for waiting, record in run.record.deferred.items():
        if record.held_by == DEPENDENCIES and task_id in record.task.needs():
            _carry_on(run, waiting)


def _pause(run: Run, task_ids: tuple[str, ...], *, paused: bool) -> None:
    """Pause a run, or tasks of it, or resume them; a run that is resumed is so with all its tasks."""
    if not task_ids:
        run.record.paused = paused
    open_ones = {record.task.task_id: record for record in run.open_tasks()} | run.record.deferred
    named = dict.fromkeys(task_ids) if task_ids or paused else open_ones
    for task_id in named:
        if task_id in open_ones:
            open_ones[task_id].paused = paused
    if (task_ids or not paused) and run.current is not None:
        _call_waiting(run.waves[run.current], named)


def _call_waiting(wave: WaveRecord, task_ids: Iterable[str]) -> None:
    for task_id in task_ids:
        record = wave.tasks.get(task_id)
        if record is not None and record.status in WAITING and not record.blockers:
            wave.calls.append(task_id)


FOLDS: Folds = {
    ev.ServiceStarted: _service_started,
    ev.ServiceStopped: _service_stopped,
    ev.OutputsTrusted: _outputs_trusted,
    ev.QueueAdvanced: _queue_advanced,
    ev.SubmissionRepeated: _submission_repeated,
    ev.SubmissionRejected: _submission_rejected,
    ev.SubmissionAccepted: _submission_accepted,
    ev.ControlReceived: _control_received,
}
"""What comes from outside."""
