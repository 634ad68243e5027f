"""The ground of a soak: a folder in which a real daemon is started, killed and restarted, and what is checked of any story.

A story feeds the queue and judges what came of it; here stand the processes, the reading of outputs, and the promises that hold
whatever was submitted. Nothing here imports the house.
"""

from __future__ import annotations

import contextlib
import fcntl
import filecmp
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

ONCE_TIMEOUT_S = 600
LIFE_MOST_S = 3.0
AUTO_EXIT = "the daemon ended by itself"


class Ground:
    """One soak: where it happens, and what was broken. A story says more in `begun`, `during` and `judge`."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.state, self.outputs, self.marks = folder / "state", folder / "outputs", folder / "marks"
        self.queue = self.state / "queue.jsonl"
        self.seed = seed
        self.dice = random.Random(seed)
        self.violations: list[str] = []
        self.env = dict(os.environ)
        for part in (self.state, self.marks):
            part.mkdir(mode=0o700)

    def broken(self, said: str) -> None:
        """Note a broken promise."""
        if said not in self.violations:
            self.violations.append(said)

    def phase21(self, verb: str, *args: str, **extra: object) -> subprocess.Popen:
        """Start a verb on the folder, in a process group of its own."""
        where = ["--config", self.folder / "config.toml", "--state", self.state, "--outputs", self.outputs]
        argv = [sys.executable, "-m", "phase21", verb, *map(str, where), *args]
        return subprocess.Popen(argv, start_new_session=True, env=self.env, **extra)

    def append(self, data: bytes, *, torn: bool = False) -> None:
        """Append as any tool may. What is torn is written while no `submit` writes, as it would be glued to that."""
        descriptor = os.open(self.queue, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            if torn:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            os.write(descriptor, data if torn else data + b"\n")
        finally:
            os.close(descriptor)

    # -- what a story says -----------------------------------------------------------------------------------------------

    def begun(self) -> None:
        """Begin to submit."""

    def during(self, number: int, life_s: float) -> None:
        """What happens while a daemon lives that will be killed after so long."""

    def killed(self) -> None:
        """What is looked at each time that a daemon was killed."""

    def ended(self) -> None:
        """Submit no more: the last daemon was killed."""

    def told(self) -> str:
        """How it stands, in a line."""
        return f"{len(self.violations)} violations"

    # -- killing ---------------------------------------------------------------------------------------------------------

    def kill_loop(self, kills: int, seconds: float) -> tuple[int, int]:
        """Start and kill, over and over; gives how many kills there were, and how many met a start."""
        dice = random.Random(self.seed + 1)
        deadline, most_s = time.monotonic() + seconds, min(LIFE_MOST_S, 2 * seconds / max(kills, 1))
        early = 0
        for number in range(1, kills + 1):
            if time.monotonic() > deadline:
                return number - 1, early
            early += not self._life(number, dice.uniform(0, most_s))
            if sys.stderr.isatty():
                print(f"kill {number}/{kills}: {self.told()}", file=sys.stderr)
        return kills, early

    def _life(self, number: int, life_s: float) -> bool:
        """One daemon from its start to its kill; whether it had the state folder by then."""
        log = self.folder / "daemon.err"
        began = time.monotonic()
        with log.open("ab") as err:
            daemon = self.phase21("serve", stdout=subprocess.DEVNULL, stderr=err)
        self.during(number, life_s)
        with contextlib.suppress(subprocess.TimeoutExpired):
            status = daemon.wait(max(0.0, began + life_s - time.monotonic()))
            self.broken(f"{AUTO_EXIT} with {status}: {log.read_text()[-500:].strip()}")
        held = holds(self.state)
        with contextlib.suppress(ProcessLookupError):
            os.kill(daemon.pid, signal.SIGKILL)
        daemon.wait()
        self.killed()
        return held

    def once(self, timeout_s: float = ONCE_TIMEOUT_S) -> None:
        """Carry out what is left."""
        child = self.phase21("serve", "--once", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            _, err = child.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self.broken(f"serve --once did not end in {timeout_s:g} s")
            os.kill(child.pid, signal.SIGKILL)
            child.wait()
            return
        if child.returncode not in {0, 1} or err:
            self.broken(f"serve --once exited {child.returncode}: {err.decode().strip()[-500:]}")

    # -- what must hold whatever was submitted ---------------------------------------------------------------------------

    def rows(self, path: Path) -> list[dict]:
        """The rows of a file that must hold whole lines; none where it is gone meanwhile."""
        try:
            data = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return []
        if data and not data.endswith(b"\n"):
            self.broken(f"{path} ends in a torn line: {data[-80:]!r}")
        rows = []
        for line in data.splitlines():
            try:
                rows.append(json.loads(line))
            except ValueError:
                self.broken(f"{path} holds a torn line: {line[:80]!r}")
        return rows

    def whole_json(self, path: Path) -> None:
        """See that a JSON file is whole, where it is not gone meanwhile."""
        with contextlib.suppress(FileNotFoundError):
            data = path.read_bytes()
            try:
                json.loads(data)
            except ValueError:
                self.broken(f"{path} is torn: {data[-80:]!r}")

    def final_rows(self, final: set[str]) -> dict[tuple[str, str], dict]:
        """The final row of each task; no task has two."""
        rows: dict[tuple[str, str], dict] = {}
        for path in sorted(self.outputs.glob("*/wave_*/*/executed_tasks.jsonl")):
            for row in self.rows(path):
                key = (path.parents[2].name, row["task_id"])
                if row["status"] in final and key in rows:
                    self.broken(f"{key} has more than one final row")
                if row["status"] in final:
                    rows[key] = row
        return rows

    def judge_files(self) -> None:
        """Nothing is torn; a rebuilt folder is the same byte for byte; the store is sound."""
        for run in sorted(path.name for path in self.outputs.iterdir()):
            self.judge_rebuilt(run, self.folder / "rebuilt")
        self.judge_whole()

    def judge_whole(self) -> None:
        """No file is torn, and the store is sound."""
        for path in self.outputs.rglob("*.jsonl"):
            self.rows(path)
        for path in self.outputs.rglob("*.json"):
            self.whole_json(path)
        with contextlib.closing(sqlite3.connect(self.state / "journal.db")) as store:
            verdict = store.execute("PRAGMA integrity_check").fetchone()[0]
        if verdict != "ok":
            self.broken(f"the store is damaged: {verdict}")

    def judge_rebuilt(self, run: str, elsewhere: Path) -> None:
        """A run's folder, written again from the journal, is the same byte for byte."""
        where = ["--state", self.state, "--outputs", elsewhere]
        done = subprocess.run([sys.executable, "-m", "phase21", "rebuild", run, *map(str, where)], capture_output=True, check=False)
        if done.returncode:
            self.broken(f"rebuild {run} exited {done.returncode}: {done.stderr.decode().strip()}")
        for different in differences(self.outputs / run, elsewhere / run):
            self.broken(f"rebuild {run}: {different}")


def differences(one: Path, other: Path) -> list[str]:
    """Files that stand in one folder only, or differ."""
    ours, theirs = ({path.relative_to(root) for path in root.rglob("*") if path.is_file()} for root in (one, other))
    found = [f"{path} stands in one folder only" for path in sorted(ours ^ theirs)]
    return found + [f"{path} differs" for path in sorted(ours & theirs) if not filecmp.cmp(one / path, other / path, shallow=False)]


def holds(state: Path) -> bool:
    """Whether a daemon holds the state folder."""
    try:
        with (state / "phase21.lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass
    return False
