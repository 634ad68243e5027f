"""The timekeeper: makes a run of a schedule each time that it is due, and says which times were missed.

It decides from the ledger and the wall clock alone, by the rules of `planning.recurrence`. The name of a run says when it was due: a
run that is known by that name has fired, whatever was killed before that could be noted.
"""

from __future__ import annotations

import asyncio
import contextlib

from phase21.domain import events as ev
from phase21.domain.schedules import MICROS, ScheduleRecord
from phase21.planning.recurrence import Decision, Step, decide, next_due, run_name
from phase21.store.journal import Journal

LOOK_S = 60.0
"""The wall clock is looked at this often at least: it may jump."""

AT_ONCE_MOST = 100
"""How many decisions are made before others have the loop, and what was decided is durable."""

OPEN_TASKS_MOST = 1_000_000


class Timekeeper:
    """Fires the ledger's schedules."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._ledger = journal.ledger
        self._next: dict[str, tuple[int, int | None]] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Fire what comes due until `stop` is set; take note of what happens until cancelled, as others wait for that."""
        news = self._journal.follow("timekeeper", ev.ScheduleAccepted, ev.ControlReceived, ev.OutputsWritten, ev.WorkflowChanged)
        while True:
            if not stop.is_set():
                await self.catch_up(self._journal.clock.now_us())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if stop.is_set() else self._rest_s()):
                    await anext(news)

    async def catch_up(self, now_us: int) -> int:
        """Decide all that was due at a moment and can be decided now; how many runs were made of it."""
        fired = 0
        while steps := self._look(now_us):
            fired += sum(step is Step.FIRE for step in steps)
            await self._journal.durable()
            await self._journal.available()
            await self._journal.until(lambda: self._ledger.open_tasks <= OPEN_TASKS_MOST or not self._ledger.under_way)
        return fired

    def _look(self, now_us: int) -> list[Step]:
        """The next decisions, carried out, so many as are made at once; none where nothing is left to decide."""
        made: list[Step] = []
        for schedule in list(self._ledger.schedules.values()):
            while schedule.run_id in self._ledger.schedules and len(made) < AT_ONCE_MOST:
                step = self._step(schedule, now_us)
                if step is None:
                    break
                made.append(step)
        return made

    def _step(self, schedule: ScheduleRecord, now_us: int) -> Step | None:
        """Carry out one decision about a schedule; None where there is none to carry out."""
        due_us = self._due(schedule)
        if schedule.ending or due_us is None:
            return self._end(schedule, schedule.ending or "over")
        if schedule.paused or due_us > now_us:
            return None
        if self._journal.lookup.submission(_firing(schedule, run_name(schedule.run_id, due_us))) is not None:
            return self._note(schedule, due_us)
        busy, freed_us, made_us = self._last(schedule)
        decision = decide(schedule, now_us, busy=busy, freed_us=freed_us, made_us=made_us)
        if decision is None or decision.step is Step.WAIT:
            return None
        return self._fire(schedule, due_us) if decision.step is Step.FIRE else self._miss(schedule, decision)

    def _due(self, schedule: ScheduleRecord) -> int | None:
        """The schedule's next due time; worked out once for each decision."""
        held = self._next.get(schedule.run_id)
        if held is None or held[0] != schedule.decided_us:
            due_us = next_due(schedule.every, schedule.accepted_us, schedule.decided_us)
            held = self._next[schedule.run_id] = (schedule.decided_us, due_us)
        return held[1]

    def _rest_s(self) -> float | None:
        """Seconds until something may be due; None where nothing will be."""
        dues = [due_us for one in self._ledger.schedules.values() if not one.paused and (due_us := self._due(one)) is not None]
        now_us = self._journal.clock.now_us()
        ahead = [due_us - now_us for due_us in dues if due_us > now_us]
        if not dues:
            return None
        return min(LOOK_S, min(ahead) / MICROS) if ahead else LOOK_S

    def _last(self, schedule: ScheduleRecord) -> tuple[bool, int, int]:
        """Whether the run that the schedule made last is under way, when it ended, and when it was made.

        Both are microseconds since 1970, 0 if unknown.
        """
        if schedule.last_run is None:
            return False, 0, 0
        run = self._ledger.runs.get(schedule.last_run)
        if run is not None:
            return not run.idle or bool(run.closing), run.record.end_us or 0, run.record.started_us or 0
        stored = self._journal.lookup.run(schedule.last_run)
        return False, (stored.end_us or 0) if stored is not None else 0, 0

    # -- saying so ---------------------------------------------------------------------------------------------------

    def _fire(self, schedule: ScheduleRecord, due_us: int) -> Step:
        """Make the run, and note it, in one transaction; not where somebody else's run has that name."""
        name = run_name(schedule.run_id, due_us)
        if name in self._ledger.runs or self._journal.lookup.run(name) is not None:
            return self._miss(schedule, Decision(step=Step.MISS, due_us=due_us, through_us=due_us, reason="taken"))
        self._journal.append(
            ev.SubmissionAccepted(
                submission_id=_firing(schedule, name),
                run_id=name,
                waves={1: schedule.tasks},
                metadata=schedule.metadata,
                source="schedule",
                workflow=schedule.workflow,
            )
        )
        return self._note(schedule, due_us)

    def _note(self, schedule: ScheduleRecord, due_us: int) -> Step:
        self._journal.append(ev.ScheduleFired(run_id=schedule.run_id, due_us=due_us, fired=run_name(schedule.run_id, due_us)))
        return Step.FIRE

    def _miss(self, schedule: ScheduleRecord, decision: Decision) -> Step:
        self._journal.append(
            ev.ScheduleMissed(
                run_id=schedule.run_id,
                due_us=decision.due_us,
                through_us=decision.through_us,
                count=decision.count,
                reason=decision.reason,
            )
        )
        return Step.MISS

    def _end(self, schedule: ScheduleRecord, reason: str) -> Step:
        self._journal.append(ev.ScheduleEnded(run_id=schedule.run_id, reason=reason))
        self._next.pop(schedule.run_id, None)
        return Step.MISS


def _firing(schedule: ScheduleRecord, name: str) -> str:
    """The submission id of a firing: the proof that a due time has fired."""
    return f"schedule/{schedule.submission_id}/{name}"
