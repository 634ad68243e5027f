"""Outcomes of real agents, as the trials need them: which task, which agent, did it succeed, how long did it take.

Reads a folder of the evaluation format (its README tells it). Nothing here knows a task or an agent by name.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from phase21.domain.tasks import Feature
from phase21.store import codec

NOT_FEATURES = frozenset({"task_id", "cv_fold", "feature_cost_s"})
FLEET_MOST = 8


class OutcomeSet(msgspec.Struct, frozen=True, kw_only=True):
    """One set with one fleet.

    `success[task][agent]` lists what each trial of the pair gave (one or several); `seconds` the same of durations, empty where
    nobody measured them.
    """

    name: str
    fleet: str
    agents: tuple[str, ...]
    tasks: tuple[str, ...]
    features: tuple[dict[str, Feature], ...]
    success: tuple[tuple[tuple[bool, ...], ...], ...]
    seconds: tuple[tuple[float, ...], ...] = ()

    @property
    def trials(self) -> int:
        """How many trials every pair has."""
        return min(len(pair) for row in self.success for pair in row)


def algorithm_selection(data: Path) -> Iterator[OutcomeSet]:
    """Every scenario of `aslib`, with its portfolio."""
    for file in sorted((data / "aslib").glob("*/runtimes.csv")):
        yield scenario(file.parent)


def scenario(folder: Path) -> OutcomeSet:
    """One scenario: seconds are runtimes, and the cutoff where a task was not solved within it."""
    cutoff_s = float(_json(folder / "meta.json")["cutoff_s"])
    fleets = _json(folder / "fleets.json")
    fleet = "portfolio8" if "portfolio8" in fleets else next(iter(fleets))
    agents = tuple(fleets[fleet][:FLEET_MOST])
    runtimes = _rows(folder / "runtimes.csv")
    features = {row["task_id"]: row for row in _rows(folder / "features.csv")}
    return OutcomeSet(
        name=f"aslib/{folder.name}",
        fleet=fleet,
        agents=agents,
        tasks=tuple(row["task_id"] for row in runtimes),
        features=tuple(_features(features.get(row["task_id"], {})) for row in runtimes),
        success=tuple(tuple((row[agent] != "",) for agent in agents) for row in runtimes),
        seconds=tuple(tuple(min(float(row[agent] or cutoff_s), cutoff_s) for agent in agents) for row in runtimes),
    )


def repeated_trials(data: Path) -> Iterator[OutcomeSet]:
    """`terminal_bench`: every fleet of up to eight, several trials of each pair."""
    folder = data / "terminal_bench"
    if not (folder / "outcomes.csv").exists():
        return
    found: dict[tuple[str, str], list[tuple[int, bool]]] = {}
    for row in _rows(folder / "outcomes.csv"):
        found.setdefault((row["task_id"], row["agent_id"]), []).append((int(row["trial"]), float(row["success"]) > 0))
    yield from _fleets(folder, folder, {pair: tuple(ok for _, ok in sorted(trials)) for pair, trials in found.items()})


def single_runs(data: Path) -> Iterator[OutcomeSet]:
    """`swe_verified` and `swe_mini`: every fleet of up to eight, one run of each pair."""
    wide = data / "swe_verified"
    if (wide / "outcomes.csv").exists():
        rows = _rows(wide / "outcomes.csv")
        single: dict[tuple[str, str], tuple[bool, ...]] = {
            (row["task_id"], agent): (float(row[agent]) > 0,) for row in rows for agent in row if agent != "task_id"
        }
        yield from _fleets(wide, wide, single)
    narrow = data / "swe_mini"
    if (narrow / "outcomes.csv").exists():
        pairs: dict[tuple[str, str], tuple[bool, ...]] = {
            (row["task_id"], row["agent_id"]): (float(row["success"]) > 0,) for row in _rows(narrow / "outcomes.csv")
        }
        yield from _fleets(narrow, wide, pairs)


def _fleets(folder: Path, described: Path, pairs: dict[tuple[str, str], tuple[bool, ...]]) -> Iterator[OutcomeSet]:
    features = {row["task_id"]: _features(row) for row in _rows(described / "task_features.csv")}
    for fleet, names in _json(folder / "fleets.json").items():
        if len(names) > FLEET_MOST:
            continue
        agents = tuple(names)
        tasks = tuple(sorted({task for task, _ in pairs if all((task, agent) in pairs for agent in agents)}))
        yield OutcomeSet(
            name=folder.name,
            fleet=fleet,
            agents=agents,
            tasks=tasks,
            features=tuple(features.get(task, {}) for task in tasks),
            success=tuple(tuple(pairs[task, agent] for agent in agents) for task in tasks),
        )


def _features(row: dict[str, str]) -> dict[str, Feature]:
    return {name: _value(text) for name, text in row.items() if name not in NOT_FEATURES and text not in {"", "?"}}


def _value(text: str) -> Feature:
    try:
        return float(text)
    except ValueError:
        return text


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _json(path: Path) -> dict[str, Any]:
    read: dict[str, Any] = codec.decode(path.read_bytes())
    return read


def switched(data: Path) -> Sequence[tuple[str, list[dict[str, str]], list[dict[str, str]]]]:
    """`llmdrift`: for each family of models, what its older and its newer version made of the same questions."""
    path = data / "llmdrift" / "outcomes.csv"
    families: dict[str, dict[str, list[dict[str, str]]]] = {}
    for row in _rows(path) if path.exists() else ():
        families.setdefault(row["agent_family"], {}).setdefault(row["version"], []).append(row)
    return [(family, found[min(found)], found[max(found)]) for family, found in sorted(families.items()) if len(found) > 1]
