"""The lines: late, foreign, broken and endless answers over TCP, TLS, RTU over TCP and a pty; writes ahead of reads."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
import uvloop

from protocols.contract import DriverError, Misfit, Unreachable
from protocols.modbus.driver import make_line
from protocols.modbus.frames import read_request
from protocols.modbus.line import Missed, NetworkLine
from protocols.modbus.serial_line import SerialLine
from protocols.model import ScanStats
from tests.protocols.modbus.plc import Handler, Plc, PtyLine, listening, options, read_frame, until

Way = Literal["modbus-tcp", "modbus-rtu-tcp", "modbus-rtu"]
WAYS: list[Way] = ["modbus-tcp", "modbus-rtu-tcp", "modbus-rtu"]
GOOD = 100
"""Register 100 of every unit holds its unit id plus 1000."""


def on_both_loops(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:  # Any: as asyncio.run has it
    """Run an async test on Python's own loop and on the gateway's."""
    own = inspect.signature(test)

    def runs(run: Callable[[Coroutine[Any, Any, None]], None], **arguments: Any) -> None:  # Any: the test's own arguments
        run(test(**arguments))

    runs.__doc__ = test.__doc__
    runs.__name__ = test.__name__
    first = inspect.Parameter("run", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    runs.__signature__ = own.replace(parameters=[first, *own.parameters.values()], return_annotation=None)  # type: ignore[attr-defined]  # pytest reads it, typing does not know it
    parametrized: Callable[..., None] = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])(runs)
    return parametrized


def read(unit_id: int = 1, address: int = GOOD, count: int = 1) -> Any:  # Any: a Request; the tests need no more
    return read_request(unit_id, bytes((3, address >> 8, address & 255, 0, count)), 2 * count)


def plc_of(*unit_ids: int) -> Plc:
    plc = Plc(*unit_ids)
    for unit_id, unit in plc.units.items():
        unit.words = {GOOD: 1000 + unit_id, 200: 2000, 300: 3000}
    return plc


@asynccontextmanager
async def line_to(plc: Plc, way: Way, **fields: Any) -> AsyncIterator[NetworkLine | SerialLine]:  # Any: fields of a connection
    """An open line to ``plc``."""
    async with contextlib.AsyncExitStack() as stack:
        if way == "modbus-rtu":
            pty = PtyLine(plc)
            stack.callback(pty.close)
            line = make_line(options(way, serial_port=pty.path, baud_rate=115200, **fields), ScanStats())
        else:
            port = await stack.enter_async_context(plc.serve("tcp" if way == "modbus-tcp" else "rtu"))
            line = make_line(options(way, port=port, **fields), ScanStats())
        stack.push_async_callback(line.close)
        await line.open()
        yield line


@asynccontextmanager
async def line_to_handler(
    handler: Handler, way: Way = "modbus-tcp", **fields: Any
) -> AsyncIterator[NetworkLine | SerialLine]:  # Any: as above
    async with listening(handler) as port:
        line = make_line(options(way, port=port, **fields), ScanStats())
        try:
            await line.open()
            yield line
        finally:
            await line.close()


@pytest.mark.parametrize("way", WAYS)
@on_both_loops
async def test_a_question_is_answered(way: Way) -> None:
    async with line_to(plc_of(1, 2), way) as line:
        assert await line.ask(read(1)) == b"\x03\x02\x03\xe9"
        assert await line.ask(read(2)) == b"\x03\x02\x03\xea"
        assert line.stats.requests == 2


@pytest.mark.parametrize("way", WAYS)
@on_both_loops
async def test_answers_byte_by_byte_are_put_together(way: Way) -> None:
    plc = plc_of(1)
    plc.send = lambda frame: [frame[at : at + 1] for at in range(len(frame))]
    async with line_to(plc, way) as line:
        for _ in range(3):
            assert await line.ask(read(1)) == b"\x03\x02\x03\xe9"


@pytest.mark.parametrize("way", WAYS)
@on_both_loops
async def test_a_silent_unit_is_a_miss_and_the_line_lives_on(way: Way) -> None:
    plc = plc_of(1, 2)
    plc.silent = {2}
    async with line_to(plc, way, timeout_s=0.05) as line:
        with pytest.raises(Missed, match="unit id 2 did not answer") as caught:
            await line.ask(read(2))
        assert caught.value.reason == "timeout"
        assert await line.ask(read(1)) == b"\x03\x02\x03\xe9"


@pytest.mark.parametrize("way", WAYS)
@on_both_loops
async def test_a_late_answer_is_never_taken_for_the_next_request(way: Way) -> None:
    """The answer to the first question comes when the second, of the same shape, is asked or waits to be."""
    plc = plc_of(1)
    held: list[bytes] = []

    def hold(frame: bytes) -> list[bytes]:
        held.append(frame)
        return []

    plc.send = hold
    async with line_to(plc, way, timeout_s=0.05, settle_s=0.1) as line:
        with pytest.raises(Missed):
            await line.ask(read(1, 200))
        plc.send = lambda frame: [held[0], frame]
        if way == "modbus-tcp":
            assert await line.ask(read(1, 300)) == b"\x03\x02\x0b\xb8"
            assert line.stats.errors["foreign"] == 1
        else:  # an RTU line that hears an old answer in front cannot tell: it must have fallen silent before
            second = asyncio.ensure_future(line.ask(read(1, 300)))
            await asyncio.sleep(0)
            if isinstance(line, SerialLine):
                line._received(held[0])  # the late answer, as the port would hand it over
            plc.send = lambda frame: [frame]
            assert await second == b"\x03\x02\x0b\xb8"


@on_both_loops
async def test_rtu_over_tcp_is_opened_anew_after_a_timeout() -> None:
    plc = plc_of(1, 2)
    plc.silent = {2}
    async with line_to(plc, "modbus-rtu-tcp", timeout_s=0.05, settle_s=0.05) as line:
        with pytest.raises(Missed):
            await line.ask(read(2))
        await line.ask(read(1))
        assert plc.connections == 2


@pytest.mark.parametrize("way", ["modbus-rtu-tcp", "modbus-rtu"])
@on_both_loops
async def test_an_rtu_answer_of_another_length_or_unit_or_checksum_is_broken(way: Way) -> None:
    plc = plc_of(1, 2)
    async with line_to(plc, way, timeout_s=0.2, settle_s=0.05) as line:
        for mangle in (lambda frame: frame[:-1] + b"\0", lambda frame: b"\2" + frame[1:], lambda frame: frame[:2] + b"\4" + frame[3:]):
            plc.send = lambda frame, mangle=mangle: [mangle(frame)]  # type: ignore[misc]  # a function in place of a method is the point
            with pytest.raises(Missed) as caught:
                await line.ask(read(1))
            assert caught.value.reason == "broken"
        plc.send = lambda frame: [frame]
        assert await line.ask(read(1)) == b"\x03\x02\x03\xe9"


@pytest.mark.parametrize("way", WAYS)
@on_both_loops
async def test_writes_go_ahead_of_reads_and_wait_for_one_request_at_most(way: Way) -> None:
    plc = plc_of(1)
    if way == "modbus-rtu":
        plc.gate = None
    async with line_to(plc, way, timeout_s=2.0) as line:
        order: list[str] = []

        async def ask(name: str, *, urgent: bool = False) -> None:
            await line.ask(read(1), urgent=urgent)
            order.append(name)

        tasks = [asyncio.ensure_future(ask(f"read {at}")) for at in range(3)]
        await asyncio.sleep(0)
        tasks.append(asyncio.ensure_future(ask("write", urgent=True)))
        await asyncio.gather(*tasks)
        assert order == ["read 0", "write", "read 1", "read 2"]


@on_both_loops
async def test_one_request_is_in_flight_however_many_are_asked() -> None:
    plc = plc_of(1)
    plc.gate = asyncio.Event()
    async with line_to(plc, "modbus-tcp", timeout_s=5.0) as line:
        tasks = [asyncio.ensure_future(line.ask(read(1))) for _ in range(5)]
        await until(lambda: line.stats.requests == 1)
        assert len(plc.asked) == 0
        plc.gate.set()
        await asyncio.gather(*tasks)
        assert len(plc.asked) == 5


@on_both_loops
async def test_a_cancelled_question_harms_nobody() -> None:
    """Waiting for its turn, in flight, or just given its turn."""
    plc = plc_of(1)
    plc.gate = asyncio.Event()
    async with line_to(plc, "modbus-tcp", timeout_s=5.0) as line:
        tasks = [asyncio.ensure_future(line.ask(read(1))) for _ in range(4)]
        await until(lambda: line.stats.requests == 1)
        tasks[0].cancel()
        tasks[2].cancel()
        plc.gate.set()
        assert await tasks[1] == await tasks[3] == b"\x03\x02\x03\xe9"
        assert line.stats.errors == {"foreign": 1}


@on_both_loops
async def test_an_opening_that_is_given_up_harms_not_the_next_one() -> None:
    """In whatever turn of the loop it was given up: the end of that connection is not taken for the end of the next."""
    async with line_to(plc_of(1), "modbus-tcp", timeout_s=5.0) as line:
        for turns in range(12):
            await line.rest()
            asking = asyncio.ensure_future(line.ask(read(1)))
            for _ in range(turns):
                await asyncio.sleep(0)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            assert await line.ask(read(1)) == b"\x03\x02\x03\xe9"


@on_both_loops
async def test_a_port_that_answers_http_is_a_misfit_with_advice() -> None:
    async def http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()

    async with line_to_handler(http) as line:
        with pytest.raises(Misfit, match=r"no Modbus TCP \('HTTP/1\.1 400.*check host and port"):
            await line.ask(read())


@on_both_loops
async def test_text_instead_of_rtu_is_a_misfit_too() -> None:
    async def banner(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.6\r\n")
        await reader.read()

    async with line_to_handler(banner, "modbus-rtu-tcp") as line:
        await until(lambda: line.trouble is not None)
        with pytest.raises(Misfit, match="no Modbus RTU: check host and port"):
            await line.ask(read())


@on_both_loops
async def test_a_stream_that_falls_out_of_step_is_opened_anew() -> None:
    """A peer that was right once is no misfit."""

    async def stray(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        plc = plc_of(1)
        writer.write(plc.frame("tcp", await read_frame("tcp", reader)) or b"")
        await reader.read(100)
        writer.write(b"\xff" * 20)
        await reader.read()

    async with line_to_handler(stray) as line:
        await line.ask(read())
        with pytest.raises(Unreachable, match="out of step"):
            await line.ask(read())


@pytest.mark.parametrize("way", ["modbus-tcp", "modbus-rtu-tcp"])
@pytest.mark.parametrize("content", [b"\0\1\0\0\0\3\1\x83\2", b"\0", b"\xff", b"A"])
@on_both_loops
async def test_a_peer_that_never_ends_is_cut_off(way: Way, content: bytes) -> None:
    """Rubbish, foreign frames and noise without end: an error in the end, and no memory taken."""

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(content * 1000)
            await writer.drain()

    async with line_to_handler(endless, way, timeout_s=0.2, settle_s=0.02) as line:
        async with asyncio.timeout(20):
            while line.trouble is None:
                with contextlib.suppress(Missed, DriverError):
                    await line.ask(read())
                if line.stats.requests > 3:
                    break
        assert line.trouble is not None or way == "modbus-rtu-tcp"
        assert len(line._buffer) < 600


@on_both_loops
async def test_a_peer_that_closes_at_once_is_unreachable_and_says_why() -> None:
    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with line_to_handler(close) as line:
        await until(lambda: line.trouble is not None)
        with pytest.raises(Unreachable, match="one connection only"):
            await line.ask(read())


@pytest.mark.parametrize("way", ["modbus-tcp", "modbus-rtu-tcp"])
@on_both_loops
async def test_a_connection_that_breaks_in_flight_is_unreachable_at_once(way: Way) -> None:
    plc = plc_of(1)
    async with line_to(plc, way, timeout_s=30.0) as line:
        await line.ask(read())
        plc.silent = {1}
        task = asyncio.ensure_future(line.ask(read()))
        await until(lambda: len(plc.asked) == 2)
        plc.kick()
        with pytest.raises(Unreachable, match="closed by the peer"):
            await task


@on_both_loops
async def test_nobody_listening_is_unreachable() -> None:
    async with listening(lambda reader, writer: asyncio.sleep(0)) as port:
        pass
    line = make_line(options(port=port), ScanStats())
    with pytest.raises(Unreachable, match="nothing listens there"):
        await line.open()
    await line.close()


@on_both_loops
async def test_an_unknown_name_is_unreachable() -> None:
    line = make_line(options(host="no-such-host.invalid"), ScanStats())
    with pytest.raises(Unreachable, match="name is not known"):
        await line.open()
    await line.close()


@on_both_loops
async def test_a_serial_port_that_does_not_exist_is_unreachable_and_a_file_a_clear_error(tmp_path: Path) -> None:
    for path, words in ((tmp_path / "none", "no such serial port"), (tmp_path / "file", "cannot be opened")):
        if path.name == "file":
            path.write_text("x")
        line = make_line(options("modbus-rtu", serial_port=str(path)), ScanStats())
        with pytest.raises(DriverError, match=words):
            await line.open()
        await line.close()


@on_both_loops
async def test_a_serial_port_that_is_pulled_is_unreachable() -> None:
    plc = plc_of(1)
    pty = PtyLine(plc)
    line = make_line(options("modbus-rtu", serial_port=pty.path, baud_rate=115200), ScanStats())
    await line.open()
    await line.ask(read())
    pty.close()
    with pytest.raises(Unreachable, match="the port is gone"):
        await line.ask(read())
    await line.close()
    await line.close()


@on_both_loops
async def test_an_adapter_that_hears_itself_is_no_trouble() -> None:
    plc = plc_of(1)
    plc.send = lambda frame: [read().rtu + frame]
    async with line_to(plc, "modbus-rtu", echo=True) as line:
        for _ in range(3):
            assert await line.ask(read()) == b"\x03\x02\x03\xe9"


@on_both_loops
async def test_an_idle_connection_is_closed_and_opened_for_the_next_request() -> None:
    plc = plc_of(1)
    async with line_to(plc, "modbus-tcp") as line:
        await line.ask(read())
        await line.rest()
        await line.ask(read())
        assert plc.connections == 2


@on_both_loops
async def test_pauses_between_requests_are_kept() -> None:
    loop = asyncio.get_running_loop()
    async with line_to(plc_of(1), "modbus-tcp", request_delay_s=0.05) as line:
        await line.ask(read())
        began = loop.time()
        await line.ask(read())
        assert loop.time() - began >= 0.045


@pytest.mark.parametrize("way", WAYS)
@on_both_loops
async def test_mutated_answers_give_no_wrong_data(way: Way) -> None:
    """Many mutated answers: each question ends in a miss or in data that have the right shape, and the line heals."""
    rng = random.Random(99)
    plc = plc_of(1)

    def mangle(frame: bytes) -> list[bytes]:
        content = bytearray(frame)
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        return [bytes(content[: rng.randint(1, len(content))]) if rng.random() < 0.3 else bytes(content)]

    asked = 0
    while asked < 40:
        async with line_to(plc, way, timeout_s=0.03, settle_s=0.03) as line:
            plc.send = mangle
            with contextlib.suppress(DriverError):
                for _ in range(10):
                    asked += 1
                    try:
                        pdu = await line.ask(read())
                    except Missed:
                        continue
                    assert len(pdu) in (2, 4)
                    if way != "modbus-tcp":
                        assert pdu == b"\x03\x02\x03\xe9"
                plc.send = lambda frame: [frame]
                assert await healed(line) == b"\x03\x02\x03\xe9"


async def healed(line: NetworkLine | SerialLine) -> bytes:
    """The first answer; on a busy machine a few may come too late for the short patience of these tests."""
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(Missed):
                return await line.ask(read())


async def test_a_port_that_cannot_do_its_settings_is_a_misfit_in_words() -> None:
    """A pty takes parity once and refuses it at the next opening, with an error that is no OSError."""
    pty = PtyLine(Plc())
    connection = options("modbus-rtu", serial_port=pty.path, baud_rate=115200, parity="even")

    async def open_again_and_again() -> None:
        for _ in range(3):
            line = make_line(connection, ScanStats())
            await line.open()
            await line.close()

    with contextlib.closing(pty), pytest.raises(Misfit, match="check baud_rate, parity"):
        await open_again_and_again()
