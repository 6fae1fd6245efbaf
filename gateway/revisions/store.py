"""Where revisions are kept: two tables of the gateway's state. One transaction a step, so that a power cut is between two steps.

The history is bounded in number and in bytes; what runs, what was last confirmed and what was confirmed before it stay whatever
the bounds say.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from sqlite_utils import Database, Migrations

from gateway.revisions.decide import Deadline, Known
from gateway.state import State
from holdfast.shapes.revisions import Difference, Revision

MIGRATIONS: Final = Migrations("revisions")
MOST_REVISIONS: Final = 500
MOST_BYTES: Final = 64 * 1024**2
"""Of all documents together, packed."""
TABLE: Final = "revision"
NOW: Final = "revision_now"


@MIGRATIONS()
def _0001_revisions(db: Database) -> None:
    columns = {"number": int, "head": str, "changes": str, "more": int, "text_diff": str, "document": bytes, "packed_bytes": int}
    db.table(TABLE).create(columns, pk="number", not_null={"head", "document", "packed_bytes"})
    now = {"id": int, "confirmed": int, "before": int, "trial": int, "deadline": str, "file": str}
    db.table(NOW).create(now, pk="id", not_null={"confirmed", "before", "trial", "file"})
    db.table(NOW).insert({"id": 1, "confirmed": 0, "before": 0, "trial": 0, "deadline": None, "file": ""})


@dataclass(frozen=True, slots=True)
class Draft:
    """A revision that has no number yet."""

    head: Revision
    """``number`` is not looked at."""
    document: bytes
    changes: tuple[Difference, ...] = ()
    more_changes: int = 0
    text_diff: str = ""


@dataclass(frozen=True, slots=True)
class Whole:
    """A revision with all that is kept of it."""

    head: Revision
    document: bytes
    changes: list[Difference]
    more_changes: int
    text_diff: str


class Store:
    """All of it is durable when it returns. Raises Unavailable where the disk says no."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def known(self) -> Known:
        return await self._state.do(_known)

    async def add(
        self, draft: Draft, *, deadline: Deadline | None, file: str | None = None, ended: tuple[int, str] | None = None
    ) -> Revision:
        """Keep ``draft``: on trial with a ``deadline``, else as the confirmed one. ``file`` is the identity of the file that is taken
        with it; ``ended`` says which trial it ends, and why."""
        packed = zlib.compress(draft.document, 6)
        return await self._state.do(lambda db: _add(db, draft, packed, deadline, file, ended))

    async def confirm(self, number: int, why: str) -> Revision:
        """The trial ``number`` stays."""
        return await self._state.do(lambda db: _confirm(db, number, why))

    async def started(self, deadline: Deadline) -> None:
        """The trial is started once more."""
        await self._state.do(lambda db: _set(db, deadline=_json(deadline)))

    async def take_file(self, identity: str) -> None:
        """The file is known: it is what runs, or it was decided upon."""
        await self._state.do(lambda db: _set(db, file=identity))

    async def watched(self, number: int, head: Revision) -> None:
        """Keep what was seen after the swap."""
        await self._state.do(lambda db: _change(db, number, watched=head.watched, worse=head.worse))

    async def head(self, number: int) -> Revision | None:
        return await self._state.do(lambda db: _head(db, number))

    async def whole(self, number: int) -> Whole | None:
        return await self._state.do(lambda db: _whole(db, number))

    async def page(self, below: int | None, limit: int) -> list[Revision]:
        """The newest first, all with numbers below ``below``."""
        return await self._state.do(lambda db: _page(db, below, limit))

    async def confirmed_before(self, number: int) -> int:
        """The newest revision before ``number`` that was confirmed and holds another document; 0 where there is none."""
        return await self._state.do(lambda db: _confirmed_before(db, number))


def _json(value: Any) -> str:  # Any: a Struct of ours
    return msgspec.json.encode(value).decode()


def _now(db: Database) -> dict[str, Any]:  # Any: the columns of a row
    row: dict[str, Any] = db.table(NOW).get(1)
    return row


def _set(db: Database, **columns: Any) -> None:  # Any: as above
    db.table(NOW).update(1, columns)


def _known(db: Database) -> Known:
    row = _now(db)
    deadline = msgspec.json.decode(row["deadline"], type=Deadline) if row["deadline"] else None
    return Known(confirmed=row["confirmed"], trial=row["trial"], deadline=deadline, file=row["file"])


def _add(db: Database, draft: Draft, packed: bytes, deadline: Deadline | None, file: str | None, ended: tuple[int, str] | None) -> Revision:
    number = int(next(db.query(f"select coalesce(max(number), 0) + 1 as next from {TABLE}"))["next"])
    head = msgspec.structs.replace(draft.head, number=number, standing="confirmed" if deadline is None else "trial")
    db.table(TABLE).insert(
        {
            "number": number,
            "head": _json(head),
            "changes": _json(draft.changes),
            "more": draft.more_changes,
            "text_diff": draft.text_diff,
            "document": packed,
            "packed_bytes": len(packed),
        }
    )
    if ended is not None:
        _change(db, ended[0], standing="reverted", ended=ended[1])
        _set(db, trial=0, deadline=None)
    if deadline is None:
        _set(db, before=_now(db)["confirmed"], confirmed=number)
    else:
        _set(db, trial=number, deadline=_json(deadline))
    if file is not None:
        _set(db, file=file)
    _prune(db)
    return head


def _confirm(db: Database, number: int, why: str) -> Revision:
    now = _now(db)
    _set(db, before=now["confirmed"], confirmed=number, trial=0, deadline=None)
    return _change(db, number, standing="confirmed", ended=why)


def _change(db: Database, number: int, **fields: Any) -> Revision:  # Any: fields of a Revision
    head = _head(db, number)
    assert head is not None, f"revision {number} is kept"
    head = msgspec.structs.replace(head, **fields)
    db.table(TABLE).update(number, {"head": _json(head)})
    return head


def _head(db: Database, number: int) -> Revision | None:
    rows = list(db.query(f"select head from {TABLE} where number = ?", [number]))
    return msgspec.json.decode(rows[0]["head"], type=Revision) if rows else None


def _whole(db: Database, number: int) -> Whole | None:
    rows = list(db.query(f"select * from {TABLE} where number = ?", [number]))
    if not rows:
        return None
    row = rows[0]
    return Whole(
        head=msgspec.json.decode(row["head"], type=Revision),
        document=zlib.decompress(row["document"]),
        changes=msgspec.json.decode(row["changes"], type=list[Difference]),
        more_changes=row["more"],
        text_diff=row["text_diff"],
    )


def _page(db: Database, below: int | None, limit: int) -> list[Revision]:
    query = f"select head from {TABLE} where number < ? order by number desc limit ?"
    rows = db.query(query, [2**62 if below is None else below, limit])
    return [msgspec.json.decode(row["head"], type=Revision) for row in rows]


def _confirmed_before(db: Database, number: int) -> int:
    this = _head(db, number)
    for head in _page(db, number, MOST_REVISIONS):
        if head.standing == "confirmed" and (this is None or head.digest != this.digest):
            return head.number
    return 0


def _prune(db: Database) -> None:
    now = _now(db)
    keep = {now["confirmed"], now["before"], now["trial"]}
    count = total = 0
    for row in list(db.query(f"select number, packed_bytes from {TABLE} order by number desc")):
        count, total = count + 1, total + row["packed_bytes"]
        if row["number"] not in keep and (count > MOST_REVISIONS or total > MOST_BYTES):
            db.table(TABLE).delete(row["number"])
