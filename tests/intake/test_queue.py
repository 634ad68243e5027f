"""The queue file: appended to at one end, followed at the other, whatever happens to it meanwhile."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from phase21.domain.errors import PermissionsError, StorageUnavailable
from phase21.intake import queue
from phase21.intake.queue import QueueReader, append, check_permissions, pending_bytes

LIMIT = 64 * 1024


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "queue.jsonl")


def reader_of(path, mark=None, **more):
    return QueueReader(path, mark, **{"max_line_bytes": LIMIT, "allow_shared": False, **more})


def drained(reader, limit_bytes=1 << 20):
    lines = []
    while got := reader.read(limit_bytes):
        lines += got
    return lines


def raws(reader, limit_bytes=1 << 20):
    return [line.raw for line in drained(reader, limit_bytes)]


def put(path, data: bytes):
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "wb") as stream:
        stream.write(data)


def test_what_is_appended_is_read_once(path):
    """Lines come in order, with their place; a reader from a mark goes on behind it."""
    append(path, [b"one", b"two\n"])
    assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600
    reader = reader_of(path)
    lines = drained(reader)
    assert [(line.raw, line.offset, line.number) for line in lines] == [(b"one", 0, 1), (b"two", 4, 2)]
    append(path, [b"three"])
    assert raws(reader_of(path, lines[0].mark)) == [b"two", b"three"]
    assert raws(reader_of(path, reader.mark)) == [b"three"]
    assert raws(reader) == [b"three"]
    assert pending_bytes(path, lines[0].mark) == 10
    assert pending_bytes(path, reader.mark) == 0


def test_a_submission_begins_a_new_line(path):
    """A torn last line is ended first, and stays a line of its own."""
    put(path, b'{"torn')
    append(path, [b"whole"])
    assert raws(reader_of(path)) == [b'{"torn', b"whole"]


def test_all_or_none_is_appended(path, monkeypatch):
    """Where the disk takes only a part, the file is as it was."""
    append(path, [b"first"])
    real = os.write
    monkeypatch.setattr(queue.os, "write", lambda descriptor, data: real(descriptor, data[:3]))
    with pytest.raises(StorageUnavailable, match="nothing was submitted"):
        append(path, [b"second"])
    assert Path(path).read_bytes() == b"first\n"
    with pytest.raises(ValueError, match="one line"):
        append(path, [b"a\nb"])


def test_append_follows_a_rotation_that_it_waited_through(path, monkeypatch):
    """The file is opened anew where it lost its name while the lock was awaited."""
    append(path, [b"old"])
    real, rotated = queue.fcntl.flock, []

    def rotate_first(descriptor, how):
        if not rotated:
            rotated.append(Path(path).rename(path + ".1"))
        real(descriptor, how)

    monkeypatch.setattr(queue.fcntl, "flock", rotate_first)
    append(path, [b"new"])
    assert (Path(path + ".1").read_bytes(), Path(path).read_bytes()) == (b"old\n", b"new\n")


def test_what_is_appended_is_written_once_under_the_lock_and_durable(path, monkeypatch):
    """Lock, one write, sync of the file and of a new file's folder, and only then is it acknowledged."""
    done = []

    def told(name, plain):
        def call(descriptor, *rest):
            done.append((name, "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"))
            return plain(descriptor, *rest)

        return call

    monkeypatch.setattr(queue.fcntl, "flock", told("lock", queue.fcntl.flock))
    monkeypatch.setattr(queue.os, "write", told("write", os.write))
    monkeypatch.setattr(queue.os, "fsync", told("sync", os.fsync))
    append(path, [b"x" * 300_000, b"y" * 300_000])
    assert done == [("lock", "file"), ("write", "file"), ("sync", "file"), ("sync", "folder")]
    append(path, [b"z"])
    assert done[4:] == [("lock", "file"), ("write", "file"), ("sync", "file")]


def test_a_torn_last_line_waits_for_its_newline(path):
    """Only whole lines are read; blank ones are passed over, and count as lines."""
    put(path, b"a\n\n \r\nb")
    reader = reader_of(path)
    assert raws(reader) == [b"a"]
    put(path, b"c\n")
    assert [(line.raw, line.number, line.offset) for line in drained(reader)] == [(b"bc", 4, 6)]


def test_a_long_line_is_read_whole_and_a_too_long_one_is_set_aside(path):
    """A line longer than a block is one line; over the limit only its beginning is kept."""
    put(path, b"x" * LIMIT + b"\n" + b"y" * (LIMIT + 1) + b"\n" + b"z\n")
    for block in (1 << 20, 100):
        long, over, last = drained(reader_of(path), block)
        assert (long.raw, long.error, last.raw) == (b"x" * LIMIT, None, b"z")
        assert (over.raw, over.offset, over.number) == (b"y" * 4096, LIMIT + 1, 2)
        assert str(LIMIT) in over.error


def test_a_torn_line_is_not_searched_again_from_its_beginning(path):
    """What grows without a newline costs no more than its growth."""
    put(path, b"x" * 5000)
    reader = reader_of(path)
    assert raws(reader, 1000) == []
    assert reader._sought[2] == 5000
    put(path, b"y\n")
    assert raws(reader, 1000) == [b"x" * 5000 + b"y"]


def test_a_renamed_file_is_read_to_its_end_once(path):
    """Also after several rotations while nobody read, and under numbers that shift."""
    append(path, [b"a", b"b"])
    mark = reader_of(path).read()[0].mark
    Path(path).rename(path + ".1")
    append(path, [b"c"])
    Path(path + ".1").rename(path + ".2")
    Path(path).rename(path + ".1")
    append(path, [b"d"])
    reader = reader_of(path, mark)
    assert pending_bytes(path, mark) == 6
    assert raws(reader, 1) == [b"b", b"c", b"d"]
    assert raws(reader_of(path, reader.mark)) == []
    assert raws(reader_of(path)) == [b"a", b"b", b"c", b"d"]


def test_a_file_renamed_to_anything_is_found_by_its_inode(path, tmp_path):
    """A file that was being read is known under any name; a compressed or unknown one is left alone."""
    append(path, [b"a", b"b"])
    mark = reader_of(path).read()[0].mark
    Path(path).rename(tmp_path / "yesterday")
    put(path + ".3.gz", b"zipped\n")
    put(str(tmp_path / "queue.json"), b"another\n")
    append(path, [b"c"])
    assert raws(reader_of(path, mark)) == [b"b", b"c"]


def test_a_renamed_file_that_still_grows_is_still_read(path):
    """Whoever had it open may write on."""
    append(path, [b"a"])
    reader = reader_of(path)
    assert raws(reader) == [b"a"]
    Path(path).rename(path + ".1")
    append(path, [b"b"])
    assert raws(reader) == [b"b"]
    put(path + ".1", b"late\n")
    assert raws(reader_of(path, reader.mark)) == [b"late"]


def test_a_torn_line_of_a_renamed_file_is_set_aside(path):
    """Its newline will not come."""
    put(path, b"a\nto")
    Path(path).rename(path + ".1")
    append(path, [b"b"])
    lines = drained(reader_of(path))
    assert [(line.raw, line.error is None) for line in lines] == [(b"a", True), (b"to", False), (b"b", True)]


@pytest.mark.parametrize("length", [10, 300, 3000])
def test_a_refilled_file_is_recognised_by_more_than_its_size(path, length):
    """Same size, same end: what was read of it differs, so it is read anew."""
    append(path, [b"1" + b"x" * length])
    reader = reader_of(path)
    drained(reader)
    os.truncate(path, 0)
    append(path, [b"2" + b"x" * length, b"more"])
    assert [raw[:1] for raw in raws(reader)] == [b"2", b"m"]


def test_a_file_cut_short_is_read_from_its_beginning(path):
    """A size below the mark says that it was truncated."""
    append(path, [b"one", b"two"])
    reader = reader_of(path)
    drained(reader)
    os.truncate(path, 0)
    assert raws(reader) == []
    append(path, [b"x"])
    assert [(line.raw, line.number) for line in drained(reader)] == [(b"x", 1)]


def test_copying_and_truncating_loses_and_repeats_nothing(path):
    """What was copied away unread is read from the copy, what was read is not."""
    append(path, [b"a", b"b"])
    mark = reader_of(path).read(1)[0].mark
    shutil.copy(path, path + ".1")
    os.truncate(path, 0)
    append(path, [b"c"])
    assert raws(reader_of(path, mark)) == [b"b", b"c"]


def test_a_copy_beside_the_file_is_nobodys_news(path):
    """As long as the file itself is the one that was read, its neighbours are copies, also after it is renamed."""
    append(path, [b"a"])
    reader = reader_of(path)
    drained(reader)
    shutil.copy(path, path + ".bak")
    append(path, [b"b"])
    assert raws(reader) == [b"b"]
    Path(path).rename(path + ".1")
    append(path, [b"c"])
    assert raws(reader_of(path, reader.mark)) == [b"c"]


def test_many_old_files_do_not_fill_the_mark(path):
    """Only the newest of those read to their end are kept in mind, and the older ones are not read again."""
    reader = reader_of(path)
    for n in range(40):
        append(path, [b"%d" % n])
        os.utime(path, ns=(n * 10**9, n * 10**9))
        assert raws(reader) == [b"%d" % n]
        Path(path).rename(f"{path}.{n:03}")
    append(path, [b"last"])
    assert raws(reader_of(path, reader.mark)) == [b"last"]
    assert len(reader.mark.others) <= queue.SIBLINGS_KEPT


def test_nothing_there_is_nothing_to_read(path, tmp_path):
    """A missing file, or a missing folder, holds no lines."""
    assert reader_of(path).read() == []
    assert reader_of(str(tmp_path / "no" / "queue.jsonl")).read() == []
    assert pending_bytes(path, None) == 0


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_is_refused(path, mode):
    """As ssh does with its keys, unless it is allowed; being readable is no fault."""
    append(path, [b"a"])
    Path(path).chmod(mode)
    for look in (lambda: check_permissions(path, False), reader_of(path).read):
        with pytest.raises(PermissionsError, match="go-w"):
            look()
    check_permissions(path, True)
    assert raws(reader_of(path, allow_shared=True)) == [b"a"]
    Path(path).chmod(0o644)
    assert raws(reader_of(path)) == [b"a"]


def test_a_file_of_another_user_is_refused(path, monkeypatch):
    """Only its owner may say what runs."""
    append(path, [b"a"])
    monkeypatch.setattr(queue.os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(PermissionsError, match="another user"):
        check_permissions(path, False)


def test_a_file_of_another_user_is_read_where_that_is_allowed(path, monkeypatch):
    """`queue.allow_shared` lets another user's file be."""
    append(path, [b"a"])
    monkeypatch.setattr(queue.os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(PermissionsError, match="another user"):
        reader_of(path).read()
    assert raws(reader_of(path, allow_shared=True)) == [b"a"]


def test_what_is_no_file_is_refused(path):
    """A pipe or a folder is not waited on."""
    os.mkfifo(path, 0o600)
    with pytest.raises(PermissionsError, match="regular"):
        reader_of(path).read()
    with pytest.raises(PermissionsError, match="regular"):
        check_permissions(path, False)


def test_several_write_at_once_while_the_file_is_rotated(path):
    """Whole lines of 128 KiB from any tool, and longer ones by `append`, come whole and once, though the file is renamed meanwhile."""

    def any_tool(name):
        for n in range(20):
            put(path, b"%d-%d" % (name, n) + b"x" * (128 * 1024 - 8) + b"\n")

    def submit(name):
        for n in range(10):
            append(path, [b"%d-%d-%d" % (name, n, part) + b"y" * 200_000 for part in range(2)])

    reader, got = reader_of(path, max_line_bytes=1 << 20), []
    with ThreadPoolExecutor(6) as pool:
        at_work = [pool.submit(any_tool if name < 3 else submit, name) for name in range(6)]
        for turn in range(1000):
            got += drained(reader)
            if turn < 5 and Path(path).exists():
                Path(path).rename(f"{path}.{turn}")
            if all(one.done() for one in at_work):
                break
    wait(at_work)
    assert [one.exception() for one in at_work] == [None] * 6
    got += drained(reader)
    assert [line.error for line in got if line.error] == []
    names = [line.raw.rstrip(b"xy") for line in got]
    expected = [b"%d-%d" % (name, n) for name in range(3) for n in range(20)]
    expected += [b"%d-%d-%d" % (name, n, part) for name in range(3, 6) for n in range(10) for part in range(2)]
    assert sorted(names) == sorted(expected)
    assert {len(line.raw) // 1000 for line in got} == {131, 200}


def test_a_blank_line_does_not_hide_a_truncation(path):
    """A file of which only a blank line was read, copied, truncated and begun with another blank line, still gives the copy's lines."""
    put(path, b"\n")
    reader = reader_of(path)
    assert drained(reader) == []
    append(path, [b"1"])
    shutil.copy(path, f"{path}-0001")
    os.truncate(path, 0)
    put(path, b"\n")
    assert [line.raw for line in drained(reader)] == [b"1"]


class QueueStory(RuleBasedStateMachine):
    """Whatever the order of appending, rotating, truncating, reading and restarting, each whole line comes exactly once."""

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.path = str(self.folder / "queue.jsonl")
        self.reader = reader_of(self.path)
        self.mark = None
        self.count = 0
        self.rotations = 0
        self.torn = b""
        self.expected: list[bytes] = []
        self.files: list[list[bytes]] = [[]]
        self.got: list[bytes] = []

    def teardown(self):
        shutil.rmtree(self.folder)

    def fresh(self, size):
        self.count += 1
        return b"%d" % self.count + b"x" * size

    @rule(sizes=st.lists(st.sampled_from([0, 5, 300, 2000]), min_size=1, max_size=4))
    def submit(self, sizes):
        lines = [self.fresh(size) for size in sizes]
        append(self.path, lines)
        self.expected += ([self.torn] if self.torn else []) + lines
        self.torn = b""

    @rule(size=st.sampled_from([1, 400]))
    def tear(self, size):
        part = self.fresh(size)
        put(self.path, part)
        self.torn += part

    @rule()
    def mend(self):
        put(self.path, b"\n")
        self.expected += [self.torn] if self.torn else []
        self.torn = b""

    @rule()
    def rotate(self):
        if Path(self.path).exists():
            self.rotations += 1
            Path(self.path).rename(f"{self.path}-{self.rotations:04}")
            self.expected += [self.torn] if self.torn else []
            self.torn = b""

    @rule()
    def truncate_what_was_read(self):
        self.read_all()
        if Path(self.path).exists():
            os.truncate(self.path, 0)
            self.torn = b""

    @rule(copy=st.booleans())
    def copy_and_truncate(self, copy):
        if Path(self.path).exists() and not self.torn and copy:
            self.rotations += 1
            shutil.copy(self.path, f"{self.path}-{self.rotations:04}")
            os.truncate(self.path, 0)

    @rule(limit=st.sampled_from([1, 50, 1 << 20]), keep=st.booleans())
    def read_some(self, limit, keep):
        lines = self.reader.read(limit)
        if keep and lines:
            self.got += [line.raw for line in lines]
            self.mark = lines[-1].mark
        elif lines:
            self.got.append(lines[0].raw)
            self.restart_from(lines[0].mark)

    @rule()
    def read_all(self):
        while lines := self.reader.read(200):
            self.got += [line.raw for line in lines]
            self.mark = lines[-1].mark

    @rule()
    def restart(self):
        self.restart_from(self.mark)

    def restart_from(self, mark):
        self.mark = mark
        self.reader = reader_of(self.path, mark)

    @invariant()
    def nothing_twice_and_nothing_made_up(self):
        assert len(set(self.got)) == len(self.got)
        assert set(self.got) <= set(self.expected)

    @invariant()
    def all_in_the_end(self):
        rest = [line.raw for line in drained(reader_of(self.path, self.reader.mark))]
        assert sorted(self.got + rest) == sorted(self.expected)


TestQueueStory = QueueStory.TestCase
TestQueueStory.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
