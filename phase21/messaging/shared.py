"""A run's shared context: named values, each with a version that grows by one with every change.

What stands is the ledger's; every version before it is in the journal.
"""

from __future__ import annotations

from typing import Any

import msgspec

from phase21.domain import events as ev
from phase21.domain.errors import MessageRefused
from phase21.domain.messages import SharedValue
from phase21.domain.post import PostRecord
from phase21.messaging.mail import Mail
from phase21.messaging.speaker import Speaker, opened, sealed, subject
from phase21.store.journal import Journal

NAMES_MOST = 10_000
SHARED_BYTES = 16 * 1024 * 1024
"""How many values a run may share, and what they may come to: they are held in memory."""


class Versioned(msgspec.Struct, frozen=True, kw_only=True):
    """A value as its reader has it: its version (0 where nothing was ever set), and who set it."""

    version: int = 0
    value: Any = None
    by: str | None = None


class Shared:
    """See the module. Reading and changing take no time, so that nothing comes in between."""

    def __init__(self, journal: Journal, mail: Mail) -> None:
        self._journal = journal
        self._mail = mail

    def get(self, run_id: str, name: str) -> Versioned:
        """The value of a name, with its version."""
        found = self._post(run_id).shared.get(name)
        return Versioned() if found is None else Versioned(version=found.version, value=opened(found.body), by=found.by)

    def names(self, run_id: str) -> list[str]:
        """What there is."""
        return sorted(self._post(run_id).shared)

    def set(self, speaker: Speaker, name: str, value: Any) -> int:
        """Set a value whatever it was; its new version. Raises MessageRefused."""
        return self._change(speaker, subject(name, "a shared name"), value)

    def compare_and_set(self, speaker: Speaker, name: str, version: int, value: Any) -> int | None:
        """Set a value if it still has this version (0: if it was never set); its new version, None where it has another."""
        name = subject(name, "a shared name")
        found = self._post(speaker.run_id).shared.get(name)
        if (found.version if found is not None else 0) != version:
            return None
        return self._change(speaker, name, value)

    def _change(self, speaker: Speaker, name: str, value: Any) -> int:
        body = sealed(value, f"the value of {name!r}")
        post = self._post(speaker.run_id)
        found = post.shared.get(name)
        _make_room(post, found, name, len(bytes(body)))
        version = 1 if found is None else found.version + 1
        self._mail.flush(speaker.run_id)
        self._journal.append(ev.SharedChanged(run_id=speaker.run_id, name=name, version=version, body=body, by=speaker.task_id))
        return version

    def _post(self, run_id: str) -> PostRecord:
        run = self._journal.ledger.runs.get(run_id)
        if run is None or run.idle:
            raise MessageRefused(f"run {run_id} has nothing under way")
        return run.record.post or PostRecord()


def _make_room(post: PostRecord, found: SharedValue | None, name: str, size: int) -> None:
    if found is None and len(post.shared) >= NAMES_MOST:
        raise MessageRefused(f"the run shares {NAMES_MOST} values already, and {name!r} is none of them")
    if post.shared_bytes + size - (len(bytes(found.body)) if found is not None else 0) > SHARED_BYTES:
        raise MessageRefused(f"what the run shares would come to more than {SHARED_BYTES} bytes")
