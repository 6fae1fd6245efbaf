"""Frames: requests to bytes, and bytes from outside to answers. Pure; pymodbus's framers make and check the frames.

An answer is believed only if everything about it fits the one request in flight: transaction id (TCP), unit id,
function code, byte count, checksum (RTU). Whatever does not fit is foreign or broken, and never data. Lengths from
outside are limited before anything waits for them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from pymodbus.framer import FramerRTU, FramerSocket
from pymodbus.pdu import DecodePDU

TCP_HEADER: Final = 7
MAX_PDU: Final = 253
"""V1.1b3, 4.1: 256 bytes of RTU frame less unit id and checksum."""
MAX_NOISE: Final = 4
"""Bytes of 0x00 or 0xFF before an RTU answer that are taken for a driver switching on."""

_socket = FramerSocket(DecodePDU(False))
_rtu = FramerRTU(DecodePDU(False))

EXCEPTIONS: Final[dict[int, str]] = {
    1: "illegal function",
    2: "illegal data address",
    3: "illegal data value",
    4: "device failure",
    5: "acknowledge: the device needs more time",
    6: "device busy",
    7: "negative acknowledge",
    8: "memory parity error",
    10: "gateway path unavailable",
    11: "gateway target device failed to respond",
}


@dataclass(frozen=True, slots=True)
class Request:
    """One request, prepared for the wire. ``expect`` is the exact PDU length of a good answer."""

    unit_id: int
    pdu: bytes
    expect: int
    head: bytes
    """How a good answer's PDU begins: function and byte count of a read; all of it where a write is echoed."""
    delay_s: float = 0.0
    """Pause that must lie before it."""
    measure: Callable[[bytes], int] | None = None
    """Where the length of a good answer cannot be known: what its PDU, as far as it is there, says of it (more than that while
    it cannot be told, 0 where it is none). ``expect`` is 0 then, and ``is_answer`` leaves such an answer to ``take_tcp``."""
    tcp: bytes = field(init=False)
    """The frame without its transaction id."""
    rtu: bytes = field(init=False)
    answer: bytes = field(init=False)
    """How the TCP frame of a good answer begins after its transaction id: all that can be known of it beforehand."""

    def __post_init__(self) -> None:
        length = (self.expect + 1).to_bytes(2, "big")
        object.__setattr__(self, "answer", b"\0\0" + length + bytes((self.unit_id,)) + self.head)
        object.__setattr__(self, "tcp", _socket.encode(self.pdu, self.unit_id, 0)[2:])
        object.__setattr__(self, "rtu", _rtu.encode(self.pdu, self.unit_id, 0))

    @property
    def function(self) -> int:
        return self.pdu[0]


def read_request(unit_id: int, pdu: bytes, size: int, delay_s: float = 0.0) -> Request:
    """A read whose answer carries ``size`` bytes (V1.1b3, 6.1 to 6.4)."""
    return Request(unit_id, pdu, 2 + size, bytes((pdu[0], size)), delay_s)


def write_request(unit_id: int, pdu: bytes, delay_s: float = 0.0) -> Request:
    """A write: 5, 6 and 22 are echoed whole, 15 and 16 by address and quantity (V1.1b3, 6.5, 6.6, 6.11, 6.12, 6.16)."""
    echo = pdu[:5] if pdu[0] in (15, 16) else pdu
    return Request(unit_id, pdu, len(echo), echo, delay_s)


class Verdict(Enum):
    """What the bytes at the front of a buffer are, seen from the request in flight."""

    MORE = auto()
    """Not all there yet."""
    ANSWER = auto()
    FOREIGN = auto()
    """A whole frame that answers another request: a late one, or another unit's."""
    WRONG = auto()
    """A whole frame that claims to answer this request but does not fit it."""
    GARBAGE = auto()
    """Not a frame of this protocol."""


@dataclass(frozen=True, slots=True)
class Taken:
    """``used`` bytes at the front of the buffer are settled."""

    verdict: Verdict
    used: int = 0
    pdu: bytes = b""
    why: str = ""


_MORE: Final = Taken(Verdict.MORE)


def is_exception(pdu: bytes) -> bool:
    return pdu[0] >= 0x80


def _fits(request: Request, pdu: bytes) -> bool:
    if pdu[0] == request.function | 0x80:
        return len(pdu) == 2
    return len(pdu) == _size(request, pdu) and pdu.startswith(request.head)


def _size(request: Request, pdu: bytes) -> int:
    return request.expect if request.measure is None else request.measure(pdu)


def is_answer(data: bytes, request: Request, transaction: bytes) -> bool:
    """Whether ``data`` is, as nearly always, one whole TCP frame that is the good answer, and nothing else.

    :func:`take_tcp` would say the same at ten times the cost, and is asked wherever this says no.
    """
    return len(data) == TCP_HEADER + request.expect and data.startswith(transaction + request.answer)


def take_tcp(buffer: bytes, request: Request | None, transaction: int) -> Taken:
    """The first frame of ``buffer`` as Modbus TCP (Messaging on TCP/IP V1.0b, 3.1.3)."""
    if any(buffer[2:4]):
        return Taken(Verdict.GARBAGE, len(buffer), why="it is no Modbus TCP")
    if len(buffer) < TCP_HEADER:
        return _MORE
    length = buffer[4] << 8 | buffer[5]
    if not 3 <= length <= MAX_PDU + 1:
        return Taken(Verdict.GARBAGE, len(buffer), why=f"its header claims {length} bytes")
    used, unit_id, seen, pdu = _socket.decode(buffer)
    if not used:
        return _MORE
    if request is None or seen != transaction:
        return Taken(Verdict.FOREIGN, used, why="late or unasked")
    if unit_id != request.unit_id:
        return Taken(Verdict.FOREIGN, used, why=f"from unit id {unit_id} instead of {request.unit_id}")
    if not _fits(request, pdu):
        return Taken(Verdict.WRONG, used, why=_misfit(request, pdu))
    return Taken(Verdict.ANSWER, used, pdu)


def _misfit(request: Request, pdu: bytes) -> str:
    return f"function {pdu[0]} with {len(pdu)} bytes, expected function {request.function} with {request.expect}"


def take_rtu(buffer: bytes, request: Request | None) -> Taken:
    """The answer to ``request`` at the front of ``buffer`` as RTU (MODBUS over serial line V1.02, 2.5.1).

    The end is known from what was asked, so no silence has to be awaited. There is no transaction id: anything but the
    exact answer is garbage, and the line must then fall silent before it is used again.
    """
    if request is None:
        return Taken(Verdict.GARBAGE, len(buffer), why="nothing was asked")
    skip = 0
    while skip < min(MAX_NOISE, len(buffer)) and buffer[skip] in (0x00, 0xFF) and buffer[skip] != request.unit_id:
        skip += 1
    frame = buffer[skip:]
    if len(frame) < 2:
        wrong = bool(frame) and frame[0] != request.unit_id
        return Taken(Verdict.GARBAGE, len(buffer), why=_other(frame, request)) if wrong else _MORE
    function = frame[1] & 0x7F
    if frame[0] != request.unit_id or function != request.function:
        return Taken(Verdict.GARBAGE, len(buffer), why=_other(frame, request))
    size = 5 if frame[1] & 0x80 else _size(request, frame[1:]) + 3
    if frame[1] < 0x80 and not frame[1:].startswith(request.head[: len(frame) - 1]):
        return Taken(Verdict.GARBAGE, len(buffer), why="another length or address than was asked for")
    if not 3 < size <= MAX_PDU + 3:
        return Taken(Verdict.GARBAGE, len(buffer), why="it does not say how long it is")
    if len(frame) < size:
        return _MORE
    if FramerRTU.compute_CRC(frame[: size - 2]) != int.from_bytes(frame[size - 2 : size], "big"):
        return Taken(Verdict.GARBAGE, len(buffer), why="wrong checksum")
    return Taken(Verdict.ANSWER, skip + size, frame[1 : size - 2])


def _other(frame: bytes, request: Request) -> str:
    seen = f"unit id {frame[0]}" + (f" function {frame[1]}" if len(frame) > 1 else "")
    return f"{seen} instead of unit id {request.unit_id} function {request.function}"
