"""A workflow that was carried out is begun again from one of its tasks, with what came before it kept.

Called by the receiver, with the entries of the run that is forked. It makes of them what a new run is given: the tasks to be
carried out (again), and what became of the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from phase21.domain import events as ev
from phase21.domain.errors import InputRefused
from phase21.domain.references import references
from phase21.domain.tasks import Task, TaskStatus
from phase21.domain.workflows import Upstream, Workflow

AGAIN = ("compensation", "judge")
"""Stages that a fork does not keep: they are decided anew."""


class Forked(msgspec.Struct, frozen=True, kw_only=True):
    """What the new run begins with: its workflow, its tasks, and what became of the tasks that are kept."""

    workflow: Workflow
    tasks: tuple[Task, ...]
    upstream: dict[str, Upstream]

    @property
    def settled(self) -> dict[str, str]:
        """The status of each task that is kept."""
        return {task_id: str(outcome.status) for task_id, outcome in self.upstream.items()}


class _Past:
    """A run's workflow as its entries tell it."""

    def __init__(self) -> None:
        self.workflow: Workflow | None = None
        self.tasks: dict[str, Task] = {}
        self.made: dict[str, str] = {}
        self.spawned_by: dict[str, str] = {}
        self.outcomes: dict[str, Upstream] = {}
        self.undone: set[str] = set()

    def take(self, event: ev.AnyEvent) -> None:
        """Take in one entry."""
        if isinstance(event, ev.SubmissionAccepted):
            self.workflow = event.workflow or self.workflow
            self.outcomes.update(event.upstream)
            self._add((task for tasks in event.waves.values() for task in tasks), "")
        elif isinstance(event, ev.WorkflowExtended):
            self._add(event.tasks, event.why)
        elif isinstance(event, ev.TaskCompleted):
            self.outcomes[event.task_id] = Upstream(TaskStatus.COMPLETED, event.result)
            self.spawned_by.update({task.task_id: event.task_id for task in event.spawned})
            task = self.tasks.get(event.task_id)
            if task is not None and "undoes" in task.metadata and self.made.get(event.task_id) == "compensation":
                self.undone.add(str(task.metadata["undoes"]))

    def _add(self, tasks: Iterable[Task], why: str) -> None:
        for task in tasks:
            self.tasks[task.task_id] = task
            self.made[task.task_id] = why


def forked(entries: Iterable[ev.Entry], origin: str, begin: str) -> Forked:
    """What a run that begins again at task `begin` is given. Raises InputRefused where the run has no workflow, or no such task."""
    past = _Past()
    for entry in entries:
        if getattr(entry.event, "run_id", None) == origin:
            past.take(entry.event)
    if past.workflow is None:
        raise InputRefused(f"run {origin} is no workflow; only a workflow can be forked", "fork.run")
    if begin not in past.tasks or past.made[begin] in AGAIN:
        raise InputRefused(f"run {origin} has no task {begin} from which it could begin again", "fork.from")
    return _begun_again(past, past.workflow, origin, begin)


def _begun_again(past: _Past, workflow: Workflow, origin: str, begin: str) -> Forked:
    own = {task_id: task for task_id, task in past.tasks.items() if past.made[task_id] not in AGAIN}
    again = _downstream(own, {begin})
    again |= _downstream(own, {task_id for task_id in own if not _kept(past, task_id)})
    remade = _remade(past, own, again)
    later = workflow.later if any(past.made[task_id] == "for_each" for task_id in remade) else ()
    tasks = tuple(task for task_id, task in own.items() if task_id in again and task_id not in remade)
    kept = {task_id: outcome for task_id, outcome in past.outcomes.items() if task_id not in again and task_id not in past.undone}
    header = msgspec.structs.replace(workflow, later=later or _unmade(past, workflow), forked_from=origin)
    return Forked(workflow=header, tasks=tasks, upstream=kept)


def _kept(past: _Past, task_id: str) -> bool:
    return task_id in past.outcomes and task_id not in past.undone


def _downstream(tasks: dict[str, Task], roots: set[str]) -> set[str]:
    """The roots, and every task that depends on one of them, directly or not."""
    dependents: dict[str, list[str]] = {}
    for task in tasks.values():
        for needed in task.needs():
            dependents.setdefault(needed, []).append(task.task_id)
    found, todo = set(roots), list(roots)
    while todo:
        for waiting in dependents.get(todo.pop(), ()):
            if waiting not in found:
                found.add(waiting)
                todo.append(waiting)
    return found


def _remade(past: _Past, own: dict[str, Task], again: set[str]) -> set[str]:
    """Tasks that are not given to the new run because it will make them itself: those whose maker runs again."""
    remade: set[str] = set()
    for task_id in own:
        if past.made[task_id] == "spawn" and _maker(past, task_id) in again:
            remade.add(task_id)
    if any(source in again for source in _sources(past.workflow)):
        remade |= {task_id for task_id in own if past.made[task_id] == "for_each"}
    return remade


def _maker(past: _Past, task_id: str) -> str:
    return past.spawned_by.get(task_id, "")


def _sources(workflow: Workflow | None) -> Iterator[str]:
    """The tasks over whose results the workflow's later steps are made."""
    for step in workflow.later if workflow is not None else ():
        for reference in references(step.get("for_each")):
            yield reference.task


def _unmade(past: _Past, workflow: Workflow) -> tuple[dict[str, object], ...]:
    """The later steps, where the run that is forked never came to make them."""
    return () if any(why == "for_each" for why in past.made.values()) else workflow.later
