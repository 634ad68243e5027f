"""The log: names, levels and fields of the contract, and a stream or disk that fails."""

from __future__ import annotations

import io
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phase21.domain import events as ev
from phase21.domain.errors import ConfigurationError
from phase21.domain.judgements import Anomaly, Severity, Signal, Validation
from phase21.domain.messages import DeadLetter, Message, MessageType, Taken
from phase21.domain.plans import Assignment
from phase21.domain.schedules import Recurrence
from phase21.readers import narrator as told
from phase21.readers.narrator import Narrator
from phase21.store import codec
from phase21.store.journal import Journal

AT_US = 1_700_000_000_123_456
WHERE = {"run_id": "r", "wave": 2, "task_id": "t"}
ANOMALY = Anomaly(
    anomaly_type="agent_stuck", severity=Severity.HIGH, wave=2, agent_id="agent_0", description="it is stuck", recommendation="look"
)
SIGNAL = Signal(
    signal_type="prediction_validation", target_phase=20, content={"task_id": "t", "agent_id": "agent_0"}, confidence=0.5
)
MESSAGE = Message("m", MessageType.NOTIFICATION, 2, "a", "t", None, msgspec.Raw(b"1"))
DIGEST = msgspec.Raw(b'{"health_score":91.5,"health_status":"EXCELLENT","completed":3,"failed":0}')

CONTRACT = [
    (ev.ServiceStarted(pid=1, version="1"), [("INFO", "service_started")]),
    (ev.ServiceStopping(reason="SIGTERM"), [("INFO", "service_stopping")]),
    (ev.ServiceStopped(reason="SIGTERM"), [("INFO", "service_stopped")]),
    (ev.SubmissionAccepted(submission_id="s", run_id="r", waves={}), [("INFO", "submission_accepted")]),
    (ev.SubmissionRepeated(submission_id="s", run_id="r"), [("INFO", "submission_repeated")]),
    (ev.SubmissionRejected(error="no", line=3), [("WARNING", "submission_rejected")]),
    (ev.QueueRefused(error="open"), [("ERROR", "queue_refused")]),
    (ev.ConfigurationReloaded(), [("INFO", "configuration_reloaded")]),
    (ev.ConfigurationRefused(error="no"), [("ERROR", "configuration_refused")]),
    (ev.ControlReceived(submission_id="s", run_id="r", control="pause"), [("INFO", "control_received")]),
    (ev.AgentRestarted(agent_id="agent_0", error="no"), [("WARNING", "agent_restarted")]),
    (ev.AgentWentOffline(agent_id="agent_0", cause="stuck"), [("INFO", "agent_offline")]),
    (ev.AgentReturned(agent_id="agent_0"), [("INFO", "agent_online")]),
    (ev.WaveOpened(run_id="r", wave=2), [("INFO", "wave_started")]),
    (ev.OutputsWritten(run_id="r", wave=2, digest=DIGEST), [("INFO", "wave_completed")]),
    (ev.RunIdled(run_id="r"), [("INFO", "run_idle")]),
    (ev.AnomalyRaised(run_id="r", anomaly=ANOMALY), [("WARNING", "anomaly_detected")]),
    (
        ev.TasksAssigned(
            run_id="r", wave=2, strategy="round_robin", assignments=(Assignment("t", "a", 0.5, 0.6), Assignment("u", "b", 1, 1))
        ),
        [("DEBUG", "task_assigned")] * 2,
    ),
    (
        ev.AttemptStarted(**WHERE, agent_id="agent_0", attempt=1, confidence=0.9),
        [("DEBUG", "gate_verdict"), ("DEBUG", "task_started"), ("DEBUG", "attempt_started")],
    ),
    (
        ev.AttemptStarted(**WHERE, agent_id="agent_0", attempt=2, confidence=0.9),
        [("DEBUG", "gate_verdict"), ("DEBUG", "attempt_started")],
    ),
    (
        ev.AttemptFailed(**WHERE, agent_id="agent_0", attempt=1, error_msg="no", delay_s=0, duration_s=0),
        [("DEBUG", "attempt_failed")],
    ),
    (ev.TaskCompleted(**WHERE, agent_id="agent_0", attempt=1, duration_s=0), [("DEBUG", "task_completed")]),
    (ev.TaskFailed(**WHERE, error_msg="no"), [("WARNING", "task_failed")]),
    (ev.TaskFailed(**WHERE, error_msg="safety: no", gate="risk"), [("DEBUG", "gate_verdict"), ("WARNING", "task_failed")]),
    (
        ev.TaskHeld(**WHERE, agent_id="agent_0", attempt=1, gate="resources", reason="no room", confidence=0.9),
        [("DEBUG", "gate_verdict"), ("INFO", "task_deferred")],
    ),
    (ev.TaskDeferred(**WHERE, reason="approval"), [("DEBUG", "gate_verdict"), ("INFO", "task_deferred")]),
    (ev.TaskCancelled(**WHERE), [("DEBUG", "task_cancelled")]),
    (ev.TaskInterrupted(**WHERE, agent_id="agent_0", attempt=1), [("DEBUG", "task_interrupted")]),
    (ev.TaskSkipped(**WHERE, reason="not wanted"), [("DEBUG", "task_skipped")]),
    (ev.TaskProgressed(**WHERE, agent_id="agent_0", attempt=1, percent=40.0), [("DEBUG", "task_progressed")]),
    (
        ev.WorkflowChanged(run_id="r", state="running", previous="pending"),
        [("INFO", "state_changed"), ("INFO", "workflow_started")],
    ),
    (ev.WorkflowChanged(run_id="r", state="running", previous="paused"), [("INFO", "state_changed")]),
    (
        ev.WorkflowChanged(run_id="r", state="completed", previous="running"),
        [("INFO", "state_changed"), ("INFO", "workflow_completed")],
    ),
    (
        ev.WorkflowChanged(run_id="r", state="failed", previous="running", reason="a did not succeed"),
        [("INFO", "state_changed"), ("WARNING", "workflow_failed")],
    ),
    (
        ev.WorkflowChanged(run_id="r", state="cancelled", previous="running"),
        [("INFO", "state_changed"), ("INFO", "workflow_cancelled")],
    ),
    (ev.WorkflowExtended(run_id="r", wave=2, tasks=(), why="spawn"), [("INFO", "workflow_extended")]),
    (ev.TaskNoted(**WHERE, agent_id="agent_0", attempt=1, text="half"), [("INFO", "task_noted")]),
    (ev.TaskNoted(**WHERE, agent_id="agent_0", attempt=1, text="odd", level="WARNING"), [("WARNING", "task_warned")]),
    (ev.LockTaken(run_id="r", name="l", task_id="t", attempt=1, fence=3), [("DEBUG", "lock_taken")]),
    (ev.LockReleased(run_id="r", name="l", task_id="t", fence=3), [("DEBUG", "lock_released")]),
    (ev.SharedChanged(run_id="r", name="n", version=1, body=msgspec.Raw(b"1"), by="t"), [("DEBUG", "shared_changed")]),
    (
        ev.MessagesPassed(run_id="r", sent=(MESSAGE,), taken=(Taken("t", "t", "m"),)),
        [("DEBUG", "message_sent"), ("DEBUG", "message_taken")],
    ),
    (ev.MessagesDead(run_id="r", letters=(DeadLetter("m", "t", "gone"),)), [("WARNING", "message_dead")]),
    (
        ev.ScheduleAccepted(submission_id="s", run_id="r", every=Recurrence(interval_s=60.0), tasks=()),
        [("INFO", "schedule_accepted")],
    ),
    (ev.ScheduleFired(run_id="r", due_us=AT_US, fired="r-1"), [("INFO", "schedule_fired")]),
    (ev.ScheduleMissed(run_id="r", due_us=AT_US, through_us=AT_US), [("WARNING", "schedule_missed")]),
    (ev.ScheduleEnded(run_id="r", reason="over"), [("INFO", "schedule_ended")]),
    (ev.SignalsSent(run_id="r", wave=2, signals=(SIGNAL, SIGNAL)), [("DEBUG", "signal_generated")] * 2),
    (ev.WaveSettled(run_id="r", wave=2), []),
]
NAMES = [type(event).__name__ for event, _ in CONTRACT]


def entry(event):
    return ev.Entry(1, AT_US, event)


def logged(stream):
    return [codec.decode(line) for line in stream.getvalue().splitlines()]


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Gone(io.StringIO):
    def write(self, text):
        raise BrokenPipeError


@pytest.mark.parametrize(("event", "expected"), CONTRACT, ids=NAMES)
def test_names_and_levels(event, expected):
    """Every kind of event is told under the names and levels of the contract."""
    assert [(line["level"], line["event"]) for line in told.lines(entry(event))] == expected


@pytest.mark.parametrize("event", [event for event, _ in CONTRACT], ids=NAMES)
def test_kinds_agree_with_lines(event):
    """A kind of event is delivered at a level exactly when one of it has something to tell at that level or above."""
    for level in ("DEBUG", "INFO", "WARNING", "ERROR"):
        told_of_kind = [reached for other, lines in CONTRACT if type(other) is type(event) for reached, _ in lines]
        has_something = any(told.rank(reached) >= told.rank(level) for reached in told_of_kind)
        assert (type(event) in told.kinds(level)) is has_something


def test_the_table_is_whole():
    """Every kind that is told stands in this file's table of the contract."""
    assert set(told.kinds("DEBUG")) == {type(event) for event, expected in CONTRACT if expected}


def test_fields_of_a_task():
    """A line says where it belongs, and leaves out what does not apply."""
    event = ev.TaskFailed(**WHERE, error_msg="exit status 1", agent_id="agent_0", attempt=3, duration_s=0.5)
    assert told.lines(entry(event)) == [
        {
            "timestamp": "2023-11-14T22:13:20.123456+00:00", "level": "WARNING", "event": "task_failed", "run_id": "r", "wave": 2,
            "agent_id": "agent_0", "task_id": "t", "attempt": 3, "error_msg": "exit status 1", "duration_s": 0.5,
        }
    ]  # fmt: skip


def test_wave_completed_says_the_health():
    """A wave's end is told with its health."""
    (line,) = told.lines(entry(ev.OutputsWritten(run_id="r", wave=2, digest=DIGEST)))
    assert (line["health_score"], line["health_status"], line["completed"]) == (91.5, "EXCELLENT", 3)


def test_a_refused_line_is_not_quoted():
    """What a refused line holds may be secret, and is not in the log."""
    (line,) = told.lines(entry(ev.SubmissionRejected(error="no", line=3, offset=20, raw='{"env": "hunter2"}', path="tasks[0]")))
    assert "hunter2" not in str(line)
    assert (line["line"], line["offset"], line["path"], line["error_msg"]) == (3, 20, "tasks[0]", "no")


def test_the_level_counts():
    """Below the level nothing is written, not even of an entry of which another line is."""
    stream = io.StringIO()
    Narrator("WARNING", stream=stream).narrate(entry(ev.TaskFailed(**WHERE, error_msg="safety: no", gate="risk")))
    Narrator("WARNING", stream=stream).narrate(entry(ev.RunIdled(run_id="r")))
    assert [line["event"] for line in logged(stream)] == ["task_failed"]


def test_auto_is_json_in_a_pipe_and_readable_on_a_terminal():
    """`auto` looks at the stream."""
    pipe, terminal = io.StringIO(), Terminal()
    for stream in (pipe, terminal):
        Narrator(stream=stream).narrate(entry(ev.RunIdled(run_id="r")))
    assert logged(pipe)[0]["event"] == "run_idle"
    assert "run_idle" in terminal.getvalue()
    assert "{" not in terminal.getvalue()


@pytest.mark.parametrize("wrong", [{"level": "LOUD"}, {"log_format": "xml"}])
def test_unknown_level_and_format(wrong):
    """A level or format that is not known is refused with what is allowed."""
    with pytest.raises(ConfigurationError, match="allowed: "):
        Narrator(**wrong)


def test_the_file_is_private_and_json_whatever_the_stream_shows(tmp_path):
    """The log file is the owner's alone, and holds JSON lines also where the stream is for a person."""
    file = tmp_path / "phase21.jsonl"
    narrator = Narrator(stream=Terminal(), file=file)
    narrator.narrate(entry(ev.RunIdled(run_id="r")))
    narrator.close()
    assert file.stat().st_mode & 0o777 == 0o600
    assert codec.decode(file.read_bytes())["run_id"] == "r"


def test_the_file_is_rotated(tmp_path):
    """The log file keeps to its size, and its backups to their number; each holds whole lines."""
    narrator = Narrator(stream=io.StringIO(), file=tmp_path / "log", max_bytes=1024, backups=2)
    for number in range(100):
        narrator.narrate(entry(ev.RunIdled(run_id=f"run-{number}")))
    narrator.close()
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["log", "log.1", "log.2"]
    assert all(file.stat().st_size <= 1024 and file.stat().st_mode & 0o777 == 0o600 for file in files)
    lines = [codec.decode(line) for file in reversed(files) for line in file.read_bytes().splitlines()]
    assert [line["run_id"] for line in lines] == [f"run-{number}" for number in range(100 - len(lines), 100)]


def test_a_disk_or_reader_that_is_gone_stops_nobody(tmp_path):
    """Neither a log that cannot be written nor a stream that nobody reads is an error; each leaves the other."""
    stream = io.StringIO()
    Narrator(stream=stream, file=tmp_path / "missing" / "log").narrate(entry(ev.RunIdled(run_id="r")))
    assert len(logged(stream)) == 1
    narrator = Narrator(stream=Gone(), file=tmp_path / "log")
    narrator.narrate(entry(ev.RunIdled(run_id="r")))
    narrator.narrate(entry(ev.RunIdled(run_id="r")))
    narrator.close()
    assert len((tmp_path / "log").read_bytes().splitlines()) == 2


def test_trouble_is_told_at_error_and_its_end_at_info():
    """Disk trouble is told directly, with what the disk said."""
    stream = io.StringIO()
    narrator = Narrator(stream=stream)
    narrator.trouble("journal", OSError("disk full"))
    narrator.trouble("journal", None)
    first, second = logged(stream)
    assert (first["level"], first["event"], first["storage"], first["error_msg"]) == (
        "ERROR",
        "storage_unavailable",
        "journal",
        "disk full",
    )
    assert (second["level"], second["event"]) == ("INFO", "storage_recovered")


async def test_it_follows_from_the_call_on(tmp_path: Path):
    """What is appended after `run` was called is told once it is durable, even before the first await."""
    import asyncio

    stream = io.StringIO()
    async with Journal.opened(tmp_path / "journal.db") as journal, asyncio.TaskGroup() as group:
        work = Narrator(stream=stream).run(journal)
        journal.append(ev.ServiceStarted(pid=1, version="1"))
        journal.append(ev.QueueRefused(error="open"))
        telling = group.create_task(work)
        await journal.durable()
        async with asyncio.timeout(5):
            while len(stream.getvalue().splitlines()) < 2:
                await asyncio.sleep(0)
        telling.cancel()
    assert [line["event"] for line in logged(stream)] == ["service_started", "queue_refused"]


@given(st.text())
def test_whatever_is_said_is_one_line(error):
    """No text that comes from outside breaks the log into more lines than events."""
    for stream, count in ((io.StringIO(), 1), (Terminal(), 1)):
        Narrator(stream=stream).narrate(entry(ev.QueueRefused(error=error)))
        assert stream.getvalue().count("\n") == count


PLACES = ("run_id", "wave", "agent_id", "task_id", "submission_id")
VALIDATION = Validation(task_id="t", agent_id="agent_0", predicted=0.75, success=True)


@pytest.mark.parametrize(("event", "expected"), CONTRACT, ids=NAMES)
def test_every_line_says_where_it_belongs(event, expected):
    """What an event knows of run, wave, agent, task, submission and attempt stands in each of its lines."""
    known = {name: getattr(event, name, None) for name in PLACES} | {"attempt": getattr(event, "attempt", None) or None}
    if type(event).__name__.startswith("Schedule") and type(event) is not ev.ScheduleAccepted:
        known["schedule"] = known.pop("run_id")  # the run is the one that was made, where one was
    for line in told.lines(entry(event)):
        assert {name: line.get(name) for name, value in known.items() if value is not None} == {
            name: value for name, value in known.items() if value is not None
        }


def test_what_an_event_holds_within_says_where_it_belongs():
    """Lines of a list in one entry say each its own agent and task; an accepted submission of one wave says the wave."""
    given = ev.TasksAssigned(run_id="r", wave=2, strategy="round_robin", assignments=(Assignment("t", "a", 0.5, 0.6),))
    signals = ev.SignalsSent(run_id="r", wave=2, signals=(SIGNAL,), validations=(VALIDATION,))
    lines = [line for event in (given, signals) for line in told.lines(entry(event))]
    assert [(line["event"], line["agent_id"], line["task_id"]) for line in lines] == [
        ("task_assigned", "a", "t"), ("signal_generated", "agent_0", "t"), ("signal_generated", "agent_0", "t"),
    ]  # fmt: skip
    assert (lines[-1]["target_phase"], lines[-1]["confidence"]) == (20, 0.75)
    (line,) = told.lines(entry(ev.AnomalyRaised(run_id="r", anomaly=ANOMALY)))
    assert (line["wave"], line["agent_id"]) == (2, "agent_0")
    (line,) = told.lines(entry(ev.SubmissionAccepted(submission_id="s", run_id="r", waves={3: ()})))
    assert line["wave"] == 3
