"""A past that tests make up, as a journal would hold it."""

from __future__ import annotations

import random

import pytest

from phase21.domain import events as ev
from phase21.domain.ledger import Ledger
from phase21.domain.plans import CRITICAL_PATH, Assignment, Choice
from phase21.domain.tasks import Task
from phase21.evaluation.lessons import evidence
from phase21.planning.forecast import Forecast
from phase21.planning.planner import plan
from phase21.planning.strategies import Terms


class Past:
    """Waves that were dealt and carried out, each entry a second after the one before."""

    def __init__(self, *agents: str, seed: int = 0) -> None:
        self.entries: list[ev.Entry] = []
        self.ledger = Ledger()
        self.dice = random.Random(seed)
        for agent_id in agents:
            self.add(ev.AgentJoined(agent_id=agent_id))

    def add(self, event) -> None:
        place = len(self.entries) + 1
        self.entries.append(ev.Entry(place, place * 1_000_000, event))
        self.ledger.fold(self.entries[-1])

    def open(self, number, tasks, run_id="r") -> None:
        accepted = ev.SubmissionAccepted(submission_id=f"{run_id}{number}", run_id=run_id, waves={number: tuple(tasks)})
        self.add(accepted)
        self.add(ev.WaveOpened(run_id=run_id, wave=number))

    def planned(self, strategy, number, tasks, exploration, run_id="r"):
        """Deal as the manager does; gives assignments and choices."""
        agents = self.ledger.present_agents()
        forecast = Forecast(agents, enabled=True, evidence=self.ledger.evidence)
        terms = Terms(max_attempts=3, exploration=exploration, seed=f"0/{run_id}/{number}")
        made = plan(tasks, agents, forecast=forecast, strategy=strategy, terms=terms)
        return made.assignments, made.choices

    def by_lot(self, tasks, shares):
        """Deal at random, each agent with its share; gives assignments and choices."""
        drawn = {task.task_id: task.agent_id or self.dice.choices(list(shares), list(shares.values()))[0] for task in tasks}
        given = tuple(Assignment(task_id, agent_id, 0.5, 0.5) for task_id, agent_id in drawn.items())
        return given, tuple(Choice((task_id,), (), "explored", shares.get(agent_id, 1.0)) for task_id, agent_id in drawn.items())

    def assign(self, number, dealt, strategy="s", run_id="r") -> None:
        assignments, choices = dealt
        part = {"run_id": run_id, "wave": number, "strategy": strategy}
        if assignments:
            self.add(ev.TasksAssigned(**part, assignments=assignments, choices=choices))
        figures = {"num_agents": 2, "num_tasks": len(assignments), "expected_duration_s": 1.0, "sequential_duration_s": 1.0}
        self.add(ev.WavePlanned(**part, **figures, load_balance=1.0))

    def dispatch(self, number, tasks, agents, rates, run_id="r") -> None:
        """A whole wave whose tasks are given out one by one as they become ready, in order; `agents` says to whom."""
        self.open(number, tasks, run_id)
        self.assign(number, ((), ()), CRITICAL_PATH, run_id)
        for task in tasks:
            given = (Assignment(task.task_id, agents[task.task_id], 0.5, 0.5),)
            part = {"run_id": run_id, "wave": number, "strategy": CRITICAL_PATH}
            self.add(ev.TasksAssigned(**part, assignments=given, choices=(Choice((), (), "soonest"),)))
            self.carry_out(number, (given, ()), rates, run_id=run_id)
        self.close(number, run_id=run_id)

    def carry_out(self, number, dealt, rates, *, attempts=1, duration_s=1.0, run_id="r") -> None:
        """Try each task where it was given, up to so often; `rates` are of success, by agent."""
        for given in dealt[0]:
            for attempt in range(1, attempts + 1):
                made = {"run_id": run_id, "wave": number, "task_id": given.task_id, "agent_id": given.agent_id, "attempt": attempt}
                self.add(ev.AttemptStarted(**made, confidence=0.5))
                if self.dice.random() < rates[given.agent_id]:
                    self.add(ev.TaskCompleted(**made, duration_s=duration_s))
                    break
                if attempt == attempts:
                    self.add(ev.TaskFailed(**made, duration_s=duration_s, error_msg="no"))
                else:
                    self.add(ev.AttemptFailed(**made, error_msg="no", delay_s=0.0, duration_s=duration_s))

    def close(self, number, *, taught=True, run_id="r") -> None:
        self.add(ev.WaveSettled(run_id=run_id, wave=number))
        learned = evidence(self.ledger.wave(run_id, number))
        agents = learned.agents if taught else {}
        made = {"kind": learned.kind, "kinds": learned.kinds, "taught": taught}
        self.add(ev.PredictionsCalibrated(run_id=run_id, wave=number, agents=agents, **made))
        self.add(ev.OutputsWritten(run_id=run_id, wave=number))

    def wave(self, number, tasks, rates, *, strategy="s", shares=None, exploration=0.0, attempts=1, run_id="r") -> None:
        """A whole wave: dealt by lot where there are `shares`, else by the strategy."""
        self.open(number, tasks, run_id)
        named = shares is None
        dealt = self.planned(strategy, number, tasks, exploration, run_id) if named else self.by_lot(tasks, shares)
        self.assign(number, dealt, strategy, run_id)
        self.carry_out(number, dealt, rates, attempts=attempts, run_id=run_id)
        self.close(number, run_id=run_id)


@pytest.fixture
def past():
    """A past in which nothing happened yet, but that two agents joined."""
    return Past("a", "b")


@pytest.fixture
def tasks():
    """Makes a wave's tasks, to be tried once; `features` is called with each one's number."""

    def make(number, count, features=None, **fields):
        extras = [{"features": features(n)} if features else {} for n in range(count)]
        given = {"predicted_success_rate": 0.7, "max_attempts": 1} | fields
        return [Task(task_id=f"{number}-{n}", **given, **extra) for n, extra in enumerate(extras)]

    return make
