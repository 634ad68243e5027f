"""What agents say to each other: messages, the letters that found nobody, shared values, and locks.

Made by `messaging`, carried in events, kept while they wait in `post`. What a message or a value says is held as the JSON it came as.
"""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec
from msgspec import Meta

AGENT_MARK = "@"
"""Before an agent's id in an address; no id of a task holds it."""

EVERYBODY = "*"
"""The address of a broadcast."""

PERSON = "person"
"""Who speaks where no task does."""

Subject = Annotated[str, Meta(min_length=1, max_length=256)]
"""The name of a topic, of a shared value, of a lock."""


class MessageType(enum.StrEnum):
    """What a message is for."""

    CONTEXT_SHARE = "context_share"
    RESULT_HANDOFF = "result_handoff"
    REQUEST = "request"
    RESPONSE = "response"
    NOTIFICATION = "notification"
    ERROR = "error"
    STATE_UPDATE = "state_update"

    __hash__ = str.__hash__  # an enum's own is slow, and every message has one


class Message(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One message, as it is kept. `message_id` is its own within the run, times are microseconds since 1970.

    It goes `to` a task's id, to `@` and an agent's id, or to `*`; or to whoever follows its `topic`. `body` is JSON.
    """

    message_id: str
    type: MessageType
    priority: int
    sender: str
    to: str | None
    topic: str | None
    body: msgspec.Raw
    reply_to: str | None = None
    deadline_us: int | None = None
    sent_us: int = 0


class Taken(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """That a task took a message which waited at an address (its own, or its agent's)."""

    task_id: str
    address: str
    message_id: str


class DeadLetter(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A message that nobody will take from where it waited, and why."""

    message_id: str
    address: str
    reason: str


class SharedValue(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What stands under a name of a run's shared context: its version (from 1), the value as JSON, who set it and when."""

    version: int
    body: msgspec.Raw
    by: str
    at_us: int


class Lock(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A lock held by an attempt of a task, until it ends or, where that is set, until a time. `fence` grows with each taking."""

    task_id: str
    attempt: int
    fence: int
    until_us: int | None = None

    def over(self, now_us: int) -> bool:
        """Whether the lease has run out."""
        return self.until_us is not None and now_us >= self.until_us
