"""What is expected of a workflow's wave while it is under way: seconds of its tasks, speeds of its agents, and the order from both.

Kept by `dispatch`, and made anew as tasks show how long they take. It decides nothing and records nothing.
"""

from __future__ import annotations

from phase21.domain.paces import step_of
from phase21.domain.records import AgentRecord, TaskRecord, WaveRecord
from phase21.domain.tasks import FINAL, Task
from phase21.manager.desk import Desk
from phase21.planning.graphs import Graph, order, ranks
from phase21.planning.paces import Tempo

LEARNED_SHARE = 0.25
RANKING_S = 1e-4
"""What is known is looked at once so much more has been learned, tasks are ordered by it once so many seconds for each have passed."""

ORDERED_MOST = 5000
"""Up to so many tasks an order is sought that is better than that by the longest way to the end."""

ALIKE = 0.01
"""What has changed by no more than this share is taken to be what it was."""

UNLIKELY = 0.05
"""No success is taken to be less likely than this."""

UNSAID_S = Task(task_id="any").estimated_duration_s
"""The estimate of a task of which nobody said how long it takes."""

_ANY = Task(task_id="any")


class Expectations:
    """Of tasks by their place in the wave, of agents by their place among those that are configured."""

    def __init__(self, desk: Desk, wave: WaveRecord) -> None:
        flow = desk.ledger.runs[wave.run_id].record.workflow
        name, self.most = (flow.workflow.name, flow.workflow.max_parallel) if flow is not None else ("", None)
        self.index, self.records, parents, children, _ = wave.edges
        tasks = [record.task for record in self.records]
        self._estimates_s = [task.estimated_duration_s for task in tasks]
        self.steps = [task.kind if task.step is None else step_of(name, task) for task in tasks]
        self._graph = Graph(parents, children)
        self._desk, self._wave = desk, wave
        self._ledger, self._clock = desk.ledger, desk.journal.clock
        self._known_steps = tuple(dict.fromkeys(self.steps))
        self._ranked: list[float] = []
        self._look()
        self._rank()

    def renew(self) -> bool:
        """Take what is known now, if that is much more than before; whether tasks have another order now."""
        if self._ledger.paces.learned > self.tempo.learned * (1.0 + LEARNED_SHARE):
            self._look()
        if self._stale and self._clock.monotonic_s() >= self._ranked_s + RANKING_S * len(self.records):
            self._rank()
            return True
        return False

    def _look(self) -> None:
        """Take seconds and speeds from what has been learned."""
        self.tempo = Tempo(self._ledger.paces)
        self.forecast, self.agents = self._desk.forecast(self._wave), self._ledger.present_agents()
        self.names = [agent.agent_id for agent in self.agents]
        self._rows: dict[tuple[str, float], tuple[list[float], bool]] = {}
        self._multiples = {step: self.tempo.step(step) for step in self._known_steps}
        self._seen = {step: multiple for step, multiple in self._multiples.items() if self.tempo.knows(step)}
        self._paces = [self._pace(agent) for agent in self.agents]
        known = [*self._multiples.values(), *self._paces]
        self._stale = not _alike(known, self._ranked)

    def _pace(self, agent: AgentRecord) -> float:
        """An agent's seconds as a multiple of others': as tasks of workflows have shown, or else as the forecast knows it."""
        seen = self.tempo.agent(agent.agent_id)
        return self.forecast.expected_s(_ANY, agent.agent_id) if seen is None else seen

    def _rank(self) -> None:
        """Order the tasks that are left: as well as can be found where seconds are known, else by the longest way to the end."""
        self._stale, self._ranked, self._ranked_s = False, [*self._multiples.values(), *self._paces], self._clock.monotonic_s()
        left = self._weighed()
        agents = zip(self.agents, self._paces, strict=True)
        lanes = sorted(pace for agent, pace in agents for _ in range(0 if agent.offline else agent.concurrency))
        if lanes and len(left) <= ORDERED_MOST and all(self._known(place) for place in range(len(left))):
            keys, self.expected_s = order(self._graph, left, lanes[: self.most])
        else:
            keys = [-rank for rank in ranks(self._graph, left)]
            self.expected_s = max(-min(keys, default=0.0), sum(left) / max(sum(1.0 / pace for pace in lanes), 1.0))
        self.positions = [0] * len(keys)
        for position, place in enumerate(sorted(range(len(keys)), key=keys.__getitem__)):
            self.positions[place] = position

    def _weighed(self) -> list[float]:
        """Seconds of each task that is left, more where it is less likely to succeed than others: it may be done again."""
        multiples = self._multiples
        found = [
            estimated_s * multiples[step] if record.status not in FINAL else 0.0
            for record, estimated_s, step in zip(self.records, self._estimates_s, self.steps, strict=True)
        ]
        tasks = [record.task for record in self.records]
        one_of_each = {(task.kind, task.predicted_success_rate): task for task in tasks}
        chances = {like: self._chance(task) for like, task in one_of_each.items()}
        if len(set(chances.values())) < 2:  # noqa: PLR2004 - all the same
            return found
        best = max(chances.values())
        likely = [chances[task.kind, task.predicted_success_rate] for task in tasks]
        return [seconds * best / chance for seconds, chance in zip(found, likely, strict=True)]

    def _chance(self, task: Task) -> float:
        """How likely whoever does it best is to succeed at a task."""
        return max([UNLIKELY, *(self.forecast.predicted(task, agent.agent_id) for agent in self.agents)])

    def _known(self, place: int) -> bool:
        record = self.records[place]
        return self._estimates_s[place] != UNSAID_S or self.steps[place] in self._seen or record.final

    # -- of one task -------------------------------------------------------------------------------------------------

    def new(self, place: int) -> bool:
        """Whether nobody knows how long such a task takes: the first of its step is tried early."""
        return not self._known(place)

    def brief_s(self, place: int, within_s: float) -> float | None:
        """How long it lasts where that is known to be no longer than this; None else."""
        multiple = self._seen.get(self.steps[place])
        if multiple is None:
            return None
        seconds = self._estimates_s[place] * multiple
        return seconds if seconds <= within_s else None

    @property
    def sequential_s(self) -> float:
        """Seconds of all tasks, one after the other."""
        multiples = self._multiples
        return sum([estimated_s * multiples[step] for estimated_s, step in zip(self._estimates_s, self.steps, strict=True)])

    def seconds(self, place: int) -> float:
        """How long an agent of middle speed needs."""
        return self._estimates_s[place] * self._multiples[self.steps[place]]

    def pace(self, agent: int) -> float:
        """An agent's seconds as a multiple of others'."""
        return self._paces[agent]

    def even(self, record: TaskRecord) -> bool:
        """Whether it is the same whichever agent does it."""
        return self._row(record)[1]

    def needed_s(self, place: int) -> list[float]:
        """Seconds that each agent needs, those that are less likely to succeed more."""
        seconds = self.seconds(place)
        return [seconds * multiple for multiple in self._row(self.records[place])[0]]

    def rates(self, record: TaskRecord) -> list[float]:
        """How likely each agent is to succeed, given the failures so far."""
        if record.failures:
            return self.forecast.after_failures(record.task, [agent_id for agent_id, _ in record.failures])
        return [self.forecast.predicted(record.task, agent.agent_id) for agent in self.agents]

    def _row(self, record: TaskRecord) -> tuple[list[float], bool]:
        task = record.task
        own = bool(task.predictions or record.failures or (task.features and self.forecast.modelled(task)))
        like = task.kind, task.predicted_success_rate
        if own or like not in self._rows:
            rates = self.rates(record)
            best = max(rates, default=1.0)
            row = [pace * best / max(rate, UNLIKELY) for pace, rate in zip(self._paces, rates, strict=True)]
            found = row, len(set(row)) < 2  # noqa: PLR2004 - all the same
            if own:
                return found
            self._rows[like] = found
        return self._rows[like]


def _alike(some: list[float], others: list[float]) -> bool:
    return len(some) == len(others) and all(abs(one - other) <= ALIKE * other for one, other in zip(some, others, strict=True))
