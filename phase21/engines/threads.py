"""`ctx` for a plain function in its thread: what an async one awaits is waited for here, on the loop and back.

The python engine makes one beside the attempt's context, and closes both when the attempt ends: a function that is left behind in its
thread is not heard any more.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

from phase21.domain.errors import AttemptOver, Retryable
from phase21.domain.tasks import Task
from phase21.engines.context import Context, SharedFace
from phase21.messaging.mail import Letter
from phase21.messaging.shared import Versioned

T = TypeVar("T")


class PlainContext:
    """The same for a plain function in its thread: what is awaited there is waited for here. Only that thread may use it."""

    def __init__(self, context: Context, loop: asyncio.AbstractEventLoop) -> None:
        self._context = context
        self._loop = loop
        self._asked: set[Future[Any]] = set()
        self.task, self.run_id, self.agent_id, self.attempt = context.task, context.run_id, context.agent_id, context.attempt
        self.deadline, self.idempotency_key = context.deadline, context.idempotency_key
        self.shared = PlainShared(context.shared, self._wait)

    @property
    def cancelled(self) -> bool:
        """Whether the attempt was ended: a function that looks can stop by itself."""
        return self._context.cancelled or self._context.over

    @property
    def remaining_s(self) -> float:
        """Seconds until the attempt is ended."""
        return self._context.remaining_s

    @property
    def approved(self) -> bool:
        """Whether a person has approved the task, or its submission did."""
        return self._context.approved

    def progress(self, percent: float, note: str = "") -> None:
        """Say how far it is."""
        self._do(lambda: self._context.progress(percent, note))

    def heartbeat(self) -> None:
        """Say that it lives."""
        self._context.heartbeat()

    def log(self, text: str, level: str = "INFO") -> None:
        """Write a line to the log."""
        self._do(lambda: self._context.log(text, level))

    def send(self, to: str, content: Any = None, **how: Any) -> str:
        """Send a message; its id."""
        return self._wait(lambda: self._context.send(to, content, **how))

    def broadcast(self, content: Any = None, **how: Any) -> str:
        """Send to every other task of the run that has begun and not ended."""
        return self._wait(lambda: self._context.broadcast(content, **how))

    def publish(self, topic: str, content: Any = None, **how: Any) -> str:
        """Send to whoever follows a topic."""
        return self._wait(lambda: self._context.publish(topic, content, **how))

    def subscribe(self, *topics: str) -> None:
        """Follow topics."""
        self._wait(lambda: self._context.subscribe(*topics))

    def unsubscribe(self, *topics: str) -> None:
        """Follow them no longer."""
        self._wait(lambda: self._context.unsubscribe(*topics))

    def receive(self, timeout_s: float | None = None, **only: Any) -> Letter | None:
        """Take a message."""
        return self._wait(lambda: self._context.receive(timeout_s, **only))

    def request(self, to: str, content: Any = None, **how: Any) -> Letter:
        """Ask, and wait for the answer."""
        return self._wait(lambda: self._context.request(to, content, **how))

    def respond(self, asked: Letter, content: Any = None, *, error: bool = False) -> str:
        """Answer a request."""
        return self._wait(lambda: self._context.respond(asked, content, error=error))

    def handoff(self, to: str, result: Any, *, durable: bool = True) -> str:
        """Hand a result to another."""
        return self._wait(lambda: self._context.handoff(to, result, durable=durable))

    @contextlib.contextmanager
    def lock(self, name: str, *, lease_s: float | None = None, timeout_s: float | None = None) -> Iterator[int]:
        """Hold a lock of the run."""
        fence = self._wait(lambda: self._context.take_lock(name, lease_s=lease_s, timeout_s=timeout_s))
        if fence is None:
            raise Retryable(f"lock {name!r} was not free within {timeout_s:g} s")
        try:
            yield fence
        finally:
            with contextlib.suppress(AttemptOver):
                self._wait(lambda: self._context.release_lock(name, fence))

    def spawn(self, tasks: Iterable[Mapping[str, Any] | Task]) -> None:
        """Ask the workflow for further tasks."""
        wanted = list(tasks)
        self._do(lambda: self._context.spawn(wanted))

    def close(self) -> None:
        """The attempt is over: whoever waits here is told."""
        for asked in tuple(self._asked):
            asked.cancel()

    def _do(self, work: Callable[[], None]) -> None:
        async def done() -> None:
            work()

        self._wait(done)

    def _wait(self, begin: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What a coroutine, begun on the loop, comes to. Raises AttemptOver where the attempt ends first."""
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop()
            raise AttemptOver("this face of the context is for plain functions in their thread; an async function has another")

        async def asked() -> T:
            return await begin()

        future = asyncio.run_coroutine_threadsafe(asked(), self._loop)  # the one way into a loop from a thread
        self._asked.add(future)
        try:
            if self._context.over:
                future.cancel()
            return future.result()
        except CancelledError:
            raise AttemptOver(f"attempt {self.attempt} of task {self.task.task_id} is over") from None
        finally:
            self._asked.discard(future)


class PlainShared:
    """`ctx.shared` of a plain function."""

    def __init__(self, shared: SharedFace, wait: Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]) -> None:
        self._shared = shared
        self._wait = wait

    def get(self, name: str) -> Versioned:
        """The value of a name with its version."""
        found: Versioned = self._wait(lambda: self._shared.get(name))
        return found

    def names(self) -> list[str]:
        """What there is."""
        found: list[str] = self._wait(self._shared.names)
        return found

    def set(self, name: str, value: Any, *, durable: bool = False) -> int:
        """Set a value; its new version."""
        version: int = self._wait(lambda: self._shared.set(name, value, durable=durable))
        return version

    def compare_and_set(self, name: str, version: int, value: Any, *, durable: bool = False) -> int | None:
        """Set a value if it still has this version."""
        changed: int | None = self._wait(lambda: self._shared.compare_and_set(name, version, value, durable=durable))
        return changed
