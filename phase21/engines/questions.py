"""A question to a language model, whose answer must have a shape and pass a check; asked again with what was wrong.

Asked by the engine of the kind `model` and by `workflows/models`. The library (extra `llm`) is imported when a model is first asked, as
that takes seconds. Any server that speaks as OpenAI's does will do. Keys come from the environment, and are never shown.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import msgspec

if TYPE_CHECKING:
    from pydantic_ai import Agent
    from pydantic_ai.models import Model
    from pydantic_ai.settings import ModelSettings

NEEDED = "a model needs the extra llm: pip install 'phase21[llm]'"
KEY_VARIABLE = "OPENAI_API_KEY"
NO_KEY = "none"
"""What a server of one's own is told where no key is set; it asks for none."""

ASKED_AGAIN_MOST = 2
ERROR_LENGTH = 500
TRANSIENT = frozenset({408, 409, 425, 429})
SERVER_FAULT = 500

Check = Callable[[dict[str, Any]], dict[str, Any]]
"""Gives an answer as it is to be taken. Raises Wrong where it may not be."""


class Wrong(Exception):
    """What is wrong with an answer, and how it may be put right."""


class Unanswered(Exception):
    """No answer came that may be taken. `unasked`: the model could not even be asked; `permanent`: nor will it be later."""

    def __init__(self, said: str, *, unasked: bool = False, permanent: bool = True) -> None:
        super().__init__(said)
        self.unasked = unasked
        self.permanent = permanent


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What a model is asked, which one, as `PROVIDER:NAME`, and where.

    With `base_url` it is asked there, whatever its provider; `key_variable` names the variable of the environment that holds the
    key. `shape` is the JSON schema of an answer, called `name`. `settings` are the library's; `repeats` says how often the client may
    itself try again after a fault of the network or the server.
    """

    model: str
    base_url: str | None = None
    key_variable: str = KEY_VARIABLE
    instructions: str
    said: str
    name: str
    description: str
    shape: dict[str, Any]
    settings: dict[str, Any] = {}
    repeats: int = 0


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer that passed the check, and what it took."""

    output: dict[str, Any]
    requests: int
    input_tokens: int
    output_tokens: int


async def answered(question: Question, check: Check) -> Answer:
    """Ask until the check lets an answer pass, at most three times. Raises Unanswered."""
    async with contextlib.AsyncExitStack() as open_:
        try:
            await asyncio.to_thread(_imported)
            agent = _agent(question, await _client(question, open_), check)
        except ImportError as error:
            ours = (error.name or "").partition(".")[0] in {"pydantic_ai", "openai"}
            raise Unanswered(NEEDED if ours else _line(error, question), unasked=True) from None
        except Exception as error:  # noqa: BLE001 - the library's, for names that it does not know and keys that it misses
            raise Unanswered(_line(error, question), unasked=True) from None
        try:
            run = await agent.run(question.said)
        except Exception as error:  # noqa: BLE001 - the library's, the client's, the network's
            raise Unanswered(_line(error, question), permanent=_refused(error)) from None
    usage = run.usage
    return Answer(
        output=dict(run.output), requests=usage.requests, input_tokens=usage.input_tokens, output_tokens=usage.output_tokens
    )


def _imported() -> None:
    import pydantic_ai.models.openai  # noqa: F401, PLC0415 - it takes seconds, which the loop has not


async def _client(question: Question, open_: contextlib.AsyncExitStack) -> Model:
    """The model to ask, its connections closed with the stack."""
    from openai import AsyncOpenAI  # noqa: PLC0415 - see the module
    from pydantic_ai.models import infer_model  # noqa: PLC0415
    from pydantic_ai.models.openai import OpenAIChatModel  # noqa: PLC0415
    from pydantic_ai.providers.openai import OpenAIProvider  # noqa: PLC0415

    key = os.environ.get(question.key_variable)
    provider, _, name = question.model.partition(":")
    if question.base_url is None and (provider != "openai" or not key):
        return infer_model(question.model)  # it finds its own key, or says which one is missing
    client = AsyncOpenAI(base_url=question.base_url, api_key=key or NO_KEY, max_retries=question.repeats)
    return OpenAIChatModel(name, provider=OpenAIProvider(openai_client=await open_.enter_async_context(client)))


def _agent(question: Question, model: Model, check: Check) -> Agent[None, dict[str, Any]]:
    from pydantic_ai import Agent, ModelRetry, StructuredDict  # noqa: PLC0415 - see the module

    agent: Agent[None, dict[str, Any]] = Agent(
        model,
        output_type=StructuredDict(question.shape, name=question.name, description=question.description),
        instructions=question.instructions,
        retries={"output": ASKED_AGAIN_MOST},
        model_settings=cast("ModelSettings", question.settings),
        deps_type=type(None),
    )

    @agent.output_validator
    def checked(answer: dict[str, Any]) -> dict[str, Any]:
        try:
            return check(answer)
        except Wrong as wrong:
            raise ModelRetry(str(wrong)) from None

    return agent


def _refused(error: Exception) -> bool:
    """Whether it would be refused again."""
    from pydantic_ai.exceptions import UserError  # noqa: PLC0415 - see the module

    status = getattr(error, "status_code", None)
    refused = isinstance(status, int) and status < SERVER_FAULT and status not in TRANSIENT
    return refused or isinstance(error, UserError)


def _line(error: Exception, question: Question) -> str:
    """What an error says, in a line, without any key of the environment, which a server may have repeated."""
    text = " ".join(str(error).split()) or type(error).__name__
    for name, value in os.environ.items():
        if value and (name == question.key_variable or name.endswith(("_API_KEY", "_TOKEN"))):
            text = text.replace(value, "***")
    return text[:ERROR_LENGTH]
