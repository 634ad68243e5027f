"""A workflow that was carried out is begun again from one of its tasks, with what came before it kept.

Called by the receiver, with the entries of the run that is forked. It makes of them what a new run is given: the tasks to be
carried out (again), and what became of the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from phase21.domain import events as ev
from phase21.domain.errors import InputRefused
from phase21.domain.references import references
from phase21.domain.tasks import Dependency, Task, TaskStatus
from phase21.domain.workflows import Upstream, Workflow

AGAIN = ("compensation", "judge")
"""Stages that a fork does not keep: they are decided anew."""


class Forked(msgspec.Struct, frozen=True, kw_only=True):
    """What the new run begins with: its workflow, its tasks, and what became of the tasks that are kept."""

    workflow: Workflow
    tasks: tuple[Task, ...]
    upstream: dict[str, Upstream]


class _Past:
    """A run's workflow as its entries tell it."""

    def __init__(self) -> None:
        self.workflow: Workflow | None = None
        self.tasks: dict[str, Task] = {}
        self.made: dict[str, str] = {}
        self.spawned_by: dict[str, str] = {}
        self.asked: dict[str, Task] = {}
        self.later: tuple[dict[str, Any], ...] = ()
        self.outcomes: dict[str, Upstream] = {}
        self.undone: set[str] = set()

    def take(self, event: ev.AnyEvent) -> None:
        """Take in one entry."""
        if isinstance(event, ev.SubmissionAccepted):
            self.workflow = event.workflow or self.workflow
            self.later = self.workflow.later if self.workflow is not None else ()
            self.outcomes.update(event.upstream)
            self._add((task for tasks in event.waves.values() for task in tasks), "")
        elif isinstance(event, ev.WorkflowExtended):
            self._add(event.tasks, event.why)
            self.later = self.later if event.why in AGAIN else event.later
        elif isinstance(event, ev.TaskCompleted):
            self.outcomes[event.task_id] = Upstream(TaskStatus.COMPLETED, event.result)
            self.spawned_by.update({task.task_id: event.task_id for task in event.spawned})
            self.asked.update({task.task_id: task for task in event.spawned})
            task = self.tasks.get(event.task_id)
            if task is not None and "undoes" in task.metadata and self.made.get(event.task_id) == "compensation":
                self.undone.add(str(task.metadata["undoes"]))

    def keeps(self, task_id: str) -> bool:
        """Whether what became of a task still stands; of what is decided anew it does not."""
        return task_id in self.outcomes and task_id not in self.undone and self.made.get(task_id) not in AGAIN

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
    again |= _downstream(own, {task_id for task_id in own if not past.keeps(task_id)})
    anew = _made_anew(workflow, again)
    remade = _remade(past, workflow, own, again, anew)
    unmade = [step for step in past.later if _origin(str(step["task_id"]), workflow) not in anew]
    asked = [task for task_id, task in past.asked.items() if task_id not in own and past.spawned_by[task_id] not in again]
    tasks = (*(task for task_id, task in own.items() if task_id in again and task_id not in remade), *asked)
    kept = {task_id: outcome for task_id, outcome in past.outcomes.items() if task_id not in again and past.keeps(task_id)}
    later = (*(step for step in workflow.later if step["task_id"] in anew), *unmade)
    header = msgspec.structs.replace(workflow, later=later, forked_from=origin)
    return Forked(workflow=header, tasks=tasks, upstream=kept)


def _made_anew(workflow: Workflow, again: set[str]) -> set[str]:
    """The later steps that are made once more: those over what runs again, and all that wait for such a step."""
    over = {str(step["task_id"]) for step in workflow.later if any(one in again for one in _sources(step))}
    steps = {
        task_id: Task(task_id=task_id, depends_on=msgspec.convert(step.get("depends_on", ()), tuple[str | Dependency, ...]))
        for step in workflow.later
        for task_id in (str(step["task_id"]),)
    }
    return _downstream(steps, over)


def _origin(task_id: str, workflow: Workflow) -> str:
    """The later step that a task was made of: the one with the longest name among those that its own begins with."""
    steps = (str(step["task_id"]) for step in workflow.later)
    return max((step for step in steps if f"{task_id}.".startswith(f"{step}.")), key=len, default="")


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


def _remade(past: _Past, workflow: Workflow, own: dict[str, Task], again: set[str], anew: set[str]) -> set[str]:
    """Tasks that are not given to the new run because it will make them itself: whose maker runs again, or whose step is made anew."""
    remade: set[str] = set()
    for task_id in own:
        spawned = past.made[task_id] == "spawn" and _maker(past, task_id) in again
        if spawned or (past.made[task_id] == "for_each" and _origin(task_id, workflow) in anew):
            remade.add(task_id)
    return remade


def _maker(past: _Past, task_id: str) -> str:
    return past.spawned_by.get(task_id, "")


def _sources(step: dict[str, Any]) -> Iterator[str]:
    """The tasks over whose results a later step is made."""
    for reference in references(step.get("for_each")):
        yield reference.task
