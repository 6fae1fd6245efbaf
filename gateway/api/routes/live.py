"""The live stream over WebSocket and SSE: values, events, ledger and log as they come.

Both take the same wish and say the same messages; ``gateway.live`` decides what is told and when a client is cut. Here each client
is two tasks: one hears it, one tells it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterable
from typing import Annotated, Any, Final

import litestar
import msgspec
import structlog
from litestar import WebSocket
from litestar.connection import Request
from litestar.exceptions import WebSocketDisconnect
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import Parameter
from litestar.response import Response
from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send

from gateway.api.operation import Asked, Given, Reach, Seen, get
from gateway.api.websocket import Refusals, refuse
from gateway.api.who import shown_by
from gateway.identity.principal import Permission, Principal
from gateway.identity.sight import sight_of
from gateway.journal import Lane
from gateway.live import Client
from gateway.live.frame import At
from gateway.objections import NotAllowed, Objection, TooMany, Unfit
from gateway.tasks import first_to_end
from holdfast.shapes.live import KindName, LeastQuality, Position, Resume, Stream, Subscribe

log = structlog.get_logger("holdfast.live")

FIRST_WORD_S: Final = 10.0
"""A client says within this time what it wants."""
BETWEEN_WISHES_S: Final = 0.5
NOT_UNDERSTOOD, NOT_ALLOWED, SILENT = 4400, 4403, 4408
MEDIA_TYPE: Final = "text/event-stream"
HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
LONGEST_PLACE: Final = 200
MESSAGES: Final = "An event is a message: subscribed, latest, records, lost, skipped, live, ledger, log, heartbeat or ended."

_Socket = WebSocket[Principal, Any, Any]  # Any: Litestar's own


@litestar.websocket("/live", opt={"permission": Permission.SEE_VALUES, "reach": Reach.DEVICES}, middleware=[Refusals])
async def live(socket: _Socket, services: Given) -> None:
    """Follow what happens. The first message is a Subscribe; what is sent are the messages of ``holdfast.shapes.live``."""
    scope = socket.scope
    sight = sight_of(socket.user, services.site().tenants)
    try:
        client = services.live.open(socket.user, shown_by(scope), sight)
    except TooMany as objection:
        await refuse(objection, scope, socket.receive, socket.send)
        return
    try:
        await socket.accept()
        await _converse(socket, client)
    finally:
        services.live.close(client)


async def _converse(socket: _Socket, client: Client) -> None:
    await _until_one_ends(_hear(socket, client), _tell(socket, client), client.ended.wait())
    if client.why is not None:
        code, reason = client.why
        with contextlib.suppress(OSError):  # it has gone meanwhile
            await socket.close(code, reason)


async def _until_one_ends(*parts: Coroutine[Any, Any, object]) -> None:  # Any: asyncio's own
    """Nobody but this says in the log that a stream ended by a bug of ours."""
    try:
        await first_to_end(*parts)
    except Exception as error:
        log.error("live_failed", exc_info=error)
        raise


async def _hear(socket: _Socket, client: Client) -> None:
    """Take wishes until the client goes. One that cannot be met ends the stream with its reason."""
    wait_s: float | None = FIRST_WORD_S
    while True:
        try:
            async with asyncio.timeout(wait_s):
                said = await socket.receive_data("text")
            client.subscribe(msgspec.json.decode(said, type=Subscribe))
        except TimeoutError:
            return client.end(SILENT, f"no subscribe message came within {FIRST_WORD_S:g} s")
        except WebSocketDisconnect:
            return None
        except msgspec.DecodeError as error:
            return client.end(NOT_UNDERSTOOD, _fitting(f"this is no subscribe message: {error}"))
        except NotAllowed as objection:
            return client.end(NOT_ALLOWED, _fitting(objection.detail))
        wait_s = None
        await asyncio.sleep(BETWEEN_WISHES_S)


async def _tell(socket: _Socket, client: Client) -> None:
    with contextlib.suppress(OSError):  # it has gone: hearing knows
        while (frame := await client.next()) is not None:
            await socket.send({"type": "websocket.send", "bytes": None, "text": frame.data.decode()})


def _fitting(reason: str) -> str:
    """RFC 6455, 5.5.1: a close frame has room for 123 bytes of reason."""
    return reason.encode()[:123].decode(errors="ignore")


# ---------------------------------------------------------------------------------------------------- SSE


class EventStream(Response[bytes]):
    """The messages of a client as server-sent events (HTML, 9.2)."""

    def __init__(self, client: Client, close: Callable[[Client], None]) -> None:
        super().__init__(b"", media_type=MEDIA_TYPE, headers=HEADERS)
        self._client = client
        self._close = close

    def to_asgi_response(self, app: Any, request: Request[Any, Any, Any], **more: Any) -> ASGIResponse:  # Any: Litestar's own
        return _Events(self._client, self._close)


class _Events(ASGIResponse):
    def __init__(self, client: Client, close: Callable[[Client], None]) -> None:
        super().__init__(media_type=MEDIA_TYPE, headers=dict(HEADERS))
        self._client = client
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._serve(scope, receive, send)
        finally:
            self._close(self._client)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = self._client
        headers = [(key.encode(), value.encode()) for key, value in {"content-type": MEDIA_TYPE, **HEADERS}.items()]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await _until_one_ends(_tell_events(client, send), _gone(receive), client.ended.wait())
        if client.why is None:
            return
        if client.stalled:  # whoever reads nothing reads no farewell
            scope["state"]["abort"]()
            await _gone(receive)
            return
        code, reason = client.why
        farewell = msgspec.json.encode({"type": "ended", "code": code, "reason": reason})
        await send({"type": "http.response.body", "body": b"event: ended\ndata: %s\n\n" % farewell, "more_body": False})


async def _tell_events(client: Client, send: Send) -> None:
    while (frame := await client.next()) is not None:
        body = b"id: %s\nevent: %s\ndata: %s\n\n" % (place_of(client.told_to), frame.type.encode(), frame.data)
        await send({"type": "http.response.body", "body": body, "more_body": True})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def place_of(at: dict[Lane, At]) -> bytes:
    """Where a stream is, as an event's id: ``telemetry:3:1200,events:3:17`` (lane, epoch, seq)."""
    return ",".join(f"{lane.value}:{epoch}:{seq}" for lane, (epoch, seq) in at.items()).encode()


def resume_of(place: str) -> Resume:
    """The contrary. Raises Unfit."""
    found: dict[str, Position] = {}
    try:
        for part in place.split(","):
            lane, epoch, seq = part.split(":")
            found[lane] = Position(epoch=int(epoch), seq=int(seq))
        return msgspec.convert(msgspec.to_builtins(found), Resume)
    except ValueError as error:
        advice = "send the id of the last event that came, as it came: telemetry:EPOCH:SEQ,events:EPOCH:SEQ"
        raise Unfit(f"{place[:LONGEST_PLACE]!r} is no place in the stream: {error}", advice) from None


Names = Annotated[list[str] | None, Parameter(max_items=200, description="Names, where * stands for any text and ? for any letter.")]


@get(
    "/live/events",
    id="follow_live_events",
    permission=Permission.SEE_VALUES,
    reach=Reach.DEVICES,
    tag="live",
    summary="Follow what happens, as server-sent events",
    problems=(403,),
    responses={200: ResponseSpec(str, media_type=MEDIA_TYPE, description=MESSAGES, generate_examples=False)},
)
async def follow_live_events(
    request: Asked,
    services: Given,
    sight: Seen,
    stream: Annotated[list[Stream] | None, Parameter(max_items=4, description="What to follow; values unless said otherwise.")] = None,
    device: Names = None,
    tag: Names = None,
    kind: Annotated[list[KindName] | None, Parameter(max_items=13, description="Kinds of value.")] = None,
    least_quality: Annotated[LeastQuality, Parameter(description="Values of a worse quality are left out.")] = "bad",
    every_ms: Annotated[int, Parameter(ge=0, le=3_600_000, description="At most one value of a tag in this time; 0: every.")] = 0,
    snapshot: Annotated[bool, Parameter(description="Begin with the latest values.")] = True,
    resume: Annotated[str | None, Parameter(max_length=LONGEST_PLACE, description="As Last-Event-ID, which goes before.")] = None,
) -> EventStream:
    """Values, events, ledger and log as they come; each event's id is where to resume (Last-Event-ID). A slow client is told what it
    was not told, and cut when it takes nothing."""
    place = request.headers.get("last-event-id", "")[:LONGEST_PLACE] or resume
    wish = _wish(
        streams=tuple(stream or ("values",)),
        devices=_listed(device),
        tags=_listed(tag),
        kinds=_listed(kind),
        least_quality=least_quality,
        every_ms=every_ms,
        snapshot=snapshot,
        resume=resume_of(place) if place else None,
    )
    client = services.live.open(request.user, shown_by(request.scope), sight)
    try:
        client.subscribe(wish)
    except Objection:
        services.live.close(client)
        raise
    return EventStream(client, services.live.close)


def _listed(given: Iterable[str] | None) -> tuple[str, ...]:
    return tuple(given or ())


def _wish(**said: Any) -> Subscribe:  # Any: its fields
    """Raises Unfit: the same limits as over WebSocket."""
    try:
        return msgspec.convert({"type": "subscribe", **msgspec.to_builtins(said)}, Subscribe, str_keys=True)
    except msgspec.ValidationError as error:
        raise Unfit(f"this cannot be followed: {error}", "see the parameters in /api/v1/openapi.json") from None


OPERATIONS: Final = (follow_live_events,)
SOCKETS: Final = (live,)
