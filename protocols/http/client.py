"""The HTTP client of one connection: one request, one bounded answer. The one place where aiohttp's client is used.

What it promises: a peer cannot make an answer longer than the request allows, packed or not, nor make it last longer than
its time; a redirect leads nowhere else; whoever is asked was judged by its address (``guard.py``); no more requests are
under way than the document says, and commands go first. What fails is told as a :class:`Missed` where it concerns this request, and
as one of the contract's three errors where it concerns the whole connection.
"""

from __future__ import annotations

import asyncio
import base64
import heapq
import itertools
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import aiohttp
from yarl import URL

from protocols.contract import DriverError, Misfit, Refused, Unreachable
from protocols.http import config
from protocols.http.config import Http
from protocols.http.digest import Prover
from protocols.http.guard import Forbidden, Guard, connector
from protocols.http.message import Body, Broken, redirected, shown
from protocols.model import ScanStats
from protocols.tls import client_context

AGENT: Final = "Holdfast"
LONGEST_LINE: Final = 8190
MOST_HEADERS: Final = 100
LONGEST_PAGE: Final = 64 * 1024
"""Bytes of an error's page that are read over."""
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


class Missed(Exception):
    """No usable answer to this request. ``reason`` is one word for the counters; the text is for a person."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, whole."""

    status: int
    reason: str
    headers: dict[str, str]
    """By lower-case name; of several with one name the first."""
    body: bytes

    def header(self, name: str) -> str:
        return self.headers.get(name, "")


class Gate:
    """Lets so many in at once; who is urgent goes ahead of all who wait."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._order = itertools.count()
        self._waiting: list[tuple[bool, int, asyncio.Future[None]]] = []

    @asynccontextmanager
    async def entered(self, *, urgent: bool) -> AsyncIterator[None]:
        if self._free:
            self._free -= 1
        else:
            await self._queue(urgent)
        try:
            yield
        finally:
            self._leave()

    async def _queue(self, urgent: bool) -> None:
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (not urgent, next(self._order), place))
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():  # it was let in and will not go
                self._leave()
            raise

    def _leave(self) -> None:
        while self._waiting:
            place = heapq.heappop(self._waiting)[2]
            if not place.done():
                place.set_result(None)
                return
        self._free += 1


class Client:
    """``async with Client(...) as client``: secrets and certificates are read on entry, connections closed on exit."""

    def __init__(self, options: Http, where: str, stats: ScanStats) -> None:
        self.where = where
        self._options = options
        self._stats = stats
        self._gate = Gate(options.connections)
        self._prover: Prover | None = None
        self._own: dict[str, str] = {}
        self._sessions: dict[bool, aiohttp.ClientSession] = {}
        self._proven = False
        self._time = aiohttp.ClientTimeout(
            total=options.connect_timeout_s + options.timeout_s, sock_connect=options.connect_timeout_s, sock_read=options.timeout_s
        )

    async def open(self) -> None:
        """Raises Misfit where a certificate file cannot be used, SecretMissing where a secret is not there."""
        options = self._options
        tls = await asyncio.to_thread(client_context, options.tls) if options.url.lower().startswith("https:") else None
        self._own = self._credentials()
        guard = Guard(allow_local=options.allow_local)
        for for_writes in (False, True):
            self._sessions[for_writes] = aiohttp.ClientSession(
                connector=connector(guard, tls=tls, at_once=options.connections, keep_alive=options.keep_alive and not for_writes),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=self._time,
                auto_decompress=False,
                max_line_size=LONGEST_LINE,
                max_field_size=LONGEST_LINE,
                max_headers=MOST_HEADERS,
            )

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()

    def _credentials(self) -> dict[str, str]:
        """The headers that say who we are. Raises SecretMissing."""
        match self._options.auth:
            case config.Basic(username=username, password=password):
                pair = f"{username}:{password.read()}".encode()
                return {"Authorization": "Basic " + base64.b64encode(pair).decode()}
            case config.Bearer(token=token):
                return {"Authorization": f"Bearer {_header_safe(token.read(), 'auth.token')}"}
            case config.ApiKey(header=header, key=key):
                return {header: _header_safe(key.read(), "auth.key")}
            case config.Digest(username=username, password=password):
                self._prover = Prover(username, password.read())
        return {}

    async def ask(
        self,
        method: str,
        url: URL,
        *,
        headers: dict[str, str],
        body: bytes | None,
        most: int,
        writes: bool = False,
        before: Callable[[], None] = lambda: None,
    ) -> Answer:
        """One request and its answer, of which at most ``most`` bytes are taken. Redirects within the host are followed where they may be.

        ``writes``: it changes something. It goes ahead of all that wait, on a connection of its own, so that it is sent once and
        no idle connection that the server has given up swallows it. ``before`` is called at the last moment before it goes out, and may
        raise. Raises Missed or a DriverError.
        """
        async with self._gate.entered(urgent=writes):
            before()
            for _ in range(self._options.redirects + 1):
                answer = await self._asked(method, url, headers, body, most, writes)
                if answer.status not in REDIRECTS or method != "GET" or not self._options.redirects:
                    return answer
                try:
                    url = redirected(url, answer.header("location"))
                except Broken as trouble:
                    raise Missed("redirect", str(trouble)) from None
            raise Missed("redirect", f"it was redirected more than {self._options.redirects} times")

    async def _asked(self, method: str, url: URL, headers: dict[str, str], body: bytes | None, most: int, writes: bool) -> Answer:
        """One request. A server may close an idle connection just when we use it: what only reads is then asked once more."""
        try:
            return await self._proven_ask(method, url, headers, body, most, writes)
        except Missed as miss:
            if miss.reason != "cut" or writes or not self._options.keep_alive:
                raise
        return await self._proven_ask(method, url, headers, body, most, writes)

    async def _proven_ask(self, method: str, url: URL, headers: dict[str, str], body: bytes | None, most: int, writes: bool) -> Answer:
        """One request; with digest once more where the server gave a new challenge."""
        proof = self._proof(method, url, body)
        answer, challenges = await self._once(method, url, headers, body, most, writes, proof)
        if answer.status == 401 and self._prover is not None and self._prover.learn(challenges, proof):
            answer, _ = await self._once(method, url, headers, body, most, writes, self._proof(method, url, body))
        return answer

    def _proof(self, method: str, url: URL, body: bytes | None) -> str:
        return self._prover.proof(method, url.raw_path_qs, body or b"") if self._prover is not None else ""

    async def _once(
        self, method: str, url: URL, headers: dict[str, str], body: bytes | None, most: int, writes: bool, proof: str
    ) -> tuple[Answer, list[str]]:
        told = {"User-Agent": AGENT, "Accept": "*/*", "Accept-Encoding": "gzip, deflate", **headers, **self._own}
        if proof:
            told["Authorization"] = proof
        self._stats.requests += 1
        try:
            async with self._sessions[writes].request(
                method,
                url,
                headers=told,
                data=body,
                allow_redirects=False,
                skip_auto_headers=("Content-Type",),
                server_hostname=self._options.tls.server_name or None,
            ) as response:
                answer = await _whole(response, most)
                self._proven = True
                return answer, response.headers.getall("WWW-Authenticate", [])
        except Broken as trouble:
            self._proven = True
            raise self._missed("broken", str(trouble)) from None
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:  # ValueError: aiohttp's for an impossible header
            raise self._translated(error) from None

    def _missed(self, reason: str, text: str) -> Missed:
        self._stats.errors[reason] = self._stats.errors.get(reason, 0) + 1
        return Missed(reason, text)

    def _translated(self, error: Exception) -> Exception:
        """aiohttp's errors as ours: what concerns the connection, and what concerns this request alone."""
        options = self._options
        if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ClientConnectorCertificateError):
            return self._unconnected(error)
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return Unreachable(f"{self.where}: no connection within {options.connect_timeout_s:g} s: check cable, address and firewall")
        if isinstance(error, TimeoutError):
            return self._missed("timeout", f"no whole answer within {options.timeout_s:g} s")
        if isinstance(error, aiohttp.ClientResponseError | aiohttp.ClientPayloadError | ValueError):
            text = f"what came is no right HTTP ({shown(_first_line(error))})"
            if not self._proven and isinstance(error, aiohttp.ClientResponseError):
                return Misfit(f"{self.where}: {text}: check scheme, host and port in url")
            return self._missed("broken", text)
        return self._missed("cut", "the connection was cut before the answer was whole")

    def _unconnected(self, error: aiohttp.ClientConnectorError | aiohttp.ClientConnectorCertificateError) -> DriverError:
        where = self.where
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            reason = getattr(error.certificate_error, "verify_message", "") or type(error.certificate_error).__name__
            return Misfit(f"{where}: the certificate is not trusted ({reason}): give its authority as tls.ca_file, or server_name")
        cause = error.os_error
        if isinstance(cause, Forbidden):
            return Misfit(f"{where}: not connected: {cause}")
        if isinstance(cause, ssl.SSLError):
            return self._no_tls(cause)
        if isinstance(cause, socket.gaierror) or isinstance(error, aiohttp.ClientConnectorDNSError):
            return Unreachable(f"{where}: the name is not known ({cause.strerror or cause}): check url, or the name server")
        if isinstance(cause, ConnectionRefusedError):
            return Unreachable(f"{where}: nothing listens there: check the port in url, and that the device's server is on")
        return Unreachable(f"{where}: {cause.strerror or cause}: check the network")

    def _no_tls(self, cause: ssl.SSLError) -> DriverError:
        if cause.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNEXPECTED_MESSAGE"):
            return Misfit(f"{self.where}: speaks no TLS ({cause.reason}): check the port in url, or write http://")
        return Refused(f"{self.where}: TLS failed ({cause.reason}): check tls.cert_file, key_file and min_version")


async def _whole(response: aiohttp.ClientResponse, most: int) -> Answer:
    """The answer with its body. Raises Broken where that is too long or badly packed."""
    headers: dict[str, str] = {}
    for name, value in response.headers.items():
        headers.setdefault(name.lower(), value)
    if not 200 <= response.status < 300:
        await _dropped(response)
        return Answer(response.status, shown(response.reason or ""), headers, b"")
    body = Body(headers.get("content-encoding", ""), most)
    if response.content_length is not None and response.content_length > most:
        raise Broken(f"the body has {response.content_length} bytes, more than the {most} of max_bytes")
    async for chunk in response.content.iter_any():
        body.take(chunk)
    return Answer(response.status, shown(response.reason or ""), headers, body.whole())


async def _dropped(response: aiohttp.ClientResponse) -> None:
    """What a refusal says to people is read over, so that the connection can serve again; one that goes on and on is closed."""
    size = 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > LONGEST_PAGE:
            response.close()
            return


def _first_line(error: Exception) -> str:
    text = error.message if isinstance(error, aiohttp.ClientResponseError) else str(error)
    return (text.strip().splitlines() or [type(error).__name__])[0]


def _header_safe(secret: str, what: str) -> str:
    """A secret that goes into a header. Raises Misfit without telling it."""
    if not secret or not secret.isascii() or not secret.isprintable():
        raise Misfit(f"{what}: what the secret's place holds cannot stand in a header: it must be one line of printable ASCII")
    return secret
