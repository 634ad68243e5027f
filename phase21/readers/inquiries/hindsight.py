"""Predictions that met their outcome: read off the journal, each with what else could have been predicted at that time.

`cli/calibration` reads this, over entries in order from the journal's first. What counts is what was written before: a prediction is that of the assignment that stood when the task's last attempt started, and a rate is over outcomes
that were recorded before that assignment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from phase21.domain import events as ev
from phase21.domain.tasks import Task
from phase21.domain.workflows import JOIN


class Met(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A prediction that met its outcome: a started task that ended COMPLETED or FAILED, and four predictions of that, 0 to 1.

    `predicted` is ours, `incoming` the planner's; `base_rate` and `agent_rate` are (successes + 1) / (tasks + 2) over all, and over
    the agent's, outcomes that were known when the assignment was made, whatever their run.
    """

    run_id: str
    wave: int
    task_id: str
    agent_id: str
    kind: str
    predicted: float
    incoming: float
    base_rate: float
    agent_rate: float
    success: bool


class _Forecast(msgspec.Struct, frozen=True, gc=False):
    """What an assignment said, and what the rates were then."""

    agent_id: str
    predicted: float
    incoming: float
    base_rate: float
    agent_rate: float


class _Open:
    """A task without an outcome: its kind, the assignment that stands, and the one that stood at its last start."""

    __slots__ = ("kind", "standing", "started")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.standing: _Forecast | None = None
        self.started: _Forecast | None = None


class _Rate:
    """Outcomes that are known so far."""

    __slots__ = ("successes", "tasks")

    def __init__(self) -> None:
        self.successes = self.tasks = 0

    @property
    def smoothed(self) -> float:
        """Laplace's rule of succession: one half before anything is known."""
        return (self.successes + 1) / (self.tasks + 2)

    def add(self, *, success: bool) -> None:
        """Take in an outcome."""
        self.tasks += 1
        self.successes += success


class Track:
    """The fold that finds them. It holds what is open, and a rate for each agent."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, str], _Open] = {}
        self._all = _Rate()
        self._agents: dict[str, _Rate] = {}
        self._folds: dict[type, Callable[[Any], Met | None]] = {
            ev.SubmissionAccepted: self._accepted,
            ev.WorkflowExtended: self._extended,
            ev.WaveOpened: self._opened,
            ev.TasksAssigned: self._assigned,
            ev.AttemptStarted: self._started,
            ev.TaskCompleted: self._ended,
            ev.TaskFailed: self._ended,
            ev.TaskCancelled: self._cancelled,
        }

    def fold(self, entry: ev.Entry) -> Met | None:
        """Take in an entry; gives the prediction that meets its outcome with it."""
        fold = self._folds.get(type(entry.event))
        return fold(entry.event) if fold is not None else None

    def _accepted(self, event: ev.SubmissionAccepted) -> None:
        for tasks in event.waves.values():
            self._await(event.run_id, tasks)

    def _extended(self, event: ev.WorkflowExtended) -> None:
        self._await(event.run_id, event.tasks)

    def _await(self, run_id: str, tasks: Iterable[Task]) -> None:
        self._open.update({(run_id, task.task_id): _Open(task.kind) for task in tasks if task.kind != JOIN})

    def _opened(self, event: ev.WaveOpened) -> None:
        for task_id in event.carried:
            carried = self._open.get((event.run_id, task_id))
            if carried is not None:
                carried.standing = None  # it has no agent in this wave yet

    def _assigned(self, event: ev.TasksAssigned) -> None:
        base_rate = self._all.smoothed
        for given in event.assignments:
            held = self._open.get((event.run_id, given.task_id))
            if held is not None:
                agent = self._agents.get(given.agent_id)
                agent_rate = agent.smoothed if agent is not None else _Rate().smoothed
                held.standing = _Forecast(given.agent_id, given.predicted, given.raw, base_rate, agent_rate)

    def _started(self, event: ev.AttemptStarted) -> None:
        held = self._open.get((event.run_id, event.task_id))
        if held is not None:
            held.started = held.standing

    def _cancelled(self, event: ev.TaskCancelled) -> None:
        self._open.pop((event.run_id, event.task_id), None)

    def _ended(self, event: ev.TaskCompleted | ev.TaskFailed) -> Met | None:
        held = self._open.pop((event.run_id, event.task_id), None)
        if held is None or held.started is None or held.standing is None:
            return None
        forecast, success = held.started, isinstance(event, ev.TaskCompleted)
        self._all.add(success=success)
        self._agents.setdefault(forecast.agent_id, _Rate()).add(success=success)
        return Met(
            run_id=event.run_id,
            wave=event.wave,
            task_id=event.task_id,
            agent_id=forecast.agent_id,
            kind=held.kind,
            predicted=forecast.predicted,
            incoming=forecast.incoming,
            base_rate=forecast.base_rate,
            agent_rate=forecast.agent_rate,
            success=success,
        )


def met_in(entries: Iterable[ev.Entry], run_id: str | None = None) -> Iterator[Met]:
    """What met its outcome in entries from the journal's first, in the order of the outcomes; with `run_id` that of one run."""
    track = Track()
    for entry in entries:
        found = track.fold(entry)
        if found is not None and run_id in {None, found.run_id}:
            yield found
