"""The verb `run`, dry runs, and what must appear in no log."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from yard import Yard, alive, files_under, one_line, sure, until, wave


def folder_of(yard: Yard, *tasks: dict[str, Any]) -> Path:
    """A Phase 20 folder with these tasks."""
    source = yard.folder / "forecast"
    source.mkdir()
    (source / "predicted_tasks.jsonl").write_text("".join(f"{json.dumps({'agent_id': 'agent_0', **task})}\n" for task in tasks))
    return source


def test_run_twice_runs_nothing_the_second_time(yard: Yard) -> None:
    """A finished run is reported again with its verdict, and nothing of it runs."""
    source = folder_of(yard, yard.counted("a"), yard.counted("b", "exit 1", max_attempts=1))
    first = yard.call("run", source)
    assert first.returncode == 1
    assert yard.statuses("forecast") == {"a": "COMPLETED", "b": "FAILED"}
    before = {path: path.read_bytes() for path in yard.outputs.rglob("*") if path.is_file()}
    second = yard.call("run", source)
    assert (second.returncode, second.stdout) == (1, first.stdout)
    assert [yard.starts(name) for name in "ab"] == [1, 1]
    assert {path: path.read_bytes() for path in yard.outputs.rglob("*") if path.is_file()} == before


def test_a_killed_run_goes_on(yard: Yard) -> None:
    """After kill -9, `run` goes on where it was: what is done stays done, what must not run twice is FAILED."""
    source = folder_of(yard, yard.counted("done", priority=1), yard.held("never", idempotent=False))
    process = yard.begin("run", source)
    pid = yard.running("never")
    assert yard.starts("done") == 1
    until(lambda: '"COMPLETED"' in yard.call("status", "forecast", "--json").stdout, "the outcome on disk")
    process.kill()
    done = yard.call("run", source)
    assert done.returncode == 1
    assert not alive(pid)
    rows = yard.outcomes("forecast")
    assert {task_id: row["status"] for task_id, row in rows.items()} == {"done": "COMPLETED", "never": "FAILED"}
    assert [yard.starts(name) for name in ("done", "never")] == [1, 1]


def test_a_signal_leaves_the_rest_of_a_run(yard: Yard) -> None:
    """SIGTERM lets the attempt under way end, exits 143, and the next `run` does the rest."""
    source = folder_of(yard, yard.held("a", agent_id="agent_0", priority=1), yard.counted("b", agent_id="agent_0"))
    process = yard.begin("run", source, "--agents", 1)
    yard.running("a")
    process.tell(signal.SIGTERM)
    yard.release("a")
    assert process.end() == 143
    assert yard.call("run", source, "--agents", 1).returncode == 0
    assert [yard.starts(name) for name in "ab"] == [1, 1]


def test_a_folder_without_predictions_is_refused(yard: Yard) -> None:
    """A folder that holds no task is refused in one line; exit status 3."""
    (yard.folder / "empty").mkdir()
    done = yard.call("run", yard.folder / "empty")
    assert done.returncode == 3
    assert "empty" in one_line(done)


def test_bad_rows_of_a_folder_are_set_aside(yard: Yard) -> None:
    """A bad row of a folder stands in rejected.jsonl with file and line, and the others are done."""
    source = folder_of(yard, sure("a"))
    with (source / "predicted_tasks.jsonl").open("a") as file:
        file.write('{"task_id": "../b"}\n')
    assert yard.call("run", source).returncode == 0
    (row,) = yard.rejected()
    assert row["line"] == 2
    assert row["file"].endswith("predicted_tasks.jsonl")
    assert yard.statuses("forecast") == {"a": "COMPLETED"}


@pytest.mark.parametrize("verb", ["run", "serve"])
def test_a_dry_run_executes_nothing(yard: Yard, verb: str) -> None:
    """In a dry run nothing real is executed, every result is simulated, and the output says so."""
    task = yard.counted("a", predicted_success_rate=1.0, risk_level="HIGH")
    if verb == "run":
        done = yard.call("run", folder_of(yard, task), "--dry-run")
        assert "dry run" in done.stdout
    else:
        yard.append(wave("forecast", task))
        done = yard.once("--dry-run")
        assert '"dry_run":true' in done.stdout
    assert done.returncode == 0
    assert yard.starts("a") == 0
    row = yard.outcomes("forecast")["a"]
    assert (row["status"], row["result"]) == ("COMPLETED", {"simulated": True})


def test_values_of_env_appear_nowhere(yard: Yard) -> None:
    """A command sees its env; its values stand in no log and no output, though the command prints them and fails."""
    secret = "hunter2-very-secret"
    task = yard.counted("a", 'echo "$TOKEN"; echo "$TOKEN" >&2; test -n "$TOKEN" && exit 7', max_attempts=1)
    task["payload"]["env"] = {"TOKEN": secret}
    yard.append(wave("r", task))
    done = yard.once("--log-level", "DEBUG")
    assert done.returncode == 1
    assert yard.outcomes("r")["a"]["result"]["exit_status"] == 7
    assert secret not in done.stdout + done.stderr
    for folder in (yard.outputs, yard.state / "logs"):
        for path in files_under(folder):
            assert path.is_dir() or secret not in path.read_text(), path


def test_a_command_knows_where_it_stands(yard: Yard) -> None:
    """A command finds its run, wave, task, agent and attempt in its environment."""
    names = " ".join(f"$PHASE21_{name}" for name in ("RUN_ID", "WAVE", "TASK_ID", "AGENT_ID", "ATTEMPT"))
    yard.append(
        wave("r", {"task_id": "a", "kind": "command", "agent_id": "agent_2", "payload": {"argv": ["sh", "-c", f"echo {names}"]}})
    )
    yard.once()
    assert yard.outcomes("r")["a"]["result"] == {"exit_status": 0, "stdout": "r 1 a agent_2 1\n", "stderr": ""}
