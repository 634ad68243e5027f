"""Pause, resume, cancel, drain, and what a restart makes of what was left."""

from __future__ import annotations

import asyncio

import pytest
from players import Scripted, after, entries, of_task, put_on
from stage import accept, configured, control, executed, finished, house_in, statuses, sure, task

from phase21.domain import events as ev

pytestmark = pytest.mark.looptime


def scripted(task_id, **fields):
    return task(task_id, kind="scripted", **fields)


async def restarted(folder, settings=None, engine=None):
    """Open the state again, finish, and give the final rows."""
    async with house_in(folder, settings) as house:
        put_on(house, engine or Scripted())
        async with asyncio.timeout(1000):
            await finished(house)
        await house.stop("test", 1)
    return {row["task_id"]: row for row in executed(folder, "r") if row["status"] != "DEFERRED"}


async def test_cancel_reaches_what_waits_what_runs_and_what_is_not_opened_yet(tmp_path):
    """Cancelled, a running attempt is cut short, a waiting task never starts, a later wave's task neither."""
    async with house_in(tmp_path, configured(agents={"count": 1})) as house:
        engine = Scripted(running="100", retrying="fail ok")
        put_on(house, engine)
        accept(house, "r", [scripted("running", timeout_s=200), scripted("waiting")], [scripted("later"), scripted("kept")])
        await after(house, 1)
        control(house, "r", "cancel", "running", "waiting", "later")
        await after(house, 0.1)
        assert engine.running == 0
        await finished(house)
        assert statuses(executed(tmp_path, "r")) == {
            "running": "CANCELLED", "waiting": "CANCELLED", "later": "CANCELLED", "kept": "COMPLETED",
        }  # fmt: skip
        assert [name for name, _, _ in engine.started] == ["running", "kept"]


async def test_cancel_reaches_a_task_that_waits_for_its_retry(tmp_path):
    """A retry that is due later is not made."""
    async with house_in(tmp_path, configured(retry={"base_delay": 10})) as house:
        engine = Scripted(t="fail ok")
        put_on(house, engine)
        accept(house, "r", [scripted("t")])
        await after(house, 1)
        control(house, "r", "cancel", "t")
        await finished(house)
        (row,) = executed(tmp_path, "r")
        assert (row["status"], row["attempts"]) == ("CANCELLED", 1)
        assert len(engine.started) == 1


async def test_cancel_of_what_has_ended_changes_nothing(tmp_path):
    """An outcome that is recorded stays."""
    async with house_in(tmp_path) as house:
        accept(house, "r", [sure("t")])
        await finished(house)
        control(house, "r", "cancel", "t")
        await finished(house)
        assert statuses(executed(tmp_path, "r")) == {"t": "COMPLETED"}
        assert len(entries(house, ev.WaveOpened)) == 1


async def test_a_pause_lets_attempts_end_and_starts_nothing(tmp_path):
    """Paused, attempts under way end, nothing new starts; resumed, all goes on."""
    async with house_in(tmp_path, configured(agents={"count": 1})) as house:
        engine = Scripted(a="5", b="5")
        put_on(house, engine)
        accept(house, "r", [scripted("a"), scripted("b")], [scripted("c")])
        await after(house, 1)
        control(house, "r", "pause")
        await after(house, 100)
        assert [name for name, _, _ in engine.started] == ["a"]
        assert of_task(house, "a", ev.TaskCompleted)
        control(house, "r", "resume")
        await finished(house)
        assert [name for name, _, _ in engine.started] == ["a", "b", "c"]


async def test_paused_runs_hold_up_no_others(tmp_path):
    """A paused run takes up no place among the runs side by side, and nobody who waits for idleness waits for it."""
    async with house_in(tmp_path, configured(manager={"max_parallel_runs": 1})) as house:
        put_on(house, Scripted(a="5"))
        accept(house, "r", [scripted("a"), scripted("b", depends_on=["a"])])
        await after(house, 1)
        control(house, "r", "pause")
        accept(house, "other", [sure("t")])
        async with asyncio.timeout(100):
            await finished(house)
        assert statuses(executed(tmp_path, "other")) == {"t": "COMPLETED"}
        control(house, "r", "resume")
        await finished(house)
        assert set(statuses(executed(tmp_path, "r")).values()) == {"COMPLETED"}


async def test_a_pause_outlives_a_restart(tmp_path):
    """A run that was paused is paused after a restart, until it is resumed."""
    async with house_in(tmp_path) as house:
        accept(house, "r", [sure("t")])
        control(house, "r", "pause")
        await after(house, 1)
        await house.stop("test", 1)
    async with house_in(tmp_path) as house:
        await after(house, 10)
        assert not entries(house, ev.AttemptStarted)
        control(house, "r", "resume")
        await finished(house)
        assert statuses(executed(tmp_path, "r")) == {"t": "COMPLETED"}


async def test_a_drain_lets_attempts_end_and_leaves_the_rest_for_the_next_start(tmp_path):
    """Stopped, what is under way ends and is recorded; what was not started waits in the journal."""
    async with house_in(tmp_path, configured(agents={"count": 1})) as house:
        engine = Scripted(a="5")
        put_on(house, engine)
        accept(house, "r", [scripted("a"), scripted("b")], [scripted("c")])
        await after(house, 1)
        await house.stop("test", 30)
        assert [name for name, _, _ in engine.started] == ["a"]
        assert of_task(house, "a", ev.TaskCompleted)
        assert not entries(house, ev.TaskInterrupted)
    found = await restarted(tmp_path)
    assert {name: (row["status"], row["attempts"]) for name, row in found.items()} == {
        "a": ("COMPLETED", 1), "b": ("COMPLETED", 1), "c": ("COMPLETED", 1),
    }  # fmt: skip


async def test_a_drain_that_runs_out_cuts_short_and_counts_as_interrupted(tmp_path):
    """An interrupted attempt counts in `attempts`, not against `max_attempts`."""
    async with house_in(tmp_path) as house:
        put_on(house, Scripted(t="100"))
        accept(house, "r", [scripted("t", timeout_s=200, max_attempts=2)])
        await after(house, 1)
        await house.stop("test", 5)
        assert len(of_task(house, "t", ev.TaskInterrupted)) == 1
    found = await restarted(tmp_path, engine=Scripted(t="fail fail ok"))
    assert (found["t"]["status"], found["t"]["attempts"]) == ("COMPLETED", 3)


@pytest.mark.parametrize("how", ["crash", "drain"])
async def test_what_may_not_run_twice_is_failed_after_an_interruption(tmp_path, how):
    """A task with `idempotent: false` that may have run is not started again, and says that it was interrupted."""
    engine = Scripted(t="100")
    async with house_in(tmp_path) as house:
        put_on(house, engine)
        accept(house, "r", [scripted("t", timeout_s=200, idempotent=False)])
        await after(house, 1)
        if how == "drain":
            await house.stop("test", 1)
    again = Scripted()
    found = await restarted(tmp_path, engine=again)
    assert found["t"]["status"] == "FAILED"
    assert "interrupted" in found["t"]["error_msg"]
    assert again.started == []


async def test_what_may_not_run_twice_is_failed_after_a_timeout_and_retried_after_a_failure(tmp_path):
    """A timeout leaves open whether it ran; a failure whose end was seen does not."""
    async with house_in(tmp_path) as house:
        put_on(house, Scripted(late="hang ok", failing="fail ok"))
        accept(house, "r", [scripted("late", timeout_s=1, idempotent=False), scripted("failing", idempotent=False)])
        await finished(house)
        found = {row["task_id"]: row for row in executed(tmp_path, "r")}
        assert (found["late"]["status"], found["late"]["attempts"]) == ("FAILED", 1)
        assert "interrupted" in found["late"]["error_msg"]
        assert (found["failing"]["status"], found["failing"]["attempts"]) == ("COMPLETED", 2)


async def test_the_start_of_what_may_not_run_twice_is_durable_before_it_starts(tmp_path):
    """A power cut cannot start it twice: when its engine is called, its start is on disk."""
    async with house_in(tmp_path) as house:
        seen = []

        class Looking:
            async def perform(self, attempt):
                seen.append(
                    [entry.event.attempt for entry in house.journal.lookup.entries() if isinstance(entry.event, ev.AttemptStarted)]
                )
                from phase21.domain.tasks import Outcome

                return Outcome(success=True)

        put_on(house, Looking())
        accept(house, "r", [scripted("t", idempotent=False)])
        await finished(house)
        assert seen == [[1]]


async def test_three_interruptions_fail_a_task(tmp_path):
    """What was under way at three crashes may be what kills the daemon."""
    for _ in range(3):
        async with house_in(tmp_path) as house:
            put_on(house, Scripted(t="100"))
            if not house.journal.ledger.runs:
                accept(house, "r", [scripted("t", timeout_s=200)])
            await after(house, 1)
    again = Scripted()
    found = await restarted(tmp_path, engine=again)
    assert (found["t"]["status"], found["t"]["attempts"]) == ("FAILED", 3)
    assert "interrupted" in found["t"]["error_msg"]
    assert again.started == []


async def test_after_a_restart_with_fewer_agents_nothing_is_stranded(tmp_path):
    """What was assigned to an agent that is gone goes to another; what nobody can do any more is FAILED."""
    fleet = [{"id": "a"}, {"id": "b", "capabilities": ["gpu"]}]
    async with house_in(tmp_path, configured(agents={"fleet": fleet})) as house:
        put_on(house, Scripted(a1="100", b1="100"))
        waves = [scripted("a1", agent_id="a", timeout_s=200), scripted("b1", timeout_s=200), scripted("a2"), scripted("b2"),
                 scripted("g", capabilities=["gpu"])]  # fmt: skip
        accept(house, "r", waves)
        await after(house, 1)
        await house.stop("test", 1)
    found = await restarted(tmp_path, configured(agents={"fleet": [{"id": "a"}]}))
    assert {name: row["status"] for name, row in found.items()} == {
        "a1": "COMPLETED", "b1": "COMPLETED", "a2": "COMPLETED", "b2": "COMPLETED", "g": "FAILED",
    }  # fmt: skip
    assert found["g"]["error_msg"].startswith("safety: ")


async def test_offline_does_not_outlive_a_restart(tmp_path):
    """After a restart every configured agent is available, and what waited for one goes on at once."""
    settings = configured(agents={"count": 1, "probation": 10_000}, retry={"strategy": "no_retry"})
    async with house_in(tmp_path, settings) as house:
        put_on(house, Scripted(h1="hang", h2="hang", h3="hang"))
        accept(house, "r", [scripted(name, timeout_s=1) for name in ("h1", "h2", "h3")], [scripted("t")])
        await after(house, 20)
        assert house.journal.ledger.agents["agent_0"].offline
        await house.stop("test", 1)
    begun = asyncio.get_running_loop().time()
    found = await restarted(tmp_path, settings)
    assert found["t"]["status"] == "COMPLETED"
    assert asyncio.get_running_loop().time() - begun < 100
