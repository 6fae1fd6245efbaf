"""The one connection to a controller: one exchange at a time, each brought to its end or the connection is given up.

python-snap7 gives the ISO-on-TCP connection and the PDUs. Its AsyncClient is not used: a cancelled call leaves its answer behind for the
next one, a connection takes five seconds whatever was asked, one refused item refuses them all, and the place of one answer may be taken
by three others. Here a task of its own ends each exchange, whoever asked for it, and an answer has the number of its question.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Callable, Coroutine, Sequence
from typing import Final

from snap7.async_client import AsyncISOTCPConnection
from snap7.connection import TPDUSize
from snap7.datatypes import S7Area, S7WordLen
from snap7.error import S7ConnectionError, S7Error, S7TimeoutError
from snap7.s7protocol import S7Protocol

from protocols.contract import DriverError, Refused, Unreachable
from protocols.model import ScanStats
from protocols.s7.answer import GOOD, BadAnswer, NotServed, items, parts
from protocols.s7.config import S7
from protocols.s7.plan import Item
from protocols.steps import Step, tell

LONGEST_PDU: Final = 960
SHORTEST_PDU: Final = 112
"""No controller gives less than 240; less than this could not carry an item."""
SETUP: Final = b"\xf0"
READ: Final = 0x04
WRITE: Final = 0x05
ANOTHER: Final = "it answers another question"
CONNECTION_TYPE: Final = {"pg": 1, "op": 2, "basic": 3}
OWN_TSAP: Final = 0x0100
NOT_SERVED: Final = range(0x8100, 0x8200)
"""Errors of a whole request: the service is not there, or not for us (0x8104)."""
PUT_GET: Final = (
    "enable PUT/GET access in the CPU's protection settings (S7-1200, 1500), switch optimised access off for the data blocks, and load both"
)
CANCEL_S: Final = 0.1
_BROKEN: Final = (S7Error, BadAnswer, NotServed, OSError, EOFError, ValueError, LookupError, TypeError, struct.error)
"""What the library raises on frames that nobody should send."""


class Expired(Exception):
    """The moment until which something was to be sent has passed."""


class Channel:
    """``await channel.open()``, ``read`` and ``write`` from as many tasks as you like, ``await channel.close()``."""

    def __init__(self, options: S7, stats: ScanStats) -> None:
        self.where = f"{options.host}:{options.port}"
        self.pdu = LONGEST_PDU
        self._options, self._stats = options, stats
        self._turn = asyncio.Lock()
        self._protocol = S7Protocol()
        self._iso: AsyncISOTCPConnection | None = None
        self._trouble: DriverError | None = None
        self._under_way: set[asyncio.Task[tuple[bytes, bytes]]] = set()

    async def open(self) -> None:
        """Connect and agree on a PDU length. Raises Unreachable or Refused."""
        await self._apart(self._connect())

    async def _connect(self) -> tuple[bytes, bytes]:
        options = self._options
        called = CONNECTION_TYPE[options.as_a] << 8 | options.rack << 5 | options.slot
        self._iso = AsyncISOTCPConnection(options.host, options.port, OWN_TSAP, called, TPDUSize.S_1024)
        try:
            async with asyncio.timeout(options.connect_timeout_s):
                await self._iso.connect(options.connect_timeout_s)
                agreed, _ = await self._exchange(lambda: self._protocol.build_setup_communication_request(1, 1, LONGEST_PDU))
        except TimeoutError:
            raise Unreachable(f"{self.where}: no answer in {options.connect_timeout_s:g} s: check host, port and the network") from None
        except _BROKEN as error:
            raise self._not_opened(error) from None
        told = int.from_bytes(agreed[6:8], "big")
        if agreed[:1] != SETUP or told < SHORTEST_PDU:
            raise Unreachable(f"{self.where}: it wants PDUs of {told} bytes, which hold nothing: is it a controller?")
        self.pdu = min(told, LONGEST_PDU)
        self._iso.timeout = options.timeout_s
        return agreed, b""

    def _not_opened(self, error: Exception) -> DriverError:
        text = f"{self.where}: no S7 connection ({_said(error)})"
        if isinstance(error, NotServed):
            return Refused(f"{text}: {PUT_GET}")
        if "Expected COTP CC" in str(error):
            return Refused(f"{text}: the controller refuses rack {self._options.rack}, slot {self._options.slot}: check both, and as_a")
        if "TPKT" in str(error):
            return Unreachable(f"{text}: something else than S7 (ISO on TCP) answers at this port: check host and port")
        return Unreachable(f"{text}: check host, port, rack, slot, and that the controller has a connection left (as_a)")

    async def close(self) -> None:
        """Nothing of this connection is under way any more. Twice is fine."""
        while self._under_way:  # again and again: wait_for of Python 3.11, which the library uses, loses a cancellation now and then
            for task in self._under_way:
                task.cancel()
            await asyncio.wait(self._under_way, timeout=CANCEL_S)
        iso, self._iso = self._iso, None
        if iso is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await iso.disconnect()

    async def read(self, wanted: Sequence[Item]) -> list[bytes | int]:
        """Of each item its bytes, or the code with which it is refused. Raises Unreachable or Refused."""
        told = [(int(one.area), one.number, one.first, one.size) for one in wanted]
        parameters, data = await self._ask(lambda: self._protocol.build_multi_read_request(told))
        try:
            if parameters != bytes([READ, len(wanted)]):
                raise BadAnswer(ANOTHER)
            return items(data, [one.size for one in wanted])
        except BadAnswer as error:
            raise self._lost(error) from None

    async def write(self, item: Item, content: bytes, bit: int | None, deadline: float) -> int:
        """Write bytes or a bit: the code with which the controller answers. ``deadline``: time of the loop, the last moment to send.

        Raises Expired, Unreachable or Refused.
        """
        width, start = (S7WordLen.BYTE, item.first) if bit is None else (S7WordLen.BIT, 8 * item.first + bit)
        area = S7Area(int(item.area))

        def build() -> bytes:
            tell(Step.SENT)
            return self._protocol.build_write_request(area, item.number, start, width, content)

        parameters, data = await self._ask(build, deadline)
        if parameters != bytes([WRITE, 1]) or len(data) != 1:
            raise self._lost(BadAnswer(ANOTHER))
        return data[0]

    async def _ask(self, build: Callable[[], bytes], deadline: float = float("inf")) -> tuple[bytes, bytes]:
        return await self._apart(self._in_turn(build, deadline))

    async def _apart(self, work: Coroutine[None, None, tuple[bytes, bytes]]) -> tuple[bytes, bytes]:
        """Let a task of its own do ``work`` to its end, even where who waits for it here is cancelled."""
        task = asyncio.ensure_future(work)
        self._under_way.add(task)
        task.add_done_callback(self._over)
        return await asyncio.shield(task)

    def _over(self, task: asyncio.Task[tuple[bytes, bytes]]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # seen, even where nobody waits any more: the next one to ask hears of the same trouble

    async def _in_turn(self, build: Callable[[], bytes], deadline: float) -> tuple[bytes, bytes]:
        async with self._turn:
            if self._trouble is not None:
                raise self._trouble
            if asyncio.get_running_loop().time() > deadline:
                raise Expired
            self._stats.requests += 1
            try:
                async with asyncio.timeout(self._options.timeout_s):
                    return await self._exchange(build)
            except (TimeoutError, *_BROKEN) as error:
                raise self._lost(error) from None

    async def _exchange(self, build: Callable[[], bytes]) -> tuple[bytes, bytes]:
        if self._iso is None:
            raise S7ConnectionError("the connection is closed")
        request = build()
        await self._iso.send_data(request)
        return parts(await self._iso.receive_data(), int.from_bytes(request[4:6], "big"))

    def _lost(self, error: Exception) -> DriverError:
        """The connection is of no use any more, for the reason that everybody hears who asks from now on."""
        code = error.code if isinstance(error, NotServed) else 0
        reason = "refused" if code else "timeout" if isinstance(error, TimeoutError | S7TimeoutError) else "broken"
        self._stats.errors[reason] = self._stats.errors.get(reason, 0) + 1
        if code in NOT_SERVED:
            self._trouble = Refused(f"{self.where}: the controller does not serve reads and writes (0x{code:04x}): {PUT_GET}")
        else:
            self._trouble = Unreachable(f"{self.where}: {_said(error)}: check the controller and the network")
        return self._trouble


def _said(error: Exception) -> str:
    return "no answer in time" if isinstance(error, TimeoutError) else str(error)[:200] or type(error).__name__


def is_good(code: int) -> bool:
    return code == GOOD
