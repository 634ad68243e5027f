"""The verbs that carry out, show, decide and rebuild."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from phase21.cli import phase21
from phase21.store import codec, files

ROOT = Path(__file__).parents[2]
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


@pytest.mark.parametrize("run_id", ["", "../elsewhere", "a/b", "a b", ".x", "-x", "x" * 129])
def test_run_under_an_illegal_name(shell, run_id):
    """A run id is held to its form before anything is made: nothing can stand outside the outputs."""
    result = shell("run", shell.predictions(), f"--run-id={run_id}")
    assert result.exit_code == 3
    assert "run_id" in result.stderr
    assert result.stderr.count("\n") == 1
    assert [path.name for path in shell.folder.iterdir()] == ["planned"]


def test_where_things_stand_by_default(shell):
    """Without options the state is in phase21_state, the outputs in phase21_outputs, and the queue file within the state."""
    shell.predictions()
    assert CliRunner().invoke(phase21, ["run", "planned"]).exit_code == 0
    assert CliRunner().invoke(phase21, ["submit", "--predictions", "planned", "--run-id", "other"]).exit_code == 0
    assert (shell.folder / "phase21_outputs" / "planned" / "wave_1").is_dir()
    assert (shell.folder / "phase21_state" / "queue.jsonl").stat().st_size
    assert {path.name for path in shell.folder.iterdir()} == {"planned", "phase21_state", "phase21_outputs"}


def test_the_seed_decides_what_is_simulated(shell, monkeypatch):
    """The same `--seed` gives the same outcomes, another one others; it is the configuration's `handlers.seed`."""
    rows = [{"task_id": f"t{n}", "payload": {"success_rate": 0.5}, "max_attempts": 1} for n in range(20)]
    folder = shell.predictions("drawn", *rows)

    def drawn(name, *args):
        shell.state, shell.outputs = shell.folder / name, shell.folder / f"{name}-outputs"
        assert shell("run", folder, *args).exit_code == 1
        found = [
            codec.decode(line) for path in shell.outputs.rglob("executed_tasks.jsonl") for line in path.read_bytes().splitlines()
        ]
        return {row["task_id"]: row["status"] for row in found}

    first = drawn("first", "--seed", "7")
    monkeypatch.setenv("PHASE21_HANDLERS__SEED", "7")
    assert first == drawn("again")
    assert first != drawn("other", "--seed", "8")


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


def test_a_queue_of_another_user_is_not_read(shell, monkeypatch):
    """The daemon does not begin over a queue file of another user, status 2, unless `queue.allow_shared` is set."""
    shell("submit", "-", stdin='{"run_id": "r", "tasks": [{"task_id": "a"}]}')
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    result = shell("serve", "--once")
    assert result.exit_code == 2
    assert "another user" in result.stderr
    monkeypatch.setenv("PHASE21_QUEUE__ALLOW_SHARED", "true")
    assert shell("serve", "--once").exit_code == 0
    assert shell.status()["runs"][0]["tasks"] == {"COMPLETED": 1}


def test_a_bar_on_a_terminal(shell):
    """A run shows a progress bar where stderr is a terminal, and its summary on stdout is the same as ever."""
    master, terminal = pty.openpty()
    with shell.process("run", shell.predictions(), stdout=subprocess.PIPE, stderr=terminal) as process:
        os.close(terminal)
        shown = b""
        with contextlib.suppress(OSError):  # a terminal whose other side has gone
            while read := os.read(master, 4096):
                shown += read
        said = process.stdout.read().decode()
    os.close(master)
    assert process.returncode == 0
    assert b"run planned" in shown
    assert b"\x1b[" in shown
    assert "2 COMPLETED" in said
    assert "\x1b" not in said


def test_no_bar_in_a_pipe(shell):
    """Where stderr is no terminal, a run says nothing on it."""
    assert shell("run", shell.predictions()).stderr == ""


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
    """Each control is a line of the queue file with an id that is printed, of a run or of tasks of it."""
    shell("run", shell.predictions("one", {"task_id": "a"}, RISKY))
    asked = (("approve", "one"), ("cancel", "one", "a", "risky"), ("pause", "one"), ("resume", "one"), ("pause", "one", "a"))
    said = [shell(*args) for args in asked]
    assert [result.exit_code for result in said] == [0] * 5
    lines = [codec.decode(line) for line in shell.queue.read_bytes().splitlines()]
    assert [line.pop("submission_id") for line in lines] == [result.stdout.strip() for result in said]
    assert lines == [
        {"run_id": "one", "control": "approve"},
        {"run_id": "one", "control": "cancel", "task_ids": ["a", "risky"]},
        {"run_id": "one", "control": "pause"},
        {"run_id": "one", "control": "resume"},
        {"run_id": "one", "control": "pause", "task_ids": ["a"]},
    ]


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


# -- the configuration in force ----------------------------------------------------------------------------------------


def logs(shell):
    return {path.name: path.read_bytes() for path in (shell.state / "logs").iterdir()}


def served(shell, *args, **env):
    shell("submit", "-", stdin='{"run_id": "r", "tasks": [{"task_id": "a"}, {"task_id": "b"}]}')
    with shell.process("serve", "--once", *args, stdout=subprocess.PIPE, env={**os.environ, **env}) as process:
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return out.decode()


def test_the_logging_section_rules_the_log(shell):
    """Level and format are the configuration's, and the log file is JSON rotated at its size with so many backups."""
    (shell.folder / "own.toml").write_text('[logging]\nlevel = "DEBUG"\nformat = "console"\nmax_bytes = 1024\nbackups = 1\n')
    out = served(shell, "--config", "own.toml")
    assert "[debug    ] task_completed" in out
    written = logs(shell)
    assert written.keys() == {"phase21.jsonl", "phase21.jsonl.1"}
    assert all(len(data) <= 1024 for data in written.values())
    assert {type(codec.decode(line)) for data in written.values() for line in data.splitlines()} == {dict}


def test_a_log_level_on_the_command_line_beats_the_environment(shell):
    """Options beat the environment in what the daemon says, on stdout and in its file alike."""
    assert served(shell, PHASE21_LOGGING__LEVEL="ERROR") == ""
    assert served(shell, "--log-level", "INFO", PHASE21_LOGGING__LEVEL="ERROR").count('"service_started"') == 1
    assert b"".join(logs(shell).values()).count(b'"service_started"') == 1


def test_the_default_timeout_counts_where_a_task_has_none(shell):
    """`handlers.default_timeout` ends an attempt whose task does not say `timeout_s`, and no other."""
    (shell.folder / "own.toml").write_text("[handlers]\ndefault_timeout = 0.05\n[retry]\nmax_attempts = 1\n")
    slow = {"payload": {"duration_s": 0.3, "success_rate": 1.0}}
    folder = shell.predictions("slow", {"task_id": "a", **slow}, {"task_id": "b", "timeout_s": 30, **slow})
    assert shell("run", folder, "--config", "own.toml").exit_code == 1
    assert shell.status()["runs"][0]["tasks"] == {"COMPLETED": 1, "FAILED": 1}


def test_the_queue_and_the_fleet_are_the_configurations_unless_an_option_says_otherwise(shell):
    """`queue.path` names the queue file and `agents.fleet` the agents; `--queue` and `--agents` beat them."""
    (shell.folder / "own.toml").write_text('[queue]\npath = "mine.jsonl"\n[agents]\nfleet = [{ id = "only" }]\n')
    said = shell("check", "--config", "own.toml").stdout
    assert (str(shell.folder / "mine.jsonl") in said, " 1 agents" in said) == (True, True)
    said = shell("check", "--config", "own.toml", "--queue", "other.jsonl", "--agents", "3").stdout
    assert (str(shell.folder / "other.jsonl") in said, " 3 agents" in said) == (True, True)


def test_execution_dry_run_is_a_dry_run(shell):
    """`execution.dry_run` in the configuration is the option's like."""
    folder = shell.predictions(
        "dry", {"task_id": "a", "kind": "command", "payload": {"argv": ["touch", str(shell.folder / "made")]}}
    )
    said = shell("run", folder, "--config", ROOT / "config" / "dry-run.toml").stdout
    assert "dry run: nothing real was executed" in said
    assert not (shell.folder / "made").exists()


# -- what the README shows ---------------------------------------------------------------------------------------------


def test_status_says_how_far_the_queue_was_read(shell):
    """`queue` names the file, the offset up to which it was read, and the bytes behind it."""
    served(shell)
    size = shell.queue.stat().st_size
    assert shell.status()["queue"] == {"path": str(shell.queue), "offset": size, "pending_bytes": 0}
    shell("resume", "r")
    assert shell.status()["queue"] == {
        "path": str(shell.queue), "offset": size, "pending_bytes": shell.queue.stat().st_size - size,
    }  # fmt: skip


def test_the_bundled_example_is_carried_out_as_the_readme_shows(shell):
    """What `make run` calls carries out the bundled example with the defaults, and shows the result in the README's words."""
    result = shell("run", ROOT / "examples" / "first-run")
    assert result.exit_code == 0, result.stderr
    shown = result.stdout.splitlines()
    readme = (ROOT / "README.md").read_text().splitlines()
    assert shown[0] in readme
    assert shown[1].startswith("waves 3, anomalies 0, health of the last wave 9")
    assert [line.split()[:3] for line in shown if line.startswith("agent_")] == [
        line.split()[:3] for line in readme if line.startswith("agent_") and line.endswith(" s")
    ]
    assert f"outputs: {shell.outputs / 'first-run'}" in shown


def test_check_leaves_what_stands_as_it_was(shell):
    """Check reads a journal and a queue that hold something, and changes no byte of any file."""
    shell("run", shell.predictions())
    shell("submit", "-", stdin='{"run_id": "two", "tasks": [{"task_id": "a"}]}')
    before = tree(shell.folder)
    result = shell("check", "--predictions", "planned")
    assert (result.exit_code, "1 line waits" in result.stdout) == (0, True)
    after = tree(shell.folder)
    assert {path: after.get(path) for path in before} == before


# -- where settings come from ------------------------------------------------------------------------------------------


def test_options_beat_environment_beats_file(shell, monkeypatch):
    """A verb's options go before PHASE21_SECTION__KEY, that before the file, key by key."""
    (shell.folder / "own.toml").write_text("[agents]\ncount = 5\n[manager]\nstrategy = 'priority_based'\n")

    def found(*args):
        return shell("check", *args).stdout.splitlines()[0].split("configuration")[1].strip()

    assert found() == "4 agents, load_balanced"
    assert found("--config", "own.toml") == "5 agents, priority_based"
    monkeypatch.setenv("PHASE21_AGENTS__COUNT", "6")
    assert found("--config", "own.toml") == "6 agents, priority_based"
    options = ("--agents", "7", "--strategy", "round_robin", "--dry-run")
    assert found("--config", "own.toml", *options) == "7 agents, round_robin, dry run"


def test_agents_beats_a_fleet_that_the_file_names(shell):
    """`--agents N` gives N agents, whatever agents the file names."""
    (shell.folder / "own.toml").write_text("[[agents.fleet]]\nid = 'only'\n")
    assert "1 agents" in shell("check", "--config", "own.toml").stdout
    assert "3 agents" in shell("check", "--config", "own.toml", "--agents", "3").stdout


def test_the_queue_file_is_where_it_is_said_to_be(shell, monkeypatch):
    """The queue file is the option's, else the environment's, else the file's, else in the state folder."""
    (shell.folder / "own.toml").write_text("[queue]\npath = 'filed.jsonl'\n")

    def path(*args):
        return codec.decode(shell("status", "--json", *args).stdout)["queue"]["path"]

    assert path() == str(shell.queue)
    assert path("--config", "own.toml") == str(shell.folder / "filed.jsonl")
    monkeypatch.setenv("PHASE21_QUEUE__PATH", "environment.jsonl")
    assert path("--config", "own.toml") == str(shell.folder / "environment.jsonl")
    assert path("--config", "own.toml", "--queue", "option.jsonl") == str(shell.folder / "option.jsonl")


def test_the_daemons_lines_for_a_person(shell):
    """`serve --log-format console` is readable on stdout; the log file holds JSON lines all the same."""
    result = shell("serve", "--once", "--log-format", "console")
    assert result.exit_code == 0
    assert "service_started" in result.stdout
    assert not result.stdout.startswith("{")
    assert codec.decode((shell.state / "logs" / "phase21.jsonl").read_bytes().splitlines()[0])["event"] == "service_started"


def test_a_store_whose_tables_were_never_made(shell):
    """What a first start on a full disk left is as good as nothing: every verb goes on from there."""
    shell.state.mkdir(mode=0o700)
    (shell.state / "journal.db").touch(mode=0o600)
    assert "no runs yet" in shell("status").stdout
    assert shell("check").exit_code == 0
    assert shell("submit", "-", stdin='{"run_id": "two", "tasks": [{"task_id": "a"}]}').exit_code == 0
