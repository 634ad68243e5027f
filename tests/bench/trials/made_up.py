"""A small folder of the evaluation format, made up: half of the tasks are for one half of the agents, the rest for the other."""

from __future__ import annotations

import json
import random
from pathlib import Path


def write(folder: Path, *, seed: int = 0) -> Path:
    """Every set that the evaluation knows, with a few tasks each."""
    dice = random.Random(seed)
    _scenario(folder / "aslib" / "MADE-UP", dice)
    _trials(folder / "terminal_bench", dice)
    _single(folder / "swe_verified", dice)
    _switch(folder / "llmdrift")
    _graphs(folder / "dag", dice)
    _streams(folder / "drift_streams.jsonl", dice)
    return folder


def _graphs(folder: Path, dice: random.Random) -> None:
    """Two forks with joins, and both at once."""
    folder.mkdir()
    both: list[dict[str, object]] = []
    for name, width in (("narrow", 3), ("wide", 9)):
        tasks: list[dict[str, object]] = [{"id": 0, "kind": "fork", "runtime_s": 2.0, "parents": []}]
        tasks += [{"id": number, "kind": "work", "runtime_s": dice.randint(3, 9), "parents": [0]} for number in range(1, width + 1)]
        tasks.append({"id": width + 1, "kind": "join", "runtime_s": 1.0, "parents": list(range(1, width + 1))})
        (folder / f"{name}.json").write_text(json.dumps({"tasks": tasks}))
        start = len(both)
        both += [
            {**task, "id": start + int(str(task["id"])), "parents": [start + parent for parent in task["parents"]]}  # type: ignore[attr-defined]
            for task in tasks
        ]
    (folder / "_portfolio.json").write_text(json.dumps({"tasks": both}))


def suits(task: int, agent: int) -> bool:
    """Whether an agent is one of those that can do the task."""
    return task % 2 == agent % 2


def _scenario(folder: Path, dice: random.Random) -> None:
    folder.mkdir(parents=True)
    agents = [f"s{n}" for n in range(4)]
    (folder / "meta.json").write_text(json.dumps({"cutoff_s": 100.0}))
    (folder / "fleets.json").write_text(json.dumps({"portfolio8": agents, "all": agents}))
    runtimes, features = ["task_id," + ",".join(agents)], ["task_id,cv_fold,feature_cost_s,side,size"]
    for task in range(160):
        cells = [f"{dice.uniform(1, 20):.2f}" if suits(task, agent) else "" for agent in range(4)]
        runtimes.append(f"t{task}," + ",".join(cells))
        features.append(f"t{task},1,0.1,{task % 2},{'' if task == 7 else dice.random()}")
    (folder / "runtimes.csv").write_text("\n".join(runtimes) + "\n")
    (folder / "features.csv").write_text("\n".join(features) + "\n")


def _trials(folder: Path, dice: random.Random) -> None:
    folder.mkdir()
    agents = [f"a{n}" for n in range(4)]
    (folder / "fleets.json").write_text(json.dumps({"four": agents, "too_many": [f"a{n}" for n in range(9)]}))
    rows, features = ["task_id,agent_id,trial,success"], ["task_id,words,kind"]
    for task in range(10):
        features.append(f"t{task},{task},{'odd' if task % 2 else 'even'}")
        for agent in range(4):
            for trial in range(1, 6):
                success = int(dice.random() < (0.9 if suits(task, agent) else 0.1))
                rows.append(f"t{task},a{agent},{trial},{success}")
    (folder / "outcomes.csv").write_text("\n".join(rows) + "\n")
    (folder / "task_features.csv").write_text("\n".join(features) + "\n")


def _single(folder: Path, dice: random.Random) -> None:
    folder.mkdir()
    agents = [f"a{n}" for n in range(4)]
    (folder / "fleets.json").write_text(json.dumps({"spread": agents}))
    rows, features = ["task_id," + ",".join(agents)], ["task_id,repo"]
    for task in range(40):
        rows.append(f"t{task}," + ",".join(str(int(dice.random() < 0.2 + 0.2 * agent)) for agent in range(4)))
        features.append(f"t{task},{'one' if task % 3 else 'other'}")
    (folder / "outcomes.csv").write_text("\n".join(rows) + "\n")
    (folder / "task_features.csv").write_text("\n".join(features) + "\n")


def _switch(folder: Path) -> None:
    folder.mkdir()
    rows = ["dataset,task_id,agent_family,version,success"]
    for family in ("f", "g"):
        for task in range(600):
            rows.append(f"d,q{task},{family},1,{int(task % 10 < 9)}")
            rows.append(f"d,q{task},{family},2,{int(task % 10 < 3)}")
    (folder / "outcomes.csv").write_text("\n".join(rows) + "\n")


def _streams(file: Path, dice: random.Random) -> None:
    told = []
    for n in range(4):
        change = 30 if n % 2 else None
        rates = [0.9 if change is None or wave < change else 0.2 for wave in range(60)]
        waves = [[int(dice.random() < rate) for _ in range(3)] for rate in rates]
        kind = "none" if change is None else "degrade"
        told.append(
            {
                "id": f"s{n}",
                "kind": kind,
                "rate_before": 0.9,
                "rate_after": 0.2,
                "change_wave": change,
                "end_wave": None,
                "waves": waves,
            }
        )
    file.write_text("".join(json.dumps(stream) + "\n" for stream in told))
