"""Explanations: why an agent, why a wait and what frees it, why again or not, why an end. Each from a journal, by hand or by a story."""

from __future__ import annotations

import contextlib
import inspect
import re
import sys
from pathlib import Path
from types import MappingProxyType

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "flow"))

from players import Scripted, after, put_on
from stage import accept, configured, control, doomed, finished, house_in, place_in, sure, task

from phase21.domain import events as ev
from phase21.domain.errors import UnknownRun
from phase21.domain.folds.known import IDLE_RUNS_KEPT
from phase21.domain.judgements import Calibration, Grade, Health, Metrics
from phase21.domain.plans import REASONS, Assignment, Candidate, Choice
from phase21.domain.runs import CLOSING_WAVES_MOST
from phase21.domain.settings import Settings
from phase21.domain.tasks import Task
from phase21.readers.inquiries import waits
from phase21.readers.inquiries.explanations import NOT_RECORDED, explained, told
from phase21.readers.inquiries.histories import choice_of
from phase21.readers.inquiries.spectator import Spectator
from phase21.store import codec, files
from phase21.store.journal import Journal

METRICS = Metrics(
    success_rate=1.0, availability=1.0, confidence=0.9, prediction_error=0.1, accuracy=0.9, brier_score=0.0, load_balance=1.0,
    completed_tasks=1, failed_tasks=0, started_tasks=1,
)  # fmt: skip
HEALTH = Health(score=98.0, status=Grade.EXCELLENT, metrics=METRICS, agents=())
CANDIDATES = (Candidate("agent_1", 0.9, 0.95, 2.0, 4), Candidate("agent_0", 0.8, 0.7, 1.5, 1))


def asked(folder, task_id, run_id="r", *, settings=None, now_us=0):
    """The answer as data, as a reader of the JSON gets it."""
    state = folder / "state"
    with Spectator(state) as spectator:
        spectator.refresh()
        found = explained(spectator, settings or Settings(), state / "queue.jsonl", run_id, task_id, now_us)
    return codec.decode(codec.encode(told(found)))


def causes(found):
    return [wait["cause"] for wait in found["waits"]]


@contextlib.contextmanager
def daemon(folder):
    """A state folder that is held, as by a daemon."""
    with place_in(folder).held():
        yield


# -- why this agent ----------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def assigned(folder, *choices, ids=("a", "b"), task_fields=MappingProxyType({})):
    """A journal in which tasks were given to one agent, for the reasons given."""
    state = folder / "state"
    files.make_private(state)
    async with Journal.opened(state / "journal.db") as journal:
        journal.append(ev.ServiceStarted(pid=1, version="1"))
        for name in ("agent_0", "agent_1"):
            journal.append(ev.AgentJoined(agent_id=name))
        tasks = tuple(Task(task_id=task_id, **task_fields) for task_id in ids)
        journal.append(ev.SubmissionAccepted(submission_id="s", run_id="r", waves={1: tasks}))
        journal.append(ev.WaveOpened(run_id="r", wave=1))
        given = tuple(Assignment(task_id, "agent_0", 0.7, 0.8) for task_id in ids)
        journal.append(ev.TasksAssigned(run_id="r", wave=1, strategy="thompson", assignments=given, choices=choices))
        yield journal
        await journal.durable()


async def test_the_log_of_decisions_is_told(tmp_path):
    """An assignment has its strategy, its reason in words, its propensity, and the candidates with the chosen one marked."""
    async with assigned(tmp_path, Choice(("a",), CANDIDATES, "explored", 0.05, 0.66)):
        pass
    (given,) = asked(tmp_path, "a")["assignments"]
    assert {name: given[name] for name in ("strategy", "agent_id", "reason", "because", "propensity", "score")} == {
        "strategy": "thompson", "agent_id": "agent_0", "reason": "explored", "because": REASONS["explored"], "propensity": 0.05,
        "score": 0.66,
    }  # fmt: skip
    assert given["candidates"] == [
        {"agent_id": "agent_1", "raw": 0.9, "predicted": 0.95, "expected_s": 2.0, "load": 4, "chosen": False},
        {"agent_id": "agent_0", "raw": 0.8, "predicted": 0.7, "expected_s": 1.5, "load": 1, "chosen": True},
    ]
    answer = asked(tmp_path, "a")["answers"]["agent"]
    assert f"agent_0 by thompson, because {REASONS['explored']}; predicted to succeed with 70.0%, 80.0% as it came in" in answer
    assert "drawn with probability 5.0%" in answer
    assert "agent_1 was predicted best, with 95.0%, and held 4 tasks" in answer


async def test_a_choice_without_tasks_tells_of_all_others(tmp_path):
    """What no choice names is told by the one that names none."""
    async with assigned(tmp_path, Choice((), (), "turn"), Choice(("a",), (), "best")):
        pass
    assert [asked(tmp_path, name)["assignments"][0]["reason"] for name in "ab"] == ["best", "turn"]
    assert choice_of((Choice(("a",), (), "best"),), "b") is None


async def test_a_word_that_is_not_known_is_shown_as_it_is(tmp_path):
    """A reason of a later version stands in the answer by its own word."""
    async with assigned(tmp_path, Choice((), (), "by_the_moon")):
        pass
    assert "because by_the_moon;" in asked(tmp_path, "a")["answers"]["agent"]


@pytest.mark.parametrize(("fields", "why"), [({}, NOT_RECORDED), ({"agent_id": "agent_0"}, REASONS["pinned"])])
async def test_an_old_journal_tells_what_it_knows(tmp_path, fields, why):
    """Without choices there are strategy, agent and prediction, and no made-up reason: only a pin speaks for itself."""
    async with assigned(tmp_path, task_fields=fields):
        pass
    (given,) = asked(tmp_path, "a")["assignments"]
    assert (given["reason"], given["because"], given["candidates"], given["propensity"]) == (None, why, [], None)
    assert "agent_0 by thompson" in asked(tmp_path, "a")["answers"]["agent"]


async def test_a_run_that_memory_has_put_away_is_answered_from_the_store(tmp_path):
    """A closed wave's task is explained as well as an open one's."""
    async with assigned(tmp_path, Choice((), CANDIDATES, "load"), ids=("b",)) as journal:
        for number in range(IDLE_RUNS_KEPT + 2):
            run_id = "r" if number == 0 else f"r{number}"
            if number:
                tasks = (Task(task_id="b"),)
                journal.append(ev.SubmissionAccepted(submission_id=run_id, run_id=run_id, waves={1: tasks}))
                journal.append(ev.WaveOpened(run_id=run_id, wave=1))
            place = {"run_id": run_id, "wave": 1, "task_id": "b", "agent_id": "agent_0", "attempt": 1}
            journal.append(ev.AttemptStarted(**place, confidence=0.7))
            journal.append(ev.TaskCompleted(**place, duration_s=0.25))
            journal.append(ev.WaveSettled(run_id=run_id, wave=1))
            journal.append(ev.HealthScored(run_id=run_id, wave=1, health=HEALTH))
            journal.append(ev.PredictionsCalibrated(run_id=run_id, wave=1, agents={"agent_0": Calibration(1, 1, 0.9)}))
            journal.append(ev.OutputsWritten(run_id=run_id, wave=1, digest=msgspec.Raw(b"{}")))
        assert "r" not in journal.ledger.runs
    found = asked(tmp_path, "b")
    assert (found["status"], found["waits"], found["wave"]) == ("COMPLETED", [], 1)
    assert found["answers"]["end"] == "attempt 1 by agent_0 succeeded after 0.250 s"
    assert found["assignments"][0]["because"] == REASONS["load"]


# -- what it waits for -------------------------------------------------------------------------------------------------


@pytest.mark.looptime
async def test_what_needs_approval_says_how_to_give_it(tmp_path):
    """A task put off by the risk gate names the gate, its reason and the command; once approved it has run in another wave."""
    async with house_in(tmp_path) as house:
        accept(house, "r", [sure("a", risk_level="HIGH", predicted_success_rate=0.95)])
        await finished(house)
        with daemon(tmp_path):
            found = asked(tmp_path, "a")
        (wait,) = found["waits"]
        assert (found["status"], wait["cause"], wait["gate"], wait["command"]) == (
            "DEFERRED",
            "approval",
            "risk",
            ["approve", "r", "a"],
        )
        assert "HIGH risk needs approval" in wait["text"]
        control(house, "r", "approve", "a")
        await finished(house)
        found = asked(tmp_path, "a")
        assert (found["status"], found["waits"], found["task"]["waves"]) == ("COMPLETED", [], [1, 2])
        assert [note["event"] for note in found["notes"]] == ["approve", "carried"]
        assert [given["wave"] for given in found["assignments"]] == [1, 2]


@pytest.mark.looptime
async def test_what_depends_on_something_put_off_names_all_that_needs_approval(tmp_path):
    """The command approves the whole chain of deferred tasks, the deepest first; what waits for one that is cancelled ends with it."""
    async with house_in(tmp_path) as house:
        risky = sure("a", risk_level="HIGH", predicted_success_rate=0.95)
        accept(house, "r", [risky, sure("b", depends_on=["a"]), sure("c", depends_on=["b"])])
        await finished(house)
        (wait, _) = asked(tmp_path, "c")["waits"]
        assert (wait["cause"], wait["command"]) == ("approval", ["approve", "r", "a", "b", "c"])
        assert wait["needs"] == [{"task_id": "b", "status": "DEFERRED"}]
        control(house, "r", "cancel", "b")
        await finished(house)
        assert (asked(tmp_path, "c")["status"], asked(tmp_path, "a")["status"]) == ("FAILED", "DEFERRED")


@pytest.mark.looptime
async def test_what_a_paused_run_waits_for(tmp_path):
    """A paused run is named with the command that resumes it, before anything else."""
    async with house_in(tmp_path, configured(agents={"count": 1})) as house:
        put_on(house, Scripted(a="20"))
        accept(house, "r", [task("a", kind="scripted"), task("b", kind="scripted")], [sure("c")])
        await after(house, 1)
        control(house, "r", "pause")
        await after(house, 100)
        with daemon(tmp_path):
            assert asked(tmp_path, "a")["status"] == "COMPLETED"
            wait = asked(tmp_path, "b")["waits"][0]
            assert (wait["cause"], wait["command"]) == ("pause", ["resume", "r"])
            assert causes(asked(tmp_path, "c")) == ["pause", "wave"]


@pytest.mark.looptime
async def test_what_waits_in_a_wave_that_is_under_way(tmp_path):
    """Behind a busy agent, behind a dependency, and behind the wave itself: each says who, and where to ask on."""
    async with house_in(tmp_path, configured(agents={"count": 1})) as house:
        put_on(house, Scripted(a="20"))
        accept(house, "r", [task("a", kind="scripted"), sure("b"), sure("c", depends_on=["a"])], [sure("d")])
        await after(house, 1)
        with daemon(tmp_path):
            assert (asked(tmp_path, "a")["status"], asked(tmp_path, "a")["waits"]) == ("IN_PROGRESS", [])
            (busy,) = asked(tmp_path, "b")["waits"]
            assert busy["cause"] == "busy"
            assert "agent_0 is at work on a (one task at a time)" in busy["text"]
            (needs,) = asked(tmp_path, "c")["waits"]
            assert (needs["cause"], needs["command"]) == ("dependency", ["explain", "r", "a"])
            assert needs["needs"] == [{"task_id": "a", "status": "IN_PROGRESS"}]
            (wave,) = asked(tmp_path, "d")["waits"]
            assert (wave["cause"], wave["command"]) == ("wave", ["explain", "r", "a"])
            assert "wave 1 is under way (open: a IN_PROGRESS" in wave["text"]


@pytest.mark.looptime
async def test_what_waits_for_its_next_attempt_says_when(tmp_path):
    """A retry that is due later names the moment, and how many attempts there may be."""
    settings = configured(retry={"base_delay": 60, "max_delay": 60, "reassign": "never"})
    async with house_in(tmp_path, settings) as house:
        accept(house, "r", [doomed("a")])
        await after(house, 1)
        with daemon(tmp_path):
            found = asked(tmp_path, "a", settings=settings, now_us=house.journal.clock.now_us())
        (wait,) = found["waits"]
        assert (found["status"], wait["cause"], wait["until_at"][:19]) == ("RETRYING", "retry", "2023-11-14T22:14:20")
        assert "due in 59 s" in wait["text"]
        assert found["attempts_allowed"] == 3
        assert found["attempts"][0]["follows"].startswith(
            "another follows after 60 s, by agent_0 again: 1 of 3 attempts has failed"
        )


@pytest.mark.looptime
async def test_what_the_rate_holds_back(tmp_path):
    """A gate that passes by itself is named with what it is about."""
    async with house_in(tmp_path, configured(safety={"rate_limit": 0.01})) as house:
        accept(house, "r", [sure(f"t{number}") for number in range(4)])
        await after(house, 1)
        with daemon(tmp_path):
            held = [asked(tmp_path, f"t{number}") for number in range(4)]
        (wait,) = next(found["waits"] for found in held if found["status"] == "PENDING")
        assert (wait["cause"], wait["gate"]) == ("rate", "constraints")
        assert "rate_limit" in wait["frees"]
        control(house, "r", "cancel", *(f"t{number}" for number in range(4)))
        await after(house, 1)


@pytest.mark.looptime
async def test_what_waits_for_an_agent_that_is_gone(tmp_path):
    """A task pinned to an OFFLINE agent says since what, and when the agent is tried again."""
    settings = configured(agents={"count": 2, "offline_after": 1, "probation": 600})
    async with house_in(tmp_path, settings) as house:
        put_on(house, Scripted(a="hang"))
        accept(house, "r", [task("a", kind="scripted", agent_id="agent_0", timeout_s=1), sure("b", agent_id="agent_0")])
        await after(house, 10)
        with daemon(tmp_path):
            found = asked(tmp_path, "b", settings=settings)
            (wait,) = found["waits"]
            assert wait["cause"] == "agent"
            assert wait["text"] == "it is pinned to agent_0: agent_0 is OFFLINE (it timed out too often)"
            assert wait["until_at"] == "2023-11-14T22:23:21.000000+00:00"
        assert [note["event"] for note in found["notes"]] == ["agent_offline"]
        assert "daemon" in causes(asked(tmp_path, "b"))
        assert "agent" not in causes(asked(tmp_path, "b"))


@pytest.mark.looptime
async def test_what_waits_for_other_runs(tmp_path):
    """Where as many runs as may are under way, the others' names stand in the answer."""
    settings = configured(manager={"max_parallel_runs": 1})
    async with house_in(tmp_path, settings) as house:
        put_on(house, Scripted(a="20"))
        accept(house, "first", [task("a", kind="scripted")])
        await after(house, 1)
        accept(house, "r", [sure("b")])
        await after(house, 1)
        with daemon(tmp_path):
            (wait,) = asked(tmp_path, "b", settings=settings)["waits"]
            assert wait["cause"] == "runs"
            assert wait["text"].endswith("(manager.max_parallel_runs): first")
            assert causes(asked(tmp_path, "b")) == ["turn"]


@pytest.mark.looptime
@pytest.mark.parametrize(("verb", "decision"), [("approve", "approved"), ("cancel", "cancelled")])
async def test_what_was_decided_waits_for_the_next_wave(tmp_path, verb, decision):
    """A deferred task that was approved or cancelled is taken into the next wave, and says which one comes before."""
    async with house_in(tmp_path) as house:
        put_on(house, Scripted(a="20"))
        accept(house, "r", [task("a", kind="scripted"), sure("b", risk_level="HIGH", predicted_success_rate=0.95)])
        await after(house, 1)
        control(house, "r", verb, "b")
        await after(house, 1)
        with daemon(tmp_path):
            (wait,) = asked(tmp_path, "b")["waits"]
        assert (wait["cause"], wait["frees"]) == ("wave", "the end of wave 1")
        assert wait["text"].startswith(f"it is {decision}, and is taken into the run's next wave")
        control(house, "r", "pause")
        await after(house, 50)
        assert causes(asked(tmp_path, "b")) == ["wave", "pause", "daemon"]


@pytest.mark.looptime
async def test_what_depends_on_another_wave(tmp_path):
    """A dependency of a wave before that FAILED or is DEFERRED is told before the wave begins, with what can be done."""
    async with house_in(tmp_path) as house:
        accept(house, "r", [doomed("a", max_attempts=1), sure("b", risk_level="HIGH", predicted_success_rate=0.95)])
        await finished(house)
        control(house, "r", "pause")
        accept(house, "r", [sure("c", depends_on=["a"]), sure("d", depends_on=["b"])])
        await after(house, 1)
        waits = {name: asked(tmp_path, name)["waits"][1] for name in "cd"}
    assert [(wait["cause"], wait["command"]) for wait in waits.values()] == [
        ("dependency", ["explain", "r", "a"]),
        ("dependency", ["approve", "r", "b"]),
    ]
    assert "it will be refused" in waits["c"]["frees"]


async def test_what_waits_behind_an_agent_on_probation(tmp_path):
    """An agent that is tried again works on one task at a time, and the return is told of the task that it has."""
    async with assigned(tmp_path) as journal:
        journal.append(ev.AgentWentOffline(agent_id="agent_0", cause="stuck"))
        await journal.durable()
        with daemon(tmp_path):
            assert "agent_0 is OFFLINE (it was stuck), agent_1 is at work" in asked(tmp_path, "b")["waits"][0]["text"]
            journal.append(ev.AgentReturned(agent_id="agent_0"))
            journal.append(ev.AgentWentOffline(agent_id="agent_1", cause="timeouts"))
            place = {"run_id": "r", "wave": 1, "task_id": "a", "agent_id": "agent_0", "attempt": 1}
            journal.append(ev.AttemptStarted(**place, confidence=0.7))
            await journal.durable()
            found = asked(tmp_path, "b")
    (wait,) = found["waits"]
    assert (wait["cause"], "one task at a time, on probation" in wait["text"]) == ("busy", True)
    assert [note["event"] for note in found["notes"]] == ["agent_offline", "agent_returned"]


async def test_what_has_no_agent_yet(tmp_path):
    """A wave that is being planned is about to begin; where all who could do the task are on probation, that is said."""
    async with assigned(tmp_path, ids=()) as journal:
        journal.append(ev.SubmissionAccepted(submission_id="q", run_id="q", waves={1: (Task(task_id="a"),)}))
        journal.append(ev.WaveOpened(run_id="q", wave=1))
        await journal.durable()
        with daemon(tmp_path):
            (wait,) = asked(tmp_path, "a", "q")["waits"]
            assert (wait["cause"], wait["text"]) == ("turn", "its wave is being planned")
            for name in ("agent_0", "agent_1"):
                journal.append(ev.AgentReturned(agent_id=name))
            figures = {"expected_duration_s": 0.0, "sequential_duration_s": 0.0, "load_balance": 1.0}
            journal.append(ev.WavePlanned(run_id="q", wave=1, strategy="x", num_agents=2, num_tasks=1, **figures))
            await journal.durable()
            (wait,) = asked(tmp_path, "a", "q")["waits"]
            assert wait["cause"] == "agent"
            assert "agent_0 is on probation, agent_1 is on probation" in wait["text"]


async def test_what_an_idle_agent_is_about_to_start(tmp_path):
    """Where nothing is in its way, that is the answer."""
    async with assigned(tmp_path) as journal:
        await journal.durable()
        with daemon(tmp_path):
            assert causes(asked(tmp_path, "a")) == ["turn"]


async def test_what_waits_for_files(tmp_path):
    """A run that is far behind with its files begins nothing new, and says so."""
    async with assigned(tmp_path, ids=()) as journal:
        for wave in range(1, CLOSING_WAVES_MOST + 1):
            journal.append(ev.WaveSettled(run_id="r", wave=wave))
            journal.append(ev.PredictionsCalibrated(run_id="r", wave=wave, agents={}))
            tasks = {wave + 1: (Task(task_id=f"t{wave}"),)}
            journal.append(ev.SubmissionAccepted(submission_id=f"s{wave}", run_id="r", waves=tasks))
            if wave < CLOSING_WAVES_MOST:
                journal.append(ev.WaveOpened(run_id="r", wave=wave + 1))
        await journal.durable()
        with daemon(tmp_path):
            (wait,) = asked(tmp_path, f"t{CLOSING_WAVES_MOST}")["waits"]
    assert (wait["cause"], wait["text"]) == ("files", f"{CLOSING_WAVES_MOST} judged waves wait for their files")


async def test_a_queue_file_that_is_too_long_is_not_read(tmp_path, monkeypatch):
    """Where too much waits in the queue file, what it holds is left out of the answer."""
    monkeypatch.setattr("phase21.readers.inquiries.explanations.AWAITED_BYTES", 10)
    async with assigned(tmp_path):
        pass
    (tmp_path / "state" / "queue.jsonl").write_bytes(codec.lines([{"run_id": "r", "control": "pause"}]))
    assert causes(asked(tmp_path, "a")) == ["daemon"]


async def test_without_a_daemon_that_is_what_is_waited_for(tmp_path):
    """What would go on by itself waits for a daemon, and a task under way says what becomes of its attempt."""
    async with assigned(tmp_path, task_fields={"idempotent": False}) as journal:
        journal.append(ev.AttemptStarted(run_id="r", wave=1, task_id="a", agent_id="agent_0", attempt=1, confidence=0.7))
    (wait,) = asked(tmp_path, "b")["waits"]
    assert (wait["cause"], wait["command"]) == ("daemon", ["serve"])
    assert "not idempotent" in asked(tmp_path, "a")["waits"][0]["text"]


async def test_what_no_daemon_has_read_yet(tmp_path):
    """A task in the queue file is SUBMITTED, and a control there is told before what it will change."""
    async with assigned(tmp_path, task_fields={"risk_level": "HIGH"}) as journal:
        journal.append(ev.TaskDeferred(run_id="r", wave=1, task_id="a", agent_id="agent_0", reason="HIGH risk needs approval"))
    lines = (
        {"run_id": "r", "control": "approve", "task_ids": ["a"]},
        {"run_id": "new", "tasks": [{"task_id": "n"}]},
        {"run_id": "r"},
    )
    (tmp_path / "state" / "queue.jsonl").write_bytes(codec.lines(lines))
    assert causes(asked(tmp_path, "a")) == ["queue", "approval", "daemon"]
    assert causes(asked(tmp_path, "b")) == ["daemon"]
    found = asked(tmp_path, "n", "new")
    assert (found["status"], causes(found), found["wave"], found["attempts"]) == ("SUBMITTED", ["queue"], None, [])


async def test_what_is_not_known_is_said(tmp_path):
    """A run or task that nobody gave is UnknownRun, and what waits unread is told apart from what there is not."""
    async with assigned(tmp_path):
        pass
    lines = ({"run_id": "folder", "predictions": "elsewhere"}, {"run_id": "new", "tasks": [{"task_id": "n"}]})
    (tmp_path / "state" / "queue.jsonl").write_bytes(codec.lines(lines))
    for run_id, words in (
        ("r", "has no task z"),
        ("z", "no such run"),
        ("new", "has no task z"),
        ("folder", "predictions of the run wait"),
    ):
        with pytest.raises(UnknownRun, match=words):
            asked(tmp_path, "z", run_id)


# -- why again or not --------------------------------------------------------------------------------------------------


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("fields", "retry", "last"),
    [
        ({}, {}, "no other follows: 3 of 3 attempts have failed (retry.max_attempts)"),
        ({"max_attempts": 2}, {}, "no other follows: 2 of 2 attempts have failed (max_attempts of the task)"),
        (
            {"max_attempts": 2},
            {"strategy": "no_retry"},
            "no other follows: 1 failed (its handler said that another is of no use, or retry.strategy was no_retry)",
        ),
        (
            {},
            {"max_attempts": 1},
            "1 failed (its handler said that another is of no use, or retry.strategy was no_retry, or retry.max_attempts is 1)",
        ),
    ],
)
async def test_attempts_that_are_used_up(tmp_path, fields, retry, last):
    """The end says how many attempts failed of how many, and what allowed so many, whatever is configured where it is asked."""
    async with house_in(tmp_path, configured(retry={**retry, "reassign": "after_timeout"})) as house:
        accept(house, "r", [doomed("a", **fields)])
        await finished(house)
        found = asked(tmp_path, "a", settings=configured(retry={"max_attempts": 9}))
    assert last in found["attempts"][-1]["follows"]
    assert last in found["answers"]["retries"]
    assert all(one["follows"].startswith("another follows") for one in found["attempts"][:-1])
    assert found["answers"]["end"].startswith("its last attempt failed: simulated failure")


@pytest.mark.looptime
async def test_what_a_deadline_ended_is_not_said_to_have_used_up_its_attempts(tmp_path):
    """Of a task that its deadline cut short the deadline is named, and no count of attempts."""
    async with house_in(tmp_path) as house:
        put_on(house, Scripted(a="100"))
        accept(house, "r", [task("a", kind="scripted", deadline=10, max_attempts=5)])
        await finished(house)
        found = asked(tmp_path, "a")
    assert found["attempts"][-1]["follows"] == "no other follows: its deadline leaves no time for one"


@pytest.mark.looptime
async def test_a_retry_that_went_elsewhere_says_so(tmp_path):
    """After a timeout the next attempt is another agent's, and why stands with the first."""
    async with house_in(tmp_path, configured(retry={"reassign": "after_timeout"})) as house:
        put_on(house, Scripted(a="hang ok"))
        accept(house, "r", [task("a", kind="scripted", timeout_s=1)])
        await finished(house)
        found = asked(tmp_path, "a")
    agents = [one["agent_id"] for one in found["attempts"]]
    assert agents[0] != agents[1]
    assert f"by {agents[1]}, since {agents[0]} let it time out" in found["attempts"][0]["follows"]
    assert [given["before"] for given in found["assignments"]] == [None, agents[0]]


async def test_a_retry_that_a_forecast_moved_says_so(tmp_path):
    """Where the next agent was chosen anew after a failure, its reason stands with the assignment and the attempt names it."""
    async with assigned(tmp_path) as journal:
        place = {"run_id": "r", "wave": 1, "task_id": "a", "agent_id": "agent_0", "attempt": 1}
        journal.append(ev.AttemptStarted(**place, confidence=0.7))
        journal.append(ev.AttemptFailed(**place, error_msg="no", delay_s=5.0, duration_s=1.0, reconsider=True))
        given = (Assignment("a", "agent_1", 0.6, 0.8),)
        why = (Choice(("a",), CANDIDATES, "retry"),)
        journal.append(ev.TasksAssigned(run_id="r", wave=1, strategy="x", assignments=given, moved=True, choices=why))
    found = asked(tmp_path, "a")
    assert "after 5 s, by agent_1, which was then predicted to do it best: 1 of 3" in found["attempts"][0]["follows"]
    assert [(given["before"], given["reason"]) for given in found["assignments"]] == [(None, None), ("agent_0", "retry")]


@pytest.mark.looptime
async def test_what_may_not_run_twice_is_not_tried_again(tmp_path):
    """A task that timed out and is not idempotent says that this is why."""
    async with house_in(tmp_path) as house:
        put_on(house, Scripted(a="hang"))
        accept(house, "r", [task("a", kind="scripted", timeout_s=1, idempotent=False)])
        await finished(house)
        found = asked(tmp_path, "a")
    assert found["attempts"][0]["follows"].startswith("no other follows: it is not idempotent")


@pytest.mark.looptime
async def test_attempts_that_were_cut_short(tmp_path):
    """An interruption says by what, counts as no attempt, and after the third nothing follows."""
    for life in range(3):
        async with house_in(tmp_path) as house:
            put_on(house, Scripted(a="500"))
            if life == 0:
                accept(house, "r", [task("a", kind="scripted", max_attempts=1)])
            await after(house, 10)
            if life == 1:
                await house.stop("SIGTERM", 0.0)
    async with house_in(tmp_path) as house:
        await finished(house)
    found = asked(tmp_path, "a")
    assert [one["outcome"] for one in found["attempts"]] == ["INTERRUPTED", "INTERRUPTED", "FAILED"]
    assert [one["error_msg"] for one in found["attempts"][:2]] == ["the service was killed", "the service was stopped"]
    assert "counts as no attempt (1 of at most 2 times)" in found["attempts"][0]["follows"]
    assert "cut short 3 times" in found["attempts"][2]["follows"]


# -- how it ended ------------------------------------------------------------------------------------------------------


@pytest.mark.looptime
async def test_what_a_gate_refused(tmp_path):
    """FAILED without an attempt names the gate, and a dependency that is to blame with where to ask on."""
    async with house_in(tmp_path) as house:
        accept(house, "r", [doomed("a", max_attempts=1), sure("b", depends_on=["a"]), sure("c", capabilities=["gpu"])])
        await finished(house)
        end = {name: asked(tmp_path, name)["answers"]["end"] for name in "bc"}
    assert "the gate dependencies refused it before attempt 1: depends on a, which is FAILED (why: phase21 explain r a)" in end["b"]
    assert "the gate validation refused it before an agent had it: no configured agent offers gpu" in end["c"]


@pytest.mark.looptime
async def test_what_was_cancelled_says_by_whom(tmp_path):
    """A cancellation names the submission that asked for it, and whether an attempt was cut short."""
    async with house_in(tmp_path, configured(agents={"count": 1})) as house:
        put_on(house, Scripted(a="500"))
        accept(house, "r", [task("a", kind="scripted"), sure("b")])
        await after(house, 1)
        control(house, "r", "cancel", "a", "b")
        await finished(house)
        found = {name: asked(tmp_path, name) for name in "ab"}
    assert found["a"]["answers"]["end"].endswith("; the attempt under way was cut short")
    assert found["b"]["answers"]["end"].endswith("; no attempt was under way")
    assert all("a person cancelled it (submission c" in one["answers"]["end"] for one in found.values())


@pytest.mark.looptime
async def test_a_task_that_succeeded_at_once_needs_no_words_about_retries(tmp_path):
    """There is an agent and an end, and nothing of waits or retries."""
    async with house_in(tmp_path) as house:
        accept(house, "r", [sure("a")])
        await finished(house)
        answers = asked(tmp_path, "a")["answers"]
    assert (answers["waits"], answers["retries"]) == (None, None)
    assert answers["end"].startswith("attempt 1 by agent_")


# -- the reference -----------------------------------------------------------------------------------------------------


async def test_every_field_and_cause_is_described(tmp_path):
    """The reference names every field of the answer, and every cause that a wait may have."""
    async with assigned(tmp_path, Choice((), CANDIDATES, "best")) as journal:
        place = {"run_id": "r", "wave": 1, "task_id": "a", "agent_id": "agent_0", "attempt": 1}
        journal.append(ev.AttemptStarted(**place, confidence=0.7))
        journal.append(ev.ControlReceived(submission_id="c", run_id="r", control="pause"))
    found = asked(tmp_path, "a")
    reference = (Path(__file__).parents[3] / "docs" / "reference.md").read_text(encoding="utf-8")
    text = reference.partition("### `explain`\n")[2].partition("\n### ")[0]
    parts = (
        found,
        found["answers"],
        found["task"],
        *(found[name][0] for name in ("waits", "assignments", "gates", "attempts", "notes")),
    )
    names = {name for part in parts for name in part} | set(found["assignments"][0]["candidates"][0])
    assert [name for name in sorted(names) if f"`{name}`" not in text] == []
    causes_known = set(re.findall(r'cause="(\w+)"', inspect.getsource(waits))) | {cause for cause, _ in waits.PASSING.values()}
    rows = set(re.findall(r"`(\w+)`", text.partition("| `cause` |")[2].partition("\n\n")[0]))
    assert causes_known | {"gate"} == {name for name in rows if "." not in name}
