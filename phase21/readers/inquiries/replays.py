"""A journal's waves, dealt out again by other strategies: each as it could have been dealt then, beside how it was.

`whatif` judges what this finds; entries come in order from the journal's first. A wave is dealt from what was known before its plan, by
the planner and the forecast that plan waves, also where its tasks really went to agents as they became ready. Nothing is executed, and nothing is learned but from what really happened.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from math import fsum
from typing import Any

import msgspec

from phase21.domain import events as ev
from phase21.domain.errors import UsageError
from phase21.domain.ledger import Ledger
from phase21.domain.plans import Choice
from phase21.domain.records import AgentRecord, WaveRecord
from phase21.domain.settings import Settings
from phase21.domain.tasks import WAITING, Task
from phase21.domain.workflows import JOIN
from phase21.evaluation.metrics import taught
from phase21.planning.choices import explorable, rivals, with_places
from phase21.planning.forecast import Forecast
from phase21.planning.planner import plan
from phase21.planning.registry import ADAPTIVE, NAMES, STRATEGIES, chosen
from phase21.planning.strategies import Board, Terms
from phase21.readers.inquiries.trials import Trials

BY_LOT = frozenset({"thompson"})
"""Strategies that draw lots for a whole wave: the journal does not hold how likely their choices were."""

DRAWS = 20
"""How often such a strategy deals a wave, to see how likely each of its choices is."""

Shares = tuple[tuple[str, float], ...]
"""Agents, and how likely each of them is to be given a task."""


class Dealt(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A task that was given to an agent, and that was started and has ended; `wave` is its place in `Replay.waves`.

    `really` had it first, chosen with `propensity` (None where the journal does not say) and `predicted` to succeed. `agents` are
    those that each strategy would have given it to; `targets` how likely each was to choose `really`, `expected` the mean
    success predicted of each one's choice. `tried` is who tried it, in order; `seen` counts the attempts, of all tasks with features, that ended before it did.
    """

    task: Task
    wave: int
    really: str
    predicted: float
    propensity: float | None
    agents: tuple[str, ...]
    targets: tuple[float, ...]
    expected: tuple[float, ...]
    success: bool
    attempts: int
    tried: tuple[str, ...]
    seen: int


class ReplayedWave(msgspec.Struct, frozen=True, kw_only=True):
    """A judged wave: who could be given its tasks, which strategy dealt it, and how many seconds it took, waiting included.

    `waits` says of each of its tasks which others of the wave it waits for; it is empty where none does.
    """

    run_id: str
    number: int
    strategy: str
    fleet: tuple[str, ...]
    actual_s: float
    waits: dict[str, tuple[str, ...]] = {}


class _Seat(msgspec.Struct, frozen=True, gc=False):
    """Where a strategy puts a task: the agent, how likely each was, and the mean success predicted over those."""

    agent_id: str
    shares: Shares
    expected: float


class _Open(msgspec.Struct, kw_only=True):
    """A wave that is planned and not judged: its fleet, what was forecast, each strategy's seats, and who really had tasks first."""

    strategy: str
    fleet: tuple[str, ...]
    forecast: Forecast
    seats: list[dict[str, _Seat]]
    really: dict[str, tuple[str, float, float | None]] = {}


def checked(name: str, option: str) -> str:
    """The strategy's name. UsageError where there is none of that name."""
    if name not in NAMES:
        raise UsageError(f"{option}: there is no strategy {name!r}; known: {', '.join(NAMES)}")
    return name


class Replay:
    """The fold. `dealt` and `waves` are of the runs asked for (None: all), `left_out` counts what cannot be judged, by why.

    `trials` is what every attempt in the journal showed, of whatever run. Strategies must be in the registry.
    """

    def __init__(self, strategies: Sequence[str], settings: Settings, *, runs: Collection[str] | None, seed: int) -> None:
        self.ledger = Ledger()
        self.trials = Trials()
        self.waves: list[ReplayedWave] = []
        self.dealt: list[Dealt] = []
        self.left_out: Counter[str] = Counter()
        self._strategies = strategies
        self._settings = settings
        self._runs = runs
        self._seed = seed
        self._open: dict[tuple[str, int], _Open] = {}
        self._records: dict[tuple[int, str], dict[str, tuple[int, int]]] = {}
        self._folds: dict[type, Callable[[Any], None]] = {
            ev.TasksAssigned: self._assigned,
            ev.WavePlanned: self._planned,
            ev.PredictionsCalibrated: self._judged,
        }

    def fold(self, entry: ev.Entry) -> None:
        """Take in an entry."""
        before = self._folds.get(type(entry.event))
        if before is not None:
            before(entry.event)  # what was known before it is what its plan was made from
        self.ledger.fold(entry)

    def close(self) -> None:
        """Count what waves that are not judged yet hold: nothing more comes."""
        self.left_out["wave_open"] += sum(len(held.really) for held in self._open.values())

    # -- how it was dealt, and how it would have been

    def _assigned(self, event: ev.TasksAssigned) -> None:
        wave = self.ledger.wave(event.run_id, event.wave)
        if not self._asked(event.run_id) or event.moved or not (wave.planned is None or wave.by_readiness):
            return
        held = self._dealing(event)
        likely = {} if event.strategy in BY_LOT else _propensities(event.choices)
        for given in event.assignments:
            task = wave.tasks[given.task_id].task
            if task.kind != JOIN:
                predicted = held.forecast.predicted(task, given.agent_id)  # as of the others: one model
                held.really[given.task_id] = (given.agent_id, predicted, likely.get(given.task_id, likely.get("")))

    def _planned(self, event: ev.WavePlanned) -> None:
        if self._asked(event.run_id):
            self._dealing(event)

    def _asked(self, run_id: str) -> bool:
        return self._runs is None or run_id in self._runs

    def _dealing(self, event: ev.TasksAssigned | ev.WavePlanned) -> _Open:
        key = (event.run_id, event.wave)
        if key not in self._open:
            agents = self.ledger.present_agents()
            forecast = Forecast(agents, enabled=self._settings.learning.enabled, evidence=self.ledger.evidence)
            records = self.ledger.wave(*key).tasks.values()
            todo = [record.task for record in records if record.agent_id is None and record.status in WAITING]
            dealer = _Dealer(todo, agents, forecast, self._terms(*key))
            seats = [dealer.deal(self._resolved(arm, event.run_id)) for arm in range(len(self._strategies))]
            self._credit(event.run_id, seats)
            fleet = tuple(agent.agent_id for agent in agents if not agent.offline)
            self._open[key] = _Open(strategy=event.strategy, fleet=fleet, forecast=forecast, seats=seats)
        return self._open[key]

    def _terms(self, run_id: str, wave: int) -> Terms:
        settings = self._settings
        return Terms(
            slack=settings.manager.slack,
            max_attempts=settings.retry.policy().attempts_allowed(None),
            exploration=settings.learning.exploration if settings.learning.enabled else 0.0,
            seed=f"{self._seed}/{run_id}/{wave}",
        )

    def _resolved(self, arm: int, run_id: str) -> str:
        """The strategy that deals the wave: `adaptive` takes another, by what it would have expected of each in this run."""
        name = self._strategies[arm]
        return chosen(self._records.get((arm, run_id), {})) if name == ADAPTIVE else name

    def _credit(self, run_id: str, seats: Sequence[Mapping[str, _Seat]]) -> None:
        for arm, dealt in enumerate(seats):
            if self._strategies[arm] == ADAPTIVE:
                record = self._records.setdefault((arm, run_id), {})
                name = chosen(record)
                tries, successes = record.get(name, (0, 0))
                expected = round(fsum(seat.expected for seat in dealt.values()))
                record[name] = (tries + len(dealt), successes + expected)

    # -- what came of it

    def _judged(self, event: ev.PredictionsCalibrated) -> None:
        wave = self.ledger.wave(event.run_id, event.wave)
        held = self._open.pop((event.run_id, event.wave), None)
        seen = self.trials.seen
        taught = event.taught or bool(event.agents)  # an old journal says only what was taught
        if taught:
            self.trials.learn(wave)
        if held is not None:
            if taught:
                self._count(wave, held, seen)
            else:
                self.left_out["rehearsed_or_nothing_ran"] += len(held.really)

    def _count(self, wave: WaveRecord, held: _Open, seen: int) -> None:
        place, before = len(self.waves), len(self.dealt)
        ended = {record.task.task_id: (record, success) for record, _, success in taught(wave)}
        for task_id, (really, predicted, propensity) in held.really.items():
            seats = [dealt.get(task_id) for dealt in held.seats]
            known = [seat for seat in seats if seat is not None]
            if task_id not in ended:
                self.left_out["not_ended"] += 1
            elif len(known) < len(seats):
                self.left_out["no_seat"] += 1
            else:
                record, success = ended[task_id]
                self.dealt.append(
                    Dealt(
                        task=record.task,
                        wave=place,
                        really=really,
                        predicted=predicted,
                        propensity=propensity,
                        agents=tuple(seat.agent_id for seat in known),
                        targets=tuple(dict(seat.shares).get(really, 0.0) for seat in known),
                        expected=tuple(seat.expected for seat in known),
                        success=success,
                        attempts=record.attempts,
                        tried=(*(agent_id for agent_id, _ in record.failures), record.ran_by or really),
                        seen=seen,
                    )
                )
                seen += (len(record.failures) + 1) * bool(record.task.features)
        if len(self.dealt) > before:
            self.waves.append(_replayed(wave, held))


def _replayed(wave: WaveRecord, held: _Open) -> ReplayedWave:
    return ReplayedWave(
        run_id=wave.run_id,
        number=wave.number,
        strategy=held.strategy,
        fleet=held.fleet,
        actual_s=((wave.settled_us or 0) - (wave.opened_us or 0)) / 1e6,
        waits=_waits(wave),
    )


def _waits(wave: WaveRecord) -> dict[str, tuple[str, ...]]:
    waits = {task_id: tuple(filter(wave.tasks.__contains__, record.task.needs())) for task_id, record in wave.tasks.items()}
    return waits if any(waits.values()) else {}


def _propensities(choices: Sequence[Choice]) -> dict[str, float]:
    """How likely each task's choice was; under "" that of tasks that no choice names."""
    likely: dict[str, float] = {}
    for choice in choices:
        likely.update(dict.fromkeys(choice.tasks or ("",), choice.propensity))
    return likely


# -- dealing -------------------------------------------------------------------------------------------------------------


class _Dealer:
    """One wave's tasks and agents, to be dealt by any strategy."""

    def __init__(self, tasks: Sequence[Task], agents: Sequence[AgentRecord], forecast: Forecast, terms: Terms) -> None:
        self._tasks = tasks
        self._agents = agents
        self._forecast = forecast
        self._terms = terms
        self._by_id = {task.task_id: task for task in tasks}

    def deal(self, name: str) -> dict[str, _Seat]:
        """The seat of each task that finds one."""
        seats = self._plan(name, self._terms)
        shares = self._shares(name, seats)
        return {task_id: self._seat(self._by_id[task_id], agent_id, shares[task_id]) for task_id, agent_id in seats.items()}

    def _plan(self, name: str, terms: Terms) -> dict[str, str]:
        made = plan(self._tasks, self._agents, forecast=self._forecast, strategy=name, terms=terms)
        return {given.task_id: given.agent_id for given in made.assignments}

    def _shares(self, name: str, seats: Mapping[str, str]) -> dict[str, Shares]:
        if name in BY_LOT:
            return self._by_lot(name, seats)
        if STRATEGIES[name].explores and self._terms.exploration:
            return self._explored(self._plan(name, msgspec.structs.replace(self._terms, exploration=0.0)))
        return {task_id: ((agent_id, 1.0),) for task_id, agent_id in seats.items()}

    def _by_lot(self, name: str, seats: Mapping[str, str]) -> dict[str, Shares]:
        counts = {task_id: Counter([agent_id]) for task_id, agent_id in seats.items()}
        for draw in range(1, DRAWS):
            drawn = self._plan(name, msgspec.structs.replace(self._terms, seed=f"{self._terms.seed}/{draw}"))
            for task_id, agent_id in drawn.items():
                if task_id in counts:
                    counts[task_id][agent_id] += 1
        return {task_id: tuple((agent_id, n / count.total()) for agent_id, n in count.items()) for task_id, count in counts.items()}

    def _explored(self, seats: Mapping[str, str]) -> dict[str, Shares]:
        """Each task's seat, and the agents that may have it instead for the share that is spent on learning."""
        board, share = Board(self._agents, self._forecast, {}, self._terms), self._terms.exploration
        taken = [board.index[seats[task.task_id]] if task.task_id in seats else None for task in self._tasks]
        for task, index in zip(self._tasks, taken, strict=True):
            if index is not None:
                board.give(index, task)
        open_to = with_places(taken, board)
        among_whom = {
            task.task_id: rivals(task, index, board, open_to)
            for task, index in zip(self._tasks, taken, strict=True)
            if index is not None and explorable(task)
        }
        found: dict[str, Shares] = {}
        for task_id, agent_id in seats.items():
            among = among_whom.get(task_id, ())
            others = tuple((self._agents[index].agent_id, share / len(among)) for index in among)
            found[task_id] = ((agent_id, 1.0 - share if among else 1.0), *others)
        return found

    def _seat(self, task: Task, agent_id: str, shares: Shares) -> _Seat:
        expected = fsum(share * self._forecast.predicted(task, other) for other, share in shares)
        return _Seat(agent_id, shares, expected)
