"""The verb `simulate`: what would have happened, had another strategy dealt the waves of past runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from phase21.cli.options import Given, common

if TYPE_CHECKING:
    from rich.table import Table

    from phase21.evaluation.bootstrap import Estimate
    from phase21.evaluation.offpolicy import Comparison
    from phase21.readers.inquiries.replays import Replay
    from phase21.readers.inquiries.spectator import Spectator
    from phase21.readers.inquiries.whatif import Expected, Offpolicy, Replayed, WhatIf

REALLY = "as it was dealt"

NO_CHANCE = (
    "Nothing can be estimated so where no choice was left to chance. `learning.exploration` with maximize_success",
    "would change that: a small share of tasks then tries another promising agent, and how likely that was is recorded.",
)

OPINION = """\
This is a model's opinion: it knows all outcomes, but nobody saw these tasks with other agents. The interval says how
much hangs on which tasks came and how little is known of agents, not whether the model is right. SECONDS are of work
side by side, added up over waves; those that really came include waiting."""

GRAPHS = """\
Of tasks that wait for each other SECONDS are those until the last is done, each dealt beforehand: an agent takes of what is
ready the most urgent, then the most critical, and its own retries. Limits, times and `max_parallel` are not in it; nor is
what tasks given out one by one really answered to, such as delays before retries: their own dealing looks slower for it."""


@click.command(short_help="What would have happened, had another strategy dealt past waves.")
@common()
@click.argument("runs", metavar="[RUN]...", nargs=-1)
@click.option("--strategy", "named", metavar="NAME", required=True, help="The strategy that is tried on the past.")
@click.option("--against", metavar="NAME", help="Another one to hold it against.  [default: as it was really dealt]")
@click.option("--seed", "given_seed", metavar="N", type=int, help="Seed of what is left to chance.  [default: handlers.seed]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for scripts.")
def simulate(
    given: Given, *, runs: tuple[str, ...], named: str, against: str | None, given_seed: int | None, as_json: bool
) -> None:
    """Deal the waves of RUN, or of all runs, again by another strategy, and say what would have come of it; nothing is executed.

    Two answers: what a model expects that was fitted to all outcomes, which is an opinion about agents that never had these tasks; and what
    the real outcomes themselves say, which needs choices that were left to chance (`learning.exploration` with maximize_success).
    Works whether or not a daemon runs. Terms of the plans and retries are read from the configuration: give --config as the daemon has it.
    """
    from phase21.readers.inquiries.replays import Replay, checked  # noqa: PLC0415 - help needs none of it
    from phase21.readers.inquiries.spectator import Spectator  # noqa: PLC0415
    from phase21.readers.inquiries.whatif import judged  # noqa: PLC0415

    names = [checked(named, "--strategy"), *([checked(against, "--against")] if against is not None else [])]
    settings = given.load()
    seed = settings.handlers.seed if given_seed is None else given_seed
    with Spectator(given.state) as spectator:
        spectator.refresh()
        for run_id in runs:
            spectator.record(run_id)
        replay = Replay(names, settings, runs=set(runs) or None, seed=seed)
        _read(spectator, replay)
    answer = judged(replay, settings, strategy=named, against=against, seed=seed)
    if as_json:
        from phase21.store import codec  # noqa: PLC0415

        click.echo(codec.line(answer), nl=False)
    else:
        _show(answer, runs)


def _read(spectator: Spectator, replay: Replay) -> None:
    """Replay the journal, with a bar on a terminal."""
    from phase21.cli import screen  # noqa: PLC0415 - help needs none of it
    from phase21.readers.inquiries.whatif import replayed  # noqa: PLC0415

    last = spectator.ledger.position
    with screen.bar("replaying entries") as advance:
        replayed(spectator.entries(), replay, None if advance is None else lambda position: advance(position, 0, last))


# -- for a person --------------------------------------------------------------------------------------------------------


def _show(answer: WhatIf, runs: tuple[str, ...]) -> None:
    from phase21.cli import screen  # noqa: PLC0415 - help needs none of it

    where = "all runs" if not runs else f"run {runs[0]}" if len(runs) == 1 else f"{len(runs)} runs"
    if answer.replay is None or answer.off_policy is None:
        screen.show(
            f"{where}: no task of a planned wave was started and has ended: there is nothing to simulate yet", *_left_out(answer)
        )
        return
    dealt_by = ", ".join(f"{name} {_tasks(count)}" if len(answer.dealt_by) > 1 else name for name, count in answer.dealt_by.items())
    waves = f"{answer.waves} {'wave' if answer.waves == 1 else 'waves'}"
    screen.show(f"{where}: {_tasks(answer.tasks)} in {waves}, dealt by {dealt_by}; {_moved(answer, answer.replay)}")
    screen.show(*_left_out(answer), "", _compared(answer, answer.replay), "", _opinion(answer, answer.replay), "")
    screen.show(*_outcomes(answer, answer.off_policy), "", _trial(answer))


def _moved(answer: WhatIf, replay: Replayed) -> str:
    unless = REALLY if answer.against is None else answer.against
    if not replay.moved:
        return f"{answer.strategy} gives each to the same agent"
    than = "than it went to" if answer.against is None else f"than {unless} does"
    return f"{answer.strategy} gives {replay.moved} of them to another agent {than}"


def _left_out(answer: WhatIf) -> list[str]:
    from phase21.readers.inquiries.whatif import LEFT_OUT  # noqa: PLC0415 - help needs none of it

    said = [f"{_tasks(count)} {LEFT_OUT[why]}" for why, count in answer.left_out.items() if count]
    return [f"left out: {', '.join(said)}"] if said else []


def _compared(answer: WhatIf, replay: Replayed) -> Table:
    from phase21.cli import screen  # noqa: PLC0415 - help needs none of it

    table = screen.table("WHAT A MODEL EXPECTS", "COMPLETED#", "SHARE#", "ATTEMPTS#", "SECONDS#")
    for name, side in ((answer.strategy, replay.strategy), (answer.against or REALLY, replay.against)):
        rate = f"{side.success_rate.value:.1%}"
        table.add_row(name, _number(side.completed.value), rate, _number(side.attempts.value), _seconds(side.makespan_s.value))
    apart = replay.difference
    if replay.moved:
        table.add_row("difference", *_differences(apart))
        table.add_row("  95 % interval", *_intervals(apart))
    actual = answer.actual
    rate = f"{actual.completed / answer.tasks:.1%}"
    table.add_row("what really came", str(actual.completed), rate, str(actual.attempts), _seconds(actual.wave_s))
    return table


def _differences(apart: Expected) -> list[str]:
    rate = f"{100.0 * apart.success_rate.value:+.1f} points"
    return [f"{apart.completed.value:+.1f}", rate, f"{apart.attempts.value:+.1f}", f"{apart.makespan_s.value:+.3g}"]


def _intervals(apart: Expected) -> list[str]:
    def ends(one: Estimate, scale: float, shape: str) -> str:
        return f"{scale * one.low:{shape}} to {scale * one.high:{shape}}"

    return [
        ends(apart.completed, 1.0, "+.1f"),
        ends(apart.success_rate, 100.0, "+.1f"),
        ends(apart.attempts, 1.0, "+.1f"),
        ends(apart.makespan_s, 1.0, "+.3g"),
    ]


def _opinion(answer: WhatIf, replay: Replayed) -> str:
    than = answer.against or "what was done"
    verdict = {
        "the same": f"The same: both deal every task alike, so there is nothing to tell {answer.strategy} from {than} by.",
        "inconclusive": f"Inconclusive: the model cannot tell {answer.strategy} from {than}.",
    }.get(
        replay.verdict,
        f"{replay.verdict.capitalize()}: the model expects {answer.strategy} to complete {_more(replay)} than {than}.",
    )
    return verdict if replay.verdict == "the same" else "\n".join([verdict, OPINION, *[GRAPHS] * bool(answer.graphs)])


def _more(replay: Replayed) -> str:
    return "more" if replay.difference.completed.value > 0.0 else "fewer"


def _outcomes(answer: WhatIf, found: Offpolicy) -> list[str]:
    """What real outcomes say: a sentence for each strategy, and what they cannot say."""
    said = [f"What real outcomes say, of {_tasks(found.left_to_chance)} whose agent was left to chance:"]
    for name, one in ((answer.strategy, found.strategy), (answer.against, found.against)):
        if one is not None:
            first, *more = _verdict(one)
            said += [f"  {name} beside what was done: {first}", *(f"    {line}" for line in more)]
    asides = [f"{found.pinned} pinned to an agent"] * bool(found.pinned)
    asides += [f"{found.unknown} of which the journal does not say how likely their agent was"] * bool(found.unknown)
    asides += [f"{found.unseen} that would go elsewhere and were not left to chance"] * bool(found.unseen)
    if asides:
        said.append(f"  This says nothing of {', '.join(asides)}.")
    return said + [f"  {line}" for line in NO_CHANCE] * (not found.left_to_chance)


def _verdict(found: Comparison) -> list[str]:
    """The estimate in words; its sentence alone where there is none."""
    from phase21.readers.inquiries.whatif import WEIGHT_OFF_MOST  # noqa: PLC0415 - help needs none of it

    apart = found.doubly_robust_difference
    if apart is None:
        return [found.said]
    points = [round(100.0 * part, 1) + 0.0 for part in (apart.value, apart.low, apart.high)]  # no -0.0
    said = [f"{found.verdict}, {points[0]:+.1f} points COMPLETED (95 % interval {points[1]:+.1f} to {points[2]:+.1f})"]
    worth = f"what chance brought is worth {found.effective_decisions:.0f} tasks of a trial of its own"
    if found.mean_weight is not None and abs(found.mean_weight - 1.0) > WEIGHT_OFF_MOST:
        worth += f"; its choices came up {found.mean_weight:.2f} times as often as they should"
    said.append(worth)
    if found.verdict == "inconclusive" and not apart.spans_zero:
        said.append("that interval leans on the forecast; without its help, or with so few tries, the sign is not certain")
    return said


def _trial(answer: WhatIf) -> str:
    power = answer.power
    if power is None or power.tasks_each is None:
        return "The model sees no difference that a trial could find."
    one, other = (f"{rate:.1%}" for rate in power.success_rates)
    return (
        f"To be sure, try it: telling {other} from {one} takes about {power.tasks_each:,} tasks with each strategy\n"
        "(found 4 times in 5, with 5 % false alarms)."
    )


def _tasks(count: int) -> str:
    return f"{count:,} {'task' if count == 1 else 'tasks'}"


def _number(value: float) -> str:
    return f"{value:.1f}"


def _seconds(value: float) -> str:
    return f"{value:.3g}" if value < 100.0 else f"{value:.0f}"  # noqa: PLR2004 - three figures
