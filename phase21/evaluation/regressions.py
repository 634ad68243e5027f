"""Whether a run was worse than earlier ones of its kind: by more than is tolerated, and beyond what chance explains.

Called by the reader behind the verb `evaluate`. Values of the same step are compared with each other. Where the data could hardly have
shown a worsening the answer is `inconclusive`, never `none`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import fsum, sqrt

import msgspec

from phase21.domain.tasks import TaskStatus
from phase21.evaluation.bootstrap import LEVEL, Estimate, estimate, resampled
from phase21.evaluation.chance import Stratum, above_t, holm, permuted, t_beyond
from phase21.evaluation.power import detectable
from phase21.evaluation.quality import Work

TOLERANCE = 0.10
ALPHA = 0.05
"""How often, over all figures together, chance alone may be taken for a regression."""

SOUGHT = 0.30
"""Where the data would not show a worsening of this share in four cases of five, nothing found is inconclusive."""

PRIOR_DEGREES = 5
"""How many earlier runs' worth of evidence the expected spread between equal runs counts for (a moderated t, Smyth 2004)."""


CLEARLY = 1.5
"""From how many times the expected variance on that of the earlier runs stands alone."""


class Verdict(enum.StrEnum):
    """What is said of a figure, and of a run."""

    REGRESSION = "regression"
    NONE = "none"
    INCONCLUSIVE = "inconclusive"


class Ran(msgspec.Struct, frozen=True, kw_only=True):
    """A run as it is compared: its works, and what the judge gave it as a whole."""

    run_id: str
    works: tuple[Work, ...]
    score: float | None = None


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """Something that may get worse.

    `spread` is the relative standard deviation that equal runs are expected to have among them; by less than `least`, in its own unit,
    no figure is worse.
    """

    name: str
    unit: str
    higher_is_better: bool
    spread: float
    values: Callable[[Ran], Mapping[str, list[float]]]
    least: float = 0.0


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A figure of now against before, over the steps that both have.

    `worse` is by which share it is worse (below 0: better), `low` and `high` the ends of its 95 % interval; `chance` how often equal
    runs would differ so, `corrected` the same for having looked at several figures. `detectable` is the smallest worsening
    that would be found in four cases of five, None where none would. `values` are how many of now were compared.
    """

    name: str
    unit: str
    now: float
    before: float
    worse: float
    low: float
    high: float
    chance: float
    corrected: float
    detectable: float | None
    values: int
    steps: int
    verdict: Verdict


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """A run against earlier ones. `unmatched` are steps of now that none of them has, in which nothing can be compared."""

    runs: tuple[str, ...]
    tolerance: float
    verdict: Verdict
    changes: tuple[Change, ...]
    unmatched: tuple[str, ...]


# -- what may get worse --------------------------------------------------------------------------------------------------


def _by_step(ran: Ran, value: Callable[[Work], float | None]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for work in ran.works:
        one = value(work)
        if one is not None:
            found.setdefault(work.step, []).append(one)
    return found


def _succeeded(work: Work) -> float | None:
    """A task that was never started says nothing: it would count one failure as many."""
    ended = work.started and work.status in {TaskStatus.COMPLETED, TaskStatus.FAILED}
    return float(work.status is TaskStatus.COMPLETED) if ended else None


def _seconds(work: Work) -> float | None:
    return work.actual_s if work.status is TaskStatus.COMPLETED else None


def _attempts(work: Work) -> float | None:
    return None if _succeeded(work) is None else float(work.attempts)


WHOLE = "the run"

FIGURES = (
    Figure(name="success rate", unit="share", higher_is_better=True, spread=0.05, values=lambda ran: _by_step(ran, _succeeded)),
    Figure(
        name="judge's score",
        unit="points",
        higher_is_better=True,
        spread=0.05,
        values=lambda ran: {} if ran.score is None else {WHOLE: [ran.score]},
    ),
    Figure(name="score per task", unit="points", higher_is_better=True, spread=0.05, values=lambda ran: _by_step(ran, _scored)),
    Figure(
        name="seconds per step",
        unit="s",
        higher_is_better=False,
        spread=0.10,
        values=lambda ran: _by_step(ran, _seconds),
        least=0.05,  # what a process takes to start on a busy machine
    ),
    Figure(
        name="attempts per task", unit="attempts", higher_is_better=False, spread=0.05, values=lambda ran: _by_step(ran, _attempts)
    ),
)


def _scored(work: Work) -> float | None:
    return work.score


# -- comparing -----------------------------------------------------------------------------------------------------------


def compare(now: Ran, before: Sequence[Ran], *, tolerance: float = TOLERANCE, seed: int = 0) -> Comparison:
    """Hold a run against earlier ones, newest or oldest first alike. Without any it is inconclusive."""
    paired = [(figure, _Paired(figure, now, before)) for figure in FIGURES]
    tried = [(figure, pair) for figure, pair in paired if pair.comparable]
    chances = [pair.chance(seed) for _, pair in tried]
    share = ALPHA / max(1, len(tried))
    changes = tuple(
        _change(figure, pair, chance, corrected or 0.0, share, tolerance, seed)
        for (figure, pair), chance, corrected in zip(tried, chances, holm(chances), strict=True)
    )
    known = {work.step for ran in before for work in ran.works}
    return Comparison(
        runs=tuple(ran.run_id for ran in before),
        tolerance=tolerance,
        verdict=_overall(changes),
        changes=changes,
        unmatched=tuple(dict.fromkeys(work.step for work in now.works if work.step not in known)) if before else (),
    )


def _overall(changes: Sequence[Change]) -> Verdict:
    verdicts = [change.verdict for change in changes]
    if Verdict.REGRESSION in verdicts:
        return Verdict.REGRESSION
    return Verdict.NONE if verdicts and Verdict.INCONCLUSIVE not in verdicts else Verdict.INCONCLUSIVE


def _change(figure: Figure, pair: _Paired, chance: float, corrected: float, share: float, tolerance: float, seed: int) -> Change:
    shown, interval = pair.shown(share), pair.interval(seed)
    least = figure.least / pair.before
    found = interval.value > max(tolerance, least) and corrected <= ALPHA
    sought = max(SOUGHT, 1.5 * tolerance, least)
    blind = shown is None or shown > sought
    return Change(
        name=figure.name,
        unit=figure.unit,
        now=pair.now,
        before=pair.before,
        worse=interval.value,
        low=interval.low,
        high=interval.high,
        chance=chance,
        corrected=corrected,
        detectable=shown,
        values=pair.values,
        steps=len(pair.strata),
        verdict=Verdict.REGRESSION if found else Verdict.INCONCLUSIVE if blind else Verdict.NONE,
    )


class _Paired:
    """A figure's values of now and before, step by step; what is not in both is left out."""

    def __init__(self, figure: Figure, now: Ran, before: Sequence[Ran]) -> None:
        self._figure = figure
        self._sign = -1.0 if figure.higher_is_better else 1.0
        self._past = [values for values in map(figure.values, before) if values]
        mine, self._means = figure.values(now), {}
        self.strata: list[Stratum] = []
        for step, values in mine.items():
            then = [value for past in self._past for value in past.get(step, ())]
            if then:
                self.strata.append(Stratum(tuple(values), tuple(then)))
                self._means[step] = fsum(then) / len(then)
        self.values = sum(len(stratum.now) for stratum in self.strata)
        self._sums = [(fsum(one.now), len(one.now) * fsum(one.before) / len(one.before)) for one in self.strata]
        self.now = fsum(now for now, _ in self._sums) / max(1, self.values)
        self.before = fsum(then for _, then in self._sums) / max(1, self.values)

    @property
    def comparable(self) -> bool:
        """Whether there is anything to compare, and anything to lose."""
        return self.before > 0.0

    @property
    def by_task(self) -> bool:
        """Whether single values can be exchanged for each other: one score of a run can where it is all or nothing."""
        return WHOLE not in self._means or all(value in {0.0, 100.0} for value in self.strata[0].together)

    @property
    def worse(self) -> float:
        """By which share now is worse."""
        return self._sign * (self.now / self.before - 1.0)

    def chance(self, seed: int) -> float:
        """How often it would be so much worse by chance: chance among tasks, or among whole runs, whichever explains more."""
        among_tasks = permuted([self._turned(stratum) for stratum in self.strata], seed=seed) if self.by_task else 0.0
        return max(among_tasks, above_t(self.worse / self._deviation, self._degrees))

    def _turned(self, stratum: Stratum) -> Stratum:
        """With higher values worse."""
        if self._sign > 0.0:
            return stratum
        return Stratum(tuple(-value for value in stratum.now), tuple(-value for value in stratum.before))

    @property
    def _spread(self) -> tuple[float, int]:
        """The relative variance of runs of this kind, with its degrees of freedom.

        Theirs and what is expected of them together; theirs alone where it is clearly greater: it must not be talked down.
        """
        own, expected, degrees = fsum((index - 1.0) ** 2 for index in self._indices()), self._figure.spread**2, len(self._past) - 1
        if own > CLEARLY * expected * degrees:
            return own / degrees, degrees
        return (PRIOR_DEGREES * expected + own) / (PRIOR_DEGREES + degrees), PRIOR_DEGREES + degrees

    @property
    def _degrees(self) -> int:
        return self._spread[1]

    @property
    def _deviation(self) -> float:
        """The standard deviation of one run against the mean of the earlier ones, as a share."""
        return sqrt(self._spread[0] * (1.0 + 1.0 / len(self._past)))

    def _indices(self) -> Iterator[float]:
        """Each earlier run against the mean of all of them, over the steps that it has."""
        for past in self._past:
            shared = [(values, self._means[step]) for step, values in past.items() if step in self._means]
            expected = fsum(len(values) * mean for values, mean in shared)
            if expected:
                yield fsum(fsum(values) for values, _ in shared) / expected

    def interval(self, seed: int) -> Estimate:
        """By which share it is worse, with the outer ends of two 95 % intervals: over steps (bootstrap), and over runs (t)."""
        drawn = resampled(list(zip(*self._sums, strict=True)), seed=seed)
        over_steps = estimate(self.worse, [self._sign * (now / then - 1.0) for now, then in drawn if then > 0.0] or [self.worse])
        half = t_beyond((1.0 - LEVEL) / 2.0, self._degrees) * self._deviation
        return Estimate(self.worse, min(over_steps.low, self.worse - half), max(over_steps.high, self.worse + half))

    def shown(self, share: float) -> float | None:
        """The smallest worsening that would be found in four cases of five at a p-value of `share`; None where none would."""
        strata = self.strata if self.by_task else []
        return detectable(strata, self._figure.unit, self._sign, share, self._deviation, self._degrees)
