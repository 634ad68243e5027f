"""Stories of tasks that talk, in virtual time: what is sent arrives once, whatever becomes of those who speak."""

from __future__ import annotations

import asyncio
import shutil
from itertools import pairwise

import pytest
from cutting import journal_of, written
from stage import accept, configured, control, events_of, executed, finished, statuses, task
from talkers import post, talking_house

from phase21.domain import events as ev
from phase21.domain.errors import AttemptOver, MessageRefused, NeedsApproval, NoAnswer, Permanent, RateLimited
from phase21.messaging import mail

pytestmark = pytest.mark.looptime


async def carried_out(house, *tasks, seconds=500):
    accept(house, "r", tasks)
    async with asyncio.timeout(seconds):
        await finished(house)


def result_of(house, task_id):
    return next(event.result for event in events_of(house, ev.TaskCompleted) if event.task_id == task_id)


async def test_two_agents_negotiate(tmp_path, monkeypatch):
    """A request is answered by whom it was sent to, and the answer reaches whoever asked, each once."""

    async def buyer(ctx, payload):
        price = payload["from"]
        while (answer := await ctx.request("seller", {"price": price})).content != "sold":
            price += answer.content["more"]
        return {"price": price}

    async def seller(ctx, payload):
        while letter := await ctx.receive(60):
            sold = letter.content["price"] >= payload["at_least"]
            await ctx.respond(letter, "sold" if sold else {"more": 5})
            if sold:
                return {"by": letter.sender}
        return None

    async with talking_house(tmp_path, monkeypatch, buy=buyer, sell=seller) as house:
        await carried_out(
            house,
            task("buyer", kind="buy", payload={"from": 10}),
            task("seller", kind="sell", payload={"at_least": 22}),
        )
        assert result_of(house, "buyer") == {"price": 25}
        assert result_of(house, "seller") == {"by": "buyer"}
        passed = events_of(house, ev.MessagesPassed)
        sent = [message.message_id for event in passed for message in event.sent]
        taken = [taken.message_id for event in passed for taken in event.taken]
        assert sent == taken == [f"m{n}" for n in range(1, 9)]


async def test_the_most_urgent_comes_first(tmp_path, monkeypatch):
    """A mailbox gives its messages by priority, and in order of arrival within one."""

    async def speak(ctx, payload):
        for text, priority in (("a", 3), ("b", 2), ("c", 0), ("d", 2), ("e", 1)):
            await ctx.send("hearer", text, priority=priority)

    async def hear(ctx, payload):
        await asyncio.sleep(1)
        return [(await ctx.receive()).content for _ in range(5)]

    async with talking_house(tmp_path, monkeypatch, speak=speak, hear=hear) as house:
        await carried_out(house, task("hearer", kind="hear"), task("speaker", kind="speak"))
        assert result_of(house, "hearer") == ["c", "e", "b", "d", "a"]


async def test_what_is_picked_by_type_does_not_lead_past_what_is_urgent(tmp_path, monkeypatch):
    """After a message that was picked from among the least urgent, the next one is the most urgent again."""

    async def speak(ctx, payload):
        for text, priority, kind in (("a", 3, "error"), ("b", 0, "notification"), ("c", 3, "notification")):
            await ctx.send("hearer", text, priority=priority, type=kind)

    async def hear(ctx, payload):
        await asyncio.sleep(1)
        return [(await ctx.receive(0, type="error")).content, *[(await ctx.receive(0)).content for _ in range(2)]]

    async with talking_house(tmp_path, monkeypatch, speak=speak, hear=hear) as house:
        await carried_out(house, task("hearer", kind="hear"), task("speaker", kind="speak"))
        assert result_of(house, "hearer") == ["a", "b", "c"]


async def test_a_request_to_whom_is_gone_fails_at_once(tmp_path, monkeypatch):
    """What is sent to a task that has ended is a dead letter, and whoever waits for its answer is told at once."""

    async def gone(ctx, payload):
        return None

    async def asks(ctx, payload):
        await asyncio.sleep(1)
        started = asyncio.get_running_loop().time()
        with pytest.raises(NoAnswer, match="gone"):
            await ctx.request("early", "hello?", deadline_s=100)
        assert asyncio.get_running_loop().time() - started < 1
        with pytest.raises(MessageRefused, match="neither a task"):
            await ctx.send("nobody", 1)

    async with talking_house(tmp_path, monkeypatch, gone=gone, asks=asks) as house:
        await carried_out(house, task("early", kind="gone"), task("late", kind="asks"))
        (dead,) = events_of(house, ev.MessagesDead)
        assert [(letter.address, letter.reason) for letter in dead.letters] == [("early", "early is gone")]


async def test_what_nobody_took_is_a_dead_letter_when_its_task_ends(tmp_path, monkeypatch):
    """Messages that wait for a task when it ends are buried, each with the reason, and none stays behind."""

    async def speak(ctx, payload):
        for n in range(3):
            await ctx.send("deaf", n)
        await ctx.send("@deaf_agent", "for the agent")
        await asyncio.sleep(5)

    async def deaf(ctx, payload):
        await asyncio.sleep(1)

    async with talking_house(tmp_path, monkeypatch, speak=speak, deaf=deaf) as house:
        await carried_out(house, task("deaf", kind="deaf"), task("speaker", kind="speak"))
        letters = [letter for event in events_of(house, ev.MessagesDead) for letter in event.letters]
        assert sorted(letter.address for letter in letters) == ["@deaf_agent", "deaf", "deaf", "deaf"]
        assert post(house).get("mailboxes", {}) == {}


async def test_a_deadline_that_passes_makes_a_dead_letter(tmp_path, monkeypatch):
    """A message that is not taken by its deadline is buried then, not later, and is never received."""

    async def speak(ctx, payload):
        await ctx.send("slow", "old", deadline_s=2)
        await ctx.send("slow", "fresh")

    async def slow(ctx, payload):
        await asyncio.sleep(10)
        return (await ctx.receive()).content

    async with talking_house(tmp_path, monkeypatch, speak=speak, slow=slow) as house:
        await carried_out(house, task("slow", kind="slow"), task("speaker", kind="speak"))
        assert result_of(house, "slow") == "fresh"
        entries = [entry for entry in house.journal.lookup.entries() if isinstance(entry.event, ev.MessagesDead)]
        sent = next(event.sent[0] for event in events_of(house, ev.MessagesPassed))
        assert [letter.reason for letter in entries[0].event.letters] == ["its deadline has passed"]
        assert entries[0].at_us - sent.sent_us == pytest.approx(2_000_000, abs=20_000)


async def test_publish_and_broadcast_reach_those_who_should_hear(tmp_path, monkeypatch):
    """A topic reaches whoever follows it then, a broadcast whoever is at work; neither reaches the speaker."""

    async def follower(ctx, payload):
        await ctx.subscribe(*payload["topics"])
        await asyncio.sleep(2)
        heard = []
        while letter := await ctx.receive(0):
            heard.append(letter.content)
        return heard

    async def speaker(ctx, payload):
        await ctx.subscribe("news")
        await asyncio.sleep(1)
        await ctx.publish("news", "n")
        await ctx.publish("nothing", "x")
        await ctx.broadcast("all")
        assert await ctx.receive(0) is None

    async with talking_house(tmp_path, monkeypatch, follow=follower, speak=speaker) as house:
        house.journal.ledger.agents["follow_agent"].concurrency = 2
        await carried_out(
            house,
            task("a", kind="follow", payload={"topics": ["news"]}, agent_id="follow_agent"),
            task("s", kind="speak"),
        )
        assert result_of(house, "a") == ["n", "all"]


async def test_a_message_in_hand_is_given_again_to_the_next_attempt(tmp_path, monkeypatch):
    """What a task had taken last when its attempt failed, the next attempt takes again; what it had dealt with, not."""
    seen = []

    async def speak(ctx, payload):
        for n in range(4):
            await ctx.send("hearer", n)

    async def hear(ctx, payload):
        await asyncio.sleep(1)
        for _ in range(4):
            letter = await ctx.receive(0)
            if letter is None:
                return
            seen.append((ctx.attempt, letter.content))
            if ctx.attempt == 1 and letter.content == 2:
                raise RuntimeError("crashed over it")

    async with talking_house(tmp_path, monkeypatch, speak=speak, hear=hear) as house:
        await carried_out(house, task("hearer", kind="hear"), task("speaker", kind="speak"))
        assert seen == [(1, 0), (1, 1), (1, 2), (2, 2), (2, 3)]


async def test_a_full_mailbox_pushes_back(tmp_path, monkeypatch):
    """No more than its bound waits in a mailbox: whoever sends waits until something is taken, and all arrives in order."""
    most = 0

    async def speak(ctx, payload):
        for n in range(3000):
            await ctx.send("hearer", n)

    async def hear(ctx, payload):
        nonlocal most
        await asyncio.sleep(1)
        got = []
        for _ in range(3000):
            most = max(most, house.journal.ledger.runs["r"].record.post.mailboxes["hearer"].size)
            got.append((await ctx.receive()).content)
        return got == list(range(3000))

    async with talking_house(tmp_path, monkeypatch, speak=speak, hear=hear) as house:
        await carried_out(house, task("hearer", kind="hear"), task("speaker", kind="speak"))
        assert result_of(house, "hearer") is True
        assert most == 1024


async def test_what_is_buried_makes_room(tmp_path, monkeypatch):
    """Whoever waits at a full mailbox goes on once messages there are past their deadline, though none was taken."""
    monkeypatch.setattr(mail, "MAILBOX_MESSAGES", 3)

    async def speak(ctx, payload):
        for _ in range(2):
            await ctx.send("picky", "late", deadline_s=1)
        await ctx.send("picky", "kept")
        await ctx.send("picky", "fourth")
        return asyncio.get_running_loop().time()

    async def picky(ctx, payload):
        started = asyncio.get_running_loop().time()
        await asyncio.sleep(1.0005)
        assert await ctx.receive(0, type="error") is None
        await asyncio.sleep(5)
        return started

    async with talking_house(tmp_path, monkeypatch, speak=speak, pick=picky) as house:
        await carried_out(house, task("picky", kind="pick"), task("speaker", kind="speak"))
        assert result_of(house, "speaker") - result_of(house, "picky") == pytest.approx(1, abs=0.1)


async def test_what_is_buried_makes_room_at_once(tmp_path, monkeypatch):
    """Room that is made in a turn is there for what is sent in the same turn."""
    monkeypatch.setattr(mail, "MAILBOX_MESSAGES", 3)

    async def muse(ctx, payload):
        for _ in range(2):
            await ctx.send("muse", "late", deadline_s=1)
        await asyncio.sleep(1.0005)
        await ctx.send("muse", "a")
        assert await ctx.receive(0, type="error") is None
        await ctx.send("muse", "b")
        await ctx.send("muse", "c")
        return [(await ctx.receive()).content for _ in range(3)]

    async with talking_house(tmp_path, monkeypatch, muse=muse) as house:
        await carried_out(house, task("muse", kind="muse"), seconds=50)
        assert result_of(house, "muse") == ["a", "b", "c"]


async def test_no_lock_outlives_the_attempt_that_held_it(tmp_path, monkeypatch):
    """A lock is free once its holder has failed, timed out or been cancelled; whoever waits in line gets it next."""
    order = []

    async def holder(ctx, payload):
        await ctx.take_lock("l")
        order.append(("held", ctx.task.task_id))
        if payload.get("fails"):
            raise Permanent("no use")
        await asyncio.sleep(1000)

    async def waiter(ctx, payload):
        await asyncio.sleep(payload["after"])
        async with ctx.lock("l") as fence:
            order.append((fence, ctx.task.task_id))
            await asyncio.sleep(0.1)

    async with talking_house(tmp_path, monkeypatch, hold=holder, wait1=waiter, wait2=waiter, late=holder) as house:
        await carried_out(
            house,
            task("h", kind="hold", timeout_s=3, max_attempts=1),
            task("w1", kind="wait1", payload={"after": 1}),
            task("w2", kind="wait2", payload={"after": 2}),
        )
        assert [who for _, who in order] == ["h", "w1", "w2"]
        assert order[1][0] < order[2][0]
        assert statuses(executed(tmp_path, "r")) == {"h": "FAILED", "w1": "COMPLETED", "w2": "COMPLETED"}
        assert post(house).get("locks", {}) == {}


async def test_a_lease_ends_at_its_time_and_its_holder_cannot_give_it_back(tmp_path, monkeypatch):
    """A lock with a lease is another's once that has run out; the late holder's release changes nothing."""

    async def first(ctx, payload):
        fence = await ctx.take_lock("l", lease_s=1)
        await asyncio.sleep(5)
        return await ctx.release_lock("l", fence)

    async def second(ctx, payload):
        await asyncio.sleep(0.1)
        started = asyncio.get_running_loop().time()
        assert await ctx.take_lock("l", timeout_s=0.2) is None
        fence = await ctx.take_lock("l")
        await asyncio.sleep(10)
        return [fence, round(asyncio.get_running_loop().time() - started - 10, 1)]

    async with talking_house(tmp_path, monkeypatch, first=first, second=second) as house:
        await carried_out(house, task("a", kind="first"), task("b", kind="second"))
        assert result_of(house, "a") is False
        fence, waited_s = result_of(house, "b")
        assert (fence > 1, waited_s) == (True, 0.9)


async def test_a_fence_is_larger_than_any_that_a_crash_has_lost(tmp_path, monkeypatch):
    """Fences go on from the time at which the service started, so that one which never became durable is not given a second time."""

    async def holder(ctx, payload):
        async with ctx.lock("l") as first:
            pass
        async with ctx.lock("l") as second:
            return [first, second]

    async with talking_house(tmp_path, monkeypatch, hold=holder) as house:
        await carried_out(house, task("h", kind="hold"))
        started_us = house.journal.ledger.service_us
        assert result_of(house, "h") == [started_us + 1, started_us + 2]


async def test_compare_and_set_lets_one_of_many_win(tmp_path, monkeypatch):
    """Tasks that count together by compare-and-set lose no count, and every version is in the journal."""

    async def count(ctx, payload):
        for _ in range(10):
            while True:
                now = await ctx.shared.get("n")
                await asyncio.sleep(0)
                if await ctx.shared.compare_and_set("n", now.version, (now.value or 0) + 1) is not None:
                    break

    async with talking_house(tmp_path, monkeypatch, a=count, b=count, c=count) as house:
        await carried_out(house, *(task(f"t{kind}", kind=kind) for kind in "abc"))
        changes = events_of(house, ev.SharedChanged)
        assert [(change.version, bytes(change.body)) for change in changes] == [(n, str(n).encode()) for n in range(1, 31)]


async def test_shared_values_outlive_a_restart_and_a_later_wave_sees_them(tmp_path, monkeypatch):
    """What a run shares is there for its later waves, after a restart too."""

    async def put(ctx, payload):
        await ctx.shared.set("x", {"deep": [1, 2]}, durable=True)

    async def look(ctx, payload):
        found = await ctx.shared.get("x")
        return [found.version, found.value, found.by]

    async with talking_house(tmp_path, monkeypatch, put=put, look=look) as house:
        await carried_out(house, task("p", kind="put"))
        await house.stop("for now", 1)
    async with talking_house(tmp_path, monkeypatch, put=put, look=look) as house:
        await carried_out(house, task("l", kind="look"))
        assert result_of(house, "l") == [1, {"deep": [1, 2]}, "p"]


async def test_typed_errors_decide_what_happens_next(tmp_path, monkeypatch):
    """Permanent ends the task, RateLimited sets the delay, NeedsApproval waits for a person, and then it runs again."""

    async def permanent(ctx, payload):
        raise Permanent("never")

    async def limited(ctx, payload):
        if ctx.attempt == 1:
            raise RateLimited(42.0)

    async def careful(ctx, payload):
        if not ctx.approved:
            raise NeedsApproval("it costs money")

    async with talking_house(tmp_path, monkeypatch, permanent=permanent, limited=limited, careful=careful) as house:
        await carried_out(house, task("p", kind="permanent"), task("l", kind="limited"), task("c", kind="careful", max_attempts=1))
        assert [event.attempt for event in events_of(house, ev.TaskFailed)] == [1]
        assert [event.delay_s for event in events_of(house, ev.AttemptFailed)] == [42.0]
        assert [(event.gate, event.reason) for event in events_of(house, ev.TaskDeferred)] == [("handler", "it costs money")]
        assert all(agent.busy == 0 for agent in house.journal.ledger.agents.values())
        control(house, "r", "approve", "c")
        await finished(house)
        ends = {row["task_id"]: row["status"] for row in executed(tmp_path, "r") if row["status"] != "DEFERRED"}
        assert ends == {"p": "FAILED", "l": "COMPLETED", "c": "COMPLETED"}


async def test_errors_that_a_task_group_gathered_are_told_by_their_own_names(tmp_path, monkeypatch):
    """Of several errors one that says what happens next decides; where none does the first is told, and how many there were."""

    async def fails(error):
        raise error

    async def gather(ctx, payload):
        errors = {"plain": [KeyError("k"), ValueError("v")], "typed": [ValueError("v"), Permanent("never")]}[payload["how"]]
        async with asyncio.TaskGroup() as outer:
            for error in errors:
                outer.create_task(fails(ExceptionGroup("inner", [error])))

    async with talking_house(tmp_path, monkeypatch, gather=gather) as house:
        how = {"max_attempts": 2, "kind": "gather"}
        await carried_out(house, *[task(name, payload={"how": name}, **how) for name in ("plain", "typed")])
        failed = {event.task_id: (event.attempt, event.error_msg) for event in events_of(house, ev.TaskFailed)}
        assert failed == {"plain": (2, "KeyError: 'k' (and 1 more)"), "typed": (1, "Permanent: never (and 1 more)")}


async def test_progress_is_recorded_seldom_and_its_last_word_always(tmp_path, monkeypatch):
    """However often an attempt says how far it is, five a second are recorded at most, and the last word always."""

    async def work(ctx, payload):
        for n in range(2001):
            ctx.progress(n / 20, f"step {n}")
            await asyncio.sleep(0.001)

    async with talking_house(tmp_path, monkeypatch, work=work) as house:
        await carried_out(house, task("t", kind="work"))
        said = events_of(house, ev.TaskProgressed)
        assert 8 <= len(said) <= 13
        assert (said[-1].percent, said[-1].note) == (100.0, "step 2000")
        assert all(later.percent - earlier.percent >= 1 for earlier, later in pairwise(said[:-1]))


async def test_an_agent_of_ones_own_takes_only_its_kinds(tmp_path, monkeypatch):
    """An agent that names kinds is given tasks of these kinds alone, by every strategy, and refuses others pinned to it."""

    async def review(ctx, payload):
        return ctx.agent_id

    for strategy in ("load_balanced", "round_robin", "priority_based", "confidence_based", "maximize_success"):
        folder = tmp_path / strategy
        async with talking_house(folder, monkeypatch, review=review) as house:
            tasks = [task(f"{strategy[:4]}{n}", payload={"success_rate": 1.0}) for n in range(9)]
            pinned = task("pinned", agent_id="review_agent", payload={"success_rate": 1.0})
            own = task("own", kind="review", agent_id="review_agent")
            await carried_out(house, *tasks, pinned, own)
            given = {a.task_id: a.agent_id for event in events_of(house, ev.TasksAssigned) for a in event.assignments}
            assert "review_agent" not in {given[one.task_id] for one in tasks}
            assert result_of(house, "own") == "review_agent"
            (failed,) = events_of(house, ev.TaskFailed)
            assert "takes no tasks of kind simulate" in failed.error_msg


async def test_cut_at_every_entry_the_talk_comes_to_the_same_end(tmp_path, monkeypatch):
    """Wherever the journal ends, tasks that keep where they are in shared values go on, and each word counts once."""

    async def counts(ctx, payload):
        done = (await ctx.shared.get("sent")).value or 0
        for number in range(done + 1, 5):
            async with ctx.lock("turn"):
                await ctx.send("to", number)
                await ctx.shared.set("sent", number)

    async def collects(ctx, payload):
        heard = (await ctx.shared.get("heard")).value or []
        while len(heard) < 4:
            letter = await ctx.receive()
            if letter.content > len(heard):
                heard = [*heard, letter.content]
                async with ctx.lock("turn"):
                    await ctx.shared.set("heard", heard)
        return heard

    works = {"counts": counts, "collects": collects}
    async with talking_house(tmp_path / "told", monkeypatch, **works) as house:
        await carried_out(house, task("to", kind="collects"), task("from", kind="counts"))
        await house.stop("the end", 1)
    entries = journal_of(tmp_path / "told")
    accepted = next(entry.position for entry in entries if isinstance(entry.event, ev.SubmissionAccepted))
    for cut in range(accepted, len(entries) + 1):
        folder = tmp_path / f"cut-{cut}"
        written(folder, entries[:cut])
        async with talking_house(folder, monkeypatch, **works) as house:
            async with asyncio.timeout(500):
                await finished(house)
            assert result_of(house, "to") == [1, 2, 3, 4], f"cut after entry {cut}: {entries[cut - 1]}"
            record = house.journal.ledger.runs["r"].record.post
            assert record is None or not (record.locks or record.mailboxes), cut
            await house.stop("the end", 1)
        shutil.rmtree(folder)


async def test_what_is_taken_out_of_order_is_taken_once(tmp_path, monkeypatch):
    """Messages that are picked by type, sender or topic leave the others in order, and none comes twice."""

    async def speak(ctx, payload):
        for n, kind in enumerate(("notification", "error", "notification", "state_update", "error")):
            await ctx.send("hearer", n, type=kind)

    async def hear(ctx, payload):
        await asyncio.sleep(1)
        picked = [(await ctx.receive(0, type="error")).content, (await ctx.receive(0, type="state_update")).content]
        rest = [(await ctx.receive(0)).content for _ in range(3)]
        assert await ctx.receive(0, sender="speaker") is None
        return [*picked, *rest]

    async with talking_house(tmp_path, monkeypatch, speak=speak, hear=hear) as house:
        await carried_out(house, task("hearer", kind="hear"), task("speaker", kind="speak"))
        assert result_of(house, "hearer") == [1, 3, 0, 2, 4]


async def test_an_answer_is_its_request_s_alone(tmp_path, monkeypatch):
    """While a request waits, no other receiving of the same task is given its answer, filtered or not."""

    async def answers(ctx, payload):
        asked = await ctx.receive()
        await ctx.respond(asked, "the answer")
        await ctx.send(asked.sender, "something else", type="response")

    async def asks(ctx, payload):
        async with asyncio.TaskGroup() as group:
            other = group.create_task(ctx.receive(50, type="response"))
            answer = group.create_task(ctx.request("answerer", "?", deadline_s=50))
        return [answer.result().content, other.result().content]

    async with talking_house(tmp_path, monkeypatch, answers=answers, asks=asks) as house:
        await carried_out(house, task("answerer", kind="answers"), task("asker", kind="asks"))
        assert result_of(house, "asker") == ["the answer", "something else"]


async def test_an_attempt_that_could_not_be_ended_speaks_no_more(tmp_path, monkeypatch):
    """A handler that swallows its cancellation is over for the ledger, and what it asks of its context is refused."""
    refused = []

    async def stubborn(ctx, payload):
        await ctx.take_lock("l")
        while True:
            try:
                await asyncio.sleep(1)
                await ctx.shared.set("still", "here")
            except asyncio.CancelledError:
                continue
            except AttemptOver:
                refused.append(ctx.attempt)
                return

    async with talking_house(tmp_path, monkeypatch, stubborn=stubborn) as house:
        await carried_out(house, task("s", kind="stubborn", timeout_s=2, max_attempts=1))
        await asyncio.sleep(60)
        assert refused == [1]
        assert post(house).get("locks", {}) == {}


async def test_what_an_attempt_left_behind_holds_no_lock_and_takes_no_message(tmp_path, monkeypatch):
    """Whoever still waits when its attempt has ended gets nothing: nobody would give it back."""
    left = []

    async def hold(ctx, payload):
        async with ctx.lock("door"):
            await asyncio.sleep(10)

    async def leave(ctx, payload):
        await asyncio.sleep(1)
        loop = asyncio.get_running_loop()
        left.extend((loop.create_task(ctx.take_lock("door")), loop.create_task(ctx.receive())))
        await asyncio.sleep(1)

    async def come(ctx, payload):
        await asyncio.sleep(12)
        await ctx.send("@leave_agent", "for whoever comes next")
        return await ctx.take_lock("door", timeout_s=50)

    async with talking_house(tmp_path, monkeypatch, hold=hold, leave=leave, come=come) as house:
        await carried_out(house, *(task(kind, kind=kind, agent_id=f"{kind}_agent") for kind in ("hold", "leave", "come")))
        assert result_of(house, "come") is not None
        assert [type(one.exception()) for one in left] == [AttemptOver, AttemptOver]
        assert not any(event.taken for event in events_of(house, ev.MessagesPassed))


async def test_the_last_word_of_one_that_could_not_be_ended_is_not_recorded(tmp_path, monkeypatch):
    """An attempt that went on after its wave was closed says nothing more, and the journal has no gap."""

    async def deaf(ctx, payload):
        ctx.progress(5)
        ctx.progress(50)  # is to be recorded later
        for _ in range(20):
            try:
                await asyncio.sleep(5)
            except asyncio.CancelledError:
                continue
        ctx._progress._unsaid = (77.0, "said in the end")

    async with talking_house(tmp_path, monkeypatch, deaf=deaf) as house:
        house.settings.now = configured(agents={"count": 2, "stuck_after": 1}, retry={"max_attempts": 1})
        await carried_out(house, task("a", kind="deaf", timeout_s=2))
        await asyncio.sleep(200)
        await carried_out(house, task("b", kind="simulate"))
        positions = [entry.position for entry in house.journal.lookup.entries()]
        assert positions == list(range(1, len(positions) + 1))


async def test_a_run_follows_no_more_topics_than_it_may(tmp_path, monkeypatch):
    """Who follows what is held in memory, so that it is bounded."""
    monkeypatch.setattr(mail, "TOPICS_MOST", 2)

    async def follows(ctx, payload):
        await ctx.subscribe("a", "b")
        await ctx.subscribe("a")
        with pytest.raises(MessageRefused, match="may follow 2 topics"):
            await ctx.subscribe("c")
        await ctx.unsubscribe("a")
        await ctx.subscribe("c")
        return "done"

    async with talking_house(tmp_path, monkeypatch, follows=follows) as house:
        await carried_out(house, task("one", kind="follows"))
        assert result_of(house, "one") == "done"
