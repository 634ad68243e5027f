"""How far tasks and workflows are, in percent.

A task weighs as much as it was estimated to take. The folds count what a workflow's tasks weigh, and what of that has ended; verbs
ask here what that comes to.
"""

from __future__ import annotations

from collections.abc import Iterable

from phase21.domain.records import TaskRecord
from phase21.domain.tasks import Task, TaskStatus
from phase21.domain.workflows import WorkflowRecord

WHOLE = 100.0

LEAST_WEIGHT_S = 1e-6
"""What a task weighs that is estimated to take no time: where none takes any, all weigh the same."""


def weight_s(task: Task) -> float:
    """What a task weighs: the seconds that it is estimated to take."""
    estimated_s = task.estimated_duration_s
    return estimated_s if estimated_s > LEAST_WEIGHT_S else LEAST_WEIGHT_S  # noqa: FURB136 - `max` takes three times as long


def task_percent(record: TaskRecord) -> float:
    """0 to 100: what has ended is done, however it ended; an attempt under way is as far as it says."""
    if record.final:
        return WHOLE
    return record.percent if record.status is TaskStatus.IN_PROGRESS else 0.0


def flow_percent(flow: WorkflowRecord, records: Iterable[TaskRecord]) -> float:
    """0 to 100 of a workflow; `records` are its tasks as far as they are open (those that have ended do not matter).

    A step that cannot be made into tasks yet counts as one task: when it is made, or tasks ask for others, this may fall. It is 100
    once the workflow has ended, and only then.
    """
    if not flow.open:
        return WHOLE
    later_s = sum(_later_s(step.get("estimated_duration_s", 1.0)) for step in flow.later)
    total_s = flow.asked_s + later_s
    under_way_s = sum(
        weight_s(record.task) * record.percent / WHOLE for record in records if record.status is TaskStatus.IN_PROGRESS
    )
    share = (flow.ended_s + under_way_s) / total_s if total_s else 0.0
    return min(NEARLY, WHOLE * share)


NEARLY = 99.9
"""The most that an open workflow comes to: what it decides next may be more work."""


def _later_s(estimated_s: float) -> float:
    return max(estimated_s, LEAST_WEIGHT_S)
