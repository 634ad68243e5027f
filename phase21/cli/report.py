"""The verb `report`: a run's Markdown report, made from the store."""

from __future__ import annotations

import click

from phase21.cli.options import Given, common


@click.command(short_help="The Markdown report of a run.")
@common()
@click.argument("run_id", metavar="RUN")
def report(given: Given, *, run_id: str) -> None:
    """Print the Markdown report of RUN, as of its last closed wave. It needs no output folder."""
    from phase21.readers.inquiries.spectator import Spectator  # noqa: PLC0415
    from phase21.readers.reports import render  # noqa: PLC0415 - help needs none of it
    from phase21.store import codec  # noqa: PLC0415

    with Spectator(given.state) as spectator:
        spectator.refresh()
        record = spectator.record(run_id)
        database = spectator.database
        digests = [codec.decode(digest) for _, digest in database.waves(run_id)] if database is not None else []
    click.echo(render(record, digests), nl=False)
