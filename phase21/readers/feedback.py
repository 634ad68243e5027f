"""FeedbackLoop: compares what was planned with what happened, and tells those who can learn from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from phase21.domain import events as ev
from phase21.domain.records import WaveRecord
from phase21.evaluation.lessons import evidence, signals, validations
from phase21.evaluation.metrics import taught
from phase21.store.journal import Journal

SIGNALS_PER_ENTRY = 1000

T = TypeVar("T")


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
        """Record a judged wave's signals, and what it taught about agents and heuristics; a dry run teaches nothing."""
        health = wave.health
        assert health is not None  # noqa: S101 - only judged waves come here
        run = self._journal.ledger.runs[wave.run_id].record
        told = signals(wave, health, run, len(wave.fleet))[len(wave.signals) :]
        for part in _parts(told):
            self._journal.append(ev.SignalsSent(run_id=wave.run_id, wave=wave.number, signals=part))
        shown = taught(wave)
        held = sum(len(batch) for _, batch in wave.validations)
        for checked in _parts(validations(wave, shown)[held:]):
            self._journal.append(ev.SignalsSent(run_id=wave.run_id, wave=wave.number, validations=checked))
        service = self._journal.ledger.service
        rehearsed = service is not None and service.dry_run
        if rehearsed:
            self._journal.append(ev.PredictionsCalibrated(run_id=wave.run_id, wave=wave.number, agents={}))
            return
        learned = evidence(wave, shown)
        self._journal.append(
            ev.PredictionsCalibrated(
                run_id=wave.run_id,
                wave=wave.number,
                agents=learned.agents,
                heuristics=learned.heuristics,
                kind=learned.kind,
                kinds=learned.kinds,
                taught=True,
            )
        )


def _parts(lessons: Sequence[T]) -> Iterator[tuple[T, ...]]:
    for start in range(0, len(lessons), SIGNALS_PER_ENTRY):
        yield tuple(lessons[start : start + SIGNALS_PER_ENTRY])
