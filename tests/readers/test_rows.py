"""The shapes of a run's lines."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from phase21.domain.judgements import Cause, Metrics
from phase21.domain.records import TaskRecord
from phase21.domain.tasks import Task, TaskStatus
from phase21.readers.rows import AnomalyRow, Digest, HealthRow, executed_row, health_part, holder
from phase21.store import codec

METRICS = Metrics(
    success_rate=0.5, availability=1.0, confidence=0.5, prediction_error=0.0, accuracy=1.0, brier_score=0.2, load_balance=1.0,
    completed_tasks=1, failed_tasks=1, started_tasks=2,
)  # fmt: skip


@given(said=st.lists(st.text() | st.just('","strategy":"x'), max_size=3), strategy=st.none() | st.text())
def test_the_health_part_of_a_digest_is_cut_out_whole(said, strategy):
    """Whatever an anomaly says, the part that goes into the health file is what decoding and encoding would give."""
    anomalies = tuple(AnomalyRow("drift", "LOW", 1, text, None, 0.1, text, text, "2026-01-01") for text in said)
    causes = tuple(Cause(term=text, value=0.5, weight=0.2, points_lost=10.0, description=text) for text in said)
    digest = codec.encode(
        Digest(
            wave=1, health_score=None, health_status="GOOD", metrics=METRICS, anomalies=anomalies, causes=causes, strategy=strategy,
            tasks=2, completed=1, failed=1, deferred=0, cancelled=0, actual_duration_s=0.1, settled_at=None,
        )
    )  # fmt: skip
    assert health_part(digest) == codec.encode(codec.decode(digest, HealthRow))


def test_a_skipped_task_has_a_reason_and_nobody():
    """The row of a SKIPPED task names no agent, even where it was given to one, and has a reason in the place of an error."""
    record = TaskRecord(task=Task(task_id="a"), status=TaskStatus.SKIPPED, agent_id="agent_0", error_msg="the workflow stopped")
    assert holder(record) is None
    row = codec.decode(codec.encode(executed_row(record, holder(record), 1, None)))
    assert (row["status"], row["agent_id"], row["success"], row["error_msg"]) == ("SKIPPED", None, None, None)
    assert row["reason"] == "the workflow stopped"
    other = TaskRecord(task=Task(task_id="a"), status=TaskStatus.CANCELLED, agent_id="agent_0", error_msg="cancelled")
    assert "reason" not in codec.decode(codec.encode(executed_row(other, holder(other), 1, None)))
