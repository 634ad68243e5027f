"""The only reader of wall time.

The journal stamps with it; durations are taken from its monotonic seconds instead, so that a wall clock that jumps
falsifies none.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime

MICROS = 1_000_000
VIRTUAL_EPOCH_US = 1_700_000_000_000_000


class Clock:
    """Wall time in microseconds since 1970."""

    def now_us(self) -> int:
        """The time now."""
        return time.time_ns() // 1000

    monotonic_s: Callable[..., float] = staticmethod(time.monotonic)
    """Seconds that only ever grow, for durations; an event loop's own time may be rounded to milliseconds."""

    async def sleep(self, delay_s: float) -> None:
        """Wait."""
        await asyncio.sleep(delay_s)


class LoopClock(Clock):
    """Time as the event loop counts it, from a fixed beginning: virtual where the loop's is."""

    def now_us(self) -> int:
        """The loop's time."""
        return VIRTUAL_EPOCH_US + round(self.monotonic_s() * 1e6)

    def monotonic_s(self) -> float:
        """The loop's time, in seconds."""
        return asyncio.get_running_loop().time()


_second: tuple[int, str] = (-MICROS, "")


def iso(at_us: int) -> str:
    """UTC in ISO 8601 with microseconds."""
    global _second  # noqa: PLW0603 - the second just formatted, nearly always asked for again
    start_us, text = _second
    micros = at_us - start_us
    if not 0 <= micros < MICROS:
        start_us = at_us // MICROS * MICROS
        micros = at_us - start_us
        text = datetime.fromtimestamp(start_us // MICROS, UTC).strftime("%Y-%m-%dT%H:%M:%S.")
        _second = (start_us, text)
    return f"{text}{str(MICROS + micros)[1:]}+00:00"
