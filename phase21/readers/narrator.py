"""The only hand that writes the log: entries of the journal become events of one form, each a line.

The service lets it follow the journal; `tail` asks it for the same lines from the store. What goes wrong with the disk is told
directly (`trouble`), because the journal cannot hold it then. It decides nothing, and a log that cannot be written stops nobody.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Coroutine, Iterator
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, TextIO

from phase21.domain import events as ev
from phase21.domain.errors import ConfigurationError
from phase21.domain.judgements import Ruling
from phase21.store import codec
from phase21.store.clock import Clock, iso
from phase21.store.files import PRIVATE_FILE
from phase21.store.journal import Follower, Journal

DEBUG, INFO, WARNING, ERROR = "DEBUG", "INFO", "WARNING", "ERROR"
LEVELS = {DEBUG: 10, INFO: 20, WARNING: 30, ERROR: 40, "CRITICAL": 50}
FORMATS = ("auto", "json", "console")

Line = dict[str, Any]
"""An event of the log: `timestamp`, `level`, `event`, then what applies."""
Told = Iterator[tuple[str, str, dict[str, Any]]]
"""Level, name and fields of each event that an entry is told as."""


# -- what an entry is told as ------------------------------------------------------------------------------------------


def _service_started(event: ev.ServiceStarted) -> Told:
    names = ("pid", "version", "dry_run")
    yield INFO, "service_started", {**{name: getattr(event, name) for name in names}, "agents": len(event.fleet)}


def _service_stopping(event: ev.ServiceStopping) -> Told:
    yield INFO, "service_stopping", {"reason": event.reason, "drain_timeout_s": event.drain_timeout_s}


def _service_stopped(event: ev.ServiceStopped) -> Told:
    yield INFO, "service_stopped", {"reason": event.reason}


def _configuration_reloaded(event: ev.ConfigurationReloaded) -> Told:
    yield INFO, "configuration_reloaded", {"path": event.path, "pending": list(event.pending)}


def _configuration_refused(event: ev.ConfigurationRefused) -> Told:
    yield ERROR, "configuration_refused", {"error_msg": event.error}


def _submission_accepted(event: ev.SubmissionAccepted) -> Told:
    numbers = list(event.waves)
    fields: dict[str, Any] = {"run_id": event.run_id, "wave": numbers[0] if len(numbers) == 1 else None}
    fields["submission_id"] = event.submission_id
    yield INFO, "submission_accepted", {**fields, "waves": numbers, "tasks": sum(map(len, event.waves.values()))}


def _submission_repeated(event: ev.SubmissionRepeated) -> Told:
    yield INFO, "submission_repeated", {"run_id": event.run_id, "submission_id": event.submission_id}


def _submission_rejected(event: ev.SubmissionRejected) -> Told:
    # The line itself is not told: it may hold secrets, which rejected.jsonl alone may keep.
    names = ("run_id", "submission_id", "file", "line", "offset", "path")
    yield WARNING, "submission_rejected", {**{name: getattr(event, name) for name in names}, "error_msg": event.error}


def _queue_refused(event: ev.QueueRefused) -> Told:
    yield ERROR, "queue_refused", {"error_msg": event.error}


def _control_received(event: ev.ControlReceived) -> Told:
    fields = {"run_id": event.run_id, "submission_id": event.submission_id, "control": event.control}
    yield INFO, "control_received", {**fields, "task_ids": list(event.task_ids)}


def _schedule_accepted(event: ev.ScheduleAccepted) -> Told:
    every = {"cron": event.every.cron, "timezone": event.every.timezone if event.every.cron else None}
    fields = {"run_id": event.run_id, "submission_id": event.submission_id, "tasks": len(event.tasks)}
    yield INFO, "schedule_accepted", {**fields, **every, "interval_s": event.every.interval_s}


def _schedule_fired(event: ev.ScheduleFired) -> Told:
    yield INFO, "schedule_fired", {"run_id": event.fired, "schedule": event.run_id, "due": iso(event.due_us)}


def _schedule_missed(event: ev.ScheduleMissed) -> Told:
    times = {"due": iso(event.due_us), "through": iso(event.through_us), "count": event.count}
    yield WARNING, "schedule_missed", {"schedule": event.run_id, **times, "reason": event.reason}


def _schedule_ended(event: ev.ScheduleEnded) -> Told:
    yield INFO, "schedule_ended", {"schedule": event.run_id, "reason": event.reason}


def _agent_restarted(event: ev.AgentRestarted) -> Told:
    yield WARNING, "agent_restarted", {"agent_id": event.agent_id, "error_msg": event.error}


def _agent_offline(event: ev.AgentWentOffline) -> Told:
    names = ("run_id", "wave", "agent_id", "task_id", "cause")
    yield INFO, "agent_offline", {name: getattr(event, name) for name in names}


def _agent_online(event: ev.AgentReturned) -> Told:
    yield INFO, "agent_online", {"agent_id": event.agent_id, "probation": event.probation}


def _run_idle(event: ev.RunIdled) -> Told:
    yield INFO, "run_idle", {"run_id": event.run_id}


def _wave_started(event: ev.WaveOpened) -> Told:
    yield INFO, "wave_started", {"run_id": event.run_id, "wave": event.wave, "carried": list(event.carried) or None}


def _wave_completed(event: ev.OutputsWritten) -> Told:
    digest = codec.decode(bytes(event.digest)) or {}
    figures = ("health_score", "health_status", "completed", "failed", "deferred", "cancelled", "actual_duration_s")
    said = {**{name: digest.get(name) for name in figures}, "skipped": digest.get("skipped") or None}
    yield INFO, "wave_completed", {"run_id": event.run_id, "wave": event.wave, **said}


def _anomaly_detected(event: ev.AnomalyRaised) -> Told:
    anomaly = event.anomaly
    names = ("wave", "agent_id", "anomaly_type", "severity", "value", "threshold", "description", "recommendation")
    yield WARNING, "anomaly_detected", {"run_id": event.run_id, **{name: getattr(anomaly, name) for name in names}}


def _signals(event: ev.SignalsSent) -> Told:
    where = {"run_id": event.run_id, "wave": event.wave}
    for signal in event.signals:
        about: dict[str, Any] = {
            name: signal.content[name] for name in ("agent_id", "task_id", "heuristic_id") if name in signal.content
        }
        what = {"signal_type": signal.signal_type, "target_phase": signal.target_phase, "confidence": signal.confidence}
        yield DEBUG, "signal_generated", {**where, **about, **what}
    for made in event.validations:
        about = {"agent_id": made.agent_id, "task_id": made.task_id}
        what = {"signal_type": "prediction_validation", "target_phase": 20, "confidence": 1.0 - made.delta}
        yield DEBUG, "signal_generated", {**where, **about, **what}


def _assigned(event: ev.TasksAssigned) -> Told:
    for given in event.assignments:
        where = {"run_id": event.run_id, "wave": event.wave, "agent_id": given.agent_id, "task_id": given.task_id}
        what = {"strategy": event.strategy, "predicted_success_rate": given.predicted, "moved": event.moved or None}
        yield DEBUG, "task_assigned", {**where, **what}


def _place(event: Any) -> dict[str, Any]:
    """Where a task event stands: all of the contract's fields that it has."""
    names = ("run_id", "wave", "agent_id", "task_id")
    return {**{name: getattr(event, name) for name in names}, "attempt": event.attempt or None}


def _gate_verdict(event: Any, ruling: Ruling, reason: str | None) -> tuple[str, str, dict[str, Any]]:
    said = {"verdict": ruling, "gate": getattr(event, "gate", None), "reason": reason, "confidence": event.confidence}
    return DEBUG, "gate_verdict", {**_place(event), **said}


def _attempt_started(event: ev.AttemptStarted) -> Told:
    yield _gate_verdict(event, Ruling.APPROVED, None)
    if event.attempt == 1:
        yield DEBUG, "task_started", _place(event)
    yield DEBUG, "attempt_started", _place(event)


def _attempt_failed(event: ev.AttemptFailed) -> Told:
    names = ("error_msg", "duration_s", "delay_s", "timed_out")
    yield DEBUG, "attempt_failed", {**_place(event), **{name: getattr(event, name) for name in names}}


def _task_deferred(event: ev.TaskHeld | ev.TaskDeferred) -> Told:
    yield _gate_verdict(event, Ruling.DEFERRED, event.reason)
    said = {"gate": event.gate, "reason": event.reason, "waits": isinstance(event, ev.TaskHeld)}
    yield INFO, "task_deferred", {**_place(event), **said}


def _task_completed(event: ev.TaskCompleted) -> Told:
    yield DEBUG, "task_completed", {**_place(event), "duration_s": event.duration_s}


def _task_failed(event: ev.TaskFailed) -> Told:
    if event.gate is not None:
        yield _gate_verdict(event, Ruling.REJECTED, event.error_msg)
    names = ("error_msg", "gate", "duration_s")
    yield WARNING, "task_failed", {**_place(event), **{name: getattr(event, name) for name in names}}


def _task_cancelled(event: ev.TaskCancelled) -> Told:
    yield DEBUG, "task_cancelled", {**_place(event), "reason": event.reason, "duration_s": event.duration_s}


def _task_interrupted(event: ev.TaskInterrupted) -> Told:
    yield DEBUG, "task_interrupted", _place(event)


def _task_skipped(event: ev.TaskSkipped) -> Told:
    place = {"run_id": event.run_id, "wave": event.wave, "task_id": event.task_id}
    yield DEBUG, "task_skipped", {**place, "reason": event.reason}


def _task_progressed(event: ev.TaskProgressed) -> Told:
    yield DEBUG, "task_progressed", {**_place(event), "percent": event.percent, "note": event.note or None}


def _task_noted(event: ev.TaskNoted) -> Told:
    if event.level == WARNING:
        yield WARNING, "task_warned", {**_place(event), "text": event.text}
    else:
        yield INFO, "task_noted", {**_place(event), "text": event.text}


def _messages_passed(event: ev.MessagesPassed) -> Told:
    names = ("message_id", "type", "sender", "to", "topic", "reply_to")  # not what it says, which may be secret
    for message in event.sent:
        yield DEBUG, "message_sent", {"run_id": event.run_id, **{name: getattr(message, name) for name in names}}
    for taken in event.taken:
        yield DEBUG, "message_taken", {"run_id": event.run_id, "task_id": taken.task_id, "message_id": taken.message_id}


def _messages_dead(event: ev.MessagesDead) -> Told:
    for letter in event.letters:
        said = {"message_id": letter.message_id, "to": letter.address, "reason": letter.reason}
        yield WARNING, "message_dead", {"run_id": event.run_id, **said}


def _shared_changed(event: ev.SharedChanged) -> Told:
    said = {"task_id": event.by, "name": event.name, "version": event.version}
    yield DEBUG, "shared_changed", {"run_id": event.run_id, **said}


def _lock_taken(event: ev.LockTaken) -> Told:
    said = {"task_id": event.task_id, "attempt": event.attempt, "name": event.name, "fence": event.fence}
    yield DEBUG, "lock_taken", {"run_id": event.run_id, **said}


def _lock_released(event: ev.LockReleased) -> Told:
    said = {"task_id": event.task_id, "name": event.name, "fence": event.fence}
    yield DEBUG, "lock_released", {"run_id": event.run_id, **said}


def _workflow_changed(event: ev.WorkflowChanged) -> Told:
    about = {"run_id": event.run_id, "reason": event.reason or None}
    yield INFO, "state_changed", {"run_id": event.run_id, "state": event.state, "previous": event.previous}
    if event.state == "running" and event.previous == "pending":
        yield INFO, "workflow_started", about
    elif event.state == "completed":
        yield INFO, "workflow_completed", about
    elif event.state == "cancelled":
        yield INFO, "workflow_cancelled", about
    elif event.state == "failed":
        yield WARNING, "workflow_failed", about


def _workflow_extended(event: ev.WorkflowExtended) -> Told:
    what = {"run_id": event.run_id, "wave": event.wave, "why": event.why, "tasks": len(event.tasks)}
    yield INFO, "workflow_extended", what


_TELLERS: dict[type, tuple[str, Callable[[Any], Told]]] = {
    ev.ServiceStarted: (INFO, _service_started),
    ev.ServiceStopping: (INFO, _service_stopping),
    ev.ServiceStopped: (INFO, _service_stopped),
    ev.ConfigurationReloaded: (INFO, _configuration_reloaded),
    ev.ConfigurationRefused: (ERROR, _configuration_refused),
    ev.SubmissionAccepted: (INFO, _submission_accepted),
    ev.SubmissionRepeated: (INFO, _submission_repeated),
    ev.SubmissionRejected: (WARNING, _submission_rejected),
    ev.QueueRefused: (ERROR, _queue_refused),
    ev.ControlReceived: (INFO, _control_received),
    ev.ScheduleAccepted: (INFO, _schedule_accepted),
    ev.ScheduleFired: (INFO, _schedule_fired),
    ev.ScheduleMissed: (WARNING, _schedule_missed),
    ev.ScheduleEnded: (INFO, _schedule_ended),
    ev.AgentRestarted: (WARNING, _agent_restarted),
    ev.AgentWentOffline: (INFO, _agent_offline),
    ev.AgentReturned: (INFO, _agent_online),
    ev.RunIdled: (INFO, _run_idle),
    ev.WaveOpened: (INFO, _wave_started),
    ev.OutputsWritten: (INFO, _wave_completed),
    ev.AnomalyRaised: (WARNING, _anomaly_detected),
    ev.TaskHeld: (INFO, _task_deferred),
    ev.TaskDeferred: (INFO, _task_deferred),
    ev.TaskFailed: (WARNING, _task_failed),
    ev.TasksAssigned: (DEBUG, _assigned),
    ev.AttemptStarted: (DEBUG, _attempt_started),
    ev.AttemptFailed: (DEBUG, _attempt_failed),
    ev.TaskCompleted: (DEBUG, _task_completed),
    ev.TaskCancelled: (DEBUG, _task_cancelled),
    ev.TaskInterrupted: (DEBUG, _task_interrupted),
    ev.TaskSkipped: (DEBUG, _task_skipped),
    ev.TaskProgressed: (DEBUG, _task_progressed),
    ev.TaskNoted: (WARNING, _task_noted),
    ev.MessagesPassed: (DEBUG, _messages_passed),
    ev.MessagesDead: (WARNING, _messages_dead),
    ev.SharedChanged: (DEBUG, _shared_changed),
    ev.LockTaken: (DEBUG, _lock_taken),
    ev.LockReleased: (DEBUG, _lock_released),
    ev.WorkflowChanged: (WARNING, _workflow_changed),
    ev.WorkflowExtended: (INFO, _workflow_extended),
    ev.SignalsSent: (DEBUG, _signals),
}
"""Each kind of event that is told: the highest level that it reaches, and how."""


def lines(entry: ev.Entry) -> list[Line]:
    """Tell an entry as events, in order; none for what only the house needs. Fields that do not apply are left out."""
    teller = _TELLERS.get(type(entry.event))
    if teller is None:
        return []
    stamp = iso(entry.at_us)
    return [_line(stamp, level, name, fields) for level, name, fields in teller[1](entry.event)]


def _line(stamp: str, level: str, name: str, fields: dict[str, Any]) -> Line:
    told = {key: value for key, value in fields.items() if value is not None}
    return {"timestamp": stamp, "level": level, "event": name, **told}


def kinds(level: str) -> tuple[type, ...]:
    """Name the kinds of event that have something to tell at a level."""
    least = rank(level)
    return tuple(kind for kind, (highest, _) in _TELLERS.items() if LEVELS[highest] >= least)


def rank(level: str) -> int:
    """How grave a level is. Raises ConfigurationError for what is none."""
    try:
        return LEVELS[level.upper()]
    except KeyError:
        raise ConfigurationError(f"logging.level: {level!r} is not known; allowed: {', '.join(LEVELS)}") from None


# -- how a line looks --------------------------------------------------------------------------------------------------


def renderer(log_format: str, stream: TextIO) -> Callable[[Line], str]:
    """How lines look on a stream: `json`, `console`, or `auto` (console on a terminal). Raises ConfigurationError."""
    if log_format not in FORMATS:
        raise ConfigurationError(f"logging.format: {log_format!r} is not known; allowed: {', '.join(FORMATS)}")
    terminal = stream.isatty()
    if log_format == "json" or (log_format == "auto" and not terminal):
        return _json
    from structlog.dev import ConsoleRenderer  # noqa: PLC0415 - slow to import, and only a terminal needs it

    console = ConsoleRenderer(colors=terminal and not os.environ.get("NO_COLOR"), sort_keys=False, pad_event_to=22)
    return lambda line: str(console(None, "", _for_person(line)))


def _for_person(line: Line) -> Line:
    """The same with figures short enough to read."""
    short = {key: round(value, 4) if isinstance(value, float) else value for key, value in line.items()}
    return {**short, "level": line["level"].lower()}


def _json(line: Line) -> str:
    return codec.encode(line).decode()


class LogFile(RotatingFileHandler):
    """The log in the state folder: the owner's alone, rotated by size, silent where the disk does not take it."""

    def __init__(self, path: Path, max_bytes: int, backups: int) -> None:
        super().__init__(path, maxBytes=max_bytes, backupCount=backups, encoding="utf-8", delay=True)

    def _open(self) -> Any:
        return open(self.baseFilename, self.mode, encoding=self.encoding, opener=_private)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the handler's word
        """Say nothing: the trouble is told once by who needs the disk."""

    def write(self, text: str) -> None:
        """Add a line."""
        self.handle(logging.makeLogRecord({"msg": text}))


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, PRIVATE_FILE)


# -- telling -----------------------------------------------------------------------------------------------------------


class Narrator:
    """Writes events from `level` up to a stream, and to a log file where one is named.

    Raises ConfigurationError for a level or format that is not known. `max_bytes` and `backups` are the file's; at 0 backups it
    is not rotated.
    """

    def __init__(
        self,
        level: str = INFO,
        log_format: str = "auto",
        stream: TextIO | None = None,
        *,
        file: Path | None = None,
        max_bytes: int = 10 * 1024 * 1024,
        backups: int = 5,
        clock: Clock | None = None,
    ) -> None:
        self.level = level
        self._least = rank(level)
        self._stream: TextIO | None = stream or sys.stdout
        self._render = renderer(log_format, self._stream)
        self._plain = self._render is _json
        self._file = LogFile(file, max_bytes, backups) if file is not None else None
        self._clock = clock or Clock()

    def narrate(self, entry: ev.Entry) -> None:
        """Tell an entry."""
        for line in lines(entry):
            if LEVELS[line["level"]] >= self._least:
                self._write(line)

    def trouble(self, name: str, error: BaseException | None) -> None:
        """Tell that a disk does not do what it should, or (`error` None) that it does again."""
        stamp = iso(self._clock.now_us())
        if error is not None:
            self._tell(_line(stamp, ERROR, "storage_unavailable", {"storage": name, "error_msg": str(error)}))
        else:
            self._tell(_line(stamp, INFO, "storage_recovered", {"storage": name}))

    def run(self, journal: Journal) -> Coroutine[Any, Any, None]:
        """Tell durable entries until cancelled. It follows from the call on, not from the first await."""
        return self._follow(journal.follow("narrator", *kinds(self.level), durable=True))

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()

    async def _follow(self, follower: Follower) -> None:
        async for entry in follower:
            self.narrate(entry)

    def _tell(self, line: Line) -> None:
        if LEVELS[line["level"]] >= self._least:
            self._write(line)

    def _write(self, line: Line) -> None:
        text = self._render(line)
        if self._stream is not None:
            try:
                self._stream.write(f"{text}\n")
                self._stream.flush()
            except (OSError, ValueError):  # whoever read it is gone: the work is not
                self._stream = None
        if self._file is not None:
            self._file.write(text if self._plain else _json(line))
