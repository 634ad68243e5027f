"""Waves are carried out as the trial says, and the figures that were promised are reached where the data is."""

from itertools import product
from pathlib import Path
from random import Random

import pytest

from phase21.bench.trials import makespan
from phase21.bench.trials.makespan import carried_out, measure, optimum, read, replanned, scenario_row, taken_over
from phase21.planning.makespan import Outlook

pytest.importorskip("numpy", reason="the extra `optimize` is not installed: features teach nothing")

DATA = Path(__file__).parents[3] / ".." / "shared" / "data" / "eval"


def sure(rows):
    return [[Outlook(rate=1.0, seconds=needed, failing_s=needed) for needed in row] for row in rows]


def end_of(rows, seats):
    return max(sum(row[agent] for row, seat in zip(rows, seats, strict=True) if seat == agent) for agent in range(len(rows[0])))


def scenario_files(folder, count=120):
    """A scenario in which the feature `x` says which of two agents solves a task within the cutoff; `y` is a word."""
    folder.mkdir(parents=True)
    dice = Random(4)
    xs = [dice.random() for _ in range(count)]
    (folder / "meta.json").write_text('{"cutoff_s": 100.0}')
    (folder / "fleets.json").write_text('{"portfolio8": ["one", "two"]}')
    features = [f"t{place},0,0.1,{x},{'a' if x < 0.5 else ''}" for place, x in enumerate(xs)]
    (folder / "features.csv").write_text("\n".join(["task_id,cv_fold,feature_cost_s,x,y", *features]))
    runtimes = [f"t{place},{2 + x if x < 0.5 else ''},{'' if x < 0.5 else 3 + x}" for place, x in enumerate(xs)]
    (folder / "runtimes.csv").write_text("\n".join(["task_id,one,two", *runtimes]))


def test_an_agent_works_at_one_task_at_a_time():
    """The makespan is when the last agent has ended all that it was given, in either way of sharing out."""
    rows = [[3.0, 9.0], [4.0, 4.0], [1.0, 2.0], [2.0, 1.0]]
    for way in (replanned, taken_over):
        makespan_s, seats = carried_out(rows, way(sure(rows)))
        assert makespan_s == pytest.approx(end_of(rows, seats))


def test_what_is_misjudged_is_taken_over():
    """Where a task lasts much longer than expected, others no longer wait behind it."""
    expected = [[5.0, 50.0]] + [[5.0, 9.0]] * 5
    rows = [[500.0, 500.0]] + [[5.0, 9.0]] * 5
    outlooks = [[Outlook(rate=0.9, seconds=needed, failing_s=500.0, spread=1.0) for needed in row] for row in expected]
    for way in (replanned, taken_over):
        makespan_s, seats = carried_out(rows, way(outlooks))
        assert makespan_s < 560.0
        assert seats.count(1) >= 3


def test_the_optimum_is_that_of_all_dealings(monkeypatch):
    """Searched to its end the optimum is the least of all dealings; cut short it is no better, and its bound no worse."""
    dice = Random(1)
    for _ in range(8):
        rows = [[dice.uniform(1, 20) for _ in range(3)] for _ in range(7)]
        least = min(end_of(rows, seats) for seats in product(range(3), repeat=7))
        assert optimum(rows) == pytest.approx((least, least))
        with monkeypatch.context() as patch:
            patch.setattr(makespan, "CASES_MOST", 1)
            found, bound = optimum(rows)
            assert bound <= least * (1 + 1e-9)
            assert found >= least * (1 - 1e-9)


def test_a_scenario_is_read_as_its_files_say(tmp_path):
    """Seconds are those of the run or the cutoff, features numbers or words, what is empty is left out."""
    scenario_files(tmp_path / "aslib" / "s", 6)
    told = read(tmp_path / "aslib" / "s")
    assert told.agents == ["one", "two"]
    for task, seconds, solved in zip(told.tasks, told.seconds, told.solved, strict=True):
        first = task.features["x"] < 0.5
        assert solved == [first, not first]
        assert seconds[first] == 100.0
        assert ("y" in task.features) == first


def test_what_is_learned_shortens_waves(tmp_path):
    """Where features tell who is fast, waves learned from outcomes end sooner than those shared out without a forecast."""
    scenario_files(tmp_path / "aslib" / "s")
    rows = measure(tmp_path, 1)
    assert rows["s"]["ours"] < 1.4 < rows["s"]["stealing"] < rows["s"]["round robin"]
    assert rows["mean"]["ours"] == rows["s"]["ours"]
    assert measure(tmp_path / "none", 1) == {}


@pytest.mark.skipif(not (DATA / "aslib").is_dir(), reason="the evaluation data is not beside this folder")
def test_real_durations_are_learned():
    """On real durations of one scenario waves end well before those of work stealing."""
    row = scenario_row(read(DATA / "aslib" / "SAT11-HAND"), 1)
    assert 1.0 <= row["true seconds"] < 1.1
    assert row["ours"] < row["stealing"] < row["round robin"]
