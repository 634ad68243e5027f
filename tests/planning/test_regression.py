"""What tasks alike have shown: the model against its formula, and what it is made for."""

from math import exp

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phase21.domain.evidence import SCORE_LEAST, SCORE_MOST, Calibrator, Evidence, Observation
from phase21.domain.judgements import Calibration
from phase21.domain.records import AgentRecord
from phase21.domain.tasks import Task
from phase21.planning.forecast import Forecast
from phase21.planning.variances import NOISE, OWN, OWN_EVERYWHERE, SHARED, SHARED_EVERYWHERE, SURFACES

np = pytest.importorskip("numpy")

from phase21.planning import regression  # noqa: E402 - numpy first
from phase21.planning.outlook import outlook  # noqa: E402
from phase21.planning.regression import Regression  # noqa: E402

AGENTS = ("a", "b", "c", "d")


def covariance(one, other, same):
    """Of two attempts at points, by the same agent or not; told naively."""
    distance = sum((x - y) ** 2 for x, y in zip(one, other, strict=True)) ** 0.5
    shared, own = SHARED_EVERYWHERE, OWN_EVERYWHERE
    for length, of_all, of_each in SURFACES:
        shared += of_all * exp(-distance / length)
        own += of_each * exp(-distance / length)
    return shared + own * same


PLACES = st.tuples(st.sampled_from([-1.0, 0.0, 0.5]), st.sampled_from([0.0, 1.0]))


@given(
    st.lists(st.tuples(PLACES, st.integers(0, 2), st.floats(-1, 1), st.floats(-2, 2)), min_size=1, max_size=10),
    st.lists(PLACES, min_size=1, max_size=4),
)
@settings(max_examples=60, deadline=None)
def test_it_is_the_conditional_mean(attempts, places):
    """What is expected is the mean of a normal distribution given the attempts, with the covariance of its formula."""
    rows = [place for place, *_ in attempts]
    agents = [agent for _, agent, _, _ in attempts]
    targets = np.array([told for _, _, *told in attempts])
    made = Regression(np.array(rows), agents, targets, 3).predict(np.array(places))
    between = np.array(
        [[covariance(x, y, p == q) + NOISE * (i == j) for j, (y, q) in enumerate(zip(rows, agents, strict=True))]
         for i, (x, p) in enumerate(zip(rows, agents, strict=True))]
    )  # fmt: skip
    for agent in range(3):
        to = np.array([[covariance(place, row, agent == of) for row, of in zip(rows, agents, strict=True)] for place in places])
        assert made[:, :, agent] == pytest.approx((to @ np.linalg.solve(between, targets)).T, abs=1e-7)


def test_the_variances_are_shares():
    """What is shared, what is an agent's own and what no surface can say are the variances at one and the same task."""
    assert covariance((0.0,), (0.0,), same=True) == pytest.approx(SHARED + OWN)
    assert covariance((0.0,), (0.0,), same=False) == pytest.approx(SHARED)


def test_many_are_asked_about_in_parts(monkeypatch):
    """Asking in parts gives what asking at once gives."""
    dice = np.random.default_rng(0)
    model = Regression(dice.random((6, 2)), [0, 1, 0, 1, 2, 2], dice.random((6, 2)), 3)
    places = dice.random((7, 2))
    at_once = model.predict(places)
    monkeypatch.setattr(regression, "ROWS_AT_A_TIME", 3)
    assert model.predict(places) == pytest.approx(at_once)
    assert at_once.shape == (2, 7, 3)


# -- what it is made for -----------------------------------------------------------------------------------------------


def tried(agent_id, outcomes, raw=0.8, stretch=None, **features):
    return [Observation(agent_id, "simulate", raw, (), features, success, stretch) for success in outcomes]


def fleet_of(observations):
    """Agents with the record of these attempts, as the ledger would hold it."""
    agents = []
    for name in AGENTS:
        own = [seen for seen in observations if seen.agent_id == name]
        shown = Calibration(len(own), sum(seen.success for seen in own), sum(seen.raw for seen in own))
        agents.append(AgentRecord(agent_id=name, calibration=shown, kinds={"simulate": shown} if own else {}))
    return agents


def forecast_of(observations, **fields):
    evidence = Evidence(observations=list(observations), **fields)
    return Forecast(fleet_of(observations), enabled=True, evidence=evidence)


def asked(task_id="t", **features):
    return Task(task_id=task_id, features=features, predicted_success_rate=0.8)


HALF, MOSTLY, RARELY = [True, False] * 10, [True, True, True, True, False] * 4, [False, False, False, False, True] * 4


def test_an_agent_given_harder_tasks_is_not_thought_worse():
    """With the same record on hard tasks as another has on easy ones, an agent is thought the better one, at either."""
    others = [one for name in "cd" for one in tried(name, MOSTLY, hardness=0.0) + tried(name, RARELY, hardness=1.0)]
    forecast = forecast_of(tried("a", HALF, hardness=1.0) + tried("b", HALF, hardness=0.0) + others)
    for hardness in (0.0, 1.0):
        assert forecast.predicted(asked(hardness=hardness), "a") > forecast.predicted(asked(hardness=hardness), "b") + 0.05
    assert forecast.predicted(asked("e", hardness=0.0), "c") > forecast.predicted(asked("h", hardness=1.0), "c") + 0.2


def test_the_same_task_again_is_recognised():
    """What an agent did at this very task tells more than what it did at one nearby, and that more than one far away."""
    far = [one for n in range(20) for one in tried("ab"[n % 2], [n % 4 < 2], size=float(n), weight=float(n * 7 % 20))]
    told = tried("a", [False] * 3, size=10.5, weight=10.5)
    forecast = forecast_of(far + told)
    same, near, other = (forecast.predicted(asked(f"t{size}", size=size, weight=size), "a") for size in (10.5, 11.5, 19.5))
    assert same < near - 0.02 < other - 0.02
    assert forecast.predicted(asked("t10.5", size=10.5, weight=10.5), "b") > same


def test_the_very_same_task_tells_more_than_its_nearest_neighbour():
    """Among many tasks that are close to each other, the one at which an agent failed is told from the next."""
    many = [one for n in range(200) for one in tried("ab"[n % 2], [True], size=float(n))]
    forecast = forecast_of(many + tried("a", [False] * 3, size=99.5))
    same, near = (forecast.predicted(asked(f"t{size}", size=size), "a") for size in (99.5, 98.5))
    assert same < near - 0.5


def test_what_an_agent_showed_is_not_the_others_fault():
    """Where one agent fails at a sort of task and another does not, only the one is thought bad at it."""
    seen = [one for n in range(12) for one in tried("a", [False], where="east") + tried("b", [True], where="east")]
    seen += [one for n in range(12) for one in tried("a", [True], where="west") + tried("b", [False], where="west")]
    forecast = forecast_of(seen)
    east, west = asked("e", where="east"), asked("w", where="west")
    assert min(forecast.predicted(east, "b"), forecast.predicted(west, "a")) > 0.6
    assert max(forecast.predicted(east, "a"), forecast.predicted(west, "b")) < 0.4


def test_an_agent_that_has_not_been_seen_is_expected_to_do_as_the_others():
    """What is shared holds for an agent that has shown nothing, and two such agents are the same to the last bit."""
    forecast = forecast_of([one for name in "ab" for one in tried(name, MOSTLY, size=1.0) + tried(name, RARELY, size=2.0)])
    easy, hard = asked("e", size=1.0), asked("h", size=2.0)
    assert forecast.predicted(easy, "c") > forecast.predicted(hard, "c") + 0.2
    assert forecast.predicted(easy, "c") == forecast.predicted(easy, "d")


def test_durations_by_feature():
    """Tasks that took longer than estimated are expected to again, where alike, in multiples of their estimate."""
    slow = tried("a", [True] * 8, stretch=1.0, size=9.0) + tried("a", [True] * 8, stretch=0.0, size=1.0)
    forecast = forecast_of(slow + tried("b", [True] * 8, size=1.0))
    small, large = (Task(task_id=f"t{size}", features={"size": size}, estimated_duration_s=10.0) for size in (1.0, 9.0))
    assert 10.0 < forecast.expected_s(small, "a") < forecast.expected_s(large, "a") < 10.0 * exp(1.0)
    assert forecast.expected_s(Task(task_id="0", features={"size": 9.0}, estimated_duration_s=0.0), "a") > 0.0


OBSERVED = st.lists(
    st.builds(
        Observation,
        st.sampled_from(AGENTS), st.sampled_from(["simulate", "x"]), st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([(), ("h",)]),
        st.dictionaries(st.sampled_from(["n", "w"]), st.sampled_from([0.0, 1.0, 2.0, "east"]), min_size=1),
        st.booleans(), st.none() | st.floats(-3, 3),
    ),
    min_size=1, max_size=12,
)  # fmt: skip
TASKS = st.lists(
    st.dictionaries(st.sampled_from(["n", "w"]), st.sampled_from([0.0, 1.0, "west"]), min_size=1), min_size=1, max_size=5
)


def everything(forecast, tasks):
    return [
        (forecast.predicted(one, name), forecast.score(one, name), forecast.expected_s(one, name), forecast.doubt(one, name))
        for one in tasks for name in AGENTS
    ]  # fmt: skip


@given(OBSERVED, TASKS)
@settings(max_examples=50, deadline=None)
def test_the_same_evidence_says_the_same(observed, features):
    """Two forecasts from the same evidence that are asked the same say the same, bit for bit, and within bounds."""
    tasks = [Task(task_id=f"t{n}", features=told) for n, told in enumerate(features)]
    told = []
    for _ in range(2):
        forecast = forecast_of(observed)
        forecast.prepare(tasks)
        told.append(everything(forecast, tasks))
    assert told[0] == told[1]
    for rate, score, seconds, doubt in told[0]:
        assert 0.0 < rate < 1.0
        assert SCORE_LEAST <= score <= SCORE_MOST
        assert seconds > 0.0
        assert doubt > 0.0


@given(OBSERVED, TASKS, st.lists(st.tuples(st.floats(0.01, 0.99), st.booleans()), max_size=30))
@settings(max_examples=50, deadline=None)
def test_rates_are_scores_calibrated(observed, features, outcomes):
    """What is predicted is the score as the calibrator of the evidence has it."""
    calibrator = Calibrator()
    for score, success in outcomes:
        calibrator.learn(score, success=success)
    forecast = forecast_of(observed, calibrator=calibrator)
    for n, told in enumerate(features):
        one = Task(task_id=f"t{n}", features=told)
        for name in AGENTS:
            assert forecast.predicted(one, name) == pytest.approx(calibrator.calibrated(forecast.score(one, name)), abs=1e-6)


def test_agents_that_have_shown_the_same_are_the_same():
    """Two agents with equal attempts, in whatever order, are predicted equal to the last bit: the noise of sums sets nobody apart."""
    places = [(n % 3 > 0, n / 7.0, n * n % 31 / 3.0, n * 5 % 17 / 11.0) for n in range(40)]
    seen = []
    for name, order in (("a", places), ("b", places[::-1])):
        seen += [one for done, *at in order for one in tried(name, [done], stretch=at[2], size=at[0], weight=at[1], age=at[2])]
    forecast = forecast_of(seen)
    tasks = [asked(f"t{n}", size=n / 3.0, weight=float(n * 7 % 13), age=n / 5.0) for n in range(60)]
    forecast.prepare(tasks)
    for one in tasks:
        assert forecast.predicted(one, "a") == forecast.predicted(one, "b")
        assert forecast.score(one, "a") == forecast.score(one, "b")
        assert forecast.expected_s(one, "a") == forecast.expected_s(one, "b")


def test_the_outlook_starts_from_the_levels():
    """Where what was observed is what the levels say, the scores are the levels of what is asked about."""
    told = list(outlook([asked(size=1.0)], tried("a", [True], size=2.0), [(1.0, 0.0)], [0], [[0.3, 0.7]], Calibrator()))
    assert told[0][0] == [0.3, 0.7]
    assert told[0][2] == [1.0, 1.0]


def test_predictions_per_agent_are_where_the_model_starts():
    """An agent for which a task came in with a higher rate is expected to do it better."""
    forecast = forecast_of(tried("a", MOSTLY, size=1.0) + tried("b", MOSTLY, size=1.0))
    one = Task(task_id="t", features={"size": 1.0}, predictions={"a": 0.9, "b": 0.5})
    assert forecast.predicted(one, "a") > forecast.predicted(one, "b") + 0.2
