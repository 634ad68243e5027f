"""What is kept of how long steps take: bounded, and nothing of what was estimated at nothing."""

from __future__ import annotations

import pytest

from phase21.domain import paces as module
from phase21.domain.paces import REST, Paces, step_of
from phase21.domain.tasks import Task


def test_multiples_are_summed_by_step_and_agent():
    """Two tasks of an agent: their count, the sum of multiples, and the sums of logarithms."""
    paces = Paces()
    paces.learn("a", "x", 2.0, 4.0)
    paces.learn("a", "x", 2.0, 2.0)
    kept = paces.steps["a"]["x"]
    assert (kept.count, kept.total, paces.learned) == (2, 3.0, 2)
    assert kept.logs == pytest.approx(0.6931, abs=1e-3)
    assert kept.squares == pytest.approx(0.4805, abs=1e-3)


def test_what_was_estimated_at_nothing_says_nothing():
    """A task with an estimate of 0 s is not kept."""
    paces = Paces()
    paces.learn("a", "x", 0.0, 4.0)
    assert paces == Paces()


def test_what_is_kept_is_bounded(monkeypatch):
    """The step known longest is forgotten for a new one, and agents beyond those kept apart are one."""
    monkeypatch.setattr(module, "STEPS_KEPT", 2)
    monkeypatch.setattr(module, "AGENTS_KEPT", 1)
    paces = Paces()
    for step in "abc":
        for agent_id in "xyz":
            paces.learn(step, agent_id, 1.0, 1.0)
    assert list(paces.steps) == ["b", "c"]
    assert {agent_id: pace.count for agent_id, pace in paces.steps["b"].items()} == {"x": 1, REST: 2}


def test_a_step_is_known_by_its_workflow_and_else_by_its_kind():
    """Steps of the same name in two workflows are two; a task without a step counts by its kind."""
    assert step_of("w", Task(task_id="t", step="lint")) == "w/lint"
    assert step_of("w", Task(task_id="t", kind="command")) == "command"
