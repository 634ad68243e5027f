"""The judge of `scripts/soak --workflows` is not blind: each story that may not be told is reported, and one that may be is not."""

from __future__ import annotations

import json
import sqlite3
import sys
from pathlib import Path

import pytest

SCRIPTS = str(Path(__file__).parents[2] / "scripts")
if SCRIPTS not in sys.path:
    sys.path.insert(0, SCRIPTS)

from soaking.flows import Flows, Mark  # noqa: E402 - after the path is set
from soaking.scenes import Scene  # noqa: E402
from soaking.tale import RunTale, ScheduleTale, Tale, TaskTale  # noqa: E402


def accepted(*task_ids, **fields):
    tasks = [{"task_id": task_id, **fields} for task_id in task_ids]
    return {"type": "SubmissionAccepted", "submission_id": "s", "run_id": "r", "waves": {"1": tasks}}


def of(kind, task_id, **fields):
    return {"type": kind, "run_id": "r", "wave": 1, "task_id": task_id, **fields}


def started(task_id, attempt=1):
    return of("AttemptStarted", task_id, agent_id="a", attempt=attempt)


def passed(sent=(), taken=()):
    letters = [[name, "notification", 2, sender, to, None, 1] for name, sender, to in sent]
    return {"type": "MessagesPassed", "run_id": "r", "sent": letters, "taken": taken}


def locked(task_id, fence, attempt=1):
    return {"type": "LockTaken", "run_id": "r", "name": "l", "task_id": task_id, "attempt": attempt, "fence": fence}


def shared(version):
    return {"type": "SharedChanged", "run_id": "r", "name": "n", "version": version, "body": version, "by": "t"}


def fired(name):
    return {"type": "ScheduleFired", "run_id": "every", "due_us": 5, "fired": name}


DONE = of("TaskCompleted", "t")
FAILED_ONCE = of("AttemptFailed", "t", attempt=1)
RESTARTED = {"type": "ServiceStarted"}
INTERRUPTED = of("TaskInterrupted", "t", attempt=1)
SCHEDULE = {"type": "ScheduleAccepted", "submission_id": "e", "run_id": "every", "every": {"interval_s": 1}}

SOUND = [
    [accepted("t"), started("t"), FAILED_ONCE, started("t", 2), DONE],
    [accepted("t", "u"), started("t"), started("u"), passed(sent=[("m1", "u", "t")]), passed(taken=[["t", "t", "m1"]]), RESTARTED,
     INTERRUPTED, started("t", 2), passed(taken=[["t", "t", "m1"]]), DONE],
    [accepted("t", "u"), started("t"), started("u"), locked("t", 1), RESTARTED, INTERRUPTED, started("t", 2), locked("t", 2, 2)],
    [accepted("t"), started("t"), shared(1), shared(2)],
    [SCHEDULE, accepted("t"), fired("r")],
]  # fmt: skip
BROKEN = [
    ("accepted twice", [accepted("t"), accepted("t")]),
    ("started again", [accepted("t"), started("t"), DONE, started("t", 2)]),
    ("while attempt 1 was under way", [accepted("t"), started("t"), started("t", 2)]),
    ("and then COMPLETED", [accepted("t"), started("t"), DONE, DONE]),
    ("not idempotent", [accepted("t", idempotent=False), started("t"), INTERRUPTED]),
    ("before its time", [accepted("t", not_before=9.0), started("t")]),
    ("after its deadline", [accepted("t", deadline=0.0), RESTARTED, started("t")]),
    ("before u ended", [accepted("u"), accepted("t", depends_on=["u"]), started("t")]),
    ("did not wait there", [accepted("t"), started("t"), passed(taken=[["t", "t", "m1"]])]),
    ("took it again", [accepted("t", "u"), started("t"), started("u"), passed(sent=[("m1", "u", "t"), ("m2", "u", "t")]),
                       passed(taken=[["t", "t", "m1"], ["t", "t", "m2"], ["t", "t", "m1"]])]),
    ("was sent twice", [accepted("t", "u"), started("t"), passed(sent=[("m1", "t", "u"), ("m1", "t", "u")])]),
    ("held it", [accepted("t", "u"), started("t"), started("u"), locked("t", 1), locked("u", 2)]),
    ("is not under way", [accepted("t"), started("t"), FAILED_ONCE, locked("t", 1)]),
    ("had 7 before", [accepted("t"), started("t"), locked("t", 7), FAILED_ONCE, started("t", 2), locked("t", 7, 2)]),
    ("version 3 of n follows 1", [accepted("t"), started("t"), shared(1), shared(3)]),
    ("no such run was accepted", [SCHEDULE, fired("r")]),
    ("is not the entry before", [SCHEDULE, accepted("t"), started("t"), fired("r")]),
    ("has not ended", [accepted("t"), {"type": "RunIdled", "run_id": "r"}]),
]  # fmt: skip


def told(folder, events):
    """What is reported of a store with these events, a second apart."""
    entries = [[place, place * 1_000_000, event] for place, event in enumerate(events, 1)]
    with sqlite3.connect(folder / "journal.db") as store:
        store.execute("CREATE TABLE batches (last INTEGER PRIMARY KEY, first INTEGER, body BLOB)")
        store.execute("INSERT INTO batches VALUES (?, 1, ?)", (len(entries), json.dumps(entries)))
    store.close()
    reports: list[str] = []
    Tale(reports.append).read(folder / "journal.db")
    return reports


@pytest.mark.parametrize("events", SOUND)
def test_a_sound_story_is_not_reported(tmp_path, events):
    """Retries, interruptions, what is given again, and locks that a restart frees are as they should be."""
    assert told(tmp_path, events) == []


@pytest.mark.parametrize(("said", "events"), BROKEN, ids=[said for said, _ in BROKEN])
def test_a_broken_promise_is_reported(tmp_path, said, events):
    """What is lost, repeated, early, late, or held by the dead is told."""
    assert any(said in report for report in told(tmp_path, events))


@pytest.mark.parametrize(
    ("said", "marks"),
    [
        ("", [("enter", "a", 1, 1), ("leave", "a", 1, 1), ("enter", "b", 1, 2), ("enter", "b", 2, 3)]),
        ("held the lock", [("enter", "a", 1, 1), ("enter", "b", 1, 2)]),
        ("a holder before had 2", [("enter", "a", 1, 2), ("enter", "b", 2, 2)]),
        ("left", [("enter", "a", 1, 1), ("enter", "b", 2, 2), ("leave", "a", 1, 1)]),
    ],
)
def test_marks_of_two_holders_are_reported(tmp_path, said, marks):
    """Two of one daemon in the lock at a time, a fence given twice, or a dead holder that goes on: each is told."""
    story = Flows(tmp_path, 1)
    left = [Mark(what, task_id, 1, at, daemon, (str(fence),)) for at, (what, task_id, daemon, fence) in enumerate(marks)]
    story.judge_turns(Scene("turns", "r", {}), left)
    assert [said in report for report in story.violations] == [True] * bool(said)


@pytest.mark.parametrize(
    ("said", "every", "events"),
    [
        ("", {}, [(1_000_000, "fired"), (2_000_000, "fired")]),
        ("decided 0 times", {}, [(1_000_000, "fired")]),
        ("decided 2 times", {}, [(1_000_000, "fired"), (1_000_000, "fired"), (2_000_000, "fired")]),
        ("is no due time", {}, [(1_000_000, "fired"), (1_500_000, "fired"), (2_000_000, "fired")]),
        ("", {"missed": "skip"}, [(1_000_000, "missed"), (2_000_000, "fired")]),
        ("though all are made up for", {"missed": "all"}, [(1_000_000, "missed"), (2_000_000, "fired")]),
        ("no run was in its way", {}, [(1_000_000, "overlap"), (2_000_000, "fired")]),
    ],
)
def test_due_times_are_decided_once_and_by_their_rules(tmp_path, said, every, events):
    """A due time that is left out, fires twice, is invented, or is missed against its rules is told."""
    story, schedule = Flows(tmp_path, 1), ScheduleTale({"interval_s": 1.0, "until": 2.0, **every}, 0, ended="over")
    for due_us, how in events:
        if how == "fired":
            schedule.fired.append((due_us, due_us, False))
        else:
            schedule.missed.append((due_us, due_us, 1, due_us + 1_500_000, how, False))
    tale = Tale(story.broken)
    tale.runs = {f"every-{n}": RunTale(source="schedule") for n, _ in enumerate(schedule.fired)}
    story.judge_schedule("every", schedule, tale)
    assert [said in report for report in story.violations] == [True] * bool(said)


def undone(*order):
    """A saga of `a` and `b`, undone in some order, one after the other."""
    run = RunTale(workflow={"on_failure": "compensate"}, states=[("failed", "")], completed=["a", "b"])
    run.compensations = [[f"{task_id}.undo" for task_id in order]] if order else []
    for at_us, task_id in enumerate(("a", "b", *(f"{task_id}.undo" for task_id in order))):
        tale = TaskTale({"task_id": task_id, "compensate": {"kind": "command"}}, 0, status="COMPLETED")
        tale.begun, tale.ended_us = [(1, 2 * at_us)], 2 * at_us + 1
        run.tasks[task_id] = tale
    return run


@pytest.mark.parametrize(
    ("said", "order"), [("", ("b", "a")), ("the reverse order", ("a", "b")), ("were not undone", ()), ("the reverse order", ("b",))]
)
def test_a_saga_that_is_not_undone_backwards_is_reported(tmp_path, said, order):
    """Undone the wrong way round, in part, or not at all: each is told."""
    story = Flows(tmp_path, 1)
    story.judge_workflow("r", undone(*order))
    assert [said in report for report in story.violations] == [True] * bool(said)
