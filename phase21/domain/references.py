"""References: places in a payload that stand for what another task left, or for the element that a task is made for.

Intake looks for them and fills in elements; executors put results in their place before an attempt. Nothing here knows where
results are kept. `{"$literal": value}` stands for the value as it is, whatever marks it holds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec
from msgspec import UNSET

from phase21.domain.errors import Phase21Error
from phase21.domain.tasks import TaskStatus
from phase21.domain.workflows import Upstream

FROM, PATH, DEFAULT = "$from", "path", "default"
ITEM, INDEX, LITERAL = "$item", "$index", "$literal"
RESULT = "result"
ROOTS = (RESULT, "status", "error")
SHOWN = 8
"""How many names of an object are shown where the one asked for is not among them."""

_ROOT = re.compile(r"[a-z]+")
_STEP = re.compile(r"\.([^.\[\]\"]+)|\[(\d{1,9})\]|\[\"([^\"]*)\"\]")


class ReferenceFault(Phase21Error):
    """A reference that is malformed or stands for nothing: `at` is where it stands, `why` what is wrong with it."""

    exit_status = 3

    def __init__(self, at: str, why: str) -> None:
        super().__init__(f"{at}: {why}")
        self.at = at
        self.why = why


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """What a payload takes from another task: which part (`path`), and what to take where there is none (`default`, if set)."""

    task: str
    path: str = RESULT
    at: str = ""
    default: Any = UNSET


def references(value: Any, at: str = "payload") -> Iterator[Reference]:
    """Every reference in a value, in order. Raises ReferenceFault for one that is malformed."""
    if type(value) is dict:
        if FROM in value:
            yield reference_of(value, at)
        elif not _is_literal(value):
            for name, inner in value.items():
                yield from references(inner, f"{at}.{name}")
    elif type(value) is list:
        for n, inner in enumerate(value):
            yield from references(inner, f"{at}[{n}]")


def reference_of(mark: Mapping[str, Any], at: str) -> Reference:
    """The reference that an object with `$from` is. Raises ReferenceFault."""
    others = sorted(set(mark) - {FROM, PATH, DEFAULT})
    if others:
        said = f"a reference has $from, path and default, not {others[0]}; where an object is meant, put it in {{{LITERAL!r}: …}}"
        raise ReferenceFault(at, said)
    task, path = mark[FROM], mark.get(PATH, RESULT)
    if type(task) is not str:
        raise ReferenceFault(f"{at}.{FROM}", "not the id of a task")
    if type(path) is not str:
        raise ReferenceFault(f"{at}.{PATH}", "not text; allowed: a path like result.stdout")
    _parted(path, f"{at}.{PATH}")
    return Reference(task=task, path=path, at=at, default=mark.get(DEFAULT, UNSET))


_MARKS = frozenset({FROM, LITERAL, ITEM, INDEX})
_NESTS = frozenset({dict, list})


def marked(value: Any) -> bool:
    """Whether there is anything in a value that stands for something else."""
    if type(value) is dict:
        if not _MARKS.isdisjoint(value):
            return True
        value = value.values()
    elif type(value) is not list:
        return False
    return not _NESTS.isdisjoint(map(type, value)) and any(map(marked, value))  # most are flat, and every dependent is asked


def resolved(value: Any, upstream: Mapping[str, Upstream], at: str = "payload") -> Any:
    """The value with what its references stand for; itself where it holds none. Raises ReferenceFault, saying which and why."""
    if not marked(value):
        return value

    def put(mark: dict[str, Any], where: str) -> Any:
        if FROM in mark:
            return taken(reference_of(mark, where), upstream)
        return mark[LITERAL] if _is_literal(mark) else UNSET

    return _replaced(value, at, put)


def taken(reference: Reference, upstream: Mapping[str, Upstream]) -> Any:
    """What a reference stands for. Raises ReferenceFault where there is nothing and it has no default."""
    try:
        return _taken(reference, upstream)
    except ReferenceFault:
        if reference.default is UNSET:
            raise
        return reference.default


def with_item(value: Any, item: Any, index: int, at: str = "payload", *, literal: bool = False) -> Any:
    """The value with an element, or what is within it, in place of `{"$item": path}`, and its number in place of `{"$index": true}`.

    Where the element is UNSET, as it is not known yet, null stands for it. With `literal` marks within it stand for themselves (what
    a task left is nobody's reference). Raises ReferenceFault where it has no such part.
    """

    def put(mark: dict[str, Any], where: str) -> Any:
        if len(mark) == 1 and mark.get(INDEX) is True:
            return index
        if len(mark) == 1 and ITEM in mark:
            steps = _steps_into_item(mark[ITEM], where)
            part = None if item is UNSET else _part(item, steps, f"{where}.{ITEM}", "the element")
            return {LITERAL: part} if literal and marked(part) else part
        return mark if _is_literal(mark) else UNSET

    return _replaced(value, at, put) if marked(value) else value


def item_marks(value: Any, at: str = "payload") -> Iterator[str]:
    """Where `$item` and `$index` stand in a value."""
    if type(value) is dict and not _is_literal(value):
        yield from (at for name in (ITEM, INDEX) if name in value)
        for name, inner in value.items():
            yield from item_marks(inner, f"{at}.{name}")
    elif type(value) is list:
        for n, inner in enumerate(value):
            yield from item_marks(inner, f"{at}[{n}]")


def renamed(value: Any, name_of: Callable[[str], str]) -> Any:
    """The value with the task of every reference called by another name. What is malformed stays, and is refused where it is read."""

    def put(mark: dict[str, Any], _: str) -> Any:
        if FROM in mark:
            return {**mark, FROM: name_of(mark[FROM])} if type(mark[FROM]) is str else mark
        return mark if _is_literal(mark) else UNSET

    return _replaced(value, "", put) if marked(value) else value


# -- values --------------------------------------------------------------------------------------------------------------


def _is_literal(mark: Mapping[str, Any]) -> bool:
    return len(mark) == 1 and LITERAL in mark


def _replaced(value: Any, at: str, put: Callable[[dict[str, Any], str], Any]) -> Any:
    """A copy in which `put` has its say about every object; UNSET from it means that the object stays, and is gone into."""
    if type(value) is dict:
        stands = put(value, at)
        return {name: _replaced(inner, f"{at}.{name}", put) for name, inner in value.items()} if stands is UNSET else stands
    if type(value) is list:
        return [_replaced(inner, f"{at}[{n}]", put) for n, inner in enumerate(value)]
    return value


def _taken(reference: Reference, upstream: Mapping[str, Upstream]) -> Any:
    at, task = reference.at, reference.task
    became = upstream.get(task)
    if became is None:
        raise ReferenceFault(at, f"nothing is known of task {task}")
    root, steps = _parted(reference.path, at)
    if root != RESULT:
        whole = str(became.status) if root == "status" else became.error
    elif became.status != TaskStatus.COMPLETED:
        raise ReferenceFault(at, f"{task} is {became.status}, so it has no result; path may name status or error")
    else:
        whole = became.result
    return _part(whole, steps, at, root, f" of {task}")


def _part(value: Any, steps: tuple[str | int, ...], at: str, name: str, owner: str = "") -> Any:
    """What stands at the end of a path; `name` and `owner` are what the value is called."""
    for step in steps:
        if type(step) is int:
            if type(value) is not list or step >= len(value):
                has = f"has {len(value)} elements" if type(value) is list else f"is {_kind(value)}"
                raise ReferenceFault(at, f"{name}{owner} {has}: there is no [{step}]")
        elif type(value) is not dict or step not in value:
            has = f"has {', '.join(list(value)[:SHOWN]) or 'no fields'}" if type(value) is dict else f"is {_kind(value)}"
            raise ReferenceFault(at, f"{name}{owner} {has}: there is no {step}")
        value = value[step]
        name = f"{name}[{step}]" if type(step) is int else f"{name}.{step}"
    return value


def _kind(value: Any) -> str:
    """What kind of JSON a value is, in plain words."""
    words: dict[type, str] = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return words.get(type(value), "a number")


# -- paths ---------------------------------------------------------------------------------------------------------------


def _parted(path: str, at: str) -> tuple[str, tuple[str | int, ...]]:
    """A path's root, and the steps after it."""
    root = _ROOT.match(path)
    rest = path[root.end() :] if root else ""
    if root is None or root[0] not in ROOTS or not (rest == "" or rest[0] in ".["):
        raise ReferenceFault(at, f"path {path[:128]!r} begins with none of {', '.join(ROOTS)}")
    return root[0], _steps(rest, at)


def _steps_into_item(path: Any, at: str) -> tuple[str | int, ...]:
    if type(path) is not str:
        raise ReferenceFault(f"{at}.{ITEM}", 'not text; allowed: a path within the element, or "" for all of it')
    return _steps(path if path == "" or path[0] in ".[" else f".{path}", f"{at}.{ITEM}")


def _steps(rest: str, at: str) -> tuple[str | int, ...]:
    steps: list[str | int] = []
    place = 0
    while place < len(rest):
        found = _STEP.match(rest, place)
        if found is None:
            raise ReferenceFault(at, f"path {rest[:128]!r} cannot be read at {rest[place : place + 16]!r}; allowed: .name, [0]")
        steps.append(found[1] if found[1] is not None else int(found[2]) if found[2] is not None else found[3])
        place = found.end()
    return tuple(steps)
