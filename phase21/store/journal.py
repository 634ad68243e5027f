"""The journal: everything that happens, in one order, durable in groups.

Its verbs are `append` (stamp, fold, wake; durable with the next group commit), `follow` (a reader's own position), `until`
(wait on a fact), `caught_up` (all readers stand at the tail) and `durable`. Entries that are appended without an await in
between share a transaction. One connection writes, from a thread of its own or, where that is
quicker, from the loop's; where the disk fails it says so once and tries again until it can.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TypeVar

from phase21.domain import events as ev
from phase21.domain.errors import StorageUnavailable
from phase21.domain.ledger import Ledger
from phase21.store import codec
from phase21.store.clock import Clock
from phase21.store.database import Batch, Closing, Database

PROMPT_ENTRIES = 64
PROMPT_COMMIT_S = 0.001
"""A commit this small, on a disk that usually takes less than this, is not worth a change of threads."""

COMMIT_INTERVAL_S = 0.01
COMMIT_INTERVAL_MOST_S = 1.0
"""How long what was appended waits for a commit that nobody asked for: at least, and at most."""

COMMIT_REST_RATIO = 1.0
"""How many times longer than a commit usually takes the disk is left alone within these bounds."""

GATHERING_TURNS = 5
"""Turns of the loop between the wish for durability and the commit: what others append in answer shares it."""

PAUSE_QUIET_TURNS = 3
"""Turns without anybody gathering for a commit, after which work that can wait goes on."""

PAUSE_TURNS_MOST = 20
"""Turns after which it goes on in any case."""

SNAPSHOT_ENTRIES = 50_000
PRESSURE_ENTRIES = 100_000
RETRY_DELAY_S = 0.2

T = TypeVar("T")
TroubleHook = Callable[[str, BaseException | None], None]


class Follower:
    """A reader's own position: the entries of its kinds that it has not taken yet."""

    def __init__(self, journal: Journal, name: str, kinds: frozenset[type]) -> None:
        self.name = name
        self.kinds = kinds
        self.waiting = False
        self._entries: deque[ev.Entry] = deque()
        self._journal = journal
        self._arrival: asyncio.Future[None] | None = None

    def __aiter__(self) -> Follower:
        return self

    async def __anext__(self) -> ev.Entry:
        while not self._entries:
            self.waiting = True
            self._journal.wake()
            self._arrival = asyncio.get_running_loop().create_future()
            try:
                await self._arrival
            finally:
                self._arrival = None
        self.waiting = False
        return self._entries.popleft()

    @property
    def idle(self) -> bool:
        """Whether it has taken and dealt with everything so far."""
        return self.waiting and not self._entries

    def deliver(self, entry: ev.Entry) -> None:
        """Hand over one entry."""
        self._entries.append(entry)
        self.waiting = False
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)


class Journal:
    """See the module. Everything but the commit happens on the event loop's thread.

    It is `strained` while a disk is in trouble or commits lag far behind.
    """

    def __init__(self, database: Database, lookup: Database, ledger: Ledger, clock: Clock, *, inline: bool) -> None:
        self.ledger = ledger
        self.lookup = lookup
        self.clock = clock
        self.store_id = database.store_id(uuid.uuid4().hex)
        self.troubles: dict[str, str] = {}
        self.strained = False
        self.on_trouble: TroubleHook = lambda _name, _error: None
        self.snapshot_position = database.snapshot_position()
        self._database = database
        self._inline = inline
        self._interval_s = COMMIT_INTERVAL_S
        self._loop = asyncio.get_running_loop()
        self._batch: list[ev.Entry] = []
        self._closings: list[Closing] = []
        self._durable = ledger.position
        self._wanted = 0
        self._committing = False
        self._gathering = 0
        self._timer: asyncio.TimerHandle | None = None
        self._durable_waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._facts: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        self._wake_scheduled = False
        self._followers: dict[type, list[Follower]] = {}
        self._durable_followers: dict[type, list[Follower]] = {}
        self._fence: list[Follower] = []
        self._writer = Writer(database, self._loop, self._committed, self.report_trouble)

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(cls, path: Path, *, clock: Clock | None = None, inline: bool = False) -> AsyncIterator[Journal]:
        """The journal in file `path`, its ledger folded. `inline` commits on the loop's own thread (for virtual time)."""
        try:
            database = Database(path)
        except sqlite3.Error as error:
            raise StorageUnavailable(f"{path}: the journal cannot be opened: {error}; is its disk full or read-only?") from None
        lookup = Database(path, read_only=True)
        journal = cls(database, lookup, database.ledger(), clock or Clock(), inline=inline)
        if not inline:
            journal._writer.start()
        try:
            yield journal
        finally:
            await journal._close()
            lookup.close()
            database.close()

    # -- appending ---------------------------------------------------------------------------------------------------

    def append(self, event: ev.AnyEvent) -> ev.Entry:
        """Stamp and fold an event, and wake whom it concerns. It is durable with the next group commit."""
        ledger = self.ledger
        kind, at_us = type(event), self.clock.now_us()
        if at_us < ledger.at_us:  # noqa: PLR1730 - `max` takes three times as long, on the path of every task
            at_us = ledger.at_us
        entry = ev.Entry(ledger.position + 1, at_us, event)
        try:
            if kind is ev.OutputsWritten:
                self._closings.append(folded_closing(ledger, entry))
            else:
                ledger.fold(entry)
        except BaseException:
            ledger.position = entry.position - 1  # what cannot be folded is no entry, and leaves no gap
            raise
        self._batch.append(entry)
        followers = self._followers.get(kind)
        if followers is not None:
            for follower in followers:
                follower.deliver(entry)
        if not self._wake_scheduled:
            self.wake()
        if self._timer is None and not self._committing:
            self._timer = self._loop.call_later(self._interval_s, self._flush)
        return entry

    # -- durability --------------------------------------------------------------------------------------------------

    def survives(self, position: int) -> bool:
        """Whether what was appended up to a position would survive a power cut, and is what the store answers from."""
        return self._durable >= position

    async def durable(self, position: int | None = None) -> None:
        """Wait until all that was appended so far, or up to a position, would survive a power cut."""
        target = self.ledger.position if position is None else position
        if self._durable >= target:
            return
        self._wanted = max(self._wanted, target)
        if not self._committing and not self._gathering:
            self._gathering = GATHERING_TURNS
            self._loop.call_soon(self._gather)
        waiter = self._loop.create_future()
        self._durable_waiters.append((target, waiter))
        await waiter

    async def pause(self) -> None:
        """Let others have the loop, and what they wish to be durable go to the disk: for work that can wait."""
        quiet = 0
        for _ in range(PAUSE_TURNS_MOST):
            await asyncio.sleep(0)
            quiet = 0 if self._gathering else quiet + 1
            if quiet == PAUSE_QUIET_TURNS:
                return

    def _gather(self) -> None:
        self._gathering -= 1
        if self._gathering:
            self._loop.call_soon(self._gather)
        else:
            self._flush()

    async def available(self) -> None:
        """Wait while the journal is `strained`: nothing new is started then."""
        while self.strained:
            await self.until(lambda: not self.strained)

    def _judge_strain(self) -> None:
        self.strained = bool(self.troubles) or len(self._batch) > PRESSURE_ENTRIES

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._committing or not self._batch:
            return
        batch = Batch(entries=self._batch, closings=self._closings, snapshot=self._due_snapshot())
        self._batch, self._closings = [], []
        self._committing = True
        if self._inline:
            self._database.commit(batch)
            self._committed(batch)
        elif not self._committed_on_the_spot(batch):
            self._writer.commit(batch)

    def _committed_on_the_spot(self, batch: Batch) -> bool:
        """Commit a small batch on the loop's own thread where the disk has been quicker than a change of threads."""
        if len(batch.entries) > PROMPT_ENTRIES or batch.snapshot is not None or self._writer.usual_s > PROMPT_COMMIT_S:
            return False
        try:
            self._writer.timed_commit(batch)
        except Exception:  # noqa: BLE001 - whatever it is, the writer says so and goes on trying
            return False
        self._committed(batch)
        return True

    def _due_snapshot(self, *, closing: bool = False) -> bytes | None:
        since = self.ledger.position - self.snapshot_position
        if not closing and since < SNAPSHOT_ENTRIES + 4 * self.ledger.open_tasks:
            return None
        self.snapshot_position = self.ledger.position
        return codec.encode(self.ledger.snapshot())

    def _committed(self, batch: Batch) -> None:
        self._committing = False
        self._interval_s = min(max(COMMIT_INTERVAL_S, COMMIT_REST_RATIO * self._writer.usual_s), COMMIT_INTERVAL_MOST_S)
        self._durable = batch.entries[-1].position
        waiters, self._durable_waiters = self._durable_waiters, []
        for target, waiter in waiters:
            if target > self._durable:
                self._durable_waiters.append((target, waiter))
            elif not waiter.done():
                waiter.set_result(None)
        followers = self._durable_followers
        for entry in [entry for entry in batch.entries if type(entry.event) in followers]:
            for follower in followers[type(entry.event)]:
                follower.deliver(entry)
        self.wake()
        if self._wanted > self._durable:
            self._flush()
        elif self._batch and self._timer is None:
            self._timer = self._loop.call_later(self._interval_s, self._flush)

    async def _close(self) -> None:
        last = self.ledger.position
        await self.until(lambda: self._durable >= last or bool(self.troubles))
        if not self.troubles and self.snapshot_position < self.ledger.position and not self._batch:
            snapshot = self._due_snapshot(closing=True)
            with contextlib.suppress(sqlite3.Error):
                await asyncio.shield(asyncio.to_thread(self._writer.finish, snapshot)) if not self._inline else None
        self._writer.stop()

    # -- waiting on facts --------------------------------------------------------------------------------------------

    async def until(self, fact: Callable[[], bool]) -> None:
        """Wait until a predicate over the ledger holds; it is asked again after each step that appended anything."""
        if fact():
            return
        waiter = self._loop.create_future()
        self._facts.append((fact, waiter))
        try:
            await waiter
        finally:
            if not waiter.done() or waiter.cancelled():
                self._facts = [(held, other) for held, other in self._facts if other is not waiter]

    async def caught_up(self) -> None:
        """Wait until all that was appended is durable and every follower has dealt with it, and with what that led to."""
        position = -1
        while position != self.ledger.position:
            position = self.ledger.position
            await self.durable()
            await self.until(lambda: all(follower.idle for follower in self._fence))

    async def beside(self, work: Callable[[], T]) -> T:
        """The result of work on the disk, done off the event loop's thread (on it where commits are inline)."""
        if self._inline:
            return work()
        done = self._loop.run_in_executor(None, work)
        try:
            return await asyncio.shield(done)
        except asyncio.CancelledError:
            await asyncio.wait((done,))  # a thread cannot be stopped, and must not write on beside whoever comes next
            raise

    def wake(self) -> None:
        """Have the facts asked again soon."""
        if not self._wake_scheduled:
            self._wake_scheduled = True
            self._loop.call_soon(self._ask)

    def _ask(self) -> None:
        self._wake_scheduled = False
        self._judge_strain()
        facts, self._facts = self._facts, []
        for fact, waiter in facts:
            if waiter.done():
                continue
            if fact():
                waiter.set_result(None)
            else:
                self._facts.append((fact, waiter))

    def follow(self, name: str, *kinds: type, durable: bool = False) -> Follower:
        """A reader's position from here on, registered at once. With `durable`, entries come once they are on disk."""
        follower = Follower(self, name, frozenset(kinds))
        for kind in kinds:
            (self._durable_followers if durable else self._followers).setdefault(kind, []).append(follower)
        self._fence.append(follower)
        return follower

    def entries_of(self, run_id: str) -> Iterator[ev.Entry]:
        """The durable entries that concern a run, with those of agents and the service, in order."""
        record = self.ledger.runs[run_id].record if run_id in self.ledger.runs else self.lookup.run(run_id)
        return entries_of(self.lookup, run_id, record.first_position - 1 if record else 0)

    # -- trouble -----------------------------------------------------------------------------------------------------

    def trouble(self, name: str, error: BaseException) -> None:
        """A disk does not do what it should: nothing new is started until `trouble_over`."""
        if name not in self.troubles:
            self.troubles[name] = str(error)
            self._judge_strain()
            self.on_trouble(name, error)
            self.wake()

    def trouble_over(self, name: str) -> None:
        """It does again."""
        if self.troubles.pop(name, None) is not None:
            self._judge_strain()
            self.on_trouble(name, None)
            self.wake()

    def report_trouble(self, error: BaseException | None) -> None:
        """The writer's own report."""
        if error is None:
            self.trouble_over("journal")
        else:
            self.trouble("journal", error)


def folded_closing(ledger: Ledger, entry: ev.Entry) -> Closing:
    """Fold an entry that closes a wave; what the index keeps of the wave is gathered on the way."""
    event = entry.event
    assert isinstance(event, ev.OutputsWritten)  # noqa: S101 - narrows the type
    run = ledger.runs[event.run_id]
    wave = run.closing[event.wave]
    statuses = {task_id: task.status for task_id, task in wave.tasks.items()}
    ledger.fold(entry)
    return Closing(
        run_id=event.run_id,
        wave=event.wave,
        first=wave.accepted_position,
        last=entry.position,
        digest=bytes(event.digest),
        record=codec.encode(run.record),
        tasks=codec.encode(statuses),
    )


def entries_of(database: Database, run_id: str, after: int) -> Iterator[ev.Entry]:
    """The durable entries behind a position that concern a run, with those of agents and the service, in order."""
    for entry in database.entries(max(0, after), containing=run_id.encode()):
        if getattr(entry.event, "run_id", run_id) in {run_id, None}:
            yield entry


class Writer:
    """The one thread that writes. A commit that fails is tried again until it succeeds or the house closes."""

    def __init__(
        self,
        database: Database,
        loop: asyncio.AbstractEventLoop,
        done: Callable[[Batch], None],
        report: Callable[[BaseException | None], None],
    ) -> None:
        self._database = database
        self._loop = loop
        self._done = done
        self._report = report
        self._batches: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.usual_s = PROMPT_COMMIT_S

    def start(self) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._write, name="phase21-journal", daemon=True)
        self._thread.start()

    def commit(self, batch: Batch) -> None:
        """Take a batch; `done` is called on the loop when it is durable."""
        self._batches.put(batch)

    def timed_commit(self, batch: Batch) -> None:
        """Commit once, and remember how long commits usually take (seconds, a moving average)."""
        started_s = time.monotonic()
        self._database.commit(batch)
        self.usual_s += (time.monotonic() - started_s - self.usual_s) / 8

    def stop(self) -> None:
        """Give up what cannot be written, and end."""
        self._stopping.set()
        self._batches.put(None)
        if self._thread is not None:
            self._thread.join()

    def finish(self, snapshot: bytes | None) -> None:
        """Write a last snapshot; only when no commit is under way."""
        self._database.commit(Batch(entries=(), snapshot=snapshot))

    def _write(self) -> None:
        while (batch := self._batches.get()) is not None:
            if self._commit(batch):
                self._call(self._done, batch)

    def _commit(self, batch: Batch) -> bool:
        failed = False
        while True:
            try:
                self.timed_commit(batch)
            except Exception as error:  # noqa: BLE001 - a writer that dies unseen would hold up the house without a word
                failed = True
                self._call(self._report, error)
                if self._stopping.wait(RETRY_DELAY_S):
                    return False
            else:
                if failed:
                    self._call(self._report, None)
                return True

    def _call(self, function: Callable[..., None], argument: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to tell
            self._loop.call_soon_threadsafe(function, argument)
