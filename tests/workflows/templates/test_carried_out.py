"""The templates that are shipped do what they say, out of the box, in a repository of real files."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from phase21.store import codec

OUT_OF_THE_BOX = {
    "bug_fix": ({"reproduce", "diagnose", "fix", "check", "note"}, {"second_opinion", "check_again"}),
    "feature": ({"design", "backend", "frontend", "tests", "check", "audit", "docs"}, {"repair", "check_again"}),
    "nightly_checks": ({"compile", "tests", "dependencies", "secrets", "summary"}, set()),
    "research": ({"facts", "ways", "objections", "collect", "answer", "doubt"}, set()),
    "review": ({"correctness", "safety", "clarity", "collect", "verdict"}, set()),
}
MIGRATION = (
    "migrate_command=mv {{ staged }}/items.txt {{ staged }}/products.txt",
    "validate_command=test -s {{ staged }}/products.txt",
)


@pytest.fixture
def repository(tmp_path):
    """A repository with one function, one test of it, and data."""
    (tmp_path / "toy.py").write_text("def double(n):\n    return 2 * n\n")
    (tmp_path / "test_toy.py").write_text(
        "import unittest\n\nimport toy\n\n\nclass Doubles(unittest.TestCase):\n"
        "    def test_double(self):\n        self.assertEqual(toy.double(2), 4)\n"
    )
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "items.txt").write_text("old")
    return tmp_path


def verb(folder, *args):
    """Call a verb in a process of its own; its status."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PHASE21_")}
    command = [sys.executable, "-m", "phase21", *args]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=100)


def carried_out(folder, template, *values):
    """How each task ended, by its id, once a plan was submitted and carried out."""
    sets = [part for value in values for part in ("--set", value)]
    planned = verb(folder, "plan", "Count all of it", "--template", template, "--run-id", template, "--submit", "--yes", *sets)
    assert planned.returncode == 0, planned.stderr
    served = verb(folder, "serve", "--once")
    assert served.returncode in {0, 1}, served.stderr
    files = sorted((folder / "phase21_outputs" / template).glob("wave_*/*/executed_tasks.jsonl"))
    return {row["task_id"]: row for path in files for row in map(codec.decode, path.read_bytes().splitlines())}


def those(rows, status):
    return {task_id for task_id, row in rows.items() if row["status"] == status}


@pytest.mark.parametrize("template", OUT_OF_THE_BOX)
def test_a_template_runs_out_of_the_box(repository, template):
    """With no value given each template's steps COMPLETE, and those for failures are SKIPPED."""
    rows = carried_out(repository, template)
    assert (those(rows, "COMPLETED"), those(rows, "SKIPPED")) == OUT_OF_THE_BOX[template]


def test_a_red_test_is_repaired(repository):
    """Where the tests fail the repair is made, with the program that was given, and the tests are run again."""
    (repository / "toy.py").write_text("def double(n):\n    return 3 * n\n")
    mend = (
        "import pathlib, sys; work = sys.stdin.read(); toy = pathlib.Path('toy.py'); "
        "toy.write_text(toy.read_text().replace('3', '2')) if 'tests fail' in work else None"
    )
    rows = carried_out(repository, "feature", f"agent_command={codec.encode([sys.executable, '-c', mend]).decode()}")
    assert those(rows, "FAILED") == {"check"}
    assert {"repair", "check_again"} <= those(rows, "COMPLETED")


def test_findings_are_put_into_one_file(repository):
    """What the specialists said, or that one of them failed, stands in the file that the judge reads."""
    agent = [sys.executable, "-c", "import sys; work = sys.stdin.read(); print('seen'); sys.exit('means harm' in work)"]
    rows = carried_out(repository, "review", f"agent_command={codec.encode(agent).decode()}")
    assert those(rows, "FAILED") == {"safety"}
    written = (repository / "review.md").read_text()
    assert "# Review: Count all of it" in written
    assert written.count("seen") == 2
    assert "## Safety\n\nNothing came of this step." in written


def test_nightly_checks_say_how_each_ended(repository):
    """One that is red hides no other, and the summary names all."""
    rows = carried_out(repository, "nightly_checks", "test_command=false", "dependency_command=true")
    assert rows["summary"]["result"]["stdout"].splitlines() == [
        "compile: COMPLETED",
        "tests: FAILED",
        "dependencies: COMPLETED",
        "secrets: COMPLETED",
    ]


def test_a_key_in_a_repository_is_found(repository):
    """The check for secrets is red where a private key stands in a file."""
    (repository / "odd.txt").write_text("-----BEGIN RSA PRIVATE " + "KEY-----\nMIIE\n")
    rows = carried_out(repository, "nightly_checks", "dependency_command=true")
    assert those(rows, "FAILED") == {"secrets"}
    assert "odd.txt" in rows["secrets"]["result"]["stdout"]


def test_a_migration_takes_the_datas_place(repository):
    """The migrated copy stands where the data stood, and the data beside it."""
    rows = carried_out(repository, "data_migration", "data=shop", *MIGRATION)
    assert those(rows, "COMPLETED") == set(rows)
    assert [path.name for path in (repository / "shop").iterdir()] == ["products.txt"]
    assert [path.name for path in (repository / "shop.before").iterdir()] == ["items.txt"]
    assert not (repository / "shop.staged").exists()


@pytest.mark.parametrize("broken", ["migrate_command=false", "validate_command=false", "verify_command=false"])
def test_a_migration_that_fails_is_undone(repository, broken):
    """Wherever it fails, the data stand as they stood, and nothing of the copy is left."""
    rows = carried_out(repository, "data_migration", "data=shop", *MIGRATION, broken)
    assert len(those(rows, "FAILED")) == 1
    assert [path.name for path in (repository / "shop").iterdir()] == ["items.txt"]
    assert not (repository / "shop.staged").exists()
    assert not (repository / "shop.before").exists()


def test_a_migration_does_not_begin_over_an_earlier_one(repository):
    """Where what an earlier one set aside is still there, nothing is touched."""
    (repository / "shop.before").mkdir()
    rows = carried_out(repository, "data_migration", "data=shop", *MIGRATION)
    assert those(rows, "FAILED") == {"look"}
    assert not (repository / "shop.staged").exists()
    assert (repository / "shop.before").exists()


def test_a_file_is_migrated_as_a_folder_is(repository):
    """Data that are one file are copied, migrated and put in place too."""
    (repository / "one.txt").write_text("old")
    rows = carried_out(repository, "data_migration", "data=one.txt", "migrate_command=sed -i s/old/new/ {{ staged }}")
    assert those(rows, "COMPLETED") == set(rows)
    assert (repository / "one.txt").read_text() == "new"
    assert (repository / "one.txt.before").read_text() == "old"
