"""A workflow becomes a plan: checked, with who can do each step and how likely."""

from __future__ import annotations

from pathlib import Path

import pytest

from phase21.domain.errors import InputRefused
from phase21.domain.judgements import Calibration
from phase21.domain.records import AgentRecord
from phase21.domain.settings import AgentSettings, AgentSpec, Settings
from phase21.intake import configuration
from phase21.workflows.decomposition import (
    MODEL,
    Fleet,
    check_able,
    check_bounds,
    modelled,
    plan_of,
    templated,
    trusted_no_further,
    without_capabilities,
)
from phase21.workflows.models import ModelRefused, Wish
from phase21.workflows.templates.filling import Scope
from phase21.workflows.templates.shelf import shelf, values_of

SPECIALISTS = Path(__file__).parents[2] / "examples" / "specialists.toml"
FACTS = {"goal": "ship it", "python": "python3", "here": "/there"}
SCOPE = Scope(values_of(MODEL, {}, {}), FACTS)


def specialists():
    return Fleet(configuration.load(str(SPECIALISTS), {}))


def fleet(*specs):
    return Fleet(Settings(agents=AgentSettings(fleet=tuple(AgentSpec(id=name, capabilities=offers) for name, offers in specs))))


def flow(*tasks, **fields):
    return {"name": "w", "mode": "graph", "tasks": [{"kind": "simulate", **task} for task in tasks], **fields}


def given_for(template):
    return {name: "data" for name, value in template.values.items() if value.required}


@pytest.mark.parametrize("template", list(shelf(None)), ids=lambda one: one.name)
def test_the_specialists_can_do_every_template(template):
    """Each step of each template is one that some specialist of the example fleet can do, and one that a handler takes."""
    made = templated(template, specialists(), given_for(template), FACTS, {})
    check_able(made)
    assert len(made.steps) == len(template.workflow["tasks"])


def test_every_specialist_has_work():
    """Together the templates ask for everybody in the example fleet."""
    team = specialists()
    asked = {
        one.agent_id
        for template in shelf(None)
        for step in templated(template, team, given_for(template), FACTS, {}).steps
        for one in step.able
    }
    assert asked == {agent.agent_id for agent in team.agents}


def test_steps_stand_behind_what_they_wait_for():
    """Steps come in an order in which they can be done, each with the length of the chain before it, whatever was written first."""
    made = plan_of(
        flow(
            {"task_id": "c", "depends_on": ["b"], "estimated_duration_s": 4},
            {"task_id": "a", "estimated_duration_s": 1},
            {"task_id": "b", "depends_on": ["a"], "estimated_duration_s": 2},
            {"task_id": "d", "depends_on": ["a"], "estimated_duration_s": 3},
        ),
        fleet(("x", ())),
    )
    assert [(step.task.task_id, step.level) for step in made.steps] == [("a", 0), ("b", 1), ("d", 1), ("c", 2)]
    assert (made.path_s, made.work_s) == (7.0, 10.0)


def test_the_likeliest_comes_first():
    """Who can do a step is told with the forecast, which past waves have corrected."""
    settings = Settings(agents=AgentSettings(fleet=(AgentSpec(id="bad"), AgentSpec(id="good"))))
    failed, passed = Calibration(40, 2, 34.0), Calibration(40, 38, 34.0)
    known = [AgentRecord(agent_id=name, calibration=of, kinds={"simulate": of}) for name, of in (("bad", failed), ("good", passed))]
    step = plan_of(flow({"task_id": "a"}), Fleet(settings, known)).steps[0]
    assert [one.agent_id for one in step.able] == ["good", "bad"]
    assert step.able[1].rate < 0.5 < step.able[0].rate


def test_a_step_that_nobody_can_do_is_refused():
    """A capability that no agent offers is named with its path, and so is a pin on an agent that there is not."""
    team = fleet(("x", ("tests",)))
    for task, path in (
        ({"capabilities": ["tests", "ai"]}, "workflow.tasks[1].capabilities"),
        ({"agent_id": "y"}, "workflow.tasks[1].agent_id"),
    ):
        made = plan_of(flow({"task_id": "a", "capabilities": ["tests"]}, {"task_id": "b", **task}), team)
        with pytest.raises(InputRefused) as refused:
            check_able(made)
        assert refused.value.path == path


@pytest.mark.parametrize(
    ("task", "path"),
    [
        ({"kind": "command"}, "workflow.tasks[0].payload"),
        ({"kind": "nope"}, "workflow.tasks[0].kind"),
        ({"kind": "simulate", "compensate": {"kind": "command", "payload": {"argv": []}}}, "workflow.tasks[0].compensate.payload"),
        ({"depends_on": ["b"]}, "workflow.tasks[0].depends_on"),
    ],
)
def test_what_cannot_be_carried_out_is_refused(task, path):
    """A payload that no handler takes, a kind that nobody has and an unknown task are refused with the path of the field."""
    with pytest.raises(InputRefused) as refused:
        plan_of(flow({"task_id": "a", **task}), fleet(("x", ())))
    assert (refused.value.path or "").startswith(path)


def test_a_payload_that_is_not_known_yet_is_left_to_the_gates():
    """What a reference will stand for is checked before the attempt."""
    argv = ["echo", {"$from": "a", "path": "result.stdout"}]
    made = plan_of(
        flow({"task_id": "a"}, {"task_id": "b", "kind": "command", "payload": {"argv": argv}, "depends_on": ["a"]}),
        fleet(("x", ())),
    )
    assert made.steps[1].task.payload["argv"][1]["$from"] == "a"


def test_an_agent_for_some_kinds_does_no_other():
    """Who takes only some kinds of task can do no step of another."""
    team = Fleet(Settings(agents=AgentSettings(fleet=(AgentSpec(id="any"), AgentSpec(id="calls", kinds=("python",))))))
    assert [one.agent_id for one in plan_of(flow({"task_id": "a"}), team).steps[0].able] == ["any"]
    alone = Fleet(Settings(agents=AgentSettings(fleet=(AgentSpec(id="calls", kinds=("python",)),))))
    with pytest.raises(InputRefused) as refused:
        check_able(plan_of(flow({"task_id": "a"}), alone))
    assert refused.value.path == "workflow.tasks[0].kind"


def test_what_is_made_of_a_list_is_named_by_its_task():
    """A fault in a task that was made of a list's element, or of a child, is told by the id of that task."""
    spec = flow({"task_id": "each", "for_each": [1, 2], "capabilities": ["magic"]})
    with pytest.raises(InputRefused) as refused:
        check_able(plan_of(spec, fleet(("x", ()))))
    assert refused.value.path == "workflow.each.0.capabilities"


def test_steps_that_cannot_be_made_yet_are_named():
    """What is made over a result stands apart, with what waits for it."""
    each = {"task_id": "each", "for_each": {"$from": "a", "path": "result.list"}, "depends_on": ["a"]}
    made = plan_of(flow({"task_id": "a"}, each, {"task_id": "b", "depends_on": ["each"]}), fleet(("x", ())))
    assert ([step.task.task_id for step in made.steps], made.later) == (["a"], ("each", "b"))


def test_where_nobody_names_capabilities_everybody_may():
    """Capabilities are left out of tasks, compensations and children, and of nothing else."""
    spec = {
        "tasks": [
            {
                "capabilities": ["a"],
                "compensate": {"capabilities": ["b"], "kind": "k"},
                "workflow": {"tasks": [{"capabilities": ["c"]}]},
                "payload": {"capabilities": ["stays"]},
            }
        ]
    }
    made = without_capabilities(spec)
    assert made == {"tasks": [{"compensate": {"kind": "k"}, "workflow": {"tasks": [{}]}, "payload": {"capabilities": ["stays"]}}]}


def test_an_agent_that_is_bound_to_other_kinds_names_no_skills_for_a_workflow():
    """An agent of one's own with capabilities takes no template from those who may do everything."""
    agents = (AgentSpec(id="any"), AgentSpec(id="reviewer", capabilities=("python",), kinds=("review",)))
    mixed = Fleet(Settings(agents=AgentSettings(fleet=agents)))
    bug_fix = next(one for one in shelf(None) if one.name == "bug_fix")
    made = templated(bug_fix, mixed, {}, FACTS, {})
    check_able(made)
    assert {able.agent_id for step in made.steps for able in step.able} == {"any"}
    nested = flow({"task_id": "a", "workflow": {"tasks": [{"task_id": "b", "kind": "review"}]}})
    assert mixed.names_skills(nested)


# -- models --------------------------------------------------------------------------------------------------------------


def answer(*tasks, **fields):
    return {"name": "w", "tasks": list(tasks), **fields}


def test_a_models_instruction_goes_to_the_users_agent():
    """Without a kind the configured agent runs, with the instruction taken literally."""
    scope = Scope(values_of(MODEL, {"agent_command": ["me", "{{ instruction }}"]}, {"report": "x"}), FACTS)
    made = trusted_no_further(answer({"task_id": "a", "instruction": "say {{ goal }}"}), scope)
    task = made["tasks"][0]
    assert task["payload"] == {"argv": ["me", "say {{ goal }}"], "stdin": "say {{ goal }}", "cwd": "/there"}
    assert (task["kind"], task["risk_level"], task["metadata"]) == ("command", "MEDIUM", {"instruction": "say {{ goal }}"})


@pytest.mark.parametrize(("risk", "becomes"), [(None, "MEDIUM"), ("LOW", "MEDIUM"), ("MEDIUM", "MEDIUM"), ("HIGH", "HIGH")])
def test_what_a_model_runs_waits_for_a_person(risk, becomes):
    """No task of a model has less than MEDIUM risk."""
    task = {"task_id": "a", "instruction": "x", "kind": "command", "payload": {"argv": ["true"]}}
    made = trusted_no_further(answer(task | ({"risk_level": risk} if risk else {})), SCOPE)
    assert made["tasks"][0]["risk_level"] == becomes


@pytest.mark.parametrize(
    ("tasks", "path"),
    [
        ([{"task_id": "a", "approved": True}], "workflow.tasks[0].approved"),
        ([{"task_id": "a"}, {"task_id": "b", "payload": {"argv": ["x"]}}], "workflow.tasks[1].payload"),
        (["a"], "workflow.tasks[0]"),
        (None, "workflow.tasks"),
    ],
)
def test_a_model_may_not_say_everything(tasks, path):
    """Approval, a program without a kind and what is no task at all are refused with their path."""
    with pytest.raises(InputRefused) as refused:
        trusted_no_further({"name": "w", "tasks": tasks}, SCOPE)
    assert refused.value.path == path


def test_a_model_names_no_judge():
    """A judge would be a program that nobody approves: a workflow's other fields are not a model's to say."""
    judge = {"judge": {"kind": "command", "payload": {"argv": ["true"]}, "approved": True}}
    with pytest.raises(InputRefused) as refused:
        trusted_no_further(answer({"task_id": "a"}, evaluate=judge), SCOPE)
    assert refused.value.path == "workflow.evaluate"


@pytest.mark.parametrize(
    ("task", "path"),
    [
        ({"kind": "simulate", "payload": {}}, "workflow.tasks[1].kind"),
        ({"capabilities": ["magic"]}, "workflow.tasks[1].capabilities"),
    ],
)
def test_a_model_keeps_to_the_fleet(task, path):
    """Kinds that do no work and capabilities that nobody offers are refused."""
    command = {"kind": "command", "payload": {"argv": ["true"]}}
    made = plan_of(flow({"task_id": "a", **command}, {"task_id": "b", **command, **task}), fleet(("x", ("tests",))))
    with pytest.raises(InputRefused) as refused:
        check_bounds(made, 20, ["command"], frozenset({"tests"}))
    assert refused.value.path == path


def test_a_model_keeps_to_the_bound():
    """More tasks than allowed are refused, as many are not."""
    made = plan_of(flow(*[{"task_id": name} for name in "abc"]), fleet(("x", ())))
    check_bounds(made, 3, ["simulate"], frozenset())
    with pytest.raises(InputRefused, match="holds 3 tasks; allowed: at most 2"):
        check_bounds(made, 2, ["simulate"], frozenset())


@pytest.mark.parametrize(
    "odd", [{"kind": []}, {"capabilities": 5}, {"task_id": {}}, {"instruction": 5}, {"timeout_s": 2**70}, {"risk_level": "low"}]
)
def test_whatever_a_model_says_is_refused_in_order(odd, openai_server):
    """Fields of any shape are told to the model as refused, and never stop the verb."""
    pytest.importorskip("pydantic_ai", reason="the extra llm is not installed")
    one = {"task_id": "a", "instruction": "x"}
    openai_server.answer(answer(one | odd), answer(one))
    wish = Wish(goal="g", model="openai:tiny", base_url=openai_server.base_url)
    made, took = modelled(wish, fleet(("x", ())), {}, FACTS, {})
    assert (len(made.steps), took.requests) == (1, 2)


def test_values_of_a_models_plan_are_checked_first():
    """A value of another sort is the user's slip, and no model is asked."""
    wish = Wish(goal="g", model="openai:tiny", base_url="http://127.0.0.1:9/v1")
    for given, path in (({"agent_command": "x"}, "values.agent_command"), ({"report": "x"}, "values.report")):
        with pytest.raises(InputRefused) as refused:
            modelled(wish, fleet(("x", ())), given, FACTS, {})
        assert refused.value.path == path


def test_a_models_plan_passes_the_checks_of_a_file(openai_server):
    """A circle and a spawn of more tasks than allowed are told to the model, whose third answer is taken."""
    pytest.importorskip("pydantic_ai", reason="the extra llm is not installed")
    one, two = {"task_id": "a", "instruction": "x"}, {"task_id": "b", "instruction": "y", "depends_on": ["a"]}
    openai_server.answer(
        answer(one | {"depends_on": ["b"]}, two), answer(one, two, {"task_id": "c", "instruction": "z"}), answer(one, two)
    )
    wish = Wish(goal="ship it", model="openai:tiny", base_url=openai_server.base_url, max_tasks=2)
    made, took = modelled(wish, fleet(("x", ())), {}, FACTS, {})
    assert [step.task.task_id for step in made.steps] == ["a", "b"]
    assert took.requests == 3
    assert "circle" in openai_server.asked[1].said
    assert "holds 3 tasks; allowed: at most 2" in openai_server.asked[2].said


def test_a_model_that_never_learns_submits_nothing(openai_server):
    """A plan that is refused to the last is no plan."""
    pytest.importorskip("pydantic_ai", reason="the extra llm is not installed")
    openai_server.answer(*[answer()] * 3)
    with pytest.raises(ModelRefused, match=r"workflow\.tasks"):
        modelled(Wish(goal="g", model="openai:tiny", base_url=openai_server.base_url), fleet(("x", ())), {}, FACTS, {})
