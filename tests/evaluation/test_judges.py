"""The task that judges, what it is given, and what its answer says."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phase21.domain.references import resolved
from phase21.domain.tasks import TaskStatus
from phase21.domain.workflows import Judged, Upstream
from phase21.evaluation.judges import JUDGE_ID, RESULTS_BYTES, Marks, fitted, json_bytes, judge_task, scores_of

RESULTS = {"a": Upstream(TaskStatus.COMPLETED, {"said": "yes"}), "b": Upstream(TaskStatus.FAILED, None, "exit status 1")}
TOLD = {
    "a": {"status": "COMPLETED", "result": {"said": "yes"}},
    "b": {"status": "FAILED", "result": None, "error": "exit status 1"},
}


def judge(**fields):
    return judge_task(Judged(judge=fields), "r", RESULTS)


def test_a_command_finds_the_results_on_its_stdin():
    """As an object, which the engine writes as JSON; it is tried once."""
    task = judge(kind="command", payload={"argv": ["judge"]}, timeout_s=5.0)
    assert (task.task_id, task.kind, task.max_attempts, task.timeout_s) == (JUDGE_ID, "command", 1, 5.0)
    assert task.payload == {"argv": ["judge"], "stdin": {"run_id": "r", "results": TOLD, "shortened": []}}
    assert judge(kind="command", payload={"argv": ["judge"]}, max_attempts=3).max_attempts == 3


def test_a_function_finds_them_as_an_argument():
    """Beside those that the judge names itself."""
    task = judge(kind="python", payload={"callable": "judges:fair", "kwargs": {"strict": True}})
    assert task.payload == {"callable": "judges:fair", "kwargs": {"strict": True, "results": TOLD}}
    assert task.max_attempts is None


def test_every_other_kind_finds_them_in_its_payload():
    """`schema`, `model` and handlers of users' own."""
    assert judge(kind="schema", payload={"schema": True}).payload == {"schema": True, "results": TOLD, "shortened": []}


def test_a_judge_may_refer_to_results_and_no_result_refers_to_anything():
    """It waits for those that it names, so that they are filled in; what tasks left is marked as not to be looked through."""
    sly = {**RESULTS, "c": Upstream(TaskStatus.COMPLETED, {"$from": "b"})}
    judge = Judged(judge={"kind": "other", "payload": {"goal": {"$from": "a", "path": "result.said"}, "gone": {"$from": "z"}}})
    task = judge_task(judge, "r", sly)
    assert [(needed.task, needed.when) for needed in task.dependencies()] == [("a", "settled")]
    filled = resolved({name: task.payload[name] for name in ("goal", "results")}, sly)
    assert filled["goal"] == "yes"
    assert filled["results"]["c"]["result"] == {"$from": "b"}
    assert not list(judge_task(Judged(judge={"kind": "other"}), "r", sly).needs())


def test_what_makes_no_task_is_refused():
    """Where the judge's fields are wrong, the path says which."""
    with pytest.raises(msgspec.ValidationError, match="timeout_s"):
        judge(kind="command", timeout_s="soon")


def test_long_texts_are_shortened_first():
    """Their ends are kept, and the task is named."""
    results = {f"t{n}": Upstream(TaskStatus.COMPLETED, {"stdout": ["x" * 4000 + "end"], "n": n}) for n in range(25)}
    told, shortened = fitted({**results, **RESULTS})
    assert shortened == list(results)
    assert told["t0"]["result"]["stdout"][0].endswith("end")
    assert told["t0"]["result"]["n"] == 0
    assert told["a"] == TOLD["a"]


def test_large_results_are_taken_away_next():
    """The largest, as many as must be; the task's status stays."""
    large = Upstream(TaskStatus.COMPLETED, list(range(20_000)))
    told, shortened = fitted({"large": large, **RESULTS})
    assert told == {"large": {"status": "COMPLETED", "cut": True}, **TOLD}
    assert shortened == ["large"]


def test_tasks_without_number_are_left_out_at_last():
    """What does not fit even bare is named alone."""
    results = {f"t{n}": Upstream(TaskStatus.SKIPPED) for n in range(5_000)}
    told, shortened = fitted(results)
    assert 0 < len(told) < 5_000
    assert len(told) + len(shortened) >= 5_000


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@given(anything)
def test_the_size_is_never_underestimated(value):
    """JSON takes no more bytes than is said."""
    assert len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")) <= json_bytes(value)


@given(
    st.dictionaries(st.text(max_size=8), st.builds(Upstream, st.sampled_from(TaskStatus), anything, st.none() | st.text())),
    st.integers(2, 400),
)
def test_what_is_given_fits(results, most_bytes):
    """Whatever the results, and however little may be told of them."""
    told, shortened = fitted(results, most_bytes)
    assert json_bytes(told) <= most_bytes
    assert set(shortened) <= set(results)
    assert RESULTS_BYTES < 64 * 1024


@pytest.mark.parametrize(
    ("result", "marks"),
    [
        (85, Marks(score=85.0)),
        ({"score": 70.5, "tasks": {"a": 70}, "reasons": ["thin"]}, Marks(score=70.5, tasks={"a": 70.0}, reasons=("thin",))),
        ({"tasks": {"a": 50, "b": 100}}, Marks(score=75.0, tasks={"a": 50.0, "b": 100.0})),
        ({"exit_status": 0, "stdout": "fine\n", "stderr": ""}, Marks(score=100.0)),
        ({"exit_status": 0, "stdout": 'a log {line}\n{"score": 12}\n'}, Marks(score=12.0)),
        ({"exit_status": 1, "stdout": '{"score": 12}'}, Marks(score=12.0)),
        ({"exit_status": 0, "stdout": '{"other": 12}'}, Marks(score=100.0)),
        ({"exit_status": 2, "stdout": "out", "stderr": "first\nb is empty\n"}, Marks(score=0.0, reasons=("b is empty",))),
        ({"exit_status": 2, "stdout": "out", "stderr": ""}, Marks(score=0.0, reasons=("out",))),
        ({"exit_status": 2}, Marks(score=0.0)),
    ],
)
def test_what_a_judge_may_answer(result, marks):
    """A number, an object, or of a command its last line, else its exit status."""
    assert scores_of(result, json.loads) == marks


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (None, "nothing"),
        (True, "True"),
        ("good", "'good'"),
        ({"score": 101}, "not a number of 0 to 100, but 101"),
        ({"score": True}, "but True"),
        ({}, "but nothing"),
        ({"score": 50, "tasks": {"a": "high"}}, "`tasks`"),
        ({"score": 50, "tasks": [1]}, "`tasks`"),
        ({"score": 50, "reasons": "thin"}, "`reasons`"),
        ({"score": 50, "reasons": [1]}, "`reasons`"),
        ({"exit_status": 0, "stdout": '"a": 3}}'}, "no whole JSON object"),
        ({"exit_status": -9, "stdout": ""}, "signal 9"),
        ({"exit_status": None}, "signal None"),
    ],
)
def test_what_cannot_be_read_says_why(result, reason):
    """Never a score that nobody gave."""
    found = scores_of(result, json.loads)
    assert isinstance(found, str)
    assert reason in found
