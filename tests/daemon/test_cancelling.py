"""Cancelling reaches everything that a task has started, and nothing else; pausing a task reaches no process at all."""

from __future__ import annotations

from pathlib import Path

from yard import alive, until


def family(yard, name, **fields):
    """A command whose child starts a grandchild in the background, writes both ids, and waits."""
    script = f"sh -c 'sleep 300 & echo $! > {yard.folder}/{name}.grand; wait' & echo $! > {yard.folder}/{name}.child; wait"
    return yard.counted(name, script, **fields)


def members(yard, name):
    """The process ids of a family, once all are there."""
    files = [Path(yard.folder / f"{name}.{who}") for who in ("child", "grand")]
    until(lambda: all(file.exists() and file.read_text().strip() for file in files), f"the family of {name}")
    return [yard.running(name), *(int(file.read_text()) for file in files)]


def test_cancelling_a_workflow_ends_whole_process_groups(yard):
    """Every process of its tasks is gone, down to grandchildren; what waited never starts; the workflow is cancelled."""
    tasks = [family(yard, "a"), family(yard, "b"), {**yard.counted("c"), "depends_on": ["a", "b"]}]
    yard.append({"run_id": "flow", "workflow": {"name": "family", "tasks": tasks}})
    daemon = yard.serve()
    pids = [*members(yard, "a"), *members(yard, "b")]
    assert all(map(alive, pids))
    assert yard.call("cancel", "flow").returncode == 0
    daemon.event("wave_completed", run_id="flow")
    until(lambda: not any(map(alive, pids)), "the end of every process")
    assert yard.starts("c") == 0
    assert daemon.stop() == 0
    assert {yard.statuses("flow")[name] for name in "ab"} == {"CANCELLED"}
    assert yard.statuses("flow")["c"] in {"CANCELLED", "SKIPPED"}


def test_cancelling_one_task_leaves_the_others_processes_alone(yard):
    """Only the named task's group is ended."""
    yard.append({"run_id": "r", "tasks": [family(yard, "a"), family(yard, "b")]})
    daemon = yard.serve()
    first, second = members(yard, "a"), members(yard, "b")
    assert yard.call("cancel", "r", "a").returncode == 0
    until(lambda: not any(map(alive, first)), "the end of the first family")
    assert all(map(alive, second))
    assert yard.call("cancel", "r", "b").returncode == 0
    daemon.event("wave_completed", run_id="r")
    assert not any(map(alive, second))
    assert daemon.stop() == 0
    assert yard.statuses("r") == {"a": "CANCELLED", "b": "CANCELLED"}


def test_a_paused_task_under_way_ends_by_itself_and_one_that_waits_can_be_cancelled(yard):
    """A pause touches no process; a paused task that is cancelled never starts; one that is resumed does."""
    yard.configure("[agents]\ncount = 1\n")
    yard.append({"run_id": "r", "tasks": [yard.held("a"), yard.counted("b"), yard.counted("c")]})
    daemon = yard.serve("--log-level", "DEBUG")
    pid = yard.running("a")
    assert yard.call("pause", "r", "a", "b", "c").returncode == 0
    daemon.event("control_received", control="pause")
    assert alive(pid)
    yard.release("a")
    daemon.event("task_completed", task_id="a")
    assert yard.call("cancel", "r", "b").returncode == 0
    daemon.event("task_cancelled", task_id="b")
    assert yard.starts("c") == 0
    assert yard.call("resume", "r", "c").returncode == 0
    daemon.event("wave_completed", run_id="r")
    assert daemon.stop() == 0
    assert yard.statuses("r") == {"a": "COMPLETED", "b": "CANCELLED", "c": "COMPLETED"}
    assert (yard.starts("b"), yard.starts("c")) == (0, 1)


def test_a_deadline_ends_a_whole_process_group(yard):
    """What is under way at its deadline is ended with all that it has started."""
    yard.append({"run_id": "r", "tasks": [family(yard, "a", deadline=2)]})
    daemon = yard.serve()
    pids = members(yard, "a")
    daemon.event("wave_completed", run_id="r")
    until(lambda: not any(map(alive, pids)), "the end of every process")
    assert daemon.stop() == 0
    row = yard.outcomes("r")["a"]
    assert (row["status"], row["attempts"]) == ("FAILED", 1)
    assert row["error_msg"].startswith("deadline: ")
