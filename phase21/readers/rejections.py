"""`rejected.jsonl` in the state folder: everything that was set aside, with where it stood and why.

A projection of the journal's rejections: what is missing or torn after a crash is written again at the start.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from phase21.domain import events as ev
from phase21.store import codec, files
from phase21.store.clock import iso
from phase21.store.journal import Journal

RAW_CHARS = 4096
RETRY_DELAY_S = 1.0


def row(entry: ev.Entry) -> dict[str, Any]:
    """A rejection as `rejected.jsonl` shows it."""
    event = entry.event
    assert isinstance(event, ev.SubmissionRejected)  # noqa: S101 - narrows the type
    shown: dict[str, Any] = {
        "line": event.line,
        "offset": event.offset,
        "error": event.error,
        "path": event.path,
        "raw": event.raw[:RAW_CHARS],
        "rejected_at": iso(entry.at_us),
    }
    if event.file is not None:
        shown["file"] = event.file
    return shown


class Rejections:
    """Follows what is refused."""

    def __init__(self, journal: Journal, state: Path) -> None:
        self._journal = journal
        self._path = state / "rejected.jsonl"

    async def run(self) -> None:
        """Write until cancelled."""
        refused = self._journal.follow("rejections", ev.SubmissionRejected, durable=True)
        while not self._lasting(self._mend):
            await self._journal.clock.sleep(RETRY_DELAY_S)
        async for entry in refused:
            while not self._lasting(partial(self._append, codec.line(row(entry)))):
                await self._journal.clock.sleep(RETRY_DELAY_S)

    def _mend(self) -> None:
        """Write the file anew where it does not hold a whole line for each rejection."""
        held = self._path.read_bytes() if self._path.exists() else b""
        if held.count(b"\n") != self._journal.lookup.rejection_count() or (held and not held.endswith(b"\n")):
            files.replace(self._path, codec.lines(row(entry) for entry in self._journal.lookup.rejections()))

    def _lasting(self, work: Callable[[], None]) -> bool:
        """Whether the disk did it."""
        try:
            work()
        except OSError as error:
            self._journal.trouble("rejections", error)
            return False
        self._journal.trouble_over("rejections")
        return True

    def _append(self, data: bytes) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, files.PRIVATE_FILE)
        size = os.fstat(descriptor).st_size
        try:
            files.write_all(descriptor, data)
        except OSError:
            os.ftruncate(descriptor, size)
            raise
        finally:
            os.close(descriptor)
