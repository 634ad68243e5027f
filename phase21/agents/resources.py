"""What the gates ask the machine for: free disk and memory, and room under the rate limit. Looked up at most once a second."""

from __future__ import annotations

import os
from pathlib import Path

LOOK_INTERVAL_S = 1.0
MEBIBYTE = 1024 * 1024


class Resources:
    """Readings of the machine, and the one rate limiter. Times are the event loop's, in seconds."""

    def __init__(self, folder: Path, meminfo: Path = Path("/proc/meminfo")) -> None:
        self.free_disk_mb = 0.0
        self.free_memory_mb = 0.0
        self._folder = folder
        self._meminfo = meminfo
        self.look_again = float("-inf")
        self._next_start = 0.0

    def look(self, now: float) -> None:
        """Read again; what was read is good until `look_again`."""
        self.look_again = now + LOOK_INTERVAL_S
        space = os.statvfs(self._folder)
        self.free_disk_mb = space.f_bavail * space.f_frsize / MEBIBYTE
        self.free_memory_mb = self._read_memory()

    def _read_memory(self) -> float:
        try:
            text = self._meminfo.read_text(encoding="ascii")
        except OSError:
            return float("inf")
        for row in text.splitlines():
            if row.startswith("MemAvailable:"):
                return int(row.split()[1]) / 1024
        return float("inf")

    def rate_wait_s(self, now: float) -> float:
        """Seconds until one more attempt may start under the rate limit."""
        return max(0.0, self._next_start - now)

    def count_start(self, now: float, rate_limit: float) -> None:
        """An attempt starts now; `rate_limit` is in attempts a second."""
        self._next_start = max(now, self._next_start) + 1.0 / rate_limit
