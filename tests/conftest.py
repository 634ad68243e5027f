"""Import hypothesis before anything runs: imported late, it may meet a loop's finalizer in the middle of parsing a module.

Lets every test import `openai_server`, which stands here.
"""

import sys
from pathlib import Path

import hypothesis  # noqa: F401 - for its import alone
import pytest

FOLDER = str(Path(__file__).parent)
if FOLDER not in sys.path:
    sys.path.append(FOLDER)


@pytest.fixture
def openai_server():
    """A server on loopback that answers as an OpenAI-compatible one, from the test's script."""
    from openai_server import OpenAIServer

    with OpenAIServer() as server:
        yield server
