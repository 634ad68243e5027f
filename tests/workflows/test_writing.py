"""Submissions as TOML."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phase21.domain.errors import InputRefused
from phase21.workflows.writing import toml

LEAVES = st.text(max_size=12) | st.integers(-(2**63), 2**63 - 1) | st.booleans() | st.floats(allow_nan=False, allow_infinity=False)
ANY = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4), max_leaves=20
)


@given(st.dictionaries(st.text(max_size=6), ANY, max_size=5))
def test_what_is_written_reads_back(table):
    """Any table of JSON without nulls reads back as itself."""
    assert tomllib.loads(toml(table)) == table


def test_it_is_written_for_a_person():
    """Tables and lists of tables have heads of their own, null is left out, the rest stands in lines."""
    written = toml(
        {"run_id": "r", "none": None, "workflow": {"name": "w", "tasks": [{"task_id": "a", "argv": ["x", {"$from": "b"}]}]}}
    )
    assert written == (
        'run_id = "r"\n\n[workflow]\nname = "w"\n\n[[workflow.tasks]]\ntask_id = "a"\nargv = ["x", { "$from" = "b" }]\n'
    )


def test_null_within_a_list_is_refused():
    """TOML cannot say null where leaving it out would change what is meant."""
    with pytest.raises(InputRefused, match="write JSON"):
        toml({"argv": ["a", None]})
