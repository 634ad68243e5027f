"""Waiting beside a daemon: a look at each change of the state folder, and one each second in any case."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import watchfiles

from phase21.cli.drafts import Draft
from phase21.cli.screen import Advance, bar, tell
from phase21.domain.errors import InputRefused, StorageUnavailable, TimedOut
from phase21.domain.ledger import Ledger
from phase21.domain.progress import WHOLE, flow_percent
from phase21.domain.records import RunRecord
from phase21.domain.runs import Run, ended_failed
from phase21.domain.tasks import TaskStatus
from phase21.readers.inquiries.spectator import Spectator, task_counts
from phase21.store.database import Database
from phase21.store.files import holder_of

LOOK_INTERVAL_S = 1.0
DEBOUNCE_MS = 50
UNREADABLE_LOOKS = 20
"""How many looks in a row may find the store unreadable: a daemon may be just making it."""


def looks(folder: Path, timeout_s: float | None = None) -> Iterator[None]:
    """Yield at once, at each change within the folder and at least once a second; end when `timeout_s` has passed."""
    ended = threading.Event()
    timer = None if timeout_s is None else threading.Timer(timeout_s, ended.set)
    if timer is not None:
        timer.daemon = True
        timer.start()
    try:
        yield
        while not ended.is_set():
            yield from _changes(folder, ended)
    finally:
        if timer is not None:
            timer.cancel()


def _changes(folder: Path, ended: threading.Event) -> Iterator[None]:
    """Yield at each change and each second while the folder can be watched, else once after a second."""
    try:
        for _ in watchfiles.watch(
            folder, watch_filter=None, debounce=DEBOUNCE_MS, step=10, stop_event=ended, rust_timeout=int(LOOK_INTERVAL_S * 1000),
            yield_on_timeout=True, recursive=False,
        ):  # fmt: skip
            yield
    except OSError:  # the folder is not there yet, or the system watches no more files
        ended.wait(LOOK_INTERVAL_S)
        yield


# -- submissions -------------------------------------------------------------------------------------------------------


class Watch:
    """One submission that is waited for: what became of it, as far as the store says."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self.run_id = draft.submission.run_id
        self.is_flow = draft.submission.workflow is not None or draft.submission.fork is not None
        self.waves: list[int] | None = None
        self.refused: str | None = None
        self.done = False
        self._failed: tuple[int, set[str]] = (0, set())

    def find(self, database: Database) -> None:
        """Look whether it was accepted or refused."""
        if self.waves is not None or self.refused is not None:
            return
        accepted = database.submission(self.draft.submission_id)
        rejected = database.rejection(self.draft.submission_id) if accepted is None else None
        if accepted is not None:
            self.run_id, self.waves = accepted
        elif rejected is not None:
            self.refused, self.done = rejected.error, True

    def judge(self, ledger: Ledger) -> None:
        """Look whether its waves are closed, and its workflow has ended; the ledger must have been folded after `find`."""
        if self.waves is not None:
            open_ = self._goes_on(ledger) or any(ledger.open_wave(self.run_id, wave) for wave in self.waves)
            self.done = self.done or not open_

    def _goes_on(self, ledger: Ledger) -> bool:
        run = self.run(ledger)
        flow = run.record.workflow if run is not None else None
        return run is not None and flow is not None and (flow.open or run.waiting or bool(run.closing))

    def run(self, ledger: Ledger) -> Run | None:
        """The run, where it is a workflow that was submitted here and memory holds it."""
        return ledger.runs.get(self.run_id) if self.is_flow and self.waves is not None else None

    def asks(self, ledger: Ledger) -> bool:
        """Whether its workflow waits for a person's approval, and for nothing else."""
        run = self.run(ledger)
        return run is not None and run.idle and self._goes_on(ledger) and bool(run.record.deferred)

    def recall(self, ledger: Ledger, database: Database) -> None:
        """Look which of its tasks FAILED in waves that are closed; the store is asked only when one more of them is."""
        closed = sum(ledger.open_wave(self.run_id, wave) is None for wave in self.waves or ())
        if closed > self._failed[0]:
            stored = database.tasks(self.run_id, self.draft.task_ids)
            self._failed = closed, {task_id for task_id, status in stored.items() if status == TaskStatus.FAILED}

    def figures(self, ledger: Ledger) -> tuple[int, int, int]:
        """How many of its tasks have ended, how many FAILED, and how many there are."""
        total = len(self.draft.task_ids)
        run = self.run(ledger)
        if run is not None:
            total = run.record.tasks_accepted
            waiting = sum(not record.final for wave in run.waves.values() for record in wave.tasks.values())
            return total - waiting, task_counts(run).get(TaskStatus.FAILED, 0), total
        if self.waves is None:
            return (total if self.done else 0), 0, total
        records = [wave.tasks.items() for number in self.waves if (wave := ledger.open_wave(self.run_id, number))]
        waiting = sum(not record.final and record.status is not TaskStatus.DEFERRED for tasks in records for _, record in tasks)
        failed = {task_id for tasks in records for task_id, record in tasks if record.status is TaskStatus.FAILED}
        return max(0, total - waiting), len(failed | self._failed[1]), total

    def percent(self, ledger: Ledger) -> float | None:
        """How far its workflow is, 0 to 100; None where it is none."""
        if not self.is_flow:
            return None
        run = self.run(ledger)
        flow = run.record.workflow if run is not None else None
        if run is None or flow is None:
            return WHOLE if self.done else 0.0
        return flow_percent(flow, run.open_tasks())


def wait_for(drafts: Sequence[Draft], state: Path, timeout_s: float | None) -> int:
    """Wait until every submission is done; 1 where tasks FAILED, or a workflow was not completed. Raises InputRefused and TimedOut."""
    watches = [Watch(draft) for draft in drafts]
    with Spectator(state) as spectator:
        with bar("waiting") as advance:
            _wait(watches, spectator, timeout_s, advance)
        return _verdict(watches, spectator)


def _wait(watches: Sequence[Watch], spectator: Spectator, timeout_s: float | None, advance: Advance | None) -> None:
    alone = asking = False
    for _ in _readable_looks(watches, spectator, timeout_s):
        if advance is not None:
            _advance(watches, spectator.ledger, advance)
        if all(watch.done for watch in watches):
            return
        was, alone = alone, holder_of(spectator.state) is None
        if alone and not was:
            tell(f"phase21: no daemon runs on {spectator.state}; waiting for one (phase21 serve --state DIR)")
        was, asking = asking, any(watch.asks(spectator.ledger) for watch in watches)
        if asking and not was:
            first = next(watch.run_id for watch in watches if watch.asks(spectator.ledger))
            tell(f"phase21: run {first} waits for approval (phase21 approve {first} --state DIR)")
    left = sum(not watch.done for watch in watches)
    raise TimedOut(f"after {timeout_s:g} s {left} of {len(watches)} submissions are not done; they stay in the queue")


def _advance(watches: Sequence[Watch], ledger: Ledger, advance: Advance) -> None:
    figures = [watch.figures(ledger) for watch in watches]
    ended, failed, total = (sum(column) for column in zip(*figures, strict=True))
    percents = [watch.percent(ledger) for watch in watches]
    if all(percent is None for percent in percents):
        advance(ended, failed, total)
        return
    parts = [
        (WHOLE * done / of if percent is None else percent, of)
        for percent, (done, _, of) in zip(percents, figures, strict=True)
        if of
    ]
    advance(ended, failed, total, sum(percent * of for percent, of in parts) / total if total else 0.0)


def _readable_looks(watches: Sequence[Watch], spectator: Spectator, timeout_s: float | None) -> Iterator[None]:
    """Yield at each look at which the store could be read, once what it says is known to the watches."""
    unreadable = 0
    for _ in looks(spectator.state, timeout_s):
        try:
            database = spectator.database
            for watch in watches if database is not None else ():
                watch.find(database)  # type: ignore[arg-type]
            spectator.refresh()
            for watch in watches if database is not None else ():
                watch.recall(spectator.ledger, database)  # type: ignore[arg-type]
            unreadable = 0
        except StorageUnavailable:
            unreadable += 1
            if unreadable > UNREADABLE_LOOKS:
                raise
        for watch in watches:
            watch.judge(spectator.ledger)
        yield


def _verdict(watches: Sequence[Watch], spectator: Spectator) -> int:
    for watch in watches:
        if watch.refused is not None:
            raise InputRefused(f"submission {watch.draft.submission_id} was refused: {watch.refused}")
    database = spectator.database
    flows = [_told_badly(watch, spectator.record(watch.run_id)) for watch in watches if watch.is_flow]
    failed = [
        task_id
        for watch in watches
        if not watch.is_flow
        for task_id, status in (database.tasks(watch.run_id, watch.draft.task_ids).items() if database is not None else ())
        if status == TaskStatus.FAILED
    ]
    if failed:
        click.echo(
            f"phase21: {len(failed)} {'task' if len(failed) == 1 else 'tasks'} FAILED; the first: {failed[0]} (phase21 tail --level WARNING)",
            err=True,
        )
    return 1 if failed or any(flows) else 0


def _told_badly(watch: Watch, record: RunRecord) -> bool:
    """Say how a workflow ended that was not completed; whether that is so."""
    flow = record.workflow
    if flow is None or not ended_failed(record):
        return False
    ended = "was cancelled" if flow.cancelled else "FAILED"
    because = f": {flow.reason}" if flow.reason and flow.reason != "cancelled" else ""
    click.echo(f"phase21: workflow {flow.workflow.name} {ended}{because} (phase21 show {watch.run_id})", err=True)
    return True
