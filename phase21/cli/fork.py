"""The verb `fork`: a workflow that was carried out, begun again from one of its tasks in a run of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from phase21.cli.options import Given, common

if TYPE_CHECKING:
    from phase21.domain.settings import Settings


@click.command(short_help="Begin a workflow again from one of its tasks.")
@common()
@click.argument("run_id", metavar="RUN")
@click.option("--from", "begin", metavar="TASK", required=True, help="The task to begin again from; what depends on it follows.")
@click.option("--as", "new", metavar="NEW", help="The new run's name.  [default: RUN-fork, RUN-fork2, …]")
def fork(given: Given, *, run_id: str, begin: str, new: str | None) -> None:
    """Begin the workflow RUN again from TASK, in a run of its own.

    TASK and all that depends on it are carried out anew, and so is what never COMPLETED; the results of all
    other tasks are kept. RUN itself stays as it is. Prints the new run's name and the submission id.
    """
    from phase21.cli.drafts import Desk, send  # noqa: PLC0415 - help needs none of it
    from phase21.store import codec  # noqa: PLC0415

    settings = given.load()
    path = given.queue(settings)
    name = new or _free_name(given, run_id, path, settings)
    line = codec.encode({"run_id": name, "fork": {"run": run_id, "from": begin}})
    draft = Desk(path, settings.queue.max_line_bytes).draft(line, "fork")
    send([draft], given.state, path, settings)
    click.echo(f"{name} {draft.submission_id}")


def _free_name(given: Given, run_id: str, queue: Path, settings: Settings) -> str:
    """The first of RUN-fork, RUN-fork2, … that no run bears, the queue file's among them. Raises UnknownRun where there is no RUN."""
    from phase21.cli.drafts import rehearse  # noqa: PLC0415 - help needs none of it
    from phase21.domain.errors import UnknownRun  # noqa: PLC0415
    from phase21.readers.inquiries.spectator import Spectator  # noqa: PLC0415

    with Spectator(given.state) as spectator:
        spectator.refresh()
        spectator.record(run_id)
        rehearse([], spectator, queue, settings)
        number = 1
        while True:
            name = f"{run_id}-fork{number if number > 1 else ''}"
            try:
                spectator.record(name)
            except UnknownRun:
                return name
            number += 1
