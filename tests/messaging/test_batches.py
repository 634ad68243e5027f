"""What was said and taken in one turn, before it is in the journal."""

from __future__ import annotations

from phase21.messaging.batches import Batch


def test_a_queue_that_was_made_anew_is_read_from_its_front():
    """A queue is known by its place as long as it is the same; of another one that stands there now nothing was taken."""
    batch, queue = Batch(), []
    line = batch.line("a", 2, queue)
    line.front = 3
    assert batch.line("a", 2, queue) is line
    assert batch.line("a", 1, []).front == batch.line("a", 2, []).front == 0
