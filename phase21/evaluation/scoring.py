"""A wave's health: one score and a word for it, and what each of its terms lost by whom.

Called by the monitor with the figures of `metrics`; it looks at nothing else but the wave itself, for names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from phase21.domain.judgements import TOLERANCE, AgentMetrics, Cause, Grade, Health, Metrics
from phase21.domain.records import AgentRecord, WaveRecord
from phase21.domain.settings import HealthSettings, HealthThresholds, HealthWeights
from phase21.domain.tasks import TaskStatus

FAILED = TaskStatus.FAILED


def score(
    metrics: Metrics,
    agents_metrics: tuple[AgentMetrics, ...],
    settings: HealthSettings,
    wave: WaveRecord | None = None,
    agents: Sequence[AgentRecord] = (),
) -> Health:
    """The health of a wave; no score, and UNKNOWN, where nothing ended or nothing was started.

    Its causes are told where the `wave` itself and the `agents` that are present are given too.
    """
    points = _points(metrics, settings.weights)
    grade = grade_of(points, settings.thresholds)
    causes: tuple[Cause, ...] = ()
    if wave is not None:
        scene = _Scene(wave=wave, metrics=metrics, parts=agents_metrics, agents=agents)
        causes = tuple(_cause(term, scene, getattr(settings.weights, term)) for term in CULPRITS)
    return Health(score=points, status=grade, metrics=metrics, agents=agents_metrics, causes=causes)


def _points(metrics: Metrics, weights: HealthWeights) -> float | None:
    """100 x the weighted sum of success rate, availability, accuracy and load balance, 0 to 100."""
    success_rate, accuracy, load_balance = metrics.success_rate, metrics.accuracy, metrics.load_balance
    if success_rate is None or accuracy is None or load_balance is None:
        return None
    share = (
        weights.success_rate * success_rate
        + weights.availability * metrics.availability
        + weights.accuracy * accuracy
        + weights.load_balance * load_balance
    )
    return min(100.0, 100.0 * share)


def grade_of(points: float | None, thresholds: HealthThresholds) -> Grade:
    """The word for a score of 0 to 100; UNKNOWN where there is none."""
    if points is None:
        return Grade.UNKNOWN
    if points >= thresholds.excellent - TOLERANCE:
        return Grade.EXCELLENT
    if points >= thresholds.good - TOLERANCE:
        return Grade.GOOD
    if points >= thresholds.fair - TOLERANCE:
        return Grade.FAIR
    return Grade.POOR


# -- what each term lost, and by whom ------------------------------------------------------------------------------------


class _Scene(msgspec.Struct, frozen=True, kw_only=True):
    wave: WaveRecord
    metrics: Metrics
    parts: Sequence[AgentMetrics]
    agents: Sequence[AgentRecord]


class _Culprit(msgspec.Struct, frozen=True, array_like=True):
    """Who or what cost a term most, in words."""

    description: str
    agent_id: str | None = None
    task_id: str | None = None


def _cause(term: str, scene: _Scene, weight: float) -> Cause:
    """A term's part in the score. Where it lost nothing nobody is named."""
    value = getattr(scene.metrics, term)
    if value is None:
        return Cause(term=term, value=None, weight=weight, points_lost=None, description="nothing to stand on")
    lost = max(0.0, 100.0 * weight * (1.0 - value))
    worst = CULPRITS[term](scene) if value < 1.0 else _Culprit("nothing lost")
    return Cause(
        term=term,
        value=value,
        weight=weight,
        points_lost=lost,
        agent_id=worst.agent_id,
        task_id=worst.task_id,
        description=worst.description,
    )


def _failed_most(scene: _Scene) -> _Culprit:
    """The agent with most failed tasks, and the first of them; where only gates refused, the first task that they did."""
    worst = max(scene.parts, key=lambda part: part.failed_tasks, default=None)
    agent_id = worst.agent_id if worst is not None and worst.failed_tasks else None
    failed = scene.metrics.failed_tasks
    for task_id, record in scene.wave.tasks.items():
        started = record.attempts > 0
        if record.status is FAILED and (agent_id is None or (started and (record.ran_by or record.agent_id) == agent_id)):
            if worst is None or agent_id is None:
                return _Culprit(f"{failed} tasks FAILED before they were started, {task_id} first", None, task_id)
            return _Culprit(
                f"{worst.failed_tasks} of the {failed} failed tasks are {agent_id}'s, {task_id} first", agent_id, task_id
            )
    return _Culprit(f"{failed} tasks FAILED")


def _offline(scene: _Scene) -> _Culprit:
    """Who is OFFLINE, the one that has been so longest first."""
    away = sorted((agent for agent in scene.agents if agent.offline), key=lambda agent: agent.offline_us or 0)
    if not away:
        return _Culprit("there is no agent")
    return _Culprit(f"OFFLINE: {', '.join(agent.agent_id for agent in away[:NAMED])}{_more(away)}", away[0].agent_id)


NAMED = 5
"""How many agents a description names."""


def _more(names: Sequence[object]) -> str:
    return f" and {len(names) - NAMED} more" if len(names) > NAMED else ""


def _off_furthest(scene: _Scene) -> _Culprit:
    """The agent whose predictions were off by most tasks."""
    confidence, rate = scene.metrics.confidence, _rate_of_started(scene.metrics)
    upward = confidence is not None and confidence > rate
    worst = max(scene.parts, key=lambda part: _excess(part) if upward else -_excess(part), default=None)
    if worst is None or worst.confidence is None or worst.success_rate is None:
        return _Culprit("predictions were off")
    said = f"{worst.agent_id} was predicted {worst.confidence:.1%}, and reached {worst.success_rate:.1%} of {worst.load} tasks"
    return _Culprit(said, worst.agent_id)


def _rate_of_started(metrics: Metrics) -> float:
    return metrics.completed_tasks / metrics.started_tasks if metrics.started_tasks else 0.0


def _excess(part: AgentMetrics) -> float:
    """How many more tasks were predicted to succeed than did."""
    if part.confidence is None:
        return 0.0
    return part.confidence * part.load - part.completed_tasks


def _loaded_unevenly(scene: _Scene) -> _Culprit:
    """The fullest and the emptiest of the agents that are available."""
    loads = {part.agent_id: part.load for part in scene.parts}
    available = [(loads.get(agent.agent_id, 0), agent.agent_id) for agent in scene.agents if not agent.offline]
    if not available:
        return _Culprit("no agent is available")
    most, least = max(available, key=lambda pair: pair[0]), min(available, key=lambda pair: pair[0])
    return _Culprit(f"{most[1]} had {most[0]} tasks, {least[1]} had {least[0]}", most[1])


CULPRITS: dict[str, Callable[[_Scene], _Culprit]] = {
    "success_rate": _failed_most,
    "availability": _offline,
    "accuracy": _off_furthest,
    "load_balance": _loaded_unevenly,
}
"""The terms of the score, and who is asked about each."""
