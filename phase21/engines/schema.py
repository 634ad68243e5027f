"""The kind `schema`: holds results, or one value, against a JSON Schema. As a workflow's judge its score is the share that is valid.

Engines asks for it by kind. The library `jsonschema` (extra `workflows`) is imported when it is first used; a schema is never fetched
from anywhere: what it refers to must stand in it. It validates in a process of its own, which this module is when it is run: a
pattern may take for ever over a text that means harm, and a thread could not be ended.
"""

from __future__ import annotations

import asyncio
import functools
import os
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from phase21.domain.tasks import Attempt, Outcome
from phase21.engines.processes import ProcessGroup
from phase21.store import codec

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

NEEDED = "kind schema needs the extra workflows: pip install 'phase21[workflows]'"
ANSWER_BYTES = 256 * 1024
REASONS_MOST = 20
REASON_LENGTH = 300
VALUE = "value"

Schema = dict[str, Any] | bool
"""A JSON Schema is an object, or true (anything goes) or false."""


class SchemaInput(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Payload of `schema`: the schema, and either a `value` or tasks' `results` as `{id: {"status", "result"}}`.

    With `only`, the tasks that are held against it; `shortened` are those whose results were cut, and which cannot be.
    """

    schema: Schema
    value: Any = msgspec.UNSET
    results: dict[str, dict[str, Any]] | msgspec.UnsetType = msgspec.UNSET
    only: tuple[str, ...] = ()
    shortened: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a payload with both or neither."""
        if (self.value is msgspec.UNSET) == (self.results is msgspec.UNSET):
            raise ValueError("give either value or results")


class SchemaEngine:
    """Validates. Without `results` an invalid value is a failure; with them the task succeeds, and its result is the judgement."""

    def refusal(self, payload: dict[str, Any]) -> str | None:
        """Why the payload cannot be judged, or None: the library is missing, or the schema is none."""
        given = payload if "results" in payload or "value" in payload else {**payload, "value": None}
        wanted = msgspec.convert(given, SchemaInput)
        try:
            _validator(wanted.schema)
        except ImportError:
            return NEEDED
        except ValueError as error:
            return str(error)
        return None

    async def perform(self, attempt: Attempt) -> Outcome:
        """Validate in a process of its own, which is ended where the attempt is cancelled."""
        refused = self.refusal(attempt.task.payload)
        if refused is not None:
            return Outcome(success=False, error_msg=refused, permanent=True)
        group = ProcessGroup(
            [sys.executable, "-m", __name__],
            cwd=None,
            env=os.environ,
            stdin=codec.encode(attempt.task.payload),
            keep_bytes=ANSWER_BYTES,
        )
        try:
            await group.ended()
        except asyncio.CancelledError:
            await group.end()
            raise
        finally:
            group.close()
        if group.exit_status:
            return Outcome(success=False, error_msg=f"the schema was not judged: its process ended with {group.exit_status}")
        return msgspec.convert(codec.decode(group.stdout.last()), Outcome)


def _judged(wanted: SchemaInput) -> Outcome:
    try:
        validator = _validator(wanted.schema)
        if wanted.results is msgspec.UNSET:
            return _of_value(validator, wanted.value)
        return _of_results(validator, wanted, wanted.results)
    except ImportError:
        return Outcome(success=False, error_msg=NEEDED, permanent=True)
    except Exception as error:  # noqa: BLE001 - what a schema refers to is found out only when it is used
        return Outcome(success=False, error_msg=f"the schema cannot be used: {_one_line(error)}", permanent=True)


def _of_value(validator: Validator, value: Any) -> Outcome:
    reasons = list(_reasons(validator, VALUE, value))
    result = {"score": 0.0 if reasons else 100.0, "tasks": {}, "reasons": reasons}
    return Outcome(success=not reasons, result=result, error_msg=reasons[0] if reasons else None, permanent=bool(reasons))


def _of_results(validator: Validator, wanted: SchemaInput, results: Mapping[str, Mapping[str, Any]]) -> Outcome:
    chosen = {
        task_id: said
        for task_id, said in results.items()
        if said.get("status") == "COMPLETED" and (not wanted.only or task_id in wanted.only)
    }
    whole = {task_id: said.get("result") for task_id, said in chosen.items() if task_id not in wanted.shortened}
    found = {task_id: list(_reasons(validator, task_id, result)) for task_id, result in whole.items()}
    missing = [f"{task_id}: there is no result of a COMPLETED task" for task_id in wanted.only if task_id not in chosen]
    cut = [f"{task_id}: its result is too large to be judged" for task_id in chosen if task_id not in whole]
    if not found and not missing:
        return Outcome(success=False, error_msg="no result to judge" + (f": {cut[0]}" if cut else ""), permanent=True)
    scores = {task_id: 0.0 if reasons else 100.0 for task_id, reasons in found.items()}
    said = [*missing, *(reason for reasons in found.values() for reason in reasons), *cut]
    mean = sum(scores.values()) / (len(scores) + len(missing))
    return Outcome(success=True, result={"score": mean, "tasks": scores, "reasons": said[:REASONS_MOST]})


def _reasons(validator: Validator, name: str, value: Any) -> Iterator[str]:
    """What is wrong with a value, each with the path to it."""
    for error in sorted(validator.iter_errors(value), key=lambda one: [str(step) for step in one.absolute_path])[:REASONS_MOST]:
        path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.absolute_path)
        yield f"{name}{path}: {error.message}"[:REASON_LENGTH]


def _validator(schema: Schema) -> Validator:
    """What validates against the schema, by the draft it names (2020-12 where it names none). Raises ImportError, ValueError."""
    return _compiled(codec.encode_sorted(schema))


@functools.lru_cache(maxsize=64)
def _compiled(encoded: bytes) -> Validator:
    from jsonschema import SchemaError  # noqa: PLC0415 - an optional dependency
    from jsonschema.validators import Draft202012Validator, validator_for  # noqa: PLC0415
    from referencing import Registry  # noqa: PLC0415

    schema = codec.decode(encoded)
    kind = validator_for(schema, default=Draft202012Validator)
    try:
        kind.check_schema(schema)
    except SchemaError as error:
        path = "".join(f"[{step!r}]" for step in error.absolute_path)
        raise ValueError(f"the schema is not valid: schema{path}: {error.message}"[:REASON_LENGTH]) from None
    made: Validator = kind(schema, registry=Registry())  # an empty one: nothing is ever fetched
    return made


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:REASON_LENGTH]


if __name__ == "__main__":
    sys.stdout.buffer.write(codec.encode(_judged(codec.decode(sys.stdin.buffer.read(), SchemaInput))))
