"""What tasks of workflows show of how long their steps take; a rehearsal shows nothing."""

from __future__ import annotations

from phase21.domain.folds.known import Known
from phase21.domain.paces import step_of
from phase21.domain.records import TaskRecord
from phase21.domain.workflows import WorkflowRecord


def note_pace(known: Known, flow: WorkflowRecord, record: TaskRecord, agent_id: str, duration_s: float) -> None:
    """Keep how long a task took that COMPLETED."""
    if known.service is None or not known.service.dry_run:
        task = record.task
        known.paces.learn(step_of(flow.workflow.name, task), agent_id, task.estimated_duration_s, duration_s)
