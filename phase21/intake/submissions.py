"""A line of the queue file becomes a submission, or the reason why not.

Called by the receiver for every line, by `submit` before it appends, and by `predictions` for a task's fields. It looks at one
line alone: what a line means beside what was accepted before it is the receiver's to say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from phase21.domain.errors import InputRefused
from phase21.domain.tasks import Task, When
from phase21.intake.circles import cycle_among, shown
from phase21.intake.fields import TASK_FIELDS, check_kind, check_moments, plain_steps, refusal, unusual, without_aliases
from phase21.intake.schedules import check_recurrence
from phase21.intake.shapes import Fork, Submission
from phase21.intake.workflows import compiled
from phase21.store import codec

__all__ = ["Fork", "Submission", "check_depth", "integer_out_of_range", "parse"]

MAX_DEPTH = 64
MAX_LINE_BYTES = 16 * 1024 * 1024
INTEGER_MIN, INTEGER_MAX = -(2**63), 2**64 - 1

# Task itself passes over unknown fields, so that an old journal loads; this shape looks at names only, and costs little.
_TaskNames = msgspec.defstruct(
    "_TaskNames", [(name, msgspec.Raw, msgspec.Raw()) for name in sorted(TASK_FIELDS)], forbid_unknown_fields=True, gc=False
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
    check_recurrence(submission)
    if submission.tasks is not None:
        _check_tasks(submission.tasks)
    if submission.workflow is not None:
        compiled(submission.workflow)
    return submission


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
        if unusual(line):
            return _decoded_with_aliases(line)
        raise refusal(error) from None
    return submission


def _decoded_with_aliases(line: bytes) -> Submission:
    try:
        wire = codec.decode(line)
    except codec.CodecError as error:
        raise refusal(error) from None
    tasks = wire.get("tasks") if isinstance(wire, dict) else None
    rows = tasks if isinstance(tasks, list) else []
    renamed = [without_aliases(row, f"tasks[{n}]") if isinstance(row, dict) else row for n, row in enumerate(rows)]
    renewed: dict[str, Any] = {"tasks": renamed} if rows else {}
    if isinstance(wire, dict) and "workflow" in wire:
        renewed["workflow"] = plain_steps(wire["workflow"], "workflow")
    try:
        plain = codec.encode({**wire, **renewed} if renewed else wire)
        codec.decode(plain, _Names)
        submission: Submission = codec.decode(plain, Submission)
    except codec.CodecError as error:
        raise refusal(error, "", _row_of(error, rows)) from None
    return submission


def _row_of(error: codec.CodecError, rows: Sequence[Any]) -> Mapping[str, Any]:
    match = re.match(r"tasks\[(\d+)\]", error.path or "")
    row = rows[int(match[1])] if match else {}
    return row if isinstance(row, dict) else {}


# -- checks --------------------------------------------------------------------------------------------------------------

_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b'[]{}"\\')
_BRACKETS_ALIKE = bytes.maketrans(b"{}", b"[]")
_ALTERNATIVES = ("tasks", "predictions", "control", "workflow", "fork")
_AS_WORKFLOW = 'submit the tasks as {"workflow": {"name": …, "tasks": […]}}'
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
    given = [name for name in _ALTERNATIVES if getattr(submission, name) is not None]
    if len(given) != 1:
        said = "nothing to do" if not given else f"{' and '.join(given)} together"
        raise InputRefused(f"{said}; allowed: exactly one of {', '.join(_ALTERNATIVES)}", given[1] if given else None)
    if submission.wave is not None and submission.tasks is None:
        raise InputRefused(f"wave goes only with tasks, not with {given[0]}", "wave")
    if submission.task_ids is not None and submission.control is None:
        raise InputRefused("task_ids goes only with a control", "task_ids")


def _check_tasks(tasks: tuple[Task, ...]) -> None:
    if len({task.task_id for task in tasks}) != len(tasks):
        _refuse_duplicate(tasks)
    _refuse_workflow_fields(tasks)
    for n, task in enumerate(tasks):
        check_kind(task.kind, f"tasks[{n}].kind")
        if task.deadline is not None:
            check_moments(task, f"tasks[{n}]")
    if not any(task.depends_on for task in tasks):
        return
    for n, task in enumerate(tasks):
        if task.task_id in task.needs():
            raise InputRefused(f"task {task.task_id} depends on itself", f"tasks[{n}].depends_on")
    cycle = cycle_among(tasks)
    if cycle:
        n = next(n for n, task in enumerate(tasks) if task.task_id in cycle)
        raise InputRefused(f"dependencies go in a circle: {shown(cycle)}", f"tasks[{n}].depends_on")


def _refuse_workflow_fields(tasks: tuple[Task, ...]) -> None:
    """Refuse what has a meaning only beside the other tasks of a workflow."""
    for n, task in enumerate(tasks):
        name = "condition" if task.condition is not None else "compensate" if task.compensate is not None else None
        if name is not None:
            raise InputRefused(f"{name} belongs to a task of a workflow; {_AS_WORKFLOW}", f"tasks[{n}].{name}")
        for k, needed in enumerate(task.depends_on):
            if type(needed) is not str and needed.when is not When.SUCCEEDED:  # type: ignore[union-attr]
                said = f"when {needed.when} belongs to a task of a workflow; {_AS_WORKFLOW}"  # type: ignore[union-attr]
                raise InputRefused(said, f"tasks[{n}].depends_on[{k}].when")


def _refuse_duplicate(tasks: tuple[Task, ...]) -> None:
    seen: set[str] = set()
    for n, task in enumerate(tasks):
        if task.task_id in seen:
            raise InputRefused(f"task_id {task.task_id} stands twice in the line; it is unique in its run", f"tasks[{n}].task_id")
        seen.add(task.task_id)
