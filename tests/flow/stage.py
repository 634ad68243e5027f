"""A house on a virtual stage: a whole service in one process, its clock the loop's, commits on the loop's own thread."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from phase21.domain import events as ev
from phase21.domain.settings import CurrentSettings, FeedbackSettings, Settings
from phase21.domain.tasks import Task
from phase21.readers.folders import RunFolder, rebuild
from phase21.service.house import House, Place
from phase21.store import codec
from phase21.store.clock import LoopClock


def place_in(folder: Path) -> Place:
    """State, outputs and queue under one folder."""
    state = folder / "state"
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Place(state=state, outputs=folder / "outputs", queue=state / "queue.jsonl")


def configured(**sections: dict[str, Any]) -> Settings:
    """Settings with some keys of some sections other than default."""
    return msgspec.convert(msgspec.to_builtins(Settings()) | {
        name: msgspec.to_builtins(getattr(Settings(), name)) | keys for name, keys in sections.items()
    }, Settings)  # fmt: skip


def task(task_id: str, **fields: Any) -> Task:
    """A task as accepted."""
    return msgspec.convert({"task_id": task_id, **fields}, Task)


def sure(task_id: str, **fields: Any) -> Task:
    """A simulated task that succeeds."""
    return task(task_id, payload={"success_rate": 1.0, **fields.pop("payload", {})}, **fields)


def doomed(task_id: str, **fields: Any) -> Task:
    """A simulated task that fails."""
    return task(task_id, payload={"success_rate": 0.0, **fields.pop("payload", {})}, **fields)


@contextlib.asynccontextmanager
async def house_in(folder: Path, settings: Settings | None = None) -> AsyncIterator[House]:
    """A house at work in `folder`, in virtual time."""
    async with House.opened(place_in(folder), CurrentSettings(settings or Settings()), clock=LoopClock(), inline=True) as house:
        yield house


def accept(house: House, run_id: str, *waves: Iterable[Task], first: int | None = None) -> None:
    """Accept waves as a submission would be."""
    run = house.journal.ledger.runs.get(run_id)
    start = first or (run.record.highest_wave if run else 0) + 1
    numbered = {start + n: tuple(tasks) for n, tasks in enumerate(waves)}
    position = house.journal.ledger.position + 1
    recalled = None if run else house.journal.lookup.run(run_id)
    house.journal.append(ev.SubmissionAccepted(submission_id=f"s{position}", run_id=run_id, waves=numbered, run=recalled))


def control(house: House, run_id: str, verb: str, *task_ids: str) -> None:
    """Give a control as a submission would."""
    position = house.journal.ledger.position + 1
    house.journal.append(ev.ControlReceived(submission_id=f"c{position}", run_id=run_id, control=verb, task_ids=task_ids))


async def finished(house: House) -> None:
    """Wait until nothing is left to do and all is written."""
    await house.journal.until(lambda: True)
    await house.harness.idle()
    await house.journal.durable()
    await house.journal.caught_up()
    for run in house.journal.ledger.runs.values():
        if run.idle and not run.closing:
            assert_rebuilds_the_same(house, run.run_id)


def assert_rebuilds_the_same(house: House, run_id: str) -> None:
    """What stands of a run that has nothing left to do is, byte for byte, what its entries make."""
    standing = house.outputs._root
    with tempfile.TemporaryDirectory() as elsewhere:
        rebuild(run_id, house.journal.entries_of(run_id), RunFolder(Path(elsewhere), run_id, FeedbackSettings()))
        assert tree(Path(elsewhere) / run_id) == tree(standing / run_id)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file under a folder, by its path within it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON lines file."""
    return [codec.decode(line, dict[str, Any]) for line in path.read_bytes().splitlines()]


def executed(folder: Path, run_id: str) -> list[dict[str, Any]]:
    """Every executed row of a run."""
    found: list[dict[str, Any]] = []
    for path in sorted((folder / "outputs" / run_id).glob("wave_*/*/executed_tasks.jsonl")):
        found.extend(rows(path))
    return found


def events_of(house: House, *kinds: type) -> list[Any]:
    """The durable events of some kinds, in order."""
    return [entry.event for entry in house.journal.lookup.entries() if isinstance(entry.event, kinds)]


def statuses(found: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Task id to status."""
    return {row["task_id"]: row["status"] for row in found}
