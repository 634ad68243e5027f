"""A run's folder on the disk: waves put in place whole, files that grow by whole lines, and building it again from the journal."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from phase21.domain import events as ev
from phase21.domain.errors import UnknownRun
from phase21.domain.ledger import Ledger
from phase21.domain.records import RunRecord
from phase21.domain.runs import Run, tallied
from phase21.domain.settings import FeedbackSettings
from phase21.readers.contents import (
    COORDINATION,
    GROWING,
    HEALTH,
    HEURISTICS,
    REPORT,
    SUMMARY,
    VALIDATION,
    Steps,
    WaveContents,
    contents_of,
    drained,
    run_files,
    wave_digest,
)
from phase21.readers.plots import PICTURE
from phase21.store import codec, files

CHUNK_ENTRIES = 1_000
SENT_MARKS = 64

_OWN = re.compile(r"wave_\d+|\..*\.new")
_OWN_NAMES = frozenset({name.partition("/")[0] for name in GROWING} | {HEALTH, SUMMARY, REPORT, PICTURE})


class OutputsMissing(Exception):
    """A growing file is shorter than what was written to it: the run's folder must be built again."""


class RunFolder:
    """One run's folder. The caller says what stood in its growing files before; nothing is read back."""

    def __init__(self, root: Path, run_id: str, extra: FeedbackSettings) -> None:
        self.root = root
        self.run_id = run_id
        self.path = root / run_id
        self._extra = extra

    def put(self, contents: WaveContents, sizes: Mapping[str, int]) -> dict[str, int]:
        """Write all of a judged wave; give the sizes of the growing files since.

        Raises OSError, and OutputsMissing where a growing file is shorter than `sizes` says.
        """
        self._check(sizes)
        files.replace_folder(self.path / f"wave_{contents.wave}", contents.files)
        written = {name: _append(f"{self.path}/{name}", sizes.get(name, 0), data) for name, data in contents.grown.items()}
        self._relay(contents)
        return written

    def _check(self, sizes: Mapping[str, int]) -> None:
        for name, size in sizes.items():
            try:
                stands = os.stat(f"{self.path}/{name}").st_size
            except FileNotFoundError:
                stands = 0
            if stands < size:
                raise OutputsMissing(f"{self.path}/{name}: shorter than the {size} bytes that were written to it")

    def put_run_files(self, contents: Mapping[str, bytes | bytearray]) -> None:
        """Write the run's own files (`run_files`), each whole."""
        for name, data in contents.items():
            files.replace(self.path / name, data)

    # -- files that grow -----------------------------------------------------------------------------------------------

    def _relay(self, contents: WaveContents) -> None:
        for name, folder in (
            (HEURISTICS, self._extra.phase16_dir),
            (COORDINATION, self._extra.phase18_dir),
            (VALIDATION, self._extra.phase20_dir),
        ):
            if folder is not None and contents.grown[name]:
                _send(Path(folder) / Path(name).name, f"{self.run_id}/{contents.wave}", contents.grown[name])

    # -- building it again -------------------------------------------------------------------------------------------

    def draft(self) -> RunFolder:
        """An empty folder beside this one, to build in; no run can bear its name. It sends nothing elsewhere."""
        draft = RunFolder(self.root, f".{self.run_id}.rebuild", FeedbackSettings())
        shutil.rmtree(draft.path, ignore_errors=True)
        files.make_private(draft.path)
        return draft

    def adopt(self, draft: RunFolder) -> None:
        """Put a draft in the place of this folder. What a person put here stays; a crash in between loses none of it."""
        old = self.root / f".{self.run_id}.old"
        if old.exists() and self.path.exists():
            _retire(old, self.path)
        if self.path.exists():
            self.path.rename(old)
        draft.path.rename(self.path)
        if old.exists():
            _retire(old, self.path)


def _retire(old: Path, current: Path) -> None:
    """Remove a folder that another replaces, after moving over what is not ours."""
    for child in old.iterdir():
        if child.name not in _OWN_NAMES and not _OWN.fullmatch(child.name) and not (current / child.name).exists():
            child.rename(current / child.name)
    shutil.rmtree(old)


def _append(path: str, size: int, data: bytes | bytearray) -> int:
    """Cut the file to `size`, which drops what an interrupted writing left, and add `data`. Gives the size since."""
    if size and not data:
        return size
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, files.PRIVATE_FILE)
    except FileNotFoundError:
        files.make_private(Path(path).parent)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, files.PRIVATE_FILE)
    try:
        if os.fstat(descriptor).st_size > size:
            os.ftruncate(descriptor, size)
        if data:
            os.lseek(descriptor, size, os.SEEK_SET)
            files.write_all(descriptor, data)
    finally:
        os.close(descriptor)
    return size + len(data)


def _send(path: Path, key: str, data: bytes | bytearray) -> None:
    """Add a wave's lines to a file that all runs share, once.

    The place is noted before the lines are written, so that after a crash they are found there whole, cut and written
    again, or written for the first time.
    """
    noted = path.with_name(f".{path.name}.sent")
    marks: dict[str, int] = codec.decode(noted.read_bytes(), dict[str, int]) if noted.exists() else {}
    size = path.stat().st_size if path.exists() else 0
    if key in marks and marks[key] < size:
        with path.open("rb") as file:
            file.seek(marks[key])
            standing = file.read(len(data))
        if standing == data:
            return
        if data.startswith(standing):
            size = marks[key]
    marks.pop(key, None)
    kept = dict([*marks.items(), (key, size)][-SENT_MARKS:])
    files.replace(noted, codec.encode(kept))
    _append(str(path), size, data)


# -- from the journal ----------------------------------------------------------------------------------------------------


def rebuild(run_id: str, entries: Iterable[ev.Entry], folder: RunFolder) -> None:
    """Write a run's folder again from its entries. Raises UnknownRun where they hold none."""
    drained(rebuilding(run_id, entries, folder))


def rebuilding(run_id: str, entries: Iterable[ev.Entry], folder: RunFolder) -> Steps[dict[str, int]]:
    """The same, in steps; gives the growing files' sizes as of the last wave that is closed."""
    draft, ledger = folder.draft(), Ledger()
    sizes: dict[str, int] = {}
    closed_sizes: dict[str, int] = {}
    digests: list[bytes] = []
    for entry in entries:
        event = entry.event
        if not _concerns(event, run_id):
            continue
        ledger.fold(entry)
        if isinstance(event, ev.PredictionsCalibrated):
            run = ledger.runs[run_id]
            wave = run.closing[event.wave]
            contents = yield from contents_of(wave, run.record)
            sizes = draft.put(contents, sizes)
            digests.append((yield from wave_digest(wave, run.record)))
        elif isinstance(event, ev.OutputsWritten):
            closed_sizes = sizes
        if entry.position % CHUNK_ENTRIES == 0:
            yield
    if run_id not in ledger.runs:
        shutil.rmtree(draft.path)
        raise UnknownRun(f"run {run_id}: no such run was ever accepted")
    draft.put_run_files(run_files(_standing(ledger.runs[run_id]), digests))
    folder.adopt(draft)
    return closed_sizes


def _concerns(event: ev.AnyEvent, run_id: str) -> bool:
    """Whether an entry shapes the run's folder; what became of agents is already in the run's own entries."""
    return getattr(event, "run_id", None) == run_id and not isinstance(event, ev.AgentWentOffline | ev.SubmissionRejected)


def _standing(run: Run) -> RunRecord:
    """The run's record with a wave that is judged and not closed counted in."""
    record = run.record
    for wave in run.closing.values():
        record = tallied(record, wave)
    return record
