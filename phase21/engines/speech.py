"""What a command says by lines of JSON on its stdout: heard as they come, carried out in order, taken out of what it leaves.

The command engine makes one for a command whose payload says `messages`. A line that cannot be understood, or asks for what cannot be,
is told in the log and changes nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from phase21.domain.errors import AttemptOver, HandlerError
from phase21.engines import operations as ops
from phase21.engines.context import Context
from phase21.engines.processes import Tail
from phase21.engines.redaction import Secrets
from phase21.store.codec import CodecError

LINE_BYTES = 131_072
"""A longer line is output like any other."""

LINES_WAITING = 1000
"""How many lines may wait to be carried out before the command's output is read no further."""


class Speech(Tail):
    """The tail of a command's stdout, without the lines that speak; `carry_out` does what those ask."""

    def __init__(self, keep_bytes: int, context: Context, secrets: Secrets) -> None:
        super().__init__(keep_bytes)
        self._context = context
        self._secrets = secrets
        self._unfinished = b""
        self._lines: deque[str] = deque()
        self._news = asyncio.Event()
        self._quiet = asyncio.Event()
        self._quiet.set()
        self.on_quiet: Callable[[], None] = lambda: None

    @property
    def busy(self) -> bool:
        """Whether something that was said is not carried out yet."""
        return not self._quiet.is_set()

    @property
    def full(self) -> bool:
        """Whether so much waits that no more should be read."""
        return len(self._lines) >= LINES_WAITING

    def feed(self, data: bytes) -> None:
        """Take more in: lines that speak wait to be carried out, the rest is kept as output."""
        *lines, self._unfinished = (self._unfinished + data).split(b"\n")
        for line in lines:
            if b'"phase21"' in line and len(line) <= LINE_BYTES and line.lstrip().startswith(b"{"):
                self._lines.append(line.decode("utf-8", "replace"))
            else:
                super().feed(line + b"\n")
        if len(self._unfinished) > LINE_BYTES:
            super().feed(self._unfinished)
            self._unfinished = b""
        if self._lines:
            self._quiet.clear()
            self._news.set()

    def end(self) -> None:
        """No more comes: a last line without its newline counts too."""
        if self._unfinished:
            rest, self._unfinished = self._unfinished, b""
            if b'"phase21"' in rest:
                self.feed(rest + b"\n")
            else:
                super().feed(rest)

    async def quiet(self) -> None:
        """Wait until all that was said is carried out."""
        await self._quiet.wait()

    async def carry_out(self) -> None:
        """Do what lines ask, one after the other, until cancelled."""
        while True:
            await self._news.wait()
            while self._lines:
                await self._heard(self._secrets.hide(self._lines.popleft()))
            self._news.clear()
            self._quiet.set()
            self.on_quiet()

    async def _heard(self, line: str) -> None:
        try:
            asked = ops.on_line(line, self._secrets)
            if asked is None:
                super().feed(line.encode() + b"\n")
            elif type(asked) not in ops.ONE_WAY:
                self._refuse("it asks for an answer, which only the verb `phase21 message` gives")
            else:
                await ops.carry_out(self._context, asked)
        except AttemptOver:
            return
        except (HandlerError, CodecError, ValueError) as error:
            self._refuse(str(error))

    def _refuse(self, why: str) -> None:
        self._context.log(f"a line of stdout was not understood: {why}", "WARNING")
