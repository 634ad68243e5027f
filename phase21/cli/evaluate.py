"""The verb `evaluate`: how good a run was, and whether it was worse than earlier ones; for people and for CI."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from phase21.cli.options import Given, common

if TYPE_CHECKING:
    from rich.table import Table

    from phase21.evaluation.quality import Standing
    from phase21.evaluation.regressions import Change, Comparison
    from phase21.readers.inquiries.evaluations import Evaluation

REGRESSED = 1
"""The exit status where a regression was found."""

TASKS_SHOWN = 50

MEANINGS = {
    "success": "what was to be done and COMPLETED",
    "quality": "what the judge gave",
    "time": "seconds worked that had been estimated",
    "retries": "attempts that were needed",
}
"""The terms of the score in words."""


@click.command(short_help="How good a run was; exit status 1 where it was worse than earlier ones.")
@common()
@click.argument("run_id", metavar="RUN")
@click.option(
    "--runs", metavar="K", type=click.IntRange(1, 1000), help="Compare with the last K runs of the same workflow.  [default: 5]"
)
@click.option(
    "--tolerance", metavar="SHARE", type=click.FloatRange(0.0, 1.0), help="By which share a figure may be worse.  [default: 0.10]"
)
@click.option("--against", metavar="RUN", multiple=True, help="Compare with this run instead; may be given several times.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for scripts.")
def evaluate(
    given: Given, *, run_id: str, runs: int | None, tolerance: float | None, against: tuple[str, ...], as_json: bool
) -> int:
    """Judge RUN: its score with what cost it points, its agents and tasks, what to look at, and whether it was worse than before.

    Earlier runs are the last ones of the same workflow that have ended, or those that --against names. A figure that is worse by
    more than the tolerance, and by more than chance explains, is a regression: then the exit status is 1. Where too little
    is known to have shown one the answer is "inconclusive". Works whether or not a daemon runs.
    """
    from phase21.evaluation.regressions import Verdict  # noqa: PLC0415 - help needs none of it
    from phase21.readers.inquiries.evaluations import evaluated, told  # noqa: PLC0415
    from phase21.readers.inquiries.spectator import Spectator  # noqa: PLC0415
    from phase21.store import codec  # noqa: PLC0415

    with Spectator(given.state) as spectator:
        spectator.refresh()
        found = evaluated(spectator, run_id, runs=runs, tolerance=tolerance, against=against)
    if as_json:
        click.echo(codec.line(told(found)), nl=False)
    else:
        _show(found)
    return REGRESSED if found.comparison is not None and found.comparison.verdict is Verdict.REGRESSION else 0


def _show(found: Evaluation) -> None:
    from phase21.cli import screen  # noqa: PLC0415 - help needs none of it

    whole = found.quality.whole
    named = f", workflow {found.workflow}{f' {found.state}' if found.state else ''}" if found.workflow else ""
    screen.show(
        f"run {found.run_id}{named}: {whole.grade}, {screen.figure(whole.score)} of 100", _counted(whole), "", _terms(whole)
    )
    if found.problem is not None:
        screen.show(f"not judged: {found.problem}")
    elif found.marks is None:
        screen.show("no judge: quality is left out of the score")
    screen.show("", _standings("AGENT", found.quality.agents), "", _standings("TASK", _worst(found.quality.tasks)), "")
    if len(found.quality.tasks) > TASKS_SHOWN:
        screen.show(f"the {TASKS_SHOWN} tasks with the lowest scores; --json has all {len(found.quality.tasks)}", "")
    for place, one in enumerate(found.recommendations, 1):
        screen.show(f"{place}. {one.text}")
    screen.show(
        "" if found.recommendations else "no recommendation: nothing stands out among its tasks and agents", *_history(found)
    )


def _counted(whole: Standing) -> str:
    parts = {
        "COMPLETED": whole.completed,
        "FAILED": whole.failed,
        "never had a turn": whole.unreached,
        "SKIPPED": whole.skipped,
        "CANCELLED": whole.cancelled,
        "not ended": whole.open,
    }
    return f"{whole.tasks} tasks: " + ", ".join(f"{count} {name}" for name, count in parts.items() if count)


def _terms(whole: Standing) -> Table:
    from phase21.cli import screen  # noqa: PLC0415 - help needs none of it

    table = screen.table("TERM", "", "VALUE#", "COSTS UP TO#", "LOST#")
    for term in whole.terms:
        value = "not known" if term.value is None else f"{term.value:.1%}"
        table.add_row(term.name, MEANINGS[term.name], value, f"{term.weight:.0%}", f"{term.points_lost:.1f}")
    return table


def _worst(tasks: dict[str, Standing]) -> dict[str, Standing]:
    """All of them in their order, or of many those with the lowest scores."""
    if len(tasks) <= TASKS_SHOWN:
        return tasks
    lowest = sorted(tasks, key=lambda task_id: 101.0 if (score := tasks[task_id].score) is None else score)
    return {task_id: tasks[task_id] for task_id in lowest[:TASKS_SHOWN]}


def _standings(head: str, standings: dict[str, Standing]) -> Table:
    from phase21.cli import screen  # noqa: PLC0415 - help needs none of it

    heads = ("GRADE", "SCORE#", "SUCCESS#", "JUDGED#", "TOOK#", "ESTIMATED#", "RETRIES#", "ERRORS#")
    table = screen.table(head, *heads)
    for name, one in standings.items():
        success = "-" if one.success_rate is None else f"{one.success_rate:.0%}"
        took = f"{one.actual_s:.2f} s" if one.actual_s else "-"
        estimated = f"{one.estimated_s:.2f} s" if one.within_estimate is not None else "-"
        errors = "-" if one.error_rate is None else f"{one.error_rate:.0%}"
        figures = (screen.figure(one.score), success, screen.figure(one.quality, 0), took, estimated, str(one.retries), errors)
        table.add_row(name, str(one.grade) if one.score is not None else "-", *figures)
    return table


# -- against earlier runs ------------------------------------------------------------------------------------------------


def _history(found: Evaluation) -> Iterator[str | Table]:
    compared = found.comparison
    if compared is None:
        yield "no earlier run of the same workflow has ended: nothing to compare with (--against names runs)"
        return
    yield f"against {_named(compared)}: {compared.verdict}"
    yield _changes(compared)
    for change in compared.changes:
        yield _said(change, compared.tolerance)
    if compared.unmatched:
        more = f" and {len(compared.unmatched) - 5} more" if len(compared.unmatched) > 5 else ""  # noqa: PLR2004 - a line
        yield f"new, and not compared: {', '.join(compared.unmatched[:5])}{more}"


def _named(compared: Comparison) -> str:
    runs = compared.runs
    return f"{len(runs)} earlier runs ({runs[-1]} to {runs[0]})" if len(runs) > 1 else f"run {runs[0]}"


def _changes(compared: Comparison) -> Table:
    from phase21.cli import screen  # noqa: PLC0415 - help needs none of it

    table = screen.table("FIGURE", "NOW#", "BEFORE#", "WORSE BY#", "95 %", "BY CHANCE#", "WOULD SHOW#", "VERDICT")
    for one in compared.changes:
        shown = "-" if one.detectable is None else f"{one.detectable:.0%}"
        ends = f"{one.low:+.0%} to {one.high:+.0%}"
        figures = (_figure(one, one.now), _figure(one, one.before), f"{one.worse:+.1%}", ends, f"{one.corrected:.3f}", shown)
        table.add_row(one.name, *figures, str(one.verdict))
    return table


def _figure(change: Change, value: float) -> str:
    return f"{value:.1%}" if change.unit == "share" else f"{value:.2f}{' s' if change.unit == 's' else ''}"


def _said(change: Change, tolerance: float) -> str:
    """What the verdict rests on, in a sentence."""
    from phase21.evaluation.regressions import ALPHA, Verdict  # noqa: PLC0415 - help needs none of it

    if change.verdict is Verdict.REGRESSION:
        chance = f"equal runs would differ so with probability {change.corrected:.3f}"
        return f"{change.name}: {change.worse:.0%} worse over {change.steps} steps, and {chance}"
    if change.worse > tolerance and change.corrected > ALPHA:
        return f"{change.name}: {change.worse:.0%} worse, which chance explains (probability {change.corrected:.2f})"
    if change.verdict is Verdict.NONE and change.worse > tolerance:
        return f"{change.name}: {change.worse:.0%} worse, too little in {'seconds' if change.unit == 's' else change.unit} to count"
    if change.verdict is Verdict.INCONCLUSIVE:
        least = (
            "no worsening would be found" if change.detectable is None else f"only from {change.detectable:.0%} worse would it show"
        )
        return f"{change.name}: too little data over {change.steps} steps: {least} in four cases of five"
    return f"{change.name}: not worse by more than {tolerance:.0%} beyond chance; from {change.detectable or 0.0:.0%} on it would have shown"
