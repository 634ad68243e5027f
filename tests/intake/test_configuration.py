"""Where settings come from, and how a wrong one is refused."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from phase21.domain.errors import ConfigurationError
from phase21.domain.settings import Section, Settings
from phase21.intake.configuration import load
from phase21.store import codec

CONFIG = Path(__file__).parents[2] / "config"


def written(tmp_path, text: str) -> str:
    path = tmp_path / "phase21.toml"
    path.write_text(text)
    return str(path)


def refused(file=None, environ=None, overrides=None) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(file, environ or {}, overrides or {})
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_default_file_is_the_default():
    """config/default.toml says what the code says."""
    assert load(str(CONFIG / "default.toml"), {}) == Settings() == load(None, {})


def names_in(section: Section, table: dict, text: str) -> None:
    for name in section.__struct_fields__:
        value = getattr(section, name)
        if value is None:
            assert re.search(rf"(?m)^# {name} = ", text), name
        else:
            assert name in table
        if isinstance(value, Section):
            names_in(value, table[name], text)


def test_the_default_file_has_every_key():
    """Every key stands in config/default.toml, an optional one as a comment."""
    text = (CONFIG / "default.toml").read_text()
    names_in(Settings(), tomllib.loads(text), text)


@pytest.mark.parametrize("name", ["production", "dry-run"])
def test_the_other_files_load(name):
    """The bundled files hold."""
    settings = load(str(CONFIG / f"{name}.toml"), {})
    assert settings != Settings()
    assert settings.execution.dry_run == (name == "dry-run")
    assert name != "production" or settings.retry.max_attempts == 5


def test_options_beat_environment_beats_file_beats_defaults(tmp_path):
    """The nearest to the person wins, key by key."""
    file = written(tmp_path, "[agents]\ncount = 5\ninbox_size = 5\nprobation = 5\n")
    environ = {"PHASE21_AGENTS__COUNT": "6", "PHASE21_AGENTS__INBOX_SIZE": "6", "HOME": "/"}
    agents = load(file, environ, {"agents.count": 7, "agents.offline_after": None}).agents
    assert (agents.count, agents.inbox_size, agents.probation, agents.offline_after) == (7, 6, 5.0, 3)


def test_the_environment_speaks_text_and_json():
    """Text stands as it is; lists and tables are JSON; weights can be set one by one."""
    settings = load(
        None,
        {
            "PHASE21_MANAGER__STRATEGY": "round_robin",
            "PHASE21_QUEUE__PATH": "5",
            "PHASE21_LEARNING__ENABLED": "False",
            "PHASE21_AGENTS__FLEET": '[{"id": "gpu", "capabilities": ["cuda"], "concurrency": 2}]',
            "PHASE21_HEALTH__WEIGHTS__ACCURACY": "0.1",
            "PHASE21_HEALTH__WEIGHTS__AVAILABILITY": "0.3",
            "PHASE21_HEALTH__THRESHOLDS": '{"good": 75}',
            "PHASE21_RETRY__STRATEGY": "no_retry",
            "PHASE21_RUN_ID": "what a command finds in its own environment is no setting",
        },
    )
    assert (settings.manager.strategy, settings.queue.path, settings.learning.enabled) == ("round_robin", "5", False)
    assert (settings.agents.specs()[0].id, settings.health.weights.accuracy, settings.health.thresholds.good) == ("gpu", 0.1, 75.0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[agents]\ncout = 1", ["agents.cout", "count"]),
        ("[agent]\ncount = 1", ["unknown section agent", "agents"]),
        ("agents = 1", ["agents is 1", "a table"]),
        ("[agents]\ncount = 0", ["agents.count is 0", "from 1 to 100000"]),
        ("[agents]\ncount = 2.0", ["agents.count is 2.0", "whole number"]),
        ("[agents]\ncount = true", ["agents.count is true"]),
        ('[agents]\ncount = "4"', ["agents.count is '4'"]),
        ('[agents]\nfleet = [{id = "a"}, {id = "a"}]', ["agents.fleet", "a twice"]),
        ('[agents]\nfleet = [{id = "a b"}]', ["agents.fleet", "[0].id"]),
        ('[manager]\nstrategy = "best"', ["manager.strategy is 'best'", "round_robin", "load_balanced"]),
        ('[retry]\nstrategy = "never"', ["no_retry"]),
        ("[retry]\nmax_delay = inf", ["retry.max_delay is inf"]),
        ("[retry]\njitter = nan", ["retry.jitter is nan", "from 0 to 1"]),
        ("[health.weights]\naccuracy = 0.3", ["health.weights sum to 1.1"]),
        ("[health.thresholds]\ngood = 95", ["health.thresholds"]),
        ('[logging]\nlevel = "LOUD"', ["logging.level", "WARNING"]),
        ('[logging]\nformat = "xml"', ["logging.format", "console"]),
        ('[safety]\nblocking_anomalies = ["odd"]', ["safety.blocking_anomalies", "agent_stuck"]),
        ("[agents\ncount = 1", ["not TOML", "line 1"]),
    ],
)
def test_a_wrong_key_or_value_is_refused(tmp_path, text, said):
    """One line names the file, the key, what was given and what is allowed."""
    file = written(tmp_path, text)
    message = refused(file)
    assert message.startswith(f"{file}: ")
    assert [part for part in said if part not in message] == []


def test_the_place_is_named_as_a_person_calls_it():
    """A variable and an option are named as such."""
    assert refused(environ={"PHASE21_AGENTS__COUNT": "many"}).startswith(
        "environment variable PHASE21_AGENTS__COUNT: agents.count is 'many'"
    )
    assert "PHASE21_AGENTS__COUNT" in refused(environ={"PHASE21_AGENTS_COUNT": "3"})
    assert "unknown section nothing" in refused(environ={"PHASE21_NOTHING__HERE": "1"})
    assert refused(overrides={"agents.count": 0}).startswith("option for agents.count")
    assert "cannot be read" in refused("missing.toml")


def test_strategies_are_the_callers(tmp_path):
    """The caller says which strategies there are."""
    assert load(None, {}, {"manager.strategy": "mine"}, strategies=["mine"]).manager.strategy == "mine"


def leaves(section: Section, at: str = ""):
    for name in section.__struct_fields__:
        value = getattr(section, name)
        if isinstance(value, Section):
            yield from leaves(value, f"{at}{name}.")
        else:
            yield f"{at}{name}", value


LEAVES = dict(leaves(Settings()))
OPTIONAL = [name for name, value in LEAVES.items() if value is None]


@pytest.mark.parametrize("key", LEAVES)
def test_every_key_refuses_what_is_not_of_its_kind(tmp_path, key):
    """Whatever key has a value of another kind, the one line names file, key, value and what is allowed."""
    section, _, name = key.rpartition(".")
    file = written(tmp_path, f"{f'[{section}]' if section else ''}\n{name} = [[]]\n")
    assert refused(file).startswith(f"{file}: {key} is [[]]; allowed: ")


@pytest.mark.parametrize("key", [key for key in LEAVES if key not in OPTIONAL])
def test_every_key_has_its_variable(key):
    """Each key can be given by its variable, text as it is and all else as JSON, and means what it means in the file."""
    value = LEAVES[key]
    text = str(value) if isinstance(value, str) else codec.encode(value).decode()
    name = f"PHASE21_{key.upper().replace('.', '__')}"
    assert load(None, {name: text}) == Settings()
    assert name in refused(environ={name: "[[]"})


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("concurrent = 1", "limits[0] names nothing; allowed: exactly one of kind, agent, key"),
        ('kind = "command"\nkey = "x"\nconcurrent = 1', "limits[0] names kind and key; allowed: exactly one of kind, agent, key"),
        ('kind = "command"', "limits[0] limits nothing; give concurrent, rate_per_s or both"),
    ],
)
def test_a_limit_is_about_one_thing_and_limits_something(tmp_path, table, said):
    """What a limit is about, and how much it allows, must be said, and once."""
    assert said in refused(written(tmp_path, f"[[limits]]\n{table}\n"))


def test_limits_are_read_in_their_order(tmp_path):
    """Each table is a limit, "*" is each by itself."""
    text = '[[limits]]\nkind = "command"\nconcurrent = 2\n\n[[limits]]\nkey = "*"\nrate_per_s = 0.5\n'
    limits = load(str(written(tmp_path, text)), {}).limits
    assert [(*one.about(), one.concurrent, one.rate_per_s) for one in limits] == [("kind", "command", 2, 0.0), ("key", "*", 0, 0.5)]
