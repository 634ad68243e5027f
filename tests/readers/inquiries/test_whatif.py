"""What would have happened, in pasts whose truth is known."""

from __future__ import annotations

import msgspec
import pytest

from phase21.domain import events as ev
from phase21.domain.plans import CRITICAL_PATH, Assignment, Choice
from phase21.domain.settings import LearningSettings, Reassign, RetrySettings, Settings
from phase21.domain.tasks import Task
from phase21.evaluation.offpolicy import BETTER, INCONCLUSIVE, NOT_ESTIMABLE, WORSE, tasks_needed
from phase21.readers.inquiries.replays import Replay
from phase21.readers.inquiries.whatif import NOTICED_ENTRIES, PIECE_TASKS, SAME, judged, replayed

RATES = {"a": 0.95, "b": 0.4}
EVEN = {"a": 0.5, "b": 0.5}


def answer(past, strategy, against=None, *, exploration=0.0, seed=0):
    settings = Settings(learning=LearningSettings(exploration=exploration), retry=RetrySettings(reassign=Reassign.NEVER))
    names = [strategy, *([against] if against else [])]
    made = replayed(past.entries, Replay(names, settings, runs=None, seed=seed))
    return judged(made, settings, strategy=strategy, against=against, seed=seed)


def by_lot(past, tasks, shares=EVEN, rates=RATES, waves=10, attempts=1):
    """A past in which chance dealt: 40 tasks a wave."""
    for number in range(1, waves + 1):
        past.wave(number, tasks(number, 40, max_attempts=attempts), rates, shares=shares, attempts=attempts)


def test_a_strategy_that_is_truly_better(past, tasks):
    """Where one agent is much better, giving it all is better by the model and by real outcomes, and by about how much."""
    by_lot(past, tasks)
    told = answer(past, "maximize_success")
    assert (told.replay.verdict, told.off_policy.strategy.verdict) == (BETTER, BETTER)
    assert told.replay.difference.success_rate.value == pytest.approx(0.25, abs=0.08)
    apart = told.off_policy.strategy.doubly_robust_difference
    assert apart.low < 0.25 < apart.high
    assert (told.off_policy.left_to_chance, told.off_policy.unseen, told.off_policy.unknown) == (400, 0, 0)
    assert (told.tasks, told.waves, told.runs, told.dealt_by) == (400, 10, ("r",), {"s": 400})


def test_a_strategy_that_is_truly_worse(past, tasks):
    """Where chance favoured the better agent, dealing evenly is worse by the model and by real outcomes."""
    by_lot(past, tasks, {"a": 0.8, "b": 0.2}, waves=16)
    told = answer(past, "load_balanced")
    assert (told.replay.verdict, told.off_policy.strategy.verdict) == (WORSE, WORSE)
    assert told.replay.difference.completed.high < 0.0


def test_equal_agents_are_inconclusive(past, tasks):
    """Where agents are alike no strategy is better, and real outcomes do not say so either."""
    by_lot(past, tasks, rates={"a": 0.7, "b": 0.7})
    told = answer(past, "load_balanced")
    assert told.replay.verdict == INCONCLUSIVE
    assert told.off_policy.strategy.verdict == INCONCLUSIVE


def test_a_strategy_against_itself(past, tasks):
    """The same dealing is the same to the model, its difference is nothing, and no trial could find it."""
    by_lot(past, tasks, waves=3)
    told = answer(past, "load_balanced", "load_balanced")
    assert (told.replay.verdict, told.replay.moved) == (SAME, 0)
    assert told.replay.difference.completed.low == told.replay.difference.completed.high == 0.0
    assert told.off_policy.strategy == told.off_policy.against
    assert told.power.tasks_each is None


def test_the_strategy_that_dealt_is_inconclusive_against_what_it_did(past, tasks):
    """What was done, done again, makes no difference by real outcomes, with and without chance in it."""
    for number in range(1, 9):
        past.wave(number, tasks(number, 30), RATES, strategy="maximize_success", exploration=0.3)
    told = answer(past, "maximize_success", exploration=0.3)
    assert (told.replay.verdict, told.off_policy.strategy.verdict) == (SAME, INCONCLUSIVE)
    assert told.off_policy.strategy.mean_weight == pytest.approx(1.0)
    assert told.off_policy.left_to_chance > 0


def test_seconds_of_tasks_that_wait_for_each_other(past):
    """A chain takes as long whoever does it; a fork on one agent takes longer than on two. What is skipped takes no time."""
    chain = [Task(task_id=f"c{n}", depends_on=(f"c{n - 1}",) if n else ()) for n in range(4)]
    past.dispatch(1, chain, {f"c{n}": "ab"[n % 2] for n in range(4)}, {"a": 1.0, "b": 1.0})
    told = answer(past, "load_balanced")
    assert (told.waves, told.graphs, told.dealt_by) == (1, 1, {"critical_path": 4})
    each_s = told.replay.against.makespan_s.value / 4
    assert told.replay.strategy.makespan_s.value == pytest.approx(4 * each_s)
    fork = [Task(task_id="f0"), *(Task(task_id=f"f{n}", depends_on=("f0",)) for n in (1, 2))]
    fork.append(Task(task_id="f3", depends_on=("f1", "f2")))
    past.dispatch(2, fork, dict.fromkeys(["f0", "f1", "f2", "f3"], "a"), {"a": 1.0, "b": 1.0})
    told = answer(past, "load_balanced")
    assert told.graphs == 2
    each_s = told.replay.against.makespan_s.value / 8
    assert told.replay.strategy.makespan_s.value == pytest.approx(7 * each_s, rel=0.02)


def test_a_step_that_was_skipped_takes_no_time(past):
    """What waits for a skipped task waits for what that waited for."""
    tasks = [Task(task_id="one"), Task(task_id="not", depends_on=("one",)), Task(task_id="two", depends_on=("not",))]
    past.open(1, tasks)
    past.assign(1, ((), ()), CRITICAL_PATH)
    for task_id in ("one", "two"):
        given = (Assignment(task_id, "a", 0.5, 0.5),)
        past.add(ev.TasksAssigned(run_id="r", wave=1, strategy=CRITICAL_PATH, assignments=given))
        past.carry_out(1, (given, ()), {"a": 1.0})
        if task_id == "one":
            past.add(ev.TaskSkipped(run_id="r", wave=1, task_id="not", reason="no"))
    past.close(1)
    told = answer(past, "round_robin")
    assert told.tasks == 2
    assert told.replay.strategy.makespan_s.value == pytest.approx(told.replay.against.makespan_s.value, rel=0.05)


def test_two_strategies_side_by_side(past, tasks):
    """With another strategy the difference is between the two, and each is held against real outcomes."""
    by_lot(past, tasks)
    told = answer(past, "load_balanced", "maximize_success")
    assert (told.replay.verdict, told.against) == (WORSE, "maximize_success")
    assert told.off_policy.against.verdict == BETTER
    rates = told.power.success_rates
    assert rates == (told.replay.against.success_rate.value, told.replay.strategy.success_rate.value)
    assert told.power.tasks_each == tasks_needed(*rates)


def test_without_chance_nothing_can_be_estimated(past, tasks):
    """Where every choice was certain real outcomes say nothing of a strategy that chooses differently, whatever the model thinks."""
    for number in range(1, 6):
        past.wave(number, tasks(number, 20), RATES, strategy="round_robin")
    told = answer(past, "maximize_success")
    assert told.off_policy.strategy.verdict == NOT_ESTIMABLE
    assert told.off_policy.left_to_chance == 0
    assert told.off_policy.unseen == sum(one > 0 for one in [told.replay.moved]) * told.replay.moved
    assert told.replay.verdict == BETTER


def test_rare_tries_that_did_not_come_about(past, tasks):
    """Where what a strategy would do was tried too rarely to weigh up, there is no verdict, however sure the interval looks."""
    for number in range(1, 11):
        wave = tasks(number, 40)
        past.open(number, wave)
        given, _ = past.by_lot(wave, {"a": 1.0})
        choices = tuple(Choice((one.task_id,), (), "best", 0.98) for one in given)
        past.assign(number, (given, choices))
        past.carry_out(number, (given[::2], ()), {"a": 1.0})
        past.carry_out(number, (given[1::2], ()), {"a": 0.5})
        past.close(number)
    found = answer(past, "round_robin").off_policy.strategy
    assert found.mean_weight == pytest.approx(0.5 / 0.98)
    assert not found.snips_difference.spans_zero
    assert found.verdict == INCONCLUSIVE
    assert "0.51 times as often" in found.said


def test_pinned_tasks_and_lots_that_nobody_wrote_down(past, tasks):
    """Pinned tasks, and those of which it is not known how likely their agent was, are counted and not judged by outcomes."""
    past.wave(1, tasks(1, 6, agent_id="b"), RATES, shares=EVEN)
    past.wave(2, tasks(2, 5), RATES, strategy="thompson")
    found = answer(past, "maximize_success").off_policy
    assert (found.pinned, found.unknown, found.left_to_chance) == (6, 5, 0)
    assert found.strategy.decisions == 0


def test_what_really_came(past, tasks):
    """Real outcomes, attempts and seconds stand beside what is expected, and the model comes near to what it has seen."""
    by_lot(past, tasks, attempts=2, waves=6)
    told = answer(past, "load_balanced")
    ends = [entry.event for entry in past.entries]
    assert told.actual.completed == sum(isinstance(event, ev.TaskCompleted) for event in ends)
    assert told.actual.attempts == sum(isinstance(event, ev.AttemptStarted) for event in ends)
    assert told.actual.wave_s > 240
    assert told.replay.against.completed.value == pytest.approx(told.actual.completed, rel=0.06)
    assert told.replay.against.attempts.value == pytest.approx(told.actual.attempts, rel=0.06)


def test_the_makespan_is_of_the_agent_with_the_most_to_do(past, tasks):
    """Seconds are those of the busiest agent of each wave, shared by its hands."""
    past.add(ev.AgentJoined(agent_id="a", concurrency=2))
    for number in (1, 2):
        past.wave(number, tasks(number, 8), {"a": 1.0, "b": 1.0}, shares={"a": 1.0})
    told = answer(past, "round_robin")
    assert told.replay.against.makespan_s.value == pytest.approx(2 * 8 / 2, rel=0.02)
    assert told.replay.strategy.makespan_s.value == pytest.approx(2 * 4, rel=0.02)


def test_many_tasks_are_judged_in_pieces(past, tasks):
    """Beyond what one fit of the model looks at, each task is judged by what happened around it."""
    pytest.importorskip("numpy", reason="features need the extra optimize")
    for number, rates in enumerate([{"a": 1.0, "b": 0.0}] * 3 + [{"a": 0.0, "b": 1.0}] * 3, 1):
        past.wave(number, tasks(number, PIECE_TASKS, lambda n: {"size": float(n % 2)}), rates, shares=EVEN)
    told = answer(past, "round_robin")
    assert told.tasks == 6 * PIECE_TASKS
    assert told.replay.against.completed.value == pytest.approx(told.actual.completed, rel=0.03)


def test_runs_may_have_tasks_of_the_same_name(past, tasks):
    """What is expected of a task of one run is not that of its namesake in another."""
    pytest.importorskip("numpy", reason="features need the extra optimize")
    for run_id, size in (("one", 0.0), ("two", 1.0)):
        rates = {"a": 1.0 - size, "b": 1.0 - size}
        past.wave(1, tasks(1, 30, lambda _, size=size: {"size": size}), rates, shares=EVEN, run_id=run_id)
    told = answer(past, "round_robin")
    assert told.runs == ("one", "two")
    assert told.replay.strategy.success_rate.value == pytest.approx(0.5, abs=0.05)
    assert told.replay.strategy.success_rate.high - told.replay.strategy.success_rate.low > 0.15


def test_where_nothing_has_ended(past, tasks):
    """Without a task that ended there is no opinion, only what was left out."""
    past.open(1, tasks(1, 3))
    past.assign(1, past.by_lot(tasks(1, 3), EVEN))
    told = answer(past, "thompson")
    assert (told.tasks, told.replay, told.off_policy, told.power) == (0, None, None, None)
    assert told.left_out["wave_open"] == 3


def test_the_same_question_has_the_same_answer(past, tasks):
    """All that is drawn is seeded; another seed resamples otherwise."""
    by_lot(past, tasks, waves=3)
    first, again, other = (answer(past, "thompson", seed=seed) for seed in (1, 1, 2))
    assert msgspec.json.encode(first) == msgspec.json.encode(again)
    assert first.replay != other.replay


def test_whoever_waits_is_told(past, tasks):
    """The position is told every so many entries."""
    by_lot(past, tasks, waves=8)
    told: list[int] = []
    replayed(past.entries, Replay(["load_balanced"], Settings(), runs=None, seed=0), told.append)
    assert told == list(range(NOTICED_ENTRIES, len(past.entries) + 1, NOTICED_ENTRIES))


def test_what_is_not_known_of_an_agent_makes_no_difference_sure(past, tasks):
    """Agents that are alike and of which one was hardly tried are not told apart, however many tasks would move to it."""
    by_lot(past, tasks, {"a": 0.95, "b": 0.05}, rates={"a": 0.7, "b": 0.7}, waves=6)
    replay = answer(past, "round_robin").replay
    assert replay.moved > 80
    assert replay.verdict == INCONCLUSIVE
    apart = replay.difference.completed
    assert apart.high - apart.low > 10


@pytest.mark.parametrize("features", [False, True])
def test_tasks_that_change_places(past, tasks, features):
    """Where tasks without features change places between agents nothing is at stake; of those with features it is not known."""
    if features:
        pytest.importorskip("numpy", reason="features need the extra optimize")
    wave = tasks(1, 40, (lambda n: {"size": float(n)}) if features else None)
    past.open(1, wave)
    turned = tuple(Assignment(task.task_id, "ba"[n % 2], 0.5, 0.5) for n, task in enumerate(wave))
    past.assign(1, (turned, ()))
    past.carry_out(1, (turned, ()), {"a": 0.7, "b": 0.7})
    past.close(1)
    replay = answer(past, "round_robin").replay
    assert replay.moved == 40
    apart = replay.difference.completed
    assert (apart.high - apart.low > 5.0) == features
