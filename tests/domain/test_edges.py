"""Who waits for whom in a wave, by place."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from phase21.domain.edges import edges_of
from phase21.domain.records import TaskRecord
from phase21.domain.tasks import Dependency, Task, When

ELSEWHERE = ("w0", "w1")
NEEDS = st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=4, unique_by=lambda need: need[0])


def wave_of(needs):
    """Tasks t0, t1, …; what a task needs beyond those before it is of another wave. The flag makes a dependency more than an id."""
    tasks = {}
    for place, needed in enumerate(needs):
        names = [(f"t{other}" if other < place else ELSEWHERE[other % 2], whole) for other, whole in needed]
        depends_on = tuple(Dependency(task=name, when=When.SETTLED) if whole else name for name, whole in dict(names).items())
        tasks[f"t{place}"] = TaskRecord(task=Task(task_id=f"t{place}", depends_on=depends_on))
    return tasks


@given(st.lists(NEEDS, max_size=10))
def test_edges_are_those_of_the_dependencies(needs):
    """Each dependency within the wave is an edge, seen from both ends; tasks that depend on anything else, or not barely, are told."""
    tasks = wave_of(needs)
    edges = edges_of(tasks)
    names = list(tasks)
    wanted = {name: [needed for needed in record.task.needs() if needed in tasks] for name, record in tasks.items()}
    assert [edges.places[name] for name in names] == list(range(len(names)))
    assert edges.records == list(tasks.values())
    assert {name: [names[at] for at in edges.parents[n]] for n, name in enumerate(names)} == wanted
    assert sorted((child, parent) for parent, own in enumerate(edges.children) for child in own) == sorted(
        (child, parent) for child, own in enumerate(edges.parents) for parent in own
    )
    plain = [name for name, record in tasks.items() if wanted[name] == list(record.task.depends_on)]
    assert [names[at] for at in edges.loose] == [name for name in names if name not in plain]
