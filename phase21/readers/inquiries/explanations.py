"""Why a task stands as it does: why this agent, why it waits, why it was tried again or not, in a person's words.

`cli/explain` shows what comes from here, and prints the same as data. It reads the store of a daemon that runs or of one that does not,
and decides nothing: the journal says why (`TasksAssigned.choices`), and where an old one does not, that is said.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

import msgspec

from phase21.domain.errors import InputRefused, UnknownRun
from phase21.domain.plans import REASONS, Candidate
from phase21.domain.recovery import MAX_INTERRUPTIONS, NOT_AGAIN
from phase21.domain.settings import Settings
from phase21.domain.tasks import LOST, WAITING, Task, TaskStatus, When
from phase21.intake.queue import QueueReader, pending_bytes
from phase21.intake.submissions import Submission, parse
from phase21.intake.workflows import compiled
from phase21.readers.inquiries.histories import Given, History, Ruled, Told, Tried, history_in
from phase21.readers.inquiries.spectator import AWAITED_BYTES, MAX_LINE_BYTES, Spectator
from phase21.readers.inquiries.waits import Look, Need, Wait, needs_of, status_of, waits_of
from phase21.readers.nodes import later_node, undone_by
from phase21.store.clock import iso
from phase21.store.files import holder_of

NOT_RECORDED = "the journal does not say why (it is older than the log of decisions)"


class Attempted(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt, and in words why another followed or did not."""

    tried: Tried
    follows: str


class Answers(msgspec.Struct, frozen=True, kw_only=True):
    """The three questions in a sentence each; None where there is nothing to ask."""

    agent: str | None
    waits: str | None
    retries: str | None
    end: str | None


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """One task explained. `attempts_allowed` is None where nothing says how many there may be; `wave` None before it has one."""

    run_id: str
    task: Task
    status: str
    wave: int | None
    as_of_us: int
    running: bool
    answers: Answers
    waits: tuple[Wait, ...]
    needs: tuple[Need, ...]
    attempts_allowed: int | None
    history: History | None
    attempts: tuple[Attempted, ...]
    part: Part | None = None


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """Which part a task has in its workflow: of which step it is, and in which stage it was made, in words.

    `compensation` says how it would be undone, or what came of undoing it; None where it cannot be.
    """

    workflow: str
    step: str | None
    stage: str
    condition: str | None
    compensation: str | None


# -- putting together ---------------------------------------------------------------------------------------------------


def explained(spectator: Spectator, settings: Settings, queue: Path, run_id: str, task_id: str, now_us: int) -> Explanation:
    """Explain a task as of the spectator's ledger. Raises UnknownRun for a run or task that nobody gave."""
    unread = unread_of(spectator, queue, run_id)
    try:
        record = spectator.record(run_id)
    except UnknownRun:
        return _queued(spectator, unread, run_id, task_id)
    until = spectator.ledger.position
    entries = takewhile(lambda entry: entry.position <= until, spectator.entries(record.first_position - 1, run_id))
    history = history_in(entries, run_id, task_id)
    if history is None:
        return _queued(spectator, unread, run_id, task_id)
    return _put_together(_look(spectator, settings, history, unread, now_us))


def _look(spectator: Spectator, settings: Settings, history: History, unread: list[Submission], now_us: int) -> Look:
    run_id, task_id = history.run_id, history.task.task_id
    run = spectator.ledger.runs.get(run_id)
    number = run.where.get(task_id, 0) if run is not None else 0
    wave = spectator.ledger.open_wave(run_id, number)
    record = wave.tasks.get(task_id) if wave is not None else run.record.deferred.get(task_id) if run is not None else None
    return Look(
        ledger=spectator.ledger,
        settings=settings,
        running=holder_of(spectator.state) is not None,
        now_us=now_us,
        history=history,
        run=run,
        wave=wave,
        record=record,
        unread=unread,
        stored=_stored(spectator, run_id),
    )


def _stored(spectator: Spectator, run_id: str) -> Callable[[str], str]:
    """What finds the status of a task of a closed wave."""
    database = spectator.database
    return lambda task_id: database.tasks(run_id, [task_id]).get(task_id, "") if database is not None else ""


def _put_together(look: Look) -> Explanation:
    history = look.history
    waits, needs = tuple(waits_of(look)), needs_of(look)
    allowed, why_so_many = _allowed(history, look.settings)
    attempts = tuple(_attempts(history, allowed, why_so_many))
    return Explanation(
        run_id=history.run_id,
        task=history.task,
        status=look.status,
        wave=history.waves[-1],
        as_of_us=look.ledger.at_us,
        running=look.running,
        answers=Answers(
            agent=_why_agent(history),
            waits="; ".join(wait.text for wait in waits) or None,
            retries=_why_again(attempts),
            end=_how_it_ended(history, needs),
        ),
        waits=waits,
        needs=needs,
        attempts_allowed=allowed,
        history=history,
        attempts=attempts,
        part=_part(look),
    )


_STAGES = {
    "": "one of the workflow's own tasks",
    "spawn": "asked for by another task on the way (spawn)",
    "for_each": "made for what an earlier task left (for_each)",
    "compensation": "made to undo another task",
    "judge": "made to judge the workflow's results",
}


def _part(look: Look) -> Part | None:
    history, task = look.history, look.task
    if history.workflow is None:
        return None
    undoes = undone_by(task)
    stage = f"made to undo {undoes}, in the reverse order of what was done" if undoes else _STAGES.get(history.made, history.made)
    return Part(workflow=history.workflow, step=task.step, stage=stage, condition=task.condition, compensation=_compensation(look))


def _compensation(look: Look) -> str | None:
    undo = look.task.compensate
    if undo is None:
        return None
    name = f"{look.task.task_id}.undo"
    status = status_of(look, name)
    made = f"{name} undoes it ({undo.kind})"
    return f"{made}: {status}" if status else f"{made}, should the workflow fail once it has COMPLETED"


# -- what no daemon has read yet ----------------------------------------------------------------------------------------


def unread_of(spectator: Spectator, queue: Path, run_id: str) -> list[Submission]:
    """Submissions of a run in the queue file that no daemon has read yet; none where too much waits there."""
    if pending_bytes(str(queue), spectator.ledger.mark) > AWAITED_BYTES:
        return []
    reader = QueueReader(str(queue), spectator.ledger.mark, max_line_bytes=MAX_LINE_BYTES, allow_shared=True)
    return [found for found in _submissions(reader, run_id.encode()) if found.run_id == run_id]


def _submissions(reader: QueueReader, containing: bytes) -> Iterator[Submission]:
    while lines := reader.read():
        for line in lines:
            if line.error is None and containing in line.raw:
                with contextlib.suppress(InputRefused):
                    yield parse(line.raw)


def _queued(spectator: Spectator, unread: list[Submission], run_id: str, task_id: str) -> Explanation:
    """Explain a task that only the queue file knows. Raises UnknownRun."""
    task = next((task for submission in unread for task in _tasks_of(submission) if task.task_id == task_id), None)
    if task is None:
        raise UnknownRun(_unknown(spectator, unread, run_id, task_id))
    running = holder_of(spectator.state) is not None
    frees = "nothing is in its way" if running else "starting a daemon, or `serve --once` for as long as there is work"
    text = "it was submitted, and waits in the queue file to be read" + ("" if running else ": no daemon runs on this state folder")
    wait = Wait(cause="queue", text=text, frees=frees, command=() if running else ("serve",))
    return Explanation(
        run_id=run_id,
        task=task,
        status="SUBMITTED",
        wave=None,
        as_of_us=spectator.ledger.at_us,
        running=running,
        answers=Answers(agent=None, waits=text, retries=None, end=None),
        waits=(wait,),
        needs=(),
        attempts_allowed=task.max_attempts,
        history=None,
        attempts=(),
    )


def _tasks_of(submission: Submission) -> tuple[Task, ...]:
    if submission.workflow is not None:
        return compiled(submission.workflow).tasks
    return submission.tasks or ()


def _unknown(spectator: Spectator, unread: list[Submission], run_id: str, task_id: str) -> str:
    folders = sum(submission.predictions is not None for submission in unread)
    if folders:
        return f"run {run_id}: no task {task_id} is known yet; predictions of the run wait in the queue file to be read"
    known = bool(unread)
    with contextlib.suppress(UnknownRun):
        flow = spectator.record(run_id).workflow
        later = next((step for step in flow.later if step.get("task_id") == task_id), None) if flow is not None else None
        if later is not None:
            return f"run {run_id}: {task_id} cannot be made into tasks yet ({later_node(later).later}); `phase21 show {run_id}` draws it"
        known = spectator.record(run_id) is not None or known
    if known:
        return f"run {run_id} has no task {task_id}; `phase21 tail --run {run_id}` names those that were accepted"
    return f"run {run_id}: no such run in {spectator.state}; `phase21 status` lists those that are known"


# -- why this agent -----------------------------------------------------------------------------------------------------


def because(given: Given, task: Task) -> str:
    """Say why an agent was chosen, in words that follow "because"; the reason's own word where it is not a known one."""
    if given.choice is not None:
        return REASONS.get(given.choice.reason, given.choice.reason)
    if task.agent_id == given.agent_id:
        return REASONS["pinned"]
    return NOT_RECORDED


def choosing(given: Given, task: Task) -> str:
    """Say in a sentence who was chosen, by which strategy, why, and what was predicted of it."""
    why = because(given, task)
    reason = f"; {why}; " if why == NOT_RECORDED else f", because {why}; "
    came = "as it came in" if f"{given.predicted:.1%}" == f"{given.raw:.1%}" else f"{given.raw:.1%} as it came in"
    drawn = f"; it was drawn with probability {given.choice.propensity:.1%}" if is_drawn(given) and given.choice else ""
    return f"{given.agent_id} by {given.strategy}{reason}predicted to succeed with {given.predicted:.1%}, {came}{drawn}"


def _why_agent(history: History) -> str | None:
    found: list[Given] = history.of(Given)
    return choosing(found[-1], history.task) + _passed_over(found[-1]) if found else None


def _passed_over(given: Given) -> str:
    """The agent that was predicted best, where it was not chosen."""
    best = max(given.candidates, key=lambda one: one.predicted, default=None)
    if best is None or best.agent_id == given.agent_id or best.predicted <= given.predicted:
        return ""
    return f"; {best.agent_id} was predicted best, with {best.predicted:.1%}, and held {best.load} tasks"


def is_drawn(given: Given) -> bool:
    """Whether chance had a part in the choice."""
    return given.choice is not None and given.choice.propensity < 1.0


# -- why again or not ---------------------------------------------------------------------------------------------------


GIVEN_UP = "its handler said that another is of no use, or retry.strategy was no_retry"


def _allowed(history: History, settings: Settings) -> tuple[int | None, str]:
    """How many attempts may fail, and what says so: the outcome where it tells, else the task, else the configuration as read here."""
    failed = sum(tried.outcome == "FAILED" for tried in history.of(Tried))
    asked = history.task.max_attempts
    if _used_up(history):
        if failed == asked:
            return failed, "max_attempts of the task"
        if asked is None and failed > 1:
            return failed, "retry.max_attempts"
        return None, GIVEN_UP if asked is not None else f"{GIVEN_UP}, or retry.max_attempts is 1"
    if asked is not None:
        return asked, "max_attempts of the task"
    configured = settings.retry.policy().attempts_allowed(None)
    return (configured, "retry.max_attempts as configured here") if configured > failed else (None, "")


def _used_up(history: History) -> bool:
    """Whether the task is FAILED because no attempt was left."""
    tried = history.last_try
    if history.status != TaskStatus.FAILED or history.refused_by is not None or tried is None:
        return False
    return tried.outcome == "FAILED" and not (history.error_msg or "").startswith("interrupted (")


def _attempts(history: History, allowed: int | None, why_so_many: str) -> Iterator[Attempted]:
    failed = interrupted = 0
    tries: list[Tried] = history.of(Tried)
    goes_on = history.given is not None and history.status in WAITING
    stands = history.given.agent_id if history.given is not None and goes_on else None
    for tried, then in zip(tries, [*(one.agent_id for one in tries), stands][1:], strict=True):
        failed += tried.outcome == "FAILED"
        interrupted += tried.outcome == "INTERRUPTED"
        used = f"{failed} of {allowed} attempts {'has' if failed == 1 else 'have'} failed" if allowed else f"{failed} failed"
        yield Attempted(tried=tried, follows=_follows(tried, then, used, why_so_many, interrupted))


def _follows(tried: Tried, then: str | None, used: str, why_so_many: str, interrupted: int) -> str:
    """Say why another attempt followed or did not; nothing of one that succeeded, was cancelled, or is under way."""
    if tried.outcome == "INTERRUPTED":
        return f"another follows: what is cut short counts as no attempt ({interrupted} of at most {MAX_INTERRUPTIONS - 1} times)"
    if tried.outcome != "FAILED":
        return ""
    source = f" ({why_so_many})" if why_so_many else ""
    if tried.again:
        where, follows = _where_to(tried, then), "another follows" if then is not None else "another was to follow"
        return f"{follows} after {tried.delay_s:.3g} s{where}: {used}{source}"
    return f"no other follows: {_why_none(tried.error_msg or '', interrupted) or f'{used}{source}'}"


def _why_none(error_msg: str, interrupted: int) -> str:
    """Why no other attempt follows, where the error says it."""
    if error_msg.endswith(NOT_AGAIN):
        return NOT_AGAIN
    if error_msg.startswith("interrupted ("):
        return f"it was cut short {interrupted + 1} times, and may be what stops the service"
    return "its deadline leaves no time for one" if error_msg.startswith("deadline: ") else ""


def _where_to(tried: Tried, then: str | None) -> str:
    """Say who makes the next attempt, and why it is another agent."""
    if then is None or then == tried.agent_id:
        return f", by {then} again" if then is not None else ""
    if tried.elsewhere:
        return f", by {then}, since {tried.agent_id} let it time out"
    return f", by {then}, which was then predicted to do it best" if tried.reconsider else f", by {then}"


def _why_again(attempts: tuple[Attempted, ...]) -> str | None:
    told = [f"attempt {one.tried.attempt} {_came_to(one.tried)}; {one.follows}" for one in attempts if one.follows]
    return told[-1] if told else None


def _came_to(tried: Tried) -> str:
    return "timed out" if tried.timed_out else "was cut short" if tried.outcome == "INTERRUPTED" else "failed"


# -- how it ended -------------------------------------------------------------------------------------------------------


def _all_the_same(history: History) -> str:
    """How a person can have a task done that failed; nothing for what a workflow made on its way, which no fork begins with."""
    if history.workflow is None:
        return "; to do it all the same, submit it anew under another task_id"
    if history.made:
        return ""
    return f"; to do it all the same, once the workflow has ended: phase21 fork {history.run_id} --from {history.task.task_id}"


def _how_it_ended(history: History, needs: tuple[Need, ...]) -> str | None:
    if history.status == TaskStatus.COMPLETED:
        return _completed(history)
    if history.status == TaskStatus.CANCELLED:
        return _cancelled(history)
    if history.status == TaskStatus.SKIPPED:
        return f"its workflow decided not to do it: {history.error_msg}"
    if history.status != TaskStatus.FAILED:
        return None
    said = (history.error_msg or "").removeprefix("safety: ")
    if history.refused_by is None:
        return f"its last attempt failed: {said}{_all_the_same(history)}"
    when = "before an agent had it" if history.given is None else f"before attempt {len(history.of(Tried)) + 1}"
    lost = [need.task_id for need in needs if need.status in LOST]
    cause = f" (why: phase21 explain {history.run_id} {lost[0]})" if history.refused_by == "dependencies" and lost else ""
    return f"the gate {history.refused_by} refused it {when}: {said}{cause}{_all_the_same(history)}"


def _completed(history: History) -> str:
    tried = history.last_try
    took = f" after {tried.duration_s:.3f} s" if tried is not None and tried.duration_s is not None else ""
    return f"attempt {tried.attempt} by {tried.agent_id} succeeded{took}" if tried is not None else "it succeeded"


def _cancelled(history: History) -> str:
    decided = [told for told in history.of(Told) if told.event == "cancel"]
    by = f"a person cancelled it (submission {decided[-1].submission_id})" if decided else history.error_msg or "it was cancelled"
    tried = history.last_try
    cut = tried is not None and tried.outcome == "CANCELLED"
    return f"{by}; {'the attempt under way was cut short' if cut else 'no attempt was under way'}"


# -- as data ------------------------------------------------------------------------------------------------------------


def told(found: Explanation) -> dict[str, Any]:
    """Turn an explanation into the shape of `explain --json`: times in ISO 8601, durations in seconds."""
    history = found.history
    return {
        "run_id": found.run_id,
        "task_id": found.task.task_id,
        "status": found.status,
        "wave": found.wave,
        "as_of": iso(found.as_of_us) if found.as_of_us else None,
        "daemon_running": found.running,
        "answers": msgspec.structs.asdict(found.answers),
        "waits": [_plain(wait) for wait in found.waits],
        "task": _task(found),
        "assignments": [_assignment(given, found.task) for given in history.of(Given)] if history is not None else [],
        "gates": [_plain(ruled) for ruled in history.of(Ruled)] if history is not None else [],
        "attempts_allowed": found.attempts_allowed,
        "attempts": [{**_plain(one.tried), "follows": one.follows or None} for one in found.attempts],
        "notes": [_plain(one) for one in history.of(Told)] if history is not None else [],
        "workflow": msgspec.structs.asdict(found.part) if found.part is not None else None,
    }


def _task(found: Explanation) -> dict[str, Any]:
    task, history = found.task, found.history
    return {
        "kind": task.kind,
        "risk_level": str(task.risk_level),
        "predicted_success_rate": task.predicted_success_rate,
        "priority": task.priority,
        "estimated_duration_s": task.estimated_duration_s,
        "agent_id": task.agent_id,
        "capabilities": task.capabilities,
        "depends_on": [_plain(need) for need in found.needs],
        "idempotent": task.idempotent,
        "max_attempts": task.max_attempts,
        "features": len(task.features),
        "submission_id": history.submission_id if history is not None else None,
        "accepted_at": iso(history.accepted_us) if history is not None else None,
        "waves": history.waves if history is not None else [],
        "ended_at": iso(history.ended_us) if history is not None and history.ended_us is not None else None,
        "error_msg": history.error_msg if history is not None else None,
    }


def _assignment(given: Given, task: Task) -> dict[str, Any]:
    choice = given.choice
    return {
        "at": iso(given.at_us),
        "wave": given.wave,
        "agent_id": given.agent_id,
        "before": given.before,
        "strategy": given.strategy,
        "predicted": given.predicted,
        "raw": given.raw,
        "reason": choice.reason if choice is not None else None,
        "because": because(given, task),
        "propensity": choice.propensity if choice is not None else None,
        "score": choice.score if choice is not None else None,
        "candidates": [_candidate(one, given) for one in given.candidates],
    }


def _candidate(one: Candidate, given: Given) -> dict[str, Any]:
    return {**msgspec.structs.asdict(one), "chosen": one.agent_id == given.agent_id}


def _plain(value: Any) -> dict[str, Any]:
    """A struct's fields, its moments as ISO 8601 under names without their unit, and what it holds of structs the same way."""
    plain: dict[str, Any] = {}
    for name, field in msgspec.structs.asdict(value).items():
        if name.endswith("_us"):
            plain["at" if name == "at_us" else f"{name.removesuffix('_us')}_at"] = iso(field) if field is not None else None
        else:
            plain[name] = [_plain(one) for one in field] if name == "needs" else field
    if isinstance(value, Need) and value.when == When.SUCCEEDED:
        del plain["when"]
    return plain
