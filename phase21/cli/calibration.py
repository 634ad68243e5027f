"""The verb `calibration`: how honest predictions were, beside what would have been said without any thought."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from phase21.cli.options import Given, common

if TYPE_CHECKING:
    from rich.table import Table

    from phase21.evaluation.bootstrap import Estimate
    from phase21.evaluation.calibration import Pair, Scores
    from phase21.readers.inquiries.hindsight import Met

FORECASTS = {
    "predicted": "our prediction",
    "incoming": "incoming",
    "base_rate": "base rate",
    "agent_rate": "agent's rate",
}
"""What is compared: the field of `Met`, and what a person calls it."""

_SPOKEN = {
    "incoming": "incoming one",
    "base_rate": "running base rate",
    "agent_rate": "agent's own rate",
}
"""The same within a sentence."""

OURS, *BASELINES = FORECASTS


@click.command(short_help="How honest predictions were, beside three baselines.")
@common()
@click.argument("run_id", metavar="[RUN]", required=False)
@click.option("--by", type=click.Choice(["wave", "agent", "kind"]), help="The figures of each wave, agent or kind as well.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for scripts.")
def calibration(given: Given, *, run_id: str | None, by: str | None, as_json: bool) -> None:
    """Hold what was predicted against what came about, in RUN or in all runs; works whether or not a daemon runs.

    Brier score, log loss and expected calibration error (ECE, over ten bins of equal width), each with its 95 % bootstrap interval,
    and for all three lower is better. Beside our prediction stand the incoming one, the share of all tasks that had succeeded
    before, and the same of the agent alone. Only predictions that were written before their outcome count, of tasks that were
    started and COMPLETED or FAILED.
    """
    from phase21.readers.inquiries.hindsight import met_in  # noqa: PLC0415 - help needs none of it
    from phase21.readers.inquiries.spectator import Spectator  # noqa: PLC0415

    with Spectator(given.state) as spectator:
        spectator.refresh()
        if run_id is not None:
            spectator.record(run_id)
        held = list(met_in(spectator.entries(), run_id))
    if as_json:
        from phase21.store import codec  # noqa: PLC0415

        click.echo(codec.line(_told(held, run_id, by)), nl=False)
    else:
        _show(held, run_id, by)


# -- figures -------------------------------------------------------------------------------------------------------------


def _pairs(held: Iterable[Met], forecast: str) -> list[Pair]:
    return [(getattr(one, forecast), one.success) for one in held]


def _scores(held: Sequence[Met]) -> dict[str, Scores]:
    from phase21.evaluation.calibration import scores  # noqa: PLC0415

    found = {forecast: scores(_pairs(held, forecast)) for forecast in FORECASTS}
    return {forecast: made for forecast, made in found.items() if made is not None}


def _differences(held: Sequence[Met]) -> dict[str, Estimate]:
    from phase21.evaluation.calibration import brier_difference  # noqa: PLC0415

    ours = _pairs(held, OURS)
    found = {baseline: brier_difference(ours, _pairs(held, baseline)) for baseline in BASELINES}
    return {baseline: made for baseline, made in found.items() if made is not None}


def _groups(held: Sequence[Met], by: str, run_id: str | None) -> dict[str, list[Met]]:
    """The predictions by what the user asked for: waves in order, of several runs under the run's name; else by name."""
    groups: dict[tuple[str, int], list[Met]] = {}
    for one in held:
        key = (one.run_id, one.wave) if by == "wave" else (one.agent_id if by == "agent" else one.kind, 0)
        groups.setdefault(key, []).append(one)
    return {_named(*key, by, run_id): groups[key] for key in sorted(groups)}


def _named(name: str, wave: int, by: str, run_id: str | None) -> str:
    if by != "wave":
        return name
    return f"{name} {wave}" if run_id is None else str(wave)


# -- for scripts ---------------------------------------------------------------------------------------------------------


def _told(held: Sequence[Met], run_id: str | None, by: str | None) -> dict[str, Any]:
    from phase21.evaluation.calibration import BINS  # noqa: PLC0415

    told: dict[str, Any] = {"run_id": run_id, "bins": BINS, "binning": "equal width", "interval": 0.95, **_figures(held)}
    if by is not None:
        told["by"] = by
        told["groups"] = {name: _figures(within) for name, within in _groups(held, by, run_id).items()}
    return told


def _figures(held: Sequence[Met]) -> dict[str, Any]:
    from phase21.evaluation.calibration import reliability  # noqa: PLC0415

    return {
        "tasks": len(held),
        "completed": sum(one.success for one in held),
        "forecasts": {
            name: {
                "predicted": made.predicted,
                **{figure: _ends(getattr(made, figure)) for figure in ("brier", "log_loss", "ece")},
                "resamples": made.resamples,
                "reliability": reliability(_pairs(held, name)),
            }
            for name, made in _scores(held).items()
        },
        "brier_difference": {name: _ends(made) for name, made in _differences(held).items()},
    }


def _ends(made: Estimate) -> dict[str, float]:
    return {"value": made.value, "low": made.low, "high": made.high}


# -- for a person --------------------------------------------------------------------------------------------------------


def _show(held: Sequence[Met], run_id: str | None, by: str | None) -> None:
    from phase21.cli import screen  # noqa: PLC0415

    where = f"run {run_id}" if run_id is not None else "all runs"
    if not held:
        screen.show(f"{where}: no task was started and has ended: there is no prediction to hold against its outcome yet")
        return
    from phase21.evaluation.calibration import FEW, reliability  # noqa: PLC0415
    from phase21.readers.plots import reliability_lines  # noqa: PLC0415

    came = sum(one.success for one in held)
    scored, bins = _scores(held), reliability(_pairs(held, OURS))
    mean = f"predicted {scored[OURS].predicted:.1%}"
    screen.show(f"{where}: {_tasks(len(held))} started and ended, {came} COMPLETED ({came / len(held):.1%}); {mean}")
    if len(held) < FEW:
        screen.show(f"fewer than {FEW} tasks: the intervals are narrower than what is known")
    screen.show("", _compared(scored), "")
    screen.show(*(_verdict(baseline, made) for baseline, made in _differences(held).items()), "")
    screen.show("how our prediction held:", "", _table(bins), "", *reliability_lines(bins), "")
    if by is not None:
        screen.show(_grouped(_groups(held, by, run_id), by), "")
    screen.show(_legend(scored[OURS].resamples))


def _compared(scored: dict[str, Scores]) -> Table:
    from phase21.cli import screen  # noqa: PLC0415

    table = screen.table("FORECAST", "BRIER#", "95 %", "LOG LOSS#", "95 %", "ECE#", "95 %")
    for name, made in scored.items():
        figures = (cell for one in (made.brier, made.log_loss, made.ece) for cell in (f"{one.value:.3f}", _interval(one)))
        table.add_row(FORECASTS[name], *figures)
    return table


def _verdict(baseline: str, difference: Estimate) -> str:
    """What may be said of us against a baseline, in a sentence."""
    if difference.low == difference.high == 0.0:
        return f"the same as the {_SPOKEN[baseline]}"
    ends = f"Brier {difference.value:+.4f} ({difference.low:+.4f} to {difference.high:+.4f})"
    if difference.spans_zero:
        return f"inconclusive against the {_SPOKEN[baseline]}: {ends}"
    return f"{'better' if difference.value < 0.0 else 'worse'} than the {_SPOKEN[baseline]}: {ends}"


def _table(bins: Sequence[Any]) -> Table:
    from phase21.cli import screen  # noqa: PLC0415

    table = screen.table("PREDICTED", "TASKS#", "MEAN#", "CAME ABOUT#", "95 %")
    for one in bins:
        ends = f"{one.observed_low:.1%} to {one.observed_high:.1%}"
        table.add_row(f"{one.low:.0%} to {one.high:.0%}", str(one.samples), f"{one.predicted:.1%}", f"{one.observed:.1%}", ends)
    return table


def _grouped(groups: dict[str, list[Met]], by: str) -> Table:
    """A line for each group: our figures, and the Brier scores of the baselines."""
    from phase21.cli import screen  # noqa: PLC0415

    title = f"our prediction by {by}, and the Brier scores of the baselines:"
    heads = ("TASKS#", "MEAN#", "CAME#", "BRIER#", "95 %", "ECE#", "INCOMING#", "BASE#", "OWN#")
    table = screen.table(by.upper(), *heads, title=title)
    for name, within in groups.items():
        scored = _scores(within)
        ours = scored[OURS]
        figures = (f"{ours.brier.value:.3f}", _interval(ours.brier), f"{ours.ece.value:.3f}")
        others = (f"{scored[baseline].brier.value:.3f}" for baseline in BASELINES)
        table.add_row(name, str(ours.samples), f"{ours.predicted:.0%}", f"{ours.observed:.0%}", *figures, *others)
    return table


def _interval(made: Estimate) -> str:
    return f"{made.low:.3f}-{made.high:.3f}"


def _tasks(count: int) -> str:
    return f"{count} {'task' if count == 1 else 'tasks'}"


def _legend(resamples: int) -> str:
    return "\n".join(
        (
            f"Lower is better. 95 % intervals by {resamples} bootstrap resamples; ECE over ten bins of equal width.",
            "Only predictions that were written before their outcome count. Base rate and agent's rate are over",
            "what had ended when the task was assigned, in all runs. --json has every figure with its interval.",
        )
    )
