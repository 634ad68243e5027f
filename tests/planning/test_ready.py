"""What is ready: the most critical first, over all queues that are open."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from phase21.planning.ready import Ready, key_of, moved, place_of


def key(place, position=0, priority=2):
    return key_of(priority, position, place, known=True)


def drained(ready):
    turn, found = ready.turn(), []
    while (front := turn.take()) is not None:
        found.append(front[2])
    return found


PLACES = st.integers(0, 2**24 - 1)
PARTS = st.tuples(st.integers(0, 2**31), st.booleans(), PLACES, PLACES)


@given(PARTS, PARTS, PLACES)
def test_keys_are_in_the_order_of_what_they_are_made_of(one, other, elsewhere):
    """A key is less where priority, then being known, then the position, then the place is; and a position can be put anew."""

    def made(parts):
        priority, known, position, place = parts
        return key_of(priority, position, place, known=known)

    assert (made(one) < made(other)) == (one < other)
    assert place_of(made(one)) == one[-1]
    assert moved(made(one), elsewhere) == made((*one[:2], elsewhere, one[-1]))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9), st.sampled_from("abc")), max_size=20))
def test_all_come_out_in_order(entries):
    """Whatever the queues, tasks come by priority and then by how critical they are, each once."""
    ready = Ready()
    for place, (priority, position, queue) in enumerate(entries):
        ready.add(queue, key(place, position, priority))
        ready.add(queue, key(place, position, priority))
    assert len(ready) == len(entries)
    wanted = sorted(range(len(entries)), key=lambda place: (*entries[place][:2], place))
    assert drained(ready) == wanted
    assert not len(ready)


def test_what_is_put_back_waits_for_the_next_look():
    """A task put back is not met again in the same look, and comes first in the next."""
    ready = Ready()
    ready.add("a", key(0))
    ready.add("a", key(1, 1))
    turn = ready.turn()
    turn.put_back(*turn.take()[:2])
    assert turn.take()[2] == 1
    assert turn.take() is None
    turn.end()
    assert drained(ready) == [0]


def test_a_closed_queue_is_passed_over():
    """Of a queue that is closed nothing more comes in this look."""
    ready = Ready()
    for place, queue in enumerate("aab"):
        ready.add(queue, key(place))
    turn = ready.turn()
    turn.put_back(*turn.take()[:2])
    turn.close("a")
    assert turn.take()[2] == 2
    assert turn.take() is None
    turn.end()
    assert drained(ready) == [0, 1]


def test_tasks_can_be_ranked_anew():
    """New positions change the order of what is ready."""
    ready = Ready()
    for place in range(3):
        ready.add("a", key(place, place))
    ready.ranked([2, 1, 0])
    assert drained(ready) == [2, 1, 0]
