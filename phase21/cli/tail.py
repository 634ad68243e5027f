"""The verb `tail`: the events, as the log tells them, read from the store."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import click

from phase21.cli.options import Given, common

if TYPE_CHECKING:
    from phase21.domain.events import Entry
    from phase21.readers.inquiries.spectator import Spectator


@click.command(short_help="The events, readable on a terminal, JSON lines in a pipe.")
@common()
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens from now on, until interrupted.")
@click.option("--run", "run_id", metavar="RUN", help="Only events of this run.")
@click.option("--wave", metavar="N", type=click.IntRange(min=1), help="Only events of this wave.")
@click.option("--agent", "agent_id", metavar="AGENT", help="Only events of this agent.")
@click.option(
    "--level", metavar="LEVEL", type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"], case_sensitive=False), default="DEBUG",
    help="Only events of this level and above: DEBUG (default), INFO, WARNING or ERROR.",
)  # fmt: skip
def tail(given: Given, *, follow: bool, run_id: str | None, wave: int | None, agent_id: str | None, level: str) -> None:
    """Print the events that the journal holds, oldest first."""
    from phase21.readers import narrator  # noqa: PLC0415 - help needs none of it
    from phase21.readers.inquiries.spectator import Spectator  # noqa: PLC0415

    wanted = {name: value for name, value in (("run_id", run_id), ("wave", wave), ("agent_id", agent_id)) if value is not None}
    render = narrator.renderer(given.log_format, sys.stdout)
    kinds, least = frozenset(narrator.kinds(level)), narrator.rank(level)

    def tell(entries: Iterable[Entry]) -> int | None:
        position = None
        for entry in entries:
            position = entry.position
            for line in narrator.lines(entry) if type(entry.event) in kinds else ():
                if narrator.LEVELS[line["level"]] >= least and _matches(line, wanted):
                    click.echo(render(line))
        return position

    with Spectator(given.state) as spectator:
        if run_id is not None and not follow:
            spectator.refresh()
            if run_id not in spectator.awaited(given.queue(given.load())):
                spectator.record(run_id)
        position = tell(spectator.entries(run_id=run_id)) or 0
        if follow:
            _follow(spectator, position, run_id, tell)


def _follow(spectator: Spectator, position: int, run_id: str | None, tell: Callable[[Iterable[Entry]], int | None]) -> None:
    from phase21.cli.waiting import UNREADABLE_LOOKS, looks  # noqa: PLC0415 - help needs none of it
    from phase21.domain.errors import StorageUnavailable  # noqa: PLC0415

    unreadable = 0
    for _ in looks(spectator.state):
        try:
            position = tell(spectator.entries(position, run_id)) or position
            unreadable = 0
        except StorageUnavailable:
            unreadable += 1
            if unreadable > UNREADABLE_LOOKS:
                raise


def _matches(line: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether a line is about all that is asked for; a submission of several waves is about each."""
    return all(line.get(name) == value or (name == "wave" and value in line.get("waves", ())) for name, value in wanted.items())
