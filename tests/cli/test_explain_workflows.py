"""`explain` of tasks of a workflow: what they wait for in it, why they were skipped, how they are undone."""

from __future__ import annotations

import pytest

from phase21.store import codec

WORKS = {"success_rate": 1.0}
TASKS = [
    {"task_id": "pay", "payload": WORKS, "compensate": {"payload": WORKS}},
    {"task_id": "mend", "depends_on": [{"task": "pay", "when": "failed"}], "payload": WORKS},
    {"task_id": "ship", "depends_on": ["pay"], "risk_level": "HIGH", "predicted_success_rate": 0.95, "payload": {"success_rate": 0.0}, "max_attempts": 1},
    {"task_id": "tell", "depends_on": ["ship"], "payload": WORKS, "not_before": 1000.0},
    {"task_id": "each", "depends_on": ["ship"], "for_each": {"$from": "ship", "path": "result.files"}, "payload": WORKS},
]  # fmt: skip
FLOW = {"run_id": "order", "workflow": {"name": "order", "on_failure": "compensate", "tasks": TASKS}}


def once(shell):
    with shell.process("serve", "--once", stdout=-3, stderr=-3) as process:
        return process.wait(60)


@pytest.fixture
def submitted(shell):
    """A shell with the workflow in its queue file."""
    assert shell("submit", shell.file("flow.json", FLOW)).exit_code == 0
    return shell


@pytest.fixture
def held(submitted):
    """The same once its second task waits for a person's approval."""
    assert once(submitted) == 0
    return submitted


def said(shell, task_id, *args):
    result = shell("explain", "order", task_id, *args)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def test_what_no_daemon_has_read(submitted):
    """A workflow's task is known from the queue file on."""
    assert "tell of run order: SUBMITTED" in said(submitted, "tell")


def test_why_it_was_skipped(held):
    """A skipped task says why, of which step and workflow it is, and what it wanted."""
    text = said(held, "mend")
    assert text.startswith("mend of run order, wave 1: SKIPPED\n")
    assert "depends on pay COMPLETED (wanted: failed)" in text
    assert "of workflow order, step order/mend: one of the workflow's own tasks" in text
    assert "its workflow decided not to do it: pay is COMPLETED, and this runs only where it FAILED" in text
    assert "the workflow skipped it" in text


def test_what_a_step_that_is_no_task_yet_waits_for(held):
    """A step over a result that is not known yet is told apart from a task that there is not."""
    refused = held("explain", "order", "each")
    assert refused.exit_code == 3
    assert "each cannot be made into tasks yet (for each of ship.result.files)" in refused.stderr


def test_how_it_is_undone(held):
    """Its compensation is told before the workflow fails, and what came of it after."""
    assert "pay.undo undoes it (simulate), should the workflow fail once it has COMPLETED" in said(held, "pay")
    assert held("approve", "order").exit_code == 0
    assert once(held) == 1
    assert "pay.undo undoes it (simulate): COMPLETED" in said(held, "pay")
    text = said(held, "pay.undo")
    assert "made to undo pay, in the reverse order of what was done" in text
    found = codec.decode(said(held, "pay.undo", "--json"))
    assert found["workflow"] == {
        "workflow": "order", "step": "order/pay.undo", "stage": "made to undo pay, in the reverse order of what was done",
        "condition": None, "compensation": None,
    }  # fmt: skip
    assert codec.decode(said(held, "mend", "--json"))["task"]["depends_on"] == [
        {"task_id": "pay", "status": "COMPLETED", "when": "failed"}
    ]


def test_what_it_waits_for(shell):
    """A task that waits in its workflow says for whom, what is wanted of them, and when it may begin at the earliest."""
    tasks = [
        {"task_id": "first", "not_before": 3600.0, "payload": WORKS},
        {"task_id": "after", "depends_on": ["first", {"task": "other", "when": "settled"}], "payload": WORKS},
        {"task_id": "other", "payload": WORKS},
    ]
    line = {"run_id": "order", "workflow": {"name": "order", "tasks": tasks}}
    assert shell("submit", shell.file("flow.json", line)).exit_code == 0
    with shell.daemon():
        shell.until("task_completed", task_id="other")
        assert "it is not to begin for another" in said(shell, "first")
        text = said(shell, "after")
        assert "it depends on first, which is PENDING" in text
        assert "it is then done if first COMPLETED, other ended, however, else SKIPPED" in text
        waits = codec.decode(said(shell, "first", "--json"))["waits"]
        assert [wait["cause"] for wait in waits] == ["time"]
        assert waits[0]["until_at"] is not None
