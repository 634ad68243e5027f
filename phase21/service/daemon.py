"""The daemon: takes in what the queue file holds and carries it out until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable

import msgspec

from phase21.domain import events as ev
from phase21.domain.errors import ConfigurationError, Phase21Error
from phase21.domain.settings import CurrentSettings, Settings
from phase21.intake.queue import check_permissions
from phase21.readers.narrator import Narrator
from phase21.readers.notifier import Notifier
from phase21.service.house import House, Place, drain
from phase21.service.process import SIGNAL_BASE, Exit, Signals, tuned
from phase21.store import codec, files

RESTART_SECTIONS = ("agents", "execution", "handlers", "logging", "queue")
"""Sections of the configuration that a reload leaves until the next start."""


async def serve(
    place: Place, load: Callable[[], Settings], *, once: bool = False, level: str | None = None, log_format: str | None = None
) -> int:
    """Run the daemon until it is told to stop (or, `once`, until nothing is left to do); returns the exit status."""
    tuned()
    settings = CurrentSettings(load())
    files.make_private(place.state)
    check_permissions(str(place.queue), allow_shared=settings.now.queue.allow_shared)
    logging = settings.now.logging
    narrator = Narrator(
        level or logging.level,
        log_format or logging.format,
        file=files.make_private(place.state / "logs") / "phase21.jsonl",
        max_bytes=logging.max_bytes,
        backups=logging.backups,
    )
    signals = Signals()
    notifier = Notifier()
    # stdout is the log's, which has it by now: what Python functions print goes to stderr
    with contextlib.redirect_stdout(sys.stderr), Exit() as leaving, signals.listening(), place.held():
        async with House.opened(place, settings, narrator=narrator) as house:
            await house.unless_troubled(house.journal.durable())
            notifier.say("READY=1")
            async with asyncio.TaskGroup() as group:
                helpers = [
                    group.create_task(notifier.run()),
                    group.create_task(_reload(house, signals, load)),
                    group.create_task(_carry_out_all(house, signals) if once else house.receiver.run(signals.stop)),
                ]
                if not once:
                    helpers.append(group.create_task(house.timekeeper.run(signals.stop)))
                await signals.stop.wait()
                notifier.say("STOPPING=1")
                await drain(house, signals, group)
                for helper in helpers:
                    helper.cancel()
            return leaving.within_time(_exit_status(house, signals, once=once))


async def _carry_out_all(house: House, signals: Signals) -> None:
    """Take in what the queue holds, and what of schedules is due by now, and carry it out, until there is no more; then stop."""
    taken, now_us = 1, house.journal.clock.now_us()
    while taken:
        taken = await house.receiver.drain()
        taken += await house.timekeeper.catch_up(now_us)
        await house.harness.idle()
        await house.journal.caught_up()  # a run has ended once its files stand
    signals.stop.set()


def _exit_status(house: House, signals: Signals, *, once: bool) -> int:
    if signals.now.is_set() or (once and signals.received):
        return SIGNAL_BASE + signals.received
    return 1 if once and house.journal.ledger.failed_tasks > house.failed_before else 0


async def _reload(house: House, signals: Signals, load: Callable[[], Settings]) -> None:
    while True:
        await signals.reload.wait()
        signals.reload.clear()
        old = house.settings.now
        try:
            new = load()
        except (ConfigurationError, Phase21Error) as error:
            house.journal.append(ev.ConfigurationRefused(error=codec.sayable(str(error))))
            continue
        pending = tuple(name for name in RESTART_SECTIONS if getattr(old, name) != getattr(new, name))
        kept = {name: getattr(old, name) for name in RESTART_SECTIONS}
        house.settings.now = msgspec.structs.replace(new, **kept)
        house.journal.append(ev.ConfigurationReloaded(pending=pending))
