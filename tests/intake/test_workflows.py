"""Workflows: what a submission comes to, what is made of it on the way, and everything that is refused with its path."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phase21.domain.errors import InputRefused
from phase21.domain.references import resolved
from phase21.domain.tasks import RiskLevel, Task, TaskStatus, When
from phase21.domain.workflows import Judged, Mode, OnFailure, Upstream, Workflow, WorkflowRecord
from phase21.intake import soundness
from phase21.intake.circles import cycle_among
from phase21.intake.submissions import parse
from phase21.intake.workflows import Compiled, checked_spawn, compiled, expanded
from phase21.store import codec

DONE = TaskStatus.COMPLETED
A = {"task_id": "a"}
B = {"task_id": "b", "depends_on": ["a"]}
OVER_A = {
    "task_id": "each",
    "depends_on": ["a"],
    "for_each": {"$from": "a", "path": "result.items"},
    "payload": {"x": {"$item": "name"}},
}


def made(*tasks, **fields) -> Compiled:
    return compiled(parse(codec.encode({"run_id": "r", "workflow": {"name": "flow", "tasks": tasks, **fields}})).workflow)


def refused(*tasks, **fields) -> InputRefused:
    with pytest.raises(InputRefused) as caught:
        made(*tasks, **fields)
    assert caught.value.path
    return caught.value


def by_id(tasks) -> dict[str, Task]:
    return {task.task_id: task for task in tasks}


def needs(task) -> dict[str, str]:
    return {needed.task: str(needed.when) for needed in task.dependencies()}


def left(items, status=DONE):
    return {"a": Upstream(status, {"items": items})}


# -- what it comes to


def test_the_fields_of_a_workflow():
    """What is said of the workflow is kept beside its tasks; what is not said is as the reference has it."""
    assert made(A).workflow == Workflow(name="flow")
    fields = {
        "mode": "parallel",
        "on_failure": "compensate",
        "max_parallel": 2,
        "max_tasks": 9,
        "max_depth": 0,
        "evaluate": {"runs": 7},
    }
    assert made(A, **fields).workflow == Workflow(
        name="flow",
        mode=Mode.PARALLEL,
        on_failure=OnFailure.COMPENSATE,
        max_parallel=2,
        max_tasks=9,
        max_depth=0,
        evaluate=Judged(runs=7),
    )


def test_tasks_are_plain_tasks():
    """A task of a workflow is a task as any other, with a step by which it is known from run to run."""
    (task,) = made({**A, "kind": "command", "payload": {"argv": ["true"]}, "risk_level": "HIGH"}).tasks
    assert type(task) is Task
    assert task == Task(task_id="a", kind="command", payload={"argv": ["true"]}, risk_level=RiskLevel.HIGH, step="flow/a")
    (task,) = made({**A, "step": "mine"}).tasks
    assert task.step == "mine"


def test_sequential_is_a_chain():
    """Each task waits for the one before; what it says of that one itself stands."""
    tasks = by_id(
        made(A, {"task_id": "b", "depends_on": [{"task": "a", "when": "settled"}]}, {"task_id": "c"}, mode="sequential").tasks
    )
    assert [needs(tasks[name]) for name in "abc"] == [{}, {"a": "settled"}, {"b": "succeeded"}]


@pytest.mark.parametrize("mode", ["graph", "conditional"])
def test_graph_and_conditional_are_as_written(mode):
    """Nothing is added to what the tasks say themselves."""
    condition = "tasks.a.status == 'COMPLETED'"
    tasks = by_id(made(A, {**B, "condition": condition}, {"task_id": "c"}, mode=mode).tasks)
    assert [needs(task) for task in tasks.values()] == [{}, {"a": "succeeded"}, {}]
    assert tasks["b"].condition == condition


def test_a_step_over_a_literal():
    """A list that holds marks of its own may stand in `$literal`."""
    tasks = made({**A, "for_each": {"$literal": [1, 2]}, "payload": {"v": {"$item": ""}}}).tasks
    assert [task.payload.get("v") for task in tasks] == [1, 2, None]


def test_a_list_as_written_is_expanded():
    """One task for each element, and a join under the step's own name that gathers their results in order."""
    each = {"task_id": "lint", "depends_on": ["a"], "for_each": ["x", "y"], "payload": {"w": {"$item": ""}, "n": {"$index": True}}}
    tasks = by_id(made(A, each, {"task_id": "end", "depends_on": ["lint"], "payload": {"all": {"$from": "lint"}}}).tasks)
    assert list(tasks) == ["a", "lint.0", "lint.1", "lint", "end"]
    assert [tasks[name].payload for name in ("lint.0", "lint.1")] == [{"w": "x", "n": 0}, {"w": "y", "n": 1}]
    assert {tasks[name].step for name in ("lint.0", "lint.1")} == {"flow/lint"}
    join = tasks["lint"]
    assert (join.kind, needs(join)) == ("join", {"a": "succeeded", "lint.0": "settled", "lint.1": "settled"})
    upstream = {"lint.0": Upstream(DONE, 10), "lint.1": Upstream(TaskStatus.FAILED)}
    assert resolved(join.payload, upstream) == {"results": [10, None], "statuses": {"lint.0": "COMPLETED", "lint.1": "FAILED"}}


def test_literals_are_what_they_say():
    """A task that waits for none has its literals as they are; another keeps them until its results are filled in."""
    payload = {"v": {"$literal": {"$from": "a"}}}
    tasks = by_id(made({**A, "payload": payload}, {**B, "payload": payload}).tasks)
    assert tasks["a"].payload == {"v": {"$from": "a"}}
    assert tasks["b"].payload == payload


def test_an_empty_list_is_a_join_alone():
    """Nothing to do is done at once."""
    (join,) = made({**A, "for_each": []}).tasks
    assert join.payload == {"results": []}


def test_a_child_is_put_in_line():
    """Its tasks bear its name before theirs, speak of each other by short names, and wait for all that it waits for."""
    inner = [
        {"task_id": "one", "payload": {"v": {"$from": "a"}}},
        {"task_id": "two", "payload": {"v": {"$from": "one"}}, "condition": "tasks.one.status == 'COMPLETED'",
         "compensate": {"kind": "command", "payload": {"was": {"$from": "two"}}}},
    ]  # fmt: skip
    child = {
        "task_id": "kid",
        "depends_on": ["a"],
        "condition": "tasks.a.result == 1",
        "workflow": {"mode": "sequential", "tasks": inner},
    }
    tasks = by_id(made(A, child, {"task_id": "end", "depends_on": ["kid", "kid.one"]}).tasks)
    assert list(tasks) == ["a", "kid.one", "kid.two", "kid", "end"]
    assert tasks["kid.one"].payload == {"v": {"$from": "a"}}
    two = tasks["kid.two"]
    assert needs(two) == {"a": "succeeded", "kid.one": "succeeded"}
    assert two.payload == {"v": {"$from": "kid.one"}}
    assert two.compensate.payload == {"was": {"$from": "kid.two"}}
    assert two.condition == "(tasks.a.result == 1) && (tasks[\"kid.one\"].status == 'COMPLETED')"
    assert two.step == "flow/kid.two"
    join = tasks["kid"]
    assert join.condition == "tasks.a.result == 1"
    assert needs(join) == {"a": "succeeded", "kid.one": "settled", "kid.two": "settled"}
    assert resolved(join.payload, {"kid.one": Upstream(DONE, 1), "kid.two": Upstream(TaskStatus.SKIPPED)})["results"] == {
        "one": 1,
        "two": None,
    }


def test_children_within_children_and_for_each():
    """A child may be made for each element, and the innermost name and for_each count."""
    deepest = {"task_id": "b", "depends_on": ["a.0"], "payload": {"from": {"$from": "a"}, "r": {"$item": "r"}}}
    middle = [{"task_id": "a", "for_each": {"$item": "zones"}, "payload": {"z": {"$item": ""}}}, deepest]
    kid = {"task_id": "kid", "depends_on": ["a"], "for_each": [{"r": 1, "zones": [5, 6]}], "workflow": {"tasks": middle}}
    refusal = refused(A, kid)
    assert "kid.0.b does not wait for kid.0.a" in str(refusal)
    deepest["depends_on"].append("a")
    tasks = by_id(made(A, kid).tasks)
    assert list(tasks) == ["a", "kid.0.a.0", "kid.0.a.1", "kid.0.a", "kid.0.b", "kid.0", "kid"]
    assert tasks["kid.0.a.1"].payload == {"z": 6}
    assert tasks["kid.0.b"].payload == {"from": {"$from": "kid.0.a"}, "r": 1}
    assert tasks["kid.0.a.1"].step == "flow/kid.a"


def test_a_child_in_a_child_shadows_names():
    """A name within means the nearest task of that name, and one that is not there the next outer one."""
    inner = {"task_id": "in", "workflow": {"tasks": [{"task_id": "x"}, {"task_id": "y", "depends_on": ["x", "out"]}]}}
    kid = {"task_id": "kid", "workflow": {"tasks": [{"task_id": "x"}, {"task_id": "out"}, inner]}}
    assert needs(by_id(made(kid).tasks)["kid.in.y"]) == {"kid.in.x": "succeeded", "kid.out": "succeeded"}


def test_what_undoes_a_task_may_be_a_task_of_the_list():
    """It is taken out of the list, and runs only to undo."""
    undo = {
        "task_id": "drop",
        "kind": "command",
        "payload": {"argv": ["rm", {"$from": "a", "path": "result.stdout"}]},
        "timeout_s": 3,
    }
    (task,) = made({**A, "compensate": "drop"}, undo).tasks
    assert (task.compensate.kind, task.compensate.timeout_s, task.compensate.payload) == ("command", 3, undo["payload"])


def test_a_failure_that_is_answered_does_not_fail_the_join():
    """What a task is there for, in case it fails, is no failure of the whole."""
    inner = [A, B, {"task_id": "mend", "depends_on": [{"task": "a", "when": "failed"}]}]
    join = by_id(made({"task_id": "kid", "workflow": {"tasks": inner}}).tasks)["kid"]
    assert set(join.payload["statuses"]) == {"kid.b", "kid.mend"}


# -- made on the way


def test_what_is_over_a_result_waits_with_all_that_depends_on_it():
    """It is kept as it was written, and the rest begins."""
    flow = made(A, OVER_A, {"task_id": "end", "depends_on": ["each"]}, {"task_id": "beside"})
    assert [task.task_id for task in flow.tasks] == ["a", "beside"]
    assert [step["task_id"] for step in flow.workflow.later] == ["each", "end"]
    assert codec.decode(codec.encode(flow.workflow), Workflow) == flow.workflow
    tasks, later = expanded(flow.workflow.later, left([{"name": "p"}, {"name": {"$from": "z"}}]), made=0, workflow=flow.workflow)
    assert later == ()
    assert [task.task_id for task in tasks] == ["each.0", "each.1", "each", "end"]
    assert [resolved(task.payload, {}) for task in tasks[:2]] == [{"x": "p"}, {"x": {"$from": "z"}}]
    assert needs(tasks[0]) == {"a": "succeeded"}


def test_what_is_not_known_yet_stays():
    """A list that another step over a result leaves is waited for, round by round; with nothing known all stays."""
    second = {"task_id": "more", "depends_on": ["each"], "for_each": {"$from": "each"}, "payload": {"v": {"$item": ""}}}
    flow = made(A, OVER_A, second)
    assert expanded(flow.workflow.later, {}, made=0, workflow=flow.workflow) == ((), flow.workflow.later)
    tasks, later = expanded(flow.workflow.later, left([{"name": 1}]), made=0, workflow=flow.workflow)
    assert ([task.task_id for task in tasks], [step["task_id"] for step in later]) == (["each.0", "each"], ["more"])
    tasks, later = expanded(later, {**left([]), "each": Upstream(DONE, [7])}, made=2, workflow=flow.workflow)
    assert ([task.task_id for task in tasks], later) == (["more.0", "more"], ())


@pytest.mark.parametrize(
    ("upstream", "made_before", "said"),
    [
        (left("text"), 0, "each.for_each: what it stands for is not a list"),
        ({"a": Upstream(DONE, {})}, 0, "result of a has no fields: there is no items"),
        ({"a": Upstream(TaskStatus.FAILED)}, 0, "a is FAILED, so it has no result"),
        (left([{"name": 1}] * 4), 7, "for_each is over 4 elements; max_tasks leaves room for 3 tasks"),
        (left([{"name": 1}] * 3), 7, "for_each comes to 4 tasks or more; of max_tasks 3 are left"),
        (left([{"nom": 1}]), 0, "the element has nom: there is no name"),
        ({**left([{"name": 1}]), "each.0": Upstream(DONE)}, 0, "each.0 was already given"),
    ],
)
def test_a_list_that_is_none_fails_the_join(upstream, made_before, said):
    """The join stands for the step, FAILS with the reason, and is SKIPPED where its dependencies say so."""
    flow = made(A, OVER_A, {"task_id": "end", "depends_on": ["each"]}, max_tasks=10)
    (join, end), later = expanded(flow.workflow.later, upstream, made=made_before, workflow=flow.workflow)
    assert (join.task_id, join.kind, needs(join), later) == ("each", "join", {"a": "succeeded"}, ())
    assert said in join.payload["error"]
    assert end.task_id == "end"


def test_a_default_stands_for_a_list_that_is_not_there():
    """A step over what a skipped branch would have left may say what to take instead."""
    over = {"task_id": "each", "depends_on": [{"task": "a", "when": "settled"}], "for_each": {"$from": "a", "default": []}}
    flow = made(A, over)
    (join,), _ = expanded(flow.workflow.later, {"a": Upstream(TaskStatus.SKIPPED)}, made=0, workflow=flow.workflow)
    assert join.payload == {"results": []}


# -- asked for on the way


def record(**fields):
    return WorkflowRecord(workflow=Workflow(name="flow", **fields))


PARENT = Task(task_id="p", depends_on=("a",), depth=1)


def spawned(tasks, *, flow=None, parent=PARENT, known=("a", "p", "q")):
    return checked_spawn({"spawn": tasks, "more": 1}, parent, flow or record(), set(known))


def test_what_a_task_asks_for():
    """Tasks one deeper than their parent, which they wait for; they may name tasks of the run and have all that a step has."""
    tasks = by_id(spawned([
        {"task_id": "x", "payload": {"v": {"$from": "p"}, "w": {"$from": "a"}}, "priority": "URGENT"},
        {"task_id": "y", "for_each": [1], "depends_on": ["x", {"task": "q", "when": "failed"}], "condition": "tasks.q.status == 'FAILED'"},
    ]))  # fmt: skip
    assert list(tasks) == ["x", "y.0", "y"]
    assert needs(tasks["x"]) == {"p": "succeeded"}
    assert needs(tasks["y.0"]) == {"x": "succeeded", "q": "failed", "p": "succeeded"}
    assert {task.depth for task in tasks.values()} == {2}
    assert (tasks["x"].priority, tasks["x"].step) == (0, "flow/x")


@pytest.mark.parametrize("result", [None, 3, [1], {"stdout": "x"}, {"spawn": None}, {"spawn": []}])
def test_most_results_ask_for_nothing(result):
    """Nothing is asked for where there is no list of tasks."""
    assert checked_spawn(result, PARENT, record(max_depth=0), set()) == ()


@pytest.mark.parametrize(
    ("tasks", "path"),
    [
        ({"task_id": "x"}, "spawn"),
        ([3], "spawn[0]"),
        ([{"task_id": "x"}, {"task_id": "x"}], "spawn[1].task_id"),
        ([{"task_id": "q"}], "spawn[0].task_id"),
        ([{"task_id": "x", "colour": 1}], "spawn[0].colour"),
        ([{"task_id": "x", "priority": -1}], "spawn[0].priority"),
        ([{"task_id": "x", "depends_on": ["z"]}], "spawn[0].depends_on"),
        ([{"task_id": "x", "payload": {"v": {"$from": "q"}}}], "spawn[0].payload.v.$from"),
        ([{"task_id": "x", "depends_on": ["x"]}], "spawn[0].depends_on"),
        ([{"task_id": "x", "for_each": {"$from": "p"}}], "spawn[0].for_each"),
        ([{"task_id": "x", "depth": 1}], "spawn[0].depth"),
        ([{"task_id": "x", "max_retries": 1, "max_attempts": 1}], "spawn[0].max_retries"),
    ],
)
def test_what_may_not_be_asked_for(tasks, path):
    """It is refused with the path within the result."""
    with pytest.raises(InputRefused) as caught:
        spawned(tasks)
    assert caught.value.path == path


@pytest.mark.parametrize(
    ("flow", "count", "path"),
    [
        (record(max_tasks=5), 6, "spawn"),
        (WorkflowRecord(workflow=Workflow(name="f", max_tasks=5), made=3, spawned=[PARENT]), 2, "spawn"),
        (record(max_depth=1), 1, "spawn"),
        (record(max_depth=0), 1, "spawn"),
    ],
)
def test_a_spawn_bomb_is_refused(flow, count, path):
    """Neither more tasks than max_tasks leaves, nor deeper than max_depth."""
    with pytest.raises(InputRefused) as caught:
        spawned([{"task_id": f"n{n}"} for n in range(count)], flow=flow)
    assert caught.value.path == path
    assert "max_" in str(caught.value)


def test_a_for_each_cannot_hide_a_spawn_bomb():
    """What a list as written comes to counts too."""
    with pytest.raises(InputRefused, match="max_tasks"):
        spawned([{"task_id": "x", "for_each": list(range(5))}], flow=record(max_tasks=5))


# -- what is refused


@pytest.mark.parametrize(
    ("tasks", "fields", "path", "said"),
    [
        ([{**A, "depends_on": ["b"]}, B], {}, "workflow.tasks[0].depends_on", "in a circle: a -> b -> a"),
        ([{**A, "depends_on": ["a"]}], {}, "workflow.tasks[0].depends_on", "depends on itself"),
        ([{**A, "depends_on": ["z"]}], {}, "workflow.tasks[0].depends_on", "no task z"),
        ([A, A], {}, "workflow.tasks[1].task_id", "stands twice"),
        ([{**A, "for_each": [1]}, {"task_id": "a.0"}], {}, "workflow.tasks[1].task_id", "given twice"),
        ([A, OVER_A, {"task_id": "each.7"}], {}, "workflow.tasks[2].task_id", "may be given twice"),
        ([A, OVER_A, {"task_id": "b", "depends_on": ["each.0"]}], {}, "workflow.tasks[2].depends_on", "name each, which gathers"),
        ([A, {"task_id": "b", "payload": {"v": [{"$from": "a"}]}}], {}, "workflow.tasks[1].payload.v[0].$from", "does not wait for a"),
        ([A, {**B, "payload": {"v": {"$from": "z"}}}], {}, "workflow.tasks[1].payload.v.$from", "no task z"),
        ([A, {**B, "payload": {"v": {"$from": "a", "path": "stdout"}}}], {}, "workflow.tasks[1].payload.v.path", "begins with none of"),
        ([A, {**B, "payload": {"v": {"$from": "a.*"}}}], {}, "workflow.tasks[1].payload.v.$from", "not the id"),
        ([A, {**A, "task_id": "c", "compensate": {"payload": {"v": {"$from": "a"}}}}], {}, "workflow.tasks[1].compensate.payload.v.$from",
         "does not wait"),
        ([A, {**B, "condition": "tasks.a.status == 1"}], {}, "workflow.tasks[1].condition", "no matching overload"),
        ([A, {**B, "condition": "tasks.z.status == ''"}], {}, "workflow.tasks[1].condition", "no task z"),
        ([A, {"task_id": "b", "condition": "tasks.a.error == ''"}], {}, "workflow.tasks[1].condition", "does not wait for a"),
        ([A, {**B, "condition": "tasks['a.*'].error == ''"}], {}, "workflow.tasks[1].condition", "not the id"),
        ([A, {**B, "condition": ""}], {}, "workflow.tasks[1].condition", "1 to 4096"),
        ([A, B], {"mode": "parallel"}, "workflow.tasks[1].depends_on", "in a parallel workflow"),
        ([{**A, "for_each": [1, 2, 3]}], {"max_tasks": 3}, "workflow.tasks[0]", "comes to 4 tasks"),
        ([{**A, "for_each": [1, 2, 3]}], {"max_tasks": 2}, "workflow.tasks[0].for_each", "over 3 elements"),
        ([A, {"task_id": "b"}], {"max_tasks": 1}, "workflow.tasks[1]", "comes to 2 tasks or more; max_tasks allows 1"),
        ([{"task_id": "x" * 127, "for_each": [1]}], {}, "workflow.tasks[0].task_id", "more than 128"),
        ([{**A, "for_each": {"$form": "a"}}], {}, "workflow.tasks[0].for_each", "neither a list nor"),
        ([{**A, "for_each": {"$literal": 3}}], {}, "workflow.tasks[0].for_each", "not a list"),
        ([A, {**OVER_A, "depends_on": []}], {}, "workflow.tasks[1].for_each.$from", "does not wait for a"),
        ([{**A, "for_each": [{"x": 1}], "payload": {"v": {"$item": "y"}}}], {}, "workflow.tasks[0].payload.v.$item", "has x: there is no y"),
        ([{**A, "payload": {"v": {"$item": "y"}}}], {}, "workflow.tasks[0].payload.v", "only in a task with for_each"),
        ([{**A, "compensate": {"payload": {"v": {"$index": True}}}}], {}, "workflow.tasks[0].compensate.payload.v", "only in a task with"),
        ([{**A, "compensate": "u"}], {}, "workflow.tasks[0].compensate", "u is no other task"),
        ([{**A, "compensate": "a"}], {}, "workflow.tasks[0].compensate", "a is no other task"),
        ([{**A, "compensate": "u"}, {"task_id": "u", "depends_on": ["a"]}], {}, "workflow.tasks[1].depends_on", "only to undo a"),
        ([{**A, "compensate": "u"}, {"task_id": "u"}, {"task_id": "c", "depends_on": ["u"]}], {}, "workflow.tasks[2].depends_on",
         "nothing can wait for it"),
        ([{**A, "compensate": "c"}, {"task_id": "c", "compensate": "a"}], {}, "workflow.tasks[1].compensate", "so has no compensate"),
        ([{**A, "depth": 1}], {}, "workflow.tasks[0].depth", "unknown field depth"),
        ([{**A, "workflow": {"tasks": [A]}, "kind": "command"}], {}, "workflow.tasks[0].kind", "goes with no child"),
        ([{**A, "workflow": {"tasks": [A], "on_failure": "stop"}}], {}, "workflow.tasks[0].workflow.on_failure", "a child workflow has"),
        ([{**A, "workflow": {"tasks": [{**A, "depends_on": ["z"]}]}}], {}, "workflow.tasks[0].workflow.tasks[0].depends_on", "no task z"),
        ([{**A, "workflow": {"tasks": []}}], {}, "workflow.tasks[0].workflow.tasks", "at least one"),
        ([A, {**B, "task_id": "k", "workflow": {"tasks": [{"task_id": "i", "depends_on": [{"task": "a", "when": "failed"}]}]}}], {},
         "workflow.tasks[1].workflow.tasks[0].depends_on", "to have succeeded and to have failed"),
        ([A, {**B, "condition": "true || '" + "x" * 2100 + "' == ''", "task_id": "k",
              "workflow": {"tasks": [{"task_id": "i", "condition": "true || '" + "y" * 2100 + "' == ''"}]}}], {},
         "workflow.tasks[1].workflow.tasks[0].condition", "more than 4096"),
        ([{**A, "colour": 1}], {}, "workflow.tasks[0].colour", "a task of a workflow has"),
        ([{**A, "compensate": {"kidn": "x"}}], {}, "workflow.tasks[0].compensate.kidn", "a compensation has kind"),
        ([A], {"colour": 1}, "workflow.colour", "a workflow has name"),
        ([{**A, "not_before": 5, "deadline": 5}], {}, "workflow.tasks[0].deadline", "could never begin"),
        ([A], {"mode": "random"}, "workflow.mode", "sequential, parallel"),
        ([A], {"evaluate": {"judge": {"kidn": "x"}}}, "workflow.evaluate.judge.kidn", "unknown field"),
        ([A], {"evaluate": {"judge": {"payload": {"v": {"$from": "z"}}}}}, "workflow.evaluate.judge.payload.v.$from", "no task z"),
        ([A], {"evaluate": {"judge": {"payload": {"v": {"$from": 3}}}}}, "workflow.evaluate.judge.payload.v.$from", "not the id"),
        ([A], {"evaluate": {"runs": 0}}, "workflow.evaluate.runs", "from 1 to 1000"),
        ([A], {"name": ""}, "workflow.name", "1 to 128"),
        ([{**A, "kind": "join"}], {}, "workflow.tasks[0].kind", "join is the kind of what gathers"),
        ([{**A, "compensate": {"kind": "join"}}], {}, "workflow.tasks[0].compensate.kind", "join is the kind"),
        ([A], {"evaluate": {"judge": {"kind": "join"}}}, "workflow.evaluate.judge.kind", "join is the kind"),
        ([{"task_id": "x" * 124, "compensate": {}}], {}, "workflow.tasks[0].task_id", "more than 128"),
        ([{**A, "compensate": {}}, {"task_id": "a.undo"}], {}, "workflow.tasks[1].task_id", "so is called what undoes a"),
        ([{"task_id": "workflow.judge"}], {"evaluate": {"judge": {}}}, "workflow.tasks[0].task_id", "what the judge is called"),
        ([A], {"evaluate": {"judge": {"task_id": "a"}}}, "workflow.evaluate.judge.task_id", "a judge has no task_id"),
        ([A], {"evaluate": {"judge": {"depends_on": ["z"]}}}, "workflow.evaluate.judge.depends_on", "a judge has no depends_on"),
        ([A], {"evaluate": {"judge": {"kind": "python", "payload": {"kwargs": 5}}}}, "workflow.evaluate.judge.payload.kwargs", "not an object"),
    ],
)  # fmt: skip
def test_what_is_refused_with_its_path(tasks, fields, path, said):
    """Everything that can be wrong is refused at submission, with the path of the field and the reason."""
    refusal = refused(*tasks, **fields)
    assert refusal.path == path
    assert said in str(refusal)
    assert "\n" not in str(refusal)


def test_a_result_may_come_from_far_before():
    """What a task waits for through others may be referred to as well."""
    tasks = [A, B, {"task_id": "c", "depends_on": ["b"], "payload": {"v": {"$from": "a"}}, "condition": "tasks.a.result == 1"}]
    assert len(made(*tasks).tasks) == 3


def test_many_results_may_come_from_far_before(monkeypatch):
    """However many tasks are named from afar, each that is not waited for is found, the first of them told."""
    monkeypatch.setattr(soundness, "NAMES_AT_ONCE", 2)
    chain = [{"task_id": f"t{n}", "depends_on": [f"t{n - 1}"] if n else []} for n in range(9)]
    chain[8]["payload"] = {"v": [{"$from": f"t{n}"} for n in range(7)]}
    assert len(made(*chain).tasks) == 9
    chain[8]["payload"]["v"] += [{"$from": "early"}, {"$from": "t1"}, {"$from": "beside"}]
    refusal = refused(*chain, {"task_id": "beside"}, {"task_id": "early", "depends_on": ["t8"]})
    assert refusal.path == "workflow.tasks[8].payload.v[7].$from"
    assert "t8 does not wait for early" in str(refusal)


def test_a_judge_may_ask_for_any_task():
    """It comes when all has ended."""
    assert (
        made(A, evaluate={"judge": {"kind": "command", "payload": {"v": {"$from": "a"}}}}).workflow.evaluate.judge["kind"]
        == "command"
    )
    assert made(A, evaluate={}).workflow.evaluate == Judged()


def test_a_judge_is_kept_by_the_names_of_its_fields():
    """Its task is made when all has ended, of what is kept, where other names and words would be no task's."""
    judge = made(A, evaluate={"judge": {"priority": "HIGH", "max_retries": 2}}).workflow.evaluate.judge
    assert judge == {"priority": 1, "max_attempts": 2}


def test_lists_within_lists_are_made_only_as_far_as_is_allowed():
    """A few lines may come to any number of tasks: no more are made than one too many."""
    bomb = {"task_id": "x", "for_each": [0] * 900}
    for _ in range(3):
        bomb = {"task_id": "x", "for_each": [0] * 900, "workflow": {"tasks": [bomb]}}
    assert "comes to 1001 tasks or more" in str(refused(bomb))
    over = [{**OVER_A, "payload": {}, "workflow": bomb["workflow"]}]
    (join,), rest = expanded(over, left([1]), made=0, workflow=Workflow(name="flow"))
    assert "1001 tasks or more" in join.payload["error"]
    assert rest == ()


def test_a_large_element_is_not_filled_in_without_end():
    """What a few megabytes stand for, asked for often enough, would fill any memory: it is refused before it is made."""
    often = {"task_id": "x", "for_each": ["e" * 1_000_000], "payload": {"v": [{"$item": ""}] * 300}}
    refusal = refused(often)
    assert refusal.path == "workflow.tasks[0].for_each"
    assert "more than 268435456 bytes" in str(refusal)
    assert made({**often, "payload": {"v": [{"$item": ""}] * 30}}).tasks


@pytest.mark.parametrize("name", ["each", "each.3", "after", "workflow.judge", "a.undo"])
def test_what_is_asked_for_takes_no_name_that_is_still_to_be_given(name):
    """Steps that are made later, their elements, the judge and what undoes a task have names as well."""
    waiting = record(evaluate=Judged(judge={}))
    waiting.later = [OVER_A, {"task_id": "after"}]
    with pytest.raises(InputRefused) as caught:
        spawned([{"task_id": name}], flow=waiting)
    assert caught.value.path == "spawn[0].task_id"


def test_what_is_asked_for_and_undone_needs_a_free_name():
    """What would undo it may not bear the name of a task that there is."""
    with pytest.raises(InputRefused, match="what undoes it would be called"):
        spawned([{"task_id": "n", "compensate": {}}], known=("root", "n.undo"))


@pytest.mark.parametrize("stage", ["judging", "undoing"])
def test_who_judges_or_undoes_asks_for_nothing_more(stage):
    """The end of a workflow is not put off by what stands in a judge's result."""
    ending = record()
    setattr(ending, stage, True)
    assert spawned([{"task_id": "n"}], flow=ending) == ()


def test_it_is_worked_out_once():
    """What a workflow comes to is kept with it, so that parsing and acceptance do not both work for it."""
    spec = parse(codec.encode({"run_id": "r", "workflow": {"name": "flow", "tasks": [A]}})).workflow
    assert compiled(spec) is compiled(spec)


def test_an_inner_name_that_is_nobodys_stays():
    """A child without names of its own to change, where all are shadowed by those of a child within, is left as it is."""
    inner = {"task_id": "in", "workflow": {"tasks": [{"task_id": "in"}, {"task_id": "b", "depends_on": ["in"]}]}}
    tasks = by_id(made({"task_id": "kid", "workflow": {"tasks": [inner]}}).tasks)
    assert needs(tasks["kid.in.b"]) == {"kid.in.in": "succeeded"}


# -- whatever comes


@st.composite
def graphs(draw):
    """Tasks each of which may wait for some of those before it, in any order of the list."""
    count = draw(st.integers(1, 8))
    tasks = []
    for n in range(count):
        before = draw(st.lists(st.integers(0, n - 1), max_size=3, unique=True)) if n else []
        task = {
            "task_id": f"t{n}",
            "depends_on": [{"task": f"t{one}", "when": draw(st.sampled_from(list(When)))} for one in before],
        }
        shape = draw(st.integers(0, 4))
        if shape == 1:
            task["for_each"] = draw(st.lists(st.integers(0, 9), max_size=3))
        elif shape == 2:
            task["workflow"] = {"mode": "sequential", "tasks": [{"task_id": f"t{one}"} for one in range(draw(st.integers(1, 3)))]}
        elif shape == 3 and before:
            task["for_each"] = {"$from": f"t{before[0]}"}
        if before and draw(st.booleans()) and shape != 2:
            task["payload"] = {"v": {"$from": f"t{before[-1]}"}}
        tasks.append(task)
    return draw(st.permutations(tasks))


@settings(max_examples=60, deadline=None)
@given(graphs())
def test_random_graphs_become_waves_without_circles(tasks):
    """Whatever its shapes, a sound graph becomes tasks of which each waits only for what is there, wave by wave, to the last."""
    flow = made(*tasks)
    wave, later, known = flow.tasks, flow.workflow.later, {}
    while wave:
        assert cycle_among(wave) == []
        ids = {task.task_id for task in wave}
        assert len(ids) == len(wave)
        assert not ids & set(known)
        assert all(needed in ids or needed in known for task in wave for needed in task.needs())
        assert all(codec.decode(codec.encode(task), Task) == task for task in wave)
        known |= {task_id: Upstream(DONE, [1]) for task_id in ids}
        wave, later = expanded(later, known, made=0, workflow=flow.workflow)
    assert later == ()
    assert {task["task_id"] for task in tasks} <= set(known)


garbage = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["a", "b", "a.0", "result", "succeeded", "graph", "tasks.a.status == ''"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["task_id", "depends_on", "for_each", "workflow", "tasks", "payload", "$from", "$item", "compensate", "condition",
                             "mode", "task", "when", "name", "evaluate", "judge", "x"]), inner, max_size=5)
    ),
    max_leaves=30,
)  # fmt: skip
steps = st.fixed_dictionaries(
    {"task_id": st.sampled_from(["a", "b", "c"])},
    optional={
        "depends_on": garbage, "for_each": garbage, "workflow": garbage, "payload": st.dictionaries(st.just("x"), garbage),
        "compensate": garbage, "condition": garbage,
    },
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(
    garbage | st.fixed_dictionaries({"name": st.just("f"), "tasks": st.lists(steps, min_size=1, max_size=4)}),
    st.lists(steps, max_size=3),
)
def test_garbage_is_refused_and_nothing_else(workflow, rows):
    """Whatever stands in a workflow, or is asked for, it is taken or refused."""
    for act in (
        lambda: parse(codec.encode({"run_id": "r", "workflow": workflow})),
        lambda: checked_spawn({"spawn": rows}, PARENT, record(), {"a"}),
    ):
        try:
            act()
        except InputRefused as refusal:
            assert str(refusal)  # noqa: PT017 - one of two ways


@settings(max_examples=60, deadline=None)
@given(garbage)
def test_no_result_makes_expanding_fail(result):
    """Whatever a task left, what is made over it is tasks, or a join that fails."""
    flow = made(A, {**OVER_A, "for_each": {"$from": "a"}})
    tasks, later = expanded(flow.workflow.later, {"a": Upstream(DONE, result)}, made=0, workflow=flow.workflow)
    assert tasks[-1].kind == "join"
    assert later == ()
    assert msgspec.to_builtins(tasks)
