"""Where templates are found, and how a file becomes one.

Called by the verb `plan`. A name is looked for in the folder of the configuration first, so that a user's own `feature` beats the one
that comes with phase21; a path is read as it is. Nothing here fills a template.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from phase21.domain.errors import InputRefused, UsageError
from phase21.domain.tasks import Name
from phase21.workflows.templates.filling import Scope, alike, filled, sort_of

SHIPPED = Path(__file__).parent
SUFFIX = ".toml"


class Value(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a template needs to be told: its meaning, and its default or that it must be given."""

    meaning: str
    default: Any = None
    required: bool = False


class Template(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A workflow with places for values. `workflow` is in the language of submissions."""

    name: Name
    description: str
    values: dict[str, Value] = {}
    workflow: dict[str, Any]


def named(name: str, folder: str | None) -> Template:
    """The template of a name, or of a path that ends in .toml. Raises UsageError where there is none, InputRefused."""
    if name.endswith(SUFFIX):
        return read(Path(name))
    places = [place / f"{name}{SUFFIX}" for place in _folders(folder)]
    found = next((place for place in places if place.is_file()), None) if name.isprintable() and "/" not in name else None
    if found is None:
        known = ", ".join(one.name for one in shelf(folder))
        raise UsageError(f"no template {name}; there are {known}, or give the path of a {SUFFIX} file")
    return read(found)


def shelf(folder: str | None) -> Iterator[Template]:
    """All templates by name: a user's own, then those that come with phase21. Raises InputRefused."""
    found: dict[str, Path] = {}
    for place in reversed(_folders(folder)):
        found |= {path.stem: path for path in place.glob(f"*{SUFFIX}")}
    return (read(found[name]) for name in sorted(found))


def read(path: Path) -> Template:
    """The template that a file holds. Raises InputRefused naming file and field."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputRefused(f"{path}: not TOML: {' '.join(str(error).split())}") from None
    try:
        template = msgspec.convert(table, Template)
    except msgspec.ValidationError as error:
        what, _, where = str(error).replace("`", "").partition(" - at $.")
        raise InputRefused(f"{path}: {where}{': ' if where else ''}{what}", where or None) from None
    for name, value in template.values.items():
        if value.required == (value.default is not None):
            field = f"values.{name}"
            raise InputRefused(f"{path}: {field}: has either a default or required = true", field)
    return template


def workflow_of(template: Template, given: Mapping[str, Any], facts: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """The template's workflow with its values put in.

    `given` was given for this plan, `usual` stands in the configuration, where names that the template does not know are passed
    over, and `facts` (the goal among them) are taken literally. Raises InputRefused with the path of what is missing or wrong.
    """
    values = values_of(template, given, usual)
    made = filled(template.workflow, Scope(values, facts), "workflow")
    return {"name": template.name, **made}


def values_of(template: Template, given: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """Each of the template's values: as given, else as usual, else its default. Raises InputRefused with the path of the value."""
    unknown = next((name for name in given if name not in template.values), None)
    if unknown is not None:
        known = ", ".join(template.values) or "no values"
        raise InputRefused(f"values.{unknown}: {template.name} has {known}", f"values.{unknown}")
    return {name: _given(name, value, {**usual, **given}) for name, value in template.values.items()}


def _given(name: str, value: Value, given: Mapping[str, Any]) -> Any:
    field = f"values.{name}"
    if name not in given:
        if value.required:
            raise InputRefused(f"{field}: needs a value: {value.meaning} (--set {name}=…)", field)
        return value.default
    if not alike(given[name], value.default):
        raise InputRefused(f"{field}: is {sort_of(given[name])}; allowed: {sort_of(value.default)}", field)
    return given[name]


def _folders(folder: str | None) -> list[Path]:
    return [Path(folder).expanduser(), SHIPPED] if folder is not None else [SHIPPED]
