"""Lines of the queue file become entries of the journal: what is accepted, repeated, refused, and in which order."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from pathlib import Path

import pytest

from phase21.domain import events as ev
from phase21.domain.judgements import Grade, Health, Metrics
from phase21.domain.settings import CurrentSettings, Settings
from phase21.intake import clerk
from phase21.intake import receiver as receiver_module
from phase21.intake.queue import QueueReader, append
from phase21.intake.receiver import Receiver
from phase21.intake.submissions import Submission, parse
from phase21.store import codec
from phase21.store.clock import Clock
from phase21.store.journal import Journal

NO_HEALTH = Health(
    score=None,
    status=Grade.UNKNOWN,
    metrics=Metrics(
        success_rate=None, availability=1.0, confidence=None, prediction_error=None, accuracy=None, brier_score=None,
        load_balance=None, completed_tasks=0, failed_tasks=0, started_tasks=0,
    ),
    agents=(),
)  # fmt: skip


class Desk:
    """A receiver at its journal, and all that it recorded."""

    def __init__(self, journal: Journal, folder: Path) -> None:
        self.journal = journal
        self.path = str(folder / "queue.jsonl")
        self.events: list[ev.AnyEvent] = []
        real = journal.append

        def recorded(event):
            self.events.append(event)
            return real(event)

        journal.append = recorded
        settings = Settings()
        reader = QueueReader(self.path, journal.ledger.mark, max_line_bytes=settings.queue.max_line_bytes, allow_shared=False)
        self.receiver = Receiver(journal, reader, CurrentSettings(settings), folder=str(folder))

    async def send(self, *submissions) -> list[ev.AnyEvent]:
        """What became of these lines."""
        before = len(self.events)
        append(self.path, [one if isinstance(one, bytes) else codec.encode(one) for one in submissions])
        await self.receiver.drain()
        return self.events[before:]

    def close_wave(self, run_id: str, wave: int, statuses: dict[str, str]) -> None:
        """Carry out a wave as told."""
        where = {"run_id": run_id, "wave": wave}
        append = self.journal.append
        append(ev.WaveOpened(**where, carried=tuple(self.journal.ledger.runs[run_id].record.carried)))
        for task_id, status in statuses.items():
            if status == "DEFERRED":
                append(ev.TaskDeferred(**where, task_id=task_id))
            elif status == "FAILED":
                append(ev.TaskFailed(**where, task_id=task_id, error_msg="no", gate="validation"))
            else:
                append(ev.AttemptStarted(**where, task_id=task_id, agent_id="a", attempt=1, confidence=1.0))
                append(ev.TaskCompleted(**where, task_id=task_id, agent_id="a", attempt=1, duration_s=1.0))
        append(ev.WaveSettled(**where))
        append(ev.HealthScored(**where, health=NO_HEALTH))
        append(ev.PredictionsCalibrated(**where, agents={}))
        append(ev.OutputsWritten(**where))


@contextlib.asynccontextmanager
async def desk_in(folder: Path):
    async with Journal.opened(folder / "journal.db", clock=Clock()) as journal:
        yield Desk(journal, folder)


def tasks(*ids, **more):
    return [{"task_id": one, **more} for one in ids]


def work(run_id="r", *ids, **more):
    return {"run_id": run_id, "tasks": tasks(*(ids or ("t1",))), **more}


async def test_lines_become_entries_with_their_marks(tmp_path):
    """Each line is one entry that carries the queue's mark; waves are numbered on."""
    async with desk_in(tmp_path) as desk:
        first, second = await desk.send(work("r", "a"), work("r", "b", submission_id="s", metadata={"by": "me"}))
        assert [type(first), list(first.waves), list(second.waves)] == [ev.SubmissionAccepted, [1], [2]]
        made = f"queue-{desk.journal.store_id[:12]}-1"
        assert (first.submission_id, second.submission_id, second.metadata) == (made, "s", {"by": "me"})
        assert first.mark.line == 1
        assert desk.journal.ledger.mark == second.mark == desk.receiver.reader.mark
        assert desk.journal.lookup.submission("s") == ("r", [2])


async def test_a_restart_goes_on_behind_the_mark(tmp_path):
    """What was recorded is not read again, and nothing else is passed over."""
    async with desk_in(tmp_path) as desk:
        await desk.send(work("r", "a"))
    append(desk.path, [codec.encode(work("r", "b"))])
    async with desk_in(tmp_path) as desk:
        assert await desk.receiver.drain() == 1
        assert set(desk.journal.ledger.runs["r"].where) == {"a", "b"}
        assert await desk.receiver.drain() == 0


async def test_a_submission_id_counts_once(tmp_path):
    """A repetition is recorded as one, within a chunk, later, and for a control."""
    async with desk_in(tmp_path) as desk:
        kinds = [
            type(event) for event in await desk.send(work(submission_id="s"), work(submission_id="s"), work("q", submission_id="s"))
        ]
        assert kinds == [ev.SubmissionAccepted, ev.SubmissionRepeated, ev.SubmissionRepeated]
        assert type((await desk.send(work("r", "t2", submission_id="s")))[0]) is ev.SubmissionRepeated
        pause = {"run_id": "r", "control": "pause", "submission_id": "p"}
        assert [type(event) for event in await desk.send(pause, pause)] == [ev.ControlReceived, ev.SubmissionRepeated]


async def test_a_bad_line_is_set_aside_and_the_rest_goes_on(tmp_path):
    """The refusal says where it stood and what it named."""
    async with desk_in(tmp_path) as desk:
        bad, wrong, good = await desk.send(b"{torn", work("r", wave=0), work())
        assert (bad.line, bad.offset, bad.path, bad.raw) == (1, 0, None, "{torn")
        assert (wrong.line, wrong.offset, wrong.path) == (2, 6, "wave")
        assert type(good) is ev.SubmissionAccepted
        (again,) = await desk.send(work(submission_id="mine"))
        assert (again.path, again.run_id, again.submission_id) == ("tasks[0].task_id", "r", "mine")


async def test_an_unforeseen_fault_sets_its_line_aside(tmp_path, monkeypatch):
    """One line never stops the others."""
    async with desk_in(tmp_path) as desk:
        real = parse

        def faulty(line, **limits):
            if b"boom" in line:
                raise RuntimeError("two\nlines")
            return real(line, **limits)

        monkeypatch.setattr(receiver_module, "parse", faulty)
        bad, good = await desk.send(work("boom"), work())
        assert "RuntimeError: two lines" in bad.error
        assert type(good) is ev.SubmissionAccepted


async def test_wave_numbers_only_go_on(tmp_path):
    """Gaps are allowed; what was given, or lies at or below a started wave, is refused."""
    async with desk_in(tmp_path) as desk:
        await desk.send(work("r", "a", wave=5), work("r", "b", wave=3), work("r", "c"))
        assert sorted(desk.journal.ledger.runs["r"].waves) == [3, 5, 6]
        assert (await desk.send(work("r", "d", wave=5)))[0].path == "wave"
        desk.close_wave("r", 3, {"b": "COMPLETED"})
        refused, below, between = await desk.send(work("r", "d", wave=3), work("r", "d", wave=2), work("r", "d", wave=4))
        assert (refused.path, below.path, list(between.waves)) == ("wave", "wave", [4])


async def test_a_task_id_is_unique_in_its_run_for_ever(tmp_path):
    """Open, closed or deferred; another run may use it."""
    async with desk_in(tmp_path) as desk:
        await desk.send(work("r", "open", "kept", wave=2), work("r", "closed", "deferred", wave=1))
        desk.close_wave("r", 1, {"closed": "COMPLETED", "deferred": "DEFERRED"})
        for task_id in ("open", "closed", "deferred"):
            (event,) = await desk.send({"run_id": "r", "tasks": tasks("new", task_id)})
            assert (type(event), event.path) == (ev.SubmissionRejected, "tasks[1].task_id")
        assert type((await desk.send(work("other", "open")))[0]) is ev.SubmissionAccepted


async def test_dependencies_are_known_and_earlier(tmp_path):
    """Of the same line, or of the run's earlier waves, whatever became of them."""
    async with desk_in(tmp_path) as desk:
        await desk.send(work("r", "done", "bad", "asks", wave=1), work("r", "late", wave=9))
        desk.close_wave("r", 1, {"done": "COMPLETED", "bad": "FAILED", "asks": "DEFERRED"})
        needy = {"task_id": "n", "depends_on": ["done", "bad", "asks"]}
        (event,) = await desk.send({"run_id": "r", "wave": 5, "tasks": [needy, {"task_id": "m", "depends_on": ["n"]}]})
        assert event.settled == {"done": "COMPLETED", "bad": "FAILED", "asks": "DEFERRED"}
        assert desk.journal.ledger.runs["r"].record.awaited == event.settled
        for needed in ("late", "nobody"):
            row = {"task_id": "x", "depends_on": [needed]}
            (event,) = await desk.send({"run_id": "r", "wave": 6, "tasks": [{"task_id": "y"}, row]})
            assert (type(event), event.path) == (ev.SubmissionRejected, "tasks[1].depends_on")


async def test_what_ended_in_an_open_wave_is_not_waited_for(tmp_path):
    """A dependency that ended before its wave is closed is settled at acceptance."""
    async with desk_in(tmp_path) as desk:
        await desk.send(work("r", "a", "b"))
        desk.journal.append(ev.WaveOpened(run_id="r", wave=1))
        desk.journal.append(ev.TaskFailed(run_id="r", wave=1, task_id="a", error_msg="no", gate="validation"))
        (event,) = await desk.send({"run_id": "r", "tasks": tasks("c", depends_on=["a", "b"])})
        assert event.settled == {"a": "FAILED"}


async def test_controls_mean_what_stands_now(tmp_path):
    """Without task ids: all deferred (approve), all that has not ended (cancel)."""
    async with desk_in(tmp_path) as desk:
        await desk.send(work("r", "a", "b", wave=1), work("r", "c", wave=2))
        assert (await desk.send({"run_id": "r", "control": "approve"}))[0].task_ids == ()
        desk.close_wave("r", 1, {"a": "COMPLETED", "b": "DEFERRED"})
        approve, cancel, one = await desk.send(
            {"run_id": "r", "control": "approve"},
            {"run_id": "r", "control": "cancel"},
            {"run_id": "r", "control": "cancel", "task_ids": ["a", "c", "a"]},
        )
        assert (approve.task_ids, cancel.task_ids, one.task_ids) == (("b",), ("b", "c"), ("a", "c"))
        unknown, no_run = await desk.send(
            {"run_id": "r", "control": "cancel", "task_ids": ["a", "zz"]}, {"run_id": "nobody", "control": "pause"}
        )
        assert (unknown.path, no_run.path) == ("task_ids[1]", "run_id")


async def test_metadata_is_kept_in_the_journal(tmp_path):
    """What a submission says of itself stands in its entry, be it tasks, a folder or a control."""
    folder_of(tmp_path / "p20", {"task_id": "a"})
    about = {"metadata": {"by": ["me", 1]}}
    async with desk_in(tmp_path) as desk:
        for asked in (work("r", "b"), {"run_id": "q", "predictions": "p20"}, {"run_id": "r", "control": "pause"}):
            (event,) = await desk.send({**asked, **about})
            assert event.metadata == about["metadata"]


async def test_an_id_counts_from_its_acceptance_on(tmp_path):
    """A refused line has not used its submission id up; an accepted one has, after a restart too."""
    async with desk_in(tmp_path) as desk:
        kinds = [type(event) for event in await desk.send(work(submission_id="s", wave=0), work(submission_id="s"))]
        assert kinds == [ev.SubmissionRejected, ev.SubmissionAccepted]
    async with desk_in(tmp_path) as desk:
        (event,) = await desk.send(work("q", submission_id="s"))
        assert type(event) is ev.SubmissionRepeated


async def test_what_a_folder_held_is_journaled_at_acceptance(tmp_path):
    """A folder that is gone after its acceptance is missed by nobody."""
    source = folder_of(tmp_path / "p20", {"task_id": "a", "payload": {"n": 1}}, {"task_id": "b", "wave": 2})
    async with desk_in(tmp_path) as desk:
        await desk.send({"run_id": "r", "predictions": "p20"})
    shutil.rmtree(source)
    async with desk_in(tmp_path) as desk:
        run = desk.journal.ledger.runs["r"]
        assert sorted(run.waves) == [1, 2]
        assert run.waves[1].tasks["a"].task.payload == {"n": 1}


async def test_a_run_that_memory_put_away_is_recalled(tmp_path, monkeypatch):
    """Its record comes from the store, also where its closing was only just recorded."""
    monkeypatch.setattr("phase21.domain.folds.known.IDLE_RUNS_KEPT", 1)
    async with desk_in(tmp_path) as desk:
        for run_id in ("old", "next", "last"):
            await desk.send(work(run_id, "t1"))
        for run_id in ("old", "next", "last"):
            desk.close_wave(run_id, 1, {"t1": "COMPLETED"})
        assert "old" not in desk.journal.ledger.runs
        taken, more, pause = await desk.send(work("old", "t1"), work("old", "t2"), {"run_id": "next", "control": "pause"})
        assert taken.path == "tasks[0].task_id"
        assert (list(more.waves), more.run.run_id, pause.run.run_id) == ([2], "old", "next")
        assert desk.journal.ledger.runs["old"].record.closed_waves == 1


async def test_a_store_that_lags_behind_is_waited_for(tmp_path):
    """A wave that was closed while the receiver looked elsewhere is still remembered."""
    async with desk_in(tmp_path) as desk:
        await desk.send(work("r", "t1"))
        desk.close_wave("r", 1, {"t1": "COMPLETED"})
        line = codec.encode(work("r", "t1"))
        with pytest.raises(clerk.StoreBehind):
            desk.receiver.accept(parse(line))
        (event,) = await desk.send(line)
        assert (type(event), event.path) == (ev.SubmissionRejected, "tasks[0].task_id")


def folder_of(path: Path, *rows) -> Path:
    path.mkdir()
    (path / "predicted_tasks.jsonl").write_bytes(b"".join(codec.line(row) for row in rows))
    return path


async def test_a_folder_becomes_waves_in_one_entry(tmp_path):
    """Relative to the queue's folder; rows that do not hold are set aside with their place, and what hangs on them."""
    rows = [
        {"task_id": "a"},
        {"task_id": "b", "wave": 2, "depends_on": ["a"]},
        {"task_id": "c", "depends_on": ["b"]},
        {"task_id": "d", "depends_on": ["c"]},
        {"task_id": "e", "depends_on": ["f"]},
        {"task_id": "f", "depends_on": ["e"]},
        {"task_id": "g", "priority": -1},
    ]
    folder_of(tmp_path / "p20", *rows)
    async with desk_in(tmp_path) as desk:
        *rejected, accepted = await desk.send({"run_id": "r", "predictions": "p20", "submission_id": "s"})
        assert {wave: [task.task_id for task in found] for wave, found in accepted.waves.items()} == {1: ["a"], 2: ["b"]}
        assert accepted.source == "predictions"
        assert {(event.line, event.path) for event in rejected} == {(n, "depends_on") for n in (3, 4, 5, 6)} | {(7, "priority")}
        assert {event.file for event in rejected} == {"predicted_tasks.jsonl"}
        assert all(event.mark is None and event.submission_id is None for event in rejected)
        (repeated,) = await desk.send({"run_id": "r", "predictions": "p20", "submission_id": "s"})
        (again,) = await desk.send({"run_id": "r", "predictions": str(tmp_path / "p20")})
        (missing,) = await desk.send({"run_id": "r", "predictions": "nowhere"})
        assert (type(repeated), again.path, missing.path) == (ev.SubmissionRepeated, "predictions", "predictions")


async def test_a_folder_without_a_sound_task_is_refused(tmp_path):
    """Every row stands among the rejected, and the line too."""
    folder_of(tmp_path / "p20", {"task_id": "a", "depends_on": ["nobody"]})
    async with desk_in(tmp_path) as desk:
        row, line = await desk.send({"run_id": "r", "predictions": "p20"})
        assert (row.file, row.line, line.file, line.path) == ("predicted_tasks.jsonl", 1, None, "predictions")
        assert "r" not in desk.journal.ledger.runs


async def test_accepting_without_a_queue(tmp_path):
    """`run` uses the same judgement, in process."""
    folder_of(tmp_path / "p20", {"task_id": "a"})
    async with desk_in(tmp_path) as desk:
        asked = Submission(run_id="r", submission_id="run-r", predictions=str(tmp_path / "p20"))
        desk.receiver.accept(asked)
        desk.receiver.accept(asked)
        assert [type(event) for event in desk.events] == [ev.SubmissionAccepted, ev.SubmissionRepeated]


async def test_a_queue_open_to_others_is_refused_once_until_mended(tmp_path):
    """It says so once, reads nothing, and goes on when its owner has mended it."""
    async with desk_in(tmp_path) as desk:
        await desk.send(work("r", "a"))
        append(desk.path, [codec.encode(work("r", "b"))])
        Path(desk.path).chmod(0o666)
        before = len(desk.events)
        assert [await desk.receiver.drain(), await desk.receiver.drain()] == [0, 0]
        assert [type(event) for event in desk.events[before:]] == [ev.QueueRefused]
        Path(desk.path).chmod(0o600)
        assert await desk.receiver.drain() == 1
        Path(desk.path).chmod(0o666)
        await desk.receiver.drain()
        assert type(desk.events[-1]) is ev.QueueRefused


async def test_the_mark_moves_over_what_does_not_count(tmp_path):
    """Blank lines and a rotation are remembered, once."""
    async with desk_in(tmp_path) as desk:
        await desk.send(work("r", "a"))
        with Path(desk.path).open("ab") as stream:
            stream.write(b"\n\n")
        assert await desk.receiver.drain() == 0
        assert (type(desk.events[-1]), desk.journal.ledger.mark.line) == (ev.QueueAdvanced, 3)
        Path(desk.path).rename(desk.path + ".1")
        (event,) = await desk.send(work("r", "b"))
        assert (event.mark.line, event.mark.others[0].line) == (1, 3)
        before = len(desk.events)
        await desk.receiver.drain()
        assert len(desk.events) == before


async def test_too_many_open_tasks_hold_the_queue_back(tmp_path, monkeypatch):
    """While a wave is under way, no more is read than memory should hold."""
    monkeypatch.setattr(receiver_module, "MAX_OPEN_TASKS", 1)
    async with desk_in(tmp_path) as desk, asyncio.TaskGroup() as group:
        await desk.send(work("r", "a", "b"))
        desk.journal.append(ev.WaveOpened(run_id="r", wave=1))
        append(desk.path, [codec.encode(work("q", "c"))])
        waiting = group.create_task(desk.receiver.drain())
        for _ in range(20):
            await asyncio.sleep(0)
        assert not waiting.done()
        where = {"run_id": "r", "wave": 1}
        for task_id in ("a", "b"):
            desk.journal.append(ev.TaskFailed(**where, task_id=task_id, error_msg="no", gate="validation"))
        desk.journal.append(ev.WaveSettled(**where))
        desk.journal.append(ev.PredictionsCalibrated(**where, agents={}))
        assert not waiting.done()
        desk.journal.append(ev.OutputsWritten(**where))
        assert await waiting == 1


async def test_it_follows_the_file_until_it_is_stopped(tmp_path, monkeypatch):
    """What is appended arrives by itself, also where nothing can be watched; `stop` ends it at once."""
    async with desk_in(tmp_path) as desk:
        for watched, run_id in ((True, "r"), (False, "q")):
            stop = asyncio.Event()
            if not watched:
                desk.receiver.folder = str(tmp_path / "missing")
                monkeypatch.setattr(receiver_module, "RESCAN_S", 0.01)
            async with asyncio.timeout(20), asyncio.TaskGroup() as group:
                group.create_task(desk.receiver.run(stop))
                for task_id in ("a", "b"):
                    append(desk.path, [codec.encode(work(run_id, task_id))])
                    await desk.journal.until(
                        lambda run_id=run_id, task_id=task_id: task_id in getattr(desk.journal.ledger.runs.get(run_id), "where", ())
                    )
                stop.set()
            assert list(desk.journal.ledger.runs[run_id].where) == ["a", "b"]
