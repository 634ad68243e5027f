"""What is still to come: schedules with their next times, and until when runs wait that have nothing to do before.

Asked by `status`. It reads the ledger and changes nothing.
"""

from __future__ import annotations

from typing import Any

from phase21.domain.ledger import Ledger
from phase21.domain.runs import Run
from phase21.domain.schedules import Recurrence, ScheduleRecord
from phase21.domain.tasks import TaskStatus
from phase21.planning.recurrence import next_due
from phase21.store.clock import iso


def schedules_of(ledger: Ledger, run_id: str | None = None) -> list[dict[str, Any]]:
    """Every schedule that stands, or the one of that name, in the shape of `status --json`."""
    return [_schedule(one) for one in ledger.schedules.values() if run_id in {None, one.run_id}]


def _schedule(schedule: ScheduleRecord) -> dict[str, Any]:
    due_us = next_due(schedule.every, schedule.accepted_us, schedule.decided_us)
    return {
        "run_id": schedule.run_id,
        "state": "ending" if schedule.ending else "paused" if schedule.paused else "standing",
        "every": _words(schedule.every),
        "next_time": iso(due_us) if due_us is not None else None,
        "fired": schedule.fired,
        "missed": schedule.missed,
        "last_run": schedule.last_run,
    }


def _words(every: Recurrence) -> str:
    return f"{every.cron} ({every.timezone})" if every.cron is not None else f"{every.interval_s:g} s"


def waits_until(run: Run) -> str | None:
    """When the next task of a run is due that has nothing else to do; None where it has, or waits for no time."""
    wave = run.waves.get(run.current or 0)
    if wave is None:
        return None
    dues = []
    for record in wave.tasks.values():
        if record.status is TaskStatus.PENDING and not record.blockers and not record.paused:
            dues.append(record.due_us)
        elif record.status in {TaskStatus.IN_PROGRESS, TaskStatus.RETRYING}:
            return None
    known = [due_us for due_us in dues if due_us is not None]
    return iso(min(known)) if known and len(known) == len(dues) else None
