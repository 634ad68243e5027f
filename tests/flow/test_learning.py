"""What outcomes teach of tasks with features, over whole stories: it decides later waves, and survives whatever happens."""

from __future__ import annotations

import asyncio
import random
import shutil

import msgspec
import pytest
from cutting import journal_of, written
from players import DONE, LOST, assigned, put_on
from stage import accept, configured, events_of, finished, house_in, place_in, task

from phase21.domain import events as ev
from phase21.domain.evidence import Evidence
from phase21.domain.ledger import Ledger, Snapshot
from phase21.domain.tasks import Attempt, Outcome
from phase21.planning.forecast import Forecast
from phase21.store import codec
from phase21.store.database import Database

pytest.importorskip("numpy")
pytestmark = pytest.mark.looptime

FLEET = ("agent_0", "agent_1")
ASKED = [
    task(
        f"asked-{n}", kind="scripted", features={"size": float(n % 5), "where": ("east", "west")[n % 2]}, predicted_success_rate=0.7
    )
    for n in range(10)
]


class Suited:
    """`agent_0` can do small tasks, `agent_1` large ones; nobody any other."""

    async def perform(self, attempt: Attempt) -> Outcome:
        await asyncio.sleep(attempt.task.payload.get("takes_s", 0.0))
        able = "agent_0" if attempt.task.features["size"] < 2.0 else "agent_1"
        return DONE if attempt.agent_id == able else LOST


def settings_of(**sections):
    return configured(**{
        "agents": {"count": 2}, "manager": {"strategy": "maximize_success"}, "retry": {"max_attempts": 2, "base_delay": 0.125},
        "learning": {"exploration": 0.0}, "health": {"rules": "fixed"},
    } | sections)  # fmt: skip


SETTINGS = settings_of()


def wave_of(name, sizes, **fields):
    return [
        task(f"{name}-{n}", kind="scripted", features={"size": size, "where": ("east", "west")[n % 2]}, predicted_success_rate=0.7, **fields)
        for n, size in enumerate(sizes)
    ]  # fmt: skip


def sizes(seed, count=12):
    dice = random.Random(seed)
    return [float(dice.randrange(5)) for _ in range(count)]


WAVES = [wave_of(f"w{number}", sizes(number)) for number in range(4)]
SHORT = [wave_of(f"w{number}", sizes(number, 5)) for number in range(3)]
LASTING = [wave_of(f"w{number}", sizes(number, 5), payload={"takes_s": 0.25}) for number in range(3)]
"""Waves whose tasks take time: what is measured again after a crash may have another last bit."""


async def tell(folder, settings=SETTINGS, waves=WAVES, **kept):
    """The waves one after the other, all in one house."""
    async with house_in(folder, settings) as house:
        put_on(house, Suited())
        for wave in waves:
            accept(house, "r", wave)
        await finished(house)
        kept["told"] = told(house.journal.ledger)
        await house.stop("the end", 1)
    return kept["told"]


def told(ledger):
    """What a ledger's forecast says of many tasks at every agent, and its evidence: all bits of it."""
    agents = [ledger.agents[name] for name in FLEET]
    forecast = Forecast(agents, enabled=True, evidence=ledger.evidence)
    forecast.prepare(ASKED)
    rates = [
        (forecast.predicted(one, name), forecast.score(one, name), forecast.expected_s(one, name), forecast.doubt(one, name))
        for one in [*ASKED, task("plain", kind="scripted")] for name in FLEET
    ]  # fmt: skip
    return (
        rates, [forecast.factor(name, "scripted") for name in FLEET], codec.encode(ledger.evidence),
        [codec.encode(agent.kinds) for agent in agents],
    )  # fmt: skip


def folded(entries):
    ledger = Ledger()
    for entry in entries:
        ledger.fold(entry)
    return ledger


def well_placed(house, wave):
    """How many of a wave's tasks went to the agent that can do them, at the first attempt."""
    return sum(assigned(house, one.task_id)[0] == ("agent_0" if one.features["size"] < 2.0 else "agent_1") for one in wave)


async def test_later_waves_go_by_what_earlier_ones_taught(tmp_path):
    """Records alone cannot tell the agents apart; what tasks say of themselves can, and every task of a later wave is well placed."""
    async with house_in(tmp_path, SETTINGS) as house:
        put_on(house, Suited())
        for wave in WAVES:
            accept(house, "r", wave)
        await finished(house)
        first, *_, last = (well_placed(house, wave) for wave in WAVES)
        assert first < len(WAVES[0])
        assert last == len(WAVES[-1])
        scores = [choice.score for event in events_of(house, ev.TasksAssigned) if not event.moved for choice in event.choices]
        assert scores[0] is None
        assert sum(score is not None for score in scores) == 12 * 3
        retried = [event for event in events_of(house, ev.AttemptFailed) if event.task_id.startswith("w3")]
        assert not retried


async def test_predictions_of_later_waves_are_the_sharper(tmp_path):
    """What is predicted of tasks that come in alike is near what becomes of them, once outcomes have taught."""
    async with house_in(tmp_path, SETTINGS) as house:
        put_on(house, Suited())
        for wave in WAVES:
            accept(house, "r", wave)
        await finished(house)
        rates = {given.task_id: given.predicted for event in events_of(house, ev.TasksAssigned) for given in event.assignments}
    assert {rates[one.task_id] for one in WAVES[0]} == {0.7}
    assert min(rates[one.task_id] for one in WAVES[-1]) > 0.75


async def test_an_agent_that_is_given_what_it_can_do_has_not_changed(tmp_path):
    """Outcomes that follow from a better choice of agents are no change of an agent, and nothing is forgotten for them."""
    async with house_in(tmp_path, settings_of(health={"rules": "sequential"})) as house:
        put_on(house, Suited())
        for wave in WAVES:
            accept(house, "r", wave)
        await finished(house)
        last, evidence = well_placed(house, WAVES[-1]), house.journal.ledger.evidence
    assert len(evidence.observations) == evidence.learned
    assert last == len(WAVES[-1])


async def test_every_attempt_is_evidence_once(tmp_path):
    """Failed attempts and ends of all waves are evidence, in the order of the journal; each score is taught with its outcome."""
    await tell(tmp_path)
    entries = journal_of(tmp_path)
    evidence = folded(entries).evidence
    tries = sum(isinstance(entry.event, ev.AttemptStarted) for entry in entries)
    failed = sum(isinstance(entry.event, ev.AttemptFailed | ev.TaskFailed) for entry in entries)
    assert len(evidence.observations) == evidence.learned == tries
    assert sum(not seen.success for seen in evidence.observations) == failed > 0
    assert evidence.calibrator.samples == 12 * 3


async def test_learning_switched_off_uses_nothing(tmp_path):
    """With learning off every wave is dealt by what came in, and no model speaks; what happens is evidence all the same."""
    async with house_in(tmp_path, settings_of(learning={"enabled": False})) as house:
        put_on(house, Suited())
        for wave in WAVES:
            accept(house, "r", wave)
        await finished(house)
        planned = [event for event in events_of(house, ev.TasksAssigned) if not event.moved]
        assert {given.predicted for event in planned for given in event.assignments} == {0.7}
        assert {choice.score for event in planned for choice in event.choices} == {None}
        assert house.journal.ledger.evidence.calibrator == Evidence().calibrator
    assert len({tuple(given.agent_id for given in event.assignments) for event in planned}) == 1


async def test_a_rehearsal_teaches_nothing(tmp_path):
    """A dry run leaves no evidence and no record by kind: what it showed is made up."""
    async with house_in(tmp_path, settings_of(execution={"dry_run": True})) as house:
        for wave in WAVES[:2]:
            accept(house, "r", wave)
        await finished(house)
        assert [event.taught for event in events_of(house, ev.PredictionsCalibrated)] == [False, False]
        ledger = house.journal.ledger
        assert ledger.evidence == Evidence()
        assert [agent.kinds for agent in ledger.present_agents()] == [{}, {}]


# -- whatever happens --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rules", ["fixed", "sequential"])
async def test_after_a_restart_the_forecast_is_the_same(tmp_path, rules):
    """A house that was closed after every wave, with a snapshot or without, says what the one that never was says, bit for bit."""
    settings = settings_of(health={"rules": rules})
    whole = await tell(tmp_path / "whole", settings)
    for name, keeps in (("snapshot", True), ("replayed", False)):
        folder = tmp_path / name
        for wave in WAVES:
            async with house_in(folder, settings) as house:
                put_on(house, Suited())
                accept(house, "r", wave)
                await finished(house)
                here = told(house.journal.ledger)
                await house.stop("for a while", 1)
            state = place_in(folder).state
            if not keeps:
                entries = journal_of(folder)
                for path in state.glob("journal.db*"):
                    path.unlink()
                written(folder, entries)
            database = Database(state / "journal.db", read_only=True)
            assert told(database.ledger()) == here
            database.close()
        assert here == whole


@pytest.mark.parametrize("rules", ["fixed", "sequential"])
async def test_a_snapshot_anywhere_changes_nothing(tmp_path, rules):
    """Put away after any entry and taken up again, the ledger says the same in the end, bit for bit."""
    whole = await tell(tmp_path, settings_of(health={"rules": rules}))
    entries = journal_of(tmp_path)
    carried = Ledger()
    for entry in entries:
        carried.fold(entry)
        carried = Ledger.restored(codec.decode(codec.encode(carried.snapshot()), Snapshot))
    assert told(carried) == told(folded(entries)) == whole


PARTS = 4


@pytest.mark.parametrize("waves", [SHORT, LASTING], ids=["at once", "lasting"])
@pytest.mark.parametrize("part", range(PARTS))
async def test_cut_at_every_entry_what_is_learned_is_the_same(tmp_path, part, waves):
    """Killed after any entry and gone on, the house has learned what the one that never was has, bit for bit, nothing twice or lost.

    Of attempts that take time all is the same but the last bits of durations that were measured anew.
    """
    whole = await tell(tmp_path / "whole", waves=waves)
    entries = journal_of(tmp_path / "whole")
    learned = seen_in(folded(entries))
    accepted = max(n for n, entry in enumerate(entries) if isinstance(entry.event, ev.SubmissionAccepted)) + 1
    assert len(entries) - accepted > 40
    for k in range(accepted + part, len(entries) + 1, PARTS):
        folder = tmp_path / f"cut-{k}"
        written(folder, entries[:k])
        async with house_in(folder, SETTINGS) as house:
            put_on(house, Suited())
            await finished(house)
            here = told(house.journal.ledger)
            await house.stop("the end", 1)
        again = folded(journal_of(folder))
        assert here == told(again), f"cut after entry {k}"
        assert seen_in(again) == learned, f"cut after entry {k}: {entries[k - 1]}"
        if waves is SHORT:
            assert here == whole, f"cut after entry {k}: {entries[k - 1]}"
        shutil.rmtree(folder)


def seen_in(ledger):
    """What was learned, with durations to nine digits."""
    rounded = [
        msgspec.structs.replace(seen, stretch=None if seen.stretch is None else round(seen.stretch, 9))
        for seen in ledger.evidence.observations
    ]
    return rounded, ledger.evidence.learned, ledger.evidence.calibrator
