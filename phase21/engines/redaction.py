"""Values that must not be seen: what a command was given in its environment, taken out of what it said.

Pure text work; the command engine calls it on everything of a command that leaves the engine.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

MASK = "***"
SHORTEST = 6
"""Values of fewer characters are too common to be secrets (`1`, `true`, `prod`)."""

CONTINUATION = 0x80
"""From here on, for 64 values, a byte of UTF-8 continues a character."""


class Secrets:
    """The values among `values` of six characters or more, each replaced by `***` wherever it occurs."""

    def __init__(self, values: Iterable[str]) -> None:
        self._texts = tuple(sorted({value for value in values if len(value) >= SHORTEST}, key=len, reverse=True))
        self._raws = tuple(os.fsencode(value) for value in self._texts)
        self.margin_bytes = max(map(len, self._raws), default=1) - 1
        """How much before a cut must be known to see a value that the cut divides."""

    def hide(self, text: str) -> str:
        """The text without the values; also without those that only the masks' own stars complete."""
        before = None
        while before != text:
            before = text
            for value in self._texts:
                text = text.replace(value, MASK)
        return text

    def hide_in(self, value: Any) -> Any:
        """A JSON value without the values, wherever in it: as they are, not as JSON would spell them."""
        if isinstance(value, str):
            return self.hide(value)
        if isinstance(value, list):
            return [self.hide_in(inner) for inner in value]
        if isinstance(value, dict):
            return {self.hide(name): self.hide_in(inner) for name, inner in value.items()}
        return value

    def tail(self, data: bytes, limit_bytes: int, *, cut: bool, torn: bool) -> str:
        """The last `limit_bytes` of `data` as text, values hidden before the cut is made.

        `cut`: there was more before `data`, which then holds at least `margin_bytes` besides. `torn`: there would have
        been more after it, so that the beginning of a value at its end is hidden too.
        """
        start = max(0, len(data) - limit_bytes)
        spans = _merged([*self._spans(data), *(self._torn_spans(data) if torn else ())])
        pieces: list[bytes] = []
        at = _whole_character(data, start) if start or cut else start
        for begin, end in spans:
            if end > start:
                pieces += (data[at:begin], MASK.encode())
                at = max(at, end)
        pieces.append(data[at:])
        return self.hide(b"".join(pieces)[-limit_bytes:].decode("utf-8", "replace"))

    def _spans(self, data: bytes) -> Iterator[tuple[int, int]]:
        """Where values stand, overlapping ones too: of two that overlap neither may leave its rest."""
        for raw in self._raws:
            begin = data.find(raw)
            while begin >= 0:
                yield begin, begin + len(raw)
                begin = data.find(raw, begin + 1)

    def _torn_spans(self, data: bytes) -> Iterator[tuple[int, int]]:
        for raw in self._raws:
            begin = data.find(raw[:SHORTEST], max(0, len(data) - len(raw) + 1))
            while begin >= 0:
                if raw.startswith(data[begin:]):
                    yield begin, len(data)
                begin = data.find(raw[:SHORTEST], begin + 1)


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans in order, those that overlap made one."""
    merged: list[tuple[int, int]] = []
    for begin, end in sorted(spans):
        if merged and begin < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return merged


def _whole_character(data: bytes, at: int) -> int:
    """The next beginning of a UTF-8 character, at most three bytes on."""
    for position in range(at, min(at + 3, len(data))):
        if not CONTINUATION <= data[position] < CONTINUATION + 64:
            return position
    return min(at + 3, len(data))
