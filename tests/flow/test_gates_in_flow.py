"""The gates in a wave: dependencies, risk, quotas, what waits and what is refused."""

from __future__ import annotations

import asyncio
import importlib.metadata
import itertools

import pytest
from players import Scripted, after, entries, of_task, put_on
from stage import accept, configured, control, doomed, executed, finished, house_in, rows, statuses, sure, task

from phase21.domain import events as ev
from phase21.domain.judgements import Ruling, Verdict
from phase21.engines import offers
from phase21.store import codec

pytestmark = pytest.mark.looptime

OUTCOMES = (ev.TaskCompleted, ev.TaskFailed, ev.TaskCancelled, ev.TaskDeferred)


def scripted(task_id, **fields):
    return task(task_id, kind="scripted", **fields)


def ends(folder, run_id="r"):
    return {(row["task_id"], row["wave"]): row["status"] for row in executed(folder, run_id)}


async def test_a_dependency_under_way_in_the_same_wave_is_waited_for(tmp_path):
    """A task starts when all that it depends on has COMPLETED, without holding up its agent."""
    async with house_in(tmp_path, configured(agents={"count": 1})) as house:
        engine = Scripted(a="2", b="3")
        put_on(house, engine)
        accept(house, "r", [scripted("c", depends_on=["a", "b"], priority=1), scripted("a"), scripted("b"), scripted("free")])
        await finished(house)
        assert [name for name, _, _ in engine.started][:2] == ["a", "b"]
        c_started = of_task(house, "c", ev.AttemptStarted)[0].position
        assert all(of_task(house, name, ev.TaskCompleted)[0].position < c_started for name in "ab")


async def test_a_dependency_of_an_earlier_wave_is_known(tmp_path):
    """What COMPLETED in a wave before, closed or not, satisfies a dependency; what FAILED refuses it."""
    async with house_in(tmp_path) as house:
        accept(house, "r", [sure("a"), doomed("bad")], [sure("b", depends_on=["a"]), sure("c", depends_on=["bad"])])
        await finished(house)
        found = ends(tmp_path)
        assert (found["b", 2], found["c", 2]) == ("COMPLETED", "FAILED")
        assert "safety:" in next(row["error_msg"] for row in executed(tmp_path, "r") if row["task_id"] == "c")


@pytest.mark.parametrize(("first", "second"), [("bad", "FAILED"), ("gone", "FAILED"), ("risky", "DEFERRED")])
async def test_what_became_of_a_dependency_decides(tmp_path, first, second):
    """A FAILED or CANCELLED dependency makes a task FAILED (`safety:`), a DEFERRED one makes it DEFERRED."""
    async with house_in(tmp_path) as house:
        put_on(house, Scripted())
        needed = {"bad": doomed("bad"), "gone": sure("gone"), "risky": sure("risky", risk_level="HIGH")}[first]
        accept(house, "r", [sure("b", depends_on=[first]), needed])
        if first == "gone":
            control(house, "r", "cancel", "gone")
        await finished(house)
        row = next(row for row in executed(tmp_path, "r") if row["task_id"] == "b")
        assert row["status"] == second
        assert row["attempts"] == 0
        if second == "FAILED":
            assert row["error_msg"].startswith("safety: ")


async def test_a_chain_across_a_wave_falls_whole(tmp_path):
    """A failure reaches everything behind it in the wave."""
    async with house_in(tmp_path) as house:
        accept(house, "r", [doomed("t0"), *[sure(f"t{n}", depends_on=[f"t{n - 1}"]) for n in range(1, 30)]])
        await finished(house)
        assert set(statuses(executed(tmp_path, "r")).values()) == {"FAILED"}


@pytest.mark.parametrize(
    ("fields", "settings", "status"),
    [
        ({"predicted_success_rate": 0.5}, {}, "COMPLETED"),
        ({"predicted_success_rate": 0.49}, {}, "DEFERRED"),
        ({"predicted_success_rate": 0.49, "approved": True}, {}, "DEFERRED"),
        ({"risk_level": "MEDIUM", "predicted_success_rate": 0.75}, {}, "DEFERRED"),
        ({"risk_level": "MEDIUM", "predicted_success_rate": 0.75, "approved": True}, {}, "COMPLETED"),
        ({"risk_level": "MEDIUM", "predicted_success_rate": 0.75}, {"strict": False}, "COMPLETED"),
        ({"risk_level": "MEDIUM", "predicted_success_rate": 0.74}, {"strict": False}, "DEFERRED"),
        ({"risk_level": "HIGH", "predicted_success_rate": 0.95}, {"strict": False}, "DEFERRED"),
        ({"risk_level": "HIGH", "predicted_success_rate": 0.9, "approved": True}, {}, "COMPLETED"),
        ({"risk_level": "HIGH", "predicted_success_rate": 0.89, "approved": True}, {}, "DEFERRED"),
    ],
)
async def test_risk_asks_for_confidence_and_approval(tmp_path, fields, settings, status):
    """LOW needs 0.5; MEDIUM 0.75 and, if strict, approval; HIGH 0.9 and approval; what falls short is DEFERRED."""
    async with house_in(tmp_path, configured(safety=settings)) as house:
        accept(house, "r", [sure("t", **fields)])
        await finished(house)
        assert statuses(executed(tmp_path, "r")) == {"t": status}


async def test_a_dry_run_passes_the_risk_gate_and_executes_nothing_real(tmp_path):
    """In a dry run every kind is simulated, whatever the risk."""
    async with house_in(tmp_path, configured(execution={"dry_run": True})) as house:
        argv = ["touch", str(tmp_path / "real")]
        risky = task("t", kind="command", payload={"argv": argv}, risk_level="HIGH", predicted_success_rate=1.0)
        accept(house, "r", [risky])
        await finished(house)
        assert statuses(executed(tmp_path, "r")) == {"t": "COMPLETED"}
        assert not (tmp_path / "real").exists()


async def test_what_is_approved_runs_in_the_runs_next_wave(tmp_path):
    """A DEFERRED row stays where it was made; approved, the task runs in the next wave of the run."""
    async with house_in(tmp_path) as house:
        put_on(house, Scripted(slow="10"))
        accept(house, "r", [sure("risky", risk_level="HIGH", predicted_success_rate=0.6), scripted("slow")], [sure("next")])
        await after(house, 1)
        control(house, "r", "approve", "risky")
        await finished(house)
        assert ends(tmp_path) == {
            ("risky", 1): "DEFERRED", ("slow", 1): "COMPLETED", ("risky", 2): "COMPLETED", ("next", 2): "COMPLETED",
        }  # fmt: skip


async def test_what_is_approved_after_the_last_wave_gets_a_wave_of_its_own(tmp_path):
    """Approved when nothing is left to do, a task runs in a new wave, whatever the confidence."""
    async with house_in(tmp_path) as house:
        accept(house, "r", [sure("risky", risk_level="HIGH", predicted_success_rate=0.01)])
        await finished(house)
        control(house, "r", "approve", "risky")
        await finished(house)
        assert ends(tmp_path) == {("risky", 1): "DEFERRED", ("risky", 2): "COMPLETED"}
        summary = (tmp_path / "outputs/r/phase21_execution_summary.json").read_text()
        assert '"deferred_tasks": 0' in summary
        assert '"completed_tasks": 1' in summary


async def test_a_deferred_task_that_is_cancelled_ends_cancelled(tmp_path):
    """A person may also say no: the task's final row is CANCELLED, once."""
    async with house_in(tmp_path) as house:
        accept(house, "r", [sure("risky", risk_level="HIGH")])
        await finished(house)
        control(house, "r", "cancel", "risky")
        await finished(house)
        assert ends(tmp_path) == {("risky", 1): "DEFERRED", ("risky", 2): "CANCELLED"}
        assert not house.journal.ledger.runs["r"].record.deferred


async def test_an_approved_task_knows_what_became_of_its_dependencies_of_another_wave(tmp_path):
    """What a deferred task depends on is remembered beyond its wave: done, it runs when approved."""
    async with house_in(tmp_path) as house:
        accept(house, "r", [sure("a"), sure("b", depends_on=["a"], risk_level="HIGH", predicted_success_rate=1.0)])
        await finished(house)
        control(house, "r", "approve", "b")
        async with asyncio.timeout(100):
            await finished(house)
        assert ends(tmp_path)["b", 2] == "COMPLETED"


async def test_approval_of_a_task_whose_dependency_is_still_deferred_does_not_hang(tmp_path):
    """Approved before what it depends on, a task is DEFERRED again; approved both, both run in order."""
    async with house_in(tmp_path) as house:
        accept(house, "r", [sure("a", risk_level="HIGH"), sure("b", depends_on=["a"])])
        await finished(house)
        control(house, "r", "approve", "b")
        async with asyncio.timeout(100):
            await finished(house)
        assert ends(tmp_path) == {("a", 1): "DEFERRED", ("b", 1): "DEFERRED", ("b", 2): "DEFERRED"}
        control(house, "r", "approve", "a", "b")
        async with asyncio.timeout(100):
            await finished(house)
        assert (ends(tmp_path)["a", 3], ends(tmp_path)["b", 3]) == ("COMPLETED", "COMPLETED")


async def test_a_refusal_is_final_and_an_anomaly(tmp_path):
    """REJECTED: FAILED with `safety:`, not retried, and a `safety_violation`."""
    async with house_in(tmp_path) as house:
        accept(house, "r", [task("t", kind="nothing"), task("odd", payload={"duration_s": "long"})])
        await finished(house)
        for row in executed(tmp_path, "r"):
            assert (row["status"], row["attempts"], row["start_time"]) == ("FAILED", 0, None)
            assert row["error_msg"].startswith("safety: ")
        assert [row["anomaly_type"] for row in rows(tmp_path / "outputs/r/anomalies.jsonl")].count("safety_violation") == 2
        decisions = rows(tmp_path / "outputs/r/safety_gate_decisions.jsonl")
        assert {(row["verdict"], row["gate"]) for row in decisions} == {("REJECTED", "validation")}


async def test_what_nobody_can_do_stands_under_unassigned(tmp_path):
    """A task that no configured agent can do is FAILED (`safety:`) with `agent_id` null under `unassigned`."""
    async with house_in(tmp_path) as house:
        accept(house, "r", [sure("pinned", agent_id="agent_9"), sure("gpu", capabilities=["gpu"]), sure("t")])
        await finished(house)
        found = rows(tmp_path / "outputs/r/wave_1/unassigned/executed_tasks.jsonl")
        assert [(row["task_id"], row["agent_id"], row["status"]) for row in found] == [
            ("pinned", None, "FAILED"), ("gpu", None, "FAILED"),
        ]  # fmt: skip
        assert all(row["error_msg"].startswith("safety: ") for row in found)


async def test_the_rate_limit_spreads_attempts_without_a_line_for_each_look(tmp_path):
    """At 2 attempts a second, 8 tasks take three seconds and a half; each waits with one line at most."""
    async with house_in(tmp_path, configured(safety={"rate_limit": 2})) as house:
        accept(house, "r", [sure(f"t{n}") for n in range(8)])
        await finished(house)
        starts = [entry.at_us for entry in entries(house, ev.AttemptStarted)]
        assert starts[-1] - starts[0] == pytest.approx(3_500_000, abs=20_000)
        assert all(later - earlier >= 499_000 for earlier, later in itertools.pairwise(starts))
        for n in range(8):
            assert len(of_task(house, f"t{n}", ev.TaskHeld)) <= 1
        assert set(statuses(executed(tmp_path, "r")).values()) == {"COMPLETED"}


async def test_a_run_starts_no_more_than_its_quota_of_tasks(tmp_path):
    """`max_tasks_per_run` counts tasks over the run's waves; retries are no new tasks; what is over it is REJECTED."""
    async with house_in(tmp_path, configured(safety={"max_tasks_per_run": 3}, agents={"count": 1})) as house:
        accept(house, "r", [doomed("a"), sure("b")], [sure("c"), sure("d")])
        await finished(house)
        assert statuses(executed(tmp_path, "r")) == {"a": "FAILED", "b": "COMPLETED", "c": "COMPLETED", "d": "FAILED"}
        row = next(row for row in executed(tmp_path, "r") if row["task_id"] == "d")
        assert "max_tasks_per_run" in row["error_msg"]
        assert next(row for row in executed(tmp_path, "r") if row["task_id"] == "a")["attempts"] == 3


async def test_a_run_takes_no_longer_than_its_quota(tmp_path):
    """What would start later than `max_run_seconds` after the run's first start is REJECTED."""
    async with house_in(tmp_path, configured(safety={"max_run_seconds": 5}, agents={"count": 1})) as house:
        accept(house, "r", [sure(f"t{n}", payload={"duration_s": 2}) for n in range(5)])
        await finished(house)
        assert sorted(statuses(executed(tmp_path, "r")).values()) == ["COMPLETED"] * 3 + ["FAILED"] * 2


async def test_want_of_disk_waits_and_passes(tmp_path):
    """A cause that passes by itself is waited for within the wave, with one line however long it lasts."""
    async with house_in(tmp_path, configured(agents={"count": 1})) as house:
        free = [0.0]

        def look(now):
            house.executor._resources.free_disk_mb = free[0]
            house.executor._resources.free_memory_mb = 1e6

        house.executor._resources.look = look
        accept(house, "r", [sure("t")])
        await after(house, 30)
        assert len(of_task(house, "t", ev.TaskHeld)) == 1
        assert not of_task(house, "t", ev.AttemptStarted)
        free[0] = 1000.0
        await finished(house)
        assert statuses(executed(tmp_path, "r")) == {"t": "COMPLETED"}


async def test_a_task_that_was_never_started_teaches_nothing(tmp_path):
    """Refusals, deferrals and cancellations leave no validation signal and no evidence."""
    async with house_in(tmp_path) as house:
        accept(
            house,
            "r",
            [task("unknown", kind="nothing"), sure("risky", risk_level="HIGH"), sure("gone"), sure("after", depends_on=["gone"])],
        )
        control(house, "r", "cancel", "gone")
        await finished(house)
        assert not (tmp_path / "outputs/r/phase20/prediction_validation_feedback.jsonl").read_bytes()
        assert all(agent.calibration.samples == 0 for agent in house.journal.ledger.agents.values())


async def test_a_blocking_anomaly_of_the_last_wave_defers_what_follows(tmp_path):
    """An anomaly that is configured to block makes the next wave's tasks wait for a person."""
    safety = {"blocking_anomalies": ["safety_violation"]}
    async with house_in(tmp_path, configured(safety=safety, agents={"count": 1})) as house:
        accept(house, "r", [task("unknown", kind="nothing")], [sure("t")])
        await finished(house)
        assert ends(tmp_path)["t", 2] == "DEFERRED"
        control(house, "r", "approve", "t")
        await finished(house)
        assert ends(tmp_path)["t", 3] == "COMPLETED"


@pytest.mark.looptime
async def test_a_dry_run_teaches_nothing(tmp_path):
    """What was only simulated in a dry run changes no later prediction."""
    async with house_in(tmp_path, configured(execution={"dry_run": True})) as house:
        accept(house, "r", [task(f"t{n}", kind="command", payload={"argv": ["true"]}) for n in range(8)])
        await finished(house)
        assert {agent.calibration.samples for agent in house.journal.ledger.agents.values()} == {0}


async def test_what_was_held_at_a_gate_does_not_start_while_the_disk_is_in_trouble(tmp_path):
    """A passing cause that passes while a disk is in trouble lets nothing start until the disk is well."""
    async with house_in(tmp_path, configured(safety={"rate_limit": 1})) as house:
        accept(house, "r", [sure(f"t{n}") for n in range(3)])
        await house.journal.until(lambda: bool(entries(house, ev.TaskHeld)))
        begun = len(entries(house, ev.AttemptStarted))
        house.journal.trouble("outputs", OSError("read-only"))
        await asyncio.sleep(10)
        assert len(entries(house, ev.AttemptStarted)) == begun < 3
        house.journal.trouble_over("outputs")
        await finished(house)
        assert len(entries(house, ev.AttemptStarted)) == 3


async def test_the_risk_gate_looks_at_the_calibrated_confidence(tmp_path):
    """What a wave taught about an agent is the confidence that the risk gate asks for in the next wave."""
    async with house_in(tmp_path, configured(agents={"count": 1}, retry={"strategy": "no_retry"})) as house:
        failing = [doomed(f"t{n}", predicted_success_rate=0.7) for n in range(10)]
        accept(house, "r", failing, [sure("next", predicted_success_rate=0.7)])
        await finished(house)
        assert ends(tmp_path)["next", 2] == "DEFERRED"
        decision = rows(tmp_path / "outputs/r/safety_gate_decisions.jsonl")[-1]
        assert (decision["task_id"], decision["gate"]) == ("next", "risk")
        assert decision["confidence"] == pytest.approx((20 * 0.7 + 0) / 30)


async def test_a_retry_that_a_gate_rejects_is_failed_with_what_ran_before(tmp_path):
    """A retry over a quota is REJECTED like a first attempt: `safety:`, no further try, and the times of the attempt that ran."""
    settings = configured(safety={"max_run_seconds": 5}, retry={"base_delay": 10, "max_delay": 10})
    async with house_in(tmp_path, settings) as house:
        accept(house, "r", [doomed("t", payload={"duration_s": 1}, max_attempts=9)])
        await finished(house)
        (row,) = executed(tmp_path, "r")
        assert (row["status"], row["attempts"], row["duration_s"]) == ("FAILED", 1, 1.0)
        assert row["error_msg"].startswith("safety: ")
        assert row["start_time"] < row["end_time"]
        decisions = rows(tmp_path / "outputs/r/safety_gate_decisions.jsonl")
        assert [(said["attempt"], said["verdict"], said["gate"]) for said in decisions] == [
            (1, "APPROVED", None), (2, "REJECTED", "constraints"),
        ]  # fmt: skip
        health = codec.decode((tmp_path / "outputs/r/phase21_system_health.json").read_bytes())
        assert "safety_violation" in [anomaly["anomaly_type"] for anomaly in health["anomalies"]]


async def test_approval_reaches_a_task_that_has_not_come_to_the_gates_yet(tmp_path):
    """Approved by the verb while it waits, a task passes the risk gate in its own wave, whatever the confidence."""
    async with house_in(tmp_path, configured(agents={"count": 1})) as house:
        put_on(house, Scripted(slow="5"))
        accept(house, "r", [scripted("slow", priority=1), sure("risky", risk_level="HIGH", predicted_success_rate=0.01)])
        await after(house, 1)
        control(house, "r", "approve", "risky")
        await finished(house)
        assert ends(tmp_path) == {("slow", 1): "COMPLETED", ("risky", 1): "COMPLETED"}


async def test_each_ruling_of_the_gates_stands_once_with_its_reason(tmp_path):
    """What waited for a passing cause has one DEFERRED line with gate and reason, and then its approval."""
    async with house_in(tmp_path, configured(safety={"rate_limit": 0.1})) as house:
        accept(house, "r", [sure("a"), sure("b")])
        await finished(house)
        decisions = rows(tmp_path / "outputs/r/safety_gate_decisions.jsonl")
        assert [(said["task_id"], said["verdict"], said["gate"]) for said in decisions] == [
            ("a", "APPROVED", None), ("b", "DEFERRED", "constraints"), ("b", "APPROVED", None),
        ]  # fmt: skip
        assert "rate_limit" in decisions[1]["reason"]
        assert {said["risk_level"] for said in decisions} == {"LOW"}
        assert statuses(executed(tmp_path, "r")) == {"a": "COMPLETED", "b": "COMPLETED"}


async def test_a_deferred_task_counts_as_deferred_until_it_is_done(tmp_path):
    """The summary counts a task as deferred as long as it waits for a person, and not among what ended."""
    async with house_in(tmp_path) as house:
        accept(house, "r", [sure("t"), sure("risky", risk_level="HIGH")])
        await finished(house)
        told = codec.decode((tmp_path / "outputs/r/phase21_execution_summary.json").read_bytes())
        counts = ("total_tasks", "completed_tasks", "failed_tasks", "deferred_tasks", "cancelled_tasks")
        assert [told[name] for name in counts] == [2, 1, 0, 1, 0]
        assert told["success_rate"] == 1.0


async def test_installed_packages_add_gates(tmp_path, monkeypatch):
    """A gate that an installed package offers is asked after the six, and what it refuses is a refusal like any other."""

    def curfew(circumstances):
        late = circumstances.task.metadata.get("late")
        return Verdict(ruling=Ruling.REJECTED, reason="it is too late") if late else None

    class Point:
        name, value = "curfew", "somewhere:curfew"

        @staticmethod
        def load():
            return curfew

    monkeypatch.setattr(importlib.metadata, "entry_points", lambda *, group: [Point] if group == offers.GATES else [])
    async with house_in(tmp_path) as house:
        accept(house, "r", [sure("early"), sure("late", metadata={"late": True})])
        await finished(house)
        found = {row["task_id"]: row for row in executed(tmp_path, "r")}
        assert found["early"]["status"] == "COMPLETED"
        assert (found["late"]["status"], found["late"]["error_msg"]) == ("FAILED", "safety: it is too late")
        assert "curfew" in {said["gate"] for said in rows(tmp_path / "outputs/r/safety_gate_decisions.jsonl")}


async def test_a_deferred_retry_that_is_cancelled_keeps_the_times_of_its_attempt(tmp_path):
    """Where an attempt ran in an earlier wave, the final row has that attempt's times, none of them null."""
    async with house_in(tmp_path, configured(agents={"count": 2})) as house:
        put_on(house, Scripted(t="hang"))
        unsure = scripted("t", timeout_s=1, predictions={"agent_0": 0.9, "agent_1": 0.2})
        accept(house, "r", [unsure])
        await finished(house)
        control(house, "r", "cancel", "t")
        await finished(house)
        deferred, cancelled = executed(tmp_path, "r")
        assert (deferred["status"], cancelled["status"], cancelled["attempts"]) == ("DEFERRED", "CANCELLED", 1)
        for name in ("agent_id", "start_time", "end_time", "duration_s"):
            assert cancelled[name] == deferred[name] is not None


async def test_a_rate_limit_that_was_not_used_is_not_saved_up(tmp_path):
    """After a quiet time attempts are as far apart as ever: no burst makes up for what did not start."""
    async with house_in(tmp_path, configured(safety={"rate_limit": 2})) as house:
        accept(house, "r", [sure("first")])
        await after(house, 60)
        accept(house, "r", [sure(f"t{n}") for n in range(4)])
        await finished(house)
        starts = [entry.at_us for entry in entries(house, ev.AttemptStarted)][1:]
        assert all(later - earlier >= 499_000 for earlier, later in itertools.pairwise(starts))


async def test_what_nobody_can_do_is_refused_like_anything_else(tmp_path):
    """A task without an agent that can do it has its REJECTED line, with `agent_id` null, and its anomaly."""
    async with house_in(tmp_path) as house:
        accept(house, "r", [sure("gpu", capabilities=["gpu"])])
        await finished(house)
        (said,) = rows(tmp_path / "outputs/r/safety_gate_decisions.jsonl")
        assert (said["task_id"], said["agent_id"], said["verdict"], said["gate"]) == ("gpu", None, "REJECTED", "validation")
        (raised,) = rows(tmp_path / "outputs/r/anomalies.jsonl")
        assert (raised["anomaly_type"], raised["severity"], raised["agent_id"]) == ("safety_violation", "HIGH", None)


async def test_an_anomaly_blocks_only_the_wave_behind_it(tmp_path):
    """What an older wave showed blocks no more once a wave has passed without it."""
    safety = {"blocking_anomalies": ["safety_violation"]}
    async with house_in(tmp_path, configured(safety=safety)) as house:
        accept(house, "r", [task("unknown", kind="nothing")], [sure("t")], [sure("u")])
        await finished(house)
        assert (ends(tmp_path)["t", 2], ends(tmp_path)["u", 3]) == ("DEFERRED", "COMPLETED")
