"""How much of what outcomes differ by is shared by all agents, how much an agent's own, and over which distances between tasks.

Looked at by the regression and by the forecast. The figures are shares of the variance of outcomes, chosen once over algorithm
selection and coding-agent outcomes together; results change little with them (see docs/learning.md).
"""

from __future__ import annotations

SHARED_EVERYWHERE, OWN_EVERYWHERE = 0.10, 0.10
"""Of the level of all, and of each agent's."""

SURFACES = ((0.01, 0.10, 0.15), (0.3, 0.10, 0.10), (1.0, 0.30, 0.15))
"""Surfaces over tasks as (length scale, variance of what is shared, variance of what is an agent's own).

The shortest knows the same task again, the longest is about what half the tasks have in common.
"""

NOISE = 0.15
"""Of what no surface can say."""

SHARED = SHARED_EVERYWHERE + sum(of_all for _, of_all, _ in SURFACES)
OWN = OWN_EVERYWHERE + sum(of_each for _, _, of_each in SURFACES)
"""In all, at one and the same task."""
