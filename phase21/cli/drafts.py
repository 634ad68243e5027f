"""Files of submissions become drafts: lines for the queue file, each checked as the daemon will check it.

`submit` makes all of them before it appends any. What is refused names file, line and field.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from phase21.domain.errors import InputRefused
from phase21.domain.events import AnyEvent, Entry
from phase21.domain.settings import Settings
from phase21.intake import documents, predictions
from phase21.intake.clerk import Clerk, Lookup
from phase21.intake.queue import QueueReader, append, check_permissions, pending_bytes
from phase21.intake.submissions import Submission, parse
from phase21.intake.workflows import compiled
from phase21.readers.inquiries.spectator import Spectator
from phase21.store import codec
from phase21.store.clock import Clock
from phase21.store.files import make_private

REHEARSED_BYTES = 8 * 1024 * 1024
"""How much of the queue file is taken in once more to check a submission beside it."""

_BYTE = re.compile(r"\(byte (\d+)\)")


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """A line to append: where it comes from, what it asks for, its tasks' ids, and the rows of its folder that are set aside.

    `later` counts steps of a workflow that become tasks on the way; `coined` says that the file names no run, and so was given one.
    """

    where: str
    line: bytes
    submission: Submission
    task_ids: tuple[str, ...] = ()
    later: int = 0
    coined: bool = False
    set_aside: tuple[predictions.RejectedRow, ...] = ()

    @property
    def submission_id(self) -> str:
        """Its id, which every draft has."""
        return self.submission.submission_id or ""

    @property
    def summary(self) -> str:
        """What it asks for, in a few words."""
        given = self.submission
        if given.workflow is None:
            what = given.control or f"{len(self.task_ids)} tasks"
            return f"run {given.run_id}, {what}"
        more = f", {self.later} steps made on the way" if self.later else ""
        return f"run {given.run_id}, workflow {given.workflow.name} ({given.workflow.mode}), {len(self.task_ids)} tasks{more}"


class Desk:
    """Makes drafts. `queue` is the queue file, beside which a relative folder may stand."""

    def __init__(self, queue: Path, max_line_bytes: int) -> None:
        self._queue = queue
        self._max_line_bytes = max_line_bytes

    def read(self, name: str, data: bytes) -> Iterator[Draft]:
        """Make the drafts of a file: one submission in TOML or YAML by its name, else one JSON object, or JSON lines.

        Raises InputRefused.
        """
        if documents.is_document(name):
            draft = self.draft(_line_of(name, data), name)
            yield msgspec.structs.replace(draft, coined=draft.submission.run_id.encode() not in data)
            return
        for number, line in _lines(name, data):
            yield self.draft(line, f"{name}:{number}")

    def draft(self, line: bytes, where: str) -> Draft:
        """Make the draft of a line: with an id, and an absolute folder. Raises InputRefused."""
        try:
            return self._draft(line, where)
        except InputRefused as refusal:
            raise _at(where, refusal) from None

    def _draft(self, line: bytes, where: str) -> Draft:
        submission = parse(line, max_line_bytes=self._max_line_bytes)
        ids = tuple(task.task_id for task in submission.tasks or ())
        made = compiled(submission.workflow) if submission.workflow is not None else None
        if made is not None:
            ids = tuple(task.task_id for task in made.tasks)
        set_aside: tuple[predictions.RejectedRow, ...] = ()
        added = {"submission_id": submission.submission_id or uuid.uuid4().hex}
        if submission.predictions is not None:
            added["predictions"] = str(self._folder(submission.predictions))
            found = predictions.read_folder(added["predictions"])
            if not found.waves:
                raise InputRefused(f"{added['predictions']}: {_first_fault(found)}", "predictions")
            ids = tuple(task.task_id for tasks in found.waves.values() for task in tasks)
            set_aside = found.rejected
        line = _with(line.strip(), added) if submission.submission_id is None or submission.predictions else line.strip()
        if len(line) > self._max_line_bytes:
            raise InputRefused(f"the line has {len(line)} bytes; allowed: {self._max_line_bytes} (queue.max_line_bytes)")
        given = msgspec.structs.replace(submission, **added)
        later = len(made.workflow.later) if made is not None else 0
        return Draft(where=where, line=line, submission=given, task_ids=ids, later=later, set_aside=set_aside)

    def _folder(self, path: str) -> Path:
        """A folder as the daemon will find it: as seen from here, else from where the queue file stands."""
        here = Path(path).absolute()
        beside = self._queue.parent / path
        return here if here.is_dir() or not beside.is_dir() else beside.absolute()


def _line_of(name: str, data: bytes) -> bytes:
    try:
        return documents.line_of(name, data, Clock().now_us())
    except InputRefused as refusal:
        raise _at(name, refusal) from None


def _lines(name: str, data: bytes) -> list[tuple[int, bytes]]:
    """The submissions of a file, each as one line, with the line where it begins."""
    found = [(number, line.strip()) for number, line in enumerate(data.split(b"\n"), 1) if line.strip()]
    if not found:
        raise InputRefused(f"{name}: holds no submission")
    if len(found) == 1 or _is_json(found[0][1]):
        return found
    try:
        codec.decode(data)
    except codec.CodecError as error:
        place = _BYTE.search(str(error))
        number = data.count(b"\n", 0, int(place[1])) + 1 if place else found[0][0]
        raise InputRefused(f"{name}:{number}: {error}") from None
    # A line break outside strings is mere space, and inside them JSON has none: nothing else changes.
    return [(found[0][0], data.replace(b"\r", b" ").replace(b"\n", b" ").strip())]


def _is_json(line: bytes) -> bool:
    try:
        codec.decode(line, msgspec.Raw)
    except codec.CodecError:
        return False
    return True


def _with(line: bytes, added: dict[str, str]) -> bytes:
    """The object with more fields; whatever it holds stays as it was written."""
    if "predictions" in added:
        return codec.encode({**codec.decode(line), **added})
    return line[:-1] + b"," + codec.encode(added)[1:]


def _at(where: str, refusal: InputRefused) -> InputRefused:
    """The same refusal with where it stands: file, line, field."""
    field = f"{refusal.path}: " if refusal.path and refusal.path not in str(refusal) else ""
    return InputRefused(f"{where}: {field}{refusal}", refusal.path)


def _first_fault(found: predictions.Predictions) -> str:
    if not found.rejected:
        return "holds no task"
    first = found.rejected[0]
    return f"no row can be used; the first: {first.file}:{first.line}: {first.error}"


# -- appending -----------------------------------------------------------------------------------------------------------


def send(drafts: Sequence[Draft], state: Path, queue: Path, settings: Settings) -> None:
    """Append drafts to the queue file, all or none, once nothing speaks against them. Raises InputRefused, PermissionsError."""
    check_permissions(str(queue), settings.queue.allow_shared)
    with Spectator(state) as spectator:
        spectator.refresh()
        rehearse(drafts, spectator, queue, settings)
    make_private(state)
    make_private(queue.parent)
    append(str(queue), [draft.line for draft in drafts])


# -- beside what was accepted before -----------------------------------------------------------------------------------


def rehearse(drafts: Sequence[Draft], spectator: Spectator, queue: Path, settings: Settings) -> None:
    """Refuse what the daemon would refuse because of what was given before. Raises InputRefused.

    It is the daemon's own clerk that decides, over a journal of paper: first what the queue file still holds, then the
    drafts. Where too much waits in the file, it is left to the daemon. The spectator's ledger is used up by this.
    """
    if pending_bytes(str(queue), spectator.ledger.mark) > REHEARSED_BYTES:
        return
    clerk, _ = rehearsed(spectator, queue, settings)
    for draft in drafts:
        try:
            clerk.accept(draft.submission)
        except InputRefused as refusal:
            raise _at(draft.where, refusal) from None


def rehearsed(spectator: Spectator, queue: Path, settings: Settings) -> tuple[Clerk, list[tuple[int, InputRefused | None]]]:
    """A clerk over a journal of paper, who was given what the queue file holds; each line's number, and why it is refused if it is."""
    most = settings.queue.max_line_bytes
    reader = QueueReader(str(queue), spectator.ledger.mark, max_line_bytes=most, allow_shared=settings.queue.allow_shared)
    clerk, said = Clerk(_Paper(spectator), str(queue.parent)), list[tuple[int, InputRefused | None]]()
    while lines := reader.read():
        for line in lines:
            try:
                if line.error is not None:
                    raise InputRefused(line.error)
                clerk.accept(parse(line.raw, max_line_bytes=most))
            except InputRefused as refusal:
                said.append((line.number, refusal))
            else:
                said.append((line.number, None))
    return clerk, said


class _Paper:
    """A journal that keeps nothing: what is appended counts for the next submission, and is forgotten."""

    def __init__(self, spectator: Spectator) -> None:
        self._spectator = spectator
        self.ledger = spectator.ledger
        self.lookup: Lookup = spectator.database or _NOTHING
        self.store_id = "paper"
        self.clock = Clock()

    def append(self, event: AnyEvent) -> None:
        """Fold an event."""
        self.ledger.fold(Entry(self.ledger.position + 1, self.ledger.at_us, event))

    def survives(self, _: int) -> bool:
        """Answer that whatever happened is on disk: the spectator has it from there."""
        return True

    def entries_of(self, run_id: str) -> Iterator[Entry]:
        """Read what the store holds of a run."""
        return self._spectator.entries(run_id=run_id)


class _Nothing:
    """The store of a state folder that holds none yet."""

    def submission(self, _: str) -> None:
        """Answer that it was never given."""

    def run(self, _: str) -> None:
        """Answer that it is not known."""

    def tasks(self, _: str, __: Sequence[str]) -> dict[str, str]:
        """Answer that none is closed."""
        return {}


_NOTHING = _Nothing()
