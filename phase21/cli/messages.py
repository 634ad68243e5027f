"""The verb `messages`: what the tasks of a run said to each other, read from the store beside a daemon that may be running."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from phase21.cli.options import Given, common

if TYPE_CHECKING:
    from phase21.readers.inquiries.correspondence import Row

TYPES = ("context_share", "result_handoff", "request", "response", "notification", "error", "state_update")
CONTENT_CHARS = 60


@click.command(short_help="What the tasks of a run said to each other.")
@common()
@click.argument("run_id", metavar="RUN")
@click.option("--type", "type", metavar="TYPE", type=click.Choice(TYPES), help="Only messages of this type.")
@click.option("--from", "sender", metavar="WHO", help="Only what this task (or `person`) sent.")
@click.option("--to", "to", metavar="WHO", help="Only what was sent to this task or agent, or taken by it.")
@click.option("--topic", metavar="TOPIC", help="Only what was published on this topic.")
@click.option(
    "--since",
    metavar="WHEN",
    help="Only what was sent since: a time (ISO 8601, UTC where it says none) or so long ago (90s, 5m, 2h, 1d).",
)
@click.option("--dead", is_flag=True, help="Only dead letters.")
@click.option("--shared", is_flag=True, help="Every version of the run's shared values instead.")
@click.option(
    "--last", metavar="N", type=click.IntRange(min=1), default=1000, show_default=True, help="At most the newest so many."
)
@click.option("--json", "as_json", is_flag=True, help="JSON lines, contents whole.")
def messages(given: Given, *, run_id: str, since: str | None, shared: bool, last: int, as_json: bool, **only: Any) -> None:
    """Print messages, oldest first, each with who took it or why nobody did."""
    from phase21.domain.messages import MessageType  # noqa: PLC0415 - help needs none of it
    from phase21.readers.inquiries.correspondence import Wanted, changes, history  # noqa: PLC0415
    from phase21.readers.inquiries.spectator import Spectator  # noqa: PLC0415

    kind = MessageType(only.pop("type")) if only["type"] else only.pop("type")
    with Spectator(given.state) as spectator:
        spectator.refresh()
        spectator.record(run_id)
        entries = spectator.entries(run_id=run_id)
        if shared:
            rows = list(changes(entries))[-last:]
        else:
            rows = history(entries, Wanted(type=kind, since_us=_since_us(since), **only), last)
    if as_json:
        _print(rows)
    else:
        _show_changes(rows) if shared else _show(rows)


def _since_us(since: str | None) -> int:
    """Microseconds since 1970. Raises UsageError for what is neither a time nor a duration."""
    from datetime import UTC, datetime  # noqa: PLC0415 - help needs none of it

    from phase21.domain.errors import UsageError  # noqa: PLC0415
    from phase21.store.clock import Clock  # noqa: PLC0415

    if since is None:
        return 0
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    if since[-1:] in units and since[:-1].isdigit():
        return Clock().now_us() - int(since[:-1]) * units[since[-1]] * 1_000_000
    try:
        moment = datetime.fromisoformat(since)
    except ValueError:
        raise UsageError(f"--since {since}: neither a time (2026-11-21T10:00:00) nor a duration (90s, 5m, 2h, 1d)") from None
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1e6)


def _print(rows: list[Row]) -> None:
    from phase21.store import codec  # noqa: PLC0415 - help needs none of it

    for row in rows:
        click.echo(codec.encode(row))


def _show(rows: list[Row]) -> None:
    from phase21.cli import screen  # noqa: PLC0415 - help needs none of it

    table = screen.table("SENT (UTC)", "ID", "TYPE", "FROM", "TO", "CONTENT", "")
    for row in rows:
        to = row["to"] or f"topic {row['topic']}"
        reply = f"{row['type']} to {row['reply_to']}" if row["reply_to"] else row["type"]
        table.add_row(row["sent_at"][11:23], row["message_id"], reply, row["sender"], to, _short(row["content"]), _fate(row))
    screen.show(table if rows else "no messages")


def _show_changes(rows: list[Row]) -> None:
    from phase21.cli import screen  # noqa: PLC0415 - help needs none of it

    table = screen.table("SET (UTC)", "NAME", "VERSION#", "BY", "VALUE")
    for row in rows:
        table.add_row(row["set_at"][11:23], row["name"], str(row["version"]), row["by"], _short(row["value"]))
    screen.show(table if rows else "no shared values")


def _fate(row: Row) -> str:
    said = [f"taken by {', '.join(row['taken_by'])}"] if row["taken_by"] else []
    return "; ".join([*said, *(f"dead: {letter['reason']}" for letter in row["dead"])])


def _short(content: Any) -> str:
    from phase21.store import codec  # noqa: PLC0415 - help needs none of it

    text = codec.encode(content).decode()
    return text if len(text) <= CONTENT_CHARS else f"{text[: CONTENT_CHARS - 1]}…"
