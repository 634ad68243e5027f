"""How likely an agent is to succeed at a task: what came in, corrected by what the agent has shown.

Made by the planner's callers from the ledger's agents, once for each plan; it never changes and never learns by itself.
"""

from __future__ import annotations

from collections.abc import Iterable

from phase21.domain.judgements import Calibration
from phase21.domain.records import AgentRecord
from phase21.domain.tasks import Task

KAPPA = 20.0
"""How many tasks of evidence weigh as much as what came in."""

LOWEST, HIGHEST = 0.001, 0.999
"""Rates are kept this far from 0 and 1 before their log-odds are taken."""

FACTOR_DIGITS = 12
"""Decimals of a factor: what comes behind is the noise of a sum, and would set agents apart that have shown the same."""


class Forecast:
    """The predicted success of any task by any agent.

    An agent's own rate has a Beta posterior, its prior centred on the mean `q` of what came in for its evidence with the
    weight of `KAPPA` tasks: `post = (KAPPA q + successes) / (KAPPA + samples)`. The shift `logit(post) - logit(q)` is
    added to the log-odds of what comes in, so that what sets easy tasks apart from hard ones is kept. It is applied
    as a factor on the odds, which is the same and needs no logarithm.
    """

    def __init__(self, agents: Iterable[AgentRecord], *, enabled: bool) -> None:
        self._factors: dict[str, float] = {}
        if enabled:
            factors = ((agent.agent_id, odds_factor(agent.calibration)) for agent in agents)
            self._factors = {agent_id: factor for agent_id, factor in factors if factor != 1.0}

    def factor(self, agent_id: str) -> float:
        """What the odds of success are multiplied by for this agent; 1.0 where nothing is corrected."""
        return self._factors.get(agent_id, 1.0)

    def predicted(self, task: Task, agent_id: str) -> float:
        """The calibrated success rate, 0 to 1; what came in, bit for bit, where there is nothing to correct it by."""
        rate = task.predicted_success_rate
        if task.predictions:
            rate = task.predictions.get(agent_id, rate)
        factor = self._factors.get(agent_id)
        if factor is None:
            return rate
        if rate < LOWEST:
            rate = LOWEST
        elif rate > HIGHEST:
            rate = HIGHEST
        odds = rate * factor
        return odds / (1.0 - rate + odds)


def odds_factor(evidence: Calibration) -> float:
    """What an agent's evidence does to the odds of success: `exp(logit(post) - logit(q))`; 1.0 without evidence."""
    if evidence.samples == 0:
        return 1.0
    came_in = evidence.predicted_sum / evidence.samples
    shown = (KAPPA * came_in + evidence.successes) / (KAPPA + evidence.samples)
    came_in, shown = (min(max(rate, LOWEST), HIGHEST) for rate in (came_in, shown))
    return round(shown * (1.0 - came_in) / (came_in * (1.0 - shown)), FACTOR_DIGITS)
