"""CoAP messages as bytes: over UDP (RFC 7252, 3) and over TCP (RFC 8323, 3.2). Pure, and bounded.

The decoder believes no length that is not there, keeps nothing of what it has read, and raises nothing but :class:`Broken`. An
option is a number and bytes: who needs its meaning asks for it. The tables of codes and options at the end are what texts say.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import msgspec

MAX_OPTIONS: Final = 64
MAX_TOKEN: Final = 8
MAX_OPTION_NUMBER: Final = 0xFFFF
LONGEST_OPTION: Final = 1034
"""Bytes of one option's value: what Proxy-Uri, the longest, may have."""
DEFAULT_MAX_AGE_S: Final = 60
"""RFC 7252, 5.10.5."""


class Type(IntEnum):
    CON = 0
    NON = 1
    ACK = 2
    RST = 3


class Option(IntEnum):
    """Numbers of options that are used here (IANA, CoAP option numbers)."""

    IF_MATCH = 1
    URI_HOST = 3
    ETAG = 4
    IF_NONE_MATCH = 5
    OBSERVE = 6
    URI_PORT = 7
    OSCORE = 9
    URI_PATH = 11
    CONTENT_FORMAT = 12
    MAX_AGE = 14
    URI_QUERY = 15
    ACCEPT = 17
    BLOCK2 = 23
    BLOCK1 = 27
    SIZE2 = 28
    PROXY_URI = 35
    PROXY_SCHEME = 39
    SIZE1 = 60
    ECHO = 252
    REQUEST_TAG = 292


UNDERSTOOD_IN_RESPONSES: Final = frozenset({Option.OSCORE, Option.BLOCK1, Option.BLOCK2})
"""Critical options that a response may have. Any other makes it one that must not be believed (RFC 7252, 5.4.1)."""

EMPTY: Final = 0
GET, POST, PUT, DELETE, FETCH = 1, 2, 3, 4, 5
CREATED, CHANGED, VALID, CONTENT, CONTINUE = 0x41, 0x44, 0x43, 0x45, 0x5F
BAD_REQUEST, UNAUTHORIZED, BAD_OPTION, FORBIDDEN, NOT_FOUND, METHOD_NOT_ALLOWED = 0x80, 0x81, 0x82, 0x83, 0x84, 0x85
INCOMPLETE, TOO_LARGE, UNSUPPORTED_FORMAT, UNAVAILABLE = 0x88, 0x8D, 0x8F, 0xA3
CSM, PING, PONG, RELEASE, ABORT = 0xE1, 0xE2, 0xE3, 0xE4, 0xE5
"""Signals on TCP (RFC 8323, 5)."""

CODES: Final[dict[int, str]] = {
    GET: "GET",
    POST: "POST",
    PUT: "PUT",
    DELETE: "DELETE",
    FETCH: "FETCH",
    CREATED: "Created",
    0x42: "Deleted",
    VALID: "Valid",
    CHANGED: "Changed",
    CONTENT: "Content",
    CONTINUE: "Continue",
    BAD_REQUEST: "Bad Request",
    UNAUTHORIZED: "Unauthorized",
    FORBIDDEN: "Forbidden",
    BAD_OPTION: "Bad Option",
    0x83: "Forbidden",
    NOT_FOUND: "Not Found",
    METHOD_NOT_ALLOWED: "Method Not Allowed",
    0x86: "Not Acceptable",
    INCOMPLETE: "Request Entity Incomplete",
    0x89: "Conflict",
    0x8C: "Precondition Failed",
    TOO_LARGE: "Request Entity Too Large",
    UNSUPPORTED_FORMAT: "Unsupported Content-Format",
    0x96: "Unprocessable Entity",
    0x9D: "Too Many Requests",
    0xA0: "Internal Server Error",
    0xA1: "Not Implemented",
    0xA2: "Bad Gateway",
    UNAVAILABLE: "Service Unavailable",
    0xA4: "Gateway Timeout",
    0xA5: "Proxying Not Supported",
}

Options = tuple[tuple[int, bytes], ...]
"""Number and value, by number; equal numbers in their order."""


class Broken(ValueError):
    """The bytes are no CoAP message. The text says why."""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One message, whatever carries it. ``type`` and ``id`` mean nothing on TCP."""

    code: int
    options: Options = ()
    payload: bytes = b""
    token: bytes = b""
    type: int = Type.NON
    id: int = 0

    @property
    def is_request(self) -> bool:
        return 0 < self.code < 0x20

    @property
    def is_response(self) -> bool:
        return 0x40 <= self.code < 0xC0

    @property
    def is_success(self) -> bool:
        return self.code >> 5 == 2

    def all(self, number: int) -> list[bytes]:
        """The values of an option that may be repeated."""
        return [value for at, value in self.options if at == number]

    def first(self, number: int) -> bytes | None:
        """The value of an option; None where it is not there."""
        for at, value in self.options:
            if at == number:
                return value
        return None

    def uint(self, number: int, most_bytes: int = 4) -> int | None:
        """The value of an option that is a number (3.2); None where it is not there, or longer than such a number is."""
        value = self.first(number)
        return None if value is None or len(value) > most_bytes else int.from_bytes(value, "big")

    def block(self, number: int) -> Block | None:
        """The value of Block1 or Block2."""
        value = self.uint(number, 3)
        return None if value is None else Block(number=value >> 4, more=bool(value & 8), exponent=value & 7)

    @property
    def path(self) -> tuple[str, ...]:
        """Uri-Path. Bytes that are no UTF-8 give what is no path of anybody's."""
        return tuple(part.decode("utf-8", "replace") for part in self.all(Option.URI_PATH))

    def but(self, *added: tuple[int, bytes], without: tuple[int, ...] = ()) -> Options:
        """The options with those of ``added`` in place of all of their number, and without those of ``without``."""
        out = {number for number, _ in added} | set(without)
        return ordered(*(each for each in self.options if each[0] not in out), *added)


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """Which part of a body a message carries (RFC 7959, 2.2). Exponent 7 means blocks of 1,024 bytes, several at once (RFC 8323, 6)."""

    number: int
    more: bool
    exponent: int

    @property
    def size(self) -> int:
        return 1 << min(self.exponent, 6) + 4

    @property
    def start(self) -> int:
        return self.number * self.size

    def fits(self, length: int) -> bool:
        """Whether a payload of ``length`` bytes can be this block."""
        if self.exponent == 7:
            return not self.more or (length > 0 and length % self.size == 0)
        return length == self.size if self.more else length <= self.size

    def option(self, number: int) -> tuple[int, bytes]:
        return number, uint(self.number << 4 | self.more << 3 | self.exponent)


def uint(value: int) -> bytes:
    """A number as an option has it (RFC 7252, 3.2)."""
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def ordered(*options: tuple[int, bytes]) -> Options:
    return tuple(sorted(options, key=lambda each: each[0]))


def said(code: int) -> str:
    """``4.04 Not Found``."""
    return f"{code >> 5}.{code & 31:02} {CODES.get(code, '')}".rstrip()


# ------------------------------------------------------------------------------------------------------------- options


def encode_rest(options: Options, payload: bytes) -> bytes:
    """Options and payload, as they follow the token (RFC 7252, 3.1)."""
    out, last = bytearray(), 0
    for number, value in options:
        delta, length = number - last, len(value)
        short_delta, more_delta = _extended(delta)
        short_length, more_length = _extended(length)
        out.append(short_delta << 4 | short_length)
        out += more_delta + more_length + value
        last = number
    if payload:
        out.append(0xFF)
        out += payload
    return bytes(out)


def _extended(value: int) -> tuple[int, bytes]:
    if value < 13:
        return value, b""
    if value < 269:
        return 13, bytes((value - 13,))
    return 14, (value - 269).to_bytes(2, "big")


def decode_rest(data: bytes, at: int = 0) -> tuple[Options, bytes]:
    """What :func:`encode_rest` gives, read from ``data[at:]``. Raises Broken."""
    options: list[tuple[int, bytes]] = []
    number, end = 0, len(data)
    while at < end:
        head = data[at]
        at += 1
        if head == 0xFF:
            if at == end:
                raise Broken("a payload is announced and not there")
            return tuple(options), data[at:]
        delta, at = _read_extended(head >> 4, data, at)
        length, at = _read_extended(head & 15, data, at)
        number += delta
        if at + length > end:
            raise Broken("an option is longer than what is left")
        if length > LONGEST_OPTION or number > MAX_OPTION_NUMBER or len(options) == MAX_OPTIONS:
            raise Broken(f"more than {MAX_OPTIONS} options, one of more than {LONGEST_OPTION} bytes, or one with an impossible number")
        options.append((number, data[at : at + length]))
        at += length
    return tuple(options), b""


def _read_extended(short: int, data: bytes, at: int) -> tuple[int, int]:
    if short < 13:
        return short, at
    size = short - 12
    if size == 3:
        raise Broken("an option begins with the reserved number 15")
    if at + size > len(data):
        raise Broken("it ends in the middle of an option")
    return int.from_bytes(data[at : at + size], "big") + (13 if size == 1 else 269), at + size


# ------------------------------------------------------------------------------------------------------------- UDP, TCP


def encode_udp(message: Message) -> bytes:
    """A datagram (RFC 7252, 3)."""
    token = message.token
    head = bytes((0x40 | message.type << 4 | len(token), message.code, message.id >> 8, message.id & 0xFF))
    return head + token + encode_rest(message.options, message.payload)


def decode_udp(data: bytes) -> Message:
    """Raises Broken."""
    if len(data) < 4:
        raise Broken("it is shorter than 4 bytes")
    head, code = data[0], data[1]
    size = head & 15
    if head >> 6 != 1:
        raise Broken(f"its version is {head >> 6}, not 1")
    if size > MAX_TOKEN or 4 + size > len(data):
        raise Broken("its token is longer than 8 bytes, or than what is left")
    if code == EMPTY and len(data) > 4:
        raise Broken("it is empty, and something follows")
    options, payload = decode_rest(data, 4 + size)
    return Message(
        code=code, options=options, payload=payload, token=data[4 : 4 + size], type=head >> 4 & 3, id=int.from_bytes(data[2:4], "big")
    )


def encode_tcp(message: Message) -> bytes:
    """A frame of a stream (RFC 8323, 3.2)."""
    rest = encode_rest(message.options, message.payload)
    size = len(rest)
    if size < 13:
        short, more = size, b""
    elif size < 269:
        short, more = 13, bytes((size - 13,))
    elif size < 65805:
        short, more = 14, (size - 269).to_bytes(2, "big")
    else:
        short, more = 15, (size - 65805).to_bytes(4, "big")
    return bytes((short << 4 | len(message.token),)) + more + bytes((message.code,)) + message.token + rest


class Frames:
    """A stream of bytes in, messages out: ``feed`` pieces of any size. Keeps at most one message of ``limit`` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept = bytearray()
        self._wanted = 2
        """Bytes below which it makes no sense to look again."""

    def feed(self, data: bytes) -> list[Message]:
        """The messages that are whole now. Raises Broken; the stream is out of step then."""
        self._kept += data
        found: list[Message] = []
        at = 0
        while len(self._kept) - at >= self._wanted:
            begin, token, size = self._head(at)
            if begin + token + size > len(self._kept):
                self._wanted = begin - at + token + size
                break
            found.append(self._message(begin, token, size))
            at, self._wanted = begin + token + size, 2
        if at:
            del self._kept[:at]
        return found

    def _head(self, at: int) -> tuple[int, int, int]:
        """Where the token begins, its length, and that of what follows it."""
        kept = self._kept
        short, token = kept[at] >> 4, kept[at] & 15
        more = (0, 1, 2, 4)[max(0, short - 12)]
        if len(kept) - at < 2 + more:
            return len(kept), 1, 0  # not whole yet: one byte more is wanted
        size = short if short < 13 else int.from_bytes(kept[at + 1 : at + 1 + more], "big") + (13, 269, 65805)[short - 13]
        if token > MAX_TOKEN:
            raise Broken("its token is longer than 8 bytes")
        if size > self._limit:
            raise Broken(f"it announces {size} bytes, and {self._limit} are the most that is taken")
        return at + 2 + more, token, size

    def _message(self, begin: int, token: int, size: int) -> Message:
        content = bytes(self._kept[begin + token : begin + token + size])
        options, payload = decode_rest(content)
        return Message(code=self._kept[begin - 1], options=options, payload=payload, token=bytes(self._kept[begin : begin + token]))
