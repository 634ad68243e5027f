"""Lets these stories import the stage of the flow's, which stands beside this folder."""

from __future__ import annotations

import sys
from pathlib import Path

STAGE = str(Path(__file__).parents[1] / "flow")
if STAGE not in sys.path:
    sys.path.insert(0, STAGE)
