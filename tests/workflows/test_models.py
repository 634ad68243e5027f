"""A model is asked for a workflow, and asked again with what was wrong."""

from __future__ import annotations

import builtins

import pytest
from openai_server import Refused

from phase21.domain.errors import InputRefused, UsageError
from phase21.workflows.models import Answer, ModelRefused, Wish, decomposed

pytest.importorskip("pydantic_ai", reason="the extra llm is not installed")
pytest.importorskip("openai", reason="the extra llm is not installed")

GOOD = {"name": "w", "tasks": [{"task_id": "a", "instruction": "do it"}]}
KEY = "sk-a-key-of-mine"


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def wish(server, **fields):
    return Wish(goal="ship it", model="openai:tiny", base_url=server.base_url, **fields)


def refusing(times, said="workflow.tasks[0].kind: nope is not known"):
    """A check that refuses so many answers."""
    seen = []

    def check(answer):
        seen.append(answer)
        if len(seen) <= times:
            raise InputRefused(said, "workflow.tasks[0].kind")

    return check


def test_an_answer_that_passes_is_taken_at_once(openai_server):
    """One request is made, the goal, the fleet and the bound are told, the key is sent, and the tokens are counted."""
    openai_server.answer(GOOD)
    fleet = [("qa", ("tests",)), ("ops", ())]
    answer = decomposed(wish(openai_server, max_tasks=7, kinds=("command",), fleet=fleet), refusing(0))
    assert (answer.workflow, answer.requests, answer.input_tokens, answer.output_tokens) == (GOOD, 1, 120, 30)
    asked = openai_server.asked[0]
    assert all(said in asked.said for said in ("The goal: ship it", "- qa: tests", "- ops: any task", "at most 7"))
    assert asked.key == KEY
    shape = asked.body["tools"][0]["function"]["parameters"]["properties"]["tasks"]
    assert shape["maxItems"] == 7
    assert shape["items"]["properties"]["kind"]["enum"] == ["command"]
    assert shape["items"]["properties"]["capabilities"]["items"]["enum"] == ["tests"]


def test_the_model_is_told_what_was_refused(openai_server):
    """After a refusal it is asked again, with the refusal's own words; all tokens count."""
    openai_server.answer(GOOD, GOOD)
    answer = decomposed(wish(openai_server), refusing(1))
    assert (answer.requests, answer.input_tokens) == (2, 240)
    assert "workflow.tasks[0].kind: nope is not known" in openai_server.asked[1].said


def test_it_is_asked_twice_again_at_most(openai_server):
    """After the third refusal it is over, and the last one is said."""
    openai_server.answer(*[GOOD] * 5)
    with pytest.raises(ModelRefused, match=r"the last was refused: .*nope is not known") as refused:
        decomposed(wish(openai_server), refusing(9))
    assert len(openai_server.asked) == 3
    assert refused.value.exit_status == 3


def test_a_key_is_never_repeated(openai_server):
    """What a server says of a refused key is told without the key."""
    openai_server.answer(Refused(401, f"no such key: {KEY}"))
    with pytest.raises(ModelRefused) as refused:
        decomposed(wish(openai_server), refusing(0))
    assert "no such key: ***" in str(refused.value)


@pytest.mark.parametrize("name", ["tiny", ":tiny", "openai:", "nobody:tiny"])
def test_a_model_that_nobody_offers_is_a_slip(name):
    """What is no PROVIDER:NAME of a known provider is refused before anything is asked."""
    with pytest.raises(UsageError, match="--model"):
        decomposed(Wish(goal="g", model=name), refusing(0))


def test_a_missing_key_is_named(monkeypatch):
    """Without a key and a server of one's own it says which variable is missing, and tells of no code."""
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(UsageError, match="OPENAI_API_KEY"):
        decomposed(Wish(goal="g", model="openai:tiny"), refusing(0))


def test_without_the_extra_it_says_what_to_install(monkeypatch):
    """Where the client is not installed the extra is named."""
    real = builtins.__import__

    def without(name, *args, **more):
        if name.startswith("pydantic_ai"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *args, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match=r"phase21\[llm\]"):
        decomposed(Wish(goal="g", model="openai:tiny"), refusing(0))


def test_a_cost_needs_both_prices():
    """The cost is told where both prices are known, for a million tokens each, and else not at all."""
    answer = Answer(workflow={}, requests=1, input_tokens=2_000_000, output_tokens=500_000)
    assert answer.cost(1.5, 4.0) == 5.0
    assert answer.cost(1.5, None) is None
    assert answer.cost(None, 4.0) is None
