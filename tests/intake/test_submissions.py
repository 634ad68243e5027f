"""What a line of the queue file may say, and how it is refused."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from phase21.domain.errors import InputRefused
from phase21.domain.settings import Settings
from phase21.domain.tasks import RiskLevel, Task
from phase21.intake.submissions import Submission, check_depth, cycle_among, parse
from phase21.store import codec

FUZZ_CASES = int(os.environ.get("PHASE21_FUZZ_CASES", "2000"))
A_TASK = {"task_id": "t1"}


def line_of(**fields):
    return codec.encode({"run_id": "r", **fields})


def refusal_of(line: bytes, **limits) -> InputRefused:
    with pytest.raises(InputRefused) as caught:
        parse(line, **limits)
    assert "\n" not in str(caught.value)
    return caught.value


def refusal_of_task(**fields) -> InputRefused:
    return refusal_of(line_of(tasks=[{**A_TASK, **fields}]))


def test_tasks_are_taken_as_plain_tasks_with_their_defaults():
    """A line of tasks gives values of the house's own type, equal to what a replay gives."""
    submission = parse(line_of(wave=3, submission_id="s", tasks=[A_TASK], metadata={"by": "me"}))
    assert submission == Submission(run_id="r", submission_id="s", wave=3, tasks=(Task(task_id="t1"),), metadata={"by": "me"})
    assert type(submission.tasks[0]) is Task


def test_the_defaults_of_a_task():
    """What a task does not say is as the contract's table has it; timeout and attempts are then the configuration's."""
    (task,) = parse(line_of(tasks=[A_TASK])).tasks
    assert {name: getattr(task, name) for name in Task.__struct_fields__} == {
        "task_id": "t1", "kind": "simulate", "payload": {}, "predicted_success_rate": 0.85, "predictions": {}, "priority": 2,
        "risk_level": RiskLevel.LOW, "estimated_duration_s": 1.0, "agent_id": None, "capabilities": (), "depends_on": (),
        "timeout_s": None, "max_attempts": None, "idempotent": True, "approved": False, "heuristics": (), "features": {}, "metadata": {},
        "condition": None, "step": None, "compensate": None, "not_before": None, "deadline": None, "limit_key": None, "depth": 0,
    }  # fmt: skip
    defaults = Settings()
    assert (defaults.handlers.default_timeout, defaults.retry.max_attempts) == (30, 3)


@pytest.mark.parametrize("name", ["a", "9", "A.b_c-D", "x" * 128])
def test_names_of_the_allowed_form(name):
    """1 to 128 of A-Z a-z 0-9 . _ -, beginning with a letter or digit, for a run as for a task."""
    submission = parse(codec.encode({"run_id": name, "tasks": [{"task_id": name}]}))
    assert (submission.run_id, submission.tasks[0].task_id) == (name, name)


@pytest.mark.parametrize("name", ["", ".a", "_a", "-a", "a b", "a/b", "a\n", "é", "x" * 129, 1, None])
def test_run_ids_of_another_form_are_refused(name):
    """A run's name becomes a folder's: what is not of the allowed form is refused."""
    assert refusal_of(codec.encode({"run_id": name, "tasks": [A_TASK]})).path == "run_id"


def test_a_line_may_have_sixteen_mebibytes():
    """The limit is 16 MiB where nothing else is configured."""
    assert Settings().queue.max_line_bytes == 16 * 1024 * 1024
    line = line_of(tasks=[A_TASK]) + b" "
    assert parse(line.ljust(16 * 1024 * 1024)).tasks
    refusal_of(line.ljust(16 * 1024 * 1024 + 1))


def test_metadata_goes_with_each_of_the_three():
    """Any object is kept, whatever is asked for."""
    for asked in ({"tasks": [A_TASK]}, {"predictions": "p"}, {"control": "pause"}):
        assert parse(line_of(metadata={"by": {"deep": [1]}}, **asked)).metadata == {"by": {"deep": [1]}}


def test_every_field_of_a_task_is_taken():
    """What the contract lists is understood, under its own name."""
    fields = {
        "task_id": "t", "kind": "command", "payload": {"argv": ["true"]}, "predicted_success_rate": 1, "predictions": {"a": 0.5},
        "priority": 1, "risk_level": "HIGH", "estimated_duration_s": 0, "agent_id": "a", "capabilities": ["c"], "depends_on": [],
        "timeout_s": 0.5, "max_attempts": 7, "idempotent": False, "approved": True, "heuristics": ["h"], "features": {"size": 3, "repo": "a"},
        "metadata": {"m": None}, "step": "build", "not_before": 3, "deadline": "2027-01-31T08:00:00+01:00", "limit_key": "disk",
    }  # fmt: skip
    assert set(Task.__struct_fields__) - set(fields) == {"condition", "compensate", "depth"}
    (task,) = parse(line_of(tasks=[fields])).tasks
    assert (task.risk_level, task.max_attempts, task.idempotent, task.heuristics) == (RiskLevel.HIGH, 7, False, ("h",))
    assert task.features == {"size": 3.0, "repo": "a"}


@pytest.mark.parametrize(
    "features",
    [{"a": True}, {"a": None}, {"a": [1]}, {"": 1}, {"a" * 129: 1}, {"a": "x" * 257}, {f"f{n}": n for n in range(257)}, [1], "a"],
)
def test_features_of_another_form_are_refused(features):
    """A feature is a number or a short text under a name, and a task has 256 at most."""
    refused = refusal_of(line_of(tasks=[{**A_TASK, "features": features}]))
    assert refused.path.startswith("tasks[0].features")
    assert "up to 256 features" in str(refused)


def test_upstream_names_stand_for_fields():
    """Phase 20's names and the seeds' are read as the fields that they mean; its risk assessment is metadata."""
    row = {
        "task_id": "t",
        "predicted_success_probability": 0.5,
        "predicted_execution_time": 2,
        "heuristics_applied": ["h"],
        "max_retries": 4,
        "risk_assessment": "HIGH",
        "metadata": {"kept": 1},
    }
    (task,) = parse(line_of(tasks=[row])).tasks
    assert (task.predicted_success_rate, task.estimated_duration_s, task.max_attempts) == (0.5, 2.0, 4)
    assert task.heuristics == ("h",)
    assert task.risk_level is RiskLevel.LOW
    assert task.metadata == {"kept": 1, "risk_assessment": "HIGH"}


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"max_retries": 2, "max_attempts": 2}, "tasks[0].max_retries"),
        ({"predicted_success_probability": 0.1, "predicted_success_rate": 0.1}, "tasks[0].predicted_success_probability"),
        ({"risk_assessment": "LOW", "metadata": {"risk_assessment": "LOW"}}, "tasks[0].risk_assessment"),
        ({"predicted_success_probability": 2}, "tasks[0].predicted_success_probability"),
        ({"max_retries": 0}, "tasks[0].max_retries"),
        ({"max_retries": 1, "colour": "red"}, "tasks[0].colour"),
        ({"colour": "red"}, "tasks[0].colour"),
        ({"priority": -1}, "tasks[0].priority"),
        ({"priority": 2.0}, "tasks[0].priority"),
        ({"priority": True}, "tasks[0].priority"),
        ({"predicted_success_rate": "0.9"}, "tasks[0].predicted_success_rate"),
        ({"predicted_success_rate": 1.01}, "tasks[0].predicted_success_rate"),
        ({"risk_level": "low"}, "tasks[0].risk_level"),
        ({"timeout_s": 0}, "tasks[0].timeout_s"),
        ({"estimated_duration_s": -1}, "tasks[0].estimated_duration_s"),
        ({"task_id": "t1\n"}, "tasks[0].task_id"),
        ({"task_id": ""}, "tasks[0].task_id"),
        ({"task_id": "é"}, "tasks[0].task_id"),
        ({"task_id": "x" * 129}, "tasks[0].task_id"),
        ({"task_id": None}, "tasks[0].task_id"),
        ({"payload": []}, "tasks[0].payload"),
        ({"depends_on": ["t1"]}, "tasks[0].depends_on"),
        ({"payload": {"n": [2**64]}}, "tasks[0].payload.n[0]"),
        ({"payload": {"n": -(2**63) - 1}}, "tasks[0].payload.n"),
    ],
)
def test_a_wrong_field_is_refused_by_its_path(fields, path):
    """A refusal names the field as the line itself does."""
    assert refusal_of_task(**fields).path == path


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({}, None),
        ({"tasks": []}, "tasks"),
        ({"tasks": [1]}, "tasks[0]"),
        ({"tasks": [{}]}, "tasks[0].task_id"),
        ({"tasks": [A_TASK], "predictions": "p"}, "predictions"),
        ({"predictions": "p", "control": "pause"}, "control"),
        ({"predictions": "p", "wave": 1}, "wave"),
        ({"control": "pause", "wave": 1}, "wave"),
        ({"control": "cancel", "task_ids": []}, "task_ids"),
        ({"control": "stop"}, "control"),
        ({"tasks": [A_TASK], "task_ids": ["a"]}, "task_ids"),
        ({"tasks": [A_TASK], "wave": 0}, "wave"),
        ({"tasks": [A_TASK], "wave": 1.0}, "wave"),
        ({"tasks": [A_TASK], "extra": 1}, "extra"),
        ({"tasks": [A_TASK], "metadata": []}, "metadata"),
        ({"tasks": [A_TASK], "run_id": ".hidden"}, "run_id"),
        ({"tasks": [A_TASK], "submission_id": ""}, "submission_id"),
        ({"tasks": [{"task_id": "a"}, {"task_id": "b"}, {"task_id": "a"}]}, "tasks[2].task_id"),
        (
            {"tasks": [{"task_id": "a"}, {"task_id": "b", "depends_on": ["c"]}, {"task_id": "c", "depends_on": ["b"]}]},
            "tasks[1].depends_on",
        ),
    ],
)
def test_a_wrong_line_is_refused_by_its_path(fields, path):
    """Exactly one thing is asked for, and every name is known."""
    assert refusal_of(line_of(**fields)).path == path


@pytest.mark.parametrize(
    "line",
    [
        b"", b"nonsense", b"[1]", b'"text"', b"null", b"\xff", b"\xef\xbb\xbf{}", b'{"run_id":"r","control":"pause"', b"{'run_id':1}",
        b'{"run_id":"r","tasks":[{"task_id":"a","payload":{"x":NaN}}]}', b'{"run_id":"r","tasks":[{"task_id":"a","payload":{"x":1e999}}]}',
        b'{"run_id":"r","tasks":[{"task_id":"a","payload":{"x":"\\ud800"}}]}', b'{"run_id":"r","control":"pause"} {}',
        b'{"run_id":"r","control":"pause","metadata":{"x":Infinity}}', b'{"run_id":"r","control":"pause","metadata":{"x":01}}',
    ],
)  # fmt: skip
def test_what_is_not_strict_json_is_refused(line):
    """Nothing is guessed."""
    refusal_of(line)


def test_a_refusal_says_what_is_allowed():
    """The message is one line in plain words."""
    assert "LOW, MEDIUM or HIGH" in str(refusal_of_task(risk_level="low"))
    assert "capabilities" in str(refusal_of_task(colour="red"))
    assert "regex" not in str(refusal_of_task(task_id="a b"))
    refused = refusal_of_task(predictions={"a b": 0.5})
    assert (refused.path, "regex" in str(refused)) == ("tasks[0].predictions", False)


def test_a_dependency_outside_the_line_is_not_judged_here():
    """Whether the run knows it is the receiver's to say."""
    assert parse(line_of(tasks=[{"task_id": "a", "depends_on": ["elsewhere"]}])).tasks[0].depends_on == ("elsewhere",)


def nested(levels: int) -> bytes:
    """A line that is nested so many levels deep, itself among them."""
    inner = levels - 3
    return b'{"run_id":"r","tasks":[{"task_id":"a","metadata":%s1%s}]}' % (b'{"x":' * inner, b"}" * inner)


def test_sixty_four_levels_are_allowed_and_no_more():
    """The limit is exact, whatever brackets stand in strings."""
    assert parse(nested(64)).tasks
    assert "levels" in str(refusal_of(nested(65)))
    refusal_of(nested(10_000))
    wide = [{"task_id": f"t{n}", "payload": {"text": '[[{{ \\" "]', "n": [[1]]}} for n in range(200)]
    assert len(parse(line_of(tasks=wide)).tasks) == 200
    hiding = b'{"x":["]","]","]",' * 70 + b"1" + b"]}" * 70
    with pytest.raises(InputRefused):
        check_depth(hiding)
    check_depth(b'["' + b"[" * 1000 + b'"]')


def depth_of(value) -> int:
    if isinstance(value, dict):
        return 1 + max([0, *map(depth_of, value.values())])
    if isinstance(value, list):
        return 1 + max([0, *map(depth_of, value)])
    return 0


@given(st.integers(0, 90), st.text(alphabet='[]{}"\\ab', max_size=12), st.booleans())
@settings(max_examples=300, deadline=None)
def test_depth_is_measured_truly(levels, text, among_many):
    """The quick measure agrees with a walk through the value, whatever the strings hold."""
    value = text
    for n in range(levels):
        value = [value, text] if n % 2 else {text: value}
    value = [value, *([{"x": [text]}] * 80 if among_many else [])]
    refused = False
    try:
        check_depth(codec.encode(value))
    except InputRefused:
        refused = True
    assert refused == (depth_of(value) > 64)


def test_a_line_over_the_limit_is_refused():
    """The limit counts bytes."""
    line = line_of(tasks=[A_TASK])
    assert parse(line, max_line_bytes=len(line))
    refusal_of(line, max_line_bytes=len(line) - 1)


def test_a_cycle_is_told_from_what_hangs_on_it():
    """What merely depends on a cycle is no part of it."""
    edges = {"a": ["b"], "b": ["c"], "c": ["b"], "d": []}
    assert sorted(cycle_among([Task(task_id=one, depends_on=tuple(needs)) for one, needs in edges.items()])[1:]) == ["b", "c"]
    chain = [Task(task_id=f"t{n}", depends_on=(f"t{n - 1}",) if n else ()) for n in range(300)]
    assert cycle_among(chain) == []


VALID = [
    line_of(wave=1, tasks=[{"task_id": "a", "payload": {"x": [1, 2.5, "s"]}}, {"task_id": "b", "depends_on": ["a"]}]),
    line_of(predictions="folder", metadata={"k": None}),
    line_of(control="cancel", task_ids=["a", "b"], submission_id="s"),
    line_of(tasks=[{"task_id": "a", "predicted_success_probability": 0.5, "risk_assessment": "LOW"}]),
]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from([*Submission.__struct_fields__, *Task.__struct_fields__, "max_retries", "risk_assessment", "x"])


@st.composite
def mutated(draw):
    line = bytearray(draw(st.sampled_from(VALID)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(line)))
        line[at : at + draw(st.integers(0, 6))] = draw(
            st.binary(max_size=6) | st.sampled_from([b'"', b"{", b"]", b",", b"\\u", b"1e9"])
        )
    return bytes(line)


@st.composite
def misbuilt(draw):
    task = draw(st.dictionaries(NAMES, VALUES, max_size=4)) | draw(st.sampled_from([{}, A_TASK]))
    return codec.encode({"run_id": "r", "tasks": [task], **draw(st.dictionaries(NAMES, VALUES, max_size=2))})


@given(st.one_of(st.binary(max_size=80), mutated(), misbuilt()))
@settings(max_examples=FUZZ_CASES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_line_gives_a_submission_or_a_refusal(line):
    """Whatever the bytes, there is a submission that can be written again, or one line that says why not."""
    said = None
    try:
        submission = parse(line)
    except InputRefused as refusal:
        said = str(refusal)
    if said is None:
        assert codec.decode(codec.encode(submission), Submission) == submission
    else:
        assert said.strip()
        assert "\n" not in said
        assert "Traceback" not in said


@pytest.mark.parametrize(("name", "number"), [("URGENT", 0), ("HIGH", 1), ("NORMAL", 2), ("LOW", 3), (7, 7)])
def test_priorities_have_names(name, number):
    """A priority may be called by its name, in a line of tasks as in a workflow and its children."""
    assert parse(line_of(tasks=[{**A_TASK, "priority": name}])).tasks[0].priority == number
    child = {"task_id": "c", "workflow": {"tasks": [{"task_id": "in", "priority": name}]}}
    spec = parse(line_of(workflow={"name": "w", "tasks": [{**A_TASK, "priority": name}, child]})).workflow
    assert (spec.tasks[0].priority, spec.tasks[1].workflow.tasks[0].priority) == (number, number)


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"condition": "true"}, "tasks[0].condition"),
        ({"compensate": {"kind": "command"}}, "tasks[0].compensate"),
        ({"depends_on": [{"task": "a", "when": "failed"}]}, "tasks[0].depends_on[0].when"),
        ({"depends_on": ["b", {"task": "a", "when": "settled"}]}, "tasks[0].depends_on[1].when"),
        ({"depth": 0}, "tasks[0].depth"),
        ({"for_each": [1]}, "tasks[0].for_each"),
        ({"priority": "URGNT"}, "tasks[0].priority"),
        ({"not_before": "2027-01-31T08:00:00"}, "tasks[0].not_before"),
        ({"depends_on": [{"task": "t1"}]}, "tasks[0].depends_on"),
    ],
)
def test_what_belongs_to_a_workflow_is_refused_outside_of_one(fields, path):
    """A field that has a meaning only in a workflow is refused where there is none, and one that nobody may give anywhere."""
    assert refusal_of(line_of(tasks=[{**A_TASK, **fields}])).path == path


def test_a_dependency_may_be_an_object():
    """`{"task": id}` is the same as the id."""
    _, task = parse(line_of(tasks=[A_TASK, {"task_id": "u", "depends_on": [{"task": "t1"}]}])).tasks
    assert list(task.needs()) == ["t1"]


def test_a_fork_names_its_run_and_task():
    """A fork is an alternative of its own, and strict."""
    assert parse(line_of(fork={"run": "a", "from": "b"})).fork.begin == "b"
    refused = refusal_of(line_of(fork={"run": "a", "begin": "b"}))
    assert refused.path == "fork.begin"
    assert "run, from" in str(refused)


def test_nobody_asks_for_a_join():
    """A join is made of what is asked for; a chain of them could come to any size."""
    with pytest.raises(InputRefused) as caught:
        parse(b'{"run_id": "r", "tasks": [{"task_id": "a"}, {"task_id": "b", "kind": "join"}]}')
    assert caught.value.path == "tasks[1].kind"
