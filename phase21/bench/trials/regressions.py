"""How often a regression is found: between equal runs, and where one was planted.

Runs are drawn: each step has its own length and its own chance to fail, each attempt is drawn alone, and whole runs differ as a busy
machine makes them. `python -m phase21.bench.trials.regressions` prints the table that docs/howto-evaluate.md shows.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import click
import msgspec

from phase21.domain.tasks import TaskStatus
from phase21.evaluation.quality import Work
from phase21.evaluation.regressions import Change, Ran, Verdict, compare

MAX_ATTEMPTS = 2


class World(msgspec.Struct, frozen=True, kw_only=True):
    """What runs are drawn from. `rate` is of success per task, `busy` the spread of whole runs' seconds, `noise` of single ones."""

    tasks: int = 40
    runs: int = 5
    rate: float = 0.9
    busy: float = 0.05
    noise: float = 0.2
    score: float = 85.0


class Planted(msgspec.Struct, frozen=True, kw_only=True):
    """By which share a run is worse than its world."""

    success: float = 0.0
    seconds: float = 0.0
    score: float = 0.0


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """Of so many runs, how many were called a regression, and in how many one figure was; of all verdicts, how many inconclusive."""

    runs: int
    regressions: int
    by_figure: dict[str, int]
    inconclusive: int


def drawn(world: World, planted: Planted, name: str, dice: random.Random) -> Ran:
    """One run."""
    slowed = dice.gauss(0.0, world.busy)
    works = tuple(_work(world, planted, f"s{n}", slowed, dice) for n in range(world.tasks))
    return Ran(run_id=name, works=works, score=_points(world.score * (1.0 - planted.score) + dice.gauss(0.0, 3.0)))


def _work(world: World, planted: Planted, step: str, slowed: float, dice: random.Random) -> Work:
    rate = world.rate * (1.0 - planted.success)
    once = 1.0 - (1.0 - rate) ** (1.0 / MAX_ATTEMPTS)
    fates = [dice.random() < once for _ in range(MAX_ATTEMPTS)]
    attempts = fates.index(True) + 1 if True in fates else MAX_ATTEMPTS
    length_s = 1.0 + random.Random(step).expovariate(0.2)  # noqa: S311 - statistics, not secrets
    return Work(
        task_id=step,
        step=step,
        agent_id="a",
        status=TaskStatus.COMPLETED if True in fates else TaskStatus.FAILED,
        attempts=attempts,
        actual_s=length_s * dice.lognormvariate(slowed, world.noise) * (1.0 + planted.seconds),
        score=_points(dice.gauss(world.score * (1.0 - planted.score), 10.0)),
    )


def _points(value: float) -> float:
    return min(100.0, max(0.0, value))


def study(world: World, planted: Planted | None = None, *, pairs: int = 200, seed: int = 0) -> Found:
    """Compare so many runs, each with earlier ones of its own."""
    verdicts = list(_compared(world, planted or Planted(), pairs, seed))
    figures = [change for changes in verdicts for change in changes]
    by_figure: dict[str, int] = {}
    for change in figures:
        by_figure[change.name] = by_figure.get(change.name, 0) + (change.verdict is Verdict.REGRESSION)
    return Found(
        runs=pairs,
        regressions=sum(any(change.verdict is Verdict.REGRESSION for change in changes) for changes in verdicts),
        by_figure=by_figure,
        inconclusive=sum(change.verdict is Verdict.INCONCLUSIVE for change in figures),
    )


def _compared(world: World, planted: Planted, pairs: int, seed: int) -> Iterator[tuple[Change, ...]]:
    for pair in range(pairs):
        dice = random.Random(f"{seed}/{pair}")  # noqa: S311 - statistics, not secrets
        before = [drawn(world, Planted(), f"r{n}", dice) for n in range(world.runs)]
        yield compare(drawn(world, planted, "now", dice), before, seed=pair).changes


WORLDS = (World(runs=1), World(), World(tasks=10), World(tasks=10, runs=1), World(tasks=100), World(busy=0.2), World(rate=0.99))
PLANTED = {
    "nothing": Planted(),
    "success -30 %": Planted(success=0.3),
    "seconds +30 %": Planted(seconds=0.3),
    "score -30 %": Planted(score=0.3),
}


@click.command()
@click.option("--pairs", default=400, show_default=True, help="How many runs are compared for each line.")
def main(pairs: int) -> None:
    """Print how often what is found."""
    click.echo("| tasks | earlier runs | success | spread of runs | " + " | ".join(PLANTED) + " |")
    click.echo("| --- " * (4 + len(PLANTED)) + "|")
    for world in WORLDS:
        shares = [study(world, planted, pairs=pairs).regressions / pairs for planted in PLANTED.values()]
        cells = (world.tasks, world.runs, world.rate, world.busy, *(f"{share:.1%}" for share in shares))
        click.echo("| " + " | ".join(map(str, cells)) + " |")


if __name__ == "__main__":
    main()
