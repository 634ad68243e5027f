"""An agent's inbox: bounded, the most urgent first.

The manager puts deliveries in, the agent takes them out; neither knows the other. What is dropped from an inbox is not
lost: the ledger still holds the task, and the manager delivers it again.
"""

from __future__ import annotations

import asyncio
from heapq import heappop, heappush

from phase21.domain.records import TaskRecord, WaveRecord


class Delivery:
    """One attempt to be made. It is stale once the task has moved on (see `current`)."""

    __slots__ = ("attempt", "record", "run_id", "wave")

    def __init__(self, run_id: str, wave: WaveRecord, record: TaskRecord) -> None:
        self.run_id = run_id
        self.wave = wave
        self.record = record
        self.attempt = record.attempts + 1

    def current(self, agent_id: str) -> bool:
        """Whether this attempt is still to be made, by this agent."""
        record = self.record
        return record.attempts + 1 == self.attempt and record.agent_id == agent_id and record.status in _STARTABLE


_STARTABLE = frozenset({"PENDING", "RETRYING"})


class Inbox:
    """Deliveries for one agent."""

    __slots__ = ("_heap", "_order", "_room", "_waiters", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self._heap: list[tuple[int, int, Delivery]] = []
        self._order = 0
        self._waiters: list[asyncio.Future[None]] = []
        self._room: list[asyncio.Future[None]] = []

    def __len__(self) -> int:
        return len(self._heap)

    def offer(self, delivery: Delivery) -> bool:
        """Put a delivery in, unless the inbox is full."""
        if len(self._heap) >= self.size:
            return False
        self._order += 1
        heappush(self._heap, (delivery.record.task.priority, self._order, delivery))
        if self._waiters:
            _wake_one(self._waiters)
        return True

    async def put(self, delivery: Delivery) -> None:
        """Put a delivery in, waiting for room."""
        while not self.offer(delivery):
            await _wait_in(self._room)

    def take(self) -> Delivery | None:
        """Take the most urgent delivery, None where there is none."""
        if not self._heap:
            return None
        delivery = heappop(self._heap)[2]
        if self._room:
            _wake_one(self._room)
        return delivery

    async def get(self) -> Delivery:
        """Take the most urgent delivery, waiting for one."""
        while not self._heap:
            await _wait_in(self._waiters)
        delivery = self.take()
        assert delivery is not None  # noqa: S101 - the heap holds one
        return delivery

    def clear(self) -> None:
        """Drop everything: the manager is told by the journal and delivers elsewhere."""
        self._heap.clear()
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
