"""Limits: what holds, who waits, and to whom it is handed back."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from phase21.agents.limits import Limits
from phase21.domain.ledger import Ledger
from phase21.domain.records import AgentRecord, TaskRecord, WaveRecord
from phase21.domain.settings import CurrentSettings, LimitSpec, Settings
from phase21.domain.tasks import Task
from phase21.messaging.inbox import Delivery, Inbox
from phase21.store.clock import LoopClock

pytestmark = pytest.mark.looptime


def limits_of(*specs, agents=2, inbox_size=10):
    """Limits over a ledger with some idle agents, and their inboxes."""
    ledger = Ledger()
    ledger.agents = {f"a{n}": AgentRecord(agent_id=f"a{n}") for n in range(agents)}
    settings = msgspec.convert({"limits": specs, "agents": {"inbox_size": inbox_size}}, Settings)
    limits = Limits(ledger, CurrentSettings(settings), LoopClock())
    limits.inboxes = {agent_id: Inbox(inbox_size) for agent_id in ledger.agents}
    return limits


def delivery(task_id, agent_id="a0", priority=2, **fields):
    record = TaskRecord(task=Task(task_id=task_id, priority=priority, **fields), agent_id=agent_id)
    return Delivery("r", WaveRecord(run_id="r", number=1, tasks={}), record)


def taken(limits, agent_id="a0"):
    """The tasks that were handed back to an agent, in the order in which it takes them."""
    found = []
    while (one := limits.inboxes[agent_id].take()) is not None:
        found.append(one.record.task.task_id)
    return found


async def test_a_limit_holds_for_what_it_names():
    """Kind, agent and key each have their own; what has another or none is free."""
    limits = limits_of({"kind": "command", "concurrent": 1}, {"agent": "a1", "concurrent": 2}, {"key": "db", "concurrent": 1})
    ledger = limits._ledger
    limits.busy_kinds["command"] = limits.busy_keys["db"] = 1
    ledger.agents["a1"].busy = 2
    kind, agent, key = Task(task_id="t", kind="command"), Task(task_id="t"), Task(task_id="t", limit_key="db")
    assert limits.refusal(kind, "a0", 0.0)[0] == "kind command: 1 of 1 attempts are under way (limits)"
    assert limits.refusal(agent, "a1", 0.0)[0] == "agent a1: 2 of 2 attempts are under way (limits)"
    assert limits.refusal(key, "a0", 0.0)[0] == "key db: 1 of 1 attempts are under way (limits)"
    assert limits.refusal(agent, "a0", 0.0) is None
    assert limits.refusal(Task(task_id="t", limit_key="other"), "a0", 0.0) is None


async def test_each_is_limited_by_itself_where_the_limit_is_for_each():
    """`*` is not one limit for all."""
    limits = limits_of({"key": "*", "concurrent": 1})
    limits.busy_keys["x"] = 1
    assert limits.refusal(Task(task_id="t", limit_key="x"), "a0", 0.0) is not None
    assert limits.refusal(Task(task_id="t", limit_key="y"), "a0", 0.0) is None


async def test_a_rate_says_when_the_next_may_begin():
    """One start uses up the time of one."""
    limits = limits_of({"kind": "simulate", "rate_per_s": 4.0})
    task = Task(task_id="t")
    assert limits.refusal(task, "a0", 10.0) is None
    limits.count_start(task, "a0", 10.0)
    said, wait_s = limits.refusal(task, "a0", 10.1)
    assert said == "kind simulate: 4 attempts per second have been started (limits)"
    assert wait_s == pytest.approx(0.15)
    assert limits.refusal(task, "a0", 10.25) is None


async def test_the_most_urgent_and_then_the_oldest_is_handed_back_first():
    """Across agents too: one place that is free goes to who comes first of all that wait."""
    limits = limits_of({"key": "k", "concurrent": 1})
    for one in (delivery("b", limit_key="k"), delivery("c", "a1", limit_key="k"), delivery("a", "a1", priority=1, limit_key="k")):
        assert limits.park(one.record.agent_id, one, 1.0)
    assert limits.waiting == 3
    limits.look()
    assert (taken(limits), taken(limits, "a1")) == ([], ["a"])
    assert limits.waiting == 2


async def test_a_place_is_kept_for_what_was_handed_back_until_it_is_dealt_with():
    """Nothing else is handed back meanwhile; once it was refused after all, the next is."""
    limits = limits_of({"key": "k", "concurrent": 1})
    first, second = delivery("a", limit_key="k"), delivery("b", "a1", limit_key="k")
    limits.park("a0", first, 1.0)
    limits.park("a1", second, 1.0)
    limits.look()
    limits.look()
    assert (taken(limits), taken(limits, "a1")) == (["a"], [])
    first.record.status = "CANCELLED"
    limits.ended(first)
    assert taken(limits, "a1") == ["b"]


async def test_what_has_moved_on_is_dropped():
    """A delivery whose task was given to another agent, or has ended, waits no longer."""
    limits = limits_of({"key": "k", "concurrent": 1})
    moved, ended = delivery("a", limit_key="k"), delivery("b", limit_key="k")
    limits.park("a0", moved, 1.0)
    limits.park("a0", ended, 1.0)
    moved.record.agent_id, ended.record.status = "a1", "FAILED"
    limits.look()
    assert (limits.waiting, taken(limits)) == (0, [])


async def test_nothing_is_handed_to_who_cannot_begin():
    """An agent that is at work, OFFLINE, or whose inbox is full is passed over, and looked at again."""
    limits = limits_of({"key": "k", "concurrent": 9}, inbox_size=1)
    agent = limits._ledger.agents["a0"]
    limits.park("a0", delivery("a", limit_key="k"), 1.0)
    agent.busy = 1
    limits.look()
    agent.busy, agent.offline = 0, True
    limits.look()
    agent.offline = False
    limits.inboxes["a0"].offer(delivery("full"))
    limits.look()
    assert taken(limits) == ["full"]
    limits.look()
    assert taken(limits) == ["a"]


async def test_the_room_is_bounded():
    """No more is put aside for an agent than its inbox holds."""
    limits = limits_of({"key": "k", "concurrent": 1}, inbox_size=2)
    assert [limits.park("a0", delivery(f"t{n}", limit_key="k"), 1.0) for n in range(3)] == [True, True, False]
    assert limits.park("a1", delivery("other", "a1", limit_key="k"), 1.0)


async def test_what_a_rate_holds_is_handed_back_when_its_time_has_come():
    """Nobody needs to end anything for that."""
    limits = limits_of({"kind": "simulate", "rate_per_s": 0.1})
    now_s = asyncio.get_running_loop().time()
    one = delivery("a")
    limits.count_start(one.record.task, "a0", now_s)
    limits.park("a0", one, limits.refusal(one.record.task, "a0", now_s)[1])
    await asyncio.sleep(9.9)
    assert taken(limits) == []
    await asyncio.sleep(0.2)
    assert taken(limits) == ["a"]


async def test_a_reload_counts_from_then_on():
    """Limits that are configured anew hold for the next attempt."""
    limits = limits_of({"kind": "simulate", "concurrent": 1})
    limits.busy_kinds["simulate"] = 1
    assert limits.refusal(Task(task_id="t"), "a0", 0.0) is not None
    limits._settings.now = msgspec.structs.replace(limits._settings.now, limits=(LimitSpec(kind="simulate", concurrent=2),))
    assert limits.refusal(Task(task_id="t"), "a0", 0.0) is None
