"""A goal becomes a workflow by a model's answer: asked, checked by the caller, asked again with what was wrong.

Called by the verb `plan` alone; `engines/questions` does the asking. What the model says is data: it is handed to the caller's check, and
nothing of it is run here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from phase21.domain.errors import InputRefused, Phase21Error, UsageError
from phase21.engines.questions import Question, Unanswered, Wrong, answered

ANSWER_TIMEOUT_S = 300.0
REPEATS = 2
"""How often a request is made again after a fault of the network or the server: nobody else would."""

Check = Callable[[dict[str, Any]], None]
"""Takes a workflow as the model wrote it. Raises InputRefused where it may not be."""


class ModelRefused(Phase21Error):
    """A model could not be asked, or what it answered was refused to the last."""

    exit_status = 3


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What a model is asked for, and within which bounds.

    `kinds` are the kinds of task that can be carried out, `fleet` who there is, as (agent, capabilities).
    """

    goal: str
    model: str
    base_url: str | None = None
    max_tasks: int = 20
    kinds: Sequence[str] = ()
    fleet: Sequence[tuple[str, Sequence[str]]] = ()


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A workflow that passed the check, and what it took."""

    workflow: dict[str, Any]
    requests: int
    input_tokens: int
    output_tokens: int

    def cost(self, input_price: float | None, output_price: float | None) -> float | None:
        """What it cost, at prices for a million tokens; None where one of them is not known."""
        if input_price is None or output_price is None:
            return None
        return (self.input_tokens * input_price + self.output_tokens * output_price) / 1e6


def decomposed(wish: Wish, check: Check) -> Answer:
    """Ask for a workflow until the check lets it pass, at most three times. Raises ModelRefused, UsageError."""
    provider, _, name = wish.model.partition(":")
    if not provider or not name:
        raise UsageError(f"--model {wish.model}: give PROVIDER:NAME, such as openai:NAME")
    refusals: list[str] = []
    try:
        answer = asyncio.run(answered(_question(wish), lambda given: _checked(given, check, refusals)))
    except Unanswered as why:
        if why.unasked:
            raise UsageError(f"--model {wish.model}: {str(why).partition('. ')[0]}") from None
        last = f"; the last was refused: {refusals[-1]}" if refusals else ""
        raise ModelRefused(f"{wish.model}: {why}{last}") from None
    return Answer(
        workflow=answer.output, requests=answer.requests, input_tokens=answer.input_tokens, output_tokens=answer.output_tokens
    )


def _checked(answer: dict[str, Any], check: Check, refusals: list[str]) -> dict[str, Any]:
    try:
        check(answer)
    except InputRefused as refusal:
        refusals.append(str(refusal))
        raise Wrong(f"This workflow is refused: {refusal}\nAnswer with the whole workflow, corrected.") from None
    return answer


def _question(wish: Wish) -> Question:
    return Question(
        model=wish.model,
        base_url=wish.base_url,
        instructions=_instructions(wish),
        said=f"The goal: {wish.goal}",
        name="workflow",
        description="The workflow that reaches the goal",
        shape=schema(wish),
        settings={"timeout": ANSWER_TIMEOUT_S},
        repeats=REPEATS,
    )


# -- what is said --------------------------------------------------------------------------------------------------------

_IDENTIFIER = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]*$", "maxLength": 128}


def schema(wish: Wish) -> dict[str, Any]:
    """The JSON schema of an answer: the part of the workflow language that a model may use."""
    capabilities = sorted({name for _, offered in wish.fleet for name in offered})
    wait = {
        "type": "object",
        "properties": {"task": _IDENTIFIER, "when": {"enum": ["succeeded", "failed", "settled"]}},
        "required": ["task"],
        "additionalProperties": False,
    }
    task = {
        "task_id": _IDENTIFIER,
        "instruction": {"type": "string", "description": "What is to be done, whole: who does it sees nothing else"},
        "kind": {"enum": list(wish.kinds), "description": "Leave out where an agent follows the instruction"},
        "payload": {"type": "object", "description": 'What the kind needs; of command {"argv": [program, argument, …]}, no shell'},
        "capabilities": {"type": "array", "items": {"enum": capabilities} if capabilities else _IDENTIFIER},
        "depends_on": {"type": "array", "items": {"anyOf": [_IDENTIFIER, wait]}},
        "estimated_duration_s": {"type": "number", "minimum": 0},
        "timeout_s": {"type": "number", "exclusiveMinimum": 0},
        "risk_level": {"enum": ["LOW", "MEDIUM", "HIGH"]},
    }
    shape = {"type": "object", "properties": task, "required": ["task_id", "instruction"], "additionalProperties": False}
    return {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 128},
            "on_failure": {"enum": ["stop", "continue"]},
            "tasks": {"type": "array", "items": shape, "minItems": 1, "maxItems": wish.max_tasks},
        },
        "required": ["name", "tasks"],
        "additionalProperties": False,
    }


def _instructions(wish: Wish) -> str:
    fleet = "\n".join(f"- {agent}: {', '.join(offered) or 'any task without capabilities'}" for agent, offered in wish.fleet)
    return (
        "You plan work for a fleet of agents. Break the goal down into tasks that each have one clear result, "
        f"at most {wish.max_tasks}, fewer where fewer do. Let tasks wait for each other only where one needs what another leaves; "
        "what can go on side by side should. End with a task that checks the result.\n"
        "Each task says in `instruction` all that its agent needs to know. Give `capabilities` that one agent offers. "
        "Leave `kind` and `payload` out unless a plain program does the task without an agent.\n"
        f"The fleet:\n{fleet}"
    )
