"""Has an agent changed? A sequential test of its outcomes against its own past, as a small pure fold.

`observe` is called by the ledger for each agent and kind of task, and each run and kind, at every settled wave; it calls `step` where
there is something to say. `Watch` lies in the ledger between two waves. Nothing here looks at a clock or draws a random number,
and the same outcomes give the same floats.
The test is that of Shiryaev and Roberts (Roberts, Technometrics 1966; Pollak, Annals of Statistics 1985): likelihood
ratios summed over every wave at which a change may have begun, here averaged over unknown rates before and after.
"""

from __future__ import annotations

import enum
from functools import lru_cache
from itertools import pairwise
from math import exp, log, log1p
from operator import mul

import msgspec
from msgspec.structs import replace

STEP = 0.5
"""Distance of two points of the grid of shifts, in log odds."""

SHIFTS = tuple(-4.5 + STEP * place for place in range(21))
"""Where an agent may stand, in log odds above what was expected of its tasks."""

BETA_2_2 = tuple(1.0 / (2.0 + exp(-shift) + exp(shift)) for shift in SHIFTS)

PRIOR = tuple(weight / sum(BETA_2_2) for weight in BETA_2_2)
"""An agent's weight at each point before it has done anything: p (1 - p), as the Beta(2, 2) distribution has it."""

NEAR, MIDDLE, FAR = 2, 3, 6
"""How far a change goes, in points of the grid, up or down: 1, 1.5 and 3 in log odds."""

SHARE = 0.125
"""How likely the near and the far change are, in each direction; the middle one is twice as likely as either."""

ENOUGH_TASKS = 12
"""A past shorter than this says nothing that could have changed."""

FEWEST = 2
"""A single task waits for more before it is looked at. Waiting for three makes the test blunter: fewer looks, thresholds made for more."""

MEMORY_TASKS = 200.0
"""Outcomes of the past weigh 1/e after this many tasks, so that a slow drift of the world is no alarm."""

FADE_TASKS = 20
"""The past fades in steps of so many tasks, at most once a wave, since fading costs more than a wave."""

MOST_PER_WAVE = 20
"""A wave counts for this many tasks at most: what happens together has causes in common, and is no independent proof."""

HEIGHT, BEND = 1.6, 0.8
"""An alarm needs odds of HEIGHT / false_alarms ** BEND. Fitted to simulated healthy streams (rates 0.2 to 0.9, waves of two
or three tasks, false alarms of 0.0003 to 0.03): the sum overshoots its threshold, and the past that fades makes it higher."""

SLACK = 1.4
"""The plain log likelihood ratio of an alarm's own two parts must reach log(1 / false_alarms) less this too, so that no
alarm comes of the grid of shifts alone."""

CHANGE_PER_WAVE = 0.01
"""Chance that an agent changes in a wave, before anything is seen: only `Alarm.confidence` uses it, the test does not."""

MOST_MARKS = 48
"""So many places are remembered at which a change may have begun; the older half is thinned when they are full."""

NO_ODDS = (0.0,) * len(SHIFTS)

EDGE = (0.0,) * FAR

TINY = 1e-280

LEAST = 1e-30
"""No point of the grid loses more than this against its prior: a weight of 0 could never come back."""


class Standing(enum.StrEnum):
    """How an agent does, against what was normal for it."""

    STEADY = "steady"
    DEGRADED = "degraded"
    IMPROVED = "improved"


class Mark(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What had been seen when a wave of a run began: tasks, successes, and successes expected, all since the past began."""

    wave: int
    tasks: int
    successes: int
    expected: float
    run_id: str = ""


NOTHING = Mark(0, 0, 0, 0.0)


class Seen(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One stream's part in a wave: whose (an agent, or "" for the run) and of which kind of task.

    `tasks` ended, `successes` of them well, and so many were `expected` to by what came in as predicted.
    """

    agent_id: str
    kind: str
    tasks: int
    successes: int
    expected: float


class Watch(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of one stream. `past` is the weight of each of `SHIFTS`; `down` and `up` are odds for a change to each point.

    `pending` is what was seen since, and not stepped yet, with the wave in which it began.
    """

    seen: Mark = NOTHING
    past: tuple[float, ...] = PRIOR
    down: tuple[float, ...] = NO_ODDS
    up: tuple[float, ...] = NO_ODDS
    marks: tuple[Mark, ...] = ()
    standing: Standing = Standing.STEADY
    normal: float | None = None
    pending: Mark = NOTHING

    @property
    def tasks(self) -> int:
        """How many tasks have been seen since the past began."""
        return self.seen.tasks + self.pending.tasks


class Alarm(msgspec.Struct, frozen=True, kw_only=True):
    """A change that was found: when it began, between which rates, and how sure that is.

    `since_wave` (of `since_run`, where a run was named) is the likeliest first wave after the change. Rates are plain successes
    per task; `expected_*` is what was predicted for the same tasks (one half where nothing was). `evidence` is the log of the
    summed likelihood ratios; `confidence` the chance that there was a change, were one wave in a hundred to bring one. `rises`:
    better than just before, given what was expected; `recovered`: back at what was normal before the first alarm.
    """

    standing: Standing
    rises: bool
    recovered: bool
    wave: int
    since_wave: int
    since_run: str = ""
    rate_before: float
    rate_after: float
    tasks_before: int
    tasks_after: int
    expected_before: float
    expected_after: float
    evidence: float
    confidence: float


@lru_cache(maxsize=512)
def _chances(offset: int) -> tuple[tuple[float, float], ...]:
    """Log chances of success and failure at each shift, where tasks lie `offset` sixteenths above even odds."""
    at = [offset / 16.0 + shift for shift in SHIFTS]
    return tuple((-log1p(exp(-place)), -log1p(exp(place))) for place in at)


@lru_cache(maxsize=4096)
def _fits(offset: int, successes: int, tasks: int) -> tuple[float, ...]:
    """Likelihood of a wave's outcomes at each shift, over that at the best of them. Cached: small waves repeat."""
    share = min(1.0, MOST_PER_WAVE / tasks)
    logs = [share * (successes * won + (tasks - successes) * lost) for won, lost in _chances(offset)]
    top = max(logs)
    return tuple([exp(value - top) for value in logs])


def _offset(expected: float, tasks: int) -> int:
    mean = min(max(expected / tasks, 0.005), 0.995)
    return round(16.0 * log(mean / (1.0 - mean)))


def observe(
    watch: Watch, wave: int, successes: int, tasks: int, *, expected: float, false_alarms: float, run_id: str = ""
) -> tuple[Watch, Alarm | None]:
    """What `step` does, put off while it could say nothing.

    A single task waits for another, and up to `MOST_PER_WAVE` in a row wait that
    succeeded where nothing has ever failed; these are stepped by themselves before the first failure, so that it stands alone.
    """
    had, seen = watch.pending, watch.seen
    held = Mark(had.wave, had.tasks + tasks, had.successes + successes, had.expected + expected, had.run_id)
    if not had.tasks:
        held = Mark(wave, tasks, successes, expected, run_id)
    spotless = seen.successes == seen.tasks and had.successes == had.tasks
    if held.tasks < (MOST_PER_WAVE if spotless and successes == tasks else FEWEST):
        return replace(watch, pending=held), None
    if spotless and successes < tasks and had.tasks >= FEWEST:
        watch, _ = _stepped(replace(watch, pending=NOTHING), had, false_alarms)
        held = Mark(wave, tasks, successes, expected, run_id)
        if tasks < FEWEST:
            return replace(watch, pending=held), None
    return _stepped(replace(watch, pending=NOTHING), held, false_alarms)


def _stepped(watch: Watch, held: Mark, false_alarms: float) -> tuple[Watch, Alarm | None]:
    return step(
        watch,
        held.wave,
        held.successes,
        held.tasks,
        expected=min(held.expected, held.tasks),
        false_alarms=false_alarms,
        run_id=held.run_id,
    )


def step(
    watch: Watch,
    wave: int,
    successes: int,
    tasks: int,
    *,
    expected: float | None = None,
    false_alarms: float = 0.001,
    run_id: str = "",
) -> tuple[Watch, Alarm | None]:
    """The watch after a wave's outcomes, and an alarm where they show a change.

    `expected` is the sum of the success probabilities predicted for these tasks, by something that did not learn from
    the change itself; None takes all tasks as equally hard. `false_alarms` is the share of waves of a healthy agent
    that may raise an alarm. Without tasks nothing changes. Raises ValueError where successes or expectation exceed tasks.
    """
    if not 0 <= successes <= tasks or not 0.0 <= (expected or 0.0) <= tasks:
        raise ValueError(f"{successes} successes of {tasks} tasks, {expected} expected")
    if not tasks:
        return watch, None
    hoped = tasks / 2.0 if expected is None else expected
    fits = _fits(0 if expected is None else _offset(hoped, tasks), successes, tasks)
    joint = list(map(mul, watch.past, fits))
    unchanged = max(sum(joint), TINY)
    down, up = _changed(watch, [fit / unchanged for fit in fits])
    odds = sum(down) + sum(up)
    seen = watch.seen
    after = Watch(
        seen=Mark(wave, seen.tasks + tasks, seen.successes + successes, seen.expected + hoped, run_id),
        past=_learned(joint, seen.tasks, tasks),
        down=down,
        up=up,
        marks=_marked(watch.marks, Mark(wave, seen.tasks, seen.successes, seen.expected, run_id)),
        standing=watch.standing,
        normal=watch.normal,
    )
    return _raised(after, odds, false_alarms) if odds * false_alarms**BEND > HEIGHT else (after, None)


def _learned(joint: list[float], before: int, tasks: int) -> tuple[float, ...]:
    """The weights after a wave, summing to one; every `FADE_TASKS` tasks what was seen fades, as a power of its likelihood."""
    total = max(sum(joint), TINY)
    if (before + tasks) // FADE_TASKS == before // FADE_TASKS:
        return tuple([weight / total for weight in joint])
    keep = exp(-FADE_TASKS / MEMORY_TASKS)
    faded = [prior * max(weight / total / prior, LEAST) ** keep for weight, prior in zip(joint, PRIOR, strict=True)]
    total = sum(faded)
    return tuple([weight / total for weight in faded])


def _changed(watch: Watch, ratios: list[float]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Odds for a change down and up, to each point, once a change just before this wave is among what may have been."""
    if watch.seen.tasks < ENOUGH_TASKS:
        return watch.down, watch.up
    wide = [*EDGE, *[SHARE * weight for weight in watch.past], *EDGE]
    fell = zip(watch.down, wide[FAR + NEAR :], wide[FAR + MIDDLE :], wide[FAR + FAR :], ratios, strict=False)
    rose = zip(watch.up, wide[FAR - NEAR :], wide[FAR - MIDDLE :], wide, ratios, strict=False)
    down = tuple([(odds + near + 2.0 * middle + far) * ratio for odds, near, middle, far, ratio in fell])
    return down, tuple([(odds + near + 2.0 * middle + far) * ratio for odds, near, middle, far, ratio in rose])


def _marked(marks: tuple[Mark, ...], mark: Mark) -> tuple[Mark, ...]:
    if len(marks) < MOST_MARKS:
        return (*marks, mark)
    half = MOST_MARKS // 2
    return (*marks[:half:2], *marks[half:], mark)


def likelihood(tasks: int, successes: int, expected: float) -> float:
    """Log likelihood of a part of the stream at its best shift, over that at no shift."""
    rate, mean = successes / tasks, min(max(expected / tasks, 0.005), 0.995)
    won = rate * log(rate / mean) if rate else 0.0
    lost = (1.0 - rate) * log((1.0 - rate) / (1.0 - mean)) if rate < 1.0 else 0.0
    return tasks * (won + lost)


def _split(seen: Mark, mark: Mark) -> float:
    before = likelihood(mark.tasks, mark.successes, mark.expected)
    return before + likelihood(seen.tasks - mark.tasks, seen.successes - mark.successes, seen.expected - mark.expected)


def _shift(successes: float, tasks: int, expected: float) -> float:
    """Log odds of a rate over those of what was expected; half a success and half a failure are added, as Haldane did."""
    return log((successes + 0.5) / (tasks - successes + 0.5)) - log((expected + 0.5) / (tasks - expected + 0.5))


def _rises(seen: Mark, mark: Mark) -> bool:
    before = _shift(mark.successes, mark.tasks, mark.expected)
    return _shift(seen.successes - mark.successes, seen.tasks - mark.tasks, seen.expected - mark.expected) > before


def _raised(watch: Watch, odds: float, false_alarms: float) -> tuple[Watch, Alarm | None]:
    """The watch with its past begun anew at the likeliest change, and the alarm; none where no split bears it out."""
    seen, rises = watch.seen, sum(watch.up) > sum(watch.down)
    fitting = [mark for mark in watch.marks if mark.tasks and _rises(seen, mark) == rises]
    best = max(fitting, key=lambda mark: _split(seen, mark), default=None)
    needed = likelihood(seen.tasks, seen.successes, seen.expected) - log(false_alarms) - SLACK
    if best is None or _split(seen, best) < needed:
        return _held(watch, odds), None
    done, won, hoped = seen.tasks - best.tasks, seen.successes - best.successes, seen.expected - best.expected
    before, after = _shift(best.successes, best.tasks, best.expected), _shift(won, done, hoped)
    normal = before if watch.normal is None else watch.normal
    recovered = abs(after - normal) < min(abs(after - before), abs(before - normal))
    standing = Standing.STEADY if recovered else Standing.IMPROVED if after > normal else Standing.DEGRADED
    alarm = Alarm(
        standing=standing,
        rises=rises,
        recovered=recovered,
        wave=seen.wave,
        since_wave=best.wave,
        since_run=best.run_id,
        rate_before=best.successes / best.tasks,
        rate_after=won / done,
        tasks_before=best.tasks,
        tasks_after=done,
        expected_before=best.expected / best.tasks,
        expected_after=hoped / done,
        evidence=log(odds),
        confidence=1.0 - 1.0 / (1.0 + CHANGE_PER_WAVE * odds),
    )
    return _anew(watch, best, standing, None if recovered else normal), alarm


def _held(watch: Watch, odds: float) -> Watch:
    """The watch with its odds brought down to one: what could not be confirmed must not pile up."""
    return replace(watch, down=tuple([odd / odds for odd in watch.down]), up=tuple([odd / odds for odd in watch.up]))


def _anew(watch: Watch, since: Mark, standing: Standing, normal: float | None) -> Watch:
    kept = [mark for mark in watch.marks if mark.tasks >= since.tasks] + [watch.seen]
    moved = [
        Mark(m.wave, m.tasks - since.tasks, m.successes - since.successes, m.expected - since.expected, m.run_id) for m in kept
    ]
    past = PRIOR
    for old, new in pairwise(moved):
        tasks, won = new.tasks - old.tasks, new.successes - old.successes
        fits = _fits(_offset(new.expected - old.expected, tasks), won, tasks)
        past = _learned(list(map(mul, past, fits)), old.tasks, tasks)
    return Watch(seen=moved[-1], past=past, marks=tuple(moved[:-1]), standing=standing, normal=normal)
