"""Regressions: found where planted, not where there is none, and not denied where nothing could have shown one."""

from __future__ import annotations

import random

import pytest

from phase21.domain.tasks import TaskStatus
from phase21.evaluation.quality import Work
from phase21.evaluation.regressions import FIGURES, WHOLE, Ran, Verdict, compare


def run(name, *, tasks=40, failed=(), seconds=1.0, attempts=1, score=None, whole=None, seed=0):
    dice = random.Random(f"{name}{seed}")
    return Ran(
        run_id=name,
        score=whole,
        works=tuple(
            Work(
                task_id=f"t{n}",
                step=f"t{n}",
                agent_id="a",
                status=TaskStatus.FAILED if n in failed else TaskStatus.COMPLETED,
                attempts=attempts,
                actual_s=seconds * (1.0 + n / 10.0) * dice.uniform(0.98, 1.02),
                score=None if score is None else score + dice.uniform(-2.0, 2.0),
            )
            for n in range(tasks)
        ),
    )


def changes(compared):
    return {change.name: change for change in compared.changes}


BEFORE = [run(f"r{n}", failed={n, n + 5, n + 10}, score=85.0, whole=85.0) for n in range(5)]


def test_equal_runs_are_no_regression():
    """The same figures within chance: none, each figure with what it would have shown."""
    found = compare(run("now", failed={3, 8, 13}, score=85.0, whole=85.0), BEFORE)
    assert found.verdict is Verdict.NONE, found
    assert set(changes(found)) == {figure.name for figure in FIGURES}
    for change in found.changes:
        assert change.low <= change.worse <= change.high
        assert change.detectable is not None
        assert change.detectable <= 0.30
    assert found.runs == ("r0", "r1", "r2", "r3", "r4")


@pytest.mark.parametrize(
    ("name", "worse"),
    [
        ("success rate", {"failed": set(range(0, 40, 3))}),
        ("seconds per step", {"seconds": 1.6}),
        ("attempts per task", {"attempts": 2}),
        ("score per task", {"score": 60.0}),
        ("judge's score", {"whole": 50.0}),
    ],
)
def test_a_planted_regression_is_found_where_it_was_planted(name, worse):
    """A third worse in one figure over 40 tasks: that one is called a regression, and the others are not."""
    usual = {"failed": {3, 8, 13}, "score": 85.0, "whole": 85.0}
    found = compare(run("now", **usual | worse), BEFORE)
    assert found.verdict is Verdict.REGRESSION
    assert [change.name for change in found.changes if change.verdict is Verdict.REGRESSION] == [name]
    assert changes(found)[name].worse > 0.10
    assert changes(found)[name].corrected <= 0.05


def test_what_is_tolerated_is_no_regression():
    """Beyond chance, but within the tolerance."""
    slower = run("now", seconds=1.5, failed={3, 8, 13})
    assert changes(compare(slower, BEFORE))["seconds per step"].verdict is Verdict.REGRESSION
    assert changes(compare(slower, BEFORE, tolerance=0.9))["seconds per step"].verdict is not Verdict.REGRESSION


def test_milliseconds_are_no_regression():
    """A step that takes 60 ms instead of 30 is as good as before, however sure that is; one that takes 6 s instead of 3 is not."""
    short = [run(f"r{n}", seconds=0.01) for n in range(5)]
    assert changes(compare(run("now", seconds=0.02), short))["seconds per step"].verdict is Verdict.NONE
    long = [run(f"r{n}") for n in range(5)]
    assert changes(compare(run("now", seconds=2.0), long))["seconds per step"].verdict is Verdict.REGRESSION


def test_too_little_data_is_inconclusive():
    """Two tasks against one run show nothing: inconclusive, never none."""
    found = compare(run("now", tasks=2, failed={0}), [run("r0", tasks=2)])
    assert found.verdict is Verdict.INCONCLUSIVE
    assert changes(found)["success rate"].worse == pytest.approx(0.5)
    assert changes(found)["success rate"].verdict is Verdict.INCONCLUSIVE


def test_without_earlier_runs_it_is_inconclusive():
    """Nothing to compare: no figure, inconclusive."""
    found = compare(run("now"), [])
    assert (found.verdict, found.changes, found.unmatched) == (Verdict.INCONCLUSIVE, (), ())


def test_new_steps_are_named_and_left_out():
    """Only steps that both have are compared."""
    found = compare(run("now", tasks=42, failed={40, 41}), BEFORE)
    assert found.unmatched == ("t40", "t41")
    assert changes(found)["success rate"].now == 1.0


def test_runs_that_differ_among_themselves_explain_a_difference():
    """Earlier runs that took from 0.6 to 1.6 times the mean: half as long again is no news, which it is among even ones."""
    even = [run(f"r{n}") for n in range(5)]
    uneven = [run(f"r{n}", seconds=factor) for n, factor in enumerate((0.6, 0.8, 1.0, 1.3, 1.6))]
    now = run("now", seconds=1.6)
    assert changes(compare(now, even))["seconds per step"].verdict is Verdict.REGRESSION
    assert changes(compare(now, uneven))["seconds per step"].verdict is Verdict.INCONCLUSIVE


def test_a_judge_that_knows_only_yes_and_no_needs_many_runs():
    """100, 100, 100 and now 0 may be chance: with three runs that is one case of four."""
    before = [run(f"r{n}", whole=100.0) for n in range(3)]
    found = changes(compare(run("now", whole=0.0), before))["judge's score"]
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.chance == pytest.approx(0.25, abs=0.05)


def test_a_figure_that_was_nothing_cannot_get_worse():
    """Where no task ever succeeded its success rate is not compared."""
    hopeless = set(range(40))
    found = compare(run("now", failed=hopeless), [run("r0", failed=hopeless)])
    assert "success rate" not in changes(found)
    assert "seconds per step" not in changes(found)


def test_a_task_that_was_never_started_says_nothing():
    """One failure that keeps 39 others from their turn counts as one."""
    stopped = run("now", failed={0})
    works = (
        stopped.works[0],
        *(Work(task_id=w.task_id, step=w.step, status=TaskStatus.SKIPPED, attempts=0) for w in stopped.works[1:]),
    )
    found = changes(compare(Ran(run_id="now", works=works), BEFORE))["success rate"]
    assert (found.values, found.verdict) == (1, Verdict.INCONCLUSIVE)


def test_a_run_that_shares_no_step_with_the_others_is_passed_over():
    """It says nothing of how runs differ, and breaks nothing."""
    stranger = Ran(run_id="s", works=(Work(task_id="z", step="z", status=TaskStatus.COMPLETED, actual_s=1.0),))
    found = changes(compare(run("now"), [*BEFORE, stranger]))
    assert found["seconds per step"].steps == 40


def test_the_same_runs_have_the_same_answer():
    """Seeded: called again, equal in every figure."""
    now = run("now", failed={1, 2, 3, 4, 5, 6})
    assert compare(now, BEFORE, seed=7) == compare(now, BEFORE, seed=7)


def test_a_bootstrap_that_drew_nothing_of_before_is_passed_over():
    """Steps whose earlier value is nothing leave the interval to the others."""
    before = Ran(run_id="r", works=tuple(Work(task_id=f"t{n}", step=f"t{n}", score=100.0 * (n == 0)) for n in range(2)))
    found = changes(compare(Ran(run_id="now", works=before.works), [before]))["score per task"]
    assert found.low <= 0.0 <= found.high


def test_whole_runs_stand_apart_from_steps():
    """No step may be taken for the run's own score."""
    assert " " in WHOLE
