"""The line that takes its time keeps its own promises: it would prove nothing about a driver otherwise."""

from __future__ import annotations

import os
import select
import struct
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.peers.libmodbus import LibmodbusLine
from tests.peers.unit import Unit, rtu_content, rtu_frame
from tests.peers.wire import Faults, Wire

BAUD = 115200
SPEED = termios.B115200
READ_TWO = struct.pack(">BHH", 3, 0, 2)
PATIENCE_S = 5.0


@contextmanager
def port(wire: Wire, speed: int = SPEED) -> Iterator[int]:
    """The gateway's end, opened raw as a serial driver would."""
    descriptor = os.open(wire.path, os.O_RDWR | os.O_NOCTTY)
    try:
        tty.setraw(descriptor)
        settings = termios.tcgetattr(descriptor)
        settings[4] = settings[5] = speed
        termios.tcsetattr(descriptor, termios.TCSANOW, settings)
        yield descriptor
    finally:
        os.close(descriptor)


def receive(descriptor: int, length: int, patience_s: float = PATIENCE_S) -> bytes:
    """``length`` bytes, or what came until patience ended."""
    end, got = time.monotonic() + patience_s, b""
    while len(got) < length and (left := end - time.monotonic()) > 0:
        if select.select([descriptor], [], [], left)[0]:
            got += os.read(descriptor, length - len(got))
    return got


def ask(descriptor: int, unit: int, pdu: bytes = READ_TWO, length: int = 9) -> bytes:
    os.write(descriptor, rtu_frame(unit, pdu))
    return receive(descriptor, length)


def test_a_request_is_answered_by_the_unit_it_names() -> None:
    with Wire({5: Unit(holding={0: 7, 1: 8})}, baud=BAUD) as wire, port(wire) as gateway:
        assert rtu_content(ask(gateway, 5)) == (5, b"\x03\x04\x00\x07\x00\x08")


def test_the_line_is_never_faster_than_its_baud_rate() -> None:
    with Wire({1: Unit()}, baud=9600, bits=10) as wire, port(wire, termios.B9600) as gateway:
        began = time.monotonic()
        ask(gateway, 1)
        took = time.monotonic() - began
        assert took >= (8 + 9) * wire.character_s + wire.silence_s
        request, answer = wire.frames
        assert answer.start_s - request.end_s >= wire.silence_s * 0.999
        assert answer.end_s - answer.start_s == pytest.approx(9 * wire.character_s)


def test_a_line_in_full_use_reports_the_time_that_was_possible() -> None:
    with Wire({1: Unit()}, baud=BAUD) as wire, port(wire) as gateway:
        for _ in range(20):
            ask(gateway, 1)
            time.sleep(wire.silence_s)  # the silence that the standard asks of a client
        report = wire.report()
    assert (report.requests, report.answers, report.bytes) == (20, 20, 20 * 17)
    assert 0 < report.optimum_s <= report.elapsed_s
    assert report.busy_s == pytest.approx(20 * 17 * wire.character_s)
    assert (report.early, report.collisions) == (0, 0)


def test_a_client_that_talks_into_an_answer_is_reported_and_spoils_it() -> None:
    with Wire({1: Unit()}, baud=9600) as wire, port(wire, termios.B9600) as gateway:
        os.write(gateway, rtu_frame(1, struct.pack(">BHH", 3, 0, 100)))
        first = receive(gateway, 1)
        os.write(gateway, b"!")
        answer = first + receive(gateway, 204)
        assert rtu_content(answer) is None
        assert wire.report().collisions == 1


@pytest.mark.parametrize("faults", [Faults(silent={1}), Faults(deaf=True), Faults(lose=1.0)], ids=["silent", "deaf", "lossy"])
def test_a_line_that_loses_everything_brings_nothing(faults: Faults) -> None:
    with Wire({1: Unit()}, baud=BAUD) as wire, port(wire) as gateway:
        wire.faults = faults
        os.write(gateway, rtu_frame(1, READ_TWO))
        assert receive(gateway, 1, 0.1) == b""


def test_a_wrong_baud_rate_brings_rubbish() -> None:
    with Wire({1: Unit()}, baud=BAUD) as wire, port(wire, termios.B19200) as gateway:
        os.write(gateway, rtu_frame(1, READ_TWO))
        assert rtu_content(receive(gateway, 9, 0.1)) is None


def test_an_adapter_with_echo_hears_itself_first() -> None:
    with Wire({1: Unit()}, baud=BAUD) as wire, port(wire) as gateway:
        wire.faults.echo = True
        request = rtu_frame(1, READ_TWO)
        assert ask(gateway, 1, length=len(request) + 9)[: len(request)] == request


def test_a_late_unit_answers_late() -> None:
    with Wire({1: Unit()}, baud=BAUD) as wire, port(wire) as gateway:
        wire.faults.late_s = {1: 0.05}
        ask(gateway, 1)
        request, answer = wire.frames
        assert answer.start_s - request.end_s >= 0.05


async def test_a_foreign_device_on_the_tap_is_reached_through_the_same_line() -> None:
    with Wire(baud=BAUD, tap=True) as wire, port(wire) as gateway:
        async with LibmodbusLine(wire.tap_path, BAUD, units=[9]) as device:
            await device.set(9, "holding", 0, 1, 2)
            os.write(gateway, rtu_frame(9, READ_TWO))
            assert rtu_content(receive(gateway, 9)) == (9, b"\x03\x04\x00\x01\x00\x02")
            assert len(await device.requests()) == 1
