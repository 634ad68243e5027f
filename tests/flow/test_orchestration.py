"""The twenty-nine tests that the completion summary of the design names, each against the real thing.

The names are the design's; a method that it names has become a verb of the house (the monitor's metrics, say, are
`evaluation.metrics.measure`), and what each test asks of it is the same.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from players import Scripted, after, assigned, entries, put_on
from stage import accept, configured, executed, finished, house_in, rows, statuses, task

from phase21.domain import events as ev
from phase21.domain.judgements import Grade
from phase21.domain.records import AgentRecord
from phase21.domain.settings import FeedbackSettings, RetrySettings, Settings
from phase21.domain.tasks import Task
from phase21.evaluation.anomalies import detect
from phase21.evaluation.metrics import measure
from phase21.evaluation.scoring import score
from phase21.intake.predictions import read_folder
from phase21.intake.submissions import Submission
from phase21.planning.forecast import Forecast
from phase21.planning.planner import plan
from phase21.readers.folders import RunFolder
from phase21.store import codec

pytestmark = pytest.mark.looptime

AGENTS = ("agent_0", "agent_1", "agent_2", "agent_3")

STAY = configured(retry={"reassign": "never"})
"""The design knows retries by the same agent alone."""


@pytest.fixture
def temp_phase20_dir(tmp_path: Path) -> Path:
    """A Phase 20 folder: two waves, two agents, every task predicted for each agent."""
    root = tmp_path / "phase20"
    for wave in (1, 2):
        for agent, rate in (("agent_0", 0.9), ("agent_1", 0.6)):
            folder = root / f"wave_{wave}" / agent
            folder.mkdir(parents=True)
            names = [f"task_{wave}_{n}" for n in range(3)]
            tasks = [
                {"task_id": name, "agent_id": agent, "predicted_success_probability": rate, "predicted_execution_time": 2.0,
                 "risk_assessment": "LOW"}
                for name in names
            ]  # fmt: skip
            schedule = [{"task_id": name, "agent_id": agent, "wave": wave, "priority": 1} for name in names]
            (folder / "predicted_tasks.jsonl").write_bytes(codec.lines(tasks))
            (folder / "predicted_schedule.jsonl").write_bytes(codec.lines(schedule))
    return root


@pytest.fixture
def temp_output_dirs(tmp_path: Path) -> dict[str, Path]:
    """Where each neighbour reads its feedback."""
    return {phase: tmp_path / "neighbours" / phase for phase in ("phase16", "phase18", "phase20")}


@pytest.fixture
def sample_agents() -> list[AgentRecord]:
    """Four agents as the ledger knows them."""
    return [AgentRecord(agent_id=name, order=n) for n, name in enumerate(AGENTS)]


@pytest.fixture
def sample_tasks() -> list[Task]:
    """Eight tasks that the engine of these tests plays; the last two fail whatever is tried."""
    return [
        task(f"t{n}", kind="scripted", predicted_success_rate=0.8, estimated_duration_s=2.0, heuristics=["h1"]) for n in range(8)
    ]


def player() -> Scripted:
    return Scripted(**{f"t{n}": "2" for n in range(6)}, t6="fail", t7="fail")


async def carried_out(folder, tasks, settings=None, look=None):
    """A wave of sample tasks, carried out; `look` is given the house before it is left."""
    async with house_in(folder, settings) as house:
        put_on(house, player())
        accept(house, "r", tasks)
        await finished(house)
        return look(house) if look else None


def judged_wave(house):
    """A settled wave's record, as the journal tells it."""
    from phase21.domain.ledger import Ledger

    ledger = Ledger()
    for entry in house.journal.lookup.entries():
        if isinstance(entry.event, ev.HealthScored):
            return ledger.wave("r", 1)
        ledger.fold(entry)
    raise AssertionError("no wave was judged")


class TestAgentManager:
    async def test_agent_manager_initialization(self, tmp_path):
        """The manager has an inbox for every configured agent, and all of them stand IDLE in the ledger."""
        async with house_in(tmp_path) as house:
            assert tuple(house.fleet.inboxes) == AGENTS
            ledger = house.journal.ledger
            assert [(agent.agent_id, ledger.agent_status(agent)) for agent in ledger.present_agents()] == [
                (name, "IDLE") for name in AGENTS
            ]

    def test_load_phase20_predictions(self, temp_phase20_dir):
        """A task that stands under several agents is one task with a prediction for each."""
        waves = read_folder(str(temp_phase20_dir)).waves
        assert {wave: [task.task_id for task in tasks] for wave, tasks in waves.items()} == {
            1: ["task_1_0", "task_1_1", "task_1_2"], 2: ["task_2_0", "task_2_1", "task_2_2"],
        }  # fmt: skip
        assert waves[1][0].predictions == {"agent_0": 0.9, "agent_1": 0.6}
        assert waves[1][0].estimated_duration_s == 2.0

    @pytest.mark.parametrize("strategy", ["round_robin", "load_balanced", "priority_based", "confidence_based"])
    def test_assign_tasks_to_agents(self, sample_agents, sample_tasks, strategy):
        """Each strategy gives every task to one agent, and eight equal tasks evenly to four."""
        made = plan(sample_tasks, sample_agents, forecast=Forecast(sample_agents, enabled=True), strategy=strategy)
        assert sorted(given.task_id for given in made.assignments) == [f"t{n}" for n in range(8)]
        given_to = [given.agent_id for given in made.assignments]
        assert sorted(given_to) == sorted(AGENTS * 2)
        assert made.load_balance == 1.0

    async def test_evaluate_agent_performance(self, tmp_path, sample_tasks):
        """What an agent completed and failed is its record and its row in the summary."""

        def look(house):
            records = {agent.agent_id: agent.record for agent in house.journal.ledger.present_agents()}
            summary = codec.decode((tmp_path / "outputs/r/phase21_execution_summary.json").read_bytes())
            return records, summary["per_agent_metrics"]

        records, told = await carried_out(tmp_path, sample_tasks, look=look)
        assert records == {"agent_0": 1.0, "agent_1": 1.0, "agent_2": 0.5, "agent_3": 0.5}
        assert {name: (row["completed_tasks"], row["failed_tasks"]) for name, row in told.items()} == {
            "agent_0": (2, 0), "agent_1": (2, 0), "agent_2": (1, 1), "agent_3": (1, 1),
        }  # fmt: skip

    async def test_generate_coordination_plan(self, tmp_path, sample_tasks):
        """The plan's file says what was expected, and what it took where retries stay with their agents."""
        await carried_out(tmp_path, sample_tasks, STAY)
        told = codec.decode((tmp_path / "outputs/r/wave_1/coordination_plan.json").read_bytes())
        assert (told["wave"], told["strategy"], told["num_agents"], told["num_tasks"]) == (1, "load_balanced", 4, 8)
        assert (told["sequential_duration_s"], told["expected_duration_s"], told["parallelization_factor"]) == (16.0, 4.0, 4.0)
        assert told["load_balance"] == 1.0
        assert told["actual_duration_s"] == pytest.approx(4.0, abs=0.05)


class TestAgentExecutor:
    async def test_agent_executor_initialization(self, tmp_path):
        """The executor knows the engines of this house and has nothing under way."""
        async with house_in(tmp_path) as house:
            assert set(house.executor._engines.kinds) >= {"simulate", "command", "python"}
            assert not house.executor.stopping
            assert not house.executor._running

    async def test_execute_single_task(self, tmp_path, sample_tasks):
        """One task: its gates, its attempt, its one row."""
        await carried_out(tmp_path, sample_tasks[:1])
        (row,) = executed(tmp_path, "r")
        assert (row["task_id"], row["agent_id"], row["status"], row["success"], row["attempts"]) == (
            "t0", "agent_0", "COMPLETED", True, 1,
        )  # fmt: skip
        assert row["duration_s"] == 2.0
        (decision,) = rows(tmp_path / "outputs/r/safety_gate_decisions.jsonl")
        assert (decision["verdict"], decision["attempt"], decision["confidence"]) == ("APPROVED", 1, 0.8)

    async def test_execute_wave_tasks(self, tmp_path, sample_tasks):
        """Every task of a wave ends, those that fail after all their attempts."""
        await carried_out(tmp_path, sample_tasks)
        found = {row["task_id"]: row for row in executed(tmp_path, "r")}
        assert {name: row["status"] for name, row in found.items()} == {
            **{f"t{n}": "COMPLETED" for n in range(6)}, "t6": "FAILED", "t7": "FAILED",
        }  # fmt: skip
        assert found["t6"]["attempts"] == Settings().retry.max_attempts
        assert found["t6"]["error_msg"] == "lost"

    def test_apply_retry_strategy(self):
        """Exponential, linear and no retry, each as its formula says, never above the most."""

        def delays(**fields):
            policy = RetrySettings(**fields).policy()
            return [policy.delay_after(n) for n in (1, 2, 3)]

        from phase21.domain.retry import RetryStrategy

        assert delays(base_delay=1.0) == [1.0, 2.0, 4.0]
        assert delays(base_delay=1.0, max_delay=3.0) == [1.0, 2.0, 3.0]
        assert delays(base_delay=1.0, strategy=RetryStrategy.LINEAR_BACKOFF) == [1.0, 2.0, 3.0]
        assert RetrySettings(strategy=RetryStrategy.NO_RETRY).policy().attempts_allowed(9) == 1

    async def test_collect_execution_metrics(self, tmp_path, sample_tasks):
        """An agent's metrics are the figures of its own tasks in the wave."""
        await carried_out(tmp_path, sample_tasks, STAY)
        path = tmp_path / "outputs/r/wave_1/agent_2/agent_metrics.jsonl"
        values = {row["metric_name"]: row["value"] for row in rows(path)}
        assert values == {
            "assigned_tasks": 2, "completed_tasks": 1, "failed_tasks": 1, "success_rate": 0.5, "mean_latency_s": 1.0,
            "retries": 2, "load": 2,
        }  # fmt: skip


class TestPhase21FeedbackLoop:
    async def test_feedback_loop_initialization(self, tmp_path):
        """The loop follows the journal from the start, and says nothing before a wave is judged."""
        async with house_in(tmp_path) as house:
            await after(house, 1)
            assert "feedback" in {follower.name for follower in house.journal._fence}
            assert not entries(house, ev.SignalsSent)

    async def test_evaluate_agent_outcomes(self, tmp_path, sample_tasks):
        """What was predicted is set beside what happened, task by task."""
        await carried_out(tmp_path, sample_tasks)
        found = {row["prediction_id"]: row for row in rows(tmp_path / "outputs/r/phase20/prediction_validation_feedback.jsonl")}
        assert len(found) == 8
        assert (found["t0"]["actual_success"], found["t0"]["confidence_delta"]) == (1.0, pytest.approx(0.2))
        assert (found["t7"]["actual_success"], found["t7"]["confidence_delta"]) == (0.0, pytest.approx(-0.8))

    async def test_generate_feedback_signals(self, tmp_path, sample_tasks):
        """All four kinds of signal are sent, each to its phase, with a confidence from 0 to 1."""
        await carried_out(tmp_path, sample_tasks)
        found = rows(tmp_path / "outputs/r/phase21_learning_signals.jsonl")
        counts = {}
        for row in found:
            key = (row["signal_type"], row["target_phase"])
            counts[key] = counts.get(key, 0) + 1
            assert 0.0 <= row["confidence"] <= 1.0
        assert counts == {
            ("agent_performance", 18): 4, ("multi_agent_coordination", 18): 1, ("prediction_validation", 20): 8,
            ("heuristic_feedback", 16): 1,
        }  # fmt: skip

    async def test_write_feedback_outputs(self, tmp_path, temp_output_dirs, sample_tasks):
        """Feedback reaches the neighbours' own folders as well, the same lines."""
        folders = {f"{phase}_dir": str(path) for phase, path in temp_output_dirs.items()}
        await carried_out(tmp_path, sample_tasks, configured(feedback=folders))
        for phase, name in (
            ("phase16", "heuristic_feedback.jsonl"),
            ("phase18", "coordination_feedback.jsonl"),
            ("phase20", "prediction_validation_feedback.jsonl"),
        ):
            own = (tmp_path / "outputs/r" / phase / name).read_bytes()
            assert own
            assert (temp_output_dirs[phase] / name).read_bytes() == own


class TestPhase21Monitor:
    async def test_monitor_initialization(self, tmp_path):
        """The monitor follows the journal from the start, and judges nothing before a wave is settled."""
        async with house_in(tmp_path) as house:
            await after(house, 1)
            assert "monitor" in {follower.name for follower in house.journal._fence}
            assert not entries(house, ev.HealthScored)

    async def test_calculate_metrics(self, tmp_path, sample_tasks):
        """The figures of a wave of which six of eight succeeded at a predicted 0.8."""

        def look(house):
            metrics, _ = measure(judged_wave(house), house.journal.ledger.present_agents())
            return metrics

        metrics = await carried_out(tmp_path, sample_tasks, look=look)
        assert metrics.success_rate == 0.75
        assert metrics.availability == 1.0
        assert metrics.load_balance == 1.0
        assert metrics.confidence == pytest.approx(0.8)
        assert metrics.prediction_error == pytest.approx(0.05)
        assert metrics.accuracy == pytest.approx(0.95)
        assert metrics.brier_score == pytest.approx((6 * 0.04 + 2 * 0.64) / 8)

    async def test_detect_anomalies(self, tmp_path):
        """A failing agent, drift, uneven loads and lack of coordination are each seen for what they are."""
        async with house_in(tmp_path) as house:
            put_on(house, Scripted(**{f"bad{n}": "fail" for n in range(4)}))
            bad = [task(f"bad{n}", kind="scripted", agent_id="agent_0", predicted_success_rate=0.9) for n in range(4)]
            accept(house, "r", [*bad, task("good", kind="scripted", agent_id="agent_1", predicted_success_rate=0.9)])
            await finished(house)
        found = {row["anomaly_type"]: row for row in rows(tmp_path / "outputs/r/anomalies.jsonl")}
        assert set(found) == {"agent_failure", "prediction_drift", "load_imbalance", "coordination_issue"}
        assert (found["agent_failure"]["agent_id"], found["agent_failure"]["severity"]) == ("agent_0", "HIGH")
        assert found["prediction_drift"]["value"] == pytest.approx(0.7)
        assert detect.__module__ == "phase21.evaluation.anomalies"

    async def test_generate_system_health(self, tmp_path, sample_tasks):
        """Health is 100 * (0.40 success + 0.20 availability + 0.20 accuracy + 0.20 balance), and has a name."""

        def look(house):
            metrics, agents = measure(judged_wave(house), house.journal.ledger.present_agents())
            return score(metrics, agents, Settings().health)

        health = await carried_out(tmp_path, sample_tasks, look=look)
        assert health.score == pytest.approx(100 * (0.4 * 0.75 + 0.2 + 0.2 * 0.95 + 0.2))
        assert health.status is Grade.GOOD
        told = codec.decode((tmp_path / "outputs/r/phase21_system_health.json").read_bytes())
        assert (told["health_score"], told["health_status"]) == (health.score, "GOOD")


class TestPhase21Harness:
    async def test_harness_initialization(self, tmp_path):
        """With nothing to do the harness is idle, and stops when told."""
        async with house_in(tmp_path) as house:
            async with asyncio.timeout(1):
                await house.harness.idle()
            await house.stop("test", 1)
            assert not entries(house, ev.WaveOpened)

    async def test_harness_has_components(self, tmp_path):
        """A house has a manager, a fleet, an executor, and readers that monitor, teach and write."""
        async with house_in(tmp_path) as house:
            await after(house, 0.1)
            assert {task.get_name() for task in house.readers} >= {"monitor", "feedback", "outputs", "harness", "fleet"}
            assert house.manager._desk._inboxes is house.fleet.inboxes
            assert {follower.name for follower in house.journal._fence} >= {"monitor", "feedback", "outputs"}

    async def test_load_phase20_data(self, tmp_path, temp_phase20_dir):
        """A Phase 20 folder becomes a run with its waves, journaled whole at acceptance."""
        async with house_in(tmp_path) as house:
            house.receiver.accept(Submission(run_id="r", submission_id="s1", predictions=str(temp_phase20_dir)))
            await house.journal.durable()
            (accepted,) = entries(house, ev.SubmissionAccepted)
            assert {wave: len(tasks) for wave, tasks in accepted.event.waves.items()} == {1: 3, 2: 3}
            await finished(house)
            assert len(executed(tmp_path, "r")) == 6

    async def test_create_output_directories(self, tmp_path, sample_tasks):
        """Folders stand only for agents that had tasks, and only their owner may look."""
        await carried_out(tmp_path, sample_tasks[:2])
        wave = tmp_path / "outputs/r/wave_1"
        assert sorted(path.name for path in wave.iterdir()) == ["agent_0", "agent_1", "coordination_plan.json"]
        for path in (tmp_path / "outputs").rglob("*"):
            assert path.stat().st_mode & 0o077 == 0, path
        assert RunFolder(tmp_path / "outputs", "r", FeedbackSettings()).path == wave.parent

    async def test_execute_wave(self, tmp_path, sample_tasks):
        """A wave is opened, planned, settled, scored, taught and written, in this order."""

        def look(house):
            kinds = (ev.WaveOpened, ev.WavePlanned, ev.WaveSettled, ev.HealthScored, ev.PredictionsCalibrated, ev.OutputsWritten)
            return [type(entry.event) for entry in entries(house, *kinds)] == list(kinds)

        assert await carried_out(tmp_path, sample_tasks, look=look)

    async def test_generate_phase21_report(self, tmp_path, sample_tasks):
        """The report names the run, its waves, its agents, and what was out of the ordinary."""
        await carried_out(tmp_path, sample_tasks)
        report = (tmp_path / "outputs/r/PHASE_21_AUTONOMOUS_EXECUTION.md").read_text()
        for word in ("# ", "agent_3", "GOOD", "75"):
            assert word in report
        summary = codec.decode((tmp_path / "outputs/r/phase21_execution_summary.json").read_bytes())
        counts = ("total_tasks", "completed_tasks", "failed_tasks", "deferred_tasks", "cancelled_tasks", "waves")
        assert [summary[name] for name in counts] == [8, 6, 2, 0, 0, 1]
        assert summary["success_rate"] == 0.75


class TestPhase21Integration:
    async def test_end_to_end_single_wave(self, tmp_path, sample_tasks):
        """One wave leaves every file that the contract names."""
        await carried_out(tmp_path, sample_tasks)
        run = tmp_path / "outputs/r"
        for name in (
            "wave_1/agent_0/agent_assignments.jsonl", "wave_1/agent_0/executed_tasks.jsonl", "wave_1/agent_0/agent_metrics.jsonl",
            "wave_1/agent_0/agent_feedback.jsonl", "wave_1/coordination_plan.json", "phase21_system_health.json",
            "phase21_execution_summary.json", "phase21_learning_signals.jsonl", "safety_gate_decisions.jsonl", "anomalies.jsonl",
            "phase16/heuristic_feedback.jsonl", "phase18/coordination_feedback.jsonl",
            "phase20/prediction_validation_feedback.jsonl", "PHASE_21_AUTONOMOUS_EXECUTION.md",
        ):  # fmt: skip
            assert (run / name).is_file(), name

    async def test_end_to_end_multi_wave(self, tmp_path, temp_phase20_dir):
        """From a Phase 20 folder through two waves, one after the other, to a summary."""
        async with house_in(tmp_path) as house:
            house.receiver.accept(Submission(run_id="r", submission_id="s1", predictions=str(temp_phase20_dir)))
            await finished(house)
            order = [(type(entry.event), entry.event.wave) for entry in entries(house, ev.WaveOpened, ev.HealthScored)]
        assert order == [(ev.WaveOpened, 1), (ev.HealthScored, 1), (ev.WaveOpened, 2), (ev.HealthScored, 2)]
        told = codec.decode((tmp_path / "outputs/r/phase21_system_health.json").read_bytes())
        assert [wave["wave"] for wave in told["history"]] == [1, 2]

    async def test_agent_parallel_execution(self, tmp_path):
        """Four agents work side by side: four tasks of ten seconds take ten."""
        async with house_in(tmp_path) as house:
            engine = Scripted(**{f"t{n}": "10" for n in range(4)})
            put_on(house, engine)
            accept(house, "r", [task(f"t{n}", kind="scripted") for n in range(4)])
            begun = asyncio.get_running_loop().time()
            await finished(house)
            assert engine.most_running == 4
            assert asyncio.get_running_loop().time() - begun == pytest.approx(10, abs=0.1)
            assert sorted(agent for n in range(4) for agent in assigned(house, f"t{n}")) == list(AGENTS)

    @pytest.mark.parametrize("enabled", [True, False])
    async def test_feedback_loop_integration(self, tmp_path, enabled):
        """What a wave taught corrects the next wave's predictions, unless learning is switched off."""
        settings = configured(agents={"count": 1}, learning={"enabled": enabled}, retry={"strategy": "no_retry"})
        async with house_in(tmp_path, settings) as house:
            put_on(house, Scripted(**{f"bad{n}": "fail" for n in range(10)}))
            first = [task(f"bad{n}", kind="scripted", predicted_success_rate=0.9) for n in range(10)]
            accept(house, "r", first, [task("next", kind="scripted", predicted_success_rate=0.9)])
            await finished(house)
        (row,) = rows(tmp_path / "outputs/r/wave_2/agent_0/agent_assignments.jsonl")
        assert row["raw_predicted_success_rate"] == 0.9
        if enabled:
            assert row["predicted_success_rate"] == pytest.approx((20 * 0.9 + 0) / 30)
        else:
            assert row["predicted_success_rate"] == 0.9

    async def test_monitoring_throughout_execution(self, tmp_path):
        """Health is scored after each wave, and a fall in success is seen in the wave in which it happened."""
        async with house_in(tmp_path) as house:
            put_on(house, Scripted(**{f"b{n}": "fail" for n in range(4)}))
            waves = [[task(f"{name}{n}", kind="scripted") for n in range(4)] for name in ("a", "b", "c")]
            accept(house, "r", *waves)
            await finished(house)
        told = codec.decode((tmp_path / "outputs/r/phase21_system_health.json").read_bytes())
        assert [wave["metrics"]["success_rate"] for wave in told["history"]] == [1.0, 0.0, 1.0]
        drops = [row["wave"] for row in rows(tmp_path / "outputs/r/anomalies.jsonl") if row["anomaly_type"] == "success_drop"]
        assert drops == [2]
        assert statuses(executed(tmp_path, "r"))["c0"] == "COMPLETED"
