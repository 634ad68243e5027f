"""The lines that a run leaves: one shape for each kind, in the order of the contract's fields.

`outputs` makes them of a wave's record and encodes them. Nothing here reads a clock or touches a file: the same record gives
the same rows for ever, because a rebuilt tree is compared byte for byte.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from typing import Any

import msgspec

from phase21.domain.judgements import AgentMetrics, Anomaly, Cause, Health, Metrics, Signal, Validation
from phase21.domain.plans import Assignment
from phase21.domain.records import Decision, RunRecord, TaskRecord, WaveRecord
from phase21.domain.tasks import TaskStatus
from phase21.domain.workflows import WorkflowRecord, WorkflowState
from phase21.evaluation.lessons import error_analysis
from phase21.readers.bin_sums import BinSums, wave_sums
from phase21.readers.nodes import Node, summed_up, undone_by
from phase21.store.clock import iso

METRIC_NAMES = ("assigned_tasks", "completed_tasks", "failed_tasks", "success_rate", "mean_latency_s", "retries", "load")
LISTED_MOST = 50
"""How many skipped tasks, and how many compensations, of a wave the report names."""

_SUCCESS: dict[str, bool] = {TaskStatus.COMPLETED: True, TaskStatus.FAILED: False}
SKIPPED = TaskStatus.SKIPPED


class AssignmentRow(msgspec.Struct, frozen=True, gc=False):
    """A line of agent_assignments.jsonl."""

    task_id: str
    agent_id: str
    predicted_success_rate: float
    raw_predicted_success_rate: float
    assigned_at: str
    wave: int
    strategy: str


class ExecutedRow(msgspec.Struct, frozen=True, gc=False):
    """A line of executed_tasks.jsonl. `success` is null where the task neither completed nor failed; `reason` says why it was SKIPPED."""

    task_id: str
    agent_id: str | None
    wave: int
    status: str
    success: bool | None
    attempts: int
    start_time: str | None
    end_time: str | None
    duration_s: float | None
    predicted_success_rate: float
    error_msg: str | None
    result: Any
    reason: str | msgspec.UnsetType = msgspec.UNSET


class MetricRow(msgspec.Struct, frozen=True):
    """A line of agent_metrics.jsonl."""

    agent_id: str
    metric_name: str
    value: float | None
    timestamp: str | None
    wave: int


class ValidationContent(msgspec.Struct, frozen=True, gc=False):
    """The content of a signal `prediction_validation`."""

    task_id: str
    agent_id: str
    predicted_success: float
    actual_success: float
    delta: float
    error_analysis: str


class SignalRow(msgspec.Struct, frozen=True, gc=False):
    """A line of phase21_learning_signals.jsonl, and of agent_feedback.jsonl."""

    signal_type: str
    target_phase: int
    content: dict[str, Any] | ValidationContent
    confidence: float
    generated_at: str
    run_id: str
    wave: int


class DecisionRow(msgspec.Struct, frozen=True, gc=False):
    """A line of safety_gate_decisions.jsonl."""

    task_id: str
    agent_id: str | None
    wave: int
    attempt: int
    verdict: str
    gate: str | None
    reason: str
    confidence: float
    risk_level: str
    decided_at: str


class AnomalyRow(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line of anomalies.jsonl, and an anomaly within the health of a wave; the last three stand where they are known."""

    anomaly_type: str
    severity: str
    wave: int
    agent_id: str | None
    value: float | None
    threshold: float | None
    description: str
    recommendation: str
    timestamp: str
    since_wave: int | None = None
    evidence: float | None = None
    action: str | None = None


class ValidationRow(msgspec.Struct, frozen=True, gc=False):
    """A line of prediction_validation_feedback.jsonl; `confidence_delta` is actual less predicted."""

    prediction_id: str
    agent_id: str | None
    wave: int
    predicted_success: float
    actual_success: float
    confidence_delta: float
    error_analysis: Any


class PlanRow(msgspec.Struct, frozen=True, kw_only=True):
    """coordination_plan.json. Durations in seconds; `parallelization_factor` is null where nothing was expected to take time."""

    wave: int
    strategy: str
    num_agents: int
    num_tasks: int
    expected_duration_s: float
    sequential_duration_s: float
    parallelization_factor: float | None
    load_balance: float
    planning_s: float
    actual_duration_s: float | None


class Digest(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a closed wave: its health, and what the report says of it. Digests of old have neither sums nor causes.

    `graph` stands in waves of workflows alone.
    """

    wave: int
    health_score: float | None
    health_status: str
    metrics: Metrics
    anomalies: tuple[AnomalyRow, ...]
    causes: tuple[Cause, ...]
    strategy: str | None
    tasks: int
    completed: int
    failed: int
    deferred: int
    cancelled: int
    actual_duration_s: float | None
    settled_at: str | None
    predicted_sums: tuple[BinSums, ...] = ()
    incoming_sums: tuple[BinSums, ...] = ()
    skipped: int = 0
    graph: GraphDigest | msgspec.UnsetType = msgspec.UNSET


class GraphDigest(msgspec.Struct, frozen=True, kw_only=True):
    """A wave of a workflow as the report draws it: its nodes, why some of its tasks were SKIPPED, and what was undone.

    Each list is cut, and says how many more there were.
    """

    nodes: tuple[Node, ...]
    more_nodes: int
    skipped: tuple[tuple[str, str], ...]
    undone: tuple[tuple[str, str, str], ...]


class HealthRow(msgspec.Struct, frozen=True, kw_only=True):
    """A wave in phase21_system_health.json: a digest without what is the report's alone, its parts carried over unread."""

    wave: int | None = None
    health_score: float | None = None
    health_status: str = "UNKNOWN"
    metrics: msgspec.Raw = msgspec.Raw(b"{}")
    anomalies: msgspec.Raw = msgspec.Raw(b"[]")
    causes: msgspec.Raw = msgspec.Raw(b"[]")


class AgentSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One agent's part in a run. Rate and latency are null where nothing ended or ran."""

    assigned_tasks: int
    completed_tasks: int
    failed_tasks: int
    success_rate: float | None
    mean_latency_s: float | None
    retries: int


class WorkflowSummary(msgspec.Struct, frozen=True, kw_only=True):
    """How a run's workflow stands. `stranded` are compensations that FAILED and need a person."""

    name: str
    state: str
    reason: str | None
    stranded: tuple[str, ...]
    forked_from: str | None


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """phase21_execution_summary.json; the last two stand where the run is a workflow."""

    run_id: str
    total_tasks: int
    completed_tasks: int
    failed_tasks: int
    deferred_tasks: int
    cancelled_tasks: int
    waves: int
    start_time: str | None
    end_time: str | None
    success_rate: float | None
    system_health: float | None
    per_agent_metrics: dict[str, AgentSummary]
    skipped_tasks: int | msgspec.UnsetType = msgspec.UNSET
    workflow: WorkflowSummary | msgspec.UnsetType = msgspec.UNSET


def instant(at_us: int | None) -> str | None:
    """The time as text, None where there is none."""
    return None if at_us is None else iso(at_us)


def assignment_row(given: Assignment, assigned_at: str, wave: int, strategy: str) -> AssignmentRow:
    """One assignment of a batch."""
    return AssignmentRow(given.task_id, given.agent_id, given.predicted, given.raw, assigned_at, wave, strategy)


def holder(record: TaskRecord) -> str | None:
    """Under which agent a task's row stands: that of its last attempt, else the one it was given to, else (or SKIPPED) nobody."""
    return None if record.status is SKIPPED else record.ran_by or record.agent_id


def executed_row(record: TaskRecord, agent_id: str | None, wave: int, start_time: str | None) -> ExecutedRow:
    """How a task's part in the wave ended."""
    task, end_us = record.task, record.end_us
    if record.status is SKIPPED:
        return _skipped_row(record, wave)
    return ExecutedRow(
        task.task_id,
        agent_id,
        wave,
        record.status,
        _SUCCESS.get(record.status),
        record.attempts,
        start_time,
        None if end_us is None else iso(end_us),
        record.duration_s,
        task.predicted_success_rate if agent_id is None else record.predicted,
        record.error_msg,
        record.result,
    )


def _skipped_row(record: TaskRecord, wave: int) -> ExecutedRow:
    """What was never started had neither an agent nor a beginning; why is told in place of an error."""
    task, end_us, reason = record.task, record.end_us, record.error_msg or ""
    ended = None if end_us is None else iso(end_us)
    predicted = task.predicted_success_rate
    return ExecutedRow(task.task_id, None, wave, SKIPPED, None, record.attempts, None, ended, None, predicted, None, None, reason)


def metric_rows(metrics: AgentMetrics, timestamp: str | None, wave: int) -> Iterator[MetricRow]:
    """One agent's figures, one a line."""
    for name in METRIC_NAMES:
        yield MetricRow(metrics.agent_id, name, getattr(metrics, name), timestamp, wave)


def signal_rows(signals: Iterable[tuple[int, Signal]], wave: WaveRecord) -> Iterator[SignalRow]:
    """Lessons of a wave; many bear the same time, which is made into text once."""
    run_id, number = wave.run_id, wave.number
    last_us, text = -1, ""
    for at_us, signal in signals:
        if at_us != last_us:
            last_us, text = at_us, iso(at_us)
        yield SignalRow(signal.signal_type, signal.target_phase, signal.content, signal.confidence, text, run_id, number)


def validation_rows(made: Validation, generated_at: str, run_id: str, wave: int) -> tuple[SignalRow, ValidationRow]:
    """The signal about one task, and what is said to the planner about its prediction."""
    task_id, agent_id, predicted, success = made.task_id, made.agent_id, made.predicted, made.success
    actual, delta = (1.0, 1.0 - predicted) if success else (0.0, predicted)
    phrase = error_analysis(predicted, success)
    content = ValidationContent(task_id, agent_id, predicted, actual, delta, phrase)
    return (
        SignalRow("prediction_validation", 20, content, 1.0 - delta, generated_at, run_id, wave),
        ValidationRow(task_id, agent_id, wave, predicted, actual, actual - predicted, phrase),
    )


def decision_row(decision: Decision, wave: int, decided_at: str) -> DecisionRow:
    """One ruling of the gates."""
    return DecisionRow(
        decision.task_id,
        decision.agent_id,
        wave,
        decision.attempt,
        decision.ruling,
        decision.gate,
        decision.reason,
        decision.confidence,
        decision.risk_level,
        decided_at,
    )


def anomaly_row(at_us: int, anomaly: Anomaly) -> AnomalyRow:
    """One anomaly."""
    return AnomalyRow(
        anomaly.anomaly_type,
        anomaly.severity,
        anomaly.wave,
        anomaly.agent_id,
        anomaly.value,
        anomaly.threshold,
        anomaly.description,
        anomaly.recommendation,
        iso(at_us),
        anomaly.since_wave,
        anomaly.evidence,
        anomaly.action,
    )


def actual_duration_s(wave: WaveRecord) -> float | None:
    """From the wave's opening to its settling, in seconds."""
    if wave.opened_us is None or wave.settled_us is None:
        return None
    return (wave.settled_us - wave.opened_us) / 1e6


def plan_row(wave: WaveRecord) -> PlanRow | None:
    """The wave's plan against what it took; None where it was never planned."""
    plan = wave.planned
    if plan is None:
        return None
    expected_s, sequential_s = plan.expected_duration_s, plan.sequential_duration_s
    return PlanRow(
        wave=wave.number,
        strategy=plan.strategy,
        num_agents=plan.num_agents,
        num_tasks=plan.num_tasks,
        expected_duration_s=expected_s,
        sequential_duration_s=sequential_s,
        parallelization_factor=sequential_s / expected_s if expected_s else None,
        load_balance=plan.load_balance,
        planning_s=plan.planning_s,
        actual_duration_s=actual_duration_s(wave),
    )


def judged(wave: WaveRecord) -> Health:
    """The wave's health. Raises ValueError before the wave is judged: there is nothing to write yet."""
    if wave.health is None:
        raise ValueError(f"run {wave.run_id}: wave {wave.number} is not judged yet")
    return wave.health


def digest_of(wave: WaveRecord, graph: GraphDigest | msgspec.UnsetType = msgspec.UNSET) -> Digest:
    """What is kept of a judged wave; with a `graph` where it is part of a workflow."""
    health = judged(wave)
    statuses = [record.status for record in wave.tasks.values()]
    predicted_sums, incoming_sums = wave_sums(wave)
    return Digest(
        wave=wave.number,
        health_score=health.score,
        health_status=health.status,
        metrics=health.metrics,
        anomalies=tuple(anomaly_row(at_us, anomaly) for at_us, anomaly in wave.anomalies),
        causes=health.causes,
        strategy=wave.planned.strategy if wave.planned else None,
        tasks=len(statuses),
        completed=statuses.count(TaskStatus.COMPLETED),
        failed=statuses.count(TaskStatus.FAILED),
        deferred=statuses.count(TaskStatus.DEFERRED),
        cancelled=statuses.count(TaskStatus.CANCELLED),
        actual_duration_s=actual_duration_s(wave),
        settled_at=instant(wave.settled_us),
        predicted_sums=predicted_sums,
        incoming_sums=incoming_sums,
        skipped=statuses.count(SKIPPED),
        graph=graph,
    )


def graph_of(wave: WaveRecord) -> Generator[None, None, GraphDigest]:
    """What is kept of a workflow's wave to draw it; made in steps."""
    records = list(wave.tasks.values())
    nodes, more = yield from summed_up(records, wave.number)
    skipped = [(record.task.task_id, record.error_msg or "") for record in records if record.status is SKIPPED]
    undone = [
        (record.task.task_id, of, str(record.status))
        for record in records
        if record.task.metadata and (of := undone_by(record.task)) is not None
    ]
    return GraphDigest(nodes=nodes, more_nodes=more, skipped=tuple(skipped[:LISTED_MOST]), undone=tuple(undone[:LISTED_MOST]))


_HEALTH_ENDS = b',"strategy":'
"""What comes first in an encoded `Digest` behind the fields that a `HealthRow` has too."""


def health_part(digest: bytes) -> bytes:
    """The encoded `HealthRow` within an encoded `Digest`, which begins with the same fields; no text holds a bare quote."""
    return digest[: digest.index(_HEALTH_ENDS)] + b"}"


def agent_summaries(run: RunRecord) -> dict[str, AgentSummary]:
    """Each agent's part in the run's closed waves."""
    return {
        agent_id: AgentSummary(
            assigned_tasks=tally.assigned,
            completed_tasks=tally.completed,
            failed_tasks=tally.failed,
            success_rate=share(tally.completed, tally.failed),
            mean_latency_s=tally.latency_s / tally.measured if tally.measured else None,
            retries=tally.retries,
        )
        for agent_id, tally in run.agents.items()
    }


def share(completed: int, failed: int) -> float | None:
    """COMPLETED / (COMPLETED + FAILED), None where nothing ended."""
    return completed / (completed + failed) if completed + failed else None


def summary_of(run: RunRecord) -> Summary:
    """The run as of its closed waves."""
    count = run.counts.get
    completed, failed = count(TaskStatus.COMPLETED, 0), count(TaskStatus.FAILED, 0)
    return Summary(
        run_id=run.run_id,
        total_tasks=run.tasks_accepted,
        completed_tasks=completed,
        failed_tasks=failed,
        deferred_tasks=len(run.deferred),
        cancelled_tasks=count(TaskStatus.CANCELLED, 0),
        waves=run.closed_waves,
        start_time=instant(run.started_us),
        end_time=instant(run.end_us),
        success_rate=share(completed, failed),
        system_health=run.health.score if run.health else None,
        per_agent_metrics=agent_summaries(run),
        skipped_tasks=count(TaskStatus.SKIPPED, 0) if run.workflow is not None else msgspec.UNSET,
        workflow=_workflow_summary(run.workflow) if run.workflow is not None else msgspec.UNSET,
    )


def stands(flow: WorkflowRecord) -> str:
    """The state of a workflow as files tell it: a pause, which leaves no other trace in them, is none."""
    return str(WorkflowState.RUNNING if flow.open else flow.state)


def _workflow_summary(flow: WorkflowRecord) -> WorkflowSummary:
    return WorkflowSummary(
        name=flow.workflow.name,
        state=stands(flow),
        reason=flow.reason or None if not flow.open else None,
        stranded=tuple(flow.stranded),
        forked_from=flow.workflow.forked_from,
    )
