"""What is ready in a workflow's wave and waits for an agent: the most critical of what somebody has room for comes first.

Kept by the manager while the wave is under way. Tasks are numbers, and those that the same agents can do stand in one queue.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from heapq import heapify, heappop, heappush, heapreplace

Key = tuple[int, int, float, int]
"""Priority, 0 for a first look at a step that nobody knows, how critical (the least first), and the task."""


class Ready:
    """A heap for each queue. Each task stands in it once at most."""

    def __init__(self) -> None:
        self._queues: dict[Hashable, list[Key]] = {}
        self._inside: set[int] = set()

    def __len__(self) -> int:
        return len(self._inside)

    def add(self, queue: Hashable, key: Key) -> None:
        """Put a task in, unless it is."""
        if key[-1] not in self._inside:
            self._inside.add(key[-1])
            heappush(self._queues.setdefault(queue, []), key)

    def turn(self) -> Turn:
        """Look at what is ready, from the front."""
        return Turn(self._queues, self._inside)

    def ranked(self, key_of: Callable[[Key], Key]) -> None:
        """Give every task a new key."""
        for queue in self._queues.values():
            queue[:] = [key_of(key) for key in queue]
            heapify(queue)


class Turn:
    """One look over all queues: what is taken is gone, what is put back waits for the next look."""

    def __init__(self, queues: dict[Hashable, list[Key]], inside: set[int]) -> None:
        self._queues, self._inside = queues, inside
        self._names = [name for name, queue in queues.items() if queue]
        self._fronts = [(queues[name][0], place) for place, name in enumerate(self._names)]
        heapify(self._fronts)
        self._back: list[tuple[Hashable, Key]] = []

    def take(self) -> tuple[Hashable, Key] | None:
        """The front of all queues that are not closed, with its queue; None where there is none."""
        if not self._fronts:
            return None
        fronts = self._fronts
        place = fronts[0][1]
        name = self._names[place]
        queue = self._queues[name]
        key = heappop(queue)
        self._inside.discard(key[-1])
        if not queue:
            heappop(fronts)
        elif len(fronts) == 1:
            fronts[0] = queue[0], place
        else:
            heapreplace(fronts, (queue[0], place))
        return name, key

    def put_back(self, name: Hashable, key: Key) -> None:
        """Leave a task for the next look."""
        self._back.append((name, key))

    def close(self, name: Hashable) -> None:
        """Look at nothing more of this queue."""
        self._fronts = [front for front in self._fronts if self._names[front[1]] != name]
        heapify(self._fronts)

    def end(self) -> None:
        """The look is over."""
        for name, key in self._back:
            self._inside.add(key[-1])
            heappush(self._queues[name], key)
