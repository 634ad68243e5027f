"""What the document on optimization and scheduling asks to be tested, under its names, on the product's own code.

There is no optimizer, scheduler or harness beside the house: a schedule is the planner's plan, an execution the house's, a dry run
a choice of its engine.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import msgspec
import pytest
from players import Scripted, after, assigned, entries, put_on
from stage import accept, configured, doomed, events_of, executed, finished, house_in, rows, statuses, sure, task, tree

from phase21.domain import events as ev
from phase21.domain.errors import Phase21Error
from phase21.domain.judgements import Calibration, Grade, Severity
from phase21.domain.records import AgentRecord
from phase21.domain.settings import HealthThresholds, Settings
from phase21.domain.tasks import Attempt, RiskLevel, Task
from phase21.engines.simulated import SimulatedEngine
from phase21.evaluation import optimization as opt
from phase21.evaluation.schedules import Placed, Shown, Slot, WaveFacts, accuracy, adherence, compared, expected, laid_out, learned
from phase21.intake.performance import read_folders
from phase21.planning.forecast import Forecast
from phase21.planning.planner import plan
from phase21.planning.registry import ADAPTIVE, NAMES
from phase21.planning.strategies import Terms
from phase21.readers.inquiries import optimization as files_of
from phase21.readers.inquiries.studies import Asked, closed_waves, findings_of, studied, study_of_run
from phase21.store import codec

EXAMPLE = Path(__file__).parents[2] / "examples" / "optimization"
UPSTREAM = Path(__file__).parents[2] / ".." / "shared" / "data" / "upstream"

TREE = {
    "optimization_summary.json",
    "system_health.json",
    "coordination_patterns.json",
    "learning_signals.jsonl",
    "schedule_comparisons.jsonl",
    "optimization_feedback.jsonl",
    "heuristic_weights.json",
    "PHASE_19_AUTONOMOUS_OPTIMIZATION.md",
    "schedule_adherence.json",
    "strategy_effectiveness.json",
    "schedule_recommendations.jsonl",
    "metrics.jsonl",
    "anomalies.jsonl",
    "alerts.json",
    "agent_assignments.json",
}
OF_AN_AGENT = {"planned_tasks.jsonl", "scheduled_tasks.jsonl", "optimization_feedback.json"}


def upstream(phase: str) -> str:
    folder = UPSTREAM / phase
    if not folder.is_dir():
        pytest.skip(f"no data of {phase} beside the project")
    return str(folder)


def example(strategy: str = "maximize_success"):
    return studied(read_folders([str(EXAMPLE)]), Asked(strategy=strategy))


def agent(agent_id: str, successes: int = 0, samples: int = 0, came_in: float = 0.8, **fields) -> AgentRecord:
    shown = Calibration(samples, successes, samples * came_in)
    return AgentRecord(agent_id=agent_id, calibration=shown, kinds={"simulate": shown} if samples else {}, **fields)


def planned(tasks, agents, strategy, **more):
    return plan(tasks, agents, forecast=Forecast(agents, enabled=True), strategy=strategy, **more)


def given(made) -> dict[str, str]:
    return {one.task_id: one.agent_id for one in made.assignments}


def loads_of(made) -> list[int]:
    found = list(given(made).values())
    return sorted(found.count(agent_id) for agent_id in set(found))


def slot(task_id: str, success: bool | None = None, **fields) -> Slot:
    ended = {"settled": True, "ran_by": "a"} if success is not None else {}
    return Slot(**{"task_id": task_id, "agent_id": "a", "predicted": 0.8, "success": success, **ended, **fields})


def wave(number: int, *slots: Slot, strategy: str = "maximize_success", **fields) -> WaveFacts:
    return WaveFacts(wave=number, strategy=strategy, agents=("a",), slots=slots, **fields)


def lines(data: bytes) -> list[dict]:
    return [codec.decode(line) for line in data.splitlines()]


class TestAdaptiveOptimizer:
    def test_load_phase18_data(self):
        """A Phase 18 folder gives each agent's rate over its history, rates of kinds, what it found, and its newest timestamp."""
        found = read_folders([str(EXAMPLE / "phase18")])
        shown = {one.agent_id: (one.success_rate, one.tasks) for one in found.agents}
        assert shown == {"agent_0": (0.9, 20), "agent_1": (0.8, 20), "agent_2": (0.6, 10), "agent_3": (None, 0)}
        assert found.patterns == {"compile": 0.9, "integration": 0.7}
        assert found.coordination[0]["patterns"][0]["pattern"] == "handover"
        assert (found.signals, found.health["health_score"], found.newest) == (1, 81.5, "2026-03-02T06:00:00+00:00")
        assert not found.tasks

    def test_calculate_optimal_schedule_maximize_success(self):
        """The plan's expected successes are the most that any dealing within the agents' capacities gives, found by trying all."""
        rates = [[0.9, 0.6, 0.3], [0.85, 0.8, 0.2], [0.7, 0.65, 0.6], [0.9, 0.1, 0.5], [0.6, 0.5, 0.55]]
        agents = [agent(name) for name in "abc"]
        tasks = [task(f"t{n}", predictions=dict(zip("abc", row, strict=True))) for n, row in enumerate(rates)]
        made = planned(tasks, agents, "maximize_success", terms=Terms(slack=1.0))
        most = max(
            sum(rates[n][seat] for n, seat in enumerate(seats))
            for seats in itertools.product(range(3), repeat=5)
            if max(seats.count(seat) for seat in range(3)) <= 2
        )
        assert sum(one.predicted for one in made.assignments) == pytest.approx(most)
        greedy = planned(tasks, agents, "round_robin")
        assert most > sum(one.predicted for one in greedy.assignments)

    def test_calculate_optimal_schedule_maximize_throughput(self):
        """The plan's expected length is the least that any dealing gives, found by trying all."""
        seconds = [7.0, 5.0, 4.0, 4.0, 3.0, 2.0]
        agents = [agent("a"), agent("b")]
        tasks = [task(f"t{n}", estimated_duration_s=estimate) for n, estimate in enumerate(seconds)]
        made = planned(tasks, agents, "maximize_throughput")
        least = min(
            max(sum(one for one, seat in zip(seconds, seats, strict=True) if seat == which) for which in (0, 1))
            for seats in itertools.product((0, 1), repeat=6)
        )
        assert made.expected_duration_s == pytest.approx(least)
        assert made.sequential_duration_s == pytest.approx(sum(seconds))

    def test_optimize_for_confidence(self):
        """Of two agents that are predicted alike the one of which less is known gets the task; one that is known to fail does not."""
        one = task("t", predicted_success_rate=0.8)
        known, unknown, poor = agent("known", 160, 200), agent("unknown"), agent("poor", 2, 200)
        assert given(planned([one], [known, unknown], "confidence_optimization")) == {"t": "unknown"}
        assert given(planned([one], [known, poor], "confidence_optimization")) == {"t": "known"}

    def test_simulate_schedule(self):
        """What a schedule is expected to come to: each agent's tasks one after the other by urgency, and nothing is called actual."""
        tasks = [task("late", priority=3, estimated_duration_s=2), task("first", priority=1, estimated_duration_s=3), task("other")]
        placed = [Placed(one, who, p, one.estimated_duration_s) for one, who, p in zip(tasks, "aab", (0.9, 0.8, 0.7), strict=True)]
        slots = laid_out(placed)
        assert [(one.starts_s, one.ends_s) for one in slots] == [(3.0, 5.0), (0.0, 3.0), (0.0, 1.0)]
        foretold = expected(wave(1, *slots))
        assert foretold.planned_success_rate == pytest.approx(0.8)
        assert foretold.planned_throughput == pytest.approx(3 / 5)
        assert (foretold.actual_success_rate, foretold.actual_throughput, foretold.accuracy_score) == (None, None, None)

    def test_update_confidence_estimates(self):
        """An agent's record moves what is predicted of it, the more the longer it is, and outcomes move the confidence in it."""
        one = task("t", predicted_success_rate=0.8)
        fleet = [agent("good", 58, 60), agent("bad", 12, 60), agent("little", 1, 2), agent("fine", 48, 60)]
        forecast = Forecast(fleet, enabled=True)
        rates = {who.agent_id: forecast.predicted(one, who.agent_id) for who in fleet}
        assert rates["bad"] < rates["little"] < rates["fine"] < rates["good"]
        assert all(Forecast(fleet, enabled=False).predicted(one, who.agent_id) == 0.8 for who in fleet)
        facts, since = learned(wave(1, slot("t", success=False)), {"a": Shown(20, 16)})
        assert since == {"a": Shown(21, 16)}
        assert facts.confidence_before == pytest.approx(0.8)
        assert facts.confidence_after == pytest.approx((20 * 0.8 + 16) / (20 + 21))

    def test_generate_schedule_recommendations(self):
        """There is a recommendation for each agent that gets tasks, with what is expected of it, and for no other."""
        made = lines(files_of.contents_of(example())["schedule_recommendations.jsonl"])
        last = [row for row in made if row["wave"] == 3]
        assert sorted(task_id for row in last for task_id in row["task_ids"]) == sorted(
            one.task_id for one in example().waves[2].plan.slots
        )
        assert all(row["task_ids"] and 0 < row["expected_success_probability"] < 1 for row in made)
        assert all(row["recommendation_id"] == f"REC_{row['wave']}_{row['agent_id']}" for row in made)
        assert all(row["expected_completion_time_ms"] > 0 for row in made)

    def test_write_optimization_outputs(self, tmp_path):
        """Every file of the tree is written, readable by its owner alone, and written again it is the same byte for byte."""
        files_of.put(tmp_path / "plan", files_of.contents_of(example()))
        first = tree(tmp_path / "plan")
        agents = {f"wave_{n}/agent_{m}/{name}" for n in (1, 2, 3) for m in range(4) for name in OF_AN_AGENT}
        assert TREE | agents | {f"wave_{n}/wave_summary.json" for n in (1, 2, 3)} <= first.keys()
        assert {path.stat().st_mode & 0o077 for path in (tmp_path / "plan").rglob("*")} == {0}
        files_of.put(tmp_path / "plan", files_of.contents_of(example()))
        assert tree(tmp_path / "plan") == first


class TestAdaptiveScheduler:
    @pytest.mark.parametrize("strategy", NAMES)
    def test_assign_tasks_to_agents(self, strategy):
        """Whatever the strategy, every task of every wave stands with exactly one agent, and the same again."""
        study = example(strategy)
        for found in study.waves:
            assert sorted(one.task_id for one in found.plan.slots) == sorted(found.tasks)
            assert not found.unplaced
            assert strategy in {found.plan.strategy, ADAPTIVE}
        assert example(strategy) == study

    @pytest.mark.looptime
    async def test_prioritize_tasks_risk_confidence(self, tmp_path):
        """An agent takes its most urgent task first; what is risky waits for a person, and what is unlikely for better odds."""
        async with house_in(tmp_path, configured(agents={"count": 1})) as house:
            engine = Scripted()
            put_on(house, engine)
            accept(
                house,
                "r",
                [
                    task("whenever", kind="scripted", priority=9),
                    task("urgent", kind="scripted", priority=1),
                    task("risky", kind="scripted", risk_level="HIGH", predicted_success_rate=0.95),
                    task("unlikely", kind="scripted", risk_level="LOW", predicted_success_rate=0.3),
                ],
            )
            await finished(house)
            assert [task_id for task_id, _, _ in engine.started] == ["urgent", "whenever"]
            found = statuses(executed(tmp_path, "r"))
            assert (found["risky"], found["unlikely"]) == ("DEFERRED", "DEFERRED")

    def test_adjust_for_agent_load(self):
        """Loads are even to one task where that is asked for, and who holds much already is given less."""
        agents = [agent("a", 59, 60), agent("b", 30, 60), agent("c")]
        tasks = [task(f"t{n}") for n in range(8)]
        assert loads_of(planned(tasks, agents, "balance_load")) == [2, 3, 3]
        made = planned(tasks, agents, "load_balanced", loads={"a": (6, 6.0)})
        assert sorted(given(made).values()).count("a") < 2

    @pytest.mark.looptime
    async def test_execute_schedule_dry_run(self, tmp_path):
        """In a dry run nothing real is executed, and every task has its outcome and every file its place all the same."""
        touched = tmp_path / "touched"
        settings = configured(execution={"dry_run": True}, manager={"strategy": "maximize_success"})
        async with house_in(tmp_path, settings) as house:
            accept(house, "r", [task(f"t{n}", kind="command", payload={"argv": ["touch", str(touched)]}) for n in range(6)])
            await finished(house)
            found = executed(tmp_path, "r")
        assert len(found) == 6
        assert {row["status"] for row in found} <= {"COMPLETED", "FAILED"}
        assert not touched.exists()

    async def test_simulate_task_execution(self):
        """A simulated task ends as its rate says, and the same way whenever seed, run, task and attempt are the same."""

        async def outcome(rate: float, number: int = 1, seed: int = 0) -> bool:
            attempt = Attempt(
                run_id="r",
                wave=1,
                task=task("t", payload={"success_rate": rate}),
                agent_id="a",
                number=number,
                predicted=0.5,
                timeout_s=1.0,
            )
            return (await SimulatedEngine(seed).perform(attempt)).success

        assert await outcome(1.0)
        assert not await outcome(0.0)
        drawn = [await outcome(0.5, number) for number in range(40)]
        assert drawn == [await outcome(0.5, number) for number in range(40)]
        assert drawn != [await outcome(0.5, number, seed=1) for number in range(40)]
        assert 8 < sum(drawn) < 32

    def test_calculate_schedule_adherence(self):
        """A task on time counts 1, one that ran elsewhere or not at all 0, one that is late what it is late by, of the wave's length."""
        plan_of = {"starts_s": 0.0, "ends_s": 10.0}
        on_time = slot("t", success=True, started_s=0.0, ended_s=10.0, **plan_of)
        late = slot("u", success=True, started_s=2.0, ended_s=14.0, **plan_of)
        elsewhere = slot("v", success=True, **plan_of | {"ran_by": "b"})
        never = slot("w", settled=True, status="deferred", **plan_of)
        unknown = slot("x", **plan_of)
        assert adherence(wave(1, on_time)) == 1.0
        assert adherence(wave(1, late)) == pytest.approx(1 - 6 / 20)
        assert adherence(wave(1, on_time, late, elsewhere, never, unknown)) == pytest.approx((1 + 0.7) / 4)
        assert adherence(wave(1, unknown)) is None

    @pytest.mark.looptime
    async def test_handle_task_failure_retry(self, tmp_path):
        """A task that fails is tried again as often as it may be and no oftener, and what was planned after it is not held up."""
        async with house_in(tmp_path, configured(agents={"count": 2}, retry={"max_attempts": 3, "base_delay": 1})) as house:
            engine = Scripted(shaky="fail fail ok", lost="fail")
            put_on(house, engine)
            accept(house, "r", [task(name, kind="scripted") for name in ("shaky", "lost", "easy")])
            await after(house, 0.5)
            assert ("easy", 1) in {(task_id, number) for task_id, _, number in engine.started}
            await finished(house)
            found = {row["task_id"]: (row["status"], row["attempts"]) for row in executed(tmp_path, "r")}
            assert found == {"shaky": ("COMPLETED", 3), "lost": ("FAILED", 3), "easy": ("COMPLETED", 1)}
            assert assigned(house, "shaky")

    def test_write_schedule_outputs(self):
        """Scheduled rows have the fields of Phase 19; of a wave that nobody carried out every actual column is null."""
        made = files_of.contents_of(example())
        names = "task_id agent_id wave scheduled_start_time scheduled_end_time actual_start_time actual_end_time priority status"
        found = [row for n in range(4) for row in lines(made[f"wave_3/agent_{n}/scheduled_tasks.jsonl"])]
        assert len(found) == 6
        for row in found:
            assert list(row) == [*names.split(), "confidence", "retry_count"]
            assert (row["actual_start_time"], row["actual_end_time"], row["retry_count"]) == (None, None, None)
            assert row["scheduled_end_time"] > row["scheduled_start_time"] >= 0
        once = [row for n in range(4) for row in lines(made[f"wave_1/agent_{n}/execution_outcomes.jsonl"])]
        assert {row["task_id"] for row in once} == {"fetch-1", "build-1", "unit-1", "api-1", "docs-1"}


class TestOptimizationFeedbackLoop:
    def test_evaluate_schedule_outcome(self):
        """A schedule that was carried out is held against its outcomes: success, throughput, and how well the plan held."""
        made = compared(example().waves[0].held)
        assert (made.strategy, made.tasks, made.compared_tasks) == ("load_balanced", 5, 5)
        assert (made.planned_success_rate, made.actual_success_rate) == (pytest.approx(0.9), 0.8)
        assert (made.planned_throughput, made.actual_throughput) == (pytest.approx(5 / 9), pytest.approx(5 / 11.8))
        assert made.accuracy_score == pytest.approx((0.9 + 9 / 11.8) / 2)
        assert compared(example().waves[2].held).accuracy_score is None

    def test_generate_feedback_events(self):
        """Every task whose outcome is recorded is an event that says what was predicted of it, and no other is."""
        found = lines(files_of.contents_of(example())["feedback_events.jsonl"])
        assert len(found) == 11
        failed = {row["task_id"]: row for row in found if row["event_type"] == "task_failure"}
        assert failed.keys() == {"api-1", "load-2"}
        assert failed["api-1"]["data"]["predicted_success_rate"] == 0.8
        moved = next(row for row in found if row["task_id"] == "api-2")
        assert (moved["agent_id"], moved["data"]["planned_agent_id"]) == ("agent_0", "agent_2")

    def test_generate_learning_signals(self):
        """Outcomes teach about their strategy, heuristics and agents, each with a confidence; without outcomes nothing is taught."""
        found = findings_of(example(), HealthThresholds()).feedback
        assert {lesson.feedback_type for lesson in found} == {"strategy_validation", "heuristic_update", "agent_performance"}
        assert all(0 <= lesson.confidence <= 1 and lesson.target_phase in {16, 18} for lesson in found)
        weak = next(lesson for lesson in found if lesson.feedback_id.endswith("agent_2"))
        assert weak.recommendation == "lower what is predicted of it"
        untried = wave(1, slot("t", heuristics=("h",)))
        assert opt.feedback([untried], opt.heuristic_records([untried], {})) == []

    def test_update_heuristic_weights(self):
        """A weight is multiplied by observed over expected successes, shrunk by twenty tasks; one that was not tried stays."""
        tried = wave(1, *(slot(f"t{n}", success=n < 2, heuristics=("h", "h")) for n in range(10)))
        records = {one.heuristic_id: one for one in opt.heuristic_records([tried], {"h": 1.1, "other": 0.9})}
        assert records["h"].weight == pytest.approx(1.1 * (20 + 2) / (20 + 8))
        assert (records["h"].samples, records["h"].successes) == (10, 2)
        assert (records["other"].weight, records["other"].samples) == (0.9, 0)
        written = codec.decode(files_of.contents_of(example())["heuristic_weights.json"])
        assert written["H16_001"] == pytest.approx(1.05 * (20 + 4) / (20 + 3.6))
        assert written["H16_002"] < 1.0

    def test_evaluate_strategy_effectiveness(self):
        """A strategy is worth the mean accuracy of its plans; one whose waves nobody carried out is worth nobody knows what."""
        good = wave(1, slot("t", success=True, predicted=1.0))
        poor = wave(2, slot("t", success=False, predicted=1.0))
        untried = wave(3, slot("t"), strategy="thompson")
        assert opt.strategy_effectiveness([good, poor, untried]) == {"maximize_success": 0.5, "thompson": None}

    def test_write_feedback_outputs(self):
        """Feedback and learning signals have the fields of Phase 19, and the newest timestamp of the input, not the time of writing."""
        made = files_of.contents_of(example())
        names = "feedback_id feedback_type confidence description recommendation supporting_evidence target_phase timestamp"
        for row in lines(made["optimization_feedback.jsonl"]):
            assert list(row) == names.split()
            assert row["timestamp"] == "2026-03-02T06:20:00+00:00"
        assert made["learning_signals.jsonl"] == made["optimization_feedback.jsonl"]
        fields = "wave planned_success_rate actual_success_rate planned_throughput actual_throughput planned_confidence_delta"
        known = [*fields.split(), "actual_confidence_delta", "accuracy_score"]
        assert all(list(row)[:8] == known for row in lines(made["schedule_comparisons.jsonl"]))


class TestOptimizationMonitor:
    def test_calculate_metrics(self):
        """The five metrics, by hand: accuracy, throughput, utilization, confidence and adherence of one wave."""
        slots = (
            slot("t", success=True, predicted=0.9, starts_s=0.0, ends_s=4.0, started_s=0.0, ended_s=4.0),
            slot("u", success=False, predicted=0.7, starts_s=4.0, ends_s=8.0, started_s=4.0, ended_s=10.0, busy_s=3.0),
        )
        facts, _ = learned(msgspec.structs.replace(wave(1, *slots), agents=("a", "b")), {"a": Shown(20, 20)})
        found = {reading.metric_name: reading.value for reading in opt.readings([facts])}
        assert found == {
            "schedule_accuracy": pytest.approx((1 - 0.3 + 0.8) / 2),
            "throughput_efficiency": pytest.approx(0.8),
            "agent_utilization": pytest.approx((0.7 + 0.0) / 2),
            "confidence_trajectory": pytest.approx(((16 + 21) / 42) / ((16 + 20) / 40)),
            "schedule_adherence": pytest.approx((1.0 + 1 - 2 / 16) / 2),
        }
        assert {reading.status for reading in opt.readings([wave(1, slot("t"))])} == {"unknown"}

    def test_detect_anomalies_prediction_error(self):
        """A wave whose success is more than 0.2 off what was planned is an anomaly that names it; fewer than three tasks say nothing."""
        off = wave(2, *(slot(f"t{n}", success=n == 0, predicted=0.9) for n in range(3)))
        found = {one.sign.anomaly_type: one for one in opt.seen([off])}
        assert found["prediction_error"].sighting.value == pytest.approx(0.9 - 1 / 3)
        assert (found["prediction_error"].sighting.waves, found["prediction_error"].sighting.agents) == ((2,), ("a",))
        assert found["prediction_error"].sign.severity is Severity.MEDIUM
        assert not opt.seen([wave(2, *off.slots[:2])])
        assert not opt.seen([wave(1, *(slot(f"t{n}", success=True) for n in range(3)))])

    def test_detect_anomalies_schedule_drift(self):
        """A wave that keeps to its schedule by less than 0.85 has drifted, and the agents that strayed are named."""
        kept = slot("t", success=True, agent_id="b", ran_by="b")
        moved = slot("u", success=True, agent_id="a", ran_by="b")
        found = opt.seen([wave(1, kept), wave(2, kept, moved)])
        assert [one.sign.anomaly_type for one in found] == ["schedule_drift"]
        assert (found[0].sighting.value, found[0].sighting.waves, found[0].sighting.agents) == (0.5, (2,), ("a",))

    def test_generate_system_health(self):
        """Health is 0.4 accuracy, 0.3 adherence, 0.2 throughput and 0.1 stability: the parts of Phase 19's file give its score."""
        values = {"schedule_accuracy": 0.9791666666666666, "throughput_efficiency": 0.9875, "schedule_adherence": 0.7}
        measured = tuple(opt.read(gauge, values.get(gauge.metric_name)) for gauge in opt.GAUGES)
        made = opt.health(measured, 1, HealthThresholds())
        assert round(made.overall_health_score, 2) == 88.92
        assert made.health_status is Grade.GOOD
        assert made.component_scores["system_stability"] == 90.0
        nothing = tuple(opt.read(gauge, None) for gauge in opt.GAUGES)
        assert opt.health(nothing, 0, HealthThresholds()).health_status is Grade.UNKNOWN

    def test_write_monitoring_outputs(self):
        """Metrics, anomalies, alerts and health have the fields of Phase 19 and say the same as each other."""
        made = files_of.contents_of(example())
        metrics, anomalies = lines(made["metrics.jsonl"]), lines(made["anomalies.jsonl"])
        health = codec.decode(made["system_health.json"])
        names = "metric_name value unit target_value threshold_min threshold_max status timestamp"
        assert [list(row) for row in metrics] == [names.split()] * 5
        assert [row["value"] for row in metrics] == [row["value"] for row in health["optimization_metrics"]]
        assert health["detected_anomalies"] == len(anomalies) == 2
        assert {row["anomaly_type"] for row in anomalies} == {"schedule_drift", "optimization_failure"}
        assert 0 <= health["overall_health_score"] <= 100
        assert [row["severity"] for row in codec.decode(made["alerts.json"])] == ["high"]


class TestPhase19Harness:
    @pytest.mark.looptime
    async def test_harness_initialization(self, tmp_path):
        """The house begins with the strategy that the settings name, over their agents, and with nothing to do."""
        async with house_in(tmp_path, configured(agents={"count": 3}, manager={"strategy": "maximize_success"})) as house:
            accept(house, "r", [sure("t")])
            await finished(house)
            plans = events_of(house, ev.WavePlanned)
            assert [made.strategy for made in plans] == ["maximize_success"]
            assert sorted(one.agent_id for one in house.journal.ledger.agents.values()) == ["agent_0", "agent_1", "agent_2"]

    def test_load_phase18_data(self):
        """Folders are read together, those within as well; what is broken refuses the whole and says where."""
        whole = read_folders([str(EXAMPLE)])
        parts = read_folders([str(EXAMPLE / "phase18"), str(EXAMPLE / "phase19")])
        assert (whole.agents, whole.tasks, whole.recorded) == (parts.agents, parts.tasks, parts.recorded)
        assert {number: len(tasks) for number, tasks in whole.tasks.items()} == {1: 5, 2: 6, 3: 6}
        with pytest.raises(Phase21Error, match="there is no such folder"):
            read_folders([str(EXAMPLE / "phase17")])

    def test_optimize_wave(self):
        """A wave is planned from what is known before it: the same task is given a lower rate once its agent's failures are known."""
        known = read_folders([str(EXAMPLE)])
        blind = msgspec.structs.replace(known, recorded={})
        seeing, not_seeing = (studied(found, Asked(strategy="round_robin")) for found in (known, blind))

        def rate(study, number):
            return next(one.predicted for one in study.waves[number - 1].plan.slots if one.agent_id == "agent_2")

        assert rate(seeing, 1) == rate(not_seeing, 1)
        assert rate(seeing, 3) < rate(not_seeing, 3)

    @pytest.mark.looptime
    async def test_execute_wave_dry_run(self, tmp_path):
        """A dry run teaches nothing: what is predicted of an agent afterwards is what was predicted before."""
        async with house_in(tmp_path, configured(execution={"dry_run": True})) as house:
            accept(house, "r", [doomed(f"t{n}", payload={"success_rate": 0.0}) for n in range(8)], [task("next")])
            await finished(house)
            assert all(one.calibration == Calibration() for one in house.journal.ledger.agents.values())
            assert [given.predicted for given in _assignments(house, "next")] == [0.85]

    def test_generate_feedback(self):
        """What the schedules taught is for Phase 16 where it is about strategies and heuristics, for Phase 18 where about agents."""
        found = findings_of(example(), HealthThresholds()).feedback
        by_phase = {phase: {one.feedback_type for one in found if one.target_phase == phase} for phase in (16, 18)}
        assert by_phase == {16: {"strategy_validation", "heuristic_update"}, 18: {"agent_performance"}}

    def test_monitor_optimization(self):
        """Success that falls over waves, and a strategy that misses its aim, are seen, and only from enough tasks."""
        good = wave(1, *(slot(f"t{n}", success=True, predicted=0.9) for n in range(6)))
        bad = wave(2, *(slot(f"t{n}", success=n < 3, predicted=0.9) for n in range(6)))
        found = {one.sign.anomaly_type: one.sighting for one in opt.seen([good, bad])}
        assert found["performance_degradation"].value == pytest.approx(0.5)
        assert found["performance_degradation"].waves == (2,)
        assert found["optimization_failure"].value == pytest.approx(0.5 / 0.9)
        assert not {one.sign.anomaly_type for one in opt.seen([bad, good])} & {"performance_degradation"}

    @pytest.mark.looptime
    async def test_run_phase19_complete_pipeline(self, tmp_path):
        """From a plan's tasks through the house in a dry run to every file, and the files follow from the journal, byte for byte."""
        tasks = [[msgspec.structs.replace(one, kind="simulate") for one in found.tasks.values()] for found in example().waves]
        settings = configured(execution={"dry_run": True}, manager={"strategy": "maximize_success"})
        async with house_in(tmp_path, settings) as house:
            accept(house, "r", *tasks)
            await finished(house)
            made = files_of.projected("r", closed_waves("r", house.journal.entries_of("r")))
            again = files_of.projected("r", closed_waves("r", list(house.journal.entries_of("r"))))
            found = executed(tmp_path, "r")
        assert made == again
        assert made.keys() >= TREE
        outcomes = [row for name, data in made.items() if name.endswith("execution_outcomes.jsonl") for row in lines(data)]
        assert {(row["task_id"], row["agent_id"], row["status"]) for row in outcomes} == {
            (row["task_id"], row["agent_id"], row["status"].lower()) for row in found
        }

    def test_output_files_generated(self, tmp_path):
        """Real Phase 19 files give the whole tree again: the same tasks, waves and agents, and outcomes that were recorded there."""
        known = read_folders([upstream("phase19")])
        files_of.put(tmp_path / "p", files_of.contents_of(studied(known, Asked())))
        for number in (1, 2, 3):
            folder = tmp_path / "p" / f"wave_{number}"
            for name in ("agent_0", "agent_1", "agent_2", "agent_3"):
                assert {path.name for path in (folder / name).iterdir()} >= OF_AN_AGENT
            summary = codec.decode((folder / "wave_summary.json").read_bytes())
            assert (summary["total_tasks"], summary["actual_success_rate"]) == (4, 1.0)
            assert summary["actual_throughput"] == pytest.approx(131.14754098360658)
        compared_rows = rows(tmp_path / "p" / "schedule_comparisons.jsonl")
        assert [row["planned_success_rate"] for row in compared_rows] == [0.736, 0.7345, 0.7330000000000001]


def _assignments(house, task_id):
    return [one for entry in entries(house, ev.TasksAssigned) for one in entry.event.assignments if one.task_id == task_id]


class TestPhase19Integration:
    @pytest.mark.looptime
    async def test_end_to_end_optimization(self, tmp_path):
        """Where agents differ in what they can do, waves by predicted success succeed more often than waves in turn."""

        async def share(strategy: str) -> float:
            folder = tmp_path / strategy
            settings = configured(manager={"strategy": strategy}, retry={"max_attempts": 1}, learning={"exploration": 0.0})
            async with house_in(folder, settings) as house:
                skilled = [
                    task(f"t{n}", predictions={f"agent_{m}": 0.95 if m == n else 0.7 for m in range(4)}) for n in (3, 2, 1, 0)
                ]
                waves = [[msgspec.structs.replace(one, task_id=f"{one.task_id}-{w}") for one in skilled] for w in range(30)]
                accept(house, "r", *waves)
                await finished(house)
                study = study_of_run("r", closed_waves("r", house.journal.entries_of("r")))
                held = [compared(facts) for facts in study.held]
                assert all(made.compared_tasks == 4 for made in held)
                return sum(made.actual_success_rate for made in held) / len(held)

        assert await share("maximize_success") > await share("round_robin") + 0.1

    @pytest.mark.looptime
    async def test_feedback_loop_integration(self, tmp_path):
        """What a wave's outcomes say of an agent changes what is predicted of it, and who gets the next wave's tasks."""
        settings = configured(agents={"count": 2}, manager={"strategy": "maximize_success"}, retry={"max_attempts": 1})
        async with house_in(tmp_path, settings) as house:
            first = [doomed(f"bad-{n}", agent_id="agent_0") for n in range(12)] + [
                sure(f"good-{n}", agent_id="agent_1") for n in range(12)
            ]
            accept(house, "r", first, [sure(f"next-{n}") for n in range(2)])
            await finished(house)
            found = {one.agent_id: one.predicted for n in range(2) for one in _assignments(house, f"next-{n}")}
            assert found.keys() == {"agent_1"}
            assert found["agent_1"] > 0.7
            study = study_of_run("r", closed_waves("r", house.journal.entries_of("r")))
            assert study.shown["agent_0"] == Shown(12, 0)
            told = {one.feedback_id: one for one in findings_of(study, Settings().health.thresholds).feedback}
            assert told["P19_LS_AGENT_PERFORMANCE_agent_0"].recommendation == "lower what is predicted of it"


def test_real_comparisons_give_the_accuracy_that_stands_beside_them():
    """The formula of accuracy is the one behind Phase 19's own comparisons, and so are metrics made of them."""
    found = rows(Path(upstream("phase19")) / "schedule_comparisons.jsonl")
    for row in found:
        pairs = [(row[f"planned_{name}"], row[f"actual_{name}"]) for name in ("success_rate", "throughput", "confidence_delta")]
        assert accuracy(*pairs) == pytest.approx(row["accuracy_score"])


def test_real_tasks_of_phase_20_are_planned():
    """Phase 20's tasks, which stand under every agent, are planned once each, with their predicted confidence delta."""
    study = studied(read_folders([upstream("phase20")]), Asked())
    assert [len(found.plan.slots) for found in study.waves] == [4, 4, 4]
    assert all(one.planned_delta is not None for found in study.waves for one in found.plan.slots)
    assert study.waves[0].tasks["task_1_1"].risk_level is RiskLevel.LOW
    assert isinstance(study.waves[0].tasks["task_1_1"], Task)
