"""Modbus answers: frames, then whole sessions (line, plan, decoding, commands) on a wire that spoils what passes.

Over RTU, whose frames have a checksum, no wrong value and no wrong outcome of a command may come of it, however late,
doubled, torn or joined the frames are. Over TCP the transaction id, unit id, function and length must fit; what a frame that
fits holds cannot be checked by anybody, so there only consistency is asked for.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import pty
import time
import tty
from collections.abc import AsyncGenerator, Iterator
from typing import Any, Final

import numpy as np
import pytest

from protocols.contract import DriverError, Unreachable
from protocols.modbus.config import Device, ModbusRtu, ModbusRtuTcp, ModbusTcp, Tag
from protocols.modbus.decode import Recipe, compile_recipe
from protocols.modbus.driver import make_line
from protocols.modbus.frames import MAX_PDU, Request, Verdict, is_exception, read_request, take_rtu, take_tcp, write_request
from protocols.modbus.line import MAX_FOREIGN_BYTES, NetworkLine
from protocols.modbus.plan import Plan, make_plan
from protocols.modbus.probe import probe
from protocols.modbus.serial_line import SerialLine
from protocols.modbus.session import ModbusSession
from protocols.model import Batch, Command, Kind, OutcomeState, Quality, ScanStats
from tests.contract.driver_suite import assert_consistent
from tests.fuzz import corpus
from tests.fuzz.campaign import FRAMES, frames, measured, run, seed
from tests.fuzz.mutate import Mutator
from tests.fuzz.record import REQUESTS
from tests.fuzz.still import UTC_NS, Complaints, LoopClock, Piece, StillLoop
from tests.peers.unit import Unit, crc16, rtu_content, rtu_frame, tcp_frame

UNIT: Final = 17
Options = ModbusTcp | ModbusRtuTcp | ModbusRtu
SESSION_FRAMES: Final = frames(15_000, 1_000_000)
"""Spoilt answers to whole sessions; the decoders alone get FRAMES."""
TIMEOUT_S: Final = 0.2
PLAN_LIVES: Final = 50
"""Sessions that share what was learnt about the devices, as a gateway's do; then all is forgotten."""
ASKED: Final[dict[str, Request]] = {
    name: (read_request(UNIT, pdu, _size) if (_size := {1: 3, 2: 2, 3: 6, 4: 20}.get(pdu[0], -1)) > 0 else write_request(UNIT, pdu))
    for name, pdu in ((name, bytes.fromhex(digits)) for name, digits in REQUESTS.items())
    if pdu[0] != 0x2B
} | {"most-holding": read_request(UNIT, bytes.fromhex(REQUESTS["most-holding"]), 250)}


# ------------------------------------------------------------------------------------------------------------- frames


def _judged(taken_used: int, verdict: Verdict, frame: bytes) -> None:
    assert 0 <= taken_used <= len(frame)
    assert (taken_used == 0) == (verdict is Verdict.MORE)
    assert verdict is not Verdict.MORE or len(frame) < 300, "never waits for more than a frame can be"


def test_no_tcp_frame_is_believed_that_does_not_fit_its_request() -> None:
    """Transaction id, protocol, length, unit id, function and byte count of whatever is taken for an answer are right."""
    number = seed()
    requests = list(ASKED.values())
    mutator = Mutator(number, [frame for frame in corpus.frames("libmodbus-tcp", "fast-modbus") if frame])
    turn = itertools.cycle(requests)

    def judge(frame: bytes) -> None:
        if not frame:
            return
        request = next(turn)
        taken = take_tcp(frame, request, 5)
        _judged(taken.used, taken.verdict, frame)
        if taken.verdict is Verdict.ANSWER:
            pdu = taken.pdu
            assert frame[:4] == b"\0\x05\0\0"
            assert int.from_bytes(frame[4:6], "big") == len(pdu) + 1 <= MAX_PDU + 1
            assert frame[6] == UNIT
            assert taken.used == 7 + len(pdu)
            assert frame[7 : taken.used] == pdu
            _fits(pdu, request)

    run("modbus-tcp-frames", mutator.make, judge, seed=number)


def _fits(pdu: bytes, request: Request) -> None:
    if is_exception(pdu):
        assert (pdu[0], len(pdu)) == (request.function | 0x80, 2)
    elif request.function <= 4:
        assert (pdu[0], pdu[1], len(pdu)) == (request.function, request.expect - 2, request.expect)
    else:
        assert pdu == (request.pdu[:5] if request.function in (15, 16) else request.pdu)


def test_no_rtu_frame_is_believed_whose_checksum_is_wrong() -> None:
    """Half of the frames get a true checksum after they were spoilt: then unit id, function and length must fit still."""
    number = seed()
    pairs = [(ASKED[name], frame) for name, frame in corpus.load("libmodbus-rtu-tcp").items() if name in ASKED]
    mutator = Mutator(number, [frame for _, frame in pairs])
    turn = itertools.cycle(pairs)
    asked = pairs[0][0]

    def make() -> bytes:
        nonlocal asked
        asked, frame = next(turn)
        spoilt = mutator.make(frame)
        if mutator.dice.random() < 0.5:
            body = spoilt[:-2] if mutator.dice.random() < 0.8 else spoilt
            spoilt = body[:256] + crc16(body[:256]).to_bytes(2, "little")
        return spoilt

    def judge(frame: bytes) -> None:
        if not frame:
            return
        taken = take_rtu(frame, asked)
        _judged(taken.used, taken.verdict, frame)
        if taken.verdict is Verdict.ANSWER:
            taken_frame = frame[: taken.used]
            skipped = len(taken_frame) - len(taken.pdu) - 3
            assert 0 <= skipped <= 4
            assert not taken_frame[:skipped].strip(b"\0\xff")
            assert rtu_content(taken_frame[skipped:]) == (UNIT, taken.pdu)
            _fits(taken.pdu, asked)

    run("modbus-rtu-frames", make, judge, seed=number)


# ----------------------------------------------------------------------------------------------------------- decoding

KINDS: Final = (
    *(
        Tag(name=str(kind), at=f"holding:{10 * at}", kind=kind)
        for at, kind in enumerate(kind for kind in Kind if kind not in ("string", "bytes"))
    ),
    Tag(name="text", at="holding:130", kind=Kind.STRING, length=9),
    Tag(name="latin", at="holding:136", kind=Kind.STRING, length=4, charset="latin-1"),
    Tag(name="raw", at="holding:140", kind=Kind.BYTES, length=5),
    Tag(name="bcd16", at="holding:150", kind=Kind.UINT16, encoding="bcd", scale=0.1),
    Tag(name="bcd64", at="input:0", kind=Kind.UINT64, encoding="bcd", word_order="little"),
    Tag(name="scaled", at="input:10", kind=Kind.INT64, scale=1e300, offset=-1.0),
    Tag(name="swapped", at="input:20", kind=Kind.FLOAT32, byte_order="little", scale=-1e38),
    Tag(name="bit", at="input:30.15", kind=Kind.BOOL),
    Tag(name="coil", at="coil:3", kind=Kind.BOOL),
    Tag(name="discrete", at="discrete:9", kind=Kind.BOOL),
)


def test_whatever_registers_hold_becomes_columns_that_are_consistent() -> None:
    """Every kind, byte order, scale and text, of any bytes at all, with and without blocks that failed. Each of a scan's answers is spoilt
    by itself, and they are what is counted."""
    number = seed()
    plan = make_plan(ModbusTcp(name="line", host="h", devices=(Device(name="one", unit_id=UNIT, tags=KINDS),)))
    group = plan.devices[0].groups[0]
    recipe: Recipe = compile_recipe(plan.devices[0].device, plan.devices[0].wires, group.blocks)
    sizes = [request.expect for request in group.requests]
    mutator = Mutator(number, [bytes(max(sizes)), b"\xff" * max(sizes), bytes(range(256))], longest=max(sizes))
    qualities = [int(quality) for quality in Quality]

    def make() -> bytes:
        return b"".join(mutator.make()[:size].ljust(size, b"\xc3") for size in sizes)

    def judge(content: bytes) -> None:
        answers = content.ljust(sum(sizes), b"\0")
        statuses = [qualities[byte % len(qualities)] for byte in answers[: len(sizes)]] if answers[0] & 1 else None
        for batch in recipe.decode(answers, [UTC_NS] * (len(sizes) + 1), statuses):
            _consistent(batch)

    run("modbus-decode", make, judge, seed=number, count=FRAMES // len(sizes))


def _consistent(batch: Batch) -> None:
    size = len(batch)
    assert len(batch.value) == len(batch.quality) == len(batch.time_ns) == size > 0
    bad = (batch.quality & np.uint32(0x80000000)) != 0
    assert not any(batch.value[bad].tolist())
    if batch.value.dtype == object:
        kinds = [str if batch.device.tags[slot].kind is Kind.STRING else bytes for slot in batch.tag]
        assert [type(value) for value in batch.value] == kinds


# ----------------------------------------------------------------------------------------------------------- sessions

REGISTERS: Final = 400
TAGS: Final = (
    *(Tag(name=f"r{at}", at=f"holding:{at}", kind=Kind.UINT16, writable=at >= 100) for at in (0, 1, 2, 3, 100, 101, 390)),
    *(Tag(name=f"i{at}", at=f"input:{at}", kind=Kind.UINT32) for at in (10, 12, 200)),
    *(Tag(name=f"c{at}", at=f"coil:{at}", kind=Kind.BOOL, writable=True) for at in (0, 9)),
    *(Tag(name=f"d{at}", at=f"discrete:{at}", kind=Kind.BOOL) for at in (1, 30)),
    Tag(name="bit", at="holding:110.3", kind=Kind.BOOL, writable=True),
    Tag(name="float", at="holding:120", kind=Kind.FLOAT32, writable=True),
)
WRITTEN: Final[tuple[tuple[str, Any, str, int], ...]] = (  # Any: a command's value
    ("r100", 7, "holding", 100),
    ("r100", 700, "holding", 100),
    ("c0", True, "coil", 0),
    ("c0", False, "coil", 0),
    ("bit", True, "holding", 110),
    ("bit", False, "holding", 110),
    ("float", 1.5, "holding", 120),
    ("float", -2.0, "holding", 120),
)


class Spoiler:
    """A unit whose answers are spoilt on their way: what a wire does to frames, and what a device does that is mad."""

    def __init__(self, number: int, *, is_rtu: bool) -> None:
        self.is_rtu = is_rtu
        self.units = {unit: self._unit(unit) for unit in (UNIT, UNIT + 1)}
        self.mutator = Mutator(number, corpus.frames("libmodbus-rtu-tcp") if is_rtu else corpus.frames("libmodbus-tcp"), longest=1200)
        self.dice = self.mutator.dice
        self.frames = 0
        self.sane = False

    @staticmethod
    def _unit(unit: int) -> Unit:
        words = {at: at * 7 + unit for at in range(REGISTERS)}
        return Unit(holding=dict(words), input={at: word + 30_000 for at, word in words.items()}, coil={9: 1}, discrete={30: 1})

    def __call__(self, request: bytes) -> list[Piece]:
        transaction, unit, pdu = self._asked(request)
        answer = self.units[unit].answer(pdu)
        frame = rtu_frame(unit, answer) if self.is_rtu else tcp_frame(transaction, unit, answer)
        if self.sane or self.dice.random() < 0.3:
            return [(0.001, frame)]
        self.frames += 1
        spoilt = self.mutator.make(frame)
        if self.is_rtu and self._by_chance(spoilt, frame):
            spoilt = frame
        return list(self._pieces(spoilt))

    def _asked(self, request: bytes) -> tuple[int, int, bytes]:
        if self.is_rtu:
            content = rtu_content(request)
            assert content is not None, "our own requests are true frames"
            return 0, *content
        return int.from_bytes(request[:2], "big"), request[6], request[7:]

    @staticmethod
    def _by_chance(spoilt: bytes, frame: bytes) -> bool:
        """A checksum of 16 bits is right by chance once in 65,536 times; that nobody can see."""
        starts = (
            at for at in range(5) if spoilt[at : at + 1] == frame[:1] and (spoilt[at + 1 : at + 2] or b"\0")[0] & 0x7F == frame[1] & 0x7F
        )
        return any(
            rtu_content(part) is not None and part != frame for at in starts for part in (spoilt[at : at + len(frame)], spoilt[at : at + 5])
        )

    def _pieces(self, content: bytes) -> Iterator[Piece]:
        """Whole, torn at any places, late by up to nearly two time-outs, or followed by the end of the connection."""
        pause = TIMEOUT_S * 1.8 * self.dice.random() if self.dice.random() < 0.05 else 0.001
        while content and self.dice.random() < 0.3:
            cut = self.dice.randrange(len(content) + 1)
            if cut:
                yield pause, content[:cut]
            content, pause = content[cut:], 0.001 if self.dice.random() < 0.9 else TIMEOUT_S * 0.7
        if content:
            yield pause, content
        if self.dice.random() < 0.01:
            yield 0.001, b""


def _devices() -> tuple[Device, ...]:
    tags = {UNIT: TAGS, UNIT + 1: TAGS[:6]}
    return tuple(Device(name=f"device-{unit}", unit_id=unit, scan_s=0.05, max_gap=4, tags=tags[unit]) for unit in tags)


def _options(is_rtu: bool) -> Options:
    kind = ModbusRtuTcp if is_rtu else ModbusTcp
    return kind(name="line", host="nowhere", timeout_s=TIMEOUT_S, retry_max_s=1.0, devices=_devices())


async def _line(loop: StillLoop, options: Options, stats: ScanStats) -> NetworkLine | SerialLine:
    line = make_line(options, stats)
    line._now = loop.time  # the loop's time is the only one here
    await line.open()
    return line


async def _one_session(loop: StillLoop, spoiler: Spoiler, options: Options, plan: Plan, enough: int) -> None:
    """One connection until it is lost, or until ``enough`` frames were sent: scans, and commands at the same time."""
    stats, clock = ScanStats(), LoopClock(loop)
    line = await _line(loop, options, stats)
    writing: asyncio.Task[None] | None = None
    try:
        session = ModbusSession(options, plan, line, clock, stats)
        writing = asyncio.ensure_future(_write(session, spoiler, clock))
        batches = session.batches()
        assert isinstance(batches, AsyncGenerator)
        async for batch in batches:
            _true(batch, spoiler)
            if spoiler.frames >= enough or writing.done():
                break
        await batches.aclose()
    finally:
        if writing is not None:
            writing.cancel()
            await asyncio.wait([writing])
            if not writing.cancelled() and (error := writing.exception()) and not isinstance(error, Unreachable):
                raise error
        await line.close()
    assert len(line._buffer) <= 300, "no more than one frame is kept"
    assert line._foreign_bytes <= MAX_FOREIGN_BYTES + 2000


def _says_what_to_do(error: DriverError) -> None:
    assert len(str(error)) > 30


def _true(batch: Batch, spoiler: Spoiler) -> None:
    now = batch.time_ns.max()
    assert_consistent(Batch(batch.device, batch.tag, batch.value, batch.quality, batch.time_ns - now + time.time_ns() - 10**9, batch.lost))
    if not spoiler.is_rtu:
        return
    unit = int(batch.device.name.removeprefix("device-"))
    good = batch.quality == Quality.GOOD
    for slot, value in zip(batch.tag[good], batch.value[good].tolist(), strict=True):
        name = batch.device.tags[slot].name
        if (at := int(name[1:]) if name[1:].isdecimal() else -1) >= 0 and name not in ("r100", "c0"):
            assert value == _truth(name[0], at, unit), f"{batch.device.name} {name}"


def _truth(letter: str, at: int, unit: int) -> int:
    match letter:
        case "r":
            return at * 7 + unit
        case "i":
            return (at * 7 + unit + 30_000) << 16 | ((at + 1) * 7 + unit + 30_000)
        case "c":
            return at == 9
        case _:
            return at == 30


async def _write(session: ModbusSession, spoiler: Spoiler, clock: LoopClock) -> None:
    """Commands without end. What is called verified was written; over RTU that can be held against the device."""
    for number in itertools.count():
        name, value, table, at = WRITTEN[number % len(WRITTEN)]
        command = Command(id=str(number), device=f"device-{UNIT}", tag=name, value=value, deadline_ns=clock.time_ns() + 10**10)
        (outcome,) = await session.write([command])
        if outcome.state is OutcomeState.VERIFIED and spoiler.is_rtu:
            held = getattr(spoiler.units[UNIT], table)[at]
            seen = bool(held >> 3 & 1) if name == "bit" else held
            assert seen == (int(np.float32(value).view(np.uint32)) >> 16 if name == "float" else value), outcome
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("is_rtu", [False, True], ids=["tcp", "rtu"])
def test_a_session_on_a_wire_that_spoils_everything_only_fails_as_documented(is_rtu: bool) -> None:
    """Sessions end in one of the contract's errors and begin anew; when the wire is well again, so is everything."""
    number = seed()
    spoiler, options = Spoiler(number, is_rtu=is_rtu), _options(is_rtu)

    async def campaign() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, StillLoop)
        complaints = Complaints(loop)
        warm = False
        for number in itertools.count():
            if number % PLAN_LIVES == 0:
                plan = make_plan(options)
            if spoiler.frames >= SESSION_FRAMES:
                break
            try:
                with watch.bounded():
                    await _one_session(loop, spoiler, options, plan, min(SESSION_FRAMES, spoiler.frames + 500))
            except DriverError as error:
                _says_what_to_do(error)
            complaints.none()
            if not warm and spoiler.frames > SESSION_FRAMES // 50:
                warm = True
                watch.begin()
        spoiler.sane = True
        await asyncio.sleep(3600.0)  # costs nothing here; what is still on its way belongs to nobody
        line = await _line(loop, options, ScanStats())
        report = await probe(make_plan(options), line)
        await line.close()
        assert report.ok, report.findings

    name = f"modbus-session-{'rtu' if is_rtu else 'tcp'}"
    with measured(name, number, SESSION_FRAMES) as watch, asyncio.Runner(loop_factory=lambda: StillLoop(spoiler)) as runner:
        runner.run(campaign())


@pytest.mark.parametrize("echo", [False, True], ids=["plain", "echo"])
def test_a_serial_line_that_spoils_everything_only_fails_as_documented(echo: bool) -> None:
    """The same on a serial port, whose adapter may echo requests, spoilt as well."""
    number, count = seed(), frames(250, 30_000)
    spoiler = Spoiler(number, is_rtu=True)
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    options = ModbusRtu(
        serial_port=os.ttyname(theirs),
        baud_rate=4_000_000,
        parity="none",
        stop_bits=2,
        echo=echo,
        name="line",
        timeout_s=TIMEOUT_S,
        retry_max_s=1.0,
        devices=_devices(),
    )

    async def campaign() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, StillLoop)
        complaints = Complaints(loop)

        def asked() -> None:
            request = os.read(ours, 4096)
            if rtu_content(request) is None:
                return  # two requests at once: a time-out lay between them
            after = 0.0
            if echo:
                os.write(ours, request if spoiler.dice.random() < 0.9 else spoiler.mutator.make(request)[:300])
            for pause_s, piece in spoiler(request):
                after += pause_s
                loop.call_later(after, os.write, ours, piece)

        loop.add_reader(ours, asked)
        plan = make_plan(options)
        while spoiler.frames < count:
            try:
                with watch.bounded():
                    await _one_session(loop, spoiler, options, plan, count)
            except DriverError as error:
                _says_what_to_do(error)
            complaints.none()
        loop.remove_reader(ours)

    name = f"modbus-serial-{'echo' if echo else 'plain'}"
    with measured(name, number, count) as watch, asyncio.Runner(loop_factory=lambda: StillLoop(spoiler, grace_s=0.001)) as runner:
        runner.run(campaign())
    os.close(ours)
    os.close(theirs)


def test_probing_a_mad_device_gives_a_report() -> None:
    """A probe of a spoilt wire says what is wrong, and raises nothing but the contract's errors."""
    number = seed()
    spoiler, options = Spoiler(number, is_rtu=False), _options(False)

    async def campaign() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, StillLoop)
        complaints = Complaints(loop)
        while spoiler.frames < frames(5_000, 100_000):
            line = await _line(loop, options, ScanStats())
            try:
                with watch.bounded():
                    report = await probe(make_plan(options), line)
                assert report.findings
            except DriverError as error:
                _says_what_to_do(error)
            finally:
                await line.close()
            complaints.none()

    with (
        measured("modbus-probe", number, frames(5_000, 100_000)) as watch,
        asyncio.Runner(loop_factory=lambda: StillLoop(spoiler)) as runner,
    ):
        runner.run(campaign())
