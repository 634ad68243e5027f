"""Monitor: judges each wave that has settled, and raises what is out of the ordinary."""

from __future__ import annotations

from collections.abc import Iterable

from phase21.domain import events as ev
from phase21.domain.judgements import Anomaly
from phase21.domain.records import RunRecord, WaveRecord
from phase21.domain.settings import CurrentSettings, HealthRules
from phase21.domain.watching import course_of
from phase21.evaluation.anomalies import NO_PAST, Past, detect
from phase21.evaluation.changes import changed, followed, seen_in
from phase21.evaluation.metrics import measure
from phase21.evaluation.scoring import score
from phase21.store.journal import Journal


class Monitor:
    """Follows settled waves. What a crash left unjudged is judged at the start; nothing is said twice."""

    def __init__(self, journal: Journal, settings: CurrentSettings) -> None:
        self._journal = journal
        self._settings = settings

    async def run(self) -> None:
        """Judge until cancelled."""
        settled = self._journal.follow("monitor", ev.WaveSettled)
        for run in list(self._journal.ledger.runs.values()):
            for wave in list(run.waves.values()):
                if wave.settled_us is not None and wave.health is None:
                    self.judge(wave)
        async for entry in settled:
            event = entry.event
            if isinstance(event, ev.WaveSettled):
                self.judge(self._journal.ledger.wave(event.run_id, event.wave))

    def judge(self, wave: WaveRecord) -> None:
        """Record a settled wave's anomalies and health."""
        ledger = self._journal.ledger
        settings = self._settings.now.health
        agents = ledger.present_agents()
        metrics, agent_metrics = measure(wave, agents)
        scored = ev.HealthScored(
            run_id=wave.run_id,
            wave=wave.number,
            health=score(metrics, agent_metrics, settings, wave, agents),
            seen=seen_in(wave) if self._tests() else (),
            false_alarms=settings.false_alarms,
        )
        run = ledger.runs[wave.run_id].record
        past = self._past(scored, run) if scored.seen else NO_PAST
        found = detect(wave, metrics, agent_metrics, run.success_rate, agents, settings.anomaly_sensitivity, past)
        self._raise(wave, (*found, *changed(ledger.changes(scored), wave.run_id, wave.number)))
        self._journal.append(scored)

    def _tests(self) -> bool:
        """Whether agents are held against their own past: a rehearsal says nothing of it, and neither asks it nor adds to it."""
        service = self._journal.ledger.service
        rehearsed = service is not None and service.dry_run
        return self._settings.now.health.rules is HealthRules.SEQUENTIAL and not rehearsed

    def _past(self, scored: ev.HealthScored, run: RunRecord) -> Past:
        ledger = self._journal.ledger
        course = course_of(ledger.wave(scored.run_id, scored.wave), scored.health.metrics)
        return Past(
            tested=followed(scored.seen, run.watches, ledger.agents),
            course=run.course if course is None else [*run.course, course],
            false_alarms=scored.false_alarms,
        )

    def _raise(self, wave: WaveRecord, found: Iterable[Anomaly]) -> None:
        """Record anomalies, one of a type and agent: an earlier life of the service may have recorded some of them."""
        raised = {(anomaly.anomaly_type, anomaly.agent_id) for _, anomaly in wave.anomalies}
        for anomaly in found:
            key = (anomaly.anomaly_type, anomaly.agent_id)
            if key not in raised:
                raised.add(key)
                self._journal.append(ev.AnomalyRaised(run_id=wave.run_id, anomaly=anomaly))
