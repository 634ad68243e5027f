"""Engines that the stage can put on, and looks at what the journal holds."""

from __future__ import annotations

import asyncio
from typing import Any

from phase21.domain import events as ev
from phase21.domain.tasks import Attempt, Outcome
from phase21.service.house import House

DONE = Outcome(success=True)
LOST = Outcome(success=False, error_msg="lost")


class Scripted:
    """Does what the script says: a line a task, a word an attempt; the last word holds for all further ones.

    `ok` and `fail` end at once, a number is seconds until success, `hang` waits for its cancellation, `deaf` swallows it.
    """

    def __init__(self, **script: str) -> None:
        self.script = {task_id: line.split() for task_id, line in script.items()}
        self.started: list[tuple[str, str, int]] = []
        self.release = asyncio.Event()
        self.running = 0
        self.most_running = 0

    async def perform(self, attempt: Attempt) -> Outcome:
        task_id = attempt.task.task_id
        self.started.append((task_id, attempt.agent_id, attempt.number))
        words = self.script.get(task_id.replace("-", "_"), ["ok"])
        word = words[min(attempt.number, len(words)) - 1]
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            return await self._play(word)
        finally:
            self.running -= 1

    async def _play(self, word: str) -> Outcome:
        if word == "hang":
            await asyncio.Event().wait()
        elif word == "deaf":
            while not self.release.is_set():
                try:
                    await self.release.wait()
                except asyncio.CancelledError:
                    continue
        elif word == "raise":
            raise RuntimeError("a handler's own trouble")
        elif word not in {"ok", "fail"}:
            await asyncio.sleep(float(word))
        return LOST if word == "fail" else DONE


def put_on(house: House, engine: Any, kind: str = "scripted") -> None:
    """Offer a handler of that kind."""
    engines = house.executor._engines
    engines._engines[kind] = engine
    engines._checks[kind] = getattr(engine, "refusal", None)


def entries(house: House, *kinds: type) -> list[ev.Entry]:
    """The durable entries of some kinds, in order."""
    return [entry for entry in house.journal.lookup.entries() if not kinds or isinstance(entry.event, kinds)]


def of_task(house: House, task_id: str, *kinds: type) -> list[ev.Entry]:
    """The durable entries of some kinds about one task."""
    return [entry for entry in entries(house, *kinds) if getattr(entry.event, "task_id", None) == task_id]


def assigned(house: House, task_id: str) -> list[str]:
    """The agents that a task was given to, in order."""
    return [
        given.agent_id
        for entry in entries(house, ev.TasksAssigned)
        for given in entry.event.assignments
        if given.task_id == task_id
    ]


async def after(house: House, delay_s: float) -> None:
    """Let virtual time pass, then wait until what happened is durable."""
    await asyncio.sleep(delay_s)
    await house.journal.durable()
