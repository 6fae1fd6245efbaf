"""A recorded device that answers again: the requests of a trace get the answers that they got.

What was asked several times gets its answers in turn, and from the front again after the last; what stayed without an answer
stays without one. What was never asked is answered "illegal data address", or not at all where its unit id never was. Modbus
TCP and RTU recordings are served alike, over TCP in either framing: the content of both is the same.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from pymodbus.framer import FramerRTU

from protocols.modbus.frames import MAX_PDU
from protocols.modbus.trace import are_rtu, parts
from protocols.trace.ring import Frame, Way

MAX_CLIENTS: Final = 16
MAX_ASKED: Final = 100_000
"""Different requests, and answers of one request, that are kept."""
_ILLEGAL_ADDRESS: Final = 2
_FIXED: Final = {1: 5, 2: 5, 3: 5, 4: 5, 5: 5, 6: 5, 7: 1, 8: 5, 11: 1, 12: 1, 17: 1, 22: 7, 24: 3, 43: 4}
"""Bytes of a request's PDU by function; 15, 16 and 23 say it themselves."""
_COUNT_AT: Final = {15: 5, 16: 5, 23: 9}

Asked = tuple[int, bytes]
"""Unit id and PDU."""


@dataclass(slots=True)
class Recording:
    """What was asked, and what came of it each time: a PDU, or None for silence."""

    answers: dict[Asked, list[bytes | None]] = field(default_factory=dict)
    units: set[int] = field(default_factory=set)
    """Unit ids that ever answered."""
    unused: int = 0
    """Frames that are neither a request nor the answer to one."""
    _turns: dict[Asked, int] = field(default_factory=dict)

    def answer(self, unit_id: int, pdu: bytes) -> bytes | None:
        """The next answer to this request; None for silence."""
        recorded = self.answers.get((unit_id, pdu))
        if recorded is None:
            return bytes((pdu[0] | 0x80, _ILLEGAL_ADDRESS)) if unit_id in self.units else None
        turn = self._turns.get((unit_id, pdu), 0)
        self._turns[unit_id, pdu] = turn + 1
        return recorded[turn % len(recorded)]


def recording(frames: Sequence[Frame]) -> Recording:
    """What a trace holds of requests and answers. One request is in flight at a time, or tells its answer by its transaction id."""
    made = Recording()
    waiting: dict[bytes, Asked] = {}
    rtu = are_rtu(frames)
    for frame in frames:
        found = parts(frame.content, is_rtu=rtu) if frame.content else None
        key = b"" if rtu else frame.content[:2]
        if found is None or not found[1]:
            made.unused += frame.way is not Way.NOTE
        elif frame.way is Way.SENT:
            if key in waiting:
                _keep(made, waiting[key], None)
            waiting[key] = found
        elif (asked := waiting.get(key)) and asked[0] == found[0] and asked[1][0] == found[1][0] & 0x7F:
            del waiting[key]
            made.units.add(found[0])
            _keep(made, asked, found[1])
        else:
            made.unused += 1
    return made


def _keep(made: Recording, asked: Asked, answer: bytes | None) -> None:
    answers = made.answers.get(asked)
    if answers is None and len(made.answers) < MAX_ASKED:
        answers = made.answers[asked] = []
    if answers is not None and len(answers) < MAX_ASKED:
        answers.append(answer)


@asynccontextmanager
async def serving(recorded: Recording, *, host: str = "127.0.0.1", port: int = 0, as_rtu: bool = False) -> AsyncIterator[int]:
    """Serve ``recorded`` on ``host`` until left; gives the port. Raises OSError where the port cannot be had."""
    clients: set[asyncio.Task[None]] = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(clients) < MAX_CLIENTS:
            clients.add(task)
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                await _answer_all(recorded, reader, writer, as_rtu=as_rtu)
            clients.discard(task)
        writer.close()

    server = await asyncio.start_server(talk, host, port)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tuple(clients):
            task.cancel()
        await asyncio.gather(*clients, return_exceptions=True)


async def _answer_all(recorded: Recording, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, as_rtu: bool) -> None:
    """Answer until the client goes, or sends what is no request."""
    while (asked := await (_read_rtu(reader) if as_rtu else _read_tcp(reader))) is not None:
        head, unit_id, pdu = asked
        answer = recorded.answer(unit_id, pdu)
        if answer is not None:
            body = bytes((unit_id,)) + answer
            check = FramerRTU.compute_CRC(body).to_bytes(2, "big")
            writer.write(body + check if as_rtu else head + b"\0\0" + len(body).to_bytes(2, "big") + body)
            await writer.drain()


async def _read_tcp(reader: asyncio.StreamReader) -> tuple[bytes, int, bytes] | None:
    head = await reader.readexactly(7)
    length = int.from_bytes(head[4:6], "big")
    if any(head[2:4]) or not 2 <= length <= MAX_PDU + 1:
        return None
    return head[:2], head[6], await reader.readexactly(length - 1)


async def _read_rtu(reader: asyncio.StreamReader) -> tuple[bytes, int, bytes] | None:
    frame = await reader.readexactly(2)
    function = frame[1]
    if function in _COUNT_AT:
        frame += await reader.readexactly(_COUNT_AT[function])
        frame += await reader.readexactly(frame[-1] + 2)
    elif function in _FIXED:
        frame += await reader.readexactly(_FIXED[function] - 1 + 2)
    else:
        return None
    found = parts(frame, is_rtu=True)
    return None if found is None else (b"", *found)
