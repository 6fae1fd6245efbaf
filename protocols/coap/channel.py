"""Whole bodies to and from one device: blocks (RFC 7959) put together within bounds, each message sealed where there are keys.

A body is asked for block by block; each must have the size, the place and the version (ETag) that it should, or the whole is asked for
once more and then given up. Nothing longer than the resource's ``max_bytes`` is collected, in no more than ``MAX_BLOCKS`` pieces, within
``LONGEST_TRANSFER`` times the patience for one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec

from protocols.coap.message import (
    CONTINUE,
    TOO_LARGE,
    UNAUTHORIZED,
    Block,
    Message,
    Option,
    said,
    uint,
)
from protocols.coap.oscore import Binding, Challenge, Context, Sealed
from protocols.coap.wire import Missed, Wire

MAX_BLOCKS: Final = 4096
LONGEST_TRANSFER: Final = 30
"""A body may take so many times as long as one answer."""
TRIES: Final = 2

Before = Callable[[], None]
Heard = Callable[[Message | None], None]


class Channel:
    """One device, as who asks sees it: bodies, not blocks; plain, whether sealed or not."""

    def __init__(self, wire: Wire, timeout_s: float, block_size: int, context: Context | None) -> None:
        self.wire = wire
        self._context = context
        self._patience_s = timeout_s * LONGEST_TRANSFER
        self._exponent = block_size.bit_length() - 5
        self._bindings: dict[bytes, Binding] = {}
        """By token: what notifications are opened with."""

    async def open(self) -> None:
        """Raises Misfit."""
        if self._context is not None:
            self._context.open()

    async def close(self) -> None:
        await self.wire.close()
        if self._context is not None:
            await self._context.leave()

    async def fetch(self, request: Message, limit: int, *, confirmable: bool = True, urgent: bool = False) -> Message:
        """The response to a GET, its body whole. Raises Missed, DriverError."""
        response = await self._ask(self._sized(request), confirmable=confirmable, urgent=urgent)
        return await self.whole(request, response, limit, urgent=urgent)

    async def whole(self, request: Message, first: Message, limit: int, *, urgent: bool = False) -> Message:
        """``first`` answered ``request``: with the blocks that follow it, if any. Raises Missed, DriverError."""
        if not is_partial(first):
            self._bounded(len(first.payload), limit)
            return first
        plain = msgspec.structs.replace(request, options=request.but(without=(Option.OBSERVE, Option.ETAG)), token=b"", payload=b"")
        for left in reversed(range(TRIES)):
            try:
                async with asyncio.timeout(self._patience_s):
                    return await self._rest(plain, first, limit, urgent=urgent)
            except TimeoutError:
                raise self._missed("slow", f"its body was not whole within {self._patience_s:g} s") from None
            except _Changed:
                if left == 0:
                    break
            first = await self._ask(self._sized(plain), urgent=urgent)
        raise self._missed("broken", "its body changed again and again while it was read in blocks")

    async def _rest(self, request: Message, first: Message, limit: int, *, urgent: bool) -> Message:
        body, version, code = bytearray(), first.first(Option.ETAG), first.code
        response = first
        for _ in range(MAX_BLOCKS):
            block = response.block(Option.BLOCK2)
            if block is None or response.code != code or response.first(Option.ETAG) != version:
                raise _Changed
            if block.start != len(body) or not block.fits(len(response.payload)) or (block.more and not response.payload):
                raise self._missed("broken", f"block {block.number} of its body is not what was asked for")
            body += response.payload
            self._bounded(len(body), limit)
            if not block.more:
                return msgspec.structs.replace(first, payload=bytes(body), options=first.but(without=(Option.BLOCK2,)))
            wanted = Block(number=len(body) // block.size, more=False, exponent=block.exponent)
            response = await self._ask(msgspec.structs.replace(request, options=request.but(wanted.option(Option.BLOCK2))), urgent=urgent)
        raise self._missed("broken", f"its body has more than {MAX_BLOCKS} blocks")

    async def send(self, request: Message, *, before: Before | None = None) -> Message:
        """The response to a PUT or POST, in blocks if it must be. Urgent. Raises Missed, DriverError, what ``before`` raises."""
        body = request.payload
        if len(body) <= min(self.wire.largest, 1 << self._exponent + 4):
            response = await self._ask(request, urgent=True, before=before)
            if response.code != TOO_LARGE or response.block(Option.BLOCK1) is None:
                return response
            self._smaller(response)
        try:
            async with asyncio.timeout(self._patience_s):
                return await self._in_blocks(request, body, before)
        except TimeoutError:
            raise self._missed("slow", f"the body was not taken within {self._patience_s:g} s") from None

    async def _in_blocks(self, request: Message, body: bytes, before: Before | None) -> Message:
        done, exponent = 0, self._exponent
        for _ in range(MAX_BLOCKS):
            size = 1 << exponent + 4
            block = Block(number=done // size, more=done + size < len(body), exponent=exponent)
            options = request.but(block.option(Option.BLOCK1), *([(int(Option.SIZE1), uint(len(body)))] if not done else []))
            part = msgspec.structs.replace(request, options=options, payload=body[done : done + size])
            response = await self._ask(part, urgent=True, before=before if not done else None)
            answer = response.block(Option.BLOCK1)
            if response.code == TOO_LARGE and not done and answer is not None and answer.exponent < exponent:
                exponent = answer.exponent
                continue
            if not block.more or not response.is_success:
                return response
            if answer is None or answer.number != block.number or response.code not in (CONTINUE, 0x44, 0x41):
                raise self._missed("broken", f"block {block.number} was answered {said(response.code)}, not with leave to go on")
            done += size
            exponent = min(exponent, answer.exponent)
        raise self._missed("broken", f"the body has more than {MAX_BLOCKS} blocks")

    def _smaller(self, response: Message) -> None:
        block = response.block(Option.BLOCK1)
        if block is not None:
            self._exponent = min(self._exponent, block.exponent)

    async def observe(self, request: Message, heard: Heard) -> Message:
        """Ask and listen under ``request.token``: the first answer, block one of its body alone. Raises Missed, DriverError.

        ``heard`` gets each notification as it comes, block one alone, and None when there will be no more.
        """
        token = request.token
        self.wire.listen(token, lambda message: self._heard(token, message, heard))
        try:
            return await self._ask(self._sized(request))
        except BaseException:
            self.forget(token)
            raise

    def forget(self, token: bytes) -> None:
        self.wire.forget(token)
        self._bindings.pop(token, None)

    def dismiss(self, request: Message) -> None:
        """Tell the device that nobody listens any more (RFC 7641, 3.6), if that can be told at once."""
        self.forget(request.token)
        if self._context is None:
            self.wire.tell(msgspec.structs.replace(request, options=request.but((Option.OBSERVE, b"\x01"))))

    def _heard(self, token: bytes, message: Message | None, heard: Heard) -> None:
        if message is not None and self._context is not None:
            binding = self._bindings.get(token)
            try:
                message = self._opened(message, binding) if binding is not None else None
            except Missed:
                return  # counted; whoever sent it does not have the keys
            if message is None:
                return
        heard(message)

    async def _ask(self, request: Message, *, confirmable: bool = True, urgent: bool = False, before: Before | None = None) -> Message:
        """One message and its answer, sealed where there are keys."""
        context = self._context
        if context is None:
            return await self.wire.ask(request, confirmable=confirmable, urgent=urgent, before=before)
        if not request.token:
            request = msgspec.structs.replace(request, token=self.wire.token())
        for left in (1, 0):
            await context.ready()
            sealed, binding = context.seal(request)
            if request.first(Option.OBSERVE) is not None:
                self._bindings[request.token] = binding
            outer = await self.wire.ask(sealed, confirmable=confirmable, urgent=urgent, before=before)
            response = self._opened(outer, binding)
            echo = response.first(Option.ECHO)
            if response.code != UNAUTHORIZED or echo is None or left == 0:
                return response
            request = msgspec.structs.replace(request, options=request.but((Option.ECHO, echo)))  # it lost count: we are fresh
        raise AssertionError("the loop returns")

    def _opened(self, outer: Message, binding: Binding) -> Message:
        if outer.first(Option.OSCORE) is None:
            if outer.is_success:
                raise self._missed("unsealed", "its answer is not sealed with OSCORE: it is not believed")
            raise self._missed("unsealed", f"it answers {said(outer.code)} without OSCORE: check the keys and ids on both sides")
        assert self._context is not None
        try:
            return self._context.open_sealed(outer, binding)[0]
        except (Sealed, Challenge) as error:
            raise self._missed("unsealed", f"what it sent is sealed, and {error}") from None

    def _sized(self, request: Message) -> Message:
        """Asks for small blocks where the device should have them."""
        if self._exponent == 6 or request.first(Option.BLOCK2) is not None:
            return request
        wish = Block(number=0, more=False, exponent=self._exponent)
        return msgspec.structs.replace(request, options=request.but(wish.option(Option.BLOCK2)))

    def _bounded(self, length: int, limit: int) -> None:
        if length > limit:
            raise self._missed("too_large", f"its body has more than the {limit} bytes of max_bytes")

    def _missed(self, reason: str, text: str) -> Missed:
        self.wire.count(reason)
        return Missed(reason, f"{self.wire.where}: {text}")


class _Changed(Exception):
    """The body is not the one whose first block was read."""


def is_partial(response: Message) -> bool:
    """Whether more blocks of its body follow."""
    block = response.block(Option.BLOCK2)
    return response.is_success and block is not None and (block.more or block.number > 0)
