"""What the ledger keeps of a judged wave for later ones: tests, evidence since a change, a run's course."""

import random

import pytest

from phase21.domain import events as ev
from phase21.domain.evidence import Evidence, Observation
from phase21.domain.judgements import Calibration, Grade, Health, Metrics
from phase21.domain.ledger import Ledger
from phase21.domain.records import AgentRecord, RunRecord, WavePlanFigures, WaveRecord
from phase21.domain.runs import Run
from phase21.domain.sequential import ENOUGH_TASKS, MOST_PER_WAVE, NOTHING, Mark, Seen, Watch, observe, step
from phase21.domain.watching import COURSE_WAVES, Change, changes, course_of, since_change


def looked(watch, waves, **said):
    alarms = []
    for number, (won, tasks) in enumerate(waves, 1):
        watch, alarm = observe(watch, number, won, tasks, expected=tasks / 2, false_alarms=0.001, **said)
        if alarm is not None:
            alarms.append((number, alarm))
    return watch, alarms


# -- what is put off -----------------------------------------------------------------------------------------------------


def test_spotless_waves_wait():
    """Where nothing has ever failed up to twenty tasks wait, and are looked at together."""
    watch, _ = looked(Watch(), [(3, 3)] * 6)
    assert (watch.seen, watch.pending) == (NOTHING, Mark(1, 18, 18, 9.0))
    assert watch.tasks == 18
    watch, _ = looked(watch, [(3, 3)])
    assert (watch.seen.tasks, watch.pending, watch.tasks) == (21, NOTHING, 21)


def test_the_first_failure_stands_alone():
    """What waits is looked at before the wave that brings the first failure, so that the change is seen where it is."""
    watch, _ = looked(Watch(), [(3, 3)] * 5 + [(0, 3)])
    assert (watch.seen.tasks, watch.pending) == (18, NOTHING)
    assert [mark.tasks for mark in watch.marks] == [0, 15]


def test_a_single_task_waits_for_another():
    """One task waits, two are looked at, whatever came of them; a first failure that is alone waits too."""
    watch, _ = looked(Watch(), [(0, 1)])
    assert (watch.seen, watch.pending.tasks) == (NOTHING, 1)
    watch, _ = looked(watch, [(1, 1)])
    assert (watch.seen.tasks, watch.pending) == (2, NOTHING)
    watch, _ = looked(Watch(), [(3, 3), (3, 3), (0, 1)])
    assert (watch.seen.tasks, watch.pending) == (6, Mark(3, 1, 0, 0.5))


@pytest.mark.parametrize("seed", range(5))
def test_putting_off_finds_what_looking_at_once_does(seed):
    """A big change in a stream of small waves is found within a few tasks of where `step` finds it, and begins at the same place."""
    dice = random.Random(seed)
    waves = [(sum(dice.random() < rate for _ in range(2)), 2) for rate in [0.97] * 30 + [0.1] * 20]
    plain, at = Watch(), None
    for number, (won, tasks) in enumerate(waves, 1):
        plain, alarm = step(plain, number, won, tasks, expected=tasks / 2)
        if alarm is not None and at is None:
            at = number
    _, alarms = looked(Watch(), waves, run_id="r")
    first, alarm = alarms[0]
    assert abs(first - at) <= 2
    assert (alarm.since_run, alarm.rises) == ("r", False)
    assert 28 <= alarm.since_wave <= 33


def test_more_expected_than_tasks_by_a_hair():
    """Sums of rates that come to a hair more than the tasks are taken as all of them."""
    watch, _ = observe(Watch(), 1, 0, 3, expected=3.0000000000000004, false_alarms=0.001)
    assert watch.seen.expected == 3.0


# -- what remains --------------------------------------------------------------------------------------------------------


def alarmed():
    """The change that a long good past and a few failures make."""
    watch, number = Watch(), 0
    for number in range(1, 31):
        watch, _ = step(watch, number, 2, 2, expected=1.8)
    while True:
        number += 1
        seen = Seen("a", "k", 2, 0, 1.8)
        (change,) = changes([seen], [{"k": watch}], run_id="r", wave=number, false_alarms=0.001)
        if change.alarm is not None:
            return change
        watch = change.watch


def test_evidence_since_a_change():
    """What remains is what came since, but for the wave that tells, which is not in the evidence yet; durations keep their mean."""
    change = alarmed()
    had = Calibration(60 + change.alarm.tasks_after - 2, 60, 55.0, 50, 25.0)
    left = since_change(had, change)
    assert left.samples == change.alarm.tasks_after - 2 > 0
    assert left.successes == 0
    assert left.predicted_sum == pytest.approx(0.9 * left.samples)
    assert 0 < left.measured <= left.samples
    assert left.stretch_sum == pytest.approx(0.5 * left.measured)
    assert since_change(Calibration(60, 60, 55.0), change).stretch_sum == 0.0


def test_no_evidence_remains_where_the_wave_that_tells_is_all():
    """Where the change began with this very wave, or there was no evidence, none remains."""
    change = alarmed()
    whole = change.seen
    of_all = Change(Seen("a", "k", change.alarm.tasks_after, 0, 9.0), change.watch, change.alarm)
    assert since_change(Calibration(60, 60, 55.0), of_all) == Calibration()
    assert since_change(Calibration(), Change(whole, change.watch, change.alarm)) == Calibration()


def test_observations_of_the_kind_are_forgotten():
    """Evidence of the agent at that kind goes, but for the newest; other kinds and agents keep theirs."""

    def one(agent_id, kind, raw):
        return Observation(agent_id, kind, raw, (), {}, success=True)

    evidence = Evidence(observations=[one("a", "k", 0.1), one("b", "k", 0.2), one("a", "other", 0.3), one("a", "k", 0.4)])
    evidence.forget("a", 1, "k")
    assert [seen.raw for seen in evidence.observations] == [0.2, 0.3, 0.4]
    evidence.forget("a", -1)
    assert [seen.raw for seen in evidence.observations] == [0.2]


# -- in the ledger -------------------------------------------------------------------------------------------------------


def metrics(started=10, won=9, confidence=0.9):
    return Metrics(
        success_rate=won / started if started else None,
        availability=1.0,
        confidence=confidence,
        prediction_error=None,
        accuracy=None,
        brier_score=None,
        load_balance=None,
        completed_tasks=won,
        failed_tasks=started - won,
        started_tasks=started,
    )


PLAN = WavePlanFigures(
    strategy="thompson",
    num_agents=1,
    num_tasks=10,
    expected_duration_s=2.0,
    sequential_duration_s=2.0,
    load_balance=1.0,
    planning_s=0.0,
)


def wave_of(number=1, planned=PLAN):
    return WaveRecord(run_id="r", number=number, tasks={}, planned=planned, opened_us=1_000_000, settled_us=4_000_000)


def test_course_of_a_wave():
    """A wave in a few figures; one that was not planned, or of which nothing was started, has none."""
    course = course_of(wave_of(), metrics())
    assert (course.wave, course.strategy, course.tasks, course.successes) == (1, "thompson", 10, 9)
    assert (course.predicted, course.expected_s, course.actual_s) == (9.0, 2.0, 3.0)
    assert course_of(wave_of(planned=None), metrics()) is None
    assert course_of(wave_of(), metrics(0, 0, None)) is None


def judged(number, *seen, won=9):
    health = Health(score=80.0, status=Grade.GOOD, metrics=metrics(won=won), agents=())
    return ev.HealthScored(run_id="r", wave=number, health=health, seen=seen)


def house(**kinds):
    ledger = Ledger()
    ledger.runs["r"] = Run(record=RunRecord(run_id="r"))
    ledger.agents["a"] = AgentRecord(agent_id="a", kinds=kinds)
    return ledger


def folded(ledger, *events):
    for event in events:
        ledger.runs["r"].waves[event.wave] = wave_of(event.wave)
        ledger.fold(ev.Entry(ledger.position + 1, 1, event))


def test_the_fold_goes_on_with_the_tests():
    """A judgement takes the run's and the agents' tests further; what it says of unknown agents is passed over."""
    ledger = house()
    parts = (Seen("", "k", 4, 3, 2.0), Seen("a", "k", 4, 3, 2.0), Seen("gone", "k", 4, 3, 2.0))
    folded(ledger, judged(1, *parts), judged(2))
    assert ledger.agents["a"].watches["k"] == ledger.runs["r"].record.watches["k"]
    assert ledger.agents["a"].watches["k"].seen.tasks == 4
    assert [course.wave for course in ledger.runs["r"].record.course] == [1, 2]


def test_foreseen_and_folded_are_one():
    """What the ledger says a judgement will make of the tests is what the fold makes of them, asked before or not."""
    asked, unasked = house(), house()
    waves = [judged(n, Seen("a", "k", 2, 2 if n < 30 else 0, 1.8)) for n in range(1, 40)]
    alarms = []
    for event in waves:
        alarms += [change.alarm for change in asked.changes(event) if change.alarm]
        assert asked.changes(event) is asked.changes(event)
        folded(asked, event)
        folded(unasked, event)
    assert asked.agents == unasked.agents
    assert len(alarms) == 1


def test_an_alarm_drops_the_evidence_of_its_kind():
    """When the fold finds that an agent has changed, its evidence at that kind becomes what came since; others stay."""
    ledger = house(k=Calibration(200, 190, 180.0), other=Calibration(7, 7, 6.0))
    for agent_id, kind in (("a", "k"), ("a", "other"), ("b", "k")):
        ledger.evidence.observations += [Observation(agent_id, kind, 0.9, (), {}, success=True)] * 50
    folded(ledger, *[judged(n, Seen("a", "k", 2, 2 if n < 30 else 0, 1.8)) for n in range(1, 40)])
    assert ledger.agents["a"].kinds["other"] == Calibration(7, 7, 6.0)
    assert 0 < ledger.agents["a"].kinds["k"].samples < 20
    assert [(seen.agent_id, seen.kind) for seen in ledger.evidence.observations].count(("a", "k")) < 20
    assert len([seen for seen in ledger.evidence.observations if (seen.agent_id, seen.kind) != ("a", "k")]) == 100
    assert ledger.agents["a"].kinds["k"].successes <= 1


def test_an_alarm_without_evidence():
    """An alarm about a kind of which nothing is kept drops nothing."""
    ledger = house()
    folded(ledger, *[judged(n, Seen("a", "k", 2, 2 if n < 30 else 0, 1.8)) for n in range(1, 40)])
    assert ledger.agents["a"].kinds == {}
    assert ENOUGH_TASKS < MOST_PER_WAVE


def test_a_course_is_bounded():
    """Only the newest waves of a run are remembered."""
    ledger = house()
    folded(ledger, *[judged(n) for n in range(1, 30)])
    assert [course.wave for course in ledger.runs["r"].record.course] == list(range(30 - COURSE_WAVES, 30))
