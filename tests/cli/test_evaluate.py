"""The verb `evaluate`, as a user and a CI job call it."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import pytest

from phase21.cli.evaluate import _said
from phase21.evaluation.regressions import Change
from phase21.store import codec

EXAMPLES = Path(__file__).parents[2] / "examples"
JUDGE = "import json, sys; told = json.load(sys.stdin); tasks = {name: 80 for name in told['results']}; print('done'); print(json.dumps({'tasks': tasks, 'reasons': ['t1: could be shorter']}))"


def flow(run_id, failing=0, name="nightly", judge=None, tasks=20):
    """A workflow of which so many tasks fail."""
    rows = [{"task_id": f"t{n}", "payload": {"success_rate": float(n >= failing)}, "max_attempts": 1} for n in range(tasks)]
    evaluate = {"evaluate": {"judge": judge}} if judge else {}
    return {"run_id": run_id, "workflow": {"name": name, "mode": "parallel", "on_failure": "continue", "tasks": rows, **evaluate}}


@pytest.fixture
def carried_out(shell):
    """Carries submissions out, and gives the shell."""

    def done(*submissions):
        assert shell("submit", shell.file("flows.jsonl", *submissions)).exit_code == 0
        assert shell("serve", "--once").exit_code in {0, 1}
        return shell

    return done


def asked(shell, *args, status=0):
    result = shell("evaluate", "--json", *args)
    assert result.exit_code == status, result.output
    return codec.decode(result.stdout)


def test_a_regression_is_status_1_for_ci(carried_out):
    """A planted one is found against earlier runs of the same workflow, none where there is none, and other workflows do not count."""
    nights = [flow(f"night-{n}", failing=1) for n in range(5)]
    shell = carried_out(*nights, flow("other", failing=20, name="weekly"), flow("equal", failing=1), flow("worse", failing=12))
    equal = asked(shell, "equal")
    assert set(equal["comparison"]["runs"]) == {f"night-{n}" for n in range(5)}
    assert equal["regression"] is False
    worse = asked(shell, "worse", "--runs", "6", status=1)
    assert worse["regression"] is True
    assert [one["name"] for one in worse["comparison"]["changes"] if one["verdict"] == "regression"] == ["success rate"]
    assert asked(shell, "worse", "--against", "other")["regression"] is False
    assert asked(shell, "worse", "--tolerance", "0.9")["regression"] is False
    assert asked(shell, "worse", "--runs", "2", "--tolerance", "0.1", status=1)["comparison"]["runs"] == ["equal", "night-4"]
    assert asked(shell, "night-0")["comparison"] is None


def test_a_person_reads_grade_terms_and_evidence(carried_out):
    """The score with what cost it points, agents, tasks, what to look at, and the comparison in words."""
    shell = carried_out(*(flow(f"night-{n}", failing=1) for n in range(5)), flow("worse", failing=12))
    result = shell("evaluate", "worse")
    assert result.exit_code == 1
    assert "run worse, workflow nightly failed: POOR, 40.0 of 100" in result.stdout
    assert "20 tasks: 8 COMPLETED, 12 FAILED" in result.stdout
    assert "no judge: quality is left out of the score" in result.stdout
    assert "t0, t1, t2 and 9 more FAILED on" in result.stdout
    assert "against 5 earlier runs (night-0 to night-4): regression" in result.stdout
    assert "success rate: 58% worse over 20 steps, and equal runs would differ so with probability 0.0" in result.stdout
    alone = shell("evaluate", "night-0")
    assert "nothing to compare with (--against names runs)" in alone.stdout


def test_a_command_judges(carried_out):
    """It finds the results on its stdin, and what it prints last is the judgement."""
    shell = carried_out(flow("r", judge={"kind": "command", "payload": {"argv": [sys.executable, "-c", JUDGE]}}))
    told = asked(shell, "r")
    assert (told["quality"]["whole"]["quality"], told["quality"]["whole"]["grade"]) == (80.0, "GOOD")
    assert told["marks"]["reasons"] == ["t1: could be shorter"]
    assert len(told["quality"]["tasks"]) == 20
    assert told["recommendations"][0]["text"] == "the judge took off 20 points: t1: could be shorter"


def test_a_schema_judges(carried_out):
    """The score is the share of results that are as they should be."""
    pytest.importorskip("jsonschema", reason="the extra `workflows` is not installed")
    schema = {"type": "object", "required": ["summary"]}
    told = asked(carried_out(flow("r", tasks=4, judge={"kind": "schema", "payload": {"schema": schema}})), "r")
    assert told["quality"]["whole"]["score"] == 0.0
    assert told["marks"]["reasons"][0].startswith("t0: ")


def test_a_model_judges(carried_out, openai_server):
    """Its reasons stand among the recommendations."""
    pytest.importorskip("pydantic_ai", reason="the extra `llm` is not installed")
    openai_server.answer({"score": 50, "tasks": {"t0": 20}, "reasons": ["t0: says nothing"]})
    payload = {"model": "openai:small", "base_url": openai_server.base_url}
    told = asked(carried_out(flow("r", tasks=4, judge={"kind": "model", "payload": payload})), "r")
    assert told["marks"]["score"] == 50.0
    assert told["recommendations"][0]["text"] == "the judge gave t0 20 of 100: t0: says nothing"


def test_a_judge_that_cannot_be_read_is_said(carried_out):
    """The score goes without it, and why stands there."""
    killed = {"kind": "command", "payload": {"argv": ["/bin/sh", "-c", "kill -9 $$"]}}
    shell = carried_out(flow("r", judge=killed))
    assert asked(shell, "r")["problem"] == "the judge was ended by signal 9"
    assert "not judged: the judge was ended by signal 9" in shell("evaluate", "r").stdout


def test_a_command_may_say_no_by_its_status(carried_out):
    """Once: to say no is no failure to repeat."""
    shell = carried_out(flow("r", judge={"kind": "command", "payload": {"argv": ["/bin/sh", "-c", "echo too few >&2; exit 3"]}}))
    told = asked(shell, "r")
    assert (told["quality"]["whole"]["score"], told["marks"]["reasons"]) == (0.0, ["too few"])


def test_plain_runs_are_compared_where_they_are_named(shell):
    """A run that is no workflow has no history of its own."""
    rows = [{"task_id": f"t{n}", "max_attempts": 1, "payload": {"success_rate": 1.0}} for n in range(60)]
    assert shell("run", shell.predictions("first", *rows)).exit_code == 0
    assert shell("run", shell.predictions("second", *rows)).exit_code == 0
    assert asked(shell, "second")["comparison"] is None
    told = asked(shell, "second", "--against", "first", "--against", "second")
    assert told["comparison"]["runs"] == ["first"]
    result = shell("evaluate", "second", "--against", "first")
    assert "the 50 tasks with the lowest scores; --json has all 60" in result.stdout
    assert "against run first" in result.stdout
    assert "nothing stands out" in result.stdout


def test_a_run_that_nobody_knows_is_status_3(shell):
    """Named in one line; so is one to compare with."""
    result = shell("evaluate", "nobody")
    assert (result.exit_code, result.stderr.count("\n")) == (3, 1)
    assert "run nobody: no such run" in result.stderr


def test_the_examples_do_what_the_how_to_says(carried_out):
    """The fifth night is like the others, the sixth is worse; the two texts are judged by their length."""
    lines = [line for name in ("evaluated", "judged") for line in (EXAMPLES / f"{name}.jsonl").read_bytes().splitlines()]
    shell = carried_out(*map(codec.decode, lines))
    assert asked(shell, "night-5")["regression"] is False
    assert asked(shell, "night-6", status=1)["regression"] is True
    judged = asked(shell, "judged")["quality"]
    assert {task_id: one["grade"] for task_id, one in judged["tasks"].items()} == {"summary": "EXCELLENT", "title": "POOR"}


def test_what_is_new_or_too_little_is_said(carried_out):
    """Steps that no earlier run had are named; three tasks show nothing, and one failure among them may be chance."""
    shell = carried_out(flow("first", tasks=3), flow("second", tasks=9, failing=1))
    result = shell("evaluate", "second")
    assert result.exit_code == 0
    assert "against run first: inconclusive" in result.stdout
    assert "success rate: 33% worse, which chance explains" in result.stdout
    assert "attempts per task: too little data over 3 steps" in result.stdout
    assert "new, and not compared: nightly/t3, nightly/t4, nightly/t5, nightly/t6, nightly/t7 and 1 more" in result.stdout


def test_a_cancelled_run_is_no_measure(carried_out):
    """Only runs that went to their end are compared with."""
    held = flow("held", tasks=3)
    held["workflow"]["tasks"][0]["risk_level"] = "HIGH"
    shell = carried_out(held)
    assert shell("cancel", "held").exit_code == 0
    carried_out(flow("next", tasks=3))
    assert asked(shell, "next")["comparison"] is None


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"worse": 0.9, "corrected": 0.01, "unit": "s", "verdict": "none"}, "90% worse, too little in seconds to count"),
        ({"verdict": "inconclusive", "detectable": None}, "too little data over 2 steps: no worsening would be found"),
        ({"verdict": "inconclusive", "detectable": 0.5}, "only from 50% worse would it show in four cases of five"),
        ({"verdict": "none"}, "not worse by more than 10% beyond chance; from 20% on it would have shown"),
    ],
)
def test_each_verdict_has_its_reason(fields, said):
    """In a sentence a person understands."""
    usual = {"name": "f", "unit": "share", "now": 1.0, "before": 1.0, "worse": 0.0, "low": -0.1, "high": 0.1, "chance": 1.0}
    usual |= {"corrected": 1.0, "detectable": 0.2, "values": 2, "steps": 2, "verdict": "none"}
    assert said in _said(msgspec.convert(usual | fields, Change), 0.1)
