"""What planning a wave ahead and dispatching a workflow's share: forecasts, assignments, deliveries, and what cannot be done.

Used by the other modules of this room. It records and delivers what it is told, and chooses nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from phase21.domain import events as ev
from phase21.domain.plans import Assignment, Choice
from phase21.domain.records import TaskRecord, WaveRecord
from phase21.domain.settings import CurrentSettings
from phase21.domain.tasks import WAITING
from phase21.evaluation.anomalies import safety_violation
from phase21.manager.times import Times
from phase21.messaging.inbox import Delivery, Inbox
from phase21.planning.choices import shared_out
from phase21.planning.forecast import Forecast
from phase21.store.journal import Journal

ASSIGNMENTS_PER_ENTRY = 1000


class Desk:
    """The manager's hands: the journal and the inboxes. `stopping` says that nothing more is to be given out."""

    def __init__(self, journal: Journal, inboxes: Mapping[str, Inbox], settings: CurrentSettings) -> None:
        self.stopping = False
        self.journal = journal
        self.ledger = journal.ledger
        self.settings = settings
        self.times = Times(journal)
        self._inboxes = inboxes
        self._forecasts: dict[tuple[str, int], tuple[tuple[int, bool], Forecast]] = {}

    def forecast(self, wave: WaveRecord) -> Forecast:
        """What is expected of the wave's tasks; made again only when there is something to make it from that was not there."""
        ledger, enabled = self.ledger, self.settings.now.learning.enabled
        place, known = (wave.run_id, wave.number), (ledger.lessons, enabled)
        held = self._forecasts.get(place)
        if held is None or held[0] != known:
            forecast = Forecast(ledger.present_agents(), enabled=enabled, evidence=ledger.evidence)
            forecast.prepare([record.task for record in wave.tasks.values()])
            held = self._forecasts[place] = (known, forecast)
        return held[1]

    def forget(self, wave: WaveRecord) -> None:
        """Drop what was expected of a wave."""
        self._forecasts.pop((wave.run_id, wave.number), None)

    def at_work(self) -> set[str | None]:
        """Agents that take deliveries."""
        return {agent.agent_id for agent in self.ledger.present_agents() if not agent.offline}

    def has(self, record: TaskRecord) -> bool:
        """Whether the task is with an agent that takes deliveries."""
        agent = self.ledger.agents.get(record.agent_id) if record.agent_id is not None else None
        return agent is not None and agent.present and not agent.offline

    # -- recording ---------------------------------------------------------------------------------------------------

    def assign(
        self,
        wave: WaveRecord,
        strategy: str,
        assignments: tuple[Assignment, ...],
        choices: tuple[Choice, ...],
        *,
        moved: bool = False,
    ) -> None:
        """Record who is given what, and why."""
        for start in range(0, len(assignments), ASSIGNMENTS_PER_ENTRY):
            part = assignments[start : start + ASSIGNMENTS_PER_ENTRY]
            self.journal.append(
                ev.TasksAssigned(
                    run_id=wave.run_id,
                    wave=wave.number,
                    strategy=strategy,
                    assignments=part,
                    moved=moved,
                    choices=choices if len(part) == len(assignments) else shared_out(choices, part),
                )
            )

    def fail_unplaced(self, wave: WaveRecord, task_id: str, reason: str) -> None:
        """Record that no configured agent can do a task."""
        self.journal.append(
            ev.TaskFailed(
                run_id=wave.run_id,
                wave=wave.number,
                task_id=task_id,
                error_msg=f"safety: {reason}",
                gate="validation",
                confidence=wave.tasks[task_id].task.predicted_success_rate,
            )
        )
        anomaly = safety_violation(None, wave.number, task_id, "validation", reason)
        self.journal.append(ev.AnomalyRaised(run_id=wave.run_id, anomaly=anomaly))

    # -- delivering --------------------------------------------------------------------------------------------------

    def publish(
        self, wave: WaveRecord, records: Iterable[TaskRecord], group: asyncio.TaskGroup, feeders: list[asyncio.Task[None]]
    ) -> None:
        """Put what waits with an agent that is at work into its inbox, as there is room; what is paused or not due yet is kept."""
        now_us, at_work = self.journal.clock.now_us(), self.at_work()
        queues: dict[str, list[Delivery]] = {}
        for record in records:
            if record.status not in WAITING or record.blockers or record.agent_id not in at_work:
                continue
            if record.paused or (record.due_us is not None and record.due_us > now_us):
                self.times.keep(wave, record)
            else:
                queues.setdefault(record.agent_id or "", []).append(Delivery(wave.run_id, wave, record))
        for agent_id, deliveries in queues.items():
            deliveries.sort(key=_priority)
            inbox = self._inboxes[agent_id]
            taken = 0
            while taken < len(deliveries) and inbox.offer(deliveries[taken]):
                taken += 1
            if taken < len(deliveries):
                feeders.append(group.create_task(_feed(inbox, deliveries[taken:])))


def _priority(delivery: Delivery) -> int:
    return delivery.record.task.priority


async def _feed(inbox: Inbox, deliveries: list[Delivery]) -> None:
    for delivery in deliveries:
        await inbox.put(delivery)
