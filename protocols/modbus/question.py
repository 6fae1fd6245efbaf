"""What a person may ask a device beside its scans: questions that read and change nothing. Pure.

Reads of registers and bits, "read device identification" (V1.1b3, 6.21) and "report server id" (6.13), to one unit id: never a
broadcast, never a function that writes, whoever asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from protocols.modbus.address import READ_FUNCTION, Table
from protocols.modbus.frames import Request, read_request
from protocols.modbus.trace import DEVICE_IDENTIFICATION, READ_TABLE, REPORT_SERVER_ID, answer_size

MEI_DEVICE: Final = 14
BASIC, REGULAR = 1, 2
_OBJECTS: Final = ("vendor", "product", "revision", "url", "product name", "model", "application")
MAX_SHOWN: Final = 80


class NoQuestion(ValueError):
    """A request that does not read, or is no request at all."""


class Asker(Protocol):
    """Whoever carries a question to a device: a line of one's own, or a running gateway."""

    async def ask(self, request: Request) -> bytes:
        """The PDU that answers. Raises Missed, or a DriverError when there is no way to the device."""
        ...


def question(unit_id: int, pdu: bytes) -> Request:
    """``pdu`` as a request to one device. Raises NoQuestion for whatever does not read."""
    if not 1 <= unit_id <= 255:
        raise NoQuestion(f"unit id {unit_id}: a question goes to one device, 1 to 255")
    function = pdu[0] if pdu else 0
    if function in READ_TABLE and len(pdu) == 5:
        count = int.from_bytes(pdu[3:], "big")
        is_bits = function in (READ_FUNCTION[Table.COIL], READ_FUNCTION[Table.DISCRETE])
        if not 1 <= count <= (2000 if is_bits else 125) or int.from_bytes(pdu[1:3], "big") + count > 65536:
            raise NoQuestion(f"function {function}: no device gives {count} values at once from there")
        return read_request(unit_id, pdu, (count + 7) // 8 if is_bits else 2 * count)
    if pdu == bytes((REPORT_SERVER_ID,)) or (len(pdu) == 4 and pdu[:2] == bytes((DEVICE_IDENTIFICATION, MEI_DEVICE))):
        return Request(unit_id, pdu, 0, pdu[: len(pdu) // 2 or 1], measure=answer_size)
    raise NoQuestion(f"function {function}: only functions that read may be asked, 1 to 4, 17, and 43 with 14")


def read(unit_id: int, table: Table, first: int, count: int = 1) -> Request:
    return question(unit_id, bytes((READ_FUNCTION[table],)) + first.to_bytes(2, "big") + count.to_bytes(2, "big"))


def server_id(unit_id: int) -> Request:
    return question(unit_id, bytes((REPORT_SERVER_ID,)))


def identification(unit_id: int, first_object: int = 0) -> Request:
    """All objects of the regular category, as far as the device has them; one with fewer gives what it has."""
    return question(unit_id, bytes((DEVICE_IDENTIFICATION, MEI_DEVICE, REGULAR, first_object)))


def identity(pdu: bytes) -> tuple[dict[str, str], int]:
    """What a device identification says, by name, and the object to go on with (0: that was all)."""
    found: dict[str, str] = {}
    at = 7
    for _ in range(pdu[6] if len(pdu) > 6 else 0):
        if at + 2 > len(pdu):
            break
        number, size = pdu[at], pdu[at + 1]
        name = _OBJECTS[number] if number < len(_OBJECTS) else f"object {number}"
        found[name] = printable(pdu[at + 2 : at + 2 + size])
        at += 2 + size
    more = pdu[5] if len(pdu) > 6 and pdu[4] == 0xFF else 0
    return {name: text for name, text in found.items() if text}, more


def reported(pdu: bytes) -> str:
    """What "report server id" says, for a person: its text where it has one, else its bytes."""
    content = pdu[2:]
    text = printable(content)
    return text if sum(character.isalnum() for character in text) >= 3 else content[:16].hex(" ")


def printable(content: bytes) -> str:
    """What a device says of itself, without anything that could move a cursor."""
    return "".join(chr(byte) if 32 <= byte < 127 else " " for byte in content[:MAX_SHOWN]).strip()


def joined(parts: Sequence[str]) -> str:
    return ", ".join(part for part in parts if part)
