"""The journal is cut everywhere: the house that opens it goes on to the same end."""

from __future__ import annotations

import asyncio
import shutil

import pytest
from cutting import SETTINGS, ends, journal_of, rebuilt, tell, tree, written
from stage import accept, finished, house_in, place_in, sure

from phase21.domain import events as ev

pytestmark = pytest.mark.looptime

PARTS = 4
"""Into how many tests the cuts are dealt, so that they can run side by side."""


async def go_on(folder):
    """Open what a crash left, and carry it to its end."""
    async with house_in(folder, SETTINGS) as house:
        async with asyncio.timeout(5000):
            await finished(house)
        await house.stop("the end", 1)


def under_way(entries):
    """Tasks that had started and not ended."""
    started = {entry.event.task_id for entry in entries if isinstance(entry.event, ev.AttemptStarted)}
    return started - {entry.event.task_id for entry in entries if isinstance(entry.event, ev.TaskCompleted)}


def expected(entries, ending):
    """What must have become of each run's tasks, given where the journal was cut."""
    accepted = {
        (entry.event.run_id, task.task_id)
        for entry in entries
        if isinstance(entry.event, ev.SubmissionAccepted)
        for tasks in entry.event.waves.values()
        for task in tasks
    }
    controls = {(entry.event.run_id, entry.event.control) for entry in entries if isinstance(entry.event, ev.ControlReceived)}
    due = {}
    for run_id, statuses in ending.items():
        due[run_id] = {name: status for name, status in statuses.items() if (run_id, name) in accepted}
    if ("a", "approve") not in controls:
        for name in ("a5", "a6"):
            due["a"].pop(name, None)
    if ("b", "cancel") not in controls and "b5" in due["b"]:
        due["b"]["b5"] = "COMPLETED"
    if "a7" in under_way(entries):  # it may run once only
        due["a"]["a7"] = "FAILED"
    return due


async def whole_story(tmp_path):
    """The folder of the whole story, its entries and its end (no fixture: those run outside of virtual time)."""
    folder = tmp_path / "told"
    await tell(folder)
    ending = {run_id: ends(folder, run_id) for run_id in "ab"}
    return folder, journal_of(folder), ending


async def test_the_story_holds_what_it_should(tmp_path):
    """The story that is cut has every kind of end, and its outputs follow from its journal."""
    folder, entries, ending = await whole_story(tmp_path)
    assert ending["a"] == {
        "a1": "COMPLETED", "a2": "FAILED", "a3": "COMPLETED", "a4": "FAILED", "a5": "COMPLETED", "a6": "COMPLETED",
        "a7": "COMPLETED", "a8": "FAILED", "a9": "FAILED", "a10": "COMPLETED", "a11": "FAILED", "a12": "FAILED",
        "a13": "COMPLETED", "a14": "COMPLETED",
    }  # fmt: skip
    assert ending["b"] == {**{f"b{n}": "COMPLETED" for n in range(5)}, "b5": "CANCELLED"}
    for run_id in "ab":
        assert tree(folder / "outputs" / run_id) == rebuilt(folder, run_id)
    kinds = {type(entry.event) for entry in entries}
    assert {ev.AttemptFailed, ev.TaskDeferred, ev.TaskCancelled, ev.AnomalyRaised, ev.OutputsWritten} <= kinds


@pytest.mark.parametrize("part", range(PARTS))
async def test_cut_at_every_entry_the_end_is_the_same(tmp_path, part):
    """Whatever entry was the last durable one, each task ends once and as it would have, and the outputs follow."""
    _, entries, ending = await whole_story(tmp_path)
    for k in range(part, len(entries) + 1, PARTS):
        folder = tmp_path / f"cut-{k}"
        written(folder, entries[:k])
        await go_on(folder)
        for run_id, due in expected(entries[:k], ending).items():
            assert ends(folder, run_id) == due, f"cut after entry {k}: {entries[k - 1] if k else None}"
            if due:
                assert tree(folder / "outputs" / run_id) == rebuilt(folder, run_id), f"cut after entry {k}"
        shutil.rmtree(folder)


async def test_cut_within_the_files_the_end_is_the_same(tmp_path):
    """A write-ahead log that ends anywhere opens as the last whole transaction, and goes on to the same end."""
    folder = tmp_path / "live"
    live = place_in(folder).state
    async with house_in(folder, SETTINGS) as house:
        accept(house, "r", [sure("t1"), sure("t2", depends_on=["t1"])], [sure("t3", payload={"duration_s": 2})])
        await finished(house)
        shutil.copytree(folder / "outputs", tmp_path / "outputs")
        copies = {path.name: path.read_bytes() for path in live.glob("journal.db*")}
    log = copies["journal.db-wal"]
    assert log
    step = max(1, len(log) // 24)
    outcomes = set()
    for size in [*range(0, len(log), step), len(log)]:
        cut = tmp_path / f"bytes-{size}"
        state = place_in(cut).state
        (state / "journal.db").write_bytes(copies["journal.db"])
        (state / "journal.db-wal").write_bytes(log[:size])
        shutil.copytree(tmp_path / "outputs", cut / "outputs")
        await go_on(cut)
        entries = journal_of(cut)
        known = any(isinstance(entry.event, ev.SubmissionAccepted) for entry in entries)
        if known:
            assert ends(cut, "r") == dict.fromkeys(("t1", "t2", "t3"), "COMPLETED"), size
        outcomes.add(known)
        if known:
            assert tree(cut / "outputs/r") == rebuilt(cut, "r")
        shutil.rmtree(cut)
    assert {True, False} == outcomes
