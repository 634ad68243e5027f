"""Tasks that talk through a real daemon: negotiation, kill -9, the socket and its verb, and what hostile input gets there."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from yard import Yard, one_line, until, wave

AGENTS = """
import asyncio
from phase21 import NoAnswer

async def buyer(ctx, start):
    price = start
    while True:
        answer = await ctx.request("seller", {"price": price}, deadline_s=10)
        if answer.content["deal"]:
            return {"price": price, "with": answer.sender}
        price += 5

def seller(ctx, least):
    while True:
        letter = ctx.receive(10)
        deal = letter.content["price"] >= least
        ctx.respond(letter, {"deal": deal})
        if deal:
            return {"sold_to": letter.sender}

async def counts(ctx, to, most):
    done = (await ctx.shared.get("sent")).value or 0
    for number in range(done + 1, most + 1):
        async with ctx.lock("turn"):
            await ctx.send(to, number)
            await ctx.shared.set("sent", number)
        await asyncio.sleep(0.002)

async def collects(ctx, most):
    heard = (await ctx.shared.get("heard")).value or []
    while len(heard) < most:
        letter = await ctx.receive()
        if letter.content > len(heard):
            heard = [*heard, letter.content]
            async with ctx.lock("turn"):
                await ctx.shared.set("heard", heard)
    return heard
"""


def python(task_id: str, name: str, **kwargs: Any) -> dict[str, Any]:
    return {"task_id": task_id, "kind": "python", "payload": {"callable": f"talkative:{name}", "kwargs": kwargs}}


@pytest.fixture
def talking(yard: Yard) -> Yard:
    (yard.folder / "talkative.py").write_text(AGENTS)
    yard.configure('[handlers]\npython_modules = ["talkative"]\n')
    return yard


def result(yard: Yard, run_id: str, task_id: str) -> Any:
    row = yard.outcomes(run_id)[task_id]
    assert row["status"] == "COMPLETED", row
    return row["result"]


def test_two_agents_negotiate(talking: Yard) -> None:
    """An async and a plain function agree by request and response, and the history shows each message with who took it."""
    talking.append(wave("deal", python("seller", "seller", least=22), python("buyer", "buyer", start=10)))
    assert talking.once().returncode == 0
    assert result(talking, "deal", "buyer") == {"price": 25, "with": "seller"}
    assert result(talking, "deal", "seller") == {"sold_to": "buyer"}
    told = talking.call("messages", "deal", "--json")
    rows = [json.loads(line) for line in told.stdout.splitlines()]
    assert [(row["type"], row["sender"], row["taken_by"]) for row in rows[:2]] == [
        ("request", "buyer", ["seller"]),
        ("response", "seller", ["buyer"]),
    ]
    assert len(rows) == 8
    asked = talking.call("messages", "deal", "--json", "--from", "seller", "--type", "response", "--since", "1h", "--last", "2")
    assert [json.loads(line)["content"] for line in asked.stdout.splitlines()] == [{"deal": False}, {"deal": True}]
    assert "no messages" in talking.call("messages", "deal", "--dead").stdout
    assert one_line(talking.call("messages", "deal", "--since", "yesterday")).startswith("phase21: --since yesterday: neither")
    assert talking.call("messages", "unheard").returncode == 3


def test_kill_9_loses_no_message_and_frees_every_lock(talking: Yard) -> None:
    """Killed again and again while they talk, a sender and a collector go on where they were: each number arrives, in order."""
    dice, most = random.Random(21), 150
    talking.append(wave("count", python("to", "collects", most=most), python("from", "counts", to="to", most=most)))
    for _ in range(2):
        daemon = talking.serve("--log-level", "DEBUG")
        daemon.event("message_taken")
        heard = len(daemon.named("message_taken")) + dice.randrange(1, 20)
        until(lambda heard=heard, daemon=daemon: len(daemon.named("message_taken")) >= heard, "more messages")  # type: ignore[misc]
        daemon.kill()
    assert talking.once().returncode == 0
    assert result(talking, "count", "to") == list(range(1, most + 1))
    versions = [json.loads(line) for line in talking.call("messages", "count", "--shared", "--json").stdout.splitlines()]
    kept = [row["version"] for row in versions if row["name"] == "heard"]
    assert kept == list(range(1, most + 1))


def script(task_id: str, lines: str, **fields: Any) -> dict[str, Any]:
    verb = f'phase21() {{ {sys.executable} -m phase21 message "$@"; }}\n'
    return {
        "task_id": task_id,
        "kind": "command",
        "payload": {"argv": ["/bin/sh", "-e", "-c", verb + lines]},
        "max_attempts": 1,
        **fields,
    }


def test_shell_scripts_speak_through_the_socket(yard: Yard) -> None:
    """Every operation of a context is there for a script by the verb `message`, for its own task alone."""
    asks = """
        phase21 progress 25 asking >/dev/null
        test "$(phase21 request answers '{"n": 1}' --deadline 15 | grep -c '"content":"one"')" = 1
        test "$(phase21 shared k '[1]')" = 1
        test "$(phase21 shared k '[2]' --version 1)" = 2
        if phase21 shared k 3 --version 1; then exit 9; fi
        test "$(phase21 shared k)" = '{"version":2,"value":[2],"by":"asks"}'
        test "$(phase21 lock l)" -gt 0
        test "$(phase21 unlock l)" = true
        phase21 subscribe news; phase21 publish news x >/dev/null
        phase21 log "a line"; phase21 heartbeat
        if phase21 receive --timeout 0.01; then exit 8; fi
        phase21 result '{"price": 7}'
        phase21 attempt | grep -q '"task_id":"asks"'
    """
    answers = """
        m=$(phase21 receive --timeout 15)
        id=$(echo "$m" | sed 's/.*"message_id":"\\([^"]*\\)".*/\\1/')
        phase21 send asks one --reply-to "$id"
    """
    yard.append(wave("sh", script("answers", answers), script("asks", asks)))
    done = yard.once("--log-level", "DEBUG")
    assert yard.statuses("sh") == {"asks": "COMPLETED", "answers": "COMPLETED"}, (done.stdout, yard.outcomes("sh"))
    assert result(yard, "sh", "asks")["result"] == {"price": 7}
    assert '"event":"task_noted"' in done.stdout


def test_commands_speak_by_lines_on_their_stdout(yard: Yard) -> None:
    """With `messages` a command's lines are carried out and left out of its output; bad ones are said and change nothing."""
    lines = """
        echo before
        echo '{"phase21": {"progress": 40, "note": "half"}}'
        echo '{"phase21": {"shared": {"name": "k", "value": 3}}}'
        echo '{"phase21": {"shared": {"name": 3, "value": 4}}}'
        echo '{"phase21": {"receive": {}}}'
        echo '{"phase21": '
        echo '{"other": 1}'
        echo '{"phase21": {"spawn": [{"task_id": "more"}]}}'
        printf '{"phase21": {"result": "said"}}'
    """
    task = {"task_id": "t", "kind": "command", "payload": {"argv": ["sh", "-c", lines], "messages": True}}
    yard.append(wave("lines", task))
    done = yard.once()
    assert done.returncode == 0
    came = result(yard, "lines", "t")
    assert (came["stdout"], came["result"], came["spawn"]) == ('before\n{"other": 1}\n', "said", [{"task_id": "more"}])
    warned = [json.loads(line)["text"] for line in done.stdout.splitlines() if '"task_warned"' in line]
    assert len(warned) == 3
    versions = yard.call("messages", "lines", "--shared", "--json").stdout.splitlines()
    assert [json.loads(line)["value"] for line in versions] == [3]


def asked(path: Path, data: bytes) -> list[bytes]:
    """What the socket answers to some bytes, until it has answered once or closed."""
    with socket.socket(socket.AF_UNIX) as one:
        one.settimeout(10)
        folder = os.open(path.parent, os.O_RDONLY)
        one.connect(f"/proc/self/fd/{folder}/{path.name}")
        os.close(folder)
        one.sendall(data)
        with one.makefile("rb") as answers:
            return [answers.readline()]


def test_hostile_input_gets_one_line_and_the_daemon_goes_on(yard: Yard) -> None:
    """Whatever comes in by the socket is answered by one error line; the socket is the owner's alone."""
    yard.state = yard.folder / ("deep" * 30) / "state"
    yard.state.parent.mkdir()
    yard.queue = yard.state / "queue.jsonl"
    yard.append(wave("h", yard.held("held")))
    daemon = yard.serve()
    yard.running("held")
    path = yard.state / "messages.sock"
    assert path.stat().st_mode & 0o777 == 0o600
    dice = random.Random(4)
    hostile = [
        b"\n", b"{}\n", b"[]\n", b"null\n", b'{"ask": {"op": "send"}}\n', b'{"ask": 1, "token": "x"}\n',
        b'{"ask": {"op": "send", "to": "held"}, "token": "x"}\n', b'{"ask": {"op": "lock", "name": "l"}, "run": "h"}\n',
        b'{"ask": {"op": "send", "to": "a"}, "run": "unheard"}\n', b"[" * 100_000 + b"\n", b"x" * 300_000 + b"\n",
        b'{"ask": {"op": "send", "to": "held", "content": ' + b"[" * 100 + b"]" * 100 + b'}, "run": "h"}\n',
        *(bytes(dice.randrange(256) for _ in range(50)).replace(b"\n", b"") + b"\n" for _ in range(20)),
    ]  # fmt: skip
    for data in hostile:
        (answer,) = asked(path, data)
        assert set(json.loads(answer)) == {"error"}, data[:60]
    said = yard.call("message", "--run", "h", "--state", yard.state, "send", "held", "from a person")
    assert said.stdout.strip().startswith("m") or said.returncode, said
    yard.release("held")
    daemon.event("run_idle", run_id="h")
    assert daemon.stop(signal.SIGTERM) == 0
    assert not path.exists()
