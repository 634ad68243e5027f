"""The options that verbs share, as one value: where things are, and what of the configuration the command line decides.

Every verb takes a `Given`; it alone turns options into paths and settings. It imports the house only when it is asked to.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from pathlib import Path

    from phase21.domain.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])

_COMMON = (
    click.option("--config", metavar="FILE", help="Configuration, TOML."),
    click.option(
        "--state", metavar="DIR", default="phase21_state", show_default=True, help="State folder: the journal and the queue."
    ),
    click.option("--outputs", metavar="DIR", default="phase21_outputs", show_default=True, help="Where runs leave their folders."),
    click.option("--queue", metavar="FILE", help="Queue file.  [default: queue.jsonl in the state folder]"),
    click.option(
        "--log-level",
        metavar="LEVEL",
        type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"], case_sensitive=False),
        help="DEBUG, INFO, WARNING or ERROR.",
    ),
    click.option("--log-format", type=click.Choice(["auto", "json", "console"]), help="auto: console on a terminal, else json."),
)
_EXECUTING = (
    click.option("--agents", metavar="N", type=click.IntRange(min=1), help="How many agents."),
    click.option("--strategy", metavar="NAME", help="How tasks are assigned to agents."),
    click.option("--seed", metavar="N", type=int, help="Seed of everything that is simulated."),
    click.option("--dry-run", is_flag=True, default=None, help="Execute nothing real: every task is simulated."),
)
_KEYS = {
    "queue": "queue.path",
    "log_level": "logging.level",
    "log_format": "logging.format",
    "agents": "agents.count",
    "strategy": "manager.strategy",
    "seed": "handlers.seed",
    "dry_run": "execution.dry_run",
}
"""Which key of the configuration an option decides."""


class Given:
    """What the shared options say."""

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values

    @property
    def state(self) -> Path:
        """The state folder."""
        return _absolute(self._values["state"])

    @property
    def outputs(self) -> Path:
        """The folder of the runs' folders."""
        return _absolute(self._values["outputs"])

    @property
    def log_format(self) -> str:
        """How events look, where the command line says so."""
        return self._values["log_format"] or "auto"

    def queue(self, settings: Settings) -> Path:
        """Find the queue file."""
        return _absolute(settings.queue.path) if settings.queue.path else self.state / "queue.jsonl"

    def load(self) -> Settings:
        """Read the configuration: defaults, file, environment, options, each beating those before. Raises ConfigurationError."""
        import os  # noqa: PLC0415 - see the module

        from phase21.intake import configuration  # noqa: PLC0415

        overrides = {key: self._values[name] for name, key in _KEYS.items() if self._values.get(name) is not None}
        if "agents.count" in overrides:
            overrides["agents.fleet"] = []  # so many, whatever the file names
        return configuration.load(self._values["config"], os.environ, overrides)


def common(*, executing: bool = False) -> Callable[[F], F]:
    """Give a verb the shared options as its first argument; with `executing` also those about how work is done."""
    options = _COMMON + (_EXECUTING if executing else ())

    def decorate(verb: F) -> F:
        @functools.wraps(verb)
        def given(**values: Any) -> Any:
            shared = {name: values.pop(name) for name in ("config", "state", "outputs", *_KEYS) if name in values}
            return verb(Given(shared), **values)

        for option in reversed(options):
            given = option(given)
        return given  # type: ignore[return-value]

    return decorate


def _absolute(path: str) -> Path:
    from pathlib import Path  # noqa: PLC0415 - see the module

    return Path(path).absolute()
