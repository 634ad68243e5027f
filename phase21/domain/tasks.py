"""A task as it was submitted, and the few words for where it stands.

Made by intake, carried unchanged by everything else. What happens to a task is in `records`, never here.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

ID_PATTERN = r"\A[A-Za-z0-9][A-Za-z0-9._-]*\Z"

Identifier = Annotated[str, Meta(pattern=ID_PATTERN, min_length=1, max_length=128)]
Rate = Annotated[float, Meta(ge=0.0, le=1.0)]
Seconds = Annotated[float, Meta(ge=0.0, le=1e9)]
PositiveSeconds = Annotated[float, Meta(gt=0.0, le=1e9)]
WaveNumber = Annotated[int, Meta(ge=1, le=2**53)]

DEFAULT_SUCCESS_RATE = 0.85

FEATURES_MOST = 256
FeatureName = Annotated[str, Meta(min_length=1, max_length=128)]
Feature = float | Annotated[str, Meta(max_length=256)]
"""What is known of a task before it is tried: a number, or one of a few words."""

Moment = Seconds | Annotated[datetime, Meta(tz=True)]
"""When: seconds after the task was accepted, or a time with its offset from UTC."""

Condition = Annotated[str, Meta(min_length=1, max_length=4096)]
Step = Annotated[str, Meta(min_length=1, max_length=256)]
Name = Annotated[str, Meta(min_length=1, max_length=128)]

PRIORITIES = {"URGENT": 0, "HIGH": 1, "NORMAL": 2, "LOW": 3}
"""What priorities may be called."""


class TaskStatus(enum.StrEnum):
    """Where a task stands; the first three are in flight, `DEFERRED` waits for a person, the rest are final.

    `SKIPPED` is what a workflow decided not to do: it was never started, and is no failure.
    """

    PENDING = "PENDING"
    IN_PROGRESS = "IN_PROGRESS"
    RETRYING = "RETRYING"
    DEFERRED = "DEFERRED"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    SKIPPED = "SKIPPED"

    __hash__ = str.__hash__  # an enum's own is slow, and these are keys on the path of every task


FINAL = frozenset({TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED, TaskStatus.SKIPPED})
WAITING = frozenset({TaskStatus.PENDING, TaskStatus.RETRYING})
LOST = frozenset({TaskStatus.FAILED, TaskStatus.CANCELLED})
"""What does not change any more; what is still to be tried, or to be tried again; what came to nothing."""


class AgentStatus(enum.StrEnum):
    """Where an agent stands."""

    IDLE = "IDLE"
    BUSY = "BUSY"
    OFFLINE = "OFFLINE"


class RiskLevel(enum.StrEnum):
    """What the action may harm."""

    LOW = "LOW"
    MEDIUM = "MEDIUM"
    HIGH = "HIGH"

    __hash__ = str.__hash__  # an enum's own is slow, and these are keys on the path of every task


class When(enum.StrEnum):
    """What must have become of a task before another that depends on it may begin."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SETTLED = "settled"

    __hash__ = str.__hash__


class Dependency(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """Another task of the run, and what must have become of it."""

    task: Identifier
    when: When = When.SUCCEEDED


class Compensation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """How what a task has done is undone: fields of a task, which runs only where its workflow is undone."""

    kind: Identifier = "simulate"
    payload: dict[str, Any] = {}
    risk_level: RiskLevel = RiskLevel.LOW
    estimated_duration_s: Seconds = 1.0
    agent_id: Identifier | None = None
    capabilities: tuple[Identifier, ...] = ()
    timeout_s: PositiveSeconds | None = None
    max_attempts: Annotated[int, Meta(ge=1, le=1000)] | None = None
    idempotent: bool = True
    approved: bool = False
    metadata: dict[str, Any] = {}


class Task(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=False, gc=False):
    """One task as accepted. Rates are 0 to 1, durations in seconds; `None` means "as configured".

    `step` says which work it is, where many tasks do the same; `limit_key` what it shares a limit with; `depth` how many tasks
    stand between it and the workflow's own, each made by the one before.
    """

    task_id: Identifier
    kind: Identifier = "simulate"
    payload: dict[str, Any] = {}
    predicted_success_rate: Rate = DEFAULT_SUCCESS_RATE
    predictions: dict[Identifier, Rate] = {}
    priority: Annotated[int, Meta(ge=0, le=2**31)] = 2
    risk_level: RiskLevel = RiskLevel.LOW
    estimated_duration_s: Seconds = 1.0
    agent_id: Identifier | None = None
    capabilities: tuple[Identifier, ...] = ()
    depends_on: tuple[Identifier | Dependency, ...] = ()
    timeout_s: PositiveSeconds | None = None
    max_attempts: Annotated[int, Meta(ge=1, le=1000)] | None = None
    idempotent: bool = True
    approved: bool = False
    heuristics: tuple[Annotated[str, Meta(min_length=1, max_length=256)], ...] = ()
    features: Annotated[dict[FeatureName, Feature], Meta(max_length=FEATURES_MOST)] = {}
    metadata: dict[str, Any] = {}
    condition: Condition | None = None
    step: Step | None = None
    compensate: Compensation | None = None
    not_before: Moment | None = None
    deadline: Moment | None = None
    limit_key: Name | None = None
    depth: Annotated[int, Meta(ge=0)] = 0

    def needs(self) -> tuple[str, ...]:
        """The ids of the tasks that it depends on."""
        for needed in self.depends_on:
            if type(needed) is not str:
                return tuple([needed if isinstance(needed, str) else needed.task for needed in self.depends_on])
        return self.depends_on  # type: ignore[return-value]  # nearly always they are names and nothing else

    def dependencies(self) -> Iterator[Dependency]:
        """What it depends on, whole."""
        return (needed if isinstance(needed, Dependency) else Dependency(task=needed) for needed in self.depends_on)

    def raw_prediction(self, agent_id: str) -> float:
        """The planner's own success rate for this agent, before any calibration."""
        return self.predictions.get(agent_id, self.predicted_success_rate) if self.predictions else self.predicted_success_rate


class Attempt(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One try of one task by one agent, as an engine sees it. `number` counts from 1; `predicted` is uncalibrated."""

    run_id: str
    wave: int
    task: Task
    agent_id: str
    number: int
    predicted: float
    timeout_s: float


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine says of an attempt: success, the handler's own result, and why not where it failed.

    Of a failure it may say that another attempt is of no use (`permanent`), when one is (`retry_after_s`), or that a person must
    approve first (`needs_approval`, the reason).
    """

    success: bool
    result: Any = None
    error_msg: str | None = None
    timed_out: bool = False
    permanent: bool = False
    retry_after_s: float | None = None
    needs_approval: str | None = None


def moment_us(moment: Moment, accepted_us: int) -> int:
    """A moment in microseconds since 1970; one given in seconds counts from `accepted_us`."""
    if isinstance(moment, datetime):
        return round(moment.timestamp() * 1e6)
    return accepted_us + round(moment * 1e6)
