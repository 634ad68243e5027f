"""What a settled wave is found to be, and what is learned from it: anomalies, health, watches, calibration, evidence."""

from __future__ import annotations

from phase21.domain import events as ev
from phase21.domain.folds.known import Folds, Known, sort
from phase21.domain.judgements import Calibration
from phase21.domain.records import RunRecord, WaveRecord
from phase21.domain.tasks import TaskStatus
from phase21.domain.watching import COURSE_WAVES, Change, changes, course_of, since_change

NOTHING = Calibration()
COMPLETED = TaskStatus.COMPLETED


def foreseen(known: Known, event: ev.HealthScored) -> list[Change]:
    """What a judgement, once folded in, makes of the tests of its agents and its run; kept for the fold, which asks again."""
    if known.foreseen is None or known.foreseen[0] is not event:
        own = known.runs[event.run_id].record.watches
        seen = [part for part in event.seen if not part.agent_id or part.agent_id in known.agents]
        watches = [known.agents[part.agent_id].watches if part.agent_id else own for part in seen]
        found = changes(seen, watches, run_id=event.run_id, wave=event.wave, false_alarms=event.false_alarms)
        known.foreseen = event, found
    return known.foreseen[1]


def _anomaly_raised(known: Known, event: ev.AnomalyRaised) -> None:
    run = known.runs[event.run_id]
    run.record.anomalies += 1
    wave = run.waves.get(event.anomaly.wave)
    if wave is not None:
        wave.anomalies.append((known.at_us, event.anomaly))


def _health_scored(known: Known, event: ev.HealthScored) -> None:
    run = known.runs[event.run_id]
    wave = run.waves[event.wave]
    wave.health, wave.health_us = event.health, known.at_us
    run.record.health, run.record.health_wave = event.health, event.wave
    if event.health.metrics.success_rate is not None:
        run.record.success_rate = event.health.metrics.success_rate
    course = course_of(wave, event.health.metrics)
    if course is not None:
        run.record.course = [*run.record.course[1 - COURSE_WAVES :], course]
    if event.seen:
        for change in foreseen(known, event):
            _watch(known, run.record, change)
        known.foreseen = None


def _watch(known: Known, run: RunRecord, change: Change) -> None:
    """Keep a test's state; where it found that an agent has changed, drop what was known of the agent before."""
    agent_id, kind = change.seen.agent_id, change.seen.kind
    if not agent_id:
        run.watches[kind] = change.watch
        return
    agent = known.agents[agent_id]
    agent.watches[kind] = change.watch
    if change.alarm is not None and kind in agent.kinds:
        known.lessons += 1
        agent.kinds[kind] = since_change(agent.kinds[kind], change)
        if change.alarm.recovered or not change.alarm.rises:  # who is given what suits it does better, and is the same
            known.evidence.forget(agent_id, change.alarm.tasks_after - change.seen.tasks, kind)


def _signals_sent(known: Known, event: ev.SignalsSent) -> None:
    at_us = known.at_us
    wave = known.runs[event.run_id].waves[event.wave]
    wave.signals.extend([(at_us, signal) for signal in event.signals])
    if event.validations:
        wave.validations.append((at_us, event.validations))


def _predictions_calibrated(known: Known, event: ev.PredictionsCalibrated) -> None:
    run = known.runs[event.run_id]
    wave = run.closing[event.wave] = run.waves.pop(event.wave)
    wave.calibrated = True
    run.record.last_anomalies = [(anomaly.anomaly_type, anomaly.agent_id) for _, anomaly in wave.anomalies]
    run.current = None
    known.under_way -= 1
    known.lessons += 1
    _teach(known, event)
    if event.taught:
        known.evidence.learn(wave)
        _credit_strategy(run.record, wave)
    for heuristic_id, (hits, samples) in event.heuristics.items():
        old_hits, old_samples = run.record.heuristics.get(heuristic_id, (0, 0))
        wave.heuristics_before[heuristic_id] = (old_hits, old_samples)
        run.record.heuristics[heuristic_id] = (old_hits + hits, old_samples + samples)
    sort(known, run)


def _credit_strategy(run: RunRecord, wave: WaveRecord) -> None:
    """Count what a strategy that was chosen by another has brought about."""
    if wave.planned is None or not wave.planned.policy:
        return
    attempts, successes = run.strategies.get(wave.planned.strategy, (0, 0))
    attempts += sum(record.attempts for record in wave.tasks.values())
    successes += sum(record.status is COMPLETED for record in wave.tasks.values())
    run.strategies[wave.planned.strategy] = (attempts, successes)


def _teach(known: Known, event: ev.PredictionsCalibrated) -> None:
    for agent_id, gained in event.agents.items():
        agent = known.agents.get(agent_id)
        if agent is not None:
            agent.calibration += gained
            if not event.kinds:
                agent.kinds[event.kind] = agent.kinds.get(event.kind, NOTHING) + gained
    for agent_id, of_kinds in event.kinds.items():
        agent = known.agents.get(agent_id)
        if agent is not None:
            for kind, gained in of_kinds.items():
                agent.kinds[kind] = agent.kinds.get(kind, NOTHING) + gained


FOLDS: Folds = {
    ev.AnomalyRaised: _anomaly_raised,
    ev.HealthScored: _health_scored,
    ev.SignalsSent: _signals_sent,
    ev.PredictionsCalibrated: _predictions_calibrated,
}
"""What waves teach."""
