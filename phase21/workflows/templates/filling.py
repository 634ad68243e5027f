"""Placeholders of a template and the values that take their place.

Called for templates and for what a model plans. A value is put in as it is: no code runs, and what a value holds is never looked at
again where it came from the goal. Everything that is refused names the field's path.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any, NamedTuple

from phase21.domain.errors import InputRefused
from phase21.store import codec

_PLACEHOLDER = re.compile(r"\{\{\s*(\*?)\s*([A-Za-z_][A-Za-z0-9_-]*)\s*\}\}")

INSTRUCTION, TASK_ID = "instruction", "task_id"
"""What a task knows of itself: its `metadata.instruction`, with the placeholders of that filled, and its id."""


class Scope(NamedTuple):
    """What placeholders stand for. `literal` values are put in as they are; others may hold placeholders themselves."""

    values: Mapping[str, Any]
    literal: Mapping[str, Any]
    within: tuple[str, ...] = ()


def filled(node: Any, scope: Scope, path: str) -> Any:
    """A part of a template with every placeholder replaced. Raises InputRefused with the path of the text that holds it."""
    if isinstance(node, str):
        return _text(node, scope, path)
    if isinstance(node, list | tuple):
        return _items(node, scope, path)
    if isinstance(node, dict):
        inner = _of_task(node, scope, path)
        return {key: filled(item, inner, f"{path}.{key}" if path else key) for key, item in node.items()}
    return node


def typed(text: str, like: Any) -> Any:
    """What `--set name=text` means for a value whose default is `like` (None where it has none): the same sort of thing.

    A list is JSON, or words as a shell would part them; text is taken as it is. Raises ValueError.
    """
    if isinstance(like, list) and not text.lstrip().startswith("["):
        return shlex.split(_PLACEHOLDER.sub(lambda found: f"{{{{{found[1]}{found[2]}}}}}", text))
    if like is None or isinstance(like, str):
        return text
    value = codec.decode(text)
    if not alike(value, like):
        raise ValueError(f"not {sort_of(like)}")
    return value


def alike(value: Any, like: Any) -> bool:
    """Whether a value is of the sort of another; anything is, where there is no other."""
    return like is None or sort_of(value) == sort_of(like)


def sort_of(value: Any) -> str:
    """What sort of thing a value is, in a word."""
    for kind, word in ((bool, "true or false"), (int | float, "a number"), (str, "text"), (list | tuple, "a list")):
        if isinstance(value, kind):
            return word
    return "a table"


# -- placeholders --------------------------------------------------------------------------------------------------------


def _text(text: str, scope: Scope, path: str) -> Any:
    whole = _PLACEHOLDER.fullmatch(text.strip())
    if whole is not None and not whole[1]:
        return _value(whole[2], scope, path)
    return _PLACEHOLDER.sub(lambda found: _within_text(found, scope, path), text)


def _within_text(found: re.Match[str], scope: Scope, path: str) -> str:
    if found[1]:
        raise InputRefused(f"{path}: {found[0]} puts the items of a list into a list; it stands alone there", path)
    value = _value(found[2], scope, path)
    if isinstance(value, list | tuple | dict):
        raise InputRefused(f"{path}: {found[2]} is {sort_of(value)}, which cannot stand within text", path)
    return value if isinstance(value, str) else codec.encode(value).decode()


def _items(items: list[Any] | tuple[Any, ...], scope: Scope, path: str) -> list[Any]:
    made: list[Any] = []
    for n, item in enumerate(items):
        spread = _PLACEHOLDER.fullmatch(item.strip()) if isinstance(item, str) else None
        value = filled(item, scope, f"{path}[{n}]") if spread is None else _value(spread[2], scope, f"{path}[{n}]")
        if spread is None or not spread[1]:
            made.append(value)
        elif isinstance(value, list):
            made += value
        else:
            raise InputRefused(f"{path}[{n}]: {spread[2]} is {sort_of(value)}, and has no items", f"{path}[{n}]")
    return made


def _value(name: str, scope: Scope, path: str) -> Any:
    if name in scope.literal:
        return scope.literal[name]
    if name in scope.within:
        raise InputRefused(f"{path}: the value {name} is made of itself ({' -> '.join((*scope.within, name))})", path)
    if name in scope.values:
        return filled(scope.values[name], scope._replace(within=(*scope.within, name)), path)
    if name == INSTRUCTION:
        raise InputRefused(f"{path}: {name} has no value: the task has no metadata.instruction", path)
    known = ", ".join(sorted({*scope.values, *scope.literal}))
    raise InputRefused(f"{path}: {name} has no value; there are {known}", path)


def _of_task(node: Mapping[str, Any], scope: Scope, path: str) -> Scope:
    """The scope within an object; a task adds what it knows of itself."""
    if not isinstance(node.get(TASK_ID), str):
        return scope
    own = {name: value for name, value in scope.literal.items() if name != INSTRUCTION}
    own[TASK_ID] = filled(node[TASK_ID], scope, f"{path}.{TASK_ID}")
    metadata = node.get("metadata")
    if isinstance(metadata, dict) and INSTRUCTION in metadata:
        inner = scope._replace(literal=own)
        own[INSTRUCTION] = filled(metadata[INSTRUCTION], inner, f"{path}.metadata.{INSTRUCTION}")
    return scope._replace(literal=own)
