"""A run's output folder: every path and file name in it, and the reader that writes it from the journal.

The service runs `Outputs`; the command line calls `rebuild`. A wave's files are written when the wave is judged, whole; the run's
growing files grow by whole lines at that moment. All of it follows from the journal's entries: nothing here may
depend on anything else, or a rebuilt folder would differ.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from phase21.domain import events as ev
from phase21.domain.errors import UnknownRun
from phase21.domain.ledger import Ledger, Run, tallied
from phase21.domain.records import RunRecord, WaveRecord
from phase21.domain.settings import CurrentSettings, FeedbackSettings
from phase21.evaluation import lessons
from phase21.readers import reports, rows
from phase21.store import codec, files
from phase21.store.clock import iso
from phase21.store.journal import Journal

SIGNALS = "phase21_learning_signals.jsonl"
DECISIONS = "safety_gate_decisions.jsonl"
ANOMALIES = "anomalies.jsonl"
HEURISTICS = "phase16/heuristic_feedback.jsonl"
COORDINATION = "phase18/coordination_feedback.jsonl"
VALIDATION = "phase20/prediction_validation_feedback.jsonl"
GROWING = (SIGNALS, DECISIONS, ANOMALIES, HEURISTICS, COORDINATION, VALIDATION)

HEALTH = "phase21_system_health.json"
SUMMARY = "phase21_execution_summary.json"
REPORT = "PHASE_21_AUTONOMOUS_EXECUTION.md"

ASSIGNMENTS = "agent_assignments.jsonl"
EXECUTED = "executed_tasks.jsonl"
METRICS = "agent_metrics.jsonl"
FEEDBACK = "agent_feedback.jsonl"
AGENT_FILES = (ASSIGNMENTS, EXECUTED, METRICS, FEEDBACK)
PLAN = "coordination_plan.json"
UNASSIGNED = "unassigned"

CHUNK_TASKS = 1_000
CHUNK_ENTRIES = 1_000
REFRESH_INTERVAL_S = 1.0
REFRESH_LEAST_S = 0.02
REFRESH_REST = 20.0
"""How much longer than it took the run's own files are left alone, while its waves follow each other."""

RETRY_DELAY_S = 1.0
LULL_S = 0.02
LULL_WAIT_S = 0.25
LULL_WAVES = 8
LULL_TASKS = 500
RECENT_RUNS = 256
SENT_MARKS = 64

_OWN = re.compile(r"wave_\d+|\..*\.new")
_OWN_NAMES = frozenset({name.partition("/")[0] for name in GROWING} | {HEALTH, SUMMARY, REPORT})

T = TypeVar("T")
Steps = Generator[None, None, T]
"""Work in steps: it yields where others may have their turn, and returns its result."""


class OutputsMissing(Exception):
    """A growing file is shorter than what was written to it: the run's folder must be built again."""


def drained(steps: Steps[T]) -> T:
    """The result of steps that are taken one after the other."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            result: T = stop.value
            return result


async def stepped(steps: Steps[T]) -> T:
    """The same, with the event loop's turn between them."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            result: T = stop.value
            return result
        await asyncio.sleep(0)


def wave_digest(wave: WaveRecord) -> bytes:
    """What the store keeps of a judged wave, encoded (`rows.Digest`)."""
    return codec.encode(rows.digest_of(wave))


class WaveContents(msgspec.Struct, frozen=True, kw_only=True):
    """A judged wave's files (by path within its folder), and what it adds to the run's growing files."""

    wave: int
    files: dict[str, bytes | bytearray]
    grown: dict[str, bytes]


def contents_of(wave: WaveRecord, run: RunRecord) -> Steps[WaveContents]:
    """All that is to be written of a judged wave, encoded in steps. `run` is not tallied yet."""
    instants: dict[int, str] = {}
    sent, feedback = yield from _signal_lines(wave)
    contents = yield from _agent_files(wave, feedback, instants)
    plan = rows.plan_row(wave)
    if plan is not None:
        contents[PLAN] = codec.pretty(plan)
    yield
    grown = yield from _growth(wave, run, sent, instants)
    return WaveContents(wave=wave.number, files=contents, grown=grown)


class RunFolder:
    """One run's folder. The caller says what stood in its growing files before; nothing is read back."""

    def __init__(self, root: Path, run_id: str, extra: FeedbackSettings) -> None:
        self.root = root
        self.run_id = run_id
        self.path = root / run_id
        self._extra = extra

    def write_wave(self, wave: WaveRecord, run: RunRecord, sizes: Mapping[str, int]) -> dict[str, int]:
        """Write all of a judged wave; give the sizes of the growing files since. `run` is not tallied yet.

        Raises OSError, and OutputsMissing where a growing file is shorter than `sizes` says.
        """
        return self.put(drained(contents_of(wave, run)), sizes)

    def put(self, contents: WaveContents, sizes: Mapping[str, int]) -> dict[str, int]:
        """The disk's part of it."""
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

    def write_run_files(self, run: RunRecord, digests: Iterable[bytes]) -> None:
        """Write the run's health, report and summary. `digests` are those of all its closed waves, in order."""
        history: list[bytes] = []
        newest: deque[bytes] = deque(maxlen=reports.WAVES_SHOWN)
        for digest in digests:
            history.append(codec.encode(codec.decode(digest, rows.HealthRow)))
            newest.append(digest)
        files.replace(self.path / HEALTH, _system_health(history))
        report = reports.render(run, [codec.decode(digest) for digest in newest])
        files.replace(self.path / REPORT, report.encode())
        files.replace(self.path / SUMMARY, codec.pretty(rows.summary_of(run)))

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


# -- what the files hold -------------------------------------------------------------------------------------------------


def _agent_files(
    wave: WaveRecord, feedback: Mapping[str, list[bytes]], instants: dict[int, str]
) -> Steps[dict[str, bytes | bytearray]]:
    """The contents of a wave's files by their path within its folder, those of agents that had tasks."""
    folders: dict[str, dict[str, bytearray]] = {}
    yield from _assignments(wave, folders)
    yield from _executed(wave, folders, instants)
    _metrics(wave, folders)
    for agent_id, lines in feedback.items():
        if agent_id in folders:
            folders[agent_id][FEEDBACK] += b"".join(lines)
    return {
        f"{name}/{file_name}": data
        for name, contents in folders.items()
        for file_name, data in contents.items()
        if data or name != UNASSIGNED or file_name == EXECUTED
    }


def _folder(folders: dict[str, dict[str, bytearray]], name: str) -> dict[str, bytearray]:
    folder = folders.get(name)
    if folder is None:
        folder = folders[name] = {file_name: bytearray() for file_name in AGENT_FILES}
    return folder


def _add(folders: dict[str, dict[str, bytearray]], file_name: str, groups: Mapping[str, list[Any]]) -> None:
    for name, group in groups.items():
        _folder(folders, name)[file_name] += codec.lines(group)


def _assignments(wave: WaveRecord, folders: dict[str, dict[str, bytearray]]) -> Steps[None]:
    for batch in wave.batches:
        assigned_at = iso(batch.at_us)
        for first in range(0, len(batch.assignments), CHUNK_TASKS):
            groups: dict[str, list[rows.AssignmentRow]] = {}
            for given in batch.assignments[first : first + CHUNK_TASKS]:
                row = rows.assignment_row(given, assigned_at, wave.number, batch.strategy)
                groups.setdefault(given.agent_id, []).append(row)
            _add(folders, ASSIGNMENTS, groups)
            if first:
                yield


def _executed(wave: WaveRecord, folders: dict[str, dict[str, bytearray]], instants: dict[int, str]) -> Steps[None]:
    """Each task's row; the text of its start is left in `instants`, since the gates approved at that very time."""
    records, number = list(wave.tasks.values()), wave.number
    for first in range(0, len(records), CHUNK_TASKS):
        groups: dict[str, list[rows.ExecutedRow]] = {}
        for record in records[first : first + CHUNK_TASKS]:
            agent_id, start_us = rows.holder(record), record.first_start_us
            start_time = None
            if start_us is not None:
                start_time = instants[start_us] = iso(start_us)
            row = rows.executed_row(record, agent_id, number, start_time)
            groups.setdefault(agent_id or UNASSIGNED, []).append(row)
        _add(folders, EXECUTED, groups)
        yield


def _metrics(wave: WaveRecord, folders: dict[str, dict[str, bytearray]]) -> None:
    timestamp = rows.instant(wave.health_us)
    for metrics in rows.judged(wave).agents:
        if metrics.agent_id in folders:
            folders[metrics.agent_id][METRICS] += codec.lines(rows.metric_rows(metrics, timestamp, wave.number))


def _signal_lines(wave: WaveRecord) -> Steps[tuple[bytes, dict[str, list[bytes]]]]:
    """Every signal's line, and by agent those of the signals that name one; those about tasks stand together by agent."""
    sent = bytearray()
    feedback: dict[str, list[bytes]] = {}
    for (_, signal), row in zip(wave.signals, rows.signal_rows(wave.signals, wave), strict=True):
        line = codec.line(row)
        sent += line
        if "agent_id" in signal.content:
            feedback.setdefault(signal.content["agent_id"], []).append(line)
    groups: dict[str, list[rows.SignalRow]] = {}
    run_id, number = wave.run_id, wave.number
    for at_us, batch in wave.validations:
        generated_at = iso(at_us)
        for made in batch:
            row = rows.validation_signal_row(made, generated_at, run_id, number)
            group = groups.get(made.agent_id)
            if group is None:
                group = groups[made.agent_id] = []
            group.append(row)
        yield
    for agent_id, group in groups.items():
        lines = codec.lines(group)
        sent += lines
        feedback.setdefault(agent_id, []).append(lines)
    return bytes(sent), feedback


def _decisions(wave: WaveRecord, instants: dict[int, str]) -> Steps[bytes]:
    lines = bytearray()
    for first in range(0, len(wave.decisions), CHUNK_TASKS):
        lines += codec.lines(
            [
                rows.decision_row(made, wave.number, instants.get(made.at_us) or iso(made.at_us))
                for made in wave.decisions[first : first + CHUNK_TASKS]
            ]
        )
        yield
    return bytes(lines)


def _growth(wave: WaveRecord, run: RunRecord, sent: bytes, instants: dict[int, str]) -> Steps[dict[str, bytes]]:
    """What the wave adds to each growing file."""
    decisions = yield from _decisions(wave, instants)
    validation = bytearray()
    for _, batch in wave.validations:
        validation += codec.lines(rows.validation_rows(batch, wave.number))
        yield
    return {
        SIGNALS: sent,
        DECISIONS: decisions,
        ANOMALIES: codec.lines(rows.anomaly_row(at_us, anomaly) for at_us, anomaly in wave.anomalies),
        HEURISTICS: codec.lines(lessons.heuristic_rows(wave, _before(run, wave))),
        COORDINATION: codec.lines(lessons.coordination_rows(wave, rows.judged(wave))),
        VALIDATION: bytes(validation),
    }


def _before(run: RunRecord, wave: WaveRecord) -> RunRecord:
    """The run as it stood before this wave taught it anything about heuristics."""
    known = {name: tally for name, tally in wave.heuristics_before.items() if tally[1]}
    return msgspec.structs.replace(run, heuristics=known)


def _system_health(history: list[bytes]) -> bytes:
    """The newest wave's health (UNKNOWN where there is none), and behind it every wave's, one a line.

    They stay encoded: as values, those of a thousand waves would be megabytes.
    """
    newest = codec.decode(history[-1], rows.HealthRow) if history else rows.HealthRow()
    head = codec.pretty(newest).rstrip().removesuffix(b"}").rstrip()
    lines = b"\n    " + b",\n    ".join(history) + b"\n  " if history else b""
    return head + b',\n  "history": [' + lines + b"]\n}\n"


# -- the disk ------------------------------------------------------------------------------------------------------------


def _append(path: str, size: int, data: bytes) -> int:
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


def _send(path: Path, key: str, data: bytes) -> None:
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
            digests.append(wave_digest(wave))
        elif isinstance(event, ev.OutputsWritten):
            closed_sizes = sizes
        if entry.position % CHUNK_ENTRIES == 0:
            yield
    if run_id not in ledger.runs:
        shutil.rmtree(draft.path)
        raise UnknownRun(f"run {run_id}: no such run was ever accepted")
    draft.write_run_files(_standing(ledger.runs[run_id]), digests)
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


class Outputs:
    """The reader that writes the folders, and closes each wave once its files stand.

    While the disk does not take them it says so to the journal, which starts nothing new, and tries again. `doubtful`
    are runs whose files a power cut may have torn: they are built again at the start.
    """

    def __init__(self, journal: Journal, root: Path, settings: CurrentSettings, doubtful: Iterable[str] = ()) -> None:
        self._journal = journal
        self._doubtful = tuple(doubtful)
        self._root = root
        self._settings = settings
        self._due_s: dict[str, float] = {}
        self._stale: set[str] = set()
        self._recent: dict[str, dict[int, bytes]] = {}

    async def run(self) -> None:
        """Write what was judged and not closed before a restart, then each wave as it is judged."""
        follower = self._journal.follow("outputs", ev.PredictionsCalibrated, ev.RunIdled, durable=True)
        for run_id in self._doubtful:
            await self._lasting(partial(self.rebuild, run_id))
        await self._close_all()
        async for entry in follower:
            event = entry.event
            if isinstance(event, ev.RunIdled):
                await self._idle(event.run_id)
            elif isinstance(event, ev.PredictionsCalibrated) and self._waits(event):
                await self._lull()
                await self._close_all()

    def _waits(self, event: ev.PredictionsCalibrated) -> bool:
        run = self._journal.ledger.runs.get(event.run_id)
        return run is not None and event.wave in run.closing

    async def _close_all(self) -> None:
        for run in list(self._journal.ledger.runs.values()):
            for number in list(run.closing):
                await self._close(run.run_id, number)

    async def finish(self) -> None:
        """Bring the files of every run up to its last closed wave."""
        for run_id in list(self._stale):
            await self._idle(run_id)

    async def rebuild(self, run_id: str) -> dict[str, int]:
        """Write a run's folder again; gives the growing files' sizes as of its last closed wave."""
        await self._journal.durable()
        return await stepped(rebuilding(run_id, self._journal.entries_of(run_id), self._folder(run_id)))

    def _folder(self, run_id: str) -> RunFolder:
        return RunFolder(self._root, run_id, self._settings.now.feedback)

    async def _lull(self) -> None:
        """Wait for a moment in which no wave is under way, as long as little waits to be written.

        Files that are being written slow the commits that waves wait for.
        """
        loop = asyncio.get_running_loop()
        latest_s = loop.time() + LULL_WAIT_S
        ledger = self._journal.ledger
        while loop.time() < latest_s and self._little_waits():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(latest_s):
                    await self._journal.until(lambda: not ledger.under_way)
            try:
                async with asyncio.timeout(LULL_S):
                    await self._journal.until(lambda: ledger.under_way > 0)
            except TimeoutError:
                return

    def _little_waits(self) -> bool:
        waiting = [wave for run in self._journal.ledger.runs.values() for wave in run.closing.values()]
        return len(waiting) < LULL_WAVES and sum(len(wave.tasks) for wave in waiting) < LULL_TASKS

    async def _close(self, run_id: str, number: int) -> None:
        run = self._journal.ledger.runs.get(run_id)
        wave = run.closing.get(number) if run else None
        if run is None or wave is None:
            return
        digest = wave_digest(wave)
        self._remember(run_id, number, digest)
        sizes = await self._lasting(lambda: self._write(run, wave))
        written = ev.OutputsWritten(run_id=run_id, wave=number, sizes=sizes, digest=msgspec.Raw(digest))
        self._journal.append(written)

    async def _write(self, run: Run, wave: WaveRecord) -> dict[str, int]:
        folder = self._folder(run.run_id)
        contents = await stepped(contents_of(wave, run.record))
        try:
            sizes = await self._journal.beside(lambda: folder.put(contents, run.record.sizes))
        except OutputsMissing:
            standing = await self.rebuild(run.run_id)
            sizes = await self._journal.beside(lambda: folder.put(contents, standing))
        await self._refresh(folder, run, wave)
        return sizes

    async def _refresh(self, folder: RunFolder, run: Run, wave: WaveRecord) -> None:
        """Write the run's own files; while waves follow each other only so often that it takes a small share of the time."""
        self._stale.add(run.run_id)
        loop = asyncio.get_running_loop()
        wait_s = self._due_s.get(run.run_id, 0.0) - loop.time()
        if wait_s > 0 and run.idle:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._journal.until(lambda: not run.idle)
        if wait_s > 0 and not run.idle:
            return
        started_s = loop.time()
        folder.write_run_files(tallied(run.record, wave), self._digests(run.run_id))
        self._refreshed(run.run_id, started_s)

    def _refreshed(self, run_id: str, started_s: float) -> None:
        now_s = asyncio.get_running_loop().time()
        self._stale.discard(run_id)
        self._due_s.pop(run_id, None)
        rest_s = max(REFRESH_LEAST_S, REFRESH_REST * (now_s - started_s))
        self._due_s[run_id] = now_s + min(REFRESH_INTERVAL_S, rest_s)
        while len(self._due_s) > RECENT_RUNS:
            del self._due_s[next(iter(self._due_s))]

    async def _idle(self, run_id: str) -> None:
        run = self._journal.ledger.runs.get(run_id)
        if run is not None and run_id in self._stale:
            await self._lasting(lambda: self._finish(run))
        self._stale.discard(run_id)

    async def _finish(self, run: Run) -> None:
        started_s = asyncio.get_running_loop().time()
        self._folder(run.run_id).write_run_files(run.record, self._digests(run.run_id))
        self._refreshed(run.run_id, started_s)

    async def _lasting(self, work: Callable[[], Awaitable[T]]) -> T:
        """The result of work on the disk, tried until the disk does it."""
        while True:
            try:
                result = await work()
            except OSError as error:
                self._journal.trouble("outputs", error)
                await self._journal.clock.sleep(RETRY_DELAY_S)
            else:
                self._journal.trouble_over("outputs")
                return result

    def _remember(self, run_id: str, number: int, digest: bytes) -> None:
        """Keep a digest until the store has it, which is behind by one group commit."""
        self._recent.setdefault(run_id, {})[number] = digest
        while len(self._recent) > RECENT_RUNS:
            del self._recent[next(iter(self._recent))]

    def _digests(self, run_id: str) -> Iterator[bytes]:
        """The digests of the run's waves: those that are stored, then those that are about to be."""
        recent, stored = self._recent.get(run_id, {}), 0
        for number, digest in self._journal.lookup.waves(run_id):
            stored = number
            recent.pop(number, None)
            yield bytes(digest)
        for number in sorted(recent):
            if number > stored:
                yield recent[number]
