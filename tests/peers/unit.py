"""A Modbus unit in a few lines of Python: registers, and the answer to a request. Bytes in, bytes out.

It stands behind the peers that misbehave (``hostile.py``) and on the line that delays (``wire.py``), where libmodbus
cannot be put. Answers follow MODBUS Application Protocol 1.1b3, clause 6.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

ILLEGAL_FUNCTION: Final = 1
ILLEGAL_ADDRESS: Final = 2
ILLEGAL_VALUE: Final = 3
TABLE_OF: Final = {1: "coil", 2: "discrete", 3: "holding", 4: "input", 5: "coil", 6: "holding", 15: "coil", 16: "holding", 22: "holding"}
ADDRESSES: Final = 65536


class Exceptional(Exception):
    """The request is answered with this exception code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@dataclass
class Unit:
    """Registers of one unit id, all zero until set. ``holes`` are (table, first, last) that do not exist."""

    holding: dict[int, int] = field(default_factory=dict)
    input: dict[int, int] = field(default_factory=dict)
    coil: dict[int, int] = field(default_factory=dict)
    discrete: dict[int, int] = field(default_factory=dict)
    holes: list[tuple[str, int, int]] = field(default_factory=list)
    on_request: Callable[[Unit, bytes], None] | None = None
    """Called with each request's PDU before it is answered, to change values or to count."""

    def answer(self, pdu: bytes) -> bytes:
        """The response PDU to a request PDU (function code first)."""
        if self.on_request is not None:
            self.on_request(self, pdu)
        try:
            return self._answer(pdu)
        except Exceptional as refusal:
            return bytes([pdu[0] | 0x80, refusal.code])
        except (struct.error, IndexError):
            return bytes([pdu[0] | 0x80, ILLEGAL_VALUE])

    def _answer(self, pdu: bytes) -> bytes:
        function = pdu[0]
        if function not in TABLE_OF:
            raise Exceptional(ILLEGAL_FUNCTION)
        table: dict[int, int] = getattr(self, TABLE_OF[function])
        address, count = struct.unpack_from(">HH", pdu, 1)
        self._admit(TABLE_OF[function], address, count if function in (1, 2, 3, 4, 15, 16) else 1)
        if function <= 4:
            return self._read(function, table, address, count)
        _WRITES[function](table, address, pdu)
        return pdu if function == 22 else pdu[:5]

    def _admit(self, table: str, first: int, count: int) -> None:
        most = 2000 if table in ("coil", "discrete") else 125
        if not 1 <= count <= most:
            raise Exceptional(ILLEGAL_VALUE)
        last = first + count - 1
        if last >= ADDRESSES or any(table == name and first <= end and last >= start for name, start, end in self.holes):
            raise Exceptional(ILLEGAL_ADDRESS)

    def _read(self, function: int, table: dict[int, int], address: int, count: int) -> bytes:
        values = [table.get(at, 0) for at in range(address, address + count)]
        if function >= 3:
            return struct.pack(f">BB{count}H", function, 2 * count, *values)
        number = sum((value & 1) << at for at, value in enumerate(values))
        return bytes([function, (count + 7) // 8]) + number.to_bytes((count + 7) // 8, "little")


def _write_one(table: dict[int, int], address: int, pdu: bytes) -> None:
    (value,) = struct.unpack_from(">H", pdu, 3)
    if pdu[0] == 5 and value not in (0, 0xFF00):
        raise Exceptional(ILLEGAL_VALUE)
    table[address] = value if pdu[0] == 6 else value & 1 | value >> 15


def _write_coils(table: dict[int, int], address: int, pdu: bytes) -> None:
    count, number = struct.unpack_from(">H", pdu, 3)[0], int.from_bytes(pdu[6:], "little")
    table.update({address + at: number >> at & 1 for at in range(count)})


def _write_registers(table: dict[int, int], address: int, pdu: bytes) -> None:
    (count,) = struct.unpack_from(">H", pdu, 3)
    table.update(enumerate(struct.unpack_from(f">{count}H", pdu, 6), address))


def _mask_register(table: dict[int, int], address: int, pdu: bytes) -> None:
    all_of, any_of = struct.unpack_from(">HH", pdu, 3)
    table[address] = table.get(address, 0) & all_of | any_of & ~all_of & 0xFFFF


_WRITES: Final = {5: _write_one, 6: _write_one, 15: _write_coils, 16: _write_registers, 22: _mask_register}


def crc16(data: bytes) -> int:
    """MODBUS over Serial Line 1.02, 6.2.2."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0xA001 if crc & 1 else crc >> 1
    return crc


def rtu_frame(unit_id: int, pdu: bytes) -> bytes:
    body = bytes([unit_id]) + pdu
    return body + crc16(body).to_bytes(2, "little")


def rtu_content(frame: bytes) -> tuple[int, bytes] | None:
    """Unit id and PDU of a whole RTU frame, None where its check fails."""
    if len(frame) < 4 or crc16(frame[:-2]) != int.from_bytes(frame[-2:], "little"):
        return None
    return frame[0], frame[1:-2]


def tcp_frame(transaction: int, unit_id: int, pdu: bytes) -> bytes:
    """MODBUS Messaging on TCP/IP 1.0b, 3.1.3."""
    return struct.pack(">HHHB", transaction, 0, len(pdu) + 1, unit_id) + pdu
