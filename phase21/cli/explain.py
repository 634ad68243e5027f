"""The verb `explain`: why a task stands as it does, whether or not a daemon runs."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from phase21.cli.options import Given, common

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from phase21.readers.inquiries import histories
    from phase21.readers.inquiries.explanations import Explanation, Part
    from phase21.readers.inquiries.waits import Need, Wait


@click.command(short_help="Why a task stands as it does: its agent, what it waits for, its retries.")
@common()
@click.argument("run_id", metavar="RUN")
@click.argument("task_id", metavar="TASK")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for scripts.")
def explain(given: Given, *, run_id: str, task_id: str, as_json: bool) -> None:
    """Say why TASK of RUN has this agent, what it waits for and what would free it, and why it was tried again or not.

    What the configuration decides (how many attempts there may be, when an agent is tried again) is said as it is read here:
    give --config as the daemon has it.
    """
    from phase21.readers.inquiries.explanations import explained, told  # noqa: PLC0415 - help needs none of it
    from phase21.readers.inquiries.spectator import Spectator  # noqa: PLC0415
    from phase21.store import codec  # noqa: PLC0415
    from phase21.store.clock import Clock  # noqa: PLC0415

    settings = given.load()
    with Spectator(given.state) as spectator:
        spectator.refresh()
        found = explained(spectator, settings, given.queue(settings), run_id, task_id, Clock().now_us())
    if as_json:
        click.echo(codec.line(told(found)), nl=False)
    else:
        _show(found, given.state)


def _show(found: Explanation, state: Path) -> None:
    from phase21.cli import screen  # noqa: PLC0415 - help needs none of it

    wave = f", wave {found.wave}" if found.wave is not None else ""
    screen.show(f"{found.task.task_id} of run {found.run_id}{wave}: {found.status}", *_facts(found), "")
    answers = screen.table("", "")
    answers.show_header = False
    for question, answer in _questions(found):
        answers.add_row(question, answer)
    if answers.row_count:
        screen.show(answers, "")
    for place, wait in enumerate(found.waits):
        _show_wait(wait, state, "why it waits" if place == 0 else "and besides")
    if found.history is not None:
        screen.show(_happened(found))


def _facts(found: Explanation) -> Iterator[str]:
    task = found.task
    features = f", {len(task.features)} feature{'s' * (len(task.features) > 1)}" if task.features else ""
    rates = task.predictions.values()
    by_agent = f", by agent {min(rates):.1%} to {max(rates):.1%}" if rates else ""
    predicted = f"came in predicted {task.predicted_success_rate:.1%}{by_agent}"
    yield f"  kind {task.kind}, risk {task.risk_level}, priority {task.priority}, {predicted}{features}"
    wants = [f"pinned to {task.agent_id}"] if task.agent_id else []
    wants += [f"needs {', '.join(task.capabilities)}"] if task.capabilities else []
    wants += [] if task.idempotent else ["not idempotent"]
    if wants:
        yield f"  {', '.join(wants)}"
    if found.needs:
        yield f"  depends on {', '.join(_need(need) for need in found.needs)}"
    if found.part is not None:
        yield from _part(found.part)


def _need(need: Need) -> str:
    wanted = {"failed": " (wanted: failed)", "settled": " (wanted: any end)"}.get(need.when, "")
    return f"{need.task_id} {need.status}".strip() + wanted


def _part(part: Part) -> Iterator[str]:
    step = f", step {part.step}" if part.step else ""
    yield f"  of workflow {part.workflow}{step}: {part.stage}"
    if part.condition:
        yield f"  only if {part.condition}"
    if part.compensation:
        yield f"  {part.compensation}"


def _questions(found: Explanation) -> Iterator[tuple[str, str]]:
    answers = found.answers
    if answers.agent is not None:
        yield "why this agent", answers.agent
    if answers.end is not None:
        yield f"why {found.status}", answers.end
    if answers.retries is not None:
        last = found.attempts[-1].tried
        yield "why not again" if last.outcome == "FAILED" and not last.again else "why tried again", answers.retries


def _show_wait(wait: Wait, state: Path, head: str) -> None:
    from phase21.cli import screen  # noqa: PLC0415 - help needs none of it
    from phase21.readers.inquiries.waits import second  # noqa: PLC0415

    until = f", at about {second(wait.until_us)}" if wait.until_us is not None else ""
    table = screen.table("", "")
    table.show_header = False
    table.add_row(head.ljust(13), wait.text)
    table.add_row("what frees it", wait.frees + until)
    screen.show(table)
    if wait.command:
        screen.show(f"               {_typed(wait.command, state)}")
    screen.show("")


def _typed(words: tuple[str, ...], state: Path) -> str:
    """The command as it is to be typed here."""
    where = () if state == Path("phase21_state").absolute() else ("--state", str(state))
    return shlex.join(("phase21", *words, *where))


# -- what happened -------------------------------------------------------------------------------------------------------


def _happened(found: Explanation) -> Table:
    from phase21.cli import screen  # noqa: PLC0415 - help needs none of it

    history = found.history
    assert history is not None  # noqa: S101 - narrows the type
    table = screen.table("WHEN (UTC)", "WHAT HAPPENED")
    wave = f"wave {history.waves[0]}"
    table.add_row(_moment(history.accepted_us), f"accepted into {wave} (submission {history.submission_id})")
    for at_us, said in _tellings(found):
        table.add_row(_moment(at_us), said)
    return table


def _tellings(found: Explanation) -> Iterator[tuple[int, RenderableType]]:
    from phase21.readers.inquiries import histories  # noqa: PLC0415 - help needs none of it

    follows = {one.tried.attempt: one.follows for one in found.attempts}
    for one in found.history.happenings if found.history is not None else ():
        if isinstance(one, histories.Given):
            yield one.at_us, _assigned(one, found)
        elif isinstance(one, histories.Tried):
            yield one.started_us, _tried(one, follows[one.attempt])
        elif isinstance(one, histories.Told):
            yield one.at_us, one.text
        elif one.ruling != "APPROVED":
            yield one.at_us, _ruled(one)


def _assigned(given: histories.Given, found: Explanation) -> RenderableType:
    from rich.console import Group  # noqa: PLC0415 - help needs none of it

    from phase21.readers.inquiries.explanations import choosing  # noqa: PLC0415

    before = f" (until then with {given.before})" if given.before not in {None, given.agent_id} else ""
    line = f"given to {choosing(given, found.task)}{before}"
    return Group(line, _weighed(given)) if given.candidates else line


def _weighed(given: histories.Given) -> Table:
    from phase21.cli import screen  # noqa: PLC0415 - help needs none of it

    table = screen.table("", "AGENT", "PREDICTED#", "CAME IN#", "EXPECTED#", "HOLDS#")
    for one in given.candidates:
        mark = ">" if one.agent_id == given.agent_id else ""
        rates = (f"{one.predicted:.1%}", f"{one.raw:.1%}")
        table.add_row(mark, one.agent_id, *rates, f"{one.expected_s:.3f} s", str(one.load))
    return table


def _tried(tried: histories.Tried, follows: str) -> str:
    start = f"attempt {tried.attempt} by {tried.agent_id}: the gates approved it at confidence {tried.confidence:.1%}"
    if tried.outcome is None:
        said = f", {tried.percent:.0f} %" if tried.percent is not None else ""
        return f"{start}; it is under way{said}" + (f": {tried.note}" if tried.note else "")
    took = f" after {tried.duration_s:.3f} s" if tried.duration_s is not None else ""
    said = f": {tried.error_msg}" if tried.error_msg else ""
    return f"{start}; {tried.outcome}{took}{said}" + (f"\n{follows}" if follows else "")


def _ruled(ruled: histories.Ruled) -> str:
    word = (
        "refused it"
        if ruled.ruling == "REJECTED"
        else "holds it for a while"
        if ruled.passing
        else "put it off until a person decides"
    )
    attempt = f"before attempt {ruled.attempt}" if ruled.attempt else "before any agent had it"
    return f"{attempt} the gate {ruled.gate} {word}: {ruled.reason} (confidence {ruled.confidence:.1%})"


def _moment(at_us: int) -> str:
    from phase21.store.clock import iso  # noqa: PLC0415 - help needs none of it

    return iso(at_us)[:23].replace("T", " ")
