"""The journal's verbs, and what it does when the disk does not."""

from __future__ import annotations

import asyncio
import sqlite3
import threading

import pytest

from phase21.domain import events as ev
from phase21.domain.errors import StorageUnavailable
from phase21.domain.tasks import Task
from phase21.store import journal as journal_module
from phase21.store.clock import Clock
from phase21.store.database import Database
from phase21.store.journal import Journal


class Hands(Clock):
    """A clock that is set by hand."""

    def __init__(self, now_us=1_000):
        self.us = now_us

    def now_us(self):
        return self.us


def opened(folder, **options):
    return Journal.opened(folder / "journal.db", **options)


def accepted(name="s", run_id="r", wave=1):
    return ev.SubmissionAccepted(submission_id=name, run_id=run_id, waves={wave: (Task(task_id=f"t{wave}"),)})


async def test_what_was_appended_is_there_at_the_next_opening(tmp_path):
    """Entries keep their order, their places and their times, and the ledger is their fold."""
    async with opened(tmp_path, clock=Hands()) as journal:
        journal.append(ev.AgentJoined(agent_id="a"))
        journal.append(accepted())
        await journal.durable()
    async with opened(tmp_path) as journal:
        assert [(entry.position, entry.at_us) for entry in journal.lookup.entries()] == [(1, 1_000), (2, 1_000)]
        assert journal.ledger.position == 2
        assert list(journal.ledger.runs) == ["r"]


async def test_durable_waits_until_it_is_on_disk(tmp_path):
    """After `durable` another connection sees all that was appended before."""
    async with opened(tmp_path) as journal:
        for _ in range(3):
            journal.append(ev.RunIdled(run_id="r"))
            await journal.durable()
            assert Database(tmp_path / "journal.db", read_only=True).last_position() == journal.ledger.position


async def test_entries_appended_without_an_await_share_a_transaction(tmp_path):
    """A power cut keeps all of them or none."""
    async with opened(tmp_path) as journal:
        for _ in range(5):
            journal.append(ev.RunIdled(run_id="r"))
        await journal.durable()
        rows = sqlite3.connect(tmp_path / "journal.db").execute("SELECT first, last FROM batches").fetchall()
        assert rows == [(1, 5)]


async def test_what_cannot_be_folded_leaves_no_gap(tmp_path):
    """An event that the ledger cannot take in is refused, and the next entry has the place that it would have had."""
    async with opened(tmp_path) as journal:
        journal.append(ev.AgentJoined(agent_id="a"))
        with pytest.raises(KeyError):
            journal.append(ev.WaveSettled(run_id="nobody", wave=1))
        journal.append(ev.RunIdled(run_id="r"))
        await journal.durable()
        assert [entry.position for entry in journal.lookup.entries()] == [1, 2]


async def test_time_never_runs_backwards(tmp_path):
    """Where the wall clock is put back, entries keep the latest time."""
    clock = Hands(5_000)
    async with opened(tmp_path, clock=clock) as journal:
        journal.append(ev.RunIdled(run_id="r"))
        clock.us = 3_000
        assert journal.append(ev.RunIdled(run_id="r")).at_us == 5_000
        clock.us = 6_000
        assert journal.append(ev.RunIdled(run_id="r")).at_us == 6_000


async def test_a_follower_gets_its_kinds_from_its_registration_on(tmp_path):
    """It registers at the call, takes each entry of its kinds once and in order, and nothing else."""
    async with opened(tmp_path) as journal:
        journal.append(ev.RunIdled(run_id="before"))
        follower = journal.follow("reader", ev.RunIdled)
        journal.append(ev.AgentJoined(agent_id="a"))
        journal.append(ev.RunIdled(run_id="one"))
        journal.append(ev.RunIdled(run_id="two"))
        assert [(await anext(follower)).event.run_id for _ in range(2)] == ["one", "two"]


async def test_a_durable_follower_gets_entries_once_they_are_on_disk(tmp_path):
    """What it is told would survive a power cut."""
    async with opened(tmp_path) as journal:
        follower = journal.follow("narrator", ev.RunIdled, durable=True)
        journal.append(ev.RunIdled(run_id="r"))
        entry = await anext(follower)
        assert Database(tmp_path / "journal.db", read_only=True).last_position() >= entry.position


async def test_caught_up_waits_for_every_follower(tmp_path):
    """The fence opens when each follower has dealt with all that was appended, its own entries among them."""
    async with opened(tmp_path) as journal:
        dealt = []

        async def read():
            async for entry in journal.follow("reader", ev.AgentJoined, ev.RunIdled):
                await asyncio.sleep(0)
                if isinstance(entry.event, ev.AgentJoined):
                    journal.append(ev.RunIdled(run_id=entry.event.agent_id))
                dealt.append(entry.position)

        async with asyncio.TaskGroup() as group:
            reader = group.create_task(read())
            await asyncio.sleep(0)
            journal.append(ev.AgentJoined(agent_id="a"))
            await journal.caught_up()
            assert dealt == [1, 2]
            reader.cancel()


async def test_until_wakes_on_a_fact(tmp_path):
    """Who waits for a fact of the ledger goes on when it holds, not before."""
    async with opened(tmp_path) as journal:
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(journal.until(lambda: "r" in journal.ledger.runs))
            journal.append(ev.RunIdled(run_id="r"))
            for _ in range(5):
                await asyncio.sleep(0)
            assert not waiting.done()
            journal.append(accepted())
        assert waiting.done()


async def test_one_who_stops_waiting_leaves_nothing_behind(tmp_path):
    """A cancelled wait is forgotten."""
    async with opened(tmp_path) as journal:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await journal.until(lambda: False)
        assert not journal._facts


async def test_disk_trouble_is_told_once_and_passes(tmp_path, monkeypatch):
    """A commit that fails is tried again until it succeeds; nothing is lost, and trouble and recovery are told once each."""
    monkeypatch.setattr(journal_module, "RETRY_DELAY_S", 0.01)
    async with opened(tmp_path) as journal:
        told = []
        journal.on_trouble = lambda name, error: told.append((name, str(error) if error else None))
        plain, failures = journal._database.commit, iter(["disk full"] * 3)

        def commit(batch):
            for message in failures:
                raise sqlite3.OperationalError(message)
            plain(batch)

        monkeypatch.setattr(journal._database, "commit", commit)
        journal.append(ev.RunIdled(run_id="r"))
        await journal.durable()
        await journal.available()
        assert told == [("journal", "disk full"), ("journal", None)]
        assert journal.lookup.last_position() == 1


async def test_nothing_new_is_started_while_the_disk_is_in_trouble(tmp_path):
    """`available` waits as long as there is any trouble."""
    async with opened(tmp_path) as journal:
        journal.trouble("outputs", OSError("read-only"))
        assert journal.strained
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(journal.available())
            for _ in range(3):
                await asyncio.sleep(0)
            assert not waiting.done()
            journal.trouble_over("outputs")
        assert not journal.strained


async def test_a_snapshot_is_taken_at_the_close_and_begun_from(tmp_path):
    """A restart folds what came after the newest snapshot only."""
    async with opened(tmp_path) as journal:
        journal.append(ev.AgentJoined(agent_id="a"))
        journal.append(accepted())
    database = Database(tmp_path / "journal.db")
    assert database.snapshot_position() == 2
    assert list(database.ledger().runs) == ["r"]
    database.close()


async def test_a_store_keeps_its_name(tmp_path):
    """The store's id is given once."""
    async with opened(tmp_path) as journal:
        name = journal.store_id
    async with opened(tmp_path) as journal:
        assert journal.store_id == name


async def test_a_file_that_is_no_store_is_said_to_be_none(tmp_path):
    """What cannot be opened is one line for a person, not a traceback."""
    (tmp_path / "journal.db").write_bytes(b"this is no database at all" * 100)
    with pytest.raises(StorageUnavailable):
        async with opened(tmp_path):
            pass


async def test_a_submission_is_found_by_its_name(tmp_path):
    """What a submission became is answered from the store, for ever."""
    async with opened(tmp_path) as journal:
        journal.append(accepted("mine", wave=7))
        journal.append(ev.ControlReceived(submission_id="stop", run_id="r", control="pause"))
        await journal.durable()
        assert journal.lookup.submission("mine") == ("r", [7])
        assert journal.lookup.submission("stop") == ("r", [])
        assert journal.lookup.submission("other") is None


async def test_the_file_is_its_owners_alone(tmp_path):
    """The journal holds payloads: nobody else may read it."""
    async with opened(tmp_path) as journal:
        journal.append(ev.RunIdled(run_id="r"))
        await journal.durable()
        for path in tmp_path.glob("journal.db*"):
            assert path.stat().st_mode & 0o077 == 0, path


async def test_what_is_committed_is_found_while_entries_are_being_read(tmp_path):
    """A reader that dawdles over a run's entries does not hold the store's past for those who ask beside it."""
    async with opened(tmp_path) as journal:
        for wave in (1, 2, 3):
            journal.append(accepted(f"s{wave}", wave=wave))
            await journal.durable()
        reading = journal.entries_of("r")
        next(reading)
        journal.append(accepted("new", wave=4))
        await journal.durable()
        assert journal.lookup.submission("new") == ("r", [4])
        assert [entry.position for entry in reading] == [2, 3, 4]


async def test_what_cannot_be_written_is_told_of(tmp_path):
    """An entry that no disk would take is trouble that is said, not a journal that stands still without a word."""
    async with opened(tmp_path) as journal:
        told = asyncio.Event()
        journal.on_trouble = lambda _name, _error: told.set()
        journal._writer.usual_s = 0.0  # commits on the spot
        journal.append(ev.ConfigurationRefused(error="half a character: \ud800"))
        async with asyncio.timeout(10):
            await told.wait()
        assert journal.strained


async def test_work_beside_ends_before_whoever_waits_for_it_goes(tmp_path):
    """Work on another thread is waited for though its waiter is cancelled: it must not write on beside the next holder."""
    async with opened(tmp_path, inline=False) as journal:
        begun, release, ended = threading.Event(), threading.Event(), []

        def work():
            begun.set()
            release.wait(5)
            ended.append(True)

        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(journal.beside(work))
            await asyncio.to_thread(begun.wait, 5)
            waiting.cancel()
            await asyncio.sleep(0)
            assert not waiting.done()
            release.set()
        assert ended == [True]
