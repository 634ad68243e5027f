"""A submission beside what its run was given before: which wave it is, what it may depend on, what a control means.

Asked by the receiver, which looks the run up. Nothing here reads the store, and nothing is recorded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from phase21.domain.errors import InputRefused
from phase21.domain.records import RunRecord
from phase21.domain.runs import Run
from phase21.domain.tasks import FINAL, Task, TaskStatus
from phase21.intake.circles import cycle_among

ENDED = FINAL | {TaskStatus.DEFERRED}


class Known(msgspec.Struct):
    """A run as far as it is known: in memory (`run`), put away (`record` alone), or neither. `closed` are statuses by id."""

    run_id: str
    run: Run | None
    record: RunRecord | None
    closed: dict[str, str] = {}

    @property
    def recalled(self) -> RunRecord | None:
        """What the event must carry, because memory has put it away."""
        return self.record if self.run is None else None

    def has(self, task_id: str) -> bool:
        """Whether the run was ever given a task of that name."""
        in_memory = self.run is not None and (task_id in self.run.where or task_id in self.run.record.deferred)
        return in_memory or task_id in self.closed


def refuse_into_workflow(known: Known) -> None:
    """Raise InputRefused where the run is a workflow, and these are plain tasks."""
    if known.record is not None and known.record.workflow is not None:
        said = f"run {known.run_id} is a workflow, which takes no other tasks; its own may ask for more (spawn)"
        raise InputRefused(said, "run_id")


def named(tasks: Sequence[Task]) -> list[str]:
    """Every id that tasks bear or depend on."""
    return list(dict.fromkeys([*(task.task_id for task in tasks), *(needed for task in tasks for needed in task.needs())]))


def wave_for(known: Known, asked: int | None) -> int:
    """The wave's number: the one asked for, else the next free one. Raises InputRefused where it was given or passed."""
    record = known.record
    if asked is None:
        return record.highest_wave + 1 if record else 1
    if known.run is not None and asked in known.run.waves:
        raise InputRefused(f"wave {asked} of run {known.run_id} was already given; the next free one is {_next(record)}", "wave")
    if record is not None and asked <= record.started_wave:
        said = f"wave {asked} of run {known.run_id} is not above wave {record.started_wave}, which has started"
        raise InputRefused(f"{said}; the next free one is {_next(record)}", "wave")
    return asked


def _next(record: RunRecord | None) -> int:
    return record.highest_wave + 1 if record else 1


def faults_of(known: Known, waves: Mapping[int, Sequence[Task]]) -> dict[str, str]:
    """By task id, what is wrong with its dependencies: unknown, or in a later wave."""
    own = {task.task_id: wave for wave, tasks in waves.items() for task in tasks}
    faults: dict[str, str] = {}
    for wave, tasks in waves.items():
        for task in tasks:
            said = next((said for needed in task.needs() if (said := _fault(known, own, wave, needed))), None)
            if said is not None:
                faults[task.task_id] = f"task {task.task_id} depends on {said}"
    return faults


def _fault(known: Known, own: Mapping[str, int], wave: int, needed: str) -> str | None:
    where = own.get(needed)
    if where is None and known.run is not None:
        where = known.run.where.get(needed)
    if where is not None:
        return f"{needed}, which is in wave {where}, a later one" if where > wave else None
    return None if known.has(needed) else f"{needed}, which run {known.run_id} does not know"


def sound(known: Known, waves: Mapping[int, tuple[Task, ...]]) -> tuple[dict[int, tuple[Task, ...]], dict[str, str]]:
    """The tasks of a folder whose dependencies hold, and by id why others do not, with all that depends on these."""
    kept, dropped = dict(waves), dict[str, str]()
    while faults := faults_of(known, kept) or _circular(kept):
        dropped |= faults
        left = {wave: tuple(task for task in tasks if task.task_id not in faults) for wave, tasks in kept.items()}
        kept = {wave: tasks for wave, tasks in left.items() if tasks}
    return kept, dropped


def _circular(waves: Mapping[int, Sequence[Task]]) -> dict[str, str]:
    for tasks in waves.values():
        cycle = cycle_among(tasks)
        if cycle:
            return {task_id: f"task {task_id} is part of a circle of dependencies" for task_id in cycle}
    return {}


def settled(known: Known, waves: Mapping[int, Sequence[Task]]) -> dict[str, str]:
    """The status of what is depended on and has ended its part already, so that nobody waits for it."""
    ended: dict[str, str] = {}
    needed = {needed for tasks in waves.values() for task in tasks for needed in task.needs()}
    for task_id in sorted(needed):
        status = _status(known, task_id)
        if status in ENDED:
            ended[task_id] = str(status)
    return ended


def _status(known: Known, task_id: str) -> str:
    run = known.run
    if run is not None and task_id in run.where:
        number = run.where[task_id]
        wave = run.waves.get(number) or run.closing[number]
        return wave.tasks[task_id].status
    if run is not None and task_id in run.record.deferred:
        return TaskStatus.DEFERRED
    return known.closed.get(task_id, "")


def meant(known: Known, control: str | None) -> tuple[str, ...]:
    """What a control without task ids means: all that is now deferred (approve), all that has not ended (cancel).

    A workflow that is being undone goes on with that; a compensation can be cancelled by its name.
    """
    run = known.run
    if run is None or control not in {"approve", "cancel"}:
        return ()
    flow = run.record.workflow
    if control == "cancel" and flow is not None and flow.undoing:
        return ()  # what is being undone is undone to its end
    deferred = dict.fromkeys(run.record.deferred)
    if control == "cancel":
        deferred |= dict.fromkeys(record.task.task_id for record in run.open_tasks() if not record.final)
    return tuple(deferred)
