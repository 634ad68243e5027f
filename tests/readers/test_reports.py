"""The Markdown report."""

from __future__ import annotations

import msgspec

from phase21.domain.judgements import Grade, Health, Metrics
from phase21.domain.records import AgentTally, RunRecord
from phase21.domain.tasks import TaskStatus
from phase21.domain.workflows import Workflow, WorkflowRecord
from phase21.readers.nodes import Edge, Node
from phase21.readers.reports import WAVES_SHOWN, picture, render

METRICS = {
    "success_rate": 0.75,
    "availability": 1.0,
    "confidence": 0.85,
    "prediction_error": 0.1,
    "accuracy": 0.9,
    "brier_score": 0.16,
    "load_balance": 1.0,
    "completed_tasks": 3,
    "failed_tasks": 1,
    "started_tasks": 4,
}
ANOMALY = {
    "anomaly_type": "agent_failure",
    "severity": "HIGH",
    "wave": 1,
    "agent_id": "agent_1",
    "value": 0.2,
    "threshold": 0.5,
    "description": "agent_1 succeeded in 20 % | of\nits tasks",
    "recommendation": "Look at agent_1.",
    "timestamp": "2026-01-01T00:00:00.000000+00:00",
}


def digest(wave: int, score: float | None = 80.0, **changes) -> dict:
    return {
        "wave": wave,
        "health_score": score,
        "health_status": "GOOD" if score is not None else "UNKNOWN",
        "metrics": METRICS,
        "anomalies": [],
        "strategy": "load_balanced",
        "tasks": 4,
        "completed": 3,
        "failed": 1,
        "deferred": 0,
        "cancelled": 0,
        "actual_duration_s": 1.5,
        "settled_at": "2026-01-01T00:00:00.000000+00:00",
        **changes,
    }


def record(waves: int, **changes) -> RunRecord:
    metrics = Metrics(**METRICS)
    fields = {
        "closed_waves": waves,
        "tasks_accepted": 8,
        "counts": {TaskStatus.COMPLETED: 6, TaskStatus.FAILED: 2},
        "agents": {"agent_0": AgentTally(assigned=8, completed=6, failed=2, retries=1, measured=8, latency_s=2.0)},
        "health": Health(score=80.0, status=Grade.GOOD, metrics=metrics, agents=()),
        "anomalies": 1,
        "started_us": 1_767_225_600_000_000,
        "end_us": 1_767_225_660_000_000,
    }
    return RunRecord(run_id="nightly", **(fields | changes))


def section(report: str, name: str) -> str:
    return report.partition(f"## {name}\n")[2].partition("\n## ")[0]


def test_overview_says_how_the_run_stands() -> None:
    """The overview has the run's counts, rate, times and health, as the record says them."""
    overview = section(render(record(2), [digest(1), digest(2)]), "Overview")
    assert "| Completed | 6 |" in overview
    assert "| Success rate | 75.0% |" in overview
    assert "| System health | 80.0 GOOD |" in overview
    assert "2026-01-01T00:00:00.000000+00:00" in overview


def test_waves_and_agents_have_a_line_each() -> None:
    """Each wave and each agent is one line of a table."""
    report = render(record(2), [digest(1), digest(2, strategy=None)])
    assert "| 1 | load_balanced | 4 | 3 | 1 | 0 | 0 | 1.500 | 80.0 GOOD |" in section(report, "Waves")
    assert "| 2 | - | 4 |" in section(report, "Waves")
    assert "| agent_0 | 8 | 6 | 2 | 75.0% | 0.2500 | 1 |" in section(report, "Agents")


def test_a_long_run_shows_its_last_waves_and_says_so() -> None:
    """Tables hold at most the last waves, and say how many there are."""
    report = render(record(1000), [digest(number) for number in range(700, 1001)])
    waves = section(report, "Waves")
    assert f"The last {WAVES_SHOWN} of 1000 waves." in waves
    assert "| 951 |" in waves
    assert "| 950 |" not in waves
    assert "The last" not in section(render(record(2), [digest(1), digest(2)]), "Waves")


def test_a_large_fleet_shows_the_agents_that_failed_most_and_says_so() -> None:
    """Beyond a hundred agents only those with the most failures have a line."""
    fleet = {f"agent_{n}": AgentTally(assigned=10, completed=10 - n % 7, failed=n % 7) for n in range(700)}
    agents = section(render(record(1, agents=fleet), [digest(1)]), "Agents")
    assert "The 100 of 700 agents with the most failed tasks" in agents
    assert agents.count("| agent_") == 100
    assert "| agent_6 |" in agents
    assert "| agent_5 |" not in agents


def test_anomalies_come_with_recommendations() -> None:
    """Anomalies are listed with what to do, each advice once with how often; a cell cannot break its table."""
    report = render(record(2, anomalies=2), [digest(1, anomalies=[ANOMALY]), digest(2, anomalies=[ANOMALY])])
    part = section(report, "Anomalies and recommendations")
    assert "| 1 | - | HIGH | agent_failure | agent_1 | agent_1 succeeded in 20 % \\| of its tasks | - |" in part
    assert "- Look at agent_1. (2 times)" in part


def test_anomalies_say_since_when_and_what_was_done() -> None:
    """Where an anomaly says since when it is and what was done about it, so does its line."""
    told = ANOMALY | {"since_wave": 1, "action": "old evidence dropped"}
    part = section(render(record(2, anomalies=1), [digest(2, anomalies=[told])]), "Anomalies and recommendations")
    assert "of its tasks | old evidence dropped |" in part
    assert "| 2 | 1 | HIGH |" in part or "| 1 | 1 | HIGH |" in part


def test_the_newest_wave_tells_where_its_points_went() -> None:
    """Under the trend stand the causes of the newest wave's score; a digest from before there were any has none."""
    cause = {"term": "accuracy", "value": 0.8, "weight": 0.2, "points_lost": 4.0, "description": "agent_1 was predicted 90 %"}
    trend = section(render(record(2), [digest(1, 50.0), digest(2, 60.0, causes=[cause])]), "Health trend")
    assert "| accuracy | 0.8000 | 0.2 | 4.0 | agent_1 was predicted 90 % |" in trend
    assert "points of wave 2" in trend
    assert "points of" not in section(render(record(1), [digest(1, 50.0)]), "Health trend")


def test_trend_draws_each_wave() -> None:
    """The trend has one character a wave: a bar by its score, a dot where it has none."""
    trend = section(render(record(4), [digest(1, 0.0), digest(2, 100.0), digest(3, None), digest(4, 50.0)]), "Health trend")
    assert "```\n▁█.▅\n```" in trend
    assert "First 0.0, last 50.0, mean 50.0, lowest 0.0, highest 100.0." in trend


def test_calibration_compares_prediction_and_outcome() -> None:
    """Each wave that started something has its mean prediction, success rate and Brier score; the last line weighs them."""
    other = METRICS | {"confidence": 0.5, "brier_score": 0.0, "started_tasks": 12}
    idle = METRICS | {"confidence": None, "brier_score": None, "started_tasks": 0}
    digests = [digest(1), digest(2, metrics=other), digest(3, metrics=idle)]
    calibration = section(render(record(3), digests), "Calibration")
    assert "| 1 | 4 | 85.0% | 75.0% | 0.1000 | 0.1600 |" in calibration
    assert "\n| 3 |" not in calibration
    assert "16 started tasks, mean prediction 58.8%, Brier score 0.0400." in calibration


SUMS = {"predicted_sums": [[5, 4, 2.0, 1.0, 2]], "incoming_sums": [[8, 4, 3.2, 1.36, 2]]}


def test_reliability_adds_up_over_waves() -> None:
    """The table has what the waves' sums come to in each bin, and the lines below both calibration errors and Brier scores."""
    other = {"predicted_sums": [[5, 2, 1.0, 0.5, 0], [9, 4, 3.8, 0.04, 4]], "incoming_sums": [[8, 6, 5.1, 1.0, 4]]}
    part = section(render(record(3), [digest(1, **SUMS), digest(2, **other), digest(3)]), "Calibration")
    assert "| 50% to 60% | 6 | 50.0% | 33.3% | 9.7% to 70.0% |" in part
    assert "| 90% to 100% | 4 | 95.0% | 100.0% | 51.0% to 100.0% |" in part
    assert "(calibration.svg)" in part
    assert "our prediction 0.1200 and 0.1540, incoming prediction 0.2300 and 0.2360." in part
    assert "`phase21 calibration nightly`" in part


def test_waves_of_old_have_no_reliability() -> None:
    """Digests that were made before there were sums give a report without the table, and an empty picture."""
    assert "calibration.svg" not in render(record(1), [digest(1)])
    assert "our prediction (0 tasks)" in picture(record(1), [digest(1)])


def test_the_picture_is_of_the_waves_that_are_shown() -> None:
    """The picture holds both predictions of the last waves, and no others."""
    digests = [digest(number, **SUMS) for number in range(1, WAVES_SHOWN + 11)]
    assert f"our prediction ({4 * WAVES_SHOWN} tasks)" in picture(record(len(digests)), digests)
    assert f"incoming prediction ({4 * WAVES_SHOWN} tasks)" in picture(record(len(digests)), digests)
    assert "nightly" in picture(record(0), [])


def test_a_run_in_which_nothing_happened() -> None:
    """A run without a closed wave has a report that says so, section by section."""
    report = render(RunRecord(run_id="empty"), [])
    for words in ("No wave is closed yet.", "No agent had a task.", "Nothing out of the ordinary.", "No wave has a score."):
        assert words in report
    assert "None" not in report
    assert "Nothing was started" in report


def test_the_report_is_a_function_of_its_input() -> None:
    """The same record and digests give the same text."""
    assert render(record(2), [digest(1)]) == render(record(2), [digest(1)])


def flow(**changes) -> WorkflowRecord:
    return WorkflowRecord(
        workflow=Workflow(name="order", on_failure="compensate"), state="failed", reason="ship did not succeed", **changes
    )


def graph(*nodes: Node, **changes) -> dict:
    fields = {"nodes": msgspec.to_builtins(nodes), "more_nodes": 0, "skipped": [], "undone": []}
    return fields | changes


PAY = Node(name="pay", label="pay", statuses={"COMPLETED": 1})
SHIP = Node(name="ship", label="ship", statuses={"FAILED": 1}, needs=(Edge("pay"),))
UNDO = Node(name="pay.undo", label="pay.undo", statuses={"FAILED": 1}, undoes="pay")


def test_a_workflow_is_drawn_and_told() -> None:
    """A workflow's state and reason, its graph over all waves, what was undone, what needs a person and what was skipped are told."""
    skipped = [["thank", "the workflow stopped: ship | FAILED"]]
    digests = [
        digest(1, graph=graph(PAY, SHIP, skipped=skipped)),
        digest(2, graph=graph(UNDO, undone=[["pay.undo", "pay", "FAILED"]])),
    ]
    told = record(2, workflow=flow(stranded=["pay.undo"]), counts={TaskStatus.SKIPPED: 1})
    part = section(render(told, digests), "Workflow")
    assert "| Name | order |" in part
    assert "| State | failed |" in part
    assert "| Why | ship did not succeed |" in part
    assert "| Needs a person | pay.undo: what was done could not be undone |" in part
    assert part.count("```") == 2
    assert "    n1 --> n2\n" in part
    assert '    n1 -.->|"undone by"| n3\n' in part
    assert "| pay.undo | pay | FAILED: it needs a person |" in part
    assert "| thank | the workflow stopped: ship \\| FAILED |" in part


def test_a_workflow_under_way_says_no_more_than_that() -> None:
    """While a workflow is open its report says so and no reason; steps that are no tasks yet are drawn."""
    open_ = WorkflowRecord(
        workflow=Workflow(name="w", forked_from="first"), state="paused", later=[{"task_id": "each", "depends_on": ["pay"]}]
    )
    part = section(render(record(1, workflow=open_), [digest(1, graph=graph(PAY))]), "Workflow")
    assert "| State | running |" in part
    assert "| Why | - |" in part
    assert "| Forked from | first |" in part
    assert '["each<br/>later"]:::pending' in part
    assert "was undone" not in part
    assert "not to be done" not in part


def test_a_large_workflow_says_what_it_leaves_out() -> None:
    """What is neither drawn nor named is counted; digests of old have no graph."""
    names = [[f"t{n}", "no"] for n in range(60)]
    many = flow(stranded=[f"t{n}.undo" for n in range(70)])
    told = record(2, workflow=many, counts={TaskStatus.SKIPPED: 99})
    part = section(render(told, [digest(1), digest(2, graph=graph(PAY, more_nodes=7, skipped=names))]), "Workflow")
    assert "7 more steps are not drawn" in part
    assert "The first 50 of 99 tasks that were not to be done:" in part
    assert "t49.undo and 20 more" in part
    assert "```mermaid" not in section(render(record(1, workflow=flow()), [digest(1)]), "Workflow")


def test_without_a_workflow_there_is_no_word_of_one() -> None:
    """The report of a plain run speaks neither of workflows nor of skipped tasks."""
    report = render(record(1), [digest(1)])
    assert "## Workflow" not in report
    assert "kipped" not in report
