"""When a schedule is due, and what becomes of the times that passed."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phase21.domain.schedules import MICROS, Missed, Overlap, Recurrence, ScheduleRecord
from phase21.planning import recurrence
from phase21.planning.recurrence import Step, decide, due_times, fault_of, never, next_due, run_name

BERLIN = "Europe/Berlin"
HOUR_US = 3600 * MICROS


def us(text):
    """A time in ISO 8601 as microseconds since 1970."""
    return round(datetime.fromisoformat(text).timestamp() * MICROS)


def said(at_us, zone="UTC"):
    return f"{datetime.fromtimestamp(at_us / MICROS, UTC).astimezone(ZoneInfo(zone)):%m-%d %H:%M%z}"


def times(every, start, count, zone="UTC"):
    return [said(at_us, zone) for at_us in islice(due_times(every, us(start), us(start) - 1), count)]


# -- times ---------------------------------------------------------------------------------------------------------------


def test_a_cron_expression_is_read_in_its_time_zone():
    """Three in the morning is three in the morning there, in summer and in winter."""
    every = Recurrence(cron="0 3 * * *", timezone=BERLIN)
    assert times(every, "2026-10-24T12:00:00+00:00", 2) == ["10-25 02:00+0000", "10-26 02:00+0000"]
    assert times(every, "2026-10-23T12:00:00+00:00", 1) == ["10-24 01:00+0000"]


def test_a_time_that_does_not_exist_comes_when_the_clocks_were_put_forward():
    """Half past two on the day without it is three, once, also where three is a time of its own."""
    every = Recurrence(cron="30 2 * * *", timezone=BERLIN)
    assert times(every, "2026-03-28T12:00:00+00:00", 2, BERLIN) == ["03-29 03:00+0200", "03-30 02:30+0200"]
    every = Recurrence(cron="0,30 2,3 * * *", timezone=BERLIN)
    assert times(every, "2026-03-28T12:00:00+00:00", 3, BERLIN) == ["03-29 03:00+0200", "03-29 03:30+0200", "03-30 02:00+0200"]


def test_a_time_that_comes_twice_fires_the_first_time():
    """Half past two on the day that has it twice is the first of them, wherever one looks from."""
    every = Recurrence(cron="30 2 * * *", timezone=BERLIN)
    assert times(every, "2026-10-24T12:00:00+00:00", 2, BERLIN) == ["10-25 02:30+0200", "10-26 02:30+0100"]
    between = us("2026-10-25T01:10:00+00:00")  # 02:10 for the second time
    assert said(next_due(every, 0, between), BERLIN) == "10-26 02:30+0100"


def test_what_comes_every_few_minutes_goes_on_through_both_hours():
    """An expression with a star counts real minutes: no hour is passed over, none is left out."""
    every = Recurrence(cron="*/30 * * * *", timezone=BERLIN)
    found = list(islice(due_times(every, 0, us("2026-10-25T00:00:00+00:00") - 1), 8))
    assert {later - earlier for earlier, later in pairwise(found)} == {HOUR_US // 2}


def test_an_interval_counts_from_its_first_time():
    """Without `first` it is one interval after the acceptance; with one in the past, the grid that it began."""
    start = us("2026-01-01T00:00:10+00:00")
    plain = Recurrence(interval_s=60)
    assert next_due(plain, start, start - 1) == start + 60 * MICROS
    grid = Recurrence(interval_s=60, first=datetime(2025, 1, 1, tzinfo=UTC))
    assert next_due(grid, start, start - 1) == us("2026-01-01T00:01:00+00:00")
    at_once = Recurrence(interval_s=60, first=0.0)
    assert next_due(at_once, start, start - 1) == start


def test_first_and_until_bound_the_times():
    """Nothing is due before `first` or after `until`."""
    every = Recurrence(cron="0 * * * *", first=datetime(2026, 1, 1, 5, tzinfo=UTC), until=datetime(2026, 1, 1, 7, tzinfo=UTC))
    assert times(every, "2026-01-01T00:00:00+00:00", 9) == ["01-01 05:00+0000", "01-01 06:00+0000", "01-01 07:00+0000"]


@pytest.mark.parametrize(
    ("every", "field"),
    [
        (Recurrence(), "cron"),
        (Recurrence(cron="0 3 * * *", interval_s=5), "interval_s"),
        (Recurrence(cron="0 25 * * *"), "cron"),
        (Recurrence(cron="0 3 * * * * *"), "cron"),
        (Recurrence(interval_s=5, timezone="Europe/Atlantis"), "timezone"),
        (Recurrence(interval_s=5, timezone="../../etc"), "timezone"),
        (Recurrence(interval_s=5, timezone="Europe"), "timezone"),
    ],
)
def test_what_cannot_be_kept_is_refused_with_its_field(every, field):
    """Neither or both of cron and interval, an expression that is none, a zone that is none."""
    fault = fault_of(every)
    assert fault is not None
    assert fault.field == field


def test_what_can_be_kept_is_not_refused():
    """An interval alone, and an expression in a zone that there is."""
    assert fault_of(Recurrence(interval_s=60)) is None
    assert fault_of(Recurrence(cron="0 3 * * MON-FRI", timezone=BERLIN)) is None


def test_an_expression_that_has_no_further_time_ends(monkeypatch):
    """Where the library knows of none, nothing more is due."""
    last = datetime(2026, 1, 1, tzinfo=UTC)
    monkeypatch.setattr(recurrence, "CronSim", lambda *_: iter([last]))
    assert list(due_times(Recurrence(cron="0 0 1 1 *"), 0, 0)) == [us(last.isoformat())]


def test_what_is_never_due_is_said():
    """A date that no year has, and an end that is past."""
    leap = Recurrence(cron="0 0 30 2 *")
    assert (fault_of(leap) or never(leap, 0)).field == "cron"
    assert never(Recurrence(interval_s=60, until=30.0), 0).field == "until"
    assert never(Recurrence(cron="0 3 * * *"), 0) is None


def test_a_run_is_named_after_its_due_time():
    """The stamp is UTC, to the second, and legal in a name."""
    assert run_name("nightly", us("2026-11-21T03:00:00+01:00")) == "nightly-20261121T020000Z"


CRONS = st.sampled_from(
    ["0 3 * * *", "30 2 * * *", "*/7 * * * *", "0,30 1-3 * * *", "15 */2 * * SUN", "0 0 1 * *", "59 23 L * *", "*/20 0 * * *"]
)
ZONES = st.sampled_from(["UTC", BERLIN, "America/New_York", "Asia/Beirut", "Australia/Lord_Howe", "America/Sao_Paulo"])
MOMENTS = st.integers(us("2015-01-01T00:00:00+00:00"), us("2030-01-01T00:00:00+00:00"))
EVERY = st.one_of(
    st.builds(Recurrence, cron=CRONS, timezone=ZONES),
    st.builds(Recurrence, interval_s=st.floats(1, 1e6), first=st.one_of(st.none(), st.floats(0, 1e6))),
)


@given(EVERY, MOMENTS, st.data())
@settings(deadline=None)
def test_times_do_not_depend_on_where_one_looks_from(every, start_us, data):
    """Asked again after any moment between two times, the next is the same: a restart finds what was due."""
    found = list(islice(due_times(every, start_us, start_us - 1), 12))
    assert all(earlier < later for earlier, later in pairwise([start_us - 1, *found]))
    for earlier, later in pairwise(found):
        between = data.draw(st.integers(earlier, later - 1))
        assert next_due(every, start_us, between) == later


@given(st.builds(Recurrence, interval_s=st.floats(1, 100)), MOMENTS)
def test_no_two_times_share_a_name(every, start_us):
    """An interval of a second or more gives each time a name of its own."""
    names = [run_name("s", at_us) for at_us in islice(due_times(every, start_us, start_us - 1), 50)]
    assert len(set(names)) == len(names)


# -- decisions -----------------------------------------------------------------------------------------------------------


def schedule(missed="once", overlap="skip", interval_s=3600.0, **fields):
    every = Recurrence(interval_s=interval_s, missed=Missed(missed), overlap=Overlap(overlap), first=0.0)
    return ScheduleRecord(run_id="s", submission_id="s", every=every, tasks=(), accepted_us=0, decided_us=-1, **fields)


def walked(one, now_us, *, busy=False, freed_us=0, ends=True):
    """Every decision made at one moment, as (step, due hour, count); a run that is made ends at once, or not at all."""
    steps = []
    while (decision := decide(one, now_us, busy=busy, freed_us=freed_us)) is not None and decision.step is not Step.WAIT:
        steps.append((str(decision.step), decision.due_us // HOUR_US, decision.count, decision.reason))
        one.decided_us = decision.through_us
        if decision.step is Step.FIRE:
            busy, freed_us = not ends, now_us
    return steps


def test_what_is_on_time_fires():
    """A time that has just come fires; before it nothing is to be done."""
    assert decide(schedule(), -1, busy=False) is None
    assert walked(schedule(), 30 * MICROS) == [("fire", 0, 1, "")]


def test_missed_once_makes_up_for_the_newest():
    """All but the newest of what passed is missed."""
    assert walked(schedule("once"), 5 * HOUR_US + 600 * MICROS) == [("miss", 0, 5, "missed"), ("fire", 5, 1, "")]


def test_missed_skip_makes_up_for_nothing():
    """What is late is missed, what is on time fires."""
    assert walked(schedule("skip"), 5 * HOUR_US + 600 * MICROS) == [("miss", 0, 6, "missed")]
    assert walked(schedule("skip"), 5 * HOUR_US + 6 * MICROS) == [("miss", 0, 5, "missed"), ("fire", 5, 1, "")]


def test_missed_all_makes_up_for_each_one_after_the_other():
    """Each time becomes a run; unless they may overlap, the next waits for the one before."""
    assert [step for step, *_ in walked(schedule("all"), 3 * HOUR_US + 1, ends=True)] == ["fire"] * 4
    one = schedule("all")
    assert walked(one, 3 * HOUR_US + 600 * MICROS, ends=False) == [("fire", 0, 1, "")]
    assert decide(one, 3 * HOUR_US + 600 * MICROS, busy=True).step is Step.WAIT
    assert len(walked(schedule("all", "allow"), 3 * HOUR_US + 600 * MICROS, ends=False)) == 4


def test_missed_all_makes_up_for_what_came_before_the_run_under_way_was_made():
    """The newest of the times that passed is not late, and waits for those that are made up for all the same."""
    one, now_us = schedule("all"), 3 * HOUR_US + 6 * MICROS
    one.decided_us = 2 * HOUR_US
    assert decide(one, now_us, busy=True, made_us=now_us - 1).step is Step.WAIT
    assert decide(one, now_us, busy=True, made_us=2 * HOUR_US).step is Step.MISS


def test_overlap_skip_misses_what_comes_while_the_run_before_is_under_way():
    """On time or late, it is missed."""
    assert walked(schedule(), 1, busy=True) == [("miss", 0, 1, "overlap")]
    assert walked(schedule("once"), 2 * HOUR_US + 600 * MICROS, busy=True) == [("miss", 0, 2, "missed"), ("miss", 2, 1, "overlap")]


def test_overlap_wait_lets_a_time_wait_for_its_turn():
    """However long that takes: it counts as late only from when it could have fired."""
    one = schedule("skip", "wait")
    assert decide(one, 30 * 60 * MICROS, busy=True).step is Step.WAIT
    assert walked(one, 30 * 60 * MICROS, freed_us=30 * 60 * MICROS - 5) == [("fire", 0, 1, "")]
    late = schedule("skip", "wait")
    assert walked(late, 50 * 60 * MICROS, freed_us=30 * 60 * MICROS) == [("miss", 0, 1, "missed")]


def test_a_short_interval_is_late_once_the_next_time_has_come():
    """A second's schedule does not pile up what a stopped daemon left."""
    assert walked(schedule("once", interval_s=1.0), 30 * MICROS)[0] == ("miss", 0, 29, "missed")


def test_a_long_absence_is_decided_in_steps():
    """So many times as are looked at at once are missed together; in the end exactly one is made up for."""
    one = schedule("once", interval_s=1.0)
    now_us = 5000 * MICROS + 1
    steps = walked(one, now_us)
    assert [step for step, *_ in steps][-1] == "fire"
    assert sum(count for _, _, count, _ in steps) == 5001
    assert one.decided_us == 5000 * MICROS


@given(
    st.sampled_from(Missed),
    st.sampled_from(Overlap),
    st.lists(st.integers(0, 12 * 3600), min_size=1, max_size=20),
    st.integers(1, 7200),
)
@settings(deadline=None)
def test_every_time_is_decided_once_whenever_one_looks(missed, overlap, looks, run_s):
    """Over looks at any moments (a daemon that is down between them) each due time fires or is missed, never both, none is lost."""
    one = schedule(str(missed), str(overlap))
    decided, ends_us, now_us = [], 0, 0
    for ahead_s in looks:
        now_us += ahead_s * MICROS
        while (decision := decide(one, now_us, busy=ends_us > now_us, freed_us=min(ends_us, now_us))) is not None:
            if decision.step is Step.WAIT:
                break
            hours = range(decision.due_us // HOUR_US, decision.through_us // HOUR_US + 1)
            assert len(hours) == decision.count
            decided.extend(hours)
            one.decided_us = decision.through_us
            if decision.step is Step.FIRE:
                assert decision.count == 1
                ends_us = now_us + run_s * MICROS
    assert decided == list(range(len(decided)))
    undecided = [due for due in islice(due_times(one.every, 0, one.decided_us), 400) if due <= now_us]
    assert not undecided or ends_us > now_us


def test_the_moment_of_a_time_is_exact():
    """A time is due from its first microsecond on."""
    one = schedule()
    one.decided_us = 0
    assert decide(one, HOUR_US - 1, busy=False) is None
    assert decide(one, HOUR_US, busy=False).step is Step.FIRE
