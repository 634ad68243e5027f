"""Why tasks went where they went, and the share of choices that is spent on learning."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phase21.domain.evidence import Evidence, Observation
from phase21.domain.judgements import Calibration
from phase21.domain.plans import CANDIDATES_MOST, REASONS, Assignment, Candidate, Choice
from phase21.domain.records import AgentRecord
from phase21.domain.tasks import RiskLevel, Task
from phase21.planning.choices import GROUPS_MOST, again, candidates_of, explore, shared_out
from phase21.planning.forecast import Forecast
from phase21.planning.planner import plan
from phase21.planning.registry import STRATEGIES
from phase21.planning.strategies import Board, Terms

NAMES = ("a", "b", "c")
AS_IT_COMES = Forecast((), enabled=False)


def fleet(*names, **fields):
    return [AgentRecord(agent_id=name, **fields) for name in names or NAMES]


def planned(tasks, agents=None, strategy="maximize_success", forecast=AS_IT_COMES, **terms):
    return plan(tasks, agents or fleet(), forecast=forecast, strategy=strategy, terms=Terms(**terms))


def reason_of(made, task_id):
    (choice,) = [choice for choice in made.choices if task_id in choice.tasks]
    return choice.reason


# -- reasons -----------------------------------------------------------------------------------------------------------


def test_best_or_for_want_of_room():
    """A task at the agent that is predicted best is there for that; one that is not, because the best had no room."""
    tasks = [Task(task_id=f"t{n}", predictions={"a": 0.9 - n / 100, "b": 0.5, "c": 0.1}) for n in range(4)]
    made = planned(tasks, fleet(max_tasks=2))
    assert [given_.agent_id for given_ in made.assignments] == ["a", "a", "b", "b"]
    assert [reason_of(made, f"t{n}") for n in range(4)] == ["best", "best", "capacity", "capacity"]


def test_pinned():
    """A pin is the reason of what is pinned, whatever the strategy."""
    for strategy in STRATEGIES:
        assert reason_of(planned([Task(task_id="t", agent_id="b"), Task(task_id="u")], strategy=strategy), "t") == "pinned"


@pytest.mark.parametrize(("strategy", "reason"), [("round_robin", "turn"), ("load_balanced", "load"), ("priority_based", "record"),
    ("confidence_based", "worth"), ("maximize_throughput", "soonest")])  # fmt: skip
def test_each_strategy_gives_its_own(strategy, reason):
    """A strategy that does not weigh success gives its own reason, where another agent is predicted better too."""
    tasks = [Task(task_id=f"t{n}", predictions={"a": 0.9, "b": 0.88, "c": 0.86}) for n in range(3)]
    assert {choice.reason for choice in planned(tasks, strategy=strategy).choices} == {reason}


def test_explored():
    """What chance has sent elsewhere is there to learn; what it left is where it was dealt."""
    tasks = [Task(task_id=f"t{n}", predicted_success_rate=0.6) for n in range(200)]
    made = planned(tasks, exploration=0.2, slack=9.0)
    for choice in made.choices:
        assert choice.reason in {"best", "explored"}
        assert choice.propensity == pytest.approx(0.1 if choice.reason == "explored" else 0.8)
    assert {choice.reason for choice in made.choices} == {"best", "explored"}


# -- what choices are about --------------------------------------------------------------------------------------------


@st.composite
def waves(draw):
    return [
        Task(
            task_id=f"t{n}",
            agent_id=draw(st.sampled_from([None, None, None, "a", "gone"])),
            kind=draw(st.sampled_from("kl")),
            predicted_success_rate=draw(st.sampled_from([0.1 * step for step in range(1, 10)])),
            predictions=draw(st.sampled_from([{}, {}, {"a": 0.3}])),
            features=draw(st.sampled_from([{}, {}, {"size": 1.0}])),
            capabilities=draw(st.sampled_from([(), ("gpu",)])),
        )
        for n in range(draw(st.integers(0, 24)))
    ]


@given(waves(), st.sampled_from(sorted(STRATEGIES)), st.sampled_from([0.0, 0.4]), st.booleans())
@settings(max_examples=100, deadline=None)
def test_every_assignment_has_one_choice(tasks, strategy, share, known):
    """Every assignment is named by one choice, or one choice that names none is about all those that are not."""
    agents = [AgentRecord(agent_id="a", capabilities=("gpu",)), AgentRecord(agent_id="b")]
    seen = Evidence(observations=[Observation("a", "k", 0.8, (), {"size": 2.0}, False)] * known)
    forecast = Forecast(agents, enabled=True, evidence=seen)
    made = plan(tasks, agents, forecast=forecast, strategy=strategy, terms=Terms(exploration=share))
    named = Counter(task_id for choice in made.choices for task_id in choice.tasks)
    seated = {given_.task_id: given_ for given_ in made.assignments}
    assert set(named) <= set(seated)
    assert set(named.values()) <= {1}
    assert sum(not choice.tasks for choice in made.choices) == (set(named) != set(seated))
    for choice in made.choices:
        assert choice.reason in REASONS
        assert 0.0 < choice.propensity <= 1.0
        rates = [candidate.predicted for candidate in choice.candidates]
        assert rates == sorted(rates, reverse=True)
        for task_id in choice.tasks:
            at = {candidate.agent_id: candidate for candidate in choice.candidates}[seated[task_id].agent_id]
            assert (at.predicted, at.raw) == (seated[task_id].predicted, seated[task_id].raw)


def test_tasks_that_nothing_sets_apart_share_a_choice():
    """Tasks of one kind, rate and capabilities are one choice, the largest group without names; others are their own."""
    tasks = [Task(task_id=f"t{n}") for n in range(5)] + [Task(task_id="k", kind="k"), Task(task_id="p", predictions={"a": 0.9})]
    made = planned(tasks, strategy="round_robin")
    assert [choice.tasks for choice in made.choices] == [("p",), (), ("k",)]
    assert all(len(choice.candidates) == 3 for choice in made.choices)


def test_too_many_groups_name_no_candidates():
    """Where there are more groups than can be told, one choice without names or candidates stands for all."""
    tasks = [Task(task_id=f"t{n}", kind=f"k{n}") for n in range(GROUPS_MOST + 1)]
    assert planned(tasks, strategy="round_robin").choices == (Choice((), (), "turn"),)
    assert len(planned(tasks[1:], strategy="round_robin").choices) == GROUPS_MOST


def test_a_task_with_features_is_its_own_choice_where_the_model_speaks():
    """With evidence the score before calibration stands in the choice; without, there is none and the task is one of a group."""
    pytest.importorskip("numpy")
    tasks = [Task(task_id=f"t{n}", features={"size": 1.0}) for n in range(2)]
    seen = Evidence(observations=[Observation("a", "simulate", 0.8, (), {"size": 1.0}, False)])
    forecast = Forecast(fleet(), enabled=True, evidence=seen)
    made = planned(tasks, forecast=forecast)
    assert [choice.tasks for choice in made.choices] == [("t0",), ("t1",)]
    for choice, given_ in zip(made.choices, made.assignments, strict=True):
        assert choice.score == forecast.score(tasks[0], given_.agent_id)
        assert choice.score is not None
    (group,) = planned(tasks, forecast=Forecast(fleet(), enabled=True)).choices
    assert (group.tasks, group.score) == ((), None)


def test_candidates():
    """Those predicted best, best first, ties by order, with what each held before the wave; nobody OFFLINE or unable."""
    rates = {f"n{n}": n / 20 for n in range(12)}
    agents = [*fleet(*rates), AgentRecord(agent_id="off", offline=True)]
    task = Task(task_id="t", predictions={**rates, "n3": 0.55}, estimated_duration_s=3.0)
    forecast = Forecast(agents, enabled=True)
    board = Board(agents, forecast, {"n11": (2, 5.0)})
    board.give(11, task)
    told = candidates_of(task, board)
    assert [one.agent_id for one in told] == ["n3", "n11", "n10", "n9", "n8", "n7", "n6", "n5"]
    assert len(told) == CANDIDATES_MOST
    assert told[1] == Candidate("n11", 0.55, 0.55, 3.0, 2)
    gpu = [AgentRecord(agent_id="x", capabilities=("gpu",)), AgentRecord(agent_id="y")]
    able = candidates_of(Task(task_id="t", capabilities=("gpu",)), Board(gpu, AS_IT_COMES, {}))
    assert [one.agent_id for one in able] == ["x"]


def test_again():
    """The choice behind another agent names the best of the given rates, the chosen one first among equals."""
    rates = {"a": 0.4, "b": 0.6, "c": 0.6, **{f"n{n}": 0.1 for n in range(9)}}
    told = again(Task(task_id="t", predicted_success_rate=0.7), "c", rates, AS_IT_COMES, {"b": 3}, "retry")
    assert (told.tasks, told.reason, told.propensity, told.score) == (("t",), "retry", 1.0, None)
    assert [one.agent_id for one in told.candidates][:3] == ["c", "b", "a"]
    assert len(told.candidates) == CANDIDATES_MOST
    assert told.candidates[1] == Candidate("b", 0.7, 0.6, 1.0, 3)


def test_shared_out():
    """Of choices those about some assignments are told with their tasks alone; one about other tasks is left out."""
    both, one, every = Choice(("t", "u"), (), "best"), Choice(("v",), (), "best"), Choice((), (), "turn")
    given_to = [Assignment(task_id, "a", 0.5, 0.5) for task_id in ("t", "w")]
    assert shared_out([both, one, every], given_to) == (Choice(("t",), (), "best"), every)
    assert shared_out([both, one], [Assignment("v", "a", 0.5, 0.5)]) == (one,)


# -- exploring ---------------------------------------------------------------------------------------------------------


def test_the_share_is_about_right():
    """About so many of the choices are spent on learning, evenly among those that may well be the best."""
    tasks = [Task(task_id=f"t{n}", predicted_success_rate=0.6) for n in range(4000)]
    board = Board(fleet(), AS_IT_COMES, {}, Terms(exploration=0.1, seed="s"))
    seats = [board.give(0, task) for task in tasks]
    explore(tasks, seats, board)
    counts = Counter(seats)
    assert 340 < counts[1] + counts[2] < 460
    assert abs(counts[1] - counts[2]) < 80
    assert [board.counts[n] for n in range(3)] == [counts[n] for n in range(3)]


def test_nothing_is_explored_where_nothing_is_asked_for():
    """With no share, and by strategies that do not weigh what they learn, nothing is moved."""
    tasks = [Task(task_id=f"t{n}", predicted_success_rate=0.6) for n in range(100)]
    for strategy, entry in STRATEGIES.items():
        still = planned(tasks, strategy=strategy, exploration=0.0, slack=9.0)
        moved = planned(tasks, strategy=strategy, exploration=0.9, slack=9.0)
        assert {choice.propensity for choice in still.choices} == {1.0}
        assert (moved.assignments != still.assignments) == entry.explores


RISKS = st.sampled_from(list(RiskLevel))


@given(
    st.lists(
        st.tuples(RISKS, st.sampled_from([None, None, "a"]), st.sampled_from([{}, {"a": 0.9, "b": 0.85, "c": 0.1}])), max_size=30
    ),
    st.floats(0.01, 0.49),
    st.integers(0, 5),
)
@settings(max_examples=150, deadline=None)
def test_only_what_is_low_and_free_is_explored(rows, share, seed):
    """What is pinned, MEDIUM or HIGH stays where it was dealt; what is moved goes to who may well be the best; propensities add up."""
    tasks = [Task(task_id=f"t{n}", risk_level=risk, agent_id=pin, predictions=rates) for n, (risk, pin, rates) in enumerate(rows)]
    board = Board(fleet(), AS_IT_COMES, {}, Terms(exploration=share, seed=str(seed)))
    seats = [board.give(0, task) for task in tasks]
    propensities = {position: drawn.propensity for position, drawn in explore(tasks, seats, board).items()}
    for position, task in enumerate(tasks):
        low_and_free = task.risk_level is RiskLevel.LOW and task.agent_id is None
        assert (position in propensities) == low_and_free
        if not low_and_free:
            assert seats[position] == 0
            continue
        others = 1 if task.predictions else 2  # c is surely worse where it was predicted to be
        drawn = share / others
        assert (1.0 - share) + others * drawn == pytest.approx(1.0)
        assert propensities[position] == pytest.approx(1.0 - share if seats[position] == 0 else drawn)
        assert seats[position] <= others


def test_the_propensity_is_how_often_it_comes_so():
    """Over many waves each agent has the task as often as its propensity says, and what could be drawn sums to 1."""
    task, told, came = Task(task_id="t", predicted_success_rate=0.6), {}, Counter()
    for seed in range(3000):
        board = Board(fleet(), AS_IT_COMES, {}, Terms(exploration=0.3, seed=str(seed)))
        seats = [board.give(1, task)]
        ((propensity, explored),) = explore([task], seats, board).values()
        assert explored == (seats[0] != 1)
        assert told.setdefault(seats[0], propensity) == propensity
        came[seats[0]] += 1
    assert sum(told.values()) == pytest.approx(1.0)
    for seat, propensity in told.items():
        assert came[seat] / 3000 == pytest.approx(propensity, abs=0.03)


def test_nobody_else_may_be_the_best():
    """Where all others are surely worse, have no room, are OFFLINE or unable, or nobody has the task, nothing is explored."""
    known = {"simulate": Calibration(2000, 1800, 1700.0)}
    agents = [
        AgentRecord(agent_id="a", kinds=known, capabilities=("gpu",)),
        AgentRecord(agent_id="worse", kinds={"simulate": Calibration(2000, 200, 1700.0)}, capabilities=("gpu",)),
        AgentRecord(agent_id="full", kinds=known, probation=True, busy=1, capabilities=("gpu",)),
        AgentRecord(agent_id="off", kinds=known, offline=True, capabilities=("gpu",)),
        AgentRecord(agent_id="unable", kinds=known),
    ]
    board = Board(agents, Forecast(agents, enabled=True), {}, Terms(exploration=1.0))
    tasks = [Task(task_id="t", capabilities=("gpu",)), Task(task_id="nobody's")]
    seats = [board.give(0, tasks[0]), None]
    assert explore(tasks, seats, board) == {}
    assert seats == [0, None]
    assert explore([Task(task_id="u")], seats[:1], board) == {0: (1.0, True)}


def test_what_is_moved_is_moved_on_the_board():
    """Room on probation that chance gives away is not given twice, and what it takes from is free again."""
    agents = [AgentRecord(agent_id="a"), AgentRecord(agent_id="b", probation=True)]
    tasks = [Task(task_id=f"t{n}", estimated_duration_s=2.0) for n in range(3)]
    board = Board(agents, AS_IT_COMES, {"a": (1, 1.0)}, Terms(exploration=1.0))
    seats = [board.give(0, task) for task in tasks]
    assert explore(tasks, seats, board) == {0: (1.0, True)}
    assert seats == [1, 0, 0]
    assert (board.counts, board.seconds, board.room[1]) == ([3, 1], [5.0, 2.0], 0)
