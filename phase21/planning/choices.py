"""Why each task of a plan goes where it goes: the candidates and what was known of them, and where chance had a part.

Called by the planner once the seats are dealt. It records, and moves a task only for the share of choices that is spent on
learning.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from heapq import nlargest
from typing import NamedTuple

import msgspec

from phase21.domain.judgements import TOLERANCE
from phase21.domain.plans import CANDIDATES_MOST, Assignment, Candidate, Choice
from phase21.domain.tasks import RiskLevel, Task
from phase21.planning.forecast import Forecast
from phase21.planning.registry import Entry
from phase21.planning.strategies import Board, Seats

GROUPS_MOST = 8
"""Tasks of which nothing sets one apart from another share a choice; where there are more such groups, none names candidates."""

CLOSE = 1.0
"""An agent may well be the best where its log-odds are within so many standard deviations of the best one's."""

Group = tuple[str, float, tuple[str, ...]]


class Drawn(NamedTuple):
    """A choice that chance had a part in: the propensity of the agent that came of it, and whether that is another than the best."""

    propensity: float
    explored: bool


CERTAIN = Drawn(1.0, explored=False)


def explore(tasks: Sequence[Task], seats: Seats, board: Board) -> dict[int, Drawn]:
    """Give a share of the tasks to another agent that may well be the best; what was drawn, by the task's place.

    Every LOW risk task that is not pinned is explored with probability `terms.exploration`: its agent is then drawn evenly
    from those that may well be the best and were not full. The propensity is of the agent that it has in the end.
    """
    share = board.terms.exploration
    drawn: dict[int, Drawn] = {}
    open_to = with_places(seats, board) if share else frozenset()
    for position, task in enumerate(tasks):
        seat = seats[position]
        if not share or seat is None or not explorable(task):
            continue
        others = rivals(task, seat, board, open_to)
        if not others:
            continue
        other = board.dice.choice(others) if board.dice.random() < share else None
        if other is not None and board.counts[other] < (board.agents[other].max_tasks or sys.maxsize):
            board.take_back(seat, task)
            seats[position] = board.give(other, task)
            drawn[position] = Drawn(share / len(others), explored=True)
        else:
            drawn[position] = Drawn(1.0 - share, explored=False)
    return drawn


def explorable(task: Task) -> bool:
    """Whether chance may have a part in where the task goes."""
    return task.agent_id is None and task.risk_level is RiskLevel.LOW


def with_places(seats: Seats, board: Board) -> frozenset[int]:
    """Who may hold one more once these seats are dealt."""
    limits = board.limits(sum(seat is not None for seat in seats))
    return frozenset(index for index, limit in enumerate(limits) if board.room[index] and board.counts[index] < limit)


def rivals(task: Task, seat: int, board: Board, open_to: frozenset[int]) -> list[int]:
    """Who else, of those that may hold one more, may well be the best for a task that has a seat."""
    forecast, agents = board.forecast, board.agents
    best = forecast.predicted(task, agents[seat].agent_id)
    found = []
    for index in board.pool(board.wants(task)):
        agent_id = agents[index].agent_id
        reach = CLOSE * forecast.doubt(task, agent_id)
        free = index != seat and index in open_to and board.room[index]
        if free and forecast.predicted(task, agent_id) + reach >= best - TOLERANCE:
            found.append(index)
    return found


def choices(tasks: Sequence[Task], seats: Seats, board: Board, entry: Entry, drawn: dict[int, Drawn]) -> tuple[Choice, ...]:
    """The choices behind the seats of a plan; those of tasks that nothing sets apart are one."""
    groups: dict[Group, list[Task]] = {}
    made: list[Choice] = []
    for position, (task, seat) in enumerate(zip(tasks, seats, strict=True)):
        if seat is None:
            continue
        own = task.agent_id is not None or task.predictions or position in drawn
        if own or (task.features and board.forecast.modelled(task)):
            made.append(_own(task, seat, board, entry, drawn.get(position, CERTAIN)))
        else:
            groups.setdefault((task.kind, task.predicted_success_rate, task.capabilities), []).append(task)
    made.extend(_of_groups(list(groups.values()), board, entry))
    return tuple(made)


def _own(task: Task, seat: int, board: Board, entry: Entry, drawn: Drawn) -> Choice:
    agent_id = board.agents[seat].agent_id
    candidates = candidates_of(task, board)
    if task.agent_id is not None:
        reason = "pinned"
    elif drawn.explored:
        reason = "explored"
    elif entry.reason == "best" and candidates[0].predicted > board.forecast.predicted(task, agent_id) + TOLERANCE:
        reason = "capacity"
    else:
        reason = entry.reason
    score = board.forecast.score(task, agent_id)
    return Choice((task.task_id,), candidates, reason, drawn.propensity, score)


def _of_groups(groups: list[list[Task]], board: Board, entry: Entry) -> list[Choice]:
    if len(groups) > GROUPS_MOST:
        return [Choice((), (), entry.reason)]
    groups.sort(key=len, reverse=True)
    return [
        Choice(tuple(task.task_id for task in group) if place else (), candidates_of(group[0], board), entry.reason)
        for place, group in enumerate(groups)
    ]


def again(
    task: Task, agent_id: str, rates: Mapping[str, float], forecast: Forecast, loads: Mapping[str, int], reason: str
) -> Choice:
    """The choice behind a task that goes to another agent: rates best first, the chosen agent first among equals."""
    ranked = sorted(rates, key=lambda other: (-rates[other], other != agent_id))[:CANDIDATES_MOST]
    candidates = (
        Candidate(other, task.raw_prediction(other), rates[other], forecast.expected_s(task, other), loads.get(other, 0))
        for other in ranked
    )
    return Choice((task.task_id,), tuple(candidates), reason, score=forecast.score(task, agent_id))


def shared_out(choices: Sequence[Choice], assignments: Sequence[Assignment]) -> tuple[Choice, ...]:
    """Those of the choices that are about these assignments, with their tasks alone."""
    ids = {given.task_id for given in assignments}
    about: list[Choice] = []
    for choice in choices:
        tasks = tuple(task_id for task_id in choice.tasks if task_id in ids)
        if tasks == choice.tasks:
            about.append(choice)
        elif tasks:
            about.append(msgspec.structs.replace(choice, tasks=tasks))
    return tuple(about)


def candidates_of(task: Task, board: Board) -> tuple[Candidate, ...]:
    """Those predicted best, best first, with what each held of the wave before."""
    forecast, agents = board.forecast, board.agents
    rated = [(forecast.predicted(task, agents[index].agent_id), -index) for index in board.pool(board.wants(task))]
    return tuple(
        Candidate(
            agents[-place].agent_id,
            task.raw_prediction(agents[-place].agent_id),
            rate,
            forecast.expected_s(task, agents[-place].agent_id),
            board.before[-place],
        )
        for rate, place in nlargest(CANDIDATES_MOST, rated)
    )
