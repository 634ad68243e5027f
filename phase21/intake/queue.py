"""The queue file: append at one end, follow at the other.

`submit` appends; the receiver reads. Any tool may append, rename or truncate the file at any time, so the reader knows every file by
its inode and a print of what it has read of it, never by its name or size alone. It never changes a file.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path

import msgspec

from phase21.domain.errors import PermissionsError, StorageUnavailable
from phase21.domain.events import QueueMark

QUEUE_FILE = 0o600
RAW_KEPT_BYTES = 4096
HEAD_BYTES = 1024
TAIL_BYTES = 256
SIBLINGS_KEPT = 16
_COMPRESSED = re.compile(r"\.(gz|bz2|xz|zst|lz4|lzo|zip|Z|tmp|lock|swp|swo|swx)$|~$")
_NUMBERED = re.compile(r"\.(\d+)$")


class Line(msgspec.Struct, frozen=True):
    """A line without its newline, where it begins (`number` from 1), and the mark behind it.

    `error` says why it cannot be taken as it stands: then `raw` holds its first 4 KiB.
    """

    raw: bytes
    offset: int
    number: int
    mark: QueueMark
    error: str | None = None


# -- appending -----------------------------------------------------------------------------------------------------------


def append(path: str, lines: Sequence[bytes]) -> None:
    """Append lines, all or none, whole and durable. Raises StorageUnavailable; then the file is as it was."""
    data = b"".join([line if line.endswith(b"\n") else line + b"\n" for line in lines])
    if data.count(b"\n") != len(lines):
        raise ValueError("a submission is one line")
    try:
        with _locked(path) as descriptor:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                data = b"\n" + data
            _write_whole(descriptor, data, size)
    except OSError as error:
        raise StorageUnavailable(f"{path}: nothing was submitted: {error.strerror or error}") from None


@contextlib.contextmanager
def _locked(path: str) -> Iterator[int]:
    """The file that bears the name once the lock is held: it may be rotated while one waits for it."""
    while True:
        made = not Path(path).exists()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK, QUEUE_FILE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _bears(path, descriptor):
                yield descriptor
                if made:
                    _sync_folder(path)
                return
        finally:
            os.close(descriptor)


def _bears(path: str, descriptor: int) -> bool:
    try:
        return os.path.samestat(Path(path).stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _write_whole(descriptor: int, data: bytes, size: int) -> None:
    written = 0
    try:
        written = os.write(descriptor, data)
        if written < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(descriptor)
    except OSError:
        # Another tool may have appended behind us without the lock: what is its own must stay.
        if written and os.fstat(descriptor).st_size == size + written:
            os.ftruncate(descriptor, size)
        raise


def _sync_folder(path: str) -> None:
    descriptor = os.open(Path(path).resolve().parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# -- permissions ---------------------------------------------------------------------------------------------------------


def check_permissions(path: str, allow_shared: bool) -> None:  # noqa: FBT001 - the setting of that name
    """Refuse a queue file that others may write or that another user owns; one that is missing is fine."""
    with contextlib.suppress(FileNotFoundError):
        os.close(_opened(path, allow_shared=allow_shared))


def _opened(path: str, *, allow_shared: bool) -> int:
    """Open for reading what may be read. Raises PermissionsError, and FileNotFoundError where there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise PermissionsError(f"queue file {path}: cannot be read: {error.strerror}") from None
    fault = _fault(os.fstat(descriptor), allow_shared=allow_shared)
    if fault is not None:
        os.close(descriptor)
        raise PermissionsError(f"queue file {path}: {fault}")
    return descriptor


def _fault(found: os.stat_result, *, allow_shared: bool) -> str | None:
    if not stat.S_ISREG(found.st_mode):
        return "is not a regular file"
    if allow_shared:
        return None
    if found.st_uid != os.geteuid():
        return f"belongs to another user (uid {found.st_uid}); chown it to the daemon's user, or set queue.allow_shared"
    if found.st_mode & 0o022:
        return f"group or others may write it (mode {stat.S_IMODE(found.st_mode):04o}); chmod go-w it, or set queue.allow_shared"
    return None


# -- reading -------------------------------------------------------------------------------------------------------------


class _Found(msgspec.Struct):
    """A file as it lies in the folder now: `mark` is how far it has been read, None where nothing is known of it."""

    path: str
    status: os.stat_result
    current: bool
    mark: QueueMark | None = None

    @property
    def identity(self) -> tuple[int, int]:
        return self.status.st_dev, self.status.st_ino

    @property
    def size(self) -> int:
        return self.status.st_size

    @property
    def unread(self) -> int:
        return max(0, self.size - self.mark.offset) if self.mark else 0


class QueueReader:
    """Follows the queue file through appends, rotations and truncations, from a mark on: each whole line once.

    `mark` says how far it has come. Where several files hold lines not yet read, the oldest comes first.
    """

    def __init__(self, path: str, mark: QueueMark | None, *, max_line_bytes: int, allow_shared: bool) -> None:
        self.path = path
        self.mark = mark
        self.max_line_bytes = max_line_bytes
        self.allow_shared = allow_shared
        self._sought: tuple[tuple[int, int], int, int, str] = ((0, 0), 0, 0, "")

    def read(self, limit_bytes: int = 1 << 20) -> list[Line]:
        """The next whole lines, about `limit_bytes` of them and at least one; [] where there is none.

        Raises PermissionsError for a file that must not be read, and OSError where the folder cannot be.
        """
        while True:
            before = self.mark
            files = _surveyed(self.path, before, allow_shared=self.allow_shared)
            for found in files:
                lines = self._read_file(found, files, limit_bytes) if found.unread else []
                if lines:
                    return lines
                if self.mark is not before:
                    break  # only blank lines so far: look again from behind them
            if self.mark is before:
                self._note(files)
                return []

    def _note(self, files: Sequence[_Found]) -> None:
        """Keep in mind which files lie there, so that a copy made of one is not taken for news after the next rotation."""
        current = next((found for found in files if found.current), None)
        if current is None or current.mark is None:
            return
        noted = msgspec.structs.replace(current.mark, others=_marks_beside(current, files))
        if noted != self.mark:
            self.mark = noted

    def _read_file(self, found: _Found, files: Sequence[_Found], limit_bytes: int) -> list[Line]:
        try:
            descriptor = _opened(found.path, allow_shared=self.allow_shared)
        except FileNotFoundError:
            return []
        try:
            if (now := os.fstat(descriptor)) and (now.st_dev, now.st_ino) != found.identity:
                return []  # renamed since the survey: the next one finds it
            return self._split(descriptor, found, _marks_beside(found, files), limit_bytes)
        finally:
            os.close(descriptor)

    def _split(self, descriptor: int, found: _Found, others: tuple[QueueMark, ...], limit_bytes: int) -> list[Line]:
        mark = found.mark
        assert mark is not None  # noqa: S101 - the caller's condition
        block = os.pread(descriptor, limit_bytes, mark.offset)
        end = block.rfind(b"\n") + 1
        if not end:
            return self._read_long(descriptor, found, others)
        printer = _Printer(descriptor, mark.offset, block)
        lines: list[Line] = []
        at, number = 0, mark.line
        for raw in block[:end].split(b"\n")[:-1]:
            start, at, number = at, at + len(raw) + 1, number + 1
            if raw and not raw.isspace():
                behind = QueueMark(mark.device, mark.inode, mark.offset + at, number, printer.at(at), others)
                lines.append(self._line(raw, mark.offset + start, behind))
        self.mark = QueueMark(mark.device, mark.inode, mark.offset + at, number, printer.at(at), others)
        return lines

    def _line(self, raw: bytes, offset: int, behind: QueueMark) -> Line:
        if len(raw) > self.max_line_bytes:
            return Line(raw[:RAW_KEPT_BYTES], offset, behind.line, behind, self._too_long(len(raw)))
        return Line(raw, offset, behind.line, behind)

    def _too_long(self, length: int) -> str:
        return f"the line has {length} bytes; allowed: {self.max_line_bytes} (queue.max_line_bytes)"

    def _read_long(self, descriptor: int, found: _Found, others: tuple[QueueMark, ...]) -> list[Line]:
        """One line that is longer than a block, or has no end yet. What is too long is never held in memory."""
        mark = found.mark
        assert mark is not None  # noqa: S101 - the caller's condition
        newline = self._seek_newline(descriptor, found.identity, mark.offset)
        torn = newline is None
        if newline is None:
            if found.current:
                return []
            newline = os.fstat(descriptor).st_size
        length, after = newline - mark.offset, newline + (not torn)
        kept = length if length <= self.max_line_bytes and not torn else min(length, RAW_KEPT_BYTES)
        raw = _read_exactly(descriptor, kept, mark.offset)
        self.mark = QueueMark(mark.device, mark.inode, after, mark.line + 1, _print(descriptor, after), others)
        error = "the file was rotated before the line ended" if torn else None
        if length > self.max_line_bytes:
            error = self._too_long(length)
        return [Line(raw, mark.offset, mark.line + 1, self.mark, error)] if raw.strip() else []

    def _seek_newline(self, descriptor: int, identity: tuple[int, int], offset: int) -> int | None:
        """Where the line's newline stands. A torn line is searched on from where the last search ended."""
        *line, at, print_ = self._sought
        if line != [identity, offset] or _print(descriptor, at) != print_:
            at = offset
        while block := os.pread(descriptor, 1 << 20, at):
            newline = block.find(b"\n")
            if newline >= 0:
                return at + newline
            at += len(block)
        self._sought = (identity, offset, at, _print(descriptor, at))
        return None


def pending_bytes(path: str, mark: QueueMark | None) -> int:
    """How many bytes behind the mark lie unread in the queue file and what it was renamed to."""
    files = _surveyed(path, mark, allow_shared=True)
    return sum(found.unread for found in files)


# -- which files there are -----------------------------------------------------------------------------------------------


def _surveyed(path: str, mark: QueueMark | None, *, allow_shared: bool) -> list[_Found]:
    """The files that hold or held the queue, oldest first, each with how far it has been read (its `mark`).

    A neighbour that was never read counts only where the queue file itself is not the one that was read last: otherwise it
    is somebody's copy, and is taken as read.
    """
    known = {(one.device, one.inode): one for one in ((*mark.others, mark) if mark else ())}
    files = _listed(path, known, allow_shared=allow_shared)
    for found in files:
        held = known.get(found.identity)
        found.mark = held if held is not None and _holds(found, held) else None
    current = next((found for found in files if found.current), None)
    moved = current is None or current.mark is None or _blank(current.path, current.mark.offset)
    lost = [one for one in known.values() if one.offset and not any(found.mark is one for found in files)]
    forgotten_ns = _forgotten_before(files) if len(known) > SIBLINGS_KEPT else 0
    for found in files:
        if found.mark is None:
            found.mark = _beginning(found, lost, news=found.current or (moved and found.status.st_mtime_ns >= forgotten_ns))
    return files


def _blank(path: str, offset: int) -> bool:
    """Whether nothing but blank lines was read: they are alike in every file, so that a file made anew is not told by them."""
    if not 0 < offset <= HEAD_BYTES:
        return not offset
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - a plain call, as for the prints
            return not file.read(offset).strip()
    except OSError:
        return False


def _forgotten_before(files: Sequence[_Found]) -> int:
    """From which change on files are still kept in mind: what is older was read, and forgotten."""
    return min((found.status.st_mtime_ns for found in files if found.mark and not found.unread), default=0)


def _marks_beside(found: _Found, files: Sequence[_Found]) -> tuple[QueueMark, ...]:
    """How far the other files have been read: of those read to their end only the newest are kept in mind."""
    beside = [other for other in files if other is not found and other.mark]
    kept = [other for n, other in enumerate(beside) if other.unread or n >= len(beside) - SIBLINGS_KEPT]
    return tuple(_alone(other.mark) for other in kept if other.mark)


def _alone(mark: QueueMark) -> QueueMark:
    return msgspec.structs.replace(mark, others=()) if mark.others else mark


def _beginning(found: _Found, lost: Sequence[QueueMark], *, news: bool) -> QueueMark:
    """Where to begin in a file that is not known: behind what was read of the file that it is a copy of, else at its start."""
    device, inode = found.identity
    if not news:
        return QueueMark(device, inode, found.size, 0, _print_of(found.path, found.size))
    for one in sorted(lost, key=lambda one: -one.offset):
        rewritten = (one.device, one.inode) == found.identity
        if not rewritten and _holds(found, one):
            return QueueMark(device, inode, one.offset, one.line, one.print_)
    return QueueMark(device, inode, 0, 0)


def _holds(found: _Found, mark: QueueMark) -> bool:
    """Whether the file still begins with what was read up to the mark."""
    return found.size >= mark.offset and (not mark.offset or _print_of(found.path, mark.offset) == mark.print_)


def _listed(path: str, known: dict[tuple[int, int], QueueMark], *, allow_shared: bool) -> list[_Found]:
    """The folder at one moment: looked at until two looks agree, since files may be renamed meanwhile."""
    seen = _look(path, known)
    for _ in range(8):
        again = _look(path, known)
        if [(one.path, one.identity) for one in again] == [(one.path, one.identity) for one in seen]:
            break
        seen = again
    else:
        return []
    for one in again:
        fault = _fault(one.status, allow_shared=allow_shared)
        if one.current and fault is not None:
            raise PermissionsError(f"queue file {one.path}: {fault}")
    mine = [one for one in again if one.identity in known or not _fault(one.status, allow_shared=allow_shared)]
    return sorted(mine, key=lambda one: (one.current, one.status.st_mtime_ns, -_number(one.path), one.path))


def _number(path: str) -> int:
    match = _NUMBERED.search(path)
    return int(match[1]) if match else 0


def _look(path: str, known: dict[tuple[int, int], QueueMark]) -> list[_Found]:
    real = os.path.realpath(path)
    folder, name = os.path.split(real)
    found: list[_Found] = []
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name == name or _maybe_rotated(entry, name, known):
                with contextlib.suppress(FileNotFoundError):
                    found.append(_Found(entry.path, entry.stat(follow_symlinks=False), entry.name == name))
    return sorted(found, key=lambda one: one.path)


def _maybe_rotated(entry: os.DirEntry[str], name: str, known: dict[tuple[int, int], QueueMark]) -> bool:
    """Whether a neighbour may be the queue file of before: by its name, or because it was read under another."""
    if any(inode == entry.inode() for _, inode in known):
        return entry.is_file(follow_symlinks=False)
    named = entry.name.startswith(name) and entry.name[len(name)] in ".-_" and not _COMPRESSED.search(entry.name)
    return named and entry.is_file(follow_symlinks=False)


# -- prints --------------------------------------------------------------------------------------------------------------


def _print(descriptor: int, offset: int) -> str:
    """A print of a file's bytes before `offset`: of the first 1024 and the last 256 of them."""
    head = _read_exactly(descriptor, min(offset, HEAD_BYTES), 0)
    start = max(0, offset - TAIL_BYTES)
    return _digest(head, _read_exactly(descriptor, offset - start, start))


def _print_of(path: str, offset: int) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return ""
    try:
        return _print(descriptor, offset)
    finally:
        os.close(descriptor)


def _digest(head: bytes, tail: bytes) -> str:
    return blake2b(head + tail, digest_size=8).hexdigest()


class _Printer:
    """Prints at places within a block that was read from `offset` on, without reading again."""

    def __init__(self, descriptor: int, offset: int, block: bytes) -> None:
        self._head = _read_exactly(descriptor, min(offset, HEAD_BYTES), 0)
        before = min(offset, max(TAIL_BYTES, HEAD_BYTES))
        self._text = _read_exactly(descriptor, before, offset - before) + block
        self._before = before
        self._offset = offset

    def at(self, place: int) -> str:
        """The print of the file up to `place` bytes into the block."""
        end = self._before + place
        head = self._head
        if len(head) < HEAD_BYTES:
            head = self._text[: min(HEAD_BYTES, end)]
        return _digest(head, self._text[max(0, end - TAIL_BYTES) : end])


def _read_exactly(descriptor: int, length: int, offset: int) -> bytes:
    parts: list[bytes] = []
    while length > 0 and (part := os.pread(descriptor, length, offset)):
        parts.append(part)
        length, offset = length - len(part), offset + len(part)
    return b"".join(parts)
