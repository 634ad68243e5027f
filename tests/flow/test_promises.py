"""What the house promises of waves and outcomes."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from players import Scripted, after, assigned, entries, of_task, put_on
from stage import accept, configured, control, doomed, executed, finished, house_in, rows, statuses, sure, task

from phase21.domain import events as ev
from phase21.domain.folds.known import IDLE_RUNS_KEPT
from phase21.domain.tasks import FINAL, Compensation, Outcome
from phase21.intake.submissions import Submission
from phase21.readers.contents import HEALTH
from phase21.store import codec
from phase21.store.clock import LoopClock
from phase21.store.journal import Journal

pytestmark = pytest.mark.looptime

OUTCOMES = (ev.TaskCompleted, ev.TaskFailed, ev.TaskCancelled)


def scripted(task_id, **fields):
    return task(task_id, kind="scripted", **fields)


async def test_no_wave_is_assigned_before_the_one_before_is_judged_and_durable(tmp_path):
    """Nothing of wave n+1 is assigned before wave n's outcomes, health and lessons are durable."""
    async with house_in(tmp_path) as house:
        durable_at = []
        plain = house.journal.append

        def watched(event):
            if isinstance(event, ev.TasksAssigned):
                durable_at.append((event.wave, house.journal._durable))
            return plain(event)

        house.journal.append = watched
        accept(house, "r", *[[sure(f"w{w}-{i}", payload={"duration_s": 0.5}) for i in range(6)] for w in (1, 2, 3)])
        await finished(house)
        judged = {entry.event.wave: entry.position for entry in entries(house, ev.PredictionsCalibrated)}
        assert [wave for wave, _ in durable_at] == [1, 2, 3]
        for wave, durable in durable_at[1:]:
            assert durable >= judged[wave - 1]
        ended = {entry.event.wave: entry.position for entry in entries(house, *OUTCOMES)}
        scored = {entry.event.wave: entry.position for entry in entries(house, ev.HealthScored)}
        assert all(ended[wave] < scored[wave] < judged[wave] for wave in (1, 2, 3))


async def test_runs_go_on_side_by_side_up_to_the_limit(tmp_path):
    """As many runs as `max_parallel_runs` have an open wave at once, and never more."""
    async with house_in(tmp_path, configured(manager={"max_parallel_runs": 2})) as house:
        for name in "abcd":
            accept(house, name, [sure(f"{name}1", payload={"duration_s": 1})], [sure(f"{name}2", payload={"duration_s": 1})])
        await finished(house)
        open_now, most = set(), 0
        for entry in entries(house, ev.WaveOpened, ev.PredictionsCalibrated):
            key = entry.event.run_id
            if isinstance(entry.event, ev.WaveOpened):
                open_now.add(key)
                most = max(most, len(open_now))
            else:
                open_now.discard(key)
        assert most == 2
        opened = [entry.event.run_id for entry in entries(house, ev.WaveOpened)]
        assert sorted(opened[:4]) == ["a", "b", "c", "d"], "a run gives up its place after each wave"


async def test_waves_are_carried_out_in_order_of_number_whatever_is_missing(tmp_path):
    """Given in any order and with gaps, the waves of a run are opened by their numbers, and none is waited for."""
    async with house_in(tmp_path) as house:
        for wave in (7, 2, 5):
            accept(house, "r", [sure(f"w{wave}")], first=wave)
        await finished(house)
        assert [entry.event.wave for entry in entries(house, ev.WaveOpened)] == [2, 5, 7]


async def test_every_task_has_exactly_one_final_outcome(tmp_path):
    """Whatever befell a task, the journal holds one final outcome of it, and the outputs one final row."""
    async with house_in(tmp_path) as house:
        put_on(house, Scripted(late="hang", raises="raise", again="fail ok"))
        accept(
            house, "r",
            [sure("good"), doomed("bad"), scripted("late", timeout_s=1), scripted("raises"), scripted("again"),
             sure("after-bad", depends_on=["bad"]), sure("nobody", capabilities=["gpu"]), task("unknown", kind="nothing")],
        )  # fmt: skip
        await finished(house)
        for task_id in ("good", "bad", "late", "raises", "again", "after-bad", "nobody", "unknown"):
            assert len(of_task(house, task_id, *OUTCOMES)) == 1, task_id
        found = executed(tmp_path, "r")
        assert sorted(row["task_id"] for row in found) == sorted(
            ["good", "bad", "late", "raises", "again", "after-bad", "nobody", "unknown"]
        )
        assert {task_id for task_id, status in statuses(found).items() if status == "COMPLETED"} == {"good", "again"}


async def test_a_handlers_exception_is_a_failure_with_its_own_words(tmp_path):
    """What a handler raises ends the attempt, not the agent."""
    async with house_in(tmp_path, configured(retry={"strategy": "no_retry"})) as house:
        put_on(house, Scripted(t="raise"))
        accept(house, "r", [scripted("t")])
        await finished(house)
        assert executed(tmp_path, "r")[0]["error_msg"] == "RuntimeError: a handler's own trouble"
        assert not entries(house, ev.AgentRestarted)


async def test_an_outcome_that_json_cannot_say_is_a_failure(tmp_path):
    """A handler's result or message that the journal cannot hold fails the attempt, and the journal goes on."""

    class Odd:
        async def perform(self, attempt):
            if attempt.task.task_id == "thing":
                return ev_outcome(object())
            raise ValueError("half a character: \ud800")

    def ev_outcome(value):
        from phase21.domain.tasks import Outcome

        return Outcome(success=True, result=value)

    async with house_in(tmp_path, configured(retry={"strategy": "no_retry"})) as house:
        put_on(house, Odd())
        accept(house, "r", [scripted("thing"), scripted("half")])
        await finished(house)
        assert set(statuses(executed(tmp_path, "r")).values()) == {"FAILED"}


async def test_the_more_urgent_goes_first_within_an_inbox(tmp_path):
    """An agent takes the most urgent of what waits, and among equals what came first."""
    async with house_in(tmp_path, configured(agents={"count": 1})) as house:
        engine = Scripted()
        put_on(house, engine)
        accept(
            house,
            "r",
            [scripted("c", priority=3), scripted("a", priority=1), scripted("b1"), scripted("b2"), scripted("a2", priority=1)],
        )
        await finished(house)
        assert [name for name, _, _ in engine.started] == ["a", "a2", "b1", "b2", "c"]


async def test_an_inbox_smaller_than_the_wave_pushes_back(tmp_path):
    """A wave larger than all inboxes together is carried out whole."""
    async with house_in(tmp_path, configured(agents={"count": 2, "inbox_size": 2})) as house:
        accept(house, "r", [sure(f"t{n}") for n in range(50)])
        await finished(house)
        assert len(executed(tmp_path, "r")) == 50


async def test_what_everything_cancelled_leaves_is_settled_and_unknown(tmp_path):
    """A wave of which everything was cancelled before it began is settled all the same, its health UNKNOWN."""
    async with house_in(tmp_path) as house:
        control_first(house)
        await finished(house)
        assert set(statuses(executed(tmp_path, "r")).values()) == {"CANCELLED"}
        health = (tmp_path / "outputs/r/phase21_system_health.json").read_bytes()
        from phase21.store import codec

        told = codec.decode(health)
        assert told["health_status"] == "UNKNOWN"
        assert told["health_score"] is None
        assert [path.name for path in sorted((tmp_path / "outputs/r/wave_1").iterdir())][-1] == "unassigned"


def control_first(house):
    accept(house, "r", [sure("a"), sure("b")])
    control(house, "r", "cancel", "a", "b")


async def test_put_away_runs_come_back_with_their_counts(tmp_path):
    """A run that memory has put away is recalled with all that it counted, and is not paused for ever."""
    async with house_in(tmp_path) as house:
        put_on(house, Scripted(slow="1"))
        accept(house, "first", [scripted("slow"), doomed("bad", max_attempts=1)])
        await after(house, 0.5)
        control(house, "first", "pause")
        await after(house, 1)
        control(house, "first", "resume")
        await finished(house)
        for n in range(IDLE_RUNS_KEPT + 8):
            accept(house, f"other-{n}", [sure("t")])
            await finished(house)
        ledger = house.journal.ledger
        assert "first" not in ledger.runs
        assert len(ledger.runs) <= IDLE_RUNS_KEPT
        accept(house, "first", [sure("later")], first=2)
        await finished(house)
        record = ledger.runs["first"].record
        assert record.counts == {"COMPLETED": 2, "FAILED": 1}
        assert record.closed_waves == 2
        assert not record.paused
        summary = (tmp_path / "outputs/first/phase21_execution_summary.json").read_text()
        assert '"total_tasks": 3' in summary


def _size(house):
    """Of the ledger, but for what is kept of so many newest waves and no more."""
    from phase21.domain.sequential import MOST_MARKS
    from phase21.domain.watching import COURSE_WAVES
    from phase21.store import codec

    ledger = house.journal.ledger
    bounded = [run.record.course for run in ledger.runs.values()]
    assert all(len(course) <= COURSE_WAVES for course in bounded)
    watched = [run.record.watches for run in ledger.runs.values()] + [agent.watches for agent in ledger.agents.values()]
    assert all(len(watch.marks) <= MOST_MARKS for watches in watched for watch in watches.values())
    return len(codec.encode(ledger.snapshot())) - len(codec.encode([bounded, watched]))


async def test_the_ledger_holds_nothing_of_closed_waves(tmp_path):
    """Memory does not grow with waves behind: closed waves, their tasks and their places are gone from it."""
    async with house_in(tmp_path) as house:
        sizes = []
        for n in range(12):
            accept(house, "r", [sure(f"{n}-{i}", heuristics=["h"]) for i in range(20)])
            await finished(house)
            sizes.append(_size(house))
        run = house.journal.ledger.runs["r"]
        assert (run.waves, run.closing, run.where, run.record.awaited) == ({}, {}, {}, {})
        assert house.journal.ledger.open_tasks == 0
        assert sizes[-1] < sizes[2] + 100


async def test_a_run_that_is_idle_says_so_once_its_waves_are_done(tmp_path):
    """`run_idle` follows the last wave, not each."""
    async with house_in(tmp_path) as house:
        accept(house, "r", [sure("a")], [sure("b")])
        await finished(house)
        assert len(entries(house, ev.RunIdled)) == 1


async def test_growing_files_hold_each_lesson_once(tmp_path):
    """Over several waves a run's growing files hold one validation for each started task."""
    async with house_in(tmp_path) as house:
        accept(house, "r", [sure("a"), doomed("b")], [sure("c")])
        await finished(house)
        found = rows(tmp_path / "outputs/r/phase20/prediction_validation_feedback.jsonl")
        assert sorted(row["prediction_id"] for row in found) == ["a", "b", "c"]


async def test_nothing_is_left_running_when_the_house_is_left_without_a_drain(tmp_path):
    """Leaving without a drain ends attempts at once; it does not wait for their natural end."""
    loop = asyncio.get_running_loop()
    engine = Scripted(t="1000")
    async with house_in(tmp_path) as house:
        put_on(house, engine)
        accept(house, "r", [scripted("t", timeout_s=5000)])
        await after(house, 1)
        assert engine.running == 1
        begun = loop.time()
    assert engine.running == 0
    assert loop.time() - begun < 1


def test_final_statuses_are_four():
    """COMPLETED, FAILED, CANCELLED and SKIPPED are final, and nothing else."""
    assert {"COMPLETED", "FAILED", "CANCELLED", "SKIPPED"} == FINAL


class _Witness:
    """An engine that looks, while it performs, at what would survive a power cut."""

    def __init__(self, house) -> None:
        self.house = house
        self.durably_started: dict[str, bool] = {}

    async def perform(self, attempt):
        entries = self.house.journal.lookup.entries()
        starts = {entry.event.task_id for entry in entries if isinstance(entry.event, ev.AttemptStarted)}
        self.durably_started[attempt.task.task_id] = attempt.task.task_id in starts
        return Outcome(success=True)


@pytest.mark.looptime
async def test_a_start_that_may_not_be_repeated_is_durable_before_it_starts(tmp_path: Path) -> None:
    """A task that is not idempotent begins only when its start would survive a power cut; others do not wait for the disk."""
    async with house_in(tmp_path) as house:
        witness = _Witness(house)
        put_on(house, witness, "witness")
        accept(house, "r", [task("once", kind="witness", idempotent=False)])
        await finished(house)
        accept(house, "r", [task("again", kind="witness")])
        await finished(house)
        assert witness.durably_started == {"once": True, "again": False}


@pytest.mark.looptime
async def test_a_start_that_can_be_undone_is_durable_before_it_starts(tmp_path: Path) -> None:
    """What a task with a compensation does is known after a power cut: else it could be SKIPPED then, and stand without an undo."""
    async with house_in(tmp_path) as house:
        witness = _Witness(house)
        put_on(house, witness, "witness")
        accept(house, "r", [task("undone", kind="witness", compensate=Compensation())])
        await finished(house)
        assert witness.durably_started == {"undone": True}


@pytest.mark.looptime
async def test_round_robin_begins_each_wave_with_the_first_agent(tmp_path: Path) -> None:
    """Turns are not carried from wave to wave."""
    async with house_in(tmp_path, configured(manager={"strategy": "round_robin"})) as house:
        accept(house, "r", *[[sure(f"w{wave}-{n}") for n in range(3)] for wave in range(3)])
        await finished(house)
        for wave in range(3):
            assert [assigned(house, f"w{wave}-{n}") for n in range(3)] == [["agent_0"], ["agent_1"], ["agent_2"]]


@pytest.mark.looptime
async def test_an_agents_record_is_over_all_past_waves(tmp_path: Path) -> None:
    """A record is what COMPLETED of what was started and ended, over waves and runs; refusals and cancellations do not count."""
    async with house_in(tmp_path, configured(agents={"count": 1}, retry={"strategy": "no_retry"})) as house:
        (agent,) = house.journal.ledger.present_agents()
        assert agent.record == 1.0
        accept(house, "r", [sure("a"), doomed("b"), task("no", kind="nothing"), sure("risky", risk_level="HIGH")], [sure("c")])
        await finished(house)
        assert agent.record == 2 / 3
        accept(house, "other", [sure("a")])
        await finished(house)
        assert agent.record == 3 / 4


@pytest.mark.looptime
async def test_the_best_record_has_the_first_of_the_next_wave(tmp_path: Path) -> None:
    """`priority_based` gives the most urgent task to the agent whose past waves went best."""
    async with house_in(tmp_path, configured(agents={"count": 2}, manager={"strategy": "priority_based"})) as house:
        accept(
            house, "r", [doomed("bad", agent_id="agent_0"), sure("good", agent_id="agent_1")], [sure("u", priority=1), sure("v")]
        )
        await finished(house)
        assert (assigned(house, "u"), assigned(house, "v")) == (["agent_1"], ["agent_0"])


@pytest.mark.looptime
async def test_success_drops_against_the_last_wave_that_had_a_rate(tmp_path: Path) -> None:
    """A wave of which nothing ended is passed over: the fall is measured from the wave before it, and is the anomaly's value."""
    async with house_in(tmp_path, configured(agents={"count": 1}, retry={"strategy": "no_retry"})) as house:
        accept(house, "r", [sure("a")], [sure("risky", risk_level="HIGH")], [sure("b"), doomed("c"), doomed("d"), doomed("e")])
        await finished(house)
        found = [row for row in rows(tmp_path / "outputs/r/anomalies.jsonl") if row["anomaly_type"] == "success_drop"]
        assert [(row["wave"], row["value"], row["threshold"]) for row in found] == [(3, 0.75, 0.1)]
        told = codec.decode((tmp_path / "outputs/r/phase21_system_health.json").read_bytes())
        assert [(wave["wave"], wave["health_status"]) for wave in told["history"]][1] == (2, "UNKNOWN")
        assert [anomaly["anomaly_type"] for anomaly in told["anomalies"]].count("success_drop") == 1


@pytest.mark.looptime
async def test_figures_are_unrounded_and_times_are_utc(tmp_path: Path) -> None:
    """What is written is what was computed, to the last digit; every time is ISO 8601 and says UTC."""
    rate = 0.6123456789012345
    async with house_in(tmp_path, configured(agents={"count": 1}, retry={"strategy": "no_retry"})) as house:
        accept(house, "r", [sure("a", predicted_success_rate=rate), doomed("b"), doomed("c"), sure("w", risk_level="HIGH")])
        await finished(house)
    run = tmp_path / "outputs/r"
    metrics = {row["metric_name"]: row["value"] for row in rows(run / "wave_1/agent_0/agent_metrics.jsonl")}
    assert metrics["success_rate"] == 1 / 3
    assert rows(run / "wave_1/agent_0/agent_assignments.jsonl")[0]["predicted_success_rate"] == rate
    (held,) = [row for row in rows(run / "phase20/prediction_validation_feedback.jsonl") if row["prediction_id"] == "a"]
    assert held["confidence_delta"] == 1 - rate
    told = [row for path in sorted(run.rglob("*.jsonl")) for row in rows(path)]
    told.append(codec.decode((run / "phase21_execution_summary.json").read_bytes()))
    names = {"assigned_at", "start_time", "end_time", "timestamp", "generated_at", "decided_at"}
    times = [(name, row[name]) for row in told for name in names & row.keys() if row[name] is not None]
    assert {name for name, _ in times} == names
    assert {datetime.fromisoformat(text).utcoffset() for _, text in times} == {timedelta(0)}


@pytest.mark.looptime
async def test_a_signal_about_one_task_is_as_sure_as_the_prediction_was_right(tmp_path: Path) -> None:
    """A validation's delta is absolute, and its confidence is 1 less that; what goes to the planner has the sign."""
    async with house_in(tmp_path, configured(agents={"count": 1}, retry={"strategy": "no_retry"})) as house:
        accept(house, "r", [sure("good", predicted_success_rate=0.75), doomed("bad", predicted_success_rate=0.75)])
        await finished(house)
    run = tmp_path / "outputs/r"
    sent = {
        row["content"]["task_id"]: row
        for row in rows(run / "phase21_learning_signals.jsonl")
        if row["signal_type"] == "prediction_validation"
    }
    assert sent["good"]["content"] == {
        "task_id": "good", "agent_id": "agent_0", "predicted_success": 0.75, "actual_success": 1.0, "delta": 0.25,
        "error_analysis": "as predicted",
    }  # fmt: skip
    assert (sent["bad"]["content"]["delta"], sent["bad"]["content"]["actual_success"]) == (0.75, 0.0)
    assert {name: row["confidence"] for name, row in sent.items()} == {"good": 0.75, "bad": 0.25}
    assert {(row["target_phase"], row["run_id"], row["wave"]) for row in sent.values()} == {(20, "r", 1)}
    said = {row["prediction_id"]: row["confidence_delta"] for row in rows(run / "phase20/prediction_validation_feedback.jsonl")}
    assert said == {"good": 0.25, "bad": -0.75}


async def test_the_runs_own_files_tell_of_every_closed_wave_before_a_long_one_ends(tmp_path):
    """However fast waves followed each other, soon after a wave is closed the run's own files tell of it, after a crash too."""

    def told():
        return [wave["wave"] for wave in codec.decode((tmp_path / "outputs/r" / HEALTH).read_bytes())["history"]]

    async with house_in(tmp_path) as house:
        accept(house, "r", [sure("a")], [sure("b")], [sure("c", payload={"duration_s": 1000})])
        run = house.journal.ledger.runs["r"]
        await house.journal.until(lambda: run.record.closed_waves == 2)
        assert told() == [1], "what is not behind shows nothing here"
    async with house_in(tmp_path) as house:
        await house.journal.caught_up()
        assert told() == [1, 2]
        await finished(house)
        accept(house, "r", [sure("d")], [sure("e")], [sure("f", payload={"duration_s": 1000})])
        run = house.journal.ledger.runs["r"]
        await house.journal.until(lambda: run.record.closed_waves == 5)
        await after(house, 2)
        assert told() == [1, 2, 3, 4, 5]


async def test_a_name_that_utf8_cannot_say_stops_nothing(tmp_path):
    """A row that is set aside in a folder with an undecodable name is recorded with its name spelled out, and the rest goes on."""
    folder = tmp_path / "upstream" / "wave_1" / "agent_\udce9"
    folder.mkdir(parents=True)
    (folder / "predicted_tasks.jsonl").write_bytes(b'{"task_id": "t1"}\n{"task_id": 5}\n')
    async with house_in(tmp_path) as house:
        house.receiver.accept(Submission(run_id="r", submission_id="s", predictions=str(tmp_path / "upstream")))
        await finished(house)
        assert statuses(executed(tmp_path, "r")).keys() == {"t1"}
        refused = entries(house, ev.SubmissionRejected)
        assert [entry.event.file for entry in refused] == ["wave_1/agent_\\udce9/predicted_tasks.jsonl"]


async def torn_after(tmp_path, monkeypatch, *boots, killed_in=None):
    """What stands of a wave's file that was torn in boot `a`, once houses have been opened in these boots."""
    boot = ["a"]
    monkeypatch.setattr("phase21.service.house._boot_id", lambda: boot[0])
    async with house_in(tmp_path) as house:
        accept(house, "r", [sure("t1")])
        await finished(house)
        await house.stop("done", 1.0)
    path = next((tmp_path / "outputs/r/wave_1").glob("*/executed_tasks.jsonl"))
    whole = path.read_bytes()
    path.write_bytes(whole[:10])
    if killed_in is not None:
        async with Journal.opened(tmp_path / "state/journal.db", clock=LoopClock(), inline=True) as journal:
            journal.append(ev.ServiceStarted(pid=1, version="1", boot_id=killed_in))
            await journal.durable()
    for boot[0] in boots:
        async with house_in(tmp_path) as house:
            await house.journal.caught_up()
            await house.stop("done", 1.0)
    return path.read_bytes() == whole


async def test_what_a_power_cut_tore_is_built_again(tmp_path, monkeypatch):
    """Files of waves that closed shortly before the machine went down are built again in its next life, after an orderly stop too."""
    assert await torn_after(tmp_path, monkeypatch, "b")


async def test_files_are_doubted_until_they_are_built_again(tmp_path, monkeypatch):
    """A start that is killed before the files were built again leaves them in doubt for the next one."""
    assert await torn_after(tmp_path, monkeypatch, "b", killed_in="b")


async def test_files_are_not_doubted_within_one_life_of_the_machine(tmp_path, monkeypatch):
    """A start in the same life of the machine reads and writes none of the closed waves' files."""
    assert not await torn_after(tmp_path, monkeypatch, "a")


@pytest.mark.looptime
async def test_the_summary_tells_retries_and_when_the_run_ended(tmp_path: Path) -> None:
    """A run ends with its last wave, and each attempt beyond the first is a retry."""
    async with house_in(tmp_path, configured(agents={"count": 1}, retry={"base_delay": 1.0})) as house:
        accept(house, "r", [doomed("bad", payload={"duration_s": 10}, max_attempts=3)], [sure("good", payload={"duration_s": 7})])
        await finished(house)
    told = codec.decode((tmp_path / "outputs/r/phase21_execution_summary.json").read_bytes())
    assert told["per_agent_metrics"]["agent_0"]["retries"] == 2
    begun, ended = (datetime.fromisoformat(told[name]) for name in ("start_time", "end_time"))
    assert (ended - begun).total_seconds() == pytest.approx(10 + 1 + 10 + 2 + 10 + 7, abs=0.1)


@pytest.mark.looptime
async def test_agents_that_are_configured_no_more_are_not_counted(tmp_path: Path) -> None:
    """After a restart with fewer agents, plan and signals are about those that are there."""
    async with house_in(tmp_path, configured(agents={"count": 3})) as house:
        await after(house, 1)
        await house.stop("test", 1)
    async with house_in(tmp_path, configured(agents={"count": 2})) as house:
        accept(house, "r", [sure("t")])
        await finished(house)
    sent = rows(tmp_path / "outputs/r/phase21_learning_signals.jsonl")
    (signal,) = [row["content"] for row in sent if row["signal_type"] == "multi_agent_coordination"]
    assert (signal["total_agents"], signal["load_distribution"]) == (2, {"agent_0": 1, "agent_1": 0})
    plan = codec.decode((tmp_path / "outputs/r/wave_1/coordination_plan.json").read_bytes())
    assert plan["num_agents"] == 2
