"""The monitor's score is counted as its definitions say, and the figures that were promised are reached where the data is."""

from math import exp, inf
from pathlib import Path

import pytest

from phase21.bench.trials.drift import Raised, Series, Stream, glr, judged, measure, nab_rows, nab_score

DATA = Path(__file__).parents[3] / ".." / "shared" / "data" / "eval"


def stream(change=30, end=None, after=0.1, waves=60):
    return Stream("s", "degrade", [[1, 0]] * waves, 0.5, None if change is None else after, change, end)


def row(raised, *told):
    return judged(told, lambda _: raised)


def test_what_counts_as_found():
    """An alarm of the change's direction, within the horizon and before the end, is a detection; its delay is in tasks."""
    found = row([Raised(32, -1, 29)], stream())
    assert (found["f1"], found["found"], found["delay_tasks"], found["delay_to_end_tasks"]) == (1.0, [1, 1], 4, 6)
    assert (found["since_off_waves"], found["flagged"]) == (1, 0.0)
    assert row([Raised(50, -1)], stream())["found"] == [0, 1]
    assert row([Raised(36, -1)], stream(end=36))["found"] == [0, 1]
    wrong = row([Raised(32, 1)], stream())
    assert (wrong["found"], wrong["false_alarms"], wrong["delay_tasks"]) == ([0, 1], 1, None)


def test_what_counts_as_false():
    """Alarms before a change or without one are false; a row of them within twelve waves is one, each wave is flagged."""
    raised = [Raised(wave) for wave in (3, 5, 14, 15, 29)]
    assert row(raised, stream())["false_alarms"] == 3
    assert row(raised, stream())["flagged"] == 5 / 30
    assert row(raised, stream(change=None))["flagged"] == 5 / 60


def test_glr_finds_the_change():
    """The plain likelihood ratio finds a clear fall, dates it, and begins anew."""
    told = Stream("s", "degrade", [[1, 1, 0]] * 20 + [[0, 0, 0]] * 10, 0.67, 0.0, 20, None)
    (alarm,) = glr(told)
    assert (alarm.since, alarm.direction) == (20, -1)


def test_nab_score():
    """Silence scores 0, the first place of every window nearly 100, a false alarm costs, a late one in the window gives less."""
    one = Series("s", [0.0] * 200, [(100, 119), (150, 169)])
    perfect, late, noisy = ([0.0] * 200 for _ in range(3))
    perfect[100] = perfect[150] = 1.0
    late[118] = late[150] = 1.0
    noisy[100] = noisy[150] = noisy[60] = 1.0
    assert nab_score([one], [[0.0] * 200], inf) == 0.0
    assert nab_score([one], [perfect], 0.5) == pytest.approx(100.0)
    part = (2.0 / (1.0 + exp(-0.5)) - 1.0) / (2.0 / (1.0 + exp(-5.0)) - 1.0)  # two places of twenty before the end
    assert nab_score([one], [late], 0.5) == pytest.approx(100.0 * (2.0 + 1.0 + part) / 4.0)
    assert nab_score([one], [noisy], 0.5) == pytest.approx(100.0 - 11.0 / 4)
    early = [1.0] * 10 + [0.0] * 190
    assert nab_score([one], [early], 0.5) == 0.0
    assert nab_rows([one])["null"]["score"] == 0.0


def test_promised_figures():
    """On the real streams and series the monitor is as good as promised, beside baselines that are as bad as they were found to be."""
    if not (DATA / "drift_streams.jsonl").is_file():
        pytest.skip("the evaluation data is not beside the project")
    rows = measure(DATA)
    drift, nab = rows["drift"], rows["nab"]
    assert drift["fixed rule"]["f1"] < 0.25
    assert drift["ours"]["f1"] >= max(0.75, drift["glr"]["f1"])
    assert drift["ours"]["delay_tasks"] <= 15
    assert drift["ours"]["flagged"] <= 0.002
    assert nab["ours"]["score_as_set"] >= 40.0 > nab["random"]["score"]


def test_nothing_to_measure(tmp_path):
    """A folder that has neither set gives no rows."""
    assert measure(tmp_path) == {}
