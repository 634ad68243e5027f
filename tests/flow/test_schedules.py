"""Schedules: runs that are made again and again, over restarts, pauses and jumps."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter

import pytest
from cutting import journal_of, written
from msgspec import convert
from players import after, entries
from stage import configured, control, finished, house_in, sure

from phase21.domain import events as ev
from phase21.domain.schedules import Recurrence
from phase21.store.clock import VIRTUAL_EPOCH_US

pytestmark = pytest.mark.looptime

HOUR_S = 3600.0


def stand(house, run_id="s", duration_s=1.0, **every):
    """Accept a schedule of one task."""
    position = house.journal.ledger.position + 1
    tasks = (sure("t", payload={"duration_s": duration_s}, timeout_s=1e6),)
    recurrence = convert({"interval_s": HOUR_S, **every}, Recurrence)
    house.journal.append(ev.ScheduleAccepted(submission_id=f"x{position}", run_id=run_id, every=recurrence, tasks=tasks))


def keep_time(house):
    """Have the house's schedules fired, until it goes."""
    house._read(house.timekeeper.run(asyncio.Event()), "timekeeper")


def fired_s(house):
    """The due times that fired, in seconds of the stage's time, and when they did."""
    return [
        (round((entry.event.due_us - VIRTUAL_EPOCH_US) / 1e6), round((entry.at_us - VIRTUAL_EPOCH_US) / 1e6))
        for entry in entries(house, ev.ScheduleFired)
    ]


def missed(house):
    """How many times were missed, by reason."""
    found = Counter()
    for entry in entries(house, ev.ScheduleMissed):
        found[entry.event.reason] += entry.event.count
    return dict(found)


async def test_each_due_time_becomes_a_run_of_its_own(tmp_path):
    """Named after the schedule and the time; the schedule's tasks are done in each."""
    async with house_in(tmp_path) as house:
        keep_time(house)
        stand(house, missed="once")
        await after(house, 3 * HOUR_S + 10)
        assert fired_s(house) == [(3600, 3600), (7200, 7200), (10800, 10800)]
        names = [entry.event.fired for entry in entries(house, ev.ScheduleFired)]
        assert names == ["s-20231114T231320Z", "s-20231115T001320Z", "s-20231115T011320Z"]
        completed = [entry.event.run_id for entry in entries(house, ev.TaskCompleted)]
        assert completed == names
        assert missed(house) == {}


@pytest.mark.parametrize(
    ("rule", "fired", "lost"),
    [
        ("skip", [(3600, 3600), (25200, 25200)], {"missed": 5}),
        ("once", [(3600, 3600), (21600, 23400), (25200, 25200)], {"missed": 4}),
        ("all", [(3600, 3600), (7200, 23400), (10800, 23401), (14400, 23402), (18000, 23403), (21600, 23404), (25200, 25200)], {}),
    ],
)
async def test_what_was_due_while_the_daemon_was_down_follows_the_rule(tmp_path, rule, fired, lost):
    """`skip` makes up for nothing, `once` for the newest time, `all` for each, one after the other."""
    async with house_in(tmp_path) as house:
        keep_time(house)
        stand(house, missed=rule)
        await after(house, HOUR_S + 100)
        await house.stop("test", 1)
    await asyncio.sleep(5.5 * HOUR_S - 100)
    async with house_in(tmp_path) as house:
        keep_time(house)
        await after(house, HOUR_S)
        assert fired_s(house) == fired
        assert missed(house) == lost


async def test_of_what_passed_the_newest_is_made_up_for_as_well(tmp_path):
    """With `all` the time that came just before the daemon did waits for the late ones before it, and is not missed."""
    async with house_in(tmp_path) as house:
        keep_time(house)
        stand(house, missed="all")
        await house.stop("test", 1)
    await asyncio.sleep(3 * HOUR_S + 10)
    async with house_in(tmp_path) as house:
        keep_time(house)
        await after(house, 60)
        assert [due_s for due_s, _ in fired_s(house)] == [3600, 7200, 10800]
        assert missed(house) == {}


@pytest.mark.parametrize(
    ("rule", "fired", "lost"),
    [
        ("skip", [(3600, 3600), (10800, 10800)], {"overlap": 2}),
        ("wait", [(3600, 3600), (7200, 9000), (10800, 14400)], {}),
        ("allow", [(3600, 3600), (7200, 7200), (10800, 10800), (14400, 14400)], {}),
    ],
)
async def test_a_time_that_comes_while_the_run_before_is_under_way_follows_the_rule(tmp_path, rule, fired, lost):
    """`skip` misses it, `wait` lets it wait for its turn, `allow` makes runs side by side."""
    async with house_in(tmp_path) as house:
        keep_time(house)
        stand(house, duration_s=1.5 * HOUR_S, overlap=rule)
        await after(house, 4 * HOUR_S + 100)
        assert fired_s(house) == fired
        assert missed(house) == lost


async def test_a_paused_schedule_fires_nothing_and_goes_on_by_its_rule(tmp_path):
    """What passes during a pause is missed; resumed, it is made up for as the schedule says, and a restart keeps the pause."""
    async with house_in(tmp_path) as house:
        keep_time(house)
        stand(house)
        control(house, "s", "pause")
        await after(house, 2.5 * HOUR_S)
        await house.stop("test", 1)
    async with house_in(tmp_path) as house:
        keep_time(house)
        await after(house, HOUR_S)
        assert fired_s(house) == []
        control(house, "s", "resume")
        await after(house, 1)
        assert fired_s(house) == [(10800, 12600)]
        assert "s" not in house.journal.ledger.runs


async def test_a_cancelled_schedule_ends_and_its_runs_do_not(tmp_path):
    """Nothing more of it fires; what it has made goes on; its name is free again."""
    async with house_in(tmp_path) as house:
        keep_time(house)
        stand(house, duration_s=100)
        await after(house, HOUR_S + 10)
        control(house, "s", "cancel")
        await after(house, 3 * HOUR_S)
        assert [entry.event.reason for entry in entries(house, ev.ScheduleEnded)] == ["cancelled"]
        assert len(entries(house, ev.ScheduleFired)) == len(entries(house, ev.TaskCompleted)) == 1
        assert house.journal.ledger.schedules == {}


async def test_a_schedule_ends_with_its_last_time(tmp_path):
    """After `until` it is over, and says so."""
    async with house_in(tmp_path) as house:
        keep_time(house)
        stand(house, until=2.5 * HOUR_S)
        await after(house, 5 * HOUR_S)
        assert len(fired_s(house)) == 2
        assert [entry.event.reason for entry in entries(house, ev.ScheduleEnded)] == ["over"]


async def test_a_clock_that_is_put_back_makes_nothing_fire_twice(tmp_path):
    """What has fired stays fired; the next time is the next."""
    async with house_in(tmp_path) as house:
        keep_time(house)
        stand(house)
        await after(house, HOUR_S + 10)
        clock = house.journal.clock
        plain = clock.now_us
        clock.now_us = lambda: plain() - 2 * 3_600_000_000
        await after(house, HOUR_S)
        assert len(fired_s(house)) == 1
        clock.now_us = plain
        await after(house, 70)
        assert [due_s for due_s, _ in fired_s(house)] == [3600, 7200]


async def test_a_name_that_somebody_took_is_not_added_to(tmp_path):
    """Where a run of that name stands that the schedule did not make, the time is missed, and said so."""
    async with house_in(tmp_path) as house:
        keep_time(house)
        stand(house)
        house.journal.append(ev.SubmissionAccepted(submission_id="own", run_id="s-20231114T231320Z", waves={1: (sure("mine"),)}))
        await after(house, 2 * HOUR_S + 10)
        assert missed(house) == {"taken": 1}
        assert [due_s for due_s, _ in fired_s(house)] == [7200]


async def test_schedules_fire_side_by_side_however_many_they_are(tmp_path):
    """More decisions than are made at once are all made."""
    async with house_in(tmp_path, configured(manager={"max_parallel_runs": 50})) as house:
        keep_time(house)
        for n in range(150):
            stand(house, f"s{n}", duration_s=0.0)
        await after(house, HOUR_S + 10)
        assert len({entry.event.run_id for entry in entries(house, ev.ScheduleFired)}) == 150


async def test_catching_up_fires_what_is_due_and_waits_for_nothing_later(tmp_path):
    """What `serve --once` asks for: all that was due at a moment, in turn, and no more."""
    async with house_in(tmp_path) as house:
        stand(house, missed="all")
        await after(house, 2.5 * HOUR_S)
        now_us = house.journal.clock.now_us()
        counts = []
        while fired := await house.timekeeper.catch_up(now_us):
            counts.append(fired)
            await finished(house)
        assert counts == [1, 1]


@pytest.mark.parametrize("rule", ["skip", "once", "all"])
async def test_cut_at_every_entry_nothing_fires_twice_and_nothing_is_lost(tmp_path, rule):
    """Whatever entry was the last durable one: each due time becomes one run or is missed once, and each run's task ends once."""
    whole = tmp_path / "whole"
    async with house_in(whole) as house:
        keep_time(house)
        stand(house, missed=rule, overlap="wait", duration_s=600, until=4.5 * HOUR_S)
        await after(house, 3 * HOUR_S + 100)
        await house.stop("test", 1)
    told = journal_of(whole)
    for k in range(1, len(told) + 1):
        folder = tmp_path / f"cut-{k}"
        written(folder, told[:k])
        await _go_on(folder)
        _check(journal_of(folder), rule, f"cut after entry {k}: {told[k - 1].event}")
        shutil.rmtree(folder)


async def _go_on(folder):
    """Open what a crash left, some time later, and carry it to the schedule's end."""
    async with house_in(folder) as house:
        keep_time(house)
        await house.journal.until(lambda: not house.journal.ledger.schedules)
        await finished(house)
        await house.stop("the end", 1)


def _check(found, rule, where):
    if not any(isinstance(entry.event, ev.ScheduleAccepted) for entry in found):
        return
    accepted_us = next(entry.at_us for entry in found if isinstance(entry.event, ev.ScheduleAccepted))
    decided = []
    for entry in found:
        event = entry.event
        if isinstance(event, ev.ScheduleFired):
            decided.append((event.due_us - accepted_us) // 3_600_000_000)
        elif isinstance(event, ev.ScheduleMissed):
            decided.extend(
                range((event.due_us - accepted_us) // 3_600_000_000, (event.through_us - accepted_us) // 3_600_000_000 + 1)
            )
    assert decided == [1, 2, 3, 4], where
    runs = [entry.event.run_id for entry in found if isinstance(entry.event, ev.SubmissionAccepted)]
    fired = [entry.event.fired for entry in found if isinstance(entry.event, ev.ScheduleFired)]
    assert runs == fired, where
    completed = Counter(entry.event.run_id for entry in found if isinstance(entry.event, ev.TaskCompleted))
    assert completed == dict.fromkeys(fired, 1), where
    assert rule != "all" or len(fired) == 4, where
