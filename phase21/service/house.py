"""The house: every part of the service, made and wired in one place, started, drained and ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncIterator, Awaitable, Coroutine, Iterator
from pathlib import Path

import msgspec

import phase21
from phase21.agents.executor import AgentExecutor
from phase21.agents.fleet import Fleet
from phase21.agents.resources import Resources
from phase21.domain import events as ev
from phase21.domain.recovery import after_interruption
from phase21.domain.settings import CurrentSettings
from phase21.domain.tasks import TaskStatus
from phase21.engines import offers
from phase21.engines.context import Contexts
from phase21.engines.engine import Engines
from phase21.engines.own_agents import fleet_of, own_agents
from phase21.engines.processes import end_strays
from phase21.engines.switchboard import Switchboard
from phase21.harness import Harness
from phase21.intake.queue import QueueReader
from phase21.intake.receiver import Receiver
from phase21.manager import AgentManager
from phase21.messaging.office import PostOffice
from phase21.readers.feedback import FeedbackLoop
from phase21.readers.monitor import Monitor
from phase21.readers.narrator import Narrator
from phase21.readers.outputs import Outputs
from phase21.readers.rejections import Rejections
from phase21.service.process import Signals
from phase21.store import files
from phase21.store.clock import Clock, iso
from phase21.store.journal import Journal
from phase21.timekeeper import Timekeeper
from phase21.workflows.conductor import Conductor

WRITEBACK_US = 600 * 1_000_000
"""How long a system may keep a written file in memory only, generously."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a service lives: its state folder, its outputs, its queue file."""

    state: Path
    outputs: Path
    queue: Path

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the state folder alone, with the name of this process. Raises StateHeld where another does."""
        with files.held(self.state, {"pid": os.getpid(), "since": iso(Clock().now_us())}):
            yield


class House:
    """The parts of one service, wired. Made by `opened`; everything in it lives in one task group."""

    def __init__(self, journal: Journal, place: Place, settings: CurrentSettings, group: asyncio.TaskGroup) -> None:
        self.journal = journal
        self.settings = settings
        self.group = group
        self.seed = settings.now.handlers.seed
        self.suspects = _open_waves(journal)
        self.failed_before = journal.ledger.failed_tasks
        self.office = PostOffice(journal)
        self.switchboard = Switchboard(place.state, self.office)
        own = own_agents()
        self.specs = fleet_of(settings.now, own)
        engines = Engines.built(
            settings.now.handlers,
            dry_run=settings.now.execution.dry_run,
            marker=journal.store_id,
            contexts=Contexts(self.office, self.switchboard),
            agents=own,
        )
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
        self.fleet = Fleet(journal, self.executor, settings, group, [one.spec for one in own])
        self.manager = AgentManager(journal, self.fleet.inboxes, settings)
        self.harness = Harness(journal, self.manager, settings)
        self.timekeeper = Timekeeper(journal)
        self.conductor = Conductor(journal)
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
            if not inline:
                house._read(house.switchboard.run(), "switchboard")
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
                fleet=tuple(spec.id for spec in self.specs),
            )
        )
        _interrupt(self.journal)
        self._read(Rejections(self.journal, place.state).run(), "rejections")
        self._read(Monitor(self.journal, self.settings).run(), "monitor")
        self._read(FeedbackLoop(self.journal).run(), "feedback")
        self._read(self.outputs.run(), "outputs")
        self.fleet.hire()
        self._read(self.fleet.run(), "fleet")
        self._read(self.office.run(), "post office")
        self._read(self.conductor.run(), "conductor")
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
    if journal.ledger.trusted_boot_id == _boot_id():
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


async def drain(house: House, signals: Signals, group: asyncio.TaskGroup) -> None:
    """Drain in order; a second signal cuts short at once."""
    drained = group.create_task(house.stop(signals.reason, house.settings.now.service.drain_timeout))
    hurry = group.create_task(signals.now.wait())
    await asyncio.wait((drained, hurry), return_when=asyncio.FIRST_COMPLETED)
    hurry.cancel()
    if not drained.done():
        drained.cancel()
