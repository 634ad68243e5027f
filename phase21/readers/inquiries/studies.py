"""Waves as schedules: planned anew from what folders say, or read off a run's closed waves.

Called by `optimization`, which writes files of them. Planning is the planner's, with a strategy of the one registry and the one forecast.
Nothing here touches a disk or reads a clock: the same input gives the same study.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import fsum
from pathlib import Path
from typing import Any

import msgspec

from phase21.domain import events as ev
from phase21.domain.errors import UsageError
from phase21.domain.evidence import OBSERVATIONS_KEPT, Evidence, Observation, observation, stretched
from phase21.domain.judgements import Calibration
from phase21.domain.ledger import Ledger
from phase21.domain.plans import Plan
from phase21.domain.records import AgentRecord, TaskRecord, WaveRecord
from phase21.domain.settings import HealthThresholds, Settings
from phase21.domain.tasks import Task, TaskStatus
from phase21.evaluation import optimization as opt
from phase21.evaluation.schedules import Comparison, Placed, Shown, Slot, WaveFacts, compared, laid_out, learned
from phase21.intake.performance import PHASES, AgentShown, Performance, planned_delta
from phase21.planning.forecast import Forecast
from phase21.planning.planner import plan
from phase21.planning.registry import ADAPTIVE, NAMES, chosen
from phase21.planning.strategies import Terms
from phase21.store.clock import iso

DEFAULT_STRATEGY = "maximize_success"
RECORDED = "recorded"
"""What a strategy is called that nobody named: somebody's schedule was found, and not how it was made."""


class StudiedWave(msgspec.Struct, frozen=True, kw_only=True):
    """A wave: its plan as facts, and the facts that are held against outcomes (a schedule that was carried out, else the plan).

    `raw` are predictions as they came in, by task; `best_successes` is how many tasks would be expected to succeed if each had its best
    agent (None where nobody knows); `unplaced` are tasks that nobody can do or has room for, and why.
    """

    plan: WaveFacts
    held: WaveFacts
    tasks: dict[str, Task]
    raw: dict[str, float] = {}
    best_successes: float | None = None
    unplaced: tuple[tuple[str, str], ...] = ()

    @property
    def number(self) -> int:
        """The wave's number."""
        return self.plan.wave


class Study(msgspec.Struct, frozen=True, kw_only=True):
    """All that the files are made of. `agents` say what was known of them before the first wave; times are ISO 8601 or None.

    `run_id` is None where folders were read; `nobodys` counts outcomes that name no agent and are left out.
    """

    run_id: str | None = None
    strategy: str
    waves: tuple[StudiedWave, ...]
    agents: tuple[AgentShown, ...]
    shown: dict[str, Shown]
    weights: dict[str, float] = {}
    coordination: tuple[Any, ...] = ()
    signals: int = 0
    upstream_health: dict[str, Any] | None = None
    timestamp: str | None = None
    started: str | None = None
    duration_ms: float | None = None
    nobodys: int = 0

    @property
    def source(self) -> str:
        """Where it comes from, for a person."""
        return "Phase 18 and 19 folders" if self.run_id is None else f"run {self.run_id}"

    @property
    def held(self) -> tuple[WaveFacts, ...]:
        """The facts that are held against outcomes."""
        return tuple(wave.held for wave in self.waves)


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """How folders are to be planned: by which strategy, over whom where they name no agent, and on which terms."""

    strategy: str = DEFAULT_STRATEGY
    agent_ids: tuple[str, ...] = ()
    terms: Terms = Terms()
    learning: bool = True


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """What a study comes to: everything that is worth saying more than once."""

    readings: tuple[opt.Reading, ...]
    seen: tuple[opt.Seen, ...]
    health: opt.ScheduleHealth
    heuristics: tuple[opt.HeuristicRecord, ...]
    effectiveness: dict[str, float | None]
    comparisons: tuple[Comparison, ...]
    feedback: tuple[opt.Feedback, ...]


def findings_of(study: Study, thresholds: HealthThresholds) -> Findings:
    """Measure a study: five metrics, four anomalies, health, and what it teaches."""
    held = study.held
    readings, seen = opt.readings(held), opt.seen(held)
    heuristics = tuple(opt.heuristic_records(held, study.weights))
    return Findings(
        readings=readings,
        seen=seen,
        health=opt.health(readings, len(seen), thresholds),
        heuristics=heuristics,
        effectiveness=opt.strategy_effectiveness(held),
        comparisons=tuple(map(compared, held)),
        feedback=tuple(opt.feedback(held, heuristics)),
    )


# -- from folders --------------------------------------------------------------------------------------------------------


def studied(known: Performance, asked: Asked) -> Study:
    """A plan for every wave of the folders, each made of what is known before it: agents' records, and outcomes of waves before."""
    agents = known.agents or tuple(AgentShown(agent_id=agent_id) for agent_id in asked.agent_ids)
    walk = _Walk(known, agents, asked)
    waves = tuple(walk.step(number) for number in sorted(known.tasks))
    return Study(
        strategy=asked.strategy,
        waves=waves,
        agents=agents,
        shown=walk.shown,
        weights=known.weights,
        coordination=known.coordination,
        signals=known.signals,
        upstream_health=known.health,
        timestamp=known.newest,
        nobodys=known.nobodys,
    )


def asked(settings: Settings, strategy: str) -> Asked:
    """What the configuration says of a plan. UsageError for a strategy that there is not. Nothing is explored: a plan is not a trial."""
    if strategy not in NAMES:
        raise UsageError(f"--strategy: there is no strategy {strategy!r}; known: {', '.join(NAMES)}")
    return Asked(
        strategy=strategy,
        agent_ids=tuple(spec.id for spec in settings.agents.specs()),
        terms=Terms(slack=settings.manager.slack, max_attempts=settings.retry.max_attempts, seed=str(settings.handlers.seed)),
        learning=settings.learning.enabled,
    )


def apart(outputs: Path, folders: Iterable[str]) -> None:
    """UsageError where what is written would take the place of what is read."""
    for folder in folders:
        source = Path(folder).resolve()
        if outputs.resolve() in {source, *(source / phase for phase in PHASES)}:
            raise UsageError(
                f"--outputs: {outputs} is read as well; what stands there would be written over; choose another folder"
            )


class _Walk:
    """The waves in their order, and what is known of agents at each."""

    def __init__(self, known: Performance, agents: Sequence[AgentShown], asked: Asked) -> None:
        self._known = known
        self._agents = agents
        self._asked = asked
        self.shown = {agent.agent_id: _shown(agent) for agent in agents}
        self._evidence = {agent.agent_id: self._first_evidence(agent) for agent in agents}
        self._observations: list[Observation] = []
        self._record: dict[str, tuple[int, int]] = {}

    def step(self, number: int) -> StudiedWave:
        """Plan a wave, hold it against what is recorded of it, and learn from that."""
        tasks = self._known.tasks[number]
        strategy = chosen(self._record) if self._asked.strategy == ADAPTIVE else self._asked.strategy
        records = self._records()
        evidence = Evidence(observations=self._observations[-OBSERVATIONS_KEPT:])
        forecast = Forecast(records, enabled=self._asked.learning, evidence=evidence)
        terms = msgspec.structs.replace(self._asked.terms, seed=f"{self._asked.terms.seed}/{number}")
        made = plan(tasks, records, forecast=forecast, strategy=strategy, terms=terms)
        recorded = self._known.recorded.get(number, ())
        facts = self._facts(number, strategy, _with_outcomes(_slots(made, tasks, forecast), recorded))
        held, self.shown = learned(self._held(number, recorded) if recorded else facts, self.shown)
        self._learn(held, {task.task_id: task for task in tasks})
        return StudiedWave(
            plan=facts,
            held=held,
            tasks={task.task_id: task for task in tasks},
            raw={given.task_id: given.raw for given in made.assignments},
            best_successes=_best_successes(made, tasks, records, forecast),
            unplaced=_unplaced(made),
        )

    def _facts(self, number: int, strategy: str, slots: tuple[Slot, ...], expected: float | None = None) -> WaveFacts:
        ids = tuple(agent.agent_id for agent in self._agents)
        return WaveFacts(wave=number, strategy=strategy, agents=ids, slots=slots, expected_success=expected)

    def _held(self, number: int, recorded: tuple[Slot, ...]) -> WaveFacts:
        """The schedule that was made before, under the name and with the expectation of the plan that its tasks stand in."""
        ids = {slot.task_id for slot in recorded}
        for result in self._known.results:
            if ids <= {task_id for given in result.agent_assignments.values() for task_id in given}:
                return self._facts(number, result.strategy, recorded, result.expected_success_rate)
        return self._facts(number, RECORDED, recorded)

    def _records(self) -> list[AgentRecord]:
        return [
            AgentRecord(
                agent_id=agent.agent_id,
                capabilities=agent.capabilities,
                order=order,
                calibration=sum(self._evidence[agent.agent_id].values(), Calibration()),
                kinds=dict(self._evidence[agent.agent_id]),
            )
            for order, agent in enumerate(self._agents)
        ]

    def _first_evidence(self, agent: AgentShown) -> dict[str, Calibration]:
        """An agent's rate as evidence by kind of task.

        Of which kinds its tasks were, and what came in for them, is not recorded: both are taken to be as for the tasks at hand.
        """
        rates: dict[str, list[float]] = {}
        for task in (task for tasks in self._known.tasks.values() for task in tasks):
            rates.setdefault(task.kind, []).append(task.raw_prediction(agent.agent_id))
        shown, tasks_in_all = self.shown[agent.agent_id], sum(map(len, rates.values()))
        evidence: dict[str, Calibration] = {}
        seen = 0
        for kind, found in rates.items():
            samples, successes = (_part(count, seen, len(found), tasks_in_all) for count in (shown.samples, shown.successes))
            seen += len(found)
            if samples:
                evidence[kind] = Calibration(samples, min(successes, samples), samples * fsum(found) / len(found))
        return evidence

    def _learn(self, held: WaveFacts, tasks: Mapping[str, Task]) -> None:
        for slot in held.slots:
            if slot.success is not None and slot.ran_by in self._evidence:
                task, kinds = tasks[slot.task_id], self._evidence[slot.ran_by]
                kinds[task.kind] = kinds.get(task.kind, Calibration()) + _taught(slot, task)
                if task.features:
                    self._observations.append(observation(task, slot.ran_by, success=slot.success, duration_s=_took_s(slot)))
                attempts, successes = self._record.get(held.strategy, (0, 0))
                self._record[held.strategy] = attempts + 1 + (slot.retries or 0), successes + slot.success


def _shown(agent: AgentShown) -> Shown:
    return Shown(agent.tasks, round((agent.success_rate or 0.0) * agent.tasks))


def _part(count: int, before: int, size: int, whole: int) -> int:
    """How many of `count` fall to the next `size` of the whole, so that the parts add up."""
    return count * (before + size) // whole - count * before // whole


def _taught(slot: Slot, task: Task) -> Calibration:
    """What a recorded outcome says of the agent that carried it out."""
    raw, success, took_s = task.raw_prediction(slot.ran_by or ""), int(slot.success is True), _took_s(slot)
    if not took_s or not task.estimated_duration_s:
        return Calibration(1, success, raw)
    return Calibration(1, success, raw, 1, stretched(took_s, task.estimated_duration_s))


def _took_s(slot: Slot) -> float | None:
    if slot.busy_s is not None or slot.started_s is None or slot.ended_s is None:
        return slot.busy_s
    return max(0.0, slot.ended_s - slot.started_s)


def _slots(made: Plan, tasks: Sequence[Task], forecast: Forecast) -> tuple[Slot, ...]:
    by_id = {task.task_id: task for task in tasks}
    placed = []
    for given in made.assignments:
        task = by_id[given.task_id]
        placed.append(Placed(task, given.agent_id, given.predicted, forecast.expected_s(task, given.agent_id)))
    return tuple(msgspec.structs.replace(slot, planned_delta=planned_delta(by_id[slot.task_id])) for slot in laid_out(placed))


def _with_outcomes(slots: tuple[Slot, ...], recorded: Iterable[Slot]) -> tuple[Slot, ...]:
    """The plan's slots with what is recorded of the same task by the same agent; nobody knows what another would have done."""
    known = {(slot.task_id, slot.ran_by): slot for slot in recorded if slot.settled}
    return tuple(_with_outcome(slot, known.get((slot.task_id, slot.agent_id))) for slot in slots)


def _with_outcome(slot: Slot, known: Slot | None) -> Slot:
    if known is None:
        return slot
    return msgspec.structs.replace(
        slot,
        settled=True,
        success=known.success,
        ran_by=known.ran_by,
        started_s=known.started_s,
        ended_s=known.ended_s,
        busy_s=known.busy_s,
        actual_delta=known.actual_delta,
        retries=known.retries,
        status=known.status,
    )


def _best_successes(made: Plan, tasks: Sequence[Task], agents: Sequence[AgentRecord], forecast: Forecast) -> float:
    """Over the tasks that were placed."""
    placed = {given.task_id for given in made.assignments}
    return fsum(
        max(forecast.predicted(task, agent.agent_id) for agent in agents if agent.able(task))
        for task in tasks
        if task.task_id in placed
    )


def _unplaced(made: Plan) -> tuple[tuple[str, str], ...]:
    nobody = [(left.task_id, left.reason) for left in made.unplaced]
    return (*nobody, *((task_id, "every able agent has all that it may be given in a wave") for task_id in made.waiting))


# -- from a run ----------------------------------------------------------------------------------------------------------


def study_of_run(run_id: str, waves: Iterable[WaveRecord]) -> Study:
    """The study of a run's closed waves: what was planned, and what came of it. Each wave's record is let go once it is read."""
    shown: dict[str, Shown] = {}
    found: list[StudiedWave] = []
    started_us = settled_us = None
    for wave in waves:
        facts, shown = learned(facts_of(wave), shown)
        tasks = {task_id: record.task for task_id, record in wave.tasks.items()}
        raw = {given.task_id: given.raw for batch in reversed(wave.batches) for given in batch.assignments}
        found.append(StudiedWave(plan=facts, held=facts, tasks=tasks, raw=raw, unplaced=_never_given(wave, facts)))
        started_us, settled_us = started_us if started_us is not None else wave.opened_us, wave.settled_us
    ids = dict.fromkeys(agent_id for wave in found for agent_id in wave.plan.agents)
    return Study(
        run_id=run_id,
        strategy=found[-1].plan.strategy if found else DEFAULT_STRATEGY,
        waves=tuple(found),
        agents=tuple(AgentShown(agent_id=agent_id) for agent_id in ids),
        shown=shown,
        timestamp=None if settled_us is None else iso(settled_us),
        started=None if started_us is None else iso(started_us),
        duration_ms=None if started_us is None or settled_us is None else (settled_us - started_us) / 1000,
    )


def closed_waves(run_id: str, entries: Iterable[ev.Entry]) -> Iterator[WaveRecord]:
    """The run's closed waves, one after the other, from its entries in order: by the same fold that the outputs are made with."""
    ledger = Ledger()
    for entry in entries:
        event = entry.event
        if getattr(event, "run_id", None) != run_id or isinstance(event, ev.AgentWentOffline | ev.SubmissionRejected):
            continue
        ledger.fold(entry)
        if isinstance(event, ev.PredictionsCalibrated):
            yield ledger.runs[run_id].closing[event.wave]


def facts_of(wave: WaveRecord) -> WaveFacts:
    """A closed wave as facts: each task where it was first planned to run, and what came of it.

    Where tasks went to agents as they became ready no times were planned, and none are made up.
    """
    first: dict[str, tuple[str, float]] = {}
    for batch in wave.batches:
        for given in batch.assignments:
            first.setdefault(given.task_id, (given.agent_id, given.predicted))
    placed = [
        Placed(record.task, *first[task_id], record.task.estimated_duration_s)
        for task_id, record in wave.tasks.items()
        if task_id in first
    ]
    planned = laid_out(placed)
    if wave.by_readiness:
        planned = tuple(msgspec.structs.replace(slot, starts_s=None, ends_s=None) for slot in planned)
    slots = tuple(_ended(slot, wave.tasks[slot.task_id], wave.opened_us or 0) for slot in planned)
    agents = dict.fromkeys([*wave.fleet, *(slot.agent_id for slot in slots), *(slot.ran_by for slot in slots if slot.ran_by)])
    strategy = wave.planned.strategy if wave.planned is not None else RECORDED
    return WaveFacts(wave=wave.number, strategy=strategy, agents=tuple(agents), slots=slots)


def _ended(slot: Slot, record: TaskRecord, opened_us: int) -> Slot:
    """A slot with what came of its task. What was never started has no success; times before this wave are not its own."""
    started = record.attempts > 0
    ended = record.status in {TaskStatus.COMPLETED, TaskStatus.FAILED}
    return msgspec.structs.replace(
        slot,
        planned_delta=planned_delta(record.task),
        settled=True,
        success=record.status is TaskStatus.COMPLETED if ended and started else None,
        ran_by=record.ran_by if ended and started else None,
        started_s=_since(record.first_start_us, opened_us),
        ended_s=_since(record.end_us, opened_us) if started else None,
        busy_s=_busy_s(record) if started else None,
        retries=record.attempts - 1 if started else None,
        status=str(record.status).lower(),
    )


def _since(at_us: int | None, opened_us: int) -> float | None:
    return None if at_us is None or at_us < opened_us else (at_us - opened_us) / 1e6


def _busy_s(record: TaskRecord) -> float:
    return (record.duration_s or 0.0) + fsum(seconds for agent_id, seconds in record.failures if agent_id == record.ran_by)


def _never_given(wave: WaveRecord, facts: WaveFacts) -> tuple[tuple[str, str], ...]:
    given = {slot.task_id for slot in facts.slots}
    return tuple(
        (task_id, record.error_msg or str(record.status)) for task_id, record in wave.tasks.items() if task_id not in given
    )
