"""ORCH-016 to ORCH-018: priorities, retries and times of the one task queue, on the harness itself."""

from __future__ import annotations

import asyncio

import pytest
from cutting import journal_of
from players import Scripted, after, entries, of_task, put_on
from stage import configured, executed, finished, house_in, statuses

from phase21.domain import events as ev
from phase21.intake.submissions import parse
from phase21.store import codec
from phase21.store.clock import VIRTUAL_EPOCH_US

pytestmark = pytest.mark.looptime


def submit(house, **submission):
    """Hand in a line of the queue file."""
    house.receiver.accept(parse(codec.encode(submission)))


def row(task_id, **fields):
    return {"task_id": task_id, "kind": "scripted", **fields}


def began_s(house, task_id):
    """When each attempt of a task began, in seconds of the stage's time."""
    return [round((entry.at_us - VIRTUAL_EPOCH_US) / 1e6, 1) for entry in of_task(house, task_id, ev.AttemptStarted)]


async def test_orch_016_priority_execution(tmp_path):
    """ORCH-016: of what waits the most urgent goes first, by name or by number, and of the same urgency the first that came."""
    async with house_in(tmp_path, configured(agents={"count": 1})) as house:
        engine = Scripted(**dict.fromkeys(("low", "normal", "second", "high", "urgent", "later", "far"), "1"))
        put_on(house, engine)
        submit(house, run_id="r", tasks=[
            row("low", priority="LOW"), row("normal"), row("second", priority="NORMAL"), row("far", priority=17),
            row("high", priority="HIGH"), row("urgent", priority="URGENT"), row("later", priority=0, depends_on=["high"]),
        ])  # fmt: skip
        await finished(house)
        assert [name for name, _, _ in engine.started] == ["urgent", "high", "normal", "later", "second", "low", "far"]


async def test_orch_017_retry_logic(tmp_path):
    """ORCH-017: what fails is tried again after growing delays, so often as is allowed, over a restart; what succeeds is not."""
    settings = configured(retry={"base_delay": 10.0, "exponential_base": 2.0, "max_attempts": 3})
    async with house_in(tmp_path, settings) as house:
        put_on(house, Scripted(mends="fail fail ok", fails="fail", once="fail", fine="ok"))
        tasks = [row("mends"), row("fails"), row("once", max_attempts=1), row("fine")]
        submit(house, run_id="r", tasks=tasks)
        await after(house, 15)
        assert began_s(house, "mends") == [0.0, 10.0]
        await house.stop("half way", 1)
    async with house_in(tmp_path, settings) as house:
        put_on(house, Scripted(mends="fail fail ok", fails="fail", once="fail", fine="ok"))
        await finished(house)
        assert began_s(house, "mends") == began_s(house, "fails") == [0.0, 10.0, 30.0]
        found = {one["task_id"]: (one["status"], one["attempts"]) for one in executed(tmp_path, "r")}
        assert found == {"mends": ("COMPLETED", 3), "fails": ("FAILED", 3), "once": ("FAILED", 1), "fine": ("COMPLETED", 1)}


async def test_orch_018_job_scheduling(tmp_path):
    """ORCH-018: a job is done at its time, or by its deadline or not at all, or again and again, each time once, over a restart."""
    settings = configured(agents={"count": 2})
    async with house_in(tmp_path, settings) as house:
        put_on(house, Scripted(long="300"))
        late = row("late", depends_on=["long"], deadline=100)
        submit(house, run_id="at", tasks=[row("long", timeout_s=1000), row("delayed", not_before=600), late])
        submit(house, run_id="often", every={"interval_s": 400}, tasks=[row("tick")])
        house._read(house.timekeeper.run(asyncio.Event()), "timekeeper")
        await after(house, 500)
        await house.stop("half way", 1)
    async with house_in(tmp_path, settings) as house:
        put_on(house, Scripted())
        house._read(house.timekeeper.run(asyncio.Event()), "timekeeper")
        await after(house, 1000)
        assert began_s(house, "delayed") == [600.0]
        assert statuses(executed(tmp_path, "at")) == {"long": "COMPLETED", "delayed": "COMPLETED", "late": "FAILED"}
        assert {one["task_id"]: one["attempts"] for one in executed(tmp_path, "at")}["late"] == 0
        fired = [entry.event.fired for entry in entries(house, ev.ScheduleFired)]
        assert [entry.event.run_id for entry in entries(house, ev.TaskCompleted) if entry.event.task_id == "tick"] == fired
        assert [(entry.event.due_us - VIRTUAL_EPOCH_US) // 1_000_000 for entry in entries(house, ev.ScheduleFired)] == [
            400,
            800,
            1200,
        ]
        await house.stop("the end", 1)
    assert sum(isinstance(entry.event, ev.ScheduleFired) for entry in journal_of(tmp_path)) == 3
