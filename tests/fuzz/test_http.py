"""HTTP: what a server says beside its values, what a sender of webhooks says, and whole messages on sockets.

The heads of messages are parsed by aiohttp; what it makes of spoilt ones is seen over a real socket, with fewer inputs. No spoilt
message may bring a value that was not signed.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hmac
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from yarl import URL

from protocols.clock import SystemClock
from protocols.contract import DriverError
from protocols.http import config
from protocols.http.client import Client, Missed
from protocols.http.config import Http, Signed, Webhook, WebhookDevice, WebhookTag
from protocols.http.digest import answer, strongest
from protocols.http.guard import Guard
from protocols.http.message import LONGEST_HOLD_S, Body, Broken, redirected, retry_after_s, shown
from protocols.http.signature import Unproven, Verifier
from protocols.http.webhook import WEBHOOK
from protocols.model import Kind, ScanStats
from protocols.secret import FromFile
from tests.fuzz.campaign import frames, run, run_in_loop, seed
from tests.fuzz.mutate import Mutator
from tests.peers.http_hostile import RIGHT, whole

NOW_NS: Final = 1_700_000_000_000_000_000
SECRET: Final = b"canary-fuzz-secret-0123456789"
MOST: Final = 20_000
SAMPLE: Final = frames(10_000, 200_000)


def test_challenges_are_answered_or_none() -> None:
    number = seed()
    offers = [
        b'Digest realm="plant, \\"7\\"", qop="auth,auth-int", algorithm=SHA-256, nonce="7ypf/xlj9XX", opaque="FQhe"',
        b'Basic realm="x", Digest nonce=abc, algorithm=MD5-sess, qop=auth-int, userhash=true, Digest nonce="n", stale=true',
    ]
    mutator = Mutator(number, offers, longest=12_000)

    def judge(content: bytes) -> None:
        found = strongest([content.decode("latin-1"), content.decode(errors="surrogateescape")])
        if found is not None:
            said = answer(found, "reader", "password", "GET", "/", b"", 1, "c")
            assert said.isprintable()
            assert said.isascii()

    run("http-digest", mutator.make, judge, seed=number, count=SAMPLE)


def test_waits_and_redirects_stay_within_bounds() -> None:
    number = seed()
    mutator = Mutator(number, [b"120", b"Tue, 14 Nov 2023 22:14:20 GMT", b"/a/b?c=%20", b"http://device.example.com:8080/x", b"//h@evil/"])
    asked = URL("http://device.example.com:8080/a/b")

    def judge(content: bytes) -> None:
        text = content.decode("latin-1")
        wait_s = retry_after_s(text, NOW_NS)
        assert wait_s is None or 0 <= wait_s <= LONGEST_HOLD_S
        with contextlib.suppress(Broken):
            there = redirected(asked, text)
            assert (there.scheme.lower(), (there.host or "").lower(), there.port) == ("http", "device.example.com", 8080)
        assert len(shown(text)) <= 83
        Guard().problem(text)

    run("http-words", mutator.make, judge, seed=number, count=SAMPLE)


def test_packed_bodies_never_grow_beyond_their_limit() -> None:
    number = seed()
    content = b'{"level": 7}' * 30
    bare = zlib.compressobj(9, zlib.DEFLATED, -15)
    mutator = Mutator(
        number, [gzip.compress(content), zlib.compress(content), bare.compress(content) + bare.flush(), zlib.compress(b" " * 10**6)]
    )

    def judge(packed: bytes) -> None:
        for encoding in ("gzip", "deflate"):
            body = Body(encoding, MOST)
            with contextlib.suppress(Broken):
                for at in range(0, len(packed), 50):
                    body.take(packed[at : at + 50])
                assert len(body.whole()) <= MOST
            assert len(body._content) <= MOST + 1

    run("http-bodies", mutator.make, judge, seed=number, count=SAMPLE)


def _signed(time: int, body: bytes) -> bytes:
    return hmac.digest(SECRET, b"%d." % time + body, "sha256").hex().encode()


def test_no_spoilt_message_is_believed(tmp_path: Path) -> None:
    """Time, signature and body are spoilt at once, in each style: only what was signed passes."""
    number = seed()
    (tmp_path / "secret").write_bytes(SECRET)
    secret = FromFile(path=str(tmp_path / "secret"))
    verifiers = [Verifier(Signed(secret=secret, style=style), "") for style in ("plain", "stripe", "github")]
    time, body = NOW_NS // 10**9, b'{"level": 7}'
    right = _signed(time, body)
    over_body = hmac.digest(SECRET, body, "sha256").hex().encode()
    told = [(b"%d" % time, right), (b"", b"t=%d,v1=%s,v1=%s" % (time, right, right)), (b"", b"sha256=" + over_body)]
    mutator = Mutator(number, [b"\n".join((at, signature, body)) for at, signature in told])

    def judge(content: bytes) -> None:
        at, signature, spoilt = [*content.split(b"\n", 2), b"", b""][:3]
        text = signature.decode("latin-1")
        headers = {"x-timestamp": at.decode("latin-1"), **dict.fromkeys(("x-signature", "stripe-signature", "x-hub-signature-256"), text)}
        for verifier in verifiers:
            with contextlib.suppress(Unproven):
                verifier.verify(headers, spoilt, NOW_NS)
                assert spoilt == body

    run("http-signatures", mutator.make, judge, seed=number, count=SAMPLE)


async def test_whatever_a_server_says_the_client_tells_it_in_its_own_words() -> None:
    """Spoilt answers on a real socket: an answer within its bounds, a miss, or one of the three errors."""
    number = seed()
    answers = [
        whole(RIGHT, b'ETag: "x"'),
        whole(gzip.compress(RIGHT), b"Content-Encoding: gzip"),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n{\"leve\r\n9\r\nl\": 4242}\r\n0\r\n\r\n",
        whole(b"", b"Location: /level", status=b"302 Found"),
        whole(b"no", b'WWW-Authenticate: Digest realm="x", nonce="y", qop="auth"', status=b"401 Unauthorized"),
        b"HTTP/1.1 100 Continue\r\n\r\n" + whole(RIGHT),
    ]  # fmt: skip
    mutator = Mutator(number, answers, longest=8192)
    said = b""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(said)
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        options = Http(name="line", url=f"http://127.0.0.1:{port}", allow_local=True, timeout_s=2.0, redirects=1)
        client = Client(options, f"127.0.0.1:{port}", ScanStats())
        await client.open()

        async def judge(content: bytes) -> None:
            nonlocal said
            said = content
            text = ""
            try:
                got = await client.ask("GET", URL(options.url + "/level"), headers={}, body=None, most=MOST)
                assert len(got.body) <= MOST
            except (Missed, DriverError) as error:
                text = str(error)
            assert text.isprintable()

        await run_in_loop("http-answers", mutator.make, judge, seed=number, count=frames(1_500, 100_000))
        await client.close()


async def test_whatever_is_posted_only_what_is_signed_is_taken(tmp_path: Path, free_port: Callable[[], int]) -> None:
    """Spoilt requests on a real socket: the receiver lives, and no other value than the signed one comes of it."""
    number = seed()
    (tmp_path / "secret").write_bytes(SECRET)
    tag = WebhookTag(name="level", kind=Kind.INT32, at="$.level")
    device = WebhookDevice(name="one", path="/h", rate_per_s=1000, burst=10000, max_bytes=MOST, tags=(tag,))
    auth: config.SenderAuth = Signed(secret=FromFile(path=str(tmp_path / "secret")), window_s=3600.0)
    options = Webhook(
        name="h", listen_port=free_port(), auth=auth, rate_per_s=10000, burst=10000, request_timeout_s=0.5, max_connections=500,
        max_connections_per_peer=500, devices=(device,),
    )  # fmt: skip
    body = b'{"level": 7}'

    def head(how: bytes) -> bytes:
        time = SystemClock().time_ns() // 10**9
        lines = (b"POST /h HTTP/1.1\r\nHost: x\r\nContent-Type: application/json", b"X-Timestamp: %d" % time)
        return b"\r\n".join((*lines, b"X-Signature: " + _signed(time, body), how, b"", b""))

    whole_body, chunked = head(b"Content-Length: 12") + body, head(b"Transfer-Encoding: chunked") + b"c\r\n" + body + b"\r\n0\r\n\r\n"
    mutator = Mutator(number, [whole_body, chunked])
    values: list[int] = []

    async def judge(content: bytes) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", options.listen_port)
        with contextlib.suppress(OSError):
            writer.write(content)
            writer.write_eof()
            async with asyncio.timeout(10):
                await reader.read(4096)
        writer.close()

    async with WEBHOOK.open(options, clock=SystemClock()) as session:

        async def read() -> None:
            async for batch in session.batches():
                values.extend(batch.value[batch.quality == 0].tolist())

        reading = asyncio.ensure_future(read())
        await run_in_loop("http-requests", mutator.make, judge, seed=number, count=frames(700, 30_000))
        assert not reading.done(), "no error of our own"
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
    assert set(values) <= {7}
