"""What a workflow does next, once all that it asked for has ended: read from its run's record, and from nothing else.

Called by the conductor. Asked again after a crash it says the same. It makes tasks and changes nothing itself.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from phase21.domain.runs import Run
from phase21.domain.tasks import Dependency, Task, When
from phase21.domain.workflows import UNDO, OnFailure, Upstream, WorkflowRecord, WorkflowState, undo_id
from phase21.evaluation.judges import judge_task
from phase21.intake.workflows import expanded

LABEL_LONGEST = 256


class Extend(msgspec.Struct, frozen=True, kw_only=True):
    """Open another wave with these tasks; `later` are the steps that still cannot be made into tasks."""

    tasks: tuple[Task, ...]
    why: str
    later: tuple[dict[str, object], ...] = ()


class End(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing is left to do."""

    state: WorkflowState
    reason: str = ""


def next_stage(run: Run, flow: WorkflowRecord) -> Extend | End:
    """The next stage of a workflow of which nothing is under way: undo, what was asked for, a judgement, or its end."""
    failed = bool(flow.failed) and flow.workflow.on_failure is not OnFailure.CONTINUE
    if flow.undoing:
        return _ended_undone(flow)
    if (failed or flow.cancelled) and flow.done and flow.workflow.on_failure is OnFailure.COMPENSATE:
        return Extend(tasks=undo_tasks(flow.done), why="compensation")
    if flow.cancelled:
        return End(state=WorkflowState.CANCELLED, reason="cancelled")
    if failed:
        return End(state=WorkflowState.FAILED, reason=_because(flow))
    return _onwards(run, flow)


def _onwards(run: Run, flow: WorkflowRecord) -> Extend | End:
    """What follows where nothing stands in the way."""
    if flow.spawned:
        return Extend(tasks=tuple(flow.spawned), why="spawn", later=tuple(flow.later))
    if flow.later:
        tasks, later = expanded(flow.later, results_of(run), made=flow.made, workflow=flow.workflow)
        if tasks:
            return Extend(tasks=tasks, why="for_each", later=later)
        if later:
            unmade = ", ".join(str(step.get("task_id")) for step in later)
            return End(state=WorkflowState.FAILED, reason=f"{unmade} could not be made: what they are made over never came")
    judged = flow.workflow.evaluate
    if judged is not None and judged.judge is not None and not flow.judging:
        return Extend(tasks=(judge_task(judged, run.run_id, results_of(run)),), why="judge")
    if flow.failed:
        return End(state=WorkflowState.FAILED, reason=_because(flow))
    return End(state=WorkflowState.COMPLETED)


def undo_tasks(done: Iterable[Task]) -> tuple[Task, ...]:
    """The compensations of tasks in the order in which these ended: the last first, each once the one before has ended."""
    tasks: list[Task] = []
    for task in reversed(list(done)):
        if task.compensate is not None:
            after = [task.task_id, *(undo.task_id for undo in tasks[-1:])]
            tasks.append(_undo(task, tuple(Dependency(task=needed, when=When.SETTLED) for needed in after)))
    return tuple(tasks)


def _undo(task: Task, after: tuple[Dependency, ...]) -> Task:
    how = task.compensate
    fields = {name: getattr(how, name) for name in how.__struct_fields__} if how is not None else {}
    fields["metadata"] = {**fields["metadata"], "undoes": task.task_id}
    return Task(
        task_id=undo_id(task.task_id),
        depends_on=after,
        priority=task.priority,
        step=f"{task.step}.{UNDO}"[:LABEL_LONGEST] if task.step else None,
        **fields,
    )


def results_of(run: Run) -> dict[str, Upstream]:
    """What became of every task of the run's workflow so far."""
    fresh = {
        task_id: became
        for wave in run.closing.values()
        for task_id in wave.tasks
        if (became := run.became(task_id, wave)) is not None
    }
    return {**run.record.upstream, **fresh}


def _ended_undone(flow: WorkflowRecord) -> End:
    said = "cancelled, and undone" if flow.cancelled else f"{_because(flow)}; what was done is undone"
    if flow.stranded:
        need = "needs" if len(flow.stranded) == 1 else "need"
        said = f"{said} but for {', '.join(flow.stranded)}, which FAILED and {need} a person"
    return End(state=WorkflowState.CANCELLED if flow.cancelled else WorkflowState.FAILED, reason=said)


def _because(flow: WorkflowRecord) -> str:
    shown = ", ".join(flow.failed[:3])
    more = f" and {len(flow.failed) - 3} more" if len(flow.failed) > 3 else ""  # noqa: PLR2004 - what fits in a line
    return f"{shown}{more} did not succeed"
