"""An agent's inbox: bounded, the most urgent first.

The manager puts deliveries in, the agent takes them out; neither knows the other. What is dropped from an inbox is not
lost: the ledger still holds the task, and the manager delivers it again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from heapq import heappop, heappush

from phase21.domain.records import TaskRecord, WaveRecord
from phase21.domain.tasks import Task


class Delivery:
    """One attempt to be made. It is stale once the task has moved on (see `current`).

    `task` is the task as it is handed to an engine, where that is not as it was accepted; `age` its place among those that a limit
    has held back, 0 where none has.
    """

    __slots__ = ("age", "attempt", "record", "run_id", "task", "wave")

    def __init__(self, run_id: str, wave: WaveRecord, record: TaskRecord) -> None:
        self.run_id = run_id
        self.wave = wave
        self.record = record
        self.task: Task | None = None
        self.age = 0
        self.attempt = record.attempts + 1

    def current(self, agent_id: str) -> bool:
        """Whether this attempt is still to be made, by this agent."""
        record = self.record
        return record.attempts + 1 == self.attempt and record.agent_id == agent_id and record.status in _STARTABLE


_STARTABLE = frozenset({"PENDING", "RETRYING"})


class Inbox:
    """Deliveries for one agent: a queue for each priority, and a heap of the priorities that have one."""

    __slots__ = ("_held", "_priorities", "_queues", "_room", "_waiters", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self._held = 0
        self._priorities: list[int] = []
        self._queues: dict[int, deque[Delivery]] = {}
        self._waiters: list[asyncio.Future[None]] = []
        self._room: list[asyncio.Future[None]] = []

    def __len__(self) -> int:
        return self._held

    def offer(self, delivery: Delivery, *, first: bool = False) -> bool:
        """Put a delivery in, unless the inbox is full; `first` of its priority where it has waited elsewhere."""
        if self._held >= self.size:
            return False
        self._held += 1
        priority = delivery.record.task.priority
        queue = self._queues.get(priority)
        if queue is None:
            queue = self._queues[priority] = deque()
            heappush(self._priorities, priority)
        if first:
            queue.appendleft(delivery)
        else:
            queue.append(delivery)
        if self._waiters:
            _wake_one(self._waiters)
        return True

    async def put(self, delivery: Delivery) -> None:
        """Put a delivery in, waiting for room."""
        while not self.offer(delivery):
            await _wait_in(self._room)

    def take(self) -> Delivery | None:
        """Take the most urgent delivery, None where there is none."""
        if not self._held:
            return None
        self._held -= 1
        queue = self._queues[self._priorities[0]]
        delivery = queue.popleft()
        if not queue:
            del self._queues[heappop(self._priorities)]
        if self._room:
            _wake_one(self._room)
        return delivery

    async def get(self) -> Delivery:
        """Take the most urgent delivery, waiting for one."""
        while (delivery := self.take()) is None:
            await _wait_in(self._waiters)
        return delivery

    def clear(self) -> None:
        """Drop everything: the manager is told by the journal and delivers elsewhere."""
        self._held = 0
        self._priorities.clear()
        self._queues.clear()
        while self._room:
            _wake_one(self._room)


def _wake_one(waiters: list[asyncio.Future[None]]) -> None:
    while waiters:
        waiter = waiters.pop(0)
        if not waiter.done():
            waiter.set_result(None)
            return


async def _wait_in(waiters: list[asyncio.Future[None]]) -> None:
    waiter = asyncio.get_running_loop().create_future()
    waiters.append(waiter)
    try:
        await waiter
    except asyncio.CancelledError:
        if waiter in waiters:
            waiters.remove(waiter)
        elif waiter.done() and not waiter.cancelled():
            _wake_one(waiters)
        raise
