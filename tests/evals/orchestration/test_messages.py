"""ORCH-006 and ORCH-012 to ORCH-015: what the tasks of a workflow share, say to each other, lock and hand on."""

from __future__ import annotations

import ast
import asyncio
import re
from pathlib import Path

import pytest
from cutting import journal_of, written
from players import entries
from stage import events_of, executed, finished, statuses
from talkers import post, talking_house

from phase21.domain import events as ev
from phase21.domain.errors import Permanent
from phase21.domain.messages import MessageType
from phase21.intake.submissions import parse
from phase21.readers.inquiries.correspondence import Wanted, changes, history
from phase21.store import codec

pytestmark = pytest.mark.looptime


def submit(house, run_id, *tasks, **fields):
    """Submit a workflow; each task is of the kind that it is called, unless it says another."""
    rows = [{"kind": row["task_id"], **row} for row in tasks]
    house.receiver.accept(parse(codec.encode({"run_id": run_id, "workflow": {"name": "talk", "tasks": rows, **fields}})))


async def to_its_end(house):
    async with asyncio.timeout(1000):
        await finished(house)


def results(house, run_id="r"):
    return {event.task_id: event.result for event in events_of(house, ev.TaskCompleted) if event.run_id == run_id}


def cut_short(folder, elsewhere, kind):
    """A state folder in which the service was killed right after the first entry of a kind was durable."""
    told = journal_of(folder)
    last = next(n for n, entry in enumerate(told) if isinstance(entry.event, kind))
    written(elsewhere, told[: last + 1])


async def test_orch_006_shared_context_management(tmp_path, monkeypatch):
    """ORCH-006: a run's tasks share versioned values, every version is kept, a restart loses none, and no other run sees them."""

    async def plans(ctx, payload):
        await ctx.shared.set("design", {"api": 1})
        await ctx.shared.set("budget", 10, durable=True)

    async def builds(ctx, payload):
        design = await ctx.shared.get("design")
        await ctx.shared.set("design", {**design.value, "built": True})
        return {"saw": design.value, "by": design.by, "version": design.version}

    async def looks(ctx, payload):
        names = await ctx.shared.names()
        return {name: [(await ctx.shared.get(name)).version, (await ctx.shared.get(name)).value] for name in sorted(names)}

    works = {"plans": plans, "builds": builds, "looks": looks}
    async with talking_house(tmp_path / "first", monkeypatch, **works) as house:
        submit(house, "r", {"task_id": "plans"}, {"task_id": "builds"}, {"task_id": "looks"}, mode="sequential")
        submit(house, "other", {"task_id": "looks"})
        await to_its_end(house)
        assert results(house)["builds"] == {"saw": {"api": 1}, "by": "plans", "version": 1}
        assert results(house)["looks"] == {"budget": [1, 10], "design": [2, {"api": 1, "built": True}]}
        assert results(house, "other")["looks"] == {}
        past = [(row["name"], row["version"], row["by"]) for row in changes(house.journal.entries_of("r"))]
        assert past == [("design", 1, "plans"), ("budget", 1, "plans"), ("design", 2, "builds")]
        await house.stop("the end", 1)
    cut_short(tmp_path / "first", tmp_path / "killed", ev.TaskCompleted)
    async with talking_house(tmp_path / "killed", monkeypatch, **works) as house:
        await to_its_end(house)
        assert results(house)["looks"] == {"budget": [1, 10], "design": [2, {"api": 1, "built": True}]}


async def test_orch_012_message_passing(tmp_path, monkeypatch):
    """ORCH-012: direct, published, broadcast, asked and answered: each reaches whom it should, once, and who is gone leaves a dead letter."""

    async def lead(ctx, payload):
        await asyncio.sleep(1)
        await ctx.send("tester", "later", priority=3)
        await ctx.send("tester", "now", type="context_share", priority=0)
        await ctx.publish("reviews", "a review")
        await ctx.broadcast("to all")
        answer = await ctx.request("tester", "ready?", deadline_s=60, priority=3)
        await ctx.send("early", "too late")
        return answer.content

    async def tester(ctx, payload):
        await ctx.subscribe("reviews")
        await asyncio.sleep(2)
        heard = [(await ctx.receive(0)).content for _ in range(4)]
        asked = await ctx.receive(10, type="request")
        await ctx.respond(asked, "yes")
        return heard

    async def early(ctx, payload):
        return None

    async with talking_house(tmp_path, monkeypatch, lead=lead, tester=tester, early=early) as house:
        submit(house, "r", {"task_id": "tester"}, {"task_id": "early"}, {"task_id": "lead"}, mode="parallel")
        await to_its_end(house)
        assert results(house)["tester"] == ["now", "a review", "to all", "later"]
        assert results(house)["lead"] == "yes"
        told = history(house.journal.entries_of("r"), Wanted(), 100)
        assert {row["content"]: row["taken_by"] for row in told} == {
            "later": ["tester"],
            "now": ["tester"],
            "a review": ["tester"],
            "to all": ["tester"],
            "ready?": ["tester"],
            "yes": ["lead"],
            "too late": [],
        }
        (dead,) = history(house.journal.entries_of("r"), Wanted(dead=True), 100)
        assert dead["dead"] == [{"address": "early", "reason": "early is gone"}]
        (shared,) = history(house.journal.entries_of("r"), Wanted(type=MessageType.CONTEXT_SHARE), 100)
        assert (shared["content"], shared["priority"]) == ("now", 0)


async def test_orch_013_context_updates(tmp_path, monkeypatch):
    """ORCH-013: of those who update a value at once one wins and the others are told, so that nothing is overwritten unseen."""
    lost = []

    async def adds(ctx, payload):
        for _ in range(3):
            while True:
                seen = await ctx.shared.get("found")
                await asyncio.sleep(0.1)
                said = await ctx.shared.compare_and_set("found", seen.version, [*(seen.value or []), ctx.task.task_id])
                if said is not None:
                    break
                lost.append(ctx.task.task_id)
        await ctx.publish("found", "three more")

    async def watches(ctx, payload):
        await ctx.subscribe("found")
        updates = [await ctx.receive(60) for _ in range(3)]
        return [[update.type, update.sender] for update in updates], (await ctx.shared.get("found")).value

    async with talking_house(tmp_path, monkeypatch, one=adds, two=adds, three=adds, watches=watches) as house:
        submit(house, "r", *({"task_id": name} for name in ("watches", "one", "two", "three")), mode="parallel")
        await to_its_end(house)
        updates, found = results(house)["watches"]
        assert sorted(sender for _, sender in updates) == ["one", "three", "two"]
        assert {kind for kind, _ in updates} == {"state_update"}
        assert sorted(found) == ["one"] * 3 + ["three"] * 3 + ["two"] * 3
        assert lost
        past = list(changes(house.journal.entries_of("r"), "found"))
        assert [row["version"] for row in past] == list(range(1, 10))
        assert [row["by"] for row in past] == found


async def test_orch_014_context_locking(tmp_path, monkeypatch):
    """ORCH-014: one task at a time holds a lock, each with a higher fence; a holder that dies or overstays its lease holds it no longer."""
    held = []

    async def works(ctx, payload):
        async with ctx.lock("design", timeout_s=100) as fence:
            assert not any(end is None for _, _, end in held)
            held.append([ctx.task.task_id, fence, None])
            if ctx.task.task_id == "crashes":
                held[-1][2] = "crashed"
                raise Permanent("in the middle")
            await asyncio.sleep(1)
            held[-1][2] = "gave it back"

    async def overstays(ctx, payload):
        fence = await ctx.take_lock("lease", lease_s=2)
        await asyncio.sleep(10)
        return await ctx.release_lock("lease", fence)

    async def waits(ctx, payload):
        await asyncio.sleep(0.5)
        early = await ctx.take_lock("lease", timeout_s=1)
        return [early, await ctx.take_lock("lease", timeout_s=5) is not None]

    names = ("crashes", "one", "two")
    kinds = {**dict.fromkeys(names, works), "overstays": overstays, "waits": waits}
    async with talking_house(tmp_path / "told", monkeypatch, **kinds) as house:
        submit(house, "r", *({"task_id": name} for name in kinds), mode="parallel", on_failure="continue")
        await to_its_end(house)
        assert sorted(name for name, _, _ in held) == sorted(names)
        assert [fence for _, fence, _ in held] == sorted({fence for _, fence, _ in held})
        assert (results(house)["overstays"], results(house)["waits"]) == (False, [None, True])
        assert post(house).get("locks", {}) == {}
        await house.stop("the end", 1)
    assert statuses(executed(tmp_path / "told", "r"))["crashes"] == "FAILED"
    before = held[0][1]
    held.clear()
    cut_short(tmp_path / "told", tmp_path / "killed", ev.LockTaken)
    async with talking_house(tmp_path / "killed", monkeypatch, **kinds) as house:
        await to_its_end(house)
        assert sorted(name for name, _, _ in held) == sorted(names)
        assert min(fence for _, fence, _ in held) > before
        assert post(house).get("locks", {}) == {}


async def test_orch_015_result_handoffs(tmp_path, monkeypatch):
    """ORCH-015: a result reaches whoever needs it, by reference or by hand; what was handed on survives a kill, and is taken once."""
    built = []

    async def designs(ctx, payload):
        await ctx.handoff("builds", {"file": "design.md"})
        return {"path": "src", "lines": 3}

    async def builds(ctx, payload):
        letter = await ctx.receive(60, type="result_handoff")
        built.append((ctx.attempt, letter.content["file"]))
        if ctx.attempt == 1:
            raise RuntimeError("crashed over it")
        return {"from": letter.sender, "file": letter.content["file"], "into": payload["into"]}

    flow = (
        {"task_id": "designs"},
        {"task_id": "builds", "depends_on": ["designs"], "payload": {"into": {"$from": "designs", "path": "result.path"}}},
    )
    wanted = {"from": "designs", "file": "design.md", "into": "src"}
    works = {"designs": designs, "builds": builds}
    async with talking_house(tmp_path / "told", monkeypatch, **works) as house:
        submit(house, "r", *flow)
        await to_its_end(house)
        assert results(house)["builds"] == wanted
        assert built == [(1, "design.md"), (2, "design.md")]
        (row,) = history(house.journal.entries_of("r"), Wanted(type=MessageType.RESULT_HANDOFF), 10)
        assert (row["sender"], row["to"], row["taken_by"], row["dead"]) == ("designs", "builds", ["builds"], [])
        sent = next(entry.position for entry in entries(house, ev.MessagesPassed))
        ended = next(entry.position for entry in entries(house, ev.TaskCompleted))
        assert sent < ended
        await house.stop("the end", 1)
    cut_short(tmp_path / "told", tmp_path / "killed", ev.TaskCompleted)
    async with talking_house(tmp_path / "killed", monkeypatch, **works) as house:
        await to_its_end(house)
        assert results(house) == {"designs": {"path": "src", "lines": 3}, "builds": wanted}


def test_all_twenty_are_here():
    """Each of ORCH-001 to ORCH-020 is the subject of a test of this folder, whose name and docstring bear its number."""
    found = set()
    for path in Path(__file__).parent.glob("test_*.py"):
        for one in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef) and (said := re.match(r"test_orch_(\d{3})_", one.name)):
                assert (ast.get_docstring(one) or "").startswith(f"ORCH-{said[1]}: "), one.name
                found.add(int(said[1]))
    assert found == set(range(1, 21))
