"""How a run's tasks hang together and how far they are: folded from the run's entries, those of closed waves included.

`cli/show` asks this, over and over where it follows a run; `drawn` makes the same of a submission that no daemon has read yet.
It changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from phase21.domain import events as ev
from phase21.domain.ledger import Ledger
from phase21.domain.progress import WHOLE, flow_percent
from phase21.domain.records import TaskRecord
from phase21.domain.runs import Run
from phase21.domain.tasks import Task, TaskStatus
from phase21.domain.workflows import Upstream, Workflow, WorkflowRecord
from phase21.readers.nodes import Node, later_node, node_of
from phase21.store.clock import iso


class Chart(msgspec.Struct, frozen=True, kw_only=True):
    """A run's tasks as nodes, in the order in which they were accepted. `flow` is None where the run is no workflow.

    `state` is the workflow's, of another run `open` or `done`, and `submitted` where no daemon has read it yet.
    """

    run_id: str
    state: str
    progress: float
    nodes: tuple[Node, ...]
    flow: WorkflowRecord | None = None
    as_of_us: int | None = None
    started_us: int | None = None
    ended_us: int | None = None

    @property
    def over(self) -> bool:
        """Whether nothing more will happen to it by itself."""
        return self.state not in {"pending", "running", "paused", "open", "submitted"}


class Flow:
    """The fold over the entries of one run, from its first."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self._ledger = Ledger()
        self._records: dict[str, tuple[int, TaskRecord]] = {}
        self._kept: dict[str, Upstream] = {}
        self._began_us: int | None = None
        self._ended_us: int | None = None

    @property
    def position(self) -> int:
        """Of the last entry taken in."""
        return self._ledger.position

    def fold(self, entry: ev.Entry) -> None:
        """Take in an entry of the run, of an agent or of the service."""
        event = entry.event
        if getattr(event, "run_id", self.run_id) != self.run_id:
            return
        if isinstance(event, ev.SubmissionAccepted):
            self._kept.update(event.upstream)
        elif isinstance(event, ev.OutputsWritten):
            self._look()  # the ledger is about to let go of the wave
        elif isinstance(event, ev.WaveOpened) and self._began_us is None:
            self._began_us = entry.at_us
        elif isinstance(event, ev.WorkflowChanged | ev.WaveSettled):
            self._ended_us = entry.at_us
        self._ledger.fold(entry)

    def _look(self) -> Run | None:
        run = self._ledger.runs.get(self.run_id)
        for wave in sorted((*run.closing.values(), *run.waves.values()), key=lambda one: one.number) if run is not None else ():
            self._records.update({task_id: (wave.number, record) for task_id, record in wave.tasks.items()})
        return run

    def chart(self) -> Chart:
        """How all stands. KeyError where no entry was of the run."""
        run = self._look()
        if run is None:
            raise KeyError(self.run_id)
        flow = run.record.workflow
        nodes = [node_of(record, wave) for wave, record in self._records.values()]
        origin = flow.workflow.forked_from if flow is not None else None
        earlier = kept_nodes(nodes, self._kept, origin)
        later = [later_node(step) for step in flow.later] if flow is not None else []
        over = not flow.open if flow is not None else run.idle
        return Chart(
            run_id=self.run_id,
            state=str(flow.state) if flow is not None else "done" if over else "open",
            progress=self._percent(run),
            nodes=(*earlier, *nodes, *later),
            flow=flow,
            as_of_us=self._ledger.at_us,
            started_us=self._began_us,
            ended_us=self._ended_us if over else None,
        )

    def _percent(self, run: Run) -> float:
        if run.record.workflow is not None:
            return flow_percent(run.record.workflow, run.open_tasks())
        ended = sum(record.final for _, record in self._records.values())
        return WHOLE * ended / len(self._records) if self._records else 0.0


def kept_nodes(nodes: Iterable[Node], kept: Mapping[str, Upstream], origin: str | None) -> list[Node]:
    """What was done before, by the run that this one was forked from, as far as some node waits for it."""
    found = list(nodes)
    names = {node.name for node in found}
    wanted = {edge.node for node in found for edge in node.needs} - names
    return [
        Node(name=task_id, label=task_id, statuses={str(kept[task_id].status): 1}, percent=WHOLE, kept=origin or "earlier")
        for task_id in kept
        if task_id in wanted
    ]


def charted(entries: Iterable[ev.Entry], run_id: str) -> Chart:
    """A run's chart from its entries. KeyError where none is of the run."""
    flow = Flow(run_id)
    for entry in entries:
        flow.fold(entry)
    return flow.chart()


def drawn(run_id: str, tasks: Iterable[Task], workflow: Workflow | None) -> Chart:
    """The chart of what is submitted, or is to be."""
    nodes = [node_of(TaskRecord(task=task), None) for task in tasks]
    flow = WorkflowRecord(workflow=workflow, later=list(workflow.later)) if workflow is not None else None
    later = [later_node(step) for step in flow.later] if flow is not None else []
    return Chart(run_id=run_id, state="submitted", progress=0.0, nodes=(*nodes, *later), flow=flow)


# -- as data -------------------------------------------------------------------------------------------------------------


def told(chart: Chart) -> dict[str, Any]:
    """Turn a chart into the shape of `show --json`: every task by itself, times in ISO 8601, durations in seconds."""
    return {
        "run_id": chart.run_id,
        "state": chart.state,
        "progress": chart.progress,
        "started_at": _instant(chart.started_us),
        "ended_at": _instant(chart.ended_us),
        "workflow": _workflow(chart),
        "tasks": [_task(node) for node in chart.nodes if not node.later],
        "later": [_later(node) for node in chart.nodes if node.later],
    }


def _workflow(chart: Chart) -> dict[str, Any] | None:
    flow = chart.flow
    if flow is None:
        return None
    workflow = flow.workflow
    return {
        "name": workflow.name,
        "mode": str(workflow.mode),
        "on_failure": str(workflow.on_failure),
        "state": chart.state,
        "progress": chart.progress,
        "reason": flow.reason or None,
        "failed": flow.failed,
        "stranded": flow.stranded,
        "forked_from": workflow.forked_from,
    }


def _task(node: Node) -> dict[str, Any]:
    return {
        "task_id": node.name,
        "step": node.label,
        "kind": node.kind or None,
        "status": node.status,
        "wave": node.wave,
        "agent_id": node.agent_id,
        "attempts": node.attempts,
        "progress": node.percent,
        "note": node.note or None,
        "started_at": _instant(node.started_us),
        "ended_at": _instant(node.ended_us),
        "duration_s": node.duration_s,
        "due_at": _instant(node.due_us),
        "depends_on": [{"task": edge.node, "when": str(edge.when)} for edge in node.needs],
        "condition": node.condition,
        "reason": node.reason if node.status != TaskStatus.COMPLETED else None,
        "undoes": node.undoes,
        "compensated": node.undoable,
        "kept_from": node.kept,
    }


def _later(node: Node) -> dict[str, Any]:
    needs = [{"task": edge.node, "when": str(edge.when)} for edge in node.needs]
    return {"task_id": node.name, "step": node.label, "made": node.later, "depends_on": needs, "condition": node.condition}


def _instant(at_us: int | None) -> str | None:
    return None if at_us is None else iso(at_us)
