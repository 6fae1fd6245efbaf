"""Listens on the wire between one MQTT client and its broker: a TCP relay that writes down what the client sends.

It reads MQTT 3.1.1 and 5 itself, independently of every client library, so a test sees what really was sent: the flags of
CONNECT, the QoS of each PUBLISH, the order of packets and the reason of DISCONNECT.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

DEADLINE_S = 10.0


@dataclass(frozen=True, slots=True)
class Connect:
    level: int
    clean: bool
    session_expiry_s: int
    will_topic: str
    will_payload: bytes
    will_qos: int
    will_retain: bool


@dataclass(frozen=True, slots=True)
class Publish:
    topic: str
    payload: bytes
    qos: int
    retain: bool


@dataclass(frozen=True, slots=True)
class Subscribe:
    topic: str
    qos: int


@dataclass(frozen=True, slots=True)
class Disconnect:
    reason: int


Packet = Connect | Publish | Subscribe | Disconnect


@dataclass
class Tap:
    port: int = 0
    sessions: list[list[Packet]] = field(default_factory=list)
    """What each connection's client sent, in order; other packets are left out."""
    open: int = 0
    most_open: int = 0


class _Reader:
    """Reads fields of one packet's content."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, count: int) -> int:
        return int.from_bytes(self.take(count), "big")

    def block(self) -> bytes:
        return self.take(self.number(2))

    def text(self) -> str:
        return self.block().decode()

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.number(1)
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def properties(self) -> bytes:
        return self.take(self.varint())


def read(kind: int, flags: int, content: bytes, level: int) -> Packet | None:
    """One packet of a client; None for those that tests do not ask for. ``level`` is 4 or 5, 0 before CONNECT."""
    reader = _Reader(content)
    match kind:
        case 1:
            return _connect(reader)
        case 3:
            topic, qos = reader.text(), flags >> 1 & 3
            reader.take(2 if qos else 0)
            if level == 5:
                reader.properties()
            return Publish(topic, reader.data[reader.at :], qos, bool(flags & 1))
        case 8:
            reader.take(2)
            if level == 5:
                reader.properties()
            return Subscribe(reader.text(), reader.number(1) & 3)
        case 14:
            return Disconnect(content[0] if content else 0)
        case _:
            return None


def _connect(reader: _Reader) -> Connect:
    reader.text()
    level, flags = reader.number(1), reader.number(1)
    reader.take(2)
    expiry = 0
    if level == 5:
        properties = reader.properties()
        expiry = int.from_bytes(properties[1:5], "big") if properties[:1] == b"\x11" else 0  # paho writes it first
    reader.text()
    topic, payload = "", b""
    if flags & 4:
        if level == 5:
            reader.properties()
        topic, payload = reader.text(), reader.block()
    return Connect(level, bool(flags & 2), expiry, topic, payload, flags >> 3 & 3, bool(flags & 0x20))


@asynccontextmanager
async def tap(broker_port: int) -> AsyncIterator[Tap]:
    """A port that relays to the broker on ``broker_port`` of this machine."""
    heard = Tap()
    tasks: set[asyncio.Task[None]] = set()

    async def relay(client_in: asyncio.StreamReader, client_out: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        packets: list[Packet] = []
        heard.sessions.append(packets)
        heard.open += 1
        heard.most_open = max(heard.most_open, heard.open)
        broker_in, broker_out = await asyncio.open_connection("127.0.0.1", broker_port)
        back = asyncio.create_task(_copy(broker_in, client_out))
        try:
            await _listen(client_in, broker_out, packets)
        finally:
            back.cancel()
            await asyncio.gather(back, return_exceptions=True)
            await _close(broker_out, client_out)
            heard.open -= 1

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    heard.port = server.sockets[0].getsockname()[1]
    try:
        yield heard
    finally:
        server.close()
        if tasks:
            await asyncio.wait(tasks, timeout=DEADLINE_S)  # clients have gone, so each relay is about to close its streams
        assert not heard.open, "a client is still connected"


async def _close(*writers: asyncio.StreamWriter) -> None:
    for writer in writers:
        writer.close()
    for writer in writers:
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(65536):
        sink.write(data)
        await sink.drain()


async def _listen(source: asyncio.StreamReader, sink: asyncio.StreamWriter, packets: list[Packet]) -> None:
    """Relay packet by packet until the client's stream ends."""
    level = 0
    try:
        while True:
            head = await source.readexactly(1)
            raw, length, shift = head, 0, 0
            while True:
                byte = await source.readexactly(1)
                raw += byte
                length |= (byte[0] & 0x7F) << shift
                shift += 7
                if byte[0] < 0x80:
                    break
            content = await source.readexactly(length)
            packet = read(head[0] >> 4, head[0] & 0x0F, content, level)
            if isinstance(packet, Connect):
                level = packet.level
            if packet is not None:
                packets.append(packet)
            sink.write(raw + content)
            await sink.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        return
