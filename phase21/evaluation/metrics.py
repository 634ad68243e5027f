"""A wave's figures, and each agent's part in them.

Called by the monitor once a wave is settled. Every formula is that of section 6 of the contract; nothing is rounded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from phase21.domain.judgements import AgentMetrics, Metrics
from phase21.domain.plans import balance
from phase21.domain.records import AgentRecord, TaskRecord, WaveRecord
from phase21.domain.tasks import TaskStatus
from phase21.domain.workflows import JOIN

COMPLETED, FAILED = TaskStatus.COMPLETED, TaskStatus.FAILED


Ran = list[tuple[TaskRecord, str, bool]]
"""Tasks, each with its last agent and whether it succeeded."""


def ran(wave: WaveRecord) -> Ran:
    """The tasks that figures and lessons are about: started, and COMPLETED or FAILED.

    What was started in an earlier wave, and rejected in this one before it had an agent, is not among them.
    """
    return [
        (record, record.ran_by or record.agent_id, record.status is COMPLETED)
        for record in wave.tasks.values()
        if (record.status is COMPLETED or record.status is FAILED) and record.attempts and record.agent_id is not None
    ]


def taught(wave: WaveRecord) -> Ran:
    """Those of them that say something of their agent: a join only repeats what its parts did."""
    return [one for one in ran(wave) if one[0].task.kind != JOIN]


class _Part:
    """One agent's sums."""

    __slots__ = ("completed", "latency_s", "load", "measured", "predicted", "retries")

    def __init__(self) -> None:
        self.completed = self.load = self.retries = self.measured = 0
        self.latency_s = self.predicted = 0.0


def measure(wave: WaveRecord, agents: Sequence[AgentRecord]) -> tuple[Metrics, tuple[AgentMetrics, ...]]:
    """The figures of a wave, and those of every agent that was assigned some of it (present ones first, in order).

    `agents` are the present ones, as they stand at the wave's end. `success_rate` is over the tasks that ended COMPLETED
    or FAILED, all else over those of them that were started.
    """
    parts: dict[str, _Part] = {}
    predicted_sum = squares = 0.0
    for record, agent_id, success in ran(wave):
        part = parts.get(agent_id)
        if part is None:
            part = parts[agent_id] = _Part()
        part.load += 1
        part.completed += success
        part.retries += record.attempts - 1
        if record.duration_s is not None:
            part.measured += 1
            part.latency_s += record.duration_s
        part.predicted += record.predicted
        predicted_sum += record.predicted
        miss = record.predicted - success
        squares += miss * miss
    return (
        _of_the_wave(wave, agents, parts, predicted_sum, squares),
        _of_each(parts, assigned_tasks(wave), agents),
    )


def assigned_tasks(wave: WaveRecord) -> dict[str, int]:
    """How many different tasks of the wave were assigned to each agent."""
    batches = wave.batches
    if len(batches) == 1:
        return Counter([given.agent_id for given in batches[0].assignments])
    pairs = {(given.agent_id, given.task_id) for batch in batches for given in batch.assignments}
    return Counter([agent_id for agent_id, _ in pairs])


def _of_the_wave(
    wave: WaveRecord, agents: Sequence[AgentRecord], parts: dict[str, _Part], predicted_sum: float, squares: float
) -> Metrics:
    statuses = Counter([record.status for record in wave.tasks.values()])
    completed, failed = statuses[TaskStatus.COMPLETED], statuses[TaskStatus.FAILED]
    started = sum(part.load for part in parts.values())
    available = [agent.agent_id for agent in agents if not agent.offline]
    confidence = brier = error = accuracy = evenness = None
    if started:
        confidence, brier = predicted_sum / started, squares / started
        error = abs(confidence - sum(part.completed for part in parts.values()) / started)
        accuracy = 1.0 - error
        evenness = (
            1.0 if wave.by_readiness else balance([parts[agent_id].load if agent_id in parts else 0 for agent_id in available])
        )
    return Metrics(
        success_rate=completed / (completed + failed) if completed + failed else None,
        availability=len(available) / len(agents) if agents else 0.0,
        confidence=confidence,
        prediction_error=error,
        accuracy=accuracy,
        brier_score=brier,
        load_balance=evenness,
        completed_tasks=completed,
        failed_tasks=failed,
        started_tasks=started,
        deferred_tasks=statuses[TaskStatus.DEFERRED],
        cancelled_tasks=statuses[TaskStatus.CANCELLED],
        retries=sum(part.retries for part in parts.values()),
    )


def _of_each(parts: dict[str, _Part], assigned: dict[str, int], agents: Sequence[AgentRecord]) -> tuple[AgentMetrics, ...]:
    """Present agents in their order, then those that are not there any more, by name."""
    had_tasks = assigned.keys() | parts.keys()
    in_order = [agent.agent_id for agent in agents if agent.agent_id in had_tasks]
    gone = sorted(had_tasks.difference(in_order))
    return tuple(_of_one(agent_id, assigned.get(agent_id, 0), parts.get(agent_id) or _Part()) for agent_id in in_order + gone)


def _of_one(agent_id: str, assigned: int, part: _Part) -> AgentMetrics:
    return AgentMetrics(
        agent_id=agent_id,
        assigned_tasks=assigned,
        completed_tasks=part.completed,
        failed_tasks=part.load - part.completed,
        success_rate=part.completed / part.load if part.load else None,
        mean_latency_s=part.latency_s / part.measured if part.measured else None,
        retries=part.retries,
        load=part.load,
        confidence=part.predicted / part.load if part.load else None,
    )
