"""A workflow, as written, becomes a plan that a person can judge: its steps, who can do them, how likely, how long.

Called by the verb `plan`, for what a template or a model wrote. It is checked as a submission is, and beside the fleet; nothing here
submits, and nothing but the ledger's evidence decides who is likely to succeed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from phase21.domain.errors import InputRefused
from phase21.domain.evidence import Evidence
from phase21.domain.records import AgentRecord
from phase21.domain.settings import AgentSpec, Settings
from phase21.domain.tasks import Compensation, RiskLevel, Task
from phase21.domain.workflows import JOIN, Workflow
from phase21.engines.engine import Engines
from phase21.engines.own_agents import fleet_of, own_agents
from phase21.intake.submissions import parse
from phase21.intake.workflows import Compiled, compiled
from phase21.planning.forecast import Forecast
from phase21.store import codec
from phase21.workflows.models import Answer, Wish, decomposed
from phase21.workflows.templates.filling import Scope, filled
from phase21.workflows.templates.shelf import Template, Value, values_of, workflow_of

PATH = "workflow"
USUAL_KIND = Task(task_id="any").kind

UNREAL = frozenset({"simulate", JOIN, "schema", "model"})
"""Kinds that do no work of a goal, and that no model may plan with: they pretend, gather or judge."""

AGENT_PAYLOAD = {"argv": "{{ agent_command }}", "stdin": "{{ instruction }}", "cwd": "{{ repository }}"}
"""What runs where a model gives an instruction and no kind: the user's own agent, never a program of the model's choosing."""

MODEL = Template(
    name="a model's plan",
    description="Tasks that a model made of the goal, each done by the user's agent",
    values={
        "agent_command": Value(
            meaning="the program that follows an instruction, on its stdin or in its arguments", default=["cat"]
        ),
        "repository": Value(meaning="the folder in which it runs", default="{{ here }}"),
        "agent_timeout_s": Value(meaning="after how many seconds it is given up", default=3600),
    },
    workflow={},
)
"""What a model's plan may be told: its tasks are the model's, its values those that templates have."""


class Able(msgspec.Struct, frozen=True):
    """An agent that can do a step, and how likely it is to succeed."""

    agent_id: str
    rate: float


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One task of a plan. `level` counts the steps that must come before it; `able` are the likeliest first."""

    task: Task
    level: int
    expected_s: float
    able: tuple[Able, ...]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A workflow that may be submitted: `spec` as it is written, its steps in an order in which they can be done.

    `later` are steps that become tasks only once others have ended; `path_s` is the longest chain, `work_s` all of it in seconds.
    """

    spec: dict[str, Any]
    workflow: Workflow
    steps: tuple[Step, ...]
    later: tuple[str, ...]
    path_s: float
    work_s: float


class Fleet:
    """Who there is and what they can do: the daemon's fleet, with what past waves have taught of it."""

    def __init__(self, settings: Settings, known: Iterable[AgentRecord] = (), evidence: Evidence | None = None) -> None:
        own = own_agents()
        self.engines = Engines.built(settings.handlers, dry_run=settings.execution.dry_run, agents=own)
        past = {record.agent_id: record for record in known}
        self.agents = tuple(_record(spec, past.get(spec.id)) for spec in fleet_of(settings, own))
        self._forecast = Forecast(self.agents, enabled=settings.learning.enabled, evidence=evidence)

    @property
    def capabilities(self) -> frozenset[str]:
        """All that somebody offers."""
        return frozenset(name for agent in self.agents for name in agent.capabilities)

    def names_skills(self, spec: dict[str, Any]) -> bool:
        """Whether somebody who does kinds of task that a workflow has names what they can do."""
        kinds = _kinds_of(spec)
        return any(agent.capabilities and any(map(agent.takes, kinds)) for agent in self.agents)

    def able(self, task: Task) -> tuple[Able, ...]:
        """Who can do a task, the likeliest first."""
        found = [agent.agent_id for agent in self.agents if agent.able(task)]
        return tuple(sorted((Able(name, self._forecast.predicted(task, name)) for name in found), key=lambda one: -one.rate))

    def expected_s(self, task: Task, able: Sequence[Able]) -> float:
        """How long a task is expected to take with the agent that is likeliest to succeed."""
        return self._forecast.expected_s(task, able[0].agent_id) if able else task.estimated_duration_s


def templated(
    template: Template, fleet: Fleet, given: Mapping[str, Any], facts: Mapping[str, Any], usual: Mapping[str, Any]
) -> Plan:
    """The plan of a template and its values. Where nobody names what they can do, everybody may. Raises InputRefused."""
    spec = workflow_of(template, given, facts, usual)
    return plan_of(spec if fleet.names_skills(spec) else without_capabilities(spec), fleet)


def modelled(
    wish: Wish, fleet: Fleet, given: Mapping[str, Any], facts: Mapping[str, Any], usual: Mapping[str, Any]
) -> tuple[Plan, Answer]:
    """The plan of a model, and what it took. It passes every check that a file passes. Raises InputRefused, ModelRefused, UsageError."""
    scope = Scope(values_of(MODEL, given, usual), facts)
    kinds = sorted(set(fleet.engines.kinds) - UNREAL)
    offers = [(agent.agent_id, agent.capabilities) for agent in fleet.agents]
    plans: list[Plan] = []

    def check(answer: dict[str, Any]) -> None:
        spec = trusted_no_further(answer, scope)
        plan = plan_of(spec, fleet)
        check_bounds(plan, wish.max_tasks, kinds, fleet.capabilities)
        check_able(plan)
        plans.append(plan)

    answer = decomposed(msgspec.structs.replace(wish, kinds=kinds, fleet=offers), check)
    return plans[-1], answer


def plan_of(spec: dict[str, Any], fleet: Fleet) -> Plan:
    """The plan that a workflow makes. Raises InputRefused with the path of the field."""
    made = _compiled(spec)
    workflow, tasks = made.workflow, made.tasks
    _check_payloads(tasks, spec, fleet)
    waits: dict[str, int] = {}
    ends: dict[str, float] = {}
    steps: list[Step] = []
    for task in _in_order(tasks):
        able = fleet.able(task)
        expected_s = fleet.expected_s(task, able)
        waits[task.task_id] = max((waits[need] + 1 for need in task.needs() if need in waits), default=0)
        ends[task.task_id] = expected_s + max((ends[need] for need in task.needs() if need in ends), default=0.0)
        steps.append(Step(task=task, level=waits[task.task_id], expected_s=expected_s, able=able))
    return Plan(
        spec=spec,
        workflow=workflow,
        steps=tuple(steps),
        later=tuple(str(step.get("task_id", step.get("name", ""))) for step in workflow.later),
        path_s=max(ends.values(), default=0.0),
        work_s=sum(step.expected_s for step in steps),
    )


def check_able(plan: Plan) -> None:
    """Refuse a plan with a step that no agent can do. Raises InputRefused."""
    for task in (step.task for step in plan.steps if not step.able):
        field, wanted = "kind", f"no agent does tasks of kind {task.kind}"
        if task.agent_id is not None:
            field, wanted = "agent_id", f"there is no agent {task.agent_id} that can do it"
        elif task.capabilities:
            field, wanted = "capabilities", f"no agent offers {', '.join(task.capabilities)}"
        path = _path_of(plan.spec, task.task_id, field)
        raise InputRefused(f"{path}: {wanted} (task {task.task_id})", path)


def _kinds_of(spec: dict[str, Any]) -> set[str]:
    """The kinds of task that a workflow has, its children's included."""
    kinds: set[str] = set()
    for step in spec.get("tasks", ()):
        kinds |= _kinds_of(step["workflow"]) if isinstance(step.get("workflow"), dict) else {str(step.get("kind", USUAL_KIND))}
    return kinds


def without_capabilities(spec: dict[str, Any]) -> dict[str, Any]:
    """The workflow for a fleet of which nobody names what they can do: everybody may do everything."""
    return {
        **{key: item for key, item in spec.items() if key != "capabilities"},
        **{key: [without_capabilities(one) for one in spec[key]] for key in ("tasks",) if key in spec},
        **{key: without_capabilities(spec[key]) for key in ("compensate", "workflow") if isinstance(spec.get(key), dict)},
    }


# -- what a model wrote --------------------------------------------------------------------------------------------------


def trusted_no_further(answer: Mapping[str, Any], scope: Scope) -> dict[str, Any]:
    """A model's workflow as it may be submitted: its instructions given to the user's agent, whatever runs in need of approval.

    Each task has a risk of MEDIUM at least, so that the gates wait for a person, and none is approved. What the model wrote is
    taken literally, and what it may not say is refused. Raises InputRefused.
    """
    tasks = answer.get("tasks")
    if not isinstance(tasks, list):
        raise InputRefused(f"{PATH}.tasks: is missing; it is a list of tasks", f"{PATH}.tasks")
    _refuse_others(answer, FLOW_FIELDS, PATH)
    made = [_task_of(task, scope, f"{PATH}.tasks[{n}]") for n, task in enumerate(tasks)]
    return {"mode": "graph", "on_failure": "stop", **answer, "tasks": made}


def check_bounds(plan: Plan, max_tasks: int, kinds: Iterable[str], capabilities: frozenset[str]) -> None:
    """Refuse what a model may not plan: too many tasks, kinds and capabilities that nobody has. Raises InputRefused."""
    if len(plan.steps) > max_tasks:
        raise InputRefused(f"{PATH}.tasks: holds {len(plan.steps)} tasks; allowed: at most {max_tasks}", f"{PATH}.tasks")
    for task in (step.task for step in plan.steps):
        _refuse_unknown([task.kind], kinds, _path_of(plan.spec, task.task_id, "kind"))
        _refuse_unknown(task.capabilities, capabilities, _path_of(plan.spec, task.task_id, "capabilities"))


def _refuse_unknown(given: Iterable[str], known: Iterable[str], path: str) -> None:
    unknown = next((name for name in given if name not in known), None)
    if unknown is not None:
        raise InputRefused(f"{path}: {unknown} is not known; allowed: {', '.join(sorted(known)) or 'none'}", path)


def _refuse_others(fields: Mapping[str, Any], known: frozenset[str], path: str) -> None:
    unknown = next((name for name in fields if name not in known), None)
    if unknown is not None:
        raise InputRefused(f"{path}.{unknown}: not for a model to say; it may say {', '.join(sorted(known))}", f"{path}.{unknown}")


FLOW_FIELDS = frozenset({"name", "on_failure", "tasks"})
"""What a model may say of a workflow: no judge, say, which would be a program that nobody approves."""

TASK_FIELDS = frozenset(
    {"task_id", "instruction", "kind", "payload", "capabilities", "depends_on", "estimated_duration_s", "timeout_s", "risk_level"}
)
"""What a model may say of a task."""


def _task_of(task: Any, scope: Scope, path: str) -> dict[str, Any]:
    if not isinstance(task, dict):
        raise InputRefused(f"{path}: is not an object", path)
    _refuse_others(task, TASK_FIELDS, path)
    if "payload" in task and "kind" not in task:
        raise InputRefused(f"{path}.payload: goes with a kind; without one an agent follows the instruction", f"{path}.payload")
    instruction = task.get("instruction", "")
    made = {name: item for name, item in task.items() if name != "instruction"}
    if "kind" not in task:
        own = scope._replace(literal={**scope.literal, "instruction": instruction, "task_id": task.get("task_id", "")})
        made |= {"kind": "command", "payload": filled(AGENT_PAYLOAD, own, f"{path}.payload")}
        made.setdefault("timeout_s", filled(scope.values["agent_timeout_s"], own, f"{path}.timeout_s"))
    risk = task.get("risk_level", RiskLevel.MEDIUM)
    made["risk_level"] = RiskLevel.MEDIUM if risk == RiskLevel.LOW else risk
    made["metadata"] = {"instruction": instruction}
    return made


# -- checks --------------------------------------------------------------------------------------------------------------


def _compiled(spec: dict[str, Any]) -> Compiled:
    """What the workflow comes to, by the checks that a line of the queue file passes."""
    try:
        submission = parse(codec.encode({"run_id": "plan", PATH: spec}))
    except codec.CodecError as error:
        raise InputRefused(f"{PATH}: {error}", PATH) from None
    if submission.workflow is None:
        raise InputRefused(f"{PATH}: is missing", PATH)
    return compiled(submission.workflow, PATH)


def _check_payloads(tasks: Sequence[Task], spec: dict[str, Any], fleet: Fleet) -> None:
    """Refuse what no handler would take, where all of it is known already."""
    for task in tasks:
        for one, inside in ((task, ""), (_undoing(task), "compensate.")):
            if one is None or _refers(one.payload) or one.kind == JOIN:
                continue
            said = fleet.engines.refusal(one)
            if said is not None:
                field = "payload" if one.kind in fleet.engines.kinds else "kind"
                path = _path_of(spec, task.task_id, f"{inside}{field}")
                raise InputRefused(f"{path}: {said}", path)


def _undoing(task: Task) -> Task | None:
    undo: Compensation | None = task.compensate
    return None if undo is None else Task(task_id=task.task_id, kind=undo.kind, payload=undo.payload)


def _refers(node: Any) -> bool:
    """Whether a payload holds a reference to a result that is not known yet."""
    if isinstance(node, dict):
        return "$from" in node or any(map(_refers, node.values()))
    return isinstance(node, list) and any(map(_refers, node))


def _path_of(spec: Mapping[str, Any], task_id: str, field: str) -> str:
    """Where a field of a task stands in what was written; what was made of something else is named by its id."""
    for n, task in enumerate(spec.get("tasks", ())):
        if isinstance(task, dict) and task.get("task_id") == task_id:
            return f"{PATH}.tasks[{n}].{field}"
    return f"{PATH}.{task_id}.{field}"


def _in_order(tasks: Sequence[Task]) -> list[Task]:
    """The tasks so that each stands behind those that it needs, else as they are written; there is no cycle among them."""
    left = {task.task_id: task for task in tasks}
    made: list[Task] = []
    while left:
        ready = [task for task in left.values() if not any(need in left for need in task.needs())]
        made += ready
        for task in ready:
            del left[task.task_id]
    return made


def _record(spec: AgentSpec, past: AgentRecord | None) -> AgentRecord:
    record = past if past is not None else AgentRecord(agent_id=spec.id)
    return msgspec.structs.replace(record, capabilities=spec.capabilities, concurrency=spec.concurrency, only_kinds=spec.kinds)
