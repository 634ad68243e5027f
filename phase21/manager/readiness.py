"""Whether tasks of a workflow's wave are to be done: what the workflow decided is recorded, and the rest is let through.

Asked by this room for each task that is called. The rules stand in `planning.readiness`; what a failure that
nothing answered does to those that wait stands here.
"""

from __future__ import annotations

from collections.abc import Mapping

from phase21.domain import events as ev
from phase21.domain.ledger import Ledger
from phase21.domain.records import TaskRecord, WaveRecord
from phase21.domain.runs import Run
from phase21.domain.tasks import Task, When
from phase21.domain.workflows import OnFailure, Upstream, WorkflowRecord
from phase21.planning import conditions
from phase21.planning.readiness import Readiness, Step, readiness
from phase21.store.journal import Journal


def unwanted(flow: WorkflowRecord, wave: WaveRecord, record: TaskRecord) -> str:
    """Why a task that was never tried is not wanted any more, "" where it is: its workflow stopped, and nothing sends for it."""
    if not _stopped(flow) or any(needed.when is not When.SUCCEEDED for needed in record.task.dependencies()):
        return ""
    failed = flow.failed[0]
    status = wave.tasks[failed].status if failed in wave.tasks else "FAILED"
    return f"the workflow stopped: {failed} {status}"


def _stopped(flow: WorkflowRecord) -> bool:
    stops = flow.workflow.on_failure is not OnFailure.CONTINUE
    return bool(flow.failed) and stops and not flow.undoing and not flow.judging


def goes(journal: Journal, flow: WorkflowRecord | None, wave: WaveRecord, record: TaskRecord) -> bool:
    """Whether a task is to be given out now; where the workflow decided that it is not to be done, that is recorded."""
    if flow is None or record.attempts:
        return not record.blockers
    reason = unwanted(flow, wave, record) if flow.failed else ""
    if not reason:
        if record.blockers:
            return False
        if wave.plain and not wave.astray and record.task.condition is None:
            return True  # no question: all that it waits for is of its wave, and COMPLETED
        found = judged(journal.ledger, wave, record.task)
        if found.step is Step.RUN:
            return True
        if found.step is Step.DEFER:
            _defer(journal, wave, record, found.reason)
            return False
        reason = found.reason
    journal.append(ev.TaskSkipped(run_id=wave.run_id, wave=wave.number, task_id=record.task.task_id, reason=reason))
    return False


def judged(ledger: Ledger, wave: WaveRecord, task: Task) -> Readiness:
    """What is to become of a task all of whose dependencies have ended."""
    run = ledger.runs[wave.run_id]
    statuses = {needed: ledger.dependency(run, wave, needed) for needed in task.needs()}
    return readiness(task, statuses, {} if task.condition is None else _upstream(run, wave, task.condition))


def _upstream(run: Run, wave: WaveRecord, condition: str) -> Mapping[str, Upstream]:
    names = conditions.named(condition)
    found = {name: run.became(name, wave) for name in ([*run.record.upstream, *wave.tasks] if names is None else names)}
    return {name: outcome for name, outcome in found.items() if outcome is not None}


def _defer(journal: Journal, wave: WaveRecord, record: TaskRecord, reason: str) -> None:
    journal.append(
        ev.TaskDeferred(
            run_id=wave.run_id,
            wave=wave.number,
            task_id=record.task.task_id,
            agent_id=record.agent_id,
            gate="dependencies",
            reason=reason,
            confidence=record.task.predicted_success_rate,
        )
    )
