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


def flow(run_id: str, *tasks: dict, **fields: object) -> str:
    return json.dumps({"run_id": run_id, "workflow": {"name": "w", "tasks": list(tasks), **fields}})


def test_a_workflow_is_waited_for_to_its_end(yard: Yard) -> None:
    """`submit --wait` of a workflow waits for all its waves, the way back included, and exits 1 where it ended failed."""
    yard.serve()
    undone = sure("a") | {"compensate": {"payload": {"success_rate": 1.0, "duration_s": 0.3}}}
    text = flow("r", undone, doomed("b") | {"depends_on": ["a"]}, on_failure="compensate")
    done = yard.call("submit", "--wait", "-", text=text)
    assert (done.returncode, yard.statuses("r")) == (1, {"a": "COMPLETED", "b": "FAILED", "a.undo": "COMPLETED"})
    assert "workflow w FAILED: b did not succeed; what was done is undone" in done.stderr


def test_a_failure_that_a_workflow_gets_over_is_none(yard: Yard) -> None:
    """It exits 0 where the workflow was completed, whatever FAILED on the way."""
    yard.serve()
    mend = sure("b") | {"depends_on": [{"task": "a", "when": "failed"}]}
    assert yard.call("submit", "--wait", "-", text=flow("r", doomed("a"), mend)).returncode == 0
    assert yard.statuses("r") == {"a": "FAILED", "b": "COMPLETED"}


def test_a_cancelled_workflow_was_not_completed(yard: Yard) -> None:
    """It exits 1 where the workflow was cancelled, and says so."""
    yard.serve()
    submission = yard.folder / "flow.json"
    submission.write_text(flow("r", yard.held("a"), sure("b") | {"depends_on": ["a"]}))
    waiting = yard.begin("submit", "--wait", submission)
    until(lambda: '"task_id":"a"' in yard.call("status", "--json").stdout, "the first task's start")
    assert yard.call("cancel", "r").returncode == 0
    assert waiting.end() == 1
    assert "workflow w was cancelled (phase21 show r)" in waiting.stderr


def test_a_workflow_that_waits_for_approval_is_waited_for(yard: Yard) -> None:
    """Where a workflow can go on only once a person approves, it says so and waits on."""
    yard.serve()
    submission = yard.folder / "flow.json"
    risky = sure("b") | {"depends_on": ["a"], "risk_level": "HIGH", "predicted_success_rate": 0.99}
    submission.write_text(flow("r", sure("a"), risky))
    waiting = yard.begin("submit", "--wait", submission)
    until(lambda: '"DEFERRED":1' in yard.call("status", "r", "--json").stdout, "the task that needs approval")
    until(lambda: "run r waits for approval (phase21 approve r --state DIR)" in waiting.stderr, "the word of it")
    assert yard.call("approve", "r").returncode == 0
    assert (waiting.end(), yard.statuses("r")) == (0, {"a": "COMPLETED", "b": "COMPLETED"})
