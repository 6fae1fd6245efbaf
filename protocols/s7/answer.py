"""A controller's answers taken apart: the head of a PDU, and of a read a return code and bytes for each item. Pure; all may be a lie.

python-snap7's own reader gives up the whole answer where one item of several is refused, and takes a single refused item for cut off
where it tells a length (Snap7's server does). Here a refused item is refused alone, and an item has the length that was asked for, or
the answer is nothing.

Source: the S7comm dissector of Wireshark (packet-s7comm.c), for want of a public standard.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from protocols.model import Quality

HEAD: Final = struct.Struct(">BBHHHHH")
"""Protocol, kind, reserved, number, bytes of parameters, bytes of data, error."""
S7COMM: Final = 0x32
ACK: Final = 2
ACK_DATA: Final = 3
GOOD: Final = 0xFF
BITS: Final = (0x03, 0x04, 0x05)
"""Transport sizes whose length counts bits (3: a single bit counts as one)."""
MEANING: Final[dict[int, tuple[Quality, str]]] = {
    0x01: (Quality.BAD_DEVICE_FAILURE, "hardware fault"),
    0x03: (Quality.BAD_NOT_READABLE, "access is not allowed: check the protection of the controller and of the block"),
    0x05: (Quality.BAD_NODE_ID_UNKNOWN, "there is no such address: check at, the block's length, and that its access is not optimised"),
    0x06: (Quality.BAD_NOT_SUPPORTED, "the type is not supported"),
    0x07: (Quality.BAD_CONFIGURATION_ERROR, "the type does not fit"),
    0x0A: (Quality.BAD_NODE_ID_UNKNOWN, "there is no such block: check at, and that the block's access is not optimised"),
}
"""By return code: quality, and what a person is told."""


class BadAnswer(ValueError):
    """The answer is not one to the question. The text says why."""


class NotServed(Exception):
    """The controller refuses the whole request with ``code`` (error class and error code)."""

    def __init__(self, code: int) -> None:
        super().__init__(f"the controller refuses the request with error 0x{code:04x}")
        self.code = code


def parts(pdu: bytes, sequence: int) -> tuple[bytes, bytes]:
    """Parameters and data of the answer to the request with this number. Raises BadAnswer or NotServed."""
    if len(pdu) < HEAD.size:
        raise BadAnswer("it is too short for an S7 answer")
    protocol, kind, _, number, parameter_bytes, data_bytes, error = HEAD.unpack_from(pdu)
    if protocol != S7COMM or kind not in (ACK, ACK_DATA):
        raise BadAnswer("it is no S7 answer")
    if number != sequence:
        raise BadAnswer("it answers another question")
    if error:
        raise NotServed(error)
    if len(pdu) != HEAD.size + parameter_bytes + data_bytes:
        raise BadAnswer("its lengths are wrong")
    border = HEAD.size + parameter_bytes
    return pdu[HEAD.size : border], pdu[border:]


def items(raw: bytes, sizes: Sequence[int]) -> list[bytes | int]:
    """For each item that was asked for, its bytes, or the return code with which it was refused. Raises BadAnswer."""
    found: list[bytes | int] = []
    at = 0
    for place, size in enumerate(sizes):
        if at + 4 > len(raw):
            raise BadAnswer(f"it ends in item {place + 1} of {len(sizes)}")
        code, transport, told = raw[at], raw[at + 1], int.from_bytes(raw[at + 2 : at + 4], "big")
        at += 4
        if code != GOOD:
            found.append(code)
            continue
        length = (told + 7) // 8 if transport in BITS else told
        if length != size or at + size > len(raw):
            raise BadAnswer(f"item {place + 1} has {length} bytes where {size} were asked for")
        found.append(raw[at : at + size])
        at += size + (size % 2 if place < len(sizes) - 1 else 0)
    return found


def meaning(code: int) -> tuple[Quality, str]:
    return MEANING.get(code, (Quality.BAD, f"refused with code 0x{code:02x}"))
