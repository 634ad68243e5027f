"""Conditions: expressions in CEL over what became of other tasks, which say whether a task is to be done.

Intake checks them, readiness asks them. The variable `tasks` is a map by task id of `status`, `result` and `error`. They are
run by `cel-expr-python` (extra `workflows`), which bounds them: 32 levels of recursion, 10,000 iterations in all. What comes of
one is a value, never an exception: whatever is not true is false, and says why.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from phase21.domain.errors import Phase21Error
from phase21.domain.workflows import Upstream

EXTRA = 'conditions need the extra "workflows": pip install "phase21[workflows]"'
PARTS = ("status", "result", "error")
COMPILED_KEPT = 1024
"""How many compiled conditions are kept."""

MACROS_MOST, SUMS_MOST, COMMAS_MOST = 8, 8, 40
"""What a condition with macros may hold of each: what is bound in one may be doubled in the next, and so on, without any iteration."""

_MACROS = frozenset({"all", "exists", "exists_one", "existsOne", "filter", "map"})
_TASKS = "tasks"
_STATUS = "_status"
_TOKEN = re.compile(
    r"""(?P<skip>\s+|//[^\n]*)
    |(?P<raw>[bB]?[rR][bB]?(?:\"{3}.*?\"{3}|'{3}.*?'{3}|"[^"\n]*"|'[^'\n]*'))
    |(?P<text>[bB]?(?:\"{3}(?:\\.|[^\\])*?\"{3}|'{3}(?:\\.|[^\\])*?'{3}|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'))
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<other>\d+|.)""",
    re.VERBOSE | re.DOTALL,
)
_PLACE = re.compile(r"<input>:(-?\d+):(-?\d+): *(.*?)(?: *\|.*)?$")
_CODE = re.compile(r"^[A-Z_]+: | \[[A-Z_]+\]$")


class ConditionFault(Phase21Error):
    """A condition that cannot be one: what is wrong with it, and where in its text."""

    exit_status = 3


class Held(msgspec.Struct, frozen=True):
    """What came of a condition; `why` says what stood in the way where it is not true."""

    true: bool
    why: str = ""


class _Token(msgspec.Struct, frozen=True, gc=False):
    kind: str
    text: str
    start: int
    end: int


class _Mention(msgspec.Struct, frozen=True):
    """A task that is named: where it stands in the text (with `tasks` before it), its id, and the part asked for, if any."""

    start: int
    end: int
    task: str
    part: str = ""
    part_end: int = 0
    tested: bool = False


def check(text: str) -> None:
    """Refuse what is no condition: a wrong syntax, name or type, an unknown part of a task. Raises ConditionFault."""
    mentions = _mentions(text)
    for one in mentions:
        if one.part and one.part not in PARTS:
            said = f"tasks.{one.task} has status, result and error, not {one.part}"
            raise ConditionFault(f'{said}; a task whose id holds a dot or a dash is named tasks["{one.task}.{one.part}"]')
    _check_growth(text)
    kind = _compiled(_typed(text, mentions)).return_type().name()
    if kind not in {"BOOL", "DYN"}:
        raise ConditionFault(f"comes to {kind.lower()}, not to true or false")
    _compiled(text)


@lru_cache(maxsize=COMPILED_KEPT)
def named(text: str) -> tuple[str, ...] | None:
    """The ids of the tasks that a condition names, in order; None where it looks at whatever tasks there are (`tasks.all(...)`)."""
    tokens = list(_tokens(text))
    spoken = [n for n in range(len(tokens)) if _spoken(tokens, n)]
    mentions = [one for n in spoken if (one := _mention(tokens, n)) is not None]
    return tuple(dict.fromkeys(one.task for one in mentions)) if len(spoken) == len(mentions) else None


def renamed(text: str, name_of: Callable[[str], str]) -> str:
    """The condition with every task that it names called by another name."""
    for one in reversed(_mentions(text)):
        name = name_of(one.task)
        if name != one.task:
            text = f'{text[: one.start]}tasks["{name}"]{text[one.end :]}'
    return text


def both(first: str | None, second: str | None) -> str | None:
    """The condition that holds where both do."""
    if first is None or second is None or first == second:
        return first or second
    return f"({first}) && ({second})"


def judged(text: str, upstream: Mapping[str, Upstream]) -> Held:
    """Whether a condition is true of what became of tasks; anything else counts as false. Never raises."""
    try:
        given = {_TASKS: {task_id: _seen(became) for task_id, became in upstream.items()}}
        value = _compiled(text).eval(data=given)
        kind = value.type().name()
        if kind == "BOOL":
            return Held(true=True) if value.value() else Held(true=False, why=f"the condition is false: {_short(text)}")
        said = _plain(str(value.value())) if kind == "ERROR" else f"it comes to {kind.lower()}, not to true or false"
    except Exception as error:  # noqa: BLE001 - whatever the library makes of a condition, it is not true
        said = _plain(str(error))
    return Held(true=False, why=f"the condition cannot be decided ({said}): {_short(text)}")


def _seen(became: Upstream) -> dict[str, Any]:
    return {"status": str(became.status), "result": became.result, "error": became.error}


def _short(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= 160 else f"{plain[:159]}…"  # noqa: PLR2004 - what fits in a line


# -- the library ---------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _environment() -> Any:
    try:
        from cel_expr_python import cel  # noqa: PLC0415 - an extra, and only where there are conditions
    except ImportError:
        raise ConditionFault(EXTRA) from None
    a_task = cel.Type.Map(cel.Type.STRING, cel.Type.DYN)
    return cel.NewEnv(variables={_TASKS: cel.Type.Map(cel.Type.STRING, a_task), _STATUS: cel.Type.STRING})


@lru_cache(maxsize=COMPILED_KEPT)
def _compiled(text: str) -> Any:
    try:
        return _environment().compile(text)
    except (RuntimeError, ValueError) as error:
        raise ConditionFault(_plain(str(error))) from None


def _plain(said: str) -> str:
    """What the library says, in one line: the message, and the column it points at."""
    line = _CODE.sub("", " ".join(said.split()))
    found = _PLACE.search(line)
    if found is None:
        return _short(line)
    place = f" (at line {found[1]}, column {found[2]})" if int(found[1]) > 0 else ""
    return f"{_short(_CODE.sub('', found[3]))}{place}"


# -- the text ------------------------------------------------------------------------------------------------------------


def _check_growth(text: str) -> None:
    """Refuse what could come to any size, whatever the library bounds. Raises ConditionFault."""
    texts = [token.text for token in _tokens(text)]
    macros = sum(texts[n] in _MACROS and (texts[n - 1], texts[n + 1]) == (".", "(") for n in range(1, len(texts) - 1))
    if not macros:
        return
    for what, held, most in (
        ("macros (all, exists, map, …)", macros, MACROS_MOST),
        ("signs +", texts.count("+"), SUMS_MOST),
        ("commas", texts.count(","), COMMAS_MOST),
    ):
        if held > most:
            raise ConditionFault(f"holds {held} {what}; a condition with macros may hold {most}")


def _tokens(text: str) -> Iterator[_Token]:
    for found in _TOKEN.finditer(text):
        if found.lastgroup != "skip":
            yield _Token(found.lastgroup or "", found[0], found.start(), found.end())


def _mentions(text: str) -> list[_Mention]:
    tokens = list(_tokens(text))
    return [one for n in range(len(tokens)) if _spoken(tokens, n) and (one := _mention(tokens, n)) is not None]


def _spoken(tokens: Sequence[_Token], n: int) -> bool:
    """Whether the n-th token is the variable `tasks`, not a field that is called so."""
    return tokens[n].text == _TASKS and not (n and tokens[n - 1].text == ".")


def _mention(tokens: Sequence[_Token], n: int) -> _Mention | None:
    """The task that is named from the n-th token on: `tasks.NAME` or `tasks["NAME"]`."""
    after = [token.text for token in tokens[n + 1 : n + 4]]
    tested = n > 1 and (tokens[n - 2].text, tokens[n - 1].text) == ("has", "(")
    if len(after) > 1 and after[0] == "." and tokens[n + 2].kind == "name" and after[2:] != ["("]:
        return _with_part(tokens, n, n + 2, after[1], tested=tested)
    if len(after) > 2 and after[0] == "[" and tokens[n + 2].kind in {"text", "raw"} and after[2] == "]":  # noqa: PLR2004
        return _with_part(tokens, n, n + 3, after[1].lstrip("rRbB").strip("\"'"), tested=tested)
    return None


def _with_part(tokens: Sequence[_Token], first: int, last: int, task: str, *, tested: bool) -> _Mention:
    start, end = tokens[first].start, tokens[last].end
    after = tokens[last + 1 : last + 4]
    texts = [token.text for token in after]
    if len(after) > 1 and texts[0] == "." and after[1].kind == "name" and texts[2:] != ["("]:
        return _Mention(start, end, task, texts[1], after[1].end, tested)
    return _Mention(start, end, task)


def _typed(text: str, mentions: Sequence[_Mention]) -> str:
    """The text with every status as a variable of its own, which is known to be text; each column stays where it was."""
    for one in reversed(mentions):
        if one.part == "status" and not one.tested:
            text = text[: one.start] + _STATUS.ljust(one.part_end - one.start) + text[one.part_end :]
    return text
