"""The same input in virtual time makes the same journal, and the fold does not care how often it was put away."""

from __future__ import annotations

import asyncio

import pytest
from cutting import journal_of, tell
from hypothesis import given, settings
from hypothesis import strategies as st
from players import after
from stage import accept, configured, control, executed, finished, house_in, place_in, sure, task

from phase21.domain.ledger import Ledger, Snapshot
from phase21.store import clock, codec
from phase21.store.database import Database

virtual = pytest.mark.looptime


async def told_again(folder, seed=0):
    """A story with chance in it: what came in as predicted is what is drawn."""
    async with house_in(folder, configured(handlers={"seed": seed}, retry={"jitter": 0.5})) as house:
        for run_id in ("a", "b"):
            waves = [[task(f"t{w}-{n}", predicted_success_rate=0.6) for n in range(12)] for w in range(3)]
            accept(house, run_id, *waves)
        await after(house, 0.3)
        control(house, "a", "cancel", "t2-3")
        await finished(house)
        await house.stop("the end", 1)


def encoded(ledger):
    return codec.encode(ledger.snapshot())


@virtual
async def test_the_same_story_makes_the_same_journal_byte_for_byte(tmp_path, monkeypatch):
    """Same input, same seed, virtual time: same journal, but for the time at which the loop began."""
    journals = []
    for name in ("one", "two"):
        monkeypatch.setattr(clock, "VIRTUAL_EPOCH_US", 1_700_000_000_000_000 - round(asyncio.get_running_loop().time() * 1e6))
        await told_again(tmp_path / name)
        journals.append([codec.encode(entry) for entry in journal_of(tmp_path / name)])
    first, second = journals
    assert len(first) > 100
    assert first == second


@virtual
async def test_another_seed_makes_another_story(tmp_path):
    """Chance comes from the seed."""
    ends = []
    for seed in (1, 2):
        await told_again(tmp_path / str(seed), seed)
        ends.append([(row["task_id"], row["status"], row["attempts"]) for row in executed(tmp_path / str(seed), "a")])
    assert ends[0] != ends[1]


@virtual
async def test_a_snapshot_and_its_tail_fold_to_the_same_ledger_everywhere(tmp_path):
    """Put away after any entry and taken up again, the ledger is the same as if it never had been."""
    await tell(tmp_path)
    entries = journal_of(tmp_path)
    whole = Ledger()
    for entry in entries:
        whole.fold(entry)
    carried = Ledger()
    for entry in entries:
        carried.fold(entry)
        carried = Ledger.restored(codec.decode(encoded(carried), Snapshot))
    assert encoded(carried) == encoded(whole)


_ENTRIES: list = []


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_put_away_at_any_places_the_ledger_is_the_same(data):
    """The same at chosen places, with far more runs than stay in memory."""
    entries = _many_runs()
    cuts = data.draw(st.sets(st.integers(0, len(entries)), max_size=5))
    whole, carried = Ledger(), Ledger()
    for position, entry in enumerate(entries):
        if position in cuts:
            carried = Ledger.restored(codec.decode(encoded(carried), Snapshot))
        whole.fold(entry)
        carried.fold(entry)
    assert encoded(whole) == encoded(carried)


def _many_runs():
    """Entries of a hundred small runs, opened and closed in an order that is not their names'."""
    from phase21.domain import events as ev
    from phase21.domain.tasks import Task

    if _ENTRIES:
        return _ENTRIES
    events = [ev.AgentJoined(agent_id="agent_0")]
    names = [f"r{n * 37 % 100}" for n in range(100)]
    for start in range(0, 100, 4):
        four = names[start : start + 4]
        waves = {1: (Task(task_id="t"), Task(task_id="u"))}
        events.extend(ev.SubmissionAccepted(submission_id=f"s{name}", run_id=name, waves=waves) for name in four)
        for name in reversed(four):
            place = {"run_id": name, "wave": 1}
            events.append(ev.WaveOpened(**place))
            events.append(ev.TaskCancelled(task_id="t", **place))
            if name.endswith("7"):
                events.append(ev.TaskDeferred(task_id="u", **place))
                events.append(ev.ControlReceived(submission_id=f"c{name}", run_id=name, control="approve", task_ids=("u",)))
            else:
                events.append(ev.TaskFailed(task_id="u", error_msg="safety: no", **place))
            events.append(ev.WaveSettled(**place))
            events.append(ev.PredictionsCalibrated(agents={}, **place))
        events.extend(ev.OutputsWritten(run_id=name, wave=1) for name in four)
    _ENTRIES.extend(ev.Entry(n, 1_000_000 + n, event) for n, event in enumerate(events, 1))
    return _ENTRIES


@virtual
async def test_the_store_gives_the_same_ledger_as_the_journal_held(tmp_path):
    """What is read back at a restart is what was known."""
    async with house_in(tmp_path) as house:
        accept(house, "r", [sure("a", payload={"duration_s": 5}), sure("b", risk_level="HIGH")], [sure("c")])
        await after(house, 1)
        known = encoded(house.journal.ledger)
        database = Database(place_in(tmp_path).state / "journal.db", read_only=True)
        assert encoded(database.ledger()) == known
        database.close()
