"""Where the time of a task goes: a sampler that asks, each millisecond of CPU, which stage of the house is at work.

Used by the workload `cost` alone. A sample belongs to the innermost function on the stack that a stage names, so that what a
stage calls in other modules counts as its own, unless another stage names it.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections import Counter
from collections.abc import Iterator
from types import FrameType
from typing import Any

INTERVAL_S = 0.001

STAGES: tuple[tuple[str, str, str], ...] = (
    ("accept", "bench/workloads.py", "accepted"),
    ("accept", "domain/folds/arrivals.py", "_submission_accepted"),
    ("plan and assign", "phase21/manager/waves.py", "_plan"),
    ("plan and assign", "phase21/manager/dispatch.py", ""),
    ("publish, inbox, barrier", "phase21/manager/waves.py", ""),
    ("publish, inbox, barrier", "phase21/manager/desk.py", ""),
    ("publish, inbox, barrier", "messaging/inbox.py", ""),
    ("gates", "agents/executor.py", "_verdict"),
    ("gates", "agents/resources.py", ""),
    ("engine", "engines/simulated.py", ""),
    ("executor and agent", "agents/executor.py", ""),
    ("executor and agent", "agents/agent.py", ""),
    ("journal: append", "store/journal.py", "append"),
    ("journal: fold", "domain/ledger.py", ""),
    ("journal: fold", "domain/folds/arrivals.py", ""),
    ("journal: fold", "domain/folds/agents.py", ""),
    ("journal: fold", "domain/folds/waves.py", ""),
    ("journal: fold", "domain/folds/tasks.py", ""),
    ("journal: fold", "domain/folds/lessons.py", ""),
    ("journal: fold", "domain/folds/post.py", ""),
    ("journal: fold", "domain/folds/known.py", ""),
    ("journal: commit (encode, SQLite)", "store/database.py", "commit"),
    ("journal: index and snapshot", "store/journal.py", "folded_closing"),
    ("journal: index and snapshot", "store/journal.py", "_due_snapshot"),
    ("journal: wake and wait", "store/journal.py", ""),
    ("metrics and anomalies", "readers/monitor.py", ""),
    ("signals", "readers/feedback.py", ""),
    ("outputs: writing", "readers/folders.py", "put"),
    ("outputs: the run's own files", "readers/contents.py", "run_files"),
    ("outputs: digest", "readers/contents.py", "wave_digest"),
    ("outputs: assignments", "readers/contents.py", "_assignments"),
    ("outputs: executed tasks", "readers/contents.py", "_executed"),
    ("outputs: signals and validation", "readers/contents.py", "_lesson_lines"),
    ("outputs: decisions", "readers/contents.py", "_decisions"),
    ("outputs: the rest", "readers/contents.py", ""),
    ("outputs: the rest", "readers/outputs.py", ""),
)
"""A stage, the end of a file's path, and a function in it (any where empty); the first that fits counts."""

ELSEWHERE = "event loop and the rest"


class Samples:
    """How often each stage was met, and the CPU and wall seconds of the whole."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.cpu_s = 0.0
        self.wall_s = 0.0
        self._known: dict[Any, str | None] = {}

    def take(self, _: int, frame: FrameType | None) -> None:
        """Count the stage at work; a signal's handler."""
        while frame is not None:
            stage = self._stage_of(frame)
            if stage is not None:
                self.counts[stage] += 1
                return
            frame = frame.f_back
        self.counts[ELSEWHERE] += 1

    def _stage_of(self, frame: FrameType) -> str | None:
        code = frame.f_code
        if code not in self._known:
            self._known[code] = _named(code.co_filename, code.co_name)
        return self._known[code]

    def us_each(self, tasks: int) -> dict[str, Any]:
        """CPU microseconds a task by stage, of all of them, and what was waited for (the disk)."""
        taken = sum(self.counts.values())
        each = self.cpu_s / tasks * 1e6
        stages = {stage: count / taken * each for stage, count in self.counts.most_common()}
        return {"cpu_us": each, "wait_us": (self.wall_s - self.cpu_s) / tasks * 1e6, "samples_taken": taken, "stages": stages}


def _named(file_name: str, function: str) -> str | None:
    for stage, path, name in STAGES:
        if file_name.endswith(path) and name in {"", function}:
            return stage
    return None


@contextlib.contextmanager
def sampled() -> Iterator[Samples]:
    """Sample this thread's process for the while; only one at a time."""
    samples = Samples()
    before = signal.signal(signal.SIGPROF, samples.take)
    wall, cpu = time.perf_counter(), time.process_time()
    signal.setitimer(signal.ITIMER_PROF, INTERVAL_S, INTERVAL_S)
    try:
        yield samples
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        samples.wall_s, samples.cpu_s = time.perf_counter() - wall, time.process_time() - cpu
        signal.signal(signal.SIGPROF, before)
