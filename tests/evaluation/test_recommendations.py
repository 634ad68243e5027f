"""What a person is told to look at: named, with figures, most costly first, and nothing where there is nothing."""

from __future__ import annotations

from phase21.domain.tasks import TaskStatus
from phase21.evaluation.quality import Work, quality_of
from phase21.evaluation.recommendations import recommendations


def work(task_id, **fields):
    return Work(task_id=task_id, step=fields.pop("step", task_id), **{"agent_id": "x"} | fields)


def said(works, score=None, **more):
    return [one.text for one in recommendations(works, quality_of(works, score), **more)]


def failed(task_id, **fields):
    return work(task_id, status=TaskStatus.FAILED, **{"error": "exit status 2"} | fields)


def test_nothing_is_said_of_a_run_in_which_all_went_well():
    """No finding, no word."""
    assert said([work("a", estimated_s=1.5, actual_s=1.6), work("b")]) == []


def test_failures_with_one_cause_are_said_once():
    """Task, agents, attempts and the error; of many tasks the first three."""
    works = [*(failed(f"t{n}", attempts=2, agent_id=f"a{n % 2}") for n in range(5)), failed("u", error=None, agent_id=None)]
    assert said(works) == [
        "t0, t1, t2 and 2 more FAILED on a0, a1 after 10 attempts: exit status 2",
        "u FAILED after 1 attempt: no reason was given",
    ]


def test_what_never_had_its_turn_is_put_down_to_the_failure():
    """How many, which, and after what; without a failure the reason that was given."""
    starved = [work(f"s{n}", status=TaskStatus.SKIPPED, attempts=0, reached=False) for n in range(4)]
    found = recommendations([failed("a"), *starved], quality_of([failed("a"), *starved]))
    assert found[0].text == "4 of 5 tasks never had a turn (s0, s1, s2 and 1 more): after a FAILED"
    assert found[0].cost > found[1].cost
    assert (found[1].task_id, found[1].agent_id) == ("a", "x")
    assert said([failed("b", attempts=0, error="safety: no agent")]) == ["1 of 1 task never had a turn (b): safety: no agent"]
    assert said([failed("b", attempts=0, error=None)]) == ["1 of 1 task never had a turn (b): no reason was given"]


def test_an_agent_is_blamed_only_beyond_chance():
    """Six of eight against none of 24 is the agent; one of eight is nobody's fault."""
    others = [work(f"o{n}", agent_id=f"b{n % 3}") for n in range(24)]
    guilty = [*(failed(f"f{n}", agent_id="bad") for n in range(6)), work("g", agent_id="bad"), work("h", agent_id="bad")]
    blamed = [text for text in said([*others, *guilty]) if "look at the agent first" in text]
    assert len(blamed) == 1
    assert blamed[0].startswith("bad FAILED 6 of 8 tasks, the others FAILED 0 of 24 (by chance alone: 0.0%)")
    unlucky = [failed("f", agent_id="bad"), *(work(f"w{n}", agent_id="bad") for n in range(7))]
    assert not [text for text in said([*others, *unlucky]) if "look at the agent" in text]


def test_the_judge_is_quoted():
    """Tasks that it gave less than 60, the lowest first, with its reasons; else what it took off the whole and why."""
    works = [work("a", score=40.0), work("b", score=90.0), work("c", score=10.0)]
    assert said(works, 50.0, reasons=["a: no tests", "c: empty"]) == ["the judge gave c 10, a 40 of 100: a: no tests; c: empty"]
    assert said([work("a", score=20.0)]) == ["the judge gave a 20 of 100"]
    assert said([work("a")], 70.0, reasons=["no summary"]) == ["the judge took off 30 points: no summary"]
    assert said([work("a")], 70.0) == []


def test_repetition_is_named_where_it_cost_time():
    """Which task, how many attempts and how long for nothing; a tenth of all time is the least worth a word."""
    works = [work("a", attempts=3, lost_s=8.0, actual_s=2.0), work("b", attempts=2, lost_s=1.0, actual_s=9.0, agent_id=None)]
    assert said(works) == ["failed attempts took 9.0 of 20.0 s; most of it a on x, 3 attempts and 8.0 s for nothing"]
    assert said([work("b", attempts=2, lost_s=3.0, actual_s=9.0, agent_id=None)]) == [
        "failed attempts took 3.0 of 12.0 s; most of it b, 2 attempts and 3.0 s for nothing"
    ]
    assert said([work("a", attempts=2, lost_s=0.5, actual_s=9.0)]) == []


def test_a_late_step_is_named_with_the_estimate_it_should_have():
    """The mean of the tasks of the step; small delays and late tasks that matter little are not worth a word."""
    works = [work(f"b.{n}", step="build", estimated_s=2.0, actual_s=seconds) for n, seconds in enumerate((10.0, 14.0))]
    small = work("lint", estimated_s=0.1, actual_s=0.4)
    near = work("test", estimated_s=10.0, actual_s=11.0)
    assert said([*works, small, near]) == ["build took 12.0 s and 2.0 s had been estimated: set its estimated_duration_s to 12"]


def test_what_could_not_be_undone_comes_first():
    """A compensation that FAILED needs a person, whatever else there is."""
    texts = said([failed("a")], stranded=["pay.undo"])
    assert texts[0] == "pay.undo, which was to undo what had been done, FAILED: a person must undo it, and nobody else will"


def test_what_has_not_ended_is_said():
    """The figures are of the rest."""
    works = [work("a"), work("b", status=TaskStatus.DEFERRED, attempts=0)]
    assert said(works) == ["1 of 2 tasks not ended yet (b): the figures are of the others"]


def test_there_are_ten_at_most():
    """The most costly ones."""
    assert len(said([failed(f"t{n}", error=f"e{n}") for n in range(30)])) == 10
