"""Conditions: what is refused when they are written, and what comes of them."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phase21.domain.tasks import TaskStatus
from phase21.domain.workflows import Upstream
from phase21.planning import conditions
from phase21.planning.conditions import ConditionFault, both, check, judged, named, renamed

UP = {
    "a": Upstream(TaskStatus.COMPLETED, {"exit_status": 0, "found": [1, 2, 3], "nothing": None}),
    "b-c": Upstream(TaskStatus.FAILED, None, "exit status 1"),
}


@pytest.mark.parametrize(
    "text",
    [
        'tasks.a.status == "COMPLETED"',
        "tasks.a.result.exit_status == 0",
        "tasks['b-c'].error.startsWith('exit')",
        'tasks["b-c"].status == r"FAILED"',
        "tasks.a.result.found.all(x, x > 0)",
        "tasks.exists(t, tasks[t].status == 'FAILED')",
        "has(tasks.a.status) && !has(tasks.a.result.missing)",
        "size(tasks.a) == 3 // as every task",
        "tasks.a['status'] == 'COMPLETED'",
    ],
)
def test_what_is_true(text):
    """A condition sees status, result and error of every task."""
    check(text)
    assert judged(text, UP) == conditions.Held(true=True)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("tasks.a.status == 'FAILED'", "the condition is false: tasks.a.status == 'FAILED'"),
        ("tasks.a.result.missing == 1", "cannot be decided (Key not found in map"),
        ("tasks.other.status == 'FAILED'", "cannot be decided (Key not found"),
        ("tasks.a.result.exit_status", "it comes to int, not to true or false"),
        ("tasks.a.result.nothing > 1", "No matching overloads"),
        ("1 / int(tasks.a.result.exit_status) == 1", "divide by zero"),
        (("[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21].all(a, [0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21].all(b, "
         "[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21].all(c, true)))"), "Iteration budget exceeded"),
        ("1 +", "Syntax error"),
    ],
)  # fmt: skip
def test_what_is_not_true_is_false_and_says_why(text, why):
    """Whatever is not true is false, with the reason, and raises nothing."""
    held = judged(text, UP)
    assert not held.true
    assert why in held.why


def test_what_cannot_be_seen_is_no_exception():
    """A value that the library does not take makes the condition false."""
    held = judged("tasks.a.status == 'COMPLETED'", {"a": Upstream(TaskStatus.COMPLETED, "\ud800")})
    assert not held.true
    assert "cannot be decided" in held.why


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tasks.a.status == 1", "found no matching overload for '_==_' applied to '(string, int)' (at line 1, column 16)"),
        ("tasks['b-c'].status > 1 && tasks.a.status == 'x'", "'(string, int)' (at line 1, column 21)"),
        ("1 + 'a' == 2", "(int, string)"),
        ("tasks.a == 1", "found no matching overload"),
        ("a == 1", "undeclared reference to 'a'"),
        ("_status ==", "Syntax error"),
        ("1 +", "Syntax error: mismatched input '<EOF>'"),
        ("1 + 2", "comes to int, not to true or false"),
        ("'x'", "comes to string"),
        ("tasks.child.build.status == 'x'", 'named tasks["child.build"]'),
        ("tasks.a.staus == 'x'", "tasks.a has status, result and error, not staus"),
        ("(" * 300 + "true" + ")" * 300, "recursion limit"),
        ("+".join(["1"] * 500) + " == 1", "recursion depth"),
    ],
)
def test_what_is_no_condition_is_refused_where_it_is_written(text, said):
    """Syntax, names and types are checked before anything runs, and the fault says where in the text."""
    with pytest.raises(ConditionFault) as fault:
        check(text)
    assert said in str(fault.value)
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("tasks.a.status == 'x' && tasks[\"b-c\"].error != 'tasks.d'", ("a", "b-c")),
        ("tasks.a.status == tasks.a.error // tasks.d", ("a",)),
        ("true", ()),
        ("tasks.exists(t, true)", None),
        ("tasks.a.status == 'x' && size(tasks) > 1", None),
        ("tasks[string(1)].status == 'x'", None),
        ("tasks.a.result.tasks.b == 1", ("a",)),
        ("tasks", None),
        ("tasks.a", ("a",)),
        ("tasks.a.exists(x, true)", ("a",)),
        ("'''tasks.z''' == 'a' || tasks.b.status == \"\"\"tasks.y\"\"\"", ("b",)),
    ],
)
def test_the_tasks_that_are_named(text, names):
    """Names are found outside of texts and comments alone; None says that any task may be looked at."""
    assert named(text) == names


def test_names_change_and_nothing_else():
    """What is called by another name is written in brackets; what keeps its name stays as it was."""
    text = "tasks.a.status == 'tasks.a' && tasks['b'].error == tasks.c.error"
    changed = renamed(text, lambda name: {"a": "child.a", "b": "child.b"}.get(name, name))
    assert changed == 'tasks["child.a"].status == \'tasks.a\' && tasks["child.b"].error == tasks.c.error'
    assert named(changed) == ("child.a", "child.b", "c")


def test_both_conditions_hold_together():
    """One that is not there says nothing, and the same one twice is one."""
    assert both(None, None) is None
    assert both("a", None) == both(None, "a") == both("a", "a") == "a"
    assert both("a || b", "c") == "(a || b) && (c)"


@given(st.text(max_size=40) | st.text(alphabet="tasks.[]\"'()=&|!<>+-1a /\\rb", max_size=40))
def test_any_text_is_a_condition_or_a_fault(text):
    """No text raises anything but the fault, and none that is refused is true."""
    named(text)
    try:
        check(text)
    except ConditionFault:
        return
    assert isinstance(judged(text, UP).true, bool)


def test_without_the_extra_a_condition_names_it(monkeypatch):
    """Where the library is not installed, the fault says what to install, and a condition is false."""
    conditions._environment.cache_clear()
    conditions._compiled.cache_clear()
    monkeypatch.setitem(sys.modules, "cel_expr_python", None)
    with pytest.raises(ConditionFault, match=r"phase21\[workflows\]"):
        check("true")
    assert "phase21[workflows]" in judged("true", {}).why
    monkeypatch.undo()
    conditions._environment.cache_clear()
    check("true")


def test_what_is_kept_of_compiled_conditions_is_bounded():
    """However many conditions there are, only the latest are kept."""
    assert conditions._compiled.cache_info().maxsize == conditions.COMPILED_KEPT
    assert judged("true && " + " && ".join(["true"] * 60), {}).true
    assert judged("false && " + " && ".join(["true"] * 60), {}).why.endswith("…")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('["xx"]' + ".map(a, a)" * 9 + ".size() == 1", "holds 9 macros"),
        ('["xx"].all(a, a' + " + a" * 9 + " != '')", "holds 9 signs +"),
        ("[1].all(a, [" + "a, " * 40 + "a].size() > 0)", "holds 41 commas"),
    ],
)
def test_a_condition_cannot_grow_what_it_looks_at(text, said):
    """What a macro binds may be doubled in the next: a few lines would take all the memory there is."""
    with pytest.raises(ConditionFault) as caught:
        check(text)
    assert said in str(caught.value)


def test_without_macros_sums_may_be_long():
    """Nothing is bound there, so that nothing grows."""
    check("1" + " + 1" * 20 + " == 21")
