"""AgentManager: one wave, from its plan to its judgement.

Its one public verb carries a wave out: plan, publish to inboxes, wait at the barrier, settle. In between it gives a new
agent to what was left behind, and another go to what failed. It holds no agents and judges nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from phase21.domain import events as ev
from phase21.domain.plans import Assignment, Choice
from phase21.domain.records import AgentRecord, TaskRecord, WaveRecord
from phase21.domain.settings import CurrentSettings
from phase21.domain.tasks import FINAL, TaskStatus
from phase21.evaluation.anomalies import safety_violation
from phase21.messaging.inbox import Delivery, Inbox
from phase21.planning import takeovers
from phase21.planning.choices import again, shared_out
from phase21.planning.forecast import Forecast
from phase21.planning.planner import next_best, plan, replacement
from phase21.planning.registry import ADAPTIVE, chosen
from phase21.planning.strategies import Terms
from phase21.store.journal import Journal

ASSIGNMENTS_PER_ENTRY = 1000
_WAITING = frozenset({TaskStatus.PENDING, TaskStatus.RETRYING})


class AgentManager:
    """Plans waves and publishes their tasks."""

    def __init__(self, journal: Journal, inboxes: Mapping[str, Inbox], settings: CurrentSettings) -> None:
        self.stopping = False
        self._journal = journal
        self._ledger = journal.ledger
        self._inboxes = inboxes
        self._settings = settings
        self._forecasts: dict[tuple[str, int], tuple[tuple[int, bool], Forecast]] = {}

    async def carry_out(self, run_id: str, number: int) -> None:
        """Take an opened wave to its judgement, durable, from wherever it stands; return early when stopping."""
        wave = self._ledger.wave(run_id, number)
        self.cancel_waiting(wave)
        if wave.planned is None:
            self._plan(wave)
        await self._journal.durable()
        async with asyncio.TaskGroup() as group:
            feeders: list[asyncio.Task[None]] = []
            await self._stand_at_barrier(wave, group, feeders)
            for feeder in feeders:
                feeder.cancel()
        self._forecasts.pop((run_id, number), None)
        if wave.pending:
            return
        if wave.settled_us is None:
            self._journal.append(ev.WaveSettled(run_id=run_id, wave=number))
        await self._journal.until(lambda: wave.calibrated)
        await self._journal.durable()

    def cancel_waiting(self, wave: WaveRecord) -> None:
        """Record the end of tasks that were cancelled and are not under way."""
        cancelled = [task_id for task_id, record in wave.tasks.items() if record.cancelling and record.status in _WAITING]
        for task_id in cancelled:
            record = wave.tasks[task_id]
            self._journal.append(
                ev.TaskCancelled(
                    run_id=wave.run_id,
                    wave=wave.number,
                    task_id=task_id,
                    agent_id=record.agent_id,
                    attempt=record.attempts,
                )
            )

    # -- planning ----------------------------------------------------------------------------------------------------

    def _forecast(self, wave: WaveRecord) -> Forecast:
        """What is expected of the wave's tasks; made again only when there is something to make it from that was not there."""
        ledger, enabled = self._ledger, self._settings.now.learning.enabled
        place, known = (wave.run_id, wave.number), (ledger.lessons, enabled)
        held = self._forecasts.get(place)
        if held is None or held[0] != known:
            forecast = Forecast(ledger.present_agents(), enabled=enabled, evidence=ledger.evidence)
            forecast.prepare([record.task for record in wave.tasks.values()])
            held = self._forecasts[place] = (known, forecast)
        return held[1]

    def _plan(self, wave: WaveRecord) -> None:
        started = self._journal.clock.monotonic_s()
        agents = self._ledger.present_agents()
        todo = [record.task for record in wave.tasks.values() if record.agent_id is None and record.status in _WAITING]
        strategy, policy = self._strategy(wave)
        made = plan(todo, agents, forecast=self._forecast(wave), strategy=strategy, loads=_loads(wave), terms=self._terms(wave))
        planning_s = self._journal.clock.monotonic_s() - started
        self._assign(wave, strategy, made.assignments, made.choices)
        for unplaced in made.unplaced:
            self._fail_unplaced(wave, unplaced.task_id, unplaced.reason)
        self._journal.append(
            ev.WavePlanned(
                run_id=wave.run_id,
                wave=wave.number,
                strategy=strategy,
                num_agents=len(agents),
                num_tasks=len(wave.tasks),
                expected_duration_s=made.expected_duration_s,
                sequential_duration_s=made.sequential_duration_s,
                load_balance=made.load_balance,
                planning_s=planning_s,
                policy=policy,
            )
        )

    def _strategy(self, wave: WaveRecord) -> tuple[str, str]:
        """The strategy that deals the wave, and what chose it where that is not the configuration."""
        strategy = self._settings.now.manager.strategy
        return (chosen(self._ledger.runs[wave.run_id].record.strategies), ADAPTIVE) if strategy == ADAPTIVE else (strategy, "")

    def _terms(self, wave: WaveRecord) -> Terms:
        settings = self._settings.now
        return Terms(
            slack=settings.manager.slack,
            max_attempts=settings.retry.policy().attempts_allowed(None),
            exploration=settings.learning.exploration if settings.learning.enabled else 0.0,
            seed=f"{settings.handlers.seed}/{wave.run_id}/{wave.number}",
        )

    def _assign(
        self,
        wave: WaveRecord,
        strategy: str,
        assignments: tuple[Assignment, ...],
        choices: tuple[Choice, ...],
        *,
        moved: bool = False,
    ) -> None:
        for start in range(0, len(assignments), ASSIGNMENTS_PER_ENTRY):
            part = assignments[start : start + ASSIGNMENTS_PER_ENTRY]
            self._journal.append(
                ev.TasksAssigned(
                    run_id=wave.run_id,
                    wave=wave.number,
                    strategy=strategy,
                    assignments=part,
                    moved=moved,
                    choices=choices if len(part) == len(assignments) else shared_out(choices, part),
                )
            )

    def _fail_unplaced(self, wave: WaveRecord, task_id: str, reason: str) -> None:
        self._journal.append(
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
        self._journal.append(ev.AnomalyRaised(run_id=wave.run_id, anomaly=anomaly))

    # -- publishing and the barrier ----------------------------------------------------------------------------------

    async def _stand_at_barrier(self, wave: WaveRecord, group: asyncio.TaskGroup, feeders: list[asyncio.Task[None]]) -> None:
        seen = len(wave.calls)
        if self._replace(wave, wave.tasks.values()):
            await self._journal.durable()
        self._publish(wave, wave.tasks.values(), group, feeders)
        wakes_at_ends = wave.planned is not None and wave.planned.strategy == takeovers.STRATEGY
        while wave.pending and not self.stopping:
            left = wave.pending if wakes_at_ends else 0
            await self._journal.until(
                lambda seen=seen, left=left: (  # type: ignore[misc]
                    len(wave.calls) > seen or wave.pending < left or not wave.pending or self.stopping
                )
            )
            called = dict.fromkeys(wave.calls[seen:])
            seen = len(wave.calls)
            if wave.pending and not self.stopping:
                records = [wave.tasks[task_id] for task_id in called]
                moved = self._replace(wave, records)
                taken = self._take_over(wave) if wakes_at_ends else []
                if moved or taken:
                    await self._journal.durable()
                self._publish(wave, [*records, *taken], group, feeders)

    def _take_over(self, wave: WaveRecord) -> list[TaskRecord]:
        """Give idle agents what is expected to end sooner with them; the tasks that moved."""
        agents, forecast = self._ledger.present_agents(), self._forecast(wave)
        moves = takeovers.takeovers(wave, agents, forecast, self._journal.clock.now_us())
        loads = _waiting_loads(wave) if moves else {}
        for record, agent in moves:
            task = record.task
            rates = {other.agent_id: forecast.predicted(task, other.agent_id) for other in agents}
            assignment = Assignment(task.task_id, agent.agent_id, rates[agent.agent_id], task.raw_prediction(agent.agent_id))
            why = again(task, agent.agent_id, rates, forecast, loads, "takeover")
            self._assign(wave, takeovers.STRATEGY, (assignment,), (why,), moved=True)
        return [record for record, _ in moves]

    def _replace(self, wave: WaveRecord, records: Iterable[TaskRecord]) -> bool:
        """Give another agent to what has none at work, or failed and may do better elsewhere. Whether anything was assigned."""
        at_work = self._at_work()
        homeless = [
            record
            for record in records
            if record.status in _WAITING and (record.agent_id not in at_work or record.elsewhere or record.reconsider)
        ]
        if not homeless:
            return False
        agents, forecast, loads = self._ledger.present_agents(), self._forecast(wave), _waiting_loads(wave)
        fresh: list[tuple[Assignment, Choice]] = []
        moved: list[tuple[Assignment, Choice]] = []
        for record in homeless:
            given = self._reassigned(record, agents, forecast, loads, at_work)
            if given is not None:
                agent_id = given[0].agent_id
                loads[agent_id] = loads.get(agent_id, 0) + 1
                (fresh if record.agent_id is None else moved).append(given)
            elif not any(agent.able(record.task) for agent in agents):
                self._fail_unplaced(wave, record.task.task_id, "no agent that is configured now can do it")
        strategy = self._settings.now.manager.strategy
        for batch, is_moved in ((fresh, False), (moved, True)):
            self._assign(wave, strategy, tuple(one for one, _ in batch), tuple(why for _, why in batch), moved=is_moved)
        return bool(fresh or moved)

    @staticmethod
    def _reassigned(
        record: TaskRecord, agents: list[AgentRecord], forecast: Forecast, loads: dict[str, int], at_work: set[str | None]
    ) -> tuple[Assignment, Choice] | None:
        """The assignment of a task to another agent, and why; None where there is none, or it is best left where it is.

        Its prediction stays that of a first attempt, which the gates hold against the task's risk: a retry needs no new approval.
        """
        task, failed = record.task, [agent_id for agent_id, _ in record.failures]
        avoid = record.agent_id if record.elsewhere or record.agent_id not in at_work else None
        if record.reconsider:
            other, rates = next_best(task, agents, loads, forecast=forecast, failed=failed, avoid=avoid)
            reason = "retry"
        else:
            other = replacement(task, agents, loads, avoid=avoid)
            rates = {agent.agent_id: forecast.predicted(task, agent.agent_id) for agent in agents} if other else {}
            reason = "moved"
        if other is None or other.agent_id == record.agent_id:
            return None
        predicted = forecast.predicted(task, other.agent_id)
        assignment = Assignment(task.task_id, other.agent_id, predicted, task.raw_prediction(other.agent_id))
        return assignment, again(task, other.agent_id, rates, forecast, loads, reason)

    def _at_work(self) -> set[str | None]:
        """Agents that take deliveries."""
        return {agent.agent_id for agent in self._ledger.present_agents() if not agent.offline}

    def _publish(
        self, wave: WaveRecord, records: Iterable[TaskRecord], group: asyncio.TaskGroup, feeders: list[asyncio.Task[None]]
    ) -> None:
        now_us, at_work = self._journal.clock.now_us(), self._at_work()
        queues: dict[str, list[Delivery]] = {}
        for record in records:
            if record.status not in _WAITING or record.blockers or record.agent_id not in at_work:
                continue
            delivery = Delivery(wave.run_id, wave, record)
            delay_s = (record.due_us - now_us) / 1e6 if record.due_us is not None else 0.0
            if delay_s > 0:
                feeders.append(group.create_task(self._feed_later(record.agent_id or "", delivery, delay_s)))
            else:
                queues.setdefault(record.agent_id or "", []).append(delivery)
        for agent_id, deliveries in queues.items():
            deliveries.sort(key=_priority)
            inbox = self._inboxes[agent_id]
            taken = 0
            while taken < len(deliveries) and inbox.offer(deliveries[taken]):
                taken += 1
            if taken < len(deliveries):
                feeders.append(group.create_task(_feed(inbox, deliveries[taken:])))

    async def _feed_later(self, agent_id: str, delivery: Delivery, delay_s: float) -> None:
        await self._journal.clock.sleep(delay_s)
        await self._inboxes[agent_id].put(delivery)


def _priority(delivery: Delivery) -> int:
    return delivery.record.task.priority


async def _feed(inbox: Inbox, deliveries: list[Delivery]) -> None:
    for delivery in deliveries:
        await inbox.put(delivery)


def _loads(wave: WaveRecord) -> dict[str, tuple[int, float]]:
    """Tasks and estimated seconds that each agent holds already: none but after a crash in the middle of planning."""
    loads: dict[str, tuple[int, float]] = {}
    if not wave.batches:
        return loads
    for record in wave.tasks.values():
        if record.agent_id is not None:
            tasks, seconds = loads.get(record.agent_id, (0, 0.0))
            loads[record.agent_id] = (tasks + 1, seconds + record.task.estimated_duration_s)
    return loads


def _waiting_loads(wave: WaveRecord) -> dict[str, int]:
    """Tasks of the wave that each agent has before it, and that wait for no other."""
    loads: dict[str, int] = {}
    for record in wave.tasks.values():
        ended = record.status in FINAL or record.status is TaskStatus.DEFERRED
        if record.agent_id is not None and not ended and not record.blockers:
            loads[record.agent_id] = loads.get(record.agent_id, 0) + 1
    return loads
