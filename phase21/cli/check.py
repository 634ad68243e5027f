"""The verb `check`: looks at configuration, state, queue and predictions as the daemon would, and changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from phase21.cli.options import Given, common
from phase21.domain.errors import InputRefused, Phase21Error, StorageUnavailable

if TYPE_CHECKING:
    from phase21.domain.settings import Settings
    from phase21.readers.inquiries.spectator import Spectator

Finding = tuple[str, str, Phase21Error | None]
"""What was looked at, what is said of it, and the error where something is wrong."""

REFUSED_SHOWN = 20


@click.command(short_help="Check configuration, queue, predictions and state; change nothing.")
@common(executing=True)
@click.argument("files", metavar="[FILE]...", nargs=-1)
@click.option("--predictions", metavar="DIR", help="Check a Phase 20 folder too.")
def check(given: Given, *, files: tuple[str, ...], predictions: str | None) -> int:
    """Say of each part whether it is in order. Exit status: 0 all is, 2 configuration or permissions, 3 input.

    FILE holds submissions, as for submit; they are checked and not appended.
    """
    statuses = set()
    for what, said, error in _findings(given, files, predictions):
        click.echo(f"{'ok   ' if error is None else 'WRONG'}  {what:<13}  {' '.join((said or str(error)).split())}")
        statuses.add(0 if error is None else error.exit_status)
    return min(statuses - {0}, default=0)


def _findings(given: Given, files: tuple[str, ...], predictions: str | None) -> Iterator[Finding]:
    try:
        settings = given.load()
    except Phase21Error as error:
        yield "configuration", "", error
        return
    fleet = settings.agents.specs()
    yield (
        "configuration",
        f"{len(fleet)} agents, {settings.manager.strategy}{', dry run' if settings.execution.dry_run else ''}",
        None,
    )
    yield from _queue(given, settings)
    for name in files:
        yield _file(given, settings, name)
    if predictions is not None:
        yield _predictions(predictions)


def _file(given: Given, settings: Settings, name: str) -> Finding:
    """A file of submissions."""
    from phase21.cli.drafts import Desk  # noqa: PLC0415 - help needs none of it
    from phase21.cli.submit import read_file  # noqa: PLC0415

    try:
        drafts = list(Desk(given.queue(settings), settings.queue.max_line_bytes).read(name, read_file(name)))
    except Phase21Error as error:
        return "file", "", error
    return "file", f"{name}: {'; '.join(draft.summary for draft in drafts[:REFUSED_SHOWN])}", None


def _queue(given: Given, settings: Settings) -> Iterator[Finding]:
    """The state folder, and the queue file beside it."""
    from phase21.cli.drafts import rehearsed  # noqa: PLC0415 - help needs none of it
    from phase21.intake.queue import check_permissions  # noqa: PLC0415
    from phase21.readers.inquiries import spectator as looking  # noqa: PLC0415

    path = given.queue(settings)
    with looking.Spectator(given.state) as spectator:
        try:
            spectator.refresh()
            yield "state", _state(spectator), None
            check_permissions(str(path), settings.queue.allow_shared)
            _, lines = rehearsed(spectator, path, settings)
        except StorageUnavailable as error:
            yield "state", "", error
            return
        except Phase21Error as error:
            yield "queue", "", error
            return
    refused = [(number, refusal) for number, refusal in lines if refusal is not None]
    for number, refusal in refused[:REFUSED_SHOWN]:
        yield "queue", f"{path}:{number}: {refusal}", refusal
    yield "queue", f"{path}: {_lines_wait(len(lines))}, {len(refused)} of them would be refused", None


def _lines_wait(count: int) -> str:
    return f"{count} lines wait" if count != 1 else "1 line waits"


def _state(spectator: Spectator) -> str:
    from phase21 import __version__  # noqa: PLC0415
    from phase21.store.files import holder_of  # noqa: PLC0415 - help needs none of it

    if spectator.database is None:
        return f"{spectator.state}: nothing there yet (phase21 {__version__})"
    holder = holder_of(spectator.state)
    daemon = f"held by pid {holder.get('pid')}" if holder is not None else "no daemon runs"
    return f"{spectator.state}: {spectator.ledger.position} entries, {len(spectator.ledger.runs)} runs at hand, {daemon}"


def _predictions(folder: str) -> Finding:
    from phase21.intake.predictions import read_folder  # noqa: PLC0415 - help needs none of it

    try:
        found = read_folder(folder)
    except Phase21Error as error:
        return "predictions", "", error
    said = (
        f"{folder}: {sum(map(len, found.waves.values()))} tasks in {len(found.waves)} waves, {len(found.rejected)} rows set aside"
    )
    if not found.rejected:
        return "predictions", said, None
    row = found.rejected[0]
    said = f"{said}; the first: {row.file}:{row.line}: {row.error}"
    return "predictions", said, InputRefused(said)
