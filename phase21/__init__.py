"""phase21: waves of predicted tasks over a fleet of agents, durable and learned from.

The public face, for those who embed it; names are loaded when they are asked for, so that the command line starts at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "AgentExecutor": "agents.executor",
    "AgentManager": "manager",
    "Context": "engines.context",
    "FeedbackLoop": "readers.feedback",
    "Harness": "harness",
    "House": "service.house",
    "Journal": "store.journal",
    "Ledger": "domain.ledger",
    "MessageRefused": "domain.errors",
    "Monitor": "readers.monitor",
    "NeedsApproval": "domain.errors",
    "NoAnswer": "domain.errors",
    "Outcome": "domain.tasks",
    "Permanent": "domain.errors",
    "Phase21Error": "domain.errors",
    "Place": "service.house",
    "RateLimited": "domain.errors",
    "Retryable": "domain.errors",
    "Settings": "domain.settings",
    "Task": "domain.tasks",
    "agent": "engines.own_agents",
}

__all__ = [  # noqa: PLE0604 - sorted, and each is found by `__getattr__`
    *sorted(_HOMES)
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
