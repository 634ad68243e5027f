"""Retries and what becomes of agents that do not come back in time."""

from __future__ import annotations

import asyncio
import itertools
from datetime import datetime

import pytest
from players import Scripted, after, assigned, entries, of_task, put_on
from stage import accept, configured, doomed, executed, finished, house_in, rows, statuses, sure, task

from phase21.domain import events as ev
from phase21.domain.judgements import Verdict
from phase21.store import codec

pytestmark = pytest.mark.looptime


def scripted(task_id, **fields):
    return task(task_id, kind="scripted", **fields)


def starts_us(house, task_id):
    return [entry.at_us for entry in of_task(house, task_id, ev.AttemptStarted)]


@pytest.mark.parametrize(
    ("retry", "delays"),
    [
        ({"strategy": "exponential_backoff", "base_delay": 0.5, "exponential_base": 3.0}, [0.5, 1.5, 4.5]),
        ({"strategy": "exponential_backoff", "base_delay": 10, "exponential_base": 3.0, "max_delay": 25}, [10, 25, 25]),
        ({"strategy": "linear_backoff", "base_delay": 2}, [2, 4, 6]),
        ({"strategy": "no_retry"}, []),
    ],
)
async def test_delays_are_those_of_the_policy_to_the_microsecond(tmp_path, retry, delays):
    """From the end of attempt k to attempt k+1 there is exactly the policy's delay."""
    async with house_in(tmp_path, configured(retry=retry | {"max_attempts": 4})) as house:
        accept(house, "r", [doomed("t", payload={"duration_s": 1}, max_attempts=4)])
        await finished(house)
        starts = starts_us(house, "t")
        gaps = [later - earlier - 1_000_000 for earlier, later in itertools.pairwise(starts)]
        assert gaps == [round(delay * 1e6) for delay in delays]
        assert executed(tmp_path, "r")[0]["attempts"] == len(delays) + 1


async def test_the_agent_works_on_others_while_a_task_waits_for_its_retry(tmp_path):
    """A retry's delay holds up no agent."""
    async with house_in(tmp_path, configured(agents={"count": 1}, retry={"base_delay": 60, "max_delay": 60})) as house:
        engine = Scripted(first="fail ok")
        put_on(house, engine)
        accept(house, "r", [scripted("first", priority=1), scripted("second"), scripted("third")])
        await after(house, 1)
        assert [name for name, _, _ in engine.started] == ["first", "second", "third"]
        await finished(house)
        assert engine.started[-1] == ("first", "agent_0", 2)


async def test_a_retry_after_a_timeout_goes_to_another_able_agent(tmp_path):
    """After a timeout the task is given to another agent, and has a row of assignment under each."""
    async with house_in(tmp_path, configured(agents={"count": 2})) as house:
        put_on(house, Scripted(t="hang ok"))
        accept(house, "r", [scripted("t", timeout_s=1)])
        await finished(house)
        assert assigned(house, "t") == ["agent_0", "agent_1"]
        for agent_id in ("agent_0", "agent_1"):
            path = tmp_path / f"outputs/r/wave_1/{agent_id}/agent_assignments.jsonl"
            assert [row["task_id"] for row in rows(path)] == ["t"]
        (row,) = executed(tmp_path, "r")
        assert (row["agent_id"], row["status"], row["attempts"]) == ("agent_1", "COMPLETED", 2)


async def test_a_pinned_task_stays_with_its_agent_after_a_timeout(tmp_path):
    """A pin holds for retries too."""
    async with house_in(tmp_path, configured(agents={"count": 2})) as house:
        put_on(house, Scripted(t="hang ok"))
        accept(house, "r", [scripted("t", timeout_s=1, agent_id="agent_1")])
        await finished(house)
        assert assigned(house, "t") == ["agent_1"]
        assert statuses(executed(tmp_path, "r")) == {"t": "COMPLETED"}


async def test_only_an_able_agent_takes_over_after_a_timeout(tmp_path):
    """Where no other agent offers what the task asks for, it stays."""
    fleet = [{"id": "a", "capabilities": ["gpu"]}, {"id": "b"}]
    async with house_in(tmp_path, configured(agents={"fleet": fleet})) as house:
        put_on(house, Scripted(t="hang ok"))
        accept(house, "r", [scripted("t", timeout_s=1, capabilities=["gpu"])])
        await finished(house)
        assert assigned(house, "t") == ["a"]


@pytest.mark.parametrize(
    ("reassign", "after_failures", "after_timeouts"),
    [
        ("learned", ["agent_0", "agent_1", "agent_2"], ["agent_0", "agent_1", "agent_2"]),
        ("after_timeout", ["agent_0"], ["agent_0", "agent_1", "agent_0"]),
        ("never", ["agent_0"], ["agent_0"]),
    ],
)
async def test_who_makes_the_next_attempt(tmp_path, reassign, after_failures, after_timeouts):
    """As configured: whoever is now predicted to do it best, another after a timeout alone, or no other; a pin holds throughout."""
    settings = configured(agents={"count": 3}, retry={"reassign": reassign, "max_attempts": 3})
    async with house_in(tmp_path, settings) as house:
        put_on(house, Scripted(failing="fail", hanging="hang", pinned="fail", stuck="hang"))
        pins = [scripted("pinned", agent_id="agent_2"), scripted("stuck", agent_id="agent_2", timeout_s=1)]
        for wave in ([scripted("failing")], [scripted("hanging", timeout_s=1)], pins):
            accept(house, "r", wave)
        await finished(house)
        assert assigned(house, "failing") == after_failures
        assert assigned(house, "hanging") == after_timeouts
        assert assigned(house, "pinned") == assigned(house, "stuck") == ["agent_2"]
        for task_id in ("failing", "hanging", "pinned", "stuck"):
            assert len(of_task(house, task_id, ev.AttemptStarted)) == 3


async def test_the_next_attempt_goes_to_who_is_predicted_best(tmp_path):
    """After a failure predictions for the task decide, less for who has failed; the choice says so, with the rates it went by."""
    rates = {"agent_0": 0.95, "agent_1": 0.8, "agent_2": 0.9}
    settings = configured(agents={"count": 3}, retry={"max_attempts": 3}, manager={"strategy": "maximize_success"})
    async with house_in(tmp_path, settings) as house:
        put_on(house, Scripted(t="fail"))
        accept(house, "r", [scripted("t", predictions=rates)])
        await finished(house)
        assert assigned(house, "t") == ["agent_0", "agent_2", "agent_1"]
        retries = [choice for entry in entries(house, ev.TasksAssigned) if entry.event.moved for choice in entry.event.choices]
        assert [(choice.reason, choice.candidates[0].agent_id) for choice in retries] == [
            ("retry", "agent_2"),
            ("retry", "agent_1"),
        ]
        told = {candidate.agent_id: candidate.predicted for candidate in retries[0].candidates}
        assert told["agent_0"] < told["agent_1"] < told["agent_2"] < rates["agent_2"]
        (row,) = executed(tmp_path, "r")
        assert (row["status"], row["attempts"]) == ("FAILED", 3)


async def test_the_next_attempt_stays_with_an_agent_that_is_still_the_best(tmp_path):
    """An agent that failed keeps the task where it is still predicted to do it best, or is the only one that can."""
    fleet = [{"id": "a", "capabilities": ["gpu"]}, {"id": "b"}, {"id": "c", "capabilities": ["gpu"]}]
    settings = configured(agents={"fleet": fleet}, manager={"strategy": "maximize_success"})
    async with house_in(tmp_path, settings) as house:
        put_on(house, Scripted(best="fail ok", only="fail ok"))
        accept(house, "r", [scripted("best", capabilities=["gpu"], predictions={"a": 0.95, "c": 0.05, "b": 0.99})])
        await finished(house)
        assert assigned(house, "best") == ["a"]
        assert statuses(executed(tmp_path, "r")) == {"best": "COMPLETED"}


async def test_three_timeouts_in_a_row_take_an_agent_offline_until_its_probation_is_over(tmp_path):
    """The agent goes OFFLINE, that is an anomaly, what waits with it goes elsewhere, and after probation it comes back."""
    async with house_in(tmp_path, configured(agents={"count": 2}, retry={"strategy": "no_retry"})) as house:
        put_on(house, Scripted(h1="hang", h2="hang", h3="hang", long="100"))
        pinned = [scripted(name, agent_id="agent_0", timeout_s=1, priority=1) for name in ("h1", "h2", "h3")]
        accept(house, "r", [*pinned, *[scripted(f"w{n}") for n in range(4)], scripted("long", agent_id="agent_1", timeout_s=200)])
        await after(house, 5)
        (offline,) = entries(house, ev.AgentWentOffline)
        assert (offline.event.agent_id, offline.event.cause) == ("agent_0", "timeouts")
        raised = [entry.event.anomaly for entry in entries(house, ev.AnomalyRaised)]
        assert [(anomaly.anomaly_type, anomaly.agent_id) for anomaly in raised] == [("agent_offline", "agent_0")]
        moved = [entry.event for entry in entries(house, ev.TasksAssigned) if entry.event.moved]
        assert {given.agent_id for event in moved for given in event.assignments} == {"agent_1"}
        await finished(house)
        (returned,) = entries(house, ev.AgentReturned)
        assert returned.at_us - offline.at_us == 60_000_000
        assert sum(status == "COMPLETED" for status in statuses(executed(tmp_path, "r")).values()) == 5


async def test_two_timeouts_and_a_success_keep_an_agent(tmp_path):
    """Only timeouts in a row count."""
    async with house_in(tmp_path, configured(agents={"count": 1}, retry={"strategy": "no_retry"})) as house:
        put_on(house, Scripted(h1="hang", h2="hang", h3="hang"))
        accept(house, "r", [scripted(name, timeout_s=1) for name in ("h1", "h2", "ok", "h3")])
        await finished(house)
        assert not entries(house, ev.AgentWentOffline)


async def test_all_able_agents_offline_the_task_waits(tmp_path):
    """A task that nobody able can take waits, is not refused, and goes on when an agent comes back."""
    async with house_in(tmp_path, configured(agents={"count": 1})) as house:
        put_on(house, Scripted(t="hang hang hang ok"))
        accept(house, "r", [scripted("t", timeout_s=1, max_attempts=5)], [sure(f"later-{n}") for n in range(5)])
        await finished(house)
        assert set(statuses(executed(tmp_path, "r")).values()) == {"COMPLETED"}
        starts = starts_us(house, "t")
        assert starts[3] - starts[2] == 61_000_000


async def test_a_wave_planned_while_all_are_offline_is_carried_out_whole_once_one_returns(tmp_path):
    """On probation an agent gets one task; when that went well the others follow, though nobody else returns."""
    async with house_in(tmp_path, configured(agents={"count": 1}, retry={"strategy": "no_retry"})) as house:
        put_on(house, Scripted(h1="hang", h2="hang", h3="hang"))
        accept(house, "r", [scripted(name, timeout_s=1) for name in ("h1", "h2", "h3")], [sure(f"t{n}") for n in range(4)])
        async with asyncio.timeout(500):
            await finished(house)
        assert sum(status == "COMPLETED" for status in statuses(executed(tmp_path, "r")).values()) == 4


async def test_a_refusal_on_probation_does_not_strand_the_others(tmp_path):
    """Where the one task of a probation is refused by a gate, the next one is tried."""
    async with house_in(tmp_path, configured(agents={"count": 1}, retry={"strategy": "no_retry"})) as house:
        put_on(house, Scripted(h1="hang", h2="hang", h3="hang"))
        accept(
            house, "r",
            [scripted(name, timeout_s=1) for name in ("h1", "h2", "h3")],
            [task("unknown", kind="nothing"), task("unsure", predicted_success_rate=0.1), sure("t")],
        )  # fmt: skip
        async with asyncio.timeout(500):
            await finished(house)
        assert statuses(executed(tmp_path, "r"))["t"] == "COMPLETED"


async def test_an_agent_on_probation_works_on_one_task_whatever_its_concurrency(tmp_path):
    """After probation an agent is tried with one task, not with as many as it may work on."""
    fleet = [{"id": "wide", "concurrency": 3}]
    async with house_in(tmp_path, configured(agents={"fleet": fleet}, retry={"strategy": "no_retry"})) as house:
        waiting = [f"w{n}" for n in range(6)]
        engine = Scripted(h1="hang", h2="hang", h3="hang", **dict.fromkeys(waiting, "5"))
        put_on(house, engine)
        accept(house, "r", [scripted(name, timeout_s=1, priority=1) for name in ("h1", "h2", "h3")]
               + [scripted(name, timeout_s=10) for name in waiting])  # fmt: skip
        await after(house, 0.5)
        assert engine.running == 3
        await after(house, 62)
        assert engine.running == 1
        await after(house, 5)
        assert engine.running == 3
        await finished(house)
        assert sum(status == "COMPLETED" for status in statuses(executed(tmp_path, "r")).values()) == 6


async def test_a_timeout_on_probation_takes_the_agent_offline_again(tmp_path):
    """On probation one timeout is enough."""
    async with house_in(tmp_path, configured(agents={"count": 1}, retry={"strategy": "no_retry"})) as house:
        put_on(house, Scripted(h1="hang", h2="hang", h3="hang", h4="hang"))
        accept(house, "r", [scripted(name, timeout_s=1) for name in ("h1", "h2", "h3", "h4", "t")])
        await finished(house)
        assert len(entries(house, ev.AgentWentOffline)) == 2
        assert statuses(executed(tmp_path, "r"))["t"] == "COMPLETED"


async def test_an_engine_that_swallows_its_cancellation_does_not_hold_up_its_agent(tmp_path):
    """`stuck_after` past the timeout the agent goes OFFLINE as stuck, and the task is tried elsewhere."""
    async with house_in(tmp_path, configured(agents={"count": 2, "stuck_after": 5})) as house:
        engine = Scripted(t="deaf ok")
        put_on(house, engine)
        accept(house, "r", [scripted("t", timeout_s=1)])
        await finished(house)
        (offline,) = entries(house, ev.AgentWentOffline)
        assert offline.event.cause == "stuck"
        assert offline.at_us - starts_us(house, "t")[0] == 6_000_000
        assert entries(house, ev.AnomalyRaised)[0].event.anomaly.anomaly_type == "agent_stuck"
        (row,) = executed(tmp_path, "r")
        assert (row["agent_id"], row["status"]) == ("agent_1", "COMPLETED")
        engine.release.set()


async def test_a_crashed_agent_is_restarted_with_its_inbox(tmp_path):
    """A crash of an agent's loop is told, and neither what it held nor what waits with it is lost."""
    async with house_in(tmp_path, configured(agents={"count": 1})) as house:
        crashes = iter([OSError("no room for a reading")])
        plain = house.executor._resources.look

        def look(now):
            for crash in crashes:
                raise crash
            plain(now)

        house.executor._resources.look = look
        accept(house, "r", [sure(f"t{n}") for n in range(5)])
        async with asyncio.timeout(100):
            await finished(house)
        (restarted,) = entries(house, ev.AgentRestarted)
        assert restarted.event.error == "OSError: no room for a reading"
        assert set(statuses(executed(tmp_path, "r")).values()) == {"COMPLETED"}
        assert len(entries(house, ev.AttemptStarted)) == 5


async def test_what_a_crashing_agent_had_under_way_is_interrupted(tmp_path):
    """An attempt that its agent's crash cut short is told as interrupted, ended, and made again."""
    fleet = [{"id": "wide", "concurrency": 2}]
    async with house_in(tmp_path, configured(agents={"fleet": fleet})) as house:
        engine = Scripted(long="50 ok")
        put_on(house, engine)
        accept(house, "r", [scripted("long", timeout_s=100)])
        await after(house, 1)
        crashes = iter([OSError("once")])
        plain = house.executor._resources.look

        def look(now):
            for crash in crashes:
                raise crash
            plain(now)

        house.executor._resources.look = look
        accept(house, "other", [sure("t")])
        await after(house, 1)
        assert len(of_task(house, "long", ev.TaskInterrupted)) == 1
        await finished(house)
        (row,) = executed(tmp_path, "r")
        assert (row["status"], row["attempts"]) == ("COMPLETED", 2)
        assert engine.running == 0


async def test_gates_approve_each_retry(tmp_path):
    """Every attempt, the first and each retry, has the gates' own approval before it starts."""
    async with house_in(tmp_path) as house:
        seen = []
        plain = house.executor._verdict

        def verdict(agent, delivery):
            given = plain(agent, delivery)
            seen.append((delivery.record.task.task_id, delivery.attempt))
            assert isinstance(given, Verdict)
            return given

        house.executor._verdict = verdict
        accept(house, "r", [doomed("t")])
        await finished(house)
        assert seen == [("t", 1), ("t", 2), ("t", 3)]
        decisions = rows(tmp_path / "outputs/r/safety_gate_decisions.jsonl")
        assert [(row["attempt"], row["verdict"], row["gate"]) for row in decisions] == [(n, "APPROVED", None) for n in (1, 2, 3)]


async def test_a_task_that_waits_for_another_does_not_use_up_a_probation(tmp_path):
    """The one place of an agent on probation is for a task that can start: one that waits for another does not hold it."""
    async with house_in(tmp_path, configured(agents={"count": 1, "probation": 5}, retry={"strategy": "no_retry"})) as house:
        put_on(house, Scripted(h1="hang", h2="hang", h3="hang"))
        accept(house, "r", [scripted(name, timeout_s=1) for name in ("h1", "h2", "h3")])
        await after(house, 20)
        assert house.journal.ledger.agents["agent_0"].probation
        accept(house, "r", [scripted("second", depends_on=["first"]), scripted("first"), scripted("third")])
        async with asyncio.timeout(100):
            await finished(house)
        ended = statuses(executed(tmp_path, "r"))
        assert (ended["first"], ended["second"], ended["third"]) == ("COMPLETED",) * 3


async def test_a_row_begins_with_the_first_attempt_and_ends_with_the_last(tmp_path):
    """`start_time` is the first attempt's, `end_time` and `duration_s` are the last one's."""
    async with house_in(tmp_path, configured(retry={"base_delay": 0.5})) as house:
        put_on(house, Scripted(t="fail 2"))
        accept(house, "r", [scripted("t")])
        await finished(house)
        (row,) = executed(tmp_path, "r")
        assert (row["attempts"], row["duration_s"]) == (2, 2.0)
        begun, ended = (datetime.fromisoformat(row[name]) for name in ("start_time", "end_time"))
        assert (ended - begun).total_seconds() == pytest.approx(2.5)
        starts = starts_us(house, "t")
        assert begun.timestamp() == pytest.approx(starts[0] / 1e6, abs=1e-6)


async def test_a_retry_after_a_timeout_stays_where_the_only_other_agent_is_offline(tmp_path):
    """An agent that is OFFLINE is no able agent to go to: the task is tried again where it was."""
    async with house_in(tmp_path, configured(agents={"count": 2, "offline_after": 1, "probation": 1000})) as house:
        put_on(house, Scripted(gone="hang", t="3 ok"))
        accept(house, "r", [scripted("gone", agent_id="agent_0", timeout_s=1, max_attempts=1)])
        await after(house, 2)
        house.executor._settings.now = configured(agents={"count": 2, "offline_after": 3, "probation": 1000})
        accept(house, "r", [scripted("t", timeout_s=1)])
        await after(house, 20)
        assert [agent.agent_id for agent in house.journal.ledger.present_agents() if agent.offline] == ["agent_0"]
        assert assigned(house, "t") == ["agent_1"]
        assert statuses(executed(tmp_path, "r"))["t"] == "COMPLETED"


async def test_a_pinned_task_waits_for_its_agent_that_is_offline(tmp_path):
    """A pin holds while its agent is OFFLINE: the task waits for the probation, though another agent is idle."""
    async with house_in(tmp_path, configured(agents={"count": 2}, retry={"strategy": "no_retry"})) as house:
        put_on(house, Scripted(h1="hang", h2="hang", h3="hang"))
        pinned = {"agent_id": "agent_0"}
        accept(house, "r", [scripted(name, timeout_s=1, **pinned) for name in ("h1", "h2", "h3")] + [scripted("t", **pinned)])
        accept(house, "other", [scripted("late", priority=9, **pinned)])
        await finished(house)
        assert assigned(house, "t") == assigned(house, "late") == ["agent_0"]
        (offline,) = entries(house, ev.AgentWentOffline)
        assert starts_us(house, "t")[0] - offline.at_us >= 60_000_000
        assert statuses(executed(tmp_path, "r"))["t"] == "COMPLETED"


async def test_an_agent_that_is_offline_at_a_waves_end_is_not_available(tmp_path):
    """`availability` is the share of agents that are not OFFLINE at the wave's end, and an absent one is no imbalance."""
    async with house_in(tmp_path, configured(agents={"count": 2}, retry={"strategy": "no_retry"})) as house:
        put_on(house, Scripted(h1="hang", h2="hang", h3="hang"))
        accept(house, "r", [scripted(name, agent_id="agent_0", timeout_s=1) for name in ("h1", "h2", "h3")])
        await after(house, 10)
        (scored,) = entries(house, ev.HealthScored)
        assert scored.event.health.metrics.availability == 0.5
        assert scored.event.health.metrics.load_balance == 1.0
        kinds = [entry.event.anomaly.anomaly_type for entry in entries(house, ev.AnomalyRaised)]
        assert sorted(kinds) == ["agent_failure", "agent_offline", "prediction_drift"]


async def test_what_was_moved_counts_as_interference(tmp_path):
    """The wave's signal counts the tasks that were moved to another agent."""
    async with house_in(tmp_path, configured(agents={"count": 2})) as house:
        put_on(house, Scripted(a="hang ok", b="hang ok"))
        accept(house, "r", [scripted("a", timeout_s=1), scripted("b", timeout_s=1), scripted("c")])
        await finished(house)
        found = rows(tmp_path / "outputs/r/phase21_learning_signals.jsonl")
        (signal,) = [row for row in found if row["signal_type"] == "multi_agent_coordination"]
        assert signal["content"]["interference_count"] == 2


async def test_a_task_that_came_back_is_one_assigned_task(tmp_path):
    """A task that was moved away and back counts once for each agent, in the wave's metrics and in the run's summary."""
    async with house_in(tmp_path, configured(agents={"count": 2})) as house:
        put_on(house, Scripted(t="hang hang ok"))
        accept(house, "r", [scripted("t", timeout_s=1)])
        await finished(house)
        assert assigned(house, "t") == ["agent_0", "agent_1", "agent_0"]
        summary = codec.decode((tmp_path / "outputs/r/phase21_execution_summary.json").read_bytes())
        for agent_id in ("agent_0", "agent_1"):
            values = {
                row["metric_name"]: row["value"] for row in rows(tmp_path / f"outputs/r/wave_1/{agent_id}/agent_metrics.jsonl")
            }
            assert values["assigned_tasks"] == 1
            assert summary["per_agent_metrics"][agent_id]["assigned_tasks"] == 1


async def test_an_agent_works_on_one_task_at_a_time_unless_it_is_told_otherwise(tmp_path):
    """`concurrency` is 1 where a fleet does not say it, and is kept where it does."""
    async with house_in(tmp_path, configured(agents={"fleet": [{"id": "one"}, {"id": "two", "concurrency": 2}]})) as house:
        engine = Scripted(**{f"t{n}": "5" for n in range(8)})
        put_on(house, engine)
        accept(house, "r", [scripted(f"t{n}", agent_id="one" if n < 4 else "two") for n in range(8)])
        await after(house, 1)
        assert sorted(agent_id for _, agent_id, _ in engine.started) == ["one", "two", "two"]
        await finished(house)
        assert engine.most_running == 3
