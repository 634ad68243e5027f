"""Stories that dice have written: whatever happens, each task ends once, and the outputs follow from the journal."""

from __future__ import annotations

import asyncio
import random

import pytest
from cutting import ends, journal_of, rebuilt, tree
from players import Scripted, after, put_on
from stage import accept, configured, control, finished, house_in, task

from phase21.domain import events as ev

pytestmark = pytest.mark.looptime

WORDS = ("ok", "ok", "ok", "0.5", "3", "fail", "fail ok", "hang", "hang ok", "raise ok", "2 fail ok")


def some_tasks(dice, wave, earlier):
    names = [f"t{wave}x{n}" for n in range(dice.randint(1, 12))]
    for n, name in enumerate(names):
        fields = {}
        if dice.random() < 0.3:
            fields["depends_on"] = dice.sample([*earlier, *names[:n]], k=min(len(earlier) + n, dice.randint(1, 2)))
        if dice.random() < 0.15:
            fields["agent_id"] = f"agent_{dice.randint(0, 3)}"
        if dice.random() < 0.1:
            fields["risk_level"] = "HIGH"
        if dice.random() < 0.1:
            fields["idempotent"] = False
        if dice.random() < 0.2:
            fields["priority"] = dice.randint(1, 4)
        yield task(name, kind="scripted" if dice.random() < 0.9 else "simulate", timeout_s=1.0 + dice.random(), **fields)


def accept_some(house, dice, script, run_id, most_waves):
    run = house.journal.ledger.runs.get(run_id)
    first = (run.record.highest_wave if run else 0) + 1
    waves, earlier = [], []
    for wave in range(first, first + dice.randint(1, most_waves)):
        tasks = list(some_tasks(dice, wave, earlier))
        script.script.update({made.task_id: dice.choice(WORDS).split() for made in tasks if made.task_id not in script.script})
        earlier += [made.task_id for made in tasks]
        waves.append(tasks)
    accept(house, run_id, *waves)


def control_some(house, dice, run_id):
    run = house.journal.ledger.runs.get(run_id)
    if run is None:
        return
    verb = dice.choice(("approve", "cancel", "pause", "resume"))
    known = sorted({record.task.task_id for record in run.open_tasks()} | set(run.record.deferred))
    names = dice.sample(known, k=min(len(known), dice.randint(1, 4))) if verb in {"approve", "cancel"} else []
    if names or verb in {"pause", "resume"}:
        control(house, run_id, verb, *names)


async def end_all(house):
    """Resume what is paused, approve what is deferred, until nothing is left."""
    for _ in range(12):
        for run in list(house.journal.ledger.runs.values()):
            if run.record.paused:
                control(house, run.run_id, "resume")
            if run.record.deferred:
                control(house, run.run_id, "approve", *run.record.deferred)
        async with asyncio.timeout(20_000):
            await finished(house)
        if not any(run.record.deferred for run in house.journal.ledger.runs.values()):
            return
    raise AssertionError("something stays deferred")


@pytest.mark.parametrize("seed", range(15))
async def test_whatever_happens_each_task_ends_once(tmp_path, seed):
    """Acceptances, controls, timeouts, crashes and drains in any order: one outcome a task, and outputs as rebuilt."""
    dice = random.Random(seed)
    settings = configured(
        agents={"count": dice.randint(1, 4), "probation": dice.choice([0.5, 20]), "inbox_size": dice.choice([1, 3, 1024])},
        manager={"strategy": dice.choice(["round_robin", "load_balanced", "priority_based", "confidence_based"])},
        safety={"rate_limit": dice.choice([0, 0, 3])},
    )
    script = Scripted()
    for last in (False, False, True):
        async with house_in(tmp_path, settings) as house:
            put_on(house, script)
            for _ in range(dice.randint(1, 5)):
                if dice.random() < 0.6:
                    accept_some(house, dice, script, dice.choice("ab"), 3)
                else:
                    control_some(house, dice, dice.choice("ab"))
                await after(house, dice.choice([0.01, 0.7, 5]))
            if last:
                await end_all(house)
            if last or dice.random() < 0.5:
                await house.stop("test", dice.choice([0, 1, 100]))
    entries = journal_of(tmp_path)
    accepted: dict[str, set[str]] = {}
    for entry in entries:
        if isinstance(entry.event, ev.SubmissionAccepted):
            for tasks in entry.event.waves.values():
                accepted.setdefault(entry.event.run_id, set()).update(made.task_id for made in tasks)
    for run_id, names in accepted.items():
        assert set(ends(tmp_path, run_id)) == names
        assert tree(tmp_path / "outputs" / run_id) == rebuilt(tmp_path, run_id)
    outcomes = [(entry.event.run_id, entry.event.task_id) for entry in entries
                if isinstance(entry.event, ev.TaskCompleted | ev.TaskFailed | ev.TaskCancelled)]  # fmt: skip
    assert len(outcomes) == len(set(outcomes))
