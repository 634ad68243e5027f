"""The verb `plan`: a goal becomes a workflow, by a template or by a model; it is shown, and submitted where a person says so."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from phase21.cli.options import Given, common

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.table import Table

    from phase21.domain.settings import Settings
    from phase21.domain.tasks import Task
    from phase21.workflows.decomposition import Fleet, Plan, Step
    from phase21.workflows.models import Answer
    from phase21.workflows.templates.shelf import Template

SHOWN_CHARACTERS = 48
AGENTS_SHOWN = 3
PRECISE_BELOW_S = 10.0


@click.command(short_help="Make a workflow of a goal, by a template or a model; show it, submit it.")
@common()
@click.argument("goal", required=False)
@click.option("--list", "listed", is_flag=True, help="List the templates and their values.")
@click.option("--template", metavar="NAME", help="A template by name, or the path of a .toml file.")
@click.option("--set", "sets", metavar="KEY=VALUE", multiple=True, help="A value of the template; lists as JSON, or words.")
@click.option("--model", metavar="PROVIDER:NAME", help="Have a model plan it (needs the extra llm).")
@click.option("--base-url", metavar="URL", help="With --model: a server that speaks as OpenAI's does.")
@click.option(
    "--max-tasks",
    metavar="N",
    type=click.IntRange(min=1, max=1000),
    default=20,
    show_default=True,
    help="With --model: no more tasks than that.",
)
@click.option("--run-id", metavar="RUN", help="The run's name.  [default: made of template and goal]")
@click.option("--every", metavar="CRON", help="Have it fire again and again, each time as a run of its own.")
@click.option("--timezone", metavar="ZONE", help="With --every: the time zone of its times.  [default: UTC]")
@click.option("--out", metavar="FILE", help="Write the submission: .toml, else JSON.")
@click.option("--submit", is_flag=True, help="Append it to the queue file, once a person on the terminal has said yes.")
@click.option("--yes", is_flag=True, help="With --submit: do not ask.")
def plan(given: Given, *, goal: str | None, listed: bool, sets: tuple[str, ...], **asked: Any) -> None:
    """Make a workflow of GOAL and show it: its steps, what each waits for, who can do it and how likely.

    Nothing is submitted without --submit.
    """
    _check_usage(goal, listed=listed, asked=asked)
    settings = given.load()
    if listed:
        _list(settings)
        return
    from phase21.workflows.decomposition import check_able  # noqa: PLC0415 - help needs none of it

    fleet = _fleet(given, settings)
    made = _Made(str(goal), asked, settings, fleet, sets)
    _show(made)
    check_able(made.plan)
    if asked["out"]:
        _write(asked["out"], made)
    if asked["submit"]:
        _submit(made, given, settings, asked_already=asked["yes"])
    elif not asked["out"]:
        click.echo("nothing is submitted: --submit does that, --out FILE writes it")


def _check_usage(goal: str | None, *, listed: bool, asked: dict[str, Any]) -> None:
    if listed:
        if goal is not None:
            raise click.UsageError("--list takes no GOAL")
        return
    if not goal or not goal.strip():
        raise click.UsageError("give a GOAL, in a sentence or more")
    if (asked["template"] is None) == (asked["model"] is None):
        raise click.UsageError("give either --template NAME or --model PROVIDER:NAME")
    if asked["base_url"] is not None and asked["model"] is None:
        raise click.UsageError("--base-url goes with --model")
    if asked["timezone"] is not None and asked["every"] is None:
        raise click.UsageError("--timezone goes with --every")
    if asked["yes"] and not asked["submit"]:
        raise click.UsageError("--yes goes with --submit")
    if asked["submit"] and not asked["yes"] and not _on_terminal():
        raise click.UsageError("--submit asks a person on a terminal; elsewhere give --yes")


def _on_terminal() -> bool:
    return sys.stdin.isatty()


def _fleet(given: Given, settings: Settings) -> Fleet:
    from phase21.readers.inquiries.spectator import Spectator  # noqa: PLC0415 - help needs none of it
    from phase21.workflows.decomposition import Fleet  # noqa: PLC0415

    with Spectator(given.state) as spectator:
        spectator.refresh()
        return Fleet(settings, spectator.ledger.agents.values(), spectator.ledger.evidence)


class _Made:
    """A plan as it was asked for: its run, and what a model took for it."""

    def __init__(self, goal: str, asked: dict[str, Any], settings: Settings, fleet: Fleet, sets: tuple[str, ...]) -> None:
        self.fleet = fleet
        self.answer: Answer | None = None
        self.price = (settings.plan.input_price, settings.plan.output_price)
        self.source = f"template {asked['template']}" if asked["model"] is None else f"model {asked['model']}"
        facts = _facts(goal)
        if asked["model"] is None:
            self.plan = _by_template(asked["template"], settings, fleet, sets, facts)
        else:
            self.plan, self.answer = _by_model(asked, settings, fleet, sets, facts)
        self.run_id: str = asked["run_id"] or _run_id(self.plan.workflow.name, goal)
        every = {"cron": asked["every"], "timezone": asked["timezone"] or "UTC"} if asked["every"] else None
        self.submission: dict[str, Any] = {"run_id": self.run_id, **({"every": every} if every else {}), "workflow": self.plan.spec}
        _check(self.submission)


def _check(submission: dict[str, Any]) -> None:
    """Refuse what no line of the queue file may say. Raises InputRefused."""
    from phase21.intake.submissions import parse  # noqa: PLC0415 - help needs none of it
    from phase21.store import codec  # noqa: PLC0415

    parse(codec.encode(submission))


def _facts(goal: str) -> dict[str, Any]:
    """What every template may refer to: the goal, this Python, and the folder in which the verb is called."""
    from pathlib import Path  # noqa: PLC0415 - help needs none of it

    return {"goal": goal, "python": sys.executable, "here": str(Path.cwd())}


def _by_template(name: str, settings: Settings, fleet: Fleet, sets: tuple[str, ...], facts: dict[str, Any]) -> Plan:
    from phase21.workflows.decomposition import templated  # noqa: PLC0415 - help needs none of it
    from phase21.workflows.templates.shelf import named  # noqa: PLC0415

    template = named(name, settings.plan.templates_dir)
    return templated(template, fleet, _values(sets, _defaults(template)), facts, settings.plan.values)


def _by_model(
    asked: dict[str, Any], settings: Settings, fleet: Fleet, sets: tuple[str, ...], facts: dict[str, Any]
) -> tuple[Plan, Answer]:
    from phase21.workflows.decomposition import MODEL, modelled  # noqa: PLC0415 - help needs none of it
    from phase21.workflows.models import Wish  # noqa: PLC0415

    values = _values(sets, _defaults(MODEL))
    wish = Wish(goal=facts["goal"], model=asked["model"], base_url=asked["base_url"], max_tasks=asked["max_tasks"])
    if sys.stderr.isatty():
        click.echo(f"asking {wish.model} …", err=True)
    return modelled(wish, fleet, values, facts, settings.plan.values)


def _defaults(template: Template) -> dict[str, Any]:
    return {name: value.default for name, value in template.values.items()}


def _values(sets: tuple[str, ...], defaults: dict[str, Any]) -> dict[str, Any]:
    """What --set says, each of the sort that the template asks for. Raises UsageError."""
    from phase21.workflows.templates.filling import typed  # noqa: PLC0415 - help needs none of it

    found: dict[str, Any] = {}
    for one in sets:
        name, equals, text = one.partition("=")
        if not equals or not name:
            raise click.UsageError(f"--set {one}: give KEY=VALUE")
        try:
            found[name] = typed(text, defaults.get(name))
        except ValueError as error:
            raise click.UsageError(f"--set {name}: {error}") from None
    return found


def _run_id(name: str, goal: str) -> str:
    """A name that says what the run is for, and is no other's."""
    import uuid  # noqa: PLC0415 - help needs none of it

    from phase21.intake.predictions import legal_run_id  # noqa: PLC0415

    said = goal.lower()
    words = legal_run_id(said if said.startswith(name) else f"{name}-{said}")[:48].rstrip("-._")
    return f"{words}-{uuid.uuid4().hex[:6]}"


# -- what becomes of it --------------------------------------------------------------------------------------------------


def _write(file: str, made: _Made) -> None:
    from pathlib import Path  # noqa: PLC0415 - help needs none of it

    from phase21.store import codec  # noqa: PLC0415
    from phase21.workflows.writing import toml  # noqa: PLC0415

    text = toml(made.submission).encode() if file.endswith(".toml") else codec.pretty(made.submission)
    Path(file).write_bytes(text)
    click.echo(f"written to {file}: phase21 submit {file}")


def _submit(made: _Made, given: Given, settings: Settings, *, asked_already: bool) -> None:
    from phase21.cli import drafts as making  # noqa: PLC0415 - help needs none of it
    from phase21.store import codec  # noqa: PLC0415

    if not asked_already and not click.confirm(f"submit {len(made.plan.steps)} tasks as run {made.run_id}?"):
        click.echo("nothing is submitted")
        return
    path = given.queue(settings)
    desk = making.Desk(path, settings.queue.max_line_bytes)
    draft = desk.draft(codec.encode(made.submission), made.source)
    making.send([draft], given.state, path, settings)
    click.echo(draft.submission_id)


# -- what is shown -------------------------------------------------------------------------------------------------------


def _list(settings: Settings) -> None:
    from phase21.cli import screen  # noqa: PLC0415 - help needs none of it
    from phase21.workflows.templates.shelf import shelf  # noqa: PLC0415

    for template in shelf(settings.plan.templates_dir):
        screen.show(f"{template.name}: {template.description}", _values_of(template), "")


def _values_of(template: Template) -> Table:
    from phase21.cli import screen  # noqa: PLC0415 - help needs none of it
    from phase21.store import codec  # noqa: PLC0415

    table = screen.table("  VALUE", "DEFAULT", "MEANING")
    for name, value in template.values.items():
        default = "(required)" if value.required else codec.encode(value.default).decode()
        table.add_row(f"  {name}", _short(default), value.meaning)
    return table


def _show(made: _Made) -> None:
    from phase21.cli import screen  # noqa: PLC0415 - help needs none of it

    steps = made.plan.steps
    table = screen.table("STEP", "AFTER", "DOES", "NEEDS", "EXPECTED#", "WHO CAN, HOW LIKELY")
    for step in steps:
        table.add_row(*_row(step, len(made.fleet.agents)))
    flow = made.plan.workflow
    screen.show(f"run {made.run_id}: workflow {flow.name} by {made.source}; on failure {flow.on_failure}", "", table, "")
    if made.plan.later:
        screen.show(f"decided on the way: {', '.join(made.plan.later)}")
    screen.show(*_facts_of(made))
    every = made.submission.get("every")
    if every is not None:
        screen.show(f"fires at {every['cron']} ({every['timezone']}), each time as a run of its own")
    if made.answer is not None:
        screen.show("", *_instructions(made.plan))


def _row(step: Step, agents: int) -> tuple[str, ...]:
    task = step.task
    after = ", ".join(one.task if one.when == "succeeded" else f"{one.task} ({one.when})" for one in task.dependencies())
    undo = " (can be undone)" if task.compensate is not None else ""
    return (
        "  " * step.level + task.task_id,
        after,
        _short(_does(task)) + undo,
        ", ".join(task.capabilities),
        _seconds(step.expected_s),
        _who(step, agents),
    )


def _who(step: Step, agents: int) -> str:
    if not step.able:
        return "nobody"
    if len(step.able) == agents > AGENTS_SHOWN:
        return f"all {agents}: {_range([one.rate for one in step.able])}"
    more = f" and {len(step.able) - AGENTS_SHOWN} more" if len(step.able) > AGENTS_SHOWN else ""
    return ", ".join(f"{one.agent_id} {one.rate:.0%}" for one in step.able[:AGENTS_SHOWN]) + more


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds >= PRECISE_BELOW_S else f"{seconds:.2g} s"


def _range(rates: list[float]) -> str:
    low, high = f"{min(rates):.0%}", f"{max(rates):.0%}"
    return low if low == high else f"{low} to {high}"


def _does(task: Task) -> str:
    """What a task runs; where it was told something, the program and the last paragraph of that."""
    import shlex  # noqa: PLC0415 - help needs none of it

    argv = task.payload.get("argv")
    if not isinstance(argv, list | tuple):
        return f"{task.kind} {task.payload.get('callable', '')}".strip()
    program = str(argv[0]).rpartition("/")[2]
    told = str(task.metadata.get("instruction", "")).strip()
    if told:
        return f"{program}: {told.rpartition(chr(10))[2]}"
    return shlex.join([program, *(word if isinstance(word, str) else "…" for word in argv[1:])])


def _facts_of(made: _Made) -> Iterator[str]:
    steps = made.plan.steps
    yield f"{len(steps)} tasks; the longest chain is expected to take {_seconds(made.plan.path_s)}, all of it {_seconds(made.plan.work_s)}"
    if not made.fleet.names_skills(made.plan.spec):
        yield "the fleet names no capabilities: every agent may do every step (examples/specialists.toml names some)"
    waiting = [step.task.task_id for step in steps if step.task.risk_level != "LOW" and not step.task.approved]
    if waiting:
        many = len(waiting) > 1
        yield f"{len(waiting)} of them wait{'' if many else 's'} for a person: phase21 approve {made.run_id}"
    if made.answer is not None:
        yield _cost(made.answer, made.price)


def _cost(answer: Answer, price: tuple[float | None, float | None]) -> str:
    cost = answer.cost(*price)
    said = f"cost {cost:.4f}" if cost is not None else "cost unknown (plan.input_price, plan.output_price)"
    requests = f"{answer.requests} request{'s' * (answer.requests > 1)}"
    return f"{requests}, {answer.input_tokens} tokens told, {answer.output_tokens} tokens answered, {said}"


def _instructions(plan: Plan) -> Iterator[str]:
    """What a model wants done and what would run, whole: a person answers for it."""
    from phase21.store import codec  # noqa: PLC0415 - help needs none of it

    for step in plan.steps:
        task = step.task
        instruction = task.metadata.get("instruction", "")
        payload = {name: item for name, item in task.payload.items() if item != instruction}
        yield _plain(f"{task.task_id} [{task.risk_level}] runs {task.kind} {codec.encode(payload).decode()}")
        yield _plain(f"    {instruction}".replace("\n", "\n    "))


def _plain(text: str) -> str:
    """The text without characters that a terminal would take for commands."""
    return "".join(one if one.isprintable() or one == "\n" else "?" for one in text)


def _short(text: str) -> str:
    line = _plain(" ".join(text.split()))
    return line if len(line) <= SHOWN_CHARACTERS else f"{line[: SHOWN_CHARACTERS - 1]}…"
