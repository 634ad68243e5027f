"""Who tries again: success within three attempts, and how many it takes, where several trials of every pair are on record.

A first attempt is planned like any wave; after a failure the next agent is chosen as the house does. An agent that tries a task
again meets the pair's next trial. Beside it: the same agent again, another at random, and the best agents known with hindsight.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from statistics import fmean

import msgspec

from phase21.bench.trials.arena import Arena, Ran
from phase21.bench.trials.gaps import WAVE, Draw, capacity, order, task_of
from phase21.bench.trials.sets import OutcomeSet
from phase21.domain.tasks import Task
from phase21.planning.forecast import Forecast
from phase21.planning.strategies import Terms

ATTEMPTS = 3
Next = Callable[[Draw, list[int]], int]
"""Which agent tries next, given the task and who has failed."""


class Retried(msgspec.Struct, frozen=True, kw_only=True):
    """Share of tasks that succeeded within three attempts, attempts per task, and success of the second attempts alone."""

    success: float
    attempts: float
    second: float


def learned(found: OutcomeSet, cap: int, seed: int, exploration: float) -> list[list[Ran]]:
    """What the house makes of it, learning as it goes."""
    draws = order(found, random.Random(seed))  # noqa: S311 - an order that can be told again
    arena = Arena([f"a{index}" for index in range(len(found.agents))])
    slack = max(1.0, capacity(found, cap) * len(found.agents) / WAVE)
    told: list[list[Ran]] = []
    for start in range(0, len(draws), WAVE):
        wave = draws[start : start + WAVE]
        tasks = [task_of(found, start + place, draw) for place, draw in enumerate(wave)]
        terms = Terms(slack=slack, max_attempts=ATTEMPTS, exploration=exploration, seed=f"{seed}/{start}")
        made, forecast = arena.open(tasks, "maximize_success", terms)
        first = {given.task_id: int(given.agent_id[1:]) for given in made.assignments}
        attempts = {
            task.task_id: _tried(found, draw, _learned_next(arena, task, forecast, first[task.task_id]))
            for task, draw in zip(tasks, wave, strict=True)
        }
        arena.close(attempts)
        told.extend(list(ran) for ran in attempts.values())
    return told


def _learned_next(arena: Arena, task: Task, forecast: Forecast, first: int) -> Next:
    def next_agent(_: Draw, failed: list[int]) -> int:
        return int(arena.next_agent(task, forecast, [f"a{agent}" for agent in failed])[1:]) if failed else first

    return next_agent


def baseline(found: OutcomeSet, seed: int, *, same: bool) -> list[list[Ran]]:
    """Round robin, then the same agent again, or another at random."""
    dice = random.Random(seed)  # noqa: S311 - an order that can be told again
    count = len(found.agents)
    told = []
    for place, draw in enumerate(order(found, dice)):

        def next_agent(_: Draw, failed: list[int], place: int = place) -> int:
            if not failed:
                return place % count
            return failed[-1] if same else dice.choice([agent for agent in range(count) if agent not in failed])

        told.append(_tried(found, draw, next_agent))
    return told


def hindsight(found: OutcomeSet, seed: int) -> list[list[Ran]]:
    """Agents in the order of their rates over all tasks, which nobody knows beforehand."""
    count = len(found.agents)
    rates = [fmean(fmean(row[agent]) for row in found.success) for agent in range(count)]
    ranked = sorted(range(count), key=lambda agent: -rates[agent])
    draws = order(found, random.Random(seed))  # noqa: S311 - an order that can be told again
    return [_tried(found, draw, lambda _, failed: ranked[len(failed) % count]) for draw in draws]


def _tried(found: OutcomeSet, draw: Draw, next_agent: Next) -> list[Ran]:
    task, trial = draw
    failed: list[int] = []
    ran: list[Ran] = []
    while len(ran) < ATTEMPTS:
        agent = next_agent(draw, failed)
        pair = found.success[task][agent]
        success = pair[(trial + failed.count(agent)) % len(pair)]
        ran.append((f"a{agent}", success, 1.0))
        if success:
            break
        failed.append(agent)
    return ran


def summed(told: Sequence[Sequence[Ran]]) -> Retried:
    """What all tasks together came to."""
    seconds = [ran[1][1] for ran in told if len(ran) > 1]
    return Retried(
        success=fmean(ran[-1][1] for ran in told),
        attempts=fmean(len(ran) for ran in told),
        second=fmean(seconds) if seconds else 0.0,
    )
