"""The only door between values and JSON.

Strict both ways: no NaN, no coercion, and an error names the field's path. Everything that writes or reads JSON calls this.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from typing import Any

import msgspec

_ENCODER = msgspec.json.Encoder()
_SORTED = msgspec.json.Encoder(order="deterministic")
_PATH = re.compile(r"^(?P<what>.*?)(?: - at `\$(?P<path>.*)`)?$", re.DOTALL)


class CodecError(ValueError):
    """Bytes that are not JSON, or not of the expected shape; `path` is like `tasks[0].priority`, None for the whole."""

    def __init__(self, message: str, path: str | None = None) -> None:
        super().__init__(message)
        self.path = path

    @property
    def said(self) -> str:
        """What is wrong, after the field's path."""
        return f"{self.path}: {self}" if self.path else str(self)


@cache
def _decoder(type_: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(type_)


def encode(value: Any) -> bytes:
    """The value as compact JSON. Raises CodecError for what JSON cannot say."""
    try:
        return _ENCODER.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise CodecError(str(error)) from None


def encode_sorted(value: Any) -> bytes:
    """The same with the keys of every object in order."""
    return _SORTED.encode(value)


def sayable(text: str) -> str:
    """The text with what UTF-8 cannot say spelled out, as names of files and what is said of them may hold it."""
    return text.encode("utf-8", "backslashreplace").decode()


def line(value: Any) -> bytes:
    """The value as one line."""
    return encode(value) + b"\n"


def lines(values: Iterable[Any]) -> bytes:
    """The values, one a line."""
    # An iterator would never be released: msgspec 0.22 keeps a reference to whatever is neither list nor tuple.
    return _ENCODER.encode_lines(values if isinstance(values, list) else list(values))


def pretty(value: Any) -> bytes:
    """The value for a person to read, with a newline at the end."""
    return msgspec.json.format(encode(value), indent=2) + b"\n"


def decode(data: bytes | str | msgspec.Raw, type: Any = Any) -> Any:  # noqa: A002 - the field's word
    """The value that JSON bytes stand for. Raises CodecError."""
    try:
        return _decoder(type).decode(data)
    except msgspec.ValidationError as error:
        match = _PATH.match(str(error))
        path = (match["path"] or "").lstrip(".") if match else ""
        raise CodecError(match["what"] if match else str(error), path or None) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CodecError(str(error)) from None
    except RecursionError:
        raise CodecError("nested too deeply") from None
