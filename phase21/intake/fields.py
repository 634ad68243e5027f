"""The fields of a task as they are written: other names for them, what each may be, and how a wrong one is refused.

Called by everything that reads tasks from outside: lines of the queue, rows of Phase 20 folders, steps of workflows, and what a
task asks for. It says what is wrong in the words of the contract, with the field's path.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from phase21.domain.errors import InputRefused
from phase21.domain.schedules import Recurrence
from phase21.domain.tasks import PRIORITIES, Compensation, Dependency, Task
from phase21.domain.workflows import JOIN, Judged
from phase21.intake.shapes import MADE_INSIDE, Child, Fork, Spec, Step, Submission
from phase21.store import codec

ALIASES: Mapping[str, str] = {
    "predicted_success_probability": "predicted_success_rate",
    "predicted_execution_time": "estimated_duration_s",
    "heuristics_applied": "heuristics",
    "max_retries": "max_attempts",
}
"""Names that upstream gives to fields of a task."""

RISK_ASSESSMENT = "risk_assessment"
TASK_FIELDS = frozenset(Task.__struct_fields__) - {MADE_INSIDE}

_ID_WORDS = "1 to 128 of A-Z a-z 0-9 . _ -, beginning with a letter or digit"
_MOMENT_WORDS = "seconds after acceptance from 0 to 1e9, or a time with its offset from UTC (2027-01-31T08:00:00Z)"
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
    "priority": f"a whole number from 0 on, or one of {', '.join(PRIORITIES)}",
    "risk_level": "LOW, MEDIUM or HIGH",
    "estimated_duration_s": "seconds from 0 to 1e9",
    "agent_id": _ID_WORDS,
    "capabilities": f"a list of names ({_ID_WORDS})",
    "depends_on": f'a list of task ids ({_ID_WORDS}), or of {{"task", "when"}}',
    "task": _ID_WORDS,
    "when": "succeeded, failed or settled",
    "timeout_s": "seconds above 0, up to 1e9",
    "max_attempts": "a whole number from 1 to 1000",
    "idempotent": "true or false",
    "approved": "true or false",
    "heuristics": "a list of texts of 1 to 256 characters",
    "features": "up to 256 features by name, each a number or a text of at most 256 characters",
    "condition": "an expression in CEL of 1 to 4096 characters",
    "step": "text of 1 to 256 characters",
    "compensate": "an object with fields of a task (kind, payload and so on), or the id of a task of the workflow",
    "not_before": _MOMENT_WORDS,
    "deadline": _MOMENT_WORDS,
    "limit_key": "text of 1 to 128 characters",
    "workflow": "an object with name and tasks",
    "name": "text of 1 to 128 characters",
    "mode": "sequential, parallel, conditional or graph",
    "on_failure": "stop, continue or compensate",
    "max_parallel": "a whole number from 1 on",
    "max_tasks": "a whole number from 1 to 1000000",
    "max_depth": "a whole number from 0 to 64",
    "evaluate": "an object with judge, runs and tolerance",
    "judge": "an object with fields of a task",
    "runs": "a whole number from 1 to 1000",
    "tolerance": "a number from 0 to 1",
    "for_each": 'a list, or {"$from": "task_id", "path": "result…"}',
    "spawn": "a list of tasks",
    "fork": "an object with run and from",
    "run": _ID_WORDS,
    "from": _ID_WORDS,
    "every": "an object with cron or interval_s",
    "cron": "an expression of five fields: minute, hour, day of month, month, day of week",
    "interval_s": "seconds from 1 to 1e9",
    "timezone": "a name of the time zone database (UTC, Europe/Berlin)",
    "missed": "skip, once or all",
    "overlap": "skip, wait or allow",
    "first": _MOMENT_WORDS,
    "until": _MOMENT_WORDS,
}

_WHOLES: Mapping[str, tuple[str, type[msgspec.Struct]]] = {
    "": ("a submission", Submission),
    "fork": ("a fork", Fork),
    "depends_on": ("a dependency", Dependency),
    "compensate": ("a compensation", Compensation),
    "evaluate": ("what evaluates a workflow", Judged),
    "every": ("a recurrence", Recurrence),
}
"""What stands in a field, by its name."""


_PLACES = re.compile(r"(\[[^\]]*\])+$")
_UNUSUAL = tuple(name.encode() for name in (*ALIASES, RISK_ASSESSMENT, *(f'"{name}"' for name in PRIORITIES)))

_PLAINER: Mapping[str, str] = {
    "Input data was truncated": "the JSON breaks off, or holds half a surrogate pair",
    "Expected `object`, got `array`": "a line is one JSON object, not a list",
}


def task_of(fields: Mapping[str, Any], path: str = "") -> Task:
    """One task from its fields by name, aliases among them. Raises InputRefused; `path` is where the fields stand."""
    row = without_aliases(fields, path)
    strange = [name for name in row if name not in TASK_FIELDS]
    if strange:
        raise unknown(strange[0], path)
    try:
        task: Task = codec.decode(codec.encode(row), Task)
    except codec.CodecError as error:
        raise refusal(error, path, fields) from None
    check_kind(task.kind, joined(path, "kind"))
    return task


def check_moments(task: Task, path: str) -> None:
    """Refuse a deadline that has passed before the task is due, where both are given alike. Raises InputRefused."""
    due, deadline = task.not_before, task.deadline
    if deadline is not None and due is not None and type(due) is type(deadline) and deadline <= due:  # type: ignore[operator]
        raise InputRefused("deadline is not after not_before, so that it could never begin", f"{path}.deadline")


def check_kind(kind: str, path: str) -> None:
    """Refuse a kind that nobody may ask for: a join is made of what is asked for. Raises InputRefused."""
    if kind == JOIN:
        said = f"{JOIN} is the kind of what gathers the tasks of a for_each or of a child workflow, and is made with these"
        raise InputRefused(f"{path}: {said}", path)


def unusual(line: bytes) -> bool:
    """Whether a line may hold what the shapes do not take as it stands: another name for a field, a priority by its name."""
    return any(name in line for name in _UNUSUAL)


def without_aliases(row: Mapping[str, Any], path: str) -> dict[str, Any]:
    """A task's fields by their own names, and its priority as a number. Raises InputRefused where one is given twice."""
    plain = {name: value for name, value in row.items() if name not in ALIASES and name != RISK_ASSESSMENT}
    for alias, name in ALIASES.items():
        if alias not in row:
            continue
        if name in plain:
            raise InputRefused(f"{name} is given twice: {alias} is another name for it; give one of them", joined(path, alias))
        plain[name] = row[alias]
    if RISK_ASSESSMENT in row:
        metadata = plain.get("metadata", {})
        if isinstance(metadata, dict):
            if RISK_ASSESSMENT in metadata:
                raise InputRefused("risk_assessment is given twice: the field is kept in metadata", joined(path, RISK_ASSESSMENT))
            plain["metadata"] = {**metadata, RISK_ASSESSMENT: row[RISK_ASSESSMENT]}
    if isinstance(plain.get("priority"), str):
        plain["priority"] = PRIORITIES.get(plain["priority"], plain["priority"])
    return plain


def plain_steps(workflow: Any, path: str) -> Any:
    """A workflow, or a child, with the fields of all its tasks by their own names; what has another shape stays."""
    rows = workflow.get("tasks") if isinstance(workflow, dict) else None
    if not isinstance(rows, list):
        return workflow
    return {**workflow, "tasks": [_plain_step(row, f"{path}.tasks[{n}]") for n, row in enumerate(rows)]}


def _plain_step(row: Any, path: str) -> Any:
    if not isinstance(row, dict):
        return row
    plain = without_aliases(row, path)
    return {**plain, "workflow": plain_steps(plain["workflow"], f"{path}.workflow")} if "workflow" in plain else plain


# -- refusing ------------------------------------------------------------------------------------------------------------


def refusal(error: codec.CodecError, path: str = "", row: Mapping[str, Any] | None = None) -> InputRefused:
    """What the codec says, in the words of the contract, with the name that the line itself uses."""
    said = " ".join(str(error).split())
    where = joined(path, error.path or "")
    keyed = re.fullmatch(r"(.*) - at `key` in `\$\.?(.*)`", said)
    if keyed:
        said, where = keyed[1], joined(path, keyed[2])
    named = re.fullmatch(r"Object (contains unknown|missing required) field `(.*)`", said)
    if named and named[1] == "contains unknown":
        return unknown(named[2], where)
    if named:
        return InputRefused(f"{named[2]} is missing; it is {_ALLOWED.get(named[2], 'required')}", joined(where, named[2]))
    field = field_of(where)
    for alias, name in ALIASES.items():
        if name == field and row and alias in row:
            where = where[: -len(field)] + alias
    if not where:
        return InputRefused(f"not a submission: {_PLAINER.get(said, said.replace('`', ''))}")
    said = "not of the allowed form" if "regex" in said else said[0].lower() + said[1:]
    return InputRefused(f"{where}: {said.replace('`', '')}; allowed: {_ALLOWED.get(field, 'see the contract')}", where)


def unknown(name: str, path: str) -> InputRefused:
    """The refusal of a field that nothing of its kind has."""
    whole, shape = _whole(path)
    allowed = ", ".join(field for field in shape.__struct_encode_fields__ if field != MADE_INSIDE)
    return InputRefused(f"unknown field {one_line(name)}; {whole} has {allowed}", joined(path, one_line(name)))


def _whole(path: str) -> tuple[str, type[msgspec.Struct]]:
    """What stands at a path, in words, and its shape."""
    last = field_of(path)
    if last == "workflow":
        return ("a workflow", Spec) if path == last else ("a child workflow", Child)
    return _WHOLES.get(last) or (("a task of a workflow", Step) if path.startswith(("workflow.", "spawn[")) else ("a task", Task))


def field_of(path: str) -> str:
    """The name of the last field in a path, without places in lists."""
    return _PLACES.sub("", path).rpartition(".")[2]


def one_line(name: str) -> str:
    """A name as it may stand in a line."""
    return " ".join(name.split())[:128]


def joined(path: str, name: str) -> str:
    """The path of a field within what stands at `path`."""
    return f"{path}.{name}" if path and name else path or name
