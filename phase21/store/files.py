"""Files as the house wants them: private, replaced whole, and one holder to a state folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from phase21.domain.errors import StateHeld
from phase21.store import codec

PRIVATE_FOLDER = 0o700
PRIVATE_FILE = 0o600
LOOKS_OUTLASTED = 10_000
"""How often the lock may be found shared by `holder_of` before it counts as held."""


def make_private(folder: Path) -> Path:
    """The folder, made with its parents where missing, the owner's alone."""
    if not folder.is_dir():
        missing = [folder, *[parent for parent in folder.parents if not parent.exists()]]
        for part in reversed(missing):
            with contextlib.suppress(FileExistsError):
                part.mkdir(mode=PRIVATE_FOLDER)
    return folder


def close_to_others(folder: Path) -> None:
    """Make a folder that stands already the owner's alone. One that many share by its nature (sticky) is left as it is."""
    found = folder.stat()
    if found.st_mode & 0o077 and not found.st_mode & stat.S_ISVTX and found.st_uid == os.geteuid():
        folder.chmod(PRIVATE_FOLDER)


def replace(path: Path, data: bytes | bytearray) -> None:
    """Put `data` where `path` is, whole: a reader sees the old or the new, never a part."""
    make_private(path.parent)
    beside = path.with_name(f".{path.name}.new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE_FILE)
    try:
        write_all(descriptor, data)
    finally:
        os.close(descriptor)
    os.replace(beside, path)


def replace_folder(folder: Path, contents: Mapping[str, bytes | bytearray]) -> None:
    """Put a folder with these files (by path within it) where `folder` is: it appears whole, or stays as it was."""
    make_private(folder.parent)
    beside = str(folder.with_name(f".{folder.name}.new"))
    shutil.rmtree(beside, ignore_errors=True)
    os.mkdir(beside, PRIVATE_FOLDER)
    made = {""}
    for name, data in contents.items():
        inner = name.rpartition("/")[0]
        if inner not in made:
            os.mkdir(f"{beside}/{inner}", PRIVATE_FOLDER)
            made.add(inner)
        descriptor = os.open(f"{beside}/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE)
        try:
            write_all(descriptor, data)
        finally:
            os.close(descriptor)
    if folder.exists():
        shutil.rmtree(folder)
    os.rename(beside, folder)


def write_all(descriptor: int, data: bytes | bytearray) -> None:
    """Write every byte; OSError where the disk takes only some."""
    taken = os.write(descriptor, data)
    if taken == len(data):
        return
    view = memoryview(data)[taken:]
    while view:
        view = view[os.write(descriptor, view) :]


@contextlib.contextmanager
def held(folder: Path, facts: dict[str, Any]) -> Iterator[None]:
    """Hold the state folder alone. Raises StateHeld where another process does."""
    close_to_others(make_private(folder))
    path = folder / "phase21.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, PRIVATE_FILE)
    try:
        if not _locked_alone(descriptor):
            holder = holder_of(folder) or {}
            message = f"state folder {folder}: held by another phase21 process (pid {holder.get('pid', 'unknown')}); stop it first"
            raise StateHeld(message)
        with contextlib.suppress(OSError):  # on a full disk it is held all the same, by a holder without a name
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, codec.encode(facts), 0)
        yield
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _locked_alone(descriptor: int) -> bool:
    """Lock for oneself; False where a holder does. Those who only look share the lock for a moment, and are waited out."""
    for _ in range(LOOKS_OUTLASTED):
        if _locked(descriptor, fcntl.LOCK_EX):
            return True
        if not _locked(descriptor, fcntl.LOCK_SH):
            return False
    return False


def _locked(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def holder_of(folder: Path) -> dict[str, Any] | None:
    """What the process that holds the folder said of itself, None where nobody does."""
    try:
        descriptor = os.open(folder / "phase21.lock", os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        try:
            facts: dict[str, Any] = codec.decode(os.pread(descriptor, 4096, 0), dict[str, Any])
        except codec.CodecError:
            facts = {}
        return facts
    else:
        return None
    finally:
        os.close(descriptor)
