"""A run without a daemon: a Phase 20 folder carried out, or gone on with, or how it ended said again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from phase21.domain.records import RunRecord
from phase21.domain.runs import ended_failed
from phase21.domain.settings import CurrentSettings, Settings
from phase21.domain.tasks import TaskStatus
from phase21.intake.submissions import Submission
from phase21.service.house import House, Place, drain
from phase21.service.process import SIGNAL_BASE, Exit, Signals, tuned
from phase21.store import files
from phase21.store.journal import TroubleHook


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended that was carried out without a daemon."""

    run_id: str
    exit_status: int
    record: RunRecord


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
    with Exit() as leaving, signals.listening(), place.held():
        async with House.opened(place, CurrentSettings(settings)) as house:
            journal = house.journal
            journal.on_trouble = on_trouble or journal.on_trouble
            if run_id not in journal.ledger.runs and journal.lookup.run(run_id) is None:
                house.receiver.accept(Submission(run_id=run_id, submission_id=f"run-{run_id}", predictions=folder))
                await journal.durable()
            async with asyncio.TaskGroup() as group:
                shown = group.create_task(_show(house, run_id, progress)) if progress is not None else None
                idle = group.create_task(_written(house))
                stop = group.create_task(signals.stop.wait())
                await asyncio.wait((idle, stop), return_when=asyncio.FIRST_COMPLETED)
                idle.cancel()
                stop.cancel()
                await drain(house, signals, group)
                if shown is not None:
                    shown.cancel()
            verdict = _verdict(house, run_id, signals)
            leaving.within_time(verdict.exit_status)
            return verdict


async def _written(house: House) -> None:
    """Wait until nothing is left to do and all of it is written; a signal may come while a disk keeps that waiting."""
    await house.harness.idle()
    await house.journal.caught_up()


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
    if signals.received and run is not None and (run.closing or not run.idle):
        status = SIGNAL_BASE + signals.received
    else:
        status = 1 if ended_failed(record) else 0
    return Verdict(run_id=run_id, exit_status=status, record=record)
