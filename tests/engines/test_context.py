"""What a handler's context gives and refuses, for async functions and for plain ones in their thread; agents of users' own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from phase21.domain import events as ev
from phase21.domain.errors import AttemptOver, ConfigurationError, MessageRefused, Retryable
from phase21.domain.settings import AgentSettings, AgentSpec, Settings
from phase21.domain.tasks import Attempt, Task
from phase21.engines import own_agents as own
from phase21.engines.context import LOG_LINES, SPAWN_MOST, Context, Contexts
from phase21.engines.engine import Engines
from phase21.engines.handlers import PythonEngine, wants_context
from phase21.messaging.office import PostOffice
from phase21.messaging.speaker import BODY_BYTES
from phase21.store.journal import Journal


@contextlib.asynccontextmanager
async def stage(folder, *names):
    """A journal on which these tasks are at work, and a context for each."""
    async with Journal.opened(folder / "journal.db", inline=True) as journal:
        office = PostOffice(journal)
        journal.append(ev.AgentJoined(agent_id="x"))
        tasks = tuple(Task(task_id=name, kind="python") for name in names)
        journal.append(ev.SubmissionAccepted(submission_id="s", run_id="r", waves={1: (*tasks, Task(task_id="open"))}))
        journal.append(ev.WaveOpened(run_id="r", wave=1))
        contexts = []
        for task in tasks:
            where = {"run_id": "r", "wave": 1, "agent_id": "x"}
            journal.append(ev.AttemptStarted(task_id=task.task_id, attempt=1, confidence=1.0, **where))
            attempt = Attempt(task=task, number=1, predicted=1.0, timeout_s=60.0, **where)
            contexts.append(Context(office, attempt))
        yield SimpleNamespace(journal=journal, office=office, contexts=contexts, tasks=tasks)


def told(journal, kind):
    return [entry.event for entry in journal.lookup.entries() if isinstance(entry.event, kind)]


async def test_a_context_says_what_it_is(tmp_path):
    """Task, attempt, deadline and key are the attempt's own; the key is the same for each attempt of a task."""
    async with stage(tmp_path, "a") as (at):
        (ctx,) = at.contexts
        assert (ctx.task.task_id, ctx.attempt, ctx.agent_id, ctx.run_id) == ("a", 1, "x", "r")
        assert ctx.idempotency_key == "r/a"
        assert 0 < ctx.remaining_s <= 60
        assert 0 < (ctx.deadline - datetime.now(UTC)).total_seconds() <= 60  # noqa: TID251 - what is compared with
        assert (ctx.cancelled, ctx.approved) == (False, False)


async def test_what_a_context_is_asked_too_late_is_refused(tmp_path):
    """Once the attempt has ended nothing that it says is heard."""
    async with stage(tmp_path, "a", "b") as at:
        ctx = at.contexts[0]
        ctx.progress(50.2)
        ctx.progress(50.4, "last")
        await ctx.send("b", 1)
        ctx.close(cancelled=True)
        ctx.close()
        assert ctx.cancelled
        for ask in (
            lambda: ctx.send("b", 2), lambda: ctx.progress(60), lambda: ctx.log("x"), lambda: ctx.spawn([]), lambda: ctx.receive(0),
            lambda: ctx.publish("t"), lambda: ctx.request("b"), lambda: ctx.take_lock("l"),
        ):  # fmt: skip
            with pytest.raises(AttemptOver):
                ask()
        with pytest.raises(AttemptOver):
            await ctx.shared.get("k")
        await at.journal.durable()
        assert [event.percent for event in told(at.journal, ev.TaskProgressed)] == [50.2, 50.4]
        assert len(told(at.journal, ev.MessagesPassed)) == 1


@pytest.mark.parametrize(
    ("ask", "why"),
    [
        (lambda ctx: ctx.send("b", object()), "JSON"),
        (lambda ctx: ctx.send("b", "x" * BODY_BYTES), "at most"),
        (lambda ctx: ctx.send("b", eval("[" * 70 + "]" * 70)), "deeper"),
        (lambda ctx: ctx.send("nobody", 1), "neither"),
        (lambda ctx: ctx.send("b", 1, priority=4), "priority"),
        (lambda ctx: ctx.send("b", 1, type="shout"), "type"),
        (lambda ctx: ctx.publish("", 1), "topic"),
        (lambda ctx: ctx.publish("x" * 300, 1), "topic"),
        (lambda ctx: ctx.shared.set("", 1), "shared name"),
        (lambda ctx: ctx.shared.set("k", object()), "JSON"),
        (lambda ctx: ctx.take_lock(""), "lock"),
        (lambda ctx: ctx.log("x", "LOUD"), "level"),
        (lambda ctx: ctx.spawn([{"task_id": "t"}] * (SPAWN_MOST + 1)), "further tasks"),
    ],
)
async def test_what_cannot_be_is_refused_and_changes_nothing(tmp_path, ask, why):
    """Each refusal names its reason, and nothing of it reaches the journal."""
    async with stage(tmp_path, "a", "b") as at:
        before = at.journal.ledger.position

        async def asked():
            await ask(at.contexts[0])

        with pytest.raises(MessageRefused, match=why):
            await asked()
        assert at.journal.ledger.position == before


async def test_log_lines_are_bounded(tmp_path):
    """An attempt may write so many lines, of which the last says that the rest is left out."""
    async with stage(tmp_path, "a") as at:
        for n in range(LOG_LINES + 50):
            at.contexts[0].log(f"line\n{n} \ud800")
        await at.journal.durable()
        lines = told(at.journal, ev.TaskNoted)
        assert len(lines) == LOG_LINES
        assert lines[0].text == "line 0 \\ud800"
        assert "left out" in lines[-1].text


async def test_a_lock_that_is_not_free_in_time_asks_for_another_attempt(tmp_path):
    """`lock` raises Retryable where its time runs out; a second taking by its own holder is refused at once."""
    async with stage(tmp_path, "a", "b") as at:
        first, second = at.contexts
        async with first.lock("l"):
            with pytest.raises(Retryable, match="not free"):
                async with second.lock("l", timeout_s=0.01):
                    pass
            with pytest.raises(MessageRefused, match="already"):
                await first.take_lock("l")
        async with second.lock("l") as fence:
            assert fence == 2


async def test_a_disk_that_is_slow_holds_whoever_sends_much(tmp_path, monkeypatch):
    """After so many bytes the sender waits until they are durable."""
    monkeypatch.setattr("phase21.messaging.mail.UNSAVED_BYTES", 1000)
    async with stage(tmp_path, "a", "b") as at:
        waited = []
        durable = at.journal.durable

        async def counted():
            waited.append(1)
            await durable()

        monkeypatch.setattr(at.journal, "durable", counted)
        for _ in range(512):
            await at.contexts[0].send("b", "x" * 50)
        assert len(waited) == 2


async def test_a_plain_function_has_all_of_it_in_its_thread(tmp_path):
    """A plain function sends, shares, locks, asks for tasks and takes messages, and waits where another awaits."""

    def work(ctx, more):
        assert threading.current_thread() is not threading.main_thread()
        ctx.subscribe("t")
        ctx.send("b", {"n": 1}, priority=0)
        ctx.publish("t", 2)
        ctx.broadcast(3)
        ctx.handoff("b", 4)
        letter = ctx.receive(5)
        ctx.respond(letter, "yes")
        with ctx.lock("l") as fence:
            assert ctx.shared.set("k", 1) == 1
            assert ctx.shared.compare_and_set("k", 0, 2) is None
        assert ctx.shared.names() == ["k"]
        ctx.unsubscribe("t")
        ctx.progress(99)
        ctx.log("x")
        ctx.heartbeat()
        ctx.spawn([{"task_id": "further"}])
        assert not ctx.cancelled
        assert ctx.remaining_s > 0
        assert not ctx.approved
        return {"fence": fence, "value": ctx.shared.get("k").value, "asked": letter.content, "more": more}

    async with stage(tmp_path, "a", "b") as at:
        engine = PythonEngine(["m"], Contexts(at.office))
        engine._functions["m:work"] = work
        payload = {"callable": "m:work", "kwargs": {"more": 7}}
        where = {"run_id": "r", "wave": 1, "agent_id": "x"}
        attempt = Attempt(task=Task(task_id="a", payload=payload), number=1, predicted=1.0, timeout_s=60.0, **where)
        async with asyncio.TaskGroup() as group:
            performed = group.create_task(engine.perform(attempt))
            answer = await at.contexts[1].request("a", "price?", deadline_s=5)
        outcome = performed.result()
        assert answer.content == "yes"
        assert outcome.result == {"fence": 1, "value": 1, "asked": "price?", "more": 7, "spawn": [{"task_id": "further"}]}


async def test_a_plain_function_that_is_left_behind_is_told(tmp_path):
    """Once its attempt was cancelled, what a thread still asks raises, and it sees that it was cancelled."""
    began, ended = threading.Event(), threading.Event()
    seen = []

    def work(ctx):
        began.set()
        for ask in (lambda: ctx.receive(60), lambda: ctx.send("b", 1)):
            try:
                ask()
            except AttemptOver:
                seen.append(ctx.cancelled)
        ended.set()

    async with stage(tmp_path, "a", "b") as at:
        engine = PythonEngine(["m"], Contexts(at.office))
        engine._functions["m:work"] = work
        where = {"run_id": "r", "wave": 1, "agent_id": "x"}
        task = Task(task_id="a", payload={"callable": "m:work"})
        attempt = Attempt(task=task, number=1, predicted=1.0, timeout_s=60.0, **where)
        async with asyncio.TaskGroup() as group:
            performed = group.create_task(engine.perform(attempt))
            await asyncio.to_thread(began.wait, 10)
            performed.cancel()
        assert await asyncio.to_thread(ended.wait, 10)
        assert seen == [True, True]


class Called:
    def __call__(self, ctx):
        """A callable object."""


def annotated(anything: Context):
    """Named otherwise."""


def by_keyword(*, ctx):
    """Not first."""


@pytest.mark.parametrize(
    ("function", "wanted"),
    [
        (lambda ctx: 0, True),
        (Called(), True),
        (annotated, True),
        (by_keyword, False),
        (lambda x: 0, False),
        (lambda: 0, False),
        (dict, False),
    ],
)
def test_who_is_given_a_context(function, wanted):
    """A function whose first parameter is named `ctx` or annotated as a context has one, and no other."""
    assert wants_context(function) is wanted


def marked(**offer):
    """A fresh function, marked so."""

    async def work(ctx, payload):
        return payload

    return own.agent(**offer)(work)


async def test_an_agent_of_ones_own_is_found_and_checked(monkeypatch):
    """An entry point's function brings its kinds and joins the fleet under its name; what is none is a configuration error."""

    @own.agent(kinds=["review"], capabilities=["python"], concurrency=2)
    async def reviewer(ctx, payload):
        return payload

    with pytest.raises(TypeError, match="no async function"):
        own.agent(kinds=["x"])(lambda ctx, payload: None)
    monkeypatch.setattr(own, "offered", lambda group: {"reviewer": reviewer})
    (found,) = own.own_agents()
    assert found.spec == AgentSpec(id="reviewer", kinds=("review",), capabilities=("python",), concurrency=2)
    assert [spec.id for spec in own.fleet_of(Settings(agents=AgentSettings(count=1)), [found])] == ["agent_0", "reviewer"]
    with pytest.raises(ConfigurationError, match="of that name already"):
        own.fleet_of(Settings(agents=AgentSettings(fleet=(AgentSpec(id="reviewer"),))), [found])
    engines = Engines.built(Settings().handlers, dry_run=False, agents=[found])
    attempt = Attempt(
        run_id="r", wave=1, task=Task(task_id="t", kind="review"), agent_id="reviewer", number=1, predicted=1.0, timeout_s=1.0
    )
    assert not (await engines.of("review").perform(attempt)).success
    with pytest.raises(ConfigurationError, match="has one already"):
        Engines.built(Settings().handlers, dry_run=False, agents=[found, found])
    for broken, why in (
        (lambda: 0, "no function marked"),
        (marked(kinds=[]), "at least one kind"),
        (marked(kinds=["a b"]), "kinds"),
    ):
        monkeypatch.setattr(own, "offered", lambda group, broken=broken: {"reviewer": broken})
        with pytest.raises(ConfigurationError, match=why):
            own.own_agents()
