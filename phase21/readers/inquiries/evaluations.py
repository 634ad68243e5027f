"""How good a run was, and whether it was worse than earlier ones of its kind: what the verb `evaluate` shows.

It reads the store of a daemon that runs or of one that does not, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from phase21.domain.records import RunRecord
from phase21.domain.workflows import Judged, WorkflowState
from phase21.evaluation.judges import Marks
from phase21.evaluation.quality import Quality, quality_of
from phase21.evaluation.recommendations import Recommendation, recommendations
from phase21.evaluation.regressions import TOLERANCE, Comparison, Ran, Verdict, compare
from phase21.readers.inquiries.spectator import Spectator
from phase21.readers.inquiries.works import Worked, worked_in
from phase21.store.clock import iso

RUNS = 5
COMPARABLE = frozenset({WorkflowState.COMPLETED, WorkflowState.FAILED})


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """A run judged. `workflow` is its name, None where it is none; `comparison` None where there is no earlier run to compare with."""

    run_id: str
    workflow: str | None
    state: str | None
    started_at: str | None
    ended_at: str | None
    quality: Quality
    marks: Marks | None
    problem: str | None
    recommendations: tuple[Recommendation, ...]
    comparison: Comparison | None


def evaluated(
    spectator: Spectator, run_id: str, *, runs: int | None = None, tolerance: float | None = None, against: Sequence[str] = ()
) -> Evaluation:
    """Judge a run as far as it has come, against the runs that are named or the last of the same workflow.

    What is not given is as the workflow says. Raises UnknownRun.
    """
    now = worked(spectator, run_id)
    terms = now.workflow.evaluate if now.workflow is not None else None
    terms = terms if terms is not None else Judged(runs=RUNS, tolerance=TOLERANCE)
    named = [worked(spectator, name) for name in dict.fromkeys(against) if name != run_id]
    before = named or list(earlier(spectator, now, terms.runs if runs is None else runs))
    quality = quality_of(now.works, now.marks.score if now.marks is not None else None)
    reasons = now.marks.reasons if now.marks is not None else ()
    compared = compare(ran(now), [ran(one) for one in before], tolerance=terms.tolerance if tolerance is None else tolerance)
    return Evaluation(
        run_id=run_id,
        workflow=now.workflow.name if now.workflow is not None else None,
        state=str(now.state) if now.state is not None else None,
        started_at=iso(now.started_us) if now.started_us is not None else None,
        ended_at=iso(now.ended_us) if now.ended_us is not None else None,
        quality=quality,
        marks=now.marks,
        problem=now.problem,
        recommendations=recommendations(now.works, quality, reasons, now.stranded),
        comparison=compared if before else None,
    )


def worked(spectator: Spectator, run_id: str) -> Worked:
    """What became of a run's tasks. Raises UnknownRun."""
    record = spectator.record(run_id)
    return worked_in(spectator.entries(max(0, record.first_position - 1), run_id), run_id)


def earlier(spectator: Spectator, now: Worked, runs: int) -> Iterator[Worked]:
    """The last so many runs before this one that were of the same workflow and have come to an end, the newest first."""
    if now.workflow is None:
        return
    place = spectator.record(now.run_id).first_position
    known = {record.run_id: record for record in _records(spectator)}
    alike = [one for one in known.values() if one.first_position < place and _named(one) == now.workflow.name]
    for record in sorted(alike, key=lambda one: -one.first_position):
        if runs > 0:
            past = worked(spectator, record.run_id)
            if past.state in COMPARABLE:
                runs -= 1
                yield past


def _records(spectator: Spectator) -> Iterator[RunRecord]:
    """Every run's record: those that memory has put away, then those that are held."""
    yield from spectator.database.runs() if spectator.database is not None else ()
    for run in spectator.ledger.runs.values():
        yield run.record


def _named(record: RunRecord) -> str | None:
    return record.workflow.workflow.name if record.workflow is not None else None


def ran(one: Worked) -> Ran:
    """A run as it is compared."""
    return Ran(run_id=one.run_id, works=one.works, score=one.marks.score if one.marks is not None else None)


def told(found: Evaluation) -> dict[str, Any]:
    """The same for scripts."""
    plain: dict[str, Any] = msgspec.to_builtins(found)
    plain["regression"] = found.comparison is not None and found.comparison.verdict is Verdict.REGRESSION
    return plain
