"""Which engine performs what, and what none performs."""

from __future__ import annotations

import importlib.metadata

import pytest

from phase21.domain.errors import ConfigurationError
from phase21.domain.settings import HandlerSettings
from phase21.domain.tasks import Outcome, Task
from phase21.domain.workflows import JOIN
from phase21.engines.engine import Engines
from phase21.engines.handlers import CommandEngine, PythonEngine
from phase21.engines.model import ModelEngine
from phase21.engines.offers import HANDLERS
from phase21.engines.schema import SchemaEngine
from phase21.engines.simulated import SimulatedEngine


class EchoEngine:
    """A later handler."""

    async def perform(self, attempt):
        return Outcome(success=True, result=attempt.task.payload)


class PickyEngine(EchoEngine):
    """A later handler with a check of its own, which may break."""

    def refusal(self, payload):
        return None if payload["word"] == "please" else "ask nicely"


def built(*, dry_run=False, modules=()):
    return Engines.built(HandlerSettings(python_modules=modules), dry_run=dry_run)


def offered(monkeypatch, **factories):
    """Let installed packages offer these handlers."""

    class Point:
        def __init__(self, name, factory):
            self.name, self.value, self.load = name, f"somewhere:{name}", lambda: factory

    points = [Point(name, factory) for name, factory in factories.items()]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda *, group: points if group == HANDLERS else [])


def test_each_kind_has_its_engine():
    """A kind is performed by the engine of its name."""
    engines = built()
    assert isinstance(engines.of("command"), CommandEngine)
    assert isinstance(engines.of("python"), PythonEngine)
    assert isinstance(engines.of("simulate"), SimulatedEngine)
    assert isinstance(engines.of("schema"), SchemaEngine)
    assert isinstance(engines.of("model"), ModelEngine)
    assert engines.kinds == ("command", "join", "model", "python", "schema", "simulate")


def test_a_dry_run_simulates_everything_and_refuses_the_same():
    """In a dry run every known kind has the simulated engine, and what the real run refuses is refused."""
    engines = built(dry_run=True)
    assert {engines.of(kind) for kind in engines.kinds if kind != JOIN} == {engines.simulated}
    assert engines.refusal(Task(task_id="t", kind="command", payload={})) is not None
    assert engines.refusal(Task(task_id="t", kind="teleport")) is not None


def test_an_unknown_kind_is_refused_naming_the_known():
    """The refusal of an unknown kind says which there are."""
    said = built().refusal(Task(task_id="t", kind="teleport"))
    assert said == "no handler for kind 'teleport' (known: command, join, model, python, schema, simulate)"


@pytest.mark.parametrize(
    ("kind", "payload", "said"),
    [
        ("command", {}, "`argv`"),
        ("command", {"argv": []}, "`payload.argv`"),
        ("command", {"argv": [None]}, "`payload.argv[0]`"),
        ("command", {"argv": "ls"}, "`payload.argv`"),
        ("command", {"argv": ["a\0b"]}, "argv holds a NUL"),
        ("command", {"argv": [""]}, "argv[0] is empty"),
        ("command", {"argv": ["ls"], "shell": True}, "`shell`"),
        ("command", {"argv": ["ls"], "env": {"A": 1}}, "payload.env"),
        ("command", {"argv": ["ls"], "env": {"A=B": "x"}}, "env has a name"),
        ("command", {"argv": ["ls"], "env": {"A": "\0"}}, "env holds a NUL"),
        ("command", {"argv": ["ls"], "cwd": "\0"}, "cwd holds a NUL"),
        ("python", {"callable": "math"}, "module:function"),
        ("python", {"callable": "math:sqrt.__self__"}, "module:function"),
        ("python", {"callable": ".math:sqrt"}, "module:function"),
        ("python", {"callable": "math:sqrt", "kwargs": []}, "payload.kwargs"),
        ("python", {"callable": "os:getpid"}, "module 'os' is not allowed (handlers.python_modules: math, pkg)"),
        ("python", {"callable": "pkgs:f"}, "not allowed"),
        ("simulate", {"duration_s": "1"}, "payload.duration_s"),
    ],
)
def test_a_malformed_payload_is_refused_with_its_path(kind, payload, said):
    """What no handler can run is refused before it is tried, saying where it is wrong."""
    assert said in built(modules=("math", "pkg")).refusal(Task(task_id="t", kind=kind, payload=payload))


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        ("simulate", {}),
        ("simulate", {"duration_s": 1, "success_rate": 0.5}),
        ("command", {"argv": ["make", ""], "cwd": "/", "env": {"A": ""}, "stdin": "x\0"}),
        ("python", {"callable": "math:sqrt"}),
        ("python", {"callable": "pkg.sub:function", "kwargs": {"x": [1]}}),
    ],
)
def test_a_good_payload_is_let_through(kind, payload):
    """A well-formed payload of a known kind is not refused."""
    assert built(modules=("math", "pkg")).refusal(Task(task_id="t", kind=kind, payload=payload)) is None


def test_no_value_of_a_payload_is_said():
    """A refusal of an environment does not repeat its values."""
    said = built().refusal(Task(task_id="t", kind="command", payload={"argv": ["ls"], "env": {"KEY": "topsecret\0"}}))
    assert "topsecret" not in said


async def test_installed_packages_add_handlers(monkeypatch):
    """An entry point's name is a kind, and its factory's engine performs it."""
    offered(monkeypatch, echo=EchoEngine, picky=PickyEngine)
    engines = built()
    assert isinstance(engines.of("echo"), EchoEngine)
    assert engines.refusal(Task(task_id="t", kind="echo", payload={"anything": 1})) is None
    assert engines.refusal(Task(task_id="t", kind="picky", payload={"word": "now"})) == "ask nicely"
    assert "KeyError" in engines.refusal(Task(task_id="t", kind="picky", payload={}))


def test_a_handler_that_cannot_be_loaded_is_said_at_start(monkeypatch):
    """A broken entry point, or one that takes a kind that has a handler, is an error of configuration."""
    offered(monkeypatch, broken=lambda: 1 / 0)
    with pytest.raises(ConfigurationError, match=r"broken.*ZeroDivisionError"):
        built()
    offered(monkeypatch, command=EchoEngine)
    with pytest.raises(ConfigurationError, match=r"'command'.*already"):
        built()
