"""Monitoring that can be believed: whole runs in virtual time, with agents that change and agents that do not."""

from __future__ import annotations

import asyncio
import random

import pytest
from cutting import ends, journal_of, rebuilt, tree, written
from players import DONE, LOST, put_on
from stage import accept, configured, events_of, finished, house_in, rows, task

from phase21.domain import events as ev
from phase21.domain.ledger import Ledger, Snapshot
from phase21.domain.settings import Settings
from phase21.store import codec

pytestmark = pytest.mark.looptime

TESTED = frozenset({"agent_failure", "prediction_drift", "success_drop"})
COURSE = frozenset({"prediction_error", "schedule_drift", "performance_degradation", "optimization_failure"})
ALONE = {"manager": {"strategy": "round_robin"}, "retry": {"max_attempts": 1}}


def at_work(*, learning=True, **health):
    """Three agents in turns. Without learning no task is put off because its agent is known to fail."""
    return configured(agents={"count": 3}, health=health, learning={"enabled": learning}, **ALONE)


class Drawn:
    """An engine whose attempts succeed with a rate that hangs on the agent and the wave; the same attempt ends the same way."""

    def __init__(self, rate, takes_s=0.0):
        self.rate = rate
        self.takes_s = takes_s

    async def perform(self, attempt):
        await asyncio.sleep(self.takes_s)
        dice = random.Random(f"{attempt.task.task_id} {attempt.agent_id}")
        return DONE if dice.random() < self.rate(attempt.agent_id, attempt.wave) else LOST


def turning(agent_id, wave):
    """Agent 1 fails from wave 30 on, and is back at wave 50; the others are steady."""
    if agent_id != "agent_1":
        return 0.9
    return 0.15 if 30 <= wave < 50 else 0.9


def waves_of(count, size=6, **fields):
    return [[task(f"w{wave}-{n}", kind="drawn", **fields) for n in range(size)] for wave in range(1, count + 1)]


async def told(folder, rate, waves, settings=None):
    """The anomalies of a run of these waves, and the agents' records at its end."""
    async with house_in(folder, settings or at_work()) as house:
        put_on(house, Drawn(rate), "drawn")
        accept(house, "r", *waves)
        await finished(house)
        found = [event.anomaly for event in events_of(house, ev.AnomalyRaised)]
        agents = dict(house.journal.ledger.agents)
        await house.stop("the end", 1)
    return found, agents


def of(found, *kinds):
    return [anomaly for anomaly in found if anomaly.anomaly_type in kinds]


async def test_an_agent_that_turns_bad_is_found_once_and_so_is_its_recovery(tmp_path):
    """A failing agent is told within 15 of its tasks, once, with evidence, since when and what was done; so is its recovery."""
    found, agents = await told(tmp_path, turning, waves_of(70), at_work(learning=False))
    failed = of(found, "agent_failure")
    assert [(anomaly.agent_id, anomaly.severity) for anomaly in failed] == [("agent_1", "HIGH")]
    (bad,) = failed
    assert 30 <= bad.wave <= 37
    assert 26 <= bad.since_wave <= 32
    assert bad.evidence > 5
    assert "no longer counts" in bad.action
    assert f"since wave {bad.since_wave}" in bad.description
    back = [anomaly for anomaly in of(found, "prediction_drift") if anomaly.agent_id]
    assert [anomaly.agent_id for anomaly in back] == ["agent_1"]
    assert 50 <= back[0].wave <= 57
    assert "back at what was normal" in back[0].description
    assert agents["agent_1"].calibration.samples == 140
    assert agents["agent_1"].kinds["drawn"].samples == 2 * (70 - back[0].since_wave + 1)
    assert agents["agent_0"].kinds["drawn"].samples == 140


async def test_what_is_dropped_is_what_came_before(tmp_path):
    """Right after a change is found, the evidence that predictions rest on is what came since, and this wave's own."""
    found, _ = await told(tmp_path / "whole", turning, waves_of(45))
    (bad,) = of(found, "agent_failure")
    _, agents = await told(tmp_path / "part", turning, waves_of(bad.wave))
    kept = agents["agent_1"].kinds["drawn"]
    assert kept.samples == 2 * (bad.wave - bad.since_wave + 1)
    assert kept.successes / kept.samples == pytest.approx(bad.value)
    assert agents["agent_1"].calibration.samples == 2 * bad.wave


@pytest.mark.parametrize("rate", [0.97, 0.8, 0.45])
async def test_a_healthy_fleet_is_left_alone(tmp_path, rate):
    """Over 100 waves of a fleet that does not change, whatever its rate, the tests raise next to nothing, and so does the course."""
    found, _ = await told(tmp_path, lambda _agent, _wave: rate, waves_of(100, predicted_success_rate=rate), at_work(learning=False))
    later = [anomaly for anomaly in of(found, *TESTED) if anomaly.wave > 7]
    assert len(later) <= 1
    assert len(of(found, *COURSE)) <= 1


async def test_the_fixed_rules_are_as_they_were(tmp_path):
    """With `health.rules = "fixed"` each wave is judged alone, no test goes on, and nothing of its kind is kept."""
    found, agents = await told(tmp_path, lambda _agent, _wave: 0.45, waves_of(40, size=9), at_work(learning=False, rules="fixed"))
    assert len(of(found, "agent_failure")) > 20
    assert all(anomaly.threshold == 0.5 and anomaly.evidence is None for anomaly in of(found, "agent_failure"))
    assert of(found, "success_drop")
    assert not of(found, *COURSE)
    assert not any(agent.watches for agent in agents.values())


async def test_the_first_waves_are_judged_by_the_fixed_rules(tmp_path):
    """Until an agent has a past that could have changed, a bad wave is told as it always was."""
    found, _ = await told(tmp_path, lambda _agent, _wave: 0.0, waves_of(8, size=9), at_work(learning=False))
    assert {anomaly.wave for anomaly in of(found, "agent_failure")} == {1, 2, 3, 4}


async def test_a_rehearsal_says_nothing_of_agents(tmp_path):
    """A dry run neither asks the tests nor adds to them."""
    settings = configured(agents={"count": 3}, execution={"dry_run": True}, **ALONE)
    _, agents = await told(tmp_path, turning, [[task(f"{n}-{i}") for i in range(6)] for n in range(6)], settings)
    assert not any(agent.watches for agent in agents.values())


async def test_another_kind_of_task_is_another_test(tmp_path):
    """A fleet that is given harder tasks of another kind has not become worse."""
    easy = [[task(f"e{wave}-{n}", kind="easy") for n in range(6)] for wave in range(1, 21)]
    hard = [[task(f"h{wave}-{n}", kind="hard") for n in range(6)] for wave in range(1, 21)]
    async with house_in(tmp_path, at_work(learning=False)) as house:
        put_on(house, Drawn(lambda _agent, _wave: 0.95), "easy")
        put_on(house, Drawn(lambda _agent, _wave: 0.3), "hard")
        accept(house, "r", *easy, *hard)
        await finished(house)
        found = [event.anomaly for event in events_of(house, ev.AnomalyRaised)]
        agents = dict(house.journal.ledger.agents)
        await house.stop("the end", 1)
    assert not [anomaly for anomaly in of(found, "agent_failure", "success_drop") if anomaly.wave > 27]
    assert all(agent.kinds["easy"].samples == agent.kinds["hard"].samples == 40 for agent in agents.values())


async def test_a_run_that_falls_is_told(tmp_path):
    """Where every agent fails a little more often, the run's own test tells it, as `success_drop`."""
    found, _ = await told(tmp_path, lambda _agent, wave: 0.9 if wave < 20 else 0.55, waves_of(40))
    fell = [anomaly for anomaly in of(found, "success_drop") if anomaly.wave > 4]
    assert len(fell) == 1
    assert fell[0].agent_id is None
    assert 20 <= fell[0].wave <= 27
    assert fell[0].value > 0.2


async def test_the_course_of_a_run_is_judged_as_well(tmp_path):
    """Predictions that stay wrong, and waves that stay late, are told once from the third wave on, and a strategy that misses its aim."""
    settings = configured(
        agents={"count": 3}, learning={"enabled": False}, retry={"max_attempts": 1}, manager={"strategy": "maximize_success"}
    )
    async with house_in(tmp_path, settings) as house:
        put_on(house, Drawn(lambda _agent, _wave: 0.5, takes_s=3.0), "drawn")
        accept(house, "r", *waves_of(12, size=12, estimated_duration_s=1.0, predicted_success_rate=0.95))
        await finished(house)
        found = [event.anomaly for event in events_of(house, ev.AnomalyRaised)]
        await house.stop("the end", 1)
    told = {anomaly.anomaly_type: (anomaly.wave, anomaly.since_wave) for anomaly in of(found, *COURSE)}
    assert set(told) == {"prediction_error", "schedule_drift", "optimization_failure"}
    assert len(of(found, *COURSE)) == 3
    assert told["schedule_drift"] == (3, 1)
    assert all(since == wave - 2 for wave, since in told.values())


async def test_files_and_report_name_the_causes(tmp_path):
    """Health comes with its causes, for every wave; an anomaly's row says since when, on what evidence, and what was done."""
    await told(tmp_path, turning, waves_of(40))
    outputs = tmp_path / "outputs" / "r"
    health = codec.decode((outputs / "phase21_system_health.json").read_bytes())
    terms = ["success_rate", "availability", "accuracy", "load_balance"]
    for wave in (health, *health["history"]):
        assert [cause["term"] for cause in wave["causes"]] == terms
        lost = sum(cause["points_lost"] for cause in wave["causes"])
        assert wave["health_score"] + lost == pytest.approx(100.0)
    worst = max((wave["causes"][0] for wave in health["history"]), key=lambda cause: cause["points_lost"])
    assert worst["agent_id"] == "agent_1"
    assert worst["task_id"].startswith("w3")
    bad = [row for row in rows(outputs / "anomalies.jsonl") if row["anomaly_type"] == "agent_failure"]
    assert [(row["agent_id"], row["since_wave"] >= 26, row["evidence"] > 5, bool(row["action"])) for row in bad] == [
        ("agent_1", True, True, True)
    ]
    report = (outputs / "PHASE_21_AUTONOMOUS_EXECUTION.md").read_text()
    assert "Where the points of wave 40 went" in report
    assert "no longer counts" in report


async def test_cut_around_an_alarm_the_house_goes_on_to_the_same_end(tmp_path):
    """Cut at any entry of the wave that finds a change: it is told once, and agents, runs and files end as they would have."""
    waves = waves_of(38)
    whole = tmp_path / "whole"
    found, agents = await told(whole, turning, waves)
    (bad,) = of(found, "agent_failure")
    entries = journal_of(whole)
    judged = next(n for n, entry in enumerate(entries) if isinstance(entry.event, ev.AnomalyRaised) and entry.event.anomaly == bad)
    closed = next(n for n in range(judged, len(entries)) if isinstance(entries[n].event, ev.PredictionsCalibrated))
    assert isinstance(entries[closed].event, ev.PredictionsCalibrated)
    for cut in range(judged - 1, closed + 2):
        folder = tmp_path / f"cut{cut}"
        written(folder, entries[:cut])
        again, agents_then = await told_on(folder)
        assert of(again, "agent_failure") == of(found, "agent_failure"), cut
        assert {name: (agent.watches, agent.kinds) for name, agent in agents_then.items()} == {
            name: (agent.watches, agent.kinds) for name, agent in agents.items()
        }
        assert ends(folder, "r") == ends(whole, "r")
        assert tree(folder / "outputs" / "r") == rebuilt(folder, "r")


async def told_on(folder):
    """What a house tells that opens what a crash left."""
    async with house_in(folder, at_work()) as house:
        put_on(house, Drawn(turning), "drawn")
        await finished(house)
        found = [event.anomaly for event in events_of(house, ev.AnomalyRaised)]
        agents = dict(house.journal.ledger.agents)
        await house.stop("the end", 1)
    return found, agents


async def test_a_snapshot_holds_the_tests_bit_for_bit(tmp_path):
    """Encoded and decoded, the ledger's watches and course are what they were; folded anew from the journal they are the same."""
    async with house_in(tmp_path, at_work()) as house:
        put_on(house, Drawn(turning), "drawn")
        accept(house, "r", *waves_of(36))
        await finished(house)
        ledger = house.journal.ledger
        again = codec.decode(codec.encode(ledger.snapshot()), Snapshot)
        assert [agent.watches for agent in again.agents] == [agent.watches for agent in ledger.agents.values()]
        assert all(agent.watches["drawn"].seen.tasks for agent in again.agents)
        assert again.runs[0].record == ledger.runs["r"].record
        assert len(again.runs[0].record.course) == 12
        kept = {name: (agent.watches, agent.kinds) for name, agent in ledger.agents.items()}
        await house.stop("the end", 1)
    folded = Ledger()
    for entry in journal_of(tmp_path):
        folded.fold(entry)
    assert {name: (agent.watches, agent.kinds) for name, agent in folded.agents.items()} == kept


async def test_without_tests_in_the_journal_nothing_is_watched(tmp_path):
    """A journal from before there were tests folds as it did: the judgements say nothing to any test."""
    assert Settings().health.rules == "sequential"
    found, _ = await told(tmp_path, turning, waves_of(3), at_work(rules="fixed"))
    judged = [entry.event for entry in journal_of(tmp_path) if isinstance(entry.event, ev.HealthScored)]
    assert len(judged) == 3
    assert all(event.seen == () and b'"seen"' not in codec.encode(event) for event in judged)
    assert isinstance(found, list)
