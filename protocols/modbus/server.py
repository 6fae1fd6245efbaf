"""A Modbus TCP server: frames and limits; what lies in the registers is asked of a :class:`Bank`.

Functions 1 to 6, 15, 16 and 43/14 (Modbus Application Protocol V1.1b3, 6 and 6.21). One request of a client is answered
after the other, also where it sends many at once. A client that dawdles within a frame, sends what is no Modbus, or floods is
cut off or slowed down; nobody else notices. (pymodbus has a server, with neither limits nor an answer to the second of two
requests in one segment.)
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Protocol

from protocols.clock import Clock
from protocols.modbus.address import READ_FUNCTION, Table
from protocols.modbus.frames import MAX_PDU, TCP_HEADER

TABLE_OF: Final = {code: table for table, code in READ_FUNCTION.items()}
MOST_REGISTERS: Final = 125
MOST_BITS: Final = 2000
MOST_WRITTEN_REGISTERS: Final = 123
MOST_WRITTEN_BITS: Final = 1968
"""V1.1b3, 6.1 to 6.4, 6.11, 6.12."""
FRAME_S: Final = 5.0
"""Longest time from a frame's first byte to its last."""
BACKLOG: Final = 16

ILLEGAL_FUNCTION, ILLEGAL_ADDRESS, ILLEGAL_VALUE, DEVICE_FAILURE, DEVICE_BUSY, NO_RESPONSE = 1, 2, 3, 4, 6, 11

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Exceptional(Exception):
    """The request is answered with this exception code (V1.1b3, 7)."""

    def __init__(self, code: int, why: str = "") -> None:
        super().__init__(why)
        self.code = code


class Bank(Protocol):
    """The four tables. Each method raises Exceptional where a request cannot be."""

    def read_bits(self, table: Table, number: int, count: int) -> Sequence[bool]: ...

    def read_registers(self, table: Table, number: int, count: int) -> bytes:
        """Two bytes for each register, the most significant first."""
        ...

    async def write_bits(self, number: int, bits: Sequence[bool], client: str) -> None:
        """Returns when the coils have what was written."""
        ...

    async def write_registers(self, number: int, content: bytes, client: str) -> None:
        """Returns when the holding registers have what was written."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What clients may do."""

    networks: tuple[Network, ...]
    """Who may connect; nobody else."""
    clients: int = 8
    idle_s: float = 120.0
    requests_per_s: float = 500.0
    """Of one client; who asks more often is answered later."""


Refused = Callable[[str, str], None]
"""Told of each connection that is not taken or is cut, and of each request that is answered by an exception: client, and why."""


@asynccontextmanager
async def serving(
    host: str,
    port: int,
    unit_id: int,
    bank: Bank,
    *,
    limits: Limits,
    clock: Clock,
    refused: Refused,
    identity: Mapping[int, bytes] | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[int]:
    """Serve ``bank`` as ``unit_id`` (and as 0 and 255) on ``host``; gives the port. ``identity`` is told by 43/14.

    Raises OSError where the address cannot be used.
    """
    work: set[asyncio.Task[None]] = set()
    one = Server(unit_id, bank, limits, clock, refused, dict(identity or {}))

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(one.attend(reader, writer))
        work.add(task)
        task.add_done_callback(work.discard)

    server = await asyncio.start_server(connected, host, port, limit=4 * (MAX_PDU + TCP_HEADER), backlog=BACKLOG, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(work):
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)


class Server:
    """What one listening port does with its clients. Use :func:`serving`."""

    def __init__(self, unit_id: int, bank: Bank, limits: Limits, clock: Clock, refused: Refused, identity: dict[int, bytes]) -> None:
        self._units = (unit_id, 0, 255)
        self._bank = bank
        self._limits = limits
        self._clock = clock
        self._refuse = refused
        self._identity = identity
        self._clients = 0

    async def attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client, until it goes or has to."""
        peer = writer.get_extra_info("peername")
        client = str(peer[0]) if peer else "unknown"
        try:
            reason = self._objection(client)
            if reason:
                self._refuse(client, reason)
                return
            self._clients += 1
            try:
                await self._converse(reader, writer, client)
            finally:
                self._clients -= 1
        except (OSError, asyncio.IncompleteReadError):
            pass  # it has gone, which is its right
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _objection(self, client: str) -> str:
        try:
            address = ipaddress.ip_address(client.partition("%")[0])
        except ValueError:
            return "no address"
        mapped = getattr(address, "ipv4_mapped", None) or address
        if not any(mapped in network for network in self._limits.networks):
            return "not among the clients"
        return "too many clients" if self._clients >= self._limits.clients else ""

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, client: str) -> None:
        spare = 1 / self._limits.requests_per_s
        due = self._clock.monotonic()
        while True:
            try:
                frame = await self._frame(reader)
            except TimeoutError:
                self._refuse(client, "silent for too long")
                return
            if frame is None:
                self._refuse(client, "no Modbus TCP")
                return
            transaction, unit_id, pdu = frame
            answer = await self.answer(unit_id, pdu, client)
            writer.write(transaction + b"\0\0" + (len(answer) + 1).to_bytes(2, "big") + bytes((unit_id,)) + answer)
            async with asyncio.timeout(self._limits.idle_s):
                await writer.drain()
            due = max(due + spare, self._clock.monotonic() - 1)  # a second's worth may come at once
            await self._clock.sleep_until(due)

    async def _frame(self, reader: asyncio.StreamReader) -> tuple[bytes, int, bytes] | None:
        """Transaction id, unit id and PDU; None where it is no Modbus TCP. Raises TimeoutError, IncompleteReadError."""
        async with asyncio.timeout(self._limits.idle_s):
            first = await reader.readexactly(1)
        async with asyncio.timeout(FRAME_S):
            header = first + await reader.readexactly(TCP_HEADER - 1)
            length = int.from_bytes(header[4:6], "big")
            if header[2:4] != b"\0\0" or not 2 <= length <= MAX_PDU + 1:
                return None
            return header[:2], header[6], await reader.readexactly(length - 1)

    async def answer(self, unit_id: int, pdu: bytes, client: str) -> bytes:
        """The PDU that answers ``pdu``, which is not empty."""
        try:
            if unit_id not in self._units:
                raise Exceptional(NO_RESPONSE)
            return await self._carry_out(pdu, client)
        except Exceptional as error:
            self._refuse(client, f"exception {error.code}")
            return bytes((pdu[0] | 0x80, error.code))

    async def _carry_out(self, pdu: bytes, client: str) -> bytes:
        function = pdu[0]
        if function in TABLE_OF:
            return self._read(TABLE_OF[function], pdu)
        if function == 43:
            return self._identify(pdu)
        if function not in (5, 6, 15, 16):
            raise Exceptional(ILLEGAL_FUNCTION)
        if len(pdu) < 5:
            raise Exceptional(ILLEGAL_VALUE)
        number = int.from_bytes(pdu[1:3], "big")
        if function in (5, 15):
            await self._bank.write_bits(number, _bits_of(pdu), client)
        else:
            await self._bank.write_registers(number, _registers_of(pdu), client)
        return pdu[:5]

    def _read(self, table: Table, pdu: bytes) -> bytes:
        if len(pdu) != 5:
            raise Exceptional(ILLEGAL_VALUE)
        number, count = int.from_bytes(pdu[1:3], "big"), int.from_bytes(pdu[3:5], "big")
        if not 1 <= count <= (MOST_BITS if table.is_bits else MOST_REGISTERS):
            raise Exceptional(ILLEGAL_VALUE)
        if number + count > 0x10000:
            raise Exceptional(ILLEGAL_ADDRESS)
        if table.is_bits:
            bits = self._bank.read_bits(table, number, count)
            content = sum(1 << at for at, bit in enumerate(bits) if bit).to_bytes((count + 7) // 8, "little")
        else:
            content = self._bank.read_registers(table, number, count)
        return bytes((pdu[0], len(content))) + content

    def _identify(self, pdu: bytes) -> bytes:
        """Read device identification, basic, as a stream (6.21): vendor, product code, revision."""
        if len(pdu) != 4 or pdu[1] != 14 or pdu[2] != 1 or not self._identity:
            raise Exceptional(ILLEGAL_FUNCTION)
        objects = b"".join(bytes((key, len(text))) + text for key, text in sorted(self._identity.items()))
        return bytes((43, 14, 1, 1, 0, 0, len(self._identity))) + objects


def _bits_of(pdu: bytes) -> list[bool]:
    """What function 5 or 15 writes."""
    if pdu[0] == 5:
        if len(pdu) != 5 or pdu[3:5] not in (b"\xff\x00", b"\x00\x00"):
            raise Exceptional(ILLEGAL_VALUE)
        return [pdu[3] == 0xFF]
    count = _count_of(pdu, MOST_WRITTEN_BITS, lambda many: (many + 7) // 8)
    packed = int.from_bytes(pdu[6:], "little")
    return [bool(packed >> at & 1) for at in range(count)]


def _registers_of(pdu: bytes) -> bytes:
    """What function 6 or 16 writes."""
    if pdu[0] == 6:
        if len(pdu) != 5:
            raise Exceptional(ILLEGAL_VALUE)
        return pdu[3:5]
    _count_of(pdu, MOST_WRITTEN_REGISTERS, lambda many: 2 * many)
    return pdu[6:]


def _count_of(pdu: bytes, most: int, size_of: Callable[[int], int]) -> int:
    count = int.from_bytes(pdu[3:5], "big")
    size = size_of(count)
    if not 1 <= count <= most or len(pdu) != 6 + size or pdu[5] != size:
        raise Exceptional(ILLEGAL_VALUE)
    if int.from_bytes(pdu[1:3], "big") + count > 0x10000:
        raise Exceptional(ILLEGAL_ADDRESS)
    return count
