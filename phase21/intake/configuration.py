"""The configuration: options beat the environment, which beats the file, which beats the defaults.

Called at start and at a reload. Every key that is given is checked, wherever it comes from, and an error names the place, the key, what
was given and what is allowed. What the keys mean stands in `domain.settings`; here is only where they come from.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_type_hints

import msgspec

from phase21.domain.errors import ConfigurationError
from phase21.domain.plans import CRITICAL_PATH
from phase21.domain.settings import LimitSpec, Section, Settings
from phase21.planning.registry import NAMES
from phase21.store import codec

PREFIX = "PHASE21_"
BLOCKING_ANOMALIES = (
    "agent_failure", "coordination_issue", "prediction_drift", "load_imbalance", "success_drop", "agent_stuck", "agent_offline",
    "safety_violation",
)  # fmt: skip
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
FORMATS = ("auto", "json", "console")

_Key = tuple[str, ...]


class _Given(msgspec.Struct, frozen=True):
    """A value and where it comes from, as a person calls the place."""

    value: Any
    place: str


def load(
    file: str | None,
    environ: Mapping[str, str],
    overrides: Mapping[str, Any] | None = None,
    *,
    strategies: Iterable[str] = NAMES,
) -> Settings:
    """The settings in force. `overrides` are the command line's, by dotted key (`agents.count`); None says nothing.

    Raises ConfigurationError in one line.
    """
    given: dict[_Key, _Given] = {}
    if file is not None:
        given.update(_from_file(file))
    given.update(_from_environment(environ))
    given.update(_from_options(overrides or {}))
    settings: Settings = _built(Settings, (), given)
    _check(settings, given, tuple(strategies))
    return settings


# -- where values come from ----------------------------------------------------------------------------------------------


def _from_file(file: str) -> Iterator[tuple[_Key, _Given]]:
    try:
        with Path(file).open("rb") as stream:
            table = tomllib.load(stream)
    except OSError as error:
        raise ConfigurationError(f"{file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{file}: not UTF-8 at byte {error.start}; the file is TOML in UTF-8") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigurationError(f"{file}: not TOML: {' '.join(str(error).split())}") from None
    yield from _leaves(Settings, (), table, file)


def _from_environment(environ: Mapping[str, str]) -> Iterator[tuple[_Key, _Given]]:
    for name in sorted(environ):
        if not name.startswith(PREFIX):
            continue
        key = tuple(part.lower() for part in name[len(PREFIX) :].split("__"))
        if len(key) > 1 or key[0] in Settings.__struct_fields__:
            place = f"environment variable {name}"
            nested = _nested(key, _from_text(environ[name], _type_at(key), place, key))
            yield from _leaves(Settings, (), nested, place)
        else:
            _refuse_single_underscore(name, key[0])


def _refuse_single_underscore(name: str, text: str) -> None:
    section = next((one for one in Settings.__struct_fields__ if text.startswith(f"{one}_")), None)
    if section is not None:
        meant = f"{PREFIX}{section.upper()}__{text[len(section) + 1 :].upper()}"
        raise ConfigurationError(f"environment variable {name}: section and key are parted by two underscores: {meant}")


def _from_options(overrides: Mapping[str, Any]) -> Iterator[tuple[_Key, _Given]]:
    for dotted, value in overrides.items():
        if value is not None:
            yield from _leaves(Settings, (), _nested(tuple(dotted.split(".")), value), f"option for {dotted}")


def _nested(key: _Key, value: Any) -> Any:
    for part in reversed(key):
        value = {part: value}
    return value


def _from_text(text: str, type_: Any, place: str, key: _Key) -> Any:
    """A variable's text as a value: as it is where text is wanted, JSON otherwise."""
    info = msgspec.inspect.type_info(type_) if type_ is not None else None
    if info is not None and _is_text(info):
        return text
    try:
        return codec.decode(text.lower() if isinstance(info, msgspec.inspect.BoolType) else text)
    except codec.CodecError:
        allowed = f"; allowed: {_words(info)}" if info is not None else ""
        raise ConfigurationError(f"{place}: {'.'.join(key)} is {text!r}{allowed}") from None


def _is_text(info: msgspec.inspect.Type) -> bool:
    if isinstance(info, msgspec.inspect.UnionType):
        return any(_is_text(one) for one in info.types)
    return isinstance(info, msgspec.inspect.StrType | msgspec.inspect.EnumType)


def _type_at(key: _Key) -> Any:
    type_: Any = Settings
    for part in key:
        type_ = _types(type_).get(part) if _is_section(type_) else None
    return type_


def _is_section(type_: Any) -> bool:
    return isinstance(type_, type) and issubclass(type_, Section)


def _types(section: type[Section]) -> dict[str, Any]:
    return get_type_hints(section, include_extras=True)


# -- checking ------------------------------------------------------------------------------------------------------------


def _leaves(section: type[Section], at: _Key, table: Any, place: str) -> Iterator[tuple[_Key, _Given]]:
    """The values of a table by key, each of the right type. Raises ConfigurationError."""
    if not isinstance(table, dict):
        name = ".".join(at)
        raise ConfigurationError(f"{place}: {name} is {_shown(table)}; allowed: a table of {', '.join(section.__struct_fields__)}")
    types = _types(section)
    for name, value in table.items():
        key = (*at, str(name))
        if name not in types:
            kind = "key" if at else "section"
            raise ConfigurationError(f"{place}: unknown {kind} {'.'.join(key)}; allowed: {', '.join(types)}")
        if _is_section(types[name]):
            yield from _leaves(types[name], key, value, place)
        else:
            yield key, _Given(_checked(types[name], key, value, place), place)


def _checked(type_: Any, key: _Key, value: Any, place: str) -> Any:
    try:
        if isinstance(value, float) and not math.isfinite(value):
            raise msgspec.ValidationError("not a finite number")
        return msgspec.convert(value, type_)
    except msgspec.ValidationError as error:
        info = msgspec.inspect.type_info(type_)
        inside = "" if not isinstance(info, msgspec.inspect.VarTupleType) else f" ({_said(error)})"
        said = f"{place}: {'.'.join(key)} is {_shown(value)}; allowed: {_words(info)}{inside}"
        raise ConfigurationError(said) from None


def _shown(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return " ".join(text.split())[:200]


def _said(error: msgspec.ValidationError) -> str:
    what, _, where = " ".join(str(error).replace("`", "").split()).rpartition(" - at $")
    return f"{where}: {'a name is 1 to 128 of A-Z a-z 0-9 . _ -, beginning with a letter or digit' if 'regex' in what else what}"


def _words(info: msgspec.inspect.Type) -> str:
    """What a type allows, in plain words."""
    words = "text"
    if isinstance(info, msgspec.inspect.BoolType):
        words = "true or false"
    elif isinstance(info, msgspec.inspect.IntType):
        words = "a whole number" + _range(info)
    elif isinstance(info, msgspec.inspect.FloatType):
        words = "a number" + _range(info)
    elif isinstance(info, msgspec.inspect.EnumType):
        words = ", ".join(str(one.value) for one in info.cls)
    elif isinstance(info, msgspec.inspect.VarTupleType):
        words = f"a list, each {_words(info.item_type)}"
    elif isinstance(info, msgspec.inspect.StructType):
        words = "a table of " + ", ".join(field.name for field in info.fields)
    return words


def _range(info: msgspec.inspect.IntType | msgspec.inspect.FloatType) -> str:
    if info.gt is not None:
        return f" above {info.gt:g}"
    if info.ge is not None and info.le is not None:
        return f" from {info.ge} to {info.le}" if isinstance(info, msgspec.inspect.IntType) else f" from {info.ge:g} to {info.le:g}"
    return f", {info.ge:g} or more" if info.ge is not None else ""


def _built(section: type[Section], at: _Key, given: Mapping[_Key, _Given]) -> Any:
    values: dict[str, Any] = {}
    for name, type_ in _types(section).items():
        key = (*at, name)
        if _is_section(type_):
            values[name] = _built(type_, key, given)
        elif key in given:
            values[name] = given[key].value
    return section(**values)


def _check(settings: Settings, given: Mapping[_Key, _Given], strategies: tuple[str, ...]) -> None:
    """What one key alone cannot say."""
    _one_of(given, "manager.strategy", settings.manager.strategy, strategies)
    _one_of(given, "manager.workflow_strategy", settings.manager.workflow_strategy, (CRITICAL_PATH, *strategies))
    _one_of(given, "logging.level", settings.logging.level, LEVELS)
    _one_of(given, "logging.format", settings.logging.format, FORMATS)
    for name in settings.safety.blocking_anomalies:
        _one_of(given, "safety.blocking_anomalies", name, BLOCKING_ANOMALIES)
    ids = [spec.id for spec in settings.agents.fleet]
    twice = next((one for one in ids if ids.count(one) > 1), None)
    if twice is not None:
        raise ConfigurationError(f"{_place(given, 'agents.fleet')}: agents.fleet names {twice} twice; each id stands once")
    for n, spec in enumerate(settings.limits):
        _check_limit(spec, f"{_place(given, 'limits')}: limits[{n}]")
    weights = [getattr(settings.health.weights, name) for name in settings.health.weights.__struct_fields__]
    if abs(math.fsum(weights) - 1) > 1e-9:  # noqa: PLR2004 - the contract's
        said = f"health.weights sum to {math.fsum(weights):g}; allowed: shares that sum to 1"
        raise ConfigurationError(f"{_place(given, 'health.weights')}: {said} (the keys not given keep their defaults)")
    marks = settings.health.thresholds
    if not marks.excellent > marks.good > marks.fair:
        said = f"health.thresholds are excellent {marks.excellent:g}, good {marks.good:g}, fair {marks.fair:g}"
        raise ConfigurationError(f"{_place(given, 'health.thresholds')}: {said}; allowed: each below the one before")


def _check_limit(spec: LimitSpec, where: str) -> None:
    named = [by for by in ("kind", "agent", "key") if getattr(spec, by) is not None]
    if len(named) != 1:
        said = f"names {' and '.join(named)}" if named else "names nothing"
        raise ConfigurationError(f"{where} {said}; allowed: exactly one of kind, agent, key")
    if not spec.concurrent and not spec.rate_per_s:
        raise ConfigurationError(f"{where} limits nothing; give concurrent, rate_per_s or both")


def _one_of(given: Mapping[_Key, _Given], dotted: str, value: str, allowed: Iterable[str]) -> None:
    names = tuple(allowed)
    if value not in names:
        raise ConfigurationError(f"{_place(given, dotted)}: {dotted} is {_shown(value)}; allowed: {', '.join(names)}")


def _place(given: Mapping[_Key, _Given], dotted: str) -> str:
    key = tuple(dotted.split("."))
    return next((one.place for at, one in reversed(list(given.items())) if at[: len(key)] == key), "the defaults")
