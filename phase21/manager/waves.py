"""AgentManager: one wave, from its plan to its judgement.

Its one public verb carries a wave out: plan, publish to inboxes, wait at the barrier, settle. In between it gives a new
agent to what was left behind, and another go to what failed. A workflow's wave is left to `dispatch`. It holds no agents and
judges nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from phase21.domain import events as ev
from phase21.domain.plans import CRITICAL_PATH, Assignment, Choice
from phase21.domain.records import AgentRecord, TaskRecord, WaveRecord
from phase21.domain.settings import CurrentSettings
from phase21.domain.tasks import FINAL, WAITING, TaskStatus
from phase21.manager.desk import Desk
from phase21.manager.dispatch import Dispatch
from phase21.manager.readiness import goes
from phase21.manager.waiting import Came
from phase21.messaging.inbox import Inbox
from phase21.planning import takeovers
from phase21.planning.choices import again
from phase21.planning.forecast import Forecast
from phase21.planning.planner import next_best, plan, replacement
from phase21.planning.registry import ADAPTIVE, chosen
from phase21.planning.strategies import Terms
from phase21.store.journal import Journal


class AgentManager:
    """Plans waves and publishes their tasks."""

    def __init__(self, journal: Journal, inboxes: Mapping[str, Inbox], settings: CurrentSettings) -> None:
        self._journal = journal
        self._ledger = journal.ledger
        self._settings = settings
        self._desk = Desk(journal, inboxes, settings)
        self.times = self._desk.times

    def stop(self) -> None:
        """Give out nothing more."""
        self._desk.stopping = True

    async def carry_out(self, run_id: str, number: int) -> None:
        """Take an opened wave to its judgement, durable, from wherever it stands; return early when stopping."""
        wave = self._ledger.wave(run_id, number)
        self.cancel_waiting(wave)
        self.times.fail_late(wave, wave.tasks)
        dispatch = Dispatch(self._desk, wave) if self._dispatched(wave) else None
        if wave.planned is None:
            self._begin(wave, dispatch) if dispatch is not None else self._plan(wave)
        await self._journal.durable()
        async with asyncio.TaskGroup() as group:
            feeders: list[asyncio.Task[None]] = []
            due = dispatch.come if dispatch is not None else self._publisher(wave, group, feeders)
            self.times.open(wave, due, group, feeders)
            await (dispatch.stand(group, feeders) if dispatch is not None else self._stand_at_barrier(wave, group, feeders))
            self.times.close(wave)
            for feeder in feeders:
                feeder.cancel()
        self._desk.forget(wave)
        if wave.pending:
            return
        if wave.settled_us is None:
            self._journal.append(ev.WaveSettled(run_id=run_id, wave=number))
        await self._journal.until(lambda: wave.calibrated)
        await self._journal.durable()

    def cancel_waiting(self, wave: WaveRecord) -> None:
        """Record the end of tasks that were cancelled and are not under way."""
        cancelled = [task_id for task_id, record in wave.tasks.items() if record.cancelling and record.status in WAITING]
        for task_id in cancelled:
            record = wave.tasks[task_id]
            self.times.discard(wave, task_id)
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

    def _dispatched(self, wave: WaveRecord) -> bool:
        """Whether the wave's tasks are given out as they become ready."""
        if wave.planned is not None:
            return wave.planned.strategy == CRITICAL_PATH
        workflow = self._ledger.runs[wave.run_id].record.workflow
        return workflow is not None and self._settings.now.manager.workflow_strategy == CRITICAL_PATH

    def _begin(self, wave: WaveRecord, dispatch: Dispatch) -> None:
        """Record what is expected of a wave whose tasks are given out as they become ready."""
        self._journal.append(
            ev.WavePlanned(
                run_id=wave.run_id,
                wave=wave.number,
                strategy=CRITICAL_PATH,
                num_agents=len(self._ledger.present_agents()),
                num_tasks=len(wave.tasks),
                expected_duration_s=dispatch.expected.expected_s,
                sequential_duration_s=dispatch.expected.sequential_s,
                load_balance=1.0,
            )
        )

    def _plan(self, wave: WaveRecord) -> None:
        started = self._journal.clock.monotonic_s()
        agents = self._ledger.present_agents()
        todo = [record.task for record in wave.tasks.values() if record.agent_id is None and record.status in WAITING]
        strategy, policy = self._strategy(wave)
        made = plan(
            todo, agents, forecast=self._desk.forecast(wave), strategy=strategy, loads=_loads(wave), terms=self._terms(wave)
        )
        planning_s = self._journal.clock.monotonic_s() - started
        self._desk.assign(wave, strategy, made.assignments, made.choices)
        for unplaced in made.unplaced:
            self._desk.fail_unplaced(wave, unplaced.task_id, unplaced.reason)
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
        run, settings = self._ledger.runs[wave.run_id].record, self._settings.now.manager
        strategy = settings.strategy if run.workflow is None else settings.workflow_strategy
        return (chosen(run.strategies), ADAPTIVE) if strategy == ADAPTIVE else (strategy, "")

    def _terms(self, wave: WaveRecord) -> Terms:
        settings = self._settings.now
        return Terms(
            slack=settings.manager.slack,
            max_attempts=settings.retry.policy().attempts_allowed(None),
            exploration=settings.learning.exploration if settings.learning.enabled else 0.0,
            seed=f"{settings.handlers.seed}/{wave.run_id}/{wave.number}",
        )

    # -- publishing and the barrier ----------------------------------------------------------------------------------

    def _publisher(self, wave: WaveRecord, group: asyncio.TaskGroup, feeders: list[asyncio.Task[None]]) -> Came:
        """What delivers tasks once they are due."""
        return lambda task_ids: self._desk.publish(wave, [wave.tasks[task_id] for task_id in task_ids], group, feeders)

    async def _stand_at_barrier(self, wave: WaveRecord, group: asyncio.TaskGroup, feeders: list[asyncio.Task[None]]) -> None:
        seen = len(wave.calls)
        records = self._going(wave, wave.tasks.values())
        if self._replace(wave, records):
            await self._journal.durable()
        self._desk.publish(wave, records, group, feeders)
        wakes_at_ends = wave.planned is not None and wave.planned.strategy == takeovers.STRATEGY
        while wave.pending and not self._desk.stopping:
            left = wave.pending if wakes_at_ends else 0
            await self._journal.until(
                lambda seen=seen, left=left: (  # type: ignore[misc]
                    len(wave.calls) > seen or wave.pending < left or not wave.pending or self._desk.stopping
                )
            )
            called = dict.fromkeys(wave.calls[seen:])
            seen = len(wave.calls)
            if wave.pending and not self._desk.stopping:
                records = self._going(wave, [wave.tasks[task_id] for task_id in called])
                moved = self._replace(wave, records)
                taken = self._take_over(wave) if wakes_at_ends else []
                if moved or taken:
                    await self._journal.durable()
                self._desk.publish(wave, [*records, *taken], group, feeders)

    def _going(self, wave: WaveRecord, records: Iterable[TaskRecord]) -> list[TaskRecord]:
        """Those of them that wait and are to be done, as far as that is decided: tasks of a workflow may not be."""
        flow = self._ledger.runs[wave.run_id].record.workflow
        if flow is None:
            return list(records)
        return [record for record in records if record.status in WAITING and goes(self._journal, flow, wave, record)]

    def _take_over(self, wave: WaveRecord) -> list[TaskRecord]:
        """Give idle agents what is expected to end sooner with them; the tasks that moved."""
        agents, forecast = self._ledger.present_agents(), self._desk.forecast(wave)
        moves = takeovers.takeovers(wave, agents, forecast, self._journal.clock.now_us())
        loads = _waiting_loads(wave) if moves else {}
        for record, agent in moves:
            task = record.task
            rates = {other.agent_id: forecast.predicted(task, other.agent_id) for other in agents}
            assignment = Assignment(task.task_id, agent.agent_id, rates[agent.agent_id], task.raw_prediction(agent.agent_id))
            why = again(task, agent.agent_id, rates, forecast, loads, "takeover")
            self._desk.assign(wave, takeovers.STRATEGY, (assignment,), (why,), moved=True)
        return [record for record, _ in moves]

    def _replace(self, wave: WaveRecord, records: Iterable[TaskRecord]) -> bool:
        """Give another agent to what has none at work, or failed and may do better elsewhere. Whether anything was assigned."""
        at_work = self._desk.at_work()
        homeless = [
            record
            for record in records
            if record.status in WAITING and (record.agent_id not in at_work or record.elsewhere or record.reconsider)
        ]
        if not homeless:
            return False
        agents, forecast, loads = self._ledger.present_agents(), self._desk.forecast(wave), _waiting_loads(wave)
        fresh: list[tuple[Assignment, Choice]] = []
        moved: list[tuple[Assignment, Choice]] = []
        for record in homeless:
            given = self._reassigned(record, agents, forecast, loads, at_work)
            if given is not None:
                agent_id = given[0].agent_id
                loads[agent_id] = loads.get(agent_id, 0) + 1
                (fresh if record.agent_id is None else moved).append(given)
            elif not any(agent.able(record.task) for agent in agents):
                self._desk.fail_unplaced(wave, record.task.task_id, "no agent that is configured now can do it")
        strategy = self._settings.now.manager.strategy
        for batch, is_moved in ((fresh, False), (moved, True)):
            self._desk.assign(wave, strategy, tuple(one for one, _ in batch), tuple(why for _, why in batch), moved=is_moved)
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
