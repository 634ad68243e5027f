"""Who looks from beside: reads the store of a daemon that runs, or of one that does not.

Every verb that shows or waits asks this. It folds what is durable into a ledger of its own, answers for runs that memory has put
away from the store, and changes nothing: it makes no folder and no file.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Self

import msgspec

from phase21.domain import events as ev
from phase21.domain.errors import StorageUnavailable, UnknownRun
from phase21.domain.ledger import Ledger
from phase21.domain.progress import flow_percent, task_percent
from phase21.domain.records import AgentRecord, RunRecord, TaskRecord
from phase21.domain.runs import Run
from phase21.domain.tasks import WAITING, AgentStatus, TaskStatus
from phase21.intake.queue import QueueReader, pending_bytes
from phase21.readers.inquiries.agenda import schedules_of, waits_until
from phase21.store import codec
from phase21.store.clock import iso
from phase21.store.database import Database
from phase21.store.files import holder_of
from phase21.store.journal import entries_of

JOURNAL = "journal.db"
PIECE_ENTRIES = 5_000
MAX_LINE_BYTES = 16 * 1024 * 1024
AWAITED_BYTES = 64 * 1024 * 1024
"""How much of the queue file is read to say which runs wait in it; beyond that only its size is told."""


class Spectator:
    """The store of a state folder, read from beside. `ledger` stands where the last `refresh` left it."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.ledger = Ledger()
        self._database: Database | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the store."""
        if self._database is not None:
            self._database.close()

    @property
    def database(self) -> Database | None:
        """The store, None where nothing was ever kept. Raises StorageUnavailable where it cannot be read."""
        path = self.state / JOURNAL
        if self._database is None and path.exists():
            with _readable(path):
                self._database = _opened(path)
        return self._database

    # -- what happened ---------------------------------------------------------------------------------------------------

    def refresh(self) -> list[ev.Entry]:
        """Fold what became durable since. Gives those entries, except the first time, when the store's snapshot is begun from."""
        database = self.database
        if database is None:
            return []
        with _readable(database.path):
            if not self.ledger.position:
                self.ledger = database.ledger()
                return []
            fresh = list(database.entries(self.ledger.position))
        for entry in fresh:
            self.ledger.fold(entry)
        return fresh

    def entries(self, after: int = 0, run_id: str | None = None) -> Iterator[ev.Entry]:
        """Read the durable entries behind a position, in pieces: a reader that dawdles does not hold the store's past.

        With `run_id` only those that concern a run, and those of agents and the service.
        """
        database = self.database
        while database is not None:
            with _readable(database.path):
                source = database.entries(after) if run_id is None else entries_of(database, run_id, after)
                piece = list(islice(source, PIECE_ENTRIES))
            yield from piece
            if len(piece) < PIECE_ENTRIES:
                return
            after = piece[-1].position

    # -- runs ------------------------------------------------------------------------------------------------------------

    def record(self, run_id: str) -> RunRecord:
        """Look up a run's record as of now. Raises UnknownRun."""
        run = self.ledger.runs.get(run_id)
        if run is not None:
            return run.record
        stored = self.database.run(run_id) if self.database is not None else None
        if stored is None:
            raise UnknownRun(f"run {run_id}: no such run in {self.state}; `phase21 status` lists those that are known")
        return stored

    def awaited(self, queue: Path) -> dict[str, int]:
        """Count the lines of the queue file that no daemon has read yet, by run; what is no submission does not count."""
        if pending_bytes(str(queue), self.ledger.mark) > AWAITED_BYTES:
            return {}
        reader = QueueReader(str(queue), self.ledger.mark, max_line_bytes=MAX_LINE_BYTES, allow_shared=True)
        found: Counter[str] = Counter()
        while lines := reader.read():
            for line in lines:
                with contextlib.suppress(codec.CodecError):
                    found[codec.decode(line.raw, _Named).run_id] += line.error is None
        return dict(found)

    # -- how things stand ------------------------------------------------------------------------------------------------

    def status(self, queue: Path, run_id: str | None = None) -> dict[str, Any]:
        """Say how things stand, in the shape of `status --json`; with `run_id`, of that run alone. Raises UnknownRun."""
        holder = holder_of(self.state)
        running = holder is not None
        since_us = self.ledger.service_us if self.ledger.service is not None else None
        since = (holder or {}).get("since") or (iso(since_us) if since_us is not None else None)
        mark = self.ledger.mark
        return {
            "daemon": {"running": running, "pid": (holder or {}).get("pid"), "since": since if running else None},
            "queue": {
                "path": str(queue),
                "offset": mark.offset if mark is not None else 0,
                "pending_bytes": pending_bytes(str(queue), mark),
            },
            "agents": self._agents(running=running),
            "runs": [] if run_id in self.ledger.schedules else self._runs(queue, run_id, running=running),
            "schedules": schedules_of(self.ledger, run_id),
        }

    def _runs(self, queue: Path, run_id: str | None, *, running: bool) -> list[dict[str, Any]]:
        waiting = self.awaited(queue)
        if run_id is not None:
            if run_id not in waiting:
                self.record(run_id)
            waiting = {run_id: waiting.get(run_id, 0)}
        stored = self.database.runs() if self.database is not None else iter(())
        records = {record.run_id: Run(record=record) for record in stored if run_id in {None, record.run_id}}
        records |= {name: run for name, run in self.ledger.runs.items() if run_id in {None, name}}
        ordered = sorted(records.values(), key=lambda run: run.record.first_position)
        shown = [_run(run, running=running, awaited=bool(waiting.get(run.run_id))) for run in ordered]
        return shown + [
            _run(Run(record=RunRecord(run_id=name)), running=running, awaited=True) for name in waiting if name not in records
        ]

    def _agents(self, *, running: bool) -> list[dict[str, Any]]:
        work = {agent.agent_id: _Work() for agent in self.ledger.present_agents()}
        for run in self.ledger.runs.values():
            for wave in run.waves.values():
                for task in wave.tasks.values():
                    held = work.get(task.agent_id or "")
                    if held is not None:
                        held.add(task, taught=wave.calibrated)
        return [self._agent(agent, work[agent.agent_id], running=running) for agent in self.ledger.present_agents()]

    def _agent(self, agent: AgentRecord, work: _Work, *, running: bool) -> dict[str, Any]:
        completed = agent.calibration.successes + work.completed
        failed = agent.calibration.samples - agent.calibration.successes + work.failed
        return {
            "agent_id": agent.agent_id,
            "status": str(self.ledger.agent_status(agent) if running else AgentStatus.IDLE),
            "waiting": work.waiting,
            "current_task": work.current if running else None,
            "completed": completed,
            "failed": failed,
            "success_rate": completed / (completed + failed) if completed + failed else None,
        }


class _Named(msgspec.Struct):
    run_id: str


class _Work:
    """What an agent has in waves that are not closed."""

    def __init__(self) -> None:
        self.waiting = self.completed = self.failed = 0
        self.current: str | None = None

    def add(self, record: TaskRecord, *, taught: bool) -> None:
        """Count a task that stands under the agent; what a judged wave taught is in the agent's record already."""
        status = record.status
        if status is TaskStatus.IN_PROGRESS:
            self.current = self.current or record.task.task_id
        elif status in WAITING:
            self.waiting += 1
        elif record.started and not taught:
            self.completed += status is TaskStatus.COMPLETED
            self.failed += status is TaskStatus.FAILED


def _run(run: Run, *, running: bool, awaited: bool) -> dict[str, Any]:
    record, health = run.record, run.record.health
    return {
        "run_id": record.run_id,
        "state": _state(run, running=running, awaited=awaited),
        "current_wave": run.current,
        "waves": record.closed_waves + len(run.waves),
        "tasks": task_counts(run),
        "health_score": health.score if health is not None else None,
        "health_status": str(health.status) if health is not None else None,
        "waits_until": waits_until(run),
        "workflow": workflow_of(run),
        "running": [_running(task) for task in run.open_tasks() if task.status is TaskStatus.IN_PROGRESS] if running else [],
    }


def workflow_of(run: Run) -> dict[str, Any] | None:
    """How a run's workflow stands; None where it is none. `progress` is 0 to 100."""
    flow = run.record.workflow
    if flow is None:
        return None
    progress = flow_percent(flow, run.open_tasks())
    return {"name": flow.workflow.name, "state": str(flow.state), "progress": progress, "reason": flow.reason or None}


def _running(record: TaskRecord) -> dict[str, Any]:
    said = {"progress": task_percent(record), "note": record.note or None}
    return {"task_id": record.task.task_id, "agent_id": record.ran_by, "attempt": record.attempts, **said}


def _state(run: Run, *, running: bool, awaited: bool) -> str:
    if run.record.paused:
        return "paused"
    if run.current is not None and running:
        return "running"
    return "queued" if awaited or not run.idle else "idle"


def task_counts(run: Run) -> dict[str, int]:
    """Count a run's tasks by status, closed waves and open ones; a deferred task counts once wherever it stands."""
    counts = Counter({str(status): count for status, count in run.record.counts.items()})
    counts.update(str(task.status) for task in run.open_tasks() if task.status is not TaskStatus.DEFERRED)
    counts[str(TaskStatus.DEFERRED)] += len(run.record.deferred)
    return {str(status): counts[status] for status in TaskStatus if counts[status]}


def _opened(path: Path) -> Database | None:
    """The store; None while a start that met a full disk, or is under way, has not made its tables."""
    database = Database(path, read_only=True)
    try:
        made = database.made()
    except BaseException:
        database.close()
        raise
    if not made:
        database.close()
    return database if made else None


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Say in one word what the store raises where the disk, or a daemon that is just making it, does not let it be read."""
    try:
        yield
    except Exception as error:
        raise StorageUnavailable(f"{path}: the journal cannot be read: {error}") from error
