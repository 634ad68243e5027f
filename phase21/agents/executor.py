"""One task's life with an agent: gates, one attempt, and what follows from how it ended.

Called by the agent for each delivery. It records facts and never decides where a retry goes: that is the manager's.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from phase21 import gates
from phase21.agents.limits import Limits
from phase21.agents.resources import Resources
from phase21.domain import events as ev
from phase21.domain.errors import InputRefused
from phase21.domain.judgements import Ruling, Verdict
from phase21.domain.records import AgentRecord, TaskRecord
from phase21.domain.recovery import NOT_AGAIN, after_interruption, missed_deadline
from phase21.domain.references import ReferenceFault, marked, references, resolved
from phase21.domain.runs import Run
from phase21.domain.settings import CurrentSettings, Reassign
from phase21.domain.tasks import FINAL, Attempt, Outcome, Task, TaskStatus
from phase21.engines.engine import Engine, Engines
from phase21.evaluation.anomalies import safety_violation
from phase21.intake.workflows import SPAWN, checked_spawn
from phase21.messaging.inbox import Delivery
from phase21.store import codec
from phase21.store.clock import MICROS, iso
from phase21.store.journal import Journal

ERROR_CHARS = 2000
LEAST_S = 0.001
HANDLER = "handler"
"""What stands for a gate where a handler itself asks for approval."""

NOTHING_SPAWNED: tuple[Task, ...] = ()
CANCELLED = Outcome(success=False, error_msg="cancelled")
INTERRUPTED = Outcome(success=False, error_msg="interrupted")
STUCK = Outcome(success=False, error_msg="stuck", timed_out=True)


class AgentExecutor:
    """Carries out deliveries.

    `suspects` are waves that a crash left open: their attempts are durable before they start. `own_gates` are users' own,
    asked after the six.
    """

    def __init__(
        self,
        journal: Journal,
        engines: Engines,
        settings: CurrentSettings,
        resources: Resources,
        group: asyncio.TaskGroup,
        dice: random.Random,
        suspects: frozenset[tuple[str, int]] = frozenset(),
        own_gates: Mapping[str, gates.Gate] = MappingProxyType({}),
    ) -> None:
        self.stopping = False
        self._journal = journal
        self._ledger = journal.ledger
        self._engines = engines
        self._settings = settings
        self._resources = resources
        self._group = group
        self._dice = dice
        self._suspects = suspects
        self._clock = journal.clock
        self._running: dict[tuple[str, str], asyncio.Task[Outcome]] = {}
        self._cuts: dict[tuple[str, str], Outcome] = {}
        self._gates = (*gates.GATES, *own_gates.items())
        self.limits = Limits(journal.ledger, settings, journal.clock)

    # -- one delivery ------------------------------------------------------------------------------------------------

    async def execute(self, agent: AgentRecord, delivery: Delivery) -> Outcome | None:
        """Make one attempt. None where none was made: the delivery was stale, or the gates did not approve."""
        wave, record = delivery.wave, delivery.record
        journal = self._journal
        if journal.strained:
            await journal.available()
        if not (self._admitted(agent, delivery) or await self._wait_at_gate(agent, delivery)):
            return None
        attempt, by_deadline = self._attempt(agent, delivery)
        task = attempt.task
        journal.append(
            ev.AttemptStarted(
                run_id=delivery.run_id,
                wave=wave.number,
                task_id=task.task_id,
                agent_id=agent.agent_id,
                attempt=delivery.attempt,
                confidence=record.predicted,
            )
        )
        outcome, spawned = None, NOTHING_SPAWNED
        if not task.idempotent or task.compensate is not None or self._suspects:
            outcome = await self._durably_begun(delivery, task)
        started = self._clock.monotonic_s()
        engine = self._engines.of(task.kind)
        instant = getattr(engine, "instant", None)
        if outcome is None and instant is not None:
            outcome = instant(attempt)
        if outcome is None:
            with self.limits.under_way(task):
                outcome = await self._perform(engine, attempt, by_deadline=by_deadline)
            if outcome.success:
                outcome, spawned = self._asked_for(delivery, outcome)
        self._settle(attempt, record, outcome, self._clock.monotonic_s() - started, spawned)
        return outcome

    def _attempt(self, agent: AgentRecord, delivery: Delivery) -> tuple[Attempt, bool]:
        """The attempt as an engine sees it, and whether it is the task's deadline that ends it."""
        record = delivery.record
        task = delivery.task or record.task
        timeout_s = whole_s = task.timeout_s or self._settings.now.handlers.default_timeout
        if record.deadline_us is not None:
            timeout_s = min(whole_s, max((record.deadline_us - self._clock.now_us()) / MICROS, LEAST_S))
        attempt = Attempt(
            run_id=delivery.run_id,
            wave=delivery.wave.number,
            task=task,
            agent_id=agent.agent_id,
            number=delivery.attempt,
            predicted=record.raw,
            timeout_s=timeout_s,
        )
        return attempt, timeout_s < whole_s

    async def _durably_begun(self, delivery: Delivery, task: Task) -> Outcome | None:
        """Have the start of what may not be begun unseen stand on the disk; how it ends where it was cancelled meanwhile."""
        suspect = (delivery.run_id, delivery.wave.number) in self._suspects
        if task.idempotent and task.compensate is None and not suspect:
            return None
        with self.limits.under_way(task):
            await self._journal.durable()
        return CANCELLED if delivery.record.cancelling else None

    async def proven(self, agent: AgentRecord) -> None:
        """Wait while an agent is on probation with the one task that it may have."""
        await self._journal.until(lambda: not (agent.probation and agent.busy))

    # -- gates -------------------------------------------------------------------------------------------------------

    def _wanted(self, agent: AgentRecord, delivery: Delivery) -> bool:
        """Whether the attempt is still to be made now. A paused run's tasks are called again when it resumes."""
        record = delivery.record
        if self.stopping or not delivery.current(agent.agent_id):
            return False
        if record.cancelling:
            self._journal.append(
                ev.TaskCancelled(
                    run_id=delivery.run_id,
                    wave=delivery.wave.number,
                    task_id=record.task.task_id,
                    agent_id=agent.agent_id,
                    attempt=record.attempts,
                )
            )
            return False
        if record.deadline_us is not None and record.deadline_us <= self._clock.now_us():
            self._journal.append(missed_deadline(delivery.run_id, delivery.wave.number, record, iso(record.deadline_us)))
            return False
        return not (record.paused or self._ledger.runs[delivery.run_id].record.paused)

    def _admitted(self, agent: AgentRecord, delivery: Delivery) -> bool:
        """Whether the gates approve at once."""
        if not self._wanted(agent, delivery):
            return False
        verdict = self._verdict(agent, delivery)
        if verdict is gates.APPROVED:
            return True
        self._refuse(agent, delivery, verdict)
        return False

    async def _wait_at_gate(self, agent: AgentRecord, delivery: Delivery) -> bool:
        """Look again until a passing cause has passed; False where there is none, or something else decided."""
        while delivery.record.held_by is not None and self._wanted(agent, delivery):
            verdict = self._verdict(agent, delivery)
            if verdict is gates.APPROVED:
                return True
            if verdict.wait_s is None:
                self._refuse(agent, delivery, verdict)
                return False
            if verdict.aside and self.limits.park(agent.agent_id, delivery, verdict.wait_s):
                return False
            await self._journal.clock.sleep(max(verdict.wait_s, 0.001))
            await self._journal.available()
        return False

    def _verdict(self, agent: AgentRecord, delivery: Delivery) -> Verdict:
        record = delivery.record
        settings = self._settings.now
        safety = settings.safety
        run = self._ledger.runs[delivery.run_id]
        resources, now, rate_limit = self._resources, self._clock.monotonic_s(), safety.rate_limit
        if now >= resources.look_again:
            resources.look(now)
        task, totals = record.task, run.record
        # Up to fifteen arguments by name: of more Python makes a dict, which takes as long as all six gates.
        circumstances = gates.Circumstances(
            task=task,
            agent=agent,
            confidence=record.predicted,
            approved=record.approved,
            kind_refusal=self._refusal(run, delivery) if task.depends_on and marked(task.payload) else self._engines.refusal(task),
            free_disk_mb=resources.free_disk_mb,
            free_memory_mb=resources.free_memory_mb,
            unmet=self._unmet(run, delivery) if task.depends_on and totals.workflow is None else (),
            rate_wait_s=resources.rate_wait_s(now) if rate_limit else 0.0,
            tasks_started=totals.tasks_started,
            first_attempt=record.attempts == 0,
            run_seconds=self._run_seconds(totals.first_start_us) if safety.max_run_seconds else 0.0,
            blocking=_blocking(totals.last_anomalies, agent, safety.blocking_anomalies) if totals.last_anomalies else (),
            dry_run=settings.execution.dry_run,
            safety=safety,
        )
        if settings.limits:
            circumstances.limited = self.limits.refusal(task, agent.agent_id, now)
        verdict = gates.decide(circumstances, self._gates)
        if (rate_limit or settings.limits) and verdict is gates.APPROVED:
            self.limits.count_start(task, agent.agent_id, now)
            if rate_limit:
                resources.count_start(now, rate_limit)
        return verdict

    def _refusal(self, run: Run, delivery: Delivery) -> str | None:
        """Why no handler may run a task that takes something from others; what it takes is put in its place."""
        task = delivery.record.task
        if delivery.task is None:
            try:
                asked = {reference.task: run.became(reference.task, delivery.wave) for reference in references(task.payload)}
                known = {task_id: outcome for task_id, outcome in asked.items() if outcome is not None}
                delivery.task = msgspec.structs.replace(task, payload=resolved(task.payload, known))
            except ReferenceFault as fault:
                return str(fault)
        return self._engines.refusal(delivery.task or task)

    def _asked_for(self, delivery: Delivery, outcome: Outcome) -> tuple[Outcome, tuple[Task, ...]]:
        """The further tasks that a task of a workflow asks for; where it asks for what it may not, it has failed."""
        run = self._ledger.runs[delivery.run_id]
        flow = run.record.workflow
        if flow is None or not isinstance(outcome.result, dict) or SPAWN not in outcome.result:
            return outcome, NOTHING_SPAWNED
        try:
            known = {*delivery.wave.tasks, *run.where, *run.record.upstream, *(task.task_id for task in flow.spawned)}
            return outcome, checked_spawn(outcome.result, delivery.record.task, flow, known)
        except InputRefused as refused:
            return Outcome(success=False, permanent=True, error_msg=f"spawn refused: {refused}"), NOTHING_SPAWNED

    def _run_seconds(self, first_start_us: int | None) -> float:
        return (self._journal.clock.now_us() - first_start_us) / 1e6 if first_start_us else 0.0

    def _unmet(self, run: Run, delivery: Delivery) -> tuple[tuple[str, str], ...]:
        """What a plain task depends on and is not COMPLETED; of a workflow's that was decided when the last of them had ended."""
        statuses = ((needed, self._ledger.dependency(run, delivery.wave, needed)) for needed in delivery.record.task.needs())
        return tuple((needed, status) for needed, status in statuses if status != TaskStatus.COMPLETED)

    def _refuse(self, agent: AgentRecord, delivery: Delivery, verdict: Verdict) -> None:
        record = delivery.record
        place: dict[str, Any] = {
            "run_id": delivery.run_id,
            "wave": delivery.wave.number,
            "task_id": record.task.task_id,
            "agent_id": agent.agent_id,
            "attempt": delivery.attempt,
            "gate": verdict.gate or "",
            "confidence": record.predicted,
        }
        if verdict.ruling is Ruling.REJECTED:
            self._journal.append(ev.TaskFailed(error_msg=f"safety: {verdict.reason}", **place))
            anomaly = safety_violation(
                agent.agent_id, delivery.wave.number, record.task.task_id, verdict.gate or "", verdict.reason
            )
            self._journal.append(ev.AnomalyRaised(run_id=delivery.run_id, anomaly=anomaly))
        elif verdict.wait_s is None:
            self._journal.append(ev.TaskDeferred(reason=verdict.reason, **place))
        elif record.held_by != verdict.gate:
            self._journal.append(ev.TaskHeld(reason=verdict.reason, **place))

    # -- one attempt -------------------------------------------------------------------------------------------------

    async def _perform(self, engine: Engine, attempt: Attempt, *, by_deadline: bool = False) -> Outcome:
        key = (attempt.run_id, attempt.task.task_id)
        child = self._group.create_task(_guarded(engine, attempt), name=f"attempt {key}")
        self._running[key] = child
        try:
            done, _ = await asyncio.wait((child,), timeout=attempt.timeout_s)
            if done:
                return self._cuts.pop(key, INTERRUPTED) if child.cancelled() else child.result()
            child.cancel()
            done, _ = await asyncio.wait((child,), timeout=self._settings.now.agents.stuck_after)
            if not done:
                return STUCK
            if key in self._cuts:
                return self._cuts.pop(key)
            if by_deadline:
                said = f"deadline: cut short after {attempt.timeout_s:g} s, which were left"
                return Outcome(success=False, error_msg=said, permanent=True)
            return self._timed_out(engine, attempt)
        finally:
            self._running.pop(key, None)
            self._cuts.pop(key, None)
            child.cancel()

    @staticmethod
    def _timed_out(engine: Engine, attempt: Attempt) -> Outcome:
        abandoned = getattr(engine, "abandoned", None)
        left = abandoned(attempt) if abandoned is not None else None
        message = f"timed out after {attempt.timeout_s:g} s" + (f"; {left}" if left else "")
        return Outcome(success=False, error_msg=message, timed_out=True)

    def cut_short(self, cut: Outcome, *, only_cancelling: bool = False) -> None:
        """End attempts under way: all of them, or those whose task was cancelled."""
        for key, child in self._running.items():
            run_id, task_id = key
            run = self._ledger.runs[run_id]
            record = run.waves[run.where[task_id]].tasks[task_id]
            if not only_cancelling or record.cancelling:
                self._cuts[key] = cut
                child.cancel()

    # -- what follows ------------------------------------------------------------------------------------------------

    def _settle(self, attempt: Attempt, record: TaskRecord, outcome: Outcome, duration_s: float, spawned: tuple[Task, ...]) -> None:
        if record.status in FINAL:
            return
        append = self._journal.append
        run_id, wave, task = attempt.run_id, attempt.wave, attempt.task
        if outcome.success:
            append(
                ev.TaskCompleted(
                    run_id=run_id,
                    wave=wave,
                    task_id=task.task_id,
                    agent_id=attempt.agent_id,
                    attempt=attempt.number,
                    duration_s=duration_s,
                    result=outcome.result,
                    spawned=spawned,
                )
            )
        elif outcome is CANCELLED:
            append(
                ev.TaskCancelled(
                    run_id=run_id,
                    wave=wave,
                    task_id=task.task_id,
                    agent_id=attempt.agent_id,
                    attempt=attempt.number,
                    duration_s=duration_s,
                )
            )
        elif outcome is INTERRUPTED:
            append(after_interruption(run_id, wave, record, "the service was stopped"))
        else:
            append(self._after_failure(attempt, record, outcome, duration_s))

    def _after_failure(
        self, attempt: Attempt, record: TaskRecord, outcome: Outcome, duration_s: float
    ) -> ev.AttemptFailed | ev.TaskFailed | ev.TaskDeferred:
        task = attempt.task
        if outcome.needs_approval is not None:
            return _awaiting_approval(attempt, record, outcome.needs_approval)
        reassign, policy = self._settings.now.retry.reassign, self._settings.now.retry.policy()
        failures = attempt.number - record.interruptions
        error_msg = (outcome.error_msg or "failed")[:ERROR_CHARS]
        if outcome is STUCK:
            error_msg = f"timed out after {attempt.timeout_s:g} s and could not be ended"
        once_only = outcome.timed_out and not task.idempotent
        last = failures >= policy.attempts_allowed(task.max_attempts) or once_only or outcome.permanent
        delay_s = 0.0
        if not last:
            delay_s = policy.delay_after(failures, self._dice) if outcome.retry_after_s is None else outcome.retry_after_s
            last = record.deadline_us is not None and self._clock.now_us() + delay_s * MICROS >= record.deadline_us
            error_msg = f"deadline: no time is left for another attempt; the last: {error_msg}" if last else error_msg
        if last:
            return ev.TaskFailed(
                run_id=attempt.run_id,
                wave=attempt.wave,
                task_id=task.task_id,
                agent_id=attempt.agent_id,
                attempt=attempt.number,
                error_msg=f"interrupted ({error_msg}): {NOT_AGAIN}" if once_only else error_msg,
                duration_s=duration_s,
                result=outcome.result,
                timed_out=outcome.timed_out,
            )
        return ev.AttemptFailed(
            run_id=attempt.run_id,
            wave=attempt.wave,
            task_id=task.task_id,
            agent_id=attempt.agent_id,
            attempt=attempt.number,
            error_msg=error_msg,
            delay_s=delay_s,
            duration_s=duration_s,
            timed_out=outcome.timed_out,
            elsewhere=outcome.timed_out and task.agent_id is None and reassign is not Reassign.NEVER,
            reconsider=task.agent_id is None and reassign is Reassign.LEARNED,
        )


def _awaiting_approval(attempt: Attempt, record: TaskRecord, reason: str) -> ev.TaskDeferred:
    """The handler asks for a person: once approved, the task is tried again."""
    return ev.TaskDeferred(
        run_id=attempt.run_id,
        wave=attempt.wave,
        task_id=attempt.task.task_id,
        agent_id=attempt.agent_id,
        attempt=attempt.number,
        gate=HANDLER,
        reason=codec.sayable(reason)[:ERROR_CHARS],
        confidence=record.predicted,
    )


_PASSING = frozenset({"agent_offline", "agent_stuck"})


def _blocking(last: Iterable[tuple[str, str | None]], agent: AgentRecord, types: tuple[str, ...]) -> tuple[str, ...]:
    """Blocking ones of the run's last wave's anomalies; an agent's absence is asked of the agent itself."""
    return tuple(kind for kind, who in last if kind in types and kind not in _PASSING and who in {None, agent.agent_id})


async def _guarded(engine: Engine, attempt: Attempt) -> Outcome:
    """An engine's exception is a fact, not the house's trouble; so is an outcome that the journal cannot hold."""
    try:
        outcome = await engine.perform(attempt)
        codec.encode((outcome.result, outcome.error_msg))
    except asyncio.CancelledError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a handler raises is how its attempt ended
        message = codec.sayable(f"{type(error).__name__}: {error}")
        return Outcome(success=False, error_msg=message)
    return outcome
