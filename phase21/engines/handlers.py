"""The handlers that every installation has: `command` runs a program, `python` calls a function.

Engines asks for them by kind. They keep no time limit of their own: they are cancelled, and then end what they began.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import os
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from phase21.domain.errors import HandlerError, NeedsApproval, Permanent, RateLimited
from phase21.domain.tasks import Attempt, Outcome
from phase21.engines.context import Context, Contexts, with_spawned
from phase21.engines.processes import STORE_VARIABLE, ProcessGroup, Tail, end_strays, stray_processes
from phase21.engines.redaction import Secrets
from phase21.engines.speech import Speech
from phase21.engines.threads import PlainContext
from phase21.messaging.speaker import deeper
from phase21.store.codec import CodecError, decode, encode, line, sayable

__all__ = ["CommandEngine", "CommandInput", "PythonEngine", "PythonInput", "end_strays", "stray_processes"]

OUTPUT_BYTES = 4096
RESULT_BYTES = 65_536
RESULT_LEVELS = 64
ERROR_CHARACTERS = 2000
LONGEST_WAIT_S = 1e6
GOES_ON = "the function goes on in its thread"


class CommandInput(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Payload of `command`: the program and its arguments, where, with what besides the daemon's environment, on what.

    An object or a list as `stdin` reaches the program as one line of JSON. With `messages` it speaks by lines of JSON on its stdout.
    """

    argv: Annotated[tuple[str | int | float, ...], Meta(min_length=1)]
    cwd: str | None = None
    env: dict[str, str] = {}
    stdin: str | dict[str, Any] | list[Any] | None = None
    messages: bool = False

    def __post_init__(self) -> None:
        """Refuse what no program can be started with."""
        if not self.words[0]:
            raise ValueError("argv[0] is empty")
        for name, texts in (("argv", self.words), ("cwd", (self.cwd or "",)), ("env", (*self.env, *self.env.values()))):
            if any("\0" in text for text in texts):
                raise ValueError(f"{name} holds a NUL character")
        if any(not key or "=" in key for key in self.env):
            raise ValueError("env has a name that is empty or holds '='")

    @property
    def words(self) -> tuple[str, ...]:
        """The program and its arguments as texts: a reference may have left numbers among them."""
        return tuple(map(str, self.argv))


class CommandEngine:
    """Runs a program without a shell, in a process group of its own; success is exit status 0.

    `marker` names the store to what is started, for `end_strays`; an empty one marks nothing. `contexts` is where attempts get theirs.
    """

    def __init__(self, marker: str = "", contexts: Contexts | None = None) -> None:
        self._marker = marker
        self._contexts = contexts

    async def perform(self, attempt: Attempt) -> Outcome:
        """Run it to its end; cancelled, the whole group is ended first. `result` is exit_status, stdout, stderr."""
        wanted = msgspec.convert(attempt.task.payload, CommandInput)
        if self._contexts is None:
            return await self._run(attempt, wanted, {}, None)
        with self._contexts.of(attempt) as context, self._contexts.connected(context) as variables:
            outcome = await self._run(attempt, wanted, variables, context)
            if context.said is None and not context.spawned:
                return outcome
            said = {} if context.said is None else {"result": context.said}
            checked = _checked(with_spawned({**(outcome.result or {}), **said}, context))
            return msgspec.structs.replace(outcome, result=checked.result) if checked.success else checked

    async def _run(self, attempt: Attempt, wanted: CommandInput, variables: Mapping[str, str], context: Context | None) -> Outcome:
        try:
            secrets = Secrets(wanted.env.values())
            if context is not None:
                context.secrets = secrets
            keep_bytes = OUTPUT_BYTES + secrets.margin_bytes
            speech = Speech(keep_bytes, context, secrets) if wanted.messages and context is not None else None
            group = ProcessGroup(
                wanted.words,
                cwd=wanted.cwd,
                env={**self._environment(attempt, wanted), **variables},
                stdin=_typed_in(wanted.stdin),
                keep_bytes=keep_bytes,
                stdout=speech,
            )
        except UnicodeEncodeError:
            return Outcome(success=False, error_msg="cannot start: the payload holds text that is not Unicode")
        except (OSError, ValueError) as error:
            return Outcome(success=False, error_msg=f"cannot start: {secrets.hide(_cause(error, wanted.words[0]))}")
        try:
            await (group.ended() if speech is None else _heard_out(group, speech))
        except asyncio.CancelledError:
            await group.end()
            raise
        finally:
            group.close()
        return _command_outcome(group, secrets)

    def refusal(self, payload: dict[str, Any]) -> None:
        """Raise `msgspec.ValidationError` where the payload is malformed."""
        msgspec.convert(payload, CommandInput)

    def _environment(self, attempt: Attempt, wanted: CommandInput) -> dict[str, str]:
        environment = {
            **os.environ,
            **wanted.env,
            "PHASE21_RUN_ID": attempt.run_id,
            "PHASE21_WAVE": str(attempt.wave),
            "PHASE21_TASK_ID": attempt.task.task_id,
            "PHASE21_AGENT_ID": attempt.agent_id,
            "PHASE21_ATTEMPT": str(attempt.number),
        }
        if self._marker:
            environment[STORE_VARIABLE] = self._marker
        return environment


async def _heard_out(group: ProcessGroup, speech: Speech) -> None:
    """Wait for a command's end, and until all that it said is carried out."""
    speech.on_quiet = group.read_on
    async with asyncio.TaskGroup() as helpers:
        talk = helpers.create_task(speech.carry_out())
        try:
            await group.ended()
            while speech.busy:
                await speech.quiet()
                await group.ended()
            speech.end()
            await speech.quiet()
        finally:
            talk.cancel()


def _typed_in(value: str | dict[str, Any] | list[Any] | None) -> bytes | None:
    if value is None or isinstance(value, str):
        return None if value is None else value.encode()
    return line(value)


def _command_outcome(group: ProcessGroup, secrets: Secrets) -> Outcome:
    def text(tail: Tail) -> str:
        data = tail.last()
        return secrets.tail(data, OUTPUT_BYTES, cut=tail.total_bytes > len(data), torn=not group.drained)

    status = group.exit_status
    result = {"exit_status": status, "stdout": text(group.stdout), "stderr": text(group.stderr)}
    if status == 0:
        return Outcome(success=True, result=result)
    said = f"exit status {status}" if status > 0 else f"killed by signal {-status}"
    return Outcome(success=False, result=result, error_msg=said)


def _cause(error: OSError | ValueError, program: str) -> str:
    if isinstance(error, OSError) and error.strerror:
        return _one_line(f"{error.strerror}: {error.filename or program}")
    return _one_line(str(error))


class PythonInput(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Payload of `python`: which function (`module:function`), and its keyword arguments."""

    callable: str
    kwargs: dict[str, Any] = {}

    def __post_init__(self) -> None:
        """Refuse what names no function."""
        module, colon, function = self.callable.partition(":")
        if not colon or not function.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
            raise ValueError("callable is not of the form module:function")

    @property
    def module(self) -> str:
        """The module's name."""
        return self.callable.partition(":")[0]


class PythonEngine:
    """Calls a function of a module that is allowed, or lies in a package that is. Its result must be JSON, 64 KiB at most.

    An async function runs in the loop. A plain one runs in a daemon thread of its own, as no thread can be ended: when
    cancelled it is left behind there, and holds up neither the agent nor the interpreter's exit.
    """

    def __init__(self, modules: tuple[str, ...] | list[str], contexts: Contexts | None = None) -> None:
        self._modules = tuple(modules)
        self._contexts = contexts
        self._functions: dict[str, Callable[..., Any]] = {}
        self._abandoned: set[tuple[str, str, int]] = set()

    async def perform(self, attempt: Attempt) -> Outcome:
        """Call it. Whatever it raises is a failure, an exit of the interpreter too."""
        wanted = msgspec.convert(attempt.task.payload, PythonInput)
        refused = self._module_refusal(wanted.module)
        if refused:
            return Outcome(success=False, error_msg=refused)
        function = self._functions.get(wanted.callable)
        if function is None:
            function = await self._in_thread(attempt, lambda: _found(wanted.callable))
            if isinstance(function, Outcome):
                return function
            self._functions[wanted.callable] = function
        if self._contexts is not None and wants_context(function):
            with self._contexts.of(attempt) as context:
                return await self._with_context(attempt, function, wanted.kwargs, context)
        return await self._called(attempt, function, wanted.kwargs)

    async def _called(self, attempt: Attempt, function: Callable[..., Any], kwargs: dict[str, Any]) -> Outcome:
        if _is_async(function):
            return await awaited(lambda: function(**kwargs))
        came = await self._in_thread(attempt, lambda: _called(function, kwargs))
        return came if isinstance(came, Outcome) else await awaited(lambda: came)

    async def _with_context(
        self, attempt: Attempt, function: Callable[..., Any], kwargs: dict[str, Any], context: Context
    ) -> Outcome:
        if _is_async(function):
            return await awaited(lambda: function(context, **kwargs), context)
        plain = PlainContext(context, asyncio.get_running_loop())
        try:
            came = await self._in_thread(attempt, lambda: _called(partial(function, plain), kwargs))
            came = came if isinstance(came, Outcome) else await awaited(lambda: came)
            return _checked(with_spawned(came.result, context)) if came.success and context.spawned else came
        finally:
            context.close(cancelled=True)
            plain.close()

    def refusal(self, payload: dict[str, Any]) -> str | None:
        """Why the callable may not be called, or None; raises `msgspec.ValidationError` where the payload is malformed."""
        return self._module_refusal(msgspec.convert(payload, PythonInput).module)

    def abandoned(self, attempt: Attempt) -> str | None:
        """What is to be said of a cancelled attempt whose function still runs in its thread, else None."""
        return GOES_ON if _key(attempt) in self._abandoned else None

    def _module_refusal(self, module: str) -> str | None:
        if any(module == allowed or module.startswith(f"{allowed}.") for allowed in self._modules):
            return None
        allowed_names = ", ".join(self._modules) or "none"
        return f"module {module!r} is not allowed (handlers.python_modules: {allowed_names})"

    async def _in_thread(self, attempt: Attempt, work: Callable[[], Any]) -> Any:
        """What `work`, which raises nothing, returns from a thread of its own."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()
        key = _key(attempt)

        def hand_over(value: Any) -> None:
            self._abandoned.discard(key)
            if not done.done():
                done.set_result(value)

        def body() -> None:
            value = work()
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(hand_over, value)

        threading.Thread(target=body, name=f"python-{attempt.task.task_id}", daemon=True).start()
        try:
            return await done
        except asyncio.CancelledError:
            self._abandoned.add(key)
            raise


def _key(attempt: Attempt) -> tuple[str, str, int]:
    return attempt.run_id, attempt.task.task_id, attempt.number


def _found(name: str) -> Callable[..., Any] | Outcome:
    """The function, its module imported; what hinders that as a failure."""
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except BaseException as error:  # noqa: BLE001 - a module may raise anything while it is imported
        return _failure(error)
    if not callable(found):
        return Outcome(success=False, error_msg=f"{name} is not callable")
    return found  # type: ignore[no-any-return]


def _is_async(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


def _called(function: Callable[..., Any], kwargs: dict[str, Any]) -> Outcome | Awaitable[Any]:
    """The outcome of a plain call; what it returns to be awaited (as a decorated async function may) is passed on."""
    try:
        value = function(**kwargs)
        return value if inspect.isawaitable(value) else _checked(value)
    except BaseException as error:  # noqa: BLE001 - whatever a handler raises is a failure
        return _failure(error)


def wants_context(function: Callable[..., Any]) -> bool:
    """Whether a function's first parameter is named `ctx`, or annotated as a context."""
    try:
        first = next(iter(inspect.signature(function).parameters.values()), None)
    except (TypeError, ValueError):  # it does not say what it takes
        return False
    if first is None or first.kind in {first.KEYWORD_ONLY, first.VAR_KEYWORD, first.VAR_POSITIONAL}:
        return False
    annotated = first.annotation if isinstance(first.annotation, str) else getattr(first.annotation, "__name__", "")
    return first.name == "ctx" or annotated.rpartition(".")[2] in {Context.__name__, PlainContext.__name__}


async def awaited(begin: Callable[[], Awaitable[Any]], context: Context | None = None) -> Outcome:
    """The outcome of what is awaited, with the further tasks that it asked its context for."""
    try:
        value = await begin()
        return _checked(value if context is None else with_spawned(value, context))
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        return _failure(error)  # the function's own, nobody cancelled the attempt
    except BaseException as error:  # noqa: BLE001 - whatever a handler raises is a failure
        return _failure(error)


def _checked(value: Any) -> Outcome:
    """Success with the value as JSON will have it, or why JSON cannot."""
    if value is None:
        return Outcome(success=True)
    try:
        encoded = encode(value)
        if len(encoded) > RESULT_BYTES:
            return Outcome(success=False, error_msg=f"result is {len(encoded)} bytes of JSON, {RESULT_BYTES} are allowed")
        plain = decode(encoded)
    except CodecError as error:
        return Outcome(success=False, error_msg=f"result is not JSON: {_one_line(str(error))}")
    if deeper(plain, RESULT_LEVELS):
        return Outcome(success=False, error_msg=f"result is not JSON of {RESULT_LEVELS} levels at most")
    return Outcome(success=True, result=plain)


def _failure(raised: BaseException) -> Outcome:
    gathered = _gathered(raised)
    error = next((one for one in gathered if isinstance(one, HandlerError)), gathered[0])
    try:
        text = _one_line(str(error))
    except Exception:  # noqa: BLE001 - an exception may be unable to say what it is
        text = ""
    name = type(error).__name__
    message = f"{name}: {text}"[:ERROR_CHARACTERS] if text else name
    message += f" (and {len(gathered) - 1} more)" if len(gathered) > 1 else ""
    return Outcome(success=False, error_msg=message, **_asked(error, text))


def _gathered(raised: BaseException) -> list[BaseException]:
    """The errors that a task group gathered, in their order; else the one that was raised."""
    found, left = list[BaseException](), [raised]
    while left:
        error = left.pop()
        if isinstance(error, BaseExceptionGroup):
            left.extend(reversed(error.exceptions))
        else:
            found.append(error)
    return found


def _asked(error: BaseException, text: str) -> dict[str, Any]:
    """What a typed error asks to happen next."""
    if not isinstance(error, HandlerError):
        return {}
    if isinstance(error, NeedsApproval):
        return {"needs_approval": text or "the handler asks for approval"}
    if isinstance(error, RateLimited):
        wait_s = float(error.retry_after)
        return {"retry_after_s": min(wait_s, LONGEST_WAIT_S) if wait_s >= 0 else 0.0}
    return {"permanent": isinstance(error, Permanent)}


def _one_line(text: str) -> str:
    """Short, of one line, and sayable in UTF-8."""
    line = " ".join(text[: 2 * ERROR_CHARACTERS].split())
    return sayable(line[:ERROR_CHARACTERS])
