"""The verb `show`: a run's tasks as a graph, and how far each of them is."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from phase21.cli.options import Given, common

if TYPE_CHECKING:
    from rich.text import Text

    from phase21.cli.screen import Screen
    from phase21.intake.submissions import Submission
    from phase21.readers.inquiries.flows import Chart, Flow
    from phase21.readers.inquiries.spectator import Spectator


@click.command(short_help="The tasks of a run or a workflow file as a graph, and how far each is.")
@common()
@click.argument("what", metavar="RUN|FILE")
@click.option("-f", "--follow", is_flag=True, help="Draw it again as it changes, until it has ended.")
@click.option("--all", "everything", is_flag=True, help="A line for each task: fold none together.")
@click.option("--mermaid", is_flag=True, help="A Mermaid diagram, as in the report.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for scripts.")
def show(given: Given, *, what: str, follow: bool, everything: bool, mermaid: bool, as_json: bool) -> None:
    """Draw the tasks of RUN, or of a FILE that is to be submitted (- is stdin).

    What stands below another at the same margin follows it; what hangs on a branch goes side by side. Elements of one list, and in
    graphs of more than 60 nodes all tasks of a step, are drawn as one.
    """
    from phase21.readers.inquiries.spectator import Spectator  # noqa: PLC0415 - help needs none of it

    with Spectator(given.state) as spectator:
        source = _source(given, spectator, what)
        if follow:
            source.follow(everything=everything, seen=not (as_json or mermaid))
        _print(source.chart(), everything=everything, mermaid=mermaid, as_json=as_json)


def _print(chart: Chart, *, everything: bool, mermaid: bool, as_json: bool) -> None:
    if as_json:
        from phase21.readers.inquiries.flows import told  # noqa: PLC0415 - help needs none of it
        from phase21.store import codec  # noqa: PLC0415

        click.echo(codec.line(told(chart)), nl=False)
    elif mermaid:
        from phase21.readers.diagrams import mermaid as diagram  # noqa: PLC0415

        click.echo(diagram(chart.nodes), nl=False)
    else:
        from phase21.cli import screen  # noqa: PLC0415

        screen.show(*_lines(chart, everything=everything))


def _lines(chart: Chart, *, everything: bool) -> list[Text]:
    from phase21.cli.drawing import drawing  # noqa: PLC0415 - help needs none of it
    from phase21.store.clock import Clock  # noqa: PLC0415

    plain = (
        "utf" not in (sys.__stdout__.encoding if sys.__stdout__ is not None else "").lower()
    )  # a live display stands before stdout
    return drawing(chart, Clock().now_us(), everything=everything, plain=plain)


# -- what is drawn -------------------------------------------------------------------------------------------------------


class _Run:
    """A run that some daemon has read, as the store has it."""

    def __init__(self, spectator: Spectator, flow: Flow, after: int) -> None:
        self._spectator = spectator
        self._flow = flow
        self._after = after

    def chart(self) -> Chart:
        for entry in self._spectator.entries(max(self._after, self._flow.position), self._flow.run_id):
            self._flow.fold(entry)
        return self._flow.chart()

    def follow(self, *, everything: bool, seen: bool) -> None:
        """Draw on a terminal what changes, until it has ended; in a pipe only wait."""
        from phase21.cli.waiting import looks  # noqa: PLC0415 - help needs none of it

        if not (seen and sys.stdout.isatty()):
            for _ in looks(self._spectator.state):
                if self.chart().over:
                    return
        from rich.live import Live  # noqa: PLC0415

        from phase21.cli.screen import Screen  # noqa: PLC0415

        console = Screen(highlight=False, markup=False, emoji=False)
        with Live(console=console, auto_refresh=False, transient=True) as live:
            for _ in looks(self._spectator.state):
                chart = self.chart()
                if chart.over:
                    return
                live.update(_fitted(chart, console, everything=everything), refresh=True)


def _fitted(chart: Chart, console: Screen, *, everything: bool) -> Text:
    from rich.text import Text  # noqa: PLC0415 - help needs none of it

    from phase21.cli.drawing import window  # noqa: PLC0415

    made = Text("\n", no_wrap=True, overflow="ellipsis").join(
        window(_lines(chart, everything=everything), max(8, console.size.height - 1))
    )
    made.no_wrap, made.overflow = True, "ellipsis"
    return made


class _Still:
    """What no daemon has read: it does not change."""

    def __init__(self, chart: Chart) -> None:
        self._chart = chart

    def chart(self) -> Chart:
        return self._chart

    def follow(self, *, everything: bool, seen: bool) -> None:
        del everything, seen
        raise click.UsageError("a file does not change: submit it, and follow the run")


class _Queued(_Still):
    """A run that waits in the queue file, until a daemon reads it."""

    def __init__(self, spectator: Spectator, chart: Chart) -> None:
        super().__init__(chart)
        self._spectator = spectator
        self._read: _Run | None = None

    def chart(self) -> Chart:
        return self._read.chart() if self._read is not None else super().chart()

    def follow(self, *, everything: bool, seen: bool) -> None:
        """Wait until it is read, and follow it."""
        from phase21.cli.screen import tell  # noqa: PLC0415 - help needs none of it
        from phase21.cli.waiting import looks  # noqa: PLC0415

        tell(f"phase21: no daemon has read run {self._chart.run_id} yet; waiting for one (phase21 serve --state DIR)")
        for _ in looks(self._spectator.state):
            self._spectator.refresh()
            self._read = _known(self._spectator, self._chart.run_id)
            if self._read is not None:
                self._read.follow(everything=everything, seen=seen)
                return


def _source(given: Given, spectator: Spectator, what: str) -> _Run | _Still:
    """A run that is known, else one that waits in the queue file, else a file. Raises UnknownRun, InputRefused."""
    from pathlib import Path  # noqa: PLC0415 - help needs none of it

    spectator.refresh()
    known = _known(spectator, what)
    if known is not None:
        return known
    queued = None if what == "-" else _queued(given, spectator, what)
    if queued is not None:
        return _Queued(spectator, queued)
    if what != "-" and not Path(what).is_file():
        spectator.record(what)  # which says that there is none
    return _Still(_of_file(given, what))


def _known(spectator: Spectator, run_id: str) -> _Run | None:
    """A run that a daemon has read."""
    from phase21.domain.errors import UnknownRun  # noqa: PLC0415 - help needs none of it
    from phase21.readers.inquiries.flows import Flow  # noqa: PLC0415

    try:
        record = spectator.record(run_id)
    except UnknownRun:
        return None
    return _Run(spectator, Flow(run_id), max(0, record.first_position - 1))


def _queued(given: Given, spectator: Spectator, run_id: str) -> Chart | None:
    from phase21.readers.inquiries.explanations import unread_of  # noqa: PLC0415 - help needs none of it

    found = [one for one in unread_of(spectator, given.queue(given.load()), run_id) if one.tasks or one.workflow]
    return _chart_of(found[0]) if found else None


def _of_file(given: Given, name: str) -> Chart:
    """The first submission of a file that is one of tasks. Raises InputRefused."""
    from pathlib import Path  # noqa: PLC0415 - help needs none of it

    from phase21.cli.drafts import Desk  # noqa: PLC0415
    from phase21.domain.errors import InputRefused  # noqa: PLC0415

    settings = given.load()
    data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    desk = Desk(given.queue(settings), settings.queue.max_line_bytes)
    for draft in desk.read("stdin" if name == "-" else name, data):
        if draft.submission.tasks or draft.submission.workflow:
            return _chart_of(draft.submission)
    raise InputRefused(f"{name}: no submission in it has tasks or a workflow; there is nothing to draw")


def _chart_of(submission: Submission) -> Chart:
    from phase21.intake.workflows import compiled  # noqa: PLC0415 - help needs none of it
    from phase21.readers.inquiries.flows import drawn  # noqa: PLC0415

    if submission.workflow is None:
        return drawn(submission.run_id, submission.tasks or (), None)
    made = compiled(submission.workflow)
    return drawn(submission.run_id, made.tasks, made.workflow)
