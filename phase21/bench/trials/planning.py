"""What a plan of a whole wave costs, and how far from the bound it ends: random rates, exact where it is small."""

from __future__ import annotations

import random
import time
from statistics import median

import msgspec

from phase21.domain.evidence import OBSERVATIONS_KEPT, Evidence, observation
from phase21.domain.records import AgentRecord
from phase21.domain.tasks import Task
from phase21.planning.assignment import assign
from phase21.planning.forecast import Forecast

SIZES = ((20, 8), (1_000, 16), (10_000, 64))
REPEATS = 3
FORECAST_TASKS, FORECAST_AGENTS, FORECAST_FEATURES = 10_000, 64, 20


class Dealt(msgspec.Struct, frozen=True, kw_only=True):
    """Tasks times agents, milliseconds (median), and how far below the bound the sum is, as a share."""

    tasks: int
    agents: int
    milliseconds: float
    gap: float


def dealt(tasks: int, agents: int) -> Dealt:
    """One size: a quarter more room than tasks."""
    dice = random.Random(tasks)  # noqa: S311 - values that can be told again
    values = [[dice.random() for _ in range(agents)] for _ in range(tasks)]
    capacities = [-(-tasks * 5 // (4 * agents))] * agents
    spent = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        made = assign(values, capacities)
        spent.append(time.perf_counter() - began)
    return Dealt(tasks=tasks, agents=agents, milliseconds=1000.0 * median(spent), gap=(made.bound - made.value) / abs(made.bound))


def pairs_per_second() -> float:
    """Forecasts a second, pairs of task and agent, from a full memory of observations."""
    dice = random.Random(0)  # noqa: S311 - values that can be told again
    agents = [AgentRecord(agent_id=f"a{index}") for index in range(FORECAST_AGENTS)]
    seen = [
        observation(_task(dice, f"o{n}"), f"a{n % FORECAST_AGENTS}", success=n % 2 == 0, duration_s=1.0)
        for n in range(OBSERVATIONS_KEPT)
    ]
    asked = [_task(dice, f"t{n}") for n in range(FORECAST_TASKS)]
    began = time.perf_counter()
    forecast = Forecast(agents, enabled=True, evidence=Evidence(observations=seen))
    forecast.prepare(asked)
    return FORECAST_TASKS * FORECAST_AGENTS / (time.perf_counter() - began)


def _task(dice: random.Random, task_id: str) -> Task:
    return Task(task_id=task_id, features={f"f{n}": dice.random() for n in range(FORECAST_FEATURES)})
