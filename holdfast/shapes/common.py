"""What all resources share: pages, problems, the description of a length."""

from __future__ import annotations

from typing import Annotated, Generic, Literal, TypeVar

import msgspec
from msgspec import Meta

T = TypeVar("T")

TimeNs = Annotated[int, Meta(description="UTC, nanoseconds since 1970.", examples=[1_795_000_000_000_000_000])]
Value = bool | int | float | str | None
"""One value: see the package."""


class Page(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """A part of a list, in a stable order."""

    items: list[T]
    next: Annotated[str | None, Meta(description="Cursor of the next part: send it as cursor; null at the end.")] = None


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong in what was sent, and where."""

    path: Annotated[str, Meta(description="Where, in the words of the document.", examples=["connections[0].devices[1].unit_id"])]
    message: str
    advice: str = ""
    severity: Literal["error", "warning"] = "error"
    line: Annotated[int, Meta(description="Line of the document, from 1; 0 is unknown.")] = 0


class ProblemDetails(msgspec.Struct, frozen=True, kw_only=True):
    """Why a request was not carried out (RFC 9457)."""

    type: Annotated[str, Meta(description="Kind of the problem, for machines.", examples=["urn:holdfast:problem:not-found"])]
    title: str
    status: int
    detail: str
    instance: str = ""
    advice: Annotated[str, Meta(description="What to do next.")] = ""
    problems: Annotated[list[Fault], Meta(description="Each thing that is wrong in what was sent.")] = []
