"""The verb `message`: what a command may ask of its task's context, through the daemon's private socket; answers are JSON on stdout.

A script that a task runs has the socket and its token in its environment; a person names state folder and run. It imports little,
since scripts call it often.
"""

from __future__ import annotations

import os
from typing import Any

import click

SOCKET_VARIABLE, TOKEN_VARIABLE = "PHASE21_SOCKET", "PHASE21_TOKEN"
NOTHING = 1
"""The exit status where nothing came, or a lock or a version was another's."""

PLAIN = frozenset({"send", "publish", "handoff"})
"""What answers with the id of a message, which is printed as it is."""

TYPES = ("context_share", "result_handoff", "request", "response", "notification", "error", "state_update")
_TYPE = click.option("--type", "type", type=click.Choice(TYPES), help="What the message is for.")
_PRIORITY = click.option(
    "--priority", type=click.Choice(["URGENT", "HIGH", "NORMAL", "LOW"], case_sensitive=False), default="NORMAL"
)
_DEADLINE = click.option("--deadline", metavar="S", type=float, help="Seconds after which it is a dead letter.")
_DURABLE = click.option("--durable", is_flag=True, help="Wait until it would survive a power cut.")
_TIMEOUT = click.option("--timeout", metavar="S", type=float, help="How long to wait; for ever where it is not said.")


@click.group(short_help="Messages, shared values and locks, for scripts that tasks run.")
@click.option("--state", metavar="DIR", default="phase21_state", help="State folder of the daemon, for a person.")
@click.option("--run", "run_id", metavar="RUN", help="Speak in this run as a person, not for a task.")
@click.pass_context
def message(ctx: click.Context, *, state: str, run_id: str | None) -> None:
    """Ask the daemon for the task that this runs in (or, with --run, as a person). CONTENT is JSON, else it is taken as text.

    Exit status 1 says that nothing came in time, or that a lock or a version was another's.
    """
    ctx.obj = (state, run_id)


@message.command()
@click.argument("to")
@click.argument("content", required=False)
@_TYPE
@_PRIORITY
@_DEADLINE
@_DURABLE
@click.option("--reply-to", metavar="ID", help="The message that this answers.")
@click.pass_obj
def send(where: Any, /, *, to: str, content: str | None, priority: str, **how: Any) -> int:
    """Send to a task, an agent, or everybody at work ('*'); prints the message's id."""
    if how["reply_to"] is not None and how["type"] is None:
        how["type"] = "response"
    return _ask(where, "send", to=to, content=_value(content), priority=_priority(priority), **_said(how))


@message.command()
@click.argument("topic")
@click.argument("content", required=False)
@_TYPE
@_PRIORITY
@_DEADLINE
@_DURABLE
@click.pass_obj
def publish(where: Any, /, *, topic: str, content: str | None, priority: str, **how: Any) -> int:
    """Send to whoever follows a topic."""
    return _ask(where, "publish", topic=topic, content=_value(content), priority=_priority(priority), **_said(how))


@message.command()
@click.argument("topics", nargs=-1, required=True)
@click.option("--leave", is_flag=True, help="Follow them no longer.")
@click.pass_obj
def subscribe(where: Any, /, *, topics: tuple[str, ...], leave: bool) -> int:
    """Follow topics."""
    return _ask(where, "subscribe", topics=topics, leave=leave)


@message.command()
@_TIMEOUT
@_TYPE
@click.option("--sender", metavar="WHO", help="Only what this task sent.")
@click.option("--topic", metavar="TOPIC", help="Only what was published on this topic.")
@click.option("--reply-to", metavar="ID", help="Only what answers this message.")
@click.pass_obj
def receive(where: Any, /, **only: Any) -> int:
    """Take the most urgent message, and print it."""
    return _ask(where, "receive", **_said(only))


@message.command()
@click.argument("to")
@click.argument("content", required=False)
@_PRIORITY
@_DEADLINE
@click.pass_obj
def request(where: Any, /, *, to: str, content: str | None, priority: str, **how: Any) -> int:
    """Ask, wait for the answer, and print it."""
    return _ask(where, "request", to=to, content=_value(content), priority=_priority(priority), **_said(how))


@message.command()
@click.argument("to")
@click.argument("result")
@click.pass_obj
def handoff(where: Any, /, *, to: str, result: str) -> int:
    """Hand a result on to a task or an agent."""
    return _ask(where, "handoff", to=to, result=_value(result))


@message.command()
@click.argument("name", required=False)
@click.argument("value", required=False)
@click.option(
    "--version", metavar="N", type=click.IntRange(min=0), help="Set it only if it still has this version (0: if never set)."
)
@_DURABLE
@click.pass_obj
def shared(where: Any, /, *, name: str | None, value: str | None, **how: Any) -> int:
    """Print a shared value, or set it and print its new version; without NAME, print all names."""
    given = {} if value is None else {"value": _value(value), **_said(how)}
    return _ask(where, "shared", name=name, **given)


@message.command()
@click.argument("name")
@click.option("--lease", metavar="S", type=float, help="Seconds after which it is free again; else it ends with the attempt.")
@_TIMEOUT
@click.pass_obj
def lock(where: Any, /, *, name: str, **how: Any) -> int:
    """Take a lock, waiting for it; prints its fence."""
    return _ask(where, "lock", name=name, **_said(how))


@message.command()
@click.argument("name")
@click.option("--fence", metavar="N", type=int, help="Only if it is still this taking.")
@click.pass_obj
def unlock(where: Any, /, *, name: str, fence: int | None) -> int:
    """Give a lock back."""
    return _ask(where, "unlock", name=name, fence=fence)


@message.command()
@click.argument("percent", type=float)
@click.argument("note", default="")
@click.pass_obj
def progress(where: Any, /, *, percent: float, note: str) -> int:
    """Say how far the task is, 0 to 100."""
    return _ask(where, "progress", percent=percent, note=note)


@message.command()
@click.argument("text")
@click.option("--level", type=click.Choice(["INFO", "WARNING"]), default="INFO")
@click.pass_obj
def log(where: Any, /, *, text: str, level: str) -> int:
    """Write a line to the log."""
    return _ask(where, "log", text=text, level=level)


@message.command()
@click.pass_obj
def heartbeat(where: Any) -> int:
    """Say that the task lives."""
    return _ask(where, "heartbeat")


@message.command()
@click.argument("tasks")
@click.pass_obj
def spawn(where: Any, /, *, tasks: str) -> int:
    """Ask the workflow for further tasks: a JSON list."""
    return _ask(where, "spawn", tasks=_value(tasks))


@message.command()
@click.argument("value")
@click.pass_obj
def result(where: Any, /, *, value: str) -> int:
    """Say what the command comes to; stands under `result` of the task's result."""
    return _ask(where, "result", value=_value(value))


@message.command()
@click.pass_obj
def attempt(where: Any) -> int:
    """Print run, task, agent, attempt, idempotency key and the seconds that remain."""
    return _ask(where, "attempt")


def _said(how: dict[str, Any]) -> dict[str, Any]:
    """The options that were given, under the names that the daemon knows."""
    names = {"deadline": "deadline_s", "timeout": "timeout_s", "lease": "lease_s"}
    return {names.get(name, name): value for name, value in how.items() if value is not None}


def _value(text: str | None) -> Any:
    """JSON where it is, else the text itself."""
    from phase21.store import codec  # noqa: PLC0415 - help needs none of it

    if text is None:
        return None
    try:
        return codec.decode(text)
    except codec.CodecError:
        return text


def _priority(name: str) -> int:
    from phase21.domain.tasks import PRIORITIES  # noqa: PLC0415 - help needs none of it

    return PRIORITIES[name.upper()]


def _ask(where: tuple[str, str | None], op: str, **fields: Any) -> int:
    """Ask the daemon, print what it answers, and give the exit status."""
    from phase21.store import codec  # noqa: PLC0415 - help needs none of it

    state, run_id = where
    envelope: dict[str, Any] = {"ask": {"op": op, **fields}}
    token = os.environ.get(TOKEN_VARIABLE)
    envelope |= {"run": run_id} if run_id is not None else {"token": token} if token is not None else {}
    path = os.environ.get(SOCKET_VARIABLE) if run_id is None else None
    value = _answer(path or os.path.join(state, "messages.sock"), codec.line(envelope))  # noqa: PTH118 - pathlib is slow to import
    if value is not None:
        click.echo(value if op in PLAIN else codec.encode(value))
    nothing = value is False or (value is None and op in {"receive", "lock"})
    return NOTHING if nothing or _lost(op, fields, value) else 0


def _lost(op: str, fields: dict[str, Any], value: Any) -> bool:
    """Whether a value was set by somebody else before."""
    return op == "shared" and "version" in fields and value is None


def _answer(path: str, line: bytes) -> Any:
    """What the daemon answers to a line. Raises InputRefused for what it refuses, UsageError where none is to be found."""
    from phase21.domain.errors import InputRefused, UsageError  # noqa: PLC0415 - help needs none of it
    from phase21.store import codec  # noqa: PLC0415

    try:
        said = _exchanged(path, line)
    except OSError as error:
        raise UsageError(f"no daemon answers at {path}: {error.strerror or error}") from None
    if not said.endswith(b"\n"):
        raise UsageError(f"the daemon at {path} ended before it answered")
    answer = codec.decode(said)
    if "error" in answer:
        raise InputRefused(answer["error"])
    return answer["value"]


def _exchanged(path: str, line: bytes) -> bytes:
    """Send a line and take one; the folder is opened first, as a socket's address holds 108 bytes only."""
    import socket  # noqa: PLC0415 - help needs none of it

    folder, name = os.path.split(path)
    opened = os.open(folder or ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        through = f"/proc/self/fd/{opened}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asked:
            asked.connect(f"{through}/{name}" if os.path.exists(through) else path)  # noqa: PTH110 - as above
            asked.sendall(line)
            with asked.makefile("rb") as answers:
                return answers.readline()
    finally:
        os.close(opened)
