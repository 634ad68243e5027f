"""The verb `bench`: the project's own benchmark."""

from __future__ import annotations

import click


@click.command(short_help="The project's own benchmark.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for scripts.")
@click.option("--quick", is_flag=True, help="Smaller loads: a look rather than a measurement.")
@click.option("--only", metavar="NAME", help="Only this measurement.")
def bench(*, as_json: bool, quick: bool, only: str | None) -> int:
    """Measure what a task costs from the queue file to its outputs, on this machine."""
    from phase21 import bench as benchmark  # noqa: PLC0415 - help needs none of it

    return benchmark.main(as_json=as_json, quick=quick, only=only)
