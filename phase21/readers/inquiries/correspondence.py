"""What the tasks of a run said to each other, read from its entries: every message with who took it, or why nobody did.

The verb `messages` asks. It keeps no more than the newest so many of what is wanted, however long the run's past is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from phase21.domain import events as ev
from phase21.domain.messages import Message, MessageType
from phase21.store import codec
from phase21.store.clock import iso

Row = dict[str, Any]


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which messages are wanted; what is None does not matter. `to` is an address or a taker; `dead` asks for dead letters alone."""

    type: MessageType | None = None
    sender: str | None = None
    to: str | None = None
    topic: str | None = None
    since_us: int = 0
    dead: bool = False

    def holds(self, message: Message) -> bool:
        """Whether a message is of those, as far as it says itself."""
        return (
            (self.type is None or message.type is self.type)
            and (self.sender is None or message.sender == self.sender)
            and (self.topic is None or message.topic == self.topic)
            and message.sent_us >= self.since_us
        )

    def holds_row(self, row: Row) -> bool:
        """Whether it is, with what became of it."""
        met = {row["to"], (row["to"] or "").lstrip("@"), *row["taken_by"]}
        return (self.to is None or self.to in met) and (not self.dead or bool(row["dead"]))


def history(entries: Iterable[ev.Entry], wanted: Wanted, most: int) -> list[Row]:
    """The newest `most` of the messages that are wanted, oldest first."""
    kept: dict[str, Row] = {}
    for entry in entries:
        event = entry.event
        if isinstance(event, ev.MessagesPassed):
            _take_in(kept, event, wanted)
        elif isinstance(event, ev.MessagesDead):
            for letter in event.letters:
                if letter.message_id in kept:
                    kept[letter.message_id]["dead"].append({"address": letter.address, "reason": letter.reason})
        if len(kept) > 2 * most:
            kept = _newest(kept, wanted, most)
    return list(_newest(kept, wanted, most).values())


def _take_in(kept: dict[str, Row], event: ev.MessagesPassed, wanted: Wanted) -> None:
    for message in event.sent:
        if wanted.holds(message):
            kept[message.message_id] = row_of(event.run_id, message)
    for taken in event.taken:
        if taken.message_id in kept and taken.task_id not in kept[taken.message_id]["taken_by"]:
            kept[taken.message_id]["taken_by"].append(taken.task_id)


def _newest(kept: dict[str, Row], wanted: Wanted, most: int) -> dict[str, Row]:
    """What is wanted of what is kept; of messages whose fate is open nothing is known yet that speaks against them."""
    fitting = [(message_id, row) for message_id, row in kept.items() if wanted.holds_row(row)]
    return dict(fitting[-most:])


def row_of(run_id: str, message: Message) -> Row:
    """A message as it is shown."""
    return {
        "run_id": run_id,
        "message_id": message.message_id,
        "type": message.type,
        "priority": message.priority,
        "sender": message.sender,
        "to": message.to,
        "topic": message.topic,
        "reply_to": message.reply_to,
        "sent_at": iso(message.sent_us),
        "deadline": None if message.deadline_us is None else iso(message.deadline_us),
        "content": codec.decode(message.body),
        "taken_by": [],
        "dead": [],
    }


def changes(entries: Iterable[ev.Entry], name: str | None = None) -> Iterator[Row]:
    """Every version of a run's shared values, or of one of them, in order."""
    for entry in entries:
        event = entry.event
        if isinstance(event, ev.SharedChanged) and name in {None, event.name}:
            value = codec.decode(event.body)
            yield {"name": event.name, "version": event.version, "by": event.by, "set_at": iso(entry.at_us), "value": value}
