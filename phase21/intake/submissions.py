"""A line of the queue file becomes a submission, or the reason why not.

Called by the receiver for every line, by `submit` before it appends, and by `predictions` for a task's fields. It looks at one
line alone: what a line means beside what was accepted before it is the receiver's to say.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from phase21.domain.errors import InputRefused
from phase21.domain.tasks import Identifier, Task, WaveNumber
from phase21.store import codec

MAX_DEPTH = 64
MAX_LINE_BYTES = 16 * 1024 * 1024
INTEGER_MIN, INTEGER_MAX = -(2**63), 2**64 - 1

ALIASES: Mapping[str, str] = {
    "predicted_success_probability": "predicted_success_rate",
    "predicted_execution_time": "estimated_duration_s",
    "heuristics_applied": "heuristics",
    "max_retries": "max_attempts",
}
"""Names that upstream gives to fields of a task."""

RISK_ASSESSMENT = "risk_assessment"
TASK_FIELDS = frozenset(Task.__struct_fields__)

_ID_WORDS = "1 to 128 of A-Z a-z 0-9 . _ -, beginning with a letter or digit"
_ALLOWED: Mapping[str, str] = {
    "run_id": _ID_WORDS,
    "submission_id": "text of 1 to 256 characters",
    "wave": "a whole number from 1 to 2**53",
    "tasks": "a list of at least one task",
    "predictions": "the path of a folder; within a task, a table of agent ids and rates from 0 to 1",
    "control": "approve, cancel, pause or resume",
    "task_ids": "a list of at least one task id",
    "metadata": "an object",
    "task_id": _ID_WORDS,
    "kind": _ID_WORDS,
    "payload": "an object",
    "predicted_success_rate": "a number from 0 to 1",
    "priority": "a whole number from 1 on",
    "risk_level": "LOW, MEDIUM or HIGH",
    "estimated_duration_s": "seconds from 0 to 1e9",
    "agent_id": _ID_WORDS,
    "capabilities": f"a list of names ({_ID_WORDS})",
    "depends_on": f"a list of task ids ({_ID_WORDS})",
    "timeout_s": "seconds above 0, up to 1e9",
    "max_attempts": "a whole number from 1 to 1000",
    "idempotent": "true or false",
    "approved": "true or false",
    "heuristics": "a list of texts of 1 to 256 characters",
    "features": "up to 256 features by name, each a number or a text of at most 256 characters",
}


_PLAINER: Mapping[str, str] = {
    "Input data was truncated": "the JSON breaks off, or holds half a surrogate pair",
    "Expected `object`, got `array`": "a line is one JSON object, not a list",
}


class Submission(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one line asks for: exactly one of `tasks`, `predictions` (a folder) and `control`."""

    run_id: Identifier
    submission_id: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    wave: WaveNumber | None = None
    tasks: Annotated[tuple[Task, ...], Meta(min_length=1)] | None = None
    predictions: Annotated[str, Meta(min_length=1)] | None = None
    control: Literal["approve", "cancel", "pause", "resume"] | None = None
    task_ids: Annotated[tuple[Identifier, ...], Meta(min_length=1)] | None = None
    metadata: dict[str, Any] = {}


# Task itself passes over unknown fields, so that an old journal loads; this shape looks at names only, and costs little.
_TaskNames = msgspec.defstruct(
    "_TaskNames", [(name, msgspec.Raw, msgspec.Raw()) for name in Task.__struct_fields__], forbid_unknown_fields=True, gc=False
)


class _Names(msgspec.Struct, gc=False):
    tasks: list[_TaskNames] | None = None  # type: ignore[valid-type]


def parse(line: bytes, *, max_line_bytes: int = MAX_LINE_BYTES) -> Submission:
    """The submission that a line stands for. Raises InputRefused with the field's path."""
    if len(line) > max_line_bytes:
        raise InputRefused(f"the line has {len(line)} bytes; allowed: {max_line_bytes} (queue.max_line_bytes)")
    check_depth(line)
    submission = _decoded(line)
    _check_integers(line)
    _check_shape(submission)
    if submission.tasks is not None:
        _check_tasks(submission.tasks)
    return submission


def task_of(fields: Mapping[str, Any], path: str = "") -> Task:
    """One task from its fields by name, aliases among them. Raises InputRefused; `path` is where the fields stand."""
    row = _without_aliases(fields, path)
    unknown = [name for name in row if name not in TASK_FIELDS]
    if unknown:
        raise _unknown(unknown[0], path)
    try:
        task: Task = codec.decode(codec.encode(row), Task)
    except codec.CodecError as error:
        raise _refusal(error, path, fields) from None
    return task


def check_depth(line: bytes) -> None:
    """Refuse what is nested more than 64 levels deep, at a cost that does not grow with the number of tasks."""
    if line.count(b"[") + line.count(b"{") <= MAX_DEPTH:
        return
    brackets = _brackets_outside_strings(line).translate(_BRACKETS_ALIKE)
    for _ in range(MAX_DEPTH):
        inner = brackets.replace(b"[]", b"")  # takes away the innermost level
        if not inner or len(inner) == len(brackets):
            return
        brackets = inner
    raise InputRefused(f"nested too deeply; allowed: {MAX_DEPTH} levels")


def cycle_among(tasks: Iterable[Task]) -> list[str]:
    """The ids of one cycle of dependencies within `tasks`, in order, closed with its first; [] where there is none."""
    needs = {task.task_id: set(task.depends_on) for task in tasks if task.depends_on}
    while needs:
        blocked = {task_id: needed for task_id, rest in needs.items() if (needed := {other for other in rest if other in needs})}
        if len(blocked) == len(needs):
            return _walk(blocked)
        needs = blocked
    return []


def integer_out_of_range(value: Any, path: str = "") -> str | None:
    """The path of the first integer that JSON readers elsewhere would not take (64 bits), None where all are in range."""
    if isinstance(value, int) and not INTEGER_MIN <= value <= INTEGER_MAX:
        return path
    inner: Iterator[tuple[str, Any]] = iter(())
    if isinstance(value, dict):
        inner = ((f"{path}.{key}" if path else key, item) for key, item in value.items())
    elif isinstance(value, list):
        inner = ((f"{path}[{n}]", item) for n, item in enumerate(value))
    return next((found for where, item in inner if (found := integer_out_of_range(item, where)) is not None), None)


# -- decoding ------------------------------------------------------------------------------------------------------------


def _decoded(line: bytes) -> Submission:
    try:
        codec.decode(line, _Names)
        submission: Submission = codec.decode(line, Submission)
    except codec.CodecError as error:
        if any(name.encode() in line for name in (*ALIASES, RISK_ASSESSMENT)):
            return _decoded_with_aliases(line)
        raise _refusal(error) from None
    return submission


def _decoded_with_aliases(line: bytes) -> Submission:
    try:
        wire = codec.decode(line)
    except codec.CodecError as error:
        raise _refusal(error) from None
    tasks = wire.get("tasks") if isinstance(wire, dict) else None
    rows = tasks if isinstance(tasks, list) else []
    renamed = [_without_aliases(row, f"tasks[{n}]") if isinstance(row, dict) else row for n, row in enumerate(rows)]
    try:
        plain = codec.encode({**wire, "tasks": renamed} if rows else wire)
        codec.decode(plain, _Names)
        submission: Submission = codec.decode(plain, Submission)
    except codec.CodecError as error:
        raise _refusal(error, "", _row_of(error, rows)) from None
    return submission


def _without_aliases(row: Mapping[str, Any], path: str) -> dict[str, Any]:
    plain = {name: value for name, value in row.items() if name not in ALIASES and name != RISK_ASSESSMENT}
    for alias, name in ALIASES.items():
        if alias not in row:
            continue
        if name in plain:
            raise InputRefused(f"{name} is given twice: {alias} is another name for it; give one of them", _joined(path, alias))
        plain[name] = row[alias]
    if RISK_ASSESSMENT in row:
        metadata = plain.get("metadata", {})
        if isinstance(metadata, dict):
            if RISK_ASSESSMENT in metadata:
                raise InputRefused("risk_assessment is given twice: the field is kept in metadata", _joined(path, RISK_ASSESSMENT))
            plain["metadata"] = {**metadata, RISK_ASSESSMENT: row[RISK_ASSESSMENT]}
    return plain


def _row_of(error: codec.CodecError, rows: Sequence[Any]) -> Mapping[str, Any]:
    match = re.match(r"tasks\[(\d+)\]", error.path or "")
    row = rows[int(match[1])] if match else {}
    return row if isinstance(row, dict) else {}


# -- refusing ------------------------------------------------------------------------------------------------------------


def _refusal(error: codec.CodecError, path: str = "", row: Mapping[str, Any] | None = None) -> InputRefused:
    """What the codec says, in the words of the contract, with the name that the line itself uses."""
    said = " ".join(str(error).split())
    where = _joined(path, error.path or "")
    keyed = re.fullmatch(r"(.*) - at `key` in `\$\.?(.*)`", said)
    if keyed:
        said, where = keyed[1], _joined(path, keyed[2])
    named = re.fullmatch(r"Object (contains unknown|missing required) field `(.*)`", said)
    if named and named[1] == "contains unknown":
        return _unknown(named[2], where)
    if named:
        return InputRefused(f"{named[2]} is missing; it is {_ALLOWED.get(named[2], 'required')}", _joined(where, named[2]))
    field = re.sub(r"(\[[^\]]*\])+$", "", where).rpartition(".")[2]
    for alias, name in ALIASES.items():
        if name == field and row and alias in row:
            where = where[: -len(field)] + alias
    if not where:
        return InputRefused(f"not a submission: {_PLAINER.get(said, said.replace('`', ''))}")
    said = "not of the allowed form" if "regex" in said else said[0].lower() + said[1:]
    return InputRefused(f"{where}: {said.replace('`', '')}; allowed: {_ALLOWED.get(field, 'see the contract')}", where)


def _unknown(name: str, path: str) -> InputRefused:
    whole, fields = ("a task", Task) if path else ("a submission", Submission)
    allowed = ", ".join(fields.__struct_fields__)
    return InputRefused(f"unknown field {_one_line(name)}; {whole} has {allowed}", _joined(path, _one_line(name)))


def _one_line(name: str) -> str:
    return " ".join(name.split())[:128]


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path and name else path or name


# -- checks --------------------------------------------------------------------------------------------------------------

_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b'[]{}"\\')
_BRACKETS_ALIKE = bytes.maketrans(b"{}", b"[]")
_DIGITS_ALIKE = bytes.maketrans(b"123456789", b"000000000")
_LONG_NUMBER = b"0" * 19


def _brackets_outside_strings(line: bytes) -> bytes:
    marks = line.translate(None, _NOT_BRACKETS) if b"\\" not in line else _without_escapes(line)
    marks = marks.replace(b'""', b"")
    # A quote is left over exactly where some string holds a bracket.
    if b'"' in marks:
        marks = b"".join(_without_escapes(line).split(b'"')[::2])
    return marks


def _without_escapes(line: bytes) -> bytes:
    plain = line.replace(b"\\\\", b"").replace(b'\\"', b"")
    return plain.translate(None, _NOT_BRACKETS + b"\\")


def _check_integers(line: bytes) -> None:
    if _LONG_NUMBER in line.translate(_DIGITS_ALIKE):
        path = integer_out_of_range(codec.decode(line))
        if path is not None:
            raise InputRefused(f"{path}: the number is too large; allowed: whole numbers of 64 bits", path)


def _check_shape(submission: Submission) -> None:
    given = [name for name in ("tasks", "predictions", "control") if getattr(submission, name) is not None]
    if len(given) != 1:
        said = "nothing to do" if not given else f"{' and '.join(given)} together"
        raise InputRefused(f"{said}; allowed: exactly one of tasks, predictions, control", given[1] if given else None)
    if submission.wave is not None and submission.tasks is None:
        raise InputRefused(f"wave goes only with tasks, not with {given[0]}", "wave")
    if submission.task_ids is not None and submission.control not in {"approve", "cancel"}:
        raise InputRefused("task_ids goes only with the controls approve and cancel", "task_ids")


def _check_tasks(tasks: tuple[Task, ...]) -> None:
    if len({task.task_id for task in tasks}) != len(tasks):
        _refuse_duplicate(tasks)
    if not any(task.depends_on for task in tasks):
        return
    for n, task in enumerate(tasks):
        if task.task_id in task.depends_on:
            raise InputRefused(f"task {task.task_id} depends on itself", f"tasks[{n}].depends_on")
    cycle = cycle_among(tasks)
    if cycle:
        n = next(n for n, task in enumerate(tasks) if task.task_id in cycle)
        raise InputRefused(f"dependencies go in a circle: {_shown(cycle)}", f"tasks[{n}].depends_on")


def _refuse_duplicate(tasks: tuple[Task, ...]) -> None:
    seen: set[str] = set()
    for n, task in enumerate(tasks):
        if task.task_id in seen:
            raise InputRefused(f"task_id {task.task_id} stands twice in the line; it is unique in its run", f"tasks[{n}].task_id")
        seen.add(task.task_id)


def _walk(blocked: Mapping[str, set[str]]) -> list[str]:
    seen: dict[str, int] = {}
    task_id = next(iter(blocked))
    while task_id not in seen:
        seen[task_id] = len(seen)
        task_id = min(blocked[task_id])
    return [*list(seen)[seen[task_id] :], task_id]


def _shown(cycle: Sequence[str]) -> str:
    return " -> ".join(cycle if len(cycle) <= 8 else (*cycle[:6], "…", cycle[-1]))  # noqa: PLR2004 - what fits in a line
