"""Who holds which tasks of a workflow's wave, and who is to have the next: the agent where it is expected to end soonest.

Used by `dispatch`. Where agents are alike that is one that has room; where they are not, a task may wait for a faster one that is
busy.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from heapq import heapify, heappop, heapreplace
from math import inf

from phase21.domain.records import AgentRecord, TaskRecord
from phase21.domain.tasks import FINAL, WAITING, Task, TaskStatus
from phase21.manager.expectations import Expectations
from phase21.planning.graphs import soonest
from phase21.planning.ready import Key, Ready

HELD_MOST = 256
HELD_S = 0.02
BRIEF_S = 0.01
"""An agent is given more than it works on at a time only of what is known to be so brief: so many, and so many seconds of it."""

ELSEWHERE_S = 1.0
"""How long what an agent does for another run is taken to last: nobody knows, and who does nothing goes first."""

LATE, LATE_LEAST_S = 0.01, 0.001
"""What is late is taken to need this share of its expected seconds more, at least."""


Held = tuple[float, float]
"""Of a task that an agent was given: since when, and when it is expected to end, in seconds."""


def _late_s(held: Held, now_s: float) -> float:
    """When what is late is expected to end: it is taken to be as late again, and a little."""
    since_s, end_s = held
    return now_s + max(now_s - end_s, LATE * (end_s - since_s), LATE_LEAST_S)


class Lanes:
    """What each agent has been given and has not ended. `given` counts all that each was given of the wave."""

    def __init__(self) -> None:
        self.given: dict[str, int] = {}
        self._held: defaultdict[str, dict[int, Held]] = defaultdict(dict)
        self._where: dict[int, str] = {}
        self._ended_s: dict[str, float] = {}

    @property
    def count(self) -> int:
        """How many tasks agents have, all together."""
        return len(self._where)

    def holds(self, place: int) -> bool:
        """Whether somebody has the task."""
        return place in self._where

    def held(self, agent_id: str) -> dict[int, Held]:
        """What an agent has, by the task's place."""
        return self._held[agent_id]

    def give(self, agent_id: str, place: int, now_s: float, begin_s: float, needed_s: float) -> None:
        """Note that an agent has the task, and is expected to begin it then."""
        where, given = self._where, self.given
        if place in where:
            self.drop(place)
        self._held[agent_id][place] = now_s, begin_s + needed_s
        where[place] = agent_id
        given[agent_id] = given.get(agent_id, 0) + 1

    def drop(self, place: int) -> None:
        """Note that nobody has the task."""
        agent_id = self._where.pop(place, None)
        if agent_id is not None:
            del self._held[agent_id][place]

    def sweep(self, records: Sequence[TaskRecord], now_s: float) -> None:
        """Drop what has ended."""
        where, held, ended_s = self._where, self._held, self._ended_s
        ended = [place for place in where if records[place].status in _ENDED]
        for place in ended:
            agent_id = where.pop(place)
            ended_s[agent_id] = now_s
            del held[agent_id][place]

    def surplus(self, agents: Sequence[AgentRecord]) -> int:
        """How many tasks agents have beyond what they work on."""
        return sum(max(0, len(self.held(agent.agent_id)) - agent.concurrency) for agent in agents)

    def late(self, agents: Sequence[AgentRecord], now_s: float) -> list[int]:
        """What agents have beyond what they work on, where something that was to be brief is not: for a while nothing has ended."""
        stocked = [agent.agent_id for agent in agents if len(self.held(agent.agent_id)) > agent.concurrency]
        due_s = now_s - HELD_S
        stuck = [agent_id for agent_id in stocked if self._ended_s.get(agent_id, -inf) < due_s]
        return [place for agent_id in stuck if min(self._held[agent_id].values())[1] < due_s for place in self._held[agent_id]]

    def loads(self) -> dict[str, int]:
        """How many tasks each agent has."""
        return {agent_id: len(held) for agent_id, held in self._held.items()}

    def free_s(self, agent: AgentRecord, now_s: float) -> list[float]:
        """When each of the agent's lanes is free, as a heap."""
        held = self.held(agent.agent_id)
        ends = [one[1] if one[1] > now_s else _late_s(one, now_s) for one in held.values()]
        ends = [max(ends)] if agent.concurrency == 1 and ends else sorted(ends)[-agent.concurrency :]
        return [now_s] * (agent.concurrency - len(ends)) + ends


_ENDED = FINAL | {TaskStatus.DEFERRED}


class Look:
    """One look at what is ready, at one moment. `look_at_s` is when it is worth to look again though nothing has happened."""

    def __init__(self, expected: Expectations, lanes: Lanes, ready: Ready, now_s: float) -> None:
        self.queues = ready.turn()
        self.look_at_s: float | None = None
        self.hopeless: list[TaskRecord] = []
        self._expected, self._lanes, self._now_s = expected, lanes, now_s
        self._agents = expected.agents
        self._lanes_s = [_beside_others(lanes, agent, now_s) if _at_work(agent) else [inf] for agent in self._agents]
        self._free_s = [heap[0] for heap in self._lanes_s]
        self._held = [lanes.held(agent.agent_id) for agent in self._agents]
        self._limited = any(agent.max_tasks is not None for agent in self._agents)
        self._free = not self._limited and not any(agent.probation for agent in self._agents)
        self._seat_anyway = False
        self._pools: dict[Hashable, list[int]] = {}
        self._fronts: dict[Hashable, list[tuple[float, int]]] = {}

    def seated(self, queue: Hashable, key: Key, place: int) -> AgentRecord | None:
        """Who is to have the task now; None where it waits, or nobody can do it."""
        record = self._expected.records[place]
        if record.status not in WAITING or record.paused or record.cancelling:
            return None
        pool = self._pools.get(queue) or self._pool(queue, record.task)
        if pool is None:
            self.hopeless.append(record)
            return None
        if self._limited:
            self._seat_anyway = all(self._full(self._agents[agent]) for agent in pool)
        expected = self._expected
        brief_s = None if record.elsewhere else expected.brief_s(place, BRIEF_S)
        brief = brief_s is not None
        even = brief or (expected.even(record) and not record.elsewhere)
        seat = self._front(queue, brief) if even else self._soonest(pool, place, record)
        if seat is None:
            self.queues.put_back(queue, key)
            if even or not any(self._room(agent, brief=brief) for agent in pool):
                self.queues.close(queue)
            return None
        needed_s = expected.needed_s(place)[seat] if brief_s is None else brief_s
        agent = self._agents[seat]
        self._lanes.give(agent.agent_id, place, self._now_s, self._free_s[seat], needed_s)
        self._hold(seat, needed_s)
        if even:
            heapreplace(self._fronts[queue], (self._free_s[seat], seat))  # what `_front` found there
        return agent

    def _pool(self, queue: Hashable, task: Task) -> list[int] | None:
        """Who can do what stands in a queue and is at work, the fastest first; None where nobody who is configured ever could."""
        if queue not in self._pools:
            able = [place for place, agent in enumerate(self._agents) if agent.able(task)]
            if not able:
                return None
            self._pools[queue] = sorted((place for place in able if _at_work(self._agents[place])), key=self._expected.pace)
        return self._pools[queue]

    def _front(self, queue: Hashable, brief: bool) -> int | None:  # noqa: FBT001 - whether the task is
        """Of agents that are alike, one that is free soonest among those with room."""
        front = self._fronts.get(queue)
        if front is None:
            front = self._fronts[queue] = [(self._free_s[agent], agent) for agent in self._pools[queue]]
            heapify(front)
        ends_s, stock_s = self._free_s, self._now_s + HELD_S
        while front:
            free_s, agent = front[0]
            if free_s != ends_s[agent]:
                heapreplace(front, (ends_s[agent], agent))
            elif brief and self._free and free_s <= stock_s and len(self._held[agent]) < HELD_MOST:
                return agent  # what `_room` would say as well: nearly all of a wave of many brief tasks comes here
            elif self._room(agent, brief=brief):
                return agent
            else:
                heappop(front)
        return None

    def _soonest(self, pool: list[int], place: int, record: TaskRecord) -> int | None:
        """Where it ends soonest, after a failure with another if there is one; None where that agent is busy, and is waited for."""
        others = [agent for agent in pool if not (record.elsewhere and self._agents[agent].agent_id == record.agent_id)] or pool
        if not others:
            return None
        needed_s = self._expected.needed_s(place)
        seat = others[soonest([self._free_s[agent] for agent in others], [needed_s[agent] for agent in others])]
        if self._room(seat, brief=False):
            return seat
        self.look_at_s = min(self._free_s[seat], self.look_at_s or inf)
        self._hold(seat, needed_s[seat])
        return None

    def _room(self, place: int, *, brief: bool) -> bool:
        """Whether an agent may have one more; something brief also beyond what it works on at a time."""
        agent, held = self._agents[place], len(self._held[place])
        if not self._free:
            if agent.probation and (held or agent.busy):
                return False
            if self._limited and not self._seat_anyway and self._full(agent):
                return False
        return held < agent.concurrency or (brief and held < HELD_MOST and self._free_s[place] <= self._now_s + HELD_S)

    def _full(self, agent: AgentRecord) -> bool:
        """Whether the agent has been given as many tasks of the wave as it may be."""
        return agent.max_tasks is not None and self._lanes.given.get(agent.agent_id, 0) >= agent.max_tasks

    def _hold(self, seat: int, needed_s: float) -> None:
        """Take the agent's next lane for so long."""
        heap = self._lanes_s[seat]
        heapreplace(heap, heap[0] + needed_s)
        self._free_s[seat] = heap[0]


def _beside_others(lanes: Lanes, agent: AgentRecord, now_s: float) -> list[float]:
    """When each of the agent's lanes is free, as a heap, where some are taken by other runs."""
    free_s, others = lanes.free_s(agent, now_s), agent.busy - len(lanes.held(agent.agent_id))
    return sorted([*free_s[others:], *(at_s + ELSEWHERE_S for at_s in free_s[:others])]) if others > 0 else free_s


def _at_work(agent: AgentRecord) -> bool:
    return not agent.offline
