"""Five metrics of how schedules held, against their thresholds, and the health that they add up to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import fsum

import msgspec

from phase21.domain.judgements import TOLERANCE, Grade
from phase21.domain.settings import HealthThresholds
from phase21.evaluation.schedules import Slot, WaveFacts, actual_span_s, adherence, compared, mean_known
from phase21.evaluation.scoring import grade_of


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
