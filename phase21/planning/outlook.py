"""What the regression expects of tasks with features at every agent: scores, calibrated rates, and how long they will take.

Called by the forecast, which knows the levels that this starts from. Needs numpy; values in, plain lists out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from threadpoolctl import ThreadpoolController

from phase21.domain.evidence import SCORE_LEAST, SCORE_MOST, Calibrator, Observation, rate_of
from phase21.domain.tasks import Task
from phase21.planning.encoding import Matrix, encode
from phase21.planning.regression import Regression

LIBRARIES = ThreadpoolController()
"""One thread does the algebra: matrices are small, idle threads that wait for work take it from others, and the last bits must not
depend on how many cores there are."""

DIGITS = 9
"""Decimals of what is expected: what comes behind is the noise of sums, and would set agents apart that have shown the same."""


def outlook(
    asked: Sequence[Task],
    observed: Sequence[Observation],
    levels: Sequence[tuple[float, float]],
    agents: Sequence[int],
    asked_levels: Sequence[Sequence[float]],
    calibrator: Calibrator,
) -> Iterator[tuple[list[float], list[float], list[float]]]:
    """For each task asked about, a value for every agent: score before calibration, success rate, multiple of the usual seconds.

    `levels` are, of each observation, the success rate that fleet and kind alone would say and the log of its own multiple of
    the usual seconds; `agents` who made it, as an index; `asked_levels` the success rate that fleet and kind say, a row for
    each task, a value for each agent.
    """
    points, at = encode(observed, asked)
    targets = np.array([(seen.success - level, stretch) for seen, (level, stretch) in zip(observed, levels, strict=True)])
    start = np.array(asked_levels, dtype=np.float64)
    with LIBRARIES.limit(limits=1, user_api="blas"):
        gains, stretches = Regression(points, agents, targets, start.shape[1]).predict(at)
    scores: Matrix = np.clip(start + gains, SCORE_LEAST, SCORE_MOST).round(DIGITS)
    return zip(scores.tolist(), _calibrated(scores, calibrator).tolist(), np.exp(stretches).round(DIGITS).tolist(), strict=True)


def _calibrated(scores: Matrix, calibrator: Calibrator) -> Matrix:
    """`Calibrator.calibrated`, for many at once."""
    trust = rate_of(calibrator.trust_log_odds)
    odds = calibrator.slope * np.log(scores / (1.0 - scores)) + calibrator.offset
    rates: Matrix = (trust / (1.0 + np.exp(-odds)) + (1.0 - trust) * calibrator.base_rate).round(DIGITS)
    return rates
