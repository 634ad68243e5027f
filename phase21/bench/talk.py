"""Two tasks that talk: what the workload `messages` lets a house carry out, and the loop that does the least to compare with.

The tasks are `python` handlers like any user's; the reference is a bounded queue between two coroutines, its rows committed as it goes.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from pathlib import Path
from typing import Any

from phase21.engines.context import Context

QUEUE_MESSAGES = 1024
ROWS_A_COMMIT = 1024
IN_FLIGHT = 256
"""How many durable messages are on their way at a time."""


async def sender(ctx: Context, to: str, count: int, *, durable: bool) -> None:
    """Send so many messages, one after the other, or durable ones side by side."""
    if not durable:
        for number in range(count):
            await ctx.send(to, {"n": number})
        return
    for start in range(0, count, IN_FLIGHT):
        async with asyncio.TaskGroup() as group:
            for number in range(start, min(start + IN_FLIGHT, count)):
                group.create_task(ctx.send(to, {"n": number}, durable=True))


async def receiver(ctx: Context, count: int) -> dict[str, Any]:
    """Take so many, and say how long that took from the first one on."""
    first = await ctx.receive()
    started = time.perf_counter()
    total = first.content["n"] if first is not None else 0
    for _ in range(count - 1):
        letter = await ctx.receive()
        total += letter.content["n"] if letter is not None else 0
    return {"seconds": time.perf_counter() - started, "total": total}


async def reference(count: int, path: Path | None) -> float:
    """Seconds that the least takes: a queue, and with `path` a commit of each 1,024 rows, durable."""
    store = _store(path) if path is not None else None
    queue: asyncio.Queue[dict[str, int]] = asyncio.Queue(QUEUE_MESSAGES)
    rows: list[tuple[int]] = []
    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        group.create_task(_put(queue, count))
        for _ in range(count):
            rows.append(((await queue.get())["n"],))
            if store is not None and len(rows) == ROWS_A_COMMIT:
                _commit(store, rows)
    if store is not None:
        _commit(store, rows)
        store.close()
    return time.perf_counter() - started


async def _put(queue: asyncio.Queue[dict[str, int]], count: int) -> None:
    for number in range(count):
        await queue.put({"n": number})


def _store(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE messages (n INTEGER)")
    return connection


def _commit(store: sqlite3.Connection, rows: list[tuple[int]]) -> None:
    store.execute("BEGIN")
    store.executemany("INSERT INTO messages VALUES (?)", rows)
    store.execute("COMMIT")
    rows.clear()
