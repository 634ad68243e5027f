"""The receiver: lines of the queue file become entries of the journal.

The one place that decides what is accepted, for the daemon and for `run`. Each line is read, judged beside all that was accepted
before, and recorded with the queue's mark in one transaction. A bad line is set aside; it never stops the receiver.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

import watchfiles

from phase21.domain import events as ev
from phase21.domain.errors import InputRefused, PermissionsError
from phase21.domain.schedules import Recurrence
from phase21.domain.settings import CurrentSettings
from phase21.domain.tasks import Task
from phase21.domain.workflows import Upstream, Workflow
from phase21.intake.forks import forked
from phase21.intake.predictions import read_folder
from phase21.intake.queue import RAW_KEPT_BYTES, Line, QueueReader
from phase21.intake.schedules import check_standing
from phase21.intake.standing import Known, faults_of, meant, named, refuse_into_workflow, settled, sound, wave_for
from phase21.intake.submissions import Fork, Submission, parse
from phase21.intake.workflows import Compiled, compiled
from phase21.store import codec
from phase21.store.journal import Journal

RESCAN_S = 2.0
MAX_OPEN_TASKS = 1_000_000
CHUNK_BYTES = 1 << 20
SOURCES = ("tasks", "predictions", "workflow", "fork")


class _StoreBehind(Exception):
    """What memory has put away is not on disk yet, so that the store cannot answer for it."""


class Receiver:
    """Follows the queue until it is stopped. `folder` is the queue file's, from which relative paths count."""

    def __init__(self, journal: Journal, reader: QueueReader, settings: CurrentSettings, *, folder: str) -> None:
        self.journal = journal
        self.reader = reader
        self.settings = settings
        self.folder = folder
        self._arrived = asyncio.Event()
        self._fresh: set[str] = set()
        self._in_memory: frozenset[str] = frozenset()
        self._refused: str | None = None

    # -- following ---------------------------------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event) -> None:
        """Take in what comes, until `stop` is set."""
        async with asyncio.TaskGroup() as group:
            work = [group.create_task(self._follow()), group.create_task(self._watch(stop))]
            await stop.wait()
            for task in work:
                task.cancel()

    async def _follow(self) -> None:
        while True:
            self._arrived.clear()
            await self.drain()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RESCAN_S):
                    await self._arrived.wait()

    async def _watch(self, stop: asyncio.Event) -> None:
        """Say when the queue file changes. Where nothing can be watched, the rescan alone finds it."""
        name = os.path.basename(self.reader.path)  # noqa: PTH119 - the name alone

        def concerns(_: watchfiles.Change, path: str) -> bool:
            return os.path.basename(path).startswith(name)  # noqa: PTH119 - the name alone

        with contextlib.suppress(OSError, RuntimeError):
            watching = watchfiles.awatch(
                self.folder, watch_filter=concerns, step=10, debounce=20, stop_event=stop, recursive=False, rust_timeout=1000
            )
            # What came between the first look and the beginning of the watch would wait for the rescan.
            asyncio.get_running_loop().call_soon(self._arrived.set)
            async for _ in watching:
                self._arrived.set()

    async def drain(self) -> int:
        """Take in all that the queue holds now, durably. Returns how many lines there were."""
        taken = 0
        while lines := await self._next_lines():
            for line in lines:
                while not self._take(line):
                    await self._fence()
            taken += len(lines)
            await self.journal.durable()
            self._fresh.clear()
        return taken

    async def _next_lines(self) -> list[Line]:
        await self._room()
        await self._fence()
        try:
            lines = self.reader.read(CHUNK_BYTES)
        except (PermissionsError, OSError) as error:
            self._refuse_queue(codec.sayable(" ".join(str(error).split())))
            return []
        self._refused = None
        if not lines and self.reader.mark is not None and self.reader.mark != self.journal.ledger.mark:
            self.journal.append(ev.QueueAdvanced(mark=self.reader.mark))
        return lines

    def _refuse_queue(self, said: str) -> None:
        if said != self._refused:
            self._refused = said
            self.journal.append(ev.QueueRefused(error=said))

    async def _room(self) -> None:
        """Wait while more tasks are open than memory should hold, and some are being carried out."""
        ledger = self.journal.ledger

        def room() -> bool:
            return ledger.open_tasks <= MAX_OPEN_TASKS or not any(run.current or run.closing for run in ledger.runs.values())

        await self.journal.until(room)

    async def _fence(self) -> None:
        """Have the store answer for every run that is not in memory now."""
        in_memory = frozenset(self.journal.ledger.runs)
        await self.journal.durable()
        self._in_memory = in_memory

    # -- taking one line ---------------------------------------------------------------------------------------------

    def _take(self, line: Line) -> bool:
        """Record what a line means; False where the store must catch up first."""
        submission = None
        try:
            if line.error is not None:
                raise InputRefused(line.error)
            submission = parse(line.raw, max_line_bytes=self.reader.max_line_bytes)
            self.accept(submission, line.mark)
        except _StoreBehind:
            return False
        except InputRefused as refusal:
            self._reject(line, str(refusal), refusal.path, submission)
        except Exception as error:  # noqa: BLE001 - one line must not stop the others
            said = " ".join(f"{type(error).__name__}: {error}".split())
            self._reject(line, f"the line could not be taken in ({said})", None, submission)
        return True

    def _reject(self, line: Line, error: str, path: str | None, submission: Submission | None) -> None:
        self.journal.append(
            ev.SubmissionRejected(
                error=codec.sayable(error),
                line=line.number,
                offset=line.offset,
                path=path,
                raw=line.raw[:RAW_KEPT_BYTES].decode(errors="replace"),
                run_id=submission.run_id if submission else None,
                submission_id=submission.submission_id if submission else None,
                mark=line.mark,
            )
        )

    # -- deciding ----------------------------------------------------------------------------------------------------

    def accept(self, submission: Submission, mark: ev.QueueMark | None = None) -> None:
        """Record a submission: accepted, repeated, or a control. Raises InputRefused, and then records nothing of it."""
        submission_id = submission.submission_id or f"queue-{self.journal.store_id[:12]}-{self.journal.ledger.position + 1}"
        if submission.submission_id is not None and self._repeated(submission_id):
            self.journal.append(ev.SubmissionRepeated(submission_id=submission_id, run_id=submission.run_id, mark=mark))
            return
        if submission.control is None:
            self._refuse_into_schedule(submission.run_id)
        if submission.every is not None:
            self._accept_schedule(submission, submission.every, submission_id, mark)
        elif submission.run_id in self.journal.ledger.schedules:
            self.journal.append(self._control_schedule(submission, submission_id, mark))
        elif submission.control is not None:
            self.journal.append(self._control(submission, submission_id, mark))
        elif submission.predictions is not None:
            self._accept_folder(submission, submission_id, mark)
        elif submission.workflow is not None:
            self._accept_workflow(submission, compiled(submission.workflow), submission_id, mark)
        elif submission.fork is not None:
            self._accept_fork(submission, submission.fork, submission_id, mark)
        else:
            self._accept_tasks(submission, submission_id, mark)
        self._fresh.add(submission_id)

    def _repeated(self, submission_id: str) -> bool:
        return submission_id in self._fresh or self.journal.lookup.submission(submission_id) is not None

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
            self.journal.append(ev.SubmissionRejected(**fields, run_id=known.run_id))
        if not waves:
            raise InputRefused(f"{submission.predictions}: no task in it could be read", "predictions")
        self._append(submission, submission_id, mark, known, waves)

    def _accept_schedule(self, submission: Submission, every: Recurrence, submission_id: str, mark: ev.QueueMark | None) -> None:
        check_standing(every, len(self.journal.ledger.schedules), self.journal.clock.now_us())
        made = compiled(submission.workflow) if submission.workflow is not None else None
        tasks = made.tasks if made is not None else submission.tasks or ()
        if self._known(submission.run_id, ()).record is not None:
            said = f"run {submission.run_id} was already given; a schedule has a name of its own, after which its runs are named"
            raise InputRefused(said, "run_id")
        faults = faults_of(Known(submission.run_id, None, None), {1: tasks})
        for n, task in enumerate(tasks):
            if task.task_id in faults:
                raise InputRefused(faults[task.task_id], f"tasks[{n}].depends_on")
        self.journal.append(
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
        if run_id in self.journal.ledger.schedules:
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
        if origin.record.workflow is not None and not self.journal.survives(origin.record.workflow.ended_position):
            raise _StoreBehind
        made = forked(self.journal.entries_of(fork.run), fork.run, fork.begin)
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
        self.journal.append(
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
        """The run, and which of the ids stand in its closed waves. Raises _StoreBehind where the store cannot say yet."""
        run = self.journal.ledger.runs.get(run_id)
        if run is None and run_id in self._in_memory:
            raise _StoreBehind
        if run is not None and not run.record.closed_waves:
            return Known(run_id, run, run.record)
        stored = self.journal.lookup.run(run_id)
        if run is not None and (stored is None or stored.closed_waves < run.record.closed_waves):
            raise _StoreBehind
        closed = self.journal.lookup.tasks(run_id, ids) if stored is not None and ids else {}
        return Known(run_id, run, run.record if run else stored, closed)


@contextlib.contextmanager
def _at(path: str) -> Iterator[None]:
    """Say of a refusal that it stands at `path`."""
    try:
        yield
    except InputRefused as refusal:
        raise InputRefused(str(refusal), path) from None
