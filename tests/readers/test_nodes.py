"""What is drawn of tasks: one node each, or one for many."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phase21.domain.records import TaskRecord
from phase21.domain.tasks import Compensation, Dependency, Task, TaskStatus, When
from phase21.readers.nodes import (
    FOLD_LEAST,
    LARGE,
    NODES_MOST,
    Edge,
    Node,
    drawn_needs,
    folded,
    label_of,
    later_node,
    node_of,
    ordered,
    rejoined,
    summed_up,
    undone_by,
)


def node(name, *needs, status="PENDING", label=None, **fields):
    edges = tuple(Edge(need) if isinstance(need, str) else need for need in needs)
    return Node(name=name, label=label or name, statuses={status: 1}, needs=edges, **fields)


def elements(count, *needs, status="COMPLETED", **fields):
    return [node(f"lint.{n}", *needs, label="lint", status=status, **fields) for n in range(count)]


def names(nodes):
    return [one.name for one in nodes]


def test_a_task_is_a_node():
    """A node says of a task where it stands, what it waits for, and how far its attempt is."""
    task = Task(
        task_id="b", step="flow/build", depends_on=("a", Dependency(task="c", when=When.FAILED)), condition="true",
        estimated_duration_s=3.0,
    )  # fmt: skip
    made = node_of(TaskRecord(task=task, status=TaskStatus.IN_PROGRESS, ran_by="agent_1", attempts=2, percent=30.0, note="half"), 4)
    assert (made.name, made.label, made.status, made.wave) == ("b", "build", "IN_PROGRESS", 4)
    assert made.needs == (Edge("a"), Edge("c", "failed"))
    assert (made.agent_id, made.attempts, made.percent, made.note, made.weight_s) == ("agent_1", 2, 30.0, "half", 3.0)


def test_what_a_task_said_of_its_progress_is_gone_with_its_end():
    """A task that has ended is at 100, and its last note is not shown."""
    made = node_of(TaskRecord(task=Task(task_id="a"), status=TaskStatus.FAILED, percent=30.0, note="half"), 1)
    assert (made.percent, made.note) == (100.0, "")


@pytest.mark.parametrize(
    ("task", "wave", "label"),
    [
        (Task(task_id="a", step="flow/build"), 1, "build"),
        (Task(task_id="a", step="build"), 1, "build"),
        (Task(task_id="a", kind="command"), 2, "command of wave 2"),
        (Task(task_id="a", kind="command"), None, "command"),
    ],
)
def test_tasks_are_drawn_together_by_their_step(task, wave, label):
    """The label is the step without its workflow's name, else the kind of the wave's tasks."""
    assert label_of(task, wave) == label


@pytest.mark.parametrize(
    ("task_id", "metadata", "undoes"),
    [
        ("pay.undo", {"undoes": "pay"}, "pay"),
        ("pay", {"undoes": "ship"}, None),
        ("pay.undo", {"undoes": 7}, None),
        ("pay.undo", {}, None),
    ],
)
def test_a_compensation_is_called_after_what_it_undoes(task_id, metadata, undoes):
    """Metadata of a user's own make no compensation of a task."""
    assert undone_by(Task(task_id=task_id, metadata=metadata)) == undoes


def test_elements_of_a_list_are_one_node():
    """As many elements as are worth it become one node, with their statuses counted and what they waited for kept."""
    nodes = [
        node("a"),
        *elements(FOLD_LEAST, "a"),
        node("lint", *(f"lint.{n}" for n in range(FOLD_LEAST)), kind="join"),
        node("z", "lint"),
    ]
    made = folded(nodes)
    assert names(made) == ["a", "lint.*", "lint", "z"]
    assert made[1].statuses == {"COMPLETED": FOLD_LEAST}
    assert [one.needs for one in made] == [(), (Edge("a"),), (Edge("lint.*"),), (Edge("lint"),)]


def test_a_few_elements_stay_apart():
    """Fewer are drawn one by one."""
    nodes = [node("a"), *elements(FOLD_LEAST - 1, "a")]
    assert folded(nodes) == tuple(nodes)


def test_many_nodes_are_drawn_by_step():
    """A graph that is too large becomes one node a step; a join of the same name stays another."""
    nodes = [node(f"t{n}", *([f"t{n - 1}"] if n else []), label=f"step{n % 3}") for n in range(30)] + [
        node("step1", "t29", label="step1.join", kind="join")
    ]
    made = folded(nodes, most=10)
    assert [one.title for one in made] == ["step0", "step1", "step2", "step1"]
    assert len(set(names(made))) == 4
    assert [one.tasks for one in made] == [10, 10, 10, 1]


def test_compensations_are_folded_apart():
    """What undoes is never drawn as one with what it undoes."""
    nodes = [*elements(9), *(node(f"lint.{n}.undo", label="lint", undoes=f"lint.{n}") for n in range(9))]
    made = folded(nodes)
    assert names(made) == ["lint.*", "lint.*.undo"]
    assert made[1].undoes == "lint.*"


def test_a_folded_node_says_the_worst():
    """One failure among many shows, with its reason; progress is weighed, and what differs is left out."""
    group = elements(FOLD_LEAST, agent_id="agent_0", weight_s=1.0, percent=100.0)
    bad = node("lint.9", label="lint", status="FAILED", agent_id="agent_1", weight_s=5.0, percent=0.0, reason="broken")
    (made,) = folded([*group, bad])
    assert (made.status, made.reason, made.agent_id) == ("FAILED", "broken", None)
    assert made.percent == pytest.approx(50.0)


def test_a_join_waits_for_what_it_gathers():
    """Of a join only what it gathers is drawn, without a word on how that ended; of a compensation what goes before."""
    gathered = (Edge("a.0", "settled"), Edge("a.1", "settled"))
    join = node("a", "first", *gathered, kind="join")
    assert drawn_needs(join) == (Edge("a.0"), Edge("a.1"))
    assert drawn_needs(node("b.undo", Edge("b", "settled"), Edge("c.undo", "settled"), undoes="b")) == (Edge("c.undo"),)
    assert drawn_needs(node("c", "first", *gathered)) == (Edge("first"), *gathered)
    assert drawn_needs(node("empty", "first", kind="join")) == (Edge("first"),)


def test_a_step_that_is_no_task_yet():
    """A step over a result waits for the task that leaves it, and says what it will be made for."""
    step = {"task_id": "each", "step": "w/each", "depends_on": ["a"], "for_each": {"$from": "scan", "path": "result.files"}}
    made = later_node(step)
    assert (made.name, made.status, made.later) == ("each", "PENDING", "for each of scan.result.files")
    assert made.needs == (Edge("a"), Edge("scan"))
    assert later_node({"task_id": "after", "depends_on": ["each"]}).later == "later"


def summary(records, most=NODES_MOST):
    """What a generator of steps comes to."""
    steps = summed_up(records, 1, most)
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value


def test_a_summary_is_bounded_and_bare():
    """A digest holds at most so many nodes, without times, agents and reasons, and says how many it leaves out."""
    tasks = [Task(task_id=f"t{n}", step=f"w/l{n}") for n in range(8)]
    kept, more = summary(
        [TaskRecord(task=task, ran_by="agent_0", duration_s=1.0, error_msg="no", end_us=5) for task in tasks], most=5
    )
    assert (len(kept), more) == (5, 3)
    assert {(one.agent_id, one.duration_s, one.reason, one.ended_us) for one in kept} == {(None, None, None, None)}


def test_a_large_wave_is_summed_up_alike():
    """Of a wave for which no node is made each, the summary says the same as folding nodes by step would."""
    tasks = [Task(task_id="first", step="w/first")]
    for n in range(LARGE):
        needs = ("first", Dependency(task=f"t{n - 1}", when=When.SETTLED)) if n else ("first",)
        tasks += [Task(task_id=f"t{n}", step=f"w/s{n % 7}", depends_on=needs, condition="true", compensate=Compensation())]
        tasks += [Task(task_id=f"t{n}.undo", step=f"w/s{n % 7}.undo", depends_on=(f"t{n}",), metadata={"undoes": f"t{n}"})]
    tasks += [Task(task_id="plain", kind="command", metadata={"undoes": "nothing"})]
    records = [TaskRecord(task=task, status=TaskStatus.COMPLETED if n % 3 else TaskStatus.FAILED) for n, task in enumerate(tasks)]
    made, more = summary(records)
    wanted = folded([node_of(record, 1) for record in records])

    def facts(nodes):
        return [(n.name, n.label, n.statuses, set(n.needs), n.condition, n.kind, n.undoes, n.undoable) for n in nodes]

    assert (facts(made), more) == (facts(wanted), 0)


def test_waves_become_one_graph_again():
    """A task that was carried into another wave stands once, as it stood last; a folded element is known by its new name."""
    first = [node("a", status="DEFERRED"), Node(name="lint.*", label="lint", statuses={"COMPLETED": 9})]
    second = [node("a", status="COMPLETED"), node("b", "lint.3", "a")]
    made = rejoined([first, second])
    assert [(one.name, one.status) for one in made] == [("a", "COMPLETED"), ("lint.*", "COMPLETED"), ("b", "PENDING")]
    assert made[2].needs == (Edge("lint.*"), Edge("a"))


GRAPHS = st.lists(st.sets(st.integers(0, 30), max_size=4), max_size=30).map(
    lambda rows: [
        node(f"t{n}", *(f"t{need}" for need in sorted(needs)), label=f"l{n % 4}", status=["COMPLETED", "FAILED", "SKIPPED"][n % 3])
        for n, needs in enumerate(rows)
    ]
)


@given(GRAPHS)
def test_whatever_the_graph_every_task_stands_somewhere(nodes):
    """Folding and ordering lose no task, keep names apart, and end, even where edges go in circles or nowhere."""
    made = folded(nodes, most=3)
    assert sum(one.tasks for one in made) == len(nodes)
    assert len(set(names(made))) == len(made)
    assert all(edge.node != one.name for one in made if one.tasks > 1 for edge in one.needs)
    assert sorted(names(ordered(nodes))) == sorted(names(nodes))
    assert sorted(names(ordered(made))) == sorted(names(made))


@given(st.lists(st.sets(st.integers(0, 100), max_size=3), max_size=30))
def test_each_stands_behind_what_it_waits_for(rows):
    """Without circles, every node comes after all that it waits for."""
    nodes = [node(f"t{n}", *(f"t{need % n}" for need in needs if n)) for n, needs in enumerate(rows)]
    place = {one.name: at for at, one in enumerate(ordered(nodes[::-1]))}
    assert all(place[edge.node] < place[one.name] for one in nodes for edge in one.needs)
