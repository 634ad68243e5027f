"""How likely an agent is to succeed at a task, and how long it will take: what came in, corrected by what outcomes have shown.

Made by the planner's callers from the ledger, once for each plan; it never changes the evidence. Tasks that say something of
themselves (`features`) are seen through a regression over tasks and agents, the
others through rates of agents and kinds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from math import exp, sqrt
from typing import NamedTuple

from phase21.domain.evidence import HIGHEST, LOWEST, SCORE_LEAST, SCORE_MOST, SHORTEST_S, Calibrator, Evidence
from phase21.domain.records import AgentRecord
from phase21.domain.tasks import Task
from phase21.planning.makespan import Outlook
from phase21.planning.rates import KAPPA, Rates
from phase21.planning.variances import NOISE, OWN, SHARED

LEARNS_FEATURES = find_spec("numpy") is not None and find_spec("threadpoolctl") is not None
"""Whether the extra `optimize` is installed; without it features are not used."""


SPREAD = 1.5
"""Standard deviation of the logarithm of seconds about what is expected."""


class Expected(NamedTuple):
    """What is expected of one task, a value for each agent: score before calibration, success rate, seconds."""

    scores: list[float]
    rates: list[float]
    seconds: list[float]


class Forecast:
    """The predicted success and duration of any task by any agent.

    Without features the log-odds of what came in are shifted by what `Rates` has learned of agent and kind, so that what sets
    easy tasks apart from hard ones is kept. With features the regression is over what is left when fleet and kind are
    accounted for, and what it says is calibrated by outcomes.
    """

    def __init__(self, agents: Iterable[AgentRecord], *, enabled: bool, evidence: Evidence | None = None) -> None:
        self._agents = list(agents)
        self._rates = Rates(self._agents if enabled else ())
        self._factors: dict[tuple[str, str], float] = {}
        self._index = {agent.agent_id: index for index, agent in enumerate(self._agents)}
        observations = evidence.observations if enabled and LEARNS_FEATURES and evidence is not None else []
        self._observed = [seen for seen in observations if seen.agent_id in self._index]
        self._calibrator = evidence.calibrator if evidence is not None else Calibrator()
        stretches = [seen.stretch for seen in self._observed if seen.stretch is not None]
        self._middle = sum(stretches) / len(stretches) if stretches else 0.0
        lost = [seen.stretch for seen in self._observed if seen.stretch is not None and not seen.success]
        self._failing = exp(sum(lost) / len(lost)) if lost else None
        self._seen: dict[str, Expected] = {}

    def factor(self, agent_id: str, kind: str = "") -> float:
        """What the odds of success are multiplied by for this agent and kind; 1.0 where nothing is corrected."""
        return self._rates.factor(agent_id, kind)

    def _factor(self, agent_id: str, kind: str) -> float:
        factor = self._factors[agent_id, kind] = self._rates.factor(agent_id, kind)
        return factor

    def modelled(self, task: Task) -> bool:
        """Whether the regression speaks of this task."""
        return bool(task.features and self._observed)

    def predicted(self, task: Task, agent_id: str) -> float:
        """The calibrated success rate, 0 to 1; what came in, bit for bit, where there is nothing to correct it by."""
        if task.features and self._observed and agent_id in self._index:
            return self._row(task).rates[self._index[agent_id]]
        rate = task.predicted_success_rate
        if task.predictions:
            rate = task.predictions.get(agent_id, rate)
        factor = self._factors.get((agent_id, task.kind)) or self._factor(agent_id, task.kind)
        if factor == 1.0:
            return rate
        rate = min(max(rate, LOWEST), HIGHEST)
        odds = rate * factor
        return odds / (1.0 - rate + odds)

    def expected_s(self, task: Task, agent_id: str) -> float:
        """How many seconds an attempt is expected to take: what was estimated, stretched as outcomes have shown."""
        if task.features and self._observed and agent_id in self._index:
            return self._row(task).seconds[self._index[agent_id]]
        return task.estimated_duration_s * self._rates.stretch(agent_id)

    def outlook(self, task: Task, agent_id: str) -> Outlook:
        """How an attempt may last: as expected where it succeeds, and as failures have lasted where it fails."""
        expected_s = self.expected_s(task, agent_id)
        if self._failing is None:
            return Outlook(rate=1.0, seconds=expected_s, failing_s=expected_s)
        failing_s = max(task.estimated_duration_s, SHORTEST_S) * self._failing
        if task.timeout_s is not None:
            failing_s = min(failing_s, task.timeout_s)
        rate = self.predicted(task, agent_id)
        return Outlook(rate=rate, seconds=min(expected_s, failing_s), failing_s=failing_s, spread=SPREAD)

    def doubt(self, task: Task, agent_id: str) -> float:
        """The standard deviation of what is believed of this rate, as of a Beta distribution."""
        rate = min(max(self.predicted(task, agent_id), SCORE_LEAST), SCORE_MOST)
        return sqrt(rate * (1.0 - rate) / (KAPPA + 1.0 + self._rates.samples(agent_id, task.kind)))

    def after_failures(self, task: Task, failed: Sequence[str]) -> list[float]:
        """The success rate of each agent, in their order, at a task at which agents have failed (one name for each failure).

        What makes tasks hard is in part shared by all agents and in part an agent's own, as in the regression: with prior
        variances S and O and noise N, an agent that failed k times at predicted rates p says -p = shared + own + noise of
        variance N / k, which is solved for both (the conditional mean of a normal distribution).
        """
        rates = [self.predicted(task, agent.agent_id) for agent in self._agents]
        counts = Counter(agent_id for agent_id in failed if agent_id in self._index)
        misses = [(self._index[agent_id], OWN + NOISE / count) for agent_id, count in counts.items()]
        if not misses:
            return rates
        precision = 1.0 / SHARED + sum(1.0 / variance for _, variance in misses)
        shared = -sum(rates[index] / variance for index, variance in misses) / precision
        after = [rate + shared for rate in rates]
        for index, variance in misses:
            after[index] += OWN / variance * (-rates[index] - shared)
        return [min(max(rate, SCORE_LEAST), SCORE_MOST) for rate in after]

    def score(self, task: Task, agent_id: str) -> float | None:
        """What the regression says before calibration; None where it does not speak."""
        if not self.modelled(task) or agent_id not in self._index:
            return None
        return self._row(task).scores[self._index[agent_id]]

    def prepare(self, tasks: Sequence[Task]) -> None:
        """Look at many tasks at once, which is much cheaper than one after the other."""
        asked = [task for task in tasks if task.features and task.task_id not in self._seen] if self._observed else []
        if asked:
            self._regress(asked)

    def _row(self, task: Task) -> Expected:
        if task.task_id not in self._seen:
            self._regress([task])
        return self._seen[task.task_id]

    def _regress(self, asked: list[Task]) -> None:
        from phase21.planning.outlook import outlook  # noqa: PLC0415 - numpy is loaded where features are met

        stretches = [0.0 if seen.stretch is None else seen.stretch - self._middle for seen in self._observed]
        rows = outlook(
            asked,
            self._observed,
            [(self._rates.level(seen.raw, seen.kind), stretch) for seen, stretch in zip(self._observed, stretches, strict=True)],
            [self._index[seen.agent_id] for seen in self._observed],
            [self._levels(task) for task in asked],
            self._calibrator,
        )
        for task, (scores, rates, lengths) in zip(asked, rows, strict=True):
            estimate_s = max(task.estimated_duration_s, SHORTEST_S) * exp(self._middle)
            self._seen[task.task_id] = Expected(scores, rates, [estimate_s * length for length in lengths])

    def _levels(self, task: Task) -> list[float]:
        """What fleet and kind alone would say, for each agent."""
        rates = self._rates
        level = rates.level(task.predicted_success_rate, task.kind)
        if not task.predictions:
            return [level] * len(self._agents)
        return [rates.level(task.raw_prediction(agent.agent_id), task.kind) for agent in self._agents]
