"""Functions called as tasks: async and plain, failing, abandoned."""

from __future__ import annotations

import asyncio
import sys
import textwrap
import threading

import pytest

from phase21.domain.tasks import Attempt, Task
from phase21.engines.handlers import PythonEngine

SOURCE = """
import asyncio, functools, threading
began, go_on, loops = threading.Event(), threading.Event(), []

def plain(x=1): return {"x": x, "thread": threading.current_thread() is threading.main_thread()}
async def waiting(x=1):
    await asyncio.sleep(0)
    return [x]
@functools.wraps(waiting)
def wrapped(**kwargs): return waiting(**kwargs)
def nothing(): return None
def fails(): raise ValueError("one\\n  two " + "x" * 5000)
def silent(): raise KeyError
def mute():
    class Mute(Exception):
        def __str__(self): raise RuntimeError
    raise Mute
def leaves(): raise SystemExit(3)
def stops(): raise StopIteration(1)
async def interrupts(): raise KeyboardInterrupt
async def gives_up(): raise asyncio.CancelledError
def odd(): return {"a": {1, 2}, "b": object()}
def large(): return "x" * 70_000
def surrogate(): return "\\ud800"
def deep(levels):
    value = []
    for _ in range(levels - 1): value = [value]
    return value
def unreadable(): raise ValueError("\\ud800")
def blocks():
    began.set()
    go_on.wait(5)
async def sleeps():
    began.set()
    await asyncio.sleep(60)
number = 3
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A package `given` with a module `work`, importable during a test."""
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "__init__.py").write_text("")
    (tmp_path / "given" / "work.py").write_text(textwrap.dedent(SOURCE))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "given.work"
    for name in ("given", "given.work"):
        sys.modules.pop(name, None)


def attempt(callable_, number=1, **kwargs):
    task = Task(task_id="t1", kind="python", payload={"callable": f"given.work:{callable_}", "kwargs": kwargs})
    return Attempt(run_id="r", wave=1, task=task, agent_id="agent_0", number=number, predicted=0.5, timeout_s=30.0)


@pytest.fixture
def engine(module):
    return PythonEngine(("given",))


async def test_a_plain_function_runs_off_the_loop(engine):
    """A plain function gets its arguments, runs in another thread, and its value is the result."""
    outcome = await engine.perform(attempt("plain", x=5))
    assert outcome.success
    assert outcome.result == {"x": 5, "thread": False}


@pytest.mark.parametrize("name", ["waiting", "wrapped"])
async def test_an_async_function_is_awaited(engine, name):
    """An async function, or a plain one that returns something to await, gives what it is awaited for."""
    outcome = await engine.perform(attempt(name, x=5))
    assert (outcome.success, outcome.result) == (True, [5])


async def test_nothing_is_a_result(engine):
    """A function without a value succeeds without a result."""
    assert (await engine.perform(attempt("nothing"))).success


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("silent", "KeyError"),
        ("mute", "Mute"),
        ("leaves", "SystemExit: 3"),
        ("stops", "StopIteration: 1"),
        ("interrupts", "KeyboardInterrupt"),
        ("gives_up", "CancelledError"),
        ("unreadable", "ValueError: \\ud800"),
        ("large", "result is 70002 bytes of JSON, 65536 are allowed"),
        ("number", "given.work:number is not callable"),
        ("missing", "AttributeError: module 'given.work' has no attribute 'missing'"),
    ],
)
async def test_whatever_is_raised_is_a_failure(engine, name, said):
    """An exception of any kind, a result that cannot be kept or a function that is not there fails the attempt."""
    outcome = await engine.perform(attempt(name))
    assert (outcome.success, outcome.error_msg) == (False, said)


async def test_an_error_is_one_short_line(engine):
    """An exception is told as its type and text, in one line of 2,000 characters at most."""
    said = (await engine.perform(attempt("fails"))).error_msg
    assert said.startswith("ValueError: one two xxx")
    assert len(said) == 2000


@pytest.mark.parametrize(("name", "kwargs"), [("odd", {}), ("surrogate", {}), ("deep", {"levels": 65}), ("deep", {"levels": 5000})])
async def test_a_result_that_is_not_json_fails(engine, name, kwargs):
    """What JSON cannot say, or the journal cannot hold, is no result."""
    outcome = await engine.perform(attempt(name, **kwargs))
    assert not outcome.success
    assert outcome.error_msg.startswith("result is not JSON")


async def test_a_result_may_be_nested(engine):
    """Sixty-four levels are allowed, as in a submission."""
    assert (await engine.perform(attempt("deep", levels=64))).success


async def test_wrong_arguments_fail(engine):
    """Arguments that the function does not take fail the attempt, async or plain."""
    for name in ("nothing", "waiting"):
        assert (await engine.perform(attempt(name, y=1))).error_msg.startswith("TypeError")


async def test_only_allowed_modules_are_imported(module):
    """A module that is neither allowed nor in an allowed package is not even imported."""
    outcome = await PythonEngine(("give", "given.work.deeper")).perform(attempt("plain"))
    assert "not allowed" in outcome.error_msg
    assert module not in sys.modules


async def cancelled(engine, one):
    """Begin the attempt, and cancel it once its function runs."""
    await engine.perform(attempt("nothing"))  # imports the module
    began = sys.modules["given.work"].began
    async with asyncio.TaskGroup() as group:
        task = group.create_task(engine.perform(one))
        assert await asyncio.to_thread(began.wait, 5)
        task.cancel()
    assert task.cancelled()


async def test_a_plain_function_is_abandoned_and_that_is_said(engine):
    """A cancelled plain function goes on in its daemon thread, which holds nobody up; once it ends nothing is said any more."""
    one = attempt("blocks")
    await cancelled(engine, one)
    thread = next(thread for thread in threading.enumerate() if thread.name == "python-t1")
    assert thread.daemon
    assert engine.abandoned(one) == "the function goes on in its thread"
    assert engine.abandoned(attempt("blocks", number=2)) is None
    sys.modules["given.work"].go_on.set()
    await asyncio.to_thread(thread.join)
    await asyncio.sleep(0)
    assert engine.abandoned(one) is None


async def test_an_async_function_is_ended(engine):
    """A cancelled async function is cancelled itself, and nothing goes on."""
    one = attempt("sleeps")
    await cancelled(engine, one)
    assert engine.abandoned(one) is None


def test_an_abandoned_function_outlives_its_loop(engine):
    """A function that ends after its loop was closed disturbs nobody."""
    one = attempt("blocks")
    asyncio.run(cancelled(engine, one))
    thread = next(thread for thread in threading.enumerate() if thread.name == "python-t1")
    sys.modules["given.work"].go_on.set()
    thread.join(5)
    assert not thread.is_alive()
