"""Which engine performs which kind of task, and which tasks none may perform.

Executors and the validation gate ask here. A dry run is a choice of engine, made once when this is built.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import msgspec

from phase21.domain.errors import ConfigurationError
from phase21.domain.settings import HandlerSettings
from phase21.domain.tasks import Attempt, Outcome, Task
from phase21.domain.workflows import JOIN
from phase21.engines.context import Contexts
from phase21.engines.handlers import CommandEngine, PythonEngine
from phase21.engines.joins import JoinEngine
from phase21.engines.model import ModelEngine
from phase21.engines.offers import HANDLERS, offered
from phase21.engines.own_agents import OwnAgent
from phase21.engines.schema import SchemaEngine
from phase21.engines.simulated import KIND, SimulatedEngine


class Engine(Protocol):
    """Carries attempts out.

    Being cancelled, it ends all that it started before it lets the cancellation through. It may have a method
    `refusal(payload) -> str | None`, which says why a payload cannot be run or raises `msgspec.ValidationError`.
    """

    async def perform(self, attempt: Attempt) -> Outcome:
        """Carry the attempt out; an exception is a failure too."""


class Engines:
    """The engines by kind. `simulate` and `join` are always among them; in a dry run every kind but `join` is simulated."""

    def __init__(self, handlers: Mapping[str, Engine], simulated: SimulatedEngine, *, dry_run: bool) -> None:
        joins = JoinEngine()
        real: dict[str, Engine] = {**handlers, KIND: simulated, JOIN: joins}
        self.simulated = simulated
        self.kinds = tuple(sorted(real))
        self._engines: dict[str, Engine] = {**dict.fromkeys(real, simulated), JOIN: joins} if dry_run else real
        # A dry run refuses what the real one would.
        self._checks: dict[str, Callable[[dict[str, Any]], str | None] | None] = {
            kind: getattr(engine, "refusal", None) for kind, engine in real.items()
        }

    def of(self, kind: str) -> Engine:
        """The engine for a kind that `refusal` lets through; KeyError for any other."""
        return self._engines[kind]

    def refusal(self, task: Task) -> str | None:
        """Why no engine may perform this task (unknown kind, callable not allowed, malformed payload), or None."""
        if not task.payload and task.kind == KIND:
            return None
        if task.kind not in self._checks:
            return f"no handler for kind {task.kind!r} (known: {', '.join(self.kinds)})"
        check = self._checks[task.kind]
        if check is None:
            return None
        try:
            return check(task.payload)
        except msgspec.ValidationError as error:
            return f"malformed payload: {error}".replace("`$", "`payload")
        except Exception as error:  # noqa: BLE001 - a later handler's own check must not stop an agent
            return f"the handler of kind {task.kind!r} cannot check the payload: {error!r}"

    @classmethod
    def built(
        cls,
        settings: HandlerSettings,
        *,
        dry_run: bool,
        marker: str = "",
        contexts: Contexts | None = None,
        agents: Iterable[OwnAgent] = (),
    ) -> Engines:
        """The engines as configured, with those that installed packages offer. `marker` names the store to commands.

        `contexts` is where handlers get theirs, `agents` bring a handler for each of their kinds.
        """
        handlers: dict[str, Engine] = {
            "command": CommandEngine(marker, contexts),
            "python": PythonEngine(settings.python_modules, contexts),
            "schema": SchemaEngine(),
            "model": ModelEngine(),
        }
        for kind, engine in (*_offered().items(), *((kind, own.engine(contexts)) for own in agents for kind in own.kinds)):
            if kind in handlers or kind in {KIND, JOIN}:
                raise ConfigurationError(f"an entry point offers a handler for kind {kind!r}, which has one already")
            handlers[kind] = engine
        return cls(handlers, SimulatedEngine(settings.seed), dry_run=dry_run)


def _offered() -> dict[str, Engine]:
    """What installed packages offer: each entry point is a kind and a factory that takes no argument."""
    made: dict[str, Engine] = {}
    for kind, factory in offered(HANDLERS).items():
        try:
            made[kind] = factory()
        except Exception as error:
            raise ConfigurationError(f"entry point {kind!r} of group {HANDLERS} makes no handler: {error!r}") from error
    return made
