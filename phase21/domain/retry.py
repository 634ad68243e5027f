"""When to try again: a policy is a value that answers one question.

No library here: a retry is a fact of the journal that outlives a restart and may move to another agent, so no loop can
hold it; what is left of a retry library is the formula below.
"""

from __future__ import annotations

import enum
import random

import msgspec


class RetryStrategy(enum.StrEnum):
    """How the wait grows from attempt to attempt."""

    EXPONENTIAL_BACKOFF = "exponential_backoff"
    LINEAR_BACKOFF = "linear_backoff"
    NO_RETRY = "no_retry"


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Waits in seconds. `jitter` (0 to 1) takes away up to that share of a wait, at random."""

    strategy: RetryStrategy = RetryStrategy.EXPONENTIAL_BACKOFF
    max_attempts: int = 3
    base_delay: float = 0.1
    exponential_base: float = 2.0
    max_delay: float = 30.0
    jitter: float = 0.0

    def attempts_allowed(self, asked: int | None) -> int:
        """How often a task may be tried in all, given what the task itself asks for."""
        if self.strategy is RetryStrategy.NO_RETRY:
            return 1
        return asked if asked is not None else self.max_attempts

    def delay_after(self, attempt: int, dice: random.Random | None = None) -> float:
        """Seconds from the end of attempt `attempt` (from 1) to the next one."""
        if self.strategy is RetryStrategy.LINEAR_BACKOFF:
            delay = self.base_delay * attempt
        else:
            try:
                delay = self.base_delay * self.exponential_base ** (attempt - 1)
            except OverflowError:
                delay = self.max_delay
        delay = min(delay, self.max_delay)
        return delay * (1 - self.jitter * dice.random()) if self.jitter and dice else delay
