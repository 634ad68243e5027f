"""Values of a command's environment never leave it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from phase21.engines.redaction import Secrets

LETTERS = st.text("ab*é\n", min_size=6, max_size=12)
LIMIT = 16


def tail_of(secrets, data, limit=LIMIT, *, torn=False):
    kept = data[-(limit + secrets.margin_bytes) :]
    return secrets.tail(kept, limit, cut=len(kept) < len(data), torn=torn)


@given(st.lists(LETTERS, max_size=4), st.data())
def test_no_value_is_ever_seen(values, data):
    """Whatever stands around them, however they overlap and wherever the cut falls, no value is left."""
    pieces = data.draw(st.lists(st.one_of(st.text("ab*é\n", max_size=8), st.sampled_from(values or ["x"])), max_size=12))
    secrets, text = Secrets(values), "".join(pieces)
    said = tail_of(secrets, text.encode())
    assert not any(value in said for value in values)
    assert not any(value in secrets.hide(text) for value in values)
    assert len(said.encode()) <= LIMIT


@given(st.text("uvwxyz", min_size=6, max_size=30), st.text("abc", max_size=40), st.text("abc", max_size=20))
def test_no_part_of_a_value_is_left_at_the_cut(value, before, after):
    """A cut that divides a value leaves nothing of it."""
    said = tail_of(Secrets([value]), (before + value + after).encode())
    assert not set(said) & set("uvwxyz")
    assert said.endswith(after[-LIMIT:])


@given(st.text("uvwxyz", min_size=7, max_size=30), st.integers(6, 29), st.text("abc", max_size=20))
def test_the_beginning_of_a_value_is_hidden_where_reading_broke_off(value, length, before):
    """Six or more characters of a value at the end of what was not read to its end are hidden."""
    data = (before + value[:length]).encode()
    assert not set(tail_of(Secrets([value]), data, 200, torn=True)) & set("uvwxyz")


@given(st.binary(max_size=100))
def test_bytes_without_values_are_kept(data):
    """Without values the tail is the last bytes, decoded, but for a character that the cut divides."""
    said, whole = tail_of(Secrets(["short"]), data), data[-LIMIT:]
    assert said in {whole[skipped:].decode("utf-8", "replace") for skipped in range(4)}


def test_short_values_are_kept():
    """Values of fewer than six characters are no secrets; characters count, not bytes."""
    assert Secrets(["éééé1", "abcdef"]).hide("éééé1 abcdef") == "éééé1 ***"


def test_values_that_overlap_leave_no_rest():
    """Where values overlap, each other or themselves, all that any of them covers is hidden."""
    assert tail_of(Secrets(["ababab"]), b"xabababab") == "x***"
    assert tail_of(Secrets(["abcdef", "defghi"]), b"xabcdefghi") == "x***"


def test_a_divided_character_is_left_out():
    """A cut inside a character takes the whole character."""
    assert tail_of(Secrets([]), "é".encode() * 20, 15) == "é" * 7


def test_a_json_value_holds_no_value_however_json_spells_it():
    """Within JSON they are hidden as they are, names among them; what is no text stays."""
    secrets = Secrets(['pa"ss\\word'])
    said = {'my pa"ss\\word': ['pa"ss\\word!', 5, None]}
    assert secrets.hide_in(said) == {"my ***": ["***!", 5, None]}
