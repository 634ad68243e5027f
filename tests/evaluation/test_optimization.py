"""What schedules were worth: metrics, anomalies, health, weights and feedback, by hand."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some

from phase21.domain.judgements import Grade
from phase21.domain.settings import HealthThresholds
from phase21.evaluation import optimization as opt
from phase21.evaluation.schedules import Slot, WaveFacts


def slot(task_id="t", success=None, **fields):
    ended = {"settled": True, "ran_by": "a"} if success is not None else {}
    return Slot(**{"task_id": task_id, "agent_id": "a", "predicted": 0.8, "success": success, **ended, **fields})


def wave(number, *slots, strategy="maximize_success", **fields):
    return WaveFacts(wave=number, strategy=strategy, agents=("a", "b"), slots=slots, **fields)


def outcomes(number, won, lost, **fields):
    made = [slot(f"t{n}", success=n < won, **fields) for n in range(won + lost)]
    return wave(number, *made)


def test_an_agent_that_stood_idle_counts_in_the_utilization():
    """Work over the wave's length, for every agent that could have worked; what it did elsewhere than planned is its own."""
    facts = wave(
        1,
        slot("t", success=True, started_s=1.0, ended_s=3.0),
        slot("u", success=True, started_s=0.0, ended_s=4.0, busy_s=1.0, ran_by="c"),
        slot("v", success=True),
        slot("w"),
    )
    assert opt.agent_utilization([facts]) == pytest.approx((0.5 + 0.0 + 0.25) / 3)
    assert opt.agent_utilization([wave(1, slot())]) is None


def test_a_wave_faster_than_planned_is_as_efficient_as_can_be():
    """The ratio of throughputs is capped at 1, and counts where both are known."""
    fast = wave(1, slot("t", success=True, starts_s=0.0, ends_s=4.0, started_s=0.0, ended_s=2.0))
    slow = wave(2, slot("t", success=True, starts_s=0.0, ends_s=4.0, started_s=0.0, ended_s=8.0))
    assert opt.throughput_efficiency([fast, slow, outcomes(3, 1, 0)]) == 0.75


def test_confidence_counts_where_it_is_known():
    """The trajectory is the mean ratio of confidence after to before."""
    known = wave(1, confidence_before=0.8, confidence_after=0.6)
    assert opt.confidence_trajectory([known, wave(2), wave(3, confidence_before=0.0, confidence_after=0.5)]) == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("value", "status"),
    [
        (None, "unknown"),
        (0.85, "normal"),
        (1.0, "normal"),
        (0.8, "warning"),
        (0.75, "warning"),
        (0.7, "critical"),
        (1.2, "critical"),
    ],
)
def test_a_metric_is_critical_more_than_a_tenth_outside(value, status):
    """Within its thresholds a metric is normal, up to 0.1 outside a warning; the edges belong to the better word."""
    assert opt.read(opt.GAUGES[0], value).status == status


def test_a_sign_needs_enough_tasks():
    """Two outcomes say nothing of a rate, three do."""
    assert opt.prediction_error([outcomes(1, 0, 2)], 0.2) is None
    assert opt.prediction_error([outcomes(1, 0, 3)], 0.2).value == pytest.approx(0.8)
    assert opt.optimization_failure([outcomes(1, 0, 2)], 0.85) is None
    assert opt.performance_degradation([outcomes(1, 2, 0), outcomes(2, 0, 3)], 0.1) is None
    assert opt.performance_degradation([outcomes(1, 3, 0), outcomes(2, 0, 2)], 0.1) is None
    assert opt.performance_degradation([outcomes(1, 3, 0), outcomes(2, 0, 3)], 0.1).waves == (2,)


def test_a_value_at_its_threshold_is_no_anomaly():
    """A comparison at the threshold is not beyond it, rounding aside."""
    assert opt.prediction_error([outcomes(1, 3, 2)], 0.2) is None
    assert opt.performance_degradation([outcomes(1, 10, 0), outcomes(2, 9, 1)], 0.1) is None
    assert opt.schedule_drift([wave(1, *(slot(f"t{n}", success=True, ran_by="ab"[n < 3]) for n in range(20)))], 0.85) is None


def test_one_wave_alone_has_not_degraded():
    """A fall needs a wave before it, and waves without outcomes are none."""
    assert opt.performance_degradation([wave(1, slot()), outcomes(2, 0, 5)], 0.1) is None
    assert opt.performance_degradation([], 0.1) is None


def test_a_strategy_of_time_is_held_to_its_throughput():
    """Round robin aims at time: success that fails to come is not its failure, slowness is."""
    late = [slot(f"t{n}", success=False, starts_s=0.0, ends_s=1.0, started_s=0.0, ended_s=2.0) for n in range(3)]
    assert opt.optimization_failure([wave(1, *late, strategy="round_robin")], 0.85).value == pytest.approx(0.5)
    on_time = [msgspec.structs.replace(one, ended_s=1.0) for one in late]
    assert opt.optimization_failure([wave(1, *on_time, strategy="round_robin")], 0.85) is None
    assert opt.optimization_failure([wave(1, *on_time)], 0.85).value == 0.0
    assert opt.optimization_failure([wave(1, *(slot(f"t{n}", success=False, predicted=0.0) for n in range(3)))], 0.85) is None


def test_whom_an_anomaly_concerns_is_named_worst_first():
    """Agents stand by their failures, ties by name; who succeeded is not among them, nor waves that are in order."""
    slots = [slot(f"t{n}", success=False, ran_by=who) for n, who in enumerate("bcca")] + [slot("won", success=True, ran_by="d")]
    found = opt.prediction_error([outcomes(1, 4, 1), wave(2, *slots)], 0.2)
    assert (found.waves, found.agents) == ((2,), ("c", "a", "b"))
    unsettled = slot("u", agent_id="d")
    strayed = opt.schedule_drift([wave(1, slot("t", success=True)), wave(2, *slots, unsettled)], 0.85)
    assert (strayed.waves, strayed.agents) == ((2,), ("a",))


def test_health_is_over_what_is_known():
    """Parts that nobody knows do not count; stability falls by ten points an anomaly, to 0."""
    measured = tuple(opt.read(gauge, 0.5 if gauge.metric_name == "schedule_accuracy" else None) for gauge in opt.GAUGES)
    made = opt.health(measured, 12, HealthThresholds())
    assert made.overall_health_score == pytest.approx((0.4 * 50 + 0.1 * 0) / 0.5)
    assert made.component_scores == {
        "optimization_accuracy": 50.0,
        "schedule_adherence": None,
        "throughput_efficiency": None,
        "system_stability": 0.0,
    }


@pytest.mark.parametrize(
    ("share", "grade"), [(1.0, Grade.EXCELLENT), (0.9, Grade.EXCELLENT), (0.7, Grade.GOOD), (0.5, Grade.FAIR), (0.2, Grade.POOR)]
)
def test_health_bears_the_houses_grades(share, grade):
    """The thresholds are those of `health.thresholds`."""
    measured = tuple(opt.read(gauge, share) for gauge in opt.GAUGES)
    anomalies = round(10 * (1 - share))
    made = opt.health(measured, anomalies, HealthThresholds())
    assert made.overall_health_score == pytest.approx(100 * share)
    assert made.health_status is grade


@given(some.lists(some.booleans(), max_size=30), some.floats(0.5, 2.0), some.floats(0, 1))
def test_a_weight_stays_within_its_bounds(won, before, predicted):
    """Whatever came of a heuristic's tasks its weight lies between a half and two, and moves the way of its outcomes."""
    facts = wave(1, *(slot(f"t{n}", success=one, predicted=predicted, heuristics=("h",)) for n, one in enumerate(won)))
    (record,) = opt.heuristic_records([facts], {"h": before})
    assert opt.WEIGHT_LEAST <= record.weight <= opt.WEIGHT_MOST
    over = sum(won) - predicted * len(won)
    assert record.weight == before or (record.weight > before) == (over > 0)


def test_tasks_without_outcome_or_prediction_weigh_nothing():
    """A heuristic is judged by predictions that met their outcome."""
    facts = wave(1, slot("t", heuristics=("h",)), slot("u", success=True, predicted=None, heuristics=("h",)))
    (record,) = opt.heuristic_records([facts], {})
    assert (record.samples, record.weight) == (0, 1.0)


def test_feedback_says_which_way():
    """A strategy that did not hold is to be compared, an agent that did better or as predicted is told so, a weight that stays too."""
    better = [slot(f"b{n}", success=True, predicted=0.3, agent_id="b", ran_by="b") for n in range(9)]
    kept = [slot(f"a{n}", success=n < 4, heuristics=("h",)) for n in range(5)]
    waves = [wave(1, *better, *kept)]
    told = {one.feedback_id.removeprefix("P19_LS_"): one for one in opt.feedback(waves, opt.heuristic_records(waves, {}))}
    assert told["STRATEGY_VALIDATION_maximize_success"].recommendation == "hold maximize_success against other strategies"
    assert told["AGENT_PERFORMANCE_b"].recommendation == "raise what is predicted of it"
    assert told["AGENT_PERFORMANCE_a"].recommendation == "keep its share of the tasks"
    assert "kept" in told["HEURISTIC_UPDATE_h"].description
    good = [wave(1, *(slot(f"t{n}", success=True, predicted=1.0) for n in range(3)))]
    assert opt.feedback(good, [])[0].recommendation == "continue with maximize_success"
    swayed = [wave(1, slot("t", success=True, heuristics=("up",)), slot("u", success=False, heuristics=("down",)))]
    said = {one.heuristic_id: one for one in opt.heuristic_records(swayed, {})}
    assert said["down"].weight < 1.0 < said["up"].weight
    assert "raised" in opt.feedback(swayed, [said["up"]])[1].description
    assert "lowered" in opt.feedback(swayed, [said["down"]])[1].description


def test_an_agents_share_is_of_what_it_carried_out():
    """A task counts for whoever carried it out, and until then for whoever is to; every agent of a wave is named."""
    facts = wave(1, slot("t", success=True, ran_by="c", predicted=None), slot("u"))
    found = {one.agent_id: (one.tasks, one.ended, one.successes, one.predicted_sum) for one in opt.agent_shares([facts])}
    assert found == {"a": (1, 0, 0, 0.0), "b": (0, 0, 0, 0.0), "c": (1, 1, 1, 0.0)}


def test_all_five_metrics_and_all_four_anomalies_are_looked_for():
    """Readings come in the order of the gauges, sightings in that of the signs; waves in order show nothing."""
    good, bad = outcomes(1, 5, 0, predicted=1.0), outcomes(2, 0, 5, predicted=1.0)
    assert [one.metric_name for one in opt.readings([good])] == [gauge.metric_name for gauge in opt.GAUGES]
    assert {one.metric_name: one.value for one in opt.readings([good, bad])} == {
        "schedule_accuracy": 0.5,
        "throughput_efficiency": None,
        "agent_utilization": None,
        "confidence_trajectory": None,
        "schedule_adherence": 1.0,
    }
    moved = wave(2, *(msgspec.structs.replace(one, ran_by="b") for one in bad.slots))
    assert [one.sign.anomaly_type for one in opt.seen([good, moved])] == [sign.anomaly_type for sign in opt.SIGNS]
    assert opt.seen([good]) == ()
    assert opt.strategy_effectiveness([good, bad, wave(3, strategy="thompson")]) == {"maximize_success": 0.5, "thompson": None}


def test_nobody_looked_is_not_health():
    """Without accuracy, adherence and throughput there is no score, however stable."""
    made = opt.health(tuple(opt.read(gauge, None) for gauge in opt.GAUGES), 0, HealthThresholds())
    assert (made.overall_health_score, made.health_status, made.component_scores["system_stability"]) == (
        None,
        Grade.UNKNOWN,
        100.0,
    )
