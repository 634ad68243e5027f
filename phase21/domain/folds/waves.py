"""A wave's way: opened, assigned, planned, settled, and put away once its files are written."""

from __future__ import annotations

import msgspec

from phase21.domain import events as ev
from phase21.domain.folds.known import Folds, Known, sort
from phase21.domain.folds.workflows import count_blockers, keep_results
from phase21.domain.records import AssignedBatch, WavePlanFigures, WaveRecord
from phase21.domain.runs import Run, tally_wave
from phase21.domain.tasks import TaskStatus

PENDING, DEFERRED = TaskStatus.PENDING, TaskStatus.DEFERRED


def _wave_opened(known: Known, event: ev.WaveOpened) -> None:
    run = known.runs[event.run_id]
    wave = run.waves.get(event.wave)
    if wave is None:
        wave = run.waves[event.wave] = WaveRecord(
            run_id=event.run_id, number=event.wave, accepted_position=known.position, tasks={}
        )
    for task_id in event.carried:
        _carry(known, run, wave, task_id)
    wave.opened_us = known.at_us
    wave.fleet = [agent.agent_id for agent in known.agents.values() if agent.present]
    run.current = event.wave
    known.under_way += 1
    run.record.started_wave = event.wave
    run.record.highest_wave = max(run.record.highest_wave, event.wave)
    if event.carried or not wave.plain:
        count_blockers(wave)
    sort(known, run)


def _carry(known: Known, run: Run, wave: WaveRecord, task_id: str) -> None:
    record = msgspec.structs.replace(run.record.deferred.pop(task_id))
    run.record.carried.remove(task_id)
    record.status, record.agent_id, record.held_by = PENDING, None, None
    wave.tasks[task_id] = record
    wave.pending += 1
    run.where[task_id] = wave.number
    known.open_tasks += 1


def _tasks_assigned(known: Known, event: ev.TasksAssigned) -> None:
    wave = known.runs[event.run_id].waves[event.wave]
    tasks = wave.tasks
    for given in event.assignments:
        record = tasks[given.task_id]
        record.agent_id, record.predicted, record.raw = given.agent_id, given.predicted, given.raw
        record.score, record.elsewhere, record.reconsider = None, False, False
    for choice in event.choices:
        if choice.score is not None:
            for task_id in choice.tasks:
                tasks[task_id].score = choice.score
    wave.batches.append(AssignedBatch(known.at_us, event.strategy, event.assignments, event.choices))
    if event.moved:
        wave.moved += len(event.assignments)


def _wave_planned(known: Known, event: ev.WavePlanned) -> None:
    known.runs[event.run_id].waves[event.wave].planned = WavePlanFigures(
        strategy=event.strategy,
        num_agents=event.num_agents,
        num_tasks=event.num_tasks,
        expected_duration_s=event.expected_duration_s,
        sequential_duration_s=event.sequential_duration_s,
        load_balance=event.load_balance,
        planning_s=event.planning_s,
        policy=event.policy,
    )


def _wave_settled(known: Known, event: ev.WaveSettled) -> None:
    run = known.runs[event.run_id]
    wave = run.waves[event.wave]
    wave.settled_us = known.at_us
    for record in wave.tasks.values() if run.record.deferred else ():
        if record.status is DEFERRED:  # it may be done in a later wave, where these are not
            for needed in record.task.needs():
                if needed in wave.tasks:
                    run.record.awaited[needed] = wave.tasks[needed].status


def _outputs_written(known: Known, event: ev.OutputsWritten) -> None:
    run = known.runs[event.run_id]
    wave = run.closing.pop(event.wave)
    record = run.record
    for task_id in wave.tasks:
        if run.where.get(task_id) == wave.number:
            del run.where[task_id]
    tally_wave(record, wave)
    known.open_tasks -= len(wave.tasks)
    if record.workflow is not None:
        keep_results(run, wave)
    record.sizes = event.sizes
    if record.awaited:
        _forget_awaited(run)
    sort(known, run)


def _forget_awaited(run: Run) -> None:
    awaited = run.record.awaited
    needed = {needed for record in (*run.open_tasks(), *run.record.deferred.values()) for needed in record.task.needs()}
    run.record.awaited = {task_id: status for task_id, status in awaited.items() if task_id in needed}


FOLDS: Folds = {
    ev.WaveOpened: _wave_opened,
    ev.TasksAssigned: _tasks_assigned,
    ev.WavePlanned: _wave_planned,
    ev.WaveSettled: _wave_settled,
    ev.OutputsWritten: _outputs_written,
}
"""What becomes of waves, their judgement aside."""
