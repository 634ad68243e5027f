"""What a plan says: figures, reasons, replacements."""

import pytest

from phase21.domain.judgements import Calibration
from phase21.domain.plans import Assignment, Unplaced, balance
from phase21.domain.records import AgentRecord
from phase21.domain.tasks import Task
from phase21.planning.forecast import Forecast
from phase21.planning.planner import next_best, plan, replacement
from phase21.planning.registry import NAMES, STRATEGIES

AS_IT_COMES = Forecast((), enabled=False)


def fleet(count: int = 3) -> list[AgentRecord]:
    return [AgentRecord(agent_id=f"agent_{n}") for n in range(count)]


def test_known():
    """The strategies of the registry are known, and no other; `adaptive` is a name that only a run can turn into one of them."""
    assert set(STRATEGIES) == {
        "round_robin", "load_balanced", "priority_based", "confidence_based", "maximize_success", "maximize_throughput",
        "balance_load", "minimize_retries", "confidence_optimization", "thompson",
    }  # fmt: skip
    assert list(NAMES) == [*STRATEGIES, "adaptive"]
    for name in ("random", "adaptive"):
        with pytest.raises(KeyError):
            plan([], [], forecast=AS_IT_COMES, strategy=name)
    assert all(plan([], [], forecast=AS_IT_COMES, strategy=name).assignments == () for name in STRATEGIES)


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


def test_next_best():
    """The agent with the best rate given the failures so far makes the next attempt, and every agent's rate is told."""
    agents = fleet(3)
    task = Task(task_id="t", predictions={"agent_0": 0.9, "agent_1": 0.8, "agent_2": 0.7})
    forecast = Forecast(agents, enabled=True)
    other, rates = next_best(task, agents, {}, forecast=forecast, failed=["agent_0"])
    assert other is agents[1]
    assert list(rates.values()) == forecast.after_failures(task, ["agent_0"])
    assert next_best(task, agents, {}, forecast=forecast, failed=["agent_0", "agent_1"])[0] is agents[2]
    assert next_best(task, agents, {}, forecast=forecast, failed=[])[0] is agents[0]
    assert next_best(task, agents, {}, forecast=forecast, failed=[], avoid="agent_0")[0] is agents[1]


def test_next_best_of_equals():
    """Among agents with the same rate the next attempt goes to the least loaded, then by order."""
    agents = fleet(4)
    forecast, task = Forecast(agents, enabled=True), Task(task_id="t")
    loads = {"agent_1": 2, "agent_2": 1, "agent_3": 1}
    assert next_best(task, agents, loads, forecast=forecast, failed=["agent_0"])[0] is agents[2]
    close = Task(task_id="t", predictions={"agent_1": 0.85 + 1e-11, "agent_2": 0.85})
    assert next_best(close, agents, loads, forecast=forecast, failed=["agent_0"])[0] is agents[2]


def test_next_best_is_able_and_at_work():
    """Pins, capabilities, OFFLINE and probation hold for the next attempt as for the first; where nobody is left, nobody."""
    agents = [AgentRecord(agent_id="a", capabilities=("gpu",)), AgentRecord(agent_id="b", capabilities=("gpu",), offline=True)]
    agents += [AgentRecord(agent_id="c"), AgentRecord(agent_id="d", capabilities=("gpu",), probation=True, busy=1)]
    forecast, task = Forecast(agents, enabled=True), Task(task_id="t", capabilities=("gpu",))
    assert next_best(task, agents, {}, forecast=forecast, failed=["a"])[0] is agents[0]
    other, rates = next_best(task, agents, {}, forecast=forecast, failed=["a"], avoid="a")
    assert (other, set(rates)) == (None, {"a", "b", "c", "d"})
    agents[3].busy = 0
    assert next_best(task, agents, {}, forecast=forecast, failed=["a"])[0] is agents[3]
    assert next_best(task, agents, {"d": 1}, forecast=forecast, failed=["a"])[0] is agents[0]
    assert next_best(Task(task_id="t", agent_id="c"), agents, {}, forecast=forecast, failed=["c"])[0] is agents[2]
