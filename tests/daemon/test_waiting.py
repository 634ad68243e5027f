"""`submit --wait` beside a daemon, and without one."""

from __future__ import annotations

import json

from yard import Yard, doomed, sure, until, wave


def test_wait_until_done(yard: Yard) -> None:
    """`submit --wait` exits 0 once all tasks are done, having printed the submission's id."""
    daemon = yard.serve()
    done = yard.call("submit", "--wait", "-", text=json.dumps(wave("r", sure("a"), submission_id="mine")))
    assert (done.returncode, done.stdout) == (0, "mine\n")
    assert yard.statuses("r") == {"a": "COMPLETED"}
    assert daemon.stop() == 0


def test_wait_says_failed(yard: Yard) -> None:
    """It exits 1 where tasks FAILED."""
    yard.serve()
    assert yard.call("submit", "--wait", "-", text=json.dumps(wave("r", sure("a"), doomed("b")))).returncode == 1


def test_wait_says_refused(yard: Yard) -> None:
    """It exits 3 where the daemon refuses what `submit` could not know to be wrong."""
    submission = yard.folder / "submission.json"
    submission.write_text(json.dumps(wave("r", sure("a"))))
    waiting = yard.begin("submit", "--wait", submission)
    until(lambda: waiting.lines, "the submission's id")
    text = yard.queue.read_bytes()
    yard.queue.write_bytes(json.dumps(wave("r", sure("a"))).encode() + b"\n" + text)
    yard.serve()
    assert waiting.end() == 3
    assert "already given" in waiting.stderr


def test_the_timeout_runs_out(yard: Yard) -> None:
    """`--timeout` exits 5; the submission stays."""
    yard.serve()
    submission = yard.folder / "submission.json"
    submission.write_text(json.dumps(wave("r", yard.held("a"))))
    done = yard.call("submit", "--wait", "--timeout", "0.5", submission)
    assert done.returncode == 5
    assert "queue" in done.stderr
    yard.release("a")
    until(lambda: yard.statuses("r") == {"a": "COMPLETED"}, "its end")


def test_without_a_daemon_it_says_so_and_waits(yard: Yard) -> None:
    """Where no daemon runs it says so, and is done when one has come and done it."""
    submission = yard.folder / "submission.json"
    submission.write_text(json.dumps(wave("r", sure("a"))))
    waiting = yard.begin("submit", "--wait", submission)
    until(lambda: waiting.lines, "the submission's id")
    assert yard.once().returncode == 0
    assert waiting.end() == 0
    assert "no daemon" in waiting.stderr


def test_it_says_that_the_daemon_has_gone(yard: Yard) -> None:
    """Where the daemon ends while one waits, that is said, and the next daemon's work is waited for."""
    daemon = yard.serve()
    submission = yard.folder / "submission.json"
    submission.write_text(json.dumps(wave("r", yard.held("a"))))
    waiting = yard.begin("submit", "--wait", submission)
    yard.running("a")
    assert not waiting.stderr
    daemon.kill()
    until(lambda: "no daemon runs" in waiting.stderr, "the word of it")
    yard.release("a")
    assert yard.once().returncode == 0
    assert waiting.end() == 0


def test_controls_reach_a_running_daemon(yard: Yard) -> None:
    """Pause lets what runs end and starts nothing; resume goes on; cancel ends what runs, its process too."""
    daemon = yard.serve()
    yard.append(wave("r", yard.held("a", agent_id="agent_0"), yard.held("b", agent_id="agent_0")))
    yard.running("a")
    assert yard.call("pause", "r").returncode == 0
    daemon.event("control_received", control="pause")
    yard.release("a")
    until(lambda: "COMPLETED" in yard.call("status", "r", "--json").stdout, "the end of a")
    assert yard.starts("b") == 0
    assert yard.call("resume", "r").returncode == 0
    yard.running("b")
    assert yard.call("cancel", "r").returncode == 0
    daemon.event("run_idle", run_id="r")
    assert yard.statuses("r") == {"a": "COMPLETED", "b": "CANCELLED"}
    assert daemon.stop() == 0
