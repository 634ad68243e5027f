"""What outcomes have taught about tasks that say something of themselves, and how far what is made of it can be believed.

The ledger folds outcomes in here, in the order of the journal; forecasts are made from it. Bounded, and plain enough to stand
in a snapshot: the same journal gives the same evidence, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import exp, log

import msgspec

from phase21.domain.records import TaskRecord, WaveRecord
from phase21.domain.tasks import Feature, Task, TaskStatus

OBSERVATIONS_KEPT = 1000
"""How many attempts are remembered with their features; older ones are forgotten."""

SCORE_LEAST, SCORE_MOST = 0.01, 0.99
"""A model's scores are kept within these: nothing that it has seen makes it surer."""

SHORTEST_S = 1e-6
"""Durations are taken as at least this before their logarithm is."""

LOWEST, HIGHEST = 0.001, 0.999
"""Rates are kept this far from 0 and 1 before their log-odds are taken."""


def log_odds(rate: float) -> float:
    """`ln(p / (1 - p))`, for a rate that is first kept within `LOWEST` and `HIGHEST`."""
    rate = min(max(rate, LOWEST), HIGHEST)
    return log(rate / (1.0 - rate))


def rate_of(odds_log: float) -> float:
    """The rate whose log-odds these are."""
    return 1.0 / (1.0 + exp(-odds_log)) if odds_log >= 0 else 1.0 - 1.0 / (1.0 + exp(odds_log))


class Observation(msgspec.Struct, frozen=True, array_like=True):
    """One attempt at a task with features: what was known before, who tried, what came of it.

    `stretch` is ln(seconds taken / seconds estimated), None where the attempt was not measured.
    """

    agent_id: str
    kind: str
    raw: float
    heuristics: tuple[str, ...]
    features: dict[str, Feature]
    success: bool
    stretch: float | None = None


class Calibrator(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Turns a model's scores into rates that hold: Platt scaling, learned online, mixed with the running base rate.

    `slope` and `offset` are those of Platt (1999), kept by Newton steps on the log loss with a precision matrix
    (`p11`, `p12`, `p22`) whose past is discounted by `MEMORY` at each outcome. The mixture weighs Platt's rate and the base rate by
    the likelihood that each gave to the outcomes (a Bayesian mixture of two experts: its log loss exceeds that of the
    better one by at most `-ln` of that one's first weight, and, as `TRUST_MOST` keeps either from being ruled out, by up to
    `ln(1 + exp(-TRUST_MOST))` an outcome).
    """

    slope: float = 1.0
    offset: float = 0.0
    p11: float = 8.0
    p12: float = 0.0
    p22: float = 4.0
    trust_log_odds: float = 3.0
    samples: int = 0
    successes: int = 0

    @property
    def base_rate(self) -> float:
        """The share of successes so far, with one success and one failure added."""
        return (self.successes + 1.0) / (self.samples + 2.0)

    def calibrated(self, score: float) -> float:
        """The rate that a score (a rate before calibration) stands for."""
        trust = rate_of(self.trust_log_odds)
        return trust * rate_of(self.slope * log_odds(score) + self.offset) + (1.0 - trust) * self.base_rate

    def learn(self, score: float, *, success: bool) -> None:
        """Take in one outcome whose score was made before it."""
        x = log_odds(score)
        rate = rate_of(self.slope * x + self.offset)
        base = self.base_rate
        gain = log((rate if success else 1.0 - rate) / (base if success else 1.0 - base))
        self.trust_log_odds = min(max(self.trust_log_odds + gain, -TRUST_MOST), TRUST_MOST)
        curve = max(rate * (1.0 - rate), CURVE_LEAST)
        self.p11 = MEMORY * self.p11 + FORGET * PRIOR_SLOPE + curve * x * x
        self.p12 = MEMORY * self.p12 + curve * x
        self.p22 = MEMORY * self.p22 + FORGET * PRIOR_OFFSET + curve
        miss = (1.0 if success else 0.0) - rate
        determinant = self.p11 * self.p22 - self.p12 * self.p12
        self.slope += miss * (self.p22 * x - self.p12) / determinant
        self.offset += miss * (self.p11 - self.p12 * x) / determinant
        self.slope = min(max(self.slope, 0.0), SLOPE_MOST)
        self.samples += 1
        self.successes += success


MEMORY = 0.99
FORGET = 1.0 - MEMORY
PRIOR_SLOPE, PRIOR_OFFSET = 8.0, 4.0
"""Precisions that slope and offset start with, and fall back to as the past fades."""
CURVE_LEAST = 0.02
SLOPE_MOST = 4.0
TRUST_MOST = 6.0
"""How sure the mixture may become of either: a model that fails after long success is left within some ten outcomes."""


class Evidence(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Attempts at tasks with features, oldest first, and the calibrator of what is made of them. `learned` counts all ever."""

    observations: list[Observation] = []
    learned: int = 0
    calibrator: Calibrator = msgspec.field(default_factory=Calibrator)

    def learn(self, wave: WaveRecord) -> None:
        """Take in what a judged wave showed, in the order of its tasks."""
        for record in wave.tasks.values():
            if record.task.features and record.attempts and record.status in _ENDED:
                self.observations.extend(_attempts(record))
                if record.score is not None:
                    self.calibrator.learn(record.score, success=record.status is TaskStatus.COMPLETED)
                self.learned += len(record.failures) + 1
        del self.observations[:-OBSERVATIONS_KEPT]

    def forget(self, agent_id: str, kept: int, kind: str | None = None) -> None:
        """Drop what is known of an agent (at a kind of task), but for its newest `kept` attempts: it is not what it was."""
        seen_of = enumerate(self.observations)
        own = [index for index, seen in seen_of if seen.agent_id == agent_id and kind in {None, seen.kind}]
        dropped = set(own[: max(0, len(own) - max(kept, 0))])
        self.observations = [seen for index, seen in enumerate(self.observations) if index not in dropped]


_ENDED = frozenset({TaskStatus.COMPLETED, TaskStatus.FAILED})


def _attempts(record: TaskRecord) -> Iterator[Observation]:
    task = record.task
    for agent_id, duration_s in record.failures:
        yield observation(task, agent_id, success=False, duration_s=duration_s)
    yield observation(task, record.ran_by or "", success=record.status is TaskStatus.COMPLETED, duration_s=record.duration_s)


def observation(task: Task, agent_id: str, *, success: bool, duration_s: float | None) -> Observation:
    """What an attempt at a task showed."""
    stretch = None if duration_s is None else stretched(duration_s, task.estimated_duration_s)
    return Observation(agent_id, task.kind, task.raw_prediction(agent_id), task.heuristics, task.features, success, stretch)


def stretched(duration_s: float, estimated_s: float) -> float:
    """The logarithm of how many times as long as estimated something took; nothing counts as shorter than `SHORTEST_S`."""
    if duration_s > SHORTEST_S and estimated_s > SHORTEST_S:
        return log(duration_s / estimated_s)  # asked of every task, and `max` takes as long as the logarithm
    return log(max(duration_s, SHORTEST_S) / max(estimated_s, SHORTEST_S))
