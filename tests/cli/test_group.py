"""The group of verbs: quick help, one line for each error, the exit statuses of the contract."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from importlib import metadata

import pytest
from click.testing import CliRunner

from phase21.__main__ import main
from phase21.cli import VERBS, phase21
from phase21.domain import errors

HEAVY = ("msgspec", "asyncio", "sqlite3", "structlog", "rich", "watchfiles")


@pytest.mark.parametrize("verb", list(VERBS))
def test_each_verb_has_help(verb):
    """Each verb says what it does."""
    result = CliRunner().invoke(phase21, [verb, "--help"])
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: phase21 {verb} ")


@pytest.mark.parametrize("args", [["--help"], *([verb, "--help"] for verb in VERBS)], ids=str)
def test_help_reads_nothing_heavy(args):
    """Help reads click and nothing of the house that is heavy."""
    code = f"import sys; from phase21.cli import phase21\ntry: phase21.main({args!r})\nexcept SystemExit: print([m for m in {HEAVY!r} if m in sys.modules])"
    plain = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=plain).stdout
    assert said.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "args", [["nosuch"], ["status", "--nosuch"], ["--nosuch"], ["report"], ["run", "no/such/folder"], ["submit"]], ids=str
)
def test_wrong_usage(args):
    """Wrong usage is one line on stderr and status 2."""
    result = CliRunner().invoke(phase21, args)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("phase21: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.ConfigurationError("no"), 2),
        (errors.PermissionsError("no"), 2),
        (errors.InputRefused("no"), 3),
        (errors.UnknownRun("no"), 3),
        (errors.StateHeld("no"), 4),
        (errors.TimedOut("no"), 5),
        (PermissionError(13, "Permission denied"), 2),
        (KeyboardInterrupt(), 130),
        (RuntimeError("a fault\nof ours"), 70),
    ],
    ids=repr,
)
def test_errors_are_one_line_and_a_status(shell, monkeypatch, error, status):
    """An error leaves as its message in one line, with its own status; never as a traceback."""

    def fail(_):
        raise error

    monkeypatch.setattr("phase21.cli.options.Given.load", fail)
    result = shell("status")
    assert result.exit_code == status
    assert "Traceback" not in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_broken_configuration_names_file_and_key(shell):
    """A key that is not known is refused with file, key and what is allowed."""
    (shell.folder / "own.toml").write_text("[agents]\nnumber = 3\n")
    result = shell("status", "--config", "own.toml")
    assert result.exit_code == 2
    assert "own.toml" in result.stderr
    assert "agents.number" in result.stderr
    assert "count" in result.stderr


def test_a_reader_that_goes_is_no_error(shell):
    """Output into a pipe whose reader has gone ends quietly, as a signal would."""
    assert shell("run", shell.predictions()).exit_code == 0
    with shell.process("tail", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 128 + signal.SIGPIPE


def test_the_installed_command_is_the_module(monkeypatch):
    """`phase21 VERB` and `python -m phase21 VERB` are the same, and end with the verb's status."""
    (command,) = metadata.entry_points(group="console_scripts", name="phase21")
    assert command.load() is main
    monkeypatch.setattr(sys, "argv", ["phase21", "status", "--nosuch"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
