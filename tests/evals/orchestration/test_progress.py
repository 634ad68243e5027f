"""ORCH-010 and ORCH-011: in which state workflows are, and how far they and their tasks are, as those who look from beside see it."""

from __future__ import annotations

import asyncio
import sys
from types import ModuleType

import pytest
from players import Scripted, after, put_on
from stage import configured, control, events_of, executed, finished, house_in, statuses

from phase21.domain import events as ev
from phase21.intake.submissions import parse
from phase21.readers.inquiries.flows import Flow
from phase21.readers.inquiries.spectator import Spectator, workflow_of
from phase21.store import codec

pytestmark = pytest.mark.looptime

MODULE = "orch_progress_handlers"
SETTINGS = configured(agents={"count": 2}, retry={"base_delay": 1.0, "max_attempts": 2}, handlers={"python_modules": [MODULE]})


def submit(house, run_id, name, *tasks, **fields):
    """Submit a workflow."""
    house.receiver.accept(parse(codec.encode({"run_id": run_id, "workflow": {"name": name, "tasks": list(tasks), **fields}})))


def step(task_id, *needs, kind="scripted", **fields):
    return {"task_id": task_id, "kind": kind, "depends_on": list(needs), **fields}


def standing(house, run_id):
    """A workflow's standing, as `status` says it."""
    return workflow_of(house.journal.ledger.runs[run_id])


@pytest.fixture
def reporter(monkeypatch):
    """A python handler that works for as many seconds as it is told, and says each second how far it is."""

    async def work(ctx, seconds, breaks_at=None):
        for second in range(seconds):
            if second == breaks_at and ctx.attempt == 1:
                raise RuntimeError("broke")
            ctx.progress(100 * second / seconds, f"second {second}")
            await asyncio.sleep(1)
        return {"seconds": seconds}

    module = ModuleType(MODULE)
    work.__module__ = MODULE
    module.work = work
    monkeypatch.setitem(sys.modules, MODULE, module)


def working(task_id, seconds, *needs, **kwargs):
    """A task of that handler, which is estimated right."""
    payload = {"callable": f"{MODULE}:work", "kwargs": {"seconds": seconds, **kwargs}}
    return step(task_id, *needs, kind="python", payload=payload, estimated_duration_s=float(seconds))


async def test_orch_010_state_tracking(tmp_path):
    """ORCH-010: a workflow goes from pending through running and paused to its end, each change an event with what was before."""
    async with house_in(tmp_path, SETTINGS) as house:
        put_on(house, Scripted(a="4", b="4", bad="fail"))
        submit(house, "good", "well", step("a"), step("b", "a"))
        submit(house, "bad", "ill", step("bad"), step("never", "bad"))
        assert {standing(house, run_id)["state"] for run_id in ("good", "bad")} == {"pending"}
        await after(house, 1)
        assert standing(house, "good")["state"] == "running"
        control(house, "good", "pause")
        await after(house, 9)
        assert standing(house, "good")["state"] == "paused"
        assert house.journal.ledger.runs["good"].waves[1].tasks["b"].status == "PENDING"
        control(house, "good", "resume")
        await finished(house)
        changes = [(event.run_id, event.previous, event.state) for event in events_of(house, ev.WorkflowChanged)]
        assert [change[1:] for change in changes if change[0] == "good"] == [
            ("pending", "running"), ("running", "paused"), ("paused", "running"), ("running", "completed"),
        ]  # fmt: skip
        assert [change[1:] for change in changes if change[0] == "bad"] == [("pending", "running"), ("running", "failed")]
        assert "bad did not succeed" in standing(house, "bad")["reason"]
        await house.stop("the end", 1)
    assert statuses(executed(tmp_path, "bad")) == {"bad": "FAILED", "never": "SKIPPED"}


async def test_orch_010_what_is_skipped_is_no_failure(tmp_path):
    """ORCH-010: a SKIPPED task has a row with its reason and no agent, counts in no figure, and teaches nothing."""
    async with house_in(tmp_path, SETTINGS) as house:
        put_on(house, Scripted())
        submit(house, "r", "w", step("a"), step("mend", {"task": "a", "when": "failed"}))
        await finished(house)
        (health,) = events_of(house, ev.HealthScored)
        assert (health.health.metrics.success_rate, health.health.metrics.started_tasks) == (1.0, 1)
        taught = [made.task_id for event in events_of(house, ev.SignalsSent) for made in event.validations]
        assert taught == ["a"]
        await house.stop("the end", 1)
    (row,) = [row for row in executed(tmp_path, "r") if row["task_id"] == "mend"]
    assert (row["status"], row["agent_id"], row["success"], row["error_msg"], row["attempts"]) == ("SKIPPED", None, None, None, 0)
    assert row["reason"] == "a is COMPLETED, and this runs only where it FAILED"
    report = (tmp_path / "outputs" / "r" / "PHASE_21_AUTONOMOUS_EXECUTION.md").read_text()
    assert "| mend | a is COMPLETED, and this runs only where it FAILED |" in report
    assert "| Skipped by the workflow | 1 |" in report
    assert '["mend<br/>skipped"]:::skipped' in report
    summary = codec.decode((tmp_path / "outputs" / "r" / "phase21_execution_summary.json").read_bytes())
    assert (summary["skipped_tasks"], summary["workflow"]["state"]) == (1, "completed")


async def test_orch_011_progress_tracking(tmp_path, reporter):
    """ORCH-011: tasks report 0 to 100, the workflow is as far as its tasks weighed by their estimates, live and from beside."""
    async with house_in(tmp_path, SETTINGS) as house:
        submit(house, "r", "w", working("long", 8), working("short", 2), working("last", 10, "long", "short"))
        assert standing(house, "r")["progress"] == 0.0
        await after(house, 4.5)
        tasks = house.journal.ledger.runs["r"].waves[1].tasks
        assert (tasks["long"].percent, tasks["long"].note, tasks["short"].status) == (50.0, "second 4", "COMPLETED")
        assert standing(house, "r")["progress"] == pytest.approx(100 * (4 + 2) / 20)
        await house.journal.durable()
        with Spectator(house.journal.lookup.path.parent) as spectator:
            spectator.refresh()
            (run,) = spectator.status(tmp_path / "state" / "queue.jsonl", "r")["runs"]
            assert run["workflow"] == {"name": "w", "state": "running", "progress": pytest.approx(30.0), "reason": None}
            flow = Flow("r")
            for entry in spectator.entries(run_id="r"):
                flow.fold(entry)
            assert flow.chart().progress == pytest.approx(30.0)
        await finished(house)
        assert standing(house, "r") == {"name": "w", "state": "completed", "progress": 100.0, "reason": None}
        said = [event.percent for event in events_of(house, ev.TaskProgressed) if event.task_id == "long"]
        assert said == sorted(said)
        assert said[:2] == [0.0, 12.5]
        await house.stop("the end", 1)


async def test_orch_011_a_new_attempt_begins_anew(tmp_path, reporter):
    """ORCH-011: what a failed attempt had said of its progress does not count for the next one."""
    async with house_in(tmp_path, SETTINGS) as house:
        submit(house, "r", "w", working("a", 4, breaks_at=3))
        await after(house, 2.5)
        assert standing(house, "r")["progress"] == pytest.approx(50.0)
        await after(house, 1)
        assert standing(house, "r")["progress"] == 0.0
        await finished(house)
        assert standing(house, "r")["progress"] == 100.0
        await house.stop("the end", 1)


async def test_orch_011_progress_over_a_restart(tmp_path, reporter):
    """ORCH-011: what has ended before a restart still counts after it."""
    async with house_in(tmp_path, SETTINGS) as house:
        submit(house, "r", "w", working("a", 2), working("b", 6, "a"))
        await after(house, 5)
        await house.stop("a restart", 0)
    async with house_in(tmp_path, SETTINGS) as house:
        assert standing(house, "r")["progress"] == pytest.approx(25.0)
        await finished(house)
        assert standing(house, "r")["progress"] == 100.0
        await house.stop("the end", 1)
