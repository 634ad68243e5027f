"""Files that people write, in TOML or YAML, become lines as the queue file holds them: one submission to a file.

Called by `submit` and `check`. A workflow needs no run_id there: its name and the time stand for one. YAML needs PyYAML (extra
`workflows`), and is read by its safe loader alone.
"""

from __future__ import annotations

import math
import tomllib
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from pathlib import PurePath
from typing import Any

from phase21.domain.errors import InputRefused
from phase21.intake.predictions import legal_run_id
from phase21.store import codec

TOML, YAML = (".toml",), (".yaml", ".yml")
EXTRA = 'YAML needs the extra "workflows": pip install "phase21[workflows]" (TOML and JSON need nothing)'
NODES_MOST = 1_000_000
"""How many values a file may hold; a few lines of YAML can stand for any number of them."""

DEPTH_MOST = 64
KEYS_MOST = 100_000
"""How many names an object may hold with those that are merged into it."""

NAME_LONGEST = 100


def is_document(name: str) -> bool:
    """Whether a file is of those that are read here, by its name."""
    return PurePath(name).suffix.lower() in {*TOML, *YAML}


def line_of(name: str, data: bytes, now_us: int) -> bytes:
    """The submission that a file holds, as one line. Raises InputRefused with the field's path."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputRefused(f"not UTF-8 at byte {error.start}") from None
    value = _of_toml(text) if PurePath(name).suffix.lower() in TOML else _of_yaml(text)
    if not isinstance(value, dict):
        raise InputRefused("not a submission: a file holds one, as a table with run_id, and tasks or workflow")
    submission = _plain(value, "", iter(range(NODES_MOST)))
    workflow = submission.get("workflow")
    if "run_id" not in submission and isinstance(workflow, dict) and isinstance(workflow.get("name"), str):
        submission = {"run_id": run_id_of(workflow["name"], now_us), **submission}
    try:
        return codec.encode(submission)
    except codec.CodecError as error:
        raise InputRefused(str(error)) from None


def run_id_of(name: str, now_us: int) -> str:
    """A run's name made of a workflow's and the time (UTC, to the millisecond)."""
    at = datetime.fromtimestamp(now_us / 1e6, UTC)
    return f"{legal_run_id(name)[:NAME_LONGEST]}-{at:%Y%m%dT%H%M%S}.{at.microsecond // 1000:03}Z"


def _of_toml(text: str) -> Any:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        raise InputRefused(f"not TOML: {' '.join(str(error).split())}") from None


def _of_yaml(text: str) -> Any:
    try:
        import yaml  # noqa: PLC0415 - an extra, and only where a file is YAML
    except ImportError:
        raise InputRefused(EXTRA) from None

    class Loader(yaml.SafeLoader):  # type: ignore[misc,name-defined,unused-ignore]
        """The safe loader, which also takes no key twice."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - the library's own
            keys = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
            twice = next((key for key, count in Counter(key for key in keys if isinstance(key, str)).items() if count > 1), None)
            if twice is not None:
                raise yaml.constructor.ConstructorError(None, None, f"{twice} is given twice", node.start_mark)
            made: dict[Any, Any] = super().construct_mapping(node, deep=deep)
            return made

        def flatten_mapping(self, node: Any) -> None:
            """Merge keys into a mapping, as long as it does not come to more than a file may hold."""
            super().flatten_mapping(node)
            if len(node.value) > KEYS_MOST:
                raise yaml.constructor.ConstructorError(None, None, f"merges more than {KEYS_MOST} keys", node.start_mark)

    try:
        return yaml.load(text, Loader)  # noqa: S506 - a safe loader
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise InputRefused(f"not YAML: {' '.join(str(error).split())}") from None


def _plain(value: Any, path: str, nodes: Iterator[int], depth: int = 0) -> Any:
    """The value as JSON can say it. Raises InputRefused for what it cannot, with the path."""
    if next(nodes, None) is None or depth > DEPTH_MOST:
        raise InputRefused(f"holds more than {NODES_MOST} values, or is nested deeper than {DEPTH_MOST} levels", path or None)
    if isinstance(value, dict):
        return {_name(key, path): _plain(inner, f"{path}.{key}".lstrip("."), nodes, depth + 1) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner, f"{path}[{n}]", nodes, depth + 1) for n, inner in enumerate(value)]
    if isinstance(value, datetime):
        return _moment(value, path)
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        raise InputRefused(f"{path}: not a finite number", path)
    if value is None or isinstance(value, str | int | float):
        return value
    raise InputRefused(f"{path}: JSON has no {type(value).__name__}", path)


def _name(key: Any, path: str) -> str:
    if not isinstance(key, str):
        said = f"the name {str(key).lower() if isinstance(key, bool) else key} is no text; put it in quotes"
        raise InputRefused(f"{path}: {said}" if path else said, path or None)
    return key


def _moment(value: datetime, path: str) -> str:
    if value.tzinfo is None:
        said = "a time without its offset from UTC; write 2027-01-31T08:00:00Z, or put it in quotes where text is meant"
        raise InputRefused(f"{path}: {said}", path)
    return value.isoformat()
