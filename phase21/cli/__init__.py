"""The command line: the group of verbs, one file a verb, each read when it is called for.

Nothing here or at the top of a verb's file imports more than click, so that `--help` answers at once. A verb parses, calls the
house and prints; it decides nothing. Errors leave as one line on stderr with the error's own exit status.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from phase21 import __version__
from phase21.domain.errors import Phase21Error

INTERRUPTED = 128 + 2
BROKEN_PIPE = 128 + 13
INTERNAL = 70
"""A fault of the house itself; restarting it may help, which it does not for the other statuses."""

VERBS = {
    "serve": "serve",
    "submit": "submit",
    "plan": "plan",
    "run": "run",
    "status": "status",
    "show": "show",
    "tail": "tail",
    "report": "report",
    "rebuild": "rebuild",
    "calibration": "calibration",
    "evaluate": "evaluate",
    "optimize": "optimize",
    "explain": "explain",
    "simulate": "simulate",
    "approve": "controls",
    "cancel": "controls",
    "pause": "controls",
    "resume": "controls",
    "fork": "fork",
    "messages": "messages",
    "message": "message",
    "check": "check",
    "bench": "bench",
}
"""Each verb, and the file here that holds it under the same name."""


class Verbs(click.Group):
    """The group that reads a verb's file when the verb is called for, and turns errors into one line and a status."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the verbs, in the order of the help."""
        del ctx
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Read a verb's file; None where there is no such verb."""
        del ctx
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"phase21.cli.{VERBS[cmd_name]}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, *_: Any, **extra: Any) -> Any:
        """Run a verb and exit with its status, whatever happens."""
        extra["standalone_mode"] = False
        try:
            status = super().main(args, prog_name or "phase21", **extra)
            sys.stdout.flush()
        except BrokenPipeError:
            status = _quiet()
        except (click.Abort, KeyboardInterrupt):
            status = INTERRUPTED
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            status = error.exit_code
        except click.ClickException as error:
            status = _refused(_in_context(error), error.exit_code)
        except Phase21Error as error:
            status = _refused(str(error), error.exit_status)
        except OSError as error:
            status = _refused(str(error), Phase21Error.exit_status)
        except Exception as error:
            if sys.flags.dev_mode:
                raise
            status = _refused(f"internal error: {type(error).__name__}: {error} (python -X dev -m phase21 … shows where)", INTERNAL)
        sys.exit(status or 0)

    def invoke(self, ctx: click.Context) -> Any:
        """Call the verb; a reader of our output that has gone is no error of click's to answer for."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            return _quiet()


def _in_context(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    hint = f"; see `{context.command_path} --help`" if context is not None else ""
    return error.format_message().rstrip(".") + hint


def _refused(message: str, status: int) -> int:
    click.echo(f"phase21: {' '.join(message.split())}", err=True)
    return status


def _quiet() -> int:
    """End without a word: nobody reads it. What is still buffered must not be tried again at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
    return BROKEN_PIPE


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="phase21")
def phase21() -> None:
    """Carry out waves of predicted tasks over a fleet of agents: durable, gated, judged, learned from."""
