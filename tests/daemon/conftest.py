"""Lets the tests of this folder import the yard that stands beside them, and gives each a yard of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

FOLDER = str(Path(__file__).parent)
if FOLDER not in sys.path:
    sys.path.insert(0, FOLDER)

from yard import Yard  # noqa: E402 - after the path is set


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    """A folder with everything a daemon needs; whatever still runs in it is killed at the end."""
    made = Yard(tmp_path)
    yield made
    made.clear()
