"""Which messages the broker may forget: held back until the journal has surely made them durable. Pure; the clock is handed in.

A broker sends only so many unacknowledged messages. Where it waits for our acknowledgements instead of sending (they are given, and at
once as many messages come), holding would slow the devices down: then few are held, and a person is told.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from protocols.mqtt.client import Message

FEW: Final = 10
"""Half of the smallest window that brokers have by default."""
STALL_S: Final = 0.15
"""Nothing came for so long: what is held is durable (the journal's commit window is 0.1 s), and the broker may be waiting."""
AT_ONCE_S: Final = 0.1
OFTEN: Final = 3


class Held:
    """``take`` and ``due`` give the messages to acknowledge now."""

    def __init__(self, hold_s: float, most: int) -> None:
        self.most = most
        """Most messages that are held; lowered to FEW where the broker waits for us."""
        self._hold_s = hold_s
        self._held: deque[tuple[float, Message]] = deque()
        self._newest = 0.0
        self._given: tuple[float, int] | None = None
        """When all were given because nothing came, and how many of as many have yet to come at once."""
        self._stalls = 0

    def __bool__(self) -> bool:
        return bool(self._held)

    def take(self, message: Message, now: float) -> list[Message]:
        """Everything of ``message`` was taken at ``now``."""
        self._newest = now
        self._held.append((now + self._hold_s, message))
        if self._given is not None:
            self._came_at_once(now, *self._given)
        return [self._held.popleft()[1] for _ in range(len(self._held) - self.most)]

    def due(self, now: float) -> list[Message]:
        """What has been held long enough."""
        told: list[Message] = []
        while self._held and self._held[0][0] <= now:
            told.append(self._held.popleft()[1])
        if len(self._held) > FEW and now - self._newest >= STALL_S:
            self._given = (now, len(self._held) // 2)
            told += [message for _, message in self._held]
            self._held.clear()
        return told

    def _came_at_once(self, now: float, given: float, missing: int) -> None:
        if now - given > AT_ONCE_S:
            self._given, self._stalls = None, 0
        elif missing > 1:
            self._given = (given, missing - 1)
        else:
            self._given, self._stalls = None, self._stalls + 1
            if self._stalls >= OFTEN:
                self.most = min(self.most, FEW)
