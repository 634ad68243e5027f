"""Studies: plans made of folders, and plans read off a run's closed waves."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some

from phase21.domain.errors import UsageError
from phase21.domain.plans import CRITICAL_PATH, Assignment
from phase21.domain.records import AssignedBatch, TaskRecord, WavePlanFigures, WaveRecord
from phase21.domain.settings import Settings
from phase21.domain.tasks import Task, TaskStatus
from phase21.evaluation.schedules import Shown, Slot, adherence, compared
from phase21.intake.performance import AgentShown, Performance, Result
from phase21.planning.registry import NAMES
from phase21.readers.inquiries.studies import RECORDED, Asked, _part, apart, asked, facts_of, studied, study_of_run

EMPTY = Performance(
    agents=(), tasks={}, recorded={}, results=(), weights={}, patterns={}, coordination=(), health=None, signals=0, newest=None
)


def known(**fields):
    return msgspec.structs.replace(EMPTY, **fields)


def agents(*names, **fields):
    return tuple(AgentShown(agent_id=name, **fields) for name in names)


def tasks(*names, **fields):
    return tuple(Task(task_id=name, **fields) for name in names)


def done(task_id, agent_id="a", success=True, **fields):
    return Slot(task_id=task_id, agent_id=agent_id, predicted=0.8, settled=True, success=success, ran_by=agent_id, **fields)


# -- from folders --------------------------------------------------------------------------------------------------------


def test_agents_that_no_folder_names_are_the_configured_ones():
    """Without any agent in the folders the plan is over those of the settings."""
    study = studied(known(tasks={1: tasks("t", "u")}), Asked(strategy="round_robin", agent_ids=("x", "y")))
    assert [(one.task_id, one.agent_id) for one in study.waves[0].plan.slots] == [("t", "x"), ("u", "y")]
    assert study.waves[0].held == study.waves[0].plan
    assert study.source == "Phase 18 and 19 folders"


def test_what_another_agent_would_have_done_is_not_known():
    """An outcome stands with the plan where the plan's agent is the one that carried the task out, and nowhere else."""
    moved = msgspec.structs.replace(done("w", "a"), ran_by="b")
    recorded = (
        done("t", "a", started_s=1.0, ended_s=2.0, retries=1),
        done("u", "a"),
        Slot(task_id="v", agent_id="a", status="running"),
        moved,
    )
    found = known(agents=agents("a", "b"), tasks={1: tasks("t", "u", "v", "w")}, recorded={1: recorded})
    (wave,) = studied(found, Asked(strategy="round_robin")).waves
    same, other, unsettled, as_moved = wave.plan.slots
    assert (same.agent_id, same.success, same.ended_s, same.retries) == ("a", True, 2.0, 1)
    assert (other.agent_id, other.success, other.ran_by, other.status) == ("b", None, None, "scheduled")
    assert (unsettled.agent_id, unsettled.settled) == ("a", False)
    assert (as_moved.agent_id, as_moved.success) == ("b", True)
    assert (compared(wave.held).compared_tasks, wave.held.strategy) == (3, RECORDED)


def test_a_recorded_schedule_bears_the_name_of_the_plan_that_holds_its_tasks():
    """What Phase 19 said of its plans is found by their tasks."""
    results = (Result("s1", 0.5, {"a": ["x"]}), Result("s2", 0.6, {"a": ["t"], "b": ["u", "more"]}))
    found = known(agents=agents("a"), tasks={1: tasks("t", "u")}, recorded={1: (done("t"), done("u"))}, results=results)
    held = studied(found, Asked()).waves[0].held
    assert (held.strategy, held.expected_success) == ("s2", 0.6)


def test_a_plan_does_not_know_what_comes_after_it():
    """Outcomes of a wave change the plans of later waves, and not its own or earlier ones."""
    three = {n: tasks(f"t{n}", f"u{n}") for n in (1, 2, 3)}
    failed = {2: tuple(done(f"{name}2", "a", success=False) for name in "tu")}
    plain, informed = (studied(known(agents=agents("a", "b"), tasks=three, recorded=records), Asked()) for records in ({}, failed))
    assert [wave.plan.slots[0].predicted for wave in plain.waves] == [0.85] * 3
    first, second, third = (wave.plan.slots[0].predicted for wave in informed.waves)
    assert (first, second) == (0.85, 0.85)
    assert third != 0.85
    assert informed.shown == {"a": Shown(2, 0), "b": Shown()}


def test_learning_can_be_switched_off():
    """Without learning what comes in is what is predicted, whatever is known of the agent."""
    found = known(agents=agents("a", success_rate=0.1, tasks=50), tasks={1: tasks("t")})
    assert studied(found, Asked(learning=False)).waves[0].plan.slots[0].predicted == 0.85
    assert studied(found, Asked()).waves[0].plan.slots[0].predicted < 0.4


def test_durations_that_are_recorded_stretch_those_expected():
    """An agent that took twice as long as estimated is expected to again, wherever its time is recorded."""
    waves = {1: tasks("t"), 2: tasks("u")}
    for took in ({"busy_s": 2.0}, {"started_s": 1.0, "ended_s": 3.0}):
        found = known(agents=agents("a"), tasks=waves, recorded={1: (done("t", **took),)})
        slow = studied(found, Asked()).waves[1].plan.slots[0].ends_s
        assert 1.0 < slow < 2.0
    backwards = known(agents=agents("a"), tasks=waves, recorded={1: (done("t", started_s=3.0, ended_s=1.0),)})
    assert studied(backwards, Asked()).waves[1].plan.slots[0].ends_s == 1.0


def test_features_of_tasks_are_learned_from():
    """Recorded outcomes of tasks with features tell apart the tasks of the next wave, where the extra is installed."""
    pytest.importorskip("numpy")
    first = tuple(Task(task_id=f"t{n}", features={"size": float(n % 2)}) for n in range(80))
    second = tuple(Task(task_id=f"u{n}", features={"size": float(n)}) for n in range(2))
    outcomes = tuple(done(f"t{n}", success=n % 2 == 0) for n in range(80))
    found = known(agents=agents("a"), tasks={1: first, 2: second}, recorded={1: outcomes})
    small, large = (one.predicted for one in studied(found, Asked()).waves[1].plan.slots)
    assert small > large + 0.3


def test_tasks_that_nobody_can_do_are_named():
    """A capability that no agent offers leaves a task without an agent, and the wave goes on without it."""
    found = known(agents=agents("a"), tasks={1: (Task(task_id="t", capabilities=("gpu",)), Task(task_id="u"))})
    (wave,) = studied(found, Asked()).waves
    assert [one.task_id for one in wave.plan.slots] == ["u"]
    assert wave.unplaced == (("t", "no configured agent offers gpu"),)
    assert wave.best_successes == pytest.approx(0.85)


def test_adaptive_tries_what_has_no_record_and_names_what_it_took():
    """Under `adaptive` a plan bears the name of the strategy that was chosen for it."""
    found = known(agents=agents("a"), tasks={1: tasks("t"), 2: tasks("u")}, recorded={1: (done("t"),)})
    taken = [wave.plan.strategy for wave in studied(found, Asked(strategy="adaptive")).waves]
    assert all(name in NAMES and name != "adaptive" for name in taken)


@given(some.integers(0, 100), some.lists(some.integers(1, 20), min_size=1, max_size=6))
def test_evidence_is_parted_without_a_rest(count, sizes):
    """The parts of an agent's tasks, in proportion to the kinds at hand, add up to all of them."""
    parts, before = [], 0
    for size in sizes:
        parts.append(_part(count, before, size, sum(sizes)))
        before += size
    assert sum(parts) == count
    assert all(abs(part - count * size / sum(sizes)) < 1 for part, size in zip(parts, sizes, strict=True))


def test_what_is_asked_comes_from_the_settings():
    """The fleet, the terms and whether to learn are configured; an unknown strategy is refused with those that are known."""
    made = asked(Settings(), "thompson")
    assert (made.strategy, made.agent_ids, made.learning) == ("thompson", ("agent_0", "agent_1", "agent_2", "agent_3"), True)
    assert (made.terms.exploration, made.terms.slack) == (0.0, Settings().manager.slack)
    with pytest.raises(UsageError, match=r"no strategy 'best'; known: round_robin, .*adaptive"):
        asked(Settings(), "best")


def test_what_is_read_is_not_written_over(tmp_path):
    """Neither the folder nor those of phases within it, by whatever path."""
    (tmp_path / "phase19").mkdir()
    apart(tmp_path / "plan", [str(tmp_path)])
    for outputs in (tmp_path, tmp_path / "phase19", tmp_path / "phase19" / ".." / "phase19"):
        with pytest.raises(UsageError, match="read as well"):
            apart(outputs, [str(tmp_path)])


# -- from a run ----------------------------------------------------------------------------------------------------------


def record(task_id, status, agent_id="a", **fields):
    task = Task(task_id=task_id, estimated_duration_s=2.0)
    return TaskRecord(task=task, status=TaskStatus(status), agent_id=agent_id, **fields)


def wave_of(*records, number=1, batches=(), planned=True):
    figures = WavePlanFigures(
        strategy="thompson",
        num_agents=2,
        num_tasks=len(records),
        expected_duration_s=0.0,
        sequential_duration_s=0.0,
        load_balance=1.0,
        planning_s=0.0,
    )
    return WaveRecord(
        run_id="r",
        number=number,
        tasks={made.task.task_id: made for made in records},
        batches=list(batches),
        planned=figures if planned else None,
        opened_us=1_000_000,
        settled_us=9_000_000,
        fleet=["a", "b"],
    )


def batch(*pairs):
    return AssignedBatch(0, "thompson", tuple(Assignment(task_id, agent_id, 0.7, 0.6) for task_id, agent_id in pairs))


def test_a_run_is_held_to_its_first_assignments():
    """A moved task did not keep to its plan; its times are from its wave's opening, its work that of whoever carried it out last."""
    moved = record(
        "t",
        "COMPLETED",
        "b",
        ran_by="b",
        attempts=3,
        first_start_us=2_000_000,
        end_us=5_000_000,
        duration_s=0.5,
        failures=[("a", 1.0), ("b", 0.25)],
    )
    facts = facts_of(wave_of(moved, batches=[batch(("t", "a")), batch(("t", "b"))]))
    (slot,) = facts.slots
    assert (slot.agent_id, slot.ran_by, slot.predicted, slot.retries, slot.status) == ("a", "b", 0.7, 2, "completed")
    assert (slot.starts_s, slot.ends_s, slot.started_s, slot.ended_s, slot.busy_s) == (0.0, 2.0, 1.0, 4.0, 0.75)
    assert (facts.strategy, facts.agents) == ("thompson", ("a", "b"))


def test_a_wave_without_a_plan_has_no_times():
    """Where tasks went to agents as they became ready there is no schedule to keep to: whoever had a task first keeps to it."""
    done_once = record("t", "COMPLETED", ran_by="a", attempts=1, first_start_us=2_000_000, end_us=5_000_000)
    wave = wave_of(done_once, batches=[batch(("t", "a"))])
    wave.planned = msgspec.structs.replace(wave.planned, strategy=CRITICAL_PATH)
    facts = facts_of(wave)
    assert [(slot.starts_s, slot.ends_s, slot.success) for slot in facts.slots] == [(None, None, True)]
    assert (adherence(facts), compared(facts).planned_throughput) == (1.0, None)


def test_what_never_ran_is_settled_without_success():
    """A task that a gate refused, or that was deferred or cancelled, has no success, no times and no retries."""
    refused = record("t", "FAILED", end_us=3_000_000)
    deferred = record("u", "DEFERRED", attempts=1, ran_by="a", first_start_us=500_000)
    facts = facts_of(wave_of(refused, deferred, batches=[batch(("t", "a"), ("u", "a"))]))
    first, second = facts.slots
    assert [(one.settled, one.success, one.ran_by, one.started_s, one.ended_s) for one in (first, second)] == [
        (True, None, None, None, None)
    ] * 2
    assert (first.retries, first.busy_s, second.retries) == (None, None, 0)


def test_a_run_without_waves_is_an_empty_study():
    """There is nothing to say, and nothing fails; a wave without a plan is somebody's."""
    assert study_of_run("r", []).waves == ()
    assert study_of_run("r", []).timestamp is None
    lost = study_of_run("r", [wave_of(record("t", "CANCELLED"), record("u", "FAILED", error_msg="safety: no"), planned=False)])
    assert lost.waves[0].unplaced == (("t", "CANCELLED"), ("u", "safety: no"))
    assert lost.strategy == RECORDED


def test_a_runs_times_are_those_of_its_journal():
    """From the first wave's opening to the last one's settling."""
    first, second = wave_of(number=1), wave_of(number=2)
    second.opened_us, second.settled_us = 10_000_000, 21_000_000
    study = study_of_run("r", [first, second])
    assert (study.started, study.timestamp) == ("1970-01-01T00:00:01.000000+00:00", "1970-01-01T00:00:21.000000+00:00")
    assert (study.duration_ms, study.source) == (20_000.0, "run r")
