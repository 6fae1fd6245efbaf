"""Who may come in, how often, and what a body is that comes in blocks: the bounds of a server. Pure; time is an argument.

Everything is counted by address, and what is remembered of strangers has a bound: the oldest is forgotten first.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

import msgspec

from protocols.coap.message import BAD_REQUEST, CONTINUE, INCOMPLETE, TOO_LARGE, Block, Message, Option, uint

MOST_PEERS: Final = 4096
TOTAL_PER_S: Final = 5000.0
"""Messages of all peers together."""
MOST_REMEMBERED: Final = 8192
EXCHANGE_S: Final = 247.0
"""EXCHANGE_LIFETIME: how long a repetition may come (RFC 7252, 4.8.2)."""
MOST_BODIES: Final = 64
MOST_BYTES: Final = 8 * 1024 * 1024
BODY_S: Final = 93.0
"""MAX_TRANSMIT_WAIT: a body whose next block has not come by then is forgotten."""


class Bucket:
    """``rate`` tokens a second, at most ``burst``."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._left, self._at = burst, 0.0

    def take(self, now: float) -> bool:
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class Gate:
    """How often each address may send, and all of them together."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._peers: OrderedDict[str, Bucket] = OrderedDict()
        self._all = Bucket(TOTAL_PER_S, TOTAL_PER_S)

    def admits(self, peer: str, now: float) -> bool:
        bucket = self._peers.get(peer)
        if bucket is None:
            bucket = self._peers[peer] = Bucket(self._rate, self._burst)
            if len(self._peers) > MOST_PEERS:
                self._peers.popitem(last=False)
        self._peers.move_to_end(peer)
        return bucket.take(now) and self._all.take(now)


class Repetitions:
    """What was answered to whom, so that a repetition is answered and not taken again (RFC 7252, 4.5).

    A message is known by its sender and all of its bytes: a device that began to count anew is not taken for its former self.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[object, bytes], tuple[float, bytes | None]] = OrderedDict()

    def seen(self, sender: object, data: bytes, now: float) -> tuple[bool, bytes | None]:
        """Whether it came before, and what was answered, if anything was yet."""
        while self._known and (len(self._known) > MOST_REMEMBERED or next(iter(self._known.values()))[0] < now - EXCHANGE_S):
            self._known.popitem(last=False)
        found = self._known.get((sender, data))
        return (found is not None, found[1] if found else None)

    def note(self, sender: object, data: bytes, now: float) -> None:
        """It is being handled."""
        self._known[sender, data] = (now, None)

    def answered(self, sender: object, data: bytes, answer: bytes) -> None:
        if (sender, data) in self._known:
            self._known[sender, data] = (self._known[sender, data][0], answer)

    def forget(self, sender: object, data: bytes) -> None:
        """It was not taken: a repetition may try again."""
        self._known.pop((sender, data), None)


@dataclass(slots=True)
class _Body:
    content: bytearray = field(default_factory=bytearray)
    until: float = 0.0


class Bodies:
    """Bodies that come in blocks (RFC 7959, 2.5), in order, within bounds."""

    def __init__(self) -> None:
        self._open: OrderedDict[tuple[object, str], _Body] = OrderedDict()
        self._bytes = 0

    def take(self, sender: object, path: str, request: Message, limit: int, now: float) -> Message:
        """The request with its body whole; or the answer (2.31 or an error) that goes back instead."""
        if request.first(Option.BLOCK1) is None:
            return request if len(request.payload) <= limit else _refusal(TOO_LARGE, (int(Option.SIZE1), uint(limit)))
        block = request.block(Option.BLOCK1)
        if block is None or not block.fits(len(request.payload)):
            return _refusal(BAD_REQUEST)
        key = (sender, path)
        if block.number == 0:
            self._drop(key)
        self._make_room(now)
        body = self._open.get(key) or _Body()
        if block.start != len(body.content):
            self._drop(key)
            return _refusal(INCOMPLETE)
        announced = request.uint(Option.SIZE1) or 0
        if max(announced, len(body.content) + len(request.payload)) > limit:
            self._drop(key)
            return _refusal(TOO_LARGE, (int(Option.SIZE1), uint(limit)))
        if not block.more:
            whole = bytes(body.content) + request.payload
            self._drop(key)
            return msgspec.structs.replace(request, payload=whole)
        body.content += request.payload
        body.until = now + BODY_S
        self._bytes += len(request.payload)
        self._open[key] = body
        self._open.move_to_end(key)
        return _refusal(CONTINUE, Block(number=block.number, more=True, exponent=min(block.exponent, 6)).option(Option.BLOCK1))

    def _make_room(self, now: float) -> None:
        while self._open and (len(self._open) >= MOST_BODIES or self._bytes > MOST_BYTES or next(iter(self._open.values())).until < now):
            self._drop(next(iter(self._open)))

    def _drop(self, key: tuple[object, str]) -> None:
        body = self._open.pop(key, None)
        if body is not None:
            self._bytes -= len(body.content)


def _refusal(code: int, *options: tuple[int, bytes]) -> Message:
    return Message(code=code, options=options)
