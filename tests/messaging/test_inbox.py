"""An agent's inbox."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from phase21.domain.records import TaskRecord, WaveRecord
from phase21.domain.tasks import Task, TaskStatus
from phase21.messaging.inbox import Delivery, Inbox

WAVE = WaveRecord(run_id="r", number=1, tasks={})


def delivery(task_id="t", priority=2, **fields):
    return Delivery("r", WAVE, TaskRecord(task=Task(task_id=task_id, priority=priority), **fields))


@given(st.lists(st.integers(1, 5), max_size=40))
def test_the_most_urgent_comes_first_and_equals_in_order(priorities):
    """Deliveries come out by priority, and among equals as they went in."""
    inbox = Inbox(100)
    for n, priority in enumerate(priorities):
        assert inbox.offer(delivery(str(n), priority))

    async def take():
        return [(await inbox.get()).record.task for _ in priorities]

    taken = asyncio.run(take())
    assert [(task.priority, int(task.task_id)) for task in taken] == sorted((p, n) for n, p in enumerate(priorities))


def test_a_full_inbox_takes_nothing_more():
    """An inbox holds as many as its size."""
    inbox = Inbox(2)
    assert [inbox.offer(delivery()) for _ in range(3)] == [True, True, False]
    assert len(inbox) == 2


async def test_put_waits_for_room():
    """Who puts into a full inbox waits until something is taken."""
    inbox = Inbox(1)
    inbox.offer(delivery("a"))
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(inbox.put(delivery("b")))
        await asyncio.sleep(0)
        assert not waiting.done()
        assert (await inbox.get()).record.task.task_id == "a"
    assert (await inbox.get()).record.task.task_id == "b"


async def test_get_waits_for_a_delivery():
    """Who takes from an empty inbox waits."""
    inbox = Inbox(1)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(inbox.get())
        await asyncio.sleep(0)
        assert not waiting.done()
        inbox.offer(delivery("a"))
    assert waiting.result().record.task.task_id == "a"


async def test_one_who_goes_away_while_being_woken_wakes_the_next():
    """A delivery is not lost on a reader that is cancelled in the same moment."""
    inbox = Inbox(4)
    async with asyncio.TaskGroup() as group:
        first, second = group.create_task(inbox.get()), group.create_task(inbox.get())
        await asyncio.sleep(0)
        inbox.offer(delivery("a"))
        first.cancel()
    assert first.cancelled()
    assert second.result().record.task.task_id == "a"


async def test_clearing_makes_room():
    """Everything is dropped, and all who waited for room go on."""
    inbox = Inbox(1)
    inbox.offer(delivery("a"))
    async with asyncio.TaskGroup() as group:
        group.create_task(inbox.put(delivery("b")))
        await asyncio.sleep(0)
        inbox.clear()
    assert (await inbox.get()).record.task.task_id == "b"


def test_a_delivery_is_stale_once_its_task_has_moved_on():
    """Another agent, another attempt, or an end: the delivery is not to be made any more."""

    def fresh():
        return delivery(agent_id="a")

    assert fresh().current("a")
    assert not fresh().current("b")
    for change in ({"attempts": 1}, {"agent_id": "b"}, {"status": TaskStatus.COMPLETED}, {"status": TaskStatus.IN_PROGRESS}):
        made = fresh()
        for name, value in change.items():
            setattr(made.record, name, value)
        assert not made.current("a"), change
