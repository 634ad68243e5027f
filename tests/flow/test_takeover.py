"""An idle agent takes over what waits elsewhere, where the wave is to end soonest."""

from __future__ import annotations

import pytest
from players import Scripted, after, put_on
from stage import accept, configured, events_of, finished, house_in, task

from phase21.domain import events as ev

virtual = pytest.mark.looptime
TWO = {"count": 2}


def scripted(name, **fields):
    return task(name, kind="scripted", **fields)


@virtual
async def test_an_idle_agent_takes_over_what_waits_elsewhere(tmp_path):
    """Where one agent's task takes much longer than estimated, what waits behind it goes to the one that has become idle."""
    settings = configured(agents=TWO, manager={"strategy": "maximize_throughput"})
    async with house_in(tmp_path, settings) as house:
        put_on(house, Scripted(long="20", a="1", b="1", c="1"))
        accept(house, "r", [scripted(name, estimated_duration_s=1.0) for name in ("long", "a", "b", "c")])
        await finished(house)
        moves = [event for event in events_of(house, ev.TasksAssigned) if event.moved]
        assert moves
        assert {choice.reason for event in moves for choice in event.choices} == {"takeover"}
        (settled,) = [entry for entry in house.journal.entries_of("r") if isinstance(entry.event, ev.WaveSettled)]
        (opened,) = [entry for entry in house.journal.entries_of("r") if isinstance(entry.event, ev.WaveOpened)]
        assert (settled.at_us - opened.at_us) / 1e6 < 20.5
        long = next(event for event in events_of(house, ev.TaskCompleted) if event.task_id == "long")
        assert {event.agent_id for event in events_of(house, ev.TaskCompleted) if event.task_id != "long"} != {long.agent_id}


@virtual
async def test_other_strategies_move_nothing(tmp_path):
    """What another strategy dealt stays where it is, though an agent is idle."""
    async with house_in(tmp_path, configured(agents=TWO, manager={"strategy": "round_robin"})) as house:
        put_on(house, Scripted(long="20", a="1", b="1", c="1"))
        accept(house, "r", [scripted(name) for name in ("long", "a", "b", "c")])
        await after(house, 5)
        await finished(house)
        assert not [event for event in events_of(house, ev.TasksAssigned) if event.moved]
