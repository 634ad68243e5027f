"""What befell one task: its assignments, the gates' rulings, its attempts and what people decided, as the journal has them.

`explanations` reads this, over the entries of one run in order from its first. It changes nothing and explains nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from phase21.domain import events as ev
from phase21.domain.judgements import Ruling
from phase21.domain.plans import Candidate, Choice
from phase21.domain.tasks import Task, TaskStatus


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """The task was given to an agent: `before` had it until then. `choice` is None where the journal does not say why."""

    at_us: int
    wave: int
    agent_id: str
    before: str | None
    strategy: str
    predicted: float
    raw: float
    choice: Choice | None

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The agents that were weighed."""
        return self.choice.candidates if self.choice is not None else ()


class Ruled(msgspec.Struct, frozen=True, kw_only=True):
    """The gates ruled on an attempt; `gate` is the one that did not approve. With `passing` they are asked again by themselves."""

    at_us: int
    wave: int
    attempt: int
    agent_id: str | None
    ruling: str
    gate: str | None
    reason: str
    confidence: float
    passing: bool = False


class Tried(msgspec.Struct, kw_only=True):
    """An attempt. `outcome` is COMPLETED, FAILED, CANCELLED, INTERRUPTED, or None while it is under way.

    `again` says that another was to follow, after `delay_s`: with `elsewhere` on another agent, with `reconsider` on whichever is
    then predicted to do it best. `percent` and `note` are what it last said of its progress.
    """

    wave: int
    attempt: int
    agent_id: str
    confidence: float
    started_us: int
    ended_us: int | None = None
    outcome: str | None = None
    duration_s: float | None = None
    error_msg: str | None = None
    timed_out: bool = False
    again: bool = False
    delay_s: float | None = None
    elsewhere: bool = False
    reconsider: bool = False
    percent: float | None = None
    note: str = ""


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """Something else that concerned the task: a person's decision (`event` is its verb), or what became of its agent or the service."""

    at_us: int
    event: str
    text: str
    submission_id: str | None = None


DECISIONS = {
    "approve": "a person approved it",
    "cancel": "a person cancelled it",
    "pause": "a person paused the run",
    "resume": "a person resumed the run",
}

Happening = Given | Ruled | Tried | Told


class History(msgspec.Struct, kw_only=True):
    """One task's past, in the order of the journal. `waves` are those that it was part of; `status` as the outcome left it.

    `workflow` is the name of the workflow that it belongs to, `made` why that made it on the way (`spawn`, `for_each`, `compensation`,
    `judge`), empty where it did not.
    """

    run_id: str
    task: Task
    submission_id: str
    accepted_us: int
    waves: list[int]
    status: str = TaskStatus.PENDING
    ended_us: int | None = None
    error_msg: str | None = None
    refused_by: str | None = None
    workflow: str | None = None
    made: str = ""
    happenings: list[Happening] = []

    def of(self, kind: type[Any]) -> list[Any]:
        """What happened of one kind, in order."""
        return [one for one in self.happenings if isinstance(one, kind)]

    @property
    def given(self) -> Given | None:
        """The assignment that stands: None before there is one, and after the task was carried to another wave."""
        found = [one for one in self.of(Given) if one.wave == self.waves[-1]]
        return found[-1] if found else None

    @property
    def last_try(self) -> Tried | None:
        """The last attempt."""
        found = self.of(Tried)
        return found[-1] if found else None


class Chronicle:
    """The fold that finds a task's history. It holds the one task, and what is needed to say why an attempt was cut short."""

    def __init__(self, run_id: str, task_id: str) -> None:
        self.history: History | None = None
        self._run_id = run_id
        self._task_id = task_id
        self._cut = "the service was killed"
        self._workflow: str | None = None
        self._submission_id = ""
        self._folds: dict[type, Callable[[int, Any], None]] = {
            ev.ServiceStarted: self._service_started,
            ev.AgentJoined: self._agent_joined,
            ev.ServiceStopping: self._service_stopping,
            ev.AgentWentOffline: self._agent_offline,
            ev.AgentReturned: self._agent_returned,
            ev.SubmissionAccepted: self._accepted,
            ev.WorkflowExtended: self._extended,
            ev.WorkflowChanged: self._workflow_changed,
            ev.ControlReceived: self._control,
            ev.WaveOpened: self._wave_opened,
            ev.TasksAssigned: self._assigned,
            ev.AttemptStarted: self._attempt_started,
            ev.AttemptFailed: self._attempt_failed,
            ev.TaskInterrupted: self._interrupted,
            ev.TaskHeld: self._held,
            ev.TaskDeferred: self._deferred,
            ev.TaskCompleted: self._completed,
            ev.TaskFailed: self._failed,
            ev.TaskCancelled: self._cancelled,
            ev.TaskSkipped: self._skipped,
            ev.TaskProgressed: self._progressed,
        }

    def fold(self, entry: ev.Entry) -> None:
        """Take in an entry of the run, of an agent or of the service."""
        event = entry.event
        fold = self._folds.get(type(event))
        if fold is not None and not (isinstance(event, ev.TaskEvent) and event.task_id != self._task_id):
            fold(entry.at_us, event)

    @property
    def _open(self) -> History | None:
        """The history, unless its outcome stands."""
        return self.history if self.history is not None and self.history.ended_us is None else None

    def _add(self, one: Happening) -> None:
        if self._open is not None:
            self._open.happenings.append(one)

    # -- service and agents

    def _service_started(self, at_us: int, event: ev.ServiceStarted) -> None:
        self._cut = "the service was killed"
        self._add(Told(at_us=at_us, event="service_started", text=f"a service started (pid {event.pid})"))

    def _agent_joined(self, at_us: int, event: ev.AgentJoined) -> None:
        del at_us, event
        self._cut = "the agent crashed"

    def _service_stopping(self, at_us: int, event: ev.ServiceStopping) -> None:
        self._cut = "the service was stopped"
        self._add(Told(at_us=at_us, event="service_stopping", text=f"the service stopped ({event.reason})"))

    def _agent_offline(self, at_us: int, event: ev.AgentWentOffline) -> None:
        if self._has(event.agent_id):
            self._add(Told(at_us=at_us, event="agent_offline", text=f"{event.agent_id} went OFFLINE ({event.cause})"))

    def _agent_returned(self, at_us: int, event: ev.AgentReturned) -> None:
        if self._has(event.agent_id):
            self._add(Told(at_us=at_us, event="agent_returned", text=f"{event.agent_id} is tried again, one task at a time"))

    def _has(self, agent_id: str) -> bool:
        """Whether the task is to be done, and by that agent."""
        history = self._open
        given = history.given if history is not None and history.status != TaskStatus.DEFERRED else None
        return given is not None and given.agent_id == agent_id

    # -- submissions and controls

    def _accepted(self, at_us: int, event: ev.SubmissionAccepted) -> None:
        if event.workflow is not None:
            self._workflow, self._submission_id = event.workflow.name, event.submission_id
        for number, tasks in event.waves.items():
            self._find(tasks, number, at_us, event.submission_id)

    def _extended(self, at_us: int, event: ev.WorkflowExtended) -> None:
        self._find(event.tasks, event.wave, at_us, self._submission_id, event.why)

    def _find(self, tasks: Iterable[Task], number: int, at_us: int, submission_id: str, made: str = "") -> None:
        for task in tasks:
            if task.task_id == self._task_id:
                self.history = History(
                    run_id=self._run_id,
                    task=task,
                    submission_id=submission_id,
                    accepted_us=at_us,
                    waves=[number],
                    workflow=self._workflow,
                    made=made,
                )

    def _workflow_changed(self, at_us: int, event: ev.WorkflowChanged) -> None:
        why = f": {event.reason}" if event.reason else ""
        self._add(Told(at_us=at_us, event="state_changed", text=f"the workflow is {event.state}, and was {event.previous}{why}"))

    def _control(self, at_us: int, event: ev.ControlReceived) -> None:
        of_run = event.control in {"pause", "resume"} and not event.task_ids
        if of_run or self._task_id in event.task_ids:
            text = DECISIONS[event.control] if of_run or event.control in {"approve", "cancel"} else f"a person {event.control}d it"
            self._add(Told(at_us=at_us, event=event.control, text=text, submission_id=event.submission_id))

    # -- waves and assignments

    def _wave_opened(self, at_us: int, event: ev.WaveOpened) -> None:
        history = self._open
        if history is not None and self._task_id in event.carried:
            history.waves.append(event.wave)
            history.status = TaskStatus.PENDING
            self._add(Told(at_us=at_us, event="carried", text=f"taken into wave {event.wave}"))

    def _assigned(self, at_us: int, event: ev.TasksAssigned) -> None:
        history = self._open
        for given in event.assignments:
            if history is not None and given.task_id == self._task_id:
                before = history.given
                self._add(
                    Given(
                        at_us=at_us,
                        wave=event.wave,
                        agent_id=given.agent_id,
                        before=before.agent_id if before is not None else None,
                        strategy=event.strategy,
                        predicted=given.predicted,
                        raw=given.raw,
                        choice=choice_of(event.choices, self._task_id),
                    )
                )

    # -- gates and attempts

    def _attempt_started(self, at_us: int, event: ev.AttemptStarted) -> None:
        self._ruled(at_us, event, Ruling.APPROVED)
        self._add(
            Tried(
                wave=event.wave,
                attempt=event.attempt,
                agent_id=event.agent_id,
                confidence=event.confidence,
                started_us=at_us,
            )
        )
        self._stands(TaskStatus.IN_PROGRESS)

    def _attempt_failed(self, at_us: int, event: ev.AttemptFailed) -> None:
        tried = self._ended(at_us, "FAILED", event)
        if tried is not None:
            tried.again, tried.delay_s, tried.elsewhere = True, event.delay_s, event.elsewhere
            tried.reconsider = event.reconsider
        self._stands(TaskStatus.RETRYING)

    def _interrupted(self, at_us: int, event: ev.TaskInterrupted) -> None:
        tried = self._ended(at_us, "INTERRUPTED", event)
        if tried is not None:
            tried.again, tried.error_msg = True, self._cut
        self._stands(TaskStatus.PENDING)

    def _held(self, at_us: int, event: ev.TaskHeld) -> None:
        self._ruled(at_us, event, Ruling.DEFERRED, passing=True)

    def _deferred(self, at_us: int, event: ev.TaskDeferred) -> None:
        self._ruled(at_us, event, Ruling.DEFERRED)
        self._stands(TaskStatus.DEFERRED)

    def _completed(self, at_us: int, event: ev.TaskCompleted) -> None:
        self._ended(at_us, "COMPLETED", event)
        self._end(at_us, TaskStatus.COMPLETED)

    def _failed(self, at_us: int, event: ev.TaskFailed) -> None:
        if event.gate is not None:
            self._ruled(at_us, event, Ruling.REJECTED)
        self._ended(at_us, "FAILED", event)
        self._end(at_us, TaskStatus.FAILED, event.error_msg, event.gate)

    def _cancelled(self, at_us: int, event: ev.TaskCancelled) -> None:
        self._ended(at_us, "CANCELLED", event)
        self._end(at_us, TaskStatus.CANCELLED, event.reason)

    def _skipped(self, at_us: int, event: ev.TaskSkipped) -> None:
        self._add(Told(at_us=at_us, event="task_skipped", text=f"the workflow skipped it: {event.reason}"))
        self._end(at_us, TaskStatus.SKIPPED, event.reason)

    def _progressed(self, at_us: int, event: ev.TaskProgressed) -> None:
        del at_us
        tried = self._open.last_try if self._open is not None else None
        if tried is not None and tried.outcome is None and tried.attempt == event.attempt:
            tried.percent, tried.note = event.percent, event.note

    def _ruled(self, at_us: int, event: Any, ruling: Ruling, *, passing: bool = False) -> None:
        said = getattr(event, "reason", "") or getattr(event, "error_msg", "")
        self._add(
            Ruled(
                at_us=at_us,
                wave=event.wave,
                attempt=event.attempt,
                agent_id=event.agent_id,
                ruling=ruling,
                gate=getattr(event, "gate", None),
                reason=said.removeprefix("safety: "),
                confidence=event.confidence,
                passing=passing,
            )
        )

    def _ended(self, at_us: int, outcome: str, event: Any) -> Tried | None:
        """The attempt that this event ends, with its end; None where none was under way."""
        tried = self._open.last_try if self._open is not None else None
        if tried is None or tried.outcome is not None:
            return None
        tried.ended_us, tried.outcome = at_us, outcome
        tried.duration_s = getattr(event, "duration_s", None)
        tried.error_msg = getattr(event, "error_msg", None)
        tried.timed_out = getattr(event, "timed_out", False)
        return tried

    def _stands(self, status: str) -> None:
        if self._open is not None:
            self._open.status = status

    def _end(self, at_us: int, status: str, error_msg: str | None = None, gate: str | None = None) -> None:
        history = self._open
        if history is not None:
            history.status, history.ended_us, history.error_msg, history.refused_by = status, at_us, error_msg, gate


def choice_of(choices: Iterable[Choice], task_id: str) -> Choice | None:
    """Find the choice that tells of a task: the one that names it, else the one that names none; None where there is neither."""
    general = None
    for choice in choices:
        if task_id in choice.tasks:
            return choice
        if not choice.tasks:
            general = choice
    return general


def history_in(entries: Iterable[ev.Entry], run_id: str, task_id: str) -> History | None:
    """The task's history in the entries of its run, from the run's first; None where the run has no such task."""
    chronicle = Chronicle(run_id, task_id)
    for entry in entries:
        chronicle.fold(entry)
    return chronicle.history
