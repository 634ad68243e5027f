"""The verb `fork`, as a user calls it."""

from __future__ import annotations

import pytest

from phase21.store import codec

FLOW = {
    "run_id": "w",
    "workflow": {
        "name": "w",
        "tasks": [
            {"task_id": "a", "payload": {"success_rate": 1.0}},
            {"task_id": "b", "depends_on": ["a"], "max_attempts": 1, "payload": {"success_rate": 0.0}},
        ],
    },
}


def served(shell):
    with shell.process("serve", "--once", stdout=-3, stderr=-3) as process:
        return process.wait(60)


@pytest.fixture
def failed(shell):
    """A shell in which `b` of the workflow has failed."""
    assert shell("submit", shell.file("flow.json", FLOW)).exit_code == 0
    assert served(shell) == 1
    return shell


def test_a_fork_is_carried_out_with_what_was_kept(failed):
    """The fork is a run of its own, begins with the task that it was asked to, and keeps the results of those before."""
    forked = failed("fork", "w", "--from", "b")
    assert (forked.exit_code, forked.stdout.split()[0]) == (0, "w-fork")
    assert served(failed) == 1
    tasks = failed("show", "w-fork", "--json").stdout
    assert {one["task_id"]: (one["attempts"], one["kept_from"]) for one in codec.decode(tasks)["tasks"]} == {
        "a": (0, "w"),
        "b": (1, None),
    }


def test_forks_are_named_apart_before_they_are_taken_in(failed):
    """A fork that still waits in the queue file has its name already."""
    assert [failed("fork", "w", "--from", "b").stdout.split()[0] for _ in range(2)] == ["w-fork", "w-fork2"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("w", "--from", "z"), "run w has no task z"),
        (("x", "--from", "b"), "run x: no such run"),
        (("w", "--from", "b", "--as", "w"), "run w was already given"),
    ],
)
def test_what_cannot_be_forked_is_said_and_nothing_is_submitted(failed, arguments, said):
    """A run or a task that is unknown, or a name that is taken, is refused at once."""
    before = failed.queue.read_bytes()
    refused = failed("fork", *arguments)
    assert refused.exit_code == 3
    assert said in refused.stderr
    assert failed.queue.read_bytes() == before


def test_a_failed_task_is_explained_with_the_fork_that_would_do_it_again(failed):
    """Where a task of a workflow failed, `explain` names the command that does it again."""
    assert "phase21 fork w --from b" in " ".join(failed("explain", "w", "b").stdout.split())
