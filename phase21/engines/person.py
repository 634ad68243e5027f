"""A person's face of a run's post, for who asks the socket without a task's token: to send and publish, to read and set shared values."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from phase21.domain.messages import MessageType
from phase21.engines import operations as ops
from phase21.engines.context import SharedFace
from phase21.messaging.office import PostOffice
from phase21.messaging.speaker import Speaker

PERSONS_OPERATIONS = frozenset({ops.Send, ops.Publish, ops.Handoff, ops.Shared})


class Person:
    """Speaks as `person`; a run must have something under way."""

    def __init__(self, office: PostOffice, run_id: str) -> None:
        self.run_id = run_id
        self.shared = SharedFace(office, Speaker(run_id))
        self._office = office

    def send(self, to: str, content: Any, *, deadline_s: float | None, **how: Any) -> Coroutine[Any, Any, str]:
        """Send to a task, an agent, or everybody at work."""
        return self._office.mail.send(Speaker(self.run_id), content, to=to, deadline_us=self._due_us(deadline_s), **how)

    def publish(self, topic: str, content: Any, *, deadline_s: float | None, **how: Any) -> Coroutine[Any, Any, str]:
        """Send to whoever follows a topic."""
        return self._office.mail.send(Speaker(self.run_id), content, topic=topic, deadline_us=self._due_us(deadline_s), **how)

    def handoff(self, to: str, result: Any) -> Coroutine[Any, Any, str]:
        """Hand something on."""
        return self.send(to, result, deadline_s=None, type=MessageType.RESULT_HANDOFF, durable=True)

    def _due_us(self, deadline_s: float | None) -> int | None:
        return None if deadline_s is None else self._office.journal.clock.now_us() + round(deadline_s * 1e6)
