"""A graph as lines that read from top to bottom."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from phase21.readers.inquiries.outlines import DEEPEST, REDUCED_MOST, outline
from phase21.readers.nodes import Edge, Node, ordered


def graph(**needs):
    """Nodes a=…, each with the names that it waits for; `x!` means where x failed."""
    return [
        Node(
            name=name,
            label=name,
            statuses={"PENDING": 1},
            needs=tuple(Edge(one.rstrip("!"), "failed" if one.endswith("!") else "succeeded") for one in waits.split()),
        )
        for name, waits in needs.items()
    ]


def drawn(nodes):
    """The lines as text."""
    return [
        f"{line.lead}{line.node.name}" + (f" < {' '.join(edge.node for edge in line.after)}" if line.after else "")
        for line in outline(nodes)
    ]


def test_a_chain_keeps_its_margin():
    """What follows alone stands below, not further in."""
    assert drawn(graph(a="", b="a", c="b")) == ["a", "b", "c"]


def test_branches_part_and_come_together():
    """What goes side by side hangs on branches; what waits for several stands at the margin where they parted, and names them."""
    assert drawn(graph(a="", b="a", b2="b", c="a", d="b2 c", e="d")) == ["a", "├─ b", "│  b2", "└─ c", "d < b2 c", "e"]


def test_several_beginnings_are_branches():
    """Where a graph begins at several tasks, these are branches of the whole."""
    assert drawn(graph(a="", b="", c="b", d="a c")) == ["├─ a", "└─ b", "   c", "d < a c"]


def test_nested_branches():
    """A branch may part again."""
    assert drawn(graph(a="", b="a", c="a", d="c", e="c", f="d e", g="b f")) == [
        "a", "├─ b", "└─ c", "   ├─ d", "   └─ e", "   f < d e", "g < b f",
    ]  # fmt: skip


def test_a_dependency_that_another_implies_is_not_drawn():
    """A task that waits for a and for b, which waits for a, stands behind b alone."""
    assert drawn(graph(a="", b="a", c="a b")) == ["a", "b", "c"]


def test_an_edge_that_is_not_for_success_is_always_said():
    """Where a task runs only if another failed, that is said even where its place tells whom it follows."""
    assert drawn(graph(a="", b="a!")) == ["a", "b < a"]


def test_what_is_not_there_is_named():
    """A dependency that is not drawn is named."""
    assert drawn(graph(a="gone")) == ["a < gone"]


def test_margins_end():
    """However deep branches nest, margins do not go on; what stands in no branch of its own says what it waits for."""
    needs = {"m0": ""}
    for n in range(30):
        needs |= {f"m{n + 1}": f"m{n}", f"s{n}": f"m{n}"}
    lines = outline(graph(**needs))
    assert max(len(line.lead) for line in lines) == 3 * DEEPEST
    assert [edge.node for line in lines if line.node.name == "m30" for edge in line.after] == ["m29"]


def test_long_chains_and_large_graphs():
    """A chain longer than the interpreter's stack is drawn, and a graph too large to be thinned out keeps all its edges."""
    chain = [
        Node(name=f"t{n}", label="t", statuses={"PENDING": 1}, needs=(Edge(f"t{n - 1}"),) if n else ()) for n in range(REDUCED_MOST)
    ]
    assert [line.node.name for line in outline(chain)][-1] == f"t{REDUCED_MOST - 1}"
    large = [*chain, Node(name="last", label="t", statuses={"PENDING": 1}, needs=(Edge("t0"), Edge("t9")))]
    assert [edge.node for edge in outline(large)[-1].after] == ["t0", "t9"]


@given(st.lists(st.sets(st.integers(0, 60), max_size=4), max_size=40))
def test_every_node_has_one_line_behind_what_it_waits_for(rows):
    """Whatever the graph, each node is drawn once, below all that it waits for, and nothing that it waits for stays untold."""
    nodes = [
        Node(name=f"t{n}", label="t", statuses={"PENDING": 1}, needs=tuple(Edge(f"t{need % n}") for need in sorted(needs) if n))
        for n, needs in enumerate(rows)
    ]
    lines = outline(nodes)
    place = {line.node.name: n for n, line in enumerate(lines)}
    assert len(place) == len(lines) == len(nodes)
    assert all(place[edge.node] < place[node.name] for node in nodes for edge in node.needs)


@given(st.lists(st.sets(st.integers(0, 20), max_size=3), max_size=20))
def test_circles_do_no_harm(rows):
    """Folded graphs may go in circles: each node is drawn once all the same."""
    nodes = [
        Node(name=f"t{n}", label="t", statuses={"PENDING": 1}, needs=tuple(Edge(f"t{need}") for need in sorted(needs)))
        for n, needs in enumerate(rows)
    ]
    assert sorted(line.node.name for line in outline(nodes)) == sorted(node.name for node in ordered(nodes))
