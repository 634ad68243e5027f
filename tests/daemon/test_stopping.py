"""Signals: the drain, the second signal, the reload."""

from __future__ import annotations

import json
import signal

from yard import Yard, alive, sure, until, wave


def test_sigterm_waits_for_what_runs_and_leaves_the_rest(yard: Yard) -> None:
    """A drained daemon ends what is under way, exits 0, takes no more input; the rest is done at the next start."""
    yard.append(wave("r", yard.held("a", agent_id="agent_0"), sure("b", agent_id="agent_0")))
    daemon = yard.serve()
    yard.running("a")
    daemon.tell(signal.SIGTERM)
    daemon.event("service_stopping")
    yard.append(wave("later", sure("c")))
    yard.release("a")
    assert daemon.end() == 0
    daemon.event("service_stopped")
    assert not daemon.named("submission_accepted", run_id="later")
    assert not yard.statuses("r")
    assert yard.once().returncode == 0
    assert yard.statuses("r") == {"a": "COMPLETED", "b": "COMPLETED"}
    assert yard.outcomes("r")["a"]["attempts"] == 1
    assert yard.starts("a") == 1
    assert yard.statuses("later") == {"c": "COMPLETED"}


def test_the_drain_is_bounded(yard: Yard) -> None:
    """After `service.drain_timeout` what still runs is cut short and counts as interrupted: run again where it may be."""
    yard.configure("[service]\ndrain_timeout = 0.2\n")
    yard.append(wave("r", yard.held("again"), yard.held("never", idempotent=False)))
    daemon = yard.serve()
    pids = [yard.running("again"), yard.running("never")]
    assert daemon.stop(signal.SIGINT) == 0
    assert not any(alive(pid) for pid in pids)
    yard.release("again")
    yard.release("never")
    assert yard.once().returncode == 0
    rows = yard.outcomes("r")
    assert (rows["again"]["status"], rows["again"]["attempts"], yard.starts("again")) == ("COMPLETED", 2, 2)
    assert (rows["never"]["status"], yard.starts("never")) == ("FAILED", 1)
    assert "interrupted" in rows["never"]["error_msg"]


def test_a_second_signal_cuts_short(yard: Yard) -> None:
    """A second signal ends the drain at once with 128+n; the restart goes on as after a crash."""
    yard.append(wave("r", yard.held("again"), yard.held("never", idempotent=False), sure("other")))
    daemon = yard.serve()
    pids = [yard.running("again"), yard.running("never")]
    daemon.tell(signal.SIGTERM)
    daemon.event("service_stopping")
    assert daemon.stop(signal.SIGINT) == 130
    assert not any(alive(pid) for pid in pids)
    yard.release("again")
    yard.release("never")
    assert yard.once().returncode == 1
    rows = yard.outcomes("r")
    assert (rows["again"]["status"], yard.starts("again")) == ("COMPLETED", 2)
    assert (rows["never"]["status"], yard.starts("never")) == ("FAILED", 1)
    assert rows["other"]["status"] == "COMPLETED"


def test_sighup_reads_the_configuration_again(yard: Yard) -> None:
    """A good configuration is in force at once: the wave after it is planned by the new strategy."""
    daemon = yard.serve()
    yard.configure("[manager]\nstrategy = 'round_robin'\n")
    daemon.tell(signal.SIGHUP)
    daemon.event("configuration_reloaded", level="INFO")
    yard.append(wave("r", sure("a")))
    daemon.event("wave_completed")
    assert '"round_robin"' in (yard.outputs / "r" / "wave_1" / "coordination_plan.json").read_text()
    assert daemon.stop() == 0


def test_what_waits_for_the_next_start_is_named(yard: Yard) -> None:
    """A reload that changes the fleet says that it waits for the next start; all else is in force."""
    daemon = yard.serve()
    yard.configure("[agents]\ncount = 9\n[retry]\nmax_attempts = 1\n")
    daemon.tell(signal.SIGHUP)
    assert daemon.event("configuration_reloaded")["pending"] == ["agents"]
    yard.append(wave("r", {"task_id": "a", "payload": {"success_rate": 0}}))
    daemon.event("wave_completed")
    assert yard.outcomes("r")["a"]["attempts"] == 1
    assert daemon.stop() == 0
    assert yard.serve().event("service_started")["agents"] == 9


def test_a_broken_configuration_leaves_the_old_one(yard: Yard) -> None:
    """A broken configuration is refused with an ERROR line that names the key, and the daemon works on."""
    daemon = yard.serve()
    yard.configure("[manager]\nstrategi = 'round_robin'\n")
    daemon.tell(signal.SIGHUP)
    refused = daemon.event("configuration_refused", level="ERROR")
    assert "strategi" in refused["error_msg"]
    yard.append(wave("r", sure("a")))
    daemon.event("wave_completed")
    assert '"load_balanced"' in (yard.outputs / "r" / "wave_1" / "coordination_plan.json").read_text()
    assert daemon.stop() == 0


def test_a_blocked_thread_holds_nobody_up(yard: Yard) -> None:
    """A plain function that outlives its timeout is abandoned, which is said; its agent works on, and the exit does not wait."""
    (yard.folder / "blocking.py").write_text("import threading\n\ndef forever():\n    threading.Event().wait()\n")
    yard.configure("[handlers]\npython_modules = ['blocking']\n[agents]\ncount = 1\n")
    stuck = {"kind": "python", "payload": {"callable": "blocking:forever"}, "timeout_s": 0.2, "max_attempts": 1, "priority": 1}
    yard.append(wave("r", {"task_id": "stuck", **stuck}, sure("after")))
    daemon = yard.serve()
    daemon.event("wave_completed")
    rows = yard.outcomes("r")
    assert rows["stuck"]["status"] == "FAILED"
    assert "timed out" in rows["stuck"]["error_msg"]
    assert "thread" in rows["stuck"]["error_msg"]
    assert rows["after"]["status"] == "COMPLETED"
    assert daemon.stop() == 0


def test_a_handler_that_swallows_its_cancellation_holds_nobody_up(yard: Yard) -> None:
    """An async function that cannot be ended is left behind at its timeout, and the exit does not wait for it either."""
    body = "import asyncio\n\nasync def forever():\n    while True:\n        try:\n            await asyncio.sleep(60)\n"
    (yard.folder / "deaf.py").write_text(body + "        except asyncio.CancelledError:\n            pass\n")
    yard.configure("[handlers]\npython_modules = ['deaf']\n[agents]\nstuck_after = 0.2\n")
    call = {"kind": "python", "payload": {"callable": "deaf:forever"}, "max_attempts": 1}
    yard.append(wave("r", {"task_id": "deaf", "timeout_s": 0.2, **call}, sure("after")))
    daemon = yard.serve()
    daemon.event("agent_offline")
    daemon.event("wave_completed")
    assert yard.statuses("r") == {"deaf": "FAILED", "after": "COMPLETED"}
    assert daemon.stop() == 0
    daemon.event("service_stopped")
    assert yard.once().returncode == 0


def test_a_timed_out_command_is_ended_whole(yard: Yard) -> None:
    """At its timeout a command's whole group is ended; one that is not idempotent is not started again."""
    yard.configure("[retry]\nmax_attempts = 3\n")
    child = f"sh -c 'echo $$ >> {yard.folder}/child.starts; sleep 60' & wait"
    yard.append(wave("r", yard.counted("slow", child, timeout_s=0.3, idempotent=False)))
    assert yard.once().returncode == 1
    row = yard.outcomes("r")["slow"]
    assert row["status"] == "FAILED"
    assert "interrupted" in row["error_msg"]
    assert yard.starts("slow") == 1
    child_pid = int((yard.folder / "child.starts").read_text())
    until(lambda: not alive(child_pid), "the end of the child's child")


def test_a_run_whose_outputs_cannot_be_written_can_be_stopped(yard: Yard) -> None:
    """A signal ends `run` also while it waits for its outputs; the next `run` writes them and runs nothing again."""
    source = yard.folder / "forecast"
    source.mkdir()
    (source / "predicted_tasks.jsonl").write_text(json.dumps({"agent_id": "agent_0", **yard.counted("a")}) + "\n")
    yard.outputs.touch()
    process = yard.begin("run", source)
    until(lambda: "cannot be written" in process.stderr, "the word of it")
    assert process.stop() == 143
    yard.outputs.unlink()
    assert yard.call("run", source).returncode == 0
    assert yard.statuses("forecast") == {"a": "COMPLETED"}
    assert yard.starts("a") == 1
