"""Circles of dependencies: finds one, and shows it in a line.

Called wherever tasks come in together. It looks at the tasks that it is given alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from phase21.domain.tasks import Task


def cycle_among(tasks: Iterable[Task]) -> list[str]:
    """The ids of one cycle of dependencies within `tasks`, in order, closed with its first; [] where there is none."""
    tasks = list(tasks)
    if _in_order(tasks):
        return []
    bound = {task.task_id: task for task in tasks if task.depends_on}
    blockers = {task_id: {needed for needed in task.needs() if needed in bound} for task_id, task in bound.items()}
    waiting: dict[str, list[str]] = {}
    for task_id, needs in blockers.items():
        for needed in needs:
            waiting.setdefault(needed, []).append(task_id)
    free = [task_id for task_id, needs in blockers.items() if not needs]
    while free:
        task_id = free.pop()
        del blockers[task_id]
        for other in waiting.get(task_id, ()):
            blockers[other].discard(task_id)
            if not blockers[other]:
                free.append(other)
    return _walk(blockers) if blockers else []


def _in_order(tasks: Sequence[Task]) -> bool:
    """Whether each task stands behind all that it depends on, as most lists are written: then no circle need be looked for."""
    later = {task.task_id for task in tasks}
    for task in tasks:
        if task.depends_on and not later.isdisjoint(task.needs()):
            return False
        later.discard(task.task_id)
    return True


def shown(cycle: Sequence[str]) -> str:
    """A cycle in one line."""
    return " -> ".join(cycle if len(cycle) <= 8 else (*cycle[:6], "…", cycle[-1]))  # noqa: PLR2004 - what fits in a line


def _walk(blocked: Mapping[str, set[str]]) -> list[str]:
    """Along tasks that all wait for another of them, until one comes again."""
    seen: dict[str, int] = {}
    task_id = next(iter(blocked))
    while task_id not in seen:
        seen[task_id] = len(seen)
        task_id = min(blocked[task_id])
    return [*list(seen)[seen[task_id] :], task_id]
