"""A run as it is held in memory, and what its closed waves add up to.

The ledger's fold changes runs; everybody else reads them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import msgspec

from phase21.domain.records import AgentTally, RunRecord, TaskRecord, WaveRecord
from phase21.domain.tasks import TaskStatus

COMPLETED, FAILED, CANCELLED = TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED

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
    def idle(self) -> bool:
        """Whether there is nothing left to do, a person's approvals aside."""
        return not self.waves and not self.record.carried

    @property
    def behind(self) -> bool:
        """Whether so much waits for its files that nothing new should begin."""
        waves = self.closing
        return len(waves) >= CLOSING_WAVES_MOST or sum(len(wave.tasks) for wave in waves.values()) >= CLOSING_TASKS_MOST

    def next_wave(self) -> int:
        """The number of the wave to carry out next: the lowest that waits, else a new one for what is carried."""
        return min(self.waves) if self.waves else self.record.highest_wave + 1

    def open_tasks(self) -> Iterator[TaskRecord]:
        """Every task record of every wave that is not closed."""
        for wave in (*self.closing.values(), *self.waves.values()):
            yield from wave.tasks.values()


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
    for status in (COMPLETED, FAILED, CANCELLED):
        if statuses[status]:
            record.counts[status] = record.counts.get(status, 0) + statuses[status]
    for task in wave.tasks.values():
        if (task.status is COMPLETED or task.status is FAILED) and task.attempts:
            _tally_task(record, task)
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


def _tally_task(record: RunRecord, task: TaskRecord) -> None:
    tally = tally_of(record, task.ran_by or "")  # whoever carried out the last attempt: a task that was started has one
    if task.attempts > 1:
        tally.retries += task.attempts - 1
    if task.status is COMPLETED:
        tally.completed += 1
    else:
        tally.failed += 1
    if task.duration_s is not None:
        tally.measured += 1
        tally.latency_s += task.duration_s


def own_copy(record: RunRecord) -> RunRecord:
    """A record that shares nothing that changes: an event stays as it was when it was appended."""
    return msgspec.convert(msgspec.to_builtins(record), RunRecord)


def tally_of(record: RunRecord, agent_id: str) -> AgentTally:
    """The agent's tally within a run, made where it is missing."""
    tally = record.agents.get(agent_id)
    if tally is None:
        tally = record.agents[agent_id] = AgentTally()
    return tally
