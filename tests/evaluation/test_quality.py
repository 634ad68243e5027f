"""The figures of a run, and the score with what each term costs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phase21.domain.judgements import Grade
from phase21.domain.tasks import TaskStatus
from phase21.evaluation.quality import Work, grade_of, quality_of, standing


def work(task_id="a", **fields):
    return Work(task_id=task_id, step=fields.pop("step", task_id), **{"agent_id": "x"} | fields)


def terms(found):
    return {term.name: (term.value, term.points_lost) for term in found.terms}


def test_a_run_in_which_all_went_well_has_all_points():
    """Success, no retry, in time and no judge: 100, EXCELLENT, and quality is left out."""
    found = standing([work(estimated_s=2.0, actual_s=1.0)])
    assert (found.score, found.grade) == (100.0, Grade.EXCELLENT)
    assert terms(found) == {"success": (1.0, 0.0), "quality": (None, 0.0), "time": (1.0, 0.0), "retries": (1.0, 0.0)}


def test_the_score_is_success_times_quality_less_lateness_and_repetition():
    """100 x success x quality x (1 - 0.15 lateness - 0.15 repetition), and the terms' losses add up to what is missing."""
    late = work("a", estimated_s=5.0, actual_s=10.0, attempts=3, score=60.0)
    failed = work("b", status=TaskStatus.FAILED, attempts=1, error="no")
    found = standing([late, failed], 80.0)
    assert found.within_estimate == 0.5
    expected = 100 * 0.5 * 0.8 * (1 - 0.15 * 0.5 - 0.15 * (1 - 2 / 4))
    assert found.score == pytest.approx(expected)
    assert found.score == pytest.approx(100.0 - sum(term.points_lost for term in found.terms))
    assert (found.retries, found.attempts, found.error_rate) == (2, 4, 3 / 4)


def test_being_early_does_not_make_up_for_being_late():
    """Seconds saved by one task are not given to another."""
    found = standing([work("a", estimated_s=9.0, actual_s=1.0), work("b", estimated_s=1.0, actual_s=3.0)])
    assert found.within_estimate == pytest.approx(2.0 / 4.0)


def test_what_is_not_known_costs_nothing():
    """Without estimates or ends a term is None and takes no point; where nothing has ended there is no score."""
    assert standing([work(actual_s=3.0)]).within_estimate is None
    nothing = standing([work(status=TaskStatus.PENDING, attempts=0)])
    assert (nothing.score, nothing.grade, nothing.open) == (None, Grade.UNKNOWN, 1)


def test_a_task_whose_turn_never_came_counts_as_not_done():
    """Skipped after a failure and refused before any attempt count against success; a branch not taken does not."""
    starved = work("b", status=TaskStatus.SKIPPED, attempts=0, agent_id=None, reached=False)
    refused = work("c", status=TaskStatus.FAILED, attempts=0)
    branch = work("d", status=TaskStatus.SKIPPED, attempts=0)
    gone = work("e", status=TaskStatus.CANCELLED)
    found = standing([work("a"), starved, refused, branch, gone])
    assert (found.completed, found.failed, found.unreached, found.skipped, found.cancelled) == (1, 0, 2, 1, 1)
    assert found.success_rate == pytest.approx(1 / 3)


def test_quality_is_the_judges_score_or_the_mean_over_tasks():
    """The judge's own score of the run stands before the mean of its tasks' scores."""
    works = [work("a", score=50.0), work("b", score=100.0), work("c")]
    assert standing(works).quality == 75.0
    assert standing(works, 90.0).quality == 90.0


def test_each_agent_and_each_task_has_its_own_figures():
    """Agents by name, tasks in order; the run's score by the judge is not theirs."""
    works = [work("a", agent_id="y"), work("b", agent_id="x", status=TaskStatus.FAILED), work("c", agent_id=None, attempts=0)]
    found = quality_of(works, 50.0)
    assert list(found.agents) == ["x", "y"]
    assert list(found.tasks) == ["a", "b", "c"]
    assert (found.agents["y"].score, found.agents["x"].score, found.tasks["b"].score) == (100.0, 0.0, 0.0)
    assert found.agents["y"].quality is None
    assert found.whole.quality == 50.0


@pytest.mark.parametrize(
    ("score", "grade"),
    [
        (100.0, "EXCELLENT"),
        (90.0, "EXCELLENT"),
        (89.9, "GOOD"),
        (75.0, "GOOD"),
        (74.9, "FAIR"),
        (60.0, "FAIR"),
        (59.9, "POOR"),
        (0, "POOR"),
    ],
)
def test_the_word_for_a_score(score, grade):
    """EXCELLENT from 90 on, GOOD from 75, FAIR from 60, else POOR."""
    assert grade_of(score) == grade


@given(
    st.lists(
        st.builds(
            lambda status, attempts, actual, score: work(
                status=status, attempts=attempts, estimated_s=1.0, actual_s=actual, score=score
            ),
            st.sampled_from(TaskStatus),
            st.integers(0, 5),
            st.none() | st.floats(0.0, 1e6),
            st.none() | st.floats(0.0, 100.0),
        )
    )
)
def test_a_score_lies_between_0_and_100(works):
    """Whatever happened: 0 to 100 or none, and every count within the number of tasks."""
    found = standing(works)
    assert found.score is None or -1e-9 <= found.score <= 100.0 + 1e-9
    assert found.completed + found.failed + found.unreached + found.skipped + found.cancelled + found.open == len(works)
