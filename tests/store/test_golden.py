"""Journals of every version so far load for ever."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from phase21.domain import events as ev
from phase21.domain.ledger import Ledger, Snapshot
from phase21.store import codec
from phase21.store.database import Batch, Database
from phase21.store.journal import folded_closing

sys.path.insert(0, str(Path(__file__).parent))
from golden_fold import folded, summary

GOLDEN = Path(__file__).parent / "golden"


VERSIONS = (1, 2)


def golden_entries(version=1):
    return [codec.decode(line, ev.Entry) for line in (GOLDEN / f"journal_v{version}.jsonl").read_bytes().splitlines()]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_golden_journal_folds_to_what_it_folded_to_then(version):
    """A golden journal loads, and its ledger says what was recorded when it was written."""
    told = codec.decode((GOLDEN / f"ledger_v{version}.json").read_bytes())
    assert codec.decode(codec.encode(summary(folded(golden_entries(version))))) == told


def test_the_golden_journals_hold_every_kind_of_entry():
    """No kind of event can change its form unseen."""
    assert {type(entry.event) for version in VERSIONS for entry in golden_entries(version)} == set(ev.AnyEvent.__args__)


def test_a_reader_of_an_old_journal_passes_over_fields_that_it_does_not_know():
    """A journal that a later version wrote more into still loads."""
    line = b'[1,5,{"type":"RunIdled","run_id":"r","mood":"fine"}]'
    assert codec.decode(line, ev.Entry) == ev.Entry(1, 5, ev.RunIdled(run_id="r"))


def test_the_golden_journal_goes_through_the_store(tmp_path):
    """Written to a database and read again, the golden journal is the same, and so is what is known of its closed tasks."""
    entries = golden_entries()
    database = Database(tmp_path / "journal.db")
    ledger, closings = Ledger(), []
    for entry in entries:
        if isinstance(entry.event, ev.OutputsWritten):
            closings.append(folded_closing(ledger, entry))
        else:
            ledger.fold(entry)
    database.commit(Batch(entries=entries, closings=closings, snapshot=codec.encode(ledger.snapshot())))
    assert [codec.encode(entry) for entry in database.entries()] == [codec.encode(entry) for entry in entries]
    assert summary(database.ledger()) == summary(ledger)
    assert summary(Ledger.restored(codec.decode(codec.encode(ledger.snapshot()), Snapshot))) == summary(ledger)
    assert database.tasks("a", ["a1", "a2", "nothing"]) == {"a1": "COMPLETED", "a2": "FAILED"}
    database.close()
