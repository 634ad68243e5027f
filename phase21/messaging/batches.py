"""What the tasks of a run say and take in one turn of the loop, gathered before it is one entry of the journal.

Kept by `mail`. Nothing here is recorded or delivered.
"""

from __future__ import annotations

from phase21.domain.messages import EVERYBODY, Message, Taken


class Line:
    """A queue of a mailbox as it stands while a batch lasts: so many in `front` were taken, and all that were are `claimed` by their ids."""

    __slots__ = ("address", "claimed", "front", "queue")

    def __init__(self, address: str, queue: list[Message]) -> None:
        self.address, self.queue = address, queue
        self.front = 0
        self.claimed: set[str] = set()


class Batch:
    """What a run's tasks sent and took in this turn of the loop, before it is in the journal.

    `room` is what addresses take yet, `to_many` says that something was sent to more than one, `due_us` is the first deadline. Nothing
    comes in while a batch lasts, so that a task which takes whatever comes goes on where it was `reading`.
    """

    __slots__ = ("due_us", "lines", "reading", "room", "sent", "taken", "to_many")

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.taken: list[Taken] = []
        self.lines: dict[tuple[str, int], Line] = {}
        self.reading: dict[str, Line] = {}
        self.room: dict[str, int] = {}
        self.to_many = False
        self.due_us: int | None = None

    def line(self, address: str, level: int, queue: list[Message]) -> Line:
        """A queue, with what was taken of it."""
        line = self.lines.get((address, level))
        if line is None or line.queue is not queue:
            line = self.lines[address, level] = Line(address, queue)
        return line

    def add(self, message: Message) -> None:
        """Take in what is sent."""
        self.sent.append(message)
        to, due_us = message.to, message.deadline_us
        if to is None or to == EVERYBODY:
            self.to_many = True
        else:
            self.room[to] -= 1
        if due_us is not None and (self.due_us is None or due_us < self.due_us):
            self.due_us = due_us
