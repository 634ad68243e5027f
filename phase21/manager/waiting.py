"""What of a wave waits for a time: tasks that are not due yet, tasks that are paused, and all that have a deadline.

Kept by the manager, one for each wave that needs it, and lost with the process: the ledger holds what it is made from. The wall clock is
looked at once a minute at least, so that one that jumps makes nothing late or early for longer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from heapq import heappop, heappush

from phase21.store.clock import MICROS, Clock

LOOK_S = 60.0

Came = Callable[[Sequence[str]], None]
"""What is to be done about tasks, by their ids, once their time has come."""


class WaitingRoom:
    """`due` is told of tasks that may be tried now, `late` of those whose deadline has passed."""

    def __init__(self, clock: Clock, due: Came, late: Came) -> None:
        self._clock = clock
        self._due = due
        self._late = late
        self.begun = False
        self._sleeping: dict[str, int] = {}
        self._fresh: set[str] = set()
        self._paused: set[str] = set()
        self._deadlines: dict[str, int] = {}
        self._times: list[tuple[int, str]] = []
        self._changed = asyncio.Event()

    @property
    def asleep(self) -> int:
        """How many tasks are not due for the first time yet."""
        return len(self._fresh)

    @property
    def paused(self) -> int:
        """How many wait for a person."""
        return len(self._paused)

    def sleep(self, task_id: str, until_us: int, *, again: bool = False) -> None:
        """Keep a task until it is due, for the first time or `again`."""
        if self._sleeping.get(task_id) == until_us:
            return
        self.discard(task_id)
        self._sleeping[task_id] = until_us
        if not again:
            self._fresh.add(task_id)
        self._note(until_us, task_id)

    def pause(self, task_id: str) -> None:
        """Keep a task until somebody resumes it."""
        self.discard(task_id)
        self._paused.add(task_id)

    def held(self) -> list[str]:
        """The tasks that wait for a person."""
        return list(self._paused)

    def resume(self, task_ids: Iterable[str]) -> None:
        """Keep tasks no longer that were paused; whoever resumed them hands them on."""
        self._paused.difference_update(task_ids)

    def discard(self, task_id: str) -> None:
        """Keep a task no longer; its deadline stays."""
        self._sleeping.pop(task_id, None)
        self._fresh.discard(task_id)
        self._paused.discard(task_id)

    def watch(self, task_id: str, deadline_us: int) -> None:
        """Tell of a task once its deadline has passed, wherever it is then."""
        self._deadlines[task_id] = deadline_us
        self._note(deadline_us, task_id)

    def _note(self, at_us: int, task_id: str) -> None:
        heappush(self._times, (at_us, task_id))
        if self._times[0] == (at_us, task_id):
            self._changed.set()

    async def run(self) -> None:
        """Tell of what comes, until cancelled."""
        self.begun = True
        while True:
            self._changed.clear()
            self._tell(self._clock.now_us())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._rest_s()):
                    await self._changed.wait()

    def _rest_s(self) -> float | None:
        if not self._times:
            return None
        return min(LOOK_S, max(0.0, (self._times[0][0] - self._clock.now_us()) / MICROS))

    def _tell(self, now_us: int) -> None:
        """Let go of what has come."""
        due: list[str] = []
        late: list[str] = []
        while self._times and self._times[0][0] <= now_us:
            at_us, task_id = heappop(self._times)
            if self._deadlines.get(task_id) == at_us:
                del self._deadlines[task_id]
                self.discard(task_id)
                late.append(task_id)
            elif self._sleeping.get(task_id) == at_us:
                self.discard(task_id)
                due.append(task_id)
        if late:
            self._late(late)
        if due:
            self._due(due)
