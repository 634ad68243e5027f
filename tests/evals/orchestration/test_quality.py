"""ORCH-019 and ORCH-020: a workflow's quality is judged, and a regression is found where one was planted."""

from __future__ import annotations

import pytest
from players import Scripted, put_on
from stage import configured, finished, house_in

from phase21.domain.tasks import Outcome
from phase21.evaluation.regressions import Verdict
from phase21.intake.submissions import parse
from phase21.readers.inquiries.evaluations import evaluated
from phase21.readers.inquiries.spectator import Spectator
from phase21.store import codec

pytestmark = pytest.mark.looptime

SETTINGS = configured(agents={"count": 4}, retry={"base_delay": 1.0, "max_attempts": 3})


class Judge:
    """Gives each task that it is shown 70, and the run 72; keeps what it was shown."""

    def __init__(self):
        self.shown = {}

    async def perform(self, attempt):
        self.shown = attempt.task.payload["results"]
        return Outcome(success=True, result={"score": 72, "tasks": dict.fromkeys(self.shown, 70), "reasons": ["b: too short"]})


def submit(house, run_id, name, tasks, **fields):
    """Submit a workflow."""
    house.receiver.accept(parse(codec.encode({"run_id": run_id, "workflow": {"name": name, "tasks": tasks, **fields}})))


def found(folder, run_id, **how):
    """The evaluation, read from beside."""
    with Spectator(folder / "state") as spectator:
        spectator.refresh()
        return evaluated(spectator, run_id, **how)


async def test_orch_019_quality_evaluation(tmp_path):
    """ORCH-019: success, time against estimate, retries and the judge's score make score, grade and recommendations."""
    judge = Judge()
    async with house_in(tmp_path, SETTINGS) as house:
        put_on(house, Scripted(a="2", b="fail 6"))
        put_on(house, judge, "judging")
        tasks = [{"task_id": "a", "kind": "scripted", "estimated_duration_s": 4.0}]
        tasks += [{"task_id": "b", "kind": "scripted", "estimated_duration_s": 2.0, "depends_on": ["a"]}]
        submit(house, "r", "judged", tasks, evaluate={"judge": {"kind": "judging"}})
        await finished(house)
        await house.stop("the end", 1)
    assert {task_id: said["status"] for task_id, said in judge.shown.items()} == {"a": "COMPLETED", "b": "COMPLETED"}
    told = found(tmp_path, "r")
    whole = told.quality.whole
    assert (told.workflow, told.state, whole.tasks, whole.success_rate, whole.retries, whole.quality) == (
        "judged",
        "completed",
        2,
        1.0,
        1,
        72.0,
    )
    assert whole.actual_s == pytest.approx(8.0)
    assert whole.within_estimate == pytest.approx((2.0 + 2.0) / 8.0)
    assert whole.score == pytest.approx(100 * 0.72 * (1 - 0.15 * 0.5 - 0.15 * (1 - 2 / 3)))
    assert str(whole.grade) == "FAIR"
    assert told.quality.tasks["a"].score == pytest.approx(70.0)
    assert [one.text for one in told.recommendations] == [
        "the judge took off 28 points: b: too short",
        "judged/b took 6.0 s and 2.0 s had been estimated: set its estimated_duration_s to 6",
    ]


async def test_orch_020_regression_detection(tmp_path):
    """ORCH-020: against five equal runs a sixth is no regression, and one with a third less success is."""
    rates = {**{f"night-{n}": 0.95 for n in range(5)}, "equal": 0.95, "worse": 0.6}
    async with house_in(tmp_path, SETTINGS) as house:
        for run_id, rate in rates.items():
            payload = {"success_rate": rate, "duration_s": 1.0}
            tasks = [{"task_id": f"t{n}", "payload": payload, "max_attempts": 1} for n in range(40)]
            submit(house, run_id, "nightly", tasks, mode="parallel", on_failure="continue")
            await finished(house)
        await house.stop("the end", 1)
    equal = found(tmp_path, "equal").comparison
    assert equal.runs == tuple(f"night-{n}" for n in reversed(range(5)))
    assert equal.verdict is Verdict.NONE, equal
    worse = found(tmp_path, "worse", runs=6).comparison
    assert worse.verdict is Verdict.REGRESSION
    (change,) = [one for one in worse.changes if one.verdict is Verdict.REGRESSION]
    assert change.name == "success rate"
    assert change.worse > 0.2
    assert change.low > 0.0
