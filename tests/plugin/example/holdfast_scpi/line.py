"""The line to an instrument: one exchange at a time, each answered whole or the line is given up.

SCPI has no mark that ties an answer to its query, and an instrument says nothing at all to a query that it does not know. So every
message is followed by SYSTem:ERRor?, which is always answered: what comes before that answer belongs to the message. Where an
answer stays out, or more comes than was asked for, nobody can tell any more what belongs to what: the line is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from protocols.contract import Unreachable
from protocols.model import ScanStats

from .words import error_of

LONGEST_LINE: Final = 4096
MOST_LINES: Final = 2
"""An exchange has a value at most, and an error."""


class Line:
    """``await line.open()``, ``ask`` from as many tasks as you like, ``await line.close()``."""

    def __init__(self, host: str, port: int, timeout_s: float, stats: ScanStats) -> None:
        self.where = f"{host}:{port}"
        self._host, self._port, self._timeout_s, self._stats = host, port, timeout_s, stats
        self._turn = asyncio.Lock()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._under_way: set[asyncio.Task[tuple[str, int, str]]] = set()

    async def open(self) -> None:
        """Connect. Raises Unreachable."""
        try:
            async with asyncio.timeout(self._timeout_s):
                self._streams = await asyncio.open_connection(self._host, self._port, limit=LONGEST_LINE)
        except (OSError, TimeoutError) as error:
            raise Unreachable(
                f"{self.where}: no connection ({str(error) or 'timeout'}): check host, port and the instrument's power"
            ) from None

    async def close(self) -> None:
        """Nothing of this line is under way any more. Twice is fine."""
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        if self._streams is not None:
            _, writer = self._streams
            self._streams = None
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def ask(self, message: str, deadline: float = float("inf")) -> tuple[str, int, str]:
        """Send ``message``: its answer (empty if there is none), and the number (0: none) and text of the error that it caused.

        A task of its own brings the exchange to its end even where who asked is cancelled: the next answer is then the next one's.
        ``deadline`` (time of the loop) is the last moment to send it: TimeoutError. Raises Unreachable.
        """
        task = asyncio.ensure_future(self._exchange(message, deadline))
        self._under_way.add(task)
        task.add_done_callback(self._over)
        return await asyncio.shield(task)

    def _over(self, task: asyncio.Task[tuple[str, int, str]]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # seen, even where nobody waits any more: the next one to ask hears of the same trouble

    async def _exchange(self, message: str, deadline: float) -> tuple[str, int, str]:
        async with self._turn:
            if asyncio.get_running_loop().time() > deadline:
                raise TimeoutError
            if self._streams is None:
                raise Unreachable(f"{self.where}: the connection is lost: check the instrument")
            reader, writer = self._streams
            self._stats.requests += 1
            try:
                async with asyncio.timeout(self._timeout_s):
                    writer.write(f"{message}\n:SYSTem:ERRor?\n".encode())
                    await writer.drain()
                    return await self._answer(reader)
            except (OSError, EOFError, ValueError, TimeoutError, asyncio.LimitOverrunError) as error:
                raise self._lost(error, message) from None

    async def _answer(self, reader: asyncio.StreamReader) -> tuple[str, int, str]:
        """Raises ValueError where what comes cannot be the answer."""
        said: list[str] = []
        while True:
            line = await reader.readuntil(b"\n")
            text = line.decode("ascii").strip()
            if (error := error_of(text)) is not None:
                return (said[0] if said else "", *error)
            said.append(text)
            if len(said) == MOST_LINES:
                raise ValueError("more lines came than were asked for")

    def _lost(self, error: Exception, message: str) -> Unreachable:
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None
        what = "no answer in time" if isinstance(error, TimeoutError) else str(error)[:200] or type(error).__name__
        self._stats.errors["lost"] = self._stats.errors.get("lost", 0) + 1
        return Unreachable(f"{self.where}: {message}: {what}: closed, so that no late answer is taken for the next: check the instrument")
