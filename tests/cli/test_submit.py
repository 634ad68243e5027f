"""The verb `submit`: checks as the daemon does, all or none; waits."""

from __future__ import annotations

import contextlib
import re
import subprocess

import pytest

from phase21.store import codec

TASKS = [{"task_id": "a"}, {"task_id": "b"}]
ONE = {"run_id": "r", "tasks": TASKS}


def lines(shell):
    return [codec.decode(line) for line in shell.queue.read_bytes().splitlines()]


def test_appends_with_an_id_and_prints_it(shell):
    """A submission without an id is given one, which is printed; one with an id keeps it."""
    result = shell("submit", shell.file("w.jsonl", ONE, {**ONE, "run_id": "s", "submission_id": "mine"}))
    assert result.exit_code == 0, result.stderr
    first, second = result.stdout.split()
    assert re.fullmatch("[0-9a-f]{32}", first)
    assert second == "mine"
    assert lines(shell) == [{**ONE, "submission_id": first}, {**ONE, "run_id": "s", "submission_id": "mine"}]
    assert shell.queue.stat().st_mode & 0o777 == 0o600
    assert shell.state.stat().st_mode & 0o777 == 0o700


def test_one_object_over_many_lines(shell):
    """A file may hold one JSON object over many lines; it becomes one line, its text otherwise as it was."""
    text = '{\r\n  "run_id": "r", "metadata": {"exact": 1.10, "said": "x\\ny"},\n  "tasks": [{"task_id": "a"}]\n}\n'
    result = shell("submit", "-", stdin=text)
    assert result.exit_code == 0, result.stderr
    assert shell.queue.read_bytes().count(b"\n") == 1
    assert b'"exact": 1.10, "said": "x\\ny"' in shell.queue.read_bytes()


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ('{"run_id": "r", "tasks": [{"task_id": "a", "priority": "high"}]}', "w.json:1: tasks[0].priority"),
        ('{"run_id": "r", "tasks": [{"task_id": "a"}]}\n\n{"run_id": "s"}', "w.json:3: nothing to do"),
        ('{"run_id": "r",\n "tasks": [{"task_id": "a",}]}', "w.json:2: JSON"),
        ('{"run_id": "r", "tasks": [{"task_id": "a"}]}\n{"run_id"', "w.json:2: "),
        ('{"run_id": "r", "tasks": [{"task_id": "a", "colour": 1}]}', "colour"),
        ("", "holds no submission"),
        ('[{"run_id": "r", "control": "pause"}]', "w.json:1: "),
        ('{"run_id": "r", "predictions": "no/such"}', "no/such"),
    ],
)
def test_refused_with_file_line_and_field(shell, text, where):
    """What is refused names file, line and field, and nothing at all is appended."""
    (shell.folder / "w.json").write_text(text)
    result = shell("submit", shell.file("good.jsonl", ONE), "w.json")
    assert result.exit_code == 3
    assert where in result.stderr
    assert result.stderr.count("\n") == 1
    assert not shell.queue.exists()


def test_what_contradicts_the_store_or_the_queue_is_refused(shell):
    """A task id or wave given before is refused at once, whether the daemon has read it yet or not."""
    assert shell("run", shell.predictions(), "--run-id", "r").exit_code == 0
    for text in ({"run_id": "r", "wave": 1, "tasks": [{"task_id": "new"}]}, {"run_id": "r", "tasks": [{"task_id": "a"}]}):
        assert shell("submit", shell.file("w.jsonl", text)).exit_code == 3
    fresh = {"run_id": "r", "tasks": [{"task_id": "new"}]}
    assert shell("submit", shell.file("w.jsonl", fresh, fresh)).exit_code == 3
    assert not shell.queue.exists()
    assert shell("submit", shell.file("w.jsonl", fresh)).exit_code == 0
    result = shell("submit", shell.file("w.jsonl", fresh))
    assert result.exit_code == 3
    assert "tasks[0].task_id" in result.stderr


def test_a_dependency_within_one_call(shell):
    """A submission may build on one before it in the same call, and not on what nobody gave."""
    later = {"run_id": "r", "tasks": [{"task_id": "c", "depends_on": ["a"]}]}
    assert shell("submit", shell.file("w.jsonl", later)).exit_code == 3
    assert shell("submit", shell.file("w.jsonl", ONE, later)).exit_code == 0


def test_the_same_id_again_is_no_error(shell):
    """A submission id that was given before is submitted again without complaint: the daemon counts it once."""
    named = {**ONE, "submission_id": "mine"}
    assert shell("submit", shell.file("w.jsonl", named, named)).exit_code == 0


def test_a_folder(shell):
    """A Phase 20 folder is submitted by its absolute path, under its own name or the one given."""
    folder = shell.predictions("night run")
    assert shell("submit", "--predictions", "night run").exit_code == 0
    assert shell("submit", "--predictions", folder, "--run-id", "other").exit_code == 0
    assert [(line["run_id"], line["predictions"]) for line in lines(shell)] == [("night-run", str(folder)), ("other", str(folder))]


def test_a_path_in_a_file_is_made_absolute(shell):
    """A relative folder counts from here, else from where the queue file stands."""
    folder = shell.predictions("here")
    shell.state.mkdir()
    shell.predictions("beside").rename(shell.state / "beside")
    result = shell("submit", shell.file("w.jsonl", *({"run_id": name, "predictions": name} for name in ("here", "beside"))))
    assert result.exit_code == 0, result.stderr
    assert [line["predictions"] for line in lines(shell)] == [str(folder), str(shell.state / "beside")]


def test_rows_set_aside_are_said(shell):
    """Rows of a folder that cannot be used are told on stderr, and the rest is submitted."""
    folder = shell.predictions("half", {"task_id": "a"}, {"task_id": "b", "priority": "x"})
    result = shell("submit", "--predictions", folder)
    assert result.exit_code == 0
    assert "predicted_tasks.jsonl:2" in result.stderr


def test_a_queue_open_to_others_is_not_written(shell):
    """A queue file that others may write is refused with status 2."""
    shell.state.mkdir()
    shell.queue.touch()
    shell.queue.chmod(0o666)
    assert shell("submit", shell.file("w.jsonl", ONE)).exit_code == 2
    assert shell.queue.read_bytes() == b""


@pytest.mark.parametrize(
    "args", [["--wait"], ["-", "--predictions", "d"], ["-", "--run-id", "r"], ["-", "--timeout", "1"]], ids=str
)
def test_options_that_do_not_go_together(shell, args):
    """What makes no sense together is wrong usage."""
    assert shell("submit", *args, stdin="{}").exit_code == 2


def test_wait_without_a_daemon_says_so_and_times_out(shell):
    """Without a daemon it says so once, waits on, and ends with 5; the submission stays in the queue."""
    result = shell("submit", shell.file("w.jsonl", ONE), "--wait", "--timeout", "0.2")
    assert result.exit_code == 5
    assert result.stderr.count("no daemon runs") == 1
    assert len(lines(shell)) == 1


def test_wait_for_what_a_daemon_does(shell):
    """Waiting ends with 0 when all is done, with 1 where tasks FAILED, and at once for a control or what is done already."""
    good = shell.file("good.jsonl", {**ONE, "submission_id": "mine"})
    failing = {"run_id": "r", "tasks": [{"task_id": "f", "payload": {"success_rate": 0}, "max_attempts": 1}]}
    with shell.daemon("--agents", "2"):
        assert shell("submit", good, "--wait", "--timeout", "30").exit_code == 0
        assert shell("submit", good, "--wait", "--timeout", "30").exit_code == 0
        result = shell("submit", shell.file("w.jsonl", failing), "--wait", "--timeout", "30")
        assert (result.exit_code, "f (" in result.stderr) == (1, True)
        assert (
            shell("submit", shell.file("w.jsonl", {"run_id": "r", "control": "pause"}), "--wait", "--timeout", "30").exit_code == 0
        )
    assert shell.status()["runs"][0]["tasks"] == {"COMPLETED": 2, "FAILED": 1}


def test_wait_for_what_is_refused_later(shell, monkeypatch):
    """What the daemon refuses after all ends the waiting with 3 and the reason."""
    monkeypatch.setattr("phase21.cli.drafts.rehearse", lambda *_: None)
    orphan = {"run_id": "r", "tasks": [{"task_id": "a", "depends_on": ["nobody"]}]}
    with shell.daemon():
        result = shell("submit", shell.file("w.jsonl", orphan), "--wait", "--timeout", "30")
    assert result.exit_code == 3, result.stderr
    assert "nobody" in result.stderr


@pytest.fixture
def shown(monkeypatch):
    """What the bar of `submit --wait` is told, in the place of drawing it."""
    told = []

    @contextlib.contextmanager
    def bar(what):
        yield lambda *figures: told.append(figures)

    monkeypatch.setattr("phase21.cli.waiting.bar", bar)
    return told


def test_waiting_shows_progress(shell, shown):
    """While it waits, `submit --wait` moves a bar of all that it submitted."""
    assert shell("submit", shell.file("w.jsonl", ONE, {**ONE, "run_id": "s"}), "--wait", "--timeout", "0.2").exit_code == 5
    assert set(shown) == {(0, 0, 4)}
    with shell.process("serve", "--once", stdout=subprocess.DEVNULL) as serving:
        assert serving.wait(60) == 0
    named = {"run_id": "t", "submission_id": "mine", "tasks": TASKS}
    with shell.daemon():
        assert shell("submit", shell.file("w.jsonl", named), "--wait", "--timeout", "30").exit_code == 0
    assert shown[-1] == (2, 0, 2)


def test_the_bar_keeps_what_failed(shell, shown):
    """A task that FAILED is counted to the end, though its wave is closed by then."""
    doomed = {"task_id": "a", "payload": {"success_rate": 0.0}, "max_attempts": 1}
    slow = {"task_id": "b", "payload": {"success_rate": 1.0, "duration_s": 0.3}}
    with shell.daemon():
        waves = [{"run_id": "t", "tasks": [task]} for task in (doomed, slow)]
        assert shell("submit", shell.file("w.jsonl", *waves), "--wait", "--timeout", "30").exit_code == 1
    assert shown[-1] == (2, 1, 2)
