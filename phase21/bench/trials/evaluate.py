"""The evaluation: every trial over one folder of recorded outcomes, and one table of what came of it beside what must be reached.

Called by `scripts/evaluate` and `make evaluate`. Sets that the folder lacks are left out, and said to be.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from phase21.bench.trials import drift, gaps, graphs, honesty, makespan, planning, retries, sets
from phase21.bench.trials.gaps import WAVE, Made
from phase21.bench.trials.sets import OutcomeSet
from phase21.domain.settings import LearningSettings
from phase21.evaluation.calibration import Pair
from phase21.store import codec

EXPLORATION = LearningSettings().exploration
MAKESPAN_SEEDS = 2
BASELINE_SEEDS = 2
SWITCH_SEEDS = 6
"""Runs of a set whose contextual baseline is fitted; the others are judged without it."""

CAPS = {"swe_verified": (5, 3), "swe_mini": (5, 3)}
CAP = 3

MUST = {
    "aslib": "whole 0.45, second half 0.60",
    "terminal_bench": "whole 0.50, second half 0.68",
    "swe_verified cap 5": "whole 0.42, second half 0.50",
    "swe_verified cap 3": "whole 0.20",
    "near-equal": "not more than 1 point under round robin",
    "retries": "success 0.69 in at most 1.85 attempts",
    "makespan": "at most 1.45 (second half)",
    "calibration": "ECE 0.035, Brier at most the contextual one + 0.003",
    "after a switch": "ECE 0.06 within 200 tasks",
    "drift": "F1 0.75, delay 15, flagged 0.2 %",
    "graphs": "product/bound at most 1.02",
    "graphs unequal": "product/bound at most 1.03",
    "portfolio known": "product/plain at most 1.005",
    "portfolio learned": "at most 1.05",
    "planning 20 x 8": "exact in 5 ms",
    "planning 1000 x 16": "0.5 % in 100 ms",
    "planning 10000 x 64": "1 % in 2 s",
    "forecasts": "500,000 pairs/s",
}
Row = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; exit status 0, or 2 where the folder holds nothing to evaluate."""
    parser = argparse.ArgumentParser(prog="evaluate", description="Run the product over recorded outcomes of real agents.")
    parser.add_argument("data", type=Path, help="a folder of the evaluation format")
    parser.add_argument("--seeds", type=int, default=20, help="random orders of each set (20)")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="processes side by side (2)")
    parser.add_argument("--json", action="store_true", help="the table as JSON")
    asked = parser.parse_args(arguments)
    rows = evaluated(asked.data, asked.seeds, asked.jobs)
    if not any(row["trial"] not in {"planning", "forecasts"} for row in rows):
        sys.stderr.write(f"evaluate: {asked.data} holds none of the sets of the evaluation format\n")
        return 2
    if asked.json:
        sys.stdout.write(codec.line(rows).decode())
    else:
        show(rows)
    return 0


def evaluated(data: Path, seeds: int, jobs: int) -> list[Row]:
    """Every row of the table."""
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool, _progress() as progress:
        found = [*sets.repeated_trials(data), *sets.single_runs(data), *sets.algorithm_selection(data)]
        asked: dict[Future[list[Made]], tuple[int, int, int]] = {}
        for place, one in reversed(list(enumerate(found))):  # the longest first
            for cap in CAPS.get(one.name, (CAP,)):
                asked.update({pool.submit(_run, one, cap, seed): (place, cap, seed) for seed in range(seeds)})
        scenarios = [path.parent for path in sorted((data / "aslib").glob("*/runtimes.csv"))]
        lengths = [pool.submit(_makespan, scenario) for scenario in scenarios]
        judged = [pool.submit(_honesty, one, seed) for one in found for seed in range(min(seeds, BASELINE_SEEDS))]
        families = sets.switched(data)
        switches = [pool.submit(honesty.after_switch, families, seed) for seed in range(min(seeds, SWITCH_SEEDS)) if families]
        flows = [pool.submit(graphs.row, one) for one in graphs.asked(data)]
        others: list[Future[Any]] = [*lengths, *judged, *switches, *flows]
        bar = progress.add_task("evaluating", total=len(asked) + len(others))
        for _ in as_completed([*asked, *others]):
            progress.advance(bar)
    runs: dict[tuple[int, int], list[list[Made]]] = {}
    for future, (place, cap, _) in asked.items():
        runs.setdefault((place, cap), []).append(future.result())
    spans = [length.result() for length in lengths]
    rows = list(_gap_rows(found, runs))
    rows.extend(_retry_rows(found, seeds))
    if spans:
        rows.append({"trial": "makespan", "set": "aslib", **{name: fmean(span[name] for span in spans) for name in spans[0]}})
    rows.extend(_honesty_rows([one.result() for one in judged]))
    rows.extend(_switch_rows([one.result() for one in switches]))
    rows.extend(_drift_rows(data))
    rows.extend({"trial": "workflows", **one.result()} for one in flows)
    rows.extend(_planning_rows())
    return rows


def _run(found: OutcomeSet, cap: int, seed: int) -> list[Made]:
    return list(gaps.run(found, cap, seed, exploration=EXPLORATION))


def _honesty(found: OutcomeSet, seed: int) -> dict[str, list[Pair]]:
    return honesty.predictions(found, [_run(found, CAP, seed)])


def _makespan(folder: Path) -> dict[str, float]:
    row = makespan.scenario_row(makespan.read(folder), MAKESPAN_SEEDS)
    return {name: float(value) for name, value in row.items()}


def _gap_rows(found: Sequence[OutcomeSet], runs: dict[tuple[int, int], list[list[Made]]]) -> Iterator[Row]:
    closed: list[gaps.Gap] = []
    for (place, cap), made in sorted(runs.items()):
        one, gap = found[place], gaps.gap_of(made)
        if one.name.startswith("aslib/"):
            closed.append(gap)
        yield {
            "trial": "gap",
            "set": one.name,
            "fleet": one.fleet,
            "cap": cap,
            "whole": gap.whole,
            "second_half": gap.second_half,
            "points_over_round_robin": 100.0 * (gap.ours - gap.round_robin),
        }
    if closed:
        yield {
            "trial": "gap",
            "set": "aslib",
            "fleet": "mean",
            "cap": CAP,
            "whole": fmean(gap.whole for gap in closed),
            "second_half": fmean(gap.second_half for gap in closed),
            "points_over_round_robin": 100.0 * fmean(gap.ours - gap.round_robin for gap in closed),
        }


def _retry_rows(found: Sequence[OutcomeSet], seeds: int) -> Iterator[Row]:
    for one in found:
        if one.trials < 2:  # noqa: PLR2004 - one trial of a pair says nothing about a second
            continue
        ways = {
            "learned": [retries.learned(one, CAP, seed, EXPLORATION) for seed in range(seeds)],
            "same agent": [retries.baseline(one, seed, same=True) for seed in range(seeds)],
            "another": [retries.baseline(one, seed, same=False) for seed in range(seeds)],
            "hindsight": [retries.hindsight(one, seed) for seed in range(seeds)],
        }
        for way, told in ways.items():
            summed = retries.summed([ran for run in told for ran in run])
            figures = {"success": summed.success, "attempts": summed.attempts, "second_attempt": summed.second}
            yield {"trial": "retries", "set": one.name, "fleet": one.fleet, "way": way, **figures}


def _honesty_rows(judged: Sequence[dict[str, list[Pair]]]) -> Iterator[Row]:
    """Of all sets together: with the first wave, of which nothing was known, and without it."""
    for which, start in (("all", 0), ("from the second wave on", WAVE)):
        pooled: dict[str, list[Pair]] = {}
        for ways in judged:
            for name, pairs in ways.items():
                pooled.setdefault(name, []).extend(pairs[start:])
        for name, pairs in pooled.items():
            yield {"trial": "calibration", "set": which, "way": name, **_honest(pairs)}


def _switch_rows(told: Sequence[tuple[list[Pair], list[Pair]]]) -> Iterator[Row]:
    if told:
        for name, half in (("before a switch", 0), ("after a switch", 1)):
            yield {"trial": "calibration", "set": "llmdrift", "way": name, **_honest([one for run in told for one in run[half]])}


def _honest(pairs: Sequence[Pair]) -> dict[str, float]:
    figures = honesty.honesty_of(pairs)
    return {"ece": figures.ece, "brier": figures.brier}


def _drift_rows(data: Path) -> Iterator[Row]:
    for trial, ways in drift.measure(data).items():
        for way, figures in ways.items():
            plain = figures if isinstance(figures, dict) else {"score": figures}
            yield {"trial": trial, "set": trial, "way": way, **{k: v for k, v in plain.items() if isinstance(v, int | float)}}


def _planning_rows() -> Iterator[Row]:
    for tasks, agents in planning.SIZES:
        dealt = planning.dealt(tasks, agents)
        figures = {"milliseconds": dealt.milliseconds, "gap_percent": 100.0 * dealt.gap}
        yield {"trial": "planning", "set": f"{tasks} x {agents}", **figures}
    yield {"trial": "forecasts", "set": "10000 x 64", "pairs_per_second": planning.pairs_per_second()}


def _workflow_must(row: Row) -> str:
    if row["set"] == "portfolio":
        return MUST[f"portfolio {row['way']}"]
    return MUST["graphs" if row["fleet"] in graphs.FLEETS else "graphs unequal"]


def _must(row: Row) -> str:
    if row["trial"] == "workflows":
        return _workflow_must(row)
    if row["trial"] == "gap":
        if row["set"] in {"aslib", "terminal_bench"}:
            return MUST[row["set"]]
        if row["set"] == "swe_verified":
            return MUST[f"swe_verified cap {row['cap']}"] if row["fleet"] == "spread" else MUST["near-equal"]
        return ""
    if row.get("way") in {"learned", "ours", "after a switch"} or row["trial"] in {"makespan", "forecasts"}:
        return MUST.get(str(row["way"]) if row.get("way") == "after a switch" else row["trial"], "")
    return MUST.get(f"{row['trial']} {row['set']}", "")


def show(rows: Sequence[Row]) -> None:
    """The table on the terminal."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("trial", "set", "which", "figures", "must reach"):
        table.add_column(name)
    for row in rows:
        which = " ".join(str(row[name]) for name in ("fleet", "way") if name in row)
        which += f" cap {row['cap']}" if "cap" in row else ""
        figures = "  ".join(f"{name} {_figure(value)}" for name, value in row.items() if name not in _NAMES)
        table.add_row(row["trial"], row["set"], which, figures, _must(row))
    Console(width=200 if not sys.stdout.isatty() else None).print(table)


_NAMES = frozenset({"trial", "set", "fleet", "way", "cap"})


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3f}"  # noqa: PLR2004 - what is read more easily


def _progress() -> Progress:
    console = Console(stderr=True)
    return Progress(console=console, disable=not console.is_terminal, transient=True)
