"""Limits per kind, agent and key: how many attempts are under way, and how many begin in a second."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from msgspec import convert, structs
from players import Scripted, after, entries, of_task, put_on
from stage import accept, configured, control, executed, finished, house_in, statuses, sure, task

from phase21.domain import events as ev
from phase21.domain.settings import LimitSpec
from phase21.store.clock import VIRTUAL_EPOCH_US

pytestmark = pytest.mark.looptime


def limited(*specs, **sections):
    """Settings with limits."""
    return structs.replace(configured(**sections), limits=tuple(convert(spec, LimitSpec) for spec in specs))


def scripted(task_id, **fields):
    return task(task_id, kind="scripted", **fields)


class Counting(Scripted):
    """Keeps how many attempts of each key were under way at most."""

    def __init__(self, word="1"):
        super().__init__()
        self.word = word
        self.now: dict[str | None, int] = {}
        self.most: dict[str | None, int] = {}

    async def perform(self, attempt):
        key = attempt.task.limit_key
        self.now[key] = self.now.get(key, 0) + 1
        self.most[key] = max(self.most.get(key, 0), self.now[key])
        self.script[attempt.task.task_id.replace("-", "_")] = [self.word]
        try:
            return await super().perform(attempt)
        finally:
            self.now[key] -= 1


async def test_no_more_attempts_of_a_kind_are_under_way_than_allowed(tmp_path):
    """All agents together keep to a kind's limit, and use it fully."""
    async with house_in(tmp_path, limited({"kind": "scripted", "concurrent": 2})) as house:
        engine = Counting()
        put_on(house, engine)
        accept(house, "r", [scripted(f"t{n}") for n in range(10)])
        begun = asyncio.get_running_loop().time()
        await finished(house)
        assert engine.most_running == 2
        assert 5 <= asyncio.get_running_loop().time() - begun < 7
        assert set(statuses(executed(tmp_path, "r")).values()) == {"COMPLETED"}


async def test_each_key_has_its_own_limit_where_the_limit_is_for_each(tmp_path):
    """`*` stands for every key by itself; what has no key is not limited."""
    async with house_in(tmp_path, limited({"key": "*", "concurrent": 1}, agents={"count": 8})) as house:
        engine = Counting()
        put_on(house, engine)
        keyed = [scripted(f"{key}{n}", limit_key=key) for key in "ab" for n in range(4)]
        accept(house, "r", [*keyed, *(scripted(f"free{n}") for n in range(8))])
        await finished(house)
        assert engine.most["a"] == engine.most["b"] == 1
        assert engine.most[None] > 1


async def test_an_agent_works_on_others_while_a_limit_holds_a_task(tmp_path):
    """What a limit holds back does not hold its agent up, and goes first once there is room."""
    async with house_in(tmp_path, limited({"key": "db", "concurrent": 1}, agents={"count": 2})) as house:
        put_on(house, Scripted(long="10"))
        tasks = [scripted("long", limit_key="db", agent_id="agent_0"), scripted("held", limit_key="db", agent_id="agent_1")]
        accept(house, "r", [*tasks, *(scripted(f"free{n}", agent_id="agent_1", priority=3) for n in range(5))])
        await after(house, 5)
        assert {entry.event.task_id for entry in entries(house, ev.TaskCompleted)} == {f"free{n}" for n in range(5)}
        (held,) = of_task(house, "held", ev.TaskHeld)
        assert held.event.reason == "key db: 1 of 1 attempts are under way (limits)"
        await finished(house)
        assert 10 <= (of_task(house, "held", ev.AttemptStarted)[0].at_us - VIRTUAL_EPOCH_US) / 1e6 < 10.5
        assert len(of_task(house, "held", ev.TaskHeld)) == 1


async def test_what_waits_for_a_limit_goes_by_priority_then_by_age(tmp_path):
    """The most urgent goes first, and of these what was held back first."""
    async with house_in(
        tmp_path, limited({"key": "k", "concurrent": 1}, agents={"count": 1, "fleet": [{"id": "a", "concurrency": 4}]})
    ) as house:
        engine = Counting()
        put_on(house, engine)
        accept(house, "r", [scripted("first", limit_key="k", priority=0), scripted("n1", limit_key="k"), scripted("n2", limit_key="k"),
                            scripted("low", limit_key="k", priority=3), scripted("high", limit_key="k", priority=1)])  # fmt: skip
        await finished(house)
        assert [name for name, _, _ in engine.started] == ["first", "high", "n1", "n2", "low"]


async def test_a_rate_is_kept_per_agent(tmp_path):
    """Attempts of the agent begin no faster than its rate; the other agents' do."""
    async with house_in(tmp_path, limited({"agent": "agent_0", "rate_per_s": 0.5}, agents={"count": 2})) as house:
        accept(
            house,
            "r",
            [sure(f"s{n}", agent_id="agent_0") for n in range(4)] + [sure(f"f{n}", agent_id="agent_1") for n in range(4)],
        )
        await finished(house)
        begun = [(entry.event.agent_id, (entry.at_us - VIRTUAL_EPOCH_US) / 1e6) for entry in entries(house, ev.AttemptStarted)]
        slow = [at_s for agent_id, at_s in begun if agent_id == "agent_0"]
        assert all(1.99 <= later - earlier < 2.5 for earlier, later in pairwise(slow))
        assert max(at_s for agent_id, at_s in begun if agent_id == "agent_1") < 1


async def test_a_crash_leaks_no_place(tmp_path):
    """What was under way when the daemon was killed does not count after its restart."""
    settings = limited({"kind": "scripted", "concurrent": 1})
    async with house_in(tmp_path, settings) as house:
        put_on(house, Scripted(t0="100", t1="100"))
        accept(house, "r", [scripted(f"t{n}", timeout_s=500) for n in range(3)])
        await after(house, 1)
    async with house_in(tmp_path, settings) as house:
        put_on(house, Counting())
        async with asyncio.timeout(20):
            await finished(house)
        assert set(statuses(executed(tmp_path, "r")).values()) == {"COMPLETED"}
        assert not house.executor.limits.busy_kinds


async def test_an_agent_that_crashes_leaks_no_place(tmp_path):
    """An agent's crash ends its attempt, and another may begin."""
    async with house_in(tmp_path, limited({"key": "k", "concurrent": 1}, agents={"count": 2})) as house:
        put_on(house, Counting())
        plain, crashes = house.executor._settle, iter([True])

        def settle(*args):
            if next(crashes, False):
                raise RuntimeError("an agent's own trouble")
            plain(*args)

        house.executor._settle = settle
        accept(house, "r", [scripted(f"t{n}", limit_key="k") for n in range(4)])
        async with asyncio.timeout(60):
            await finished(house)
        assert set(statuses(executed(tmp_path, "r")).values()) == {"COMPLETED"}
        assert house.executor.limits.busy_keys == {}


@pytest.mark.parametrize("how", ["cancel", "pause"])
async def test_a_place_is_not_kept_for_what_is_not_wanted_any_more(tmp_path, how):
    """Where the next in turn was cancelled or paused meanwhile, the one behind it begins."""
    async with house_in(tmp_path, limited({"key": "k", "concurrent": 1}, agents={"count": 3})) as house:
        put_on(house, Counting("5"))
        accept(house, "r", [scripted(name, limit_key="k", agent_id=f"agent_{n}") for n, name in enumerate(("a", "b", "c"))])
        await after(house, 1)
        control(house, "r", how, "b")
        await after(house, 12)
        assert [entry.event.task_id for entry in entries(house, ev.TaskCompleted)] == ["a", "c"]
        control(house, "r", "resume")
        await finished(house)


async def test_the_waiting_room_is_bounded(tmp_path):
    """An agent puts aside no more than its inbox holds; beyond that it waits itself, and nothing is lost."""
    settings = limited({"kind": "scripted", "concurrent": 1}, agents={"count": 2, "inbox_size": 3})
    async with house_in(tmp_path, settings) as house:
        put_on(house, Counting("0.5"))
        accept(house, "r", [scripted(f"t{n}") for n in range(30)])
        await after(house, 1)
        assert house.executor.limits.waiting <= 6
        async with asyncio.timeout(100):
            await finished(house)
        assert set(statuses(executed(tmp_path, "r")).values()) == {"COMPLETED"}


async def test_an_agent_that_goes_offline_leaves_what_a_limit_held_to_others(tmp_path):
    """What waits aside for a limit is moved with all else of an agent that goes OFFLINE."""
    settings = limited(
        {"key": "k", "concurrent": 1}, agents={"count": 2, "offline_after": 1, "probation": 1000}, retry={"strategy": "no_retry"}
    )
    async with house_in(tmp_path, settings) as house:
        put_on(house, Scripted(hang="hang", long="3", held="1"))
        accept(house, "r", [
            scripted("long", limit_key="k", agent_id="agent_1", priority=0), scripted("held", limit_key="k", priority=0, predictions={"agent_0": 1.0}),
            scripted("hang", agent_id="agent_0", timeout_s=1),
        ])  # fmt: skip
        async with asyncio.timeout(100):
            await finished(house)
        found = statuses(executed(tmp_path, "r"))
        assert (found["held"], found["long"], found["hang"]) == ("COMPLETED", "COMPLETED", "FAILED")
