"""A question to a model, against a server on loopback that speaks as OpenAI's does."""

from __future__ import annotations

import pytest
from openai_server import COMPLETION_TOKENS, PROMPT_TOKENS, Refused

from phase21.engines.questions import ERROR_LENGTH, Question, Unanswered, Wrong, answered

pytest.importorskip("pydantic_ai", reason="the extra `llm` is not installed")

SHAPE = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


@pytest.fixture
def question(openai_server, monkeypatch):
    """Makes a question to the server; the environment holds two keys."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-for-this")
    monkeypatch.setenv("MY_OWN_SECRET", "pass-it-on")

    def make(**fields):
        words = {"instructions": "Count.", "said": "How many?", "name": "count", "description": "A number", "shape": SHAPE}
        return Question(**{"model": "openai:tiny", "base_url": openai_server.base_url} | words | fields)

    return make


def odd(answer):
    if answer["n"] % 2 == 0:
        raise Wrong(f"{answer['n']} is even: give an odd one")
    return {"n": -answer["n"]}


async def test_an_answer_is_taken_as_the_check_gives_it(question, openai_server):
    """The model hears what was wrong, and all requests count."""
    openai_server.answer({"n": 2}, {"n": 3})
    found = await answered(question(settings={"max_tokens": 7}), odd)
    assert (found.output, found.requests) == ({"n": -3}, 2)
    assert (found.input_tokens, found.output_tokens) == (2 * PROMPT_TOKENS, 2 * COMPLETION_TOKENS)
    assert "2 is even: give an odd one" in openai_server.asked[1].said
    assert openai_server.asked[0].body.get("max_tokens", openai_server.asked[0].body.get("max_completion_tokens")) == 7


async def test_three_wrong_answers_are_none(question, openai_server):
    """The fault is the answers': the model was asked, and may do better another time."""
    openai_server.answer(*[{"n": 4}] * 4)
    with pytest.raises(Unanswered) as why:
        await answered(question(), odd)
    assert (why.value.unasked, why.value.permanent, len(openai_server.asked)) == (False, False, 3)


async def test_the_key_is_that_of_the_named_variable_and_is_never_said(question, openai_server):
    """Whichever key a server repeats, and however long it talks, the error shows none of them, in one line of some length."""
    openai_server.answer(Refused(403, f"not pass-it-on,\n nor sk-not-for-this {'x' * 2 * ERROR_LENGTH}"))
    with pytest.raises(Unanswered) as why:
        await answered(question(key_variable="MY_OWN_SECRET"), odd)
    said = str(why.value)
    assert openai_server.asked[0].key == "pass-it-on"
    assert "403" in said
    assert said.count("***") == 2
    assert (len(said), "\n" in said, why.value.permanent) == (ERROR_LENGTH, False, True)


async def test_who_cannot_be_asked(question):
    """A provider that there is not is said as such, and for good."""
    with pytest.raises(Unanswered, match="nobody") as why:
        await answered(question(model="nobody:tiny", base_url=None), odd)
    assert (why.value.unasked, why.value.permanent) == (True, True)
