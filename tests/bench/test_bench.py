"""The benchmark gives every figure, judges by its bounds, and compares with loops that do what they say."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sqlite3
import sys
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from phase21 import bench
from phase21.bench import bounds, daemon, folders, measure, reference, report, stages, workloads
from phase21.cli import phase21
from phase21.domain.errors import Phase21Error, UsageError
from phase21.engines import switchboard
from phase21.store import codec


def bound(**changes):
    given = {"workload": "w", "label": "l", "unit": "s", "value": "v", **changes}
    return bounds.Bound(**given)


# -- the reference -------------------------------------------------------------------------------------------------------


async def test_reference_keeps_three_rows_a_task(tmp_path):
    """The durable reference loop leaves three rows for each task of each wave: assigned, started, completed."""
    path = tmp_path / "least.db"
    spent = await reference.waves([5, 7], 3, reference.LeastStore(path))
    with contextlib.closing(sqlite3.connect(path)) as read:
        rows = read.execute("SELECT event, count(*) FROM journal GROUP BY event").fetchall()
    assert dict(rows) == {"assigned": 12, "started": 12, "completed": 12}
    assert len(spent) == 2


async def test_reference_is_durable(tmp_path):
    """The reference commits as the journal does: write-ahead log, synced at each commit."""
    store = reference.LeastStore(tmp_path / "least.db")
    assert store._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert store._connection.execute("PRAGMA synchronous").fetchone() == (2,)


async def test_reference_deals_over_its_agents(tmp_path):
    """The reference deals its tasks evenly over its agents."""
    path = tmp_path / "least.db"
    await reference.waves([8], 4, reference.LeastStore(path))
    with contextlib.closing(sqlite3.connect(path)) as read:
        rows = read.execute("SELECT agent_id, count(*) FROM journal GROUP BY agent_id").fetchall()
    assert dict(rows) == {f"agent_{n}": 6 for n in range(4)}


# -- the workloads -------------------------------------------------------------------------------------------------------


async def test_waves_are_carried_out_with_their_files(tmp_path, monkeypatch):
    """What is timed is the whole: every task completed, and every wave's files written before the clock stops."""
    monkeypatch.setattr(folders, "fresh", lambda: tmp_path)
    spent = await workloads.waves([20, 30])
    assert len(spent) == 2
    rows = [
        line for path in tmp_path.glob("outputs/bench/wave_[23]/*/executed_tasks.jsonl") for line in path.read_bytes().splitlines()
    ]
    assert len(rows) == 50
    assert all(codec.decode(row)["status"] == "COMPLETED" for row in rows)


async def test_growth_compares_early_waves_with_late_ones(tmp_path, monkeypatch):
    """The waves from the second on of a new house are timed in turns with the last ones of a long run."""
    told = []

    async def timed(house, number):
        told.append((house, number))
        return float(number)

    monkeypatch.setattr(workloads, "_whole", timed)
    monkeypatch.setattr(folders, "fresh", lambda: Path(tempfile.mkdtemp(dir=tmp_path)))
    early, late = await workloads._early_and_late(9)
    new, old = told[0][0], told[1][0]
    assert told == [(new, 1), *((old, n) for n in range(1, 7)), (new, 2), (old, 7), (new, 3), (old, 8), (new, 4), (old, 9)]
    assert (early, late) == (3.0, 8.0)


@pytest.mark.parametrize("name", ["throughput", "latency", "cost"])
def test_a_workload_gives_all_that_is_shown_of_it(name, tmp_path):
    """Quick or full, a workload that runs in a process of its own answers with every value that its bounds name."""
    sample = measure.one(name, tmp_path, quick=True)
    wanted = [one for one in bounds.BOUNDS if one.workload == name]
    for one in wanted:
        for value in (one.value, one.reference, one.judged):
            assert value is None or sample[value] > 0


def test_the_real_processes_give_all_that_is_shown_of_them(tmp_path):
    """Cold start is measured on real processes, and its ratios follow from its times."""
    sample = measure.one("cold_start", tmp_path, quick=True)
    assert sample["help_ratio"] == pytest.approx(sample["help_ms"] / sample["reference_ms"])
    assert sample["run_ratio"] == pytest.approx(sample["run_ms"] / sample["reference_ms"])


def test_every_bound_names_a_workload():
    """What is shown is measured by a workload of that name, and no workload goes unseen."""
    assert {one.workload for one in bounds.BOUNDS} == set(workloads.WORKLOADS)
    assert measure.chosen(None) == measure.NAMES


# -- measuring -----------------------------------------------------------------------------------------------------------


def test_repetitions(monkeypatch):
    """Throughput is measured five times, the others three, what repeats within itself once; quick measures all once."""
    monkeypatch.setattr(measure, "one", lambda name, folder, *, quick: {"name": name, "quick": quick})
    steps = []
    found, wrong = measure.measured(("throughput", "growth", "recovery"), quick=False, progress=lambda *step: steps.append(step))
    assert not wrong
    assert [len(samples) for samples in found.values()] == [5, 3, 1]
    assert steps[0] == ("throughput", 0, 9)
    assert steps[-1] == ("", 9, 9)
    found, _ = measure.measured(("throughput",), quick=True, progress=lambda *_: None)
    assert [len(samples) for samples in found.values()] == [1]


def test_what_cannot_be_measured_does_not_hide_the_rest(monkeypatch):
    """A workload that fails is not tried again; the others are shown, and the error is told at the end."""
    figures = {"tasks_per_s": 1.0, "us_per_task": 1e6, "reference_tasks_per_s": 1e6, "reference_us_per_task": 1.0, "ratio": 1e-6}
    tried = []

    def one(name, _folder, *, quick):
        tried.append(name)
        if name != "throughput":
            raise Phase21Error(f"bench {name}: it broke")
        return figures

    monkeypatch.setattr(measure, "one", one)
    done = CliRunner().invoke(phase21, ["bench"], standalone_mode=False)
    assert done.exit_code == 2
    assert "; bench recovery: it broke" in done.stderr
    assert "1,000,000 µs" in done.stdout
    assert "recovery" not in done.stdout
    assert tried.count("throughput") == 5
    assert tried.count("growth") == 1


def test_a_workload_that_fails_is_said(monkeypatch, tmp_path):
    """A workload that ends with an error is told by name, with the last line that it said."""
    monkeypatch.setattr(sys, "executable", "false")
    with pytest.raises(Phase21Error, match="bench growth: exit status 1: it said nothing"):
        measure.one("growth", tmp_path, quick=True)


def test_a_workload_that_hangs_is_ended(monkeypatch, tmp_path):
    """A workload that does not answer in time is ended with all that it started."""
    hanging = tmp_path / "hanging"
    hanging.write_text("#!/bin/sh\nexec sleep 60\n")
    hanging.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(hanging))
    monkeypatch.setattr(measure, "TIMEOUT_S", 0.05)
    with pytest.raises(Phase21Error, match="no answer within"):
        measure.one("growth", tmp_path, quick=True)


def test_an_unknown_measurement_is_refused():
    """`--only` with a name that is none says which there are."""
    with pytest.raises(UsageError, match="there are throughput, growth"):
        measure.chosen("speed")


# -- judging -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("judged", "at_least", "ok"), [(2.0, False, True), (2.1, False, False), (2.0, True, True), (1.9, True, False)]
)
def test_a_bound_itself_is_reached(judged, at_least, ok):
    """A figure at its bound is ok; beyond it, on the wrong side, it is short."""
    figure = bounds.figure_of(bound(judged="r", must=2.0, at_least=at_least), [{"v": 1.0, "r": judged}])
    assert figure.ok is ok


def test_figures_are_medians():
    """A figure is the median of its samples, each value by itself."""
    samples = [{"v": 1.0, "r": 30.0}, {"v": 9.0, "r": 10.0}, {"v": 2.0, "r": 20.0}]
    figure = bounds.figure_of(bound(reference="r"), samples)
    assert (figure.measured, figure.reference, figure.ok) == (2.0, 20.0, None)


# -- showing -------------------------------------------------------------------------------------------------------------

SAMPLES = {"w": [{"v": 0.5, "r": 3.0}], "cost": [{"cpu_us": 40.0, "stages": {"gates": 30.0, "engine": 10.0}}]}
FIGURES = [
    bounds.figure_of(bound(reference="r", judged="r", must=2.0, stretch=1.0), SAMPLES["w"]),
    bounds.figure_of(bound(label="memory", unit="MiB", judged="v", must=2048.0), SAMPLES["w"]),
    bounds.figure_of(bound(label="shown only"), SAMPLES["w"]),
]


def test_the_table(capsys):
    """A person sees each figure with what it must reach and whether it does, and the stages of a task's time."""
    report.show(FIGURES, SAMPLES, quick=True)
    shown = capsys.readouterr().out
    assert "≤ 2x (1)" in shown
    assert "short" in shown
    assert "≤ 2,048 MiB" in shown
    assert "a look, not a measurement" in shown
    assert "gates" in shown


def test_json_holds_every_raw_sample():
    """A script gets the figures, the machine and every raw sample."""
    told = codec.decode(report.as_json(FIGURES, SAMPLES, quick=False))
    assert told["samples"] == SAMPLES
    assert [figure["ok"] for figure in told["figures"]] == [False, True, None]
    assert set(told["machine"]) == {"python", "system", "cpus", "load_1m"}


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_the_verb_ends_with_0_though_figures_are_short(monkeypatch, options):
    """Bounds are shown and never enforced: the exit status is 0 once all is measured."""
    slow = {"tasks_per_s": 1.0, "us_per_task": 1e6, "reference_tasks_per_s": 1e6, "reference_us_per_task": 1.0, "ratio": 1e-6}
    monkeypatch.setattr(measure, "one", lambda _name, _folder, *, quick: {**slow, "quick": quick})
    done = CliRunner().invoke(phase21, ["bench", "--quick", "--only", "throughput", *options], standalone_mode=False)
    assert done.exit_code == 0
    assert ('"ok":false' if options else "short") in done.stdout


def test_main_raises_for_a_name_that_is_none():
    """The face of the room refuses an unknown measurement before anything is started."""
    with pytest.raises(UsageError):
        bench.main(as_json=False, quick=True, only="speed")


# -- stages --------------------------------------------------------------------------------------------------------------


def test_a_sample_belongs_to_the_innermost_stage():
    """A function that no stage names counts for the one that called it; a named one for itself; none for what is elsewhere."""
    assert stages._named("/x/phase21/domain/folds/tasks.py", "_end") == "journal: fold"
    assert stages._named("/x/phase21/domain/folds/arrivals.py", "_submission_accepted") == "accept"
    assert stages._named("/x/phase21/gates.py", "risk") is None
    samples = stages.Samples()
    samples.counts.update({"gates": 3, "engine": 1})
    samples.cpu_s, samples.wall_s = 4e-6, 6e-6
    told = samples.us_each(2)
    assert told["stages"] == {"gates": pytest.approx(1.5), "engine": pytest.approx(0.5)}
    assert (told["cpu_us"], told["wait_us"]) == (pytest.approx(2.0), pytest.approx(1.0))


def test_sampling_leaves_the_signal_as_it_was():
    """While it samples it counts the work that is done; after it, the signal's handler is the one from before."""
    before = signal.getsignal(signal.SIGPROF)
    with stages.sampled() as samples:
        sum(n * n for n in range(2_000_000))
    assert signal.getsignal(signal.SIGPROF) == before
    assert samples.counts[stages.ELSEWHERE] > 0
    assert samples.cpu_s > 0


def test_driven_gives_the_result():
    """A workload's coroutine runs on the loop that the command line would use."""
    assert workloads.driven(asyncio.sleep(0, "done")) == "done"


# -- real daemons --------------------------------------------------------------------------------------------------------


def test_recovery_starts_on_what_a_kill_left(tmp_path, monkeypatch):
    """The state to recover from holds a wave half done; the daemon that starts on it is timed to READY and can be watched."""
    monkeypatch.setattr(folders, "fresh", lambda: tmp_path)
    place, entries = daemon._killed("amid", 400)
    assert entries > 400
    with daemon.Daemon(place, heard=True) as served:
        assert served.ready_s > 0
        served.wait_for(b"wave_completed")
        served.append({"run_id": "after", "tasks": [{"task_id": "t1"}]})
        served.wait_for(b"wave_started")
        assert served.resident_bytes() > 2**20
        assert served.cpu_s() > 0


def test_a_socket_that_was_left_is_not_copied(tmp_path, monkeypatch):
    """What a killed house left is copied but for its socket, which no copy can be made of."""
    place, copy = tmp_path / "place", tmp_path / "copy"
    (place / "state").mkdir(parents=True)
    (place / "state" / "journal").write_text("kept")
    with switchboard.bound(place / "state"):
        monkeypatch.setattr(folders, "fresh", lambda: copy)
        assert daemon._copy_of(place) == copy
    assert [path.name for path in (copy / "state").iterdir()] == ["journal"]


def test_a_state_that_cannot_be_made_is_said(tmp_path, monkeypatch):
    """Where no state to recover from can be made, the measurement says so instead of timing nothing."""
    monkeypatch.setattr(folders, "fresh", lambda: tmp_path)
    with pytest.raises(Phase21Error, match="no state could be made"):
        daemon._killed("otherwise", 1)
