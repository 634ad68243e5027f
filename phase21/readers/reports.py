"""The Markdown report of a run, for a person.

`contents` puts it into the run's folder with its picture, and the command line prints the same. It says what the run's record and
its waves' digests say, and no other time than theirs; it must never read a file or a clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import nlargest
from typing import Any

import msgspec

from phase21.domain.records import RunRecord
from phase21.domain.tasks import TaskStatus
from phase21.domain.workflows import WorkflowRecord
from phase21.evaluation.calibration import ReliabilityBin, reliability_bin
from phase21.readers import diagrams, nodes, plots, rows
from phase21.readers.bin_sums import BinSums

WAVES_SHOWN = 50
AGENTS_SHOWN = 100
ANOMALIES_SHOWN = 100
_BARS = "▁▂▃▄▅▆▇█"
_TREND_WIDTH = 50
_NONE = "-"
_SUMS = {"our prediction": "predicted_sums", "incoming prediction": "incoming_sums"}
"""What is held against the outcomes, and where a digest has its sums."""

Digest = dict[str, Any]


def render(run: RunRecord, digests: Sequence[Digest]) -> str:
    """The report. `digests` are those of the run's newest closed waves, in order; at most `WAVES_SHOWN` are shown."""
    shown, summary = digests[-WAVES_SHOWN:], rows.summary_of(run)
    parts = (
        _overview(run, summary),
        *((_workflow(run, run.workflow, shown),) if run.workflow is not None else ()),
        _waves(run, shown),
        _agents(summary.per_agent_metrics),
        _anomalies(run, shown),
        _trend(shown),
        _calibration(run, shown),
    )
    return "\n".join(line for part in parts for line in (*part, ""))


def picture(run: RunRecord, digests: Sequence[Digest]) -> str:
    """The picture of the report's calibration, SVG, of the same waves."""
    shown = digests[-WAVES_SHOWN:]
    series = [plots.Series(name, _bins(_sums(shown, name))) for name in _SUMS]
    return plots.reliability_svg(f"{run.run_id}: what was predicted, and what came about", series)


# -- sections ------------------------------------------------------------------------------------------------------------


def _overview(run: RunRecord, summary: rows.Summary) -> Iterator[str]:
    yield f"# Phase 21: autonomous execution of `{run.run_id}`"
    yield ""
    yield "## Overview"
    yield ""
    yield from _table(
        ("", ""),
        (
            ("Tasks accepted", summary.total_tasks),
            ("Completed", summary.completed_tasks),
            ("Failed", summary.failed_tasks),
            ("Deferred, waiting for approval", summary.deferred_tasks),
            ("Cancelled", summary.cancelled_tasks),
            *((("Skipped by the workflow", summary.skipped_tasks),) if run.workflow is not None else ()),
            ("Success rate", _percent(summary.success_rate)),
            ("Waves", summary.waves),
            ("Accepted", summary.start_time or _NONE),
            ("Last wave settled", summary.end_time or _NONE),
            ("System health", _health(run)),
            ("Anomalies", run.anomalies),
        ),
    )


def _workflow(run: RunRecord, flow: WorkflowRecord, shown: Sequence[Digest]) -> Iterator[str]:
    yield "## Workflow"
    yield ""
    workflow = flow.workflow
    facts = [("Name", workflow.name), ("State", rows.stands(flow)), ("Why", (not flow.open and flow.reason) or _NONE)]
    facts += [("On failure", str(workflow.on_failure))]
    facts += [("Forked from", workflow.forked_from)] if workflow.forked_from else []
    facts += [("Needs a person", f"{_listed(flow.stranded)}: what was done could not be undone")] if flow.stranded else []
    yield from _table(("", ""), facts)
    graphs = [digest["graph"] for digest in shown if "graph" in digest]
    yield from _diagram(run, flow, graphs)
    yield from _undone([row for graph in graphs for row in graph["undone"]])
    skipped = [row for graph in graphs for row in graph["skipped"]]
    yield from _skipped(skipped, run.counts.get(TaskStatus.SKIPPED, 0))


def _diagram(run: RunRecord, flow: WorkflowRecord, graphs: Sequence[Digest]) -> Iterator[str]:
    """The workflow as Markdown viewers draw it, as far as its waves are closed, with what cannot be made into tasks yet."""
    parts = [msgspec.convert(graph["nodes"], tuple[nodes.Node, ...]) for graph in graphs]
    found = nodes.rejoined([*parts, [nodes.later_node(step) for step in flow.later]])
    if not found:
        return
    yield ""
    yield "```mermaid"
    yield from diagrams.mermaid(found).splitlines()
    yield "```"
    more = sum(graph["more_nodes"] for graph in graphs)
    yield ""
    left = f"{more} more steps are not drawn; " if more else ""
    yield f"{left}`phase21 show {run.run_id}` has each task with its agent, its time and its reason."


def _undone(undone: Sequence[Sequence[str]]) -> Iterator[str]:
    if undone:
        yield ""
        yield "What was undone, in this order:"
        yield ""
        said: dict[str, str] = {TaskStatus.COMPLETED: "undone", TaskStatus.FAILED: "FAILED: it needs a person"}
        yield from _table(
            ("Compensation", "Of", "Came to"), ((task_id, of, said.get(status, status)) for task_id, of, status in undone)
        )


def _skipped(skipped: Sequence[Sequence[str]], count: int) -> Iterator[str]:
    if skipped:
        yield ""
        tasks = "task that was" if count == 1 else "tasks that were"
        yield f"{_first_of(len(skipped[: rows.LISTED_MOST]), count)} {tasks} not to be done:"
        yield ""
        yield from _table(("Skipped", "Why"), skipped[: rows.LISTED_MOST])


def _first_of(shown: int, count: int) -> str:
    return f"The {shown}" if shown >= count else f"The first {shown} of {count}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - rows.LISTED_MOST} more" if len(names) > rows.LISTED_MOST else ""
    return ", ".join(names[: rows.LISTED_MOST]) + more


def _waves(run: RunRecord, shown: Sequence[Digest]) -> Iterator[str]:
    yield "## Waves"
    yield ""
    if not shown:
        yield "No wave is closed yet."
        return
    if run.closed_waves > len(shown):
        yield f"The last {len(shown)} of {run.closed_waves} waves."
        yield ""
    flows = run.workflow is not None
    ends = ("Completed", "Failed", "Deferred", "Cancelled", *(("Skipped",) if flows else ()))
    heads = ("Wave", "Strategy", "Tasks", *ends, "Took (s)", "Health", "Settled")
    yield from _table(heads, (_wave_cells(digest, flows=flows) for digest in shown))


def _wave_cells(digest: Digest, *, flows: bool) -> tuple[object, ...]:
    return (
        digest["wave"],
        digest["strategy"] or _NONE,
        digest["tasks"],
        digest["completed"],
        digest["failed"],
        digest["deferred"],
        digest["cancelled"],
        *((digest.get("skipped", 0),) if flows else ()),
        _number(digest["actual_duration_s"], 3),
        _scored(digest["health_score"], digest["health_status"]),
        digest["settled_at"] or _NONE,
    )


def _agents(summaries: Mapping[str, rows.AgentSummary]) -> Iterator[str]:
    yield "## Agents"
    yield ""
    if not summaries:
        yield "No agent had a task."
        return
    shown = list(summaries.items())
    if len(shown) > AGENTS_SHOWN:
        shown = nlargest(AGENTS_SHOWN, shown, key=lambda item: item[1].failed_tasks)
        yield f"The {AGENTS_SHOWN} of {len(summaries)} agents with the most failed tasks; the summary has them all."
        yield ""
    heads = ("Agent", "Assigned", "Completed", "Failed", "Success rate", "Mean latency (s)", "Retries")
    yield from _table(
        heads,
        (
            (
                agent_id,
                part.assigned_tasks,
                part.completed_tasks,
                part.failed_tasks,
                _percent(part.success_rate),
                _number(part.mean_latency_s, 4),
                part.retries,
            )
            for agent_id, part in shown
        ),
    )


def _anomalies(run: RunRecord, shown: Sequence[Digest]) -> Iterator[str]:
    yield "## Anomalies and recommendations"
    yield ""
    found = [anomaly for digest in shown for anomaly in digest["anomalies"]]
    if not found:
        yield "Nothing out of the ordinary."
        return
    newest = found[-ANOMALIES_SHOWN:]
    if run.anomalies > len(newest):
        yield f"The last {len(newest)} of {run.anomalies} anomalies."
        yield ""
    heads = ("Wave", "Since", "Severity", "Anomaly", "Agent", "What was seen", "What was done")
    yield from _table(heads, (_anomaly_cells(item) for item in newest))
    yield ""
    counts: dict[str, int] = {}
    for item in found:
        counts[item["recommendation"]] = counts.get(item["recommendation"], 0) + 1
    often_first = sorted(counts.items(), key=lambda counted: -counted[1])
    yield from (f"- {_cell(text)} ({_times(count)})" for text, count in often_first[:ANOMALIES_SHOWN])


def _anomaly_cells(item: Digest) -> tuple[object, ...]:
    since = item.get("since_wave")
    return (
        item["wave"],
        _NONE if since is None else since,
        item["severity"],
        item["anomaly_type"],
        item["agent_id"] or _NONE,
        item["description"],
        item.get("action") or _NONE,
    )


def _trend(shown: Sequence[Digest]) -> Iterator[str]:
    yield "## Health trend"
    yield ""
    scored = [digest for digest in shown if digest["health_score"] is not None]
    if not scored:
        yield "No wave has a score."
        return
    scores = [float(digest["health_score"]) for digest in scored]
    yield f"Score by wave, {scored[0]['wave']} to {scored[-1]['wave']} (0 is ▁, 100 is █; a dot is a wave without a score):"
    yield ""
    yield "```"
    line = "".join(_bar(digest["health_score"]) for digest in shown)
    yield from (line[first : first + _TREND_WIDTH] for first in range(0, len(line), _TREND_WIDTH))
    yield "```"
    yield ""
    mean = sum(scores) / len(scores)
    yield f"First {scores[0]:.1f}, last {scores[-1]:.1f}, mean {mean:.1f}, lowest {min(scores):.1f}, highest {max(scores):.1f}."
    yield from _causes(shown[-1])


def _causes(digest: Digest) -> Iterator[str]:
    """What the newest wave's score lost; digests of old do not say."""
    causes = digest.get("causes", ())
    if not causes:
        return
    yield ""
    yield f"Where the points of wave {digest['wave']} went:"
    yield ""
    yield from _table(("Term", "Value", "Weight", "Points lost", "Most of it"), (_cause_cells(cause) for cause in causes))


def _cause_cells(cause: Digest) -> tuple[object, ...]:
    lost = _number(cause["points_lost"], 1)
    return cause["term"], _number(cause["value"], 4), f"{cause['weight']:g}", lost, cause["description"]


def _calibration(run: RunRecord, shown: Sequence[Digest]) -> Iterator[str]:
    yield "## Calibration"
    yield ""
    measured = [digest for digest in shown if digest["metrics"]["confidence"] is not None]
    if not measured:
        yield "Nothing was started: there is no prediction to compare."
        return
    yield "What was predicted against what came about. A Brier score of 0 is perfect, and 0.25 is a coin's."
    yield ""
    heads = ("Wave", "Started", "Predicted", "Success rate", "Prediction error", "Brier score")
    yield from _table(heads, (_calibration_cells(digest) for digest in measured))
    yield ""
    yield _calibration_line(measured)
    ours, incoming = (_sums(measured, name) for name in _SUMS)
    if ours:
        yield from _reliability(run, ours, incoming)


def _reliability(run: RunRecord, ours: Sequence[BinSums], incoming: Sequence[BinSums]) -> Iterator[str]:
    yield ""
    heads = ("Predicted", "Tasks", "Mean prediction", "Came about", "95 %")
    yield from _table(heads, (_reliability_cells(held) for held in _bins(ours)))
    yield ""
    yield f"![What was predicted, and what came about]({plots.PICTURE})"
    yield ""
    figures = [f"{name} {_error(sums):.4f} and {_brier(sums):.4f}" for name, sums in zip(_SUMS, (ours, incoming), strict=True)]
    yield f"Expected calibration error (ten bins of equal width) and Brier score: {', '.join(figures)}."
    yield f"`phase21 calibration {run.run_id}` has their intervals, and the running rates beside them."


def _reliability_cells(held: ReliabilityBin) -> tuple[object, ...]:
    ends = f"{_percent(held.observed_low)} to {_percent(held.observed_high)}"
    return f"{held.low:.0%} to {held.high:.0%}", held.samples, _percent(held.predicted), _percent(held.observed), ends


def _sums(digests: Sequence[Digest], name: str) -> list[BinSums]:
    """What the waves' sums add up to, by bin."""
    sums: dict[int, BinSums] = {}
    for digest in digests:
        for place, samples, predicted, squared, successes in digest.get(_SUMS[name], ()):
            had = sums.get(place) or BinSums(place, 0, 0.0, 0.0, 0)
            sums[place] = BinSums(
                place, had.samples + samples, had.predicted + predicted, had.squared + squared, had.successes + successes
            )
    return [sums[place] for place in sorted(sums)]


def _bins(sums: Sequence[BinSums]) -> tuple[ReliabilityBin, ...]:
    return tuple(reliability_bin(held.place, held.samples, held.predicted, held.successes) for held in sums)


def _error(sums: Sequence[BinSums]) -> float:
    return sum(abs(held.predicted - held.successes) for held in sums) / sum(held.samples for held in sums)


def _brier(sums: Sequence[BinSums]) -> float:
    return sum(held.squared for held in sums) / sum(held.samples for held in sums)


def _calibration_cells(digest: Digest) -> tuple[object, ...]:
    metrics = digest["metrics"]
    return (
        digest["wave"],
        metrics["started_tasks"],
        _percent(metrics["confidence"]),
        _percent(metrics["success_rate"]),
        _number(metrics["prediction_error"], 4),
        _number(metrics["brier_score"], 4),
    )


def _calibration_line(measured: Sequence[Digest]) -> str:
    metrics = [digest["metrics"] for digest in measured]
    started = sum(figures["started_tasks"] for figures in metrics)
    predicted = sum(figures["confidence"] * figures["started_tasks"] for figures in metrics) / started if started else None
    scores = [(figures["brier_score"], figures["started_tasks"]) for figures in metrics if figures["brier_score"] is not None]
    brier = sum(score * count for score, count in scores) / started if started and scores else None
    return f"Over these waves: {started} started tasks, mean prediction {_percent(predicted)}, Brier score {_number(brier, 4)}."


# -- cells ---------------------------------------------------------------------------------------------------------------


def _table(heads: Sequence[str], lines: Iterable[Sequence[object]]) -> Iterator[str]:
    yield "| " + " | ".join(heads) + " |"
    yield "|" + " --- |" * len(heads)
    for cells in lines:
        yield "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _cell(value: object) -> str:
    return " ".join(value.replace("|", "\\|").split()) if isinstance(value, str) else str(value)


def _percent(rate: float | None) -> str:
    return _NONE if rate is None else f"{rate:.1%}"


def _number(value: float | None, digits: int) -> str:
    return _NONE if value is None else f"{value:.{digits}f}"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _health(run: RunRecord) -> str:
    return _scored(run.health.score, run.health.status) if run.health else _NONE


def _scored(score: float | None, status: str) -> str:
    return str(status) if score is None else f"{score:.1f} {status}"


def _bar(score: float | None) -> str:
    if score is None:
        return "."
    return _BARS[min(len(_BARS) - 1, max(0, int(score * len(_BARS) / 100)))]
