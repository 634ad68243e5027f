"""Files that people write: what they come to, and how what cannot be read is told."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phase21.domain.errors import InputRefused
from phase21.intake.documents import is_document, line_of, run_id_of
from phase21.intake.submissions import parse
from phase21.store import codec

NOW_US = 1_800_000_000_123_456
TOML = b"""
[workflow]
name = "my flow"
[[workflow.tasks]]
task_id = "a"
not_before = 2027-01-31T08:00:00+01:00
payload = { n = 1.5, x = [true, { "$item" = "k" }] }
for_each = [{ k = 1 }]
"""
YAML = b"""
workflow:
  name: my flow
  tasks:
    - task_id: a
      not_before: 2027-01-31T08:00:00+01:00
      payload: {n: 1.5, x: [yes, {$item: k}]}
      for_each:
        - k: 1
"""
WORDS = {
    "run_id": "my-flow-20270115T080000.123Z",
    "workflow": {
        "name": "my flow",
        "tasks": [
            {
                "task_id": "a",
                "not_before": "2027-01-31T08:00:00+01:00",
                "payload": {"n": 1.5, "x": [True, {"$item": "k"}]},
                "for_each": [{"k": 1}],
            }
        ],
    },
}


@pytest.mark.parametrize(("name", "data"), [("flow.toml", TOML), ("flow.yaml", YAML), ("FLOW.YML", b"\xef\xbb\xbf" + YAML)])
def test_both_languages_come_to_the_same_line(name, data):
    """A file is one submission; where a workflow names no run, its name and the time do."""
    line = line_of(name, data, NOW_US)
    assert codec.decode(line) == WORDS
    assert parse(line).workflow is not None
    assert b"\n" not in line


def test_files_of_these_kinds_are_known_by_name():
    """Everything else is JSON."""
    assert [is_document(name) for name in ("a.toml", "b/c.yaml", "d.YML", "e.json", "toml", "-", "f.jsonl")] == [True] * 3 + [
        False
    ] * 4


def test_a_run_id_that_is_given_stands():
    """Nothing is put in its place; and where there is no workflow, none is made."""
    assert codec.decode(line_of("a.toml", b'run_id = "r"\nworkflow = { name = "w" }', NOW_US))["run_id"] == "r"
    assert "run_id" not in codec.decode(line_of("a.toml", b"tasks = []", NOW_US))
    assert run_id_of("ä" * 200, NOW_US) == "run-20270115T080000.123Z"
    assert len(run_id_of("a" * 200, NOW_US)) <= 128


@pytest.mark.parametrize(
    ("name", "data", "path", "said"),
    [
        ("a.toml", b"run_id = ", None, "not TOML: Invalid value (at end of document)"),
        ("a.toml", b"\xff", None, "not UTF-8 at byte 0"),
        ("a.yaml", b"a: [", None, "not YAML: "),
        ("a.yaml", b"a: 1\nb: {x: 1, y: 2, x: 3}", None, "x is given twice"),
        ("a.yaml", b"- 1", None, "a file holds one"),
        ("a.yaml", b"", None, "a file holds one"),
        ("a.yaml", b"a: !!python/object:os.system {}", None, "could not determine a constructor"),
        ("a.yaml", b"tasks:\n- on: 1", "tasks[0]", "the name true is no text; put it in quotes"),
        ("a.yaml", b"1: 2", None, "the name 1 is no text"),
        ("a.yaml", b"metadata: {x: !!binary aGVsbG8=}", "metadata.x", "JSON has no bytes"),
        ("a.yaml", b"metadata: {x: .nan}", "metadata.x", "not a finite number"),
        ("a.toml", b"metadata = { x = [1, inf] }", "metadata.x[1]", "not a finite number"),
        ("a.toml", b"x = 2027-01-31T08:00:00", "x", "a time without its offset"),
        ("a.yaml", (b"a: &a [1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,"
         b"*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e,*e]\ng: [*f,*f,*f,*f,*f,*f,*f,*f,*f,*f]"),
         "", "more than 1000000 values"),
        ("a.yaml", b"a: &a [*a]", "", "deeper than 64 levels"),
        ("a.yaml", b"x: 2027-99-99", None, "not YAML: month must be in 1..12"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_with_its_path(name, data, path, said):
    """Neither language runs anything, and what JSON cannot say is refused where it stands."""
    with pytest.raises(InputRefused) as caught:
        line_of(name, data, NOW_US)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path in ("", caught.value.path)


def test_days_are_text():
    """A day, or a time of one, is what it reads as."""
    assert codec.decode(line_of("a.toml", b"x = [2027-01-31, 08:00:00]", 0)) == {"x": ["2027-01-31", "08:00:00"]}


def test_merge_keys_are_understood():
    """What fields share may be written once, as YAML allows."""
    text = b"base: &base {kind: command, timeout_s: 3}\ntask: {<<: *base, timeout_s: 4}"
    assert codec.decode(line_of("a.yaml", text, 0))["task"] == {"kind": "command", "timeout_s": 4}


def test_merge_keys_multiply_nothing_beyond_bounds():
    """Merges of merges, which a few lines may hold, are refused before they fill the memory."""
    text = "a0: &a0 {" + ", ".join(f"k{n}: 1" for n in range(10)) + "}\n"
    text += "".join(f"a{n}: &a{n}\n  <<: [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
    with pytest.raises(InputRefused, match="merges more than"):
        line_of("a.yaml", text.encode(), NOW_US)


def test_a_number_that_no_reader_could_hold_is_refused():
    """YAML makes numbers of sixties; one of thousands of digits is told, not raised."""
    with pytest.raises(InputRefused, match="digits"):
        line_of("a.yaml", b"a: " + b":".join([b"59"] * 5000), NOW_US)


def test_without_the_extra_yaml_names_it(monkeypatch):
    """TOML needs nothing."""
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(InputRefused, match=r"phase21\[workflows\]"):
        line_of("a.yaml", YAML, NOW_US)
    assert line_of("a.toml", TOML, NOW_US)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["a.toml", "a.yaml"]),
    st.binary(max_size=40) | st.text(alphabet="a:-[]{}'\"&*!<=\n #|>%@,1.?~", max_size=40).map(str.encode),
)
def test_any_file_is_a_line_or_refused(name, data):
    """Whatever a file holds, it becomes a line of JSON or is refused."""
    try:
        line = line_of(name, data, NOW_US)
    except InputRefused:
        return
    assert isinstance(codec.decode(line), dict)
