"""A yard: a temporary folder in which real daemons are started, told, killed and looked at. All waiting is on facts."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

PATIENCE_S = 20.0
LOOK_S = 0.01
FINAL = {"COMPLETED", "FAILED", "CANCELLED"}


def until(fact: Callable[[], Any], said: str) -> Any:
    """What a fact says once it says something; fails, saying what was waited for, when patience ends."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := fact()):
        assert time.monotonic() < deadline, f"waited in vain for {said}"
        time.sleep(LOOK_S)
    return found


class Process:
    """A verb under way. Its stdout is read by a thread, so that lines can be waited for."""

    def __init__(self, argv: Sequence[str], env: dict[str, str], cwd: Path) -> None:
        self.child = subprocess.Popen(
            argv, env=env, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, start_new_session=True
        )
        self.lines: list[str] = []
        self.stderr = ""
        self._news = threading.Condition()
        self._threads = [threading.Thread(target=self._read), threading.Thread(target=self._read_errors)]
        for thread in self._threads:
            thread.start()

    @property
    def pid(self) -> int:
        return self.child.pid

    def _read(self) -> None:
        assert self.child.stdout is not None
        for line in self.child.stdout:
            with self._news:
                self.lines.append(line.decode())
                self._news.notify_all()

    def _read_errors(self) -> None:
        assert self.child.stderr is not None
        for line in self.child.stderr:
            self.stderr += line.decode()

    @property
    def events(self) -> list[dict[str, Any]]:
        """Every line of stdout so far, as the event that it must be."""
        return [json.loads(line) for line in list(self.lines)]

    def named(self, name: str, **fields: Any) -> list[dict[str, Any]]:
        """The events of a name, with these fields."""
        return [event for event in self.events if event["event"] == name and fields.items() <= event.items()]

    def event(self, name: str, **fields: Any) -> dict[str, Any]:
        """Wait for an event."""
        with self._news:
            came = self._news.wait_for(lambda: self.named(name, **fields) or self.child.poll() is not None, PATIENCE_S)
        found = self.named(name, **fields)
        if not found and came:
            self.end()
            found = self.named(name, **fields)
        assert found, f"no {name} {fields}; stdout: {''.join(self.lines)[-3000:]} stderr: {self.stderr}"
        return found[0]

    def tell(self, number: signal.Signals) -> None:
        """Send a signal to the verb alone."""
        self.child.send_signal(number)

    def end(self) -> int:
        """Wait for its end; gives the exit status as a shell would."""
        status = self.child.wait(PATIENCE_S)
        for thread in self._threads:
            thread.join(PATIENCE_S)
        for stream in (self.child.stdout, self.child.stderr):
            if stream is not None:
                stream.close()
        return status if status >= 0 else 128 - status

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the end."""
        self.tell(number)
        return self.end()

    def kill(self) -> None:
        """End it as a power cut would."""
        if self.child.returncode is None:
            self.child.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.end()


class Yard:
    """State, outputs, queue and configuration of one phase21 under one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.outputs = folder / "outputs"
        self.queue = self.state / "queue.jsonl"
        self.config = folder / "config.toml"
        self.env = {**os.environ, "PYTHONPATH": str(folder)}
        self.processes: list[Process] = []
        self.mounts: list[Path] = []
        self.configure("")

    def configure(self, toml: str) -> None:
        """Write the configuration file."""
        self.config.write_text(toml)

    def _argv(self, verb: str, args: Sequence[object]) -> list[str]:
        where = ["--config", self.config, "--state", self.state, "--outputs", self.outputs, "--queue", self.queue]
        return [sys.executable, "-m", "phase21", verb, *map(str, where), *map(str, args)]

    def begin(self, verb: str, *args: object, **env: str) -> Process:
        """Start a verb."""
        process = Process(self._argv(verb, args), {**self.env, **env}, self.folder)
        self.processes.append(process)
        return process

    def serve(self, *args: object, **env: str) -> Process:
        """Start a daemon and wait until it has begun."""
        daemon = self.begin("serve", *args, **env)
        daemon.event("service_started")
        return daemon

    def call(self, verb: str, *args: object, text: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        """Run a verb to its end."""
        argv = self._argv(verb, args)
        return subprocess.run(
            argv,
            input=text,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
            cwd=self.folder,
            env={**self.env, **env},
        )

    def once(self, *args: object, **env: str) -> subprocess.CompletedProcess[str]:
        """`serve --once`."""
        return self.call("serve", "--once", *args, **env)

    # -- the queue -----------------------------------------------------------------------------------------------------

    def append(self, *lines: dict[str, Any] | bytes) -> None:
        """Append lines as any tool may."""
        self.state.mkdir(mode=0o700, exist_ok=True)
        data = b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines)
        descriptor = os.open(self.queue, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, data)
        finally:
            os.close(descriptor)

    def rejected(self) -> list[dict[str, Any]]:
        """The rows of `rejected.jsonl`."""
        return rows(self.state / "rejected.jsonl")

    # -- what it leaves ------------------------------------------------------------------------------------------------

    def outcomes(self, run_id: str) -> dict[str, dict[str, Any]]:
        """The final row of each task of a run; fails where a task has two."""
        found: dict[str, dict[str, Any]] = {}
        for path in sorted((self.outputs / run_id).glob("wave_*/*/executed_tasks.jsonl")):
            for row in rows(path):
                assert row["task_id"] not in found or found[row["task_id"]]["status"] not in FINAL, f"{row['task_id']} ended twice"
                found[row["task_id"]] = row
        return found

    def statuses(self, run_id: str) -> dict[str, str]:
        """Task id to status."""
        return {task_id: row["status"] for task_id, row in self.outcomes(run_id).items()}

    def starts(self, name: str) -> int:
        """How often the command `counted(name)` began."""
        path = self.folder / f"{name}.starts"
        return path.read_text().count("\n") if path.exists() else 0

    def counted(self, name: str, then: str = "true", **fields: Any) -> dict[str, Any]:
        """A command task that adds a line to a file of its own each time that it starts, and goes on with `then`."""
        script = f"echo $$ >> {self.folder}/{name}.starts; {then}"
        return {"task_id": name, "kind": "command", "payload": {"argv": ["/bin/sh", "-c", script]}, **fields}

    def held(self, name: str, **fields: Any) -> dict[str, Any]:
        """A command task that runs until `release(name)`."""
        return self.counted(name, f"while [ ! -e {self.folder}/{name}.go ]; do sleep 0.02; done", **fields)

    def running(self, name: str) -> int:
        """Wait until a counted command has begun; gives its process id."""
        until(lambda: self.starts(name), f"the start of {name}")
        return int((self.folder / f"{name}.starts").read_text().split()[-1])

    def release(self, name: str) -> None:
        """Let a held command end."""
        (self.folder / f"{name}.go").touch()

    # -- disks ---------------------------------------------------------------------------------------------------------

    def small_disk(self, path: Path, size: str = "3m") -> None:
        """Put a small disk at a path; skips the test where this user may not mount."""
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", path], capture_output=True, check=False
        )
        if done.returncode:
            pytest.skip("needs a user who may mount a tmpfs")
        self.mounts.append(path)

    def clear(self) -> None:
        """Kill what still runs, and take disks away."""
        for process in self.processes:
            process.kill()
        for path in self.folder.glob("*.starts"):
            for pid in path.read_text().split():
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    if os.getpgid(int(pid)) == int(pid):
                        os.killpg(int(pid), signal.SIGKILL)
        for path in self.mounts:
            subprocess.run(["umount", "-l", path], check=False)


def rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON lines file, none where it does not exist; fails where a line is torn."""
    data = path.read_bytes() if path.exists() else b""
    assert not data or data.endswith(b"\n"), f"{path} is torn"
    return [json.loads(line) for line in data.splitlines()]


def sure(task_id: str, **fields: Any) -> dict[str, Any]:
    """A simulated task that succeeds."""
    return {"task_id": task_id, "payload": {"success_rate": 1.0}, **fields}


def doomed(task_id: str, **fields: Any) -> dict[str, Any]:
    """A simulated task that fails."""
    return {"task_id": task_id, "payload": {"success_rate": 0.0}, "max_attempts": 1, **fields}


def wave(run_id: str, *tasks: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A submission."""
    return {"run_id": run_id, "tasks": list(tasks), **fields}


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of stderr; fails where there are more, or a traceback."""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in lines[0]
    return lines[0]


def files_under(folder: Path) -> Iterator[Path]:
    """Everything under a folder, itself included."""
    yield folder
    yield from folder.rglob("*")
