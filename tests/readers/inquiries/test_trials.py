"""What single attempts showed, and what they let one expect of tasks."""

from __future__ import annotations

import pytest

from phase21.domain import events as ev
from phase21.domain.evidence import OBSERVATIONS_KEPT
from phase21.domain.settings import Reassign, RetrySettings, Settings
from phase21.domain.tasks import Task
from phase21.readers.inquiries.replays import Replay
from phase21.readers.inquiries.trials import Fates, Trials

SURE = {"a": 1.0, "b": 0.0}


def trials(past):
    made = Trials()
    for number in sorted(past.ledger.runs["r"].waves):
        made.learn(past.ledger.wave("r", number))
    return made


def carried_out(past, tasks, agent_id, rates, **fields):
    """One wave, all of it given to one agent, not judged yet."""
    number = len(past.ledger.runs["r"].waves) + 1 if "r" in past.ledger.runs else 1
    past.open(number, tasks)
    past.assign(number, past.by_lot(tasks, {agent_id: 1.0}))
    past.carry_out(number, past.by_lot(tasks, {agent_id: 1.0}), rates, **fields)


class Told:
    """A forecast that says what it is told: rates by agent, and what they are times after each failure."""

    def __init__(self, rates, after=1.0):
        self.rates, self.after = rates, after

    def predicted(self, task, agent_id):
        return self.rates[agent_id]

    def expected_s(self, task, agent_id):
        return 2.0

    def doubt(self, task, agent_id):
        return 0.1

    def after_failures(self, task, failed):
        return [rate * self.after ** len(failed) for rate in self.rates.values()]


def fate(past, rates, agent_id, after=1.0, **retry):
    agents = list(past.ledger.agents.values())
    return Fates(Told(rates, after), agents, RetrySettings(**retry)).of(Task(task_id="t"), agent_id, ["a", "b"])


def test_an_attempt_that_failed_counts_although_the_task_succeeded(past, tasks):
    """What is learned is how attempts end: a task that took two of them at an agent tells of one failure and one success."""
    wave = tasks(1, 40)
    past.open(1, wave)
    for task in wave:
        made = {"run_id": "r", "wave": 1, "task_id": task.task_id, "agent_id": "a"}
        past.add(ev.TasksAssigned(run_id="r", wave=1, strategy="s", assignments=past.by_lot([task], {"a": 1.0})[0]))
        past.add(ev.AttemptStarted(**made, attempt=1, confidence=0.5))
        past.add(ev.AttemptFailed(**made, attempt=1, error_msg="no", delay_s=0.0, duration_s=4.0))
        past.add(ev.AttemptStarted(**made, attempt=2, confidence=0.5))
        past.add(ev.TaskCompleted(**made, attempt=2, duration_s=4.0))
    forecast = trials(past).hindsight(list(past.ledger.agents.values()), 0)
    assert forecast.predicted(wave[0], "a") == pytest.approx(0.52, abs=0.03)
    assert forecast.expected_s(wave[0], "a") == pytest.approx(4.0, rel=0.1)


def test_features_are_seen_by_the_attempts_around(past, tasks):
    """Of more attempts than one forecast looks at, those nearest in the journal count: an agent may have changed since."""
    pytest.importorskip("numpy", reason="features need the extra optimize")
    many = OBSERVATIONS_KEPT // 2
    for rates in ({"a": 1.0}, {"a": 1.0}, {"a": 0.0}, {"a": 0.0}):
        number = len(past.entries)
        carried_out(past, tasks(number, many, lambda n: {"size": float(n % 2)}), "a", rates)
    made, asked = trials(past), Task(task_id="x", features={"size": 1.0}, predicted_success_rate=0.7)
    agents = list(past.ledger.agents.values())
    assert (made.seen, made.many) == (4 * many, True)
    early, late = made.hindsight(agents, 0), made.hindsight(agents, made.seen)
    assert early.predicted(asked, "a") > 0.8
    assert late.predicted(asked, "a") < 0.2


@pytest.mark.parametrize(("rate", "attempts", "low", "high"), [(1.0, 1, 0.85, 1.0), (0.0, 1, 0.0, 0.15), (0.5, 2, 0.35, 0.65)])
def test_what_is_said_is_held_against_first_attempts(past, tasks, rate, attempts, low, high):
    """Rates are calibrated by how first attempts ended, whatever became of the tasks later."""
    pytest.importorskip("numpy", reason="features need the extra optimize")
    for number in range(1, 7):
        wave = tasks(number, 40, lambda n: {"size": float(n)}, max_attempts=attempts)
        past.wave(number, wave, {"a": rate, "b": rate}, strategy="maximize_success", attempts=attempts)
    made = Replay(["load_balanced"], Settings(), runs=None, seed=0)
    for entry in past.entries:
        made.fold(entry)
    forecast = made.trials.hindsight(list(made.ledger.agents.values()), 0)
    asked = [Task(task_id=f"x{n}", features={"size": n + 0.5}, predicted_success_rate=0.7) for n in range(10)]
    assert low <= sum(forecast.predicted(task, "a") for task in asked) / 10 <= high


def test_attempts_are_thought_through_to_the_end(past):
    """With rate p and k attempts a task ends COMPLETED with 1 - (1 - p)^k, after (1 - (1 - p)^k) / p attempts."""
    found = fate(past, {"a": 0.4, "b": 0.1}, "a", max_attempts=3)
    ended = 1.0 - 0.6**3
    assert (found.completed, found.attempts) == (pytest.approx(ended), pytest.approx(ended / 0.4))
    assert [agent_id for agent_id, _ in found.work_s] == ["a", "a", "a"]
    assert sum(seconds for _, seconds in found.work_s) == pytest.approx(2.0 * ended / 0.4)
    assert found.doubt == pytest.approx(0.1 * 3 * 0.6**2)


def test_the_next_attempt_goes_where_it_would_be_sent(past):
    """With `learned` the best agent given the failures makes the next attempt, else the same one."""
    rates = {"a": 0.2, "b": 0.9}
    assert [agent_id for agent_id, _ in fate(past, rates, "a", max_attempts=2).work_s] == ["a", "b"]
    kept = fate(past, rates, "a", max_attempts=2, reassign=Reassign.NEVER)
    assert [agent_id for agent_id, _ in kept.work_s] == ["a", "a"]


def test_a_pinned_task_stays(past):
    """No other agent is asked for a task that is pinned."""
    agents = list(past.ledger.agents.values())
    fates = Fates(Told({"a": 0.2, "b": 0.9}), agents, RetrySettings())
    assert {agent_id for agent_id, _ in fates.of(Task(task_id="t", agent_id="a"), "a", ["a", "b"]).work_s} == {"a"}


def test_what_is_hardly_needed_is_not_thought_through(past):
    """Attempts end where the task is as good as sure to be done, or may not be tried again."""
    assert len(fate(past, {"a": 0.9999, "b": 0.5}, "a", max_attempts=9).work_s) == 1
    assert len(fate(past, {"a": 0.5, "b": 0.5}, "a", max_attempts=1).work_s) == 1


def test_how_retries_really_went_is_learned(past):
    """Where tasks recover more often than a failure lets expect, later attempts are expected to; where nothing is known, not."""
    agents = list(past.ledger.agents.values())
    task = Task(task_id="t", max_attempts=2)

    def completed(ended):
        fates = Fates(Told({"a": 0.5, "b": 0.1}, after=0.5), agents, RetrySettings())
        fates.learn_retries(ended)
        return fates.of(task, "a", ["a"]).completed

    assert completed([(task, ("a",), True)] * 50) == pytest.approx(0.5 + 0.5 * 0.25)
    assert completed([(task, ("a", "a"), True)] * 500) == pytest.approx(0.5 + 0.5 * (500 + 20 * 0.25) / 520)
    assert completed([(task, ("a", "a"), False)] * 500) < 0.51


def test_agents_that_are_gone_or_offline_are_still_known(past, tasks):
    """Hindsight speaks of every agent that ever was, whatever its state at the end."""
    past.wave(1, tasks(1, 60), SURE, shares={"a": 0.5, "b": 0.5})
    past.add(ev.AgentWentOffline(agent_id="a", cause="timeouts"))
    made = Replay(["load_balanced"], Settings(), runs=None, seed=0)
    for entry in past.entries:
        made.fold(entry)
    forecast = made.trials.hindsight(list(made.ledger.agents.values()), 0)
    (task,) = tasks(2, 1)
    assert forecast.predicted(task, "a") > forecast.predicted(task, "b") + 0.3
