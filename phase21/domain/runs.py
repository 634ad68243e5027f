"""A run as it is held in memory, and what its closed waves add up to.

The ledger's fold changes runs; everybody else reads them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import msgspec

from phase21.domain.records import AgentTally, RunRecord, TaskRecord, WaveRecord
from phase21.domain.tasks import TaskStatus
from phase21.domain.workflows import Upstream, WorkflowState

COMPLETED, FAILED, CANCELLED, SKIPPED = TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED, TaskStatus.SKIPPED

CLOSING_WAVES_MOST = 16
CLOSING_TASKS_MOST = 2_000
"""How many judged waves of a run, and tasks in them, may wait for their files before its next wave waits for them."""


class Run(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A run in memory: its lasting record and its waves.

    `waves` are to be carried out, `current` among them while it is; those in `closing` are judged, and their files are
    being written.
    """

    record: RunRecord
    waves: dict[int, WaveRecord] = {}
    closing: dict[int, WaveRecord] = {}
    current: int | None = None
    where: dict[str, int] = {}

    @property
    def run_id(self) -> str:
        """The run's name."""
        return self.record.run_id

    @property
    def waiting(self) -> bool:
        """Whether there is work for a wave."""
        return bool(self.waves or self.record.carried)

    @property
    def undecided(self) -> bool:
        """Whether its workflow has to say what comes next: all that it asked for has ended, and nobody is waited for."""
        flow = self.record.workflow
        return flow is not None and flow.open and not self.waiting and not self.record.deferred

    @property
    def idle(self) -> bool:
        """Whether there is nothing left to do, a person's approvals aside."""
        return not self.waiting and not self.undecided

    @property
    def behind(self) -> bool:
        """Whether so much waits for its files that nothing new should begin."""
        waves = self.closing
        return len(waves) >= CLOSING_WAVES_MOST or sum(len(wave.tasks) for wave in waves.values()) >= CLOSING_TASKS_MOST

    def next_wave(self) -> int:
        """The number of the wave to carry out next: the lowest that waits, else a new one for what is carried."""
        return min(self.waves) if self.waves else self.record.highest_wave + 1

    def became(self, task_id: str, wave: WaveRecord | None = None) -> Upstream | None:
        """What became of a task, of `wave` or another; None where that is not known, as for a task that has not ended."""
        record = wave.tasks.get(task_id) if wave is not None else None
        if record is None and task_id in self.where:
            number = self.where[task_id]
            held = self.waves.get(number) or self.closing.get(number)
            record = held.tasks.get(task_id) if held is not None else None
        if record is None:
            return self.record.upstream.get(task_id)
        return outcome_of(record) if record.final else None

    def open_tasks(self) -> Iterator[TaskRecord]:
        """Every task record of every wave that is not closed."""
        for wave in (*self.closing.values(), *self.waves.values()):
            yield from wave.tasks.values()


def outcome_of(record: TaskRecord) -> Upstream:
    """What became of a task, for those that depend on it."""
    return Upstream(record.status, record.result, record.error_msg)


def ended_failed(record: RunRecord) -> bool:
    """Whether a run is to be called failed: its workflow ended without being completed, or (without one) tasks of it FAILED."""
    flow = record.workflow
    if flow is None:
        return bool(record.counts.get(FAILED))
    return not flow.open and flow.state is not WorkflowState.COMPLETED


def tallied(run: RunRecord, wave: WaveRecord) -> RunRecord:
    """A copy of the run's record as it will stand once this wave is closed (`sizes` aside)."""
    agents = {agent_id: msgspec.structs.replace(tally) for agent_id, tally in run.agents.items()}
    judged = {"health": wave.health, "health_wave": wave.number} if wave.health is not None else {}
    after = msgspec.structs.replace(run, counts=dict(run.counts), agents=agents, **judged)
    tally_wave(after, wave)
    return after


def tally_wave(record: RunRecord, wave: WaveRecord) -> None:
    """Count a wave that is closed into the run's record."""
    statuses = Counter([task.status for task in wave.tasks.values()])
    for status in (COMPLETED, FAILED, CANCELLED, SKIPPED):
        if statuses[status]:
            record.counts[status] = record.counts.get(status, 0) + statuses[status]
    _tally_tasks(record, wave)
    for agent_id, count in _assigned(wave).items():
        tally_of(record, agent_id).assigned += count
    record.closed_waves += 1
    record.end_us = wave.settled_us


def _assigned(wave: WaveRecord) -> Counter[str]:
    """How many tasks of the wave each agent was given; what came back to one is one task of it."""
    if not wave.moved:
        return Counter([given.agent_id for batch in wave.batches for given in batch.assignments])
    pairs = dict.fromkeys((given.agent_id, given.task_id) for batch in wave.batches for given in batch.assignments)
    return Counter([agent_id for agent_id, _ in pairs])


def _tally_tasks(record: RunRecord, wave: WaveRecord) -> None:
    """Count the tasks that were started and have COMPLETED or FAILED, each for whoever carried out its last attempt."""
    agents = record.agents
    for task in wave.tasks.values():
        completed = task.status is COMPLETED
        if not ((completed or task.status is FAILED) and task.attempts):
            continue
        tally = agents.get(task.ran_by or "") or tally_of(record, task.ran_by or "")
        if completed:
            tally.completed += 1
        else:
            tally.failed += 1
        if task.attempts > 1:
            tally.retries += task.attempts - 1
        if task.duration_s is not None:
            tally.measured += 1
            tally.latency_s += task.duration_s


def own_copy(record: RunRecord) -> RunRecord:
    """A record that shares nothing that changes: an event stays as it was when it was appended."""
    own = msgspec.convert(msgspec.to_builtins(msgspec.structs.replace(record, post=None)), RunRecord)
    own.post = record.post.recalled() if record.post is not None else None
    return own


def tally_of(record: RunRecord, agent_id: str) -> AgentTally:
    """The agent's tally within a run, made where it is missing."""
    tally = record.agents.get(agent_id)
    if tally is None:
        tally = record.agents[agent_id] = AgentTally()
    return tally
