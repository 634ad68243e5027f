"""Tests of trials share a folder of outcomes that is made up."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
