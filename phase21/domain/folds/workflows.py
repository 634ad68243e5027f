"""A workflow's way: what its tasks' ends mean for it, what it decides, and what it keeps for tasks that are still to come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from phase21.domain import events as ev
from phase21.domain.edges import edges_of
from phase21.domain.folds.known import Folds, Known, sort
from phase21.domain.progress import weight_s
from phase21.domain.records import TaskRecord, WaveRecord
from phase21.domain.runs import Run, outcome_of
from phase21.domain.tasks import FINAL, Task, TaskStatus, When, moment_us
from phase21.domain.workflows import JOIN, OnFailure, WorkflowRecord, WorkflowState

COMPLETED, FAILED, CANCELLED = TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED


def add_wave(known: Known, run: Run, number: int, tasks: Sequence[Task], settled: Mapping[str, str]) -> None:
    """Take in the tasks of a wave; `settled` says how those of other waves ended that they depend on."""
    records = {task.task_id: TaskRecord(task=task) for task in tasks}
    wave = run.waves[number] = WaveRecord(
        run_id=run.run_id, number=number, accepted_position=known.position, tasks=records, pending=len(records)
    )
    run.record.highest_wave = max(run.record.highest_wave, number)
    run.record.tasks_accepted += len(records)
    run.where.update(dict.fromkeys(records, number))
    known.open_tasks += len(records)
    if run.record.workflow is not None:
        run.record.workflow.asked_s += sum(map(weight_s, tasks))
    for record in count_blockers(wave):
        _await(run, record.task, records, settled)
    for record in records.values():
        task = record.task
        if task.not_before is not None:
            record.due_us = moment_us(task.not_before, known.at_us)
        if task.deadline is not None:
            record.deadline_us = moment_us(task.deadline, known.at_us)


def count_blockers(wave: WaveRecord) -> list[TaskRecord]:
    """Count how many tasks of the wave each one waits for; those that do not depend on such alone, by their bare ids."""
    wave.tied = any(record.task.depends_on for record in wave.tasks.values())
    if not wave.tied:
        wave.plain = True
        return []
    edges = wave.edges = edges_of(wave.tasks)
    for record, needed in zip(edges.records, edges.parents, strict=True):
        record.blockers = len(needed)
    wave.blocked = sum(map(bool, edges.parents))
    wave.plain = not edges.loose
    return [edges.records[place] for place in edges.loose]


def _await(run: Run, task: Task, records: Mapping[str, TaskRecord], settled: Mapping[str, str]) -> None:
    """Keep an eye on tasks of other waves that this one depends on."""
    for needed in task.needs():
        if needed not in records:
            deferred = run.record.deferred.get(needed)
            run.record.awaited.setdefault(needed, settled.get(needed, deferred.status if deferred else ""))


def note_end(flow: WorkflowRecord, wave: WaveRecord, record: TaskRecord) -> None:
    """What a task's final status means for its workflow."""
    task, status = record.task, record.status
    if status in FINAL:
        flow.ended_s += weight_s(task)
    if status is COMPLETED:
        if task.compensate is not None and not flow.undoing:
            flow.done.append(task)
        return
    if status is not FAILED and status is not CANCELLED:
        return
    if flow.undoing:
        flow.stranded.append(task.task_id)
    elif not flow.judging and not _answered(flow, wave, task.task_id):
        flow.failed.append(task.task_id)
        if len(flow.failed) == 1 and flow.workflow.on_failure is not OnFailure.CONTINUE:
            _call_all(wave)


def _answered(flow: WorkflowRecord, wave: WaveRecord, task_id: str) -> bool:
    """Whether some task, of the wave or still to be made, is there for the case that this one fails, or that what gathers it does."""
    if flow.later and any(_answers(needed, task_id) for step in flow.later for needed in step.get("depends_on", ())):
        return True
    edges = wave.edges
    for place in edges.children[edges.places[task_id]]:
        task = edges.records[place].task
        if any(needed.task == task_id and needed.when is When.FAILED for needed in task.dependencies()):
            return True
        if task.kind == JOIN and _answered(flow, wave, task.task_id):
            return True
    return False


def _answers(needed: Any, task_id: str) -> bool:
    """Whether a dependency, as a step that is not made yet has it, is for the case that a task fails."""
    return isinstance(needed, dict) and needed.get("task") == task_id and needed.get("when") == When.FAILED


def _call_all(wave: WaveRecord) -> None:
    """Call all that waits: the workflow may not want it any more."""
    wave.calls.extend(task_id for task_id, record in wave.tasks.items() if not record.final and not record.attempts)


def keep_results(run: Run, wave: WaveRecord) -> None:
    """Keep what became of a wave's tasks for those that may still come, as long as the workflow is open."""
    flow = run.record.workflow
    if flow is not None and flow.open:
        run.record.upstream.update({task_id: outcome_of(record) for task_id, record in wave.tasks.items() if record.final})


def _workflow_extended(known: Known, event: ev.WorkflowExtended) -> None:
    run = known.runs[event.run_id]
    flow = run.record.workflow
    assert flow is not None  # noqa: S101 - narrows the type: only a workflow is extended
    flow.later = list(event.later)
    flow.spawned = []
    flow.undoing = flow.undoing or event.why == "compensation"
    flow.judging = event.why == "judge"
    flow.made += len(event.tasks)
    if flow.undoing:
        flow.done = []
    run.record.upstream.update(event.upstream)
    add_wave(known, run, event.wave, event.tasks, event.settled)
    sort(known, run)


def _workflow_changed(known: Known, event: ev.WorkflowChanged) -> None:
    run = known.runs[event.run_id]
    flow = run.record.workflow
    assert flow is not None  # noqa: S101 - narrows the type: only a workflow changes
    flow.state, flow.reason, flow.since_us = WorkflowState(event.state), event.reason, known.at_us
    if not flow.open:
        flow.ended_position = known.position
        known.failed_tasks += flow.state is not WorkflowState.COMPLETED
        run.record.upstream = {}
        flow.done, flow.later, flow.spawned = [], [], []
    sort(known, run)


FOLDS: Folds = {
    ev.WorkflowExtended: _workflow_extended,
    ev.WorkflowChanged: _workflow_changed,
}
"""What becomes of workflows."""
