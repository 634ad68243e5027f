"""A workflow's wave: tasks are given out as they become ready, the most critical first, to the agent where each ends soonest.

Used by `waves` in place of a plan. What it decides it records before it delivers; what it does not know it learns from the ledger.
Killed at any moment, the next one goes on from the wave's record.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from phase21.domain.plans import CRITICAL_PATH, Assignment, Choice
from phase21.domain.records import AgentRecord, TaskRecord, WaveRecord
from phase21.domain.tasks import WAITING
from phase21.manager.desk import Desk
from phase21.manager.expectations import Expectations
from phase21.manager.readiness import goes
from phase21.manager.seats import HELD_S, Lanes, Look
from phase21.planning.choices import GROUPS_MOST, again
from phase21.planning.graphs import LOOKED_AT
from phase21.planning.ready import Ready, key_of

SET_ASIDE = "constraints"
"""The gate that may let an agent work on others meanwhile."""


EXPLAINED_MOST = 10_000
"""In waves of up to so many tasks the journal names the candidates of a choice: of more, it would hold little else."""


Given = tuple[TaskRecord, AgentRecord]
"""A task, and who is to do it."""


class Dispatch:
    """One wave under way."""

    def __init__(self, desk: Desk, wave: WaveRecord) -> None:
        self._desk, self._wave = desk, wave
        self._ledger, self._clock = desk.ledger, desk.journal.clock
        self.expected = Expectations(desk, wave)
        self._ready = Ready()
        self._lanes = Lanes()
        self._came: list[str] = []
        self._seen = 0
        self._left = wave.pending
        self._tried: set[str] = set()
        self._again: dict[int, None] = {}
        self._look_at_s: float | None = None
        self._loads: dict[str, int] = {}
        self._choosy = any(agent.only_kinds for agent in self._ledger.present_agents())

    async def stand(self, group: asyncio.TaskGroup, feeders: list[asyncio.Task[None]]) -> None:
        """Give out what becomes ready until the wave has ended, or nothing more is to be given out."""
        wave, desk = self._wave, self._desk
        self._seen = len(wave.calls)
        self._call(range(len(self.expected.records)))
        while wave.pending and not desk.stopping:
            self._hear()
            given = self._give()
            if given:
                self._record(given)
                await desk.journal.durable()
            records = [*(record for record, _ in given), *(self.expected.records[place] for place in self._again)]
            self._again.clear()
            desk.publish(wave, records, group, feeders)
            await self._change()

    def come(self, task_ids: Sequence[str]) -> None:
        """Take note of tasks that are due now."""
        self._came.extend(task_ids)
        self._desk.journal.wake()

    async def _change(self) -> None:
        """Wait until something has happened that matters, or it is time to look again.

        While agents have brief tasks in stock, that is when half of the stock is used up, or a moment has passed.
        """
        seen, left, stock = self._seen, self._left, self._lanes.surplus(self.expected.agents)
        if stock:
            self._look_at_s = self._clock.monotonic_s() + HELD_S
        delay_s = None if self._look_at_s is None else max(0.0, self._look_at_s - self._clock.monotonic_s())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._desk.journal.until(lambda: self._changed(seen, left, stock))

    def _changed(self, seen: int, left: int, stock: int) -> bool:
        wave = self._wave
        if not wave.pending or self._came or self._desk.stopping:
            return True
        return wave.pending <= left - stock // 2 if stock > 1 else len(wave.calls) > seen or wave.pending < left

    # -- what has become ready ---------------------------------------------------------------------------------------

    def _hear(self) -> None:
        """Take in what has happened: what was called, what is due, what has ended, what has been learned."""
        wave, records, place_of = self._wave, self.expected.records, self.expected.index.__getitem__
        self._left = wave.pending
        came, self._came = self._came, []
        self._call(map(place_of, came))
        while self._seen < len(wave.calls):  # what is skipped calls others
            called = dict.fromkeys(wave.calls[self._seen :])
            self._seen = len(wave.calls)
            self._call(map(place_of, called))
        now_s = self._clock.monotonic_s()
        self._lanes.sweep(records, now_s)
        for place in self._lanes.late(self.expected.agents, now_s):
            if records[place].status in WAITING:
                self._lanes.drop(place)
                self._stand_in_line(place)
        if self.expected.renew():
            self._ready.ranked(self.expected.positions)

    def _call(self, places: Iterable[int]) -> None:
        journal, wave, records = self._desk.journal, self._wave, self.expected.records
        flow = self._ledger.runs[wave.run_id].record.workflow
        stopping = flow is not None and bool(flow.failed)  # only then is what waits for others asked for, too
        for place in places:
            record = records[place]
            if record.blockers and not stopping:
                continue
            if record.status in WAITING and not record.cancelling and goes(journal, flow, wave, record):
                self._called(place, record)

    def _called(self, place: int, record: TaskRecord) -> None:
        """A task waits for no other: it is due later, is with an agent already, or becomes ready."""
        if record.agent_id is None and record.due_us is None and not record.paused:
            self._stand_in_line(place)
        elif record.paused or (record.due_us is not None and record.due_us > self._clock.now_us()):
            self._lanes.drop(place)
            self._desk.times.keep(self._wave, record)
        elif self._desk.has(record) and not (record.elsewhere or record.reconsider):
            if record.held_by == SET_ASIDE:
                self._lanes.drop(place)  # a limit holds it, and its agent is free for others
            elif not self._lanes.holds(place):
                now_s = self._clock.monotonic_s()
                self._lanes.give(record.agent_id or "", place, now_s, now_s, self.expected.seconds(place))
            self._again[place] = None
        else:
            self._lanes.drop(place)
            self._stand_in_line(place)

    def _stand_in_line(self, place: int) -> None:
        """Put a task where it waits for an agent; the first of a step that nobody knows comes early, as all like it gain by that."""
        expected = self.expected
        task, step = expected.records[place].task, expected.steps[place]
        known = True
        if step not in self._tried:
            known = not expected.new(place)
            self._tried.add(step)
        queue = task.agent_id, task.capabilities, task.kind if self._choosy else ""
        self._ready.add(queue, key_of(task.priority, expected.positions[place], place, known=known))

    # -- giving out --------------------------------------------------------------------------------------------------

    def _give(self) -> list[Given]:
        """Give out what is ready, the most critical first, while somebody has room."""
        given: list[Given] = []
        self._look_at_s = None
        if not len(self._ready) or self._ledger.runs[self._wave.run_id].record.paused:
            return given
        self._loads = self._lanes.loads()
        look, waits = Look(self.expected, self._lanes, self._ready, self._clock.monotonic_s()), 0
        most, records = self.expected.most or sys.maxsize, self.expected.records
        while waits < LOOKED_AT and self._lanes.count < most and (front := look.queues.take()) is not None:
            queue, key, place = front
            agent = look.seated(queue, key, place)
            if agent is None:
                waits += 1
            else:
                given.append((records[place], agent))
        look.queues.end()
        self._look_at_s = look.look_at_s
        for record in look.hopeless:
            self._desk.fail_unplaced(self._wave, record.task.task_id, "no agent that is configured now can do it")
        return given

    def _record(self, given: list[Given]) -> None:
        """Record who is given what, and why; what stays with an agent is on record already."""
        fresh = [one for one in given if one[0].agent_id is None]
        others = [one for one in given if one[0].agent_id is not None] if len(fresh) < len(given) else []
        moved = [one for one in others if one[0].agent_id != one[1].agent_id]
        for batch in (fresh, moved):
            if batch:
                made = tuple(map(self._assignment, batch))
                self._desk.assign(self._wave, CRITICAL_PATH, made, self._why(batch), moved=batch is moved)

    def _assignment(self, one: Given) -> Assignment:
        task, agent_id = one[0].task, one[1].agent_id
        return Assignment(task.task_id, agent_id, self.expected.forecast.predicted(task, agent_id), task.raw_prediction(agent_id))

    def _why(self, batch: list[Given]) -> tuple[Choice, ...]:
        """The choices behind a batch; those of tasks that nothing sets apart are one, and where there are many none names candidates."""
        if len(self.expected.records) > EXPLAINED_MOST:
            return (Choice((), (), "soonest"),)
        groups: dict[Any, list[Given]] = {}
        for record, agent in batch:
            task = record.task
            own = task.predictions or task.features or record.failures
            like = task.task_id if own else (agent.agent_id, task.kind, task.predicted_success_rate, task.agent_id)
            groups.setdefault(like, []).append((record, agent))
        if len(groups) > GROUPS_MOST:
            return (Choice((), (), "soonest"),)
        return tuple(self._choice(group) for group in groups.values())

    def _choice(self, group: list[Given]) -> Choice:
        (record, agent), expected = group[0], self.expected
        place = expected.index[record.task.task_id]
        seconds = dict(zip(expected.names, expected.needed_s(place), strict=True))
        rates = dict(zip(expected.names, expected.rates(record), strict=True))
        made = again(record.task, agent.agent_id, rates, expected.forecast, self._loads, _reason(record))
        candidates = [msgspec.structs.replace(one, expected_s=seconds[one.agent_id]) for one in made.candidates]
        tasks = tuple(record.task.task_id for record, _ in group)
        return msgspec.structs.replace(made, tasks=tasks, candidates=tuple(candidates))


def _reason(record: TaskRecord) -> str:
    if record.task.agent_id is not None:
        return "pinned"
    if record.agent_id is None:
        return "soonest"
    return "retry" if record.reconsider else "moved"
