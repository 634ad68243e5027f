"""Waves that are dealt out again, read off a journal."""

from __future__ import annotations

import msgspec
import pytest

from phase21.domain import events as ev
from phase21.domain.errors import UsageError
from phase21.domain.plans import CRITICAL_PATH, Assignment
from phase21.domain.settings import LearningSettings, Settings
from phase21.domain.tasks import RiskLevel, Task
from phase21.domain.workflows import JOIN
from phase21.planning.registry import CHOSEN_FROM
from phase21.readers.inquiries.replays import Replay, checked

RATES = {"a": 0.9, "b": 0.5}
EVEN = {"a": 0.5, "b": 0.5}


def replay(past, *strategies, exploration=0.0, runs=None):
    settings = Settings(learning=LearningSettings(exploration=exploration))
    made = Replay(strategies, settings, runs=runs, seed=0)
    for entry in past.entries:
        made.fold(entry)
    made.close()
    return made


@pytest.mark.parametrize("strategy", ["maximize_success", "minimize_retries", "load_balanced"])
@pytest.mark.parametrize("features", [None, lambda n: {"size": float(n % 3)}])
def test_a_wave_is_dealt_from_what_was_known_then(past, tasks, strategy, features):
    """The strategy that dealt the waves deals them alike again, and its choices are as likely as the journal has them."""
    past.add(ev.AgentJoined(agent_id="c"))
    for number in range(1, 7):
        past.wave(number, tasks(number, 12, features), {**RATES, "c": 0.6}, strategy=strategy, exploration=0.3)
    made = replay(past, strategy, exploration=0.3)
    assert len(made.dealt) == 72
    assert [one.agents[0] for one in made.dealt] == [one.really for one in made.dealt]
    assert [one.targets[0] for one in made.dealt] == pytest.approx([one.propensity for one in made.dealt])
    assert (min(one.propensity for one in made.dealt) < 0.5) == (strategy != "load_balanced")


def test_where_a_task_stands_among_all_attempts(past, tasks):
    """Each task with features knows how many attempts at such tasks ended before it, failed ones and other runs' included."""
    past.wave(1, tasks(1, 3, lambda n: {"size": n}), RATES, shares=EVEN, run_id="other")
    past.wave(1, tasks(1, 3, lambda n: {"size": n}, max_attempts=2), {"a": 0.0, "b": 0.0}, shares=EVEN, attempts=2)
    past.wave(2, tasks(2, 2), RATES, shares=EVEN)
    assert [one.seen for one in replay(past, "load_balanced", runs={"r"}).dealt] == [3, 5, 7, 9, 9]


def test_what_comes_later_changes_nothing(past, tasks):
    """A wave is dealt alike whatever follows it."""
    for number in range(1, 4):
        past.wave(number, tasks(number, 10), RATES, shares=EVEN)
    before = replay(past, "maximize_success").dealt
    past.wave(4, tasks(4, 10), {"a": 0.0, "b": 1.0}, shares=EVEN)
    after = replay(past, "maximize_success").dealt
    assert [one.agents for one in after[:30]] == [one.agents for one in before]
    assert len(after) == 40


def test_how_likely_each_agent_was(past, tasks):
    """Without exploration a choice is certain, with it the rest of a share; risky tasks are never explored."""
    past.wave(1, [*tasks(1, 4), *tasks(2, 2, risk_level=RiskLevel.MEDIUM)], RATES, shares=EVEN)
    sure = replay(past, "maximize_success").dealt
    assert {one.targets[0] for one in sure} == {0.0, 1.0}
    assert [one.targets[0] == 1.0 for one in sure] == [one.agents[0] == one.really for one in sure]
    tried = replay(past, "maximize_success", exploration=0.2).dealt
    assert {one.targets[0] for one in tried[:4]} <= {0.2, 0.8}
    assert {one.targets[0] for one in tried[4:]} <= {0.0, 1.0}


def test_strategies_that_draw_lots(past, tasks):
    """Thompson's choices are drawn many times to see how likely they are; as the journal's own they have no known propensity."""
    past.wave(1, tasks(1, 8), RATES, strategy="thompson")
    made = replay(past, "thompson").dealt
    assert {one.propensity for one in made} == {None}
    assert all(0.0 <= one.targets[0] <= 1.0 for one in made)
    assert any(0.0 < one.targets[0] < 1.0 for one in made)


def test_a_journal_from_before_choices_were_logged(past, tasks):
    """Without a choice there is no propensity; a choice that names no task speaks for those that no other names."""
    past.open(1, tasks(1, 2))
    given, choices = past.by_lot(tasks(1, 2), EVEN)
    past.assign(1, (given, ()))
    past.carry_out(1, (given, ()), RATES)
    past.close(1)
    past.open(2, tasks(2, 2))
    given, choices = past.by_lot(tasks(2, 2), EVEN)
    general = msgspec.structs.replace(choices[1], tasks=(), propensity=0.25)
    past.assign(2, (given, (choices[0], general)))
    past.carry_out(2, (given, ()), RATES)
    past.close(2)
    assert [one.propensity for one in replay(past, "load_balanced").dealt] == [None, None, 0.5, 0.25]


def test_what_is_left_out_is_counted(past, tasks):
    """Tasks without an outcome, of dry runs, of open waves, and without a seat do not count, and it is said why."""
    wave = tasks(1, 3)
    past.open(1, wave)
    dealt = past.by_lot(wave, EVEN)
    past.assign(1, dealt)
    past.add(ev.TaskCancelled(run_id="r", wave=1, task_id="1-0"))
    past.carry_out(1, (dealt[0][1:], ()), RATES)
    past.close(1)
    past.open(2, tasks(2, 4))
    dealt = past.by_lot(tasks(2, 4), EVEN)
    past.assign(2, dealt)
    past.carry_out(2, dealt, RATES)
    past.close(2, taught=False)
    for agent_id in "ab":
        past.add(ev.AgentWentOffline(agent_id=agent_id, cause="timeouts"))
    past.open(3, tasks(3, 1))
    dealt = past.by_lot(tasks(3, 1), EVEN)
    past.assign(3, dealt)
    past.carry_out(3, dealt, RATES)
    past.close(3)
    past.open(4, tasks(4, 5))
    past.assign(4, past.by_lot(tasks(4, 5), EVEN))
    made = replay(past, "load_balanced")
    assert [one.task.task_id for one in made.dealt] == ["1-1", "1-2"]
    assert made.left_out == {"not_ended": 1, "rehearsed_or_nothing_ran": 4, "no_seat": 1, "wave_open": 5}
    assert [(wave.run_id, wave.number, wave.fleet) for wave in made.waves] == [("r", 1, ("a", "b"))]


def test_what_was_given_on_later_is_no_choice_of_the_plan(past, tasks):
    """A task counts for the agent that the wave's plan gave it to, wherever it went after that."""
    wave = tasks(1, 1)
    past.open(1, wave)
    dealt = past.by_lot(wave, {"a": 1.0})
    past.assign(1, dealt)
    moved = (Assignment("1-0", "b", 0.5, 0.5),)
    past.add(ev.TasksAssigned(run_id="r", wave=1, strategy="s", assignments=moved, moved=True))
    past.add(ev.TasksAssigned(run_id="r", wave=1, strategy="s", assignments=moved))
    past.carry_out(1, (moved, ()), RATES)
    past.close(1)
    (one,) = replay(past, "load_balanced").dealt
    assert (one.really, one.tried) == ("a", ("b",))


def test_tasks_that_were_given_out_as_they_became_ready(past):
    """They were chosen for certain; other strategies deal the whole wave as they would have before it began. Joins are not judged."""
    flow = [
        Task(task_id="one"),
        Task(task_id="two", depends_on=("one",)),
        Task(task_id="all", kind=JOIN, depends_on=("one", "two")),
    ]
    past.dispatch(1, flow, dict.fromkeys(["one", "two", "all"], "b"), {"a": 1.0, "b": 1.0})
    made = replay(past, "load_balanced")
    assert [(one.task.task_id, one.really, one.propensity, one.success) for one in made.dealt] == [
        ("one", "b", 1.0, True),
        ("two", "b", 1.0, True),
    ]
    assert [one.agents for one in made.dealt] == [("a",), ("b",)]
    (wave,) = made.waves
    assert (wave.strategy, wave.waits) == ("critical_path", {"one": (), "two": ("one",), "all": ("one", "two")})
    assert not any(made.left_out.values())


def test_the_first_agent_of_a_task_counts_after_a_restart(past):
    """A task of such a wave that went back to the line counts for whoever had it first."""
    tasks = [Task(task_id="one"), Task(task_id="two", depends_on=("one",))]
    past.open(1, tasks)
    past.assign(1, ((), ()), CRITICAL_PATH)
    for agent_id, moved in (("a", False), ("b", True)):
        given = (Assignment("one", agent_id, 0.5, 0.5),)
        past.add(ev.TasksAssigned(run_id="r", wave=1, strategy=CRITICAL_PATH, assignments=given, moved=moved))
    past.carry_out(1, (given, ()), {"b": 1.0})
    past.add(ev.TaskSkipped(run_id="r", wave=1, task_id="two", reason="no"))
    past.close(1)
    (one,) = replay(past, "load_balanced").dealt
    assert (one.really, one.tried, one.propensity) == ("a", ("b",), None)


def test_a_wave_whose_plan_seats_nobody(past):
    """A plan without an assignment is no reason to stop."""
    past.open(1, [])
    past.assign(1, ((), ()))
    past.close(1)
    made = replay(past, "load_balanced")
    assert (made.dealt, made.waves) == ([], [])


def test_only_the_runs_that_are_asked_for(past, tasks):
    """Other runs are not dealt again, but what they showed is known."""
    past.wave(1, tasks(1, 20), {"a": 1.0, "b": 0.0}, shares=EVEN, run_id="other")
    past.wave(1, tasks(1, 10), RATES, shares=EVEN)
    made = replay(past, "maximize_success", runs={"r"})
    assert {made.waves[one.wave].run_id for one in made.dealt} == {"r"}
    assert {one.agents[0] for one in made.dealt} == {"a"}


def test_adaptive_takes_each_in_turn_before_it_prefers_one(past, tasks):
    """A run's first waves are dealt by the strategies that have no record yet, in their order."""
    for number in range(1, len(CHOSEN_FROM) + 1):
        past.wave(number, tasks(number, 4), RATES, shares=EVEN)
    made = replay(past, "adaptive", *CHOSEN_FROM).dealt
    for place, one in enumerate(made):
        assert one.agents[0] == one.agents[1 + place // 4]


def test_a_strategy_must_be_known():
    """A name that is none is refused with those that are."""
    assert checked("thompson", "--strategy") == "thompson"
    with pytest.raises(UsageError, match=r"--against: there is no strategy 'x'; known: round_robin, .*adaptive"):
        checked("x", "--against")
