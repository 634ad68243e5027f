"""The verb `show`, as a user calls it, and its drawing."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest
from rich.text import Text

from phase21.cli.drawing import drawing, window
from phase21.domain.tasks import Task
from phase21.domain.workflows import Workflow, WorkflowRecord
from phase21.readers.inquiries.flows import Chart, drawn
from phase21.readers.nodes import Edge, Node
from phase21.store import codec

WORKS = {"success_rate": 1.0}
FLOW = {
    "run_id": "demo",
    "workflow": {
        "name": "release",
        "on_failure": "compensate",
        "tasks": [
            {"task_id": "fetch", "payload": WORKS, "compensate": {"payload": WORKS}},
            {"task_id": "lint", "depends_on": ["fetch"], "for_each": [1, 2, 3, 4, 5, 6], "payload": WORKS},
            {"task_id": "mend", "depends_on": [{"task": "fetch", "when": "failed"}], "payload": WORKS},
            {"task_id": "deploy", "depends_on": ["lint"], "max_attempts": 1, "payload": {"success_rate": 0.0}},
            {"task_id": "party", "depends_on": ["deploy"], "payload": WORKS},
        ],
    },
}


@pytest.fixture
def file(shell):
    """A workflow that is not submitted yet."""
    return shell.file("flow.json", FLOW)


@pytest.fixture
def ran(shell, file):
    """A shell in which it has failed, and was undone."""
    assert shell("submit", file).exit_code == 0
    with shell.process("serve", "--once", stdout=-3, stderr=-3) as process:
        assert process.wait(60) == 1
    return shell


def said(shell, *args):
    result = shell("show", *args)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def marked(text):
    """Marks and names, without margins and details; the head left out."""
    lines = text.partition("\n\n")[2].splitlines()
    return [" ".join(line.lstrip("├└│─ ").split()[:2]) for line in lines if line]


def test_a_file_that_is_not_submitted_yet(shell, file):
    """`show FILE` draws what a workflow file comes to, with elements of a list as one, and makes no state folder."""
    text = said(shell, file)
    assert text.splitlines()[0] == "release run demo: submitted"
    assert marked(text) == ["○ fetch", "○ lint.*", "○ lint", "○ deploy", "○ party", "○ mend"]
    assert "lint.* ×6  6 waiting" in text
    assert "where fetch failed" in text
    assert not shell.state.exists()


def test_what_waits_in_the_queue_file(shell, file):
    """A run that no daemon has read yet is drawn from the queue file."""
    assert shell("submit", file).exit_code == 0
    assert said(shell, "demo").splitlines()[0] == "release run demo: submitted"


def test_a_run_that_has_ended(ran):
    """Each task shows how it ended, why it was skipped or failed, and what was undone."""
    text = said(ran, "demo")
    lines = text.splitlines()
    assert lines[0].startswith("release run demo: failed, ")
    assert lines[1].endswith("100.0 %  9 done, 2 skipped, 1 failed")
    assert lines[2] == "why: deploy did not succeed; what was done is undone"
    assert marked(text) == ["✔ fetch", "✔ lint.*", "✔ lint", "✘ deploy", "- party", "- mend", "undone, the", "✔ fetch.undo"]
    assert "skipped: fetch is COMPLETED, and this runs only where it FAILED" in text
    assert "failed: simulated failure" in text
    assert "undoes fetch" in text


def test_every_task_by_itself(ran):
    """`--all` folds nothing."""
    assert sum("✔ lint." in line for line in said(ran, "demo", "--all").splitlines()) == 6


def test_as_data_and_as_a_diagram(ran):
    """`--json` is one object with every task; `--mermaid` the text that the report holds."""
    found = codec.decode(said(ran, "demo", "--json"))
    assert (found["workflow"]["state"], found["progress"], len(found["tasks"])) == ("failed", 100.0, 12)
    diagram = said(ran, "demo", "--mermaid")
    report = (ran.outputs / "demo" / "PHASE_21_AUTONOMOUS_EXECUTION.md").read_text()
    assert f"```mermaid\n{diagram}```" in report


def test_in_a_pipe_following_prints_the_end(ran):
    """`-f` of what has ended prints it once."""
    assert said(ran, "-f", "demo") == said(ran, "demo")


def test_following_on_a_terminal(ran):
    """On a terminal the drawing has colours; what has ended is drawn once, whole."""
    parent, child = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "phase21", *ran.arguments("show", "-f", "demo")],
        stdout=child,
        env={**os.environ, "TERM": "xterm-256color"},
    ) as process:
        os.close(child)
        text = b""
        while True:
            try:
                text += os.read(parent, 65536)
            except OSError:  # its end is closed
                break
        assert process.wait(30) == 0
    os.close(parent)
    assert b"\x1b[" in text
    assert b"fetch.undo" in text


def test_what_is_followed_before_a_daemon_reads_it(shell, file):
    """`-f` of what waits in the queue file waits for a daemon, and then for the end."""
    assert shell("submit", file).exit_code == 0
    with shell.process("show", "-f", "demo", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as following:
        assert b"no daemon has read run demo yet" in following.stderr.readline()
        with shell.process("serve", "--once", stdout=-3, stderr=-3) as process:
            assert process.wait(60) == 1
        text, _ = following.communicate(timeout=30)
    assert text.decode().startswith("release run demo: failed")


def test_what_cannot_be_shown(shell, file):
    """An unknown run is status 3, a file without tasks too; a file cannot be followed."""
    assert shell("show", "nobody").exit_code == 3
    empty = shell.file("control.json", {"run_id": "demo", "control": "pause"})
    refused = shell("show", empty)
    assert (refused.exit_code, "nothing to draw" in refused.stderr) == (3, True)
    assert shell("show", "-f", file).exit_code == 2
    broken = shell.file(
        "broken.json", {"run_id": "demo", "workflow": {"name": "w", "tasks": [{"task_id": "a", "depends_on": ["b"]}]}}
    )
    assert "workflow.tasks[0].depends_on" in shell("show", broken).stderr


# -- the drawing ---------------------------------------------------------------------------------------------------------


NOW_US = 100_000_000


def chart(*nodes, **fields):
    return Chart(run_id="r", state=fields.pop("state", "running"), progress=fields.pop("progress", 0.0), nodes=nodes, **fields)


def node(name, status="PENDING", *needs, **fields):
    return Node(name=name, label=name, statuses={status: 1}, needs=tuple(Edge(one) for one in needs), **fields)


def row(one, **options):
    """What stands behind the name of a single node."""
    return drawing(chart(one), NOW_US, **options)[-1].plain.partition(one.name)[2].strip()


@pytest.mark.parametrize(
    ("one", "told"),
    [
        (node("a", "COMPLETED", agent_id="agent_0", attempts=3, duration_s=1.25), "agent_0  1.25 s  3 attempts"),
        (node("a", "COMPLETED", kind="join", agent_id="agent_0", attempts=1, duration_s=0.0), "join"),
        (
            node("a", "IN_PROGRESS", agent_id="agent_0", attempts=2, percent=40.0, note="half", started_us=NOW_US - 75_000_000),
            "agent_0  40 %  half  since 1 min 15 s  attempt 2",
        ),
        (node("a", "RETRYING", attempts=1, due_us=NOW_US + 1_000_000), "attempt 1 failed  not before 1970-01-01 00:01:41 UTC"),
        (node("a", "PENDING", attempts=1), "interrupted"),
        (node("a", condition="x > 1"), "if x > 1"),
        (node("a", "FAILED", agent_id="agent_0", attempts=1, duration_s=12.0, reason="no\nway"), "agent_0  12.0 s  failed: no way"),
        (node("a", "CANCELLED", reason="cancelled"), "cancelled"),
        (node("a", "DEFERRED", reason="HIGH risk"), "to be approved: HIGH risk"),
        (node("a", "COMPLETED", kept="first"), "done in run first"),
        (node("a", later="for each of b.result"), "for each of b.result"),
        (node("a", "SKIPPED", reason="not wanted", condition="x"), "skipped: not wanted"),
    ],
)
def test_what_is_said_of_a_task(one, told):
    """A line says of a task what there is to say of it where it stands."""
    assert row(one) == told


def test_what_is_said_of_many():
    """A folded line counts statuses, says how far all of them are, and the first reason of what failed."""
    some = Node(name="l.*", label="l", statuses={"COMPLETED": 37, "FAILED": 2, "PENDING": 1}, percent=97.5, reason="broken")
    assert row(some) == "×40  37 done, 2 failed, 1 waiting  98 %  broken"
    whole = Node(name="l.*", label="l", statuses={"COMPLETED": 5}, percent=100.0, started_us=0, ended_us=7_300_000_000)
    assert row(whole) == "×5  5 done  2 h 01 min"


def test_the_head_says_what_a_person_must_know():
    """Why a workflow ended, what it was forked from, and what needs a person, stand at the top."""
    flow = WorkflowRecord(
        workflow=Workflow(name="w", forked_from="first"), reason="a did not succeed", stranded=[f"t{n}.undo" for n in range(6)]
    )
    lines = [line.plain for line in drawing(chart(node("a"), flow=flow, started_us=0, ended_us=5_000_000), NOW_US)]
    assert lines[0] == "w run r: running, 5.00 s since 1970-01-01 00:00:00 UTC"
    assert lines[2:5] == [
        "why: a did not succeed",
        "forked from run first, whose earlier results are kept",
        "needs a person: t0.undo, t1.undo, t2.undo, t3.undo and 2 more could not be done",
    ]


def test_ascii_where_the_terminal_speaks_nothing_else():
    """`plain` keeps marks, lines and the bar to ASCII, as long as names are."""
    nodes = (node("a", "COMPLETED"), node("b", "IN_PROGRESS", "a"), node("c", "SKIPPED", "a", reason="x" * 500))
    assert all(line.plain.isascii() for line in drawing(chart(*nodes, progress=50.0), NOW_US, plain=True))


def test_a_window_holds_what_is_at_work():
    """What does not fit on the screen is cut above and below what is not done yet, and the head stays."""
    nodes = tuple(node(f"t{n}", "COMPLETED" if n < 100 else "PENDING", *([f"t{n - 1}"] if n else [])) for n in range(300))
    lines = drawing(chart(*nodes), NOW_US, everything=True)
    shown = [line.plain for line in window(lines, 20)]
    assert len(shown) == 20
    assert shown[0].startswith("run r")
    assert any("t100" in line for line in shown)
    assert shown[-1] == "  … 190 lines below"
    assert window(lines[:10], 20) == lines[:10]
    at_work = [*nodes[:250], node("t250", "IN_PROGRESS", "t249"), *nodes[251:]]
    assert any("t250" in line.plain for line in window(drawing(chart(*at_work), NOW_US, everything=True), 20))
    assert isinstance(window(lines, 1)[0], Text)


def test_plain_tasks_are_drawn_too():
    """Tasks of a wave without a workflow are drawn by what they depend on."""
    text = [line.plain for line in drawing(drawn("r", (Task(task_id="a"), Task(task_id="b", depends_on=("a",))), None), NOW_US)]
    assert text == ["run r: submitted", f"{'░' * 24} 0.0 %  2 waiting", "", "○ a", "○ b"]
