"""Steps become tasks: modes become dependencies, children are put in line, and what is made for each element of a list is made.

Called by `workflows` alone. A child's tasks are called after it (`child.task`), elements by their number (`lint.0`), and a join
bears the step's own name: it gathers what they did. All that a step waits for, its tasks and its join wait for as well.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeAlias

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from phase21.domain.errors import InputRefused
from phase21.domain.references import (
    DEFAULT,
    FROM,
    LITERAL,
    PATH,
    Reference,
    ReferenceFault,
    item_marks,
    reference_of,
    references,
    renamed,
    taken,
    with_item,
)
from phase21.domain.tasks import Compensation, Dependency, Task, When
from phase21.domain.workflows import JOIN, Mode, Upstream, undo_id
from phase21.intake.fields import check_kind, check_moments
from phase21.intake.shapes import MADE_INSIDE, Child, Step
from phase21.planning import conditions
from phase21.store import codec

ANY = "*"
"""The number of an element that stands for all those of a list that is not known yet."""

ID_LONGEST, CONDITION_LONGEST, LABEL_LONGEST = 128, 4096, 256
FILLED_BYTES_MOST = 256 * 1024 * 1024
"""What elements that are filled in may come to: a large one that is asked for often enough would fill any memory."""

Placed: TypeAlias = tuple[str, Step]
"""A step, and the path where it was written."""

_BLANK = Step(task_id="blank")
_OF_CHILD = frozenset({"task_id", "depends_on", "condition", "for_each", "workflow", "step", "priority", "metadata"})
_OF_UNDO = frozenset(Compensation.__struct_fields__) | {"task_id", "step", "priority"}


class Source(msgspec.Struct, frozen=True):
    """A step that is made over what another task leaves."""

    at: str
    step: str
    reference: Reference


# -- as it was written ---------------------------------------------------------------------------------------------------


def wired(steps: Sequence[Step], mode: Mode, path: str, field: str = "tasks") -> list[Placed]:
    """The steps of one list with their mode as dependencies, and their compensations in place. Raises InputRefused."""
    places = [(f"{path}.{field}[{n}]" if path else f"{field}[{n}]", step) for n, step in enumerate(steps)]
    named: dict[str, Placed] = {}
    for at, step in places:
        if step.task_id in named:
            raise InputRefused(f"{at}.task_id: {step.task_id} stands twice in the list", f"{at}.task_id")
        named[step.task_id] = (at, step)
        _check(at, step, mode)
    undoing = {step.compensate for step in steps if isinstance(step.compensate, str)}
    places = [(at, _with_undo(at, step, named)) for at, step in places]
    places = [(at, step) for at, step in places if step.task_id not in undoing]
    if undoing:
        _check_undone(places, undoing)
    return _chained(places) if mode is Mode.SEQUENTIAL else places


def given(step: Step) -> list[str]:
    """The names of the fields of a step that were given another value than the default."""
    return [name for name in Step.__struct_fields__ if getattr(step, name) != getattr(_BLANK, name)]


def references_in(payload: Any, at: str) -> list[Reference]:
    """The references in a payload. Raises InputRefused for one that is malformed."""
    with _refused(at):
        return list(references(payload, at))


def _check(at: str, step: Step, mode: Mode) -> None:
    """What one step says alone."""
    if step.depth:
        raise InputRefused(f"{at}: unknown field {MADE_INSIDE}; it is counted, not given", f"{at}.{MADE_INSIDE}")
    if mode is Mode.PARALLEL and step.depends_on:
        said = "in a parallel workflow no task waits for another; allowed: mode graph"
        raise InputRefused(f"{at}.depends_on: {said}", f"{at}.depends_on")
    if step.workflow is not None and (other := next((name for name in given(step) if name not in _OF_CHILD), None)):
        said = f"goes with no child workflow; give {other} to the child's tasks"
        raise InputRefused(f"{at}.{other}: {said}", f"{at}.{other}")
    check_kind(step.kind, f"{at}.kind")
    if isinstance(step.compensate, Compensation):
        check_kind(step.compensate.kind, f"{at}.compensate.kind")
    if step.deadline is not None:
        check_moments(step, at)
    if step.condition is not None:
        _check_condition(f"{at}.condition", step.condition)
    if step.payload or step.compensate is not None:
        _check_marks(at, step)


def _check_marks(at: str, step: Step) -> None:
    """What stands for something else in a payload, as far as it can be judged alone."""
    for one in _references(step, at):
        if ANY in one.task:
            raise InputRefused(f"{one.at}: {one.task} is not the id of a task", f"{one.at}.{FROM}")
    if step.for_each is None and (where := next(_item_marks(step, at), None)):
        raise InputRefused(f"{where}: $item and $index stand only in a task with for_each", where)


def _check_condition(path: str, condition: str) -> None:
    try:
        conditions.check(condition)
    except conditions.ConditionFault as fault:
        raise InputRefused(f"{path}: {fault}", path) from None
    if any(ANY in name for name in conditions.named(condition) or ()):
        raise InputRefused(f"{path}: names what is not the id of a task", path)


def _references(step: Step, at: str) -> list[Reference]:
    found = references_in(step.payload, f"{at}.payload") if step.payload else []
    undo = step.compensate
    return found + (references_in(undo.payload, f"{at}.compensate.payload") if isinstance(undo, Compensation) else [])


def _item_marks(step: Step, at: str) -> Iterator[str]:
    yield from item_marks(step.payload, f"{at}.payload")
    if isinstance(step.compensate, Compensation):
        yield from item_marks(step.compensate.payload, f"{at}.compensate.payload")


def _with_undo(at: str, step: Step, named: Mapping[str, Placed]) -> Step:
    """The step with the task that undoes it in the place of that task's id."""
    if not isinstance(step.compensate, str):
        return step
    if step.compensate not in named or step.compensate == step.task_id:
        said = f"{step.compensate} is no other task of the list"
        raise InputRefused(f"{at}.compensate: {said}", f"{at}.compensate")
    where, undo = named[step.compensate]
    other = next((name for name in given(undo) if name not in _OF_UNDO), None)
    if other is not None:
        said = f"{undo.task_id} runs only to undo {step.task_id}, and so has no {other}"
        raise InputRefused(f"{where}.{other}: {said}", f"{where}.{other}")
    return replace(step, compensate=Compensation(**{name: getattr(undo, name) for name in Compensation.__struct_fields__}))


def _check_undone(places: Iterable[Placed], undoing: Collection[str]) -> None:
    for at, step in places:
        if needed := next((one for one in step.needs() if one in undoing), None):
            said = f"{needed} runs only to undo another task; nothing can wait for it"
            raise InputRefused(f"{at}.depends_on: {said}", f"{at}.depends_on")


def _chained(places: Sequence[Placed]) -> list[Placed]:
    chain = [places[0]]
    for at, step in places[1:]:
        before = chain[-1][1].task_id
        waits = step.depends_on if before in set(step.needs()) else (before, *step.depends_on)
        chain.append((at, replace(step, depends_on=waits)))
    return chain


# -- made into tasks -----------------------------------------------------------------------------------------------------


class Maker:
    """Puts children in line and makes what is made for each element of a list that is known.

    `room` is how many tasks there may be. With `upstream` lists are taken from results, and a fault becomes a join that fails;
    without it a fault is refused. In a `trial` one element stands for every list that is not known. `sources` are the steps
    that were found to be made over results.
    """

    def __init__(
        self, *, room: int, upstream: Mapping[str, Upstream] | None = None, known: Collection[str] = (), trial: bool = False
    ) -> None:
        self.sources: list[Source] = []
        self._room = room
        self._upstream = upstream
        self._known = known
        self._trial = trial
        self._filled_bytes = 0

    def made(self, steps: Iterable[Placed]) -> list[Placed]:
        """Every step as it is carried out; those over a list that is not known stay as they are. Raises InputRefused."""
        if self._upstream is not None:
            return [one for at, step in steps for one in self._forgiven(at, step)]
        # No more than one too many is made: lists within lists may come to any number.
        found = list(islice((one for at, step in steps for one in self._of(at, step)), self._room + 1))
        if len(found) > self._room:
            said = f"the workflow comes to {len(found)} tasks or more; max_tasks allows {self._room}"
            raise InputRefused(said, found[self._room][0])
        return found

    def _forgiven(self, at: str, step: Step) -> list[Placed]:
        """What a step comes to; a join that fails with the reason where it comes to nothing."""
        try:
            room = max(0, self._room)
            found = list(islice(self._of(at, step), room + 1))
            if step.for_each is not None and len(found) > room:
                raise InputRefused(f"for_each comes to {len(found)} tasks or more; of max_tasks {room} are left")
        except InputRefused as refusal:
            found = [(at, self._join(step, {"error": str(refusal)}, ()))]
        if step.for_each is not None:
            self._room -= len(found)
        return found

    def _of(self, at: str, step: Step) -> Iterator[Placed]:
        if step.for_each is not None:
            values = self._values(at, step)
            yield from ((at, step),) if values is None else self._elements(at, step, values)
        elif step.workflow is not None:
            yield from self._child(at, step, step.workflow)
        else:
            yield at, self._fit(at, step)

    def _fit(self, at: str, step: Step) -> Step:
        """The step, unless what was added to it on the way made it too long, or it is there already. Raises InputRefused."""
        if len(step.task_id) > ID_LONGEST:
            raise InputRefused(f"{at}.task_id: {step.task_id} has more than {ID_LONGEST} characters", f"{at}.task_id")
        if step.condition is not None and len(step.condition) > CONDITION_LONGEST:
            said = f"with those of the workflows around it, it has more than {CONDITION_LONGEST} characters"
            raise InputRefused(f"{at}.condition: {said}", f"{at}.condition")
        if isinstance(step.compensate, Compensation) and len(undo_id(step.task_id)) > ID_LONGEST:
            said = f"what undoes it would be called {undo_id(step.task_id)}, which has more than {ID_LONGEST} characters"
            raise InputRefused(f"{at}.task_id: {said}", f"{at}.task_id")
        if step.task_id in self._known:
            raise InputRefused(f"{at}.task_id: {step.task_id} was already given", f"{at}.task_id")
        return step

    # -- elements

    def _values(self, at: str, step: Step) -> Sequence[Any] | None:
        """The list that a step is made over; None where it is not known yet."""
        over, path = step.for_each, f"{at}.for_each"
        if isinstance(over, list):
            return over
        with _refused(path):
            value = self._over(over or {}, path, step)
            if value is UNSET:
                return [UNSET] if self._trial else None
            if type(value) is not list:
                raise ReferenceFault(path, "what it stands for is not a list")
        return value

    def _over(self, over: dict[str, Any], path: str, step: Step) -> Any:
        if set(over) == {LITERAL}:
            return over[LITERAL]
        if FROM not in over:
            raise ReferenceFault(path, 'neither a list nor {"$from": "task_id", "path": "result…"}')
        reference = reference_of(over, path)
        self.sources.append(Source(path, step.task_id, reference))
        known = self._upstream is not None and reference.task in self._upstream
        return taken(reference, self._upstream or {}) if known else UNSET

    def _elements(self, at: str, step: Step, values: Sequence[Any]) -> Iterator[Placed]:
        if len(values) > self._room:
            said = f"for_each is over {len(values)} elements; max_tasks leaves room for {max(0, self._room)} tasks"
            raise InputRefused(f"{at}.for_each: {said}", f"{at}.for_each")
        names = []
        marks = codec.encode(replace(step, for_each=None)).count(b'"$item"')
        for n, item in enumerate(values):
            self._fill(f"{at}.for_each", marks, item)
            with _refused(f"{at}.payload"):
                one = _for_item(replace(step, for_each=None), item, n, at, known=self._upstream is not None)
            names.append(f"{step.task_id}.{ANY if item is UNSET else n}")
            yield from self._of(at, replace(one, task_id=names[-1]))
        yield at, self._fit(at, self._join(step, {"results": [_result_of(name) for name in names]}, names))

    def _fill(self, at: str, marks: int, item: Any) -> None:
        """Count what comes into payloads in the place of an element's marks. Raises InputRefused where that is too much."""
        self._filled_bytes += marks * len(codec.encode(None if item is UNSET else item)) if marks else 0
        if self._filled_bytes > FILLED_BYTES_MOST:
            raise InputRefused(f"{at}: with its elements filled in, it may come to more than {FILLED_BYTES_MOST} bytes", at)

    # -- children

    def _child(self, at: str, step: Step, child: Child) -> Iterator[Placed]:
        inner = wired(child.tasks, child.mode, f"{at}.workflow")
        names = {one.task_id: f"{step.task_id}.{one.task_id}" for _, one in inner}
        for place, one in inner:
            yield from self._of(place, _within(_scoped(one, names), names[one.task_id], step, place))
        results = {short: _result_of(name) for short, name in names.items()}
        yield at, self._fit(at, self._join(step, {"results": results}, tuple(names.values())))

    def _join(self, step: Step, payload: dict[str, Any], names: Sequence[str]) -> Step:
        """The task that gathers what `names` did, and bears the step's own name."""
        if names:
            payload = {**payload, "statuses": {name: {FROM: name, PATH: "status"} for name in names}}
        return Step(
            task_id=step.task_id,
            kind=JOIN,
            payload=payload,
            depends_on=(*step.depends_on, *(Dependency(task=name, when=When.SETTLED) for name in names)),
            condition=step.condition,
            priority=step.priority,
            metadata=step.metadata,
            step=f"{step.step}.{JOIN}"[:LABEL_LONGEST],
            predicted_success_rate=1.0,
            estimated_duration_s=0.0,
        )


class _refused:  # noqa: N801 - reads as a word of the language
    """Has a fault of a reference refused as input, with its path."""

    def __init__(self, at: str) -> None:
        self._at = at

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, ReferenceFault):
            raise InputRefused(str(error), error.at or self._at) from None


def _result_of(name: str) -> dict[str, Any]:
    return {FROM: name, DEFAULT: None}


def _for_item(step: Step, item: Any, n: int, at: str, *, known: bool) -> Step:
    """The step with an element in its payload and in its child's; a task within that has a for_each of its own keeps its payload."""
    if step.for_each is not None:
        return replace(step, for_each=with_item(step.for_each, item, n, f"{at}.for_each", literal=known))
    undo, child = step.compensate, step.workflow
    if isinstance(undo, Compensation):
        undo = replace(undo, payload=with_item(undo.payload, item, n, f"{at}.compensate.payload", literal=known))
    if child is not None:
        path = f"{at}.workflow.tasks"
        child = replace(
            child, tasks=tuple(_for_item(one, item, n, f"{path}[{k}]", known=known) for k, one in enumerate(child.tasks))
        )
    payload = with_item(step.payload, item, n, f"{at}.payload", literal=known)
    return replace(step, payload=payload, compensate=undo, workflow=child)


def _within(inner: Step, name: str, outer: Step, at: str) -> Step:
    """A child's task under its whole name, waiting for all that the child waits for."""
    label = inner.step or f"{outer.step}.{inner.task_id}"[:LABEL_LONGEST]
    waits = _merged(outer.depends_on, inner.depends_on, f"{at}.depends_on")
    condition = conditions.both(outer.condition, inner.condition)
    return replace(inner, task_id=name, step=label, depends_on=waits, condition=condition)


def _merged(first: tuple[str | Dependency, ...], second: tuple[str | Dependency, ...], path: str) -> tuple[str | Dependency, ...]:
    """Both lists of dependencies, each once."""
    merged: dict[str, When] = {}
    for needed in Task(task_id="both", depends_on=(*first, *second)).dependencies():
        before = merged.get(needed.task, When.SETTLED)
        if When.SETTLED not in {before, needed.when} and before is not needed.when:
            said = f"waits for {needed.task} to have succeeded and to have failed, as the workflow around it asks for the other"
            raise InputRefused(f"{path}: {said}", path)
        merged[needed.task] = before if needed.when is When.SETTLED else needed.when
    return tuple(one if when is When.SUCCEEDED else Dependency(task=one, when=when) for one, when in merged.items())


def _scoped(step: Step, names: Mapping[str, str]) -> Step:
    """The step of a child with every name of a sibling made whole."""
    if not names:
        return step
    name_of = _naming(names)
    undo, child = step.compensate, step.workflow
    if isinstance(undo, Compensation):
        undo = replace(undo, payload=renamed(undo.payload, name_of))
    if child is not None:
        shadowed = {one.task_id for one in child.tasks}
        seen = {short: name for short, name in names.items() if short not in shadowed}
        child = replace(child, tasks=tuple(_scoped(one, seen) for one in child.tasks))
    return replace(
        step,
        depends_on=tuple(_called(needed, name_of) for needed in step.depends_on),
        condition=None if step.condition is None else conditions.renamed(step.condition, name_of),
        payload=renamed(step.payload, name_of),
        for_each=renamed(step.for_each, name_of),
        compensate=undo,
        workflow=child,
    )


def _called(needed: str | Dependency, name_of: Callable[[str], str]) -> str | Dependency:
    return name_of(needed) if isinstance(needed, str) else replace(needed, task=name_of(needed.task))


def _naming(names: Mapping[str, str]) -> Callable[[str], str]:
    """What a sibling is called outside: `lint` is `child.lint`, and `lint.0`, which is made of it, `child.lint.0`."""

    def name_of(short: str) -> str:
        begin = short
        while begin:
            if begin in names:
                return names[begin] + short[len(begin) :]
            begin = begin.rpartition(".")[0]
        return short

    return name_of
