"""Monitor: judges each wave that has settled, and raises what is out of the ordinary."""

from __future__ import annotations

from phase21.domain import events as ev
from phase21.domain.records import WaveRecord
from phase21.domain.settings import CurrentSettings
from phase21.evaluation.anomalies import detect
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
        previous = ledger.runs[wave.run_id].record.success_rate
        raised = {(anomaly.anomaly_type, anomaly.agent_id) for _, anomaly in wave.anomalies}
        for anomaly in detect(wave, metrics, agent_metrics, previous, agents, settings.anomaly_sensitivity):
            if (anomaly.anomaly_type, anomaly.agent_id) not in raised:
                self._journal.append(ev.AnomalyRaised(run_id=wave.run_id, anomaly=anomaly))
        self._journal.append(ev.HealthScored(run_id=wave.run_id, wave=wave.number, health=score(metrics, agent_metrics, settings)))
