"""ORCH-001 and ORCH-002: the orchestrator begins, and a goal becomes tasks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from phase21.domain.tasks import TaskStatus
from phase21.intake import configuration
from phase21.store import codec
from phase21.workflows.decomposition import Fleet, check_able, modelled, templated
from phase21.workflows.models import Wish
from phase21.workflows.templates.shelf import named, shelf

ROOT = Path(__file__).parents[3]
SPECIALISTS = ROOT / "examples" / "specialists.toml"
EIGHT = {
    "backend_engineer",
    "search_architect",
    "ai_engineer",
    "frontend_specialist",
    "devops_specialist",
    "qa_engineer",
    "security_auditor",
    "docs_writer",
}
FACTS = {"goal": "Search by postcode", "python": "python3", "here": "/there"}


def verb(folder, name, *args, status=0):
    """Call a verb in a process of its own, over a state of its own."""
    command = [sys.executable, "-m", "phase21", name, *map(str, args), "--state", "state", "--outputs", "outputs"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == status, done.stderr + done.stdout
    return done.stdout


def test_orch_001_initialization(tmp_path):
    """ORCH-001: started with the eight specialists, the orchestrator has each of them idle and able, no work, and six templates."""
    verb(tmp_path, "serve", "--once", "--config", SPECIALISTS)
    standing = codec.decode(verb(tmp_path, "status", "--json", "--config", SPECIALISTS))
    assert {agent["agent_id"] for agent in standing["agents"]} == EIGHT
    assert {(agent["status"], agent["waiting"], agent["completed"]) for agent in standing["agents"]} == {("IDLE", 0, 0)}
    assert standing["runs"] == []
    specs = configuration.load(str(SPECIALISTS), {}).agents.specs()
    assert all(spec.capabilities for spec in specs)
    assert len(list(shelf(None))) == 6


def test_orch_002_decomposition_by_a_template():
    """ORCH-002: a goal becomes tasks that wait for each other, each for the specialists whose subject it is."""
    team = Fleet(configuration.load(str(SPECIALISTS), {}))
    plan = templated(named("feature", None), team, {}, FACTS, {})
    check_able(plan)
    who = {step.task.task_id: {one.agent_id for one in step.able} for step in plan.steps}
    assert who["backend"] == {"backend_engineer"}
    assert who["frontend"] == {"frontend_specialist"}
    assert who["audit"] == {"security_auditor"}
    assert who["docs"] == {"docs_writer"}
    assert "qa_engineer" in who["check"]
    levels = {step.task.task_id: step.level for step in plan.steps}
    assert levels["design"] < levels["backend"] == levels["frontend"] < levels["tests"] < levels["check"] < levels["repair"]
    assert all("Search by postcode" in step.task.payload["stdin"] for step in plan.steps if "stdin" in step.task.payload)


def test_orch_002_decomposition_by_a_model(openai_server):
    """ORCH-002: a model's plan for the same fleet becomes tasks, each waiting for a person, once it passes the checks."""
    pytest.importorskip("pydantic_ai", reason="the extra llm is not installed")
    tasks = [
        {"task_id": "schema", "instruction": "Add postcodes to the index", "capabilities": ["search"]},
        {"task_id": "form", "instruction": "Add a field", "capabilities": ["frontend"], "depends_on": ["schema"]},
    ]
    openai_server.answer(
        {"name": "postcode", "tasks": [{**tasks[0], "capabilities": ["magic"]}]}, {"name": "postcode", "tasks": tasks}
    )
    wish = Wish(goal="Search by postcode", model="openai:tiny", base_url=openai_server.base_url)
    plan, answer = modelled(wish, Fleet(configuration.load(str(SPECIALISTS), {})), {}, FACTS, {})
    assert answer.requests == 2
    assert [(step.task.task_id, step.able[0].agent_id) for step in plan.steps] == [
        ("schema", "search_architect"),
        ("form", "frontend_specialist"),
    ]
    assert {step.task.risk_level for step in plan.steps} == {"MEDIUM"}


def test_orch_002_what_was_decomposed_is_carried_out(tmp_path):
    """ORCH-002: the tasks of a plan are carried out by the specialists that it named, in a repository with real tests."""
    repository = toy_repository(tmp_path)
    args = ("--template", "feature", "--config", SPECIALISTS, "--run-id", "r", "--set", f"repository={repository}")
    verb(tmp_path, "plan", "Search by postcode", *args, "--submit", "--yes")
    verb(tmp_path, "serve", "--once", "--config", SPECIALISTS)
    rows = executed(tmp_path / "outputs" / "r")
    done = {row["task_id"]: row for row in rows if row["status"] == TaskStatus.COMPLETED}
    assert set(done) == {"design", "backend", "frontend", "tests", "check", "audit", "docs"}
    assert done["audit"]["agent_id"] == "security_auditor"
    assert "Search by postcode" in done["design"]["result"]["stdout"]
    assert {row["task_id"] for row in rows if row["status"] == TaskStatus.SKIPPED} == {"repair", "check_again"}


def toy_repository(folder):
    """A repository with one function and one test of it."""
    repository = folder / "toy"
    repository.mkdir()
    (repository / "toy.py").write_text("def double(n):\n    return 2 * n\n")
    (repository / "test_toy.py").write_text(
        "import unittest\n\nimport toy\n\n\nclass Doubles(unittest.TestCase):\n"
        "    def test_double(self):\n        self.assertEqual(toy.double(2), 4)\n"
    )
    return repository


def executed(run):
    """Every executed row of a run."""
    files = sorted(run.glob("wave_*/*/executed_tasks.jsonl"))
    return [codec.decode(line) for path in files for line in path.read_bytes().splitlines()]
