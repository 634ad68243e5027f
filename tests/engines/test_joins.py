"""Joins: what they gather, and when they fail."""

from __future__ import annotations

import pytest

from phase21.domain.settings import HandlerSettings
from phase21.domain.tasks import Attempt, Outcome, Task
from phase21.engines import joins
from phase21.engines.engine import Engines
from phase21.engines.joins import JoinEngine


def attempt(**payload):
    task = Task(task_id="j", kind="join", payload=payload)
    return Attempt(run_id="r", wave=1, task=task, agent_id="a", number=1, predicted=1.0, timeout_s=1.0)


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize(
    ("payload", "outcome"),
    [
        ({"results": [1, None], "statuses": {"x.0": "COMPLETED", "x.1": "SKIPPED"}}, Outcome(success=True, result=[1, None])),
        ({}, Outcome(success=True)),
        ({"results": [1], "statuses": {"x": "FAILED", "y": "CANCELLED"}},
         Outcome(success=False, result=[1], error_msg="x FAILED, y CANCELLED", permanent=True)),
        ({"statuses": {f"x{n}": "FAILED" for n in range(7)}},
         Outcome(success=False, error_msg="x0 FAILED, x1 FAILED, x2 FAILED, x3 FAILED, x4 FAILED and 2 more", permanent=True)),
        ({"error": "no list"}, Outcome(success=False, error_msg="no list", permanent=True)),
    ],
)  # fmt: skip
async def test_a_join_gathers_or_says_what_failed(payload, outcome, dry_run):
    """Its result is what it gathered; it fails for good where one of its tasks failed, in a dry run as well."""
    engine = Engines.built(HandlerSettings(), dry_run=dry_run).of("join")
    assert engine.instant(attempt(**payload)) == outcome
    assert await engine.perform(attempt(**payload)) == outcome


@pytest.mark.parametrize(
    ("payload", "sound"), [({"results": {"$from": "a"}, "statuses": {"a": {"$from": "a"}}}, True), ({"x": 1}, False)]
)
def test_a_payload_is_checked(payload, sound):
    """References may still stand in it; other fields may not."""
    said = Engines.built(HandlerSettings(), dry_run=False).refusal(Task(task_id="j", kind="join", payload=payload))
    assert (said is None) is sound


def test_what_is_gathered_is_bounded(monkeypatch):
    """A result that no row of the journal could hold is not even offered to it."""
    monkeypatch.setattr(joins, "RESULTS_BYTES", 10)
    outcome = JoinEngine().instant(attempt(results=["x" * 10], statuses={"a": "FAILED"}))
    assert (outcome.success, outcome.result, outcome.permanent) == (False, None, True)
    assert "comes to 14 bytes" in (outcome.error_msg or "")
