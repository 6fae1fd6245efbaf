"""The webhook receiver from outside: node and raw sockets post, each answer and each limit is seen."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, Literal

import pytest

from protocols.clock import SystemClock
from protocols.contract import Misfit, Unreachable
from protocols.http.config import Signed, Token, Webhook, WebhookDevice, WebhookTag
from protocols.http.webhook import WEBHOOK, WebhookSession
from protocols.model import Batch, Kind, Quality
from protocols.secret import FromFile
from protocols.tls import ServerTls
from tests.contract.driver_suite import until
from tests.peers.certificates import make_pki
from tests.peers.http_sender import Answered, HttpSender

SECRET: Final = "canary-webhook-secret-0123456789"
LEVEL: Final = '{"level": 7}'


@pytest.fixture
async def sender() -> AsyncIterator[HttpSender]:
    async with HttpSender() as running:
        yield running


class Hooks:
    """A receiver that runs, what it gave, and a way to post to it."""

    def __init__(self, sender: HttpSender, options: Webhook, session: WebhookSession) -> None:
        self.sender, self.options, self.session = sender, options, session
        self.batches: list[Batch] = []

    @property
    def url(self) -> str:
        scheme = "https" if self.options.tls is not None else "http"
        return f"{scheme}://127.0.0.1:{self.options.listen_port}/hooks/one"

    async def post(self, body: str = LEVEL, *, style: str = "plain", **order: Any) -> Answered:  # Any: see HttpSender.post
        return await self.sender.post(order.pop("url", self.url), body, **{"style": style, "secret": SECRET, **order})

    @property
    def values(self) -> list[Any]:  # Any: values
        return [value for batch in self.batches for value in batch.value.tolist()]

    async def read(self) -> None:
        async for batch in self.session.batches():
            self.batches.append(batch)


@pytest.fixture
def hooks(tmp_path: Path, free_port: Callable[[], int], sender: HttpSender) -> Callable[..., Any]:  # Any: what running gives
    (tmp_path / "secret").write_text(SECRET)
    port = free_port()

    @asynccontextmanager
    async def running(*, device: dict[str, Any] | None = None, reads: bool = True, **more: Any) -> AsyncIterator[Hooks]:  # Any: fields
        tags = (WebhookTag(name="level", kind=Kind.INT32, at="$.level"),)
        one = WebhookDevice(**{"name": "one", "path": "/hooks/one", "tags": tags, **(device or {})})
        told = {"auth": Signed(secret=FromFile(path=str(tmp_path / "secret"))), "request_timeout_s": 2.0, **more}
        options = Webhook(**{"name": "hooks", "listen_port": port, "devices": (one,), **told})
        assert [problem for problem in WEBHOOK.check(options) if problem.severity == "error"] == []
        async with WEBHOOK.open(options, clock=SystemClock()) as session:
            found = Hooks(sender, options, session)
            reading = asyncio.ensure_future(found.read() if reads else asyncio.Event().wait())
            try:
                yield found
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

    return running


Running = Callable[..., Any]  # Any: an async context manager of Hooks


@pytest.mark.parametrize("style", ["plain", "github", "stripe"])
async def test_a_signed_message_is_taken_and_answered_when_it_was(
    hooks: Running, style: Literal["plain", "github", "stripe"], tmp_path: Path
) -> None:
    auth = Signed(secret=FromFile(path=str(tmp_path / "secret")), style=style)
    async with hooks(auth=auth) as running:
        answered = await running.post(style=style)
        assert (answered.status, answered.size, answered.server) == ("202", 0, "Holdfast")
        assert running.values == [7]


async def test_a_token_is_as_good_where_nobody_listens_in(hooks: Running, tmp_path: Path) -> None:
    async with hooks(auth=Token(token=FromFile(path=str(tmp_path / "secret")))) as running:
        assert (await running.post(style="bearer")).status == "202"
        assert (await running.post(style="bearer", secret="wrong")).status == "401"
        assert running.values == [7]


async def test_what_proves_nothing_is_told_once_and_counted(hooks: Running) -> None:
    """Not to who sent it: an answer has no word in it. The secret is nowhere."""
    async with hooks() as running:
        for order in ({"style": "none"}, {"secret": "wrong"}, {"skew_s": -400}, {"skew_s": 400}, {"headers": {"X-Timestamp": "1"}}):
            answered = await running.post(**order)
            assert (answered.status, answered.size) == ("401", 0), order
        assert running.values == []
        assert running.session.stats.errors == {"unproven": 5}
        (finding,) = running.session.findings
        assert "127.0.0.1" in finding
        assert "check the sender's secret" in finding
        assert SECRET not in finding


async def test_a_delivery_is_taken_once_however_often_it_is_posted(hooks: Running) -> None:
    """A repeat has the same name; a replay under another name has the same signature."""
    async with hooks() as running:
        assert (await running.post(id="a")).status == "202"
        assert (await running.post(id="a", skew_s=1)).status == "200", "the sender signs again when it repeats"
        assert (await running.post(id="b", skew_s=2)).status == "202"
        assert (await running.post(id="b", skew_s=2, headers={"X-Delivery-Id": "c"})).status == "200", "somebody else's copy"
        assert (await running.post(id="", skew_s=3)).status == "202"
        assert (await running.post(id="d", skew_s=3.5)).status == "202", "the same again, half a second later"
        assert running.values == [7, 7, 7, 7]
        assert running.session.stats.errors == {"repeat": 2}


async def test_a_repeat_is_one_after_the_port_was_opened_anew(hooks: Running, tmp_path: Path) -> None:
    async with hooks() as first:
        assert (await first.post(id="a", headers={"Connection": "close"})).status == "202"
        options, sender = first.options, first.sender
    async with WEBHOOK.open(options, clock=SystemClock()) as session:
        again = Hooks(sender, options, session)
        reading = asyncio.ensure_future(again.read())
        assert (await again.post(id="a", skew_s=1)).status == "200"
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def test_what_was_not_handed_on_may_be_posted_again(hooks: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody iterates, so nothing is taken: 503, and the delivery is not remembered."""
    monkeypatch.setattr("protocols.http.webhook.HAND_ON_S", 0.1)
    async with hooks(reads=False) as running:
        answered = await running.post(id="a")
        assert (answered.status, answered.retry_after) == ("503", "1")
        reading = asyncio.ensure_future(running.read())
        assert (await running.post(id="a", skew_s=1)).status == "202"
        assert running.values == [7]
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def test_what_cannot_be_read_is_bad_and_said(hooks: Running) -> None:
    async with hooks() as running:
        assert (await running.post("{")).status == "422"
        assert (await running.post("{}")).status == "202"
        assert [Quality(int(batch.quality[0])) for batch in running.batches] == [Quality.BAD_DECODING_ERROR, Quality.BAD_NODE_ID_UNKNOWN]


async def test_paths_methods_lengths_and_packing_are_judged(hooks: Running) -> None:
    async with hooks(device={"max_bytes": 1000}) as running:
        base = running.url.removesuffix("/hooks/one")
        assert (await running.post(url=f"{base}/hooks/two")).status == "404"
        assert (await running.post(url=f"{base}/hooks/one/../../etc/passwd")).status == "404"
        assert (await running.post(url=f"{base}/hooks/one?x=1")).status == "202"
        assert (await running.post(method="PUT")).status == "405"
        assert (await running.post(headers={"Content-Encoding": "gzip"})).status == "415"
        assert (await running.post(LEVEL + " " * 2000)).status == "413"
        assert (await running.post(LEVEL + " " * 2000, headers={"Transfer-Encoding": "chunked"})).status == "413"
        assert running.values == [7]


async def test_a_device_that_posts_too_often_is_told_when_to_come_again(hooks: Running) -> None:
    async with hooks(device={"rate_per_s": 0.01, "burst": 2}) as running:
        answers = [await running.post(skew_s=at) for at in range(3)]
        assert [each.status for each in answers] == ["202", "202", "429"]
        assert 90 <= int(answers[2].retry_after) <= 100


async def test_who_proves_nothing_takes_from_nobodys_rate_but_its_own_address(hooks: Running) -> None:
    async with hooks(device={"rate_per_s": 0.01, "burst": 1}, rate_per_s=0.01, burst=4) as running:
        assert [(await running.post(secret="wrong")).status for _ in range(3)] == ["401"] * 3
        assert (await running.post()).status == "202"
        assert (await running.post()).status == "429"
        assert len(running.session.findings) == 1, "the rate of an address is a counter, no finding"


async def test_too_many_connections_are_refused_and_the_others_go_on(hooks: Running) -> None:
    """Also such as never send a byte; they lose their places in time."""
    async with hooks(max_connections=5, max_connections_per_peer=4, request_timeout_s=1.0) as running:
        port = running.options.listen_port
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(4)]
        assert (await running.post()).status in ("ECONNRESET", "failed")
        assert running.session.stats.errors["too_many_connections"] >= 1
        async with asyncio.timeout(20):
            assert [await reader.read() for reader, _ in idle] == [b""] * 4
        await until("there is room again", lambda: not running.session.receiver._peers)
        assert (await running.post()).status == "202"
        for _, writer in idle:
            writer.close()


async def test_a_body_that_drips_is_ended_in_its_time(hooks: Running) -> None:
    async with hooks(request_timeout_s=0.5) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.options.listen_port)
        writer.write(b"POST /hooks/one HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
        async with asyncio.timeout(20):
            with contextlib.suppress(ConnectionError):
                while not (said := await _read_soon(reader)):
                    writer.write(b" ")
        assert said.startswith(b"HTTP/1.1 408 ")
        writer.close()


async def _read_soon(reader: asyncio.StreamReader) -> bytes:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.05):
            return await reader.read(100)
    return b""


async def test_over_tls_a_handshake_that_never_ends_has_a_place_and_loses_it(hooks: Running, tmp_path: Path) -> None:
    pki = make_pki(tmp_path / "pki")
    tls = ServerTls(cert_file=str(pki.server.cert_file), key_file=str(pki.server.key_file))
    async with hooks(tls=tls, max_connections=2, request_timeout_s=1.0) as running:
        assert (await running.post(ca=str(pki.ca_file))).status == "202"
        await until("node has left", lambda: not running.session.receiver._peers)
        idle = [await asyncio.open_connection("127.0.0.1", running.options.listen_port) for _ in range(2)]
        await until("both have a place", lambda: running.session.receiver._peers.total() == 2)
        assert (await running.post(ca=str(pki.ca_file))).status != "202"
        await until("they have lost it", lambda: not running.session.receiver._peers)
        assert (await running.post(ca=str(pki.ca_file))).status == "202"
        for _, writer in idle:
            writer.close()


async def test_clients_show_a_certificate_where_it_is_wanted(hooks: Running, tmp_path: Path) -> None:
    pki = make_pki(tmp_path / "pki")
    tls = ServerTls(cert_file=str(pki.server.cert_file), key_file=str(pki.server.key_file), client_ca_file=str(pki.ca_file))
    async with hooks(tls=tls) as running:
        assert (await running.post(ca=str(pki.ca_file))).status not in ("202", "401")
        context = ssl.create_default_context(cafile=str(pki.ca_file))
        context.load_cert_chain(pki.client.cert_file, pki.client.key_file)
        reader, writer = await asyncio.open_connection("127.0.0.1", running.options.listen_port, ssl=context)
        writer.write(b"POST /hooks/one HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        async with asyncio.timeout(20):
            assert (await reader.readline()).startswith(b"HTTP/1.1 401 ")
        writer.close()


async def test_a_port_that_somebody_has_and_an_address_that_is_nobodys_are_told(hooks: Running) -> None:
    async with hooks() as running:
        with pytest.raises(Unreachable, match="cannot listen there"):
            async with WEBHOOK.open(running.options, clock=SystemClock()):
                raise AssertionError("two listen on one port")
        assert not (await WEBHOOK.probe(running.options)).ok
    assert (await WEBHOOK.probe(running.options)).ok
    with pytest.raises((Misfit, Unreachable)):
        async with hooks(listen_host="203.0.113.9"):
            raise AssertionError("nobody has this address")


async def test_a_device_that_posts_no_more_is_lost_and_back_when_it_does(hooks: Running) -> None:
    async with hooks(device={"silence_s": 0.3}) as running:
        await until("it is lost", lambda: any(batch.lost for batch in running.batches))
        assert (await running.post(json.dumps({"level": 9}))).status == "202"
        assert running.values[-1] == 9
        await until("it is lost again", lambda: sum(batch.lost for batch in running.batches) == 2)


async def test_an_error_of_our_own_ends_the_session_and_is_not_swallowed(hooks: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    async with hooks(reads=False) as running:
        monkeypatch.setattr(running.session, "_names", lambda *_: 1 / 0)
        assert (await running.post()).status == "500"
        with pytest.raises(ZeroDivisionError):
            await running.read()
