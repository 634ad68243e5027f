"""Tells systemd how the service stands: READY, STOPPING and the watchdog's beat, where `NOTIFY_SOCKET` is set."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Mapping


class Notifier:
    """Speaks sd_notify(3) over its datagram socket; silent where there is none."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        usec = environ.get("WATCHDOG_USEC", "")
        meant = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.beat_s = int(usec) / 2e6 if usec.isdigit() and meant else 0.0

    def say(self, state: str) -> None:
        """Send one state, such as `READY=1`."""
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.setblocking(False)
            channel.sendto(state.encode(), self._address)

    async def run(self) -> None:
        """Beat at half the watchdog's interval, as long as the loop turns."""
        while self.beat_s and self._address:
            self.say("WATCHDOG=1")
            await asyncio.sleep(self.beat_s)
