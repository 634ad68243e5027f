"""Lines and requests that ask for operations: understood or refused, never anything else."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phase21.domain.errors import MessageRefused
from phase21.engines import operations as ops
from phase21.engines.redaction import Secrets
from phase21.store import codec

json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(("to", "content", "name", "op", "x")), inner, max_size=3)
    ),
    max_leaves=8,
)
asked = st.dictionaries(st.sampled_from((*ops.OPERATIONS, "note", "shout")), json, max_size=3)


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ('{"phase21": {"progress": 40, "note": "half"}}', ops.Progress(percent=40.0, note="half")),
        ('{"phase21": {"send": {"to": "a", "content": [1]}}}', ops.Send(to="a", content=[1])),
        ('{"phase21": {"spawn": [{"task_id": "t"}]}}', ops.Spawn(tasks=({"task_id": "t"},))),
        ('{"phase21": {"result": {"op": 1}}}', ops.Result(value={"op": 1})),
        ('{"phase21": {"log": "text"}}', ops.Log(text="text")),
        ('{"phase21": {"heartbeat": true}}', ops.Heartbeat()),
        ('  {"phase21": {"shared": {"name": "k", "value": null}}}', ops.Shared(name="k", value=None)),
        ("phase21", None),
        ('{"other": "phase21"}', None),
    ],
)
def test_lines_are_understood(line: str, meant: ops.AnyRequest | None) -> None:
    """A line names one operation with its fields, or the value that it is about; other lines are no business of ours."""
    assert ops.on_line(line) == meant


@given(st.one_of(asked, json))
def test_a_line_is_understood_or_refused(said: object) -> None:
    """Whatever a line asks, it becomes a request or is refused."""
    line = codec.encode({"phase21": said}).decode()
    with contextlib.suppress(MessageRefused):
        assert isinstance(ops.on_line(line), ops.Request)


@given(st.one_of(st.binary(max_size=60), json.map(codec.encode)))
def test_a_request_is_understood_or_refused(data: bytes) -> None:
    """Whatever bytes come in, they become a request or are refused."""
    with contextlib.suppress(MessageRefused):
        assert isinstance(ops.request_of(data), ops.Request)


def test_what_must_not_be_seen_is_in_no_request() -> None:
    """A secret is hidden as the request has it, not as JSON spells it; what is nested too deeply to look through is refused."""
    secrets = Secrets(['pa"ssword'])
    line = codec.encode({"phase21": {"send": {"to": "b", "content": ['my pa"ssword']}}}).decode()
    assert ops.on_line(line, secrets) == ops.Send(to="b", content=["my ***"])
    assert ops.request_of(b'{"op": "result", "value": "pa\\"ssword"}', secrets) == ops.Result(value="***")
    with pytest.raises(MessageRefused, match="nested deeper"):
        ops.request_of(b'{"op": "result", "value": ' + b"[" * 100 + b"]" * 100 + b"}", secrets)
