"""What is known, as one plain object, and where a run stands among those that the harness looks at.

The folds act on it, and `Ledger` is it with a face for readers. What is open is held here; what is closed is answered by the store.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from phase21.domain import events as ev
from phase21.domain.evidence import Evidence
from phase21.domain.paces import Paces
from phase21.domain.post import is_agent
from phase21.domain.records import AgentRecord, RunRecord
from phase21.domain.runs import Run, own_copy
from phase21.domain.schedules import ScheduleRecord
from phase21.domain.watching import Change

IDLE_RUNS_KEPT = 64
"""How many runs with nothing to do stay in memory; the store answers for the others."""

"""A task that waits to be tried."""


class Known:
    """Everything up to `position`; `lessons` counts what a forecast is made from: while it stands, so does the forecast."""

    def __init__(self) -> None:
        self.position = 0
        self.at_us = 0
        self.runs: dict[str, Run] = {}
        self.agents: dict[str, AgentRecord] = {}
        self.schedules: dict[str, ScheduleRecord] = {}
        self.ready: dict[str, None] = {}
        self.idle: dict[str, None] = {}
        self.undecided: dict[str, None] = {}
        self.orphaned: dict[tuple[str, str], None] = {}
        self.mark: ev.QueueMark | None = None
        self.service: ev.ServiceStarted | None = None
        self.service_us: int | None = None
        self.trusted_boot_id = ""
        self.evidence = Evidence()
        self.paces = Paces()
        self.lessons = 0
        self.open_tasks = 0
        self.failed_tasks = 0
        self.under_way = 0
        self.foreseen: tuple[ev.HealthScored, list[Change]] | None = None


Folds = dict[type, Callable[[Known, Any], None]]
"""What takes in an event, by its kind."""


def recall(known: Known, run_id: str, carried: RunRecord | None) -> Run:
    """The run, made anew, or of the record that the store kept, where memory does not hold it."""
    run = known.runs.get(run_id)
    if run is None:
        fresh = RunRecord(run_id=run_id, first_position=known.position, started_us=known.at_us)
        record = own_copy(carried) if carried else fresh
        record.paused = False  # as its last wave closed it may have been; only what is not paused is put away
        run = known.runs[run_id] = Run(record=record)
    return run


def sort(known: Known, run: Run) -> None:
    """Put a run where the harness and the conductor look: among the ready, the undecided, the idle, or none of them."""
    run_id = run.run_id
    if run.current is None and not run.record.paused and run.waiting and not run.behind:
        known.ready.setdefault(run_id)
    else:
        known.ready.pop(run_id, None)
    if run.undecided:
        known.undecided.setdefault(run_id)
    else:
        known.undecided.pop(run_id, None)
    if run.record.post is not None and run.idle:
        known.orphaned.update({(run_id, address): None for address in run.record.post.mailboxes if is_agent(address)})
    known.idle.pop(run_id, None)
    if run.idle and not run.closing and not run.record.deferred and not run.record.paused:
        known.idle[run_id] = None
        while len(known.idle) > IDLE_RUNS_KEPT:
            oldest = next(iter(known.idle))
            del known.idle[oldest], known.runs[oldest]
            for place in [place for place in known.orphaned if place[0] == oldest]:
                del known.orphaned[place]
