"""pcapng files: read by a small parser written apart from ours, by tshark where it is installed, and by ourselves."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocols.trace.packet import Segment, segment_of
from protocols.trace.pcapng import MAX_FILE, NoTrace, Writer, frames, packets, written
from protocols.trace.ring import Frame, Way

NOW = 1_700_000_000_123_456_789
ASKED = bytes.fromhex("000100000006010300000002")
ANSWERED = bytes.fromhex("00010000000701030443666666")
TALK = [
    Frame(NOW, Way.SENT, ASKED),
    Frame(NOW + 5_000_000, Way.RECEIVED, ANSWERED),
    Frame(NOW + 10_000_000, Way.SENT, bytes.fromhex("000200000006010300640001")),
    Frame(NOW + 12_000_000, Way.RECEIVED, bytes.fromhex("000200000003018302"), "exception 2, illegal data address"),
    Frame(NOW + 20_000_000, Way.SENT, bytes.fromhex("000300000006070300000001")),
    Frame(NOW + 1_020_000_000, Way.NOTE, b"", "unit id 7 did not answer"),
]


def test_what_was_written_is_read_again() -> None:
    """Moments to the nanosecond, directions, content, troubles."""
    assert frames(written(TALK, "line", 502)) == TALK


def test_a_long_frame_is_cut_into_packets_and_read_as_its_pieces() -> None:
    long = Frame(NOW, Way.RECEIVED, bytes(range(256)) * 300)
    read = frames(written([TALK[0], long], "line", 502))[1:]
    assert b"".join(frame.content for frame in read) == long.content


# ------------------------------------------------------------------------------------ a parser written apart from ours


def _blocks(content: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(content):
        kind, length = struct.unpack_from("<II", content, at)
        assert length % 4 == 0
        assert struct.unpack_from("<I", content, at + length - 4) == (length,), "the length stands at both ends"
        yield kind, content[at + 8 : at + length - 4]
        at += length


def _sum(content: bytes) -> int:
    total = 0
    for at in range(0, len(content), 2):
        total += (content[at] << 8) + (content[at + 1] if at + 1 < len(content) else 0)
        total = (total & 0xFFFF) + (total >> 16)
    return total


def test_the_file_is_what_the_specification_says() -> None:
    """Blocks, time stamps, IP and TCP checksums, and sequence numbers without a gap."""
    blocks = list(_blocks(written(TALK, "line", 502)))
    assert [kind for kind, _ in blocks] == [0x0A0D0D0A, 1, *[6] * (3 + len(TALK))], "section, interface, handshake, frames"
    assert blocks[0][1][:8] == struct.pack("<IHH", 0x1A2B3C4D, 1, 0)
    expected = {49152: None, 502: None}
    stamps = []
    for _, body in blocks[2:]:
        _, high, low, captured, original = struct.unpack_from("<IIIII", body)
        packet = body[20 : 20 + captured]
        stamps.append(high << 32 | low)
        assert captured == original == len(packet)
        assert packet[12:14] == b"\x08\x00"
        ip, total = packet[14:34], struct.unpack_from(">H", packet, 16)[0]
        assert (_sum(ip), total) == (0xFFFF, captured - 14), "a right checksum makes the sum all ones"
        tcp = packet[34:]
        assert _sum(ip[12:20] + struct.pack(">HH", 6, len(tcp)) + tcp) == 0xFFFF
        source, _, sequence = struct.unpack_from(">HHI", tcp)
        assert expected[source] in (None, sequence), "the stream has no gap"
        expected[source] = sequence + len(tcp) - 20 + (tcp[13] & 2) // 2
    assert stamps == [NOW] * 3 + [frame.time_ns for frame in TALK]


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed (120 MB); the parser above is always asked")
def test_wireshark_dissects_modbus_tcp(tmp_path: Path) -> None:
    """tshark finds requests, answers and the exception, and shows what is wrong as a comment."""
    file = tmp_path / "talk.pcapng"
    file.write_bytes(written(TALK, "line", 502))
    done = subprocess.run(["tshark", "-r", str(file), "-T", "json", "-Y", "mbtcp"], capture_output=True, check=True, timeout=120)
    layers = [packet["_source"]["layers"] for packet in json.loads(done.stdout)]
    assert [layer["mbtcp"]["mbtcp.trans_id"] for layer in layers] == ["1", "1", "2", "2", "3"]
    assert [layer["mbtcp"]["mbtcp.unit_id"] for layer in layers] == ["1", "1", "1", "1", "7"]
    assert "17254" in json.dumps(layers[1]["modbus"])
    assert "modbus.exception_code" in json.dumps(layers[3]["modbus"])
    wrong = subprocess.run(["tshark", "-r", str(file), "-Y", "frame.comment"], capture_output=True, text=True, check=True, timeout=120)
    assert len(wrong.stdout.splitlines()) == 2, "the exception and the answer that did not come"


# ------------------------------------------------------------------------------------------------ captures of other tools


def _block(kind: int, body: bytes, order: str) -> bytes:
    length = struct.pack(order + "I", 12 + len(body))
    return struct.pack(order + "I", kind) + length + body + length


def _capture(order: str, link_type: int, *packets_: bytes) -> bytes:
    """As tcpdump writes it: microseconds, and no options."""
    head = _block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order) + _block(
        1, struct.pack(order + "HHI", link_type, 0, 262144), order
    )
    body = b""
    for at, packet in enumerate(packets_):
        stamp = struct.pack(order + "IIIII", 0, 0, 1_000_000 + at, len(packet), len(packet))
        body += _block(6, stamp + packet + bytes(-len(packet) % 4), order)
    return head + body


def _ip(packet: bytes) -> bytes:
    return packet[14:]


def _ours() -> list[bytes]:
    return [packet.content for packet in packets(written(TALK[:2], "line", 502))]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("link_type", "head"),
    [
        (1, bytes(12) + b"\x08\x00"),
        (1, bytes(12) + b"\x81\x00\x00\x07\x08\x00"),
        (101, b""),
        (113, bytes(16)),
        (0, b"\2\0\0\0"),
        (276, bytes(20)),
    ],
)
def test_captures_of_other_tools_are_read(order: str, link_type: int, head: bytes) -> None:
    """Either byte order; Ethernet, VLAN, raw IP, Linux cooked, loopback."""
    capture = _capture(order, link_type, *(head + _ip(packet) for packet in _ours()))
    read = frames(capture)
    assert [(frame.way, frame.content) for frame in read] == [(Way.SENT, ASKED), (Way.RECEIVED, ANSWERED)]
    assert read[0].time_ns == 1_000_003_000


def test_a_capture_that_begins_in_the_middle_still_tells_who_asked() -> None:
    """No handshake: whoever speaks first is the client."""
    capture = _capture("<", 1, *_ours()[3:])
    assert [frame.way for frame in frames(capture)] == [Way.SENT, Way.RECEIVED]


def test_what_was_sent_again_counts_once() -> None:
    *head, asked, answered = _ours()
    assert len(frames(_capture("<", 1, *head, asked, asked, answered, asked))) == 2


def test_ip_version_6_is_read() -> None:
    tcp = _ours()[3][34:]
    packet = bytes(12) + b"\x86\xdd" + struct.pack(">IHBB", 6 << 28, len(tcp), 6, 64) + bytes(16) + bytes([1] * 16) + tcp
    found = segment_of(packet, 1)
    assert isinstance(found, Segment)
    assert found.content == ASKED


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\xd4\xc3\xb2\xa1" + bytes(20), "editcap -F pcapng"),
        (b"\n\r\r\n" + bytes(20), "section header"),
        (Writer("line", 502).head[:-2], "middle of a block"),
        (Writer("line", 502).head + struct.pack("<III", 6, 8, 8), "claims 8 bytes"),
        (Writer("line", 502).head + struct.pack("<IIII", 6, 16, 0, 16), "is broken"),
        (Writer("line", 502).head + struct.pack("<II", 6, 2**31) + bytes(64), "claims"),
        (bytes(MAX_FILE + 1), "MiB"),
    ],
    ids=["old pcap", "no magic", "cut", "short block", "no packet", "huge block", "huge file"],
)
def test_what_is_no_trace_is_refused_with_the_reason(content: bytes, says: str) -> None:
    with pytest.raises(NoTrace, match=says):
        frames(content)
