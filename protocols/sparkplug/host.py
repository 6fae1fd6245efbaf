"""What is known of the primary host application from its STATE messages (Sparkplug 3.0, 4.1.10 and 5.4).

The newest statement counts: one that is older than the last is ignored, whatever it says. What cannot be read is
ignored too, so that nobody's rubbish on the topic takes a plant off line.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

import msgspec

from protocols.sparkplug.topics import state_topic

MAX_STATE_BYTES: Final = 4096


class Word(Enum):
    """What one STATE message means for the edge node."""

    ONLINE = "online"
    OFFLINE = "offline"
    IGNORED = "ignored"


class _State(msgspec.Struct):
    online: bool
    timestamp: int = 0


class PrimaryHost:
    """``online`` is None until the host has said something on this connection."""

    def __init__(self, name: str) -> None:
        self.topic = state_topic(name)
        self.name = name
        self.online: bool | None = None
        self._broker = ""
        self._newest: dict[str, int] = {}

    def connected(self, broker: str) -> None:
        """A new connection: what the host said elsewhere says nothing about ``broker``. Times count for each broker alone
        (tck-id-operational-behavior-host-application-multi-server-timestamp), over all connections to it."""
        self.online = None
        self._broker = broker

    def take(self, topic: str, payload: bytes) -> Word:
        """Read one message. Only the configured host's topic counts (tck-id-...-phid-wait-id)."""
        if topic != self.topic or len(payload) > MAX_STATE_BYTES:
            return Word.IGNORED
        try:
            state = msgspec.json.decode(payload, type=_State)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # the last for JSON that is nested without end
            return Word.IGNORED
        if state.timestamp < self._newest.get(self._broker, state.timestamp):
            return Word.IGNORED
        self._newest[self._broker] = state.timestamp
        self.online = state.online
        return Word.ONLINE if state.online else Word.OFFLINE
