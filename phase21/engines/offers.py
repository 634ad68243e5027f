"""What installed packages offer through entry points: handlers of further kinds, and gates of users' own.

Read once, when the house is built; a broken offer is a configuration error that names it.
"""

from __future__ import annotations

from typing import Any

from phase21.domain.errors import ConfigurationError

HANDLERS = "phase21.handlers"
GATES = "phase21.gates"
AGENTS = "phase21.agents"


def offered(group: str) -> dict[str, Any]:
    """What each entry point of a group loads, by its name. Raises ConfigurationError."""
    from importlib.metadata import entry_points  # noqa: PLC0415 - slow to import, and needed once

    found: dict[str, Any] = {}
    for point in entry_points(group=group):
        if point.name in found:
            raise ConfigurationError(f"entry point {point.name!r} of group {group} is offered twice")
        try:
            found[point.name] = point.load()
        except Exception as error:
            raise ConfigurationError(
                f"entry point {point.name!r} of group {group} ({point.value}) cannot be loaded: {error!r}"
            ) from error
    return found
