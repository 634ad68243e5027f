"""What outcomes teach about tasks with features, and what scores are worth."""

from __future__ import annotations

from math import exp, isfinite, log
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phase21.domain.evidence import (
    HIGHEST,
    LOWEST,
    OBSERVATIONS_KEPT,
    TRUST_MOST,
    Calibrator,
    Evidence,
    Observation,
    log_odds,
    observation,
    rate_of,
    stretched,
)
from phase21.domain.records import TaskRecord, WaveRecord
from phase21.domain.tasks import Task, TaskStatus
from phase21.store import codec

SCORES = st.floats(0.01, 0.99)
STORIES = st.lists(st.tuples(SCORES, st.booleans()), max_size=150)


# -- log-odds ----------------------------------------------------------------------------------------------------------


@given(st.floats(LOWEST, HIGHEST))
def test_log_odds_and_rates_are_each_other_turned_round(rate):
    """A rate's log-odds give the rate again."""
    assert rate_of(log_odds(rate)) == pytest.approx(rate, abs=1e-12)


def test_certainty_is_brought_in():
    """0 and 1 are taken as 0.001 and 0.999; even odds are no shift."""
    assert log_odds(0.0) == log_odds(LOWEST)
    assert log_odds(1.0) == log_odds(HIGHEST)
    assert log_odds(0.5) == 0.0
    assert rate_of(0.0) == 0.5


@given(st.floats(-700, 700), st.floats(-700, 700))
def test_rates_follow_their_log_odds(one, other):
    """A rate lies within 0 and 1 whatever the log-odds, and order is kept."""
    low, high = sorted((rate_of(min(one, other)), rate_of(max(one, other))))
    assert 0.0 <= low <= high <= 1.0
    assert rate_of(min(one, other)) == low


# -- the calibrator ----------------------------------------------------------------------------------------------------


def loss(rate, success):
    return -log(rate if success else 1.0 - rate)


def taught(story):
    calibrator = Calibrator()
    for score, success in story:
        calibrator.learn(score, success=success)
    return calibrator


def test_a_new_calibrator_nearly_believes_the_score():
    """Before any outcome a score is taken at its word, with a little of even odds in it."""
    fresh = Calibrator()
    trust = rate_of(3.0)
    assert fresh.calibrated(0.9) == pytest.approx(trust * 0.9 + (1 - trust) * 0.5)
    assert fresh.base_rate == 0.5


def test_the_base_rate_counts():
    """The base rate is the share of successes, with one success and one failure added."""
    calibrator = taught([(0.5, True)] * 6 + [(0.5, False)] * 2)
    assert (calibrator.samples, calibrator.successes) == (8, 6)
    assert calibrator.base_rate == 0.7


@given(STORIES)
@settings(max_examples=200, deadline=None)
def test_it_is_never_much_worse_than_the_base_rate(story):
    """Whatever comes, its log loss exceeds that of the base rate, and that of Platt's rate, by its guarantee at most.

    The guarantee is -ln of the first weight, and ln(1 + exp(-TRUST_MOST)) for each outcome, which is what bounding trust costs.
    """
    calibrator, mixed, base, platt = Calibrator(), 0.0, 0.0, 0.0
    for score, success in story:
        base += loss(calibrator.base_rate, success)
        platt += loss(rate_of(calibrator.slope * log_odds(score) + calibrator.offset), success)
        mixed += loss(calibrator.calibrated(score), success)
        calibrator.learn(score, success=success)
    price = len(story) * log(1.0 + exp(-TRUST_MOST)) + 1e-9
    assert mixed <= base + log(1.0 + exp(3.0)) + price
    assert mixed <= platt + log(1.0 + exp(-3.0)) + price


@given(STORIES)
@settings(max_examples=200, deadline=None)
def test_it_stays_within_bounds(story):
    """Slope, trust and rates stay within their bounds, and a higher score never stands for a lower rate."""
    calibrator = taught(story)
    assert 0.0 <= calibrator.slope <= 4.0
    assert abs(calibrator.trust_log_odds) <= TRUST_MOST
    assert all(isfinite(value) for value in (calibrator.offset, calibrator.p11, calibrator.p12, calibrator.p22))
    rates = [calibrator.calibrated(score) for score in (0.01, 0.3, 0.7, 0.99)]
    assert rates == sorted(rates)
    assert rates[0] > 0.0
    assert rates[-1] < 1.0


@given(STORIES)
@settings(max_examples=50, deadline=None)
def test_it_is_plain_enough_for_a_snapshot(story):
    """Put away and taken up again it is the same, bit for bit, and goes on the same."""
    calibrator = taught(story)
    again = codec.decode(codec.encode(calibrator), Calibrator)
    assert again == calibrator
    for other in (calibrator, again):
        other.learn(0.3, success=True)
    assert codec.encode(again) == codec.encode(calibrator)


@pytest.mark.parametrize(("said", "true"), [(0.9, 0.6), (0.6, 0.9), (0.5, 0.2)])
def test_it_learns_what_a_score_is_worth(said, true):
    """A score that comes true at another rate stands for that rate soon."""
    dice = Random(7)
    calibrator = taught([(said, dice.random() < true) for _ in range(300)])
    assert calibrator.calibrated(said) == pytest.approx(true, abs=0.08)


def test_it_keeps_scores_that_tell_apart():
    """Where high scores succeed and low ones fail, both are believed, and more than the base rate."""
    dice = Random(1)
    story = [(score, dice.random() < score) for score in (0.1, 0.9) * 150]
    calibrator = taught(story)
    assert calibrator.calibrated(0.9) > 0.8
    assert calibrator.calibrated(0.1) < 0.2


def test_it_follows_a_switch():
    """A model that fails after long success is left for the base rate within some ten outcomes, and mended in the long run."""
    dice = Random(2)
    calibrator = taught([(score, dice.random() < score) for score in (0.05, 0.95) * 150])
    assert calibrator.trust_log_odds > 5.0
    for score, success in [(0.95, False), (0.05, True)] * 5:
        calibrator.learn(score, success=success)
    assert calibrator.trust_log_odds < 0.0
    for _ in range(200):
        score = dice.choice((0.05, 0.95))
        calibrator.learn(score, success=dice.random() < 0.8)
    assert calibrator.calibrated(0.95) == pytest.approx(0.8, abs=0.15)


def test_old_outcomes_fade():
    """The same recent outcomes end at nearly the same rates, whatever came five hundred outcomes before."""
    dice = Random(3)
    recent = [(score, dice.random() < 0.7) for score in (0.6, 0.9) * 250]
    one = taught([(0.8, True)] * 100 + recent)
    other = taught([(0.8, False)] * 100 + recent)
    for score in (0.6, 0.9):
        assert rate_of(one.slope * log_odds(score) + one.offset) == pytest.approx(
            rate_of(other.slope * log_odds(score) + other.offset), abs=0.03
        )


# -- evidence ----------------------------------------------------------------------------------------------------------


def record(task_id="t", status=TaskStatus.COMPLETED, **fields):
    task = fields.pop("task", None) or Task(task_id=task_id, features={"size": 3.0}, estimated_duration_s=2.0)
    return TaskRecord(task=task, status=status, **({"attempts": 1, "ran_by": "a", "agent_id": "a"} | fields))


def learned(*records):
    evidence = Evidence()
    evidence.learn(WaveRecord(run_id="r", number=1, tasks={one.task.task_id: one for one in records}))
    return evidence


def test_an_attempt_is_remembered_with_what_was_known_before():
    """Agent, kind, rate as it came in for that agent, heuristics, features, outcome, and the log of its multiple of the estimate."""
    task = Task(
        task_id="t", kind="review", predictions={"a": 0.4}, heuristics=("h",), features={"size": 3.0}, estimated_duration_s=2.0
    )
    (seen,) = learned(record(task=task, duration_s=6.0)).observations
    assert seen == Observation("a", "review", 0.4, ("h",), {"size": 3.0}, True, pytest.approx(log(3.0)))


def test_every_attempt_counts_in_order():
    """What failed and was made again is remembered of those that failed, before how it ended."""
    made = record(status=TaskStatus.FAILED, failures=[("a", 1.0), ("b", 4.0)], ran_by="c", duration_s=None, attempts=3)
    evidence = learned(made, record("u"))
    told = [(seen.agent_id, seen.success, seen.stretch) for seen in evidence.observations]
    assert told == [
        ("a", False, pytest.approx(log(0.5))), ("b", False, pytest.approx(log(2.0))), ("c", False, None), ("a", True, None),
    ]  # fmt: skip
    assert evidence.learned == 4


@pytest.mark.parametrize(
    "made",
    [
        record(task=Task(task_id="t")),
        record(attempts=0),
        *[record(status=status) for status in TaskStatus if status not in {TaskStatus.COMPLETED, TaskStatus.FAILED}],
    ],
)
def test_what_teaches_nothing(made):
    """A task without features, one never started, and one that did not end as COMPLETED or FAILED teach nothing."""
    made.score = 0.5
    assert learned(made) == Evidence()


def test_only_what_the_model_spoke_of_teaches_the_calibrator():
    """Scores are taught with their outcomes; where no model spoke the outcome is evidence alone."""
    evidence = learned(record("t", score=0.7), record("u", status=TaskStatus.FAILED, score=0.6), record("v"))
    expected = Calibrator()
    expected.learn(0.7, success=True)
    expected.learn(0.6, success=False)
    assert evidence.calibrator == expected
    assert len(evidence.observations) == 3


def test_what_nobody_is_known_to_have_run_is_nobody_s():
    """An attempt whose agent the journal does not know is remembered as nobody's."""
    assert learned(record(ran_by=None)).observations[0].agent_id == ""


def test_instants_have_a_logarithm():
    """No time taken and no time estimated are taken as the shortest time there is."""
    task = Task(task_id="t", estimated_duration_s=0.0)
    assert observation(task, "a", success=True, duration_s=0.0).stretch == 0.0
    assert observation(task, "a", success=True, duration_s=1.0).stretch == pytest.approx(log(1e6))


@given(st.floats(0.0, 1e9), st.floats(0.0, 1e9))
def test_how_much_longer_something_took_always_has_a_logarithm(duration_s, estimated_s):
    """However short what was measured or estimated is, and neither more nor less where both are alike."""
    assert isfinite(stretched(duration_s, estimated_s))
    assert stretched(duration_s, duration_s) == 0.0
    assert stretched(5e-324, 600.0) < 0.0 < stretched(600.0, 5e-324)


def test_old_observations_are_forgotten():
    """The newest attempts are kept, and the count goes on."""
    evidence = Evidence()
    for wave in range(3):
        records = [record(f"t{wave}-{n}", ran_by=f"{wave}") for n in range(400)]
        evidence.learn(WaveRecord(run_id="r", number=wave, tasks={one.task.task_id: one for one in records}))
    kept = [seen.agent_id for seen in evidence.observations]
    assert kept == ["0"] * 200 + ["1"] * 400 + ["2"] * 400
    assert (len(kept), evidence.learned) == (OBSERVATIONS_KEPT, 1200)


@given(st.lists(st.sampled_from("ab"), max_size=12), st.integers(0, 4))
def test_forgetting_an_agent_keeps_its_newest(names, kept):
    """Of one agent only the newest attempts stay, of others all, in order."""
    evidence = Evidence(observations=[Observation(name, "k", n / 100, (), {}, True) for n, name in enumerate(names)])
    before = list(evidence.observations)
    evidence.forget("a", kept)
    own = [seen for seen in before if seen.agent_id == "a"]
    assert evidence.observations == [
        seen for seen in before if seen.agent_id == "b" or seen in own[len(own) - min(kept, len(own)) :]
    ]


def test_evidence_is_plain_enough_for_a_snapshot():
    """Put away and taken up again evidence is the same."""
    task = Task(task_id="t", features={"size": 0.1 + 0.2, "where": "east"}, heuristics=("h",), estimated_duration_s=3.0)
    evidence = learned(record(task=task, duration_s=1 / 3, score=0.123456789), record("u"))
    again = codec.decode(codec.encode(evidence), Evidence)
    assert again == evidence
    assert codec.encode(again) == codec.encode(evidence)
