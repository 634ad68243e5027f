"""Builds the house, starts it, drains it, closes it; decides nothing.

Two ways in: `serve`, the daemon, and `carry_out`, a run over a Phase 20 folder without one. Both hold the state folder
alone, and both begin by going on with what the journal holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import signal
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Self

import msgspec

import phase21
from phase21.agents.executor import AgentExecutor
from phase21.agents.fleet import Fleet
from phase21.agents.resources import Resources
from phase21.domain import events as ev
from phase21.domain.errors import ConfigurationError, Phase21Error
from phase21.domain.records import RunRecord
from phase21.domain.recovery import after_interruption
from phase21.domain.settings import CurrentSettings, Settings
from phase21.domain.tasks import TaskStatus
from phase21.engines import offers
from phase21.engines.engine import Engines
from phase21.engines.processes import end_strays
from phase21.harness import Harness
from phase21.intake.queue import QueueReader, check_permissions
from phase21.intake.receiver import Receiver
from phase21.intake.submissions import Submission
from phase21.manager import AgentManager
from phase21.readers.feedback import FeedbackLoop
from phase21.readers.monitor import Monitor
from phase21.readers.narrator import Narrator
from phase21.readers.notifier import Notifier
from phase21.readers.outputs import Outputs
from phase21.readers.rejections import Rejections
from phase21.store import files
from phase21.store.clock import Clock, iso
from phase21.store.journal import Journal, TroubleHook

SIGNAL_BASE = 128
EXIT_GRACE_S = 3.0
"""From the end of the drain to the end of the process: longer than a command is given between SIGTERM and SIGKILL."""

WRITEBACK_US = 600 * 1_000_000
"""How long a system may keep a written file in memory only, generously."""

RESTART_SECTIONS = ("agents", "execution", "handlers", "logging", "queue")
"""Sections of the configuration that a reload leaves until the next start."""

GC_THRESHOLD = 50_000
"""Allocations between two looks of the garbage collector: records live long and hold no circles."""

SWITCH_INTERVAL_S = 0.001
"""How long a thread that writes may be kept from the interpreter by the loop; each commit needs it a few times."""


def tuned() -> None:
    """Set the process up for many small long-lived values; called once by whoever owns the process."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 20, 100)
    sys.setswitchinterval(SWITCH_INTERVAL_S)


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a service lives: its state folder, its outputs, its queue file."""

    state: Path
    outputs: Path
    queue: Path


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended that was carried out without a daemon."""

    run_id: str
    exit_status: int
    record: RunRecord


class House:
    """The parts of one service, wired. Made by `opened`; everything in it lives in one task group."""

    def __init__(self, journal: Journal, place: Place, settings: CurrentSettings, group: asyncio.TaskGroup) -> None:
        self.journal = journal
        self.settings = settings
        self.group = group
        self.seed = settings.now.handlers.seed
        self.suspects = _open_waves(journal)
        self.failed_before = journal.ledger.failed_tasks
        engines = Engines.built(settings.now.handlers, dry_run=settings.now.execution.dry_run, marker=journal.store_id)
        self.executor = AgentExecutor(
            journal,
            engines,
            settings,
            Resources(place.state),
            group,
            random.Random(self.seed),  # noqa: S311 - dice for jitter, not for secrets
            self.suspects,
            offers.offered(offers.GATES),
        )
        self.fleet = Fleet(journal, self.executor, settings, group)
        self.manager = AgentManager(journal, self.fleet.inboxes, settings)
        self.harness = Harness(journal, self.manager, settings)
        self.outputs = Outputs(journal, place.outputs, settings, _doubtful_runs(journal))
        self.readers: list[asyncio.Task[None]] = []
        reader = QueueReader(
            str(place.queue),
            journal.ledger.mark,
            max_line_bytes=settings.now.queue.max_line_bytes,
            allow_shared=settings.now.queue.allow_shared,
        )
        self.receiver = Receiver(journal, reader, settings, folder=str(place.queue.parent))

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(
        cls,
        place: Place,
        settings: CurrentSettings,
        *,
        narrator: Narrator | None = None,
        clock: Clock | None = None,
        inline: bool = False,
    ) -> AsyncIterator[House]:
        """The house, at work on what its journal holds; on leaving it is in order."""
        path = place.state / "journal.db"
        async with Journal.opened(path, clock=clock, inline=inline) as journal, asyncio.TaskGroup() as group:
            if narrator is not None:
                journal.on_trouble = narrator.trouble
            house = cls(journal, place, settings, group)
            house._start(narrator, place)
            try:
                yield house
            finally:
                await house._end()

    def _start(self, narrator: Narrator | None, place: Place) -> None:
        """Begin: who tells first, then who judges, then who works."""
        if narrator is not None:
            self._read(narrator.run(self.journal), "narrator")
        if self.journal.ledger.service is not None:
            end_strays(self.journal.store_id)
        self.journal.append(
            ev.ServiceStarted(
                pid=os.getpid(),
                version=phase21.__version__,
                boot_id=_boot_id(),
                dry_run=self.settings.now.execution.dry_run,
                fleet=tuple(spec.id for spec in self.settings.now.agents.specs()),
            )
        )
        _interrupt(self.journal)
        self._read(Rejections(self.journal, place.state).run(), "rejections")
        self._read(Monitor(self.journal, self.settings).run(), "monitor")
        self._read(FeedbackLoop(self.journal).run(), "feedback")
        self._read(self.outputs.run(), "outputs")
        self.fleet.hire()
        self._read(self.fleet.run(), "fleet")
        self._read(self.harness.run(), "harness")

    def _read(self, work: Awaitable[None], name: str) -> None:
        self.readers.append(self.group.create_task(_awaited(work), name=name))

    async def stop(self, reason: str, drain_timeout_s: float) -> None:
        """Drain: start nothing more, let attempts under way end for a while, record."""
        self.journal.append(ev.ServiceStopping(reason=reason, drain_timeout_s=drain_timeout_s))
        self.harness.stop()
        await self.fleet.drain(drain_timeout_s)
        self.journal.append(ev.ServiceStopped(reason=reason))
        await self.unless_troubled(self._write_up())

    async def _write_up(self) -> None:
        """Have all that is written stand on the disk."""
        await self.journal.durable()
        await self.journal.caught_up()
        await self.outputs.finish()

    async def unless_troubled(self, work: Coroutine[None, None, None]) -> None:
        """Wait for work on the disk, but not for a disk in trouble: the next start does what is left."""
        troubled = self.group.create_task(self.journal.until(lambda: bool(self.journal.troubles)))
        done = self.group.create_task(work)
        try:
            await asyncio.wait((done, troubled), return_when=asyncio.FIRST_COMPLETED)
        finally:
            done.cancel()
            troubled.cancel()

    async def _end(self) -> None:
        for task in self.readers:
            task.cancel()
        self.executor.stopping = True
        self.fleet.dismiss()


def _open_waves(journal: Journal) -> frozenset[tuple[str, int]]:
    """Waves that a crash left open; none where the last service stopped in order."""
    if journal.ledger.service is None:
        return frozenset()
    return frozenset((run.run_id, run.current) for run in journal.ledger.runs.values() if run.current is not None)


def _doubtful_runs(journal: Journal) -> list[str]:
    """Runs whose files may not have reached the disk: those that closed a wave shortly before the power was cut."""
    before = journal.ledger.service
    if before is None or before.boot_id == _boot_id():
        return []
    since_us = journal.ledger.at_us - WRITEBACK_US
    return [record.run_id for record in journal.lookup.runs() if (record.end_us or 0) >= since_us]


def _interrupt(journal: Journal) -> None:
    """Record the end of attempts that the last service left under way."""
    for run in list(journal.ledger.runs.values()):
        if run.current is None:
            continue
        for record in run.waves[run.current].tasks.values():
            if record.status is TaskStatus.IN_PROGRESS:
                journal.append(after_interruption(run.run_id, run.current, record, "the service was killed"))


async def _awaited(work: Awaitable[None]) -> None:
    await work


def _boot_id() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""


# -- the daemon ------------------------------------------------------------------------------------------------------


class Signals:
    """What the process was told from outside: a first request to stop, a second, a request to read the configuration."""

    def __init__(self) -> None:
        self.received = 0
        self.stop = asyncio.Event()
        self.now = asyncio.Event()
        self.reload = asyncio.Event()

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take SIGTERM, SIGINT and SIGHUP for the while."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._asked, number)
        loop.add_signal_handler(signal.SIGHUP, self.reload.set)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                loop.remove_signal_handler(number)

    def _asked(self, number: int) -> None:
        if self.stop.is_set():
            self.now.set()
        self.received = number
        self.stop.set()


async def serve(
    place: Place, load: Callable[[], Settings], *, once: bool = False, level: str | None = None, log_format: str | None = None
) -> int:
    """Run the daemon until it is told to stop (or, `once`, until nothing is left to do); returns the exit status."""
    tuned()
    settings = CurrentSettings(load())
    files.make_private(place.state)
    check_permissions(str(place.queue), allow_shared=settings.now.queue.allow_shared)
    logging = settings.now.logging
    narrator = Narrator(
        level or logging.level,
        log_format or logging.format,
        file=files.make_private(place.state / "logs") / "phase21.jsonl",
        max_bytes=logging.max_bytes,
        backups=logging.backups,
    )
    signals = Signals()
    notifier = Notifier()
    with _Exit() as leaving, signals.listening(), files.held(place.state, {"pid": os.getpid(), "since": _since()}):
        async with House.opened(place, settings, narrator=narrator) as house:
            await house.unless_troubled(house.journal.durable())
            notifier.say("READY=1")
            async with asyncio.TaskGroup() as group:
                helpers = [
                    group.create_task(notifier.run()),
                    group.create_task(_reload(house, signals, load)),
                    group.create_task(_carry_out_all(house, signals) if once else house.receiver.run(signals.stop)),
                ]
                await signals.stop.wait()
                notifier.say("STOPPING=1")
                await _drain(house, signals, group)
                for helper in helpers:
                    helper.cancel()
            return leaving.within_time(_exit_status(house, signals, once=once))


class _Exit:
    """A handler that swallows its cancellation must not hold the exit up: the process ends without it.

    Nothing is lost by then: what is acknowledged is durable, and what is not counts as interrupted, as in a crash.
    """

    def __init__(self) -> None:
        self._timer: threading.Timer | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """It ended in time."""
        if self._timer is not None:
            self._timer.cancel()

    def within_time(self, status: int) -> int:
        """The status, with which the process ends shortly if the house does not come to rest."""
        self._timer = threading.Timer(EXIT_GRACE_S, os._exit, (status,))
        self._timer.daemon = True
        self._timer.start()
        return status


def _since() -> str:
    return iso(Clock().now_us())


async def _carry_out_all(house: House, signals: Signals) -> None:
    """Take in what the queue holds and carry it out, until it holds no more; then stop."""
    taken = 1
    while taken:
        taken = await house.receiver.drain()
        await house.harness.idle()
    await house.journal.caught_up()
    signals.stop.set()


async def _drain(house: House, signals: Signals, group: asyncio.TaskGroup) -> None:
    """Drain in order; a second signal cuts short at once."""
    reason = signal.Signals(signals.received).name if signals.received else "nothing left to do"
    drained = group.create_task(house.stop(reason, house.settings.now.service.drain_timeout))
    hurry = group.create_task(signals.now.wait())
    await asyncio.wait((drained, hurry), return_when=asyncio.FIRST_COMPLETED)
    hurry.cancel()
    if not drained.done():
        drained.cancel()


def _exit_status(house: House, signals: Signals, *, once: bool) -> int:
    if signals.now.is_set() or (once and signals.received):
        return SIGNAL_BASE + signals.received
    return 1 if once and house.journal.ledger.failed_tasks > house.failed_before else 0


async def _reload(house: House, signals: Signals, load: Callable[[], Settings]) -> None:
    while True:
        await signals.reload.wait()
        signals.reload.clear()
        old = house.settings.now
        try:
            new = load()
        except (ConfigurationError, Phase21Error) as error:
            house.journal.append(ev.ConfigurationRefused(error=str(error)))
            continue
        pending = tuple(name for name in RESTART_SECTIONS if getattr(old, name) != getattr(new, name))
        kept = {name: getattr(old, name) for name in RESTART_SECTIONS}
        house.settings.now = msgspec.structs.replace(new, **kept)
        house.journal.append(ev.ConfigurationReloaded(pending=pending))


# -- a run without a daemon ------------------------------------------------------------------------------------------


async def carry_out(
    place: Place,
    settings: Settings,
    *,
    folder: str,
    run_id: str,
    progress: Callable[[int, int, int], None] | None = None,
    on_trouble: TroubleHook | None = None,
) -> Verdict:
    """Carry out a Phase 20 folder (an absolute path) as a run, or go on with it, or say again how it ended.

    Raises Phase21Error.
    """
    tuned()
    files.make_private(place.state)
    signals = Signals()
    with _Exit() as leaving, signals.listening(), files.held(place.state, {"pid": os.getpid(), "since": _since()}):
        async with House.opened(place, CurrentSettings(settings)) as house:
            journal = house.journal
            journal.on_trouble = on_trouble or journal.on_trouble
            if run_id not in journal.ledger.runs and journal.lookup.run(run_id) is None:
                house.receiver.accept(Submission(run_id=run_id, submission_id=f"run-{run_id}", predictions=folder))
                await journal.durable()
            async with asyncio.TaskGroup() as group:
                shown = group.create_task(_show(house, run_id, progress)) if progress is not None else None
                idle = group.create_task(house.harness.idle())
                stop = group.create_task(signals.stop.wait())
                await asyncio.wait((idle, stop), return_when=asyncio.FIRST_COMPLETED)
                idle.cancel()
                stop.cancel()
                await journal.caught_up() if not signals.received else None
                await _drain(house, signals, group)
                if shown is not None:
                    shown.cancel()
            verdict = _verdict(house, run_id, signals)
            leaving.within_time(verdict.exit_status)
            return verdict


async def _show(house: House, run_id: str, progress: Callable[[int, int, int], None]) -> None:
    ledger = house.journal.ledger
    while run_id in ledger.runs:
        run = ledger.runs[run_id]
        counts = run.record.counts
        ended = sum(counts.values()) + sum(len(wave.tasks) - wave.pending for wave in run.waves.values())
        failed = counts.get(TaskStatus.FAILED, 0) + sum(record.status is TaskStatus.FAILED for record in run.open_tasks())
        progress(ended, failed, run.record.tasks_accepted)
        position = ledger.position
        await house.journal.clock.sleep(0.1)
        await house.journal.until(lambda position=position: ledger.position > position)  # type: ignore[misc]


def _verdict(house: House, run_id: str, signals: Signals) -> Verdict:
    run = house.journal.ledger.runs.get(run_id)
    record = run.record if run is not None else house.journal.lookup.run(run_id)
    assert record is not None  # noqa: S101 - it was accepted above
    if signals.received and run is not None and not run.idle:
        status = SIGNAL_BASE + signals.received
    else:
        status = 1 if record.counts.get(TaskStatus.FAILED) else 0
    return Verdict(run_id=run_id, exit_status=status, record=record)
