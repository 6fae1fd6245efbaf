"""The history that runs, if the site wants one: started, stopped and replaced as sites change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from gateway import links
from gateway.config.history import History as Options
from gateway.history.history import History
from gateway.journal import Journal
from gateway.tasks import cancel
from protocols.clock import Clock
from protocols.model import Device


class Past:
    """Belongs to the event loop. ``folder`` is the journal's; ``wiped`` tells before when a device's past was wiped."""

    def __init__(
        self,
        folder: Path,
        journal: Journal,
        clock: Clock,
        tasks: asyncio.TaskGroup,
        *,
        device: Callable[[str], Device | None],
        wiped: Callable[[str], int | None] = lambda _name: None,
    ) -> None:
        self.now: History | None = None
        self.status = links.Status("history", "history")
        self._folder = folder
        self._journal = journal
        self._clock = clock
        self._tasks = tasks
        self._device = device
        self._wiped = wiped
        self._options: Options | None = None
        self._task: asyncio.Task[None] | None = None

    async def become(self, options: Options | None) -> None:
        """Have the history be as ``options`` say; None, or one that is not enabled, is none."""
        wanted = options if options is not None and options.enabled else None
        if wanted == self._options:
            return
        await self.stop()
        self._options = wanted
        if wanted is not None:
            folder = self._folder / (wanted.path or "history")
            self.now = History(wanted, folder, self._journal, self._clock, device=self._device, wiped=self._wiped)
            self.status = links.Status("history", "history")
            self._task = self._tasks.create_task(links.keep(self.now.session, self.status, clock=self._clock), name="history")

    async def stop(self) -> None:
        """Save what is folded, and end."""
        if self._task is not None:
            await cancel(self._task)
        if self.now is not None:
            self.now.follower.shut()
        self.now = self._task = self._options = None
