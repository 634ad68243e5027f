"""Harness: runs, wave after wave, side by side; pause, resume and cancel.

It opens waves in order and hands each to the manager. A run gives up its place after each wave, so that none starves.
"""

from __future__ import annotations

import asyncio

from phase21.domain import events as ev
from phase21.domain.records import WaveRecord
from phase21.domain.runs import Run
from phase21.domain.settings import CurrentSettings
from phase21.domain.tasks import TaskStatus
from phase21.manager import AgentManager
from phase21.store.journal import Journal


class Harness:
    """Carries out whatever the ledger holds that is ready."""

    def __init__(self, journal: Journal, manager: AgentManager, settings: CurrentSettings) -> None:
        self._journal = journal
        self._ledger = journal.ledger
        self._manager = manager
        self._settings = settings
        self._at_work: set[str] = set()
        self._begun = False
        self._stopping = False

    async def run(self) -> None:
        """Carry out waves until stopped, and obey until cancelled; what was open at the start is gone on with."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._obey())
            for run in [run for run in self._ledger.runs.values() if run.current is not None]:
                self._start(run, group)
            self._begun = True
            self._journal.wake()
            while True:
                await self._journal.until(self._may_start)
                if self._stopping:
                    break
                run = self._ledger.runs[self._next() or ""]
                number = run.next_wave()
                self._journal.append(ev.WaveOpened(run_id=run.run_id, wave=number, carried=tuple(run.record.carried)))
                self._start(run, group)

    def stop(self) -> None:
        """Open nothing more, and leave the waves that are open where they stand."""
        self._stopping = True
        self._manager.stop()
        self._journal.wake()

    async def idle(self) -> None:
        """Wait until nothing is ready and nothing under way, what is paused aside."""
        await self._journal.until(
            lambda: (
                self._begun
                and not self._ledger.ready
                and not self._ledger.undecided
                and all(self._rests(run_id) for run_id in self._at_work)
            )
        )

    def _may_start(self) -> bool:
        if self._stopping or self._next() is None:
            return self._stopping
        most = self._settings.now.manager.max_parallel_runs
        return len(self._at_work) < most or sum(not self._stands_by(run_id) for run_id in self._at_work) < most

    def _paused(self, run_id: str) -> bool:
        run = self._ledger.runs.get(run_id)
        return run is not None and run.record.paused

    def _stands_by(self, run_id: str) -> bool:
        """Whether a run takes up no place among those side by side: it is paused, or nothing of its wave is due yet."""
        wave = self._wave(run_id)
        return self._paused(run_id) or (wave is not None and self._manager.times.sleeps(wave))

    def _wave(self, run_id: str) -> WaveRecord | None:
        run = self._ledger.runs.get(run_id)
        return run.waves.get(run.current) if run is not None and run.current is not None else None

    def _rests(self, run_id: str) -> bool:
        """Whether a run is paused, or all that is left of its wave, with no attempt of it under way."""
        wave = self._wave(run_id)
        if wave is not None and self._manager.times.rests(wave):
            return True
        return self._paused(run_id) and all(
            record.status is not TaskStatus.IN_PROGRESS and not record.cancelling
            for record in self._ledger.runs[run_id].open_tasks()
        )

    def _next(self) -> str | None:
        """The run that has waited longest; not one whose last wave is closed but not yet durable."""
        return next((run_id for run_id in self._ledger.ready if run_id not in self._at_work), None)

    def _start(self, run: Run, group: asyncio.TaskGroup) -> None:
        assert run.current is not None  # noqa: S101 - a wave was opened just before
        self._at_work.add(run.run_id)
        group.create_task(self._carry_out(run.run_id, run.current), name=f"wave {run.run_id}/{run.current}")

    async def _carry_out(self, run_id: str, number: int) -> None:
        try:
            await self._manager.carry_out(run_id, number)
        finally:
            self._at_work.discard(run_id)
        self._journal.wake()

    async def _obey(self) -> None:
        """End the waiting tasks of open waves that are cancelled, and say when a run has nothing left to do."""
        async for entry in self._journal.follow("harness", ev.ControlReceived, ev.OutputsWritten, ev.WorkflowChanged):
            event = entry.event
            if isinstance(event, ev.ControlReceived):
                run = self._ledger.runs.get(event.run_id)
                if run is not None and run.current is not None:
                    self._manager.cancel_waiting(run.waves[run.current])
                    self._manager.times.let_go(run.waves[run.current])
            elif isinstance(event, ev.OutputsWritten | ev.WorkflowChanged):
                run = self._ledger.runs.get(event.run_id)
                if run is None or (run.idle and not run.closing):
                    self._journal.append(ev.RunIdled(run_id=event.run_id))
