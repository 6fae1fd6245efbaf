"""Two things about tasks that asyncio leaves to its users: ending one, and running several until one ends."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


async def cancel(task: asyncio.Task[None]) -> None:
    """Cancel ``task`` and wait for its end; its own error, if any, is raised here."""
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        if not task.cancelled():
            raise


async def first_to_end(*parts: Coroutine[Any, Any, object]) -> None:  # Any: what a coroutine yields and takes is asyncio's own
    """Run ``parts`` side by side until one ends; the others are cancelled. Raises its error, if it has one."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
