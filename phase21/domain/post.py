"""A run's post: mailboxes, who follows what, shared values, locks, and which attempts live. Changed by the ledger's fold alone.

It holds what is not taken yet and what stands now; what was taken, and every version before, is in the journal. An attempt that ends
gives back what it held: its locks are free, and the message in its hand, unless it COMPLETED, waits again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from phase21.domain.messages import AGENT_MARK, EVERYBODY, DeadLetter, Lock, Message, SharedValue, Taken
from phase21.domain.tasks import PRIORITIES

LEVELS = len(PRIORITIES)


class Mailbox(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Messages that wait at an address: a queue for each of the four priorities, each in order of arrival."""

    queues: list[list[Message]] = msgspec.field(default_factory=lambda: [[] for _ in range(LEVELS)])
    size: int = 0

    def put(self, message: Message) -> None:
        """Add a message behind those of its priority."""
        self.queues[message.priority].append(message)
        self.size += 1

    def put_back(self, message: Message) -> None:
        """Add one that was taken before: it is the first of its priority."""
        self.queues[message.priority].insert(0, message)
        self.size += 1

    def take(self, message_id: str) -> Message | None:
        """Remove a message; None where it does not wait here."""
        for queue in self.queues:
            if queue and queue[0].message_id == message_id:  # nearly always
                self.size -= 1
                return queue.pop(0)
        for queue in self.queues:
            for index, message in enumerate(queue):
                if message.message_id == message_id:
                    self.size -= 1
                    return queue.pop(index)
        return None

    def __iter__(self) -> Iterator[Message]:
        """All that waits, the most urgent first."""
        for queue in self.queues:
            yield from queue


class PostRecord(msgspec.Struct, kw_only=True, omit_defaults=True):
    """See the module.

    `sent` counts messages, `fences` takings of locks. `live` is the attempt under way of each task that has begun and not ended (0 between
    two attempts); `hands` the message that it took last, with the address where that waited. `shared_bytes` is what values come to.
    """

    sent: int = 0
    fences: int = 0
    mailboxes: dict[str, Mailbox] = {}
    followers: dict[str, list[str]] = {}
    shared: dict[str, SharedValue] = {}
    shared_bytes: int = 0
    locks: dict[str, Lock] = {}
    live: dict[str, int] = {}
    hands: dict[str, tuple[str, Message]] = {}

    def recipients(self, message: Message) -> Iterable[str]:
        """Where a message comes to wait that is for whoever follows its topic, or for everybody."""
        who = self.followers.get(message.topic or "", ()) if message.to is None else self.live
        return [task_id for task_id in who if task_id != message.sender]

    def deliver(self, message: Message) -> None:
        """Put a message into each mailbox that it is for."""
        self.sent += 1
        to = message.to
        for address in (to,) if to is not None and to != EVERYBODY else self.recipients(message):
            mailbox = self.mailboxes.get(address)
            if mailbox is None:
                mailbox = self.mailboxes[address] = Mailbox()
            mailbox.put(message)

    def hand_over(self, taken: Taken) -> None:
        """Put a message into a task's hand; what it had there is dealt with."""
        message = self.remove(taken)
        if message is not None:
            self.hands[taken.task_id] = (taken.address, message)

    def remove(self, letter: Taken | DeadLetter) -> Message | None:
        """Take a message out of where it waits; None where it does not."""
        address = letter.address
        mailbox = self.mailboxes.get(address)
        if mailbox is None:
            return None
        message = mailbox.take(letter.message_id)
        if not mailbox.size:
            del self.mailboxes[address]
        return message

    def attempt_began(self, task_id: str, attempt: int) -> None:
        """A task lives."""
        self.live[task_id] = attempt

    def attempt_ended(self, task_id: str) -> None:
        """An attempt is over, and another follows: its locks are free, and what it had in its hand waits again."""
        self.live[task_id] = 0
        self._release(task_id)
        held = self.hands.pop(task_id, None)
        if held is not None:
            address, message = held
            self.mailboxes.setdefault(address, Mailbox()).put_back(message)

    def task_ended(self, task_id: str) -> bool:
        """A task is over; whether messages wait for it in vain."""
        self.live.pop(task_id, None)
        self.hands.pop(task_id, None)
        self._release(task_id)
        for topic in [topic for topic, who in self.followers.items() if task_id in who]:
            self.leave(topic, task_id)
        return task_id in self.mailboxes

    def leave(self, topic: str, task_id: str) -> None:
        """A task follows a topic no longer."""
        who = self.followers.get(topic, [])
        if task_id in who:
            who.remove(task_id)
        if not who:
            self.followers.pop(topic, None)

    def _release(self, task_id: str) -> None:
        if self.locks:
            for name in [name for name, lock in self.locks.items() if lock.task_id == task_id]:
                del self.locks[name]

    def all_ended(self) -> None:
        """The process that they lived in is no more: no attempt is under way."""
        for task_id in list(self.live):
            self.attempt_ended(task_id)
        self.locks.clear()

    def recalled(self) -> PostRecord:
        """What outlives all tasks, for a run that was put away: its shared values, and the counts."""
        return PostRecord(sent=self.sent, fences=self.fences, shared=dict(self.shared), shared_bytes=self.shared_bytes)


def is_agent(address: str) -> bool:
    """Whether an address is an agent's."""
    return address.startswith(AGENT_MARK)
