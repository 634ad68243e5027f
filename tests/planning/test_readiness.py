"""Readiness: what becomes of a task, from what became of those before it."""

from __future__ import annotations

import itertools

import pytest

from phase21.domain.tasks import FINAL, Dependency, Task, TaskStatus, When
from phase21.domain.workflows import Upstream
from phase21.planning.readiness import RUN, Step, readiness

COMPLETED, FAILED, CANCELLED, SKIPPED, DEFERRED = (
    TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED, TaskStatus.SKIPPED, TaskStatus.DEFERRED,
)  # fmt: skip
MET = {When.SUCCEEDED: {COMPLETED}, When.FAILED: {FAILED, CANCELLED}, When.SETTLED: set(FINAL)}


def waiting(*needs, **fields):
    return Task(task_id="t", depends_on=tuple(needs), **fields)


@pytest.mark.parametrize(("when", "status"), list(itertools.product(When, [COMPLETED, FAILED, CANCELLED, SKIPPED, DEFERRED])))
def test_when_says_what_must_have_become_of_a_task(when, status):
    """`succeeded` needs COMPLETED, `failed` FAILED or CANCELLED, `settled` any end; DEFERRED defers whatever is asked."""
    found = readiness(waiting(Dependency(task="a", when=when)), {"a": status}, {})
    if status is DEFERRED:
        assert (found.step, found.reason) == (Step.DEFER, "waits for a, which is DEFERRED")
    elif status in MET[when]:
        assert found is RUN
    else:
        assert found.step is Step.SKIP
        assert found.reason.startswith(f"a is {status}, and this runs only ")


def test_what_will_never_be_counts_before_what_waits():
    """A task that cannot run any more does not wait for a person first, whichever stands first."""
    assert readiness(waiting("d", "f"), {"d": DEFERRED, "f": FAILED}, {}).step is Step.SKIP
    assert readiness(waiting("d", "e", "c"), {"d": DEFERRED, "e": DEFERRED, "c": COMPLETED}, {}).reason.startswith("waits for d")


def test_one_in_flight_is_not_asked_about():
    """The question comes once all have ended; before, it is a mistake."""
    with pytest.raises(ValueError, match="a has not ended: RETRYING"):
        readiness(waiting("a"), {"a": TaskStatus.RETRYING}, {})


@pytest.mark.parametrize(
    ("condition", "step"),
    [
        ("tasks.a.result == 1", Step.RUN),
        ("tasks.all(t, tasks[t].status == 'COMPLETED')", Step.RUN),
        ("tasks.a.result == 2", Step.SKIP),
        ("tasks.gone.result == 1", Step.SKIP),
    ],
)
def test_a_condition_decides_last(condition, step):
    """A task whose condition is not true is skipped, with the reason."""
    found = readiness(waiting("a", condition=condition), {"a": COMPLETED}, {"a": Upstream(COMPLETED, 1)})
    assert found.step is step
    assert (found.reason == "") == (step is Step.RUN)
