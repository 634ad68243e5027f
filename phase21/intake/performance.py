"""Folders of Phase 18 and 19 (and the tasks of Phase 16 and 20) become what is known: agents, tasks, schedules and their outcomes.

Called by the verb `optimize`. It reads and changes nothing; the same folders give the same values. Unlike predictions that are to be
carried out, a plan on half of what a folder says would mislead: the first thing that cannot be read refuses the whole, by file and field.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from phase21.domain.errors import InputRefused
from phase21.domain.tasks import DEFAULT_SUCCESS_RATE, ID_PATTERN, Identifier, Rate, RiskLevel, Seconds, Task, WaveNumber
from phase21.evaluation.schedules import Slot
from phase21.intake import predictions
from phase21.store import codec

SUMMARY, PATTERNS, HEALTH, SIGNALS = (
    "multi_agent_summary.json",
    "coordination_patterns.json",
    "system_health.json",
    "learning_signals.jsonl",
)
OPTIMIZED, WEIGHTS = "optimization_summary.json", "heuristic_weights.json"
PLANNED, SCHEDULED = "planned_tasks.jsonl", "scheduled_tasks.jsonl"
OUTCOMES = ("execution_outcomes.jsonl", "executed_tasks.jsonl")
PHASES = ("phase18", "phase19", "phase20")
"""Folders within the one that is given that are read as well."""

ASSUMED_TASKS = 10
"""How many tasks a success rate without a history is taken to be over."""

UNASSIGNED = "unassigned"
"""Where a run's folder keeps what no agent had."""

MS = 1000.0
"""Times in a Phase 19 schedule are milliseconds, as its `expected_completion_time_ms` of the same tasks says."""

DELTAS = ("predicted_confidence_delta", "confidence_delta_estimate")
"""The fields of a task's metadata that say what the planner expects of its confidence: Phase 16's and Phase 20's."""

_SUCCEEDED = frozenset({"completed", "success", "succeeded"})
_FAILED = frozenset({"failed", "failure", "error"})
_NEVER_RAN = frozenset({"cancelled", "deferred", "skipped"})
_WAVE = re.compile(r"wave_([1-9][0-9]{0,14})")
_STAMP = re.compile(rb'"(?:timestamp|generated_at)"\s*:\s*"([^"\\]+)"')

T = TypeVar("T")
Count = Annotated[int, Meta(ge=0)]


class AgentShown(msgspec.Struct, frozen=True, kw_only=True):
    """What a folder says of an agent: its success rate (None where it says nothing), over how many tasks, its capabilities."""

    agent_id: str
    success_rate: float | None = None
    tasks: int = 0
    capabilities: tuple[str, ...] = ()


class Result(msgspec.Struct, frozen=True):
    """What Phase 19 said of one of its plans."""

    strategy: str = "unknown"
    expected_success_rate: Rate | None = None
    agent_assignments: dict[str, list[str]] = {}


class Performance(msgspec.Struct, frozen=True, kw_only=True):
    """What folders hold. `recorded` are schedules that were made before, with the outcomes that are recorded of them, by wave.

    `patterns` are success rates by kind of task; `newest` is the newest timestamp that stands in any of the files; `nobodys` counts
    outcomes that name no agent, and so are nobody's record.
    """

    agents: tuple[AgentShown, ...]
    tasks: dict[int, tuple[Task, ...]]
    recorded: dict[int, tuple[Slot, ...]]
    results: tuple[Result, ...]
    weights: dict[str, float]
    patterns: dict[str, float]
    coordination: tuple[Any, ...]
    health: dict[str, Any] | None
    signals: int
    newest: str | None
    nobodys: int = 0


class _Agent(msgspec.Struct, frozen=True):
    success_rate: Rate | None = None
    success_history: list[bool | Rate] = []
    capabilities: tuple[Identifier, ...] = ()


class _Pattern(msgspec.Struct, frozen=True):
    success_rate: Rate | None = None


class _Summary(msgspec.Struct, frozen=True):
    agent_performance: dict[Identifier, msgspec.Raw] = {}
    task_success_patterns: dict[str, Any] = {}


class _Optimized(msgspec.Struct, frozen=True):
    optimization_results: list[Result] = []


class _Row(msgspec.Struct, frozen=True, gc=False):
    """A row about a task: of what is planned, scheduled or done. Times of schedules in milliseconds from the wave's beginning."""

    task_id: Identifier
    agent_id: Identifier | None = None
    wave: WaveNumber | None = None
    kind: Identifier | None = None
    task_type: Identifier | None = None
    priority: Annotated[int, Meta(ge=1, le=2**31)] | None = None
    risk_level: RiskLevel | None = None
    capabilities: tuple[Identifier, ...] = ()
    features: dict[str, float | str] = {}
    heuristics: tuple[str, ...] = ()
    heuristics_applied: tuple[str, ...] = ()
    raw_predicted_success_rate: Rate | None = None
    predicted_success_rate: Rate | None = None
    predicted_success_probability: Rate | None = None
    confidence: Rate | None = None
    initial_confidence: Rate | None = None
    predicted_confidence_delta: float | None = None
    confidence_delta_estimate: float | None = None
    confidence_delta: float | None = None
    estimated_duration_s: Seconds | None = None
    predicted_execution_time: Seconds | None = None
    scheduled_start_time: float | None = None
    scheduled_end_time: float | None = None
    actual_start_time: float | None = None
    actual_end_time: float | None = None
    duration_s: Seconds | None = None
    execution_time_ms: float | None = None
    status: str | None = None
    success: bool | None = None
    attempts: Count | None = None
    retry_count: Count | None = None

    @property
    def rate(self) -> float | None:
        """What was predicted, as it came in where the row says both."""
        stated = (self.raw_predicted_success_rate, self.predicted_success_rate, self.predicted_success_probability)
        found = (*stated, self.confidence, self.initial_confidence)
        return next((rate for rate in found if rate is not None), None)

    @property
    def estimate_s(self) -> float | None:
        """How long it should take."""
        if self.estimated_duration_s is not None or self.predicted_execution_time is not None:
            return self.estimated_duration_s if self.estimated_duration_s is not None else self.predicted_execution_time
        if self.scheduled_start_time is None or self.scheduled_end_time is None:
            return None
        return max(0.0, self.scheduled_end_time - self.scheduled_start_time) / MS

    @property
    def planned_delta(self) -> float | None:
        """What the planner expects of the task's confidence."""
        return self.predicted_confidence_delta if self.predicted_confidence_delta is not None else self.confidence_delta_estimate

    @property
    def succeeded(self) -> bool | None:
        """Whether it succeeded; None where the row does not say."""
        word = (self.status or "").lower()
        if self.success is not None or word not in _SUCCEEDED | _FAILED:
            return self.success
        return word in _SUCCEEDED


Key = tuple[int, str]
"""A wave and a task's id."""


def read_folders(paths: Iterable[str]) -> Performance:
    """What the folders hold between them. Raises InputRefused where one is none, holds nothing of it, or cannot be read."""
    reading = _Reading()
    for path in paths:
        root = Path(path)
        if not root.is_dir():
            raise InputRefused(f"{path}: there is no such folder")
        before = reading.files
        for folder in (root, *(root / phase for phase in PHASES if (root / phase).is_dir())):
            reading.take(folder)
        if reading.files == before:
            named = f"{SUMMARY}, {OPTIMIZED}, {PLANNED}, {SCHEDULED} and {predictions.TASKS_FILE}"
            raise InputRefused(f"{path}: nothing of Phase 18 or 19 stands here; looked for {named}, also under wave_X/agent_Y/")
    return reading.result()


class _Reading:
    """The folders as they are read."""

    def __init__(self) -> None:
        self.files = 0
        self.stamps: set[str] = set()
        self.agents: dict[str, AgentShown] = {}
        self.patterns: dict[str, float] = {}
        self.predicted: dict[Key, Task] = {}
        self.planned: dict[Key, list[_Row]] = {}
        self.scheduled: dict[Key, _Row] = {}
        self.outcomes: dict[Key, _Row] = {}
        self.results: list[Result] = []
        self.weights: dict[str, float] = {}
        self.coordination: list[Any] = []
        self.health: dict[str, Any] | None = None
        self.signals = 0

    def take(self, folder: Path) -> None:
        """Take in a folder's own files, and those of its waves."""
        self._summary(folder / SUMMARY)
        for optimized in self._json(folder / OPTIMIZED, _Optimized):
            self.results.extend(optimized.optimization_results)
        for weights in self._json(folder / WEIGHTS, dict[str, Annotated[float, Meta(ge=0)]]):
            self.weights.update(weights)
        self.coordination.extend(self._json(folder / PATTERNS, Any))
        self.health = next(self._json(folder / HEALTH, dict[str, Any]), self.health)
        self.signals += sum(1 for _ in self._lines(folder / SIGNALS, dict[str, Any]))
        self._predictions(folder)
        for place, wave, agent_id in _places(folder):
            self._rows(place, wave, agent_id)

    def _summary(self, file: Path) -> None:
        for summary in self._json(file, _Summary):
            for agent_id, said in summary.agent_performance.items():
                self.agents[agent_id] = _shown(agent_id, _decoded(said, _Agent, f"{file}: agent_performance.{agent_id}"))
            for kind, pattern in summary.task_success_patterns.items():
                rate = _pattern(pattern, f"{file}: task_success_patterns.{kind}")
                if rate is not None:
                    self.patterns[kind] = rate

    def _predictions(self, folder: Path) -> None:
        """The tasks of Phase 20, where the folder holds any."""
        name = predictions.TASKS_FILE
        if not (folder / name).is_file() and next(folder.glob(f"wave_*/agent_*/{name}"), None) is None:
            return
        found = predictions.read_folder(str(folder))
        for refused in found.rejected:
            raise InputRefused(f"{folder / refused.file}: line {refused.line}: {refused.error}", refused.path)
        self.files += 1
        for file in sorted(folder.glob(f"**/{name}")):
            self._stamped(file.read_bytes())
        for wave, tasks in found.waves.items():
            self.predicted.update(((wave, task.task_id), task) for task in tasks)

    def _rows(self, place: Path, wave: int | None, agent_id: str | None) -> None:
        for row in self._lines(place / PLANNED, _Row):
            self.planned.setdefault(_key(row, wave), []).append(_of_agent(row, agent_id))
        for row in self._lines(place / SCHEDULED, _Row):
            self.scheduled.setdefault(_key(row, wave), _of_agent(row, agent_id))
        for name in OUTCOMES:
            for row in self._lines(place / name, _Row):
                self.outcomes[_key(row, wave)] = _of_agent(row, agent_id)

    def _json(self, file: Path, kind: type[T] | Any) -> Iterator[T | Any]:
        """The value of a file, nothing where it does not stand."""
        data = self._bytes(file)
        if data is not None:
            yield _decoded(data, kind, str(file))

    def _lines(self, file: Path, kind: type[T]) -> Iterator[T]:
        for number, line in enumerate((self._bytes(file) or b"").splitlines(), 1):
            if line.strip():
                yield _decoded(line, kind, f"{file}: line {number}")

    def _bytes(self, file: Path) -> bytes | None:
        try:
            data = file.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise InputRefused(f"{file}: cannot be read: {error.strerror}") from None
        self.files += 1
        self._stamped(data)
        return data

    def _stamped(self, data: bytes) -> None:
        self.stamps.update(stamp.decode(errors="replace") for stamp in _STAMP.findall(data))

    # -- what it comes to ------------------------------------------------------------------------------------------------

    def result(self) -> Performance:
        """What all of it comes to: agents and tasks in their natural order, waves by number."""
        tasks: dict[int, list[Task]] = {}
        for key in sorted({*self.predicted, *self.planned, *self.scheduled, *self.outcomes}, key=_place_of):
            tasks.setdefault(key[0], []).append(self._task(key))
        recorded: dict[int, list[Slot]] = {}
        for key in sorted({*self.scheduled, *self.outcomes}, key=_place_of):
            slot = self._slot(key)
            if slot is not None:
                recorded.setdefault(key[0], []).append(slot)
        nobodys = [row for row in self.outcomes.values() if row.agent_id is None and row.succeeded is not None]
        return Performance(
            agents=tuple(self._all_agents()),
            tasks={wave: tuple(of_wave) for wave, of_wave in tasks.items()},
            recorded={wave: tuple(slots) for wave, slots in recorded.items()},
            results=tuple(self.results),
            weights=self.weights,
            patterns=self.patterns,
            coordination=tuple(self.coordination),
            health=self.health,
            signals=self.signals,
            newest=_newest(self.stamps),
            nobodys=len(nobodys),
        )

    def _all_agents(self) -> Iterator[AgentShown]:
        """Those that are told of, and those that have rows or predictions, by name."""
        rows = [*self.scheduled.values(), *self.outcomes.values(), *(row for rows in self.planned.values() for row in rows)]
        named = {row.agent_id for row in rows if row.agent_id is not None}
        named.update(agent_id for task in self.predicted.values() for agent_id in task.predictions)
        for agent_id in sorted(named | self.agents.keys(), key=naturally):
            yield self.agents.get(agent_id) or AgentShown(agent_id=agent_id)

    def _task(self, key: Key) -> Task:
        """A task as all that is said of it before it is done: Phase 20's word, else its planned rows', else its schedule's."""
        rows = self.planned.get(key) or [row for row in (self.scheduled.get(key),) if row is not None]
        task = self.predicted.get(key)
        return task if task is not None else _task_of(key[1], rows or [self.outcomes[key]], self.patterns)

    def _slot(self, key: Key) -> Slot | None:
        """A task's place in the schedule that was made before, and what is recorded of it; None where no agent is named."""
        outcome = self.outcomes.get(key)
        row = self.scheduled.get(key) or outcome
        assert row is not None  # noqa: S101 - one of both has the key
        if row.agent_id is None:
            return None
        first = self.planned.get(key, [row])[0]
        return _recorded(row, outcome or row, first)


def _places(folder: Path) -> Iterator[tuple[Path, int | None, str | None]]:
    """Where rows may stand: the folder itself, and wave_X/agent_Y/ in it."""
    yield folder, None, None
    for wave in sorted(folder.glob("wave_*"), key=lambda path: naturally(path.name)):
        match = _WAVE.fullmatch(wave.name)
        if match is not None and wave.is_dir():
            for agent in sorted(wave.iterdir(), key=lambda path: naturally(path.name)):
                yield agent, int(match[1]), _agent_of(agent)


def _agent_of(folder: Path) -> str | None:
    if folder.name == UNASSIGNED:
        return None
    if folder.is_dir() and re.search(ID_PATTERN, folder.name) is None:
        raise InputRefused(f"{folder}: no name of an agent; allowed: A-Z a-z 0-9 . _ -, beginning with a letter or digit")
    return folder.name


def naturally(name: str) -> list[tuple[int, str]]:
    """A key that puts `agent_2` before `agent_10`."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", name)]


def _place_of(key: Key) -> tuple[int, list[tuple[int, str]]]:
    return key[0], naturally(key[1])


def _decoded(data: bytes | msgspec.Raw, kind: Any, where: str) -> Any:
    try:
        return codec.decode(bytes(data), kind)
    except codec.CodecError as error:
        said = " ".join(str(error).replace("`", "").split())
        named = re.search(r"required field (\w+)", said)
        path = error.path or (named[1] if named else None)
        raise InputRefused(f"{where}: {f'{path}: ' if path else ''}{said[0].lower()}{said[1:]}", path) from None


def _key(row: _Row, wave: int | None) -> Key:
    return row.wave or wave or 1, row.task_id


def _of_agent(row: _Row, agent_id: str | None) -> _Row:
    return row if row.agent_id is not None or agent_id is None else msgspec.structs.replace(row, agent_id=agent_id)


def _shown(agent_id: str, agent: _Agent) -> AgentShown:
    """A rate stands for its history's length, `ASSUMED_TASKS` without one; a history alone has its mean for a rate."""
    history, rate = agent.success_history, agent.success_rate
    if rate is None and history:
        rate = sum(map(float, history)) / len(history)
    tasks = len(history) or (ASSUMED_TASKS if rate is not None else 0)
    return AgentShown(agent_id=agent_id, success_rate=rate, tasks=tasks, capabilities=agent.capabilities)


def _pattern(said: Any, where: str) -> float | None:
    """A kind's success rate: a number, or an object that has one; None where it says something else."""
    if isinstance(said, dict):
        pattern: _Pattern = _decoded(codec.encode(said), _Pattern, where)
        return pattern.success_rate
    if isinstance(said, int | float) and not isinstance(said, bool):
        rate: float = _decoded(codec.encode(said), Rate, where)
        return rate
    return None


def planned_delta(task: Task) -> float | None:
    """What the planner expects of its confidence in the task: the mean where it says so by agent, None where it says nothing."""
    said = next((task.metadata[name] for name in DELTAS if name in task.metadata), None)
    values = list(said.values()) if isinstance(said, dict) else [said]
    numbers = [float(value) for value in values if isinstance(value, int | float)]
    return sum(numbers) / len(numbers) if numbers else None


def _task_of(task_id: str, rows: list[_Row], patterns: Mapping[str, float]) -> Task:
    """A task of its rows: a rate for each agent where several are named, the mean of them for all others."""
    first, rated = rows[0], [(row.agent_id, row.rate) for row in rows if row.rate is not None]
    kind = first.kind or first.task_type or "simulate"
    mean = sum(rate for _, rate in rated) / len(rated) if rated else patterns.get(kind, DEFAULT_SUCCESS_RATE)
    estimates = [row.estimate_s for row in rows if row.estimate_s is not None]
    delta = first.planned_delta
    return Task(
        task_id=task_id,
        kind=kind,
        predicted_success_rate=min(1.0, mean),
        predictions={agent_id: rate for agent_id, rate in rated if agent_id is not None} if len(rated) > 1 else {},
        priority=first.priority or 2,
        risk_level=first.risk_level or RiskLevel.LOW,
        estimated_duration_s=sum(estimates) / len(estimates) if estimates else 1.0,
        capabilities=first.capabilities,
        heuristics=first.heuristics or first.heuristics_applied,
        features=first.features,
        metadata={} if delta is None else {DELTAS[0]: delta},
    )


def _recorded(row: _Row, outcome: _Row, planned: _Row) -> Slot:
    """A row of a schedule with what came of it. A row that was only ever an outcome has no plan to be held against."""
    success = outcome.succeeded
    settled = success is not None or (outcome.status or "").lower() in _NEVER_RAN
    started_ms, ended_ms = outcome.actual_start_time, outcome.actual_end_time
    retries = outcome.attempts - 1 if outcome.attempts else outcome.retry_count
    return Slot(
        task_id=row.task_id,
        agent_id=row.agent_id or "",
        priority=row.priority or planned.priority or 2,
        predicted=planned.predicted_success_rate if planned.predicted_success_rate is not None else row.rate,
        starts_s=_seconds(row.scheduled_start_time),
        ends_s=_seconds(row.scheduled_end_time),
        planned_delta=planned.planned_delta,
        heuristics=planned.heuristics or planned.heuristics_applied,
        settled=settled,
        success=success,
        ran_by=outcome.agent_id if success is not None else None,
        started_s=_seconds(started_ms),
        ended_s=_seconds(ended_ms),
        busy_s=outcome.duration_s if outcome.duration_s is not None else _seconds(outcome.execution_time_ms),
        actual_delta=outcome.confidence_delta,
        retries=retries if settled else None,
        status=(outcome.status or "scheduled").lower(),
    )


def _seconds(ms: float | None) -> float | None:
    return None if ms is None else ms / MS


def _newest(stamps: Iterable[str]) -> str | None:
    """The newest of the timestamps, as it stands; those that are none do not count, one without a zone is UTC."""
    found: list[tuple[datetime, str]] = []
    for stamp in stamps:
        try:
            at = datetime.fromisoformat(stamp)
        except ValueError:
            continue
        found.append((at if at.tzinfo else at.replace(tzinfo=UTC), stamp))
    return max(found)[1] if found else None
