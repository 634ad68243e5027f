"""A child process with a group of its own: started, read, fed, ended whole, reaped; and the strays of a killed daemon.

Used by the command engine alone. The loop only watches file descriptors here (no thread for each child, as asyncio's
own subprocesses have), and the leader is reaped after its group was signalled, so that no signal meets a reused id.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

GRACE_S = 2.0
"""From SIGTERM to SIGKILL."""

LINGER_S = 0.25
"""How long the pipes are read on after the leader's exit, where a grandchild holds them open."""

REAP_S = 1.0
"""How long the end of killed processes is waited for; later they are reaped as they end."""

STORE_VARIABLE = "PHASE21_STORE"
CHUNK_BYTES = 65_536
SWEEPS = 8


class Tail:
    """The last `keep_bytes` of what was fed, in bounded memory. `total_bytes` counts all."""

    def __init__(self, keep_bytes: int) -> None:
        self._keep_bytes = keep_bytes
        self._kept = bytearray()
        self.total_bytes = 0

    @property
    def full(self) -> bool:
        """Whether no more should be read for now; a tail always takes more."""
        return False

    def feed(self, data: bytes) -> None:
        """Take more in."""
        self.total_bytes += len(data)
        self._kept += data
        if len(self._kept) > self._keep_bytes + 2 * CHUNK_BYTES:
            del self._kept[: -self._keep_bytes]

    def last(self) -> bytes:
        """What is kept."""
        return bytes(self._kept[-self._keep_bytes :])


class ProcessGroup:
    """A running command. Made inside a running loop; OSError or ValueError where it cannot start.

    `ended` waits for it, `end` ends it, and `close` must follow either. `stdout` and `stderr` hold what it wrote last.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        cwd: str | None,
        env: Mapping[str, str],
        stdin: bytes | None,
        keep_bytes: int,
        stdout: Tail | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._exited: asyncio.Future[None] = self._loop.create_future()
        self._drained: asyncio.Future[None] = self._loop.create_future()
        self._left = False
        self._unsent = memoryview(stdin or b"")
        self.stdout, self.stderr = stdout or Tail(keep_bytes), Tail(keep_bytes)
        self._held = False
        self._child = subprocess.Popen(  # noqa: S603 - running what the owner's queue asks for is the purpose
            argv,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        self._reading = {stream for stream in (self._child.stdout, self._child.stderr) if stream is not None}
        try:
            self._watch()
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """The leader's process id, which is the group's id as well."""
        return self._child.pid

    @property
    def exit_status(self) -> int:
        """The leader's exit status, negative for the signal that killed it; after `close`."""
        return self._child.returncode

    @property
    def drained(self) -> bool:
        """Whether all that was written was read to its end."""
        return self._drained.done()

    async def ended(self) -> None:
        """Wait for the leader's exit, and a moment for what others of the group still write."""
        await asyncio.wait((self._exited,))
        if not self._drained.done():
            await asyncio.wait((self._drained,), timeout=LINGER_S)

    async def end(self) -> None:
        """End the whole group: SIGTERM, and SIGKILL after the grace, or at once where the caller is cancelled again.

        The group counts as gone when its leader is and nobody holds the pipes; what is left then is killed as well.
        """
        self._signal(signal.SIGTERM)
        with suppress(asyncio.CancelledError):
            await asyncio.wait((self._exited, self._drained), timeout=GRACE_S)
        self._signal(signal.SIGKILL)
        with suppress(asyncio.CancelledError):
            await asyncio.wait((self._exited,), timeout=REAP_S)
            await asyncio.wait((self._drained,), timeout=LINGER_S)

    def close(self) -> None:
        """Let go of the pipes, and reap the leader: now, or, where it still runs, killed, when it has ended."""
        for stream in tuple(self._reading):
            self._stop_reading(stream)
        self._stop_writing()
        if self._exited.done():
            self._child.wait()
        else:
            self._signal(signal.SIGKILL)
            self._left = True

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.pid, number)

    # what the loop calls

    def _watch(self) -> None:
        self._watch_exit()
        for stream, tail in ((self._child.stdout, self.stdout), (self._child.stderr, self.stderr)):
            if stream is None:
                continue
            os.set_blocking(stream.fileno(), False)
            self._loop.add_reader(stream.fileno(), self._read, stream, tail)
        if self._child.stdin is not None:
            os.set_blocking(self._child.stdin.fileno(), False)
            self._loop.add_writer(self._child.stdin.fileno(), self._write, self._child.stdin)

    def _watch_exit(self) -> None:
        try:
            handle = os.pidfd_open(self._child.pid)
        except (AttributeError, OSError):  # not Linux, or an old one
            threading.Thread(target=self._wait_in_thread, name=f"wait-{self._child.pid}", daemon=True).start()
        else:
            self._loop.add_reader(handle, self._leader_exited, handle)

    def _wait_in_thread(self) -> None:
        self._child.wait()
        with suppress(RuntimeError):  # the loop is closed: nobody asks any more
            self._loop.call_soon_threadsafe(self._leader_exited, None)

    def _leader_exited(self, handle: int | None) -> None:
        if handle is not None:
            self._loop.remove_reader(handle)
            os.close(handle)
        self._exited.set_result(None)
        if self._left:
            self._child.wait()

    def _read(self, stream: IO[bytes], tail: Tail) -> None:
        try:
            data = os.read(stream.fileno(), CHUNK_BYTES)
        except BlockingIOError:
            return
        if data:
            tail.feed(data)
            if tail.full:
                self._held = True
                self._loop.remove_reader(stream.fileno())
            return
        self._stop_reading(stream)
        if not self._reading:
            self._drained.set_result(None)

    def read_on(self) -> None:
        """Go on reading a stdout whose tail was full."""
        stream = self._child.stdout
        if self._held and stream is not None and stream in self._reading:
            self._held = False
            self._loop.add_reader(stream.fileno(), self._read, stream, self.stdout)

    def _stop_reading(self, stream: IO[bytes]) -> None:
        self._reading.discard(stream)
        self._loop.remove_reader(stream.fileno())
        stream.close()

    def _write(self, stream: IO[bytes]) -> None:
        try:
            sent = os.write(stream.fileno(), self._unsent[:CHUNK_BYTES])
        except BlockingIOError:
            return
        except OSError:  # it does not read its input, which is its own affair
            sent = len(self._unsent)
        self._unsent = self._unsent[sent:]
        if not self._unsent:
            self._stop_writing()

    def _stop_writing(self) -> None:
        stream = self._child.stdin
        if stream is not None and not stream.closed:
            self._loop.remove_writer(stream.fileno())
            stream.close()


def stray_processes(marker: str) -> list[int]:
    """Process ids of this user's processes that a command engine with this marker started, or that came of them.

    Linux only: elsewhere none is found. This process's own session is never among them.
    """
    wanted = f"{STORE_VARIABLE}={marker}".encode()
    own_user, own_session = os.getuid(), os.getsid(0)
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        pid = int(folder.name)
        with suppress(OSError):  # it ended meanwhile, or does not let itself be looked at
            ours = folder.stat().st_uid == own_user and os.getsid(pid) != own_session
            if ours and wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.append(pid)
    return sorted(found)


def end_strays(marker: str) -> int:
    """Kill the process groups of all strays and wait for their end (a second each at most); returns how many were found.

    For a daemon's start, before anything runs: what a killed daemon left running must not meet its own repetition.
    """
    ended: set[int] = set()
    for _ in range(SWEEPS):  # what leaves its group while the group is killed is found by the next sweep
        strays = stray_processes(marker) if marker else []
        if not strays:
            break
        handles = [handle for pid in strays if (handle := _handle(pid)) is not None]
        for pid in strays:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(os.getpgid(pid), signal.SIGKILL)
                ended.add(pid)
        _await_end(handles)
    return len(ended)


def _handle(pid: int) -> int | None:
    with suppress(OSError):
        return os.pidfd_open(pid)
    return None


def _await_end(handles: list[int]) -> None:
    for handle in handles:
        waiting = select.poll()
        waiting.register(handle, select.POLLIN)
        waiting.poll(REAP_S * 1000)
        os.close(handle)
