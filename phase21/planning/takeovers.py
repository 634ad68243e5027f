"""What agents that have become idle should take over from others, while a wave is under way.

Called by the manager as tasks end, where the wave's strategy is to end it soonest. It looks at the wave and moves nothing itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from phase21.domain.records import AgentRecord, TaskRecord, WaveRecord
from phase21.domain.tasks import WAITING, TaskStatus
from phase21.planning.forecast import Forecast
from phase21.planning.makespan import takeover

LOOKED_AT = 256
"""At most so many waiting tasks are weighed, the first of the wave: what a task's end costs must not grow with the wave."""

STRATEGY = "maximize_throughput"


def takeovers(
    wave: WaveRecord, agents: Sequence[AgentRecord], forecast: Forecast, now_us: int
) -> list[tuple[TaskRecord, AgentRecord]]:
    """Which waiting task goes to which idle agent: at most one for each, and only what is expected to end sooner so."""
    index = {agent.agent_id: place for place, agent in enumerate(agents)}
    waiting = [record for record in wave.tasks.values() if _waits(record, now_us) and record.agent_id in index]
    at = {record.agent_id for record in waiting}
    idle = [agent for agent in agents if _idle(agent) and agent.agent_id not in at]
    movable = [record for record in waiting if record.task.agent_id is None][:LOOKED_AT] if idle else []
    if not movable:
        return []
    rows = [[_expected_s(record, agent, forecast) for agent in agents] for record in movable]
    seats = [index[record.agent_id or ""] for record in movable]
    ready_s = _under_way_s(wave, agents, index, forecast, now_us)
    lanes = [agent.concurrency for agent in agents]
    moves = []
    for agent in idle:
        place = takeover(index[agent.agent_id], rows, seats, ready_s, lanes)
        if place is not None:
            seats[place] = index[agent.agent_id]
            moves.append((movable[place], agent))
    return moves


def _waits(record: TaskRecord, now_us: int) -> bool:
    due = record.due_us is None or record.due_us <= now_us
    return record.status in WAITING and due and not record.blockers and not record.cancelling


def _idle(agent: AgentRecord) -> bool:
    return not agent.offline and not agent.probation and agent.busy < agent.concurrency


def _expected_s(record: TaskRecord, agent: AgentRecord, forecast: Forecast) -> float | None:
    if not agent.able(record.task) or ((agent.offline or agent.probation) and agent.agent_id != record.agent_id):
        return None
    return forecast.outlook(record.task, agent.agent_id).expected_s


def _under_way_s(
    wave: WaveRecord, agents: Sequence[AgentRecord], index: dict[str, int], forecast: Forecast, now_us: int
) -> list[float]:
    """What is left of the wave's attempts under way, at each agent; one that is not the first is taken as just begun."""
    left_s = [0.0] * len(agents)
    for record in wave.tasks.values():
        if record.status is TaskStatus.IN_PROGRESS and record.ran_by in index and record.first_start_us is not None:
            elapsed_s = (now_us - record.first_start_us) / 1e6 if record.attempts == 1 else 0.0
            left_s[index[record.ran_by]] += forecast.outlook(record.task, record.ran_by).remaining_s(max(0.0, elapsed_s))
    return left_s
