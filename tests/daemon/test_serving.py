"""The daemon as its caller sees it: exit statuses, one holder, `--once`, its lines, its word to systemd."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from yard import PATIENCE_S, Yard, doomed, one_line, sure, until, wave

LEVELS = {"DEBUG", "INFO", "WARNING", "ERROR"}
KNOWN = {
    "timestamp", "level", "event", "run_id", "wave", "agent_id", "task_id", "attempt", "submission_id"
}  # fmt: skip


def test_once_done_is_status_zero(yard: Yard) -> None:
    """`serve --once` carries out what the queue holds, and exits 0."""
    yard.append(wave("r", sure("a"), sure("b")))
    done = yard.once()
    assert (done.returncode, done.stderr) == (0, "")
    assert yard.statuses("r") == {"a": "COMPLETED", "b": "COMPLETED"}


def test_once_with_failed_tasks_is_status_one_and_speaks_of_this_call_only(yard: Yard) -> None:
    """`--once` exits 1 where tasks FAILED in this call, and 0 the next time."""
    yard.append(wave("r", doomed("a")))
    assert yard.once().returncode == 1
    assert yard.once().returncode == 0


def test_once_does_not_wait_for_approvals(yard: Yard) -> None:
    """What waits for a person does not hold `--once` up; once approved, the next one carries it out."""
    yard.append(wave("r", sure("risky", risk_level="HIGH", predicted_success_rate=0.95)))
    assert yard.once().returncode == 0
    assert yard.statuses("r") == {"risky": "DEFERRED"}
    assert yard.call("approve", "r").returncode == 0
    assert yard.once().returncode == 0
    assert yard.statuses("r") == {"risky": "COMPLETED"}


@pytest.mark.parametrize(
    ("args", "config", "named"),
    [
        (("--agents", "many"), "", "--agents"),
        (("--strategy", "best"), "", "strategy"),
        ((), "[agents]\ncuont = 3\n", "cuont"),
        ((), "[agents]\ncount = 'three'\n", "count"),
        ((), "[agents", "config.toml"),
    ],
)
def test_wrong_usage_and_configuration_is_status_two(yard: Yard, args: tuple[str, ...], config: str, named: str) -> None:
    """What is wrong with options or configuration is said in one line that names it; exit status 2."""
    yard.configure(config)
    done = yard.once(*args)
    assert done.returncode == 2
    assert named in one_line(done)
    assert done.stdout == ""


def test_a_second_daemon_is_status_four(yard: Yard) -> None:
    """The state folder has one holder; another `serve` or `run` exits 4 and names it, and the first goes on."""
    daemon = yard.serve()
    source = yard.folder / "source"
    source.mkdir()
    (source / "predicted_tasks.jsonl").write_text('{"task_id": "a", "agent_id": "agent_0"}\n')
    second = yard.once()
    assert second.returncode == 4
    assert str(daemon.pid) in one_line(second)
    assert yard.call("run", source).returncode == 4
    yard.append(wave("r", sure("a")))
    daemon.event("wave_completed", run_id="r")
    assert daemon.stop() == 0


def test_unknown_run_is_status_three(yard: Yard) -> None:
    """A run that nobody knows is said to be unknown; exit status 3."""
    yard.append(wave("r", sure("a")))
    yard.once()
    for verb in ("report", "rebuild", "status"):
        done = yard.call(verb, "nobody")
        assert (verb, done.returncode) == (verb, 3)
        assert "nobody" in one_line(done)


def test_refused_input_is_status_three_and_appends_nothing(yard: Yard) -> None:
    """`submit` appends all or none: one bad line among good ones, and the queue stays as it was."""
    done = yard.call("submit", "-", text='{"run_id": "r", "tasks": [{"task_id": "a"}]}\n{"run_id": "r", "tasks": []}\n')
    assert done.returncode == 3
    assert "tasks" in one_line(done)
    assert not yard.queue.exists() or not yard.queue.read_bytes()


def test_once_cut_by_a_signal_says_which(yard: Yard) -> None:
    """A signal that leaves work undone makes `--once` exit 128+n; attempts under way ended first."""
    yard.append(wave("r", yard.held("a", agent_id="agent_0"), sure("b", agent_id="agent_0")))
    daemon = yard.serve("--once")
    yard.running("a")
    daemon.tell(signal.SIGTERM)
    daemon.event("service_stopping")
    yard.release("a")
    assert daemon.end() == 143
    assert yard.once().returncode == 0
    assert yard.statuses("r") == {"a": "COMPLETED", "b": "COMPLETED"}
    assert yard.starts("a") == 1


def test_every_line_on_stdout_is_an_event(yard: Yard) -> None:
    """Each line of `serve` in a pipe is a JSON event with time, level and name, at DEBUG too; the log file holds the same."""
    yard.append(wave("r", sure("a"), doomed("b"), yard.counted("c")), b"not json")
    done = yard.once("--log-level", "DEBUG")
    assert done.stderr == ""
    events = [json.loads(line) for line in done.stdout.splitlines()]
    for event in events:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(\+00:00|Z)", event["timestamp"])
        assert event["level"] in LEVELS
        assert event["event"]
    names = [event["event"] for event in events]
    for name in ("service_started", "submission_accepted", "submission_rejected", "wave_started", "task_assigned", "gate_verdict",
                 "attempt_started", "task_completed", "task_failed", "wave_completed", "signal_generated", "service_stopped"):  # fmt: skip
        assert name in names, name
    assert (yard.state / "logs" / "phase21.jsonl").read_text() == done.stdout


def test_each_event_of_a_task_says_where(yard: Yard) -> None:
    """An event about a task names run, wave, agent, task and attempt."""
    yard.append(wave("r", doomed("a")))
    daemon = yard.serve()
    failed = daemon.event("task_failed")
    assert {"run_id": "r", "wave": 1, "task_id": "a", "attempt": 1}.items() <= failed.items()
    assert failed["agent_id"].startswith("agent_")
    assert failed["level"] == "WARNING"


def test_systemd_is_told(yard: Yard, tmp_path: Path) -> None:
    """READY once started, WATCHDOG while it runs, STOPPING when told to stop."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        address = tmp_path / "notify"
        systemd.bind(str(address))
        systemd.settimeout(10)
        daemon = yard.serve(NOTIFY_SOCKET=str(address), WATCHDOG_USEC="100000")
        said = [systemd.recv(1024).decode() for _ in range(4)]
        assert said[0].splitlines() == ["READY=1"]
        assert said[1:] == ["WATCHDOG=1"] * 3
        assert daemon.stop() == 0
        systemd.setblocking(False)
        rest = []
        while not rest or rest[-1] != "STOPPING=1":
            rest.append(systemd.recv(1024).decode())
        assert set(rest) <= {"WATCHDOG=1", "STOPPING=1"}


def test_status_says_whether_a_daemon_runs(yard: Yard) -> None:
    """`status --json` works with and without a daemon."""
    daemon = yard.serve()
    yard.append(wave("r", yard.held("a")))
    yard.running("a")
    shown = until(lambda: (found := json.loads(yard.call("status", "--json").stdout))["runs"] and found, "the run in status")
    assert (shown["daemon"]["running"], shown["daemon"]["pid"]) == (True, daemon.pid)
    assert shown["runs"][0]["state"] == "running"
    assert [agent["current_task"] for agent in shown["agents"]].count("a") == 1
    yard.release("a")
    daemon.event("run_idle", run_id="r")
    assert daemon.stop() == 0
    shown = json.loads(yard.call("status", "--json").stdout)
    assert shown["daemon"] == {"running": False, "pid": None, "since": None}
    assert shown["queue"]["pending_bytes"] == 0
    assert shown["runs"][0]["state"] == "idle"
    assert shown["runs"][0]["tasks"] == {"COMPLETED": 1}


def test_it_works_on_where_nobody_reads_its_stdout(yard: Yard) -> None:
    """A daemon whose stdout has lost its reader works on, logs to its file, and exits 0 when told to stop."""
    argv = yard._argv("serve", ())
    with subprocess.Popen(argv, env=yard.env, cwd=yard.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as daemon:
        assert daemon.stdout is not None
        assert daemon.stderr is not None
        daemon.stdout.readline()
        daemon.stdout.close()
        yard.append(wave("r", sure("a")))
        until(lambda: yard.statuses("r") == {"a": "COMPLETED"}, "the work")
        until(lambda: '"wave_completed"' in (yard.state / "logs" / "phase21.jsonl").read_text(), "the log")
        daemon.terminate()
        assert daemon.wait(PATIENCE_S) == 0
        assert daemon.stderr.read() == b""


def test_status_and_report_change_nothing(yard: Yard) -> None:
    """Verbs that only look make no folder and no file."""
    assert yard.call("status").returncode == 0
    assert yard.call("check").returncode == 0
    assert not yard.state.exists()
    assert not yard.outputs.exists()


def test_what_a_function_prints_is_no_line_of_the_log(yard: Yard) -> None:
    """What Python functions print, in a thread or in the loop, goes to stderr: every line on stdout stays an event."""
    (yard.folder / "noisy.py").write_text(
        "def plain():\n    print('from a thread')\n\nasync def waiting():\n    print('from the loop')\n"
    )
    yard.configure("[handlers]\npython_modules = ['noisy']\n")
    calls = {name: {"task_id": name, "kind": "python", "payload": {"callable": f"noisy:{name}"}} for name in ("plain", "waiting")}
    yard.append(wave("r", calls["plain"], {**calls["waiting"], "depends_on": ["plain"]}))
    done = yard.once()
    assert done.returncode == 0
    assert [json.loads(line)["event"] for line in done.stdout.splitlines()][-1] == "service_stopped"
    assert done.stderr == "from a thread\nfrom the loop\n"
