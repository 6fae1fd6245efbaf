"""The live stream: messages as they come, over connections that are made again where they break, and go on where they were.

Where the gateway itself ends a stream for a reason that stays (a wish that it does not understand, somebody who may not), that is
an error. Where it goes away, or a network does, or it had too much to do, the stream is asked for again.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.sync.client import connect as connect_blocking

from holdfast.client.ask import refusal
from holdfast.client.errors import Ended
from holdfast.shapes.live import Heartbeat, Live, LostRecords, Message, Position, Records, Resume, Skipped, Subscribe

FIRST_WAIT_S: Final = 0.5
LONGEST_WAIT_S: Final = 15.0
LARGEST: Final = 16 * 1024 * 1024
FOR_EVER: Final = range(4400, 4404)
"""Close codes that would come again."""
_LOST: Final = (OSError, WebSocketException)


@dataclass(slots=True)
class Follow:
    """A stream that is followed, and how far."""

    url: str
    context: ssl.SSLContext
    who: Callable[[], Mapping[str, str]]
    wish: Subscribe
    timeout_s: float
    at: dict[str, Position] = field(default_factory=dict)
    wait_s: float = FIRST_WAIT_S

    def said(self) -> str:
        """What is sent first: where it was left, if it was anywhere."""
        resume = Resume(**self.at) if self.at else self.wish.resume
        return msgspec.json.encode(msgspec.structs.replace(self.wish, resume=resume)).decode()

    def heard(self, text: str | bytes) -> Message:
        """``text`` as a message; where it leads is kept."""
        self.wait_s = FIRST_WAIT_S
        message: Message = msgspec.json.decode(text, type=Message)
        self.at |= _position(message)
        return message

    def next_wait_s(self, trouble: Exception) -> float:
        """How long to wait before it is asked for again. Raises Refused, Ended where that helps nobody."""
        if isinstance(trouble, InvalidStatus) and trouble.response.status_code not in (429, 502, 503):
            raise refusal(trouble.response.status_code, trouble.response.body or b"") from trouble
        if isinstance(trouble, ConnectionClosed) and trouble.rcvd is not None and trouble.rcvd.code in FOR_EVER:
            raise Ended(f"the gateway ended the stream: {trouble.rcvd.reason}") from trouble
        now, self.wait_s = self.wait_s, min(2 * self.wait_s, LONGEST_WAIT_S)
        return now


def _position(message: Message) -> dict[str, Position]:
    match message:
        case Records(lane=lane, records=[*_, last]):
            return {lane: Position(epoch=last.epoch, seq=last.seq)}
        case LostRecords(lane=lane, epoch=epoch, last=last_seq):
            return {lane: Position(epoch=epoch, seq=last_seq)}
        case Skipped(lane=lane, last=position) | Live(lane=lane, at=position):
            return {lane: position}
        case Heartbeat(at=at):
            return {str(lane): position for lane, position in at.items()}
    return {}


async def follow(stream: Follow) -> AsyncIterator[Message]:
    """Messages for ever. Raises Refused, Ended."""
    while True:
        try:
            async with connect(
                stream.url,
                ssl=stream.context,
                additional_headers=stream.who(),
                open_timeout=stream.timeout_s,
                max_size=LARGEST,
                compression=None,
                proxy=None,
            ) as socket:
                await socket.send(stream.said())
                while True:
                    yield stream.heard(await socket.recv())
        except _LOST as trouble:
            wait_s = stream.next_wait_s(trouble)
        await asyncio.sleep(wait_s)


def following(stream: Follow) -> Iterator[Message]:
    """As :func:`follow`, for whoever waits."""
    while True:
        try:
            with connect_blocking(
                stream.url,
                ssl=stream.context,
                additional_headers=stream.who(),
                open_timeout=stream.timeout_s,
                max_size=LARGEST,
                compression=None,
                proxy=None,
            ) as socket:
                socket.send(stream.said())
                while True:
                    yield stream.heard(socket.recv())
        except _LOST as trouble:
            wait_s = stream.next_wait_s(trouble)
        time.sleep(wait_s)
