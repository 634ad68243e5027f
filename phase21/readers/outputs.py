"""The reader that writes each judged wave's files, and closes the wave once they stand."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TypeVar

import msgspec

from phase21.domain import events as ev
from phase21.domain.records import RunRecord, WaveRecord
from phase21.domain.runs import Run, tallied
from phase21.domain.settings import CurrentSettings
from phase21.readers.contents import contents_of, run_files, stepped, wave_digest
from phase21.readers.folders import OutputsMissing, RunFolder, rebuilding
from phase21.store.journal import Journal

REFRESH_REST_RATIO = 20.0
"""How many times longer than it took the run's own files are left alone, while its waves follow each other."""

REFRESH_LEAST_S = 0.02
REFRESH_MOST_S = 1.0
"""The least and the most that this comes to."""

LULL_S = 0.02
"""How long no wave is under way in a moment that is good for writing files."""

LULL_WAIT_S = 0.25
LULL_WAVES = 8
LULL_TASKS = 500
"""For how long such a moment is waited for, and while how little waits to be written."""

RETRY_DELAY_S = 1.0
"""After which time a disk in trouble is tried again."""

RESTING_RUNS = 256
"""Of how many runs it is remembered when their own files were written."""

T = TypeVar("T")


class Outputs:
    """The reader that writes the folders, and closes each wave once its files stand.

    While the disk does not take them it says so to the journal, which starts nothing new, and tries again. `doubtful`
    are runs whose files a power cut may have torn: they are built again at the start.
    """

    def __init__(self, journal: Journal, root: Path, settings: CurrentSettings, doubtful: Iterable[str] = ()) -> None:
        self._journal = journal
        self._doubtful = tuple(doubtful)
        self._root = root
        self._settings = settings
        self._due_s: dict[str, float] = {}
        self._stale: set[str] = set()

    async def run(self) -> None:
        """Write what was judged and not closed before a restart, then each wave as it is judged."""
        follower = self._journal.follow("outputs", ev.PredictionsCalibrated)
        for run_id in self._doubtful:
            await self._lasting(partial(self.rebuild, run_id))
        self._trust()
        runs = self._journal.ledger.runs.values()
        self._stale.update(run.run_id for run in runs if run.record.closed_waves and not run.idle)
        await self._close_all()
        await self.finish()
        async for entry in follower:
            event = entry.event
            if isinstance(event, ev.PredictionsCalibrated) and self._waits(event):
                await self._lull()
                await self._close_all()
                await self._freshen()

    def _trust(self) -> None:
        """Record that the files of the last boot are what they should be, so that they are not doubted again in this one."""
        service = self._journal.ledger.service
        if service is not None and service.boot_id != self._journal.ledger.trusted_boot_id:
            self._journal.append(ev.OutputsTrusted(boot_id=service.boot_id))

    def _waits(self, event: ev.PredictionsCalibrated) -> bool:
        run = self._journal.ledger.runs.get(event.run_id)
        return run is not None and event.wave in run.closing

    async def _close_all(self) -> None:
        for run in list(self._journal.ledger.runs.values()):
            for number in list(run.closing):
                await self._close(run.run_id, number)

    async def finish(self) -> None:
        """Bring the files of every run up to its last closed wave."""
        for run_id in list(self._stale):
            await self._bring_up(run_id)

    async def _freshen(self) -> None:
        """The same once they may be written again, as far as no other wave waits for its files by then."""
        runs = self._journal.ledger.runs
        for run_id in list(self._stale):
            try:
                async with asyncio.timeout_at(self._due_s.get(run_id, 0.0)):
                    await self._journal.until(lambda: any(run.closing for run in runs.values()))
            except TimeoutError:
                await self._bring_up(run_id)

    async def rebuild(self, run_id: str) -> dict[str, int]:
        """Write a run's folder again; gives the growing files' sizes as of its last closed wave."""
        await self._journal.durable()
        return await stepped(rebuilding(run_id, self._journal.entries_of(run_id), self._folder(run_id)), self._journal.pause)

    def _folder(self, run_id: str) -> RunFolder:
        return RunFolder(self._root, run_id, self._settings.now.feedback)

    async def _lull(self) -> None:
        """Wait for a moment in which no wave is under way, as long as little waits to be written.

        Files that are being written slow the commits that waves wait for.
        """
        loop = asyncio.get_running_loop()
        latest_s = loop.time() + LULL_WAIT_S
        ledger = self._journal.ledger
        while loop.time() < latest_s and self._little_waits():
            try:
                async with asyncio.timeout_at(latest_s):
                    await self._journal.until(lambda: not ledger.under_way)
            except TimeoutError:
                return
            try:
                async with asyncio.timeout(LULL_S):
                    await self._journal.until(lambda: ledger.under_way > 0)
            except TimeoutError:
                return

    def _little_waits(self) -> bool:
        waiting = [wave for run in self._journal.ledger.runs.values() for wave in run.closing.values()]
        return len(waiting) < LULL_WAVES and sum(len(wave.tasks) for wave in waiting) < LULL_TASKS

    async def _close(self, run_id: str, number: int) -> None:
        run = self._journal.ledger.runs.get(run_id)
        wave = run.closing.get(number) if run else None
        if run is None or wave is None:
            return
        # What the store keeps of the run with this wave must tell how its workflow stands.
        await self._journal.until(lambda: run_id not in self._journal.ledger.undecided)
        digest = await stepped(wave_digest(wave, run.record), self._journal.pause)
        sizes = await self._lasting(lambda: self._write(run, wave, digest))
        written = ev.OutputsWritten(run_id=run_id, wave=number, sizes=sizes, digest=msgspec.Raw(digest))
        self._journal.append(written)

    async def _write(self, run: Run, wave: WaveRecord, digest: bytes) -> dict[str, int]:
        """Write a judged wave's files: made while the judgement goes to the disk, put there once it is on it."""
        folder, position = self._folder(run.run_id), self._journal.ledger.position
        contents = await stepped(contents_of(wave, run.record), self._journal.pause)
        await self._journal.durable(position)
        standing = run.record.sizes
        while True:
            try:
                sizes = await self._journal.beside(partial(folder.put, contents, standing))
            except OutputsMissing:
                standing = await self.rebuild(run.run_id)
            else:
                await self._refresh(folder, run, wave, digest)
                return sizes

    async def _refresh(self, folder: RunFolder, run: Run, wave: WaveRecord, digest: bytes) -> None:
        """Write the run's own files; while waves follow each other only so often that it takes a small share of the time."""
        self._stale.add(run.run_id)
        if run.idle or asyncio.get_running_loop().time() >= self._due_s.get(run.run_id, 0.0):
            await self._put_run_files(folder, tallied(run.record, wave), digest)

    async def _put_run_files(self, folder: RunFolder, record: RunRecord, *newest: bytes) -> None:
        """Write the run's own files from what is stored of its closed waves, and of the one that is about to be."""
        loop, run_id = asyncio.get_running_loop(), folder.run_id
        started_s = loop.time()
        stored = (digest for _, digest in self._journal.lookup.waves(run_id))
        contents = run_files(record, chain(stored, newest))
        await self._journal.beside(lambda: folder.put_run_files(contents))
        now_s = loop.time()
        self._stale.discard(run_id)
        self._due_s.pop(run_id, None)
        self._due_s[run_id] = now_s + min(REFRESH_MOST_S, max(REFRESH_LEAST_S, REFRESH_REST_RATIO * (now_s - started_s)))
        while len(self._due_s) > RESTING_RUNS:
            del self._due_s[next(iter(self._due_s))]

    async def _bring_up(self, run_id: str) -> None:
        run = self._journal.ledger.runs.get(run_id)
        if run is not None and run_id in self._stale:
            await self._journal.durable()
            await self._lasting(lambda: self._put_run_files(self._folder(run_id), run.record))
        self._stale.discard(run_id)

    async def _lasting(self, work: Callable[[], Awaitable[T]]) -> T:
        """The result of work on the disk, tried until the disk does it."""
        while True:
            try:
                result = await work()
            except OSError as error:
                self._journal.trouble("outputs", error)
                await self._journal.clock.sleep(RETRY_DELAY_S)
            else:
                self._journal.trouble_over("outputs")
                return result
