"""What is drawn of a run's tasks: a node for each, or for many that do the same, and what they wait for.

The report, its digests and the verb `show` draw from these. Values in, values out; the same records give the same nodes for ever.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from heapq import heapify, heappop, heappush
from itertools import chain
from typing import Any

import msgspec

from phase21.domain.progress import task_percent, weight_s
from phase21.domain.records import TaskRecord
from phase21.domain.tasks import Dependency, Task, TaskStatus, When
from phase21.domain.workflows import JOIN

FOLD_LEAST = 5
"""So many elements of one list are drawn as one node."""

LARGE, CHUNK = 500, 500
"""Of a wave with more tasks than this no node is made for each; after so many of them others have their turn."""

NODES_MOST = 60
"""A graph with more nodes than this is drawn by step."""

WORST_FIRST = (
    TaskStatus.FAILED,
    TaskStatus.IN_PROGRESS,
    TaskStatus.RETRYING,
    TaskStatus.DEFERRED,
    TaskStatus.PENDING,
    TaskStatus.CANCELLED,
    TaskStatus.COMPLETED,
    TaskStatus.SKIPPED,
)
"""The status that stands for a node is the first of these that any of its tasks has."""

_UNDOES, _UNDO = "undoes", ".undo"


class Edge(msgspec.Struct, frozen=True, omit_defaults=True):
    """Another node that comes before, and what must have become of it."""

    node: str
    when: str = When.SUCCEEDED


class Node(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A task, or several; `label` is what they have in common.

    `later` marks a step that is not a task yet, `undoes` a compensation. `duration_s` is that of a task's last attempt, and for many
    of all of them; `weight_s` what `percent` weighs.
    """

    name: str
    label: str
    statuses: dict[str, int]
    needs: tuple[Edge, ...] = ()
    condition: str | None = None
    kind: str = ""
    wave: int | None = None
    undoes: str | None = None
    later: str | None = None
    agent_id: str | None = None
    attempts: int = 0
    percent: float = 0.0
    note: str = ""
    weight_s: float = 0.0
    duration_s: float | None = None
    started_us: int | None = None
    ended_us: int | None = None
    due_us: int | None = None
    reason: str | None = None
    kept: str | None = None
    undoable: bool = False

    @property
    def tasks(self) -> int:
        """How many tasks it stands for."""
        return sum(self.statuses.values())

    @property
    def title(self) -> str:
        """Its name for a person."""
        return self.name.removesuffix(ALL)

    @property
    def status(self) -> str:
        """The status that stands for all of them."""
        return next(str(status) for status in WORST_FIRST if status in self.statuses)


# -- made ----------------------------------------------------------------------------------------------------------------


def node_of(record: TaskRecord, wave: int | None) -> Node:
    """One task as it stands."""
    task = record.task
    return Node(
        name=task.task_id,
        label=label_of(task, wave),
        statuses={str(record.status): 1},
        needs=edges_of(task),
        condition=task.condition,
        kind=task.kind,
        wave=wave,
        undoes=undone_by(task),
        agent_id=record.ran_by or record.agent_id,
        attempts=record.attempts,
        percent=task_percent(record),
        note=record.note if record.status is TaskStatus.IN_PROGRESS else "",
        weight_s=weight_s(task),
        duration_s=record.duration_s,
        started_us=record.first_start_us,
        ended_us=record.end_us,
        due_us=record.due_us if not record.final else None,
        reason=record.error_msg,
        undoable=task.compensate is not None,
    )


def later_node(step: Mapping[str, Any], wave: int | None = None) -> Node:
    """A step, as it was written, that cannot be made into tasks yet."""
    task = msgspec.convert(
        {name: step[name] for name in ("task_id", "depends_on", "step", "kind", "condition") if name in step}, Task
    )
    over = step.get("for_each")
    made = f"for each of {over['$from']}.{over.get('path', 'result')}" if isinstance(over, dict) and "$from" in over else "later"
    source = (Edge(over["$from"]),) if isinstance(over, dict) and "$from" in over else ()
    needs = edges_of(task)
    known = {edge.node for edge in needs}
    return Node(
        name=task.task_id,
        label=label_of(task, wave),
        statuses={str(TaskStatus.PENDING): 1},
        needs=(*needs, *(edge for edge in source if edge.node not in known)),
        condition=task.condition,
        kind=task.kind,
        later=made,
    )


def undone_by(task: Task) -> str | None:
    """The task that this one undoes; None where it is no compensation. A workflow calls them so, and says so in their metadata."""
    undoes = task.metadata.get(_UNDOES)
    return undoes if isinstance(undoes, str) and task.task_id == f"{undoes}{_UNDO}" else None


def label_of(task: Task, wave: int | None) -> str:
    """By which name a task is drawn together with others: its step's, else its kind's."""
    if task.step is not None:
        return task.step.partition("/")[2] or task.step
    return task.kind if wave is None else f"{task.kind} of wave {wave}"


def edges_of(task: Task) -> tuple[Edge, ...]:
    """What a task depends on."""
    return tuple(Edge(needed.task, str(needed.when)) for needed in task.dependencies()) if task.depends_on else ()


# -- folded --------------------------------------------------------------------------------------------------------------

_NUMBER = re.compile(r"\.\d+(?=\.|\Z)")
ALL, ALONE = "#", "!"
"""Stand behind names that are no task's, where they could be taken for one's."""


def folded(nodes: Sequence[Node], most: int = NODES_MOST) -> tuple[Node, ...]:
    """The nodes with elements of a list drawn as one, and where there are more than `most` all that share a label."""
    found = _grouped(nodes, _pattern, FOLD_LEAST)
    return _grouped(found, _by_label, 2) if len(found) > most else found


def _pattern(node: Node) -> str | None:
    """The name with `*` for each number of an element; None where there is none."""
    made, count = _NUMBER.subn(".*", node.name)
    return made if count else None


def _by_label(node: Node) -> str | None:
    return f"{node.label}{ALL}"


def _grouped(nodes: Sequence[Node], key_of: Callable[[Node], str | None], least: int) -> tuple[Node, ...]:
    """Nodes that share a key as one where they are many enough; in order of their first."""
    places = [key_of(node) or f"{node.name}{ALONE}" for node in nodes]
    groups: dict[str, list[Node]] = {}
    for node, place in zip(nodes, places, strict=True):
        groups.setdefault(place, []).append(node)
    many = {place: group for place, group in groups.items() if len(group) >= least}
    called = {node.name: place for place, group in many.items() for node in group}
    if not many:
        return tuple(nodes)
    found: list[Node] = []
    for node, place in zip(nodes, places, strict=True):
        if place not in many:
            found.append(msgspec.structs.replace(node, needs=_renamed(node.needs, called, node.name)))
        elif node is many[place][0]:
            found.append(_merged(place, many[place], called))
    return tuple(found)


def _renamed(needs: Iterable[Edge], called: Mapping[str, str], own: str) -> tuple[Edge, ...]:
    renamed = (Edge(called.get(edge.node, edge.node), edge.when) for edge in needs)
    return tuple(dict.fromkeys(edge for edge in renamed if edge.node != own))


def _merged(name: str, group: Sequence[Node], called: Mapping[str, str]) -> Node:
    """One node for a group. What they do not all share is left out; of reasons the first of the worst is kept."""
    first = group[0]
    statuses: Counter[str] = Counter()
    for node in group:
        statuses.update(node.statuses)
    weight = sum(node.weight_s for node in group)
    done = sum(node.percent * node.weight_s for node in group)
    told = [node.duration_s for node in group if node.duration_s is not None]
    worst = next(status for status in WORST_FIRST if status in statuses)
    return Node(
        name=name,
        label=first.label,
        statuses={str(status): statuses[status] for status in TaskStatus if status in statuses},
        needs=_renamed((edge for node in group for edge in node.needs), called, name),
        condition=_shared([node.condition for node in group]),
        kind=_shared([node.kind for node in group]) or "",
        wave=_shared([node.wave for node in group]),
        undoes=None if first.undoes is None else called.get(first.undoes, first.undoes),
        later=_shared([node.later for node in group]),
        agent_id=_shared([node.agent_id for node in group]),
        attempts=sum(node.attempts for node in group),
        percent=done / weight if weight else 0.0,
        weight_s=weight,
        duration_s=sum(told) if told else None,
        started_us=min((node.started_us for node in group if node.started_us is not None), default=None),
        ended_us=max((node.ended_us for node in group if node.ended_us is not None), default=None),
        reason=next((node.reason for node in group if worst in node.statuses and node.reason), None),
        kept=_shared([node.kept for node in group]),
        undoable=any(node.undoable for node in group),
    )


def _shared(values: Sequence[Any]) -> Any:
    """What all have; None where they differ."""
    return values[0] if values.count(values[0]) == len(values) else None


_BARE = dict.fromkeys(("agent_id", "duration_s", "started_us", "ended_us", "due_us", "reason"))


def summed_up(
    records: Sequence[TaskRecord], wave: int, most: int = NODES_MOST
) -> Generator[None, None, tuple[tuple[Node, ...], int]]:
    """The tasks of a wave folded into at most so many nodes, without times and notes; and how many nodes are left out.

    It yields where others may have their turn: a wave may hold a hundred thousand tasks.
    """
    if len(records) <= LARGE:
        found: Sequence[Node] = folded([node_of(record, wave) for record in records], most)
    else:
        found = yield from _by_step(records, wave)
    bare = tuple(msgspec.structs.replace(node, **_BARE, note="", attempts=0) for node in found[:most])
    return bare, len(found) - len(bare)


def _by_step(records: Sequence[TaskRecord], wave: int) -> Generator[None, None, list[Node]]:
    """What `folded` makes of so many tasks, without a node for each."""
    groups: dict[tuple[str | None, str], list[TaskRecord]] = {}
    for start in range(0, len(records), CHUNK):
        for record in records[start : start + CHUNK]:
            step = record.task.step
            key = (step, record.task.kind if step is None else "")
            group = groups.get(key)
            if group is None:
                group = groups[key] = []
            group.append(record)
        yield
    called: dict[str, str] = {}
    for group in groups.values():
        if len(group) > 1:
            called.update(dict.fromkeys([record.task.task_id for record in group], f"{label_of(group[0].task, wave)}{ALL}"))
            yield
    found: list[Node] = []
    for group in groups.values():
        needed: dict[Any, None] = {}
        for start in range(0, len(group), CHUNK):
            told: list[Any] = list(chain.from_iterable([record.task.depends_on for record in group[start : start + CHUNK]]))
            needed.update(dict.fromkeys([*map(called.get, told, told)]))
            yield
        edges = dict.fromkeys([_edge(one, called) for one in needed])
        found.append(_of_group(label_of(group[0].task, wave), group, wave, edges, called))
    return found


def _edge(needed: str | Dependency, called: Mapping[str, str]) -> Edge:
    """The edge from what is needed; a name is already that of its node."""
    if isinstance(needed, str):
        return Edge(needed, str(When.SUCCEEDED))
    return Edge(called.get(needed.task, needed.task), str(needed.when))


def _of_group(label: str, group: Sequence[TaskRecord], wave: int, edges: Iterable[Edge], called: Mapping[str, str]) -> Node:
    first = node_of(group[0], wave)
    name = f"{label}{ALL}" if len(group) > 1 else first.name
    needs = tuple(edge for edge in edges if edge.node != name)
    if len(group) == 1:
        return msgspec.structs.replace(first, needs=needs)
    counts = Counter([record.status for record in group])
    return Node(
        name=name,
        label=label,
        statuses={str(status): counts[status] for status in TaskStatus if status in counts},
        needs=needs,
        condition=_shared([record.task.condition for record in group]),
        kind=_shared([record.task.kind for record in group]) or "",
        wave=wave,
        undoes=None if first.undoes is None else called.get(first.undoes, first.undoes),
        undoable=any(record.task.compensate is not None for record in group),
    )


def rejoined(parts: Iterable[Sequence[Node]]) -> tuple[Node, ...]:
    """The nodes of several waves as one graph: a task that was carried on stands as it stood last."""
    found = {node.name: node for part in parts for node in part}
    called = {edge.node: made for node in found.values() for edge in node.needs if (made := _NUMBER.sub(".*", edge.node)) in found}
    inside = {name: made for name, made in called.items() if name not in found}
    return tuple(msgspec.structs.replace(node, needs=_renamed(node.needs, inside, node.name)) for node in found.values())


# -- ordered -------------------------------------------------------------------------------------------------------------


def ordered(nodes: Sequence[Node]) -> list[Node]:
    """The nodes so that each stands behind what it waits for, else as they came; what goes in a circle (once folded) as it came."""
    place = {node.name: n for n, node in enumerate(nodes)}
    waits = {node.name: len({edge.node for edge in node.needs if edge.node in place}) for node in nodes}
    followers: dict[str, list[str]] = {}
    for node in nodes:
        for needed in {edge.node for edge in node.needs if edge.node in place}:
            followers.setdefault(needed, []).append(node.name)
    ready = [place[name] for name, count in waits.items() if not count]
    heapify(ready)
    rest, found = iter(range(len(nodes))), list[Node]()
    seen: set[int] = set()
    while len(found) < len(nodes):
        at = heappop(ready) if ready else next(n for n in rest if n not in seen)
        if at in seen:
            continue
        seen.add(at)
        found.append(nodes[at])
        for name in followers.get(nodes[at].name, ()):
            waits[name] -= 1
            if not waits[name]:
                heappush(ready, place[name])
    return found


def is_join(node: Node) -> bool:
    """Whether it only gathers what others did."""
    return node.kind == JOIN


def drawn_needs(node: Node) -> tuple[Edge, ...]:
    """The dependencies that are worth a line: of a join those that it gathers, which wait for all the others themselves.

    That a join, or a compensation, waits for the end of others whatever it is goes without saying.
    """
    if node.undoes is not None:
        return tuple(Edge(edge.node) for edge in node.needs if edge.node != node.undoes)
    if not is_join(node):
        return node.needs
    return tuple(Edge(edge.node) for edge in node.needs if edge.when == When.SETTLED) or node.needs
