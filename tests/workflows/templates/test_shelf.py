"""Where templates are found, and what is refused of them."""

from __future__ import annotations

import pytest

from phase21.domain.errors import InputRefused, UsageError
from phase21.workflows.templates.shelf import SHIPPED, named, read, shelf, workflow_of

NAMES = ["bug_fix", "data_migration", "feature", "nightly_checks", "research", "review"]
FACTS = {"goal": "ship it", "python": "python3", "here": "/there"}
WHOLE = """
name = "mine"
description = "of one's own"
[values.where]
meaning = "a place"
required = true
[values.count]
meaning = "how many"
default = 2
[workflow]
[[workflow.tasks]]
task_id = "a"
payload = { where = "{{ where }}", count = "{{ count }}" }
"""


def put(folder, text, name="mine"):
    path = folder / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_six_come_with_it():
    """The shelf holds the six that are shipped, each under the name of its file, each value with its meaning."""
    found = list(shelf(None))
    assert [one.name for one in found] == NAMES
    assert [path.stem for path in sorted(SHIPPED.glob("*.toml"))] == NAMES
    assert all(value.meaning and not value.meaning.endswith(".") for one in found for value in one.values.values())


def test_ones_own_beats_what_is_shipped(tmp_path):
    """A template in the configured folder is found first, by the name of its file."""
    put(tmp_path, WHOLE, "feature")
    put(tmp_path, WHOLE)
    assert named("feature", str(tmp_path)).name == "mine"
    assert named("review", str(tmp_path)).name == "review"
    assert [one.name for one in shelf(str(tmp_path))] == ["bug_fix", "data_migration", "mine", "mine", *NAMES[3:]]


def test_a_path_is_read_as_it_is(tmp_path):
    """What ends in .toml is a path."""
    assert named(str(put(tmp_path, WHOLE)), None).description == "of one's own"


@pytest.mark.parametrize("name", ["nothing", "../feature", "", "a\0b"])
def test_an_unknown_name_names_those_that_are_known(name):
    """A name that is on no shelf is refused with the names that are, and reaches outside of no folder."""
    with pytest.raises(UsageError, match="bug_fix, data_migration"):
        named(name, None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name = ", "not TOML"),
        (WHOLE.replace("required = true", ""), "values.where: has either a default or required"),
        (WHOLE.replace("default = 2", "default = 2\nrequired = true"), "values.count: has either"),
        (WHOLE.replace('meaning = "a place"', "meaning = 3"), r"values\[...\].meaning"),
        (WHOLE + "\n[more]\n", "more"),
        ('name = "x"\ndescription = "y"', "workflow"),
    ],
)
def test_a_bad_template_is_refused_with_its_field(tmp_path, text, said):
    """What a template may not be is refused, naming the file and the field."""
    path = put(tmp_path, text)
    with pytest.raises(InputRefused, match=said) as refused:
        read(path)
    assert str(refused.value).startswith(str(path))


def test_a_file_that_is_not_there(tmp_path):
    """A missing file is the user's slip, not refused input."""
    with pytest.raises(UsageError, match="No such file"):
        read(tmp_path / "none.toml")


def test_values_are_put_in(tmp_path):
    """What is given for this plan beats what is usual, which beats the default; usual names that it does not know are passed over."""
    template = read(put(tmp_path, WHOLE))
    made = workflow_of(template, {"where": "here"}, FACTS, {"where": "there", "count": 5, "else": 1})
    assert made == {"name": "mine", "tasks": [{"task_id": "a", "payload": {"where": "here", "count": 5}}]}


@pytest.mark.parametrize(
    ("given", "path"), [({}, "values.where"), ({"where": "x", "count": "many"}, "values.count"), ({"wher": "x"}, "values.wher")]
)
def test_a_value_that_is_missing_or_wrong_is_refused(tmp_path, given, path):
    """A needed value that is not given, one of another sort and one that is not known are refused with the path of the field."""
    with pytest.raises(InputRefused) as refused:
        workflow_of(read(put(tmp_path, WHOLE)), given, FACTS, {})
    assert refused.value.path == path
