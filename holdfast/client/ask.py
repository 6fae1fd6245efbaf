"""What to ask, as data: each operation of the API is a function that gives an :class:`Ask`, and both clients carry it out.

Pure: an Ask knows its path, query, headers and body, and how to read the answer. Nothing here touches a network.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, ParamSpec, Protocol, TypeVar, overload
from urllib.parse import quote

import msgspec

from holdfast.client.errors import BY_STATUS, Refused
from holdfast.shapes.common import ProblemDetails

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
P = ParamSpec("P")
Query = str | int | float | bool | list[str] | None

JSON: Final = "application/json"
SAFE: Final = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True)
class Ask(Generic[T_co]):
    """One request, and the form of its answer."""

    method: str
    path: str
    form: Any  # Any: a type, which mypy knows as T_co
    query: Mapping[str, Query] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None

    @property
    def may_repeat(self) -> bool:
        """Whether it can be sent again without being carried out twice."""
        return self.method in SAFE or "Idempotency-Key" in self.headers

    def at(self, cursor: str) -> Ask[T_co]:
        """The same for another page."""
        return dataclasses.replace(self, query={**self.query, "cursor": cursor})

    def parameters(self) -> list[tuple[str, str]]:
        """The query as it is sent; what is None is left out."""
        return [
            (name, _said(one))
            for name, value in self.query.items()
            for one in (value if isinstance(value, list) else [value])
            if one is not None
        ]

    def read(self, content: bytes) -> T_co:
        """The answer. Raises msgspec.ValidationError where it is of another form."""
        return msgspec.json.decode(content, type=self.form) if self.form is not None else None  # type: ignore[return-value]  # T_co is None


class Download(Ask[bytes]):
    """One request whose answer comes in pieces."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """An answer with what it says beside itself."""

    value: T
    etag: str = ""
    """To be sent as ``if_match`` with a write that is decided on ``value``."""
    replayed: bool = False
    """It had been given before: the write was carried out then, and not again."""


def ask(
    method: str,
    path: str,
    form: type[T] | None,
    *parts: object,
    query: Mapping[str, Query] | None = None,
    body: object = None,
    content_type: str = JSON,
    if_match: str | None = None,
    idempotency_key: str | None = None,
    keyed: bool = False,
) -> Ask[T]:
    """An Ask; ``parts`` fill the braces of ``path``. A write that may carry a key gets one of its own, so that it can be repeated."""
    headers: dict[str, str] = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())} if keyed else {}
    if if_match is not None:
        headers["If-Match"] = if_match
    content = body if body is None or isinstance(body, bytes) else msgspec.json.encode(body)
    if content is not None:
        headers["Content-Type"] = content_type
    return Ask(method, filled(path, *parts), form, query or {}, headers, content)


def download(method: str, path: str, *parts: object, query: Mapping[str, Query] | None = None, body: object = None) -> Download:
    """As :func:`ask`, where the answer comes in pieces."""
    headers = {} if body is None else {"Content-Type": JSON}
    return Download(method, filled(path, *parts), bytes, query or {}, headers, None if body is None else msgspec.json.encode(body))


def filled(path: str, *parts: object) -> str:
    """``path`` with each brace replaced by the next of ``parts``, quoted whatever it holds."""
    pieces = path.split("{}")
    return "".join(piece + part for piece, part in zip(pieces, [*(_segment(each) for each in parts), ""], strict=True))


def _segment(part: object) -> str:
    """A part of a path: ``.`` and ``..`` alone would be taken for steps."""
    text = quote(str(part), safe="")
    return text.replace(".", "%2E") if text in (".", "..") else text


def _said(value: object) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def refusal(status: int, content: bytes, retry_after: str = "") -> Refused:
    """The error that an answer of 400 and above is."""
    try:
        problem = msgspec.json.decode(content, type=ProblemDetails)
    except msgspec.DecodeError:
        problem = ProblemDetails(
            type="about:blank",
            title="no problem details",
            status=status,
            detail=f"status {status}, from something that is no Holdfast gateway: {content[:200]!r}",
        )
    return BY_STATUS.get(status, Refused)(problem, float(retry_after) if retry_after.isdecimal() else None)


# ---------------------------------------------------------------------------------- from functions to methods of both clients


class Blocking(Protocol):
    """A client that waits."""

    def do(self, ask: Ask[T], /) -> T: ...

    def pieces(self, ask: Download, /) -> Iterator[bytes]: ...


class Awaiting(Protocol):
    """A client that is awaited."""

    async def do(self, ask: Ask[T], /) -> T: ...

    def pieces(self, ask: Download, /) -> AsyncIterator[bytes]: ...


class Operation(Generic[P, T]):
    """An operation as a method: of the client that waits, and of the one that is awaited."""

    def __init__(self, ask: Callable[P, Ask[T]]) -> None:
        self.ask = ask
        self.__doc__ = ask.__doc__

    @overload
    def __get__(self, client: None, owner: type) -> Operation[P, T]: ...
    @overload
    def __get__(self, client: Blocking, owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, client: Awaiting, owner: type) -> Callable[P, Awaitable[T]]: ...
    def __get__(self, client: Blocking | Awaiting | None, owner: type) -> Operation[P, T] | Callable[P, T] | Callable[P, Awaitable[T]]:
        if client is None:
            return self
        do: Callable[[Ask[T]], Any] = client.do  # Any: T, or what is awaited for it
        return _bound(self.ask, do)


class Export(Generic[P]):
    """An operation whose answer comes in pieces, as a method of both clients."""

    def __init__(self, ask: Callable[P, Download]) -> None:
        self.ask = ask
        self.__doc__ = ask.__doc__

    @overload
    def __get__(self, client: None, owner: type) -> Export[P]: ...
    @overload
    def __get__(self, client: Blocking, owner: type) -> Callable[P, Iterator[bytes]]: ...
    @overload
    def __get__(self, client: Awaiting, owner: type) -> Callable[P, AsyncIterator[bytes]]: ...
    def __get__(
        self, client: Blocking | Awaiting | None, owner: type
    ) -> Export[P] | Callable[P, Iterator[bytes]] | Callable[P, AsyncIterator[bytes]]:
        if client is None:
            return self
        pieces: Callable[[Download], Any] = client.pieces  # Any: one of two kinds of iterator
        return _bound(self.ask, pieces)


def _bound(ask: Callable[P, T], do: Callable[[T], Any]) -> Callable[P, Any]:  # Any: as do gives it
    def method(*args: P.args, **kwargs: P.kwargs) -> Any:  # Any: as do gives it
        return do(ask(*args, **kwargs))

    method.__doc__ = ask.__doc__
    return method
