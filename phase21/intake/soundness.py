"""Whether the tasks of a workflow fit together: every id once, every name known, no circle, every reference to what came before.

Called by `workflows`, over all that a workflow may come to. It raises, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from msgspec.structs import replace

from phase21.domain.errors import InputRefused
from phase21.domain.references import FROM, marked
from phase21.domain.tasks import Compensation, When
from phase21.domain.workflows import JOIN, UNDO, undo_id
from phase21.intake.circles import cycle_among, shown
from phase21.intake.shapes import Step
from phase21.intake.steps import ANY, Placed, Source, references_in
from phase21.planning import conditions

Needs = Mapping[str, tuple[str, ...]]
Named = tuple[str, str, str]
"""A task, another that it names, and the path where."""

NAMES_AT_ONCE = 4096
"""How many names are looked for in one passage through the tasks: a bit for each is kept for every task."""


def check(
    graph: Sequence[Placed],
    sources: Iterable[Source] = (),
    outside: Needs | None = None,
    *,
    taken: Collection[str] = (),
    growing: Collection[str] = (),
) -> None:
    """Refuse a graph that does not hold together. Raises InputRefused with the field's path.

    `outside` are tasks that are there already, with what they depend on; `taken` ids that may not be given again, `growing` steps of
    which elements are still to come.
    """
    _check_ids(graph, taken, growing)
    _check_undo_ids(graph, taken)
    needs = {**(outside or {}), **{step.task_id: tuple(step.needs()) for _, step in graph}}
    _check_needs(graph, needs)
    _check_named(_named(graph, sources), needs)


def answered(steps: Iterable[Step]) -> frozenset[str]:
    """The tasks for whose failure some task is there."""
    return frozenset(
        needed.task for step in steps if step.depends_on for needed in step.dependencies() if needed.when is When.FAILED
    )


def without(step: Step, answers: frozenset[str]) -> Step:
    """A join that does not fail for those of its tasks whose failure is answered; any other step as it is."""
    statuses = step.payload.get("statuses") if step.kind == JOIN else None
    if not statuses or answers.isdisjoint(statuses):
        return step
    kept = {name: mark for name, mark in statuses.items() if name not in answers}
    return replace(step, payload={**step.payload, "statuses": kept})


def _check_ids(graph: Sequence[Placed], taken: Collection[str], growing: Collection[str]) -> None:
    seen: set[str] = set()
    for at, step in graph:
        if step.task_id in seen or step.task_id in taken:
            said = f"{step.task_id} is given twice" if step.task_id in seen else f"{step.task_id} was already given in the run"
            raise InputRefused(f"{at}.task_id: {said}", f"{at}.task_id")
        seen.add(step.task_id)
    growing = {*growing, *(task_id.removesuffix(f".{ANY}") for task_id in seen if task_id.endswith(f".{ANY}"))}
    for at, step in graph if growing else ():
        if over := _element_of(step.task_id, growing):
            said = f"{step.task_id} may be given twice: so are the elements of {over} called"
            raise InputRefused(f"{at}.task_id: {said}", f"{at}.task_id")


def _check_undo_ids(graph: Sequence[Placed], taken: Collection[str]) -> None:
    """Refuse what bears the name of that which undoes another task, if it comes to that."""
    undoing = {undo_id(step.task_id): at for at, step in graph if isinstance(step.compensate, Compensation)}
    for at, step in graph:
        undone = step.task_id.removesuffix(f".{UNDO}")
        if step.task_id in undoing or (undone != step.task_id and undone in taken):
            said = f"{step.task_id} may be given twice: so is called what undoes {undone}"
            raise InputRefused(f"{at}.task_id: {said}", f"{at}.task_id")
    if again := next((name for name in undoing if name in taken), None):
        said = f"what undoes it would be called {again}, which was already given in the run"
        raise InputRefused(f"{undoing[again]}.compensate: {said}", f"{undoing[again]}.compensate")


def _element_of(task_id: str, growing: Collection[str]) -> str | None:
    """The step for the elements of which an id may be given again."""
    parts = task_id.split(".")
    begins = ((".".join(parts[:n]), parts[n]) for n in range(1, len(parts)))
    return next((begin for begin, number in begins if number.isdecimal() and begin in growing), None)


def _check_needs(graph: Sequence[Placed], needs: Needs) -> None:
    for at, step in graph:
        for needed in step.needs():
            if needed == step.task_id:
                raise InputRefused(f"{at}.depends_on: task {needed} depends on itself", f"{at}.depends_on")
            if needed not in needs:
                raise InputRefused(f"{at}.depends_on: {_unknown(needed, needs)}", f"{at}.depends_on")
    cycle = cycle_among(step for _, step in graph)
    if cycle:
        at = next(at for at, step in graph if step.task_id in cycle)
        raise InputRefused(f"{at}.depends_on: dependencies go in a circle: {shown(cycle)}", f"{at}.depends_on")


def _named(graph: Sequence[Placed], sources: Iterable[Source]) -> Iterator[Named]:
    """All that steps name besides what they depend on: in payloads, in conditions, and as what they are made over."""
    for at, step in graph:
        if marked(step.payload):
            for one in references_in(step.payload, f"{at}.payload"):
                yield step.task_id, one.task, f"{one.at}.{FROM}"
        if isinstance(step.compensate, Compensation) and marked(step.compensate.payload):
            for one in references_in(step.compensate.payload, f"{at}.compensate.payload"):
                if one.task != step.task_id:
                    yield step.task_id, one.task, f"{one.at}.{FROM}"
        for task_id in conditions.named(step.condition) or () if step.condition is not None else ():
            yield step.task_id, task_id, f"{at}.condition"
    for source in sources:
        yield source.step, source.reference.task, f"{source.at}.{FROM}"


def _check_named(named: Iterable[Named], needs: Needs) -> None:
    """Refuse what names a task that is unknown, or may end after the one that names it."""
    direct: dict[str, frozenset[str]] = {}
    far: list[Named] = []
    for one in named:
        task_id, wanted, path = one
        if task_id not in direct:
            direct[task_id] = frozenset(needs[task_id])
        if wanted in direct[task_id]:
            continue
        if wanted not in needs:
            raise InputRefused(f"{path}: {_unknown(wanted, needs)}", path)
        far.append(one)
    if early := _not_waited_for(far, needs):
        task_id, wanted, path = early
        raise InputRefused(f"{path}: {task_id} does not wait for {wanted}; name it in depends_on", path)


def _not_waited_for(far: Sequence[Named], needs: Needs) -> Named | None:
    """The first that names what its task does not wait for, itself or through others. Each task is looked at once for many names."""
    order = _in_order(needs) if far else []
    wanted = list(dict.fromkeys(one[1] for one in far))
    missed: set[tuple[str, str]] = set()
    for start in range(0, len(wanted), NAMES_AT_ONCE):
        bits = {name: 1 << n for n, name in enumerate(wanted[start : start + NAMES_AT_ONCE])}
        before: dict[str, int] = {}
        for task_id in order:
            mask = 0
            for needed in needs[task_id]:
                mask |= before.get(needed, 0) | bits.get(needed, 0)
            before[task_id] = mask
        missed.update((task_id, name) for task_id, name, _ in far if name in bits and not before[task_id] & bits[name])
    return next((one for one in far if one[:2] in missed), None) if missed else None


def _in_order(needs: Needs) -> list[str]:
    """Every task behind all that it depends on."""
    left = {task_id: sum(needed in needs for needed in needed_ones) for task_id, needed_ones in needs.items()}
    waiting: dict[str, list[str]] = {}
    for task_id, needed_ones in needs.items():
        for needed in needed_ones:
            waiting.setdefault(needed, []).append(task_id)
    order = [task_id for task_id, count in left.items() if not count]
    for task_id in order:
        for behind in waiting.get(task_id, ()):
            left[behind] -= 1
            if not left[behind]:
                order.append(behind)
    return order


def _unknown(wanted: str, needs: Needs) -> str:
    begin, _, number = wanted.rpartition(".")
    if number.isdecimal() and f"{begin}.{ANY}" in needs:
        return f"{wanted} is made only on the way, if at all; name {begin}, which gathers all of its elements"
    return f"the workflow has no task {wanted}"
