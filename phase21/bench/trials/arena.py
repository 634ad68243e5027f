"""A fleet whose outcomes are looked up: waves are planned, judged and learned from by the code that serves, on recorded outcomes.

The ledger, the forecast, the planner and the lessons are the house's own; only the store, the loop and the engines are missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from phase21.domain import events as ev
from phase21.domain.ledger import Ledger
from phase21.domain.plans import Plan
from phase21.domain.records import AgentRecord
from phase21.domain.settings import HealthSettings
from phase21.domain.tasks import Task
from phase21.evaluation.changes import seen_in
from phase21.evaluation.lessons import evidence
from phase21.evaluation.metrics import measure
from phase21.evaluation.scoring import score
from phase21.planning.forecast import Forecast
from phase21.planning.planner import next_best, plan
from phase21.planning.strategies import Terms

RUN = "trial"
Ran = tuple[str, bool, float]
"""An attempt: who made it, whether it succeeded, how many seconds it took."""


class Arena:
    """One run of waves over a fleet."""

    def __init__(self, agents: Sequence[str]) -> None:
        self.ledger = Ledger()
        self._position = 0
        for agent_id in agents:
            self._fold(ev.AgentJoined(agent_id=agent_id))

    @property
    def agents(self) -> list[AgentRecord]:
        """The fleet, in its order."""
        return self.ledger.present_agents()

    def forecast(self) -> Forecast:
        """What is expected now."""
        return Forecast(self.agents, enabled=True, evidence=self.ledger.evidence)

    def open(self, tasks: Sequence[Task], strategy: str, terms: Terms) -> tuple[Plan, Forecast]:
        """Begin the next wave with its plan."""
        number = 1 + (self.ledger.runs[RUN].record.highest_wave if RUN in self.ledger.runs else 0)
        self._fold(ev.SubmissionAccepted(submission_id=str(number), run_id=RUN, waves={number: tuple(tasks)}))
        self._fold(ev.WaveOpened(run_id=RUN, wave=number))
        forecast = self.forecast()
        made = plan(tasks, self.agents, forecast=forecast, strategy=strategy, terms=terms)
        self._fold(ev.TasksAssigned(run_id=RUN, wave=number, strategy=strategy, assignments=made.assignments, choices=made.choices))
        return made, forecast

    def next_agent(self, task: Task, forecast: Forecast, failed: Sequence[str]) -> str:
        """Who makes the next attempt, as `retry.reassign = "learned"` has it."""
        agent, _ = next_best(task, self.agents, {}, forecast=forecast, failed=failed)
        return agent.agent_id if agent is not None else failed[-1]

    def close(self, attempts: Mapping[str, Sequence[Ran]]) -> None:
        """End the open wave: each task's attempts, the last of which is its outcome."""
        number = self.ledger.runs[RUN].current or 0
        for task_id, ran in attempts.items():
            for attempt, (agent_id, success, seconds) in enumerate(ran, 1):
                self._attempt(number, task_id, agent_id, attempt, seconds, success=success, last=attempt == len(ran))
        self._fold(ev.WaveSettled(run_id=RUN, wave=number))
        wave = self.ledger.wave(RUN, number)
        metrics, parts = measure(wave, self.agents)
        self._fold(
            ev.HealthScored(
                run_id=RUN, wave=number, health=score(metrics, parts, HealthSettings(), wave, self.agents), seen=seen_in(wave)
            )
        )
        learned = evidence(wave)
        self._fold(
            ev.PredictionsCalibrated(
                run_id=RUN, wave=number, agents=learned.agents, kind=learned.kind, kinds=learned.kinds, taught=True
            )
        )
        self._fold(ev.OutputsWritten(run_id=RUN, wave=number))

    def _attempt(self, wave: int, task_id: str, agent_id: str, attempt: int, seconds: float, *, success: bool, last: bool) -> None:
        self._fold(ev.AttemptStarted(run_id=RUN, wave=wave, task_id=task_id, agent_id=agent_id, attempt=attempt, confidence=0.0))
        event: ev.AnyEvent
        if success:
            event = ev.TaskCompleted(run_id=RUN, wave=wave, task_id=task_id, agent_id=agent_id, attempt=attempt, duration_s=seconds)
        elif last:
            event = ev.TaskFailed(
                run_id=RUN, wave=wave, task_id=task_id, agent_id=agent_id, attempt=attempt, duration_s=seconds, error_msg="failed"
            )
        else:
            event = ev.AttemptFailed(
                run_id=RUN,
                wave=wave,
                task_id=task_id,
                agent_id=agent_id,
                attempt=attempt,
                duration_s=seconds,
                error_msg="failed",
                delay_s=0.0,
            )
        self._fold(event)

    def _fold(self, event: ev.AnyEvent) -> None:
        self._position += 1
        self.ledger.fold(ev.Entry(self._position, self._position, event))
