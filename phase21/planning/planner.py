"""A wave's plan: who gets what, what nobody can do, what has to wait, and how long it should take.

Called by the manager, for a whole wave and for what an agent left behind. Never changes an agent or a task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from phase21.domain.plans import Assignment, Plan, Unplaced, balance
from phase21.domain.records import AgentRecord
from phase21.domain.tasks import Task
from phase21.planning.choices import choices, explore
from phase21.planning.forecast import Forecast
from phase21.planning.registry import STRATEGIES, Entry
from phase21.planning.strategies import Board, Seats, Terms


def plan(
    tasks: Sequence[Task],
    agents: Sequence[AgentRecord],
    *,
    forecast: Forecast,
    strategy: str,
    loads: Mapping[str, tuple[int, float]] | None = None,
    terms: Terms | None = None,
) -> Plan:
    """Seat every task: with an agent, among the waiting (all who can do it are OFFLINE or full), or nowhere.

    `agents` are the configured ones in their order; `loads` what each already holds of this wave, as (tasks, estimated
    seconds). The figures are over the assignments alone. KeyError for a strategy that is not in the registry.
    """
    board = Board(agents, forecast, loads or {}, terms)
    entry = STRATEGIES[strategy]
    forecast.prepare(tasks)
    seats = _seat(tasks, board, entry)
    drawn = explore(tasks, seats, board) if entry.explores else {}
    assignments: list[Assignment] = []
    unplaced: list[Unplaced] = []
    waiting: list[str] = []
    for task, seat in zip(tasks, seats, strict=True):
        if seat is not None:
            agent_id = agents[seat].agent_id
            assignments.append(
                Assignment(task.task_id, agent_id, forecast.predicted(task, agent_id), task.raw_prediction(agent_id))
            )
        elif reason := _why_nobody(task, board):
            unplaced.append(Unplaced(task.task_id, reason))
        else:
            waiting.append(task.task_id)
    sequential_s, expected_s, evenness = _figures(tasks, seats, agents)
    return Plan(
        assignments=tuple(assignments),
        unplaced=tuple(unplaced),
        waiting=tuple(waiting),
        expected_duration_s=expected_s,
        sequential_duration_s=sequential_s,
        load_balance=evenness,
        choices=choices(tasks, seats, board, entry, drawn),
    )


def replacement(
    task: Task, agents: Sequence[AgentRecord], loads: Mapping[str, int], *, avoid: str | None = None
) -> AgentRecord | None:
    """The least loaded agent, other than `avoid`, that can take the task now (ties by order); None where there is none.

    `loads` are tasks held; an agent on probation is asked only while it has nothing to do.
    """
    able = _open_to(task, agents, loads, avoid)
    return min(able, key=lambda agent: loads.get(agent.agent_id, 0)) if able else None


def next_best(
    task: Task,
    agents: Sequence[AgentRecord],
    loads: Mapping[str, int],
    *,
    forecast: Forecast,
    failed: Sequence[str],
    avoid: str | None = None,
) -> tuple[AgentRecord | None, dict[str, float]]:
    """The agent with the best forecast given the failures so far (ties by load, then order), and every agent's rate so.

    `failed` are the agents that failed, once for each failure; the others are as in `replacement`.
    """
    after = forecast.after_failures(task, failed)
    rates = {agent.agent_id: rate for agent, rate in zip(agents, after, strict=True)}
    able = _open_to(task, agents, loads, avoid)
    if not able:
        return None, rates
    return min(able, key=lambda agent: (-round(rates[agent.agent_id], RATE_DIGITS), loads.get(agent.agent_id, 0))), rates


RATE_DIGITS = 9
"""Rates closer than this are equal."""


def _open_to(task: Task, agents: Sequence[AgentRecord], loads: Mapping[str, int], avoid: str | None) -> list[AgentRecord]:
    return [
        agent
        for agent in agents
        if not agent.offline
        and agent.agent_id != avoid
        and not (agent.probation and (agent.busy or loads.get(agent.agent_id, 0)))
        and agent.able(task)
    ]


def _seat(tasks: Sequence[Task], board: Board, entry: Entry) -> Seats:
    """Pinned tasks first, as they came; then the strategy deals out the others."""
    seats: Seats = [_seat_pinned(task, board) if task.agent_id is not None else None for task in tasks]
    free = [position for position, task in enumerate(tasks) if task.agent_id is None]
    for position, seat in zip(free, entry.deal([tasks[position] for position in free], board), strict=True):
        seats[position] = seat
    return seats


def _seat_pinned(task: Task, board: Board) -> int | None:
    index = board.index.get(task.agent_id or "")
    if index is None or not board.room[index] or board.agents[index].offline or not board.agents[index].able(task):
        return None
    return board.give(index, task)


def _why_nobody(task: Task, board: Board) -> str | None:
    """Why no configured agent can ever do the task; None where one can."""
    wanted = ", ".join(task.capabilities)
    if task.agent_id is not None:
        index = board.index.get(task.agent_id)
        if index is None:
            return f"pinned to {task.agent_id}, which is not configured"
        if board.agents[index].takes(task.kind):
            return None if board.agents[index].able(task) else f"pinned to {task.agent_id}, which does not offer {wanted}"
        return f"pinned to {task.agent_id}, which takes no tasks of kind {task.kind}"
    if board.able(board.wants(task)):
        return None
    if board.able(task.capabilities):
        return f"no configured agent that could do it takes tasks of kind {task.kind}"
    return f"no configured agent offers {wanted}" if wanted else "no agent is configured"


def _figures(tasks: Sequence[Task], seats: Seats, agents: Sequence[AgentRecord]) -> tuple[float, float, float]:
    """Seconds one after the other, seconds side by side, and how evenly the tasks are spread over available agents."""
    seconds = [0.0] * len(agents)
    counts = [0] * len(agents)
    sequential_s = 0.0
    for task, seat in zip(tasks, seats, strict=True):
        if seat is not None:
            estimate_s = task.estimated_duration_s
            seconds[seat] += estimate_s
            counts[seat] += 1
            sequential_s += estimate_s
    expected_s = max((total / agent.concurrency for total, agent in zip(seconds, agents, strict=True)), default=0.0)
    return sequential_s, expected_s, balance([n for n, agent in zip(counts, agents, strict=True) if not agent.offline])
