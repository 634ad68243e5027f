"""What is known of tasks, waves, runs and agents: the parts of the ledger.

Only the ledger's fold changes a record; everybody else reads. Records are plain enough to be written as a snapshot.
Times are microseconds since 1970, durations seconds.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import msgspec

from phase21.domain.edges import Edges, edges_of
from phase21.domain.judgements import Anomaly, Calibration, Health, Signal, Validation
from phase21.domain.plans import CRITICAL_PATH, Assignment, Choice
from phase21.domain.post import PostRecord
from phase21.domain.sequential import Watch
from phase21.domain.tasks import FINAL, Task, TaskStatus
from phase21.domain.workflows import Upstream, WorkflowRecord


class Decision(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One ruling of the gates on one attempt."""

    task_id: str
    agent_id: str | None
    attempt: int
    ruling: str
    gate: str | None
    reason: str
    confidence: float
    risk_level: str
    at_us: int


class AssignedBatch(msgspec.Struct, frozen=True, array_like=True):
    """Assignments made at one moment by one strategy, and why so."""

    at_us: int
    strategy: str
    assignments: tuple[Assignment, ...]
    choices: tuple[Choice, ...] = ()


class TaskRecord(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """Where a task stands.

    `attempts` counts every start; `interruptions` those of them that were cut short; `ran_by` is the agent of the last one.
    `failures` are the attempts that failed and were made again, as (agent, seconds); `score` is what the model said of the
    assignment before calibration. Before `due_us` it is not tried, after `deadline_us` not any more. `percent` and `note` are what the attempt under way said of its progress.
    """

    task: Task
    status: TaskStatus = TaskStatus.PENDING
    agent_id: str | None = None
    predicted: float = 0.0
    raw: float = 0.0
    score: float | None = None
    attempts: int = 0
    interruptions: int = 0
    first_start_us: int | None = None
    end_us: int | None = None
    duration_s: float | None = None
    due_us: int | None = None
    deadline_us: int | None = None
    elsewhere: bool = False
    reconsider: bool = False
    error_msg: str | None = None
    result: Any = None
    approved: bool = False
    cancelling: bool = False
    held_by: str | None = None
    blockers: int = 0
    ran_by: str | None = None
    failures: list[tuple[str, float]] = []
    percent: float = 0.0
    note: str = ""
    paused: bool = False

    @property
    def started(self) -> bool:
        """Whether any attempt ever began: a task that was never started teaches nothing."""
        return self.attempts > 0

    @property
    def final(self) -> bool:
        """Whether the outcome is recorded."""
        return self.status in FINAL


class WavePlanFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What the plan of a wave expected."""

    strategy: str
    num_agents: int
    num_tasks: int
    expected_duration_s: float
    sequential_duration_s: float
    load_balance: float
    planning_s: float
    policy: str = ""


class WaveRecord(msgspec.Struct, kw_only=True, omit_defaults=True, dict=True):
    """A wave from its acceptance to its closing.

    `pending` counts tasks whose part in the wave has not ended. `calls` grows by a task's id each time that task
    needs to be given to an agent's inbox (again): the manager reads it with a cursor. `blocked` counts those that
    wait for others of the wave, `astray` those that ended otherwise than COMPLETED. In a `tied` wave some task depends on another, in
    a `plain` one every dependency is the bare id of one of its tasks.
    """

    run_id: str
    number: int
    accepted_position: int = 0
    tasks: dict[str, TaskRecord]
    opened_us: int | None = None
    planned: WavePlanFigures | None = None
    settled_us: int | None = None
    pending: int = 0
    calls: list[str] = []
    blocked: int = 0
    astray: int = 0
    tied: bool = True
    plain: bool = False
    batches: list[AssignedBatch] = []
    decisions: list[Decision] = []
    anomalies: list[tuple[int, Anomaly]] = []
    health: Health | None = None
    health_us: int | None = None
    signals: list[tuple[int, Signal]] = []
    validations: list[tuple[int, tuple[Validation, ...]]] = []
    calibrated: bool = False
    heuristics_before: dict[str, tuple[int, int]] = {}
    moved: int = 0
    fleet: list[str] = []

    @cached_property
    def edges(self) -> Edges[TaskRecord]:
        """Who waits for whom. Its tasks may grow until it is opened, and this is to be asked anew then."""
        return edges_of(self.tasks)

    @property
    def by_readiness(self) -> bool:
        """Whether its tasks went to agents as they became ready, not by a plan made beforehand."""
        return self.planned is not None and self.planned.strategy == CRITICAL_PATH


class Course(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A judged wave in a few figures: started tasks, how many succeeded, the sum of what was predicted, seconds expected and taken."""

    wave: int
    strategy: str
    tasks: int
    successes: int
    predicted: float
    expected_s: float
    actual_s: float


class AgentTally(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One agent's part in one run, over its closed waves. `latency_s` is a sum."""

    assigned: int = 0
    completed: int = 0
    failed: int = 0
    retries: int = 0
    measured: int = 0
    latency_s: float = 0.0


class RunRecord(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A run's standing that outlives its waves: small, whatever the number of waves behind.

    `last_anomalies` are (type, agent) of the newest closed wave. `counts` is of final and deferred tasks over closed waves. `deferred` maps a deferred task's id to its record and
    `carried` lists those of them that were approved or cancelled since and wait for a wave. `heuristics` holds
    (hits, samples) over closed waves; `strategies` (attempts, successes) of those that `adaptive` chose;
    `watches` are the tests of its outcomes by kind of task, `course` its newest waves in a few figures;
    `sizes` the run's growing files in bytes; `awaited` the status of tasks of other
    waves that tasks still to be done depend on ("" while under way), `upstream` what became of those that they may refer to.
    """

    run_id: str
    first_position: int = 0
    highest_wave: int = 0
    started_wave: int = 0
    closed_waves: int = 0
    paused: bool = False
    started_us: int | None = None
    first_start_us: int | None = None
    end_us: int | None = None
    attempts: int = 0
    tasks_accepted: int = 0
    tasks_started: int = 0
    counts: dict[str, int] = {}
    agents: dict[str, AgentTally] = {}
    heuristics: dict[str, tuple[int, int]] = {}
    health_wave: int | None = None
    health: Health | None = None
    success_rate: float | None = None
    anomalies: int = 0
    last_anomalies: list[tuple[str, str | None]] = []
    strategies: dict[str, tuple[int, int]] = {}
    watches: dict[str, Watch] = {}
    course: list[Course] = []
    sizes: dict[str, int] = {}
    deferred: dict[str, TaskRecord] = {}
    carried: list[str] = []
    awaited: dict[str, str] = {}
    upstream: dict[str, Upstream] = {}
    workflow: WorkflowRecord | None = None
    post: PostRecord | None = None


class AgentRecord(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What is known of an agent over all runs. `calibration` is the evidence of all waves that taught, by the agent of the last attempt.

    `kinds` is the same by kind of task, with what failed here and was made again elsewhere, and without what came before a change
    that was found. `watches` are the tests of its outcomes, by kind.
    """

    agent_id: str
    capabilities: tuple[str, ...] = ()
    concurrency: int = 1
    max_tasks: int | None = None
    order: int = 0
    only_kinds: tuple[str, ...] = ()
    present: bool = True
    offline: bool = False
    offline_cause: str | None = None
    offline_us: int | None = None
    probation: bool = False
    timeouts_in_a_row: int = 0
    busy: int = 0
    calibration: Calibration = Calibration()
    kinds: dict[str, Calibration] = {}
    watches: dict[str, Watch] = {}

    @property
    def record(self) -> float:
        """COMPLETED / (COMPLETED + FAILED) of started tasks over all past waves, 1.0 if none."""
        return self.calibration.successes / self.calibration.samples if self.calibration.samples else 1.0

    def able(self, task: Task) -> bool:
        """Whether the task's pin, capabilities and kind allow this agent."""
        return (
            (task.agent_id is None or task.agent_id == self.agent_id)
            and (not task.capabilities or set(task.capabilities) <= set(self.capabilities))
            and (not self.only_kinds or task.kind in self.only_kinds)
        )

    def takes(self, kind: str) -> bool:
        """Whether it does tasks of a kind."""
        return not self.only_kinds or kind in self.only_kinds
