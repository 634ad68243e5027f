"""The fold, where no story reaches it."""

from __future__ import annotations

from typing import Any

import pytest

from phase21.domain import events as ev
from phase21.domain.judgements import Anomaly, Severity
from phase21.domain.ledger import Ledger
from phase21.domain.tasks import AgentStatus, Task, TaskStatus

PLACE: dict[str, Any] = {"run_id": "r", "wave": 1, "task_id": "t"}
ENDS = (
    ev.TaskCompleted(**PLACE, agent_id="a", attempt=1, duration_s=1.0, result="late"),
    ev.TaskFailed(**PLACE, agent_id="a", attempt=1, error_msg="late", duration_s=1.0),
    ev.TaskCancelled(**PLACE, agent_id="a", attempt=1, duration_s=1.0),
    ev.TaskDeferred(**PLACE, agent_id="a", reason="late"),
)


def told(*events: ev.AnyEvent) -> Ledger:
    """The fold of these events, a microsecond apart, behind an agent and an open wave of one task."""
    ledger = Ledger()
    begin = (
        ev.AgentJoined(agent_id="a"),
        ev.SubmissionAccepted(submission_id="s", run_id="r", waves={1: (Task(task_id="t"),)}),
        ev.WaveOpened(run_id="r", wave=1),
    )
    for position, event in enumerate((*begin, *events), start=1):
        ledger.fold(ev.Entry(position, position, event))
    return ledger


@pytest.mark.parametrize("first", ENDS[:3], ids=lambda event: type(event).__name__)
@pytest.mark.parametrize("second", ENDS, ids=lambda event: type(event).__name__)
def test_a_recorded_outcome_stays(first: ev.AnyEvent, second: ev.AnyEvent) -> None:
    """A second outcome of a task folds into nothing: status, end and counts stay as the first left them."""
    started = ev.AttemptStarted(**PLACE, agent_id="a", attempt=1, confidence=0.9)
    once = told(started, first)
    twice = told(started, first, second)
    assert twice.wave("r", 1) == once.wave("r", 1)
    assert twice.wave("r", 1).pending == 0
    assert twice.wave("r", 1).tasks["t"].status in {TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED}


def test_an_agent_is_idle_busy_or_offline() -> None:
    """An agent is BUSY with an attempt under way, OFFLINE when taken so, IDLE else."""
    started = ev.AttemptStarted(**PLACE, agent_id="a", attempt=1, confidence=0.9)
    gone = ev.AgentWentOffline(agent_id="a", cause="stuck")
    seen = [ledger.agent_status(ledger.agents["a"]) for ledger in (told(), told(started), told(started, gone))]
    assert seen == [AgentStatus.IDLE, AgentStatus.BUSY, AgentStatus.OFFLINE]


def test_an_anomaly_of_a_wave_that_is_not_open_counts_for_the_run() -> None:
    """An anomaly whose wave is not open is counted, and changes no other wave."""
    anomaly = Anomaly(anomaly_type="agent_stuck", severity=Severity.HIGH, wave=7, description="d", recommendation="r")
    ledger = told(ev.AnomalyRaised(run_id="r", anomaly=anomaly))
    assert ledger.runs["r"].record.anomalies == 1
    assert ledger.wave("r", 1).anomalies == []
