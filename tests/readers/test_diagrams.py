"""Mermaid diagrams: whatever tasks are called, the text keeps to the language."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from phase21.domain.tasks import TaskStatus
from phase21.readers.diagrams import CLASSES, LABEL_CHARS, escaped, mermaid
from phase21.readers.nodes import NODES_MOST, Edge, Node

PLAIN = r"[A-Za-z0-9 .,:/()*=_×+%-]|#\d+;"
LABEL = rf"(?:{PLAIN}|<br/>)*"
NODE = re.compile(rf'    (n\d+|more)(?:\["{LABEL}"\]|\(\["{LABEL}"\]\)):::([a-z]+)')
EDGE = re.compile(rf'    (n\d+) (?:-->|-\.->)(?:\|"(?:{PLAIN})*"\|)? (n\d+)')
CLASS = re.compile(r"    classDef ([a-z]+) [a-z]+(?:-[a-z]+)*:[#0-9a-z ]+(?:,[a-z]+(?:-[a-z]+)*:[#0-9a-z ]+)*")


def parsed(text: str) -> tuple[dict[str, str], list[tuple[str, str]], set[str]]:
    """Nodes with their classes, edges, and the classes that are defined; fails where a line is none of the language's."""
    head, *lines = text.splitlines()
    assert head == "flowchart TD"
    nodes: dict[str, str] = {}
    edges: list[tuple[str, str]] = []
    classes: set[str] = set()
    for line in lines:
        if found := NODE.fullmatch(line):
            assert found[1] not in nodes
            nodes[found[1]] = found[2]
        elif found := EDGE.fullmatch(line):
            edges.append((found[1], found[2]))
        else:
            found = CLASS.fullmatch(line)
            assert found, line
            classes.add(found[1])
    assert {end for edge in edges for end in edge} <= nodes.keys()
    assert set(nodes.values()) <= classes
    return nodes, edges, classes


def node(name, *needs, status="PENDING", **fields):
    return Node(name=name, label=name, statuses={status: 1}, needs=tuple(needs), **fields)


def test_a_small_workflow():
    """Nodes are numbered and coloured by status, edges say what they wait for, a compensation hangs on what it undoes."""
    text = mermaid(
        [
            node("a", status="COMPLETED"),
            node("b", Edge("a"), status="FAILED", condition="x > 1"),
            node("c", Edge("b", "failed"), status="SKIPPED"),
            node("j", Edge("b", "settled"), kind="join"),
            node("a.undo", undoes="a"),
        ]
    )
    assert parsed(text)[1] == [("n1", "n2"), ("n2", "n3"), ("n2", "n4"), ("n1", "n5")]
    assert '    n1["a<br/>completed"]:::completed\n' in text
    assert '    n2["b<br/>failed<br/>if x #62; 1"]:::failed\n' in text
    assert '    n2 -->|"where it failed"| n3\n' in text
    assert '    n4(["j<br/>pending"]):::pending\n' in text
    assert '    n1 -.->|"undone by"| n5\n' in text


def test_every_status_has_a_colour():
    """No status is drawn without a class of its own or another's."""
    assert set(CLASSES) == set(TaskStatus)


def test_a_large_graph_is_bounded():
    """However many steps there are, so many are drawn at most, and the rest is counted."""
    nodes, _, _ = parsed(mermaid([node(f"t{n}", *([Edge(f"t{n - 1}")] if n else [])) for n in range(300)]))
    assert len(nodes) == NODES_MOST + 1
    many = mermaid([node(f"t{n}", *(Edge(f"t{before}") for before in range(n))) for n in range(NODES_MOST)])
    assert "more dependencies" in many
    parsed(many)


def test_nothing_is_a_diagram_too():
    """Without a node there is still a diagram."""
    assert parsed(mermaid([])) == ({}, [], {"pending"})


@given(st.text())
def test_no_text_ends_a_label(text):
    """A text becomes harmless characters and numbers, which stand for what it was; long ones are cut."""
    made = escaped(text)
    assert re.fullmatch(f"(?:{PLAIN})*", made)
    back = re.sub(r"#(\d+);", lambda found: chr(int(found[1])), made)
    whole = " ".join(text.split())
    assert back == (whole if len(whole) <= LABEL_CHARS else f"{whole[: LABEL_CHARS - 1]}…")


TEXTS = st.text(min_size=1, max_size=30)


@given(st.lists(st.tuples(TEXTS, TEXTS, st.sampled_from(list(TaskStatus)), st.sets(st.integers(0, 80), max_size=3)), max_size=80))
def test_any_workflow_keeps_to_the_language(rows):
    """Whatever names, conditions and edges there are, each line is of the language, and each edge between two nodes."""
    names = list(dict.fromkeys(name for name, _, _, _ in rows))
    nodes = [
        node(
            name,
            *(Edge(names[n % len(names)], ["succeeded", "failed", "settled"][n % 3]) for n in needs),
            status=str(status),
            condition=said,
        )
        for name, (_, said, status, needs) in zip(names, rows, strict=False)
    ]
    parsed(mermaid(nodes))
