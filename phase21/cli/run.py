"""The verb `run`: the pipeline over a Phase 20 folder, without a daemon."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from phase21.cli.options import Given, common

if TYPE_CHECKING:
    from phase21.domain.records import RunRecord
    from phase21.service.house import Place
    from phase21.service.single import Verdict


@click.command(short_help="The pipeline over a Phase 20 folder, without a daemon.")
@common(executing=True)
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, file_okay=False))
@click.option("--run-id", metavar="RUN", help="The run's name.  [default: the folder's name]")
def run(given: Given, *, folder: str, run_id: str | None) -> int:
    """Carry out the predictions in DIR as a run, and show how it ended.

    Safe to run again: after a crash it goes on where it was; when the run is finished it reports and runs nothing.
    """
    from phase21.cli import screen  # noqa: PLC0415 - help needs none of it
    from phase21.cli.loop import drive  # noqa: PLC0415
    from phase21.intake.predictions import legal_run_id  # noqa: PLC0415
    from phase21.intake.submissions import parse  # noqa: PLC0415
    from phase21.service.house import Place  # noqa: PLC0415
    from phase21.service.single import carry_out  # noqa: PLC0415
    from phase21.store import codec  # noqa: PLC0415

    settings = given.load()
    place = Place(state=given.state, outputs=given.outputs, queue=given.queue(settings))
    name = legal_run_id(_name_of(folder)) if run_id is None else run_id
    folder = os.path.abspath(folder)  # noqa: PTH100 - not resolved: a link is followed where it stands
    parse(codec.encode({"run_id": name, "predictions": folder}))
    with screen.bar(f"run {name}") as progress:
        verdict = drive(carry_out(place, settings, folder=folder, run_id=name, progress=progress, on_trouble=_tell_trouble))
    _show(verdict, place, dry_run=settings.execution.dry_run)
    return verdict.exit_status


def _name_of(folder: str) -> str:
    from pathlib import Path  # noqa: PLC0415 - help needs none of it

    return Path(folder).resolve().name


def _tell_trouble(storage: str, error: BaseException | None) -> None:
    """Say that a disk does not do what it should, or does again."""
    from phase21.cli import screen  # noqa: PLC0415 - help needs none of it

    said = "works again" if error is None else f"cannot be written: {error}; nothing new is started, and it is tried again"
    screen.tell(f"phase21: storage ({storage}) {said}")


def _show(verdict: Verdict, place: Place, *, dry_run: bool) -> None:
    """Say in a person's words how the run stands."""
    from phase21.cli import screen  # noqa: PLC0415 - help needs none of it

    record, health = verdict.record, verdict.record.health
    table = screen.table("AGENT", "TASKS#", "COMPLETED#", "FAILED#", "RETRIES#", "MEAN LATENCY#")
    for agent_id, tally in sorted(record.agents.items()):
        latency = f"{tally.latency_s / tally.measured:.3f} s" if tally.measured else "-"
        table.add_row(agent_id, *(str(n) for n in (tally.assigned, tally.completed, tally.failed, tally.retries)), latency)
    score = f"{health.score:.1f} {health.status}" if health is not None and health.score is not None else "unknown"
    screen.show(f"run {record.run_id}: {_tasks(record)}")
    screen.show(f"waves {record.closed_waves}, anomalies {record.anomalies}, health of the last wave {score}")
    if dry_run:
        screen.show("dry run: nothing real was executed, every task was simulated")
    if record.agents:
        screen.show("", table, "")
    if record.deferred:
        state = f"--state {place.state}"
        screen.show(
            f"{len(record.deferred)} wait for approval: phase21 approve {record.run_id} {state}, then phase21 serve --once {state}"
        )
    screen.show(f"outputs: {place.outputs / record.run_id}")
    screen.show(f"report:  phase21 report {record.run_id} --state {place.state}")


def _tasks(record: RunRecord) -> str:
    counts = {**record.counts, **({"DEFERRED": len(record.deferred)} if record.deferred else {})}
    left = record.tasks_accepted - sum(counts.values())
    words = [f"{count} {status}" for status, count in counts.items()] + ([f"{left} not done yet"] if left else [])
    return f"{record.tasks_accepted} tasks: {', '.join(words) or 'none done'}"
