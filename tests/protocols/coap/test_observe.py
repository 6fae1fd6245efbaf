"""Notifications that were overtaken, that come too fast, and an observation that ends by an error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from protocols.coap.driver import CLIENT
from protocols.coap.message import CONTENT, Message, Option, Type, decode_udp, encode_udp, ordered, uint
from protocols.coap.wire import MAX_DROPPED, NEWS_AT_ONCE
from protocols.model import Quality
from tests.protocols.coap.test_libcoap import Reader, client, reading, text


class Device(asyncio.DatagramProtocol):
    """Answers a registration with value and number, and says what a test wants it to say."""

    def __init__(self, value: int, order: int) -> None:
        self.value, self.order = value, order
        self.transport: Any = None  # Any: the loop's
        self.token, self.peer = b"", None
        self.port = 0
        self.registrations = 0

    def connection_made(self, transport: Any) -> None:  # Any: as above
        self.transport = transport
        self.port = transport.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, addr: Any) -> None:  # Any: an address
        request = decode_udp(data)
        if request.is_request and request.first(Option.OBSERVE) == b"":
            self.token, self.peer = request.token, addr
            self.registrations += 1
            self.say(self.value, self.order, type=Type.ACK, id=request.id)

    def say(self, value: int, order: int, **changes: Any) -> None:  # Any: fields of a message
        options = ordered((Option.CONTENT_FORMAT, b""), (Option.OBSERVE, uint(order)))
        fields: dict[str, Any] = {"code": CONTENT, "options": options, "payload": b"%d" % value, "token": self.token}  # Any: as above
        self.transport.sendto(encode_udp(Message(**{**fields, **changes})), self.peer)


@pytest.fixture
async def device() -> AsyncIterator[Device]:
    made = Device(42, 1000)
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: made, local_addr=("127.0.0.1", 0))
    yield made
    transport.close()


def level(device: Device) -> Any:  # Any: options
    return client(device.port, text("/level", "level", kind="int32"))


def errors(reader: Reader, reason: str) -> int:
    return reader.session.stats.errors.get(reason, 0)


async def test_news_that_were_overtaken_are_dropped(device: Device) -> None:
    async with reading(CLIENT, level(device)) as reader:
        await reader.until(lambda: reader.value("level") == 42)
        device.say(7, 999)
        await reader.until(lambda: errors(reader, "reordered") == 1)
        device.say(43, 1001)
        await reader.until(lambda: reader.value("level") == 43)
        device.say(7, 1001)
        await reader.until(lambda: errors(reader, "reordered") == 2)
        assert reader.value("level") == 43


async def test_numbers_of_news_wrap_around(device: Device) -> None:
    """RFC 7641, 3.4: the number has 24 bits."""
    device.order = 2**24 - 1
    async with reading(CLIENT, level(device)) as reader:
        await reader.until(lambda: reader.value("level") == 42)
        device.say(43, 0)
        await reader.until(lambda: reader.value("level") == 43)
        device.say(7, 2**24 - 1)
        await reader.until(lambda: errors(reader, "reordered") == 1)
        assert reader.value("level") == 43


async def test_news_without_end_are_bounded_and_counted(device: Device) -> None:
    async with reading(CLIENT, level(device)) as reader:
        await reader.until(lambda: reader.value("level") == 42)
        sent = 0
        while errors(reader, "flood") <= MAX_DROPPED and sent < 100_000:
            sent += 1
            device.say(sent, 1001 + sent)
            if sent % 10 == 0:
                await asyncio.sleep(0)  # they are read as they come
        assert errors(reader, "flood") > MAX_DROPPED
        assert sent > NEWS_AT_ONCE
        await reader.until(lambda: device.registrations >= 2)  # it was cut off, and is observed anew
        assert "notifications faster" in " ".join(reader.session.findings)


async def test_an_observation_that_ends_by_an_error_is_told_and_begun_again(device: Device) -> None:
    async with reading(CLIENT, level(device)) as reader:
        await reader.until(lambda: reader.value("level") == 42)
        device.say(0, 1001, code=0x84, options=(), payload=b"")
        await reader.until(lambda: reader.seen.qualities["one", "level"] is Quality.BAD_NODE_ID_UNKNOWN)
        await reader.until(lambda: device.registrations >= 2 and reader.value("level") == 42)


async def test_confirmable_news_are_acknowledged_and_strange_ones_reset(device: Device) -> None:
    heard: list[Message] = []
    received = device.datagram_received

    def listen(data: bytes, addr: Any) -> None:  # Any: an address
        heard.append(decode_udp(data))
        received(data, addr)

    device.datagram_received = listen  # type: ignore[method-assign] # to listen in
    async with reading(CLIENT, level(device)) as reader:
        await reader.until(lambda: reader.value("level") == 42)
        device.say(43, 1001, type=Type.CON, id=77)
        device.say(44, 1002, type=Type.CON, id=78, token=b"strange")
        await reader.until(lambda: {(one.type, one.id) for one in heard} >= {(Type.ACK, 77), (Type.RST, 78)})
        assert reader.value("level") == 43
