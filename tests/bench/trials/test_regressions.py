"""The study of regressions, in a size for tests: rarely a false alarm, mostly found where planted."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from phase21.bench.trials import regressions
from phase21.bench.trials.regressions import Planted, World, main, study


@pytest.mark.parametrize("world", [World(runs=1), World(), World(tasks=10), World(busy=0.2)])
def test_equal_runs_are_called_equal(world):
    """No regression in more than 95 of 100 equal runs."""
    found = study(world, pairs=100, seed=1)
    assert found.regressions < 5, found


def test_a_third_less_success_is_found():
    """Over 40 tasks against five runs, in most cases, and where it is."""
    found = study(World(), Planted(success=0.3), pairs=40, seed=2)
    assert found.regressions > 30, found
    assert found.by_figure["success rate"] > 30


def test_what_the_data_cannot_show_is_inconclusive():
    """With ten tasks and one run most figures are, planted or not."""
    found = study(World(tasks=10, runs=1), pairs=20, seed=3)
    assert found.inconclusive > 40


def test_the_table_is_printed(monkeypatch):
    """A line a world."""
    monkeypatch.setattr(regressions, "WORLDS", (World(tasks=5),))
    result = CliRunner().invoke(main, ["--pairs", "2"])
    assert result.exit_code == 0
    assert result.stdout.count("\n") == 3
