"""The story of workflows: sagas, graphs, schedules, times, messages, locks and counts under kill -9, and how all of it is judged.

What is submitted in which life of the daemon, and when that ends, follows from the seed. At the end the journal (`tale`), the files
and the marks that tasks left are held against each other and against what each scene knew beforehand.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from soaking.ground import Ground
from soaking.scenes import Scene, Stage
from soaking.tale import RunTale, ScheduleTale, Tale, TaskTale, last_due_us, moment_us

FINAL = {"COMPLETED", "FAILED", "CANCELLED", "SKIPPED"}
SCENES_A_LIFE = 4
OUTAGES = 0.1
OUTAGE_MOST_S = 5.0
LATE_US = 60_000_000
SLACK_US = 20_000
ONCE_TIMEOUT_S = 240.0
LATEST_US = 1_000_000
REBUILDERS = 2
CONFIG = """
[agents]
fleet = [{ids}, {{id = "talker", capabilities = ["talk"], concurrency = 400}}]
stuck_after = 120.0
[retry]
base_delay = 0.01
max_attempts = 3
[handlers]
python_modules = ["soaking.players"]
[learning]
enabled = false
[logging]
level = "WARNING"
[manager]
max_parallel_runs = 24
"""


@dataclass(frozen=True)
class Mark:
    """A line that a task left: what, which attempt, when (nanoseconds since 1970), by which daemon, and more."""

    what: str
    task_id: str
    attempt: int
    at_ns: int
    daemon: int
    more: tuple[str, ...] = ()


class Flows(Ground):
    """See the module."""

    def __init__(self, folder: Path, seed: int, *, schedules_s: float = 8.0) -> None:
        super().__init__(folder, seed)
        self.scenes: dict[str, Scene] = {}
        self.stage = Stage(self.dice, self.marks, patience_s=schedules_s)
        self.paused: list[tuple[int, str]] = []
        self.controls = Counter[str]()
        self.locks_seen = 0
        self.env["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]).rstrip(
            os.pathsep
        )
        ids = ", ".join(f'{{id = "a{n}", concurrency = 3}}' for n in range(6))
        (folder / "config.toml").write_text(CONFIG.format(ids=ids))

    def told(self) -> str:
        """How it stands, in a line."""
        return f"{len(self.scenes)} scenes, {len(self.violations)} violations"

    # -- what is submitted -----------------------------------------------------------------------------------------------

    def during(self, number: int, life_s: float) -> None:
        """Submit what belongs to this life of the daemon, each at its moment; what the life is too short for comes at its end."""
        began = time.monotonic()
        dice = random.Random(self.dice.getrandbits(64))
        for moment_s, line in sorted(self.lines(number, life_s, dice), key=lambda one: one[0]):
            time.sleep(max(0.0, began + moment_s - time.monotonic()))
            self.append(json.dumps(line).encode())

    def lines(self, number: int, life_s: float, dice: random.Random) -> list[tuple[float, dict]]:
        """The lines of a life, with their moments: new scenes, and controls of earlier ones."""
        earlier = [run_id for run_id, scene in self.scenes.items() if scene.sort in {"saga", "graph", "schedule"}]
        lines = [(dice.uniform(0, life_s), self.control("resume", run_id)) for due, run_id in self.paused if due <= number]
        self.paused = [(due, run_id) for due, run_id in self.paused if due > number]
        for _ in range(dice.randrange(2 * SCENES_A_LIFE)):
            scene = self.stage.scene()
            self.scenes[scene.run_id] = scene
            lines.append((dice.uniform(0, life_s), scene.line))
        if earlier and dice.random() < 0.15:
            lines.append((dice.uniform(0, life_s), self.control("cancel", dice.choice(earlier[-6:]))))
        if earlier and dice.random() < 0.15:
            run_id = dice.choice(earlier[-6:])
            self.paused.append((number + dice.randrange(1, 4), run_id))
            lines.append((dice.uniform(0, life_s), self.control("pause", run_id)))
        return lines

    def control(self, what: str, run_id: str) -> dict:
        """A person's decision."""
        self.controls[what] += 1
        return {"run_id": run_id, "submission_id": f"{what}-{self.controls[what]}", "control": what}

    def ended(self) -> None:
        """What is paused goes on."""
        for _, run_id in self.paused:
            self.append(json.dumps(self.control("resume", run_id)).encode())

    def killed(self) -> None:
        """Look at what the dead daemon left; now and then nobody starts another for a while, and times pass."""
        self.see_locks()
        if self.dice.random() < OUTAGES:
            time.sleep(self.dice.uniform(0.5, OUTAGE_MOST_S))

    def see_locks(self) -> None:
        """What the house itself makes of its journal: each lock is held by an attempt that is under way."""
        from phase21.store.database import Database  # noqa: PLC0415 - the only look with the house's own eyes

        path = self.state / "journal.db"
        if not path.exists():
            return
        ledger = Database(path, read_only=True).ledger()
        for run_id, run in ledger.runs.items():
            for name, lock in (run.record.post.locks if run.record.post is not None else {}).items():
                self.locks_seen += 1
                records = [wave.tasks[lock.task_id] for wave in run.waves.values() if lock.task_id in wave.tasks]
                if not any(record.status == "IN_PROGRESS" and record.attempts == lock.attempt for record in records):
                    self.broken(f"{run_id}: lock {name} is held by {lock.task_id}, whose attempt {lock.attempt} has ended")

    # -- what must hold at the end ---------------------------------------------------------------------------------------

    def judge(self) -> dict:
        """Let it finish, and count everything."""
        self.append(b"")
        self.once(ONCE_TIMEOUT_S)
        path = self.state / "journal.db"
        left_ns = 1000 * last_due_us(path) - time.time_ns()
        time.sleep(max(0.0, left_ns / 1e9 + 0.1))
        self.once(ONCE_TIMEOUT_S)
        self.see_locks()
        tale = Tale(self.broken)
        tale.read(path)
        self.judge_submissions(tale)
        marks = {run_id: self.marks_of(run_id) for run_id in self.scenes}
        for run_id, run in tale.runs.items():
            self.judge_run(run_id, run, self.marks_of(run_id) if run_id not in marks else marks[run_id])
        for run_id, scene in self.scenes.items():
            if run_id in tale.runs:
                self.judge_scene(scene, tale.runs[run_id], marks[run_id])
        for run_id, schedule in tale.schedules.items():
            self.judge_schedule(run_id, schedule, tale)
        self.judge_rows(tale)
        self.judge_files()
        return self.figures(tale)

    def marks_of(self, run_id: str) -> list[Mark]:
        """The marks of a run, in the order in which they were made."""
        path = self.marks / run_id
        found = []
        for line in path.read_text().splitlines() if path.exists() else ():
            what, task_id, attempt, at_ns, daemon, *more = line.split()
            found.append(Mark(what, task_id, int(attempt), int(at_ns), int(daemon), tuple(more)))
        return found

    def judge_submissions(self, tale: Tale) -> None:
        """Each line was accepted once, and none but a control was refused."""
        for run_id, scene in self.scenes.items():
            count = tale.submissions[scene.line["submission_id"]]
            if count != 1:
                self.broken(f"{run_id} was submitted once, and accepted {count} times")
        for row in self.rows(self.state / "rejected.jsonl"):
            if '"control"' not in row["raw"]:
                self.broken(f"a good line was refused: {row}")

    def judge_rows(self, tale: Tale) -> None:
        """The final row of each task says what the journal says."""
        rows = self.final_rows(FINAL)
        told = {(run_id, task_id): one.status for run_id, run in tale.runs.items() for task_id, one in run.tasks.items()}
        for key in sorted(rows.keys() | told.keys()):
            row = rows[key]["status"] if key in rows else None
            if row != told.get(key):
                self.broken(f"{key} is {told.get(key)} in the journal, and {row} in its row")

    def judge_run(self, run_id: str, run: RunTale, marks: list[Mark]) -> None:
        """What holds of every run: each task has ended, once; no message waits; no lock is held; marks agree."""
        for task_id, tale in run.tasks.items():
            if not tale.status:
                self.broken(f"{run_id} {task_id} was accepted and has no outcome")
            self.judge_task(f"{run_id} {task_id}", tale, [mark for mark in marks if mark.task_id == task_id])
        if not run.idle:
            self.broken(f"{run_id} never came to rest")
        for address, waiting in run.waiting.items():
            if waiting:
                self.broken(f"{run_id}: {sorted(waiting)} wait at {address} for ever, neither taken nor dead")
        if run.locks:
            self.broken(f"{run_id}: {run.locks} are held at the end")
        if run.workflow is not None:
            self.judge_workflow(run_id, run)

    def judge_task(self, where: str, tale: TaskTale, marks: list[Mark]) -> None:
        """What is told of a task agrees with the marks that it left."""
        starts = [mark for mark in marks if mark.what in {"start", "enter"}]
        if tale.task.get("idempotent") is False:
            self.judge_once(where, tale, starts)
        if tale.status == "COMPLETED" and tale.task.get("kind") == "command" and not starts:
            self.broken(f"{where} is COMPLETED, and never ran")
        certain = tale.task.get("compensate") or tale.task.get("idempotent") is False  # their starts are durable before they start
        if tale.status == "SKIPPED" and (tale.begun or (starts and certain)):
            self.broken(f"{where} is SKIPPED, and ran")
        if "promise:" in tale.error + json.dumps(tale.result):
            self.broken(f"{where}: {tale.error or tale.result}")
        deadline_us = moment_us(tale.task.get("deadline"), tale.accepted_us)
        if deadline_us is not None and tale.status == "COMPLETED" and tale.ended_us > deadline_us + LATEST_US:
            self.broken(f"{where} is COMPLETED long after its deadline")
        self.judge_moments(where, tale, marks)

    def judge_once(self, where: str, tale: TaskTale, starts: list[Mark]) -> None:
        """A task that is not idempotent began at most once in each attempt whose end was seen, and in one whose end was not."""
        attempts = [mark.attempt for mark in starts]
        if len(attempts) != len(set(attempts)) or len(attempts) > len(tale.begun):
            self.broken(
                f"{where} is not idempotent, and began {attempts} in {len(tale.begun)} attempts ({tale.status}, {tale.error})"
            )

    def judge_moments(self, where: str, tale: TaskTale, marks: list[Mark]) -> None:
        """No mark comes after the task's outcome, and none of an attempt after the next has begun."""
        latest = 0
        for mark in marks:
            late_us = mark.at_ns // 1000 - tale.ended_us
            if tale.ended_us and late_us > SLACK_US:
                self.broken(f"{where} is {tale.status}, and left {mark} {late_us} us later")
            if mark.attempt < latest:
                self.broken(f"{where}: attempt {mark.attempt} left {mark.what} after attempt {latest} had begun")
            latest = max(latest, mark.attempt)

    # -- workflows -------------------------------------------------------------------------------------------------------

    def judge_workflow(self, run_id: str, run: RunTale) -> None:
        """One end; undone once, in reverse order of completion, each undo after the one before; what is not undone is named."""
        state, reason = run.states[-1] if run.states else ("", "")
        if state not in {"completed", "failed", "cancelled"}:
            self.broken(f"{run_id}: its workflow is {state!r} at the end")
        undoable = [task_id for task_id in run.completed if run.tasks[task_id].task.get("compensate")]
        failed = state in {"failed", "cancelled"} and run.workflow is not None and run.workflow.get("on_failure") == "compensate"
        if len(run.compensations) > 1:
            self.broken(f"{run_id} was undone {len(run.compensations)} times")
        if failed and undoable and not run.compensations:
            self.broken(f"{run_id} {state}, and {undoable} were not undone")
        if not failed and run.compensations:
            self.broken(f"{run_id} {state}, and was undone")
        for undoing in run.compensations[:1]:
            self.judge_undoing(run_id, run, undoing, [f"{task_id}.undo" for task_id in reversed(undoable)], reason)

    def judge_undoing(self, run_id: str, run: RunTale, undoing: list[str], wanted: list[str], reason: str) -> None:
        """The way back is the way there, backwards."""
        if undoing != wanted:
            self.broken(f"{run_id} is undone by {undoing}, and {wanted} is the reverse order of completion")
        begun = [(run.tasks[task_id].begun[0][1], task_id) for task_id in undoing if run.tasks[task_id].begun]
        if [task_id for _, task_id in sorted(begun)] != [task_id for task_id in undoing if run.tasks[task_id].begun]:
            self.broken(f"{run_id}: undone in the order {sorted(begun)}, and not {undoing}")
        for earlier, later in pairwise(undoing):
            first = run.tasks[later].begun[:1]
            if first and first[0][1] < run.tasks[earlier].ended_us:
                self.broken(f"{run_id}: {later} began before {earlier} had ended")
        for task_id in undoing:
            stranded = run.tasks[task_id].status != "COMPLETED"
            if stranded != (task_id in reason):
                self.broken(f"{run_id}: {task_id} is {run.tasks[task_id].status}, and the workflow's reason is {reason!r}")

    # -- scenes ----------------------------------------------------------------------------------------------------------

    def judge_scene(self, scene: Scene, run: RunTale, marks: list[Mark]) -> None:
        """What a scene knew beforehand, and what its sort promises."""
        tainted = run.controlled or any(tale.error.startswith("interrupted") for tale in run.tasks.values())
        for task_id, status in scene.expected.items():
            found = run.tasks.get(task_id)
            if not tainted and (found is None or found.status != status):
                told = (found.status, found.error) if found is not None else None
                self.broken(f"{scene.run_id} {task_id} must be {status}, and is {told}")
        if scene.sort == "graph" and not tainted and run.tasks.keys() != scene.expected.keys():
            self.broken(f"{scene.run_id} has the tasks {sorted(run.tasks)}, and not {sorted(scene.expected)}")
        for task_id, result in scene.results.items():
            if not tainted and run.tasks[task_id].result != result:
                self.broken(f"{scene.run_id} {task_id} came to {run.tasks[task_id].result}, and not {result}")
        if scene.sort == "saga":
            self.judge_made(scene, run, marks)
        if scene.sort == "count":
            self.judge_count(scene, run, marks)
        if scene.sort == "turns":
            self.judge_turns(scene, marks)

    def judge_made(self, scene: Scene, run: RunTale, marks: list[Mark]) -> None:
        """The files that stand are those of steps that COMPLETED and were not undone; undos ran in the order of the journal."""
        for task_id, made in scene.made.items():
            undo = run.tasks.get(f"{task_id}.undo")
            stands = Path(made).exists()
            if run.tasks[task_id].status == "COMPLETED" and undo is None and not stands:
                self.broken(f"{scene.run_id} {task_id} COMPLETED, was not undone, and its file is gone")
            if undo is not None and undo.status == "COMPLETED" and stands:
                self.broken(f"{scene.run_id} {task_id} was undone, and its file stands")
            if run.tasks[task_id].status == "SKIPPED" and stands:
                self.broken(f"{scene.run_id} {task_id} was SKIPPED, and its file stands")
        seen = list(dict.fromkeys(mark.task_id for mark in marks if mark.what == "start" and mark.task_id.endswith(".undo")))
        wanted = [task_id for undoing in run.compensations[:1] for task_id in undoing if task_id in seen]
        if seen != wanted:
            self.broken(f"{scene.run_id}: by their marks undos ran in the order {seen}, and not {wanted}")

    def judge_count(self, scene: Scene, run: RunTale, marks: list[Mark]) -> None:
        """The count is the number of its versions; each increment that was told durable is one of them, its own."""
        versions = run.values.get("count", [])
        if [value for _, value in versions] != list(range(1, len(versions) + 1)):
            self.broken(f"{scene.run_id}: the count ran {versions}")
        told = [(mark.task_id, int(mark.more[0])) for mark in marks if mark.what == "added"]
        if len(told) != len(set(told)):
            self.broken(f"{scene.run_id}: an increment was told twice")
        results = [(task_id, one) for task_id, tale in run.tasks.items() if tale.status == "COMPLETED" for one in tale.result]
        for task_id, version in told + results:
            if version > len(versions) or versions[version - 1][0] != task_id:
                self.broken(
                    f"{scene.run_id}: {task_id} was told that version {version} is its own, and the journal does not know it"
                )

    def judge_turns(self, scene: Scene, marks: list[Mark]) -> None:
        """No two held the lock at a time, by their own marks; a later holder has a larger fence."""
        holder: Mark | None = None
        fences = 0
        for mark in marks:
            if mark.what == "enter":
                fence = int(mark.more[0])
                lease_us = None if scene.lease_s is None else scene.lease_s * 1e6
                ended = holder is None or holder.daemon != mark.daemon
                ended = ended or (
                    lease_us is not None and holder is not None and (mark.at_ns - holder.at_ns) / 1e3 > lease_us - SLACK_US
                )
                if not ended:
                    self.broken(f"{scene.run_id}: {mark} while {holder} held the lock")
                if fence <= fences:
                    self.broken(f"{scene.run_id}: {mark.task_id} has fence {fence}, and a holder before had {fences}")
                holder, fences = mark, fence
            elif mark.what == "leave":
                if scene.lease_s is None and (holder is None or (holder.task_id, holder.attempt) != (mark.task_id, mark.attempt)):
                    self.broken(f"{scene.run_id}: {mark} left, and {holder} held the lock")
                if holder is not None and holder.task_id == mark.task_id:
                    holder = None

    # -- schedules -------------------------------------------------------------------------------------------------------

    def judge_schedule(self, run_id: str, schedule: ScheduleTale, tale: Tale) -> None:
        """Every due time is decided once, as its rules say, and every firing is a run that was made once."""
        step_us = round(schedule.every["interval_s"] * 1e6)
        until_us = moment_us(schedule.every["until"], schedule.accepted_us) or 0
        due = range(schedule.accepted_us + step_us, until_us + 1, step_us)
        decided = Counter(due_us for due_us, _, _ in schedule.fired)
        for due_us, through_us, count, *_ in schedule.missed:
            lost = range(due_us, through_us + 1, step_us)
            if len(lost) != count:
                self.broken(f"{run_id}: {count} times are told missed from {due_us} to {through_us}, which are {len(lost)}")
            decided.update(lost)
        for due_us in sorted({*due, *decided}):
            if decided[due_us] != 1 and not (decided[due_us] == 0 and schedule.ended == "cancelled"):
                self.broken(f"{run_id}: due time {due_us} was decided {decided[due_us]} times")
            if due_us not in due:
                self.broken(f"{run_id}: {due_us} fired or was missed, and is no due time")
        if not schedule.ended:
            self.broken(f"{run_id} has not ended")
        made = [name for name, run in tale.runs.items() if run.source == "schedule" and name.rpartition("-")[0] == run_id]
        if len(made) != len(schedule.fired):
            self.broken(f"{run_id} fired {len(schedule.fired)} times and made {len(made)} runs")
        self.judge_rules(run_id, schedule, step_us, due[-1] if due else 0)

    def judge_rules(self, run_id: str, schedule: ScheduleTale, step_us: int, last_us: int) -> None:
        """What was missed may be, by the rules of missed and overlap; what fired may, too."""
        missed, overlap = schedule.every.get("missed", "once"), schedule.every.get("overlap", "skip")
        patience_us = min(LATE_US, step_us)
        for due_us, through_us, _, at_us, reason, busy in schedule.missed:
            where = f"{run_id} ({missed}, {overlap}): {reason} {due_us} to {through_us} at {at_us}"
            if reason == "overlap" and (overlap != "skip" or not busy):
                self.broken(f"{where}, and no run was in its way")
            if reason == "missed" and missed == "all":
                self.broken(f"{where}, though all are made up for")
            if reason == "missed" and at_us - through_us <= patience_us:
                self.broken(f"{where}, which was not late")
            if reason == "missed" and missed == "once" and through_us + step_us > at_us:
                self.broken(f"{where}, and the newest is to be made up for")
        for due_us, at_us, busy in schedule.fired:
            where = f"{run_id} ({missed}, {overlap}): {due_us} fired at {at_us}"
            if at_us < due_us:
                self.broken(f"{where}, before its time")
            if busy and overlap != "allow":
                self.broken(f"{where}, while its last run was under way")
            may_wait_us = LATE_US if due_us == last_us else patience_us  # no time follows the last
            if missed == "skip" and overlap == "allow" and at_us - due_us > may_wait_us + SLACK_US:
                self.broken(f"{where}, and was late")

    # -- files and figures -----------------------------------------------------------------------------------------------

    def judge_files(self) -> None:
        """Rebuilds take a process each: several at a time."""
        runs = sorted(path.name for path in self.outputs.iterdir())
        with ThreadPoolExecutor(REBUILDERS) as pool:
            list(pool.map(lambda run: self.judge_rebuilt(run, self.folder / "rebuilt"), runs))
        self.judge_whole()

    def figures(self, tale: Tale) -> dict[str, Any]:
        """What was done."""
        tasks = [one for run in tale.runs.values() for one in run.tasks.values()]
        undone = [run for run in tale.runs.values() if run.compensations]
        sorts = defaultdict[str, int](int)
        for scene in self.scenes.values():
            sorts[scene.sort] += 1
        return {
            "scenes": dict(sorts),
            "runs": len(tale.runs),
            "tasks": dict(Counter(one.status for one in tasks)),
            "interrupted_for_good": sum(one.error.startswith("interrupted") for one in tasks),
            "interruptions": tale.kinds["TaskInterrupted"],
            "workflows_undone": len(undone),
            "compensations": sum(len(run.compensations[0]) for run in undone),
            "stranded": sum("needs a person" in reason for run in undone for _, reason in run.states[-1:]),
            "fired": sum(len(one.fired) for one in tale.schedules.values()),
            "missed": sum(count for one in tale.schedules.values() for _, _, count, *_ in one.missed),
            "messages": sum(len(run.sent) for run in tale.runs.values()),
            "locks_taken": tale.kinds["LockTaken"],
            "locks_seen_held_at_a_kill": self.locks_seen,
            "increments": sum(len(run.values.get("count", ())) for run in tale.runs.values()),
            "controls": dict(self.controls),
            "entries": tale.position,
        }
