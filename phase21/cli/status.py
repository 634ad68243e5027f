"""The verb `status`: how things stand, whether or not a daemon runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from phase21.cli.options import Given, common

if TYPE_CHECKING:
    from rich.table import Table


@click.command(short_help="Runs, waves, agents, queue; works whether or not a daemon runs.")
@common()
@click.argument("run_id", metavar="[RUN]", required=False)
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for scripts.")
def status(given: Given, *, run_id: str | None, as_json: bool) -> None:
    """Show runs, waves, agents and the queue; with RUN, that run alone."""
    from phase21.readers.inquiries.spectator import Spectator  # noqa: PLC0415 - help needs none of it

    queue = given.queue(given.load())
    with Spectator(given.state) as spectator:
        spectator.refresh()
        found = spectator.status(queue, run_id)
    if as_json:
        from phase21.store import codec  # noqa: PLC0415

        click.echo(codec.line(found), nl=False)
    else:
        _show(found)


def _show(found: dict[str, Any]) -> None:
    from phase21.cli import screen  # noqa: PLC0415 - help needs none of it

    daemon, queue = found["daemon"], found["queue"]
    at = f"running, pid {daemon['pid']}, since {daemon['since']}" if daemon["running"] else "not running"
    screen.show(f"daemon  {at}", f"queue   {queue['path']}, {queue['pending_bytes']} bytes not read yet", "")
    running = [one for run in found["runs"] for one in run["running"]]
    screen.show(_agents(found["agents"], running) if found["agents"] else "no agents yet", "")
    screen.show(_runs(found["runs"]) if found["runs"] else "no runs yet: phase21 submit FILE")
    if found["schedules"]:
        screen.show("", _schedules(found["schedules"]))


def _now(agent: dict[str, Any], running: list[dict[str, Any]]) -> str:
    """What an agent is at work on, and how far that says it is."""
    task_id = agent["current_task"]
    percents = [one["progress"] for one in running if one["task_id"] == task_id and one["agent_id"] == agent["agent_id"]]
    return f"{task_id} {percents[0]:.0f} %" if percents and percents[0] else task_id or ""


def _agents(agents: list[dict[str, Any]], running: list[dict[str, Any]]) -> Table:
    from phase21.cli import screen  # noqa: PLC0415 - help needs none of it

    table = screen.table("AGENT", "STATUS", "WAITING#", "COMPLETED#", "FAILED#", "SUCCESS#", "NOW")
    for agent in agents:
        rate = "-" if agent["success_rate"] is None else f"{agent['success_rate']:.1%}"
        counts = (str(agent[name]) for name in ("waiting", "completed", "failed"))
        table.add_row(agent["agent_id"], agent["status"], *counts, rate, _now(agent, running))
    return table


def _schedules(schedules: list[dict[str, Any]]) -> Table:
    from phase21.cli import screen  # noqa: PLC0415 - help needs none of it

    table = screen.table("SCHEDULE", "STATE", "EVERY", "NEXT", "FIRED#", "MISSED#", "LAST RUN")
    for one in schedules:
        counts = (str(one[name]) for name in ("fired", "missed"))
        table.add_row(one["run_id"], one["state"], one["every"], one["next_time"] or "-", *counts, one["last_run"] or "-")
    return table


def _workflow(workflow: dict[str, Any] | None) -> tuple[str, str, str]:
    return (workflow["name"], workflow["state"], f"{workflow['progress']:.1f} %") if workflow is not None else ("", "", "")


def _runs(runs: list[dict[str, Any]]) -> Table:
    from phase21.cli import screen  # noqa: PLC0415 - help needs none of it

    flows = any(run["workflow"] is not None for run in runs)
    heads = ("WORKFLOW", "", "PROGRESS#") if flows else ()
    table = screen.table("RUN", "STATE", *heads, "WAVE#", "WAVES#", "HEALTH#", "", "TASKS")
    for run in runs:
        tasks = ", ".join(f"{count} {name}" for name, count in run["tasks"].items())
        wave = str(run["current_wave"] or "-")
        health = screen.figure(run["health_score"])
        about = _workflow(run["workflow"]) if flows else ()
        state = f"{run['state']} until {run['waits_until']}" if run["waits_until"] else run["state"]
        table.add_row(run["run_id"], state, *about, wave, str(run["waves"]), health, run["health_status"] or "", tasks)
    return table
