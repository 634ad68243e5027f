"""The six safety gates: whether an attempt may start, and if not, whether it waits, needs a person, or is refused.

Called by an agent's executor before every attempt, the first and each retry, with all that a gate may look at. A gate
never looks anything up by itself, and never remembers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from phase21.domain.judgements import TOLERANCE, Ruling, Verdict
from phase21.domain.records import AgentRecord
from phase21.domain.settings import SafetySettings
from phase21.domain.tasks import LOST, RiskLevel, Task, TaskStatus

LOOK_AGAIN_S = 1.0
"""Seconds until a cause that passes by itself, and does not say when, is worth another look."""

LOW, MEDIUM = RiskLevel.LOW, RiskLevel.MEDIUM

LOW_NEEDS, MEDIUM_NEEDS, HIGH_NEEDS = 0.50, 0.75, 0.90
"""The confidence that each level of risk needs."""

OFFLINE_ANOMALY = {"stuck": "agent_stuck"}
"""The anomaly behind an agent's absence, by its cause; any other cause is `agent_offline`."""

APPROVED = Verdict(ruling=Ruling.APPROVED)


class Circumstances(msgspec.Struct, kw_only=True, gc=False):
    """All that the gates may look at before one attempt.

    `confidence` is the predicted success for the chosen agent, `approved` a person's approval by the verb, `kind_refusal`
    why no handler may run the task's kind. `unmet` are dependencies that have not COMPLETED, as (task id, status; "" while
    under way). `tasks_started` counts the run's tasks without this one. `blocking` are types of blocking anomalies of the
    run's last wave that concern this agent or all. `limited` is the limit that is reached, in words, and seconds until another look.
    """

    task: Task
    agent: AgentRecord
    confidence: float
    approved: bool
    kind_refusal: str | None
    free_disk_mb: float
    free_memory_mb: float
    unmet: tuple[tuple[str, str], ...]
    rate_wait_s: float
    tasks_started: int
    first_attempt: bool
    run_seconds: float
    blocking: tuple[str, ...]
    dry_run: bool
    safety: SafetySettings
    limited: tuple[str, float] | None = None


Gate = Callable[[Circumstances], Verdict | None]
"""None approves. What a gate returns need not name it; `decide` does."""


def validation(c: Circumstances) -> Verdict | None:
    """A handler is known and allowed, and the agent can do the task."""
    if c.kind_refusal is not None:
        return _refused(c.kind_refusal)
    if c.agent.able(c.task):
        return None
    if c.task.agent_id not in {None, c.agent.agent_id}:
        return _refused(f"the task is pinned to {c.task.agent_id}, not {c.agent.agent_id}")
    if not c.agent.takes(c.task.kind):
        return _refused(f"{c.agent.agent_id} takes no tasks of kind {c.task.kind}")
    return _refused(f"{c.agent.agent_id} does not offer {', '.join(c.task.capabilities)}")


def resources(c: Circumstances) -> Verdict | None:
    """There is enough free disk and memory, in MB."""
    safety = c.safety
    if c.free_disk_mb < safety.min_free_disk_mb - TOLERANCE:
        return _held(f"{c.free_disk_mb:.6g} MB of disk are free, {safety.min_free_disk_mb:g} are needed", LOOK_AGAIN_S)
    if c.free_memory_mb < safety.min_free_memory_mb - TOLERANCE:
        return _held(f"{c.free_memory_mb:.6g} MB of memory are free, {safety.min_free_memory_mb:g} are needed", LOOK_AGAIN_S)
    return None


def dependencies(c: Circumstances) -> Verdict | None:
    """Every task that this one depends on has COMPLETED. The worst that befell one of them decides."""
    if not c.unmet:
        return None
    for task_id, status in c.unmet:
        if status in LOST:
            return _refused(f"depends on {task_id}, which is {status}")
    for task_id, status in c.unmet:
        if status == TaskStatus.DEFERRED:
            return _deferred(f"depends on {task_id}, which is {status}")
    return _held(f"depends on {c.unmet[0][0]}, which is under way", LOOK_AGAIN_S)


def constraints(c: Circumstances) -> Verdict | None:
    """The run is within its quotas, and attempts within the limits on their rate and their number."""
    safety = c.safety
    if safety.max_tasks_per_run and c.first_attempt and c.tasks_started >= safety.max_tasks_per_run:
        return _refused(f"the run has started its {safety.max_tasks_per_run} tasks (max_tasks_per_run)")
    if safety.max_run_seconds and c.run_seconds > safety.max_run_seconds + TOLERANCE:
        return _refused(f"the run has taken its {safety.max_run_seconds:g} seconds (max_run_seconds)")
    if c.rate_wait_s > 0.0:
        return _held(f"{safety.rate_limit:g} attempts per second have been started (rate_limit)", c.rate_wait_s)
    if c.limited is not None:
        reason, wait_s = c.limited
        return Verdict(ruling=Ruling.DEFERRED, reason=reason, wait_s=wait_s, aside=True)
    return None


def risk(c: Circumstances) -> Verdict | None:
    """The confidence is high enough for what the action may harm, and a person approved where that is asked for.

    Approval in the submission is not confidence; a person's decision by the verb passes whatever the confidence.
    """
    if c.approved or c.dry_run:
        return None
    level = c.task.risk_level
    needed = LOW_NEEDS if level is LOW else MEDIUM_NEEDS if level is MEDIUM else HIGH_NEEDS
    if c.confidence < needed - TOLERANCE:
        return _deferred(f"confidence {c.confidence:.6g} is below the {needed:g} that {level} risk needs")
    if level is LOW or c.task.approved or (level is MEDIUM and not c.safety.strict):
        return None
    return _deferred(f"{level} risk needs approval")


def anomalies(c: Circumstances) -> Verdict | None:
    """The agent is there, and nothing blocking was seen in the run's last wave, or a person approved all the same."""
    if c.agent.offline:
        behind = OFFLINE_ANOMALY.get(c.agent.offline_cause or "", "agent_offline")
        if behind in c.safety.blocking_anomalies:
            return _held(f"{c.agent.agent_id} is OFFLINE ({behind})", LOOK_AGAIN_S)
    if c.blocking and not c.approved:
        return _deferred(f"the run's last wave showed {', '.join(c.blocking)}")
    return None


def _refused(reason: str) -> Verdict:
    return Verdict(ruling=Ruling.REJECTED, reason=reason)


def _deferred(reason: str) -> Verdict:
    """A person must approve."""
    return Verdict(ruling=Ruling.DEFERRED, reason=reason)


def _held(reason: str, wait_s: float) -> Verdict:
    """The cause passes by itself."""
    return Verdict(ruling=Ruling.DEFERRED, reason=reason, wait_s=wait_s)


GATES: tuple[tuple[str, Gate], ...] = (
    ("validation", validation),
    ("resources", resources),
    ("dependencies", dependencies),
    ("constraints", constraints),
    ("risk", risk),
    ("anomalies", anomalies),
)


def decide(c: Circumstances, gates: Sequence[tuple[str, Gate]] = GATES) -> Verdict:
    """The verdict of the first gate that does not approve, by its name; `APPROVED` where all do.

    A gate that raises has not approved: it refuses.
    """
    name = ""
    try:
        for name, gate in gates:
            verdict = gate(c)
            if verdict is not None and verdict.ruling is not Ruling.APPROVED:
                return msgspec.structs.replace(verdict, gate=name)
    except Exception as error:  # noqa: BLE001 -- users' gates may raise anything, and must not let the attempt through
        return msgspec.structs.replace(_refused(f"the gate failed: {type(error).__name__}: {error}"), gate=name)
    return APPROVED
