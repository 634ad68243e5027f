"""Dealing by sums of values: as many seats as can be had, the best sum of them, and a bound that proves it."""

from __future__ import annotations

import sys
from itertools import product
from math import inf, isclose, nan
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phase21.planning import assignment, pricing
from phase21.planning.assignment import Assigned, assign

CLOSE = 1e-9


@pytest.fixture(params=["lists", "arrays"])
def route(request, monkeypatch):
    """Each way of reckoning in turn; the one over arrays only where numpy is installed."""
    if request.param == "arrays":
        pytest.importorskip("numpy", reason="the extra `optimize` is not installed")
    monkeypatch.setattr(assignment, "ARRAYS_PAY", 0 if request.param == "arrays" else sys.maxsize)
    return request.param


def by_all_dealings(values, capacities):
    """The number of seats and the sum that looking at every dealing finds."""
    best = (0, 0.0)
    for seats in product([None, *range(len(capacities))], repeat=len(values)):
        taken = [(row, seat) for row, seat in zip(values, seats, strict=True) if seat is not None]
        fits = all(seats.count(agent) <= capacity for agent, capacity in enumerate(capacities))
        if fits and all(row[seat] not in (None, -inf) for row, seat in taken):
            best = max(best, (len(taken), sum(row[seat] for row, seat in taken)))
    return best


def checked(values, capacities):
    """The answer, after a look at everything that must hold of any answer."""
    given_out = assign(values, capacities)
    seats = given_out.seats
    assert len(seats) == len(values)
    assert all(seats.count(agent) <= capacity for agent, capacity in enumerate(capacities))
    assert all(values[task][seat] not in (None, -inf) for task, seat in enumerate(seats) if seat is not None)
    total = sum(values[task][seat] for task, seat in enumerate(seats) if seat is not None)
    assert isclose(given_out.value, total, rel_tol=CLOSE, abs_tol=CLOSE)
    assert given_out.bound >= given_out.value
    return given_out


def seated(given_out):
    return sum(seat is not None for seat in given_out.seats)


def fleet(dice, kind, tasks, agents):
    """Rows of the kinds that a planner meets."""
    skill = [dice.gauss(0, 1) for _ in range(agents)]
    rows = []
    for task in range(tasks):
        ease = dice.gauss(0, 1)
        rows.append(
            {
                "random": lambda: [dice.random() for _ in range(agents)],
                "near equal": lambda: [0.8 + dice.random() / 1000 for _ in range(agents)],
                "one best": lambda: [dice.random() / 10 + (0.8 if agent == agents // 2 else 0.5) for agent in range(agents)],
                "difficulty": lambda ease=ease: [ease * place + ease for place in skill],
                "kinds": lambda task=task: [((task % 3 + 1) * (agent + 2)) % 7 / 7 for agent in range(agents)],
                "constant": lambda: [0.85] * agents,
                "forbidden": lambda: [dice.random() if dice.random() < 0.6 else None for _ in range(agents)],
                "capable": lambda task=task: [dice.random() if (task + agent) % 4 == 0 else None for agent in range(agents)],
            }[kind]()
        )
    return rows


KINDS = ["random", "near equal", "one best", "difficulty", "kinds", "constant", "forbidden", "capable"]
NUMBERS = st.none() | st.floats(-5, 5) | st.sampled_from([-inf, 0.0, 0.5, 1.0])


@st.composite
def problems(draw):
    agents = draw(st.integers(1, 3))
    rows = draw(st.lists(st.lists(NUMBERS, min_size=agents, max_size=agents), max_size=5))
    return rows, draw(st.lists(st.integers(0, 4), min_size=agents, max_size=agents))


def _found_by_looking(problem):
    given_out = checked(*problem)
    count, total = by_all_dealings(*problem)
    assert seated(given_out) == count
    assert isclose(given_out.value, total, abs_tol=CLOSE)
    assert isclose(given_out.bound, total, abs_tol=CLOSE)


@given(problems())
def test_the_best_of_all_dealings_is_found(problem):
    """As many seats and as high a sum as looking at every dealing finds, and a bound that says so."""
    _found_by_looking(problem)


@given(problems())
def test_the_best_of_all_dealings_is_found_over_arrays(problem):
    """The same over arrays."""
    pytest.importorskip("numpy", reason="the extra `optimize` is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assignment, "ARRAYS_PAY", 0)
        _found_by_looking(problem)


def _markets(rows, rooms, prices):
    """Every kind of market that there is here, on the same question."""
    yield pricing.ListMarket(rows, rooms, prices, len(rooms))
    if (numpy := assignment._numpy()) is not None:
        yield pricing.ArrayMarket(numpy, numpy.array(rows), rooms, prices, len(rooms))


@given(
    st.lists(st.lists(st.floats(-5, 5), min_size=3, max_size=3), min_size=1, max_size=4),
    st.lists(st.floats(-5, 5), min_size=3, max_size=3),
)
def test_no_prices_prove_too_little(rows, prices):
    """The dual is at or above the best sum at any prices, before a single move, and meets it after the last."""
    rooms = [2, 1, 3]
    _, best = by_all_dealings(rows, rooms)
    for market in _markets(rows, rooms, prices):
        assert market.dual() >= best - CLOSE
        market.clear()
        assert isclose(market.dual(), best, abs_tol=CLOSE)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("room", [0.6, 1.0, 1.3])
def test_a_large_dealing_is_proven_the_best(route, kind, room):
    """The bound meets the value where prices come from samples, whether there is room for all, for more or for fewer."""
    rows = fleet(Random(kind), kind, 150, 7)
    given_out = checked(rows, [round(room * 150 / 7) + agent % 2 for agent in range(7)])
    assert isclose(given_out.bound, given_out.value, rel_tol=CLOSE)


@pytest.mark.parametrize("kind", KINDS)
def test_lists_and_arrays_agree(monkeypatch, kind):
    """Both ways of reckoning find the same number of seats and the same sum."""
    numpy = pytest.importorskip("numpy", reason="the extra `optimize` is not installed")
    rows, rooms = fleet(Random(3), kind, 120, 6), [25, 4, 0, 30, 18, 26]
    over_lists = checked(rows, rooms)
    monkeypatch.setattr(assignment, "ARRAYS_PAY", 0)
    over_arrays = checked(rows, rooms)
    as_array = assign(numpy.array(rows, dtype=float) if "None" not in str(rows) else rows, rooms)
    assert seated(over_lists) == seated(over_arrays)
    assert isclose(over_lists.value, over_arrays.value, rel_tol=CLOSE)
    assert as_array == over_arrays


def test_an_array_may_be_small():
    """An array below the size at which arrays pay is dealt as lists are."""
    numpy = pytest.importorskip("numpy", reason="the extra `optimize` is not installed")
    assert assign(numpy.array([[0.1, 0.9], [-inf, 0.8]]), [1, 1]).seats == [0, 1]


def test_a_task_that_can_be_seated_is_seated(route):
    """The number of seats comes before the sum: a task makes way for a worse sum when it alone has another place to go."""
    assert checked([[9.0, -50.0], [1.0, None]], [1, 1]).seats == [1, 0]


def test_the_worst_task_stands_where_there_are_too_many(route):
    """Who cannot be seated is whoever adds the least, also among those who may go to one agent only."""
    assert checked([[0.2], [0.9], [0.5]], [2]).seats == [None, 0, 0]
    rows = [[0.2, None], [0.9, None], [0.5, None], [0.1, 0.1]]
    assert checked(rows, [1, 2]).seats == [None, 0, None, 1]


def test_many_who_may_go_nowhere_else_are_left_over_exactly(route):
    """Cardinality is as high as the permitted pairs allow when a crowd may have one agent only and room is left elsewhere."""
    dice = Random(8)
    rows = [[dice.random(), None, None] for _ in range(60)] + [[dice.random() for _ in range(3)] for _ in range(20)]
    given_out = checked(rows, [10, 15, 15])
    assert seated(given_out) == 30
    assert isclose(given_out.bound, given_out.value, rel_tol=CLOSE)


def test_ties_go_by_agent_then_by_task(route):
    """Among dealings of one worth the first agent takes the first tasks, and takes all where it has room."""
    assert checked([[0.5, 0.5]] * 4, [2, 2]).seats == [0, 0, 1, 1]
    assert checked([[0.5, 0.5]] * 4, [9, 9]).seats == [0, 0, 0, 0]


def test_the_same_question_has_the_same_answer(route):
    """A dealing is a function of what is asked."""
    rows = fleet(Random(5), "kinds", 90, 5)
    assert assign(rows, [20] * 5) == assign([list(row) for row in rows], [20] * 5)


def test_boundless_room_gives_everyone_their_best(route):
    """A capacity may be as large as a number can be."""
    assert checked([[1.0, 3.0, 2.0], [-1.0, None, -2.0]], [sys.maxsize] * 3).seats == [1, 0]


@pytest.mark.parametrize("values", [[], [[None, None]], [[0.5, -inf], [0.1, None]]])
def test_nobody_is_seated_where_nobody_can_be(route, values):
    """No tasks, no permitted pair, no room: no seat, and a sum of nothing."""
    assert assign(values, [0, 2]) == Assigned(seats=[None] * len(values), value=0.0, bound=0.0)


@pytest.mark.parametrize("values", [[[0.5, nan]], [[0.5, inf]], [[0.5]], [[0.5, 0.5], [0.5, 0.5, 0.5]], [[inf, -inf]]])
def test_values_that_mean_nothing_are_refused(route, values):
    """NaN, +inf and rows of another length are errors, not forbidden pairs."""
    with pytest.raises(ValueError, match="value"):
        assign(values, [1, 1])


def test_a_capacity_below_nothing_is_refused(route):
    """A capacity is a number of seats."""
    with pytest.raises(ValueError, match="below 0"):
        assign([[0.5]], [-1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rooms", [[25] * 6, [10, 3, 0, 20, 5, 40]])
def test_spent_effort_costs_worth_but_no_seat(route, kind, rooms, monkeypatch):
    """Where effort runs out the dealing keeps every rule and seats as many; the bound still holds over the best sum."""
    rows = fleet(Random(kind), kind, 120, 6)
    best = checked(rows, rooms)
    monkeypatch.setattr(pricing, "EFFORT", -1_000_000)
    rough = checked(rows, rooms)
    assert seated(rough) == seated(best)
    assert rough.bound >= best.value * (1 - CLOSE)
    assert rough.value <= best.value * (1 + CLOSE) + CLOSE


def test_without_numpy_lists_do(monkeypatch):
    """Where the extra is not installed a question of any size is answered."""
    monkeypatch.setattr(assignment, "ARRAYS_PAY", 0)
    monkeypatch.setitem(sys.modules, "numpy", None)
    given_out = checked(fleet(Random(2), "random", 40, 4), [10] * 4)
    assert isclose(given_out.bound, given_out.value, rel_tol=CLOSE)
