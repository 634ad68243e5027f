"""Programs run as tasks: real processes, ended whole."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
import uvloop

from phase21.domain.tasks import Attempt, Task
from phase21.engines import processes
from phase21.engines.handlers import CommandEngine, end_strays, stray_processes

PYTHON = sys.executable
pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="these tests watch processes as Linux lets them be watched")


def attempt(*argv, **payload):
    task = Task(task_id="t1", kind="command", payload={"argv": list(argv), **payload})
    return Attempt(run_id="r-1", wave=2, task=task, agent_id="agent_3", number=4, predicted=0.5, timeout_s=30.0)


def shell(script, **payload):
    return attempt("/bin/sh", "-c", script, **payload)


async def ran(one, marker=""):
    return await CommandEngine(marker).perform(one)


@pytest.fixture
def word(tmp_path):
    """A pipe by which a child tells its process ids: its path, and a way to wait for a line of them."""
    path = tmp_path / "word"
    os.mkfifo(path)

    async def told():
        line = await asyncio.to_thread(lambda: path.open().readline())
        return [int(pid) for pid in line.split()]

    return path, told


async def test_a_number_among_the_arguments_is_a_word():
    """What `$index` or a result stands for may be a number; a truth value or an object is refused."""
    outcome = await ran(attempt(PYTHON, "-c", "import sys; print(sys.argv[1:])", 3, 0.5))
    assert outcome.result["stdout"] == "['3', '0.5']\n"
    for odd in (True, None, {}):
        with pytest.raises(msgspec.ValidationError, match=re.escape("argv[1]")):
            CommandEngine().refusal({"argv": ["echo", odd]})


def ended(pid, within_s=1.0):
    """Whether the process ends in time; a zombie has ended."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], within_s)[0])
    finally:
        os.close(handle)


def open_files():
    gc.collect()  # what other tests left open is closed before it is counted
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())


def children():
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


async def test_success_is_exit_status_0():
    """A program that exits with 0 succeeds, and what it wrote is the result."""
    outcome = await ran(shell("echo out; echo err >&2"))
    assert outcome.success
    assert outcome.result == {"exit_status": 0, "stdout": "out\n", "stderr": "err\n"}


async def test_failure_says_the_exit_status_or_signal():
    """Another status is a failure that names it and keeps the output; so is a death by signal."""
    failed, killed = await ran(shell("echo why; exit 2")), await ran(shell("kill -9 $$"))
    assert (failed.success, failed.error_msg, failed.result["stdout"]) == (False, "exit status 2", "why\n")
    assert (killed.success, killed.error_msg, killed.result["exit_status"]) == (False, "killed by signal 9", -9)


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (attempt("/no/such/program"), "cannot start: No such file or directory: /no/such/program"),
        (attempt("true", cwd="/no/such/folder"), "cannot start: No such file or directory: /no/such/folder"),
        (attempt("/"), "cannot start: Permission denied: /"),
        (attempt("true", "x" * 3_000_000), "cannot start: Argument list too long: true"),
        (attempt("/no/hunter2hunter2", env={"PASS": "hunter2hunter2"}), "cannot start: No such file or directory: /no/***"),
        (attempt("true", "\ud800"), "cannot start: the payload holds text that is not Unicode"),
        (attempt("true", stdin="\ud800"), "cannot start: the payload holds text that is not Unicode"),
    ],
)
async def test_what_cannot_start_is_a_failure(one, said):
    """A program that cannot be started fails the attempt, saying why, and leaves nothing open."""
    before = open_files()
    outcome = await ran(one)
    assert (outcome.success, outcome.error_msg) == (False, said)
    assert open_files() == before


async def test_no_shell_reads_the_arguments():
    """Arguments reach the program as they stand."""
    assert (await ran(attempt("echo", "$HOME;", "*"))).result["stdout"] == "$HOME; *\n"


async def test_the_environment_is_the_daemons_and_the_payloads_and_says_what_runs(monkeypatch):
    """A program finds the daemon's variables, the payload's over them, and over all those that name the attempt and the store."""
    monkeypatch.setenv("KEPT", "kept")
    monkeypatch.setenv("OTHER", "daemon")
    names = "$KEPT $OTHER $PHASE21_RUN_ID $PHASE21_WAVE $PHASE21_TASK_ID $PHASE21_AGENT_ID $PHASE21_ATTEMPT $PHASE21_STORE"
    outcome = await ran(shell(f"echo {names}", env={"OTHER": "mine", "PHASE21_WAVE": "9", "PHASE21_STORE": "no"}), marker="m1")
    assert outcome.result["stdout"] == "kept mine r-1 2 t1 agent_3 4 m1\n"


async def test_input_and_folder_are_given(tmp_path):
    """A program reads `stdin`, whatever its size, and finds itself in `cwd`; without `stdin` there is nothing to read."""
    large = await ran(shell("pwd; wc -c", cwd=str(tmp_path), stdin="é" * 200_000))
    assert large.result["stdout"].split() == [str(tmp_path), "400000"]
    assert (await ran(shell("wc -c"))).result["stdout"].strip() == "0"


async def test_input_that_is_not_read_is_no_failure():
    """A program may end without reading its input."""
    assert (await ran(attempt("true", stdin="x" * 1_000_000))).success


async def test_only_the_end_of_long_output_is_kept():
    """The last 4 KiB of each stream are the result, and no more is held meanwhile."""
    outcome = await ran(shell("head -c 3000000 /dev/zero | tr '\\0' a; printf end; head -c 5000 /dev/zero | tr '\\0' b >&2"))
    assert outcome.result["stdout"] == "a" * 4093 + "end"
    assert outcome.result["stderr"] == "b" * 4096
    tail = processes.Tail(10)
    for _ in range(100):
        tail.feed(b"x" * processes.CHUNK_BYTES)
        assert len(tail._kept) <= 10 + 3 * processes.CHUNK_BYTES


async def test_bytes_that_are_not_text_are_replaced():
    """Output is read as UTF-8, and what is not is replaced."""
    assert (await ran(shell("printf 'a\\377b'"))).result["stdout"] == "a\ufffdb"


async def test_values_of_the_environment_are_hidden():
    """A value of the payload's environment is replaced in both streams, also where the cut divides it."""
    script = 'printf %s "$KEY"; head -c 4090 /dev/zero | tr "\\0" a; printf "%s" "$KEY$KEY" >&2'
    outcome = await ran(shell(script, env={"KEY": "correct-horse"}))
    assert outcome.result["stderr"] == "******"
    assert outcome.result["stdout"] == "***" + "a" * 4090


async def test_a_lingering_grandchild_does_not_hold_the_attempt(word):
    """A grandchild that keeps the pipes open after the program's exit is read for a moment and then left alone."""
    path, told = word
    before, began = open_files(), time.monotonic()
    async with asyncio.TaskGroup() as group:
        telling = group.create_task(told())
        outcome = await ran(shell(f"sleep 60 & echo $! > {path}; echo done"))
    assert time.monotonic() - began < 1
    assert (outcome.success, outcome.result["stdout"]) == (True, "done\n")
    assert open_files() == before
    (pid,) = telling.result()
    assert not ended(pid, 0)
    os.kill(pid, 9)


async def cancelled(script, told, *, times=1):
    """Begin, cancel once the child has told its ids, wait for the end; the ids and the seconds from cancel to end."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(ran(shell(script)))
        pids = await asyncio.wait_for(told(), 5)
        began = time.monotonic()
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
    assert task.cancelled()
    return pids, time.monotonic() - began


async def test_a_cancelled_command_is_ended_whole(word):
    """Cancelled, the program and its grandchildren end at SIGTERM; no zombie stays, and no open file."""
    path, told = word
    before = open_files()
    pids, seconds = await cancelled(f"sleep 60 & echo $$ $! > {path}; wait", told)
    assert seconds < 1
    assert all(ended(pid) for pid in pids)
    assert str(pids[0]) not in children()
    assert open_files() == before


async def test_what_ignores_sigterm_is_killed_after_the_grace(word, monkeypatch):
    """A group that does not heed SIGTERM is killed when the grace is over."""
    monkeypatch.setattr(processes, "GRACE_S", 0.1)
    path, told = word
    pids, seconds = await cancelled(f"trap '' TERM; sleep 60 & echo $$ $! > {path}; wait; wait", told)
    assert 0.1 <= seconds < 1
    assert all(ended(pid) for pid in pids)


async def test_a_grandchild_without_pipes_is_killed_too(word):
    """A grandchild that ignores SIGTERM and holds no pipe dies with its leader, without waiting for the grace."""
    path, told = word
    script = f"(trap '' TERM; exec sleep 60) >/dev/null 2>&1 & echo $$ $! > {path}; wait"
    pids, seconds = await cancelled(script, told)
    assert seconds < 1
    assert all(ended(pid) for pid in pids)


async def test_a_second_cancel_kills_at_once(word):
    """Cancelled again, the command is killed without waiting for the grace, and reaped."""
    path, told = word
    before = open_files()
    pids, seconds = await cancelled(f"trap '' TERM; sleep 60 & echo $$ $! > {path}; wait; wait", told, times=2)
    assert seconds < 1
    assert all(ended(pid) for pid in pids)
    assert str(pids[0]) not in children()
    assert open_files() == before


async def test_a_program_may_clean_up(word, tmp_path):
    """SIGTERM comes first, so that a program can leave things in order."""
    path, told = word
    note = tmp_path / "note"
    await cancelled(f"trap 'echo tidy > {note}; exit' TERM; echo $$ > {path}; while :; do sleep 0.01; done", told)
    assert note.read_text() == "tidy\n"


async def test_a_timeout_ends_the_command(word):
    """A limit kept by the caller comes as a cancellation, and the caller sees its own TimeoutError."""
    path, told = word
    limit = asyncio.timeout(None)

    async def limited():
        with pytest.raises(TimeoutError):
            async with limit:
                await ran(shell(f"echo $$ > {path}; exec sleep 60"))
        return True

    async with asyncio.TaskGroup() as group:
        task = group.create_task(limited())
        (pid,) = await told()
        limit.reschedule(asyncio.get_running_loop().time())
    assert task.result()
    assert ended(pid, 0)


async def test_without_pidfd_a_thread_watches(monkeypatch):
    """Where the system cannot watch a process by a file, the outcome is the same."""

    def missing(_pid):
        raise OSError

    monkeypatch.setattr(os, "pidfd_open", missing)
    assert (await ran(shell("echo out; exit 3"))).error_msg == "exit status 3"
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await ran(attempt("sleep", "60"))


def test_under_uvloop_all_is_the_same(word):
    """The other event loop carries commands out, feeds them and ends them as well."""
    path, told = word

    async def story():
        before = open_files()
        fed = await ran(shell("wc -c", stdin="x" * 300_000))
        assert fed.result["stdout"].strip() == "300000"
        assert (await ran(attempt("true", stdin="x" * 300_000))).success
        pids, seconds = await cancelled(f"sleep 60 & echo $$ $! > {path}; wait", told)
        assert seconds < 1
        assert all(ended(pid) for pid in pids)
        assert str(pids[0]) not in children()
        assert len(open_files()) <= len(before) + 1

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(story())


async def test_many_at_once_leave_nothing():
    """Fifty programs side by side all end, and neither files nor zombies stay."""
    before = open_files()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ran(attempt("echo", str(number)))) for number in range(50)]
    assert [int(task.result().result["stdout"]) for task in tasks] == list(range(50))
    assert open_files() == before


DAEMON = """
import asyncio, os, sys
from phase21.domain.tasks import Attempt, Task
from phase21.engines.handlers import CommandEngine
task = Task(task_id="t", kind="command", payload={"argv": ["/bin/sh", "-c", sys.argv[2]]})
attempt = Attempt(run_id="r", wave=1, task=task, agent_id="a", number=1, predicted=0.5, timeout_s=30.0)
asyncio.run(CommandEngine(sys.argv[1]).perform(attempt))
"""


async def test_strays_of_a_killed_daemon_are_ended(word):
    """What a daemon killed by SIGKILL left running is found by its marker and killed, and what has another marker lives."""
    path, told = word
    marker, other = f"store-{os.getpid()}", f"store-{os.getpid()}-other"
    bystander = subprocess.Popen(["sleep", "60"], env={processes.STORE_VARIABLE: other}, start_new_session=True)
    script = f"sleep 60 & setsid sleep 60 & echo $$ $! > {path}; wait"
    daemon = subprocess.Popen([PYTHON, "-c", DAEMON, marker, script], cwd=Path(__file__).parents[2])
    try:
        pids = await asyncio.wait_for(told(), 10)
        daemon.kill()
        daemon.wait()
        assert set(pids) <= set(stray_processes(marker))
        assert end_strays(marker) >= 3
        assert all(ended(pid, 0) for pid in pids)
        assert stray_processes(marker) == []
        assert stray_processes(other) == [bystander.pid]
    finally:
        for process in (daemon, bystander):
            process.kill()
            process.wait()


def test_without_a_marker_nothing_is_a_stray():
    """An empty marker kills nobody, and neither does one's own."""
    assert end_strays("") == 0
    own = f"own-{os.getpid()}"
    done = subprocess.run(
        [PYTHON, "-c", f"from phase21.engines.handlers import end_strays; print(end_strays({own!r}))"],
        env={**os.environ, processes.STORE_VARIABLE: own},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        start_new_session=True,
        check=True,
    )
    assert done.stdout == "0\n"


async def test_an_object_on_stdin_reaches_the_program_as_json():
    """As one line, so that what others left can be handed on by reference."""
    outcome = await ran(shell("cat", stdin={"a": [1, "é"]}))
    assert outcome.result["stdout"] == '{"a":[1,"é"]}\n'
