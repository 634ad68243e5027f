"""A workflow's judge: the task that is made of it, and what its result says.

`workflows` makes the task when all else has ended; the reader behind `evaluate` reads the result. The kinds that judge get the results
of the run in their payload, each where it expects them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeGuard

import msgspec

from phase21.domain.references import LITERAL, references
from phase21.domain.tasks import Dependency, Task, When
from phase21.domain.workflows import Judged, Upstream

JUDGE_ID = "workflow.judge"
RESULTS_BYTES = 60 * 1024
"""How much of the run's results a judge is given, as JSON: its task must fit 64 KiB."""

TEXT_LENGTHS = (2048, 512, 128, 32)
"""How long texts within results may be, tried one after the other until all of them fit; the end of a text is kept."""

ESCAPED = 6
"""At most how many bytes JSON needs for a character."""

REASONS_MOST = 20
REASON_LENGTH = 500


class Marks(msgspec.Struct, frozen=True, kw_only=True):
    """What a judge gave: the run and single tasks, 0 to 100 each, and its reasons."""

    score: float
    tasks: dict[str, float] = {}
    reasons: tuple[str, ...] = ()


# -- the task ------------------------------------------------------------------------------------------------------------


def judge_task(judged: Judged, run_id: str, results: Mapping[str, Upstream]) -> Task:
    """The task that judges a run. A `command` is tried once unless its fields say otherwise: to say no is no failure to repeat.

    `command` finds `{"run_id", "results", "shortened"}` as JSON on its stdin, `python` the results as the keyword argument
    `results`, every other kind both as fields of its payload. Raises `msgspec.ValidationError` where the judge's fields make no task.
    """
    task = msgspec.convert({"task_id": JUDGE_ID, "predicted_success_rate": 1.0, **(judged.judge or {})}, Task)
    told, shortened = fitted(results)
    asked = sorted({reference.task for reference in references(task.payload)} & results.keys())
    # Only where something is to be filled in is a payload looked through, and then what tasks left must not be.
    given = {LITERAL: told} if asked else told
    waits = tuple(Dependency(task=task_id, when=When.SETTLED) for task_id in asked)
    once = {"max_attempts": task.max_attempts or 1} if task.kind == "command" else {}
    payload = _with(task.kind, task.payload, {"results": given, "shortened": shortened}, run_id)
    return msgspec.structs.replace(task, payload=payload, depends_on=(*task.depends_on, *waits), **once)


def _with(kind: str, payload: dict[str, Any], told: dict[str, Any], run_id: str) -> dict[str, Any]:
    """The payload with what its kind is to look at."""
    if kind == "command":
        return {**payload, "stdin": {"run_id": run_id, **told}}
    if kind == "python":
        return {**payload, "kwargs": {**payload.get("kwargs", {}), "results": told["results"]}}
    return {**payload, **told}


def fitted(results: Mapping[str, Upstream], most_bytes: int = RESULTS_BYTES) -> tuple[dict[str, Any], list[str]]:
    """The results as JSON will have them, cut to what fits, and the ids of those that were cut.

    First long texts are shortened, then whole results are taken away, the largest first, then the last tasks altogether.
    """
    whole = {task_id: _said(became) for task_id, became in results.items()}
    told, lengths = whole, iter(TEXT_LENGTHS)
    while json_bytes(told) > most_bytes and (length := next(lengths, None)) is not None:
        told = {task_id: _shortened(said, length) for task_id, said in whole.items()}
    told = _left(told, json_bytes(told) - most_bytes)
    return told, [task_id for task_id in whole if told.get(task_id) != whole[task_id]]


def _left(told: dict[str, Any], over: int) -> dict[str, Any]:
    """What is left once so many bytes are taken away."""
    left = dict(told)
    sizes = {task_id: json_bytes(said) for task_id, said in left.items()} if over > 0 else {}
    for task_id in sorted(sizes, key=lambda name: -sizes[name]):
        bare = {"status": left[task_id]["status"], "cut": True}
        if over > 0 and json_bytes(bare) < sizes[task_id]:
            over -= sizes[task_id] - json_bytes(bare)
            left[task_id] = bare
    while over > 0 and left:
        task_id, said = left.popitem()
        over -= json_bytes({task_id: said}) - 2
    return left


def _said(became: Upstream) -> dict[str, Any]:
    said: dict[str, Any] = {"status": str(became.status), "result": became.result}
    if became.error is not None:
        said["error"] = became.error
    return said


def _shortened(value: Any, length: int) -> Any:
    if isinstance(value, str):
        return value if len(value) <= length else "…" + value[-length:]
    if isinstance(value, dict):
        return {key: _shortened(inner, length) for key, inner in value.items()}
    if isinstance(value, list):
        return [_shortened(inner, length) for inner in value]
    return value


def json_bytes(value: Any) -> int:
    """At most how many bytes a value takes as JSON."""
    if isinstance(value, str):
        return 2 + sum(1 if " " <= c <= "~" and c not in '"\\' else ESCAPED for c in value)
    if isinstance(value, Mapping):
        return 2 + sum(json_bytes(str(key)) + json_bytes(inner) + 2 for key, inner in value.items())
    if isinstance(value, list | tuple):
        return 2 + sum(json_bytes(inner) + 1 for inner in value)
    return len(repr(value)) + 1


# -- its result ----------------------------------------------------------------------------------------------------------


def scores_of(result: Any, decode: Callable[[str], Any]) -> Marks | str:
    """What a judge's result says, or in words why nothing can be read from it.

    A number is the score. An object has `score` or `tasks` (then their mean is the score), and `reasons`. Of a command it is the last
    line of its stdout where that is such an object (`decode` reads JSON, or raises ValueError), else its exit status.
    """
    if isinstance(result, dict) and "exit_status" in result:
        return _of_command(result, decode)
    if isinstance(result, bool) or not isinstance(result, int | float | dict):
        return f"the judge gave neither a number nor an object, but {_kind(result)}"
    return _of_object(result if isinstance(result, dict) else {"score": result})


def _of_command(result: dict[str, Any], decode: Callable[[str], Any]) -> Marks | str:
    last = next(_last_lines(result, "stdout"), "")
    if last.endswith("}"):
        try:
            said = decode(last)
        except ValueError:
            return "the last line that the judge printed is no whole JSON object (4 KiB are kept of what a command prints)"
        if isinstance(said, dict) and said.keys() & {"score", "tasks"}:
            return _of_object(said)
    status = result["exit_status"]
    if not isinstance(status, int) or status < 0:
        return f"the judge was ended by signal {-status if isinstance(status, int) else status}"
    if status == 0:
        return Marks(score=100.0)
    return Marks(score=0.0, reasons=tuple(line[:REASON_LENGTH] for line in _last_lines(result, "stderr", "stdout"))[:1])


def _last_lines(result: dict[str, Any], *names: str) -> Iterator[str]:
    for name in names:
        lines = str(result.get(name) or "").strip().splitlines()
        if lines:
            yield lines[-1]


def _of_object(said: dict[str, Any]) -> Marks | str:
    tasks, reasons = said.get("tasks", {}), said.get("reasons", [])
    if not isinstance(tasks, dict) or not all(_is_score(score) for score in tasks.values()):
        return "the judge's `tasks` are not numbers of 0 to 100 by task"
    if not isinstance(reasons, list) or not all(isinstance(reason, str) for reason in reasons):
        return "the judge's `reasons` are not a list of texts"
    score = said.get("score")
    if score is None and tasks:
        score = sum(tasks.values()) / len(tasks)
    if not _is_score(score):
        return f"the judge's `score` is not a number of 0 to 100, but {_kind(score)}"
    given = {str(task_id): float(one) for task_id, one in tasks.items()}
    return Marks(score=float(score), tasks=given, reasons=tuple(one[:REASON_LENGTH] for one in reasons[:REASONS_MOST]))


def _is_score(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0.0 <= value <= 100.0  # noqa: PLR2004 - the scale


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"{value!r}"[:80]
