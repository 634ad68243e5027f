"""The actor: an inbox, and a loop that takes one delivery after another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from phase21.agents.executor import AgentExecutor
from phase21.domain.records import AgentRecord
from phase21.domain.tasks import Outcome
from phase21.messaging.inbox import Delivery, Inbox

DELIVERIES_PER_TURN = 32
"""How many deliveries an agent deals with before it lets others have the loop."""

Ended = Callable[[AgentRecord, Delivery, Outcome], None]


class Agent:
    """One agent. What it holds when it stops stays in the ledger; its inbox is kept over a crash of the loop."""

    __slots__ = ("_ended", "_limits", "executor", "inbox", "record")

    def __init__(self, record: AgentRecord, inbox: Inbox, executor: AgentExecutor, ended: Ended) -> None:
        self.record = record
        self.inbox = inbox
        self.executor = executor
        self._limits = executor.limits
        self._ended = ended

    async def work(self) -> None:
        """Work until cancelled, on as many tasks at a time as the agent's concurrency."""
        if self.record.concurrency == 1:
            await self._loop()
            return
        async with asyncio.TaskGroup() as group:
            for _ in range(self.record.concurrency):
                group.create_task(self._loop())

    async def _loop(self) -> None:
        turn = 0
        while True:
            delivery = self.inbox.take() or await self.inbox.get()
            if self.executor.stopping:
                return
            if self.record.probation and self.record.busy:
                await self.executor.proven(self.record)
            if not self.record.offline:
                try:
                    outcome = await self.executor.execute(self.record, delivery)
                finally:
                    if self._limits.waiting or delivery.age:
                        self._limits.ended(delivery)
                if outcome is not None and outcome.timed_out:
                    self._ended(self.record, delivery, outcome)
            turn += 1
            if turn % DELIVERIES_PER_TURN == 0:
                await asyncio.sleep(0)
