"""What a plan says: figures, reasons, replacements."""

import pytest

from phase21.domain.judgements import Calibration
from phase21.domain.plans import Assignment, Unplaced, balance
from phase21.domain.records import AgentRecord
from phase21.domain.tasks import Task
from phase21.planning.forecast import Forecast
from phase21.planning.planner import known, plan, replacement

AS_IT_COMES = Forecast((), enabled=False)


def fleet(count: int = 3) -> list[AgentRecord]:
    return [AgentRecord(agent_id=f"agent_{n}") for n in range(count)]


def test_known():
    """The four strategies are known, and no other."""
    assert all(known(name) for name in ("round_robin", "load_balanced", "priority_based", "confidence_based"))
    assert not known("random")
    with pytest.raises(KeyError):
        plan([], [], forecast=AS_IT_COMES, strategy="random")


def test_figures():
    """Durations are the sum over all, and the longest of the agents' sums over their concurrency."""
    agents = [AgentRecord(agent_id="a", concurrency=2), AgentRecord(agent_id="b")]
    tasks = [
        Task(task_id="t1", agent_id="a", estimated_duration_s=5.0),
        Task(task_id="t2", agent_id="a", estimated_duration_s=3.0),
        Task(task_id="t3", agent_id="a", estimated_duration_s=2.0),
        Task(task_id="t4", agent_id="b", estimated_duration_s=4.0),
        Task(task_id="t5", agent_id="c", estimated_duration_s=100.0),
    ]
    made = plan(tasks, agents, forecast=AS_IT_COMES, strategy="round_robin")
    assert (made.sequential_duration_s, made.expected_duration_s) == (14.0, 5.0)
    assert made.load_balance == 1 / 3


def test_figures_of_nothing():
    """A plan without agents takes no time and is in balance."""
    made = plan([Task(task_id="t")], [], forecast=AS_IT_COMES, strategy="load_balanced")
    assert (made.sequential_duration_s, made.expected_duration_s, made.load_balance) == (0.0, 0.0, 1.0)
    assert made.unplaced == (Unplaced("t", "no agent is configured"),)


@pytest.mark.parametrize(
    ("loads", "expected"),
    [([], 1.0), ([0, 0], 1.0), ([0, 1], 1.0), ([4, 5], 1.0), ([0, 2], 0.0), ([2, 4, 3], 0.5)],
)
def test_balance(loads, expected):
    """Balance is fewest over most, and 1 while they differ by one at most."""
    assert balance(loads) == expected


def test_balance_leaves_out_who_is_offline():
    """An agent that is OFFLINE does not count against the balance of a plan."""
    agents = fleet(3)
    agents[2].offline = True
    tasks = [Task(task_id=f"t{n}") for n in range(4)]
    assert plan(tasks, agents, forecast=AS_IT_COMES, strategy="load_balanced").load_balance == 1.0


def test_predictions():
    """An assignment bears the calibrated rate and the one that came in."""
    agents = [AgentRecord(agent_id="a", calibration=Calibration(20, 8, 16.0))]
    made = plan(
        [Task(task_id="t", predictions={"a": 0.8})], agents, forecast=Forecast(agents, enabled=True), strategy="load_balanced"
    )
    assert made.assignments == (Assignment("t", "a", pytest.approx(0.6), 0.8),)


def test_reasons():
    """What nobody can ever do is told with its pin or its capabilities; what somebody OFFLINE could do waits."""
    agents = [AgentRecord(agent_id="a", capabilities=("gpu",)), AgentRecord(agent_id="b", capabilities=("net",), offline=True)]
    tasks = [
        Task(task_id="t1", agent_id="z"),
        Task(task_id="t2", agent_id="a", capabilities=("net",)),
        Task(task_id="t3", capabilities=("gpu", "net")),
        Task(task_id="t4", capabilities=("fpga",)),
        Task(task_id="t5", agent_id="b"),
        Task(task_id="t6", capabilities=("net",)),
    ]
    made = plan(tasks, agents, forecast=AS_IT_COMES, strategy="load_balanced")
    assert {left.task_id: left.reason for left in made.unplaced} == {
        "t1": "pinned to z, which is not configured",
        "t2": "pinned to a, which does not offer net",
        "t3": "no configured agent offers gpu, net",
        "t4": "no configured agent offers fpga",
    }
    assert made.waiting == ("t5", "t6")


def test_loads_count():
    """What agents hold already counts, in seconds or in tasks as the strategy weighs them."""
    tasks = [Task(task_id="t")]
    loads = {"agent_0": (1, 9.0), "agent_1": (5, 2.0)}
    assert plan(tasks, fleet(2), forecast=AS_IT_COMES, strategy="load_balanced", loads=loads).assignments[0].agent_id == "agent_1"
    assert plan(tasks, fleet(2), forecast=AS_IT_COMES, strategy="priority_based", loads=loads).assignments[0].agent_id == "agent_0"


def test_replacement():
    """The least loaded able agent steps in, ties by order, never the one to avoid."""
    agents = fleet(3)
    task = Task(task_id="t")
    assert replacement(task, agents, {"agent_0": 2, "agent_1": 1, "agent_2": 1}) is agents[1]
    assert replacement(task, agents, {}, avoid="agent_0") is agents[1]
    agents[1].offline = True
    assert replacement(task, agents, {}, avoid="agent_0") is agents[2]
    assert replacement(Task(task_id="t", agent_id="agent_0"), agents, {}, avoid="agent_0") is None
    assert replacement(Task(task_id="t", capabilities=("gpu",)), agents, {}) is None


def test_replacement_on_probation():
    """An agent on probation steps in only while it has nothing to do."""
    agents = [AgentRecord(agent_id="a", probation=True)]
    task = Task(task_id="t")
    assert replacement(task, agents, {}) is agents[0]
    assert replacement(task, agents, {"a": 1}) is None
    agents[0].busy = 1
    assert replacement(task, agents, {}) is None
