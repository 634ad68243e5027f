"""A task as it was submitted, and the few words for where it stands.

Made by intake, carried unchanged by everything else. What happens to a task is in `records`, never here.
"""

from __future__ import annotations

import enum
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


class TaskStatus(enum.StrEnum):
    """Where a task stands; the first three are in flight, `DEFERRED` waits for a person, the rest are final."""

    PENDING = "PENDING"
    IN_PROGRESS = "IN_PROGRESS"
    RETRYING = "RETRYING"
    DEFERRED = "DEFERRED"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    __hash__ = str.__hash__  # an enum's own is slow, and these are keys on the path of every task


FINAL = frozenset({TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED})


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


class Task(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=False, gc=False):
    """One task as accepted. Rates are 0 to 1, durations in seconds; `None` means "as configured"."""

    task_id: Identifier
    kind: Identifier = "simulate"
    payload: dict[str, Any] = {}
    predicted_success_rate: Rate = DEFAULT_SUCCESS_RATE
    predictions: dict[Identifier, Rate] = {}
    priority: Annotated[int, Meta(ge=1, le=2**31)] = 2
    risk_level: RiskLevel = RiskLevel.LOW
    estimated_duration_s: Seconds = 1.0
    agent_id: Identifier | None = None
    capabilities: tuple[Identifier, ...] = ()
    depends_on: tuple[Identifier, ...] = ()
    timeout_s: PositiveSeconds | None = None
    max_attempts: Annotated[int, Meta(ge=1, le=1000)] | None = None
    idempotent: bool = True
    approved: bool = False
    heuristics: tuple[Annotated[str, Meta(min_length=1, max_length=256)], ...] = ()
    features: Annotated[dict[FeatureName, Feature], Meta(max_length=FEATURES_MOST)] = {}
    metadata: dict[str, Any] = {}

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
    """What an engine says of an attempt: success, the handler's own result, and why not where it failed."""

    success: bool
    result: Any = None
    error_msg: str | None = None
    timed_out: bool = False
