"""Dealing for the least makespan, how long an attempt has still to go, and what an idle agent takes over."""

from __future__ import annotations

from itertools import product
from math import exp, inf, isclose, log, nan
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from phase21.planning import makespan
from phase21.planning.makespan import Outlook, schedule, takeover

ROUNDING = 1e-6


def end_of(seconds, seats, ready, lanes):
    """When the last agent ends, counted anew."""
    ends = [0.0]
    for agent, (held, lane) in enumerate(zip(ready, lanes, strict=True)):
        own = [row[agent] for row, seat in zip(seconds, seats, strict=True) if seat == agent]
        ends += [(held + sum(own)) / max(lane, 1), *own]
    return max(ends)


def by_all_dealings(seconds, ready, lanes):
    """The least makespan that looking at every dealing finds."""
    able = [[agent for agent, needed in enumerate(row) if needed is not None] for row in seconds]
    return min(end_of(seconds, seats, ready, lanes) for seats in product(*able))


def rows(count, agents, seed, spread=1.5):
    """Durations of tasks that differ, at agents that differ."""
    dice = Random(seed)
    speeds = [exp(dice.gauss(0, 0.5)) for _ in range(agents)]
    return [
        [speed * size * exp(dice.gauss(0, 0.5)) for speed in speeds] for size in [exp(dice.gauss(0, spread)) for _ in range(count)]
    ]


@st.composite
def floors(draw):
    agents = draw(st.integers(1, 3))
    lasting = st.one_of(st.none(), st.floats(0, 100, allow_subnormal=False), st.integers(0, 5))
    seconds = draw(st.lists(st.lists(lasting, min_size=agents, max_size=agents), max_size=5))
    ready = draw(st.lists(st.floats(0, 50, allow_subnormal=False), min_size=agents, max_size=agents))
    return seconds, ready, draw(st.lists(st.integers(1, 3), min_size=agents, max_size=agents))


@given(floors(), st.booleans())
@example(([], [], []), False)
@example(([[None, 1.0], [None, None]], [0.0, 2.0], [1, 2]), False)
def test_every_task_that_an_agent_may_have_gets_one(floor, guessed):
    """Each task that somebody may do has a seat where it may be; the makespan is that of the seats, the bound holds."""
    seconds, ready, lanes = floor
    dealt = schedule(seconds, ready, lanes, guessed=guessed)
    for row, seat in zip(seconds, dealt.seats, strict=True):
        assert (seat is None) == all(needed is None for needed in row)
        assert seat is None or row[seat] is not None
    able = [row for row in seconds if any(needed is not None for needed in row)]
    least = by_all_dealings(able, ready, lanes)
    assert isclose(dealt.makespan_s, end_of(seconds, dealt.seats, ready, lanes), rel_tol=ROUNDING, abs_tol=ROUNDING)
    assert dealt.bound_s <= least * (1 + ROUNDING) + ROUNDING
    assert dealt.bound_s <= dealt.makespan_s


def test_small_waves_come_close_to_the_best():
    """Over small waves of unlike agents the makespan is on average within 2 % of the best of all dealings, never over 15 %."""
    over = []
    for seed in range(30):
        seconds = rows(7, 3, seed)
        least = by_all_dealings(seconds, [0.0] * 3, [1] * 3)
        over.append(schedule(seconds, [0.0] * 3, [1] * 3).makespan_s / least - 1)
    assert sum(over) / len(over) < 0.02
    assert max(over) < 0.15


@pytest.mark.parametrize(("count", "agents", "gap"), [(1000, 16, 0.03), (2200, 5, 0.02), (150, 4, 0.03)])
def test_many_tasks_come_close_to_the_bound(count, agents, gap):
    """With many tasks the makespan is within a few percent of the proven bound."""
    dealt = schedule(rows(count, agents, 3, 0.7), [0.0] * agents, [1] * agents)
    assert dealt.makespan_s <= dealt.bound_s * (1 + gap)


def test_what_agents_hold_counts():
    """An agent that is busy for long gets nothing that another ends before; what it holds bounds the makespan."""
    dealt = schedule([[1.0, 3.0]] * 3, [100.0, 0.0], [1, 1])
    assert dealt.seats == [1, 1, 1] or dealt.makespan_s == 100.0
    assert schedule([[1.0, 3.0]], [100.0, 0.0], [1, 1], guessed=True).seats == [1]
    assert schedule([], [7.0, 3.0], [1, 1]).bound_s == 7.0


def test_lanes_share_the_work():
    """An agent with more lanes is given more; a task is never taken to end sooner than it lasts."""
    seats = schedule([[1.0, 1.0]] * 8, [0.0, 0.0], [3, 1]).seats
    assert seats.count(0) == 6
    alone = schedule([[10.0, 6.0]], [0.0, 0.0], [4, 1])
    assert (alone.seats, alone.makespan_s) == ([1], 6.0)


def test_rooms_and_closed_agents_are_kept():
    """Nobody is given more than there is room for, nor anything without a lane; what has no room has no seat."""
    dealt = schedule([[1.0, 50.0, 0.1]] * 4, [0.0, 0.0, 0.0], [1, 1, 0], [1, 2, 9])
    assert sorted(dealt.seats, key=str) == [0, 1, 1, None]
    many = schedule([[1.0, 50.0]] * 60, [0.0, 0.0], [1, 1], [3, 60])
    assert many.seats.count(0) == 3
    assert schedule([[1.0]], [0.0], [0]).seats == [None]


@pytest.mark.parametrize("seed", range(8))
def test_searching_keeps_to_the_rooms(seed):
    """However tasks are moved and swapped, nobody ends with more than there is room for, and all are seated while there is."""
    rooms = [6, 3, 5, 8]
    for guessed in (True, False):
        seats = schedule(rows(20, 4, seed), [0.0, 9.0, 0.0, 4.0], [1] * 4, rooms, guessed=guessed).seats
        assert None not in seats
        assert all(seats.count(agent) <= room for agent, room in enumerate(rooms))


def test_guesses_are_left_even():
    """Where durations are guesses, agents that do not end last are lightened as well; sure ones are packed for the last alone."""
    seconds = rows(20, 4, 11)
    even, packed = schedule(seconds, [0.0] * 4, [1] * 4, guessed=True), schedule(seconds, [0.0] * 4, [1] * 4)
    assert packed.makespan_s <= even.makespan_s


def test_the_search_ends(monkeypatch):
    """After a set number of changes the search stops, with seats that are right all the same."""
    monkeypatch.setattr(makespan, "MOVES_MOST", 1)
    for seed in range(9):
        seconds = rows(60, 4, seed)
        dealt = schedule(seconds, [0.0] * 4, [1] * 4)
        assert isclose(dealt.makespan_s, end_of(seconds, dealt.seats, [0.0] * 4, [1] * 4))
    assert None not in schedule(rows(20, 4, 11), [0.0] * 4, [1] * 4).seats


def test_the_same_wave_is_dealt_the_same_way():
    """The same durations give the same seats."""
    for count in (20, 300):
        assert schedule(rows(count, 6, 5), [1.0] * 6, [1, 2] * 3) == schedule(rows(count, 6, 5), [1.0] * 6, [1, 2] * 3)


@pytest.mark.parametrize("wrong", [[[-1.0, 1.0]], [[nan, 1.0]], [[1.0]]])
def test_what_is_no_duration_is_refused(wrong):
    """Negative seconds, NaN, and rows of another length are errors."""
    with pytest.raises(ValueError, match=r"duration"):
        schedule(wrong, [0.0, 0.0], [1, 1])


# -- how long an attempt has still to go ----------------------------------------------------------------------------------


def drawn(outlook, elapsed_s, count=200_000):
    """The mean of what is left, by drawing attempts."""
    dice, total, kept = Random(7), 0.0, 0
    for _ in range(count):
        lasting = outlook.failing_s
        if dice.random() < outlook.rate:
            lasting = min(exp(dice.gauss(log(outlook.seconds), outlook.spread)), max(outlook.failing_s, outlook.seconds))
        if lasting > elapsed_s:
            total, kept = total + lasting - elapsed_s, kept + 1
    return total / kept


@pytest.mark.parametrize("elapsed_s", [0.0, 2.0, 30.0])
def test_what_is_left_is_what_drawing_finds(elapsed_s):
    """The mean of what is left agrees with drawing many attempts."""
    outlook = Outlook(rate=0.8, seconds=10.0, failing_s=200.0, spread=1.2)
    assert outlook.remaining_s(elapsed_s) == pytest.approx(drawn(outlook, elapsed_s), rel=0.02)
    assert outlook.expected_s == outlook.remaining_s(0.0)


def test_what_runs_over_is_expected_to_run_longer():
    """Beyond what was expected, the more has passed the more is left, up to the time at which failing ones end."""
    outlook = Outlook(rate=0.9, seconds=10.0, failing_s=5000.0, spread=1.0)
    left = [outlook.remaining_s(elapsed_s) for elapsed_s in (10.0, 50.0, 200.0)]
    assert left == sorted(left)
    assert outlook.remaining_s(4999.0) < 2.0
    assert outlook.remaining_s(5001.0) == 5001.0


def test_without_spread_an_attempt_is_sure():
    """What is sure is left to the second; what should have ended and has not is failing, or hopeless to reckon with."""
    sure = Outlook(rate=1.0, seconds=10.0, failing_s=10.0)
    assert (sure.expected_s, sure.remaining_s(4.0)) == (10.0, 6.0)
    assert Outlook(rate=0.5, seconds=10.0, failing_s=100.0).remaining_s(20.0) == 80.0
    assert Outlook(rate=1.0, seconds=10.0, failing_s=100.0).remaining_s(20.0) == 80.0
    assert Outlook(rate=0.5, seconds=10.0, failing_s=2.0).remaining_s(5.0) == 5.0
    assert Outlook(rate=1.0, seconds=0.0, failing_s=0.0, spread=1.0).expected_s == 0.0


@given(st.floats(0, 1), st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 4), st.floats(0, 2e6))
@example(rate=0.5, seconds=2.0, failing_s=2.0, spread=1.0, elapsed_s=5e-324)
def test_what_is_left_is_a_time(rate, seconds, failing_s, spread, elapsed_s):
    """Whatever is expected, what is left is a finite number of at least 0 seconds."""
    left = Outlook(rate=rate, seconds=seconds, failing_s=failing_s, spread=spread).remaining_s(elapsed_s)
    assert 0.0 <= left < inf


# -- taking over ----------------------------------------------------------------------------------------------------------


def test_an_idle_agent_takes_what_helps_most():
    """Of what would end sooner with the idle agent, it takes what lightens the loads most."""
    assert takeover(1, [[4.0, 4.0], [9.0, 5.0], [2.0, 1.0]], [0, 0, 0], [0.0, 0.0], [1, 1]) == 1


def test_an_idle_agent_leaves_what_it_would_end_later():
    """It takes nothing that would end later with it, that it may not have, or that is its own."""
    assert takeover(1, [[2.0, 5.0]], [0], [2.0, 0.0], [1, 1]) is None
    assert takeover(1, [[2.0, None], [50.0, 1.0]], [0, 1], [9.0, 0.0], [1, 1]) is None
    assert takeover(1, [], [], [9.0, 0.0], [1, 1]) is None


def test_a_long_task_under_way_makes_others_leave():
    """What waits behind a task that runs over is taken, even by an agent that is slower at it."""
    assert takeover(1, [[1.0, 3.0]], [0], [10.0, 0.0], [1, 1]) == 0


def test_lanes_shorten_the_wait():
    """An agent that works at many tasks at once ends what it has sooner: less is taken from it."""
    assert takeover(1, [[8.0, 5.0]], [0], [0.0, 0.0], [2, 1]) is None
    assert takeover(1, [[8.0, 5.0]], [0], [0.0, 0.0], [1, 1]) == 0
