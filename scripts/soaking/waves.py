"""The story of waves: a mix of plain runs, whole and broken lines, rotations and controls, while an observer reads the outputs."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from soaking.ground import Ground

FINAL = {"COMPLETED", "FAILED", "CANCELLED"}
SCRIPT = 'printf "%s\\n" "$PHASE21_TASK_ID" >> "$1"; sleep "$2"; exit "$3"'
BACKLOG_TASKS = 400
CONFIG = """
[agents]
fleet = [{ids}]
[retry]
base_delay = 0.01
max_attempts = 2
[logging]
level = "WARNING"
[manager]
max_parallel_runs = 6
[feedback]
phase20_dir = "{sent}"
"""


class Waves(Ground):
    """Plain waves: what was submitted, and what was seen."""

    def __init__(self, folder: Path, seed: int, max_runs: int) -> None:
        super().__init__(folder, seed)
        self.max_runs = max_runs
        self.tasks: dict[tuple[str, str], dict] = {}
        self.lines: dict[bytes, str] = {}
        self.acknowledged: set[str] = set()
        self.submissions = 0
        self.rotations = 0
        self.seen: dict[tuple[str, str], tuple[str, int]] = {}
        self.stop = threading.Event()
        self.looks = 0
        self.threads = [threading.Thread(target=work, daemon=True) for work in (self.feed, self.observe)]
        ids = ", ".join(f'{{id = "a{n}", concurrency = 2}}' for n in range(6))
        (folder / "config.toml").write_text(CONFIG.format(ids=ids, sent=folder / "sent"))

    def begun(self) -> None:
        """Submit and look from now on."""
        for thread in self.threads:
            thread.start()

    def ended(self) -> None:
        """Neither submit nor look any more."""
        self.stop.set()
        for thread in self.threads:
            thread.join()

    def told(self) -> str:
        """How it stands, in a line."""
        return f"{self.submissions} lines, {len(self.seen)} outcomes, {len(self.violations)} violations"

    # -- what is submitted ---------------------------------------------------------------------------------------------

    def feed(self) -> None:
        """Submit at random moments until stopped."""
        while not self.stop.is_set():
            choice = self.dice.random()
            if len(self.tasks) - len(self.seen) > BACKLOG_TASKS:
                pass
            elif choice < 0.25:
                self.submit()
            elif choice < 0.80:
                self.append(self.line())
            elif choice < 0.90:
                self.append(self.bad_line())
            elif choice < 0.95:
                self.append(self.control())
            elif choice < 0.98:
                line = self.line()
                self.append(line[: self.dice.randrange(1, len(line) - 1)], torn=True)
            else:
                self.rotate()
            self.stop.wait(self.dice.uniform(0, 0.2))

    def line(self) -> bytes:
        """A good submission, a wave of a run; `good` unless it needs an earlier wave that may have been torn."""
        self.submissions += 1
        run_id = f"run-{self.dice.randrange(self.max_runs)}"
        number = self.submissions
        ids = [f"t{number}-{n}" for n in range(self.dice.randrange(1, 25))]
        earlier = [task_id for run, task_id in self.tasks if run == run_id]
        tasks, kind = [], "good"
        for n, task_id in enumerate(ids):
            task = self.task(run_id, task_id)
            if n and self.dice.random() < 0.1:
                task["depends_on"] = [self.dice.choice(ids[:n])]
            elif earlier and self.dice.random() < 0.01:
                task["depends_on"], kind = [self.dice.choice(earlier)], "maybe"
            tasks.append(task)
        line = {"run_id": run_id, "submission_id": f"s{number}", "tasks": tasks}
        self.tasks |= {(run_id, task["task_id"]): task for task in tasks}
        return self.known(line, kind)

    def known(self, line: dict, kind: str) -> bytes:
        """The line as bytes, what is to come of it kept in mind."""
        data = json.dumps(line).encode()
        self.lines[data] = kind
        return data

    def task(self, run_id: str, task_id: str) -> dict:
        """A task of a random sort."""
        dice = self.dice
        task: dict = {"task_id": task_id, "predicted_success_rate": round(dice.uniform(0.8, 1), 3)}
        if dice.random() < 0.03:
            task["risk_level"] = "MEDIUM"
        if dice.random() < 0.5:
            payload = {"success_rate": dice.choice([0.0, 1.0, 1.0, 1.0, 0.7]), "duration_s": dice.choice([0, 0, 0.01, 0.2])}
            return {**task, "kind": "simulate", "payload": payload}
        pause_s = dice.choice([0, 0, 0.02, 0.1, 0.5, 2.0])
        status = dice.choice([0, 0, 0, 0, 0, 1])
        argv = ["/bin/sh", "-c", SCRIPT, "sh", str(self.mark(run_id, task_id)), str(pause_s), str(status)]
        if dice.random() < 0.4:
            task |= {"idempotent": False, "max_attempts": 1}
        return {**task, "kind": "command", "payload": {"argv": argv}}

    def mark(self, run_id: str, task_id: str) -> Path:
        """Where a command leaves a line each time that it runs."""
        return self.marks / f"{run_id}.{task_id}"

    def starts(self, run_id: str, task_id: str) -> int:
        """How often a command began."""
        path = self.mark(run_id, task_id)
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def bad_line(self) -> bytes:
        """A line that must be set aside."""
        number = self.submissions = self.submissions + 1
        task = {"task_id": f"x{number}"}
        sorts = [
            b"{" + str(number).encode(),
            json.dumps({"run_id": "../../etc", "tasks": [task], "submission_id": f"x{number}"}).encode(),
            json.dumps({"run_id": "bad", "submission_id": f"x{number}", "tasks": []}).encode(),
            json.dumps({"run_id": "bad", "submission_id": f"x{number}", "tasks": [{**task, "priority": "high"}]}).encode(),
            json.dumps({"run_id": "bad", "submission_id": f"x{number}", "tasks": [task, task]}).encode(),
            b'{"run_id": "bad", "tasks": [{"task_id": "nan", "timeout_s": NaN}], "metadata": {"n": %d}}' % number,
            b"\xff\xfe not text %d" % number,
            b"[" * 200 + b"%d" % number + b"]" * 200,
        ]
        return self.dice.choice(sorts)

    def control(self) -> bytes:
        """A cancellation of something that may be known; else a good line."""
        if not self.tasks:
            return self.line()
        self.submissions += 1
        run_id, task_id = self.dice.choice(list(self.tasks))
        line = {"run_id": run_id, "submission_id": f"c{self.submissions}", "control": "cancel", "task_ids": [task_id]}
        return self.known(line, "maybe")

    def submit(self) -> None:
        """Submit with the verb; what it acknowledges must be carried out."""
        lines = [self.line() for _ in range(self.dice.choice([1, 1, 3]))]
        if any(self.lines[line] == "maybe" for line in lines):
            lines = [line for line in lines if self.lines[line] == "good"]
        if not lines:
            return
        child = self.phase21("submit", "-", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, err = child.communicate(b"\n".join(lines))
        if child.returncode == 0:
            self.acknowledged.update(out.decode().split())
        else:
            self.broken(f"submit of good lines exited {child.returncode}: {err.decode().strip()}")

    def rotate(self) -> None:
        """Rename the queue file, as a log rotation does, while nobody writes a line of it."""
        with contextlib.suppress(FileNotFoundError):
            self.queue.rename(self.state / f"queue.jsonl.{self.rotations:04d}")
            self.rotations += 1

    # -- what is seen meanwhile ----------------------------------------------------------------------------------------

    def observe(self) -> None:
        """Read outputs at arbitrary moments until stopped."""
        while not self.stop.is_set():
            self.look()
            self.stop.wait(0.02)

    def look(self) -> None:
        """No wave's file and no JSON file is torn, no outcome stands twice."""
        self.looks += 1
        for path in self.outputs.glob("*/*.json"):
            self.whole_json(path)
        finals: Counter[tuple[str, str]] = Counter()
        for path in sorted(self.outputs.glob("run-*/wave_*/*/*.jsonl")):
            for row in self.rows(path):
                if path.name == "executed_tasks.jsonl" and row["status"] in FINAL:
                    key = (path.parents[2].name, row["task_id"])
                    finals[key] += 1
                    if key not in self.seen:
                        self.seen[key] = (row["status"], self.starts(*key))
        for key in [key for key, count in finals.items() if count > 1]:
            self.broken(f"{key} has more than one final row")

    # -- what must hold at the end -------------------------------------------------------------------------------------

    def judge(self) -> dict:
        """Let it finish, and count everything."""
        self.append(b"")
        self.once()
        for run in sorted(path.name for path in self.outputs.iterdir()):
            child = self.phase21("approve", run, stdout=subprocess.DEVNULL)
            if child.wait(60):
                self.broken(f"approve {run} exited {child.returncode}")
        self.once()
        accepted, refused = self.judge_lines()
        rows = self.judge_rows(accepted)
        self.judge_runs(rows)
        self.judge_files()
        statuses = Counter(row["status"] for row in rows.values())
        interrupted = sum("interrupted" in (row["error_msg"] or "") for row in rows.values())
        said = {"submissions": self.submissions, "tasks": statuses, "interrupted_for_good": interrupted, "refused": refused}
        return {**said, "rotations": self.rotations, "looks": self.looks}

    def judge_lines(self) -> tuple[set[tuple[str, str]], int]:
        """Each good line was accepted, each bad one is set aside once; gives the tasks that were accepted."""
        rejected = Counter((row["line"], row["offset"], row["raw"]) for row in self.rows(self.state / "rejected.jsonl"))
        refused = sum(rejected.values())
        accepted: set[tuple[str, str]] = set()
        ids: set[str] = set()
        for line, offset, raw, torn in self.queue_lines():
            kind = "bad" if torn else self.lines.get(raw, "maybe" if b'"control":"approve"' in raw else "bad")
            key = (line, offset, raw[:4096].decode(errors="replace"))
            was_refused = rejected[key] > 0
            rejected[key] -= was_refused
            if kind == "good" and was_refused:
                self.broken(f"line {line} at {offset} is good and was refused: {raw[:100]!r}")
            elif kind == "bad" and not was_refused:
                self.broken(f"line {line} at {offset} is bad and does not stand in rejected.jsonl: {raw[:100]!r}")
            if kind != "bad" and not was_refused:
                found = json.loads(raw)
                ids.add(found["submission_id"])
                accepted |= {(found["run_id"], task["task_id"]) for task in found.get("tasks", ())}
        for key in [key for key, left in rejected.items() if left > 0]:
            self.broken(f"rejected.jsonl holds {key} once too often")
        for missing in self.acknowledged - ids:
            self.broken(f"submission {missing} was acknowledged and is lost")
        return accepted, refused

    def queue_lines(self) -> Iterator[tuple[int, int, bytes, bool]]:
        """Every line of the queue and what it was renamed to: number, offset, content, whether it was torn by a rotation."""
        for path in sorted(self.state.glob("queue.jsonl*")):
            offset = 0
            parts = path.read_bytes().split(b"\n")
            for number, raw in enumerate(parts, 1):
                torn = number == len(parts)
                if raw and not (torn and path == self.queue):
                    yield number, offset, raw, torn
                offset += len(raw) + 1

    def judge_rows(self, accepted: set[tuple[str, str]]) -> dict[tuple[str, str], dict]:
        """Each accepted task has exactly one final row, and there is no other."""
        rows = self.final_rows(FINAL)
        for key in sorted(accepted - rows.keys()):
            self.broken(f"{key} was accepted and has no final row")
        for key in sorted(rows.keys() - accepted):
            self.broken(f"{key} has a row and was not accepted")
        return rows

    def judge_runs(self, rows: dict[tuple[str, str], dict]) -> None:
        """What ran, and how often, is what the rows say."""
        for key, row in rows.items():
            task, status, error = self.tasks.get(key, {}), row["status"], row["error_msg"] or ""
            starts = self.starts(*key)
            if task.get("kind") == "command":
                if not task.get("idempotent", True) and starts > 1:
                    self.broken(f"{key} is not idempotent and ran {starts} times ({status}, {error})")
                if status == "COMPLETED" and not starts:
                    self.broken(f"{key} is COMPLETED and never ran")
                if key in self.seen and self.seen[key] != (status, starts):
                    self.broken(f"{key} was {self.seen[key]} when its row was seen, and is {(status, starts)} at the end")
                sure = task["payload"]["argv"][-1] == "0"
            else:
                sure = task.get("payload", {}).get("success_rate") == 1.0
            if sure and status == "FAILED" and not error.startswith(("interrupted", "safety:")):
                self.broken(f"{key} cannot fail, and is FAILED: {error}")

    def judge_files(self) -> None:
        """Beside what holds of any story: what was sent elsewhere is what the runs hold."""
        super().judge_files()
        name = "prediction_validation_feedback.jsonl"
        ours = [line for path in self.outputs.glob(f"*/phase20/{name}") for line in path.read_bytes().splitlines()]
        if Counter(ours) != Counter((self.folder / "sent" / name).read_bytes().splitlines()):
            self.broken(f"{name} that was sent elsewhere is not what the runs hold, each line once")
