"""What a command may ask of its attempt's context, as JSON: every operation of `ctx`, each with its fields.

Lines on a command's stdout and requests on the socket are read here and carried out; nothing here trusts what it reads.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from phase21.domain.errors import MessageRefused
from phase21.domain.messages import MessageType, Subject
from phase21.domain.tasks import PRIORITIES, Seconds
from phase21.engines.context import Context
from phase21.engines.redaction import Secrets
from phase21.messaging.mail import DEADLINE_S, Letter
from phase21.messaging.speaker import deeper
from phase21.store import codec
from phase21.store.clock import iso

LEVELS_MOST = 80
"""How deep a request may be nested: what a message may hold, and what stands around it."""

Address = Annotated[str, Meta(min_length=1, max_length=200)]
Priority = Annotated[int, Meta(ge=0, lt=len(PRIORITIES))]


class Request(msgspec.Struct, frozen=True, kw_only=True, tag_field="op", tag=str.lower, forbid_unknown_fields=True):
    """Something asked."""


class Send(Request, frozen=True, kw_only=True):
    """A message to a task, an agent or everybody (`*`); gives its id."""

    to: Address
    content: Any = None
    type: MessageType = MessageType.NOTIFICATION
    priority: Priority = PRIORITIES["NORMAL"]
    reply_to: Address | None = None
    deadline_s: Seconds | None = None
    durable: bool = False


class Publish(Request, frozen=True, kw_only=True):
    """A message to whoever follows a topic; gives its id."""

    topic: Subject
    content: Any = None
    type: MessageType = MessageType.STATE_UPDATE
    priority: Priority = PRIORITIES["NORMAL"]
    deadline_s: Seconds | None = None
    durable: bool = False


class Subscribe(Request, frozen=True, kw_only=True):
    """Follow topics, or (`leave`) no longer."""

    topics: Annotated[tuple[Subject, ...], Meta(min_length=1, max_length=256)]
    leave: bool = False


class Receive(Request, frozen=True, kw_only=True):
    """Take a message; gives it, or null where none comes in time."""

    timeout_s: Seconds | None = None
    type: MessageType | None = None
    sender: Address | None = None
    topic: Subject | None = None
    reply_to: Address | None = None


class Ask(Request, frozen=True, kw_only=True, tag="request"):
    """Ask, and wait; gives the message that answers."""

    to: Address
    content: Any = None
    deadline_s: Seconds = DEADLINE_S
    priority: Priority = PRIORITIES["NORMAL"]


class Handoff(Request, frozen=True, kw_only=True):
    """Hand a result on, durable; gives the message's id."""

    to: Address
    result: Any


class Shared(Request, frozen=True, kw_only=True):
    """Read a shared value, or set it (`value`), if it still has a `version`; without a name, name them all."""

    name: Subject | None = None
    value: Any | UnsetType = UNSET
    version: Annotated[int, Meta(ge=0)] | None = None
    durable: bool = False


class Lock(Request, frozen=True, kw_only=True):
    """Take a lock; gives its fence, or null where it is not free in time."""

    name: Subject
    lease_s: Seconds | None = None
    timeout_s: Seconds | None = None


class Unlock(Request, frozen=True, kw_only=True):
    """Give a lock back; gives whether it was still held."""

    name: Subject
    fence: int | None = None


class Progress(Request, frozen=True, kw_only=True):
    """How far it is, in percent."""

    percent: Annotated[float, Meta(ge=0.0, le=100.0)]
    note: str = ""


class Log(Request, frozen=True, kw_only=True):
    """A line for the log."""

    text: str
    level: str = "INFO"


class Heartbeat(Request, frozen=True, kw_only=True):
    """That it lives."""


class Spawn(Request, frozen=True, kw_only=True):
    """Further tasks that are asked for."""

    tasks: Annotated[tuple[dict[str, Any], ...], Meta(max_length=10_000)]


class Attempt(Request, frozen=True, kw_only=True):
    """Who asks: run, task, agent, attempt, idempotency key, seconds that remain, whether it was approved."""


class Result(Request, frozen=True, kw_only=True):
    """What the command came to; stands under `result` of the task's result."""

    value: Any


ONE_WAY = frozenset({Send, Publish, Subscribe, Handoff, Shared, Progress, Log, Heartbeat, Spawn, Result})
"""What may be asked where no answer can be given."""

AnyRequest = (
    Send
    | Publish
    | Subscribe
    | Receive
    | Ask
    | Handoff
    | Shared
    | Lock
    | Unlock
    | Progress
    | Log
    | Heartbeat
    | Spawn
    | Attempt
    | Result
)


async def _send(ctx: Context, asked: Send) -> Any:
    return await ctx.send(
        asked.to,
        asked.content,
        type=asked.type,
        priority=asked.priority,
        reply_to=asked.reply_to,
        deadline_s=asked.deadline_s,
        durable=asked.durable,
    )


async def _publish(ctx: Context, asked: Publish) -> Any:
    how: dict[str, Any] = {"type": asked.type, "priority": asked.priority, "deadline_s": asked.deadline_s}
    return await ctx.publish(asked.topic, asked.content, durable=asked.durable, **how)


async def _subscribe(ctx: Context, asked: Subscribe) -> Any:
    await (ctx.unsubscribe if asked.leave else ctx.subscribe)(*asked.topics)


async def _receive(ctx: Context, asked: Receive) -> Any:
    only: dict[str, Any] = {"type": asked.type, "sender": asked.sender, "topic": asked.topic, "reply_to": asked.reply_to}
    letter = await ctx.receive(asked.timeout_s, **only)
    return None if letter is None else told(letter)


async def _ask(ctx: Context, asked: Ask) -> Any:
    return told(await ctx.request(asked.to, asked.content, deadline_s=asked.deadline_s, priority=asked.priority))


async def _handoff(ctx: Context, asked: Handoff) -> Any:
    return await ctx.handoff(asked.to, asked.result)


async def _shared(ctx: Context, asked: Shared) -> Any:
    if asked.name is None:
        return await ctx.shared.names()
    if asked.value is UNSET:
        return await ctx.shared.get(asked.name)
    if asked.version is None:
        return await ctx.shared.set(asked.name, asked.value, durable=asked.durable)
    return await ctx.shared.compare_and_set(asked.name, asked.version, asked.value, durable=asked.durable)


async def _lock(ctx: Context, asked: Lock) -> Any:
    return await ctx.take_lock(asked.name, lease_s=asked.lease_s, timeout_s=asked.timeout_s)


async def _unlock(ctx: Context, asked: Unlock) -> Any:
    return await ctx.release_lock(asked.name, asked.fence)


async def _progress(ctx: Context, asked: Progress) -> Any:
    ctx.progress(asked.percent, asked.note)


async def _log(ctx: Context, asked: Log) -> Any:
    ctx.log(asked.text, asked.level)


async def _heartbeat(ctx: Context, asked: Heartbeat) -> Any:
    del asked
    ctx.heartbeat()


async def _spawn(ctx: Context, asked: Spawn) -> Any:
    ctx.spawn(asked.tasks)


async def _attempt(ctx: Context, asked: Attempt) -> Any:
    del asked
    names = ("run_id", "agent_id", "attempt", "idempotency_key", "remaining_s", "approved")
    return {"task_id": ctx.task.task_id, **{name: getattr(ctx, name) for name in names}}


async def _result(ctx: Context, asked: Result) -> Any:
    ctx.said = asked.value


_CARRIED_OUT: dict[type[Request], Callable[[Context, Any], Awaitable[Any]]] = {
    Send: _send,
    Publish: _publish,
    Subscribe: _subscribe,
    Receive: _receive,
    Ask: _ask,
    Handoff: _handoff,
    Shared: _shared,
    Lock: _lock,
    Unlock: _unlock,
    Progress: _progress,
    Log: _log,
    Heartbeat: _heartbeat,
    Spawn: _spawn,
    Attempt: _attempt,
    Result: _result,
}
OPERATIONS = tuple(str(kind.__struct_config__.tag) for kind in _CARRIED_OUT)
"""What they are called."""

_MAIN = {"progress": "percent", "spawn": "tasks", "log": "text", "result": "value"}
"""The field that an operation's value on a line stands for, where that is no object of its fields."""


async def carry_out(ctx: Context, asked: AnyRequest) -> Any:
    """Do what is asked; what comes of it can be said in JSON. Raises HandlerError for what cannot be."""
    return await _CARRIED_OUT[type(asked)](ctx, asked)


def told(letter: Letter) -> dict[str, Any]:
    """A message as commands see it: times as text."""
    said = {name: getattr(letter, name) for name in letter.__struct_fields__ if not name.endswith("_us")}
    due_us = letter.deadline_us
    return {**said, "sent_at": iso(letter.sent_us), "deadline": None if due_us is None else iso(due_us)}


def request_of(text: bytes | str, secrets: Secrets | None = None) -> AnyRequest:
    """A request on the socket, with what must not be seen taken out of it. Raises MessageRefused."""
    try:
        asked: AnyRequest = codec.decode(text if secrets is None else codec.encode(_hidden(text, secrets)), AnyRequest)
    except codec.CodecError as error:
        raise MessageRefused(error.said) from None
    return asked


def _hidden(text: bytes | str, secrets: Secrets) -> Any:
    value = codec.decode(text)
    if deeper(value, LEVELS_MOST):
        raise MessageRefused(f"nested deeper than {LEVELS_MOST} levels")
    return secrets.hide_in(value)


def on_line(text: str, secrets: Secrets | None = None) -> AnyRequest | None:
    """What a line of a command's stdout asks, None where it is no such line. Raises MessageRefused."""
    if not text.lstrip().startswith("{") or '"phase21"' not in text:
        return None
    try:
        said = codec.decode(text)
    except codec.CodecError as error:
        raise MessageRefused(f"not JSON: {error}") from None
    if not isinstance(said, dict) or "phase21" not in said:
        return None
    asked = said["phase21"]
    named = [name for name in asked if name in OPERATIONS] if isinstance(asked, dict) else []
    if len(said) != 1 or len(named) != 1:
        raise MessageRefused(f'a line is {{"phase21": {{OPERATION: …}}}} with one of {", ".join(OPERATIONS)}')
    return _named(named[0], asked, secrets)


def _named(name: str, asked: dict[str, Any], secrets: Secrets | None) -> AnyRequest:
    fields = {key: value for key, value in asked.items() if key != name}
    value = asked[name]
    if isinstance(value, dict) and name != "result":
        fields.update(value)
    elif name in _MAIN:
        fields[_MAIN[name]] = value
    return request_of(codec.encode({**fields, "op": name}), secrets)
