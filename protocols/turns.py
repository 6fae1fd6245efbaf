"""One at a time, the urgent first: who may use a line that carries one exchange at a time."""

from __future__ import annotations

import asyncio
from collections import deque


class Turns:
    """Take the turn (``if not turns.grab(): await turns.wait(...)``), and give it back whatever happens."""

    __slots__ = ("_busy", "_loop", "_patient", "_urgent")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._busy = False
        self._urgent: deque[asyncio.Future[None]] = deque()
        self._patient: deque[asyncio.Future[None]] = deque()

    def grab(self) -> bool:
        """Take the turn if it is free."""
        if self._busy:
            return False
        self._busy = True
        return True

    async def wait(self, *, urgent: bool) -> None:
        """Take the turn when it is one's own: after the one who has it, and all that wait, but before the patient ones if ``urgent``."""
        turn: asyncio.Future[None] = self._loop.create_future()
        (self._urgent if urgent else self._patient).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # the turn was given and will not be used
                self.give_back()
            raise

    def give_back(self) -> None:
        for queue in (self._urgent, self._patient):
            while queue:
                turn = queue.popleft()
                if not turn.done():
                    turn.set_result(None)
                    return  # still busy: the turn is handed over
        self._busy = False
