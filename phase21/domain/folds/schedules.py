"""Schedules: accepted, fired, missed, paused, ended."""

from __future__ import annotations

from phase21.domain import events as ev
from phase21.domain.folds.known import Folds, Known
from phase21.domain.schedules import ScheduleRecord


def _schedule_accepted(known: Known, event: ev.ScheduleAccepted) -> None:
    known.mark = event.mark or known.mark
    known.schedules[event.run_id] = ScheduleRecord(
        run_id=event.run_id,
        submission_id=event.submission_id,
        every=event.every,
        tasks=event.tasks,
        workflow=event.workflow,
        metadata=event.metadata,
        accepted_us=known.at_us,
        decided_us=known.at_us - 1,  # what is due at that very moment is due
    )


def _schedule_fired(known: Known, event: ev.ScheduleFired) -> None:
    schedule = known.schedules[event.run_id]
    schedule.decided_us, schedule.last_run = event.due_us, event.fired
    schedule.fired += 1


def _schedule_missed(known: Known, event: ev.ScheduleMissed) -> None:
    schedule = known.schedules[event.run_id]
    schedule.decided_us = event.through_us
    schedule.missed += event.count


def _schedule_ended(known: Known, event: ev.ScheduleEnded) -> None:
    known.schedules.pop(event.run_id, None)


def control_schedule(schedule: ScheduleRecord, control: str) -> None:
    """What a person has decided about a schedule; whoever fires it says that it has ended."""
    if control == "cancel":
        schedule.ending = "cancelled"
    else:
        schedule.paused = control == "pause"


FOLDS: Folds = {
    ev.ScheduleAccepted: _schedule_accepted,
    ev.ScheduleFired: _schedule_fired,
    ev.ScheduleMissed: _schedule_missed,
    ev.ScheduleEnded: _schedule_ended,
}
"""What becomes of schedules."""
