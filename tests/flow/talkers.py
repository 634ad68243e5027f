"""Agents that are plain functions, for stories of tasks that talk."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from stage import configured, house_in

from phase21.domain.settings import AgentSpec
from phase21.engines.own_agents import OwnAgent
from phase21.service import house as service
from phase21.service.house import House


def agents_of(**works: Callable[..., Any]) -> tuple[OwnAgent, ...]:
    """An agent for each function; it does tasks of the kind of that name."""
    return tuple(OwnAgent(spec=AgentSpec(id=f"{name}_agent", kinds=(name,)), work=work) for name, work in works.items())


@contextlib.asynccontextmanager
async def talking_house(folder: Path, monkeypatch: pytest.MonkeyPatch, **works: Callable[..., Any]) -> AsyncIterator[House]:
    """A house whose fleet has these agents beside two of its own."""
    monkeypatch.setattr(service, "own_agents", lambda: agents_of(**works))
    async with house_in(folder, configured(agents={"count": 2}, retry={"base_delay": 0.5})) as house:
        yield house


def post(house: House, run_id: str = "r") -> Any:
    """What the ledger knows of a run's post, as plain values."""
    record = house.journal.ledger.runs[run_id].record.post
    return msgspec.json.decode(msgspec.json.encode(record))
