"""Runs the workloads, each repetition in a process of its own, and gathers what they print.

Called by the verb `bench`. It judges nothing but the shape of the answer; `bounds` says what must be reached.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from phase21.bench.bounds import BOUNDS
from phase21.bench.folders import VARIABLE
from phase21.domain.errors import Phase21Error, UsageError
from phase21.store import codec

Sample = dict[str, Any]
Progress = Callable[[str, int, int], None]
"""Takes what is being measured, how many repetitions are done, and how many there are."""

REPETITIONS = 3
MORE = {"throughput": 5, "recovery": 1, "cold_start": 1, "cost": 1, "graphs": 1, "messages": 1}
"""Repetitions that differ: `cost` is sampled once, and the others repeat within."""

TIMEOUT_S = 900.0
NAMES = tuple(dict.fromkeys(bound.workload for bound in BOUNDS))


def chosen(only: str | None) -> tuple[str, ...]:
    """The workloads to run. Raises UsageError for a name that is none."""
    if only is None:
        return NAMES
    if only not in NAMES:
        raise UsageError(f"bench --only {only}: there is no such measurement; there are {', '.join(NAMES)}")
    return (only,)


def measured(names: Sequence[str], *, quick: bool, progress: Progress) -> tuple[dict[str, list[Sample]], list[Phase21Error]]:
    """Every repetition's answer, by workload, and what was wrong with those workloads that did not answer."""
    due = [name for name in names for _ in range(1 if quick else MORE.get(name, REPETITIONS))]
    found: dict[str, list[Sample]] = {name: [] for name in names}
    wrong: list[Phase21Error] = []
    with tempfile.TemporaryDirectory(prefix="phase21-bench-") as folder:
        for done, name in enumerate(due):
            progress(name, done, len(due))
            try:
                if name in found:
                    found[name].append(one(name, Path(folder), quick=quick))
            except Phase21Error as error:
                wrong.append(error)
                del found[name]
    progress("", len(due), len(due))
    return found, wrong


def one(name: str, folder: Path, *, quick: bool) -> Sample:
    """One repetition's answer; all that it writes stays in the folder."""
    command = [sys.executable, "-m", "phase21.bench.workloads", name, *(["--quick"] if quick else [])]
    process = subprocess.Popen(  # noqa: S603 - our own module
        command,
        env={**os.environ, VARIABLE: str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        answer, said = process.communicate(timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise Phase21Error(f"bench {name}: no answer within {TIMEOUT_S:g} s") from None
    finally:
        _end(process)
    if process.returncode:
        last = said.decode(errors="replace").strip().splitlines() or ["it said nothing"]
        raise Phase21Error(f"bench {name}: exit status {process.returncode}: {last[-1]}")
    sample: Sample = codec.decode(answer, Sample)
    return sample


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the workload with all that it started, however it is left."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
