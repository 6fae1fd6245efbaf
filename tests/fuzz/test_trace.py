"""Traces, greetings and displays from outside: files, datagrams and frames of any kind are refused as documented, or understood."""

from __future__ import annotations

import itertools
import struct

from protocols.clock import ManualClock
from protocols.discover import coap, opcua
from protocols.modbus.find import NotANumber, shown
from protocols.modbus.question import identity, reported
from protocols.modbus.trace import Cutter, Teller, are_rtu
from protocols.modbus.trace_replay import recording
from protocols.trace import pcapng
from protocols.trace.ring import Frame, Way
from tests.fuzz.campaign import frames, run, seed
from tests.fuzz.mutate import Mutator
from tests.peers.unit import rtu_frame, tcp_frame

COUNT = frames(4_000, 100_000)
PDUS = (
    bytes.fromhex("0300000002"),
    bytes.fromhex("030417254266"),
    bytes.fromhex("8302"),
    bytes.fromhex("0600010002"),
    bytes.fromhex("100001000204aabbccdd"),
    bytes.fromhex("110501ff414243"),
    bytes.fromhex("2b0e01010000020003414243010141"),
)
TCP = [tcp_frame(number, 1, pdu) for number, pdu in enumerate(PDUS)]
RTU = [rtu_frame(1, pdu) for pdu in PDUS]


def _talk(content: list[bytes]) -> list[Frame]:
    ways = itertools.cycle((Way.SENT, Way.RECEIVED))
    return [Frame(at, next(ways), one, "trouble" if at % 3 == 0 else "") for at, one in enumerate(content)]


def test_a_trace_file_is_read_or_refused() -> None:
    """What is read is played and told without an error, and is no more than the file."""
    number = seed()
    mutator = Mutator(number, [pcapng.written(_talk(TCP), "line", 502), pcapng.written(_talk(RTU), "line", 4001)], longest=4000)

    def judge(content: bytes) -> None:
        try:
            read = pcapng.frames(content)
        except pcapng.NoTrace:
            return
        assert sum(len(frame.content) for frame in read) <= len(content)
        teller = Teller(is_rtu=are_rtu(read))
        for frame in read:
            assert len(teller.tell(frame)) < 2000
        made = recording(read)
        for unit_id, pdu in made.answers:
            made.answer(unit_id, pdu)

    run("trace-pcapng", mutator.make, judge, seed=number, count=COUNT)


def test_whatever_comes_over_a_wire_is_cut_and_nothing_is_lost() -> None:
    """The frames put together are the bytes that came, in order, for either framing, however they are torn."""
    number = seed()
    mutator = Mutator(number, [*TCP, *RTU, b"".join(TCP), b"".join(RTU)], longest=1200)

    def judge(content: bytes) -> None:
        for is_rtu in (False, True):
            cut: list[Frame] = []
            cutter = Cutter(cut.append, ManualClock(), is_rtu=is_rtu)
            cutter.sent(b"")
            at = mutator.dice.randrange(len(content) + 1)
            for piece in (content[:at], content[at:]):
                cutter.received(piece)
            cutter.trouble("the end")
            assert b"".join(frame.content for frame in cut) == content
            teller = Teller(is_rtu=is_rtu)
            for frame in cut:
                teller.tell(frame)

    run("trace-cutter", mutator.make, judge, seed=number, count=COUNT)


def test_a_coap_datagram_is_understood_or_refused() -> None:
    number = seed()
    listed = b'</sensors/temp>;rt="temperature-c";if="sensor",</t>;ct=40,</x>;obs;title="a, b"'
    whole = coap.Message(2, 0x45, 7, b"abcd", ((12, b"\x28"), (23, b"\x06")), listed)
    mutator = Mutator(number, [coap.encoded(whole), listed], longest=1500)

    def judge(content: bytes) -> None:
        try:
            message = coap.decoded(content)
        except coap.Broken:
            message = None
        assert message is None or len(message.payload) <= len(content)
        assert len(coap.links(content.decode("utf-8", "replace"))) <= coap.MAX_LINKS

    run("discover-coap", mutator.make, judge, seed=number, count=COUNT)


def _endpoint() -> bytes:
    def text(value: str) -> bytes:
        return struct.pack("<i", len(value)) + value.encode()

    server = (
        text("urn:x")
        + text("urn:y")
        + b"\x02"
        + text("Name")
        + struct.pack("<I", 0)
        + 2 * text("")
        + struct.pack("<i", 1)
        + text("opc.tcp://h:1")
    )
    policy = struct.pack("<I", 3) + text("http://opcfoundation.org/UA/SecurityPolicy#Basic256Sha256")
    users = struct.pack("<i", 1) + text("a") + struct.pack("<I", 1) + 3 * text("")
    return text("opc.tcp://h:1") + server + struct.pack("<i", 4) + b"cert" + policy + users + text("binary") + b"\x03"


def test_what_an_opcua_server_says_of_its_endpoints_is_understood_or_refused() -> None:
    number = seed()
    head = b"\x01\x00" + struct.pack("<H", 431) + struct.pack("<qIIB", 0, 1, 0, 0) + struct.pack("<i", 0) + b"\0\0\0"
    mutator = Mutator(number, [head + struct.pack("<i", 2) + 2 * _endpoint()], longest=3000)
    assert len(opcua.offered(head + struct.pack("<i", 2) + 2 * _endpoint())) == 2

    def judge(content: bytes) -> None:
        try:
            found = opcua.offered(content)
        except opcua.NotOpcUa:
            return
        assert len(found) <= opcua.MAX_ENDPOINTS
        assert all(candidate.detail.isprintable() for candidate in found)

    run("discover-opcua", mutator.make, judge, seed=number, count=COUNT)


def test_what_a_device_says_of_itself_is_printable() -> None:
    number = seed()
    mutator = Mutator(number, [PDUS[5], PDUS[6]], longest=260)

    def judge(content: bytes) -> None:
        names, more = identity(content)
        assert 0 <= more <= 255
        assert all(text.isprintable() for text in names.values())
        assert reported(content).isprintable()

    run("modbus-identity", mutator.make, judge, seed=number, count=COUNT)


def test_whatever_is_typed_for_a_display_is_a_number_or_refused() -> None:
    number = seed()
    mutator = Mutator(number, [b"230.4 V", b"-1,234.5", b"12 345,67 kWh", "−7 °C".encode()], longest=60)

    def judge(content: bytes) -> None:
        try:
            reading = shown(content.decode("utf-8", "replace"))
        except NotANumber:
            return
        assert reading.value
        assert 0 <= reading.decimals <= 40

    run("modbus-display", mutator.make, judge, seed=number, count=COUNT)
