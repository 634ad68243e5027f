"""Alarms come as rarely as the user says, soon after a change, and tell which way, since when and whether it is over."""

import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phase21.domain.sequential import MOST_MARKS, PRIOR, SHIFTS, Mark, Standing, Watch, step


def drawn(seed, rates, tasks=3):
    dice = random.Random(seed)
    return [(sum(dice.random() < rate for _ in range(tasks)), tasks) for rate in rates]


def folded(waves, watch=None, **said):
    watch, alarms = watch or Watch(), []
    for number, (won, tasks, *expected) in enumerate(waves, 1):
        watch, alarm = step(watch, number, won, tasks, expected=expected[0] if expected else None, **said)
        if alarm is not None:
            alarms.append(alarm)
    return watch, alarms


@pytest.mark.parametrize(("rate", "tasks"), [(0.3, 2), (0.5, 3), (0.7, 3), (0.9, 2), (0.97, 20), (0.5, 100), (1.0, 500)])
def test_a_healthy_agent_is_left_alone(rate, tasks):
    """Where nothing changes, the share of waves with an alarm is about what was allowed: at most 0.3 % where that is 0.1 %."""
    _, alarms = folded(drawn(7, [rate] * 4000, tasks))
    assert len(alarms) <= 12


def test_the_user_sets_the_rate():
    """Ten times the false alarms allowed brings more of them, and never more than twice what was allowed."""
    waves = [wave for seed, rate in enumerate((0.3, 0.5, 0.6, 0.8)) for wave in drawn(seed, [rate] * 1000)]
    counts = []
    for allowed in (0.0001, 0.001, 0.01):
        counts.append(sum(len(folded(waves[at : at + 1000], false_alarms=allowed)[1]) for at in range(0, 4000, 1000)))
        assert counts[-1] <= 2 * allowed * 4000 + 2
    assert counts[0] <= counts[1] < counts[2]


@pytest.mark.parametrize(("before", "after", "standing"), [(0.8, 0.2, Standing.DEGRADED), (0.3, 0.9, Standing.IMPROVED)])
def test_a_big_change_is_found(before, after, standing):
    """Nine of ten big changes are found within ten waves of three, in their direction, and dated to within four waves."""
    hits = 0
    for seed in range(60):
        _, alarms = folded(drawn(seed, [before] * 40 + [after] * 10))
        late = [alarm for alarm in alarms if alarm.wave > 40]
        hits += bool(late) and late[0].standing is standing and abs(late[0].since_wave - 41) <= 4
    assert hits >= 54


def test_what_an_alarm_tells():
    """An alarm says since when, the rates and tasks on either side, its evidence, and how sure it is."""
    watch, alarms = folded([(3, 4)] * 20 + [(0, 4)] * 2)
    (alarm,) = alarms
    assert (alarm.since_wave, alarm.wave, alarm.standing, alarm.recovered) == (21, 22, Standing.DEGRADED, False)
    assert (alarm.rate_before, alarm.rate_after, alarm.tasks_before, alarm.tasks_after) == (0.75, 0.0, 80, 8)
    assert (alarm.expected_before, alarm.expected_after) == (0.5, 0.5)
    assert alarm.evidence > 5.9
    assert 0.79 < alarm.confidence < 1.0
    assert (watch.seen, watch.marks) == (Mark(22, 8, 0, 4.0), (Mark(21, 0, 0, 0.0), Mark(22, 4, 0, 2.0)))
    assert watch.standing is Standing.DEGRADED
    assert set(watch.down + watch.up) == {0.0}


def test_recovery():
    """An outage that ends is told as recovered, and what is normal may be learned anew."""
    watch, alarms = folded([(3, 4)] * 20 + [(0, 4)] * 6 + [(3, 4)] * 10)
    assert [(alarm.standing, alarm.recovered) for alarm in alarms] == [(Standing.DEGRADED, False), (Standing.STEADY, True)]
    assert alarms[1].since_wave == 27
    assert (watch.standing, watch.normal) == (Standing.STEADY, None)


def test_half_a_recovery():
    """A second change away from what was normal, or only past it, is no recovery; standing is against what was normal."""
    _, worse = folded([(19, 20)] * 20 + [(10, 20)] * 20 + [(1, 20)] * 10)
    assert [(alarm.standing, alarm.recovered) for alarm in worse] == [(Standing.DEGRADED, False)] * 2
    _, better = folded([(10, 20)] * 20 + [(5, 20)] * 30 + [(20, 20)] * 10)
    assert [alarm.standing for alarm in better] == [Standing.DEGRADED, Standing.IMPROVED]
    assert not better[1].recovered


def test_harder_tasks_are_no_worse_agent():
    """Where the forecast knows that tasks got harder, doing worse at them is no alarm; the same outcomes unexplained are one."""
    waves = drawn(5, [0.85] * 40 + [0.3] * 30)
    explained = [(won, tasks, tasks * (0.85 if number < 40 else 0.3)) for number, (won, tasks) in enumerate(waves)]
    assert folded(waves)[1]
    assert not folded(explained)[1]


def test_a_worse_agent_among_easier_tasks():
    """An agent that only holds its rate while its tasks got easier has become worse."""
    waves = [(won, tasks, tasks * (0.4 if number < 40 else 0.85)) for number, (won, tasks) in enumerate(drawn(2, [0.45] * 70))]
    _, alarms = folded(waves)
    assert [alarm.standing for alarm in alarms] == [Standing.DEGRADED]
    assert alarms[0].expected_after == pytest.approx(0.85)


@pytest.mark.parametrize(("won", "tasks", "expected"), [(-1, 3, None), (4, 3, None), (1, 3, 3.5), (1, 3, -0.1)])
def test_impossible_waves(won, tasks, expected):
    """More successes, or more expected, than tasks is refused."""
    with pytest.raises(ValueError, match="successes of"):
        step(Watch(), 1, won, tasks, expected=expected)


def test_a_wave_without_tasks():
    """An agent that had nothing to do is as it was."""
    watch, _ = step(Watch(), 1, 2, 3)
    assert step(watch, 2, 0, 0) == (watch, None)


waves_of = st.lists(
    st.integers(0, 600).flatmap(lambda tasks: st.tuples(st.integers(0, tasks), st.just(tasks), st.floats(0, tasks))), max_size=60
)


@settings(max_examples=60, deadline=None)
@given(waves=waves_of, cut=st.integers(0, 60), allowed=st.sampled_from([0.0001, 0.001, 0.05]))
def test_goes_on_from_disk_as_if_nothing_had_been(waves, cut, allowed):
    """A watch that was written and read takes every further step bit for bit the same, and stays a distribution of bounded size."""
    first, _ = folded(waves[:cut], false_alarms=allowed)
    read = msgspec.json.decode(msgspec.json.encode(first), type=Watch)
    assert read == first
    there, here = (folded(waves[cut:], watch, false_alarms=allowed) for watch in (first, read))
    assert there == here
    assert len(here[0].marks) <= MOST_MARKS
    assert sum(here[0].past) == pytest.approx(1.0)
    assert len(msgspec.json.encode(here[0])) < 6000


def test_what_is_learned_does_not_hang_on_how_waves_are_cut():
    """The weights of the past are the same for twelve outcomes at once as for twelve one by one, in any order."""
    at_once, _ = step(Watch(), 1, 7, 12)
    for outcomes in ([1] * 7 + [0] * 5, [0, 1] * 5 + [1, 1]):
        one_by_one, alarms = folded([(won, 1) for won in outcomes])
        assert not alarms
        assert one_by_one.past == pytest.approx(at_once.past)
        assert (one_by_one.seen.tasks, one_by_one.seen.successes) == (at_once.seen.tasks, at_once.seen.successes)


def test_marks_are_thinned():
    """However long the stream, few places are remembered, the latest of them all."""
    watch, alarms = folded([(1, 2)] * 500)
    assert not alarms
    assert len(watch.marks) <= MOST_MARKS
    assert [mark.wave for mark in watch.marks][-10:] == list(range(491, 501))
    assert watch.marks[0] == Mark(1, 0, 0, 0.0)


def test_evidence_that_no_split_bears_out_is_held():
    """Odds beyond the threshold without a split of the stream that shows as much raise no alarm, and do not pile up."""
    odds = tuple(1e9 if place == 3 else 0.0 for place in range(len(SHIFTS)))
    strange = Watch(seen=Mark(10, 20, 10, 10.0), past=PRIOR, up=odds, marks=(Mark(1, 0, 0, 0.0), Mark(6, 10, 5, 5.0)))
    watch, alarm = step(strange, 11, 1, 2)
    assert alarm is None
    assert sum(watch.up) + sum(watch.down) == pytest.approx(1.0)
    alone = msgspec.structs.replace(strange, marks=())
    _, alarm = step(alone, 11, 0, 2)
    assert alarm is None


def test_a_huge_wave_counts_for_a_few_tasks():
    """A wave's outcomes share causes: a thousand of them teach no more than twenty with the same rate do."""
    assert step(Watch(), 1, 750, 1000)[0].past == pytest.approx(step(Watch(), 1, 15, 20)[0].past)
