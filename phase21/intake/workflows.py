"""Workflows: what was written becomes tasks that wait for each other, or the reason why not.

`compiled` makes the tasks of a submission, `expanded` those over results that are known now, `checked_spawn` those that a task
asks for. Called by submissions and receiver, by the conductor, and where an attempt ends. All that can be wrong is found
at submission, over a graph in which one element stands for a list that is not known yet; what turns out wrong later fails the
join of its step. How steps become tasks is in `steps`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from phase21.domain.errors import InputRefused
from phase21.domain.references import FROM, resolved
from phase21.domain.tasks import Task
from phase21.domain.workflows import Judged, Mode, Upstream, Workflow, WorkflowRecord
from phase21.evaluation.judges import JUDGE_ID
from phase21.intake import soundness
from phase21.intake.fields import refusal, task_of, without_aliases
from phase21.intake.shapes import Spec, Step
from phase21.intake.steps import Maker, Placed, references_in, wired
from phase21.store import codec

SPAWN = "spawn"
_NOT_OF_JUDGE = frozenset({"task_id", "depends_on", "condition", "compensate"})
_TASK_FIELDS = tuple(Task.__struct_fields__)


class Compiled(msgspec.Struct, frozen=True, kw_only=True):
    """A workflow, and the tasks of its first wave."""

    workflow: Workflow
    tasks: tuple[Task, ...]


def compiled(spec: Spec, path: str = "workflow") -> Compiled:
    """What a submitted workflow comes to; worked out once. Raises InputRefused with the field's path."""
    kept: dict[str, Compiled] = spec.__dict__
    if path not in kept:
        kept[path] = _compiled(spec, path)
    return kept[path]


def expanded(
    later: Iterable[Mapping[str, Any]], upstream: Mapping[str, Upstream], *, made: int, workflow: Workflow
) -> tuple[tuple[Task, ...], tuple[dict[str, Any], ...]]:
    """The tasks of those steps that can be made now, and the steps that still cannot.

    `upstream` is what became of every task of the workflow so far, `made` how many were made on the way. Raises nothing: where a
    `for_each` turns out to be no list, or to hold too much, its join stands for all of it, and FAILS saying so (or is SKIPPED,
    where what it depends on did not turn out as wanted).
    """
    steps = [(step.task_id, step) for step in (msgspec.convert(dict(fields), Step) for fields in later)]
    graph = Maker(room=workflow.max_tasks - made, upstream=upstream, known=upstream).made(steps)
    now, rest = _parted(graph)
    return _tasks(now, graph), _kept(rest)


def checked_spawn(result: Any, parent: Task, record: WorkflowRecord, known: Collection[str]) -> tuple[Task, ...]:
    """The tasks that a task's result asks for with `{"spawn": [tasks]}`; none where it does not ask.

    `known` are the ids of the tasks of the run. Each of the new ones depends on its parent. Raises InputRefused with the field's path.
    """
    rows = result.get(SPAWN) if isinstance(result, dict) else None
    if rows is None or record.judging or record.undoing:
        return ()  # who judges or undoes ends a workflow, and makes it no longer
    _check_bounds(rows, parent, record)
    if not rows:
        return ()
    steps = wired(_labelled(steps_of(rows, SPAWN), record.workflow.name), Mode.GRAPH, "", SPAWN)
    children = [(at, _after(step, parent)) for at, step in steps]
    graph = Maker(room=_room(record)).made(children)
    if unknown := next((at for at, step in graph if step.for_each is not None), None):
        raise InputRefused("a task that is asked for on the way has for_each over a list as written", f"{unknown}.for_each")
    outside = {**dict.fromkeys(known, ()), parent.task_id: tuple(parent.needs())}
    later = {str(step["task_id"]) for step in record.later}
    judged = record.workflow.evaluate is not None and record.workflow.evaluate.judge is not None
    soundness.check(graph, (), outside, taken={*known, *later, *((JUDGE_ID,) if judged else ())}, growing=later)
    return tuple(msgspec.structs.replace(task, depth=parent.depth + 1) for task in _tasks(graph, graph))


def steps_of(rows: Sequence[Any], path: str) -> tuple[Step, ...]:
    """Steps from what is written of them. Raises InputRefused; `path` is where the list stands."""
    plain = [without_aliases(row, f"{path}[{n}]") if isinstance(row, dict) else row for n, row in enumerate(rows)]
    try:
        steps: list[Step] = codec.decode(codec.encode(plain), list[Step])
    except codec.CodecError as error:
        raise refusal(codec.CodecError(str(error), f"{path}{error.path or ''}")) from None
    return tuple(steps)


# -- parts ---------------------------------------------------------------------------------------------------------------


def _compiled(spec: Spec, path: str) -> Compiled:
    steps = wired(_labelled(spec.tasks, spec.name), spec.mode, path)
    maker = Maker(room=spec.max_tasks)
    graph = checked = maker.made(steps)
    if any(step.for_each is not None for _, step in graph):
        maker = Maker(room=spec.max_tasks, trial=True)
        checked = maker.made(steps)
    soundness.check(checked, maker.sources)
    _check_judge(spec, graph, path)
    now, later = _parted(graph)
    fields = {name: getattr(spec, name) for name in Spec.__struct_fields__ if name != "tasks"}
    fields["evaluate"] = _plain_judge(spec.evaluate, path)
    return Compiled(workflow=Workflow(**fields, later=_kept(later)), tasks=_tasks(now, checked))


def _labelled(steps: Iterable[Step], name: str) -> tuple[Step, ...]:
    """The steps, each with a name by which its tasks are known from run to run."""
    return tuple(
        step if step.step is not None else msgspec.structs.replace(step, step=f"{name}/{step.task_id}"[:256]) for step in steps
    )


def _parted(graph: Sequence[Placed]) -> tuple[list[Placed], list[Placed]]:
    """The steps that can be made into tasks, and those that cannot yet, with all that depends on these."""
    waiting: dict[str, list[str]] = {}
    for _, step in graph:
        for needed in step.needs():
            waiting.setdefault(needed, []).append(step.task_id)
    open_ = [step.task_id for _, step in graph if step.for_each is not None]
    later = set(open_)
    while open_:
        reached = [task_id for task_id in waiting.get(open_.pop(), ()) if task_id not in later]
        later.update(reached)
        open_ += reached
    return [one for one in graph if one[1].task_id not in later], [one for one in graph if one[1].task_id in later]


def _kept(later: Iterable[Placed]) -> tuple[dict[str, Any], ...]:
    return tuple(codec.decode(codec.encode(step)) for _, step in later)


def _tasks(now: Iterable[Placed], graph: Iterable[Placed]) -> tuple[Task, ...]:
    answered = soundness.answered(step for _, step in graph)
    return tuple(_task(soundness.without(step, answered)) for _, step in now)


def _task(step: Step) -> Task:
    fields = {name: getattr(step, name) for name in _TASK_FIELDS}
    if not step.depends_on and step.payload:
        # Nothing is filled in before the attempts of a task that waits for none: all that it may hold is literals.
        fields["payload"] = resolved(step.payload, {})
    return Task(**fields)


def _check_judge(spec: Spec, graph: Sequence[Placed], path: str) -> None:
    """Refuse a judge that is no task, has what only a task beside others can have, or asks for the result of a task that there is not."""
    if spec.evaluate is None or spec.evaluate.judge is None:
        return
    at = f"{path}.evaluate.judge"
    if other := next((name for name in spec.evaluate.judge if name in _NOT_OF_JUDGE), None):
        raise InputRefused(f"{at}.{other}: a judge has no {other}; it is asked once all else has ended", f"{at}.{other}")
    judge = task_of({"task_id": JUDGE_ID, **spec.evaluate.judge}, at)
    if judge.kind == "python" and not isinstance(judge.payload.get("kwargs", {}), dict):
        raise InputRefused(f"{at}.payload.kwargs: not an object", f"{at}.payload.kwargs")
    ids = {step.task_id for _, step in graph}
    if JUDGE_ID in ids:
        where = next(where for where, step in graph if step.task_id == JUDGE_ID)
        raise InputRefused(f"{where}.task_id: {JUDGE_ID} is what the judge is called", f"{where}.task_id")
    for reference in references_in(judge.payload, f"{at}.payload"):
        if reference.task not in ids:
            raise InputRefused(f"{reference.at}: the workflow has no task {reference.task}", f"{reference.at}.{FROM}")


def _plain_judge(evaluate: Judged | None, path: str) -> Judged | None:
    """The same with the judge's fields by their own names, as they are kept."""
    if evaluate is None or evaluate.judge is None:
        return evaluate
    return msgspec.structs.replace(evaluate, judge=without_aliases(evaluate.judge, f"{path}.evaluate.judge"))


def _check_bounds(rows: Any, parent: Task, record: WorkflowRecord) -> None:
    if not isinstance(rows, list):
        raise InputRefused(f"{SPAWN}: not a list; allowed: a list of tasks", SPAWN)
    most = record.workflow.max_depth
    if rows and parent.depth + 1 > most:
        said = f"{parent.task_id} was itself asked for at depth {parent.depth}" if parent.depth else "no task may ask for others"
        raise InputRefused(f"{SPAWN}: {said}, and max_depth is {most}", SPAWN)
    if len(rows) > _room(record):
        said = f"{len(rows)} tasks are asked for, and of max_tasks ({record.workflow.max_tasks}) {max(0, _room(record))} are left"
        raise InputRefused(f"{SPAWN}: {said}", SPAWN)


def _room(record: WorkflowRecord) -> int:
    return record.workflow.max_tasks - record.made - len(record.spawned)


def _after(step: Step, parent: Task) -> Step:
    """The step, which also waits for the task that asked for it (and so may refer to it)."""
    if parent.task_id in step.needs():
        return step
    return msgspec.structs.replace(step, depends_on=(*step.depends_on, parent.task_id))
