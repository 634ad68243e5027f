"""What is out of the ordinary in a wave: one table of rules over its figures, and what parts of the house report themselves.

`detect` is called by the monitor once a wave is settled; the three builders by whoever sees an agent go or a gate refuse. What
sequential tests find stands in `changes`; the rules here leave to them whom they know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import fsum, log

import msgspec

from phase21.domain.judgements import TOLERANCE, AgentMetrics, Anomaly, Metrics, Severity
from phase21.domain.records import AgentRecord, Course, WaveRecord
from phase21.domain.sequential import likelihood
from phase21.evaluation.rules import ENOUGH_TASKS, OF_TIME, Rule

LATELY = 3
"""How many of a run's newest waves a rule about its course looks at together."""

LATE_LEAST_S = 1.0
"""Waves that are less than this late in all are not late: what is estimated at nothing takes a moment."""


class Past(msgspec.Struct, frozen=True, kw_only=True):
    """What came before, for judging by tests: who is `tested` by now ("" is the run), and the run's course with this wave the last."""

    tested: frozenset[str] = frozenset()
    course: Sequence[Course] = ()
    false_alarms: float = 0.001


NO_PAST = Past()


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """What the rules look at. `fewest` and `most` are loads over the agents that are available, in tasks.

    `needed` are the nats that outcomes must speak with against predictions.
    """

    metrics: Metrics
    agents: Sequence[AgentMetrics]
    previous_success_rate: float | None
    fewest: int
    most: int
    past: Past = NO_PAST

    @property
    def needed(self) -> float:
        """Two-sided: what has the chance `false_alarms` at most, where predictions hold (Chernoff's bound; Hoeffding 1963)."""
        return log(2.0 / self.past.false_alarms)


class Finding(msgspec.Struct, frozen=True, array_like=True):
    """What a rule measured, said in words, the agent that it concerns (None: the wave), since when, and on what evidence."""

    value: float | None
    description: str
    agent_id: str | None = None
    since_wave: int | None = None
    evidence: float | None = None


WaveRule = Rule[Scene, Iterator[Finding], float | None]
"""One row of the table. Without a threshold of its own a rule takes `health.anomaly_sensitivity`."""


def detect(
    wave: WaveRecord,
    metrics: Metrics,
    agents_metrics: Sequence[AgentMetrics],
    previous_success_rate: float | None,
    agents: Sequence[AgentRecord],
    sensitivity: float,
    past: Past = NO_PAST,
) -> tuple[Anomaly, ...]:
    """The anomalies that a settled wave's figures show, in the order of `RULES`.

    `previous_success_rate` is that of the last wave that had one, `agents` are the present ones. Without a `past` these are the
    fixed rules of the contract. Where tasks went to whoever was free when they became ready, loads say nothing.
    """
    loads = {part.agent_id: part.load for part in agents_metrics}
    available = [] if wave.by_readiness else [loads.get(agent.agent_id, 0) for agent in agents if not agent.offline]
    scene = Scene(
        metrics=metrics,
        agents=agents_metrics,
        previous_success_rate=previous_success_rate,
        fewest=min(available, default=0),
        most=max(available, default=0),
        past=past,
    )
    return tuple(anomaly for rule in RULES for anomaly in _apply(rule, scene, wave.number, sensitivity))


def _apply(rule: WaveRule, scene: Scene, wave: int, sensitivity: float) -> Iterator[Anomaly]:
    threshold = sensitivity if rule.threshold is None else rule.threshold
    for finding in rule.find(scene, threshold):
        yield Anomaly(
            anomaly_type=rule.anomaly_type,
            severity=rule.severity,
            wave=wave,
            agent_id=finding.agent_id,
            value=finding.value,
            threshold=threshold,
            description=finding.description,
            recommendation=rule.recommendation,
            since_wave=wave if finding.since_wave is None else finding.since_wave,
            evidence=finding.evidence,
            action=rule.action,
        )


def _failing_agents(scene: Scene, threshold: float) -> Iterator[Finding]:
    for part in scene.agents:
        rate = part.success_rate
        if part.agent_id in scene.past.tested:
            continue
        if rate is not None and part.load >= ENOUGH_TASKS and rate < threshold - TOLERANCE:
            said = f"{part.agent_id} completed {part.completed_tasks} of {part.load} tasks"
            yield Finding(rate, said, part.agent_id)


def _loads_apart(scene: Scene, threshold: float) -> Iterator[Finding]:
    apart = scene.most - scene.fewest
    if apart > 1 and apart / scene.most > threshold + TOLERANCE:
        yield Finding(apart / scene.most, f"agents had between {scene.fewest} and {scene.most} tasks")


def _prediction_off(scene: Scene, threshold: float) -> Iterator[Finding]:
    metrics = scene.metrics
    error = metrics.prediction_error
    if error is None or metrics.started_tasks < ENOUGH_TASKS or error <= threshold + TOLERANCE:
        return
    evidence = None
    if "" in scene.past.tested:
        evidence = likelihood(metrics.started_tasks, metrics.completed_tasks, (metrics.confidence or 0.0) * metrics.started_tasks)
        if evidence < scene.needed:
            return
    said = f"predicted and actual success are {error:.1%} apart, over {metrics.started_tasks} tasks"
    yield Finding(error, said, evidence=evidence)


def _loads_uneven(scene: Scene, threshold: float) -> Iterator[Finding]:
    if scene.most - scene.fewest <= 1:
        return
    if not scene.fewest:
        yield Finding(None, f"one agent had {scene.most} tasks, another none")
    elif scene.most / scene.fewest > threshold + TOLERANCE:
        ratio = scene.most / scene.fewest
        yield Finding(ratio, f"one agent had {ratio:.3g} times as many tasks as another ({scene.most} and {scene.fewest})")


def _success_fell(scene: Scene, threshold: float) -> Iterator[Finding]:
    before, now = scene.previous_success_rate, scene.metrics.success_rate
    if "" in scene.past.tested:
        return
    if before is not None and now is not None and before - now > threshold + TOLERANCE:
        yield Finding(before - now, f"the success rate fell from {before:.1%} to {now:.1%}")


# -- over the course of a run, once it has one ---------------------------------------------------------------------------


Trend = Callable[[Sequence[Course], Scene, float], Finding | None]
"""What the waves of a course show, the newest last; asked of a part of the course too."""


def _once(trend: Trend) -> Callable[[Scene, float], Iterator[Finding]]:
    """A rule that tells when a trend begins to show, and not again while any of the waves that are remembered would have shown it."""

    def find(scene: Scene, threshold: float) -> Iterator[Finding]:
        course = scene.past.course
        if len(course) < LATELY:
            return
        found = trend(course, scene, threshold)
        if found is not None and not any(trend(course[:end], scene, threshold) for end in range(LATELY, len(course))):
            yield found

    return find


def _against_plan(lately: Sequence[Course]) -> tuple[int, int, float, float]:
    """Tasks, successes, successes that were predicted, and how strongly these waves speak against that, in nats."""
    tasks, won = sum(wave.tasks for wave in lately), sum(wave.successes for wave in lately)
    predicted = min(fsum(wave.predicted for wave in lately), float(tasks))
    return tasks, won, predicted, likelihood(tasks, won, predicted)


def _predictions_err(course: Sequence[Course], scene: Scene, threshold: float) -> Finding | None:
    lately = course[-LATELY:]
    tasks, won, predicted, evidence = _against_plan(lately)
    gap = abs(predicted - won) / tasks
    if gap <= threshold + TOLERANCE or evidence < scene.needed:
        return None
    said = f"over {LATELY} waves {predicted / tasks:.1%} of {tasks} tasks were predicted to succeed, and {won / tasks:.1%} did"
    return Finding(gap, said, None, lately[0].wave, evidence)


def _schedules_slip(course: Sequence[Course], scene: Scene, threshold: float) -> Finding | None:
    del scene
    lately = course[-LATELY:]
    expected_s, actual_s = fsum(wave.expected_s for wave in lately), fsum(wave.actual_s for wave in lately)
    late = all(wave.expected_s < threshold * wave.actual_s - TOLERANCE for wave in lately)
    if not late or actual_s - expected_s < LATE_LEAST_S:
        return None
    said = f"{LATELY} waves in a row took longer than planned: {actual_s:.3g} s in all where {expected_s:.3g} s were expected"
    return Finding(expected_s / actual_s, said, None, lately[0].wave)


def _success_declines(course: Sequence[Course], scene: Scene, threshold: float) -> Finding | None:
    before, lately = course[:-LATELY], course[-LATELY:]
    if len(before) < LATELY:
        return None
    sums = [(sum(wave.tasks for wave in part), sum(wave.successes for wave in part)) for part in (before, lately, course)]
    (n, s), (m, t), (_, _) = sums
    was, now = s / n, t / m
    parts = [likelihood(tasks, won, tasks / 2.0) for tasks, won in sums]
    evidence = parts[0] + parts[1] - parts[2]
    if was - now <= threshold + TOLERANCE or evidence < scene.needed:
        return None
    said = f"the success rate of the newest {LATELY} waves is {now:.1%}, that of the {len(before)} before them {was:.1%}"
    return Finding(was - now, said, None, lately[0].wave, evidence)


def _strategy_fails(course: Sequence[Course], scene: Scene, threshold: float) -> Finding | None:
    lately = course[-LATELY:]
    strategy = lately[-1].strategy
    if strategy in OF_TIME or any(wave.strategy != strategy for wave in lately):
        return None
    _, won, predicted, evidence = _against_plan(lately)
    if won >= (threshold - TOLERANCE) * predicted or evidence < scene.needed:
        return None
    said = f"{strategy} aims at success, and reached {won / predicted:.1%} of what it planned over {LATELY} waves"
    return Finding(won / predicted, said, None, lately[0].wave, evidence)


RULES: tuple[WaveRule, ...] = (
    Rule(
        anomaly_type="agent_failure",
        severity=Severity.HIGH,
        threshold=0.50,
        find=_failing_agents,
        recommendation="look at the errors of the agent's tasks; take the agent out of the fleet, or pin such tasks elsewhere",
    ),
    Rule(
        anomaly_type="coordination_issue",
        severity=Severity.MEDIUM,
        threshold=0.40,
        find=_loads_apart,
        recommendation="look at pins and capabilities that force tasks onto few agents; consider the load_balanced strategy",
    ),
    Rule(
        anomaly_type="prediction_drift",
        severity=Severity.MEDIUM,
        threshold=None,
        find=_prediction_off,
        recommendation="check the planner's predictions against phase20/prediction_validation_feedback.jsonl",
    ),
    Rule(
        anomaly_type="load_imbalance",
        severity=Severity.LOW,
        threshold=1.5,
        find=_loads_uneven,
        recommendation="spread the tasks over more agents, or choose the load_balanced strategy",
    ),
    Rule(
        anomaly_type="success_drop",
        severity=Severity.MEDIUM,
        threshold=0.10,
        find=_success_fell,
        recommendation="compare the failed tasks with those of the wave before: kind, agent, what they depend on",
    ),
    Rule(
        anomaly_type="prediction_error",
        severity=Severity.MEDIUM,
        threshold=0.20,
        find=_once(_predictions_err),
        recommendation="look at `phase21 calibration`, and at what the planner predicts for these tasks",
        action="predictions follow the outcomes, unless learning is off",
    ),
    Rule(
        anomaly_type="schedule_drift",
        severity=Severity.LOW,
        threshold=0.85,
        find=_once(_schedules_slip),
        recommendation="check estimated durations, retries, and tasks that were moved",
        action="expected durations follow those that were measured, unless learning is off",
    ),
    Rule(
        anomaly_type="performance_degradation",
        severity=Severity.MEDIUM,
        threshold=0.10,
        find=_once(_success_declines),
        recommendation="compare the failed tasks with those of the waves before: kind, agent, what they depend on",
    ),
    Rule(
        anomaly_type="optimization_failure",
        severity=Severity.MEDIUM,
        threshold=0.85,
        find=_once(_strategy_fails),
        recommendation="hold the strategy against others (`phase21 simulate`) before the next wave",
    ),
)


def agent_offline(agent_id: str, wave: int, timeouts: int) -> Anomaly:
    """An agent whose attempts timed out `timeouts` times in a row."""
    return Anomaly(
        anomaly_type="agent_offline",
        severity=Severity.HIGH,
        wave=wave,
        agent_id=agent_id,
        value=float(timeouts),
        description=f"{agent_id} went OFFLINE: attempts timed out {timeouts} times in a row",
        recommendation="check what the agent runs on; it is tried again with one task after agents.probation",
        since_wave=wave,
        action="the agent takes no tasks; those that waited with it go to others",
    )


def agent_stuck(agent_id: str, wave: int, overdue_s: float) -> Anomaly:
    """An agent that made no progress for `overdue_s` seconds past its task's timeout."""
    return Anomaly(
        anomaly_type="agent_stuck",
        severity=Severity.HIGH,
        wave=wave,
        agent_id=agent_id,
        value=overdue_s,
        description=f"{agent_id} went OFFLINE: no progress for {overdue_s:.3g} s past its task's timeout",
        recommendation="look for a handler that ignores its timeout; the agent is tried again with one task after agents.probation",
        since_wave=wave,
        action="the agent takes no tasks; those that waited with it go to others",
    )


def safety_violation(agent_id: str | None, wave: int, task_id: str, gate: str, reason: str) -> Anomaly:
    """A task that a gate REJECTED; `agent_id` is None where it had no agent yet."""
    return Anomaly(
        anomaly_type="safety_violation",
        severity=Severity.HIGH,
        wave=wave,
        agent_id=agent_id,
        description=f"the {gate} gate rejected {task_id}: {reason}",
        recommendation=f"submit the task again once this is mended, or change what the {gate} gate allows",
        since_wave=wave,
        action="the task is FAILED, and is not tried again",
    )
