"""The clients: :class:`Client` waits, :class:`AsyncClient` is awaited. Both have one method for each operation of the API.

What can be sent again without being carried out twice (a read, or a write with its idempotency key) is sent again where the
network fails or the gateway says that it cannot just now. Everything else is an error that says what happened.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import httpx

from holdfast.client.ask import Answer, Ask, Download, refusal
from holdfast.client.errors import Refused, Unreachable
from holdfast.client.live import Follow, follow, following
from holdfast.client.operations import Operations
from holdfast.client.trust import trusting
from holdfast.shapes.common import Page
from holdfast.shapes.live import Message, Subscribe
from holdfast.shapes.session import SignedIn, SignIn

T = TypeVar("T")
FIRST_WAIT_S: Final = 0.5
LONGEST_WAIT_S: Final = 10.0
REPEAT: Final = frozenset({429, 503})


class _Client(Operations):
    """What both clients have in common."""

    def __init__(
        self,
        url: str,
        token: str = "",
        *,
        ca_file: str | Path | None = None,
        fingerprint: str = "",
        certificate: tuple[str, str] | None = None,
        timeout_s: float = 30.0,
        repeats: int = 2,
    ) -> None:
        """``url`` is ``https://HOST:PORT``. ``ca_file`` or ``fingerprint`` say which authority its certificate must be of (see
        :func:`~holdfast.client.trust.trusting`), ``certificate`` is this program's own, as files of chain and key."""
        self.url = url.rstrip("/")
        self._token = token
        self._context = trusting(self.url, ca_file, fingerprint, timeout_s)
        if certificate is not None:
            self._context.load_cert_chain(*certificate)
        self._timeout_s = timeout_s
        self._repeats = repeats

    def _headers(self, ask: Ask[Any]) -> dict[str, str]:  # Any: the form of the answer does not matter
        return {**self._who(), **ask.headers}

    def _who(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}"} if self._token else {}

    def _follow(self, wish: Subscribe) -> Follow:
        return Follow("wss" + self.url.removeprefix("https") + "/api/v1/live", self._context, self._who, wish, self._timeout_s)

    def _request(self, ask: Ask[Any]) -> dict[str, Any]:  # Any: what httpx takes
        return {
            "method": ask.method,
            "url": ask.path,
            "params": ask.parameters(),
            "headers": self._headers(ask),
            "content": ask.body,
        }

    def _wait_s(self, ask: Ask[Any], attempt: int, trouble: Exception) -> float | None:
        """How long to wait before ``ask`` is sent again; None: it is not."""
        if attempt >= self._repeats or not ask.may_repeat:
            return None
        if isinstance(trouble, Refused):
            if trouble.status not in REPEAT or (trouble.retry_after_s or 0) > LONGEST_WAIT_S:
                return None
            return trouble.retry_after_s or FIRST_WAIT_S
        return min(FIRST_WAIT_S * (1 << attempt), LONGEST_WAIT_S)


class Client(_Client):
    """A client that waits. ``with Client(url, token, ca_file=...) as gateway: gateway.get_gateway()``."""

    def __init__(self, url: str, token: str = "", **more: Any) -> None:  # Any: as _Client takes them
        super().__init__(url, token, **more)
        self._http = httpx.Client(base_url=self.url, verify=self._context, timeout=self._timeout_s, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def sign_in(self, name: str, password: str) -> SignedIn:
        """Begin a session; what is asked from now on is asked in its name."""
        signed = self.create_session(SignIn(name=name, password=password))
        self._token = signed.token or ""
        return signed

    def do(self, ask: Ask[T], /) -> T:
        """Carry out ``ask``. Raises Refused, Unreachable."""
        return self.fetch(ask).value

    def fetch(self, ask: Ask[T]) -> Answer[T]:
        """As :meth:`do`, with the answer's ETag. Raises Refused, Unreachable."""
        attempt = 0
        while True:
            try:
                return _answer(ask, self._http.request(**self._request(ask)))
            except (httpx.TransportError, Refused) as trouble:
                wait_s = self._wait_s(ask, attempt, trouble)
                if wait_s is None:
                    raise _translated(self.url, trouble) from trouble
            attempt += 1
            time.sleep(wait_s)

    def each(self, ask: Ask[Page[T]]) -> Iterator[T]:
        """Every item of a list, page after page: ``gateway.each(asks.list_devices())``."""
        while True:
            page = self.do(ask)
            yield from page.items
            if page.next is None:
                return
            ask = ask.at(page.next)

    def pieces(self, ask: Download, /) -> Iterator[bytes]:
        """The answer of a long export as it comes."""
        try:
            with self._http.stream(**self._request(ask)) as response:
                if response.status_code >= 400:
                    raise _refusal(response.status_code, response.read(), response.headers)
                yield from response.iter_bytes()
        except httpx.TransportError as trouble:
            raise _translated(self.url, trouble) from trouble

    def follow(self, wish: Subscribe | None = None) -> Iterator[Message]:
        """What happens, as it happens, for ever: lost connections are made again and go on where they were."""
        return following(self._follow(wish or Subscribe()))


class AsyncClient(_Client):
    """A client that is awaited. ``async with AsyncClient(url, token, ca_file=...) as gateway: await gateway.get_gateway()``."""

    def __init__(self, url: str, token: str = "", **more: Any) -> None:  # Any: as _Client takes them
        super().__init__(url, token, **more)
        self._http = httpx.AsyncClient(base_url=self.url, verify=self._context, timeout=self._timeout_s, trust_env=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def sign_in(self, name: str, password: str) -> SignedIn:
        """Begin a session; what is asked from now on is asked in its name."""
        signed = await self.create_session(SignIn(name=name, password=password))
        self._token = signed.token or ""
        return signed

    async def do(self, ask: Ask[T], /) -> T:
        """Carry out ``ask``. Raises Refused, Unreachable."""
        return (await self.fetch(ask)).value

    async def fetch(self, ask: Ask[T]) -> Answer[T]:
        """As :meth:`do`, with the answer's ETag. Raises Refused, Unreachable."""
        attempt = 0
        while True:
            try:
                return _answer(ask, await self._http.request(**self._request(ask)))
            except (httpx.TransportError, Refused) as trouble:
                wait_s = self._wait_s(ask, attempt, trouble)
                if wait_s is None:
                    raise _translated(self.url, trouble) from trouble
            attempt += 1
            await asyncio.sleep(wait_s)

    async def each(self, ask: Ask[Page[T]]) -> AsyncIterator[T]:
        """Every item of a list, page after page: ``gateway.each(asks.list_devices())``."""
        while True:
            page = await self.do(ask)
            for item in page.items:
                yield item
            if page.next is None:
                return
            ask = ask.at(page.next)

    async def pieces(self, ask: Download, /) -> AsyncIterator[bytes]:
        """The answer of a long export as it comes."""
        try:
            async with self._http.stream(**self._request(ask)) as response:
                if response.status_code >= 400:
                    raise _refusal(response.status_code, await response.aread(), response.headers)
                async for piece in response.aiter_bytes():
                    yield piece
        except httpx.TransportError as trouble:
            raise _translated(self.url, trouble) from trouble

    def follow(self, wish: Subscribe | None = None) -> AsyncIterator[Message]:
        """What happens, as it happens, for ever: lost connections are made again and go on where they were."""
        return follow(self._follow(wish or Subscribe()))


def _answer(ask: Ask[T], response: httpx.Response) -> Answer[T]:
    if response.status_code >= 400:
        raise _refusal(response.status_code, response.content, response.headers)
    etag, replayed = response.headers.get("etag", ""), "idempotency-replayed" in response.headers
    return Answer(ask.read(response.content), etag, replayed)


def _refusal(status: int, content: bytes, headers: Mapping[str, str]) -> Refused:
    return refusal(status, content, headers.get("retry-after", ""))


def _translated(url: str, trouble: Exception) -> Exception:
    if isinstance(trouble, Refused):
        return trouble
    reason = trouble.__cause__ or trouble
    advice = "check ca_file or fingerprint" if "certificate" in str(reason).lower() else "check the address, and that the gateway runs"
    return Unreachable(f"{url}: {type(trouble).__name__}: {trouble}: {advice}")
