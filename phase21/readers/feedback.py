"""FeedbackLoop: compares what was planned with what happened, and tells those who can learn from it."""

from __future__ import annotations

from phase21.domain import events as ev
from phase21.domain.records import WaveRecord
from phase21.evaluation.lessons import evidence, signals
from phase21.store.journal import Journal

SIGNALS_PER_ENTRY = 1000


class FeedbackLoop:
    """Follows judged waves. A crash between two entries of lessons leaves the rest to be sent at the start."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    async def run(self) -> None:
        """Teach until cancelled."""
        judged = self._journal.follow("feedback", ev.HealthScored)
        for run in list(self._journal.ledger.runs.values()):
            for wave in list(run.waves.values()):
                if wave.health is not None and not wave.calibrated:
                    self.teach(wave)
        async for entry in judged:
            event = entry.event
            if isinstance(event, ev.HealthScored):
                self.teach(self._journal.ledger.wave(event.run_id, event.wave))

    def teach(self, wave: WaveRecord) -> None:
        """Record a judged wave's signals, and what it taught about agents and heuristics."""
        health = wave.health
        assert health is not None  # noqa: S101 - only judged waves come here
        run = self._journal.ledger.runs[wave.run_id].record
        lessons = signals(wave, health, run, len(wave.fleet))[len(wave.signals) :]
        for start in range(0, len(lessons), SIGNALS_PER_ENTRY):
            self._journal.append(
                ev.SignalsSent(
                    run_id=wave.run_id, wave=wave.number, signals=tuple(lessons[start : start + SIGNALS_PER_ENTRY])
                )
            )
        agents, heuristics = evidence(wave)
        self._journal.append(
            ev.PredictionsCalibrated(run_id=wave.run_id, wave=wave.number, agents=agents, heuristics=heuristics)
        )
