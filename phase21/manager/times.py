"""What waves wait for besides agents: the time at which a task is due, its deadline, and people who paused it.

Asked by the manager for each wave that it carries out, and by the harness for what is left of one. It keeps nothing that the ledger does
not say, and starts nothing: what is due is handed back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from phase21.domain.records import TaskRecord, WaveRecord
from phase21.domain.recovery import missed_deadline
from phase21.domain.tasks import WAITING, TaskStatus
from phase21.manager.waiting import Came, WaitingRoom
from phase21.store.clock import iso
from phase21.store.journal import Journal


class Times:
    """A waiting room for each wave that is under way."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._rooms: dict[tuple[str, int], tuple[WaitingRoom, asyncio.TaskGroup, list[asyncio.Task[None]]]] = {}

    def open(self, wave: WaveRecord, due: Came, group: asyncio.TaskGroup, feeders: list[asyncio.Task[None]]) -> None:
        """Make a wave's room, and watch its deadlines; `due` is told of what may be tried, and `feeders` takes what works for it."""
        room = WaitingRoom(self._journal.clock, due, lambda task_ids: self.fail_late(wave, task_ids))
        self._rooms[wave.run_id, wave.number] = room, group, feeders
        for record in [record for record in wave.tasks.values() if record.deadline_us is not None]:
            if not record.final:
                room.watch(record.task.task_id, record.deadline_us or 0)
                self._begin(wave)

    def close(self, wave: WaveRecord) -> None:
        """Forget a wave."""
        self._rooms.pop((wave.run_id, wave.number), None)

    def keep(self, wave: WaveRecord, record: TaskRecord) -> None:
        """Let a task wait that is paused or not due yet."""
        room = self._rooms[wave.run_id, wave.number][0]
        if record.paused or record.due_us is None:
            room.pause(record.task.task_id)
        else:
            room.sleep(record.task.task_id, record.due_us, again=record.status is TaskStatus.RETRYING)
            self._begin(wave)
        self._journal.wake()

    def _begin(self, wave: WaveRecord) -> None:
        room, group, feeders = self._rooms[wave.run_id, wave.number]
        if not room.begun:
            room.begun = True
            feeders.append(group.create_task(room.run()))

    # -- what people decide ------------------------------------------------------------------------------------------

    def discard(self, wave: WaveRecord, task_id: str) -> None:
        """Keep a task no longer."""
        place = self._rooms.get((wave.run_id, wave.number))
        if place is not None:
            place[0].discard(task_id)

    def let_go(self, wave: WaveRecord) -> None:
        """Keep no longer what somebody has resumed: the ledger has called it."""
        place = self._rooms.get((wave.run_id, wave.number))
        if place is not None:
            place[0].resume([task_id for task_id in place[0].held() if not wave.tasks[task_id].paused])

    # -- what is left ------------------------------------------------------------------------------------------------

    def sleeps(self, wave: WaveRecord) -> bool:
        """Whether nothing is left of a wave but tasks that are paused or not due yet, and what depends on them."""
        place = self._rooms.get((wave.run_id, wave.number))
        if place is None or not 0 < place[0].asleep + place[0].paused >= wave.pending - wave.blocked:
            return False
        return self._still(wave, place[0])

    def rests(self, wave: WaveRecord) -> bool:
        """The same of tasks that are paused, alone."""
        place = self._rooms.get((wave.run_id, wave.number))
        return place is not None and 0 < place[0].paused >= wave.pending - wave.blocked and self._still(wave, place[0])

    @staticmethod
    def _still(wave: WaveRecord, room: WaitingRoom) -> bool:
        """Whether nobody has resumed or cancelled what is kept as paused."""
        return all(wave.tasks[task_id].paused and not wave.tasks[task_id].cancelling for task_id in room.held())

    # -- deadlines ---------------------------------------------------------------------------------------------------

    def fail_late(self, wave: WaveRecord, task_ids: Iterable[str]) -> None:
        """Record the end of tasks that wait and whose deadline has passed."""
        now_us, records = self._journal.clock.now_us(), map(wave.tasks.__getitem__, task_ids)
        for record in [record for record in records if record.deadline_us is not None]:
            deadline_us = record.deadline_us or 0
            if deadline_us <= now_us and record.status in WAITING:
                self.discard(wave, record.task.task_id)
                self._journal.append(missed_deadline(wave.run_id, wave.number, record, iso(deadline_us)))
