"""The verb `optimize`, as a person calls it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from phase21.cli import phase21
from phase21.store import codec

EXAMPLE = Path(__file__).parents[2] / "examples" / "optimization"


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_example_is_planned_and_told(shell):
    """The tree stands where it is asked for, a person is told what was planned and what was recorded, and again it is the same."""
    first = shell("optimize", EXAMPLE)
    assert first.exit_code == 0, first.stderr
    assert "17 tasks in 3 waves over 4 agents, by maximize_success" in first.stdout
    assert "11 outcomes recorded" in first.stdout
    written = tree(shell.outputs)
    assert "wave_3/agent_0/planned_tasks.jsonl" in written
    again = shell("optimize", EXAMPLE)
    assert (again.exit_code, again.stdout, tree(shell.outputs)) == (0, first.stdout, written)


def test_a_strategy_is_chosen_by_name(shell):
    """The plan bears it; an unknown one is refused in one line that lists the known, and nothing is written."""
    assert shell("optimize", EXAMPLE, "--strategy", "round_robin").exit_code == 0
    summary = codec.decode((shell.outputs / "optimization_summary.json").read_bytes())
    assert {one["strategy"] for one in summary["optimization_results"]} == {summary["strategy"]} == {"round_robin"}
    shutil.rmtree(shell.outputs)
    refused = shell("optimize", EXAMPLE, "--strategy", "best")
    assert refused.exit_code == 2
    assert "no strategy 'best'; known: round_robin, load_balanced" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert not shell.outputs.exists()


def test_what_it_wrote_can_be_read_again(shell):
    """A plan is a folder of Phase 19: planned again it has the same tasks, waves and agents, and no outcome that was not there."""
    assert shell("optimize", EXAMPLE).exit_code == 0
    shell.outputs, before = shell.folder / "again", shell.outputs
    again = shell("optimize", before)
    assert again.exit_code == 0, again.stderr
    assert "17 tasks in 3 waves over 4 agents" in again.stdout
    assert tree(shell.outputs).keys() == tree(before).keys()
    assert "11 outcomes recorded" in again.stdout


def test_a_folder_without_tasks_says_so(shell):
    """A Phase 18 folder alone is no error: its files stand, and there is nothing to plan."""
    done = shell("optimize", EXAMPLE / "phase18")
    assert done.exit_code == 0
    assert "no tasks were found" in done.stdout
    assert (shell.outputs / "coordination_patterns.json").exists()


def test_a_runs_plan_and_outcomes_are_the_same_files(shell):
    """They follow from the journal, the same each time; the run's own folder stays what it was."""
    folder = shell.predictions("nightly", *({"task_id": f"t{n}", "predicted_success_probability": 0.9} for n in range(6)))
    assert shell("run", folder, "--seed", "1").exit_code in {0, 1}
    own = tree(shell.outputs / "nightly")
    kept, shell.outputs = shell.outputs / "nightly", shell.folder / "plan"
    first = shell("optimize", "--run", "nightly")
    assert first.exit_code == 0, first.stderr
    assert "run nightly: 6 tasks in 1 wave over" in first.stdout
    written = tree(shell.outputs)
    assert shell("optimize", "--run", "nightly").exit_code == 0
    assert tree(shell.outputs) == written
    assert tree(kept) == own
    shell.outputs = kept
    refused = shell("optimize", "--run", "nightly")
    assert (refused.exit_code, tree(kept)) == (2, own)
    assert "a run's own folder" in refused.stderr


@pytest.mark.parametrize(
    ("args", "status", "said"),
    [
        ((), 2, "give folders or --run RUN, one of both"),
        ((EXAMPLE, "--run", "r"), 2, "give folders or --run RUN, one of both"),
        (("--run", "r", "--strategy", "thompson"), 2, "is not planned again"),
        (("--run", "r"), 3, "no such run"),
        (("absent",), 3, "absent: there is no such folder"),
        ((".",), 3, "nothing of Phase 18 or 19 stands here"),
    ],
)
def test_what_makes_no_sense_is_one_line(shell, args, status, said):
    """Wrong usage ends with 2, input that is not there with 3, in one line that says what to do."""
    refused = shell("optimize", *args)
    assert (refused.exit_code, refused.stderr.count("\n")) == (status, 1)
    assert said in refused.stderr


def test_where_the_files_go_must_be_said(shell):
    """The folder of all runs is no place for them."""
    refused = CliRunner().invoke(phase21, ["optimize", str(EXAMPLE)])
    assert refused.exit_code == 2
    assert "--outputs DIR is missing" in refused.stderr
    shell.outputs = EXAMPLE / "phase19"
    assert "is read as well" in shell("optimize", EXAMPLE).stderr


def test_broken_input_names_file_and_field(shell):
    """One line: the file, the line in it, the field, and what is wrong with it; nothing is written."""
    folder = shell.folder / "broken"
    folder.mkdir()
    (folder / "planned_tasks.jsonl").write_bytes(b'{"task_id": "t"}\n{"task_id": "u", "priority": "high"}\n')
    refused = shell("optimize", folder)
    assert refused.exit_code == 3
    assert f"{folder}/planned_tasks.jsonl: line 2: priority: expected int | null, got str" in refused.stderr
    assert not shell.outputs.exists()


def test_tasks_without_an_agent_are_told(shell):
    """Their number and the first of them, with the reason."""
    folder = shell.folder / "wanting"
    folder.mkdir()
    (folder / "planned_tasks.jsonl").write_bytes(b'{"task_id": "t", "capabilities": ["gpu"]}\n')
    done = shell("optimize", folder)
    assert done.exit_code == 0
    assert "without an agent: 1 task, the first of them t: no configured agent offers gpu" in done.stdout


def test_outcomes_that_name_no_agent_are_said_to_be_left_out(shell):
    """Their number stands on the screen and in the report."""
    folder = shell.folder / "nameless"
    folder.mkdir()
    (folder / "execution_outcomes.jsonl").write_bytes(b'{"task_id": "t", "status": "success"}\n')
    done = shell("optimize", folder)
    assert "left out: 1 outcome without an agent" in done.stdout
    assert "Left out are 1 recorded" in (shell.outputs / "PHASE_19_AUTONOMOUS_OPTIMIZATION.md").read_text()


def test_a_run_of_which_nothing_is_done_yet_says_so(shell):
    """A run that was accepted and not carried out has its files, and nothing in them."""
    waiting = {"task_id": "t", "risk_level": "HIGH", "predicted_success_rate": 0.95}
    wave = shell.file("wave.jsonl", {"run_id": "r", "wave": 1, "tasks": [waiting]}, {"run_id": "r", "control": "pause"})
    assert shell("submit", wave).exit_code == 0
    assert shell("serve", "--once").exit_code == 0
    done = shell("optimize", "--run", "r")
    assert done.exit_code == 0, done.stderr
    assert "run r: 0 tasks in 0 waves" in done.stdout
    assert "no wave of it is closed yet" in done.stdout
