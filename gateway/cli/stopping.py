"""Ctrl-C ends the work and not the program: what was found until then is still told."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Coroutine
from typing import Any


async def until_stopped(work: Coroutine[Any, Any, None]) -> bool:  # Any: what a coroutine is sent and yields is the loop's affair
    """Run ``work`` to its end, or until SIGINT or SIGTERM; whether it came to its end. What it raises is let through."""
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    for one in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(one, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task
        return True
    return False
