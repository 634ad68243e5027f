"""Messages between the tasks of a run: sent, taken, awaited, buried.

What is sent and taken in one turn of the loop is one entry of the journal, and delivered with it. A mailbox is bounded, and pushes back
whoever sends to it. What a task took last is in its hand: where its attempt does not end well, the next one is given it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from phase21.domain import events as ev
from phase21.domain.errors import AttemptOver, MessageRefused, NoAnswer
from phase21.domain.messages import AGENT_MARK, EVERYBODY, DeadLetter, Message, MessageType, Taken
from phase21.domain.post import LEVELS, PostRecord, is_agent
from phase21.domain.runs import Run
from phase21.domain.tasks import FINAL
from phase21.messaging.batches import Batch, Line
from phase21.messaging.speaker import Speaker, opened, sealed, subject
from phase21.store.journal import Journal

MAILBOX_MESSAGES = 1024
"""How many messages may wait at an address before whoever sends there waits as well."""

BATCH_MESSAGES = 256
"""How many messages an entry holds at most."""

TOPICS_MOST = 10_000
"""How many topics the tasks of a run may follow at a time."""

UNSAVED_BYTES = 8 * 1024 * 1024
"""How much may be sent before the disk is waited for."""

DEADLINE_S = 30.0
"""How long a request waits for its answer where it does not say."""

TIMER_SLACK_S = 0.001
"""By how much a timer comes late, so that what it looks for is over by the clock too."""

LATE = "its deadline has passed"

NORMAL = 2
NO_POST = PostRecord()

Wanted = Callable[[Message], bool]


class Letter(msgspec.Struct, frozen=True, gc=False):
    """A message as its taker has it: `content` is its own copy. Times are microseconds since 1970."""

    message_id: str
    type: MessageType
    priority: int
    sender: str
    to: str | None
    topic: str | None
    content: Any
    reply_to: str | None
    deadline_us: int | None
    sent_us: int


class Mail:
    """See the module. `flush` is called before anything else of a run is recorded that should come behind what was said before."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._ledger = journal.ledger
        self._loop = asyncio.get_running_loop()
        self._batches: dict[str, Batch] = {}
        self._waiting: dict[tuple[str, str], list[asyncio.Future[None]]] = {}
        self._senders: dict[tuple[str, str], list[asyncio.Future[None]]] = {}
        self._asked: dict[tuple[str, str], str] = {}
        self._timers: dict[str, tuple[int, asyncio.TimerHandle]] = {}
        self._unsaved_bytes = 0
        self._breathless = False

    # -- sending -----------------------------------------------------------------------------------------------------

    async def send(
        self,
        speaker: Speaker,
        content: Any = None,
        *,
        to: str | None = None,
        topic: str | None = None,
        type: MessageType = MessageType.NOTIFICATION,  # noqa: A002 - the message's word
        priority: int = NORMAL,
        reply_to: str | None = None,
        deadline_us: int | None = None,
        durable: bool = False,
    ) -> str:
        """Send to a task, an agent, everybody (`*`) or a topic; the message's id. Waits while a mailbox is full. Raises MessageRefused."""
        run_id, body = speaker.run_id, sealed(content, "the message")
        run = self._run(run_id)
        address = None if to is None else self.address(run, to)
        if address is None:
            topic = subject(topic or "", "a topic")
        if not 0 <= priority < LEVELS:
            raise MessageRefused(f"a message's priority is 0 (URGENT) to {LEVELS - 1} (LOW)")
        if reply_to is not None:
            reply_to = subject(reply_to, "reply_to")
        post = run.record.post or NO_POST
        batch = self._batch(run_id)
        while (full := self._full(post, batch, address, topic, speaker.task_id)) is not None:
            await self._room_at(run_id, full)
            run = self._run(run_id)
            post, batch = run.record.post or NO_POST, self._batch(run_id)
        message_id = f"m{post.sent + len(batch.sent) + 1}"
        now_us = self._journal.clock.now_us()
        batch.add(Message(message_id, type, priority, speaker.task_id, address, topic, body, reply_to, deadline_us, now_us))
        if len(batch.sent) >= BATCH_MESSAGES:
            self.flush(run_id)
            await self._breath()
        if durable:
            await asyncio.sleep(0)  # what others send in this turn shares the entry
            self.flush(run_id)
            await self._journal.durable()
        return message_id

    async def _breath(self) -> None:
        """Let others have the loop, and the disk keep up."""
        await asyncio.sleep(0)
        if self._unsaved_bytes >= UNSAVED_BYTES:
            self._unsaved_bytes = 0
            await self._journal.durable()

    def address(self, run: Run, to: str) -> str:
        """Where messages to a name wait: a task of the run, else an agent. Raises MessageRefused where neither was ever known."""
        if to in run.where or to == EVERYBODY:
            return to
        agent = self._ledger.agents.get(to[1:] if is_agent(to) else to)
        if is_agent(to) and agent is not None:
            return to
        record = run.record
        if to in record.deferred or to in record.upstream or self._journal.lookup.tasks(run.run_id, [to]):
            return to
        if agent is None:
            raise MessageRefused(f"{to!r} is neither a task of run {run.run_id} nor an agent")
        return AGENT_MARK + to

    def _run(self, run_id: str) -> Run:
        run = self._ledger.runs.get(run_id)
        if run is None or (not run.waves and run.idle):
            raise MessageRefused(f"run {run_id} has nothing under way")
        return run

    def _batch(self, run_id: str) -> Batch:
        batch = self._batches.get(run_id)
        if batch is None:
            batch = self._batches[run_id] = Batch()
            self._loop.call_soon(self.flush, run_id)
        return batch

    @staticmethod
    def _full(post: PostRecord, batch: Batch, address: str | None, topic: str | None, sender: str) -> str | None:
        """An address that has no room for one more."""
        if address is not None and address != EVERYBODY:
            room = batch.room.get(address)
            if room is None:
                mailbox = post.mailboxes.get(address)
                room = batch.room[address] = MAILBOX_MESSAGES - (mailbox.size if mailbox is not None else 0)
            return address if room <= 0 else None
        who = post.live if address is not None else post.followers.get(topic or "", ())
        for one in who:
            mailbox = post.mailboxes.get(one)
            if mailbox is not None and one != sender and mailbox.size >= MAILBOX_MESSAGES - BATCH_MESSAGES:
                return one
        return None

    async def _room_at(self, run_id: str, address: str) -> None:
        """Wait until something was taken at an address."""
        self.flush(run_id)
        post = self._ledger.runs[run_id].record.post
        if post is None or address not in post.mailboxes:
            return
        waiter = self._loop.create_future()
        self._senders.setdefault((run_id, address), []).append(waiter)
        await waiter

    # -- taking ------------------------------------------------------------------------------------------------------

    async def receive(
        self,
        speaker: Speaker,
        timeout_s: float | None = None,
        wanted: Wanted | None = None,
        *,
        lives: Callable[[], bool] | None = None,
    ) -> Letter | None:
        """Take the most urgent message for a task or its agent; None where none comes in time.

        `lives` says whether who waits is still there to deal with it. Raises AttemptOver where it is not.
        """
        if self._breathless:
            self._breathless = False
            await self._breath()
        message = self._take(speaker, wanted)
        if message is None and timeout_s != 0:
            message = await self._awaited(speaker, timeout_s, wanted, lives=lives)
        return None if message is None else _opened(message)

    async def request(
        self, speaker: Speaker, to: str, content: Any = None, *, deadline_s: float = DEADLINE_S, priority: int = NORMAL
    ) -> Letter:
        """Send a request and wait for what answers it. Raises NoAnswer where none comes in time, or whom it asks is gone."""
        now_us, kind = self._journal.clock.now_us(), MessageType.REQUEST
        due_us = now_us + round(deadline_s * 1e6)
        asked = await self.send(speaker, content, to=to, type=kind, priority=priority, deadline_us=due_us)
        key = (speaker.run_id, asked)
        self._asked[key] = ""
        try:
            message = await self._awaited(speaker, deadline_s, lambda message: message.reply_to == asked, key)
            if message is None:
                raise NoAnswer(self._asked[key] or f"{to} did not answer request {asked} within {deadline_s:g} s")
            return _opened(message)
        finally:
            del self._asked[key]

    async def respond(self, speaker: Speaker, asked: Letter, content: Any = None, *, error: bool = False) -> str:
        """Answer a request; with `error`, say that it cannot be answered. What comes too late for it is a dead letter."""
        return await self.send(
            speaker,
            content,
            to=asked.sender,
            type=MessageType.ERROR if error else MessageType.RESPONSE,
            priority=asked.priority,
            reply_to=asked.message_id,
            deadline_us=asked.deadline_us,
        )

    def _take(self, speaker: Speaker, wanted: Wanted | None, own: str | None = None) -> Message | None:
        """Claim the first message that is wanted, without waiting; `own` is the request that it answers, if it must."""
        run_id, anything = speaker.run_id, wanted is None and not self._asked
        batch = self._batches.get(run_id)
        if batch is not None and anything and (line := batch.reading.get(speaker.task_id)) is not None:
            message = self._first(speaker, batch, line, wanted, own)
            if message is not None:
                return message
        run = self._ledger.runs.get(run_id)
        post = (run.record.post if run is not None else None) or NO_POST
        for address in speaker.addresses:
            mailbox = post.mailboxes.get(address)
            for level, queue in enumerate(mailbox.queues if mailbox is not None else ()):
                if queue:
                    batch = self._batch(run_id)
                    line = batch.line(address, level, queue)
                    message = self._first(speaker, batch, line, wanted, own)
                    if message is not None:
                        if anything:
                            batch.reading[speaker.task_id] = line
                        return message
        return None

    def _first(self, speaker: Speaker, batch: Batch, line: Line, wanted: Wanted | None, own: str | None) -> Message | None:
        """Claim the first of a queue that nobody has and that is wanted; what is past its deadline is buried on the way."""
        run_id, queue, claimed = speaker.run_id, line.queue, line.claimed
        front = index = line.front
        while index < len(queue):
            message = queue[index]
            if message.message_id in claimed:
                index += 1
            elif message.deadline_us is not None and self._journal.clock.now_us() >= message.deadline_us:
                self._bury(run_id, [(line.address, message, LATE)])
            elif (wanted is not None and not wanted(message)) or (message.reply_to and self._asked_elsewhere(run_id, message, own)):
                index += 1
            else:
                batch.taken.append(Taken(speaker.task_id, line.address, message.message_id))
                claimed.add(message.message_id)
                if index == front:
                    line.front = front + 1
                if len(batch.taken) >= BATCH_MESSAGES:
                    self._breathless = True  # before the next one is taken: what is taken is not to be lost while it waits
                    self.flush(run_id)
                return message
        return None

    def _asked_elsewhere(self, run_id: str, message: Message, own: str | None) -> bool:
        """Whether a message is the answer that another request waits for."""
        answered = message.reply_to or ""
        return answered != own and (run_id, answered) in self._asked

    async def _awaited(
        self,
        speaker: Speaker,
        timeout_s: float | None,
        wanted: Wanted | None,
        asked: tuple[str, str] | None = None,
        lives: Callable[[], bool] | None = None,
    ) -> Message | None:
        """Wait for a message that is wanted, for so long, or until it is known that the one `asked` for will not come."""
        own = asked[1] if asked is not None else None
        try:
            async with asyncio.timeout(timeout_s):
                while (message := self._take(speaker, wanted, own)) is None:
                    if asked is not None and self._asked[asked]:
                        return None
                    await self._arrival(speaker)
                    if lives is not None and not lives():
                        raise AttemptOver(f"attempt {speaker.attempt} of task {speaker.task_id} is over")
                return message
        except TimeoutError:
            return None

    async def _arrival(self, speaker: Speaker) -> None:
        waiter = self._loop.create_future()
        places = [(speaker.run_id, address) for address in speaker.addresses]
        for place in places:
            self._waiting.setdefault(place, []).append(waiter)
        try:
            await waiter
        finally:
            for place in places:
                _forget(self._waiting, place, waiter)

    # -- following ---------------------------------------------------------------------------------------------------

    def follow(self, speaker: Speaker, topics: Iterable[str], *, leave: bool = False) -> None:
        """Have what is published on topics from now on come to a task's mailbox, or no longer. Raises MessageRefused."""
        names = tuple(subject(topic, "a topic") for topic in topics)
        post = self._run(speaker.run_id).record.post or NO_POST
        if not leave and len(post.followers.keys() | set(names)) > TOPICS_MOST:
            raise MessageRefused(f"the tasks of a run may follow {TOPICS_MOST} topics")
        self.flush(speaker.run_id)
        chosen = {"left": names} if leave else {"topics": names}
        self._journal.append(ev.TopicsFollowed(run_id=speaker.run_id, task_id=speaker.task_id, **chosen))

    # -- the journal -------------------------------------------------------------------------------------------------

    def flush(self, run_id: str) -> None:
        """Record what was said in this turn so far, and deliver it."""
        batch = self._batches.pop(run_id, None)
        if batch is None or not (batch.sent or batch.taken):
            return
        self._unsaved_bytes += sum([len(bytes(message.body)) for message in batch.sent])
        self._journal.append(ev.MessagesPassed(run_id=run_id, sent=tuple(batch.sent), taken=tuple(batch.taken)))
        for address in {taken.address for taken in batch.taken}:
            _wake(self._senders, (run_id, address))
        self._wake_receivers(run_id, batch)
        self._bury_vain(run_id, batch)
        if batch.due_us is not None:
            self._expect(run_id, batch.due_us)

    def _wake_receivers(self, run_id: str, batch: Batch) -> None:
        for address in batch.room:
            _wake(self._waiting, (run_id, address))
        if batch.to_many:
            self.wake(run_id)

    def wake(self, run_id: str) -> None:
        """Have everyone of a run who waits for a message look again."""
        for place in [place for place in self._waiting if place[0] == run_id]:
            _wake(self._waiting, place)

    def _bury_vain(self, run_id: str, batch: Batch) -> None:
        """Bury what was sent to tasks and agents that are gone."""
        gone = {address for address in batch.room if self.gone(run_id, address)}
        if gone:
            self.sweep([(run_id, address) for address in gone])

    def gone(self, run_id: str, address: str) -> bool:
        """Whether nobody will ever take anything at an address."""
        run = self._ledger.runs[run_id]
        if is_agent(address):
            agent = self._ledger.agents.get(address[1:])
            return run.idle or agent is None or not agent.present
        number = run.where.get(address)
        wave = (run.waves.get(number) or run.closing.get(number)) if number is not None else None
        record = wave.tasks[address] if wave is not None else run.record.deferred.get(address)
        return record is None or record.status in FINAL

    def sweep(self, places: Iterable[tuple[str, str]]) -> None:
        """Bury all that waits at addresses (each with its run) where nobody takes it any more."""
        for run_id, address in places:
            run = self._ledger.runs.get(run_id)
            mailbox = run.record.post.mailboxes.get(address) if run is not None and run.record.post is not None else None
            if mailbox is not None:
                self._bury(run_id, [(address, message, f"{address} is gone") for message in list(mailbox)])
            _wake(self._senders, (run_id, address))

    def _bury(self, run_id: str, letters: list[tuple[str, Message, str]]) -> None:
        """Record dead letters; whoever waits for the room that they took, or for an answer to one, is told."""
        dead = tuple(DeadLetter(message.message_id, at, reason) for at, message, reason in letters)
        self._journal.append(ev.MessagesDead(run_id=run_id, letters=dead))
        batch = self._batches.get(run_id)
        for at, message, reason in letters:
            if batch is not None and at in batch.room:
                batch.room[at] += 1
            _wake(self._senders, (run_id, at))
            if (run_id, message.message_id) in self._asked:
                self._asked[run_id, message.message_id] = f"request {message.message_id} is a dead letter: {reason}"
                _wake(self._waiting, (run_id, message.sender))

    # -- deadlines ---------------------------------------------------------------------------------------------------

    def _expect(self, run_id: str, due_us: int) -> None:
        """Look for what is past its deadline then, unless that is done earlier."""
        known = self._timers.get(run_id)
        if known is not None and known[0] <= due_us:
            return
        if known is not None:
            known[1].cancel()
        delay_s = max(0.0, (due_us - self._journal.clock.now_us()) / 1e6)
        self._timers[run_id] = (due_us, self._loop.call_later(delay_s + TIMER_SLACK_S, self.expire, run_id))

    def expire(self, run_id: str) -> None:
        """Bury what is past its deadline in a run, and look again when the next one is."""
        known = self._timers.pop(run_id, None)
        if known is not None:
            known[1].cancel()
        self.flush(run_id)
        run, now_us = self._ledger.runs.get(run_id), self._journal.clock.now_us()
        if run is None or run.record.post is None:
            return
        boxes = run.record.post.mailboxes.items()
        timed = [(message.deadline_us, at, message) for at, mailbox in boxes for message in mailbox if message.deadline_us]
        late = [(at, message, LATE) for due_us, at, message in timed if due_us <= now_us]
        left = [due_us for due_us, _, _ in timed if due_us > now_us]
        if late:
            self._bury(run_id, late)
        if left:
            self._expect(run_id, min(left))

    def close(self) -> None:
        """Stop all timers."""
        for _, handle in self._timers.values():
            handle.cancel()
        self._timers.clear()


def _opened(message: Message) -> Letter:
    return Letter(
        message.message_id,
        message.type,
        message.priority,
        message.sender,
        message.to,
        message.topic,
        opened(message.body),
        message.reply_to,
        message.deadline_us,
        message.sent_us,
    )


def _wake(waiters: dict[tuple[str, str], list[asyncio.Future[None]]], place: tuple[str, str]) -> None:
    for waiter in waiters.pop(place, ()):
        if not waiter.done():
            waiter.set_result(None)


def _forget(
    waiters: dict[tuple[str, str], list[asyncio.Future[None]]], place: tuple[str, str], waiter: asyncio.Future[None]
) -> None:
    left = [other for other in waiters.get(place, ()) if other is not waiter]
    if left:
        waiters[place] = left
    else:
        waiters.pop(place, None)
