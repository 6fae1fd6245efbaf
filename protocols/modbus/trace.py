"""What a Modbus wire tells, as frames with their meaning. Pure: bytes in, frames and words out.

A serial line brings an answer in pieces, a TCP stream several at once: the cutter puts pieces together and cuts streams by
what the frames say of their length. Whatever is not a frame is kept as it came, when the next thing happens. An exception,
a wrong checksum and a missing answer are trouble.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from pymodbus.framer import FramerRTU

from protocols.clock import Clock
from protocols.modbus.address import READ_FUNCTION
from protocols.modbus.frames import EXCEPTIONS, MAX_PDU, TCP_HEADER
from protocols.trace.ring import Frame, Way

TCP_PORT: Final = 502
"""Where Wireshark looks for Modbus TCP."""
RTU_PORT: Final = 4001
"""RTU frames are told to Wireshark as RTU over TCP: ``tshark -d tcp.port==4001,mbrtu``."""
MAX_RTU: Final = 256
MAX_BROKEN: Final = 4096
"""Bytes that are no frame and are kept together."""
SHOWN_WORDS: Final = 16
READ_TABLE: Final = {function: str(table) for table, function in READ_FUNCTION.items()}
WRITES: Final = {5: "coil", 6: "holding", 15: "coil", 16: "holding", 22: "holding"}
DEVICE_IDENTIFICATION: Final = 43
REPORT_SERVER_ID: Final = 17


def has_checksum(frame: bytes) -> bool:
    """Whether ``frame`` ends as an RTU frame does (MODBUS over serial line V1.02, 2.5.1.2)."""
    return len(frame) >= 4 and FramerRTU.compute_CRC(frame[:-2]) == int.from_bytes(frame[-2:], "big")


def answer_size(pdu: bytes) -> int:
    """Bytes that the answer beginning with ``pdu`` has; one more than there are while it cannot be told, 0 if never."""
    if not pdu:
        return 1
    function = pdu[0]
    if function & 0x80:
        return 2
    if function in READ_TABLE or function == REPORT_SERVER_ID:
        return 2 + pdu[1] if len(pdu) > 1 else len(pdu) + 1
    if function in WRITES:
        return 7 if function == 22 else 5
    return identification_size(pdu) if function == DEVICE_IDENTIFICATION else 0


def identification_size(pdu: bytes) -> int:
    """As :func:`answer_size`, of an answer to "read device identification" (V1.1b3, 6.21): objects, each with its length."""
    at = 7
    if len(pdu) < at:
        return len(pdu) + 1
    for _ in range(pdu[6]):
        if len(pdu) < at + 2:
            return len(pdu) + 1
        at += 2 + pdu[at + 1]
    return at


class Cutter:
    """A :class:`protocols.trace.wire.Tap` that hands whole frames to ``take``.

    It begins with the first request: of an answer that was on its way already only the end would be seen.
    """

    def __init__(self, take: Callable[[Frame], None], clock: Clock, *, is_rtu: bool) -> None:
        self._take = take
        self._clock = clock
        self._is_rtu = is_rtu
        self._pending = b""
        self._has_begun = False
        self._is_broken = False

    def sent(self, content: bytes) -> None:
        self._give_up()
        self._has_begun = True
        self._take(Frame(self._clock.time_ns(), Way.SENT, content))

    def received(self, content: bytes) -> None:
        if self._has_begun:
            self._pending += content
        while self._pending and not self._is_broken:
            size = self._rtu_size() if self._is_rtu else _tcp_size(self._pending)
            if size > len(self._pending):
                return
            if not size:
                self._is_broken = True  # until the next request: nobody knows where a frame would begin
                break
            frame, self._pending = self._pending[:size], self._pending[size:]
            self._take(Frame(self._clock.time_ns(), Way.RECEIVED, frame, exception_of(frame, is_rtu=self._is_rtu)))
        if len(self._pending) >= MAX_BROKEN:
            self._give_up()
            self._is_broken = True

    def trouble(self, text: str) -> None:
        self._give_up()
        self._take(Frame(self._clock.time_ns(), Way.NOTE, trouble=text))

    def _rtu_size(self) -> int:
        """Of the frame that begins here; 0 where none does."""
        size = answer_size(self._pending[1:])
        if len(self._pending) < 2 or size > len(self._pending) - 1:
            return len(self._pending) + 1 if size <= MAX_RTU else 0
        whole = size + 3
        if not size or (len(self._pending) >= whole and not has_checksum(self._pending[:whole])):
            return 0
        return whole

    def _give_up(self) -> None:
        """What came is no frame, or not the whole of one: it is kept as it is."""
        self._is_broken = False
        if self._pending:
            broken, self._pending = self._pending, b""
            self._take(Frame(self._clock.time_ns(), Way.RECEIVED, broken, "no whole frame, or a wrong checksum"))


def _tcp_size(stream: bytes) -> int:
    """Bytes of the Modbus TCP frame at the front; 0 where there is none."""
    if any(stream[2:4]):
        return 0
    if len(stream) < TCP_HEADER:
        return TCP_HEADER
    length = stream[4] << 8 | stream[5]
    return 6 + length if 2 <= length <= MAX_PDU + 1 else 0


def are_rtu(frames: Iterable[Frame]) -> bool:
    """Whether frames of unknown kind are RTU rather than Modbus TCP: most of them end with a right checksum.

    One alone does not tell: an RTU read of two registers at 0 has the length that Modbus TCP would say, and a TCP frame in
    65,536 has a right checksum by chance.
    """
    right = [has_checksum(frame.content) for frame in frames if frame.content]
    return 2 * sum(right) > len(right)


def parts(frame: bytes, *, is_rtu: bool) -> tuple[int, bytes] | None:
    """Unit id and PDU; None where the frame is broken."""
    if is_rtu:
        return (frame[0], frame[1:-2]) if has_checksum(frame) else None
    return (frame[6], frame[7:]) if len(frame) > TCP_HEADER and _tcp_size(frame) == len(frame) else None


def exception_of(frame: bytes, *, is_rtu: bool) -> str:
    """The exception that an answer is, in words; empty where it is none."""
    found = parts(frame, is_rtu=is_rtu)
    if found is None or len(found[1]) < 2 or not found[1][0] & 0x80:
        return ""
    code = found[1][1]
    return f"exception {code}, {EXCEPTIONS.get(code, 'unknown')}"


class Teller:
    """Frames in words, one line each; an answer is told with what was asked."""

    def __init__(self, *, is_rtu: bool) -> None:
        self._is_rtu = is_rtu
        self._asked: dict[int, bytes] = {}
        """The last request's PDU by unit id."""

    def tell(self, frame: Frame) -> str:
        """``> unit 1 read input 52..53`` and ``< unit 1 input 52..53: 17254 26214``."""
        if frame.way is Way.NOTE:
            return f"! {frame.trouble}"
        sign = ">" if frame.way is Way.SENT else "<"
        found = parts(frame.content, is_rtu=self._is_rtu)
        if found is None:
            return f"{sign} {frame.content[:64].hex(' ')}" + (f" ({frame.trouble})" if frame.trouble else "")
        unit_id, pdu = found
        if frame.way is Way.SENT:
            self._asked[unit_id] = pdu
            return f"{sign} unit {unit_id} {request_in_words(pdu)}"
        return f"{sign} unit {unit_id} {answer_in_words(pdu, self._asked.get(unit_id, b''))}"


def request_in_words(pdu: bytes) -> str:
    """``read holding 0..9``."""
    function = pdu[0]
    if function in READ_TABLE and len(pdu) == 5:
        return f"read {READ_TABLE[function]} {_span(pdu)}"
    if function in WRITES and len(pdu) >= 5:
        place = _span(pdu) if function in (15, 16) else str(int.from_bytes(pdu[1:3], "big"))
        return f"write {WRITES[function]} {place}: {_content(pdu[6:] if function in (15, 16) else pdu[3:])}"
    return _other(pdu)


def answer_in_words(pdu: bytes, asked: bytes) -> str:
    """``holding 0..1: 17254 26214``, ``exception 2, illegal data address, to read holding 0..1``."""
    function = pdu[0]
    if function & 0x80:
        code = pdu[1] if len(pdu) > 1 else 0
        to = f", to {request_in_words(asked)}" if asked[:1] == bytes((function & 0x7F,)) else ""
        return f"exception {code}, {EXCEPTIONS.get(code, 'unknown')}{to}"
    if function in READ_TABLE:
        place = f" {_span(asked)}" if asked[:1] == pdu[:1] and len(asked) == 5 else ""
        return f"{READ_TABLE[function]}{place}: {_content(pdu[2:])}"
    if function in WRITES:
        return f"wrote {WRITES[function]} {_span(pdu) if function in (15, 16) else int.from_bytes(pdu[1:3], 'big')}"
    return _other(pdu)


def _other(pdu: bytes) -> str:
    return f"function {pdu[0]}: {pdu[1:33].hex(' ')}"


def _span(pdu: bytes) -> str:
    first, count = int.from_bytes(pdu[1:3], "big"), int.from_bytes(pdu[3:5], "big")
    return f"{first}..{first + count - 1}" if count > 1 else str(first)


def _content(content: bytes) -> str:
    """Registers in decimal, a few of them; an odd number of bytes in hex."""
    if len(content) % 2:
        return content[: 2 * SHOWN_WORDS].hex(" ")
    words = [str(int.from_bytes(content[at : at + 2], "big")) for at in range(0, len(content), 2)]
    return " ".join(words[:SHOWN_WORDS]) + (f" and {len(words) - SHOWN_WORDS} more" if len(words) > SHOWN_WORDS else "")
