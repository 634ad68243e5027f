"""A schedule: a submission that is made again and again, and where it stands.

Read by intake, kept in the ledger, thought about by `planning.recurrence`, fired by the timekeeper. Every firing is a run of its own,
whose name says when it was due.
"""

from __future__ import annotations

import enum
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from phase21.domain.tasks import Moment, Task
from phase21.domain.workflows import Workflow

MICROS = 1_000_000


class Missed(enum.StrEnum):
    """What becomes of times that passed while nobody could fire: none, the newest, or all of them are made up for."""

    SKIP = "skip"
    ONCE = "once"
    ALL = "all"


class Overlap(enum.StrEnum):
    """What becomes of a time that comes while the run before is under way: it is skipped, waits its turn, or fires beside it."""

    SKIP = "skip"
    WAIT = "wait"
    ALLOW = "allow"


class Recurrence(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """When a schedule is due: at the times of a cron expression in a time zone, or every so many seconds.

    `first` is the earliest time, `until` the latest; given in seconds they count from the acceptance.
    """

    cron: Annotated[str, Meta(min_length=9, max_length=256)] | None = None
    interval_s: Annotated[float, Meta(ge=1.0, le=1e9)] | None = None
    timezone: Annotated[str, Meta(min_length=1, max_length=64)] = "UTC"
    missed: Missed = Missed.ONCE
    overlap: Overlap = Overlap.SKIP
    first: Moment | None = None
    until: Moment | None = None


class ScheduleRecord(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Where a schedule stands; changed by the ledger's fold alone.

    Every due time up to `decided_us` (microseconds since 1970) has fired or was missed for good. `last_run` is the newest run that
    it made; `fired` and `missed` count due times. `ending` says why nothing more of it will fire.
    """

    run_id: str
    submission_id: str
    every: Recurrence
    tasks: tuple[Task, ...]
    workflow: Workflow | None = None
    metadata: dict[str, Any] = {}
    accepted_us: int = 0
    decided_us: int = 0
    last_run: str | None = None
    fired: int = 0
    missed: int = 0
    paused: bool = False
    ending: str = ""
