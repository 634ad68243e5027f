"""Pictures of how predictions held."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from phase21.evaluation.calibration import reliability
from phase21.readers.plots import Series, reliability_lines, reliability_svg

SVG = "{http://www.w3.org/2000/svg}"
PAIRS = [(0.25, n < 1) for n in range(4)] + [(0.95, n < 19) for n in range(20)]
pairs_of_any_kind = st.lists(st.tuples(st.floats(0.0, 1.0), st.booleans()), max_size=40)


def test_each_bin_is_a_point_where_it_belongs():
    """A point stands above its mean prediction at the height of what came about, and says both."""
    root = ET.fromstring(reliability_svg("r", [Series("ours", reliability(PAIRS))]))
    points = [one for one in root.iter(f"{SVG}circle") if one.find(f"{SVG}title") is not None]
    low, high = ((float(one.attrib["cx"]), float(one.attrib["cy"])) for one in points)
    assert low == (64 + 400 * 0.25, 76 + 400 * 0.75)
    assert high == (64 + 400 * 0.95, 76 + 400 * 0.05)
    assert [one.find(f"{SVG}title").text for one in points] == [
        "4 predicted 25.0% on average, 25.0% came about",
        "20 predicted 95.0% on average, 95.0% came about",
    ]


def test_the_legend_names_each_series_with_its_tasks():
    """Each of the series has a colour and says how many tasks it holds."""
    picture = reliability_svg("r", [Series("ours", reliability(PAIRS)), Series("incoming", reliability([(0.5, True)]))])
    assert "ours (24 tasks)" in picture
    assert "incoming (1 task)" in picture
    assert len(set(re.findall(r'circle [^>]*fill="(#\w+)"', picture))) == 2


def test_a_long_title_is_cut_where_it_is_shown():
    """A title without room is shown as far as it goes, and stands whole in the picture's name."""
    root = ET.fromstring(reliability_svg("x" * 200, []))
    assert root.find(f"{SVG}title").text == "x" * 200
    assert root.find(f"{SVG}text").text == "x" * 59 + "…"


def test_a_title_cannot_break_the_picture():
    """What stands in a title is text, whatever it holds."""
    root = ET.fromstring(reliability_svg('<script>&"', []))
    assert root.find(f"{SVG}title").text == '<script>&"'


@given(pairs_of_any_kind)
def test_any_pairs_make_a_sound_picture(pairs):
    """The picture is XML with every mark inside its frame, and a function of the bins."""
    series = [Series("a", reliability(pairs)), Series("b", reliability(pairs[:5]))]
    picture = reliability_svg("r", series)
    assert picture == reliability_svg("r", series)
    root = ET.fromstring(picture)
    wide, high = float(root.attrib["width"]), float(root.attrib["height"])
    for one in root.iter():
        for name, most in (("x", wide), ("cx", wide), ("x1", wide), ("y", high), ("cy", high), ("y2", high)):
            assert 0.0 <= float(one.attrib.get(name, 0.0)) <= most


def test_the_terminal_shows_the_same_in_characters():
    """A mark stands in the row and column of its bin, with its interval as a stroke, and dots on the diagonal."""
    lines = reliability_lines(reliability(PAIRS))
    assert lines[0] == "came about"
    plot = [line[6:].ljust(61) for line in lines[1:22]]
    assert {(row, column) for row, line in enumerate(plot) for column, mark in enumerate(line) if mark == "●"} == {
        (15, 15),
        (1, 57),
    }
    assert [row for row, line in enumerate(plot) if line[15] == "│"] == [*range(6, 15), *range(16, 20)]
    assert plot[20][0] == plot[0][60] == plot[10][30] == "·"
    assert lines[1].startswith("100% ┤")
    assert lines[-3:] == [
        "     └" + "─" * 61,
        "      0%          20%         40%         60%         80%         100%",
        "      predicted",
    ]


@given(pairs_of_any_kind)
def test_any_pairs_fit_a_terminal(pairs):
    """Whatever the bins, the plot is 25 lines of at most 80 characters."""
    lines = reliability_lines(reliability(pairs))
    assert len(lines) == 25
    assert max(map(len, lines)) <= 80
