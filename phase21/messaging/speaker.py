"""Who speaks: a task's attempt with its agent, or a person; and what all that is said has in common.

Mail, shared values and locks are asked by a speaker. Here stand the bounds that they share.
"""

from __future__ import annotations

from typing import Any

import msgspec

from phase21.domain.errors import MessageRefused
from phase21.domain.messages import AGENT_MARK, PERSON
from phase21.store import codec

BODY_BYTES = 65_536
"""What one message, or one shared value, may come to."""

BODY_LEVELS = 64
SUBJECT_CHARS = 256


class Speaker(msgspec.Struct, frozen=True, gc=False):
    """An attempt of a task in a run, or a person. Messages for it wait at its `addresses`: its task's, then its agent's."""

    run_id: str
    task_id: str = PERSON
    attempt: int = 0
    addresses: tuple[str, ...] = ()

    @classmethod
    def of(cls, run_id: str, task_id: str, agent_id: str, attempt: int) -> Speaker:
        """An attempt of a task by an agent."""
        return cls(run_id, task_id, attempt, (task_id, AGENT_MARK + agent_id))


def sealed(content: Any, what: str) -> msgspec.Raw:
    """The content as JSON, which nobody can change any more. Raises MessageRefused."""
    try:
        body = codec.encode(content)
    except codec.CodecError as error:
        raise MessageRefused(f"{what} is not JSON: {error}") from None
    if len(body) > BODY_BYTES:
        raise MessageRefused(f"{what} is {len(body)} bytes long; at most {BODY_BYTES} are taken")
    if len(body) > BODY_LEVELS and body.count(b"[") + body.count(b"{") > BODY_LEVELS and deeper(codec.decode(body), BODY_LEVELS):
        raise MessageRefused(f"{what} is nested deeper than {BODY_LEVELS} levels")
    return msgspec.Raw(body)


def deeper(value: Any, levels: int) -> bool:
    """Whether a JSON value is nested deeper than that; the journal, which nests it further, could not hold it."""
    layer = [value]
    for _ in range(levels):
        layer = [
            inner
            for outer in layer
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return any(isinstance(inner, dict | list) for inner in layer)


def opened(body: msgspec.Raw) -> Any:
    """What a body says; made anew for each reader."""
    return codec.decode(body)


def subject(name: str, what: str) -> str:
    """A topic's, value's or lock's name. Raises MessageRefused."""
    if not isinstance(name, str) or not 1 <= len(name) <= SUBJECT_CHARS:
        raise MessageRefused(f"{what} must be text of 1 to {SUBJECT_CHARS} characters")
    return codec.sayable(name)
