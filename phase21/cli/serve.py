"""The verb `serve`: the daemon."""

from __future__ import annotations

import click

from phase21.cli.options import Given, common


@click.command(short_help="The daemon: reads the queue file, runs waves until stopped.")
@common(executing=True)
@click.option("--once", is_flag=True, help="Carry out all that the queue file and the journal hold, then exit.")
def serve(given: Given, *, once: bool) -> int:
    """Run the daemon: read the queue file, run waves until stopped.

    SIGTERM or SIGINT: attempts under way may end (service.drain_timeout), the rest waits for the next start; a second one cuts
    short. SIGHUP reads the configuration again. Events go to stdout and to logs/phase21.jsonl in the state folder.
    """
    from phase21.cli.loop import drive  # noqa: PLC0415 - help needs none of it
    from phase21.service.daemon import serve as serving  # noqa: PLC0415
    from phase21.service.house import Place  # noqa: PLC0415

    settings = given.load()
    place = Place(state=given.state, outputs=given.outputs, queue=given.queue(settings))
    return drive(serving(place, given.load, once=once))
