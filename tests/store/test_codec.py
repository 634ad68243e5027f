"""The door between values and JSON: strict both ways, errors with their path, nothing kept."""

from __future__ import annotations

import sys
from typing import Any

import msgspec
import pytest

from phase21.store import codec


class Point(msgspec.Struct):
    x: int


@pytest.mark.parametrize(
    ("data", "shape", "path"),
    [
        (b'{"x": "1"}', Point, "x"),
        (b'[{"x": 1}, {"x": 1.5}]', list[Point], "[1].x"),
        (b"NaN", Any, None),
        (b"[" * 10_000, Any, None),
        (b"\xff", Any, None),
    ],
)
def test_what_does_not_fit_is_one_error_with_its_path(data, shape, path):
    """Nothing is coerced, NaN is no number, nesting has an end; the error says where it lies."""
    with pytest.raises(codec.CodecError) as caught:
        codec.decode(data, shape)
    assert caught.value.path == path


def test_what_json_cannot_say_is_refused():
    """A value without a spelling in JSON is an error of the codec's own kind."""
    with pytest.raises(codec.CodecError):
        codec.encode({"a": object()})


def test_sorted_keys():
    """Where the order of keys must not matter, they are in order at every depth."""
    assert codec.encode_sorted({"b": 1, "a": {"d": 1, "c": 2}}) == b'{"a":{"c":2,"d":1},"b":1}'


def test_lines_lets_go_of_what_it_was_given():
    """A generator is released once it is encoded: a daemon encodes some with every wave."""
    values = (number for number in (1, 2))
    before = sys.getrefcount(values)
    assert codec.lines(values) == b"1\n2\n"
    assert sys.getrefcount(values) == before
