"""The verb `optimize`: a plan and the figures of one, as the files of Phase 19."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from phase21.cli.options import Given, common

if TYPE_CHECKING:
    from phase21.evaluation.schedules import Comparison
    from phase21.readers.inquiries.studies import Findings, StudiedWave, Study

WAVES_SHOWN = 20
NOTHING = "no tasks were found: there is nothing to plan (looked for planned_tasks.jsonl, scheduled_tasks.jsonl and others)"


@click.command(short_help="Plan the tasks of Phase 18 and 19 folders, and hold plans against outcomes.")
@common()
@click.argument("folders", metavar="[DIR]...", nargs=-1)
@click.option("--run", "run_id", metavar="RUN", help="Instead of folders: the same files of what RUN planned and did.")
@click.option("--strategy", "named", metavar="NAME", help="How tasks are dealt to agents.  [default: maximize_success]")
@click.pass_context
def optimize(context: click.Context, given: Given, *, folders: tuple[str, ...], run_id: str | None, named: str | None) -> None:
    """Plan the tasks of Phase 18, 19 and 20 folders, hold earlier plans against their outcomes, and write it all to --outputs.

    Read are agents' records (multi_agent_summary.json), tasks and schedules (planned_tasks.jsonl, scheduled_tasks.jsonl,
    predicted_tasks.jsonl), outcomes and heuristic weights, at the root of each DIR, under wave_X/agent_Y/, and in folders phase18, phase19
    and phase20 within it. Nothing is executed and nothing is made up: predicted figures are called so, and what nobody recorded is null.
    With --run the plan and the outcomes are those of a run's closed waves.
    """
    from phase21.domain.errors import UsageError  # noqa: PLC0415 - help needs none of it
    from phase21.readers.inquiries import optimization, studies  # noqa: PLC0415

    if bool(folders) == (run_id is not None):
        raise UsageError("optimize: give folders or --run RUN, one of both; see `phase21 optimize --help`")
    if context.get_parameter_source("outputs") is click.core.ParameterSource.DEFAULT:
        raise UsageError("optimize: --outputs DIR is missing: where the files go")
    if run_id is not None and named is not None:
        raise UsageError("--strategy: what a run planned is not planned again; leave it out, or give folders")
    settings = given.load()
    study = _of_run(given, run_id) if run_id is not None else _of_folders(given, folders, named)
    thresholds = settings.health.thresholds
    optimization.put(given.outputs, optimization.contents_of(study, thresholds))
    _show(study, studies.findings_of(study, thresholds), given)


def _of_run(given: Given, run_id: str) -> Study:
    from phase21.readers.inquiries import studies  # noqa: PLC0415 - help needs none of it
    from phase21.readers.inquiries.spectator import Spectator  # noqa: PLC0415

    with Spectator(given.state) as spectator:
        spectator.refresh()
        record = spectator.record(run_id)
        entries = spectator.entries(max(0, record.first_position - 1), run_id)
        return studies.study_of_run(run_id, studies.closed_waves(run_id, entries))


def _of_folders(given: Given, folders: tuple[str, ...], named: str | None) -> Study:
    from phase21.intake.performance import read_folders  # noqa: PLC0415 - help needs none of it
    from phase21.readers.inquiries import studies  # noqa: PLC0415

    asked = studies.asked(given.load(), studies.DEFAULT_STRATEGY if named is None else named)
    studies.apart(given.outputs, folders)
    return studies.studied(read_folders(folders), asked)


def _show(study: Study, found: Findings, given: Given) -> None:
    """Say in a person's words what was planned and what it was worth."""
    from phase21.cli import screen  # noqa: PLC0415 - help needs none of it

    tasks = sum(len(wave.plan.slots) for wave in study.waves)
    ended = sum(made.compared_tasks for made in found.comparisons)
    screen.show(
        f"{study.source}: {_counted(tasks, 'task')} in {_counted(len(study.waves), 'wave')} over "
        f"{_counted(len(study.agents), 'agent')}, by {study.strategy}"
    )
    if not study.waves:
        screen.show(NOTHING if study.run_id is None else "no wave of it is closed yet: there is nothing to hold against a plan")
    table = screen.table(
        "WAVE#", "TASKS#", "EXPECTED SUCCESS#", "OUTCOMES#", "PLANNED#", "ACTUAL#", "ADHERENCE#", "PLAN HELD AGAINST THEM"
    )
    for wave, made in list(zip(study.waves, found.comparisons, strict=True))[-WAVES_SHOWN:]:
        table.add_row(*_row(wave, made))
    if study.waves:
        screen.show("", table, "")
    unplaced = [left for wave in study.waves for left in wave.unplaced]
    if unplaced:
        screen.show(f"without an agent: {_counted(len(unplaced), 'task')}, the first of them {unplaced[0][0]}: {unplaced[0][1]}")
    if study.nobodys:
        screen.show(f"left out: {_counted(study.nobodys, 'outcome')} without an agent, which cannot be held against a schedule")
    score = found.health.overall_health_score
    health = f"{score:.1f} {found.health.health_status}" if score is not None else "unknown: no outcome is recorded"
    named = ", ".join(one.sign.anomaly_type for one in found.seen) or "none"
    screen.show(f"{_counted(ended, 'outcome')} recorded; optimization health {health}; anomalies: {named}")
    screen.show(f"outputs: {given.outputs}", f"report:  {given.outputs / 'PHASE_19_AUTONOMOUS_OPTIMIZATION.md'}")


def _row(wave: StudiedWave, made: Comparison) -> tuple[str, ...]:
    from phase21.evaluation.schedules import adherence, expected  # noqa: PLC0415 - help needs none of it

    return (
        str(wave.number),
        str(len(wave.plan.slots)),
        _percent(expected(wave.plan).planned_success_rate),
        str(made.compared_tasks),
        _percent(made.planned_success_rate) if made.compared_tasks else "-",
        _percent(made.actual_success_rate),
        _percent(adherence(wave.held)),
        made.strategy if made.compared_tasks else "-",
    )


def _percent(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:.1%}"


def _counted(count: int, what: str) -> str:
    return f"{count} {what if count == 1 else what + 's'}"
