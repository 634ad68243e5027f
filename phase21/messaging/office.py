"""The post office: the one door to mail, shared values and locks, and who looks after what waits in vain.

The house makes one, and lets it run; contexts of handlers and the socket ask it.
"""

from __future__ import annotations

import asyncio

from phase21.domain import events as ev
from phase21.messaging.locks import Locks
from phase21.messaging.mail import Mail
from phase21.messaging.shared import Shared
from phase21.store.journal import Journal


class PostOffice:
    """`mail`, `shared` and `locks` of all runs of a journal."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.mail = Mail(journal)
        self.shared = Shared(journal, self.mail)
        self.locks = Locks(journal, self.mail)
        self._returned = journal.follow("post", ev.AttemptFailed, ev.TaskInterrupted)

    async def run(self) -> None:
        """Bury what waits in vain, and give out again what came back, as long as the house stands."""
        self._look_around()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._sweep())
                group.create_task(self._give_again())
        finally:
            self.mail.close()

    def _look_around(self) -> None:
        """After a restart: bury what waits for those that are gone, and expect what has a deadline."""
        for run_id, run in list(self.journal.ledger.runs.items()):
            if run.record.post is not None and run.record.post.mailboxes:
                self.mail.expire(run_id)
                self.mail.sweep(
                    [(run_id, address) for address in list(run.record.post.mailboxes) if self.mail.gone(run_id, address)]
                )

    async def _sweep(self) -> None:
        while True:
            await self.journal.until(lambda: bool(self._vain()))
            self.mail.sweep(self._vain())

    def _vain(self) -> list[tuple[str, str]]:
        """Addresses, each with its run, where something waits that nobody will take."""
        ledger = self.journal.ledger
        if not ledger.orphaned:
            return []
        runs = {run_id: run.record.post for run_id, run in ledger.runs.items()}
        return [
            (run_id, address) for run_id, address in ledger.orphaned if (post := runs.get(run_id)) and address in post.mailboxes
        ]

    async def _give_again(self) -> None:
        async for entry in self._returned:
            if isinstance(entry.event, ev.AttemptFailed | ev.TaskInterrupted):
                self.mail.wake(entry.event.run_id)
