"""Looking from beside: the same answers as the journal's own ledger, with a daemon or without, and nothing changed."""

from __future__ import annotations

import os

import msgspec
import pytest

from phase21.domain import events as ev
from phase21.domain.errors import StorageUnavailable, UnknownRun
from phase21.domain.folds.known import IDLE_RUNS_KEPT
from phase21.domain.judgements import Calibration, Grade, Health, Metrics
from phase21.domain.plans import Assignment
from phase21.domain.tasks import Task
from phase21.readers.inquiries.spectator import PIECE_ENTRIES, Spectator
from phase21.store import files
from phase21.store.journal import Journal

METRICS = Metrics(
    success_rate=1.0, availability=1.0, confidence=0.9, prediction_error=0.1, accuracy=0.9, brier_score=0.0, load_balance=1.0,
    completed_tasks=1, failed_tasks=0, started_tasks=1,
)  # fmt: skip
HEALTH = Health(score=98.0, status=Grade.EXCELLENT, metrics=METRICS, agents=())


def opened(state):
    files.make_private(state)
    return Journal.opened(state / "journal.db")


def begin(journal):
    journal.append(ev.ServiceStarted(pid=1, version="1"))
    journal.append(ev.AgentJoined(agent_id="agent_0"))


def accept(journal, run_id, *ids, wave=1):
    tasks = tuple(Task(task_id=task_id) for task_id in ids)
    journal.append(ev.SubmissionAccepted(submission_id=f"s-{run_id}-{wave}", run_id=run_id, waves={wave: tasks}))


def start(journal, run_id, *ids, wave=1):
    given = tuple(Assignment(task_id, "agent_0", 0.9, 0.9) for task_id in ids)
    journal.append(ev.WaveOpened(run_id=run_id, wave=wave))
    journal.append(ev.TasksAssigned(run_id=run_id, wave=wave, strategy="round_robin", assignments=given))


def attempt(journal, run_id, task_id, wave=1):
    journal.append(ev.AttemptStarted(run_id=run_id, wave=wave, task_id=task_id, agent_id="agent_0", attempt=1, confidence=0.9))


def complete(journal, run_id, task_id, wave=1):
    journal.append(ev.TaskCompleted(run_id=run_id, wave=wave, task_id=task_id, agent_id="agent_0", attempt=1, duration_s=0.1))


def close(journal, run_id, wave=1, done=1):
    journal.append(ev.WaveSettled(run_id=run_id, wave=wave))
    journal.append(ev.HealthScored(run_id=run_id, wave=wave, health=HEALTH))
    journal.append(ev.PredictionsCalibrated(run_id=run_id, wave=wave, agents={"agent_0": Calibration(done, done, 0.9 * done)}))
    journal.append(ev.OutputsWritten(run_id=run_id, wave=wave, digest=msgspec.Raw(b'{"wave":1}')))


def whole_run(journal, run_id):
    accept(journal, run_id, "t")
    start(journal, run_id, "t")
    attempt(journal, run_id, "t")
    complete(journal, run_id, "t")
    close(journal, run_id)


def looked(state, run_id=None):
    with Spectator(state) as spectator:
        spectator.refresh()
        return spectator.status(state / "queue.jsonl", run_id)


def test_nothing_there_is_an_empty_answer_and_stays_nothing(tmp_path):
    """Without a state folder there is nothing to say, and looking makes no folder."""
    state = tmp_path / "state"
    assert looked(state) == {
        "daemon": {"running": False, "pid": None, "since": None},
        "queue": {"path": str(state / "queue.jsonl"), "offset": 0, "pending_bytes": 0},
        "agents": [],
        "runs": [],
        "schedules": [],
    }
    assert not state.exists()


async def test_what_is_under_way(tmp_path):
    """A running wave is seen as it stands: states of tasks, the agent's current task, what waits."""
    state = tmp_path / "state"
    async with opened(state) as journal:
        begin(journal)
        accept(journal, "r", "a", "b", "c")
        start(journal, "r", "a", "b", "c")
        attempt(journal, "r", "a")
        complete(journal, "r", "a")
        attempt(journal, "r", "b")
        await journal.durable()
        with files.held(state, {"pid": os.getpid(), "since": "2026-01-01T00:00:00+00:00"}):
            found = looked(state)
    assert found["daemon"] == {"running": True, "pid": os.getpid(), "since": "2026-01-01T00:00:00+00:00"}
    assert found["agents"] == [
        {
            "agent_id": "agent_0", "status": "BUSY", "waiting": 1, "current_task": "b", "completed": 1, "failed": 0, "success_rate": 1.0,
        }
    ]  # fmt: skip
    assert found["runs"] == [
        {
            "run_id": "r", "state": "running", "current_wave": 1, "waves": 1,
            "tasks": {"PENDING": 1, "IN_PROGRESS": 1, "COMPLETED": 1}, "health_score": None, "health_status": None, "waits_until": None, "workflow": None,
            "running": [{"task_id": "b", "agent_id": "agent_0", "attempt": 1, "progress": 0.0, "note": None}],
        }
    ]  # fmt: skip


async def test_without_a_daemon_nothing_runs(tmp_path):
    """What a crash left under way is queued, and its agent is IDLE with nothing current."""
    state = tmp_path / "state"
    async with opened(state) as journal:
        begin(journal)
        accept(journal, "r", "a")
        start(journal, "r", "a")
        attempt(journal, "r", "a")
    found = looked(state)
    assert found["runs"][0]["state"] == "queued"
    assert (found["agents"][0]["status"], found["agents"][0]["current_task"]) == ("IDLE", None)


async def test_states_of_runs(tmp_path):
    """A run is queued before its wave, paused by a person, idle at the end; a line not read yet counts as queued."""
    state = tmp_path / "state"
    async with opened(state) as journal:
        begin(journal)
        whole_run(journal, "done")
        accept(journal, "waits", "a")
        accept(journal, "halted", "a")
        journal.append(ev.ControlReceived(submission_id="p", run_id="halted", control="pause"))
    (state / "queue.jsonl").write_bytes(b'{"run_id": "new", "control": "pause"}\nnonsense\n')
    found = looked(state)
    assert {run["run_id"]: run["state"] for run in found["runs"]} == {
        "done": "idle", "waits": "queued", "halted": "paused", "new": "queued",
    }  # fmt: skip
    assert found["queue"]["pending_bytes"] == 47
    done = found["runs"][0]
    assert (done["tasks"], done["waves"], done["health_score"], done["health_status"]) == ({"COMPLETED": 1}, 1, 98.0, "EXCELLENT")


async def test_a_judged_wave_is_not_counted_twice(tmp_path):
    """An agent's counts are its record, and what open waves add to it before they have taught."""
    state = tmp_path / "state"
    async with opened(state) as journal:
        begin(journal)
        whole_run(journal, "r")
        accept(journal, "r", "u", wave=2)
        start(journal, "r", "u", wave=2)
        attempt(journal, "r", "u", wave=2)
        complete(journal, "r", "u", wave=2)
        await journal.durable()
        before = looked(state)["agents"][0]["completed"]
        journal.append(ev.PredictionsCalibrated(run_id="r", wave=2, agents={"agent_0": Calibration(1, 1, 0.9)}))
        await journal.durable()
        assert (before, looked(state)["agents"][0]["completed"]) == (2, 2)


async def test_a_deferred_task_counts_once(tmp_path):
    """A deferred task counts once while its wave is open, and once when it is closed."""
    state = tmp_path / "state"
    async with opened(state) as journal:
        begin(journal)
        accept(journal, "r", "a")
        start(journal, "r", "a")
        journal.append(ev.TaskDeferred(run_id="r", wave=1, task_id="a", agent_id="agent_0", reason="approval"))
        await journal.durable()
        assert looked(state)["runs"][0]["tasks"] == {"DEFERRED": 1}
        close(journal, "r", done=0)
        await journal.durable()
        assert looked(state)["runs"][0]["tasks"] == {"DEFERRED": 1}


async def test_runs_that_memory_has_put_away(tmp_path):
    """A run that is no longer in memory is answered by the store; one that never was, by UnknownRun."""
    state = tmp_path / "state"
    count = IDLE_RUNS_KEPT + 3
    async with opened(state) as journal:
        begin(journal)
        for number in range(count):
            whole_run(journal, f"r{number}")
        await journal.durable()
    with Spectator(state) as spectator:
        spectator.refresh()
        assert "r0" not in spectator.ledger.runs
        assert spectator.record("r0").counts == {"COMPLETED": 1}
        with pytest.raises(UnknownRun, match="other"):
            spectator.record("other")
        found = spectator.status(state / "queue.jsonl")
    assert [run["run_id"] for run in found["runs"]] == [f"r{number}" for number in range(count)]
    assert [run["run_id"] for run in looked(state, "r0")["runs"]] == ["r0"]
    with pytest.raises(UnknownRun):
        looked(state, "other")


async def test_refresh_folds_what_is_new(tmp_path):
    """A second look takes in what became durable since the first, and says what it was."""
    state = tmp_path / "state"
    with Spectator(state) as spectator:
        assert spectator.refresh() == []
        async with opened(state) as journal:
            begin(journal)
            await journal.durable()
            spectator.refresh()
            assert spectator.ledger.position == 2
            accept(journal, "r", "a")
            await journal.durable()
            (entry,) = spectator.refresh()
            assert isinstance(entry.event, ev.SubmissionAccepted)
            assert spectator.ledger.runs.keys() == journal.ledger.runs.keys()


async def test_entries_come_whole_and_in_order(tmp_path):
    """Entries are read in pieces, and no piece's edge loses or repeats one."""
    state = tmp_path / "state"
    async with opened(state) as journal:
        for _ in range(PIECE_ENTRIES + 10):
            journal.append(ev.QueueRefused(error="open"))
    with Spectator(state) as spectator:
        assert [entry.position for entry in spectator.entries()] == list(range(1, PIECE_ENTRIES + 11))
        assert [entry.position for entry in spectator.entries(PIECE_ENTRIES)] == list(range(PIECE_ENTRIES + 1, PIECE_ENTRIES + 11))


def test_a_store_that_cannot_be_read_is_said(tmp_path):
    """A journal that is no database is an error with its path, not a traceback."""
    (tmp_path / "journal.db").write_bytes(b"not a database" * 100)
    with Spectator(tmp_path) as spectator, pytest.raises(StorageUnavailable, match=r"journal\.db"):
        spectator.refresh()


@pytest.mark.parametrize("cause", ["timeouts", "stuck"])
async def test_an_agent_that_is_gone_is_offline_while_a_daemon_runs(tmp_path, cause):
    """Status shows OFFLINE, and no longer once no daemon runs: OFFLINE does not outlive one."""
    state = tmp_path / "state"
    async with opened(state) as journal:
        begin(journal)
        journal.append(ev.AgentWentOffline(agent_id="agent_0", cause=cause))
        await journal.durable()
        with files.held(state, {"pid": os.getpid()}):
            assert looked(state)["agents"][0]["status"] == "OFFLINE"
    assert looked(state)["agents"][0]["status"] == "IDLE"
