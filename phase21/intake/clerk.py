"""The clerk: what a submission means beside all that was accepted before, recorded or refused.

Asked by the receiver with the daemon's journal, and by verbs that rehearse a submission with one of paper.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from phase21.domain import events as ev
from phase21.domain.errors import InputRefused
from phase21.domain.ledger import Ledger
from phase21.domain.records import RunRecord
from phase21.domain.schedules import Recurrence
from phase21.domain.tasks import Task
from phase21.domain.workflows import Upstream, Workflow
from phase21.intake.forks import forked
from phase21.intake.predictions import read_folder
from phase21.intake.schedules import check_standing
from phase21.intake.standing import Known, faults_of, meant, named, refuse_into_workflow, settled, sound, wave_for
from phase21.intake.submissions import Fork, Submission
from phase21.intake.workflows import Compiled, compiled
from phase21.store.clock import Clock

SOURCES = ("tasks", "predictions", "workflow", "fork")


class StoreBehind(Exception):
    """What memory has put away is not on disk yet, so that the store cannot answer for it."""


class Lookup(Protocol):
    """What the store is asked of what memory has put away."""

    def submission(self, submission_id: str, /) -> object | None:
        """Whatever a submission became, None where it was never given."""

    def run(self, run_id: str, /) -> RunRecord | None:
        """A run's record as of its last closed wave."""

    def tasks(self, run_id: str, ids: Sequence[str], /) -> dict[str, str]:
        """The status of those of the tasks that are in closed waves."""


class Books(Protocol):
    """What a submission is decided by, and recorded in: a journal, or what stands for one."""

    ledger: Ledger
    clock: Clock

    @property
    def lookup(self) -> Lookup:
        """The store."""

    @property
    def store_id(self) -> str:
        """The store's name."""

    def append(self, event: ev.AnyEvent, /) -> object:
        """Record an event."""

    def survives(self, position: int, /) -> bool:
        """Whether the store answers for all up to a position."""

    def entries_of(self, run_id: str, /) -> Iterator[ev.Entry]:
        """What the store holds of a run."""


class Clerk:
    """See the module. `folder` is the one from which relative paths count.

    `fresh` are submissions that were accepted and are not on disk yet, `in_memory` the runs that the store need not answer for yet.
    """

    def __init__(self, books: Books, folder: str) -> None:
        self._books = books
        self.folder = folder
        self.fresh: set[str] = set()
        self.in_memory: frozenset[str] = frozenset()

    def accept(self, submission: Submission, mark: ev.QueueMark | None = None) -> None:
        """Record a submission: accepted, repeated, or a control. Raises InputRefused, and then records nothing of it."""
        submission_id = submission.submission_id or f"queue-{self._books.store_id[:12]}-{self._books.ledger.position + 1}"
        if submission.submission_id is not None and self._repeated(submission_id):
            self._books.append(ev.SubmissionRepeated(submission_id=submission_id, run_id=submission.run_id, mark=mark))
            return
        if submission.control is None:
            self._refuse_into_schedule(submission.run_id)
        if submission.every is not None:
            self._accept_schedule(submission, submission.every, submission_id, mark)
        elif submission.run_id in self._books.ledger.schedules:
            self._books.append(self._control_schedule(submission, submission_id, mark))
        elif submission.control is not None:
            self._books.append(self._control(submission, submission_id, mark))
        elif submission.predictions is not None:
            self._accept_folder(submission, submission_id, mark)
        elif submission.workflow is not None:
            self._accept_workflow(submission, compiled(submission.workflow), submission_id, mark)
        elif submission.fork is not None:
            self._accept_fork(submission, submission.fork, submission_id, mark)
        else:
            self._accept_tasks(submission, submission_id, mark)
        self.fresh.add(submission_id)

    def _repeated(self, submission_id: str) -> bool:
        return submission_id in self.fresh or self._books.lookup.submission(submission_id) is not None

    def _accept_tasks(self, submission: Submission, submission_id: str, mark: ev.QueueMark | None) -> None:
        tasks = submission.tasks or ()
        known = self._known(submission.run_id, named(tasks))
        refuse_into_workflow(known)
        wave = wave_for(known, submission.wave)
        for n, task in enumerate(tasks):
            if known.has(task.task_id):
                said = f"task_id {task.task_id} was already given in run {known.run_id}; it is unique in its run, for ever"
                raise InputRefused(said, f"tasks[{n}].task_id")
        faults = faults_of(known, {wave: tasks})
        for n, task in enumerate(tasks):
            if task.task_id in faults:
                raise InputRefused(faults[task.task_id], f"tasks[{n}].depends_on")
        self._append(submission, submission_id, mark, known, {wave: tasks})

    def _accept_folder(self, submission: Submission, submission_id: str, mark: ev.QueueMark | None) -> None:
        read = read_folder(os.path.join(self.folder, submission.predictions or ""))  # noqa: PTH118 - absolute ones stay
        everything = [task for tasks in read.waves.values() for task in tasks]
        known = self._known(submission.run_id, named(everything))
        refuse_into_workflow(known)
        for wave in read.waves:
            with _at("predictions"):
                wave_for(known, wave)
        given = next((task.task_id for task in everything if known.has(task.task_id)), None)
        if given is not None:
            said = f"task_id {given} was already given in run {known.run_id}; it is unique in its run, for ever"
            raise InputRefused(said, "predictions")
        waves, dropped = sound(known, read.waves)
        rows = [*read.rejected, *(read.places[task_id].rejected(said, "depends_on") for task_id, said in dropped.items())]
        for row in rows:
            fields = {name: getattr(row, name) for name in row.__struct_fields__}
            self._books.append(ev.SubmissionRejected(**fields, run_id=known.run_id))
        if not waves:
            raise InputRefused(f"{submission.predictions}: no task in it could be read", "predictions")
        self._append(submission, submission_id, mark, known, waves)

    def _accept_schedule(self, submission: Submission, every: Recurrence, submission_id: str, mark: ev.QueueMark | None) -> None:
        check_standing(every, len(self._books.ledger.schedules), self._books.clock.now_us())
        made = compiled(submission.workflow) if submission.workflow is not None else None
        tasks = made.tasks if made is not None else submission.tasks or ()
        if self._known(submission.run_id, ()).record is not None:
            said = f"run {submission.run_id} was already given; a schedule has a name of its own, after which its runs are named"
            raise InputRefused(said, "run_id")
        faults = faults_of(Known(submission.run_id, None, None), {1: tasks})
        for n, task in enumerate(tasks):
            if task.task_id in faults:
                raise InputRefused(faults[task.task_id], f"tasks[{n}].depends_on")
        self._books.append(
            ev.ScheduleAccepted(
                submission_id=submission_id,
                run_id=submission.run_id,
                every=every,
                tasks=tasks,
                workflow=made.workflow if made is not None else None,
                metadata=submission.metadata,
                mark=mark,
            )
        )

    def _refuse_into_schedule(self, run_id: str) -> None:
        if run_id in self._books.ledger.schedules:
            raise InputRefused(f"run_id {run_id} is a schedule that stands; cancel it first, or give another run_id", "run_id")

    def _control_schedule(self, submission: Submission, submission_id: str, mark: ev.QueueMark | None) -> ev.ControlReceived:
        if submission.control == "approve" or submission.task_ids is not None:
            said = f"{submission.run_id} is a schedule, which can be cancelled, paused and resumed as a whole; its runs have names"
            raise InputRefused(said, "task_ids" if submission.task_ids is not None else "control")
        return ev.ControlReceived(
            submission_id=submission_id,
            run_id=submission.run_id,
            control=submission.control or "",
            whole=True,
            metadata=submission.metadata,
            mark=mark,
        )

    def _accept_workflow(self, submission: Submission, made: Compiled, submission_id: str, mark: ev.QueueMark | None) -> None:
        known = self._unknown_run(submission)
        self._append(submission, submission_id, mark, known, {1: made.tasks}, workflow=made.workflow)

    def _accept_fork(self, submission: Submission, fork: Fork, submission_id: str, mark: ev.QueueMark | None) -> None:
        known, origin = self._unknown_run(submission), self._known(fork.run, ())
        if origin.record is None:
            raise InputRefused(f"no run {fork.run} was ever accepted", "fork.run")
        if origin.run is not None and not origin.run.idle:
            raise InputRefused(f"run {fork.run} has not ended; fork it when it has", "fork.run")
        if origin.record.workflow is not None and not self._books.survives(origin.record.workflow.ended_position):
            raise StoreBehind
        made = forked(self._books.entries_of(fork.run), fork.run, fork.begin)
        self._append(submission, submission_id, mark, known, {1: made.tasks}, workflow=made.workflow, upstream=made.upstream)

    def _unknown_run(self, submission: Submission) -> Known:
        """The run of a workflow, which is its own. Raises InputRefused where it is known already."""
        known = self._known(submission.run_id, ())
        if known.record is not None:
            said = f"run {submission.run_id} was already given; a workflow is a run of its own: give it another run_id"
            raise InputRefused(said, "run_id")
        return known

    def _append(
        self,
        submission: Submission,
        submission_id: str,
        mark: ev.QueueMark | None,
        known: Known,
        waves: Mapping[int, tuple[Task, ...]],
        workflow: Workflow | None = None,
        upstream: Mapping[str, Upstream] = MappingProxyType({}),
    ) -> None:
        """Record an acceptance. `upstream` is what became of tasks that the run's own depend on and that it was never given."""
        kept = {task_id: str(outcome.status) for task_id, outcome in upstream.items()}
        self._books.append(
            ev.SubmissionAccepted(
                submission_id=submission_id,
                run_id=known.run_id,
                waves=dict(waves),
                metadata=submission.metadata,
                source=next(name for name in SOURCES if getattr(submission, name) is not None),
                settled=kept if known.record is None else settled(known, waves),
                mark=mark,
                run=known.recalled,
                workflow=workflow,
                upstream=dict(upstream),
            )
        )

    def _control(self, submission: Submission, submission_id: str, mark: ev.QueueMark | None) -> ev.ControlReceived:
        asked = tuple(dict.fromkeys(submission.task_ids or ()))
        known = self._known(submission.run_id, asked)
        if known.run is None and known.record is None:
            raise InputRefused(f"no run {submission.run_id} was ever accepted", "run_id")
        for n, task_id in enumerate(submission.task_ids or ()):
            if not known.has(task_id):
                raise InputRefused(f"run {known.run_id} has no task {task_id}", f"task_ids[{n}]")
        return ev.ControlReceived(
            submission_id=submission_id,
            run_id=known.run_id,
            control=submission.control or "",
            task_ids=asked or meant(known, submission.control),
            whole=not asked,
            metadata=submission.metadata,
            mark=mark,
            run=known.recalled,
        )

    def _known(self, run_id: str, ids: Sequence[str]) -> Known:
        """The run, and which of the ids stand in its closed waves. Raises StoreBehind where the store cannot say yet."""
        run = self._books.ledger.runs.get(run_id)
        if run is None and run_id in self.in_memory:
            raise StoreBehind
        if run is not None and not run.record.closed_waves:
            return Known(run_id, run, run.record)
        stored = self._books.lookup.run(run_id)
        if run is not None and (stored is None or stored.closed_waves < run.record.closed_waves):
            raise StoreBehind
        closed = self._books.lookup.tasks(run_id, ids) if stored is not None and ids else {}
        return Known(run_id, run, run.record if run else stored, closed)


@contextlib.contextmanager
def _at(path: str) -> Iterator[None]:
    """Say of a refusal that it stands at `path`."""
    try:
        yield
    except InputRefused as refusal:
        raise InputRefused(str(refusal), path) from None
