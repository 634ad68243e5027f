"""What a wave taught: plan against outcome, as signals and rows for the neighbours and as evidence for the next plan.

Called by the feedback reader once a wave has its health. A task that was never started teaches nothing.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

import msgspec

from phase21.domain.evidence import stretched
from phase21.domain.judgements import TOLERANCE, AgentMetrics, Calibration, Health, Signal, Validation
from phase21.domain.records import RunRecord, TaskRecord, WaveRecord
from phase21.evaluation.metrics import Ran, ran, taught

Z_95 = 1.959963984540054
"""The 97.5 % quantile of the normal distribution: 95 % lie within it on both sides."""

LIKELY = 0.5 - TOLERANCE
"""From here on success is what was predicted."""

CERTAIN = 0.9 - TOLERANCE
"""From here on (or this close to 0) the prediction left little doubt."""

OF_COORDINATION = frozenset({"agent_failure", "agent_offline", "agent_stuck", "coordination_issue", "load_imbalance"})
"""Anomalies that tell about how agents work together."""


def wilson_half_width(successes: int, n: int) -> float:
    """Half the width of the 95 % Wilson score interval of a rate; 0.5, knowing nothing, where n is 0."""
    variance = successes * (n - successes) / n if n else 0.0
    return Z_95 / (n + Z_95 * Z_95) * sqrt(variance + Z_95 * Z_95 / 4.0)


def error_analysis(predicted: float, success: bool) -> str:  # noqa: FBT001 -- an outcome, not a switch
    """How a prediction held, in a short phrase."""
    if success:
        if predicted >= LIKELY:
            return "as predicted"
        return "underestimated" if predicted > 1.0 - CERTAIN else "underestimated: failure was nearly certain"
    if predicted < LIKELY:
        return "as predicted"
    return "overestimated" if predicted < CERTAIN else "overestimated: success was nearly certain"


def signals(wave: WaveRecord, health: Health, run: RunRecord, fleet_size: int) -> list[Signal]:
    """The signals of a settled wave about many tasks: its agents, its coordination, its heuristics."""
    told = [_agent_performance(part) for part in health.agents]
    told.append(_coordination(wave, health, fleet_size))
    told.extend(_heuristic_feedback(tally, wave, run) for tally in _tallies(wave).values())
    return told


def validations(wave: WaveRecord, tasks: Ran | None = None) -> list[Validation]:
    """The signals of a settled wave about one task each, in task order; `tasks` are `taught` of it where that is known."""
    shown = taught(wave) if tasks is None else tasks
    return [Validation(record.task.task_id, agent_id, record.predicted, success) for record, agent_id, success in shown]


class Lessons(msgspec.Struct, frozen=True, kw_only=True):
    """What to add to what is known: of each agent that ran something, by kind of task, and of each heuristic as (hits, samples).

    `kinds` is empty where all of it is about tasks of one `kind`; else it holds what `agents` does and, beside it, the
    attempts that failed at one agent before the task ended with another.
    """

    agents: dict[str, Calibration]
    kind: str
    kinds: dict[str, dict[str, Calibration]]
    heuristics: dict[str, tuple[int, int]]


def evidence(wave: WaveRecord, tasks: Ran | None = None) -> Lessons:
    """What a settled wave teaches; `tasks` are `taught` of it where that is known."""
    kind = next((record.task.kind for record in wave.tasks.values()), "")
    sums: dict[tuple[str, str], list[float]] = {}
    strays: dict[tuple[str, str], list[float]] = {}
    for record, agent_id, success in taught(wave) if tasks is None else tasks:
        task = record.task
        key = (agent_id, task.kind)
        gained = sums.get(key)
        if gained is None:
            gained = sums[key] = [0, 0, 0.0, 0, 0.0]
        gained[0] += 1
        gained[1] += success
        gained[2] += record.raw
        if record.duration_s and task.estimated_duration_s:
            gained[3] += 1
            gained[4] += stretched(record.duration_s, task.estimated_duration_s)
        if record.failures:
            _count_strays(record, agent_id, strays)
    plain = not strays and all(of_kind == kind for _, of_kind in sums)
    return Lessons(
        agents=_by_agent(sums),
        kind=kind,
        kinds={} if plain else _by_kind(sums, strays),
        heuristics={name: (tally.hits, tally.samples) for name, tally in _tallies(wave).items()},
    )


def _count_strays(record: TaskRecord, agent_id: str, strays: dict[tuple[str, str], list[float]]) -> None:
    """One failure for each other agent that failed at the task before it ended elsewhere."""
    for failed in dict.fromkeys(failed for failed, _ in record.failures if failed != agent_id):
        missed = strays.setdefault((failed, record.task.kind), [0, 0, 0.0, 0, 0.0])
        missed[0] += 1
        missed[2] += record.task.raw_prediction(failed)


def _by_agent(sums: dict[tuple[str, str], list[float]]) -> dict[str, Calibration]:
    agents: dict[str, Calibration] = {}
    for (agent_id, _), gained in sums.items():
        had = agents.get(agent_id)
        agents[agent_id] = _calibration(gained) if had is None else had + _calibration(gained)
    return agents


def _by_kind(*all_sums: dict[tuple[str, str], list[float]]) -> dict[str, dict[str, Calibration]]:
    kinds: dict[str, dict[str, Calibration]] = {}
    for sums in all_sums:
        for (agent_id, kind), gained in sums.items():
            of_agent = kinds.setdefault(agent_id, {})
            of_agent[kind] = of_agent.get(kind, Calibration()) + _calibration(gained)
    return kinds


def _calibration(gained: list[float]) -> Calibration:
    samples, successes, predicted_sum, measured, stretch_sum = gained
    return Calibration(int(samples), int(successes), predicted_sum, int(measured), stretch_sum)


def heuristic_rows(wave: WaveRecord, run: RunRecord) -> list[dict[str, Any]]:
    """Rows for Phase 16. `run.heuristics` must not hold this wave yet: `improvement` is over the waves before."""
    return [
        {
            "heuristic_id": tally.heuristic_id,
            "accuracy": tally.accuracy,
            "error_rate": 1.0 - tally.accuracy,
            "improvement": _improvement(tally, run),
            "samples": tally.samples,
            "wave": wave.number,
        }
        for tally in _tallies(wave).values()
    ]


def coordination_rows(wave: WaveRecord, health: Health) -> list[dict[str, Any]]:
    """Rows for Phase 18, one for each agent that had tasks; `performance_score` is 100 x its success rate."""
    return [
        {
            "agent_id": part.agent_id,
            "wave": wave.number,
            "performance_score": None if part.success_rate is None else 100.0 * part.success_rate,
            "coordination_issues": [kind for kind in _seen(wave, {part.agent_id}) if kind in OF_COORDINATION],
        }
        for part in health.agents
    ]


# -- about agents and waves ------------------------------------------------------------------------------------------


def _agent_performance(part: AgentMetrics) -> Signal:
    return Signal(
        signal_type="agent_performance",
        target_phase=18,
        content={
            "agent_id": part.agent_id,
            "assigned_tasks": part.assigned_tasks,
            "completed_tasks": part.completed_tasks,
            "success_rate": part.success_rate,
            "mean_latency_s": part.mean_latency_s,
            "retries": part.retries,
        },
        confidence=1.0 - wilson_half_width(part.completed_tasks, part.load),
    )


def _coordination(wave: WaveRecord, health: Health, fleet_size: int) -> Signal:
    loads = dict.fromkeys(wave.fleet, 0)
    loads.update((part.agent_id, part.load) for part in health.agents)
    completed = sum(part.completed_tasks for part in health.agents)
    return Signal(
        signal_type="multi_agent_coordination",
        target_phase=18,
        content={
            "total_agents": fleet_size,
            "load_distribution": loads,
            "load_balance": health.metrics.load_balance,
            "synchronization_time_s": _synchronization_s(wave),
            "interference_count": wave.moved,
        },
        confidence=1.0 - wilson_half_width(completed, health.metrics.started_tasks),
    )


def _synchronization_s(wave: WaveRecord) -> float | None:
    """Seconds from the moment when the first agent had nothing more to do until the barrier; None where nothing ran."""
    done_us: dict[str, int] = {}
    opened_us = wave.opened_us or 0  # what ended before was an attempt of an earlier wave
    for record in wave.tasks.values():
        if record.end_us is not None and record.agent_id is not None and record.end_us >= opened_us:
            done_us[record.agent_id] = max(done_us.get(record.agent_id, 0), record.end_us)
    if not done_us or wave.settled_us is None:
        return None
    return (wave.settled_us - min(done_us.values())) / 1e6


def _seen(wave: WaveRecord, agents: set[str]) -> list[str]:
    """The types of the wave's anomalies that concern one of these agents, or all; each once."""
    types = [anomaly.anomaly_type for _, anomaly in wave.anomalies if anomaly.agent_id is None or anomaly.agent_id in agents]
    return list(dict.fromkeys(types))


# -- about heuristics ------------------------------------------------------------------------------------------------


class _Tally:
    """How one heuristic's tasks went in a wave; `hits` are those with (predicted >= 0.5) = outcome."""

    __slots__ = ("agents", "heuristic_id", "hits", "predicted_sum", "samples", "successes")

    def __init__(self, heuristic_id: str) -> None:
        self.heuristic_id = heuristic_id
        self.hits = self.samples = self.successes = 0
        self.predicted_sum = 0.0
        self.agents: set[str] = set()

    @property
    def accuracy(self) -> float:
        """The share of hits; there is no tally without a task."""
        return self.hits / self.samples


def _tallies(wave: WaveRecord) -> dict[str, _Tally]:
    """A tally for each heuristic, in the order of first appearance; a task counts once for a heuristic."""
    tallies: dict[str, _Tally] = {}
    if not any(record.task.heuristics for record in wave.tasks.values()):
        return tallies
    for record, agent_id, success in ran(wave):
        for heuristic_id in dict.fromkeys(record.task.heuristics):
            tally = tallies.get(heuristic_id)
            if tally is None:
                tally = tallies[heuristic_id] = _Tally(heuristic_id)
            tally.samples += 1
            tally.successes += success
            tally.hits += (record.predicted >= LIKELY) == success
            tally.predicted_sum += record.predicted
            tally.agents.add(agent_id)
    return tallies


def _improvement(tally: _Tally, run: RunRecord) -> float | None:
    hits, samples = run.heuristics.get(tally.heuristic_id, (0, 0))
    return tally.accuracy - hits / samples if samples else None


def _heuristic_feedback(tally: _Tally, wave: WaveRecord, run: RunRecord) -> Signal:
    return Signal(
        signal_type="heuristic_feedback",
        target_phase=16,
        content={
            "heuristic_id": tally.heuristic_id,
            "pattern_observations": _observations(tally, _improvement(tally, run)),
            "anomalies_detected": _seen(wave, tally.agents),
            "recommendations": _recommendations(tally),
            "accuracy": tally.accuracy,
        },
        confidence=1.0 - wilson_half_width(tally.successes, tally.samples),
    )


def _observations(tally: _Tally, improvement: float | None) -> list[str]:
    said = [
        f"{tally.successes} of {tally.samples} tasks succeeded; {tally.predicted_sum / tally.samples:.1%} were predicted to",
        f"{tally.hits} of {tally.samples} predictions held",
    ]
    if improvement is not None:
        said.append(f"accuracy moved by {100.0 * improvement:+.1f} points against the waves before")
    return said


def _recommendations(tally: _Tally) -> list[str]:
    """What to change where the mean prediction lies outside the 95 % Wilson interval, or most predictions did not hold."""
    n, half = tally.samples, wilson_half_width(tally.successes, tally.samples)
    centre = (tally.successes + Z_95 * Z_95 / 2.0) / (n + Z_95 * Z_95)
    mean = tally.predicted_sum / n
    said = []
    if mean > centre + half:
        said.append("lower the predictions that this heuristic shapes")
    elif mean < centre - half:
        said.append("raise the predictions that this heuristic shapes")
    if tally.accuracy < LIKELY:
        said.append("do not rely on this heuristic until its predictions hold")
    return said
