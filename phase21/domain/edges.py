"""Who waits for whom in a wave: its tasks by their place, and each one's neighbours.

Made of the wave's tasks whenever it is asked for first, and never stored: the folds count by it, the manager orders by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from phase21.domain.tasks import Task


class Tasked(Protocol):
    """What stands for a task in a wave."""

    @property
    def task(self) -> Task:
        """The task as it was submitted."""


R = TypeVar("R", bound=Tasked)


class Edges(NamedTuple, Generic[R]):
    """Tasks are numbered as they stand in the wave: `places` is by id. `loose` are those that depend on more than bare ids of the wave."""

    places: dict[str, int]
    records: list[R]
    parents: list[tuple[int, ...]]
    children: Sequence[Sequence[int]]
    loose: list[int]


def edges_of(tasks: Mapping[str, R]) -> Edges[R]:
    """The edges within a wave. O(V + E)."""
    records, places = list(tasks.values()), dict(zip(tasks, range(len(tasks)), strict=True))
    parents: list[tuple[int, ...]] = []
    children: list[list[int]] = [[] for _ in records]
    loose: list[int] = []
    place_of: Any = places.__getitem__
    for place, record in enumerate(records):
        needs = record.task.depends_on
        try:
            found = tuple(map(place_of, needs))
        except KeyError:  # a task of another wave, or a dependency with more to it than an id
            loose.append(place)
            found = tuple([places[needed] for needed in record.task.needs() if needed in places])
        for other in found:
            children[other].append(place)
        parents.append(found)
    return Edges(places, records, parents, children, loose)
