"""The kind `schema`: values and results held against a JSON Schema."""

from __future__ import annotations

import asyncio
import sys

import msgspec
import pytest

from phase21.domain.tasks import Attempt, Task
from phase21.engines.schema import NEEDED, SchemaEngine

pytest.importorskip("jsonschema", reason="the extra `workflows` is not installed")

SCHEMA = {
    "type": "object",
    "required": ["n"],
    "properties": {"n": {"type": "integer", "minimum": 1}, "items": {"type": "array", "items": {"type": "string"}}},
}


def done(result):
    return {"status": "COMPLETED", "result": result}


async def judged(**payload):
    task = Task(task_id="j", kind="schema", payload=payload)
    return await SchemaEngine().perform(
        Attempt(run_id="r", wave=1, task=task, agent_id="a", number=1, predicted=1.0, timeout_s=30.0)
    )


async def test_the_score_is_the_share_that_is_valid():
    """Results of COMPLETED tasks; each that is not valid has 0, and a reason with the path."""
    results = {"a": done({"n": 1}), "b": done({"n": 0, "items": ["x", 2]}), "c": {"status": "FAILED", "result": None}}
    found = await judged(schema=SCHEMA, results=results)
    assert found.success
    assert found.result["score"] == 50.0
    assert found.result["tasks"] == {"a": 100.0, "b": 0.0}
    assert found.result["reasons"] == ["b.items[1]: 2 is not of type 'string'", "b.n: 0 is less than the minimum of 1"]


async def test_only_the_tasks_that_are_named_are_judged():
    """One of them that has no result counts as not valid."""
    results = {"a": done({"n": 1}), "b": done("no")}
    found = await judged(schema=SCHEMA, results=results, only=["a", "gone"])
    assert found.result == {"score": 50.0, "tasks": {"a": 100.0}, "reasons": ["gone: there is no result of a COMPLETED task"]}


async def test_what_was_cut_is_not_judged():
    """It is said, and counts neither way; where nothing is left the task fails."""
    results = {"a": done({"n": 1}), "b": done(None)}
    found = await judged(schema=SCHEMA, results=results, shortened=["b"])
    assert (found.result["score"], found.result["reasons"]) == (100.0, ["b: its result is too large to be judged"])
    nothing = await judged(schema=SCHEMA, results=results, shortened=["a", "b"])
    assert (nothing.success, nothing.error_msg) == (False, "no result to judge: a: its result is too large to be judged")


async def test_a_value_is_valid_or_the_task_fails():
    """Without results the kind checks one value; another attempt is of no use."""
    assert (await judged(schema=SCHEMA, value={"n": 3})).result == {"score": 100.0, "tasks": {}, "reasons": []}
    found = await judged(schema=SCHEMA, value={})
    assert (found.success, found.permanent, found.error_msg) == (False, True, "value: 'n' is a required property")


async def test_a_pattern_that_takes_for_ever_holds_up_nobody():
    """The loop goes on meanwhile, and the attempt ends when it is cancelled."""
    wanted = asyncio.ensure_future(judged(schema={"pattern": r"^(\w+\s?)*$"}, value="a" * 60 + "!"))  # noqa: TID251 - cancelled below
    begun = asyncio.get_running_loop().time()
    done, _ = await asyncio.wait({wanted}, timeout=1.0)
    assert not done
    assert asyncio.get_running_loop().time() - begun < 5
    wanted.cancel()
    with pytest.raises(asyncio.CancelledError):
        await wanted


async def test_nothing_is_fetched():
    """A schema elsewhere is an error, not a request."""
    found = await judged(schema={"$ref": "https://example.org/schema.json"}, value=1)
    assert not found.success
    assert "cannot be used" in found.error_msg


async def test_without_the_library_it_says_what_to_install(monkeypatch):
    """The extra's name, before an attempt and in one."""
    from phase21.engines import schema

    schema._compiled.cache_clear()
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    assert SchemaEngine().refusal({"schema": True, "value": 1}) == NEEDED
    assert (await judged(schema={"title": "not seen before"}, value=1)).error_msg == NEEDED


def test_what_cannot_be_judged_is_refused_before():
    """A schema that is none, a payload with both or unknown fields; a judge's payload without results yet is fine."""
    engine = SchemaEngine()
    assert engine.refusal({"schema": SCHEMA}) is None
    assert engine.refusal({"schema": True, "results": {}}) is None
    assert "the schema is not valid: schema['type']" in engine.refusal({"schema": {"type": "thing"}, "value": 1})
    for payload in ({"value": 1}, {"schema": True, "value": 1, "results": {}}, {"schema": True, "more": 1}):
        with pytest.raises(msgspec.ValidationError):
            engine.refusal(payload)
