"""Wrote `journal_v2.jsonl` and `ledger_v2.json`, once: the kinds of entry that came with workflows, schedules and messages.

`python tests/store/golden/make_second.py FOLDER`. Run it again only for a later version's golden journal, never for this one.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import msgspec

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[0]))

from golden_fold import folded, summary  # noqa: E402

from phase21.domain import events as ev  # noqa: E402
from phase21.domain.messages import DeadLetter, Message, MessageType, Taken  # noqa: E402
from phase21.domain.schedules import Recurrence  # noqa: E402
from phase21.domain.tasks import Compensation, Dependency, Task, When  # noqa: E402
from phase21.domain.workflows import Judged, OnFailure, Upstream, Workflow  # noqa: E402
from phase21.store import codec  # noqa: E402

BEGIN_US = 1_800_000_000_000_000
PLACE = {"run_id": "w", "wave": 1}
MAKE = Task(
    task_id="make", step="flow/make", compensate=Compensation(kind="command", payload={"argv": ["rm", "it"]}), priority=0,
    not_before=1.5, deadline=datetime(2027, 6, 1, tzinfo=UTC), limit_key="disk",
)  # fmt: skip
ASK = Task(task_id="ask", depends_on=("make", Dependency(task="old", when=When.SETTLED)), condition="tasks.make.result > 1")
MEND = Task(task_id="mend", depends_on=(Dependency(task="ask", when=When.FAILED),))
LATE = Task(task_id="late", depends_on=("make",), depth=1)
FLOW = Workflow(
    name="flow", on_failure=OnFailure.COMPENSATE, max_parallel=2, evaluate=Judged(judge={"kind": "command"}, runs=3),
    later=({"task_id": "each", "for_each": {"$from": "make"}},),
)  # fmt: skip
LETTER = Message("m1", MessageType.REQUEST, 1, "make", "ask", None, msgspec.Raw(b'{"well":1}'), deadline_us=BEGIN_US + 10**9)
EVENTS: tuple[ev.AnyEvent, ...] = (
    ev.ServiceStarted(pid=1, version="2", fleet=("agent_0",)),
    ev.AgentJoined(agent_id="agent_0"),
    ev.SubmissionAccepted(
        submission_id="s",
        run_id="w",
        waves={1: (MAKE, ASK, MEND)},
        workflow=FLOW,
        source="workflow",
        settled={"old": "COMPLETED"},
        upstream={"old": Upstream("COMPLETED", {"kept": 1}), "lost": Upstream("FAILED", None, "why")},
    ),
    ev.WaveOpened(**PLACE),
    ev.WorkflowChanged(run_id="w", state="running", previous="pending"),
    ev.AttemptStarted(task_id="make", agent_id="agent_0", attempt=1, confidence=0.85, **PLACE),
    ev.TaskProgressed(task_id="make", agent_id="agent_0", attempt=1, percent=40.0, note="halfway", **PLACE),
    ev.TaskNoted(task_id="make", agent_id="agent_0", attempt=1, text="said", **PLACE),
    ev.LockTaken(run_id="w", name="door", task_id="make", attempt=1, fence=1),
    ev.SharedChanged(run_id="w", name="count", version=1, body=msgspec.Raw(b"1"), by="make"),
    ev.TopicsFollowed(run_id="w", task_id="make", topics=("news",)),
    ev.MessagesPassed(run_id="w", sent=(LETTER,)),
    ev.MessagesPassed(run_id="w", taken=(Taken("ask", "ask", "m1"),)),
    ev.MessagesDead(run_id="w", letters=(DeadLetter("m2", "ask", "nobody is there"),)),
    ev.LockReleased(run_id="w", name="door", task_id="make", fence=1),
    ev.TaskCompleted(task_id="make", agent_id="agent_0", attempt=1, duration_s=0.5, result=2, spawned=(LATE,), **PLACE),
    ev.TaskSkipped(task_id="ask", reason="the condition is false", **PLACE),
    ev.TaskSkipped(task_id="mend", reason="ask is SKIPPED", **PLACE),
    ev.WorkflowExtended(run_id="w", wave=2, tasks=(LATE,), why="spawn", settled={"make": "COMPLETED"}, later=FLOW.later),
    ev.ControlReceived(submission_id="c", run_id="w", control="cancel", task_ids=("late",), whole=True),
    ev.ScheduleAccepted(
        submission_id="n",
        run_id="nightly",
        every=Recurrence(cron="0 3 * * *", timezone="Europe/Berlin"),
        tasks=(Task(task_id="t"),),
    ),
    ev.ScheduleFired(run_id="nightly", due_us=BEGIN_US, fired="nightly-20270115T080000Z"),
    ev.ScheduleMissed(run_id="nightly", due_us=BEGIN_US + 1, through_us=BEGIN_US + 2, count=2, reason="overlap"),
    ev.ScheduleEnded(run_id="nightly", reason="cancelled"),
)


def main(folder: Path) -> None:
    entries = [ev.Entry(n, BEGIN_US + n * 1000, event) for n, event in enumerate(EVENTS, 1)]
    (folder / "journal_v2.jsonl").write_bytes(codec.lines(entries))
    (folder / "ledger_v2.json").write_bytes(codec.pretty(summary(folded(entries))))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
