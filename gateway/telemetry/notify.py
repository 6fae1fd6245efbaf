"""Tells systemd how the service is (sd_notify(3)): datagrams to the socket that NOTIFY_SOCKET names, nothing without it."""

from __future__ import annotations

import os
import socket

from protocols.clock import Clock


def notify(*fields: str) -> None:
    """Send ``READY=1`` and the like. Raises OSError when systemd's socket is named but does not take it."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):  # the abstract namespace
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
        out.connect(address)
        out.sendall("\n".join(fields).encode())


def watchdog_period_s() -> float | None:
    """Half of what systemd waits before it kills the service, or None where no watchdog is set (sd_watchdog_enabled(3))."""
    usec = os.environ.get("WATCHDOG_USEC", "")
    meant_for = os.environ.get("WATCHDOG_PID", "")
    if not usec.isdigit() or int(usec) == 0 or (meant_for and meant_for != str(os.getpid())):
        return None
    return int(usec) / 2e6


async def pat(clock: Clock, period_s: float) -> None:
    """Tell the watchdog again and again that the loop turns, until cancelled."""
    while True:
        notify("WATCHDOG=1")
        await clock.sleep_until(clock.monotonic() + period_s)
