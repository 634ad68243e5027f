"""The conductor: carries workflows from stage to stage, and says in which state they are.

It looks at what the ledger says is undecided and appends what follows; it never waits for a task and never starts one. Killed
between any two entries it finds the same undecided, and decides the same.
"""

from __future__ import annotations

import asyncio

from phase21.domain import events as ev
from phase21.domain.runs import Run
from phase21.domain.workflows import WorkflowRecord, WorkflowState
from phase21.store import codec
from phase21.store.journal import Journal
from phase21.workflows.stages import End, Extend, next_stage

REASON_LONGEST = 500


class Conductor:
    """Opens what comes next of every workflow, and records how it stands."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._ledger = journal.ledger

    async def run(self) -> None:
        """Conduct until cancelled."""
        changes = self._journal.follow("conductor", ev.WaveOpened, ev.ControlReceived)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._decide())
            for run in list(self._ledger.runs.values()):
                self._align(run)
            async for entry in changes:
                event = entry.event
                if isinstance(event, ev.WaveOpened | ev.ControlReceived) and event.run_id in self._ledger.runs:
                    self._align(self._ledger.runs[event.run_id])

    async def _decide(self) -> None:
        while True:
            await self._journal.until(lambda: bool(self._ledger.undecided))
            for run_id in list(self._ledger.undecided):
                run = self._ledger.runs[run_id]
                if run.record.workflow is not None:
                    self._go_on(run, run.record.workflow)

    def _go_on(self, run: Run, flow: WorkflowRecord) -> None:
        try:
            stage = next_stage(run, flow)
        except Exception as error:  # noqa: BLE001 - asked again it would raise again, at every start: one workflow must not stop the others
            said = codec.sayable(" ".join(f"{type(error).__name__}: {error}".split()))[:REASON_LONGEST]
            stage = End(state=WorkflowState.FAILED, reason=f"what comes next cannot be decided: {said}")
        if isinstance(stage, Extend):
            self._extend(run, stage)
        else:
            self._change(run, flow, stage.state, stage.reason)

    def _extend(self, run: Run, stage: Extend) -> None:
        inside = {task.task_id for task in stage.tasks}
        needed = {needed for task in stage.tasks for needed in task.needs() if needed not in inside}
        outcomes = {task_id: run.became(task_id) for task_id in sorted(needed)}
        self._journal.append(
            ev.WorkflowExtended(
                run_id=run.run_id,
                wave=run.record.highest_wave + 1,
                tasks=stage.tasks,
                why=stage.why,
                settled={task_id: str(outcome.status) for task_id, outcome in outcomes.items() if outcome is not None},
                later=stage.later,
            )
        )

    def _align(self, run: Run) -> None:
        """Say that a workflow runs, or rests, where that is not said yet."""
        flow = run.record.workflow
        if flow is None or not flow.open:
            return
        state = WorkflowState.RUNNING if run.record.started_wave else WorkflowState.PENDING
        self._change(run, flow, WorkflowState.PAUSED if run.record.paused else state)

    def _change(self, run: Run, flow: WorkflowRecord, state: WorkflowState, reason: str = "") -> None:
        if state is not flow.state:
            self._journal.append(ev.WorkflowChanged(run_id=run.run_id, state=state, previous=flow.state, reason=reason))
