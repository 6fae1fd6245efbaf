"""The polling client against node's own server: who we are, what has not changed, who wants to be left alone, and what is written."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from protocols.clock import SystemClock
from protocols.contract import DriverError, Misfit, Refused, Unreachable
from protocols.http import config
from protocols.http.config import ApiKey, Basic, Bearer, Device, Digest, Http, Request, Tag, Write
from protocols.http.driver import HTTP
from protocols.http.session import HttpSession
from protocols.http.write import told
from protocols.model import Batch, Command, Kind, Outcome, OutcomeState, Quality
from protocols.payload import Format
from protocols.secret import FromFile, SecretMissing
from protocols.tls import Tls
from tests.peers.certificates import make_pki
from tests.peers.http_server import HttpServer

PASSWORD: Final = "canary-päss:word"
TOKEN: Final = "canary-token-123"
DOCUMENT: Final = '{"level": 7, "at": "2026-01-02T03:04:05Z", "on": "off"}'
PATIENCE_S: Final = 20.0


@pytest.fixture
async def server() -> AsyncIterator[HttpServer]:
    async with HttpServer() as running:
        await running.put("/doc", DOCUMENT)
        yield running


def level(**more: Any) -> Tag:  # Any: fields of Tag
    return Tag(**{"name": "level", "kind": Kind.INT32, "at": "$.level", **more})


def options(server: HttpServer, *requests: Request, scan_s: float = 0.05, **more: Any) -> Http:  # Any: fields of Http
    asked = requests or (Request(path="/doc", tags=(level(),)),)
    told = {"url": f"http://127.0.0.1:{server.port}", "allow_local": True, "timeout_s": 3.0, **more}
    return Http(**{"name": "line", "devices": (Device(name="one", scan_s=scan_s, requests=asked),), **told})


async def reads(given: Http, enough: Callable[[list[Batch]], bool]) -> list[Batch]:
    """Batches until there are enough of them."""
    assert [problem for problem in HTTP.check(given) if problem.severity == "error"] == []
    came: list[Batch] = []
    async with HTTP.open(given, clock=SystemClock()) as session, asyncio.timeout(PATIENCE_S):
        async for batch in session.batches():
            came.append(batch)
            if enough(came):
                break
    return came


async def first(given: Http) -> tuple[Any, Quality]:  # Any: a value
    batch = (await reads(given, lambda came: True))[0]
    return batch.value.tolist()[0], Quality(int(batch.quality[0]))


async def _all(batches: AsyncIterator[Batch]) -> None:
    async for _ in batches:
        pass


def kept(folder: Path, text: str) -> FromFile:
    (folder / "secret").write_text(text)
    return FromFile(path=str(folder / "secret"))


# ------------------------------------------------------------------------------------------------------- who we are


@pytest.mark.parametrize("algorithms", [["MD5"], ["SHA-256"], ["MD5", "SHA-256"], ["SHA-512-256"], ["SHA-256-sess"], ["MD5-sess"]])
async def test_digest_is_answered_as_the_server_computes_it(server: HttpServer, tmp_path: Path, algorithms: list[str]) -> None:
    """The server, with node's crypto, judges ours; a nonce that is used up is replaced without a word to anybody."""
    await server.auth(kind="digest", user="reader", password=PASSWORD, algorithms=algorithms, uses=3, basicToo=True)
    given = options(server, auth=Digest(username="reader", password=kept(tmp_path, PASSWORD)))
    came = await reads(given, lambda came: len(came) == 12)
    assert {batch.value.tolist()[0] for batch in came} == {7}


async def test_digest_proves_bodies_too_where_the_server_wants_it(server: HttpServer, tmp_path: Path) -> None:
    await server.auth(kind="digest", user="reader", password=PASSWORD, algorithms=["SHA-256"], qop="auth-int")
    auth = Digest(username="reader", password=kept(tmp_path, PASSWORD))
    ask = Request(path="/ask?x=%20y", method="POST", body='{"path": "/doc"}', tags=(level(),))
    assert await first(options(server, ask, auth=auth)) == (7, Quality.GOOD)


async def test_name_and_password_token_and_key_are_shown(server: HttpServer, tmp_path: Path) -> None:
    secret = kept(tmp_path, TOKEN)
    told: list[tuple[dict[str, str], config.ClientAuth]] = [
        ({"kind": "basic", "user": "reader", "password": TOKEN}, Basic(username="reader", password=secret)),
        ({"kind": "bearer", "token": TOKEN}, Bearer(token=secret)),
        ({"kind": "key", "header": "x-api-key", "key": TOKEN}, ApiKey(key=secret)),
    ]
    for there, auth in told:
        await server.auth(**there)
        assert await first(options(server, auth=auth)) == (7, Quality.GOOD)


@pytest.mark.parametrize("kind", ["basic", "digest"])
async def test_a_wrong_password_is_a_refusal_and_is_tried_once(server: HttpServer, tmp_path: Path, kind: str) -> None:
    """Who asks again and again may lock the account. The secret is in no text."""
    await server.auth(kind=kind, user="reader", password="another", algorithms=["SHA-256"])
    scheme = Basic if kind == "basic" else Digest
    asked = [Request(path="/doc", query={"n": str(at)}, tags=(level(name=f"t{at}"),)) for at in range(5)]
    given = options(server, *asked, auth=scheme(username="reader", password=kept(tmp_path, PASSWORD)), connections=1)
    with pytest.raises(Refused, match=f"127.0.0.1:{server.port}.*401.*check auth") as caught:
        await first(given)
    assert PASSWORD not in str(caught.value)
    assert len(await server.requests()) == (1 if kind == "basic" else 2)


async def test_a_password_that_is_changed_under_us_is_a_refusal(server: HttpServer, tmp_path: Path) -> None:
    await server.auth(kind="basic", user="reader", password=PASSWORD)
    given = options(server, auth=Basic(username="reader", password=kept(tmp_path, PASSWORD)))
    async with HTTP.open(given, clock=SystemClock()) as session, asyncio.timeout(PATIENCE_S):
        batches = session.batches()
        await anext(batches)
        await server.auth(kind="basic", user="reader", password="another")
        with pytest.raises(Refused):
            await _all(batches)


async def test_a_secret_that_is_not_there_or_is_no_header_is_told_before_anything_is_asked(server: HttpServer, tmp_path: Path) -> None:
    with pytest.raises(SecretMissing):
        await first(options(server, auth=Bearer(token=FromFile(path=str(tmp_path / "none")))))
    with pytest.raises(Misfit) as caught:
        await first(options(server, auth=Bearer(token=kept(tmp_path, "two\r\nX-Evil: lines"))))
    assert "Evil" not in str(caught.value)
    assert await server.requests() == []


async def test_what_one_request_may_not_see_harms_no_other(server: HttpServer) -> None:
    await server.rule("/secret", kind="status", status=403)
    secret = Request(path="/secret", tags=(level(name="secret"),))
    seen: dict[str, Quality] = {}

    def enough(came: list[Batch]) -> bool:
        for batch in came:
            for slot, quality in zip(batch.tag.tolist(), batch.quality.tolist(), strict=True):
                seen[batch.device.tags[slot].name] = Quality(quality)
        return len(came) >= 10 and len(seen) == 2

    await reads(options(server, Request(path="/doc", tags=(level(),)), secret), enough)
    assert seen == {"level": Quality.GOOD, "secret": Quality.BAD_NOT_READABLE}


# ------------------------------------------------------------------------------------------------------------- TLS


async def test_the_server_is_verified_and_so_are_we(tmp_path: Path) -> None:
    pki, strangers = make_pki(tmp_path / "a"), make_pki(tmp_path / "b")

    def own(ca: Path | None, server_name: str = "") -> Tls:
        files = str(pki.client.cert_file), str(pki.client.key_file)
        return Tls(ca_file=str(ca) if ca else "", cert_file=files[0], key_file=files[1], server_name=server_name)

    async with HttpServer(tls=pki.server, client_ca=pki.ca_file) as server:
        await server.put("/doc", DOCUMENT)
        url = f"https://127.0.0.1:{server.port}"
        assert await first(options(server, url=url, tls=own(pki.ca_file))) == (7, Quality.GOOD)
        wrong: list[tuple[str, Tls, type[DriverError] | tuple[type[DriverError], ...]]] = [
            (url, own(strangers.ca_file), Misfit),
            (url, own(None), Misfit),  # the system's authorities do not know it
            (url, own(pki.ca_file, "other.example.com"), Misfit),
            (url, Tls(ca_file=str(pki.ca_file)), (Refused, Unreachable)),  # TLS 1.3 tells a missing client certificate late
            (url.replace("https", "http"), Tls(), (Misfit, Unreachable)),
        ]
        for at, tls, error in wrong:
            with pytest.raises(error):
                await reads(options(server, url=at, tls=tls, timeout_s=1.0), lambda came: not came[-1].quality.any())


async def test_what_speaks_no_tls_is_told(server: HttpServer) -> None:
    with pytest.raises(Misfit, match="speaks no TLS"):
        await first(options(server, url=f"https://127.0.0.1:{server.port}"))


# ------------------------------------------------------------------------------------------------ what an answer says


@pytest.mark.parametrize("rule", [{"kind": "etag"}, {"kind": "modified", "date": "Tue, 14 Nov 2023 22:13:20 GMT"}])
async def test_what_has_not_changed_stands_with_a_new_time(server: HttpServer, rule: dict[str, str]) -> None:
    await server.rule("/doc", **rule)
    came = await reads(options(server), lambda came: len(came) == 5)
    assert [batch.value.tolist() for batch in came] == [[7]] * 5
    times = [int(batch.time_ns[0]) for batch in came]
    assert sorted(set(times)) == times
    assert await server.unchanged("/doc") >= 4


async def test_the_time_that_a_document_has_of_its_own_stands_too(server: HttpServer) -> None:
    await server.rule("/doc", kind="etag")
    came = await reads(options(server, Request(path="/doc", time_at="$.at", tags=(level(),))), lambda came: len(came) == 4)
    assert len({int(batch.time_ns[0]) for batch in came}) == 1
    assert await server.unchanged("/doc") >= 3


async def test_a_change_is_seen_although_the_answers_before_it_were_kept(server: HttpServer) -> None:
    await server.rule("/doc", kind="etag")
    async with HTTP.open(options(server), clock=SystemClock()) as session, asyncio.timeout(PATIENCE_S):
        async for batch in session.batches():
            if batch.value.tolist() == [8]:
                break
            await server.field("/doc", "level", 8)


@pytest.mark.parametrize("status", [429, 503])
async def test_a_device_that_asks_to_be_left_alone_is(server: HttpServer, status: int) -> None:
    """Its tags say so meanwhile, and no request goes out."""
    await server.rule("/doc", kind="status", status=status, headers={"Retry-After": "3600"})
    came = await reads(options(server), lambda came: len(came) == 8)
    assert {int(batch.quality[0]) for batch in came} == {Quality.BAD_RESOURCE_UNAVAILABLE}
    assert len(await server.requests()) == 1


async def test_after_the_time_that_it_asked_for_it_is_asked_again(server: HttpServer) -> None:
    await server.rule("/doc", kind="status", status=503, headers={"Retry-After": "1"})
    async with HTTP.open(options(server), clock=SystemClock()) as session, asyncio.timeout(PATIENCE_S):
        async for batch in session.batches():
            if not batch.quality.any():
                break
            await server.heal("/doc")


@pytest.mark.parametrize(
    ("status", "quality"),
    [
        (404, Quality.BAD_NODE_ID_UNKNOWN),
        (405, Quality.BAD_NOT_SUPPORTED),
        (400, Quality.BAD_CONFIGURATION_ERROR),
        (500, Quality.BAD_DEVICE_FAILURE),
        (502, Quality.BAD_NO_COMMUNICATION),
        (302, Quality.BAD_CONFIGURATION_ERROR),
        (304, Quality.BAD_DECODING_ERROR),
    ],
)
async def test_each_status_is_a_quality_and_said_once(server: HttpServer, status: int, quality: Quality) -> None:
    """As the README's ledger has it; the neighbour goes on."""
    await server.rule("/bad", kind="status", status=status, headers={"Location": "/doc"})
    given = options(server, Request(path="/bad", tags=(level(name="bad"),)))
    other = Device(name="two", scan_s=0.05, requests=(Request(path="/doc", tags=(level(),)),))
    given = Http(**{field: getattr(given, field) for field in given.__struct_fields__} | {"devices": (*given.devices, other)})
    said: list[str] = []
    qualities: set[int] = set()
    async with HTTP.open(given, clock=SystemClock()) as session, asyncio.timeout(PATIENCE_S):
        good = 0
        async for batch in session.batches():
            said += session.findings
            session.findings.clear()
            if batch.device.name == "one":
                qualities |= set(batch.quality.tolist())
            elif not batch.quality.any():
                good += 1
            if good > 6 and qualities:
                break
    assert qualities == {quality}
    assert len(said) == 1, said
    assert str(status) in said[0]


async def test_redirects_are_followed_within_the_host_where_they_may_be(server: HttpServer) -> None:
    await server.rule("/old", kind="status", status=307, headers={"Location": "/doc"})
    await server.rule("/away", kind="status", status=307, headers={"Location": "http://localhost:1/doc"})
    old, away = Request(path="/old", tags=(level(),)), Request(path="/away", tags=(level(),))
    assert await first(options(server, old, redirects=1)) == (7, Quality.GOOD)
    assert (await first(options(server, old)))[1] is Quality.BAD_CONFIGURATION_ERROR
    assert (await first(options(server, away, redirects=5)))[1] is Quality.BAD_CONFIGURATION_ERROR


async def test_formats_are_told_by_the_content_type_or_the_document(server: HttpServer) -> None:
    await server.put("/csv", "name,level\npump,12\n", "text/csv")
    await server.put("/xml", "<a><level>13</level></a>", "application/xml")
    await server.put("/text", "14", "text/plain")
    await server.put("/html", '{"level": 15}', "text/html")
    await server.put("/odd", '{"level": 16}', "application/vnd.meter+json")
    told = [
        (Request(path="/csv", format=Format.CSV, tags=(level(at="level"),)), (12, Quality.GOOD)),
        (Request(path="/xml", format=Format.XML, tags=(level(at="/a/level"),)), (13, Quality.GOOD)),
        (Request(path="/text", tags=(level(at=""),)), (14, Quality.GOOD)),
        (Request(path="/html", tags=(level(),)), (0, Quality.BAD_NOT_SUPPORTED)),
        (Request(path="/html", format=Format.JSON, tags=(level(),)), (15, Quality.GOOD)),
        (Request(path="/odd", tags=(level(),)), (16, Quality.GOOD)),
    ]
    for request, wanted in told:
        assert await first(options(server, request)) == wanted, request.path


async def test_query_headers_and_bodies_arrive_as_written(server: HttpServer) -> None:
    await server.put("/doc?x=1", DOCUMENT)
    asked = Request(path="/ask", method="POST", body='{"path": "/doc"}', query={"a b": "ü&="}, headers={"X-Mode": "fast"}, tags=(level(),))
    assert await first(options(server, asked)) == (7, Quality.GOOD)


async def test_a_long_document_is_decoded_beside_the_loop(server: HttpServer) -> None:
    """While 1 MB of JSON is decoded, other work of the loop goes on; the values are right."""
    await server.put("/long", json.dumps({"level": 7, "rest": [{"a": at, "b": "x" * 20} for at in range(25_000)]}))
    request = Request(path="/long", max_bytes=2_000_000, tags=(level(), level(name="b", at="$.rest[24999].a")))
    came = await reads(options(server, request), lambda came: len(came) == 2)
    assert [batch.value.tolist() for batch in came] == [[7, 24999]] * 2


async def test_few_connections_serve_many_requests(server: HttpServer) -> None:
    given = options(server, *(Request(path="/doc", query={"n": str(at)}, tags=(level(name=f"t{at}"),)) for at in range(10)))
    await reads(given, lambda came: len(came) == 60)
    _, ever = await server.connections()
    assert ever <= given.connections


async def test_packed_answers_are_unpacked(server: HttpServer) -> None:
    """The server packs as node does; what is packed and not said to be is not JSON."""
    await server.put("/doc", gzip.compress(DOCUMENT.encode()))
    assert (await first(options(server)))[1] is Quality.BAD_DECODING_ERROR


async def test_a_server_that_closes_idle_connections_is_asked_again() -> None:
    """Each connection serves one request, says that it would serve more, and ends when the next one comes."""
    body = b'{"level": 7}'

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\nask")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            await reader.readuntil(b"\r\n\r\nask")
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as listening:
        url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        request = Request(path="/", method="POST", body="ask", tags=(level(),))
        given = Http(name="l", url=url, allow_local=True, devices=(Device(name="one", scan_s=0.05, requests=(request,)),))
        came = await reads(given, lambda came: len(came) == 6)
    assert [batch.quality.tolist() for batch in came] == [[0]] * 6


# ------------------------------------------------------------------------------------------------------------ writing


async def carried_out(given: Http, *commands: tuple[str, Any]) -> Sequence[Outcome]:  # Any: a command's value
    session: HttpSession
    async with HTTP.open(given, clock=SystemClock()) as session, asyncio.timeout(PATIENCE_S):
        return await session.write(
            [
                Command(id=str(at), device="one", tag=tag, value=value, deadline_ns=SystemClock().time_ns() + 10**10)
                for at, (tag, value) in enumerate(commands)
            ]
        )


async def test_a_value_is_written_as_the_device_wants_it(server: HttpServer) -> None:
    await server.put("/set", '{"level": 7, "name": "old", "on": "false"}')
    write = Write(path="/set/level", method="POST")
    tags = (
        level(writable=True, write=write, write_as='{"value": {value}}', scale=0.5),
        level(name="name", kind=Kind.STRING, at="$.name", writable=True, write=Write(path="/set/name")),
        level(name="on", kind=Kind.BOOL, at="$.on", from_text=True, writable=True, write=Write(path="/set/on")),
    )
    given = options(server, Request(path="/set", format=Format.JSON, tags=tags))
    outcomes = await carried_out(given, ("level", 21.5), ("name", 'a"b\r\n{value}'), ("on", True), ("level", 10.3))
    assert [outcome.state for outcome in outcomes] == [OutcomeState.VERIFIED] * 4, outcomes
    assert [outcome.read_back for outcome in outcomes] == [21.5, 'a"b\r\n{value}', True, 10.5]  # the device's own steps are of a half


async def test_what_the_device_says_to_a_write_is_its_outcome(server: HttpServer) -> None:
    await server.rule("/no", kind="status", status=409)
    await server.rule("/busy", kind="status", status=503)
    await server.rule("/broken", kind="status", status=500)
    await server.rule("/silent", kind="silent")
    names = {"no": OutcomeState.REFUSED, "busy": OutcomeState.REFUSED, "broken": OutcomeState.FAILED, "silent": OutcomeState.FAILED}
    tags = tuple(level(name=name, writable=True, write=Write(path=f"/{name}")) for name in names)
    outcomes = await carried_out(options(server, Request(path="/doc", tags=tags), timeout_s=0.3), *((name, 1) for name in names))
    assert [outcome.state for outcome in outcomes] == list(names.values())
    assert (await server.requests()).count("write") == 4, "each was sent once"


def test_values_in_paths_and_forms_are_percent_encoded() -> None:
    request = Request(path="/doc", format=Format.JSON)
    tag = level(name="t", kind=Kind.STRING, writable=True)
    evil = "a&b=/../?x\r\nHost: evil"
    said = config.Write(path="/set?v={value}", method="GET")
    assert told(evil, tag, said, request).path == "/set?v=a%26b%3D%2F..%2F%3Fx%0D%0AHost%3A%20evil"
    assert told(evil, tag, config.Write(path="/set", method="POST", form="v={value}&go=1"), request).body == (
        b"v=a%26b%3D%2F..%2F%3Fx%0D%0AHost%3A%20evil&go=1"
    )
    relay = config.Write(path="/relay?turn={value}", method="GET", true_as="on", false_as="off")
    assert [told(value, tag, relay, request).path for value in (True, False)] == ["/relay?turn=on", "/relay?turn=off"]
