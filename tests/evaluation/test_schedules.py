"""Schedules as facts: when things should happen, what came of it, how closely both agree."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some

from phase21.domain.tasks import Task
from phase21.evaluation.schedules import (
    Placed,
    Shown,
    Slot,
    WaveFacts,
    accuracy,
    actual_span_s,
    adherence,
    compared,
    expected,
    laid_out,
    learned,
    mean_known,
    span_s_of,
)

RATES = some.floats(0, 1)
AMOUNTS = some.none() | some.floats(0, 1e6)


def slot(task_id="t", success=None, **fields):
    ended = {"settled": True, "ran_by": "a"} if success is not None else {}
    return Slot(**{"task_id": task_id, "agent_id": "a", "success": success, **ended, **fields})


def wave(*slots, **fields):
    return WaveFacts(wave=1, strategy="s", agents=("a",), slots=slots, **fields)


def placed(*rows):
    return [
        Placed(Task(task_id=f"t{n}", priority=priority), agent, 0.5, seconds) for n, (agent, priority, seconds) in enumerate(rows)
    ]


def test_an_agent_with_two_lanes_works_on_two_tasks_at_a_time():
    """Each task starts on the lane that is free first, the urgent before the others, ties as they came."""
    slots = laid_out(placed(("a", 2, 5.0), ("a", 1, 2.0), ("a", 2, 1.0), ("b", 2, 4.0)), {"a": 2})
    assert [(one.starts_s, one.ends_s) for one in slots] == [(0.0, 5.0), (0.0, 2.0), (2.0, 3.0), (0.0, 4.0)]
    assert [one.task_id for one in slots] == ["t0", "t1", "t2", "t3"]


@given(some.lists(some.tuples(some.sampled_from("abc"), some.integers(1, 3), some.floats(0, 100)), max_size=20))
def test_no_agent_does_two_things_at_once(rows):
    """On one lane nothing overlaps, nothing waits without need, and a less urgent task never goes before a more urgent one."""
    slots = laid_out(placed(*rows))
    for agent_id in "abc":
        own = sorted((one for one in slots if one.agent_id == agent_id), key=lambda one: (one.starts_s, one.ends_s))
        clock_s = 0.0
        for one in own:
            assert one.starts_s == clock_s
            clock_s = one.ends_s
    assert span_s_of(slots) == (max(one.ends_s for one in slots) if slots else None)


def test_planned_figures_are_over_the_tasks_whose_outcome_is_known():
    """A plan is held against outcomes over the same tasks; what it foretold as a whole counts where all or none are known."""
    known, unknown = slot("t", success=True, predicted=0.6, planned_delta=0.1, actual_delta=0.2), slot("u", predicted=0.2)
    made = compared(wave(known, unknown, expected_success=0.9))
    assert (made.planned_success_rate, made.actual_success_rate, made.compared_tasks) == (0.6, 1.0, 1)
    assert compared(wave(known, expected_success=0.9)).planned_success_rate == 0.9
    assert compared(wave(unknown, expected_success=0.9)).planned_success_rate == 0.9
    assert compared(wave(known, unknown)).planned_confidence_delta == 0.1
    assert made.actual_confidence_delta == 0.2


def test_nothing_known_compares_to_nothing():
    """Of an empty wave, and of one without times and predictions, everything is None but the counts."""
    for facts in (wave(), wave(slot())):
        made = compared(facts)
        figures = {name: getattr(made, name) for name in made.__struct_fields__ if name not in {"wave", "strategy", "tasks"}}
        assert figures.pop("compared_tasks") == 0
        assert set(figures.values()) == {None}
        assert adherence(facts) is None
        assert actual_span_s(facts.slots) is None


def test_what_a_plan_foretells_does_not_know_what_came_of_it():
    """The expected figures are the same before and after outcomes are known."""
    bare = slot(predicted=0.6, starts_s=0.0, ends_s=2.0, planned_delta=0.1)
    done = msgspec.structs.replace(bare, success=False, settled=True, ran_by="a", started_s=0.0, ended_s=9.0, actual_delta=0.3)
    assert expected(wave(done)) == expected(wave(bare)) == compared(wave(bare))


def test_accuracy_is_the_mean_of_what_is_known_on_both_sides():
    """Each part counts by itself; a planned amount of 0 says nothing about a ratio, and none falls below 0."""
    assert accuracy((0.9, 0.5), (10.0, 5.0), (0.1, 0.2)) == pytest.approx((0.6 + 0.5 + 0.0) / 3)
    assert accuracy((0.9, None), (10.0, 30.0), (0.0, 0.2)) == 0.0
    assert accuracy((None, 0.5), (None, 5.0), (0.1, None)) is None


@given(some.tuples(some.none() | RATES, some.none() | RATES), some.tuples(AMOUNTS, AMOUNTS), some.tuples(AMOUNTS, AMOUNTS))
def test_accuracy_lies_between_0_and_1(success, throughput, delta):
    """Whatever was planned and came about; a plan that came about exactly is accurate."""
    found = accuracy(success, throughput, delta)
    assert found is None or 0.0 <= found <= 1.0
    assert accuracy((success[0], success[0]), (throughput[0], throughput[0]), (None, None)) in {None, 1.0}


@given(some.lists(some.tuples(some.floats(0, 50), some.floats(0, 50), some.floats(0, 50), some.floats(0, 50)), min_size=1))
def test_adherence_lies_between_0_and_1(times):
    """Whatever the times; a schedule that was kept to the second is adhered to."""
    slots = [slot(f"t{n}", success=True, starts_s=a, ends_s=b, started_s=c, ended_s=d) for n, (a, b, c, d) in enumerate(times)]
    assert 0.0 <= adherence(wave(*slots)) <= 1.0
    assert adherence(wave(*(msgspec.structs.replace(one, started_s=one.starts_s, ended_s=one.ends_s) for one in slots))) == 1.0


@pytest.mark.parametrize("missing", ["starts_s", "ends_s", "started_s", "ended_s"])
def test_the_right_agent_at_an_unknown_time_kept_to_the_plan(missing):
    """Where a time is not known the agent alone decides."""
    times = {"starts_s": 0.0, "ends_s": 2.0, "started_s": 5.0, "ended_s": 9.0}
    late = slot("late", success=True, **times)
    assert adherence(wave(late)) == 0.0
    assert adherence(wave(slot("t", success=True, **times | {missing: None}), msgspec.structs.replace(late, ran_by="b"))) == 0.5


def test_confidence_moves_by_outcomes_alone():
    """A task without an outcome, or without a prediction, moves no confidence; what is known of the agent grows by outcomes."""
    facts, since = learned(wave(slot("t"), slot("u", success=True)), {"b": Shown(3, 1)})
    assert (facts.confidence_before, facts.confidence_after) == (None, None)
    assert since == {"a": Shown(1, 1), "b": Shown(3, 1)}
    orphan, since = learned(wave(slot("t", success=True, predicted=0.5, ran_by=None)), {})
    assert since == {"a": Shown(1, 1)}
    assert (orphan.confidence_before, orphan.confidence_after) == (0.5, pytest.approx(11 / 21))


@given(some.lists(some.none() | RATES))
def test_a_mean_is_of_what_is_known(values):
    """It lies among the known values, and there is none where nothing is known."""
    known = [value for value in values if value is not None]
    found = mean_known(values)
    assert (found is None) == (not known)
    assert found is None or min(known) - 1e-9 <= found <= max(known) + 1e-9
