"""Messages, shared values and locks: what is sent, taken, buried, set and held, and what ends with the attempt that held it."""

from __future__ import annotations

from phase21.domain import events as ev
from phase21.domain.folds.known import Folds, Known
from phase21.domain.messages import Lock, SharedValue
from phase21.domain.post import PostRecord
from phase21.domain.records import TaskRecord
from phase21.domain.runs import Run
from phase21.domain.tasks import FINAL, TaskStatus


def note_end(known: Known, run: Run, record: TaskRecord) -> None:
    """What it means for the post that a task's part in its wave is over; one that is deferred may yet come for what waits."""
    post, task_id = _post(run), record.task.task_id
    if record.status not in FINAL:
        post.attempt_ended(task_id)
        del post.live[task_id]
    elif post.task_ended(task_id):
        known.orphaned[run.run_id, task_id] = None


def _post(run: Run) -> PostRecord:
    """The run's post; made at the first need, when it finds out who is at work."""
    post = run.record.post
    if post is None:
        post = run.record.post = PostRecord()
        wave = run.waves.get(run.current) if run.current is not None else None
        for task_id, record in wave.tasks.items() if wave is not None else ():
            if record.attempts and not record.final and record.status is not TaskStatus.DEFERRED:
                post.live[task_id] = record.attempts if record.status is TaskStatus.IN_PROGRESS else 0
    return post


def _messages_passed(known: Known, event: ev.MessagesPassed) -> None:
    post = _post(known.runs[event.run_id])
    for message in event.sent:
        post.deliver(message)
    for taken in event.taken:
        post.hand_over(taken)


def _messages_dead(known: Known, event: ev.MessagesDead) -> None:
    post = _post(known.runs[event.run_id])
    for letter in event.letters:
        post.remove(letter)
        if letter.address not in post.mailboxes:
            known.orphaned.pop((event.run_id, letter.address), None)


def _topics_followed(known: Known, event: ev.TopicsFollowed) -> None:
    post = _post(known.runs[event.run_id])
    for topic in event.topics:
        who = post.followers.setdefault(topic, [])
        if event.task_id not in who:
            who.append(event.task_id)
    for topic in event.left:
        post.leave(topic, event.task_id)


def _shared_changed(known: Known, event: ev.SharedChanged) -> None:
    post = _post(known.runs[event.run_id])
    before = post.shared.get(event.name)
    post.shared_bytes += len(bytes(event.body)) - (len(bytes(before.body)) if before is not None else 0)
    post.shared[event.name] = SharedValue(event.version, event.body, event.by, known.at_us)


def _lock_taken(known: Known, event: ev.LockTaken) -> None:
    post = _post(known.runs[event.run_id])
    post.fences = event.fence
    post.locks[event.name] = Lock(event.task_id, event.attempt, event.fence, event.until_us)


def _lock_released(known: Known, event: ev.LockReleased) -> None:
    post = _post(known.runs[event.run_id])
    held = post.locks.get(event.name)
    if held is not None and held.fence == event.fence:
        del post.locks[event.name]


FOLDS: Folds = {
    ev.MessagesPassed: _messages_passed,
    ev.MessagesDead: _messages_dead,
    ev.TopicsFollowed: _topics_followed,
    ev.SharedChanged: _shared_changed,
    ev.LockTaken: _lock_taken,
    ev.LockReleased: _lock_released,
}
"""What becomes of what agents say and share."""
