"""When a schedule is due, and what becomes of a time that is: fired, missed for good, or left to wait.

Pure: times come in as microseconds since 1970, and no clock is read. Asked by the timekeeper, by intake before it accepts a schedule,
and by those who show the next time. Cron expressions are read as Debian's cron reads them, daylight saving included.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice, zip_longest
from zoneinfo import ZoneInfo

import msgspec
from cronsim import CronSim, CronSimError

from phase21.domain.schedules import MICROS, Missed, Overlap, Recurrence, ScheduleRecord
from phase21.domain.tasks import moment_us

LATE_US = 60 * MICROS
"""A time that could have fired longer ago than this was missed, as was one that the next has overtaken."""

COUNTED_MOST = 1000
"""How many due times are looked at in one step."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Fault(msgspec.Struct, frozen=True):
    """What is wrong with a recurrence, and in which of its fields."""

    said: str
    field: str


class Step(enum.StrEnum):
    """What is done about a due time."""

    FIRE = "fire"
    MISS = "miss"
    WAIT = "wait"


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What is done about due times: the first of them, and where they are missed `count` of them, the last at `through_us`."""

    step: Step
    due_us: int
    through_us: int
    count: int = 1
    reason: str = ""


# -- times ---------------------------------------------------------------------------------------------------------------


def fault_of(every: Recurrence) -> Fault | None:
    """Why a recurrence cannot be kept as it is written, None where it can."""
    if (every.cron is None) == (every.interval_s is None):
        return Fault("give exactly one of cron and interval_s", "cron" if every.cron is None else "interval_s")
    try:
        zone = ZoneInfo(every.timezone)
    except (KeyError, ValueError, OSError):  # one that is not there, one that is no path, one that is a folder
        return Fault(f"{every.timezone!r} is no known time zone; allowed: names such as UTC and Europe/Berlin", "timezone")
    if every.cron is not None:
        try:
            CronSim(every.cron, _at(0, zone))
        except (CronSimError, ValueError) as error:
            said = f"{every.cron!r} is no cron expression ({error}); five fields: minute, hour, day of month, month, day of week"
            return Fault(said, "cron")
    return None


def never(every: Recurrence, accepted_us: int) -> Fault | None:
    """Why nothing is ever due of a schedule that is accepted then; None where something is."""
    if next_due(every, accepted_us, accepted_us - 1) is not None:
        return None
    return Fault("no time is ever due", "until" if every.until is not None else "cron")


def next_due(every: Recurrence, accepted_us: int, after_us: int) -> int | None:
    """The first due time after a moment, None where there is none. Raises what `fault_of` would have said."""
    return next(due_times(every, accepted_us, after_us), None)


def due_times(every: Recurrence, accepted_us: int, after_us: int) -> Iterator[int]:
    """The due times after a moment, in order, up to `until`."""
    until_us = None if every.until is None else moment_us(every.until, accepted_us)
    for due_us in _intervals(every, accepted_us, after_us) if every.cron is None else _crons(every, accepted_us, after_us):
        if until_us is not None and due_us > until_us:
            return
        yield due_us


def _intervals(every: Recurrence, accepted_us: int, after_us: int) -> Iterator[int]:
    """Whole intervals since the first time, which is one interval after the acceptance where it is not given."""
    step_us = round((every.interval_s or 0) * MICROS)
    anchor_us = accepted_us + step_us if every.first is None else moment_us(every.first, accepted_us)
    due_us = anchor_us + max(0, (after_us - anchor_us) // step_us + 1) * step_us
    while True:
        yield due_us
        due_us += step_us


def _crons(every: Recurrence, accepted_us: int, after_us: int) -> Iterator[int]:
    """Each due time once, and later than the one before: clocks that are put back do not make one come again."""
    if every.first is not None:
        after_us = max(after_us, moment_us(every.first, accepted_us) - 1)
    for due in CronSim(every.cron or "", _at(after_us, ZoneInfo(every.timezone))):
        due_us = (due - _EPOCH) // timedelta(microseconds=1)
        if due_us > after_us:
            after_us = due_us
            yield due_us


def _at(at_us: int, zone: ZoneInfo) -> datetime:
    return (_EPOCH + timedelta(microseconds=at_us)).astimezone(zone)


def run_name(run_id: str, due_us: int) -> str:
    """The name of the run that a firing makes: the schedule's, and when it was due, in UTC to the second."""
    return f"{run_id}-{_EPOCH + timedelta(microseconds=due_us):%Y%m%dT%H%M%SZ}"


# -- decisions -----------------------------------------------------------------------------------------------------------


def decide(schedule: ScheduleRecord, now_us: int, *, busy: bool, freed_us: int = 0, made_us: int = 0) -> Decision | None:
    """What is to be done now about the schedule's next due time; None where it has not come, or none ever will.

    `busy` says that the run that it made last is under way, `made_us` when it was made, `freed_us` when it ended. A time could
    have fired once it was due and, unless runs may overlap, the run before had ended; long after that it counts as missed.
    """
    every = schedule.every
    found = _up_to(schedule, now_us)
    if not found or found[0] > now_us:
        return None
    alone = every.overlap is not Overlap.ALLOW
    if busy and every.overlap is Overlap.WAIT:
        return _decision(Step.WAIT, found[:1])
    late = _late_ones(found, now_us, freed_us if alone and not busy else 0)
    if every.missed is not Missed.ALL:
        lost = _lost(every, late, found, now_us)
        if lost:
            return _decision(Step.MISS, lost, "missed")
    if busy and alone:
        came_before = bool(late) or found[0] <= made_us
        made_up_for = came_before and every.missed is Missed.ALL
        return _decision(Step.WAIT, found[:1]) if made_up_for else _decision(Step.MISS, found[:1], "overlap")
    return _decision(Step.FIRE, found[:1])


def _up_to(schedule: ScheduleRecord, now_us: int) -> list[int]:
    """The undecided due times up to now, and the one that follows; so many as are looked at in one step."""
    found: list[int] = []
    for due_us in islice(due_times(schedule.every, schedule.accepted_us, schedule.decided_us), COUNTED_MOST + 1):
        found.append(due_us)
        if due_us > now_us:
            break
    return found


def _late_ones(found: Sequence[int], now_us: int, freed_us: int) -> list[int]:
    """Those of the due times, from the first on, that could have fired too long ago."""
    late: list[int] = []
    for due_us, following_us in zip_longest(found, found[1:]):
        patience_us = LATE_US if following_us is None else min(LATE_US, following_us - due_us)
        if now_us - max(due_us, freed_us) <= patience_us:
            break
        late.append(due_us)
    return late


def _lost(every: Recurrence, late: Sequence[int], found: Sequence[int], now_us: int) -> Sequence[int]:
    """Those of the late ones that nothing makes up for: all, or all but the newest of the due times."""
    newest = found[-1] if found[-1] <= now_us else found[-2]
    return late[:-1] if every.missed is Missed.ONCE and late and late[-1] == newest else late


def _decision(step: Step, about: Sequence[int], reason: str = "") -> Decision:
    return Decision(step=step, due_us=about[0], through_us=about[-1], count=len(about), reason=reason)
