"""The Markdown report of an optimization, for a person.

`optimization` puts it beside the other files. It says what the study and its findings say, and what nobody knows as `-`; it must never read
a file or a clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from phase21.evaluation import optimization as opt
from phase21.evaluation.schedules import Comparison
from phase21.readers.inquiries.studies import Findings, StudiedWave, Study

WAVES_SHOWN = 50
AGENTS_SHOWN = 100
TASKS_SHOWN = 50
_NONE = "-"


def render(study: Study, found: Findings) -> str:
    """The report; of a long study the newest `WAVES_SHOWN` waves."""
    shown = study.waves[-WAVES_SHOWN:]
    parts = (
        _overview(study, found),
        _plan(study, shown),
        _comparisons(found.comparisons[-WAVES_SHOWN:]),
        _agents(study),
        _metrics(found),
        _anomalies(found),
        _lessons(found),
        _notes(study, shown),
    )
    return "\n".join(line for part in parts for line in (*part, ""))


def _overview(study: Study, found: Findings) -> Iterator[str]:
    tasks = sum(len(wave.plan.slots) for wave in study.waves)
    ended = sum(made.compared_tasks for made in found.comparisons)
    score = found.health.overall_health_score
    named = study.source if study.run_id is None else f"`{study.run_id}`"
    yield f"# Phase 19: autonomous optimization of {named}"
    yield ""
    yield "## Overview"
    yield ""
    yield from _table(
        ("", ""),
        (
            ("Strategy", study.strategy),
            ("Waves", len(study.waves)),
            ("Tasks planned", tasks),
            ("Tasks with a recorded outcome", ended),
            ("Agents", len(study.agents)),
            ("Optimization health", found.health.health_status if score is None else f"{score:.1f} {found.health.health_status}"),
            ("Anomalies", len(found.seen)),
            ("Newest timestamp of the input", study.timestamp or _NONE),
        ),
    )


def _plan(study: Study, waves: Sequence[StudiedWave]) -> Iterator[str]:
    yield "## Plan"
    yield ""
    if not waves:
        yield "No tasks were found: there is nothing to plan." if study.run_id is None else "No wave is closed yet."
        return
    yield "What the plan foretells. Nothing of it has happened because it stands here."
    yield ""
    yield from _table(
        ("Wave", "Strategy", "Tasks", "Expected success", "Expected length", "Tasks by agent"),
        (
            (
                wave.number,
                wave.plan.strategy,
                len(wave.plan.slots),
                _percent(_mean_rate(wave)),
                _seconds(max((slot.ends_s for slot in wave.plan.slots if slot.ends_s is not None), default=None)),
                _loads(wave),
            )
            for wave in waves
        ),
    )
    for wave in waves:
        yield from (
            f"\n`{task_id}` of wave {wave.number} has no agent: {reason}." for task_id, reason in wave.unplaced[:TASKS_SHOWN]
        )


def _mean_rate(wave: StudiedWave) -> float | None:
    rates = [slot.predicted for slot in wave.plan.slots if slot.predicted is not None]
    return sum(rates) / len(rates) if rates else None


def _loads(wave: StudiedWave) -> str:
    loads = dict.fromkeys(wave.plan.agents, 0)
    for slot in wave.plan.slots:
        loads[slot.agent_id] = loads.get(slot.agent_id, 0) + 1
    return ", ".join(f"{agent_id} {count}" for agent_id, count in list(loads.items())[:AGENTS_SHOWN])


def _comparisons(comparisons: Sequence[Comparison]) -> Iterator[str]:
    yield "## Planned and actual"
    yield ""
    known = [made for made in comparisons if made.compared_tasks]
    if not known:
        yield "No outcome is recorded: there is nothing to hold a plan against yet."
        return
    yield from _table(
        ("Wave", "Plan by", "Outcomes", "Success planned", "actual", "Tasks a second planned", "actual", "Accuracy"),
        (
            (
                made.wave,
                made.strategy,
                f"{made.compared_tasks} of {made.tasks}",
                _percent(made.planned_success_rate),
                _percent(made.actual_success_rate),
                _number(made.planned_throughput),
                _number(made.actual_throughput),
                _percent(made.accuracy_score),
            )
            for made in known
        ),
    )


def _agents(study: Study) -> Iterator[str]:
    yield "## Agents"
    yield ""
    before = {agent.agent_id: agent for agent in study.agents}
    shares = {share.agent_id: share for share in opt.agent_shares(study.held)}
    yield from _table(
        ("Agent", "Success before", "over tasks", "Predicted here", "Actual here", "over tasks"),
        (
            (
                agent_id,
                _percent(agent.success_rate),
                agent.tasks or _NONE,
                _percent(_share(shares, agent_id, "predicted_sum")),
                _percent(_share(shares, agent_id, "successes")),
                shares[agent_id].ended if agent_id in shares and shares[agent_id].ended else _NONE,
            )
            for agent_id, agent in list(before.items())[:AGENTS_SHOWN]
        ),
    )


def _share(shares: dict[str, opt.AgentShare], agent_id: str, name: str) -> float | None:
    share = shares.get(agent_id)
    if share is None or not share.ended:
        return None
    total: float = getattr(share, name)
    return total / share.ended


def _metrics(found: Findings) -> Iterator[str]:
    yield "## Metrics"
    yield ""
    yield from _table(
        ("Metric", "Value", "Target", "Normal", "Status"),
        (
            (reading.metric_name, _number(reading.value), reading.target_value, _within(reading), reading.status)
            for reading in found.readings
        ),
    )
    yield ""
    yield from _table(
        ("Part of the health", "Points", "Weight"),
        ((name, _number(points), opt.WEIGHTS[name]) for name, points in found.health.component_scores.items()),
    )


def _within(reading: opt.Reading) -> str:
    return f"{reading.threshold_min} to {reading.threshold_max}"


def _anomalies(found: Findings) -> Iterator[str]:
    yield "## Anomalies and recommendations"
    yield ""
    if not found.seen:
        yield "None."
        return
    yield from _table(
        ("Anomaly", "Severity", "Waves", "What", "What to do"),
        (
            (
                one.sign.anomaly_type,
                one.sign.severity,
                ", ".join(map(str, one.sighting.waves[-WAVES_SHOWN:])),
                one.sighting.description,
                one.sign.recommendation,
            )
            for one in found.seen
        ),
    )


def _lessons(found: Findings) -> Iterator[str]:
    yield "## What it teaches"
    yield ""
    if not found.feedback:
        yield "Nothing: lessons come of outcomes, and none is recorded."
        return
    yield from _table(
        ("Lesson", "Confidence", "What", "What to do"),
        (
            (lesson.feedback_type, _number(lesson.confidence), lesson.description, lesson.recommendation)
            for lesson in found.feedback[:AGENTS_SHOWN]
        ),
    )


def _notes(study: Study, shown: Sequence[StudiedWave]) -> Iterator[str]:
    yield "## How to read this"
    yield ""
    yield "- Predicted is what the forecast says before anything happens; actual is what is recorded, and `-` where nobody knows."
    if study.run_id is None:
        yield "- A plan is made of what was known before its wave: the agents' records, and recorded outcomes of earlier waves."
        yield "- Where a schedule was carried out before, that one is held against the outcomes, not the new plan: nobody knows what"
        yield "  another agent would have made of a task."
    else:
        yield "- Planned is each task's first assignment in its wave; a task that was moved did not keep to it."
    if study.nobodys:
        yield f"- Left out are {study.nobodys} recorded outcomes that name no agent: they cannot be held against a schedule."
    if len(shown) < len(study.waves):
        yield f"- Of {len(study.waves)} waves the last {len(shown)} are shown."


def _table(heads: Sequence[str], lines: Iterable[Sequence[object]]) -> Iterator[str]:
    yield "| " + " | ".join(heads) + " |"
    yield "|" + " --- |" * len(heads)
    for cells in lines:
        yield "| " + " | ".join(" ".join(str(cell).replace("|", "\\|").split()) for cell in cells) + " |"


def _percent(rate: float | None) -> str:
    return _NONE if rate is None else f"{rate:.1%}"


def _number(value: float | None) -> str:
    return _NONE if value is None else f"{value:.3f}".rstrip("0").rstrip(".")


def _seconds(value: float | None) -> str:
    return _NONE if value is None else f"{value:.3g} s"
