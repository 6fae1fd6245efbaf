"""Lists in pages: a cursor names the last thing that was given, so that what is added or removed meanwhile moves nothing.

A cursor is opaque to clients: base64url of the JSON of a sort key. Pure.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final, TypeVar

import msgspec
from litestar.params import Parameter

from gateway.objections import Unfit
from holdfast.shapes.common import Page

T = TypeVar("T")
R = TypeVar("R")
Key = str | int | Sequence[str | int]

MOST: Final = 1000
LONGEST_CURSOR: Final = 2048
PORTION: Final = 50

Limit = Annotated[int, Parameter(ge=1, le=MOST, description="Most entries in one page.")]
Cursor = Annotated[str | None, Parameter(max_length=LONGEST_CURSOR, description="next of the page before; none for the first page.")]


def page(things: Sequence[T], key: Callable[[T], Any], show: Callable[[T], R], *, limit: int, cursor: str | None) -> Page[R]:
    """The page of ``things`` (sorted by ``key``, each key once) that follows ``cursor``. Raises Unfit for a cursor that is none."""
    first = 0 if cursor is None else bisect_right([key(each) for each in things], after(cursor, type(key(things[0])) if things else str))
    some = things[first : first + limit]
    more = first + limit < len(things)
    return Page(items=[show(each) for each in some], next=cursor_of(key(some[-1])) if more else None)


async def page_of(things: Sequence[T], key: Callable[[T], Any], show: Callable[[T], R], *, limit: int, cursor: str | None) -> Page[R]:
    """As :func:`page`, where to show a thing costs something: the loop gets its turn in between."""
    some = page(things, key, lambda one: one, limit=limit, cursor=cursor)
    items: list[R] = []
    for at, one in enumerate(some.items, start=1):
        items.append(show(one))
        if at % PORTION == 0:
            await asyncio.sleep(0)
    return Page(items=items, next=some.next)


def cursor_of(key: Any) -> str:  # Any: a Key, or a tuple of them
    return base64.urlsafe_b64encode(msgspec.json.encode(key)).decode().rstrip("=")


def after(cursor: str, form: type[T]) -> T:
    """The key in ``cursor``. Raises Unfit."""
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)), type=form)
    except (ValueError, binascii.Error):  # msgspec's errors are ValueErrors
        raise Unfit("this cursor is none of ours", "send next of the page before, or none for the first page") from None
