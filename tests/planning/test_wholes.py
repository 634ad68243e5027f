"""Strategies that weigh a whole wave, each compared with the best of all dealings of small waves."""

from collections import Counter
from itertools import product
from math import fsum, inf

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from phase21.domain.judgements import Calibration
from phase21.domain.records import AgentRecord
from phase21.domain.tasks import Task
from phase21.planning import wholes
from phase21.planning.forecast import Forecast
from phase21.planning.planner import plan
from phase21.planning.strategies import Board, Terms
from phase21.planning.wholes import EVEN, LOWEST_RATE

NAMES = ("a", "b", "c")


@st.composite
def fleets(draw):
    agents = []
    for name in NAMES[: draw(st.integers(1, 3))]:
        samples = draw(st.sampled_from([0, 0, 5, 40]))
        agents.append(
            AgentRecord(
                agent_id=name,
                capabilities=draw(st.sampled_from([("gpu",), ("gpu",), ()])),
                concurrency=draw(st.integers(1, 2)),
                max_tasks=draw(st.sampled_from([None, None, None, 1, 2])),
                offline=draw(st.sampled_from([False, False, False, True])),
                probation=draw(st.sampled_from([False, False, False, True])),
                kinds={"simulate": Calibration(samples, draw(st.integers(0, samples)), samples * 0.7)} if samples else {},
            )
        )
    return agents


RATES = st.sampled_from([0.0, 0.3, 0.5, 0.8, 0.9, 1.0]) | st.floats(0, 1)
TASKS = st.lists(
    st.builds(
        lambda **fields: fields,
        predictions=st.fixed_dictionaries(dict.fromkeys(NAMES, RATES)),
        capabilities=st.sampled_from([(), (), ("gpu",)]),
        max_attempts=st.sampled_from([None, 1, 5]),
        estimated_duration_s=st.sampled_from([0.0, 0.5, 1.0, 4.0]),
        agent_id=st.sampled_from([None, None, None, None, "a"]),
    ),
    min_size=1,
    max_size=5,
).map(lambda rows: [Task(task_id=f"t{n}", **row) for n, row in enumerate(rows)])


def best_of_all(values, capacities):
    """Over every dealing within capacities: (most seats, highest sum of values among those)."""
    most = (0, 0.0)
    for seats in product(*[[None, *[agent for agent, value in enumerate(row) if value is not None]] for row in values]):
        counts = Counter(seat for seat in seats if seat is not None)
        if all(counts[agent] <= capacity for agent, capacity in enumerate(capacities)):
            taken = [row[seat] for row, seat in zip(values, seats, strict=True) if seat is not None]
            most = max(most, (len(taken), fsum(taken)))
    return most


def worth_of(strategy, forecast, terms):
    """What a strategy compares, told again."""

    def spared(task, agent_id):
        rate = max(forecast.predicted(task, agent_id), LOWEST_RATE)
        tries = task.max_attempts or terms.max_attempts
        return -fsum((1.0 - rate) ** tried for tried in range(tries))

    return {
        "maximize_success": forecast.predicted,
        "balance_load": forecast.predicted,
        "minimize_retries": spared,
        "confidence_optimization": lambda task, name: forecast.doubt(task, name) + 0.5 * forecast.predicted(task, name),
    }[strategy]


@pytest.mark.parametrize("strategy", ["maximize_success", "minimize_retries", "confidence_optimization"])
@given(tasks=TASKS, agents=fleets(), slack=st.sampled_from([1.0, 1.5, 2.0, 9.0]), attempts=st.integers(1, 4))
@settings(max_examples=150, deadline=None)
def test_the_best_dealing(strategy, tasks, agents, slack, attempts):
    """The sum is the highest that capacities allow, as often as all find a seat within them; the rest is seated without."""
    forecast, terms = Forecast(agents, enabled=True), Terms(slack=slack, max_attempts=attempts)
    made = plan(tasks, agents, forecast=forecast, strategy=strategy, terms=terms)
    seats = {given_.task_id: given_.agent_id for given_ in made.assignments}
    board = Board(agents, forecast, {}, terms)
    for task in tasks:
        if task.agent_id is not None and task.task_id in seats:
            board.give(board.index[seats[task.task_id]], task)
    free = [task for task in tasks if task.agent_id is None]
    worth = worth_of(strategy, forecast, terms)
    values = [
        [worth(task, agent.agent_id) if agent.able(task) and not agent.offline and board.room[n] else None
         for n, agent in enumerate(agents)]
        for task in free
    ]  # fmt: skip
    within = [min(limit, int(room)) for limit, room in zip(board.capacities(len(free)), board.room, strict=True)]
    seated, value = best_of_all(values, within)
    given_to = [seats[task.task_id] for task in free if task.task_id in seats]
    if seated == len(free):
        assert all(Counter(given_to)[agent.agent_id] <= most for agent, most in zip(agents, within, strict=True))
        shares = [min(share, most) for share, most in zip(board.even(len(free)), within, strict=True)]
        lanes = [[*row, *(None if one is None else one - EVEN for one in row)] for row in values]
        beyond = [most - share for most, share in zip(within, shares, strict=True)]
        got = fsum(worth(task, seats[task.task_id]) for task in free)
        got -= EVEN * sum(max(0, Counter(given_to)[agent.agent_id] - share) for agent, share in zip(agents, shares, strict=True))
        assert got == pytest.approx(best_of_all(lanes, [*shares, *beyond])[1] if len(free) < 4 else got, abs=1e-9)
        assert value - EVEN * len(free) - 1e-9 <= fsum(worth(task, seats[task.task_id]) for task in free) <= value + 1e-9
    else:
        assert seated <= len(given_to) <= best_of_all(values, board.room)[0]


@given(tasks=TASKS, agents=fleets(), loads=st.lists(st.integers(0, 2), min_size=3, max_size=3))
@settings(max_examples=100, deadline=None)
def test_throughput_is_near_the_best(tasks, agents, loads):
    """The wave is expected to end no later than the best dealing of small waves, by more than its longest task."""
    agents = [AgentRecord(agent_id=agent.agent_id, concurrency=agent.concurrency) for agent in agents]
    tasks = [Task(task_id=task.task_id, estimated_duration_s=task.estimated_duration_s) for task in tasks]
    forecast = Forecast(agents, enabled=True)
    held = {name: (count, float(count)) for name, count in zip(NAMES, loads, strict=True)}

    def ends(seats):
        seconds = [held[agent.agent_id][1] for agent in agents]
        for task, seat in zip(tasks, seats, strict=True):
            seconds[seat] += task.estimated_duration_s
        return max(total / agent.concurrency for total, agent in zip(seconds, agents, strict=True))

    made = plan(tasks, agents, forecast=forecast, strategy="maximize_throughput", loads=held)
    best = min((ends(seats) for seats in product(range(len(agents)), repeat=len(tasks))), default=inf)
    index = {agent.agent_id: n for n, agent in enumerate(agents)}
    assert len(made.assignments) == len(tasks)
    assert ends([index[given_.agent_id] for given_ in made.assignments]) <= best + max(task.estimated_duration_s for task in tasks)


def test_throughput_looks_at_what_durations_were():
    """An agent that takes twice as long as estimated gets the fewer tasks."""
    slow = Calibration(100, 80, 80.0, 100, 100 * 1.1)
    quick = Calibration(100, 80, 80.0, 100, 0.0)
    agents = [AgentRecord(agent_id="a", kinds={"simulate": slow}), AgentRecord(agent_id="b", kinds={"simulate": quick})]
    tasks = [Task(task_id=f"t{n}") for n in range(12)]
    made = plan(tasks, agents, forecast=Forecast(agents, enabled=True), strategy="maximize_throughput")
    counts = Counter(given_.agent_id for given_ in made.assignments)
    assert counts["a"] <= 4


def test_retries_allowed_change_who_is_best():
    """Where a task may be tried again a low rate costs attempts; where it may not, one attempt is one attempt for anybody."""
    board = Board([AgentRecord(agent_id="a")], Forecast((), enabled=False), {}, Terms(max_attempts=3))
    assert board.attempts_allowed(Task(task_id="t")) == 3
    assert board.attempts_allowed(Task(task_id="t", max_attempts=7)) == 7
    agents = [AgentRecord(agent_id=name, max_tasks=1) for name in "ab"]
    rates = {"a": 0.9, "b": 0.3}
    tasks = [Task(task_id="once", predictions=rates, max_attempts=1), Task(task_id="often", predictions=rates, max_attempts=9)]
    made = plan(tasks, agents, forecast=Forecast((), enabled=False), strategy="minimize_retries")
    assert [given_.agent_id for given_ in made.assignments] == ["b", "a"]
    surely = [Task(task_id="t", predictions={"a": 0.0, "b": 0.0}, max_attempts=4)]
    assert plan(surely, agents, forecast=Forecast((), enabled=False), strategy="minimize_retries").assignments


@example(tasks=[Task(task_id=f"t{n}", predictions={"a": 0.9, "b": 0.8, "c": 0.1}) for n in range(4)], count=3, before=[0, 0, 0])
@given(tasks=TASKS, count=st.integers(1, 3), before=st.lists(st.integers(0, 2), min_size=3, max_size=3))
@settings(max_examples=150, deadline=None)
def test_balance_load_is_even_and_then_the_best(tasks, count, before):
    """Of dealings that are as even as they can be, the one with the highest sum of success rates."""
    agents = [AgentRecord(agent_id=name) for name in NAMES[:count]]
    tasks = [Task(task_id=task.task_id, predictions=task.predictions) for task in tasks]
    forecast = Forecast(agents, enabled=True)
    loads = {name: (held, 0.0) for name, held in zip(NAMES, before, strict=True)}
    made = plan(tasks, agents, forecast=forecast, strategy="balance_load", loads=loads)

    def told(seats):
        counts = [before[n] + seats.count(name) for n, name in enumerate(NAMES[:count])]
        return max(counts) - min(counts), -fsum(forecast.predicted(task, name) for task, name in zip(tasks, seats, strict=True))

    dealings = [told(seats) for seats in product(NAMES[:count], repeat=len(tasks))]
    evenest = max(1, min(apart for apart, _ in dealings))
    best = min(lost for apart, lost in dealings if apart <= evenest)
    apart, lost = told(tuple(given_.agent_id for given_ in made.assignments))
    assert apart <= evenest
    assert lost == pytest.approx(best, abs=1e-9)


def test_capacity_gives_way_where_nothing_else_is_left():
    """What finds no seat within the agents' limits is dealt without them, to the best; a limit holds while others have room."""
    agents = [AgentRecord(agent_id="a", max_tasks=1), AgentRecord(agent_id="b", max_tasks=2)]
    tasks = [Task(task_id=f"t{n}", predictions={"a": 0.9, "b": 0.5}) for n in range(5)]
    forecast = Forecast((), enabled=False)
    for count, expected in ((1, [1, 0]), (3, [1, 2]), (5, [3, 2])):
        made = plan(tasks[:count], agents, forecast=forecast, strategy="maximize_success")
        counts = Counter(given_.agent_id for given_ in made.assignments)
        assert [counts["a"], counts["b"]] == expected


def test_slack_is_of_an_even_share():
    """An agent without a limit of its own gets so many times an even share, rounded up, less what it holds."""
    agents = [AgentRecord(agent_id="a"), AgentRecord(agent_id="b"), AgentRecord(agent_id="c", max_tasks=9, offline=True)]
    forecast = Forecast((), enabled=False)
    for slack, tasks, loads, expected in (
        (1.0, 4, {}, [2, 2, 9]), (1.0, 5, {}, [3, 3, 9]), (2.0, 5, {"a": (4, 0.0)}, [1, 5, 9]), (1.0, 2, {"a": (4, 0.0)}, [0, 1, 9]),
        (1.1, 20, {}, [11, 11, 9]),
    ):  # fmt: skip
        assert Board(agents, forecast, loads, Terms(slack=slack)).capacities(tasks) == expected
    assert Board(agents[2:], forecast, {}, Terms()).capacities(5) == [9]
    assert Board([AgentRecord(agent_id="a", offline=True)], forecast, {}).capacities(5) == [0]
    assert Board([AgentRecord(agent_id="a", offline=True)], forecast, {}).even(5) == [0]
    made = plan([Task(task_id=f"t{n}", predictions={"a": 1.0, "b": 0.1}) for n in range(8)], agents[:2], forecast=forecast,
                strategy="maximize_success", terms=Terms(slack=1.5))  # fmt: skip
    assert Counter(given_.agent_id for given_ in made.assignments) == {"a": 6, "b": 2}


def shares(strategy, agents, tasks, waves):
    """How often each agent had tasks, over waves whose chance is drawn anew."""
    counts = Counter()
    forecast = Forecast(agents, enabled=True)
    for wave in range(waves):
        made = plan(tasks, agents, forecast=forecast, strategy=strategy, terms=Terms(slack=9.0, seed=f"s/r/{wave}"))
        counts.update(given_.agent_id for given_ in made.assignments)
    return counts


def test_thompson_tries_what_may_be_the_best():
    """Of equals each is tried about as often; one that is surely worse nearly never; a belief holds for a wave and kind."""
    known = {"simulate": Calibration(2000, 1600, 1600.0)}
    worse = {"simulate": Calibration(2000, 400, 1600.0)}
    agents = [
        AgentRecord(agent_id="a", kinds=known),
        AgentRecord(agent_id="b", kinds=known),
        AgentRecord(agent_id="c", kinds=worse),
    ]
    tasks = [Task(task_id=f"t{n}", predicted_success_rate=0.8) for n in range(2)]
    counts = shares("thompson", agents, tasks, 300)
    assert counts["c"] == 0
    assert 200 < counts["a"] < 400
    kinds = [Task(task_id=f"t{n}", kind="kl"[n % 2], predicted_success_rate=0.8) for n in range(20)]
    apart, forecast = 0, Forecast(agents, enabled=True)
    for wave in range(30):
        made = plan(kinds, agents, forecast=forecast, strategy="thompson", terms=Terms(slack=9.0, seed=str(wave)))
        of_kinds = [{given_.agent_id for given_ in made.assignments[start::2]} for start in (0, 1)]
        assert [len(at) for at in of_kinds] == [1, 1]
        apart += of_kinds[0] != of_kinds[1]
    assert 0 < apart < 30


def test_thompson_tries_the_unknown_more_than_the_known():
    """An agent that is thought a little worse, of which little is known, has a good share of the waves; of much known, few."""
    tasks = [Task(task_id="t", predictions={"a": 0.8, "b": 0.75})]
    few = [AgentRecord(agent_id=name) for name in "ab"]
    much = [AgentRecord(agent_id=name, kinds={"simulate": Calibration(5000, 4000, 4000.0)}) for name in "ab"]
    assert shares("thompson", few, tasks, 400)["b"] > 60
    assert shares("thompson", much, tasks, 400)["b"] < 5


def test_confidence_optimization_learns_where_it_is_cheap():
    """An agent of which nothing is known is tried before an equal one that is known well, and not before a much better one."""
    known = AgentRecord(agent_id="known", kinds={"simulate": Calibration(400, 320, 320.0)})
    fleet = [known, AgentRecord(agent_id="new")]
    for rate, chosen in ((0.8, "new"), (0.75, "new"), (0.5, "known")):
        task = Task(task_id="t", predictions={"known": 0.8, "new": rate})
        made = plan([task], fleet, forecast=Forecast(fleet, enabled=True), strategy="confidence_optimization")
        assert made.assignments[0].agent_id == chosen


def test_what_is_pinned_counts_against_capacity():
    """A seat that a pin has taken is not dealt again."""
    agents = [AgentRecord(agent_id="a", max_tasks=1), AgentRecord(agent_id="b")]
    tasks = [Task(task_id="free", predictions={"a": 1.0, "b": 0.1}), Task(task_id="pinned", agent_id="a")]
    made = plan(tasks, agents, forecast=Forecast((), enabled=False), strategy="maximize_success")
    assert [given_.agent_id for given_ in made.assignments] == ["b", "a"]


def test_nothing_and_nobody():
    """No tasks, or nobody to do them, is no seats."""
    forecast = Forecast((), enabled=False)
    for deal in (wholes.maximize_success, wholes.balance_load, wholes.maximize_throughput, wholes.thompson):
        assert deal([], Board([AgentRecord(agent_id="a")], forecast, {})) == []
        assert deal([Task(task_id="t")], Board([], forecast, {})) == [None]
