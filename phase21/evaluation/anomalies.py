"""What is out of the ordinary in a wave: one table of rules over its figures, and what parts of the house report themselves.

`detect` is called by the monitor once a wave is settled; the three builders by whoever sees an agent go or a gate refuse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgspec

from phase21.domain.judgements import TOLERANCE, AgentMetrics, Anomaly, Metrics, Severity
from phase21.domain.records import AgentRecord, WaveRecord

ENOUGH_TASKS = 3
"""Fewer tasks than this say nothing about a rate."""


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """What the rules look at. `fewest` and `most` are loads over the agents that are available, in tasks."""

    metrics: Metrics
    agents: Sequence[AgentMetrics]
    previous_success_rate: float | None
    fewest: int
    most: int


class Finding(msgspec.Struct, frozen=True, array_like=True):
    """What a rule measured, said in words, and the agent that it concerns (None: the wave)."""

    value: float | None
    description: str
    agent_id: str | None = None


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the table. Without a threshold of its own a rule takes `health.anomaly_sensitivity`."""

    anomaly_type: str
    severity: Severity
    threshold: float | None
    find: Callable[[Scene, float], Iterator[Finding]]
    recommendation: str


def detect(
    wave: WaveRecord,
    metrics: Metrics,
    agents_metrics: Sequence[AgentMetrics],
    previous_success_rate: float | None,
    agents: Sequence[AgentRecord],
    sensitivity: float,
) -> tuple[Anomaly, ...]:
    """The anomalies that a settled wave's figures show, in the order of `RULES`.

    `previous_success_rate` is that of the last wave that had one, `agents` are the present ones.
    """
    loads = {part.agent_id: part.load for part in agents_metrics}
    available = [loads.get(agent.agent_id, 0) for agent in agents if not agent.offline]
    scene = Scene(
        metrics=metrics,
        agents=agents_metrics,
        previous_success_rate=previous_success_rate,
        fewest=min(available, default=0),
        most=max(available, default=0),
    )
    return tuple(anomaly for rule in RULES for anomaly in _apply(rule, scene, wave.number, sensitivity))


def _apply(rule: Rule, scene: Scene, wave: int, sensitivity: float) -> Iterator[Anomaly]:
    threshold = sensitivity if rule.threshold is None else rule.threshold
    for finding in rule.find(scene, threshold):
        yield Anomaly(
            anomaly_type=rule.anomaly_type,
            severity=rule.severity,
            wave=wave,
            agent_id=finding.agent_id,
            value=finding.value,
            threshold=threshold,
            description=finding.description,
            recommendation=rule.recommendation,
        )


def _failing_agents(scene: Scene, threshold: float) -> Iterator[Finding]:
    for part in scene.agents:
        rate = part.success_rate
        if rate is not None and part.load >= ENOUGH_TASKS and rate < threshold - TOLERANCE:
            said = f"{part.agent_id} completed {part.completed_tasks} of {part.load} tasks"
            yield Finding(rate, said, part.agent_id)


def _loads_apart(scene: Scene, threshold: float) -> Iterator[Finding]:
    apart = scene.most - scene.fewest
    if apart > 1 and apart / scene.most > threshold + TOLERANCE:
        yield Finding(apart / scene.most, f"agents had between {scene.fewest} and {scene.most} tasks")


def _prediction_off(scene: Scene, threshold: float) -> Iterator[Finding]:
    metrics = scene.metrics
    error = metrics.prediction_error
    if error is not None and metrics.started_tasks >= ENOUGH_TASKS and error > threshold + TOLERANCE:
        yield Finding(error, f"predicted and actual success are {error:.1%} apart, over {metrics.started_tasks} tasks")


def _loads_uneven(scene: Scene, threshold: float) -> Iterator[Finding]:
    if scene.most - scene.fewest <= 1:
        return
    if not scene.fewest:
        yield Finding(None, f"one agent had {scene.most} tasks, another none")
    elif scene.most / scene.fewest > threshold + TOLERANCE:
        ratio = scene.most / scene.fewest
        yield Finding(ratio, f"one agent had {ratio:.3g} times as many tasks as another ({scene.most} and {scene.fewest})")


def _success_fell(scene: Scene, threshold: float) -> Iterator[Finding]:
    before, now = scene.previous_success_rate, scene.metrics.success_rate
    if before is not None and now is not None and before - now > threshold + TOLERANCE:
        yield Finding(before - now, f"the success rate fell from {before:.1%} to {now:.1%}")


RULES: tuple[Rule, ...] = (
    Rule(
        anomaly_type="agent_failure",
        severity=Severity.HIGH,
        threshold=0.50,
        find=_failing_agents,
        recommendation="look at the errors of the agent's tasks; take the agent out of the fleet, or pin such tasks elsewhere",
    ),
    Rule(
        anomaly_type="coordination_issue",
        severity=Severity.MEDIUM,
        threshold=0.40,
        find=_loads_apart,
        recommendation="look at pins and capabilities that force tasks onto few agents; consider the load_balanced strategy",
    ),
    Rule(
        anomaly_type="prediction_drift",
        severity=Severity.MEDIUM,
        threshold=None,
        find=_prediction_off,
        recommendation="check the planner's predictions against phase20/prediction_validation_feedback.jsonl",
    ),
    Rule(
        anomaly_type="load_imbalance",
        severity=Severity.LOW,
        threshold=1.5,
        find=_loads_uneven,
        recommendation="spread the tasks over more agents, or choose the load_balanced strategy",
    ),
    Rule(
        anomaly_type="success_drop",
        severity=Severity.MEDIUM,
        threshold=0.10,
        find=_success_fell,
        recommendation="compare the failed tasks with those of the wave before: kind, agent, what they depend on",
    ),
)


def agent_offline(agent_id: str, wave: int, timeouts: int) -> Anomaly:
    """An agent whose attempts timed out `timeouts` times in a row."""
    return Anomaly(
        anomaly_type="agent_offline",
        severity=Severity.HIGH,
        wave=wave,
        agent_id=agent_id,
        value=float(timeouts),
        description=f"{agent_id} went OFFLINE: attempts timed out {timeouts} times in a row",
        recommendation="check what the agent runs on; it is tried again with one task after agents.probation",
    )


def agent_stuck(agent_id: str, wave: int, overdue_s: float) -> Anomaly:
    """An agent that made no progress for `overdue_s` seconds past its task's timeout."""
    return Anomaly(
        anomaly_type="agent_stuck",
        severity=Severity.HIGH,
        wave=wave,
        agent_id=agent_id,
        value=overdue_s,
        description=f"{agent_id} went OFFLINE: no progress for {overdue_s:.3g} s past its task's timeout",
        recommendation="look for a handler that ignores its timeout; the agent is tried again with one task after agents.probation",
    )


def safety_violation(agent_id: str | None, wave: int, task_id: str, gate: str, reason: str) -> Anomaly:
    """A task that a gate REJECTED; `agent_id` is None where it had no agent yet."""
    return Anomaly(
        anomaly_type="safety_violation",
        severity=Severity.HIGH,
        wave=wave,
        agent_id=agent_id,
        description=f"the {gate} gate rejected {task_id}: {reason}",
        recommendation=f"submit the task again once this is mended, or change what the {gate} gate allows",
    )
