"""Graphs: ranks, bounds, schedules that keep to dependencies, and orders that are found."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phase21.planning import graphs
from phase21.planning.graphs import Graph, bound_s, listed, order, ranks, seated_s, soonest


@st.composite
def worlds(draw, most=14):
    size = draw(st.integers(1, most))
    parents = [draw(st.lists(st.integers(0, task - 1), unique=True, max_size=3)) if task else [] for task in range(size)]
    seconds = draw(st.lists(st.floats(0, 100, width=32), min_size=size, max_size=size))
    return Graph(parents), seconds


lanes = st.lists(st.sampled_from([0.25, 0.5, 1.0, 2.0]), min_size=1, max_size=4)


def begins(graph, seconds, paces, ends):
    """When each task may have begun at the earliest, on the fastest lane."""
    return [end - max(paces) * needed for end, needed in zip(ends, seconds, strict=True)]


def test_a_rank_is_the_longest_way_to_the_end():
    """A diamond: the upper rank goes over the longer branch."""
    graph = Graph([[], [0], [0], [1, 2]])
    assert ranks(graph, [1.0, 5.0, 2.0, 3.0]) == [9.0, 8.0, 5.0, 3.0]
    assert ranks(graph.reversed(), [1.0, 5.0, 2.0, 3.0]) == [1.0, 6.0, 3.0, 9.0]


def test_a_circle_is_refused():
    """Tasks that wait for each other in a circle are no graph."""
    with pytest.raises(ValueError, match="circle"):
        Graph([[1], [0]])


def test_the_bound_counts_what_lies_before_and_behind():
    """A chain of 10 before and after 4 tasks of 10 on 2 lanes: 10 + 20 + 10, where path and work alone say 30."""
    graph = Graph([[], [0], [0], [0], [0], [1, 2, 3, 4]])
    assert bound_s(graph, [10.0] * 6, [1.0, 1.0]) == pytest.approx(40.0)


def test_the_bound_knows_that_two_of_too_many_share_a_lane():
    """Three tasks of 10 on two lanes take 20, where path and work alone say 15; one lane alone adds up what it has."""
    assert bound_s(Graph([[], [], []]), [10.0] * 3, [1.0, 1.0]) == pytest.approx(20.0)
    assert bound_s(Graph([[], []]), [10.0, 5.0], [1.0]) == pytest.approx(15.0)


@given(worlds(), lanes)
def test_a_schedule_keeps_to_dependencies_and_to_the_bound(world, paces):
    """No task ends before what it depends on plus its own seconds on the fastest lane, and nothing ends before the bound."""
    graph, seconds = world
    made = listed(graph, seconds, paces, [-rank for rank in ranks(graph, seconds)])
    for task, needed in enumerate(graph.parents):
        for parent in needed:
            assert made.ends[task] >= made.ends[parent] + min(paces) * seconds[task] - 1e-6
    assert made.makespan_s == pytest.approx(max(made.ends))
    assert made.makespan_s >= bound_s(graph, seconds, paces) - 1e-6


@given(worlds(), st.integers(1, 4), st.randoms(use_true_random=False))
def test_lists_keep_to_grahams_bound(world, count, dice):
    """On lanes that are alike no list is worse than 2 - 1/P times the bound, whatever its order."""
    graph, seconds = world
    keys = [dice.random() for _ in seconds]
    made = listed(graph, seconds, [1.0] * count, keys)
    longest = max(*ranks(graph, seconds), sum(seconds) / count)
    assert made.makespan_s <= (2.0 - 1.0 / count) * longest + 1e-6


@given(worlds(), lanes)
def test_the_order_found_is_never_worse_than_that_of_the_ranks(world, paces):
    """Improvement only improves, and the makespan said is that of a schedule in the order said."""
    graph, seconds = world
    found = order(graph, seconds, paces)
    made = listed(graph, seconds, paces, found.keys)
    assert made.makespan_s == pytest.approx(found.makespan_s)
    assert found.makespan_s <= listed(graph, seconds, paces, [-rank for rank in ranks(graph, seconds)]).makespan_s + 1e-9


def test_an_order_is_found_that_ranks_miss():
    """Two passes find the optimum of a graph where the longest way to the end misleads."""
    parents = [[], [], [], [], [0, 1], [2], [2, 3], [4], [5, 6]]
    seconds = [3.0, 3.0, 4.0, 2.0, 6.0, 2.0, 5.0, 4.0, 3.0]
    graph = Graph(parents)
    by_rank = listed(graph, seconds, [1.0, 1.0], [-rank for rank in ranks(graph, seconds)]).makespan_s
    assert order(graph, seconds, [1.0, 1.0]).makespan_s <= by_rank


def test_a_large_graph_is_ordered_by_its_ranks():
    """Where visits do not suffice for one start the ranks are the order, and the bound stands for the makespan."""
    graph = Graph([[], [0], [0]])
    found = order(graph, [1.0, 2.0, 3.0], [1.0], visits=10)
    assert found.keys == [-4.0, -2.0, -3.0]
    assert found.makespan_s == pytest.approx(6.0)


def test_nothing_takes_no_time():
    """A graph without tasks has an order, and it is done at once."""
    assert order(Graph([]), [], [1.0]) == ([], 0.0)


def test_a_task_waits_for_the_faster_lane():
    """A long task waits for a lane ten times as fast that is busy for a moment."""
    graph = Graph([[], []])
    made = listed(graph, [10.0, 100.0], [0.1, 1.0], [0.0, 1.0])
    assert made.makespan_s == pytest.approx(11.0)


def test_ties_go_to_the_first():
    """Of places where it ends at the same time the first is taken."""
    assert soonest([1.0, 0.0], [1.0, 2.0]) == 0
    assert soonest([1.0, 0.0], [1.0, 1.0]) == 1


def test_no_more_than_so_many_are_kept_waiting(monkeypatch):
    """Beyond `LOOKED_AT` tasks that wait for a faster lane nothing more is looked at, and all is done nonetheless."""
    monkeypatch.setattr(graphs, "LOOKED_AT", 1)
    made = listed(Graph([[], [], [], []]), [1.0] * 4, [0.01, 1.0], [0.0, 1.0, 2.0, 3.0])
    assert made.makespan_s == pytest.approx(0.04)


def test_who_waits_for_a_lane_takes_its_time():
    """What a task that waits will need of the faster lane is not promised to the next one, which begins on the slower."""
    assert listed(Graph([[], [], []]), [10.0] * 3, [0.5, 1.0], [0.0, 1.0, 2.0]).makespan_s == pytest.approx(10.0)


@given(worlds(), st.integers(1, 3), st.integers(1, 3), st.randoms(use_true_random=False))
def test_seated_tasks_take_as_long_as_their_agents_need(world, agents, hands, dice):
    """No less than the longest way and than what the busiest agent has to do, no more than all of it in a row."""
    graph, seconds = world
    seats = [dice.randrange(agents) for _ in seconds]
    busiest = max(sum(own for own, seat in zip(seconds, seats, strict=True) if seat == agent) for agent in range(agents))
    took_s = seated_s(graph, seconds, seats, [hands] * agents, [dice.random() for _ in seconds])
    assert max(*ranks(graph, seconds), busiest / hands) - 1e-6 <= took_s <= sum(seconds) + 1e-6


def test_a_seated_task_waits_for_its_own_agent():
    """Of a fork whose branches have one agent the lower key goes first; another agent, or another lane, does them side by side."""
    graph, seconds, keys = Graph([[], [0], [0], [1]]), [1.0, 2.0, 3.0, 4.0], [0.0, 1.0, 2.0, 3.0]
    assert seated_s(graph, seconds, [0, 1, 1, 0], [1, 1], keys) == 1.0 + 2.0 + 4.0
    assert seated_s(graph, seconds, [0, 1, 1, 0], [1, 1], [0.0, 2.0, 1.0, 3.0]) == 1.0 + 3.0 + 2.0 + 4.0
    assert seated_s(graph, seconds, [0, 0, 0, 0], [2], [0.0, 2.0, 1.0, 3.0]) == 1.0 + 2.0 + 4.0
    assert seated_s(Graph([]), [], [], [1], []) == 0.0
