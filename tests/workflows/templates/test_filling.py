"""Placeholders and the values that take their place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phase21.domain.errors import InputRefused
from phase21.workflows.templates.filling import Scope, filled, typed

VALUES = {
    "words": ["a", "b c"],
    "number": 3,
    "yes": True,
    "made": "{{ number }} of {{ goal }}",
    "me": "{{ you }}",
    "you": "{{ me }}",
}


def fill(node, **literal):
    return filled(node, Scope(VALUES, {"goal": "ship it", **literal}), "workflow")


def test_a_whole_text_becomes_the_value_itself():
    """A placeholder that stands alone gives the value with its type; within text it gives its words."""
    assert fill({"a": "{{ words }}", "b": " {{number}} ", "c": "{{ yes }}/{{ number }}/{{ goal }}"}) == {
        "a": ["a", "b c"],
        "b": 3,
        "c": "true/3/ship it",
    }


def test_a_list_may_be_put_into_a_list():
    """`{{ *name }}` alone in a list gives the items of the list that it names."""
    assert fill(["x", "{{ *words }}", "y"]) == ["x", "a", "b c", "y"]


def test_values_may_hold_placeholders():
    """A value is itself filled where it is put in."""
    assert fill("{{ made }}") == "3 of ship it"


def test_the_goal_is_taken_literally():
    """What the goal holds is text, whatever it looks like."""
    assert fill("do: {{ goal }}", goal="{{ words }} {{ nobody }}") == "do: {{ words }} {{ nobody }}"


def test_a_task_knows_its_instruction_and_id():
    """Within a task its filled instruction and its id are values, and in no other."""
    task = {"task_id": "t", "metadata": {"instruction": "{{ task_id }}: {{ goal }}"}, "payload": {"stdin": "{{ instruction }}"}}
    assert fill({"tasks": [task]})["tasks"][0]["payload"] == {"stdin": "t: ship it"}
    with pytest.raises(InputRefused, match=r"workflow.tasks\[1\].payload: instruction has no value"):
        fill({"tasks": [task, {"task_id": "u", "payload": "{{ instruction }}"}]})


@pytest.mark.parametrize(
    ("node", "path"),
    [
        ({"a": [{"b": "{{ nobody }}"}]}, "workflow.a[0].b"),
        ({"a": "text {{ words }}"}, "workflow.a"),
        ({"a": "text {{ *words }}"}, "workflow.a"),
        ({"a": ["{{ *number }}"]}, "workflow.a[0]"),
        ({"a": "{{ me }}"}, "workflow.a"),
        ({"a": "{{ no-body }}"}, "workflow.a"),
    ],
)
def test_what_cannot_be_filled_is_refused_with_its_path(node, path):
    """An unknown name, a list within text, something without items and a value made of itself are refused where they stand."""
    with pytest.raises(InputRefused) as refused:
        fill(node)
    assert refused.value.path == path
    assert str(refused.value).startswith(f"{path}: ")


def test_what_is_no_placeholder_stays():
    """Braces of other languages are left alone."""
    assert fill("docker --format {{.Name}} ${x} {0} {{}}") == "docker --format {{.Name}} ${x} {0} {{}}"


@given(st.text(max_size=50))
def test_no_goal_is_ever_read(goal):
    """Whatever a goal holds, it stands in the workflow as it was given."""
    assert fill(["{{ goal }}", "<{{ goal }}>"], goal=goal) == [goal, f"<{goal}>"]


@pytest.mark.parametrize(
    ("text", "like", "value"),
    [
        ("pytest -q 'a b'", ["x"], ["pytest", "-q", "a b"]),
        ('["pytest", "-q"]', ["x"], ["pytest", "-q"]),
        ("my-agent --task {{ instruction }}", ["x"], ["my-agent", "--task", "{{instruction}}"]),
        ("7", 3, 7),
        ("1.5", 3, 1.5),
        ("7", "text", "7"),
        ("7", None, "7"),
        ("true", False, True),
    ],
)
def test_a_value_is_of_the_sort_of_its_default(text, like, value):
    """`--set` gives a list from JSON or words, a number from a number, and text as it is."""
    assert typed(text, like) == value


@pytest.mark.parametrize(("text", "like"), [("seven", 3), ("true", 3), ("1", True), ('"x"', 3), ("a 'b", ["x"])])
def test_a_value_of_another_sort_is_refused(text, like):
    """What is not of the default's sort is a ValueError."""
    with pytest.raises(ValueError):
        typed(text, like)
