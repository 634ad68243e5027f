"""Workflows as files: `submit` and `check` take TOML and YAML, and say what is wrong by file and field."""

from __future__ import annotations

from pathlib import Path

import pytest

from phase21.intake.submissions import parse

EXAMPLE = Path(__file__).parents[2] / "examples" / "release.toml"
FLOW = """
[workflow]
name = "flow"
[[workflow.tasks]]
task_id = "a"
[[workflow.tasks]]
task_id = "b"
depends_on = ["a"]
for_each = { "$from" = "a" }
"""


def test_a_workflow_in_toml_is_one_line_of_the_queue(shell):
    """The file becomes a line with a run of its own, each time another."""
    (shell.folder / "flow.toml").write_text(FLOW)
    for _ in range(2):
        assert shell("submit", shell.folder / "flow.toml").exit_code == 0
    first, second = (parse(line) for line in shell.queue.read_bytes().splitlines())
    assert first.workflow == second.workflow
    assert first.run_id.startswith("flow-2")
    assert first.submission_id != second.submission_id


def test_the_name_that_a_run_is_given_is_said(shell):
    """On stderr where the file names no run, so that stdout holds ids alone; where it does, nothing is said."""
    (shell.folder / "flow.toml").write_text(FLOW)
    (shell.folder / "named.toml").write_text('run_id = "mine"' + FLOW)
    result = shell("submit", shell.folder / "flow.toml", shell.folder / "named.toml")
    first, second = (parse(line) for line in shell.queue.read_bytes().splitlines())
    assert result.stdout.split() == [first.submission_id, second.submission_id]
    assert result.stderr == f"run {first.run_id}: phase21 show -f {first.run_id}\n"


@pytest.mark.parametrize("verb", ["submit", "check"])
@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.toml", FLOW.replace('"a"]', '"z"]'), "a.toml: workflow.tasks[1].depends_on: the workflow has no task z"),
        ("a.toml", "run_id = ", "a.toml: not TOML: Invalid value"),
        (
            "a.yaml",
            "workflow: {name: f, tasks: [{task_id: a, condition: 1 +}]}",
            "a.yaml: workflow.tasks[0].condition: Syntax error",
        ),
        ("a.yml", "workflow: {name: f, tasks: [{task_id: a, on: 1}]}", "a.yml: workflow.tasks[0]: the name true is no text"),
    ],
)
def test_what_is_wrong_is_told_by_file_and_field(shell, verb, name, text, said):
    """Exit status 3, one line with the file and the field, and nothing is appended."""
    (shell.folder / name).write_text(text)
    result = shell(verb, shell.folder / name)
    assert result.exit_code == 3
    assert said in result.stdout + result.stderr
    assert not shell.queue.exists()


def test_check_says_what_a_file_asks_for(shell):
    """Its run, its workflow, and how many tasks it begins with; nothing is appended."""
    (shell.folder / "flow.toml").write_text(FLOW)
    (shell.folder / "w.jsonl").write_text('{"run_id": "r", "tasks": [{"task_id": "a"}]}\n{"run_id": "r", "control": "pause"}')
    result = shell("check", shell.folder / "flow.toml", shell.folder / "w.jsonl")
    assert result.exit_code == 0, result.stdout
    assert "workflow flow (graph), 1 tasks, 1 steps made on the way" in result.stdout
    assert "run r, 1 tasks; run r, pause" in result.stdout
    assert not shell.queue.exists()


def test_the_example_is_sound(shell):
    """The example that the documents name is taken as it stands."""
    result = shell("check", EXAMPLE)
    assert result.exit_code == 0, result.stdout
    assert "workflow release (graph), 10 tasks" in result.stdout
