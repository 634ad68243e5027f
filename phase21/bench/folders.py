"""Folders to measure in, all kept until the whole benchmark ends.

What is created within minutes of a removal pays for it: ext4 gives an inode away again only after a while, and passes over those
that were deleted lately one by one (`recently_deleted` in fs/ext4/ialloc.c), which made a file cost up to fifty times as much here.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

VARIABLE = "PHASE21_BENCH_FOLDER"
"""Names the folder of a benchmark that several processes take part in; whoever sets it removes it."""


def fresh() -> Path:
    """A new, empty folder."""
    return Path(tempfile.mkdtemp(dir=_root()))


@cache
def _root() -> str:
    shared = os.environ.get(VARIABLE)
    if shared is not None:
        return shared
    own = tempfile.mkdtemp(prefix="phase21-bench-")
    atexit.register(shutil.rmtree, own, ignore_errors=True)
    return own
