"""The verb `simulate`, as a user calls it."""

from __future__ import annotations

import re

import pytest

from phase21.cli import screen
from phase21.evaluation.offpolicy import Comparison
from phase21.readers.inquiries import whatif
from phase21.store import codec

SCRIPT = "case $PHASE21_AGENT_ID in agent_0) test {n} != 0;; *) test {n} -gt 2;; esac"
"""Of the tasks numbered 0 to 4 agent_0 does all but one, the others two."""


def command(wave, n):
    argv = ["sh", "-c", SCRIPT.format(n=n % 5)]
    return {"task_id": f"w{wave}-{n}", "kind": "command", "payload": {"argv": argv}, "max_attempts": 1}


@pytest.fixture
def ran(shell):
    """A shell in which a run of real commands has ended: ten waves of twelve, dealt with much exploration."""
    waves = [{"run_id": "lab", "wave": wave, "tasks": [command(wave, n) for n in range(12)]} for wave in range(1, 11)]
    assert shell("submit", shell.file("waves.jsonl", *waves)).exit_code == 0
    config = shell.folder / "config.toml"
    config.write_text('[learning]\nexploration = 0.5\n[manager]\nstrategy = "maximize_success"\n[agents]\ncount = 2\n')
    with shell.process("serve", "--once", "--config", str(config), stdout=-3, stderr=-3) as process:
        assert process.wait(90) == 1
    shell.config = ("--config", str(config))
    return shell


def asked(shell, *args):
    result = shell("simulate", "--json", *args)
    assert result.exit_code == 0, result.stderr
    return codec.decode(result.stdout)


def test_a_run_of_real_commands(ran):
    """The strategy that dealt it deals it alike again; another one is held against it by the model and by real outcomes."""
    same = asked(ran, "lab", "--strategy", "maximize_success", *ran.config)
    assert (same["tasks"], same["waves"], same["runs"], same["against"]) == (120, 10, ["lab"], None)
    assert (same["replay"]["verdict"], same["replay"]["moved"]) == ("the same", 0)
    assert same["off_policy"]["left_to_chance"] > 20
    other = asked(ran, "lab", "--strategy", "round_robin", *ran.config)
    assert other["replay"]["moved"] > 20
    assert other["actual"] == same["actual"]
    assert other["dealt_by"] == {"maximize_success": 120}


def test_every_field_is_described(ran):
    """The reference names each field of the JSON."""
    from pathlib import Path

    text = (Path(__file__).parents[2] / "docs" / "reference.md").read_text(encoding="utf-8")
    section = text.partition("### `simulate`")[2].partition("\n### ")[0]
    shapes = (whatif.WhatIf, whatif.Replayed, whatif.Expected, whatif.Actual, whatif.Offpolicy, whatif.Power, Comparison)
    fields = [*(name for shape in shapes for name in shape.__struct_fields__), *whatif.LEFT_OUT]
    assert [name for name in fields if f"`{name}`" not in section] == []
    told = asked(ran, "--strategy", "round_robin", "--against", "thompson")
    assert tuple(told) == whatif.WhatIf.__struct_fields__
    assert set(told["left_out"]) == set(whatif.LEFT_OUT)


def test_what_a_person_sees(ran):
    """Two tables' worth in sentences: what the model expects, what really came, what real outcomes say, and what a trial would take."""
    shown = ran("simulate", "lab", "--strategy", "round_robin", *ran.config).stdout
    assert shown.startswith("run lab: 120 tasks in 10 waves, dealt by maximize_success; round_robin gives ")
    for words in (
        "WHAT A MODEL EXPECTS",
        "as it was dealt",
        "what really came",
        "95 % interval",
        "a model's opinion",
        "left to chance",
    ):
        assert words in shown
    assert re.search(r"(Worse|Inconclusive|Better): the model", shown)
    assert re.search(r"about [\d,]+ tasks with each strategy", shown)
    assert max(len(line.rstrip()) for line in shown.splitlines()) <= 130
    both = ran("simulate", "--strategy", "round_robin", "--against", "maximize_success", *ran.config).stdout
    assert both.startswith("all runs: ")
    assert both.count("beside what was done") == 2


def test_where_nothing_was_left_to_chance(shell):
    """A run that a strategy without chance dealt is told to say nothing, and what would change that."""
    rows = [{"task_id": f"t{n}", "predictions": {"agent_0": 0.9, "agent_1": 0.8}, "payload": {"success_rate": 1}} for n in range(8)]
    assert shell("run", shell.predictions("plain", *rows), "--agents", "2").exit_code == 0
    shown = shell("simulate", "--strategy", "maximize_success").stdout
    assert "not estimable" in shown
    assert "`learning.exploration` with maximize_success" in shown
    same = shell("simulate", "--strategy", "load_balanced").stdout
    assert "The same: both deal every task alike" in same
    assert "no difference that a trial could find" in same


def test_the_same_answer_each_time(ran):
    """All that is drawn is seeded, and --seed draws otherwise."""
    first, again = (ran("simulate", "--strategy", "thompson", "--json", "--seed", "3").stdout for _ in range(2))
    assert first == again
    assert asked(ran, "--strategy", "thompson", "--seed", "3")["seed"] == 3


@pytest.mark.parametrize(
    ("args", "status", "named"),
    [
        (("--strategy", "nobody"), 2, "known: round_robin"),
        (("--strategy", "thompson", "--against", "nobody"), 2, "--against"),
        (("nobody", "--strategy", "thompson"), 3, "run nobody"),
        ((), 2, "--strategy"),
    ],
)
def test_what_is_not_known_is_refused(shell, args, status, named):
    """A strategy or a run that there is not is one line, with the status of its kind."""
    result = shell("simulate", *args)
    assert (result.exit_code, result.stdout) == (status, "")
    assert result.stderr.count("\n") == 1
    assert named in result.stderr


def test_where_nothing_has_ended(shell):
    """Without an outcome it is said that there is none, and nothing is made."""
    result = shell("simulate", "--strategy", "thompson")
    assert result.exit_code == 0
    assert "nothing to simulate yet" in result.stdout
    assert asked(shell, "--strategy", "thompson")["replay"] is None
    assert not shell.state.exists()


def test_a_bar_on_a_terminal(ran, monkeypatch):
    """On a terminal the reading of the journal is shown as it goes on."""
    seen = []

    class Bar:
        def __enter__(self):
            return lambda *figures: seen.append(figures)

        def __exit__(self, *_):
            return None

    monkeypatch.setattr(screen, "bar", lambda what: Bar())
    monkeypatch.setattr(whatif, "NOTICED_ENTRIES", 50)
    assert ran("simulate", "--strategy", "thompson").exit_code == 0
    assert seen
    assert all(ended <= total for ended, _, total in seen)
