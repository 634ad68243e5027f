"""Tasks that are not due yet, tasks with a deadline, and tasks that are paused."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from players import Scripted, after, entries, of_task, put_on
from stage import accept, configured, control, executed, finished, house_in, statuses, sure, task

from phase21.domain import events as ev
from phase21.store.clock import VIRTUAL_EPOCH_US

pytestmark = pytest.mark.looptime

EPOCH = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=VIRTUAL_EPOCH_US)


def scripted(task_id, **fields):
    return task(task_id, kind="scripted", **fields)


def started_s(house, task_id):
    """When the attempts of a task began, in seconds of the stage's time."""
    return [(entry.at_us - VIRTUAL_EPOCH_US) / 1e6 for entry in of_task(house, task_id, ev.AttemptStarted)]


def row_of(folder, task_id, run_id="r"):
    return {row["task_id"]: row for row in executed(folder, run_id)}[task_id]


# -- not before ----------------------------------------------------------------------------------------------------------


async def test_a_task_is_not_tried_before_its_time(tmp_path):
    """`not_before` in seconds counts from the acceptance; the agent works on others meanwhile."""
    async with house_in(tmp_path, configured(agents={"count": 1})) as house:
        accept(house, "r", [sure("later", not_before=100, priority=1), sure("now")])
        await finished(house)
        assert started_s(house, "now")[0] < 1
        assert [round(at_s) for at_s in started_s(house, "later")] == [100]
        assert 100 <= started_s(house, "later")[0] < 100.1


async def test_not_before_may_be_a_time(tmp_path):
    """A time with its offset is that time, whenever the task was accepted."""
    async with house_in(tmp_path) as house:
        await asyncio.sleep(10)
        accept(house, "r", [sure("t", not_before=(EPOCH + timedelta(seconds=60)).isoformat())])
        await finished(house)
        assert 60 <= started_s(house, "t")[0] < 60.1


async def test_what_is_not_due_outlives_a_restart_and_is_tried_once(tmp_path):
    """A restart neither shortens the wait nor tries a task twice."""
    async with house_in(tmp_path) as house:
        accept(house, "r", [sure("t", not_before=500), sure("u", depends_on=["t"])])
        await after(house, 200)
        await house.stop("test", 1)
    async with house_in(tmp_path) as house:
        await after(house, 1)
        assert not entries(house, ev.AttemptStarted)
        await finished(house)
        assert len(of_task(house, "t", ev.AttemptStarted)) == 1
        assert statuses(executed(tmp_path, "r")) == {"t": "COMPLETED", "u": "COMPLETED"}


async def test_a_clock_that_jumps_is_followed_within_a_minute(tmp_path):
    """A wall clock that is put forward over the time makes the task due by the next look at it."""
    async with house_in(tmp_path) as house:
        accept(house, "r", [sure("t", not_before=7200)])
        await after(house, 5)
        clock = house.journal.clock
        plain = clock.now_us
        clock.now_us = lambda: plain() + 7200 * 1_000_000
        await after(house, 61)
        assert len(of_task(house, "t", ev.AttemptStarted)) == 1


async def test_a_run_that_only_waits_for_its_time_takes_up_no_place(tmp_path):
    """Others begin beside it, however many runs may be side by side."""
    async with house_in(tmp_path, configured(manager={"max_parallel_runs": 1})) as house:
        accept(house, "sleeper", [sure("now"), sure("later", not_before=1000), sure("behind", depends_on=["later"])])
        accept(house, "other", [sure("t", payload={"duration_s": 5})])
        await after(house, 20)
        assert statuses(executed(tmp_path, "other")) == {"t": "COMPLETED"}
        await finished(house)
        assert set(statuses(executed(tmp_path, "sleeper")).values()) == {"COMPLETED"}


async def test_a_run_with_work_beside_what_is_not_due_keeps_its_place(tmp_path):
    """One task that can be tried is enough for a run to count."""
    async with house_in(tmp_path, configured(manager={"max_parallel_runs": 1})) as house:
        accept(house, "r", [sure("long", payload={"duration_s": 20}), sure("later", not_before=1000)])
        await after(house, 1)
        accept(house, "other", [sure("t")])
        await after(house, 10)
        assert not of_task(house, "t", ev.AttemptStarted)
        await after(house, 20)
        assert of_task(house, "t", ev.AttemptStarted)


async def test_a_task_that_is_not_due_can_be_cancelled(tmp_path):
    """Cancelled while it waits for its time, it never starts, and nobody waits for it."""
    async with house_in(tmp_path) as house:
        accept(house, "r", [sure("t", not_before=1000)])
        await after(house, 1)
        control(house, "r", "cancel", "t")
        async with asyncio.timeout(10):
            await finished(house)
        assert statuses(executed(tmp_path, "r")) == {"t": "CANCELLED"}


# -- deadlines -----------------------------------------------------------------------------------------------------------


async def test_a_task_that_waits_past_its_deadline_fails_without_a_start(tmp_path):
    """Whatever it waits for (an agent, its time, another task), at its deadline it is FAILED and says so."""
    async with house_in(tmp_path, configured(agents={"count": 1})) as house:
        put_on(house, Scripted(long="100"))
        accept(house, "r", [
            scripted("long", timeout_s=200, priority=0), scripted("queued", deadline=10),
            scripted("early", not_before=50, deadline=20), scripted("behind", depends_on=["long"], deadline=30),
        ])  # fmt: skip
        await after(house, 40)
        ends = {entry.event.task_id: (entry.at_us - VIRTUAL_EPOCH_US) / 1e6 for entry in entries(house, ev.TaskFailed)}
        assert {name: round(at_s) for name, at_s in ends.items()} == {"queued": 10, "early": 20, "behind": 30}
        await finished(house)
        for name in ("queued", "early", "behind"):
            row = row_of(tmp_path, name)
            assert (row["status"], row["attempts"]) == ("FAILED", 0)
            assert row["error_msg"].startswith("deadline: ")
        assert row_of(tmp_path, "long")["status"] == "COMPLETED"


async def test_an_attempt_gets_no_more_time_than_is_left(tmp_path):
    """Under way at its deadline it is cut short and FAILED; its agent is not blamed for a timeout, and nobody tries again."""
    async with house_in(tmp_path) as house:
        engine = Scripted(t="100")
        put_on(house, engine)
        accept(house, "r", [scripted("t", deadline=10, timeout_s=50, max_attempts=5)])
        await after(house, 10.5)
        assert engine.running == 0
        await finished(house)
        row = row_of(tmp_path, "t")
        assert (row["status"], row["attempts"]) == ("FAILED", 1)
        assert row["error_msg"].startswith("deadline: cut short")
        assert not entries(house, ev.TaskFailed)[0].event.timed_out


async def test_no_retry_is_made_past_a_deadline(tmp_path):
    """A failure whose retry would come too late is the last; one that comes in time is made."""
    async with house_in(tmp_path, configured(retry={"base_delay": 4, "strategy": "linear_backoff"})) as house:
        put_on(house, Scripted(t="fail"))
        accept(house, "r", [scripted("t", deadline=10, max_attempts=9)])
        await finished(house)
        row = row_of(tmp_path, "t")
        assert (row["status"], row["attempts"]) == ("FAILED", 2)
        assert "lost" in row["error_msg"]
        assert row["error_msg"].startswith("deadline: ")


@pytest.mark.parametrize("down_s", [1, 100])
async def test_a_deadline_is_exact_over_a_restart(tmp_path, down_s):
    """It counts from the acceptance, daemon or no daemon."""
    async with house_in(tmp_path) as house:
        put_on(house, Scripted(t="1000"))
        accept(house, "r", [scripted("t", deadline=60, timeout_s=2000)])
        await after(house, 5)
    await asyncio.sleep(down_s)
    async with house_in(tmp_path) as house:
        put_on(house, Scripted(t="1000"))
        await finished(house)
        (failed,) = entries(house, ev.TaskFailed)
        ended_s = (failed.at_us - VIRTUAL_EPOCH_US) / 1e6
        assert round(ended_s) == max(60, 5 + down_s)
        assert failed.event.error_msg.startswith("deadline: ")


async def test_a_deadline_passes_in_a_wave_that_has_not_begun(tmp_path):
    """What is past its deadline when its wave opens is FAILED there."""
    async with house_in(tmp_path) as house:
        accept(house, "r", [sure("a", payload={"duration_s": 20})], [sure("b", deadline=5), sure("c")])
        await finished(house)
        assert statuses(executed(tmp_path, "r")) == {"a": "COMPLETED", "b": "FAILED", "c": "COMPLETED"}


async def test_a_task_done_by_its_deadline_is_as_any_other(tmp_path):
    """A deadline that is met changes nothing."""
    async with house_in(tmp_path) as house:
        accept(house, "r", [sure("t", deadline=10, payload={"duration_s": 5})])
        await finished(house)
        assert statuses(executed(tmp_path, "r")) == {"t": "COMPLETED"}


# -- pauses --------------------------------------------------------------------------------------------------------------


async def test_a_paused_task_is_not_tried_and_the_others_are(tmp_path):
    """Pausing a task lets its attempt under way end; the run goes on without it until it is resumed."""
    async with house_in(tmp_path, configured(agents={"count": 1})) as house:
        engine = Scripted(a="5", b="5", c="5")
        put_on(house, engine)
        accept(house, "r", [scripted("a"), scripted("b"), scripted("c"), scripted("d", depends_on=["b"])])
        await after(house, 1)
        control(house, "r", "pause", "a", "b")
        await after(house, 100)
        assert [name for name, _, _ in engine.started] == ["a", "c"]
        assert of_task(house, "a", ev.TaskCompleted)
        control(house, "r", "resume", "b")
        await finished(house)
        assert [name for name, _, _ in engine.started] == ["a", "c", "b", "d"]


async def test_nobody_waits_for_what_is_paused(tmp_path):
    """What waits for idleness does not wait for paused tasks, and they take up no place among the runs."""
    async with house_in(tmp_path, configured(manager={"max_parallel_runs": 1})) as house:
        accept(house, "r", [sure("a"), sure("b", depends_on=["a"])])
        control(house, "r", "pause", "a")
        accept(house, "other", [sure("t")])
        async with asyncio.timeout(100):
            await finished(house)
        assert statuses(executed(tmp_path, "other")) == {"t": "COMPLETED"}
        control(house, "r", "resume")
        await finished(house)
        assert statuses(executed(tmp_path, "r")) == {"a": "COMPLETED", "b": "COMPLETED"}


async def test_the_pause_of_a_task_outlives_a_restart(tmp_path):
    """A task that was paused is paused after a restart; resuming the whole run resumes it."""
    async with house_in(tmp_path) as house:
        accept(house, "r", [sure("a"), sure("b")])
        control(house, "r", "pause", "a")
        await after(house, 1)
        await house.stop("test", 1)
    async with house_in(tmp_path) as house:
        await after(house, 10)
        assert [entry.event.task_id for entry in entries(house, ev.AttemptStarted)] == ["b"]
        control(house, "r", "resume")
        await finished(house)
        assert statuses(executed(tmp_path, "r")) == {"a": "COMPLETED", "b": "COMPLETED"}


async def test_a_paused_task_can_be_cancelled_and_misses_its_deadline(tmp_path):
    """A pause shields from neither."""
    async with house_in(tmp_path) as house:
        accept(house, "r", [sure("a"), sure("b", deadline=30)])
        control(house, "r", "pause", "a", "b")
        await after(house, 1)
        control(house, "r", "cancel", "a")
        await after(house, 40)
        assert statuses(executed(tmp_path, "r")) == {"a": "CANCELLED", "b": "FAILED"}


async def test_a_task_paused_and_not_due_waits_for_both(tmp_path):
    """Resumed before its time it waits for its time, and paused over its time for its resumption."""
    async with house_in(tmp_path) as house:
        accept(house, "r", [sure("early", not_before=100), sure("late", not_before=100)])
        control(house, "r", "pause", "early", "late")
        await after(house, 50)
        control(house, "r", "resume", "early")
        await after(house, 100)
        control(house, "r", "resume", "late")
        await finished(house)
        assert round(started_s(house, "early")[0]) == 100
        assert 150 <= started_s(house, "late")[0] < 151
