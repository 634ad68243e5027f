"""Graphs are carried out by the product in virtual time, and the ways beside it do what their names say."""

from __future__ import annotations

import asyncio

import pytest
from made_up import write

from phase21.bench.trials import graphs
from phase21.bench.trials.graphs import Flow
from phase21.bench.trials.virtual import carried_out

FORK = Flow("fork", ["a", "b", "b", "c"], [1.0, 4.0, 2.0, 1.0], [[], [0], [0], [1, 2]])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write(tmp_path_factory.mktemp("data") / "eval")


def test_time_jumps_over_a_wait():
    """An hour of waiting is over at once, and the loop's clock has gone on by it."""

    async def work():
        begun_s = asyncio.get_running_loop().time()
        await asyncio.sleep(3600.0)
        return asyncio.get_running_loop().time() - begun_s

    assert carried_out(work()) == pytest.approx(3600.0)


def test_the_product_carries_a_graph_out():
    """A fork of 1 + 4 + 1 seconds takes 6 on two agents and 8 on one; at twice the speed half of that."""
    assert graphs.product(FORK, [1.0, 1.0])[0] == pytest.approx(6.0, abs=0.01)
    assert graphs.product(FORK, [1.0])[0] == pytest.approx(8.0, abs=0.01)
    assert graphs.product(FORK, [2.0])[0] == pytest.approx(4.0, abs=0.01)


def test_a_faster_agent_is_found_by_what_earlier_tasks_have_shown():
    """With agents of speeds 1 and 4 the long way goes over the fast one."""
    assert graphs.product(FORK, [1.0, 4.0])[0] == pytest.approx(2.0, abs=0.3)


def test_the_ways_beside_do_what_they_say():
    """First come first served takes the short task first; HEFT fills the gap that it left."""
    flow = Flow("x", ["a"] * 3, [1.0, 1.0, 3.0], [[], [], []])
    assert graphs.fifo(flow, [1.0, 1.0]) == pytest.approx(4.0)
    assert graphs.heft(flow, [1.0, 1.0]) == pytest.approx(3.0)
    assert graphs.heft(Flow("y", ["a"] * 4, [4.0, 1.0, 1.0, 1.0], [[], [], [1], [2]]), [1.0, 1.0]) == pytest.approx(4.0)
    gap = Flow("z", ["a"] * 5, [2.0, 2.0, 6.0, 3.0, 0.5], [[], [0], [1], [], []])
    assert graphs.heft(gap, [1.0]) == pytest.approx(13.5)


def test_every_row_of_the_table_is_asked_for(data, tmp_path):
    """Single graphs by every fleet, the portfolio by every fleet and learned besides; nothing where there is no data."""
    asked = graphs.asked(data)
    assert len(asked) == 3 + 6 + 6
    assert not graphs.asked(tmp_path)


def test_a_row_has_the_ratios(data):
    """No way beats the bounds, and what is learned is told cold and warm."""
    known, learned = (next(one for one in graphs.asked(data) if one.way == way) for way in ("known", "learned"))
    row = graphs.row(known)
    assert (row["set"], row["way"]) == ("portfolio", "known")
    assert all(value >= 0.999 for name, value in row.items() if "/" in name)
    assert {"cold/plain", "warm/plain"} <= set(graphs.row(learned))
    single = next(one for one in graphs.asked(data) if not one.portfolio)
    assert graphs.row(single)["product/bound"] <= graphs.row(single)["FIFO/bound"]
