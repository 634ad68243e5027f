"""Schedules in real daemons: what was due while none ran, kill -9 between two firings, `--once`, and the verbs."""

from __future__ import annotations

import json
import time

import pytest
from yard import sure, until

from phase21.domain import events as ev
from phase21.domain.schedules import Recurrence
from phase21.domain.tasks import Task
from phase21.store.database import Batch, Database

HOUR_US = 3_600_000_000


def accepted_hours_ago(yard, hours, **every):
    """A state folder whose daemon accepted a schedule some hours ago, and has not run since; gives the minute of its times."""
    yard.state.mkdir(mode=0o700)
    now_us = time.time_ns() // 1000
    minute = time.gmtime(now_us // 1_000_000 - 1800).tm_min  # half an hour ago: neither late by chance nor on time
    recurrence = Recurrence(cron=f"{minute} * * * *", **every)
    tasks = (Task(task_id="t", payload={"success_rate": 1.0}),)
    event = ev.ScheduleAccepted(submission_id="x", run_id="hourly", every=recurrence, tasks=tasks)
    database = Database(yard.state / "journal.db")
    database.commit(Batch(entries=[ev.Entry(1, now_us - hours * HOUR_US, event)]))
    database.close()


def fired(daemon):
    return [event["run_id"] for event in daemon.named("schedule_fired")]


@pytest.mark.parametrize(("rule", "runs", "missed"), [("skip", 0, 5), ("once", 1, 4), ("all", 5, 0)])
def test_a_cron_schedule_makes_up_for_what_was_due_while_no_daemon_ran_as_it_says(yard, rule, runs, missed):
    """Five hours without a daemon: `skip` runs none of the five, `once` the newest, `all` each."""
    accepted_hours_ago(yard, 5, missed=rule)
    done = yard.once("--log-level", "DEBUG")
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    made = [event["run_id"] for event in events if event["event"] == "schedule_fired"]
    assert len(made) == len(set(made)) == runs
    assert sum(event["count"] for event in events if event["event"] == "schedule_missed") == missed
    assert all(yard.statuses(run_id) == {"t": "COMPLETED"} for run_id in made)
    status = json.loads(yard.call("status", "--json").stdout)
    (schedule,) = status["schedules"]
    assert (schedule["fired"], schedule["missed"], schedule["state"]) == (runs, missed, "standing")
    assert schedule["next_time"] > events[-1]["timestamp"]
    again = yard.once()
    assert not [line for line in again.stdout.splitlines() if "schedule_fired" in line]


def test_an_interval_fires_over_a_kill_and_never_twice(yard):
    """A daemon killed between two firings goes on with the next; each run is made once and ends once."""
    yard.append({"run_id": "tick", "every": {"interval_s": 1, "overlap": "allow"}, "tasks": [sure("t")]})
    first = yard.serve()
    first.event("schedule_fired")
    first.kill()
    second = yard.serve()
    until(lambda: len(fired(second)) >= 2, "two more firings")
    done = yard.call("cancel", "tick")
    assert done.returncode == 0, done.stderr
    second.event("schedule_ended", reason="cancelled")
    assert second.stop() == 0
    runs = [run["run_id"] for run in json.loads(yard.call("status", "--json").stdout)["runs"]]
    assert len(runs) == len(set(runs)) >= 3
    assert yard.once().returncode == 0
    assert all(yard.statuses(run_id) == {"t": "COMPLETED"} for run_id in runs)


def test_status_shows_a_schedule_and_pause_and_resume_reach_it(yard):
    """The verbs take a schedule's name; its next time stands in `status`, alone where it is asked for by name."""
    yard.append({"run_id": "nightly", "every": {"cron": "0 3 * * *", "timezone": "Europe/Berlin"}, "tasks": [sure("t")]})
    assert yard.once().returncode == 0
    assert yard.call("pause", "nightly").returncode == 0
    assert yard.once().returncode == 0
    shown = yard.call("status", "nightly")
    assert shown.returncode == 0, shown.stderr
    assert "0 3 * * * (Europe/Berlin)" in shown.stdout
    assert "paused" in shown.stdout
    found = json.loads(yard.call("status", "nightly", "--json").stdout)
    assert (found["runs"], found["schedules"][0]["state"]) == ([], "paused")
    refused = yard.call("approve", "nightly")
    assert refused.returncode == 3
    assert "is a schedule" in refused.stderr


def test_submit_waits_for_a_schedule_only_until_it_is_accepted(yard):
    """`submit --wait` of a schedule ends with its acceptance; what is never due is refused at once."""
    schedule = {"run_id": "s", "every": {"interval_s": 3600}, "tasks": [sure("t")]}
    daemon = yard.serve()
    done = yard.call("submit", "-", "--wait", text=json.dumps(schedule))
    assert done.returncode == 0, done.stderr
    daemon.event("schedule_accepted", run_id="s")
    assert daemon.stop() == 0
    refused = yard.call("submit", "-", text=json.dumps({**schedule, "run_id": "r", "every": {"cron": "0 3 * * *", "until": 0}}))
    assert refused.returncode == 3
    assert "every.until" in refused.stderr
