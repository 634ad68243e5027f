"""A wave's schedule as facts: who was to do what and when, what came of it, and how closely the two agree.

Pure values and functions, however the facts came about: from the files of Phase 18 and 19, or from a run's journal. `optimization`
judges by them. An outcome that nobody recorded is None here, never a guess; nothing here is executed.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from math import fsum

import msgspec

from phase21.domain.tasks import Task

CONFIDENCE_TASKS = 20.0
"""How many tasks of evidence weigh as much as what was predicted, in the confidence in an agent."""


class Slot(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A task's place in a wave's schedule, and what came of it.

    Times are seconds from the wave's beginning, rates 0 to 1; None where nobody knows. `settled`: it is recorded what came of the
    task (`success` None then: it did not run). `ran_by` is whoever carried it out, `busy_s` for how long in all.
    """

    task_id: str
    agent_id: str
    priority: int = 2
    predicted: float | None = None
    starts_s: float | None = None
    ends_s: float | None = None
    planned_delta: float | None = None
    heuristics: tuple[str, ...] = ()
    settled: bool = False
    success: bool | None = None
    ran_by: str | None = None
    started_s: float | None = None
    ended_s: float | None = None
    busy_s: float | None = None
    actual_delta: float | None = None
    retries: int | None = None
    status: str = "scheduled"


class WaveFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A wave's schedule and what came of it. `agents` are those that could have worked.

    `expected_success` is what the plan itself foretold, where it did. `confidence_before` and `confidence_after` are the mean, over
    tasks, of their agent's success rate as known before and after the wave, 0 to 1.
    """

    wave: int
    strategy: str
    agents: tuple[str, ...]
    slots: tuple[Slot, ...]
    expected_success: float | None = None
    confidence_before: float | None = None
    confidence_after: float | None = None


# -- a schedule, before anything happens ---------------------------------------------------------------------------------


class Placed(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A task that a plan gives to an agent, with its predicted success, 0 to 1, and the seconds that it is expected to take."""

    task: Task
    agent_id: str
    predicted: float
    expected_s: float


def laid_out(placed: Sequence[Placed], lanes: Mapping[str, int] | None = None) -> tuple[Slot, ...]:
    """When each task is expected to start and to end, in the order given; nothing is executed.

    An agent takes its tasks by urgency (ties as they came), each on the lane that is free first; `lanes` is how many it has, 1 where
    it is not named.
    """
    free: dict[str, list[float]] = {}
    made: list[Slot | None] = [None] * len(placed)
    for position in sorted(range(len(placed)), key=lambda at: placed[at].task.priority):
        given = placed[position]
        ends = free.setdefault(given.agent_id, [0.0] * (lanes or {}).get(given.agent_id, 1))
        starts_s = heapq.heappop(ends)
        heapq.heappush(ends, starts_s + given.expected_s)
        made[position] = Slot(
            task_id=given.task.task_id,
            agent_id=given.agent_id,
            priority=given.task.priority,
            predicted=given.predicted,
            starts_s=starts_s,
            ends_s=starts_s + given.expected_s,
            heuristics=given.task.heuristics,
        )
    return tuple(slot for slot in made if slot is not None)


# -- what is known of agents ---------------------------------------------------------------------------------------------


class Shown(msgspec.Struct, frozen=True, array_like=True):
    """What an agent has shown: tasks that ended, and how many of them succeeded."""

    samples: int = 0
    successes: int = 0


def learned(facts: WaveFacts, known: Mapping[str, Shown]) -> tuple[WaveFacts, dict[str, Shown]]:
    """The facts with confidence before and after the wave, and what is known of agents since.

    Confidence in an agent is (k q + successes) / (k + samples), k = `CONFIDENCE_TASKS` and q what was predicted of its tasks in this wave:
    it moves by what the wave's outcomes say, and by nothing else.
    """
    since = dict(known)
    before: list[float] = []
    after: list[float] = []
    for agent_id, slots in _ended_by_agent(facts).items():
        was = known.get(agent_id, Shown())
        now = since[agent_id] = Shown(was.samples + len(slots), was.successes + sum(slot.success is True for slot in slots))
        predicted = mean_known(slot.predicted for slot in slots)
        if predicted is not None:
            before.extend([_confidence(was, predicted)] * len(slots))
            after.extend([_confidence(now, predicted)] * len(slots))
    return msgspec.structs.replace(facts, confidence_before=mean_known(before), confidence_after=mean_known(after)), since


def _ended_by_agent(facts: WaveFacts) -> dict[str, list[Slot]]:
    ended: dict[str, list[Slot]] = {}
    for slot in facts.slots:
        if slot.success is not None:
            ended.setdefault(slot.ran_by or slot.agent_id, []).append(slot)
    return ended


def _confidence(shown: Shown, predicted: float) -> float:
    return (CONFIDENCE_TASKS * predicted + shown.successes) / (CONFIDENCE_TASKS + shown.samples)


# -- planned against actual ----------------------------------------------------------------------------------------------


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """A wave's plan beside what came of it. Rates 0 to 1, throughput in tasks a second; None where nobody knows.

    `compared_tasks` of its `tasks` have a recorded outcome.
    """

    wave: int
    planned_success_rate: float | None
    actual_success_rate: float | None
    planned_throughput: float | None
    actual_throughput: float | None
    planned_confidence_delta: float | None
    actual_confidence_delta: float | None
    accuracy_score: float | None
    strategy: str
    tasks: int
    compared_tasks: int


def compared(facts: WaveFacts) -> Comparison:
    """A wave's plan against its outcome: planned figures over the tasks whose outcome is known, over all where none is."""
    ended = [slot for slot in facts.slots if slot.success is not None]
    of_all = facts.expected_success is not None and len(ended) in {0, len(facts.slots)}
    planned = facts.expected_success if of_all else mean_known(slot.predicted for slot in ended or facts.slots)
    actual = mean_known(slot.success for slot in ended)
    throughputs = _throughput(facts.slots, span_s_of(facts.slots)), _throughput(ended, actual_span_s(ended))
    deltas = mean_known(slot.planned_delta for slot in facts.slots), mean_known(slot.actual_delta for slot in ended)
    return Comparison(
        wave=facts.wave,
        planned_success_rate=planned,
        actual_success_rate=actual,
        planned_throughput=throughputs[0],
        actual_throughput=throughputs[1],
        planned_confidence_delta=deltas[0],
        actual_confidence_delta=deltas[1],
        accuracy_score=accuracy((planned, actual), throughputs, deltas),
        strategy=facts.strategy,
        tasks=len(facts.slots),
        compared_tasks=len(ended),
    )


def expected(facts: WaveFacts) -> Comparison:
    """What a plan foretells over all of its tasks, before anything happens: what is known since of some of them does not count."""
    blank = tuple(
        Slot(
            task_id=slot.task_id,
            agent_id=slot.agent_id,
            predicted=slot.predicted,
            starts_s=slot.starts_s,
            ends_s=slot.ends_s,
            planned_delta=slot.planned_delta,
        )
        for slot in facts.slots
    )
    return compared(msgspec.structs.replace(facts, slots=blank))


Both = tuple[float | None, float | None]
"""What was planned, and what came of it."""


def accuracy(success: Both, throughput: Both, delta: Both) -> float | None:
    """How well a plan held, 0 to 1: the mean of what is known of three parts; None where no part is known on both sides.

    Success counts 1 - |planned - actual|; throughput and confidence delta 1 - |planned - actual| / |planned|, 0 at the least. It is the
    formula behind Phase 19's `accuracy_score`.
    """
    parts = [1.0 - abs(success[0] - success[1])] if success[0] is not None and success[1] is not None else []
    for planned, actual in (throughput, delta):
        if planned and actual is not None:
            parts.append(max(0.0, 1.0 - abs(planned - actual) / abs(planned)))
    return mean_known(parts)


def adherence(facts: WaveFacts) -> float | None:
    """How closely a wave kept to its schedule, 0 to 1: the mean over tasks of which it is recorded what came; None without any.

    A task that ran elsewhere than planned, or not at all, counts 0; else 1 - (|start off| + |end off|) / (2 x the planned length of
    the wave), 0 at the least, and 1 where times are not known.
    """
    span_s = span_s_of(facts.slots)
    return mean_known(kept(slot, span_s) for slot in facts.slots if slot.settled)


def kept(slot: Slot, span_s: float | None) -> float:
    """How closely a settled task kept to its schedule, as `adherence` says."""
    if slot.ran_by != slot.agent_id:
        return 0.0
    if not span_s or slot.starts_s is None or slot.ends_s is None or slot.started_s is None or slot.ended_s is None:
        return 1.0
    off_s = abs(slot.started_s - slot.starts_s) + abs(slot.ended_s - slot.ends_s)
    return max(0.0, 1.0 - off_s / (2.0 * span_s))


def mean_known(values: Iterable[float | None]) -> float | None:
    """The mean of what is known; None where nothing is."""
    known = [value for value in values if value is not None]
    return fsum(known) / len(known) if known else None


def span_s_of(slots: Sequence[Slot]) -> float | None:
    """Seconds from the wave's beginning to the last planned end."""
    return max((slot.ends_s for slot in slots if slot.ends_s is not None), default=None)


def actual_span_s(slots: Sequence[Slot]) -> float | None:
    """Seconds from the wave's beginning to the last recorded end."""
    return max((slot.ended_s for slot in slots if slot.ended_s is not None), default=None)


def _throughput(slots: Sequence[Slot], span_s: float | None) -> float | None:
    """Tasks a second from the wave's beginning to its last end."""
    return len(slots) / span_s if slots and span_s else None
