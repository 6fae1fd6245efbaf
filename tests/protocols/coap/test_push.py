"""A push is answered with yes when its batches were taken, and not before; what is never taken is told to come again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import msgspec

from protocols.clock import SystemClock
from protocols.coap.message import CHANGED, UNAVAILABLE, Message
from protocols.coap.plan import place
from protocols.coap.server import PushSession, devices_of
from protocols.coap.server_config import CoapServer

PUSH = Message(code=2, options=place("/one/level"), payload=b"3.75")


def session() -> PushSession:
    tag = {"name": "level", "kind": "float64"}
    device = {"name": "one", "path": "/one", "resources": [{"path": "/level", "tags": [tag]}]}
    options = msgspec.convert({"type": "coap-server", "name": "line", "devices": [device]}, CoapServer)
    return PushSession(options, devices_of(options), SystemClock())


async def turns() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


async def test_yes_is_said_when_the_batch_was_taken_and_more_is_asked_for() -> None:
    pushed = session()
    stream = pushed.batches()
    assert isinstance(stream, AsyncGenerator)
    waiting = asyncio.ensure_future(anext(stream))
    await turns()
    answer = asyncio.ensure_future(pushed.handle(PUSH, "192.0.2.7", 1))
    assert (await waiting).value.tolist() == [3.75]
    await turns()
    assert not answer.done(), "who took the batch may still be storing it"
    waiting = asyncio.ensure_future(anext(stream))
    response = await answer
    assert response is not None
    assert response.code == CHANGED
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await pushed.close()


async def test_a_push_whose_batch_was_not_taken_to_the_end_is_told_to_come_again() -> None:
    pushed = session()
    stream = pushed.batches()
    assert isinstance(stream, AsyncGenerator)
    waiting = asyncio.ensure_future(anext(stream))
    await turns()
    answer = asyncio.ensure_future(pushed.handle(PUSH, "192.0.2.7", 1))
    await waiting
    await stream.aclose()
    response = await answer
    assert response is not None
    assert response.code == UNAVAILABLE
    await pushed.close()
