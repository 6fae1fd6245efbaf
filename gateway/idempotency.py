"""What became of writes that carried an Idempotency-Key: durable, for a day, within bounds. See ``gateway/api/idempotency.py``.

A disk that takes nothing keeps nobody from commanding: what cannot be stored is remembered until the next start, and that is said.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final, Literal

import msgspec
import structlog
from sqlite_utils import Database, Migrations

from gateway.objections import Unavailable
from gateway.state import State
from protocols.clock import Clock

log = structlog.get_logger("holdfast.idempotency")

MIGRATIONS: Final = Migrations("idempotency")
LONGEST_S: Final = 24 * 3600
MOST_ANSWERS: Final = 20_000
MOST_BYTES: Final = 32 * 1024 * 1024
LONGEST_ANSWER: Final = 64 * 1024
"""Of a longer one only that it was given is kept."""
MOST_UNSTORED: Final = 200
_SWEEP: Final = 100
"""So many new keys are taken before it is looked for old ones."""


@MIGRATIONS()
def _0001_answers(db: Database) -> None:
    db.table("idempotency").create(
        {"id": str, "print": str, "begun_ns": int, "status": int, "headers": str, "body": bytes, "bytes": int},
        pk="id",
        not_null={"print", "begun_ns", "status", "bytes"},
    )
    db.table("idempotency").create_index(["begun_ns"])


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer that was given."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes | None
    """None where it was too long to be kept."""


class Kept:
    """The answers of one gateway."""

    def __init__(self, state: State, clock: Clock) -> None:
        self._state = state
        self._clock = clock
        self._running: set[str] = set()
        self._since_sweep = _SWEEP
        self._unstored: OrderedDict[str, tuple[str, Answer | None]] = OrderedDict()
        """By id: fingerprint and answer of what the disk did not take."""

    async def begin(self, id: str, fingerprint: str) -> Answer | Literal["begun", "running", "unknown", "other"]:
        """What is known of the write ``id``: its answer; ``begun``, and it is to be carried out now; ``running``, it is being carried
        out; ``unknown``, it was, and nobody saw its end; ``other``, it was another request."""
        if id in self._running:
            return "running"
        if id in self._unstored:
            before, answer = self._unstored[id]
            return "other" if before != fingerprint else "unknown" if answer is None else answer
        self._running.add(id)
        try:
            found = await self._state.do(lambda db: _begin(db, id, fingerprint, self._clock.time_ns()))
        except Unavailable as trouble:
            log.warning("idempotency_key_not_stored", trouble=str(trouble), advice="it is remembered until the next start alone")
            self._unstored[id] = (fingerprint, None)
            if len(self._unstored) > MOST_UNSTORED:
                self._unstored.popitem(last=False)
            return "begun"
        except BaseException:
            self._running.discard(id)
            raise
        if found != "begun":
            self._running.discard(id)
        return found

    async def end(self, id: str, answer: Answer | None) -> None:
        """It ended with ``answer``; None: it changed nothing, or its answer must not be kept."""
        if id in self._unstored:
            self._running.discard(id)
            self._end_unstored(id, answer)
            return
        self._since_sweep += 1
        sweep = self._since_sweep >= _SWEEP
        if sweep:
            self._since_sweep = 0
        try:
            await self._state.do(lambda db: _end(db, id, answer, self._clock.time_ns() if sweep else 0))
        except Unavailable as trouble:  # that it began is stored: after a restart nobody knows its end, and that is said
            log.warning("answer_not_stored", trouble=str(trouble), advice="look at the disk")
        finally:
            self._running.discard(id)

    def _end_unstored(self, id: str, answer: Answer | None) -> None:
        fingerprint, _ = self._unstored.pop(id)
        if answer is not None:
            fits = answer.body is not None and len(answer.body) <= LONGEST_ANSWER
            self._unstored[id] = (fingerprint, answer if fits else Answer(status=answer.status, headers=[], body=None))

    def lost(self, id: str) -> None:
        """It was cut off in the middle: nobody knows its end."""
        self._running.discard(id)


def _begin(db: Database, id: str, fingerprint: str, now_ns: int) -> Answer | Literal["begun", "unknown", "other"]:
    row = db.execute("select print, status, headers, body, begun_ns from idempotency where id = ?", [id]).fetchone()
    if row is None or row[4] <= now_ns - LONGEST_S * 10**9:
        values = [id, fingerprint, now_ns, 0, "[]", None, 0]
        db.execute("insert or replace into idempotency (id, print, begun_ns, status, headers, body, bytes) values (?,?,?,?,?,?,?)", values)
        return "begun"
    if row[0] != fingerprint:
        return "other"
    if row[1] == 0:
        return "unknown"
    return Answer(status=row[1], headers=msgspec.json.decode(row[2], type=list[tuple[str, str]]), body=row[3])


def _end(db: Database, id: str, answer: Answer | None, sweep_ns: int) -> None:
    if answer is None:
        db.execute("delete from idempotency where id = ?", [id])
    else:
        body = answer.body if answer.body is not None and len(answer.body) <= LONGEST_ANSWER else None
        headers = msgspec.json.encode(answer.headers).decode()
        values: list[Any] = [answer.status, headers, body, len(body or b"") + len(headers), id]  # Any: columns
        db.execute("update idempotency set status = ?, headers = ?, body = ?, bytes = ? where id = ?", values)
    if sweep_ns:
        _sweep(db, sweep_ns)


def _sweep(db: Database, now_ns: int) -> None:
    """Forget what is older than a day, then the oldest beyond the bounds."""
    db.execute("delete from idempotency where begun_ns <= ?", [now_ns - LONGEST_S * 10**9])
    count, size = db.execute("select count(*), coalesce(sum(bytes), 0) from idempotency").fetchone()
    while count > MOST_ANSWERS or size > MOST_BYTES:
        db.execute("delete from idempotency where id in (select id from idempotency order by begun_ns limit ?)", [MOST_ANSWERS // 10])
        count, size = db.execute("select count(*), coalesce(sum(bytes), 0) from idempotency").fetchone()
