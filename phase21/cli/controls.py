"""The verbs `approve`, `cancel`, `pause` and `resume`: a person's decisions, sent through the queue file like all else."""

from __future__ import annotations

import click

from phase21.cli.options import Given, common

_TASKS = click.argument("task_ids", metavar="[TASK]...", nargs=-1)
_RUN = click.argument("run_id", metavar="RUN")


@click.command(short_help="Let deferred tasks run.")
@common()
@_RUN
@_TASKS
def approve(given: Given, *, run_id: str, task_ids: tuple[str, ...]) -> None:
    """Let deferred tasks of RUN run, whatever the risk gate says; without TASK, all that are deferred now."""
    _send(given, "approve", run_id, task_ids)


@click.command(short_help="Cancel tasks.")
@common()
@_RUN
@_TASKS
def cancel(given: Given, *, run_id: str, task_ids: tuple[str, ...]) -> None:
    """Cancel tasks of RUN; without TASK, all that was accepted so far."""
    _send(given, "cancel", run_id, task_ids)


@click.command(short_help="Start nothing more of a run.")
@common()
@_RUN
@_TASKS
def pause(given: Given, *, run_id: str, task_ids: tuple[str, ...]) -> None:
    """Start nothing more of RUN, or of its tasks named, until it is resumed; attempts under way may end."""
    _send(given, "pause", run_id, task_ids)


@click.command(short_help="Go on with a paused run.")
@common()
@_RUN
@_TASKS
def resume(given: Given, *, run_id: str, task_ids: tuple[str, ...]) -> None:
    """Go on with RUN after a pause, with all its tasks, or with those named."""
    _send(given, "resume", run_id, task_ids)


def _send(given: Given, control: str, run_id: str, task_ids: tuple[str, ...]) -> None:
    """Append a control for a run that is known, or that waits in the queue file. Prints the submission id."""
    from phase21.cli.drafts import Desk, send  # noqa: PLC0415 - help needs none of it
    from phase21.store import codec  # noqa: PLC0415

    settings = given.load()
    path = given.queue(settings)
    wish = {"run_id": run_id, "control": control}
    line = codec.encode({**wish, "task_ids": list(task_ids)} if task_ids else wish)
    draft = Desk(path, settings.queue.max_line_bytes).draft(line, control)
    send([draft], given.state, path, settings)
    click.echo(draft.submission_id)
