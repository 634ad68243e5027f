"""What became of each task of a run, as evaluation wants it: folded from the run's entries, with its workflow and its judge.

`evaluations` asks for one run after the other. It holds one run at a time, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from phase21.domain import events as ev
from phase21.domain.tasks import LOST, Task, TaskStatus, When
from phase21.domain.workflows import JOIN, OnFailure, Workflow, WorkflowState
from phase21.evaluation.judges import Marks, scores_of
from phase21.evaluation.quality import Work
from phase21.store import codec

NO_ESTIMATE_S = 1.0
"""What stands in a task that gives no estimate; one that gives just this is taken for one that gives none."""

JUDGE, COMPENSATION = "judge", "compensation"


class Worked(msgspec.Struct, frozen=True, kw_only=True):
    """A run's works, in the order in which they were accepted, without joins, undoings and the judge.

    `marks` is what the judge gave; `problem` says why there is none where one was asked. `stranded` are undoings that FAILED.
    """

    run_id: str
    works: tuple[Work, ...]
    workflow: Workflow | None = None
    state: WorkflowState | None = None
    marks: Marks | None = None
    problem: str | None = None
    stranded: tuple[str, ...] = ()
    started_us: int | None = None
    ended_us: int | None = None


class _Seen:
    """One task on its way. `role` is why the workflow made it, empty for its own."""

    def __init__(self, task: Task, role: str) -> None:
        self.task = task
        self.role = role
        self.status = TaskStatus.PENDING
        self.agent_id: str | None = None
        self.attempts = 0
        self.lost_s = 0.0
        self.actual_s: float | None = None
        self.error: str | None = None
        self.result: Any = None


class Works:
    """The fold over the entries of one run."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._seen: dict[str, _Seen] = {}
        self._skipped: list[_Seen] = []
        self._workflow: Workflow | None = None
        self._state: WorkflowState | None = None
        self._started_us: int | None = None
        self._ended_us: int | None = None
        self._folds: dict[type, Callable[[Any], None]] = {
            ev.SubmissionAccepted: self._accepted,
            ev.WorkflowExtended: self._extended,
            ev.WorkflowChanged: self._changed,
            ev.AttemptStarted: self._attempt_started,
            ev.AttemptFailed: self._attempt_failed,
            ev.TaskInterrupted: self._interrupted,
            ev.TaskDeferred: self._deferred,
            ev.TaskCompleted: self._completed,
            ev.TaskFailed: self._failed,
            ev.TaskCancelled: self._cancelled,
            ev.TaskSkipped: self._was_skipped,
        }

    def fold(self, entry: ev.Entry) -> None:
        """Take in an entry; what is of another run, of agents or of the service is passed over."""
        fold = self._folds.get(type(entry.event))
        if fold is not None and getattr(entry.event, "run_id", None) == self._run_id:
            self._started_us = entry.at_us if self._started_us is None else self._started_us
            self._ended_us = entry.at_us
            fold(entry.event)

    # -- what happened ---------------------------------------------------------------------------------------------------

    def _accepted(self, event: ev.SubmissionAccepted) -> None:
        self._workflow = event.workflow or self._workflow
        for tasks in event.waves.values():
            self._seen.update({task.task_id: _Seen(task, "") for task in tasks})

    def _extended(self, event: ev.WorkflowExtended) -> None:
        role = event.why if event.why in {JUDGE, COMPENSATION} else ""
        self._seen.update({task.task_id: _Seen(task, role) for task in event.tasks})

    def _changed(self, event: ev.WorkflowChanged) -> None:
        self._state = WorkflowState(event.state)

    def _attempt_started(self, event: ev.AttemptStarted) -> None:
        seen = self._seen[event.task_id]
        seen.status, seen.agent_id = TaskStatus.IN_PROGRESS, event.agent_id
        seen.attempts += 1

    def _attempt_failed(self, event: ev.AttemptFailed) -> None:
        seen = self._seen[event.task_id]
        seen.status, seen.error = TaskStatus.RETRYING, event.error_msg
        seen.lost_s += event.duration_s

    def _interrupted(self, event: ev.TaskInterrupted) -> None:
        seen = self._seen[event.task_id]
        seen.status = TaskStatus.PENDING
        seen.attempts -= 1

    def _deferred(self, event: ev.TaskDeferred) -> None:
        self._ends(event, TaskStatus.DEFERRED, event.reason)

    def _completed(self, event: ev.TaskCompleted) -> None:
        seen = self._ends(event, TaskStatus.COMPLETED, None)
        seen.actual_s, seen.result = event.duration_s, event.result

    def _failed(self, event: ev.TaskFailed) -> None:
        seen = self._ends(event, TaskStatus.FAILED, event.error_msg)
        seen.actual_s, seen.result = event.duration_s, event.result

    def _cancelled(self, event: ev.TaskCancelled) -> None:
        self._ends(event, TaskStatus.CANCELLED, event.reason)

    def _was_skipped(self, event: ev.TaskSkipped) -> None:
        self._skipped.append(self._ends(event, TaskStatus.SKIPPED, event.reason))

    def _ends(self, event: ev.TaskEvent, status: TaskStatus, error: str | None) -> _Seen:
        seen = self._seen[event.task_id]
        seen.status, seen.error = status, error
        return seen

    # -- what it comes to ------------------------------------------------------------------------------------------------

    def worked(self) -> Worked:
        """What has happened so far."""
        marks, problem = self._marks()
        scores, unreached = marks.tasks if marks is not None else {}, self._unreached()
        own = [seen for seen in self._seen.values() if not seen.role and seen.task.kind != JOIN]
        undoings = [seen for seen in self._seen.values() if seen.role == COMPENSATION]
        return Worked(
            run_id=self._run_id,
            works=tuple(_work(seen, scores, unreached) for seen in own),
            workflow=self._workflow,
            state=self._state,
            marks=marks,
            problem=problem,
            stranded=tuple(seen.task.task_id for seen in undoings if seen.status in LOST),
            started_us=self._started_us,
            ended_us=self._ended_us,
        )

    def _marks(self) -> tuple[Marks | None, str | None]:
        judge = next((seen for seen in self._seen.values() if seen.role == JUDGE), None)
        if judge is None or judge.status not in {TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED}:
            asked = self._workflow is not None and self._workflow.evaluate is not None and self._workflow.evaluate.judge is not None
            return None, "the judge has not spoken" if asked else None
        if judge.result is None:
            return None, f"the judge {judge.status}: {judge.error or 'it gave no result'}"
        found = scores_of(judge.result, codec.decode)
        return (found, None) if isinstance(found, Marks) else (None, found)

    def _unreached(self) -> frozenset[str]:
        """Skipped tasks whose turn never came as something failed, unlike those on a branch that was not taken."""
        flow = self._workflow
        stopped = self._state is WorkflowState.FAILED and flow is not None and flow.on_failure is not OnFailure.CONTINUE
        found: set[str] = set()
        for seen in self._skipped:
            needs = list(seen.task.dependencies())
            starved = any(need.when is When.SUCCEEDED and self._broken(need.task, found) for need in needs)
            branch = seen.task.condition is not None or any(need.when is When.FAILED for need in needs)
            if starved or (stopped and not branch):
                found.add(seen.task.task_id)
        return frozenset(found)

    def _broken(self, task_id: str, unreached: set[str]) -> bool:
        return task_id in unreached or (task_id in self._seen and self._seen[task_id].status in LOST)


def _work(seen: _Seen, scores: dict[str, float], unreached: frozenset[str]) -> Work:
    task = seen.task
    return Work(
        task_id=task.task_id,
        step=task.step or task.task_id,
        agent_id=seen.agent_id,
        status=seen.status,
        attempts=seen.attempts,
        estimated_s=None if task.estimated_duration_s == NO_ESTIMATE_S else task.estimated_duration_s,
        actual_s=seen.actual_s,
        lost_s=seen.lost_s,
        error=seen.error,
        score=scores.get(task.task_id),
        reached=task.task_id not in unreached,
    )


def worked_in(entries: Iterable[ev.Entry], run_id: str) -> Worked:
    """What became of a run's tasks, from its entries in order."""
    works = Works(run_id)
    for entry in entries:
        works.fold(entry)
    return works.worked()
