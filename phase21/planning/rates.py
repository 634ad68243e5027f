"""What rates of success, by agent and kind of task, say against what came in as predicted.

Called by the forecast, once for each plan. Evidence is shrunk from level to level: an agent starts from what the others have
shown, at a kind from what the others have shown at that kind, and what it has shown itself counts the more the more there is.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import exp

from phase21.domain.evidence import log_odds, rate_of
from phase21.domain.judgements import Calibration
from phase21.domain.records import AgentRecord

KAPPA = 20.0
"""How many tasks of evidence weigh as much as what came in."""

KAPPA_STRETCH = 5.0
"""How many measured durations weigh as much as the estimate."""

FACTOR_DIGITS = 12
"""Decimals of a factor: what comes behind is the noise of a sum, and would set agents apart that have shown the same."""

NOTHING = Calibration()


class Rates:
    """Corrections of log-odds, level by level.

    At each level a rate has a Beta posterior (Gelman et al., 2013, chapter 2), its prior centred on what the levels above
    expect and weighing `KAPPA` tasks; the level's shift is logit(posterior) - logit(expected).
    """

    def __init__(self, agents: Iterable[AgentRecord]) -> None:
        self._evidence = {agent.agent_id: _kinds(agent) for agent in agents}
        self._kinds: dict[str, Calibration] = {}
        for kinds in self._evidence.values():
            for kind, shown in kinds.items():
                self._kinds[kind] = self._kinds.get(kind, NOTHING) + shown
        self._all = sum(self._kinds.values(), NOTHING)
        self._factors: dict[tuple[str, str], float] = {}
        self._levels: dict[tuple[float, str], float] = {}

    def factor(self, agent_id: str, kind: str) -> float:
        """What the odds of what came in are multiplied by, 1.0 without evidence."""
        known = self._factors.get((agent_id, kind))
        if known is None:
            own = self._evidence.get(agent_id)
            shift = 0.0 if own is None else self._shift(own, kind)
            known = self._factors[agent_id, kind] = round(exp(shift), FACTOR_DIGITS) if shift else 1.0
        return known

    def level(self, rate: float, kind: str) -> float:
        """What the fleet as a whole is expected to make of tasks of this kind that come in with this rate."""
        known = self._levels.get((rate, kind))
        if known is None:
            shift = self._common(self._all, self._kinds, kind)
            known = self._levels[rate, kind] = rate_of(log_odds(rate) + shift) if shift else rate
        return known

    def samples(self, agent_id: str, kind: str) -> int:
        """How many tasks of this kind the agent has ended."""
        return self._evidence.get(agent_id, {}).get(kind, NOTHING).samples

    def stretch(self, agent_id: str) -> float:
        """What the agent's durations are as a multiple of those estimated; a geometric mean, shrunk to that of the fleet."""
        everyone = self._all.stretch_sum / (self._all.measured + KAPPA_STRETCH)
        own = sum(self._evidence.get(agent_id, {}).values(), NOTHING)
        return exp((own.stretch_sum + KAPPA_STRETCH * everyone) / (own.measured + KAPPA_STRETCH))

    def _shift(self, own: dict[str, Calibration], kind: str) -> float:
        if len(self._kinds) == 1:
            shown = own.get(kind) or next(iter(own.values()), NOTHING)
            shift = self._common(_less(self._all, shown), {}, kind)
            return shift + _shift_of(shown, _expected(shown, shift)) if shown.samples else shift
        others = {name: _less(shown, own[name]) if name in own else shown for name, shown in self._kinds.items()}
        everyone = _less(self._all, sum(own.values(), NOTHING))
        common = {name: self._common(everyone, others, name) for name in {*own, kind}}
        total = sum(own.values(), NOTHING)
        shift = common[kind]
        if total.samples:
            expected = sum(shown.samples * _expected(shown, common[name]) for name, shown in own.items()) / total.samples
            personal = _shift_of(total, expected)
            shift += personal
            if len(own) > 1 and kind in own:
                shift += _shift_of(own[kind], _expected(own[kind], shift))
        return shift

    @staticmethod
    def _common(everyone: Calibration, kinds: dict[str, Calibration], kind: str) -> float:
        """The shift that some agents together have shown at a kind."""
        if not everyone.samples:
            return 0.0
        shift = _shift_of(everyone, _expected(everyone, 0.0))
        of_kind = kinds.get(kind, NOTHING)
        if len(kinds) > 1 and of_kind.samples:
            shift += _shift_of(of_kind, _expected(of_kind, shift))
        return shift


def _kinds(agent: AgentRecord) -> dict[str, Calibration]:
    """An agent's evidence by kind; a journal from before there were kinds knows only the sum."""
    return agent.kinds or ({"": agent.calibration} if agent.calibration.samples else {})


def _less(shown: Calibration, own: Calibration) -> Calibration:
    return Calibration(
        shown.samples - own.samples,
        shown.successes - own.successes,
        shown.predicted_sum - own.predicted_sum,
    )


def _expected(shown: Calibration, shift: float) -> float:
    """The mean rate that came in for this evidence, shifted."""
    mean = shown.predicted_sum / shown.samples
    return rate_of(log_odds(mean) + shift) if shift else mean


def _shift_of(shown: Calibration, expected: float) -> float:
    posterior = (KAPPA * expected + shown.successes) / (KAPPA + shown.samples)
    return log_odds(posterior) - log_odds(expected)
