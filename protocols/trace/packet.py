"""Frames as packets of a TCP conversation that never was, so that Wireshark's dissectors know them; and back. Pure.

Ethernet, IPv4 and TCP headers with right lengths, checksums and sequence numbers (RFC 791, RFC 9293) are put before each
frame. The addresses are those set aside for documentation (RFC 5737): a trace tells nothing about the site's network.
Reading takes packets of real captures as well: Ethernet with VLAN tags, Linux cooked, raw IP, loopback; IPv4 and IPv6.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from protocols.trace.ring import Frame, Way

CLIENT: Final = bytes((192, 0, 2, 1))
SERVER: Final = bytes((192, 0, 2, 2))
_CLIENT_MAC: Final = bytes.fromhex("02000000c001")
_SERVER_MAC: Final = bytes.fromhex("02000000c002")
FIRST_PORT: Final = 49152
SYN, ACK, PSH = 0x02, 0x10, 0x08
MAX_SEGMENT: Final = 32 * 1024
"""Longer frames are cut: an IPv4 packet has 65,535 bytes at most."""

ETHERNET: Final = 1
_IP_AT: Final = {0: 4, 101: 0, 113: 16, 228: 0, 229: 0, 276: 20}
"""Where the IP header begins, by link type (tcpdump.org/linktypes): loopback, raw IP, Linux cooked, raw IPv4, raw IPv6, cooked 2."""
_VLAN: Final = (0x8100, 0x88A8)
_TCP: Final = 6


class Conversation:
    """Makes packets of frames: ``packets(frame)``, in order. Begins with the handshake."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._sequence = {True: 1000, False: 5000}
        """Next sequence number, by whether the client talks."""
        self._begun = False

    def packets(self, frame: Frame) -> list[bytes]:
        """Ethernet frames that carry ``frame``; a note is a segment without content."""
        before = [] if self._begun else self._handshake()
        self._begun = True
        by_client = frame.way is not Way.RECEIVED
        pieces = [frame.content[at : at + MAX_SEGMENT] for at in range(0, len(frame.content), MAX_SEGMENT)] or [b""]
        return before + [self._segment(by_client, PSH | ACK if piece else ACK, piece) for piece in pieces]

    def _handshake(self) -> list[bytes]:
        opening = [self._segment(True, SYN, b"", acknowledges=False), self._segment(False, SYN | ACK, b"", ahead=1)]
        self._sequence = {side: number + 1 for side, number in self._sequence.items()}
        return [*opening, self._segment(True, ACK, b"")]

    def _segment(self, by_client: bool, flags: int, content: bytes, *, acknowledges: bool = True, ahead: int = 0) -> bytes:
        sequence, acknowledged = self._sequence[by_client], self._sequence[not by_client] + ahead if acknowledges else 0
        self._sequence[by_client] = (sequence + len(content)) & 0xFFFFFFFF
        ends = ((CLIENT, FIRST_PORT), (SERVER, self._server_port))
        (source, source_port), (target, target_port) = ends if by_client else ends[::-1]
        header = struct.pack(">HHIIBBHHH", source_port, target_port, sequence, acknowledged, 5 << 4, flags, 65535, 0, 0)
        length = len(header) + len(content)
        check = _checksum(source + target + struct.pack(">BBH", 0, _TCP, length) + header + content)
        tcp = header[:16] + check.to_bytes(2, "big") + header[18:] + content
        macs = _SERVER_MAC + _CLIENT_MAC if by_client else _CLIENT_MAC + _SERVER_MAC
        return macs + b"\x08\x00" + _ipv4(source, target, length) + tcp


def _ipv4(source: bytes, target: bytes, length: int) -> bytes:
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + length, 0, 0x4000, 64, _TCP, 0) + source + target
    return header[:10] + _checksum(header).to_bytes(2, "big") + header[12:]


def _checksum(content: bytes) -> int:
    """RFC 1071."""
    padded = content + b"\0" * (len(content) % 2)
    total: int = sum(struct.unpack(f">{len(padded) // 2}H", padded))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@dataclass(frozen=True, slots=True)
class Segment:
    """What one packet says: from whom to whom, at which place of the stream, which bytes."""

    source: tuple[bytes, int]
    target: tuple[bytes, int]
    sequence: int
    opens: bool
    """SYN: the stream begins here."""
    content: bytes


def segment_of(packet: bytes, link_type: int) -> Segment | None:
    """The TCP segment in ``packet``; None where there is none, or not the whole of it."""
    at = _ip_at(packet, link_type)
    if at is None or at >= len(packet):
        return None
    try:
        return _of_ipv4(packet[at:]) if packet[at] >> 4 == 4 else _of_ipv6(packet[at:]) if packet[at] >> 4 == 6 else None
    except (struct.error, IndexError):
        return None


def _ip_at(packet: bytes, link_type: int) -> int | None:
    if link_type != ETHERNET:
        return _IP_AT.get(link_type)
    at = 12
    for _ in range(3):
        kind = int.from_bytes(packet[at : at + 2], "big")
        if kind not in _VLAN:
            return at + 2 if kind in (0x0800, 0x86DD) else None
        at += 4
    return None


def _of_ipv4(packet: bytes) -> Segment | None:
    header, total, fragment = 4 * (packet[0] & 15), *struct.unpack_from(">H2xH", packet, 2)
    if packet[9] != _TCP or fragment & 0x3FFF or header < 20 or total > len(packet):
        return None
    return _of_tcp(packet[12:16], packet[16:20], packet[header:total])


def _of_ipv6(packet: bytes) -> Segment | None:
    (length,) = struct.unpack_from(">H", packet, 4)
    if packet[6] != _TCP or 40 + length > len(packet):
        return None
    return _of_tcp(packet[8:24], packet[24:40], packet[40 : 40 + length])


def _of_tcp(source: bytes, target: bytes, segment: bytes) -> Segment | None:
    source_port, target_port, sequence = struct.unpack_from(">HHI", segment)
    header, flags = 4 * (segment[12] >> 4), segment[13]
    if not 20 <= header <= len(segment):
        return None
    return Segment((source, source_port), (target, target_port), sequence, bool(flags & SYN), segment[header:])
