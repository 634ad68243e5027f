"""How good a run was: what of its work was done, how well it was judged, in what time and with how many attempts.

Figures over one task, one agent's tasks or all of them, and from each one score of 0 to 100 with what every term cost. Called by the
reader behind the verb `evaluate` and by the report. It looks at one run only: what came before is `regressions`' business.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import fsum

import msgspec

from phase21.domain.judgements import TOLERANCE, Grade
from phase21.domain.tasks import FINAL, TaskStatus

COMPLETED, FAILED, SKIPPED = TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.SKIPPED

TIME_WEIGHT = RETRIES_WEIGHT = 0.15
"""Which share of what was achieved may be lost to lateness, and to attempts that failed."""

THRESHOLDS = ((90.0, Grade.EXCELLENT), (75.0, Grade.GOOD), (60.0, Grade.FAIR))
"""From which score on a run is called what; below all of them it is POOR."""


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """One task and what became of it.

    `attempts` are those that were not interrupted, `actual_s` the seconds of the last one, `lost_s` those of the attempts that failed
    before it. `estimated_s` is None where nobody gave an estimate, `score` (0 to 100) where no judge spoke of the task. `reached` is
    false where its turn never came as something before it had failed.
    """

    task_id: str
    step: str
    agent_id: str | None = None
    status: TaskStatus = COMPLETED
    attempts: int = 1
    estimated_s: float | None = None
    actual_s: float | None = None
    lost_s: float = 0.0
    error: str | None = None
    score: float | None = None
    reached: bool = True

    @property
    def started(self) -> bool:
        """Whether an attempt was made whose end is known."""
        return self.attempts > 0


class Term(msgspec.Struct, frozen=True, kw_only=True):
    """One term of a score: its value 0 to 1 (None: nothing is known of it, and it costs nothing), and the points of 100 that it lost."""

    name: str
    value: float | None
    weight: float
    points_lost: float


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """Figures over some tasks. Rates and `within_estimate` are 0 to 1, `quality` 0 to 100; None where nothing is known.

    `open` are tasks that have not ended, `unreached` those whose turn never came. `actual_s` is what COMPLETED tasks took; of those
    with an estimate `estimated_s` is its sum, and `within_estimate` the share of their seconds that had been estimated. `error_rate`
    is the share of the attempts that failed.
    """

    tasks: int
    completed: int
    failed: int
    unreached: int
    skipped: int
    cancelled: int
    open: int
    success_rate: float | None
    estimated_s: float
    actual_s: float
    within_estimate: float | None
    attempts: int
    retries: int
    error_rate: float | None
    quality: float | None
    score: float | None
    grade: Grade
    terms: tuple[Term, ...]


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """A run's figures: of all its work, of each agent's, of each task."""

    whole: Standing
    agents: dict[str, Standing]
    tasks: dict[str, Standing]


def quality_of(works: Sequence[Work], score: float | None = None) -> Quality:
    """The figures of a run; `score` is what the judge gave it as a whole, without which the mean over its tasks stands for that."""
    agents: dict[str, list[Work]] = {}
    for work in works:
        if work.agent_id is not None:
            agents.setdefault(work.agent_id, []).append(work)
    return Quality(
        whole=standing(works, score),
        agents={agent_id: standing(agents[agent_id]) for agent_id in sorted(agents)},
        tasks={work.task_id: standing((work,)) for work in works},
    )


def standing(works: Sequence[Work], score: float | None = None) -> Standing:
    """The figures over some tasks, and their score."""
    unreached = sum(not_reached(work) for work in works)
    completed = sum(work.status is COMPLETED for work in works)
    failed = sum(work.status is FAILED for work in works) - sum(work.status is FAILED and not_reached(work) for work in works)
    success_rate = _share(completed, completed + failed + unreached)
    tried = [work for work in works if work.started]
    attempts, retries = sum(work.attempts for work in tried), sum(work.attempts - 1 for work in tried)
    timed = [work for work in works if work.status is COMPLETED and work.estimated_s is not None and work.actual_s]
    within = _share(fsum(map(_within_s, timed)), fsum(work.actual_s or 0.0 for work in timed))
    given = _mean(work.score for work in works if work.score is not None)
    quality = given if score is None else score
    terms = _terms(success_rate, quality, within, _share(len(tried), attempts))
    points = None if success_rate is None else 100.0 - fsum(term.points_lost for term in terms)
    return Standing(
        tasks=len(works),
        completed=completed,
        failed=failed,
        unreached=unreached,
        skipped=sum(work.status is SKIPPED for work in works) - sum(work.status is SKIPPED and not_reached(work) for work in works),
        cancelled=sum(work.status is TaskStatus.CANCELLED for work in works),
        open=sum(work.status not in FINAL for work in works),
        success_rate=success_rate,
        estimated_s=fsum(work.estimated_s or 0.0 for work in timed),
        actual_s=fsum(work.actual_s or 0.0 for work in works if work.status is COMPLETED),
        within_estimate=within,
        attempts=attempts,
        retries=retries,
        error_rate=_share(retries + sum(work.status is FAILED for work in tried), attempts),
        quality=quality,
        score=points,
        grade=grade_of(points),
        terms=terms,
    )


def not_reached(work: Work) -> bool:
    """Whether its turn never came: skipped as something failed, or refused or failed before any attempt."""
    return (work.status is SKIPPED and not work.reached) or (work.status is FAILED and not work.started)


def _within_s(work: Work) -> float:
    return min(work.estimated_s or 0.0, work.actual_s or 0.0)


def _terms(success: float | None, quality: float | None, time: float | None, thrift: float | None) -> tuple[Term, ...]:
    """What each term lost, one after the other: 100 x success x quality x (1 - lateness - repetition).

    What was not done, or is judged worth nothing, cannot be made up for by being quick; the other two take at most their weight
    of what was achieved.
    """
    done = 1.0 if success is None else success
    worth = done * (1.0 if quality is None else quality / 100.0)
    late = 0.0 if time is None else TIME_WEIGHT * (1.0 - time)
    again = 0.0 if thrift is None else RETRIES_WEIGHT * (1.0 - thrift)
    return (
        Term(name="success", value=success, weight=1.0, points_lost=100.0 * (1.0 - done)),
        Term(name="quality", value=None if quality is None else quality / 100.0, weight=1.0, points_lost=100.0 * (done - worth)),
        Term(name="time", value=time, weight=TIME_WEIGHT, points_lost=100.0 * worth * late),
        Term(name="retries", value=thrift, weight=RETRIES_WEIGHT, points_lost=100.0 * worth * again),
    )


def grade_of(score: float | None) -> Grade:
    """The word for a score of 0 to 100; UNKNOWN where there is none."""
    if score is None:
        return Grade.UNKNOWN
    return next((grade for least, grade in THRESHOLDS if score >= least - TOLERANCE), Grade.POOR)


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _mean(values: Iterable[float]) -> float | None:
    held = list(values)
    return fsum(held) / len(held) if held else None
