"""What an estimate is multiplied by: how long a step takes, and how fast an agent is.

Made from the ledger by the manager while a workflow's wave is under way, as often as enough has been learned. Values in, values
out.
"""

from __future__ import annotations

from math import exp

from phase21.domain.paces import Pace, Paces

PRIOR_COUNT, PRIOR_NOISE = 1.0, 0.3
"""Noise (standard deviation of the logarithm) that is assumed before any is seen, and how many tasks that weighs."""

SPREAD = 0.5
"""By how much agents differ in speed, as a standard deviation of the logarithm."""

SURE = 2.0
"""An agent is set apart from the others by so many standard errors at least."""

KAPPA = 0.5
"""How many tasks of a step weigh as much as what all steps have shown."""

ROUNDS = 12
DIGITS = 6
"""Decimals of an agent's multiple: what comes behind is the noise of sums, and would set agents apart that are alike."""

Cell = tuple[int, int, int, float]


class Tempo:
    """Multiples of estimates.

    The logarithm of each multiple is the step's plus the agent's plus noise (a two-way additive model, fitted by turns). What an
    agent has of its own is shrunk by noise / spread, and dropped where it is within `SURE` standard errors of nothing, so that
    agents that are alike are not told apart by chance. A step's multiple is the mean over its tasks, each as an agent of middle
    speed would have needed, shrunk to that of all steps.
    """

    def __init__(self, paces: Paces) -> None:
        self.learned = paces.learned
        self._agents: dict[str, float] = _agents(paces)
        totals = {step: self._normal(agents) for step, agents in paces.steps.items()}
        count = sum(count for count, _ in totals.values())
        self._all = sum(total for _, total in totals.values()) / count if count else 1.0
        self._steps = {step: (total + KAPPA * self._all) / (count + KAPPA) for step, (count, total) in totals.items()}

    def _normal(self, agents: dict[str, Pace]) -> tuple[int, float]:
        return (
            sum(pace.count for pace in agents.values()),
            sum(pace.total / self._agents[agent_id] for agent_id, pace in agents.items()),
        )

    def knows(self, step: str) -> bool:
        """Whether a task of the step has been seen."""
        return step in self._steps

    def step(self, step: str) -> float:
        """What the step's estimates are multiplied by; that of all steps where it is not known, 1.0 where nothing is."""
        return self._steps.get(step, self._all)

    def agent(self, agent_id: str) -> float | None:
        """What an agent's seconds are as a multiple of the middle one's; None where it has not been seen."""
        return self._agents.get(agent_id)


def _agents(paces: Paces) -> dict[str, float]:
    names = {agent_id: None for agents in paces.steps.values() for agent_id in agents}
    place = {agent_id: index for index, agent_id in enumerate(names)}
    cells = [
        (index, place[agent_id], pace.count, pace.logs / pace.count)
        for index, agents in enumerate(paces.steps.values())
        for agent_id, pace in agents.items()
    ]
    variance = _variance(paces)
    own, counts = _fitted(cells, len(paces.steps), len(names), variance / SPREAD**2)
    return {name: _told_apart(own[index], variance / counts[index]) for name, index in place.items()}


def _told_apart(own: float, error: float) -> float:
    """The multiple, where it is more than chance; 1.0 else."""
    return round(exp(own), DIGITS) if own * own > SURE * SURE * error else 1.0


def _variance(paces: Paces) -> float:
    """The variance of logarithms about the mean of their step and agent."""
    scatter, freedom = PRIOR_COUNT * PRIOR_NOISE**2, PRIOR_COUNT
    for agents in paces.steps.values():
        for pace in agents.values():
            scatter += max(0.0, pace.squares - pace.logs**2 / pace.count)
            freedom += pace.count - 1
    return scatter / freedom


def _fitted(cells: list[Cell], steps: int, agents: int, weight: float) -> tuple[list[float], list[int]]:
    """What each agent has of its own, and how many tasks say so."""
    own, counts = [0.0] * agents, [0] * agents
    sizes = [0] * steps
    for step, agent, count, _ in cells:
        counts[agent] += count
        sizes[step] += count
    for _ in range(ROUNDS if agents > 1 else 0):
        levels = [0.0] * steps
        for step, agent, count, mean in cells:
            levels[step] += count * (mean - own[agent]) / sizes[step]
        own = [0.0] * agents
        for step, agent, count, mean in cells:
            own[agent] += count * (mean - levels[step]) / (counts[agent] + weight)
    middle = sum(own) / max(agents, 1)
    return [value - middle for value in own], counts
