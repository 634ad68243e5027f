"""Multiples of estimates: of steps, of agents, and of neither where chance explains it."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phase21.domain.paces import Paces
from phase21.planning.paces import Tempo


def shown(*rows):
    paces = Paces()
    for step, agent_id, estimated_s, duration_s in rows:
        paces.learn(step, agent_id, estimated_s, duration_s)
    return paces


def test_where_nothing_is_known_estimates_stand():
    """Without evidence every multiple is 1 and no agent has been seen."""
    tempo = Tempo(Paces())
    assert (tempo.step("a"), tempo.agent("x"), tempo.knows("a"), tempo.learned) == (1.0, None, False, 0)


def test_a_step_takes_its_mean_and_an_unknown_one_that_of_all():
    """A step's multiple tends to its mean; a step that was never seen has the mean of all tasks."""
    tempo = Tempo(shown(*[("a", "x", 1.0, 10.0)] * 50, *[("b", "x", 1.0, 2.0)] * 50))
    assert tempo.step("a") == pytest.approx(10.0, rel=0.02)
    assert tempo.step("b") == pytest.approx(2.0, rel=0.03)
    assert tempo.step("c") == pytest.approx(6.0)
    assert tempo.knows("a")


@given(st.lists(st.sampled_from([0.25, 0.5, 1.0, 2.0]), min_size=2, max_size=5))
def test_speeds_are_found_where_estimates_are_right(paces):
    """Without noise the ratio of two agents' multiples is that of their seconds, whatever the step."""
    tempo = Tempo(shown(*[
        (step, f"x{agent}", 3.0, 3.0 * pace) for _ in range(20) for step in "ab" for agent, pace in enumerate(paces)
    ]))  # fmt: skip
    first = tempo.agent("x0") * tempo.step("a")
    assert first == pytest.approx(paces[0], rel=0.02)
    for agent, pace in enumerate(paces):
        assert tempo.agent(f"x{agent}") / tempo.agent("x0") == pytest.approx(pace / paces[0], rel=0.02)


def test_agents_that_are_alike_are_seldom_told_apart():
    """With noise of 50 % at most one of ten equal agents is set apart."""
    dice = random.Random(1)
    rows = [("a", f"x{n % 10}", 1.0, dice.lognormvariate(0.0, 0.5)) for n in range(400)]
    tempo = Tempo(shown(*rows))
    assert sum(tempo.agent(f"x{n}") != 1.0 for n in range(10)) <= 1
