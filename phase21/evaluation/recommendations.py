"""What a person should look at after a run, each with the task or agent and the figures that speak for it.

Called with the works and figures of `quality`, most costly first. Where nothing is to be said nothing is said; an agent is
blamed only where chance would hardly give it so many failures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import fsum

import msgspec

from phase21.domain.tasks import FINAL, TaskStatus
from phase21.evaluation.chance import by_luck, holm
from phase21.evaluation.quality import Quality, Work, not_reached

MOST = 10
NAMED = 3
"""How many tasks of one sort are named."""

UNLIKELY = 0.05
LATE = 1.5
"""From how many times its estimate on a task is called late."""

WORTH_S = 0.10
"""From which share of all seconds worked on a delay or a repetition is worth a word."""

POOR = 60.0
"""Below which score a judged task is named."""


class Recommendation(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to look at. `cost` is of what order of importance it is, in points of 100 lost."""

    text: str
    cost: float
    task_id: str | None = None
    agent_id: str | None = None


def recommendations(
    works: Sequence[Work], quality: Quality, reasons: Sequence[str] = (), stranded: Sequence[str] = ()
) -> tuple[Recommendation, ...]:
    """What to look at, the most costly first, at most `MOST`.

    `reasons` are the judge's own, `stranded` the compensations that failed.
    """
    lost = {term.name: term.points_lost for term in quality.whole.terms}
    found = [
        *_stranded(stranded),
        *_failures(works, lost["success"]),
        *_agents(works, lost["success"]),
        *_judged(works, lost["quality"], reasons),
        *_repeated(works, lost["retries"]),
        *_late(works, lost["time"]),
        *_unfinished(works),
    ]
    return tuple(sorted(found, key=lambda one: -one.cost)[:MOST])


def _stranded(stranded: Sequence[str]) -> Iterator[Recommendation]:
    for task_id in stranded:
        said = f"{task_id}, which was to undo what had been done, FAILED: a person must undo it, and nobody else will"
        yield Recommendation(text=said, cost=100.0, task_id=task_id)


def _failures(works: Sequence[Work], lost: float) -> Iterator[Recommendation]:
    """The tasks that FAILED, those with the same error together, and those whose turn never came."""
    failed = [work for work in works if work.status is TaskStatus.FAILED and not not_reached(work)]
    unreached = [work for work in works if not_reached(work)]
    each = lost / max(1, len(failed) + len(unreached))
    alike: dict[str | None, list[Work]] = {}
    for work in failed:
        alike.setdefault(work.error, []).append(work)
    for error, group in alike.items():
        tries = _count(sum(work.attempts for work in group), "attempt")
        agents = sorted({work.agent_id for work in group if work.agent_id is not None})
        said = f"{_names(group)} FAILED{f' on {_listed(agents)}' if agents else ''} after {tries}: {error or 'no reason was given'}"
        yield Recommendation(
            text=said, cost=each * len(group), task_id=group[0].task_id, agent_id=agents[0] if len(agents) == 1 else None
        )
    if unreached:
        after = f"after {_names(failed)} FAILED" if failed else unreached[0].error or "no reason was given"
        said = f"{len(unreached)} of {_count(len(works), 'task')} never had a turn ({_names(unreached)}): {after}"
        yield Recommendation(text=said, cost=each * len(unreached), task_id=unreached[0].task_id)


def _agents(works: Sequence[Work], lost: float) -> Iterator[Recommendation]:
    """Agents with more failed attempts than chance would give them, held against all others."""
    tried: dict[str, list[int]] = {}
    for work in works:
        if work.agent_id is not None and work.started and work.status in FINAL:
            held = tried.setdefault(work.agent_id, [0, 0])
            held[0] += work.status is TaskStatus.FAILED
            held[1] += 1
    failures, tasks = sum(held[0] for held in tried.values()), sum(held[1] for held in tried.values())
    chances = [by_luck(bad, all_, failures - bad, tasks - all_) for bad, all_ in tried.values()]
    for (agent_id, (bad, all_)), chance in zip(tried.items(), holm(chances), strict=True):
        if bad and chance is not None and chance <= UNLIKELY:
            others = f"the others FAILED {failures - bad} of {tasks - all_}"
            said = f"{agent_id} FAILED {bad} of {_count(all_, 'task')}, {others} (by chance alone: {chance:.1%}): look at the agent first"
            yield Recommendation(text=said, cost=lost, agent_id=agent_id)


def _judged(works: Sequence[Work], lost: float, reasons: Sequence[str]) -> Iterator[Recommendation]:
    low = sorted((work for work in works if work.score is not None and work.score < POOR), key=lambda work: work.score or 0.0)
    if low:
        scores = ", ".join(f"{work.task_id} {work.score:.0f}" for work in low[:NAMED])
        said = f"the judge gave {scores}{_more(len(low))} of 100{_because(reasons)}"
        yield Recommendation(text=said, cost=lost, task_id=low[0].task_id, agent_id=low[0].agent_id)
    elif lost and reasons:
        yield Recommendation(text=f"the judge took off {lost:.0f} points{_because(reasons)}", cost=lost)


def _because(reasons: Sequence[str]) -> str:
    return f": {'; '.join(reasons[:NAMED])}" if reasons else ""


def _repeated(works: Sequence[Work], lost: float) -> Iterator[Recommendation]:
    """The task whose failed attempts took longest, where together they took a share of all time that is worth a word."""
    again = [work for work in works if work.attempts > 1]
    wasted_s = fsum(work.lost_s for work in again)
    worked_s = wasted_s + fsum(work.actual_s or 0.0 for work in works)
    if not wasted_s or wasted_s < WORTH_S * worked_s:
        return
    worst = max(again, key=lambda work: work.lost_s)
    last = f" on {worst.agent_id}" if worst.agent_id else ""
    said = (
        f"failed attempts took {wasted_s:.1f} of {worked_s:.1f} s; most of it {worst.task_id}{last}, "
        f"{_count(worst.attempts, 'attempt')} and {worst.lost_s:.1f} s for nothing"
    )
    yield Recommendation(text=said, cost=lost, task_id=worst.task_id, agent_id=worst.agent_id)


def _late(works: Sequence[Work], lost: float) -> Iterator[Recommendation]:
    """The steps that took longest beyond their estimates, the first few."""
    over: dict[str, list[Work]] = {}
    for work in works:
        if (
            work.status is TaskStatus.COMPLETED
            and work.estimated_s is not None
            and (work.actual_s or 0.0) > LATE * work.estimated_s
        ):
            over.setdefault(work.step, []).append(work)
    worked_s = fsum(work.actual_s or 0.0 for work in works)
    delays = {step: fsum((work.actual_s or 0.0) - (work.estimated_s or 0.0) for work in late) for step, late in over.items()}
    for step in sorted(delays, key=lambda name: -delays[name])[:NAMED]:
        if delays[step] >= WORTH_S * worked_s:
            late = over[step]
            mean_s = fsum(work.actual_s or 0.0 for work in late) / len(late)
            estimated_s = fsum(work.estimated_s or 0.0 for work in late) / len(late)
            said = f"{step} took {mean_s:.1f} s and {estimated_s:.1f} s had been estimated: set its estimated_duration_s to {mean_s:.0f}"
            part = lost * delays[step] / fsum(delays.values())
            yield Recommendation(text=said, cost=part, task_id=late[0].task_id)


def _unfinished(works: Sequence[Work]) -> Iterator[Recommendation]:
    held = [work for work in works if work.status not in FINAL]
    if held:
        said = f"{len(held)} of {_count(len(works), 'task')} not ended yet ({_names(held)}): the figures are of the others"
        yield Recommendation(text=said, cost=0.0, task_id=held[0].task_id)


def _names(works: Sequence[Work]) -> str:
    return _listed([work.task_id for work in works])


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + _more(len(names))


def _more(count: int) -> str:
    return f" and {count - NAMED} more" if count > NAMED else ""


def _count(count: int, word: str) -> str:
    return f"{count} {word}{'s' * (count != 1)}"
