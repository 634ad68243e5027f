"""The private socket: what shell scripts and other programs that a task runs ask of their attempt's context, one line of JSON each.

The house lets it run; the command engine connects each attempt by a token of its own, which ends with it. Only this user gets in, and
whatever comes in is answered by one line.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from phase21.domain.errors import HandlerError, MessageRefused
from phase21.domain.messages import PERSON
from phase21.engines import operations as ops
from phase21.engines.context import Context
from phase21.engines.person import PERSONS_OPERATIONS, Person
from phase21.messaging.office import PostOffice
from phase21.store import codec

SOCKET = "messages.sock"
SOCKET_VARIABLE = "PHASE21_SOCKET"
TOKEN_VARIABLE = "PHASE21_TOKEN"  # noqa: S105 - the variable's name
LINE_BYTES = 262_144
CONNECTIONS_MOST = 256
PRIVATE = 0o600
CREDENTIALS = struct.Struct("3i")


class Envelope(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request with who asks: an attempt by its token, or a person who names a run."""

    ask: msgspec.Raw
    token: str | None = None
    run: str | None = None


class Switchboard:
    """See the module. `path` is where the socket is, once it is served."""

    def __init__(self, folder: Path, office: PostOffice) -> None:
        self.path: Path | None = None
        self._folder = folder
        self._office = office
        self._contexts: dict[str, Context] = {}
        self._open: set[asyncio.StreamWriter] = set()

    @contextlib.contextmanager
    def connected(self, context: Context) -> Iterator[dict[str, str]]:
        """The variables by which what an attempt starts can speak for it, as long as it lasts; none where nothing is served."""
        if self.path is None:
            yield {}
            return
        token = secrets.token_hex(16)
        self._contexts[token] = context
        try:
            yield {SOCKET_VARIABLE: str(self.path), TOKEN_VARIABLE: token}
        finally:
            del self._contexts[token]

    async def run(self) -> None:
        """Serve until cancelled. A folder that cannot hold a socket is told, and commands find none then."""
        try:
            listening = bound(self._folder)
        except OSError as error:
            self._office.journal.on_trouble(SOCKET, error)
            return
        self.path = self._folder / SOCKET
        try:
            server = await asyncio.start_unix_server(self._serve, sock=listening, limit=LINE_BYTES)
            async with server:
                await server.serve_forever()
        finally:
            self.path = None
            listening.close()
            for writer in tuple(self._open):
                writer.close()
            with contextlib.suppress(OSError):
                (self._folder / SOCKET).unlink()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            if not ours(writer):
                await _say(writer, {"error": "this socket is another user's"})
            elif len(self._open) > CONNECTIONS_MOST:
                await _say(writer, {"error": f"{CONNECTIONS_MOST} are connected already"})
            else:
                await self._converse(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._open.discard(writer)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                line = await reader.readline()
            except ValueError:
                await _say(writer, {"error": f"a request is one line of at most {LINE_BYTES} bytes"})
                return
            if not line.endswith(b"\n"):
                return
            answer = await self._answered(line, reader)
            if answer is None:
                return
            await _say(writer, answer)

    async def _answered(self, line: bytes, reader: asyncio.StreamReader) -> dict[str, Any] | None:
        """The answer to a request; None where whoever asked has gone meanwhile, for whom nothing is done any more."""
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(self._carried_out(line))
            gone = group.create_task(reader.read(1))
            await asyncio.wait((asked, gone), return_when=asyncio.FIRST_COMPLETED)
            left = asked if gone.done() and not asked.done() else gone
            left.cancel()
        return None if asked.cancelled() else asked.result()

    async def _carried_out(self, line: bytes) -> dict[str, Any]:
        try:
            envelope = codec.decode(line, Envelope)
            speaks = self._contexts.get(envelope.token) if envelope.token is not None else None
            asked = ops.request_of(bytes(envelope.ask), speaks.secrets if speaks is not None else None)
            value = await ops.carry_out(self._speaker(envelope, asked), asked)
            codec.encode(value)
        except codec.CodecError as error:
            return {"error": error.said}
        except HandlerError as error:
            return {"error": str(error)}
        except Exception as error:  # noqa: BLE001 - whatever is asked must not end the house
            return {"error": f"{type(error).__name__}: {error}"}
        return {"value": value}

    def _speaker(self, envelope: Envelope, asked: ops.AnyRequest) -> Any:
        """Whose context the request is carried out in. Raises MessageRefused."""
        if envelope.token is not None:
            context = self._contexts.get(envelope.token)
            if context is None:
                raise MessageRefused("the token is unknown, or its attempt is over")
            return context
        if envelope.run is None:
            raise MessageRefused("a request comes with the token of an attempt, or, from a person, with a run")
        if type(asked) not in PERSONS_OPERATIONS:
            raise MessageRefused(f"a {PERSON} can send, publish, hand off, and read and set shared values")
        return Person(self._office, envelope.run)


def bound(folder: Path) -> socket.socket:
    """A listening socket in a folder, however long that folder's path is. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        (folder / SOCKET).unlink()
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with short(folder) as place:
            listening.bind(f"{place}/{SOCKET}")
        (folder / SOCKET).chmod(PRIVATE)
        listening.listen(CONNECTIONS_MOST)
        listening.setblocking(False)
    except BaseException:
        listening.close()
        raise
    return listening


@contextlib.contextmanager
def short(folder: Path) -> Iterator[str]:
    """A path to a folder that fits into a socket's address (108 bytes), for a moment."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        through = f"/proc/self/fd/{opened}"
        yield through if Path(through).exists() else str(folder)
    finally:
        os.close(opened)


def ours(writer: asyncio.StreamWriter) -> bool:
    """Whether this user is at the other end; where the system does not say, the file's mode must do."""
    asked = getattr(socket, "SO_PEERCRED", None)
    peer = writer.get_extra_info("socket")
    if asked is None or peer is None:
        return True
    _, user, _ = CREDENTIALS.unpack(peer.getsockopt(socket.SOL_SOCKET, asked, CREDENTIALS.size))
    return bool(user == os.getuid())


async def _say(writer: asyncio.StreamWriter, answer: dict[str, Any]) -> None:
    writer.write(codec.line(answer))
    await writer.drain()
