"""What each gate approves, holds, defers and refuses, and that the first that does not approve decides."""

import pytest

from phase21.domain.judgements import Ruling, Verdict
from phase21.domain.records import AgentRecord
from phase21.domain.settings import SafetySettings
from phase21.domain.tasks import RiskLevel, Task
from phase21.gates import APPROVED, GATES, Circumstances, decide

APPROVES, DEFERS, REFUSES = (Ruling.APPROVED, None), (Ruling.DEFERRED, None), (Ruling.REJECTED, None)


def circumstances(*, task=None, agent=None, safety=None, **changes) -> Circumstances:
    usual = {
        "task": Task(task_id="t", **(task or {})),
        "agent": AgentRecord(agent_id="a", **(agent or {})),
        "safety": SafetySettings(**(safety or {})),
        "confidence": 0.85,
        "approved": False,
        "kind_refusal": None,
        "free_disk_mb": 1000.0,
        "free_memory_mb": 1000.0,
        "unmet": (),
        "rate_wait_s": 0.0,
        "tasks_started": 0,
        "first_attempt": True,
        "run_seconds": 0.0,
        "blocking": (),
        "dry_run": False,
    }
    return Circumstances(**(usual | changes))


def ruling(**changes) -> tuple[Ruling, float | None]:
    verdict = decide(circumstances(**changes))
    return verdict.ruling, verdict.wait_s


def test_all_approve():
    """Where nothing is wrong the verdict is the shared approval, which names no gate."""
    assert decide(circumstances()) is APPROVED
    assert (APPROVED.ruling, APPROVED.gate, APPROVED.reason) == (Ruling.APPROVED, None, "")


def test_order():
    """The gates stand in the order of the contract, and the first that does not approve decides."""
    assert [name for name, _ in GATES] == ["validation", "resources", "dependencies", "constraints", "risk", "anomalies"]
    wrong = {
        "kind_refusal": "no handler",
        "free_disk_mb": 0.0,
        "unmet": (("d", "FAILED"),),
        "rate_wait_s": 2.0,
        "confidence": 0.1,
        "blocking": ("prediction_drift",),
    }
    for (name, _), field in zip(GATES, list(wrong), strict=True):
        assert decide(circumstances(**wrong)).gate == name
        del wrong[field]
    assert decide(circumstances(**wrong)) is APPROVED


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"kind_refusal": "no handler for rocket"}, "no handler for rocket"),
        ({"task": {"agent_id": "b"}}, "the task is pinned to b, not a"),
        ({"task": {"capabilities": ("gpu", "net")}}, "a does not offer gpu, net"),
        ({"task": {"capabilities": ("gpu",), "agent_id": "a"}}, "a does not offer gpu"),
    ],
)
def test_validation(changes, reason):
    """A kind without a handler and an agent that cannot do the task are refused."""
    verdict = decide(circumstances(**changes))
    assert verdict == Verdict(ruling=Ruling.REJECTED, gate="validation", reason=reason)


@pytest.mark.parametrize("resource", ["disk", "memory"])
@pytest.mark.parametrize(("free", "expected"), [(99.9, (Ruling.DEFERRED, 1.0)), (100.0 - 1e-10, APPROVES), (100.0, APPROVES)])
def test_resources(resource, free, expected):
    """Too little free disk or memory holds the task until there is more."""
    assert ruling(safety={f"min_free_{resource}_mb": 100.0}, **{f"free_{resource}_mb": free}) == expected


@pytest.mark.parametrize(
    ("unmet", "expected"),
    [
        ((("d", ""),), (Ruling.DEFERRED, 1.0)),
        ((("d", ""), ("e", "DEFERRED")), DEFERS),
        ((("d", ""), ("e", "DEFERRED"), ("f", "CANCELLED")), REFUSES),
        ((("d", "FAILED"),), REFUSES),
    ],
)
def test_dependencies(unmet, expected):
    """A dependency under way is waited for, a deferred one defers, a failed or cancelled one refuses; the worst decides."""
    assert ruling(unmet=unmet) == expected


def test_dependency_is_named():
    """The reason names the dependency that decides."""
    assert decide(circumstances(unmet=(("d", ""), ("e", "FAILED")))).reason == "depends on e, which is FAILED"


@pytest.mark.parametrize(
    ("limit", "changes", "expected"),
    [
        ({"max_tasks_per_run": 3}, {"tasks_started": 2}, APPROVES),
        ({"max_tasks_per_run": 3}, {"tasks_started": 3}, REFUSES),
        ({"max_tasks_per_run": 3}, {"tasks_started": 3, "first_attempt": False}, APPROVES),
        ({"max_run_seconds": 10.0}, {"run_seconds": 10.0 + 1e-10}, APPROVES),
        ({"max_run_seconds": 10.0}, {"run_seconds": 10.1}, REFUSES),
        ({"max_run_seconds": 10.0}, {"run_seconds": 10.1, "first_attempt": False}, REFUSES),
        ({"rate_limit": 5.0}, {"rate_wait_s": 0.2}, (Ruling.DEFERRED, 0.2)),
        ({"rate_limit": 5.0, "max_run_seconds": 10.0}, {"rate_wait_s": 0.2, "run_seconds": 11.0}, REFUSES),
        ({}, {"tasks_started": 10**6, "run_seconds": 1e9}, APPROVES),
    ],
)
def test_constraints(limit, changes, expected):
    """Over a quota is refused, over the rate waits as long as the rate says, and 0 is no limit."""
    assert ruling(safety=limit, **changes) == expected


@pytest.mark.parametrize(
    ("level", "confidence", "changes", "expected"),
    [
        ("LOW", 0.49, {}, DEFERS),
        ("LOW", 0.49, {"task": {"approved": True}}, DEFERS),
        ("LOW", 0.5 - 1e-10, {}, APPROVES),
        ("LOW", 0.5, {}, APPROVES),
        ("MEDIUM", 0.74, {"task": {"approved": True}}, DEFERS),
        ("MEDIUM", 0.75, {}, DEFERS),
        ("MEDIUM", 0.75, {"task": {"approved": True}}, APPROVES),
        ("MEDIUM", 0.75, {"safety": {"strict": False}}, APPROVES),
        ("HIGH", 0.89, {"task": {"approved": True}}, DEFERS),
        ("HIGH", 0.9, {"safety": {"strict": False}}, DEFERS),
        ("HIGH", 0.9, {"task": {"approved": True}}, APPROVES),
        ("HIGH", 0.1, {"approved": True}, APPROVES),
        ("HIGH", 0.1, {"dry_run": True}, APPROVES),
    ],
)
def test_risk(level, confidence, changes, expected):
    """Each level needs its confidence; approval in the submission is not confidence, the verb and a dry run pass."""
    task = {"risk_level": RiskLevel(level)} | changes.get("task", {})
    assert ruling(**{**changes, "task": task, "confidence": confidence}) == expected


def test_risk_says_what_is_missing():
    """The reason tells confidence that falls short from approval that is missing."""
    task = {"risk_level": RiskLevel.HIGH}
    short = decide(circumstances(task=task, confidence=0.8999))
    assert short.reason == "confidence 0.8999 is below the 0.9 that HIGH risk needs"
    assert decide(circumstances(task=task, confidence=0.95)).reason == "HIGH risk needs approval"


@pytest.mark.parametrize(
    ("cause", "blocking", "expected"),
    [
        ("timeouts", ("agent_offline",), (Ruling.DEFERRED, 1.0)),
        ("stuck", ("agent_stuck",), (Ruling.DEFERRED, 1.0)),
        (None, ("agent_offline",), (Ruling.DEFERRED, 1.0)),
        ("timeouts", ("agent_stuck",), APPROVES),
        ("stuck", (), APPROVES),
    ],
)
def test_agent_that_is_away(cause, blocking, expected):
    """An attempt waits for an agent that is OFFLINE where the anomaly behind it is a blocking one; approval brings no agent."""
    away = {"agent": {"offline": True, "offline_cause": cause}, "safety": {"blocking_anomalies": blocking}}
    assert ruling(**away) == expected
    assert ruling(**away, approved=True) == expected


def test_blocking_anomalies():
    """What the last wave showed defers until a person approves; approval in the submission and a dry run do not pass."""
    assert ruling(blocking=("prediction_drift",)) == DEFERS
    assert ruling(blocking=("prediction_drift",), task={"approved": True}, dry_run=True) == DEFERS
    assert ruling(blocking=("prediction_drift",), approved=True) == APPROVES


def test_gates_of_users():
    """A gate of a user's own is named by its place, may approve in either way, and refuses where it raises."""

    def broken(c):
        raise ValueError(c.task.task_id)

    approving = [("mine", lambda c: None), ("yours", lambda c: APPROVED)]
    assert decide(circumstances(), approving) is APPROVED
    refusing = [*approving, ("theirs", lambda c: Verdict(ruling=Ruling.DEFERRED, reason="not now", wait_s=3.0))]
    assert decide(circumstances(), refusing) == Verdict(ruling=Ruling.DEFERRED, gate="theirs", reason="not now", wait_s=3.0)
    verdict = decide(circumstances(), [*approving, ("broken", broken)])
    assert (verdict.ruling, verdict.gate, verdict.reason) == (Ruling.REJECTED, "broken", "the gate failed: ValueError: t")


def test_a_limit_lets_an_attempt_wait_aside():
    """Over a limit the attempt waits, the reason names the limit, and its agent may work on others; a rate holds the agent itself."""
    said = "key db: 1 of 1 attempts are under way (limits)"
    verdict = decide(circumstances(limited=(said, 1.0)))
    assert (verdict.ruling, verdict.gate, verdict.reason, verdict.wait_s) == (Ruling.DEFERRED, "constraints", said, 1.0)
    assert verdict.aside
    both = decide(circumstances(limited=(said, 1.0), rate_wait_s=2.0))
    assert (both.wait_s, both.aside) == (2.0, False)


def test_an_agent_is_refused_what_it_does_not_take():
    """A task of a kind that its agent does not take is refused, and the reason names the kind."""
    verdict = decide(circumstances(task={"kind": "other"}, agent={"only_kinds": ("review",)}))
    assert (verdict.ruling, verdict.reason) == (Ruling.REJECTED, "a takes no tasks of kind other")
    assert decide(circumstances(task={"kind": "review"}, agent={"only_kinds": ("review",)})) is APPROVED
