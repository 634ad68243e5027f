"""The receiver: lines of the queue file become entries of the journal.

Each line is read, judged by the clerk beside all that was accepted before, and recorded with the queue's mark in one transaction. A bad
line is set aside; it never stops the receiver.
"""

from __future__ import annotations

import asyncio
import contextlib
import os

import watchfiles

from phase21.domain import events as ev
from phase21.domain.errors import InputRefused, PermissionsError
from phase21.domain.settings import CurrentSettings
from phase21.intake.clerk import Clerk, StoreBehind
from phase21.intake.queue import RAW_KEPT_BYTES, Line, QueueReader
from phase21.intake.submissions import Submission, parse
from phase21.store import codec
from phase21.store.journal import Journal

RESCAN_S = 2.0
MAX_OPEN_TASKS = 1_000_000
CHUNK_BYTES = 1 << 20


class Receiver:
    """Follows the queue until it is stopped. `folder` is the queue file's, from which relative paths count."""

    def __init__(self, journal: Journal, reader: QueueReader, settings: CurrentSettings, *, folder: str) -> None:
        self.journal = journal
        self.reader = reader
        self.settings = settings
        self.folder = folder
        self.clerk = Clerk(journal, folder)
        self._arrived = asyncio.Event()
        self._refused: str | None = None

    # -- following ---------------------------------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event) -> None:
        """Take in what comes, until `stop` is set."""
        async with asyncio.TaskGroup() as group:
            work = [group.create_task(self._follow()), group.create_task(self._watch(stop))]
            await stop.wait()
            for task in work:
                task.cancel()

    async def _follow(self) -> None:
        while True:
            self._arrived.clear()
            await self.drain()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RESCAN_S):
                    await self._arrived.wait()

    async def _watch(self, stop: asyncio.Event) -> None:
        """Say when the queue file changes. Where nothing can be watched, the rescan alone finds it."""
        name = os.path.basename(self.reader.path)  # noqa: PTH119 - the name alone

        def concerns(_: watchfiles.Change, path: str) -> bool:
            return os.path.basename(path).startswith(name)  # noqa: PTH119 - the name alone

        with contextlib.suppress(OSError, RuntimeError):
            watching = watchfiles.awatch(
                self.folder, watch_filter=concerns, step=10, debounce=20, stop_event=stop, recursive=False, rust_timeout=1000
            )
            # What came between the first look and the beginning of the watch would wait for the rescan.
            asyncio.get_running_loop().call_soon(self._arrived.set)
            async for _ in watching:
                self._arrived.set()

    async def drain(self) -> int:
        """Take in all that the queue holds now, durably. Returns how many lines there were."""
        taken = 0
        while lines := await self._next_lines():
            for line in lines:
                while not self._take(line):
                    await self._fence()
            taken += len(lines)
            await self.journal.durable()
            self.clerk.fresh.clear()
        return taken

    async def _next_lines(self) -> list[Line]:
        await self._room()
        await self._fence()
        try:
            lines = self.reader.read(CHUNK_BYTES)
        except (PermissionsError, OSError) as error:
            self._refuse_queue(codec.sayable(" ".join(str(error).split())))
            return []
        self._refused = None
        if not lines and self.reader.mark is not None and self.reader.mark != self.journal.ledger.mark:
            self.journal.append(ev.QueueAdvanced(mark=self.reader.mark))
        return lines

    def _refuse_queue(self, said: str) -> None:
        if said != self._refused:
            self._refused = said
            self.journal.append(ev.QueueRefused(error=said))

    async def _room(self) -> None:
        """Wait while more tasks are open than memory should hold, and some are being carried out."""
        ledger = self.journal.ledger

        def room() -> bool:
            return ledger.open_tasks <= MAX_OPEN_TASKS or not any(run.current or run.closing for run in ledger.runs.values())

        await self.journal.until(room)

    async def _fence(self) -> None:
        """Have the store answer for every run that is not in memory now."""
        in_memory = frozenset(self.journal.ledger.runs)
        await self.journal.durable()
        self.clerk.in_memory = in_memory

    # -- taking one line ---------------------------------------------------------------------------------------------

    def _take(self, line: Line) -> bool:
        """Record what a line means; False where the store must catch up first."""
        submission = None
        try:
            if line.error is not None:
                raise InputRefused(line.error)
            submission = parse(line.raw, max_line_bytes=self.reader.max_line_bytes)
            self.accept(submission, line.mark)
        except StoreBehind:
            return False
        except InputRefused as refusal:
            self._reject(line, str(refusal), refusal.path, submission)
        except Exception as error:  # noqa: BLE001 - one line must not stop the others
            said = " ".join(f"{type(error).__name__}: {error}".split())
            self._reject(line, f"the line could not be taken in ({said})", None, submission)
        return True

    def _reject(self, line: Line, error: str, path: str | None, submission: Submission | None) -> None:
        self.journal.append(
            ev.SubmissionRejected(
                error=codec.sayable(error),
                line=line.number,
                offset=line.offset,
                path=path,
                raw=line.raw[:RAW_KEPT_BYTES].decode(errors="replace"),
                run_id=submission.run_id if submission else None,
                submission_id=submission.submission_id if submission else None,
                mark=line.mark,
            )
        )

    def accept(self, submission: Submission, mark: ev.QueueMark | None = None) -> None:
        """Record a submission: accepted, repeated, or a control. Raises InputRefused, and then records nothing of it."""
        self.clerk.accept(submission, mark)
