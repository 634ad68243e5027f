"""A shell for the verbs: a state folder and outputs of its own, in this process or in one beside it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from phase21.cli import phase21
from phase21.store import codec


class Shell:
    """Calls verbs over one state folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.outputs = folder / "outputs"
        self.queue = self.state / "queue.jsonl"

    def arguments(self, verb, *args):
        return [verb, "--state", str(self.state), "--outputs", str(self.outputs), *map(str, args)]

    def __call__(self, verb, *args, stdin=None):
        """Call a verb in this process."""
        return CliRunner().invoke(phase21, self.arguments(verb, *args), input=stdin)

    def process(self, verb, *args, **options):
        """Begin a verb in a process of its own."""
        command = [sys.executable, "-m", "phase21", *self.arguments(verb, *args)]
        return subprocess.Popen(command, cwd=self.folder, **options)

    @contextlib.contextmanager
    def daemon(self, *args):
        """A daemon for the while; on leaving it must end in order."""
        with (self.folder / "serve.log").open("ab") as log:
            process = self.process("serve", *args, stdout=log, stderr=log)
            try:
                yield process
                process.send_signal(signal.SIGTERM)
                assert process.wait(30) == 0, (self.folder / "serve.log").read_text()
            finally:
                process.kill()
                process.wait()

    def until(self, event, **fields):
        """Wait until the journal holds an event of this name and these fields."""
        with self.process("tail", "-f", stdout=subprocess.PIPE) as process:
            for text in process.stdout:
                line = codec.decode(text)
                if line["event"] == event and all(line.get(name) == value for name, value in fields.items()):
                    process.kill()
                    return

    def file(self, name, *submissions):
        """A file of submissions, one a line."""
        path = self.folder / name
        path.write_bytes(codec.lines(submissions))
        return path

    def predictions(self, name="planned", *rows):
        """A Phase 20 folder."""
        folder = self.folder / name
        folder.mkdir()
        (folder / "predicted_tasks.jsonl").write_bytes(codec.lines(rows or ({"task_id": "a"}, {"task_id": "b"})))
        return folder

    def status(self, *args):
        """The answer of `status --json`."""
        result = self("status", "--json", *args)
        assert result.exit_code == 0, result.stderr
        return codec.decode(result.stdout)


@pytest.fixture
def shell(tmp_path, monkeypatch):
    """A shell in an empty folder, whatever the environment says."""
    for name in list(os.environ):
        if name.startswith("PHASE21_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return Shell(tmp_path)
