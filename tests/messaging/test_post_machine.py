"""Mail, shared values and locks against a model, and the journal of it all cut at every entry."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from phase21.domain import events as ev
from phase21.domain.ledger import Ledger, Snapshot
from phase21.domain.tasks import Task
from phase21.messaging.office import PostOffice
from phase21.messaging.speaker import Speaker
from phase21.store import codec
from phase21.store.journal import Journal

WHO = ("a", "b", "c")
RUN = "r"

who = st.sampled_from(WHO)
step = st.one_of(
    st.tuples(st.just("send"), who, st.sampled_from((*WHO, "@x", "*")), st.integers(0, 3)),
    st.tuples(st.just("publish"), who, st.sampled_from(("t", "u"))),
    st.tuples(st.just("follow"), who, st.sampled_from(("t", "u"))),
    st.tuples(st.just("leave"), who, st.sampled_from(("t", "u"))),
    st.tuples(st.just("receive"), who),
    st.tuples(st.just("set"), who, st.sampled_from(("k", "l"))),
    st.tuples(st.just("cas"), who, st.sampled_from(("k", "l")), st.integers(0, 3)),
    st.tuples(st.just("take"), who, st.sampled_from(("m", "n"))),
    st.tuples(st.just("release"), who, st.sampled_from(("m", "n"))),
    st.tuples(st.just("fail"), who),
    st.tuples(st.just("interrupt"), who),
    st.tuples(st.just("end"), who),
    st.tuples(st.just("turn")),
)


class World:
    """The real post of one run on a journal, beside what it should be."""

    def __init__(self, journal):
        self.journal = journal
        self.office = PostOffice(journal)
        self.attempts = {}
        self.ended = set()
        self.boxes = {address: [] for address in (*WHO, "@x")}
        self.hands = {}
        self.follows = {"t": [], "u": []}
        self.values = {}
        self.locks = {}
        self.received = Counter()
        self.sent = 0

    def begin(self):
        append = self.journal.append
        append(ev.AgentJoined(agent_id="x"))
        tasks = tuple(Task(task_id=name) for name in (*WHO, "open"))
        append(ev.SubmissionAccepted(submission_id="s", run_id=RUN, waves={1: tasks}))
        append(ev.WaveOpened(run_id=RUN, wave=1))
        for name in WHO:
            self.start(name)

    def start(self, name):
        self.attempts[name] = self.attempts.get(name, 0) + 1
        attempt = self.attempts[name]
        self.journal.append(ev.AttemptStarted(run_id=RUN, wave=1, task_id=name, agent_id="x", attempt=attempt, confidence=1.0))

    def speaker(self, name):
        return Speaker.of(RUN, name, "x", self.attempts[name])

    async def do(self, name, *args):
        if args and args[0] in self.ended:
            return
        await getattr(self, name)(*args)

    async def turn(self):
        await asyncio.sleep(0)

    async def send(self, by, to, priority):
        self.sent += 1
        message_id = await self.office.mail.send(self.speaker(by), self.sent, to=to, priority=priority)
        assert message_id == f"m{self.sent}"
        self.office.mail.flush(RUN)
        targets = [to] if to != "*" else [name for name in WHO if name not in self.ended and name != by]
        self.put(targets, priority)

    async def publish(self, by, topic):
        self.sent += 1
        await self.office.mail.send(self.speaker(by), self.sent, topic=topic)
        self.office.mail.flush(RUN)
        self.put([name for name in self.follows[topic] if name != by], 2)

    def put(self, targets, priority):
        for target in targets:
            if target not in self.ended:
                self.boxes[target].append((priority, self.sent))

    async def follow(self, by, topic):
        self.office.mail.follow(self.speaker(by), [topic])
        if by not in self.follows[topic]:
            self.follows[topic].append(by)

    async def leave(self, by, topic):
        self.office.mail.follow(self.speaker(by), [topic], leave=True)
        if by in self.follows[topic]:
            self.follows[topic].remove(by)

    async def receive(self, by):
        letter = await self.office.mail.receive(self.speaker(by), 0)
        for address in (by, "@x"):
            if self.boxes[address]:
                due = min(self.boxes[address], key=lambda held: held[0])
                self.boxes[address].remove(due)
                assert letter is not None
                assert letter.content == due[1]
                self.received[(self.attempts[by], by, due[1])] += 1
                self.hands[by] = (address, due)
                return
        assert letter is None

    async def set(self, by, key):
        version = self.office.shared.set(self.speaker(by), key, [by])
        self.values[key] = (self.values.get(key, (0, None))[0] + 1, [by])
        assert version == self.values[key][0]

    async def cas(self, by, key, version):
        changed = self.office.shared.compare_and_set(self.speaker(by), key, version, [by, version])
        if self.values.get(key, (0, None))[0] == version:
            self.values[key] = (version + 1, [by, version])
            assert changed == version + 1
        else:
            assert changed is None

    async def take(self, by, lock):
        fence = self.office.locks.try_take(self.speaker(by), lock)
        assert (fence is not None) == (lock not in self.locks)
        if fence is not None:
            self.locks[lock] = by

    async def release(self, by, lock):
        assert self.office.locks.release(self.speaker(by), lock) == (self.locks.get(lock) == by)
        if self.locks.get(lock) == by:
            del self.locks[lock]

    async def fail(self, by):
        self.office.mail.flush(RUN)
        fields = {"task_id": by, "agent_id": "x", "attempt": self.attempts[by]}
        self.journal.append(ev.AttemptFailed(run_id=RUN, wave=1, error_msg="x", delay_s=0, duration_s=1, **fields))
        self.over(by)

    async def interrupt(self, by):
        self.office.mail.flush(RUN)
        self.journal.append(ev.TaskInterrupted(run_id=RUN, wave=1, task_id=by, agent_id="x", attempt=self.attempts[by]))
        self.over(by)

    def over(self, by):
        self.locks = {lock: holder for lock, holder in self.locks.items() if holder != by}
        held = self.hands.pop(by, None)
        if held is not None:
            address, (priority, number) = held
            box = self.boxes[address]
            place = next((at for at, other in enumerate(box) if other[0] == priority), len(box))
            box.insert(place, (priority, number))
        self.start(by)

    async def end(self, by):
        self.office.mail.flush(RUN)
        self.journal.append(ev.TaskCompleted(run_id=RUN, wave=1, task_id=by, agent_id="x", attempt=self.attempts[by], duration_s=1))
        self.office.mail.sweep(list(self.journal.ledger.orphaned))
        self.ended.add(by)
        self.boxes[by] = []
        self.hands.pop(by, None)
        self.locks = {lock: holder for lock, holder in self.locks.items() if holder != by}
        for followers in self.follows.values():
            if by in followers:
                followers.remove(by)

    def compare(self):
        self.office.mail.flush(RUN)
        record = self.journal.ledger.runs[RUN].record.post
        if record is None:
            assert (self.sent, self.values, self.locks) == (0, {}, {})
            return
        real = {address: [codec.decode(message.body) for message in box] for address, box in record.mailboxes.items()}
        assert real == {
            address: [number for _, number in sorted(box, key=lambda held: held[0])] for address, box in self.boxes.items() if box
        }
        assert {name: (at, codec.decode(message.body)) for name, (at, message) in record.hands.items()} == {
            name: (at, number) for name, (at, (_, number)) in self.hands.items()
        }
        assert {lock: held.task_id for lock, held in record.locks.items()} == self.locks
        assert {key: (held.version, codec.decode(held.body)) for key, held in record.shared.items()} == self.values
        assert record.followers == {topic: names for topic, names in self.follows.items() if names}
        assert all(count == 1 for count in self.received.values()), "one attempt took a message twice"


def folded(entries):
    ledger = Ledger()
    for entry in entries:
        ledger.fold(entry)
    return ledger


def post_of(ledger):
    run = ledger.runs.get(RUN)
    return run.record.post if run is not None else None


def accounted_for(entries):
    """Every message that was sent stands where it should: waiting, in a hand, dealt with, or dead; never in two places."""
    post = post_of(folded(entries))
    if post is None:
        return
    waiting = Counter((at, message.message_id) for at, box in post.mailboxes.items() for message in box)
    in_hand = Counter((at, message.message_id) for at, message in post.hands.values())
    assert all(count == 1 for count in (waiting + in_hand).values())
    assert all(box.size == sum(map(len, box.queues)) > 0 for box in post.mailboxes.values())
    dead = {
        (letter.address, letter.message_id) for e in entries if isinstance(e.event, ev.MessagesDead) for letter in e.event.letters
    }
    assert not dead & set(waiting + in_hand)


async def told(steps, folder):
    async with Journal.opened(folder / "journal.db", inline=True) as journal:
        world = World(journal)
        world.begin()
        for one in steps:
            await world.do(*one)
            world.compare()
        await journal.durable()
        entries = list(journal.lookup.entries())
        live = codec.encode(post_of(journal.ledger))
    return entries, live


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(step, max_size=30))
def test_post_does_what_the_model_does_and_every_cut_holds(steps):
    """The real post agrees with the model after each step; its journal, cut anywhere, folds to what holds, snapshots or not."""
    with tempfile.TemporaryDirectory() as folder:
        entries, live = asyncio.run(told(steps, Path(folder)))
    assert codec.encode(post_of(folded(entries))) == live
    for cut in range(len(entries) + 1):
        accounted_for(entries[:cut])
        ledger = folded(entries[:cut])
        restored = Ledger.restored(codec.decode(codec.encode(ledger.snapshot()), Snapshot))
        assert codec.encode(post_of(restored)) == codec.encode(post_of(ledger))
        for entry in entries[cut:]:
            restored.fold(entry)
        assert codec.encode(post_of(restored)) == live
        ledger.fold(ev.Entry(cut + 1, ledger.at_us, ev.ServiceStarted(pid=1, version="x")))
        post = post_of(ledger)
        held = () if post is None else (*post.locks, *post.hands, *filter(None, post.live.values()))
        assert not held, "the dead hold nothing"
