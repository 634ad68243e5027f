"""What can be configured: every key, its default, and what is allowed. Read from TOML by `intake.configuration`."""

from __future__ import annotations

import enum
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from phase21.domain.retry import RetryPolicy, RetryStrategy
from phase21.domain.tasks import Identifier

Natural = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
NonNegative = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
LimitName = Annotated[str, Meta(min_length=1, max_length=128)]


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the configuration; unknown keys are refused."""


class AgentSpec(Section, frozen=True, kw_only=True):
    """One named agent: what it offers, how many tasks it works on at a time, and how many of a wave it may be given.

    Where `kinds` are named, it takes only tasks of these kinds.
    """

    id: Identifier
    capabilities: tuple[Identifier, ...] = ()
    concurrency: Annotated[int, Meta(ge=1, le=1024)] = 1
    max_tasks_per_wave: Positive | None = None
    kinds: tuple[Identifier, ...] = ()


class AgentSettings(Section, frozen=True, kw_only=True):
    """The fleet. Durations in seconds."""

    count: Annotated[int, Meta(ge=1, le=100_000)] = 4
    fleet: tuple[AgentSpec, ...] = ()
    inbox_size: Positive = 1024
    offline_after: Positive = 3
    stuck_after: NonNegative = 30.0
    probation: NonNegative = 60.0

    def specs(self) -> tuple[AgentSpec, ...]:
        """The fleet by name: as configured, else `agent_0` to `agent_{count-1}`."""
        return self.fleet or tuple(AgentSpec(id=f"agent_{n}") for n in range(self.count))


class ManagerSettings(Section, frozen=True, kw_only=True):
    """How waves are assigned, those of workflows by a strategy of their own, and how many runs are carried out side by side.

    `slack`: how many times an even share of a wave an agent may be given, by strategies that weigh predictions.
    """

    strategy: str = "load_balanced"
    workflow_strategy: str = "critical_path"
    slack: Annotated[float, Meta(ge=1)] = 2.0
    max_parallel_runs: Positive = 4


class Reassign(enum.StrEnum):
    """Who makes the next attempt: whoever is predicted to do it best given the failures so far, another after a timeout, or no other."""

    LEARNED = "learned"
    AFTER_TIMEOUT = "after_timeout"
    NEVER = "never"


class RetrySettings(Section, frozen=True, kw_only=True):
    """When an attempt that failed is made again, and by whom. Delays in seconds."""

    strategy: RetryStrategy = RetryStrategy.EXPONENTIAL_BACKOFF
    max_attempts: Annotated[int, Meta(ge=1, le=1000)] = 3
    base_delay: NonNegative = 0.1
    exponential_base: Annotated[float, Meta(ge=1)] = 2.0
    max_delay: NonNegative = 30.0
    jitter: Share = 0.0
    reassign: Reassign = Reassign.LEARNED

    def policy(self) -> RetryPolicy:
        """The same as a policy of when."""
        return RetryPolicy(**{name: getattr(self, name) for name in RetryPolicy.__struct_fields__})


class SafetySettings(Section, frozen=True, kw_only=True):
    """The gates. 0 means no limit."""

    strict: bool = True
    min_free_disk_mb: NonNegative = 64.0
    min_free_memory_mb: NonNegative = 0.0
    rate_limit: NonNegative = 0.0
    max_tasks_per_run: Natural = 0
    max_run_seconds: NonNegative = 0.0
    blocking_anomalies: tuple[str, ...] = ("agent_offline", "agent_stuck")


class LimitSpec(Section, frozen=True, kw_only=True):
    """A limit on all attempts of one kind, at one agent, or with one key; "*" is each by itself. 0 means no limit."""

    kind: LimitName | None = None
    agent: LimitName | None = None
    key: LimitName | None = None
    concurrent: Natural = 0
    rate_per_s: NonNegative = 0.0

    def about(self) -> tuple[str, str]:
        """What it is about (`kind`, `agent` or `key`), and which."""
        return next(((by, name) for by in ("kind", "agent", "key") if (name := getattr(self, by)) is not None), ("", ""))


class HealthWeights(Section, frozen=True, kw_only=True):
    """Shares of the health score; they sum to 1."""

    success_rate: Share = 0.40
    availability: Share = 0.20
    accuracy: Share = 0.20
    load_balance: Share = 0.20


class HealthThresholds(Section, frozen=True, kw_only=True):
    """From which score (0 to 100) on a wave's health bears each name."""

    excellent: Annotated[float, Meta(ge=0, le=100)] = 90.0
    good: Annotated[float, Meta(ge=0, le=100)] = 70.0
    fair: Annotated[float, Meta(ge=0, le=100)] = 50.0


class HealthRules(enum.StrEnum):
    """Whether an agent is judged by sequential tests against its own past, once it has one, or by each wave alone."""

    SEQUENTIAL = "sequential"
    FIXED = "fixed"


class HealthSettings(Section, frozen=True, kw_only=True):
    """How a wave is judged.

    `false_alarms` is the share of healthy agents' waves that a sequential test may take for a change.
    """

    weights: HealthWeights = HealthWeights()
    thresholds: HealthThresholds = HealthThresholds()
    anomaly_sensitivity: Share = 0.25
    rules: HealthRules = HealthRules.SEQUENTIAL
    false_alarms: Annotated[float, Meta(ge=1e-6, le=0.1)] = 0.001


class LearningSettings(Section, frozen=True, kw_only=True):
    """Whether what waves taught corrects the predictions of later ones, and which share of choices may be spent on learning."""

    enabled: bool = True
    exploration: Share = 0.05


class HandlerSettings(Section, frozen=True, kw_only=True):
    """What tasks may run. `default_timeout` in seconds."""

    python_modules: tuple[str, ...] = ()
    default_timeout: Annotated[float, Meta(gt=0)] = 30.0
    seed: int = 0


class ExecutionSettings(Section, frozen=True, kw_only=True):
    """Whether anything real is executed."""

    dry_run: bool = False


class QueueSettings(Section, frozen=True, kw_only=True):
    """The queue file."""

    path: str | None = None
    allow_shared: bool = False
    max_line_bytes: Annotated[int, Meta(ge=1024)] = 16 * 1024 * 1024


class FeedbackSettings(Section, frozen=True, kw_only=True):
    """Further folders that feedback is sent to."""

    phase16_dir: str | None = None
    phase18_dir: str | None = None
    phase20_dir: str | None = None


class PlanSettings(Section, frozen=True, kw_only=True):
    """How goals become workflows. `values` are the templates' own names; prices are for a million tokens, in any one currency."""

    templates_dir: str | None = None
    values: dict[str, Any] = {}
    input_price: NonNegative | None = None
    output_price: NonNegative | None = None


class ServiceSettings(Section, frozen=True, kw_only=True):
    """The daemon. Durations in seconds."""

    drain_timeout: NonNegative = 30.0


class LoggingSettings(Section, frozen=True, kw_only=True):
    """The log on stdout and in the state folder."""

    level: str = "INFO"
    format: str = "auto"
    max_bytes: Annotated[int, Meta(ge=1024)] = 10 * 1024 * 1024
    backups: Natural = 5


class Settings(Section, frozen=True, kw_only=True):
    """The whole configuration."""

    agents: AgentSettings = AgentSettings()
    manager: ManagerSettings = ManagerSettings()
    retry: RetrySettings = RetrySettings()
    safety: SafetySettings = SafetySettings()
    limits: tuple[LimitSpec, ...] = ()
    health: HealthSettings = HealthSettings()
    learning: LearningSettings = LearningSettings()
    handlers: HandlerSettings = HandlerSettings()
    execution: ExecutionSettings = ExecutionSettings()
    queue: QueueSettings = QueueSettings()
    feedback: FeedbackSettings = FeedbackSettings()
    plan: PlanSettings = PlanSettings()
    service: ServiceSettings = ServiceSettings()
    logging: LoggingSettings = LoggingSettings()


class CurrentSettings:
    """The settings in force: read `now` at each use, so that a reload is seen."""

    def __init__(self, now: Settings) -> None:
        self.now = now
