"""What becomes of an attempt that was cut short, for a crash and a drain alike, and of one that comes too late: the one written policy."""

from __future__ import annotations

from phase21.domain import events as ev
from phase21.domain.records import TaskRecord

MAX_INTERRUPTIONS = 3
NOT_AGAIN = "it is not idempotent and may have run, so it is not started again"


def after_interruption(run_id: str, wave: int, record: TaskRecord, cause: str) -> ev.TaskInterrupted | ev.TaskFailed:
    """Run it again; unless it may not be run twice, or was interrupted so often that it may be what kills the daemon."""
    task = record.task
    interruptions = record.interruptions + 1
    if task.idempotent and interruptions < MAX_INTERRUPTIONS:
        return ev.TaskInterrupted(
            run_id=run_id, wave=wave, task_id=task.task_id, agent_id=record.agent_id or "", attempt=record.attempts
        )
    reason = NOT_AGAIN if not task.idempotent else f"it was interrupted {interruptions} times and may be what stops the service"
    return ev.TaskFailed(
        run_id=run_id,
        wave=wave,
        task_id=task.task_id,
        agent_id=record.agent_id,
        attempt=record.attempts,
        error_msg=f"interrupted ({cause}): {reason}",
    )


def missed_deadline(run_id: str, wave: int, record: TaskRecord, by: str) -> ev.TaskFailed:
    """A task that waits is not tried any more after its deadline, `by` in words."""
    return ev.TaskFailed(
        run_id=run_id,
        wave=wave,
        task_id=record.task.task_id,
        agent_id=record.agent_id,
        attempt=record.attempts,
        error_msg=f"deadline: not done by {by}",
    )
