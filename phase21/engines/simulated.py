"""Attempts that only pretend: success is drawn from the prediction, so that the same input always ends the same way.

Used for the kind `simulate`, and for every kind in a dry run. Never starts anything real and keeps no state.
"""

from __future__ import annotations

import asyncio
from hashlib import blake2b
from typing import Any

import msgspec

from phase21.domain.tasks import Attempt, Outcome, Rate, Seconds

KIND = "simulate"

# Shared by all attempts, as a hundred thousand tasks would otherwise hold as many equal dicts; readers only read.
_SUCCEEDED = Outcome(success=True, result={"simulated": True})
_FAILED = Outcome(success=False, result={"simulated": True}, error_msg="simulated failure")


class SimulateInput(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Payload of `simulate`: how long it takes (seconds), and how likely it succeeds (the prediction where None).

    `agents_s` says how long it takes agents with which it takes longer or shorter, by name.
    """

    duration_s: Seconds = 0.0
    agents_s: dict[str, Seconds] = {}
    success_rate: Rate | None = None


_FIELDS = frozenset(SimulateInput.__struct_fields__)


class SimulatedEngine:
    """Draws an outcome from seed, run, task and attempt; the payload of any other kind than `simulate` is ignored."""

    def __init__(self, seed: int) -> None:
        self._seed = str(seed)

    async def perform(self, attempt: Attempt) -> Outcome:
        """The drawn outcome, after the seconds that the payload asks for."""
        duration_s, rate = _wanted(attempt)
        if duration_s > 0:
            await asyncio.sleep(duration_s)
        return self._outcome(attempt, rate)

    def instant(self, attempt: Attempt) -> Outcome | None:
        """The same without a wait; None where the payload asks for one."""
        duration_s, rate = _wanted(attempt)
        return None if duration_s > 0 else self._outcome(attempt, rate)

    def _outcome(self, attempt: Attempt, rate: float) -> Outcome:
        """What the draw makes of it; certain success (every draw is below 1) is not drawn for."""
        return _SUCCEEDED if rate >= 1.0 or self.draw(attempt) < rate else _FAILED

    def draw(self, attempt: Attempt) -> float:
        """A number in [0, 1), uniform over attempts and always the same for one of them."""
        # No id holds a slash, so that no two attempts spell the same text.
        text = f"{self._seed}/{attempt.run_id}/{attempt.task.task_id}/{attempt.number}"
        digest = blake2b(text.encode(), digest_size=8).digest()
        return (int.from_bytes(digest, "big") >> 11) * 2.0**-53

    def refusal(self, payload: dict[str, Any]) -> None:
        """Raise `msgspec.ValidationError` where the payload is malformed."""
        for name, value in payload.items():
            if name not in _FIELDS or type(value) is not float or not 0.0 <= value <= 1.0:
                msgspec.convert(payload, SimulateInput)
                return


def _wanted(attempt: Attempt) -> tuple[float, float]:
    """Seconds and success rate of an attempt."""
    task = attempt.task
    if not task.payload or task.kind != KIND:
        return 0.0, attempt.predicted
    wanted = task.payload.get  # the validation gate let only well-formed payloads through
    rate = wanted("success_rate")
    duration_s = wanted("duration_s", 0.0)
    if "agents_s" in task.payload:
        duration_s = task.payload["agents_s"].get(attempt.agent_id, duration_s)
    return duration_s, attempt.predicted if rate is None else rate
