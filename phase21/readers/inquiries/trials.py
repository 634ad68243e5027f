"""What every attempt in a journal showed, and what that lets one expect, by hindsight, of any task with any agent.

`replays` folds judged waves in, `whatif` asks. Where the ledger's evidence says how tasks end, with all that is done to end them well,
this is about single attempts, so that retries with other agents can be thought through; and it forgets nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import fsum
from typing import NamedTuple

from msgspec.structs import replace

from phase21.domain.evidence import OBSERVATIONS_KEPT, Calibrator, Evidence, Observation, log_odds, observation, rate_of, stretched
from phase21.domain.judgements import Calibration
from phase21.domain.records import AgentRecord, TaskRecord, WaveRecord
from phase21.domain.settings import Reassign, RetrySettings
from phase21.domain.tasks import Task
from phase21.evaluation.metrics import taught
from phase21.planning.forecast import Forecast

KAPPA_AGAIN = 20.0
"""How many attempts after a failure weigh as much as what the forecast says of them."""

HOPELESS = 1e-3
"""Attempts that are less likely than this to be needed are not thought through."""


class Trials:
    """The fold of judged waves that taught something. `seen` counts attempts at tasks with features."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str], list[float]] = {}
        self._observations: list[Observation] = []
        self._calibrator = Calibrator()

    @property
    def seen(self) -> int:
        """How many attempts at tasks with features were taken in."""
        return len(self._observations)

    @property
    def many(self) -> bool:
        """Whether they are more than one forecast looks at."""
        return self.seen > OBSERVATIONS_KEPT

    def learn(self, wave: WaveRecord) -> None:
        """Take in each attempt of a wave, in the order of its tasks."""
        for record, agent_id, success in taught(wave):
            for tried_by, succeeded, duration_s in _attempts(record, agent_id, success=success):
                self._count(record.task, tried_by, succeeded, duration_s)
                if record.task.features:
                    self._observations.append(observation(record.task, tried_by, success=succeeded, duration_s=duration_s))
            if record.score is not None:
                self._calibrator.learn(record.score, success=success and not record.failures)

    def _count(self, task: Task, agent_id: str, success: bool, duration_s: float | None) -> None:  # noqa: FBT001 -- an outcome
        sums = self._sums.setdefault((agent_id, task.kind), [0, 0, 0.0, 0, 0.0])
        sums[0] += 1
        sums[1] += success
        sums[2] += task.raw_prediction(agent_id)
        if duration_s and task.estimated_duration_s:
            sums[3] += 1
            sums[4] += stretched(duration_s, task.estimated_duration_s)

    def hindsight(self, agents: Sequence[AgentRecord], around: int) -> Forecast:
        """The forecast of single attempts, from all of them; of those at tasks with features from the many nearest to one."""
        kinds: dict[str, dict[str, Calibration]] = {}
        for (agent_id, kind), (samples, successes, predicted_sum, measured, stretch_sum) in self._sums.items():
            shown = Calibration(int(samples), int(successes), predicted_sum, int(measured), stretch_sum)
            kinds.setdefault(agent_id, {})[kind] = shown
        informed = [
            replace(agent, kinds=kinds.get(agent.agent_id, {}), calibration=Calibration(), offline=False) for agent in agents
        ]
        first = max(0, min(around - OBSERVATIONS_KEPT // 2, self.seen - OBSERVATIONS_KEPT))
        observations = self._observations[first : first + OBSERVATIONS_KEPT]
        return Forecast(informed, enabled=True, evidence=Evidence(observations=observations, calibrator=self._calibrator))


def _attempts(record: TaskRecord, agent_id: str, *, success: bool) -> Iterator[tuple[str, bool, float | None]]:
    for failed, duration_s in record.failures:
        yield failed, False, duration_s
    yield agent_id, success, record.duration_s


class Fate(NamedTuple):
    """What is expected of a task: the probability that it ends COMPLETED, attempts, and seconds of work by agent.

    `doubt` is how far the first is off where the first agent is better or worse by a standard deviation of what is believed of it.
    """

    completed: float
    doubt: float
    attempts: float
    work_s: tuple[tuple[str, float], ...]

    @property
    def seconds(self) -> float:
        """Of work in all, whoever does it."""
        return fsum(seconds for _, seconds in self.work_s)


class Fates:
    """A forecast of single attempts, thought through to the end of tasks as `retry` has them made again."""

    def __init__(self, forecast: Forecast, agents: Sequence[AgentRecord], retry: RetrySettings) -> None:
        self._forecast = forecast
        self._agents = agents
        self._index = {agent.agent_id: index for index, agent in enumerate(agents)}
        self._learned = retry.reassign is Reassign.LEARNED
        self._policy = retry.policy()
        self._again = 0.0

    def learn_retries(self, ended: Iterable[tuple[Task, Sequence[str], bool]]) -> None:
        """Take in how attempts after a failure really went: of each task who tried it, in order, and whether the last one succeeded.

        The forecast thinks that a failure makes others likely everywhere; where failures come by chance they do not. Its log-odds
        after failures are shifted by what the mean says, shrunk as any rate here.
        """
        expected, successes, n = 0.0, 0, 0
        for task, tried, success in ended:
            for before in range(1, len(tried)):
                expected += self._forecast.after_failures(task, tried[:before])[self._index[tried[before]]]
                successes += success and before == len(tried) - 1
                n += 1
        if n:
            mean = expected / n
            self._again = log_odds((KAPPA_AGAIN * mean + successes) / (KAPPA_AGAIN + n)) - log_odds(mean)

    def of(self, task: Task, agent_id: str, fleet: Sequence[str]) -> Fate:
        """What is expected where this agent has the task first, and others of the fleet may have it after a failure."""
        forecast, allowed = self._forecast, self._policy.attempts_allowed(task.max_attempts)
        first, rate, needed, attempts = agent_id, forecast.predicted(task, agent_id), 1.0, 0.0
        saved = 1.0
        work_s: list[tuple[str, float]] = []
        failed: list[str] = []
        while True:
            attempts += needed
            work_s.append((agent_id, needed * forecast.expected_s(task, agent_id)))
            needed *= 1.0 - rate
            failed.append(agent_id)
            if len(failed) >= allowed or needed < HOPELESS:
                doubt = forecast.doubt(task, first) * saved * failed.count(first)
                return Fate(1.0 - needed, doubt, attempts, tuple(work_s))
            agent_id, rate = self._next(task, failed, fleet)
            saved *= 1.0 - rate

    def _next(self, task: Task, failed: Sequence[str], fleet: Sequence[str]) -> tuple[str, float]:
        """Who makes the next attempt, and how likely it is to succeed given the failures so far."""
        rates = self._forecast.after_failures(task, failed)
        open_to = [self._index[failed[-1]]]
        if self._learned:
            open_to += [self._index[other] for other in fleet if self._agents[self._index[other]].able(task)]
        best = max(open_to, key=lambda index: rates[index])
        return self._agents[best].agent_id, rate_of(log_odds(rates[best]) + self._again)
