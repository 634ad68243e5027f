"""What a run's files are called, and what a judged wave puts into them.

All of it follows from the wave's record: nothing here reads a clock or touches a disk, or a rebuilt folder would differ. The work
is done in steps, between which others have their turn.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping
from typing import Any, TypeVar

import msgspec

from phase21.domain.records import RunRecord, WaveRecord
from phase21.evaluation import lessons
from phase21.readers import reports, rows
from phase21.readers.plots import PICTURE
from phase21.store import codec
from phase21.store.clock import iso

SIGNALS = "phase21_learning_signals.jsonl"
DECISIONS = "safety_gate_decisions.jsonl"
ANOMALIES = "anomalies.jsonl"
HEURISTICS = "phase16/heuristic_feedback.jsonl"
COORDINATION = "phase18/coordination_feedback.jsonl"
VALIDATION = "phase20/prediction_validation_feedback.jsonl"
GROWING = (SIGNALS, DECISIONS, ANOMALIES, HEURISTICS, COORDINATION, VALIDATION)

HEALTH = "phase21_system_health.json"
SUMMARY = "phase21_execution_summary.json"
REPORT = "PHASE_21_AUTONOMOUS_EXECUTION.md"

ASSIGNMENTS = "agent_assignments.jsonl"
EXECUTED = "executed_tasks.jsonl"
METRICS = "agent_metrics.jsonl"
FEEDBACK = "agent_feedback.jsonl"
AGENT_FILES = (ASSIGNMENTS, EXECUTED, METRICS, FEEDBACK)
PLAN = "coordination_plan.json"
UNASSIGNED = "unassigned"

CHUNK_TASKS = 500
"""How many tasks are dealt with in one step."""

GROUP_ROWS = 250
"""How many rows of one file are worth encoding before all are there."""

T = TypeVar("T")
Steps = Generator[None, None, T]
"""Work in steps: it yields where others may have their turn, and returns its result."""


def drained(steps: Steps[T]) -> T:
    """The result of steps that are taken one after the other."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            result: T = stop.value
            return result


async def stepped(steps: Steps[T], pause: Callable[[], Awaitable[None]]) -> T:
    """The same, with a pause before each of them."""
    while True:
        await pause()
        try:
            next(steps)
        except StopIteration as stop:
            result: T = stop.value
            return result


class WaveContents(msgspec.Struct, frozen=True, kw_only=True):
    """A judged wave's files (by path within its folder), and what it adds to the run's growing files."""

    wave: int
    files: dict[str, bytes | bytearray]
    grown: dict[str, bytes | bytearray]


def contents_of(wave: WaveRecord, run: RunRecord) -> Steps[WaveContents]:
    """All that is to be written of a judged wave, encoded in steps. `run` is not tallied yet."""
    instants: dict[int, str] = {}
    lines = yield from _lesson_lines(wave)
    contents = yield from _agent_files(wave, lines.feedback, instants)
    plan = rows.plan_row(wave)
    if plan is not None:
        contents[PLAN] = codec.pretty(plan)
    yield
    decisions = yield from _decisions(wave, instants)
    grown = _growth(wave, run, lines, decisions)
    return WaveContents(wave=wave.number, files=contents, grown=grown)


# -- what the files hold -------------------------------------------------------------------------------------------------


def _agent_files(
    wave: WaveRecord, feedback: Mapping[str, list[bytes]], instants: dict[int, str]
) -> Steps[dict[str, bytes | bytearray]]:
    """The contents of a wave's files by their path within its folder, those of agents that had tasks."""
    folders: dict[str, dict[str, bytearray]] = {}
    yield from _assignments(wave, folders)
    yield from _executed(wave, folders, instants)
    _metrics(wave, folders)
    for agent_id, lines in feedback.items():
        if agent_id in folders:
            for part in lines:
                folders[agent_id][FEEDBACK] += part
    return {
        f"{name}/{file_name}": data
        for name, contents in folders.items()
        for file_name, data in contents.items()
        if data or name != UNASSIGNED or file_name == EXECUTED
    }


def _folder(folders: dict[str, dict[str, bytearray]], name: str) -> dict[str, bytearray]:
    folder = folders.get(name)
    if folder is None:
        folder = folders[name] = {file_name: bytearray() for file_name in AGENT_FILES}
    return folder


def _add(folders: dict[str, dict[str, bytearray]], file_name: str, groups: Mapping[str, list[Any]], least: int = 1) -> None:
    """Encode the rows of each group that has at least so many, and empty it."""
    for name, group in groups.items():
        if len(group) >= least:
            _folder(folders, name)[file_name] += codec.lines(group)
            group.clear()


def _assignments(wave: WaveRecord, folders: dict[str, dict[str, bytearray]]) -> Steps[None]:
    groups: defaultdict[str, list[rows.AssignmentRow]] = defaultdict(list)
    for batch in wave.batches:
        assigned_at = iso(batch.at_us)
        for first in range(0, len(batch.assignments), CHUNK_TASKS):
            for given in batch.assignments[first : first + CHUNK_TASKS]:
                groups[given.agent_id].append(rows.assignment_row(given, assigned_at, wave.number, batch.strategy))
            _add(folders, ASSIGNMENTS, groups, GROUP_ROWS)
            yield
    _add(folders, ASSIGNMENTS, groups)


def _executed(wave: WaveRecord, folders: dict[str, dict[str, bytearray]], instants: dict[int, str]) -> Steps[None]:
    """Each task's row; the text of its start is left in `instants`, since the gates approved at that very time."""
    records, number = list(wave.tasks.values()), wave.number
    groups: defaultdict[str, list[rows.ExecutedRow]] = defaultdict(list)
    for first in range(0, len(records), CHUNK_TASKS):
        for record in records[first : first + CHUNK_TASKS]:
            agent_id, start_us = rows.holder(record), record.first_start_us
            start_time = None
            if start_us is not None:
                start_time = instants[start_us] = iso(start_us)
            groups[agent_id or UNASSIGNED].append(rows.executed_row(record, agent_id, number, start_time))
        _add(folders, EXECUTED, groups, GROUP_ROWS)
        yield
    _add(folders, EXECUTED, groups)


def _metrics(wave: WaveRecord, folders: dict[str, dict[str, bytearray]]) -> None:
    timestamp = rows.instant(wave.health_us)
    for metrics in rows.judged(wave).agents:
        if metrics.agent_id in folders:
            folders[metrics.agent_id][METRICS] += codec.lines(rows.metric_rows(metrics, timestamp, wave.number))


class LessonLines:
    """The lines of a wave's signals: all of them, those of each agent, and what is said to the planner."""

    def __init__(self) -> None:
        self.sent = bytearray()
        self.feedback: dict[str, list[bytes]] = {}
        self.validation = bytearray()

    def add(self, agent_id: str | None, lines: bytes) -> None:
        """Lines about one agent, or about none."""
        self.sent += lines
        if agent_id is not None:
            self.feedback.setdefault(agent_id, []).append(lines)


def _lesson_lines(wave: WaveRecord) -> Steps[LessonLines]:
    """The lines of every signal; those about tasks stand together by agent."""
    lines = LessonLines()
    for (_, lesson), row in zip(wave.signals, rows.signal_rows(wave.signals, wave), strict=True):
        lines.add(lesson.content.get("agent_id"), codec.line(row))
    groups: defaultdict[str, list[rows.SignalRow]] = defaultdict(list)
    run_id, number = wave.run_id, wave.number
    for at_us, batch in wave.validations:
        generated_at = iso(at_us)
        said: list[rows.ValidationRow] = []
        for made in batch:
            signal, validation = rows.validation_rows(made, generated_at, run_id, number)
            said.append(validation)
            groups[made.agent_id].append(signal)
        lines.validation += codec.lines(said)
        yield
    for agent_id, group in groups.items():
        lines.add(agent_id, codec.lines(group))
    return lines


def _decisions(wave: WaveRecord, instants: dict[int, str]) -> Steps[bytearray]:
    lines = bytearray()
    for first in range(0, len(wave.decisions), CHUNK_TASKS):
        lines += codec.lines(
            [
                rows.decision_row(made, wave.number, instants.get(made.at_us) or iso(made.at_us))
                for made in wave.decisions[first : first + CHUNK_TASKS]
            ]
        )
        yield
    return lines


def _growth(wave: WaveRecord, run: RunRecord, lines: LessonLines, decisions: bytearray) -> dict[str, bytes | bytearray]:
    """What the wave adds to each growing file."""
    return {
        SIGNALS: lines.sent,
        DECISIONS: decisions,
        ANOMALIES: codec.lines(rows.anomaly_row(at_us, anomaly) for at_us, anomaly in wave.anomalies),
        HEURISTICS: codec.lines(lessons.heuristic_rows(wave, _before(run, wave))),
        COORDINATION: codec.lines(lessons.coordination_rows(wave, rows.judged(wave))),
        VALIDATION: lines.validation,
    }


def _before(run: RunRecord, wave: WaveRecord) -> RunRecord:
    """The run as it stood before this wave taught it anything about heuristics."""
    known = {name: tally for name, tally in wave.heuristics_before.items() if tally[1]}
    return msgspec.structs.replace(run, heuristics=known)


def run_files(run: RunRecord, digests: Iterable[bytes]) -> dict[str, bytes | bytearray]:
    """The run's health, report with its picture, and summary. `digests` are those of all its closed waves, in order."""
    history = bytearray()
    newest: deque[bytes] = deque(maxlen=reports.WAVES_SHOWN)
    for digest in digests:
        history += b",\n    " if history else b"\n    "
        history += rows.health_part(digest)
        newest.append(digest)
    shown = [codec.decode(digest) for digest in newest]
    return {
        HEALTH: _system_health(newest[-1] if newest else None, history),
        PICTURE: reports.picture(run, shown).encode(),
        REPORT: reports.render(run, shown).encode(),
        SUMMARY: codec.pretty(rows.summary_of(run)),
    }


def _system_health(newest: bytes | None, history: bytearray) -> bytearray:
    """The newest wave's health (UNKNOWN where there is none), and behind it every wave's, one a line.

    They stay encoded: as values, those of a thousand waves would be megabytes.
    """
    health = codec.decode(newest, rows.HealthRow) if newest else rows.HealthRow()
    told = bytearray(codec.pretty(health).rstrip().removesuffix(b"}").rstrip())
    told += b',\n  "history": ['
    told += history
    told += b"\n  ]\n}\n" if history else b"]\n}\n"
    return told


def wave_digest(wave: WaveRecord, run: RunRecord) -> Steps[bytes]:
    """What the store keeps of a judged wave of a run, encoded (`rows.Digest`)."""
    graph = (yield from rows.graph_of(wave)) if run.workflow is not None else msgspec.UNSET
    return codec.encode(rows.digest_of(wave, graph))
