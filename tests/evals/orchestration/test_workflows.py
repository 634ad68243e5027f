"""ORCH-003 to ORCH-009 but for 006: how workflows are carried out, mended, undone, resumed, and told."""

from __future__ import annotations

import asyncio

import pytest
from cutting import journal_of, written
from players import Scripted, after, entries, put_on
from stage import configured, events_of, executed, finished, house_in, statuses

from phase21.domain import events as ev
from phase21.intake.submissions import parse
from phase21.readers.narrator import lines
from phase21.store import codec

pytestmark = pytest.mark.looptime

SETTINGS = configured(agents={"count": 4}, retry={"base_delay": 1.0, "exponential_base": 2.0, "max_attempts": 3})


def submit(house, run_id, name, *tasks, **fields):
    """Submit a workflow of scripted tasks."""
    rows = [{"kind": "scripted", **row} for row in tasks]
    house.receiver.accept(parse(codec.encode({"run_id": run_id, "workflow": {"name": name, "tasks": rows, **fields}})))


def begun_s(house):
    """When each task was first started, in seconds since the first of all."""
    found = {}
    for entry in entries(house, ev.AttemptStarted):
        found.setdefault(entry.event.task_id, entry.at_us / 1e6)
    first = min(found.values())
    return {task_id: round(at_s - first, 3) for task_id, at_s in found.items()}


async def test_orch_003_sequential_execution(tmp_path):
    """ORCH-003: in a sequential workflow each task begins when the one before it has ended."""
    async with house_in(tmp_path, SETTINGS) as house:
        put_on(house, Scripted(a="2", b="3", c="1"))
        submit(house, "r", "one by one", {"task_id": "a"}, {"task_id": "b"}, {"task_id": "c"}, mode="sequential")
        await finished(house)
        assert begun_s(house) == {"a": 0.0, "b": 2.0, "c": 5.0}
        await house.stop("the end", 1)
    assert set(statuses(executed(tmp_path, "r")).values()) == {"COMPLETED"}


async def test_orch_004_parallel_execution(tmp_path):
    """ORCH-004: in a parallel workflow independent tasks run at the same time, as many as there are agents."""
    async with house_in(tmp_path, SETTINGS) as house:
        player = Scripted(**{f"t{n}": "10" for n in range(4)})
        put_on(house, player)
        submit(house, "r", "at once", *({"task_id": f"t{n}"} for n in range(4)), mode="parallel")
        await finished(house)
        assert player.most_running == 4
        assert set(begun_s(house).values()) == {0.0}
        await house.stop("the end", 1)


async def test_orch_005_error_recovery(tmp_path):
    """ORCH-005: a task that fails is tried again with growing delays, and the workflow completes."""
    async with house_in(tmp_path, SETTINGS) as house:
        put_on(house, Scripted(a="fail fail ok"))
        submit(house, "r", "mended", {"task_id": "a"}, {"task_id": "b", "depends_on": ["a"]})
        await finished(house)
        assert [event.delay_s for event in events_of(house, ev.AttemptFailed)] == [1.0, 2.0]
        assert begun_s(house) == {"a": 0.0, "b": 3.0}
        assert house.journal.ledger.runs["r"].record.workflow.state == "completed"
        await house.stop("the end", 1)


async def test_orch_007_saga(tmp_path):
    """ORCH-007: where a task of a saga fails for good, what COMPLETED is undone in the reverse order of its completion."""
    undo = {"kind": "scripted"}
    async with house_in(tmp_path, SETTINGS) as house:
        player = Scripted(slow="5", quick="1", last="fail")
        put_on(house, player)
        submit(
            house, "r", "saga",
            {"task_id": "slow", "compensate": undo}, {"task_id": "quick", "compensate": undo},
            {"task_id": "last", "depends_on": ["slow", "quick"], "compensate": undo}, on_failure="compensate",
        )  # fmt: skip
        await finished(house)
        assert [task_id for task_id, _, _ in player.started if task_id.endswith(".undo")] == ["slow.undo", "quick.undo"]
        assert house.journal.ledger.runs["r"].record.workflow.state == "failed"
        await house.stop("the end", 1)


async def test_orch_008_checkpoint_recovery(tmp_path):
    """ORCH-008: wherever the journal ends, a new start does the rest, and nothing again that had completed."""
    tasks = [{"task_id": "a"}, {"task_id": "b", "depends_on": ["a"]}, {"task_id": "c", "depends_on": ["b"]}]
    async with house_in(tmp_path / "whole", SETTINGS) as house:
        put_on(house, Scripted())
        submit(house, "r", "checkpoints", *tasks)
        await finished(house)
        await house.stop("the end", 1)
    told = journal_of(tmp_path / "whole")
    begin = next(n for n, entry in enumerate(told) if isinstance(entry.event, ev.SubmissionAccepted))
    for cut in range(begin + 1, len(told)):
        folder = tmp_path / f"cut_{cut}"
        written(folder, told[:cut])
        done = {entry.event.task_id for entry in told[:cut] if isinstance(entry.event, ev.TaskCompleted)}
        async with house_in(folder, SETTINGS) as house:
            player = Scripted()
            put_on(house, player)
            async with asyncio.timeout(1000):
                await finished(house)
            assert not done & {task_id for task_id, _, _ in player.started}, cut
            assert house.journal.ledger.runs["r"].record.workflow.state == "completed", cut
            await house.stop("the end", 1)
        assert statuses(executed(folder, "r")) == {"a": "COMPLETED", "b": "COMPLETED", "c": "COMPLETED"}, cut


async def test_orch_009_event_handling(tmp_path):
    """ORCH-009: what happens is told as events, in order, to who follows while it happens."""
    heard = []
    async with house_in(tmp_path, SETTINGS) as house:
        put_on(house, Scripted(a="1", b="fail"))
        follower = house.journal.follow("a listener", ev.WorkflowChanged, ev.AttemptStarted, ev.TaskCompleted, ev.TaskFailed)

        async def listen():
            async for entry in follower:
                heard.extend(line["event"] for line in lines(entry))

        listener = house.group.create_task(listen())
        submit(house, "r", "told", {"task_id": "a"}, {"task_id": "b", "depends_on": ["a"], "max_attempts": 1})
        await finished(house)
        await after(house, 1)
        listener.cancel()
        await house.stop("the end", 1)
    told = [name for name in heard if name not in {"gate_verdict", "attempt_started"}]
    assert told == [
        "state_changed", "workflow_started", "task_started", "task_completed", "task_started", "task_failed",
        "state_changed", "workflow_failed",
    ]  # fmt: skip
