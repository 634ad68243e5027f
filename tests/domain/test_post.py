"""A run's post as the ledger folds it: who lives, what waits, and what ends with whom."""

from __future__ import annotations

import msgspec
import pytest

from phase21.domain import events as ev
from phase21.domain.ledger import Ledger
from phase21.domain.messages import DeadLetter, Lock, Message, MessageType, Taken
from phase21.domain.post import Mailbox, PostRecord, is_agent
from phase21.domain.runs import own_copy
from phase21.domain.tasks import Task

BODY = msgspec.Raw(b'{"n":1}')


def said(number, to="a", topic=None, sender="b", priority=2):
    return Message(f"m{number}", MessageType.NOTIFICATION, priority, sender, to, topic, BODY)


def ledger_of(*events):
    ledger = Ledger()
    for event in events:
        ledger.fold(ev.Entry(ledger.position + 1, 1000 * ledger.position, event))
    return ledger


def opened(*names):
    tasks = tuple(Task(task_id=name) for name in names)
    return (
        ev.AgentJoined(agent_id="x"),
        ev.SubmissionAccepted(submission_id="s", run_id="r", waves={1: tasks}),
        ev.WaveOpened(run_id="r", wave=1),
    )


def began(name, attempt=1):
    return ev.AttemptStarted(run_id="r", wave=1, task_id=name, agent_id="x", attempt=attempt, confidence=1.0)


def failed(name):
    return ev.AttemptFailed(run_id="r", wave=1, task_id=name, agent_id="x", attempt=1, error_msg="x", delay_s=0, duration_s=0)


def passed(*sent, taken=()):
    return ev.MessagesPassed(run_id="r", sent=sent, taken=taken)


def post_of(ledger):
    return ledger.runs["r"].record.post


def test_the_first_word_finds_out_who_is_at_work():
    """The post is made at the first need, and knows then which attempts live and which tasks are between two."""
    ledger = ledger_of(*opened("a", "b", "c"), began("a"), began("b"), failed("b"), passed(said(1)))
    assert post_of(ledger).live == {"a": 1, "b": 0}


def test_a_task_that_is_deferred_keeps_what_waits_for_it_and_loses_its_locks():
    """Who is deferred lives no longer, holds no lock, and may yet come for its messages."""
    deferred = ev.TaskDeferred(run_id="r", wave=1, task_id="a", agent_id="x", attempt=1, reason="ask first")
    taken = ev.LockTaken(run_id="r", name="l", task_id="a", attempt=1, fence=1)
    ledger = ledger_of(
        *opened("a", "b"), began("a"), passed(said(1), said(2)), passed(taken=(Taken("a", "a", "m1"),)), taken, deferred
    )
    post = post_of(ledger)
    assert (post.live, post.locks, post.hands) == ({}, {}, {})
    assert [message.message_id for message in post.mailboxes["a"]] == ["m1", "m2"]
    assert not ledger.orphaned
    assert ledger.agents["x"].busy == 0


def test_a_release_that_comes_late_changes_nothing():
    """A lock that is another's by now is not given back with an old fence."""
    mine = ev.LockTaken(run_id="r", name="l", task_id="a", attempt=1, fence=1, until_us=1)
    theirs = ev.LockTaken(run_id="r", name="l", task_id="b", attempt=1, fence=2)
    late = ev.LockReleased(run_id="r", name="l", task_id="a", fence=1)
    ledger = ledger_of(*opened("a", "b"), began("a"), began("b"), mine, theirs, late)
    assert post_of(ledger).locks == {"l": Lock("b", 1, 2)}
    late = ev.LockReleased(run_id="r", name="l", task_id="b", fence=2)
    ledger.fold(ev.Entry(99, 0, late))
    assert post_of(ledger).locks == {}


def test_what_does_not_wait_is_neither_taken_nor_buried():
    """A message that is not there (any more) leaves hands and mailboxes as they are."""
    box = Mailbox()
    box.put(said(1, priority=0))
    box.put(said(2, priority=0))
    assert box.take("m9") is None
    assert box.take("m2") == said(2, priority=0)
    post = PostRecord(mailboxes={"a": box})
    post.hand_over(Taken("a", "a", "m9"))
    post.remove(DeadLetter("m9", "a", "gone"))
    post.hand_over(Taken("a", "nowhere", "m1"))
    assert (post.hands, list(post.mailboxes["a"])) == ({}, [said(1, priority=0)])


def test_leaving_a_topic_that_is_not_followed_is_nothing():
    """Whoever leaves what it never followed changes nothing; a topic that nobody follows is forgotten."""
    follow = ev.TopicsFollowed(run_id="r", task_id="a", topics=("t",))
    leave = ev.TopicsFollowed(run_id="r", task_id="b", left=("t", "u"))
    ledger = ledger_of(*opened("a", "b"), began("a"), began("b"), follow, follow, leave)
    assert post_of(ledger).followers == {"t": ["a"]}
    ledger.fold(ev.Entry(99, 0, ev.TopicsFollowed(run_id="r", task_id="a", left=("t",))))
    assert post_of(ledger).followers == {}


def test_a_run_that_was_put_away_comes_back_with_its_values_alone():
    """What outlives all tasks of a run are its shared values and counts, not what waited or was held."""
    shared = ev.SharedChanged(run_id="r", name="k", version=3, body=BODY, by="a")
    ledger = ledger_of(*opened("a"), began("a"), passed(said(1)), shared)
    record = ledger.runs["r"].record
    back = own_copy(record).post
    assert (back.sent, back.shared, back.shared_bytes) == (1, record.post.shared, 7)
    assert (back.mailboxes, back.live, back.locks) == ({}, {}, {})
    assert back.shared is not record.post.shared


@pytest.mark.parametrize("event", [ev.ServiceStarted(pid=1, version="2")])
def test_no_attempt_outlives_the_process_it_lived_in(event):
    """When a service starts, nothing is held by those that lived before, and their messages in hand wait again, first."""
    lock = ev.LockTaken(run_id="r", name="l", task_id="a", attempt=1, fence=1)
    take = passed(said(2), taken=(Taken("a", "a", "m1"),))
    ledger = ledger_of(*opened("a"), began("a"), passed(said(1)), lock, take, event)
    post = post_of(ledger)
    assert (post.locks, post.hands, post.live) == ({}, {}, {"a": 0})
    assert [message.message_id for message in post.mailboxes["a"]] == ["m1", "m2"]


def test_an_idle_run_has_nobody_to_come_for_its_agents_messages():
    """When a run has nothing left to do, what waits for agents there is named as waiting in vain."""
    done = ev.TaskCompleted(run_id="r", wave=1, task_id="a", agent_id="x", attempt=1, duration_s=1)
    judged = ev.PredictionsCalibrated(run_id="r", wave=1, agents={})
    ledger = ledger_of(*opened("a"), began("a"), passed(said(1, to="@x"), said(2)), done)
    assert list(ledger.orphaned) == [("r", "a")]
    ledger.fold(ev.Entry(90, 0, ev.MessagesDead(run_id="r", letters=(DeadLetter("m2", "a", "a is gone"),))))
    assert not ledger.orphaned
    ledger.fold(ev.Entry(91, 0, ev.WaveSettled(run_id="r", wave=1)))
    ledger.fold(ev.Entry(92, 0, judged))
    assert list(ledger.orphaned) == [("r", "@x")]
    assert is_agent("@x")
    assert not is_agent("x")


def test_the_least_recently_idle_run_is_put_away_with_what_waited():
    """A run that memory lets go of leaves nothing behind that would be looked for."""
    ledger = ledger_of()
    for number in range(70):
        run_id = f"r{number}"
        tasks = {1: (Task(task_id="a"),)}
        for event in (
            ev.SubmissionAccepted(submission_id=run_id, run_id=run_id, waves=tasks),
            ev.WaveOpened(run_id=run_id, wave=1),
            ev.MessagesPassed(run_id=run_id, sent=(said(1, to="@x"),)),
            ev.TaskCancelled(run_id=run_id, wave=1, task_id="a"),
            ev.WaveSettled(run_id=run_id, wave=1),
            ev.PredictionsCalibrated(run_id=run_id, wave=1, agents={}),
            ev.OutputsWritten(run_id=run_id, wave=1),
        ):
            ledger.fold(ev.Entry(ledger.position + 1, 0, event))
    assert {run_id for run_id, _ in ledger.orphaned} == set(ledger.runs)
    assert len(ledger.runs) < 70
