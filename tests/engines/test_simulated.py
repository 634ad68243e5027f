"""Simulated attempts: drawn, reproducible, quick."""

from __future__ import annotations

import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phase21.domain.tasks import Attempt, Task
from phase21.engines.simulated import SimulatedEngine


def attempt(task_id="t1", *, run_id="r", number=1, predicted=0.5, kind="simulate", **payload):
    task = Task(task_id=task_id, kind=kind, payload=payload)
    return Attempt(run_id=run_id, wave=1, task=task, agent_id="agent_0", number=number, predicted=predicted, timeout_s=30.0)


def test_a_draw_depends_on_seed_run_task_and_attempt_only():
    """The same seed, run, task and attempt give the same draw, and a change of any of them another."""
    drawn = SimulatedEngine(7).draw(attempt())
    assert SimulatedEngine(7).draw(attempt(predicted=0.9, kind="command")) == drawn
    others = [
        SimulatedEngine(8).draw(attempt()),
        *(
            SimulatedEngine(7).draw(attempt(**one))
            for one in (
                {"run_id": "s"},
                {"task_id": "t2"},
                {"number": 2},
            )
        ),
    ]
    assert len({drawn, *others}) == 5


def test_a_draw_is_the_same_for_ever():
    """A seed's outcomes outlive versions of the program."""
    assert SimulatedEngine(0).draw(attempt()) == 0.0162555441284854


def test_draws_are_uniform():
    """Each tenth of [0, 1) is drawn as often as the others, within five standard deviations."""
    engine, tenths = SimulatedEngine(0), [0] * 10
    for number in range(10_000):
        tenths[int(engine.draw(attempt(f"t{number}")) * 10)] += 1
    assert all(abs(count - 1000) < 150 for count in tenths)


def test_the_payload_rate_goes_before_the_prediction():
    """`success_rate` decides where it is given, the incoming prediction where not."""
    engine = SimulatedEngine(0)

    def share(**payload):
        return sum(engine.instant(attempt(f"t{n}", predicted=0.2, **payload)).success for n in range(2000)) / 2000

    assert share() == pytest.approx(0.2, abs=0.05)
    assert share(success_rate=0.7) == pytest.approx(0.7, abs=0.05)


@given(st.integers(), st.integers(1, 1000))
def test_certainty_is_kept(seed, number):
    """A rate of 1 always succeeds and a rate of 0 never."""
    engine = SimulatedEngine(seed)
    assert engine.instant(attempt(number=number, predicted=1.0)).success
    failed = engine.instant(attempt(number=number, success_rate=0))
    assert (failed.success, failed.error_msg, failed.result) == (False, "simulated failure", {"simulated": True})


async def test_a_duration_is_waited_for_by_perform_only():
    """`instant` passes on what takes time, and `perform` takes that time."""
    engine, began = SimulatedEngine(0), time.monotonic()
    slow = attempt(predicted=1.0, duration_s=0.05)
    assert engine.instant(slow) is None
    assert (await engine.perform(slow)).success
    assert time.monotonic() - began >= 0.05


async def test_perform_and_instant_agree():
    """Both ways draw the same outcome."""
    engine = SimulatedEngine(3)
    for number in range(50):
        one = attempt(f"t{number}")
        assert await engine.perform(one) == engine.instant(one)


def test_other_kinds_ignore_their_payload():
    """In a dry run a command's payload is not looked at, and takes no time."""
    outcome = SimulatedEngine(0).instant(attempt(kind="command", predicted=1.0, argv=["sleep", "9"], duration_s=9))
    assert outcome is not None
    assert outcome.success


@pytest.mark.parametrize("payload", [{"duration_s": -1}, {"duration_s": "1"}, {"success_rate": 1.1}, {"speed": 1}])
def test_a_payload_is_strict(payload):
    """Unknown fields, wrong types and values out of range are refused."""
    with pytest.raises(msgspec.ValidationError):
        SimulatedEngine(0).refusal(payload)
