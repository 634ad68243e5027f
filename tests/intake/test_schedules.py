"""Recurring submissions: what is refused, and what a control of a schedule means."""

from __future__ import annotations

import json

import pytest

from phase21.domain import events as ev
from phase21.domain.errors import InputRefused
from phase21.domain.schedules import Overlap, Recurrence
from phase21.domain.settings import CurrentSettings, Settings
from phase21.intake.queue import QueueReader
from phase21.intake.receiver import Receiver
from phase21.intake.schedules import RUN_ID_MOST, SCHEDULES_MOST, check_standing
from phase21.intake.submissions import parse
from phase21.store.journal import Journal

EVERY = {"cron": "0 3 * * *", "timezone": "Europe/Berlin", "overlap": "wait"}
TASKS = [{"task_id": "a"}, {"task_id": "b", "depends_on": ["a"]}]


def line(**fields):
    return json.dumps({"run_id": "nightly", "every": EVERY, "tasks": TASKS, **fields}).encode()


def test_a_recurrence_is_read_with_its_defaults():
    """What is not given is as the reference says."""
    every = parse(line()).every
    assert every == Recurrence(cron="0 3 * * *", timezone="Europe/Berlin", overlap=Overlap.WAIT)
    assert str(every.missed) == "once"


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"every": {}}, "every.cron"),
        ({"every": {"cron": "0 3 * *"}}, "every.cron"),
        ({"every": {"cron": "0 3 * * 9"}}, "every.cron"),
        ({"every": {"cron": "0 3 * * *", "interval_s": 60}}, "every.interval_s"),
        ({"every": {"interval_s": 0.5}}, "every.interval_s"),
        ({"every": {"interval_s": 60, "timezone": "Mars/Olympus"}}, "every.timezone"),
        ({"every": {"interval_s": 60, "missed": "never"}}, "every.missed"),
        ({"every": {"interval_s": 60, "until": "2030-01-01"}}, "every.until"),
        ({"every": {"interval_s": 60, "often": True}}, "every.often"),
        ({"wave": 2}, "wave"),
        ({"run_id": "x" * (RUN_ID_MOST + 1)}, "run_id"),
        ({"tasks": None, "control": "cancel"}, "every"),
        ({"tasks": [{"task_id": "a", "depends_on": ["a"]}]}, "tasks[0].depends_on"),
    ],
)
def test_what_cannot_recur_is_refused_with_the_path_of_its_field(fields, path):
    """Each fault names its field."""
    given = {"run_id": "nightly", "every": EVERY, "tasks": TASKS, **fields}
    with pytest.raises(InputRefused) as refused:
        parse(json.dumps({name: value for name, value in given.items() if value is not None}).encode())
    assert refused.value.path == path


def test_a_deadline_before_the_time_is_refused():
    """A task that could never begin is refused, where that can be said."""
    with pytest.raises(InputRefused) as refused:
        parse(json.dumps({"run_id": "r", "tasks": [{"task_id": "a", "not_before": 10, "deadline": 10}]}).encode())
    assert refused.value.path == "tasks[0].deadline"
    moments = {"not_before": "2030-01-01T00:00:00Z", "deadline": 5}
    assert parse(json.dumps({"run_id": "r", "tasks": [{"task_id": "a", **moments}]}).encode()).tasks


def test_a_schedule_too_many_and_one_that_is_never_due_are_refused():
    """Schedules are held whole in memory; one that is over is not begun."""
    with pytest.raises(InputRefused, match="no more may"):
        check_standing(Recurrence(interval_s=5), SCHEDULES_MOST, 0)
    with pytest.raises(InputRefused, match="no time is ever due") as refused:
        check_standing(Recurrence(interval_s=5, until=1.0), 0, 0)
    assert refused.value.path == "every.until"


async def receiver_over(journal, folder):
    (folder / "queue.jsonl").touch(mode=0o600)
    reader = QueueReader(str(folder / "queue.jsonl"), None, max_line_bytes=1 << 20, allow_shared=False)
    receiver = Receiver(journal, reader, CurrentSettings(Settings()), folder=str(folder))
    await receiver._fence()
    return receiver


async def test_a_schedule_is_accepted_once_and_its_name_is_its_own(tmp_path):
    """A repetition counts once; while it stands, nothing else may bear its name; a run's name is no schedule's."""
    async with Journal.opened(tmp_path / "journal.db") as journal:
        receiver = await receiver_over(journal, tmp_path)
        receiver.accept(parse(line(submission_id="x")))
        receiver.accept(parse(line(submission_id="x")))
        assert list(journal.ledger.schedules) == ["nightly"]
        assert [task.task_id for task in journal.ledger.schedules["nightly"].tasks] == ["a", "b"]
        for again in (line(), json.dumps({"run_id": "nightly", "tasks": TASKS}).encode()):
            with pytest.raises(InputRefused, match="is a schedule that stands"):
                receiver.accept(parse(again))
        receiver.accept(parse(json.dumps({"run_id": "plain", "tasks": TASKS}).encode()))
        with pytest.raises(InputRefused, match="was already given"):
            receiver.accept(parse(line(run_id="plain")))
        with pytest.raises(InputRefused, match="does not know") as refused:
            receiver.accept(parse(line(run_id="other", tasks=[{"task_id": "a", "depends_on": ["z"]}])))
        assert refused.value.path == "tasks[0].depends_on"


async def test_a_workflow_may_recur(tmp_path):
    """A schedule of a workflow holds its tasks and how they follow each other."""
    async with Journal.opened(tmp_path / "journal.db") as journal:
        receiver = await receiver_over(journal, tmp_path)
        flow = {"name": "checks", "mode": "sequential", "tasks": [{"task_id": "a"}, {"task_id": "b"}]}
        receiver.accept(parse(json.dumps({"run_id": "flow", "every": EVERY, "workflow": flow}).encode()))
        schedule = journal.ledger.schedules["flow"]
        assert schedule.workflow.name == "checks"
        assert list(schedule.tasks[1].needs()) == ["a"]


async def test_controls_of_a_schedule_are_about_the_whole_of_it(tmp_path):
    """It is paused, resumed and cancelled; it has no tasks to name and nothing to approve."""
    async with Journal.opened(tmp_path / "journal.db") as journal:
        receiver = await receiver_over(journal, tmp_path)
        receiver.accept(parse(line()))

        def tell(control, **fields):
            receiver.accept(parse(json.dumps({"run_id": "nightly", "control": control, **fields}).encode()))

        tell("pause")
        assert journal.ledger.schedules["nightly"].paused
        tell("resume")
        assert not journal.ledger.schedules["nightly"].paused
        for control, fields in (("approve", {}), ("cancel", {"task_ids": ["a"]})):
            with pytest.raises(InputRefused, match="is a schedule"):
                tell(control, **fields)
        tell("cancel")
        assert journal.ledger.schedules["nightly"].ending == "cancelled"
        journal.append(ev.ScheduleEnded(run_id="nightly", reason="cancelled"))
        assert "nightly" not in journal.ledger.runs


async def test_a_schedule_outlives_its_snapshot(tmp_path):
    """What stands is in the ledger's snapshot, and is the same once read back."""
    from phase21.domain.ledger import Ledger, Snapshot
    from phase21.store import codec

    async with Journal.opened(tmp_path / "journal.db") as journal:
        receiver = await receiver_over(journal, tmp_path)
        receiver.accept(parse(line()))
        again = Ledger.restored(codec.decode(codec.encode(journal.ledger.snapshot()), Snapshot))
        assert again.schedules == journal.ledger.schedules
