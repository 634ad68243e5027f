"""What those who embed phase21 may import."""

from __future__ import annotations

import subprocess
import sys

import pytest

import phase21


@pytest.mark.parametrize("name", phase21.__all__)
def test_every_public_name_is_there(name: str) -> None:
    """Each name of `__all__` can be had from the package itself."""
    assert getattr(phase21, name).__name__ == name


def test_public_names_are_sorted_and_few() -> None:
    """The face is sorted: about a dozen names for who embeds the house, and fewer for who writes handlers."""
    assert list(phase21.__all__) == sorted(phase21.__all__)
    assert len(phase21.__all__) <= 22


def test_an_unknown_name_is_an_attribute_error() -> None:
    """What is not there is said as Python says it."""
    with pytest.raises(AttributeError, match="no attribute 'Robot'"):
        phase21.Robot  # noqa: B018
    assert "Task" in dir(phase21)


def test_importing_the_package_loads_nothing_else() -> None:
    """The command line starts at once: the face loads no room before it is asked for."""
    code = "import sys, phase21; print(sorted(name for name in sys.modules if name.startswith('phase21.')))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
