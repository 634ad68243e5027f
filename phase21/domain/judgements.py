"""What is thought of what happened: verdicts of gates, anomalies, health, learning signals."""

from __future__ import annotations

import enum
from typing import Any

import msgspec

TOLERANCE = 1e-9
"""A comparison this close to its threshold counts as at the threshold."""


class Ruling(enum.StrEnum):
    """What a gate says of an attempt."""

    APPROVED = "APPROVED"
    DEFERRED = "DEFERRED"
    REJECTED = "REJECTED"

    __hash__ = str.__hash__  # an enum's own is slow, and these are keys on the path of every task


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """A gate's ruling. `gate` is None when all approved; `wait_s` is set where the cause passes by itself.

    `aside` says that the agent may work on others meanwhile.
    """

    ruling: Ruling
    gate: str | None = None
    reason: str = ""
    wait_s: float | None = None
    aside: bool = False


class Grade(enum.StrEnum):
    """Health in a word."""

    EXCELLENT = "EXCELLENT"
    GOOD = "GOOD"
    FAIR = "FAIR"
    POOR = "POOR"
    UNKNOWN = "UNKNOWN"


class Severity(enum.StrEnum):
    """How soon a person should look."""

    LOW = "LOW"
    MEDIUM = "MEDIUM"
    HIGH = "HIGH"


class Anomaly(msgspec.Struct, frozen=True, kw_only=True):
    """Something out of the ordinary in a wave: what was measured, against which threshold, and what to do.

    `since_wave` is when it began, `evidence` how strongly outcomes speak for it (nats: the log of the odds, or of a likelihood
    ratio), `action` what was done about it.
    """

    anomaly_type: str
    severity: Severity
    wave: int
    agent_id: str | None = None
    value: float | None = None
    threshold: float | None = None
    description: str
    recommendation: str
    since_wave: int | None = None
    evidence: float | None = None
    action: str | None = None


class AgentMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """One agent's part in one wave. Rates and latency are None where nothing ended or ran; `confidence` is the mean predicted success."""

    agent_id: str
    assigned_tasks: int
    completed_tasks: int
    failed_tasks: int
    success_rate: float | None
    mean_latency_s: float | None
    retries: int
    load: int
    confidence: float | None = None


class Metrics(msgspec.Struct, frozen=True, kw_only=True):
    """A wave's figures, 0 to 1; None where nothing ended (success_rate) or was started (the rest)."""

    success_rate: float | None
    availability: float
    confidence: float | None
    prediction_error: float | None
    accuracy: float | None
    brier_score: float | None
    load_balance: float | None
    completed_tasks: int
    failed_tasks: int
    started_tasks: int
    deferred_tasks: int = 0
    cancelled_tasks: int = 0
    retries: int = 0


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """One term of a wave's health: its value 0 to 1, its weight, the points of 100 that it lost, and who or what cost most of them.

    `agent_id` and `task_id` name the worst of them; None where nothing was lost, or where it has no name.
    """

    term: str
    value: float | None
    weight: float
    points_lost: float | None
    agent_id: str | None = None
    task_id: str | None = None
    description: str = ""


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """A wave's health: score 0 to 100 or None, its grade, the figures behind it, and what each term of the score lost."""

    score: float | None
    status: Grade
    metrics: Metrics
    agents: tuple[AgentMetrics, ...]
    causes: tuple[Cause, ...] = ()


class Signal(msgspec.Struct, frozen=True, kw_only=True):
    """A lesson for a neighbour: `target_phase` names who learns, `confidence` is 0 to 1."""

    signal_type: str
    target_phase: int
    content: dict[str, Any]
    confidence: float


class Validation(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A prediction held against its outcome: the signal `prediction_validation`, in few words as there is one for each task."""

    task_id: str
    agent_id: str
    predicted: float
    success: bool

    @property
    def delta(self) -> float:
        """How far off the prediction was, 0 to 1."""
        return 1.0 - self.predicted if self.success else self.predicted


class Calibration(msgspec.Struct, frozen=True, array_like=True):
    """Evidence about one agent: tasks started and ended, how many succeeded, the sum of what came in as predicted.

    `stretch_sum` is the sum of ln(seconds taken / seconds estimated) over the `measured` ones of them.
    """

    samples: int = 0
    successes: int = 0
    predicted_sum: float = 0.0
    measured: int = 0
    stretch_sum: float = 0.0

    def __add__(self, gained: Calibration) -> Calibration:
        return Calibration(
            self.samples + gained.samples,
            self.successes + gained.successes,
            self.predicted_sum + gained.predicted_sum,
            self.measured + gained.measured,
            self.stretch_sum + gained.stretch_sum,
        )
