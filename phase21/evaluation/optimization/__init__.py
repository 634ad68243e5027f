"""What schedules were worth: five metrics and their health, four anomalies, and what strategies, heuristics and agents came to.

Pure functions over wave facts (`schedules`): each takes the waves so far, the newest last. `readers` makes files of them; whatever it
needs is named here, so that it need not know which file it stands in.
"""

from phase21.evaluation.optimization.gauges import (
    GAUGES,
    WEIGHTS,
    Reading,
    ScheduleHealth,
    agent_utilization,
    confidence_trajectory,
    health,
    read,
    readings,
    schedule_accuracy,
    schedule_adherence,
    throughput_efficiency,
)
from phase21.evaluation.optimization.signs import (
    SIGNS,
    Seen,
    Sighting,
    optimization_failure,
    performance_degradation,
    prediction_error,
    schedule_drift,
    seen,
)
from phase21.evaluation.optimization.worth import (
    WEIGHT_LEAST,
    WEIGHT_MOST,
    AgentShare,
    Feedback,
    HeuristicRecord,
    agent_shares,
    feedback,
    heuristic_records,
    strategy_effectiveness,
)

__all__ = [
    "GAUGES",
    "SIGNS",
    "WEIGHTS",
    "WEIGHT_LEAST",
    "WEIGHT_MOST",
    "AgentShare",
    "Feedback",
    "HeuristicRecord",
    "Reading",
    "ScheduleHealth",
    "Seen",
    "Sighting",
    "agent_shares",
    "agent_utilization",
    "confidence_trajectory",
    "feedback",
    "health",
    "heuristic_records",
    "optimization_failure",
    "performance_degradation",
    "prediction_error",
    "read",
    "readings",
    "schedule_accuracy",
    "schedule_adherence",
    "schedule_drift",
    "seen",
    "strategy_effectiveness",
    "throughput_efficiency",
]
