"""A graph as an outline: each node once, on a line of its own, so that it reads from top to bottom.

What stands below another at the same margin follows it; what hangs on `├─` goes side by side. Paths that part come together again at the
margin of the node where they parted (its dominator), with what is waited for named. `cli/show` gives the lines their words and colours.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from phase21.domain.tasks import When
from phase21.readers.nodes import Edge, Node, drawn_needs, ordered

DEEPEST = 8
"""So many margins at most; what would stand further in follows at that margin, and says what it waits for."""

REDUCED_MOST = 5_000
"""In graphs up to this size a dependency that another one implies is left out."""

_ROOT = -1


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A node with what is drawn before it, and those of its dependencies that its place does not tell."""

    lead: str
    node: Node
    after: tuple[Edge, ...]


def outline(nodes: Sequence[Node]) -> list[Line]:
    """The lines of a graph, in order."""
    return _Outline(ordered(nodes)).lines()


class _Outline:
    def __init__(self, nodes: list[Node]) -> None:
        self._nodes = nodes
        self._known = {node.name for node in nodes}
        self._before = _before(nodes)
        self._above = _dominators(self._before)
        self._below: list[list[int]] = [[] for _ in range(len(nodes) + 1)]  # of the root last: index -1
        for at, above in enumerate(self._above):
            self._below[above].append(at)

    def lines(self) -> list[Line]:
        """Walk down, what parts before what comes together; no recursion, since chains are long."""
        found: list[Line] = []
        todo = self._parts(_ROOT, "", 0)
        while todo:
            at, lead, margin, depth, implied = todo.pop()
            found.append(Line(lead=lead, node=self._nodes[at], after=self._said(at, implied=implied)))
            todo += self._parts(at, margin, depth)
        return found

    def _parts(self, at: int, margin: str, depth: int) -> list[tuple[int, str, str, int, bool]]:
        """What stands below a node: (node, what is drawn before it, the margin below it, how deep, whether its place tells all)."""
        below = self._below[at]
        wanted = [] if at == _ROOT else [at]
        branches = [one for one in below if self._before[one] == wanted]
        together = [one for one in below if self._before[one] != wanted]
        if len(branches) == 1 and not together:
            parts = [(branches[0], margin, margin, depth, True)]
        elif depth >= DEEPEST:
            parts = [(one, margin, margin, depth, False) for one in (*branches, *together)]
        else:
            last = len(branches) - 1
            parts = [
                (one, margin + ("└─ " if n == last else "├─ "), margin + ("   " if n == last else "│  "), depth + 1, True)
                for n, one in enumerate(branches)
            ]
            parts += [(one, margin, margin, depth, False) for one in together]
        return parts[::-1]

    def _said(self, at: int, *, implied: bool) -> tuple[Edge, ...]:
        """The dependencies to be named: all that its place does not tell, and those that are not for success."""
        node = self._nodes[at]
        told = {self._nodes[n].name for n in self._before[at]}
        return tuple(
            edge
            for edge in drawn_needs(node)
            if edge.when != When.SUCCEEDED or edge.node not in self._known or (edge.node in told and not implied)
        )


def _before(nodes: Sequence[Node]) -> list[list[int]]:
    """For each node those that it waits for, in order, less what others of them wait for; edges that go back do not count."""
    place = {node.name: n for n, node in enumerate(nodes)}
    found = [
        sorted({place[edge.node] for edge in drawn_needs(node) if place.get(edge.node, n) < n}) for n, node in enumerate(nodes)
    ]
    if len(nodes) > REDUCED_MOST:
        return found
    behind: list[int] = []  # of each node all that comes before it, as a set of bits
    for n, before in enumerate(found):
        further = 0
        for one in before:
            further |= behind[one]
        found[n] = [one for one in before if not further >> one & 1]
        behind.append(further | sum(1 << one for one in found[n]))
    return found


def _dominators(before: Sequence[Sequence[int]]) -> list[int]:
    """For each node the last one that every way to it goes through (Cooper, Harvey and Kennedy 2001, one pass as nothing goes back)."""
    above: list[int] = []
    for found in before:
        meets = found[0] if found else _ROOT
        for other in found[1:]:
            one = other
            while one != meets:
                if one > meets:
                    one = above[one]
                else:
                    meets = above[meets]
        above.append(meets)
    return above
