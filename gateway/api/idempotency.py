"""Idempotency keys (draft-ietf-httpapi-idempotency-key-header): a write is carried out once, however often it is sent.

Before a write with an Idempotency-Key is carried out, that it begins is made durable; after it, its answer is. The same request
with the same key gets that answer again, marked. Another request with the key is refused; so is one whose first has begun and not
ended: nobody knows yet, or any more (the gateway was killed in between), whether it was carried out, and to say so is better
than to do it twice.

Kept are the answers of what was carried out, for a day, within bounds: the oldest go first. What was refused changed nothing and
may be tried again with the same key. Neither keys nor bodies are kept, only digests: that of a body is made with the key, so that
nobody who reads the file can guess what was in it. Answers that hold a secret (``idempotency=False`` in the declaration, a cookie,
``no-store``) never get here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Final

from litestar.datastructures import MutableScopeHeaders
from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPResponseStartEvent, HTTPScope, Message, Receive, Scope, Send
from litestar.types.asgi_types import ReceiveMessage

from gateway.api.bodies import header, may
from gateway.idempotency import Answer, Kept
from gateway.objections import Conflict, KeyReused, Unfit

HEADER: Final = b"idempotency-key"
REPLAYED: Final = "Idempotency-Replayed"
_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}")
_TOLD_AGAIN: Final = (b"content-type", b"location", b"etag")
"""Headers of an answer that belong to it, and not to the moment."""


def idempotent(kept: Kept) -> Callable[[ASGIApp], ASGIApp]:
    """The middleware, for what ``kept`` remembers. It comes after ``bodies``: the body is there in one message."""

    def wrapped(app: ASGIApp) -> ASGIApp:
        async def once(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != ScopeType.HTTP or not await _is_meant(scope):
                await app(scope, receive, send)
                return
            id, fingerprint, again = await _read(scope, receive)
            known = await kept.begin(id, fingerprint)
            if isinstance(known, Answer):
                await _replay(known, send)
            elif known == "begun":
                await _carry_out(app, scope, again, send, kept, id)
            else:
                raise _refusal(known)

        return once

    return wrapped


async def _is_meant(scope: HTTPScope) -> bool:
    """Whether it is a write with a key, of somebody who may do it (else it is refused without a look at what there was)."""
    handler = scope["route_handler"]
    keyed = handler.opt.get("idempotency") and any(name == HEADER for name, _ in scope["headers"])
    return bool(keyed) and scope.get("user") is not None and await may(scope, handler)


async def _read(scope: HTTPScope, receive: Receive) -> tuple[str, str, Receive]:
    """The id under which the write is known, its fingerprint, and how to read its body once more. Raises Unfit."""
    key = header(scope, HEADER)
    if not _KEY.fullmatch(key) or sum(name == HEADER for name, _ in scope["headers"]) > 1:
        raise Unfit("the Idempotency-Key is none", "send one, of 1 to 255 visible ASCII letters, such as a UUID")
    first = await receive()
    told = False

    async def again() -> ReceiveMessage:
        nonlocal told
        if told:
            return await receive()
        told = True
        return first

    caller = scope["user"].called
    target = f"{scope['method']} {scope['path']}?{scope.get('query_string', b'').decode('latin-1')} {header(scope, b'if-match')}\n"
    body = first.get("body", b"") if first["type"] == "http.request" else b""
    id = hashlib.sha256(f"{caller}\n{key}".encode()).hexdigest()
    secret = hashlib.sha256(key.encode()).digest()
    return id, hashlib.blake2b(target.encode() + body, key=secret, digest_size=32).hexdigest(), again


async def _replay(answer: Answer, send: Send) -> None:
    if answer.body is None:
        raise Conflict("it was carried out before, with this key, and its answer was too long to be kept", "look at the state of things")
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers]
    headers += [(REPLAYED.lower().encode(), b"true"), (b"content-length", str(len(answer.body)).encode())]
    start: HTTPResponseStartEvent = {"type": "http.response.start", "status": answer.status, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": answer.body, "more_body": False})


async def _carry_out(app: ASGIApp, scope: Scope, receive: Receive, send: Send, kept: Kept, id: str) -> None:
    """Nothing of the answer is sent before it is kept: whoever gets it may rely on getting it again."""
    messages: list[Message] = []

    async def gather(message: Message) -> None:
        messages.append(message)

    try:
        await app(scope, receive, gather)
    except BaseException as error:
        if isinstance(error, Exception):
            await kept.end(id, None)
        kept.lost(id)
        raise
    await kept.end(id, _kept_of(messages))
    for message in messages:
        await send(message)


def _kept_of(messages: list[Message]) -> Answer | None:
    start = next((one for one in messages if one["type"] == "http.response.start"), None)
    if start is None or not (200 <= start["status"] < 300 or start["status"] == 500):
        return None
    headers = MutableScopeHeaders.from_message(start)
    if "set-cookie" in headers or "no-store" in headers.get("cache-control", ""):
        return None
    body = b"".join(one.get("body", b"") for one in messages if one["type"] == "http.response.body")
    told = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in start["headers"] if name.lower() in _TOLD_AGAIN]
    return Answer(status=start["status"], headers=told, body=body)


def _refusal(known: str) -> Conflict | KeyReused:
    if known == "other":
        return KeyReused("this Idempotency-Key was sent with another request before", "take a new key for each new thing to do")
    if known == "running":
        return Conflict("the first request with this Idempotency-Key has not ended", "ask again in a moment, with the same key")
    return Conflict(
        "the first request with this Idempotency-Key was cut off, and nobody knows whether it was carried out",
        "look at the state of things, then send it with a new key if need be",
    )
