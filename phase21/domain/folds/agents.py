"""Agents that join, go and return, and which tasks are called because of it: to be delivered to whoever now does them best."""

from __future__ import annotations

from phase21.domain import events as ev
from phase21.domain.folds.known import Folds, Known
from phase21.domain.records import AgentRecord
from phase21.domain.tasks import WAITING


def _agent_joined(known: Known, event: ev.AgentJoined) -> None:
    known.lessons += 1
    agent = known.agents.setdefault(event.agent_id, AgentRecord(agent_id=event.agent_id))
    agent.capabilities, agent.concurrency, agent.max_tasks = event.capabilities, event.concurrency, event.max_tasks
    agent.only_kinds, agent.present = event.only_kinds, True
    del known.agents[event.agent_id]
    known.agents[event.agent_id] = agent


def _agent_restarted(known: Known, event: ev.AgentRestarted) -> None:
    _call_held_by(known, event.agent_id)


def _agent_went_offline(known: Known, event: ev.AgentWentOffline) -> None:
    agent = known.agents[event.agent_id]
    agent.offline, agent.offline_cause, agent.offline_us, agent.probation = True, event.cause, known.at_us, False
    _call_held_by(known, event.agent_id)


def _agent_returned(known: Known, event: ev.AgentReturned) -> None:
    agent = known.agents[event.agent_id]
    agent.offline, agent.probation, agent.timeouts_in_a_row = False, event.probation, 0
    call_homeless(known, event.agent_id)


def release(known: Known, agent_id: str | None, *, timed_out: bool = False) -> None:
    """An attempt of the agent is over; whoever has ended one in time is on probation no longer."""
    agent = known.agents.get(agent_id) if agent_id else None
    if agent is None:
        return
    if agent.busy:
        agent.busy -= 1
    agent.timeouts_in_a_row = agent.timeouts_in_a_row + 1 if timed_out else 0
    if agent.probation and not timed_out:
        agent.probation = False
        call_homeless(known, agent.agent_id)


def _call_held_by(known: Known, agent_id: str) -> None:
    """Call all that waits with this agent."""
    for run in known.runs.values():
        if run.current is None:
            continue
        wave = run.waves[run.current]
        for task_id, record in wave.tasks.items():
            if record.agent_id == agent_id and record.status in WAITING:
                wave.calls.append(task_id)


def call_homeless(known: Known, agent_id: str) -> None:
    """Call what waits for this agent, or has none at work: it may take some of it now."""
    for run in known.runs.values():
        if run.current is None:
            continue
        wave = run.waves[run.current]
        for task_id, record in wave.tasks.items():
            waits = record.status in WAITING and not record.blockers
            if waits and (record.agent_id in {None, agent_id} or known.agents[record.agent_id or ""].offline):
                wave.calls.append(task_id)


FOLDS: Folds = {
    ev.AgentJoined: _agent_joined,
    ev.AgentRestarted: _agent_restarted,
    ev.AgentWentOffline: _agent_went_offline,
    ev.AgentReturned: _agent_returned,
}
"""What becomes of agents."""
