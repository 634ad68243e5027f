"""The waiting room: what is due, what is paused, and what is late."""

from __future__ import annotations

import asyncio

import pytest

from phase21.manager.waiting import WaitingRoom
from phase21.store.clock import LoopClock

pytestmark = pytest.mark.looptime


class Told(list):
    """What a room told of, and when."""

    def __init__(self, clock):
        super().__init__()
        self.start_us = clock.now_us()
        self.clock = clock

    def __call__(self, task_ids):
        self.append((round((self.clock.now_us() - self.start_us) / 1e6), list(task_ids)))


async def room_for(seconds, prepare):
    """A room at work for some seconds, after `prepare(room, start_us)`; gives what was due, what was late, and the room."""
    clock = LoopClock()
    due, late = Told(clock), Told(clock)
    room = WaitingRoom(clock, due, late)
    async with asyncio.TaskGroup() as group:
        work = group.create_task(room.run())
        await asyncio.sleep(0)
        prepare(room, due.start_us)
        await asyncio.sleep(seconds)
        work.cancel()
    return due, late, room


def at(start_us, seconds):
    return start_us + seconds * 1_000_000


async def test_each_is_told_of_at_its_time_and_once():
    """In the order of their times, however they came; what came twice is told of once."""

    def prepare(room, start_us):
        for task_id, seconds in (("late", 300), ("early", 10), ("middle", 100), ("early", 10)):
            room.sleep(task_id, at(start_us, seconds))
        assert room.asleep == 3

    due, late, room = await room_for(1000, prepare)
    assert due == [(10, ["early"]), (100, ["middle"]), (300, ["late"])]
    assert (late, room.asleep) == ([], 0)


async def test_a_time_that_changes_counts_as_it_was_said_last():
    """The earlier word is forgotten."""

    def prepare(room, start_us):
        room.sleep("t", at(start_us, 10))
        room.sleep("t", at(start_us, 20))

    due, _, _ = await room_for(100, prepare)
    assert due == [(20, ["t"])]


async def test_what_is_let_go_is_not_told_of():
    """Cancelled, or paused meanwhile."""

    def prepare(room, start_us):
        for task_id in ("gone", "paused"):
            room.sleep(task_id, at(start_us, 10))
        room.discard("gone")
        room.pause("paused")

    due, _, room = await room_for(100, prepare)
    assert due == []
    assert (room.asleep, room.paused, room.held()) == (0, 1, ["paused"])
    room.resume(["paused"])
    assert room.paused == 0


async def test_a_retry_is_told_of_and_does_not_count_as_asleep():
    """A run that waits for a retry is at work."""

    def prepare(room, start_us):
        room.sleep("t", at(start_us, 10), again=True)
        assert room.asleep == 0

    due, _, _ = await room_for(100, prepare)
    assert due == [(10, ["t"])]


async def test_a_deadline_is_told_of_wherever_the_task_is():
    """Asleep, paused or elsewhere; what is late is not due any more."""

    def prepare(room, start_us):
        for task_id in ("asleep", "paused", "elsewhere"):
            room.watch(task_id, at(start_us, 50))
        room.sleep("asleep", at(start_us, 80))
        room.pause("paused")

    due, late, room = await room_for(200, prepare)
    assert due == []
    assert [(when, sorted(task_ids)) for when, task_ids in late] == [(50, ["asleep", "elsewhere", "paused"])]
    assert (room.asleep, room.paused) == (0, 0)
