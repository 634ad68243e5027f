"""The verb `explain`, as a user calls it."""

from __future__ import annotations

import shlex

import pytest

from phase21.cli import explain as verb
from phase21.cli import screen
from phase21.domain.plans import Candidate, Choice
from phase21.domain.tasks import Task
from phase21.readers.inquiries.explanations import Answers, Explanation
from phase21.readers.inquiries.histories import Given, History
from phase21.store import codec

RISKY = {"task_id": "risky", "risk_level": "HIGH", "predicted_success_rate": 0.95, "features": {"size": 3}}
FAILS = {"task_id": "fails", "payload": {"success_rate": 0}, "max_attempts": 2, "predictions": {"agent_0": 0.6, "agent_1": 0.9}}


@pytest.fixture
def ran(shell, monkeypatch):
    """A shell in which a run has ended, with a task that failed and one that waits for a person."""
    monkeypatch.setenv("PHASE21_RETRY__REASSIGN", "after_timeout")
    rows = ({"task_id": "a"}, {**RISKY, "depends_on": ["a"]})
    lines = codec.lines([{"run_id": "r", "tasks": [{**row, "payload": {"success_rate": 1}} for row in rows] + [FAILS]}])
    assert shell("submit", "-", stdin=lines.decode()).exit_code == 0
    with shell.process("serve", "--once", stdout=-3, stderr=-3) as process:
        assert process.wait(60) == 1
    return shell


def said(shell, *args):
    result = shell("explain", *args)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def test_why_it_waits_and_what_to_type(ran):
    """What waits for a person names the gate and the command, and the command as it is shown frees it."""
    text = said(ran, "r", "risky")
    assert text.startswith("risky of run r, wave 1: DEFERRED\n")
    assert "risk HIGH, priority 2, came in predicted 95.0%, 1 feature\n" in text
    assert "depends on a COMPLETED" in text
    assert "the gate risk put it off: HIGH risk needs approval" in text
    (typed,) = [line.strip() for line in text.splitlines() if line.strip().startswith("phase21 approve")]
    program, *args = shlex.split(typed)
    assert (program, args) == ("phase21", ["approve", "r", "risky", "--state", str(ran.state)])
    assert ran("approve", "r", "risky").exit_code == 0
    assert "`phase21 approve` was given" in said(ran, "r", "risky")


def test_why_it_failed_and_why_it_was_tried_again(ran):
    """Each attempt is told with its end and what followed, in the order in which it happened."""
    text = said(ran, "r", "fails")
    assert "fails of run r, wave 1: FAILED" in text
    assert "by agent 60.0% to 90.0%" in text
    places = [
        text.index(words)
        for words in ("accepted into wave 1", "given to agent_", "attempt 1 by", "another follows", "attempt 2 by")
    ]
    assert places == sorted(places)
    assert "why not again" in text
    assert "2 of 2 attempts have failed (max_attempts of the task)" in text


def test_the_same_as_data(ran):
    """`--json` is one object with the answers, the waits, and each assignment, ruling and attempt."""
    found = codec.decode(said(ran, "r", "risky", "--json"))
    assert (found["run_id"], found["task_id"], found["status"], found["daemon_running"]) == ("r", "risky", "DEFERRED", False)
    assert [wait["cause"] for wait in found["waits"]] == ["approval", "daemon"]
    assert found["task"]["depends_on"] == [{"task_id": "a", "status": "COMPLETED"}]
    assert [(ruled["ruling"], ruled["gate"]) for ruled in found["gates"]] == [("DEFERRED", "risk")]
    failed = codec.decode(said(ran, "r", "fails", "--json"))
    assert [(one["outcome"], one["again"]) for one in failed["attempts"]] == [("FAILED", True), ("FAILED", False)]
    assert failed["attempts"][0]["started_at"] < failed["attempts"][0]["ended_at"]


def test_what_is_not_known(ran):
    """An unknown run or task is one line and status 3."""
    for args in (("r", "z"), ("z", "a")):
        result = ran("explain", *args)
        assert result.exit_code == 3
        assert (result.stdout, result.stderr.count("\n")) == ("", 1)


def test_what_waits_to_be_read(shell):
    """A task that was only submitted waits for a daemon, and nothing is made by asking."""
    assert shell("explain", "r", "a").exit_code == 3
    assert not shell.state.exists()
    shell("submit", "-", stdin='{"run_id": "r", "tasks": [{"task_id": "a"}]}')
    text = said(shell, "r", "a")
    assert text.startswith("a of run r: SUBMITTED\n")
    assert f"phase21 serve --state {shell.state}" in text


def test_the_default_state_folder_is_not_typed(shell, monkeypatch):
    """A command for the default state folder needs no option."""
    monkeypatch.chdir(shell.folder)
    assert verb._typed(("approve", "r", "a b"), shell.folder / "phase21_state") == "phase21 approve r 'a b'"


def test_beside_a_daemon(shell):
    """While a daemon runs, a paused run's task names the command that goes on with it."""
    with shell.daemon():
        shell("submit", "-", stdin='{"run_id": "r", "tasks": [{"task_id": "a", "payload": {"duration_s": 60}}]}')
        shell.until("attempt_started", task_id="a")
        shell("submit", "-", stdin='{"run_id": "r", "tasks": [{"task_id": "b"}]}')
        shell.until("submission_accepted", wave=2)
        assert "it is under way" in said(shell, "r", "a")
        assert "wave 1 is under way (open: a IN_PROGRESS)" in said(shell, "r", "b")
        shell("pause", "r")
        shell.until("control_received", control="pause")
        assert f"phase21 resume r --state {shell.state}" in said(shell, "r", "b")
        shell("cancel", "r")
        shell.until("task_cancelled", task_id="a")


def test_the_candidates_are_a_table(capsys):
    """Who was weighed stands in a table under the assignment, the chosen one marked."""
    choice = Choice((), (Candidate("slow", 0.9, 0.95, 20.0, 3), Candidate("fast", 0.8, 0.75, 2.5, 0)), "worth", 0.5)
    given = Given(at_us=1, wave=1, agent_id="fast", before="gone", strategy="x", predicted=0.75, raw=0.8, choice=choice)
    task = Task(task_id="a")
    history = History(run_id="r", task=task, submission_id="s", accepted_us=0, waves=[1], happenings=[given])
    found = Explanation(
        run_id="r", task=task, status="PENDING", wave=1, as_of_us=2, running=True, answers=Answers(agent=None, waits=None, retries=None, end=None),
        waits=(), needs=(), attempts_allowed=3, history=history, attempts=(),
    )  # fmt: skip
    screen.show(verb._happened(found))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["AGENT", "PREDICTED", "CAME", "IN", "EXPECTED", "HOLDS"] in lines
    assert ["slow", "95.0%", "90.0%", "20.000", "s", "3"] in lines
    assert [">", "fast", "75.0%", "80.0%", "2.500", "s", "0"] in lines
    assert any("(until then with gone)" in " ".join(line) for line in lines)
