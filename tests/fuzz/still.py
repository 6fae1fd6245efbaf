"""An event loop whose time jumps to the next timer as soon as nothing is left to do, and a wire between a line and a peer in it.

A hundred thousand time-outs then cost no time. Everything of Holdfast's is real; the wire hands over what the peer makes of
each request: in pieces, late, or not at all.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

BEGINNING: Final = 1000.0
UTC_NS: Final = 1_700_000_000_000_000_000
Piece = tuple[float, bytes]
"""Seconds after the one before it, and what comes then."""
Answer = Callable[[bytes], list[Piece]]


class _Selector(selectors.DefaultSelector):
    """Waits for no timer; a file descriptor (a serial port's) gets ``grace_s`` to become ready."""

    grace_s = 0.0
    passed = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0 if timeout is not None and timeout <= 0 else self.grace_s if timeout is not None else None)
        if not ready and timeout is not None and timeout > 0:
            self.passed += timeout
        return ready


class StillLoop(asyncio.SelectorEventLoop):
    """``answer`` says what a peer sends back for what a line writes; all connections lead to that one peer."""

    def __init__(self, answer: Answer, grace_s: float = 0.0) -> None:
        self._still = _Selector()
        self._still.grace_s = grace_s
        super().__init__(self._still)
        self.answer = answer
        self.current: _Wire | None = None

    def time(self) -> float:
        return BEGINNING + self._still.passed

    async def create_connection(
        self, protocol_factory: Callable[[], Any], *_: Any, **__: Any
    ) -> Any:  # Any: the base class's own signature
        protocol = cast(asyncio.Protocol, protocol_factory())
        self.current = _Wire(self, protocol)
        protocol.connection_made(self.current)
        return self.current, protocol


class _Wire(asyncio.Transport):
    def __init__(self, loop: StillLoop, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._loop, self._protocol = loop, protocol
        self._closing = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # Any: the base class's own signature
        return default

    def is_closing(self) -> bool:
        return self._closing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        after = 0.0
        for pause_s, piece in self._loop.answer(bytes(data)):
            after += pause_s
            self._loop.call_later(after, self._loop_deliver, piece)

    def _loop_deliver(self, piece: bytes) -> None:
        """What is late goes to the connection that is there by then, as a serial device server does it."""
        wire = self._loop.current
        if wire is None or wire._closing:
            return
        if piece:
            wire._protocol.data_received(piece)
        else:
            wire.close()

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._loop.call_soon(self._protocol.connection_lost, None)

    def abort(self) -> None:
        self.close()


class LoopClock:
    """Holdfast's clock on the loop's own time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def time_ns(self) -> int:
        return UTC_NS + round((self._loop.time() - BEGINNING) * 1e9)

    def monotonic(self) -> float:
        return self._loop.time()

    async def sleep_until(self, moment: float) -> None:
        await asyncio.sleep(max(0.0, moment - self._loop.time()))


class Complaints:
    """What a loop's exception handler was told: errors in callbacks, which nobody else sees."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.heard: list[BaseException | str] = []
        loop.set_exception_handler(self._hear)

    def _hear(self, loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:  # Any: asyncio's own
        self.heard.append(context.get("exception") or str(context["message"]))

    def none(self) -> None:
        """Raises the first complaint."""
        for one in self.heard:
            if isinstance(one, BaseException):
                raise one
            raise AssertionError(one)
