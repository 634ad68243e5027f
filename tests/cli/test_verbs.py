"""The verbs that carry out, show, decide and rebuild."""

from __future__ import annotations

import os
import subprocess

import pytest

from phase21.store import codec, files

RISKY = {"task_id": "risky", "risk_level": "HIGH", "predicted_success_rate": 0.95}


def tree(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# -- run and serve -----------------------------------------------------------------------------------------------------


def test_run_carries_out_a_folder_and_says_how_it_ended(shell):
    """A run ends with a summary for a person; run again it says the same and runs nothing."""
    folder = shell.predictions("nightly")
    first = shell("run", folder, "--agents", "2", "--seed", "1")
    assert first.exit_code == 0, first.stderr
    assert "2 COMPLETED" in first.stdout
    assert str(shell.outputs / "nightly") in first.stdout
    written = tree(shell.outputs)
    again = shell("run", folder, "--agents", "2", "--seed", "1")
    assert (again.exit_code, again.stdout) == (0, first.stdout)
    assert tree(shell.outputs) == written


def test_run_with_failures(shell):
    """A run whose tasks FAILED ends with 1, each time it is asked."""
    folder = shell.predictions("bad", {"task_id": "a", "payload": {"success_rate": 0}, "max_attempts": 1})
    assert [shell("run", folder).exit_code for _ in range(2)] == [1, 1]


def test_a_dry_run_says_so(shell):
    """A dry run executes nothing real and says that."""
    folder = shell.predictions(
        "dry", {"task_id": "a", "kind": "command", "payload": {"argv": ["touch", str(shell.folder / "made")]}}
    )
    result = shell("run", folder, "--dry-run")
    assert result.exit_code in {0, 1}
    assert "dry run: nothing real was executed" in result.stdout
    assert not (shell.folder / "made").exists()


def test_run_without_predictions(shell):
    """A folder without predictions is refused input."""
    (shell.folder / "empty").mkdir()
    result = shell("run", "empty")
    assert result.exit_code == 3
    assert "predicted_tasks.jsonl" in result.stderr


@pytest.mark.parametrize("verb", [["run", "planned"], ["serve"]], ids=str)
def test_one_holder_to_a_state_folder(shell, verb):
    """Where another process holds the state folder, nothing begins."""
    shell.predictions()
    with files.held(shell.state, {"pid": 4242}):
        result = shell(*verb)
    assert result.exit_code == 4
    assert "4242" in result.stderr


def test_serve_once(shell):
    """`serve --once` carries out what the queue file holds, logs events as JSON lines, and ends."""
    shell("submit", "-", stdin='{"run_id": "r", "tasks": [{"task_id": "a"}]}')
    with shell.process("serve", "--once", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, b"")
    events = [codec.decode(line)["event"] for line in out.splitlines()]
    assert events[0] == "service_started"
    assert {"submission_accepted", "wave_started", "wave_completed", "run_idle"} <= set(events)
    assert events[-1] == "service_stopped"
    assert [codec.decode(line)["event"] for line in (shell.state / "logs" / "phase21.jsonl").read_bytes().splitlines()] == events


def test_serve_refuses_an_open_queue(shell):
    """The daemon does not begin over a queue file that others may write."""
    shell.state.mkdir(mode=0o700)
    shell.queue.touch()
    shell.queue.chmod(0o622)
    assert shell("serve", "--once").exit_code == 2


# -- status ------------------------------------------------------------------------------------------------------------


def test_status_before_anything(shell):
    """Status answers where nothing ever ran, for a person and for a script, and makes nothing."""
    assert "no runs yet" in shell("status").stdout
    assert shell.status()["runs"] == []
    assert not shell.state.exists()


def test_status_of_one_run(shell):
    """With RUN it speaks of that run alone; of one that is not known it says so with 3."""
    shell("run", shell.predictions("one"))
    shell("submit", "-", stdin='{"run_id": "two", "tasks": [{"task_id": "a"}]}')
    assert [(run["run_id"], run["state"]) for run in shell.status()["runs"]] == [("one", "idle"), ("two", "queued")]
    assert [run["run_id"] for run in shell.status("two")["runs"]] == ["two"]
    table = shell("status", "one").stdout
    assert ("one" in table, "two" in table, "2 COMPLETED" in table) == (True, False, True)
    assert shell("status", "three").exit_code == 3


# -- tail --------------------------------------------------------------------------------------------------------------


def told(result):
    assert result.exit_code == 0, result.stderr
    return [codec.decode(line) for line in result.stdout.splitlines()]


def test_tail_filters(shell):
    """Tail prints all events, or those of a run, a wave, an agent, a level."""
    shell("run", shell.predictions("one", {"task_id": "a", "wave": 1}, {"task_id": "b", "wave": 2}), "--agents", "1")
    shell("run", shell.predictions("two"))
    everything = told(shell("tail"))
    assert {line["event"] for line in everything} >= {"service_started", "task_assigned", "task_completed", "wave_completed"}
    assert told(shell("tail", "--level", "INFO")) == [line for line in everything if line["level"] != "DEBUG"]
    assert told(shell("tail", "--run", "one")) == [line for line in everything if line.get("run_id") == "one"]
    second = told(shell("tail", "--run", "one", "--wave", "2", "--agent", "agent_0"))
    assert {line.get("task_id") for line in second} == {"b", None}
    assert shell("tail", "--run", "three").exit_code == 3


def test_tail_format(shell):
    """`--log-format console` is for a person also in a pipe."""
    shell("run", shell.predictions())
    said = shell("tail", "--log-format", "console", "--level", "INFO").stdout
    assert "wave_completed" in said
    assert not said.startswith("{")


def test_tail_follows_over_a_restart(shell):
    """`tail -f` begins before there is a state folder, and goes on over a daemon's end and the next one's beginning."""
    with shell.process(
        "tail", "-f", "--level", "INFO", stdout=subprocess.PIPE, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    ) as process:
        try:
            for number in range(2):
                shell("submit", "-", stdin=f'{{"run_id": "r{number}", "tasks": [{{"task_id": "a"}}]}}')
                with shell.process("serve", "--once", stdout=subprocess.DEVNULL) as serving:
                    assert serving.wait(60) == 0
                seen = []
                for line in process.stdout:
                    seen.append(codec.decode(line)["event"])
                    if seen[-1] == "service_stopped":
                        break
                assert seen[0] == "service_started"
                assert "wave_completed" in seen
        finally:
            process.terminate()


# -- report and rebuild ------------------------------------------------------------------------------------------------


def test_report_needs_no_outputs(shell):
    """The report is what stands in the run's folder, also when the folder is gone."""
    shell("run", shell.predictions("one"))
    written = (shell.outputs / "one" / "PHASE_21_AUTONOMOUS_EXECUTION.md").read_text()
    (shell.outputs / "one").rename(shell.folder / "gone")
    assert shell("report", "one").stdout == written
    assert shell("report", "two").exit_code == 3


def test_rebuild_elsewhere_is_the_same_byte_for_byte(shell):
    """A rebuilt folder is the one that was written."""
    shell("run", shell.predictions("one", {"task_id": "a", "wave": 1}, {"task_id": "b", "wave": 2}))
    result = shell("rebuild", "one", "--outputs", shell.folder / "copy")
    assert result.exit_code == 0, result.stderr
    assert "2 waves" in result.stdout
    assert tree(shell.folder / "copy") == tree(shell.outputs)
    assert shell("rebuild", "two").exit_code == 3


def test_rebuild_keeps_off_what_a_daemon_writes(shell):
    """While a daemon has the run under way its folder is left alone; a copy elsewhere is made."""
    shell("run", shell.predictions("one"))
    with shell.daemon():
        waits = '{"run_id": "one", "tasks": [{"task_id": "held", "payload": {"duration_s": 60}}]}'
        shell("submit", "-", stdin=waits)
        shell.until("attempt_started", task_id="held")
        assert shell("rebuild", "one").exit_code == 4
        assert shell("rebuild", "one", "--outputs", shell.folder / "copy").exit_code == 0
        shell("cancel", "one")
        shell.until("task_cancelled", task_id="held")


# -- controls ----------------------------------------------------------------------------------------------------------


def test_controls_append_to_the_queue(shell):
    """Each control is a line of the queue file with an id that is printed; tasks go only with approve and cancel."""
    shell("run", shell.predictions("one", {"task_id": "a"}, RISKY))
    said = [shell(*args) for args in (("approve", "one"), ("cancel", "one", "a", "risky"), ("pause", "one"), ("resume", "one"))]
    assert [result.exit_code for result in said] == [0] * 4
    lines = [codec.decode(line) for line in shell.queue.read_bytes().splitlines()]
    assert [line.pop("submission_id") for line in lines] == [result.stdout.strip() for result in said]
    assert lines == [
        {"run_id": "one", "control": "approve"},
        {"run_id": "one", "control": "cancel", "task_ids": ["a", "risky"]},
        {"run_id": "one", "control": "pause"},
        {"run_id": "one", "control": "resume"},
    ]
    assert shell("pause", "one", "a").exit_code == 2


def test_controls_of_what_is_not_known(shell):
    """A run or task that nobody gave is refused; a run that waits in the queue file is known."""
    assert shell("pause", "one").exit_code == 3
    assert not shell.queue.exists()
    shell("submit", "-", stdin='{"run_id": "one", "tasks": [{"task_id": "a"}]}')
    assert shell("pause", "one").exit_code == 0
    assert shell("cancel", "one", "b").exit_code == 3


def test_approval_lets_a_deferred_task_run(shell):
    """What was deferred for want of approval runs once it is approved."""
    shell("run", shell.predictions("one", RISKY))
    assert shell.status()["runs"][0]["tasks"] == {"DEFERRED": 1}
    shell("approve", "one")
    with shell.process("serve", "--once", stdout=subprocess.DEVNULL) as process:
        assert process.wait(60) in {0, 1}
    assert "DEFERRED" not in shell.status()["runs"][0]["tasks"]


# -- check -------------------------------------------------------------------------------------------------------------


def test_check_changes_nothing(shell):
    """Check makes no folder and no file, and finds nothing wrong where nothing is."""
    result = shell("check")
    assert result.exit_code == 0
    assert {line.split()[0] for line in result.stdout.splitlines()} == {"ok"}
    assert list(shell.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("break_", "status", "what"),
    [
        (lambda shell: shell.queue.write_bytes(b'{"run_id": "r", "wave": 0}\n'), 3, "queue.jsonl:1"),
        (lambda shell: shell.queue.chmod(0o666), 2, "queue"),
        (lambda shell: (shell.state / "journal.db").write_bytes(b"no database" * 100), 2, "journal.db"),
        (lambda shell: (shell.folder / "planned" / "predicted_tasks.jsonl").write_text("{}\n"), 3, "predicted_tasks.jsonl:1"),
        (lambda shell: (shell.folder / "own.toml").write_text("[retry]\nmax_attempts = 0\n"), 2, "retry.max_attempts"),
    ],
    ids=["queue", "permissions", "state", "predictions", "configuration"],
)
def test_check_finds_what_is_wrong(shell, break_, status, what):
    """Each part that is wrong is named on a line of its own, and the exit status says of what sort it is."""
    shell.state.mkdir(mode=0o700)
    shell.queue.touch(mode=0o600)
    (shell.folder / "own.toml").touch()
    args = ("check", "--config", "own.toml", "--predictions", shell.predictions())
    assert shell(*args).exit_code == 0
    break_(shell)
    result = shell(*args)
    assert result.exit_code == status
    (wrong,) = [line for line in result.stdout.splitlines() if line.startswith("WRONG")]
    assert what in wrong
