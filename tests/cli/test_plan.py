"""The verb `plan`."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from phase21.store import codec

SPECIALISTS = Path(__file__).parents[2] / "examples" / "specialists.toml"
GOOD = {"name": "w", "tasks": [{"task_id": "a", "instruction": "write it\x1b[2J down", "capabilities": ["docs"]}]}


def waiting(shell):
    return shell.queue.read_bytes().splitlines() if shell.queue.exists() else []


def test_the_list_has_every_template_and_value(shell):
    """`--list` names the six templates, and of each value its default and what it means."""
    result = shell("plan", "--list")
    assert result.exit_code == 0
    for name in ("bug_fix", "data_migration", "feature", "nightly_checks", "research", "review"):
        assert f"\n{name}: " in f"\n{result.stdout}"
    assert "(required)" in result.stdout
    assert '["cat"]' in result.stdout


def test_a_plan_is_shown_and_nothing_is_submitted(shell):
    """Each step stands with what it waits for, what it needs and who can do it; the queue file stays as it was."""
    result = shell("plan", "Search by postcode", "--template", "feature", "--config", SPECIALISTS)
    assert result.exit_code == 0, result.stderr
    row = next(line for line in result.stdout.splitlines() if line.strip().startswith("repair"))
    assert "check (failed)" in row
    assert "diagnosis" in row
    assert "backend_engineer 85%" in row
    assert "nothing is submitted" in result.stdout
    assert waiting(shell) == []


def test_without_specialists_everybody_may_do_everything(shell):
    """With agents that name no capabilities the plan asks for none, and says so."""
    result = shell("plan", "x", "--template", "review", "--out", "x.json")
    assert "all 4: 85%" in result.stdout
    assert "names no capabilities" in result.stdout
    tasks = codec.decode((shell.folder / "x.json").read_bytes())["workflow"]["tasks"]
    assert not any("capabilities" in task for task in tasks)


@pytest.mark.parametrize("name", ["plan.json", "plan.toml"])
def test_what_is_written_can_be_submitted(shell, name):
    """The file that `--out` writes is a submission, in JSON or TOML, that `submit` takes."""
    result = shell("plan", "x", "--template", "feature", "--run-id", "r", "--out", name)
    assert result.exit_code == 0, result.stderr
    data = (shell.folder / name).read_bytes()
    written = tomllib.loads(data.decode()) if name.endswith(".toml") else codec.decode(data)
    assert (written["run_id"], written["workflow"]["name"], len(written["workflow"]["tasks"])) == ("r", "feature", 9)
    assert shell("submit", name).exit_code == 0
    assert codec.decode(waiting(shell)[0])["workflow"]["tasks"] == written["workflow"]["tasks"]


def test_it_is_submitted_where_asked_to(shell):
    """`--submit --yes` appends one submission and prints its id; values are as they were set."""
    result = shell(
        "plan",
        "x",
        "--template",
        "bug_fix",
        "--submit",
        "--yes",
        "--run-id",
        "r",
        "--set",
        "agent_command=me --task {{ instruction }}",
    )
    assert result.exit_code == 0, result.stderr
    (line,) = waiting(shell)
    submission = codec.decode(line)
    assert result.stdout.splitlines()[-1] == submission["submission_id"]
    argv = submission["workflow"]["tasks"][0]["payload"]["argv"]
    assert argv[:2] == ["me", "--task"]
    assert argv[2].startswith("Bug: x\n")


def test_a_person_is_asked_and_may_say_no(shell, monkeypatch):
    """On a terminal `--submit` asks; without a yes nothing is submitted, and without a terminal nothing is asked."""
    monkeypatch.setattr("phase21.cli.plan._on_terminal", lambda: True)
    monkeypatch.setattr("click.confirm", lambda *_: False)
    assert "nothing is submitted" in shell("plan", "x", "--template", "review", "--submit").stdout
    assert waiting(shell) == []
    monkeypatch.setattr("click.confirm", lambda *_: True)
    assert shell("plan", "x", "--template", "review", "--submit").exit_code == 0
    assert len(waiting(shell)) == 1


def test_without_a_terminal_yes_is_needed(shell):
    """A script that submits says so."""
    result = shell("plan", "x", "--template", "review", "--submit")
    assert result.exit_code == 2
    assert "--yes" in result.stderr


@pytest.mark.parametrize(
    ("args", "status", "said"),
    [
        (["x", "--template", "data_migration"], 3, "values.data: needs a value"),
        (["x", "--template", "review", "--set", "nobody=1"], 3, "values.nobody"),
        (["x", "--template", "review", "--set", "max_parallel=many"], 2, "--set max_parallel"),
        (["x", "--template", "review", "--set", "max_parallel=0"], 3, "workflow.max_parallel"),
        (["x", "--template", "review", "--set", "report"], 2, "give KEY=VALUE"),
        (["x", "--template", "review", "--set", "agent_command=[]"], 3, "workflow.tasks[0].payload"),
        (["x", "--template", "none"], 2, "no template none; there are bug_fix"),
        (["x", "--template", "review", "--run-id", "no way"], 3, "run_id"),
        (["x", "--template", "review", "--every", "99 3 * * *"], 3, "every.cron"),
        (["x", "--template", "review", "--timezone", "UTC"], 2, "--timezone goes with --every"),
        (["x"], 2, "--template NAME or --model"),
        ([" ", "--template", "review"], 2, "GOAL"),
        (["x", "--template", "review", "--model", "openai:x"], 2, "either"),
        (["x", "--template", "review", "--base-url", "http://x"], 2, "--base-url goes with --model"),
        (["x", "--template", "review", "--yes"], 2, "--yes goes with --submit"),
        (["x", "--list"], 2, "--list takes no GOAL"),
    ],
)
def test_slips_are_refused_in_one_line(shell, args, status, said):
    """A missing value, a wrong one and options that do not go together are refused with what is wrong and where."""
    result = shell("plan", *args)
    assert (result.exit_code, said in result.stderr, result.stderr.count("\n")) == (status, True, 1), result.stderr


def test_a_plan_that_nobody_can_carry_out_is_refused(shell):
    """Where the fleet lacks a specialist the plan is shown with nobody beside the step, and refused."""
    (shell.folder / "few.toml").write_text('[agents]\nfleet = [{ id = "one", capabilities = ["tests"] }]\n')
    result = shell("plan", "x", "--template", "review", "--config", "few.toml", "--submit", "--yes")
    assert result.exit_code == 3
    assert "nobody" in result.stdout
    assert "workflow.tasks[1].capabilities: no agent offers security" in result.stderr
    assert waiting(shell) == []


def test_ones_own_templates_and_usual_values(shell):
    """The configuration names a folder of templates, and what their values usually are."""
    folder = shell.folder / "own"
    folder.mkdir()
    (folder / "mine.toml").write_text(
        'name = "mine"\ndescription = "d"\n[values.say]\nmeaning = "m"\ndefault = ["echo"]\n'
        '[workflow]\n[[workflow.tasks]]\ntask_id = "a"\nkind = "command"\npayload = { argv = "{{ say }}" }\n'
    )
    (shell.folder / "c.toml").write_text('[plan]\ntemplates_dir = "own"\nvalues = { say = ["printf", "hi"], other = 1 }\n')
    assert "mine: d" in shell("plan", "--list", "--config", "c.toml").stdout
    result = shell("plan", "x", "--template", "mine", "--config", "c.toml")
    assert "printf hi" in result.stdout, result.stderr


def test_functions_and_what_is_decided_on_the_way_are_shown(shell):
    """A step that calls a function names it, and steps over a result that is not known yet are named apart."""
    (shell.folder / "own.toml").write_text(
        'name = "own"\ndescription = "d"\n[workflow]\n'
        '[[workflow.tasks]]\ntask_id = "a"\nkind = "python"\npayload = { callable = "json:loads" }\n'
        '[[workflow.tasks]]\ntask_id = "each"\ndepends_on = ["a"]\nfor_each = { "$from" = "a" }\n'
    )
    (shell.folder / "c.toml").write_text('[handlers]\npython_modules = ["json"]\n')
    result = shell("plan", "x", "--template", "own.toml", "--config", "c.toml")
    assert "python json:loads" in result.stdout, result.stderr
    assert "decided on the way: each" in result.stdout


def test_a_plan_may_fire_again_and_again(shell):
    """With `--every` the submission is a schedule, in the time zone that is named."""
    result = shell("plan", "x", "--template", "nightly_checks", "--run-id", "n", "--every", "0 3 * * *", "--submit", "--yes")
    assert result.exit_code == 0, result.stderr
    assert "fires at 0 3 * * * (UTC)" in result.stdout
    assert codec.decode(waiting(shell)[0])["every"] == {"cron": "0 3 * * *", "timezone": "UTC"}


# -- models --------------------------------------------------------------------------------------------------------------


def test_a_model_plans_and_a_person_reads_it(shell, openai_server, monkeypatch):
    """The plan of a model is shown with every instruction, free of what a terminal would obey, and with what it took and cost."""
    pytest.importorskip("pydantic_ai", reason="the extra llm is not installed")
    monkeypatch.setenv("PHASE21_PLAN__INPUT_PRICE", "10")
    monkeypatch.setenv("PHASE21_PLAN__OUTPUT_PRICE", "20")
    openai_server.answer(GOOD)
    given = ("--model", "openai:tiny", "--base-url", openai_server.base_url, "--config", SPECIALISTS)
    result = shell("plan", "Ship it", *given, "--run-id", "r", "--submit", "--yes")
    assert result.exit_code == 0, result.stderr
    assert "write it?[2J down" in result.stdout
    assert "1 request, 120 tokens told, 30 tokens answered, cost 0.0018" in result.stdout
    assert "1 of them waits for a person: phase21 approve r" in result.stdout
    (task,) = codec.decode(waiting(shell)[0])["workflow"]["tasks"]
    assert (task["risk_level"], task["payload"]["argv"], task.get("approved")) == ("MEDIUM", ["cat"], None)


def test_what_a_model_would_run_is_shown_whole(shell, openai_server):
    """A program that a model chose stands with its whole path, its surroundings and its input."""
    pytest.importorskip("pydantic_ai", reason="the extra llm is not installed")
    payload = {"argv": ["/tmp/odd/ls", "x" * 200], "env": {"LD_PRELOAD": "/tmp/odd.so"}, "stdin": "y"}
    openai_server.answer({"name": "w", "tasks": [{"task_id": "a", "instruction": "list", "kind": "command", "payload": payload}]})
    result = shell("plan", "Ship it", "--model", "openai:tiny", "--base-url", openai_server.base_url)
    assert f"a [MEDIUM] runs command {codec.encode(payload).decode()}" in result.stdout.replace("\n", "")


def test_a_model_that_is_refused_submits_nothing(shell, openai_server):
    """Where every answer is refused the reason of the last is told, with status 3."""
    pytest.importorskip("pydantic_ai", reason="the extra llm is not installed")
    bad = {"name": "w", "tasks": [{"task_id": "a", "instruction": "x", "capabilities": ["magic"]}]}
    openai_server.answer(*[bad] * 3)
    given = ("--model", "openai:tiny", "--base-url", openai_server.base_url, "--config", SPECIALISTS)
    result = shell("plan", "Ship it", *given, "--submit", "--yes")
    assert (result.exit_code, "magic is not known" in result.stderr) == (3, True)
    assert waiting(shell) == []


def test_help_and_templates_load_no_model(tmp_path):
    """The client of a model is imported when a model is asked, and not before."""
    code = (
        "import sys; from click.testing import CliRunner; from phase21.cli import phase21; "
        "assert CliRunner().invoke(phase21, ['plan', '--help']).exit_code == 0; "
        "assert 'msgspec' not in sys.modules, 'help'; "
        "assert CliRunner().invoke(phase21, ['plan', 'x', '--template', 'feature']).exit_code == 0; "
        "assert not {'pydantic_ai', 'openai', 'pydantic'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
