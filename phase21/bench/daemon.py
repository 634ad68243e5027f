"""What only real processes show: the daemon's reaction, rest, memory and restart, and how soon the command line answers.

Each function is a workload and gives its figures. Nothing here imports the house: it is started, watched and killed from outside.
"""

from __future__ import annotations

import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from phase21.bench import folders
from phase21.domain.errors import Phase21Error
from phase21.engines.switchboard import SOCKET
from phase21.store import codec

READY_TIMEOUT_S = 120.0
LEAST_PROGRAM = "import asyncio, sqlite3, json"
ENDED = b"run_idle"


class Daemon:
    """A real `serve` on the state in `folder`, from its start until it is killed. `ready_s` is how long READY=1 took."""

    def __init__(self, folder: Path, *options: str, heard: bool = False) -> None:
        self.queue = folder / "state" / "queue.jsonl"
        self.ready_s = 0.0
        self._command = phase21("serve", *_placed(folder), "--log-format", "json", *options)
        self._heard = heard
        self._socket = str(folder / "notify")

    def __enter__(self) -> Self:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.bind(self._socket)
            channel.settimeout(READY_TIMEOUT_S)
            started = time.perf_counter()
            self._process = subprocess.Popen(  # noqa: S603 - our own command line
                self._command,
                stdout=subprocess.PIPE if self._heard else subprocess.DEVNULL,
                env={**surroundings(), "NOTIFY_SOCKET": self._socket},
            )
            try:
                while b"READY=1" not in channel.recv(4096):
                    pass
            except TimeoutError:
                self._kill()
                raise Phase21Error(f"the daemon was not ready within {READY_TIMEOUT_S:g} s") from None
            self.ready_s = time.perf_counter() - started
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._kill()

    def _kill(self) -> None:
        self._process.kill()
        self._process.communicate()
        Path(self._socket).unlink(missing_ok=True)

    def append(self, submission: dict[str, Any]) -> None:
        """Add a line to the queue file, as any tool may."""
        with self.queue.open("ab", buffering=0) as file:
            file.write(codec.line(submission))

    def wait_for(self, event: bytes) -> None:
        """Read the log until a line that tells of the event. Raises Phase21Error where the daemon ends before."""
        assert self._process.stdout is not None  # noqa: S101 - asked for at the start
        for line in self._process.stdout:
            if b'"event":"' + event + b'"' in line.replace(b'": "', b'":"'):
                return
        raise Phase21Error(f"the daemon ended before it said {event.decode()}")

    def cpu_s(self) -> float:
        """Seconds of a core that it has used so far."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self) -> int:
        """Its resident memory."""
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * resource.getpagesize()


def phase21(*arguments: str) -> list[str]:
    """The command line of a verb."""
    return [sys.executable, "-m", "phase21", *arguments]


def surroundings() -> dict[str, str]:
    """The environment, without what would configure the house or speak to somebody else's systemd."""
    foreign = ("PHASE21_", "NOTIFY_", "WATCHDOG_")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)}


def _placed(folder: Path) -> tuple[str, ...]:
    return ("--state", str(folder / "state"), "--outputs", str(folder / "outputs"))


def _state_in(place: Path) -> Path:
    """The place, with an empty, private queue file."""
    (place / "state").mkdir(mode=0o700)
    (place / "state" / "queue.jsonl").touch(mode=0o600)
    return place


# -- the daemon ----------------------------------------------------------------------------------------------------------


def daemon(*, quick: bool) -> dict[str, Any]:
    """From a line in the queue file to `wave_started` on stdout; then what the daemon uses while it has nothing to do."""
    count, rest_s = (5, 4.0) if quick else (40, 10.0)
    with Daemon(_state_in(folders.fresh()), heard=True) as served:
        time.sleep(1.0)
        idle_mib = served.resident_bytes() / 2**20
        used = served.cpu_s()
        time.sleep(rest_s)
        used = served.cpu_s() - used
        reactions = sorted(_reaction_s(served, number) for number in range(count))
        return {
            "reaction_p50_ms": statistics.median(reactions) * 1e3,
            "reaction_max_ms": reactions[-1] * 1e3,
            "idle_cpu_percent": used / rest_s * 100,
            "idle_mib": idle_mib,
        }


def _reaction_s(served: Daemon, number: int) -> float:
    time.sleep(0.05 + 0.0137 * (number % 7))  # so that appends do not fall in step with the daemon's own beat
    started = time.perf_counter()
    served.append({"run_id": "bench", "tasks": [{"task_id": f"t{number}"}]})
    served.wait_for(b"wave_started")
    spent = time.perf_counter() - started
    served.wait_for(ENDED)
    return spent


def agents_memory(*, quick: bool) -> dict[str, Any]:
    """Resident bytes that each agent beyond the first four adds to an idle daemon."""
    more = 1_000 if quick else 10_000
    few, many = _idle_bytes(4), _idle_bytes(4 + more)
    return {"agents": 4 + more, "bytes_per_agent": (many - few) / more}


def _idle_bytes(agents: int) -> int:
    with Daemon(_state_in(folders.fresh()), "--agents", str(agents)) as served:
        time.sleep(2.0)
        return served.resident_bytes()


# -- the command line ------------------------------------------------------------------------------------------------------


def cold_start(*, quick: bool) -> dict[str, Any]:
    """`--help`, and `run` of one task, beside a bare interpreter that imports what any such program needs; taken in turns."""
    least: list[float] = []
    helped: list[float] = []
    ran: list[float] = []
    for turn in range(2 if quick else 8):
        spent = _seconds([sys.executable, "-c", LEAST_PROGRAM]), _seconds(phase21("--help")), _run_s()
        if turn:  # the first one fills the caches
            least.append(spent[0])
            helped.append(spent[1])
            ran.append(spent[2])
    reference, shown, run = (statistics.median(spent) for spent in (least, helped, ran))
    return {
        "reference_ms": reference * 1e3,
        "help_ms": shown * 1e3,
        "help_ratio": shown / reference,
        "run_ms": run * 1e3,
        "run_ratio": run / reference,
    }


def _run_s() -> float:
    place = folders.fresh()
    (place / "one").mkdir()
    (place / "one" / "predicted_tasks.jsonl").write_bytes(codec.line({"task_id": "t1", "payload": {"success_rate": 1.0}}))
    return _seconds(phase21("run", str(place / "one"), *_placed(place)))


def _seconds(command: list[str]) -> float:
    started = time.perf_counter()
    done = subprocess.run(command, env=surroundings(), capture_output=True, check=False)  # noqa: S603 - our own command line
    spent = time.perf_counter() - started
    if done.returncode:
        raise Phase21Error(f"{' '.join(command[1:4])}: exit status {done.returncode}: {done.stderr.decode().strip()}")
    return spent


# -- recovery --------------------------------------------------------------------------------------------------------------


def recovery(*, quick: bool) -> dict[str, Any]:
    """Seconds from the start of a daemon to READY=1: with nothing behind it, with closed waves, and amid an open wave.

    Both states are what a house leaves that was killed with kill -9 at work; each start is on a fresh copy of it.
    """
    starts = 1 if quick else 3
    empty = _state_in(folders.fresh())
    behind, entries = _killed("behind", 50_000 if quick else 1_000_000)
    amid, _ = _killed("amid", 10_000 if quick else 100_000)
    nothing, closed, opened = (_ready_s(place, starts) for place in (empty, behind, amid))
    return {
        "entries_behind": entries,
        "empty_s": statistics.median(nothing),
        "behind_s": statistics.median(closed),
        "open_wave_s": statistics.median(opened),
        "samples": {"empty_s": nothing, "behind_s": closed, "open_wave_s": opened},
    }


def _killed(how: str, size: int) -> tuple[Path, int]:
    """A place that a house left when it was killed, and how many entries its journal held."""
    place = folders.fresh()
    command = [sys.executable, "-m", "phase21.bench.killed", how, str(place), str(size)]
    done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603 - our own command line
    if not done.stdout:
        raise Phase21Error(f"no state could be made to recover from: {done.stderr.decode().strip()[-500:]}")
    return place, int(done.stdout)


def _ready_s(place: Path, starts: int) -> list[float]:
    spent: list[float] = []
    for _ in range(starts):
        with Daemon(_copy_of(place)) as served:
            spent.append(served.ready_s)
    return spent


def _copy_of(place: Path) -> Path:
    """A copy of what a house left; its socket, which nobody can copy, is made anew by the next one."""
    return Path(shutil.copytree(place, folders.fresh(), ignore=shutil.ignore_patterns(SOCKET), dirs_exist_ok=True))
