"""A Phase 20 folder becomes waves of tasks."""

from __future__ import annotations

from pathlib import Path

import pytest

from phase21.domain.errors import InputRefused
from phase21.intake.predictions import legal_run_id, read_folder
from phase21.store import codec

UPSTREAM = Path(__file__).parents[2] / ".." / "shared" / "data" / "upstream" / "phase20"


def write(folder: Path, name: str, *rows) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(row if isinstance(row, bytes) else codec.line(row) for row in rows))


def row(task_id="t", agent_id="agent_0", rate=0.5, time=10.0, **more):
    return {
        "task_id": task_id, "agent_id": agent_id, "predicted_success_probability": rate, "predicted_execution_time": time,
        "risk_assessment": "MEDIUM", **more,
    }  # fmt: skip


@pytest.mark.skipif(not UPSTREAM.is_dir(), reason="the upstream example data is not here")
def test_the_upstream_example_is_read_whole():
    """Twelve tasks in three waves, each predicted for four agents, none set aside."""
    read = read_folder(str(UPSTREAM))
    assert {wave: [task.task_id for task in tasks] for wave, tasks in read.waves.items()} == {
        wave: [f"task_{wave}_{n}" for n in range(1, 5)] for wave in (1, 2, 3)
    }
    assert not read.rejected
    task = read.waves[1][0]
    assert task.predictions == dict.fromkeys(("agent_0", "agent_1", "agent_2", "agent_3"), 0.725)
    assert (task.predicted_success_rate, task.estimated_duration_s, task.priority, task.agent_id) == (0.725, 27.5, 2, None)
    assert task.metadata["risk_assessment"] == "MEDIUM"
    assert set(task.metadata["confidence_delta_estimate"]) == set(task.predictions)


def test_copies_for_agents_are_one_task(tmp_path):
    """One task has a rate for each agent; for any other, the mean, and the mean duration."""
    write(tmp_path, "wave_2/agent_10/predicted_tasks.jsonl", row(agent_id="agent_10", rate=0.4, time=10))
    write(tmp_path, "wave_2/agent_9/predicted_tasks.jsonl", row(agent_id="agent_9", rate=0.8, time=30, reasoning="why"))
    read = read_folder(str(tmp_path))
    (task,) = read.waves[2]
    assert list(task.predictions.items()) == [("agent_9", 0.8), ("agent_10", 0.4)]
    assert (round(task.predicted_success_rate, 9), task.estimated_duration_s) == (0.6, 20.0)
    assert task.metadata == {"risk_assessment": "MEDIUM", "reasoning": "why"}
    assert read.places["t"].file == "wave_2/agent_9/predicted_tasks.jsonl"


def test_files_at_the_root_carry_whole_tasks(tmp_path):
    """A root row may say everything that a task can; the schedule tells wave and priority where it does not."""
    write(
        tmp_path,
        "predicted_tasks.jsonl",
        {"task_id": "a", "kind": "command", "payload": {"argv": ["true"]}, "predicted_success_rate": 0.9},
        {"task_id": "b", "wave": 3, "priority": 5},
        {"task_id": "c"},
    )
    write(
        tmp_path,
        "predicted_schedule.jsonl",
        {"task_id": "a", "wave": 2, "priority": 1},
        {"task_id": "a", "wave": 4},
        {"task_id": "b", "wave": 9, "priority": 1},
        {"task_id": "nobody", "wave": 1},
    )
    read = read_folder(str(tmp_path))
    assert {wave: [task.task_id for task in tasks] for wave, tasks in read.waves.items()} == {1: ["c"], 2: ["a"], 3: ["b"]}
    assert (read.waves[2][0].priority, read.waves[2][0].payload, read.waves[3][0].priority) == (1, {"argv": ["true"]}, 5)
    assert not read.rejected


def test_a_schedule_is_advice(tmp_path):
    """A task that the schedule lists under several agents, or under one, is one task that no agent is bound to."""
    write(tmp_path, "predicted_tasks.jsonl", row("a", "agent_0", 0.4), row("a", "agent_1", 0.8), row("b", "agent_1"))
    advice = [{"task_id": "a", "agent_id": name, "wave": 2} for name in ("agent_0", "agent_1")]
    write(tmp_path, "predicted_schedule.jsonl", *advice, {"task_id": "b", "agent_id": "agent_1"})
    read = read_folder(str(tmp_path))
    assert {wave: [task.task_id for task in tasks] for wave, tasks in read.waves.items()} == {1: ["b"], 2: ["a"]}
    assert [task.agent_id for tasks in read.waves.values() for task in tasks] == [None, None]
    assert read.waves[2][0].predictions == {"agent_0": 0.4, "agent_1": 0.8}
    assert not read.rejected


def test_bad_rows_are_set_aside_with_their_place(tmp_path):
    """File, line, offset and path say where; the other rows go on."""
    name = "wave_1/agent_0/predicted_tasks.jsonl"
    good, bad = codec.line(row("a")), codec.line(row("b", rate=1.5))
    write(tmp_path, name, good, b"\n", bad, b"{torn\n", row("c", wave="1"), row("d"), row("a", rate=0.7), good)
    write(tmp_path, "wave_x/agent_0/predicted_tasks.jsonl", row("e"))
    write(tmp_path, "wave_2/agent_0/predicted_tasks.jsonl", row("a"))
    read = read_folder(str(tmp_path))
    assert [task.task_id for task in read.waves[1]] == ["a", "d"]
    assert [(one.file, one.line, one.path) for one in read.rejected] == [
        (name, 3, "predicted_success_probability"),
        (name, 4, None),
        (name, 5, "wave"),
        (name, 7, "task_id"),
        ("wave_2/agent_0/predicted_tasks.jsonl", 1, "wave"),
        ("wave_x/agent_0/predicted_tasks.jsonl", 1, None),
    ]
    assert read.rejected[0].offset == len(good) + 1
    assert codec.decode(read.rejected[0].raw)["task_id"] == "b"


def test_no_folder_and_no_predictions_are_refused(tmp_path):
    """What is not a Phase 20 folder is said so."""
    with pytest.raises(InputRefused, match="no such folder"):
        read_folder(str(tmp_path / "missing"))
    with pytest.raises(InputRefused, match="predicted_tasks"):
        read_folder(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "legal"),
    [("phase20", "phase20"), ("my outputs!", "my-outputs-"), ("..x", "x"), ("", "run"), ("é", "run"), ("a" * 200, "a" * 128)],
)
def test_a_folder_name_becomes_a_legal_run_id(name, legal):
    """What may not stand in a run id becomes a dash."""
    assert legal_run_id(name) == legal
