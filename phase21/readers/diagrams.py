"""A run's workflow as a Mermaid diagram: text that Markdown viewers draw.

The report holds one, and `show --mermaid` prints the same. Nodes are called n1, n2, …; whatever is not plainly harmless in a label
is written as its number, so that no text can end a label, a line or the block that it stands in.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from phase21.domain.tasks import TaskStatus, When
from phase21.readers.nodes import NODES_MOST, Node, drawn_needs, folded, is_join, ordered

LABEL_CHARS = 80
EDGES_MOST = 400
"""Mermaid itself draws no more than 500 edges."""

CLASSES = {
    TaskStatus.COMPLETED: ("completed", "fill:#d5f0d8,stroke:#2e7d32,color:#111"),
    TaskStatus.FAILED: ("failed", "fill:#f8d4d4,stroke:#b71c1c,color:#111"),
    TaskStatus.SKIPPED: ("skipped", "fill:#f2f2f2,stroke:#9e9e9e,color:#666,stroke-dasharray:4 3"),
    TaskStatus.CANCELLED: ("cancelled", "fill:#e8e0d8,stroke:#795548,color:#111"),
    TaskStatus.DEFERRED: ("deferred", "fill:#fff1c9,stroke:#b58900,color:#111"),
    TaskStatus.IN_PROGRESS: ("running", "fill:#d6e6fb,stroke:#1565c0,color:#111"),
    TaskStatus.RETRYING: ("running", "fill:#d6e6fb,stroke:#1565c0,color:#111"),
    TaskStatus.PENDING: ("pending", "fill:#ffffff,stroke:#9e9e9e,color:#111"),
}
"""By which class a status is drawn, and how that looks."""

_HARMLESS = re.compile(r"[^A-Za-z0-9 .,:/()*=_×+%-]")
_EDGE_SAYS = {When.FAILED: "where it failed", When.SETTLED: "however it ended"}


def mermaid(nodes: Sequence[Node]) -> str:
    """The diagram, folded where it has more than `NODES_MOST` nodes, and cut where it still has."""
    lines = ["flowchart TD", *(f"    {line}" for line in _body(nodes))]
    return "\n".join(lines) + "\n"


def _body(nodes: Sequence[Node]) -> Iterator[str]:
    found = ordered(folded(nodes))
    shown = found[:NODES_MOST]
    names = {node.name: f"n{n}" for n, node in enumerate(shown, 1)}
    for node in shown:
        yield f"{names[node.name]}{_shape(node)}:::{CLASSES[TaskStatus(node.status)][0]}"
    edges = [line for node in shown for line in _edges(node, names)]
    yield from edges[:EDGES_MOST]
    if len(found) > len(shown) or len(edges) > EDGES_MOST:
        yield f'more["{escaped(_left_out(len(found) - len(shown), len(edges) - EDGES_MOST))}"]:::pending'
    used = {node.status for node in shown} | {str(TaskStatus.PENDING)}
    for name, style in sorted({CLASSES[TaskStatus(status)] for status in used}):
        yield f"classDef {name} {style}"


def _left_out(nodes: int, edges: int) -> str:
    said = [f"{count} more {word}" for count, word in ((nodes, "steps"), (edges, "dependencies")) if count > 0]
    return f"and {' and '.join(said)}"


def _shape(node: Node) -> str:
    label = "<br/>".join(escaped(line) for line in _label(node))
    return f'(["{label}"])' if is_join(node) else f'["{label}"]'


def _label(node: Node) -> Iterator[str]:
    if node.tasks == 1:
        yield node.title
        yield "later" if node.later else _word(node.status)
    else:
        yield f"{node.title} ×{node.tasks}"
        yield ", ".join(f"{count} {_word(status)}" for status, count in node.statuses.items())
    if node.condition:
        yield f"if {node.condition}"


def _word(status: str) -> str:
    """A status for a label."""
    return status.lower().replace("_", " ")


def _edges(node: Node, names: Mapping[str, str]) -> Iterator[str]:
    own = names[node.name]
    for edge in drawn_needs(node):
        if edge.node in names:
            said = _EDGE_SAYS.get(When(edge.when))
            yield f'{names[edge.node]} -->|"{said}"| {own}' if said else f"{names[edge.node]} --> {own}"
    if node.undoes in names:
        yield f'{names[node.undoes or ""]} -.->|"undone by"| {own}'


def escaped(text: str) -> str:
    """A text as it may stand in a label; long ones are cut."""
    plain = " ".join(text.split())
    cut = plain if len(plain) <= LABEL_CHARS else f"{plain[: LABEL_CHARS - 1]}…"
    return _HARMLESS.sub(lambda found: f"#{ord(found[0])};", cut)
