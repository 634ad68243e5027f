"""The journal's file: SQLite with entries many to a row, and an index of what is closed.

One connection writes (the journal's, from one thread); any number read beside it. Every table but `batches` follows from
the entries and is written in their transaction.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from phase21.domain import events as ev
from phase21.domain.ledger import Ledger, Snapshot
from phase21.domain.records import RunRecord
from phase21.store import codec

FORMAT = 1
SNAPSHOTS_KEPT = 2
LOOKUP_CACHE_KIB = 256
"""What a reader's connection may keep of the file; the system keeps it too."""

_SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS batches (last INTEGER PRIMARY KEY, first INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS snapshots (position INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS submissions (
    submission_id TEXT PRIMARY KEY, run_id TEXT NOT NULL, waves TEXT NOT NULL, position INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS runs (run_id TEXT PRIMARY KEY, record BLOB NOT NULL, position INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS waves (
    run_id TEXT NOT NULL, wave INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, digest BLOB NOT NULL,
    PRIMARY KEY (run_id, wave)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tasks (
    run_id TEXT NOT NULL, task_id TEXT NOT NULL, wave INTEGER NOT NULL, status TEXT NOT NULL,
    PRIMARY KEY (run_id, task_id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rejections (position INTEGER PRIMARY KEY, submission_id TEXT, body BLOB NOT NULL);
COMMIT;
"""


class Closing(msgspec.Struct, frozen=True, kw_only=True):
    """A wave that is closed: what the index keeps of it, and its run's record as it stands since."""

    run_id: str
    wave: int
    first: int
    last: int
    digest: bytes
    record: bytes
    tasks: bytes


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """What one transaction makes durable."""

    entries: Sequence[ev.Entry]
    closings: Sequence[Closing] = ()
    snapshot: bytes | None = None


class Database:
    """One connection. Raises sqlite3.Error where the disk does not do what it should."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        self._read_only = read_only
        self._connection = self._connect()

    def _connect(self) -> sqlite3.Connection:
        if self._read_only:
            connection = sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", uri=True, check_same_thread=False)
            connection.isolation_level = None
            connection.execute(f"PRAGMA cache_size=-{LOOKUP_CACHE_KIB}")
            return connection
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        connection = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA busy_timeout=10000")
        connection.executescript(_SCHEMA)
        connection.execute("INSERT OR IGNORE INTO meta VALUES ('format', ?)", (str(FORMAT),))
        return connection

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    # -- writing -----------------------------------------------------------------------------------------------------

    def commit(self, batch: Batch) -> None:
        """Make a batch durable, all or nothing."""
        connection = self._connection
        indexed = [entry for entry in batch.entries if type(entry.event) in _INDEXED]
        if not (indexed or batch.closings or batch.snapshot is not None):
            self._write_entries(batch.entries)  # without `isolation_level` one statement is a transaction
            return
        connection.execute("BEGIN IMMEDIATE")
        try:
            self._write(batch, indexed)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _write_entries(self, entries: Sequence[ev.Entry]) -> None:
        if entries:
            row = (entries[-1].position, entries[0].position, codec.encode(entries))
            self._connection.execute("INSERT INTO batches VALUES (?, ?, ?)", row)

    def _write(self, batch: Batch, indexed: Sequence[ev.Entry]) -> None:
        execute = self._connection.execute
        self._write_entries(batch.entries)
        for entry in indexed:
            _INDEXED[type(entry.event)](self._connection, entry)
        for closing in batch.closings:
            execute("INSERT OR REPLACE INTO waves VALUES (?, ?, ?, ?, ?)",
                    (closing.run_id, closing.wave, closing.first, closing.last, closing.digest))  # fmt: skip
            execute("INSERT OR REPLACE INTO runs VALUES (?, ?, ?)", (closing.run_id, closing.record, closing.last))
            execute(
                "INSERT OR REPLACE INTO tasks SELECT ?, key, ?, value FROM json_each(?) ORDER BY key",
                (closing.run_id, closing.wave, closing.tasks.decode()),
            )
        if batch.snapshot is not None:
            last = batch.entries[-1].position if batch.entries else self.last_position()
            execute("INSERT OR REPLACE INTO snapshots VALUES (?, ?)", (last, batch.snapshot))
            execute("DELETE FROM snapshots WHERE position NOT IN (SELECT position FROM snapshots ORDER BY position DESC LIMIT ?)",
                    (SNAPSHOTS_KEPT,))  # fmt: skip

    def made(self) -> bool:
        """Whether the tables are there, which all come at once."""
        return self._connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'batches'").fetchone() is not None

    def store_id(self, fresh: str) -> str:
        """The name of this store, given at its first opening."""
        self._connection.execute("INSERT OR IGNORE INTO meta VALUES ('store_id', ?)", (fresh,))
        return str(self._connection.execute("SELECT value FROM meta WHERE key = 'store_id'").fetchone()[0])

    # -- reading -----------------------------------------------------------------------------------------------------

    def last_position(self) -> int:
        """The position of the last durable entry, 0 where there is none."""
        return int(self._connection.execute("SELECT coalesce(max(last), 0) FROM batches").fetchone()[0])

    def entries(self, after: int = 0, containing: bytes | None = None) -> Iterator[ev.Entry]:
        """The durable entries behind a position, in order; `containing` passes over rows without these bytes.

        No statement stays open from row to row: while one does, its connection sees nothing that is committed since.
        """
        next_row, last = "SELECT last, body FROM batches WHERE last > ? ORDER BY last LIMIT 1", after
        while row := self._connection.execute(next_row, (last,)).fetchone():
            last, body = row
            if containing is None or containing in body or b'"Agent' in body or b'"Service' in body:
                for entry in codec.decode(body, list[ev.Entry]):
                    if entry.position > after:
                        yield entry

    def ledger(self) -> Ledger:
        """The fold of all durable entries, from the newest snapshot on."""
        row = self._connection.execute("SELECT body FROM snapshots ORDER BY position DESC LIMIT 1").fetchone()
        ledger = Ledger.restored(codec.decode(row[0], Snapshot)) if row else Ledger()
        for entry in self.entries(ledger.position):
            ledger.fold(entry)
        return ledger

    def snapshot_position(self) -> int:
        """Where the newest snapshot stands."""
        return int(self._connection.execute("SELECT coalesce(max(position), 0) FROM snapshots").fetchone()[0])

    def submission(self, submission_id: str) -> tuple[str, list[int]] | None:
        """The run and waves that a submission became."""
        row = self._connection.execute("SELECT run_id, waves FROM submissions WHERE submission_id = ?", (submission_id,)).fetchone()
        return (row[0], codec.decode(row[1], list[int])) if row else None

    def rejection(self, submission_id: str) -> ev.SubmissionRejected | None:
        """Why a submission was refused, where it named itself."""
        row = self._connection.execute(
            "SELECT body FROM rejections WHERE submission_id = ? ORDER BY position DESC", (submission_id,)
        ).fetchone()
        return codec.decode(row[0], ev.Entry).event if row else None

    def rejections(self) -> Iterator[ev.Entry]:
        """Every rejection, in order."""
        for (body,) in self._connection.execute("SELECT body FROM rejections ORDER BY position"):
            yield codec.decode(body, ev.Entry)

    def rejection_count(self) -> int:
        """How many rejections there are."""
        return int(self._connection.execute("SELECT count(*) FROM rejections").fetchone()[0])

    def run(self, run_id: str) -> RunRecord | None:
        """A run's record as of its last closed wave."""
        row = self._connection.execute("SELECT record FROM runs WHERE run_id = ?", (run_id,)).fetchone()
        return codec.decode(row[0], RunRecord) if row else None

    def runs(self) -> Iterator[RunRecord]:
        """Every run that ever closed a wave."""
        for (record,) in self._connection.execute("SELECT record FROM runs ORDER BY position"):
            yield codec.decode(record, RunRecord)

    def tasks(self, run_id: str, ids: Sequence[str]) -> dict[str, str]:
        """The status of those of the tasks that are in closed waves."""
        rows = self._connection.execute(
            "SELECT task_id, status FROM json_each(?) JOIN tasks ON tasks.run_id = ? AND tasks.task_id = value",
            (codec.encode(list(ids)).decode(), run_id),
        )
        return dict(rows.fetchall())

    def waves(self, run_id: str) -> Iterator[tuple[int, bytes]]:
        """The digests of a run's closed waves, in order."""
        yield from self._connection.execute("SELECT wave, digest FROM waves WHERE run_id = ? ORDER BY wave", (run_id,))


def _index_accepted(connection: sqlite3.Connection, entry: ev.Entry) -> None:
    event = entry.event
    if isinstance(event, ev.SubmissionAccepted | ev.ControlReceived | ev.ScheduleAccepted):
        waves = list(event.waves) if isinstance(event, ev.SubmissionAccepted) else []
        row = (event.submission_id, event.run_id, codec.encode(waves).decode(), entry.position)
        connection.execute("INSERT OR IGNORE INTO submissions VALUES (?, ?, ?, ?)", row)


def _index_rejected(connection: sqlite3.Connection, entry: ev.Entry) -> None:
    event = entry.event
    if isinstance(event, ev.SubmissionRejected):
        row = (entry.position, event.submission_id, codec.encode(entry))
        connection.execute("INSERT OR IGNORE INTO rejections VALUES (?, ?, ?)", row)


_INDEXED = {
    ev.SubmissionAccepted: _index_accepted,
    ev.ControlReceived: _index_accepted,
    ev.ScheduleAccepted: _index_accepted,
    ev.SubmissionRejected: _index_rejected,
}
