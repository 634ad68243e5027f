"""What the journal tells, retold by other means than the house's: each entry is held against what came before it.

It reads the store's rows and folds them with no code of the house. What may not follow is told to `broken`; what is known at the end
(tasks, workflows, schedules, values) is judged by the story against the files and marks.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ENDS = {"TaskCompleted": "COMPLETED", "TaskFailed": "FAILED", "TaskCancelled": "CANCELLED", "TaskSkipped": "SKIPPED"}
FINAL_STATES = {"completed", "failed", "cancelled"}


@dataclass
class TaskTale:
    """What is told of one task. `begun` are starts, each with its time; `ended_us` when it ended."""

    task: dict[str, Any]
    accepted_us: int
    status: str = ""
    error: str = ""
    result: Any = None
    ended_us: int = 0
    ended_at: int = 0
    under_way: int = 0
    begun: list[tuple[int, int]] = field(default_factory=list)


@dataclass
class RunTale:
    """What is told of one run: tasks, messages that wait, who holds which message and lock, and every version of its values."""

    tasks: dict[str, TaskTale] = field(default_factory=dict)
    source: str = ""
    workflow: dict[str, Any] | None = None
    states: list[tuple[str, str]] = field(default_factory=list)
    reached: list[str] = field(default_factory=list)
    compensations: list[list[str]] = field(default_factory=list)
    completed: list[str] = field(default_factory=list)
    completed_before_undo: list[str] = field(default_factory=list)
    idle: bool = False
    controlled: bool = False
    sent: set[str] = field(default_factory=set)
    waiting: dict[str, dict[str, Any]] = field(default_factory=dict)
    hands: dict[str, tuple[str, str, Any]] = field(default_factory=dict)
    done: Counter[tuple[str, str]] = field(default_factory=Counter)
    followers: dict[str, set[str]] = field(default_factory=dict)
    locks: dict[str, tuple[str, int, int, int | None]] = field(default_factory=dict)
    fences: int = 0
    values: dict[str, list[tuple[str, Any]]] = field(default_factory=dict)

    @property
    def live(self) -> set[str]:
        """The tasks that have begun and not ended."""
        return {task_id for task_id, tale in self.tasks.items() if tale.begun and not tale.status}


@dataclass
class ScheduleTale:
    """What is told of a schedule: the due times that fired and those that were missed, each with when that was decided."""

    every: dict[str, Any]
    accepted_us: int
    fired: list[tuple[int, int, bool]] = field(default_factory=list)
    missed: list[tuple[int, int, int, int, str, bool]] = field(default_factory=list)
    last_run: str | None = None
    ended: str = ""


class Tale:
    """See the module."""

    def __init__(self, broken: Callable[[str], None]) -> None:
        self.broken = broken
        self.runs: dict[str, RunTale] = {}
        self.schedules: dict[str, ScheduleTale] = {}
        self.submissions: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.ended_us: dict[str, int] = {}
        self.position = 0
        self.at_us = 0
        self.before: dict[str, Any] = {}

    def read(self, path: Path) -> None:
        """Fold every entry of a store."""
        for position, at_us, event in entries(path):
            if position != self.position + 1 or at_us < self.at_us:
                self.broken(f"entry {position} of {at_us} follows {self.position} of {self.at_us}")
            self.position, self.at_us = position, at_us
            self.kinds[event["type"]] += 1
            handler = getattr(self, f"on_{event['type']}", None)
            if handler is not None:
                handler(event)
            elif "task_id" in event and event["type"] in ENDS:
                self.end(event)
            self.before = event

    # -- runs and tasks --------------------------------------------------------------------------------------------------

    def on_ServiceStarted(self, event: dict) -> None:  # noqa: N802 - the event's name
        """Whoever lived before lives no more: attempts, and what they held, are over."""
        del event
        for run in self.runs.values():
            for task_id in run.live:
                self.let_go(run, task_id)

    def on_SubmissionAccepted(self, event: dict) -> None:  # noqa: N802
        """A run begins."""
        self.submissions[event["submission_id"]] += 1
        run = self.runs.setdefault(event["run_id"], RunTale())
        run.source = event.get("source", "tasks")
        run.workflow = event.get("workflow")
        for tasks in event["waves"].values():
            self.accept(event["run_id"], run, tasks)

    def on_WorkflowExtended(self, event: dict) -> None:  # noqa: N802
        """A workflow goes on."""
        run = self.runs[event["run_id"]]
        if event["why"] == "compensation":
            run.compensations.append([task["task_id"] for task in event["tasks"]])
            run.completed_before_undo = list(run.completed)
        self.accept(event["run_id"], run, event["tasks"])

    def accept(self, run_id: str, run: RunTale, tasks: list[dict]) -> None:
        """Tasks are work now; none was before."""
        run.idle = False
        for task in tasks:
            if task["task_id"] in run.tasks:
                self.broken(f"{run_id} {task['task_id']} was accepted twice")
            run.tasks[task["task_id"]] = TaskTale(task, self.at_us)

    def on_WorkflowChanged(self, event: dict) -> None:  # noqa: N802
        """A workflow's state; it ends once."""
        run = self.runs[event["run_id"]]
        if any(state in FINAL_STATES for state, _ in run.states):
            self.broken(f"{event['run_id']}: its workflow ended, and then was {event['state']}")
        run.states.append((event["state"], event.get("reason", "")))

    def on_ControlReceived(self, event: dict) -> None:  # noqa: N802
        """A person decided."""
        if event["run_id"] in self.runs and event["control"] == "cancel":
            self.runs[event["run_id"]].controlled = True

    def on_RunIdled(self, event: dict) -> None:  # noqa: N802
        """Nothing is left to do of a run."""
        run = self.runs[event["run_id"]]
        run.idle = True
        self.ended_us[event["run_id"]] = self.at_us
        for task_id in [task_id for task_id, tale in run.tasks.items() if not tale.status]:
            self.broken(f"{event['run_id']} is idle and {task_id} has not ended")

    def on_AttemptStarted(self, event: dict) -> None:  # noqa: N802
        """An attempt of a task that has not ended, is not under way, and may be made now."""
        run_id, task_id = event["run_id"], event["task_id"]
        tale = self.runs[run_id].tasks[task_id]
        where = f"{run_id} {task_id}"
        if tale.status:
            self.broken(f"{where} is {tale.status} and was started again")
        if tale.under_way:
            self.broken(f"{where} was started while attempt {tale.under_way} was under way")
        if event["attempt"] != len(tale.begun) + 1:
            self.broken(f"{where}: attempt {event['attempt']} is number {len(tale.begun) + 1}")
        due_us, deadline_us = (moment_us(tale.task.get(name), tale.accepted_us) for name in ("not_before", "deadline"))
        if due_us is not None and self.at_us < due_us:
            self.broken(f"{where} was started {due_us - self.at_us} us before its time")
        if deadline_us is not None and self.at_us > deadline_us:
            self.broken(f"{where} was started {self.at_us - deadline_us} us after its deadline")
        self.started_in_order(run_id, tale)
        tale.under_way = event["attempt"]
        tale.begun.append((event["attempt"], self.at_us))

    def started_in_order(self, run_id: str, tale: TaskTale) -> None:
        """What a task waits for has ended."""
        tasks = self.runs[run_id].tasks
        for needed in tale.task.get("depends_on", ()):
            needed_id = needed if isinstance(needed, str) else needed["task"]
            if not tasks[needed_id].status:
                self.broken(f"{run_id} {tale.task['task_id']} was started before {needed_id} ended")

    def on_AttemptFailed(self, event: dict) -> None:  # noqa: N802
        """An attempt is over, and another follows."""
        self.over(event)

    def on_TaskInterrupted(self, event: dict) -> None:  # noqa: N802
        """An attempt was cut short, and another follows."""
        tale = self.runs[event["run_id"]].tasks[event["task_id"]]
        if tale.task.get("idempotent") is False:
            self.broken(f"{event['run_id']} {event['task_id']} is not idempotent, and is to be run again after an interruption")
        self.over(event)

    def over(self, event: dict) -> None:
        """The attempt under way is over."""
        run = self.runs[event["run_id"]]
        tale = run.tasks[event["task_id"]]
        if tale.under_way != event["attempt"]:
            self.broken(
                f"{event['run_id']} {event['task_id']}: attempt {event['attempt']} ended, and {tale.under_way} was under way"
            )
        tale.under_way = 0
        self.let_go(run, event["task_id"])

    def let_go(self, run: RunTale, task_id: str) -> None:
        """What an attempt held is free, and what it had in its hand waits again."""
        for name in [name for name, lock in run.locks.items() if lock[0] == task_id]:
            del run.locks[name]
        held = run.hands.pop(task_id, None)
        if held is not None:
            run.waiting.setdefault(held[0], {})[held[1]] = held[2]

    def end(self, event: dict) -> None:
        """A task's one outcome."""
        run = self.runs[event["run_id"]]
        tale = run.tasks[event["task_id"]]
        status = ENDS[event["type"]]
        if tale.status:
            self.broken(f"{event['run_id']} {event['task_id']} is {tale.status} and then {status}")
        if status == "COMPLETED":
            run.completed.append(event["task_id"])
            if not tale.under_way:
                self.broken(f"{event['run_id']} {event['task_id']} is COMPLETED, and no attempt was under way")
        held = run.hands.pop(event["task_id"], None)
        if held is not None and status == "COMPLETED":
            run.done[held[0], held[1]] += 1
        self.let_go(run, event["task_id"])
        for who in run.followers.values():
            who.discard(event["task_id"])
        tale.status, tale.ended_us, tale.ended_at, tale.under_way = status, self.at_us, self.position, 0
        tale.error, tale.result = event.get("error_msg") or event.get("reason") or "", event.get("result")

    # -- messages, values, locks -----------------------------------------------------------------------------------------

    def on_TopicsFollowed(self, event: dict) -> None:  # noqa: N802
        """A task follows topics, or no longer."""
        run = self.runs[event["run_id"]]
        for topic in event.get("topics", ()):
            run.followers.setdefault(topic, set()).add(event["task_id"])
        for topic in event.get("left", ()):
            run.followers.get(topic, set()).discard(event["task_id"])

    def on_MessagesPassed(self, event: dict) -> None:  # noqa: N802
        """What is sent comes to wait; what is taken waited, and is taken by an attempt under way."""
        run_id, run = event["run_id"], self.runs[event["run_id"]]
        for message in event.get("sent", ()):
            self.deliver(run_id, run, message)
        for task_id, address, message_id in event.get("taken", ()):
            where = f"{run_id}: {message_id} at {address}"
            if run.done[address, message_id]:
                self.broken(f"{where} was dealt with, and {task_id} took it again")
            content = run.waiting.get(address, {}).pop(message_id, None)
            if content is None:
                self.broken(f"{where} was taken by {task_id}, and did not wait there")
            if not run.tasks[task_id].under_way:
                self.broken(f"{where} was taken by {task_id}, of which no attempt is under way")
            held = run.hands.get(task_id)
            if held is not None:
                run.done[held[0], held[1]] += 1
            run.hands[task_id] = (address, message_id, content or {})

    def deliver(self, run_id: str, run: RunTale, message: list) -> None:
        """Put a message where it is to wait."""
        message_id, _, _, sender, to, topic, body = message[:7]
        if message_id in run.sent:
            self.broken(f"{run_id}: {message_id} was sent twice")
        if not run.tasks[sender].under_way:
            self.broken(f"{run_id}: {message_id} was sent by {sender}, of which no attempt is under way")
        run.sent.add(message_id)
        several = run.followers.get(topic, set()) if to is None else run.live
        for address in several - {sender} if to in {None, "*"} else {to}:
            run.waiting.setdefault(address, {})[message_id] = {"sender": sender, "body": body}

    def on_MessagesDead(self, event: dict) -> None:  # noqa: N802
        """What nobody will take waited until now; its recipient has ended, or it came too late."""
        run = self.runs[event["run_id"]]
        for message_id, address, reason in event["letters"]:
            if run.waiting.get(address, {}).pop(message_id, None) is None:
                self.broken(f"{event['run_id']}: {message_id} at {address} is dead, and did not wait there")
            ended = address in run.tasks and run.tasks[address].status
            if "gone" in reason and not ended:
                self.broken(f"{event['run_id']}: {message_id} at {address} is dead ({reason}), and that has not ended")

    def on_SharedChanged(self, event: dict) -> None:  # noqa: N802
        """Versions follow each other without a gap; whoever sets a value is at work."""
        run = self.runs[event["run_id"]]
        versions = run.values.setdefault(event["name"], [])
        if event["version"] != len(versions) + 1:
            self.broken(f"{event['run_id']}: version {event['version']} of {event['name']} follows {len(versions)}")
        if not run.tasks[event["by"]].under_way:
            self.broken(f"{event['run_id']}: {event['name']} was set by {event['by']}, of which no attempt is under way")
        versions.append((event["by"], event["body"]))

    def on_LockTaken(self, event: dict) -> None:  # noqa: N802
        """A lock is taken by an attempt under way, while nobody holds it, with a larger fence."""
        run_id, run = event["run_id"], self.runs[event["run_id"]]
        held = run.locks.get(event["name"])
        where = f"{run_id}: lock {event['name']} was taken by {event['task_id']}"
        if held is not None and (held[3] is None or self.at_us < held[3]):
            self.broken(f"{where}, and {held[0]} (attempt {held[1]}) held it")
        if run.tasks[event["task_id"]].under_way != event["attempt"]:
            self.broken(f"{where}, of which attempt {event['attempt']} is not under way")
        if event["fence"] <= run.fences:
            self.broken(f"{where} with fence {event['fence']}, and one had {run.fences} before")
        run.fences = event["fence"]
        run.locks[event["name"]] = (event["task_id"], event["attempt"], event["fence"], event.get("until_us"))

    def on_LockReleased(self, event: dict) -> None:  # noqa: N802
        """Only what is held is given back."""
        held = self.runs[event["run_id"]].locks.get(event["name"])
        if held is None or (held[0], held[2]) != (event["task_id"], event["fence"]):
            self.broken(f"{event['run_id']}: lock {event['name']} was given back by {event['task_id']}, and {held} held it")
        else:
            del self.runs[event["run_id"]].locks[event["name"]]

    # -- schedules -------------------------------------------------------------------------------------------------------

    def on_ScheduleAccepted(self, event: dict) -> None:  # noqa: N802
        """A schedule stands."""
        self.submissions[event["submission_id"]] += 1
        self.schedules[event["run_id"]] = ScheduleTale(event["every"], self.at_us)

    def on_ScheduleFired(self, event: dict) -> None:  # noqa: N802
        """A due time is a run: the entry before accepted it, or one long before that a kill kept from being noted."""
        schedule = self.schedules[event["run_id"]]
        if event["fired"] not in self.runs:
            self.broken(f"{event['run_id']}: {event['fired']} fired, and no such run was accepted")
        elif (self.before.get("type"), self.before.get("run_id")) != ("SubmissionAccepted", event["fired"]):
            self.broken(f"{event['run_id']}: the acceptance of {event['fired']} is not the entry before its firing")
        schedule.fired.append((event["due_us"], self.at_us, self.busy(schedule)))
        schedule.last_run = event["fired"]

    def on_ScheduleMissed(self, event: dict) -> None:  # noqa: N802
        """Due times will not be runs."""
        schedule = self.schedules[event["run_id"]]
        reason, count = event.get("reason", "missed"), event.get("count", 1)
        schedule.missed.append((event["due_us"], event["through_us"], count, self.at_us, reason, self.busy(schedule)))

    def on_ScheduleEnded(self, event: dict) -> None:  # noqa: N802
        """It is over."""
        self.schedules[event["run_id"]].ended = event["reason"]

    def busy(self, schedule: ScheduleTale) -> bool:
        """Whether the run that a schedule made last is under way."""
        return schedule.last_run is not None and not self.runs[schedule.last_run].idle


def entries(path: Path) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Every entry of a store, in order: its place, its time, and the event."""
    with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as store:
        for (body,) in store.execute("SELECT body FROM batches ORDER BY last"):
            yield from json.loads(body)


def moment_us(moment: float | None, accepted_us: int) -> int | None:
    """A moment that is given in seconds, in microseconds since 1970."""
    return None if moment is None else accepted_us + round(moment * 1e6)


def last_due_us(path: Path) -> int:
    """When the last of all schedules is over, in microseconds since 1970."""
    ends = [
        moment_us(event["every"]["until"], at_us) or 0 for _, at_us, event in entries(path) if event["type"] == "ScheduleAccepted"
    ]
    return max(ends, default=0)
