"""Why a task waits, and what would free it: one rule a cause, over the ledger as it stands.

`explanations` asks this for a task without an outcome. The first wait is the one to look at first; all of them hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from phase21.domain.ledger import Ledger
from phase21.domain.records import AgentRecord, TaskRecord, WaveRecord
from phase21.domain.runs import Run
from phase21.domain.settings import Settings
from phase21.domain.tasks import FINAL, LOST, WAITING, Task, TaskStatus, When
from phase21.intake.submissions import Submission
from phase21.readers.inquiries.histories import History, Ruled, Told
from phase21.store.clock import MICROS, iso

NAMED_MOST = 5
"""How many tasks or runs a sentence names; of more it says how many they are."""


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """A task that this one depends on, where that stands, and what must become of it."""

    task_id: str
    status: str
    when: str = When.SUCCEEDED


class Wait(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a task waits for.

    `cause` is a word for scripts; `text` says it to a person, and `frees` what would end it. `command` is what to type after
    `phase21`, where a person can do something or ask on; `until_us` when it passes by itself, where that is known.
    """

    cause: str
    text: str
    frees: str
    command: tuple[str, ...] = ()
    gate: str | None = None
    until_us: int | None = None
    needs: tuple[Need, ...] = ()


class Look(msgspec.Struct, kw_only=True):
    """All that the rules look at: the task, where it stands, and what stands around it.

    `run`, `wave` and `record` are None where memory has put them away; `unread` are submissions of the run that no daemon has
    read yet; `stored` finds the status of a task of a closed wave, "" for an unknown one.
    """

    ledger: Ledger
    settings: Settings
    running: bool
    now_us: int
    history: History
    run: Run | None
    wave: WaveRecord | None
    record: TaskRecord | None
    unread: Sequence[Submission]
    stored: Callable[[str], str]

    @property
    def task(self) -> Task:
        """The task as it was accepted."""
        return self.history.task

    @property
    def status(self) -> str:
        """Where the task stands."""
        return str(self.record.status if self.record is not None else self.history.status)

    @property
    def under_way(self) -> bool:
        """Whether its wave is being carried out, and it is waiting in it."""
        on = self.run is not None and self.wave is not None and self.run.current == self.wave.number
        return on and self.status in WAITING

    @property
    def pushed(self) -> bool:
        """Whether nothing but an agent or a gate stands between the task and its attempt."""
        record = self.record
        clear = record is not None and not record.blockers and not record.paused and not _paused(self) and not _not_due(self)
        return self.running and self.under_way and clear


def status_of(look: Look, task_id: str) -> str:
    """Where another task of the run stands."""
    run = look.run
    if run is not None:
        wave = run.waves.get(run.where.get(task_id, 0)) or run.closing.get(run.where.get(task_id, 0))
        if wave is not None and task_id in wave.tasks:
            return str(wave.tasks[task_id].status)
        if task_id in run.record.deferred:
            return str(TaskStatus.DEFERRED)
        if run.record.awaited.get(task_id):
            return run.record.awaited[task_id]
    return look.stored(task_id)


def needs_of(look: Look) -> tuple[Need, ...]:
    """What the task depends on."""
    return tuple(
        Need(task_id=needed.task, status=status_of(look, needed.task), when=str(needed.when)) for needed in look.task.dependencies()
    )


def waits_of(look: Look) -> list[Wait]:
    """All that a task without an outcome waits for, the most telling first; nothing where its outcome stands."""
    if look.status in FINAL:
        return []
    found = [wait for rule in RULES if (wait := rule(look)) is not None]
    return found or [Wait(cause="turn", text="it is about to begin", frees="nothing is in its way")] * look.under_way


# -- a person -----------------------------------------------------------------------------------------------------------


def _approval(look: Look) -> Wait | None:
    record = look.record
    if look.status != TaskStatus.DEFERRED or record is None or look.run is None:
        return None
    if look.task.task_id in look.run.record.carried:
        return _carried(look, "cancelled" if record.cancelling else "approved")
    ruled = _last_ruling(look)
    gate, reason = (ruled.gate, ruled.reason) if ruled is not None else (None, record.error_msg or "")
    needs = tuple(need for need in needs_of(look) if need.status != TaskStatus.COMPLETED) if gate == "dependencies" else ()
    lost = [need for need in needs if need.status in LOST]
    if lost:
        frees = f"nothing: {_listed(lost)}, and with approval it would be refused"
    elif gate == "dependencies":
        frees = (
            "a person's approval, of what it depends on as well"
            if needs
            else "a person's approval: what it depends on has COMPLETED"
        )
    else:
        frees = "a person's approval, or a cancellation"
    ids = () if lost else (*_deferred_behind(look, look.task), look.task.task_id)
    return Wait(
        cause="approval",
        gate=gate,
        text=f"the gate {gate} put it off: {reason}",
        frees=frees,
        command=("approve", look.history.run_id, *ids) if ids else ("cancel", look.history.run_id, look.task.task_id),
        needs=needs,
    )


def _carried(look: Look, decision: str) -> Wait:
    run = look.run
    assert run is not None  # noqa: S101 - narrows the type
    if run.current is None:
        return Wait(cause="wave", text=f"it is {decision}, and is taken into the run's next wave", frees="that wave's beginning")
    text = f"it is {decision}, and is taken into the run's next wave; wave {run.current} is under way"
    return Wait(cause="wave", text=text, frees=f"the end of wave {run.current}")


def _deferred_behind(look: Look, task: Task) -> list[str]:
    """DEFERRED tasks that must be approved before this one can run, the deepest first."""
    run, found, todo = look.run, dict[str, None](), [*task.needs()]
    while todo and run is not None:
        needed = todo.pop(0)
        held = run.record.deferred.get(needed)
        if held is not None and needed not in found:
            found[needed] = None
            todo.extend(held.task.needs())
    return list(found)[::-1]


def _unread(look: Look) -> Wait | None:
    """A person's decision about it that no daemon has read yet."""
    for submission in look.unread:
        named = not submission.task_ids or look.task.task_id in submission.task_ids
        if submission.control is not None and named:
            text = f"`phase21 {submission.control}` was given, and waits in the queue file to be read"
            return Wait(cause="queue", text=text, frees="a daemon that reads the queue file")
    return None


def _pause(look: Look) -> Wait | None:
    if look.record is not None and look.record.paused and not look.record.final:
        text = "a person paused it, and nothing else of the run"
        return Wait(
            cause="pause", text=text, frees="a person, who resumes it", command=("resume", look.history.run_id, look.task.task_id)
        )
    if not _paused(look):
        return None
    paused = [told for told in look.history.of(Told) if told.event == "pause"]
    since = f"since {second(paused[-1].at_us)}" if paused else "since before the task was accepted"
    return Wait(
        cause="pause",
        text=f"run {look.history.run_id} is paused {since}: nothing of it is started",
        frees="a person, who resumes the run",
        command=("resume", look.history.run_id),
    )


def _paused(look: Look) -> bool:
    return look.run is not None and look.run.record.paused


def _daemon(look: Look) -> Wait | None:
    if look.running:
        return None
    text = "no daemon runs on this state folder"
    if look.status == TaskStatus.IN_PROGRESS:
        again = "is made again" if look.task.idempotent else "is not made again, since the task is not idempotent"
        text = f"{text}; the attempt that was under way when the last one ended {again}"
    return Wait(cause="daemon", text=text, frees="starting one, or `serve --once` for as long as there is work", command=("serve",))


# -- what comes before --------------------------------------------------------------------------------------------------


def _wave(look: Look) -> Wait | None:
    run, wave = look.run, look.wave
    if run is None or wave is None or look.status == TaskStatus.DEFERRED:
        return None
    before = sorted(number for number in run.waves if number < wave.number)
    if not before:
        return None
    first = run.waves[before[0]]
    state = "is under way" if run.current == first.number else "has not begun"
    others = f"; {len(before) - 1} more come before it" if len(before) > 1 else ""
    left = _open_ones(first)
    return Wait(
        cause="wave",
        text=f"it is of wave {wave.number}; wave {first.number} {state} ({_shown(left)}){others}",
        frees=f"the end of wave {before[-1]}: a wave begins once the one before it is judged",
        command=("explain", look.history.run_id, next(iter(left))) if left else (),
    )


def _open_ones(wave: WaveRecord) -> dict[str, str]:
    """The tasks whose part in the wave has not ended, and where they stand; those under way first."""
    ended = FINAL | {TaskStatus.DEFERRED}
    left = {task_id: str(record.status) for task_id, record in wave.tasks.items() if record.status not in ended}
    return dict(sorted(left.items(), key=lambda one: one[1] == TaskStatus.PENDING))


def _shown(left: dict[str, str]) -> str:
    named = [f"{task_id} {status}" for task_id, status in left.items()]
    return f"open: {_some(named)}" if named else "all its tasks have ended"


def _turn(look: Look) -> Wait | None:
    """The run's next wave, which nothing but room among the runs holds up."""
    run, wave = look.run, look.wave
    if not look.running or run is None or wave is None or run.record.paused or run.current is not None:
        return None
    if look.status == TaskStatus.DEFERRED or run.next_wave() != wave.number:
        return None
    if run.behind:
        return Wait(cause="files", text=f"{len(run.closing)} judged waves wait for their files", frees="the disk, by itself")
    others = [other.run_id for other in look.ledger.runs.values() if other.current is not None and not other.record.paused]
    most = look.settings.manager.max_parallel_runs
    if len(others) < most:
        return Wait(cause="turn", text=f"wave {wave.number} is about to begin", frees="nothing is in its way")
    text = f"{len(others)} runs are under way, and {most} may be side by side (manager.max_parallel_runs): {_some(others)}"
    return Wait(cause="runs", text=text, frees="the end of a wave of one of them")


def _dependencies(look: Look) -> Wait | None:
    if look.status not in WAITING:
        return None
    if look.history.workflow is not None:
        return _before_in_workflow(look)
    unmet = tuple(need for need in needs_of(look) if need.status != TaskStatus.COMPLETED)
    if not unmet:
        return None
    lost = [need for need in unmet if need.status in LOST]
    put_off = [need for need in unmet if need.status == TaskStatus.DEFERRED]
    if lost:
        frees = f"nothing: {_listed(lost)}, and it will be refused"
    elif put_off:
        frees = f"approval of {_some([need.task_id for need in put_off])}; until then it is DEFERRED as well"
    else:
        frees = "its completion" if len(unmet) == 1 else "their completion"
        frees += "; what depends on a task that is FAILED or CANCELLED is refused"
    command: tuple[str, ...] = ("explain", look.history.run_id, (lost or unmet)[0].task_id)
    if put_off and not lost:
        command = ("approve", look.history.run_id, *(need.task_id for need in put_off))
    return Wait(
        cause="dependency", text=f"it depends on {_listed(unmet)}", frees=frees, command=command, gate="dependencies", needs=unmet
    )


def _before_in_workflow(look: Look) -> Wait | None:
    """What a task of a workflow waits for: how it ended is asked only once all of it has."""
    unmet = tuple(need for need in needs_of(look) if need.status not in FINAL)
    if not unmet:
        return None
    put_off = [need.task_id for need in unmet if need.status == TaskStatus.DEFERRED]
    wanted = [f"{need.task_id} {_WANTED[When(need.when)]}" for need in needs_of(look)]
    then = f" and {look.task.condition} holds" if look.task.condition else ""
    frees = f"approval of {_some(put_off)}, and" if put_off else ""
    frees = (
        f"{frees} {'its end' if len(unmet) == 1 else 'their ends'}: it is then done if {_some(wanted)}{then}, else SKIPPED".strip()
    )
    ids = put_off or [unmet[0].task_id]
    command = ("approve" if put_off else "explain", look.history.run_id, *ids)
    return Wait(cause="dependency", text=f"it depends on {_listed(unmet)}", frees=frees, command=command, needs=unmet)


_WANTED = {When.SUCCEEDED: "COMPLETED", When.FAILED: "FAILED", When.SETTLED: "ended, however"}


def _time(look: Look) -> Wait | None:
    """It is not due yet."""
    due_us = look.record.due_us if look.record is not None else None
    if due_us is None or not _not_due(look):
        return None
    left_s = (due_us - look.now_us) / MICROS
    return Wait(
        cause="time",
        text=f"it is not to begin for another {left_s:.3g} s (not_before)",
        frees="that time, by itself",
        until_us=due_us,
    )


def _not_due(look: Look) -> bool:
    due_us = look.record.due_us if look.record is not None else None
    return look.status == TaskStatus.PENDING and due_us is not None and due_us > look.now_us


# -- agents and gates ---------------------------------------------------------------------------------------------------


def _agent(look: Look) -> Wait | None:
    """No agent that can do it takes it now."""
    if not look.pushed or look.record is None:
        return None
    held = look.ledger.agents.get(look.record.agent_id or "")
    if held is not None and held.present and not held.offline:
        return None
    able = [agent for agent in look.ledger.present_agents() if agent.able(look.task)]
    absent = [agent for agent in able if agent.offline]
    if look.wave is not None and look.wave.planned is None and not absent:
        return Wait(cause="turn", text="its wave is being planned", frees="nothing is in its way")
    if look.history.workflow is not None and held is None and len(absent) < len(able):
        text = "it is ready, and agents that can do it have others in hand, or a limit on tasks side by side is reached"
        return Wait(cause="busy", text=text, frees="the end of an attempt; the most critical of what is ready goes first")
    known = f"it is pinned to {look.task.agent_id}" if look.task.agent_id else "no agent that can do it takes tasks now"
    back_us = [
        agent.offline_us + round(look.settings.agents.probation * MICROS) for agent in absent if agent.offline_us is not None
    ]
    return Wait(
        cause="agent",
        text=f"{known}: {_some([_absence(agent) for agent in able])}",
        frees="an agent's return: one that is OFFLINE is tried again after agents.probation, with one task at a time",
        until_us=min(back_us, default=None),
    )


def _absence(agent: AgentRecord) -> str:
    if agent.offline:
        cause = "it was stuck" if agent.offline_cause == "stuck" else "it timed out too often"
        return f"{agent.agent_id} is OFFLINE ({cause})"
    return f"{agent.agent_id} is on probation" if agent.probation else f"{agent.agent_id} is at work"


PASSING = {
    "constraints": ("rate", "a second with fewer starts (safety.rate_limit), by itself"),
    "limits": ("limit", "the end of one of them, or a moment with fewer starts; its agent works on others meanwhile"),
    "resources": ("resources", "more free disk or memory (safety.min_free_disk_mb, safety.min_free_memory_mb), by itself"),
    "dependencies": ("dependency", "the completion of what it depends on"),
    "anomalies": ("agent", "the agent's return, or another agent"),
}
"""What a gate that lets a task wait is about, and what ends that."""


def _gate(look: Look) -> Wait | None:
    if not look.pushed or look.record is None or look.record.held_by is None:
        return None
    gate, ruled = look.record.held_by, _last_ruling(look)
    reason = ruled.reason if ruled is not None else ""
    about = "limits" if reason.endswith("(limits)") else gate
    cause, frees = PASSING.get(about, ("gate", "the gate, which is asked again by itself"))
    return Wait(cause=cause, gate=gate, text=f"the gate {gate} holds it: {reason}", frees=frees)


def _retry(look: Look) -> Wait | None:
    due_us = look.record.due_us if look.record is not None else None
    if look.status != TaskStatus.RETRYING or due_us is None or due_us <= look.now_us:
        return None
    left_s = (due_us - look.now_us) / MICROS
    text = f"attempt {look.record.attempts if look.record else 0} failed, and the next is due in {left_s:.3g} s"
    return Wait(cause="retry", text=text, frees="the end of that delay (retry.base_delay and what it grows by)", until_us=due_us)


def _busy(look: Look) -> Wait | None:
    """Its agent has others in hand."""
    if not look.pushed or look.record is None or look.record.held_by is not None or _retry(look) is not None:
        return None
    agent = look.ledger.agents.get(look.record.agent_id or "")
    if agent is None or agent.offline:
        return None
    most = 1 if agent.probation else agent.concurrency
    at, waiting = _in_hand(look.ledger, agent.agent_id)
    if len(at) < most:
        return None
    bounds = "one task at a time, on probation" if agent.probation else f"{most} at a time" if most > 1 else "one task at a time"
    text = f"{agent.agent_id} is at work on {_some(at)} ({bounds}), and {waiting - 1} other tasks wait for {agent.agent_id}"
    return Wait(cause="busy", text=text, frees="the end of an attempt there; a lower priority number goes first")


def _in_hand(ledger: Ledger, agent_id: str) -> tuple[list[str], int]:
    """The tasks that an agent is at work on, and how many wait with it."""
    at: list[str] = []
    waiting = 0
    for run in ledger.runs.values():
        for record in run.waves[run.current].tasks.values() if run.current is not None else ():
            if record.status is TaskStatus.IN_PROGRESS and record.ran_by == agent_id:
                at.append(record.task.task_id)
            elif record.agent_id == agent_id and record.status in WAITING:
                waiting += not record.blockers
    return at, waiting


RULES: tuple[Callable[[Look], Wait | None], ...] = (
    _unread, _approval, _pause, _wave, _turn, _dependencies, _time, _daemon, _agent, _gate, _retry, _busy,
)  # fmt: skip


# -- words --------------------------------------------------------------------------------------------------------------


def second(at_us: int) -> str:
    """A moment for a person, to the second."""
    return f"{iso(at_us)[:19].replace('T', ' ')} UTC"


def _last_ruling(look: Look) -> Ruled | None:
    found: list[Ruled] = look.history.of(Ruled)
    return found[-1] if found else None


def _listed(needs: Iterable[Need]) -> str:
    return _some([f"{need.task_id}, which is {need.status or 'not known'}" for need in needs])


def _some(words: Sequence[str]) -> str:
    """The first of some words, and how many more there are."""
    more = f" and {len(words) - NAMED_MOST} more" if len(words) > NAMED_MOST else ""
    return ", ".join(words[:NAMED_MOST]) + more
