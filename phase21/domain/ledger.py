"""Everything we know: the fold of the journal.

What each kind of event does to it stands in `folds`; readers read it here. What is open is held here; what is closed is answered by
the store. Nothing but `fold` may change it.
"""

from __future__ import annotations

import msgspec

from phase21.domain import events as ev
from phase21.domain.evidence import Evidence
from phase21.domain.folds import agents, arrivals, lessons, post, schedules, tasks, waves, workflows
from phase21.domain.folds.known import Folds, Known
from phase21.domain.paces import Paces
from phase21.domain.records import AgentRecord, WaveRecord
from phase21.domain.runs import Run
from phase21.domain.schedules import ScheduleRecord
from phase21.domain.tasks import FINAL, AgentStatus, TaskStatus
from phase21.domain.watching import Change

FOLDS: Folds = {
    **arrivals.FOLDS,
    **schedules.FOLDS,
    **agents.FOLDS,
    **waves.FOLDS,
    **tasks.FOLDS,
    **workflows.FOLDS,
    **lessons.FOLDS,
    **post.FOLDS,
}
"""What takes in an event, by its kind; what is not here changes nothing that is known."""


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
    paces: Paces = msgspec.field(default_factory=Paces)
    schedules: list[ScheduleRecord] = []


class Ledger(Known):
    """The fold of the journal up to `position`. Read it freely; change it only through `fold`."""

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
        return record.status if record.status in FINAL or record.status is TaskStatus.DEFERRED else ""

    def changes(self, event: ev.HealthScored) -> list[Change]:
        """What a judgement, once folded in, makes of the tests of its agents and its run; kept for the fold, which asks again."""
        return lessons.foreseen(self, event)

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
            paces=self.paces,
            schedules=list(self.schedules.values()),
        )

    @classmethod
    def restored(cls, snapshot: Snapshot) -> Ledger:
        """The ledger that a snapshot was taken of."""
        ledger = cls()
        ledger.position, ledger.at_us, ledger.mark = snapshot.position, snapshot.at_us, snapshot.mark
        ledger.service, ledger.service_us = snapshot.service, snapshot.service_us
        ledger.trusted_boot_id, ledger.evidence = snapshot.trusted_boot_id, snapshot.evidence
        ledger.paces = snapshot.paces
        ledger.agents = {agent.agent_id: agent for agent in snapshot.agents}
        ledger.schedules = {schedule.run_id: schedule for schedule in snapshot.schedules}
        for run in snapshot.runs:
            ledger.runs[run.run_id] = run
            ledger.open_tasks += sum(1 for _ in run.open_tasks())
            ledger.under_way += run.current is not None
            for task_id in run.record.deferred:
                wave = run.waves.get(run.where.get(task_id, 0)) or run.closing.get(run.where.get(task_id, 0))
                if wave is not None:
                    run.record.deferred[task_id] = wave.tasks[task_id]
            if run.undecided:
                ledger.undecided[run.run_id] = None
        ledger.ready, ledger.idle = dict.fromkeys(snapshot.ready), dict.fromkeys(snapshot.idle)
        return ledger

    # -- folding -----------------------------------------------------------------------------------------------------

    def fold(self, entry: ev.Entry) -> None:
        """Take in one entry; entries must come in order of position."""
        self.position = entry.position
        self.at_us = entry.at_us
        fold = FOLDS.get(type(entry.event))
        if fold is not None:
            fold(self, entry.event)
