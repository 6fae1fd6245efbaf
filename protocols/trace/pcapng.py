"""pcapng files: frames out, for Wireshark and for support, and frames in again. Pure: bytes and frames.

Written as draft-ietf-opsawg-pcapng says: a section header, one interface, an enhanced packet block for each packet with its
direction and, where something is wrong, a comment. Read are files of either byte order with several interfaces, so that a
capture made by tcpdump serves as well. Everything that a file claims about lengths has a limit.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from protocols.trace.packet import ETHERNET, Conversation, Segment, segment_of
from protocols.trace.ring import Frame, Way

MAX_FILE: Final = 64 * 1024**2
MAX_BLOCK: Final = 1024**2
MAX_INTERFACES: Final = 256
MAX_FRAMES: Final = 500_000
MAX_FLOWS: Final = 1000
MAX_COMMENT: Final = 1000

SECTION, INTERFACE, SIMPLE, ENHANCED = 0x0A0D0D0A, 1, 3, 6
_MAGIC: Final = 0x1A2B3C4D
_COMMENT, _NAME, _FLAGS, _RESOLUTION, _APPLICATION = 1, 2, 2, 9, 4
"""Option codes; what 2 and 4 mean depends on the block."""
_INBOUND, _OUTBOUND = 1, 2
_NANOSECONDS: Final = 9


class NoTrace(ValueError):
    """A file is no trace that can be read. The text says why."""


class Writer:
    """``Writer(name, port)``: ``head`` first, then ``frame(...)`` for each frame; the parts put together are the file."""

    def __init__(self, name: str, server_port: int) -> None:
        """``name`` is shown as the interface's; ``server_port`` is where a dissector looks for the protocol."""
        self._conversation = Conversation(server_port)
        section = struct.pack("<IHHq", _MAGIC, 1, 0, -1) + _options((_APPLICATION, b"holdfast"))
        interface = struct.pack("<HHI", ETHERNET, 0, 0) + _options(
            (_NAME, name.encode()[:MAX_COMMENT]), (_RESOLUTION, bytes((_NANOSECONDS,)))
        )
        self.head: Final = _block(SECTION, section) + _block(INTERFACE, interface)

    def frame(self, frame: Frame) -> bytes:
        """The blocks of one frame. Its trouble stands as a comment at its last packet."""
        packets = self._conversation.packets(frame)
        return b"".join(self._packet(packet, frame, at == len(packets) - 1) for at, packet in enumerate(packets))

    @staticmethod
    def _packet(packet: bytes, frame: Frame, is_last: bool) -> bytes:
        flags = _INBOUND if frame.way is Way.RECEIVED else _OUTBOUND
        comment = [(_COMMENT, _cut(frame.trouble))] if frame.trouble and is_last else []
        stamp = struct.pack("<IIIII", 0, frame.time_ns >> 32 & 0xFFFFFFFF, frame.time_ns & 0xFFFFFFFF, len(packet), len(packet))
        return _block(ENHANCED, stamp + _padded(packet) + _options(*comment, (_FLAGS, struct.pack("<I", flags))))


def _cut(text: str) -> bytes:
    return text.encode()[:MAX_COMMENT].decode(errors="ignore").encode()


def _padded(content: bytes) -> bytes:
    return content + b"\0" * (-len(content) % 4)


def _options(*options: tuple[int, bytes]) -> bytes:
    return b"".join(struct.pack("<HH", code, len(value)) + _padded(value) for code, value in options) + b"\0\0\0\0"


def _block(kind: int, body: bytes) -> bytes:
    length = struct.pack("<I", 12 + len(body))
    return struct.pack("<I", kind) + length + body + length


def written(frames: Iterator[Frame] | list[Frame], name: str, server_port: int) -> bytes:
    """A whole file."""
    writer = Writer(name, server_port)
    return writer.head + b"".join(writer.frame(frame) for frame in frames)


# ------------------------------------------------------------------------------------------------------------- reading


@dataclass(frozen=True, slots=True)
class Packet:
    time_ns: int
    link_type: int
    content: bytes
    comment: str = ""


@dataclass(slots=True)
class _Section:
    order: str
    interfaces: list[tuple[int, int]] = field(default_factory=list)
    """Link type and units of time a second."""


def packets(content: bytes) -> Iterator[Packet]:
    """The packets of a file, in its order. Raises NoTrace."""
    if len(content) > MAX_FILE:
        raise NoTrace(f"it has more than {MAX_FILE // 1024**2} MiB: cut the part that matters with Wireshark's editcap")
    section: _Section | None = None
    at = 0
    while at < len(content):
        if content[at : at + 4] == b"\n\r\r\n":
            section = _section(content, at)
        if section is None:
            raise NoTrace("it does not begin as a pcapng file does: save it as pcapng, or convert it with Wireshark's editcap -F pcapng")
        kind, body, at = _next(content, at, section.order)
        try:
            if kind == INTERFACE:
                _interface(section, body)
            elif kind in (ENHANCED, SIMPLE):
                yield _enhanced(section, body) if kind == ENHANCED else _simple(section, body)
        except (struct.error, IndexError) as error:
            raise NoTrace(f"the block that ends at byte {at} is broken ({error})") from None


def _section(content: bytes, at: int) -> _Section:
    for order in "<>":
        if content[at + 8 : at + 12] == struct.pack(order + "I", _MAGIC):
            return _Section(order)
    raise NoTrace("its section header is broken")


def _next(content: bytes, at: int, order: str) -> tuple[int, bytes, int]:
    """Kind and body of the block at ``at``, and where the next one begins."""
    if len(content) - at < 12:
        raise NoTrace(f"it ends in the middle of a block, at byte {at}")
    kind, length = struct.unpack_from(order + "II", content, at)
    if not 12 <= length <= MAX_BLOCK or length % 4:
        raise NoTrace(f"the block at byte {at} claims {length} bytes")
    if at + length > len(content):
        raise NoTrace(f"it ends in the middle of a block, at byte {at}")
    return kind, content[at + 8 : at + length - 4], at + length


def _interface(section: _Section, body: bytes) -> None:
    if len(section.interfaces) >= MAX_INTERFACES:
        raise NoTrace(f"it has more than {MAX_INTERFACES} interfaces")
    (link_type,) = struct.unpack_from(section.order + "H", body)
    resolution = _option(section, body[8:], _RESOLUTION)[:1] or b"\x06"
    power = resolution[0] & 0x7F
    if power > (60 if resolution[0] & 0x80 else 18):
        raise NoTrace("its time stamps are finer than any clock")
    section.interfaces.append((link_type, 2**power if resolution[0] & 0x80 else 10**power))


def _enhanced(section: _Section, body: bytes) -> Packet:
    interface, high, low, length, _ = struct.unpack_from(section.order + "IIIII", body)
    link_type, a_second = section.interfaces[interface]
    if length > len(body) - 20:
        raise IndexError("a packet longer than its block")
    comment = _option(section, body[20 + length + -length % 4 :], _COMMENT)
    time_ns = (high << 32 | low) * 10**9 // a_second
    return Packet(time_ns, link_type, body[20 : 20 + length], comment[:MAX_COMMENT].decode(errors="replace"))


def _simple(section: _Section, body: bytes) -> Packet:
    (length,) = struct.unpack_from(section.order + "I", body)
    return Packet(0, section.interfaces[0][0], body[4 : 4 + length])


def _option(section: _Section, options: bytes, wanted: int) -> bytes:
    """The value of the first option of a code; empty where there is none."""
    at = 0
    while at + 4 <= len(options):
        code, length = struct.unpack_from(section.order + "HH", options, at)
        if code == wanted:
            return options[at + 4 : at + 4 + length]
        if code == 0:
            break
        at += 4 + length + -length % 4
    return b""


@dataclass(slots=True)
class _Flow:
    """One direction of one conversation: what of its stream has been seen."""

    next: int | None = None

    def fresh(self, segment: Segment) -> bytes:
        """What of ``segment`` was not there before: what is sent again counts once."""
        if segment.opens:
            self.next = (segment.sequence + 1) & 0xFFFFFFFF
            return b""
        if self.next is None:
            self.next = segment.sequence
        known = (self.next - segment.sequence) & 0xFFFFFFFF
        if known >= 0x80000000:  # a packet is missing before this one: the capture lost it
            known = 0
        new = segment.content[known:]
        if new:
            self.next = (segment.sequence + len(segment.content)) & 0xFFFFFFFF
        return new


def frames(content: bytes) -> list[Frame]:
    """What passed, of all TCP conversations in the file: ``sent`` is what went to the side that did not begin.

    A comment on a packet without content is a note. Raises NoTrace.
    """
    flows: dict[tuple[tuple[bytes, int], tuple[bytes, int]], _Flow] = {}
    clients: dict[frozenset[tuple[bytes, int]], tuple[bytes, int]] = {}
    found: list[Frame] = []
    for packet in packets(content):
        segment = segment_of(packet.content, packet.link_type)
        if segment is None:
            continue
        if len(flows) >= MAX_FLOWS or len(found) >= MAX_FRAMES:
            raise NoTrace(f"it holds more than {MAX_FLOWS} conversations or {MAX_FRAMES} frames: cut the part that matters")
        new = flows.setdefault((segment.source, segment.target), _Flow()).fresh(segment)
        if segment.content or segment.opens:
            clients.setdefault(frozenset((segment.source, segment.target)), segment.source)
        if new or packet.comment:
            client = clients.get(frozenset((segment.source, segment.target)))
            way = Way.NOTE if not new else Way.SENT if segment.source == client else Way.RECEIVED
            found.append(Frame(packet.time_ns, way, new, packet.comment))
    return found
