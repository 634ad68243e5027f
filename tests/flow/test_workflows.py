"""Workflows, told in virtual time: branches, data, undoing, what is made on the way, pauses, forks, and journals cut everywhere."""

from __future__ import annotations

import asyncio
import shutil

import pytest
from cutting import journal_of, rebuilt, tree, written
from players import after, of_task, put_on
from stage import configured, control, events_of, executed, finished, house_in, statuses

from phase21.domain import events as ev
from phase21.domain.tasks import Attempt, Outcome
from phase21.intake.queue import Line
from phase21.intake.submissions import parse
from phase21.store import codec
from phase21.workflows import conductor
from phase21.workflows.stages import next_stage

pytestmark = pytest.mark.looptime

SETTINGS = configured(agents={"count": 3}, retry={"base_delay": 0.5, "max_attempts": 2})


class Doing:
    """Does what its payload says: `gives` is the result, `fails` how often it fails first, `takes` seconds; keeps what was done."""

    def __init__(self, log=None):
        self.log = [] if log is None else log

    async def perform(self, attempt: Attempt) -> Outcome:
        payload = attempt.task.payload
        await asyncio.sleep(payload.get("takes", 0.1))
        if attempt.number <= payload.get("fails", 0):
            return Outcome(success=False, error_msg="as told")
        self.log.append(payload.get("says", attempt.task.task_id))
        return Outcome(success=True, result=payload.get("gives"))


def submit(house, run_id, **fields):
    """Accept a submission as the receiver would."""
    house.receiver.accept(parse(codec.encode({"run_id": run_id, **fields})))


def step(task_id, *needs, gives=None, fails=0, takes=0.1, **fields):
    """A task of a workflow that the player of this story does."""
    payload = {"fails": fails, "takes": takes, **({"gives": gives} if gives is not None else {}), **fields.pop("payload", {})}
    return {"task_id": task_id, "kind": "doing", "payload": payload, "depends_on": list(needs), **fields}


def flow(*tasks, name="story", **fields):
    """A workflow as it is submitted."""
    return {"name": name, "tasks": list(tasks), **fields}


async def told(folder, *workflows, then=None):
    """Carry out workflows r0, r1, …; gives each task's status, in which order things were done, and the events."""
    async with house_in(folder, SETTINGS) as house:
        player = Doing()
        put_on(house, player, "doing")
        for n, workflow in enumerate(workflows):
            submit(house, f"r{n}", workflow=workflow)
        if then is not None:
            await then(house)
        await finished(house)
        states = [(event.run_id, event.previous, event.state, event.reason) for event in events_of(house, ev.WorkflowChanged)]
        await house.stop("the end", 1)
    return statuses(executed(folder, "r0")), player.log, states


def undo(says):
    """How a task is undone in these stories."""
    return {"kind": "doing", "payload": {"says": says}}


async def test_what_a_condition_rules_out_is_skipped_and_says_why(tmp_path):
    """A branch whose condition is not true is SKIPPED with what depends on it; the other is done."""
    pytest.importorskip("cel_expr_python")
    found, log, states = await told(
        tmp_path,
        flow(
            step("look", gives={"size": 3}),
            step("small", "look", condition='tasks["look"].result.size < 10'),
            step("large", "look", condition='tasks["look"].result.size >= 10'),
            step("after_large", "large"),
            step("end", {"task": "small", "when": "settled"}, {"task": "large", "when": "settled"}),
        ),
    )
    assert found == {"look": "COMPLETED", "small": "COMPLETED", "large": "SKIPPED", "after_large": "SKIPPED", "end": "COMPLETED"}
    assert log == ["look", "small", "end"]
    assert [state for _, _, state, _ in states] == ["running", "completed"]


async def test_results_flow_into_payloads(tmp_path):
    """A reference stands for what the other task gave; one that stands for nothing fails its task before it starts."""
    found, log, _ = await told(
        tmp_path,
        flow(
            step("ask", gives={"words": ["one", "two"]}),
            step("say", "ask", payload={"says": {"$from": "ask", "path": "result.words[1]"}}),
            step("missing", "ask", payload={"says": {"$from": "ask", "path": "result.nothing"}}),
            on_failure="continue",
        ),
    )
    assert found == {"ask": "COMPLETED", "say": "COMPLETED", "missing": "FAILED"}
    assert log == ["ask", "two"]


async def test_a_failure_that_nothing_answers_stops_the_workflow(tmp_path):
    """With `stop`, what has not begun is SKIPPED, save what is there for the failure or for any end."""
    found, _, states = await told(
        tmp_path,
        flow(
            step("a", fails=9),
            step("b", takes=5),
            step("c", "b"),
            step("finally", {"task": "a", "when": "settled"}),
        ),
    )
    assert found == {"a": "FAILED", "b": "COMPLETED", "c": "SKIPPED", "finally": "COMPLETED"}
    assert states[-1][2] == "failed"
    assert "a did not succeed" in states[-1][3]


async def test_a_failure_that_is_answered_is_none_of_the_workflow(tmp_path):
    """Where a task is there for the case that another fails, the workflow goes on and completes."""
    found, _, states = await told(
        tmp_path, flow(step("a", fails=9), step("mend", {"task": "a", "when": "failed"}), step("b", "mend"))
    )
    assert found == {"a": "FAILED", "mend": "COMPLETED", "b": "COMPLETED"}
    assert states[-1][2] == "completed"


async def test_with_continue_only_what_depends_on_a_failure_is_skipped(tmp_path):
    """With `continue` the other branches go on; the workflow has failed all the same."""
    found, _, states = await told(
        tmp_path, flow(step("a", fails=9), step("b", "a"), step("c", takes=5), step("d", "c"), on_failure="continue")
    )
    assert found == {"a": "FAILED", "b": "SKIPPED", "c": "COMPLETED", "d": "COMPLETED"}
    assert states[-1][2] == "failed"


SAGA = flow(
    step("reserve", compensate=undo("release"), gives={"seat": 7}),
    step("pay", "reserve", compensate=undo("refund")),
    step("ship", "pay", fails=9),
    step("thank", "ship"),
    name="order",
    on_failure="compensate",
)


async def test_a_saga_is_undone_in_reverse_order(tmp_path):
    """What COMPLETED is undone, the last first, in a wave of its own; the workflow has failed."""
    found, log, states = await told(tmp_path, SAGA)
    assert log == ["reserve", "pay", "refund", "release"]
    assert found == {
        "reserve": "COMPLETED", "pay": "COMPLETED", "ship": "FAILED", "thank": "SKIPPED",
        "pay.undo": "COMPLETED", "reserve.undo": "COMPLETED",
    }  # fmt: skip
    assert states[-1][2] == "failed"
    assert "undone" in states[-1][3]


async def test_a_compensation_that_fails_needs_a_person_and_the_others_go_on(tmp_path):
    """A compensation is retried; one that fails for good is named, and what came before it is undone all the same."""
    found, log, states = await told(
        tmp_path,
        flow(
            step("first", compensate={"kind": "doing", "payload": {"says": "undone", "fails": 1}}),
            step("second", "first", compensate={"kind": "doing", "payload": {"fails": 9}}),
            step("third", "second", fails=9),
            on_failure="compensate",
        ),
    )
    assert log == ["first", "second", "undone"]
    assert (found["second.undo"], found["first.undo"]) == ("FAILED", "COMPLETED")
    assert "second.undo, which FAILED and needs a person" in states[-1][3]


async def test_a_cancel_does_not_reach_what_undoes(tmp_path):
    """Whoever cancels a workflow that is being undone wants it undone: the compensations go on."""

    async def then(house):
        await after(house, 2.2)
        assert house.journal.ledger.runs["r0"].record.workflow.undoing
        house.receiver.accept(parse(b'{"run_id": "r0", "control": "cancel"}'))

    slow = {"kind": "doing", "payload": {"says": "undone", "takes": 5}}
    found, log, states = await told(
        tmp_path, flow(step("a", compensate=slow), step("b", "a", fails=9, takes=0.5), on_failure="compensate"), then=then
    )
    assert log == ["a", "undone"]
    assert found["a.undo"] == "COMPLETED"
    assert "needs a person" not in states[-1][3]


async def test_a_task_may_ask_for_further_tasks(tmp_path):
    """What `spawn` asks for is done in the next wave, and may ask for more, up to the depth that is allowed."""
    inner = step("grandchild", gives={"spawn": [step("too_deep")]})
    child = step("child", gives={"spawn": [inner]})
    found, log, states = await told(tmp_path, flow(step("root", gives={"spawn": [child]}), max_depth=2))
    assert found == {"root": "COMPLETED", "child": "COMPLETED", "grandchild": "FAILED"}
    assert log == ["root", "child", "grandchild"]
    assert states[-1][2] == "failed"


async def test_for_each_over_a_result_is_made_when_the_result_is_known(tmp_path):
    """One task for each element, a join that gathers what they gave, and what depends on the join."""
    found, log, _ = await told(
        tmp_path,
        flow(
            step("list", gives=["x", "y", "z"]),
            step("each", "list", payload={"says": {"$item": ""}, "gives": {"$item": ""}}, for_each={"$from": "list"}),
            step("after", "each", payload={"says": {"$from": "each"}}),
        ),
    )
    assert set(found.values()) == {"COMPLETED"}
    assert {"each.0", "each.1", "each.2", "each", "after"} < set(found)
    assert sorted(log[1:4]) == ["x", "y", "z"]
    assert "x" in str(log[-1])


async def test_a_workflow_is_paused_resumed_and_cancelled(tmp_path):
    """Its state follows; what is cancelled is not begun, and its end says so."""

    async def then(house):
        await after(house, 0.5)
        control(house, "r0", "pause")
        await after(house, 50)
        assert house.journal.ledger.runs["r0"].record.workflow.state == "paused"
        control(house, "r0", "resume")
        await after(house, 1)
        house.receiver.accept(parse(b'{"run_id": "r0", "control": "cancel"}'))

    found, _, states = await told(tmp_path, flow(step("a", takes=1), step("b", "a", takes=30), step("c", "b")), then=then)
    assert found == {"a": "COMPLETED", "b": "CANCELLED", "c": "CANCELLED"}
    assert [state for _, _, state, _ in states] == ["running", "paused", "running", "cancelled"]


async def test_what_was_deferred_for_the_sake_of_another_comes_with_it(tmp_path):
    """Where the one task that needs approval gets it, the workflow goes on to its end, with all that waited for that task."""

    async def then(house):
        await after(house, 5)
        control(house, "r0", "approve", "risky")

    risky = step("risky", "first", risk_level="HIGH", predicted_success_rate=0.99)
    found, log, states = await told(
        tmp_path, flow(step("first"), risky, step("next", "risky"), step("last", "next"), step("beside", "first")), then=then
    )
    assert set(found.values()) == {"COMPLETED"}
    assert log == ["first", "beside", "risky", "next", "last"]
    assert [state for _, _, state, _ in states] == ["running", "completed"]


async def test_a_workflow_is_forked_from_a_task(tmp_path):
    """A fork does again what depends on the task, and what never completed; of the others the results are kept."""

    async def then(house):
        await finished(house)
        submit(house, "again", fork={"run": "r0", "from": "b"})

    workflow = flow(step("a", gives="kept"), step("b", "a"), step("c", "b", payload={"says": {"$from": "a"}}), step("other", "a"))
    found, log, _ = await told(tmp_path, workflow, then=then)
    assert set(found.values()) == {"COMPLETED"}
    assert sorted(log[4:]) == ["b", "kept"]
    assert statuses(executed(tmp_path, "again")) == {"b": "COMPLETED", "c": "COMPLETED"}


async def forked(folder, workflow, begin):
    """The statuses of a workflow, of its fork from a task, and how the fork ended."""

    async def then(house):
        await finished(house)
        submit(house, "again", fork={"run": "r0", "from": begin})

    found, _, states = await told(folder, workflow, then=then)
    return found, statuses(executed(folder, "again")), states[-1]


async def test_a_fork_makes_anew_only_what_is_made_over_what_runs_again(tmp_path):
    """Of two lists the one whose source runs again is made once more, the other is kept."""
    over_a = step("la", "a", for_each={"$from": "a"})
    over_b = step("lb", "b", for_each={"$from": "b"})
    _, again, end = await forked(tmp_path, flow(step("a", gives=[1]), step("b", gives=[2]), over_a, over_b), "a")
    assert again == {"a": "COMPLETED", "la.0": "COMPLETED", "la": "COMPLETED"}
    assert end[2] == "completed"


async def test_a_fork_goes_on_with_what_was_never_made(tmp_path):
    """Steps that were still to be made, and tasks that were asked for, when the run failed are made by its fork."""
    first = step("s1", "a", for_each={"$from": "a"}, payload={"gives": 5})
    bad = step("bad", "s1", takes=50, timeout_s=1, max_attempts=1)
    asks = step("asks", "s1", gives={"spawn": [step("asked")]})
    second = step("s2", "s1", "bad", for_each={"$from": "s1"})
    found, again, _ = await forked(tmp_path, flow(step("a", gives=[1]), first, bad, asks, second, on_failure="continue"), "s1.0")
    assert found["bad"] == "FAILED"
    assert {"s1.0", "s1", "bad", "asks", "asked", "s2"} <= set(again)
    stopped, once_more, _ = await forked(
        tmp_path / "stopped", flow(step("asks", gives={"spawn": [step("asked")]}), step("bad", fails=2)), "bad"
    )
    assert "asked" not in stopped
    assert once_more == {"bad": "FAILED", "asked": "COMPLETED"}


async def test_a_fork_is_judged_by_its_own_results(tmp_path):
    """What the first judge said is none of the results that the second looks at."""
    looked_at = []

    class Judge(Doing):
        async def perform(self, attempt):
            if attempt.task.task_id == "workflow.judge":
                looked_at.append(sorted(attempt.task.payload["results"]))
            return await super().perform(attempt)

    async with house_in(tmp_path, SETTINGS) as house:
        put_on(house, Judge(), "doing")
        submit(house, "r0", workflow=flow(step("a"), step("b", "a"), evaluate={"judge": {"kind": "doing"}}))
        await finished(house)
        submit(house, "again", fork={"run": "r0", "from": "b"})
        await finished(house)
        await house.stop("the end", 1)
    assert looked_at == [["a", "b"], ["a", "b"]]


async def test_a_fork_waits_until_the_end_of_its_origin_is_durable(tmp_path):
    """It is made of what the store holds, which must be all that became of the run."""
    async with house_in(tmp_path, SETTINGS) as house:
        put_on(house, Doing(), "doing")
        submit(house, "r0", workflow=flow(step("a"), step("b")))
        run = house.journal.ledger.runs["r0"]
        await house.journal.until(lambda: run.idle)
        line = Line(raw=b'{"run_id": "again", "fork": {"run": "r0", "from": "a"}}', number=1, offset=0, mark=None)
        assert not house.receiver._take(line)
        await house.journal.durable()
        assert house.receiver._take(line)
        await finished(house)
        await house.stop("the end", 1)
    assert statuses(executed(tmp_path, "again")) == {"a": "COMPLETED"}


async def test_a_failure_may_be_answered_by_what_is_made_later(tmp_path):
    """A task that is there for the failure of another answers it, though it can be made only once a list is known."""
    each = step("each", "list", for_each={"$from": "list"})
    mend = step("mend", {"task": "a", "when": "failed"}, "each")
    found, _, states = await told(tmp_path, flow(step("list", gives=["x"]), step("a", fails=9), each, mend))
    assert (found["a"], found["mend"]) == ("FAILED", "COMPLETED")
    assert states[-1][2] == "completed"


async def test_a_failure_is_answered_where_its_join_is(tmp_path):
    """What is there for the failure of a join answers those of the tasks that it gathers."""
    found, _, states = await told(
        tmp_path, flow(step("each", for_each=[1], payload={"fails": 9}), step("mend", {"task": "each", "when": "failed"}))
    )
    assert found == {"each.0": "FAILED", "each": "FAILED", "mend": "COMPLETED"}
    assert states[-1][2] == "completed"


async def test_many_failures_call_what_waits_once(tmp_path):
    """Where a workflow goes on all the same nothing is called; else the first failure calls what waits, and no other does."""
    for on_failure, most in (("continue", 0), ("stop", 60)):
        async with house_in(tmp_path / on_failure, configured(agents={"count": 3}, retry={"max_attempts": 1})) as house:
            put_on(house, Doing(), "doing")
            submit(house, "r0", workflow=flow(*(step(f"t{n}", fails=1) for n in range(60)), on_failure=on_failure))
            await house.journal.until(lambda house=house: len(house.journal.ledger.runs["r0"].record.workflow.failed) > 2)
            assert len(house.journal.ledger.wave("r0", 1).calls) <= most
            await finished(house)
            await house.stop("the end", 1)


async def test_a_workflow_that_cannot_go_on_fails_alone(tmp_path, monkeypatch):
    """What nobody foresaw in one workflow ends that one, saying so; the conductor goes on with the others."""

    def broken(run, flow_record):
        if run.run_id == "r0":
            raise TypeError("nobody foresaw this")
        return next_stage(run, flow_record)

    monkeypatch.setattr(conductor, "next_stage", broken)
    _, _, states = await told(tmp_path, flow(step("a")), flow(step("a")))
    ends = {run_id: (state, reason) for run_id, _, state, reason in states}
    assert ends["r0"][0] == "failed"
    assert "cannot be decided: TypeError: nobody foresaw this" in ends["r0"][1]
    assert ends["r1"][0] == "completed"


async def test_a_long_label_is_undone_and_read_again(tmp_path):
    """What undoes a step with the longest name has no longer one, which no journal could be read with."""
    saga = flow(step("a", step="s" * 256, compensate=undo("undone")), step("b", "a", fails=9), on_failure="compensate")
    _, log, _ = await told(tmp_path, saga)
    assert log == ["a", "undone"]
    assert journal_of(tmp_path)


async def test_max_parallel_bounds_what_is_under_way(tmp_path):
    """No more attempts of a workflow run at a time than it allows."""
    async with house_in(tmp_path, SETTINGS) as house:
        put_on(house, Doing(), "doing")
        submit(house, "r0", workflow=flow(*(step(f"t{n}") for n in range(9)), max_parallel=2))
        await finished(house)
        most, now = 0, 0
        for entry in house.journal.lookup.entries():
            now += isinstance(entry.event, ev.AttemptStarted) - isinstance(entry.event, ev.TaskCompleted)
            most = max(most, now)
        assert most == 2
        await house.stop("the end", 1)


async def test_a_workflow_takes_no_other_tasks_and_no_second_one(tmp_path):
    """A run that is a workflow refuses tasks and further workflows."""
    async with house_in(tmp_path, SETTINGS) as house:
        put_on(house, Doing(), "doing")
        submit(house, "r0", workflow=flow(step("a")))
        with pytest.raises(Exception, match="workflow, which takes no other tasks"):
            submit(house, "r0", tasks=[{"task_id": "x"}])
        with pytest.raises(Exception, match="a workflow is a run of its own"):
            submit(house, "r0", workflow=flow(step("b")))
        await finished(house)
        assert of_task(house, "a", ev.TaskCompleted)
        await house.stop("the end", 1)


PARTS = 4


@pytest.mark.parametrize("part", range(PARTS))
async def test_a_saga_cut_anywhere_goes_on_to_the_same_end(tmp_path, part):
    """Wherever the journal is cut after the acceptance, the house that opens it undoes the same, in the same order."""
    found, log, _ = await told(tmp_path / "whole", SAGA)
    entries = journal_of(tmp_path / "whole")
    first = next(n for n, entry in enumerate(entries) if isinstance(entry.event, ev.SubmissionAccepted)) + 1
    for cut in range(first + part, len(entries) + 1, PARTS):
        folder = tmp_path / f"cut_{cut}"
        written(folder, entries[:cut])
        async with house_in(folder, SETTINGS) as house:
            player = Doing()
            put_on(house, player, "doing")
            async with asyncio.timeout(5000):
                await finished(house)
            flow_record = house.journal.ledger.runs["r0"].record.workflow
            assert flow_record.state == "failed", cut
            await house.stop("the end", 1)
        assert statuses(executed(folder, "r0")) == found, cut
        undone = [said for said in player.log if said in {"refund", "release"}]
        assert undone == ["refund", "release"][2 - len(undone) :], cut
        assert tree(folder / "outputs" / "r0") == rebuilt(folder, "r0"), cut
        shutil.rmtree(folder)
    assert log
