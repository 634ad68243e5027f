"""Folders of Phase 18 and 19 as they are read: what they say, and what they may not say."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from phase21.domain.errors import InputRefused
from phase21.domain.tasks import RiskLevel, Task
from phase21.intake.performance import ASSUMED_TASKS, naturally, planned_delta, read_folders
from phase21.readers.inquiries.optimization import contents_of
from phase21.readers.inquiries.studies import Asked, studied
from phase21.store import codec

UPSTREAM = Path(__file__).parents[2] / ".." / "shared" / "data" / "upstream"


class Folder:
    """A folder in the making."""

    def __init__(self, path):
        self.path = path

    def json(self, name, value):
        return self.bytes(name, codec.encode(value))

    def lines(self, name, *rows):
        return self.bytes(name, codec.lines(rows))

    def bytes(self, name, data):
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        return self

    def read(self):
        return read_folders([str(self.path)])

    def refusal(self):
        with pytest.raises(InputRefused) as refused:
            self.read()
        said = str(refused.value)
        assert "\n" not in said
        return said.replace(f"{self.path}/", "")


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


# -- agents --------------------------------------------------------------------------------------------------------------


def test_a_rate_is_over_its_history_and_a_history_alone_has_its_mean(folder):
    """Without a history a rate counts for a few assumed tasks; without either nothing is known of the agent."""
    performance = {
        "agent_10": {"success_rate": 0.75, "success_history": [1, 1, 1, 0]},
        "agent_2": {"success_history": [True, False]},
        "agent_1": {"success_rate": 0.5, "capabilities": ["gpu"]},
        "agent_0": {},
    }
    folder.json("multi_agent_summary.json", {"agent_performance": performance})
    found = [(one.agent_id, one.success_rate, one.tasks, one.capabilities) for one in folder.read().agents]
    assert found == [
        ("agent_0", None, 0, ()),
        ("agent_1", 0.5, ASSUMED_TASKS, ("gpu",)),
        ("agent_2", 0.5, 2, ()),
        ("agent_10", 0.75, 4, ()),
    ]


def test_kinds_have_rates_where_they_say_so(folder):
    """A pattern is a number or an object with a rate; what says something else says nothing."""
    said = {"a": 0.5, "b": {"success_rate": 0.25}, "c": {"seen": 3}, "d": "often", "e": True}
    folder.json("multi_agent_summary.json", {"task_success_patterns": said})
    folder.lines("planned_tasks.jsonl", {"task_id": "x", "task_type": "b"}, {"task_id": "y", "kind": "c"})
    found = folder.read()
    assert found.patterns == {"a": 0.5, "b": 0.25}
    assert [task.predicted_success_rate for task in found.tasks[1]] == [0.25, 0.85]


# -- tasks ---------------------------------------------------------------------------------------------------------------


def test_a_task_is_what_its_rows_say(folder):
    """Names of Phase 16, 19 and 20 are understood, a wave's folder gives wave and agent, and rows of several agents are one task."""
    folder.lines(
        "planned_tasks.jsonl",
        {
            "task_id": "t",
            "wave": 2,
            "risk_level": "HIGH",
            "confidence": 0.5,
            "predicted_success_rate": 0.9,
            "predicted_confidence_delta": 0.05,
            "heuristics_applied": ["h"],
            "predicted_execution_time": 3.0,
            "features": {"size": 2},
            "capabilities": ["gpu"],
        },
    )
    for name, rate in (("agent_0", 0.6), ("agent_1", 0.8)):
        folder.lines(f"wave_3/{name}/planned_tasks.jsonl", {"task_id": "u", "predicted_success_probability": rate, "priority": 1})
    found = folder.read()
    (first,), (second,) = found.tasks[2], found.tasks[3]
    assert first == Task(
        task_id="t",
        predicted_success_rate=0.9,
        risk_level=RiskLevel.HIGH,
        estimated_duration_s=3.0,
        capabilities=("gpu",),
        heuristics=("h",),
        features={"size": 2.0},
        metadata={"predicted_confidence_delta": 0.05},
    )
    assert (second.predictions, second.predicted_success_rate) == ({"agent_0": 0.6, "agent_1": 0.8}, pytest.approx(0.7))
    assert (second.priority, second.agent_id) == (1, None)
    assert [one.agent_id for one in found.agents] == ["agent_0", "agent_1"]


def test_times_of_schedules_are_milliseconds(folder):
    """A schedule's times become seconds, and its length the estimate where none is given; it never runs backwards."""
    folder.lines(
        "wave_1/a/scheduled_tasks.jsonl",
        {"task_id": "t", "scheduled_start_time": 500.0, "scheduled_end_time": 2500.0},
        {"task_id": "u", "scheduled_start_time": 5.0, "scheduled_end_time": 1.0},
        {"task_id": "v", "scheduled_start_time": 5.0, "estimated_duration_s": 7.0},
        {"task_id": "w"},
    )
    found = folder.read()
    assert [task.estimated_duration_s for task in found.tasks[1]] == [2.0, 0.0, 7.0, 1.0]
    assert [(one.starts_s, one.ends_s) for one in found.recorded[1]] == [(0.5, 2.5), (0.005, 0.001), (0.005, None), (None, None)]


@pytest.mark.parametrize(
    ("row", "success", "settled"),
    [
        ({"status": "completed"}, True, True),
        ({"status": "FAILED"}, False, True),
        ({"success": False, "status": "completed"}, False, True),
        ({"status": "deferred"}, None, True),
        ({"status": "scheduled"}, None, False),
        ({}, None, False),
    ],
)
def test_an_outcome_is_what_is_recorded(folder, row, success, settled):
    """Status words of every phase are understood; what only stands in a schedule has not happened."""
    folder.lines("wave_1/a/scheduled_tasks.jsonl", {"task_id": "t", "confidence": 0.7, "retry_count": 4, **row})
    (slot,) = folder.read().recorded[1]
    assert (slot.success, slot.settled, slot.predicted) == (success, settled, 0.7)
    assert slot.ran_by == ("a" if success is not None else None)
    assert slot.retries == (4 if settled else None)


def test_outcomes_of_another_agent_stand_beside_the_schedule(folder):
    """Who was to and who did are told apart; what a planned row says of the task counts before what the schedule repeats."""
    folder.lines(
        "wave_1/a/planned_tasks.jsonl", {"task_id": "t", "predicted_success_rate": 0.9, "heuristics": ["h"], "priority": 1}
    )
    folder.lines("wave_1/a/scheduled_tasks.jsonl", {"task_id": "t", "confidence": 0.4})
    folder.lines("wave_1/b/executed_tasks.jsonl", {"task_id": "t", "success": True, "attempts": 3, "duration_s": 2.0})
    (slot,) = folder.read().recorded[1]
    assert (slot.agent_id, slot.ran_by, slot.retries, slot.busy_s) == ("a", "b", 2, 2.0)
    assert (slot.predicted, slot.heuristics, slot.priority) == (0.9, ("h",), 1)


def test_an_outcome_without_a_schedule_is_a_task_and_a_record(folder):
    """What was done was there to be planned; without an agent nobody knows whose record it is."""
    folder.lines(
        "execution_outcomes.jsonl", {"task_id": "t", "status": "success", "agent_id": "a"}, {"task_id": "u", "status": "failed"}
    )
    found = folder.read()
    assert [task.task_id for task in found.tasks[1]] == ["t", "u"]
    assert ([one.task_id for one in found.recorded[1]], found.nobodys) == (["t"], 1)


def test_outcomes_of_phase_17_are_understood(folder):
    """Its confidence before, its milliseconds and its confidence delta are what they are under other names elsewhere."""
    row = {"task_id": "t", "status": "success", "initial_confidence": 0.75, "confidence_delta": 0.05, "execution_time_ms": 250.0}
    (slot,) = folder.lines("wave_1/a/execution_outcomes.jsonl", row).read().recorded[1]
    assert (slot.predicted, slot.busy_s, slot.actual_delta, slot.success) == (0.75, 0.25, 0.05, True)


def test_what_no_agent_had_is_a_task_and_nobodys_record(folder):
    """A run's own folder can be read: what stands under `unassigned` was never anybody's."""
    folder.lines("wave_1/a/executed_tasks.jsonl", {"task_id": "t", "success": True, "agent_id": "a", "result": {"x": 1}})
    folder.lines(
        "wave_1/unassigned/executed_tasks.jsonl", {"task_id": "u", "success": None, "agent_id": None, "status": "CANCELLED"}
    )
    found = folder.read()
    assert [task.task_id for task in found.tasks[1]] == ["t", "u"]
    assert ([one.agent_id for one in found.agents], [one.task_id for one in found.recorded[1]]) == (["a"], ["t"])


def test_predictions_of_phase_20_are_tasks(folder):
    """They are read as the daemon reads them, and a row that it would set aside refuses the whole here."""
    rows = [{"task_id": "t", "agent_id": who, "predicted_success_probability": rate} for who, rate in (("a", 0.5), ("b", 0.7))]
    folder.lines("predicted_tasks.jsonl", *({**row, "timestamp": "2026-01-01T00:00:00Z"} for row in rows))
    found = folder.read()
    assert found.tasks[1][0].predictions == {"a": 0.5, "b": 0.7}
    assert ([one.agent_id for one in found.agents], found.newest) == (["a", "b"], "2026-01-01T00:00:00Z")
    folder.lines("predicted_tasks.jsonl", rows[0], {"task_id": "u", "priority": -1})
    assert folder.refusal().startswith("predicted_tasks.jsonl: line 2: priority: ")


def test_a_confidence_delta_by_agent_is_their_mean():
    """Phase 20 says it for each agent; what is no number is not one."""
    assert planned_delta(
        Task(task_id="t", metadata={"confidence_delta_estimate": {"a": 0.1, "b": 0.3, "c": "?"}})
    ) == pytest.approx(0.2)
    assert planned_delta(Task(task_id="t", metadata={"predicted_confidence_delta": 0.1})) == 0.1
    assert planned_delta(Task(task_id="t", metadata={"confidence_delta_estimate": None})) is None


# -- the whole -----------------------------------------------------------------------------------------------------------


def test_folders_of_phases_within_a_folder_are_read(folder):
    """Agents of one and tasks of the other come together; other files and folders are left alone."""
    folder.json("phase18/multi_agent_summary.json", {"agent_performance": {"a": {"success_rate": 0.5}}})
    folder.json("phase18/coordination_patterns.json", [1]).json("phase18/system_health.json", {"health_score": 3})
    folder.lines("phase18/learning_signals.jsonl", {"x": 1}, {"x": 2})
    folder.json("phase19/optimization_summary.json", {"optimization_results": [{"strategy": "s", "expected_success_rate": 0.5}]})
    folder.json("phase19/heuristic_weights.json", {"h": 1.5}).lines("phase20/predicted_tasks.jsonl", {"task_id": "t"})
    folder.lines("phase17/planned_tasks.jsonl", {"task_id": "no"}).bytes("wave_1/notes", b"no folder")
    folder.bytes("wave_x/a/planned_tasks.jsonl", b"broken")
    found = folder.read()
    assert (found.coordination, found.health, found.signals) == (([1],), {"health_score": 3}, 2)
    assert ([one.strategy for one in found.results], found.weights) == (["s"], {"h": 1.5})
    assert [task.task_id for task in found.tasks[1]] == ["t"]


def test_the_newest_timestamp_is_by_time_and_not_by_text(folder):
    """Zones are understood, one without is UTC, and what is no time does not count."""
    stamps = ("2026-01-01T10:00:00+09:00", "2026-01-01T02:00:00", "2026-01-01T01:30:00Z", "soon")
    folder.lines("learning_signals.jsonl", *({"timestamp": stamp} for stamp in stamps))
    assert folder.read().newest == "2026-01-01T02:00:00"
    assert folder.bytes("learning_signals.jsonl", b"{}\n\n").read().newest is None


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("multi_agent_summary.json", b"{", "multi_agent_summary.json: input data was truncated"),
        (
            "multi_agent_summary.json",
            b'{"agent_performance": {"a": {"success_rate": 2}}}',
            "multi_agent_summary.json: agent_performance.a: success_rate: expected float <= 1.0",
        ),
        (
            "multi_agent_summary.json",
            b'{"task_success_patterns": {"k": 7}}',
            "multi_agent_summary.json: task_success_patterns.k: expected float <= 1.0",
        ),
        ("heuristic_weights.json", b'{"h": "much"}', "heuristic_weights.json: [...]: expected float, got str"),
        ("planned_tasks.jsonl", b'{"task_id": "t"}\n{"wave": 1}\n', "planned_tasks.jsonl: line 2: task_id: object missing"),
        ("wave_1/a/scheduled_tasks.jsonl", b"[]", "wave_1/a/scheduled_tasks.jsonl: line 1: expected object, got array"),
        ("wave_1/a b/planned_tasks.jsonl", b'{"task_id": "t"}', "wave_1/a b: no name of an agent"),
    ],
)
def test_what_cannot_be_read_is_named_by_file_and_field(folder, name, data, said):
    """One line says which file, which line of it, which field, and what is wrong."""
    assert folder.bytes(name, data).refusal().startswith(said)


def test_a_folder_that_is_none_or_holds_nothing_is_refused(folder):
    """It is said what was looked for."""
    assert "no such folder" in Folder(folder.path / "absent").refusal()
    assert "nothing of Phase 18 or 19 stands here" in folder.bytes("notes.txt", b"").refusal()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_is_named(folder):
    """The system's own word is passed on."""
    folder.json("heuristic_weights.json", {})
    (folder.path / "heuristic_weights.json").chmod(0)
    assert "cannot be read" in folder.refusal()


def test_a_folder_in_the_place_of_a_file_is_named(folder):
    """A folder that bears a file's name is no file."""
    (folder.path / "heuristic_weights.json").mkdir()
    assert folder.refusal().startswith("heuristic_weights.json: cannot be read")


@given(some.lists(some.integers(0, 2000), unique=True))
def test_names_are_in_the_order_in_which_a_person_counts(numbers):
    """Numbers within names count as numbers."""
    names = sorted((f"agent_{n}" for n in numbers), key=naturally)
    assert names == [f"agent_{n}" for n in sorted(numbers)]


MS = some.none() | some.floats(-10, 1e6)
FIELDS = {
    "agent_id": some.sampled_from("ab"),
    "wave": some.integers(1, 3),
    "kind": some.sampled_from(["command", "python"]),
    "priority": some.integers(1, 3),
    "status": some.sampled_from(["completed", "failed", "deferred", "running", "?"]),
    "success": some.booleans(),
    "confidence": some.floats(0, 1),
    "features": some.dictionaries(some.sampled_from("xy"), some.floats(-5, 5) | some.text(max_size=2), max_size=2),
    "heuristics": some.lists(some.sampled_from(["h", "i"]), max_size=2),
    "attempts": some.integers(0, 3),
    **dict.fromkeys(("scheduled_start_time", "scheduled_end_time", "actual_start_time", "actual_end_time"), MS),
    "duration_s": some.floats(0, 1e9),
    "confidence_delta": some.floats(-1, 1),
}
NOISE = some.dictionaries(
    some.sampled_from([*FIELDS, "task_id"]), some.none() | some.integers(-3, 9) | some.text(max_size=3), max_size=1
)
ROWS = some.lists(
    some.builds(
        lambda name, row, noise: {"task_id": name, **row, **noise},
        some.sampled_from("tuv"),
        some.fixed_dictionaries({}, optional=FIELDS),
        some.just({}) | some.just({}) | some.just({}) | NOISE,
    ),
    max_size=5,
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    ROWS,
    ROWS,
    some.just({}) | some.fixed_dictionaries({"agent_performance": some.just({"a": {"success_rate": 0.5}}) | some.integers()}),
)
def test_any_rows_are_read_or_refused(planned, outcomes, summary):
    """Whatever stands in a file, it is understood or refused in one line; what is understood can be planned and written."""
    with TemporaryDirectory() as path:
        folder = Folder(Path(path)).lines("wave_1/a/scheduled_tasks.jsonl", *planned).lines("execution_outcomes.jsonl", *outcomes)
        try:
            found = folder.json("multi_agent_summary.json", summary).read()
        except InputRefused as refused:
            assert "\n" not in str(refused)  # noqa: PT017 - whether it is refused is not known before
        else:
            assert found == folder.read()
            study = studied(found, Asked(strategy="round_robin", agent_ids=("b",)))
            assert contents_of(study) == contents_of(study)
            assert sum(map(len, found.tasks.values())) == sum(len(wave.plan.slots) for wave in study.waves)


def test_real_files_of_phase_19_are_read():
    """Four agents, three waves of four tasks, all of them carried out by whom they were planned for."""
    if not (UPSTREAM / "phase19").is_dir():
        pytest.skip("no data of phase19 beside the project")
    found = read_folders([str(UPSTREAM / "phase19")])
    assert [one.agent_id for one in found.agents] == ["agent_0", "agent_1", "agent_2", "agent_3"]
    assert {number: len(slots) for number, slots in found.recorded.items()} == {1: 4, 2: 4, 3: 4}
    assert all(one.success and one.ran_by == one.agent_id for slots in found.recorded.values() for one in slots)
    assert found.newest == "2026-02-06T00:06:08.158144+00:00"
