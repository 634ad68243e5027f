"""The verb `calibration`, as a user calls it."""

from __future__ import annotations

import re

import pytest
from click.testing import CliRunner

from phase21.cli import phase21
from phase21.store import codec


def predicted(name, waves=1, tasks=20):
    """Rows that promise 0.95 and of which every fourth fails."""
    return [
        {
            "task_id": f"{name}{wave}-{n}",
            "wave": wave,
            "predicted_success_rate": 0.95,
            "max_attempts": 1,
            "payload": {"success_rate": float(n % 4 > 0)},
        }
        for wave in range(1, waves + 1)
        for n in range(tasks)
    ]


@pytest.fixture
def ran(shell):
    """A shell in which two runs have ended: two waves of twenty, and one of ten."""
    assert shell("run", shell.predictions("first", *predicted("a", 2)), "--agents", "2").exit_code == 1
    assert shell("run", shell.predictions("second", *predicted("b", 1, 10)), "--agents", "2").exit_code == 1
    return shell


def asked(shell, *args):
    result = shell("calibration", "--json", *args)
    assert result.exit_code == 0, result.stderr
    return codec.decode(result.stdout)


def test_a_run_is_held_against_its_predictions(ran):
    """Each forecast has its figures with intervals, its reliability table, and the difference to ours."""
    told = asked(ran, "first")
    assert (told["run_id"], told["tasks"], told["completed"]) == ("first", 40, 30)
    assert (told["bins"], told["binning"]) == (10, "equal width")
    assert list(told["forecasts"]) == ["predicted", "incoming", "base_rate", "agent_rate"]
    incoming = told["forecasts"]["incoming"]
    assert incoming["brier"]["value"] == pytest.approx((3 * 0.05**2 + 0.95**2) / 4)
    assert incoming["ece"]["value"] == pytest.approx(0.2)
    assert incoming["ece"]["low"] > 0.0
    assert [(one["low"], one["samples"], one["observed"]) for one in incoming["reliability"]] == [(0.9, 40, 0.75)]
    for figures in told["forecasts"].values():
        for name in ("brier", "log_loss", "ece"):
            assert figures[name]["low"] <= figures[name]["value"] <= figures[name]["high"]
    assert set(told["brier_difference"]) == {"incoming", "base_rate", "agent_rate"}
    assert told["brier_difference"]["incoming"]["value"] == pytest.approx(
        told["forecasts"]["predicted"]["brier"]["value"] - incoming["brier"]["value"]
    )


def test_baselines_know_only_what_came_before(ran):
    """In a first wave the running rates are one half; a later run begins from what earlier ones showed."""
    waves = asked(ran, "first", "--by", "wave")["groups"]
    assert list(waves) == ["1", "2"]
    assert waves["1"]["forecasts"]["base_rate"]["predicted"] == 0.5
    assert waves["1"]["forecasts"]["agent_rate"]["predicted"] == 0.5
    assert asked(ran, "second")["forecasts"]["base_rate"]["predicted"] == pytest.approx(31 / 42)


def test_over_all_runs(ran):
    """Without RUN every run counts, and waves bear their run's name."""
    told = asked(ran, "--by", "wave")
    assert (told["run_id"], told["tasks"]) == (None, 50)
    assert {name: figures["tasks"] for name, figures in told["groups"].items()} == {"first 1": 20, "first 2": 20, "second 1": 10}


@pytest.mark.parametrize(("by", "names"), [("agent", {"agent_0", "agent_1"}), ("kind", {"simulate"})])
def test_by_agent_and_kind(ran, by, names):
    """Groups share out the tasks, each with figures of its own."""
    told = asked(ran, "first", "--by", by)
    assert told["by"] == by
    assert set(told["groups"]) == names
    assert sum(figures["tasks"] for figures in told["groups"].values()) == 40


def test_what_a_person_sees(ran):
    """Figures, sentences, a table and a plot fit a terminal of 80 columns; groups come when they are asked for."""
    shown = ran("calibration", "first").stdout
    assert shown.startswith("run first: 40 tasks started and ended, 30 COMPLETED (75.0%); predicted ")
    for words in ("our prediction", "incoming", "base rate", "agent's rate", "BRIER", "LOG LOSS", "ECE", "CAME ABOUT", "●"):
        assert words in shown
    assert "fewer than" not in shown
    assert max(len(line.rstrip()) for line in shown.splitlines()[:-4]) <= 80
    assert re.search(r"^(better|worse|inconclusive) .* rate: Brier [+-]0", shown, re.MULTILINE)
    grouped = ran("calibration", "first", "--by", "agent").stdout
    assert "agent_1" not in shown
    assert "agent_1" in grouped


def test_few_tasks_are_said_to_be_few(ran):
    """With fewer than thirty tasks the reader is warned of the intervals."""
    assert "fewer than 30 tasks" in ran("calibration", "second").stdout


def test_the_same_answer_each_time(ran):
    """The resamples are seeded."""
    assert ran("calibration", "--json").stdout == ran("calibration", "--json").stdout


def test_an_unknown_run_is_refused(ran):
    """A run that was never accepted is one line and status 3."""
    result = ran("calibration", "nobody")
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr.count("\n") == 1
    assert "nobody" in result.stderr


def test_where_nothing_has_ended(shell):
    """Without an outcome it is said that there is none, and nothing is made."""
    result = shell("calibration")
    assert result.exit_code == 0
    assert "no task was started" in result.stdout
    assert asked(shell) | {"forecasts": {}} == {
        "run_id": None,
        "bins": 10,
        "binning": "equal width",
        "interval": 0.95,
        "tasks": 0,
        "completed": 0,
        "forecasts": {},
        "brier_difference": {},
    }
    assert not shell.state.exists()


def test_without_numpy(ran, monkeypatch):
    """Without the extra the same figures come with fewer resamples, and that is said."""
    import sys

    monkeypatch.setitem(sys.modules, "numpy", None)
    result = CliRunner().invoke(phase21, ran.arguments("calibration", "first"))
    assert result.exit_code == 0, result.stderr
    assert "by 200 bootstrap resamples" in result.stdout


def test_a_prediction_that_is_the_incoming_one(shell):
    """Where nothing was learned yet our prediction is the incoming one, and that is said."""
    assert shell("run", shell.predictions("new", *predicted("n"))).exit_code == 1
    shown = shell("calibration", "new").stdout
    assert "the same as the incoming one" in shown
    assert "worse than the running base rate" in shown or "inconclusive against the running base rate" in shown
