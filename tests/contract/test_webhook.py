"""The driver contract for webhooks: node as the sender, each message signed; and senders that are hostile, by name.

A webhook cannot be written, is asked by nobody, and waits for who comes: those abilities are not its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from protocols.contract import Driver
from protocols.http.config import Signed, Webhook, WebhookDevice, WebhookTag
from protocols.http.webhook import WEBHOOK
from protocols.model import Kind
from protocols.secret import FromFile
from tests.contract.driver_suite import GHOST, LEVEL, ONE, SETPOINT, STUCK, TWO, Ability, DriverSuite, Rig, until
from tests.contract.test_http import EXPECTED, VALUES
from tests.peers.http_sender import HttpSender

SECRET: Final = "canary-webhook-secret-0123456789"
PATHS: Final = {ONE: "/hooks/one", TWO: "/hooks/two"}
TRUTH: Final = 4242
LIE: Final = 666
KINDS: Final[dict[str, Kind]] = {name: kind for name, (kind, _, _) in VALUES.items()}


def devices() -> tuple[WebhookDevice, ...]:
    values = [WebhookTag(name=name, kind=kind, at=f"$['{name}']", from_text=kind is Kind.BYTES) for name, kind in KINDS.items()]
    names = {LEVEL: Kind.UINT16, GHOST: Kind.UINT16, SETPOINT: Kind.FLOAT32, STUCK: Kind.UINT16}
    others = [WebhookTag(name=name, kind=kind, at=f"$.{name}") for name, kind in names.items()]
    one = WebhookDevice(name=ONE, path=PATHS[ONE], rate_per_s=1000, burst=1000, tags=(*values, *others))
    return (one, WebhookDevice(name=TWO, path=PATHS[TWO], rate_per_s=1000, burst=1000, tags=(others[0],)))


def options(folder: Path, port: int, **more: Any) -> Webhook:  # Any: fields of Webhook
    file = folder / "secret"
    file.write_text(SECRET)
    told = {"auth": Signed(secret=FromFile(path=str(file))), "rate_per_s": 10000, "burst": 10000, "request_timeout_s": 0.3, **more}
    return Webhook(**{"name": "hooks", "listen_port": port, "devices": devices(), **told})


BROKEN: Final = (
    WebhookDevice(name="one", path="/a", tags=(WebhookTag(name="a", kind=Kind.UINT16, at="$.a", writable=True),)),
    WebhookDevice(name="one", path="/a", format="json", tags=(WebhookTag(name="b", kind=Kind.UINT16, at="$["),)),  # type: ignore[arg-type] # a StrEnum's text, as a document has it
)


class WebhookRig:
    """node posts both devices' documents again and again to whoever listens."""

    driver: Driver = WEBHOOK
    expected = EXPECTED
    faults = frozenset({"devices[1].name", "devices[1].path", "devices[0].tags[0].writable", "devices[1].tags[0].at", "tls"})

    def __init__(self, sender: HttpSender, given: Webhook) -> None:
        self.sender, self.options = sender, given
        self.where = f"127.0.0.1:{given.listen_port}"
        self.faulty = msgspec.structs.replace(given, listen_host="0.0.0.0", devices=BROKEN)

    async def furnish(self) -> None:
        whole = "{" + ",".join(f'"{name}":{text}' for name, (_, text, _) in VALUES.items()) + f',"{LEVEL}":1}}'
        await self.sender.document(ONE, whole)
        await self.sender.document(TWO, json.dumps({LEVEL: 1}))
        for device, path in PATHS.items():
            await self.sender.pace(f"http://{self.where}{path}", device, style="plain", secret=SECRET)

    async def change(self, device: str, value: int) -> None:
        whole = "{" + ",".join(f'"{name}":{text}' for name, (_, text, _) in VALUES.items()) + f',"{LEVEL}":{value}}}'
        await self.sender.document(device, whole)

    async def hush(self, device: str, silent: bool) -> None:
        raise AssertionError("nobody asks a webhook's device, so it cannot fail to answer")

    async def lose(self) -> None:
        raise AssertionError("nobody connects to a webhook's device")

    async def restore(self) -> None:
        raise AssertionError("as above")

    async def seen(self) -> list[str]:
        return []

    @asynccontextmanager
    async def hostile(self, misdeed: str) -> AsyncIterator[HostileSender]:
        level = WebhookTag(name=LEVEL, kind=Kind.UINT16, at=f"$.{LEVEL}")
        device = WebhookDevice(name=ONE, path=PATHS[ONE], max_bytes=100_000, silence_s=0.3, rate_per_s=1000, burst=1000, tags=(level,))
        given = msgspec.structs.replace(self.options, devices=(device,), max_connections=20, max_connections_per_peer=16)
        peer = HostileSender(given, misdeed)
        doing = asyncio.ensure_future(peer.work())
        try:
            yield peer
        finally:
            doing.cancel()
            await asyncio.gather(doing, return_exceptions=True)


def head(body: bytes, *, secret: str = SECRET, at: float | None = None, length: int | None = None, more: bytes = b"") -> bytes:
    """The head of a post, signed."""
    moment = str(int(time.time() if at is None else at)).encode()
    signature = hmac.digest(secret.encode(), moment + b"." + body, "sha256").hex().encode()
    lines = [
        b"POST /hooks/one HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json",
        b"Content-Length: %d" % (len(body) if length is None else length),
        b"X-Timestamp: " + moment,
        b"X-Signature: " + signature,
        b"X-Delivery-Id: " + os.urandom(6).hex().encode(),
    ]
    return b"\r\n".join(lines) + b"\r\n" + more + b"\r\n"


def message(body: bytes, **how: Any) -> bytes:  # Any: see head
    return head(body, **how) + body


def _level(value: int) -> bytes:
    return json.dumps({LEVEL: value}).encode()


async def _drip(writer: asyncio.StreamWriter, data: bytes) -> None:
    for byte in data:
        writer.write(bytes((byte,)))
        await writer.drain()
        await asyncio.sleep(0.02)  # it drips: that is what it does


async def _flood(writer: asyncio.StreamWriter, begin: bytes, part: bytes) -> None:
    writer.write(begin)
    for _ in range(3000):
        writer.write(part)
        await writer.drain()


Misdeed = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def _says(data: Callable[[], bytes]) -> Misdeed:
    async def misdeed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data())
        await writer.drain()
        await reader.read(65536)

    return misdeed


async def _nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def _slow_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await _drip(writer, message(_level(LIE)))


async def _slow_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    body = _level(LIE) + b" " * 500
    writer.write(head(body))
    await _drip(writer, body)


async def _endless_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await _flood(writer, b"POST /hooks/one HTTP/1.1\r\nHost: x\r\n", b"X-Flood: " + b"x" * 4000 + b"\r\n")


async def _endless_line(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await _flood(writer, b"POST /hooks/one", b"x" * 16384)


async def _endless_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await _flood(writer, b"POST /hooks/one HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", b"4000\r\n" + b" " * 16384 + b"\r\n")


async def _tiny_chunks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await _flood(writer, b"POST /hooks/one HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n" * 3000)


async def _pipeline(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await _flood(writer, b"", b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n" * 300)


MISDEEDS: Final[dict[str, Misdeed]] = {
    "unsigned": _says(lambda: b"POST /hooks/one HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(_level(LIE)) + _level(LIE)),
    "wrong-secret": _says(lambda: message(_level(LIE), secret="guessed-secret-guessed-secret")),
    "old": _says(lambda: message(_level(LIE), at=time.time() - 3600)),
    "from-the-future": _says(lambda: message(_level(LIE), at=time.time() + 3600)),
    "body-changed": _says(lambda: message(_level(LIE)).replace(b"666", b"667")),
    "time-changed": _says(lambda: message(_level(LIE)).replace(b"X-Timestamp: 1", b"X-Timestamp: 01")),
    "get": _says(lambda: message(_level(LIE)).replace(b"POST", b"GET", 1)),
    "packed": _says(lambda: message(_level(LIE), more=b"Content-Encoding: gzip\r\n")),
    "too-long": _says(lambda: message(_level(LIE) + b" " * 200_000)),
    "length-that-lies": _says(lambda: head(_level(LIE), length=10**12) + _level(LIE)),
    "closed-in-the-body": _says(lambda: head(_level(LIE), length=500) + _level(LIE)),
    "no-http": _says(lambda: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(300)),
    "rubbish": _says(lambda: os.urandom(5000)),
    "chunked-garbage": _says(lambda: b"POST /hooks/one HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n\xff\xfezz\r\n"),
    "unreadable": _says(lambda: message(b"[" * 90_000)),
    "nothing": _nothing,
    "slow-head": _slow_head,
    "slow-body": _slow_body,
    "endless-head": _endless_head,
    "endless-line": _endless_line,
    "endless-body": _endless_body,
    "tiny-chunks": _tiny_chunks,
    "pipeline": _pipeline,
}


class HostileSender:
    """Eight at once, again and again, until healed; then one that posts the truth."""

    truth = TRUTH

    def __init__(self, given: Webhook, misdeed: str) -> None:
        self.options = given
        self._misdeed = MISDEEDS[misdeed]
        self._healed = asyncio.Event()

    def heal(self) -> None:
        self._healed.set()

    async def work(self) -> None:
        bad = [asyncio.ensure_future(self._again(self._misdeed)) for _ in range(8)]
        try:
            await self._healed.wait()
        finally:
            for each in bad:
                each.cancel()
            await asyncio.gather(*bad, return_exceptions=True)
        await self._again(_says(lambda: message(_level(TRUTH))))

    async def _again(self, misdeed: Misdeed) -> None:
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.options.listen_port)
                try:
                    await misdeed(reader, writer)
                finally:
                    writer.close()
            await asyncio.sleep(0.005)  # nobody may be listening yet


class TestWebhook(DriverSuite):
    misdeeds = tuple(MISDEEDS)
    abilities = frozenset[Ability]()

    @pytest.fixture
    async def rig(self, tmp_path: Path, request: pytest.FixtureRequest, free_port: Callable[[], int]) -> AsyncIterator[Rig]:
        sender = HttpSender()
        rig = WebhookRig(sender, options(tmp_path, free_port()))
        if "misdeed" in request.fixturenames:  # the hostile sender stands in its place
            yield rig
            return
        async with sender:
            await rig.furnish()
            yield rig
            await until("node is still there", lambda: sender.pid > 0)
