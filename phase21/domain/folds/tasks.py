"""A task's attempts, and how its part in a wave ends: the hot path, which each task walks twice at least."""

from __future__ import annotations

from typing import Any

from phase21.domain import events as ev
from phase21.domain.folds.agents import call_homeless, release
from phase21.domain.folds.known import Folds, Known
from phase21.domain.folds.paces import note_pace
from phase21.domain.folds.post import note_end as note_post
from phase21.domain.folds.workflows import note_end
from phase21.domain.judgements import Ruling
from phase21.domain.records import Decision, TaskRecord, WaveRecord
from phase21.domain.runs import Run
from phase21.domain.tasks import FINAL, TaskStatus

PENDING, IN_PROGRESS, RETRYING, DEFERRED, COMPLETED, FAILED, CANCELLED, SKIPPED = TaskStatus
APPROVED = Ruling.APPROVED


def _attempt_started(known: Known, event: ev.AttemptStarted) -> None:
    run = known.runs[event.run_id]  # as `_task` has it, without a call: every task comes here
    wave = run.waves[event.wave]
    record = wave.tasks[event.task_id]
    agent_id, attempt, at_us = event.agent_id, event.attempt, known.at_us
    record.status = IN_PROGRESS
    record.attempts = attempt
    record.ran_by = agent_id
    record.held_by = record.due_us = None
    totals = run.record
    if record.first_start_us is None:
        record.first_start_us = at_us
        totals.tasks_started += 1
        if totals.first_start_us is None:
            totals.first_start_us = at_us
    totals.attempts += 1
    if totals.post is not None:
        totals.post.attempt_began(event.task_id, attempt)
    agent = known.agents.get(agent_id)
    if agent is not None:
        agent.busy += 1
    risk_level = record.task.risk_level
    wave.decisions.append(Decision(event.task_id, agent_id, attempt, APPROVED, None, "", event.confidence, risk_level, at_us))


def _attempt_failed(known: Known, event: ev.AttemptFailed) -> None:
    run, wave, record = _task(known, event)
    record.status = RETRYING
    if run.record.post is not None:
        run.record.post.attempt_ended(event.task_id)
    record.error_msg, record.duration_s, record.end_us = event.error_msg, event.duration_s, known.at_us
    record.due_us = known.at_us + round(event.delay_s * 1e6)
    record.elsewhere, record.reconsider = event.elsewhere, event.reconsider
    record.failures.append((event.agent_id, event.duration_s))
    release(known, event.agent_id, timed_out=event.timed_out)
    record.percent, record.note = 0.0, ""
    wave.calls.append(event.task_id)


def _task_interrupted(known: Known, event: ev.TaskInterrupted) -> None:
    run, wave, record = _task(known, event)
    record.status = PENDING
    if run.record.post is not None:
        run.record.post.attempt_ended(event.task_id)
    record.interruptions += 1
    record.due_us = None
    agent = known.agents.get(event.agent_id)
    if agent is not None:
        agent.busy = max(0, agent.busy - 1)
    wave.calls.append(event.task_id)


def _task_held(known: Known, event: ev.TaskHeld) -> None:
    run, wave, record = _task(known, event)
    record.held_by = event.gate
    if run.record.workflow is not None:
        wave.calls.append(event.task_id)  # whoever gives out what is ready learns that its agent may be free
    _decide(known, event, wave, record, Ruling.DEFERRED)


def _task_deferred(known: Known, event: ev.TaskDeferred) -> None:
    run, wave, record = _task(known, event)
    if record.final:
        return
    _decide(known, event, wave, record, Ruling.DEFERRED)
    if record.status is IN_PROGRESS:
        record.end_us = known.at_us
        release(known, event.agent_id)
    record.error_msg = event.reason
    _end(known, run, wave, record, DEFERRED)
    record.held_by = event.gate
    run.record.deferred[event.task_id] = record


def _task_completed(known: Known, event: ev.TaskCompleted) -> None:
    run = known.runs[event.run_id]  # as in `_attempt_started`
    wave = run.waves[event.wave]
    record = wave.tasks[event.task_id]
    if record.status in FINAL:
        return
    record.end_us, record.duration_s = known.at_us, event.duration_s
    record.error_msg, record.result = None, event.result
    release(known, event.agent_id)
    flow = run.record.workflow
    if flow is not None:
        flow.spawned.extend(event.spawned)
        note_pace(known, flow, record, event.agent_id, event.duration_s)
    _end(known, run, wave, record, COMPLETED)


def _task_failed(known: Known, event: ev.TaskFailed) -> None:
    run, wave, record = _task(known, event)
    if record.final:
        return
    if event.gate is not None:
        _decide(known, event, wave, record, Ruling.REJECTED)
    if record.status is IN_PROGRESS:
        record.end_us, record.duration_s = known.at_us, event.duration_s
        release(known, event.agent_id, timed_out=event.timed_out)
    record.error_msg, record.result = event.error_msg, event.result
    known.failed_tasks += run.record.workflow is None  # of a workflow it is its end that counts
    _end(known, run, wave, record, FAILED)


def _task_skipped(known: Known, event: ev.TaskSkipped) -> None:
    run, wave, record = _task(known, event)
    if record.final:
        return
    record.error_msg = event.reason
    _end(known, run, wave, record, SKIPPED)


def _task_progressed(known: Known, event: ev.TaskProgressed) -> None:
    _, _, record = _task(known, event)
    if record.status is IN_PROGRESS and record.attempts == event.attempt:
        record.percent, record.note = event.percent, event.note


def _task_cancelled(known: Known, event: ev.TaskCancelled) -> None:
    run, wave, record = _task(known, event)
    if record.final:
        return
    if record.status is IN_PROGRESS:
        record.end_us, record.duration_s = known.at_us, event.duration_s
        release(known, event.agent_id)
    record.error_msg = event.reason
    _end(known, run, wave, record, CANCELLED)


def _task(known: Known, event: ev.TaskEvent) -> tuple[Run, WaveRecord, TaskRecord]:
    run = known.runs[event.run_id]
    wave = run.waves[event.wave]
    return run, wave, wave.tasks[event.task_id]


def _end(known: Known, run: Run, wave: WaveRecord, record: TaskRecord, status: TaskStatus) -> None:
    """The task's part in the wave is over."""
    task, totals = record.task, run.record
    record.status = status
    record.held_by = record.due_us = None
    wave.pending -= 1
    wave.astray += status is not COMPLETED
    if totals.awaited and task.task_id in totals.awaited:
        totals.awaited[task.task_id] = status
    if wave.tied:
        _unblock(wave, record)
    if totals.workflow is not None:
        note_end(totals.workflow, wave, record)
    if totals.post is not None:
        note_post(known, run, record)
    agent = known.agents.get(record.agent_id) if record.agent_id else None
    if agent is not None and agent.probation:
        call_homeless(known, agent.agent_id)


def _unblock(wave: WaveRecord, record: TaskRecord) -> None:
    """Those that wait for the task wait for one less; who waits for none any more is called."""
    if record.blockers:
        wave.blocked -= 1
    edges = wave.edges
    for place in edges.children[edges.places[record.task.task_id]]:
        dependent = edges.records[place]
        dependent.blockers = blockers = dependent.blockers - 1
        if blockers == 0 and dependent.status not in FINAL:
            wave.blocked -= 1
            wave.calls.append(dependent.task.task_id)


def _decide(known: Known, event: Any, wave: WaveRecord, record: TaskRecord, ruling: Ruling) -> None:
    wave.decisions.append(
        Decision(
            event.task_id,
            event.agent_id,
            event.attempt,
            ruling,
            event.gate,
            event.reason if ruling is Ruling.DEFERRED else event.error_msg,
            event.confidence,
            record.task.risk_level,
            known.at_us,
        )
    )


FOLDS: Folds = {
    ev.AttemptStarted: _attempt_started,
    ev.AttemptFailed: _attempt_failed,
    ev.TaskInterrupted: _task_interrupted,
    ev.TaskHeld: _task_held,
    ev.TaskDeferred: _task_deferred,
    ev.TaskCompleted: _task_completed,
    ev.TaskFailed: _task_failed,
    ev.TaskCancelled: _task_cancelled,
    ev.TaskSkipped: _task_skipped,
    ev.TaskProgressed: _task_progressed,
}
"""What becomes of tasks."""
