"""The files of an optimization, and their report."""

from __future__ import annotations

import msgspec
import pytest

from phase21.domain.errors import UsageError
from phase21.domain.settings import HealthThresholds
from phase21.domain.tasks import Task
from phase21.evaluation.schedules import Slot
from phase21.intake.performance import AgentShown, Performance
from phase21.readers.inquiries import optimization, schedule_report
from phase21.readers.inquiries.optimization import contents_of, projected, put
from phase21.readers.inquiries.studies import Asked, findings_of, studied
from phase21.store import codec


def study(waves=1, tasks=3, outcomes=(), **fields):
    made = {n: tuple(Task(task_id=f"t{n}-{m}", heuristics=("h|1",)) for m in range(tasks)) for n in range(1, waves + 1)}
    recorded = {
        n: tuple(
            Slot(
                task_id=f"t{n}-{m}",
                agent_id="a",
                predicted=0.9,
                heuristics=("h|1",),
                settled=True,
                success=won,
                ran_by="a",
                starts_s=0.0,
                ends_s=1.0,
                started_s=0.0,
                ended_s=1.0,
            )
            for m, won in enumerate(of_wave)
        )
        for n, of_wave in enumerate(outcomes, 1)
    }
    known = Performance(
        agents=(AgentShown(agent_id="a", success_rate=0.8, tasks=5), AgentShown(agent_id="b")),
        tasks=made,
        recorded=recorded,
        results=(),
        weights={},
        patterns={},
        coordination=(),
        health=None,
        signals=0,
        newest=None,
    )
    return studied(msgspec.structs.replace(known, **fields), Asked(strategy="round_robin"))


def report(made):
    return schedule_report.render(made, findings_of(made, HealthThresholds()))


def decoded(made, name):
    return codec.decode(contents_of(made)[name])


def test_without_tasks_the_files_of_the_whole_stand_all_the_same():
    """A Phase 18 folder alone plans nothing and says so; every figure that nobody knows is null."""
    empty = study(waves=0)
    made = contents_of(empty)
    assert not [name for name in made if "/" in name]
    assert decoded(empty, "optimization_summary.json")["metrics"] == {
        "optimization_efficiency": None,
        "prediction_accuracy": None,
        "schedule_quality": None,
    }
    assert "there is nothing to plan" in report(empty)
    assert decoded(empty, "system_health.json")["health_status"] == "UNKNOWN"


def test_efficiency_is_against_the_best_agent_for_each_task():
    """A plan that gives some tasks to less able agents expects less than one that gives all to the best."""
    apart = tuple(Task(task_id=f"t{m}", predictions={"a": 0.9, "b": 0.6}) for m in range(2))
    split = studied(
        Performance(
            agents=(AgentShown(agent_id="a"), AgentShown(agent_id="b")),
            tasks={1: apart},
            recorded={},
            results=(),
            weights={},
            patterns={},
            coordination=(),
            health=None,
            signals=0,
            newest=None,
        ),
        Asked(strategy="round_robin"),
    )
    metrics = decoded(split, "optimization_summary.json")["metrics"]
    assert metrics["optimization_efficiency"] == pytest.approx(1.5 / 1.8)
    assert metrics["schedule_quality"] == pytest.approx(100 * 1.5 / 1.8)


def test_prediction_accuracy_is_one_less_the_mean_gap():
    """Of waves whose outcomes are known; the others say nothing."""
    made = study(waves=3, outcomes=[(True, True, True), (True, False, False)])
    assert decoded(made, "optimization_summary.json")["metrics"]["prediction_accuracy"] == pytest.approx(
        1 - (0.1 + 0.9 - 1 / 3) / 2
    )


def test_anomalies_and_critical_metrics_are_alerts():
    """What is of high severity or critical is for a person, and says why in one line."""
    made = study(waves=3, outcomes=[(True, True, True), (False, False, False), (False, False, False)])
    alerts = {one["source"]: one for one in decoded(made, "alerts.json")}
    assert alerts["performance_degradation"]["severity"] == "high"
    assert alerts["schedule_accuracy"]["message"].startswith("schedule_accuracy is ")
    assert {one["severity"] for one in alerts.values()} == {"high", "critical"}
    said = report(made)
    assert "| performance_degradation | HIGH | 3 |" in said
    assert "h\\|1" in said


def test_a_report_says_what_is_not_known():
    """Without outcomes nothing is compared and nothing taught; without anomalies there are none."""
    said = report(study())
    assert "No outcome is recorded" in said
    assert "Nothing: lessons come of outcomes" in said
    assert "\nNone.\n" in said
    assert "| a | 80.0% | 5 | - | - | - |" in said


def test_a_long_report_shows_the_newest_waves_and_says_so():
    """All waves stand in the files, the newest fifty in the report."""
    made = study(waves=schedule_report.WAVES_SHOWN + 1, tasks=1)
    assert "Of 51 waves the last 50 are shown." in report(made)
    assert len(decoded(made, "agent_assignments.json")) == 51


def test_tasks_without_an_agent_are_told():
    """In the wave's summary and in the report."""
    made = study(tasks=1)
    made = msgspec.structs.replace(made, waves=(msgspec.structs.replace(made.waves[0], unplaced=(("x", "nobody offers gpu"),)),))
    assert decoded(made, "wave_1/wave_summary.json")["unplaced_tasks"] == [{"task_id": "x", "reason": "nobody offers gpu"}]
    assert "`x` of wave 1 has no agent: nobody offers gpu." in report(made)


def test_files_of_another_plan_are_not_mixed_with_these(tmp_path):
    """A wave that is not of the plan, and a run's own folder, are refused; other files stay."""
    (tmp_path / "notes.txt").write_text("mine")
    put(tmp_path, contents_of(study(waves=2)))
    put(tmp_path, contents_of(study(waves=2)))
    assert (tmp_path / "notes.txt").read_text() == "mine"
    with pytest.raises(UsageError, match="holds wave_2, which is not of this plan"):
        put(tmp_path, contents_of(study(waves=1)))
    (tmp_path / "phase21_execution_summary.json").write_text("{}")
    with pytest.raises(UsageError, match="a run's own folder"):
        put(tmp_path, contents_of(study(waves=2)))


def test_a_run_without_closed_waves_has_its_files():
    """Nothing has happened, and that is what they say."""
    made = projected("r", [])
    assert codec.decode(made["phase19_summary.json"])["waves_optimized"] == 0
    assert b"`r`" in made[optimization.REPORT]
    assert b"No wave is closed yet." in made[optimization.REPORT]
