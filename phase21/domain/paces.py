"""How long steps have taken, against what was estimated of them, by who did them.

The ledger folds every task of a workflow that COMPLETED in here, in the order of the journal; `planning.paces` says what follows from
it. Bounded, and plain enough to stand in a snapshot.
"""

from __future__ import annotations

from math import log

import msgspec

from phase21.domain.evidence import SHORTEST_S, stretched
from phase21.domain.tasks import Task

STEPS_KEPT = 2048
AGENTS_KEPT = 64
"""How many steps are remembered, those longest known forgotten first, and how many agents of each; further agents are one."""

REST = ""
"""Under this name stand the agents of a step beyond those that are kept apart."""


class Pace(msgspec.Struct, array_like=True, gc=False):
    """Multiples of the estimate that one agent has needed for one step: how many, their sum, and those of logarithm and its square."""

    count: int = 0
    total: float = 0.0
    logs: float = 0.0
    squares: float = 0.0


class Paces(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Multiples of estimates by step and agent; `learned` counts all ever. Changed by the ledger's fold alone."""

    steps: dict[str, dict[str, Pace]] = {}
    learned: int = 0

    def learn(self, step: str, agent_id: str, estimated_s: float, duration_s: float) -> None:
        """Take in how long a task took; one that was estimated at nothing says nothing."""
        if estimated_s < SHORTEST_S:
            return
        agents = self.steps.get(step)
        if agents is None:
            if len(self.steps) >= STEPS_KEPT:
                del self.steps[next(iter(self.steps))]
            agents = self.steps[step] = {}
        pace = agents.get(agent_id) or agents.setdefault(agent_id if len(agents) < AGENTS_KEPT else REST, Pace())
        ratio = duration_s / estimated_s
        stretch = log(ratio) if duration_s > SHORTEST_S else stretched(duration_s, estimated_s)
        pace.count += 1
        pace.total += ratio
        pace.logs += stretch
        pace.squares += stretch * stretch
        self.learned += 1


def step_of(workflow: str, task: Task) -> str:
    """Under which name a task's pace is kept: its workflow's step, or its kind where it names none (no id holds a slash)."""
    return f"{workflow}/{task.step}" if task.step is not None else task.kind
