"""Pictures of how predictions held: as SVG for the report, as characters for a terminal.

`contents` writes the one beside a run's report, the verb `calibration` prints the other. Both are functions of their bins alone: a
rebuilt folder is compared byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

import msgspec

from phase21.evaluation.calibration import ReliabilityBin

PICTURE = "calibration.svg"
"""The file beside a run's report."""

COLOURS = ("#0b62a4", "#c2570c", "#4d7c0f", "#7e3794")
"""A colour for each series, told apart by the colour-blind and on paper."""

_SIDE = 400
_LEFT, _TOP = 64, 76
_BARS_TOP, _BARS_HEIGHT = _TOP + _SIDE + 16, 72
_WIDTH, _HEIGHT = _LEFT + _SIDE + 24, _BARS_TOP + _BARS_HEIGHT + 56
_TITLE_LENGTH = 60
_TICKS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)

_ROWS, _COLUMNS = 21, 61


class Series(msgspec.Struct, frozen=True):
    """Bins under a name."""

    name: str
    bins: Sequence[ReliabilityBin]


# -- SVG -----------------------------------------------------------------------------------------------------------------


def reliability_svg(title: str, series: Sequence[Series]) -> str:
    """The picture: predicted across, what came about upwards with its 95 % interval, and below how many tasks each bin holds.

    Each of the series has its colour, four at most. On the diagonal predictions are honest, below it they promise too much.
    """
    size = f'width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12" fill="#222222">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
        _text(_WIDTH / 2, 22, _short(title), "middle", ' font-size="14" font-weight="bold"'),
        *_axes(),
        *_legend(series),
    ]
    most = max((found.samples for one in series for found in one.bins), default=1)
    for place, one in enumerate(series):
        parts += _points(one, place, len(series))
        parts += _counts(one, place, len(series), most)
    return "\n".join([*parts, "</svg>", ""])


def _axes() -> Iterator[str]:
    yield f'<rect x="{_LEFT}" y="{_TOP}" width="{_SIDE}" height="{_SIDE}" fill="none" stroke="#888888"/>'
    for tick in _TICKS:
        x, y = _x(tick), _y(tick)
        if 0.0 < tick < 1.0:
            yield _line(_LEFT, y, _LEFT + _SIDE, y, "#e4e4e4")
            yield _line(x, _TOP, x, _TOP + _SIDE, "#e4e4e4")
        yield _text(_LEFT - 8, y + 4, f"{tick:.0%}", "end")
        yield _text(x, _BARS_TOP + _BARS_HEIGHT + 18, f"{tick:.0%}", "middle")
    yield _line(_x(0.0), _y(0.0), _x(1.0), _y(1.0), "#888888", ' stroke-dasharray="4 4"')
    yield _line(_LEFT, _BARS_TOP + _BARS_HEIGHT, _LEFT + _SIDE, _BARS_TOP + _BARS_HEIGHT, "#888888")
    yield _text(_LEFT + _SIDE / 2, _HEIGHT - 14, "predicted", "middle")
    middle = _TOP + _SIDE / 2
    yield _text(18, middle, "came about", "middle", f' transform="rotate(-90 18 {middle:.1f})"')
    yield _text(_LEFT - 8, _BARS_TOP + _BARS_HEIGHT, "tasks", "end")


def _legend(series: Sequence[Series]) -> Iterator[str]:
    for place, one in enumerate(series):
        x, y = _LEFT + _SIDE // 2 * (place % 2), 46 + 18 * (place // 2)
        samples = sum(found.samples for found in one.bins)
        yield f'<circle cx="{x + 6}" cy="{y - 4}" r="5" fill="{COLOURS[place]}"/>'
        yield _text(x + 18, y, f"{one.name} ({samples} {'task' if samples == 1 else 'tasks'})", "start")


def _short(title: str) -> str:
    """As much of a title as has room; the whole of it is the picture's name."""
    return title if len(title) <= _TITLE_LENGTH else f"{title[: _TITLE_LENGTH - 1]}…"


def _points(one: Series, place: int, shown: int) -> Iterator[str]:
    colour, aside = COLOURS[place], 5.0 * (place - (shown - 1) / 2)
    joined = " ".join(f"{_x(found.predicted) + aside:.1f},{_y(found.observed):.1f}" for found in one.bins)
    yield f'<polyline points="{joined}" fill="none" stroke="{colour}" stroke-opacity="0.5"/>'
    for found in one.bins:
        x = _x(found.predicted) + aside
        yield _line(x, _y(found.observed_low), x, _y(found.observed_high), colour)
        said = f"{found.samples} predicted {found.predicted:.1%} on average, {found.observed:.1%} came about"
        yield f'<circle cx="{x:.1f}" cy="{_y(found.observed):.1f}" r="5" fill="{colour}"><title>{said}</title></circle>'


def _counts(one: Series, place: int, shown: int, most: int) -> Iterator[str]:
    for found in one.bins:
        wide = (_x(found.high) - _x(found.low) - 4.0) / shown
        high = _BARS_HEIGHT * found.samples / most
        x, y = _x(found.low) + 2.0 + wide * place, _BARS_TOP + _BARS_HEIGHT - high
        yield f'<rect x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{high:.1f}" fill="{COLOURS[place]}" fill-opacity="0.6"/>'


def _x(share: float) -> float:
    return _LEFT + _SIDE * share


def _y(share: float) -> float:
    return _TOP + _SIDE * (1.0 - share)


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, more: str = "") -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"{more}/>'


def _text(x: float, y: float, said: str, anchor: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{escape(said)}</text>'


# -- a terminal ----------------------------------------------------------------------------------------------------------


def reliability_lines(bins: Sequence[ReliabilityBin]) -> list[str]:
    """The same in characters, 68 wide: `●` where a bin lies, `│` its interval, dots where predictions are honest."""
    cells = [[" "] * _COLUMNS for _ in range(_ROWS)]
    for column in range(0, _COLUMNS, 3):
        cells[_row(column / (_COLUMNS - 1))][column] = "·"
    for found in bins:
        column = _column(found.predicted)
        for row in range(_row(found.observed_high), _row(found.observed_low) + 1):
            cells[row][column] = "│"
    for found in bins:  # over what other bins drew
        cells[_row(found.observed)][_column(found.predicted)] = "●"
    lines = [f"{_share(row)} ┤{''.join(line)}".rstrip() for row, line in enumerate(cells)]
    scale = "".join(f"{tick:<12.0%}" for tick in _TICKS).rstrip()
    return ["came about", *lines, "     └" + "─" * _COLUMNS, f"      {scale}", "      predicted"]


def _share(row: int) -> str:
    """What stands before a row: every fourth has a number."""
    return f"{1.0 - row / (_ROWS - 1):4.0%}" if row % 4 == 0 else "    "


def _row(share: float) -> int:
    return round((1.0 - share) * (_ROWS - 1))


def _column(share: float) -> int:
    return round(share * (_COLUMNS - 1))
