"""Disks that are full or read-only: nothing is lost, nothing acknowledged that is not durable, and it goes on by itself."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

from yard import Process, Yard, one_line, sure, until, wave

NO_FLOOR = "[safety]\nmin_free_disk_mb = 0\n"


def fill(folder: Path) -> Path:
    """Take all the space of a disk."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while file.write(b"x" * size) == size:
                    pass
            except OSError:
                continue
    return filler


def test_a_full_state_folder(yard: Yard) -> None:
    """What could not be made durable is not acknowledged; it is said once at ERROR, and goes on when space returns."""
    yard.small_disk(yard.state)
    yard.configure(NO_FLOOR)
    yard.queue = yard.folder / "queue.jsonl"
    daemon = yard.serve()
    filler = fill(yard.state)
    yard.append(*(wave(f"r{n}", yard.counted(f"a{n}"), metadata={"note": "x" * 50_000}) for n in range(3)))
    daemon.event("storage_unavailable", level="ERROR")
    assert not daemon.named("submission_accepted")
    assert not any(yard.starts(f"a{n}") for n in range(3))
    filler.unlink()
    daemon.event("storage_recovered")
    for n in range(3):
        daemon.event("run_idle", run_id=f"r{n}")
        assert yard.statuses(f"r{n}") == {f"a{n}": "COMPLETED"}
        assert yard.starts(f"a{n}") == 1
    assert len(daemon.named("storage_unavailable")) == 1
    assert daemon.stop() == 0


def test_submit_on_a_full_disk_submits_nothing(yard: Yard) -> None:
    """`submit` that cannot write says so in one line, and leaves the queue as it was."""
    yard.small_disk(yard.state)
    yard.append(wave("r", sure("a")))
    before = yard.queue.read_bytes()
    filler = fill(yard.state)
    done = yard.call("submit", "-", text=json.dumps(wave("s", sure("a"), metadata={"note": "x" * 50_000})))
    assert done.returncode == 2
    assert str(yard.queue) in one_line(done)
    assert yard.queue.read_bytes() == before
    filler.unlink()


def test_a_full_state_folder_and_a_bad_line(yard: Yard) -> None:
    """A line that is refused while the disk is full stands in rejected.jsonl once there is space."""
    yard.small_disk(yard.state)
    yard.configure(NO_FLOOR)
    yard.queue = yard.folder / "queue.jsonl"
    daemon = yard.serve()
    filler = fill(yard.state)
    yard.append(b"x" * 100_000, b"y" * 100_000)
    daemon.event("storage_unavailable")
    filler.unlink()
    until(lambda: len(yard.rejected()) == 2, "two rejections")
    assert daemon.stop() == 0


def test_a_start_on_a_full_disk(yard: Yard) -> None:
    """A daemon that cannot open its journal for want of space says so in one line and ends; the next start loses nothing."""
    yard.small_disk(yard.state)
    yard.configure(NO_FLOOR)
    yard.queue = yard.folder / "queue.jsonl"
    assert yard.once().returncode == 0
    filler = fill(yard.state)
    yard.append(wave("r", yard.counted("a")))
    refused = yard.once()
    assert refused.returncode == 2
    assert "journal.db" in one_line(refused)
    filler.unlink()
    assert yard.once().returncode == 0
    assert yard.statuses("r") == {"a": "COMPLETED"}
    assert yard.starts("a") == 1


def test_full_outputs(yard: Yard) -> None:
    """While a wave's files cannot be written nothing new is started; with space again they are, whole and once."""
    yard.small_disk(yard.outputs)
    daemon = yard.serve()
    filler = fill(yard.outputs)
    yard.append(wave("r", sure("a"), yard.counted("b")))
    daemon.event("storage_unavailable", level="ERROR", storage="outputs")
    yard.append(wave("s", yard.counted("c")))
    daemon.event("submission_accepted", run_id="s")
    assert yard.starts("c") == 0
    filler.unlink()
    daemon.event("storage_recovered", storage="outputs")
    _done(yard, daemon)


def test_read_only_outputs(yard: Yard) -> None:
    """The same for outputs that are read-only."""
    yard.small_disk(yard.outputs)
    daemon = yard.serve()
    subprocess.run(["mount", "-o", "remount,ro", yard.outputs], check=True)
    yard.append(wave("r", sure("a"), yard.counted("b")))
    daemon.event("storage_unavailable", level="ERROR", storage="outputs")
    yard.append(wave("s", yard.counted("c")))
    daemon.event("submission_accepted", run_id="s")
    subprocess.run(["mount", "-o", "remount,rw", yard.outputs], check=True)
    daemon.event("storage_recovered", storage="outputs")
    _done(yard, daemon)


def _done(yard: Yard, daemon: Process) -> None:
    daemon.event("run_idle", run_id="r")
    daemon.event("run_idle", run_id="s")
    assert len(daemon.named("storage_unavailable")) == 1
    assert daemon.stop() == 0
    assert yard.statuses("r") == {"a": "COMPLETED", "b": "COMPLETED"}
    assert yard.statuses("s") == {"c": "COMPLETED"}
    assert [yard.starts(name) for name in "bc"] == [1, 1]
    assert yard.call("rebuild", "r", "--outputs", yard.folder / "rebuilt").returncode == 0
    for path in (yard.folder / "rebuilt").rglob("*.json*"):
        assert path.read_bytes() == (yard.outputs / path.relative_to(yard.folder / "rebuilt")).read_bytes()


def test_told_to_stop_while_the_disk_is_full(yard: Yard) -> None:
    """A full disk does not hold the exit up; what was not acknowledged is still in the queue for the next start."""
    yard.small_disk(yard.state)
    yard.configure(NO_FLOOR)
    yard.queue = yard.folder / "queue.jsonl"
    daemon = yard.serve()
    filler = fill(yard.state)
    yard.append(wave("r", yard.counted("a"), metadata={"note": "x" * 50_000}))
    daemon.event("storage_unavailable")
    assert daemon.stop() == 0
    filler.unlink()
    assert yard.once().returncode == 0
    assert yard.statuses("r") == {"a": "COMPLETED"}
    assert yard.starts("a") == 1


def test_a_disk_that_is_found_full_while_stopping(yard: Yard) -> None:
    """Trouble that is met only by the last entries does not hold the exit up either."""
    yard.small_disk(yard.state)
    yard.configure(NO_FLOOR)
    yard.queue = yard.folder / "queue.jsonl"
    daemon = yard.serve()
    filler = fill(yard.state)
    assert daemon.stop() == 0
    filler.unlink()
    assert yard.once().returncode == 0


def test_outputs_that_are_found_full_while_stopping(yard: Yard) -> None:
    """The wave that ends within the drain is written at the next start where its files find no space."""
    yard.small_disk(yard.outputs)
    yard.append(wave("r", yard.held("a")))
    daemon = yard.serve()
    yard.running("a")
    filler = fill(yard.outputs)
    daemon.tell(signal.SIGTERM)
    daemon.event("service_stopping")
    yard.release("a")
    assert daemon.end() == 0
    filler.unlink()
    assert yard.once().returncode == 0
    assert yard.statuses("r") == {"a": "COMPLETED"}
    assert yard.starts("a") == 1


def test_a_run_says_that_the_disk_is_full(yard: Yard) -> None:
    """`run` says on stderr, once, that it cannot write, and goes on when space returns."""
    yard.small_disk(yard.outputs)
    source = yard.folder / "forecast"
    source.mkdir()
    (source / "predicted_tasks.jsonl").write_text(json.dumps(yard.held("a", agent_id="agent_0")) + "\n")
    filler = fill(yard.outputs)
    process = yard.begin("run", source)
    yard.running("a")
    yard.release("a")
    until(lambda: "cannot be written" in process.stderr, "the word of it")
    filler.unlink()
    assert process.end() == 0
    assert process.stderr.count("cannot be written") == 1
    assert yard.statuses("forecast") == {"a": "COMPLETED"}


def test_told_to_stop_while_outputs_are_full(yard: Yard) -> None:
    """The wave whose files could not be written is written at the next start, and nothing of it runs again."""
    yard.small_disk(yard.outputs)
    daemon = yard.serve()
    filler = fill(yard.outputs)
    yard.append(wave("r", yard.counted("a")))
    daemon.event("storage_unavailable", storage="outputs")
    assert daemon.stop() == 0
    filler.unlink()
    assert yard.once().returncode == 0
    assert yard.statuses("r") == {"a": "COMPLETED"}
    assert yard.starts("a") == 1
