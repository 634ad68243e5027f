"""Four anomalies that schedules show over their waves: one table, in the shape of the monitor's own (`rules`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from math import fsum

import msgspec

from phase21.domain.judgements import TOLERANCE, Severity
from phase21.evaluation.rules import ENOUGH_TASKS, OF_TIME, Rule
from phase21.evaluation.schedules import Comparison, WaveFacts, adherence, compared, kept, span_s_of


class Sighting(msgspec.Struct, frozen=True, kw_only=True):
    """What a sign found: the value that crossed its threshold, in words, and the waves and agents that show it (no agent: all)."""

    value: float
    description: str
    waves: tuple[int, ...]
    agents: tuple[str, ...] = ()


Sign = Rule[Sequence[WaveFacts], Sighting | None, float]
"""One anomaly of schedules. `find` takes waves in their order and the threshold."""


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


SIGNS: tuple[Sign, ...] = (
    Rule(
        anomaly_type="prediction_error",
        severity=Severity.MEDIUM,
        threshold=0.20,
        find=prediction_error,
        recommendation="look at `phase21 calibration`, and at what the planner predicts for these tasks",
    ),
    Rule(
        anomaly_type="schedule_drift",
        severity=Severity.MEDIUM,
        threshold=0.85,
        find=schedule_drift,
        recommendation="increase scheduling buffers: check estimated durations, retries, and tasks that were moved",
    ),
    Rule(
        anomaly_type="performance_degradation",
        severity=Severity.HIGH,
        threshold=0.10,
        find=performance_degradation,
        recommendation="compare the failed tasks with those of the waves before: kind, agent, what they depend on",
    ),
    Rule(
        anomaly_type="optimization_failure",
        severity=Severity.HIGH,
        threshold=0.85,
        find=optimization_failure,
        recommendation="hold the strategy against others before the next wave, or give the agents that fall short less",
    ),
)
"""The four anomalies of the optimization monitor."""
