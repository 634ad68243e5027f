"""What a judged wave adds to what is watched: the streams of agents and runs, and a run's course.

Pure values and functions that the ledger folds with; the monitor asks the same ones before it writes anything down. Nothing here
decides what is an anomaly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from phase21.domain.judgements import Calibration, Metrics
from phase21.domain.records import Course, WaveRecord
from phase21.domain.sequential import Alarm, Seen, Watch, observe

COURSE_WAVES = 12
"""How many of a run's newest waves are remembered in a few figures each."""

UNWATCHED = Watch()


class Change(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a wave makes of one watch: what was seen, the watch after it, and the alarm if there is one."""

    seen: Seen
    watch: Watch
    alarm: Alarm | None


def changes(
    seen: Sequence[Seen], watches: Sequence[Mapping[str, Watch]], *, run_id: str, wave: int, false_alarms: float
) -> list[Change]:
    """What a wave makes of the watches of each part of what it shows; `watches` are by kind, for each of these parts."""
    made = []
    for part, known in zip(seen, watches, strict=True):
        watch, alarm = observe(
            known.get(part.kind, UNWATCHED),
            wave,
            part.successes,
            part.tasks,
            expected=part.expected,
            false_alarms=false_alarms,
            run_id=run_id,
        )
        made.append(Change(part, watch, alarm))
    return made


def since_change(had: Calibration, change: Change) -> Calibration:
    """What remains of evidence once an alarm has told how much of it came after the change.

    The newest wave's own part is not in `had` yet, and so not in what remains. Durations keep their mean.
    """
    alarm, seen = change.alarm, change.seen
    assert alarm is not None  # noqa: S101 -- asked only where there is one
    samples = min(max(alarm.tasks_after - seen.tasks, 0), had.samples)
    if not samples:
        return Calibration()
    successes = round(alarm.rate_after * alarm.tasks_after) - seen.successes
    expected = alarm.expected_after * alarm.tasks_after - seen.expected
    measured = had.measured * samples // had.samples
    stretch_sum = had.stretch_sum * measured / had.measured if had.measured else 0.0
    return Calibration(samples, min(max(successes, 0), samples), min(max(expected, 0.0), float(samples)), measured, stretch_sum)


def course_of(wave: WaveRecord, metrics: Metrics) -> Course | None:
    """A settled wave in a few figures; None where nothing was started."""
    if wave.planned is None or not metrics.started_tasks or metrics.confidence is None:
        return None
    took_s = ((wave.settled_us or 0) - (wave.opened_us or 0)) / 1e6
    return Course(
        wave.number,
        wave.planned.strategy,
        metrics.started_tasks,
        metrics.completed_tasks,
        metrics.confidence * metrics.started_tasks,
        wave.planned.expected_duration_s,
        took_s,
    )
