"""Wrote `journal_v1.jsonl` and `ledger_v1.json`, once. Run it again only for a new version's golden journal, never for this one.

`python tests/store/golden/make_journal.py FOLDER` tells a story in virtual time and adds one of each kind of entry that it lacks.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

import looptime
import msgspec

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "flow"))
sys.path.insert(0, str(HERE.parents[0]))

from cutting import journal_of, tell  # noqa: E402
from golden_fold import folded, summary  # noqa: E402

from phase21.domain import events as ev  # noqa: E402
from phase21.domain.tasks import Task  # noqa: E402
from phase21.store import codec  # noqa: E402

PLACE = {"run_id": "c", "wave": 1}
MARK = ev.QueueMark(1, 2, 300, 4, "print", (ev.QueueMark(1, 3, 30, 1, "other"),))
TAIL: tuple[ev.AnyEvent, ...] = (
    ev.ServiceStarted(pid=2, version="1", boot_id="boot", fleet=("agent_0", "agent_1")),
    ev.AgentJoined(agent_id="agent_0", capabilities=("gpu",), concurrency=2),
    ev.AgentJoined(agent_id="agent_1"),
    ev.QueueAdvanced(mark=MARK),
    ev.SubmissionAccepted(
        submission_id="sc",
        run_id="c",
        metadata={"by": "hand"},
        mark=MARK,
        settled={"old": "COMPLETED"},
        waves={1: (Task(task_id="c1", depends_on=("old",)), Task(task_id="c2", risk_level="HIGH", metadata={"k": [1, None]}))},
    ),
    ev.SubmissionRepeated(submission_id="sc", run_id="c", mark=MARK),
    ev.SubmissionRejected(error="no task_id", line=5, offset=310, path="tasks[0].task_id", raw="{}", mark=MARK),
    ev.QueueRefused(error="others may write it"),
    ev.ConfigurationReloaded(path="settings.toml", pending=("agents",)),
    ev.ConfigurationRefused(error="unknown key"),
    ev.WaveOpened(**PLACE),
    ev.AttemptStarted(task_id="c1", agent_id="agent_0", attempt=1, confidence=0.85, **PLACE),
    ev.AgentRestarted(agent_id="agent_1", error="OSError: once"),
    ev.TaskInterrupted(task_id="c1", agent_id="agent_0", attempt=1, **PLACE),
    ev.TaskHeld(task_id="c1", agent_id="agent_0", attempt=2, gate="resources", reason="disk", confidence=0.85, **PLACE),
    ev.AgentWentOffline(agent_id="agent_1", cause="stuck", run_id="c", wave=1, task_id="c1"),
    ev.AgentReturned(agent_id="agent_1"),
    ev.ControlReceived(submission_id="cc", run_id="c", control="pause", mark=MARK),
    ev.ServiceStopping(reason="SIGTERM", drain_timeout_s=30.0),
)


def scrubbed(entry: ev.Entry) -> ev.Entry:
    """The entry without what tells one machine from another."""
    if isinstance(entry.event, ev.ServiceStarted):
        return msgspec.structs.replace(entry, event=msgspec.structs.replace(entry.event, pid=1, boot_id=""))
    if isinstance(entry.event, ev.OutputsTrusted):
        return msgspec.structs.replace(entry, event=ev.OutputsTrusted(boot_id=""))
    return entry


def main(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as told, asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
        runner.run(tell(Path(told)))
        entries = [scrubbed(entry) for entry in journal_of(Path(told))]
    last = entries[-1]
    entries += [ev.Entry(last.position + n, last.at_us + n * 1000, event) for n, event in enumerate(TAIL, 1)]
    (folder / "journal_v1.jsonl").write_bytes(codec.lines(entries))
    (folder / "ledger_v1.json").write_bytes(codec.pretty(summary(folded(entries))))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
