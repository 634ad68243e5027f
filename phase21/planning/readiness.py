"""Whether a task of a workflow is to be done, now that all that it waits for has ended.

Asked by the manager for every task of a workflow's wave, and by nobody else. It decides from values alone.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

import msgspec

from phase21.domain.tasks import FINAL, LOST, Dependency, Task, TaskStatus, When
from phase21.domain.workflows import Upstream
from phase21.planning import conditions

_MEETS: Mapping[When, frozenset[TaskStatus]] = {
    When.SUCCEEDED: frozenset({TaskStatus.COMPLETED}),
    When.FAILED: LOST,
    When.SETTLED: FINAL,
}
_WANTED: Mapping[When, str] = {When.SUCCEEDED: "only once it has COMPLETED", When.FAILED: "only where it FAILED"}


class Step(enum.Enum):
    """What is to become of a task that waits no longer."""

    RUN = "run"
    SKIP = "skip"
    DEFER = "defer"


class Readiness(msgspec.Struct, frozen=True):
    """What is to become of a task, and why it is not to be done (now)."""

    step: Step
    reason: str = ""


RUN = Readiness(Step.RUN)


def readiness(task: Task, statuses: Mapping[str, str], upstream: Mapping[str, Upstream]) -> Readiness:
    """What is to become of a task all of whose dependencies have ended or are DEFERRED.

    `statuses` are those of its dependencies, `upstream` what became of the tasks that its condition names (and may hold more).
    A dependency that will never be as wanted counts before one that waits for a person. Raises ValueError where one is in flight.
    """
    waits = ""
    for needed in task.dependencies():
        status = statuses[needed.task]
        if status in _MEETS[needed.when]:
            continue
        if status == TaskStatus.DEFERRED:
            waits = waits or needed.task
        elif status in FINAL:
            return Readiness(Step.SKIP, _unmet(needed, status))
        else:
            raise ValueError(f"{needed.task} has not ended: {status}")
    if waits:
        return Readiness(Step.DEFER, f"waits for {waits}, which is DEFERRED")
    return RUN if task.condition is None else _by_condition(task.condition, upstream)


def _unmet(needed: Dependency, status: str) -> str:
    return f"{needed.task} is {status}, and this runs {_WANTED[needed.when]}"


def _by_condition(condition: str, upstream: Mapping[str, Upstream]) -> Readiness:
    """Only what is named is handed over: all of it is converted, however much that is."""
    names = conditions.named(condition)
    seen = upstream if names is None else {name: upstream[name] for name in names if name in upstream}
    held = conditions.judged(condition, seen)
    return RUN if held.true else Readiness(Step.SKIP, held.why)
