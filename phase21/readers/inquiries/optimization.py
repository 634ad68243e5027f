"""The files of an optimization: each wave's schedule by agent, plans against outcomes, weights, metrics, health, and a report.

`contents_of` makes them of a study, `projected` of a run's closed waves; the verb `optimize` puts them where it is told to. Field names
are those of Phase 19's own files. Nothing here reads a clock: the same study gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import fsum
from pathlib import Path
from typing import Any

import msgspec

from phase21.domain.errors import UsageError
from phase21.domain.judgements import Severity
from phase21.domain.plans import balance
from phase21.domain.records import WaveRecord
from phase21.domain.settings import HealthThresholds
from phase21.evaluation import optimization as opt
from phase21.evaluation.schedules import Comparison, Slot, WaveFacts, adherence, compared, expected
from phase21.intake.performance import MS
from phase21.readers import contents
from phase21.readers.inquiries import schedule_report
from phase21.readers.inquiries.studies import Findings, StudiedWave, Study, findings_of, study_of_run
from phase21.store import codec, files

PHASE = 19
PLANNED, SCHEDULED, OUTCOMES = "planned_tasks.jsonl", "scheduled_tasks.jsonl", "execution_outcomes.jsonl"
AGENT_FEEDBACK = "optimization_feedback.json"
AGENT_FILES = (PLANNED, SCHEDULED, OUTCOMES, AGENT_FEEDBACK)
WAVE_SUMMARY, ADHERENCE = "wave_summary.json", "schedule_adherence.json"

OPTIMIZED, SUMMARY = "optimization_summary.json", "phase19_summary.json"
HEALTH, PATTERNS, SIGNALS = "system_health.json", "coordination_patterns.json", "learning_signals.jsonl"
COMPARISONS, FEEDBACK, EVENTS = "schedule_comparisons.jsonl", "optimization_feedback.jsonl", "feedback_events.jsonl"
WEIGHTS, EFFECTIVENESS = "heuristic_weights.json", "strategy_effectiveness.json"
RECOMMENDATIONS, ASSIGNMENTS = "schedule_recommendations.jsonl", "agent_assignments.json"
METRICS, ANOMALIES, ALERTS = "metrics.jsonl", "anomalies.jsonl", "alerts.json"
REPORT = "PHASE_19_AUTONOMOUS_OPTIMIZATION.md"

Row = dict[str, Any]


def projected(run_id: str, waves: Iterable[WaveRecord], thresholds: HealthThresholds | None = None) -> dict[str, bytes]:
    """The files of a run, from its closed waves in their order: a projection of its journal, the same bytes for ever."""
    return contents_of(study_of_run(run_id, waves), thresholds)


def contents_of(study: Study, thresholds: HealthThresholds | None = None) -> dict[str, bytes]:
    """Every file by its path within the folder."""
    found = findings_of(study, thresholds or HealthThresholds())
    made: dict[str, bytes] = {}
    for wave in study.waves:
        made.update(_wave_files(wave, study))
    stamp, held = study.timestamp, study.held
    made[OPTIMIZED] = codec.pretty(_optimized(study, found))
    made[SUMMARY] = codec.pretty(_summary(study, found))
    made[HEALTH] = codec.pretty(_health(study, found))
    made[PATTERNS] = codec.pretty(_patterns(study))
    made[SIGNALS] = made[FEEDBACK] = codec.lines([_stamped(one, stamp) for one in found.feedback])
    made[EVENTS] = codec.lines([_event(slot, facts, stamp) for facts in held for slot in facts.slots if slot.settled])
    made[COMPARISONS] = codec.lines(found.comparisons)
    made[WEIGHTS] = codec.pretty({record.heuristic_id: record.weight for record in found.heuristics})
    made[EFFECTIVENESS] = codec.pretty(found.effectiveness)
    made[ADHERENCE] = codec.pretty({"schedule_adherence": opt.schedule_adherence(held)})
    made[RECOMMENDATIONS] = codec.lines([row for wave in study.waves for row in _recommendations(wave)])
    made[ASSIGNMENTS] = codec.pretty({f"wave_{wave.number}": _assigned(wave.plan) for wave in study.waves})
    made[METRICS] = codec.lines([_stamped(reading, stamp) for reading in found.readings])
    made[ANOMALIES] = codec.lines([_anomaly(one, stamp) for one in found.seen])
    made[ALERTS] = codec.pretty(list(_alerts(found, stamp)))
    made[REPORT] = schedule_report.render(study, found).encode()
    return made


def put(folder: Path, made: Mapping[str, bytes]) -> None:
    """Write the files into a folder, each whole. What else stands there stays; UsageError where it would not be told apart from them."""
    if (folder / contents.SUMMARY).exists():
        raise UsageError(f"--outputs: {folder} is a run's own folder, which the journal decides; choose another")
    waves = {name.partition("/")[0] for name in made if "/" in name}
    strangers = sorted(path.name for path in folder.glob("wave_*") if path.name not in waves)
    if strangers:
        raise UsageError(
            f"--outputs: {folder} holds {strangers[0]}, which is not of this plan; choose an empty folder, or remove it"
        )
    for name, data in made.items():
        files.replace(folder / name, data)


def _stamped(value: Any, stamp: str | None) -> Row:
    return {**{name: getattr(value, name) for name in value.__struct_fields__}, "timestamp": stamp}


# -- a wave --------------------------------------------------------------------------------------------------------------


def _wave_files(wave: StudiedWave, study: Study) -> Iterator[tuple[str, bytes]]:
    """A folder for every agent that could have worked, with files that may be empty."""
    folder = f"wave_{wave.number}"
    given, carried_out = _by_agent(wave.plan, "agent_id"), _by_agent(wave.held, "ran_by")
    for agent_id in wave.plan.agents:
        slots, ran = given.get(agent_id, []), carried_out.get(agent_id, [])
        of_agent = f"{folder}/{agent_id}"
        yield f"{of_agent}/{PLANNED}", codec.lines([_planned_row(slot, wave) for slot in slots])
        yield f"{of_agent}/{SCHEDULED}", codec.lines([_scheduled_row(slot, wave.number) for slot in slots])
        yield f"{of_agent}/{OUTCOMES}", codec.lines([_outcome_row(slot, wave.number) for slot in ran])
        yield f"{of_agent}/{AGENT_FEEDBACK}", codec.pretty(_agent_feedback(agent_id, slots, wave, study))
    yield f"{folder}/{WAVE_SUMMARY}", codec.pretty(_wave_summary(wave))
    yield f"{folder}/{ADHERENCE}", codec.pretty({"wave": wave.number, "schedule_adherence": adherence(wave.held)})


def _by_agent(facts: WaveFacts, name: str) -> dict[str | None, list[Slot]]:
    """The slots by one of their agents."""
    found: dict[str | None, list[Slot]] = {}
    for slot in facts.slots:
        found.setdefault(getattr(slot, name), []).append(slot)
    return found


def _planned_row(slot: Slot, wave: StudiedWave) -> Row:
    task = wave.tasks[slot.task_id]
    return {
        "task_id": slot.task_id,
        "agent_id": slot.agent_id,
        "wave": wave.number,
        "kind": task.kind,
        "risk_level": task.risk_level,
        "confidence": slot.predicted,
        "priority": slot.priority,
        "heuristics_applied": slot.heuristics,
        "predicted_success_rate": slot.predicted,
        "raw_predicted_success_rate": wave.raw.get(slot.task_id),
        "predicted_confidence_delta": slot.planned_delta,
        "estimated_duration_s": task.estimated_duration_s,
        "strategy": wave.plan.strategy,
    }


def _scheduled_row(slot: Slot, wave: int) -> Row:
    """Times in milliseconds from the wave's beginning; what nobody knows is null."""
    return {
        "task_id": slot.task_id,
        "agent_id": slot.agent_id,
        "wave": wave,
        "scheduled_start_time": _ms(slot.starts_s),
        "scheduled_end_time": _ms(slot.ends_s),
        "actual_start_time": _ms(slot.started_s),
        "actual_end_time": _ms(slot.ended_s),
        "priority": slot.priority,
        "status": slot.status,
        "confidence": slot.predicted,
        "retry_count": slot.retries,
    }


def _outcome_row(slot: Slot, wave: int) -> Row:
    return {
        "task_id": slot.task_id,
        "agent_id": slot.ran_by,
        "wave": wave,
        "status": slot.status,
        "confidence": slot.predicted,
        "actual_start_time": _ms(slot.started_s),
        "actual_end_time": _ms(slot.ended_s),
        "retry_count": slot.retries,
    }


def _agent_feedback(agent_id: str, slots: Sequence[Slot], wave: StudiedWave, study: Study) -> Row:
    """What was planned for an agent, and what is recorded of the same tasks."""
    facts = msgspec.structs.replace(wave.plan, agents=(agent_id,), slots=tuple(slots), expected_success=None)
    ended = [slot for slot in slots if slot.success is not None]
    made = compared(facts)
    return {
        "agent_id": agent_id,
        "wave": wave.number,
        "strategy": wave.plan.strategy,
        "planned_tasks": len(slots),
        "recorded_tasks": len(ended),
        "planned_success_rate": made.planned_success_rate,
        "actual_success_rate": made.actual_success_rate,
        "expected_completion_time_ms": _ms(_last_end(slots)),
        "actual_completion_time_ms": _ms(max((slot.ended_s for slot in ended if slot.ended_s is not None), default=None)),
        "retry_count": sum(slot.retries or 0 for slot in ended) if ended else None,
        "schedule_adherence": adherence(facts),
        "accuracy_score": made.accuracy_score,
        "timestamp": study.timestamp,
    }


def _wave_summary(wave: StudiedWave) -> Row:
    plan, held = expected(wave.plan), compared(wave.held)
    return {
        "wave": wave.number,
        "total_tasks": len(wave.plan.slots),
        "agents": wave.plan.agents,
        "strategy": wave.plan.strategy,
        "expected_success_rate": plan.planned_success_rate,
        "expected_throughput": plan.planned_throughput,
        "actual_strategy": wave.held.strategy if held.compared_tasks else None,
        "actual_success_rate": held.actual_success_rate,
        "actual_throughput": held.actual_throughput,
        "schedule_adherence": adherence(wave.held),
        "unplaced_tasks": [{"task_id": task_id, "reason": reason} for task_id, reason in wave.unplaced],
    }


def _last_end(slots: Sequence[Slot]) -> float | None:
    return max((slot.ends_s for slot in slots if slot.ends_s is not None), default=None)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * MS


# -- all waves -----------------------------------------------------------------------------------------------------------


def _optimized(study: Study, found: Findings) -> Row:
    error = _mean_gap(found.comparisons)
    accuracy, efficiency = None if error is None else 1.0 - error, _efficiency(study)
    known = [share for share in (accuracy, efficiency) if share is not None]
    return {
        "phase": PHASE,
        "source": study.source,
        "strategy": study.strategy,
        "timestamp": study.timestamp,
        "optimization_results": [_result(wave, study.timestamp) for wave in study.waves],
        "metrics": {
            "optimization_efficiency": efficiency,
            "prediction_accuracy": accuracy,
            "schedule_quality": 100.0 * fsum(known) / len(known) if known else None,
        },
    }


def _mean_gap(comparisons: Sequence[Comparison]) -> float | None:
    """The mean distance of planned and actual success rate."""
    gaps = [
        abs(made.planned_success_rate - made.actual_success_rate)
        for made in comparisons
        if made.planned_success_rate is not None and made.actual_success_rate is not None
    ]
    return fsum(gaps) / len(gaps) if gaps else None


def _efficiency(study: Study) -> float | None:
    """Expected successes over those if each task had its best agent whatever that one already has; None where nobody knows."""
    best = [wave.best_successes for wave in study.waves if wave.best_successes is not None]
    planned = fsum(slot.predicted or 0.0 for wave in study.waves for slot in wave.plan.slots)
    return min(1.0, planned / fsum(best)) if fsum(best) else None


def _result(wave: StudiedWave, stamp: str | None) -> Row:
    plan = expected(wave.plan)
    ordered = sorted(wave.plan.slots, key=lambda slot: (slot.priority, slot.starts_s or 0.0))
    return {
        "strategy": wave.plan.strategy,
        "expected_success_rate": plan.planned_success_rate,
        "expected_throughput": plan.planned_throughput,
        "expected_confidence_delta": plan.planned_confidence_delta,
        "agent_assignments": _assigned(wave.plan),
        "task_priorities": {slot.task_id: rank for rank, slot in enumerate(ordered, 1)},
        "confidence": plan.planned_success_rate,
        "wave": wave.number,
        "timestamp": stamp,
    }


def _assigned(plan: WaveFacts) -> dict[str, list[str]]:
    given: dict[str, list[str]] = {agent_id: [] for agent_id in plan.agents}
    for slot in sorted(plan.slots, key=lambda slot: slot.starts_s or 0.0):
        given.setdefault(slot.agent_id, []).append(slot.task_id)
    return given


def _recommendations(wave: StudiedWave) -> Iterator[Row]:
    given = _by_agent(wave.plan, "agent_id")
    for agent_id, task_ids in _assigned(wave.plan).items():
        slots = given.get(agent_id)
        if slots:
            rate = fsum(slot.predicted or 0.0 for slot in slots) / len(slots)
            yield {
                "recommendation_id": f"REC_{wave.number}_{agent_id}",
                "wave": wave.number,
                "agent_id": agent_id,
                "task_ids": task_ids,
                "expected_completion_time_ms": _ms(_last_end(slots)),
                "expected_success_probability": rate,
                "rationale": f"Assigned based on {wave.plan.strategy} strategy",
                "confidence": rate,
            }


def _patterns(study: Study) -> Row:
    """How the waves' tasks are spread, and what is known of agents since; what Phase 18 had found stands beside it, unchanged."""
    return {
        "timestamp": study.timestamp,
        "strategy": study.strategy,
        "load_distribution": {
            f"wave_{wave.number}": {agent_id: len(ids) for agent_id, ids in _assigned(wave.plan).items()} for wave in study.waves
        },
        "load_balance": {
            f"wave_{wave.number}": balance([len(ids) for ids in _assigned(wave.plan).values()]) for wave in study.waves
        },
        "agent_performance": {
            agent_id: {"success_rate": shown.successes / shown.samples if shown.samples else None, "tasks": shown.samples}
            for agent_id, shown in study.shown.items()
        },
        "phase18_patterns": study.coordination,
    }


def _event(slot: Slot, facts: WaveFacts, stamp: str | None) -> Row:
    words = {True: "task_success", False: "task_failure", None: "task_not_run"}
    return {
        "event_id": f"evt_{facts.wave}_{slot.task_id}",
        "event_type": words[slot.success],
        "task_id": slot.task_id,
        "agent_id": slot.ran_by,
        "wave": facts.wave,
        "data": {
            "planned_agent_id": slot.agent_id,
            "predicted_success_rate": slot.predicted,
            "strategy": facts.strategy,
            "retry_count": slot.retries,
            "heuristics_applied": slot.heuristics,
        },
        "timestamp": stamp,
    }


def _anomaly(one: opt.Seen, stamp: str | None) -> Row:
    return {
        "anomaly_id": f"AN_{one.sign.anomaly_type.upper()}",
        "anomaly_type": one.sign.anomaly_type,
        "severity": one.sign.severity.lower(),
        "description": one.sighting.description,
        "value": one.sighting.value,
        "threshold": one.sign.threshold,
        "affected_waves": one.sighting.waves,
        "affected_agents": one.sighting.agents,
        "recommendation": one.sign.recommendation,
        "timestamp": stamp,
    }


def _alerts(found: Findings, stamp: str | None) -> Iterator[Row]:
    """What a person should look at: anomalies of high severity, and metrics that are critical."""
    for one in found.seen:
        if one.sign.severity is Severity.HIGH:
            yield _alert(one.sign.anomaly_type, "high", one.sighting.description, stamp)
    for reading in found.readings:
        if reading.status == "critical":
            within = f"{reading.threshold_min} to {reading.threshold_max}"
            yield _alert(
                reading.metric_name, "critical", f"{reading.metric_name} is {reading.value:.3f}, normal is {within}", stamp
            )


def _alert(name: str, severity: str, message: str, stamp: str | None) -> Row:
    return {"alert_id": f"AL_{name.upper()}", "source": name, "severity": severity, "message": message, "timestamp": stamp}


def _health(study: Study, found: Findings) -> Row:
    return {
        "overall_health_score": found.health.overall_health_score,
        "health_status": found.health.health_status,
        "component_scores": found.health.component_scores,
        "optimization_metrics": [
            {"metric_name": reading.metric_name, "value": reading.value, "status": reading.status} for reading in found.readings
        ],
        "detected_anomalies": len(found.seen),
        "timestamp": study.timestamp,
    }


def _summary(study: Study, found: Findings) -> Row:
    counts = {
        "agents_loaded": sum(agent.tasks > 0 for agent in study.agents),
        "patterns_loaded": len(study.coordination),
        "signals_loaded": study.signals,
    }
    return {
        "phase": PHASE,
        "source": study.source,
        "start_time": study.started,
        "end_time": study.timestamp,
        "duration_ms": study.duration_ms,
        "phase18_counts": counts,
        "phase18_health": study.upstream_health,
        "init_summary": {"strategy": study.strategy, "load_counts": counts},
        "waves_optimized": len(study.waves),
        "feedback_counts": {"learning_signals": len(found.feedback)},
        "health_metrics": {
            "metrics": [reading.metric_name for reading in found.readings],
            "health": _health(study, found),
        },
    }
