"""Shows what was measured: a table for a person, one JSON object for a script, and a progress bar on a terminal."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from phase21.bench.bounds import Figure
from phase21.bench.measure import Progress as Advance
from phase21.bench.measure import Sample
from phase21.store import codec

PIPE_WIDTH = 160


@contextlib.contextmanager
def bar() -> Iterator[Advance]:
    """What moves a progress bar on stderr; where stderr is no terminal it shows nothing."""
    columns = (TextColumn("bench {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as shown:
        task = shown.add_task("", total=None)

        def advance(name: str, done: int, total: int) -> None:
            shown.update(task, description=name, completed=done, total=total)

        yield advance


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpus": os.cpu_count(),
        "load_1m": os.getloadavg()[0],
    }


def as_json(figures: list[Figure], samples: dict[str, list[Sample]], *, quick: bool) -> bytes:
    """Everything, the raw samples too, as one line."""
    return codec.line({"machine": machine(), "quick": quick, "figures": figures, "samples": samples})


def show(figures: list[Figure], samples: dict[str, list[Sample]], *, quick: bool) -> None:
    """Print the figures, and where a task's time goes if that was measured."""
    console = Console(file=sys.stdout, highlight=False, markup=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
    on = machine()
    console.print(f"Python {on['python']}, {on['cpus']} CPUs, load {on['load_1m']:.1f}, {on['system']}", soft_wrap=True)
    if quick:
        console.print("quick: smaller loads than the labels say, each measured once; a look, not a measurement", soft_wrap=True)
    console.print(_table(figures))
    for sample in samples.get("cost", ()):
        console.print()
        console.print(_stages(sample))


def _table(figures: list[Figure]) -> Table:
    table = _headed("FIGURE", "MEASURED#", "REFERENCE#", "RATIO#", "MUST REACH#", "")
    for figure in figures:
        table.add_row(
            figure.label,
            f"{_number(figure.measured)} {figure.unit}",
            "" if figure.reference is None else f"{_number(figure.reference)} {figure.unit}",
            f"{figure.judged:.3g}" if figure.relative and figure.judged is not None else "",
            _must(figure),
            {None: "", True: "ok", False: "short"}[figure.ok],
        )
    return table


def _stages(sample: Sample) -> Table:
    table = _headed("CPU OF A NO-OP TASK, BY STAGE", "µs#", "%#")
    for stage, spent in sample["stages"].items():
        table.add_row(stage, f"{spent:.1f}", f"{spent / sample['cpu_us'] * 100:.0f}")
    table.add_row("all", f"{sample['cpu_us']:.1f}", "100")
    return table


def _headed(*heads: str) -> Table:
    """A table; a head that ends in `#` stands over numbers."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in heads:
        table.add_column(head.rstrip("#"), justify="right" if head.endswith("#") else "left", overflow="fold")
    return table


def _must(figure: Figure) -> str:
    if figure.must is None:
        return ""
    unit = "x" if figure.relative else f" {figure.unit}"
    wish = "" if figure.stretch is None else f" ({figure.stretch:g})"
    return f"{'≥' if figure.at_least else '≤'} {figure.must:,g}{unit}{wish}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"  # noqa: PLR2004 - three figures are enough
