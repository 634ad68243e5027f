"""The run's output folder: what stands in it, when it is written, and that it can be written again."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from phase21.domain import events as ev
from phase21.domain.errors import UnknownRun
from phase21.domain.judgements import AgentMetrics, Anomaly, Grade, Health, Metrics, Severity, Signal, Validation
from phase21.domain.ledger import Ledger
from phase21.domain.plans import Assignment
from phase21.domain.records import RunRecord, WaveRecord
from phase21.domain.runs import tallied
from phase21.domain.settings import CurrentSettings, FeedbackSettings, Settings
from phase21.domain.tasks import Task
from phase21.readers import contents, folders
from phase21.readers.contents import GROWING, contents_of, drained, run_files, wave_digest
from phase21.readers.folders import OutputsMissing, RunFolder, rebuild
from phase21.readers.outputs import Outputs
from phase21.store import codec
from phase21.store.clock import Clock
from phase21.store.journal import Journal

SECOND = 1_000_000
BEGIN_US = 1_700_000_000 * SECOND


def metrics_of(wave: WaveRecord) -> Health:
    """A health whose figures need no evaluation: what is tested here is where they stand."""
    statuses = [record.status for record in wave.tasks.values()]
    metrics = Metrics(
        success_rate=0.5,
        availability=1.0,
        confidence=0.8,
        prediction_error=0.3,
        accuracy=0.7,
        brier_score=0.2,
        load_balance=1.0,
        completed_tasks=statuses.count("COMPLETED"),
        failed_tasks=statuses.count("FAILED"),
        started_tasks=sum(record.started for record in wave.tasks.values()),
    )
    agents = tuple(
        AgentMetrics(
            agent_id=agent_id,
            assigned_tasks=1,
            completed_tasks=1,
            failed_tasks=0,
            success_rate=1.0,
            mean_latency_s=0.25,
            retries=0,
            load=1,
        )
        for agent_id in ("agent_0", "agent_1", "agent_2", "idle_agent")
    )
    return Health(score=75.0 + wave.number, status=Grade.GOOD, metrics=metrics, agents=agents)


def validation(record, agent_id: str) -> Validation:
    return Validation(record.task.task_id, agent_id, record.predicted, record.status == "COMPLETED")


class Story:
    """A run told as events: each is folded, and kept as the journal would."""

    def __init__(self, run_id: str = "nightly") -> None:
        self.run_id = run_id
        self.ledger = Ledger()
        self.entries: list[ev.Entry] = []

    def say(self, event: ev.AnyEvent) -> None:
        entry = ev.Entry(self.ledger.position + 1, BEGIN_US + len(self.entries) * 1237, event)
        self.ledger.fold(entry)
        self.entries.append(entry)

    @property
    def record(self) -> RunRecord:
        return self.ledger.runs[self.run_id].record

    def wave_of(self, number: int) -> WaveRecord:
        return self.ledger.wave(self.run_id, number)

    def open(self, number: int, tasks: list[Task], carried: tuple[str, ...] = ()) -> None:
        if tasks:
            name = f"{self.run_id}-{number}"
            self.say(ev.SubmissionAccepted(submission_id=name, run_id=self.run_id, waves={number: tuple(tasks)}))
        self.say(ev.WaveOpened(run_id=self.run_id, wave=number, carried=carried))

    def assign(self, number: int, *given: tuple[str, str], moved: bool = False) -> None:
        made = tuple(Assignment(task_id, agent_id, 0.8, 0.9) for task_id, agent_id in given)
        event = ev.TasksAssigned(run_id=self.run_id, wave=number, strategy="load_balanced", assignments=made, moved=moved)
        self.say(event)

    def task(self, kind: type, number: int, task_id: str, **fields) -> None:
        self.say(kind(run_id=self.run_id, wave=number, task_id=task_id, **fields))

    def start(self, number: int, task_id: str, agent_id: str, attempt: int = 1) -> None:
        self.task(ev.AttemptStarted, number, task_id, agent_id=agent_id, attempt=attempt, confidence=0.8)

    def end(self, number: int, task_id: str, agent_id: str, *, success: bool = True, attempt: int = 1) -> None:
        if success:
            result = {"said": task_id}
            self.task(ev.TaskCompleted, number, task_id, agent_id=agent_id, attempt=attempt, duration_s=0.25, result=result)
        else:
            self.task(ev.TaskFailed, number, task_id, agent_id=agent_id, attempt=attempt, duration_s=0.25, error_msg="exit 1")

    def plan(self, number: int) -> None:
        self.say(
            ev.WavePlanned(
                run_id=self.run_id,
                wave=number,
                strategy="load_balanced",
                num_agents=2,
                num_tasks=4,
                expected_duration_s=2.0,
                sequential_duration_s=4.0,
                load_balance=1.0,
                planning_s=0.001,
            )
        )

    def judge(self, number: int) -> None:
        """Settle the wave and have it judged: anomaly, health, signals, calibration."""
        run_id, wave = self.run_id, self.wave_of(number)
        self.say(ev.WaveSettled(run_id=run_id, wave=number))
        self.say(
            ev.AnomalyRaised(
                run_id=run_id,
                anomaly=Anomaly(
                    anomaly_type="agent_failure",
                    severity=Severity.HIGH,
                    wave=number,
                    agent_id="agent_1",
                    value=0.1,
                    threshold=0.5,
                    description="agent_1 succeeded in 10 %",
                    recommendation="look at agent_1",
                ),
            )
        )
        self.say(ev.HealthScored(run_id=run_id, wave=number, health=metrics_of(wave)))
        started = [record for record in wave.tasks.values() if record.started and record.status in {"COMPLETED", "FAILED"}]
        checked = tuple(validation(record, record.ran_by) for record in started)
        sent = []
        sent.append(Signal(signal_type="agent_performance", target_phase=18, content={"agent_id": "agent_0"}, confidence=0.5))
        sent.append(Signal(signal_type="multi_agent_coordination", target_phase=18, content={"total_agents": 2}, confidence=0.5))
        self.say(ev.SignalsSent(run_id=run_id, wave=number, signals=tuple(sent), validations=checked))
        hits = sum(record.status == "COMPLETED" for record in started if "h1" in record.task.heuristics)
        samples = sum("h1" in record.task.heuristics for record in started)
        gained = {"h1": (hits, samples)} if samples else {}
        self.say(ev.PredictionsCalibrated(run_id=run_id, wave=number, agents={}, heuristics=gained))

    def write(self, number: int, folder: RunFolder, digests: list[bytes]) -> None:
        """What the reader does with a judged wave."""
        wave = self.wave_of(number)
        sizes = written(folder, wave, self.record)
        digest = drained(wave_digest(wave, self.record))
        digests.append(digest)
        folder.put_run_files(run_files(tallied(self.record, wave), digests))
        self.say(ev.OutputsWritten(run_id=self.run_id, wave=number, sizes=sizes, digest=msgspec.Raw(digest)))


def written(folder: RunFolder, wave: WaveRecord, run: RunRecord) -> dict[str, int]:
    """The growing files' sizes once a judged wave stands."""
    return folder.put(drained(contents_of(wave, run)), run.sizes)


def told(folder: RunFolder, run_id: str = "nightly") -> Story:
    """A run of two waves with every kind of ending, written as it goes."""
    story, digests = Story(run_id), []
    tasks = [Task(task_id=f"t{n}", heuristics=("h1",)) for n in range(5)]
    story.open(1, [*tasks, Task(task_id="never"), Task(task_id="later", predicted_success_rate=0.7)])
    story.assign(1, ("t0", "agent_0"), ("t1", "agent_1"), ("t2", "agent_0"), ("t3", "agent_1"), ("t4", "agent_0"))
    story.assign(1, ("later", "agent_1"))
    story.plan(1)
    story.start(1, "t0", "agent_0")
    story.end(1, "t0", "agent_0")
    story.start(1, "t1", "agent_1")
    failed = {"agent_id": "agent_1", "attempt": 1, "error_msg": "slow", "delay_s": 0.1, "duration_s": 0.5}
    story.task(ev.AttemptFailed, 1, "t1", **failed, timed_out=True, elsewhere=True)
    story.assign(1, ("t1", "agent_0"), moved=True)
    story.start(1, "t1", "agent_0", 2)
    story.end(1, "t1", "agent_0", attempt=2)
    story.start(1, "t2", "agent_0")
    story.end(1, "t2", "agent_0", success=False)
    story.start(1, "t3", "agent_1")
    story.task(ev.AttemptFailed, 1, "t3", **failed, timed_out=True, elsewhere=True)
    story.assign(1, ("t3", "agent_2"), moved=True)
    story.task(ev.TaskCancelled, 1, "t3", agent_id="agent_2")
    story.task(ev.TaskCancelled, 1, "t4", agent_id="agent_0")
    story.task(ev.TaskCancelled, 1, "never")
    story.task(ev.TaskDeferred, 1, "later", agent_id="agent_1", attempt=1, reason="needs approval", confidence=0.7)
    story.judge(1)
    story.write(1, folder, digests)
    story.say(ev.ControlReceived(submission_id="yes", run_id=run_id, control="approve", task_ids=("later",)))
    story.open(2, [Task(task_id="next", heuristics=("h1",))], carried=("later",))
    story.assign(2, ("next", "agent_0"), ("later", "agent_0"))
    story.plan(2)
    for task_id in ("next", "later"):
        story.start(2, task_id, "agent_0")
        story.end(2, task_id, "agent_0")
    story.judge(2)
    story.write(2, folder, digests)
    story.say(ev.RunIdled(run_id=run_id))
    return story


def tree(path: Path) -> dict[str, bytes]:
    """Every file under a folder, by its path within it."""
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def lines(path: Path) -> list[dict]:
    data = path.read_bytes()
    assert not data or data.endswith(b"\n")
    return [codec.decode(line) for line in data.splitlines()]


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "outputs", "nightly", FeedbackSettings())


FIELDS = {
    "wave_1/agent_0/agent_assignments.jsonl": (
        "task_id agent_id predicted_success_rate raw_predicted_success_rate assigned_at wave strategy"
    ),
    "wave_1/agent_0/executed_tasks.jsonl": (
        "task_id agent_id wave status success attempts start_time end_time duration_s predicted_success_rate error_msg result"
    ),
    "wave_1/agent_0/agent_metrics.jsonl": "agent_id metric_name value timestamp wave",
    "wave_1/agent_0/agent_feedback.jsonl": "signal_type target_phase content confidence generated_at run_id wave",
    "phase21_learning_signals.jsonl": "signal_type target_phase content confidence generated_at run_id wave",
    "safety_gate_decisions.jsonl": "task_id agent_id wave attempt verdict gate reason confidence risk_level decided_at",
    "anomalies.jsonl": "anomaly_type severity wave agent_id value threshold description recommendation timestamp",
    "phase16/heuristic_feedback.jsonl": "heuristic_id accuracy error_rate improvement samples wave",
    "phase18/coordination_feedback.jsonl": "agent_id wave performance_score coordination_issues",
    "phase20/prediction_validation_feedback.jsonl": (
        "prediction_id agent_id wave predicted_success actual_success confidence_delta error_analysis"
    ),
}


@pytest.mark.parametrize("name", FIELDS)
def test_line_files_have_the_contracts_fields(folder: RunFolder, name: str) -> None:
    """Every line of every file has the fields of the contract, and no other."""
    told(folder)
    found = lines(folder.path / name)
    assert found
    assert {frozenset(row) for row in found} == {frozenset(FIELDS[name].split())}


def test_json_files_have_the_contracts_fields(folder: RunFolder) -> None:
    """The plan, the health and the summary have the fields of the contract, and no other."""
    told(folder)
    plan = codec.decode((folder.path / "wave_1/coordination_plan.json").read_bytes())
    assert plan.pop("actual_duration_s") > 0
    assert plan == {
        "wave": 1,
        "strategy": "load_balanced",
        "num_agents": 2,
        "num_tasks": 4,
        "expected_duration_s": 2.0,
        "sequential_duration_s": 4.0,
        "parallelization_factor": 2.0,
        "load_balance": 1.0,
        "planning_s": 0.001,
    }
    health = codec.decode((folder.path / contents.HEALTH).read_bytes())
    entry = {"wave", "health_score", "health_status", "metrics", "anomalies", "causes"}
    assert set(health) == entry | {"history"}
    assert [set(past) for past in health["history"]] == [entry, entry]
    assert (health["wave"], health["health_score"]) == (2, 77.0)
    assert [past["health_score"] for past in health["history"]] == [76.0, 77.0]
    assert set(health["metrics"]) == set(Metrics.__struct_fields__)
    assert health["anomalies"][0]["anomaly_type"] == "agent_failure"


def test_summary_counts_the_run(folder: RunFolder) -> None:
    """The summary counts final outcomes over closed waves, and each agent's part."""
    story = told(folder)
    summary = codec.decode((folder.path / contents.SUMMARY).read_bytes())
    agents = summary.pop("per_agent_metrics")
    assert summary.pop("start_time") == "2023-11-14T22:13:20.000000+00:00"
    assert summary.pop("end_time") > "2023-11-14T22:13:20"
    assert summary == {
        "run_id": "nightly",
        "total_tasks": 8,
        "completed_tasks": 4,
        "failed_tasks": 1,
        "deferred_tasks": 0,
        "cancelled_tasks": 3,
        "waves": 2,
        "success_rate": 0.8,
        "system_health": 77.0,
    }
    assert agents["agent_0"] == {
        "assigned_tasks": 6,
        "completed_tasks": 4,
        "failed_tasks": 1,
        "success_rate": 0.8,
        "mean_latency_s": 0.25,
        "retries": 1,
    }
    assert (agents["agent_1"]["success_rate"], agents["agent_2"]["mean_latency_s"]) == (None, None)
    assert story.record.counts == {"COMPLETED": 4, "FAILED": 1, "CANCELLED": 3}


def test_rows_stand_under_the_agent_of_the_last_attempt(folder: RunFolder) -> None:
    """A final row stands once, under the agent of the last attempt; what never had an agent under `unassigned`."""
    told(folder)
    where = {
        (row["task_id"], row["status"], row["agent_id"]): path.parent.name
        for path in sorted(folder.path.glob("wave_1/*/executed_tasks.jsonl"))
        for row in lines(path)
    }
    assert where == {
        ("t0", "COMPLETED", "agent_0"): "agent_0",
        ("t1", "COMPLETED", "agent_0"): "agent_0",
        ("t2", "FAILED", "agent_0"): "agent_0",
        ("t3", "CANCELLED", "agent_1"): "agent_1",
        ("t4", "CANCELLED", "agent_0"): "agent_0",
        ("later", "DEFERRED", "agent_1"): "agent_1",
        ("never", "CANCELLED", None): "unassigned",
    }
    assert [path.name for path in (folder.path / "wave_1/unassigned").iterdir()] == ["executed_tasks.jsonl"]
    moved = [path.parent.name for path in folder.path.glob("wave_1/*/agent_assignments.jsonl") if b'"t1"' in path.read_bytes()]
    assert sorted(moved) == ["agent_0", "agent_1"]
    assert not (folder.path / "wave_1/idle_agent").exists()


def test_rows_say_null_where_nothing_ran(folder: RunFolder) -> None:
    """Success, times and duration are null where there is nothing that they could say."""
    told(folder)
    rows = {row["task_id"]: row for path in folder.path.glob("wave_1/*/executed_tasks.jsonl") for row in lines(path)}
    never = rows["never"]
    assert (never["success"], never["start_time"], never["end_time"], never["duration_s"]) == (None, None, None, None)
    assert (never["attempts"], never["predicted_success_rate"], never["error_msg"]) == (0, 0.85, "cancelled")
    assert (rows["t0"]["success"], rows["t2"]["success"], rows["later"]["success"]) == (True, False, None)
    assert rows["t0"]["start_time"] < rows["t0"]["end_time"]
    assert rows["t0"]["result"] == {"said": "t0"}
    assert (rows["t3"]["duration_s"], rows["t3"]["success"]) == (0.5, None)


def test_a_deferred_row_stays_where_it_was_made(folder: RunFolder) -> None:
    """Once approved, the task has its final row in the later wave, and the deferred one stands as before."""
    told(folder)
    found = [
        (path.parts[-3], row["status"])
        for path in sorted(folder.path.glob("wave_*/*/executed_tasks.jsonl"))
        for row in lines(path)
        if row["task_id"] == "later"
    ]
    assert found == [("wave_1", "DEFERRED"), ("wave_2", "COMPLETED")]


def test_metrics_and_feedback_of_an_agent(folder: RunFolder) -> None:
    """An agent's folder has one line for each figure, and the very lines of the signals that name the agent."""
    told(folder)
    names = [row["metric_name"] for row in lines(folder.path / "wave_1/agent_1/agent_metrics.jsonl")]
    expected = "assigned_tasks completed_tasks failed_tasks success_rate mean_latency_s retries load"
    assert names == expected.split()
    feedback = (folder.path / "wave_1/agent_0/agent_feedback.jsonl").read_bytes().splitlines()
    signals = (folder.path / contents.SIGNALS).read_bytes().splitlines()
    assert len(feedback) == 4
    assert feedback == [line for line in signals if b'"wave":1' in line and b'"agent_id":"agent_0"' in line]


def test_validation_subtracts_predicted_from_actual(folder: RunFolder) -> None:
    """`confidence_delta` is actual less predicted, with its sign."""
    told(folder)
    rows = {row["prediction_id"]: row for row in lines(folder.path / contents.VALIDATION)}
    assert set(rows) == {"t0", "t1", "t2", "next", "later"}
    assert rows["t0"]["confidence_delta"] == pytest.approx(0.2)
    assert rows["t2"]["confidence_delta"] == pytest.approx(-0.8)


def test_improvement_leaves_this_wave_out(folder: RunFolder) -> None:
    """A heuristic's improvement compares with the waves before only, and is null at first."""
    told(folder)
    first, second = lines(folder.path / contents.HEURISTICS)
    assert (first["wave"], first["improvement"], first["samples"]) == (1, None, 3)
    assert second["improvement"] == pytest.approx(1 - 2 / 3)


def test_everything_is_private(folder: RunFolder) -> None:
    """Nothing under the outputs can be read by others."""
    told(folder)
    for path in [folder.path, *folder.path.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)


def test_an_interrupted_writing_is_mended(folder: RunFolder) -> None:
    """Whatever a crash left of a wave, writing it again gives what it would have been, no line twice and none torn."""
    story = told(folder)
    whole = tree(folder.path)
    for torn in (0, 7, 10**9):
        for name in GROWING:
            path = folder.path / name
            path.write_bytes(path.read_bytes() + whole[name][:torn])
        again = Story()
        for entry in story.entries:
            if isinstance(entry.event, ev.OutputsWritten) and entry.event.wave == 2:
                break
            again.ledger.fold(entry)
        again.entries = list(story.entries)
        assert written(folder, again.wave_of(2), again.record) == story.record.sizes
        assert tree(folder.path) == whole


def test_a_shorter_file_is_missed(folder: RunFolder) -> None:
    """Where a growing file lost what was written to it, nothing is added to any, and the caller is told."""
    story = told(folder)
    os.truncate(folder.path / contents.VALIDATION, 10)
    before = tree(folder.path)
    story.open(3, [Task(task_id="more")])
    story.task(ev.TaskCancelled, 3, "more")
    story.judge(3)
    with pytest.raises(OutputsMissing):
        written(folder, story.wave_of(3), story.record)
    after = tree(folder.path)
    assert {name: after[name] for name in GROWING} == {name: before[name] for name in GROWING}


def test_a_settled_waves_files_never_change(folder: RunFolder) -> None:
    """The files of wave 1 are the same after wave 2, and those of the run begin with what stood there."""
    seen: list[dict[str, bytes]] = []
    plain = RunFolder.put_run_files

    class Watched(RunFolder):
        def put_run_files(self, contents):
            plain(self, contents)
            seen.append(tree(self.path))

    told(Watched(folder.root, "nightly", FeedbackSettings()))
    first, second = seen
    assert {name: data for name, data in second.items() if name.startswith("wave_1/")} == {
        name: data for name, data in first.items() if name.startswith("wave_1/")
    }
    assert all(second[name].startswith(first[name]) for name in GROWING)


# -- other folders -------------------------------------------------------------------------------------------------------


def test_feedback_goes_to_other_folders_too(tmp_path: Path) -> None:
    """The neighbours' folders get the same lines, those of several runs one behind the other, each once."""
    extra = FeedbackSettings(
        phase16_dir=str(tmp_path / "p16"), phase18_dir=str(tmp_path / "p18"), phase20_dir=str(tmp_path / "p20")
    )
    one, two = RunFolder(tmp_path / "out", "one", extra), RunFolder(tmp_path / "out", "two", extra)
    told(one, "one")
    told(two, "two")
    for name, folder in ((contents.HEURISTICS, "p16"), (contents.COORDINATION, "p18"), (contents.VALIDATION, "p20")):
        expected = (one.path / name).read_bytes() + (two.path / name).read_bytes()
        assert (tmp_path / folder / Path(name).name).read_bytes() == expected


@pytest.mark.parametrize("standing", [b"", b'{"a"', b'{"a":1}\n'])
def test_sending_again_repairs_and_repeats_nothing(tmp_path: Path, standing: bytes) -> None:
    """A wave's lines that were sent in part or whole before a crash stand in the neighbour's file once."""
    path = tmp_path / "feedback.jsonl"
    folders._send(path, "run/1", b'{"b":0}\n')
    folders._send(path, "run/2", b'{"a":1}\n')
    os.truncate(path, 8 + len(standing))
    folders._send(path, "run/2", b'{"a":1}\n')
    assert path.read_bytes() == b'{"b":0}\n{"a":1}\n'


def test_sending_survives_a_rotation(tmp_path: Path) -> None:
    """A neighbour who takes the file away loses nothing that comes after."""
    path = tmp_path / "feedback.jsonl"
    folders._send(path, "run/1", b'{"a":1}\n')
    path.unlink()
    folders._send(path, "run/2", b'{"a":2}\n')
    assert path.read_bytes() == b'{"a":2}\n'


# -- building again ------------------------------------------------------------------------------------------------------


def test_rebuild_gives_the_same_bytes(folder: RunFolder, tmp_path: Path) -> None:
    """A folder built from the entries alone equals the one that grew, byte for byte, in place or elsewhere."""
    story = told(folder)
    live = tree(folder.path)
    other = RunFolder(tmp_path / "elsewhere", "nightly", FeedbackSettings())
    rebuild("nightly", story.entries, other)
    assert tree(other.path) == live
    (folder.path / contents.SUMMARY).unlink()
    (folder.path / "wave_1/agent_0/executed_tasks.jsonl").write_bytes(b"torn")
    (folder.path / "wave_9").mkdir()
    rebuild("nightly", story.entries, folder)
    assert tree(folder.path) == live
    assert [path.name for path in folder.root.iterdir()] == ["nightly"]


def test_rebuild_passes_over_other_runs_and_lost_agents(folder: RunFolder, tmp_path: Path) -> None:
    """Entries of other runs, and of agents that joined before the first entry at hand, do not disturb."""
    story = told(folder)
    other = told(RunFolder(tmp_path / "x", "other", FeedbackSettings()), "other")
    gone = ev.Entry(10**6, BEGIN_US, ev.AgentWentOffline(agent_id="nobody", cause="stuck", run_id="nightly", wave=1))
    mixed = [*other.entries, story.entries[0], gone, *story.entries[1:]]
    rebuild("nightly", mixed, RunFolder(tmp_path / "y", "nightly", FeedbackSettings()))
    assert tree(tmp_path / "y/nightly") == tree(folder.path)


def test_rebuild_after_every_entry(folder: RunFolder, tmp_path: Path) -> None:
    """Cut after any entry, the journal gives a folder of whole lines that the full one continues."""
    story = told(folder)
    live = tree(folder.path)
    for cut in range(1, len(story.entries) + 1):
        part = RunFolder(tmp_path / "part", "nightly", FeedbackSettings())
        rebuild("nightly", story.entries[:cut], part)
        for name, data in tree(part.path).items():
            if name.startswith("wave_"):
                assert live[name] == data
            elif name in GROWING:
                assert live[name].startswith(data)


def test_rebuild_keeps_what_a_person_put_there(folder: RunFolder) -> None:
    """Files in the folder that are not ours stay."""
    story = told(folder)
    (folder.path / "notes.txt").write_text("mine")
    rebuild("nightly", story.entries, folder)
    assert (folder.path / "notes.txt").read_text() == "mine"


def test_rebuild_goes_on_after_a_crash_in_the_swap(folder: RunFolder) -> None:
    """A crash between taking the old folder away and putting the new one there loses neither."""
    story = told(folder)
    live = tree(folder.path)
    (folder.path / "notes.txt").write_text("mine")
    folder.path.rename(folder.root / ".nightly.old")
    rebuild("nightly", story.entries, folder)
    assert tree(folder.path) == live | {"notes.txt": b"mine"}


def test_rebuild_of_an_unknown_run(folder: RunFolder) -> None:
    """An unknown run is told apart from an empty one, and leaves nothing behind."""
    with pytest.raises(UnknownRun, match="nightly"):
        rebuild("nightly", [], folder)
    assert list(folder.root.iterdir()) == []


# -- any wave ------------------------------------------------------------------------------------------------------------

ENDINGS = ["completed", "failed", "retried", "moved", "moved_cancelled", "refused", "waiting_cancelled", "deferred", "interrupted"]
AGENTS = ["agent_0", "agent_1", "agent_2"]


def carry_out(story: Story, task_id: str, ending: str, agent_id: str, other: str) -> str | None:
    """Tell one task's way to its ending; gives the agent under which its row belongs."""
    retry = {"agent_id": agent_id, "attempt": 1, "error_msg": "no", "delay_s": 0.0, "duration_s": 0.1}
    if ending == "waiting_cancelled":
        story.task(ev.TaskCancelled, 1, task_id)
        return None
    story.assign(1, (task_id, agent_id))
    if ending == "refused":
        story.task(ev.TaskFailed, 1, task_id, error_msg="safety: no", agent_id=agent_id, attempt=1, gate="validation")
        return agent_id
    if ending == "deferred":
        story.task(ev.TaskDeferred, 1, task_id, agent_id=agent_id, attempt=1, reason="approval")
        return agent_id
    story.start(1, task_id, agent_id)
    if ending == "interrupted":
        story.task(ev.TaskInterrupted, 1, task_id, agent_id=agent_id, attempt=1)
        story.start(1, task_id, agent_id, 2)
    elif ending not in {"completed", "failed"}:
        story.task(ev.AttemptFailed, 1, task_id, **retry)
        if ending.startswith("moved"):
            story.assign(1, (task_id, other), moved=True)
        if ending == "moved_cancelled":
            story.task(ev.TaskCancelled, 1, task_id, agent_id=other)
            return agent_id
        agent_id = other if ending == "moved" else agent_id
        story.start(1, task_id, agent_id, 2)
    story.end(1, task_id, agent_id, success=ending != "failed", attempt=2)
    return agent_id


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(ENDINGS), st.sampled_from(AGENTS), st.sampled_from(AGENTS)), min_size=1, max_size=12))
def test_every_task_has_one_row(tmp_path: Path, ways: list[tuple[str, str, str]]) -> None:
    """Whatever happens in a wave, each of its tasks has exactly one row, under its last attempt's agent, for ever."""
    root = tmp_path / "any"
    shutil.rmtree(root, ignore_errors=True)
    folder, story = RunFolder(root, "nightly", FeedbackSettings()), Story()
    story.open(1, [Task(task_id=f"t{n}") for n in range(len(ways))])
    expected = {f"t{n}": carry_out(story, f"t{n}", *way) for n, way in enumerate(ways)}
    story.judge(1)
    story.write(1, folder, [])
    found = [
        (row["task_id"], path.parent.name, row["agent_id"])
        for path in folder.path.glob("wave_1/*/executed_tasks.jsonl")
        for row in lines(path)
    ]
    assert sorted(found) == sorted((task_id, agent_id or "unassigned", agent_id) for task_id, agent_id in expected.items())
    live = tree(folder.path)
    rebuild("nightly", story.entries, folder)
    assert tree(folder.path) == live


# -- the reader ----------------------------------------------------------------------------------------------------------


class TestReader:
    """Outputs, over a real journal."""

    @staticmethod
    def replay(journal: Journal, story: Story, wave: int) -> None:
        """Append a told wave's events up to its judgement."""
        closed = 0
        for entry in story.entries:
            if isinstance(entry.event, ev.OutputsWritten):
                closed += 1
            elif closed == wave - 1:
                journal.append(entry.event)

    @staticmethod
    async def closed(journal: Journal, waves: int) -> None:
        async with asyncio.timeout(10):
            await journal.until(lambda: journal.ledger.runs["nightly"].record.closed_waves == waves)

    async def test_waves_are_written_and_closed(self, tmp_path: Path, folder: RunFolder) -> None:
        """A judged wave's files stand before it is closed, and what the reader wrote can be rebuilt."""
        story = told(folder)
        async with Journal.opened(tmp_path / "journal", inline=True) as journal, asyncio.TaskGroup() as group:
            reader = Outputs(journal, tmp_path / "live", CurrentSettings(Settings()))
            task = group.create_task(reader.run())
            for wave in (1, 2):
                self.replay(journal, story, wave)
                await self.closed(journal, wave)
            live = tree(tmp_path / "live/nightly")
            assert set(live) == set(tree(folder.path))
            assert codec.decode(live[contents.SUMMARY])["waves"] == 2
            assert len(codec.decode(live[contents.HEALTH])["history"]) == 2
            await journal.durable()
            assert [number for number, _ in journal.lookup.waves("nightly")] == [1, 2]
            await reader.rebuild("nightly")
            assert tree(tmp_path / "live/nightly") == live
            task.cancel()

    async def test_a_wave_judged_before_a_restart_is_written(self, tmp_path: Path, folder: RunFolder) -> None:
        """What was judged and not closed when the process ended is written at the next start."""
        story = told(folder)
        async with Journal.opened(tmp_path / "journal", inline=True) as journal:
            self.replay(journal, story, 1)
        async with Journal.opened(tmp_path / "journal", inline=True) as journal, asyncio.TaskGroup() as group:
            task = group.create_task(Outputs(journal, tmp_path / "live", CurrentSettings(Settings())).run())
            await self.closed(journal, 1)
            assert (tmp_path / "live/nightly/wave_1/agent_0/executed_tasks.jsonl").stat().st_size
            task.cancel()

    async def test_a_lost_file_has_the_run_built_again(self, tmp_path: Path, folder: RunFolder) -> None:
        """Where what was written has gone, the next wave brings all of it back."""
        story = told(folder)
        async with Journal.opened(tmp_path / "journal", inline=True) as journal, asyncio.TaskGroup() as group:
            task = group.create_task(Outputs(journal, tmp_path / "live", CurrentSettings(Settings())).run())
            self.replay(journal, story, 1)
            await self.closed(journal, 1)
            first = tree(tmp_path / "live/nightly/wave_1")
            shutil.rmtree(tmp_path / "live")
            self.replay(journal, story, 2)
            await self.closed(journal, 2)
            assert tree(tmp_path / "live/nightly/wave_1") == first
            sizes = journal.ledger.runs["nightly"].record.sizes
            assert {name: (tmp_path / "live/nightly" / name).stat().st_size for name in GROWING} == sizes
            task.cancel()

    async def test_disk_trouble_is_told_once_and_waited_out(self, tmp_path: Path, folder: RunFolder) -> None:
        """While the disk refuses, the reader says so once and tries again; nothing is lost when it takes files again."""
        story, told_of = told(folder), []
        root = tmp_path / "live"
        root.write_text("in the way")

        class Mending(Clock):
            slept = 0

            async def sleep(self, delay_s: float) -> None:
                self.slept += 1
                if self.slept == 3:
                    root.unlink()

        clock = Mending()
        async with Journal.opened(tmp_path / "journal", clock=clock, inline=True) as journal, asyncio.TaskGroup() as group:
            journal.on_trouble = lambda name, error: told_of.append((name, error is None))
            task = group.create_task(Outputs(journal, root, CurrentSettings(Settings())).run())
            self.replay(journal, story, 1)
            await self.closed(journal, 1)
            assert clock.slept == 3
            assert told_of == [("outputs", False), ("outputs", True)]
            assert (root / "nightly/wave_1/coordination_plan.json").exists()
            task.cancel()

    @pytest.mark.looptime
    async def test_run_files_are_spared_while_waves_follow_fast(self, tmp_path: Path, monkeypatch) -> None:
        """The run's own files are written with the first wave and the last, and not for each of a fast row between."""
        written: list[int] = []
        plain = RunFolder.put_run_files

        def put(folder: RunFolder, made: dict[str, bytes]) -> None:
            written.append(codec.decode(made[contents.SUMMARY])["waves"])
            plain(folder, made)

        monkeypatch.setattr(RunFolder, "put_run_files", put)
        monkeypatch.setattr("phase21.readers.outputs.REFRESH_LEAST_S", 1.0)
        async with Journal.opened(tmp_path / "journal", inline=True) as journal, asyncio.TaskGroup() as group:
            task = group.create_task(Outputs(journal, tmp_path / "live", CurrentSettings(Settings())).run())
            waves = {number: (Task(task_id=f"t{number}"),) for number in range(1, 6)}
            journal.append(ev.SubmissionAccepted(submission_id="s", run_id="nightly", waves=waves))
            for number in waves:
                story = Story()
                story.ledger.fold(ev.Entry(1, 1, ev.SubmissionAccepted(submission_id="s", run_id="nightly", waves=waves)))
                story.open(number, [])
                story.task(ev.TaskCancelled, number, f"t{number}")
                story.judge(number)
                for entry in story.entries:
                    journal.append(entry.event)
                await self.closed(journal, number)
            assert written == [1, 5]
            assert len(codec.decode((tmp_path / "live/nightly" / contents.HEALTH).read_bytes())["history"]) == 5
            task.cancel()
