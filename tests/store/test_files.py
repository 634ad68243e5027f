"""Private files, replaced whole, and one holder to a state folder."""

from __future__ import annotations

import fcntl
import os

import pytest

from phase21.domain.errors import StateHeld
from phase21.store import files


def mode(path):
    return path.stat().st_mode & 0o777


def test_what_is_made_is_its_owners_alone(tmp_path):
    """Folders are 0700 with the parents that were missing, files 0600, whatever the umask."""
    before = os.umask(0)
    try:
        files.replace(tmp_path / "a/b/file", b"x")
    finally:
        os.umask(before)
    assert [mode(tmp_path / name) for name in ("a", "a/b", "a/b/file")] == [0o700, 0o700, 0o600]


def test_a_file_is_replaced_whole(tmp_path):
    """Who has the old one open keeps reading it; who opens anew reads the new; nothing is left beside."""
    path = tmp_path / "file"
    files.replace(path, b"old" * 1000)
    with path.open("rb") as old:
        files.replace(path, b"new")
        assert old.read() == b"old" * 1000
    assert path.read_bytes() == b"new"
    assert [found.name for found in tmp_path.iterdir()] == ["file"]


def test_a_failed_replacement_leaves_the_old(tmp_path, monkeypatch):
    """Where the disk does not take all of it, the old file stands."""
    path = tmp_path / "file"
    files.replace(path, b"old")

    def full(descriptor, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_all", full)
    with pytest.raises(OSError, match="No space"):
        files.replace(path, b"new")
    assert path.read_bytes() == b"old"


def test_every_byte_is_written(tmp_path, monkeypatch):
    """A disk that takes a few bytes at a time gets them all."""
    plain = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: plain(descriptor, bytes(data[:3])))
    files.replace(tmp_path / "file", b"0123456789")
    assert (tmp_path / "file").read_bytes() == b"0123456789"


def test_one_holds_a_folder_at_a_time(tmp_path):
    """A second holder is refused and told who the first is; after the first has left, the folder is free."""
    assert files.holder_of(tmp_path) is None
    with files.held(tmp_path, {"pid": 4711}):
        assert files.holder_of(tmp_path) == {"pid": 4711}
        with pytest.raises(StateHeld, match="4711"), files.held(tmp_path, {"pid": 1}):
            pass
        assert files.holder_of(tmp_path) == {"pid": 4711}
    assert files.holder_of(tmp_path) is None
    with files.held(tmp_path, {"pid": 2}):
        assert files.holder_of(tmp_path) == {"pid": 2}


def test_who_only_looks_keeps_nobody_out(tmp_path, monkeypatch):
    """One who asks for the holder shares the lock for a moment: a daemon that starts in that moment is not refused."""
    with files.held(tmp_path, {"pid": 1}):
        pass
    looker = os.open(tmp_path / "phase21.lock", os.O_RDONLY)
    real, tried = fcntl.flock, []
    real(looker, fcntl.LOCK_SH)

    def flock(descriptor, how):
        tried.append(how)
        if len(tried) == 3:
            real(looker, fcntl.LOCK_UN)
        real(descriptor, how)

    monkeypatch.setattr(files.fcntl, "flock", flock)
    with files.held(tmp_path, {"pid": 2}):
        assert files.holder_of(tmp_path) == {"pid": 2}
    os.close(looker)
