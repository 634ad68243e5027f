"""Strategies that weigh a whole wave at once, from what is expected of every task at every agent.

Called by the planner with tasks that are not pinned, like those of `strategies`; what they look at grows with tasks times
agents. They deal within each agent's capacity for the wave; what would find no seat so is dealt without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from phase21.domain.tasks import Task
from phase21.planning.assignment import assign
from phase21.planning.makespan import schedule
from phase21.planning.strategies import Board, Seats

Values = list[list[float | None]]

EVEN = 0.005
"""What a task more than an even share takes off the value of having it: where agents are as good as equal, all are asked."""

LOWEST_RATE = 0.001
"""Success rates are taken as at least this where attempts until success are counted."""


def maximize_success(tasks: Sequence[Task], board: Board) -> Seats:
    """The highest sum of predicted success rates."""
    return _best(tasks, board, board.forecast.predicted)


def minimize_retries(tasks: Sequence[Task], board: Board) -> Seats:
    """The fewest attempts expected, until success or until the task may not be tried again.

    With rate p and k attempts allowed that is (1 - (1 - p)^k) / p, for attempts that are alike.
    """

    def spared(task: Task, agent_id: str) -> float:
        rate = max(board.forecast.predicted(task, agent_id), LOWEST_RATE)
        return -(1.0 - (1.0 - rate) ** board.attempts_allowed(task)) / rate

    return _best(tasks, board, spared)


def confidence_optimization(tasks: Sequence[Task], board: Board) -> Seats:
    """The most that outcomes are expected to teach, among agents that are nearly as good as the best.

    What an outcome teaches is the variance that it is expected to take from its own prediction (see `Forecast.doubt`); a
    success rate given up counts `GIVEN_UP` times as much.
    """
    forecast = board.forecast

    def gain(task: Task, agent_id: str) -> float:
        return forecast.doubt(task, agent_id) + GIVEN_UP * forecast.predicted(task, agent_id)

    return _best(tasks, board, gain)


GIVEN_UP = 0.5


def thompson(tasks: Sequence[Task], board: Board) -> Seats:
    """The highest sum of success rates, each drawn from what is believed of it instead of its mean.

    Thompson (1933): an agent is tried as often as it may be the best. The draws are normal, one for each agent and kind of task
    and wave, so that a wave tries a belief and not noise.
    """
    forecast, dice = board.forecast, board.dice
    drawn: dict[tuple[str, str], float] = {}

    def sample(task: Task, agent_id: str) -> float:
        key = (agent_id, task.kind)
        if key not in drawn:
            drawn[key] = dice.gauss(0.0, 1.0)
        return forecast.predicted(task, agent_id) + drawn[key] * forecast.doubt(task, agent_id)

    return _best(tasks, board, sample, even=0.0)


def balance_load(tasks: Sequence[Task], board: Board) -> Seats:
    """As many tasks for each as for any other, one more or less; among such dealings the highest sum of success rates."""
    values = _matrix(tasks, board, board.forecast.predicted)
    tops = [min(most, int(free)) for most, free in zip(board.even(len(tasks)), board.room, strict=True)]
    level = max((top + count for top, count in zip(tops, board.counts, strict=True) if top), default=0)
    last = [int(top > 0 and top + count == level) for top, count in zip(tops, board.counts, strict=True)]
    before = [top - one for top, one in zip(tops, last, strict=True)]
    first = float(len(tasks) + 1)  # more than any dealing can gain: nobody has a last task before everybody has the one before
    wide = [[None if value is None else value + first for value in row] + row for row in values]
    dealt = assign(wide, before + last).seats
    seats: Seats = [
        None if lane is None else board.give(lane % len(board.agents), task) for task, lane in zip(tasks, dealt, strict=True)
    ]
    left = [position for position, seat in enumerate(seats) if seat is None]
    for position, seat in zip(left, _best([tasks[position] for position in left], board, board.forecast.predicted), strict=True):
        seats[position] = seat
    return seats


def maximize_throughput(tasks: Sequence[Task], board: Board) -> Seats:
    """The wave is expected to end soonest."""
    agents = board.agents
    seconds = _matrix(tasks, board, lambda task, agent_id: board.forecast.outlook(task, agent_id).expected_s)
    made = schedule(seconds, board.seconds, [agent.concurrency for agent in agents], board.room, guessed=True)
    for task, seat in zip(tasks, made.seats, strict=True):
        if seat is not None:
            board.give(seat, task)
    return list(made.seats)


def _matrix(tasks: Sequence[Task], board: Board, worth: Callable[[Task, str], float]) -> Values:
    """A row for each task, a value for each agent; None where the agent may not have it now."""
    board.forecast.prepare(tasks)
    rows: Values = []
    for task in tasks:
        row: list[float | None] = [None] * len(board.agents)
        for index in board.pool(board.wants(task)):
            if board.room[index]:
                row[index] = worth(task, board.agents[index].agent_id)
        rows.append(row)
    return rows


def _best(tasks: Sequence[Task], board: Board, worth: Callable[[Task, str], float], *, even: float = EVEN) -> Seats:
    """The best dealing within capacities; then, of what found no seat, the best without. Ties go to whoever has less.

    Each agent has two lanes: an even share of the wave, and what it may have beyond, which is worth `even` less.
    """
    values = _matrix(tasks, board, worth)
    seats: Seats = [None] * len(tasks)
    for limit in (board.capacities(len(tasks)), board.room):
        left = [position for position, seat in enumerate(seats) if seat is None]
        if left:
            room = [max(0, min(most, int(free))) for most, free in zip(limit, board.room, strict=True)]
            shares = [min(share, free) for share, free in zip(board.even(len(left)), room, strict=True)]
            wide = [_beyond(values[position], even) for position in left]
            dealt = assign(wide, shares + [free - share for free, share in zip(room, shares, strict=True)]).seats
            for position, lane in zip(left, dealt, strict=True):
                if lane is not None:
                    seats[position] = board.give(lane % len(room), tasks[position])
    return seats


def _beyond(row: list[float | None], even: float) -> list[float | None]:
    return row + [None if value is None else value - even for value in row]
