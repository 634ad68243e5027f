"""A submission as a file that a person may read, keep and change: JSON or TOML.

Called by the verb `plan`. What is written reads back as the same value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from phase21.domain.errors import InputRefused
from phase21.store import codec

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def toml(table: Mapping[str, Any]) -> str:
    """A table as TOML; a field that is null is left out, since TOML has no word for it. Raises InputRefused for null in a list."""
    return "\n".join(_table(table, ())) + "\n"


def _table(table: Mapping[str, Any], at: tuple[str, ...]) -> Iterator[str]:
    """The lines of a table: first what fits in a line, then the tables within it, since TOML knows no way back."""
    inner = [(name, value) for name, value in table.items() if _stands_below(value)]
    yield from (
        f"{_key(name)} = {_inline(value)}" for name, value in table.items() if value is not None and not _stands_below(value)
    )
    for name, value in inner:
        path = (*at, name)
        head = ".".join(map(_key, path))
        for one in value if isinstance(value, list) else (value,):
            yield ""
            yield f"[[{head}]]" if isinstance(value, list) else f"[{head}]"
            yield from _table(one, path)


def _stands_below(value: Any) -> bool:
    """Whether a value gets lines of its own: a table, or a list of nothing but tables."""
    if isinstance(value, dict):
        return bool(value)
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def _inline(value: Any) -> str:
    if value is None:
        raise InputRefused("TOML has no word for null within a list; write JSON instead")
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(name)} = {_inline(item)}" for name, item in value.items() if item is not None) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_inline(item) for item in value) + "]"
    # JSON's texts, numbers and truths are TOML's too, but for one control character.
    return codec.encode(value).decode().replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _inline(name)
