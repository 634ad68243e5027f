"""References: what they are, what they stand for, and how one that stands for nothing is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from phase21.domain.references import (
    Reference,
    ReferenceFault,
    item_marks,
    marked,
    references,
    renamed,
    resolved,
    with_item,
)
from phase21.domain.tasks import TaskStatus
from phase21.domain.workflows import Upstream

UP = {
    "build": Upstream(TaskStatus.COMPLETED, {"stdout": "1.2\n", "files": [{"name": "a"}, "b"], "odd.name": 1}),
    "test": Upstream(TaskStatus.FAILED, {"stdout": "no"}, "exit status 1"),
    "empty": Upstream(TaskStatus.COMPLETED),
}

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text().filter(lambda key: not key.startswith("$")), inner, max_size=3)
    ),
    max_leaves=12,
)
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=8)
    | st.sampled_from(["result.a", "build", "status[0]", "result[0"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["$from", "$item", "$index", "$literal", "path", "default", "x"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("mark", "value"),
    [
        ({"$from": "build"}, UP["build"].result),
        ({"$from": "build", "path": "result.stdout"}, "1.2\n"),
        ({"$from": "build", "path": "result.files[0].name"}, "a"),
        ({"$from": "build", "path": 'result["odd.name"]'}, 1),
        ({"$from": "build", "path": "status"}, "COMPLETED"),
        ({"$from": "build", "path": "error"}, None),
        ({"$from": "test", "path": "status"}, "FAILED"),
        ({"$from": "test", "path": "error"}, "exit status 1"),
        ({"$from": "test", "default": 7}, 7),
        ({"$from": "build", "path": "result.nothing", "default": None}, None),
        ({"$from": "unknown", "default": []}, []),
        ({"$literal": {"$from": "build"}}, {"$from": "build"}),
        ({"$literal": {"$literal": 1}}, {"$literal": 1}),
    ],
)
def test_what_a_reference_stands_for(mark, value):
    """A part of a result, the status or the error of a task; a default where there is none; a literal as it stands."""
    assert resolved({"deep": [{"in": mark}], "beside": 1}, UP) == {"deep": [{"in": value}], "beside": 1}


@pytest.mark.parametrize(
    ("mark", "at", "said"),
    [
        ({"$from": "nobody"}, "payload.x", "nothing is known of task nobody"),
        ({"$from": "test"}, "payload.x", "test is FAILED, so it has no result"),
        ({"$from": "build", "path": "result.nope"}, "payload.x", "result of build has stdout, files, odd.name: there is no nope"),
        ({"$from": "build", "path": "result.files[2]"}, "payload.x", "result.files of build has 2 elements: there is no [2]"),
        ({"$from": "build", "path": "result.stdout[0]"}, "payload.x", "result.stdout of build is text: there is no [0]"),
        ({"$from": "build", "path": "result.files[0].name.x"}, "payload.x", "files[0].name of build is text"),
        ({"$from": "build", "path": "result.files.x"}, "payload.x", "is a list: there is no x"),
        ({"$from": "empty", "path": "result.x"}, "payload.x", "result of empty is null: there is no x"),
        ({"$from": "build", "path": "status.x"}, "payload.x", "status of build is text"),
        ({"$from": "build", "path": "stdout"}, "payload.x.path", "begins with none of result, status, error"),
        ({"$from": "build", "path": "resulted"}, "payload.x.path", "begins with none of"),
        ({"$from": "build", "path": ""}, "payload.x.path", "begins with none of"),
        ({"$from": "build", "path": "result[x]"}, "payload.x.path", "cannot be read at '[x]'"),
        ({"$from": "build", "path": "result..x"}, "payload.x.path", "cannot be read"),
        ({"$from": "build", "path": 3}, "payload.x.path", "not text"),
        ({"$from": 3}, "payload.x.$from", "not the id of a task"),
        ({"$from": "build", "paht": "x"}, "payload.x", "not paht"),
    ],
)
def test_what_stands_for_nothing_is_told_with_its_place(mark, at, said):
    """The fault says which reference it is and why it stands for nothing."""
    with pytest.raises(ReferenceFault) as fault:
        resolved({"x": mark}, UP)
    assert fault.value.at == at
    assert said in fault.value.why
    assert str(fault.value) == f"{at}: {fault.value.why}"


def test_an_empty_object_is_said_to_have_no_fields():
    """Where there is nothing at all to choose from, the fault says so."""
    with pytest.raises(ReferenceFault, match="has no fields: there is no x"):
        resolved([{"$from": "a", "path": "result.x"}], {"a": Upstream(TaskStatus.COMPLETED, {})})


def test_references_are_found_in_order_with_their_places():
    """Every reference is found with where it stands; what is within a literal is none."""
    value = {"a": [{"$from": "x"}, {"b": {"$from": "y", "path": "error", "default": 1}}], "c": {"$literal": {"$from": "z"}}, "d": 1}
    assert list(references(value)) == [
        Reference(task="x", path="result", at="payload.a[0]", default=UNSET),
        Reference(task="y", path="error", at="payload.a[1].b", default=1),
    ]


@given(plain)
def test_a_value_without_marks_is_itself(value):
    """Where nothing stands for something else, nothing is copied."""
    assert not marked(value)
    assert resolved(value, {}) is value
    assert with_item(value, 1, 0) is value
    assert renamed(value, str.upper) is value
    assert list(references(value)) == []
    assert list(item_marks(value)) == []


@given(anything)
def test_anything_is_resolved_or_a_fault(value):
    """No value makes anything but a fault of a reference."""
    for act in (lambda: resolved(value, UP), lambda: list(references(value)), lambda: with_item(value, {"a": [1]}, 0)):
        try:
            act()
        except ReferenceFault as fault:
            assert fault.at.startswith("payload")  # noqa: PT017 - one of many ways


@given(plain)
def test_what_a_task_left_is_put_as_it_is(value):
    """A result comes through a reference unchanged, whatever it holds, marks too."""
    left = {"x": value, "y": {"$from": "nobody"}}
    assert resolved({"$from": "a"}, {"a": Upstream(TaskStatus.COMPLETED, left)}) == left


def test_an_element_is_put_in_place_of_its_marks():
    """`$item` is the element or a part of it, `$index` its number; other marks stay."""
    value = {
        "all": {"$item": ""},
        "name": {"$item": "name"},
        "first": [{"$item": ".tags[0]"}],
        "n": {"$index": True},
        "f": {"$from": "a"},
    }
    item = {"name": "web", "tags": ["x"]}
    assert with_item(value, item, 3) == {"all": item, "name": "web", "first": ["x"], "n": 3, "f": {"$from": "a"}}
    assert with_item({"$literal": {"$item": ""}}, 1, 0) == {"$literal": {"$item": ""}}
    assert with_item({"$item": "", "more": 1}, 1, 0) == {"$item": "", "more": 1}
    assert with_item({"n": {"$item": "x"}}, UNSET, 0) == {"n": None}


def test_marks_within_an_element_that_a_task_left_are_no_marks():
    """What comes from a result cannot refer to anything."""
    put = with_item({"x": {"$item": ""}}, {"$from": "secret"}, 0, literal=True)
    assert resolved(put, {}) == {"x": {"$from": "secret"}}


@pytest.mark.parametrize(
    ("mark", "at", "said"),
    [
        ({"$item": "colour"}, "payload.x.$item", "the element has name: there is no colour"),
        ({"$item": 3}, "payload.x.$item", "not text"),
        ({"$item": "a["}, "payload.x.$item", "cannot be read"),
    ],
)
def test_an_element_without_the_part_is_a_fault(mark, at, said):
    """The fault says where the mark stands."""
    with pytest.raises(ReferenceFault) as fault:
        with_item({"x": mark}, {"name": 1}, 0)
    assert (fault.value.at, said in fault.value.why) == (at, True)


def test_where_marks_of_elements_stand():
    """They are found wherever they are, but not within a literal."""
    assert list(item_marks({"a": [{"$item": ""}], "b": {"$index": True}, "c": {"$literal": {"$item": ""}}})) == [
        "payload.a[0]",
        "payload.b",
    ]


def test_references_are_called_by_other_names():
    """Only the names of tasks change; a malformed one stays for its reader, and a literal is left alone."""
    value = {"a": {"$from": "x", "path": "error"}, "b": [{"$from": 3}], "c": {"$literal": {"$from": "x"}}, "d": {"$item": ""}}
    assert renamed(value, lambda name: f"child.{name}") == {**value, "a": {"$from": "child.x", "path": "error"}}
