"""A story with a bit of everything, and journals that end where a test wants them to."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from players import after
from stage import accept, configured, control, doomed, executed, finished, house_in, place_in, sure, task

from phase21.domain import events as ev
from phase21.domain.ledger import Ledger
from phase21.domain.settings import FeedbackSettings
from phase21.readers.folders import RunFolder, rebuild
from phase21.store.database import Batch, Closing, Database
from phase21.store.journal import entries_of, folded_closing

SETTINGS = configured(agents={"count": 3}, retry={"base_delay": 0.5})


async def tell(folder: Path) -> None:
    """Two runs side by side: failures, retries, timeouts, dependencies, a deferral that is approved, a task that may run once."""
    async with house_in(folder, SETTINGS) as house:
        accept(
            house, "a",
            [
                sure("a1", heuristics=["h1"]), doomed("a2", heuristics=["h1"]), sure("a3", depends_on=["a1"]),
                sure("a4", depends_on=["a2"]), sure("a5", risk_level="HIGH", predicted_success_rate=0.99),
                sure("a6", depends_on=["a5"]), sure("a7", idempotent=False, payload={"duration_s": 1}),
                doomed("a8", timeout_s=1, payload={"duration_s": 5}, max_attempts=2), sure("a9", capabilities=["gpu"]),
            ],
            [sure("a10", depends_on=["a1"]), sure("a11", depends_on=["a2"]), task("a12", kind="nothing")],
            [sure("a13", agent_id="agent_1", payload={"duration_s": 1}), sure("a14")],
        )  # fmt: skip
        accept(house, "b", [sure(f"b{n}", payload={"duration_s": 0.5}) for n in range(4)], [sure("b4"), sure("b5")])
        await after(house, 1.2)
        control(house, "a", "approve", "a5", "a6")
        control(house, "b", "cancel", "b5")
        await finished(house)
        await house.stop("the end", 1)


def journal_of(folder: Path) -> list[ev.Entry]:
    """All entries of a state folder."""
    database = Database(place_in(folder).state / "journal.db", read_only=True)
    try:
        return list(database.entries())
    finally:
        database.close()


def written(folder: Path, entries: Sequence[ev.Entry]) -> None:
    """A state folder whose journal holds these entries, as the journal itself would have written them, and what outputs stood."""
    database = Database(place_in(folder).state / "journal.db")
    ledger = Ledger()
    closings: list[Closing] = []
    for entry in entries:
        if isinstance(entry.event, ev.OutputsWritten):
            closings.append(folded_closing(ledger, entry))
        else:
            ledger.fold(entry)
    if entries:
        database.commit(Batch(entries=entries, closings=closings))
    for run_id in ledger.runs:
        rebuild(run_id, entries_of(database, run_id, 0), RunFolder(folder / "outputs", run_id, FeedbackSettings()))
    database.close()


def ends(folder: Path, run_id: str) -> dict[str, str]:
    """Each task's final status; a task with two final rows is no story's end."""
    found: dict[str, str] = {}
    for row in executed(folder, run_id):
        if row["status"] != "DEFERRED":
            assert row["task_id"] not in found, f"{row['task_id']} has two final rows"
            found[row["task_id"]] = row["status"]
    return found


def tree(folder: Path) -> dict[str, bytes]:
    """Every file under a folder, by its path in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def rebuilt(folder: Path, run_id: str) -> dict[str, bytes]:
    """What a run's output folder is when built from the journal alone."""
    elsewhere = folder / "rebuilt"
    shutil.rmtree(elsewhere, ignore_errors=True)
    database = Database(place_in(folder).state / "journal.db", read_only=True)
    try:
        rebuild(run_id, entries_of(database, run_id, 0), RunFolder(elsewhere, run_id, FeedbackSettings()))
    finally:
        database.close()
    return tree(elsewhere / run_id)
