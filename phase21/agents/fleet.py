"""All agents: hired, watched, restarted after a crash, taken offline and tried again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from phase21.agents.agent import Agent
from phase21.agents.executor import CANCELLED, INTERRUPTED, STUCK, AgentExecutor
from phase21.domain import events as ev
from phase21.domain.judgements import Anomaly
from phase21.domain.records import AgentRecord
from phase21.domain.recovery import after_interruption
from phase21.domain.settings import AgentSpec, CurrentSettings
from phase21.domain.tasks import Outcome, TaskStatus
from phase21.evaluation.anomalies import agent_offline, agent_stuck
from phase21.messaging.inbox import Delivery, Inbox
from phase21.store import codec
from phase21.store.journal import Journal

RESTART_DELAY_S = 0.1


class Fleet:
    """The agents of this process. `inboxes` is how the manager reaches them; `own` are those that packages bring."""

    def __init__(
        self,
        journal: Journal,
        executor: AgentExecutor,
        settings: CurrentSettings,
        group: asyncio.TaskGroup,
        own: Sequence[AgentSpec] = (),
    ) -> None:
        self.inboxes: dict[str, Inbox] = {}
        self._journal = journal
        self._executor = executor
        self._settings = settings
        self._group = group
        self._tasks: list[asyncio.Task[None]] = []
        executor.limits.inboxes = self.inboxes
        self._own = own

    def hire(self) -> None:
        """Start every configured agent."""
        for spec in (*self._settings.now.agents.specs(), *self._own):
            self._journal.append(
                ev.AgentJoined(
                    agent_id=spec.id,
                    capabilities=spec.capabilities,
                    concurrency=spec.concurrency,
                    max_tasks=spec.max_tasks_per_wave,
                    only_kinds=spec.kinds,
                )
            )
            inbox = self.inboxes[spec.id] = Inbox(self._settings.now.agents.inbox_size)
            agent = Agent(self._journal.ledger.agents[spec.id], inbox, self._executor, self._timed_out)
            self._tasks.append(self._group.create_task(self._supervise(agent)))

    async def _supervise(self, agent: Agent) -> None:
        while True:
            try:
                await agent.work()
            except Exception as error:  # noqa: BLE001 - an agent's crash is the fleet's to mend
                self._interrupt(agent.record.agent_id)
                said = codec.sayable(f"{type(error).__name__}: {error}")
                self._journal.append(ev.AgentRestarted(agent_id=agent.record.agent_id, error=said))
                await self._journal.clock.sleep(RESTART_DELAY_S)
            else:
                return

    def _interrupt(self, agent_id: str) -> None:
        """Record the end of attempts that the agent's crash left under way."""
        for run in list(self._journal.ledger.runs.values()):
            if run.current is None:
                continue
            for record in run.waves[run.current].tasks.values():
                if record.status is TaskStatus.IN_PROGRESS and record.ran_by == agent_id:
                    self._journal.append(after_interruption(run.run_id, run.current, record, "the agent crashed"))

    async def run(self) -> None:
        """Cut short the attempts of tasks that are cancelled, as long as the house stands."""
        async for _ in self._journal.follow("fleet", ev.ControlReceived):
            self._executor.cut_short(CANCELLED, only_cancelling=True)

    # -- offline -----------------------------------------------------------------------------------------------------

    def _timed_out(self, agent: AgentRecord, delivery: Delivery, outcome: Outcome) -> None:
        settings = self._settings.now.agents
        if agent.offline:
            return
        if outcome is STUCK:
            anomaly = agent_stuck(agent.agent_id, delivery.wave.number, settings.stuck_after)
            self._take_offline(agent, delivery, "stuck", anomaly)
        elif agent.probation or agent.timeouts_in_a_row >= settings.offline_after:
            anomaly = agent_offline(agent.agent_id, delivery.wave.number, agent.timeouts_in_a_row)
            self._take_offline(agent, delivery, "timeouts", anomaly)

    def _take_offline(self, agent: AgentRecord, delivery: Delivery, cause: str, anomaly: Anomaly) -> None:
        agent_id = agent.agent_id
        self._journal.append(
            ev.AgentWentOffline(
                agent_id=agent_id,
                cause=cause,
                run_id=delivery.run_id,
                wave=delivery.wave.number,
                task_id=delivery.record.task.task_id,
            )
        )
        self._journal.append(ev.AnomalyRaised(run_id=delivery.run_id, anomaly=anomaly))
        self.inboxes[agent_id].clear()
        self._tasks = [task for task in self._tasks if not task.done()]
        self._tasks.append(self._group.create_task(self._try_again(agent_id)))

    async def _try_again(self, agent_id: str) -> None:
        await self._journal.clock.sleep(self._settings.now.agents.probation)
        self._journal.append(ev.AgentReturned(agent_id=agent_id))

    # -- stopping ----------------------------------------------------------------------------------------------------

    async def drain(self, timeout_s: float) -> None:
        """Start nothing more, let attempts under way end for a while, cut the rest short, and go."""
        self._executor.stopping = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._journal.until(lambda: not self._busy())
        if self._busy():
            self._executor.cut_short(INTERRUPTED)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.now.agents.stuck_after):
                    await self._journal.until(lambda: not self._busy())
        self.dismiss()

    def _busy(self) -> bool:
        return any(agent.busy for agent in self._journal.ledger.agents.values())

    def dismiss(self) -> None:
        """End every loop."""
        for task in self._tasks:
            task.cancel()
