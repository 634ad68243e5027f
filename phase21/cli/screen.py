"""What verbs show a person: tables on stdout, a progress bar on stderr where that is a terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Protocol

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

PIPE_WIDTH = 160


class Advance(Protocol):
    """Moves a bar."""

    def __call__(self, ended: int, failed: int, total: int, percent: float | None = None) -> None:
        """Take how many tasks have ended, how many of them FAILED, how many there are, and how far that is where counts do not say it."""


class Screen(Console):
    """A console that leaves a reader that has gone to the command line."""

    def on_broken_pipe(self) -> None:
        """Say so."""
        raise BrokenPipeError


def show(*parts: RenderableType) -> None:
    """Print to stdout; what a terminal would cut is printed whole in a pipe."""
    screen = Screen(file=sys.stdout, highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
    for part in parts:
        screen.print(part, soft_wrap=isinstance(part, str))


def table(*heads: str, title: str | None = None) -> Table:
    """Begin a table; a head that ends in `#` stands over numbers."""
    made = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for head in heads:
        made.add_column(head.rstrip("#"), justify="right" if head.endswith("#") else "left", overflow="fold")
    return made


@contextlib.contextmanager
def bar(what: str) -> Iterator[Advance | None]:
    """Give what moves a progress bar on stderr, None where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[counted]}"),
        TextColumn("{task.fields[failed]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=None, failed="", counted="")

        def advance(ended: int, failed: int, total: int, percent: float | None = None) -> None:
            said = f"{ended}/{total}" if percent is None else f"{percent:.1f} % ({ended}/{total})"
            completed = ended if percent is None else total * percent / 100.0
            progress.update(task, completed=completed, total=total, counted=said, failed=f"[red]{failed} failed" if failed else "")

        yield advance


def tell(said: str) -> None:
    """Say something on stderr, above a bar that is shown there."""
    print(said, file=sys.stderr)  # noqa: T201 - click would write past the bar, into its line


def figure(value: float | None, digits: int = 1) -> str:
    """A number for a person, `-` where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"
