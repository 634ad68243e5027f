"""How tasks become points."""

from math import exp, sqrt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phase21.domain.evidence import Observation
from phase21.domain.tasks import Task

np = pytest.importorskip("numpy")

from phase21.planning.encoding import SPREAD, WORDS_MOST, encode  # noqa: E402 - numpy first


def seen(features, kind="k", heuristics=()):
    return Observation("a", kind, 0.8, heuristics, features, True)


def asked(features, kind="k", heuristics=()):
    return Task(task_id="t", kind=kind, heuristics=heuristics, features=features)


def points(*rows):
    """All rows as observations, with nothing asked about."""
    return encode([seen(features) for features in rows], [])[0]


def distances(made):
    return np.sqrt(((made[:, None, :] - made[None, :, :]) ** 2).sum(2))


NUMBERS = st.integers(-20, 20).map(float)
ROWS = st.lists(st.dictionaries(st.sampled_from(["size", "age"]), NUMBERS, max_size=2), min_size=1, max_size=12)


@given(ROWS, st.integers(0, 12))
@settings(deadline=None)
def test_shapes(rows, split):
    """There is a row for everything observed, then one for everything asked about, of the same width, and all are finite."""
    observed, of_asked = rows[:split], rows[split:]
    at, of = encode([seen(row) for row in observed], [asked(row) for row in of_asked])
    assert (len(at), len(of)) == (len(observed), len(of_asked))
    assert at.shape[1] == of.shape[1] >= 1
    assert np.isfinite(at).all()
    assert np.isfinite(of).all()


@given(ROWS, st.integers(0, 12))
@settings(deadline=None)
def test_who_asks_does_not_matter(rows, split):
    """A task is the same point whether it was observed or is asked about."""
    at, of = encode([seen(row) for row in rows[:split]], [asked(row) for row in rows[split:]])
    assert (np.vstack([at, of]) == points(*rows)).all()


@given(ROWS, st.sampled_from([lambda x: 3.0 * x + 7.0, lambda x: x**3, exp, lambda x: x / (30.0 + abs(x))]))
@settings(deadline=None)
def test_only_the_order_of_numbers_counts(rows, rising):
    """Any rising function of a feature makes the same points, bit for bit."""
    turned = [row | {"size": rising(row["size"])} if "size" in row else row for row in rows]
    assert (points(*turned) == points(*rows)).all()


@given(ROWS)
@settings(deadline=None)
def test_a_number_turned_round_is_as_far_apart(rows):
    """The sign of a feature changes no distance."""
    turned = [row | {"size": -row["size"]} if "size" in row else row for row in rows]
    assert distances(points(*turned)) == pytest.approx(distances(points(*rows)))


@given(ROWS, st.sampled_from([0.0, 3.5, "east"]))
@settings(deadline=None)
def test_what_is_the_same_everywhere_vanishes(rows, value):
    """A feature that is the same everywhere changes no point, and no scale."""
    assert (points(*[row | {"constant": value} for row in rows]) == points(*rows)).all()


def test_nothing_to_tell_apart():
    """Where nothing sets tasks apart all are the same point."""
    at, of = encode([seen({"size": 1.0})] * 2, [asked({"size": 1.0})])
    assert (at.tolist(), of.tolist()) == ([[0.0], [0.0]], [[0.0]])


def test_numbers_by_hand():
    """A number is its mid-rank, from -SPREAD to SPREAD; equals share theirs, and what is missing is in the middle."""
    assert points({"n": 1.0}, {"n": 5.0}, {"n": 5.0}, {"n": 9.0}, {}).ravel() == pytest.approx(
        [-0.75 * SPREAD, 0.0, 0.0, 0.75 * SPREAD, 0.0]
    )


def test_words_by_hand():
    """Different words are sqrt(2) apart, equal ones nothing, and what is missing is a word of its own."""
    made = distances(points({"w": "x"}, {"w": "y"}, {"w": "x"}, {}))
    assert made[0].tolist() == pytest.approx([0.0, sqrt(2), 0.0, sqrt(2)])
    assert made[1, 3] == pytest.approx(sqrt(2))


def test_a_number_and_a_word_are_as_far_apart():
    """Two numbers at random are about as far apart, in the mean of squares, as two different words."""
    made = distances(points(*[{"n": float(n)} for n in range(200)]))
    assert sqrt((made**2).mean()) == pytest.approx(sqrt(2), rel=0.03)


def test_one_word_makes_a_feature_of_words():
    """A feature that is a number here and a word there is a feature of words."""
    made = distances(points({"f": 1.0}, {"f": 2.0}, {"f": "1.0"}, {"f": "x"}))
    assert made[0].tolist() == pytest.approx([0.0, sqrt(2), 0.0, sqrt(2)])


def test_more_features_are_no_further():
    """Distances are scaled by how many features tell tasks apart: the same feature ten times over is the same once."""
    once = points(*[{"n": float(n)} for n in range(5)])
    tenfold = points(*[{f"n{copy}": float(n) for copy in range(10)} for n in range(5)])
    assert distances(tenfold) == pytest.approx(distances(once))


def test_kind_and_heuristics_are_words_that_no_feature_can_be_taken_for():
    """Kind and every heuristic set tasks apart; a feature that has their name is another feature."""
    at, _ = encode([seen({}, "x"), seen({}, "y"), seen({}, "x", ("h",))], [])
    made = distances(at)
    assert made[0, 1] == pytest.approx(1.0)
    assert made[0, 2] == pytest.approx(1.0)
    assert made[1, 2] == pytest.approx(sqrt(2))
    same_names, _ = encode([seen({"kind": "x", "h": "yes"}, "x"), seen({"kind": "y", "h": "yes"}, "x")], [])
    assert same_names.shape[1] == 3


def test_rare_words_count_as_one():
    """The most frequent words are told apart, and all others are one word."""
    frequent = [f"w{n:03}" for n in range(WORDS_MOST)]
    made = distances(points(*[{"w": word} for word in frequent * 2], {"w": "rare"}, {"w": "rarer"}))
    assert made[-1, -2] == 0.0
    assert made[0, 1] == pytest.approx(sqrt(2))
    assert (made[-1, : 2 * WORDS_MOST] > 1.0).all()


@given(ROWS)
@settings(deadline=None)
def test_the_order_of_features_does_not_matter(rows):
    """In which order a task tells its features changes nothing."""
    turned = [dict(reversed(row.items())) for row in rows]
    assert (points(*turned) == points(*rows)).all()
