"""The process that a house lives in: its tuning, the signals it is sent, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Self

SIGNAL_BASE = 128
EXIT_GRACE_S = 3.0
"""From the end of the drain to the end of the process: longer than a command is given between SIGTERM and SIGKILL."""

GC_THRESHOLD = 50_000
"""Allocations between two looks of the garbage collector: records live long and hold no circles."""

SWITCH_INTERVAL_S = 0.001
"""How long a thread that writes may be kept from the interpreter by the loop; each commit needs it a few times."""


def tuned() -> None:
    """Set the process up for many small long-lived values; called once by whoever owns the process."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 20, 100)
    sys.setswitchinterval(SWITCH_INTERVAL_S)


class Signals:
    """What the process was told from outside: a first request to stop, a second, a request to read the configuration."""

    def __init__(self) -> None:
        self.received = 0
        self.stop = asyncio.Event()
        self.now = asyncio.Event()
        self.reload = asyncio.Event()

    @property
    def reason(self) -> str:
        """Why the house stops."""
        return signal.Signals(self.received).name if self.received else "nothing left to do"

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take SIGTERM, SIGINT and SIGHUP for the while."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._asked, number)
        loop.add_signal_handler(signal.SIGHUP, self.reload.set)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                loop.remove_signal_handler(number)

    def _asked(self, number: int) -> None:
        if self.stop.is_set():
            self.now.set()
        self.received = number
        self.stop.set()


class Exit:
    """A handler that swallows its cancellation must not hold the exit up: the process ends without it.

    Nothing is lost by then: what is acknowledged is durable, and what is not counts as interrupted, as in a crash.
    """

    def __init__(self) -> None:
        self._timer: threading.Timer | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """It ended in time."""
        if self._timer is not None:
            self._timer.cancel()

    def within_time(self, status: int) -> int:
        """The status, with which the process ends shortly if the house does not come to rest."""
        self._timer = threading.Timer(EXIT_GRACE_S, os._exit, (status,))
        self._timer.daemon = True
        self._timer.start()
        return status
