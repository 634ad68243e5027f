"""How much of what could be gained by assignment is gained: waves of recorded tasks, planned and learned from as the house does.

The protocol: waves of 20 tasks in a random order, at most `cap` tasks an agent and wave, the learner sees only the outcome of the
pair it chose. Gap closed = (ours - round robin) / (oracle - round robin), where round robin stands for its own mean
over all orders of the fleet, and the oracle knows every outcome and keeps to the same capacities; with several trials of a pair it
chooses by the other trials, so that it is not inflated by luck.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from statistics import fmean

import msgspec

from phase21.bench.trials.arena import Arena
from phase21.bench.trials.sets import OutcomeSet
from phase21.domain.tasks import Task
from phase21.planning.assignment import assign
from phase21.planning.strategies import Terms

WAVE = 20
Draw = tuple[int, int]
"""A task that arrives: its index, and which of its trials counts."""


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """One task of a run: how far along it came, what was predicted of the pair, what came of it, of the others and of the oracle's."""

    position: int
    agent: int
    predicted: float
    success: bool
    round_robin: float
    oracle: float
    features: int


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """Over all seeds: shares of the gap closed, and success rates."""

    whole: float
    second_half: float
    ours: float
    round_robin: float
    oracle: float
    tasks: int


def order(found: OutcomeSet, dice: random.Random) -> list[Draw]:
    """Every trial of every task once, in a random order."""
    draws = [(task, trial) for task in range(len(found.tasks)) for trial in range(found.trials)]
    dice.shuffle(draws)
    return draws


def task_of(found: OutcomeSet, number: int, draw: Draw) -> Task:
    """The task as it is submitted: what is known of it beforehand, and nothing else."""
    return Task(task_id=f"t{number}", features=found.features[draw[0]])


def capacity(found: OutcomeSet, cap: int, tasks: int = WAVE) -> int:
    """The cap, or as many as it takes to seat a wave where the fleet is small."""
    return max(cap, -(-tasks // len(found.agents)))


def run(found: OutcomeSet, cap: int, seed: int, *, exploration: float, strategy: str = "maximize_success") -> Iterator[Made]:
    """One run over the whole set."""
    dice = random.Random(seed)  # noqa: S311 - an order that can be told again
    draws = order(found, dice)
    arena = Arena([f"a{index}" for index in range(len(found.agents))])
    most = capacity(found, cap)
    for start in range(0, len(draws), WAVE):
        wave = draws[start : start + WAVE]
        tasks = [task_of(found, start + place, draw) for place, draw in enumerate(wave)]
        slack = most * len(found.agents) / len(wave)
        made, _ = arena.open(tasks, strategy, Terms(slack=max(1.0, slack), exploration=exploration, seed=f"{seed}/{start}"))
        chosen = {given.task_id: (int(given.agent_id[1:]), given.predicted) for given in made.assignments}
        best = _oracle(found, wave, most)
        attempts = {}
        for place, (task, trial) in enumerate(wave):
            agent, predicted = chosen[tasks[place].task_id]
            row = found.success[task]
            attempts[tasks[place].task_id] = [(f"a{agent}", row[agent][trial], _seconds(found, task, agent))]
            yield Made(
                position=start + place,
                agent=agent,
                predicted=predicted,
                success=row[agent][trial],
                round_robin=fmean(pair[trial] for pair in row),
                oracle=float(row[best[place]][trial]),
                features=task,
            )
        arena.close(attempts)


def _seconds(found: OutcomeSet, task: int, agent: int) -> float:
    return found.seconds[task][agent] if found.seconds else 1.0


def _oracle(found: OutcomeSet, wave: Sequence[Draw], most: int) -> list[int]:
    values = []
    for task, trial in wave:
        if found.trials > 1:
            row = [fmean(ok for at, ok in enumerate(pair) if at != trial) for pair in found.success[task]]
        else:
            row = [float(pair[0]) for pair in found.success[task]]
        values.append(row)
    return [seat if seat is not None else 0 for seat in assign(values, [most] * len(found.agents)).seats]


def gap_of(runs: Sequence[Sequence[Made]]) -> Gap:
    """What all runs together closed."""
    made = [one for each in runs for one in each]
    later = [one for each in runs for one in each if one.position >= len(each) // 2]
    return Gap(
        whole=_closed(made),
        second_half=_closed(later),
        ours=fmean(one.success for one in made),
        round_robin=fmean(one.round_robin for one in made),
        oracle=fmean(one.oracle for one in made),
        tasks=len(made),
    )


def _closed(made: Sequence[Made]) -> float:
    gained = sum(one.success - one.round_robin for one in made)
    possible = sum(one.oracle - one.round_robin for one in made)
    return gained / possible if possible else 0.0
