"""Agents of users' own: a plain `async def f(ctx, payload)` that brings a kind of task with it, and joins the fleet under a name.

A package marks the function with `agent` and names it in the entry point group `phase21.agents`. What it raises is what any
handler may raise; what it returns is the task's result.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

import msgspec

from phase21.domain.errors import ConfigurationError
from phase21.domain.settings import AgentSpec, Settings
from phase21.domain.tasks import Attempt, Outcome
from phase21.engines.context import Context, Contexts
from phase21.engines.handlers import awaited
from phase21.engines.offers import AGENTS, offered

Work = Callable[[Context, dict[str, Any]], Coroutine[Any, Any, Any]]
F = TypeVar("F", bound=Work)

MARK = "__phase21_agent__"


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """What a marked function says of itself."""

    kinds: tuple[str, ...]
    capabilities: tuple[str, ...] = ()
    concurrency: int = 1


def agent(*, kinds: Iterable[str], capabilities: Iterable[str] = (), concurrency: int = 1) -> Callable[[F], F]:
    """Mark an async function of context and payload as an agent that does tasks of these kinds, and no others."""
    offer = Offer(kinds=tuple(kinds), capabilities=tuple(capabilities), concurrency=concurrency)

    def marked(function: F) -> F:
        if not inspect.iscoroutinefunction(function):
            raise TypeError(f"{function!r} is no async function, as an agent must be")
        setattr(function, MARK, offer)
        return function

    return marked


class OwnAgent(msgspec.Struct, frozen=True, kw_only=True):
    """An agent that an installed package offers: its place in the fleet, and what it does."""

    spec: AgentSpec
    work: Work

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of task that it does."""
        return self.spec.kinds

    def engine(self, contexts: Contexts | None) -> FunctionEngine:
        """What carries its tasks out."""
        return FunctionEngine(self.work, contexts)


class FunctionEngine:
    """Calls an agent's function with the attempt's context and the task's payload."""

    def __init__(self, work: Work, contexts: Contexts | None) -> None:
        self._work = work
        self._contexts = contexts

    async def perform(self, attempt: Attempt) -> Outcome:
        """Call it; whatever it raises is a failure."""
        if self._contexts is None:
            return Outcome(success=False, error_msg="agents of users' own need a house")
        with self._contexts.of(attempt) as context:
            return await awaited(lambda: self._work(context, dict(attempt.task.payload)), context)


def own_agents() -> tuple[OwnAgent, ...]:
    """The agents that installed packages offer, each under its entry point's name. Raises ConfigurationError."""
    return tuple(_own(name, function) for name, function in sorted(offered(AGENTS).items()))


def _own(name: str, function: Any) -> OwnAgent:
    offer = getattr(function, MARK, None)
    if not isinstance(offer, Offer):
        raise ConfigurationError(f"entry point {name!r} of group {AGENTS} is no function marked with phase21.agent")
    try:
        fields = {"id": name, "kinds": offer.kinds, "capabilities": offer.capabilities, "concurrency": offer.concurrency}
        spec = msgspec.convert(fields, AgentSpec)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"entry point {name!r} of group {AGENTS}: {error}") from None
    if not spec.kinds:
        raise ConfigurationError(f"entry point {name!r} of group {AGENTS}: an agent does at least one kind of task")
    return OwnAgent(spec=spec, work=function)


def fleet_of(settings: Settings, own: Iterable[OwnAgent]) -> tuple[AgentSpec, ...]:
    """The whole fleet: the configured agents, then those that packages offer. Raises ConfigurationError where two share a name."""
    configured = settings.agents.specs()
    named = {spec.id for spec in configured}
    brought = tuple(one.spec for one in own)
    for spec in brought:
        if spec.id in named:
            raise ConfigurationError(f"entry point {spec.id!r} of group {AGENTS}: the fleet has an agent of that name already")
    return (*configured, *brought)
