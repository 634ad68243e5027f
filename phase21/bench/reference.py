"""The loops to compare with: the least that moves a task through queues, and the least that also keeps it on disk."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from pathlib import Path

Row = tuple[str, str, str]


class LeastStore:
    """Three rows a task, one commit a wave, durable."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        self._connection.execute("CREATE TABLE journal (task_id TEXT, event TEXT, agent_id TEXT)")

    def commit(self, rows: list[Row]) -> None:
        """Make the rows durable."""
        self._connection.execute("BEGIN")
        self._connection.executemany("INSERT INTO journal VALUES (?, ?, ?)", rows)
        self._connection.execute("COMMIT")


async def _work(name: str, inbox: asyncio.Queue[str], rows: list[Row], left: list[int], done: asyncio.Event) -> None:
    while True:
        task_id = await inbox.get()
        rows.append((task_id, "assigned", name))
        rows.append((task_id, "started", name))
        rows.append((task_id, "completed", name))
        left[0] -= 1
        if left[0] == 0:
            done.set()


async def waves(sizes: list[int], agents: int, store: LeastStore | None) -> list[float]:
    """Seconds that each wave takes: tasks dealt in turn over queues, a barrier, with `store` one commit a wave."""
    rows: list[Row] = []
    left = [0]
    done = asyncio.Event()
    inboxes: list[asyncio.Queue[str]] = [asyncio.Queue() for _ in range(agents)]
    spent: list[float] = []
    async with asyncio.TaskGroup() as group:
        workers = [group.create_task(_work(f"agent_{n}", inbox, rows, left, done)) for n, inbox in enumerate(inboxes)]
        for size in sizes:
            started = time.perf_counter()
            done.clear()
            left[0] = size
            for n in range(size):
                inboxes[n % agents].put_nowait(f"t{n}")
            await done.wait()
            if store is not None:
                store.commit(rows)
            rows.clear()
            spent.append(time.perf_counter() - started)
        for worker in workers:
            worker.cancel()
    return spent
