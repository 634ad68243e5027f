"""kill -9 in the middle of work: what was accepted is carried out, and nothing is done twice that must not be."""

from __future__ import annotations

import filecmp
import json
import signal
from pathlib import Path

from yard import Yard, alive, doomed, rows, sure, until, wave


def test_killed_in_the_middle_of_a_wave(yard: Yard) -> None:
    """Strays of the killed daemon are ended, what was done stays done, what was under way runs again unless it must not."""
    yard.configure("[agents]\ncount = 4\n")
    yard.append(
        wave(
            "r", yard.counted("done"), yard.held("again"), yard.held("never", idempotent=False), sure("needs", depends_on=["again"])
        ),
        wave("r", sure("next")),
    )
    daemon = yard.serve("--log-level", "DEBUG")
    pids = [yard.running("again"), yard.running("never")]
    daemon.event("task_completed", task_id="done")
    daemon.event("attempt_started", task_id="again")
    daemon.kill()
    assert all(alive(pid) for pid in pids)
    again = yard.serve()
    until(lambda: not any(alive(pid) for pid in pids), "the end of the strays")
    until(lambda: yard.starts("again") == 2, "the second start")
    yard.release("again")
    again.event("run_idle", run_id="r")
    assert again.stop() == 0
    outcomes = yard.outcomes("r")
    assert {task_id: row["status"] for task_id, row in outcomes.items()} == {
        "done": "COMPLETED", "again": "COMPLETED", "never": "FAILED", "needs": "COMPLETED", "next": "COMPLETED"
    }  # fmt: skip
    assert "interrupted" in outcomes["never"]["error_msg"]
    assert outcomes["again"]["attempts"] == 2
    assert [yard.starts(name) for name in ("done", "again", "never")] == [1, 2, 1]


def test_interrupted_three_times_is_failed(yard: Yard) -> None:
    """A task under way at three crashes may be what kills the daemon: it is FAILED, though it may be tried once only."""
    yard.append(wave("r", yard.held("killer", max_attempts=1)))
    for start in range(1, 4):
        daemon = yard.serve("--log-level", "DEBUG")
        daemon.event("attempt_started", attempt=start)
        until(lambda start=start: yard.starts("killer") == start, "its start")  # type: ignore[misc]
        daemon.kill()
    assert yard.once().returncode == 1
    row = yard.outcomes("r")["killer"]
    assert (row["status"], row["attempts"], yard.starts("killer")) == ("FAILED", 3, 3)
    assert "interrupted" in row["error_msg"]


def test_acknowledged_is_carried_out_after_a_kill(yard: Yard) -> None:
    """What `submit` acknowledged, and what was logged as accepted, is carried out though the daemon is killed at that moment."""
    daemon = yard.serve()
    assert yard.call("submit", "-", text=json.dumps(wave("first", sure("a")))).returncode == 0
    daemon.event("submission_accepted", run_id="first")
    daemon.kill()
    assert yard.call("submit", "-", text=json.dumps(wave("second", sure("a")))).returncode == 0
    assert yard.once().returncode == 0
    assert yard.statuses("first") == yard.statuses("second") == {"a": "COMPLETED"}


def test_settled_waves_never_change_and_rebuild_is_identical(yard: Yard) -> None:
    """A restart leaves a settled wave's files as they were, and `rebuild` writes the whole folder byte for byte."""
    yard.append(wave("r", sure("a"), doomed("b"), yard.counted("c")), wave("r", yard.held("d")))
    daemon = yard.serve()
    yard.running("d")
    daemon.event("wave_completed", wave=1)
    first = yard.outputs / "r" / "wave_1"
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in first.rglob("*") if path.is_file()}
    assert before
    daemon.kill()
    yard.release("d")
    yard.once()
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in before} == before
    elsewhere = yard.folder / "rebuilt"
    assert yard.call("rebuild", "r", "--outputs", elsewhere).returncode == 0
    assert _tree(yard.outputs / "r") == _tree(elsewhere / "r")
    for path in _tree(elsewhere / "r"):
        assert filecmp.cmp(yard.outputs / "r" / path, elsewhere / "r" / path, shallow=False), path


def test_torn_output_files_are_mended(yard: Yard) -> None:
    """A growing file that a crash tore, and a torn rejected.jsonl, are whole after the restart."""
    yard.append(wave("r", sure("a")), b"not json")
    daemon = yard.serve()
    daemon.event("run_idle", run_id="r")
    until(yard.rejected, "the rejection")
    daemon.kill()
    growing = yard.outputs / "r" / "safety_gate_decisions.jsonl"
    for path in (growing, yard.state / "rejected.jsonl"):
        with path.open("ab") as file:
            file.write(b'{"torn": tr')
    yard.append(wave("r", sure("b")))
    assert yard.once().returncode == 0
    assert [row["task_id"] for row in rows(growing)] == ["a", "b"]
    assert len(yard.rejected()) == 1


def test_a_kill_during_startup_loses_nothing(yard: Yard) -> None:
    """Killed at any moment of its start, it starts again and carries everything out once."""
    yard.append(wave("r", yard.counted("a", idempotent=False), sure("b")))
    for step in range(4):
        daemon = yard.begin("serve")
        until(lambda step=step: _fact(yard, step), f"step {step} of the start")  # type: ignore[misc]
        daemon.kill()
    yard.once()
    outcomes = yard.outcomes("r")
    assert outcomes["b"]["status"] == "COMPLETED"
    assert outcomes["a"]["status"] in {"COMPLETED", "FAILED"}
    assert yard.starts("a") <= 1


def _fact(yard: Yard, step: int) -> bool:
    path = [yard.state / "phase21.lock", yard.state / "journal.db", yard.state / "journal.db-wal", yard.state / "logs"][step]
    return path.exists()


def _tree(folder: Path) -> list[Path]:
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def test_sigkill_is_what_was_sent(yard: Yard) -> None:
    """A killed daemon leaves its lock behind free: nobody holds the folder."""
    daemon = yard.serve()
    assert daemon.stop(signal.SIGKILL) == 137
    assert json.loads(yard.call("status", "--json").stdout)["daemon"]["running"] is False
