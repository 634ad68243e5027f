"""Everything that can happen, in the past tense: the only things the journal holds.

Events are flat. A reader of an old journal ignores fields it does not know; a new field always has a default, so that a
journal of version 1 loads for ever. The journal alone stamps them (`Entry`).
"""

from __future__ import annotations

from typing import Any

import msgspec

from phase21.domain.judgements import Anomaly, Calibration, Health, Signal, Validation
from phase21.domain.messages import DeadLetter, Message, Taken
from phase21.domain.plans import Assignment, Choice
from phase21.domain.records import RunRecord
from phase21.domain.schedules import Recurrence
from phase21.domain.sequential import Seen
from phase21.domain.tasks import Task
from phase21.domain.workflows import Upstream, Workflow


class Event(msgspec.Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True, gc=False):
    """Something that happened."""


class QueueMark(msgspec.Struct, frozen=True, array_like=True):
    """How far the queue file has been read: which file (device, inode), up to which byte and line, and a print of what was read.

    `others` says the same of the rotated files that still lie beside it.
    """

    device: int
    inode: int
    offset: int
    line: int
    print_: str = ""
    others: tuple[QueueMark, ...] = ()


class ServiceStarted(Event, frozen=True, kw_only=True):
    """A daemon (or `run`) took the state folder. `boot_id` tells one life of the machine from the next."""

    pid: int
    version: str
    boot_id: str = ""
    dry_run: bool = False
    fleet: tuple[str, ...] = ()


class ServiceStopping(Event, frozen=True, kw_only=True):
    """No more input is taken; attempts under way may end for `drain_timeout_s`."""

    reason: str
    drain_timeout_s: float = 0.0


class ServiceStopped(Event, frozen=True, kw_only=True):
    """The state folder was left in order."""

    reason: str


class ConfigurationReloaded(Event, frozen=True, kw_only=True):
    """The configuration was read again and holds. `pending` names the sections that wait for a restart."""

    path: str | None = None
    pending: tuple[str, ...] = ()


class ConfigurationRefused(Event, frozen=True, kw_only=True):
    """The configuration was read again and is broken; the old one stays."""

    error: str


class SubmissionAccepted(Event, frozen=True, kw_only=True):
    """A submission's waves are now work.

    `mark` moves the queue on in the same transaction; `run` carries what the store held of a run that memory had put away;
    `settled` the status of tasks of closed waves that are depended on, `upstream` what became of those whose results are asked for.
    `workflow` is set where the tasks are one.
    """

    submission_id: str
    run_id: str
    waves: dict[int, tuple[Task, ...]]
    metadata: dict[str, Any] = {}
    source: str = "tasks"
    settled: dict[str, str] = {}
    mark: QueueMark | None = None
    run: RunRecord | None = None
    workflow: Workflow | None = None
    upstream: dict[str, Upstream] = {}


class WorkflowExtended(Event, frozen=True, kw_only=True):
    """What a workflow decided on the way is work now, in a wave of its own.

    `why` is `spawn`, `for_each`, `compensation` or `judge`; `later` are the steps that still cannot be made into tasks.
    """

    run_id: str
    wave: int
    tasks: tuple[Task, ...]
    why: str
    settled: dict[str, str] = {}
    upstream: dict[str, Upstream] = {}
    later: tuple[dict[str, Any], ...] = ()


class WorkflowChanged(Event, frozen=True, kw_only=True):
    """A run's workflow went from one state to another, and why."""

    run_id: str
    state: str
    previous: str
    reason: str = ""


class ScheduleAccepted(Event, frozen=True, kw_only=True):
    """A submission will be made again and again: `tasks`, and the workflow that they are, become a run of their own each time."""

    submission_id: str
    run_id: str
    every: Recurrence
    tasks: tuple[Task, ...]
    workflow: Workflow | None = None
    metadata: dict[str, Any] = {}
    mark: QueueMark | None = None


class ScheduleFired(Event, frozen=True, kw_only=True):
    """The schedule's due time has become a run, whose acceptance is the entry before."""

    run_id: str
    due_us: int
    fired: str


class ScheduleMissed(Event, frozen=True, kw_only=True):
    """Due times will not become runs: `count` of them, from `due_us` to `through_us`.

    `reason` is `missed` (nobody could fire then), `overlap` (the run before was under way) or `taken` (a run has that name).
    """

    run_id: str
    due_us: int
    through_us: int
    count: int = 1
    reason: str = "missed"


class ScheduleEnded(Event, frozen=True, kw_only=True):
    """Nothing more of a schedule will fire: `cancelled`, or `over`, as no further time is due."""

    run_id: str
    reason: str


class SubmissionRepeated(Event, frozen=True, kw_only=True):
    """A submission id came again and was passed over."""

    submission_id: str
    run_id: str
    mark: QueueMark | None = None


class SubmissionRejected(Event, frozen=True, kw_only=True):
    """Input was set aside: where it stood (`line` from 1, `offset` of its first byte, `file` in a Phase 20 folder) and why."""

    error: str
    line: int | None = None
    offset: int | None = None
    path: str | None = None
    raw: str = ""
    file: str | None = None
    run_id: str | None = None
    submission_id: str | None = None
    mark: QueueMark | None = None


class QueueAdvanced(Event, frozen=True, kw_only=True):
    """The queue was read on over nothing that counts (blank lines, a rotation, a truncation)."""

    mark: QueueMark


class QueueRefused(Event, frozen=True, kw_only=True):
    """The queue file is open to others, and is not read."""

    error: str


class ControlReceived(Event, frozen=True, kw_only=True):
    """A person's decision about a run: approve, cancel, pause or resume; `task_ids` is what it means, resolved.

    `whole` says that the run was meant, not tasks of it.
    """

    submission_id: str
    run_id: str
    control: str
    task_ids: tuple[str, ...] = ()
    metadata: dict[str, Any] = {}
    mark: QueueMark | None = None
    run: RunRecord | None = None
    whole: bool = False


class AgentJoined(Event, frozen=True, kw_only=True):
    """An agent is at work."""

    agent_id: str
    capabilities: tuple[str, ...] = ()
    concurrency: int = 1
    max_tasks: int | None = None
    only_kinds: tuple[str, ...] = ()


class AgentRestarted(Event, frozen=True, kw_only=True):
    """An agent's loop crashed and was started again with its inbox kept."""

    agent_id: str
    error: str


class AgentWentOffline(Event, frozen=True, kw_only=True):
    """An agent takes no more tasks. `cause` is `timeouts` or `stuck`."""

    agent_id: str
    cause: str
    run_id: str | None = None
    wave: int | None = None
    task_id: str | None = None


class AgentReturned(Event, frozen=True, kw_only=True):
    """An agent is tried again; while `probation`, with one task at a time."""

    agent_id: str
    probation: bool = True


class RunIdled(Event, frozen=True, kw_only=True):
    """A run has nothing left to do for now."""

    run_id: str


class WaveOpened(Event, frozen=True, kw_only=True):
    """A wave began. `carried` are tasks of earlier waves that were approved or cancelled since."""

    run_id: str
    wave: int
    carried: tuple[str, ...] = ()


class TasksAssigned(Event, frozen=True, kw_only=True):
    """Tasks were given to agents, and why so. `moved` where they had another agent before."""

    run_id: str
    wave: int
    strategy: str
    assignments: tuple[Assignment, ...]
    moved: bool = False
    choices: tuple[Choice, ...] = ()


class WavePlanned(Event, frozen=True, kw_only=True):
    """A wave's plan stands: its size and what it is expected to take, in seconds. `policy` is what chose the strategy, if another."""

    run_id: str
    wave: int
    strategy: str
    num_agents: int
    num_tasks: int
    expected_duration_s: float
    sequential_duration_s: float
    load_balance: float
    planning_s: float = 0.0
    policy: str = ""


class TaskEvent(Event, frozen=True, kw_only=True):
    """Something that happened to one task."""

    run_id: str
    wave: int
    task_id: str


class AttemptStarted(TaskEvent, frozen=True, kw_only=True):
    """The gates approved, and the attempt began (its stamp is the gates' too)."""

    agent_id: str
    attempt: int
    confidence: float


class AttemptFailed(TaskEvent, frozen=True, kw_only=True):
    """An attempt failed and another will be made after `delay_s`.

    `elsewhere` asks for another agent, `reconsider` for whoever is now predicted to do it best.
    """

    agent_id: str
    attempt: int
    error_msg: str
    delay_s: float
    duration_s: float
    timed_out: bool = False
    elsewhere: bool = False
    reconsider: bool = False


class TaskHeld(TaskEvent, frozen=True, kw_only=True):
    """A gate lets an attempt wait for a cause that passes by itself."""

    agent_id: str
    attempt: int
    gate: str
    reason: str
    confidence: float


class TaskDeferred(TaskEvent, frozen=True, kw_only=True):
    """The task's part in this wave is over until a person approves it (or a dependency is)."""

    agent_id: str | None = None
    attempt: int = 0
    gate: str = "risk"
    reason: str = ""
    confidence: float = 0.0


class TaskCompleted(TaskEvent, frozen=True, kw_only=True):
    """The task succeeded. `spawned` are further tasks that it asked its workflow for."""

    agent_id: str
    attempt: int
    duration_s: float
    result: Any = None
    spawned: tuple[Task, ...] = ()


class TaskSkipped(TaskEvent, frozen=True, kw_only=True):
    """A workflow decided that the task is not to be done."""

    reason: str


class TaskProgressed(TaskEvent, frozen=True, kw_only=True):
    """How far an attempt says that it is, in percent."""

    agent_id: str
    attempt: int
    percent: float
    note: str = ""


class TaskNoted(TaskEvent, frozen=True, kw_only=True):
    """What an attempt said of itself, for the log."""

    agent_id: str
    attempt: int
    text: str
    level: str = "INFO"


class MessagesPassed(Event, frozen=True, kw_only=True):
    """Messages of one turn of the loop: those that were sent, and those that were taken (each is then in its taker's hand)."""

    run_id: str
    sent: tuple[Message, ...] = ()
    taken: tuple[Taken, ...] = ()


class MessagesDead(Event, frozen=True, kw_only=True):
    """Messages that nobody will take: their recipient is gone, or their deadline has passed."""

    run_id: str
    letters: tuple[DeadLetter, ...]


class TopicsFollowed(Event, frozen=True, kw_only=True):
    """A task follows topics from now on, or (`left`) no longer."""

    run_id: str
    task_id: str
    topics: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


class SharedChanged(Event, frozen=True, kw_only=True):
    """A name of a run's shared context has a new value. `version` counts from 1; `by` is the task that set it."""

    run_id: str
    name: str
    version: int
    body: msgspec.Raw
    by: str


class LockTaken(Event, frozen=True, kw_only=True):
    """An attempt holds a lock, until it ends or `until_us`. `fence` is larger than that of whoever held any lock of the run before."""

    run_id: str
    name: str
    task_id: str
    attempt: int
    fence: int
    until_us: int | None = None


class LockReleased(Event, frozen=True, kw_only=True):
    """An attempt gave a lock back. One that ends gives back all that it holds without a word."""

    run_id: str
    name: str
    task_id: str
    fence: int


class TaskFailed(TaskEvent, frozen=True, kw_only=True):
    """The task failed for good. `gate` is set where a gate rejected it (then nothing ran this time)."""

    error_msg: str
    agent_id: str | None = None
    attempt: int = 0
    duration_s: float | None = None
    result: Any = None
    gate: str | None = None
    confidence: float = 0.0
    timed_out: bool = False


class TaskCancelled(TaskEvent, frozen=True, kw_only=True):
    """The task will not be carried out. `duration_s` is set where an attempt under way was cut short."""

    agent_id: str | None = None
    attempt: int = 0
    duration_s: float | None = None
    reason: str = "cancelled"


class TaskInterrupted(TaskEvent, frozen=True, kw_only=True):
    """An attempt was cut short by a crash or a drain, and will be made again."""

    agent_id: str
    attempt: int


class WaveSettled(Event, frozen=True, kw_only=True):
    """Every task of the wave has ended its part in it."""

    run_id: str
    wave: int


class AnomalyRaised(Event, frozen=True, kw_only=True):
    """Something out of the ordinary was seen."""

    run_id: str
    anomaly: Anomaly


class HealthScored(Event, frozen=True, kw_only=True):
    """A settled wave was judged.

    `seen` is what it adds to the sequential tests of its agents and of the run (none of them go on without it), held against
    `false_alarms`.
    """

    run_id: str
    wave: int
    health: Health
    seen: tuple[Seen, ...] = ()
    false_alarms: float = 0.001


class SignalsSent(Event, frozen=True, kw_only=True):
    """Lessons of a wave, many to an entry: `signals`, and `validations`, which are the signals about one task each."""

    run_id: str
    wave: int
    signals: tuple[Signal, ...] = ()
    validations: tuple[Validation, ...] = ()


class PredictionsCalibrated(Event, frozen=True, kw_only=True):
    """What the wave taught about agents: evidence to add to each.

    `kinds` is the same by agent and kind of task, empty where all of it is about tasks of one `kind`. `taught` says that the
    outcomes of the wave count as evidence at all (those of a rehearsal do not).
    """

    run_id: str
    wave: int
    agents: dict[str, Calibration]
    heuristics: dict[str, tuple[int, int]] = {}
    kind: str = ""
    kinds: dict[str, dict[str, Calibration]] = {}
    taught: bool = False


class OutputsWritten(Event, frozen=True, kw_only=True):
    """The wave's files stand, and with this the wave is closed.

    `sizes` are those of the run's growing files, in bytes; `digest` is what the store keeps of the wave for histories.
    """

    run_id: str
    wave: int
    sizes: dict[str, int] = {}
    digest: msgspec.Raw = msgspec.Raw(b"null")


class OutputsTrusted(Event, frozen=True, kw_only=True):
    """What a power cut may have torn is built again: files that stand in this life of the machine are whole."""

    boot_id: str


AnyEvent = (
    ServiceStarted
    | ServiceStopping
    | ServiceStopped
    | ConfigurationReloaded
    | ConfigurationRefused
    | SubmissionAccepted
    | WorkflowExtended
    | WorkflowChanged
    | ScheduleAccepted
    | ScheduleFired
    | ScheduleMissed
    | ScheduleEnded
    | SubmissionRepeated
    | SubmissionRejected
    | QueueAdvanced
    | QueueRefused
    | ControlReceived
    | AgentJoined
    | AgentRestarted
    | AgentWentOffline
    | AgentReturned
    | RunIdled
    | WaveOpened
    | TasksAssigned
    | WavePlanned
    | AttemptStarted
    | AttemptFailed
    | TaskHeld
    | TaskDeferred
    | TaskCompleted
    | TaskSkipped
    | TaskProgressed
    | TaskNoted
    | MessagesPassed
    | MessagesDead
    | TopicsFollowed
    | SharedChanged
    | LockTaken
    | LockReleased
    | TaskFailed
    | TaskCancelled
    | TaskInterrupted
    | WaveSettled
    | AnomalyRaised
    | HealthScored
    | SignalsSent
    | PredictionsCalibrated
    | OutputsWritten
    | OutputsTrusted
)


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An event with its place in the journal (from 1) and its time (microseconds since 1970, never running backwards)."""

    position: int
    at_us: int
    event: AnyEvent
