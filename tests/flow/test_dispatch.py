"""Tasks of a workflow are given out as they become ready: in which order, to whom, and what becomes of those that are not to be done."""

from __future__ import annotations

import asyncio

import pytest
from cutting import ends, journal_of, written
from players import Scripted, after, assigned, entries, of_task, put_on
from stage import accept, configured, control, events_of, executed, finished, house_in, statuses, sure, task

from phase21.domain import events as ev
from phase21.domain.tasks import TaskStatus
from phase21.domain.workflows import OnFailure, Workflow

virtual = pytest.mark.looptime
ONE, TWO = {"count": 1}, {"count": 2}


def scripted(name, *needs, **fields):
    return task(name, kind="scripted", depends_on=list(needs), **fields)


def lasting(name, seconds, *needs, **fields):
    payload = {"duration_s": float(seconds), "success_rate": 1.0}
    return task(name, payload=payload, estimated_duration_s=float(seconds), depends_on=list(needs), timeout_s=1e6, **fields)


def begin(house, tasks, run_id="r", **fields):
    """Accept tasks as a workflow."""
    workflow = Workflow(name="flow", **fields)
    position = house.journal.ledger.position + 1
    house.journal.append(
        ev.SubmissionAccepted(submission_id=f"s{position}", run_id=run_id, waves={1: tuple(tasks)}, workflow=workflow)
    )


def started(house):
    """The tasks in the order in which they were started."""
    return [entry.event.task_id for entry in entries(house, ev.AttemptStarted)]


def lasted_s(house):
    first = entries(house, ev.AttemptStarted)[0]
    return (entries(house, ev.TaskCompleted)[-1].at_us - first.at_us) / 1e6


@virtual
async def test_the_most_critical_of_what_is_ready_goes_first(tmp_path):
    """One agent begins with the task that most is to follow on, though it was submitted last."""
    async with house_in(tmp_path, configured(agents=ONE)) as house:
        begin(house, [lasting("a", 5), lasting("b", 4), lasting("head", 1), lasting("tail", 9, "head")])
        await finished(house)
        assert started(house) == ["head", "tail", "a", "b"]


@virtual
async def test_a_task_is_given_out_only_when_it_is_ready(tmp_path):
    """No task is assigned before all that it depends on has ended, and the wave's plan says the strategy."""
    async with house_in(tmp_path, configured(agents=TWO)) as house:
        begin(house, [lasting("a", 3), lasting("b", 1, "a"), lasting("c", 1, "b")])
        await finished(house)
        (planned,) = events_of(house, ev.WavePlanned)
        assert planned.strategy == "critical_path"
        assert planned.expected_duration_s == pytest.approx(5.0)
        given = {choice.task_id: entry.at_us for entry in entries(house, ev.TasksAssigned) for choice in entry.event.assignments}
        ended = {entry.event.task_id: entry.at_us for entry in entries(house, ev.TaskCompleted)}
        assert given["b"] >= ended["a"]
        assert given["c"] >= ended["b"]
        assert lasted_s(house) == pytest.approx(5.0, abs=0.01)


@virtual
async def test_the_urgent_go_before_the_critical(tmp_path):
    """Priority counts first: an URGENT task of one second is begun before a NORMAL one of nine."""
    async with house_in(tmp_path, configured(agents=ONE)) as house:
        begin(house, [lasting("long", 9, priority=2), lasting("urgent", 1, priority=0)])
        await finished(house)
        assert started(house) == ["urgent", "long"]


@virtual
async def test_runs_side_by_side_share_the_fleet(tmp_path):
    """A task goes to an agent that does nothing, rather than to one that works for another run."""
    async with house_in(tmp_path, configured(agents={"count": 3})) as house:
        for run_id in ("one", "two", "three"):
            begin(house, [lasting("a", 50)], run_id=run_id)
            await after(house, 1)
        assert sorted(agent.busy for agent in house.journal.ledger.present_agents()) == [1, 1, 1]
        await finished(house)
        assert lasted_s(house) < 60


@virtual
async def test_no_more_are_under_way_than_the_workflow_allows(tmp_path):
    """Of a workflow with `max_parallel` 2 never more than two tasks are under way, though four agents are idle."""
    engine = Scripted(**dict.fromkeys("abcdef", "1"))
    async with house_in(tmp_path, configured(agents={"count": 4})) as house:
        put_on(house, engine)
        begin(house, [scripted(name) for name in "abcdef"], max_parallel=2)
        await finished(house)
        assert engine.most_running == 2
        assert len(engine.started) == 6


@virtual
async def test_a_task_waits_for_a_faster_agent_that_is_busy(tmp_path):
    """Once one agent is known to be ten times as fast, the last long task waits for it though the other is idle."""
    fast_s = {"agent_1": 0.1}
    async with house_in(tmp_path, configured(agents=TWO)) as house:
        teach = [
            task(f"t{n}", payload={"duration_s": 1.0, "agents_s": fast_s, "success_rate": 1.0}, agent_id=f"agent_{n % 2}")
            for n in range(16)
        ]
        begin(house, teach)
        await finished(house)
        many = [task(f"m{n}", payload={"duration_s": 1.0, "agents_s": fast_s, "success_rate": 1.0}) for n in range(3)]
        house.journal.append(
            ev.SubmissionAccepted(submission_id="more", run_id="q", waves={1: tuple(many)}, workflow=Workflow(name="flow"))
        )
        await finished(house)
        assert {assigned(house, f"m{n}")[-1] for n in range(3)} == {"agent_1"}


@virtual
async def test_of_a_step_that_nobody_knows_one_task_is_tried_early(tmp_path):
    """The first task of each unknown step goes before further ones of a step that was begun, as all like it gain by it."""
    async with house_in(tmp_path, configured(agents=ONE)) as house:
        common = [sure(f"c{n}", step="common") for n in range(4)]
        begin(house, [*common, sure("rare", step="rare")])
        await finished(house)
        assert started(house).index("rare") == 1


@virtual
async def test_what_a_dependency_rules_out_is_skipped_with_all_that_follows(tmp_path):
    """A task that runs only where another FAILED is SKIPPED when that COMPLETED, says why, and so is what depends on it."""
    async with house_in(tmp_path) as house:
        undo = task("undo", depends_on=[{"task": "a", "when": "failed"}])
        begin(house, [sure("a"), undo, sure("after", depends_on=["undo"]), sure("b", depends_on=["a"])])
        await finished(house)
        skipped = {event.task_id: event.reason for event in events_of(house, ev.TaskSkipped)}
        assert set(skipped) == {"undo", "after"}
        assert "a is COMPLETED" in skipped["undo"]
        assert statuses(executed(tmp_path, "r"))["b"] == "COMPLETED"


@virtual
@pytest.mark.parametrize("strategy", ["critical_path", "load_balanced"])
async def test_a_failure_that_nothing_answers_stops_what_waits(tmp_path, strategy):
    """With `stop`, all that waits is SKIPPED with the reason, save what was to run then; so by either kind of strategy."""
    settings = configured(agents=ONE, retry={"max_attempts": 1}, manager={"workflow_strategy": strategy})
    async with house_in(tmp_path, settings) as house:
        put_on(house, Scripted(bad="fail", slow="1"))
        always = scripted("always", {"task": "bad", "when": "settled"})
        begin(house, [scripted("bad", priority=0), scripted("slow"), scripted("next", "slow"), always], on_failure=OnFailure.STOP)
        await finished(house)
        skipped = {event.task_id: event.reason for event in events_of(house, ev.TaskSkipped)}
        assert skipped["next"] == "the workflow stopped: bad FAILED"
        assert "always" in started(house)
        if strategy == "critical_path":  # by the other, an agent may have begun what lay in its inbox
            assert skipped["slow"] == skipped["next"]
            assert started(house) == ["bad", "always"]


@virtual
async def test_with_continue_the_rest_goes_on(tmp_path):
    """With `continue`, only what depends on the failure is SKIPPED."""
    async with house_in(tmp_path, configured(agents=ONE, retry={"max_attempts": 1})) as house:
        put_on(house, Scripted(bad="fail"))
        begin(house, [scripted("bad"), scripted("child", "bad"), scripted("other")], on_failure=OnFailure.CONTINUE)
        await finished(house)
        assert [event.task_id for event in events_of(house, ev.TaskSkipped)] == ["child"]
        assert "other" in started(house)


@virtual
async def test_a_condition_decides_when_its_task_is_ready(tmp_path):
    """A task whose condition over an upstream result is not true is SKIPPED; one whose condition is true runs."""
    pytest.importorskip("cel_expr_python")
    async with house_in(tmp_path) as house:
        yes = sure("yes", depends_on=["a"], condition="tasks.a.result.simulated == true")
        no = sure("no", depends_on=["a"], condition="tasks.a.result.simulated == false")
        begin(house, [sure("a"), yes, no])
        await finished(house)
        assert [event.task_id for event in events_of(house, ev.TaskSkipped)] == ["no"]
        assert "yes" in started(house)


@virtual
async def test_what_depends_on_a_deferred_task_is_deferred(tmp_path):
    """A task whose dependency waits for a person is DEFERRED too, and both run once it is approved."""
    async with house_in(tmp_path) as house:
        begin(house, [sure("risky", risk_level="HIGH"), sure("child", depends_on=["risky"])])
        await house.journal.until(lambda: len(house.journal.ledger.runs["r"].record.deferred) == 2)
        await house.journal.caught_up()
        assert [entry.event.gate for entry in of_task(house, "child", ev.TaskDeferred)] == ["dependencies"]
        control(house, "r", "approve", "risky", "child")
        await finished(house)
        assert {record["status"] for record in executed(tmp_path, "r") if record["status"] == "COMPLETED"}


@virtual
async def test_a_retry_waits_its_time_and_leaves_its_agent_free(tmp_path):
    """While a failed task waits for its retry, its agent does what else is ready."""
    async with house_in(tmp_path, configured(agents=ONE, retry={"base_delay": 10.0})) as house:
        put_on(house, Scripted(a="fail ok", b="1", c="1"))
        begin(house, [scripted("a", priority=0), scripted("b"), scripted("c", "b")])
        await finished(house)
        assert started(house) == ["a", "b", "c", "a"]
        (again,) = [entry for entry in of_task(house, "a", ev.AttemptStarted) if entry.event.attempt == 2]
        (failed,) = of_task(house, "a", ev.AttemptFailed)
        assert again.at_us - failed.at_us >= 10_000_000


@virtual
async def test_what_an_agent_held_when_it_went_offline_goes_to_another(tmp_path):
    """A timeout takes an agent offline; what it was given goes to another agent, as moved, and the wave ends."""
    settings = configured(agents={"count": 2, "offline_after": 1, "probation": 1e6})
    async with house_in(tmp_path, settings) as house:
        put_on(house, Scripted(a="hang ok", b="1", c="1"))
        begin(house, [scripted("a", timeout_s=2.0, priority=0), scripted("b"), scripted("c", "b")])
        await finished(house)
        assert len(assigned(house, "a")) == 2
        assert any(event.moved for event in events_of(house, ev.TasksAssigned))
        assert {event.task_id for event in events_of(house, ev.TaskCompleted)} == {"a", "b", "c"}


@virtual
async def test_pins_and_capabilities_hold(tmp_path):
    """A pinned task and one that asks for a capability wait for their agent, though another is idle."""
    fleet = [{"id": "plain"}, {"id": "gpu", "capabilities": ["cuda"]}]
    async with house_in(tmp_path, configured(agents={"fleet": fleet})) as house:
        put_on(house, Scripted(a="1", b="1", c="1"))
        pinned = scripted("c", agent_id="plain")
        begin(house, [scripted("a", capabilities=["cuda"]), scripted("b", capabilities=["cuda"]), pinned])
        await finished(house)
        assert [assigned(house, name) for name in "abc"] == [["gpu"], ["gpu"], ["plain"]]
        reasons = {choice.tasks: choice.reason for event in events_of(house, ev.TasksAssigned) for choice in event.choices}
        assert reasons["c",] == "pinned"


@virtual
async def test_what_nobody_can_do_fails_when_it_is_ready(tmp_path):
    """A task that asks for what no agent offers is FAILED by the safety rules once it is ready, and not before."""
    async with house_in(tmp_path) as house:
        put_on(house, Scripted(a="1"))
        begin(house, [scripted("a"), scripted("odd", "a", capabilities=["none"])], on_failure=OnFailure.CONTINUE)
        await finished(house)
        (failed,) = of_task(house, "odd", ev.TaskFailed)
        assert failed.event.error_msg.startswith("safety: no agent")
        assert failed.at_us >= of_task(house, "a", ev.TaskCompleted)[0].at_us


@virtual
async def test_an_agent_is_given_no_more_than_its_share_while_another_has_room(tmp_path):
    """`max_tasks_per_wave` holds while somebody else may have the task; where nobody may, it is given all the same."""
    fleet = [{"id": "one", "max_tasks_per_wave": 1}, {"id": "two", "max_tasks_per_wave": 2}]
    async with house_in(tmp_path, configured(agents={"fleet": fleet})) as house:
        put_on(house, Scripted(**dict.fromkeys("abcd", "1")))
        begin(house, [scripted(name) for name in "abcd"])
        await finished(house)
        given = [assigned(house, name)[0] for name in "abcd"]
        assert sorted(given[:3]) == ["one", "two", "two"]
        assert len(events_of(house, ev.TaskCompleted)) == 4


@virtual
async def test_a_paused_run_is_given_nothing_until_it_resumes(tmp_path):
    """Pause lets attempts under way end and starts nothing; resume goes on where it was."""
    async with house_in(tmp_path, configured(agents=ONE)) as house:
        put_on(house, Scripted(a="2", b="2", c="2"))
        begin(house, [scripted("a"), scripted("b", "a"), scripted("c", "b")])
        await after(house, 1)
        control(house, "r", "pause")
        await after(house, 50)
        assert started(house) == ["a"]
        control(house, "r", "resume")
        await finished(house)
        assert started(house) == ["a", "b", "c"]


@virtual
async def test_a_task_that_is_cancelled_while_it_waits_is_not_started(tmp_path):
    """A ready task that is cancelled before an agent has room ends CANCELLED."""
    async with house_in(tmp_path, configured(agents=ONE)) as house:
        put_on(house, Scripted(a="5", b="1"))
        begin(house, [scripted("a", priority=0), scripted("b")], on_failure=OnFailure.CONTINUE)
        await after(house, 1)
        control(house, "r", "cancel", "b")
        await finished(house)
        assert started(house) == ["a"]
        assert house.journal.lookup.run("r").counts[TaskStatus.CANCELLED] == 1


@virtual
async def test_a_wave_half_dispatched_goes_on_after_a_kill(tmp_path):
    """What was done stays done, what was under way is done again, and what was never given out follows."""
    tasks = [scripted("a"), scripted("b", "a"), scripted("c", "b"), scripted("d", "c")]
    async with house_in(tmp_path, configured(agents=TWO)) as house:
        put_on(house, Scripted(a="1", b="9", c="1", d="1"))
        begin(house, tasks)
        await after(house, 5)
        house.journal.append(ev.ServiceStopping(reason="killed"))
        await house.journal.durable()
        house.executor.stopping = True
    async with house_in(tmp_path, configured(agents=TWO)) as house:
        put_on(house, Scripted())
        await finished(house)
        names = started(house)
        assert names == ["a", "b", "b", "c", "d"]
        assert len(events_of(house, ev.WavePlanned)) == 1
        assert len(assigned(house, "b")) == 1


@virtual
async def test_brief_tasks_are_given_out_by_the_batch(tmp_path):
    """Once a step is known to take next to nothing, many of its tasks share an entry."""
    async with house_in(tmp_path, configured(agents=TWO)) as house:
        begin(house, [sure(f"t{n}") for n in range(600)], max_tasks=1000)
        await finished(house)
        sizes = [len(event.assignments) for event in events_of(house, ev.TasksAssigned)]
        assert sum(sizes) == 600
        assert max(sizes) > 100
        assert len(sizes) < 60


@virtual
async def test_what_lies_behind_a_task_that_was_to_be_brief_goes_to_another(tmp_path):
    """An agent that holds a stock of brief tasks and is held up by one of them has the others taken from it."""
    engine = Scripted(**({f"t{n}": "0.0001" for n in range(400)} | {"t300": "600"}))
    async with house_in(tmp_path, configured(agents=TWO)) as house:
        put_on(house, engine)
        begin(house, [scripted(f"t{n}", timeout_s=1e6) for n in range(400)], max_tasks=1000)
        await finished(house)
        ends = {entry.event.task_id: entry.at_us for entry in entries(house, ev.TaskCompleted)}
        last = ends.pop("t300")
        assert max(ends.values()) < last - 590_000_000


@virtual
async def test_a_rehearsal_teaches_nothing_of_how_long_steps_take(tmp_path):
    """In a dry run no duration is kept; in earnest it is."""
    for dry_run, learned in ((True, 0), (False, 1)):
        async with house_in(tmp_path / str(dry_run), configured(execution={"dry_run": dry_run})) as house:
            begin(house, [sure("a")])
            await finished(house)
            assert house.journal.ledger.paces.learned == learned


@virtual
async def test_a_workflow_may_be_dealt_when_it_begins(tmp_path):
    """With another strategy of the registry the wave is assigned at plan time, and the tasks wait with their agents."""
    async with house_in(tmp_path, configured(agents=TWO, manager={"workflow_strategy": "round_robin"})) as house:
        begin(house, [sure("a"), sure("b", depends_on=["a"])])
        await finished(house)
        (event,) = events_of(house, ev.TasksAssigned)
        assert (event.strategy, len(event.assignments)) == ("round_robin", 2)


@virtual
async def test_waves_of_other_runs_are_planned_as_before(tmp_path):
    """A wave that is no workflow is dealt by `manager.strategy`."""
    async with house_in(tmp_path) as house:
        accept(house, "r", [sure("a"), sure("b", depends_on=["a"])])
        await finished(house)
        assert {event.strategy for event in events_of(house, ev.WavePlanned)} == {"load_balanced"}


TOLD = configured(agents={"count": 3}, retry={"base_delay": 0.5})


async def story(folder):
    """A graph with a failure that is answered, a retry, a skip, a task that may run once, and a timeout."""
    async with house_in(folder, TOLD) as house:
        tasks = [
            sure("a", payload={"duration_s": 1.0}, estimated_duration_s=1.0),
            sure("b", depends_on=["a"], payload={"duration_s": 2.0}, estimated_duration_s=2.0),
            task("bad", payload={"success_rate": 0.0}, max_attempts=2),
            sure("answer", depends_on=[{"task": "bad", "when": "failed"}]),
            sure("never", depends_on=[{"task": "a", "when": "failed"}]),
            sure("join", depends_on=[{"task": "b", "when": "settled"}, {"task": "never", "when": "settled"}]),
            sure("late", depends_on=["answer"], payload={"duration_s": 9.0}, timeout_s=1.0, max_attempts=1),
            *(sure(f"n{n}", depends_on=["join"]) for n in range(6)),
        ]
        begin(house, tasks, on_failure=OnFailure.CONTINUE)
        await finished(house)
        await house.stop("the end", 1)


@virtual
async def test_a_journal_that_is_cut_anywhere_goes_on_to_the_same_end(tmp_path):
    """Wherever a workflow's journal ends, the house that opens it ends every task as in the whole story, each once."""
    await story(tmp_path / "told")
    told, end = journal_of(tmp_path / "told"), ends(tmp_path / "told", "r")
    assert end["answer"] == end["join"] == "COMPLETED"
    first = next(place for place, entry in enumerate(told) if isinstance(entry.event, ev.SubmissionAccepted))
    for cut in range(first + 1, len(told), 2):
        folder = tmp_path / f"cut-{cut}"
        written(folder, told[:cut])
        async with house_in(folder, TOLD) as house:
            async with asyncio.timeout(5000):
                await finished(house)
            await house.stop("the end", 1)
        assert ends(folder, "r") == end, f"cut after {cut} entries: {told[cut - 1].event}"


@virtual
async def test_the_same_workflow_makes_the_same_journal(tmp_path):
    """In virtual time the same graph is given out in the same way twice."""
    for name in ("one", "two"):
        await story(tmp_path / name)
    one, two = (
        [(type(entry.event).__name__, getattr(entry.event, "task_id", None)) for entry in journal_of(tmp_path / name)]
        for name in ("one", "two")
    )
    assert one == two
