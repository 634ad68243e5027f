"""The verb `rebuild`: a run's output folder, written again from the journal."""

from __future__ import annotations

import click

from phase21.cli.options import Given, common


@click.command(short_help="Write a run's output folder again from the journal.")
@common()
@click.argument("run_id", metavar="RUN")
def rebuild(given: Given, *, run_id: str) -> None:
    """Write the output folder of RUN again from the journal, byte for byte; --outputs elsewhere for a copy.

    A folder in which a daemon is writing is not touched: wait until the run is idle, or rebuild elsewhere.
    """
    from phase21.domain.errors import StateHeld  # noqa: PLC0415 - help needs none of it
    from phase21.readers import folders  # noqa: PLC0415
    from phase21.readers.inquiries.spectator import Spectator  # noqa: PLC0415
    from phase21.store.files import holder_of  # noqa: PLC0415

    settings = given.load()
    folder = folders.RunFolder(given.outputs, run_id, settings.feedback)
    with Spectator(given.state) as spectator:
        spectator.refresh()
        record = spectator.record(run_id)
        run = spectator.ledger.runs.get(run_id)
        if run is not None and not run.idle and folder.path.exists() and holder_of(given.state) is not None:
            raise StateHeld(
                f"run {run_id} is under way and {folder.path} may be written now; wait until it is idle, or use another --outputs"
            )
        folders.rebuild(run_id, spectator.entries(max(0, record.first_position - 1), run_id), folder)
    waves = record.closed_waves
    click.echo(f"{folder.path}: {waves} {'wave' if waves == 1 else 'waves'} written again")
