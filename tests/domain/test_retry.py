"""When to try again: the formulas, and their edges."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phase21.domain.retry import RetryPolicy, RetryStrategy


@pytest.mark.parametrize(
    ("strategy", "delays"),
    [
        (RetryStrategy.EXPONENTIAL_BACKOFF, [0.1, 0.2, 0.4, 0.8, 1.6]),
        (RetryStrategy.LINEAR_BACKOFF, [0.1, 0.2, 0.3, 0.4, 0.5]),
    ],
)
def test_delays(strategy: RetryStrategy, delays: list[float]) -> None:
    """Exponential: base x factor^(k-1); linear: base x k."""
    policy = RetryPolicy(strategy=strategy)
    assert [policy.delay_after(attempt) for attempt in range(1, 6)] == pytest.approx(delays)


def test_no_retry_allows_one_attempt_whatever_the_task_says() -> None:
    """`no_retry` is one attempt; else the task's own number, else the configured one."""
    assert RetryPolicy(strategy=RetryStrategy.NO_RETRY).attempts_allowed(9) == 1
    assert RetryPolicy(max_attempts=4).attempts_allowed(None) == 4
    assert RetryPolicy(max_attempts=4).attempts_allowed(9) == 9


@given(attempt=st.integers(1, 10_000), factor=st.floats(1, 1e6), jitter=st.floats(0, 1), seed=st.integers())
def test_a_delay_is_never_negative_nor_above_the_cap(attempt: int, factor: float, jitter: float, seed: int) -> None:
    """However large the attempt's number, the delay lies between 0 and `max_delay`."""
    policy = RetryPolicy(exponential_base=factor, jitter=jitter, max_delay=30.0)
    assert 0.0 <= policy.delay_after(attempt, random.Random(seed)) <= 30.0


def test_jitter_takes_away_a_share() -> None:
    """With jitter the delay is shortened by up to that share, drawn from the dice that are handed in."""
    policy = RetryPolicy(base_delay=1.0, jitter=0.5)
    drawn = {policy.delay_after(1, random.Random(seed)) for seed in range(50)}
    assert all(0.5 <= delay <= 1.0 for delay in drawn)
    assert len(drawn) > 10
