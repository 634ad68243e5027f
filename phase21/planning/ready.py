"""What is ready in a workflow's wave and waits for an agent: the most critical of what somebody has room for comes first.

Kept by the manager while the wave is under way. Tasks are numbers, and those that the same agents can do stand in one queue.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from heapq import heapify, heappop, heappush, heapreplace

Key = int
"""Of priority, whether the step is known (what is not goes first), position in the order of all, and place, that which counts most in
the highest bits: the front of thousands is found four times as fast as by tuples."""

PLACE_BITS = 24
"""Room for sixteen million tasks, far more than may be open at a time."""

_PLACE = (1 << PLACE_BITS) - 1


def key_of(priority: int, position: int, place: int, *, known: bool) -> Key:
    """By what a task stands in line."""
    return ((priority << 1 | known) << PLACE_BITS | position) << PLACE_BITS | place


def place_of(key: Key) -> int:
    """The task that stands there."""
    return key & _PLACE


def moved(key: Key, position: int) -> Key:
    """The key of the same task where its position in the order has become another."""
    return (key >> 2 * PLACE_BITS << PLACE_BITS | position) << PLACE_BITS | place_of(key)


class Ready:
    """A heap for each queue. Each task stands in it once at most."""

    def __init__(self) -> None:
        self._queues: dict[Hashable, list[Key]] = {}
        self._inside: set[int] = set()

    def __len__(self) -> int:
        return len(self._inside)

    def add(self, queue: Hashable, key: Key) -> None:
        """Put a task in, unless it is."""
        place = key & _PLACE
        if place not in self._inside:
            self._inside.add(place)
            heappush(self._queues.setdefault(queue, []), key)

    def turn(self) -> Turn:
        """Look at what is ready, from the front."""
        return Turn(self._queues, self._inside)

    def ranked(self, positions: Sequence[int]) -> None:
        """Take the tasks' new positions in the order of all."""
        for queue in self._queues.values():
            queue[:] = [moved(key, positions[place_of(key)]) for key in queue]
            heapify(queue)


class Turn:
    """One look over all queues: what is taken is gone, what is put back waits for the next look."""

    def __init__(self, queues: dict[Hashable, list[Key]], inside: set[int]) -> None:
        self._queues, self._inside = queues, inside
        self._named = [(name, queue) for name, queue in queues.items() if queue]
        self._fronts = [(queue[0], number) for number, (_, queue) in enumerate(self._named)]
        heapify(self._fronts)
        self._back: list[tuple[Hashable, Key]] = []

    def take(self) -> tuple[Hashable, Key, int] | None:
        """The front of all queues that are not closed: its queue, its key and the task; None where there is none."""
        fronts = self._fronts
        if not fronts:
            return None
        number = fronts[0][1]
        name, queue = self._named[number]
        key = heappop(queue)
        place = key & _PLACE
        self._inside.discard(place)
        if not queue:
            heappop(fronts)
        elif len(fronts) == 1:
            fronts[0] = queue[0], number
        else:
            heapreplace(fronts, (queue[0], number))
        return name, key, place

    def put_back(self, name: Hashable, key: Key) -> None:
        """Leave a task for the next look."""
        self._back.append((name, key))

    def close(self, name: Hashable) -> None:
        """Look at nothing more of this queue."""
        self._fronts = [front for front in self._fronts if self._named[front[1]][0] != name]
        heapify(self._fronts)

    def end(self) -> None:
        """The look is over."""
        for name, key in self._back:
            self._inside.add(place_of(key))
            heappush(self._queues[name], key)
