"""The handlers that a soaked daemon calls: they talk, take turns, count together, and leave a mark of each step on the disk.

Each keeps where it is in a shared value before it takes the next message, as the how-to says; so it may demand that nothing
is lost, and that nothing comes again but what it had in its hand. Where that is not so it fails for good, and the soak reports it.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from phase21 import Context, NoAnswer, Permanent

SILENCE_S = 20.0
ASK_AGAIN_S = 5.0


def mark(marks: str, what: str, ctx: Any, *more: object) -> None:
    """Add a line in one write: what, task, attempt, nanoseconds since 1970, the daemon's process, and more."""
    words = (what, ctx.task.task_id, ctx.attempt, time.time_ns(), os.getpid(), *more)
    descriptor = os.open(marks, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, " ".join(map(str, words)).encode() + b"\n")
    finally:
        os.close(descriptor)


# -- direct messages -----------------------------------------------------------------------------------------------------


async def counts(ctx: Context, to: str, most: int) -> int:
    """Send the numbers up to `most`, and keep in mind which was the last."""
    done = (await ctx.shared.get("sent")).value or 0
    for number in range(done + 1, most + 1):
        await ctx.send(to, number)
        await ctx.shared.set("sent", number)
        await asyncio.sleep(0.01)
    return most


async def collects(ctx: Context, most: int) -> list[int]:
    """Take the numbers."""
    return await _heard(ctx, most)


async def _heard(ctx: Context, most: int) -> list[int]:
    """Take numbers in order up to `most`: the next one, or the one that was taken last before a crash, and nothing else."""
    name = f"heard by {ctx.task.task_id}"
    heard = (await ctx.shared.get(name)).value or []
    while len(heard) < most:
        letter = await ctx.receive(SILENCE_S)
        if letter is None:
            return heard
        if letter.content == len(heard) + 1:
            heard = [*heard, letter.content]
            await ctx.shared.set(name, heard)
        elif letter.content != len(heard):
            raise Permanent(f"promise: after {len(heard)} came {letter.content}")
    return heard


# -- request and response ------------------------------------------------------------------------------------------------


async def asks(ctx: Context, to: str, most: int) -> list[int]:
    """Ask for squares, one after the other; ask again where no answer comes."""
    told = (await ctx.shared.get("told")).value or []
    while len(told) < most:
        number = len(told) + 1
        try:
            answer = await ctx.request(to, number, deadline_s=ASK_AGAIN_S)
        except NoAnswer as said:
            if "is gone" in str(said):
                return told
            continue
        if answer.content != number * number or answer.sender != to:
            raise Permanent(f"promise: {number} was answered by {answer.content}")
        told = [*told, answer.content]
        await ctx.shared.set("told", told)
        await asyncio.sleep(0.01)
    await ctx.send(to, None)
    return told


def answers(ctx: Any) -> str:
    """Answer until nobody asks any more. A plain function, in a thread."""
    while (letter := ctx.receive(SILENCE_S)) is not None:
        if letter.content is None:
            return "done"
        ctx.respond(letter, letter.content**2)
    return "nobody asked"


# -- broadcast and topics ------------------------------------------------------------------------------------------------


async def speaks(ctx: Context, listeners: int, most: int, topic: str | None = None) -> int:
    """Wait until all listen, then tell everybody (or those who follow a topic) the numbers up to `most`."""
    ready = (await ctx.shared.get("ready")).value or []
    while len(ready) < listeners:
        letter = await ctx.receive(SILENCE_S, type="state_update")
        if letter is None:
            break
        if letter.sender not in ready:
            ready = [*ready, letter.sender]
            await ctx.shared.set("ready", ready)
    done = (await ctx.shared.get("said")).value or 0
    for number in range(done + 1, most + 1):
        await (ctx.broadcast(number) if topic is None else ctx.publish(topic, number))
        await ctx.shared.set("said", number)
        await asyncio.sleep(0.02)
    return len(ready)


async def listens(ctx: Context, to: str, most: int, topic: str | None = None) -> list[int]:
    """Say that it listens, and take the numbers."""
    if topic is not None:
        await ctx.subscribe(topic)
    await ctx.send(to, "ready", type="state_update")
    return await _heard(ctx, most)


# -- turns and a common count --------------------------------------------------------------------------------------------


async def turns(ctx: Context, marks: str, most: int, *, lease_s: float | None = None, fails: bool = False) -> int:
    """Hold the run's lock again and again, with a mark at both ends; `fails` once with the lock in its hand."""
    if fails and ctx.attempt == 1:
        mark(marks, "enter", ctx, await ctx.take_lock("turn"))
        await asyncio.sleep(0.005)
        mark(marks, "leave", ctx)
        raise ValueError("with the lock in its hand")
    for turn in range(most):
        async with ctx.lock("turn", lease_s=lease_s) as fence:
            mark(marks, "enter", ctx, fence)
            await asyncio.sleep(0.004 * (1 + turn % 3))
            mark(marks, "leave", ctx, fence)
    return most


def plain_turns(ctx: Any, marks: str, most: int) -> int:
    """The same from a thread."""
    for _ in range(most):
        with ctx.lock("turn") as fence:
            mark(marks, "enter", ctx, fence)
            time.sleep(0.003)
            mark(marks, "leave", ctx, fence)
    return most


async def adds(ctx: Context, marks: str, most: int, *, durable: bool) -> list[int]:
    """Add one to a common count `most` times, by compare-and-set; what is told durable is marked."""
    made: list[int] = []
    while len(made) < most:
        now = await ctx.shared.get("count")
        await asyncio.sleep(0.002 * (ctx.attempt % 2))
        version = await ctx.shared.compare_and_set("count", now.version, (now.value or 0) + 1, durable=durable)
        if version is not None:
            made.append(version)
            if durable:
                mark(marks, "added", ctx, version)
            await asyncio.sleep(0.01)
    return made


# -- workflows -----------------------------------------------------------------------------------------------------------


def numbers(most: int) -> dict[str, Any]:
    """A list to make tasks over."""
    return {"items": [f"item{number}" for number in range(most)], "n": most}


def spawns(tasks: list[dict[str, Any]]) -> dict[str, Any]:
    """Ask for further tasks."""
    return {"spawn": tasks}
