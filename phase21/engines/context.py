"""`ctx`: what a handler may ask of the house while its attempt lasts: messages, shared values, locks, progress, further tasks.

The engines make one for each attempt that wants it and close it when the attempt ends; what is asked later is refused. An async
function has `Context`, a plain one in its thread the `PlainContext` of `threads`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Protocol

import msgspec

from phase21.domain import events as ev
from phase21.domain.errors import AttemptOver, MessageRefused, Retryable
from phase21.domain.messages import EVERYBODY, MessageType
from phase21.domain.tasks import Attempt, Task, TaskStatus
from phase21.engines.redaction import Secrets
from phase21.messaging.mail import DEADLINE_S, NORMAL, Letter
from phase21.messaging.office import PostOffice
from phase21.messaging.shared import Versioned
from phase21.messaging.speaker import Speaker
from phase21.store import codec

PROGRESS_EVERY_S = 0.2
PROGRESS_LEAST = 1.0
"""Progress is recorded at most so often, and only when it moved by so many percent; the last word always is."""

NOTE_CHARS = 2000
LOG_LINES = 1000
"""How many lines an attempt may write to the log."""

SPAWN_MOST = 10_000
LEVELS = frozenset({"INFO", "WARNING"})


class Context:
    """The attempt's face of the house. Every message, value and lock is of the attempt's run."""

    def __init__(self, office: PostOffice, attempt: Attempt) -> None:
        self.task: Task = attempt.task
        self.run_id = attempt.run_id
        self.agent_id = attempt.agent_id
        self.attempt = attempt.number
        self.cancelled = False
        self.spawned: list[Any] = []
        self.said: Any = None
        self.secrets: Secrets | None = None
        self._office = office
        self._mail = office.mail
        self._wave = attempt.wave
        self._record = office.journal.ledger.runs[attempt.run_id].waves[attempt.wave].tasks[attempt.task.task_id]
        self._speaker = Speaker.of(attempt.run_id, attempt.task.task_id, attempt.agent_id, attempt.number)
        self.shared = SharedFace(office, self._speaker, self._here)
        self._clock = office.journal.clock
        self._due_us = self._clock.now_us() + round(attempt.timeout_s * 1e6)
        self._progress = Progress(self)
        self._lines = 0
        self._over = False
        self.beat_us = self._clock.now_us()

    # -- what it is --------------------------------------------------------------------------------------------------

    @property
    def deadline(self) -> datetime:
        """When the attempt is ended (UTC)."""
        return datetime.fromtimestamp(self._due_us / 1e6, UTC)

    @property
    def remaining_s(self) -> float:
        """Seconds until then."""
        return max(0.0, (self._due_us - self._clock.now_us()) / 1e6)

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt of this task, and for no other task: for services that do a thing once for a key."""
        return f"{self.run_id}/{self.task.task_id}"

    @property
    def approved(self) -> bool:
        """Whether a person has approved the task, or its submission did."""
        return self._record.approved or self.task.approved

    # -- saying how it goes ------------------------------------------------------------------------------------------

    def progress(self, percent: float, note: str = "") -> None:
        """Say how far it is, 0 to 100, and what it is at."""
        self._here()
        self.heartbeat()
        self._progress.say(min(100.0, max(0.0, float(percent))), codec.sayable(str(note)[:NOTE_CHARS]))

    def heartbeat(self) -> None:
        """Say that it lives: `beat_us` is the time of the last word. It does not prolong the attempt's time."""
        self.beat_us = self._clock.now_us()

    def log(self, text: str, level: str = "INFO") -> None:
        """Write a line to the log: the event `task_noted`, or (`WARNING`) `task_warned`."""
        self._here()
        if level not in LEVELS:
            raise MessageRefused(f"a line's level is one of {', '.join(sorted(LEVELS))}")
        self._lines += 1
        if self._lines > LOG_LINES:
            return
        if self._lines == LOG_LINES:
            text, level = f"{LOG_LINES} lines were written; what follows is left out", "WARNING"
        said = codec.sayable(" ".join(str(text)[:NOTE_CHARS].split()))
        self.record(ev.TaskNoted, text=said, level=level)

    def record(self, kind: Callable[..., Any], **fields: Any) -> None:
        """Append an event about this attempt."""
        place = {"run_id": self.run_id, "wave": self._wave, "task_id": self.task.task_id}
        self._office.journal.append(kind(**place, agent_id=self.agent_id, attempt=self.attempt, **fields))

    # -- messages ----------------------------------------------------------------------------------------------------

    def send(
        self,
        to: str,
        content: Any = None,
        *,
        type: MessageType | str = MessageType.NOTIFICATION,  # noqa: A002 - the message's word
        priority: int = NORMAL,
        reply_to: str | None = None,
        deadline_s: float | None = None,
        durable: bool = False,
    ) -> Coroutine[Any, Any, str]:
        """Send to a task, an agent, or everybody at work (`*`); the message's id.

        It waits while the mailbox is full, and with `durable` until the message would survive a power cut. Raises MessageRefused.
        """
        self._here()
        return self._mail.send(
            self._speaker,
            content,
            to=to,
            type=type if isinstance(type, MessageType) else _type(type),
            priority=priority,
            reply_to=reply_to,
            deadline_us=None if deadline_s is None else self._deadline_us(deadline_s),
            durable=durable,
        )

    def broadcast(self, content: Any = None, **how: Any) -> Coroutine[Any, Any, str]:
        """Send to every other task of the run that has begun and not ended."""
        return self.send(EVERYBODY, content, **how)

    def publish(
        self,
        topic: str,
        content: Any = None,
        *,
        type: MessageType | str = MessageType.STATE_UPDATE,  # noqa: A002 - the message's word
        priority: int = NORMAL,
        deadline_s: float | None = None,
        durable: bool = False,
    ) -> Coroutine[Any, Any, str]:
        """Send to whoever follows a topic now."""
        self._here()
        due_us, kind = None if deadline_s is None else self._deadline_us(deadline_s), _type(type)
        return self._mail.send(
            self._speaker, content, topic=topic, type=kind, priority=priority, deadline_us=due_us, durable=durable
        )

    async def subscribe(self, *topics: str) -> None:
        """Have what is published on topics from now on come to this task's mailbox, until the task ends."""
        self._here()
        self._mail.follow(self._speaker, topics)

    async def unsubscribe(self, *topics: str) -> None:
        """Follow them no longer."""
        self._here()
        self._mail.follow(self._speaker, topics, leave=True)

    def receive(
        self,
        timeout_s: float | None = None,
        *,
        type: MessageType | str | None = None,  # noqa: A002 - the message's word
        sender: str | None = None,
        topic: str | None = None,
        reply_to: str | None = None,
    ) -> Coroutine[Any, Any, Letter | None]:
        """Take the most urgent message for this task or its agent; None where none comes in time (None waits for ever, 0 not at all).

        With the next one taken, or the task COMPLETED, it counts as dealt with; else the next attempt is given it again.
        """
        self._here()
        if type is None and sender is None and topic is None and reply_to is None:
            return self._mail.receive(self._speaker, timeout_s, lives=self.lives)
        kind = None if type is None else _type(type)
        return self._mail.receive(
            self._speaker,
            timeout_s,
            lambda message: (
                (kind is None or message.type is kind)
                and (sender is None or message.sender == sender)
                and (topic is None or message.topic == topic)
                and (reply_to is None or message.reply_to == reply_to)
            ),
            lives=self.lives,
        )

    def request(
        self, to: str, content: Any = None, *, deadline_s: float = DEADLINE_S, priority: int = NORMAL
    ) -> Coroutine[Any, Any, Letter]:
        """Ask, and wait for the answer. Raises NoAnswer where none comes in time, or whom it asks is gone."""
        self._here()
        return self._mail.request(self._speaker, to, content, deadline_s=deadline_s, priority=priority)

    def respond(self, asked: Letter, content: Any = None, *, error: bool = False) -> Coroutine[Any, Any, str]:
        """Answer a request, or (`error`) say that it cannot be answered."""
        self._here()
        return self._mail.respond(self._speaker, asked, content, error=error)

    def handoff(self, to: str, result: Any, *, durable: bool = True) -> Coroutine[Any, Any, str]:
        """Hand a result to another task or agent."""
        return self.send(to, result, type=MessageType.RESULT_HANDOFF, durable=durable)

    # -- locks and tasks ---------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def lock(self, name: str, *, lease_s: float | None = None, timeout_s: float | None = None) -> AsyncIterator[int]:
        """Hold a lock of the run; gives its fence. It ends with the attempt, or after `lease_s`. Raises Retryable where it is not free in time."""
        fence = await self.take_lock(name, lease_s=lease_s, timeout_s=timeout_s)
        if fence is None:
            raise Retryable(f"lock {name!r} was not free within {timeout_s:g} s")
        try:
            yield fence
        finally:
            if not self._over:
                await self.release_lock(name, fence)

    def take_lock(
        self, name: str, *, lease_s: float | None = None, timeout_s: float | None = None
    ) -> Coroutine[Any, Any, int | None]:
        """Take a lock without a block around it; None where it is not free in time."""
        self._here()
        return self._taken_alive(name, lease_s, timeout_s)

    async def _taken_alive(self, name: str, lease_s: float | None, timeout_s: float | None) -> int | None:
        """Wait for a lock; where the attempt ended meanwhile, nobody would give it back any more."""
        fence = await self._office.locks.take(self._speaker, name, lease_s, timeout_s)
        if fence is not None and not self.lives():
            self._office.locks.release(self._speaker, name, fence)
            self._here()
        return fence

    async def release_lock(self, name: str, fence: int | None = None) -> bool:
        """Give it back; whether it was still held."""
        self._here()
        return self._office.locks.release(self._speaker, name, fence)

    def spawn(self, tasks: Iterable[Mapping[str, Any] | Task]) -> None:
        """Ask the workflow for further tasks; they stand in the result's `spawn`."""
        self._here()
        more = [msgspec.to_builtins(task) if isinstance(task, Task) else dict(task) for task in tasks]
        codec.encode(more)
        if len(self.spawned) + len(more) > SPAWN_MOST:
            raise MessageRefused(f"a task may ask for {SPAWN_MOST} further tasks at most")
        self.spawned.extend(more)

    # -- its end -----------------------------------------------------------------------------------------------------

    @property
    def over(self) -> bool:
        """Whether the attempt has ended."""
        return self._over

    def close(self, *, cancelled: bool = False) -> None:
        """The attempt is over: what was said is recorded, and nothing more is heard."""
        if self._over:
            return
        self.cancelled = cancelled
        self._progress.close()
        self._over = True
        self._mail.flush(self.run_id)

    def _here(self) -> None:
        record = self._record  # as `lives` has it, without a call
        if self._over or record.attempts != self.attempt or record.status is not TaskStatus.IN_PROGRESS:
            raise AttemptOver(f"attempt {self.attempt} of task {self.task.task_id} is over")

    def lives(self) -> bool:
        """Whether the attempt has not ended, and the ledger still has it under way: one that could not be ended is over all the same."""
        record = self._record
        return not self._over and record.attempts == self.attempt and record.status is TaskStatus.IN_PROGRESS

    def _deadline_us(self, deadline_s: float) -> int:
        return self._clock.now_us() + round(deadline_s * 1e6)


class SharedFace:
    """`ctx.shared`: the run's shared context."""

    def __init__(self, office: PostOffice, speaker: Speaker, here: Callable[[], None] = lambda: None) -> None:
        self._office = office
        self._speaker = speaker
        self._here = here

    async def get(self, name: str) -> Versioned:
        """The value of a name with its version; version 0 where nothing was ever set."""
        self._here()
        return self._office.shared.get(self._speaker.run_id, name)

    async def names(self) -> list[str]:
        """What there is."""
        self._here()
        return self._office.shared.names(self._speaker.run_id)

    async def set(self, name: str, value: Any, *, durable: bool = False) -> int:
        """Set a value whatever it was; its new version."""
        self._here()
        version = self._office.shared.set(self._speaker, name, value)
        if durable:
            await self._office.journal.durable()
        return version

    async def compare_and_set(self, name: str, version: int, value: Any, *, durable: bool = False) -> int | None:
        """Set a value if it still has this version; its new version, None where another came first."""
        self._here()
        changed = self._office.shared.compare_and_set(self._speaker, name, version, value)
        if durable:
            await self._office.journal.durable()
        return changed


class Progress:
    """What an attempt says of its progress, recorded seldom enough."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._said: tuple[float, str] | None = None
        self._unsaid: tuple[float, str] | None = None
        self._next_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def say(self, percent: float, note: str) -> None:
        """Record it, now or when it is time."""
        self._unsaid = (percent, note)
        loop = asyncio.get_running_loop()
        if self._said is not None and abs(percent - self._said[0]) < PROGRESS_LEAST:
            return
        if loop.time() >= self._next_s:
            self._tell()
        elif self._timer is None:
            self._timer = loop.call_at(self._next_s, self._tell)

    def _tell(self) -> None:
        self._stop()
        if self._unsaid is not None and self._unsaid != self._said and self._context.lives():
            self._said, self._unsaid = self._unsaid, None
            self._next_s = asyncio.get_running_loop().time() + PROGRESS_EVERY_S
            percent, note = self._said
            self._context.record(ev.TaskProgressed, percent=percent, note=note)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def close(self) -> None:
        """Record the last word."""
        self._tell()


class Connects(Protocol):
    """What lets the programs that an attempt starts speak for it."""

    def connected(self, context: Context) -> contextlib.AbstractContextManager[dict[str, str]]:
        """The variables of their environment by which they do."""


class Contexts:
    """Makes the contexts of attempts, and (`switchboard`) connects the programs that they start."""

    def __init__(self, office: PostOffice, switchboard: Connects | None = None) -> None:
        self._office = office
        self._switchboard = switchboard

    def of(self, attempt: Attempt) -> OpenContext:
        """The attempt's context, for a `with` block around the handler."""
        return OpenContext(Context(self._office, attempt))

    def connected(self, context: Context) -> contextlib.AbstractContextManager[dict[str, str]]:
        """The variables by which an attempt's programs speak for it."""
        return contextlib.nullcontext({}) if self._switchboard is None else self._switchboard.connected(context)


class OpenContext:
    """A context for as long as its attempt lasts."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def __enter__(self) -> Context:
        return self._context

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._context.close(cancelled=kind is not None and issubclass(kind, asyncio.CancelledError))


def with_spawned(result: Any, context: Context) -> Any:
    """The result with the tasks that the handler asked for under `spawn`; one that is no object stands under `value`."""
    if not context.spawned:
        return result
    if result is None or isinstance(result, dict):
        said = dict(result or {})
        return {**said, "spawn": [*said.get("spawn", ()), *context.spawned]}
    return {"value": result, "spawn": context.spawned}


def _type(said: MessageType | str) -> MessageType:
    try:
        return MessageType(said)
    except ValueError:
        raise MessageRefused(f"a message's type is one of {', '.join(MessageType)}") from None
