"""Tasks as points: what is known of a task before it is tried, as a row of numbers that distances can be taken between.

Called by the regression, with what was observed and what is asked about. Needs numpy. It knows no outcomes: what it makes of a
feature depends on the tasks alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from phase21.domain.evidence import Observation
from phase21.domain.tasks import Feature, Task

Matrix = npt.NDArray[np.float64]

SPREAD = 1.7
"""Ranks run from -SPREAD to SPREAD: two at random are then as far apart as two different words, sqrt(2) on average."""

WORDS_MOST = 64
"""How many different words of one feature are told apart: the most frequent ones; the others count as one."""


def encode(observed: Sequence[Observation], asked: Sequence[Task]) -> tuple[Matrix, Matrix]:
    """Rows of what was observed, and of what is asked about: shapes (n, d) and (k, d), scaled by the number of features.

    A number becomes its mid-rank among all values of its feature, missing ones the middle; a word becomes an indicator. Kind
    and heuristics are words like any other. A feature that is the same everywhere tells nothing and is left out.
    """
    rows = [_words_and_numbers(*seen) for seen in _of_observed(observed)]
    rows += [_words_and_numbers(task.kind, task.heuristics, task.features) for task in asked]
    blocks, features = [], 0
    for name in sorted({name for row in rows for name in row}):
        block = _block([row.get(name) for row in rows])
        if block is not None:
            blocks.append(block)
            features += 1
    if not blocks:
        return np.zeros((len(observed), 1)), np.zeros((len(asked), 1))
    points = np.hstack(blocks) / np.sqrt(features)
    return points[: len(observed)], points[len(observed) :]


def _of_observed(observed: Sequence[Observation]) -> list[tuple[str, tuple[str, ...], dict[str, Feature]]]:
    return [(seen.kind, seen.heuristics, seen.features) for seen in observed]


def _words_and_numbers(kind: str, heuristics: tuple[str, ...], features: Mapping[str, Feature]) -> dict[Any, Feature]:
    """Features by ("feature", name); kind and heuristics under names that no feature can have."""
    row: dict[Any, Feature] = {("feature", name): value for name, value in features.items()}
    row["kind", ""] = kind
    for heuristic in heuristics:
        row["heuristic", heuristic] = "yes"
    return row


def _block(values: list[Feature | None]) -> Matrix | None:
    """The columns of one feature, None where it is the same everywhere. One with any word in it is a feature of words."""
    if any(type(value) is str for value in values):
        return _indicators([None if value is None else str(value) for value in values])
    numbers = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    known = np.sort(numbers[~np.isnan(numbers)])
    if len(known) == 0 or known[0] == known[-1]:  # the same wherever it is given: whether it is given may tell something
        return _indicators([None if value is None else "given" for value in values])
    ranks = (np.searchsorted(known, numbers, "left") + np.searchsorted(known, numbers, "right")) / len(known) - 1.0
    ranks[np.isnan(numbers)] = 0.0
    return (ranks * SPREAD)[:, None]


def _indicators(words: list[str | None]) -> Matrix | None:
    counts: dict[str | None, int] = {}
    for word in words:
        counts[word] = counts.get(word, 0) + 1
    if len(counts) == 1:
        return None
    kept = sorted(counts, key=lambda word: (-counts[word], word is not None, word or ""))[:WORDS_MOST]
    column = {word: index for index, word in enumerate(kept)}
    block = np.zeros((len(words), len(kept) + 1))
    block[np.arange(len(words)), [column.get(word, len(kept)) for word in words]] = 1.0
    return block
