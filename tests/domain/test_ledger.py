"""The fold, where no story reaches it."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from phase21.domain import events as ev
from phase21.domain.evidence import observation
from phase21.domain.judgements import Anomaly, Calibration, Grade, Health, Metrics, Severity
from phase21.domain.ledger import Ledger
from phase21.domain.plans import Assignment, Choice
from phase21.domain.sequential import Seen
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


def test_a_wave_is_found_while_it_is_not_closed() -> None:
    """A wave that is closed or unknown is none; one that is open or being written is found."""
    ledger = told()
    assert ledger.open_wave("r", 1) is ledger.wave("r", 1)
    assert ledger.open_wave("r", 2) is None
    assert ledger.open_wave("nothing", 1) is None
    judged = told(ev.TaskCancelled(**PLACE), ev.WaveSettled(run_id="r", wave=1), CALIBRATED)
    assert judged.open_wave("r", 1) is judged.wave("r", 1)


CALIBRATED = ev.PredictionsCalibrated(run_id="r", wave=1, agents={}, taught=True)


def planned(policy: str = "") -> ev.WavePlanned:
    figures = {"num_agents": 1, "num_tasks": 1, "expected_duration_s": 1.0, "sequential_duration_s": 1.0, "load_balance": 1.0}
    return ev.WavePlanned(run_id="r", wave=1, strategy="thompson", policy=policy, **figures)


@pytest.mark.parametrize(
    ("planning", "calibrated", "credited"),
    [
        ([planned("adaptive")], CALIBRATED, {"thompson": (2, 1)}),
        ([planned()], CALIBRATED, {}),
        ([], CALIBRATED, {}),
        ([planned("adaptive")], ev.PredictionsCalibrated(run_id="r", wave=1, agents={}), {}),
    ],
    ids=["chosen", "configured", "not planned", "a rehearsal"],
)
def test_a_strategy_that_was_chosen_is_credited(
    planning: list[ev.WavePlanned], calibrated: ev.PredictionsCalibrated, credited: dict[str, tuple[int, int]]
) -> None:
    """A strategy that another chose has its attempts and successes counted for its run, and no other strategy has."""
    tried = ev.AttemptStarted(**PLACE, agent_id="a", attempt=1, confidence=0.9)
    failed = ev.AttemptFailed(**PLACE, agent_id="a", attempt=1, error_msg="no", delay_s=0.0, duration_s=1.0)
    again = ev.AttemptStarted(**PLACE, agent_id="a", attempt=2, confidence=0.9)
    done = ev.TaskCompleted(**PLACE, agent_id="a", attempt=2, duration_s=1.0)
    ledger = told(*planning, tried, failed, again, done, ev.WaveSettled(run_id="r", wave=1), calibrated)
    assert ledger.runs["r"].record.strategies == credited


def test_credit_adds_up_over_waves() -> None:
    """What a chosen strategy brought about in several waves of a run is one sum."""
    events: list[ev.AnyEvent] = []
    for wave in (1, 2):
        place = {"run_id": "r", "wave": wave}
        if wave == 2:
            accepted = ev.SubmissionAccepted(submission_id="s2", run_id="r", waves={2: (Task(task_id="u"),)})
            events += [ev.OutputsWritten(run_id="r", wave=1), accepted, ev.WaveOpened(**place)]
        task_id = "tu"[wave - 1]
        events += [
            msgspec.structs.replace(planned("adaptive"), wave=wave),
            ev.AttemptStarted(**place, task_id=task_id, agent_id="a", attempt=1, confidence=0.9),
            ev.TaskCompleted(**place, task_id=task_id, agent_id="a", attempt=1, duration_s=1.0),
            ev.WaveSettled(**place),
            ev.PredictionsCalibrated(**place, agents={}, taught=True),
        ]
    assert told(*events).runs["r"].record.strategies == {"thompson": (2, 2)}


def test_what_a_task_came_to_is_taught_with_the_score_of_its_assignment() -> None:
    """A choice's score stands with its tasks until another choice has one, and a failed attempt with who made it."""
    given = Assignment("t", "a", 0.6, 0.8)
    first = ev.TasksAssigned(
        run_id="r", wave=1, strategy="s", assignments=(given,), choices=(Choice(("t",), (), "best", 1.0, 0.55),)
    )
    started = ev.AttemptStarted(**PLACE, agent_id="a", attempt=1, confidence=0.9)
    failed = ev.AttemptFailed(**PLACE, agent_id="a", attempt=1, error_msg="no", delay_s=0.0, duration_s=1.5, reconsider=True)
    record = told(first, started, failed).wave("r", 1).tasks["t"]
    assert (record.score, record.failures, record.reconsider) == (0.55, [("a", 1.5)], True)
    moved = ev.TasksAssigned(run_id="r", wave=1, strategy="s", assignments=(given,), moved=True)
    record = told(first, started, failed, moved).wave("r", 1).tasks["t"]
    assert (record.reconsider, record.elsewhere) == (False, False)


def test_what_was_taught_by_kind_adds_up() -> None:
    """Evidence of one kind, and by kind, adds to what is known of each agent that is there."""
    one = ev.PredictionsCalibrated(run_id="r", wave=1, agents={"a": SHOWN, "gone": SHOWN}, kind="k")
    kinds = {"a": {"k": SHOWN, "l": SHOWN}, "gone": {"k": SHOWN}}
    many = ev.PredictionsCalibrated(run_id="r", wave=1, agents={"a": SHOWN}, kind="k", kinds=kinds)
    for event, known in ((one, {"k": SHOWN}), (many, {"k": SHOWN, "l": SHOWN})):
        ledger = told(ev.WaveSettled(run_id="r", wave=1), event)
        assert ledger.agents["a"].calibration == SHOWN
        assert ledger.agents["a"].kinds == known
        assert set(ledger.agents) == {"a"}


SHOWN = Calibration(3, 2, 2.4)


def test_a_task_is_started_with_its_first_attempt() -> None:
    """A task that has made an attempt was started, whatever came of it."""
    started = ev.AttemptStarted(**PLACE, agent_id="a", attempt=1, confidence=0.9)
    assert [ledger.wave("r", 1).tasks["t"].started for ledger in (told(), told(started))] == [False, True]


@pytest.mark.parametrize(("rates", "kept"), [((0.95, 0.05), False), ((0.05, 0.95), True)])
def test_only_a_fall_makes_what_was_seen_of_features_forgotten(rates, kept):
    """An agent that falls is not what it was; one that does better may have been given what suits it, and is."""
    dice = random.Random(1)
    ledger = Ledger()
    position = 0

    def tell(event):
        nonlocal position
        position += 1
        ledger.fold(ev.Entry(position, position, event))

    tell(ev.AgentJoined(agent_id="a"))
    ledger.agents["a"].kinds["k"] = Calibration(100, 50, 50.0)
    seen = observation(Task(task_id="t", kind="k", features={"x": 1.0}), "a", success=True, duration_s=1.0)
    ledger.evidence.observations = [seen] * 200
    tell(ev.SubmissionAccepted(submission_id="s", run_id="r", waves={1: (Task(task_id="t"),)}))
    tell(ev.WaveOpened(run_id="r", wave=1))
    metrics = Metrics(
        success_rate=None, availability=1.0, confidence=None, prediction_error=None, accuracy=None, brier_score=None,
        load_balance=None, completed_tasks=0, failed_tasks=0, started_tasks=0,
    )  # fmt: skip
    health = Health(score=None, status=Grade.UNKNOWN, metrics=metrics, agents=())
    for wave in range(80):
        won = sum(dice.random() < rates[wave >= 40] for _ in range(5))
        tell(ev.HealthScored(run_id="r", wave=1, health=health, seen=(Seen("a", "k", 5, won, 2.5),)))
    assert (len(ledger.evidence.observations) == 200) == kept
    assert ledger.agents["a"].kinds["k"].samples < 100
