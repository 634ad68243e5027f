"""What a golden journal is compared by: the sum of a ledger that no later version may change."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from phase21.domain import events as ev
from phase21.domain.ledger import Ledger


def folded(entries: Iterable[ev.Entry]) -> Ledger:
    """The ledger of these entries."""
    ledger = Ledger()
    for entry in entries:
        ledger.fold(entry)
    return ledger


def summary(ledger: Ledger) -> dict[str, Any]:
    """Runs, open tasks and agents, in plain words."""
    return {
        "position": ledger.position,
        "at_us": ledger.at_us,
        "mark": msgspec.to_builtins(ledger.mark),
        "runs": {
            run_id: {
                "counts": run.record.counts,
                "closed_waves": run.record.closed_waves,
                "highest_wave": run.record.highest_wave,
                "tasks_accepted": run.record.tasks_accepted,
                "tasks_started": run.record.tasks_started,
                "attempts": run.record.attempts,
                "anomalies": run.record.anomalies,
                "paused": run.record.paused,
                "health_score": run.record.health.score if run.record.health else None,
                "heuristics": {name: list(hits) for name, hits in run.record.heuristics.items()},
                "open": {record.task.task_id: [record.status, record.attempts] for record in run.open_tasks()},
            }
            for run_id, run in ledger.runs.items()
        },
        "agents": {
            agent.agent_id: [agent.present, agent.offline, agent.calibration.samples, agent.calibration.successes]
            for agent in ledger.agents.values()
        },
    }
