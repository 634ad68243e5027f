"""The sequential tests behind `agent_failure`, `prediction_drift` and `success_drop`: what a wave shows them, and what they say.

Called by the monitor. The tests themselves and their state are the ledger's (`domain.sequential`, `domain.watching`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import fsum

from phase21.domain.judgements import Anomaly, Severity
from phase21.domain.records import AgentRecord, WaveRecord
from phase21.domain.sequential import ENOUGH_TASKS, Alarm, Seen, Standing, Watch
from phase21.domain.watching import UNWATCHED, Change
from phase21.evaluation.metrics import taught

NO_WATCHES: Mapping[str, Watch] = {}


def seen_in(wave: WaveRecord) -> tuple[Seen, ...]:
    """What a settled wave shows each test: the run's by kind of task, then those of agents by agent and kind.

    A task counts for whoever made its last attempt, and as a failure for every other agent that failed at it before. What is
    expected is what came in as predicted, before any calibration: that has not learned from the change itself. Where the
    forecast looked at the task's features it is what was predicted, so that an agent that is given what it does well has not changed;
    tasks with features that it could not look at yet are not counted, since the two are not on one scale.
    """
    kinds: dict[str, dict[str, list[float]]] = {}
    strays: list[tuple[str, str, float]] = []
    for record, agent_id, success in taught(wave):
        task, score = record.task, record.score
        if score is None and task.features:
            continue
        kind = task.kind
        parts = kinds.get(kind)
        if parts is None:
            parts = kinds[kind] = {}
        had = parts.get(agent_id)
        if had is None:
            had = parts[agent_id] = [0, 0, 0.0]
        had[0] += 1
        had[1] += success
        had[2] += record.raw if score is None else record.predicted
        if record.failures:
            others = dict.fromkeys(failed for failed, _ in record.failures if failed != agent_id)
            strays.extend((failed, kind, task.raw_prediction(failed)) for failed in others)
    whole = tuple(_seen("", kind, [fsum(column) for column in zip(*parts.values(), strict=True)]) for kind, parts in kinds.items())
    for failed, kind, raw in strays:
        had = kinds[kind].setdefault(failed, [0, 0, 0.0])
        had[0] += 1
        had[2] += raw
    return whole + tuple(_seen(agent_id, kind, sums) for kind, parts in kinds.items() for agent_id, sums in parts.items())


def _seen(agent_id: str, kind: str, sums: Sequence[float]) -> Seen:
    tasks, successes, expected = sums
    return Seen(agent_id, kind, int(tasks), int(successes), expected)


def followed(seen: Iterable[Seen], run: Mapping[str, Watch], agents: Mapping[str, AgentRecord]) -> frozenset[str]:
    """Those agents (and "", the run) whose past is long enough for the tests, in every kind of task that the wave shows of them."""
    known: set[str] = set()
    short: set[str] = set()
    for part in seen:
        watches = run if not part.agent_id else agents[part.agent_id].watches if part.agent_id in agents else NO_WATCHES
        watch = watches.get(part.kind, UNWATCHED)
        (known if watch.tasks >= ENOUGH_TASKS else short).add(part.agent_id)
    return frozenset(known - short)


def changed(made: Iterable[Change], run_id: str, wave: int) -> Iterator[Anomaly]:
    """The anomalies that the tests' alarms are, strongest evidence first."""
    found = [(change.seen, change.alarm) for change in made if change.alarm is not None]
    for seen, alarm in sorted(found, key=lambda pair: -pair[1].evidence):
        yield _of_agent(seen, alarm, run_id, wave) if seen.agent_id else _of_run(seen, alarm, run_id, wave)


def _of_agent(seen: Seen, alarm: Alarm, run_id: str, wave: int) -> Anomaly:
    fell = _fell(alarm)
    since = _since(alarm, run_id)
    return Anomaly(
        anomaly_type="agent_failure" if fell else "prediction_drift",
        severity=Severity.HIGH if fell else Severity.MEDIUM,
        wave=wave,
        agent_id=seen.agent_id,
        value=alarm.rate_after,
        threshold=alarm.rate_before,
        description=f"{seen.agent_id} {_turned(alarm)} at {seen.kind} tasks since {since}: {_figures(alarm)}",
        recommendation=_LOOK if fell else _FOLLOW,
        since_wave=_own_wave(alarm, run_id),
        evidence=alarm.evidence,
        action=f"what its {seen.kind} tasks showed before {since} no longer counts for predictions, {alarm.tasks_after} tasks since do",
    )


_LOOK = "look at the errors of the agent's tasks; take the agent out of the fleet, or pin such tasks elsewhere"
_FOLLOW = "nothing, if the change is meant to last: predictions begin anew from what came since"


def _of_run(seen: Seen, alarm: Alarm, run_id: str, wave: int) -> Anomaly:
    fell = _fell(alarm)
    return Anomaly(
        anomaly_type="success_drop" if fell else "prediction_drift",
        severity=Severity.MEDIUM,
        wave=wave,
        value=alarm.rate_before - alarm.rate_after if fell else alarm.rate_after,
        threshold=None if fell else alarm.rate_before,
        description=f"{seen.kind} tasks of this run {_went(alarm)} since {_since(alarm, run_id)}: {_figures(alarm)}",
        recommendation="compare the tasks since then with those before: agent, features, what they depend on",
        since_wave=_own_wave(alarm, run_id),
        evidence=alarm.evidence,
        action="none on the run as a whole: evidence is dropped of agents that changed",
    )


def _fell(alarm: Alarm) -> bool:
    """Whether it does worse than before, and than what was normal: to fall back from a better time to that is no failure."""
    return alarm.standing is Standing.DEGRADED and not alarm.rises


def _turned(alarm: Alarm) -> str:
    if alarm.recovered:
        return "is back at what was normal"
    return "does better than it did" if alarm.rises else "does worse than it did"


def _went(alarm: Alarm) -> str:
    if alarm.recovered:
        return "are back at what was normal"
    return "succeed more often than they did" if alarm.rises else "succeed less often than they did"


def _since(alarm: Alarm, run_id: str) -> str:
    return f"wave {alarm.since_wave}" + (f" of run {alarm.since_run}" if alarm.since_run not in {"", run_id} else "")


def _own_wave(alarm: Alarm, run_id: str) -> int | None:
    return alarm.since_wave if alarm.since_run in {"", run_id} else None


def _figures(alarm: Alarm) -> str:
    return (
        f"{alarm.rate_after:.1%} of {alarm.tasks_after} tasks, {alarm.rate_before:.1%} of {alarm.tasks_before} before"
        f" (evidence {alarm.evidence:.1f} nats, {alarm.confidence:.1%} sure)"
    )
