"""What all strategies keep to, and what sets each apart: every one is compared with its rule told naively."""

import sys
from itertools import product
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phase21.domain.evidence import Evidence, Observation
from phase21.domain.judgements import Calibration
from phase21.domain.records import AgentRecord
from phase21.domain.tasks import RiskLevel, Task
from phase21.planning.forecast import Forecast
from phase21.planning.planner import plan
from phase21.planning.registry import STRATEGIES
from phase21.planning.strategies import Terms

CAPABILITIES = ("gpu", "net", "disk")
NAMES = [f"agent_{n}" for n in range(6)]
ONE_BY_ONE = ("round_robin", "load_balanced", "priority_based", "confidence_based")
WHOLE = sorted(set(STRATEGIES) - set(ONE_BY_ONE))
KINDS = ("simulate", "review")


@st.composite
def fleets(draw):
    agents = []
    for name in NAMES[: draw(st.integers(0, 6))]:
        samples = draw(st.sampled_from([0, 0, 1, 10, 40]))
        agents.append(
            AgentRecord(
                agent_id=name,
                capabilities=tuple(draw(st.sets(st.sampled_from(CAPABILITIES)))),
                concurrency=draw(st.integers(1, 3)),
                max_tasks=draw(st.sampled_from([None, None, None, 0, 1, 4])),
                offline=draw(st.sampled_from([False, False, False, True])),
                probation=draw(st.sampled_from([False, False, False, True])),
                busy=draw(st.sampled_from([0, 0, 0, 1])),
                calibration=Calibration(samples, draw(st.integers(0, samples)), samples * draw(st.sampled_from([0.5, 0.9]))),
            )
        )
    return agents


@st.composite
def waves(draw):
    rates = st.sampled_from([0.0, 0.2, 0.5, 0.85, 0.95, 1.0]) | st.floats(0, 1)
    return [
        Task(
            task_id=f"t{n}",
            agent_id=draw(st.sampled_from([None, None, None, None, *NAMES[:3]])),
            capabilities=tuple(draw(st.sets(st.sampled_from(CAPABILITIES), max_size=2))) if draw(st.booleans()) else (),
            predicted_success_rate=draw(rates),
            predictions=draw(st.dictionaries(st.sampled_from(NAMES), rates, max_size=6)) if draw(st.booleans()) else {},
            priority=draw(st.integers(1, 3)),
            estimated_duration_s=draw(st.sampled_from([0.0, 0.25, 1.0, 2.0, 7.5])),
            kind=draw(st.sampled_from(KINDS)),
            risk_level=draw(st.sampled_from(list(RiskLevel))),
            features=draw(st.dictionaries(st.sampled_from(["size", "where"]), st.sampled_from([0.0, 1.0, "x"]), max_size=2)),
        )
        for n in range(draw(st.integers(0, 24)))
    ]


@st.composite
def outcomes(draw):
    """What tasks with features have shown so far: nothing, or a few attempts by some of the agents."""
    seen = [
        Observation(
            draw(st.sampled_from(NAMES)), draw(st.sampled_from(KINDS)), draw(st.sampled_from([0.2, 0.85])), (),
            {"size": draw(st.sampled_from([0.0, 1.0, 2.0]))}, draw(st.booleans()), draw(st.sampled_from([None, 0.0, 1.0])),
        )
        for _ in range(draw(st.sampled_from([0, 0, 1, 6])))
    ]  # fmt: skip
    return Evidence(observations=seen, learned=len(seen))


@st.composite
def terms(draw):
    return Terms(
        slack=draw(st.sampled_from([1.0, 2.0, 5.0])),
        max_attempts=draw(st.integers(1, 4)),
        exploration=draw(st.sampled_from([0.0, 0.05, 0.5])),
        seed=draw(st.sampled_from(["", "s/r/1"])),
    )


def held(draw_loads):
    return st.dictionaries(st.sampled_from(NAMES), draw_loads, max_size=6)


loads_held = held(st.tuples(st.integers(0, 30), st.sampled_from([0.0, 0.5, 3.0])))


def naive(strategy, tasks, agents, forecast, loads):
    """The rules of each strategy told without any thought for cost: {task_id: agent_id}."""
    counts = {agent.agent_id: loads.get(agent.agent_id, (0, 0.0))[0] for agent in agents}
    given_new = dict.fromkeys(counts, 0)
    seconds = {agent.agent_id: loads.get(agent.agent_id, (0, 0.0))[1] for agent in agents}
    turns, seats = {}, {}

    def candidates(task):
        return [agent for agent in agents if agent.able(task) and not agent.offline]

    def with_room(task):
        return [
            agent
            for agent in candidates(task)
            if not agent.probation or not (counts[agent.agent_id] or (agent.busy and not given_new[agent.agent_id]))
        ]

    def seat(task, agent):
        seats[task.task_id] = agent.agent_id
        counts[agent.agent_id] += 1
        given_new[agent.agent_id] += 1
        seconds[agent.agent_id] += task.estimated_duration_s or 1e-9

    for task in tasks:
        if task.agent_id is not None and with_room(task):
            seat(task, with_room(task)[0])
    free = [task for task in tasks if task.agent_id is None]
    if strategy == "priority_based":
        free.sort(key=lambda task: task.priority)
    if strategy == "confidence_based":
        free.sort(
            key=lambda task: (
                fmean(task.raw_prediction(agent.agent_id) for agent in candidates(task))
                if task.predictions and candidates(task)
                else task.predicted_success_rate
            )
        )
    for task in free:
        able = with_room(task)
        if not able:
            continue
        if strategy == "round_robin":
            turn = turns.setdefault(tuple(agent.agent_id for agent in candidates(task)), candidates(task))
            while turn[0] not in able:
                turn.pop(0)
            seat(task, turn[0])
            turn.append(turn.pop(0))
        elif strategy == "load_balanced":
            seat(task, min(able, key=lambda agent: seconds[agent.agent_id]))
        elif strategy == "priority_based":
            seat(task, min(able, key=lambda agent: (counts[agent.agent_id], -agent.record)))
        else:
            seat(
                task,
                max(
                    able,
                    key=lambda agent: round(forecast.predicted(task, agent.agent_id) - 0.1 * counts[agent.agent_id], 9),
                ),
            )
    return seats


@given(tasks=waves(), agents=fleets(), loads=loads_held, seen=outcomes(), asked_for=terms(), enabled=st.booleans())
@settings(max_examples=100, deadline=None)
def test_contract(tasks, agents, loads, seen, asked_for, enabled):
    """Every strategy keeps to the contract: see `keeps_to_it`."""
    for strategy in STRATEGIES:
        forecast = Forecast(agents, enabled=enabled, evidence=seen)
        made = plan(tasks, agents, forecast=forecast, strategy=strategy, loads=loads, terms=asked_for)
        keeps_to_it(made, strategy, tasks, agents, loads, explored=asked_for.exploration > 0)
        again = Forecast(agents, enabled=enabled, evidence=seen)
        assert made == plan(tasks, agents, forecast=again, strategy=strategy, loads=loads, terms=asked_for), strategy


def keeps_to_it(made, strategy, tasks, agents, loads, *, explored):
    """Every task once, by able agents, and everything seated that can be.

    Every task is assigned, waits, or is nobody's: exactly one of them. Pins and capabilities are kept, nobody OFFLINE is given
    anything, and nobody on probation more than one task. Only what no configured agent can ever do is nobody's; what waits
    can be done by somebody, and none of them has room.
    """
    asked, by_id = {task.task_id: task for task in tasks}, {agent.agent_id: agent for agent in agents}
    ids = [given_.task_id for given_ in made.assignments] + [left.task_id for left in made.unplaced] + list(made.waiting)
    assert sorted(ids) == sorted(asked), strategy
    given_to = [given_.agent_id for given_ in made.assignments]
    for given_ in made.assignments:
        agent = by_id[given_.agent_id]
        assert agent.able(asked[given_.task_id]), strategy
        assert not agent.offline, strategy
    for agent in agents:
        had = agent.busy or loads.get(agent.agent_id, (0, 0.0))[0]
        assert not agent.probation or given_to.count(agent.agent_id) <= (not had), strategy
    for left in made.unplaced:
        assert left.reason
        assert not any(agent.able(asked[left.task_id]) for agent in agents), strategy
    for task_id in made.waiting:
        able = [agent for agent in agents if agent.able(asked[task_id])]
        assert able, strategy
        assert all(agent.offline or agent.probation for agent in able), strategy
        if not explored:
            full = {agent.agent_id for agent in able if agent.busy or loads.get(agent.agent_id, (0, 0.0))[0]} | set(given_to)
            assert all(agent.offline or agent.agent_id in full for agent in able), strategy


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
class TestEach:
    """What every strategy keeps to, by hand."""

    def test_pinned_first(self, strategy):
        """A pinned task is seated before those that are not, wherever it stands in the wave."""
        agents = [AgentRecord(agent_id=name) for name in ("agent_0", "agent_1")]
        tasks = [Task(task_id="free"), Task(task_id="pinned", agent_id="agent_0")]
        made = plan(tasks, agents, forecast=Forecast((), enabled=False), strategy=strategy)
        assert made.assignments[1].agent_id == "agent_0"
        if strategy in {"load_balanced", "priority_based", "confidence_based", "balance_load", "maximize_throughput"}:
            assert made.assignments[0].agent_id == "agent_1"
        elif strategy == "round_robin":
            assert made.assignments[0].agent_id == "agent_0"
        only = [AgentRecord(agent_id="agent_0", probation=True)]
        assert plan(tasks, only, forecast=Forecast((), enabled=False), strategy=strategy).waiting == ("free",)

    def test_probation(self, strategy):
        """On probation an agent gets one task at most; with others about the rest go to them, else the rest wait."""
        alone = [AgentRecord(agent_id="agent_0", probation=True)]
        tasks = [Task(task_id=f"t{n}") for n in range(4)]
        forecast = Forecast((), enabled=False)
        assert len(plan(tasks, alone, forecast=forecast, strategy=strategy).waiting) == 3
        both = [*alone, AgentRecord(agent_id="agent_1")]
        made = plan(tasks, both, forecast=forecast, strategy=strategy)
        assert len(made.assignments) == 4
        assert sum(given_.agent_id == "agent_0" for given_ in made.assignments) <= 1
        if strategy in ONE_BY_ONE:
            assert sorted(given_.agent_id for given_ in made.assignments) == ["agent_0", "agent_1", "agent_1", "agent_1"]


@pytest.mark.parametrize("strategy", ONE_BY_ONE)
@given(tasks=waves(), agents=fleets(), loads=loads_held, seen=outcomes(), enabled=st.booleans())
@settings(max_examples=100, deadline=None)
def test_as_the_rule_says(strategy, tasks, agents, loads, seen, enabled):
    """The plan is the one that the strategy's rule gives when it is followed naively."""
    forecast = Forecast(agents, enabled=enabled, evidence=seen)
    made = plan(tasks, agents, forecast=forecast, strategy=strategy, loads=loads)
    expected = naive(strategy, tasks, agents, forecast, loads)
    assert {given_.task_id: given_.agent_id for given_ in made.assignments} == expected


@given(
    estimates=st.lists(st.integers(0, 20), min_size=1, max_size=7),
    count=st.integers(1, 3),
)
@settings(max_examples=100, deadline=None)
def test_load_balanced_is_near_the_best(estimates, count):
    """The busiest agent of a load-balanced plan has at most one longest task more than in the best plan there is."""
    agents = [AgentRecord(agent_id=f"agent_{n}") for n in range(count)]
    tasks = [Task(task_id=f"t{n}", estimated_duration_s=float(s)) for n, s in enumerate(estimates)]
    best = min(
        max(sum(s for s, agent in zip(estimates, seats, strict=True) if agent == n) for n in range(count))
        for seats in product(range(count), repeat=len(estimates))
    )
    made = plan(tasks, agents, forecast=Forecast((), enabled=False), strategy="load_balanced")
    assert made.expected_duration_s <= best + max(estimates)


def test_tasks_of_no_time_do_not_pile_up():
    """Tasks estimated at no time at all are spread all the same."""
    agents = [AgentRecord(agent_id=f"agent_{n}") for n in range(2)]
    tasks = [Task(task_id=f"t{n}", estimated_duration_s=0.0) for n in range(4)]
    made = plan(tasks, agents, forecast=Forecast((), enabled=False), strategy="load_balanced")
    assert [given_.agent_id for given_ in made.assignments] == ["agent_0", "agent_1", "agent_0", "agent_1"]


def test_confidence_by_hand():
    """The hardest task has first choice, and 0.1 a task held sends the third to the second-best agent."""
    agents = [AgentRecord(agent_id=name) for name in ("agent_0", "agent_1")]
    rates = {"agent_0": 0.75, "agent_1": 0.9}
    tasks = [Task(task_id=f"t{n}", predictions=rates) for n in range(3)]
    tasks.append(Task(task_id="hard", predictions={"agent_0": 0.2, "agent_1": 0.3}))
    made = plan(tasks, agents, forecast=Forecast((), enabled=False), strategy="confidence_based")
    assert [given_.agent_id for given_ in made.assignments] == ["agent_1", "agent_0", "agent_1", "agent_1"]


def test_confidence_climbs_as_far_as_it_pays():
    """An agent that is much better keeps getting tasks until 0.1 for each has eaten up its lead over an idle one."""
    agents = [
        AgentRecord(agent_id="weak", calibration=Calibration(1000, 50, 500.0)),
        AgentRecord(agent_id="strong", calibration=Calibration(1000, 950, 500.0)),
    ]
    forecast = Forecast(agents, enabled=True)
    tasks = [Task(task_id=f"t{n}", predicted_success_rate=0.5) for n in range(11)]
    lead = forecast.predicted(tasks[0], "strong") - forecast.predicted(tasks[0], "weak")
    assert 0.8 < lead < 0.9
    made = plan(tasks, agents, forecast=forecast, strategy="confidence_based")
    assert [given_.agent_id for given_ in made.assignments] == ["strong"] * 9 + ["weak", "strong"]


def lines_run(call) -> int:
    """How many lines of Python a call runs: its cost, the same on every machine."""
    count = 0

    def trace(frame, event, arg):
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("strategy", ONE_BY_ONE)
def test_no_task_looks_at_the_whole_fleet(strategy):
    """Where tasks have no predictions per agent, a larger fleet costs a plan its own setting up, and no task a scan of it."""
    tasks = [Task(task_id=f"t{n}", capabilities=("gpu",) if n % 3 else (), priority=n % 4) for n in range(300)]

    def cost(size, count):
        fleet = [
            AgentRecord(agent_id=f"agent_{n}", capabilities=("gpu",), calibration=Calibration(20, n % 17, 12.0))
            for n in range(size)
        ]
        return lines_run(lambda: plan(tasks[:count], fleet, forecast=Forecast(fleet, enabled=True), strategy=strategy))

    def of_more_tasks(size):
        return cost(size, 300) - cost(size, 30)

    more = 1000
    assert of_more_tasks(50 + more) - of_more_tasks(50) < more * 270 / 20
