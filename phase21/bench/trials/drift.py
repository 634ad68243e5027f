"""How well the monitor sees changes (streams of outcomes) and anomalies (series of numbers), beside what others would say.

Called by the evaluation of a folder of data through `measure`; the detectors are those of `phase21.evaluation`.

Drift: a change is found where an alarm of its direction comes within `HORIZON_WAVES` waves after `change_wave` and before
`end_wave`; its delay is the tasks done from the change to the beginning of the wave whose end told (`delay_to_end_tasks`
counts that wave as well). Any other alarm before the change, or in a stream without one, is false; alarms less than
`MERGED_WAVES` after the first of a row count as one. What comes after `end_wave` is judged as recovery alone. Flagged is
the share of waves before a change, or in a stream without one, that raise an alarm.

NAB: Lavin and Ahmad, ICMLA 2015 (arXiv 1510.03336), standard profile: true positive 1, false positive 0.11, miss 1, the
best detection in each window, sigmoid of its place, the first 15 % (750 at most) unjudged, 0 = silent, 100 = perfect.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from math import exp, inf, log, sqrt
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

from phase21.domain import sequential
from phase21.evaluation import outliers
from phase21.store import codec

HORIZON_WAVES = 20
MERGED_WAVES = 12
GLR_THRESHOLD = 7.5
FIXED_RATE = 0.5
FALSE_POSITIVE = 0.11
FALSE_ALARMS = 0.001


class Stream(msgspec.Struct, frozen=True):
    """One agent's outcomes, wave by wave, and what is known of its change."""

    id: str
    kind: str
    waves: list[list[int]]
    rate_before: float
    rate_after: float | None
    change_wave: int | None
    end_wave: int | None

    @property
    def healthy(self) -> int:
        """How many waves come before anything changes."""
        return len(self.waves) if self.change_wave is None else self.change_wave

    @property
    def direction(self) -> int:
        """1 where the rate rises, -1 where it falls; 0 where nothing changes."""
        after = self.rate_before if self.rate_after is None else self.rate_after
        return (after > self.rate_before) - (after < self.rate_before)


class Raised(msgspec.Struct, frozen=True):
    """An alarm: the wave whose end told it, its direction (0: either), since when, and whether all is well again."""

    wave: int
    direction: int = 0
    since: int | None = None
    recovered: bool = False


class Series(msgspec.Struct, frozen=True):
    """Numbers in time, and the first and last places of the windows in which people saw an anomaly."""

    name: str
    values: list[float]
    windows: list[tuple[int, int]]


class Found(msgspec.Struct):
    """What a detector did on all streams, while it is being counted."""

    true: int = 0
    false: int = 0
    missed: int = 0
    flagged: int = 0
    healthy: int = 0
    delays: list[int] = msgspec.field(default_factory=list)
    until_end: list[int] = msgspec.field(default_factory=list)
    off: list[int] = msgspec.field(default_factory=list)


Detector = Callable[[Stream], list[Raised]]


def measure(data: Path) -> dict[str, Any]:
    """Rows for drift and NAB, by detector, for each of the two that `data` has: figures by name, ready for JSON."""
    rows: dict[str, Any] = {}
    if (data / "drift_streams.jsonl").is_file():
        rows["drift"] = drift_rows(streams(data / "drift_streams.jsonl"))
    if (data / "nab" / "windows.json").is_file():
        rows["nab"] = nab_rows(series(data / "nab"))
    return rows


def streams(file: Path) -> list[Stream]:
    """The streams of a file of JSON lines."""
    return [codec.decode(line, Stream) for line in file.read_bytes().splitlines() if line]


def drift_rows(told: Sequence[Stream]) -> dict[str, Any]:
    """A row for each detector; `ours` also on either half of the streams, and by kind of change."""
    rows: dict[str, Any] = {name: judged(told, detector) for name, detector in DETECTORS.items()}
    ours = rows["ours"]
    ours["f1_of_halves"] = [judged(told[half::2], watched)["f1"] for half in (0, 1)]
    changing = [stream for stream in told if stream.change_wave is not None]
    kinds = sorted({stream.kind for stream in changing})
    ours["found_by_kind"] = {kind: judged([s for s in changing if s.kind == kind], watched)["found"] for kind in kinds}
    ours["outages_recovered"] = _recovered(told)
    return rows


def watched(stream: Stream) -> list[Raised]:
    """The alarms of the product's own sequential test, as the ledger asks it; nothing is known of how hard the tasks are."""
    watch, raised = sequential.Watch(), []
    for wave, outcomes in enumerate(stream.waves):
        tasks = len(outcomes)
        watch, alarm = sequential.observe(watch, wave, sum(outcomes), tasks, expected=tasks / 2, false_alarms=FALSE_ALARMS)
        if alarm is not None:
            direction = 1 if alarm.rate_after > alarm.rate_before else -1
            raised.append(Raised(wave, direction, alarm.since_wave, alarm.recovered))
    return raised


def fixed(stream: Stream) -> list[Raised]:
    """An alarm wherever less than half of a wave succeeds."""
    return [Raised(wave) for wave, outcomes in enumerate(stream.waves) if sum(outcomes) / len(outcomes) < FIXED_RATE]


def glr(stream: Stream) -> list[Raised]:
    """The plain generalised likelihood ratio over every change point, begun anew at the change that it finds."""
    raised, begin = [], 0
    for wave in range(1, len(stream.waves)):
        best, since, direction = max(_ratios(stream.waves[begin : wave + 1]))
        if best > GLR_THRESHOLD:
            begin += since
            raised.append(Raised(wave, direction, begin))
    return raised


def _ratios(waves: Sequence[Sequence[int]]) -> Iterator[tuple[float, int, int]]:
    """(log likelihood ratio, wave, direction) of each change that may have been in the waves; one that says nothing first."""
    yield 0.0, 0, 0
    tasks, won = sum(map(len, waves)), sum(map(sum, waves))
    n, s = 0, 0
    for place, outcomes in enumerate(waves[:-1], 1):
        n, s = n + len(outcomes), s + sum(outcomes)
        ratio = _at_best(n, s) + _at_best(tasks - n, won - s) - _at_best(tasks, won)
        yield ratio, place, 1 if (won - s) * n > s * (tasks - n) else -1


def _at_best(n: int, s: int) -> float:
    return sum(part * log(part / n) for part in (s, n - s) if part)


DETECTORS: dict[str, Detector] = {"fixed rule": fixed, "glr": glr, "ours": watched}


def judged(told: Sequence[Stream], detector: Detector) -> dict[str, Any]:
    """A detector's row: F1, what was found, false and missed, median delay in tasks, share of healthy waves flagged."""
    found = Found()
    for stream in told:
        _judge(stream, detector(stream), found)
    return {
        "f1": 2 * found.true / max(2 * found.true + found.false + found.missed, 1),
        "found": [found.true, found.true + found.missed],
        "false_alarms": found.false,
        "delay_tasks": median(found.delays) if found.delays else None,
        "delay_to_end_tasks": median(found.until_end) if found.until_end else None,
        "since_off_waves": median(found.off) if found.off else None,
        "flagged": found.flagged / max(found.healthy, 1),
    }


def _judge(stream: Stream, raised: Sequence[Raised], found: Found) -> None:
    early = [alarm.wave for alarm in raised if alarm.wave < stream.healthy]
    found.healthy += stream.healthy
    found.flagged += len(early)
    found.false += _merged(early)
    if stream.change_wave is None:
        return
    change, end = stream.change_wave, stream.end_wave or len(stream.waves)
    within = [alarm for alarm in raised if change <= alarm.wave < min(change + HORIZON_WAVES, end)]
    right = [alarm for alarm in within if alarm.direction in {0, stream.direction}]
    found.false += _merged([alarm.wave for alarm in within if alarm not in right])
    if not right:
        found.missed += 1
        return
    first = right[0]
    found.true += 1
    found.delays.append(sum(map(len, stream.waves[change : first.wave])))
    found.until_end.append(sum(map(len, stream.waves[change : first.wave + 1])))
    if first.since is not None:
        found.off.append(abs(first.since - change))


def _merged(waves: Sequence[int]) -> int:
    count, begin = 0, -MERGED_WAVES
    for wave in waves:
        if wave - begin >= MERGED_WAVES:
            count, begin = count + 1, wave
    return count


def _recovered(told: Sequence[Stream]) -> list[int]:
    """Of the outages that were seen, how many were seen to end within the horizon: [these, those]."""
    seen = ended = 0
    for stream in told:
        if stream.end_wave is None or stream.change_wave is None:
            continue
        end, raised = stream.end_wave, watched(stream)
        if any(stream.change_wave <= alarm.wave < end and alarm.direction < 0 for alarm in raised):
            seen += 1
            ended += any(end <= alarm.wave < end + HORIZON_WAVES and alarm.recovered for alarm in raised)
    return [ended, seen]


def series(folder: Path) -> list[Series]:
    """Every series that `windows.json` names, in the order of the names."""
    windows = codec.decode((folder / "windows.json").read_bytes(), dict[str, list[tuple[str, str]]])
    return [_series(folder / f"{name}.csv", name, windows[name]) for name in sorted(windows)]


def _series(file: Path, name: str, windows: Sequence[tuple[str, str]]) -> Series:
    with file.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    times = [datetime.fromisoformat(row["timestamp"]) for row in rows]
    places = []
    for first, last in windows:
        begin, end = datetime.fromisoformat(first), datetime.fromisoformat(last)
        inside = [place for place, time in enumerate(times) if begin <= time <= end]
        if inside:
            places.append((inside[0], inside[-1]))
    return Series(name, [float(row["value"]) for row in rows], places)


def nab_rows(told: Sequence[Series]) -> dict[str, Any]:
    """The score of each detector with the one threshold that suits it best, as NAB has it; ours also at its own threshold."""
    dice = random.Random(21)  # noqa: S311 - a detector that knows nothing, the same each time
    ours = [_scores(one.values) for one in told]
    return {
        "null": {"score": nab_score(told, [[0.0] * len(one.values) for one in told], inf)},
        "random": _best(told, [[dice.random() for _ in one.values] for one in told]),
        "z-score": _best(told, [_plain_z(one.values) for one in told]),
        "ours": {**_best(told, ours), "score_as_set": nab_score(told, ours, outliers.THRESHOLD)},
        "windows": sum(len(one.windows) for one in told),
    }


def _scores(values: Sequence[float]) -> list[float]:
    gauge, scores = outliers.Gauge(), []
    for value in values:
        gauge, score = outliers.step(gauge, value)
        scores.append(score)
    return scores


def _plain_z(values: Sequence[float]) -> list[float]:
    """Distance from the mean of all before, in their standard deviations."""
    mean = squares = 0.0
    scores = []
    for count, value in enumerate(values):
        spread = sqrt(squares / count) if count else 0.0
        scores.append(abs(value - mean) / spread if spread else 0.0)
        apart = value - mean
        mean += apart / (count + 1)
        squares += apart * (value - mean)
    return scores


def _worth(one: Series) -> Iterator[tuple[int, int | None, float]]:
    """(place, window or None, worth) of a detection at each place that is judged, false positives already weighted."""
    size = len(one.values)
    window, last = 0, None
    for place in range(size):
        while window < len(one.windows) and place > one.windows[window][1]:
            last, window = one.windows[window], window + 1
        inside = window < len(one.windows) and one.windows[window][0] <= place
        if place < min(int(0.15 * size), 750):
            continue
        if inside:
            first, end = one.windows[window]
            yield place, window, _sigmoid((place - end - 1) / (end - first + 1)) / _sigmoid(-1.0)
        else:
            past = -1.0 if last is None else _sigmoid((place - last[1]) / max(last[1] - last[0], 1))
            yield place, None, FALSE_POSITIVE * past


def _sigmoid(place: float) -> float:
    """From 1 well before the end of a window, by 0 at its end, to -1 after it."""
    return 2.0 / (1.0 + exp(min(5.0 * place, 500.0))) - 1.0


def _sweep(told: Sequence[Series], scores: Sequence[Sequence[float]]) -> Iterator[tuple[float, float]]:
    """(threshold, NAB score) for each threshold that matters, from the highest down."""
    judged_places = [
        (scores[index][place], index, window, worth)
        for index, one in enumerate(told)
        for place, window, worth in _worth(one)
        if scores[index][place] > 0.0
    ]
    judged_places.sort(key=lambda row: -row[0])
    windows, total = max(sum(len(one.windows) for one in told), 1), 0.0
    best: dict[tuple[int, int], float] = {}
    for row, (threshold, index, window, worth) in enumerate(judged_places):
        if window is None:
            total += worth
        else:
            before = best.get((index, window), -1.0)
            best[index, window] = max(before, worth)
            total += best[index, window] - before
        if row + 1 == len(judged_places) or judged_places[row + 1][0] < threshold:
            yield threshold, 100.0 * total / (2.0 * windows)


def _best(told: Sequence[Series], scores: Sequence[Sequence[float]]) -> dict[str, float]:
    score, threshold = max(((score, threshold) for threshold, score in _sweep(told, scores)), default=(0.0, inf))
    return {"score": max(score, 0.0), "threshold": threshold}


def nab_score(told: Sequence[Series], scores: Sequence[Sequence[float]], threshold: float) -> float:
    """The NAB score, 0 silent to 100 perfect, where a detection is a score of at least `threshold`."""
    reached = 0.0
    for passed, score in _sweep(told, scores):
        if passed < threshold:
            break
        reached = score
    return reached
