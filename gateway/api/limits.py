"""How much anybody may take of the API at once, so that a flood, or a client that never ends its request, costs the others nothing.

Outermost, before anything is read or anybody known: so many requests at once, in all and of one address (503), so many a second of
one address (429); a request whose body does not come (408), and an answer that nobody takes, are given up. Who is known has a
rate of their own as well, wherever they come from (``who.py``). Live streams count when they begin and no longer.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import msgspec
import structlog
from litestar.enums import ScopeType
from litestar.exceptions import ClientException
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from gateway.api import problems
from gateway.config.api import Limits
from gateway.identity.attempts import place
from gateway.objections import Objection, TooMany, Unavailable
from protocols.clock import Clock

log = structlog.get_logger("holdfast.api")

BURST_S: Final = 2.0
MOST_KEPT: Final = 20_000
RETRY_AFTER_S: Final = 1
STREAM: Final = b"text/event-stream"


@dataclass(slots=True)
class _Bucket:
    left: float
    at: float


class Rates:
    """So many a second of each caller, and as many as two seconds bring in a burst (a token bucket each)."""

    def __init__(self, per_s: float, clock: Clock) -> None:
        self._per_s = per_s
        self._most = max(1.0, per_s * BURST_S)
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}

    def take(self, who: str) -> None:
        """Count a request of ``who``. Raises TooMany."""
        now = self._clock.monotonic()
        bucket = self._buckets.get(who)
        if bucket is None:
            self._make_room(now)
            bucket = self._buckets[who] = _Bucket(self._most, now)
        bucket.left = min(self._most, bucket.left + (now - bucket.at) * self._per_s)
        bucket.at = now
        if bucket.left < 1:
            wait = (1 - bucket.left) / self._per_s
            raise TooMany(f"more than {self._per_s:g} requests a second", "ask less often, or follow the live stream", retry_after_s=wait)
        bucket.left -= 1

    def _make_room(self, now: float) -> None:
        if len(self._buckets) >= MOST_KEPT:  # whoever has been quiet for so long has a full bucket, as somebody new has
            self._buckets = {who: bucket for who, bucket in self._buckets.items() if now - bucket.at < BURST_S}
        if len(self._buckets) >= MOST_KEPT:
            self._buckets.clear()


class Limited:
    """The application ``app`` within ``limits``."""

    def __init__(self, app: ASGIApp, limits: Limits, clock: Clock) -> None:
        self._app = app
        self._limits = limits
        self._rates = Rates(limits.requests_per_s, clock)
        self._answering = 0
        self._of: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        client = scope.get("client")
        address = place(client[0]) if client else ""
        try:
            self._enter(address)
        except Objection as objection:
            await _refuse(objection, scope["path"], send)
            return
        await _Exchange(self, address, scope, receive, send, self._limits.patience_s).run(self._app)

    def _enter(self, address: str) -> None:
        """Raises TooMany, Unavailable."""
        self._rates.take(address)
        if self._answering >= self._limits.requests or self._of[address] >= self._limits.requests_per_address:
            raise Unavailable("too many requests are being answered", "ask again in a moment")
        self._answering += 1
        self._of[address] += 1

    def leave(self, address: str) -> None:
        self._answering -= 1
        self._of[address] -= 1
        if not self._of[address]:
            del self._of[address]


class _Exchange:
    """One request and its answer."""

    def __init__(self, limited: Limited, address: str, scope: Any, receive: Receive, send: Send, patience_s: float) -> None:
        self._limited = limited
        self._address = address
        self._scope = scope
        self._receive = receive
        self._send = send
        self._patience_s = patience_s
        self._until = 0.0
        self._counts = True
        self._read = False
        self._late = False
        self._stream = False

    async def run(self, app: ASGIApp) -> None:
        self._until = asyncio.get_running_loop().time() + self._patience_s
        try:
            await app(self._scope, self._in_time, self._taken)
        finally:
            self._leave()

    async def _in_time(self) -> Any:  # Any: an ASGI message
        if self._read:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError:
            self._read = self._late = True
            raise ClientException(
                f"the request was not sent within {self._patience_s:g} s", status_code=HTTPStatus.REQUEST_TIMEOUT
            ) from None
        self._read = not message.get("more_body", False)
        return message

    async def _taken(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._begun(message)
        if self._stream:
            await self._send(message)
            return
        try:
            async with asyncio.timeout(self._patience_s):
                await self._send(message)
        except TimeoutError:
            log.warning("answer_not_taken", address=self._address, path=self._scope["path"])
            abort = (self._scope.get("state") or {}).get("abort")
            if abort is not None:
                abort()

    def _begun(self, message: Any) -> None:  # Any: the start of an answer
        if self._late:  # the rest of the request may come for ever
            message["headers"] = [*message["headers"], (b"connection", b"close")]
        self._stream = any(name.lower() == b"content-type" and value.startswith(STREAM) for name, value in message["headers"])
        if self._stream:
            self._leave()

    def _leave(self) -> None:
        if self._counts:
            self._counts = False
            self._limited.leave(self._address)


async def _refuse(objection: Objection, path: str, send: Send) -> None:
    status = 429 if isinstance(objection, TooMany) else 503
    wait = math.ceil(objection.retry_after_s) if isinstance(objection, TooMany) else RETRY_AFTER_S
    body = msgspec.json.encode(problems.details(status, objection.code, objection.detail, objection.advice, path))
    headers = [
        (b"content-type", problems.MEDIA_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"retry-after", str(wait).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
