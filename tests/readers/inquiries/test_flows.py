"""How a run's tasks hang together, folded from its entries."""

from __future__ import annotations

import msgspec
import pytest

from phase21.domain import events as ev
from phase21.domain.tasks import Compensation, Dependency, Task, TaskStatus, When
from phase21.domain.workflows import Upstream, Workflow
from phase21.readers.inquiries.flows import Flow, charted, drawn, told

SECOND_US = 1_000_000
A = Task(task_id="a", step="w/a", compensate=Compensation())
B = Task(task_id="b", step="w/b", depends_on=("a",))


class Past:
    """Entries of a run, a second apart."""

    def __init__(self, *tasks, workflow=None, upstream=None) -> None:
        self.entries: list[ev.Entry] = []
        self(ev.AgentJoined(agent_id="agent_0"))
        self(ev.SubmissionAccepted(submission_id="s", run_id="r", waves={1: tasks}, workflow=workflow, upstream=upstream or {}))

    def __call__(self, event):
        position = len(self.entries) + 1
        self.entries.append(ev.Entry(position, position * SECOND_US, event))

    def done(self, task_id, wave=1):
        place = {"run_id": "r", "wave": wave, "task_id": task_id, "agent_id": "agent_0", "attempt": 1}
        self(ev.AttemptStarted(**place, confidence=1.0))
        self(ev.TaskCompleted(**place, duration_s=1.0))

    def closed(self, wave=1):
        self(ev.WaveSettled(run_id="r", wave=wave))
        self(ev.PredictionsCalibrated(run_id="r", wave=wave, agents={}))
        self(ev.OutputsWritten(run_id="r", wave=wave))

    @property
    def chart(self):
        return charted(self.entries, "r")


def statuses(chart):
    return {node.name: node.status for node in chart.nodes}


def test_tasks_of_closed_waves_stay():
    """A wave that the ledger has let go of is still drawn, with the tasks that were made since."""
    past = Past(A, B, workflow=Workflow(name="w"))
    past(ev.WaveOpened(run_id="r", wave=1))
    past.done("a")
    past.done("b")
    undo = Task(task_id="a.undo", metadata={"undoes": "a"})
    past(ev.WaveSettled(run_id="r", wave=1))
    past(ev.PredictionsCalibrated(run_id="r", wave=1, agents={}))
    past(ev.WorkflowExtended(run_id="r", wave=2, tasks=(undo,), why="compensation"))
    past(ev.OutputsWritten(run_id="r", wave=1))
    assert statuses(past.chart) == {"a": "COMPLETED", "b": "COMPLETED", "a.undo": "PENDING"}
    assert [node.undoes for node in past.chart.nodes] == [None, None, "a"]


def test_it_is_over_when_the_workflow_is():
    """A workflow is over in its final states alone; its time runs from its first wave to its end."""
    past = Past(A, workflow=Workflow(name="w"))
    assert (past.chart.state, past.chart.over, past.chart.started_us) == ("pending", False, None)
    past(ev.WaveOpened(run_id="r", wave=1))
    past(ev.WorkflowChanged(run_id="r", state="running", previous="pending"))
    assert (past.chart.state, past.chart.over, past.chart.ended_us) == ("running", False, None)
    past.done("a")
    past(ev.WorkflowChanged(run_id="r", state="completed", previous="running"))
    chart = past.chart
    assert (chart.state, chart.over, chart.progress) == ("completed", True, 100.0)
    assert (chart.started_us, chart.ended_us) == (3 * SECOND_US, 7 * SECOND_US)


def test_a_run_without_a_workflow():
    """Plain waves are drawn too: open until nothing is left, and as far as their tasks."""
    past = Past(A, B)
    past(ev.WaveOpened(run_id="r", wave=1))
    past.done("a")
    assert (past.chart.state, past.chart.progress, past.chart.flow) == ("open", 50.0, None)
    past.done("b")
    past.closed()
    assert (past.chart.state, past.chart.progress, past.chart.over) == ("done", 100.0, True)


def test_what_cannot_be_made_yet_is_drawn():
    """Steps over results that are not known stand behind what is."""
    later = ({"task_id": "each", "for_each": {"$from": "a", "path": "result"}},)
    past = Past(A, workflow=Workflow(name="w", later=later))
    assert [(node.name, node.later) for node in past.chart.nodes] == [("a", None), ("each", "for each of a.result")]


def test_what_was_kept_by_a_fork_is_drawn():
    """Of the run that was forked from, what some task waits for stands before it, and says where it was done."""
    kept = {"a": Upstream(TaskStatus.COMPLETED), "other": Upstream(TaskStatus.COMPLETED)}
    past = Past(B, workflow=Workflow(name="w", forked_from="first"), upstream=kept)
    assert [(node.name, node.kept) for node in past.chart.nodes] == [("a", "first"), ("b", None)]


def test_other_runs_do_not_count():
    """Entries of other runs are passed over; without one of its own there is no chart."""
    past = Past(A)
    with pytest.raises(KeyError):
        charted(past.entries, "another")
    flow = Flow("r")
    for entry in past.entries:
        flow.fold(entry)
    flow.fold(ev.Entry(9, 9 * SECOND_US, ev.RunIdled(run_id="another")))
    assert len(flow.chart().nodes) == 1


def test_it_may_be_asked_again_and_again():
    """A chart changes nothing: what is folded between two of them is what differs."""
    past = Past(A, B)
    past(ev.WaveOpened(run_id="r", wave=1))
    flow = Flow("r")
    for entry in past.entries:
        flow.fold(entry)
    assert statuses(flow.chart()) == statuses(flow.chart()) == {"a": "PENDING", "b": "PENDING"}
    fresh = len(past.entries)
    past.done("a")
    for entry in past.entries[fresh:]:
        flow.fold(entry)
    assert statuses(flow.chart()) == {"a": "COMPLETED", "b": "PENDING"}
    assert flow.position == len(past.entries)


def test_what_is_not_submitted_yet():
    """A file's tasks are drawn with all of them waiting."""
    chart = drawn("r", (A, B), Workflow(name="w", later=({"task_id": "c"},)))
    assert (chart.state, chart.progress, chart.over) == ("submitted", 0.0, False)
    assert statuses(chart) == {"a": "PENDING", "b": "PENDING", "c": "PENDING"}
    assert drawn("r", (A,), None).flow is None


def test_as_data():
    """`show --json` has each task by itself, with what it waits for, why it was skipped, and the workflow's standing."""
    task = Task(task_id="b", step="w/b", depends_on=("a", Dependency(task="c", when=When.FAILED)), condition="true")
    past = Past(A, Task(task_id="c"), task, workflow=Workflow(name="w", later=({"task_id": "d", "depends_on": ["b"]},)))
    past(ev.WaveOpened(run_id="r", wave=1))
    past.done("a")
    past(ev.TaskSkipped(run_id="r", wave=1, task_id="b", reason="c is COMPLETED"))
    found = told(past.chart)
    assert found["workflow"]["name"] == "w"
    assert found["tasks"][0]["compensated"] is True
    row = found["tasks"][2]
    assert (row["task_id"], row["status"], row["reason"], row["condition"]) == ("b", "SKIPPED", "c is COMPLETED", "true")
    assert row["depends_on"] == [{"task": "a", "when": "succeeded"}, {"task": "c", "when": "failed"}]
    assert found["later"] == [
        {"task_id": "d", "step": "simulate", "made": "later", "depends_on": [{"task": "b", "when": "succeeded"}], "condition": None}
    ]
    assert msgspec.json.decode(msgspec.json.encode(found)) == found
