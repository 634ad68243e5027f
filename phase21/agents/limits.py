"""Limits on how many attempts are under way and how many begin in a second: per kind, per agent and per key.

Asked by the gates through the executor. What a limit holds back waits here, so that its agent can work on others; it is handed back to
the agent's inbox when there is room again, the most urgent first, and of these what has waited longest. All of it is lost with the
process, as the attempts are that it counts; what waits here is delivered again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping
from heapq import heappop, heappush
from itertools import count
from operator import itemgetter

import msgspec

from phase21.domain.ledger import Ledger
from phase21.domain.settings import CurrentSettings, LimitSpec
from phase21.domain.tasks import Task
from phase21.messaging.inbox import Delivery, Inbox
from phase21.store.clock import Clock

LOOK_S = 1.0
"""Seconds until a limit that is full is worth another look, where nobody says that it is not any more."""

LOOK_MOST_S = 60.0

EACH = "*"
"""What a limit names that holds for each kind, agent or key by itself."""


class Limit(msgspec.Struct, kw_only=True, eq=False):
    """One limit in force. `next_start_s` is when the next attempt may begin, on the loop's clock."""

    by: str
    name: str
    concurrent: int
    rate_per_s: float
    next_start_s: float = 0.0


_Place = tuple[Limit, ...]
_Heap = list[tuple[int, int, Delivery]]


class Limits:
    """Every limit of the configuration, and a waiting room for each agent. `inboxes` is where things are handed back."""

    def __init__(self, ledger: Ledger, settings: CurrentSettings, clock: Clock) -> None:
        self.inboxes: Mapping[str, Inbox] = {}
        self.waiting = 0
        self.busy_kinds: Counter[str] = Counter()
        self.busy_keys: Counter[str] = Counter()
        self._ledger = ledger
        self._settings = settings
        self._clock = clock
        self._specs: tuple[LimitSpec, ...] = ()
        self._limits: dict[tuple[int, str], Limit] = {}
        self._places: dict[tuple[str, str, str | None], _Place] = {}
        self._rooms: dict[str, dict[_Place, _Heap]] = {}
        self._offered: dict[Delivery, _Place] = {}
        self._ages = count(1)
        self._timer: asyncio.TimerHandle | None = None

    # -- what holds --------------------------------------------------------------------------------------------------

    def refusal(self, task: Task, agent_id: str, now_s: float) -> tuple[str, float] | None:
        """Why an attempt may not begin now, and after how many seconds to look again; None where it may."""
        for limit in self._of(task, agent_id):
            active = self._active(limit)
            if limit.concurrent and active >= limit.concurrent:
                return f"{limit.by} {limit.name}: {active} of {limit.concurrent} attempts are under way (limits)", LOOK_S
            if now_s < limit.next_start_s:
                said = f"{limit.by} {limit.name}: {limit.rate_per_s:g} attempts per second have been started (limits)"
                return said, limit.next_start_s - now_s
        return None

    def count_start(self, task: Task, agent_id: str, now_s: float) -> None:
        """An attempt begins."""
        for limit in self._of(task, agent_id):
            if limit.rate_per_s:
                limit.next_start_s = max(now_s, limit.next_start_s) + 1.0 / limit.rate_per_s
                if self.waiting:
                    self._look_after(limit.next_start_s - now_s)

    @contextlib.contextmanager
    def under_way(self, task: Task) -> Iterator[None]:
        """Count an attempt by its kind and its key while it lasts; one that lasts no time at all need not be counted."""
        self._count(task, 1)
        try:
            yield
        finally:
            self._count(task, -1)

    def _count(self, task: Task, change: int) -> None:
        for busy, name in ((self.busy_kinds, task.kind), (self.busy_keys, task.limit_key)):
            if name is not None:
                busy[name] += change
                if not busy[name]:
                    del busy[name]

    def _free(self, place: _Place, now_s: float) -> bool:
        """Whether one more attempt may begin beside those under way and those handed back that have not begun yet."""
        for limit in place:
            reserved = sum(limit in held for held in self._offered.values())
            if limit.concurrent and self._active(limit) + reserved >= limit.concurrent:
                return False
            if now_s < limit.next_start_s or (limit.rate_per_s and reserved):
                return False
        return True

    def _of(self, task: Task, agent_id: str) -> _Place:
        """The limits that hold for a task with an agent."""
        if self._specs is not self._settings.now.limits:
            self._specs = self._settings.now.limits
            self._limits, self._places = {}, {}
        about = task.kind, agent_id, task.limit_key
        found = self._places.get(about)
        if found is None:
            made = (self._limit(n, spec, about) for n, spec in enumerate(self._specs))
            found = self._places[about] = tuple(limit for limit in made if limit is not None)
        return found

    def _limit(self, n: int, spec: LimitSpec, about: tuple[str, str, str | None]) -> Limit | None:
        by, named = spec.about()
        name = about[("kind", "agent", "key").index(by)]
        if name is None or named not in {EACH, name}:
            return None
        if (n, name) not in self._limits:
            self._limits[n, name] = Limit(by=by, name=name, concurrent=spec.concurrent, rate_per_s=spec.rate_per_s)
        return self._limits[n, name]

    def _active(self, limit: Limit) -> int:
        if limit.by == "agent":
            agent = self._ledger.agents.get(limit.name)
            return agent.busy if agent is not None else 0
        return (self.busy_kinds if limit.by == "kind" else self.busy_keys)[limit.name]

    # -- who waits ---------------------------------------------------------------------------------------------------

    def park(self, agent_id: str, delivery: Delivery, wait_s: float) -> bool:
        """Let a delivery wait here; False where there is no room for it."""
        room = self._rooms.setdefault(agent_id, {})
        if sum(map(len, room.values())) >= self._settings.now.agents.inbox_size:
            return False
        delivery.age = delivery.age or next(self._ages)
        place = self._of(delivery.record.task, agent_id)
        heappush(room.setdefault(place, []), (delivery.record.task.priority, delivery.age, delivery))
        self.waiting += 1
        self._look_after(wait_s)
        return True

    def ended(self, delivery: Delivery) -> None:
        """An agent is done with a delivery, whatever came of it."""
        self._offered.pop(delivery, None)
        self.look()

    def look(self) -> None:
        """Hand back what there is room for to agents that could begin at once, the most urgent and the oldest first."""
        self._offered = {delivery: place for delivery, place in self._offered.items() if self._to_begin(delivery)}
        now_s = self._clock.monotonic_s()
        while found := [best for agent_id in self._rooms if (best := self._best(agent_id, now_s)) is not None]:
            heap = min(found, key=itemgetter(0))
            delivery = heappop(heap)[2]
            self.waiting -= 1
            self._offered[delivery] = self._of(delivery.record.task, delivery.record.agent_id or "")
            self.inboxes[delivery.record.agent_id or ""].offer(delivery, first=True)

    def _to_begin(self, delivery: Delivery) -> bool:
        """Whether something handed back still stands before its agent."""
        agent = self._ledger.agents.get(delivery.record.agent_id or "")
        return agent is not None and not agent.offline and delivery.current(agent.agent_id)

    def _best(self, agent_id: str, now_s: float) -> _Heap | None:
        """The heap with the most urgent that an agent could begin now; None where it is at work, or there is none."""
        agent, room = self._ledger.agents[agent_id], self._rooms[agent_id]
        handed = sum(delivery.record.agent_id == agent_id for delivery in self._offered)
        inbox = self.inboxes[agent_id]
        if agent.offline or agent.concurrency - agent.busy <= handed or len(inbox) >= inbox.size:
            return None
        best: _Heap | None = None
        for place in list(room):
            heap = room[place]
            while heap and not heap[0][2].current(agent_id):
                heappop(heap)
                self.waiting -= 1
            if not heap:
                del room[place]
            elif (best is None or heap[0] < best[0]) and self._free(place, now_s):
                best = heap
        return best

    def _look_after(self, wait_s: float) -> None:
        loop = asyncio.get_running_loop()
        at_s = loop.time() + min(wait_s, LOOK_MOST_S)
        if self._timer is None or at_s < self._timer.when():
            if self._timer is not None:
                self._timer.cancel()
            self._timer = loop.call_at(at_s, self._look_again)

    def _look_again(self) -> None:
        self._timer = None
        self.look()
        if self.waiting:
            now_s = self._clock.monotonic_s()
            waits = [limit.next_start_s - now_s for limit in self._limits.values() if limit.next_start_s > now_s]
            self._look_after(min([*waits, LOOK_MOST_S]))
