"""What tasks alike have shown: Gaussian-process regression over tasks and agents at once.

Called by the forecast. Needs numpy. The model (Rasmussen and Williams, 2006, chapter 2; with a kernel over pairs of task and
agent as in Bonilla, Chai and Williams, 2008): an outcome is a mean plus a sum of independent surfaces, each either shared by all
agents or every agent's own, over distances between tasks. What all agents share is how hard a task is, so that an agent is
not thought bad for being given hard ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from phase21.planning.encoding import Matrix
from phase21.planning.variances import NOISE, OWN_EVERYWHERE, SHARED_EVERYWHERE, SURFACES

ROWS_AT_A_TIME = 512

SHORT = 0.1
"""Surfaces of a length scale below this are looked at only where there is something near."""

FAR = -40.0
"""Logarithm of what counts as nothing."""


class Regression:
    """Fitted to n attempts: `points` (n, d), `agents` (n) as indices below `agent_count`, `targets` (n, k) of mean near 0."""

    def __init__(self, points: Matrix, agents: Sequence[int], targets: Matrix, agent_count: int) -> None:
        self._points = points
        index = np.asarray(agents, dtype=np.intp)
        shared, own = _kernels(_distances(points, points))
        covariance = shared + own * (index[:, None] == index[None, :])
        covariance[np.diag_indices(len(index))] += NOISE
        weights: Matrix = np.linalg.solve(covariance, targets)
        self._shared = weights
        self._own: Matrix = np.zeros((targets.shape[1], len(index), agent_count))
        self._own[:, np.arange(len(index)), index] = weights.T

    def predict(self, points: Matrix) -> npt.NDArray[np.float64]:
        """The expected targets at `points` (m, d) for every agent: shape (k, m, agent_count)."""
        parts = [self._part(points[start : start + ROWS_AT_A_TIME]) for start in range(0, len(points), ROWS_AT_A_TIME)]
        return np.concatenate(parts, axis=1)

    def _part(self, points: Matrix) -> npt.NDArray[np.float64]:
        shared, own = _kernels(_distances(points, self._points))
        expected: Matrix = (shared @ self._shared).T[:, :, None] + np.matmul(own[None], self._own)
        return expected


def _distances(one: Matrix, other: Matrix) -> Matrix:
    squares = (one**2).sum(1)[:, None] + (other**2).sum(1)[None, :] - 2.0 * (one @ other.T)
    distances: Matrix = np.sqrt(np.maximum(squares, 0.0))
    return distances


def _kernels(distances: Matrix) -> tuple[Matrix, Matrix]:
    shared = np.full_like(distances, SHARED_EVERYWHERE)
    own = np.full_like(distances, OWN_EVERYWHERE)
    near, part = np.empty_like(distances), np.empty_like(distances)
    for length, of_all, of_each in SURFACES:
        np.multiply(distances, -1.0 / length, out=near)
        if length < SHORT:  # almost everything is far: exp is dear, and what is far adds nothing
            at = np.nonzero(near > FAR)
            reached = np.exp(near[at])
            shared[at] += of_all * reached
            own[at] += of_each * reached
        else:
            np.exp(near, out=near)
            shared += np.multiply(near, of_all, out=part)
            own += np.multiply(near, of_each, out=part)
    return shared, own
