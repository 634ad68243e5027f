"""The shapes in which work is written: a submission, a workflow, its steps. Strict, so that no field is passed over.

Read by `submissions` and `workflows`, which say what they mean.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from phase21.domain.schedules import Recurrence
from phase21.domain.tasks import Compensation, Identifier, Name, Task, WaveNumber
from phase21.domain.workflows import Judged, Mode, OnFailure

MADE_INSIDE = "depth"
"""The field of a task that nobody may give it."""


class Step(Task, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A task of a workflow, or several.

    `for_each` makes one of each element of a list (as written, or what a reference stands for), `workflow` one of each task of a
    child; `compensate` may be the id of a step that runs only to undo this one.
    """

    compensate: Compensation | Identifier | None = None  # type: ignore[assignment]
    for_each: list[Any] | dict[str, Any] | None = None
    workflow: Child | None = None


Steps = Annotated[tuple[Step, ...], Meta(min_length=1)]


class Child(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A workflow within a workflow: its tasks, and how they follow each other. All else is the outer one's."""

    tasks: Steps
    mode: Mode = Mode.GRAPH


class Spec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, dict=True):
    """A workflow as it is submitted. What it comes to is kept with it, as it is asked for at parsing and at acceptance."""

    name: Name
    tasks: Steps
    mode: Mode = Mode.GRAPH
    on_failure: OnFailure = OnFailure.STOP
    max_parallel: Annotated[int, Meta(ge=1)] | None = None
    max_tasks: Annotated[int, Meta(ge=1, le=1_000_000)] = 1000
    max_depth: Annotated[int, Meta(ge=0, le=64)] = 3
    evaluate: Judged | None = None


class Fork(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which run's workflow is to be carried out again, and from which task on; what came before it is kept."""

    run: Identifier
    begin: Identifier = msgspec.field(name="from")


class Submission(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one line asks for: exactly one of `tasks`, `predictions` (a folder), `control`, `workflow` and `fork`."""

    run_id: Identifier
    submission_id: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    wave: WaveNumber | None = None
    tasks: Annotated[tuple[Task, ...], Meta(min_length=1)] | None = None
    predictions: Annotated[str, Meta(min_length=1)] | None = None
    control: Literal["approve", "cancel", "pause", "resume"] | None = None
    workflow: Spec | None = None
    fork: Fork | None = None
    every: Recurrence | None = None
    task_ids: Annotated[tuple[Identifier, ...], Meta(min_length=1)] | None = None
    metadata: dict[str, Any] = {}
