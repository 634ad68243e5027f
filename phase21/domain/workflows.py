"""A workflow: tasks of one run that wait for each other, and what is to be done where one of them fails.

Read by intake, which makes tasks of it; kept in the run's record; carried on by `workflows`. A workflow has no way of its own to
carry out anything: its tasks are tasks, in waves.
"""

from __future__ import annotations

import enum
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from phase21.domain.tasks import Name, Task, TaskStatus

JOIN = "join"
"""The kind of a task that gathers what others did, and fails where one of them failed."""


UNDO = "undo"


def undo_id(task_id: str) -> str:
    """What the task is called that undoes another."""
    return f"{task_id}.{UNDO}"


class Mode(enum.StrEnum):
    """How the tasks follow each other: one after the other, all at once, or as they say themselves."""

    SEQUENTIAL = "sequential"
    PARALLEL = "parallel"
    CONDITIONAL = "conditional"
    GRAPH = "graph"


class OnFailure(enum.StrEnum):
    """What follows a failure that nothing in the workflow answers to."""

    STOP = "stop"
    CONTINUE = "continue"
    COMPENSATE = "compensate"


class WorkflowState(enum.StrEnum):
    """Where a workflow stands; the first three are open."""

    PENDING = "pending"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


OPEN_STATES = frozenset({WorkflowState.PENDING, WorkflowState.RUNNING, WorkflowState.PAUSED})


class Judged(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """How a workflow's quality is judged, and against what.

    `judge` are the fields of a task that scores the results; `runs` is how many earlier runs of the same name are compared with,
    `tolerance` the share by which a figure may be worse.
    """

    judge: dict[str, Any] | None = None
    runs: Annotated[int, Meta(ge=1, le=1000)] = 5
    tolerance: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.10


class Workflow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is kept of a workflow beside its tasks.

    `later` are steps, as they were written, that can be made into tasks only once others have ended (a `for_each` over a
    result, and what depends on it). `max_tasks` and `max_depth` bound what is made on the way.
    """

    name: Name
    mode: Mode = Mode.GRAPH
    on_failure: OnFailure = OnFailure.STOP
    max_parallel: Annotated[int, Meta(ge=1)] | None = None
    max_tasks: Annotated[int, Meta(ge=1, le=1_000_000)] = 1000
    max_depth: Annotated[int, Meta(ge=0, le=64)] = 3
    evaluate: Judged | None = None
    later: tuple[dict[str, Any], ...] = ()
    forked_from: str | None = None


class Upstream(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of a task, for those that depend on it: its status, its result, and why it failed."""

    status: TaskStatus
    result: Any = None
    error: str | None = None


class WorkflowRecord(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Where a run's workflow stands. Changed by the ledger's fold alone.

    `failed` are failures that nothing answered to; `done` the tasks that COMPLETED and can be undone, in the order of their ends;
    `spawned` what tasks asked for and has not become work yet; `made` counts tasks that were made on the way. `undoing`
    says that the way back has begun; `stranded` names compensations that failed and need a person. `asked_s` is what all its
    tasks are estimated to take, `ended_s` that of those that have ended. `ended_position` is where the journal says that it ended.
    """

    workflow: Workflow
    state: WorkflowState = WorkflowState.PENDING
    reason: str = ""
    failed: list[str] = []
    done: list[Task] = []
    spawned: list[Task] = []
    later: list[dict[str, Any]] = []
    made: int = 0
    undoing: bool = False
    judging: bool = False
    stranded: list[str] = []
    cancelled: bool = False
    since_us: int | None = None
    asked_s: float = 0.0
    ended_s: float = 0.0
    ended_position: int = 0

    @property
    def open(self) -> bool:
        """Whether it has not ended."""
        return self.state in OPEN_STATES
