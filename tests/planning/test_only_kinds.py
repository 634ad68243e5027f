"""Agents that take tasks of some kinds only, as plans and the validation gate see them."""

from __future__ import annotations

import pytest

from phase21.domain.records import AgentRecord
from phase21.domain.tasks import Task
from phase21.planning.forecast import Forecast
from phase21.planning.planner import plan
from phase21.planning.registry import STRATEGIES

REVIEWER = AgentRecord(agent_id="reviewer", only_kinds=("review",), capabilities=("python",))
ANYBODY = AgentRecord(agent_id="anybody", capabilities=("python",))


def planned(tasks, agents, strategy="load_balanced"):
    return plan(tasks, agents, forecast=Forecast(agents, enabled=True), strategy=strategy)


@pytest.mark.parametrize("strategy", sorted(name for name in STRATEGIES if name != "critical_path"))
def test_no_strategy_gives_an_agent_what_it_does_not_take(strategy):
    """Tasks of other kinds go to others, whatever they ask for; tasks of its kind may go to either."""
    tasks = [Task(task_id=f"t{n}", kind=kind, capabilities=("python",)) for n, kind in enumerate(("other", "review", "x") * 4)]
    made = planned(tasks, [REVIEWER, ANYBODY], strategy)
    given = {one.task_id: one.agent_id for one in made.assignments}
    assert len(given) == len(tasks)
    assert {given[task.task_id] for task in tasks if task.kind != "review"} == {"anybody"}


def test_why_nobody_takes_a_task_is_said():
    """Where kinds are what is in the way, that is the reason; where it is a capability, that."""
    tasks = [
        Task(task_id="pinned", kind="other", agent_id="reviewer"),
        Task(task_id="free", kind="other"),
        Task(task_id="able", kind="review", agent_id="reviewer", capabilities=("gpu",)),
        Task(task_id="gpu", kind="review", capabilities=("gpu",)),
        Task(task_id="own", kind="review"),
    ]
    made = planned(tasks, [REVIEWER])
    assert {one.task_id: one.reason for one in made.unplaced} == {
        "pinned": "pinned to reviewer, which takes no tasks of kind other",
        "free": "no configured agent that could do it takes tasks of kind other",
        "able": "pinned to reviewer, which does not offer gpu",
        "gpu": "no configured agent offers gpu",
    }
    assert [one.task_id for one in made.assignments] == ["own"]
    assert (REVIEWER.takes("review"), REVIEWER.takes("other"), ANYBODY.takes("other")) == (True, False, True)
