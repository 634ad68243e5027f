"""A Phase 20 folder becomes waves of tasks.

Called by the receiver, and by `check`. Rows that cannot be read are set aside with where they stood, and the rest goes on; the
same folder gives the same tasks in the same order. It reads, and changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from phase21.domain.errors import InputRefused
from phase21.domain.tasks import DEFAULT_SUCCESS_RATE, Identifier, Task, WaveNumber
from phase21.intake.fields import ALIASES, RISK_ASSESSMENT, TASK_FIELDS, task_of
from phase21.intake.submissions import check_depth, integer_out_of_range
from phase21.store import codec

TASKS_FILE = "predicted_tasks.jsonl"
SCHEDULE_FILE = "predicted_schedule.jsonl"
RAW_KEPT_BYTES = 4096
_WAVE_FOLDER = re.compile(r"wave_([1-9][0-9]{0,14})")
_UNDERSTOOD = TASK_FIELDS | set(ALIASES) | {RISK_ASSESSMENT, "wave"}


class RejectedRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row that was set aside: `file` within the folder, `line` from 1, `offset` of its first byte, `path` of the field."""

    file: str
    line: int | None
    offset: int | None
    error: str
    path: str | None
    raw: str


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a row stands."""

    file: str
    line: int
    offset: int
    raw: str

    def rejected(self, error: str, path: str | None) -> RejectedRow:
        """The same row set aside."""
        return RejectedRow(file=self.file, line=self.line, offset=self.offset, error=error, path=path, raw=self.raw)


class Predictions(msgspec.Struct, frozen=True, kw_only=True):
    """What a folder holds: tasks by wave, the rows set aside, and where each task first stood."""

    waves: dict[int, tuple[Task, ...]]
    rejected: tuple[RejectedRow, ...] = ()
    places: dict[str, Place] = {}


class _ScheduleRow(msgspec.Struct, frozen=True):
    """What counts of the schedule, which is advice."""

    task_id: Identifier
    wave: WaveNumber | None = None
    priority: int | None = None


class _Draft(msgspec.Struct):
    """A task as its rows come in: one for every agent that it was predicted for."""

    place: Place
    task: Task
    wave: int | None
    given: set[str]
    rates: dict[str | None, float] = {}
    durations: list[float] = []
    rows: list[tuple[str | None, dict[str, Any]]] = []


def legal_run_id(name: str) -> str:
    """A run id made of a folder's name: what may not stand in one becomes a dash."""
    legal = re.sub(r"[^A-Za-z0-9._-]", "-", name)
    return re.sub(r"\A[^A-Za-z0-9]+", "", legal)[:128] or "run"


def read_folder(path: str) -> Predictions:
    """The waves of a Phase 20 folder. Raises InputRefused where there is no folder, or no predictions in it."""
    root = Path(path)
    if not root.is_dir():
        raise InputRefused(f"{path}: there is no such folder", "predictions")
    places = [(None, root), *_agent_folders(root)]
    files = [(wave, folder / TASKS_FILE) for wave, folder in places if (folder / TASKS_FILE).is_file()]
    if not files:
        raise InputRefused(f"{path}: no {TASKS_FILE} at its root or under wave_X/agent_Y/", "predictions")
    reading = _Reading(root)
    for wave, file in files:
        reading.take_tasks(file, wave)
    for wave, folder in places:
        if (folder / SCHEDULE_FILE).is_file():
            reading.take_schedule(folder / SCHEDULE_FILE, wave)
    return reading.result()


def _agent_folders(root: Path) -> Iterator[tuple[int | None, Path]]:
    for wave in sorted(root.glob("wave_*"), key=_naturally):
        match = _WAVE_FOLDER.fullmatch(wave.name)
        for agent in sorted(wave.glob("agent_*"), key=_naturally):
            yield int(match[1]) if match else 0, agent


def _naturally(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", path.name)]


class _Reading:
    """One folder as it is read."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.drafts: dict[str, _Draft] = {}
        self.scheduled: dict[str, _ScheduleRow] = {}
        self.rejected: list[RejectedRow] = []

    def take_tasks(self, file: Path, wave: int | None) -> None:
        """Take in a file of predicted tasks; `wave` is its folder's."""
        for place, fields in self._rows(file):
            try:
                self._take(place, fields, wave)
            except InputRefused as refusal:
                self.rejected.append(place.rejected(str(refusal), refusal.path))

    def take_schedule(self, file: Path, wave: int | None) -> None:
        """Take in a schedule: the first row that names a task tells its wave and priority."""
        for place, fields in self._rows(file):
            try:
                row = _schedule_row(fields, wave)
            except InputRefused as refusal:
                self.rejected.append(place.rejected(str(refusal), refusal.path))
            else:
                self.scheduled.setdefault(row.task_id, row)

    def result(self) -> Predictions:
        """What the folder holds, by wave and then by first appearance."""
        waves: dict[int, list[Task]] = {}
        for task_id, draft in self.drafts.items():
            advice = self.scheduled.get(task_id)
            wave = draft.wave or (advice.wave if advice else None) or 1
            waves.setdefault(wave, []).append(_merged(draft, advice.priority if advice else None))
        return Predictions(
            waves={wave: tuple(waves[wave]) for wave in sorted(waves)},
            rejected=tuple(self.rejected),
            places={task_id: draft.place for task_id, draft in self.drafts.items()},
        )

    def _rows(self, file: Path) -> Iterator[tuple[Place, dict[str, Any]]]:
        name, offset = codec.sayable(file.relative_to(self.root).as_posix()), 0
        try:
            lines = file.read_bytes().split(b"\n")
        except OSError as error:
            said = f"cannot be read: {error.strerror}"
            self.rejected.append(RejectedRow(file=name, line=None, offset=None, error=said, path=None, raw=""))
            return
        for number, line in enumerate(lines, 1):
            raw = line[:RAW_KEPT_BYTES].decode(errors="replace").rstrip("\r")
            place = Place(file=name, line=number, offset=offset, raw=raw)
            offset += len(line) + 1
            if line and not line.isspace():
                try:
                    yield place, _fields(line)
                except InputRefused as refusal:
                    self.rejected.append(place.rejected(str(refusal), refusal.path))

    def _take(self, place: Place, fields: dict[str, Any], folder_wave: int | None) -> None:
        wave = _wave_of(fields, folder_wave)
        task = task_of({name: value for name, value in fields.items() if name in _UNDERSTOOD and name != "wave"})
        draft = self.drafts.get(task.task_id)
        if draft is None:
            draft = self.drafts[task.task_id] = _Draft(place=place, task=task, wave=wave, given=set())
        elif wave is not None and draft.wave not in {None, wave}:
            raise InputRefused(f"task {task.task_id} stands in wave {draft.wave} already; a task is in one wave", "wave")
        elif any(agent_id == task.agent_id for agent_id, _ in draft.rows):
            if any(known == (task.agent_id, fields) for known in draft.rows):
                return
            whose = f"for {task.agent_id}" if task.agent_id else "without an agent"
            raise InputRefused(f"task {task.task_id} has another row {whose} already", "task_id")
        _add(draft, task, wave, fields)


def _fields(line: bytes) -> dict[str, Any]:
    check_depth(line)
    try:
        fields: dict[str, Any] = codec.decode(line, dict[str, Any])
    except codec.CodecError as error:
        raise InputRefused(f"not a row in JSON: {' '.join(str(error).replace('`', '').split())}", error.path) from None
    path = integer_out_of_range(fields)
    if path is not None:
        raise InputRefused(f"{path}: the number is too large; allowed: whole numbers of 64 bits", path)
    return fields


def _wave_of(fields: Mapping[str, Any], folder_wave: int | None) -> int | None:
    wave = fields.get("wave")
    if wave is None and folder_wave == 0:
        raise InputRefused("the folder's name gives no wave; allowed: wave_1, wave_2, …", None)
    if wave is None:
        return folder_wave
    if type(wave) is not int or not 1 <= wave <= 2**53:
        raise InputRefused("wave: allowed: a whole number from 1 to 2**53", "wave")
    return wave


def _schedule_row(fields: Mapping[str, Any], folder_wave: int | None) -> _ScheduleRow:
    wave = _wave_of(fields, folder_wave)
    named = {name: fields[name] for name in ("task_id", "priority") if fields.get(name) is not None}
    task = task_of(named)
    return _ScheduleRow(task.task_id, wave, task.priority if "priority" in named else None)


def _add(draft: _Draft, task: Task, wave: int | None, fields: dict[str, Any]) -> None:
    given = {ALIASES.get(name, name) for name, value in fields.items() if value is not None}
    draft.wave = draft.wave or wave
    draft.given |= given
    draft.rows.append((task.agent_id, fields))
    if "predicted_success_rate" in given:
        draft.rates[task.agent_id] = task.predicted_success_rate
    if "estimated_duration_s" in given:
        draft.durations.append(task.estimated_duration_s)


def _merged(draft: _Draft, scheduled_priority: int | None) -> Task:
    """One task of all its rows: a rate per agent; where none is for all agents, their mean; the mean duration."""
    first, rates = draft.task, draft.rates
    by_agent = {agent_id: rate for agent_id, rate in rates.items() if agent_id is not None}
    mean = _mean(list(by_agent.values())) if by_agent else DEFAULT_SUCCESS_RATE
    rate = rates.get(None, mean)
    return msgspec.structs.replace(
        first,
        agent_id=None,
        predicted_success_rate=min(1.0, rate),
        predictions={**first.predictions, **by_agent},
        estimated_duration_s=_mean(draft.durations) if draft.durations else first.estimated_duration_s,
        priority=scheduled_priority if scheduled_priority and "priority" not in draft.given else first.priority,
        metadata=_metadata(draft),
    )


def _mean(values: list[float]) -> float:
    # Equal values stay what they are: a sum would round them.
    return values[0] if min(values) == max(values) else sum(values) / len(values)


def _metadata(draft: _Draft) -> dict[str, Any]:
    """What the planner said besides: as it is where all rows agree, else by agent."""
    kept: dict[str, Any] = dict(draft.task.metadata)
    names = dict.fromkeys(name for _, fields in draft.rows for name in fields if name not in _UNDERSTOOD or name == RISK_ASSESSMENT)
    for name in names:
        said = [(agent_id, fields[name]) for agent_id, fields in draft.rows if name in fields]
        same = all(value == said[0][1] for _, value in said)
        kept[name] = said[0][1] if same else {agent_id or "": value for agent_id, value in said}
    return kept
