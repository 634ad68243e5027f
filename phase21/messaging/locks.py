"""Locks of a run: leases that end with the attempt that holds them, or at a time.

That a lock ends with its holder is the ledger's fold; here it is asked for, waited for in order, and given back. Each taking has a
fence, a number larger than any before it, by which whoever is written to can refuse a holder that is late. It begins at the time at
which the service started: so it is larger too than those that a crash has lost before they were durable.
"""

from __future__ import annotations

import asyncio
from collections import deque

from phase21.domain import events as ev
from phase21.domain.errors import MessageRefused
from phase21.domain.messages import Lock
from phase21.domain.post import PostRecord
from phase21.messaging.mail import TIMER_SLACK_S, Mail
from phase21.messaging.speaker import Speaker, subject
from phase21.store.journal import Journal

LOCKS_MOST = 10_000


class Locks:
    """See the module."""

    def __init__(self, journal: Journal, mail: Mail) -> None:
        self._journal = journal
        self._mail = mail
        self._loop = asyncio.get_running_loop()
        self._lines: dict[tuple[str, str], deque[asyncio.Future[None]]] = {}

    def held(self, run_id: str, name: str) -> Lock | None:
        """Who holds a lock now."""
        run = self._journal.ledger.runs.get(run_id)
        lock = run.record.post.locks.get(name) if run is not None and run.record.post is not None else None
        return None if lock is None or lock.over(self._journal.clock.now_us()) else lock

    def try_take(self, speaker: Speaker, name: str, lease_s: float | None = None) -> int | None:
        """Take a lock if nobody holds or waits for it; its fence, None where somebody does. Raises MessageRefused."""
        name = subject(name, "a lock's name")
        if self._lines.get((speaker.run_id, name)):
            return None
        return self._taken(speaker, name, lease_s)

    async def take(self, speaker: Speaker, name: str, lease_s: float | None = None, timeout_s: float | None = None) -> int | None:
        """Take a lock, waiting in line for it; its fence, None where the time ran out. Raises MessageRefused."""
        name = subject(name, "a lock's name")
        self._refuse_second(speaker, name)
        line = self._lines.setdefault((speaker.run_id, name), deque())
        place = self._loop.create_future()
        line.append(place)
        try:
            async with asyncio.timeout(timeout_s):
                if line[0] is not place:
                    await place
                while (fence := self._taken(speaker, name, lease_s)) is None:
                    await self._freed(speaker.run_id, name)
                return fence
        except TimeoutError:
            return None
        finally:
            self._next_in_line(speaker.run_id, name, line, place)

    def release(self, speaker: Speaker, name: str, fence: int | None = None) -> bool:
        """Give a lock back; whether it was still held (by this attempt, and with this fence)."""
        lock = self.held(speaker.run_id, name)
        if lock is None or (lock.task_id, lock.attempt) != (speaker.task_id, speaker.attempt) or fence not in {None, lock.fence}:
            return False
        self._mail.flush(speaker.run_id)
        self._journal.append(ev.LockReleased(run_id=speaker.run_id, name=name, task_id=speaker.task_id, fence=lock.fence))
        return True

    def _refuse_second(self, speaker: Speaker, name: str) -> None:
        lock = self.held(speaker.run_id, name)
        if lock is not None and (lock.task_id, lock.attempt) == (speaker.task_id, speaker.attempt) and lock.until_us is None:
            raise MessageRefused(f"lock {name!r} is held by this attempt already, and would be waited for in vain")

    def _taken(self, speaker: Speaker, name: str, lease_s: float | None) -> int | None:
        run = self._journal.ledger.runs.get(speaker.run_id)
        post = (run.record.post or PostRecord()) if run is not None else PostRecord()
        if self.held(speaker.run_id, name) is not None:
            return None
        if len(post.locks) >= LOCKS_MOST:
            raise MessageRefused(f"the run holds {LOCKS_MOST} locks already")
        until_us = None if lease_s is None else self._journal.clock.now_us() + round(lease_s * 1e6)
        fence = max(post.fences, self._journal.ledger.service_us or 0) + 1
        self._mail.flush(speaker.run_id)
        self._journal.append(
            ev.LockTaken(
                run_id=speaker.run_id,
                name=name,
                task_id=speaker.task_id,
                attempt=speaker.attempt,
                fence=fence,
                until_us=until_us,
            )
        )
        return fence

    async def _freed(self, run_id: str, name: str) -> None:
        """Wait until nobody holds a lock: given back, ended with its attempt, or run out."""
        lock = self.held(run_id, name)
        if lock is None:
            return
        timer = None
        if lock.until_us is not None:
            delay_s = max(0.0, (lock.until_us - self._journal.clock.now_us()) / 1e6)
            timer = self._loop.call_later(delay_s + TIMER_SLACK_S, self._journal.wake)
        try:
            await self._journal.until(lambda: self.held(run_id, name) is None)
        finally:
            if timer is not None:
                timer.cancel()

    def _next_in_line(self, run_id: str, name: str, line: deque[asyncio.Future[None]], place: asyncio.Future[None]) -> None:
        line.remove(place)
        if not line:
            del self._lines[run_id, name]
        elif not line[0].done():
            line[0].set_result(None)
