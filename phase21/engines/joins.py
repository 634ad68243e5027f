"""Joins: tasks that gather what others did, so that one name stands for all of them.

Used for the kind `join`, which workflows make of `for_each` and of child workflows. Nothing is started and nothing waited for; a
dry run joins as any other does.
"""

from __future__ import annotations

from typing import Any

import msgspec

from phase21.domain.tasks import LOST, Attempt, Outcome
from phase21.store import codec

SHOWN = 5
RESULTS_BYTES = 64 * 1024 * 1024
"""What a join may gather: it is one entry of the journal, and no row of it can hold more than a billion bytes."""


class JoinInput(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Payload of `join`: what its result is to be, tasks by id with their status, none of which may have failed, or why it fails."""

    results: Any = None
    statuses: dict[str, str | dict[str, Any]] = {}
    error: str | None = None


class JoinEngine:
    """Ends at once, with what is in the payload by then."""

    async def perform(self, attempt: Attempt) -> Outcome:
        """What is gathered, or which of the tasks failed."""
        return self.instant(attempt)

    def instant(self, attempt: Attempt) -> Outcome:
        """The same without a wait."""
        payload = attempt.task.payload
        if payload.get("error") is not None:
            return Outcome(success=False, error_msg=payload["error"], permanent=True)
        size = len(codec.encode(payload.get("results")))
        if size > RESULTS_BYTES:
            said = f"what is gathered comes to {size} bytes of JSON, {RESULTS_BYTES} are allowed; refer to single tasks instead"
            return Outcome(success=False, error_msg=said, permanent=True)
        failed = [f"{task_id} {status}" for task_id, status in payload.get("statuses", {}).items() if status in LOST]
        if failed:
            more = f" and {len(failed) - SHOWN} more" if len(failed) > SHOWN else ""
            said = f"{', '.join(failed[:SHOWN])}{more}"
            return Outcome(success=False, error_msg=said, result=payload.get("results"), permanent=True)
        return Outcome(success=True, result=payload.get("results"))

    def refusal(self, payload: dict[str, Any]) -> None:
        """Raise `msgspec.ValidationError` where the payload is malformed; references may still stand in it."""
        msgspec.convert(payload, JoinInput)
