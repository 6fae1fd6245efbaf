"""What passes on a real wire is recorded frame by frame, told in words, kept, and played again as the device it was."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from protocols.clock import ManualClock, SystemClock
from protocols.contract import Unreachable
from protocols.modbus.address import Table
from protocols.modbus.config import AnyConnection
from protocols.modbus.driver import RTU, RTU_OVER_TCP, TCP
from protocols.modbus.line import Missed
from protocols.modbus.question import read
from protocols.modbus.scan import OwnLine
from protocols.modbus.trace import Cutter, Teller, are_rtu, exception_of
from protocols.modbus.trace_replay import Recording, recording, serving
from protocols.trace import pcapng
from protocols.trace.ring import Frame, Way
from protocols.trace.wire import Askable, Recordable
from tests.peers.libmodbus import LibmodbusServer, registers
from tests.peers.unit import Unit, rtu_frame, tcp_frame
from tests.peers.wire import Wire
from tests.protocols.modbus.plc import Plc, device, options, tag, values

TAGS = (tag("holding:0", "float32"), tag("input:10", "uint32"))
DRIVERS = {"modbus-tcp": TCP, "modbus-rtu-tcp": RTU_OVER_TCP, "modbus-rtu": RTU}


async def recorded(connection: AnyConnection, enough: int) -> list[Frame]:
    """The first ``enough`` frames of a session, and its end where it ends before."""
    frames: list[Frame] = []
    async with DRIVERS[connection.__struct_config__.tag].open(connection, clock=SystemClock()) as session:  # type: ignore[index]  # never None
        assert isinstance(session, Recordable)
        session.record(frames.append)
        async with asyncio.timeout(20), aclosing(session.batches()) as batches:  # type: ignore[type-var]  # a generator in truth
            try:
                async for _ in batches:
                    if len(frames) >= enough:
                        break
            except Unreachable:
                return frames
    return frames


def ways(frames: list[Frame]) -> str:
    return "".join({Way.SENT: ">", Way.RECEIVED: "<", Way.NOTE: "!"}[frame.way] for frame in frames)


def told(frames: list[Frame]) -> list[str]:
    teller = Teller(is_rtu=are_rtu(frames))
    return [teller.tell(frame) for frame in frames]


# ------------------------------------------------------------------------------------------------------- on real wires


@pytest.mark.parametrize(("framing", "kind"), [("tcp", "modbus-tcp"), ("rtu-tcp", "modbus-rtu-tcp")])
async def test_requests_and_answers_are_recorded_in_order(framing: Any, kind: str) -> None:
    """libmodbus's server; the words name table, place and content."""
    async with LibmodbusServer(units=[1], framing=framing) as server:
        await server.set(1, "holding", 0, *registers("f", 230.4))
        frames = await recorded(options(kind, port=server.port, devices=[device(*TAGS, scan_s=0.02)]), 8)
    assert ways(frames[:8]) == "><><><><"
    assert all(not frame.trouble for frame in frames)
    assert are_rtu(frames) is (framing == "rtu-tcp")
    assert "< unit 1 holding 0..1: 17254 26214" in told(frames)
    assert "> unit 1 read input 10..11" in told(frames)


async def test_a_serial_line_is_recorded_whole_though_it_comes_in_pieces() -> None:
    with Wire({3: Unit(holding={0: 7})}, baud=19200, bits=10) as wire:
        line = options("modbus-rtu", serial_port=wire.path, parity="none", devices=[device(tag("holding:0"), unit_id=3, scan_s=0.05)])
        frames = await recorded(line, 4)
    assert told(frames[:2]) == ["> unit 3 read holding 0", "< unit 3 holding 0: 7"]


async def test_an_exception_is_trouble() -> None:
    async with LibmodbusServer(units=[1]) as server:
        await server.hole(1, "holding", 0, 10)
        frames = await recorded(options(port=server.port, devices=[device(tag("holding:0"), scan_s=0.02)]), 2)
    assert frames[1].trouble == "exception 2, illegal data address"
    assert told(frames[:2])[1] == "< unit 1 exception 2, illegal data address, to read holding 0"


async def test_a_missing_answer_is_trouble() -> None:
    async with LibmodbusServer(units=[1]) as server:
        await server.silent(1)
        frames = await recorded(options(port=server.port, timeout_s=0.05, devices=[device(tag("holding:0"), scan_s=0.02)]), 4)
    assert ways(frames[:2]) == ">!"
    assert "did not answer within 0.05 s" in frames[1].trouble


async def test_a_wrong_checksum_is_trouble_and_its_bytes_are_kept() -> None:
    plc = Plc(1)
    plc.send = lambda frame: [frame[:-1] + bytes((frame[-1] ^ 1,))]
    async with plc.serve("rtu") as port:
        line = options("modbus-rtu-tcp", port=port, timeout_s=0.2, settle_s=0.0, devices=[device(tag("holding:0"), scan_s=0.02)])
        frames = await recorded(line, 3)
    assert ways(frames[:3]) == "><!"
    assert frames[1].trouble == "no whole frame, or a wrong checksum"
    assert "wrong checksum" in frames[2].trouble


async def test_a_connection_that_ends_is_trouble_and_our_own_end_is_none() -> None:
    async with LibmodbusServer(units=[1]) as server:
        connection = options(port=server.port, devices=[device(tag("holding:0"), scan_s=0.02)])
        frames: list[Frame] = []
        async with TCP.open(connection, clock=SystemClock()) as session:
            session.record(frames.append)
            batches = session.batches()
            async with asyncio.timeout(20):
                await anext(batches)
                await server.kick()
                with pytest.raises(Unreachable):
                    await anext(batches)
        assert "closed by the peer" in frames[-1].trouble
        again = await recorded(connection, 2)
        assert not any(frame.trouble for frame in again)


async def test_who_stops_recording_hears_no_more() -> None:
    async with LibmodbusServer(units=[1]) as server:
        connection = options(port=server.port, devices=[device(tag("holding:0"), scan_s=0.02)])
        frames: list[Frame] = []
        async with TCP.open(connection, clock=SystemClock()) as session:
            session.record(frames.append)
            count, left = 0, 5
            async with asyncio.timeout(20):
                async for _ in session.batches():
                    if frames and count == 0:
                        session.record(None)
                        count = len(frames)
                    left -= count > 0
                    if not left:
                        break
        assert len(frames) == count


async def test_a_session_carries_questions_that_read_and_no_others() -> None:
    async with LibmodbusServer(units=[1]) as server:
        await server.set(1, "input", 5, 99)
        async with TCP.open(options(port=server.port, timeout_s=0.1), clock=SystemClock()) as session:
            assert isinstance(session, Askable)
            assert (await session.ask(1, bytes.fromhex("0400050001"))).content == bytes.fromhex("04020063")
            assert (await session.ask(9, bytes.fromhex("0400050001"))).missed == "timeout"
            refused = await session.ask(1, bytes.fromhex("0600050001"))
            assert (refused.missed, refused.content) == ("refused", b"")
        assert (await session.ask(1, bytes.fromhex("0400050001"))).missed == "closed"
        assert {request.function for request in await server.requests()} == {4}


# ------------------------------------------------------------------------------------------------------------ the cutter


def cut(pieces: list[bytes], *, rtu: bool) -> list[Frame]:
    frames: list[Frame] = []
    cutter = Cutter(frames.append, ManualClock(), is_rtu=rtu)
    cutter.received(b"the end of an answer that was on its way")
    cutter.sent(b"\1")
    for piece in pieces:
        cutter.received(piece)
    cutter.sent(b"\1")
    return frames[1:-1]


ANSWERS = (
    bytes.fromhex("0304000a000b"),
    bytes.fromhex("8302"),
    bytes.fromhex("0601020003"),
    bytes.fromhex("1001020003"),
    bytes.fromhex("1600040012ffee"),
    bytes.fromhex("11050102ff4142"),
    bytes.fromhex("2b0e01010000020001410102") + b"BC",
)


@pytest.mark.parametrize("rtu", [False, True], ids=["tcp", "rtu"])
@pytest.mark.parametrize("pdu", ANSWERS, ids=lambda pdu: f"function {pdu[0]}")
def test_answers_are_cut_wherever_they_are_torn(pdu: bytes, rtu: bool) -> None:
    """Whole, byte by byte, torn at each place, and two in one piece."""
    frame = rtu_frame(7, pdu) if rtu else tcp_frame(9, 7, pdu)
    torn = [[frame], [frame[at : at + 1] for at in range(len(frame))], *([frame[:at], frame[at:]] for at in range(1, len(frame)))]
    for pieces in torn:
        assert [each.content for each in cut(pieces, rtu=rtu)] == [frame]
    assert [each.content for each in cut([frame + frame], rtu=rtu)] == [frame, frame]


@pytest.mark.parametrize("rtu", [False, True], ids=["tcp", "rtu"])
def test_rubbish_is_kept_as_it_came(rtu: bool) -> None:
    (frame,) = cut([b"\x05HTTP/1.1", b" 400", b" Bad Request"], rtu=rtu)
    assert (frame.content, frame.trouble) == (b"\x05HTTP/1.1 400 Bad Request", "no whole frame, or a wrong checksum")


@pytest.mark.parametrize("rtu", [False, True], ids=["tcp", "rtu"])
def test_rubbish_without_end_is_kept_in_bounded_portions(rtu: bool) -> None:
    frames = cut([b"\xa5" * 1000] * 100, rtu=rtu)
    assert b"".join(frame.content for frame in frames) == b"\xa5" * 100_000
    assert max(len(frame.content) for frame in frames) < 6000


def test_half_a_frame_is_kept_when_the_next_request_goes_out() -> None:
    (frame,) = cut([rtu_frame(7, ANSWERS[0])[:5]], rtu=True)
    assert frame.content == rtu_frame(7, ANSWERS[0])[:5]


def test_exceptions_are_named() -> None:
    assert exception_of(rtu_frame(1, b"\x83\x02"), is_rtu=True) == "exception 2, illegal data address"
    assert exception_of(tcp_frame(1, 1, b"\x83\x0b"), is_rtu=False).startswith("exception 11")
    assert exception_of(tcp_frame(1, 1, b"\x83\x63"), is_rtu=False) == "exception 99, unknown"
    assert exception_of(rtu_frame(1, ANSWERS[0]), is_rtu=True) == ""


@pytest.mark.parametrize(
    ("pdu", "words"),
    [
        ("0600050102", "write holding 5: 258"),
        ("10000500020400010002", "write holding 5..6: 1 2"),
        ("0f000500030107", "write coil 5..7: 07"),
        ("0100050003", "read coil 5..7"),
        ("11", "function 17: "),
    ],
)
def test_requests_are_told_in_words(pdu: str, words: str) -> None:
    frame = Frame(0, Way.SENT, tcp_frame(1, 9, bytes.fromhex(pdu)))
    assert Teller(is_rtu=False).tell(frame) == f"> unit 9 {words}"


# ------------------------------------------------------------------------------------------------------------ the replay


def exchange(transaction: int, asked: bytes, answer: bytes | None) -> list[Frame]:
    sent = Frame(0, Way.SENT, tcp_frame(transaction, 7, asked))
    return [sent] if answer is None else [sent, Frame(0, Way.RECEIVED, tcp_frame(transaction, 7, answer))]


READ = bytes.fromhex("0300000001")
OTHER = bytes.fromhex("0300640001")
SEVEN, EIGHT = bytes.fromhex("03020007"), bytes.fromhex("03020008")


def test_answers_are_given_in_turn_and_from_the_front_again() -> None:
    made = recording([*exchange(1, READ, SEVEN), *exchange(2, OTHER, b"\x83\x02"), *exchange(3, READ, EIGHT)])
    assert [made.answer(7, READ) for _ in range(3)] == [SEVEN, EIGHT, SEVEN]
    assert made.answer(7, OTHER) == b"\x83\x02"
    assert made.answer(7, bytes.fromhex("0400000001")) == b"\x84\x02", "never asked: illegal data address"
    assert made.answer(8, READ) is None, "a unit id that never answered stays silent"


def test_silence_is_played_again() -> None:
    """A request without its answer before the next of the same transaction, as on a serial line."""
    frames = [
        Frame(0, Way.SENT, rtu_frame(7, READ)),
        Frame(0, Way.NOTE, trouble="unit id 7 did not answer"),
        Frame(0, Way.SENT, rtu_frame(7, READ)),
        Frame(0, Way.RECEIVED, rtu_frame(7, SEVEN)),
        Frame(0, Way.RECEIVED, b"\xff\xff"),
    ]
    made = recording(frames)
    assert [made.answer(7, READ) for _ in range(2)] == [None, SEVEN]
    assert made.unused == 1


async def asked(port: int, *, rtu: bool = False) -> list[bytes]:
    line = OwnLine(options("modbus-rtu-tcp" if rtu else "modbus-tcp", port=port, timeout_s=0.2, settle_s=0.0))
    try:
        return [await line.ask(read(7, Table.HOLDING, 0)) for _ in range(2)]
    finally:
        await line.close()


@pytest.mark.parametrize("rtu", [False, True], ids=["tcp", "rtu"])
async def test_a_recorded_device_answers_again_in_either_framing(rtu: bool) -> None:
    made = recording([*exchange(1, READ, SEVEN), *exchange(2, READ, EIGHT)])
    async with serving(made, as_rtu=rtu) as port:
        assert await asked(port, rtu=rtu) == [SEVEN, EIGHT]


async def test_what_is_no_request_ends_that_client_and_no_other() -> None:
    made = recording(exchange(1, READ, SEVEN))
    async with serving(made) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        async with asyncio.timeout(10):
            assert await reader.read() == b""
        writer.close()
        assert await asked(port) == [SEVEN, SEVEN]


async def test_a_trace_of_a_device_reads_as_the_device_did() -> None:
    """From libmodbus's server to a pcapng file, and from that file to the driver again: the same values."""
    async with LibmodbusServer(units=[1]) as server:
        await server.set(1, "holding", 0, *registers("f", 230.4))
        await server.set(1, "input", 10, *registers("I", 70_000))
        frames = await recorded(options(port=server.port, devices=[device(*TAGS, scan_s=0.02)]), 8)
    made = recording(pcapng.frames(pcapng.written(frames, "line", 502)))
    async with serving(made) as port:
        connection = options(port=port, devices=[device(*TAGS, scan_s=0.02)])
        batches = []
        async with TCP.open(connection, clock=SystemClock()) as session, asyncio.timeout(20):
            async for batch in session.batches():
                batches.append(batch)
                if len(batches) == 2:
                    break
    assert values(batches) == {"holding:0": pytest.approx(230.4, rel=1e-6), "input:10": 70_000}


async def test_recorded_silence_is_silence() -> None:
    made = Recording(answers={(7, READ): [None]}, units={7})
    async with serving(made) as port:
        line = OwnLine(options(port=port, timeout_s=0.1))
        with pytest.raises(Missed):
            await line.ask(read(7, Table.HOLDING, 0))
        await line.close()


def test_a_frame_that_could_be_either_kind_is_taken_as_the_others_are() -> None:
    """An RTU read of two registers at 0 has just the length that a Modbus TCP header would say."""
    ambiguous = rtu_frame(1, bytes.fromhex("0300000002"))
    frames = [Frame(0, Way.SENT, ambiguous), Frame(0, Way.RECEIVED, rtu_frame(1, bytes.fromhex("030417254266")))]
    assert are_rtu(frames)
    made = recording([Frame(0, Way.SENT, ambiguous), Frame(0, Way.RECEIVED, rtu_frame(1, bytes.fromhex("03040001ffff")))])
    assert list(made.answers) == [(1, bytes.fromhex("0300000002"))]
    assert not are_rtu([Frame(0, Way.SENT, tcp_frame(1, 1, READ))])
