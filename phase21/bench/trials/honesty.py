"""How honest predictions are: those of the runs of `gaps`, and those made while an agent is exchanged for another version of itself.

Every prediction was made before its outcome. Baselines see what ours sees: a constant, the running base rate, each agent's
running rate, and a contextual one: logistic regression over the same points, a model for each agent, fitted anew
after each wave (ridge, iteratively reweighted least squares).
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec
import numpy as np

from phase21.bench.trials.arena import Arena
from phase21.bench.trials.gaps import WAVE, Made
from phase21.bench.trials.sets import OutcomeSet
from phase21.domain.evidence import observation
from phase21.domain.tasks import DEFAULT_SUCCESS_RATE, Task
from phase21.evaluation.calibration import Pair, brier_score, expected_calibration_error
from phase21.planning.encoding import Matrix, encode
from phase21.planning.strategies import Terms

RIDGE = 3.0
STEPS = 4
KEPT = 1000
AFTER_SWITCH = 200


class Honesty(msgspec.Struct, frozen=True, kw_only=True):
    """Expected calibration error (ten bins) and Brier score."""

    ece: float
    brier: float


def honesty_of(pairs: Sequence[Pair]) -> Honesty:
    """What so many predictions and outcomes come to."""
    return Honesty(ece=expected_calibration_error(pairs) or 0.0, brier=brier_score(pairs) or 0.0)


def predictions(found: OutcomeSet, runs: Sequence[Sequence[Made]]) -> dict[str, list[Pair]]:
    """Ours and the baselines', on the pairs that we chose, in the order of the runs."""
    pairs: dict[str, list[Pair]] = {"ours": [], "constant": [], "base rate": [], "agent's rate": [], "contextual": []}
    for made in runs:
        seen, won = 0, 0
        by_agent: dict[int, tuple[int, int]] = {}
        contextual = _contextual(found, made)
        for one, rate in zip(made, contextual, strict=True):
            tried, succeeded = by_agent.get(one.agent, (0, 0))
            pairs["ours"].append((one.predicted, one.success))
            pairs["constant"].append((DEFAULT_SUCCESS_RATE, one.success))
            pairs["base rate"].append(((won + 1) / (seen + 2), one.success))
            pairs["agent's rate"].append(((succeeded + 1) / (tried + 2), one.success))
            pairs["contextual"].append((rate, one.success))
            seen, won = seen + 1, won + one.success
            by_agent[one.agent] = (tried + 1, succeeded + one.success)
    return pairs


def _contextual(found: OutcomeSet, made: Sequence[Made]) -> list[float]:
    described = [
        observation(Task(task_id="t", features=features), "", success=False, duration_s=None) for features in found.features
    ]
    points, _ = encode(described, ())
    agents = len(found.agents)
    weights = np.zeros((agents, points.shape[1] + 1))
    rates: list[float] = []
    for start in range(0, len(made), WAVE):
        wave = made[start : start + WAVE]
        rates.extend(float(_rate(points[one.features], weights[one.agent])) for one in wave)
        past = made[max(0, start + len(wave) - KEPT) : start + len(wave)]
        for agent in {one.agent for one in wave}:
            own = [one for one in past if one.agent == agent]
            weights[agent] = _fitted(points[[one.features for one in own]], np.array([one.success for one in own], dtype=float))
    return rates


def _rate(point: Matrix, weights: Matrix) -> float:
    return float(1.0 / (1.0 + np.exp(-(weights[0] + point @ weights[1:]))))


def _fitted(points: Matrix, outcomes: Matrix) -> Matrix:
    design = np.hstack([np.ones((len(points), 1)), points])
    penalty = RIDGE * np.eye(design.shape[1])
    penalty[0, 0] = 0.1
    weights: Matrix = np.zeros(design.shape[1])
    for _ in range(STEPS):
        rates = 1.0 / (1.0 + np.exp(-(design @ weights)))
        curve = np.maximum(rates * (1.0 - rates), 0.02)
        slope = design.T @ (outcomes - rates) - penalty @ weights
        weights = weights + np.linalg.solve(design.T @ (design * curve[:, None]) + penalty, slope)
    return weights


def after_switch(
    families: Sequence[tuple[str, list[dict[str, str]], list[dict[str, str]]]], seed: int
) -> tuple[list[Pair], list[Pair]]:
    """Each family's older version answers until half of the questions are asked, then the newer one in its name.

    Gives the pairs before the switch (the first 200 aside) and the 200 that follow the first 200 after it, of all agents together.
    """
    dice = random.Random(seed)  # noqa: S311 - an order that can be told again
    arena = Arena([f"a{index}" for index in range(len(families))])
    halves = []
    for index, (_, older, newer) in enumerate(families):
        older, newer = list(older), list(newer)  # noqa: PLW2901 - shuffled here alone
        dice.shuffle(older)
        dice.shuffle(newer)
        halves.append([(index, row) for row in older[: len(older) // 2]] + [(index, row) for row in newer[: len(newer) // 2]])
    length = min(len(half) for half in halves)
    turns = [half[place] for place in range(length) for half in halves]
    switch = (length // 2) * len(halves)
    made: list[Pair] = []
    for start in range(0, len(turns), WAVE):
        wave = turns[start : start + WAVE]
        tasks = [
            Task(task_id=f"t{start + place}", agent_id=f"a{index}", features={"set": row["dataset"]})
            for place, (index, row) in enumerate(wave)
        ]
        plan, _ = arena.open(tasks, "round_robin", Terms())
        attempts = {}
        for given, (index, row) in zip(plan.assignments, wave, strict=True):
            success = float(row["success"]) > 0
            made.append((given.predicted, success))
            attempts[given.task_id] = [(f"a{index}", success, 1.0)]
        arena.close(attempts)
    return made[AFTER_SWITCH:switch], made[switch + AFTER_SWITCH : switch + 2 * AFTER_SWITCH]
