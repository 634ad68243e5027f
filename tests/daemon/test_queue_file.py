"""The queue file of a real daemon: who may write it, what rotation and truncation do, what hostile lines become."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from yard import Yard, files_under, one_line, sure, until, wave


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("bits", [0o666, 0o660, 0o602])
def test_a_queue_that_others_may_write_is_refused(yard: Yard, bits: int) -> None:
    """A queue file that group or others may write stops the start: one line, exit status 2; `queue.allow_shared` lets it be."""
    yard.append(wave("r", sure("a")))
    yard.queue.chmod(bits)
    done = yard.once()
    assert done.returncode == 2
    assert str(yard.queue) in one_line(done)
    assert "allow_shared" in done.stderr
    yard.configure("[queue]\nallow_shared = true\n")
    assert yard.once().returncode == 0
    assert yard.statuses("r") == {"a": "COMPLETED"}


def test_a_queue_that_opens_up_meanwhile_is_not_read(yard: Yard) -> None:
    """A running daemon says at ERROR, once, that it does not read such a queue; it reads on when that is mended."""
    daemon = yard.serve()
    yard.append(wave("first", sure("a")))
    daemon.event("wave_completed", run_id="first")
    yard.queue.chmod(0o666)
    yard.append(wave("r", sure("a")))
    daemon.event("queue_refused", level="ERROR")
    assert not daemon.named("submission_accepted", run_id="r")
    yard.queue.chmod(0o600)
    yard.append(wave("s", sure("a")))
    daemon.event("wave_completed", run_id="r")
    assert len(daemon.named("queue_refused")) == 1
    assert daemon.stop() == 0


def test_everything_is_private(yard: Yard) -> None:
    """Under a lax umask too, the queue is 0600, the state folder 0700, and nothing under it or the outputs is open to others."""
    before = os.umask(0)
    try:
        assert yard.call("submit", "-", text=json.dumps(wave("r", sure("a"), yard.counted("b")))).returncode == 0
        yard.append(b"not json")
        assert yard.once().returncode == 0
    finally:
        os.umask(before)
    assert mode(yard.queue) == 0o600
    assert mode(yard.state) == 0o700
    for folder in (yard.state, yard.outputs):
        for path in files_under(folder):
            assert not mode(path) & 0o077, path


def test_everything_is_private_while_it_runs(yard: Yard) -> None:
    """What stands beside the journal while a daemon works, rotated logs and a rebuilt copy are closed to others too."""
    yard.configure("[logging]\nlevel = 'DEBUG'\nmax_bytes = 1024\nbackups = 2\n")
    before = os.umask(0)
    try:
        daemon = yard.serve()
        yard.append(wave("r", sure("a"), sure("b")), wave("r", yard.held("c")))
        yard.running("c")
        daemon.event("wave_completed", wave=1)
        assert yard.call("rebuild", "r", "--outputs", yard.folder / "copy").returncode == 0
    finally:
        os.umask(before)
    assert {"journal.db-wal", "journal.db-shm", "phase21.lock"} <= {path.name for path in yard.state.iterdir()}
    assert (yard.state / "logs" / "phase21.jsonl.1").exists()
    for folder in (yard.state, yard.outputs, yard.folder / "copy"):
        for path in files_under(folder):
            assert not mode(path) & 0o077, path
    yard.release("c")
    daemon.event("run_idle", run_id="r")
    assert daemon.stop() == 0


def test_a_state_folder_that_stands_open_is_closed(yard: Yard) -> None:
    """A state folder that was made with open permissions is 0700 once a daemon has started on it."""
    yard.state.mkdir(mode=0o755)
    yard.append(wave("r", sure("a")))
    assert yard.once().returncode == 0
    assert mode(yard.state) == 0o700


@pytest.mark.parametrize("running", [True, False])
def test_a_rotated_queue_is_read_to_its_end_once(yard: Yard, running: bool) -> None:
    """Lines not yet read are still read from the renamed file, once, whether the daemon runs or not."""
    daemon = yard.serve()
    yard.append(wave("r", sure("a"), submission_id="s1"))
    daemon.event("submission_accepted", submission_id="s1")
    if not running:
        assert daemon.stop() == 0
    yard.append(wave("r", sure("b"), submission_id="s2"))
    yard.queue.rename(yard.state / "queue.jsonl.1")
    yard.append(wave("r", sure("c"), submission_id="s3"))
    last = daemon if running else yard.serve()
    last.event("submission_accepted", submission_id="s3")
    assert last.stop() == 0
    yard.once()
    assert yard.statuses("r") == {"a": "COMPLETED", "b": "COMPLETED", "c": "COMPLETED"}
    assert not yard.rejected()
    assert "submission_repeated" not in (yard.state / "logs" / "phase21.jsonl").read_text()


@pytest.mark.parametrize("running", [True, False])
def test_a_truncated_queue_is_recognised(yard: Yard, running: bool) -> None:
    """A file truncated and filled again is read from its start, though it is as long as before."""
    daemon = yard.serve()
    yard.append(wave("r", sure("a"), submission_id="s1"))
    daemon.event("submission_accepted", submission_id="s1")
    if not running:
        assert daemon.stop() == 0
    os.truncate(yard.queue, 0)
    yard.append(wave("r", sure("b"), submission_id="s2"))
    last = daemon if running else yard.serve()
    last.event("submission_accepted", submission_id="s2")
    assert last.stop() == 0
    yard.once()
    assert yard.statuses("r") == {"a": "COMPLETED", "b": "COMPLETED"}
    assert not yard.rejected()


def test_a_line_without_its_end_is_left_until_it_comes(yard: Yard) -> None:
    """A last line without its newline is not taken, and not refused; with its newline it is."""
    line = json.dumps(wave("r", sure("a"))).encode()
    yard.append()
    with yard.queue.open("ab") as file:
        file.write(line[:30])
    yard.once()
    assert not yard.rejected()
    with yard.queue.open("ab") as file:
        file.write(line[30:] + b"\n")
    yard.once()
    assert yard.statuses("r") == {"a": "COMPLETED"}


def test_submit_begins_a_new_line_behind_a_torn_one(yard: Yard) -> None:
    """`submit` does not glue itself to a torn line, which is set aside then."""
    yard.append()
    yard.queue.write_bytes(b'{"run_id": "r", "ta')
    assert yard.call("submit", "-", text=json.dumps(wave("r", sure("a")))).returncode == 0
    yard.once()
    assert yard.statuses("r") == {"a": "COMPLETED"}
    assert [(row["line"], row["offset"]) for row in yard.rejected()] == [(1, 0)]


HOSTILE = {
    "escape": (wave("../../etc", sure("x")), "run_id"),
    "task escape": (wave("r", sure("../x")), "tasks[0].task_id"),
    "agent escape": (wave("r", sure("x", agent_id="../../a")), "tasks[0].agent_id"),
    "deep": (b'{"run_id": "r", "metadata": ' + b'{"a":' * 10_000 + b"1" + b"}" * 10_000 + b', "tasks": [{"task_id": "x"}]}', None),
    "deep list": (b"[" * 10_000 + b"]" * 10_000, None),
    "nan": (b'{"run_id": "r", "tasks": [{"task_id": "x", "timeout_s": NaN}]}', None),
    "infinity": (b'{"run_id": "r", "tasks": [{"task_id": "x", "timeout_s": 1e999}]}', "tasks[0].timeout_s"),
    "coerced": (wave("r", sure("x", predicted_success_rate="0.9")), "tasks[0].predicted_success_rate"),
    "twice": (wave("r", sure("x"), sure("x")), "tasks[1].task_id"),
    "surrogate": (b'{"run_id": "r", "tasks": [{"task_id": "x", "payload": {"a": "\\ud800"}}]}', None),
    "not text": (b"\xff\xfe\x00garbage", None),
    "nul": (b"\x00" * 100, None),
    "unknown": (wave("r", sure("x"), colour="red"), "colour"),
    "nothing": ({"run_id": "r"}, None),
    "no priority": (wave("r", sure("x", priority=-1)), "tasks[0].priority"),
    "circle": (wave("r", sure("x", depends_on=["y"]), sure("y", depends_on=["x"])), "tasks[0].depends_on"),
    "unknown dependency": (wave("r", sure("x", depends_on=["zzz"])), "tasks[0].depends_on"),
}


def test_hostile_lines_are_set_aside_and_the_line_beside_is_done(yard: Yard) -> None:
    """Each bad line stands in rejected.jsonl once, with its place and path, and the good line after it is carried out."""
    places = []
    for number, (line, _) in enumerate(HOSTILE.values()):
        raw = line if isinstance(line, bytes) else json.dumps(line).encode()
        places.append((2 * number + 1, yard.queue.stat().st_size if yard.queue.exists() else 0, raw))
        yard.append(raw, wave(f"good-{number}", sure("a")))
    done = yard.once()
    assert (done.returncode, done.stderr) == (0, "")
    assert all(yard.statuses(f"good-{number}") == {"a": "COMPLETED"} for number in range(len(HOSTILE)))
    found = yard.rejected()
    assert len(found) == len(HOSTILE)
    for (name, (_, path)), (number, offset, raw), row in zip(HOSTILE.items(), places, found, strict=True):
        assert (name, row["line"], row["offset"]) == (name, number, offset)
        assert row.keys() == {"line", "offset", "error", "path", "raw", "rejected_at"}, name
        assert row["raw"] == raw[:4096].decode(errors="replace"), name
        assert row["error"], name
        assert "\n" not in row["error"]
        assert row["path"] == path, (name, row["error"])
    refused = [json.loads(line) for line in done.stdout.splitlines() if '"submission_rejected"' in line]
    assert [event["offset"] for event in refused] == [offset for _, offset, _ in places]
    assert not (yard.folder.parent / "etc").exists()
    assert {path.name for path in yard.outputs.iterdir()} == {f"good-{number}" for number in range(len(HOSTILE))}


def test_long_lines(yard: Yard) -> None:
    """10 MB in a line are taken; more than `queue.max_line_bytes` is refused, and `raw` is cut."""
    yard.configure("[queue]\nmax_line_bytes = 12000000\n")
    long, too_long = ({**wave(f"r{size}", sure("a")), "metadata": {"note": "x" * size}} for size in (10_000_000, 12_000_000))
    yard.append(too_long, long, wave("after", sure("a")))
    assert yard.once().returncode == 0
    assert yard.statuses("r10000000") == yard.statuses("after") == {"a": "COMPLETED"}
    (row,) = yard.rejected()
    assert (row["line"], row["offset"], len(row["raw"])) == (1, 0, 4096)
    assert "max_line_bytes" in row["error"]


def test_contradictions_are_refused_and_repetitions_count_once(yard: Yard) -> None:
    """A task id or wave number already given is refused, a submission id already given is logged as repeated."""
    daemon = yard.serve()
    yard.append(
        wave("r", yard.counted("a"), wave=2, submission_id="s"),
        wave("r", yard.counted("a"), wave=2, submission_id="s"),
        wave("r", sure("a")),
        wave("r", sure("b"), wave=2),
    )
    daemon.event("submission_repeated", submission_id="s")
    daemon.event("run_idle", run_id="r")
    until(lambda: len(yard.rejected()) == 2, "two rejections")
    assert [row["path"] for row in yard.rejected()] == ["tasks[0].task_id", "wave"]
    assert yard.starts("a") == 1
    assert daemon.stop() == 0
