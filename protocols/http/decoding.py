"""Decoding where it harms nobody: short bodies at once, long ones in a thread beside the event loop."""

from __future__ import annotations

import asyncio
from typing import Final

from protocols.model import Batch
from protocols.payload import Decoder

THREAD_BYTES: Final = 32 * 1024
"""A longer body is decoded in a thread."""


class Busy(Exception):
    """The decoder is still at work on a body that nobody waits for any more."""


class Beside:
    """One decoder, which does one thing at a time."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self._is_busy = False

    async def decode(self, body: bytes, now_ns: int, media_type: str) -> list[Batch]:
        """See ``Decoder.decode``. Raises Busy where a thread that was left behind (by a cancelled caller) has not ended."""
        if self._is_busy:
            raise Busy
        if len(body) <= THREAD_BYTES:
            return self.decoder.decode(body, now_ns, media_type=media_type)
        return await asyncio.shield(self._in_thread(body, now_ns, media_type))

    async def _in_thread(self, body: bytes, now_ns: int, media_type: str) -> list[Batch]:
        self._is_busy = True
        try:
            return await asyncio.to_thread(self.decoder.decode, body, now_ns, media_type=media_type)
        finally:
            self._is_busy = False
