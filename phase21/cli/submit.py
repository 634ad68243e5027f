"""The verb `submit`: checks submissions as the daemon will, appends them all or none, and waits for them where asked to."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from phase21.cli.options import Given, common

if TYPE_CHECKING:
    from phase21.cli.drafts import Desk, Draft


@click.command(short_help="Check submissions and append them to the queue file.")
@common()
@click.argument("files", metavar="[FILE]...", nargs=-1)
@click.option("--predictions", metavar="DIR", help="Submit a Phase 20 folder.")
@click.option("--run-id", metavar="RUN", help="The run of --predictions.  [default: the folder's name]")
@click.option("--wait", is_flag=True, help="Show progress until all is done: exit status 1 where tasks FAILED, 3 where refused.")
@click.option(
    "--timeout",
    "timeout_s",
    metavar="S",
    type=click.FloatRange(min=0),
    help="With --wait: give up after S seconds (exit status 5).",
)
def submit(
    given: Given, *, files: tuple[str, ...], predictions: str | None, run_id: str | None, wait: bool, timeout_s: float | None
) -> int:
    """Append submissions to the queue file, all or none, and print the id of each.

    FILE holds one JSON object, or JSON lines; - is stdin. A .toml or .yaml file holds one submission; a workflow needs no run_id
    there.
    """
    if bool(files) == (predictions is not None):
        raise click.UsageError("give either FILE... (- is stdin) or --predictions DIR")
    if run_id is not None and predictions is None:
        raise click.UsageError("--run-id goes with --predictions; a submission in a FILE names its own run")
    if timeout_s is not None and not wait:
        raise click.UsageError("--timeout goes with --wait")
    from phase21.cli import drafts as making  # noqa: PLC0415 - help needs none of it

    settings = given.load()
    path = given.queue(settings)
    desk = making.Desk(path, settings.queue.max_line_bytes)
    drafts = [_of_folder(desk, predictions, run_id)] if predictions is not None else _of_files(desk, files)
    making.send(drafts, given.state, path, settings)
    _tell(drafts)
    if not wait:
        return 0
    from phase21.cli.waiting import wait_for  # noqa: PLC0415

    return wait_for(drafts, given.state, timeout_s)


def _of_files(desk: Desk, files: tuple[str, ...]) -> list[Draft]:
    return [draft for name in files for draft in desk.read("stdin" if name == "-" else name, read_file(name))]


def read_file(name: str) -> bytes:
    """What a file of the command line holds; `-` is stdin. Raises UsageError."""
    if name == "-":
        return sys.stdin.buffer.read()
    try:
        with open(name, "rb") as file:  # noqa: PTH123 - no pathlib for help
            return file.read()
    except OSError as error:
        raise click.UsageError(f"{name}: {error.strerror}") from None


def _of_folder(desk: Desk, folder: str, run_id: str | None) -> Draft:
    from pathlib import Path  # noqa: PLC0415 - help needs none of it

    from phase21.intake.predictions import legal_run_id  # noqa: PLC0415
    from phase21.store import codec  # noqa: PLC0415

    path = Path(folder).absolute()
    line = codec.encode({"run_id": run_id or legal_run_id(path.name), "predictions": str(path)})
    return desk.draft(line, folder)


def _tell(drafts: list[Draft]) -> None:
    """Print each id, and on stderr what its run is called where the file does not say, and what of a folder will be set aside."""
    for draft in drafts:
        click.echo(draft.submission_id)
        if draft.coined:
            click.echo(f"run {draft.submission.run_id}: phase21 show -f {draft.submission.run_id}", err=True)
        if draft.set_aside:
            row = draft.set_aside[0]
            count = f"{len(draft.set_aside)} rows" if len(draft.set_aside) > 1 else "1 row"
            click.echo(
                f"phase21: {count} cannot be used and will stand in rejected.jsonl; first: {row.file}:{row.line}: {row.error}",
                err=True,
            )
