"""Lets the stories of this folder import the stage of those in `flow`."""

from __future__ import annotations

import sys
from pathlib import Path

FOLDER = str(Path(__file__).parents[2] / "flow")
if FOLDER not in sys.path:
    sys.path.insert(0, FOLDER)
