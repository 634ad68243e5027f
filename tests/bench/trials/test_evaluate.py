"""The evaluation over a small folder of the format that is made up here, where what is right is known."""

from __future__ import annotations

import json

import pytest
from made_up import suits, write

from phase21.bench.trials import evaluate, gaps, honesty, planning, retries, sets

SEEDS = range(3)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write(tmp_path_factory.mktemp("data") / "eval")


@pytest.fixture(scope="module")
def scenario(data):
    (found,) = sets.algorithm_selection(data)
    return found


def test_a_scenario_is_read_whole(scenario):
    """Unsolved is a failure that lasts until the cutoff; what is missing of a task's features is left out."""
    assert scenario.agents == ("s0", "s1", "s2", "s3")
    assert all(scenario.success[task][agent] == (suits(task, agent),) for task in range(160) for agent in range(4))
    assert scenario.seconds[0][1] == 100.0 > scenario.seconds[0][0]
    assert set(scenario.features[0]) == {"side", "size"}
    assert set(scenario.features[7]) == {"side"}


def test_fleets_of_more_than_eight_are_left_out(data):
    """Each fleet of up to eight is a set of its own, with every trial of every pair."""
    (found,) = sets.repeated_trials(data)
    assert (found.fleet, found.trials, len(found.tasks)) == ("four", 5, 10)
    assert found.features[0] == {"words": 0.0, "kind": "even"}


def test_a_folder_without_sets_has_none(tmp_path):
    """What is not there is left out."""
    assert not [*sets.algorithm_selection(tmp_path), *sets.repeated_trials(tmp_path), *sets.single_runs(tmp_path)]
    assert not sets.switched(tmp_path)


def test_what_features_tell_is_learned(scenario):
    """Where features say who can do a task, most of the gap is closed in the second half, and nothing before the first outcome."""
    runs = [list(gaps.run(scenario, 15, seed, exploration=0.0)) for seed in SEEDS]
    gap = gaps.gap_of(runs)
    assert gap.second_half > 0.75
    assert gap.whole < gap.second_half
    assert gap.round_robin == pytest.approx(0.5)
    first = [one for run in runs for one in run if one.position < 20]
    assert {one.predicted for one in first} == {0.85}


def test_capacities_hold(scenario):
    """No agent is given more of a wave than the cap, or than what it takes to seat the wave."""
    assert gaps.capacity(scenario, 3) == 5
    made = list(gaps.run(scenario, 3, 0, exploration=0.5))
    for start in range(0, len(made), 20):
        agents = [one.agent for one in made[start : start + 20]]
        assert max(agents.count(agent) for agent in range(4)) == 5


def test_the_oracle_does_not_see_the_trial_that_counts(data):
    """With several trials of a pair the oracle goes by the others; it does better than round robin all the same."""
    (found,) = sets.repeated_trials(data)
    gap = gaps.gap_of([list(gaps.run(found, 5, seed, exploration=0.0)) for seed in SEEDS])
    assert gap.round_robin < gap.oracle < 1.0


def test_no_gap_is_no_division(scenario):
    """Where nothing can be gained, nothing is."""
    made = [gaps.Made(position=0, agent=0, predicted=0.5, success=True, round_robin=1.0, oracle=1.0, features=0)]
    assert gaps.gap_of([made]).whole == 0.0


def test_another_agent_after_a_failure(data):
    """Going to whoever is predicted best after a failure beats the same agent again, in success and in attempts."""
    (found,) = sets.repeated_trials(data)
    learned = retries.summed([ran for seed in SEEDS for ran in retries.learned(found, 5, seed, 0.0)])
    same = retries.summed([ran for seed in SEEDS for ran in retries.baseline(found, seed, same=True)])
    other = retries.summed([ran for seed in SEEDS for ran in retries.baseline(found, seed, same=False)])
    known = retries.summed([ran for seed in SEEDS for ran in retries.hindsight(found, seed)])
    assert learned.success > max(same.success, 0.9)
    assert learned.attempts < same.attempts
    assert same.second < other.second
    assert 0.0 < known.success <= 1.0


def test_one_attempt_each_has_no_second():
    """Where everything succeeds at once there is no second attempt to speak of."""
    assert retries.summed([[("a", True, 1.0)]]) == retries.Retried(success=1.0, attempts=1.0, second=0.0)


def test_ours_is_more_honest_than_a_constant(scenario):
    """Once enough is known our predictions beat a constant and the base rate."""
    runs = [list(gaps.run(scenario, 5, seed, exploration=0.0)) for seed in range(6)]
    pooled = {}
    for run in runs:
        for name, pairs in honesty.predictions(scenario, [run]).items():
            pooled.setdefault(name, []).extend(pairs[4 * gaps.WAVE :])
    briers = {name: honesty.honesty_of(pairs).brier for name, pairs in pooled.items()}
    assert briers["ours"] < min(briers["base rate"], briers["constant"])


def test_after_a_switch_predictions_hold_again(data):
    """Some 200 tasks after an agent was exchanged, what is predicted is near what happens again."""
    before, after = honesty.after_switch(sets.switched(data), 0)
    assert honesty.honesty_of(before).ece < 0.1
    assert len(after) == 200
    assert honesty.honesty_of(after).ece < 0.15


def test_dealing_says_its_gap():
    """A plan of random rates is as good as its bound."""
    assert planning.dealt(20, 8).gap == pytest.approx(0.0, abs=1e-9)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(planning, "SIZES", ((20, 8),))
    monkeypatch.setattr(planning, "FORECAST_TASKS", 50)


def test_the_table_as_json(data, quick, capsys):
    """One command runs every trial that the folder has sets for."""
    assert evaluate.main([str(data), "--seeds", "1", "--jobs", "2", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["trial"] for row in rows} >= {"gap", "retries", "makespan", "calibration", "drift", "planning", "forecasts"}
    mean = next(row for row in rows if row["set"] == "aslib" and row["trial"] == "gap")
    assert 0.0 < mean["second_half"] <= 1.0
    again = evaluate.evaluated(data, 1, 1)
    timed = {"planning", "forecasts"}
    assert [row for row in again if row["trial"] not in timed] == [row for row in rows if row["trial"] not in timed]


def test_the_table_for_people(capsys):
    """Each figure stands beside what it must reach."""
    evaluate.show(
        [
            {"trial": "gap", "set": "aslib", "fleet": "mean", "cap": 3, "whole": 0.5, "second_half": 0.6},
            {"trial": "gap", "set": "swe_verified", "fleet": "spread", "cap": 3, "whole": 0.2},
            {"trial": "gap", "set": "swe_mini", "fleet": "spread", "cap": 3, "whole": 0.2},
            {"trial": "retries", "set": "terminal_bench", "fleet": "x", "way": "learned", "success": 0.7},
            {"trial": "calibration", "set": "llmdrift", "way": "after a switch", "ece": 0.05},
            {"trial": "forecasts", "set": "10000 x 64", "pairs_per_second": 543210.0},
        ]
    )
    told = capsys.readouterr().out
    assert "whole 0.45, second half 0.60" in told
    assert "ECE 0.06" in told
    assert "543,210" in told


def test_nothing_to_evaluate(tmp_path, quick, capsys):
    """A folder that holds none of the sets is refused in one line."""
    assert evaluate.main([str(tmp_path), "--seeds", "1", "--jobs", "1"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
