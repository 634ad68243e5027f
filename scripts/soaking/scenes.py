"""The scenes of the story of workflows: what is submitted, drawn from the seed, and what is known beforehand of how it must end.

Every scene is a run (or schedule) of its own. Where `expected` names a task, its status is certain, unless an interruption that may
not be repeated, or a person, came in between.
"""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HOLDER = Path(__file__).with_name("holder.py")
PREAMBLE = (
    'marks=$1; made=$2; pause=$3; status=$4; [ ! -d "$marks" ] || marks=$marks/$PHASE21_RUN_ID\n'
    'm() { printf "%s %s %s %s %s\\n" "$1" "$PHASE21_TASK_ID" "$PHASE21_ATTEMPT" "$(date +%s%N)" $PPID >> "$marks"; }\n'
)
DOES = PREAMBLE + 'm start; sleep "$pause"; [ -z "$made" ] || : > "$made"; m end; exit "$status"'
UNDOES = PREAMBLE + 'm start; sleep "$pause"; rm -f "$made"; m end'
UNDOES_AT_LAST = PREAMBLE + 'm start; if mkdir "$made.once" 2>/dev/null; then exit 7; fi; rm -f "$made"; m end'
UNDOES_NEVER = PREAMBLE + "m start; exit 8"
MISSED = ("skip", "once", "all")
OVERLAP = ("skip", "wait", "allow")
TALKERS: dict[str, Any] = {"capabilities": ["talk"], "timeout_s": 60.0, "max_attempts": 4}


@dataclass
class Scene:
    """One submission. `made` is the file that each task makes, `ends_s` when a schedule ends."""

    sort: str
    run_id: str
    line: dict[str, Any]
    expected: dict[str, str] = field(default_factory=dict)
    made: dict[str, str] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    ends_s: float = 0.0
    lease_s: float | None = None
    durable: bool = False


class Stage:
    """Draws scenes."""

    def __init__(self, dice: random.Random, marks: Path, *, patience_s: float) -> None:
        self.dice = dice
        self.marks = marks
        self.patience_s = patience_s
        self.numbers = itertools.count(1)
        self.rules = itertools.cycle(itertools.product(MISSED, OVERLAP))

    def scene(self) -> Scene:
        """The next one."""
        drawn: list[tuple[Callable[[str, str], Scene], int]] = [
            (self.saga, 6), (self.graph, 3), (self.schedule, 2), (self.times, 2), (self.once_only, 2),
            (self.count, 2), (self.turns, 3), (self.talk, 2), (self.inquiry, 2), (self.assembly, 2),
        ]  # fmt: skip
        make = self.dice.choices([one for one, _ in drawn], [weight for _, weight in drawn])[0]
        run_id = f"{make.__name__.replace('_', '-')}-{next(self.numbers)}"
        return make(run_id, str(self.marks / run_id))

    # -- commands ------------------------------------------------------------------------------------------------------

    def command(self, task_id: str, marks: str, *, script: str = DOES, made: str = "", status: int = 0, **fields: Any) -> dict:
        """A command that marks its start and its end, and makes a file in between."""
        pause = self.dice.choice(["0", "0", "0.05", "0.2", "0.5"])
        argv = ["/bin/sh", "-c", script, "sh", marks, made, pause, str(status)]
        return {"task_id": task_id, "kind": "command", "payload": {"argv": argv}, **fields}

    def saga(self, run_id: str, marks: str) -> Scene:
        """Steps that make files; most sagas fail at some step, and some steps are hard to undo."""
        dice = self.dice
        scene = Scene("saga", run_id, {})
        count = dice.randrange(2, 7)
        failing = dice.choice([None, *range(1, count), *range(1, count)])
        sequential = dice.random() < 0.6
        tasks = []
        for number in range(count):
            task_id, made = f"s{number}", f"{marks}.s{number}.made"
            fails = number == failing
            task = self.command(task_id, marks, made="" if fails else made, status=3 if fails else 0)
            if fails:
                task["max_attempts"] = dice.choice([1, 2])
                if not sequential:
                    task["depends_on"] = [f"s{dice.randrange(number)}"]
            elif dice.random() < 0.9:
                task["compensate"] = self.undo(marks, made)
                scene.made[task_id] = made
            if not fails and dice.random() < 0.15:
                task["idempotent"] = False
            tasks.append(task)
        if sequential:
            ids = [task["task_id"] for task in tasks]
            settled = ids if failing is None else ids[:failing]
            scene.expected = dict.fromkeys(settled, "COMPLETED")
            if failing is not None:
                scene.expected |= {f"s{failing}": "FAILED", **dict.fromkeys(ids[failing + 1 :], "SKIPPED")}
        mode = "sequential" if sequential else "graph"
        scene.line = self.workflow(run_id, tasks, mode=mode, on_failure="compensate")
        return scene

    def undo(self, marks: str, made: str) -> dict:
        """How a step is undone: at once, at the second try, or never."""
        script = self.dice.choices([UNDOES, UNDOES_AT_LAST, UNDOES_NEVER], [12, 5, 1])[0]
        task = self.command("x", marks, script=script, made=made)
        return {"kind": "command", "payload": task["payload"], "max_attempts": 3}

    @staticmethod
    def workflow(run_id: str, tasks: list[dict], **fields: Any) -> dict:
        """A submission of a workflow."""
        return {
            "run_id": run_id,
            "submission_id": f"sub-{run_id}",
            "workflow": {"name": run_id.split("-", maxsplit=1)[0], "tasks": tasks, **fields},
        }

    def graph(self, run_id: str, marks: str) -> Scene:
        """Fan-out over a list and over a result, a condition that holds and one that does not, a failure that is answered, a spawn."""
        most, more = self.dice.randrange(1, 6), self.dice.randrange(1, 4)
        seed = python("seed", "numbers", most=most)
        literal = self.command("lit", marks, for_each=["a", "b", "c"])
        each = self.command("each", marks, depends_on=["seed"], for_each={"$from": "seed", "path": "result.items"})
        yes = self.command("yes", marks, depends_on=["seed"], condition="tasks.seed.result.n > 2")
        no = self.command("no", marks, depends_on=["seed"], condition="tasks.seed.result.n <= 2")
        breaks = self.command("breaks", marks, status=5, max_attempts=2)
        rescue = self.command("rescue", marks, depends_on=[{"task": "breaks", "when": "failed"}])
        spawned = [self.command(f"more{number}", marks) for number in range(more)]
        spawner = python("spawner", "spawns", tasks=spawned)
        child = {"task_id": "child", "workflow": {"mode": "sequential", "tasks": [self.command(name, marks) for name in "xy"]}}
        last = self.command("last", marks, depends_on=["each", "lit", {"task": "yes", "when": "settled"}])
        last["payload"]["env"] = {"HOW_MANY": {"$from": "seed", "path": "result.items[0]"}}
        done = ["seed", "lit", "each", "rescue", "spawner", "child", "child.x", "child.y", "last", *(f"lit.{n}" for n in range(3))]
        done += [f"each.{n}" for n in range(most)] + [f"more{n}" for n in range(more)]
        expected = dict.fromkeys(done, "COMPLETED") | {"breaks": "FAILED"}
        expected |= {"yes": "COMPLETED" if most > 2 else "SKIPPED", "no": "SKIPPED" if most > 2 else "COMPLETED"}
        tasks = [seed, literal, each, yes, no, breaks, rescue, spawner, child, last]
        self.dice.shuffle(tasks)
        return Scene("graph", run_id, self.workflow(run_id, tasks), expected=expected)

    def once_only(self, run_id: str, marks: str) -> Scene:
        """A plain wave: tasks that may be run again, and tasks that may not."""
        tasks = [self.command(f"t{n}", marks, **({"idempotent": False} if n % 2 else {})) for n in range(self.dice.randrange(2, 8))]
        return wave("once", run_id, tasks, expected={task["task_id"]: "COMPLETED" for task in tasks})

    # -- time ----------------------------------------------------------------------------------------------------------

    def schedule(self, run_id: str, marks: str) -> Scene:
        """An interval of a second or two, with the next pair of the rules of missed and overlap."""
        missed, overlap = next(self.rules)
        lasts_s = self.dice.uniform(2.0, self.patience_s)
        every = {"interval_s": self.dice.choice([1.0, 1.0, 1.5, 2.0]), "missed": missed, "overlap": overlap, "until": lasts_s}
        del marks  # each run of it has marks of its own
        task = self.command("t", str(self.marks))
        task["payload"]["argv"][6] = self.dice.choice(["0", "0.1", "1.2"])
        line = {"run_id": run_id, "submission_id": f"sub-{run_id}", "every": every, "tasks": [task]}
        return Scene("schedule", run_id, line, ends_s=lasts_s)

    def times(self, run_id: str, marks: str) -> Scene:
        """Tasks that wait for their time, and tasks that may or cannot make their deadline."""
        later = self.command("later", marks, not_before=round(self.dice.uniform(0.2, 2.5), 2))
        patient = self.command("patient", marks, deadline=600.0)
        maybe = self.command("maybe", marks, deadline=round(self.dice.uniform(0.3, 3.0), 2))
        never = self.command("never", marks, deadline=round(self.dice.uniform(0.3, 3.0), 2))
        never["payload"]["argv"][6] = "30"
        expected = {"later": "COMPLETED", "patient": "COMPLETED", "never": "FAILED"}
        return wave("times", run_id, [later, patient, maybe, never], expected=expected)

    # -- talk ----------------------------------------------------------------------------------------------------------

    def count(self, run_id: str, marks: str) -> Scene:
        """Tasks that add to one count."""
        durable, who = self.dice.random() < 0.5, [f"adder{n}" for n in range(self.dice.randrange(2, 6))]
        most = self.dice.randrange(5, 30)
        tasks = [python(one, "adds", marks=marks, most=most, durable=durable, **TALKERS) for one in who]
        return wave("count", run_id, tasks, expected=dict.fromkeys(who, "COMPLETED"), durable=durable)

    def turns(self, run_id: str, marks: str) -> Scene:
        """Tasks in the loop, in a thread, and in a process of their own that share one lock; or leases that some outlive."""
        most = self.dice.randrange(8, 40)
        if self.dice.random() < 0.25:
            tasks = [python(f"lease{n}", "turns", marks=marks, most=most, lease_s=0.009, **TALKERS) for n in range(3)]
            return wave("turns", run_id, tasks, expected={task["task_id"]: "COMPLETED" for task in tasks}, lease_s=0.009)
        tasks = [python(f"turn{n}", "turns", marks=marks, most=most, fails=n == 0, **TALKERS) for n in range(3)]
        tasks += [python("plain", "plain_turns", marks=marks, most=most, **TALKERS)]
        argv = [sys.executable, "-I", "-S", str(HOLDER), marks, str(most)]
        tasks += [{"task_id": f"holder{n}", "kind": "command", "payload": {"argv": argv}, **TALKERS} for n in range(2)]
        return wave("turns", run_id, tasks, expected={task["task_id"]: "COMPLETED" for task in tasks})

    def talk(self, run_id: str, marks: str) -> Scene:
        """One counts, one collects."""
        del marks
        most = self.dice.randrange(5, 60)
        tasks = [python("from", "counts", to="to", most=most, **TALKERS), python("to", "collects", most=most, **TALKERS)]
        expected = {"from": "COMPLETED", "to": "COMPLETED"}
        return wave("talk", run_id, tasks, expected=expected, results={"to": list(range(1, most + 1))})

    def inquiry(self, run_id: str, marks: str) -> Scene:
        """One asks, one answers."""
        del marks
        most = self.dice.randrange(3, 30)
        tasks = [python("asks", "asks", to="answers", most=most, **TALKERS), python("answers", "answers", **TALKERS)]
        results = {"asks": [number * number for number in range(1, most + 1)], "answers": "done"}
        return wave("inquiry", run_id, tasks, expected={"asks": "COMPLETED", "answers": "COMPLETED"}, results=results)

    def assembly(self, run_id: str, marks: str) -> Scene:
        """One speaks to all, or to those that follow a topic."""
        del marks
        most, listeners = self.dice.randrange(3, 30), [f"ear{n}" for n in range(self.dice.randrange(1, 5))]
        topic = self.dice.choice([None, "news"])
        tasks = [python("mouth", "speaks", listeners=len(listeners), most=most, topic=topic, **TALKERS)]
        tasks += [python(ear, "listens", to="mouth", most=most, topic=topic, **TALKERS) for ear in listeners]
        results = {"mouth": len(listeners)} | {ear: list(range(1, most + 1)) for ear in listeners}
        return wave("assembly", run_id, tasks, expected=dict.fromkeys(["mouth", *listeners], "COMPLETED"), results=results)


def python(
    task_id: str, name: str, *, capabilities: Any = (), timeout_s: float = 30.0, max_attempts: int = 3, **kwargs: Any
) -> dict:
    """A task that calls a player."""
    fields = {
        "timeout_s": timeout_s,
        "max_attempts": max_attempts,
        **({"capabilities": capabilities} if capabilities else {}),
    }
    return {"task_id": task_id, "kind": "python", "payload": {"callable": f"soaking.players:{name}", "kwargs": kwargs}, **fields}


def wave(sort: str, run_id: str, tasks: list[dict], **known: Any) -> Scene:
    """A scene that is a plain wave."""
    return Scene(sort, run_id, {"run_id": run_id, "submission_id": f"sub-{run_id}", "tasks": tasks}, **known)
