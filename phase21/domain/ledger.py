"""Everything we know: the fold of the journal.

One method per kind of event, and nothing else ever changes a record. What is open is held here; what is closed is
answered by the store. The fold is strict about order and lenient about repetition: an outcome that is already recorded
stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from phase21.domain import events as ev
from phase21.domain.evidence import Evidence
from phase21.domain.judgements import Calibration, Ruling
from phase21.domain.records import (
    AgentRecord,
    AssignedBatch,
    Decision,
    RunRecord,
    TaskRecord,
    WavePlanFigures,
    WaveRecord,
)
from phase21.domain.runs import Run, own_copy, tally_wave
from phase21.domain.tasks import FINAL, AgentStatus, TaskStatus
from phase21.domain.watching import COURSE_WAVES, Change, changes, course_of, since_change

IDLE_RUNS_KEPT = 64
"""How many runs with nothing to do stay in memory; the store answers for the others."""

PENDING, IN_PROGRESS, RETRYING, DEFERRED, COMPLETED, FAILED, CANCELLED = TaskStatus
APPROVED = Ruling.APPROVED
_WAITING = frozenset({PENDING, RETRYING})
NOTHING = Calibration()


def _credit_strategy(run: RunRecord, wave: WaveRecord) -> None:
    """Count what a strategy that was chosen by another has brought about."""
    if wave.planned is None or not wave.planned.policy:
        return
    attempts, successes = run.strategies.get(wave.planned.strategy, (0, 0))
    attempts += sum(record.attempts for record in wave.tasks.values())
    successes += sum(record.status is COMPLETED for record in wave.tasks.values())
    run.strategies[wave.planned.strategy] = (attempts, successes)


class Snapshot(msgspec.Struct, kw_only=True):
    """The ledger as a value: what a restart begins from."""

    position: int
    at_us: int
    runs: list[Run]
    agents: list[AgentRecord]
    mark: ev.QueueMark | None
    service: ev.ServiceStarted | None
    service_us: int | None
    trusted_boot_id: str = ""
    ready: list[str] = []
    idle: list[str] = []
    evidence: Evidence = msgspec.field(default_factory=Evidence)


class Ledger:
    """The fold of the journal up to `position`. Read it freely; change it only through `fold`.

    `lessons` counts what a forecast is made from: while it stands, so does the forecast.
    """

    def __init__(self) -> None:
        self.position = 0
        self.at_us = 0
        self.runs: dict[str, Run] = {}
        self.agents: dict[str, AgentRecord] = {}
        self.ready: dict[str, None] = {}
        self.idle: dict[str, None] = {}
        self.mark: ev.QueueMark | None = None
        self.service: ev.ServiceStarted | None = None
        self.service_us: int | None = None
        self.trusted_boot_id = ""
        self.evidence = Evidence()
        self.lessons = 0
        self.open_tasks = 0
        self.failed_tasks = 0
        self.under_way = 0
        self._foreseen: tuple[ev.HealthScored, list[Change]] | None = None
        self._folds: dict[type, Callable[[Any], None]] = {
            kind: getattr(self, f"_{kind.__name__}") for kind in ev.AnyEvent.__args__ if hasattr(self, f"_{kind.__name__}")
        }

    # -- reading -----------------------------------------------------------------------------------------------------

    def wave(self, run_id: str, number: int) -> WaveRecord:
        """The record of a wave that is not closed; KeyError where there is none."""
        run = self.runs[run_id]
        return run.waves[number] if number in run.waves else run.closing[number]

    def open_wave(self, run_id: str, number: int) -> WaveRecord | None:
        """The same, None where it is closed or unknown."""
        run = self.runs.get(run_id)
        return (run.waves.get(number) or run.closing.get(number)) if run else None

    def present_agents(self) -> list[AgentRecord]:
        """The configured agents, in their order."""
        return [agent for agent in self.agents.values() if agent.present]

    def agent_status(self, agent: AgentRecord) -> AgentStatus:
        """IDLE, BUSY or OFFLINE."""
        if agent.offline:
            return AgentStatus.OFFLINE
        return AgentStatus.BUSY if agent.busy else AgentStatus.IDLE

    def dependency(self, run: Run, wave: WaveRecord, task_id: str) -> str:
        """The status of a task that another depends on: "" while it is under way, else final or DEFERRED."""
        record = wave.tasks.get(task_id)
        if record is None:
            return run.record.awaited.get(task_id, "")
        return record.status if record.status in FINAL or record.status is DEFERRED else ""

    def changes(self, event: ev.HealthScored) -> list[Change]:
        """What a judgement, once folded in, makes of the tests of its agents and its run; kept for the fold, which asks again."""
        if self._foreseen is None or self._foreseen[0] is not event:
            own = self.runs[event.run_id].record.watches
            seen = [part for part in event.seen if not part.agent_id or part.agent_id in self.agents]
            watches = [self.agents[part.agent_id].watches if part.agent_id else own for part in seen]
            found = changes(seen, watches, run_id=event.run_id, wave=event.wave, false_alarms=event.false_alarms)
            self._foreseen = event, found
        return self._foreseen[1]

    def snapshot(self) -> Snapshot:
        """The ledger as a value that shares its records: encode it before the next fold."""
        return Snapshot(
            position=self.position,
            at_us=self.at_us,
            runs=list(self.runs.values()),
            agents=list(self.agents.values()),
            mark=self.mark,
            service=self.service,
            service_us=self.service_us,
            trusted_boot_id=self.trusted_boot_id,
            ready=list(self.ready),
            idle=list(self.idle),
            evidence=self.evidence,
        )

    @classmethod
    def restored(cls, snapshot: Snapshot) -> Ledger:
        """The ledger that a snapshot was taken of."""
        ledger = cls()
        ledger.position, ledger.at_us, ledger.mark = snapshot.position, snapshot.at_us, snapshot.mark
        ledger.service, ledger.service_us = snapshot.service, snapshot.service_us
        ledger.trusted_boot_id, ledger.evidence = snapshot.trusted_boot_id, snapshot.evidence
        ledger.agents = {agent.agent_id: agent for agent in snapshot.agents}
        for run in snapshot.runs:
            ledger.runs[run.run_id] = run
            ledger.open_tasks += sum(1 for _ in run.open_tasks())
            ledger.under_way += run.current is not None
            for task_id in run.record.deferred:
                wave = run.waves.get(run.where.get(task_id, 0)) or run.closing.get(run.where.get(task_id, 0))
                if wave is not None:
                    run.record.deferred[task_id] = wave.tasks[task_id]
        ledger.ready, ledger.idle = dict.fromkeys(snapshot.ready), dict.fromkeys(snapshot.idle)
        return ledger

    # -- folding -----------------------------------------------------------------------------------------------------

    def fold(self, entry: ev.Entry) -> None:
        """Take in one entry; entries must come in order of position."""
        self.position = entry.position
        self.at_us = entry.at_us
        fold = self._folds.get(type(entry.event))
        if fold is not None:
            fold(entry.event)

    def _sort(self, run: Run) -> None:
        """Put a run where the harness looks: among the ready, the idle, or neither."""
        run_id = run.run_id
        if run.current is None and not run.record.paused and not run.idle and not run.behind:
            self.ready.setdefault(run_id)
        else:
            self.ready.pop(run_id, None)
        self.idle.pop(run_id, None)
        if run.idle and not run.closing and not run.record.deferred and not run.record.paused:
            self.idle[run_id] = None
            while len(self.idle) > IDLE_RUNS_KEPT:
                oldest = next(iter(self.idle))
                del self.idle[oldest], self.runs[oldest]

    def _task(self, event: ev.TaskEvent) -> tuple[Run, WaveRecord, TaskRecord]:
        run = self.runs[event.run_id]
        wave = run.waves[event.wave]
        return run, wave, wave.tasks[event.task_id]

    def _release(self, agent_id: str | None, *, timed_out: bool = False) -> None:
        agent = self.agents.get(agent_id) if agent_id else None
        if agent is None:
            return
        if agent.busy:
            agent.busy -= 1
        agent.timeouts_in_a_row = agent.timeouts_in_a_row + 1 if timed_out else 0
        if agent.probation and not timed_out:
            agent.probation = False
            self._call_homeless(agent.agent_id)

    def _end(self, run: Run, wave: WaveRecord, record: TaskRecord, status: TaskStatus) -> None:
        """The task's part in the wave is over."""
        record.status = status
        record.held_by = None
        record.due_us = None
        wave.pending -= 1
        task_id = record.task.task_id
        if run.record.awaited and task_id in run.record.awaited:
            run.record.awaited[task_id] = status
        if wave.dependents:
            for waiting in wave.dependents.get(task_id, ()):
                dependent = wave.tasks[waiting]
                dependent.blockers -= 1
                if dependent.blockers == 0:
                    wave.calls.append(waiting)
        agent = self.agents.get(record.agent_id) if record.agent_id else None
        if agent is not None and agent.probation:
            self._call_homeless(agent.agent_id)

    def _call_homeless(self, agent_id: str) -> None:
        """Call what waits for this agent, or has none at work: it may take some of it now."""
        for run in self.runs.values():
            if run.current is None:
                continue
            wave = run.waves[run.current]
            for task_id, record in wave.tasks.items():
                waits = record.status in _WAITING and not record.blockers
                if waits and (record.agent_id in {None, agent_id} or self.agents[record.agent_id or ""].offline):
                    wave.calls.append(task_id)

    def _decide(self, event: Any, wave: WaveRecord, record: TaskRecord, ruling: Ruling) -> None:
        wave.decisions.append(
            Decision(
                event.task_id,
                event.agent_id,
                event.attempt,
                ruling,
                event.gate,
                event.reason if ruling is Ruling.DEFERRED else event.error_msg,
                event.confidence,
                record.task.risk_level,
                self.at_us,
            )
        )

    # service, queue and agents

    def _ServiceStarted(self, event: ev.ServiceStarted) -> None:
        self.service, self.service_us = event, self.at_us
        for agent in self.agents.values():
            agent.present = agent.offline = agent.probation = False
            agent.busy = agent.timeouts_in_a_row = 0

    def _ServiceStopped(self, event: ev.ServiceStopped) -> None:
        del event
        self.service = None

    def _OutputsTrusted(self, event: ev.OutputsTrusted) -> None:
        self.trusted_boot_id = event.boot_id

    def _QueueAdvanced(self, event: ev.QueueAdvanced) -> None:
        self.mark = event.mark

    def _SubmissionRepeated(self, event: ev.SubmissionRepeated) -> None:
        self.mark = event.mark or self.mark

    def _SubmissionRejected(self, event: ev.SubmissionRejected) -> None:
        self.mark = event.mark or self.mark

    def _AgentJoined(self, event: ev.AgentJoined) -> None:
        self.lessons += 1
        agent = self.agents.setdefault(event.agent_id, AgentRecord(agent_id=event.agent_id))
        agent.capabilities, agent.concurrency, agent.max_tasks = event.capabilities, event.concurrency, event.max_tasks
        agent.present = True
        del self.agents[event.agent_id]
        self.agents[event.agent_id] = agent

    def _AgentRestarted(self, event: ev.AgentRestarted) -> None:
        self._call_held_by(event.agent_id)

    def _AgentWentOffline(self, event: ev.AgentWentOffline) -> None:
        agent = self.agents[event.agent_id]
        agent.offline, agent.offline_cause, agent.offline_us, agent.probation = True, event.cause, self.at_us, False
        self._call_held_by(event.agent_id)

    def _call_held_by(self, agent_id: str) -> None:
        """Call all that waits with this agent."""
        for run in self.runs.values():
            if run.current is None:
                continue
            wave = run.waves[run.current]
            for task_id, record in wave.tasks.items():
                if record.agent_id == agent_id and record.status in _WAITING:
                    wave.calls.append(task_id)

    def _AgentReturned(self, event: ev.AgentReturned) -> None:
        agent = self.agents[event.agent_id]
        agent.offline, agent.probation, agent.timeouts_in_a_row = False, event.probation, 0
        self._call_homeless(event.agent_id)

    # submissions and controls

    def _recall(self, run_id: str, carried: RunRecord | None) -> Run:
        run = self.runs.get(run_id)
        if run is None:
            fresh = RunRecord(run_id=run_id, first_position=self.position, started_us=self.at_us)
            record = own_copy(carried) if carried else fresh
            record.paused = False  # as its last wave closed it may have been; only what is not paused is put away
            run = self.runs[run_id] = Run(record=record)
        return run

    def _SubmissionAccepted(self, event: ev.SubmissionAccepted) -> None:
        self.mark = event.mark or self.mark
        run = self._recall(event.run_id, event.run)
        for number, tasks in event.waves.items():
            records = {task.task_id: TaskRecord(task=task) for task in tasks}
            run.waves[number] = WaveRecord(
                run_id=event.run_id, number=number, accepted_position=self.position, tasks=records, pending=len(records)
            )
            run.record.highest_wave = max(run.record.highest_wave, number)
            run.record.tasks_accepted += len(records)
            run.where.update(dict.fromkeys(records, number))
            self.open_tasks += len(records)
            for task in tasks:
                for needed in task.depends_on:
                    if needed not in records:
                        known = run.record.deferred.get(needed)
                        run.record.awaited.setdefault(needed, event.settled.get(needed, known.status if known else ""))
        self._sort(run)

    def _ControlReceived(self, event: ev.ControlReceived) -> None:
        self.mark = event.mark or self.mark
        run = self._recall(event.run_id, event.run)
        if event.control == "pause":
            run.record.paused = True
        elif event.control == "resume":
            run.record.paused = False
            if run.current is not None:
                self._call_waiting(run.waves[run.current])
        else:
            for task_id in event.task_ids:
                self._control_task(run, event.control, task_id)
        self._sort(run)

    def _control_task(self, run: Run, control: str, task_id: str) -> None:
        deferred = run.record.deferred.get(task_id)
        if deferred is not None:
            deferred.approved = deferred.approved or control == "approve"
            deferred.cancelling = deferred.cancelling or control == "cancel"
            if task_id not in run.record.carried:
                run.record.carried.append(task_id)
            return
        number = run.where.get(task_id)
        record = run.waves[number].tasks.get(task_id) if number in run.waves else None
        if record is None or record.final:
            return
        record.approved = record.approved or control == "approve"
        record.cancelling = record.cancelling or control == "cancel"

    def _call_waiting(self, wave: WaveRecord) -> None:
        for task_id, record in wave.tasks.items():
            if record.status in _WAITING and not record.blockers:
                wave.calls.append(task_id)

    # waves

    def _WaveOpened(self, event: ev.WaveOpened) -> None:
        run = self.runs[event.run_id]
        wave = run.waves.get(event.wave)
        if wave is None:
            wave = run.waves[event.wave] = WaveRecord(
                run_id=event.run_id, number=event.wave, accepted_position=self.position, tasks={}
            )
        for task_id in event.carried:
            self._carry(run, wave, task_id)
        wave.opened_us = self.at_us
        wave.fleet = [agent.agent_id for agent in self.agents.values() if agent.present]
        run.current = event.wave
        self.under_way += 1
        run.record.started_wave = event.wave
        run.record.highest_wave = max(run.record.highest_wave, event.wave)
        self._count_blockers(wave)
        self._sort(run)

    def _carry(self, run: Run, wave: WaveRecord, task_id: str) -> None:
        record = msgspec.structs.replace(run.record.deferred.pop(task_id))
        run.record.carried.remove(task_id)
        record.status, record.agent_id, record.held_by = PENDING, None, None
        wave.tasks[task_id] = record
        wave.pending += 1
        run.where[task_id] = wave.number
        self.open_tasks += 1

    def _count_blockers(self, wave: WaveRecord) -> None:
        for task_id, record in wave.tasks.items():
            if not record.task.depends_on:
                continue
            inside = [needed for needed in record.task.depends_on if needed in wave.tasks]
            record.blockers = len(inside)
            for needed in inside:
                wave.dependents.setdefault(needed, []).append(task_id)

    def _TasksAssigned(self, event: ev.TasksAssigned) -> None:
        wave = self.runs[event.run_id].waves[event.wave]
        tasks = wave.tasks
        for given in event.assignments:
            record = tasks[given.task_id]
            record.agent_id, record.predicted, record.raw = given.agent_id, given.predicted, given.raw
            record.score, record.elsewhere, record.reconsider = None, False, False
        for choice in event.choices:
            if choice.score is not None:
                for task_id in choice.tasks:
                    tasks[task_id].score = choice.score
        wave.batches.append(AssignedBatch(self.at_us, event.strategy, event.assignments, event.choices))
        if event.moved:
            wave.moved += len(event.assignments)

    def _WavePlanned(self, event: ev.WavePlanned) -> None:
        self.runs[event.run_id].waves[event.wave].planned = WavePlanFigures(
            strategy=event.strategy,
            num_agents=event.num_agents,
            num_tasks=event.num_tasks,
            expected_duration_s=event.expected_duration_s,
            sequential_duration_s=event.sequential_duration_s,
            load_balance=event.load_balance,
            planning_s=event.planning_s,
            policy=event.policy,
        )

    def _WaveSettled(self, event: ev.WaveSettled) -> None:
        run = self.runs[event.run_id]
        wave = run.waves[event.wave]
        wave.settled_us = self.at_us
        for record in wave.tasks.values() if run.record.deferred else ():
            if record.status is DEFERRED:  # it may be done in a later wave, where these are not
                for needed in record.task.depends_on:
                    if needed in wave.tasks:
                        run.record.awaited[needed] = wave.tasks[needed].status

    # tasks

    def _AttemptStarted(self, event: ev.AttemptStarted) -> None:
        run, wave, record = self._task(event)
        agent_id, attempt, at_us = event.agent_id, event.attempt, self.at_us
        record.status = IN_PROGRESS
        record.attempts = attempt
        record.ran_by = agent_id
        record.held_by = record.due_us = None
        totals = run.record
        if record.first_start_us is None:
            record.first_start_us = at_us
            totals.tasks_started += 1
            if totals.first_start_us is None:
                totals.first_start_us = at_us
        totals.attempts += 1
        agent = self.agents.get(agent_id)
        if agent is not None:
            agent.busy += 1
        risk_level = record.task.risk_level
        wave.decisions.append(Decision(event.task_id, agent_id, attempt, APPROVED, None, "", event.confidence, risk_level, at_us))

    def _AttemptFailed(self, event: ev.AttemptFailed) -> None:
        _, wave, record = self._task(event)
        record.status = RETRYING
        record.error_msg, record.duration_s, record.end_us = event.error_msg, event.duration_s, self.at_us
        record.due_us = self.at_us + round(event.delay_s * 1e6)
        record.elsewhere, record.reconsider = event.elsewhere, event.reconsider
        record.failures.append((event.agent_id, event.duration_s))
        self._release(event.agent_id, timed_out=event.timed_out)
        wave.calls.append(event.task_id)

    def _TaskInterrupted(self, event: ev.TaskInterrupted) -> None:
        _, wave, record = self._task(event)
        record.status = PENDING
        record.interruptions += 1
        record.due_us = None
        agent = self.agents.get(event.agent_id)
        if agent is not None:
            agent.busy = max(0, agent.busy - 1)
        wave.calls.append(event.task_id)

    def _TaskHeld(self, event: ev.TaskHeld) -> None:
        _, wave, record = self._task(event)
        record.held_by = event.gate
        self._decide(event, wave, record, Ruling.DEFERRED)

    def _TaskDeferred(self, event: ev.TaskDeferred) -> None:
        run, wave, record = self._task(event)
        if record.final:
            return
        self._decide(event, wave, record, Ruling.DEFERRED)
        record.error_msg = event.reason
        self._end(run, wave, record, DEFERRED)
        run.record.deferred[event.task_id] = record

    def _TaskCompleted(self, event: ev.TaskCompleted) -> None:
        run, wave, record = self._task(event)
        if record.status in FINAL:
            return
        record.end_us, record.duration_s = self.at_us, event.duration_s
        record.error_msg, record.result = None, event.result
        self._release(event.agent_id)
        self._end(run, wave, record, COMPLETED)

    def _TaskFailed(self, event: ev.TaskFailed) -> None:
        run, wave, record = self._task(event)
        if record.final:
            return
        if event.gate is not None:
            self._decide(event, wave, record, Ruling.REJECTED)
        if record.status is IN_PROGRESS:
            record.end_us, record.duration_s = self.at_us, event.duration_s
            self._release(event.agent_id, timed_out=event.timed_out)
        record.error_msg, record.result = event.error_msg, event.result
        self.failed_tasks += 1
        self._end(run, wave, record, FAILED)

    def _TaskCancelled(self, event: ev.TaskCancelled) -> None:
        run, wave, record = self._task(event)
        if record.final:
            return
        if record.status is IN_PROGRESS:
            record.end_us, record.duration_s = self.at_us, event.duration_s
            self._release(event.agent_id)
        record.error_msg = event.reason
        self._end(run, wave, record, CANCELLED)

    # judgements

    def _AnomalyRaised(self, event: ev.AnomalyRaised) -> None:
        run = self.runs[event.run_id]
        run.record.anomalies += 1
        wave = run.waves.get(event.anomaly.wave)
        if wave is not None:
            wave.anomalies.append((self.at_us, event.anomaly))

    def _HealthScored(self, event: ev.HealthScored) -> None:
        run = self.runs[event.run_id]
        wave = run.waves[event.wave]
        wave.health, wave.health_us = event.health, self.at_us
        run.record.health, run.record.health_wave = event.health, event.wave
        if event.health.metrics.success_rate is not None:
            run.record.success_rate = event.health.metrics.success_rate
        course = course_of(wave, event.health.metrics)
        if course is not None:
            run.record.course = [*run.record.course[1 - COURSE_WAVES :], course]
        if event.seen:
            for change in self.changes(event):
                self._watch(run.record, change)
            self._foreseen = None

    def _watch(self, run: RunRecord, change: Change) -> None:
        """Keep a test's state; where it found that an agent has changed, drop what was known of the agent before."""
        agent_id, kind = change.seen.agent_id, change.seen.kind
        if not agent_id:
            run.watches[kind] = change.watch
            return
        agent = self.agents[agent_id]
        agent.watches[kind] = change.watch
        if change.alarm is not None and kind in agent.kinds:
            self.lessons += 1
            agent.kinds[kind] = since_change(agent.kinds[kind], change)
            if change.alarm.recovered or not change.alarm.rises:  # who is given what suits it does better, and is the same
                self.evidence.forget(agent_id, change.alarm.tasks_after - change.seen.tasks, kind)

    def _SignalsSent(self, event: ev.SignalsSent) -> None:
        at_us = self.at_us
        wave = self.runs[event.run_id].waves[event.wave]
        wave.signals.extend([(at_us, signal) for signal in event.signals])
        if event.validations:
            wave.validations.append((at_us, event.validations))

    def _PredictionsCalibrated(self, event: ev.PredictionsCalibrated) -> None:
        run = self.runs[event.run_id]
        wave = run.closing[event.wave] = run.waves.pop(event.wave)
        wave.calibrated = True
        run.record.last_anomalies = [(anomaly.anomaly_type, anomaly.agent_id) for _, anomaly in wave.anomalies]
        run.current = None
        self.under_way -= 1
        self.lessons += 1
        self._teach(event)
        if event.taught:
            self.evidence.learn(wave)
            _credit_strategy(run.record, wave)
        for heuristic_id, (hits, samples) in event.heuristics.items():
            old_hits, old_samples = run.record.heuristics.get(heuristic_id, (0, 0))
            wave.heuristics_before[heuristic_id] = (old_hits, old_samples)
            run.record.heuristics[heuristic_id] = (old_hits + hits, old_samples + samples)
        self._sort(run)

    def _teach(self, event: ev.PredictionsCalibrated) -> None:
        for agent_id, gained in event.agents.items():
            agent = self.agents.get(agent_id)
            if agent is not None:
                agent.calibration += gained
                if not event.kinds:
                    agent.kinds[event.kind] = agent.kinds.get(event.kind, NOTHING) + gained
        for agent_id, of_kinds in event.kinds.items():
            agent = self.agents.get(agent_id)
            if agent is not None:
                for kind, gained in of_kinds.items():
                    agent.kinds[kind] = agent.kinds.get(kind, NOTHING) + gained

    def _OutputsWritten(self, event: ev.OutputsWritten) -> None:
        run = self.runs[event.run_id]
        wave = run.closing.pop(event.wave)
        record = run.record
        for task_id in wave.tasks:
            if run.where.get(task_id) == wave.number:
                del run.where[task_id]
        tally_wave(record, wave)
        self.open_tasks -= len(wave.tasks)
        record.sizes = event.sizes
        if record.awaited:
            self._forget_awaited(run)
        self._sort(run)

    @staticmethod
    def _forget_awaited(run: Run) -> None:
        awaited = run.record.awaited
        needed = {needed for record in (*run.open_tasks(), *run.record.deferred.values()) for needed in record.task.depends_on}
        run.record.awaited = {task_id: status for task_id, status in awaited.items() if task_id in needed}
