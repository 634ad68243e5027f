"""A submission that recurs: whether it can be kept as it is written, and beside what stands already.

Called by the reader of lines for what one line says, and by the receiver before it accepts a schedule.
"""

from __future__ import annotations

from phase21.domain.errors import InputRefused
from phase21.domain.schedules import Recurrence
from phase21.intake.shapes import Submission
from phase21.planning.recurrence import Fault, fault_of, never, run_name

SCHEDULES_MOST = 1000
"""How many schedules may stand: each is held whole in memory."""

RUN_ID_MOST = 128 - len(run_name("", 0))
"""How long the name of a schedule may be: its runs' names say when they were due as well."""


def check_recurrence(submission: Submission) -> None:
    """Refuse what a schedule cannot be, whatever the time. Raises InputRefused."""
    every = submission.every
    if every is None:
        return
    if submission.tasks is None and submission.workflow is None:
        raise InputRefused("every goes only with tasks or workflow", "every")
    if submission.wave is not None:
        raise InputRefused("wave does not go with every: each time makes a run of its own", "wave")
    if len(submission.run_id) > RUN_ID_MOST:
        said = f"a schedule's run_id has at most {RUN_ID_MOST} characters: its runs are named after it and the time"
        raise InputRefused(said, "run_id")
    _refuse(fault_of(every))


def check_standing(every: Recurrence, standing: int, now_us: int) -> None:
    """Refuse a schedule that is never due from now on, or is one too many. Raises InputRefused."""
    if standing >= SCHEDULES_MOST:
        raise InputRefused(f"{standing} schedules stand, and no more may; cancel one of them", "run_id")
    _refuse(never(every, now_us))


def _refuse(fault: Fault | None) -> None:
    if fault is not None:
        raise InputRefused(f"every.{fault.field}: {fault.said}", f"every.{fault.field}")
