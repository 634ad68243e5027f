"""The documents say what the code does: nothing that a user may name is missing from the reference, and nothing points nowhere."""

from __future__ import annotations

import importlib
import inspect
import re
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest

from phase21.bench import measure
from phase21.cli import VERBS, phase21
from phase21.domain import errors
from phase21.domain.judgements import Ruling
from phase21.domain.settings import AgentSpec, Section, Settings
from phase21.domain.tasks import Attempt, Task
from phase21.engines import handlers, offers, processes, simulated, switchboard
from phase21.evaluation import anomalies, lessons
from phase21.intake import configuration, documents
from phase21.intake.fields import ALIASES
from phase21.intake.shapes import Spec, Step
from phase21.intake.submissions import Submission, parse
from phase21.readers import contents, narrator, reports, rows
from phase21.service import daemon
from phase21.store import codec

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "examples" / "README.md", *(ROOT / "docs").glob("*.md")])
REFERENCE = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
COMMON, EXECUTING = "Shared options", "Options about how work is done"
TOP = {
    name
    for name, value in ((name, getattr(Settings(), name)) for name in Settings.__struct_fields__)
    if not isinstance(value, Section)
}
"""Keys that stand in no section."""
SOCKET_VARIABLES = (switchboard.SOCKET_VARIABLE, switchboard.TOKEN_VARIABLE)
MARKED = {"--config": COMMON, "--agents": EXECUTING}
"""An option by which a verb is seen to take a shared group, and the section that holds the group."""


def section(title: str) -> str:
    """The reference's text under a heading, up to the next of its level or above."""
    found = re.search(rf"^(#+) {re.escape(title)}\n", REFERENCE, re.MULTILINE)
    assert found is not None, f"docs/reference.md has no section {title}"
    rest = REFERENCE[found.end() :]
    end = re.search(rf"^#{{1,{len(found[1])}}} ", rest, re.MULTILINE)
    return rest[: end.start()] if end else rest


def table(text: str) -> dict[str, list[str]]:
    """The rows of the tables in a text, by the names in their first cell."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if cells:
            found.update(dict.fromkeys(re.findall(r"`([^`]+)`", cells[0]), cells[1:]))
    return found


def slug(heading: str) -> str:
    """The anchor of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def command(verb: str) -> click.Command:
    """The verb itself."""
    found = phase21.get_command(click.Context(phase21), verb)
    assert found is not None
    return found


def options(verb: str) -> set[str]:
    """Every spelling of every option of a verb."""
    return {name for param in command(verb).params if isinstance(param, click.Option) for name in param.opts}


def keys(kind: type[Section], at: str = "") -> dict[str, Any]:
    """The default of every key of the configuration, by its dotted name."""
    found: dict[str, Any] = {}
    default = kind()
    for name in kind.__struct_fields__:
        value = getattr(default, name)
        found.update(keys(type(value), f"{at}{name}.") if isinstance(value, Section) else {f"{at}{name}": value})
    return found


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_and_option_is_described(verb: str) -> None:
    """Each verb has a section that names its own options and links to the shared ones that it takes, and no others."""
    text, given = section(f"`{verb}`"), options(verb)
    shared: set[str] = set()
    for mark, title in MARKED.items():
        group = set(re.findall(r"--[a-z-]+", " ".join(table(section(title)))))
        assert (f"(#{slug(title)})" in text) == (mark in given)
        assert not (mark in given and not group <= given)
        shared |= group & given
    written = {name.split()[0] for name in table(text) if name.startswith("-")}
    assert written == given - shared


def test_readme_names_every_verb_and_section() -> None:
    """The README's tables hold every verb and every section of the configuration."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    listed = {name.split()[0] for name in table(text)}
    assert set(VERBS) <= listed
    assert set(Settings.__struct_fields__) <= {name.strip("[]") for name in listed}


def test_every_key_stands_with_its_default() -> None:
    """The configuration's tables hold every key with its default, and no other."""
    written = {name: cells[0] for name, cells in table(section("Configuration")).items() if "." in name or name in TOP}
    meant = {name: "none" if value is None else codec.encode(value).decode() for name, value in keys(Settings).items()}
    assert {name: cell.strip("`") for name, cell in written.items()} == meant


def test_every_field_of_an_agent_is_described() -> None:
    """What an agent of `agents.fleet` may have is named."""
    assert all(f"`{name}`" in section("`agents`") for name in AgentSpec.__struct_fields__)


def test_every_event_stands_with_its_level() -> None:
    """The log's table holds every event that the narrator tells, at its level, and no other."""
    source = inspect.getsource(narrator)
    spoken = {(name, level) for level, name in re.findall(r'(DEBUG|INFO|WARNING|ERROR), "([a-z]+_[a-z_]+)"', source)}
    assert {(name, cells[0]) for name, cells in table(section("Log events")).items()} == spoken


def test_every_anomaly_stands_with_its_severity() -> None:
    """The anomalies' table holds every type at its severity."""
    known = {(rule.anomaly_type, str(rule.severity)) for rule in anomalies.RULES}
    made = (
        anomalies.agent_offline("a", 1, 3),
        anomalies.agent_stuck("a", 1, 1.0),
        anomalies.safety_violation("a", 1, "t", "g", "r"),
    )
    known |= {(one.anomaly_type, str(one.severity)) for one in made}
    assert {(name, cells[-1]) for name, cells in table(section("Anomalies")).items()} == known


def test_every_signal_is_described() -> None:
    """The signals' table holds every type, and no other."""
    sent = set(re.findall(r'(?:signal_type=|SignalRow\()"(\w+)"', inspect.getsource(lessons) + inspect.getsource(rows)))
    assert set(table(section("Learning signals"))) == sent


def test_every_field_of_a_task_and_a_submission_is_described() -> None:
    """Every field has its row, and every name of upstream's is mentioned."""
    tasks = section("Tasks")
    assert set(table(tasks)) == set(Task.__struct_fields__)
    assert all(f"`{alias}`" in tasks for alias in ALIASES)
    assert set(Submission.__struct_fields__) <= set(table(section("The queue file")))


def test_every_field_of_a_workflow_is_described() -> None:
    """The workflows' tables hold every field of a workflow, and what its tasks have beside those of any task."""
    beside = set(Step.__struct_fields__) - set(Task.__struct_fields__) | {"depends_on", "condition", "compensate"}
    assert set(table(section("Workflows"))) - {"workflow"} == (set(Spec.__struct_fields__) | beside) - {"workflow"}


def test_every_field_of_the_outputs_is_described() -> None:
    """Every file that a run leaves has its row, with every field of its lines."""
    written = {name.rpartition("/")[2]: " ".join(cells) for name, cells in table(section("Outputs")).items()}
    shapes = {
        contents.ASSIGNMENTS: rows.AssignmentRow,
        contents.METRICS: rows.MetricRow,
        contents.SIGNALS: rows.SignalRow,
        contents.DECISIONS: rows.DecisionRow,
        contents.ANOMALIES: rows.AnomalyRow,
        contents.PLAN: rows.PlanRow,
        contents.HEALTH: rows.HealthRow,
        contents.SUMMARY: rows.Summary,
        Path(contents.VALIDATION).name: rows.ValidationRow,
    }
    for name, shape in shapes.items():
        assert [field for field in shape.__struct_fields__ if f"`{field}`" not in written[name]] == []
    assert {contents.FEEDBACK, contents.EXECUTED, contents.REPORT, *(Path(name).name for name in contents.GROWING)} <= set(written)


def test_every_payload_and_variable_is_described() -> None:
    """The kinds' section names every field of their payloads, and every variable that a command is given."""
    text = section("Kinds")
    payloads = (simulated.SimulateInput, handlers.CommandInput, handlers.PythonInput)
    assert all(f"`{field}`" in text for payload in payloads for field in payload.__struct_fields__)
    variables = {*re.findall(r'"(PHASE21_\w+)"', inspect.getsource(handlers)), processes.STORE_VARIABLE, *SOCKET_VARIABLES}
    assert set(table(text)) == variables


def test_every_exit_status_is_described() -> None:
    """Each status that an error has stands in the table of statuses."""
    written = re.findall(r"^\| (\d+) \|", section("Exit statuses"), re.MULTILINE)
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.Phase21Error)]
    assert {str(kind.exit_status) for kind in kinds} <= set(written)


def test_every_group_of_entry_points_is_described() -> None:
    """Handlers and gates of users' own are offered in groups that the reference names."""
    assert set(table(section("Entry points"))) >= {offers.HANDLERS, offers.GATES, offers.AGENTS}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_test_that_is_named_exists(document: Path) -> None:
    """A promise names a test that stands where it says."""
    text = document.read_text(encoding="utf-8")
    for file, name in re.findall(r"(tests/[\w/]+\.py)(?:::(\w+))?", text):
        assert (ROOT / file).is_file(), f"{document.name} names {file}"
        assert not name or f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), f"{document.name} names {file}::{name}"


def test_every_section_of_the_reference_names_its_tests() -> None:
    """What the reference promises says which test holds it."""
    whole = ("Promises", "Verbs", "The queue file", "Tasks", "Kinds", "Gates", "Outputs", "Figures", "Configuration", "Log events")
    assert [title for title in whole if "tests/" not in section(title)] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_resolve(document: Path) -> None:
    """A link to a file finds the file, and one to a heading the heading."""
    text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", text):
        path = (document.parent / target) if target else document
        assert path.exists(), f"{document.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {slug(heading) for heading in headings}, f"{document.name} links to {target}#{anchor}"


def test_every_function_on_the_walk_exists() -> None:
    """The architecture's walk of a task names files and functions that stand there."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    walk = text.partition("## The walk of a task")[2].partition("\n## ")[0]
    for row in re.findall(r"^\|.*\| (.*) \|$", walk, re.MULTILINE):
        names = re.findall(r"`([^`]+)`", row)
        files = [name for name in names if name.endswith(".py")]
        sources = "".join((ROOT / "phase21" / file).read_text(encoding="utf-8") for file in files)
        sources += "".join(
            inspect.getsource(importlib.import_module(f"phase21.engines.{part}"))
            for part in ("handlers", "simulated", "schema", "model", "joins")
        )
        for name in names:
            assert name in files or re.search(rf"(def|class) {name.rpartition('.')[2]}\b", sources), f"{files} have no {name}"


def test_every_file_that_the_architecture_names_exists() -> None:
    """By its path in the package or the project, or by its name alone where one bears it; but for one that was drawn and never built."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    names = set(re.findall(r"`((?:\w+/)*\w+\.py)`", text)) - {"reader.py"}
    assert [name for name in sorted(names) if not ((ROOT / name).exists() or any((ROOT / "phase21").rglob(name)))] == []


def test_the_floors_are_those_that_are_held() -> None:
    """The architecture's table names each room of the package, floor by floor as the contract on imports has them."""
    layers = (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("layers = [")[2].partition("]")[0]
    floors = [sorted(re.findall(r"\w+", line)) for line in layers.splitlines() if line.strip()]
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = text.partition("| floor | holds |")[2].partition("\n\n")[0].splitlines()[2:]
    shown = [sorted(re.findall(r"`(\w+)`", row.split("|")[1])) for row in table]
    assert shown == floors


def blocks(language: str, *documents: Path) -> list[str]:
    """What stands in code blocks of a language, in all documents or in those that are named; a list item's block is not indented."""
    found: list[str] = []
    for document in documents or DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        for indent, body in re.findall(rf"^( *)```{language}\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL):
            found.append(re.sub(rf"(?m)^{indent}", "", body))
    return found


def shown_commands() -> list[str]:
    """Each call of phase21 that a document shows, without what stands before or behind it in its line."""
    lines = "\n".join(blocks("sh") + blocks("console")).replace("\\\n", "").splitlines()
    calls = [re.search(r"(?:^|[/ ])phase21 ([a-z-].*)", line.partition("  #")[0]) for line in lines]
    return sorted({re.split(r" [|>]", call[1])[0] for call in calls if call is not None and call[1].split()[0] in VERBS})


@pytest.mark.parametrize("call", shown_commands())
def test_every_command_that_is_shown_is_understood(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call in a code block names a verb, and options and arguments that it takes."""
    monkeypatch.chdir(ROOT)
    verb, *args = shlex.split(call)
    assert command(verb).make_context(verb, args).params


def test_enough_commands_are_shown() -> None:
    """What looks for calls finds those of the README's tour and of the how-to."""
    verbs = {call.split()[0] for call in shown_commands()}
    assert verbs >= {"serve", "submit", "tail", "status", "report", "approve", "rebuild", "check"}


def test_every_target_that_is_named_exists() -> None:
    """A target of make that a document names is the Makefile's, and the README names all that a user wants."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        assert set(re.findall(r"(?:`|^)make ([a-z]+)", text, re.MULTILINE)) <= targets, document.name
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert {"run", "test", "check", "coverage", "format", "bench", "soak", "clean"} <= set(re.findall(r"make ([a-z]+)", readme))


def test_the_readme_begins_with_the_two_commands() -> None:
    """The README's first two commands are `make run` and `make test`, and each makes its own environment from the index first."""
    first, second = blocks("sh", ROOT / "README.md")[0].splitlines()
    assert (first.split()[:2], second.split()[:2]) == (["make", "run"], ["make", "test"])
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"^run: \$\(READY\).*\n\t\$\(RUN\) -m phase21 run examples/first-run ", makefile, re.MULTILINE)
    assert re.search(r"^test: \$\(READY\).*\n\t\$\(RUN\) -m pytest", makefile, re.MULTILINE)
    assert re.search(r"^\$\(READY\): requirements.txt pyproject.toml\n\t\$\(PYTHON\) -m venv ", makefile, re.MULTILINE)
    assert "--config" not in makefile


def test_every_submission_that_is_shown_is_accepted() -> None:
    """The lines of the queue file that the reference shows are submissions, one of each sort, and so is the bundled one."""
    lines = "".join(blocks("json", ROOT / "docs" / "reference.md")).splitlines()
    found = [parse(line.encode()) for line in lines]
    assert [bool(one.tasks) + 2 * bool(one.predictions) + 4 * bool(one.control) + 8 * bool(one.workflow) for one in found] == [
        1,
        2,
        4,
        8,
    ]
    assert parse((ROOT / "examples" / "wave.jsonl").read_bytes().rstrip()).tasks


def test_every_configuration_that_is_shown_is_understood(tmp_path: Path) -> None:
    """A table of TOML in a document is a configuration, or an entry point of a group that there is."""
    shown = [text for text in blocks("toml") if "workflow" not in text]
    assert len(shown) >= 4
    for text in shown:
        group = re.search(r'entry-points\."(.*)"', text)
        if group is not None:
            assert group[1] in {offers.HANDLERS, offers.GATES, offers.AGENTS}
        else:
            (tmp_path / "shown.toml").write_text(text, encoding="utf-8")
            assert configuration.load(str(tmp_path / "shown.toml"), {}) != Settings()


def test_every_workflow_that_is_shown_is_accepted() -> None:
    """A table of TOML that is a workflow, or tasks of one that wait for tasks which are not shown, is taken as a file would be."""
    shown = [text for text in blocks("toml", ROOT / "docs" / "howto-workflows.md") if "workflow" in text]
    assert len(shown) >= 5
    for text in shown:
        missing = [name for name in ("version", "checks") if f'task_id = "{name}"' not in text]
        before = "".join(f'[[workflow.tasks]]\ntask_id = "{name}"\n' for name in missing)
        whole = text if "[workflow]" in text else f'[workflow]\nname = "shown"\n{before}{text}'
        assert parse(documents.line_of("shown.toml", whole.encode(), 0)).workflow


async def test_the_handler_and_the_gate_that_are_shown_do_what_is_said() -> None:
    """The how-to's handler greets and refuses, and its gate holds mail back until a person has approved it."""
    names: dict[str, Any] = {}
    for text in blocks("python", ROOT / "docs" / "howto.md"):
        exec(text, names)
    greeter, gate = names["Greeter"](), names["office_hours"]
    task = Task(task_id="a", kind="greet", payload={"name": "you"})
    attempt = Attempt(run_id="r", wave=1, task=task, agent_id="agent_0", number=1, predicted=0.9, timeout_s=30.0)
    assert greeter.refusal({}) is not None
    assert greeter.refusal({"name": "you"}) is None
    assert (await greeter.perform(attempt)).result == {"said": "hello you"}
    mail = Task(task_id="m", kind="mail")
    rulings = [gate(SimpleNamespace(task=mail, approved=approved)) for approved in (False, True)]
    assert (rulings[0].ruling, rulings[1]) == (Ruling.DEFERRED, None)


def test_every_measurement_is_named() -> None:
    """The benchmark's section names each measurement that `--only` takes, and no other."""
    names = re.search(r"only this measurement: (.*) \|", section("`bench`"))
    assert names is not None
    assert tuple(re.findall(r"`(\w+)`", names[1])) == measure.NAMES


def test_the_reports_bounds_are_said() -> None:
    """How much of a long run and of a large fleet the report shows stands beside it."""
    said = table(section("Outputs"))[contents.REPORT][0]
    bounds = f"the last {reports.WAVES_SHOWN} waves and their last {reports.ANOMALIES_SHOWN} anomalies"
    assert bounds in said
    assert f"the {reports.AGENTS_SHOWN} agents with the most failed tasks" in said


def test_what_waits_for_the_next_start_is_said() -> None:
    """The sections that a reload leaves until the next start are named, and no other."""
    said = re.search(r"At a reload (.*) wait for the next start", section("Signals to the daemon"))
    assert said is not None
    assert tuple(re.findall(r"`(\w+)`", said[1])) == daemon.RESTART_SECTIONS


def test_every_field_of_an_agents_summary_is_described() -> None:
    """What the summary says of each agent is named, field by field."""
    said = table(section("Outputs"))[contents.SUMMARY][0].partition("`per_agent_metrics`")[2]
    assert tuple(re.findall(r"`(\w+)`", said)) == rows.AgentSummary.__struct_fields__
