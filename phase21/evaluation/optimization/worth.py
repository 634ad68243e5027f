"""What strategies, heuristics and agents were worth by their outcomes, and what that teaches their neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import fsum

import msgspec

from phase21.domain.judgements import TOLERANCE
from phase21.evaluation.lessons import wilson_half_width
from phase21.evaluation.schedules import Slot, WaveFacts, compared, mean_known

WEIGHT_TASKS = 20.0
"""How many predicted successes a heuristic's weight is held at 1 with."""

WEIGHT_LEAST, WEIGHT_MOST = 0.5, 2.0
EFFECTIVE = 0.85
"""From this accuracy on a strategy is worth going on with."""


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
