"""What the predictions of a wave add up to against their outcomes, bin by bin: what its digest keeps of them, and the report shows.

`rows` asks for the sums of one wave, `reports` adds them up. All follows from the wave's record.
"""

from __future__ import annotations

from collections import Counter

import msgspec

from phase21.domain.judgements import Ruling
from phase21.domain.records import WaveRecord
from phase21.evaluation.calibration import bin_of
from phase21.evaluation.metrics import ran

APPROVED = Ruling.APPROVED


class BinSums(msgspec.Struct, frozen=True, array_like=True):
    """What a wave's predictions of one bin (`calibration.bin_of`) add up to: how many, their sum, squared misses, successes."""

    place: int
    samples: int
    predicted: float
    squared: float
    successes: int


def wave_sums(wave: WaveRecord) -> tuple[tuple[BinSums, ...], tuple[BinSums, ...]]:
    """The sums of a judged wave's predictions, ours and the incoming ones, by bin.

    They are of the tasks that were started in this wave, with the assignment that stood then: of a task that was moved since and not
    started again, the one before.
    """
    stood = _stood(wave) if len(wave.batches) > 1 else None
    ours: dict[int, list[float]] = {}
    incoming: dict[int, list[float]] = {}
    if stood is None:
        alike = Counter([(record.predicted, record.raw, success) for record, _, success in ran(wave)])
    else:
        told = ((stood.get(record.task.task_id), success) for record, _, success in ran(wave))
        alike = Counter([(*said, success) for said, success in told if said is not None])
    for (predicted, raw, success), tasks in alike.items():
        _count(ours, predicted, tasks, success=success)
        _count(incoming, raw, tasks, success=success)
    return _summed(ours), _summed(incoming)


def _stood(wave: WaveRecord) -> dict[str, tuple[float, float]]:
    """What was predicted of each task, ours and incoming, when its last attempt in this wave started."""
    last_us = {made.task_id: made.at_us for made in wave.decisions if made.ruling == APPROVED}
    return {
        given.task_id: (given.predicted, given.raw)
        for batch in wave.batches
        for given in batch.assignments
        if batch.at_us <= last_us.get(given.task_id, -1)
    }


def _count(sums: dict[int, list[float]], predicted: float, tasks: int, *, success: bool) -> None:
    """So many tasks of which the same was predicted, and that ended alike: a wave has few kinds of these."""
    place = bin_of(predicted)
    held = sums.get(place)
    if held is None:
        held = sums[place] = [0, 0.0, 0.0, 0]
    miss = predicted - success
    held[0] += tasks
    held[1] += tasks * predicted
    held[2] += tasks * miss * miss
    held[3] += tasks * success


def _summed(sums: dict[int, list[float]]) -> tuple[BinSums, ...]:
    return tuple(BinSums(place, int(held[0]), held[1], held[2], int(held[3])) for place, held in sorted(sums.items()))
