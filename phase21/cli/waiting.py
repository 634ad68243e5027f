"""Waiting beside a daemon: a look at each change of the state folder, and one each second in any case."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

from watchfiles import watch

LOOK_INTERVAL_S = 1.0
DEBOUNCE_MS = 50
UNREADABLE_LOOKS = 10
"""How many looks in a row may find the store unreadable: a daemon may be just making it."""


def looks(folder: Path, timeout_s: float | None = None) -> Iterator[None]:
    """Yield at once, at each change within the folder and at least once a second; end when `timeout_s` has passed."""
    ended = threading.Event()
    timer = None if timeout_s is None else threading.Timer(timeout_s, ended.set)
    if timer is not None:
        timer.daemon = True
        timer.start()
    try:
        yield
        while not ended.is_set():
            yield from _changes(folder, ended)
    finally:
        if timer is not None:
            timer.cancel()


def _changes(folder: Path, ended: threading.Event) -> Iterator[None]:
    """Yield at each change and each second while the folder can be watched, else once after a second."""
    try:
        for _ in watch(
            folder, watch_filter=None, debounce=DEBOUNCE_MS, step=10, stop_event=ended, rust_timeout=int(LOOK_INTERVAL_S * 1000),
            yield_on_timeout=True, recursive=False,
        ):  # fmt: skip
            yield
    except OSError:  # the folder is not there yet, or the system watches no more files
        ended.wait(LOOK_INTERVAL_S)
        yield
