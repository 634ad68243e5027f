"""A run's tasks drawn for a person: a line each, or one for many that do the same, with marks, agents, times and reasons.

`show` prints these. Colours are the console's to leave out; where the terminal does not speak UTF-8, marks and lines are ASCII.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.text import Text

from phase21.domain.tasks import WAITING, TaskStatus, When
from phase21.readers.inquiries.flows import Chart
from phase21.readers.inquiries.outlines import Line, outline
from phase21.readers.nodes import Edge, Node, folded, is_join
from phase21.store.clock import MICROS, iso

NAMED_MOST = 4
NAME_WIDTH = 44
REASON_CHARS = 160
BAR_WIDTH = 24

MARKS = {
    TaskStatus.COMPLETED: ("✔", "+", "green"),
    TaskStatus.FAILED: ("✘", "x", "bold red"),
    TaskStatus.IN_PROGRESS: ("▶", ">", "bold cyan"),
    TaskStatus.RETRYING: ("↻", "~", "cyan"),
    TaskStatus.DEFERRED: ("?", "?", "yellow"),
    TaskStatus.PENDING: ("○", ".", ""),
    TaskStatus.CANCELLED: ("⊘", "#", "yellow"),
    TaskStatus.SKIPPED: ("-", "-", "dim"),
}
"""How a status is marked, the same in ASCII, and its colour."""

WORDS = {
    TaskStatus.COMPLETED: "done",
    TaskStatus.FAILED: "failed",
    TaskStatus.IN_PROGRESS: "running",
    TaskStatus.RETRYING: "to be tried again",
    TaskStatus.DEFERRED: "to be approved",
    TaskStatus.PENDING: "waiting",
    TaskStatus.CANCELLED: "cancelled",
    TaskStatus.SKIPPED: "skipped",
}

_ASCII = str.maketrans({"├": "|", "└": "`", "─": "-", "│": "|", "█": "#", "░": ".", "×": "x", "…": "~"})


def drawing(chart: Chart, now_us: int, *, everything: bool = False, plain: bool = False) -> list[Text]:
    """The lines of a chart; `everything` folds nothing, `plain` keeps to ASCII."""
    nodes = chart.nodes if everything else folded(chart.nodes)
    forth = outline([node for node in nodes if node.undoes is None])
    back = outline([node for node in nodes if node.undoes is not None])
    lines = [*_head(chart, now_us), Text(), *_rows(forth, now_us, plain=plain)]
    if back:
        lines += [Text(), Text("undone, the last first", style="bold"), *_rows(back, now_us, plain=plain)]
    return [_ascii(line) for line in lines] if plain else lines


def window(lines: Sequence[Text], height: int) -> list[Text]:
    """As many lines as there is room for: the head, and those around the first that is under way, else the first that waits."""
    if len(lines) <= height:
        return list(lines)
    head = next((n for n, line in enumerate(lines) if not line.plain), 0) + 1
    room = max(1, height - head - 2)
    active = next((n for style in (_AT_WORK, _WAITING) for n, line in enumerate(lines) if line.style == style), head)
    first = min(max(head, active - room // 3), len(lines) - room)
    above, below = first - head, len(lines) - first - room
    return [
        *lines[:head],
        Text(f"  … {above} lines above" if above else "", style="dim"),
        *lines[first : first + room],
        Text(f"  … {below} lines below" if below else "", style="dim"),
    ]


# -- the head ------------------------------------------------------------------------------------------------------------


def _head(chart: Chart, now_us: int) -> Iterator[Text]:
    flow = chart.flow
    name = f"{flow.workflow.name} " if flow is not None else ""
    yield Text.assemble(
        (name, "bold"), f"run {chart.run_id}: ", (chart.state, _STATE_STYLES.get(chart.state, "")), *_took(chart, now_us)
    )
    filled = round(BAR_WIDTH * chart.progress / 100)
    yield Text.assemble(("█" * filled, "green"), ("░" * (BAR_WIDTH - filled), "dim"), f" {chart.progress:.1f} %  {_counted(chart)}")
    if flow is None:
        return
    if flow.reason:
        yield Text(f"why: {flow.reason}")
    if flow.workflow.forked_from:
        yield Text(f"forked from run {flow.workflow.forked_from}, whose earlier results are kept")
    if flow.stranded:
        yield Text(f"needs a person: {_some(flow.stranded)} could not be done", style="bold red")


_STATE_STYLES = {"completed": "green", "failed": "bold red", "cancelled": "yellow", "running": "cyan", "paused": "yellow"}


def _took(chart: Chart, now_us: int) -> Iterator[str]:
    if chart.started_us is not None:
        until_us = chart.ended_us if chart.ended_us is not None else now_us
        yield f", {_seconds((until_us - chart.started_us) / MICROS)} since {iso(chart.started_us)[:19].replace('T', ' ')} UTC"


def _counted(chart: Chart) -> str:
    counts: dict[str, int] = {}
    for node in chart.nodes:
        word = "not made yet" if node.later else "kept" if node.kept else WORDS[TaskStatus(node.status)]
        counts[word] = counts.get(word, 0) + node.tasks
    return ", ".join(f"{count} {word}" for word, count in counts.items())


# -- rows ----------------------------------------------------------------------------------------------------------------

_AT_WORK, _WAITING = "not italic", "not underline"
"""Styles that change nothing, and tell `window` of which lines something is under way, or waits."""


def _rows(lines: Sequence[Line], now_us: int, *, plain: bool) -> Iterator[Text]:
    width = min(NAME_WIDTH, max((len(line.lead) + len(_title(line.node)) + 2 for line in lines), default=0))
    for line in lines:
        yield _row(line, width, now_us, plain=plain)


def _row(line: Line, width: int, now_us: int, *, plain: bool) -> Text:
    node = line.node
    mark, in_ascii, style = MARKS[TaskStatus(node.status)]
    told = Text(no_wrap=True, overflow="ellipsis", style=_state_style(node))
    told.append(line.lead, "dim")
    told.append(f"{in_ascii if plain else mark} ", style)
    told.append(_title(node), "dim" if node.status == TaskStatus.SKIPPED else "")
    told.append(" " * max(0, width - told.cell_len))
    for said, how in _details(line, now_us):
        told.append("  ")
        told.append(said, how)
    told.rstrip()
    return told


def _state_style(node: Node) -> str:
    if TaskStatus.IN_PROGRESS in node.statuses:
        return _AT_WORK
    return _WAITING if WAITING & node.statuses.keys() else ""


def _title(node: Node) -> str:
    return f"{node.title} ×{node.tasks}" if node.tasks > 1 else node.title


def _details(line: Line, now_us: int) -> Iterator[tuple[str, str]]:
    node = line.node
    yield from _many(node) if node.tasks > 1 else _one(node, now_us)
    if node.status == TaskStatus.SKIPPED and node.tasks == 1:
        return  # its reason says it
    if after := [edge.node for edge in line.after if edge.when == When.SUCCEEDED]:
        yield f"after {_some(after)}", "dim"
    yield from _edges(line.after)
    if node.condition:
        yield f"if {_short(node.condition)}", "magenta"
    if node.undoes:
        yield f"undoes {node.undoes.removesuffix('#')}", "dim"


def _edges(after: Sequence[Edge]) -> Iterator[tuple[str, str]]:
    for when, said in ((When.FAILED, "where {} failed"), (When.SETTLED, "however {} ended")):
        if named := [edge.node for edge in after if edge.when == when]:
            yield said.format(_some(named)), "dim"


def _many(node: Node) -> Iterator[tuple[str, str]]:
    counts = ", ".join(f"{count} {WORDS[TaskStatus(status)]}" for status, count in node.statuses.items())
    yield counts, "red" if TaskStatus.FAILED in node.statuses else ""
    if {TaskStatus.PENDING, TaskStatus.IN_PROGRESS, TaskStatus.RETRYING} & node.statuses.keys() and node.percent:
        yield f"{node.percent:.0f} %", "cyan"
    if node.started_us is not None and node.ended_us is not None and node.percent >= 100:  # noqa: PLR2004 - the whole
        yield _seconds((node.ended_us - node.started_us) / MICROS), "dim"
    if node.reason and node.status == TaskStatus.FAILED:
        yield _short(node.reason), "red"


def _one(node: Node, now_us: int) -> Iterator[tuple[str, str]]:
    status = node.status
    if node.later:
        yield node.later, "dim"
    elif node.kept:
        yield f"{WORDS[TaskStatus(status)]} in run {node.kept}", "dim"
    elif status == TaskStatus.COMPLETED:
        yield from _ran(node)
    elif status == TaskStatus.IN_PROGRESS:
        yield from _under_way(node, now_us)
    elif status in WAITING:
        yield from _waits(node, now_us)
    else:
        yield from _ran(node)
        word, why = WORDS[TaskStatus(status)], _short(node.reason or "")
        yield f"{word}: {why}" if why not in {"", word} else word, _REASON_STYLES.get(status, "")


_REASON_STYLES: dict[str, str] = {TaskStatus.FAILED: "red", TaskStatus.SKIPPED: "dim", TaskStatus.DEFERRED: "yellow"}


def _ran(node: Node) -> Iterator[tuple[str, str]]:
    if is_join(node):
        yield "join", "dim"
        return
    if node.agent_id and node.attempts:
        yield node.agent_id, ""
    if node.duration_s is not None:
        yield _seconds(node.duration_s), ""
    if node.attempts > 1:
        yield f"{node.attempts} attempts", "yellow"


def _under_way(node: Node, now_us: int) -> Iterator[tuple[str, str]]:
    yield node.agent_id or "", ""
    if node.percent:
        yield f"{node.percent:.0f} %", "cyan"
    if node.note:
        yield _short(node.note), "cyan"
    if node.started_us is not None:
        yield f"since {_seconds(max(0.0, (now_us - node.started_us) / MICROS))}", "dim"
    if node.attempts > 1:
        yield f"attempt {node.attempts}", "yellow"


def _waits(node: Node, now_us: int) -> Iterator[tuple[str, str]]:
    if node.attempts:
        yield f"attempt {node.attempts} failed" if node.status == TaskStatus.RETRYING else "interrupted", "yellow"
    if node.due_us is not None and node.due_us > now_us:
        yield f"not before {iso(node.due_us)[:19].replace('T', ' ')} UTC", "yellow"


# -- words ---------------------------------------------------------------------------------------------------------------


def _some(names: Sequence[str]) -> str:
    shown = [name.removesuffix("#") for name in names[:NAMED_MOST]]
    more = f" and {len(names) - NAMED_MOST} more" if len(names) > NAMED_MOST else ""
    return ", ".join(shown) + more


def _short(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= REASON_CHARS else f"{plain[: REASON_CHARS - 1]}…"


def _seconds(seconds: float) -> str:
    """A duration for a person."""
    if seconds < 0.1:  # noqa: PLR2004 - what two digits do not show
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:  # noqa: PLR2004 - a minute
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"  # noqa: PLR2004
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _ascii(line: Text) -> Text:
    changed = line.copy()
    changed.plain = line.plain.translate(_ASCII)
    return changed
