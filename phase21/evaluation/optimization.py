"""What schedules were worth: strategies and heuristics by their outcomes, five metrics, four anomalies, health, and feedback.

Pure functions over wave facts (`schedules`). `readers/optimization` writes files of them, and the monitor may put `SIGNS` beside its own
rules: each takes the waves so far, the newest last, or a single one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from math import fsum

import msgspec

from phase21.domain.judgements import TOLERANCE, Grade, Severity
from phase21.domain.settings import HealthThresholds
from phase21.evaluation.lessons import wilson_half_width
from phase21.evaluation.schedules import (
    Comparison,
    Slot,
    WaveFacts,
    actual_span_s,
    adherence,
    compared,
    kept,
    mean_known,
    span_s_of,
)
from phase21.evaluation.scoring import grade_of

ENOUGH_TASKS = 3
"""Fewer tasks than this say nothing about a rate."""

WEIGHT_TASKS = 20.0
"""How many predicted successes a heuristic's weight is held at 1 with."""

WEIGHT_LEAST, WEIGHT_MOST = 0.5, 2.0
EFFECTIVE = 0.85
"""From this accuracy on a strategy is worth going on with."""


# -- what it was worth ---------------------------------------------------------------------------------------------------


def strategy_effectiveness(waves: Sequence[WaveFacts]) -> dict[str, float | None]:
    """The mean accuracy of each strategy's plans, 0 to 1, by first appearance; None where nothing is known of any of them."""
    scores: dict[str, list[float | None]] = {}
    for facts in waves:
        scores.setdefault(facts.strategy, []).append(compared(facts).accuracy_score)
    return {strategy: mean_known(found) for strategy, found in scores.items()}


class HeuristicRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A heuristic's tasks: how many ended, how many succeeded, the sum of what was predicted; its weight before and since."""

    heuristic_id: str
    samples: int
    successes: int
    predicted_sum: float
    before: float
    weight: float


def heuristic_records(waves: Sequence[WaveFacts], before: Mapping[str, float]) -> list[HeuristicRecord]:
    """What each heuristic's tasks came to, by name. `before` are the weights so far, 1 where none is given.

    A weight is multiplied by (k + successes) / (k + predicted successes) with k = `WEIGHT_TASKS`: the observed over the expected, shrunk
    towards 1 by a gamma prior (Clayton and Kaldor 1987), and kept within `WEIGHT_LEAST` and `WEIGHT_MOST`.
    """
    sums: dict[str, tuple[int, int, float]] = dict.fromkeys(before, (0, 0, 0.0))
    for slot in (slot for facts in waves for slot in facts.slots):
        for name in dict.fromkeys(slot.heuristics):
            samples, successes, predicted = sums.setdefault(name, (0, 0, 0.0))
            if slot.success is not None and slot.predicted is not None:
                sums[name] = (samples + 1, successes + slot.success, predicted + slot.predicted)
    return [_weighed(name, sums[name], before.get(name, 1.0)) for name in sorted(sums)]


def _weighed(name: str, sums: tuple[int, int, float], before: float) -> HeuristicRecord:
    samples, successes, predicted = sums
    ratio = (WEIGHT_TASKS + successes) / (WEIGHT_TASKS + predicted)
    weight = min(max(before * ratio, WEIGHT_LEAST), WEIGHT_MOST) if samples else before
    return HeuristicRecord(
        heuristic_id=name, samples=samples, successes=successes, predicted_sum=predicted, before=before, weight=weight
    )


class AgentShare(msgspec.Struct, frozen=True, kw_only=True):
    """An agent's tasks: how many there are, how many ended and succeeded, and the sum of what was predicted of those that ended."""

    agent_id: str
    tasks: int
    ended: int
    successes: int
    predicted_sum: float


def agent_shares(waves: Sequence[WaveFacts]) -> list[AgentShare]:
    """Each agent's part in the waves, in the order of the waves' agents; a task is whoever's carried it out, or was to."""
    own: dict[str, list[Slot]] = {agent_id: [] for facts in waves for agent_id in facts.agents}
    for slot in (slot for facts in waves for slot in facts.slots):
        own.setdefault(slot.ran_by or slot.agent_id, []).append(slot)
    return [_share_of(agent_id, slots) for agent_id, slots in own.items()]


def _share_of(agent_id: str, slots: Sequence[Slot]) -> AgentShare:
    ended = [slot for slot in slots if slot.success is not None]
    return AgentShare(
        agent_id=agent_id,
        tasks=len(slots),
        ended=len(ended),
        successes=sum(slot.success is True for slot in ended),
        predicted_sum=fsum(slot.predicted or 0.0 for slot in ended),
    )


# -- five metrics --------------------------------------------------------------------------------------------------------


def schedule_accuracy(waves: Sequence[WaveFacts]) -> float | None:
    """The mean over waves of how well their plan held (`accuracy`), 0 to 1."""
    return mean_known(compared(facts).accuracy_score for facts in waves)


def throughput_efficiency(waves: Sequence[WaveFacts]) -> float | None:
    """The mean over waves of actual / planned throughput, 1 where it was faster than planned; a ratio, 0 to 1."""
    found = [(made.planned_throughput, made.actual_throughput) for made in map(compared, waves)]
    return mean_known(min(1.0, actual / planned) for planned, actual in found if planned and actual is not None)


def agent_utilization(waves: Sequence[WaveFacts]) -> float | None:
    """The mean over waves and their agents of the share of the wave, up to its last end, in which the agent worked, 0 to 1."""
    return mean_known(share for facts in waves for share in _busy_shares(facts))


def _busy_shares(facts: WaveFacts) -> Iterator[float]:
    span_s = actual_span_s(facts.slots)
    if not span_s:
        return
    busy_s = dict.fromkeys(facts.agents, 0.0)
    for slot in facts.slots:
        if slot.ran_by is not None:
            busy_s[slot.ran_by] = busy_s.get(slot.ran_by, 0.0) + _busy_s(slot)
    yield from (min(1.0, seconds / span_s) for seconds in busy_s.values())


def _busy_s(slot: Slot) -> float:
    if slot.busy_s is not None:
        return slot.busy_s
    return slot.ended_s - slot.started_s if slot.started_s is not None and slot.ended_s is not None else 0.0


def confidence_trajectory(waves: Sequence[WaveFacts]) -> float | None:
    """The mean over waves of confidence in their agents after the wave / before it; a ratio, 1 where outcomes changed nothing."""
    known = [(facts.confidence_before, facts.confidence_after) for facts in waves]
    return mean_known(after / before for before, after in known if before and after is not None)


def schedule_adherence(waves: Sequence[WaveFacts]) -> float | None:
    """The mean over waves of `adherence`, 0 to 1."""
    return mean_known(adherence(facts) for facts in waves)


class Gauge(msgspec.Struct, frozen=True, kw_only=True):
    """A metric: what it measures, a ratio; what is aimed at, and within what it is normal."""

    metric_name: str
    measure: Callable[[Sequence[WaveFacts]], float | None]
    target_value: float
    threshold_min: float
    threshold_max: float


GAUGES = tuple(
    Gauge(metric_name=measure.__name__, measure=measure, target_value=target, threshold_min=least, threshold_max=most)
    for measure, target, least, most in (
        (schedule_accuracy, 0.9, 0.85, 1.0),
        (throughput_efficiency, 0.95, 0.85, 1.0),
        (agent_utilization, 0.8, 0.6, 1.0),
        (confidence_trajectory, 1.0, 0.9, 1.1),
        (schedule_adherence, 0.9, 0.85, 1.0),
    )
)
"""The five metrics, with the targets and thresholds of Phase 19's `metrics.jsonl`."""

CRITICAL = 0.1
"""How far outside its thresholds a metric is critical."""


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """A metric as measured; `status` is normal, warning, critical (more than `CRITICAL` outside) or unknown."""

    metric_name: str
    value: float | None
    unit: str = "ratio"
    target_value: float
    threshold_min: float
    threshold_max: float
    status: str


def readings(waves: Sequence[WaveFacts]) -> tuple[Reading, ...]:
    """All five metrics."""
    return tuple(read(gauge, gauge.measure(waves)) for gauge in GAUGES)


def read(gauge: Gauge, value: float | None) -> Reading:
    """What a value says on a gauge."""
    return Reading(
        metric_name=gauge.metric_name,
        value=value,
        target_value=gauge.target_value,
        threshold_min=gauge.threshold_min,
        threshold_max=gauge.threshold_max,
        status=_status(gauge, value),
    )


def _status(gauge: Gauge, value: float | None) -> str:
    if value is None:
        return "unknown"
    outside = max(gauge.threshold_min - value, value - gauge.threshold_max)
    if outside <= TOLERANCE:
        return "normal"
    return "warning" if outside <= CRITICAL + TOLERANCE else "critical"


# -- four anomalies ------------------------------------------------------------------------------------------------------


class Sighting(msgspec.Struct, frozen=True, kw_only=True):
    """What a sign found: the value that crossed its threshold, in words, and the waves and agents that show it (no agent: all)."""

    value: float
    description: str
    waves: tuple[int, ...]
    agents: tuple[str, ...] = ()


class Sign(msgspec.Struct, frozen=True, kw_only=True):
    """One anomaly of schedules. `find` takes waves in their order and the threshold."""

    anomaly_type: str
    severity: Severity
    threshold: float
    find: Callable[[Sequence[WaveFacts], float], Sighting | None]
    recommendation: str


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """A sign that was found."""

    sign: Sign
    sighting: Sighting


def seen(waves: Sequence[WaveFacts]) -> tuple[Seen, ...]:
    """The anomalies that these waves show, in the order of `SIGNS`."""
    found = ((sign, sign.find(waves, sign.threshold)) for sign in SIGNS)
    return tuple(Seen(sign=sign, sighting=sighting) for sign, sighting in found if sighting is not None)


def prediction_error(waves: Sequence[WaveFacts], threshold: float) -> Sighting | None:
    """Planned and actual success rate of a wave lie more than `threshold` apart, over at least `ENOUGH_TASKS` outcomes."""
    apart = {made.wave: abs(gap) for made in map(compared, waves) if (gap := _success_gap(made)) is not None}
    return _worst(
        {wave: gap for wave, gap in apart.items() if gap > threshold + TOLERANCE},
        max,
        "predicted and actual success are up to {:.1%} apart",
        lambda numbers: _failing(waves, numbers),
    )


def _success_gap(made: Comparison) -> float | None:
    planned, actual = made.planned_success_rate, made.actual_success_rate
    if planned is None or actual is None or made.compared_tasks < ENOUGH_TASKS:
        return None
    return planned - actual


def schedule_drift(waves: Sequence[WaveFacts], threshold: float) -> Sighting | None:
    """A wave kept to its schedule by less than `threshold` (`adherence`)."""
    shares = {facts.wave: share for facts in waves if (share := adherence(facts)) is not None}
    return _worst(
        {wave: share for wave, share in shares.items() if share < threshold - TOLERANCE},
        min,
        "schedules were kept to {:.1%} at the worst",
        lambda numbers: _straying(waves, numbers, threshold),
    )


def performance_degradation(waves: Sequence[WaveFacts], threshold: float) -> Sighting | None:
    """The newest wave's success rate is more than `threshold` below that of all waves before, each over enough tasks."""
    ended = [(facts.wave, _outcomes(facts)) for facts in waves]
    known = [(wave, outcomes) for wave, outcomes in ended if outcomes]
    if len(known) < 2:  # noqa: PLR2004 -- a wave and one before it
        return None
    wave, newest = known[-1]
    before = [success for _, outcomes in known[:-1] for success in outcomes]
    if min(len(newest), len(before)) < ENOUGH_TASKS:
        return None
    was, now = sum(before) / len(before), sum(newest) / len(newest)
    if was - now <= threshold + TOLERANCE:
        return None
    said = f"the success rate fell from {was:.1%} over the waves before to {now:.1%}"
    return Sighting(value=was - now, description=said, waves=(wave,), agents=_failing(waves, {wave}))


def _outcomes(facts: WaveFacts) -> list[bool]:
    return [slot.success for slot in facts.slots if slot.success is not None]


OF_TIME = frozenset({"round_robin", "load_balanced", "balance_load", "maximize_throughput"})
"""Strategies that aim at throughput; all others aim at success."""


def optimization_failure(waves: Sequence[WaveFacts], threshold: float) -> Sighting | None:
    """What a wave's strategy aims at (success rate, or throughput: `OF_TIME`) came to less than `threshold` of what was planned."""
    reached = {made.wave: share for made in map(compared, waves) if (share := _reached(made)) is not None}
    return _worst(
        {wave: share for wave, share in reached.items() if share < threshold - TOLERANCE},
        min,
        "the strategy reached {:.1%} of what it planned at the worst",
        lambda numbers: _failing(waves, numbers),
    )


def _reached(made: Comparison) -> float | None:
    planned, actual = made.planned_success_rate, made.actual_success_rate
    if made.strategy in OF_TIME:
        planned, actual = made.planned_throughput, made.actual_throughput
    return actual / planned if planned and actual is not None and made.compared_tasks >= ENOUGH_TASKS else None


def _worst(
    found: Mapping[int, float],
    pick: Callable[[Iterable[float]], float],
    said: str,
    agents: Callable[[Collection[int]], tuple[str, ...]],
) -> Sighting | None:
    if not found:
        return None
    value = pick(found.values())
    return Sighting(value=value, description=said.format(value), waves=tuple(found), agents=agents(found))


def _failing(waves: Sequence[WaveFacts], numbers: Collection[int]) -> tuple[str, ...]:
    """The agents whose tasks failed in these waves, those with the most first, ties by name."""
    slots = (slot for facts in waves if facts.wave in numbers for slot in facts.slots)
    failed = Counter(slot.ran_by or slot.agent_id for slot in slots if slot.success is False)
    return tuple(sorted(failed, key=lambda agent_id: (-failed[agent_id], agent_id)))


def _straying(waves: Sequence[WaveFacts], numbers: Collection[int], threshold: float) -> tuple[str, ...]:
    """The agents who in these waves kept to what was planned of them by less than the threshold, by name."""
    shares: dict[str, list[float]] = {}
    for facts in waves:
        span_s = span_s_of(facts.slots)
        for slot in facts.slots:
            if facts.wave in numbers and slot.settled:
                shares.setdefault(slot.agent_id, []).append(kept(slot, span_s))
    return tuple(sorted(agent_id for agent_id, found in shares.items() if fsum(found) / len(found) < threshold - TOLERANCE))


SIGNS = (
    Sign(
        anomaly_type="prediction_error",
        severity=Severity.MEDIUM,
        threshold=0.20,
        find=prediction_error,
        recommendation="look at `phase21 calibration`, and at what the planner predicts for these tasks",
    ),
    Sign(
        anomaly_type="schedule_drift",
        severity=Severity.MEDIUM,
        threshold=0.85,
        find=schedule_drift,
        recommendation="increase scheduling buffers: check estimated durations, retries, and tasks that were moved",
    ),
    Sign(
        anomaly_type="performance_degradation",
        severity=Severity.HIGH,
        threshold=0.10,
        find=performance_degradation,
        recommendation="compare the failed tasks with those of the waves before: kind, agent, what they depend on",
    ),
    Sign(
        anomaly_type="optimization_failure",
        severity=Severity.HIGH,
        threshold=0.85,
        find=optimization_failure,
        recommendation="hold the strategy against others before the next wave, or give the agents that fall short less",
    ),
)
"""The four anomalies of the optimization monitor."""


# -- health --------------------------------------------------------------------------------------------------------------

WEIGHTS = {"optimization_accuracy": 0.4, "schedule_adherence": 0.3, "throughput_efficiency": 0.2, "system_stability": 0.1}
"""Shares of the score; they are those behind Phase 19's `system_health.json`."""

ANOMALY_POINTS = 10.0
"""What each anomaly takes off the stability's 100."""


class ScheduleHealth(msgspec.Struct, frozen=True, kw_only=True):
    """A score 0 to 100, its grade, and the points 0 to 100 of each part; None where nobody knows."""

    overall_health_score: float | None
    health_status: Grade
    component_scores: dict[str, float | None]


def health(measured: Sequence[Reading], anomalies: int, thresholds: HealthThresholds) -> ScheduleHealth:
    """The weighted sum of accuracy, adherence, throughput and stability, over what is known of them.

    UNKNOWN, without a score, where none of the first three is known: stability alone says only that nobody looked.
    """
    values = {reading.metric_name: reading.value for reading in measured}
    parts = {
        "optimization_accuracy": _points(values["schedule_accuracy"]),
        "schedule_adherence": _points(values["schedule_adherence"]),
        "throughput_efficiency": _points(values["throughput_efficiency"]),
        "system_stability": max(0.0, 100.0 - ANOMALY_POINTS * anomalies),
    }
    known = {name: points for name, points in parts.items() if points is not None}
    score = None
    if len(known) > 1:
        score = fsum(WEIGHTS[name] * points for name, points in known.items()) / fsum(WEIGHTS[name] for name in known)
    return ScheduleHealth(overall_health_score=score, health_status=grade_of(score, thresholds), component_scores=parts)


def _points(share: float | None) -> float | None:
    return None if share is None else 100.0 * share


# -- feedback ------------------------------------------------------------------------------------------------------------


class Feedback(msgspec.Struct, frozen=True, kw_only=True):
    """A lesson for a neighbour, as Phase 19 writes it; `target_phase` is who learns, `confidence` 0 to 1, None where unknown."""

    feedback_id: str
    feedback_type: str
    confidence: float | None
    description: str
    recommendation: str
    supporting_evidence: tuple[str, ...]
    target_phase: int


def feedback(waves: Sequence[WaveFacts], heuristics: Sequence[HeuristicRecord]) -> list[Feedback]:
    """What the waves teach about strategies and heuristics (for Phase 16) and about agents (for Phase 18); outcomes only."""
    told = [_of_strategy(name, share) for name, share in strategy_effectiveness(waves).items() if share is not None]
    told.extend(_of_heuristic(record) for record in heuristics if record.samples)
    told.extend(_of_agent(share) for share in agent_shares(waves) if share.ended)
    return told


def _of_strategy(strategy: str, share: float) -> Feedback:
    effective = share >= EFFECTIVE - TOLERANCE
    return Feedback(
        feedback_id=f"P19_LS_STRATEGY_VALIDATION_{strategy}",
        feedback_type="strategy_validation",
        confidence=share,
        description=f"plans by {strategy} held to {share:.1%}",
        recommendation=f"continue with {strategy}" if effective else f"hold {strategy} against other strategies",
        supporting_evidence=(f"Average accuracy: {share:.3f}",),
        target_phase=16,
    )


def _of_heuristic(record: HeuristicRecord) -> Feedback:
    moved = "raised" if record.weight > record.before else "lowered" if record.weight < record.before else "kept"
    return Feedback(
        feedback_id=f"P19_LS_HEURISTIC_UPDATE_{record.heuristic_id}",
        feedback_type="heuristic_update",
        confidence=1.0 - wilson_half_width(record.successes, record.samples),
        description=f"the weight of {record.heuristic_id} is {moved}: {record.before:.3f} to {record.weight:.3f}",
        recommendation=f"use {record.heuristic_id} with weight {record.weight:.3f}",
        supporting_evidence=(f"{record.successes} of {record.samples} succeeded, {record.predicted_sum:.1f} were predicted to",),
        target_phase=16,
    )


def _of_agent(share: AgentShare) -> Feedback:
    predicted, actual = share.predicted_sum / share.ended, share.successes / share.ended
    half = wilson_half_width(share.successes, share.ended)
    off = actual - predicted
    held = abs(off) <= half + TOLERANCE
    advice = (
        "keep its share of the tasks" if held else "raise what is predicted of it" if off > 0 else "lower what is predicted of it"
    )
    return Feedback(
        feedback_id=f"P19_LS_AGENT_PERFORMANCE_{share.agent_id}",
        feedback_type="agent_performance",
        confidence=1.0 - half,
        description=f"{share.agent_id} succeeded at {actual:.1%} of its tasks, {predicted:.1%} were predicted",
        recommendation=advice,
        supporting_evidence=(f"{share.successes} of {share.ended} succeeded",),
        target_phase=18,
    )
