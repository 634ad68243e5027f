"""What would have happened: a journal's waves under other strategies, as a model expects it and as real outcomes tell.

`cli/simulate` asks and shows. The model is the forecast that plans waves, fitted by hindsight to every attempt in the journal; what it
says of pairs of task and agent that never met is its opinion. The other answer uses no model's word for the truth, and needs choices
that were left to chance.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from math import fsum, sqrt
from typing import NamedTuple

import msgspec

from phase21.domain import events as ev
from phase21.domain.settings import RetrySettings, Settings
from phase21.domain.tasks import Task
from phase21.evaluation.bootstrap import Estimate, estimate, resampled
from phase21.evaluation.offpolicy import BETTER, INCONCLUSIVE, SURE, WORSE, Comparison, Logged, compare, tasks_needed
from phase21.planning.graphs import Graph, ranks, seated_s
from phase21.readers.inquiries.replays import Dealt, Replay, ReplayedWave
from phase21.readers.inquiries.trials import Fate, Fates, Trials

PIECE_TASKS = 500
"""So many tasks are judged by one fit of the model: outcomes around them count, not those of another age."""

NOTICED_ENTRIES = 500

SAME = "the same"
"""The verdict on strategies that deal every task alike."""

WEIGHT_OFF_MOST = 0.2
"""A mean weight further than this from 1 says that what counts most was not seen as often as it should be."""

SMALLEST_DIFFERENCE = 1e-4
"""Success rates closer than this count as one: no trial tells them apart."""

Noticed = Callable[[int], None]
"""Is told the position of the entry that was read last."""


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """What the model expects, or how far two expectations are apart: totals over the tasks, and the share of them COMPLETED.

    `makespan_s` sums over waves the seconds until the agent with the most to do is done, or, where tasks wait for each other, until all
    are done; its interval is over waves, and is only the figure itself where there is one wave. Those of the others are over tasks, of what is completed also over how well agents are known.
    """

    completed: Estimate
    success_rate: Estimate
    attempts: Estimate
    makespan_s: Estimate


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """The model's opinion. `difference` is the strategy less what it is held against; `moved` tasks would go to another agent."""

    strategy: Expected
    against: Expected
    difference: Expected
    moved: int
    verdict: str
    resamples: int


class Actual(msgspec.Struct, frozen=True, kw_only=True):
    """What really came of the same tasks; `wave_s` sums the seconds that their waves took, waiting included."""

    completed: int
    attempts: int
    wave_s: float


class Offpolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What real outcomes say of the strategy, and of the one that it is held against, each beside how it was really dealt.

    The comparisons are over the tasks `left_to_chance` alone, where there are any. `pinned` tasks go where they go; of `unknown` ones
    the journal does not hold how likely their choices were; of the rest, without chance, the strategy would have given
    `unseen` ones to another agent, and no outcome tells of that.
    """

    strategy: Comparison
    against: Comparison | None
    left_to_chance: int
    pinned: int
    unknown: int
    unseen: int


class Power(msgspec.Struct, frozen=True, kw_only=True):
    """How many tasks each of two strategies needs in a trial to be told apart, if the model is right; None where it sees none."""

    tasks_each: int | None
    success_rates: tuple[float, float]


class WhatIf(msgspec.Struct, frozen=True, kw_only=True):
    """The answer: `against` is None where that is what was really done. `left_out` counts tasks that are not judged, by why.

    In `graphs` of its `waves` tasks wait for each other.
    """

    runs: tuple[str, ...]
    strategy: str
    against: str | None
    seed: int
    waves: int
    graphs: int
    tasks: int
    dealt_by: dict[str, int]
    left_out: dict[str, int]
    actual: Actual
    replay: Replayed | None = None
    off_policy: Offpolicy | None = None
    power: Power | None = None


def replayed(entries: Iterable[ev.Entry], replay: Replay, noticed: Noticed | None = None) -> Replay:
    """Fold a journal's entries, from its first."""
    for entry in entries:
        replay.fold(entry)
        if noticed is not None and entry.position % NOTICED_ENTRIES == 0:
            noticed(entry.position)
    replay.close()
    return replay


def judged(replay: Replay, settings: Settings, *, strategy: str, against: str | None, seed: int) -> WhatIf:
    """Judge a replay of `strategy`, and of `against` unless that is None. Without a task there is no opinion."""
    dealt, waves = replay.dealt, replay.waves
    answer = WhatIf(
        runs=tuple(dict.fromkeys(wave.run_id for wave in waves)),
        strategy=strategy,
        against=against,
        seed=seed,
        waves=len(waves),
        graphs=sum(bool(wave.waits) for wave in waves),
        tasks=len(dealt),
        dealt_by=dict(Counter(waves[one.wave].strategy for one in dealt)),
        left_out={why: replay.left_out[why] for why in LEFT_OUT},
        actual=Actual(
            completed=sum(one.success for one in dealt),
            attempts=sum(one.attempts for one in dealt),
            wave_s=fsum(wave.actual_s for wave in waves),
        ),
    )
    if not dealt:
        return answer
    opinion = _opinion(replay, settings.retry, seed, really=against is None)
    return msgspec.structs.replace(answer, replay=opinion, off_policy=_offpolicy(dealt, against, seed), power=_power(opinion))


LEFT_OUT = {
    "wave_open": "in waves that are not judged yet",
    "not_ended": "that were never started, or cancelled",
    "no_seat": "that would have had to wait for an agent",
    "rehearsed_or_nothing_ran": "in waves of a dry run, or in which nothing ran",
}
"""Why a task is not judged, in words that follow "tasks"."""


# -- the model's opinion -------------------------------------------------------------------------------------------------


def _opinion(replay: Replay, retry: RetrySettings, seed: int, *, really: bool) -> Replayed:
    """The strategy's expected figures beside the other's: the second arm's, or those of how it was really dealt."""
    dealt = replay.dealt
    sides = [[one.agents[0] for one in dealt], [one.really if really else one.agents[1] for one in dealt]]
    fates = _fates(replay, retry, sides)
    columns: list[list[float]] = []
    for side in fates:
        columns += [[fate.completed for fate in side], [fate.attempts for fate in side]]
    spans = [_makespans(replay, side, seats) for side, seats in zip(fates, sides, strict=True)]
    draws, wave_draws = resampled(columns, seed=seed), resampled(spans, seed=seed)
    made = [
        _expected(columns, _unsure(draws, _doubt(dealt, sides, fates, weights), seed), spans, wave_draws, weights)
        for weights in ((1.0, 0.0), (0.0, 1.0), (1.0, -1.0))
    ]
    moved = sum(one != other for one, other in zip(*sides, strict=True))
    verdict = _verdict(made[2].success_rate, moved)
    return Replayed(strategy=made[0], against=made[1], difference=made[2], moved=moved, verdict=verdict, resamples=len(draws))


def _doubt(
    dealt: Sequence[Dealt], sides: Sequence[Sequence[str]], fates: Sequence[Sequence[Fate]], weights: tuple[float, float]
) -> float:
    """The standard deviation of the completed tasks of both sides, weighed and added, for what is not known of agents.

    What is not known of an agent at a kind of task is the same for all of its tasks, so it adds up; of tasks with features what a
    side gives to an agent and what the other does may lie far apart, and does not cancel. What both deal alike does.
    """
    sums: dict[tuple[str, str, int], float] = {}
    for place, one in enumerate(dealt):
        if all(weights) and sides[0][place] == sides[1][place]:
            continue
        for side, weight in enumerate(weights):
            key = (sides[side][place], one.task.kind, side if one.task.features else 0)
            sums[key] = sums.get(key, 0.0) + weight * fates[side][place].doubt
    return sqrt(fsum(total * total for total in sums.values()))


def _unsure(draws: Sequence[Sequence[float]], doubt: float, seed: int) -> list[tuple[Sequence[float], float]]:
    """Each resample with an error of the model in its completed tasks."""
    dice = random.Random(seed)  # noqa: S311 - statistics, not secrets
    return [(row, dice.gauss(0.0, doubt)) for row in draws]


def _verdict(difference: Estimate, moved: int) -> str:
    if not moved:
        return SAME
    if difference.spans_zero or abs(difference.value) < SMALLEST_DIFFERENCE:
        return INCONCLUSIVE
    return BETTER if difference.value > 0.0 else WORSE


def _fates(replay: Replay, retry: RetrySettings, sides: Sequence[Sequence[str]]) -> list[list[Fate]]:
    """What is expected of each task on each side, in pieces that are judged by one fit of the model."""
    agents, dealt = list(replay.ledger.agents.values()), replay.dealt
    found: list[list[Fate]] = [[] for _ in sides]
    for start, end in pairwise(_cuts(dealt, replay.trials)):
        forecast = replay.trials.hindsight(agents, (dealt[start].seen + dealt[end - 1].seen) // 2)
        fates = Fates(forecast, agents, retry)
        named = [msgspec.structs.replace(dealt[place].task, task_id=str(place)) for place in range(start, end)]  # runs share ids
        forecast.prepare(named)
        fates.learn_retries((task, one.tried, one.success) for task, one in zip(named, dealt[start:end], strict=True))
        for task, place in zip(named, range(start, end), strict=True):
            fleet = replay.waves[dealt[place].wave].fleet
            known: dict[str, Fate] = {}
            for side, chosen in enumerate(sides):
                agent_id = chosen[place]
                if agent_id not in known:
                    known[agent_id] = fates.of(task, agent_id, fleet)
                found[side].append(known[agent_id])
    return found


def _cuts(dealt: Sequence[Dealt], trials: Trials) -> list[int]:
    """Where pieces begin, and where the last ends: one piece where all outcomes fit into one model."""
    step = PIECE_TASKS if trials.many else len(dealt)
    return [*range(0, len(dealt), step), len(dealt)]


def _makespans(replay: Replay, fates: Sequence[Fate], seats: Sequence[str]) -> list[float]:
    """Seconds that each wave is expected to take."""
    of_wave: list[list[int]] = [[] for _ in replay.waves]
    for place, one in enumerate(replay.dealt):
        of_wave[one.wave].append(place)
    hands = {agent_id: agent.concurrency for agent_id, agent in replay.ledger.agents.items()}
    spans: list[float] = []
    for wave, places in zip(replay.waves, of_wave, strict=True):
        if wave.waits:
            parts = [_Part(replay.dealt[place].task, seats[place], fates[place].seconds) for place in places]
            spans.append(_graph_s(wave, parts, hands))
        else:
            spans.append(_busiest_s([fates[place] for place in places], hands))
    return spans


def _busiest_s(fates: Iterable[Fate], hands: Mapping[str, int]) -> float:
    """Of the agents' work, shared by the hands of each, the most."""
    work_s: dict[str, float] = {}
    for fate in fates:
        for agent_id, seconds in fate.work_s:
            work_s[agent_id] = work_s.get(agent_id, 0.0) + seconds / hands[agent_id]
    return max(work_s.values())


class _Part(NamedTuple):
    """A task of a graph, who does it, and the seconds of all its attempts."""

    task: Task
    agent_id: str
    seconds: float


def _graph_s(wave: ReplayedWave, parts: Sequence[_Part], hands: Mapping[str, int]) -> float:
    """Seconds until all tasks of a graph are done: of what is ready each agent does the most urgent first, then the most critical.

    Attempts after the first are taken to be made by the same agent. What is not judged (joins, what was skipped) takes no time, and nobody's.
    """
    places = {task_id: place for place, task_id in enumerate(wave.waits)}
    graph = Graph([[places[needed] for needed in waits] for waits in wave.waits.values()])
    numbers = {agent_id: number for number, agent_id in enumerate(hands)}
    seconds, seats, urgency = [0.0] * len(places), [len(hands)] * len(places), [0] * len(places)
    for task, agent_id, needed_s in parts:
        place = places[task.task_id]
        seconds[place], seats[place], urgency[place] = needed_s, numbers[agent_id], task.priority
    critical = ranks(graph, seconds)
    keys = [0.0] * len(places)
    for key, place in enumerate(sorted(places.values(), key=lambda place: (urgency[place], -critical[place]))):
        keys[place] = key
    return seated_s(graph, seconds, seats, [*hands.values(), len(places)], keys)


def _expected(
    columns: Sequence[Sequence[float]],
    draws: Sequence[tuple[Sequence[float], float]],
    spans: Sequence[Sequence[float]],
    wave_draws: Sequence[Sequence[float]],
    weights: tuple[float, float],
) -> Expected:
    """Figures of both sides, weighed and added; columns are (completed, attempts) of the first, then of the second.

    `draws` are resamples of the tasks, each with an error of the model.
    """
    one, other = weights
    tasks, waves = len(columns[0]), len(spans[0])

    def over_tasks(first: int, scale: float, unsure: float) -> Estimate:
        value = one * fsum(columns[first]) + other * fsum(columns[first + 2])
        found = [one * row[first] + other * row[first + 2] + unsure * error / tasks for row, error in draws]
        return estimate(value * scale / tasks, [mean * scale for mean in found])

    spanned_s = one * fsum(spans[0]) + other * fsum(spans[1])
    return Expected(
        completed=over_tasks(0, tasks, 1.0),
        success_rate=over_tasks(0, 1.0, 1.0),
        attempts=over_tasks(1, tasks, 0.0),
        makespan_s=estimate(spanned_s, [(one * row[0] + other * row[1]) * waves for row in wave_draws]),
    )


# -- real outcomes -------------------------------------------------------------------------------------------------------


def _offpolicy(dealt: Sequence[Dealt], against: str | None, seed: int) -> Offpolicy:
    free = [one for one in dealt if one.task.agent_id is None]
    known = [one for one in free if one.propensity is not None]
    chance = [one for one in known if (one.propensity or 1.0) < SURE]
    held = chance or known  # without any chance it is still to be said whether anything would have been different
    return Offpolicy(
        strategy=_supported(compare([_logged(one, 0) for one in held], seed=seed)),
        against=None if against is None else _supported(compare([_logged(one, 1) for one in held], seed=seed)),
        left_to_chance=len(chance),
        pinned=len(dealt) - len(free),
        unknown=len(free) - len(known),
        unseen=sum(one.targets[0] < SURE for one in known if (one.propensity or 1.0) >= SURE),
    )


def _supported(found: Comparison) -> Comparison:
    """The same, without a verdict where what the strategy would do was tried too rarely, or too often, to judge it by.

    Weights have mean 1 over all that chance might have brought. Where it is far from that, the rare tries that count most did not
    come about, and a resample of those that did cannot know of them.
    """
    if found.mean_weight is None or abs(found.mean_weight - 1.0) <= WEIGHT_OFF_MOST or found.verdict == INCONCLUSIVE:
        return found
    said = f"{INCONCLUSIVE}: what it would have done was tried {found.mean_weight:.2f} times as often as chance should have it"
    return msgspec.structs.replace(found, verdict=INCONCLUSIVE, said=said)


def _logged(one: Dealt, arm: int) -> Logged:
    """The decision as the estimators want it; the model is what was predicted then, which knows nothing of the outcome."""
    return Logged(
        propensity=one.propensity or 1.0,
        success=one.success,
        target=min(one.targets[arm], 1.0),
        model_chosen=one.predicted,
        model_target=one.expected[arm],
    )


def _power(opinion: Replayed) -> Power:
    """What a trial would take to see the difference that the model expects."""
    rates = tuple(min(max(side.success_rate.value, 0.0), 1.0) for side in (opinion.against, opinion.strategy))
    apart = abs(rates[0] - rates[1]) >= SMALLEST_DIFFERENCE
    return Power(tasks_each=tasks_needed(*rates) if apart else None, success_rates=(rates[0], rates[1]))
